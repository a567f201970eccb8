//! The promise: a base backup that is called complete can be restored, and where one is missing one is taken.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::time::Duration;

use chrono::Utc;
use farshore::base_backups::{Asked, How, Process, Streams, take};
use farshore_catalog::drill::Drill;
use farshore_catalog::{Catalog, Options};
use farshore_journal::format::certificate::DrillVerdict;
use farshore_journal::{DrillId, Timeline};
use farshore_shipper::base_backup::Phase;
use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::stores::Moto;
use service::proxy::Proxy;
use service::{CONTENT, Node, SOON, flushed, keeping, lost_log};

/// A primary with some rows, and a standby of it.
fn pair() -> (Server, Server) {
    let old = keeping().start();
    old.pgbench_init(1);
    let new = service::wait(Server::standby_of(&old));
    (old, new)
}

/// The standby takes nothing more.
fn cut_off(new: &Server, old: &Server) {
    let end = flushed(old);
    let reached = wait_for(SOON, || {
        let replayed = new.sql("select coalesce(pg_last_wal_replay_lsn(), '0/0')");
        (replayed.parse::<farshore_journal::Offset>().unwrap() >= end).then_some(())
    });
    assert!(reached.is_some(), "the standby did not catch up");
    new.sql("alter system set primary_conninfo = ''; select pg_reload_conf()");
    let alone = wait_for(SOON, || {
        let feeds = "select count(*) from pg_stat_replication where application_name like 'standby%'";
        (old.sql(feeds) == "0").then_some(())
    });
    assert!(alone.is_some());
}

/// Makes the node forget its backups.
fn lose_backups(node: &Node) {
    for (record, _) in node.incarnations() {
        let backups = node.folder().join(format!("journal/db/orders/{}/backups", record.incarnation));
        std::fs::remove_dir_all(backups).unwrap();
    }
    assert_eq!(node.backups(), 0);
}

#[test]
fn a_base_backup_behind_a_promotion_is_of_the_new_primary() {
    let (old, new) = pair();
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    cut_off(&new, &old);
    service.stop();
    lose_backups(&node);
    // The old one lives on, takes writes, and is named first.
    new.promote();
    new.sql("create table behind as select 1 as one; select pg_switch_wal()");
    let service = node.start(None);
    node.wait_end(2, flushed(&new));
    node.wait_backup(1);
    let bases = node.bases("orders");
    assert!(bases.iter().all(|base| base.start.timeline == Timeline::new(2)), "{bases:?}\n{}", node.log());
    node.wait_end(2, flushed(&new));
    service.stop();
    let latest = node.restore(&["--latest"]);
    assert_eq!(latest.sql(CONTENT), new.sql(CONTENT));
    assert_eq!(latest.sql("select one from behind"), "1");
}

#[test]
fn a_backup_that_a_promotion_overtook_is_no_backup_and_another_follows() {
    let (old, new) = pair();
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    cut_off(&new, &old);
    node.wait_end(1, flushed(&old));
    service.stop();
    lose_backups(&node);
    // Copied whole while nobody ships: its log ends on timeline 1, where the standby never was.
    old.sql("create table only_there as select generate_series(1, 1000) as n");
    let mut taken = node.beside_others(&["-v", "backup", "run", "orders"], "taken.log");
    let said = || std::fs::read_to_string(node.folder().join("taken.log")).unwrap();
    let copied = wait_for(SOON, || said().contains("waiting until the journal is stored").then_some(()));
    assert!(copied.is_some(), "{}", said());
    old.stop(Mode::Immediate);
    new.promote();
    new.sql("create table behind as select 1 as one; select pg_switch_wal()");
    let service = node.start(None);
    node.wait_end(2, flushed(&new));
    let ended = taken.wait(SOON * 2).unwrap_or_else(|| panic!("it waits for ever:\n{}", said()));
    assert!(!ended.success(), "{}", said());
    println!("{}", said());
    node.wait_backup(1);
    let bases = node.bases("orders");
    assert!(bases.iter().all(|base| base.start.timeline == Timeline::new(2)), "{bases:?}\n{}", node.log());
    service.stop();
    assert_eq!(node.restore(&["--latest"]).sql("select one from behind"), "1");
}

