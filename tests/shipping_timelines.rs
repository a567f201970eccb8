//! The promise: promotions and primaries put back are followed or told apart, and both histories stay restorable.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::time::Duration;

use farshore_testkit::pg::{Length, Major, Mode, Server};
use farshore_testkit::process::wait_for;
use service::{CONTENT, Node, SOON, flushed, keeping};

/// A primary with some rows, and a standby of it that has them all.
fn pair() -> (Server, Server) {
    let old = keeping().start();
    old.pgbench_init(1);
    let new = service::wait(Server::standby_of(&old));
    (old, new)
}

fn caught_up(standby: &Server, primary: &Server) {
    let end = flushed(primary);
    let reached = wait_for(SOON, || {
        let replayed = standby.sql("select coalesce(pg_last_wal_replay_lsn(), '0/0')");
        (replayed.parse::<farshore_journal::Offset>().unwrap() >= end).then_some(())
    });
    assert!(reached.is_some(), "the standby did not catch up");
}

fn switches(server: &Server, how_many: usize) {
    for _ in 0..how_many {
        server.sql(
            "insert into pgbench_history(tid, bid, aid, delta) values (1, 1, 1, 1); select pg_switch_wal()",
        );
    }
}

#[test]
fn a_promotion_while_the_service_is_stopped_is_followed_without_a_gap() {
    let (old, new) = pair();
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    old.sql("create table before as select 1 as one");
    let middle = flushed(&old);
    node.wait_end(1, middle);
    let before = old.sql(CONTENT);
    service.stop();
    // More is written that only the standby takes over.
    old.sql("insert into before values (2)");
    old.stop(Mode::Fast);
    new.promote();
    switches(&new, 20);
    let service = node.start(None);
    node.wait_end(2, flushed(&new));
    service.stop();
    let walked = node.prove(&[&old, &new]);
    assert_eq!(walked.len(), 1, "{walked:?}\n{}", node.log());
    assert!(walked[0].gaps.is_empty(), "{walked:?}");
    assert_eq!(walked[0].timelines, [2]);
    let latest = node.restore(&["--latest"]);
    assert_eq!(latest.sql(CONTENT), new.sql(CONTENT));
    assert_eq!(latest.sql("select count(*) from before"), "2");
    drop(latest);
    let early = node.restore(&["--pos", &format!("1:{middle}")]);
    assert_eq!(early.sql(CONTENT), before);
    assert_eq!(early.sql("select count(*) from before"), "1");
}

#[test]
fn a_promotion_while_shipping_is_followed_without_a_gap() {
    let (old, new) = pair();
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    let load = old.pgbench(2, Length::For(Duration::from_secs(4)));
    let _ = load.wait();
    caught_up(&new, &old);
    old.stop(Mode::Fast);
    new.promote();
    switches(&new, 20);
    node.wait_end(2, flushed(&new));
    service.stop();
    let walked = node.prove(&[&old, &new]);
    assert_eq!(walked.len(), 1, "{walked:?}\n{}", node.log());
    assert!(walked[0].gaps.is_empty(), "{walked:?}");
    assert_eq!(walked[0].timelines, [2]);
    let latest = node.restore(&["--latest"]);
    assert_eq!(latest.sql(CONTENT), new.sql(CONTENT));
}

#[test]
fn an_old_primary_that_still_lives_and_is_named_first_does_not_keep_the_service_from_the_new_one() {
    let (old, new) = pair();
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    old.sql("create table before as select 1 as one");
    node.wait_end(1, flushed(&old));
    caught_up(&new, &old);
    service.stop();
    new.promote();
    switches(&new, 2);
    let service = node.start(None);
    node.wait_end(2, flushed(&new));
    service.stop();
    let walked = node.prove(&[&old, &new]);
    assert_eq!(walked.len(), 1, "{walked:?}\n{}", node.log());
    assert!(walked[0].gaps.is_empty() && walked[0].timelines == [2], "{walked:?}");
}

