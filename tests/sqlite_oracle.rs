//! The promise: what the SQLite campaigns judge by (`sqlite/oracle.py`) finds a copy that is wrong, in any way that one can be, and calls right what is right.
//!
//! Method: applications write beside each other and are killed. Their own database is right; copies of it are changed in one thing each. No farshore runs.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use farshore_testkit::process::wait_for;
use farshore_testkit::random::{Random, seed};
use farshore_testkit::user;
use serde_json::{Value, json};
use service::{SOON, let_pass};
use sqlite::oracle::Story;
use sqlite::{database, text};

/// Copies a database by SQLite's own means, and then does `change` to the copy.
fn changed(story: &Story, name: &str, change: &str) -> PathBuf {
    let file = story.node.folder().join(name);
    let script = "import sqlite3,sys; a,b=map(sqlite3.connect,sys.argv[1:3]); a.backup(b); b.execute('pragma journal_mode=wal'); b.executescript(sys.argv[3])";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script]).args([database(&story.node), file.clone()]).arg(change);
    let done = user::run_as(command).output().unwrap();
    assert!(done.status.success(), "{change}: {}", String::from_utf8_lossy(&done.stderr));
    file
}

/// Three writers, one after another killed and replaced, until enough is committed.
fn written(random: &mut Random) -> Story {
    let mut story = Story::begin(4096, 0);
    let lines = |story: &Story| {
        let oracle = std::fs::read_to_string(story.node.folder().join("oracle")).unwrap_or_default();
        oracle.lines().count()
    };
    for number in [1, 2, 3, 1] {
        let writer = story.write(number, random, 400, "mixed");
        let other = story.write(4, random, 400, "steady");
        let before = lines(&story);
        let enough = wait_for(SOON, || (lines(&story) > before + 100).then_some(()));
        assert!(enough.is_some());
        let_pass(Duration::from_millis(random.below(20)));
        writer.kill();
        other.kill();
    }
    // The last transaction changes something: it adds a row.
    let (before, last) = (lines(&story), story.write(5, random, 400, "steady"));
    let enough = wait_for(SOON, || (lines(&story) > before + 6).then_some(()));
    assert!(enough.is_some());
    last.kill();
    story
}

