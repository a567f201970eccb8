//! A live SQLite database that other processes write to, with another SQLite than ours: every transaction is taken, none is missed,
//! and the log is begun anew under steady writes.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is the failure message

#[path = "../sqlite/mod.rs"]
mod sqlite;

mod replica;

mod absences;
mod broken_off;
mod copies;
mod faster;
mod overwritten;
mod writers;
