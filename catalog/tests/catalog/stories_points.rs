//! Commits and points: nothing is shown twice or left out, and a time means what replay would do with it.

use std::time::Duration;

use farshore_catalog::commit::Commit;
use farshore_catalog::mark::{Mark, MarkKind};
use farshore_catalog::points::{Around, Cursor, PointsQuery};
use farshore_catalog::{Catalog, Error};
use farshore_journal::{IncarnationId, Offset, Timeline};
use farshore_testkit::random::Random;

use crate::make::{at, branch, commit, orders, time};

pub async fn commits_added_twice_count_once(catalog: Catalog) {
    let id = orders(&catalog).await;
    let commits: Vec<Commit> = (1..=10_000).map(|n| commit(1, n * 100, n as i64 / 10, n)).collect();
    let started = std::time::Instant::now();
    assert_eq!(catalog.commit_insert(id, &commits).await.unwrap(), 10_000);
    eprintln!("10 000 commits in {:?}", started.elapsed());
    assert_eq!(catalog.commit_insert(id, &commits[5_000..]).await.unwrap(), 0);
    assert_eq!(catalog.commit_insert(id, &[]).await.unwrap(), 0);
    let last = catalog.commit_at(id, Timeline::new(1), at(1, u64::MAX >> 1)).await.unwrap();
    assert_eq!(last, commits.last().copied());
    let unknown = IncarnationId::from_bytes([9; 16]);
    let refused = catalog.commit_insert(unknown, &commits).await;
    assert!(matches!(refused, Err(Error::NoIncarnation { .. })));
}

/// Commit times that step back, batches in any order and overlapping, two timelines: each answer is compared with
/// reading the whole log in order, as replay does.
pub async fn a_time_resolves_in_log_order_whatever_order_they_came_in(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 1, None)).await.unwrap();
    catalog.branch_put(&branch(id, 2, Some((1, 4_050)))).await.unwrap();
    let mut numbers = Random::new(20_261_121);
    let on = |timeline: u32, from: u64, numbers: &mut Random| -> Vec<Commit> {
        (from..from + 80)
            .map(|n| {
                let jitter = numbers.below(12) as i64 - if numbers.below(25) == 0 { 40 } else { 0 };
                commit(timeline, n * 100, n as i64 + jitter, u64::from(timeline) * 1000 + n)
            })
            .collect()
    };
    let (first, second) = (on(1, 1, &mut numbers), on(2, 41, &mut numbers));
    for _ in 0..40 {
        let whole = if numbers.below(2) == 0 { &first } else { &second };
        let start = numbers.below(70) as usize;
        let batch = &whole[start..start + 1 + numbers.below(10) as usize];
        catalog.commit_insert(id, batch).await.unwrap();
    }
    catalog.commit_insert(id, &second).await.unwrap();
    catalog.commit_insert(id, &first).await.unwrap();

    // The line to timeline 2: its own commits, after its parent's up to the fork.
    let mut line: Vec<Commit> = first.iter().copied().filter(|commit| commit.end.get() <= 4_050).collect();
    line.extend(&second);
    for from in [None, Some(at(1, 1_500)), Some(at(1, 4_050)), Some(at(2, 6_000))] {
        let seen: Vec<Commit> = line
            .iter()
            .copied()
            .filter(|commit| {
                from.is_none_or(|from| {
                    (commit.timeline, commit.end) > (from.timeline, from.offset)
                        && commit.timeline >= from.timeline
                })
            })
            .collect();
        for seconds in -45..140 {
            let found = catalog.commit_before_time(id, Timeline::new(2), from, time(seconds)).await.unwrap();
            let cut = seen.iter().position(|commit| commit.time > time(seconds)).unwrap_or(seen.len());
            assert_eq!(found.next, seen.get(cut).copied(), "{from:?} {seconds}");
            assert_eq!(found.commit, cut.checked_sub(1).map(|last| seen[last]), "{from:?} {seconds}");
            let left_out: Vec<Commit> = seen
                .iter()
                .skip(cut)
                .copied()
                .filter(|commit| commit.time <= time(seconds))
                .take(20)
                .collect();
            assert_eq!(found.out_of_order, left_out, "{from:?} {seconds}");
        }
    }
    let stranger = catalog.commit_before_time(id, Timeline::new(1), Some(at(2, 5_000)), time(0)).await;
    assert!(matches!(stranger, Err(Error::NotInHistory { .. })));
}

