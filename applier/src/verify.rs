//! Reads everything an incarnation has in its store and says what is not as it was written.
//!
//! What always holds: every number from zero to the journal's end is asked for; every object is checked against its name, every
//! chunk against the one before it, every segment against the chunks around it and those of its own that still stand, and every
//! index against the chunks that it names; with keys at hand contents are opened too, and indexes held against the log. Nothing is
//! repaired, and one bad object does not hide the next. Signed heads are held against the chunks that they speak of.

mod backups;
mod heads;

mod indexes;

use farshore_catalog::backup::Read;
use farshore_engines::event::LogEvent;
use farshore_engines::log::Decoder;
use farshore_journal::backup;
use farshore_journal::expired::{ExpiredRun, Spans};
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::{ChainValue, FormatError, Head, Header, Kind};
use farshore_journal::identity::{BackupId, DrillId, HoldId};
use farshore_journal::index::IndexName;
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::segments::SegmentName;
use farshore_journal::store::{Key, KeyPrefix};
use farshore_journal::{JournalError, Offset, Position, Sequence};
use futures::StreamExt;
use serde::Serialize;

pub use self::heads::HeadsFound;
use self::heads::Wanted;
use self::indexes::Indexes;
use crate::heads::{KnownHeads, Unwitnessed};
use crate::source::{AHEAD, Source, in_a_task};

/// Findings of one kind that are named; more are counted.
const MAX_NAMED: usize = 10_000;
/// Names listed at a time.
const PAGE: usize = 1000;
/// Said of a segment that holds by itself and whose neighbours are others.
const OTHER_BORDER: &str = "it does not continue the chunks around it";

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verified {
    /// Objects read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is not as it was written.
    pub bad: Vec<Bad>,
    /// Log that the journal says it does not hold.
    pub gaps: Vec<GapFound>,
    /// The chain value of the journal's last chunk; none for an empty journal.
    pub chain_head: Option<ChainValue>,
    /// Backups with pages that were damaged in the source already. They are as they were written, so this is no damage of the store;
    /// a restore takes them only when no sound one reaches its target.
    pub damaged_backups: Vec<DamagedBackup>,
    /// What reading all of a complete backup came to, of those of which that is known.
    #[serde(skip)]
    pub backups: Vec<(BackupId, Read)>,
    /// Backups that began and have no manifest: running, failed, or cut off.
    pub unfinished_backups: Vec<BackupId>,
    /// Objects whose content was not opened, as no key for it is at hand.
    pub sealed: u64,
    /// Chunks that expired: no rule kept them.
    pub expired: u64,
    /// Findings beyond those that are named.
    pub more: u64,
    /// What signed heads say.
    pub head: HeadsFound,
}

/// An object that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// Its name.
    pub object: String,
    /// What is wrong.
    pub what: String,
}

/// A backup of damaged pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedBackup {
    /// The backup.
    pub id: BackupId,
    /// Pages that it names.
    pub pages: u64,
    /// The first of them.
    pub first: Option<String>,
}

/// Log that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapFound {
    /// Its first byte.
    pub start: Position,
    /// The byte behind its last.
    pub end: Offset,
    /// Why.
    pub reason: String,
}

impl Verified {
    /// Whether everything is as it was written.
    pub fn is_sound(&self) -> bool {
        self.bad.is_empty() && self.more == 0
    }

    /// Names a journal that a head speaks of and that is not in the store.
    pub fn vanished(&mut self, head: &Head) {
        let (number, at) = (head.said.number, head.signed_when());
        let what = format!("it is not in the store: a head of its chunk {number} was signed at {at}");
        self.bad(format!("db/{}/{}", head.said.database, head.said.incarnation), what);
    }

    /// Names an incarnation that nobody signed though one before it was signed.
    pub fn unwitnessed(&mut self, record: &IncarnationRecord, found: &Unwitnessed) {
        let what = format!(
            "nothing of it is signed by one of verify_keys, and incarnation {} before it is: a new one gets its first head within seconds",
            found.earlier
        );
        self.bad(format!("db/{}/{}", record.database, record.incarnation), what);
    }

    fn bad(&mut self, object: impl ToString, what: impl ToString) {
        if self.bad.len() < MAX_NAMED {
            self.bad.push(Bad { object: object.to_string(), what: what.to_string() });
        } else {
            self.more += 1;
        }
    }
}

