//! The promise: applications that read a standby of a SQLite database see whole transactions of the primary's only, and never an older one than before, whoever writes, and
//! whoever is killed; caught up, the copy is the primary page by page; where it cannot go on, it says so and stays whole.
//!
//! Method: writers whose every transaction says what the database must hold of theirs, a service that ships it, a standby that is killed at random, and
//! a reader of the system's SQLite that judges the copy without an end.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::soak::Campaign;
use farshore_testkit::user;
use nix::sys::signal::Signal;
use serde_json::Value;
use service::{Node, SOON, let_pass};
use sqlite::{database, ledger, node, python, text};

fn directory(node: &Node) -> PathBuf {
    node.folder().join("standby")
}

fn copy(node: &Node) -> PathBuf {
    directory(node).join("app.db")
}

/// A process beside the test that is killed with it; what it says is in a file.
struct Beside {
    process: Child,
    says: PathBuf,
}

impl Beside {
    fn start(node: &Node, name: &str, arguments: &[&str]) -> Self {
        let says = node.folder().join(name);
        let out = std::fs::File::create(&says).unwrap();
        let process = python(arguments).stdin(Stdio::null()).stdout(out).spawn().unwrap();
        Self { process, says }
    }

    fn writer(node: &Node, number: u64, per_second: u64, kind: &str) -> Self {
        let path = text(&database(node));
        let (number, rate) = (number.to_string(), per_second.to_string());
        Self::start(node, &format!("writer-{number}"), &["write", &path, &number, "600", &rate, kind])
    }