/// More commits than a block holds, in batches of any size, order and overlap, expired in between.
pub async fn blocks_answer_as_reading_the_whole_log_in_order_does(catalog: Catalog) {
    const ALL: u64 = 3_000;
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 1, None)).await.unwrap();
    let mut numbers = Random::new(20_261_126);
    let mut log: Vec<Commit> = (1..=ALL)
        .map(|n| {
            let back = if numbers.below(400) == 0 { 500 } else { 0 };
            // Transactions end in another order than they began, and some ran long.
            let xid = n + 5_000 - if numbers.below(50) == 0 { 4_900 } else { numbers.below(9) * 100 };
            commit(1, n * 100, n as i64 + numbers.below(12) as i64 - back, xid * 10 + n % 10)
        })
        .collect();
    let mut added = 0;
    for _ in 0..20 {
        let start = numbers.below(ALL) as usize;
        let batch = &log[start..(start + 1 + numbers.below(900) as usize).min(log.len())];
        added += catalog.commit_insert(id, batch).await.unwrap();
    }
    added += catalog.commit_insert(id, &log).await.unwrap();
    assert_eq!(added, ALL);
    for round in 0..2 {
        for _ in 0..60 {
            let from = at(1, numbers.below(ALL * 100));
            let seconds = numbers.below(ALL + 100) as i64;
            let seen: Vec<Commit> = log.iter().copied().filter(|commit| commit.end > from.offset).collect();
            let found =
                catalog.commit_before_time(id, Timeline::new(1), Some(from), time(seconds)).await.unwrap();
            let cut = seen.iter().position(|commit| commit.time > time(seconds)).unwrap_or(seen.len());
            assert_eq!(found.next, seen.get(cut).copied(), "round {round}, {from} {seconds}");
            assert_eq!(
                found.commit,
                cut.checked_sub(1).map(|last| seen[last]),
                "round {round}, {from} {seconds}"
            );
            let last = catalog.commit_at(id, Timeline::new(1), from).await.unwrap();
            let before = log.iter().rev().find(|commit| commit.end <= from.offset).copied();
            assert_eq!(last, before, "round {round}, {from}");
            let xid = log[numbers.below(log.len() as u64) as usize].xid;
            let same: Vec<Commit> = log.iter().copied().filter(|commit| commit.xid == xid).collect();
            assert_eq!(catalog.commit_by_xid(id, xid).await.unwrap(), same, "round {round}");
        }
        if round == 0 {
            let until = Offset::new(numbers.below(ALL * 50) + 5_000);
            let gone = log.iter().filter(|commit| commit.end <= until).count();
            assert_eq!(catalog.commit_expire(id, Timeline::new(1), until).await.unwrap(), gone as u64);
            log.drain(..gone);
        }
    }
    catalog.commit_forget(id).await.unwrap();
    assert_eq!(catalog.commit_at(id, Timeline::new(1), at(1, u64::MAX >> 1)).await.unwrap(), None);
    assert_eq!(catalog.commit_by_xid(id, log[0].xid).await.unwrap(), []);
}

pub async fn a_transaction_id_finds_its_commits(catalog: Catalog) {
    let id = orders(&catalog).await;
    let wide = (7u64 << 32) + 812;
    let commits = [commit(1, 100, 1, 812), commit(1, 200, 2, wide), commit(2, 300, 3, wide)];
    catalog.commit_insert(id, &commits).await.unwrap();
    assert_eq!(catalog.commit_by_xid(id, 812).await.unwrap(), commits[..1]);
    assert_eq!(catalog.commit_by_xid(id, wide).await.unwrap(), commits[1..]);
    assert!(catalog.commit_by_xid(id, 813).await.unwrap().is_empty());
}

