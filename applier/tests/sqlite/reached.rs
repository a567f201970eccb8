//! Every kind of target brings back exactly what the database held there.

use chrono::TimeDelta;
use farshore_applier::plan::{Asked, AskedPosition, Plan, PlanError};
use farshore_journal::Offset;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::writer::encode_data;
use farshore_testkit::random::{Random, seed};

use crate::application::{dump, python};
use crate::rig::{Rig, restored, restored_dump};

fn position(offset: Offset) -> Asked {
    Asked::Position(AskedPosition { timeline: None, offset })
}

/// A plan that says what it will write at most, and nothing that only a server has.
fn is_of_a_file(plan: &Plan) -> bool {
    plan.replay_bytes == plan.resolved.position.get() - plan.base.start.offset.get()
        && plan.writes_bytes == plan.base.bytes + plan.replay_bytes
        && (plan.segments, plan.demanded) == (0, None)
        && plan.neutralised.is_empty()
        && plan.prepared.is_empty()
        && plan.tablespaces.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_target_brings_back_what_the_database_held_there() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(5);
    rig.base().await;
    let commits = rig.commits(30);
    let named = rig.follow.name("before the release");
    let behind = rig.commits(5);
    rig.ship().await;
    let place = tempfile::tempdir().unwrap();
    let source = rig.source(Unlock::none());

    let latest = rig.plan(Asked::Latest).await.unwrap();
    assert!(is_of_a_file(&latest), "{latest:?}");
    assert_eq!(latest.resolved.xid, behind.last().map(|commit| commit.number));
    assert_eq!(restored_dump(&source, &latest, place.path()).await, behind.last().unwrap().dump);

    for (at, commit) in commits.iter().enumerate().step_by(7) {
        let next = commits.get(at + 1).unwrap_or(&behind[0]);
        let targets = [
            Asked::Transaction(commit.number),
            position(commit.end),
            // Inside of the next record.
            position(Offset::new(next.end.get() - 1)),
            Asked::Time(next.time - TimeDelta::microseconds(1)),
        ];
        for asked in targets {
            let plan = rig.plan(asked.clone()).await.unwrap();
            assert_eq!(plan.resolved.position, commit.end, "{asked}");
            assert_eq!((plan.resolved.xid, plan.resolved.time), (Some(commit.number), Some(commit.time)));
            if asked == Asked::Transaction(commit.number) {
                assert_eq!(restored_dump(&source, &plan, place.path()).await, commit.dump, "{asked}");
            }
        }
    }
    let plan = rig.plan(Asked::Time(commits[9].time)).await.unwrap();
    assert!(plan.resolved.position >= commits[9].end, "what was committed then is part of it");

    let plan = rig.plan(Asked::Point("before the release".to_owned())).await.unwrap();
    assert_eq!(plan.resolved.position.get(), named.offset);
    assert_eq!(restored_dump(&source, &plan, place.path()).await, commits.last().unwrap().dump);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_outside_of_the_window_is_refused_with_the_window() {
    let mut rig = Rig::new(Recipients::default()).await;
    let before = rig.commits(3);
    rig.base().await;
    let first = rig.commits(3);
    rig.ship().await;
    let end = rig.writer.stored().offset;
    let source = rig.source(Unlock::none());
    let newest = rig.plan(Asked::Latest).await.unwrap();
    let plan = rig.plan(position(newest.base.end.offset)).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    assert_eq!(restored_dump(&source, &plan, place.path()).await, before.last().unwrap().dump);

    for asked in [
        position(before[0].end),
        position(Offset::new(end.get() + 1)),
        Asked::Time(before[1].time - TimeDelta::microseconds(1)),
        Asked::Time(first[2].time + TimeDelta::days(1)),
    ] {
        match rig.plan(asked.clone()).await {
            Err(PlanError::OutsideWindow { windows, .. }) => {
                assert_eq!((windows[0].from, windows[0].to), (newest.base.end.offset, end), "{asked}");
            }
            other => panic!("{asked}: {other:?}"),
        }
    }
    for asked in [Asked::Transaction(before[0].number), Asked::Point("never".to_owned())] {
        let refused = rig.plan(asked.clone()).await;
        assert!(matches!(refused, Err(PlanError::NotFound { .. })), "{asked}: {refused:?}");
    }
}

/// A base's own records may lie behind a time, however near: then an older base is taken, or the target refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_the_newest_base_is_reached_from_the_one_before() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    let old = rig.base().await;
    let between = rig.commits(6);
    let new = rig.base().await;
    let behind = rig.commits(3);
    rig.ship().await;
    let place = tempfile::tempdir().unwrap();
    let source = rig.source(Unlock::none());
    for (next, expected, base) in [
        (&between[3], &between[2], old),
        (&between[5], &between[4], old),
        (&behind[0], &between[5], new),
        (&behind[2], &behind[1], new),
    ] {
        let plan = rig.plan(Asked::Time(next.time - TimeDelta::microseconds(1))).await.unwrap();
        assert_eq!((plan.base.id, plan.resolved.position), (base, expected.end));
        assert_eq!(restored_dump(&source, &plan, place.path()).await, expected.dump);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_the_plan_that_the_log_does_and_is_confirmed_by_a_restore() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    rig.base().await;
    let commits = rig.commits(60);
    let indexes = rig.ship_with_indexes().await;
    assert!(indexes > 5, "{indexes} indexes");
    // What is read behind them.
    rig.commits(3);
    rig.ship().await;
    let place = tempfile::tempdir().unwrap();
    let found = rig.verified(Unlock::none()).await;
    assert!(found.is_sound(), "{:?}", found.bad);
    let source = rig.source(Unlock::none());
    let alone = source.clone().without_index();
    let mut by_index = 0;
    for (at, commit) in commits.iter().enumerate().skip(5).step_by(17) {
        for asked in [
            Asked::Transaction(commit.number),
            position(commit.end),
            Asked::Time(commits[at + 1].time - TimeDelta::microseconds(1)),
            Asked::Latest,
        ] {
            let plan = farshore_applier::plan::resolve(&source, asked.clone()).await.unwrap();
            let true_one = farshore_applier::plan::resolve(&alone, asked.clone()).await.unwrap();
            by_index += usize::from(plan.rests_on_index);
            assert_eq!(Plan { rests_on_index: false, ..plan.clone() }, true_one, "{asked}");
            if matches!(asked, Asked::Transaction(_)) {
                assert_eq!(restored_dump(&source, &plan, place.path()).await, commit.dump);
            }
        }
    }
    assert!(by_index > 5, "{by_index} plans by the index");
}

/// A chunk may end anywhere in a record: the latest state is that of the last whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_ends_inside_of_a_record_is_restored_to_the_last_whole_one() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    rig.base().await;
    let commits = rig.commits(4);
    rig.ship().await;
    rig.commit();
    let behind = rig.writer.stored().offset.get() - rig.follow.begin;
    let half = rig.follow.log[usize::try_from(behind).unwrap()..][..3000].to_vec();
    let (chunk, _) = encode_data(rig.writer.place(), &half).unwrap();
    rig.writer.append(&chunk, &|_| {}).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let source = rig.source(Unlock::none());
    assert!(rig.verified(Unlock::none()).await.is_sound());
    for asked in [Asked::Latest, position(rig.writer.stored().offset)] {
        let plan = rig.plan(asked).await.unwrap();
        assert_eq!(plan.resolved.position, commits[3].end);
    }
    let plan = rig.plan(Asked::Latest).await.unwrap();
    assert_eq!(restored_dump(&source, &plan, place.path()).await, commits[3].dump);
}

