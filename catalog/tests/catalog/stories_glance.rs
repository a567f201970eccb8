//! Many databases at once, and how their exposure went.

use chrono::TimeDelta;
use farshore_catalog::Catalog;
use farshore_catalog::database::Database;
use farshore_catalog::drill::DrillFilter;
use farshore_catalog::exposure::Minute;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::job::JobFilter;
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_journal::{BackupId, IncarnationId, Offset, Timeline};
use farshore_testkit::random::Random;

use crate::make::{backup, branch, gap, incarnation, name, orders, range, shipping, time, usable};

pub async fn a_database_among_others_is_told_of_as_by_itself(catalog: Catalog) {
    let now = time(1000);
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 1, None)).await.unwrap();
    catalog.branch_put(&branch(id, 2, Some((1, 950)))).await.unwrap();
    for (store, start, end) in [("main", 0, 400), ("main", 500, 900), ("other", 0, 300)] {
        catalog.range_extend(&range(id, store, 1, start, end)).await.unwrap();
    }
    catalog.gap_put(&gap(id, 400, 500)).await.unwrap();
    catalog.backup_insert(&usable(id, 1, 100, 200)).await.unwrap();
    catalog.backup_insert(&usable(id, 2, 600, 700)).await.unwrap();
    catalog.backup_insert(&backup(id, 3, 800)).await.unwrap();
    catalog.shipping_put(&shipping(now)).await.unwrap();
    // One of which nothing is known; one with two incarnations, cut off from its newest log, whose shipper has failed.
    let bare = Database { name: name("bare"), engine: "sqlite".to_owned(), added_at: time(0) };
    catalog.database_put(&bare).await.unwrap();
    let torn = Database { name: name("torn"), engine: "postgres".to_owned(), added_at: time(0) };
    catalog.database_put(&torn).await.unwrap();
    for (number, of) in [(5, 0), (6, 1)] {
        let mut one = incarnation(number, "torn");
        one.number = Some(of);
        catalog.incarnation_put(&one).await.unwrap();
        catalog.branch_put(&branch(one.id, 1, None)).await.unwrap();
        catalog.range_extend(&range(one.id, "main", 1, 0, 400)).await.unwrap();
        catalog.range_extend(&range(one.id, "main", 1, 500, 900)).await.unwrap();
        catalog.backup_insert(&usable(one.id, number, 100, 200)).await.unwrap();
    }
    let failed = Shipping {
        database: name("torn"),
        state: ShippingState::Failed,
        timeline: Some(Timeline::new(1)),
        ..shipping(now)
    };
    catalog.shipping_put(&failed).await.unwrap();
    let fleet = catalog.glance(now).await.unwrap();
    let names: Vec<&str> = fleet.iter().map(|one| one.database.as_str()).collect();
    assert_eq!(names, ["bare", "orders", "torn"]);
    let mut windows = 0;
    for one in fleet {
        let alone = catalog.status(&one.database, now).await.unwrap();
        assert_eq!((one.state, &one.why), (alone.state, &alone.why), "{}", one.database);
        assert_eq!((one.seen_at, one.measured_at), (alone.seen_at, alone.measured_at));
        assert_eq!(
            (one.ship_lag_bytes, one.ship_lag_seconds),
            (alone.ship_lag_bytes, alone.ship_lag_seconds)
        );
        assert_eq!(one.backups, alone.backups);
        let reach = one.window.as_ref().map(|reach| (reach.store.clone(), reach.gaps));
        assert_eq!(reach, alone.window.map(|window| (window.store, window.gaps.len())), "{}", one.database);
        // A window that ends before the newest log does not end at the newest commit.
        if one.database.as_str() == "torn" {
            assert_eq!(one.window.as_ref().unwrap().to, None);
        }
        windows += usize::from(one.window.is_some());
    }
    assert_eq!(windows, 2);
}

