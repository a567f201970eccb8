//! The promise: long work is a job that anybody can follow, end and find again, and what it says of itself is true, also when the process
//! that does it is killed, frozen or cut off.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "jobs/killed.rs"]
mod killed;
#[path = "jobs/restores.rs"]
mod restores;
#[allow(dead_code)] // what is left of a drill is looked at as its own tests do
#[path = "drills/rig.rs"]
mod rig;
mod service;
#[path = "jobs/shared.rs"]
mod shared;

use std::time::Duration;

use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::{Owned, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use service::{Node, SOON, all, let_pass};

fn list(node: &Node) -> Vec<Value> {
    all(&node.json(&["job", "list"])).into_iter().cloned().collect()
}

fn show(node: &Node, id: &str) -> Value {
    node.json(&["job", "show", id])
}

/// Waits until a job stands so.
fn wait_state(node: &Node, id: &str, state: &str) -> Value {
    let shown = wait_for(SOON, || Some(show(node, id)).filter(|job| job["state"] == state));
    shown.unwrap_or_else(|| panic!("never {state}: {}\n{}", show(node, id), node.log()))
}

fn queue(node: &Node, words: &[&str]) -> String {
    node.json(&[words, &["--no-wait"]].concat())["id"].as_str().unwrap().to_owned()
}

/// A node whose database is shipped and has a base backup.
fn shipped() -> (Server, Node) {
    let server = Server::start_new(Major::V15);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_connected();
    service.stop();
    (server, node)
}

/// The same, with so much log behind the backup that a restore takes some seconds.
fn shipped_much() -> (Server, Node) {
    let (server, node) = shipped();
    let service = node.start(None);
    server.sql("create table much as select generate_series(1, 2000000) as n");
    node.wait_end(1, service::flushed(&server));
    service.stop();
    (server, node)
}

/// Begins a restore, and waits until it is recorded and between two beats; the process and the job.
fn restoring(node: &Node, to: &str) -> (Owned, Value) {
    let line = ["restore", "orders", "--latest", "--to", to, "--start", "--port", "5432"];
    // Slow enough for the next beat to come while it copies.
    let process = node.beside_others_at("restore-copying=sleep(20)", &line, "restore.log");
    let recorded = wait_for(SOON, || {
        list(node).into_iter().find(|job| job["kind"] == "restore" && job["state"] == "running")
    });
    let log = || std::fs::read_to_string(node.folder().join("restore.log"));
    let job = recorded.unwrap_or_else(|| panic!("not recorded: {:?}", log()));
    // One that is frozen in the midst of a beat would hold the catalog's lock.
    let_pass(Duration::from_millis(400));
    (process, job)
}

#[test]
fn what_a_command_does_is_recorded_with_what_came_of_it() {
    let (server, node) = shipped();
    let service = node.start(None);
    node.wait_connected();
    let taken = node.json(&["backup", "run", "orders"]);
    let sound = node.json(&["verify", "orders"]);
    assert_eq!(service::first(&sound)["sound"], true);
    let restored = node.restore(&["--latest"]);
    service.stop();
    let jobs = list(&node);
    let kinds: Vec<&str> = jobs.iter().map(|job| job["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["restore", "verify", "backup"], "newest first");
    for job in &jobs {
        assert_eq!((&job["state"], &job["problem"]), (&"succeeded".into(), &Value::Null), "{job}");
        assert_eq!((&job["asked_via"], &job["attempt"]), (&"command".into(), &1.into()), "{job}");
        assert!(job["finished_at"].is_string() && job["database"] == "orders", "{job}");
    }
    assert_eq!(jobs[2]["result"]["backups"][0]["backup"], service::first(&taken)["id"]);
    assert_eq!(jobs[1]["result"]["sound"], true);
    assert!(
        jobs[0]["result"]["position"].is_string() && jobs[0]["spec"]["target"] == "latest",
        "{}",
        jobs[0]
    );
    drop(restored);
    // What is refused before anything was begun is no job.
    let refused = node.run(&["restore", "orders", "--xid", "4000000000", "--to", "nowhere"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let dry = node.run(&["restore", "orders", "--latest", "--to", "nowhere", "--dry-run"]);
    assert!(dry.status.success());
    assert_eq!(list(&node).len(), 3);
    drop(server);
}

#[test]
fn work_is_done_without_a_catalog_and_none_is_made_for_it() {
    let (_server, node) = shipped();
    let catalog = node.folder().join("catalog.db");
    let catalogs = || {
        let entries = std::fs::read_dir(node.folder()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|end| end == "db")).collect::<Vec<_>>()
    };
    let there = catalogs();
    assert_eq!(there.len(), 1, "{there:?}, and not {catalog:?}");
    std::fs::remove_file(&there[0]).unwrap();
    assert_eq!(service::first(&node.json(&["verify", "orders"]))["sound"], true);
    drop(node.restore(&["--latest"]));
    assert!(catalogs().is_empty());
    // One that is there and no catalog stops no restore.
    std::fs::write(&there[0], "no database").unwrap();
    drop(node.restore(&["--latest"]));
}

#[test]
fn what_is_asked_for_is_done_by_a_service_once_there_is_one() {
    let (_server, node) = shipped();
    let backup = queue(&node, &["backup", "run", "orders"]);
    let verify = queue(&node, &["verify", "orders"]);
    let unwanted = queue(&node, &["backup", "run", "orders"]);
    let cancelled = node.json(&["job", "cancel", &unwanted]);
    assert_eq!(cancelled["state"], "cancelled");
    let_pass(Duration::from_secs(2));
    assert_eq!(show(&node, &backup)["state"], "queued", "nobody is there to do it");
    let before = node.backups();
    let service = node.start(None);
    let watched = node.run(&["job", "watch", &backup]);
    assert_eq!(watched.status.code(), Some(0), "{watched:?}\n{}", node.log());
    let taken = wait_state(&node, &backup, "succeeded");
    let verified = wait_state(&node, &verify, "succeeded");
    assert_eq!(verified["result"]["sound"], true, "{verified}");
    assert!(taken["node"].is_string() && taken["attempt"] == 1, "{taken}");
    let ended = node.run(&["job", "watch", &unwanted]);
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    service.stop();
    assert_eq!(node.backups(), before + 1, "the one that was cancelled was not taken");
    let listed = node.json(&["backup", "list", "orders"]);
    let id = &taken["result"]["backups"][0]["backup"];
    assert!(
        all(&listed).iter().any(|backup| backup["id"] == *id && backup["state"] == "complete"),
        "{listed}"
    );
}

#[test]
fn a_service_that_stops_gives_back_what_may_be_begun_anew() {
    let (_server, node) = shipped_much();
    let job = queue(&node, &["backup", "run", "orders"]);
    let service = node.start(None);
    wait_state(&node, &job, "running");
    service.stop();
    let given_back = show(&node, &job);
    assert!(matches!(given_back["state"].as_str(), Some("queued" | "succeeded")), "{given_back}");
    let begun = std::time::Instant::now();
    let service = node.start(None);
    wait_state(&node, &job, "succeeded");
    assert!(begun.elapsed() < Duration::from_secs(14), "nobody had to fall silent first");
    service.stop();
}

#[test]
fn a_restore_that_was_killed_is_called_failed_with_what_it_left() {
    let (_server, node) = shipped_much();
    let service = node.start(None);
    node.wait_connected();
    let to = node.folder().join("copy");
    let (mut process, job) = restoring(&node, to.to_str().unwrap());
    process.signal(Signal::SIGKILL);
    process.wait(SOON).unwrap();
    let id = job["id"].as_str().unwrap();
    let failed = wait_state(&node, id, "failed");
    assert_eq!(failed["problem"]["code"], "FS-0603", "{failed}");
    assert!(failed["problem"]["safe"].as_str().unwrap().contains("running"), "{failed}");
    let watched = node.run(&["job", "watch", id]);
    assert_eq!(watched.status.code(), Some(1), "{watched:?}");
    let ended = node.run(&["job", "cancel", id]);
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    service.stop();
}

#[test]
fn a_restore_that_was_frozen_says_what_really_came_of_it() {
    let (_server, node) = shipped_much();
    let service = node.start(None);
    node.wait_connected();
    let to = node.folder().join("copy");
    let (mut process, job) = restoring(&node, to.to_str().unwrap());
    process.signal(Signal::SIGSTOP);
    let id = job["id"].as_str().unwrap();
    let failed = wait_state(&node, id, "failed");
    assert_eq!(failed["problem"]["code"], "FS-0603", "{failed}");
    process.signal(Signal::SIGCONT);
    let ended = process.wait(SOON).unwrap();
    let log = std::fs::read_to_string(node.folder().join("restore.log")).unwrap();
    assert!(ended.success(), "{log}");
    let corrected = show(&node, id);
    assert_eq!(
        (&corrected["state"], &corrected["problem"]),
        (&"succeeded".into(), &Value::Null),
        "{corrected}"
    );
    service.stop();
}

#[test]
fn a_command_whose_job_is_cancelled_ends_and_says_so() {
    let (_server, node) = shipped_much();
    let to = node.folder().join("copy");
    let (mut process, job) = restoring(&node, to.to_str().unwrap());
    let id = job["id"].as_str().unwrap();
    assert_eq!(node.json(&["job", "cancel", id])["state"], "cancelling");
    let ended = process.wait(SOON).unwrap();
    let log = std::fs::read_to_string(node.folder().join("restore.log")).unwrap();
    let job = show(&node, id);
    assert_eq!((&job["state"], ended.code()), (&"cancelled".into(), Some(130)), "{job}\n{log}");
    assert_eq!(job["problem"]["code"], "FS-0604", "{job}");
    assert!(log.contains("FS-0604"), "{log}");
    // What it left cannot be taken for a database.
    assert!(!to.join("global/pg_control").exists());
}

#[test]
fn what_falls_due_by_schedule_is_done_once() {
    let (_server, node) = shipped();
    node.configure(|text| {
        text.replace(
            "[databases.orders]",
            "[databases.orders.schedule]\nverify = \"* * * * *\"\n[databases.orders]",
        )
    });
    let service = node.start(None);
    let listed = wait_for(SOON, || {
        let listed = node.json(&["schedule", "list"]);
        Some(service::first(&listed).clone()).filter(|schedule| schedule["answered"].is_string())
    });
    let listed = listed.expect("a service records it");
    assert_eq!(
        (&listed["kind"], &listed["zone"], &listed["overdue"]),
        (&"verify".into(), &"UTC".into(), &false.into())
    );
    assert!(list(&node).is_empty(), "one that is new asks for nothing at once");
    let done = wait_for(SOON, || {
        list(&node).into_iter().find(|job| job["asked_via"] == "schedule" && job["state"] == "succeeded")
    });
    let done = done.unwrap_or_else(|| panic!("{:?}\n{}", list(&node), node.log()));
    assert_eq!((&done["kind"], &done["asked_by"]), (&"verify".into(), &"* * * * *".into()), "{done}");
    service.stop();
    let after = service::first(&node.json(&["schedule", "list"])).clone();
    assert_eq!(after["job"], done["id"], "{after}");
    assert!(after["answered"].as_str() > listed["answered"].as_str(), "{after}");
    assert!(list(&node).len() <= 2, "one for a minute: {:?}", list(&node));
}