#[test]
fn a_base_backup_follows_a_gap_however_late_the_process_died() {
    let server = lost_log::server();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    lost_log::lose(&server);
    // One sender is enough to ship, and none is left for a base backup: it fails as long as this process lives.
    server.sql("alter system set max_wal_senders = 1");
    server.restart();
    let service = node.start(None);
    service.wait_log("a base backup is due");
    for _ in 0..5 {
        server.sql("insert into filler select generate_series(1, 200000); select pg_switch_wal()");
        node.wait_end(1, flushed(&server));
    }
    service.wait_log("the base backup of orders into main failed");
    service.kill9();
    assert_eq!(node.backups(), 1);
    server.sql("alter system reset max_wal_senders");
    server.restart();
    let service = node.start(None);
    node.wait_backup(2);
    server.sql("create table behind as select 1 as one");
    node.wait_end(1, flushed(&server));
    service.stop();
    assert_eq!(node.restore(&["--latest"]).sql("select one from behind"), "1");
}

#[test]
fn a_backup_that_cannot_be_taken_does_not_hold_up_others() {
    // The stream of `a` takes its only sender, so its base backup fails for good.
    let a = keeping().conf("max_wal_senders = 1").start();
    let b = keeping().start();
    let node = Node::configured(|folder| {
        let database = |name: &str, server: &Server| {
            format!(
                "[databases.{name}]\nengine = \"postgres\"\nurl = \"postgresql://postgres@127.0.0.1:{}/postgres\"\n\
                 stores = [\"main\"]\nflush_interval = \"200ms\"\nbin_dir = \"{}\"\n",
                server.port(),
                Major::V15.bin().display(),
            )
        };
        format!(
            "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}/journal\"\n{}{}",
            folder.display(),
            database("a", &a),
            database("b", &b),
        )
    });
    let service = node.start(None);
    service.wait_log("the base backup of a into main failed");
    let taken = wait_for(SOON, || (!node.bases("b").is_empty()).then_some(()));
    assert!(taken.is_some(), "{}", node.log());
    assert!(node.bases("a").is_empty());
    service.stop();
}

#[test]
fn a_backup_whose_store_takes_nothing_any_more_is_given_up() {
    let server = keeping().start();
    server.pgbench_init(1);
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 1);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    let environment = farshore::config::Environment::new();
    let config = farshore::config::load(&node.folder().join("farshore.toml"), &environment).unwrap();
    let (name, store) = ("orders".parse().unwrap(), "main".parse().unwrap());
    let cut = |progress: farshore::base_backups::TakeProgress| {
        if progress.phase == Phase::Copying {
            proxy.close(true);
        }
    };
    let stuck = Duration::from_secs(3);
    let process = Process { streams: &Streams::new(), catalog: None };
    let asked = Asked { label: "test", how: How::Full };
    let taken = service::wait(take(&config, &name, &store, asked, process, stuck, &cut));
    let why = taken.expect_err("nothing was stored");
    assert!(why.to_string().contains("nothing of it moved for 3 seconds"), "{why}");
    assert_eq!(node.backups(), 1);
}

/// The plan of a restore to the latest record.
fn plan(node: &Node) -> serde_json::Value {
    node.json(&["restore", "orders", "--latest", "--dry-run", "--to", "/nowhere"])
}

