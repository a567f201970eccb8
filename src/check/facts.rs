//! What `farshore check` looks at, gathered by others: settings, rights, slots, store, keys, clock, space.
//!
//! What always holds: every fact is an `Option`, and `None` means "not known". Nothing here may be filled with a
//! guess or a default: an unknown fact is a finding of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::OnFull;

/// Everything that can be known about one PostgreSQL database and its stores.
#[derive(Debug, Clone, Default)]
pub struct CheckFacts {
    /// What the configuration promises; always known.
    pub wanted: Wanted,
    /// `server_version_num`, for instance 170002.
    pub server_version: Option<u32>,
    /// Whether the server is a standby (`pg_is_in_recovery()`).
    pub in_recovery: Option<bool>,
    /// `pg_settings` by name, values as `current_setting` shows them for text and as plain numbers in the setting's
    /// base unit (`pg_settings.setting`) for numbers.
    pub settings: Option<BTreeMap<String, String>>,
    /// The rights of the role farshore connects as.
    pub role: Option<RoleFacts>,
    /// Whether a connection in replication mode was accepted.
    pub replication_connects: Option<bool>,
    /// Whether that connection is encrypted.
    pub encrypted: Option<bool>,
    /// The two slots; an empty list means that they were looked for and are not there.
    pub slots: Option<Vec<SlotFacts>>,
    /// How many slots and WAL senders are in use now, farshore's own included.
    pub slots_used: Option<u32>,
    /// Bytes of log the primary keeps because of farshore's slots.
    pub retained_bytes: Option<u64>,
    /// Free bytes on the file system of `pg_wal`.
    pub wal_free_bytes: Option<u64>,
    /// Server clock minus this machine's clock.
    pub clock_difference: Option<ClockDifference>,
    /// One entry for each store of the database.
    pub stores: Vec<StoreFacts>,
    /// Server programs of the same major version were found for restores.
    pub restore_programs: Option<bool>,
}

/// What the configuration asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The database's name.
    pub database: String,
    /// What happens when no more log can be kept.
    pub on_full: OnFull,
    /// The RPO, where one is set.
    pub rpo: Option<Duration>,
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
    /// Whether it answered a read.
    pub reachable: Option<bool>,
    /// Whether a probe by races showed that only one writer creates a name.
    pub creates_once: Option<bool>,
    /// Store clock minus this machine's clock.
    pub clock_difference: Option<ClockDifference>,
    /// Free bytes, where the store is a directory.
    pub free_bytes: Option<u64>,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Whether the directory lies on the same file system as the database.
    pub beside_database: Option<bool>,
    /// How it is encrypted.
    pub keys: KeyFacts,
}

/// The keys of one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// How many public keys it is encrypted for.
    pub recipients: u32,
    /// A private key lies on this machine.
    pub identity_here: Option<bool>,
    /// A private key opened the newest generation.
    pub identity_opens: Option<bool>,
}
