//! The promise: a shipper that hangs is told by another service of the same catalog, within three heartbeats and the time of one look; and
//! nothing is shown as good that is not known to be.
//!
//! Method: two services with a catalog in PostgreSQL. One is frozen, killed, or its store takes nothing; what the other's metrics, `status` and
//! webhook say is held against what was really done, by a judge that knows nothing of the catalog. `FARSHORE_FAULT_STATES` is the number of
//! random states; `soak_stalls` and `soak_fault_states` go on for as long as they are given.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;
mod watching;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;
use nix::sys::signal::Signal;
use service::{Node, SOON, Service, let_pass};
use sqlite::application::Application;
use watching::receiver::{KEY, Receiver};
use watching::{address, exposure, scrape_at, state, value};

/// Three heartbeats of one second: a shorter silence is no alarm.
const SILENCE: Duration = Duration::from_secs(3);
/// Three heartbeats, a look of another each second, and what a loaded machine takes for that.
const ALARM: Duration = Duration::from_millis(3000 + 1000 + 2000);
const INSERT: &str = "insert into much (v) values (randomblob(100))";

/// A service with a database of its own, and an application that has it open.
struct Ship {
    node: Node,
    application: Application,
    service: Service,
}

fn ship(name: &str, catalog: &Server, receiver: &Receiver) -> Ship {
    let node = Node::configured(|folder| {
        std::fs::write(folder.join("key"), KEY).unwrap();
        format!(
            "[catalog]\nurl = \"postgresql://postgres@127.0.0.1:{}/postgres\"\n\
             [service]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n\
             [databases.{name}]\nengine = \"sqlite\"\npath = \"app.db\"\nstores = [\"main\"]\nrpo = \"2s\"\n\
             flush_interval = \"20ms\"\n{}",
            catalog.port(),
            folder.join("journal").display(),
            receiver.channel("pager"),
        )
    });
    let mut application = Application::open(&node.folder().join("app.db"));
    assert_eq!(application.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
    assert_eq!(application.ask("create table much (id integer primary key, v blob)"), "[]");
    let service = node.start(None);
    Ship { node, application, service }
}

/// Two services that share a catalog; `watched` is the one that things happen to.
struct Pair {
    watched: Ship,
    watcher: Ship,
    receiver: Receiver,
    metrics: String,
    _catalog: Server,
}

impl Pair {
    fn start() -> Self {
        let (catalog, receiver) = (Server::start_new(Major::V15), Receiver::start());
        let watched = ship("orders", &catalog, &receiver);
        let watcher = ship("billing", &catalog, &receiver);
        let metrics = address(&watcher.service);
        let pair = Self { watched, watcher, receiver, metrics, _catalog: catalog };
        pair.wait_well();
        pair
    }

    fn page(&self) -> String {
        scrape_at(&self.metrics).expect("the watcher answers")
    }

    /// What the watcher's metrics show of the watched database.
    fn shown(&self) -> (String, f64) {
        let page = self.page();
        (state(&page, "orders").unwrap_or_default(), exposure(&page, "orders").unwrap_or(f64::INFINITY))
    }

    fn is_well(&self) -> bool {
        self.shown() == ("connected".to_owned(), 0.0)
    }

    fn wait_well(&self) {
        let well = wait_for(SOON, || self.is_well().then_some(()));
        assert!(
            well.is_some(),
            "{:?}\n{}\n{}",
            self.shown(),
            self.watched.node.log(),
            self.watcher.node.log()
        );
    }

    /// How long nothing was heard of the watched database, by what the watcher's metrics say; at most as long as it is now.
    fn silence(&self) -> Duration {
        let sample = "farshore_source_last_contact_timestamp_seconds{database=\"orders\"}";
        let heard = Duration::from_secs_f64(value(&self.page(), sample).expect("it was heard"));
        SystemTime::now().duration_since(UNIX_EPOCH + heard).unwrap_or_default()
    }

    /// Freezes the watched service until everybody who should tells it; how long the metrics and the webhook took.
    fn stall(&self) -> (Duration, Option<Duration>) {
        let told = self.receiver.told("orders", "state").len();
        self.watched.service.process.signal(Signal::SIGSTOP);
        let began = Instant::now();
        let alarmed = wait_for(SOON, || (self.shown().0 == "unknown").then(|| began.elapsed()));
        let alarmed = alarmed.unwrap_or_else(|| panic!("{:?}\n{}", self.shown(), self.watcher.node.log()));
        // It was heard up to a heartbeat before it froze: what counts is how long it is silent.
        let silent = self.silence();
        assert!(silent > SILENCE, "no alarm before three heartbeats passed: {silent:?}");
        let status = self.watched.node.status().expect("the catalog answers");
        assert_eq!(status["state"], "unknown", "{status}");
        let (_, first) = self.shown();
        let_pass(Duration::from_millis(300));
        let (_, then) = self.shown();
        assert!(then > first && first > 2.0, "it grows: {first} {then}");
        let hook = wait_for(Duration::from_secs(5), || {
            let all = self.receiver.told("orders", "state");
            let new = all.get(told..)?.iter().find(|(_, word)| word == "unknown")?.0;
            Some(new.saturating_duration_since(began))
        });
        self.watched.service.process.signal(Signal::SIGCONT);
        self.wait_well();
        (alarmed, hook)
    }
}

#[test]
fn a_frozen_shipper_is_told_by_another_service_by_metric_and_webhook_once() {
    let pair = Pair::start();
    // What is not well yet when it begins is no news.
    assert!(pair.receiver.told("orders", "state").is_empty(), "{:?}", pair.receiver.received.lock().unwrap());
    let (alarmed, hook) = pair.stall();
    println!("metric after {alarmed:?}, webhook after {hook:?}");
    assert!(alarmed < ALARM, "{alarmed:?}");
    assert!(
        hook.is_some_and(|hook| hook < ALARM + Duration::from_secs(1)),
        "{hook:?}\n{}",
        pair.watcher.node.log()
    );
    // Both services saw it, one told it; and that it is well is told once it stayed so.
    let well = wait_for(SOON, || {
        let told = pair.receiver.told("orders", "state");
        (told.last()?.1 == "well").then_some(told)
    });
    let words: Vec<String> = well.expect("it is told").into_iter().map(|(_, word)| word).collect();
    assert_eq!(words, ["unknown", "well"]);
    let received = pair.receiver.received.lock().unwrap().clone();
    let (_, told) = &received[0];
    assert_eq!(
        (&told["schema"], &told["message"]["code"]),
        (&"farshore.notice/1".into(), &"FS-0901".into()),
        "{told}"
    );
    assert!(
        told["message"]["safe"].as_str().is_some_and(|safe| safe.contains("nothing is known to be stored")),
        "{told}"
    );
    for ship in [pair.watched, pair.watcher] {
        drop(ship.application);
        ship.service.stop();
    }
}

#[test]
fn soak_stalls() {
    let mut campaign = Campaign::start("stalls");
    let pair = Pair::start();
    while campaign.next_round() {
        let_pass(Duration::from_millis(campaign.random.below(1000)));
        let (alarmed, hook) = pair.stall();
        campaign.count("stalls", 1);
        campaign.count("alarms_in_time", u64::from(alarmed < ALARM));
        campaign.count("webhooks", u64::from(hook.is_some()));
        assert!(alarmed < ALARM, "{alarmed:?}");
    }
    campaign.finish();
}

/// What is done to the watched service, and what is therefore true of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    Lives,
    Frozen,
    Killed,
}

