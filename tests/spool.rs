//! The promise: log that the primary lets go because the spool has it reaches every store, whatever dies meanwhile; and none of it is called stored before it is.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what could not be checked is said

mod service;

use std::path::{Path, PathBuf};
use std::time::Duration;

use farshore_journal::Offset;
use farshore_testkit::pg::{Builder, Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::small_disk::SmallDisk;
use farshore_testkit::soak::Campaign;
use farshore_testkit::stores::Moto;
use farshore_testkit::user;
use service::proxy::{Faults, Proxy};
use service::{CONTENT, Node, SOON, Service, flushed, let_pass};

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

/// The name of the segment of the first timeline that holds an offset.
fn name_of(offset: Offset) -> String {
    let (number, per_log) = (offset.get() / MIB, (1_u64 << 32) / MIB);
    format!("{:08X}{:08X}{:08X}", 1, number / per_log, number % per_log)
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

#[test]
fn soak_full_spools() {
    let mut campaign = Campaign::start("full_spools");
    let story = Story::new("64MiB", |_| String::new());
    let Story { server, node, place, .. } = &story;
    let Some(disk) = SmallDisk::at(place.join("disk"), 32) else {
        println!("NOT CHECKED: a full disk: no small file system can be mounted without root");
        return;
    };
    // A folder on it: one that is where the disk is mounted is refused.
    let on_it = directory(node, "spool/disk/orders");
    node.configure(|text| text.replace(&format!("{}\"", place.display()), &format!("{}\"", on_it.display())));
    let mut service = story.begin();
    while campaign.next_round() {
        for _ in 0..if campaign.is_brief() { 2 } else { 5 } {
            story.take_the_store_away();
            // More than it holds: by one of two limits, the disk's.
            churn(server, 30 + usize::try_from(campaign.random.below(8)).unwrap());
            let full = wait_for(SOON, || (segments(&on_it).len() >= 28).then_some(()));
            assert!(full.is_some(), "{} segments\n{}", segments(&on_it).len(), node.log());
            if campaign.random.below(3) == 0 {
                service.kill9();
                service = node.start(None);
                campaign.count("kills", 1);
            }
            churn(server, 4);
            // What does not fit is at the primary, and nothing that no store has is called stored or let go.
            let behind = flushed(server).bytes_since(slot(server)).unwrap();
            assert!(behind > 4 * MIB, "{behind}");
            let end = node.end().unwrap().offset;
            if let Some(status) = node.status()
                && let Some(stored) = status["stored"].as_str()
            {
                assert!(stored.parse::<Offset>().unwrap() <= end, "{status}, the store ends at {end}");
            }
            let first = segments(&on_it).first().cloned().unwrap();
            assert!(first <= name_of(end), "{first} is behind {end}");
            story.give_it_back();
            node.wait_end(1, flushed(server));
            let emptied = wait_for(SOON, || (segments(&on_it).len() <= 4).then_some(()));
            assert!(emptied.is_some(), "{:?}\n{}", segments(&on_it), node.log());
            campaign.count("fillings", 1);
        }
        proven(node, server);
        campaign.count("restores", 1);
    }
    service.stop();
    drop(disk);
    campaign.finish();
}

/// Lets the spool take what a store that is away lacks, until the primary keeps little of it.
fn let_go(story: &Story) {
    story.take_the_store_away();
    churn(&story.server, 14);
    wait_let_go(&story.server, &story.node);
}

#[test]
fn a_spool_that_is_not_there_is_waited_for_and_what_it_has_is_not_given_up() {
    let story = Story::new("200MiB", |_| String::new());
    let Story { server, node, place, .. } = &story;
    let service = story.begin();
    let_go(&story);
    service.stop();
    // Its disk is not mounted when all begins again.
    let aside = node.folder().join("spool-aside");
    std::fs::rename(place, &aside).unwrap();
    story.give_it_back();
    let service = node.start(None);
    service.wait_log("the spool does not answer for it");
    churn(server, 8);
    assert!(!place.exists(), "nothing is put in its place");
    let status = node.status().unwrap();
    assert_ne!(status["state"], "connected", "{status}");
    std::fs::rename(&aside, place).unwrap();
    proven(node, server);
    service.stop();
}

#[test]
fn what_is_gone_from_the_spool_too_is_a_gap_with_a_base_backup_behind_it() {
    let story = Story::new("200MiB", |_| String::new());
    let Story { server, node, place, .. } = &story;
    let service = story.begin();
    let_go(&story);
    service.kill9();
    let folder =
        std::fs::read_dir(place).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().path();
    let lost = folder.join(segments(place).get(5).unwrap());
    // A file that does not read is not given up by itself.
    std::fs::write(&lost, vec![7; 1 << 20]).unwrap();
    story.give_it_back();
    let service = node.start(None);
    service.wait_log("does not decode");
    service.wait_log("the spool does not answer for it");
    std::fs::remove_file(&lost).unwrap();
    service.wait_log("a gap in the journal");
    node.wait_backup(2);
    node.wait_end(1, flushed(server));
    let verified = node.json(&["verify"]);
    let shown = service::first(&verified);
    assert_eq!(
        (shown["sound"].as_bool(), shown["gaps"].as_array().map(Vec::len)),
        (Some(true), Some(1)),
        "{verified}"
    );
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
    service.stop();
}

#[test]
fn a_promotion_while_a_store_is_away_is_followed_without_a_gap() {
    let old = forgetful().start();
    old.pgbench_init(1);
    let new = service::wait(Server::standby_of(&old));
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 7);
    let node = Node::on_s3(&[&old, &new], &moto, &proxy.endpoint());
    let place = directory(&node, "spool");
    spool(&node, &place, "200MiB", "");
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_end(1, flushed(&old));
    proxy.set(Faults { refuse: 100, ..Faults::default() });
    churn(&old, 14);
    wait_let_go(&old, &node);
    let end = flushed(&old);
    let caught_up = wait_for(SOON, || {
        let replayed = new.sql("checkpoint; select pg_last_wal_replay_lsn()");
        (replayed.parse::<Offset>().unwrap() >= end).then_some(())
    });
    assert!(caught_up.is_some());
    // Its slots follow, so that its disk is not filled either.
    let followed = wait_for(SOON, || (end.bytes_since(slot(&new)).unwrap() <= 6 * MIB).then_some(()));
    assert!(followed.is_some(), "{} of {end}\n{}", slot(&new), node.log());
    old.stop(Mode::Fast);
    new.promote();
    churn(&new, 10);
    service.wait_log("a store has not followed the promotion yet");
    proxy.set(Faults::default());
    node.wait_end(2, flushed(&new));
    let verified = node.json(&["verify"]);
    let shown = service::first(&verified);
    assert_eq!(
        (shown["sound"].as_bool(), shown["gaps"].as_array().map(Vec::len)),
        (Some(true), Some(0)),
        "{verified}\n{}",
        node.log()
    );
    assert_eq!(node.incarnations().len(), 1, "{}", node.log());
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), new.sql(CONTENT));
    // The next time the new timeline's log is taken.
    proxy.set(Faults { refuse: 100, ..Faults::default() });
    churn(&new, 14);
    wait_let_go(&new, &node);
    assert!(segments(&place).iter().any(|name| name.starts_with("00000002")), "{:?}", segments(&place));
    proxy.set(Faults::default());
    node.wait_end(2, flushed(&new));
    service.stop();
}

