//! The promise: whatever a store does, nothing is called stored that is not, the primary is not held up, and it is caught up.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::time::{Duration, Instant};

use farshore_journal::Offset;
use farshore_testkit::pg::{Builder, Length, Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::random::seed;
use farshore_testkit::stores::Moto;
use nix::sys::signal::Signal;
use service::proxy::{Faults, Proxy};
use service::{CONTENT, Node, SOON, flushed, keeping, let_pass};

/// The shipped position that the catalog calls stored.
fn called_stored(node: &Node) -> Option<Offset> {
    node.status()?["stored"].as_str()?.parse().ok()
}

#[test]
fn nothing_is_called_stored_that_is_not_while_a_store_loses_refuses_and_delays() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let server = keeping().start();
    server.pgbench_init(1);
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), seed);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    let service = node.start(None);
    node.wait_end(1, flushed(&server));
    proxy.set(Faults { refuse: 10, drop: 5, lose_answer: 10, delay_millis: 30 });
    let mut load = server.pgbench_with(2, Length::For(Duration::from_secs(20)), &["-R", "100"]);
    let mut looks = 0;
    while load.is_running() {
        if let Some(called) = called_stored(&node) {
            let end = node.end().expect("a journal");
            assert!(end.offset >= called, "called stored up to {called}, the store holds {end}");
            looks += 1;
        }
    }
    let (hurt, forwarded) = proxy.counts();
    assert!(hurt > 20, "the faults must have happened: {hurt} of {forwarded}");
    proxy.set(Faults::default());
    let _ = load.wait();
    server.sql("select pg_switch_wal()");
    node.wait_end(1, flushed(&server));
    node.wait_backup(1);
    service.stop();
    let walked = node.prove(&[&server]);
    assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}");
    assert_eq!(walked[0].openings, 1, "faults alone make no one take over: {walked:?}\n{}", node.log());
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
    println!("{hurt} faults, {forwarded} forwarded, {looks} looks: {walked:?}");
}

#[test]
fn a_store_that_is_down_holds_up_neither_commits_nor_the_primarys_shutdown_and_is_caught_up() {
    // No log is kept but for the slots: what comes through was held by them.
    let server = Server::builder(Major::V15).conf("max_wal_size = 64MB").conf("min_wal_size = 32MB").start();
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 1);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    let service = node.start(None);
    node.wait_backup(1);
    proxy.close(true);
    server.pgbench_init(10);
    server.sql("checkpoint");
    let load = server.pgbench(2, Length::For(Duration::from_secs(10)));
    assert!(load.wait().transactions > 0);
    server.sql("checkpoint");
    let backlog = flushed(&server).bytes_since(node.end().unwrap().offset).unwrap();
    assert!(backlog > 100 << 20, "the backlog must not fit into memory: {backlog}");
    let peak = service.peak_memory();
    assert!(peak < 220 << 20, "{} MiB at most", peak >> 20);
    for _ in 0..2 {
        let began = Instant::now();
        server.stop(Mode::Fast);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "the stop took {took:?}");
        println!("stopped in {took:?} with {} MiB waiting", backlog >> 20);
        server.start();
        let_pass(Duration::from_secs(3));
    }
    proxy.close(false);
    server.sql("create table behind as select 1 as one");
    node.wait_end(1, flushed(&server));
    // With a stream still open, and a chunk that the store does not take just begun.
    proxy.close(true);
    server.sql("create table last as select generate_series(1, 10000) as n");
    let began = Instant::now();
    server.stop(Mode::Fast);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "the stop took {took:?}");
    println!("stopped in {took:?} with a stream open");
    server.start();
    proxy.close(false);
    node.wait_end(1, flushed(&server));
    let content = server.sql(CONTENT);
    println!("peak {} MiB, {} MiB at last", peak >> 20, service.peak_memory() >> 20);
    service.stop();
    let verified = node.json(&["verify"]);
    assert_eq!(service::first(&verified)["sound"], true, "{verified}");
    assert_eq!(service::first(&verified)["gaps"].as_array().map(Vec::len), Some(0), "{verified}");
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), content);
}

