//! A server that keeps little log, and loses what its slots want when it is told to.

use std::time::Duration;

use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::wait_for;

/// A server that recycles its log as soon as no slot holds it. Until [`lose`] the slots hold all that they want: on a busy machine
/// the log switches of a base backup alone would outrun a small limit.
pub fn server() -> Server {
    Server::builder(Major::V15).conf("max_wal_size = 48MB").conf("min_wal_size = 32MB").start()
}

/// Writes twelve segments that nobody ships, and lets the slots lose them. From then on the slots hold again what they want, so that
/// this stays the only loss.
pub fn lose(server: &Server) {
    limit(server, "16MB");
    for _ in 0..12 {
        server.sql(
            "create table if not exists filler(n int); insert into filler select generate_series(1, 200000);
             select pg_switch_wal(); checkpoint",
        );
    }
    let lost = server.sql("select count(*) from pg_replication_slots where wal_status = 'lost'");
    assert_eq!(lost, "2", "{}", server.sql("select * from pg_replication_slots"));
    limit(server, "-1");
}

fn limit(server: &Server, size: &str) {
    server.sql(&format!("alter system set max_slot_wal_keep_size = '{size}'"));
    server.reload();
    let shown = || server.sql("select current_setting('max_slot_wal_keep_size')");
    let taken = wait_for(Duration::from_secs(10), || (shown() == size).then_some(()));
    assert!(taken.is_some(), "max_slot_wal_keep_size is {}", shown());
}
