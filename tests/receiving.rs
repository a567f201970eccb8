//! The promise: a receiver is a store as any other, over whatever network; what it called stored is in its directory, whoever dies or is cut off; and nobody has more of it than his names.
//!
//! Method: the real binary receives into a directory of its own; shippers are real nodes, links between them are cut and silenced.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "receiving/rig.rs"]
mod rig;
#[path = "receiving/rights.rs"]
mod rights;
mod service;

use std::time::{Duration, Instant};

use bytes::Bytes;
use farshore_journal::store::{Key, Retry, StoreError, conformance};
use farshore_testkit::link::Link;
use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::wait_for;
use rig::{Receiver, SHIPPER};
use service::{Node, SOON, flushed};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_receiver_keeps_each_promise_of_a_store() {
    let receiver = Receiver::new();
    receiver.allow(true);
    let running = receiver.start();
    let (one, other) = (Link::to(running.address()), Link::to(running.address()));
    runtime().block_on(async {
        conformance::run_below(&*receiver.open(&[one.address()], SHIPPER), "db/orders").await;
    });
    running.stop();
    // Over two ways as well.
    let receiver = Receiver::new();
    receiver.allow(true);
    let running = receiver.start();
    one.lead_to(running.address());
    other.lead_to(running.address());
    runtime().block_on(async {
        let store = receiver.open(&[one.address(), other.address()], SHIPPER);
        conformance::run_below(&*store, "db/orders").await;
    });
}

#[test]
fn a_way_that_is_cut_or_silent_loses_nothing_while_another_is_there() {
    let receiver = Receiver::new();
    let running = receiver.start();
    let (one, other) = (Link::to(running.address()), Link::to(running.address()));
    let store = receiver.open(&[one.address(), other.address()], SHIPPER);
    runtime().block_on(async {
        let put = async |n: u32| {
            let begun = Instant::now();
            let key = key(&format!("db/orders/x/{n}"));
            store.create(&key, Bytes::from(vec![1; 1000])).await.unwrap();
            begun.elapsed()
        };
        for n in 0..10 {
            put(n).await;
        }
        one.cut();
        for n in 10..20 {
            put(n).await;
        }
        let before = one.reached();
        one.open();
        let back = wait_for_async(async || one.reached() > before).await;
        assert!(back, "a way that is open again is tried again, whatever is asked meanwhile");
        other.cut();
        for n in 40..50 {
            put(n).await;
        }
        other.open();
        assert!(wait_for_async(async || other.reached() > 1).await);
        // Silent: found by its missing signs of life, long before a request's own deadline.
        other.silence();
        let mut longest = Duration::ZERO;
        for n in 20..40 {
            longest = longest.max(put(n).await);
        }
        assert!(longest < Duration::from_secs(15), "{longest:?}");
        other.open();
        for n in 0..50 {
            assert_eq!(store.size(&key(&format!("db/orders/x/{n}"))).await.unwrap(), 1000);
        }
    });
}

