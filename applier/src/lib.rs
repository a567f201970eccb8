//! Restores a database from its journal: plan first, then run the plan; fetch, verify and standby copies besides.
//!
//! The way in: a [`source::Source`] is one incarnation in a store with the keys at hand; [`plan::resolve`] says what a
//! restore would do, or refuses before a byte is written; [`restore::run`] does it; [`wal_fetch::fetch`] answers a
//! server's `restore_command`; [`verify::verify`] reads everything there is; [`heads`] holds a journal against what was signed of it; [`held`] says whether a
//! journal holds a number, without reading it.

pub mod compare;
pub mod former;
pub mod heads;
pub mod held;
pub mod plan;
pub mod restore;
pub mod retention;
pub mod serve;
pub mod source;
pub mod standby;
pub mod verify;
pub mod wal_fetch;

mod ahead;
mod blocks;
mod branches;
#[cfg(test)]
mod fixture;
mod log;
