//! The promise: in `strict` a commit is acknowledged only once it is stored, whoever is killed or cut off; in `near-sync` no more log than the bound is acknowledged beyond that.
//!
//! Method: a primary whose `synchronous_standby_names` is what `check` asks for, a shipper, and a receiver across a link that can be cut. Clients write down what was acknowledged outside of
//! all of them; it is held against what a restore from the receiver's directory alone has.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was measured is read in the output

#[path = "protection/chain.rs"]
mod chain;
#[path = "protection/clients.rs"]
mod clients;
#[path = "protection/guarded.rs"]
mod guarded;
#[path = "protection/measured.rs"]
mod measured;
#[path = "protection/near.rs"]
mod near;
#[path = "protection/networks.rs"]
mod networks;
#[path = "receiving/rig.rs"]
#[allow(dead_code)] // other tests use the rest
mod rig;
mod service;
#[path = "protection/shippers.rs"]
mod shippers;

use std::time::{Duration, Instant};

use chain::Chain;
use clients::Clients;
use farshore_testkit::pg::Mode;
use farshore_testkit::process::{let_pass, wait_for};
use farshore_testkit::soak::Campaign;
use service::{SOON, all};

/// A commit that is asked for beside the test: whether it is done.
fn done_within(clients: &Clients, acknowledged: usize, within: Duration) -> bool {
    wait_for(within, || (clients.acknowledged().len() > acknowledged).then_some(())).is_some()
}

#[test]
fn a_commit_waits_while_it_cannot_be_stored_and_is_let_go_when_it_is() {
    let mut chain = Chain::new("protection = \"strict\"");
    let clients = Clients::start(&chain.server, 2);
    assert!(done_within(&clients, 10, SOON), "commits go on\n{}", chain.node.log());
    // The receiver's machine falls silent, is cut off, dies; the shipper dies: nothing is acknowledged meanwhile.
    let pause = Duration::from_secs(4);
    for fault in ["silence", "cut", "receiver", "shipper"] {
        match fault {
            "silence" => chain.link.silence(),
            "cut" => chain.link.cut(),
            "receiver" => chain.kill_receiver(),
            _ => chain.kill_shipper(),
        }
        // What was on its way when it happened may be done yet.
        let_pass(Duration::from_millis(500));
        let before = clients.acknowledged().len();
        assert!(!done_within(&clients, before, pause), "{fault}: a commit was acknowledged");
        match fault {
            "silence" | "cut" => chain.link.open(),
            "receiver" => chain.start_receiver(),
            _ => chain.start_shipper(),
        }
        assert!(
            done_within(&clients, before + 10, SOON),
            "{fault}: commits do not go on\n{}",
            chain.node.log()
        );
    }
    // A primary that is told to stop does so, whatever its target does.
    chain.link.silence();
    let acknowledged = clients.stop();
    let begun = Instant::now();
    chain.server.stop(Mode::Fast);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let kept = chain.restored();
    for row in &acknowledged {
        assert!(kept.contains(row), "{row:?} was acknowledged and is not there");
    }
}

#[test]
fn commits_run_ahead_of_what_is_stored_by_the_bound_and_no_further() {
    let chain = Chain::new("protection = \"near-sync\"\nprotection_bound = \"1MiB\"");
    // Slow enough for what they write in a while to stay within it.
    let clients = Clients::start_slowly(&chain.server, 2, Duration::from_millis(50));
    assert!(done_within(&clients, 10, SOON), "{}", chain.node.log());
    chain.link.silence();
    let_pass(Duration::from_millis(500));
    let stored = chain.receiver.end().unwrap().offset;
    // Within the bound they go on, also beyond the time after which a store that takes nothing is left.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        let before = clients.acknowledged().len();
        assert!(done_within(&clients, before, SOON), "commits go on within the bound\n{}", chain.node.log());
        let_pass(Duration::from_millis(500));
    }
    // Log that nobody waits for, more of it than the bound.
    for _ in 0..30 {
        chain.server.sql("select pg_logical_emit_message(false, 'far', repeat('x', 100000))");
    }
    let written: u64 =
        chain.server.sql("select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint").parse().unwrap();
    assert!(written > stored.get() + (2 << 20), "{written} {stored}");
    let_pass(Duration::from_millis(500));
    let before = clients.acknowledged().len();
    assert!(
        !done_within(&clients, before, Duration::from_secs(8)),
        "a commit was acknowledged beyond the bound"
    );
    chain.link.open();
    assert!(done_within(&clients, before + 10, SOON), "commits do not go on\n{}", chain.node.log());
}

