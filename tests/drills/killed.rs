//! A drill that is killed in any phase says nothing that is not true, and is cleared away.

use farshore_testkit::process::wait_for;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::rig::{drill, nothing_left, place, working_in};
use crate::service::{Node, SOON, all};

/// Every step of a drill at which its process may die.
pub const STEPS: [&str; 9] = [
    "drill-begun=return",
    "drill-marked=return",
    "drill-fetching=return",
    "drill-replaying=return",
    "drill-opened=return",
    "drill-checked=return",
    "drill-clearing=return",
    "drill-cleaned=return",
    "drill-certified=return",
];

/// The newest job.
pub fn newest(node: &Node) -> Value {
    all(&node.json(&["job", "list"]))[0].clone()
}

/// Those at which there is a server, or begins to be one.
const STEPS_OF_SERVERS: [&str; 4] =
    ["drill-fetching=return", "drill-replaying=return", "drill-checked=return", "drill-clearing=return"];

/// Has a drill killed at each of these steps; what it left is gone with the next drill, which passes.
fn at_each_step(node: &Node, steps: &[&str]) {
    let certified = || all(&node.json(&["drill", "list"])).len();
    for step in steps {
        let before = certified();
        let killed = node.run_until(step, &["drill", "run", "orders"]);
        assert!(!killed.status.success() && killed.status.code().is_none(), "{step}: {killed:?}");
        let job = newest(node);
        assert_eq!(job["kind"], "drill", "{step}");
        assert!(matches!(job["state"].as_str(), Some("running" | "unknown")), "{step}: {job}");
        assert_eq!(certified(), before, "{step}: one that was killed came to no verdict in the catalog");
        drill(node, &[]).passed();
        nothing_left(&place(node));
    }
}

#[test]
fn a_files_drill_that_is_killed_at_any_step_leaves_nothing_after_the_next() {
    let (node, _) = crate::files::shipped();
    at_each_step(&node, &STEPS);
}

#[test]
fn a_servers_drill_that_is_killed_at_any_step_leaves_no_file_and_no_server_after_the_next() {
    let (_server, node) = crate::servers::shipped();
    // The server outlives its drill, or there would be nothing to clear.
    let killed = node.run_until("drill-opened=return", &["drill", "run", "orders"]);
    assert!(killed.status.code().is_none(), "{killed:?}");
    let servers = working_in(&place(&node));
    assert!(servers.iter().any(|line| line.contains("postgres")), "{servers:?}");
    at_each_step(&node, &STEPS_OF_SERVERS);
}

#[test]
fn what_a_killed_drill_left_is_gone_once_a_service_starts_and_its_job_is_called_failed() {
    let (_server, node) = crate::servers::shipped();
    let killed = node.run_until("drill-opened=return", &["drill", "run", "orders"]);
    assert!(killed.status.code().is_none(), "{killed:?}");
    let job = newest(&node);
    let id = job["id"].as_str().unwrap();
    let service = node.start(None);
    let gone = wait_for(SOON, || {
        (working_in(&place(&node)).is_empty() && std::fs::read_dir(place(&node)).unwrap().count() == 0)
            .then_some(())
    });
    assert!(gone.is_some(), "{}", service.log());
    let failed =
        wait_for(SOON, || Some(node.json(&["job", "show", id])).filter(|job| job["state"] == "failed"));
    let failed = failed.unwrap_or_else(|| panic!("{}\n{}", node.json(&["job", "show", id]), service.log()));
    assert_eq!(failed["problem"]["code"], "FS-0603", "{failed}");
    service.stop();
}

#[test]
fn a_drill_that_goes_on_is_not_cleared_by_another() {
    let (node, _) = crate::files::shipped();
    let log = node.folder().join("frozen.log");
    let frozen = node.beside_others(&["drill", "run", "orders"], "frozen.log");
    let marked = wait_for(SOON, || {
        let entries = std::fs::read_dir(place(&node)).ok()?;
        entries.filter_map(Result::ok).find(|entry| entry.path().join("farshore-drill.json").exists())
    });
    let Some(marked) = marked else { panic!("{}", std::fs::read_to_string(log).unwrap()) };
    frozen.signal(Signal::SIGSTOP);
    if !marked.path().join("farshore-drill.json").exists() {
        // It was over before it could be frozen: nothing is shown by this run of the test.
        return;
    }
    drill(&node, &[]).passed();
    assert!(marked.path().join("farshore-drill.json").exists(), "another drill cleared what is still in use");
    frozen.signal(Signal::SIGCONT);
    let mut frozen = frozen;
    let ended = frozen.wait(SOON).unwrap();
    assert!(ended.success(), "{}", std::fs::read_to_string(log).unwrap());
    nothing_left(&place(&node));
}
