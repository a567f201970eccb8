//! Writing an incarnation's journal: take it over, then append chunk after chunk.
//!
//! What always holds: what [`Writer::append`] returned `Ok` for is part of the journal for ever (`FORMAT.md` section 5 argues it,
//! [`crate::protocol`] decides it); one put is in flight at a time; chunks are appended in the order in which they were
//! encoded. A crash leaves at most one chunk that nobody counted.
//! What it does not do: it does not know where the bytes come from, and it never deletes.

mod tailing;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::error::JournalError;
use crate::format::body::{self, GapBody, OpeningBody, TimelineBody};
use crate::format::object::{ChainUse, Compression, Draft, Encoded, Framed, MAX_FRAME_BYTES, Piece};
use crate::format::pack::{Packed, Packer};
use crate::format::{ChainValue, DataKey, FormatError, Header, Kind, Mark, Recipients};
use crate::identity::{Generation, IncarnationId, Sequence, StoreId, WriterId};
use crate::moment::Moment;
use crate::position::{Offset, Position};
use crate::protocol::{Act, Appended, Appending, Opened, Opening, Seen};
use crate::reader::Reader;
use crate::store::{Created, Key, Operation, Retry, StoreError};
use crate::tail::{self, Settled};

pub use self::tailing::{TailTakes, encode_entry};

/// The shortest tidy grace that a store may be set to, and so the one that writers reckon with (R6).
pub const TIDY_GRACE: Duration = Duration::from_secs(24 * 3600);
/// The first and the longest pause after a store's failure. Jitter comes from the store's own answers' times.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);
/// How often, and how long between, it is looked for the opening of whoever put a writer's own entries.
const OPENING_LOOKS: u32 = 10;
const OPENING_LOOK: Duration = Duration::from_millis(100);
/// How old its opening is before an owner opens anew for the sake of its tails.
const REOPENED: Duration = Duration::from_secs(10);
/// How often bytes that are no object are read at an append's own name before they are believed.
const GARBLED: u32 = 8;

/// How a writer encodes.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// How frames are compressed.
    pub compression: Compression,
    /// For whom data keys are wrapped; nobody: nothing is encrypted.
    pub recipients: Recipients,
    /// Bytes of one of the source's log segments: no frame crosses a boundary of these.
    pub segment_bytes: u64,
    /// This machine's name, for the opening.
    pub host: String,
}

/// Where a chunk would stand, and with what it would be encoded: all that [`encode_data`] needs, so that it can run on
/// another thread while the chunk before is being put.
#[derive(Debug, Clone)]
pub struct Place {
    store: StoreId,
    incarnation: IncarnationId,
    number: Sequence,
    generation: Generation,
    writer: WriterId,
    chain: ChainValue,
    at: Position,
    compression: Compression,
    key: Option<DataKey>,
    segment_bytes: u64,
}

impl Place {
    /// Where the journal stands before this chunk.
    pub fn at(&self) -> Position {
        self.at
    }

    /// The chain value of everything before this chunk.
    pub fn chain(&self) -> ChainValue {
        self.chain
    }

    /// How frames are compressed here.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The generation's data key; none without encryption.
    pub(crate) fn key(&self) -> Option<&DataKey> {
        self.key.as_ref()
    }

    /// Who writes here.
    pub fn writer_id(&self) -> WriterId {
        self.writer
    }

    /// Bytes of one of the source's log segments.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The number that the chunk would have.
    pub fn number(&self) -> Sequence {
        self.number
    }

    /// The place behind `chunk`, which was encoded for this one.
    fn behind(&self, chunk: &Encoded) -> Option<Self> {
        let at = chunk.header.end_position();
        Some(Self { number: self.number.next()?, chain: chunk.header.after, at, ..self.clone() })
    }

