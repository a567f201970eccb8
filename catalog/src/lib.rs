//! The catalog: what exists, where, and since when.
//!
//! It is a cache of what the store proves, plus what only this installation knows (shipping progress, nodes,
//! activity, who may ask). Losing it stops no shipping and no restore: `catalog rebuild` writes it anew from the store, but for
//! tokens, users and their sessions, which no store has.
//!
//! What always holds:
//! - Every function ends within the deadline given to [`Catalog::open`]; callers treat an [`Error`] as "the catalog
//!   is away" ([`Error::is_away`] tells it from a refusal) and go on.
//! - One text per query for SQLite and PostgreSQL, and every query is tested on both.
//! - Rows become domain types before they leave a file; a row that cannot be one is an error, not a guess.
//! - No address with a password leaves this crate, in messages or in logs.
//!
//! It does not decide: what may be restored is computed in [`window`], how far behind a database is in [`lag`],
//! both as pure functions over what was read.

pub mod access;
pub mod activity;
pub mod ask;
pub mod backup;
pub mod branch;
pub mod chronicle;
pub mod commit;
pub mod compare;
mod connection;
pub mod database;
pub mod drill;
mod error;
pub mod exposure;
pub mod fleet;
pub mod gap;
pub mod glance;
pub mod guard;
pub mod head;
pub mod hold;
pub mod incarnation;
pub mod job;
mod journals;
pub mod lag;
pub mod ledger;
mod lineup;
pub mod mark;
mod migrations;
pub mod node;
pub mod notice;
mod packed;
pub mod points;
pub mod proof;
pub mod range;
pub mod rebuild;
pub mod recovery;
mod row;
pub mod schedule;
pub mod session;
pub mod shipping;
pub mod snapshot;
pub mod spool;
pub mod standby;
pub mod status;
pub mod store;
pub mod target;
pub mod throttle;
pub mod token;
pub mod user;
pub mod window;

pub use connection::{Catalog, Durability, Options, Renewal, Txn};
pub use error::{Error, Result, Retry};

/// A moment, in UTC. The catalog keeps microseconds; finer parts are cut off when written.
pub type Time = chrono::DateTime<chrono::Utc>;
