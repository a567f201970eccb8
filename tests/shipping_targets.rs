//! The promise: what is said of a database with several stores is true of as many of them as it asks for.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::time::{Duration, Instant};

use farshore_journal::Offset;
use farshore_testkit::process::wait_for;
use farshore_testkit::stores::Moto;
use nix::sys::signal::Signal;
use serde_json::Value;
use service::proxy::Proxy;
use service::{Node, SOON, flushed, keeping};

/// What the catalog calls stored.
fn called_stored(node: &Node) -> Option<Offset> {
    node.status()?["stored"].as_str()?.parse().ok()
}

/// A node with a healthy first store in S3 behind nothing, and a second one in a folder that can be taken away.
fn two_stores(server: &farshore_testkit::pg::Server, durable: &str) -> (Moto, Proxy, Node) {
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 1);
    let node = Node::on_s3(&[server], &moto, &proxy.endpoint());
    let folder = node.folder().join("second");
    std::fs::create_dir(&folder).unwrap();
    farshore_testkit::user::give(&folder);
    node.add_store(&format!("url = \"file:{}\"", folder.display()), durable);
    (moto, proxy, node)
}

#[test]
fn what_is_called_stored_is_stored_in_every_required_target() {
    let server = keeping().start();
    let (_moto, proxy, node) = two_stores(&server, "\"all\"");
    let second = node.folder().join("second");
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_connected();
    // Each store has an incarnation of its own, and neither is a former one.
    comes_to(&node, |status| status["backups"]["count"] == 2 && status["former"] == serde_json::json!([]));
    // What is held is the same in both.
    let point = format!("1:{}", flushed(&server));
    let held = wait_for(SOON, || {
        let output = node.run(&["-o", "json", "points", "hold", "orders", &point, "--reason", "in both"]);
        output.status.success().then(|| serde_json::from_slice::<Value>(&output.stdout).unwrap())
    });
    let held = held.unwrap_or_else(|| panic!("{}", node.log()));
    let positions: Vec<&Value> = service::all(&held).iter().map(|one| &one["position"]).collect();
    assert!(positions.len() == 2 && positions[0] == positions[1], "{held}");
    proxy.close(true);
    server.sql("create table after as select generate_series(1, 1000) as n");
    let written = flushed(&server);
    let ahead = wait_for(SOON, || node.end_in(&second).filter(|end| end.offset >= written));
    assert!(ahead.is_some(), "{}", node.log());
    let least = node.end().unwrap().offset;
    assert!(least < written);
    let noticed = wait_for(SOON, || node.status().filter(|status| status["state"] != "connected"));
    assert!(noticed.is_some(), "{:?}\n{}", node.status(), node.log());
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        let status = node.status().unwrap();
        let called = called_stored(&node).unwrap();
        assert!(called <= least, "called stored up to {called}, one store ends at {least}: {status}");
        assert_ne!(status["state"], "connected", "{status}");
        assert_ne!(status["ship_lag_seconds"], 0.0, "{status}");
    }
    proxy.close(false);
    let again = wait_for(SOON, || called_stored(&node).filter(|called| *called >= written));
    assert!(again.is_some(), "{:?}\n{}", node.status(), node.log());
    service.stop();
}

#[test]
fn one_store_is_enough_where_any_is_asked_for_and_the_log_is_kept_for_the_other() {
    let server = keeping().start();
    let (_moto, proxy, node) = two_stores(&server, "\"any\"");
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_connected();
    proxy.close(true);
    let least = node.end().unwrap().offset;
    server.sql("create table after as select generate_series(1, 500000) as n; select pg_switch_wal()");
    let written = flushed(&server);
    let stored = wait_for(SOON, || {
        let status = node.status()?;
        let called: Offset = status["stored"].as_str()?.parse().ok()?;
        (called >= written && status["state"] == "connected").then_some(status)
    });
    let status = stored.unwrap_or_else(|| panic!("{:?}\n{}", node.status(), node.log()));
    if let Some(released) = status["released"].as_str() {
        assert!(released.parse::<Offset>().unwrap() <= least, "{status}");
    }
    let targets = status["targets"].as_array().unwrap();
    assert!(targets.iter().any(|target| target["state"] != "connected"), "{status}");
    proxy.close(false);
    node.wait_end(1, written);
    service.stop();
}