    fn draft(&self, kind: Kind, at: Position, end: Offset) -> Draft {
        Draft {
            kind,
            store: self.store,
            incarnation: self.incarnation,
            number: self.number,
            generation: self.generation,
            writer: self.writer,
            timeline: at.timeline,
            start: at.offset,
            end,
            written_at: now_micros(),
            chain: ChainUse::StepsFrom(self.chain),
            mark: Mark::NONE,
        }
    }

    fn encode_body<T: serde::Serialize>(
        &self,
        kind: Kind,
        at: Position,
        end: Offset,
        value: &T,
    ) -> Result<Encoded, JournalError> {
        let json = body::to_json("chunk's body", value)
            .map_err(|source| JournalError::Encode { what: "chunk's body", source })?;
        let pieces = [Piece { end: json.len() as u64, plain: &json }];
        let encoded = self.draft(kind, at, end).encode(&pieces, Compression::None, None);
        encoded.map_err(encode_error)
    }
}

fn encode_error(source: FormatError) -> JournalError {
    JournalError::Encode { what: "chunk", source }
}

/// Encodes log bytes that continue the journal at `place`; the place behind comes with the chunk, so that the next one
/// can be encoded before this one is put. Takes a core for as long as compression takes.
///
/// # Errors
/// [`JournalError::Encode`] when `log` is empty, or larger than an object may be.
pub fn encode_data(place: &Place, log: &[u8]) -> Result<(Encoded, Place), JournalError> {
    encode_marked(place, log, Mark::NONE)
}

/// As [`encode_data`], with what the engine says of the position behind it.
///
/// # Errors
/// As there.
pub fn encode_marked(place: &Place, log: &[u8], mark: Mark) -> Result<(Encoded, Place), JournalError> {
    let mut packer = Packer::new(place.compression).map_err(encode_error)?;
    let frames = frames_of(place, log, |plain| packer.pack(plain))?;
    encode_packed(place, frames, mark)
}

/// Log in the frames that it has at `place`, each as long as it may be.
fn frames_of(
    place: &Place,
    log: &[u8],
    mut pack: impl FnMut(&[u8]) -> Result<Packed, FormatError>,
) -> Result<Vec<Packed>, JournalError> {
    let (mut frames, mut at, mut rest) = (Vec::new(), place.at.offset, log);
    while !rest.is_empty() {
        let (plain, behind) = rest.split_at(rest.len().min(frame_room(at, place.segment_bytes)));
        frames.push(pack(plain).map_err(encode_error)?);
        at = Offset::new(at.get() + plain.len() as u64);
        rest = behind;
    }
    Ok(frames)
}

/// Encodes log that was packed as `place` has it compressed ([`Place::compression`]), in frames of at most [`frame_room`] bytes
/// each, with what the engine says of the position behind it. Otherwise as [`encode_data`].
///
/// # Errors
/// As [`encode_data`]; when a frame is longer than its room, too.
pub fn encode_packed(
    place: &Place,
    frames: Vec<Packed>,
    mark: Mark,
) -> Result<(Encoded, Place), JournalError> {
    let mut at = place.at.offset;
    let framed = frames.into_iter().map(|packed| {
        if packed.plain_bytes() > frame_room(at, place.segment_bytes) as u64 {
            return Err(encode_error(FormatError::Field { field: "plain length" }));
        }
        at = Offset::new(at.get() + packed.plain_bytes());
        Ok(Framed { end: at.get(), packed })
    });
    let framed = framed.collect::<Result<_, _>>()?;
    let draft = Draft { mark, ..place.draft(Kind::Data, place.at, at) };
    let chunk = draft.assemble(framed, place.compression.codec(), place.key.as_ref());
    finish(place, chunk.map_err(encode_error)?)
}

/// Most bytes of the frame that begins at `at`: none is longer than a frame may be, none crosses a log segment's boundary, so that
/// a restarted source's bytes can be compared from its segment's start along the frames' ends.
pub fn frame_room(at: Offset, segment_bytes: u64) -> usize {
    let to_boundary = segment_bytes - at.get() % segment_bytes;
    usize::try_from(to_boundary).map_or(MAX_FRAME_BYTES, |bytes| bytes.min(MAX_FRAME_BYTES))
}