#[test]
fn a_copy_that_differs_in_one_thing_is_found_and_its_table_named() {
    let mut story = written(&mut Random::new(seed()));
    let is_right = changed(&story, "right", "vacuum");
    story.add_copy(json!({ "label": "right", "file": text(&is_right) }));
    let found = story.found(json!({}));
    assert_eq!(found["wrong"], json!([]));
    assert!(found["transactions"].as_u64() > Some(100), "{found}");

    let one = "(select max(id) from ledger)";
    let changes = [
        ("table ledger", "insert into ledger select max(id) + 1, 1, null from ledger".to_owned()),
        ("table ledger", format!("delete from ledger where id = {one}")),
        ("table ledger", format!("update ledger set content = quote(content) || 'x' where id = {one}")),
        ("table ledger", format!("update ledger set writer = writer + 0.5 where id = {one}")),
        ("table tally", "insert into tally values (1, 1)".to_owned()),
        ("schema", "drop index ledger_by_writer".to_owned()),
        ("schema", "create table another (a)".to_owned()),
        ("user_version", "pragma user_version = 77".to_owned()),
        ("table history", "update history set nonce = zeroblob(16) where number = 3".to_owned()),
        // The state before, under the number behind it, and the other way round.
        ("table history", "delete from history where number = 2".to_owned()),
        ("differ", "delete from history where number = (select max(number) from history)".to_owned()),
        (
            "never committed",
            "update history set nonce = zeroblob(16) where number = (select max(number) from history)"
                .to_owned(),
        ),
        (
            "never committed",
            "insert into history select max(number) + 1, zeroblob(16) from history".to_owned(),
        ),
    ];
    for (at, (_, change)) in changes.iter().enumerate() {
        let file = changed(&story, &format!("changed-{at}"), change);
        story.add_copy(json!({ "label": format!("changed {at}"), "file": text(&file) }));
    }
    let found = story.found(json!({}));
    let wrong: Vec<&str> = found["wrong"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for (at, (what, change)) in changes.iter().enumerate() {
        let label = format!("changed {at}:");
        let said: Vec<&&str> = wrong.iter().filter(|said| said.starts_with(&label)).collect();
        assert!(said.len() == 1 && said[0].contains(what), "{change}: {said:?} of {wrong:#?}");
    }
    assert_eq!(wrong.len(), changes.len(), "{wrong:#?}");
}

#[test]
fn a_copy_that_stands_elsewhere_than_its_journal_says_is_found() {
    let mut story = written(&mut Random::new(seed()));
    let oracle = std::fs::read_to_string(story.node.folder().join("oracle")).unwrap();
    let entries: Vec<Value> = oracle.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let held = story.found(json!({}))["transactions"].as_u64().unwrap();
    // The branch that was committed, from its end back.
    let mut wanted = None;
    let mut nonces: Vec<String> = Vec::new();
    for entry in entries.iter().rev() {
        let nonce = entry["nonce"].as_str().unwrap().to_owned();
        let number = entry["number"].as_u64().unwrap();
        if wanted.as_ref() == Some(&nonce) || (wanted.is_none() && number == held) {
            wanted = entry["parent"].as_str().map(str::to_owned);
            nonces.push(nonce);
        }
    }
    nonces.reverse();
    assert_eq!(nonces.len() as u64, held);

    // A journal of a hundred bytes for each transaction, its nonce amid them.
    let log = story.node.folder().join("log");
    let write = |nonces: &[String]| {
        let mut bytes = Vec::new();
        for nonce in nonces {
            let nonce: Vec<u8> =
                (0..32).step_by(2).map(|at| u8::from_str_radix(&nonce[at..at + 2], 16).unwrap()).collect();
            bytes.extend([vec![0; 40], nonce, vec![0; 44]].concat());
        }
        std::fs::write(&log, bytes).unwrap();
    };
    let file = changed(&story, "copy", "vacuum");
    let base = changed(&story, "base", "delete from history where number > 1");
    let logs = json!({ "0": { "file": text(&log), "start": 1000 } });
    let begin = 1000 + 100;
    story.add_copy(json!({ "label": "base", "file": text(&base), "incarnation": 0, "position": begin }));
    let end = 1000 + 100 * held;
    let mut said = |nonces: &[String], position: u64, asked: Option<u64>| {
        write(nonces);
        story.add_copy(json!({ "label": "copy", "file": text(&file), "incarnation": 0, "position": position, "asked": asked }));
        let found = story.found(logs.clone());
        story.forget_copy();
        let wrong = found["wrong"].as_array().unwrap().clone();
        // What the base holds is not its transaction's: only where it stands is asked of it here.
        let wrong = wrong.iter().map(|said| said.as_str().unwrap().to_owned());
        wrong.filter(|said| !said.starts_with("base: at transaction 1 ")).collect::<Vec<String>>()
    };
    assert_eq!(said(&nonces, end, Some(end + 99)), [""; 0]);
    let before = said(&nonces, end - 100, None);
    assert!(before.len() == 1 && before[0].contains(&format!("holds {}", held - 1)), "{before:?}");

    let mut swapped = nonces.clone();
    swapped.swap(20, 30);
    assert!(said(&swapped, end, None)[0].contains("not in the order of their commits"));
    let mut lacking = nonces.clone();
    lacking.remove(20);
    assert!(said(&lacking, end - 100, None)[0].contains("lacks a transaction"));
    let mut foreign = nonces.clone();
    foreign.insert(20, format!("{}{}", &nonces[0][..16], "00".repeat(8)));
    assert!(said(&foreign, end + 100, None)[0].contains("never committed"));
    let mut more = nonces.clone();
    more.truncate(nonces.len() - 3);
    assert!(!said(&more, end, None).is_empty());
}