fn forgetful() -> Builder {
    Server::builder(Major::V15)
        .conf("max_slot_wal_keep_size = 16MB")
        .conf("max_wal_size = 48MB")
        .conf("min_wal_size = 32MB")
}

#[test]
fn a_lost_slot_is_a_gap_with_its_bounds_and_a_new_base_backup_never_silence() {
    let server = forgetful().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    server.sql("create table before as select 1 as one");
    let early = flushed(&server);
    server.sql("create table after as select 1 as one");
    node.wait_end(1, flushed(&server));
    service.stop();
    let stored = node.end().unwrap();
    for _ in 0..12 {
        server.sql("create table if not exists filler(n int); insert into filler select generate_series(1, 200000); select pg_switch_wal(); checkpoint");
    }
    let lost = server.sql("select count(*) from pg_replication_slots where wal_status = 'lost'");
    assert_eq!(lost, "2", "{}", server.sql("select * from pg_replication_slots"));
    // The one that records the gap dies before it can take the base backup that must follow: the next one takes it.
    let mut dies = node.start(Some("ship-recorded=return"));
    assert!(dies.process.wait(SOON).is_some_and(|ended| !ended.success()), "{}", dies.log());
    let service = node.start(None);
    node.wait_backup(2);
    server.sql("create table behind as select 1 as one");
    node.wait_end(1, flushed(&server));
    // Both slots keep log again.
    let kept = wait_for(SOON, || {
        let kept = server
            .sql("select count(*) from pg_replication_slots where wal_status in ('reserved', 'extended')");
        (kept == "2").then_some(())
    });
    assert!(kept.is_some(), "{}\n{}", server.sql("select * from pg_replication_slots"), node.log());
    let status = wait_for(SOON, || {
        let status = node.status()?;
        let gaps = status["window"]["gaps"].as_array()?.len();
        (gaps == 1).then_some(status)
    });
    let status = status.unwrap_or_else(|| panic!("{:?}\n{}", node.status(), node.log()));
    println!("{}", status["window"]);
    service.stop();
    let verified = node.json(&["verify"]);
    let shown = service::first(&verified);
    assert_eq!(shown["sound"], true, "{verified}");
    let gaps = shown["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1, "{verified}");
    assert!(gaps[0].to_string().contains(&stored.offset.to_string()), "{stored} in {}", gaps[0]);
    let latest = node.restore(&["--latest"]);
    assert_eq!(latest.sql("select one from behind"), "1");
    drop(latest);
    let old = node.restore(&["--pos", &format!("1:{early}")]);
    assert_eq!(old.sql("select one from before"), "1");
}

#[test]
fn an_idle_database_is_known_to_be_current_and_a_frozen_service_is_unknown_within_three_heartbeats() {
    let server = Server::start_new(Major::V15);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    let current =
        |status: &serde_json::Value| status["ship_lag_bytes"] == 0 && status["state"] == "connected";
    let idle = wait_for(SOON, || node.status().filter(current));
    assert!(idle.is_some(), "{:?}\n{}", node.status(), node.log());
    // It stays so, with nothing written: contact is what is known, not the lack of news.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let status = node.status().unwrap();
        assert!(status["ship_lag_bytes"] == 0, "{status}");
        assert_eq!(status["ship_lag_seconds"], 0.0, "{status}");
    }
    service.process.signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    let unknown = wait_for(SOON, || node.status().filter(|status| status["state"] == "unknown"));
    let took = frozen.elapsed();
    assert!(unknown.is_some(), "{:?}", node.status());
    // Three heartbeats of a second, and what one look takes on a busy machine.
    assert!(took < Duration::from_secs(3 + 3), "unknown only after {took:?}");
    let unknown = unknown.unwrap();
    assert!(unknown["ship_lag_bytes"].is_null() && unknown["ship_lag_seconds"].is_null(), "{unknown}");
    service.process.signal(Signal::SIGCONT);
    let again = wait_for(SOON, || node.status().filter(current));
    assert!(again.is_some(), "{:?}\n{}", node.status(), node.log());
    println!("unknown after {took:?}");
    service.stop();
}
