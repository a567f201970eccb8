//! The promise: when a SQLite database begins a new incarnation, which it does after almost any time without farshore, nothing of the
//! former ones goes out of sight: what they reach is said and restored, and no number is ever taken for another incarnation's.
//!
//! Method: an application writes, the service is stopped, the application empties its log, the service starts again; once it is ended
//! before the new incarnation has its base.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::process::Output;

use farshore_journal::Position;
use farshore_testkit::process::wait_for;
use serde_json::Value;
use service::{Node, SOON};
use sqlite::{database, ledger, node, text};

/// Waits until the catalog knows all that is stored of this incarnation, and a base backup of it.
fn settle(node: &Node, incarnation: u64) -> Value {
    let settled = wait_for(SOON, || {
        let end = node.end()?.to_string();
        let status = node.status()?;
        let is_whole = status["incarnation_number"] == incarnation
            && status["state"] == "connected"
            && status["ship_lag_bytes"] == 0
            && status["window"]["to_position"].as_str() == Some(&*end);
        is_whole.then_some(status)
    });
    settled.unwrap_or_else(|| panic!("{:?}\n{}", node.status(), node.log()))
}

/// Some transactions.
fn write(node: &Node) {
    ledger(&["write", &text(&database(node)), "1", "1", "8", "steady"]);
}

