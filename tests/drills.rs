//! The promise: a drill takes a database back for real, into a place that it removes; what it says it found and measured is signed, and a drill that did not pass never says that it did.
//!
//! Method: real servers and files under load are drilled at points chosen by every rule; each fault that is seeded (log that is missing, a page that is damaged, a rule that does not hold, a server that will
//! not start, a process that is killed in any phase) must make exactly that drill fail, with its reason; after every one of them nothing may be left on disk or running.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

#[path = "drills/faults.rs"]
mod faults;
#[path = "drills/files.rs"]
mod files;
#[path = "drills/killed.rs"]
mod killed;
#[path = "drills/rig.rs"]
mod rig;
#[path = "drills/servers.rs"]
mod servers;
#[path = "drills/services.rs"]
mod services;
#[path = "drills/soak.rs"]
mod soak;
