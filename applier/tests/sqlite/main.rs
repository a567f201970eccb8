//! A real SQLite database and a real store: what was committed is what a restore brings back, to the row; what was changed in the store
//! is reported and never restored.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a panic there is the failure message"
)]

#[path = "../../../engines/tests/sqlite/mod.rs"]
mod application;
mod changed;
mod follow;
mod places;
mod reached;
mod restored;
mod rig;
mod standby;

use std::os::unix::net::UnixStream;

/// Not a test of its own: the process that follows a database for the others, which is this very program.
#[test]
fn served_for_another_test() {
    let Some(path) = std::env::var_os(follow::SOCKET) else { return };
    let stream = UnixStream::connect(path).unwrap();
    farshore_engines::sqlite::serve::serve(stream.try_clone().unwrap(), stream).unwrap();
}
