//! A SQLite database's restore: the base's file under a name that no application opens, then what was beneath it and the records up to the
//! target, then SQLite's own check, then its name.
//!
//! What always holds: the file has its name only when it is at exactly the target, SQLite found it whole, and it is durable; what was
//! cut off or is damaged stays under the other name, beside a marker that says `running`. What has the name is never removed, and nothing is put in its place.
//! A standby's copy has the standby's state for its marker, which says where the copy stands before it has its name.
//!
//! ```text
//! base ─▶ what was beneath ─▶ records up to the target ─▶ check, synchronise ─▶ name ─▶ synchronise ─▶ marker complete
//! ```
//! What it does not do: open the database. Whoever does finds it in WAL mode, as its source was.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use farshore_engines::log::LogError;
use farshore_engines::postgres::restore::beneath::{Access, BeneathError, EntryKind, Root};
use farshore_engines::sqlite::apply::Apply;
use farshore_engines::sqlite::backup::{self, BENEATH, RESTORING};
use farshore_engines::sqlite::check::{Checked, check};
use farshore_engines::sqlite::decoder::{Part, RecordDecoder};
use farshore_engines::sqlite::record::Kind;
use farshore_journal::{BackupId, Offset, Position};
use tokio::sync::mpsc;

use super::files::Fates;
use super::{
    Makes, Making, Naming, Phase, RestoreError, Restored, RestoredFile, SYNC_THREADS, Shared, Task, begin,
    blocking, bounds, files, io, log, marker,
};
use crate::plan::PlanError;

/// Bytes that are read of what was beneath at a time.
const READ_BYTES: usize = 1 << 20;

/// Runs it.
pub(super) async fn run(task: Task<'_>) -> Result<Restored, RestoreError> {
    let Task { source, plan, options, backup, branches, watcher, making } = task;
    let id = backup.id();
    let held = backup::files(backup.manifest());
    let held = held.map_err(|source| PlanError::Files { backup: id, source })?;
    let (name, has_beneath) = (held.database.path.clone(), held.beneath.is_some());
    // What could be read or written at the source can be here; nobody else may write.
    let mode = held.database.mode & 0o664 | 0o600;
    let tablespaces = BTreeMap::new();
    let names = [RESTORING, BENEATH].into_iter().map(str::to_owned).collect();
    let makes = Makes { names, last: Some(&name), tablespaces: &tablespaces, access: Access::Kept };
    let (root, alone, naming) = match making {
        None => {
            let (root, alone) = begin(&backup, plan, options, makes)?;
            (root, Arc::new(alone), None)
        }
        Some(Making { alone, beside, naming }) => {
            if beside.contains(&name.as_str()) {
                return Err(BeneathError::InTheWay { path: name }.into());
            }
            let bounds = bounds(&backup, plan);
            let root = Root::create_beside(&options.directory, Access::Kept, bounds, beside)?;
            (root, alone, Some(naming))
        }
    };
    // Work that opens the file by its name goes on for a while when nobody waits for it any more: until all of it is over nobody else may
    // put a file in that place, which it would write to, or give the database's name.
    let directory = root.path().to_owned();
    let shared =
        Arc::new(Shared::of(backup.manifest().plain_bytes.saturating_add(plan.replay_bytes), watcher));
    let root = Arc::new(root);

    let moved = BTreeMap::from([(name.clone(), RESTORING.to_owned())]);
    files::place(&backup, &root, &shared, Fates::Moved(moved)).await?;
    let path = directory.join(RESTORING);
    let apply = {
        let (path, beneath) = (path.clone(), has_beneath.then(|| directory.join(BENEATH)));
        let alone = Arc::clone(&alone);
        blocking(move || {
            let _alone = alone;
            let mut apply = Apply::to(open(&path, true)?);
            match beneath {
                Some(beneath) => apply_beneath(&mut apply, &beneath, id).map(|()| apply),
                None => Ok(apply),
            }
        })
        .await??
    };
    let first = plan.base.start.offset;
    let target = plan.resolved.position;
    let (pieces, taken) = mpsc::channel::<Bytes>(log::WAITING);
    let base = Position::new(plan.resolved.timeline, first);
    let work = {
        let (shared, path, alone) = (Arc::clone(&shared), path.clone(), Arc::clone(&alone));
        blocking(move || apply_all(apply, &shared, base, target, &path, taken).map(|file| (file, alone)))
    };
    // Both are waited for whatever becomes of the other: nobody writes any more when this returns an error.
    let fetch = Box::pin(log::fetch(source, &branches, plan, backup.manifest(), first, &shared, pieces));
    let (applied, fetched) = tokio::join!(shared.or_stop(async { work.await? }), shared.or_stop(fetch));
    let written = match (fetched, applied) {
        (Ok(()), Ok((file, _alone))) => file,
        (Err(RestoreError::CutOff), Err(why)) | (Err(why), _) | (Ok(()), Err(why)) => return Err(why),
    };

    shared.tell(Phase::Synchronising, shared.total, None);
    let file = directory.join(&name);
    let is_own = naming.is_none();
    let last = move || named(&root, (&path, &written), (&name, mode), naming).map(|checked| (checked, alone));
    let (checked, alone) = blocking(last).await??;
    if is_own {
        marker::complete(&alone, &directory, plan)?;
    }
    let file = Some(RestoredFile { path: file, checked });
    Ok(Restored { directory, file, socket_dir: None, neutralised: Vec::new(), server: None })
}

