//! The promise: a service's metrics say how its databases stand, and what would be lost now, while it goes well and while it does not.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
mod sqlite;
mod watching;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use farshore_testkit::process::wait_for;
use service::{Node, SOON};
use sqlite::application::Application;
use watching::{address, exposure, get, scrape, state, value};

#[test]
fn metrics_of_a_service_show_what_would_be_lost_while_the_store_takes_nothing() {
    let node = Node::configured(|folder| {
        format!(
            "[service]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}\"\n\
             [databases.orders]\nengine = \"sqlite\"\npath = \"app.db\"\nstores = [\"main\"]\nrpo = \"2s\"\n\
             flush_interval = \"20ms\"\n[databases.orders.schedule]\nbackup = \"0 2 * * *\"\n",
            folder.join("journal").display()
        )
    });
    let mut application = Application::open(&node.folder().join("app.db"));
    assert_eq!(application.ask("pragma journal_mode = wal"), "[[\"wal\"]]");
    assert_eq!(application.ask("create table much (id integer primary key, v blob)"), "[]");
    let service = node.start(None);
    // Without a token on the address of everything else nobody is let in.
    let log = service.log();
    assert!(log.is_empty() || !log.contains("panicked"), "{log}");
    let page = || scrape(&service).expect("it answers");
    let well = wait_for(SOON, || {
        let page = page();
        let backed_up = value(&page, "farshore_recovery_window_open{database=\"orders\"}") == Some(1.0);
        (state(&page, "orders")? == "connected" && exposure(&page, "orders")? == 0.0 && backed_up)
            .then_some(page)
    });
    let Some(well) = well else { panic!("{}\n{}", page(), node.log()) };
    for (sample, expected) in [
        ("farshore_catalog_up", 1.0),
        ("farshore_rpo_objective_seconds{database=\"orders\"}", 2.0),
        ("farshore_target_state{database=\"orders\",target=\"main\",state=\"connected\"}", 1.0),
        ("farshore_recovery_window_gaps{database=\"orders\"}", 0.0),
    ] {
        assert_eq!(value(&well, sample), Some(expected), "{sample}\n{well}");
    }
    let due = wait_for(SOON, || {
        value(&page(), "farshore_schedule_due_timestamp_seconds{database=\"orders\",kind=\"backup\"}")
    });
    assert!(due.is_some_and(|due| due > 1e9), "{}", page());
    // What the store does not take is exposed, and for longer with every moment.
    let journal = node.folder().join("journal/.tmp");
    std::fs::set_permissions(&journal, Permissions::from_mode(0o555)).unwrap();
    assert_eq!(application.ask("insert into much (v) values (randomblob(100))"), "[]");
    let exposed = wait_for(SOON, || {
        exposure(&page(), "orders").filter(|exposed| *exposed > 2.0 && exposed.is_finite())
    });
    assert!(exposed.is_some(), "{}", page());
    let shown = state(&page(), "orders").unwrap();
    assert_ne!(shown, "connected");
    assert_eq!(node.status().unwrap()["state"], shown.as_str());
    let more = wait_for(SOON, || exposure(&page(), "orders").filter(|more| *more > exposed.unwrap() + 1.0));
    assert!(more.is_some(), "{}", page());
    std::fs::set_permissions(&journal, Permissions::from_mode(0o755)).unwrap();
    let well = wait_for(SOON, || (exposure(&page(), "orders")? == 0.0).then_some(()));
    assert!(well.is_some(), "{}\n{}", page(), node.log());
    // What is offered without a token is this page alone.
    assert_eq!(get(&address(&service), "/api/v1/databases").unwrap().0, 404);
    service.stop();
}
