//! The promise: whatever a store does, nothing is called stored that is not, the primary is not held up, and it is caught up.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::sync::Arc;
use std::time::{Duration, Instant};

use farshore_engines::postgres::wire::ConnectParams;
use farshore_journal::format::Recipients;
use farshore_journal::format::object::Compression;
use farshore_journal::index::IndexLimits;
use farshore_journal::merge::MergeLimits;
use farshore_journal::store::faults::{Fault, Faults as Lies, Faulty};
use farshore_journal::store::{self, ObjectStore, StoreOptions};
use farshore_journal::writer::WriterOptions;
use farshore_journal::{DatabaseName, Offset};
use farshore_shipper::founding::Place;
use farshore_shipper::pipeline::copies::Copies;
use farshore_shipper::pipeline::points::Points;
use farshore_shipper::pipeline::postgres::Cluster;
use farshore_shipper::pipeline::{PipelineConfig, SourceConfig};
use farshore_shipper::push::room::Room;
use farshore_shipper::reported::Protection;
use farshore_shipper::slots;
use farshore_shipper::supervisor::{self, DatabaseConfig, TargetConfig};
use farshore_testkit::pg::{Length, Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::random::seed;
use farshore_testkit::soak::Campaign;
use farshore_testkit::stores::Moto;
use nix::sys::signal::Signal;
use service::proxy::{Faults, Proxy};
use service::{CONTENT, Node, SOON, flushed, keeping, let_pass, lost_log};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The shipped position that the catalog calls stored.
fn called_stored(node: &Node) -> Option<Offset> {
    node.status()?["stored"].as_str()?.parse().ok()
}

/// Looks all the time whether what is called stored is in the store: for a while, and until there were faults of every kind.
fn look_while_it_fails(node: &Node, proxy: &Proxy, at_least: Duration) -> u64 {
    let began = Instant::now();
    let mut looks = 0;
    while began.elapsed() < at_least || looks == 0 || proxy.counts().0 < 20 || proxy.stalled() < 5 {
        assert!(
            began.elapsed() < 2 * SOON,
            "{looks} looks, {:?}, {} stalls",
            proxy.counts(),
            proxy.stalled()
        );
        let Some(called) = called_stored(node) else { continue };
        let end = node.end().expect("a journal");
        assert!(end.offset >= called, "called stored up to {called}, the store holds {end}");
        looks += 1;
    }
    looks
}

#[test]
fn nothing_is_called_stored_that_is_not_while_a_store_loses_refuses_and_delays() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let server = keeping().start();
    server.pgbench_init(1);
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), seed);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    let service = node.start(None);
    node.wait_end(1, flushed(&server));
    proxy.set(Faults { drop: 5, delay_millis: 30, ..Faults::weather(10) });
    let load = server.pgbench_with(2, Length::For(Duration::from_secs(3000)), &["-R", "100"]);
    let looks = look_while_it_fails(&node, &proxy, Duration::from_secs(15));
    let (hurt, forwarded) = proxy.counts();
    proxy.set(Faults::default());
    drop(load);
    server.sql("select pg_switch_wal()");
    node.wait_end(1, flushed(&server));
    node.wait_backup(1);
    service.stop();
    let walked = node.prove(&[&server]);
    assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}");
    assert_eq!(walked[0].openings, 1, "faults alone make no one take over: {walked:?}\n{}", node.log());
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
    println!("{hurt} faults, {} stalls, {forwarded} forwarded, {looks} looks: {walked:?}", proxy.stalled());
}

/// What one run of the shipper on a failing store came to.
#[derive(Debug)]
struct Shipped {
    looks: u64,
    faults: std::collections::BTreeMap<Fault, u64>,
}

