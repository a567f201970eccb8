//! Mails: encrypted or not at all, by a relay that proves who it is, and to whoever it takes them for.

use farshore_testkit::mail::{Relay, Way};
use farshore_testkit::process::wait_for;
use serde_json::Value;

use crate::service::{Node, SOON};
use crate::sqlite::application::Application;
use crate::{node, said};

const PASSWORD: &str = "T0SECRET";

fn mailing(url: &str, more: &str, to: &str) -> Node {
    let node = node(
        "",
        &format!(
            "[notify.night]\nkind = \"mail\"\nurl = \"{url}\"\nfrom = \"farshore@db2.example\"\nto = [{to}]\n{more}"
        ),
    );
    std::fs::write(node.folder().join("password"), PASSWORD).unwrap();
    node
}

const KNOWN: &str = "password_file = \"password\"\n";

/// A test by the command, with a relay's authority among those that are trusted.
fn tested(node: &Node, relay: &Relay) -> (Option<i32>, String) {
    // Whoever runs it may not look into the folder of whoever tests.
    let authority = node.folder().join("ca.pem");
    std::fs::copy(relay.authority(), &authority).unwrap();
    let environment = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let output = node.run_with(&environment, &["-o", "json", "notify", "test"]);
    let said = said(&output);
    assert!(!said.contains(PASSWORD), "{said}");
    (output.status.code(), said)
}

#[test]
fn a_mail_goes_encrypted_to_a_relay_that_proves_who_it_is_and_says_what_is_told() {
    for (way, scheme) in [(Way::Wrapped, "smtps"), (Way::StartTls, "smtp")] {
        let relay = Relay::start(way, Some(("far@shore", PASSWORD)));
        // By another name of this machine than those that go in the clear.
        let url = format!("{scheme}://far%40shore@LOCALHOST:{}", relay.port());
        let node = mailing(&url, KNOWN, "\"dba@example.com\", \"Night <night@example.com>\"");
        let (code, text) = tested(&node, &relay);
        assert_eq!(code, Some(0), "{way:?}: {text}");
        let taken = relay.taken();
        let [mail] = taken.as_slice() else { panic!("{taken:?}") };
        assert_eq!(mail["to"], serde_json::json!(["dba@example.com", "night@example.com"]));
        assert_eq!((&mail["encrypted"], &mail["user"]), (&Value::from(true), &Value::from("far@shore")));
        let written = mail["text"].as_str().unwrap();
        for part in [
            "Subject: [farshore] farshore: well",
            "Auto-Submitted: auto-generated",
            "FS-0911",
            "References: ",
        ] {
            assert!(written.contains(part), "{part}: {written}");
        }
        // Its authority is not trusted any more.
        let output = node.run(&["notify", "test"]);
        assert_eq!(output.status.code(), Some(6), "{}", said(&output));
        assert!(said(&output).contains("certificate"), "{}", said(&output));
        assert_eq!(relay.taken().len(), 1);
    }
}

#[test]
fn a_relay_that_would_have_mails_in_the_clear_or_a_wrong_password_gets_none() {
    let clear = Relay::start(Way::Clear, None);
    let node = mailing(&format!("smtp://LOCALHOST:{}", clear.port()), "", "\"dba@example.com\"");
    let (code, text) = tested(&node, &clear);
    assert!(code == Some(6) && text.contains("STARTTLS"), "{code:?} {text}");
    assert!(clear.taken().is_empty());
    let strict = Relay::start(Way::Wrapped, Some(("farshore", "another")));
    let url = format!("smtps://farshore@localhost:{}", strict.port());
    let node = mailing(&url, KNOWN, "\"dba@example.com\"");
    let (code, text) = tested(&node, &strict);
    assert!(code == Some(6) && text.contains("did not take the user"), "{code:?} {text}");
    assert!(strict.taken().is_empty());
}

#[test]
fn whoever_has_a_mailbox_is_told_though_another_has_none_any_more_or_is_full() {
    let relay = Relay::start(Way::Clear, None);
    let url = format!("smtp://127.0.0.1:{}", relay.port());
    for (to, taken, says) in [
        ("\"gone@example.com\", \"dba@example.com\"", 1, "gone@example.com"),
        ("\"gone@example.com\"", 1, "no such mailbox"),
        ("\"dba@example.com\", \"later@example.com\"", 2, "greylisted"),
        ("\"later@example.com\"", 2, "greylisted"),
    ] {
        let (code, text) = tested(&mailing(&url, "", to), &relay);
        assert!(code == Some(6) && text.contains(says), "{to}: {code:?} {text}");
        assert_eq!(relay.taken().len(), taken, "{to}");
    }
    assert_eq!(relay.taken()[0]["to"], serde_json::json!(["dba@example.com"]));
}

#[test]
fn a_service_writes_that_a_database_is_unknown_and_that_it_is_well_again() {
    let relay = Relay::start(Way::Clear, None);
    let url = format!("smtp://127.0.0.1:{}", relay.port());
    let node = mailing(&url, "", "\"gone@example.com\", \"dba@example.com\"");
    let service = node.start(None);
    let subjects = || -> Vec<String> {
        let header = |mail: &Value, name: &str| {
            let text = mail["text"].as_str().unwrap();
            text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
        };
        relay.taken().iter().filter_map(|mail| header(mail, "Subject: ")).collect()
    };
    let wrote = |subject: &str| {
        let wrote = wait_for(SOON * 2, || subjects().iter().any(|known| known == subject).then_some(()));
        assert!(wrote.is_some(), "{subject}: {:?}\n{}", subjects(), node.log());
    };
    wrote("[farshore] orders: unknown");
    let mut application = Application::open(&node.folder().join("app.db"));
    assert_eq!(application.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
    assert_eq!(application.ask("create table much (id integer primary key, v blob)"), "[]");
    wrote("[farshore] orders: well");
    assert_eq!(subjects().iter().filter(|subject| subject.ends_with("unknown")).count(), 1, "told once");
    service.wait_log("and not for this recipient");
    service.stop();
}
