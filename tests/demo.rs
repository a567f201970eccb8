//! The promise: `farshore demo` plays the main job on any machine, whole and in well under a minute, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use serde_json::Value;

fn demo(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(farshore_testkit::farshore_bin(env!("CARGO_BIN_EXE_farshore")));
    command.args(arguments).env("TMPDIR", folder).current_dir(folder);
    user::run_as(command).output().unwrap()
}

fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// The processes that work in a folder.
fn processes_in(folder: &Path) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|place| place.starts_with(folder))
    })
    .collect()
}

#[test]
fn the_demo_takes_back_every_order_that_was_deleted_and_leaves_nothing() {
    let folder = user::tempdir();
    let played = demo(folder.path(), &["-o", "json", "demo"]);
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    let played: Value = serde_json::from_slice(&played.stdout).unwrap();
    assert_eq!((&played["schema"], &played["engine"]), (&"farshore.demo/1".into(), &"sqlite".into()));
    assert_eq!(played["orders_after_delete"], 0);
    assert!(played["orders_before"].as_u64().unwrap() >= 3000, "{played}");
    // One may have been placed between the last count and the delete.
    assert!(played["orders_restored"].as_u64() >= played["orders_before"].as_u64(), "{played}");
    assert_eq!((entries(folder.path()), processes_in(folder.path())), (vec![], vec![]));
}

#[test]
fn the_demo_says_what_a_dba_types_and_with_keep_all_of_it_goes_on() {
    let folder = user::tempdir();
    let played = demo(folder.path(), &["demo", "--keep"]);
    let said = String::from_utf8(played.stdout).unwrap();
    assert!(played.status.success(), "{said}{}", String::from_utf8_lossy(&played.stderr));
    for typed in [
        "$ farshore run",
        "$ farshore status shop",
        "$ farshore standby run shop --to standby",
        "$ farshore standby status --to standby",
        "$ farshore points list shop --around",
        "$ farshore restore shop --xid",
        "$ farshore verify shop",
    ] {
        assert!(said.contains(typed), "{typed}:\n{said}");
    }
    let place = folder.path().join(&entries(folder.path())[0]);
    let running = processes_in(&place);
    assert!(running.len() >= 3, "the service, the standby and the shop: {running:?}");
    let end = said.lines().find_map(|line| line.strip_prefix("To end it: ")).expect("how it is ended");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", end]);
    assert!(user::run_as(command).status().unwrap().success(), "{end}");
    let ended = wait_for(Duration::from_secs(30), || processes_in(folder.path()).is_empty().then_some(()));
    assert!(ended.is_some(), "{:?}", processes_in(folder.path()));
}
