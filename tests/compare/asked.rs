//! Comparisons that a service does: asked for by the command line, over REST and by a clock.

use farshore_testkit::pg::Major;
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use serde_json::Value;

use crate::rig::{Rig, primary};
use crate::service::{SOON, all};

/// Asks the service, as `curl` does.
fn asked(rig: &Rig, token: &str, path: &str, body: Option<&str>) -> Value {
    let url = format!("http://{}/api/v1{path}", rig.service.as_ref().unwrap().address());
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "-H", &format!("Authorization: Bearer {token}"), &url]);
    if let Some(body) = body {
        curl.args(["-H", "Content-Type: application/json", "-H", "Idempotency-Key: one", "--data", body]);
    }
    let output = curl.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{url}: {why}: {text} {output:?}"))
}

fn ended(rig: &Rig, id: &str) -> Value {
    let is_over = |job: &Value| matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled"));
    let shown = || Some(rig.node.json(&["job", "show", id])).filter(is_over);
    wait_for(SOON, shown).unwrap_or_else(|| panic!("{}", rig.node.log()))
}

#[test]
fn a_service_compares_when_it_is_asked_over_rest_or_by_a_clock_and_says_what_came_of_it() {
    let primary = primary(Major::V15).start();
    primary.sql("create table plain (id int primary key); insert into plain select generate_series(1, 100)");
    let mut rig = Rig::of(primary);
    // The service is to know the standby's address, and the clock.
    rig.service.take().unwrap().stop();
    rig.node.configure(|text| format!("{text}\n[databases.orders.schedule]\ncompare = \"* * * * *\"\n"));
    let port = rig.port.clone();
    rig.node.configure(|text| {
        text.replace(
            "listen = \"127.0.0.1:0\"\n[serve.users",
            &format!("listen = \"127.0.0.1:{port}\"\n[serve.users"),
        )
    });
    user::give(rig.node.folder());
    rig.service = Some(rig.node.start(None));
    rig.stands("streaming");
    let made = rig.node.run(&["token", "create", "tests", "--role", "operator"]);
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let job = asked(&rig, &token, "/compares", Some("{\"database\":\"orders\",\"standby\":\"oslo\"}"));
    let id = job["id"].as_str().unwrap_or_else(|| panic!("{job:#}"));
    let job = ended(&rig, id);
    assert_eq!(job["state"], "succeeded", "{job:#}\n{}", rig.node.log());
    assert_eq!(job["result"]["compares"][0]["verdict"], "equal", "{job:#}");
    let compare = job["result"]["compares"][0]["compare"].as_str().unwrap();
    let shown = asked(&rig, &token, &format!("/compares/{compare}"), None);
    assert_eq!(shown["compare"]["verdict"], "equal", "{shown:#}");
    assert_eq!(shown["statement"]["databases"][0]["tables"][0]["rows"], 100, "{shown:#}");
    let listed = asked(&rig, &token, "/compares?database=orders", None);
    assert!(listed["items"].as_array().unwrap().iter().any(|one| one["id"] == compare), "{listed:#}");
    // What differs, or is not known, fails the job: whoever is told of failed work is told of it.
    rig.primary.sql("create unlogged table scratch (id int)");
    let id = rig.node.json(&["compare", "run", "orders", "--no-wait"])["id"].as_str().unwrap().to_owned();
    let job = ended(&rig, &id);
    assert_eq!((&job["state"], &job["problem"]["code"]), (&"failed".into(), &"FS-1102".into()), "{job:#}");
    rig.primary.sql("drop table scratch");
    // By the clock: within two minutes.
    let by_clock = || {
        let jobs = rig.node.json(&["job", "list"]);
        let found =
            all(&jobs).into_iter().find(|job| job["asked_via"] == "schedule" && job["kind"] == "compare");
        found.filter(|job| job["state"] == "succeeded").cloned()
    };
    let found = wait_for(SOON * 2, by_clock);
    assert!(found.is_some(), "{}", rig.node.log());
}