/// Ships for a while into a directory store that fails in every operation, looking all the time whether what is called stored is
/// there; then it behaves, and is caught up.
async fn ship_into_a_failing_directory(
    node: &Node,
    server: &Server,
    seed: u64,
    at_least: Duration,
) -> Shipped {
    let folder = node.folder().join("journal");
    let inner = store::open(&format!("file:{}", folder.display()), &StoreOptions::for_writing()).unwrap();
    let faulty = Arc::new(Faulty::new(inner, seed, Lies::default()));
    let name: DatabaseName = "orders".parse().unwrap();
    let params: ConnectParams = server.url().parse().unwrap();
    let keep = slots::keep(&name).unwrap();
    let pipeline = PipelineConfig {
        database: name.clone(),
        source: SourceConfig::Postgres(Box::new(Cluster {
            params,
            slot: slots::live(&name, "main").unwrap(),
            keep,
            room: Room::new(node.folder().join("room")),
            spool: None,
            kept: Vec::new(),
        })),
        store_name: "main".to_owned(),
        protection: Protection::Async,
        flush_interval: Duration::from_millis(100),
        merge: MergeLimits::default(),
        signing: None,
        index: IndexLimits::default(),
        writer: WriterOptions {
            compression: Compression::Zstd(1),
            recipients: Recipients::default(),
            segment_bytes: service::SEGMENT,
            host: "test".to_owned(),
        },
    };
    let opened = Arc::clone(&faulty);
    let open = Arc::new(move || Ok(Arc::clone(&opened) as Arc<dyn ObjectStore>));
    let targets = vec![TargetConfig { pipeline, store: Place::new(open, false), url: "file:".to_owned() }];
    let free = Arc::new(|_: &str, _: u64| None);
    let node_name = "test".to_owned();
    let database = DatabaseConfig {
        name,
        targets,
        copies: Copies::default(),
        refreshing: farshore_shipper::refreshing::Refreshing::default(),
        points: Points::default(),
        required: 1,
        node: node_name,
        free,
        waits: None,
        spool: None,
        primary: watch::Sender::default(),
    };
    let (shown, progress) = watch::channel(Vec::new());
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(supervisor::run(database, None, shown, cancel.clone()));
    // Founding and opening a store are not tried under faults: they ask for dozens of answers in a row, and refuse at the
    // first doubt. That the store holds log is not enough: the shipper may only be about to open what it founded.
    let called = || progress.borrow().first().and_then(|target| target.stored);
    let opened = tokio::task::block_in_place(|| wait_for(SOON, called));
    assert!(opened.is_some(), "nothing was shipped: {:?}", progress.borrow());
    let load = server.pgbench_with(2, Length::For(Duration::from_secs(3000)), &["-R", "100"]);
    faulty.set(Lies { stall: 0.1, stall_for: Duration::from_millis(500), ..Lies::weather(0.1) });
    let began = Instant::now();
    let mut looks = 0;
    let kinds = [Fault::Before, Fault::After, Fault::Busy, Fault::Stall];
    let enough = |looks| {
        let faults = faulty.injected();
        looks > 0 && kinds.iter().all(|kind| faults.get(kind).is_some_and(|count| *count > 3))
    };
    while began.elapsed() < at_least || !enough(looks) {
        assert!(
            began.elapsed() < 2 * SOON,
            "{looks} looks, {:?}, {:?}",
            faulty.injected(),
            progress.borrow()
        );
        if let Some(called) = called() {
            let end = tokio::task::block_in_place(|| node.end()).expect("a journal");
            assert!(end.offset >= called.offset, "called stored up to {called}, the store holds {end}");
            looks += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let faults = faulty.injected();
    faulty.set(Lies::default());
    drop(load);
    server.sql("select pg_switch_wal()");
    let end = flushed(server);
    let caught_up =
        tokio::task::block_in_place(|| wait_for(SOON, || node.end().filter(|at| at.offset >= end)));
    assert!(caught_up.is_some(), "not caught up with {end}: {:?}", progress.borrow());
    cancel.cancel();
    let ended = tasks.join_next().await.unwrap().unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    farshore_testkit::user::give(node.folder());
    Shipped { looks, faults }
}

/// The directory store under the same weather, in the shipper itself: every operation fails, stalls, or is done and said not to be.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_called_stored_that_is_not_while_a_directory_fails_stalls_and_loses_answers() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let server = keeping().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let shipped = ship_into_a_failing_directory(&node, &server, seed, Duration::from_secs(10)).await;
    let walked = tokio::task::block_in_place(|| node.prove(&[&server]));
    assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}");
    println!("{shipped:?}: {walked:?}");
}

