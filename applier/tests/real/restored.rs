//! Every kind of target brings back exactly the commits it names.

use farshore_applier::heads::KnownHeads;
use farshore_applier::plan::{Asked, AskedPosition, PlanError, resolve};
use farshore_applier::restore::RestoreError;
use farshore_applier::verify::verify;
use farshore_applier::wal_fetch::{Fetched, fetch};
use farshore_engines::postgres::restore::safe_start::Then;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::{Offset, Timeline};
use farshore_testkit::pg::{Length, Major, Mode, Server};
use farshore_testkit::user;

use crate::rig::{Rig, restore, restored_rows};

fn at(offset: Offset) -> Asked {
    Asked::Position(AskedPosition { timeline: None, offset })
}

fn up_to(id: i64) -> Vec<i64> {
    (1..=id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_target_brings_back_exactly_the_commits_before_it() {
    let mut rig = Rig::with_tablespace(Major::V15).await;
    rig.server.pgbench_init(1);
    rig.commits(20).await;
    rig.base().await;
    let load = rig.server.pgbench(2, Length::Transactions(400));
    rig.commits(10).await;
    assert!(load.wait().transactions > 0);
    // A quiet gap: nothing commits while other log is written.
    let before_gap = rig.commit().await;
    rig.server.sql("checkpoint");
    rig.server.sql("select pg_switch_wal()");
    rig.server.sql("begin; insert into ledger values (-1, 'never'); rollback");
    let gap_time = chrono::Utc::now();
    let point: Offset = rig.server.sql("select pg_create_restore_point('monday')").parse().unwrap();
    let back_to_back = rig.commits(30).await;
    rig.server.sql("begin; insert into ledger values (-2, 'prepared'); prepare transaction 'held'");
    let prepared_then = rig.commit().await;
    rig.server.sql("rollback prepared 'held'");
    let last = rig.commit().await;
    rig.ship().await;
    let source = rig.source(Unlock::none());

    let plan = rig.plan(Asked::Latest).await.unwrap();
    assert_eq!(plan.resolved.xid, Some(last.xid));
    assert_eq!(restored_rows(&source, &plan, Then::Promote).await, up_to(last.id));

    let middle = &back_to_back[14];
    for asked in [at(middle.position), Asked::Transaction(middle.xid), Asked::Time(middle.time)] {
        let plan = rig.plan(asked.clone()).await.unwrap();
        assert_eq!(plan.resolved.xid, Some(middle.xid), "{asked}");
        assert_eq!(plan.resolved.time, Some(middle.time), "{asked}");
        assert!(
            plan.neutralised.iter().any(|row| row.setting == "archive_command"),
            "{:?}",
            plan.neutralised
        );
        assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(middle.id), "{asked}");
    }
    // One byte before the end of a commit's record it is not there.
    let exact = rig.plan(Asked::Transaction(middle.xid)).await.unwrap().resolved.position;
    let before = rig.plan(at(Offset::new(exact.get() - 1))).await.unwrap();
    assert_eq!(before.resolved.xid, Some(back_to_back[13].xid));
    assert_eq!(restored_rows(&source, &before, Then::Pause).await, up_to(middle.id - 1));

    let plan = rig.plan(Asked::Point("monday".to_owned())).await.unwrap();
    assert_eq!(plan.resolved.position, point);
    assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(before_gap.id));

    let plan = rig.plan(Asked::Time(gap_time)).await.unwrap();
    assert_eq!(plan.resolved.xid, Some(before_gap.xid));
    assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(before_gap.id));

    let plan = rig.plan(Asked::Transaction(prepared_then.xid)).await.unwrap();
    assert_eq!(plan.prepared.len(), 1, "{:?}", plan.prepared);
    assert_eq!(plan.prepared[0].name.as_deref(), Some("held"));
    let json: serde_json::Value = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["schema"], "farshore.restore-plan/1");
    for name in [
        "asked",
        "resolved",
        "base",
        "replay_bytes",
        "segments",
        "writes_bytes",
        "estimate_seconds",
        "neutralised",
    ] {
        assert!(json.get(name).is_some(), "{name}");
    }
    let back: farshore_applier::plan::Plan = serde_json::from_value(json).unwrap();
    assert_eq!(back, plan);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_refused_with_what_can() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    let old = rig.commit().await;
    let in_base = rig.commit().await;
    rig.ship().await;
    assert!(matches!(rig.plan(Asked::Latest).await, Err(PlanError::NoBase { .. })));
    rig.base().await;
    rig.commit().await;
    let aborted =
        rig.server.sql("begin; select pg_current_xact_id(); insert into ledger values (-1, 'x'); rollback");
    let aborted: u64 = aborted.parse().unwrap();
    rig.server.sql("select pg_create_restore_point('twice'); select pg_create_restore_point('twice')");
    // A sub-transaction is its parent's: the last number of the block is the savepoint's.
    let sub = rig.server.sql(
        "begin; insert into ledger values (-3, 'p'); savepoint s; insert into ledger values (-4, 's'); \
         select max(x) from (select xmin::text::bigint x from ledger where id < 0) t; commit",
    );
    let sub: u64 = sub.lines().last().unwrap().parse().unwrap();
    let last = rig.commit().await;
    rig.ship().await;

    let far = Offset::new(last.position.get() + (1 << 30));
    let Err(PlanError::OutsideWindow { windows, .. }) = rig.plan(at(far)).await else {
        panic!("it is not there yet")
    };
    assert_eq!(windows.len(), 1);
    assert!(matches!(rig.plan(at(old.position)).await, Err(PlanError::OutsideWindow { .. })));
    // The base holds a later commit, though no later one follows it at once.
    assert!(matches!(rig.plan(Asked::Time(old.time)).await, Err(PlanError::OutsideWindow { .. })));
    // What the base holds is exactly this commit's state: it can be reached.
    assert!(rig.plan(Asked::Time(in_base.time)).await.is_ok());
    let later = last.time + chrono::TimeDelta::hours(1);
    assert!(matches!(rig.plan(Asked::Time(later)).await, Err(PlanError::OutsideWindow { .. })));
    let refused = rig.plan(Asked::Transaction(aborted)).await;
    assert!(matches!(refused, Err(PlanError::Aborted { .. })), "{refused:?}");
    assert!(matches!(rig.plan(Asked::Transaction(1 << 40)).await, Err(PlanError::NotFound { .. })));
    let refused = rig.plan(Asked::Point("twice".to_owned())).await;
    assert!(matches!(&refused, Err(PlanError::Ambiguous { at, .. }) if at.len() == 2), "{refused:?}");
    assert!(matches!(rig.plan(Asked::Point("never".to_owned())).await, Err(PlanError::NotFound { .. })));
    let parent = rig.plan(Asked::Transaction(sub)).await.unwrap();
    assert_eq!(parent.resolved.xid, Some(sub - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_something_in_it_is_left_alone_and_an_interrupted_one_is_recognised() {
    let mut rig = Rig::with_tablespace(Major::V15).await;
    rig.base().await;
    let kept = rig.commit().await;
    rig.ship().await;
    let held_by = rig.chunk(rig.writer.place().number().get() - 1);
    for _ in 0..3 {
        rig.commit().await;
        rig.ship().await;
    }
    let source = rig.source(Unlock::none());
    let plan = rig.plan(at(kept.position)).await.unwrap();
    let place = user::tempdir();
    let full = place.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "precious").unwrap();
    assert!(matches!(restore(&source, &plan, &full, None).await, Err(RestoreError::Beneath(_))));
    assert_eq!(std::fs::read(full.join("mine")).unwrap(), b"precious");

    // A chunk that does not read for a while interrupts a restore.
    let sound = std::fs::read(&held_by).unwrap();
    let mut flipped = sound.clone();
    flipped[300] ^= 1;
    let directory = place.path().join("r");
    std::fs::remove_file(&held_by).unwrap();
    std::fs::write(&held_by, &flipped).unwrap();
    assert!(restore(&source, &plan, &directory, None).await.is_err());
    assert!(!directory.join("global/pg_control").exists(), "what was cut off must not be startable");
    std::fs::remove_file(&held_by).unwrap();
    std::fs::write(&held_by, &sound).unwrap();
    let again = restore(&source, &plan, &directory, None).await;
    assert!(matches!(again, Err(RestoreError::Interrupted { same_plan: true, .. })), "{again:?}");
    let other = rig.plan(Asked::Latest).await.unwrap();
    let again = restore(&source, &other, &directory, None).await;
    assert!(matches!(again, Err(RestoreError::Interrupted { same_plan: false, .. })), "{again:?}");
    let options =
        farshore_applier::restore::RestoreOptions { resume: true, ..crate::rig::options(&directory, None) };
    farshore_applier::restore::run(&source, &plan, &options, std::sync::Arc::new(|_| {})).await.unwrap();
    let again = restore(&source, &plan, &directory, None).await;
    assert!(matches!(again, Err(RestoreError::AlreadyThere { .. })), "{again:?}");
    // No log behind the target is there at all.
    let beyond = walk_log(&directory, plan.resolved.position);
    assert_eq!(beyond, 0, "bytes of log behind the target");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_from_before_a_promotion_reaches_commits_on_both_sides_of_it() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.commits(3).await;
    rig.base().await;
    rig.commits(3).await;
    let standby = Server::standby_of(&rig.server).await;
    let before = rig.commits(5).await;
    rig.ship().await;
    rig.server.stop(Mode::Fast);
    standby.promote();
    rig.server = standby;
    let after = rig.commits(5).await;
    rig.server.sql("select pg_switch_wal()");
    let last = rig.commit().await;
    rig.ship().await;
    assert_eq!(rig.writer.stored().timeline, Timeline::new(2));
    let source = rig.source(Unlock::none());
    for (commit, timeline) in [(&before[2], 1), (&after[2], 2), (&last, 2)] {
        let plan = rig.plan(Asked::Transaction(commit.xid)).await.unwrap();
        // The one that holds the record, and not the newest.
        assert_eq!(plan.resolved.timeline, Timeline::new(timeline));
        assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(commit.id));
    }
    let on_parent = AskedPosition { timeline: Some(Timeline::new(1)), offset: before[2].position };
    let plan = rig.plan(Asked::Position(on_parent)).await.unwrap();
    assert_eq!(plan.resolved.timeline, Timeline::new(1));
    // The copy takes a timeline of its own, not the second, which its source used.
    assert_eq!(restored_rows(&source, &plan, Then::Promote).await, up_to(before[2].id));
    let found = verify(&source, &KnownHeads::default(), &|_, _| {}).await.unwrap();
    assert!(found.is_sound(), "{:?}", found.bad);
    // The segment with the fork, fetched: byte for byte what the promoted server has.
    let place = tempfile::tempdir().unwrap();
    let fork = rig.server.sql("select pg_walfile_name(pg_current_wal_lsn())");
    let fork = format!("{}{:08X}", &fork[..16], u32::from_str_radix(&fork[16..], 16).unwrap() - 1);
    let fetched = fetch(&source, &fork, &place.path().join("f"), 0).await.unwrap();
    assert!(matches!(fetched, Fetched::Found { log_bytes: 16_777_216, .. }), "{fetched:?}");
    let real = std::fs::read(rig.server.data_dir().join("pg_wal").join(&fork)).unwrap();
    assert!(std::fs::read(place.path().join("f")).unwrap() == real, "the bytes differ");
}

