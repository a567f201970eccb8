//! What a source sent last, and it alone has else: it was reported as received, so a server may have ended on the strength of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod service;

use farshore_journal::Offset;
use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::stores::Moto;
use service::proxy::Proxy;
use service::{Node, SOON, flushed};

/// Waits until the service says that it received so far.
fn wait_received(node: &Node, offset: Offset) {
    let received = wait_for(SOON, || {
        let status = node.status()?;
        let received: Offset = status["received"].as_str()?.parse().ok()?;
        (received >= offset).then_some(())
    });
    assert!(received.is_some(), "{:?}\n{}", node.status(), node.log());
}

/// The server ends and never comes back, with a commit that waits for company, or for the store.
fn ends(node: &Node, server: &Server, mode: Mode, back: impl FnOnce()) {
    server.sql("create table first as select 1 as one");
    // The next chunk is due an interval behind this one.
    server.sql("create table last as select 7 as seven");
    let end = flushed(server);
    if mode != Mode::Fast {
        wait_received(node, end);
    }
    server.stop(mode);
    back();
    node.wait_end(1, end);
}

#[test]
fn what_a_server_sent_before_it_was_stopped_or_crashed_is_stored_though_it_never_comes_back() {
    for mode in [Mode::Fast, Mode::Immediate] {
        let server = Server::start_new(Major::V15);
        let node = Node::new(&[&server]);
        node.configure(|text| text.replace("flush_interval = \"200ms\"", "flush_interval = \"20s\""));
        let service = node.start(None);
        node.wait_backup(1);
        ends(&node, &server, mode, || {});
        service.stop();
        assert_eq!(node.restore(&["--latest"]).sql("select seven from last"), "7", "{mode:?}");
    }
}

#[test]
fn what_was_received_while_the_store_was_away_is_stored_though_the_server_is_lost_meanwhile() {
    let server = Server::start_new(Major::V15);
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 1);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    let service = node.start(None);
    node.wait_backup(1);
    proxy.close(true);
    ends(&node, &server, Mode::Immediate, || proxy.close(false));
    service.stop();
    assert_eq!(node.restore(&["--latest"]).sql("select seven from last"), "7");
}

#[test]
fn a_service_that_is_stopped_after_its_server_stores_what_it_received() {
    let server = Server::start_new(Major::V15);
    let moto = Moto::start();
    let proxy = Proxy::before(&moto.endpoint(), 1);
    let node = Node::on_s3(&[&server], &moto, &proxy.endpoint());
    let service = node.start(None);
    node.wait_backup(1);
    proxy.close(true);
    // As a machine that shuts down ends both.
    ends(&node, &server, Mode::Immediate, || {
        service.process.signal(nix::sys::signal::Signal::SIGTERM);
        service::let_pass(std::time::Duration::from_secs(1));
        proxy.close(false);
    });
}
