//! `near-sync`, whoever dies: how far what was acknowledged ran ahead of what is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use farshore_testkit::soak::Campaign;

use crate::clients::Clients;
use crate::service::{SOON, let_pass};
use crate::{Chain, done_within};

const BOUND: u64 = 256 << 10;
/// A commit ends so much log behind its row's at most: both are of one statement, beside three others.
const COMMIT: u64 = 64 << 10;

/// Where the log was when each row was written, as the primary has it.
fn written(chain: &Chain) -> BTreeMap<(u32, u32), u64> {
    let text = chain.server.sql("select client, n, (at - '0/0')::bigint from kept");
    let row = |line: &str| {
        let [client, n, at] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
        ((client.parse().unwrap(), n.parse().unwrap()), at.parse().unwrap())
    };
    text.lines().map(row).collect()
}

/// The primary and its shipper die at any moment, the receiver perhaps, while the way between them is open, silent or cut: what was acknowledged lies within the bound behind what the
/// receiver's directory has, and a restore has all before.
#[test]
fn soak_no_more_than_the_bound_is_lost() {
    let mut campaign = Campaign::start("no_more_than_the_bound_is_lost");
    let mut chain = Chain::new("protection = \"near-sync\"\nprotection_bound = \"256KiB\"");
    chain.server.sql("alter table kept add at pg_lsn default pg_current_wal_insert_lsn()");
    let (mut acknowledged, mut furthest) = (Vec::new(), 0);
    while campaign.next_round() {
        for cycle in 1..=if campaign.is_brief() { 1 } else { 5 } {
            let clients = Clients::continue_from(&chain.server, 4, &acknowledged);
            assert!(done_within(&clients, acknowledged.len() + 5, SOON), "{}", chain.node.log());
            let_pass(Duration::from_millis(campaign.random.below(400)));
            match campaign.random.below(4) {
                0 => {}
                1 => chain.link.cut(),
                _ => chain.link.silence(),
            }
            // Log that nobody waits for brings it near to the bound at once.
            for _ in 0..campaign.random.below(4) {
                chain.server.sql("select pg_logical_emit_message(false, 'far', repeat('x', 60000))");
            }
            let_pass(Duration::from_millis(campaign.random.below(1500)));
            let receiver_dies = campaign.random.below(3) == 0;
            if receiver_dies {
                chain.kill_receiver();
            }
            if campaign.random.below(2) == 0 {
                chain.kill_shipper();
                let_pass(Duration::from_millis(campaign.random.below(30)));
                chain.server.kill9();
            } else {
                chain.server.kill9();
                let_pass(Duration::from_millis(campaign.random.below(30)));
                chain.kill_shipper();
            }
            acknowledged = clients.stop();
            let stored = chain.receiver.end().unwrap().offset.get();
            chain.server.start();
            let written = written(&chain);
            let beyond: Vec<u64> =
                acknowledged.iter().map(|row| written[row]).filter(|at| *at >= stored).collect();
            let ahead = beyond.iter().max().map_or(0, |at| at - stored);
            assert!(ahead <= BOUND, "{ahead} bytes were acknowledged behind {stored}\n{}", chain.node.log());
            furthest = furthest.max(ahead);
            if cycle == 1 {
                let kept = chain.restored();
                let lost: Vec<_> =
                    acknowledged.iter().filter(|row| kept.binary_search(row).is_err()).collect();
                assert!(lost.iter().all(|row| written[row] + COMMIT > stored), "{lost:?} of {stored}");
                campaign.count("restores", 1);
                campaign.count("lost", lost.len() as u64);
            }
            chain.link.open();
            if receiver_dies {
                chain.start_receiver();
            }
            chain.start_shipper();
            campaign.count("cycles", 1);
            campaign.count("killed_receivers", u64::from(receiver_dies));
            campaign.count("beyond", beyond.len() as u64);
        }
    }
    println!("at most {furthest} bytes of {BOUND} were acknowledged and not stored");
    campaign.count("acknowledged", acknowledged.len() as u64);
    campaign.finish();
}
