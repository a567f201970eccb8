//! The promise: of two services on one database and store one goes on, the other says that it lost, and nothing stored is lost.
//!
//! `FARSHORE_FREEZES` is how many schedules are tried; `soak_shipping_freezes` tries them for as long as it is given.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::time::Duration;

use farshore_testkit::pg::{Length, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::random::{Random, seed};
use farshore_testkit::soak::Campaign;
use nix::sys::signal::Signal;
use service::{CONTENT, Node, SOON, Walked, count, flushed, keeping, let_pass};

/// One service is frozen at some moment, another starts, the first is thawed at some moment. Whether the first one lost.
fn freeze_and_thaw(first: &Node, second: &Node, server: &Server, random: &mut Random) -> bool {
    let mut frozen = first.start(None);
    let before = first.end();
    let owned = wait_for(SOON, || (first.end() != before).then_some(()));
    assert!(owned.is_some(), "{}", frozen.log());
    let_pass(Duration::from_millis(random.below(1500)));
    frozen.process.signal(Signal::SIGSTOP);
    let stored = first.end();
    let mut other = second.start(None);
    // From before the other looks at anything to long after it owns the journal.
    let_pass(Duration::from_millis(random.below(3000)));
    frozen.process.signal(Signal::SIGCONT);
    let first_lost = service::the_first_lost(&mut frozen, &mut other);
    // The one that is left ships on, behind all that was stored; that it is still the same bytes, the walk at the end shows.
    first.wait_end(1, flushed(server));
    assert!(first.end() >= stored, "{:?} after {stored:?}", first.end());
    match first_lost {
        true => other.stop(),
        false => frozen.stop(),
    }
    first_lost
}

fn proven(first: &Node, second: &Node, server: &Server) -> Walked {
    let service = first.start(None);
    server.sql("select pg_switch_wal()");
    first.wait_end(1, flushed(server));
    first.wait_backup(1);
    service.stop();
    let mut walked = first.prove(&[server]);
    assert_eq!(walked.len(), 1, "one incarnation: {walked:?}\n{}\n--\n{}", first.log(), second.log());
    let walked = walked.pop().unwrap();
    assert!(walked.gaps.is_empty(), "{walked:?}");
    walked
}

#[test]
fn of_two_services_one_frozen_and_thawed_one_ends_fenced_and_the_journal_stays_one() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let mut random = Random::new(seed);
    let server = keeping().start();
    server.pgbench_init(1);
    let first = Node::new(&[&server]);
    let second = first.beside(&[&server]);
    let load = server.pgbench(2, Length::For(Duration::from_secs(3000)));
    let schedules = count("FARSHORE_FREEZES", 5);
    let mut frozen_lost = 0;
    for _ in 0..schedules {
        frozen_lost += u64::from(freeze_and_thaw(&first, &second, &server, &mut random));
    }
    drop(load);
    let walked = proven(&first, &second, &server);
    assert_eq!(first.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
    println!("{schedules} schedules, the frozen one lost {frozen_lost}: {walked:?}");
}

#[test]
fn soak_shipping_freezes() {
    let mut campaign = Campaign::start("shipping_freezes");
    let server = keeping().start();
    server.pgbench_init(1);
    let first = Node::new(&[&server]);
    let second = first.beside(&[&server]);
    while campaign.next_round() {
        let load = server.pgbench(2, Length::For(Duration::from_secs(3000)));
        let lost = freeze_and_thaw(&first, &second, &server, &mut campaign.random);
        drop(load);
        campaign.count("frozen_lost", u64::from(lost));
        let walked = proven(&first, &second, &server);
        campaign.count("walked_chunks", walked.chunks);
    }
    campaign.finish();
}