/// Tries for as long as anything here may take.
async fn wait_for_async(works: impl AsyncFn() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if works().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

#[test]
fn ways_that_lead_to_two_receivers_are_not_taken_for_one() {
    let (first, second) = (Receiver::new(), Receiver::new());
    // Both know the client, and each has a store of its own.
    for file in ["ca.crt", "server.crt", "server.key"] {
        std::fs::copy(first.node().folder().join(file), second.node().folder().join(file)).unwrap();
    }
    farshore_testkit::user::give(second.node().folder());
    let (one, other) = (first.start(), second.start());
    runtime().block_on(async {
        let record = key("farshore.store");
        for (running, bytes) in [(&one, "first"), (&other, "second")] {
            let store = first.open(&[running.address()], SHIPPER);
            store.create(&record, Bytes::from(bytes)).await.unwrap();
        }
        let both = first.open(&[one.address(), other.address()], SHIPPER);
        let mut answers = Vec::new();
        for n in 0..6 {
            let made = key(&format!("db/orders/x/{n}"));
            both.create(&made, Bytes::from_static(b"x")).await.unwrap();
            answers.push(both.get(&record).await.unwrap());
            // Whatever way its turn was, it is there that it is found again.
            assert_eq!(both.get(&made).await.unwrap(), Bytes::from_static(b"x"), "{n}");
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
    });
}

#[test]
fn strangers_lock_out_nobody() {
    let receiver = Receiver::new();
    let running = receiver.start();
    let store = receiver.open(&[running.address()], SHIPPER);
    runtime().block_on(async {
        let mut silent = Vec::new();
        for _ in 0..100 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            silent.push(socket.connect(running.address()).await.unwrap());
        }
        store.create(&key("db/orders/x/1"), Bytes::from_static(b"1")).await.unwrap();
        drop(silent);
    });
    let log = receiver.node().log();
    assert!(log.contains("have not proved yet who they are"), "{log}");
}

#[test]
fn a_machine_that_falls_silent_is_told_in_seconds_and_leaves_a_create_in_doubt() {
    let receiver = Receiver::new();
    let running = receiver.start();
    let link = Link::to(running.address());
    let store = receiver.open(&[link.address()], SHIPPER);
    runtime().block_on(async {
        let one = key("db/orders/x/1");
        store.create(&key("db/orders/x/0"), Bytes::from_static(b"0")).await.unwrap();
        link.silence();
        let begun = Instant::now();
        let why = store.create(&one, Bytes::from_static(b"1")).await.unwrap_err();
        assert!(why.is_ambiguous() && why.retry() == Retry::Backoff, "{why:?}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        link.cut();
        let why = store.create(&one, Bytes::from_static(b"1")).await.unwrap_err();
        assert!(matches!(why, StoreError::Unreachable { .. }), "{why:?}");
        link.open();
        // Whoever is in doubt sends the same bytes again and reads back what won.
        store.create(&one, Bytes::from_static(b"1")).await.unwrap();
        assert_eq!(store.get(&one).await.unwrap(), Bytes::from_static(b"1"));
    });
}

/// What the receiver's directory holds is a journal, and all that was called stored is in it.
#[test]
fn a_database_is_shipped_backed_up_and_restored_through_a_receiver_that_is_killed_meanwhile() {
    let server = Server::start_new(Major::V15);
    let receiver = Receiver::new();
    let mut running = receiver.start();
    let link = Link::to(running.address());
    let node = Node::new(&[&server]);
    receiver.equip(&node, SHIPPER, &[link.address()]);
    let service = node.start(None);
    receiver.wait_backup(&node);
    server.sql("create table kept (n int primary key)");
    let mut stored = 0;
    for round in 1..=5 {
        server.sql(&format!(
            "insert into kept select generate_series({}, {})",
            round * 1000,
            round * 1000 + 99
        ));
        if round % 2 == 1 {
            running.kill9();
            server.sql(&format!("insert into kept values ({})", round * 1000 + 500));
            running = receiver.start();
            link.lead_to(running.address());
        }
        receiver.wait_end(flushed(&server));
        stored = server.sql("select count(*) from kept").parse().unwrap();
    }
    assert_eq!(stored, 503);
    let verified = node.run(&["verify", "orders"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}\n{}", node.log());
    let taken = node.run(&["backup", "run", "orders"]);
    assert!(taken.status.success(), "{taken:?}\n{}", node.log());
    let restored = node.restore(&["--latest"]);
    assert_eq!(restored.sql("select count(*) from kept"), "503");
    service.stop();
    running.stop();
    // Whoever stands at that machine needs nobody's network.
    let restored = receiver.node().restore(&["--latest"]);
    assert_eq!(restored.sql("select count(*) from kept"), "503");
}

#[test]
fn a_receiver_that_is_away_is_said_to_be_and_nothing_is_called_stored_meanwhile() {
    let server = Server::start_new(Major::V15);
    let receiver = Receiver::new();
    let running = receiver.start();
    let link = Link::to(running.address());
    let node = Node::new(&[&server]);
    receiver.equip(&node, SHIPPER, &[link.address()]);
    let service = node.start(None);
    receiver.wait_backup(&node);
    receiver.wait_end(flushed(&server));
    link.silence();
    server.sql("create table behind as select 1 as n");
    let behind = flushed(&server);
    let told = wait_for(SOON, || node.status().filter(|status| status["state"] != "connected"));
    assert!(told.is_some(), "{:?}\n{}", node.status(), service.log());
    let end = receiver.end().unwrap().offset;
    assert!(end < behind, "the directory has what nobody could put");
    let shown = node.status().unwrap();
    let called = shown["stored"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    assert!(end >= called, "{shown}");
    link.open();
    receiver.wait_end(behind);
    node.wait_connected();
    service.stop();
    drop(running);
}