/// Transactions, and then a last close that empties the log: what a stopped service can prove nothing of.
fn write_unseen(node: &Node) {
    ledger(&["truncate", &text(&database(node)), "1"]);
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A restore to a target, as a plan.
fn plan(node: &Node, target: &[&str]) -> Output {
    node.run(&[&["-o", "json", "restore", "orders", "--dry-run", "--to", "/nowhere"], target].concat())
}

/// A refused restore's words, without line ends.
fn refused(node: &Node, target: &[&str]) -> String {
    let output = plan(node, target);
    assert_eq!(output.status.code(), Some(4), "{target:?}: {}", said(&output));
    let message: Value =
        serde_json::from_slice(&output.stderr).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!(message["code"], "FS-0502");
    format!("{} {}", message["happened"].as_str().unwrap(), message["do"].as_str().unwrap())
}

/// The time of the last commit but one, as it is shown in India and without an offset.
fn local(node: &Node) -> String {
    let there = said(&node.run(&["--tz", "Asia/Kolkata", "points", "list", "orders"]));
    let lines: Vec<&str> = there.lines().collect();
    lines[lines.len() - 2].split_whitespace().next().unwrap().trim_end_matches("+05:30").to_owned()
}

/// Points of a list: the number of the incarnation, and of the transaction.
fn points(node: &Node, more: &[&str]) -> Vec<(u64, u64)> {
    let listed = node.json(&[&["points", "list", "orders"], more].concat());
    let items = listed["items"].as_array().unwrap().clone();
    let commits = items.iter().filter(|item| item["kind"] == "commit");
    commits.map(|item| (item["incarnation"].as_u64().unwrap(), item["xid"].as_u64().unwrap())).collect()
}

#[test]
fn a_new_incarnation_takes_nothing_of_the_former_one_out_of_sight() {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    write(&node);
    let first = settle(&node, 0);
    service.stop();
    let before = points(&node, &[]);
    let (_, last) = *before.last().unwrap();
    assert!(before.len() > 3 && before.iter().all(|(incarnation, _)| *incarnation == 0), "{before:?}");
    let seen = node.json(&["points", "list", "orders"])["items"][1]["time"].as_str().unwrap().to_owned();

    // The log is emptied while nobody follows, and the service ends before the new incarnation has a base.
    write_unseen(&node);
    let ended = node.start(Some("ship-after-takeover=return"));
    ended.wait_log("a new incarnation begins");
    let began = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(began.is_some(), "{}", node.log());
    drop(ended);
    for words in ["Safe: incarnation 0 stays restorable up to", "--incarnation 0", "cannot be proved"] {
        assert!(node.log().contains(words), "{words}: {}", node.log());
    }
    assert_eq!(node.backups(), 0);
    let latest = refused(&node, &["--latest"]);
    assert!(latest.contains("incarnation 1 has no complete backup yet"), "{latest}");
    let reaches = format!("--incarnation 0 reaches to {}", first["window"]["to_time"].as_str().unwrap());
    assert!(latest.contains(&reaches) && latest.contains(&format!("(transaction {last})")), "{latest}");
    let standby = node.run(&["standby", "run", "orders", "--to", "standby"]);
    assert_eq!(standby.status.code(), Some(4), "{}", said(&standby));
    assert!(said(&standby).contains("wait for its first backup"), "{}", said(&standby));
    assert_eq!(points(&node, &[]), before);
    // Once the catalog knows of it, it shows the former one too.
    let rebuilt = node.run(&["catalog", "rebuild"]);
    assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    let between = node.status().unwrap();
    assert_eq!((&between["incarnation_number"], &between["window"]), (&Value::from(1), &Value::Null));
    assert_eq!(between["former"][0]["window"], first["window"]);
    assert_eq!(points(&node, &[]), before);
    let listed = said(&node.run(&["points", "list", "orders"]));
    assert!(listed.contains("the newest incarnation (1) has no complete backup yet"), "{listed}");

    // It gets one, and holds other transactions under the same numbers.
    let service = node.start(None);
    node.wait_backup(1);
    write(&node);
    let second = settle(&node, 1);
    assert_eq!(second["former"][0]["number"], 0);
    assert_eq!(second["former"][0]["window"], first["window"]);
    let table = said(&node.run(&["status", "orders"]));
    assert!(table.contains("before: incarnation 0, ") && table.contains("--incarnation 0)"), "{table}");
    service.stop();
    for target in [["--xid", "2"], ["--pos", first["window"]["from_position"].as_str().unwrap()]] {
        let both = refused(&node, &target);
        assert!(both.contains("is in incarnations 0 and 1 of orders"), "{both}");
        for number in ["0", "1"] {
            let one = plan(&node, &[&target[..], &["--incarnation", number]].concat());
            let code = one.status.code();
            // Before the base of an incarnation nothing is restored: that is said of it, and no other one is taken.
            let is_before = said(&one).contains("before the first restorable moment")
                || said(&one).contains("is not in the journal");
            assert!(
                code == Some(0) || (code == Some(4) && is_before),
                "{target:?} in {number}: {}",
                said(&one)
            );
        }
    }

    let all = points(&node, &[]);
    assert!(all.starts_with(&before) && all.len() > before.len(), "{all:?}");
    let new: Vec<(u64, u64)> = all[before.len()..].to_vec();
    assert!(new.iter().all(|(incarnation, _)| *incarnation == 1), "{all:?}");
    assert_eq!(points(&node, &["--incarnation", "0"]), before);
    assert_eq!(points(&node, &["--incarnation", "1", "--around", &seen]), new);
    assert!(points(&node, &["--around", &seen]).contains(&before[1]));
    assert_eq!(node.run(&["points", "list", "orders", "--incarnation", "7"]).status.code(), Some(3));
    // A transaction that the former one alone holds is not there, and is there.
    let only = new.iter().map(|(_, xid)| *xid).max().unwrap().max(2) + 1;
    if only <= last {
        let elsewhere = refused(&node, &["--xid", &only.to_string()]);
        assert!(elsewhere.contains("add --incarnation 0"), "{elsewhere}");
    }

    // In a zone: its name above the times, their offsets behind them.
    let there = said(&node.run(&["--tz", "Asia/Kolkata", "points", "list", "orders"]));
    assert!(there.starts_with("TIME (Asia/Kolkata)"), "{there}");
    assert!(
        there.lines().skip(1).all(|line| line.split_whitespace().next().unwrap().ends_with("+05:30")),
        "{there}"
    );
    let asked = node.run(&[
        "--tz",
        "Asia/Kolkata",
        "restore",
        "orders",
        "--at",
        &local(&node),
        "--dry-run",
        "--to",
        "/nowhere",
    ]);
    assert!(
        said(&asked).contains("asked      time ") && said(&asked).contains("+05:30, position"),
        "{}",
        said(&asked)
    );
    let backups = node.json(&["backup", "list"]);
    for backup in backups["items"].as_array().unwrap() {
        let is_complete = backup["state"] == "complete";
        assert_eq!(is_complete, backup["finished"].is_string(), "{backup}");
        assert!(backup["stored_bytes"].as_u64() > Some(0), "{backup}");
        assert_eq!(backup["label"], "taken because there was none", "{backup}");
    }

    for listed in [["backup", "list"], ["verify", "orders"]] {
        let numbers: Vec<Value> = node.json(&listed)["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["incarnation_number"].clone())
            .collect();
        assert!(
            numbers.contains(&Value::from(0)) && numbers.contains(&Value::from(1)),
            "{listed:?}: {numbers:?}"
        );
    }
}

/// The exit code of `status`, and why it is not as it should be; once that says these words.
fn why(node: &Node, words: &str) -> i32 {
    let mut last = None;
    let said = wait_for(SOON, || {
        let output = node.run(&["-o", "json", "status", "orders"]);
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        let status = &answer["items"][0];
        last = Some(status.clone());
        let is_said =
            status["state"] == "unknown" && status["why"].as_str().is_some_and(|why| why.contains(words));
        is_said.then(|| output.status.code().unwrap())
    });
    said.unwrap_or_else(|| panic!("never said {words:?}: {last:?}\n{}", node.log()))
}

#[test]
fn a_status_that_is_unknown_says_why_and_since_when_and_is_no_success() {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    let connected = settle(&node, 0);
    assert_eq!((&connected["why"], connected["rpo_breached"].is_null()), (&Value::Null, true));
    service.stop();
    assert_eq!(why(&node, "no service has written here since"), 9);
    assert!(said(&node.run(&["status"])).contains("is `farshore run` alive?"));

    // The store is away: nothing of its journal is known to this service, and what was stored is not taken back.
    let (store, away) = (node.folder().join("journal"), node.folder().join("away"));
    std::fs::rename(&store, &away).unwrap();
    let service = node.start(None);
    assert_eq!(why(&node, "journal"), 9);
    let status = node.status().unwrap();
    assert_eq!(status["targets"][0]["stored"], connected["window"]["to_position"], "{status}");
    service.stop();
    std::fs::rename(&away, &store).unwrap();

    // The database is not there.
    let (there, aside) = (database(&node), node.folder().join("aside"));
    std::fs::rename(&there, &aside).unwrap();
    let service = node.start(None);
    assert_eq!(why(&node, "app.db"), 9);
    service.stop();
    std::fs::rename(&aside, &there).unwrap();
    let service = node.start(None);
    settle(&node, 0);
    service.stop();
}

/// A refused hold's words.
fn hold_refused(node: &Node, arguments: &[&str]) -> String {
    let output = node.run(&[&["points", "hold", "orders"], arguments, &["--reason", "audit"]].concat());
    assert_eq!(output.status.code(), Some(4), "{arguments:?}: {}", said(&output));
    said(&output)
}

#[test]
fn a_hold_keeps_its_point_in_the_incarnation_that_is_meant_and_in_no_other() {
    let node = node(4096);
    let service = node.start(None);
    write(&node);
    settle(&node, 0);
    let marked = node.json(&["points", "mark", "orders", "before-release"]);
    let position = &service::first(&marked)["position"];
    let position = format!("{}:{}", position["timeline"], position["offset"].as_str().unwrap());
    settle(&node, 0);
    service.stop();
    write_unseen(&node);
    let service = node.start(None);
    // Far enough for the same position to be something else.
    for _ in 0..3 {
        write(&node);
    }
    let later = settle(&node, 1)["window"]["to_position"].as_str().unwrap().to_owned();
    let offset = |text: &str| text.parse::<Position>().unwrap().offset;
    assert!(offset(&later) > offset(&position), "{later} {position}");

    let several = hold_refused(&node, &[&position]);
    assert!(several.contains("is 2 points in main") && several.contains("--incarnation"), "{several}");
    let incarnation = |put: Value| service::first(&put)["incarnation"].as_u64().unwrap();
    let hold = ["points", "hold", "orders"];
    let named = node.json(&[&hold[..], &["before-release", "--reason", "audit"]].concat());
    assert_eq!(incarnation(named), 0);
    let meant = node.json(&[&hold[..], &[&position, "--incarnation", "1", "--reason", "audit"]].concat());
    assert_eq!(incarnation(meant), 1);
    let nowhere = hold_refused(&node, &["1:7F/0"]);
    assert!(nowhere.contains("and no such position"), "{nowhere}");
    // A name that is given twice says no more which point it is.
    node.json(&["points", "mark", "orders", "before-release"]);
    settle(&node, 1);
    let twice = hold_refused(&node, &["before-release"]);
    assert!(twice.contains("is 2 points in main") && twice.contains("in incarnation 0"), "{twice}");
    service.stop();
}
