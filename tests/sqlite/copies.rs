//! What the tests of standbys and restored copies have in common: copies in named directories beside a node, and what is said of them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(dead_code)] // each test binary uses a part of it

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::service::{Node, SOON, let_pass};
use crate::sqlite::{database, text};

/// A directory of a node.
pub fn place(node: &Node, directory: &str) -> PathBuf {
    node.folder().join(directory)
}

/// The copy's file in a directory.
pub fn copy(node: &Node, directory: &str) -> PathBuf {
    place(node, directory).join("app.db")
}

/// Starts a standby; what it says goes to a file beside, `<directory>.log`.
pub fn follow(node: &Node, directory: &str) -> Owned {
    let to = text(&place(node, directory));
    node.beside_others(&["-v", "standby", "run", "orders", "--to", &to], &format!("{directory}.log"))
}

/// What a standby said.
pub fn said(node: &Node, directory: &str) -> String {
    std::fs::read_to_string(node.folder().join(format!("{directory}.log"))).unwrap()
}

/// `farshore standby status`, where there is one.
pub fn status(node: &Node, directory: &str) -> Option<Value> {
    let asked = standby(node, "status", directory, &["-o", "json"]);
    asked.status.success().then(|| serde_json::from_slice(&asked.stdout).unwrap())
}

/// One of `farshore standby`'s verbs on a directory, run to its end.
pub fn standby(node: &Node, verb: &str, directory: &str, more: &[&str]) -> Output {
    let to = text(&place(node, directory));
    let of: &[&str] = if verb == "run" { &["orders"] } else { &[] };
    node.run(&[&["standby", verb][..], of, &["--to", &to], more].concat())
}

/// Waits until a standby keeps its copy up to date.
pub fn wait_made(node: &Node, directory: &str) {
    let made =
        wait_for(SOON, || status(node, directory).filter(|status| status["running"] == true).map(drop));
    assert!(made.is_some(), "{}\n{}", said(node, directory), node.log());
}

/// Waits until everything that was committed is stored.
pub fn wait_stored(node: &Node) {
    let mut before = None;
    let stored = wait_for(SOON, || {
        let_pass(Duration::from_millis(300));
        let end = node.end();
        let stands = end.is_some() && end == before;
        before = end;
        (stands && node.status()?["ship_lag_bytes"] == 0).then_some(())
    });
    assert!(stored.is_some(), "{:?}\n{}", node.status(), node.log());
}

/// Waits until a standby has everything that was committed.
pub fn wait_caught_up(node: &Node, directory: &str) {
    wait_stored(node);
    let caught_up =
        wait_for(SOON, || status(node, directory).filter(|status| status["lag_bytes"] == 0).map(drop));
    assert!(caught_up.is_some(), "{:?}\n{}", status(node, directory), said(node, directory));
}

/// Makes a standby, and stops it once it has everything.
pub fn made_and_stopped(node: &Node, directory: &str) {
    let standby = follow(node, directory);
    wait_made(node, directory);
    wait_caught_up(node, directory);
    stop(standby, node, directory);
}

/// Stops it as an operator does.
pub fn stop(mut standby: Owned, node: &Node, directory: &str) {
    standby.signal(Signal::SIGTERM);
    let ended = standby.wait(SOON).expect("it stops");
    assert!(ended.success(), "{ended:?}: {}", said(node, directory));
}

/// Has another's SQLite do something to a database, as the unprivileged user.
pub fn sql(path: &Path, script: &str) {
    let program = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=60)\nc.executescript(sys.argv[2])\nc.commit()\nc.close()";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", program]).arg(path).arg(script);
    let done = user::run_as(command).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Commits so many transactions at the primary.
pub fn commit(node: &Node, count: usize) {
    let one = "begin immediate; insert into ledger (writer) values (99); commit;";
    sql(&database(node), &one.repeat(count));
}

/// How many rows of `commit` a database holds.
pub fn rows(path: &Path) -> u64 {
    let program = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=60)\nprint(c.execute('select count(*) from ledger where writer = 99').fetchone()[0])";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", program]).arg(path);
    let done = user::run_as(command).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().parse().unwrap()
}

/// Everything in a directory: names, contents and modes.
pub fn everything(directory: &Path) -> Vec<(String, Vec<u8>, u32)> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut all: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap_or_default(), mode)
        })
        .collect();
    all.sort();
    all
}

/// That it was refused with this exit and code, and says all of this.
pub fn assert_refused(output: &Output, exit: i32, code: &str, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{text}");
    assert!(text.contains(code), "{text}");
    for words in says {
        assert!(text.contains(words), "{words:?} is not said: {text}");
    }
}