/// Rows of the ledger and of its writers' rows: the numbers of each are dense.
fn rows(path: &std::path::Path) -> u64 {
    let look = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1])\n\
        for w, n, most in c.execute('select writer, count(*), max(number) from ledger group by writer'): assert n == most, (w, n, most)\n\
        print(c.execute('select count(*) from ledger').fetchone()[0])";
    python(&["-c", look, path.to_str().unwrap()]).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_taken_while_writers_write_is_each_later_state() {
    let seed = seed();
    println!("FARSHORE_SEED={seed}");
    let mut random = Random::new(seed);
    let mut rig = Rig::new(Recipients::default()).await;
    let mut writers = [
        rig.database.writer(random.below(1 << 30), 5.0, "steady", Some(150)),
        rig.database.writer(random.below(1 << 30), 5.0, "steady", Some(150)),
    ];
    // Well into it, so that the database's own log has been begun anew and is copied back beside the copy.
    rig.follow.until(400);
    let mut copies = vec![rig.follow.copy()];
    rig.follow.until(700);
    copies.push(rig.follow.copy());
    for writer in &mut writers {
        assert!(writer.wait().unwrap().success());
    }
    rig.follow.name("the end");
    rig.ship().await;
    let end = dump(&rig.database.path());
    let place = tempfile::tempdir().unwrap();
    let source = rig.source(Unlock::none());
    for copy in &copies {
        rig.keep(copy, |_| {}).await;
    }
    let latest = rig.plan(Asked::Latest).await.unwrap();
    assert_eq!(restored_dump(&source, &latest, place.path()).await, end);
    let (first, last) = (copies[0].number, latest.resolved.xid.unwrap());
    let mut numbers: Vec<u64> = (0..6).map(|_| first + random.below(last - first)).collect();
    numbers.extend([first, copies[1].number - 1, copies[1].number, last]);
    numbers.sort_unstable();
    numbers.dedup();
    let mut before: Option<(u64, u64)> = None;
    for number in numbers {
        let plan = rig.plan(Asked::Transaction(number)).await.unwrap();
        let rows = rows(&restored(&source, &plan, place.path()).await);
        if let Some((former, known)) = before {
            // One row for each transaction, but for our own.
            assert!(rows >= known && rows - known <= number - former, "{former}: {known}, {number}: {rows}");
            assert!(number - former - (rows - known) < 20, "{former}: {known}, {number}: {rows}");
        }
        before = Some((number, rows));
    }
    println!(
        "{} transactions, copies at {:?}",
        last,
        copies.iter().map(|copy| copy.number).collect::<Vec<_>>()
    );
}

