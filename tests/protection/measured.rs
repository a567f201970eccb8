//! What waiting costs: `strict` through a receiver on this machine beside `pg_receivewal --synchronous`, in turns.

use std::path::Path;
use std::time::Duration;

use farshore_testkit::pg::{Length, Major, Server};
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::soak::Campaign;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::Chain;
use crate::service::{Node, SOON};

const OURS: &str = "alter system set synchronous_standby_names = 'FIRST 1 (\"farshore orders/main\")'";
const THEIRS: &str = "alter system set synchronous_standby_names = 'FIRST 1 (receivewal)'";

/// What a load came to.
#[derive(Debug, Clone, Copy)]
struct Measured {
    per_second: f64,
    /// Of a transaction, in milliseconds.
    p50: f64,
    p99: f64,
}

/// `pgbench` as it comes, with the latency of each transaction.
fn load(server: &Server, clients: u32, length: Duration, rate: Option<u32>) -> Measured {
    let folder = farshore_testkit::user::tempdir();
    let prefix = folder.path().join("log").display().to_string();
    let rate = rate.map(|rate| rate.to_string());
    let mut arguments = vec!["-M", "prepared", "-l", "--log-prefix", &prefix];
    if let Some(rate) = &rate {
        arguments.extend(["-R", rate]);
    }
    let report = server.pgbench_with(clients, Length::For(length), &arguments).wait();
    // Source: pgbench's manual, "Per-Transaction Logging": client, number, microseconds, ...; with a rate they begin when the transaction was to.
    let mut micros: Vec<u64> = std::fs::read_dir(folder.path())
        .unwrap()
        .flat_map(|entry| {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            text.lines().filter_map(|line| line.split(' ').nth(2)?.parse().ok()).collect::<Vec<u64>>()
        })
        .collect();
    micros.sort_unstable();
    #[allow(clippy::cast_precision_loss)] // a figure for people
    let at = |part: usize| micros[(micros.len() - 1) * part / 100] as f64 / 1000.0;
    #[allow(clippy::cast_precision_loss)]
    let per_second = report.transactions as f64 / length.as_secs_f64();
    Measured { per_second, p50: at(50), p99: at(99) }
}

fn waits_for(server: &Server, statement: &str, standby: &str) {
    server.sql(statement);
    server.sql("select pg_reload_conf()");
    let waits = wait_for(SOON, || {
        let state = server.sql(&format!(
            "select sync_state from pg_stat_replication where application_name = '{standby}' and state = 'streaming'"
        ));
        (state == "sync").then_some(())
    });
    assert!(waits.is_some(), "{}", server.sql("select * from pg_stat_replication"));
}

fn receivewal(server: &Server, to: &Path) -> Owned {
    let mut command = server.client_command("pg_receivewal");
    command.args(["--synchronous", "--slot", "receivewal", "-D"]).arg(to);
    command.env("PGAPPNAME", "receivewal").env("PGDATABASE", "postgres");
    Owned::spawn(command, Signal::SIGINT)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Bytes of all files beneath a folder.
fn bytes_in(folder: &Path) -> u64 {
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.len(),
        // Gone since it was listed.
        Err(_) => 0,
    };
    std::fs::read_dir(folder).map_or(0, |entries| entries.flatten().map(of).sum())
}

/// One of the two that are compared, under load: at its peak, at 200 a second, and what it stored of each byte of log meanwhile.
fn loads(server: &Server, length: Duration, folder: &Path) -> (Measured, Measured, f64) {
    let written = || server.sql("select (pg_current_wal_lsn() - '0/0')::bigint").parse::<u64>().unwrap();
    let (before, log) = (bytes_in(folder), written());
    let (peak, steady) = (load(server, 8, length, None), load(server, 8, length, Some(200)));
    #[allow(clippy::cast_precision_loss)]
    let share = (bytes_in(folder) - before) as f64 / (written() - log) as f64;
    (peak, steady, share)
}

/// Prints what was measured, in turns; asserts only that something was. `FARSHORE_LOAD_SECONDS` is the length of each load.
fn beside_receivewal(name: &'static str, server: &Server, node: &Node, journal: &Path) {
    let mut campaign = Campaign::start(name);
    let seconds = crate::service::count("FARSHORE_LOAD_SECONDS", 2);
    let length = Duration::from_secs(seconds);
    server.pgbench_init(5);
    server.sql("select pg_create_physical_replication_slot('receivewal', true)");
    let place: TempDir = farshore_testkit::user::tempdir();
    let (mut ratios, mut tails, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let waits_for_nobody = || {
        server.sql("alter system reset synchronous_standby_names");
        server.sql("select pg_reload_conf()");
    };
    while campaign.next_round() {
        for _ in 0..if campaign.is_brief() { 1 } else { 5 } {
            let shipper = node.start(None);
            waits_for(server, OURS, "farshore orders/main");
            let (peak, steady, share) = loads(server, length, journal);
            waits_for_nobody();
            shipper.stop();

            let receiving = receivewal(server, place.path());
            waits_for(server, THEIRS, "receivewal");
            let (their_peak, their_steady, their_share) = loads(server, length, place.path());
            waits_for_nobody();
            drop(receiving);
            println!(
                "strict {:.0}/s, at 200/s p50 {:.1} p99 {:.1} ms; {share:.2} bytes stored for one of log; pg_receivewal {:.0}/s, at 200/s p50 {:.1} p99 {:.1} ms, {their_share:.2} bytes",
                peak.per_second,
                steady.p50,
                steady.p99,
                their_peak.per_second,
                their_steady.p50,
                their_steady.p99
            );
            assert!(peak.per_second > 0.0 && their_peak.per_second > 0.0);
            ratios.push(peak.per_second / their_peak.per_second);
            tails.push(steady.p99 / their_steady.p99);
            shares.push(share / their_share);
            campaign.count("pairs", 1);
        }
        if campaign.is_brief() {
            break;
        }
    }
    println!(
        "throughput {:.2} of pg_receivewal's, p99 at 200/s {:.2} of its, stored bytes of each of log {:.2} of its",
        median(ratios),
        median(tails),
        median(shares)
    );
    campaign.finish();
}

/// Through a receiver, without a way between that a test could cut: it would be measured too.
#[test]
fn soak_waiting_beside_receivewal() {
    let mut chain = Chain::unarmed("protection = \"strict\"");
    chain.shipper.take().unwrap().stop();
    let address = chain.running.as_ref().unwrap().address();
    chain.node.configure(|text| text.replace(&chain.link.address().to_string(), &address.to_string()));
    let journal = chain.receiver.node().folder().join("journal");
    beside_receivewal("waiting_beside_receivewal", &chain.server, &chain.node, &journal);
}

/// Into a directory of the same machine.
#[test]
fn soak_waiting_for_a_directory_beside_receivewal() {
    let server = Server::start_new(Major::V15);
    let node = Node::new(&[&server]);
    node.configure(|text| text.replace("flush_interval = \"200ms\"\n", "protection = \"strict\"\n"));
    let shipper = node.start(None);
    node.wait_backup(1);
    shipper.stop();
    let journal = node.folder().join("journal");
    beside_receivewal("waiting_for_a_directory_beside_receivewal", &server, &node, &journal);
}
