//! Standbys under load, of each major: what they hold is what the primary holds at the same position, and how soon a commit is seen there.

use std::time::{Duration, Instant};

use farshore_testkit::pg::{Length, Major, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::soak::Campaign;
use farshore_testkit::user;

use crate::rig::{Receiver, SHIPPER};
use crate::service::{Node, SOON, count, flushed, wait};
use crate::{Copy, PASSWORD, is_listed, port, port_in, serve, serving};

/// Every table of the load, row by row.
const CONTENT: &str = "select (select md5(string_agg(t::text, '' order by aid)) from pgbench_accounts t), \
                       (select md5(string_agg(t::text, '' order by t::text)) from pgbench_history t), \
                       (select md5(string_agg(t::text, '' order by tid)) from pgbench_tellers t), \
                       (select md5(string_agg(t::text, '' order by id)) from probe t)";

#[test]
fn soak_standbys_follow_a_journal_under_load() {
    let mut campaign = Campaign::start("standbys_follow_a_journal_under_load");
    let seconds = count("FARSHORE_LOAD_SECONDS", 5);
    let majors = Major::all();
    // Which comes first is chance: a normal run has one.
    let mut next = campaign.random.below(majors.len() as u64) as usize;
    while campaign.next_round() {
        let major = majors[next % majors.len()];
        next += 1;
        let by = if campaign.random.below(2) == 0 { By::Directory } else { By::Receiver };
        let (transactions, mut lags) = followed(major, by, Duration::from_secs(seconds));
        lags.sort();
        let at = |share: usize| lags[(lags.len() * share / 100).min(lags.len() - 1)].as_millis();
        println!(
            "PostgreSQL {major}, {by:?}: {transactions} transactions in {seconds} s, seen after (ms) p50 {} p99 {} most {} of {}",
            at(50),
            at(99),
            at(100),
            lags.len()
        );
        campaign.count("transactions", transactions);
        campaign.count("commits_watched", lags.len() as u64);
        campaign.count("seconds_of_load", seconds);
    }
    campaign.finish();
}

/// Where the journal is that the standby follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// In a directory, and whoever ships it serves it.
    Directory,
    /// In a receiver's, which serves it.
    Receiver,
}

/// How many transactions there were, and how soon some of their commits were seen.
fn followed(major: Major, by: By, length: Duration) -> (u64, Vec<Duration>) {
    let primary = Server::start_new(major);
    primary.sql("create table probe (id bigint primary key)");
    primary.pgbench_init(2);
    let own = Major::V15.bin().display().to_string();
    let bin = |text: String| text.replace(&own, &major.bin().display().to_string());
    let receiver = (by == By::Receiver).then(Receiver::new);
    let receives = receiver.as_ref().map(|receiver| {
        serve(receiver.node(), "");
        receiver.node().configure(bin);
        receiver.start()
    });
    let node = match (&receiver, &receives) {
        (Some(receiver), Some(receives)) => {
            let node = Node::new(&[&primary]);
            receiver.equip(&node, SHIPPER, &[receives.address()]);
            node.configure(|text| text.replace("flush_interval = \"200ms\"\n", ""));
            node
        }
        _ => serving(&primary, ""),
    };
    node.configure(bin);
    let service = node.start(None);
    // Whoever serves it knows the standby.
    let (stands, port) = match (&receiver, &receives) {
        (Some(receiver), Some(receives)) => {
            receiver.wait_backup(&node);
            receiver.wait_end(flushed(&primary));
            (receiver.node(), port_in(&|| receives.log()))
        }
        _ => {
            node.wait_backup(1);
            node.wait_end(1, flushed(&primary));
            (&node, port(&service))
        }
    };
    let copy = Copy { place: user::tempdir() };
    let data = copy.data().display().to_string();
    let server = format!("host=127.0.0.1 port={port} user=far password='{PASSWORD}' sslmode=disable");
    let made =
        stands.run(&["standby", "create", "orders", "--to", &data, "--name", "oslo", "--server", &server]);
    assert!(made.status.success(), "{made:?}\n{}", stands.log());
    let standby = Server::on_data_dir(major, &copy.data());
    standby.start();
    is_listed(stands, |shown| shown["state"] == "streaming");
    let load = primary.pgbench_with(4, Length::For(length), &["-R", "200"]);
    let lags = wait(probe(&primary, &standby, length));
    let report = load.wait();
    let end = flushed(&primary);
    let caught_up = is_listed(stands, |shown| shown["lag_bytes"] == 0 && shown["state"] == "streaming");
    let replayed = format!("select pg_last_wal_replay_lsn() >= '{end}'");
    let has = wait_for(SOON, || (standby.sql(&replayed) == "t").then_some(()));
    assert!(has.is_some(), "{end}: {}\n{}", standby.sql("select pg_last_wal_replay_lsn()"), standby.log());
    assert_eq!(standby.sql(CONTENT), primary.sql(CONTENT), "PostgreSQL {major}: {caught_up}");
    service.stop();
    (report.transactions, lags)
}

/// Commits, and looks when each is seen on the standby.
async fn probe(primary: &Server, standby: &Server, length: Duration) -> Vec<Duration> {
    let (writes, reads) = (primary.connect().await, standby.connect().await);
    let (began, mut lags) = (Instant::now(), Vec::new());
    for id in 1_i64.. {
        if began.elapsed() >= length {
            break;
        }
        writes.execute("insert into probe values ($1)", &[&id]).await.unwrap();
        let committed = Instant::now();
        while reads.query_one("select max(id) from probe", &[]).await.unwrap().get::<_, Option<i64>>(0)
            < Some(id)
        {
            assert!(
                committed.elapsed() < Duration::from_secs(60),
                "commit {id} is not seen:\n{}",
                standby.log()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        lags.push(committed.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lags
}
