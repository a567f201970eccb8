//! The promise: log that is not stored is kept at the primary, and where it will be the primary, or it is said that it is not.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::time::Duration;

use farshore_journal::Offset;
use farshore_testkit::pg::{Builder, Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::stores::Moto;
use service::proxy::Proxy;
use service::{CONTENT, Node, SOON, flushed, let_pass};

/// A server that recycles its log as soon as nothing holds it.
fn forgetful(major: Major) -> Builder {
    Server::builder(major).conf("wal_keep_size = 0").conf("max_wal_size = 48MB").conf("min_wal_size = 32MB")
}

/// Writes much and lets the server forget what it may.
fn churn(server: &Server, rounds: usize) {
    for _ in 0..rounds {
        server.sql("create table if not exists filler(n int); insert into filler select generate_series(1, 100000); select pg_switch_wal(); checkpoint");
    }
}

fn caught_up(standby: &Server, primary: &Server) {
    let end = flushed(primary);
    let reached = wait_for(SOON, || {
        let replayed = standby.sql("select coalesce(pg_last_wal_replay_lsn(), '0/0')");
        (replayed.parse::<Offset>().unwrap() >= end).then_some(())
    });
    assert!(reached.is_some(), "the standby did not catch up");
}

fn restart_of(server: &Server, slot: &str) -> Option<Offset> {
    let asked = format!(
        "select restart_lsn from pg_replication_slots where slot_name = '{slot}' and wal_status <> 'lost'"
    );
    server.sql(&asked).parse().ok()
}

/// Where a slot stands once all that was under way to the store when it went away is released.
fn settled(server: &Server, slot: &str) -> Offset {
    let mut before = None;
    let stands = wait_for(SOON, || {
        let now = restart_of(server, slot);
        let stands = now.filter(|_| now == before);
        before = now;
        if stands.is_none() {
            let_pass(Duration::from_secs(4));
        }
        stands
    });
    stands.expect("the slot never stood still")
}

const KEEP: &str = "farshore_orders_keep";

#[test]
fn log_that_is_not_shipped_outlives_a_failover_while_the_service_is_stopped() {
    let old = forgetful(Major::V15).start();
    old.pgbench_init(1);
    let new = service::wait(Server::standby_of(&old));
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    let kept = wait_for(SOON, || restart_of(&new, KEEP));
    assert!(kept.is_some(), "no slot on the standby\n{}", node.log());
    service.stop();
    let stored = node.end().unwrap();
    old.sql("create table unshipped as select generate_series(1, 100000) as n");
    caught_up(&new, &old);
    old.stop(Mode::Fast);
    new.promote();
    churn(&new, 12);
    let behind = flushed(&new).bytes_since(stored.offset).unwrap();
    assert!(behind > 150 << 20, "so much that nothing but a slot can have kept it: {behind}");
    let service = node.start(None);
    node.wait_end(2, flushed(&new));
    service.stop();
    let verified = node.json(&["verify"]);
    let shown = service::first(&verified);
    assert_eq!(shown["sound"], true, "{verified}");
    assert_eq!(shown["gaps"].as_array().map(Vec::len), Some(0), "{verified}\n{}", node.log());
    assert_eq!(node.incarnations().len(), 1, "{}", node.log());
    let latest = node.restore(&["--latest"]);
    assert_eq!(latest.sql("select count(*) from unshipped"), "100000");
    assert_eq!(latest.sql(CONTENT), new.sql(CONTENT));
}

#[test]
fn a_standby_follows_what_is_released_and_check_says_when_it_keeps_nothing() {
    let primary = forgetful(Major::V15).start();
    let standby = service::wait(Server::standby_of(&primary));
    // What is left of the time when this one was the primary.
    const LIVE: &str = "farshore_orders_live_main";
    let node = Node::new(&[&primary, &standby]);
    let service = node.start(None);
    node.wait_backup(1);
    standby.sql(&format!("select pg_create_physical_replication_slot('{LIVE}', true)"));
    let before = wait_for(SOON, || restart_of(&standby, KEEP)).expect("a slot on the standby");
    churn(&primary, 6);
    node.wait_end(1, flushed(&primary));
    let far = Offset::new(before.get() + (64 << 20));
    for slot in [KEEP, LIVE] {
        let moved = wait_for(SOON, || restart_of(&standby, slot).filter(|restart| *restart > far));
        assert!(moved.is_some(), "{slot} stands at {:?}\n{}", restart_of(&standby, slot), node.log());
        let end = node.end().unwrap().offset;
        assert!(moved.unwrap() <= end, "{slot} beyond what is stored");
    }
    service.stop();
    let findings = |node: &Node| -> Vec<serde_json::Value> {
        let output = node.run(&["-o", "json", "check", "orders"]);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = service::all(&answer).into_iter().cloned().collect::<Vec<_>>();
        items.into_iter().filter(|item| item["code"] == "slots.standby").collect()
    };
    let found = findings(&node);
    assert!(found.len() == 1 && found[0]["level"] == "ok", "{found:?}");
    standby.sql(&format!("select pg_drop_replication_slot('{KEEP}')"));
    let found = findings(&node);
    assert!(found.len() == 1 && found[0]["level"] == "warning", "{found:?}");
}

#[test]
fn log_that_no_keep_slot_holds_is_not_reported_and_so_not_lost() {
    let server = forgetful(Major::V15).conf("max_replication_slots = 2").start();
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 1);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    // What the resume compares is kept for it, and nothing behind that.
    server.conf("wal_keep_size = 64MB");
    server.reload();
    server.sql(&format!("select pg_drop_replication_slot('{KEEP}')"));
    server.conf("max_replication_slots = 1");
    server.restart();
    let service = node.start(None);
    let said = wait_for(SOON, || {
        let status = node.status()?;
        (status["state"] == "degraded" && status["ship_lag_bytes"] == 0).then_some(())
    });
    assert!(said.is_some(), "{:?}\n{}", node.status(), node.log());
    server.conf("wal_keep_size = 0");
    server.reload();
    proxy.close(true);
    churn(&server, 8);
    server.sql("checkpoint");
    // A primary that shuts down is not held up by what is held back.
    let began = std::time::Instant::now();
    server.restart();
    assert!(began.elapsed() < Duration::from_secs(20), "the restart took {:?}", began.elapsed());
    proxy.close(false);
    node.wait_end(1, flushed(&server));
    service.stop();
    let verified = node.json(&["verify"]);
    assert_eq!(
        service::first(&verified)["gaps"].as_array().map(Vec::len),
        Some(0),
        "{verified}\n{}",
        node.log()
    );
}

