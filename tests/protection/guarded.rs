//! The promise: in `sync` a commit waits for `sync_timeout` and no longer, whoever is dead or cut off; from when to when it was not protected is written down first; and it is protected
//! again by itself, with nothing acknowledged that is not stored.

use std::time::{Duration, Instant};

use farshore_testkit::pg::Mode;
use farshore_testkit::process::{let_pass, wait_for};
use farshore_testkit::soak::Campaign;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::chain::Chain;
use crate::clients::Clients;
use crate::done_within;
use crate::service::{SOON, Service, all};

const TIMEOUT: Duration = Duration::from_secs(3);
const SYNC: &str = "protection = \"sync\"\nsync_timeout = \"3s\"";
/// Short, for those who do it often.
const QUICK: &str = "protection = \"sync\"\nsync_timeout = \"1s\"";

/// A chain with a guard.
struct Guarded {
    chain: Chain,
    guard: Option<Service>,
}

impl Guarded {
    fn new(protection: &str) -> Self {
        let chain = Chain::unarmed(protection);
        let mut guarded = Self { chain, guard: None };
        guarded.start_guard();
        guarded.wait_protected();
        guarded
    }

    fn start_guard(&mut self) {
        self.guard = Some(self.chain.node.start_as("guard", None, &[]));
    }

    fn kill_guard(&mut self) {
        self.guard.take().unwrap().kill9();
    }