pub async fn pages_show_every_commit_once_in_both_directions(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 1, None)).await.unwrap();
    catalog.branch_put(&branch(id, 2, Some((1, 5_000)))).await.unwrap();
    let mut commits: Vec<Commit> = (1..=50).map(|n| commit(1, n * 100, n as i64, n)).collect();
    let abandoned: Vec<Commit> = (51..=60).map(|n| commit(1, n * 100, n as i64, n)).collect();
    commits.extend((51..=100).map(|n| commit(2, n * 100, n as i64, n + 1000)));
    catalog.commit_insert(id, &commits).await.unwrap();
    catalog.commit_insert(id, &abandoned).await.unwrap();
    let mark = Mark {
        incarnation: id,
        kind: MarkKind::Mark,
        name: "release".to_owned(),
        position: at(2, 5_200),
        time: time(52),
        note: String::new(),
        held_until: None,
    };
    catalog.mark_put(&mark).await.unwrap();

    for around in [Around::Time(time(50)), Around::Position(at(1, 5_000))] {
        let mut asked = PointsQuery {
            incarnation: id,
            timeline: Timeline::new(2),
            around,
            span: Some(Duration::from_secs(30)),
            limit: 7,
            cursor: None,
        };
        let middle = catalog.points_around(&asked).await.unwrap();
        assert_eq!(middle.commits_in_span, Some(61));
        assert_eq!(middle.commits, commits[47..54], "{around:?}");
        assert_eq!(middle.marks, std::slice::from_ref(&mark));
        let mut all = middle.commits.clone();
        let mut cursor = middle.earlier;
        while cursor.is_some() {
            asked.cursor = cursor;
            let page = catalog.points_around(&asked).await.unwrap();
            assert!(page.commits.len() <= 7);
            all.splice(0..0, page.commits);
            cursor = page.earlier;
        }
        cursor = middle.later;
        while cursor.is_some() {
            asked.cursor = cursor;
            let page = catalog.points_around(&asked).await.unwrap();
            all.extend(page.commits);
            cursor = page.later;
        }
        assert_eq!(all, commits[19..80], "{around:?}");
        // A page read forwards leads back as well.
        asked.cursor = Some(Cursor::After(at(1, 3_000)));
        let page = catalog.points_around(&asked).await.unwrap();
        assert_eq!(page.commits, commits[30..37]);
        asked.cursor = page.earlier;
        assert_eq!(catalog.points_around(&asked).await.unwrap().commits, commits[23..30]);
    }
    let nowhere = PointsQuery {
        incarnation: id,
        timeline: Timeline::new(2),
        around: Around::Time(time(900)),
        span: Some(Duration::from_secs(30)),
        limit: 7,
        cursor: None,
    };
    let page = catalog.points_around(&nowhere).await.unwrap();
    assert_eq!((page.commits.len(), page.commits_in_span), (0, Some(0)));
    let stranger = PointsQuery { around: Around::Position(at(3, 1)), ..nowhere };
    assert!(matches!(catalog.points_around(&stranger).await, Err(Error::NotInHistory { .. })));
}

/// One commit in the middle of the log is from a clock a month ahead.
pub async fn a_clock_that_was_far_ahead_hides_no_point(catalog: Catalog) {
    const MONTH: i64 = 30 * 24 * 3600;
    let id = orders(&catalog).await;
    let mut commits: Vec<Commit> = (1..=40).map(|n| commit(1, n * 100, n as i64, n)).collect();
    for ahead in [9, 19, 39] {
        commits[ahead].time = time(MONTH);
        catalog.commit_forget(id).await.unwrap();
        catalog.commit_insert(id, &commits).await.unwrap();
        let mut asked = PointsQuery {
            incarnation: id,
            timeline: Timeline::new(1),
            around: Around::Position(at(1, 4_000)),
            span: None,
            limit: 10,
            cursor: None,
        };
        assert_eq!(catalog.points_around(&asked).await.unwrap().commits, commits[30..], "{ahead}");
        // Bounded by time as well the middle is there, and all of its own time around it.
        asked.span = Some(Duration::from_secs(3600));
        for middle in [0, 15, 25] {
            asked.around = Around::Position(commits[middle].position());
            let page = catalog.points_around(&asked).await.unwrap();
            assert!(page.commits.contains(&commits[middle]), "{ahead} {middle}");
            asked.around = Around::Time(commits[middle].time);
            assert!(!catalog.points_around(&asked).await.unwrap().commits.is_empty(), "{ahead} {middle}");
        }
        commits[ahead].time = time(ahead as i64 + 1);
    }
}

