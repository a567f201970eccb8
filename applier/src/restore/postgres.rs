//! A PostgreSQL's restore: base and log in parallel, then what makes the copy safe to start, then on wish the server.
//!
//! What always holds: no log behind the target is written, so nothing behind it can ever be replayed; `global/pg_control` comes last, after
//! the configuration that makes the copy safe, so a restore that was cut off cannot be started.
//!
//! ```text
//! files and log ─▶ configuration ─▶ pg_control ─▶ synchronise ─▶ marker complete ─▶ (start, wait, verify)
//! ```
//! Tablespaces without a mapping go beside the directory, to `<directory>-tablespace-<oid>`: on the same file system, named
//! after it, and never to the place that the source named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use farshore_engines::postgres::log::LogShape;
use farshore_engines::postgres::restore::beneath::{Access, EntryKind};
use farshore_engines::postgres::restore::safe_start::{self, RecoveryTarget, Request};
use farshore_engines::postgres::restore::server::{self, Start};
use farshore_engines::postgres::restore::{bin, install};
use farshore_journal::Offset;
use farshore_journal::backup::{self, Backup};

use super::files::Fates;
use super::{
    Makes, Phase, RestoreError, RestoreOptions, Restored, SYNC_THREADS, Shared, Task, begin, blocking, files,
    io, marker, segments,
};
use crate::plan::Plan;

/// The name of the directory for the socket and the server's messages, inside the restored one.
const RUN_DIR: &str = "farshore-run";
/// A path that still leaves room for the socket's own name.
const LONGEST_SOCKET_DIR: usize = 80;

/// Runs it.
pub(super) async fn run(task: Task<'_>, shape: LogShape) -> Result<Restored, RestoreError> {
    let Task { source, plan, options, backup, branches, watcher, making: _ } = task;
    let control = crate::plan::control_file(&backup).await?;
    let bin = match &options.start {
        Some(start) => Some(bin::find(start.bin.as_deref(), control.major).await?),
        None => None,
    };
    let tablespaces = tablespace_places(&backup, options)?;
    let makes = Makes { names: names(&backup), last: None, tablespaces: &tablespaces, access: Access::Owner };
    let (root, alone) = begin(&backup, plan, options, makes)?;
    let directory = root.path().to_owned();
    let socket_dir = socket_dir(&directory, plan)?;

    let total = backup.manifest().plain_bytes + plan.segments * backup.manifest().segment_bytes;
    let shared = Arc::new(Shared::of(total, watcher));
    let root = Arc::new(root);
    // Both at once: a base's files wait for cores, the log for the store.
    // Both are waited for whatever becomes of the other: nobody writes any more when this returns an error.
    let (control_bytes, log) = tokio::join!(
        shared.or_stop(files::place(&backup, &root, &shared, Fates::Postgres)),
        shared.or_stop(Box::pin(segments::place(source, &branches, plan, &backup, shape, &root, &shared))),
    );
    let control_bytes = match (control_bytes, log) {
        (Ok(bytes), Ok(())) => bytes,
        (Err(RestoreError::CutOff), Err(why)) | (Err(why), _) | (Ok(_), Err(why)) => return Err(why),
    };

    let target = RecoveryTarget {
        record_start: plan.resolved.record_start,
        timeline: plan.resolved.timeline,
        end: plan.resolved.position,
    };
    let request = Request {
        major: control.major,
        port: options.port,
        socket_dir: socket_dir.clone(),
        target,
        consistent_from: backup.manifest().end.offset,
        demanded: plan.demanded.map(Into::into),
        restore_command: None,
        follow: options.follow.clone(),
        shared_buffers_limit: options.shared_buffers_limit,
        preload: options.preload.clone(),
    };
    let safe = safe_start::plan(&crate::plan::source_settings(backup.manifest()), &control, &request)?;
    let limits = safe.limits;
    let neutralised = safe.neutralised.iter().cloned().map(crate::plan::neutralised).collect();
    shared.tell(Phase::Synchronising, total, None);
    let finishing = Arc::clone(&root);
    let last = move || -> Result<(), RestoreError> {
        install::install(&finishing, &safe)?;
        // Durable before the file that makes it a database.
        finishing.sync(SYNC_THREADS)?;
        let control = finishing.admit(EntryKind::File, crate::plan::CONTROL_FILE)?;
        finishing.write(&control, &control_bytes)?;
        Ok(finishing.sync(SYNC_THREADS)?)
    };
    blocking(last).await??;
    if let Some((user, group)) = options.start.as_ref().and_then(|start| start.run_as) {
        let places: Vec<PathBuf> = std::iter::once(directory.clone())
            .chain(tablespaces.values().cloned())
            .chain([socket_dir.clone()])
            .collect();
        blocking(move || places.iter().try_for_each(|place| give(place, user, group))).await??;
    }
    marker::complete(&alone, &directory, plan)?;

    let server = match (&options.start, bin) {
        (Some(start), Some(bin)) => {
            let start = Start {
                bin,
                data: directory.clone(),
                socket_dir: socket_dir.clone(),
                port: options.port,
                user: start.user.clone(),
                database: start.database.clone(),
                run_as: start.run_as,
                target,
                then: start.then,
                limits,
                stall: start.stall,
                apart: start.apart,
            };
            let base = plan.base.start.offset;
            let began = Instant::now();
            // From here on it is the server that takes its time.
            shared.tell(Phase::Replaying, total, None);
            let watch = |progress| shared.replay(progress, base, target.end, began);
            Some(Box::pin(server::start(&start, watch)).await?)
        }
        _ => None,
    };
    Ok(Restored { directory, file: None, socket_dir: Some(socket_dir), neutralised, server })
}

