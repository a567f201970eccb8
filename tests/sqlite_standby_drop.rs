//! The promise: a standby's copy of a SQLite database is removed when that is said, and nothing else ever is.
//!
//! Method: the real binary, on copies that run, that were promoted, and beside which something of others lies.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "sqlite/copies.rs"]
mod copies;
mod service;
mod sqlite;

use copies::{assert_refused, commit, copy, follow, place, rows, standby, stop, wait_made, wait_stored};
use sqlite::node;

#[test]
fn a_copy_goes_when_that_is_said_and_nobody_has_it_and_nothing_of_others_lies_beside_it() {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    commit(&node, 3);
    wait_stored(&node);
    let running = follow(&node, "standby");
    wait_made(&node, "standby");
    assert_refused(&standby(&node, "drop", "standby", &["--yes"]), 5, "FS-0506", &["another process has"]);
    for verb in ["pause", "resume"] {
        assert_refused(&standby(&node, verb, "standby", &[]), 4, "FS-0512", &["farshore standby run"]);
    }
    stop(running, &node, "standby");
    assert_refused(&standby(&node, "drop", "standby", &[]), 4, "FS-0512", &["--yes"]);
    let notes = place(&node, "standby").join("notes");
    std::fs::write(&notes, "mine").unwrap();
    assert_refused(&standby(&node, "drop", "standby", &["--yes"]), 5, "FS-0506", &["notes"]);
    assert_eq!(rows(&copy(&node, "standby")), 3, "it is whole still");
    std::fs::remove_file(&notes).unwrap();
    let done = standby(&node, "drop", "standby", &["--yes"]);
    assert!(done.status.success() && !place(&node, "standby").exists(), "{done:?}");
    assert_refused(&standby(&node, "drop", "standby", &["--yes"]), 3, "FS-0507", &[]);
    // The same place serves again; a promoted copy is a database of its own.
    let running = follow(&node, "standby");
    wait_made(&node, "standby");
    stop(running, &node, "standby");
    assert!(standby(&node, "promote", "standby", &[]).status.success());
    assert_refused(&standby(&node, "drop", "standby", &["--yes"]), 5, "FS-0506", &["database of its own"]);
    assert_eq!(rows(&copy(&node, "standby")), 3);
    service.stop();
}
