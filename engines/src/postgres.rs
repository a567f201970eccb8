//! PostgreSQL 14 to 18.

pub mod log;
