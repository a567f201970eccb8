//! Every kind of target brings back exactly the commits it names.

use farshore_applier::plan::{Asked, AskedPosition, PlanError};
use farshore_applier::restore::RestoreError;
use farshore_engines::postgres::restore::safe_start::Then;
use farshore_journal::Offset;
use farshore_journal::format::{Recipients, Unlock};
use farshore_testkit::pg::{Length, Major};
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
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
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
    rig.ship().await;
    assert!(matches!(rig.plan(Asked::Latest).await, Err(PlanError::NoBase { .. })));
    rig.base().await;
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
    assert!(matches!(rig.plan(Asked::Time(old.time)).await, Err(PlanError::OutsideWindow { .. })));
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
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    let kept = rig.commit().await;
    rig.commit().await;
    rig.ship().await;
    let source = rig.source(Unlock::none());
    let plan = rig.plan(at(kept.position)).await.unwrap();
    let place = user::tempdir();
    let full = place.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "precious").unwrap();
    assert!(matches!(restore(&source, &plan, &full, None).await, Err(RestoreError::Beneath(_))));
    assert_eq!(std::fs::read(full.join("mine")).unwrap(), b"precious");

    // A part that is away for a while interrupts a restore.
    let part = rig.object(&format!("backups/{}/part-{:016x}", plan.base.id, 0));
    let aside = rig.store.path().join("aside");
    let directory = place.path().join("r");
    std::fs::rename(&part, &aside).unwrap();
    assert!(restore(&source, &plan, &directory, None).await.is_err());
    assert!(!directory.join("global/pg_control").exists(), "what was cut off must not be startable");
    std::fs::rename(&aside, &part).unwrap();
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
