//! The tail of a journal: what counts as stored before it is a chunk. `FORMAT.md` section 5a has rules and argument.
//!
//! ```text
//! owner:      entry ─▶ append, flush, look (T2) ─▶ counted ……… one chunk of all of it ─▶ next round
//! who opens:  end ─▶ close ─▶ end anew ─▶ entries that continue it ─▶ each a chunk ─▶ opening
//! who reads:  end ─▶ entries that continue it? wait for their chunk; where none comes, as who opens, without the opening
//! ```
//!
//! What always holds: an entry is counted only by T2 and T3, and whatever fails ends the tail; nobody opens, or says where the end is, over entries that continue it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::time::Sleep;

use crate::chunk::Chunk;
use crate::error::JournalError;
use crate::format::{Decoded, Header, Kind};
use crate::identity::Generation;
use crate::moment::Moment;
use crate::position::Position;
use crate::protocol::{Act, Put, Seen, Verdict};
use crate::reader::{Reader, follows};
use crate::store::tails::{Appending, ENTRY_ALIGN, Peeked, Standing, TAIL_BYTES, Tail, Tails};
use crate::store::{Created, HasTails, Key, KeyPrefix, Operation, Retry, StoreError};
use crate::writer::Pause;

/// How long a tail must stand still before a reader takes its owner for gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an entry is tried to be put beside failures of the store.
const TRIES: u32 = 8;
/// How often it is looked for the chunk that a tail is to become.
const LOOK: Duration = Duration::from_millis(20);
/// How often, before the tail itself is looked at again.
const LOOKS: usize = 25;
/// How long somebody else is waited for who may make chunks of it.
const DENIED: Duration = Duration::from_secs(15);
/// How long deleting old tails may take.
const REMOVAL: Duration = Duration::from_secs(1);
/// How long an append may take: a put is better then.
const ANSWER: Duration = Duration::from_secs(2);
/// How many tails a generation begins before its owner opens anew, so that the old ones go; and how many at most.
const MANY: u32 = 8;
const MOST: u32 = 32;
/// For how long none is begun after one failed: each is a megabyte of zeros.
const REST: Duration = Duration::from_secs(5);

/// The entries of tails that are of this journal's generation, as many as read, wherever one begins.
fn entries(reader: &Reader, generation: Generation, standing: &[Standing]) -> Vec<Decoded> {
    let is_own = |header: &Header| {
        (header.kind, header.generation) == (Kind::Data, generation)
            && (header.store, header.incarnation) == (reader.store_id(), reader.incarnation())
    };
    let mut all = Vec::new();
    for tail in standing {
        let mut at = 0;
        while at < tail.bytes.len() {
            let rest = tail.bytes.slice(at..);
            let length = Header::decode(&rest).ok().filter(is_own).map(|header| header.object_bytes());
            let length =
                length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= rest.len());
            at += match length.map(|length| (length, Decoded::parse(rest.slice(..length)))) {
                Some((length, Ok(entry))) => {
                    all.push(entry);
                    length.next_multiple_of(ENTRY_ALIGN)
                }
                _ => ENTRY_ALIGN,
            };
        }
    }
    all
}

/// The entries that continue the journal behind `end`, in order.
fn continuing<'a>(end: &Header, all: &'a [Decoded]) -> Vec<&'a Decoded> {
    let mut found: Vec<&Decoded> = Vec::new();
    let mut last = end;
    while let Some(next) = all.iter().find(|entry| follows(last, entry.header())) {
        last = next.header();
        found.push(next);
    }
    found
}

/// Where an entry begins that reads, and begins behind where the journal's end and its entries lead: what is before it was written earlier, may have counted, and is lost (T6). None of an older timeline: a newer one may
/// begin before the end of that.
fn torn(end: &Header, going_on: &[&Decoded], all: &[Decoded]) -> Option<Position> {
    let last = going_on.last().map_or(end, |entry| entry.header());
    let behind = |header: &&Header| header.timeline == last.timeline && header.start > last.end;
    all.iter().map(Decoded::header).find(behind).map(|header| Position::new(header.timeline, header.start))
}

