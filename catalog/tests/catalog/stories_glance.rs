//! Many databases at once, and how their exposure went.

use chrono::TimeDelta;
use farshore_catalog::Catalog;
use farshore_catalog::database::Database;
use farshore_catalog::exposure::Minute;
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_journal::{IncarnationId, Timeline};

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
