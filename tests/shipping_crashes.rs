//! The promise: whenever the service is killed, and wherever, the journal stays one run of the primary's bytes, and it goes on.
//!
//! `FARSHORE_KILLS` is how often it is killed under load; `soak_shipping_kills` does so for as long as it is given.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::time::Duration;

use farshore_journal::Position;
use farshore_testkit::pg::{Length, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::random::{Random, seed};
use farshore_testkit::soak::Campaign;
use service::{CONTENT, Node, count, flushed, keeping, let_pass};

fn loaded() -> Server {
    let server = keeping().start();
    server.pgbench_init(1);
    server
}

/// What must hold once all is quiet: everything is there, once, as the primary wrote it, and restores to the same rows.
fn proven(node: &Node, server: &Server, restores: bool) -> service::Walked {
    let service = node.start(None);
    server.sql("select pg_switch_wal()");
    let end = flushed(server);
    node.wait_end(1, end);
    node.wait_backup(1);
    let content = server.sql(CONTENT);
    // What the killed ones stored and never told the catalog is in the window all the same.
    let window = wait_for(service::SOON, || {
        let window = node.status()?["window"].clone();
        let to: Position = window["to_position"].as_str()?.parse().ok()?;
        (to.offset >= end && window["gaps"].as_array()?.is_empty()).then_some(window)
    });
    assert!(window.is_some(), "{:?}\n{}", node.status(), node.log());
    service.stop();
    let mut walked = node.prove(&[server]);
    assert_eq!(walked.len(), 1, "one incarnation: {walked:?}\n{}", node.log());
    let walked = walked.pop().unwrap();
    assert!(walked.gaps.is_empty() && walked.timelines.is_empty(), "{walked:?}");
    assert!(walked.end.unwrap().offset >= end);
    if restores {
        let restored = node.restore(&["--latest"]);
        assert_eq!(restored.sql(CONTENT), content);
    }
    walked
}

#[test]
fn a_service_killed_at_any_moment_under_load_leaves_one_journal_without_gap_or_double() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let mut random = Random::new(seed);
    let server = loaded();
    let node = Node::new(&[&server]);
    node.sign_heads();
    let kills = count("FARSHORE_KILLS", 8);
    let mut load = server.pgbench(4, Length::For(Duration::from_secs(kills * 3 + 5)));
    for _ in 0..kills {
        // Half of them open anew all the time.
        let service = node.start(["generation-lasts=return(0)"].into_iter().find(|_| random.below(2) == 0));
        let_pass(Duration::from_millis(100 + random.below(2500)));
        service.kill9();
        assert!(load.is_running(), "the load must outlast the kills");
    }
    drop(load);
    let walked = proven(&node, &server, true);
    println!("{kills} kills: {walked:?}");
}

#[test]
fn a_service_that_dies_at_any_step_is_continued_without_gap_or_double() {
    let server = loaded();
    let node = Node::new(&[&server]);
    node.sign_heads();
    // Before and behind each effect, at the first time and at a later one.
    let steps = [
        "ship-before-takeover=return",
        "ship-after-takeover=return",
        "ship-after-takeover=return",
        "ship-encoded=return",
        "ship-appended=return",
        "ship-report=return",
        "ship-encoded=3*off->return",
        "ship-appended=3*off->return",
        "ship-report=2*off->return",
        // Entries of the tail: encoded and not sent, and heard of.
        "ship-tail=return",
        "ship-tailed=return",
        "ship-tail=20*off->return",
        "ship-before-takeover=return",
        "ship-after-takeover=return",
        // A head that is not put, and one that the catalog is not told of.
        "ship-head-signed=return",
        "ship-head-put=return",
        // Before and behind an opening of its own.
        "generation-lasts=return(1);ship-renew=return",
        "generation-lasts=return(1);ship-renewed=return",
    ];
    let _load = server.pgbench(2, Length::For(Duration::from_secs(400)));
    for step in steps {
        let mut service = node.start(Some(step));
        let ended = service.process.wait(service::SOON);
        let ended = ended.unwrap_or_else(|| panic!("{step} was not reached:\n{}", service.log()));
        assert!(!ended.success(), "{step}: {ended:?}\n{}", service.log());
    }
    drop(_load);
    let walked = proven(&node, &server, true);
    println!("{} steps: {walked:?}", steps.len());
}

/// A journal that begins on a later timeline is begun by three chunks: opening, timeline, gap.
#[test]
fn a_service_that_dies_while_it_begins_a_journal_on_a_later_timeline_begins_it_again() {
    let old = keeping().start();
    let server = service::wait(Server::standby_of(&old));
    server.promote();
    drop(old);
    server.pgbench_init(1);
    server.sql("select pg_switch_wal()");
    server.sql("checkpoint");
    let node = Node::new(&[&server]);
    for step in ["ship-after-takeover=return", "ship-record=return", "ship-recorded=return"] {
        let mut service = node.start(Some(step));
        let ended = service.process.wait(service::SOON);
        assert!(ended.is_some_and(|ended| !ended.success()), "{step}: {ended:?}\n{}", service.log());
    }
    let service = node.start(None);
    node.wait_backup(1);
    server.sql("create table behind as select 1 as one");
    node.wait_end(2, flushed(&server));
    service.stop();
    let walked = node.prove(&[&server]);
    assert_eq!(walked.len(), 1, "{walked:?}");
    assert_eq!(walked[0].timelines, [2]);
    assert_eq!(node.restore(&["--latest"]).sql("select one from behind"), "1");
}

#[test]
fn soak_shipping_kills() {
    let mut campaign = Campaign::start("shipping_kills");
    let server = loaded();
    let node = Node::new(&[&server]);
    node.sign_heads();
    while campaign.next_round() {
        let kills = 3 + campaign.random.below(5);
        let load = server.pgbench(4, Length::For(Duration::from_secs(600)));
        for _ in 0..kills {
            let service = node.start(None);
            let_pass(Duration::from_millis(50 + campaign.random.below(3000)));
            service.kill9();
        }
        drop(load);
        campaign.count("kills", kills);
        let walked = proven(&node, &server, false);
        campaign.count("walked_chunks", walked.chunks);
    }
    proven(&node, &server, true);
    campaign.finish();
}
