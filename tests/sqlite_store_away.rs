//! The promise: while the store of a SQLite database takes nothing, `on_full` decides. `hold` keeps all log, whatever an application
//! does, and nothing is missing once the store is back; `bypass` lets the log go when it is larger than `wal_limit`, says so, and begins a
//! new incarnation with a base of its own.
//!
//! Method: an application's process that keeps the database open; the store's folder is made read-only for the unprivileged user.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use farshore_testkit::process::wait_for;
use service::{Node, SOON, let_pass};
use sqlite::application::Application;

const LITTLE: &str = "insert into much (v) values (randomblob(100))";
/// Some 16 MiB more in the log.
const MUCH: &str = "insert into much (v) with recursive n(i) as (select 1 union all select i + 1 from n where i < 16) select randomblob(1 << 20) from n";

fn content(application: &mut Application) -> String {
    application.ask("select count(*), sum(length(v)), max(hex(substr(v, 1, 8))) from much")
}

/// A node, and an application that has its database open.
fn beside(policy: &str) -> (Node, Application) {
    let node = Node::configured(|folder| {
        format!(
            "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n[databases.orders]\nengine = \"sqlite\"\n\
             path = \"app.db\"\nstores = [\"main\"]\nflush_interval = \"20ms\"\n{policy}\n",
            folder.join("journal").display()
        )
    });
    let mut application = Application::open(&node.folder().join("app.db"));
    assert_eq!(application.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
    assert_eq!(application.ask("create table much (id integer primary key, v blob)"), "[]");
    (node, application)
}

/// Objects are written there first.
fn takes(node: &Node, takes: bool) {
    let mode = if takes { 0o755 } else { 0o555 };
    std::fs::set_permissions(node.folder().join("journal/.tmp"), Permissions::from_mode(mode)).unwrap();
}

fn log_bytes(node: &Node) -> u64 {
    std::fs::metadata(node.folder().join("app.db-wal")).map_or(0, |log| log.len())
}

fn wait_state(node: &Node, state: &str) {
    let there = wait_for(SOON, || (node.status()?["state"] == state).then_some(()));
    assert!(there.is_some(), "{state}: {:?}\n{}", node.status(), node.log());
}

/// The newest incarnation's latest state.
fn restored(node: &Node, copy: &str) -> String {
    let to = node.folder().join(copy);
    let done = node.run(&["restore", "orders", "--latest", "--to", &to.display().to_string()]);
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), node.log());
    content(&mut Application::open(&to.join("app.db")))
}

/// Until nothing is behind, and a backup can be restored.
fn wait_stored(node: &Node, application: &mut Application) -> String {
    let content = content(application);
    wait_state(node, "connected");
    node.wait_backup(1);
    let stored = wait_for(SOON, || {
        let before = node.end();
        let_pass(Duration::from_millis(700));
        let status = node.status()?;
        (status["ship_lag_bytes"] == 0 && before == node.end()).then_some(())
    });
    assert!(stored.is_some(), "{:?}\n{}", node.status(), node.log());
    content
}

#[test]
fn log_is_let_go_at_its_limit_while_the_store_takes_nothing_and_a_base_follows() {
    let (node, mut application) = beside("on_full = \"bypass\"\nwal_limit = \"64MiB\"");
    let service = node.start(None);
    wait_stored(&node, &mut application);
    takes(&node, false);
    // Little waits behind what the store does not take, and a record that is too large to be sent with it behind that.
    for _ in 0..3 {
        assert_eq!(application.ask(LITTLE), "[]");
        let_pass(Duration::from_millis(100));
    }
    (0..2).for_each(|_| assert_eq!(application.ask(MUCH), "[]"));
    wait_state(&node, "accumulating");
    assert!(!application.truncates(), "below the limit it is held");
    (0..4).for_each(|_| assert_eq!(application.ask(MUCH), "[]"));
    let let_go = wait_for(SOON, || application.truncates().then_some(()));
    assert!(let_go.is_some(), "{} bytes\n{}", log_bytes(&node), node.log());
    assert_eq!(log_bytes(&node), 0);
    wait_state(&node, "bypass");
    service.wait_log("wal_limit");
    assert_eq!(application.ask(LITTLE), "[]");
    assert_eq!(node.incarnations().len(), 1, "nothing begins while the store is away");

    takes(&node, true);
    let anew = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(anew.is_some(), "{}", node.log());
    let content = wait_stored(&node, &mut application);
    assert_eq!(restored(&node, "newest"), content);
    let verified = node.run(&["verify", "orders"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    service.stop();
}

#[test]
fn log_is_held_whatever_its_size_where_hold_is_asked_and_nothing_is_missing_then() {
    let (node, mut application) = beside("");
    let service = node.start(None);
    wait_stored(&node, &mut application);
    takes(&node, false);
    (0..6).for_each(|_| assert_eq!(application.ask(MUCH), "[]"));
    wait_state(&node, "accumulating");
    let status = wait_for(SOON, || {
        node.status().filter(|status| status["primary"]["retained_bytes"].as_u64() > Some(96 << 20))
    });
    assert!(status.is_some(), "status says what is kept: {:?}", node.status());
    let_pass(Duration::from_secs(5));
    assert!(!application.truncates() && log_bytes(&node) > 96 << 20);
    assert_eq!(node.status().unwrap()["state"], "accumulating");

    takes(&node, true);
    let content = wait_stored(&node, &mut application);
    assert_eq!(node.incarnations().len(), 1, "{}", node.log());
    assert_eq!(restored(&node, "newest"), content);
    let small = wait_for(SOON, || {
        application.ask(LITTLE);
        (log_bytes(&node) < 32 << 20
            && node.status()?["primary"]["retained_bytes"].as_u64() == Some(log_bytes(&node)))
        .then_some(())
    });
    assert!(small.is_some(), "the file is given back: {} bytes, {:?}", log_bytes(&node), node.status());
    service.stop();
}
