//! Drills that a service does: asked for, due by schedule, cancelled, and done anew when the service dies.

use std::time::Duration;

use farshore_testkit::process::{let_pass, wait_for};
use serde_json::Value;

use crate::rig::{configure, nothing_left, place, verifies, working_in};
use crate::service::{Node, SOON, all, first};

fn queue(node: &Node) -> String {
    node.json(&["drill", "run", "orders", "--no-wait"])["id"].as_str().unwrap().to_owned()
}

fn wait_state(node: &Node, id: &str, state: &str) -> Value {
    let show = || node.json(&["job", "show", id]);
    let shown = wait_for(SOON, || Some(show()).filter(|job| job["state"] == state));
    shown.unwrap_or_else(|| panic!("never {state}: {}\n{}", show(), node.log()))
}

#[test]
fn a_drill_is_done_by_a_service_and_its_result_names_its_certificate() {
    let (_server, node) = crate::servers::shipped();
    let job = queue(&node);
    let service = node.start(None);
    let done = wait_state(&node, &job, "succeeded");
    assert_eq!(
        (&done["result"]["verdict"], &done["result"]["certified"]),
        (&"passed".into(), &true.into()),
        "{done}"
    );
    verifies(&node, done["result"]["drill"].as_str().unwrap());
    configure(
        &node,
        "[databases.orders.drill]\nassertions = [{ name = \"never\", sql = \"select false\" }]\n",
    );
    service.stop();
    let service = node.start(None);
    let job = queue(&node);
    let failed = wait_state(&node, &job, "failed");
    assert_eq!(failed["problem"]["code"], "FS-0801", "{failed}");
    service.stop();
    nothing_left(&place(&node));
}

#[test]
fn a_drill_that_is_cancelled_removes_its_copy_before_it_is_called_cancelled() {
    let (_server, node) = crate::servers::shipped();
    configure(
        &node,
        "[databases.orders.drill]\nassertions = [{ name = \"slow\", sql = \"select pg_sleep(50) is not null\" }]\n",
    );
    let service = node.start(None);
    let job = queue(&node);
    let checking = wait_for(SOON, || {
        let shown = node.json(&["job", "show", &job]);
        (shown["phase"] == "checking the copy").then_some(())
    });
    assert!(checking.is_some(), "{}", node.log());
    assert!(!working_in(&place(&node)).is_empty());
    node.json(&["job", "cancel", &job]);
    let cancelled = wait_state(&node, &job, "cancelled");
    assert_eq!(cancelled["problem"]["code"], "FS-0604", "{cancelled}");
    nothing_left(&place(&node));
    assert!(all(&node.json(&["drill", "list"])).is_empty(), "it came to no verdict");
    service.stop();
}

#[test]
fn a_drill_whose_service_dies_at_any_step_is_done_by_the_next_and_nothing_is_left() {
    let (node, _) = crate::files::shipped();
    // Each takes as long as it takes until somebody counts as silent: the other steps are walked by the command's own test.
    for step in
        ["drill-marked=return", "drill-opened=return", "drill-cleaned=return", "drill-certified=return"]
    {
        let job = queue(&node);
        let mut service = node.start(Some(step));
        assert!(service.process.wait(SOON).is_some(), "it never came to {step}\n{}", service.log());
        let service = node.start(None);
        let done = wait_state(&node, &job, "succeeded");
        assert_eq!(done["attempt"], 2, "{step}: {done}");
        assert_eq!(done["result"]["verdict"], "passed", "{step}: {done}");
        service.stop();
        nothing_left(&place(&node));
    }
}

#[test]
fn a_service_that_stops_in_the_midst_of_a_drill_clears_it_and_gives_it_back() {
    let (_server, node) = crate::servers::shipped();
    configure(
        &node,
        "[databases.orders.drill]\nassertions = [{ name = \"slow\", sql = \"select pg_sleep(20) is not null\" }]\n",
    );
    let service = node.start(None);
    let job = queue(&node);
    let checking =
        wait_for(SOON, || (node.json(&["job", "show", &job])["phase"] == "checking the copy").then_some(()));
    assert!(checking.is_some(), "{}", node.log());
    service.stop();
    nothing_left(&place(&node));
    assert_eq!(node.json(&["job", "show", &job])["state"], "queued");
}

#[test]
fn a_drill_that_is_due_by_schedule_is_done() {
    let (node, _) = crate::files::shipped();
    node.configure(|text| {
        text.replace(
            "[databases.orders]",
            "[databases.orders.schedule]\ndrill = \"* * * * *\"\n[databases.orders]",
        )
    });
    let service = node.start(None);
    let recorded =
        wait_for(SOON, || first(&node.json(&["schedule", "list"]))["answered"].is_string().then_some(()));
    assert!(recorded.is_some(), "{}", node.log());
    let done = wait_for(SOON, || {
        let jobs = node.json(&["job", "list"]);
        let due =
            all(&jobs).into_iter().find(|job| job["asked_via"] == "schedule" && job["state"] == "succeeded");
        due.cloned()
    });
    let done = done.unwrap_or_else(|| panic!("{}\n{}", node.json(&["job", "list"]), node.log()));
    assert_eq!(done["kind"], "drill");
    verifies(&node, done["result"]["drill"].as_str().unwrap());
    let_pass(Duration::from_millis(100));
    service.stop();
    nothing_left(&place(&node));
}
