//! Expiry that a service does, as a job.

use farshore_testkit::process::wait_for;
use serde_json::Value;

use crate::service::{self, SOON, flushed, let_pass};
use crate::{DAY, Story, age_jobs, walk};

/// Days of some seconds, and perhaps a step at which the service ends as by a kill.
fn days(crash: &str) -> String {
    format!("expire-day=return({}){crash}", DAY.as_secs())
}

impl Story {
    fn ask(&self) -> String {
        self.node.json(&["backup", "expire", "orders", "--no-wait"])["id"].as_str().unwrap().to_owned()
    }

    fn job(&self, id: &str) -> Value {
        self.node.json(&["job", "show", id])
    }

    fn ended(&self, id: &str) -> Value {
        let ended = wait_for(SOON, || Some(self.job(id)).filter(|job| job["finished_at"].is_string()));
        ended.unwrap_or_else(|| panic!("not done: {}\n{}", self.job(id), self.node.log()))
    }

    /// A day like any other, at whose end a service expires; what its job came to, or nothing when the service died of it.
    fn day_with_expiry(&mut self, crash: &str) -> Option<Value> {
        let mut service = self.node.start(Some(&days(crash)));
        self.node.wait_connected();
        self.note();
        if self.day == 0 {
            self.node.wait_backup(1);
        } else {
            let output = self.node.run(&["backup", "run", "orders"]);
            assert!(output.status.success(), "{output:?}\n{}", self.node.log());
        }
        self.note();
        self.node.wait_end(1, flushed(&self.server));
        let job = self.ask();
        let came = match crash.is_empty() {
            true => Some(self.ended(&job)),
            false => wait_for(SOON, || match service.process.ended().is_some() {
                true => Some(None),
                false => Some(self.job(&job)).filter(|job| job["finished_at"].is_string()).map(Some),
            })
            .expect("neither done nor dead"),
        };
        if came.is_some() {
            service.stop();
        }
        self.day += 1;
        self.rest_of_the_day();
        came
    }
}

fn deleted(job: &Value) -> u64 {
    let shown = job["result"]["expired"].as_array().unwrap_or_else(|| panic!("{job}"));
    shown.iter().map(|one| one["deleted"]["objects"].as_u64().unwrap()).sum()
}

#[test]
fn a_service_that_may_delete_expires_when_asked_and_after_a_kill_says_so_and_goes_on() {
    let mut story = Story::begin("window = \"2d\"\ncount = 1");
    // One that may not leaves it alone.
    let service = story.node.start(Some(&days("")));
    story.node.wait_backup(1);
    let unmet = story.ask();
    // What would go it says all the same: it knows the rule.
    let preview = ["backup", "expire", "orders", "--dry-run", "--no-wait"];
    let preview = story.ended(story.node.json(&preview)["id"].as_str().unwrap());
    let lines = &preview["result"]["preview"];
    assert_eq!((&preview["state"], &preview["kind"]), (&"succeeded".into(), &"preview".into()), "{preview}");
    assert_eq!(
        (&lines[0]["dry_run"], &lines[0]["marking"]),
        (&true.into(), &serde_json::json!([])),
        "{preview}"
    );
    assert_eq!(lines[0]["kept"].as_array().map(Vec::len), Some(1), "{preview}");
    let_pass(std::time::Duration::from_secs(3));
    assert_eq!(story.job(&unmet)["state"], "queued", "{}", story.node.log());
    service.stop();
    story.node.configure(|text| text.replace("[service]\n", "[service]\nexpire = true\n"));
    story.day = 1;
    let mut gone = 0;
    for _ in 0..6 {
        let job = story.day_with_expiry("").unwrap();
        assert_eq!((&job["state"], &job["kind"]), (&"succeeded".into(), &"expire".into()), "{job}");
        gone += deleted(&job);
    }
    let met = story.job(&unmet);
    assert_eq!((&met["state"], deleted(&met)), (&"succeeded".into(), 0), "{met}");
    assert!(gone > 0, "nothing ever went");
    story.is_whole();
    // It dies in the midst of a deletion: the next service says that it is not known how far it came, and begins nothing anew.
    let died = (0..4).any(|_| story.day_with_expiry(";expire-backup=return").is_none());
    assert!(died, "it never came to a deletion");
    let job = service::first(&story.node.json(&["job", "list"])).clone();
    assert_eq!((&job["kind"], &job["state"]), (&"expire".into(), &"running".into()), "{job}");
    let service = story.node.start(Some(&days("")));
    let id = job["id"].as_str().unwrap();
    let failed = story.ended(id);
    assert_eq!((&failed["state"], &failed["attempt"]), (&"failed".into(), &1.into()), "{failed}");
    assert!(failed["problem"]["safe"].as_str().unwrap().contains("not deleted"), "{failed}");
    // For a day it may be cut off and go on: the next one waits.
    let next = story.ask();
    let_pass(std::time::Duration::from_secs(3));
    assert_eq!(story.job(&next)["state"], "queued");
    let before = walk(&story.node.folder().join("journal"));
    age_jobs(&story.node);
    let done = story.ended(&next);
    assert_eq!(done["state"], "succeeded", "{done}\n{}", story.node.log());
    assert!(deleted(&done) > 0 && walk(&story.node.folder().join("journal")) < before, "{done}");
    service.stop();
    story.is_whole();
    story.tells_what_expired_as_a_gap();
    let newest = story.noted.last().unwrap().clone();
    assert_eq!(story.restored_rows(&newest), newest.rows);
}
