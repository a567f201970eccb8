//! SQLite in WAL mode: the only place that opens a protected SQLite database or knows its files.

/// Bytes of a log segment in a SQLite database's journal: no frame crosses its border.
pub const SEGMENT_BYTES: u64 = 16 << 20;

pub mod apply;
pub mod backup;
pub mod base;
pub mod check;
pub mod compare;
pub mod decoder;
pub mod drill;
pub mod follow;
pub mod hold;
pub mod kept;
pub mod look;
pub mod mark;
pub mod mounted;
pub mod record;
pub mod sample;
pub mod serve;
pub mod standby;
pub mod stream;
pub mod talk;
pub mod wake;
pub mod wal;
pub mod wal_file;