/// Behind a gap the log is read from the gap's end on, and nothing in front of it is reached from a base behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_ends_the_window_and_the_log_is_read_again_behind_it() {
    let mut rig = Rig::new(Recipients::default()).await;
    rig.commits(3);
    rig.base().await;
    let before = rig.commits(3);
    rig.ship().await;
    rig.gap().await;
    let lost = rig.commits(2);
    rig.base().await;
    let behind = rig.commits(3);
    rig.ship().await;
    let found = rig.verified(Unlock::none()).await;
    assert!(found.is_sound(), "{:?}", found.bad);
    assert_eq!(found.gaps.len(), 1);
    let place = tempfile::tempdir().unwrap();
    let source = rig.source(Unlock::none());
    for commit in [&before[1], &before[2], &lost[1], &behind[2]] {
        let plan = rig.plan(Asked::Transaction(commit.number)).await.unwrap();
        assert_eq!(restored_dump(&source, &plan, place.path()).await, commit.dump);
    }
    let latest = rig.plan(Asked::Latest).await.unwrap();
    assert_eq!(latest.resolved.position, behind[2].end);
    // It is in front of the base behind the gap, and behind the gap for the one before.
    let between = rig.plan(position(lost[0].end)).await;
    assert!(matches!(between, Err(PlanError::Gap { .. } | PlanError::OutsideWindow { .. })), "{between:?}");
}
