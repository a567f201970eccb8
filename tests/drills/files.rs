//! Drills of SQLite files, and what anybody can do with a certificate.

use std::collections::BTreeSet;
use std::process::Command;

use farshore_journal::format::SigningKey;
use farshore_testkit::user;
use serde_json::Value;

use crate::rig::{certificate, configure, drill, drilled, nothing_left, place, verifies};
use crate::service::{Node, all};
use crate::sqlite::{database, ledger, node, python, settle, text};

/// A file with some hundred transactions behind its base, all of it stored, whose drills are signed.
pub fn shipped() -> (Node, SigningKey) {
    let node = node(4096);
    let key = node.sign_heads();
    let service = node.start(None);
    node.wait_backup(1);
    let path = text(&database(&node));
    let mut writing = python(&["write", &path, "1", "3", "100", "steady"]).spawn().unwrap();
    assert!(writing.wait().unwrap().success());
    settle(&node);
    service.stop();
    (node, key)
}

#[test]
fn a_file_is_drilled_at_points_of_every_rule_and_each_drill_is_certified() {
    let (node, _) = shipped();
    configure(
        &node,
        "rto = \"10m\"\n[databases.orders.drill]\ntables = [\"ledger\", \"done\"]\n\
         assertions = [{ name = \"someone wrote\", sql = \"select count(*) > 0 from done\" }]\n",
    );
    let oldest = drill(&node, &["--point", "oldest"]);
    // The base holds no transaction of the writer's yet: an assertion that does not hold there is the database's own truth.
    assert_eq!(oldest.exit, Some(8), "{}", oldest.stderr);
    assert_eq!(oldest.check("assertion: someone wrote")["outcome"], "failed");
    assert_eq!(oldest.check("stands at exactly the planned position")["outcome"], "passed");
    verifies(&node, &oldest.id());
    let latest = drill(&node, &[]).passed();
    let mut positions = BTreeSet::new();
    for seed in ["1", "2", "3", "4", "5"] {
        let one = drill(&node, &["--point", "random", "--seed", seed]);
        let said = one.statement();
        assert_eq!(said["point"]["seed"].to_string(), seed);
        assert_eq!(one.check("stands at exactly the planned position")["outcome"], "passed");
        positions.insert(said["target"]["position"]["offset"].to_string());
        verifies(&node, &one.id());
    }
    assert!(positions.len() > 1, "{positions:?}");
    let again = drill(&node, &["--point", "random", "--seed", "3"]);
    assert!(positions.contains(&again.statement()["target"]["position"]["offset"].to_string()));
    assert_eq!(latest.statement()["objective_us"], 600_000_000);
    for name in ["answers reads", "integrity_check", "foreign_key_check", "assertion: someone wrote"] {
        assert_eq!(latest.check(name)["outcome"], "passed", "{name}");
    }
    let rows = ledger(&["judge", &text(&database(&node))]);
    let counted = latest.statement()["tables"][0]["rows"].as_u64().unwrap();
    assert!(counted > 50, "{counted} of {rows}");
    nothing_left(&place(&node));
    let listed = node.json(&["drill", "list"]);
    assert_eq!(all(&listed).len(), 8);
    assert!(all(&listed).iter().all(|one| one["certified"] == true), "{listed}");
    // No reader of the journal takes a certificate for something else.
    let sound = node.json(&["verify"]);
    assert_eq!(crate::service::first(&sound)["sound"], true, "{sound}");
}

#[test]
fn a_certificate_is_checked_with_the_public_key_alone_and_a_changed_one_does_not_hold() {
    let (node, key) = shipped();
    let id = drill(&node, &[]).passed().id();
    verifies(&node, &id);
    let path = certificate(&node, &id);
    let bytes = std::fs::read(&path).unwrap();
    let folder = user::tempdir();
    let copy = folder.path().join("certificate.json");
    let public = key.public().to_string();
    let holds = |bytes: &[u8], key: &str| {
        std::fs::write(&copy, bytes).unwrap();
        user::give(folder.path());
        // Without a configuration, a store or a catalog.
        let mut command = Command::new(farshore_testkit::farshore_bin(env!("CARGO_BIN_EXE_farshore")));
        command
            .args(["-c", "/nowhere.toml", "-o", "json", "drill", "verify"])
            .arg(&copy)
            .args(["--key", key]);
        user::run_as(command).current_dir("/").output().unwrap()
    };
    let sound = holds(&bytes, &public);
    assert!(sound.status.success(), "{sound:?}");
    // Each byte of it, whichever is changed.
    for at in (0..bytes.len()).step_by(97).chain([bytes.len() - 1, bytes.len() - 2]) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let refused = drilled(&holds(&changed, &public));
        assert_eq!((refused.exit, &refused.message["code"]), (Some(8), &"FS-0805".into()), "byte {at}");
    }
    let text = String::from_utf8(bytes.clone()).unwrap();
    for (from, to) in
        [("\"verdict\":\"passed\"", "\"verdict\":\"failed\""), ("\"removed\":true", "\"removed\":false")]
    {
        assert!(text.contains(from));
        let refused = drilled(&holds(text.replace(from, to).as_bytes(), &public));
        assert_eq!((refused.exit, &refused.message["code"]), (Some(8), &"FS-0805".into()));
    }
    let (other, _) = SigningKey::mint().unwrap();
    let refused = drilled(&holds(&bytes, &other.public().to_string()));
    assert_eq!((refused.exit, &refused.message["code"]), (Some(8), &"FS-0805".into()));
    // In the store too.
    std::fs::write(&path, text.replace("\"passed\"", "\"failed\"")).unwrap();
    let refused = drilled(&node.run(&["-o", "json", "drill", "verify", &id]));
    assert_eq!((refused.exit, &refused.message["code"]), (Some(8), &"FS-0805".into()), "{}", refused.stderr);
}