pub async fn how_the_exposure_went_is_kept_by_the_minute_and_what_nobody_looked_at_is_not_there(
    catalog: Catalog,
) {
    let _: IncarnationId = orders(&catalog).await;
    let (orders, strange) = (name("orders"), name("strange"));
    let minute = |number: i64, worst, unknown| Minute::of(time(number * 60), worst, unknown);
    let told = [minute(0, Some(0), false), minute(59, Some(2500), true), minute(61, None, true)];
    for one in told {
        catalog.exposure_add(&[(orders.clone(), one), (strange.clone(), one)]).await.unwrap();
    }
    assert_eq!(catalog.exposure_of(&orders, time(0)).await.unwrap(), told);
    // From the midst of an hour on; and the worse of two.
    catalog.exposure_add(&[(orders.clone(), minute(59, Some(9000), false))]).await.unwrap();
    let since = [minute(59, Some(9000), true), told[2]];
    assert_eq!(catalog.exposure_of(&orders, time(30 * 60)).await.unwrap(), since);
    let all = catalog.exposure_of_all(time(30 * 60)).await.unwrap();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [(orders.clone(), since.to_vec())]);
    assert!(catalog.exposure_of(&strange, time(0)).await.unwrap().is_empty());
    assert_eq!(catalog.exposure_forget(time(0) + TimeDelta::minutes(60)).await.unwrap(), 1);
    assert_eq!(catalog.exposure_of(&orders, time(0)).await.unwrap(), [told[2]]);
    catalog.database_delete(&orders).await.unwrap();
    assert!(catalog.exposure_of_all(time(0)).await.unwrap().is_empty());
}

/// One with a timeline, and how it is called.
async fn begun(catalog: &Catalog, number: u8) -> (String, Incarnation) {
    let called = format!("db-{number:03}");
    let database = Database { name: name(&called), engine: "postgres".to_owned(), added_at: time(0) };
    catalog.database_put(&database).await.unwrap();
    let mut one = incarnation(100, &called);
    one.id = IncarnationId::from_bytes([number; 16]);
    one.parent = None;
    catalog.incarnation_put(&one).await.unwrap();
    catalog.branch_put(&branch(one.id, 1, None)).await.unwrap();
    (called, one)
}

/// One of which little is known, with two base backups in each of two stores.
async fn add(catalog: &Catalog, number: u8) {
    let (called, one) = begun(catalog, number).await;
    for (at, store) in ["main", "other"].into_iter().enumerate() {
        catalog.range_extend(&range(one.id, store, 1, 0, 900)).await.unwrap();
        for (of, start) in [(1, 100), (2, 600)] {
            let mut backup = usable(one.id, of, start, start + 100);
            let mut id = [number; 16];
            id[0] = of + 2 * u8::try_from(at).unwrap();
            (backup.id, backup.store) = (BackupId::from_bytes(id), store.to_owned());
            catalog.backup_insert(&backup).await.unwrap();
        }
    }
    let told = [(name(&called), Minute::of(time(0), Some(5), false))];
    catalog.exposure_add(&told).await.unwrap();
    catalog.shipping_put(&Shipping { database: name(&called), ..shipping(time(1000)) }).await.unwrap();
}

pub async fn as_much_is_asked_of_the_catalog_for_many_databases_as_for_one(catalog: Catalog) {
    let mut counts = Vec::new();
    for until in [1, 30] {
        for number in until..until * 2 {
            add(&catalog, number).await;
        }
        let before = catalog.asked();
        catalog.glance(time(1000)).await.unwrap();
        let glance = catalog.asked();
        catalog.fleet(time(1000)).await.unwrap();
        let fleet = catalog.asked();
        catalog.exposure_of_all(time(0)).await.unwrap();
        catalog.job_list(&JobFilter::default(), 100).await.unwrap();
        catalog.drill_list(&DrillFilter::default(), 100).await.unwrap();
        catalog.drill_newest(None).await.unwrap();
        counts.push([glance - before, fleet - glance, catalog.asked() - fleet]);
    }
    assert_eq!(counts[0], counts[1]);
    assert_eq!(counts[0][2], 4, "each list is one question");
}

