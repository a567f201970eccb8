//! What a restore would do: a target resolved to one position, a base, and what it takes. Nothing is written.
//!
//! What always holds: every target resolves to *every record that ends at or before P*; SQLite's records are applied up to there, and PostgreSQL is given the start of the
//! last such record, inclusive, and a numbered timeline, never a time or `latest`; `base.end <= resolved.position`, and the
//! journal is unbroken from `base.start` to it. What cannot be reached is refused here, with what can be. A base with pages that
//! are known to be damaged is taken only when no sound one reaches the target, and then said.
//! It does not write: [`crate::restore`] does.

mod bases;
mod confirm;
mod gaps;
mod postgres;
mod resolve;
mod scan;
mod shortcut;
mod takes;
mod window;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_engines::log::LogError;
use farshore_engines::postgres::restore::control::{ControlError, Limits};
use farshore_engines::postgres::restore::safe_start;
use farshore_engines::sqlite::backup::FilesError;
use farshore_journal::format::Digest;
use farshore_journal::{
    BackupId, DatabaseName, IncarnationId, JournalError, Offset, ParseError, Position, StoreId, Timeline,
};
use serde::{Deserialize, Serialize};

pub(crate) use confirm::Confirmation;
pub(crate) use postgres::{CONTROL_FILE, control_file, neutralised, source_settings};
pub use resolve::{reachable, resolve};
use window::Shown;
pub use window::Window;

/// The plan's schema.
pub const SCHEMA: &str = "farshore.restore-plan/1";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// As far as the journal goes.
    Latest,
    /// Just before the first commit in log order whose time is later.
    Time(DateTime<Utc>),
    /// The last whole record that ends at or before this.
    Position(AskedPosition),
    /// That commit and what came before it, by its 64-bit number.
    Transaction(u64),
    /// A named restore point.
    Point(String),
}

/// A position, on the newest timeline unless one is named. Written `5F/3AA7B9A0` or `2:5F/3AA7B9A0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedPosition {
    /// The timeline, if named.
    pub timeline: Option<Timeline>,
    /// The offset.
    pub offset: Offset,
}

impl fmt::Display for AskedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.timeline {
            Some(timeline) => write!(f, "{timeline}:{}", self.offset),
            None => self.offset.fmt(f),
        }
    }
}

impl FromStr for AskedPosition {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.contains(':') {
            let position: Position = text.parse()?;
            return Ok(Self { timeline: Some(position.timeline), offset: position.offset });
        }
        Ok(Self { timeline: None, offset: text.parse()? })
    }
}

impl Serialize for AskedPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AskedPosition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Time(time) => write!(f, "time {}", time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            Self::Position(position) => write!(f, "position {position}"),
            Self::Transaction(xid) => write!(f, "transaction {xid}"),
            Self::Point(name) => write!(f, "restore point `{name}`"),
        }
    }
}

/// A restore, decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: String,
    /// The database.
    pub database: DatabaseName,
    /// The store.
    pub store: StoreId,
    /// The incarnation.
    pub incarnation: IncarnationId,
    /// What was asked for.
    pub asked: Asked,
    /// What it means.
    pub resolved: Resolved,
    /// From which backup.
    pub base: Base,
    /// Bytes of log that will be replayed.
    pub replay_bytes: u64,
    /// Log segments that will be written; none where records are applied at once.
    pub segments: u64,
    /// Bytes that will be written at most.
    pub writes_bytes: u64,
    /// How long it should take; unknown until a restore of this database was measured.
    pub estimate_seconds: Option<f64>,
    /// Settings of the source that will not apply.
    pub neutralised: Vec<Neutralised>,
    /// Transactions that are prepared and undecided at the target: they will be, in the copy.
    pub prepared: Vec<PreparedThen>,
    /// Commits with a time at or before the one asked for that lie behind the target in the log, and so are left out.
    pub out_of_order: Vec<CommitThen>,
    /// The source's tablespaces: each needs a place.
    pub tablespaces: Vec<TablespaceThen>,
    /// What the log up to the target demands of the copy's settings, where it says that the source's were changed.
    #[serde(default)]
    pub demanded: Option<Demanded>,
    /// Log was passed over on the word of the journal's index. The restore reads all of it and holds the plan against it; until then
    /// everything but the refusal of a target is as true as the index is.
    #[serde(default)]
    pub rests_on_index: bool,
}

