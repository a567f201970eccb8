//! A standby that replays late, so that a mistake can be stopped before it comes.

use std::time::{Duration, Instant};

use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::user;

use crate::service::flushed;
use crate::{Copy, PASSWORD, commits, is_listed, port, primary, rows, serving};

#[test]
fn a_delayed_standby_gets_log_when_it_is_old_enough_and_is_not_called_behind_before() {
    let primary = primary();
    let node = serving(&primary, "");
    let service = node.start(None);
    let port = port(&service);
    node.wait_backup(1);
    commits(&primary, 1000);
    node.wait_end(1, flushed(&primary));
    let copy = Copy { place: user::tempdir() };
    let data = copy.data().display().to_string();
    let server = format!("host=127.0.0.1 port={port} user=far password='{PASSWORD}' sslmode=disable");
    let create = ["standby", "create", "orders", "--to", &data, "--name", "oslo", "--server", &server];
    let too_long = node.run(&[&create[..], &["--apply-delay", "100d"]].concat());
    assert_eq!(too_long.status.code(), Some(2), "{too_long:?}");
    let made = node.run(&[&create[..], &["--apply-delay", "12s"]].concat());
    assert!(made.status.success(), "{made:?}");
    let standby = Server::on_data_dir(Major::V15, &copy.data());
    standby.start();
    is_listed(&node, |shown| shown["state"] == "streaming" && shown["delay_seconds"] == 12.0);
    // What is being sent comes first, so that the next commit is in a chunk of its own.
    rows(&standby, 1000);
    let committed = Instant::now();
    commits(&primary, 2000);
    let end = flushed(&primary);
    node.wait_end(1, end);
    // Its log is stored long before it is due; all that is due was sent.
    let late = is_listed(&node, |shown| shown["lag_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(
        (&late["state"], standby.sql("select count(*) from kept").as_str()),
        (&"streaming".into(), "1000")
    );
    rows(&standby, 2000);
    assert!(committed.elapsed() >= Duration::from_secs(12), "it came too soon: {:?}", committed.elapsed());
    is_listed(&node, |shown| shown["lag_bytes"] == 0 && shown["state"] == "streaming");
    standby.stop(Mode::Immediate);
    service.stop();
}
