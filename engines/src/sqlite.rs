//! SQLite in WAL mode: the only place that opens a protected SQLite database or knows its files.

pub mod apply;
pub mod base;
pub mod decoder;
pub mod follow;
pub mod hold;
pub mod mark;
pub mod record;
pub mod serve;
pub mod talk;
pub mod wal;
pub mod wal_file;
