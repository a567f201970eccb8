//! The promise: a promoted copy of a SQLite database holds all that is stored of it, or the operator said that it need not; and where that is not known, it is said.
//!
//! Method: copies that are behind their journal, journals that cannot be asked, and databases that began anew.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "sqlite/copies.rs"]
mod copies;
mod service;
mod sqlite;

use std::path::PathBuf;

use copies::{
    assert_refused, commit, copy, follow, made_and_stopped, place, rows, standby, status, stop,
    wait_caught_up, wait_made, wait_stored,
};
use farshore_testkit::process::wait_for;
use serde_json::Value;
use service::{Node, SOON, Service};
use sqlite::{database, ledger, node, text};

fn shipped() -> (Node, Service) {
    let node = node(4096);
    let service = node.start(None);
    node.wait_backup(1);
    commit(&node, 3);
    wait_stored(&node);
    (node, service)
}

fn promoted(node: &Node, directory: &str, more: &[&str]) -> Value {
    let done = standby(node, "promote", directory, &[&["-o", "json"][..], more].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Waits until the database has another incarnation.
fn wait_anew(node: &Node) {
    let began = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(began.is_some(), "{}", node.log());
    node.wait_backup(1);
}

/// The machine burns; what it stored lives on.
#[test]
fn a_promotion_reaches_the_journals_end_by_itself() {
    let (node, service) = shipped();
    made_and_stopped(&node, "standby");
    commit(&node, 20);
    wait_stored(&node);
    let end = node.end().unwrap().offset.to_string();
    service.kill9();
    assert_eq!(rows(&copy(&node, "standby")), 3);
    let said = promoted(&node, "standby", &[]);
    assert_eq!(rows(&copy(&node, "standby")), 23);
    assert_eq!(
        (said["position"].as_str(), said["reaches_the_end"].as_bool()),
        (Some(end.as_str()), Some(true)),
        "{said}"
    );
    assert!(said["transaction"].as_u64() >= Some(24) && said["time"].is_string(), "{said}");
    assert_eq!(ledger(&["judge", &text(&copy(&node, "standby"))])["sound"], true);
}

/// The store is gone too.
#[test]
fn a_promotion_without_its_store_is_refused_unless_it_is_said_that_the_copy_will_do() {
    let (node, service) = shipped();
    made_and_stopped(&node, "standby");
    commit(&node, 5);
    wait_stored(&node);
    service.stop();
    std::fs::rename(place(&node, "journal"), place(&node, "gone")).unwrap();
    let refused = standby(&node, "promote", "standby", &[]);
    let says =
        ["not known whether the journal holds more", "as of transaction", "--as-it-is", "stays a standby"];
    assert_refused(&refused, 4, "FS-0510", &says);
    // So too where nothing says where the store is.
    let configuration = place(&node, "farshore.toml");
    let away = place(&node, "farshore.toml.away");
    std::fs::rename(&configuration, &away).unwrap();
    assert_refused(&standby(&node, "promote", "standby", &[]), 4, "FS-0510", &says);
    assert_eq!(rows(&copy(&node, "standby")), 3);
    let said = promoted(&node, "standby", &["--as-it-is"]);
    assert_eq!((said["reaches_the_end"].as_bool(), said["role"].as_str()), (None, None), "{said}");
    std::fs::rename(&away, &configuration).unwrap();
    assert_eq!(status(&node, "standby").unwrap()["role"], "promoted");
}

#[test]
fn a_promotion_that_finds_the_journal_damaged_says_how_much_is_left_and_is_refused() {
    let (node, service) = shipped();
    made_and_stopped(&node, "standby");
    let had = chunks(&node);
    commit(&node, 5);
    wait_stored(&node);
    let mut behind = chunks(&node);
    behind.retain(|path| !had.contains(path));
    commit(&node, 5);
    wait_stored(&node);
    service.stop();
    damage_the_largest(&behind);
    let refused = standby(&node, "promote", "standby", &[]);
    let says = ["bytes more than the copy", "--as-it-is", "stays a standby", "farshore verify"];
    assert_refused(&refused, 4, "FS-0510", &says);
    promoted(&node, "standby", &["--as-it-is"]);
}

fn chunks(node: &Node) -> Vec<PathBuf> {
    let incarnation = node.incarnations().pop().unwrap().0.incarnation;
    let folder = place(node, &format!("journal/db/orders/{incarnation}/journal"));
    std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Signed heads say how far the journal reached: what is left of it is not taken for all there is.
#[test]
fn a_promotion_is_refused_where_the_journals_end_was_cut_off() {
    let node = node(4096);
    node.sign_heads();
    let service = node.start(None);
    node.wait_backup(1);
    commit(&node, 3);
    wait_stored(&node);
    made_and_stopped(&node, "standby");
    let had = chunks(&node);
    commit(&node, 5);
    wait_stored(&node);
    service.stop();
    let behind: Vec<PathBuf> = chunks(&node).into_iter().filter(|path| !had.contains(path)).collect();
    assert!(!behind.is_empty());
    behind.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let refused = standby(&node, "promote", "standby", &[]);
    assert_refused(&refused, 4, "FS-0510", &["not known whether the journal holds more", "--as-it-is"]);
    assert_eq!(promoted(&node, "standby", &["--as-it-is"])["reaches_the_end"], Value::Null);
}

/// Changes a byte of the largest of these.
fn damage_the_largest(chunks: &[PathBuf]) {
    let largest = chunks.iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(largest).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    std::fs::write(largest, bytes).unwrap();
}

#[test]
fn a_database_that_began_anew_is_said_by_status_and_refuses_a_promotion() {
    let (node, service) = shipped();
    made_and_stopped(&node, "standby");
    service.stop();
    ledger(&["truncate", &text(&database(&node)), "2"]);
    let service = node.start(None);
    wait_anew(&node);
    let shown = status(&node, "standby").unwrap();
    assert_eq!((shown["role"].as_str(), &shown["lag_bytes"]), (Some("ended"), &Value::Null), "{shown}");
    assert!(shown["why"].as_str().unwrap().contains("incarnation 1"), "{shown}");
    assert_eq!(shown["lag_seconds"], Value::Null);
    let refused = standby(&node, "promote", "standby", &[]);
    assert_refused(&refused, 4, "FS-0510", &["incarnation 1", "as of transaction", "--as-it-is"]);
    assert_eq!(status(&node, "standby").unwrap()["role"], "ended");
    let said = promoted(&node, "standby", &["--as-it-is"]);
    assert_eq!(said["reaches_the_end"], Value::Null);
    service.stop();
}

/// A running standby that ends for a new incarnation leaves the reason behind, for a status that cannot ask the store.
#[test]
fn why_a_standby_ended_is_kept_and_shown_without_a_store() {
    let (node, service) = shipped();
    let mut running = follow(&node, "standby");
    wait_made(&node, "standby");
    wait_caught_up(&node, "standby");
    service.stop();
    ledger(&["truncate", &text(&database(&node)), "2"]);
    let service = node.start(None);
    wait_anew(&node);
    assert_eq!(running.wait(SOON).expect("it ends").code(), Some(4));
    service.stop();
    std::fs::rename(place(&node, "journal"), place(&node, "gone")).unwrap();
    let shown = status(&node, "standby").unwrap();
    assert_eq!(shown["role"], "ended", "{shown}");
    assert!(shown["why"].as_str().unwrap().contains("incarnation 1"), "{shown}");
}

#[test]
fn a_running_standby_is_not_promoted() {
    let (node, service) = shipped();
    let running = follow(&node, "standby");
    wait_made(&node, "standby");
    assert_refused(&standby(&node, "promote", "standby", &["--as-it-is"]), 5, "FS-0506", &[]);
    stop(running, &node, "standby");
    service.stop();
}
