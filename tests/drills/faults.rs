//! Faults that are seeded: each makes exactly that drill fail, with its reason, and leaves nothing.

use std::path::{Path, PathBuf};

use crate::files::shipped;
use crate::rig::{configure, drill, nothing_left, place, verifies};
use crate::service::Node;

/// The objects of the node's store below a folder of that name.
fn objects(node: &Node, folder: &str) -> Vec<PathBuf> {
    fn walk(at: &Path, wanted: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(at).unwrap().filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, wanted, found);
            } else if path.parent().is_some_and(|parent| {
                parent.ancestors().any(|part| part.file_name().is_some_and(|name| name == wanted))
            }) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&node.folder().join("journal/db"), folder, &mut found);
    found.sort();
    found
}

#[test]
fn log_that_is_missing_fails_the_drill_until_it_is_back() {
    let (node, _) = shipped();
    let chunks = objects(&node, "journal");
    let log: Vec<&PathBuf> =
        chunks.iter().filter(|path| path.to_str().unwrap().contains("/journal/0")).collect();
    assert!(log.len() > 20, "{}", log.len());
    let missing = log[log.len() - 6];
    let away = node.folder().join("away");
    std::fs::rename(missing, &away).unwrap();
    let failed = drill(&node, &[]);
    assert_ne!(failed.exit, Some(0), "{}", failed.said);
    assert_eq!(failed.statement()["verdict"], "failed", "{}", failed.stderr);
    assert!(failed.message["happened"].as_str().unwrap().contains("chunk 0"), "{}", failed.message);
    assert_eq!(failed.statement()["checks"].as_array().unwrap().len(), 0, "nothing was looked at");
    verifies(&node, &failed.id());
    nothing_left(&place(&node));
    std::fs::rename(&away, missing).unwrap();
    drill(&node, &[]).passed();
    nothing_left(&place(&node));
}

#[test]
fn a_chunk_or_a_base_that_was_changed_fails_the_drill() {
    let (node, _) = shipped();
    let chunks = objects(&node, "journal");
    let parts = objects(&node, "backups");
    let part =
        parts.iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("part-")).unwrap();
    let chunk = &chunks[chunks.len() * 2 / 3];
    for (object, exits) in [(chunk, [4, 1, 6]), (part, [1, 4, 6])] {
        let whole = std::fs::read(object).unwrap();
        let mut changed = whole.clone();
        let at = changed.len() / 2;
        changed[at] ^= 0x40;
        std::fs::write(object, &changed).unwrap();
        let failed = drill(&node, &[]);
        assert!(exits.contains(&failed.exit.unwrap()), "{:?} {}", failed.exit, failed.stderr);
        assert_eq!(failed.statement()["verdict"], "failed", "{}", failed.stderr);
        assert!(failed.statement()["failure"]["happened"].is_string(), "{}", failed.said);
        nothing_left(&place(&node));
        std::fs::write(object, &whole).unwrap();
    }
    drill(&node, &[]).passed();
}

#[test]
fn a_rule_that_does_not_hold_fails_the_drill_and_no_value_of_a_row_is_told() {
    let (node, _) = shipped();
    configure(
        &node,
        "[databases.orders.drill]\nstatement_timeout = \"1s\"\ntables = [\"ledger\", \"no_such_table\"]\nassertions = [\n\
         { name = \"holds\", sql = \"select 1\" },\n\
         { name = \"several\", sql = \"select id from ledger\" },\n\
         { name = \"a text\", sql = \"select 'hunter2'\" },\n\
         { name = \"writes\", sql = \"delete from ledger\" },\n\
         { name = \"endless\", sql = \"with recursive n (v) as (select 1 union all select v + 1 from n) select count(*) from n\" },\n]\n",
    );
    let failed = drill(&node, &[]).failed("FS-0801", 8, "several: it gave several rows");
    assert_eq!(failed.check("assertion: holds")["outcome"], "passed");
    for (name, why) in [
        ("assertion: several", "several rows"),
        ("assertion: a text", "no truth value"),
        ("assertion: writes", "it would write"),
        ("assertion: endless", "longer than 1 s"),
        ("table no_such_table is counted", "SQLite refused it"),
    ] {
        let check = failed.check(name);
        assert_eq!(check["outcome"], "failed", "{check}");
        assert!(check["detail"].as_str().unwrap().contains(why), "{check}");
    }
    assert_eq!(failed.check("table ledger is counted")["outcome"], "passed", "nothing was deleted");
    assert!(!format!("{} {}", failed.said, failed.stderr).contains("hunter2"));
    verifies(&node, &failed.id());
    nothing_left(&place(&node));
}

#[test]
fn a_recovery_that_takes_longer_than_promised_is_a_verdict_of_its_own() {
    let (node, _) = shipped();
    node.configure(|text| {
        text.replace("flush_interval = \"20ms\"\n", "flush_interval = \"20ms\"\nrto = \"1ms\"\n")
    });
    let breached = drill(&node, &[]);
    assert_eq!(
        (breached.exit, &breached.message["code"]),
        (Some(8), &"FS-0802".into()),
        "{}",
        breached.stderr
    );
    assert_eq!(breached.statement()["verdict"], "breached");
    assert!(breached.statement()["recovery_us"].as_u64() > breached.statement()["objective_us"].as_u64());
    verifies(&node, &breached.id());
    node.configure(|text| text.replace("rto = \"1ms\"", "rto = \"10m\""));
    drill(&node, &[]).passed();
}

#[test]
fn a_place_that_cannot_be_used_is_refused_and_nothing_is_left() {
    let (node, _) = shipped();
    let file = node.folder().join("a-file");
    std::fs::write(&file, b"").unwrap();
    let refused = drill(&node, &["--scratch", file.to_str().unwrap()]);
    assert_eq!((refused.exit, &refused.message["code"]), (Some(4), &"FS-0803".into()), "{}", refused.stderr);
    assert_eq!(refused.statement()["verdict"], "failed");
    let unread = node.run(&["drill", "run", "orders", "--point", ""]);
    assert_eq!(unread.status.code(), Some(2), "{unread:?}");
    let unknown = drill(&node, &["--point", "no-such-point"]);
    assert_eq!((unknown.exit, &unknown.message["code"]), (Some(4), &"FS-0502".into()), "{}", unknown.stderr);
    // A place of one's own is used, and cleared.
    let other = node.folder().join("elsewhere");
    drill(&node, &["--scratch", other.to_str().unwrap()]).passed();
    nothing_left(&other);
    nothing_left(&place(&node));
}
