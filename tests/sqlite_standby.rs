//! The promise: applications that read a standby of a SQLite database see whole transactions of the primary's only, and never an older one than before, whoever writes, and
//! whoever is killed; caught up, the copy is the primary page by page; where it cannot go on, it says so and stays whole.
//!
//! Method: writers that do anything, a service that ships them, a standby that is killed at random, and a reader that reads all of the copy without an end. Each read is held against what the
//! database must hold at that transaction (`sqlite/oracle.py` knows, without farshore), so half a transaction, a mixture or a foreign row is found wherever it is. Whenever the standby stands, and caught up
//! at the end, it is compared page by page with a restored copy of the same position, and with the primary.
//! `soak_sqlite_kills` (`sqlite_journal.rs`) kills the service and the writers too.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farshore_engines::sqlite::compare::Ignoring;
use farshore_testkit::soak::Campaign;
use farshore_testkit::user;
use nix::sys::signal::Signal;
use serde_json::Value;
use service::{Node, SOON, let_pass};
use sqlite::oracle::{Story, assert_same_pages};
use sqlite::standby::{Standby, copy, directory, follow, said, status, stop, wait_caught_up, wait_made};
use sqlite::{database, ledger, node, python, text};

/// A writer beside the test that is killed with it.
struct Writer(Child);

impl Writer {
    fn start(node: &Node, number: u64, per_second: u64, kind: &str) -> Self {
        let path = text(&database(node));
        let (number, rate) = (number.to_string(), per_second.to_string());
        let mut command = python(&["write", &path, &number, "600", &rate, kind]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_the_primary(node: &Node) {
    assert_same_pages(&database(node), &copy(node), Ignoring::LastWriter);
}

#[test]
fn soak_sqlite_standby() {
    let mut campaign = Campaign::start("sqlite_standby");
    let kills = if campaign.is_brief() { 3 } else { 16 };
    while campaign.next_round() {
        let (mut story, writers) = Story::by_chance(&mut campaign.random);
        let service = story.node.start(None);
        story.node.wait_backup(1);
        for _ in 0..campaign.random.below(3) {
            let mut standby = follow(&story.node, "standby-killed");
            let_pass(Duration::from_millis(campaign.random.below(400)));
            standby.signal(Signal::SIGKILL);
            standby.wait(SOON).unwrap();
            campaign.count("killed_restores", 1);
        }
        let mut standby = Standby::begin(&story.node);
        let made = std::fs::metadata(copy(&story.node)).unwrap().ino();
        let mut reader = story.read();
        for _ in 0..kills {
            let_pass(Duration::from_millis(campaign.random.below(1200)));
            assert!(standby.kill(&story.node), "{}", standby.said(&story.node));
            campaign.count("killed_standbys", 1);
            if campaign.random.below(3) == 0 {
                // Readers come and go meanwhile: the last one that closes the copy takes its log away.
                reader.kill();
                campaign.count("killed_readers", 1);
                story.look_at_standby();
                reader = story.read();
            }
            standby.again(&story.node);
        }
        let_pass(Duration::from_secs(1));
        writers.into_iter().for_each(|writer| writer.kill());
        story.wait_newest_is_the_primary(|_| ());
        assert_eq!(std::fs::metadata(copy(&story.node)).unwrap().ino(), made, "it was made anew");
        reader.kill();
        standby.stop(&story.node);
        story.look_at_standby();
        service.stop();
        assert_eq!(story.node.incarnations().len(), 1);
        campaign.count("restores", story.restores());
        campaign.count("standby_looks", story.looks());
        story.judge().add_to(&mut campaign);
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
    let mut writer = Writer::start(&node, 1, 400, "steady");
    let_pass(Duration::from_secs(4));
    writer.kill();
    let standby = follow(&node, "standby-1");
    wait_caught_up(&node, "standby-1");
    assert_eq!(std::fs::metadata(copy(&node)).unwrap().ino(), made);
    is_the_primary(&node);
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
    let mut writer = Writer::start(&node, 1, 50, "mixed");
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
    let mut writer = Writer::start(&node, 1, 50, "steady");
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
    let mut writer = Writer::start(&node, 1, 20, "steady");
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
