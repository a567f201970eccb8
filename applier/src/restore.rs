//! Runs a plan: the base's files and the log up to the target come to a new place, and the copy becomes one that can be used: a server's
//! is made safe to start, and on wish started and seen to stand at exactly the promised position (`postgres`); a file is brought to the target and
//! checked (`sqlite`).
//!
//! What always holds: nothing outside the directory and its tablespaces' places is written; no log behind the target is
//! written or applied; what makes the copy a database comes last, so a restore that was cut off cannot be taken for one; the marker says `complete` only when all of it is durable.
//!
//! ```text
//! marker running ─▶ what the engine needs ─▶ synchronise ─▶ marker complete ─▶ (start, wait, verify)
//! ```

mod alone;
mod files;
mod log;
mod marker;
mod postgres;
mod segments;
mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farshore_engines::log::Shape;
use farshore_engines::postgres::restore::beneath::{Access, BeneathError, Bounds, Root};
use farshore_engines::postgres::restore::bin::BinError;
use farshore_engines::postgres::restore::control::ControlError;
use farshore_engines::postgres::restore::install::InstallError;
use farshore_engines::postgres::restore::safe_start::{self, Then};
use farshore_engines::postgres::restore::server::{Reached, ServerError};
use farshore_engines::sqlite::check::{CheckError, Checked};
use farshore_engines::sqlite::decoder::RecordError;
use farshore_journal::backup::Backup;
use farshore_journal::{BackupId, JournalError, Offset};

use crate::branches::Branches;
use crate::plan::{Neutralised, Plan, PlanError};
use crate::source::Source;

pub(crate) use alone::{Alone, lock, lock_there};
pub(crate) use marker::adopted;
pub use marker::read as marker;
pub use marker::{MARKER, Marker, State};

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
    /// Whom the copy follows as a standby, as `primary_conninfo` has it: it then has no target. It is not started with this.
    pub follow: Option<String>,
    /// Whether to start it: an engine that is a file has nothing to start, nor tablespaces, a port or libraries.
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
    /// In a network namespace of its own, where this machine lets us make one.
    pub apart: bool,
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
    /// The database's file, for an engine whose database is one.
    pub file: Option<RestoredFile>,
    /// Where the socket and the server's messages are, for an engine that is a server.
    pub socket_dir: Option<PathBuf>,
    /// Settings of the source that do not apply.
    pub neutralised: Vec<Neutralised>,
    /// The server at the target, if it was started.
    pub server: Option<Reached>,
}

/// A restored file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// How far its engine found it whole.
    pub checked: Checked,
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
    /// The directory is a standby's.
    #[error("`{}` is a standby's directory: a restore does not go there", .directory.display())]
    Standbys {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory of an interrupted restore holds more than that made.
    #[error("`{}` holds what its interrupted restore did not make: {}", .directory.display(), .names.join(", "))]
    Others {
        /// The directory.
        directory: PathBuf,
        /// What, by name.
        names: Vec<String>,
    },
    /// An interrupted restore gave the database its name.
    #[error("`{}` has its name: the restore there came to its end but for the mark that says so", .path.display())]
    Named {
        /// The database's file.
        path: PathBuf,
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
    /// What the backup holds of what was beneath its file is not one whole record.
    #[error("what backup {id} holds of what was beneath its file is not one whole record{}", .source.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    BeneathRecord {
        /// The backup.
        id: BackupId,
        /// What is wrong with it, where it is no record.
        source: Option<RecordError>,
    },
    /// The file that base and log make is not a whole database.
    #[error("the file that the base and the log make is no whole database, and was not given its name: `{}`", .path.display())]
    NotWhole {
        /// The file, under the name that it was written with.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: CheckError,
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
    fn of(total: u64, watcher: Watcher) -> Self {
        Self {
            started: Instant::now(),
            done: AtomicU64::new(0),
            total,
            log: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            watcher,
        }
    }

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

/// A restore that was judged to be of this journal.
struct Task<'a> {
    source: &'a Source,
    plan: &'a Plan,
    options: &'a RestoreOptions,
    backup: Backup,
    branches: Branches,
    watcher: Watcher,
    making: Option<Making>,
}

/// A directory that is held against restores and standbys, for as long as this lives; what is in it is not changed by that.
#[derive(Debug)]
pub struct Held {
    _alone: Alone,
}

/// Holds a directory that is there; `None` where there is none.
///
/// # Errors
/// When another process has it, or it cannot be opened.
pub fn hold(directory: &Path) -> Result<Option<Held>, RestoreError> {
    Ok(lock_there(directory)?.map(|alone| Held { _alone: alone }))
}

/// A restore that makes a standby: its directory is held and marked as one by whoever asks for it, and there is no marker of the restore's own.
pub(crate) struct Making {
    /// The directory.
    pub alone: Arc<Alone>,
    /// The standby's own files, which stand there already.
    pub beside: &'static [&'static str],
    /// Told of the file's name-to-be and where it is, once it is whole and durable and before it has that name; it gets it on `Ok`.
    pub naming: Naming,
}