#[test]
fn a_damaged_base_is_passed_over_for_a_sound_one_and_never_used_silently() {
    let server = keeping().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    let sound = plan(&node)["base"]["id"].as_str().unwrap().to_owned();
    assert_eq!(plan(&node)["base"]["bad_pages"], 0);
    // A page rots on the primary's disk; the next copy takes it along.
    let path = server.data_dir().join(server.sql("select pg_relation_filepath('pgbench_accounts')"));
    server.stop(Mode::Fast);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4000] ^= 0x55;
    std::fs::write(&path, bytes).unwrap();
    server.start();
    node.wait_end(1, flushed(&server));
    let taken = node.run(&["backup", "run", "orders"]);
    assert!(taken.status.success(), "{taken:?}");
    assert_eq!(node.backups(), 2);
    assert_eq!(plan(&node)["base"]["id"], sound, "the newer one is damaged");
    let damaged = wait_for(SOON, || node.status().filter(|status| status["backups"]["damaged"] == 1));
    assert!(damaged.is_some(), "{:?}", node.status());
    let verified = node.json(&["verify"]);
    let named = service::first(&verified)["damaged_backups"].as_array().unwrap();
    assert!(named.len() == 1 && named[0]["pages"] == 1, "{verified}");
    // It is all there is: taken, and said.
    for (record, _) in node.incarnations() {
        let backup = node.folder().join(format!("journal/db/orders/{}/backups/{sound}", record.incarnation));
        std::fs::remove_dir_all(backup).unwrap();
    }
    let last = plan(&node);
    assert_eq!(last["base"]["first_bad_pages"][0]["page"], 0, "{last}");
    let told = node.run(&["restore", "orders", "--latest", "--dry-run", "--to", "/nowhere"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("DAMAGED"), "{told:?}");
    service.stop();
}

/// What a drill of it measured, as the catalog is told: 2 s, and 100 s for 160 MiB of log.
fn drilled(node: &Node) {
    let (record, _) = node.incarnations().pop().unwrap();
    let replay = Duration::from_secs(100);
    let now = Utc::now();
    let drill = Drill {
        id: DrillId::from_bytes([7; 16]),
        database: record.database.clone(),
        store: "main".to_owned(),
        incarnation: record.incarnation,
        verdict: DrillVerdict::Passed,
        began: now,
        ended: now,
        recovery: Some(replay + Duration::from_secs(2)),
        objective: None,
        replayed: Some((replay, 160 << 20)),
        statement: String::new(),
        signed: None,
        uncertified: Some("made by a test".to_owned()),
    };
    let url = format!("sqlite:{}", node.folder().join("farshore.db").display());
    service::wait(async {
        Catalog::open(&url, Options::default()).await.unwrap().drill_put(&drill).await.unwrap()
    });
}

#[test]
fn a_base_backup_is_taken_before_recovery_takes_longer_than_its_objective() {
    let server = keeping().start();
    let node = Node::new(&[&server]);
    node.configure(|text| format!("{text}rto = \"60s\"\n"));
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_connected();
    drilled(&node);
    service.stop();
    // 96 MiB of log: a minute.
    for round in 0..6 {
        server.sql(&format!("create table t{round} (); select pg_switch_wal()"));
    }
    let service = node.start(None);
    node.wait_end(1, flushed(&server));
    service.stop();
    // It is reckoned once a minute, and at a start.
    let service = node.start(None);
    let second = wait_for(SOON, || (node.backups() == 2).then_some(()));
    assert!(second.is_some(), "{}", node.log());
    node.wait_connected();
    service.stop();
    let listed = node.json(&["backup", "list", "orders"]);
    let labels: Vec<&str> =
        service::all(&listed).iter().map(|item| item["label"].as_str().unwrap()).collect();
    let taken = labels
        .iter()
        .filter(|label| label.contains("a recovery would have taken") && label.ends_with("of 60.0 s"));
    assert_eq!(taken.count(), 1, "{labels:?}");
    assert!(node.log().contains("where rto is 60.0 s"), "{}", node.log());
    // There is little log behind it.
    let service = node.start(None);
    node.wait_connected();
    node.wait_end(1, flushed(&server));
    service::let_pass(Duration::from_secs(3));
    service.stop();
    assert_eq!(node.backups(), 2, "{}", node.log());
}
