//! Real servers for tests: PostgreSQL of every supported major, an S3 store, an Azure blob store, a relay of mails.
//!
//! What always holds:
//! - A server listens on loopback only, at a port that no other test has, and ends with its owner: on drop, and also
//!   when the test process is killed (see [`process::Owned`]).
//! - Everything a server wrote lies in one folder, removed on drop.
//! - Waiting is for an event and has a deadline. A missed deadline panics with the tail of the server's log.
//! - Nothing is skipped: a missing program panics and names `tests/install`.
//!
//! As this crate serves tests only, it panics where a product would return an error: the panic is the test's message.
//! It knows nothing of farshore's own crates, so that a change there cannot bend the ground the tests stand on.

pub mod browser;
pub mod link;
pub mod mail;
pub mod pg;
pub mod process;
pub mod random;
pub mod small_disk;
pub mod soak;
pub mod stores;
pub mod user;

mod must;
mod ports;
mod service;
pub mod tls;
pub mod tools;

use std::path::{Path, PathBuf};

/// The `farshore` program as tests run it: pass `env!("CARGO_BIN_EXE_farshore")`, which cargo sets for tests of the
/// root package. The answer is a path that the unprivileged user of [`user`] can execute as well.
#[must_use]
pub fn farshore_bin(built: &str) -> PathBuf {
    user::executable(Path::new(built))
}

/// The program that makes questions up from an OpenAPI document.
///
/// # Panics
/// If it is not installed.
#[must_use]
pub fn schemathesis() -> PathBuf {
    tools::need("FARSHORE_SCHEMATHESIS")
}