/// See [`Making::naming`].
pub(crate) type Naming = Box<dyn FnOnce(&str, &Path) -> Result<(), RestoreError> + Send>;

/// Runs a plan. On `Ok` the copy is durable, and if it was started, it was seen to stand at exactly the plan's position.
///
/// # Errors
/// [`RestoreError`]: what was written so far is marked as interrupted and cannot be started, or opened as a database by its name.
///
/// # Cancel safety
/// Dropped midway it leaves an interrupted restore; workers end at their next piece.
pub async fn run(
    source: &Source,
    plan: &Plan,
    options: &RestoreOptions,
    watcher: Watcher,
) -> Result<Restored, RestoreError> {
    begun(source, plan, options, watcher, None).await
}

/// As [`run`], of a SQLite database's copy that becomes a standby.
pub(crate) async fn make(
    source: &Source,
    plan: &Plan,
    directory: &Path,
    making: Making,
    watcher: Watcher,
) -> Result<(), RestoreError> {
    let options = RestoreOptions {
        directory: directory.to_owned(),
        tablespaces: BTreeMap::new(),
        resume: false,
        port: 0,
        shared_buffers_limit: 0,
        preload: Vec::new(),
        follow: None,
        start: None,
    };
    begun(source, plan, &options, watcher, Some(making)).await.map(drop)
}

async fn begun(
    source: &Source,
    plan: &Plan,
    options: &RestoreOptions,
    watcher: Watcher,
    making: Option<Making>,
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
    let task = Task { source, plan, options, backup, branches, watcher, making };
    match source.shape() {
        Shape::Postgres(shape) => Box::pin(postgres::run(task, shape)).await,
        Shape::Sqlite { .. } => Box::pin(sqlite::run(task)).await,
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

/// What a restore makes in its directory.
struct Makes<'a> {
    /// Names directly in it, but for the last one.
    names: BTreeSet<String>,
    /// The name that makes a database of it, where it is given last: what has it is never removed.
    last: Option<&'a str>,
    tablespaces: &'a BTreeMap<u32, PathBuf>,
    access: Access,
}

/// Judges the directory, and makes it ours: the marker is the first file in it.
fn begin(
    backup: &Backup,
    plan: &Plan,
    options: &RestoreOptions,
    makes: Makes<'_>,
) -> Result<(Root, Alone), RestoreError> {
    // Before anything is judged: a restore that is under way must not be taken for an interrupted one.
    let alone = lock(&options.directory)?;
    let directory = || options.directory.clone();
    if std::fs::symlink_metadata(options.directory.join(crate::standby::STATE)).is_ok() {
        return Err(RestoreError::Standbys { directory: directory() });
    }
    let mut beside: &[&str] = &[];
    if let Some(found) = marker::read(&options.directory)? {
        let same_plan = marker::asks_the_same(&found, plan);
        match found.state {
            State::Complete => return Err(RestoreError::AlreadyThere { directory: directory() }),
            State::Running if same_plan && options.resume => {
                let names = marker::others(&alone, &options.directory, &found)?;
                if let Some(last) = makes.last.filter(|last| names.iter().any(|name| name == last)) {
                    return Err(RestoreError::Named { path: options.directory.join(last) });
                }
                if !names.is_empty() {
                    return Err(RestoreError::Others { directory: directory(), names });
                }
                marker::wipe(&options.directory, &found, makes.tablespaces)?;
                beside = &[MARKER];
            }
            State::Running => {
                return Err(RestoreError::Interrupted { directory: directory(), same_plan });
            }
        }
    }
    let bounds = bounds(backup, plan);
    let root = Root::create_beside(&options.directory, makes.access, bounds, beside)?;
    marker::write(&alone, root.path(), &marker::begin(plan, makes.names, makes.tablespaces))?;
    for (oid, place) in makes.tablespaces {
        root.tablespace_link(*oid, place)?;
    }
    Ok((root, alone))
}

fn bounds(backup: &Backup, plan: &Plan) -> Bounds {
    let manifest = backup.manifest();
    let largest =
        manifest.entries.iter().map(|entry| entry.size).max().unwrap_or(0).max(manifest.segment_bytes);
    // Room for our own files besides: configuration kept from the source, histories, the marker.
    Bounds {
        entries: manifest.entries.len() as u64 * 2 + plan.segments + 100_000,
        file_bytes: largest.max(1 << 30),
        total_bytes: manifest.plain_bytes + plan.segments * manifest.segment_bytes + (2 << 30),
    }
}

fn io(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { what, path: path.clone(), source }
}