/// Settings that the copy may not have lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the settings' own names
pub struct Demanded {
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
}

impl From<Limits> for Demanded {
    fn from(limits: Limits) -> Self {
        Self {
            max_connections: limits.max_connections,
            max_worker_processes: limits.max_worker_processes,
            max_wal_senders: limits.max_wal_senders,
            max_prepared_transactions: limits.max_prepared_transactions,
            max_locks_per_transaction: limits.max_locks_per_transaction,
        }
    }
}

impl From<Demanded> for Limits {
    fn from(demanded: Demanded) -> Self {
        Self {
            max_connections: demanded.max_connections,
            max_worker_processes: demanded.max_worker_processes,
            max_wal_senders: demanded.max_wal_senders,
            max_prepared_transactions: demanded.max_prepared_transactions,
            max_locks_per_transaction: demanded.max_locks_per_transaction,
        }
    }
}

/// Where the restore ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The time of the last commit at or before it, by the database's clock, or for SQLite when its shipper saw it; none when there is none behind the base.
    pub time: Option<DateTime<Utc>>,
    /// The end of the last record that will be replayed.
    pub position: Offset,
    /// The last commit at or before it.
    pub xid: Option<u64>,
    /// Where that commit's record ends.
    #[serde(default)]
    pub commit_position: Option<Offset>,
    /// Its timeline.
    pub timeline: Timeline,
    /// The start of that last record: what PostgreSQL is given.
    pub record_start: Offset,
}

/// The backup that a restore begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its id.
    pub id: BackupId,
    /// What it was called.
    pub label: String,
    /// Where replay starts.
    pub start: Position,
    /// From where on its files are consistent.
    pub end: Position,
    /// When it ended, RFC 3339.
    pub finished: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files and directories.
    pub entries: u64,
    /// Pages that were damaged in the source when it was copied, and are so in the backup: none where it is sound. As many as the
    /// backup names.
    #[serde(default)]
    pub bad_pages: u64,
    /// The first of them.
    #[serde(default)]
    pub first_bad_pages: Vec<BadPageThen>,
    /// The server said that the copy has damaged pages, whether or not they are named.
    #[serde(default)]
    pub damaged: bool,
}

impl Base {
    /// Whether anything in it is known to be damaged.
    pub fn is_damaged(&self) -> bool {
        self.damaged || self.bad_pages > 0
    }
}

/// A damaged page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPageThen {
    /// The file.
    pub path: String,
    /// The page's number in it.
    pub page: u64,
}

/// One setting of the source that will not apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neutralised {
    /// Its name.
    pub setting: String,
    /// The source's value; none when it may hold a secret.
    pub was: Option<String>,
    /// The copy's value; none means the default.
    pub now: Option<String>,
    /// The reason.
    pub why: String,
}

/// A prepared transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedThen {
    /// Its number, where it is known whole.
    pub xid: Option<u64>,
    /// Its name, where the log says it.
    pub name: Option<String>,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitThen {
    /// Its number, where it is known whole.
    pub xid: Option<u64>,
    /// Its time, by the database's clock.
    pub time: Option<DateTime<Utc>>,
    /// Its record's end.
    pub position: Offset,
}

/// A tablespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceThen {
    /// Its number.
    pub oid: u32,
    /// Where it was at the source.
    pub location: String,
}

