//! Several services on one catalog.

use std::collections::BTreeMap;

use farshore_testkit::process::wait_for;
use farshore_testkit::soak::Campaign;

use crate::service::{Node, SOON};
use crate::{list, queue, shipped, show};

/// How often each job was begun, from what the services said.
fn begun(node: &Node) -> BTreeMap<String, u64> {
    let mut begun = BTreeMap::new();
    for line in node.log().lines().filter(|line| line.contains("a job begins")) {
        let id = line.split("job=").nth(1).unwrap().split_whitespace().next().unwrap();
        *begun.entry(id.to_owned()).or_insert(0) += 1;
    }
    begun
}

/// Two services on one catalog in PostgreSQL do each of many jobs once; what a killed one had begun the other does.
///
/// Method: both have the same configuration, so that one ships and the other waits for the journal's lock of this machine; both do jobs.
#[test]
fn soak_jobs_of_two_services() {
    let mut campaign = Campaign::start("jobs_of_two_services");
    let (server, node) = shipped();
    server.sql("create database catalog");
    let url = format!("postgresql://postgres@127.0.0.1:{}/catalog", server.port());
    node.configure(|text| format!("[catalog]\nurl = \"{url}\"\n{text}"));
    let count = if campaign.is_brief() { 10 } else { 200 };
    while campaign.next_round() {
        let jobs: Vec<String> = (0..count).map(|_| queue(&node, &["verify", "orders"])).collect();
        let before = begun(&node);
        let (one, other) = (node.start(None), node.start(None));
        let both = wait_for(SOON, || {
            let begun = begun(&node).len() - before.len();
            (begun >= 3).then_some(())
        });
        assert!(both.is_some(), "{}", node.log());
        let killed = campaign.random.below(2) == 0;
        let (gone, stays) = if campaign.random.below(2) == 0 { (one, other) } else { (other, one) };
        let gone = match killed {
            true => {
                gone.kill9();
                None
            }
            false => Some(gone),
        };
        let (mut left, mut ended) = (jobs.clone(), Vec::new());
        let all = wait_for(SOON * 4, || {
            while let Some(job) =
                left.last().map(|id| show(&node, id)).filter(|job| job["state"] == "succeeded")
            {
                ended.push(job);
                left.pop();
            }
            left.is_empty().then_some(())
        });
        assert!(all.is_some(), "{:?}\n{}", list(&node), node.log());
        let begun = begun(&node);
        let mut moved = 0;
        for job in &ended {
            let attempts = job["attempt"].as_u64().unwrap();
            // One that was killed between its claim and its word of it had not begun.
            let said = begun.get(job["id"].as_str().unwrap()).copied().unwrap_or_default();
            assert!(said == attempts || (killed && said + 1 == attempts), "{job}: begun {said} times");
            assert!(attempts == 1 || (killed && attempts == 2), "{job}");
            moved += attempts - 1;
        }
        assert!(moved <= 2, "no service has more than two jobs at a time: {moved}");
        campaign.count("jobs", count);
        campaign.count("kills", u64::from(killed));
        campaign.count("moved", moved);
        stays.stop();
        if let Some(gone) = gone {
            gone.stop();
        }
    }
    campaign.finish();
}
