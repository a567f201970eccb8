//! Two shippers of one database whose commits wait: one of them is frozen, and thawed when the other has taken over.

use std::time::Duration;

use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use nix::sys::signal::Signal;

use crate::clients::Clients;
use crate::rig::SHIPPER;
use crate::service::{Node, SOON, let_pass, the_first_lost};
use crate::{Chain, done_within};

/// One is frozen, another starts, the first is thawed; perhaps the primary dies meanwhile. Whether the first one lost. The one that is left is stopped.
fn freeze_and_thaw(chain: &mut Chain, second: &Node, primary_dies: bool, random: &mut Random) -> bool {
    let mut frozen = chain.shipper.take().unwrap();
    let_pass(Duration::from_millis(random.below(800)));
    frozen.process.signal(Signal::SIGSTOP);
    let mut other = second.start(None);
    let_pass(Duration::from_millis(random.below(2500)));
    if primary_dies {
        chain.server.kill9();
        let_pass(Duration::from_millis(random.below(300)));
        frozen.process.signal(Signal::SIGCONT);
        chain.server.start();
    } else {
        frozen.process.signal(Signal::SIGCONT);
    }
    let first_lost = the_first_lost(&mut frozen, &mut other);
    // Whichever it is, commits go on through it.
    let clients = Clients::start(&chain.server, 2);
    assert!(done_within(&clients, 5, SOON), "commits do not go on\n{}\n--\n{}", frozen.log(), other.log());
    drop(clients);
    if first_lost {
        other.stop()
    } else {
        frozen.stop()
    }
    first_lost
}

/// Whoever of two wins, and whatever the primary does: one journal, the loser stops, and what was acknowledged is in it.
#[test]
fn soak_two_shippers_of_commits_that_wait() {
    let mut campaign = Campaign::start("two_shippers_of_commits_that_wait");
    let mut chain = Chain::new("protection = \"strict\"");
    let second = Node::new(&[&chain.server]);
    chain.receiver.equip(&second, SHIPPER, &[chain.link.address()]);
    second.configure(|text| text.replace("flush_interval = \"200ms\"\n", "protection = \"strict\"\n"));
    let mut acknowledged = Vec::new();
    while campaign.next_round() {
        for _ in 0..if campaign.is_brief() { 1 } else { 5 } {
            if chain.shipper.is_none() {
                chain.start_shipper();
            }
            let clients = Clients::continue_from(&chain.server, 4, &acknowledged);
            assert!(done_within(&clients, acknowledged.len() + 5, SOON), "{}", chain.node.log());
            let primary_dies = campaign.random.below(2) == 0;
            let first_lost = freeze_and_thaw(&mut chain, &second, primary_dies, &mut campaign.random);
            acknowledged = clients.stop();
            campaign.count("schedules", 1);
            campaign.count("frozen_lost", u64::from(first_lost));
            campaign.count("killed_primaries", u64::from(primary_dies));
        }
        let kept = chain.restored();
        let lost: Vec<_> = acknowledged.iter().filter(|row| kept.binary_search(row).is_err()).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?} of {}", acknowledged.len());
        campaign.count("restores", 1);
    }
    campaign.count("acknowledged", acknowledged.len() as u64);
    assert_eq!(chain.receiver.node().incarnations().len(), 1, "{}", chain.node.log());
    let verified = chain.receiver.node().run(&["-o", "json", "verify", "orders"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    campaign.finish();
}
