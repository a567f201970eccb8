//! Commits while the service is killed, and while there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_journal::Offset;
use serde_json::Value;

use super::primary::Primary;
use super::story::{Story, position, up_to};
use crate::service::{Node, let_pass};

/// How much a commit's time in the journal may be later than the moment at which an application was told of it: a database without
/// commit times has those of the looks that saw them.
const SEEN_WITHIN: TimeDelta = TimeDelta::seconds(1);

/// Ends the writer, however the rest goes.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What farshore said of a database, when its service was dead.
struct Claim {
    /// Up to where all of it can be restored.
    position: String,
    time: DateTime<Utc>,
}

impl Claim {
    fn of(node: &Node) -> Self {
        let status = node.status().expect("the catalog knows it");
        let end = node.end().expect("there is a journal");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{status}")).to_owned();
        let stored: Offset = text(&status["stored"]).parse().unwrap();
        assert!(stored <= end.offset, "the journal ends at {end}: {status}");
        let window = &status["window"];
        Self { position: text(&window["to_position"]), time: text(&window["to_time"]).parse().unwrap() }
    }
}

pub fn a_service_that_is_killed_while_commits_go_on_misses_none_and_calls_none_stored_that_a_restore_lacks<
    P: Primary,
>() {
    let (mut story, mut service) = Story::<P>::shipped();
    let (node, primary) = (&story.node, &mut story.primary);
    let end = AtomicBool::new(false);
    let (told, claims, service) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut told = Vec::new();
            while !end.load(Ordering::Relaxed) {
                primary.commit(told.len() as u64 + 1);
                told.push(Utc::now());
                let_pass(Duration::from_millis(5));
            }
            told
        });
        let ending = Ending(&end);
        let mut claims = Vec::new();
        // The one in the middle is asked to end: what was committed goes on all the same.
        for (millis, is_killed) in [(1900, true), (1300, false), (1600, true)] {
            let_pass(Duration::from_millis(millis));
            match is_killed {
                true => service.kill9(),
                false => service.stop(),
            }
            claims.push(Claim::of(node));
            service = node.start(None);
        }
        drop(ending);
        (writer.join().unwrap(), claims, service)
    });
    story.wait_stored();
    service.stop();
    let last = told.len() as u64;
    assert_eq!(story.primary.rows(), up_to(last));
    assert_eq!(story.node.incarnations().len(), 1, "{}", story.node.log());
    assert_eq!(story.node.walk(&|_, _| {}).len(), 1);
    assert_eq!(story.restored(&["--latest"]), up_to(last));
    // Of the claims that of the last kill is restored, the others are planned.
    for claim in &claims {
        let plan = story.plan(&["--pos", &claim.position]);
        assert!(claim.position.ends_with(plan["resolved"]["position"].as_str().unwrap()), "{plan}");
    }
    let claim = claims.last().unwrap();
    let held = story.restored(&["--pos", &claim.position]);
    assert_eq!(held, up_to(held.len() as u64));
    let at_least = told.iter().filter(|told| **told < claim.time - SEEN_WITHIN).count();
    assert!(
        at_least > 0 && held.len() >= at_least,
        "{} of {at_least} rows that were called stored",
        held.len()
    );
}

pub fn what_was_committed_while_no_service_ran_is_shipped_at_the_next_start_without_a_new_incarnation<
    P: Primary,
>() {
    let (mut story, service) = Story::<P>::shipped();
    let seen = story.commit_all(1..=2);
    story.wait_stored();
    service.stop();
    let unseen: Vec<Option<u64>> = (3..=5).map(|row| story.primary.commit(row)).collect();
    let service = story.node.start(None);
    story.wait_stored();
    service.kill9();
    // Both are gone, and the database comes back first.
    story.primary.crash();
    story.primary.start();
    story.primary.commit(6);
    let service = story.node.start(None);
    story.wait_stored();
    story.commit(7);
    service.stop();
    assert_eq!(story.node.incarnations().len(), 1, "{}", story.node.log());
    assert_eq!(story.node.walk(&|_, _| {}).len(), 1);
    assert_eq!(story.node.backups(), 1, "no other base was needed");
    assert_eq!(story.primary.rows(), up_to(7));
    assert_eq!(story.restored(&["--latest"]), up_to(7));
    // Not in one lump: every commit of the time without a service can be restored to.
    let commits = story.commits();
    let second = commits.iter().position(|point| position(point) == seen[1].position).unwrap();
    let fourth = &commits[second + 2];
    assert!(unseen[1].is_none_or(|xid| fourth["xid"] == xid), "{unseen:?} {commits:?}");
    assert_eq!(story.restored(&["--pos", &position(fourth)]), up_to(4));
}