#[test]
fn commits_that_a_promotion_left_behind_stay_in_the_journal_and_are_told_with_their_bytes() {
    let (old, new) = pair();
    let node = Node::new(&[&old, &new]);
    let service = node.start(None);
    node.wait_backup(1);
    caught_up(&new, &old);
    // The standby takes nothing more, and is promoted without what follows.
    new.sql("alter system set primary_conninfo = ''; select pg_reload_conf()");
    let alone = wait_for(SOON, || {
        (old.sql("select count(*) from pg_stat_replication where application_name like 'standby%'") == "0")
            .then_some(())
    });
    assert!(alone.is_some());
    old.sql("create table only_there as select generate_series(1, 1000) as n");
    let lost = flushed(&old);
    node.wait_end(1, lost);
    old.stop(Mode::Immediate);
    new.promote();
    switches(&new, 3);
    node.wait_end(2, flushed(&new));
    service.wait_log("beyond_bytes=");
    service.stop();
    let walked = node.prove(&[&old, &new]);
    assert_eq!(walked.len(), 1, "{walked:?}\n{}", node.log());
    assert_eq!(walked[0].timelines, [2]);
    assert!(walked[0].gaps.is_empty(), "{walked:?}");
    let latest = node.restore(&["--latest"]);
    assert_eq!(latest.sql("select to_regclass('only_there') is null"), "t");
    drop(latest);
    let left = node.restore(&["--pos", &format!("1:{lost}")]);
    assert_eq!(left.sql("select count(*) from only_there"), "1000");
}

#[test]
fn a_primary_put_back_from_an_older_copy_begins_a_new_incarnation_and_nothing_is_skipped() {
    let server = keeping().start();
    server.pgbench_init(1);
    server.stop(Mode::Fast);
    let copy = farshore_testkit::user::tempdir();
    let copied = copy.path().join("data");
    let status = std::process::Command::new("cp").arg("-a").arg(server.data_dir()).arg(&copied).status();
    assert!(status.unwrap().success());
    server.start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    server.sql("create table first_life as select generate_series(1, 5000) as n");
    node.wait_end(1, flushed(&server));
    service.stop();
    let first_content = server.sql(CONTENT);
    server.stop(Mode::Fast);
    // The copy comes back and goes another way, beyond the place where the first one ended.
    let back = Server::on_data_dir(Major::V15, &copied);
    back.start();
    back.sql("create table second_life as select generate_series(1, 200000) as n");
    back.sql("select pg_switch_wal()");
    back.sql("insert into second_life values (0)");
    let second = Node::moved(node, &[&back]);
    let service = second.start(None);
    let founded = wait_for(SOON, || (second.incarnations().len() == 2).then_some(()));
    assert!(founded.is_some(), "{}", second.log());
    second.wait_backup(1);
    second.wait_end(1, flushed(&back));
    service.wait_log("a new incarnation begins");
    service.stop();
    let walked = second.prove(&[&server, &back]);
    assert_eq!(walked.len(), 2, "{walked:?}");
    assert!(walked.iter().all(|walked| walked.gaps.is_empty()), "{walked:?}");
    let latest = second.restore(&["--latest"]);
    assert_eq!(latest.sql("select count(*) from second_life"), "200001");
    assert_eq!(latest.sql("select to_regclass('first_life') is null"), "t");
    drop(latest);
    // Both histories stay restorable: the older one when it is named.
    let named = second.restore(&["--latest", "--incarnation", "0"]);
    assert_eq!(named.sql("select count(*) from first_life"), "5000");
    drop(named);
    // The command restores the newest incarnation; in a store without the second one that is the first. Its record alone gone
    // is damage, and nothing older is taken for the newest.
    let orders = second.folder().join("journal/db/orders");
    let newest = second.incarnations().pop().unwrap().0.incarnation;
    std::fs::remove_file(orders.join("incarnations/0000000000000001")).unwrap();
    let refused = second.run(&["restore", "orders", "--latest", "--dry-run", "--to", "/nowhere"]);
    assert!(
        !refused.status.success() && format!("{refused:?}").contains("its record was deleted"),
        "{refused:?}"
    );
    std::fs::remove_dir_all(orders.join(newest.to_string())).unwrap();
    let earlier = second.restore(&["--latest"]);
    assert_eq!(earlier.sql("select count(*) from first_life"), "5000");
    assert_eq!(earlier.sql(CONTENT), first_content);
}
