//! The promise: who is to be told is told, what is secret is never shown, and a dead man's switch is pressed only while the objective is known to hold.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

#[path = "notify/mail.rs"]
mod mail;
mod service;
mod sqlite;
mod watching;

use std::process::Output;

use farshore_testkit::process::wait_for;
use serde_json::Value;
use service::{Node, SOON};
use sqlite::application::Application;
use watching::receiver::{KEY, Receiver};
use watching::{exposure, scrape, value};

/// Longer than a channel that did not take something waits until it is told again, and what is well must stay so.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(150);

fn node(more: &str, channels: &str) -> Node {
    Node::configured(|folder| {
        std::fs::write(folder.join("key"), KEY).unwrap();
        format!(
            "[service]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n\
             [databases.orders]\nengine = \"sqlite\"\npath = \"app.db\"\nstores = [\"main\"]\nrpo = \"2s\"\n\
             flush_interval = \"20ms\"\n{more}\n{channels}",
            folder.join("journal").display()
        )
    })
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_test_says_whether_each_channel_took_it_and_shows_no_secret() {
    let (receiver, broken) = (Receiver::start(), Receiver::start());
    *broken.status.lock().unwrap() = 503;
    let channels = format!(
        "{}{}[notify.dba]\nkind = \"slack\"\nurl = \"http://127.0.0.1:{}/services/T0SECRET\"\n",
        receiver.channel("pager"),
        broken.channel("other"),
        broken.port,
    );
    let node = node("", &channels);
    let one = node.run(&["notify", "test", "pager"]);
    assert_eq!(one.status.code(), Some(0), "{}", said(&one));
    let told = receiver.received.lock().unwrap().clone();
    assert_eq!((told.len(), &told[0].1["topic"]), (1, &Value::from("test")), "{told:?}");
    assert_eq!(told[0].1["message"]["code"], "FS-0911");
    let all = node.run(&["-o", "json", "notify", "test"]);
    assert_eq!(all.status.code(), Some(6), "{}", said(&all));
    assert!(said(&all).contains("503"), "{}", said(&all));
    let none = node.run(&["notify", "test", "nobody"]);
    assert_eq!(none.status.code(), Some(3), "{}", said(&none));
    assert!(said(&none).contains("FS-0912") && said(&none).contains("pager"), "{}", said(&none));
    for output in [&one, &all, &none] {
        let said = said(output);
        assert!(!said.contains(KEY) && !said.contains("T0SECRET"), "{said}");
    }
}

#[test]
fn a_channel_that_would_speak_in_the_clear_or_unsigned_is_refused_and_not_shown() {
    for (channel, why) in [
        (
            "kind = \"webhook\"\nurl = \"http://hooks.example/T0SECRET\"\nsecret_file = \"key\"\n",
            "not an https address",
        ),
        ("kind = \"webhook\"\nurl = \"https://hooks.example/T0SECRET\"\n", "has no `secret_file`"),
        ("kind = \"slack\"\n", "neither `url` nor `url_file`"),
        ("kind = \"pigeon\"\nurl = \"https://hooks.example/T0SECRET\"\n", "unknown value"),
        ("kind = \"mail\"\nurl = \"https://hooks.example/T0SECRET\"\n", "neither smtps nor smtp"),
        ("kind = \"mail\"\nurl = \"smtps://far:T0SECRET@mail.example\"\n", "a password in the address"),
        ("kind = \"mail\"\nurl = \"smtps://far@mail.example\"\n", "go together"),
        ("kind = \"mail\"\nurl = \"smtps://mail.example\"\n", "needs `from` and `to`"),
        (
            "kind = \"mail\"\nurl = \"smtps://mail.example\"\nfrom = \"me@here.example\"\nto = [\"nowhere\"]\n",
            "not a mail address",
        ),
        (
            "kind = \"slack\"\nurl = \"https://hooks.example/T0SECRET\"\nto = [\"me@here.example\"]\n",
            "are for",
        ),
    ] {
        let node = node("", &format!("[notify.pager]\n{channel}"));
        let refused = node.run(&["notify", "test"]);
        assert_eq!(refused.status.code(), Some(2), "{channel}: {}", said(&refused));
        let said = said(&refused);
        assert!(said.contains(why) && !said.contains("T0SECRET"), "{channel}: {said}");
    }
}

#[test]
fn a_dead_mans_switch_is_pressed_once_the_objective_is_known_to_hold_and_channels_are_counted() {
    let (switch, receiver) = (Receiver::start(), Receiver::start());
    let more = format!("heartbeat_url = \"http://127.0.0.1:{}/ping/orders\"", switch.port);
    let node = node(&more, &receiver.channel("pager"));
    // Without the database's file there is nothing that could be known to hold.
    let service = node.start(None);
    service.wait_log("metrics without a token listens");
    service::let_pass(std::time::Duration::from_secs(3));
    assert!(switch.received.lock().unwrap().is_empty());
    let mut application = Application::open(&node.folder().join("app.db"));
    assert_eq!(application.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
    assert_eq!(application.ask("create table much (id integer primary key, v blob)"), "[]");
    let pressed = wait_for(SOON, || switch.received.lock().unwrap().first().cloned());
    let Some((_, pressed)) = pressed else { panic!("{}", node.log()) };
    assert_eq!(pressed, Value::from("get /ping/orders http/1.1"));
    let page = scrape(&service).unwrap();
    assert_eq!(exposure(&page, "orders"), Some(0.0), "{page}");
    for counter in ["farshore_notifications_total", "farshore_notification_failures_total"] {
        assert!(value(&page, &format!("{counter}{{channel=\"pager\"}}")).is_some(), "{counter}: {page}");
    }
    service.stop();
}

/// Three channels: one that is there, one that comes back while it is bad still, one that comes back when it is well again.
#[test]
fn each_channel_hears_of_what_is_bad_until_it_took_it_and_of_its_end_only_if_it_did() {
    let (up, late, down) = (Receiver::start(), Receiver::start(), Receiver::start());
    for away in [&late, &down] {
        *away.status.lock().unwrap() = 503;
    }
    let channels = format!("{}{}{}", up.channel("up"), late.channel("late"), down.channel("down"));
    let node = node("", &channels);
    // The configuration names a database, and nobody ships it: there is no such file.
    let service = node.start(None);
    let told = |receiver: &Receiver| -> Vec<String> {
        receiver.told("orders", "state").into_iter().map(|(_, word)| word).collect()
    };
    let heard = |receiver: &Receiver, words: &[&str]| {
        let heard = wait_for(AGAIN, || (told(receiver) == words).then_some(()));
        assert!(heard.is_some(), "{words:?}: {:?}\n{}", told(receiver), node.log());
    };
    heard(&up, &["unknown"]);
    assert!(told(&late).is_empty());
    *late.status.lock().unwrap() = 200;
    heard(&late, &["unknown"]);
    assert_eq!(told(&up), ["unknown"], "who took it is not told twice");
    let mut application = Application::open(&node.folder().join("app.db"));
    assert_eq!(application.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
    assert_eq!(application.ask("create table much (id integer primary key, v blob)"), "[]");
    heard(&up, &["unknown", "well"]);
    heard(&late, &["unknown", "well"]);
    // It was told in vain; now there is nothing that it would have to know.
    *down.status.lock().unwrap() = 200;
    service::let_pass(std::time::Duration::from_secs(70));
    assert!(told(&down).is_empty(), "{:?}", told(&down));
    let was = up.received.lock().unwrap().last().map(|(_, told)| told["was"].clone());
    assert_eq!(was, Some(Value::from("unknown")));
    service.stop();
}

/// So many that a channel which takes its time would be told of the last minutes later, one by one.
#[test]
fn what_is_bad_at_once_is_told_soon_in_few_messages_and_each_once_also_by_a_slow_channel() {
    const MANY: usize = 30;
    let receiver = Receiver::start();
    *receiver.pause.lock().unwrap() = std::time::Duration::from_secs(4);
    // The configuration names databases of which no file is there.
    let many = (0..MANY).map(|number| {
        format!(
            "[databases.many-{number}]\nengine = \"sqlite\"\npath = \"{number}.db\"\nstores = [\"main\"]\n"
        )
    });
    let node = node(&many.collect::<String>(), &receiver.channel("pager"));
    let service = node.start(None);
    let told = wait_for(SOON, || {
        let received = receiver.received.lock().unwrap().clone();
        (received.len() > MANY).then_some(received)
    });
    let Some(told) = told else { panic!("{:?}\n{}", receiver.received.lock().unwrap(), node.log()) };
    let (first, last) = (told.first().unwrap().0, told.last().unwrap().0);
    let mut messages: Vec<_> = told.iter().map(|(at, _)| *at).collect();
    messages.dedup();
    assert!(messages.len() <= 4 && last - first < std::time::Duration::from_secs(20), "{messages:?}");
    let mut ids: Vec<_> = told.iter().map(|(_, told)| told["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), told.len()), (MANY + 1, MANY + 1), "{told:?}");
    assert!(told.iter().all(|(_, told)| told["word"] == "unknown" && told["schema"] == "farshore.notice/1"));
    service.stop();
}