/// The entries that stand in a folder's tails, and whether any was written just now. What reads as torn is read once more: a read beside a write may see the later of two entries and miss the earlier.
async fn read(
    reader: &Reader,
    tails: &dyn Tails,
    folder: &KeyPrefix,
    end: &Header,
) -> Result<(Vec<Decoded>, bool), JournalError> {
    let mut was_torn = false;
    loop {
        let standing = tails.read(folder).await?;
        let all = entries(reader, end.generation, &standing);
        if was_torn || torn(end, &continuing(end, &all), &all).is_none() {
            return Ok((all, standing.iter().any(|tail| tail.is_fresh)));
        }
        was_torn = true;
    }
}

/// Says that log is lost which a tail goes on behind, unless a chunk came since the end was read: then the next round is behind that.
async fn say_torn(reader: &Reader, end: &Header, behind: Position) -> Result<bool, JournalError> {
    if reader.is_behind(end).await? {
        return Ok(false);
    }
    tracing::warn!(journal = %reader.layout().journal(), end = %end.end_position(), %behind,
        "log may be lost that counted as stored: the journal's tail goes on behind the end of what reads, and behind a loss of power one that never counted may be missing; whoever ships compares from there on");
    Ok(true)
}

/// What settling came to.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The folder is closed, and behind this chunk nothing of it continues the journal.
    At(Box<Header>),
    /// Somebody else put something meanwhile: read the end anew, and begin again.
    Moved,
}

/// Closes the tails of the journal's newest generation and puts what of them continues it (T5, T6). `end` is the journal's end as it was just read.
///
/// On [`Settled::At`] whatever was counted up to the closing is in chunks, and nothing of that generation's tails will be counted any more.
///
/// # Errors
/// Of the store. Nothing is lost by any: what was closed is closed, and what was put is as it was.
pub(crate) async fn settle(
    reader: &Reader,
    tails: &dyn Tails,
    end: &Header,
    trouble: &(dyn Fn(&StoreError) + Sync),
) -> Result<Settled, JournalError> {
    let generation = end.generation;
    let folder = reader.layout().tails(generation)?;
    tails.close(&folder).await?;
    let Some(now) = reader.chunks_end().await? else { return Ok(Settled::Moved) };
    let mut end = now.header().clone();
    if end.generation != generation {
        return Ok(Settled::Moved);
    }
    let (all, _) = read(reader, tails, &folder, now.header()).await?;
    let going_on = continuing(now.header(), &all);
    if let Some(behind) = torn(now.header(), &going_on, &all)
        && !say_torn(reader, now.header(), behind).await?
    {
        return Ok(Settled::Moved);
    }
    for entry in going_on {
        if !put(reader, tails, entry, trouble).await? {
            return Ok(Settled::Moved);
        }
        end = entry.header().clone();
    }
    Ok(Settled::At(Box::new(end)))
}

/// Puts an entry as it stands, at its number (T6). `false`: other bytes stand there.
async fn put(
    reader: &Reader,
    tails: &dyn Tails,
    entry: &Decoded,
    trouble: &(dyn Fn(&StoreError) + Sync),
) -> Result<bool, JournalError> {
    let (number, bytes) = (entry.header().number, entry.bytes());
    let key = reader.layout().chunk(number)?;
    let (mut put, mut pause, mut tries) = (Put::new(number), Pause::new(), 0);
    loop {
        let seen = match put.act() {
            Act::Put(_) => tails.put(&key, bytes.clone()).await.map(|created| match created {
                Created::New => Seen::New,
                Created::Exists => Seen::Exists,
            }),
            Act::Read(_) => match reader.store().get(&key).await {
                Ok(there) if there == *bytes => Ok(Seen::Own),
                Ok(there) if Header::decode(&there).is_ok() => Ok(Seen::Other),
                // No object: a garbled answer, or a bad one, which whoever reads it says.
                Ok(_) => return Ok(false),
                Err(StoreError::NotFound { .. }) => Ok(Seen::Absent),
                Err(why) => Err(why),
            },
        };
        let seen = match seen {
            Ok(Seen::Absent) => {
                pause.wait().await;
                Seen::Absent
            }
            Ok(seen) => seen,
            // A full disk, say: whoever asked knows better for how long to wait.
            Err(why) if why.retry() == Retry::Operator || tries == TRIES => return Err(why.into()),
            Err(why) => {
                tries += 1;
                let seen = if why.is_ambiguous() { Seen::Unknown } else { Seen::Nothing };
                pause.after(why, trouble).await?;
                seen
            }
        };
        match put.seen(seen) {
            Verdict::Open => {}
            Verdict::Stored => return Ok(true),
            Verdict::Taken => return Ok(false),
        }
    }
}

