//! The network between primary, shipper and receiver does its worst: what is called stored is there, silence is noticed, and all catches up.

use std::time::{Duration, Instant};

use farshore_journal::Offset;
use farshore_testkit::link::Link;
use farshore_testkit::process::{let_pass, wait_for};
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use serde_json::Value;

use crate::clients::Clients;
use crate::service::SOON;
use crate::{Chain, done_within};

/// By when at the latest `status` must have noticed that nothing arrives.
const NOTICED: Duration = Duration::from_secs(15);
const PROTECTIONS: [&str; 3] = [
    "protection = \"async\"",
    "protection = \"near-sync\"\nprotection_bound = \"256KiB\"",
    "protection = \"strict\"",
];

/// A chain whose primary is behind a way of its own.
struct Network {
    chain: Chain,
    to_primary: Link,
}

impl Network {
    fn new(protection: &str) -> Self {
        let mut chain = Chain::unarmed(protection);
        let url = chain.server.url();
        let (_, place) = url.rsplit_once('@').unwrap();
        let (address, _) = place.split_once('/').unwrap();
        let to_primary = Link::to(address.parse().unwrap());
        chain.node.configure(|text| text.replace(address, &to_primary.address().to_string()));
        chain.kill_shipper();
        chain.start_shipper();
        if !protection.contains("async") {
            chain.arm();
        }
        Self { chain, to_primary }
    }

    fn written(&self) -> Offset {
        self.chain.server.sql("select pg_current_wal_flush_lsn()").parse().unwrap()
    }

    /// What `status` says; what it calls stored is in the directory.
    fn status(&self) -> Option<Value> {
        let status = self.chain.node.status()?;
        let claimed = status["stored"].as_str().map(|text| text.parse::<Offset>().unwrap());
        let there = self.chain.receiver.end().map(|end| end.offset);
        assert!(claimed <= there, "called stored up to {claimed:?}, and there up to {there:?}: {status}");
        Some(status)
    }

    /// Whether `status` says that something is wrong, or how far it is behind.
    fn is_noticed(&self, silent_for: Duration) -> bool {
        let Some(status) = self.status() else { return true };
        let lag = status["ship_lag_seconds"].as_f64();
        status["state"] != "connected" || lag.is_none_or(|lag| lag * 2.0 > silent_for.as_secs_f64())
    }

    fn fault(&self, random: &mut Random) -> &'static str {
        let link = if random.below(2) == 0 { &self.to_primary } else { &self.chain.link };
        match random.below(5) {
            0 => {
                link.cut();
                "cuts"
            }
            1 => {
                link.deafen();
                "deaf"
            }
            2 => {
                link.slow(20_000);
                "slow"
            }
            _ => {
                link.silence();
                "silences"
            }
        }
    }
}

/// Whatever the network does, and for however long: no false word, and everything catches up.
#[test]
fn soak_networks() {
    let mut campaign = Campaign::start("networks");
    let protection = PROTECTIONS[usize::try_from(campaign.random.below(3)).unwrap()];
    let network = Network::new(protection);
    let mut acknowledged = Vec::new();
    while campaign.next_round() {
        for cycle in 0..if campaign.is_brief() { 1 } else { 5 } {
            let clients = Clients::continue_from(&network.chain.server, 2, &acknowledged);
            assert!(done_within(&clients, acknowledged.len() + 5, SOON), "{}", network.chain.node.log());
            let fault = network.fault(&mut campaign.random);
            let begun = Instant::now();
            // One of them is long enough to be noticed.
            let long = cycle == 1 && fault != "slow";
            let lasts = if long { NOTICED } else { Duration::from_millis(campaign.random.below(7000)) };
            while begun.elapsed() < lasts {
                network.status();
                let_pass(Duration::from_millis(200));
            }
            if long {
                let noticed =
                    wait_for(Duration::from_secs(5), || network.is_noticed(begun.elapsed()).then_some(()));
                let status = network.status();
                assert!(
                    noticed.is_some(),
                    "{fault} for {:?}: {status:?}\n{}",
                    begun.elapsed(),
                    network.chain.node.log()
                );
                campaign.count("noticed", 1);
            }
            network.to_primary.open();
            network.chain.link.open();
            let before = clients.acknowledged().len();
            assert!(
                done_within(&clients, before, SOON),
                "{protection}, {fault}: commits do not go on\n{}",
                network.chain.node.log()
            );
            acknowledged = clients.stop();
            let end = network.written();
            let caught_up = wait_for(SOON, || {
                network.status();
                (network.chain.receiver.end()?.offset >= end).then_some(())
            });
            assert!(caught_up.is_some(), "{protection}, {fault}: {end}\n{}", network.chain.node.log());
            campaign.count("cycles", 1);
            campaign.count(fault, 1);
        }
        let kept = network.chain.restored();
        let lost: Vec<_> = acknowledged.iter().filter(|row| kept.binary_search(row).is_err()).collect();
        assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
        campaign.count("restores", 1);
    }
    campaign.count("acknowledged", acknowledged.len() as u64);
    assert_eq!(network.chain.receiver.node().incarnations().len(), 1, "{}", network.chain.node.log());
    println!("under {protection:?}");
    campaign.finish();
}
