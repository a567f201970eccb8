//! Jobs whose service is killed: at each step of each kind, and at any moment.
//!
//! A day of expiry lasts seconds here, so that each round has something to delete.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farshore_testkit::process::wait_for;
use farshore_testkit::soak::Campaign;
use serde_json::Value;

use crate::restores::{end_server, marker, with_root};
use crate::rig::{nothing_left, place};
use crate::service::{self, Node, SOON, Service, all, let_pass};
use crate::{list, queue, shipped, show};

/// How long a day is, for whoever deletes.
const DAY: Duration = Duration::from_secs(2);
/// Where the copy of a restore answers.
const PORT: &str = "5998";

/// What a service does as a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Backup,
    Verify,
    Drill,
    Plan,
    Preview,
    Restore,
    Expire,
}

/// Each kind, the steps at which its service may die, the longest that it is let work before it is killed at any moment (milliseconds),
/// and its name among the counts.
const KINDS: [(Work, &[&str], u64, &str); 7] = [
    (
        Work::Backup,
        &["job-claimed", "job-said", "job-said=3*off->", "job-done", "job-ended"],
        1500,
        "killed_backups",
    ),
    (Work::Verify, &["job-claimed", "job-said", "job-done", "job-ended"], 1500, "killed_verifications"),
    (
        Work::Drill,
        &[
            "job-claimed",
            "drill-begun",
            "drill-marked",
            "drill-fetching",
            "drill-replaying",
            "drill-opened",
            "drill-checking",
            "drill-checked",
            "drill-clearing",
            "drill-cleaned",
            "drill-certified",
            "job-done",
            "job-ended",
        ],
        5000,
        "killed_drills",
    ),
    (Work::Plan, &["job-claimed", "job-done", "job-ended"], 200, "killed_plans"),
    (Work::Preview, &["job-claimed", "job-done", "job-ended"], 500, "killed_previews"),
    (
        Work::Restore,
        &[
            "job-claimed",
            "restore-copying",
            "restore-copying=3*off->",
            "restore-synchronising",
            "restore-replaying",
            "restore-opening",
            "job-done",
            "job-ended",
        ],
        4000,
        "killed_restores",
    ),
    (
        Work::Expire,
        &["job-claimed", "expire-backup", "expire-run", "job-done", "job-ended"],
        700,
        "killed_expiries",
    ),
];

impl Work {
    /// Whether another service begins it anew.
    const fn is_begun_anew(self) -> bool {
        !matches!(self, Self::Restore | Self::Expire)
    }
}

/// What a service of this test does at its steps: a short day, and perhaps an end as by a kill.
fn steps(crash: Option<&str>) -> String {
    let mut steps = format!("expire-day=return({})", DAY.as_secs());
    if let Some(crash) = crash {
        let equals = if crash.contains('=') { "" } else { "=" };
        write!(steps, ";{crash}{equals}return").unwrap();
    }
    steps
}

/// A node of which everything may be asked.
struct Desk {
    node: Node,
    root: PathBuf,
    token: String,
}

impl Desk {
    fn new(node: Node) -> Self {
        node.configure(|text| {
            let text = text.replace("[service]\n", "[service]\nexpire = true\n");
            format!("{text}\n[databases.orders.retention]\nwindow = \"4d\"\ncount = 1\n")
        });
        let root = with_root(&node);
        let made = node.run(&["token", "create", "tests", "--role", "restorer"]);
        assert!(made.status.success(), "{made:?}");
        let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        Self { node, root, token }
    }

    /// Has something marked and old enough to go: one base backup more, and those before it.
    fn makes_something_expire(&self) {
        let service = self.node.start(Some(&steps(None)));
        service.address();
        self.node.wait_connected();
        let taken = self.node.run(&["backup", "run", "orders"]);
        assert!(taken.status.success(), "{taken:?}\n{}", service.log());
        let_pass(DAY);
        let marked = self.node.run_until(&steps(None), &["--yes", "backup", "expire", "orders"]);
        assert!(marked.status.success(), "{marked:?}");
        let_pass(DAY);
        service.stop();
    }

    /// Asks for work; its job. A plan is asked of the service itself, the others wait for one.
    fn ask(&self, work: Work, copy: &Path) -> Option<String> {
        let words: &[&str] = match work {
            Work::Backup => &["backup", "run", "orders"],
            Work::Verify => &["verify", "orders"],
            Work::Drill => &["drill", "run", "orders"],
            Work::Plan => return None,
            Work::Preview => &["backup", "expire", "orders", "--dry-run"],
            Work::Expire => &["backup", "expire", "orders"],
            Work::Restore => {
                let to = copy.to_str().unwrap();
                &["restore", "orders", "--latest", "--to", to, "--start", "--port", PORT, "--then", "promote"]
            }
        };
        Some(queue(&self.node, words))
    }