/// Verifies an incarnation: its journal and its backups. `known` says which signatures count, and what was signed as far as is known
/// outside the store. `progress` is told objects and bytes read so far.
///
/// # Errors
/// Only when the store does not answer: what is bad is in the answer.
pub async fn verify(
    source: &Source,
    known: &KnownHeads,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Verified, JournalError> {
    let mut found = Verified::default();
    let listing = list(source, &mut found).await?;
    let mut wanted = heads::gather(source, &listing.heads, known, &mut found).await?;
    let merged = segments(source, &listing, &mut found, progress).await?;
    let mut indexes = indexes::read(source, &listing.indexes, &mut found, progress).await?;
    let end = journal(source, &listing, &merged, &mut indexes, &mut wanted, &mut found, progress).await?;
    indexes.finish(source, listing.highest(), &mut found)?;
    wanted.judge(source, end.as_ref(), &mut found).await?;
    for id in backup::list(source.reader()).await? {
        backups::one(source, id, &mut found, progress).await?;
    }
    Ok(found)
}

/// The names of the journal's objects.
#[derive(Debug, Default)]
struct Listing {
    /// The numbers that have an object of their own, in order.
    chunks: Vec<Sequence>,
    /// The segments, in order of their first chunk.
    segments: Vec<SegmentName>,
    /// The chunks that have a signed head, and the bytes of it as listed.
    heads: Vec<(Sequence, u64)>,
    indexes: Vec<IndexName>,
    expired: Vec<SegmentName>,
}

impl Listing {
    fn has(&self, number: Sequence) -> bool {
        self.chunks.binary_search(&number).is_ok()
    }

    /// The journal's last number, as far as names go.
    fn highest(&self) -> Option<Sequence> {
        let merged = self.segments.iter().map(|name| name.last).max();
        self.chunks.last().copied().max(merged)
    }
}

/// What an object's name says it is.
enum Named {
    Chunk(Sequence),
    Segment(SegmentName),
    Head(Sequence),
    Index(IndexName),
    Expired(SegmentName),
    Other,
}

/// Lists all names, and reports those that are none of the format's.
async fn list(source: &Source, found: &mut Verified) -> Result<Listing, JournalError> {
    let reader = source.reader();
    let root = reader.layout().root().clone();
    let mut after: Option<Key> = None;
    let mut listing = Listing::default();
    loop {
        let page = reader.store().list(&root, after.as_ref(), Some(PAGE)).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        for listed in &page {
            match named(&listed.key, &root) {
                Some(Named::Chunk(number)) => listing.chunks.push(number),
                Some(Named::Segment(name)) => listing.segments.push(name),
                Some(Named::Head(number)) => listing.heads.push((number, listed.size)),
                Some(Named::Index(name)) => listing.indexes.push(name),
                Some(Named::Expired(name)) => listing.expired.push(name),
                Some(Named::Other) => {}
                None => found.bad(&listed.key, "a name that farshore does not give"),
            }
        }
    }
    listing.chunks.sort_unstable();
    listing.heads.sort_unstable();
    listing.segments.sort_unstable_by_key(|name| (name.first, name.last));
    Ok(listing)
}

/// What a name of the format says; `None` for the rest.
fn named(key: &Key, root: &KeyPrefix) -> Option<Named> {
    let rest = key.below(root)?;
    let (folder, name) = rest.split_once('/')?;
    match folder {
        "journal" => name.parse().ok().map(Named::Chunk),
        "segments" => name.parse().ok().filter(SegmentName::is_possible).map(Named::Segment),
        "backups" => {
            let (id, name) = name.split_once('/')?;
            let _: BackupId = id.parse().ok()?;
            let numbered = name.strip_prefix("part-").or_else(|| name.strip_prefix("sums-"));
            let part = || numbered.is_some_and(|number| number.parse::<Sequence>().is_ok());
            (matches!(name, "opening" | "manifest" | "table" | "expiring") || part()).then_some(Named::Other)
        }
        "drills" => name.parse::<DrillId>().ok().map(|_| Named::Other),
        "index" => name.parse().ok().map(Named::Index),
        "heads" => name.parse().ok().map(Named::Head),
        "expired" => {
            let name: SegmentName = name.parse().ok()?;
            (name.first <= name.last).then_some(Named::Expired(name))
        }
        "holds" => {
            let hold: Option<HoldId> = name.strip_suffix("-released").unwrap_or(name).parse().ok();
            hold.map(|_| Named::Other)
        }
        _ => None,
    }
}

/// A segment that holds by itself: what the journal must say around it.
#[derive(Debug)]
struct Sound {
    name: SegmentName,
    before: ChainValue,
    after: ChainValue,
}

/// Reads every segment, and opens it where a key is at hand.
async fn segments(
    source: &Source,
    listing: &Listing,
    found: &mut Verified,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<Sound>, JournalError> {
    let reader = source.reader();
    let mut keys = Keyring::new(source.unlock().clone());
    let mut sound = Vec::new();
    for name in &listing.segments {
        let key = reader.layout().segment(name)?;
        let segment = match reader.segment_anew(name).await {
            Ok(segment) => segment,
            Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
            Err(why) => {
                found.bad(&key, why);
                continue;
            }
        };
        found.objects += 1;
        found.bytes += segment.object_bytes();
        progress(found.objects, found.bytes);
        let header = segment.outline().header().clone();
        let opened = match segment.outline().chunks().first() {
            Some(first) => keys.for_chunk(reader, first).await,
            None => Ok(None),
        };
        let checked = match opened {
            Ok(data_key) => {
                let opened =
                    tokio::task::spawn_blocking(move || segment.check_content(data_key.as_ref())).await;
                opened.map_err(|_| cut_off())?
            }
            Err(JournalError::Object { source: FormatError::KeyMissing, .. }) => {
                found.sealed += 1;
                Ok(())
            }
            Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
            Err(why) => {
                found.bad(&key, why);
                continue;
            }
        };
        match checked {
            Ok(()) => sound.push(Sound { name: *name, before: header.before, after: header.after }),
            Err(why) => found.bad(&key, why),
        }
    }
    Ok(sound)
}

/// Walks the journal; the header of its last chunk, if that one reads.
async fn journal(
    source: &Source,
    listing: &Listing,
    merged: &[Sound],
    indexes: &mut Indexes,
    wanted: &mut Wanted,
    found: &mut Verified,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Option<Header>, JournalError> {
    let reader = source.reader();
    let Some(highest) = listing.highest() else { return Ok(None) };
    // Tasks of their own: what the loop below awaits must not wait for a segment that is being read by one of these.
    let runs = expired_runs(reader, listing, found).await?;
    let gone = Spans::of(runs.iter().map(|run| run.name));
    let in_segments = Spans::of(listing.segments.iter().copied());
    let is_left = |number: &u64| {
        let number = Sequence::new(*number);
        !gone.covers(number) || listing.has(number) || in_segments.covers(number)
    };
    let fetched = futures::stream::iter((0..=highest.get()).filter(is_left)).map(|number| {
        let (number, reader) = (Sequence::new(number), reader.clone());
        in_a_task(async move { (number, reader.expected_chunk(number).await) })
    });
    let mut borders = merged.iter().peekable();
    let mut left: Vec<&Sound> = Vec::new();
    let mut fetched = std::pin::pin!(fetched.buffered(AHEAD));
    let mut keys = Keyring::new(source.unlock().clone());
    let mut before: Option<Header> = None;
    let mut whole = true;
    // Whether a record is known to start with the next chunk of log.
    let mut is_record = true;
    let mut log: Option<Decoder> = None;
    while let Some(fetched) = fetched.next().await {
        let (number, chunk) = fetched.map_err(|_| cut_off())?;
        let name = reader.layout().chunk(number)?;
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(JournalError::Store(why)) => return Err(why.into()),
            // Deleted since it was listed.
            Err(JournalError::Expired { .. }) => {
                found.expired += 1;
                (before, log, is_record) = (None, None, false);
                continue;
            }
            Err(why) => {
                found.bad(&name, why);
                wanted.named(number);
                (before, whole, log, is_record) = (None, false, None, false);
                continue;
            }
        };
        let header = chunk.header().clone();
        wanted.met(&header);
        if !chunk.is_merged() {
            found.objects += 1;
            found.bytes += header.object_bytes();
            progress(found.objects, found.bytes);
        } else if listing.has(number) {
            own_object(source, &header, found).await?;
            progress(found.objects, found.bytes);
        }
        while let Some(segment) = borders.next_if(|segment| segment.name.first <= number) {
            if segment.name.first == number && segment.before != header.before {
                found.bad(reader.layout().segment(&segment.name)?, OTHER_BORDER);
            }
            left.push(segment);
        }
        for segment in left.extract_if(.., |segment| segment.name.last <= number) {
            if segment.name.last == number && segment.after != header.after {
                found.bad(reader.layout().segment(&segment.name)?, OTHER_BORDER);
            }
        }
        // Where a run lies between: its value goes on, and its log is not there.
        let jumped = before.as_ref().map_or(0, |former| number.get() - former.number.get() - 1);
        if jumped > 0 {
            found.expired += jumped;
            (before, log, is_record) = (None, None, false);
        }
        let run = runs.iter().find(|run| run.name.last.next() == Some(number));
        let expected = match (&before, run) {
            (Some(former), _) => Some(former.after),
            (None, Some(run)) => Some(run.header.after),
            (None, None) => (number == Sequence::FIRST).then(|| reader.genesis()),
        };
        if expected.is_some_and(|expected| expected != header.before) {
            found.bad(&name, "it does not continue the chunk before it");
            (log, whole, is_record) = (None, false, false);
        }
        if whole {
            found.chain_head = Some(header.after);
        }
        before = Some(header.clone());
        indexes.chunk(source, &header, log.as_ref(), found)?;
        let key = match keys.for_chunk(reader, &header).await {
            Ok(key) => key,
            Err(JournalError::Object { source: FormatError::KeyMissing, .. }) => {
                found.sealed += 1;
                (log, is_record) = (None, header.kind == Kind::Gap);
                continue;
            }
            Err(JournalError::Store(why)) => return Err(why.into()),
            Err(why) => {
                found.bad(&name, why);
                (log, is_record) = (None, false);
                continue;
            }
        };
        let opened = tokio::task::spawn_blocking(move || chunk.plain_all(key.as_ref())).await;
        let plain = match opened {
            Ok(Ok(plain)) => plain,
            Ok(Err(why)) => {
                found.bad(&name, why);
                (log, is_record) = (None, false);
                continue;
            }
            Err(_) => return Err(cut_off()),
        };
        match header.kind {
            Kind::Data => {
                log = check_log(source, log, is_record, &header, plain, &name, indexes, found).await?;
                is_record = false;
            }
            Kind::Gap => {
                (log, is_record) = (None, true);
                let reason = farshore_journal::format::body::from_json::<
                    farshore_journal::format::body::GapBody,
                >("gap", &plain);
                let reason = reason.map(|body| body.reason).unwrap_or_default();
                let start = Position::new(header.timeline, header.start);
                found.gaps.push(GapFound { start, end: header.end, reason });
            }
            // A branch begins inside of a page: its own first page is where checking goes on.
            Kind::Timeline => (log, is_record) = (None, false),
            _ => {}
        }
    }
    Ok(before)
}

/// The runs that say of what is not listed that it expired.
async fn expired_runs(
    reader: &Reader,
    listing: &Listing,
    found: &mut Verified,
) -> Result<Vec<ExpiredRun>, JournalError> {
    let mut runs = Vec::new();
    for name in &listing.expired {
        found.objects += 1;
        match reader.run(name).await? {
            Some(run) => runs.push(run),
            None => found.bad(
                reader.layout().expired_run(name)?,
                "it is no run of this journal: what it says is not so",
            ),
        }
    }
    Ok(runs)
}

/// The object of a chunk that a segment replaces, while it is still there.
async fn own_object(source: &Source, merged: &Header, found: &mut Verified) -> Result<(), JournalError> {
    let reader = source.reader();
    let name = reader.layout().chunk(merged.number)?;
    match reader.object(merged.number).await {
        Ok(object) => {
            found.objects += 1;
            found.bytes += object.header().object_bytes();
            if (object.header().before, object.header().after) != (merged.before, merged.after) {
                found.bad(&name, "it has other content than the segment that replaces it");
            }
        }
        // Tidied since it was listed.
        Err(JournalError::Store(why)) if why.is_not_found() => {}
        Err(JournalError::Store(why)) => return Err(why.into()),
        Err(why) => found.bad(&name, why),
    }
    Ok(())
}

/// Decodes the log as its engine would, from where a decoder can begin; `is_record` says whether a record is known to start with the
/// chunk. What has right checksums here but is no log was wrong at its source.
#[allow(clippy::too_many_arguments)] // one call, of the walk's whole state
async fn check_log(
    source: &Source,
    log: Option<Decoder>,
    is_record: bool,
    header: &Header,
    plain: Vec<u8>,
    name: &Key,
    indexes: &mut Indexes,
    found: &mut Verified,
) -> Result<Option<Decoder>, JournalError> {
    let shape = source.shape();
    let log = match log {
        Some(log) if log.next_wanted() == header.start => Some(log),
        _ if shape.next_begin(header.start, is_record) == Some(header.start) => {
            shape.decoder(Position::new(header.timeline, header.start)).ok()
        }
        _ => None,
    };
    let Some(mut log) = log else {
        indexes.decoded(source, header, None, Vec::new(), found).await?;
        return Ok(None);
    };
    let noted = indexes.wants_events();
    let decoded = tokio::task::spawn_blocking(move || {
        let mut seen = Vec::new();
        let pushed = log.push(&plain, &mut |event: LogEvent| {
            if noted {
                Indexes::note(&mut seen, &event);
            }
        });
        (log, pushed, seen)
    });
    let (log, pushed, seen) = decoded.await.map_err(|_| cut_off())?;
    let log = match pushed {
        Ok(()) => Some(log),
        Err(why) => {
            found.bad(name, why);
            None
        }
    };
    indexes.decoded(source, header, log.as_ref(), seen, found).await?;
    Ok(log)
}

fn cut_off() -> JournalError {
    JournalError::NotHeld { what: "the object: reading it was cut off".to_owned() }
}
