//! The promise: what `deploy/` holds fits the program that it was made for.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "deploy/images.rs"]
mod images;
mod service;
mod sqlite;
#[path = "deploy/units.rs"]
mod units;
#[path = "deploy/watching.rs"]
mod watching;

use std::path::PathBuf;

/// A file of the repository.
fn read(path: &str) -> String {
    std::fs::read_to_string(place(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

fn place(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