/// Histories of every kind: whole and torn log, one store and two, timelines that branched, base backups that are usable, lie across a gap, or beyond the
/// checked end. Of each the window is what all of its rows say, though not all of them are read.
pub async fn the_window_of_one_among_many_is_that_of_all_its_rows(catalog: Catalog) {
    let mut numbers = Random::new(20_261_127);
    let now = time(1000);
    for number in 0..60_u8 {
        let (called, one) = begun(&catalog, number).await;
        let branches = numbers.below(2);
        if branches == 1 {
            catalog.branch_put(&branch(one.id, 2, Some((1, 400 + 10 * numbers.below(20))))).await.unwrap();
        }
        for store in &["main", "other"][..1 + usize::from(numbers.below(3) == 0)] {
            for timeline in 1..=u32::try_from(branches).unwrap() + 1 {
                let mut start = 10 * numbers.below(30);
                for _ in 0..=numbers.below(2) {
                    let mut some =
                        range(one.id, store, timeline, start, start + 300 + 10 * numbers.below(30));
                    some.checked_end = Offset::new(some.end.get() - numbers.below(40));
                    catalog.range_extend(&some).await.unwrap();
                    start = some.end.get() + 10 + 10 * numbers.below(5);
                }
            }
        }
        if numbers.below(4) == 0 {
            let start = 10 * numbers.below(60);
            catalog.gap_put(&gap(one.id, start, start + 10)).await.unwrap();
        }
        for of in 0..numbers.below(7) {
            let start = 10 * numbers.below(80);
            let mut backup = usable(one.id, u8::try_from(of).unwrap(), start, start + 10 * numbers.below(20));
            let mut id = [number; 16];
            id[0] = u8::try_from(of).unwrap();
            backup.id = BackupId::from_bytes(id);
            backup.timeline = Timeline::new(1 + u32::try_from(numbers.below(branches + 1)).unwrap());
            // Of one that was not opened the number is not known, whatever stands in the column.
            backup.checked = numbers.below(5) > 0;
            backup.bad_pages = Some(numbers.below(2));
            backup.bad_at = Some(now).filter(|_| numbers.below(8) == 0);
            if numbers.below(4) == 0 {
                backup.store = "other".to_owned();
            }
            catalog.backup_insert(&backup).await.unwrap();
        }
        let timeline = Some(Timeline::new(1 + u32::try_from(numbers.below(branches + 1)).unwrap()));
        let said = Shipping { database: name(&called), timeline, ..shipping(now) };
        catalog.shipping_put(&said).await.unwrap();
    }
    let (fleet, glance) = (catalog.fleet(now).await.unwrap(), catalog.glance(now).await.unwrap());
    let (mut windows, mut gaps) = (0, 0);
    for (member, one) in fleet.members.iter().zip(&glance) {
        let alone = catalog.status(&member.database, now).await.unwrap();
        let found = member.restorable.as_ref().map(|found| (found.span.from, found.span.to, found.gaps));
        let window = alone.window.as_ref();
        let known = window.map(|window| (window.from_position, window.to_position, window.gaps.len()));
        assert_eq!(found, known, "{}", member.database);
        let reach = one.window.as_ref().map(|reach| (reach.store.as_str(), reach.gaps));
        assert_eq!(
            reach,
            window.map(|window| (window.store.as_str(), window.gaps.len())),
            "{}",
            one.database
        );
        assert_eq!(one.backups, alone.backups, "{}", one.database);
        assert_eq!(member.last_backup.map(|backup| backup.finished_at), alone.backups.last_at);
        windows += usize::from(window.is_some());
        gaps += window.map_or(0, |window| window.gaps.len());
    }
    // Each kind is among them.
    assert!((15..60).contains(&windows) && gaps > 3, "{windows} windows, {gaps} gaps");
}