/// The catalog's word on the targets, the backups and the window's store, once it is `wanted`.
fn comes_to(node: &Node, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut shown = None;
    let came = wait_for(SOON, || {
        shown = node.status();
        shown.clone().filter(&wanted)
    });
    came.unwrap_or_else(|| panic!("{shown:?}\n{}", node.log()))
}

/// Where a restore to the latest state would come to, and what it says besides.
fn latest(node: &Node, more: &[&str]) -> (Offset, String) {
    let line = ["-o", "json", "restore", "orders", "--latest", "--dry-run", "--to", "/nowhere"];
    let output = node.run(&[&line, more].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    (plan["resolved"]["position"].as_str().unwrap().parse().unwrap(), said)
}

#[test]
fn the_latest_state_is_restored_from_the_store_that_reaches_furthest_and_one_that_may_is_named() {
    let server = keeping().start();
    let (_moto, proxy, node) = two_stores(&server, "\"all\"");
    let (second, aside) = (node.folder().join("second"), node.folder().join("second-aside"));
    let mut service = node.start(None);
    let both = || node.log().matches("a base backup is complete").count() == 2;
    assert!(wait_for(SOON, || both().then_some(())).is_some(), "{}", node.log());
    node.wait_connected();
    proxy.close(true);
    server.sql("create table after as select generate_series(1, 1000) as n");
    let written = flushed(&server);
    let ahead = wait_for(SOON, || node.end_in(&second).filter(|end| end.offset >= written));
    assert!(ahead.is_some(), "{}", node.log());
    service.process.signal(Signal::SIGKILL);
    service.process.wait(SOON).expect("a killed process ends");
    proxy.close(false);
    let (end, said) = latest(&node, &[]);
    assert!(end >= written && said.contains("the store second reaches further"), "{end}: {said}");
    let (end, _) = latest(&node, &["--store", "main"]);
    assert!(end < written, "{end}");
    std::fs::rename(&second, &aside).unwrap();
    let (end, said) = latest(&node, &[]);
    assert!(end < written && said.contains("may reach further"), "{end}: {said}");
}

fn targets(status: &Value) -> Vec<&str> {
    status["targets"].as_array().unwrap().iter().map(|target| target["store"].as_str().unwrap()).collect()
}

#[test]
fn a_store_that_was_dropped_is_forgotten_and_one_that_is_away_hides_nothing_of_the_others() {
    let server = keeping().start();
    let node = Node::new(&[&server]);
    let (second, aside) = (node.folder().join("second"), node.folder().join("second-aside"));
    std::fs::create_dir(&second).unwrap();
    farshore_testkit::user::give(&second);
    let mut alone = String::new();
    node.configure(|text| {
        alone.clone_from(&text);
        text
    });
    node.add_store(&format!("url = \"file:{}\"", second.display()), "\"any\"");
    let mut both = String::new();
    node.configure(|text| {
        both.clone_from(&text);
        text
    });
    let service = node.start(None);
    node.wait_backup(1);
    comes_to(&node, |status| {
        targets(status) == ["main", "second"] && status["targets"][1]["stored"].is_string()
    });
    service.stop();

    node.configure(|_| alone);
    let service = node.start(None);
    comes_to(&node, |status| targets(status) == ["main"] && status["window"]["store"] == "main");
    service.stop();

    node.configure(|_| both);
    std::fs::rename(&second, &aside).unwrap();
    for name in ["farshore.db", "farshore.db-wal", "farshore.db-shm"] {
        let _gone = std::fs::remove_file(node.folder().join(name));
    }
    let service = node.start(None);
    comes_to(&node, |status| status["backups"]["count"] == 1 && status["window"]["store"] == "main");
    std::fs::rename(&aside, &second).unwrap();
    comes_to(&node, |status| targets(status) == ["main", "second"]);
    service.stop();
}

#[test]
fn a_database_that_was_fenced_is_said_to_be_so_and_not_ready() {
    let server = keeping().start();
    let first = Node::new(&[&server]);
    let second = first.beside(&[&server]);
    let mut fenced = first.start(None);
    first.wait_backup(1);
    let other = second.start(None);
    server.sql("create table after as select 1 as one");
    let ended = fenced.process.wait(SOON);
    assert!(ended.is_some(), "{}", fenced.log());
    let status = first.status().unwrap();
    assert_eq!(status["state"], "fenced", "{status}\n{}", first.log());
    assert!(status["ship_lag_bytes"].is_null(), "{status}");
    other.stop();
}