impl Shared {
    /// Progress of replay, in the log's own measure.
    fn replay(&self, progress: server::Progress, from: Offset, to: Offset, began: Instant) {
        let (phase, eta) = match progress {
            server::Progress::Starting => (Phase::Replaying, None),
            server::Progress::Replayed(at) => {
                self.log.store(at.get(), Ordering::Relaxed);
                let done = at.bytes_since(from).unwrap_or(0);
                let left = to.bytes_since(at).unwrap_or(0);
                #[allow(clippy::cast_precision_loss)] // an estimate
                let eta = (done > 0).then(|| began.elapsed().as_secs_f64() * (left as f64) / (done as f64));
                (Phase::Replaying, eta)
            }
            server::Progress::Opening => (Phase::Opening, None),
        };
        self.tell(phase, self.total, eta);
    }
}

/// Where each tablespace goes.
fn tablespace_places(
    backup: &Backup,
    options: &RestoreOptions,
) -> Result<BTreeMap<u32, PathBuf>, RestoreError> {
    let absolute = std::path::absolute(&options.directory).map_err(io("resolve", &options.directory))?;
    let place = |tablespace: &backup::Tablespace| {
        let beside = || {
            let mut name = absolute.clone().into_os_string();
            name.push(format!("-tablespace-{}", tablespace.oid));
            PathBuf::from(name)
        };
        (tablespace.oid, options.tablespaces.get(&tablespace.oid).cloned().unwrap_or_else(beside))
    };
    Ok(backup.manifest().tablespaces.iter().map(place).collect())
}

/// The private directory for the socket: inside, unless its path would be too long for one.
fn socket_dir(directory: &Path, plan: &Plan) -> Result<PathBuf, RestoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let inside = directory.join(RUN_DIR);
    let plain = inside.to_str().is_some_and(|text| {
        text.len() <= LONGEST_SOCKET_DIR && !text.chars().any(|c| c.is_control() || " ,\"'\\".contains(c))
    });
    let made = match plain {
        true => inside,
        // Named after the directory and the plan: two restores do not share it.
        false => {
            let name = format!("{}{:?}", directory.display(), plan.digest().ok());
            let digest = farshore_journal::format::Digest::of(name.as_bytes()).to_string();
            std::env::temp_dir().join(format!("farshore-{}", &digest[..16]))
        }
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&made) {
        Ok(()) => Ok(made),
        // The server's start looks at its mode and owner before it trusts it.
        Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => Ok(made),
        Err(why) => Err(io("make directory", &made)(why)),
    }
}

/// Gives what is below a place to the server's user, following no link.
fn give(place: &Path, user: u32, group: u32) -> Result<(), RestoreError> {
    std::os::unix::fs::lchown(place, Some(user), Some(group)).map_err(io("give away", place))?;
    let kind = std::fs::symlink_metadata(place).map_err(io("look at", place))?;
    if kind.is_dir() {
        for entry in std::fs::read_dir(place).map_err(io("list", place))? {
            give(&entry.map_err(io("list", place))?.path(), user, group)?;
        }
    }
    Ok(())
}

/// The names that a restore makes directly in its directory.
fn names(backup: &Backup) -> BTreeSet<String> {
    let first = |path: &str| path.split('/').next().map(str::to_owned);
    let own = [
        "pg_wal",
        "pg_tblspc",
        "global",
        "backup_label",
        "postgresql.conf",
        "postgresql.auto.conf",
        "pg_hba.conf",
    ];
    let own = own.into_iter().chain([
        "pg_ident.conf",
        "recovery.signal",
        "standby.signal",
        "farshore.from-backup",
        "farshore-copy.log",
    ]);
    let from_base: BTreeSet<String> = backup
        .manifest()
        .entries
        .iter()
        .filter_map(|entry| first(&entry.path))
        .chain(own.map(str::to_owned))
        .collect();
    let aside = from_base.iter().map(|name| format!("{name}.from-backup"));
    from_base.iter().cloned().chain(aside).chain([RUN_DIR.to_owned()]).collect()
}
