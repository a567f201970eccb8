//! What `status` says, and what its end means to a monitor.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use farshore_testkit::process::wait_for;
use serde_json::Value;

use super::primary::Primary;
use super::story::Story;
use crate::service::{Node, SOON};

/// Three heartbeats of a second without any are silence; the rest is what a look takes on a busy machine.
const SILENCE: Duration = Duration::from_secs(3 + 3);

pub fn a_status_is_a_success_while_all_is_well_names_the_lag_and_is_never_connected_once_the_service_was_killed<
    P: Primary,
>() {
    let (mut story, service) = Story::<P>::shipped();
    story.commit(1);
    story.wait_stored();
    let end = story.node.end().unwrap().to_string();
    let well =
        wait_for(SOON, || status(&story.node).filter(|(_, status)| status["targets"][0]["stored"] == *end));
    let (exit, well) = well.unwrap_or_else(|| panic!("{:?}\n{}", status(&story.node), story.node.log()));
    assert_eq!((exit, &well["state"], &well["why"]), (0, &"connected".into(), &Value::Null), "{well}");
    assert_eq!((&well["ship_lag_bytes"], &well["ship_lag_seconds"]), (&0.into(), &0.0.into()), "{well}");

    takes(&story.node, false);
    story.primary.commit(2);
    let behind = wait_for(SOON, || {
        let (_, status) = status(&story.node)?;
        let behind = status["ship_lag_bytes"].as_u64() > Some(0) && status["state"] == "accumulating";
        behind.then_some(status)
    });
    let behind = behind.unwrap_or_else(|| panic!("{:?}\n{}", status(&story.node), story.node.log()));
    assert!(behind["ship_lag_seconds"].as_f64() > Some(0.0), "{behind}");
    assert_eq!(behind["targets"][0]["stored"], *end, "nothing is stored that is not: {behind}");
    takes(&story.node, true);
    story.wait_stored();
    story.node.wait_connected();

    service.kill9();
    let killed = Instant::now();
    let unknown = wait_for(SOON, || status(&story.node).filter(|(_, status)| status["state"] != "connected"));
    assert!(killed.elapsed() < SILENCE, "called connected for {:?}", killed.elapsed());
    let (exit, unknown) = unknown.expect("it is said");
    assert_eq!((exit, &unknown["state"]), (9, &"unknown".into()), "{unknown}");
    let why = unknown["why"].as_str().unwrap_or_default();
    assert!(why.contains("is `farshore run` alive?"), "{unknown}");
    assert!(unknown["ship_lag_bytes"].is_null() && unknown["ship_lag_seconds"].is_null(), "{unknown}");
    let silent = wait_for(SILENCE, || {
        let (exit, status) = status(&story.node).unwrap();
        assert_eq!((exit, &status["state"]), (9, &"unknown".into()), "{status}");
        status["why"].as_str()?.contains("no service has written here since").then_some(())
    });
    assert!(silent.is_some(), "{:?}", status(&story.node));
}

/// How `status` ended, and what it said.
fn status(node: &Node) -> Option<(i32, Value)> {
    let output = node.run(&["-o", "json", "status", "orders"]);
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some((output.status.code()?, answer["items"][0].clone()))
}

/// Whether the store takes anything. Objects are written there first; what it has of tails is closed, for good.
fn takes(node: &Node, takes: bool) {
    let mode = if takes { 0o755 } else { 0o555 };
    std::fs::set_permissions(node.folder().join("journal/.tmp"), Permissions::from_mode(mode)).unwrap();
    if !takes {
        close_tails(&node.folder().join("journal/.tails/db/orders"), 2);
    }
}

/// Closes the tails of all generations so many folders below.
fn close_tails(folder: &Path, below: u32) {
    if below == 0 {
        std::fs::write(folder.join("closed"), "").unwrap();
        return;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        close_tails(&entry.unwrap().path(), below - 1);
    }
}
