//! Every supported major, and the smallest and a large segment size: run, base backup, load, restore to a commit, rows exact.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was counted is read in the output

mod support;

use farshore_testkit::pg::{Length, Major, Server};
use support::{Service, numbers, offset};

const INSERT: &str = "insert into ledger values (pg_current_xact_id()::text::bigint) returning xid";
const LEDGER: &str = "select xid from ledger";

/// The primary's own words are the oracle here: what it showed when it had committed one row and not yet the next.
fn a_commit_comes_back_exactly(server: &Server) {
    server.sql("create table ledger (xid bigint primary key)");
    server.pgbench_init(1);
    let mut service = Service::with_base(server);
    let _before = server.pgbench(2, Length::Transactions(100)).wait();
    for _ in 0..5 {
        server.sql(INSERT);
    }
    let target = server.sql(INSERT);
    let then = server.sql(LEDGER);
    let sums = "select count(*), coalesce(sum(delta), 0) from pgbench_history";
    let history = server.sql(sums);
    let at = server.sql("select pg_current_wal_lsn()");
    let _behind = server.pgbench(2, Length::Transactions(100)).wait();
    server.sql("select pg_switch_wal()");
    server.sql(INSERT);
    service.wait_stored(&server.sql("select pg_current_wal_flush_lsn()"));

    let copy = service.restore(&["--xid", &target], &[]);
    assert!(copy.numbers(LEDGER) == numbers(&then), "{}", copy.plan);
    assert_eq!(copy.sql(sums), history);
    assert!(offset(copy.plan["resolved"]["position"].as_str().unwrap()) <= offset(&at));
    drop(copy);
    let latest = service.restore(&["--latest"], &["--then", "promote"]);
    assert!(latest.numbers(LEDGER) == numbers(&server.sql(LEDGER)));
    assert_eq!(latest.sql(sums), server.sql(sums));
    latest.sql("insert into ledger values (0)");
    drop(latest);
    service.stop();
    service.verify();
}

#[test]
fn postgresql_14_comes_back_to_a_commit() {
    a_commit_comes_back_exactly(&Server::start_new(Major::V14));
}

#[test]
fn postgresql_16_comes_back_to_a_commit() {
    a_commit_comes_back_exactly(&Server::start_new(Major::V16));
}

#[test]
fn postgresql_17_comes_back_to_a_commit() {
    a_commit_comes_back_exactly(&Server::start_new(Major::V17));
}

#[test]
fn postgresql_18_comes_back_to_a_commit() {
    a_commit_comes_back_exactly(&Server::start_new(Major::V18));
}

#[test]
fn segments_of_1_mib_come_back_to_a_commit() {
    a_commit_comes_back_exactly(&Server::builder(Major::V15).wal_segment_size(1).start());
}

#[test]
fn segments_of_64_mib_come_back_to_a_commit() {
    a_commit_comes_back_exactly(&Server::builder(Major::V15).wal_segment_size(64).start());
}