    /// Asks a service for a plan over REST.
    fn ask_for_a_plan(&self, service: &Service, round: u64) -> String {
        let body = r#"{"database": "orders", "target": {"latest": true}}"#;
        let mut stream = TcpStream::connect(service.address()).unwrap();
        let asked = format!(
            "POST /api/v1/plans HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             idempotency-key: round-{round}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(asked.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A service that dies as soon as it has the job may not have answered.
        let _cut_off = stream.read_to_end(&mut answer);
        let answered = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answered.starts_with("HTTP/1.1 202"), "{answered}");
        let newest = || list(&self.node).into_iter().find(|job| job["kind"] == "plan");
        let job = newest().unwrap_or_else(|| panic!("no plan was asked for: {answered}"));
        job["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a job is over, whatever came of it.
    fn over(&self, id: &str) -> Value {
        let over = wait_for(SOON + Duration::from_secs(30), || {
            Some(show(&self.node, id)).filter(|job| job["finished_at"].is_string())
        });
        over.unwrap_or_else(|| panic!("not over: {}\n{}", show(&self.node, id), self.node.log()))
    }

    /// What was killed counts as perhaps at work for a day, and nothing goes meanwhile: a day later it does not.
    fn a_day_later(&self) {
        self.node.change_catalog("update job set silent = 0, updated_at = 1 where finished_at is not null");
    }
}

/// A job whose service is killed is done by the next one where that does no harm, and is called failed where it may; it never succeeded unseen, and no scratch is left.
///
/// Method: kinds and steps are dealt like cards, so that each comes up before any comes twice; half of the kills are at a random moment of the work.
#[test]
fn soak_jobs_of_services_that_die() {
    let mut campaign = Campaign::start("jobs_of_services_that_die");
    let (_server, node) = shipped();
    let desk = Desk::new(node);
    let node = &desk.node;
    let (mut cards, mut round) = (Vec::new(), 0);
    while campaign.next_round() {
        round += 1;
        if cards.is_empty() {
            let of =
                |kind: usize| KINDS[kind].1.iter().flat_map(move |step| [(kind, Some(*step)), (kind, None)]);
            cards.extend((0..KINDS.len()).flat_map(of));
        }
        let card = campaign.random.below(cards.len() as u64);
        let (kind, step) = cards.swap_remove(usize::try_from(card).unwrap());
        let (work, _, longest, counted) = KINDS[kind];
        if work == Work::Expire {
            desk.makes_something_expire();
        }
        let copy = desk.root.join(format!("copy-{round}"));
        let asked = desk.ask(work, &copy);
        let mut service = node.start(Some(&steps(step)));
        let job = asked.unwrap_or_else(|| desk.ask_for_a_plan(&service, round));
        let what = format!("{work:?} at {step:?}, {job}");
        match step {
            None => {
                service.wait_log("a job begins");
                let_pass(Duration::from_millis(campaign.random.below(longest)));
                service.kill9();
                campaign.count("at_any_moment", 1);
            }
            // Not each expiry comes to each of its steps.
            Some(_) => {
                let died = wait_for(SOON, || {
                    let died = service.process.ended().is_some();
                    (died || show(node, &job)["finished_at"].is_string()).then_some(died)
                });
                // `job-ended` is reached a moment behind the job's end.
                let died = died.unwrap_or_else(|| panic!("{what}: never came to it\n{}", service.log()))
                    || service.process.wait(Duration::from_secs(2)).is_some();
                assert!(died || work == Work::Expire, "{what}: never came to it\n{}", service.log());
                if !died {
                    service.stop();
                }
                campaign.count("at_a_step", u64::from(died));
            }
        }
        let before = show(node, &job);
        let left = marker(&copy);
        let service = node.start(Some(&steps(None)));
        // One that is told to end before it listens for that would be ended by the signal itself.
        service.address();
        let after = desk.over(&job);
        let had_ended = before["finished_at"].is_string();
        let was_begun = before["attempt"] != 0;
        if had_ended {
            assert_eq!(
                (&after["state"], &after["attempt"], &after["result"]),
                (&before["state"], &before["attempt"], &before["result"]),
                "{what}: what was said of it changed"
            );
        } else if work.is_begun_anew() || !was_begun {
            let attempts = before["attempt"].as_u64().unwrap() + 1;
            assert_eq!(
                (&after["state"], &after["attempt"], &after["problem"]),
                (&"succeeded".into(), &attempts.into(), &Value::Null),
                "{what}: {after}\n{}",
                node.log()
            );
            campaign.count("begun_anew", u64::from(attempts == 2));
        } else {
            assert_eq!(
                (&after["state"], &after["problem"]["code"], &after["attempt"]),
                (&"failed".into(), &"FS-0603".into(), &1.into()),
                "{what}: {after}"
            );
            campaign.count("called_failed", 1);
        }
        if work == Work::Restore {
            // Nobody wrote there since, and only a whole copy can be taken for a database.
            let found = marker(&copy);
            assert!(!was_begun || found == left, "{what}: {left:?} and then {found:?}");
            let is_whole = found.as_deref() == Some("complete");
            assert_eq!(copy.join("global/pg_control").exists(), is_whole, "{what}: {found:?}");
            campaign.count("whole_copies", u64::from(is_whole));
            end_server(&copy);
            let _was_perhaps_never_made = std::fs::remove_dir_all(&copy);
        }
        // What a drill left is cleared away by whoever is there next.
        nothing_left(&place(node));
        service.stop();
        desk.a_day_later();
        campaign.count(counted, 1);
    }
    let verified = node.run(&["-o", "json", "verify", "orders"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let unended: Vec<Value> = list(node).into_iter().filter(|job| job["finished_at"].is_null()).collect();
    assert!(unended.is_empty(), "{unended:?}");
    let backups = node.json(&["backup", "list", "orders"]);
    assert!(all(&backups).iter().any(|backup| backup["state"] == "complete"), "{backups}");
    let restored = node.restore(&["--latest"]);
    assert_eq!(service::first(&node.json(&["verify", "orders"]))["sound"], true);
    drop(restored);
    campaign.finish();
}