    /// The lines of the guard's ledger.
    fn ledger(&self) -> Vec<Value> {
        let path = self.chain.node.folder().join("farshore-guard/orders.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Whether an exposure is open, as the ledger has it.
    fn is_exposed(&self) -> bool {
        self.ledger().last().is_none_or(|line| line["what"] == "opened")
    }

    /// What `status` says of it.
    fn state(&self) -> Value {
        self.chain.node.status().map(|status| status["guard"]["state"].clone()).unwrap_or_default()
    }

    fn wait_state(&self, wanted: &str) {
        let told = wait_for(SOON, || (self.state() == wanted).then_some(()));
        assert!(told.is_some(), "{} in place of {wanted}", self.state());
    }

    /// All that says why commits are not protected.
    fn told(&self) -> String {
        let streams = self.chain.server.sql(
            "select application_name, state, sent_lsn, flush_lsn, pg_current_wal_lsn(), backend_start, reply_time from pg_stat_replication",
        );
        let status = self.chain.node.status();
        format!("{:?}\n{streams}\n{status:?}\n{}", self.ledger(), self.chain.node.log())
    }

    fn wait_protected(&self) {
        let protected = wait_for(SOON, || (!self.is_exposed()).then_some(()));
        assert!(protected.is_some(), "{}", self.told());
        let names = self.chain.server.sql("show synchronous_standby_names");
        assert_eq!(names, "FIRST 1 (\"farshore orders/main\")");
    }

    /// How long it takes until a commit is acknowledged again, whoever is away.
    fn stretch(&self, clients: &Clients) -> Duration {
        let begun = Instant::now();
        let before = clients.acknowledged().len();
        // One that was on its way may be done yet; the one behind it waits.
        assert!(done_within(clients, before + 4, SOON), "{:?}\n{}", self.ledger(), self.chain.node.log());
        begun.elapsed()
    }

    /// All that was acknowledged is in a restore from the receiver's directory alone.
    fn holds(&self, acknowledged: &[(u32, u32)]) {
        let kept = self.chain.restored();
        let lost: Vec<_> = acknowledged.iter().filter(|row| kept.binary_search(row).is_err()).collect();
        assert!(
            lost.is_empty(),
            "acknowledged and lost: {lost:?} of {}\n{:?}",
            acknowledged.len(),
            self.ledger()
        );
    }
}

#[test]
fn commits_wait_for_the_timeout_and_are_protected_again_by_themselves() {
    let mut guarded = Guarded::new(SYNC);
    let clients = Clients::start(&guarded.chain.server, 2);
    assert!(done_within(&clients, 10, SOON), "{}", guarded.chain.node.log());
    for fault in ["shipper", "silence"] {
        match fault {
            "shipper" => guarded.chain.kill_shipper(),
            _ => guarded.chain.link.silence(),
        }
        let lines = guarded.ledger().len();
        let waited = guarded.stretch(&clients);
        println!("{fault}: commits went on after {waited:?}");
        assert!(waited > TIMEOUT / 2 && waited < TIMEOUT * 10, "{fault}: let go after {waited:?}");
        // The exposure was written down before.
        let ledger = guarded.ledger();
        let is_new = ledger.len() > lines && ledger.last().unwrap()["why"] == "waited";
        assert!(is_new, "{fault}: {ledger:?}");
        assert_eq!(guarded.chain.server.sql("show synchronous_standby_names"), "");
        guarded.wait_state("disarmed");
        match fault {
            "shipper" => guarded.chain.start_shipper(),
            _ => guarded.chain.link.open(),
        }
        guarded.wait_protected();
        guarded.wait_state("armed");
        let before = clients.acknowledged().len();
        assert!(done_within(&clients, before + 10, SOON), "{fault}: {}", guarded.chain.node.log());
    }
    let listed = guarded.chain.node.run(&["-o", "json", "exposure", "list", "orders"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let of_sync: Vec<&Value> = all(&listed).into_iter().filter(|one| one["promise"] == "sync").collect();
    assert!(of_sync.iter().any(|one| one["why"].to_string().contains("let_go")), "{listed}");
    // Protected again is protected: all machines but the receiver's directory are lost at this moment.
    guarded.chain.kill_shipper();
    guarded.kill_guard();
    guarded.chain.server.kill9();
    let acknowledged = clients.stop();
    guarded.holds(&acknowledged);
}

#[test]
fn without_a_guard_nobody_lets_commits_go_and_one_that_comes_back_does() {
    let mut guarded = Guarded::new(SYNC);
    let clients = Clients::start(&guarded.chain.server, 2);
    assert!(done_within(&clients, 10, SOON));
    let check = |guarded: &Guarded| {
        let checked = guarded.chain.node.run(&["-o", "json", "check", "orders"]);
        let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
        let findings = checked.to_string();
        (
            findings.contains("a guard of orders is connected"),
            findings.contains("no guard of orders is connected"),
        )
    };
    assert_eq!(check(&guarded), (true, false));
    guarded.wait_state("armed");
    guarded.kill_guard();
    let gone = wait_for(SOON, || (check(&guarded) == (false, true)).then_some(()));
    assert!(gone.is_some(), "a dead guard is missed");
    guarded.chain.kill_shipper();
    let_pass(Duration::from_millis(500));
    let before = clients.acknowledged().len();
    assert!(!done_within(&clients, before, TIMEOUT * 4), "nobody is there who lets them go");
    guarded.wait_state("unknown");
    guarded.start_guard();
    assert!(done_within(&clients, before + 4, SOON), "{}", guarded.chain.node.log());
    // Since nobody looked, nobody knows of that time: it is in the exposure.
    let ledger = guarded.ledger();
    let unwatched = ledger.iter().rev().find(|line| line["why"] == "unwatched");
    assert!(unwatched.is_some_and(|line| line["since"].is_string()), "{ledger:?}");
    let waited = ledger.last().unwrap();
    assert!(waited["what"] == "opened" && waited["why"] == "waited", "{ledger:?}");
    guarded.chain.start_shipper();
    guarded.wait_protected();
}

#[test]
fn a_frozen_guard_is_followed_by_another_and_does_nothing_once_it_is_thawed() {
    let mut guarded = Guarded::new(SYNC);
    let clients = Clients::start(&guarded.chain.server, 2);
    assert!(done_within(&clients, 10, SOON));
    // The other begins while an exposure is open, which is over when its turn comes.
    guarded.chain.kill_shipper();
    guarded.stretch(&clients);
    let spare = guarded.chain.node.start_as("guard", None, &[]);
    spare.wait_log("another guard acts");
    guarded.chain.start_shipper();
    guarded.wait_protected();
    let frozen = guarded.guard.replace(spare).unwrap();
    frozen.process.signal(Signal::SIGSTOP);
    guarded.chain.kill_shipper();
    let lines = guarded.ledger().len();
    guarded.stretch(&clients);
    let ledger = guarded.ledger();
    let said: Vec<&Value> = ledger[lines..].iter().map(|line| &line["why"]).collect();
    // A machine that is slow may have it look anew in between.
    assert!(said.first() == Some(&&Value::from("unwatched")), "{ledger:?}");
    assert!(said.last() == Some(&&Value::from("waited")), "{ledger:?}");
    frozen.process.signal(Signal::SIGCONT);
    guarded.chain.start_shipper();
    guarded.wait_protected();
    frozen.wait_log("another guard acts");
    guarded.wait_state("armed");
    frozen.kill9();
}

#[test]
fn no_commit_is_let_go_while_its_exposure_cannot_be_written_down() {
    let chain = Chain::unarmed(SYNC);
    // What is said when it begins is written, and its end.
    let guard = chain.node.start_as("guard", Some("guard-ledger=2*off->return"), &[]);
    let mut guarded = Guarded { chain, guard: Some(guard) };
    guarded.wait_protected();
    let clients = Clients::start(&guarded.chain.server, 2);
    assert!(done_within(&clients, 10, SOON));
    guarded.chain.kill_shipper();
    let_pass(Duration::from_millis(500));
    let before = clients.acknowledged().len();
    assert!(!done_within(&clients, before, TIMEOUT * 3), "{:?}", guarded.ledger());
    guarded.guard.as_ref().unwrap().wait_log("no commit is let go");
    guarded.kill_guard();
    guarded.start_guard();
    assert!(done_within(&clients, before + 4, SOON), "{}", guarded.chain.node.log());
}

#[test]
fn a_setting_of_somebodys_own_is_left_alone_and_counts_as_not_protected() {
    let guarded = Guarded::new(SYNC);
    let server = &guarded.chain.server;
    server.sql("alter system set synchronous_standby_names = 'ANY 1 (\"farshore orders/main\", other)'");
    server.sql("select pg_reload_conf()");
    let open = wait_for(SOON, || guarded.is_exposed().then(|| guarded.ledger().pop()).flatten());
    assert!(open.as_ref().is_some_and(|open| open["why"] == "hands_off"), "{open:?}");
    let_pass(Duration::from_secs(5));
    assert_eq!(server.sql("show synchronous_standby_names"), "ANY 1 (\"farshore orders/main\", other)");
    server.sql("alter system reset synchronous_standby_names");
    server.sql("select pg_reload_conf()");
    guarded.wait_protected();
    // A primary that is told to stop does so while its store is silent.
    guarded.chain.link.silence();
    let clients = Clients::start(server, 2);
    let_pass(Duration::from_secs(1));
    let begun = Instant::now();
    server.stop(Mode::Fast);
    println!("a fast stop took {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(clients);
}

#[test]
fn a_guard_that_may_not_change_the_setting_changes_nothing_and_says_so() {
    let chain = Chain::unarmed(SYNC);
    chain.server.sql("create role weak login replication");
    chain.server.sql("grant pg_monitor to weak");
    let url = chain.server.url();
    chain.node.configure(|text| text.replace(&url, &url.replace("postgres@", "weak@")));
    let guard = chain.node.start_as("guard", None, &[]);
    guard.wait_log("may not change synchronous_standby_names");
    chain.server.sql("grant alter system on parameter synchronous_standby_names to weak");
    chain.server.sql("grant execute on function pg_reload_conf() to weak");
    let guarded = Guarded { chain, guard: Some(guard) };
    guarded.wait_protected();
}

/// Whoever is killed, and in whatever order they come back: once commits wait again, all that was acknowledged is in the receiver's directory.
#[test]
fn soak_acknowledged_commits_are_stored_once_protection_is_back() {
    let mut campaign = Campaign::start("acknowledged_commits_are_stored_once_protection_is_back");
    let mut guarded = Guarded::new(QUICK);
    let mut acknowledged = Vec::new();
    while campaign.next_round() {
        for _ in 0..if campaign.is_brief() { 1 } else { 5 } {
            let clients = Clients::continue_from(&guarded.chain.server, 4, &acknowledged);
            let before = acknowledged.len();
            assert!(done_within(&clients, before, SOON), "{}", guarded.chain.node.log());
            let_pass(Duration::from_millis(campaign.random.below(600)));
            let away = Duration::from_millis(campaign.random.below(9000));
            let (begun, lines) = (clients.acknowledged().len(), guarded.ledger().len());
            let fault = campaign.random.below(6);
            match fault {
                0 => {
                    guarded.chain.kill_shipper();
                    let_pass(away);
                    guarded.chain.start_shipper();
                    campaign.count("killed_shippers", 1);
                }
                1 => {
                    guarded.chain.kill_receiver();
                    let_pass(away);
                    guarded.chain.start_receiver();
                    campaign.count("killed_receivers", 1);
                }
                2 => {
                    guarded.chain.link.silence();
                    let_pass(away);
                    guarded.chain.link.open();
                    campaign.count("silences", 1);
                }
                3 => {
                    guarded.kill_guard();
                    let_pass(away / 4);
                    guarded.start_guard();
                    campaign.count("killed_guards", 1);
                }
                4 => {
                    guarded.chain.kill_shipper();
                    guarded.chain.server.kill9();
                    guarded.kill_guard();
                    guarded.chain.kill_receiver();
                    guarded.chain.start_receiver();
                    guarded.chain.server.start();
                    guarded.start_guard();
                    guarded.chain.start_shipper();
                    campaign.count("killed_all", 1);
                }
                _ => {
                    guarded.chain.server.kill9();
                    guarded.chain.server.start();
                    campaign.count("killed_primaries", 1);
                }
            }
            // Nobody is dead now: commits go on within the timeout, and are protected in the end.
            assert!(done_within(&clients, begun, SOON), "{}", guarded.chain.node.log());
            // A guard or a primary that began anew is not taken at its word before.
            if fault > 2 {
                let seen = wait_for(SOON, || (guarded.ledger().len() > lines).then_some(()));
                assert!(seen.is_some(), "{}", guarded.told());
            }
            guarded.wait_protected();
            acknowledged = clients.stop();
            campaign.count("cycles", 1);
        }
        // All but the receiver's directory is lost at some moment at which commits wait.
        let clients = Clients::continue_from(&guarded.chain.server, 4, &acknowledged);
        let_pass(Duration::from_millis(campaign.random.below(300)));
        guarded.chain.kill_shipper();
        guarded.chain.server.kill9();
        acknowledged = clients.stop();
        guarded.holds(&acknowledged);
        guarded.chain.server.start();
        guarded.chain.start_shipper();
        guarded.wait_protected();
        campaign.count("restores", 1);
    }
    campaign.count("acknowledged", acknowledged.len() as u64);
    let opened =
        guarded.ledger().iter().filter(|line| line["what"] == "opened" && line["why"] == "waited").count();
    campaign.count("exposures", opened as u64);
    campaign.finish();
}