/// As `docs/drills.md` says it.
#[test]
fn openssl_says_of_a_certificate_what_farshore_says() {
    let (node, key) = shipped();
    let id = drill(&node, &[]).passed().id();
    let folder = user::tempdir();
    let check = |bytes: &[u8]| {
        std::fs::write(folder.path().join("certificate"), bytes).unwrap();
        let script = "cd \"$1\"; head -n 1 certificate | tr -d '\\n' > statement
            sed -n 2p certificate | sed 's/.*\"signature\":\"\\([0-9a-f]*\\)\".*/\\1/' | xxd -r -p > signature
            { printf '302a300506032b6570032100'; printf \"$2\"; } | xxd -r -p > key.der
            openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in statement -sigfile signature";
        let done = Command::new("/bin/sh")
            .args(["-c", script, "sh"])
            .arg(folder.path())
            .arg(key.public().to_string())
            .output()
            .unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let bytes = std::fs::read(certificate(&node, &id)).unwrap();
    let (holds, said) = check(&bytes);
    assert!(holds && said.contains("Signature Verified Successfully"), "{said}");
    let mut changed = bytes;
    changed[200] ^= 1;
    assert!(!check(&changed).0);
}

#[test]
fn drills_come_back_into_a_catalog_that_was_lost_and_a_report_tells_of_all() {
    let (node, _) = shipped();
    configure(
        &node,
        "[databases.orders.drill]\nassertions = [{ name = \"<b>never</b>\", sql = \"select 0\" }]\n",
    );
    let failed = drill(&node, &[]).failed("FS-0801", 8, "<b>never</b>: it is not true");
    node.configure(|text| text.replace("select 0", "select 1"));
    let passed = drill(&node, &["--point", "random"]).passed();
    let before = node.json(&["drill", "report"]);
    let ids = |report: &Value| -> Vec<String> {
        let drills = report["drills"].as_array().unwrap();
        drills.iter().map(|one| one["statement"]["drill"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&before), [passed.id(), failed.id()], "newest first");
    std::fs::remove_file(node.folder().join("farshore.db")).unwrap();
    node.json(&["catalog", "rebuild"]);
    let after = node.json(&["drill", "report"]);
    assert_eq!(ids(&after), ids(&before));
    assert_eq!((&after["passed"], &after["failed"], &after["certified"]), (&1.into(), &1.into(), &2.into()));
    assert_eq!(node.json(&["drill", "show", &failed.id()])["statement"], *failed.statement());
    let page = node.folder().join("report.html");
    node.json(&["drill", "report", "--html", &text(&page)]);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains(&passed.id()) && html.contains(&failed.id()));
    assert!(html.contains("&lt;b&gt;never") && !html.contains("<b>never"), "{html}");
    assert!(!html.contains("http"), "it loads nothing");
}

#[test]
fn a_drill_without_a_key_says_that_it_is_not_certified_and_one_whose_key_is_away_is_refused() {
    let (node, _) = shipped();
    node.configure(|text| text.replace("signing_key = \"signing.pem\"\n", ""));
    let one = drill(&node, &[]);
    assert_eq!((one.exit, &one.said["certified"]), (Some(0), &false.into()), "{}", one.stderr);
    assert_eq!(one.said["uncertified"], "no signing_key is configured");
    let listed = node.json(&["drill", "list"]);
    assert_eq!(all(&listed)[0]["certified"], false);
    configure(&node, "signing_key = \"nowhere.pem\"\n");
    let refused = drill(&node, &[]);
    assert_eq!((refused.exit, &refused.message["code"]), (Some(2), &"FS-0104".into()), "{}", refused.stderr);
    assert_eq!(all(&node.json(&["drill", "list"])).len(), 1);
    nothing_left(&place(&node));
}
