//! Runs a plan: the base's files and the log up to the target come to a new place, in parallel, and the copy is made safe to
//! start; on wish it is started and seen to stand at exactly the promised position.
//!
//! What always holds: nothing outside the directory and its tablespaces' places is written; no log behind the target is
//! written, so nothing behind it can ever be replayed; `global/pg_control` comes last, after the configuration that makes the
//! copy safe, so a restore that was cut off cannot be started; the marker says `complete` only when all of it is durable.
//!
//! ```text
//! marker running ─▶ files and log ─▶ configuration ─▶ pg_control ─▶ synchronise ─▶ marker complete ─▶ (start, wait, verify)
//! ```
//! Tablespaces without a mapping go beside the directory, to `<directory>-tablespace-<oid>`: on the same file system, named
//! after it, and never to the place that the source named.

mod files;
mod marker;
mod segments;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farshore_engines::postgres::restore::beneath::{Access, BeneathError, Bounds, EntryKind, Root};
use farshore_engines::postgres::restore::bin::{self, BinError};
use farshore_engines::postgres::restore::control::ControlError;
use farshore_engines::postgres::restore::install::{self, InstallError};
use farshore_engines::postgres::restore::safe_start::{self, RecoveryTarget, Request, Then};
use farshore_engines::postgres::restore::server::{self, Reached, ServerError, Start};
use farshore_journal::backup::{self, Backup};
use farshore_journal::{BackupId, JournalError, Offset};

use crate::branches::Branches;
use crate::plan::{Neutralised, Plan, PlanError};
use crate::source::Source;

use marker::Alone;
pub use marker::{MARKER, Marker, State};

/// The name of the directory for the socket and the server's messages, inside the restored one.
const RUN_DIR: &str = "farshore-run";
/// A path that still leaves room for the socket's own name.
const LONGEST_SOCKET_DIR: usize = 80;
/// Threads that synchronise files.
const SYNC_THREADS: usize = 8;

/// How a restore is done.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Where to: missing or empty.
    pub directory: PathBuf,
    /// Where tablespaces go, by number. Those not named go beside the directory.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Begin an interrupted restore of the same target anew: what its marker lists is removed first.
    pub resume: bool,
    /// Names the server's socket; no TCP port is opened.
    pub port: u16,
    /// The most `shared_buffers` may take, in bytes.
    pub shared_buffers_limit: u64,
    /// Libraries to preload, named by the operator.
    pub preload: Vec<String>,
    /// Whether to start it.
    pub start: Option<StartOptions>,
}

/// How the restored server is started.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The server's program folder; found by the data's major when not named.
    pub bin: Option<PathBuf>,
    /// What happens at the target.
    pub then: Then,
    /// A superuser of the restored data.
    pub user: String,
    /// A database to connect to.
    pub database: String,
    /// User and group ids for the server: files are given to them. Only root can say so.
    pub run_as: Option<(u32, u32)>,
    /// How long nothing may move.
    pub stall: Duration,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes of files and log that are in place.
    pub done_bytes: u64,
    /// Bytes of files and log in all.
    pub total_bytes: u64,
    /// Seconds left of this phase at the pace so far.
    pub eta_seconds: Option<f64>,
    /// How far the log is in place, or while the server replays, replayed.
    pub log: Option<Offset>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Files and log come to their places.
    Copying,
    /// They are made durable.
    Synchronising,
    /// The server replays.
    Replaying,
    /// The server opens.
    Opening,
}

/// Is told how far it is.
pub type Watcher = Arc<dyn Fn(Progress) + Send + Sync>;

/// A restore that was done.
#[derive(Debug)]
pub struct Restored {
    /// The directory, without links.
    pub directory: PathBuf,
    /// Where the socket and the server's messages are.
    pub socket_dir: PathBuf,
    /// Settings of the source that do not apply.
    pub neutralised: Vec<Neutralised>,
    /// The server at the target, if it was started.
    pub server: Option<Reached>,
}

