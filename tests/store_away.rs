//! The promise: a store that is away is waited for. It is never founded anew, and nothing is let go of against an empty one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use service::{CONTENT, Node, SOON, flushed};

/// Where the slots stand that keep the log for the node.
fn kept(server: &Server) -> String {
    server
        .sql("select string_agg(slot_name || restart_lsn, ',' order by slot_name) from pg_replication_slots")
}

#[test]
fn a_store_that_comes_back_under_the_running_service_is_gone_on_with() {
    let server = Server::start_new(Major::V15);
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    let (place, away) = (node.folder().join("journal"), node.folder().join("journal-on-its-disk"));
    std::fs::rename(&place, &away).unwrap();
    let stood = kept(&server);
    server.sql("create table meanwhile as select generate_series(1, 100000) as n; select pg_switch_wal()");

    // The directory is not there at all, as with a mount point that the mount's own disk held.
    let service = node.start(None);
    service.wait_log("the store itself is not there");
    assert_eq!(service.readyz().0, 503);
    assert!(!place.exists(), "{}", node.log());

    // The mount point is there, and empty.
    std::fs::create_dir(&place).unwrap();
    user::give(&place);
    service.wait_log("the store is away: it holds no store");
    assert_eq!(service.readyz().0, 503);
    assert!(!place.join("farshore.store").exists(), "{}", node.log());
    assert_eq!(kept(&server), stood, "no slot moves against an empty store");

    // It comes back under the running service.
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    node.wait_end(1, flushed(&server));
    let ready = wait_for(SOON, || (service.readyz().0 == 200).then_some(()));
    assert!(ready.is_some(), "{}", node.log());
    service.stop();
    assert_eq!(node.incarnations().len(), 1);
    let verified = node.json(&["verify"]);
    assert_eq!(service::first(&verified)["gaps"].as_array().map(Vec::len), Some(0), "{verified}");
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
}

#[test]
fn a_store_that_lost_the_database_is_not_begun_again_after_a_failover_either() {
    let server = Server::start_new(Major::V15);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    let known = wait_for(SOON, || node.status().filter(|status| status["stored"].is_string()));
    assert!(known.is_some(), "{}", node.log());
    service.stop();
    // The store is there, and what it held of the database is not; the new primary has no slots of the old one.
    let database = node.folder().join("journal/db/orders");
    std::fs::rename(&database, node.folder().join("orders-aside")).unwrap();
    server.sql(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like '%live%'",
    );
    let service = node.start(None);
    service.wait_log("the store is away: it holds nothing of this database");
    assert!(!database.exists(), "{}", node.log());
    service.stop();
}