/// Both kinds of store under errors, stalls and lost answers at ten percent each, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn soak_store_faults() {
    let mut campaign = Campaign::start("store_faults");
    while campaign.next_round() {
        let server = keeping().start();
        server.pgbench_init(1);
        let length = Duration::from_secs(5 + campaign.random.below(10));
        let node = Node::new(&[&server]);
        let seed = campaign.random.number();
        let shipped = ship_into_a_failing_directory(&node, &server, seed, length).await;
        campaign.count("directory_faults", shipped.faults.values().sum());
        campaign.count("directory_looks", shipped.looks);
        let walked = tokio::task::block_in_place(|| node.prove(&[&server]));
        assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}");

        let (faults, looks) = tokio::task::block_in_place(|| {
            let server = keeping().start();
            server.pgbench_init(1);
            let moto = Moto::start();
            let proxy = Proxy::before(&moto.endpoint(), campaign.random.number());
            let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
            let service = node.start(None);
            node.wait_end(1, flushed(&server));
            proxy.set(Faults { drop: 5, ..Faults::weather(10) });
            let load = server.pgbench_with(2, Length::For(Duration::from_secs(3000)), &["-R", "100"]);
            let looks = look_while_it_fails(&node, &proxy, length);
            let faults = proxy.counts().0 + proxy.stalled();
            proxy.set(Faults::default());
            drop(load);
            server.sql("select pg_switch_wal()");
            node.wait_end(1, flushed(&server));
            service.stop();
            let walked = node.prove(&[&server]);
            assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}");
            (faults, looks)
        });
        campaign.count("s3_faults", faults);
        campaign.count("s3_looks", looks);
    }
    campaign.finish();
}

#[test]
fn a_store_that_is_down_holds_up_neither_commits_nor_the_primarys_shutdown_and_is_caught_up() {
    // No log is kept but for the slots: what comes through was held by them.
    let server = Server::builder(Major::V15).conf("max_wal_size = 64MB").conf("min_wal_size = 32MB").start();
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 1);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    let service = node.start(None);
    node.wait_backup(1);
    proxy.close(true);
    server.pgbench_init(10);
    server.sql("checkpoint");
    let load = server.pgbench(2, Length::For(Duration::from_secs(10)));
    assert!(load.wait().transactions > 0);
    server.sql("checkpoint");
    let backlog = flushed(&server).bytes_since(node.end().unwrap().offset).unwrap();
    assert!(backlog > 100 << 20, "the backlog must not fit into memory: {backlog}");
    let peak = service.peak_memory();
    assert!(peak < 220 << 20, "{} MiB at most", peak >> 20);
    for _ in 0..2 {
        let began = Instant::now();
        server.stop(Mode::Fast);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "the stop took {took:?}");
        println!("stopped in {took:?} with {} MiB waiting", backlog >> 20);
        server.start();
        let_pass(Duration::from_secs(3));
    }
    proxy.close(false);
    server.sql("create table behind as select 1 as one");
    node.wait_end(1, flushed(&server));
    // With a stream still open, and a chunk that the store does not take just begun.
    proxy.close(true);
    server.sql("create table last as select generate_series(1, 10000) as n");
    let began = Instant::now();
    server.stop(Mode::Fast);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "the stop took {took:?}");
    println!("stopped in {took:?} with a stream open");
    server.start();
    proxy.close(false);
    node.wait_end(1, flushed(&server));
    let content = server.sql(CONTENT);
    println!("peak {} MiB, {} MiB at last", peak >> 20, service.peak_memory() >> 20);
    service.stop();
    let verified = node.json(&["verify"]);
    assert_eq!(service::first(&verified)["sound"], true, "{verified}");
    assert_eq!(service::first(&verified)["gaps"].as_array().map(Vec::len), Some(0), "{verified}");
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), content);
}

