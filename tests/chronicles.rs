//! The promise: from when to when a promise did not hold, and who did what, survive the loss of the catalog; time in which nobody looked is never shown as
//! kept; and what somebody did to them in a store is found.
//!
//! Method: a SQLite database whose store's folder is made read-only for the unprivileged user; kills; files of the store that are changed.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use serde_json::Value;
use service::{Node, SOON, all, let_pass};
use sqlite::application::Application;

const INSERT: &str = "insert into t (v) values (randomblob(100))";

/// A node with a promise of a second, and an application that has its database open.
fn beside(store: &str) -> (Node, Application) {
    let node = Node::configured(|folder| {
        format!(
            "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n{store}\n[databases.orders]\nengine = \"sqlite\"\n\
             path = \"app.db\"\nstores = [\"main\"]\nflush_interval = \"20ms\"\nrpo = \"1s\"\n",
            folder.join("journal").display()
        )
    });
    let mut application = Application::open(&node.folder().join("app.db"));
    assert_eq!(application.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
    assert_eq!(application.ask("create table t (id integer primary key, v blob)"), "[]");
    (node, application)
}

/// Objects are written there first.
fn takes(node: &Node, takes: bool) {
    let mode = if takes { 0o755 } else { 0o555 };
    std::fs::set_permissions(node.folder().join("journal/.tmp"), Permissions::from_mode(mode)).unwrap();
}

fn exposure(node: &Node, more: &[&str]) -> Vec<Value> {
    let shown = node.json(&[&["exposure", "list", "orders"], more].concat());
    all(&shown).into_iter().cloned().collect()
}

fn activity(node: &Node, more: &[&str]) -> Vec<Value> {
    let shown = node.json(&[&["activity", "list"], more].concat());
    let mut all: Vec<Value> = all(&shown).into_iter().cloned().collect();
    all.reverse();
    all
}

fn verify(node: &Node, which: &str, more: &[&str]) -> (Option<i32>, Value) {
    let output = node.run(&[&["-o", "json", which, "verify"], more].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

fn say(node: &Node, name: &str) {
    let made = node.run(&["token", "create", name, "--role", "viewer"]);
    assert!(made.status.success(), "{made:?}");
}

/// Waits until the store has all of both.
fn wait_sealed(node: &Node) {
    let sealed = wait_for(SOON, || {
        let ledger = verify(node, "exposure", &[]).1["ledgers"][0]["stores"][0].clone();
        let activity = verify(node, "activity", &[]).1["stores"][0].clone();
        let has = |one: &Value| one["lacks"] == 0 && one["sound"] == true && one["sealed_to"] != 0;
        (has(&ledger) && has(&activity)).then_some(())
    });
    assert!(
        sealed.is_some(),
        "{:?}\n{:?}\n{}",
        verify(node, "exposure", &[]),
        verify(node, "activity", &[]),
        node.log()
    );
}

fn wait_entry(node: &Node, what: &str, like: impl Fn(&Value) -> bool) -> Value {
    let found = wait_for(SOON, || exposure(node, &[]).into_iter().find(|entry| like(entry)));
    found.unwrap_or_else(|| panic!("{what}: {:#?}\n{}", exposure(node, &[]), node.log()))
}

fn has_why(entry: &Value, why: &str) -> bool {
    entry["why"].as_array().unwrap().iter().any(|one| one == why)
}

fn wait_connected(node: &Node) {
    sqlite::settle(node);
    wait_entry_free(node);
}

/// Waits until no entry is open.
fn wait_entry_free(node: &Node) {
    let free =
        wait_for(SOON, || exposure(node, &[]).iter().all(|entry| entry["open"] == false).then_some(()));
    assert!(free.is_some(), "{:#?}\n{}", exposure(node, &[]), node.log());
}

/// Waits until a catalog that was made anew has taken the activity back.
fn wait_taken_back(node: &Node) {
    let taken = wait_for(SOON, || {
        let listed = node.run(&["activity", "list"]);
        String::from_utf8_lossy(&listed.stdout).contains("activity taken back").then_some(())
    });
    assert!(taken.is_some(), "{}", node.log());
}

fn delete_catalog(node: &Node) {
    for name in ["farshore.db", "farshore.db-wal", "farshore.db-shm"] {
        let _was_not_there = std::fs::remove_file(node.folder().join(name));
    }
}

#[test]
fn what_no_object_implies_survives_a_lost_catalog_and_time_without_a_look_is_an_entry() {
    let (node, mut application) = beside("");
    let service = node.start(None);
    wait_connected(&node);
    say(&node, "one");

    // The store takes nothing.
    takes(&node, false);
    let failing = wait_for(SOON, || {
        application.ask(INSERT);
        exposure(&node, &[]).into_iter().find(|entry| entry["open"] == true)
    });
    let failing = failing.unwrap_or_else(|| panic!("no entry\n{}", node.log()));
    wait_entry(&node, "the reason", |entry| {
        entry["number"] == failing["number"] && has_why(entry, "target_failing")
    });
    // Killed in the midst of it, and for longer than a look may be late.
    service.kill9();
    let_pass(Duration::from_secs(22));
    let unseen = exposure(&node, &[]);
    assert_eq!(unseen.last().unwrap()["open"], true, "{unseen:#?}");
    takes(&node, true);
    let service = node.start(None);
    let ended =
        wait_entry(&node, "it ends", |entry| entry["number"] == failing["number"] && entry["open"] == false);
    assert!(ended["worst_ms"].as_u64().unwrap() > 1000, "{ended}");
    assert!(has_why(&ended, "not_looked"), "{ended}");
    assert_eq!(ended["from"], failing["from"], "{ended}");

    // Nothing is wrong, and nobody is there: an entry all the same, from before the kill to after the start.
    wait_connected(&node);
    let before = exposure(&node, &[]).len();
    service.kill9();
    let_pass(Duration::from_secs(22));
    assert_eq!(exposure(&node, &[]).len(), before + 1, "it is shown before anybody wrote it");
    let service = node.start(None);
    wait_connected(&node);
    let shown = exposure(&node, &[]);
    assert!(has_why(shown.last().unwrap(), "not_looked"), "{shown:#?}");
    say(&node, "two");
    wait_sealed(&node);
    service.stop();
    let service = node.start(None);
    wait_connected(&node);
    let stopped = exposure(&node, &[]);
    assert!(has_why(stopped.last().unwrap(), "service_stopped"), "{stopped:#?}");
    wait_sealed(&node);
    service.kill9();

    let (entries, done) = (exposure(&node, &[]), activity(&node, &[]));
    let closed: Vec<Value> = entries.iter().filter(|entry| entry["open"] == false).cloned().collect();
    delete_catalog(&node);
    // No catalog at all.
    assert_eq!(exposure(&node, &["--store", "main"]), closed);
    assert_eq!(activity(&node, &["--store", "main"]), done);
    assert!(!node.folder().join("farshore.db").exists());
    let rebuilt = node.run(&["catalog", "rebuild"]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    let again = exposure(&node, &[]);
    assert_eq!(again[..closed.len()], closed);
    let back = activity(&node, &[]);
    assert_eq!(back[..done.len()], done);
    assert_eq!(back[done.len()]["what"], "activity taken back");

    // The service takes it back by itself, too, and goes on behind it.
    delete_catalog(&node);
    let service = node.start(None);
    wait_taken_back(&node);
    say(&node, "three");
    wait_connected(&node);
    wait_sealed(&node);
    let back = activity(&node, &[]);
    assert_eq!(back[..done.len()], done);
    assert_eq!(back.last().unwrap()["what"], "token create");
    let shown = exposure(&node, &[]);
    assert_eq!(shown[..closed.len()], closed);
    // However short it was, from what was sealed last to when it was taken back.
    assert!(has_why(&shown[closed.len()], "not_looked"), "{shown:#?}");
    assert_eq!(verify(&node, "activity", &[]).0, Some(0));
    assert_eq!(verify(&node, "exposure", &[]).0, Some(0));
    service.stop();
}

fn pages(node: &Node, of: &str) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for life in std::fs::read_dir(node.folder().join("journal").join(of)).unwrap() {
        let files = std::fs::read_dir(life.unwrap().path()).unwrap();
        pages.extend(files.map(|file| file.unwrap().path()));
    }
    pages.sort();
    pages
}

#[test]
fn two_who_seal_at_once_harm_nothing_and_what_is_forged_cut_or_gone_is_found() {
    let (node, _application) = beside("");
    let service = node.start(None);
    wait_connected(&node);
    // Two of one catalog: the second waits for the journal's lock, and seals all the same.
    let second = node.start(None);
    for n in 0..12 {
        say(&node, &format!("t{n}"));
        let_pass(Duration::from_millis(300));
    }
    wait_sealed(&node);
    second.kill9();
    service.kill9();
    assert_eq!(verify(&node, "activity", &[]).0, Some(0));
    // Nobody is asked, and that is no good answer.
    for verb in [["exposure", "verify"], ["exposure", "list"], ["activity", "verify"], ["activity", "list"]] {
        let refused = node.run(&[&verb[..], &["--store", "typo"]].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(3) && said.contains("FS-0108"), "{verb:?}: {said}");
        assert!(said.contains("there are: main"), "{verb:?}: {said}");
    }
    for (verb, of) in [("activity", "activity"), ("exposure", "db/orders/exposure")] {
        let all = pages(&node, of);
        assert!(all.len() > 1, "{all:?}");
        let (page, kept) = (&all[all.len() - 2], std::fs::read(&all[all.len() - 2]).unwrap());
        let found = |what: &str| {
            for more in [&[][..], &["--store", "main"]] {
                let (code, shown) = verify(&node, verb, more);
                assert_eq!(code, Some(9), "{what}: {shown}");
            }
            let list = match verb {
                "activity" => vec!["activity", "list", "--store", "main"],
                _ => vec!["exposure", "list", "orders", "--store", "main"],
            };
            let shown = node.run(&list);
            let said = String::from_utf8_lossy(&shown.stderr).into_owned();
            assert!(said.contains("FS-0414"), "{what}: {said}");
        };
        std::fs::remove_file(page).unwrap();
        found("gone");
        std::fs::write(page, &kept[..kept.len() / 2]).unwrap();
        found("cut");
        // Forged with a sum that fits it.
        let text = String::from_utf8(kept.clone()).unwrap();
        let changed = text.replacen("\"digest\":\"", "\"digest\":\"0", 1).replacen("farshore", "farshorf", 1);
        let changed = if changed == text { text.replacen("orders", "orderz", 1) } else { changed };
        std::fs::write(page, summed(&changed)).unwrap();
        found("forged");
        std::fs::write(page, &kept).unwrap();
        assert_eq!(verify(&node, verb, &["--store", "main"]).0, Some(0));
        // The newest is gone: the store alone cannot tell, the catalog can.
        let (page, kept) = (&all[all.len() - 1], std::fs::read(&all[all.len() - 1]).unwrap());
        std::fs::remove_file(page).unwrap();
        assert_eq!(verify(&node, verb, &["--store", "main"]).0, Some(0));
        let (code, shown) = verify(&node, verb, &[]);
        assert_eq!(code, Some(9), "{shown}");
        assert!(shown.to_string().contains("once, as the catalog says"), "{shown}");
        let whole = node.run(&["verify"]);
        let said = String::from_utf8_lossy(&whole.stderr).into_owned();
        assert!(whole.status.code() == Some(9) && said.contains("once, as the catalog says"), "{said}");
        std::fs::write(page, kept).unwrap();
        user::give(node.folder());
        assert_eq!(verify(&node, verb, &[]).0, Some(0));
    }
    // Said by nobody who has a key that counts.
    node.sign_heads();
    let (code, shown) = verify(&node, "activity", &["--store", "main"]);
    assert_eq!(code, Some(9), "{shown}");
    user::give(node.folder());
}

/// A document with the sum that its text has.
fn summed(text: &str) -> Vec<u8> {
    let (whole, _) = text.rsplit_once(",\"blake3\"").unwrap();
    let document: Value = serde_json::from_str(&format!("{whole}}}")).unwrap();
    farshore_journal::format::body::to_document("page", &document).unwrap()
}

#[test]
fn pages_for_a_private_key_keep_the_chain_without_it_and_come_back_with_it() {
    let identity = age::x25519::Identity::generate();
    let (node, _application) = beside(&format!("recipients = [\"{}\"]", identity.to_public()));
    let service = node.start(None);
    wait_connected(&node);
    say(&node, "secret-name");
    wait_sealed(&node);
    let done = activity(&node, &[]);
    service.kill9();
    for page in pages(&node, "activity") {
        assert!(!std::fs::read_to_string(&page).unwrap().contains("secret-name"), "{page:?}");
    }
    delete_catalog(&node);
    let service = node.start(None);
    wait_taken_back(&node);
    say(&node, "later");
    wait_sealed_to(&node, done.len() as u64 + 2);
    service.kill9();
    let first = activity(&node, &[])[0]["number"].as_u64().unwrap();
    assert_eq!(first, done.len() as u64 + 1, "the chain goes on behind what could not be opened");
    assert_eq!(verify(&node, "activity", &[]).0, Some(9), "what is missing is said");

    let key = node.folder().join("identity");
    let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    std::fs::write(&key, secret + "\n").unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    node.configure(|text| text.replace("recipients = ", "identity_file = \"identity\"\nrecipients = "));
    user::give(node.folder());
    let rebuilt = node.run(&["catalog", "rebuild"]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    assert_eq!(activity(&node, &[])[..done.len()], done);
    assert_eq!(verify(&node, "activity", &[]).0, Some(0), "{}", verify(&node, "activity", &[]).1);
}

/// Waits until so many stores have all of the activity.
fn wait_sealed_everywhere(node: &Node, stores: usize) {
    let sealed = wait_for(SOON, || {
        let shown = verify(node, "activity", &[]).1;
        let all = shown["stores"].as_array().cloned().unwrap_or_default();
        let has = |one: &Value| one["lacks"] == 0 && one["sound"] == true;
        (all.len() == stores && all.iter().all(has)).then_some(())
    });
    assert!(sealed.is_some(), "{:#}\n{}", verify(node, "activity", &[]).1, node.log());
}

/// What a catalog took back from one store is sealed into another that never had it: the loss of the first, and of the catalog, loses nothing then.
#[test]
fn a_store_that_was_added_later_gets_the_activity_from_its_first_entry_on() {
    let (node, _application) = beside("");
    let service = node.start(None);
    sqlite::settle(&node);
    say(&node, "one");
    wait_sealed(&node);
    service.kill9();
    delete_catalog(&node);
    let mut invoices = Application::open(&node.folder().join("invoices.db"));
    assert_eq!(invoices.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
    assert_eq!(invoices.ask("create table t (id integer primary key, v blob)"), "[]");
    node.configure(|text| {
        format!(
            "{text}\n[stores.second]\nurl = \"file:{}\"\n[databases.invoices]\nengine = \"sqlite\"\npath = \"invoices.db\"\n\
             stores = [\"second\"]\n",
            node.folder().join("second").display()
        )
    });
    // Its folder is made by whoever mounts it, never by the service.
    std::fs::create_dir(node.folder().join("second")).unwrap();
    user::give(node.folder());
    let service = node.start(None);
    wait_taken_back(&node);
    say(&node, "two");
    wait_sealed_everywhere(&node, 2);
    service.kill9();
    for store in ["main", "second"] {
        let shown = activity(&node, &["--store", store]);
        assert_eq!(shown, activity(&node, &[]), "{store}");
        assert_eq!(shown[0]["number"], 1, "{store}");
    }
}

/// A catalog that is put back from a copy beside its later self goes on beside what that one sealed, and says so.
#[test]
fn a_catalog_that_was_put_back_from_a_copy_says_so_and_loses_neither_branch() {
    let (node, _application) = beside("");
    let service = node.start(None);
    sqlite::settle(&node);
    say(&node, "both");
    wait_sealed(&node);
    service.stop();
    // What is not in the file yet is in its log.
    let files = ["farshore.db", "farshore.db-wal"].map(|name| node.folder().join(name));
    let copy = files.clone().map(|file| std::fs::read(file).ok());
    let service = node.start(None);
    sqlite::settle(&node);
    say(&node, "later-self");
    wait_sealed(&node);
    service.stop();
    let later = activity(&node, &["--store", "main"]);
    delete_catalog(&node);
    for (file, copy) in files.iter().zip(copy) {
        copy.into_iter().for_each(|bytes| std::fs::write(file, bytes).unwrap());
    }
    user::give(node.folder());
    let service = node.start(None);
    say(&node, "copy");
    let said = wait_for(SOON, || node.log().contains("FS-0415").then_some(()));
    assert!(said.is_some(), "{}", node.log());
    sqlite::settle(&node);
    wait_sealed(&node);
    service.stop();
    let (code, shown) = verify(&node, "activity", &[]);
    assert_eq!((code, &shown["stores"][0]["branches"]), (Some(0), &Value::from(1)), "{shown:#}");
    // Both are in the store: the one that this catalog has, and the other's.
    let own = activity(&node, &[]);
    let whole = |all: &[Value]| all.iter().map(|one| one["digest"].to_string()).collect::<Vec<_>>();
    let in_store: String =
        pages(&node, "activity").iter().map(|page| std::fs::read_to_string(page).unwrap()).collect();
    for digest in whole(&own).iter().chain(&whole(&later)) {
        assert!(in_store.contains(digest), "{digest}");
    }
    assert_ne!(own, later);
}

/// Waits until the store has activity up to a number.
fn wait_sealed_to(node: &Node, number: u64) {
    let sealed = wait_for(SOON, || {
        let shown = verify(node, "activity", &["--store", "main"]).1;
        (shown["stores"][0]["sealed_to"].as_u64()? >= number).then_some(())
    });
    assert!(sealed.is_some(), "{:?}\n{}", verify(node, "activity", &["--store", "main"]), node.log());
}