impl Reader {
    /// The journal's last chunk, or `None` while there is none. Beside a writer it is the last of some moment since it was asked; whatever counted as stored when it was asked is before its end.
    ///
    /// Where a tail goes on behind the chunks, its owner makes a chunk of it in a moment, and that is waited for. Where none comes for some seconds, nobody seems to own it: it is closed, and what it holds is put (T5, T6).
    ///
    /// # Errors
    /// As [`chunks_end`](Self::chunks_end); [`JournalError::Unsettled`] where nobody makes chunks of the tail, and this process may not.
    pub async fn last(&self) -> Result<Option<Chunk>, JournalError> {
        self.last_but(PATIENCE).await
    }

    /// As [`last`](Self::last), for whoever is about to take the journal over from an owner of his own machine, a process that ended: that one is not waited for. Another machine's is: whoever comes beside one that
    /// lives, and goes again, is not to disturb it.
    ///
    /// # Errors
    /// As there.
    pub async fn last_to_own(&self, host: &str) -> Result<Option<Chunk>, JournalError> {
        let Some(end) = self.chunks_end().await? else { return Ok(None) };
        let owner = self.opening(end.header().generation, end.header().number).await;
        let is_own = owner.is_ok_and(|opening| opening.host == host);
        self.last_but(if is_own { Duration::ZERO } else { PATIENCE }).await
    }

    async fn last_but(&self, patience: Duration) -> Result<Option<Chunk>, JournalError> {
        // Where the tail ended when it was first seen: what counted before is before this.
        let mut wanted: Option<Position> = None;
        let (mut seen, mut since) = (None, Moment::now());
        let mut denied = None;
        loop {
            let Some(end) = self.chunks_end().await? else { return Ok(None) };
            let header = end.header();
            if wanted.is_some_and(|wanted| reaches(header, wanted)) {
                return Ok(Some(end));
            }
            let Some(tails) = self.store().tails().there() else { return Ok(Some(end)) };
            let folder = self.layout().tails(header.generation)?;
            let (all, is_fresh) = match may_go_on(header, &tails.peek(&folder).await?) {
                true => read(self, tails, &folder, header).await?,
                false => (Vec::new(), false),
            };
            let going_on = continuing(header, &all);
            if let Some(behind) = torn(header, &going_on, &all)
                && !say_torn(self, header, behind).await?
            {
                continue;
            }
            let held = going_on.last().map(|entry| entry.header().clone());
            let Some(held) = held else {
                // A chunk that came since the end was read may hold what the tail did before, which was written over since.
                return match self.is_behind(header).await? {
                    true => self.chunks_end().await,
                    false => Ok(Some(end)),
                };
            };
            wanted = wanted.or(Some(held.end_position()));
            if seen != Some(held.number) {
                (seen, since) = (Some(held.number), Moment::now());
            }
            let is_still = !is_fresh || since.elapsed() >= patience;
            match denied {
                None if is_still => match settle(self, tails, header, &|_| {}).await {
                    Ok(_) => continue,
                    // Whoever keeps the store may do what this process may not.
                    Err(JournalError::Store(why))
                        if matches!(why.retry(), Retry::Operator | Retry::Never) =>
                    {
                        denied = Some((Moment::now(), why));
                    }
                    Err(why) => return Err(why),
                },
                Some((at, why)) if at.elapsed() >= DENIED => {
                    let (end, held) = (header.end_position(), held.end_position());
                    return Err(JournalError::Unsettled { end, held, why: why.to_string() });
                }
                _ => {}
            }
            // The tail itself is looked at again only now and then: it is large, and mostly a chunk comes.
            for _ in 0..LOOKS {
                tokio::time::sleep(LOOK).await;
                if self.is_behind(header).await? {
                    break;
                }
            }
        }
    }

