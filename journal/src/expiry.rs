//! Deleting what no rule keeps: marks first, and a grace later what they mark. `FORMAT.md` section 13.
//!
//! What always holds: only data chunks and segments within a run that was marked, and indexes that touch it, are deleted, each after
//! its own header was read; of a backup the manifest goes first and the mark last. Cut off anywhere, the next call goes on. Whoever deletes asks
//! anew whether anything keeps what is marked.
//! What it does not do: it does not know what is kept (the applier's expiry decides it), nor how long a mark must stand.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::error::JournalError;
use crate::expired::{self, ExpiredBody, ExpiredRun};
use crate::format::header::{HEADER_BYTES, VERSION};
use crate::format::object::{ChainUse, Compression, Draft, Piece};
use crate::format::{Header, Kind, Mark, body};
use crate::identity::{BackupId, Sequence};
use crate::index::IndexName;
use crate::put;
use crate::reader::Reader;
use crate::segments::{self, SegmentName};
use crate::store::{Key, Listed, StoreError};

/// Runs that are read at once.
const AT_ONCE: usize = 16;
/// Names that are listed at a time.
const PAGE: usize = 1000;

/// A backup's mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupMark {
    /// The format version.
    pub format: u16,
    /// The backup.
    pub backup: BackupId,
    /// When, RFC 3339. Information only: the grace counts by the store's clock.
    pub marked: String,
    /// The machine that put it.
    pub host: String,
    /// Which rule let it go.
    pub reason: String,
}

/// Who marks, when and why.
#[derive(Debug, Clone)]
pub struct Marking {
    /// This machine's name.
    pub host: String,
    /// Now.
    pub at: DateTime<Utc>,
    /// Which rule lets it go.
    pub reason: String,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects at names within a run that are not what stood there: they stay, as evidence.
    pub foreign: u64,
}

impl Deleted {
    /// Both.
    pub fn add(&mut self, more: Self) {
        self.objects += more.objects;
        self.bytes += more.bytes;
        self.foreign += more.foreign;
    }
}

/// Asked right before something goes whether it still may: a look at what is kept grows old, and somebody may have begun to read.
#[async_trait]
pub trait MayGo: Sync {
    /// Whether it may. `first`: nothing of the backup or the run is gone yet, so that a restore that was planned by now counts on it; afterwards none does.
    async fn may_go(&self, first: bool) -> bool;
}

#[async_trait]
impl<F: Fn() -> bool + Sync> MayGo for F {
    async fn may_go(&self, _first: bool) -> bool {
        self()
    }
}

fn never(_: &StoreError) {}

/// When a backup was marked, by the store's clock; `None` when it is not.
///
/// # Errors
/// When the store does not answer.
pub async fn backup_marked(reader: &Reader, id: BackupId) -> Result<Option<DateTime<Utc>>, JournalError> {
    let key = reader.layout().backup_expiring(id)?;
    let folder = reader.layout().backups()?.join(id)?;
    let listed = reader.store().list(&folder, Some(&folder.key("a")?), Some(1)).await?;
    Ok(listed.into_iter().find(|listed| listed.key == key).map(|listed| listed.modified))
}

/// Marks a backup; one that is marked stays as it is. On `Ok` the mark is durable.
///
/// # Errors
/// When the store does not take it.
pub async fn mark_backup(reader: &Reader, id: BackupId, marking: &Marking) -> Result<(), JournalError> {
    let mark = BackupMark {
        format: VERSION,
        backup: id,
        marked: marking.at.to_rfc3339(),
        host: marking.host.clone(),
        reason: marking.reason.clone(),
    };
    let bytes = body::to_document("backup's mark", &mark)
        .map_err(|source| JournalError::Encode { what: "backup's mark", source })?;
    let key = reader.layout().backup_expiring(id)?;
    match put::put(&**reader.store(), &key, &Bytes::from(bytes), &never).await {
        // Another expiry marked it meanwhile.
        Err(JournalError::Another { .. }) => Ok(()),
        other => other,
    }
}

