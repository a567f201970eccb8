//! The log up to the target, in `pg_wal`, as whole segment files; and the histories of the timelines.
//!
//! What always holds: no byte behind the target is written: the rest of the last segment is zeros, and later segments are not
//! there. A segment that holds a fork is written once, under the later timeline's name, with the parent's bytes before
//! the fork: so does PostgreSQL itself. Source: `XLogInitNewTimeline`, src/backend/access/transam/xlog.c.
//!
//! Every history that the journal holds is written, not the target's alone: a promoted copy takes the first number
//! without a history file, and must not take one that the source used. Source: `findNewestTimeLine`, timeline.c.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use farshore_engines::postgres::log::file_name::{LogFileName, SegmentName};
use farshore_engines::postgres::log::{LogShape, SegmentBytes};
use farshore_engines::postgres::restore::beneath::{EntryKind, Root, RootFile};
use farshore_journal::backup::Backup;
use farshore_journal::{Offset, Timeline};
use tokio::sync::mpsc;

use super::{RestoreError, Shared, blocking, log};
use crate::branches::Branches;
use crate::plan::Plan;
use crate::source::Source;

/// Zeros are written in pieces of this size.
const ZEROS: usize = 1 << 20;

/// Puts the log from the base's first segment up to the target in place.
#[allow(clippy::too_many_arguments)] // one call, of one restore's whole work
pub(super) async fn place(
    source: &Source,
    branches: &Branches,
    plan: &Plan,
    backup: &Backup,
    shape: LogShape,
    root: &Arc<Root>,
    shared: &Arc<Shared>,
) -> Result<(), RestoreError> {
    let segment = shape.segment_bytes.get();
    let (target, timeline) = (plan.resolved.position, plan.resolved.timeline);
    let first = backup.manifest().start.offset.segment_start(segment);

    let (pieces, taken) = mpsc::channel::<Bytes>(log::WAITING);
    let work = {
        let (root, shared, branches) = (Arc::clone(root), Arc::clone(shared), branches.clone());
        blocking(move || write_all(&root, &shared, &branches, shape, timeline, first, target, taken))
    };
    let fetch = log::fetch(source, branches, plan, backup.manifest(), first, shared, pieces);
    let (written, fetched) = tokio::join!(work, fetch);
    let () = fetched?;
    written?
}

#[allow(clippy::too_many_arguments)] // one call, of one thread's whole work
fn write_all(
    root: &Root,
    shared: &Shared,
    branches: &Branches,
    shape: LogShape,
    timeline: Timeline,
    first: Offset,
    target: Offset,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<(), RestoreError> {
    for held in branches.all() {
        if let Some(history) = &held.history {
            let name = LogFileName::History(held.timeline);
            root.write(&root.admit(EntryKind::File, &format!("pg_wal/{name}"))?, history)?;
        }
    }
    root.dir(&root.admit(EntryKind::Directory, "pg_wal/archive_status")?)?;
    let segment = shape.segment_bytes.get();
    let mut cursor = first;
    let mut open: Option<(RootFile<'_>, Offset)> = None;
    while let Some(mut piece) = pieces.blocking_recv() {
        while !piece.is_empty() {
            let (file, start) = match open.take() {
                Some(there) => there,
                None => (create(root, branches, shape.segment_bytes, timeline, cursor, target)?, cursor),
            };
            let within = cursor.get() - start.get();
            let room = usize::try_from(segment - within).unwrap_or(usize::MAX);
            let now = piece.split_to(room.min(piece.len()));
            file.write_all_at(&now, within)?;
            cursor = Offset::new(cursor.get() + now.len() as u64);
            shared.log.store(cursor.get(), Ordering::Relaxed);
            shared.add(now.len() as u64);
            if cursor.get() - start.get() == segment {
                file.finish()?;
            } else {
                open = Some((file, start));
            }
        }
    }
    if let Some((file, start)) = open {
        let zeros = vec![0; ZEROS];
        let mut within = cursor.get() - start.get();
        while within < segment {
            let count = usize::try_from(segment - within).unwrap_or(usize::MAX).min(ZEROS);
            file.write_all_at(&zeros[..count], within)?;
            within += count as u64;
            shared.add(count as u64);
        }
        file.finish()?;
    }
    if cursor < target {
        return Err(RestoreError::LogMissing { at: cursor, target });
    }
    Ok(())
}

/// The segment that begins at `start`, named after the timeline of its last byte that is wanted.
fn create<'a>(
    root: &'a Root,
    branches: &Branches,
    segment_bytes: SegmentBytes,
    timeline: Timeline,
    start: Offset,
    target: Offset,
) -> Result<RootFile<'a>, RestoreError> {
    let end = Offset::new(start.get().saturating_add(segment_bytes.get())).min(target);
    let name = SegmentName::holding(branches.timeline_before(timeline, end), start, segment_bytes);
    let path = root.admit(EntryKind::File, &format!("pg_wal/{name}"))?;
    Ok(root.file(&path, segment_bytes.get())?)
}
