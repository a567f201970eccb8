//! What `farshore check` looks at, gathered by others: settings, rights, slots, store, keys, clock, space.
//!
//! What always holds: every fact is an `Option`, and `None` means "not known". Nothing here may be filled with a
//! guess or a default: an unknown fact is a finding of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use farshore_journal::Position;

use crate::check::connection::Refusal;
use crate::config::OnFull;

/// Everything that can be known about one PostgreSQL database and its stores.
#[derive(Debug, Clone, Default)]
pub struct CheckFacts {
    /// What the configuration promises; always known.
    pub wanted: Wanted,
    /// Why no host was asked at all: the address or a secret could not be used.
    pub not_asked: Option<NotAsked>,
    /// Every host of the URL, in its order.
    pub hosts: Vec<HostFacts>,
    /// `server_version_num`, for instance 170002. This and what follows is of the primary, or of the first host that
    /// answered when none is one.
    pub server_version: Option<u32>,
    /// Whether the server is a standby (`pg_is_in_recovery()`).
    pub in_recovery: Option<bool>,
    /// Which cluster it is (`IDENTIFY_SYSTEM`).
    pub cluster: Option<u64>,
    /// `pg_settings` by name, values as `current_setting` shows them for text and as plain numbers in the setting's
    /// base unit (`pg_settings.setting`) for numbers.
    pub settings: Option<BTreeMap<String, String>>,
    /// The rights of the role farshore connects as.
    pub role: Option<RoleFacts>,
    /// farshore's slots that are there; an empty list means that they were looked for and are not there.
    pub slots: Option<Vec<SlotFacts>>,
    /// Names of farshore's slots that are not there.
    pub slots_missing: Vec<String>,
    /// How many slots are in use now, farshore's own included.
    pub slots_used: Option<u32>,
    /// Bytes of log the primary keeps because of farshore's slots.
    pub retained_bytes: Option<u64>,
    /// Free bytes on the file system of `pg_wal`.
    pub wal_free_bytes: Option<u64>,
    /// Whether a guard of the database is connected to the primary.
    pub guard: Option<bool>,
    /// Server clock minus this machine's clock.
    pub clock_difference: Option<ClockDifference>,
    /// One entry for each store of the database.
    pub stores: Vec<StoreFacts>,
    /// The directories of its spool, its own first; none where it has no spool.
    pub spool: Vec<SpoolFacts>,
    /// The keys of signed heads.
    pub heads: Option<HeadFacts>,
    /// How far the journal is signed in each store that the catalog knows, where heads are signed; without a catalog none is known.
    pub signed: Option<Vec<SignedFacts>>,
    /// Server programs of the same major version were found for restores.
    pub restore_programs: Option<bool>,
}

/// A directory of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolFacts {
    /// Its path.
    pub directory: String,
    /// Bytes that may stand in it.
    pub limit: u64,
    /// Bytes that do, and that are free beside it; why it cannot be used.
    pub found: Result<(u64, u64), String>,
    /// Whether this user may write there.
    pub is_writable: bool,
    /// Whether it lies on the disk of the database or its log; `None` where that is not on this machine.
    pub is_beside_log: Option<bool>,
}

/// What the configuration asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The database's name.
    pub database: String,
    /// What happens when no more log can be kept.
    pub on_full: OnFull,
    /// What `synchronous_standby_names` is to say, where commits wait for farshore; `None`: none does.
    pub waits_for: Option<String>,
    /// A guard lets them go after a while, and makes that setting itself.
    pub guarded: bool,
    /// The RPO, where one is set.
    pub rpo: Option<Duration>,
    /// The role of the URL.
    pub user: String,
    /// The database of the URL, for SQL.
    pub sql_database: String,
}

/// Why nothing could be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAsked {
    /// What happened.
    pub why: String,
    /// What to do.
    pub mend: String,
}

/// One host of the URL.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// Its name with the port.
    pub name: String,
    /// How a session for SQL ended.
    pub sql: Option<Result<(), Refusal>>,
    /// How a replication connection ended.
    pub replication: Option<Result<(), Refusal>>,
    /// Whether rows cross no network in the clear: encrypted, or on this machine.
    pub encrypted: Option<bool>,
    /// Whether it is a standby.
    pub in_recovery: Option<bool>,
    /// Which cluster it is.
    pub cluster: Option<u64>,
    /// How the slot there stands that keeps the log until it is stored.
    pub keep: Option<KeepFound>,
}

/// A host's keep slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepFound {
    /// It keeps log.
    Keeps,
    /// The host let the log go that it kept.
    Lost,
    /// There is none.
    Missing,
}

/// How far two clocks are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDifference {
    /// The size of the difference.
    pub size: Duration,
    /// How exact the measurement is: half of the round trip.
    pub error: Duration,
}