/// Encodes the begin of a branch: `branch` is where the new timeline leaves its parent.
///
/// # Errors
/// [`JournalError::Encode`] when the history file is larger than a frame.
pub fn encode_timeline(
    place: &Place,
    branch: Position,
    body: &TimelineBody,
) -> Result<(Encoded, Place), JournalError> {
    finish(place, place.encode_body(Kind::Timeline, branch, branch.offset, body)?)
}

/// Encodes a gap: bytes from the journal's end to `end` that are gone for good.
///
/// # Errors
/// [`JournalError::Encode`] when the gap would be empty.
pub fn encode_gap(place: &Place, end: Offset, body: &GapBody) -> Result<(Encoded, Place), JournalError> {
    finish(place, place.encode_body(Kind::Gap, place.at, end, body)?)
}

fn finish(place: &Place, chunk: Encoded) -> Result<(Encoded, Place), JournalError> {
    let behind = place.behind(&chunk).ok_or(JournalError::NotHeld { what: "any number more".to_owned() })?;
    Ok((chunk, behind))
}

/// The owner of a journal: the only one whose appends count, until another opens.
#[derive(Debug)]
pub struct Writer {
    reader: Reader,
    place: Place,
    /// Behind the last entry of the tail that counts: what is before it is stored.
    round: Place,
    /// Where the next one would stand: behind all that were sent.
    ahead: Place,
    /// Behind each that was sent and not heard of, in order.
    flying: VecDeque<Place>,
    /// Up to where entries were sent in this round: the next chunk holds them, counted or not (T1).
    sent: Offset,
    tail: tail::Owned,
    former_sent: Moment,
    /// What stood at the end before this writer's first opening.
    found: Option<Header>,
    /// When its newest opening was begun, and the number behind it.
    opened: (Moment, Sequence),
    /// An append was begun and not seen to its end, or another writer was met: nothing may be appended any more.
    poisoned: bool,
}

impl Writer {
    /// Takes the journal over: appends an opening at the first free number. `empty_at` is where an empty journal begins.
    /// `trouble` is told of each failure of the store that is waited out.
    ///
    /// On `Ok` the opening is durable, and no older writer's chunk will ever be counted again.
    ///
    /// # Errors
    /// [`JournalError::Hole`], [`JournalError::Broken`], [`JournalError::Object`] when the journal's end is not whole;
    /// failures of the store that waiting does not mend. Others are waited out for ever: the caller's cancellation ends that.
    ///
    /// # Cancel safety
    /// Dropped midway, an opening may or may not stand; the next takeover finds out.
    pub async fn take_over(
        reader: Reader,
        options: &WriterOptions,
        empty_at: Position,
        trouble: &(dyn Fn(&StoreError) + Sync),
    ) -> Result<Self, JournalError> {
        let writer = WriterId::mint();
        let (key, body) = opening(options)?;
        loop {
            // R6 holds for the opening too: what was read of the end must not be older than half the grace when it stands.
            let read = Moment::now();
            let mut pause = Pause::new();
            let found = loop {
                match closed_end(&reader, trouble).await {
                    Ok(Some(found)) => break found,
                    // Somebody puts as well: from the end that there is now.
                    Ok(None) => {}
                    Err(JournalError::Store(why)) => pause.after(why, trouble).await?,
                    Err(why) => return Err(why),
                }
            };
            let place = Self::first_place(&reader, options, empty_at, writer, key.clone(), found.as_ref())?;
            let chunk = place.encode_body(Kind::Opening, place.at, place.at.offset, &body)?;
            let mut opening = Opening::at(place.number);
            let mut pause = Pause::new();
            let opened = loop {
                let seen = act(&reader, opening.act(), &chunk.bytes, &mut pause, trouble).await?;
                match opening.seen(seen, read.elapsed(), TIDY_GRACE) {
                    Opened::Open => {}
                    done => break done,
                }
            };
            if opened == Opened::Owned {
                let place = place
                    .behind(&chunk)
                    .ok_or(JournalError::NotHeld { what: "any number more".to_owned() })?;
                let opened = (read, place.number);
                tail::remove_before(&reader, place.generation).await;
                let (round, sent, tail) = (place.clone(), place.at.offset, tail::Owned::default());
                return Ok(Self {
                    reader,
                    place,
                    ahead: round.clone(),
                    round,
                    flying: VecDeque::new(),
                    sent,
                    tail,
                    former_sent: read,
                    found,
                    opened,
                    poisoned: false,
                });
            }
            // Another object stands at the number, or too much time has passed: read the journal's end anew.
        }
    }