    /// Whether a chunk stands behind this one.
    async fn is_behind(&self, header: &Header) -> Result<bool, JournalError> {
        let Some(next) = header.number.next() else { return Ok(false) };
        match self.store().size(&self.layout().chunk(next)?).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(why) => Err(why.into()),
        }
    }
}

/// Whether tails may hold what goes on behind `end`, by what they begin with. While a folder is not closed a round begins with the number of the next chunk: nobody but its owner puts anything. In one that is
/// closed, entries from the round's begin on may be chunks already.
fn may_go_on(end: &Header, peeked: &Peeked) -> bool {
    peeked.firsts.iter().any(|first| {
        let is_written = first.iter().any(|byte| *byte != 0);
        is_written
            && (peeked.is_closed || Header::decode(first).map_or(true, |header| header.number > end.number))
    })
}

/// Whether the journal's end is at a position or behind it.
fn reaches(end: &Header, wanted: Position) -> bool {
    end.timeline > wanted.timeline || end.timeline == wanted.timeline && end.end >= wanted.offset
}

/// An owner's tail, and the round in it.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    tail: Option<Box<dyn Tail>>,
    /// Where the next entry is written.
    at: u64,
    /// Entries that were sent and not answered, in order, and when each was sent.
    flight: FuturesOrdered<Appending>,
    sent: VecDeque<Moment>,
    /// Set to when the first of some entries is late: set anew only then, for to set one wakes the runtime.
    late: Option<Pin<Box<Sleep>>>,
    /// When one failed, or could not be made.
    failed: Option<Moment>,
    /// How many were begun in this generation.
    begun: u32,
    /// Whether there are none any more in this generation.
    ended: Option<Ended>,
}

/// Why a generation has no tails any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// An append was refused: somebody closed them. A new generation has some again.
    Closed,
    /// None can be made here, which another generation would not change.
    Never,
}

impl Owned {
    /// A new round: what was in the last one is a chunk.
    pub(crate) fn begin_anew(&mut self) {
        self.at = 0;
    }

    /// The tail is given up, for now or, with another generation, for good.
    pub(crate) fn give_up(&mut self) {
        (self.tail, self.at) = (None, 0);
        self.flight.clear();
        self.sent.clear();
    }

    /// How many entries are on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Whether an entry may be sent without one being begun first.
    pub(crate) fn is_begun(&self) -> bool {
        self.tail.is_some()
    }

    /// Whether another generation would have tails where this one has none, or too many that were given up: each stays until then.
    pub(crate) fn wants_another(&self) -> bool {
        self.ended == Some(Ended::Closed) || self.begun >= MANY
    }

    /// Whether an entry of so many bytes may be tried.
    pub(crate) fn takes(&self, store: HasTails<'_>, bytes: u64) -> bool {
        self.ended.is_none()
            && (self.tail.is_some() || self.begun < MOST)
            && matches!(store, HasTails::Yes(_))
            && self.at.saturating_add(bytes) <= TAIL_BYTES
            && self.failed.is_none_or(|at| at.elapsed() >= REST)
    }

