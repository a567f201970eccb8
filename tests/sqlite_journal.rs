//! The promise: whatever applications do to a SQLite database, and whoever is killed meanwhile, each position that a store holds of it is
//! restored as it was there, whole; what cannot be shown to go on begins a new incarnation with a base of its own.
//!
//! Method: writers in processes of their own, whose every transaction says what the database must hold of theirs. The service and the writers
//! are killed at random. Copies are restored from every incarnation to random positions, and judged by the system's SQLite.
//! `soak_sqlite_kills` and `soak_sqlite_truncates` do so for as long as they are given.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use farshore_journal::Offset;
use farshore_testkit::process::wait_for;
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use serde_json::Value;
use service::{Node, SOON, let_pass};
use sqlite::{database, ledger, node, python, text};

/// A writer that can be killed; what it committed is in a file.
struct Writer {
    process: Child,
    says: PathBuf,
}

impl Writer {
    fn start(node: &Node, number: u64, seconds: u64, per_second: u64, kind: &str) -> Self {
        let says = node.folder().join(format!("writer-{number}"));
        let out = std::fs::File::options().create(true).append(true).open(&says).unwrap();
        let path = text(&database(node));
        let (number, seconds, rate) = (number.to_string(), seconds.to_string(), per_second.to_string());
        let mut command = python(&["write", &path, &number, &seconds, &rate, kind]);
        Self { process: command.stdin(Stdio::null()).stdout(out).spawn().unwrap(), says }
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The last transaction that it was told is committed.
    fn committed(&self) -> u64 {
        let said = std::fs::read_to_string(&self.says).unwrap();
        said.lines().last().map_or(0, |line| line.parse().unwrap_or(0))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The copy of an incarnation at a target, judged: how far each writer was.
fn restored(node: &Node, incarnation: u64, target: &[&str], copy: &str) -> (PathBuf, BTreeMap<String, u64>) {
    let to = node.folder().join(copy);
    let _ = std::fs::remove_dir_all(&to);
    let (number, place) = (incarnation.to_string(), text(&to));
    let asked = ["restore", "orders", "--incarnation", &number, "--to", &place];
    let restored = node.run(&[&asked[..], target].concat());
    assert!(
        restored.status.success(),
        "{incarnation} {target:?}: {}\n{}",
        String::from_utf8_lossy(&restored.stderr),
        node.log()
    );
    let file = to.join("app.db");
    let judged = ledger(&["judge", &text(&file)]);
    assert_eq!(
        (&judged["sound"], &judged["wrong"]),
        (&Value::Bool(true), &Value::Array(vec![])),
        "{target:?}"
    );
    (file, serde_json::from_value(judged["numbers"].clone()).unwrap())
}

/// Waits until everything that was committed is stored: the journal's end stands still, and the service says that nothing is behind.
fn settle(node: &Node) {
    let mut before = None;
    let settled = wait_for(SOON, || {
        let_pass(Duration::from_millis(700));
        let end = node.end();
        let stands = end.is_some() && end == before;
        before = end;
        let status = node.status()?;
        (stands && status["state"] == "connected" && status["ship_lag_bytes"] == 0).then_some(())
    });
    assert!(settled.is_some(), "{:?}\n{}", node.status(), node.log());
}

/// Restores every incarnation at random positions: along them no writer goes back. How many copies were made.
fn judge_all(node: &Node, random: &mut Random, of_each: u64) -> u64 {
    let mut copies = 0;
    for (record, reader) in node.incarnations() {
        let bases = node.bases_of(&reader);
        // One that was left before its first base was taken holds nothing that can be restored to.
        let Some(from) = bases.iter().map(|base| base.end.offset.get()).min() else { continue };
        let end = node.end_of(&reader).unwrap().offset.get();
        let mut targets: Vec<u64> = (0..of_each).map(|_| from + random.below(end - from + 1)).collect();
        targets.extend([from, end]);
        targets.sort_unstable();
        let mut before: BTreeMap<String, u64> = BTreeMap::new();
        for target in targets {
            let at = Offset::new(target).to_string();
            let (_, numbers) = restored(node, record.number, &["--pos", &at], "copy");
            for (writer, number) in &before {
                assert!(
                    numbers.get(writer).is_some_and(|now| now >= number),
                    "{at}: {before:?} then {numbers:?}"
                );
            }
            before = numbers;
            copies += 1;
        }
    }
    copies
}

/// The newest state that the store holds is the database's.
fn newest_is_the_same(node: &Node) -> BTreeMap<String, u64> {
    let (newest, _) = node.incarnations().pop().unwrap();
    let (file, numbers) = restored(node, newest.number, &["--latest"], "newest");
    let same = ledger(&["same", &text(&database(node)), &text(&file)]);
    assert_eq!(same["same"], Value::Bool(true), "{numbers:?}\n{}", node.log());
    numbers
}

#[test]
fn soak_sqlite_kills() {
    let mut campaign = Campaign::start("sqlite_kills");
    while campaign.next_round() {
        let page_bytes = *campaign.random.pick(&[512u32, 4096, 4096, 65536]).unwrap();
        let node = node(page_bytes);
        let mut service = node.start(None);
        node.wait_backup(1);
        let mut writers = [
            Writer::start(&node, 1, 600, 100, "steady"),
            Writer::start(&node, 2, 600, 15, "mixed"),
            Writer::start(&node, 3, 600, 15, "mixed"),
        ];
        for _ in 0..5 {
            let_pass(Duration::from_millis(campaign.random.below(2500)));
            if campaign.random.below(2) == 0 {
                let which = campaign.random.below(3) as usize;
                writers[which].kill();
                writers[which] = Writer::start(&node, which as u64 + 1, 600, 30, "mixed");
                campaign.count("killed_writers", 1);
            }
            service.kill9();
            campaign.count("killed_shippers", 1);
            let_pass(Duration::from_millis(campaign.random.below(300)));
            service = node.start(None);
        }
        let_pass(Duration::from_secs(2));
        writers.iter_mut().for_each(Writer::kill);
        node.wait_backup(1);
        settle(&node);
        let numbers = newest_is_the_same(&node);
        for (at, writer) in writers.iter().enumerate() {
            let committed = writer.committed();
            let held = numbers.get(&(at + 1).to_string()).copied().unwrap_or(0);
            assert!(held >= committed, "writer {}: {committed} committed, {held} held", at + 1);
        }
        let copies = judge_all(&node, &mut campaign.random, 4);
        campaign.count("copies", copies + 1);
        campaign.count("incarnations", node.incarnations().len() as u64);
        assert_sound(&node);
        service.stop();
    }
    campaign.finish();
}

/// All that the store holds is as it was written.
fn assert_sound(node: &Node) {
    let verified = node.run(&["verify", "orders"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// Whoever asks the newest incarnation for a time that an older one holds is told which.
fn is_told_of_the_older_incarnation(node: &Node, older: u64) {
    let number = older.to_string();
    let to = text(&node.folder().join("none"));
    let whole =
        node.json(&["restore", "orders", "--incarnation", &number, "--latest", "--to", &to, "--dry-run"]);
    let time = whole["resolved"]["time"].as_str().expect("a commit is in every base's log");
    let refused = node.run(&["restore", "orders", "--at", time, "--to", &to]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&format!("add --incarnation {older}")), "{said}");
}

#[test]
fn soak_sqlite_truncates() {
    let mut campaign = Campaign::start("sqlite_truncates");
    let node = node(4096);
    let mut service = node.start(None);
    node.wait_backup(1);
    let mut loops = 0u64;
    while campaign.next_round() {
        loops += 1;
        let before = node.incarnations().len();
        match campaign.random.below(2) {
            0 => service.stop(),
            _ => service.kill9(),
        }
        let answer = ledger(&["truncate", &text(&database(&node)), &loops.to_string()]);
        assert_eq!(answer["busy"], 0, "nobody else has it open");
        service = node.start(None);
        // Nothing shows what came between: a new incarnation with a base of its own, by itself.
        let anew = wait_for(SOON, || (node.incarnations().len() > before).then_some(()));
        assert!(anew.is_some(), "{}", node.log());
        node.wait_backup(1);
        settle(&node);
        newest_is_the_same(&node);
        is_told_of_the_older_incarnation(&node, before as u64 - 1);
        campaign.count("truncates", 1);
    }
    service.stop();
    campaign.finish();
}

#[test]
fn a_base_backup_is_taken_however_fast_an_application_writes() {
    let node = node(4096);
    let mut writer = Writer::start(&node, 1, 600, 1_000_000, "steady");
    let_pass(Duration::from_millis(500));
    let service = node.start(None);
    node.wait_backup(1);
    let_pass(Duration::from_secs(1));
    writer.kill();
    settle(&node);
    let numbers = newest_is_the_same(&node);
    assert!(numbers["1"] >= writer.committed(), "{numbers:?}");
    service.stop();
}

#[test]
fn a_service_that_is_started_again_goes_on_behind_what_it_stored() {
    let node = node(4096);
    let mut service = node.start(None);
    node.wait_backup(1);
    let path = text(&database(&node));
    for round in 1..=4u64 {
        // An application that stays open keeps the log from being copied back by its close.
        let mut writer = Writer::start(&node, round, 3, 20, "steady");
        let_pass(Duration::from_millis(1000));
        if round % 2 == 0 {
            service.kill9()
        } else {
            service.stop()
        }
        let_pass(Duration::from_millis(300));
        service = node.start(None);
        settle(&node);
        writer.process.wait().unwrap();
    }
    settle(&node);
    assert_eq!(node.incarnations().len(), 1, "{}", node.log());
    let numbers = newest_is_the_same(&node);
    assert!(numbers.values().all(|number| *number > 30) && numbers.len() == 4, "{numbers:?}");
    assert!(ledger(&["judge", &path])["sound"] == true);
    assert_sound(&node);
    service.stop();
}