/// The rights of a role.
#[derive(Debug, Clone, Default)]
pub struct RoleFacts {
    /// Its name.
    pub name: String,
    /// `rolsuper`.
    pub superuser: Option<bool>,
    /// `rolreplication`.
    pub replication: Option<bool>,
    /// `pg_has_role(..., 'pg_read_all_settings', 'USAGE')`, by itself or through `pg_monitor`.
    pub reads_settings: Option<bool>,
    /// `pg_has_role(..., 'pg_read_all_stats', 'USAGE')`.
    pub reads_stats: Option<bool>,
    /// `has_function_privilege('pg_create_restore_point(text)', 'EXECUTE')`.
    pub marks_points: Option<bool>,
}

/// One replication slot.
#[derive(Debug, Clone)]
pub struct SlotFacts {
    /// Its name.
    pub name: String,
    /// Whether it is a physical one.
    pub physical: bool,
    /// `temporary`.
    pub temporary: bool,
    /// `wal_status`: reserved, extended, unreserved or lost.
    pub wal_status: Option<String>,
    /// Whether it holds a position at all (`restart_lsn`).
    pub reserves: bool,
}

/// One store.
#[derive(Debug, Clone, Default)]
pub struct StoreFacts {
    /// Its name.
    pub name: String,
    /// How it was found.
    pub found: Option<StoreFound>,
    /// Whether these credentials may write, with the store's words when they may not.
    pub writable: Option<Result<(), String>>,
    /// Whether only one writer creates a name, with what was seen when more did.
    pub creates_once: Option<Result<(), String>>,
    /// What it holds of this database.
    pub journal: Option<JournalFacts>,
    /// Whether something of this database was stored there before, as the catalog has it: none of that is no new store.
    pub shipped_before: bool,
    /// Free bytes, where the store is a directory.
    pub free_bytes: Option<u64>,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Whether the directory lies on the same file system as the database.
    pub beside_database: Option<bool>,
    /// How it is encrypted.
    pub keys: KeyFacts,
}

/// How a store was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFound {
    /// Its record was read.
    Founded,
    /// It answers, and was never founded.
    New,
    /// Its directory is not there. Nobody makes it by itself: a mount may be away.
    Absent {
        /// The nearest directory that is there.
        parent: String,
        /// Whether we may write there.
        may_make: bool,
    },
    /// It does not answer, or refuses.
    Refused {
        /// Its words.
        said: String,
    },
}

/// What a founded store holds of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalFacts {
    /// Nothing yet.
    Empty,
    /// Its current incarnation.
    Current {
        /// The cluster it was shipped from.
        cluster: String,
        /// That cluster's major version.
        major: u32,
    },
    /// It does not read.
    Unreadable {
        /// Why.
        why: String,
    },
}

/// The keys of one store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// How many public keys it is to be encrypted for.
    pub recipients: u32,
    /// What is wrong with one of them.
    pub recipients_wrong: Option<String>,
    /// The private keys on this machine; `None` when the configuration names no file of them.
    pub identity: Option<IdentityFacts>,
    /// Whether the newest generation opens with them.
    pub newest: Option<NewestKey>,
}

/// An identity file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityFacts {
    /// It does not read.
    Unreadable {
        /// Why.
        why: String,
    },
    /// It reads.
    Read {
        /// Whether a key wrapped for the recipients opened with it.
        fits: bool,
    },
}

/// The newest generation's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewestKey {
    /// Nothing is stored yet.
    NothingStored,
    /// It is not encrypted.
    Clear,
    /// It opened.
    Opens,
    /// It did not open.
    Shut {
        /// Why.
        why: String,
    },
}

/// The keys of signed heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadFacts {
    /// No key signs and none is pinned.
    Neither,
    /// No key signs here, and some are pinned.
    PinnedOnly,
    /// The signing key does not read.
    Unreadable {
        /// Why.
        why: String,
    },
    /// The signing key reads.
    Read {
        /// Whether its file's mode lets others read it.
        open_to_others: bool,
        /// How it stands to the pinned keys.
        pinning: Pinning,
    },
}

/// How far a store's journal is signed, as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedFacts {
    /// The store's name.
    pub store: String,
    /// Where the journal ended behind the newest signed chunk, and how long ago that was signed.
    pub newest: Option<(Position, Duration)>,
    /// Up to where the store has confirmed the journal.
    pub stored: Option<Position>,
}

/// How a signing key stands to the keys that are pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pinning {
    /// Its public half is pinned.
    Fits,
    /// Others are pinned.
    Other {
        /// Its public half.
        public: String,
    },
    /// None is pinned.
    Nothing {
        /// Its public half.
        public: String,
    },
}
