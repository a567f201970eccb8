//! The promise: another server, another store or an unlike past under the same name is never taken for the one that was shipped.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::path::Path;
use std::process::Command;

use farshore_journal::Offset;
use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use service::{Node, SOON, flushed, keeping, let_pass, wait};

fn chunks(node: &Node, incarnation: usize) -> usize {
    let (_, reader) = &node.incarnations()[incarnation];
    wait(reader.store().list(reader.layout().journal(), None, None)).unwrap().len()
}

fn copied(server: &Server, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(server.data_dir()).arg(to).status();
    assert!(status.unwrap().success());
}

/// Makes a primary leave its timeline without any standby.
fn promoted(server: &Server) {
    server.stop(Mode::Fast);
    std::fs::write(server.data_dir().join("standby.signal"), "").unwrap();
    user::give(server.data_dir());
    server.start();
    server.promote();
}

fn another_cluster_takes_its_place(on_timeline_two: bool) {
    let first = keeping().start();
    let second = keeping().start();
    if on_timeline_two {
        promoted(&second);
    }
    second.stop(Mode::Fast);
    let node = Node::new(&[&first, &second]);
    let service = node.start(None);
    node.wait_backup(1);
    first.sql("create table first_life as select 1 as one");
    node.wait_end(1, flushed(&first));
    first.stop(Mode::Fast);
    // The last of it may still be on its way when the source is known to be away.
    service.wait_log("shipping paused");
    let_pass(std::time::Duration::from_secs(3));
    let before = chunks(&node, 0);
    second.start();
    second.sql("create table second_life as select 1 as one");
    let founded = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(founded.is_some(), "{}", node.log());
    node.wait_end(if on_timeline_two { 2 } else { 1 }, flushed(&second));
    assert_eq!(chunks(&node, 0), before, "{}", node.log());
    node.wait_backup(1);
    service.stop();
    assert_eq!(node.prove(&[&first, &second]).len(), 2);
    assert_eq!(node.restore(&["--latest"]).sql("select one from second_life"), "1");
}

#[test]
fn another_cluster_at_the_same_address_gets_its_own_journal_and_the_old_one_stays_untouched() {
    another_cluster_takes_its_place(false);
}

#[test]
fn another_cluster_on_a_later_timeline_gets_its_own_journal_too() {
    another_cluster_takes_its_place(true);
}

#[test]
fn a_store_that_is_away_is_waited_for_and_never_founded_again() {
    let server = keeping().start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_end(1, flushed(&server));
    service.stop();
    let place = node.folder().join("journal");
    let aside = node.folder().join("unmounted");
    std::fs::rename(&place, &aside).unwrap();
    std::fs::create_dir(&place).unwrap();
    user::give(&place);
    let kept = || {
        server.sql("select restart_lsn from pg_replication_slots where slot_name = 'farshore_orders_keep'")
    };
    let before = kept();
    server.sql("create table while_away as select generate_series(1, 1000) as n");
    let service = node.start(None);
    service.wait_log("shipped to this store before");
    assert!(!place.join("farshore.store").exists() && !place.join("db").exists(), "{}", node.log());
    assert_eq!(kept(), before);
    service.stop();
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&aside, &place).unwrap();
    let service = node.start(None);
    node.wait_end(1, flushed(&server));
    service.stop();
    let walked = node.prove(&[&server]);
    assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}\n{}", node.log());
}

#[test]
fn a_copy_that_diverged_before_its_promotion_is_never_taken_for_the_journals_own_timeline() {
    let server = keeping().start();
    server.pgbench_init(1);
    server.stop(Mode::Fast);
    let folder = user::tempdir();
    let data = folder.path().join("data");
    copied(&server, &data);
    server.start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    server.sql("create table first_life as select generate_series(1, 700000) as n; select pg_switch_wal()");
    server.sql("create table more as select generate_series(1, 700000) as n; select pg_switch_wal()");
    let first_end = flushed(&server);
    node.wait_end(1, first_end);
    service.stop();
    server.stop(Mode::Fast);
    // The copy writes other rows, and is promoted long before the place where the journal ends.
    let copy = Server::on_data_dir(Major::V15, &data);
    copy.start();
    copy.sql("create table second_life as select generate_series(1, 50000) as n");
    assert!(Offset::new(flushed(&copy).get() + (32 << 20)) < first_end);
    promoted(&copy);
    copy.sql("insert into second_life values (0)");
    let node = Node::moved(node, &[&copy]);
    let service = node.start(None);
    let founded = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(founded.is_some(), "{}", node.log());
    node.wait_backup(1);
    node.wait_end(2, flushed(&copy));
    service.stop();
    let walked = node.prove(&[&server, &copy]);
    assert!(walked[0].timelines.is_empty(), "{walked:?}");
    assert_eq!(node.restore(&["--latest"]).sql("select count(*) from second_life"), "50001");
}

#[test]
fn a_server_that_answered_by_mistake_costs_no_log_of_the_right_one() {
    let right = keeping().start();
    let wrong = keeping().start();
    let node = Node::new(&[&right]);
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_end(1, flushed(&right));
    node.wait_connected();
    service.stop();
    let stored = node.end().unwrap().offset;
    right.sql("create table unshipped as select generate_series(1, 700000) as n; select pg_switch_wal()");
    let node = Node::moved(node, &[&wrong]);
    let service = node.start(None);
    let founded = wait_for(SOON, || (node.incarnations().len() == 2).then_some(()));
    assert!(founded.is_some(), "{}", node.log());
    node.wait_backup(1);
    service.stop();
    let node = Node::moved(node, &[&right]);
    let service = node.start(None);
    let founded = wait_for(SOON, || (node.incarnations().len() == 3).then_some(()));
    assert!(founded.is_some(), "{}", node.log());
    node.wait_end(1, flushed(&right));
    service.stop();
    let (_, reader) = node.incarnations().pop().unwrap();
    let begin = wait(reader.chunk(farshore_journal::Sequence::FIRST)).unwrap().header().start;
    assert!(begin <= stored, "the log from {stored} to {begin} is in no journal");
}

#[test]
fn a_history_file_that_the_primary_lacks_is_written_from_its_newest() {
    let server = keeping().start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    server.sql("create table before as select 1 as one");
    node.wait_end(1, flushed(&server));
    service.stop();
    promoted(&server);
    server.sql("create table between as select 1 as one");
    promoted(&server);
    std::fs::remove_file(server.data_dir().join("pg_wal/00000002.history")).unwrap();
    server.sql("create table behind as select 1 as one");
    let service = node.start(None);
    node.wait_end(3, flushed(&server));
    service.stop();
    let walked = node.prove(&[&server]);
    assert!(walked.len() == 1 && walked[0].gaps.is_empty(), "{walked:?}\n{}", node.log());
    assert_eq!(walked[0].timelines, [2, 3]);
    assert_eq!(node.restore(&["--latest"]).sql("select one from behind"), "1");
}

#[test]
fn a_base_backup_is_of_the_primary_that_is_shipped() {
    let old = keeping().start();
    old.pgbench_init(1);
    let new = wait(Server::standby_of(&old));
    new.promote();
    new.sql("create table only_here as select 1 as one");
    old.sql("create table only_there as select 1 as one");
    // Both take writes, and the one that was left behind is named first.
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_end(2, flushed(&new));
    service.stop();
    let restored = node.restore(&["--latest"]);
    assert_eq!(restored.sql("select one from only_here"), "1");
    assert_eq!(restored.sql("select to_regclass('only_there') is null"), "t");
}
