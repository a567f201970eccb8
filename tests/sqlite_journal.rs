//! The promise: whatever applications do to a SQLite database, and whoever is killed meanwhile, each position that a store holds of it is
//! restored as it was there, whole; what cannot be shown to go on begins a new incarnation with a base of its own.
//!
//! Method: several writers in processes of their own do anything that an application may: rows, large values, schema changes, `VACUUM`, checkpoints of every kind. The service,
//! the writers, and a standby that is kept up to date beside them are killed at random, while a reader reads all of the standby again and again. What each transaction made of the database is known from the
//! statements that it did, run again in another database (`sqlite/oracle.py` says why that is exact: it is sounder than digests that a writer would make of what it just wrote, since those
//! read the very pages that are tested, and costs nothing while it writes). Copies are restored from every incarnation to random positions, transactions and times; each must be sound,
//! hold exactly that content, and stand where the journal's bytes say. Caught up, copies and primary are compared page by page.
//! `soak_sqlite_kills` and `soak_sqlite_truncates` do so for as long as they are given. The single tests' writers say in each transaction what the database must hold of theirs.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use farshore_testkit::process::wait_for;
use farshore_testkit::soak::Campaign;
use serde_json::Value;
use service::{Node, SOON, let_pass};
use sqlite::oracle::{Beside, Story};
use sqlite::standby::Standby;
use sqlite::{database, ledger, node, python, settle, text};

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
    let (steps, restores) = if campaign.is_brief() { (2, 4) } else { (12, 24) };
    while campaign.next_round() {
        let (mut story, mut writers) = Story::by_chance(&mut campaign.random);
        let mut service = story.node.start(None);
        story.node.wait_backup(1);
        let mut standby = Standby::begin(&story.node);
        let mut reader = story.read();
        for _ in 0..steps {
            let_pass(Duration::from_millis(campaign.random.below(2500)));
            for (number, writer) in (1..).zip(&mut writers) {
                if campaign.random.below(4) == 0 {
                    let another = story.write(number, &mut campaign.random, 30, "mixed");
                    std::mem::replace(writer, another).kill();
                    campaign.count("killed_writers", 1);
                }
            }
            if campaign.random.below(2) == 0 && standby.kill(&story.node) {
                campaign.count("killed_standbys", 1);
                if campaign.random.below(2) == 0 {
                    story.look_at_standby();
                }
                standby.again(&story.node);
            }
            if campaign.random.below(4) < 3 {
                service.kill9();
                campaign.count("killed_shippers", 1);
                let_pass(Duration::from_millis(campaign.random.below(300)));
                service = story.node.start(None);
            }
            if standby.has_ended(&story.node) {
                reader.kill();
                story.look_at_standby();
                standby.anew(&story.node);
                campaign.count("standbys_made_anew", 1);
                reader = story.read();
            }
        }
        let_pass(Duration::from_millis(campaign.random.below(2000)));
        writers.into_iter().for_each(Beside::kill);
        // Those that read a copy that is made anew are others.
        reader.kill();
        story.wait_newest_is_the_primary(|story| {
            if standby.has_ended(&story.node) {
                story.look_at_standby();
                standby.anew(&story.node);
            }
        });
        let newest = story.label();
        standby.stop(&story.node);
        story.look_at_standby();
        story.restore_all(&mut campaign.random, restores);
        assert_sound(&story.node);
        service.stop();
        campaign.count("incarnations", story.node.incarnations().len() as u64);
        campaign.count("restores", story.restores());
        campaign.count("standby_looks", story.looks());
        let verdict = story.judge();
        assert_eq!(verdict.number(&newest), verdict.count("transactions"));
        verdict.add_to(&mut campaign);
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
fn a_point_that_is_named_and_a_backup_that_is_asked_for_are_stored_when_the_service_answers() {
    let node = node(4096);
    let asks = |arguments: &[&str]| {
        let answered = node.run(arguments);
        (answered.status.code(), String::from_utf8_lossy(&answered.stderr).into_owned())
    };
    for (arguments, code) in [
        (&["points", "mark", "orders", "early"][..], "FS-0409"),
        (&["backup", "run", "orders"][..], "FS-0404"),
    ] {
        let (exit, said) = asks(arguments);
        assert!(
            exit == Some(1) && said.contains(code) && said.contains("start `farshore run`"),
            "{exit:?} {said}"
        );
    }
    let service = node.start(None);
    node.wait_backup(1);
    settle(&node);
    let path = text(&database(&node));
    let mut writer = Writer::start(&node, 1, 60, 200, "steady");
    let some = wait_for(SOON, || (writer.committed() > 50).then_some(()));
    assert!(some.is_some(), "{}", node.log());
    let named = node.json(&["points", "mark", "orders", "before the mistake"]);
    let named = &named["items"][0];
    // Stored when it is answered: the store alone leads to it, though nobody flushes anything more.
    service.kill9();
    let (_, at_point) = restored(&node, 0, &["--point", "before the mistake"], "at-point");
    let (_, at_position) =
        restored(&node, 0, &["--pos", named["position"]["offset"].as_str().unwrap()], "at-position");
    assert!(at_point["1"] > 0 && at_point == at_position, "{at_point:?} {at_position:?}");
    writer.kill();
    assert!(at_point["1"] < writer.committed());

    let service = node.start(None);
    settle(&node);
    let listed = node.json(&["points", "list", "orders", "--around", named["time"].as_str().unwrap()]);
    let items = listed["items"].as_array().unwrap();
    let found =
        items.iter().find(|point| point["name"] == "before the mistake").expect("the point is listed");
    assert_eq!(found["position"], named["position"]);
    let before = node.backups();
    let taken = node.json(&["backup", "run", "orders"]);
    assert_eq!(
        (&taken["items"][0]["state"], &taken["items"][0]["label"]),
        (&"complete".into(), &"by hand".into())
    );
    assert_eq!(node.backups(), before + 1);
    settle(&node);
    newest_is_the_same(&node);
    assert!(ledger(&["judge", &path])["sound"] == true);
    assert_sound(&node);
    service.stop();
}
