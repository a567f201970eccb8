//! PostgreSQL 14 to 18: the only place that speaks to a protected PostgreSQL or knows its files.

pub mod backup;
pub mod log;
pub mod restore;
pub mod sample;
pub mod serve;
pub mod sql;
pub mod standby;
pub mod wire;