    fn reader(node: &Node) -> Self {
        Self::start(node, "reader", &["watch", &text(&copy(node))])
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn said(&self) -> Vec<Value> {
        let said = std::fs::read_to_string(&self.says).unwrap();
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Judges what the reader said; how often it read.
    fn nothing_wrong(&self) -> u64 {
        let said = self.said();
        let wrong: Vec<&Value> = said.iter().filter(|line| line.get("wrong").is_some()).take(10).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        said.iter().rev().find_map(|line| line["reads"].as_u64()).unwrap_or(0)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a standby; what it says goes to a file of this name.
fn follow(node: &Node, log: &str) -> Owned {
    node.beside_others(&["-v", "standby", "run", "orders", "--to", &text(&directory(node))], log)
}

fn said(node: &Node, log: &str) -> String {
    std::fs::read_to_string(node.folder().join(log)).unwrap()
}

fn status(node: &Node) -> Option<Value> {
    let asked = node.run(&["-o", "json", "standby", "status", "--to", &text(&directory(node))]);
    asked.status.success().then(|| serde_json::from_slice(&asked.stdout).unwrap())
}

/// Waits until there is a copy that is kept up to date.
fn wait_made(node: &Node, log: &str) {
    let made = wait_for(SOON, || status(node).filter(|status| status["running"] == true).map(drop));
    assert!(made.is_some(), "{}\n{}", said(node, log), node.log());
}

/// Waits until everything that was committed is stored and is in the copy.
fn wait_caught_up(node: &Node, log: &str) {
    let mut before = None;
    let settled = wait_for(SOON, || {
        let_pass(Duration::from_millis(500));
        let end = node.end();
        let stands = end.is_some() && end == before;
        before = end;
        let shipped = node.status()?;
        let standby = status(node)?;
        (stands && shipped["ship_lag_bytes"] == 0 && standby["lag_bytes"] == 0).then_some(())
    });
    assert!(settled.is_some(), "{:?} {:?}\n{}\n{}", node.status(), status(node), said(node, log), node.log());
}

fn assert_same_pages(node: &Node) {
    let compared = ledger(&["pages", &text(&database(node)), &text(&copy(node))]);
    let expected = (&Value::Array(vec![]), &Value::Bool(true));
    assert_eq!((&compared["differ"], &compared["same_size_and_schema"]), expected, "{compared}");
}

fn stop(mut standby: Owned, node: &Node, log: &str) {
    standby.signal(Signal::SIGTERM);
    let ended = standby.wait(SOON).expect("it stops");
    assert!(ended.success(), "{ended:?}: {}", said(node, log));
}

#[test]
fn soak_sqlite_standby() {
    let mut campaign = Campaign::start("sqlite_standby");
    while campaign.next_round() {
        let page_bytes = *campaign.random.pick(&[512u32, 4096, 4096, 65536]).unwrap();
        let node = node(page_bytes);
        let service = node.start(None);
        node.wait_backup(1);
        let mut writers = [
            Beside::writer(&node, 1, 100, "steady"),
            Beside::writer(&node, 2, 15, "mixed"),
            Beside::writer(&node, 3, 15, "mixed"),
        ];
        for _ in 0..campaign.random.below(3) {
            let mut standby = follow(&node, "standby-0");
            let_pass(Duration::from_millis(campaign.random.below(400)));
            standby.signal(Signal::SIGKILL);
            standby.wait(SOON).unwrap();
            campaign.count("killed_restores", 1);
        }
        let mut standby = follow(&node, "standby-0");
        wait_made(&node, "standby-0");
        let made = std::fs::metadata(copy(&node)).unwrap().ino();
        let mut reader = Beside::reader(&node);
        let mut log = "standby-0".to_owned();
        for kill in 1..=8u64 {
            let_pass(Duration::from_millis(campaign.random.below(1200)));
            assert!(standby.ended().is_none(), "{}", said(&node, &log));
            standby.signal(Signal::SIGKILL);
            standby.wait(SOON).unwrap();
            campaign.count("killed_standbys", 1);
            if campaign.random.below(3) == 0 {
                // Readers come and go meanwhile: the last one that closes the copy takes its log away.
                reader.kill();
                campaign.count("reads", reader.nothing_wrong());
                let judged = ledger(&["judge", &text(&copy(&node))]);
                let expected = (&Value::Bool(true), &Value::Array(vec![]));
                assert_eq!((&judged["sound"], &judged["wrong"]), expected);
                reader = Beside::reader(&node);
            }
            log = format!("standby-{kill}");
            standby = follow(&node, &log);
        }
        let_pass(Duration::from_secs(1));
        writers.iter_mut().for_each(Beside::kill);
        wait_caught_up(&node, &log);
        assert_eq!(std::fs::metadata(copy(&node)).unwrap().ino(), made, "it was made anew");
        assert_same_pages(&node);
        reader.kill();
        campaign.count("reads", reader.nothing_wrong());
        let transaction = status(&node).unwrap()["transaction"].as_u64().unwrap();
        campaign.count("transactions", transaction);
        stop(standby, &node, &log);
        assert_same_pages(&node);
        service.stop();
    }
    campaign.finish();
}

#[test]
fn a_standby_that_was_stopped_goes_on_without_a_restore_and_reaches_the_primary() {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    let standby = follow(&node, "standby-0");
    wait_made(&node, "standby-0");
    stop(standby, &node, "standby-0");
    let made = std::fs::metadata(copy(&node)).unwrap().ino();
    let mut writer = Beside::writer(&node, 1, 400, "steady");
    let_pass(Duration::from_secs(4));
    writer.kill();
    let standby = follow(&node, "standby-1");
    wait_caught_up(&node, "standby-1");
    assert_eq!(std::fs::metadata(copy(&node)).unwrap().ino(), made);
    assert_same_pages(&node);
    // Another one beside it is refused.
    let beside = node.run(&["standby", "run", "orders", "--to", &text(&directory(&node))]);
    assert_eq!(beside.status.code(), Some(5), "{}", String::from_utf8_lossy(&beside.stderr));
    let promoted = node.run(&["standby", "promote", "--to", &text(&directory(&node))]);
    assert_eq!(promoted.status.code(), Some(5), "{}", String::from_utf8_lossy(&promoted.stderr));
    stop(standby, &node, "standby-1");
    service.stop();
}

#[test]
fn a_promoted_standby_is_a_database_and_is_followed_no_more() {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    let standby = follow(&node, "standby-0");
    wait_made(&node, "standby-0");
    let mut writer = Beside::writer(&node, 1, 50, "mixed");
    let_pass(Duration::from_secs(2));
    writer.kill();
    wait_caught_up(&node, "standby-0");
    stop(standby, &node, "standby-0");
    let place = text(&directory(&node));
    let promoted = node.json(&["standby", "promote", "--to", &place]);
    assert_eq!(promoted["file"], text(&copy(&node)));
    ledger(&["truncate", &text(&copy(&node)), "9"]);
    assert_eq!(ledger(&["judge", &text(&copy(&node))])["sound"], true);
    for verb in [&["standby", "run", "orders", "--to", &place][..], &["standby", "promote", "--to", &place]] {
        let refused = node.run(verb);
        assert_eq!(refused.status.code(), Some(5), "{}", String::from_utf8_lossy(&refused.stderr));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("FS-0506"));
    }
    assert_eq!(status(&node).unwrap()["role"], "promoted");
    service.stop();
}

#[test]
fn a_new_incarnation_ends_a_standby_at_the_end_of_its_own() {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    let mut standby = follow(&node, "standby-0");
    wait_made(&node, "standby-0");
    let mut writer = Beside::writer(&node, 1, 50, "steady");
    let_pass(Duration::from_secs(1));
    writer.kill();
    wait_caught_up(&node, "standby-0");
    service.stop();
    ledger(&["truncate", &text(&database(&node)), "2"]);
    let service = node.start(None);
    node.wait_backup(1);
    let ended = standby.wait(SOON).expect("it stops");
    let log = said(&node, "standby-0");
    assert_eq!(ended.code(), Some(4), "{log}");
    assert!(log.contains("FS-0504") && log.contains("is whole as of transaction"), "{log}");
    assert_eq!(ledger(&["judge", &text(&copy(&node))])["wrong"], Value::Array(vec![]));
    let again = node.run(&["standby", "run", "orders", "--to", &text(&directory(&node))]);
    assert_eq!(again.status.code(), Some(4), "{}", String::from_utf8_lossy(&again.stderr));
    service.stop();
}

#[test]
fn a_standby_that_an_application_writes_to_stops_and_says_so() {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    let mut standby = follow(&node, "standby-0");
    wait_made(&node, "standby-0");
    let mut writer = Beside::writer(&node, 1, 20, "steady");
    let_pass(Duration::from_millis(500));
    let wrote = Instant::now();
    let done = user::run_as({
        let mut command = Command::new("/usr/bin/python3");
        let script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1], timeout=60); c.execute('insert into ledger (writer) values (77)'); c.commit()";
        command.args(["-c", script]).arg(copy(&node));
        command
    })
    .status()
    .unwrap();
    assert!(done.success());
    let ended = standby.wait(SOON).expect("it stops");
    let log = said(&node, "standby-0");
    assert_eq!(ended.code(), Some(5), "{log}");
    assert!(log.contains("FS-0505"), "{log}");
    assert!(wrote.elapsed() < Duration::from_secs(20));
    writer.kill();
    service.stop();
}
