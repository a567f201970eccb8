//! The promise: a comparison says `equal` of a standby that is, under any load, and of one that is not it names every row that differs; what it did not look at it never calls equal; and no standby is held for longer than that takes.
//!
//! Method: the real binary ships and serves; standbys are restored copies that stream from it; differences are written into a stopped standby's own files.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was measured is read in the output

#[path = "compare/asked.rs"]
mod asked;
#[path = "compare/load.rs"]
mod load;
#[path = "compare/rig.rs"]
mod rig;
#[path = "compare/seeds.rs"]
mod seeds;
mod service;
#[path = "compare/words.rs"]
mod words;
