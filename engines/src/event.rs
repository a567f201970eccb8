//! What a database's log says happened, in words that do not belong to one engine where that is possible.
//!
//! Every event carries the half-open range of the log record it came from. A restore target `P` includes an event
//! when `event.end <= P`, so `end` is what an index keeps. Times are microseconds since 1970-01-01 00:00:00 UTC as
//! the database's clock gave them: they may run backwards, and positions never do.

use farshore_journal::{Offset, Timeline};

/// A transaction's number.
///
/// PostgreSQL's log carries only the low 32 bits. `full` is known once a checkpoint, or the caller, has said how
/// often that counter went round; until then it is `None` and no index may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId {
    /// As the log carries it.
    pub low: u32,
    /// With the count of wraparounds above it.
    pub full: Option<u64>,
}

/// One thing that happened, and the log record that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// First byte of the record.
    pub start: Offset,
    /// First byte after the record, rounded up as the database rounds it.
    pub end: Offset,
    /// What the record says.
    pub what: Happened,
}

/// What a log record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// Any record; given only when asked for, before what else the same record says.
    Record(RecordSeen),
    /// A transaction's changes became visible.
    Commit(Commit),
    /// A transaction was rolled back.
    Abort(Abort),
    /// A transaction was prepared for two-phase commit; it lives until a later commit or abort of the same number.
    Prepare(Prepare),
    /// A named point was set.
    RestorePoint {
        /// The name; bytes that are not UTF-8 are shown as replacement characters.
        name: String,
        /// When, by the database's clock.
        time_micros: i64,
    },
    /// A checkpoint was completed.
    Checkpoint(Checkpoint),
    /// An online checkpoint began here: replay from it starts at this record (PostgreSQL 17 and later).
    CheckpointRedo,
    /// Recovery ended here and, where the numbers differ, a new timeline began.
    EndOfRecovery {
        /// When, by the database's clock.
        time_micros: i64,
        /// The timeline from here on.
        timeline: Timeline,
        /// The timeline before.
        previous_timeline: Timeline,
    },
    /// A base backup that began at `backup_start` is consistent from here on.
    BackupEnd {
        /// Where that backup's replay starts.
        backup_start: Offset,
    },
    /// Settings a standby must match changed.
    ParameterChange(Parameters),
    /// Whether whole pages are logged at their first change after a checkpoint.
    FullPageWritesChange {
        /// The new setting.
        on: bool,
    },
    /// A tablespace was made; replay makes it again, at this very place.
    TablespaceCreated {
        /// Its object number.
        oid: u32,
        /// Its directory at the source; empty for one inside of the data directory.
        location: String,
    },
    /// The rest of this log segment is unused; the next record starts at `next_segment`.
    Switch {
        /// First byte of the next segment.
        next_segment: Offset,
    },
    /// A record that had begun at `abandoned` was never finished, because the database crashed while it was written.
    Abandoned {
        /// Where the unfinished record starts.
        abandoned: Offset,
        /// When the database noticed, by its clock.
        time_micros: i64,
    },
}

/// A log record's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSeen {
    /// Which part of the database wrote it.
    pub resource_manager: u8,
    /// What that part calls this kind of record, with its flags.
    pub info: u8,
    /// The writing transaction; zero bits when none did.
    pub transaction: u32,
    /// Bytes of the record, without page heads and without rounding.
    pub total_bytes: u32,
}

/// Where a replicated transaction came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The local number of the origin, when the record names it.
    pub node: Option<u16>,
    /// Its position at the origin.
    pub offset: Offset,
    /// Its commit time at the origin.
    pub time_micros: i64,
}

/// A two-phase transaction's name, where the log carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The name; PostgreSQL repeats it at commit only with `wal_level = logical`.
    pub name: Option<String>,
}

/// A transaction's changes became visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// When, by the database's clock.
    pub time_micros: i64,
    /// The transaction, and for a two-phase commit the one that was prepared.
    pub transaction: TransactionId,
    /// Its sub-transactions that committed with it.
    pub subtransactions: Vec<TransactionId>,
    /// Present when this commits a prepared transaction.
    pub prepared: Option<Prepared>,
    /// The database it ran in, where the log says so.
    pub database: Option<u32>,
    /// Present when it was replicated from elsewhere.
    pub origin: Option<Origin>,
    /// Relations whose files this commit removes.
    pub relations_dropped: u32,
}

/// A transaction was rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// When, by the database's clock.
    pub time_micros: i64,
    /// The transaction, and for a two-phase abort the one that was prepared.
    pub transaction: TransactionId,
    /// Its sub-transactions that were rolled back with it.
    pub subtransactions: Vec<TransactionId>,
    /// Present when this rolls back a prepared transaction.
    pub prepared: Option<Prepared>,
    /// The database it ran in, where the log says so.
    pub database: Option<u32>,
}

/// A transaction was prepared for two-phase commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// When, by the database's clock.
    pub time_micros: i64,
    /// The transaction.
    pub transaction: TransactionId,
    /// Its sub-transactions that will commit with it.
    pub subtransactions: Vec<TransactionId>,
    /// Its name; bytes that are not UTF-8 are shown as replacement characters.
    pub name: String,
    /// The database it ran in.
    pub database: u32,
}

/// A checkpoint was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whether the database was running: false at a clean shutdown and at the end of a recovery.
    pub online: bool,
    /// Where replay from this checkpoint starts.
    pub redo: Offset,
    /// The next transaction number to be given out, with its wraparounds.
    pub next_transaction: u64,
    /// The timeline it was written on.
    pub timeline: Timeline,
    /// The timeline before, where this record begins a new one; equal otherwise.
    pub previous_timeline: Timeline,
    /// Whether whole pages are logged at their first change after it.
    pub full_page_writes: bool,
    /// When, in microseconds though PostgreSQL keeps only seconds here.
    pub time_micros: i64,
}

/// Settings a standby must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}