/// Why a restore was not done.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The plan is of another store, incarnation or format.
    #[error("the plan is not of this database: its {field} differs")]
    PlanOfAnother {
        /// What differs.
        field: &'static str,
    },
    /// The base is gone.
    #[error("backup {id} is not in the store any more")]
    BaseGone {
        /// The backup.
        id: BackupId,
    },
    /// The store, or an object in it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The base's control file, or the timelines.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Log between base and target is not there.
    #[error("the journal does not hold the log behind {at}, and the plan goes to {target}")]
    LogMissing {
        /// The first missing byte.
        at: Offset,
        /// The target.
        target: Offset,
    },
    /// The log does not say what the plan says.
    #[error(
        "the log up to the target is other than planned: {what} differs, so the journal's index, or the plan, is not to be believed"
    )]
    OtherThanPlanned {
        /// In what.
        what: &'static str,
    },
    /// A restore into the directory was cut off.
    #[error("`{}` holds an interrupted restore{}", .directory.display(), if *.same_plan { " of the same target" } else { " of another target" })]
    Interrupted {
        /// The directory.
        directory: PathBuf,
        /// Whether it was of the same target in the same journal: only then it can be resumed.
        same_plan: bool,
    },
    /// A restore into the directory is under way.
    #[error("another process restores into `{}`", .directory.display())]
    Busy {
        /// The directory.
        directory: PathBuf,
    },
    /// A restore into the directory was completed.
    #[error("`{}` holds a completed restore: nothing was changed", .directory.display())]
    AlreadyThere {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory or a file in it.
    #[error(transparent)]
    Beneath(#[from] BeneathError),
    /// The configuration.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The copy would not be safe to start.
    #[error(transparent)]
    SafeStart(#[from] safe_start::PlanError),
    /// The control file.
    #[error("the backup's control file is damaged")]
    Control(#[from] ControlError),
    /// No server programs.
    #[error(transparent)]
    Bin(#[from] BinError),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The operating system refused.
    #[error("cannot {what} `{}`", .path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// A worker ended without a result.
    #[error("the restore was cut off")]
    CutOff,
}

/// What the workers share.
struct Shared {
    started: Instant,
    done: AtomicU64,
    total: u64,
    log: AtomicU64,
    /// One of the workers failed: the others need not go on.
    stop: AtomicBool,
    watcher: Watcher,
}

impl Shared {
    /// The work's result; the first failure stops the other workers, and theirs is only that they were cut off.
    async fn or_stop<T>(
        &self,
        work: impl Future<Output = Result<T, RestoreError>>,
    ) -> Result<T, RestoreError> {
        work.await
            .map_err(|why| if self.stop.swap(true, Ordering::Relaxed) { RestoreError::CutOff } else { why })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let elapsed = self.started.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // an estimate
        let eta = (done > 0).then(|| elapsed * (self.total.saturating_sub(done) as f64) / (done as f64));
        self.tell(Phase::Copying, done, eta);
    }

    fn tell(&self, phase: Phase, done_bytes: u64, eta_seconds: Option<f64>) {
        let log = Some(self.log.load(Ordering::Relaxed)).filter(|log| *log > 0).map(Offset::new);
        (self.watcher)(Progress { phase, done_bytes, total_bytes: self.total, eta_seconds, log });
    }
}

/// Runs a plan. On `Ok` the copy is durable, and if it was started, it was seen to stand at exactly the plan's position.
///
/// # Errors
/// [`RestoreError`]: what was written so far is marked as interrupted and cannot be started.
///
/// # Cancel safety
/// Dropped midway it leaves an interrupted restore; workers end at their next piece.
pub async fn run(
    source: &Source,
    plan: &Plan,
    options: &RestoreOptions,
    watcher: Watcher,
) -> Result<Restored, RestoreError> {
    check_plan(source, plan)?;
    let backup = Backup::open(source.reader(), plan.base.id, source.unlock()).await?;
    let backup = backup.ok_or(RestoreError::BaseGone { id: plan.base.id })?;
    let branches = Branches::read(source.reader()).await.map_err(|why| match why {
        crate::branches::BranchError::Journal(why) => RestoreError::Journal(why),
        other => RestoreError::Plan(PlanError::Timelines { why: other.to_string() }),
    })?;
    let branches = branches
        .ok_or(RestoreError::LogMissing { at: plan.base.start.offset, target: plan.resolved.position })?;
    let control = crate::plan::control_file(&backup).await?;
    let bin = match &options.start {
        Some(start) => Some(bin::find(start.bin.as_deref(), control.major).await?),
        None => None,
    };
    let tablespaces = tablespace_places(&backup, options)?;
    let (root, _alone) = begin(&backup, plan, options, &tablespaces)?;
    let directory = root.path().to_owned();
    let socket_dir = socket_dir(&directory, plan)?;

    let total = backup.manifest().plain_bytes + plan.segments * backup.manifest().segment_bytes;
    let shared = Arc::new(Shared {
        started: Instant::now(),
        done: AtomicU64::new(0),
        total,
        log: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        watcher,
    });
    let root = Arc::new(root);
    // Both at once: a base's files wait for cores, the log for the store.
    // Both are waited for whatever becomes of the other: nobody writes any more when this returns an error.
    let (control_bytes, log) = tokio::join!(
        shared.or_stop(files::place(&backup, &root, &shared)),
        shared.or_stop(Box::pin(segments::place(source, &branches, plan, &backup, &root, &shared))),
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
    marker::complete(&directory, plan)?;

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
            };
            let base = plan.base.start.offset;
            let began = Instant::now();
            let watch = |progress| shared.replay(progress, base, target.end, began);
            Some(Box::pin(server::start(&start, watch)).await?)
        }
        _ => None,
    };
    Ok(Restored { directory, socket_dir, neutralised, server })
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

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RestoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RestoreError::CutOff)
}

fn check_plan(source: &Source, plan: &Plan) -> Result<(), RestoreError> {
    let differs = |field| Err(RestoreError::PlanOfAnother { field });
    if plan.schema != crate::plan::SCHEMA {
        return differs("schema");
    }
    if plan.store != source.reader().store_id() {
        return differs("store");
    }
    if plan.incarnation != source.reader().incarnation() {
        return differs("incarnation");
    }
    Ok(())
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

/// Judges the directory, and makes it ours: the marker is the first file in it.
fn begin(
    backup: &Backup,
    plan: &Plan,
    options: &RestoreOptions,
    tablespaces: &BTreeMap<u32, PathBuf>,
) -> Result<(Root, Alone), RestoreError> {
    // Before anything is judged: a restore that is under way must not be taken for an interrupted one.
    let alone = marker::lock(&options.directory)?;
    if let Some(found) = marker::read(&options.directory)? {
        let same_plan = marker::asks_the_same(&found, plan);
        let directory = options.directory.clone();
        match found.state {
            State::Complete => return Err(RestoreError::AlreadyThere { directory }),
            State::Running if same_plan && options.resume => marker::wipe(&directory, &found, tablespaces)?,
            State::Running => return Err(RestoreError::Interrupted { directory, same_plan }),
        }
    }
    let manifest = backup.manifest();
    let largest =
        manifest.entries.iter().map(|entry| entry.size).max().unwrap_or(0).max(manifest.segment_bytes);
    // Room for our own files besides: configuration kept from the source, histories, the marker.
    let bounds = Bounds {
        entries: manifest.entries.len() as u64 * 2 + plan.segments + 100_000,
        file_bytes: largest.max(1 << 30),
        total_bytes: manifest.plain_bytes + plan.segments * manifest.segment_bytes + (2 << 30),
    };
    let root = Root::create(&options.directory, Access::Owner, bounds)?;
    let first = marker::begin(plan, backup, tablespaces);
    root.write(&root.admit(EntryKind::File, MARKER)?, &first)?;
    marker::sync(root.path())?;
    for (oid, place) in tablespaces {
        root.tablespace_link(*oid, place)?;
    }
    Ok((root, alone))
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

fn io(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { what, path: path.clone(), source }
}