    fn first_place(
        reader: &Reader,
        options: &WriterOptions,
        empty_at: Position,
        writer: WriterId,
        key: Option<DataKey>,
        last: Option<&Header>,
    ) -> Result<Place, JournalError> {
        let exhausted = || JournalError::NotHeld { what: "any number more".to_owned() };
        Ok(Place {
            store: reader.store_id(),
            incarnation: reader.incarnation(),
            number: last.map_or(Some(Sequence::FIRST), |h| h.number.next()).ok_or_else(exhausted)?,
            generation: last
                .map_or(Some(Generation::FIRST), |h| h.generation.next())
                .ok_or_else(exhausted)?,
            writer,
            chain: last.map_or(reader.genesis(), |h| h.after),
            at: last.map_or(empty_at, Header::end_position),
            compression: options.compression,
            key,
            segment_bytes: options.segment_bytes,
        })
    }

    /// The journal, to be read.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Where the next chunk will stand.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// This writer's generation.
    pub fn generation(&self) -> Generation {
        self.place.generation
    }

    /// Stored up to here, and no further: the end of the journal's chunks, or of what the tail holds behind them.
    pub fn stored(&self) -> Position {
        self.round.at
    }

    /// The last chunk before this writer's opening; `None` when the journal was empty.
    pub fn found(&self) -> Option<&Header> {
        self.found.as_ref()
    }

    /// Appends a chunk that was encoded for [`place`](Self::place). On `Ok` it is durable and part of the journal for ever.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] when another writer took over: stop for good. [`JournalError::OpenAnew`]: this writer is of no
    /// use any more, take the journal over again.
    /// Failures of the store are waited out, `trouble` being told, unless waiting cannot mend them.
    ///
    /// # Cancel safety
    /// Dropped midway, the chunk may or may not stand; this writer must not be used again, the next takeover finds out.
    ///
    /// # Panics
    /// Never: a chunk for another place is refused as [`JournalError::Broken`].
    pub async fn append(
        &mut self,
        chunk: &Encoded,
        trouble: &(dyn Fn(&StoreError) + Sync),
    ) -> Result<(), JournalError> {
        let number = self.place.number;
        if chunk.header.number != number || chunk.header.before != self.place.chain {
            return Err(JournalError::Broken { before: number, at: chunk.header.number });
        }
        if self.poisoned {
            return Err(JournalError::OpenAnew { at: number });
        }
        // T1: what was sent to the tail is in the next chunk, and was heard of.
        let holds_tail = chunk.header.kind == Kind::Data && chunk.header.end >= self.sent;
        if self.has_tail() && !holds_tail || self.is_in_flight() {
            return Err(JournalError::Broken { before: number, at: number });
        }
        self.poisoned = true;
        let mut appending = Appending::at(number);
        let sent = Moment::now();
        let mut pause = Pause::new();
        loop {
            let seen = act(&self.reader, appending.act(), &chunk.bytes, &mut pause, trouble).await?;
            match appending.seen(seen, self.former_sent.elapsed(), TIDY_GRACE) {
                Appended::Open => {}
                Appended::Stored => break,
                Appended::TooLate => return Err(JournalError::OpenAnew { at: number }),
                Appended::Fenced => return Err(self.fenced(number).await),
            }
        }
        self.poisoned = false;
        self.former_sent = sent;
        let (_, behind) = finish(&self.place, chunk.clone())?;
        (self.round, self.ahead) = (behind.clone(), behind.clone());
        self.sent = behind.at.offset;
        self.place = behind;
        self.tail.begin_anew();
        Ok(())
    }