/// Bytes other than zero in `pg_wal` behind `end`.
fn walk_log(directory: &std::path::Path, end: Offset) -> usize {
    let segment = 16 << 20;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory.join("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Some(number) = name.get(16..24).filter(|_| name.len() == 24) else { continue };
        let start = u64::from_str_radix(number, 16).unwrap() * segment;
        let content = std::fs::read(entry.path()).unwrap();
        let from = usize::try_from(end.get().saturating_sub(start)).unwrap().min(content.len());
        bytes += content[from..].iter().filter(|byte| **byte != 0).count();
    }
    bytes
}

/// Replay makes a tablespace where the source had it. That place is an empty directory here, so that a restore by hand may fill it; whoever promised that
/// a copy stays where it was put is refused before a byte is written, and a plan that was made without that promise is refused by the log.
#[tokio::test(flavor = "multi_thread")]
async fn no_tablespace_of_the_log_is_made_outside_of_a_copy_that_is_to_stay_where_it_was_put() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    let before = rig.commit().await;
    let place = user::tempdir();
    let location = place.path().join("later");
    rig.server.sql(&format!("copy (select 1) to program 'mkdir {}'", location.display()));
    rig.server.sql(&format!("create tablespace later location '{}'", location.display()));
    rig.server.sql("drop tablespace later");
    let last = rig.commit().await;
    rig.ship().await;
    let free = rig.source(Unlock::none());
    let confined = rig.source(Unlock::none()).confined();
    let by_hand = resolve(&free, Asked::Latest).await.unwrap();
    assert_eq!(by_hand.resolved.xid, Some(last.xid));
    let refused = resolve(&confined, Asked::Latest).await.unwrap_err();
    assert!(
        matches!(&refused, PlanError::TablespaceOutside { location: at } if *at == location),
        "{refused}"
    );
    let directory = place.path().join("r");
    let refused = restore(&confined, &by_hand, &directory, None).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Plan(PlanError::TablespaceOutside { .. })), "{refused}");
    assert!(!directory.join("global/pg_control").exists(), "it can be started");
    assert_eq!(std::fs::read_dir(&location).unwrap().count(), 0);
    // To before it, and from a base behind it, nothing is in the way.
    let early = resolve(&confined, at(before.position)).await.unwrap();
    assert_eq!(restored_rows(&confined, &early, Then::Pause).await, up_to(before.id));
    rig.base().await;
    let newest = rig.commit().await;
    rig.ship().await;
    let confined = rig.source(Unlock::none()).confined();
    let late = resolve(&confined, Asked::Latest).await.unwrap();
    assert_eq!(restored_rows(&confined, &late, Then::Pause).await, up_to(newest.id));
    assert_eq!(std::fs::read_dir(&location).unwrap().count(), 0);
}