/// The configuration's word is no evidence: what the primary is set to is.
#[test]
fn a_database_whose_commits_are_to_wait_is_not_called_so_while_its_primary_is_not_set_for_it() {
    let chain = Chain::unarmed("protection = \"strict\"");
    let state = || chain.node.status().map(|status| status["guard"]["state"].clone()).unwrap_or_default();
    let wait_state = |wanted: &str| {
        let told = wait_for(SOON, || (state() == wanted).then_some(()));
        assert!(told.is_some(), "{} in place of {wanted}\n{}", state(), chain.node.log());
    };
    wait_state("disarmed");
    assert_eq!(chain.node.run(&["status", "orders"]).status.code(), Some(8));
    chain.arm();
    wait_state("armed");
    assert_eq!(chain.node.run(&["status", "orders"]).status.code(), Some(0));
    chain
        .server
        .sql("alter system set synchronous_standby_names = 'ANY 1 (\"farshore orders/main\", other)'");
    chain.server.sql("select pg_reload_conf()");
    wait_state("hands_off");
    let status = chain.node.status().unwrap();
    assert!(status["guard"]["exposed_since"].is_string(), "{status}");
    chain.server.sql("alter system set synchronous_standby_names = ''");
    chain.server.sql("select pg_reload_conf()");
    wait_state("disarmed");
}

/// What is stored behind a lost base protects nothing until there is another.
#[test]
fn no_commit_is_acknowledged_before_there_is_a_base_backup_that_leads_to_it() {
    let mut chain = Chain::new("protection = \"strict\"");
    let clients = Clients::start(&chain.server, 2);
    assert!(done_within(&clients, 10, SOON), "{}", chain.node.log());
    chain.kill_shipper();
    let (_, reader) = chain.receiver.node().incarnations().pop().unwrap();
    let bases = chain
        .receiver
        .node()
        .folder()
        .join("journal")
        .join(reader.layout().root().to_string())
        .join("backups");
    std::fs::rename(&bases, chain.receiver.node().folder().join("lost")).unwrap();
    assert_eq!(chain.receiver.node().backups(), 0);
    let_pass(Duration::from_millis(500));
    let before = clients.acknowledged().len();
    chain.start_shipper();
    assert!(done_within(&clients, before, SOON), "commits do not go on\n{}", chain.node.log());
    assert!(chain.receiver.node().backups() >= 1, "acknowledged, and nothing could be restored");
}

/// Whoever is killed, and in whatever order they come back: what was acknowledged is in the receiver's directory.
#[test]
fn soak_acknowledged_commits_survive_whoever_is_killed() {
    let mut campaign = Campaign::start("acknowledged_commits_survive_whoever_is_killed");
    let mut chain = Chain::new("protection = \"strict\"");
    let (mut acknowledged, mut cycles) = (Vec::new(), 0);
    while campaign.next_round() {
        // A restore each time would be the whole of it: what is acknowledged adds up meanwhile.
        for _ in 0..if campaign.is_brief() { 2 } else { 5 } {
            let clients = Clients::continue_from(&chain.server, 4, &acknowledged);
            let before = acknowledged.len();
            assert!(done_within(&clients, before, SOON), "commits do not go on\n{}", chain.node.log());
            let_pass(Duration::from_millis(campaign.random.below(600)));
            match campaign.random.below(5) {
                0 => {
                    chain.kill_shipper();
                    let_pass(Duration::from_millis(campaign.random.below(300)));
                    chain.start_shipper();
                    campaign.count("killed_shippers", 1);
                }
                1 => {
                    chain.kill_receiver();
                    let_pass(Duration::from_millis(campaign.random.below(300)));
                    chain.start_receiver();
                    campaign.count("killed_receivers", 1);
                }
                2 => {
                    chain.link.cut();
                    let_pass(Duration::from_millis(campaign.random.below(300)));
                    chain.link.open();
                    campaign.count("cuts", 1);
                }
                3 => {
                    // All at once: what is left is the directory.
                    chain.kill_shipper();
                    chain.server.kill9();
                    chain.kill_receiver();
                    chain.start_receiver();
                    chain.server.start();
                    chain.start_shipper();
                    campaign.count("killed_all", 1);
                }
                _ => {
                    chain.server.kill9();
                    chain.server.start();
                    campaign.count("killed_primaries", 1);
                }
            }
            acknowledged = clients.stop();
            cycles += 1;
            campaign.count("cycles", 1);
        }
        // The receiver's directory alone: the primary and its shipper are gone for as long as it is read.
        let kept = chain.restored();
        let lost: Vec<_> = acknowledged.iter().filter(|row| kept.binary_search(row).is_err()).collect();
        assert!(lost.is_empty(), "cycle {cycles}: acknowledged and lost: {lost:?} of {}", acknowledged.len());
        campaign.count("restores", 1);
    }
    campaign.count("acknowledged", acknowledged.len() as u64);
    let verified = chain.receiver.node().run(&["-o", "json", "verify", "orders"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert!(all(&serde_json::from_slice(&verified.stdout).unwrap()).iter().all(|one| one["sound"] == true));
    campaign.finish();
}