    /// Opens anew behind what it stored last (R8): the generation after its own, with a data key of its own. On `Ok` the opening is durable, and what is
    /// encoded from here on is of the new generation; what was encoded before is refused.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    ///
    /// # Cancel safety
    /// As there.
    pub async fn renew(
        &mut self,
        options: &WriterOptions,
        trouble: &(dyn Fn(&StoreError) + Sync),
    ) -> Result<(), JournalError> {
        let begun = Moment::now();
        let exhausted = || JournalError::NotHeld { what: "any generation more".to_owned() };
        let generation = self.place.generation.next().ok_or_else(exhausted)?;
        let (key, body) = opening(options)?;
        let place = Place { generation, key, ..self.place.clone() };
        let chunk = place.encode_body(Kind::Opening, place.at, place.at.offset, &body)?;
        self.append(&chunk, trouble).await?;
        (self.place.generation, self.place.key) = (place.generation, place.key);
        (self.round, self.ahead) = (self.place.clone(), self.place.clone());
        // The new generation's tails lie elsewhere.
        self.tail = tail::Owned::default();
        tail::remove_before(&self.reader, self.place.generation).await;
        self.opened = (begun, self.place.number);
        Ok(())
    }

    /// Whether it is to open anew: something was appended since its newest opening, which is this old, or whose tails somebody closed who did not open. Not where it is [stale](Self::is_stale): what it confirms next counts
    /// for nothing, and whoever takes the journal over again opens it.
    pub fn is_due(&self, age: Duration) -> bool {
        let (begun, behind) = self.opened;
        let is_old = begun.elapsed() >= age || self.tail.wants_another() && begun.elapsed() >= REOPENED;
        self.place.number > behind && is_old && !self.has_tail() && !self.is_stale()
    }

    /// Who stands at this writer's number. A chunk of its own, from an append that was given up, does not fence it.
    async fn fenced(&self, at: Sequence) -> JournalError {
        match self.stands_at(at).await {
            Ok(None) => JournalError::OpenAnew { at },
            Ok(Some(by)) => JournalError::Fenced { own: self.place.generation, by: Some(by), at },
            // Of what stands there nothing reads: it is none of this writer's.
            Err(why) if why.is_damage() => JournalError::Fenced { own: self.place.generation, by: None, at },
            Err(why) => why,
        }
    }

    /// Who else owns the journal, of whom chunk `at` or one behind it is, where there is one. Chunks of this writer's own may stand before his: entries of its tail that he put.
    ///
    /// # Errors
    /// When chunk `at` or the journal's end does not read.
    pub async fn stands_at(&self, at: Sequence) -> Result<Option<(Generation, WriterId)>, JournalError> {
        let other = |header: &Header| (!self.wrote(header)).then_some((header.generation, header.writer));
        let there = other(self.reader.chunk(at).await?.header());
        match there {
            Some(_) => Ok(there),
            None => {
                // Whoever put this writer's entries opens right behind them, unless he merely reads.
                for _ in 0..OPENING_LOOKS {
                    let by = self.reader.chunks_end().await?.and_then(|last| other(last.header()));
                    if by.is_some() {
                        return Ok(by);
                    }
                    tokio::time::sleep(OPENING_LOOK).await;
                }
                Ok(None)
            }
        }
    }

    /// Whether this writer made the object with this header.
    pub fn wrote(&self, header: &Header) -> bool {
        header.writer == self.place.writer
    }

    /// Whether this writer is of no use any more: an append was given up midway, or so much time has passed since the last
    /// send that the next confirmation would count for nothing (R6).
    pub fn is_stale(&self) -> bool {
        self.poisoned || self.former_sent.elapsed() >= TIDY_GRACE / 2
    }
}