/// Takes the mark of a backup that is kept again back, if its manifest is there: it is to have its whole grace anew. Only whoever is alone in expiring may.
///
/// # Errors
/// When the store does not answer or refuses.
pub async fn unmark_backup(reader: &Reader, id: BackupId) -> Result<(), JournalError> {
    match reader.store().size(&reader.layout().backup_manifest(id)?).await {
        Ok(_) => Ok(reader.store().delete(&reader.layout().backup_expiring(id)?).await?),
        Err(StoreError::NotFound { .. }) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// Deletes a backup that was marked: its manifest, then its parts, its opening, and its mark last. `complete`: whether it was one when that was decided. `still` is asked right before
/// the manifest, and again behind it; `None` where it may not go, or was completed since: what is left of it is as it was, or goes another time.
///
/// # Errors
/// [`JournalError::NotHeld`] when it is not marked; when the store does not answer or refuses.
pub async fn delete_backup(
    reader: &Reader,
    id: BackupId,
    complete: bool,
    still: &dyn MayGo,
) -> Result<Option<Deleted>, JournalError> {
    let layout = reader.layout();
    let mark = layout.backup_expiring(id)?;
    let mut deleted = Deleted::default();
    if backup_marked(reader, id).await?.is_none() {
        return Err(JournalError::NotHeld { what: format!("a mark that backup {id} may be deleted") });
    }
    let folder = layout.backups()?.join(id)?;
    let mut objects: Vec<Listed> = reader.store().list(&folder, None, None).await?;
    objects.retain(|listed| listed.key != mark);
    let (manifest, opening) = (layout.backup_manifest(id)?, layout.backup_opening(id)?);
    objects.sort_by_key(|listed| (listed.key != manifest, listed.key == opening));
    let is_complete = objects.first().is_some_and(|listed| listed.key == manifest);
    if is_complete && !complete {
        return Ok(None);
    }
    let mut asked_at = 0;
    for listed in objects {
        // Somebody may have read the manifest while it went: he is heard of before the first part goes.
        if asked_at < 2 && (asked_at == 0 || is_complete) {
            if !still.may_go(true).await {
                return Ok(None);
            }
            asked_at += 1;
        }
        reader.store().delete(&listed.key).await?;
        deleted.add(Deleted { objects: 1, bytes: listed.size, foreign: 0 });
    }
    reader.store().delete(&mark).await?;
    Ok(Some(deleted))
}

/// Marks all data chunks between two that are none, `first..=last`; a stretch that is marked stays as it is. On `Ok` the run is durable.
///
/// # Errors
/// [`JournalError::NotHeld`] when they are no such stretch; when the journal does not read or the store does not answer.
pub async fn mark_run(
    reader: &Reader,
    (first, last): (Sequence, Sequence),
    marking: &Marking,
) -> Result<ExpiredRun, JournalError> {
    let (begin, end) = (reader.expected_header(first).await?, reader.expected_header(last).await?);
    let said = ExpiredBody {
        last,
        host: marking.host.clone(),
        marked: marking.at.to_rfc3339(),
        reason: marking.reason.clone(),
    };
    let refuse = |source| JournalError::Encode { what: "expired run", source };
    let json = body::to_json("expired run", &said).map_err(refuse)?;
    let draft = Draft {
        kind: Kind::Expired,
        store: reader.store_id(),
        incarnation: reader.incarnation(),
        number: first,
        generation: end.generation,
        writer: end.writer,
        timeline: end.timeline,
        start: begin.start,
        end: end.end,
        written_at: marking.at.timestamp_micros(),
        chain: ChainUse::Stated { before: begin.before, after: end.after },
        mark: Mark::NONE,
    };
    let name = SegmentName { timeline: end.timeline, start: begin.start, end: end.end, first, last };
    let not_held =
        || JournalError::NotHeld { what: format!("chunks {first} to {last} as one stretch of data") };
    let before = first.get().checked_sub(1).map(Sequence::new).ok_or_else(not_held)?;
    let behind = last.next().ok_or_else(not_held)?;
    let piece = Piece { end: json.len() as u64, plain: &json };
    let encoded = draft.encode(&[piece], Compression::None, None).map_err(refuse)?;
    let run = ExpiredRun { name, header: encoded.header.clone(), body: said };
    let (before, behind) = (reader.object(before).await?, reader.object(behind).await?);
    if first > last
        || begin.kind != Kind::Data
        || !run.stands_between(Some(before.header()), Some(behind.header()))
    {
        return Err(not_held());
    }
    let key = reader.layout().expired_run(&name)?;
    match put::put(&**reader.store(), &key, &encoded.bytes, &never).await {
        // The same stretch, by another expiry.
        Ok(()) | Err(JournalError::Another { .. }) => {}
        Err(why) => return Err(why),
    }
    reader.run(&name).await?.ok_or_else(not_held)
}

/// An object that lies within a run.
struct Within {
    listed: Listed,
    first: Sequence,
    last: Sequence,
    kind: Kind,
}

/// What is left of runs: chunks' own objects, segments and indexes, listed once for all of them.
pub struct Leftovers {
    /// By their numbers.
    chunks: Vec<(Sequence, Listed)>,
    segments: Vec<segments::ListedSegment>,
    indexes: Vec<(IndexName, Listed)>,
}

impl Leftovers {
    /// As the store lists them now, of the runs between these two chunks.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn list(reader: &Reader, (first, last): (Sequence, Sequence)) -> Result<Self, JournalError> {
        let mut chunks = Vec::new();
        let before = first.get().checked_sub(1).map(|before| reader.layout().chunk(Sequence::new(before)));
        let mut after: Option<Key> = before.transpose()?;
        'pages: loop {
            let page = reader.store().list(reader.layout().journal(), after.as_ref(), Some(PAGE)).await?;
            let Some(behind) = page.last().map(|listed| listed.key.clone()) else { break };
            for listed in page {
                match listed.key.name().parse::<Sequence>() {
                    Ok(number) if number > last => break 'pages,
                    Ok(number) => chunks.push((number, listed)),
                    Err(_) => {}
                }
            }
            after = Some(behind);
        }
        chunks.sort_by_key(|(number, _)| *number);
        let segments = segments::list(&**reader.store(), reader.layout()).await?;
        let indexes = reader.store().list(&reader.layout().indexes()?, None, None).await?;
        let named = |listed: Listed| Some((listed.key.name().parse().ok()?, listed));
        Ok(Self { chunks, segments, indexes: indexes.into_iter().filter_map(named).collect() })
    }
}