#[test]
fn what_is_spooled_of_a_history_that_was_rolled_back_stays_restorable_in_its_own_journal() {
    let story = Story::new("200MiB", |_| String::new());
    let Story { server, node, place, .. } = &story;
    let service = story.begin();
    server.stop(Mode::Fast);
    let (data, snapshot) = (server.data_dir().to_owned(), server.folder().join("snapshot"));
    let copy = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(copied.success());
    };
    copy(&data, &snapshot);
    server.start();
    // The journal goes on beyond the snapshot, and the spool beyond the journal.
    churn(server, 3);
    node.wait_end(1, flushed(server));
    let_go(&story);
    let spooled = segments(place).iter().rev().find(|name| name.len() == 24).cloned().unwrap();
    // The service knows of nothing any more: neither where the store ends, nor that the server went back.
    service.kill9();
    server.stop(Mode::Fast);
    std::fs::remove_dir_all(&data).unwrap();
    copy(&snapshot, &data);
    server.start();
    server.sql("create table another_history(n int)");
    let service = node.start(None);
    churn(server, 26);
    service.wait_log("in the spool differs from the source's");
    story.give_it_back();
    let two = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(two.is_some(), "{}", node.log());
    node.wait_backup(1);
    node.wait_end(1, flushed(server));
    let first = node.end_of(&node.incarnations()[0].1).unwrap();
    assert!(
        name_of(first.offset) > spooled,
        "the first journal ends at {first}, {spooled} was spooled\n{}",
        node.log()
    );
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
    service.stop();
}

#[test]
fn a_spooled_commit_is_no_acknowledged_one_and_a_shutdown_waits_for_no_store() {
    let story = Story::new("200MiB", |_| String::new());
    let Story { server, node, .. } = &story;
    let service = story.begin();
    let_go(&story);
    // Whoever streams may be a synchronous standby, the spool's stream among them.
    server.conf("synchronous_standby_names = '*'");
    server.reload();
    let streams = "select count(*) from pg_stat_replication where application_name like '%spool'";
    let there = wait_for(SOON, || (server.sql(streams) == "1").then_some(()));
    assert!(there.is_some(), "{}", node.log());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| server.sql("create table waited(n int)"));
        let_pass(Duration::from_secs(4));
        let waiting = server.sql("select count(*) from pg_stat_activity where wait_event = 'SyncRep'");
        assert_eq!(waiting, "1", "a commit was acknowledged by the spool's stream");
        server.conf("synchronous_standby_names = ''");
        server.reload();
        waits.join().unwrap();
    });
    let begun = std::time::Instant::now();
    server.stop(Mode::Fast);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.start();
    story.give_it_back();
    proven(node, server);
    service.stop();
}

#[test]
fn a_throttle_extends_a_spool_while_it_is_nearly_full() {
    let story = Story::new("16MiB", |node| {
        let more = directory(node, "more").display().to_string();
        format!(
            "extensions = [{{ directory = \"{more}\", limit = \"100MiB\" }}]\n\
             [[databases.orders.throttles]]\nname = \"full\"\ntest = \"spool above 60%\"\nactions = [{{ extend_spool = true }}]"
        )
    });
    let Story { server, node, place, .. } = &story;
    let service = story.begin();
    story.take_the_store_away();
    churn(server, 24);
    let more = node.folder().join("more");
    let extended = wait_for(SOON, || (segments(&more).len() > 4).then_some(()));
    assert!(extended.is_some(), "{:?}\n{}", segments(place), node.log());
    wait_let_go(server, node);
    let shown = node.json(&["throttle", "list", "orders"]);
    assert!(shown.to_string().contains("active"), "{shown}");
    story.give_it_back();
    proven(node, server);
    let empty = wait_for(SOON, || (segments(place).len() + segments(&more).len() <= 4).then_some(()));
    assert!(empty.is_some(), "{:?} {:?}", segments(place), segments(&more));
    service.stop();
}