/// The journal's end behind which an opener opens, the tails of the generation that stands there being closed and empty (T5, T6). The outer `None`: somebody else put something meanwhile.
async fn closed_end(
    reader: &Reader,
    trouble: &(dyn Fn(&StoreError) + Sync),
) -> Result<Option<Option<Header>>, JournalError> {
    let Some(last) = reader.chunks_end().await? else { return Ok(Some(None)) };
    let Some(tails) = reader.store().tails().there() else { return Ok(Some(Some(last.header().clone()))) };
    Ok(match tail::settle(reader, tails, last.header(), trouble).await? {
        Settled::At(end) => Some(Some(*end)),
        Settled::Moved => None,
    })
}

/// What an opening says, and the data key that its generation is sealed with.
fn opening(options: &WriterOptions) -> Result<(Option<DataKey>, OpeningBody), JournalError> {
    let encode = |source| JournalError::Encode { what: "data key", source };
    let key = (!options.recipients.is_empty()).then(DataKey::mint).transpose().map_err(encode)?;
    let wrapped = key.as_ref().map(|key| key.wrap(&options.recipients)).transpose().map_err(encode)?;
    let body = OpeningBody {
        host: options.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: chrono::Utc::now().to_rfc3339(),
        key: wrapped,
    };
    Ok((key, body))
}

/// Carries one act out and says what was seen; waits after a failure.
async fn act(
    reader: &Reader,
    act: Act,
    bytes: &Bytes,
    pause: &mut Pause,
    trouble: &(dyn Fn(&StoreError) + Sync),
) -> Result<Seen, JournalError> {
    match act {
        Act::Put(number) => match reader.store().create(&reader.layout().chunk(number)?, bytes.clone()).await
        {
            Ok(Created::New) => Ok(Seen::New),
            Ok(Created::Exists) => Ok(Seen::Exists),
            Err(why) => {
                let seen = if why.is_ambiguous() { Seen::Unknown } else { Seen::Nothing };
                pause.after(why, trouble).await?;
                Ok(seen)
            }
        },
        Act::Read(number) => match reader.store().get(&reader.layout().chunk(number)?).await {
            Ok(there) if there == *bytes => Ok(Seen::Own),
            Ok(there) => match Header::decode(&there) {
                Ok(_) => Ok(Seen::Other),
                Err(source) => {
                    pause.garbled(reader.layout().chunk(number)?, source, trouble).await?;
                    Ok(Seen::Nothing)
                }
            },
            Err(StoreError::NotFound { .. }) => {
                pause.wait().await;
                Ok(Seen::Absent)
            }
            Err(why) => {
                pause.after(why, trouble).await?;
                Ok(Seen::Nothing)
            }
        },
    }
}

/// Growing pauses between tries.
pub(crate) struct Pause {
    next: Duration,
    garbled: u32,
}

impl Pause {
    pub(crate) fn new() -> Self {
        Self { next: PAUSE_FIRST, garbled: 0 }
    }

    /// Bytes that are no object say nothing about who stands there: they may be a garbled answer. When they stay, they are the object,
    /// and whoever waits for another one waits for ever.
    async fn garbled(
        &mut self,
        key: Key,
        source: FormatError,
        trouble: &(dyn Fn(&StoreError) + Sync),
    ) -> Result<(), JournalError> {
        self.garbled += 1;
        if self.garbled >= GARBLED {
            return Err(JournalError::Object { key, source });
        }
        trouble(&StoreError::Answer {
            operation: Operation::Get,
            what: key.to_string(),
            reason: source.to_string(),
            ambiguous: false,
        });
        self.wait().await;
        Ok(())
    }

    /// Tells of the trouble and waits, or gives the failure back when waiting cannot mend it.
    pub(crate) async fn after(
        &mut self,
        why: StoreError,
        trouble: &(dyn Fn(&StoreError) + Sync),
    ) -> Result<(), JournalError> {
        if why.retry() == Retry::Never {
            return Err(why.into());
        }
        trouble(&why);
        self.wait().await;
        Ok(())
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(PAUSE_LONGEST);
    }
}