/// Deletes what is left of a run: the indexes that touch it, so that none leads to what is gone, then chunks' objects and segments from the lowest number on. `still` is
/// asked before each object.
///
/// # Errors
/// When the store does not answer or refuses. What was deleted before stays deleted, and is named by the run.
pub async fn delete_run(
    reader: &Reader,
    run: &ExpiredRun,
    left: &Leftovers,
    still: &dyn MayGo,
) -> Result<Deleted, JournalError> {
    let mut deleted = Deleted::default();
    for object in within(run, left) {
        match is_of(reader, run, &object).await? {
            Some(true) => {}
            Some(false) => {
                deleted.foreign += 1;
                continue;
            }
            None => continue,
        }
        // The run counts as expired to whoever plans once its first chunk is gone, with the last object that holds it.
        let first = object.kind != Kind::Index && object.first == run.name.first;
        if !still.may_go(first).await {
            break;
        }
        reader.store().delete(&object.listed.key).await?;
        deleted.add(Deleted { objects: 1, bytes: object.listed.size, foreign: 0 });
    }
    Ok(deleted)
}

/// What is left of a run: objects and their bytes.
pub fn left_of(run: &ExpiredRun, left: &Leftovers) -> Deleted {
    let objects = within(run, left);
    let bytes = objects.iter().map(|object| object.listed.size).sum();
    Deleted { objects: objects.len() as u64, bytes, foreign: 0 }
}

fn within(run: &ExpiredRun, left: &Leftovers) -> Vec<Within> {
    let (first, last) = (run.name.first, run.name.last);
    let from = left.chunks.partition_point(|(number, _)| *number < first);
    let own = left.chunks.iter().skip(from).take_while(|(number, _)| *number <= last);
    let mut found: Vec<Within> = own
        .map(|(number, listed)| Within {
            listed: listed.clone(),
            first: *number,
            last: *number,
            kind: Kind::Data,
        })
        .collect();
    for segment in &left.segments {
        if first <= segment.name.first && segment.name.last <= last {
            let (first, last) = (segment.name.first, segment.name.last);
            found.push(Within { listed: segment.listed.clone(), first, last, kind: Kind::Segment });
        }
    }
    for (name, listed) in &left.indexes {
        if name.first <= last && first <= name.last {
            let (first, last) = (name.first, name.last);
            found.push(Within { listed: listed.clone(), first, last, kind: Kind::Index });
        }
    }
    found.sort_by_key(|object| (object.kind != Kind::Index, object.first, object.last));
    found
}

/// Whether an object's own header says that it is of the run; `None` where it is gone since it was listed. What is another's, or does not read, stays: it is evidence.
async fn is_of(reader: &Reader, run: &ExpiredRun, object: &Within) -> Result<Option<bool>, JournalError> {
    let bytes = match reader.store().get_range(&object.listed.key, 0..HEADER_BYTES as u64).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(StoreError::OutOfRange { .. }) => return Ok(Some(false)),
        Err(why) => return Err(why.into()),
    };
    let Ok(header) = Header::decode(&bytes) else { return Ok(Some(false)) };
    let same = |header: &Header| (header.generation, header.writer, header.timeline);
    Ok(Some(
        header.kind == object.kind
            && header.number == object.first
            && (header.store, header.incarnation) == (reader.store_id(), reader.incarnation())
            && same(&header) == same(&run.header),
    ))
}

/// The marked runs, with the time since when each stands by the store's clock. One that is none of this journal's is an error: what was deleted is then not known.
///
/// # Errors
/// When the store does not answer, or a run does not read or does not stand where it says.
pub async fn marked_runs(reader: &Reader) -> Result<Vec<(ExpiredRun, DateTime<Utc>)>, JournalError> {
    let listed = expired::list(&**reader.store(), reader.layout()).await?;
    let read = stream::iter(listed).map(|listed| async move {
        match reader.run(&listed.name).await? {
            Some(run) => Ok((run, listed.listed.modified)),
            None => Err(JournalError::Misplaced { key: listed.listed.key, field: "content" }),
        }
    });
    read.buffered(AT_ONCE).try_collect().await
}
