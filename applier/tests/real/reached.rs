//! Targets beside forks, gaps, restarts and backups: what is restored is what was asked for, or nothing.

use std::time::Duration;

use farshore_applier::plan::{Asked, AskedPosition, PlanError};
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::restore::safe_start::Then;
use farshore_engines::postgres::restore::server::Reached;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::{Offset, Position, Timeline};
use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::user;

use crate::rig::{Commit, Rig, restore, restored_rows};

fn bare(offset: Offset) -> Asked {
    Asked::Position(AskedPosition { timeline: None, offset })
}

fn on(timeline: u32, offset: Offset) -> Asked {
    Asked::Position(AskedPosition { timeline: Some(Timeline::new(timeline)), offset })
}

fn up_to(id: i64) -> Vec<i64> {
    (1..=id).collect()
}

/// Commits on the old primary that the standby never got; then the standby is the primary, and the journal goes on there.
pub async fn failed_over(rig: &mut Rig) -> Vec<Commit> {
    let standby = Server::standby_of(&rig.server).await;
    let end: Offset = rig.server.sql("select pg_current_wal_flush_lsn()").parse().unwrap();
    let caught_up = wait_for(Duration::from_secs(90), || {
        let replayed = standby.sql("select coalesce(pg_last_wal_replay_lsn(), '0/0')");
        (replayed.parse::<Offset>().unwrap() >= end).then_some(())
    });
    assert!(caught_up.is_some());
    standby.sql("alter system set primary_conninfo = ''; select pg_reload_conf()");
    let alone = wait_for(Duration::from_secs(90), || {
        (rig.server.sql("select count(*) from pg_stat_replication") == "0").then_some(())
    });
    assert!(alone.is_some());
    let lost = rig.commits(4).await;
    rig.ship().await;
    rig.server.stop(Mode::Immediate);
    standby.promote();
    rig.branch_to(standby).await;
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_two_timelines_gave_out_is_refused_with_both_positions() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    let shared = rig.commits(3).await;
    let lost = failed_over(&mut rig).await;
    rig.ledger.truncate(shared.len());
    let again = rig.commits(3).await;
    rig.server.sql("select pg_switch_wal()");
    rig.commit().await;
    rig.ship().await;
    let source = rig.source(Unlock::none());
    let both =
        again.iter().find(|new| lost.iter().any(|old| old.xid == new.xid)).expect("a number given out twice");
    let old = lost.iter().find(|old| old.xid == both.xid).unwrap();
    let refused = rig.plan(Asked::Transaction(both.xid)).await;
    let Err(PlanError::Ambiguous { at, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!(at.iter().map(|at| at.timeline.get()).collect::<Vec<_>>(), [1, 2], "{refused:?}");
    // Each of the named positions is the transaction of its own timeline.
    let plan = rig.plan(on(1, at[0].offset)).await.unwrap();
    assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(old.id));
    let plan = rig.plan(on(2, at[1].offset)).await.unwrap();
    assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(both.id));
    // A position behind the fork means something else on each.
    let refused = rig.plan(bare(old.position)).await;
    assert!(matches!(&refused, Err(PlanError::Ambiguous { at, .. }) if at.len() == 2), "{refused:?}");
    // Only one timeline has these.
    assert!(rig.plan(Asked::Transaction(shared[1].xid)).await.is_ok());
    assert!(rig.plan(bare(shared[1].position)).await.is_ok());
    assert!(rig.plan(bare(rig.ledger.last().unwrap().position)).await.is_ok());
    let only_old = lost.iter().rev().find(|old| !again.iter().any(|new| new.xid == old.xid));
    if let Some(only_old) = only_old.filter(|old| rig.ledger.iter().all(|new| new.xid != old.xid)) {
        let refused = rig.plan(Asked::Transaction(only_old.xid)).await;
        assert!(
            matches!(&refused, Err(PlanError::LeftBehind { at, .. }) if at.timeline.get() == 1),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_set_on_both_sides_of_a_backup_is_ambiguous() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    rig.server.sql("select pg_create_restore_point('deploy'); select pg_create_restore_point('once')");
    rig.commit().await;
    rig.base().await;
    rig.server.sql("select pg_create_restore_point('deploy')");
    rig.commit().await;
    rig.ship().await;
    let refused = rig.plan(Asked::Point("deploy".to_owned())).await;
    assert!(matches!(&refused, Err(PlanError::Ambiguous { at, .. }) if at.len() == 2), "{refused:?}");
    assert!(rig.plan(Asked::Point("once".to_owned())).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_hides_nothing_before_it() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    let between = rig.commit().await;
    rig.server.sql("select pg_create_restore_point('between')");
    rig.base().await;
    let last = rig.commit().await;
    rig.ship().await;
    let gap_at = rig.writer.stored();
    rig.gap().await;
    let gap_end = rig.writer.stored();
    let source = rig.source(Unlock::none());
    for behind_it in [false, true] {
        if behind_it {
            rig.base().await;
            rig.commit().await;
            rig.ship().await;
        }
        for asked in
            [Asked::Transaction(between.xid), Asked::Point("between".to_owned()), bare(between.position)]
        {
            let plan = rig.plan(asked).await;
            assert!(plan.is_ok(), "{plan:?}");
        }
        // The very last position before the gap: all log up to it is there.
        let plan = rig.plan(bare(gap_at.offset)).await.unwrap();
        assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(last.id));
        // Behind it nothing is promised, and no window reaches across.
        let refused = rig.plan(bare(Offset::new(gap_at.offset.get() + 8))).await;
        let Err(PlanError::Gap { windows, .. }) = &refused else { panic!("{refused:?}") };
        let across = windows.iter().find(|w| w.from <= gap_at.offset && w.to > gap_at.offset);
        assert_eq!(across, None, "{refused:?}");
        let far = rig.plan(bare(Offset::new(gap_end.offset.get() + (1 << 30)))).await;
        let Err(PlanError::OutsideWindow { windows, .. }) = &far else { panic!("{far:?}") };
        let across = windows.iter().find(|w| w.from <= gap_at.offset && w.to > gap_at.offset);
        assert_eq!(across, None, "{far:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_crosses_a_restart_of_the_source_with_larger_limits() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    rig.commit().await;
    let before: u32 = rig.server.sql("show max_connections").parse().unwrap();
    for (setting, value) in
        [("max_connections", before * 3), ("max_worker_processes", 40), ("max_locks_per_transaction", 200)]
    {
        rig.server.sql(&format!("alter system set {setting} = {value}"));
    }
    rig.server.restart();
    let last = rig.commit().await;
    rig.ship().await;
    let plan = rig.plan(Asked::Latest).await.unwrap();
    assert_eq!(plan.demanded.map(|demanded| demanded.max_connections), Some(before * 3));
    let source = rig.source(Unlock::none());
    assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(last.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_promoted_before_a_failover_has_a_history_that_reads() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    let before = rig.commits(3).await;
    failed_over(&mut rig).await;
    rig.commits(2).await;
    rig.ship().await;
    let source = rig.source(Unlock::none());
    let plan = rig.plan(Asked::Transaction(before[1].xid)).await.unwrap();
    let place = user::tempdir();
    let restored = restore(&source, &plan, &place.path().join("r"), Some(Then::Promote)).await.unwrap();
    let Some(Reached::Promoted(server, timeline)) = restored.server else { panic!("it was to be promoted") };
    // Two is the source's own: the copy takes the next.
    assert_eq!(timeline, Timeline::new(3));
    let history = restored.directory.join(format!("pg_wal/{:08X}.history", timeline.get()));
    let history = TimelineHistory::parse(timeline, &std::fs::read(history).unwrap()).unwrap();
    assert_eq!(history.leaves(Timeline::new(1)), Some(plan.resolved.position));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_whose_padding_is_not_stored_is_not_a_target() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    rig.base().await;
    let last = rig.commit().await;
    let switched: Offset = rig.server.sql("select pg_switch_wal()").parse().unwrap();
    rig.server.sql("checkpoint");
    let page = 8192;
    rig.ship_to(Offset::new(switched.get().next_multiple_of(page) + page), true).await;
    let stored = rig.writer.stored().offset;
    let plan = rig.plan(Asked::Latest).await.unwrap();
    assert!(plan.resolved.position <= stored, "{} of {stored}", plan.resolved.position);
    let source = rig.source(Unlock::none());
    assert_eq!(restored_rows(&source, &plan, Then::Pause).await, up_to(last.id));
    let next = Position::new(Timeline::new(1), stored.segment_start(16 << 20));
    rig.ship_to(Offset::new(next.offset.get() + (16 << 20)), true).await;
    let plan = rig.plan(Asked::Latest).await.unwrap();
    assert_eq!(plan.resolved.position.get(), next.offset.get() + (16 << 20));
}