fn now_micros() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn owner() -> (Writer, WriterOptions) {
        use std::sync::Arc;

        use crate::position::Timeline;
        use crate::registry::{Founding, Repository};
        use crate::store::ObjectStore;
        use crate::store::memory::MemoryStore;

        let now = "2026-11-25T00:00:00Z";
        let store = Arc::new(MemoryStore::new()) as Arc<dyn ObjectStore>;
        let repository = Repository::open_or_found(store, now).await.unwrap();
        let database = "orders".parse().unwrap();
        let founding = Founding {
            database: &database,
            number: 0,
            engine: "postgres",
            identity: "7",
            major: 15,
            segment_bytes: 1 << 20,
            now,
            reason: "first",
        };
        let record = repository.found_incarnation(founding).await.unwrap();
        let options = WriterOptions {
            compression: Compression::None,
            recipients: Recipients::default(),
            segment_bytes: 1 << 20,
            host: "here".to_owned(),
        };
        let at = Position::new(Timeline::new(1), Offset::new(0));
        let reader = Reader::new(&repository, &record).unwrap();
        (Writer::take_over(reader, &options, at, &|_| {}).await.unwrap(), options)
    }

    async fn append(writer: &mut Writer) {
        let (chunk, _) = encode_data(writer.place(), b"log").unwrap();
        writer.append(&chunk, &|_| {}).await.unwrap();
    }

    /// A confirmation behind half a day of silence counts for nothing (R6): whoever appends next takes the journal over anyway.
    #[tokio::test]
    async fn a_journal_is_opened_anew_once_a_day_of_log_and_never_by_whoever_was_silent_for_too_long() {
        let day = TIDY_GRACE;
        let (mut writer, options) = owner().await;
        writer.opened.0 = Moment::ago(day);
        assert!(!writer.is_due(day), "nothing was appended");
        append(&mut writer).await;
        assert!(writer.is_due(day));
        writer.former_sent = Moment::ago(day / 2);
        assert!(!writer.is_due(day) && writer.is_stale());
        writer.former_sent = Moment::ago(day / 3);
        let before = (writer.generation(), writer.place.writer, writer.stored());
        writer.renew(&options, &|_| {}).await.unwrap();
        let after = (writer.generation(), writer.place.writer, writer.stored());
        assert_eq!(after, (before.0.next().unwrap(), before.1, before.2));
        assert!(!writer.is_due(day));
        append(&mut writer).await;
        assert!(!writer.is_due(day), "the new opening is young");
    }

    /// A chunk of the former generation is none of the new one's.
    #[tokio::test]
    async fn what_was_encoded_before_an_opening_is_refused_behind_it() {
        let (mut writer, options) = owner().await;
        let (chunk, _) = encode_data(writer.place(), b"log").unwrap();
        writer.renew(&options, &|_| {}).await.unwrap();
        let refused = writer.append(&chunk, &|_| {}).await;
        assert!(matches!(refused, Err(JournalError::Broken { .. })), "{refused:?}");
        append(&mut writer).await;
    }

    proptest! {
        #[test]
        fn no_frame_crosses_a_log_segment_or_is_shorter_than_that_asks_for(
            start in 0..10_000_000u64, bytes in 1..4_000_000usize, segment in 20..24u32,
        ) {
            let segment_bytes = 1u64 << segment;
            let mut at = start;
            while at < start + bytes as u64 {
                let room = frame_room(Offset::new(at), segment_bytes);
                prop_assert!((1..=MAX_FRAME_BYTES).contains(&room));
                let end = at + room as u64;
                prop_assert_eq!(at / segment_bytes, (end - 1) / segment_bytes);
                prop_assert!(room == MAX_FRAME_BYTES || end.is_multiple_of(segment_bytes), "a frame is as long as it may be");
                at = end;
            }
        }
    }
}
