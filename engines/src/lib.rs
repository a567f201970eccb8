//! How each database's log is read, decoded, backed up and restored: the only place that speaks to a protected
//! database or knows its files.

pub mod drill;
pub mod event;
pub mod indexed;
pub mod log;
pub mod postgres;
pub mod sample;
pub mod sqlite;
pub mod stream;
