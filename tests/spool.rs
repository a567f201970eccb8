//! The promise: log that the primary lets go because the spool has it reaches every store, whatever dies meanwhile; and none of it is called stored before it is.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::path::{Path, PathBuf};

use farshore_journal::Offset;
use farshore_testkit::pg::{Builder, Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::stores::Moto;
use farshore_testkit::user;
use service::proxy::{Faults, Proxy};
use service::{CONTENT, Node, SOON, Service, flushed};

const KEEP: &str = "farshore_orders_keep";
const MIB: u64 = 1 << 20;

/// A server with segments of 1 MiB that recycles its log as soon as nothing holds it.
fn forgetful() -> Builder {
    Server::builder(Major::V15)
        .wal_segment_size(1)
        .conf("wal_keep_size = 0")
        .conf("max_wal_size = 4MB")
        .conf("min_wal_size = 2MB")
}

/// A directory for a spool, below the node's own folder.
fn directory(node: &Node, name: &str) -> PathBuf {
    let place = node.folder().join(name);
    std::fs::create_dir(&place).unwrap();
    user::give(&place);
    place
}

/// Gives the database a spool there.
fn spool(node: &Node, place: &Path, limit: &str, more: &str) {
    let place = place.display();
    node.configure(|text| {
        format!("{text}\n[databases.orders.spool]\ndirectory = \"{place}\"\nlimit = \"{limit}\"\nabove = \"1MiB\"\n{more}\n")
    });
}

/// Writes `rounds` times some 2 MiB of log, and lets the server forget what it may.
fn churn(server: &Server, rounds: usize) {
    server.sql("create table if not exists filler(n int)");
    for _ in 0..rounds {
        server.sql("insert into filler select generate_series(1, 20000); checkpoint");
    }
}

/// Bytes of log in the server's folder.
fn kept_by(server: &Server) -> u64 {
    server.sql("select sum(size) from pg_ls_waldir()").parse().unwrap()
}

fn slot(server: &Server) -> Offset {
    let asked = format!("select restart_lsn from pg_replication_slots where slot_name = '{KEEP}'");
    server.sql(&asked).parse().unwrap()
}

/// The segments in a spool.
fn segments(place: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in std::fs::read_dir(place).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let files = std::fs::read_dir(folder.path()).unwrap().flatten();
        names.extend(files.map(|file| file.file_name().into_string().unwrap()));
    }
    names.sort();
    names
}

/// Waits until the primary keeps little, though no store took anything.
fn wait_let_go(server: &Server, node: &Node) {
    let little = wait_for(SOON, || {
        server.sql("checkpoint");
        let behind = flushed(server).bytes_since(slot(server)).unwrap();
        (behind <= 6 * MIB && kept_by(server) <= 16 * MIB).then_some(())
    });
    assert!(
        little.is_some(),
        "{} at {}, {} bytes\n{}",
        slot(server),
        flushed(server),
        kept_by(server),
        node.log()
    );
}

/// All of it came, once, without a gap, into one incarnation; a restore has what the server has.
fn proven(node: &Node, server: &Server) {
    node.wait_end(1, flushed(server));
    let verified = node.json(&["verify"]);
    let shown = service::first(&verified);
    assert_eq!(shown["sound"], true, "{verified}");
    assert_eq!(shown["gaps"].as_array().map(Vec::len), Some(0), "{verified}\n{}", node.log());
    assert_eq!(node.incarnations().len(), 1, "{}", node.log());
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
}

/// A primary with content, and a node that ships it to a store that can be taken away, and has a spool.
struct Story {
    server: Server,
    node: Node,
    place: PathBuf,
    proxy: Proxy,
    _moto: Moto,
}

impl Story {
    fn new(limit: &str, more: impl FnOnce(&Node) -> String) -> Self {
        let server = forgetful().start();
        server.pgbench_init(1);
        let moto = Moto::start();
        let proxy = Proxy::before(&moto.endpoint(), 7);
        let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
        let place = directory(&node, "spool");
        let more = more(&node);
        spool(&node, &place, limit, &more);
        Self { server, node, place, proxy, _moto: moto }
    }

    /// Starts a service, and waits until all is well.
    fn begin(&self) -> Service {
        let service = self.node.start(None);
        self.node.wait_backup(1);
        self.node.wait_end(1, flushed(&self.server));
        service
    }

    fn take_the_store_away(&self) {
        self.proxy.set(Faults { refuse: 100, ..Faults::default() });
    }

    fn give_it_back(&self) {
        self.proxy.set(Faults::default());
    }
}

#[test]
fn what_a_store_that_is_away_lacks_is_let_go_at_the_primary_and_comes_from_the_spool() {
    let story = Story::new("200MiB", |_| String::new());
    let Story { server, node, place, .. } = &story;
    let service = story.begin();
    story.take_the_store_away();
    churn(server, 20);
    wait_let_go(server, node);
    let held = segments(place).len();
    assert!(held > 20, "{held} segments\n{}", node.log());
    // Nothing of it is called stored.
    let status = node.status().unwrap();
    let stored: Offset = status["stored"].as_str().unwrap().parse().unwrap();
    assert!(flushed(server).bytes_since(stored).unwrap() > 20 * MIB, "{status}");

    // It dies, and begins with every store away.
    service.kill9();
    churn(server, 4);
    let service = node.start(None);
    churn(server, 10);
    wait_let_go(server, node);
    assert!(segments(place).len() > held + 10, "{}", node.log());

    story.give_it_back();
    proven(node, server);
    let empty = wait_for(SOON, || (segments(place).len() <= 4).then_some(()));
    assert!(empty.is_some(), "{:?}\n{}", segments(place), node.log());
    node.wait_connected();
    // A primary that is stopped does not wait for it.
    server.stop(Mode::Fast);
    service.stop();
}