/// Why there is no plan. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The store or an object in it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal is empty, or holds no complete backup whose log is stored to its end.
    #[error("incarnation {incarnation} has no complete backup yet that could be restored: {why}")]
    NoBase {
        /// How many there are that could not be: one that was just taken may be among them, whose log is not stored yet.
        unfit: usize,
        /// The number of the incarnation.
        incarnation: u64,
        /// What is there.
        why: String,
    },
    /// The journal's timelines contradict each other.
    #[error("the journal's timelines make no sense: {why}")]
    Timelines {
        /// How.
        why: String,
    },
    /// The target lies outside of all windows.
    #[error("{asked} cannot be reached: {why}; {}", Shown(.windows))]
    OutsideWindow {
        /// What was asked for.
        asked: Asked,
        /// Why not.
        why: String,
        /// What can be reached.
        windows: Vec<Window>,
    },
    /// The named transaction or point is not in the journal.
    #[error("{asked} is not in the journal; {}", Shown(.windows))]
    NotFound {
        /// What was asked for.
        asked: Asked,
        /// What can be reached.
        windows: Vec<Window>,
    },
    /// The transaction was rolled back: there is no state that it made.
    #[error("transaction {xid} was rolled back at {at}: restore to a position instead")]
    Aborted {
        /// The transaction.
        xid: u64,
        /// Its abort record's end.
        at: Offset,
    },
    /// More than one thing fits.
    #[error("{asked} is ambiguous: it fits at {}: restore to one of these positions", .at.iter().map(Position::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked for.
        asked: Asked,
        /// Where it fits: the ends of records, or the position itself on each timeline that holds it.
        at: Vec<Position>,
    },
    /// It is on a timeline that the newest one's history left before it.
    #[error(
        "{asked} is not in the history of the newest timeline: it stands at {at}, on a branch that was left: restore to that position"
    )]
    LeftBehind {
        /// What was asked for.
        asked: Asked,
        /// Its record's end.
        at: Position,
    },
    /// The log is missing between base and target.
    #[error("{asked} cannot be reached: the journal does not hold the log behind {at}{}; {}", .end.map(|end| format!(" up to {end}")).unwrap_or_default(), Shown(.windows))]
    Gap {
        /// What was asked for.
        asked: Asked,
        /// The first missing byte.
        at: Position,
        /// Where the log goes on, if it does.
        end: Option<Offset>,
        /// What can be reached.
        windows: Vec<Window>,
    },
    /// The log between base and target is not what its engine writes.
    #[error("the log from {base} on is damaged, whole up to {whole_to:?}: {source}")]
    Damaged {
        /// Where the reading began.
        base: Position,
        /// The end of the last whole record.
        whole_to: Option<Offset>,
        /// What is wrong.
        source: LogError,
    },
    /// What an index of the journal led to is not this journal. A plan is made without it then; nobody is told this.
    #[error("an index of the journal speaks of other log than the journal holds at {at}")]
    Misled {
        /// Where reading went on behind what was passed over.
        at: Offset,
    },
    /// The source logged too little for a while.
    #[error(
        "from {at} on the source ran with wal_level = minimal, and its log from there cannot be replayed: restore to a position before it, or from a backup taken behind it"
    )]
    Minimal {
        /// Where the log says so.
        at: Offset,
    },
    /// The backup's control file is missing or damaged.
    #[error("backup {backup} has no usable control file")]
    Control {
        /// The backup.
        backup: BackupId,
        /// What is wrong with it, if it is there.
        #[source]
        source: Option<ControlError>,
    },
    /// The backup's manifest is not one of its engine's.
    #[error("backup {backup} is none that can be restored")]
    Files {
        /// The backup.
        backup: BackupId,
        /// What is wrong with it.
        #[source]
        source: FilesError,
    },
    /// Replay would make a tablespace where something is.
    #[error(
        "the log up to the target makes a tablespace at `{}`, and replay would make it at that same place here, over what is there: restore to a position before it, from a backup taken behind it, or on a machine where that place is an empty directory",
        .location.display()
    )]
    TablespaceInTheWay {
        /// The place.
        location: std::path::PathBuf,
    },
    /// Replay would make a tablespace where no directory is.
    #[error("the log up to the target makes a tablespace at `{}`: make that an empty directory here, or replay fails there", .location.display())]
    TablespaceNowhere {
        /// The place.
        location: std::path::PathBuf,
    },
    /// Replay would make a tablespace outside of a copy that must stay where it was put.
    #[error(
        "the log up to the target makes a tablespace at `{}`, and replay would make it at that same place here, outside of the copy's own directory: take a base backup behind it, or choose a target before it",
        .location.display()
    )]
    TablespaceOutside {
        /// The place.
        location: std::path::PathBuf,
    },
    /// A copy from this backup cannot be started safely.
    #[error("a copy would not be safe to start")]
    SafeStart(#[from] safe_start::PlanError),
}

impl PlanError {
    /// What can be reached, where the refusal names it.
    fn windows_mut(&mut self) -> Option<&mut Vec<Window>> {
        match self {
            Self::OutsideWindow { windows, .. }
            | Self::NotFound { windows, .. }
            | Self::Gap { windows, .. } => Some(windows),
            _ => None,
        }
    }
}

impl Plan {
    /// A digest of the plan: two equal ones write the same files.
    ///
    /// # Errors
    /// Never in practice: a plan is always JSON.
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        Ok(Digest::of(&serde_json::to_vec(self)?))
    }
}
