//! The promise: a service is called ready only while every database of it is shipped.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::path::Path;

use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::wait_for;
use service::{Node, SOON};

/// A configuration that ships these servers into the folder `journal` of `place`.
fn configuration(place: &Path, databases: &[(&str, &Server)]) -> String {
    let databases: String = databases
        .iter()
        .map(|(name, server)| {
            format!(
                "[databases.{name}]\nengine = \"postgres\"\nurl = \"postgresql://postgres@127.0.0.1:{}/postgres\"\n\
                 stores = [\"main\"]\nflush_interval = \"200ms\"\nbin_dir = \"{}\"\n",
                server.port(),
                Major::V15.bin().display(),
            )
        })
        .collect();
    format!(
        "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\nurl = \"file:{}/journal\"\n{databases}",
        place.display()
    )
}

#[test]
fn a_fenced_database_is_not_ready_while_others_ship() {
    let (a, b) = (Server::start_new(Major::V15), Server::start_new(Major::V15));
    let first = Node::configured(|folder| configuration(folder, &[("a", &a), ("b", &b)]));
    let service = first.start(None);
    let ready = wait_for(SOON, || (service.readyz().0 == 200).then_some(()));
    assert!(ready.is_some(), "{}", first.log());
    let second = Node::configured(|_| configuration(first.folder(), &[("a", &a)]));
    let other = second.start(None);
    service.wait_log("shipping stopped");
    let unready = wait_for(SOON, || (service.readyz().0 == 503).then_some(()));
    assert!(unready.is_some(), "{:?}\n{}", service.readyz(), first.log());
    // `b` goes on, and nobody speaks for `a` here any more: it stays so.
    let fenced = wait_for(SOON, || {
        let status = first.json(&["status"]);
        let of =
            |name: &str| service::all(&status).into_iter().find(|shown| shown["database"] == name).cloned();
        (of("a")?["state"] == "fenced" && of("b")?["state"] == "connected").then_some(())
    });
    assert!(fenced.is_some(), "{}\n{}", first.json(&["status"]), first.log());
    let (status, body) = service.readyz();
    assert!(
        status == 503 && body.contains("\"a\":\"failing\"") && body.contains("\"b\":\"ready\""),
        "{body}"
    );
    let ready = wait_for(SOON, || (other.readyz().0 == 200).then_some(()));
    assert!(ready.is_some(), "the one that took over is: {}", second.log());
    other.stop();
    drop(service);
}

#[test]
fn a_task_that_panicked_is_a_failure_of_the_service() {
    let server = Server::start_new(Major::V15);
    let node = Node::new(&[&server]);
    // The pipeline's task, and the task that holds all of a database.
    for step in ["ship-appended=panic", "supervise=panic"] {
        let mut service = node.start(Some(step));
        let ended = service.process.wait(SOON).unwrap_or_else(|| panic!("it goes on:\n{}", node.log()));
        assert!(!ended.success(), "{step}: {ended:?}\n{}", node.log());
    }
}