#[test]
fn a_lost_slot_is_a_gap_with_its_bounds_and_a_new_base_backup_never_silence() {
    let server = lost_log::server();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    server.sql("create table before as select 1 as one");
    let early = flushed(&server);
    let between = server
        .sql("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    server.sql("create table after as select 1 as one");
    node.wait_end(1, flushed(&server));
    service.stop();
    let stored = node.end().unwrap();
    lost_log::lose(&server);
    // The one that records the gap dies before it can take the base backup that must follow: the next one takes it.
    let mut dies = node.start(Some("ship-recorded=return"));
    assert!(dies.process.wait(SOON).is_some_and(|ended| !ended.success()), "{}", dies.log());
    let service = node.start(None);
    node.wait_backup(2);
    server.sql("create table behind as select 1 as one");
    node.wait_end(1, flushed(&server));
    // Both slots keep log again.
    let kept = wait_for(SOON, || {
        let kept = server
            .sql("select count(*) from pg_replication_slots where wal_status in ('reserved', 'extended')");
        (kept == "2").then_some(())
    });
    assert!(kept.is_some(), "{}\n{}", server.sql("select * from pg_replication_slots"), node.log());
    let status = wait_for(SOON, || {
        let status = node.status()?;
        let gaps = status["window"]["gaps"].as_array()?.len();
        (gaps == 1).then_some(status)
    });
    let status = status.unwrap_or_else(|| panic!("{:?}\n{}", node.status(), node.log()));
    println!("{}", status["window"]);
    service.stop();
    let verified = node.json(&["verify"]);
    let shown = service::first(&verified);
    assert_eq!(shown["sound"], true, "{verified}");
    let gaps = shown["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1, "{verified}");
    assert!(gaps[0].to_string().contains(&stored.offset.to_string()), "{stored} in {}", gaps[0]);
    // What no base backup leads to over whole log is not called held, though there is one before the gap.
    let bounds = gaps[0].to_string();
    let lost = stored.offset.checked_add(1).unwrap();
    let put = node.run(&["points", "hold", "orders", &format!("1:{lost}"), "--reason", "lost"]);
    let said = String::from_utf8_lossy(&put.stderr).into_owned();
    assert_eq!(put.status.code(), Some(4), "{bounds}: {said}");
    let put = node.run(&["points", "hold", "orders", &format!("1:{early}"), "--reason", "before it"]);
    assert!(put.status.success(), "{put:?}");
    let latest = node.restore(&["--latest"]);
    assert_eq!(latest.sql("select one from behind"), "1");
    drop(latest);
    // A time whose first later commit lies in front of the gap is settled, however near the gap is.
    for target in [["--pos", &format!("1:{early}")], ["--at", &between]] {
        let old = node.restore(&target);
        assert_eq!(old.sql("select one from before"), "1", "{target:?}");
        assert_eq!(old.sql("select count(*) from pg_class where relname = 'after'"), "0", "{target:?}");
    }
}

#[test]
fn an_idle_database_is_known_to_be_current_and_a_frozen_service_is_unknown_within_three_heartbeats() {
    let server = Server::start_new(Major::V15);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    let current =
        |status: &serde_json::Value| status["ship_lag_bytes"] == 0 && status["state"] == "connected";
    let idle = wait_for(SOON, || node.status().filter(current));
    assert!(idle.is_some(), "{:?}\n{}", node.status(), node.log());
    // It stays so, with nothing written: contact is what is known, not the lack of news.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let status = node.status().unwrap();
        assert!(status["ship_lag_bytes"] == 0, "{status}");
        assert_eq!(status["ship_lag_seconds"], 0.0, "{status}");
    }
    service.process.signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    let unknown = wait_for(SOON, || node.status().filter(|status| status["state"] == "unknown"));
    let took = frozen.elapsed();
    assert!(unknown.is_some(), "{:?}", node.status());
    // Three heartbeats of a second, and what one look takes on a busy machine.
    assert!(took < Duration::from_secs(3 + 3), "unknown only after {took:?}");
    let unknown = unknown.unwrap();
    assert!(unknown["ship_lag_bytes"].is_null() && unknown["ship_lag_seconds"].is_null(), "{unknown}");
    service.process.signal(Signal::SIGCONT);
    let again = wait_for(SOON, || node.status().filter(current));
    assert!(again.is_some(), "{:?}\n{}", node.status(), node.log());
    println!("unknown after {took:?}");
    service.stop();
}