    /// Begins a tail, where there is none. `false`: there is none.
    ///
    /// # Cancel safety
    /// As `false`.
    pub(crate) async fn begin(&mut self, reader: &Reader, generation: Generation) -> bool {
        if self.tail.is_some() {
            return true;
        }
        self.begun += 1;
        let begun = tokio::time::timeout(ANSWER, begun(reader, generation)).await;
        match begun.unwrap_or_else(|_| Err(unanswered().into())) {
            Ok(tail) => self.tail = Some(tail),
            Err(why) => self.failed(&why, Ended::Never),
        }
        self.tail.is_some()
    }

    /// Sends an entry (T2) to the tail that is begun, of an owner whose next chunk goes to `free`. It is to be [heard](Self::heard) of.
    pub(crate) fn send(&mut self, entry: &Bytes, free: &Key) {
        let Some(tail) = self.tail.as_mut() else { return };
        let answer = tail.append(self.at, entry.clone(), free);
        self.at += (entry.len() as u64).next_multiple_of(ENTRY_ALIGN as u64);
        self.flight.push_back(answer);
        self.sent.push_back(Moment::now());
    }

    /// The answer to the first entry that is on its way: whether it counts. `false`: it may stand there or not, and the tail is to be given up. Pending for ever where none is.
    ///
    /// # Cancel safety
    /// May be dropped and asked again.
    pub(crate) async fn heard(&mut self) -> bool {
        let Some(sent) = self.sent.front().copied() else { return std::future::pending().await };
        let answer = loop {
            let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(ANSWER)));
            tokio::select! {
                biased;
                answer = self.flight.next() => break answer.unwrap_or_else(|| Err(unanswered())),
                // Whoever waits for it longer than a put takes is better served by a put.
                () = late.as_mut() => match ANSWER.checked_sub(sent.elapsed()).filter(|left| !left.is_zero()) {
                    Some(left) => late.as_mut().reset(tokio::time::Instant::now() + left),
                    None => break Err(unanswered()),
                },
            }
        };
        self.sent.pop_front();
        // What waited for the one before had no disk yet.
        if let Some(next) = self.sent.front_mut() {
            *next = Moment::now();
        }
        answer.map_err(|why| self.failed(&why.into(), Ended::Closed)).is_ok()
    }

    fn failed(&mut self, why: &JournalError, refused: Ended) {
        tracing::info!(error = %why, "the tail is given up: what comes is a chunk at once");
        self.failed = Some(Moment::now());
        if matches!(why, JournalError::Store(StoreError::Refused { .. })) {
            self.ended = Some(refused);
        }
    }
}

async fn begun(reader: &Reader, generation: Generation) -> Result<Box<dyn Tail>, JournalError> {
    let HasTails::Yes(tails) = reader.store().tails() else {
        return Err(JournalError::NotHeld { what: "a tail".to_owned() });
    };
    Ok(tails.begin(&reader.layout().tails(generation)?).await?)
}

fn unanswered() -> StoreError {
    let what = "the tail".to_owned();
    StoreError::TimedOut { operation: Operation::Append, what, after: ANSWER, ambiguous: true }
}

/// Deletes the tails of generations before `own` (T7): what was in them is in chunks. What cannot be deleted stays, and is in nobody's way.
pub(crate) async fn remove_before(reader: &Reader, own: Generation) {
    let Some(tails) = reader.store().tails().there() else { return };
    // Somebody waits for his opening.
    let removed = tokio::time::timeout(REMOVAL, removed(reader, tails, own)).await;
    if removed.is_err() {
        tracing::debug!("old tails stay: the store is slow to delete them");
    }
}

async fn removed(reader: &Reader, tails: &dyn Tails, own: Generation) {
    for folder in tails.folders(reader.layout().all_tails()).await.unwrap_or_default() {
        let name = folder.folder().and_then(|path| path.rsplit_once('/')).map(|(_, name)| name);
        let of = name.and_then(|name| u64::from_str_radix(name, 16).ok()).map(Generation::new);
        if of.is_some_and(|of| of < own)
            && let Err(why) = tails.remove(&folder).await
        {
            tracing::debug!(%folder, error = %why, "an old tail stays");
        }
    }
}