#[test]
fn the_keep_slot_outlives_an_idle_timeout_while_a_store_is_away() {
    let server = forgetful(Major::V18).conf("idle_replication_slot_timeout = 12s").start();
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 1);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    node.configure(|text| {
        text.replace(&Major::V15.bin().display().to_string(), &Major::V18.bin().display().to_string())
    });
    let service = node.start(None);
    node.wait_backup(1);
    proxy.close(true);
    churn(&server, 1);
    let kept = settled(&server, KEEP);
    let_pass(Duration::from_secs(20));
    churn(&server, 4);
    assert_eq!(restart_of(&server, KEEP), Some(kept), "{}", server.sql("select * from pg_replication_slots"));
    proxy.close(false);
    node.wait_end(1, flushed(&server));
    service.stop();
    let verified = node.json(&["verify"]);
    assert_eq!(
        service::first(&verified)["gaps"].as_array().map(Vec::len),
        Some(0),
        "{verified}\n{}",
        node.log()
    );
}

#[test]
fn a_keep_slot_that_someone_else_moved_is_said() {
    let server = Server::start_new(Major::V15);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_connected();
    server.sql(&format!("select pg_replication_slot_advance('{KEEP}', pg_current_wal_flush_lsn())"));
    let moved = restart_of(&server, KEEP).unwrap();
    let said = wait_for(SOON, || {
        let status = node.status()?;
        let released: Offset = status["released"].as_str()?.parse().ok()?;
        (status["state"] == "degraded" && released >= moved).then_some(())
    });
    assert!(said.is_some(), "{:?}\n{}", node.status(), node.log());
    service.stop();
}

#[test]
fn a_source_that_lost_only_the_log_before_the_journals_end_is_shipped_anew_without_waiting_for_it_to_write() {
    let server = forgetful(Major::V15).start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    server.sql("create table first as select 1 as one");
    node.wait_connected();
    // The journal ends where a log segment does, and the server writes nothing behind it but its checkpoints.
    server.sql("select pg_switch_wal()");
    let end = flushed(&server).segment_start(16 << 20);
    node.wait_end(1, end);
    service.stop();
    for slot in [KEEP, "farshore_orders_live_main"] {
        server.sql(&format!("select pg_drop_replication_slot('{slot}')"));
    }
    server.sql("checkpoint");
    server.sql("checkpoint");
    let oldest = server.sql("select min(name) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$'");
    assert_eq!(oldest, server.sql(&format!("select pg_walfile_name('{end}'::pg_lsn + 1)")));
    let service = node.start(None);
    let anew = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(anew.is_some(), "{}", node.log());
    node.wait_backup(1);
    server.sql("create table second as select 2 as two");
    node.wait_end(1, flushed(&server));
    service.stop();
    let verified = node.json(&["verify"]);
    for shown in service::all(&verified) {
        assert_eq!((&shown["sound"], &shown["gaps"]), (&true.into(), &serde_json::json!([])), "{verified}");
    }
    assert_eq!(node.restore(&["--latest"]).sql("select two from second"), "2");
    assert_eq!(node.restore(&["--latest", "--incarnation", "0"]).sql("select one from first"), "1");
}