pub async fn every_mark_is_on_one_page_also_where_no_commit_follows(catalog: Catalog) {
    let id = orders(&catalog).await;
    let mark = |name: &str, timeline: u32, offset: u64| Mark {
        incarnation: id,
        kind: MarkKind::RestorePoint,
        name: name.to_owned(),
        position: at(timeline, offset),
        time: time(0),
        note: String::new(),
        held_until: None,
    };
    let mut asked = PointsQuery {
        incarnation: id,
        timeline: Timeline::new(2),
        around: Around::Position(at(2, 5_000)),
        span: None,
        limit: 2,
        cursor: None,
    };
    // Nothing was committed at all.
    catalog.branch_put(&branch(id, 2, Some((1, 1_000)))).await.unwrap();
    let first = mark("first", 1, 50);
    catalog.mark_put(&first).await.unwrap();
    assert_eq!(catalog.points_around(&asked).await.unwrap().marks, std::slice::from_ref(&first));
    let commits: Vec<Commit> = (1..=7).map(|n| commit(1, n * 100, n as i64, n)).collect();
    catalog.commit_insert(id, &commits).await.unwrap();
    let mut marks = vec![first];
    marks.extend((1..=7).map(|n| mark("between", 1, n * 100 + 20)));
    marks.extend([mark("behind the fork", 2, 1_500), mark("last", 2, 4_000)]);
    for mark in &marks[1..] {
        catalog.mark_put(mark).await.unwrap();
    }
    catalog.mark_put(&mark("on the abandoned log", 1, 1_100)).await.unwrap();
    let mut page = catalog.points_around(&asked).await.unwrap();
    assert_eq!(page.marks, marks[5..]);
    let mut found = page.marks;
    while page.earlier.is_some() {
        asked.cursor = page.earlier;
        page = catalog.points_around(&asked).await.unwrap();
        found.splice(0..0, page.marks);
    }
    assert_eq!(found, marks);
    // And forwards.
    asked.cursor = Some(Cursor::After(at(1, 200)));
    let mut found = Vec::new();
    while asked.cursor.is_some() {
        page = catalog.points_around(&asked).await.unwrap();
        found.extend(page.marks);
        asked.cursor = page.later;
    }
    assert_eq!(found, marks[2..]);
    // Bounded by time, with commits on both sides of the span.
    asked = PointsQuery {
        around: Around::Position(at(1, 400)),
        span: Some(Duration::from_secs(1)),
        limit: 100,
        ..asked
    };
    let page = catalog.points_around(&asked).await.unwrap();
    assert_eq!((page.commits.as_slice(), page.marks.as_slice()), (&commits[2..5], &marks[3..6]));
}

pub async fn expired_commits_are_gone_and_the_rest_stays_right(catalog: Catalog) {
    let id = orders(&catalog).await;
    // The second commit's clock ran ahead; once it is gone, it must not hide the third.
    let commits = [commit(1, 100, 1, 1), commit(1, 200, 50, 2), commit(1, 300, 3, 3), commit(1, 400, 4, 4)];
    catalog.commit_insert(id, &commits).await.unwrap();
    assert_eq!(catalog.commit_expire(id, Timeline::new(1), Offset::new(200)).await.unwrap(), 2);
    let found = catalog.commit_before_time(id, Timeline::new(1), Some(at(1, 250)), time(3)).await.unwrap();
    assert_eq!((found.commit, found.next), (Some(commits[2]), Some(commits[3])));
}
