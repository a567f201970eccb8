//! SQLite in WAL mode: the only place that opens a protected SQLite database or knows its files.

pub mod apply;
pub mod backup;
pub mod base;
pub mod check;
pub mod decoder;
pub mod follow;
pub mod hold;
pub mod record;
pub mod serve;
pub mod talk;
pub mod wal;
pub mod wal_file;
