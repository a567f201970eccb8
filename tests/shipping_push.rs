//! The promise: log files that are pushed continue the journal where the stream does not, and never with other bytes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::path::{Path, PathBuf};
use std::time::Duration;

use farshore_journal::Offset;
use farshore_journal::format::Recipients;
use farshore_journal::format::object::Compression;
use farshore_journal::writer::WriterOptions;
use farshore_shipper::push::alone::{self, Left};
use farshore_shipper::push::room::Room;
use farshore_testkit::pg::{Builder, Length, Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::soak::Campaign;
use farshore_testkit::user;
use service::{CONTENT, Node, SOON, Walked, flushed, keeping, let_pass, wait};

fn archiving() -> Builder {
    keeping().conf("archive_mode = on")
}

/// Tells the server to push its files.
fn pushes(server: &Server, node: &Node) {
    server.conf(&format!("archive_command = '{}'", node.archive_command()));
    server.reload();
}

/// Completes the present segment and gives its name.
fn switched(server: &Server) -> String {
    server.sql(
        "create table if not exists tick(at timestamptz); insert into tick values (now());
         select pg_walfile_name(pg_switch_wal())",
    )
}

fn last_archived(server: &Server) -> String {
    server.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver")
}

fn wait_archived(server: &Server, file: &str, node: &Node) {
    let archived = wait_for(SOON, || (last_archived(server).as_str() >= file).then_some(()));
    assert!(
        archived.is_some(),
        "{file} is not archived, {}\n{}\n{}",
        last_archived(server),
        server.log(),
        node.log()
    );
}

/// What must hold once all is quiet.
fn proven(node: &Node, servers: &[&Server]) -> Walked {
    let mut walked = node.prove(servers);
    assert_eq!(walked.len(), 1, "{walked:?}\n{}", node.log());
    let walked = walked.pop().unwrap();
    assert!(walked.gaps.is_empty(), "{walked:?}\n{}", node.log());
    walked
}

fn in_wal(server: &Server, file: &str) -> PathBuf {
    server.data_dir().join("pg_wal").join(file)
}

/// How a push ended, with what it said when that is not expected.
#[track_caller]
fn push(node: &Node, file: &Path, expected: i32) {
    let output = node.run(&["wal", "push", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(expected), "{}: {said}\n{}", file.display(), node.log());
}

/// The files from the one in which the journal ends up to `last`.
fn unshipped(node: &Node, server: &Server, last: &str) -> Vec<PathBuf> {
    let end = node.end().unwrap().offset;
    let first = server.sql(&format!("select pg_walfile_name('{end}'::pg_lsn + 1)"));
    let mut files: Vec<String> = std::fs::read_dir(server.data_dir().join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == 24 && *name >= first && name.as_str() <= last)
        .collect();
    files.sort();
    files.iter().map(|file| in_wal(server, file)).collect()
}

#[test]
fn files_pushed_while_the_stream_ships_change_nothing_and_succeed_once_they_are_stored() {
    let server = archiving().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    pushes(&server, &node);
    let mut load = server.pgbench(2, Length::For(Duration::from_secs(10)));
    let mut last = String::new();
    let mut switches = 0;
    while load.is_running() {
        last = switched(&server);
        switches += 1;
        let_pass(Duration::from_millis(700));
    }
    let _ = load.wait();
    wait_archived(&server, &last, &node);
    node.wait_end(1, flushed(&server));
    service.stop();
    let walked = proven(&node, &[&server]);
    assert_eq!(walked.openings, 1, "a push took the journal from the service: {walked:?}");
    assert_eq!(node.restore(&["--latest"]).sql(CONTENT), server.sql(CONTENT));
    println!("{switches} switches: {walked:?}");
}

#[test]
fn without_a_service_the_archiver_continues_the_journal() {
    let server = archiving().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    let before = node.end().unwrap().offset;
    pushes(&server, &node);
    let mut last = String::new();
    for _ in 0..4 {
        let _ = server.pgbench(2, Length::For(Duration::from_secs(1))).wait();
        last = switched(&server);
    }
    let end = flushed(&server).segment_start(service::SEGMENT);
    wait_archived(&server, &last, &node);
    assert!(node.end().unwrap().offset >= end && end > before, "{:?}", node.end());
    // A server that is shut down archives its last segments when nobody can connect any more.
    server.stop(Mode::Fast);
    server.start();
    let service = node.start(None);
    server.sql("create table behind as select 1 as one");
    node.wait_end(1, flushed(&server));
    service.stop();
    proven(&node, &[&server]);
    let restored = node.restore(&["--latest"]);
    assert_eq!(restored.sql(CONTENT), server.sql(CONTENT));
    assert_eq!(restored.sql("select one from behind"), "1");
}

#[test]
fn log_that_the_primary_has_lost_is_taken_from_an_archives_files_and_no_gap_is_recorded() {
    let server = Server::builder(Major::V15)
        .conf("max_wal_size = 48MB")
        .conf("min_wal_size = 32MB")
        .conf("archive_mode = on")
        .start();
    server.pgbench_init(1);
    let archive = user::tempdir();
    server.conf(&format!("archive_command = 'cp %p {}/%f'", archive.path().display()));
    server.reload();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    // Not before: the base backup's own checkpoint would take the log from under the stream, and a second incarnation begin there.
    server.conf("max_slot_wal_keep_size = 16MB");
    server.reload();
    let stored = node.end().unwrap();
    let mut last = String::new();
    for _ in 0..10 {
        server.sql(
            "create table if not exists filler(n int); insert into filler select generate_series(1, 200000)",
        );
        last = switched(&server);
        wait_archived(&server, &last, &node);
        server.sql("checkpoint");
    }
    // The keeper makes its slot within a second, which a quick stop may forestall: what counts is that no slot keeps anything.
    let lost = server.sql("select bool_and(wal_status = 'lost') from pg_replication_slots");
    assert_eq!(lost, "t", "{}", server.sql("select * from pg_replication_slots"));
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(archive.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().len() == 24);
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let first = server.sql(&format!("select pg_walfile_name('{}'::pg_lsn + 1)", stored.offset));
    // One too early proves the journal's end; out of turn nothing is appended.
    push(&node, files.last().unwrap(), 1);
    assert_eq!(node.end(), Some(stored));
    for file in files.iter().filter(|file| name(file) >= first) {
        push(&node, file, 0);
    }
    assert!(name(files.last().unwrap()) >= last);
    assert!(!in_wal(&server, &first).exists(), "the primary still has {first}: nothing was shown");
    let service = node.start(None);
    server.sql("create table behind as select 1 as one");
    node.wait_end(1, flushed(&server));
    service.stop();
    let verified = node.json(&["verify"]);
    let shown = service::first(&verified);
    assert_eq!(shown["sound"], true, "{verified}");
    assert_eq!(shown["gaps"].as_array().map(Vec::len), Some(0), "{verified}\n{}", node.log());
    assert_eq!(node.incarnations().len(), 1);
    let restored = node.restore(&["--latest"]);
    assert_eq!(restored.sql("select count(*) from filler"), "2000000");
    assert_eq!(restored.sql("select one from behind"), "1");
}

#[test]
fn a_file_that_is_not_the_journals_continuation_is_never_appended() {
    let server = archiving().start();
    let stranger = archiving().start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    let file = switched(&server);
    switched(&server);
    let stored = node.end().unwrap();
    let folder = user::tempdir();
    let right = std::fs::read(in_wal(&server, &file)).unwrap();
    let within = usize::try_from(stored.offset.get() % service::SEGMENT).unwrap();
    let changed = |at: usize| {
        let mut bytes = right.clone();
        bytes[at] ^= 1;
        let path = folder.path().join(&file);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    // Before the journal's end, behind it in a record, and another cluster's file of the same name.
    push(&node, &changed(within / 2), 1);
    push(&node, &changed(within + 30), 1);
    while switched(&stranger) < file {}
    let strange = in_wal(&stranger, &file);
    assert!(strange.exists(), "{}", strange.display());
    push(&node, &strange, 1);
    let short = folder.path().join(&file);
    std::fs::write(&short, &right[..right.len() / 2]).unwrap();
    push(&node, &short, 1);
    assert_eq!(node.end().unwrap().offset, stored.offset);
    push(&node, &in_wal(&server, &file), 0);
    proven(&node, &[&server]);
    // Once it is stored, a file that differs is never called so.
    push(&node, &changed(within + 30), 1);
}

#[test]
fn a_file_from_before_the_journals_begin_is_not_called_stored_and_passes_only_when_that_was_asked_for() {
    let server = archiving().start();
    let old = switched(&server);
    switched(&server);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    push(&node, &in_wal(&server, &old), 1);
    let path = in_wal(&server, &old);
    let passed = node.run(&["wal", "push", "--pass-unheld", path.to_str().unwrap()]);
    assert!(passed.status.success(), "{passed:?}");
    service.stop();
    push(&node, &path, 1);
}

#[test]
fn a_push_that_dies_at_any_step_is_made_good_by_the_next() {
    let server = archiving().start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    for step in [
        "push-before-takeover=return",
        "push-encoded=return",
        "push-appended=return",
        "push-encoded=1*off->return",
    ] {
        server.sql(
            "create table if not exists filler(n int); insert into filler select generate_series(1, 150000)",
        );
        let last = switched(&server);
        let files = unshipped(&node, &server, &last);
        let died = node.run_until(step, &["wal", "push", files[0].to_str().unwrap()]);
        assert!(died.status.code() == Some(101) || died.status.code().is_none(), "{step}: {died:?}");
        for file in files {
            push(&node, &file, 0);
        }
    }
    let service = node.start(None);
    node.wait_end(1, flushed(&server));
    service.stop();
    proven(&node, &[&server]);
}

#[test]
fn a_shipper_on_another_machine_is_never_fenced_by_an_archiver() {
    let server = archiving().start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    let file = switched(&server);
    let (record, reader) = node.incarnations().pop().unwrap();
    let before = node.end().unwrap();
    let place = user::tempdir();
    std::fs::copy(in_wal(&server, &file), place.path().join(&file)).unwrap();
    let options = WriterOptions {
        compression: Compression::None,
        recipients: Recipients::default(),
        segment_bytes: service::SEGMENT,
        host: "another".to_owned(),
    };
    let left = wait(alone::append(&reader, &record, &Room::new(place.path().to_owned()), &options));
    assert!(matches!(left, Err(Left::ShippedElsewhere { .. })), "{left:?}");
    assert_eq!(node.end(), Some(before));
}

#[test]
fn the_first_segment_behind_a_promotion_is_accepted_and_one_with_another_past_is_not() {
    let old = archiving().start();
    old.pgbench_init(1);
    let new = wait(Server::standby_of(&old));
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    old.sql("create table before as select generate_series(1, 1000) as n");
    let end = flushed(&old);
    node.wait_end(1, end);
    let caught_up = wait_for(SOON, || {
        let replayed = new.sql("select pg_last_wal_replay_lsn()").parse::<Offset>().unwrap();
        (replayed >= end).then_some(())
    });
    assert!(caught_up.is_some());
    old.stop(Mode::Fast);
    new.promote();
    new.sql("create table behind as select generate_series(1, 1000) as n");
    let file = switched(&new);
    assert!(file.starts_with("00000002"), "{file}");
    node.wait_end(2, flushed(&new));
    push(&node, &in_wal(&new, &file), 0);
    push(&node, &in_wal(&new, "00000002.history"), 0);
    // The old timeline's last segment, and one that would lie behind the fork.
    let partial = std::fs::read_dir(new.data_dir().join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "partial"))
        .expect("the old timeline's last segment");
    push(&node, &partial, 0);
    let behind = user::tempdir();
    let later = behind.path().join("0000000100000000000000FE.partial");
    std::fs::copy(&partial, &later).unwrap();
    user::give(behind.path());
    push(&node, &later, 1);
    let folder = user::tempdir();
    let mut bytes = std::fs::read(in_wal(&new, &file)).unwrap();
    bytes[9000] ^= 1;
    std::fs::write(folder.path().join(&file), bytes).unwrap();
    user::give(folder.path());
    push(&node, &folder.path().join(&file), 1);
    std::fs::write(folder.path().join("00000002.history"), "1\t0/1000000\tsomewhere else\n").unwrap();
    push(&node, &folder.path().join("00000002.history"), 1);
    service.stop();
}

#[test]
fn soak_wal_push_and_stream() {
    let mut campaign = Campaign::start("wal_push_and_stream");
    let server = archiving().start();
    server.pgbench_init(1);
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    service.stop();
    pushes(&server, &node);
    while campaign.next_round() {
        let load = server.pgbench(2, Length::For(Duration::from_secs(600)));
        for _ in 0..3 {
            // With a service that is killed or stopped, and then with the archiver alone.
            let service = node.start(None);
            for _ in 0..campaign.random.below(3) {
                let_pass(Duration::from_millis(campaign.random.below(1500)));
                switched(&server);
                campaign.count("switches", 1);
            }
            let_pass(Duration::from_millis(campaign.random.below(1500)));
            match campaign.random.below(2) {
                0 => service.kill9(),
                _ => {
                    // One that has only just begun would be ended by the signal itself.
                    service.wait_log("health endpoint listens");
                    service.stop();
                }
            }
            campaign.count("ends", 1);
            for _ in 0..campaign.random.below(3) {
                switched(&server);
                campaign.count("switches_alone", 1);
                let_pass(Duration::from_millis(campaign.random.below(2000)));
            }
        }
        drop(load);
        let service = node.start(None);
        let last = switched(&server);
        wait_archived(&server, &last, &node);
        node.wait_end(1, flushed(&server));
        service.stop();
        let walked = proven(&node, &[&server]);
        campaign.count("walked_chunks", walked.chunks);
    }
    campaign.finish();
}
