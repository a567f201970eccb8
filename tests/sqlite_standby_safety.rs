//! The promise: `farshore standby` changes nothing in a directory that is not a standby's from its first byte, and a copy that somebody else wrote to is never called whole.
//!
//! Method: directories as restores, applications and operators leave them; what is in them is compared byte by byte with what was there before.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "sqlite/copies.rs"]
mod copies;
mod service;
mod sqlite;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use copies::{
    assert_refused, commit, copy, everything, follow, made_and_stopped, place, rows, said, sql, standby,
    status, stop, wait_caught_up, wait_made, wait_stored,
};
use farshore_engines::sqlite::compare::Ignoring;
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use nix::sys::signal::Signal;
use service::{Node, SOON, Service};
use sqlite::oracle::assert_same_pages;
use sqlite::{database, node, text};

/// A node with a base, and some transactions behind it.
fn shipped() -> (Node, Service) {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    commit(&node, 3);
    wait_stored(&node);
    (node, service)
}

fn restore(node: &Node, to: &str, target: &[&str]) {
    let directory = text(&place(node, to));
    let done = node.run(&[&["restore", "orders", "--to", &directory][..], target].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A mistake is made, the DBA takes a copy from just before it, and then looks for a way to keep that up to date.
#[test]
fn a_copy_that_was_restored_to_before_a_mistake_is_never_rolled_over_it() {
    let (node, service) = shipped();
    sql(&database(&node), "delete from ledger");
    commit(&node, 2);
    wait_stored(&node);
    restore(&node, "rescued", &["--xid", "4"]);
    assert_eq!(rows(&copy(&node, "rescued")), 3);
    restore(&node, "latest", &["--latest"]);
    for (directory, transaction) in [("rescued", "transaction 4"), ("latest", "transaction")] {
        // An application that looked left no log, and the file is as old as it was.
        let before = everything(&place(&node, directory));
        let refused = standby(&node, "run", directory, &[]);
        let says = [transaction, "`farshore restore` made", "nothing in it was changed"];
        assert_refused(&refused, 5, "FS-0506", &says);
        assert_eq!(everything(&place(&node, directory)), before);
    }
    assert_eq!(rows(&copy(&node, "rescued")), 3);
    service.stop();
}

/// What a kill at the rename of a restore's last mark leaves: the database has its name, and the mark says that the restore runs.
#[test]
fn a_database_that_has_its_name_is_never_removed_whatever_the_mark_beside_it_says() {
    let (node, service) = shipped();
    restore(&node, "killed", &["--latest"]);
    let mark = place(&node, "killed").join("farshore-restore.json");
    let says = std::fs::read_to_string(&mark).unwrap();
    assert!(says.contains("\"complete\""), "{says}");
    std::fs::write(&mark, says.replace("\"complete\"", "\"running\"")).unwrap();
    sql(&copy(&node, "killed"), "insert into ledger (writer) values (99)");
    let before = everything(&place(&node, "killed"));
    assert_refused(&standby(&node, "run", "killed", &[]), 5, "FS-0506", &["nothing in it was changed"]);
    assert_eq!(everything(&place(&node, "killed")), before);
    let directory = text(&place(&node, "killed"));
    let refused = node.run(&["restore", "orders", "--to", &directory, "--latest", "--resume"]);
    assert_refused(&refused, 1, "FS-0503", &["app.db", "nothing was written"]);
    assert_eq!(everything(&place(&node, "killed")), before);
    service.stop();
}

#[test]
fn a_copy_that_somebody_wrote_to_is_refused_for_ever_and_never_promoted() {
    let (node, service) = shipped();
    let mut running = follow(&node, "standby");
    wait_made(&node, "standby");
    wait_caught_up(&node, "standby");
    // In place: nothing of the first page changes but what SQLite says of its last writer.
    sql(&copy(&node, "standby"), "update ledger set content = 'mine' where id = 1");
    commit(&node, 1);
    let ended = running.wait(SOON).expect("it stops");
    let log = said(&node, "standby");
    assert_eq!(ended.code(), Some(5), "{log}");
    assert!(log.contains("FS-0505"), "{log}");
    for verb in ["run", "status", "promote"] {
        let refused = standby(&node, verb, "standby", &[]);
        assert_refused(&refused, 5, "FS-0505", &["empty directory"]);
    }
    assert_refused(
        &standby(&node, "promote", "standby", &["--as-it-is"]),
        5,
        "FS-0505",
        &["not the primary's"],
    );
    service.stop();
}

/// Somebody has the copy's writer's lock, for longer than it is waited for, and writes nothing.
#[test]
fn a_writers_lock_that_is_held_is_not_called_a_write_and_the_standby_goes_on_after_it() {
    let (node, service) = shipped();
    let mut running = follow(&node, "standby");
    wait_made(&node, "standby");
    wait_caught_up(&node, "standby");
    let mut holder = Command::new("/usr/bin/python3");
    let script = "import sqlite3,sys,time; c=sqlite3.connect(sys.argv[1],isolation_level=None); c.execute('begin immediate'); print('held',flush=True); time.sleep(600)";
    holder.args(["-c", script]).arg(copy(&node, "standby"));
    let held = place(&node, "held");
    holder.stdout(std::fs::File::create(&held).unwrap());
    let holder = Owned::spawn(user::run_as(holder), Signal::SIGKILL);
    wait_for(SOON, || std::fs::read_to_string(&held).unwrap().contains("held").then_some(())).unwrap();
    commit(&node, 1);
    let ended = running.wait(SOON).expect("it stops");
    let log = said(&node, "standby");
    assert_eq!(ended.code(), Some(5), "{log}");
    assert!(log.contains("FS-0509") && log.contains("is whole as of transaction"), "{log}");
    assert!(!log.contains("FS-0505"), "{log}");
    drop(holder);
    let running = follow(&node, "standby");
    wait_made(&node, "standby");
    wait_caught_up(&node, "standby");
    assert_same_pages(&database(&node), &copy(&node, "standby"), Ignoring::LastWriter);
    stop(running, &node, "standby");
    service.stop();
}

#[test]
fn looking_at_a_standby_or_promoting_none_makes_and_changes_nothing() {
    let (node, service) = shipped();
    for verb in ["status", "promote"] {
        assert_refused(&standby(&node, verb, "typo", &[]), 3, "FS-0507", &[]);
        assert!(!place(&node, "typo").exists(), "{verb} made it");
    }
    let mut running = follow(&node, "standby");
    wait_made(&node, "standby");
    commit(&node, 1);
    wait_caught_up(&node, "standby");
    running.signal(Signal::SIGKILL);
    running.wait(SOON).unwrap();
    let wal = place(&node, "standby").join("app.db-wal");
    let before = std::fs::metadata(&wal).unwrap().len();
    assert!(before > 0);
    assert_eq!(status(&node, "standby").unwrap()["running"], false);
    assert_eq!(std::fs::metadata(&wal).unwrap().len(), before, "a look copied the log back");
    // A parent that is not there is said to be that.
    let directory = text(&place(&node, "no").join("such").join("place"));
    let refused = node.run(&["standby", "run", "orders", "--to", &directory]);
    assert_refused(&refused, 1, "FS-0508", &["parent", "nothing was begun"]);
    service.stop();
}

/// Applications of other users read the copy: whether they can is the operator's to say, with the directory that he makes.
#[test]
fn a_directory_that_was_there_keeps_its_mode_and_the_copy_has_its_sources() {
    let (node, service) = {
        let node = node(4096);
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(database(&node), mode(0o640)).unwrap();
        let service = node.start(None);
        node.wait_backup(1);
        (node, service)
    };
    for (directory, mode) in [("shared", Some(0o2755)), ("own", None)] {
        if let Some(mode) = mode {
            std::fs::create_dir(place(&node, directory)).unwrap();
            std::fs::set_permissions(place(&node, directory), std::fs::Permissions::from_mode(mode)).unwrap();
            user::give(&place(&node, directory));
            // Changing the owner takes some bits away.
            std::fs::set_permissions(place(&node, directory), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let running = follow(&node, directory);
        wait_made(&node, directory);
        commit(&node, 1);
        wait_caught_up(&node, directory);
        let modes = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(modes(&place(&node, directory)), mode.unwrap_or(0o700));
        for name in ["app.db", "app.db-wal", "app.db-shm"] {
            assert_eq!(modes(&place(&node, directory).join(name)), 0o640, "{name}");
        }
        stop(running, &node, directory);
    }
    service.stop();
}

#[test]
fn a_restore_does_not_go_into_a_standbys_directory() {
    let (node, service) = shipped();
    made_and_stopped(&node, "standby");
    let before = everything(&place(&node, "standby"));
    let directory = text(&place(&node, "standby"));
    for more in [&[][..], &["--resume"]] {
        let refused = node.run(&[&["restore", "orders", "--latest", "--to", &directory][..], more].concat());
        assert_refused(&refused, 1, "FS-0503", &["standby", "nothing was written"]);
        assert_eq!(everything(&place(&node, "standby")), before);
    }
    // What an earlier build wrote is not misread.
    std::fs::write(
        place(&node, "standby").join("farshore-standby.json"),
        r#"{"schema":"farshore.standby/1","role":"standby"}"#,
    )
    .unwrap();
    for verb in ["run", "status", "promote"] {
        assert_refused(&standby(&node, verb, "standby", &[]), 1, "FS-0508", &["farshore.standby/1"]);
    }
    service.stop();
}
