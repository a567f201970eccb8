//! The promise: the catalog may be lost at any time. Shipping and restores go on, it comes back by itself, what comes back
//! equals what was lost, and nothing is called safe meanwhile that is not.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::path::Path;
use std::time::Duration;

use farshore_catalog::{Catalog, Options};
use farshore_journal::{Offset, Position};
use farshore_testkit::pg::{Length, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use serde_json::Value;
use service::{CONTENT, Node, SOON, flushed, keeping, let_pass, lost_log};

/// The catalog's file and those that SQLite keeps beside it.
const FILES: [&str; 3] = ["farshore.db", "farshore.db-wal", "farshore.db-shm"];

fn position(value: &Value) -> Position {
    value.as_str().unwrap().parse().unwrap()
}

/// Every restorable fact that the catalog has. It is read from a copy, so that no file of another user appears beside it.
fn snapshot(node: &Node) -> Value {
    let copy = user::tempdir();
    for name in FILES {
        let from = node.folder().join(name);
        if from.exists() {
            std::fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let url = format!("sqlite:{}", copy.path().join("farshore.db").display());
    service::wait(async {
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        let snapshot = catalog.snapshot().await.unwrap();
        catalog.close().await;
        snapshot
    })
}

fn delete(node: &Node, names: &[&str]) {
    for name in names {
        let path = node.folder().join(name);
        match std::fs::remove_file(&path) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.unwrap_or_else(|why| panic!("{path:?}: {why}")),
        }
    }
}

/// The paths at which two documents differ, with both values: a snapshot is too long to be read whole.
fn differences(was: &Value, is: &Value, at: &str, found: &mut Vec<String>) {
    match (was, is) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                differences(&was[key], &is[key], &format!("{at}.{key}"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                differences(a, b, &format!("{at}[{n}]"), found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            let lost: Vec<_> = a.iter().filter(|one| !b.contains(one)).take(5).collect();
            let new: Vec<_> = b.iter().filter(|one| !a.contains(one)).take(5).collect();
            found.push(format!("{at}: {} became {}; without {lost:?}; with {new:?}", a.len(), b.len()));
        }
        _ if was == is => {}
        _ => found.push(format!("{at}: {was} became {is}")),
    }
}

#[track_caller]
fn assert_equal(was: &Value, is: &Value, node: &Node) {
    let mut found = Vec::new();
    differences(was, is, "", &mut found);
    assert!(found.is_empty(), "{}\n{}", found.join("\n"), node.log());
}

/// What must be true of any status shown, whatever became of the catalog: no claim goes beyond what is known to be so.
fn no_lie(status: &Value, truth: &Value, end_after: Position) {
    if let Some(stored) = status["stored"].as_str() {
        assert!(
            stored.parse::<Offset>().unwrap() <= end_after.offset,
            "{status}: the journal ends at {end_after}"
        );
    }
    assert!(status["backups"]["count"].as_u64().unwrap() <= 1, "{status}");
    let window = &status["window"];
    if !window.is_null() {
        assert!(position(&window["to_position"]).offset <= end_after.offset, "{status}: {end_after}");
        assert_eq!(window["from_position"], truth["window"]["from_position"], "{status}");
        // A window that begins too early by the clock promises states that nobody can restore.
        assert!(
            window["from_time"].is_null() || window["from_time"] == truth["window"]["from_time"],
            "{status}"
        );
    }
}

/// Waits for the whole truth again, and looks at every status on the way.
fn comes_back(node: &Node, truth: &Value, at_least: Position) {
    let mut shown = Vec::new();
    let right = wait_for(SOON, || {
        let status = node.status();
        let Some(status) = status else {
            shown.push("unknown".to_owned());
            return None;
        };
        no_lie(&status, truth, node.end().unwrap());
        let window = &status["window"];
        shown.push(format!("{} {window}", status["state"]));
        let right = status["state"] == "connected"
            && window["to_position"].is_string()
            && position(&window["to_position"]).offset >= at_least.offset
            && window["gaps"] == Value::Array(Vec::new())
            && window["from_time"] == truth["window"]["from_time"]
            && status["backups"] == truth["backups"]
            && status["incarnation"] == truth["incarnation"];
        right.then_some(())
    });
    assert!(right.is_some(), "{shown:#?}\n{}", node.log());
}

#[test]
fn a_catalog_deleted_under_the_service_comes_back_by_itself_and_never_says_too_much() {
    let server = keeping().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    let mut load = server.pgbench_with(2, Length::For(Duration::from_secs(60)), &["-R", "50"]);
    let truth = wait_for(SOON, || {
        let status = node.status()?;
        (status["window"]["from_time"].is_string() && status["state"] == "connected").then_some(status)
    });
    let truth = truth.unwrap_or_else(|| panic!("{:?}\n{}", node.status(), node.log()));
    // Only the file that is named in the configuration: the service has the others open, and the next opener finds them.
    for names in [&FILES[..1], &FILES[..], &FILES[..1]] {
        let deleted_at = node.end().unwrap();
        delete(&node, names);
        let plan = node.json(&["restore", "orders", "--latest", "--dry-run", "--to", "/nowhere"]);
        assert!(
            plan["resolved"]["position"].as_str().unwrap().parse::<Offset>().unwrap()
                <= node.end().unwrap().offset
        );
        comes_back(&node, &truth, deleted_at);
        assert!(load.is_running(), "the load ended before the catalog was back");
        let went_on = wait_for(SOON, || (node.end()?.offset > deleted_at.offset).then_some(()));
        assert!(went_on.is_some(), "shipping stood still at {deleted_at}\n{}", node.log());
    }
    // Another catalog in its place, of another life: what it says of this database is not believed.
    let foreign = node.beside(&[&server]);
    foreign.run(&["catalog", "rebuild"]);
    let end = node.end().unwrap();
    plant(&foreign.folder().join("farshore.db"));
    let place = node.folder().join("farshore.db");
    let put = std::process::Command::new("mv").arg(foreign.folder().join("farshore.db")).arg(&place).status();
    assert!(put.unwrap().success());
    let mut shown = Vec::new();
    let right = wait_for(SOON, || {
        let status = node.status()?;
        shown.push(status.to_string());
        (status["state"] == "connected"
            && status["incarnation"] == truth["incarnation"]
            && status["backups"] == truth["backups"]
            && status["window"]["to_position"].is_string()
            && position(&status["window"]["to_position"]).offset >= end.offset)
            .then_some(())
    });
    assert!(right.is_some(), "{shown:#?}\n{}", node.log());
    load.wait_any(SOON);
    node.wait_end(1, flushed(&server));
    service.stop();
    // What the service brought up beside its shipping is what a rebuild finds.
    let brought_up = snapshot(&node);
    delete(&node, &FILES);
    node.json(&["catalog", "rebuild"]);
    assert_equal(&brought_up, &snapshot(&node), &node);
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
}

/// Puts an incarnation that no store holds, with a backup and log, into a catalog, as the newest.
fn plant(catalog: &Path) {
    use farshore_catalog::incarnation::Incarnation;
    use farshore_catalog::range::JournalRange;
    use farshore_journal::{IncarnationId, Sequence, Timeline};
    service::wait(async {
        let url = format!("sqlite:{}", catalog.display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        let id = IncarnationId::from_bytes([9; 16]);
        let foreign = Incarnation {
            id,
            database: "orders".parse().unwrap(),
            engine_identity: "7".to_owned(),
            number: Some(9),
            created_at: "2100-01-01T00:00:00Z".parse().unwrap(),
            parent: None,
            reason: "first".to_owned(),
            segment_bytes: 16 << 20,
            major_version: Some(15),
        };
        catalog.incarnation_put(&foreign).await.unwrap();
        let range = JournalRange {
            incarnation: id,
            store: "main".to_owned(),
            timeline: Timeline::new(1),
            start: Offset::new(0),
            end: Offset::new(1 << 40),
            checked_end: Offset::new(1 << 40),
            first_sequence: Sequence::new(1),
            last_sequence: Sequence::new(2),
        };
        catalog.range_extend(&range).await.unwrap();
        catalog.close().await;
    });
    let mut owner = std::process::Command::new("chown");
    owner.arg("--reference").arg(catalog.parent().unwrap()).arg(catalog);
    assert!(owner.status().unwrap().success());
}

#[test]
fn a_rebuilt_catalog_equals_the_lost_one_in_every_restorable_fact() {
    let old = lost_log::server();
    old.pgbench_init(1);
    let node = Node::new(&[&old]);
    let service = node.start(None);
    node.wait_backup(1);
    let _load = old.pgbench(2, Length::Transactions(300)).wait();
    old.sql("begin; savepoint a; create table sub as select 1 as one; release a; commit");
    node.json(&["points", "mark", "orders", "before the gap"]);
    node.wait_end(1, flushed(&old));
    service.stop();
    // The log that comes now is gone before anybody ships it: a gap.
    lost_log::lose(&old);
    let service = node.start(None);
    node.wait_backup(2);
    let _load = old.pgbench(2, Length::Transactions(200)).wait();
    node.wait_end(1, flushed(&old));
    service.stop();
    // A second timeline, and log of the first beyond it. The new primary keeps its log by itself: no slot of ours is there yet.
    let new = service::wait(Server::standby_of(&old));
    new.sql("alter system set wal_keep_size = '1GB'");
    new.reload();
    let node = Node::moved(node, &[&old, &new]);
    let service = node.start(None);
    let _load = old.pgbench(2, Length::Transactions(100)).wait();
    let end = flushed(&old);
    let caught_up = wait_for(SOON, || {
        let replayed = new.sql("select coalesce(pg_last_wal_replay_lsn(), '0/0')");
        (replayed.parse::<Offset>().unwrap() >= end).then_some(())
    });
    assert!(caught_up.is_some());
    new.sql("alter system set primary_conninfo = ''; select pg_reload_conf()");
    let_pass(Duration::from_secs(2));
    old.sql("create table only_there as select generate_series(1, 1000) as n");
    node.wait_end(1, flushed(&old));
    old.stop(Mode::Immediate);
    new.promote();
    let _load = new.pgbench(2, Length::Transactions(200)).wait();
    new.sql("select pg_create_restore_point('on the second timeline'); select pg_switch_wal(); insert into pgbench_history(tid, bid, aid, delta) values (1, 1, 1, 1)");
    node.wait_end(2, flushed(&new));
    node.json(&["backup", "run", "orders"]);
    node.wait_end(2, flushed(&new));
    service.stop();
    // Another cluster under the same name: a second incarnation.
    let other = keeping().start();
    other.pgbench_init(1);
    let node = Node::moved(node, &[&other]);
    let service = node.start(None);
    let founded = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(founded.is_some(), "{}", node.log());
    node.wait_backup(1);
    let _load = other.pgbench(2, Length::Transactions(200)).wait();
    node.wait_end(1, flushed(&other));
    // The last facts are in the catalog when the window reaches the end.
    let end = node.end().unwrap();
    let told = wait_for(SOON, || {
        let status = node.status()?;
        (position(&status["window"]["to_position"]).offset >= end.offset).then_some(())
    });
    assert!(told.is_some(), "{:?}\n{}", node.status(), node.log());
    service.stop();

    let lost = snapshot(&node);
    let database = &lost["databases"][0];
    let first = &database["incarnations"][0];
    let count = |what: &str| first[what].as_array().map_or(0, Vec::len);
    assert_eq!(database["incarnations"].as_array().unwrap().len(), 2, "{database}");
    let counts = ["timelines", "gaps", "points", "ranges"].map(count);
    let facts = ["gaps", "points", "ranges"].map(|what| &first[what]);
    assert_eq!(counts, [1, 1, 2, 3], "{facts:#?}\n{}", node.log());
    assert!(count("backups") >= 3 && count("commits") >= 800, "{} backups", count("backups"));
    delete(&node, &FILES);
    node.json(&["catalog", "rebuild"]);
    assert_equal(&lost, &snapshot(&node), &node);
    // Over what is there, it says the same again.
    node.json(&["catalog", "rebuild"]);
    assert_equal(&lost, &snapshot(&node), &node);

    // What the store no longer has is no longer in the catalog: a rebuild into an empty one says the same.
    let (_, reader) = node.incarnations().pop().unwrap();
    let last = service::wait(reader.last()).unwrap().unwrap().header().number;
    let folder = node.folder().join(format!("journal/db/orders/{}", reader.incarnation()));
    // What was merged stands twice, and is gone only when both are.
    let merged = folder.join("segments");
    if merged.exists() {
        std::fs::remove_dir_all(merged).unwrap();
    }
    for number in [last.get(), last.get() - 1] {
        std::fs::remove_file(folder.join(format!("journal/{number:016x}"))).unwrap();
    }
    let backups = std::fs::read_dir(folder.join("backups")).unwrap();
    for backup in backups {
        std::fs::remove_file(backup.unwrap().path().join("manifest")).unwrap();
    }
    node.json(&["catalog", "rebuild"]);
    let over = snapshot(&node);
    delete(&node, &FILES);
    node.json(&["catalog", "rebuild"]);
    let fresh = snapshot(&node);
    assert_equal(&over, &fresh, &node);
    let ends = |of: &Value| {
        of["databases"][0]["incarnations"][1]["ranges"][0]["end"].as_str().unwrap().parse::<Offset>()
    };
    assert!(ends(&fresh).unwrap() < ends(&lost).unwrap(), "the cut is not in the catalog");
    assert_eq!(fresh["databases"][0]["incarnations"][1]["backups"], Value::Array(Vec::new()));
}
