//! The journal's plain bytes are those that PostgreSQL's own receiver keeps of the same log, over a change of timeline too.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was counted is read in the output

mod support;

use std::path::Path;
use std::time::Duration;

use farshore_testkit::pg::{Length, Major, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use support::oracle::Receiver;
use support::{SOON, Service, text};

/// Finished files of a receiver, by name: whole segments and histories.
fn finished(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".partial") && !name.ends_with(".tmp"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_fetched_file_equals_the_receivers_byte_by_byte() {
    let server = Server::builder(Major::V15).wal_segment_size(1).start();
    server.pgbench_init(1);
    let receiver = Receiver::start(&server);
    let service = Service::with_base(&server);
    let load = server.pgbench(4, Length::For(Duration::from_secs(3)));
    for _ in 0..4 {
        server.sql("select pg_switch_wal()");
        server.sql("select pg_sleep(0.4)");
    }
    let _loaded = load.wait();

    // The same server goes on as its own successor: one address, a new timeline.
    server.stop(farshore_testkit::pg::Mode::Fast);
    std::fs::write(server.data_dir().join("standby.signal"), "").unwrap();
    user::give(server.data_dir());
    server.start();
    server.promote();
    let _loaded = server.pgbench(4, Length::Transactions(200)).wait();
    server.sql("select pg_switch_wal()");
    server.sql("checkpoint");
    let end = server.sql("select pg_current_wal_flush_lsn()");
    service.wait_stored(&end);
    receiver.wait_has(&server, &end);

    let last = server.sql(&format!("select pg_walfile_name('{end}')"));
    let names = wait_for(SOON, || {
        let names = finished(receiver.folder());
        names.iter().any(|name| name.ends_with(".history")).then_some(names)
    })
    .expect("the receiver keeps the history");
    // The segment that is being written is not whole at either place.
    let names: Vec<String> = names.into_iter().filter(|name| *name != last).collect();
    let (mut segments, mut first_in_both) = (0, None);
    for name in &names {
        let to = service.home().join(name);
        let done = service.ask(&["wal", "fetch", name, to.to_str().unwrap()]);
        // The receiver began before the journal did: in front of the journal's first file it is doubt that is answered, not
        // absence, because a server that replays must not end there.
        if done.status.code() == Some(170) && first_in_both.is_none() {
            continue;
        }
        assert!(done.status.success(), "{name}: {}: {}", done.status, text(&done.stderr));
        first_in_both.get_or_insert_with(|| name.clone());
        let (ours, theirs) =
            (std::fs::read(&to).unwrap(), std::fs::read(receiver.folder().join(name)).unwrap());
        let differ = ours.iter().zip(&theirs).position(|(one, other)| one != other);
        assert!(
            ours == theirs,
            "{name}: {} and {} bytes, first unlike at {differ:?}",
            ours.len(),
            theirs.len()
        );
        segments += u64::from(!name.ends_with(".history"));
    }
    println!("{segments} segments equal, from {first_in_both:?}; all there are: {names:?}");
    assert!(segments >= 10, "{names:?}");
    assert!(names.iter().any(|name| name == "00000002.history"));
    assert!(names.iter().any(|name| name.starts_with("00000001")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("00000002") && name.len() == 24), "{names:?}");
    service.verify();
}