/// A file of this restore, which is no link.
fn open(path: &Path, write: bool) -> Result<File, RestoreError> {
    let mut options = File::options();
    options.read(true).write(write).custom_flags(nix::libc::O_NOFOLLOW);
    options.open(path).map_err(io("open", path))
}

/// Applies the one record of what was beneath the base's file.
fn apply_beneath(apply: &mut Apply, path: &Path, id: BackupId) -> Result<(), RestoreError> {
    let mut file = open(path, false)?;
    // It has no place in the log: it counts from zero.
    let mut decoder = RecordDecoder::new(Offset::new(0));
    let mut transactions = 0;
    let mut others = 0;
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(io("read", path))?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        let pushed = decoder.push(&buffer[..count], &mut |part| {
            if let Part::End(ended) = &part {
                match ended.head.kind {
                    Kind::Transaction => transactions += 1,
                    Kind::Point => others += 1,
                }
            }
            apply.take(part);
        });
        pushed.map_err(|why| RestoreError::BeneathRecord { id, source: Some(why) })?;
    }
    let whole = decoder.checked_end() == Some(Offset::new(bytes));
    match (transactions, others, whole) {
        (1, 0, true) => Ok(()),
        _ => Err(RestoreError::BeneathRecord { id, source: None }),
    }
}

/// Applies the records that come, which must end at exactly the target. The file that they are in, to be synchronised.
fn apply_all(
    mut apply: Apply,
    shared: &Shared,
    base: Position,
    target: Offset,
    path: &Path,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<File, RestoreError> {
    let mut decoder = RecordDecoder::new(base.offset);
    while let Some(piece) = pieces.blocking_recv() {
        let pushed = decoder.push(&piece, &mut |part| apply.take(part));
        if let Err(why) = pushed {
            let whole_to = decoder.checked_end();
            return Err(PlanError::Damaged { base, whole_to, source: LogError::Sqlite(why) }.into());
        }
        if apply.has_failed() {
            break;
        }
        shared.log.store(decoder.next_wanted().get(), Ordering::Relaxed);
        shared.add(piece.len() as u64);
    }
    let (file, last) = apply.end().map_err(io("write", path))?;
    match last {
        Some(last) if last.end == target => Ok(file),
        _ => Err(RestoreError::LogMissing { at: decoder.checked_end().unwrap_or(base.offset), target }),
    }
}

/// Gives the file its name, once SQLite finds it whole; durable on `Ok`.
fn named(
    root: &Root,
    (path, written): (&Path, &File),
    (name, mode): (&str, u32),
    naming: Option<Naming>,
) -> Result<Checked, RestoreError> {
    // The disk takes what it has not yet while SQLite reads: both take about as long. By the descriptor that wrote, which is told of every
    // failure since.
    let (checked, synchronised) = std::thread::scope(|scope| {
        let synchronising = scope.spawn(|| written.sync_all().map_err(io("synchronise", path)));
        let checked = check(path);
        (checked, synchronising.join().unwrap_or(Err(RestoreError::CutOff)))
    });
    // A disk that failed is no damage of the database's.
    synchronised?;
    let checked = checked.map_err(|source| RestoreError::NotWhole { path: path.to_owned(), source })?;
    if let Checked::InPart { why } = &checked {
        tracing::warn!(file = %path.display(), %why, "SQLite could check the restored file only in part: it lacks what the application adds to it");
    }
    let admit = |name: &str| root.admit(EntryKind::File, name);
    let (restoring, named) = (admit(RESTORING)?, admit(name)?);
    root.remove(&admit(BENEATH)?)?;
    root.set_mode(&restoring, mode)?;
    // Durable before it has its name, and the name too.
    root.sync(SYNC_THREADS)?;
    if let Some(naming) = naming {
        naming(name, path)?;
    }
    root.set_aside(&restoring, &named)?;
    root.sync(SYNC_THREADS)?;
    Ok(checked)
}
