//! Restores that a service does, as jobs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::service::{Node, SOON};
use crate::{shipped, shipped_much, show, wait_state};

const MARKER: &str = "farshore-restore.json";

/// Lets services restore beneath a folder; it.
pub fn with_root(node: &Node) -> PathBuf {
    let root = node.folder().join("restores");
    std::fs::create_dir_all(&root).unwrap();
    user::give(&root);
    node.configure(|text| text.replace("[service]\n", "[service]\nrestore_roots = [\"restores\"]\n"));
    root
}

/// Asks a service for a restore; its job.
fn asked(node: &Node, to: &Path, more: &[&str]) -> String {
    let line = ["restore", "orders", "--latest", "--to", to.to_str().unwrap(), "--no-wait"];
    node.json(&[&line, more].concat())["id"].as_str().unwrap().to_owned()
}

/// What the marker in a directory says.
pub fn marker(directory: &Path) -> Option<String> {
    let text = std::fs::read(directory.join(MARKER)).ok()?;
    let marker: Value = serde_json::from_slice(&text).unwrap();
    Some(marker["state"].as_str().unwrap().to_owned())
}

/// Ends the server that runs on a copy, if one does.
pub fn end_server(directory: &Path) {
    let Ok(text) = std::fs::read_to_string(directory.join("postmaster.pid")) else { return };
    let Some(id) = text.lines().next().and_then(|line| line.parse().ok()) else { return };
    let id = Pid::from_raw(id);
    // It may be ending by itself.
    let _ = kill(id, Signal::SIGQUIT);
    let ended = wait_for(SOON, || kill(id, None).is_err().then_some(()));
    assert!(ended.is_some(), "the copy's server does not end");
}

#[test]
fn a_service_restores_beneath_its_folders_and_says_what_came_of_it() {
    let (_server, node) = shipped_much();
    let root = with_root(&node);
    let copy = root.join("copy");
    let job = asked(&node, &copy, &["--start", "--port", "5999", "--then", "shutdown"]);
    let queued = show(&node, &job);
    assert_eq!((&queued["state"], &queued["asked_via"]), (&"queued".into(), &"queue".into()), "{queued}");
    assert!(
        queued["spec"]["resolved"]["position"].is_string() && queued["wanted_node"].is_string(),
        "{queued}"
    );
    let service = node.start(None);
    let (mut phases, mut times) = (Vec::new(), Vec::new());
    let done = wait_for(SOON, || {
        let shown = show(&node, &job);
        phases.extend(shown["phase"].as_str().map(str::to_owned));
        times.extend(shown["log_time"].as_str().map(str::to_owned));
        matches!(shown["state"].as_str(), Some("succeeded" | "failed")).then_some(shown)
    });
    let done = done.unwrap_or_else(|| panic!("{}\n{}", show(&node, &job), node.log()));
    assert_eq!(
        (&done["state"], &done["attempt"]),
        (&"succeeded".into(), &1.into()),
        "{done}\n{}",
        node.log()
    );
    let result = &done["result"];
    assert_eq!(result["directory"], copy.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(result["server"]["state"], "shutdown", "{result}");
    assert_eq!(result["plan"]["schema"], "farshore.restore-plan/1", "{result}");
    assert_eq!(marker(&copy).as_deref(), Some("complete"));
    assert!(!phases.is_empty(), "it never said how far it was");
    // What is said of the log's time is a commit's, and none behind the target.
    let target = result["time"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert!(!times.is_empty(), "the log's time was never known: {phases:?}");
    for time in &times {
        assert!(time.parse::<chrono::DateTime<chrono::Utc>>().unwrap() <= target, "{time} {target}");
    }
    // The same place is not taken twice.
    let line = ["restore", "orders", "--latest", "--to", copy.to_str().unwrap(), "--no-wait"];
    let again = node.run(&line);
    assert_eq!(again.status.code(), Some(4), "{again:?}");
    service.stop();
}

#[test]
fn a_service_writes_nowhere_that_its_operator_did_not_name() {
    let (_server, node) = shipped();
    let refused = |to: &Path| {
        let line = ["-o", "json", "restore", "orders", "--latest", "--to", to.to_str().unwrap(), "--no-wait"];
        let output = node.run(&line);
        let said: Value =
            serde_json::from_slice(&output.stderr).unwrap_or_else(|why| panic!("{why}: {output:?}"));
        (output.status.code(), said["code"].as_str().unwrap().to_owned())
    };
    let no = (Some(4), "FS-0511".to_owned());
    assert_eq!(refused(&node.folder().join("restores/copy")), no, "no folder is named");
    let root = with_root(&node);
    assert_eq!(refused(&node.folder().join("copy")), no);
    // What was well when it was asked for is judged again when it is done.
    let elsewhere = node.folder().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    user::give(&elsewhere);
    let moved = asked(&node, &root.join("there/copy"), &[]);
    symlink(&elsewhere, root.join("there")).unwrap();
    let service = node.start(None);
    let failed = wait_state(&node, &moved, "failed");
    assert_eq!(failed["problem"]["code"], "FS-0511", "{failed}");
    assert!(elsewhere.read_dir().unwrap().next().is_none());
    service.stop();
    let unnamed = asked(&node, &root.join("copy"), &[]);
    node.configure(|text| text.replace("restore_roots = [\"restores\"]\n", ""));
    let service = node.start(None);
    let failed = wait_state(&node, &unnamed, "failed");
    assert_eq!(failed["problem"]["code"], "FS-0511", "{failed}");
    assert!(!root.join("copy").exists());
    service.stop();
}

#[test]
fn a_services_restore_that_is_ended_says_what_it_left() {
    let (_server, node) = shipped_much();
    let root = with_root(&node);
    let (cancelled, stopped) = (root.join("cancelled"), root.join("stopped"));
    let service = node.start(None);
    node.wait_connected();
    let job = asked(&node, &cancelled, &[]);
    let written = wait_for(SOON, || (marker(&cancelled).as_deref() == Some("running")).then_some(()));
    assert!(written.is_some(), "{}\n{}", show(&node, &job), node.log());
    node.json(&["job", "cancel", &job]);
    let ended = wait_state(&node, &job, "cancelled");
    assert_eq!(ended["problem"]["code"], "FS-0604", "{ended}");
    assert!(ended["problem"]["safe"].as_str().unwrap().contains("`running`"), "{ended}");
    let job = asked(&node, &stopped, &[]);
    let written = wait_for(SOON, || (marker(&stopped).as_deref() == Some("running")).then_some(()));
    assert!(written.is_some(), "{}\n{}", show(&node, &job), node.log());
    service.stop();
    let ended = show(&node, &job);
    assert_eq!(
        (&ended["state"], &ended["problem"]["code"]),
        (&"failed".into(), &"FS-0004".into()),
        "{ended}"
    );
    for left in [cancelled, stopped] {
        assert_eq!(marker(&left).as_deref(), Some("running"));
        assert!(!left.join("global/pg_control").exists(), "{} can be taken for a database", left.display());
    }
}