fn takes(node: &Node, takes: bool) {
    let mode = if takes { 0o755 } else { 0o555 };
    std::fs::set_permissions(node.folder().join("journal/.tmp"), Permissions::from_mode(mode)).unwrap();
}

impl Pair {
    /// Puts the watched service into one state, and holds what is shown of it against what is true. Whether it was a good one.
    fn fault_state(&mut self, random: &mut Random) -> bool {
        let process =
            [Process::Lives, Process::Frozen, Process::Killed][usize::try_from(random.below(3)).unwrap()];
        let (store_takes, commits) = (random.below(2) == 0, random.below(2) == 0);
        takes(&self.watched.node, store_takes);
        match process {
            Process::Lives => {}
            Process::Frozen => self.watched.service.process.signal(Signal::SIGSTOP),
            Process::Killed => {
                self.watched.service.process.signal(Signal::SIGKILL);
                self.watched.service.process.wait(SOON).expect("a killed process ends");
            }
        }
        if commits {
            let _locked = self.watched.application.ask(INSERT);
        }
        let_pass(ALARM);
        // The judge: nobody ships, or something was committed that no store can have taken.
        let is_good = process == Process::Lives && (store_takes || !commits);
        let case = format!("{process:?}, store takes {store_takes}, commits {commits}: {:?}", self.shown());
        if is_good {
            let well = wait_for(SOON, || self.is_well().then_some(()));
            assert!(well.is_some(), "a false alarm: {case}\n{}", self.watched.node.log());
        } else {
            for _ in 0..5 {
                let (state, exposed) = self.shown();
                let green = state == "connected" || exposed <= 1.0;
                assert!(!green, "a false green: {case}\n{}", self.watched.node.log());
                let_pass(Duration::from_millis(200));
            }
        }
        takes(&self.watched.node, true);
        match process {
            Process::Lives => {}
            Process::Frozen => self.watched.service.process.signal(Signal::SIGCONT),
            Process::Killed => self.watched.service = self.watched.node.start(None),
        }
        self.wait_well();
        is_good
    }
}

#[test]
fn nothing_is_shown_as_good_that_is_not_known_to_be_whatever_fails() {
    let mut random = Random::new(farshore_testkit::random::seed());
    let mut pair = Pair::start();
    for _ in 0..service::count("FARSHORE_FAULT_STATES", 4) {
        pair.fault_state(&mut random);
    }
}

#[test]
fn soak_fault_states() {
    let mut campaign = Campaign::start("fault_states");
    let mut pair = Pair::start();
    while campaign.next_round() {
        let good = pair.fault_state(&mut campaign.random);
        campaign.count(if good { "good" } else { "bad" }, 1);
        campaign.count("false_greens", 0);
    }
    campaign.finish();
}
