//! What is promised of drills, whichever catalog keeps them.

use std::time::Duration;

use chrono::TimeDelta;
use farshore_catalog::database::Database;
use farshore_catalog::drill::{Drill, DrillFilter, drill_put_in_txn};
use farshore_catalog::proof::{DayCount, Proof};
use farshore_catalog::{Catalog, Time};
use farshore_journal::format::certificate::DrillVerdict;
use farshore_journal::format::{Signature, VerifyKey};
use farshore_journal::{DrillId, IncarnationId};

use crate::make::{name, time};

pub fn drill(number: u8, database: &str, began: i64) -> Drill {
    Drill {
        id: DrillId::from_bytes([number; 16]),
        database: name(database),
        store: "main".to_owned(),
        incarnation: IncarnationId::from_bytes([9; 16]),
        verdict: DrillVerdict::Passed,
        began: time(began),
        ended: time(began + 5),
        recovery: Some(Duration::from_micros(4_200_001)),
        objective: Some(Duration::from_secs(900)),
        replayed: Some((Duration::from_micros(1_100_000), 32 << 20)),
        statement: "{\"certificate\":\"farshore.drill-certificate/1\"}".to_owned(),
        signed: Some((VerifyKey::from_bytes([1; 32]), Signature::from_bytes([2; 64]))),
        uncertified: None,
    }
}

pub async fn drills_are_listed_newest_first_and_read_back_as_written(catalog: Catalog) {
    let failed = Drill {
        verdict: DrillVerdict::Failed,
        recovery: None,
        objective: None,
        replayed: None,
        signed: None,
        uncertified: Some("no signing_key is configured".to_owned()),
        ..drill(2, "orders", 200)
    };
    let all = [drill(1, "orders", 100), failed.clone(), drill(3, "others", 300)];
    for one in &all {
        catalog.drill_put(one).await.unwrap();
    }
    let ids =
        |drills: Vec<Drill>| drills.into_iter().map(|drill| drill.id.as_bytes()[0]).collect::<Vec<u8>>();
    let of = DrillFilter::of;
    assert_eq!(ids(catalog.drill_list(&of(None), 10).await.unwrap()), [3, 2, 1]);
    assert_eq!(ids(catalog.drill_list(&of(Some(&name("orders"))), 1).await.unwrap()), [2]);
    let older = DrillFilter { before: Some((all[1].began, all[1].id)), ..of(None) };
    assert_eq!(ids(catalog.drill_list(&older, 10).await.unwrap()), [1]);
    let since = DrillFilter { since: Some(all[1].began), ..of(None) };
    assert_eq!(ids(catalog.drill_list(&since, 10).await.unwrap()), [3, 2]);
    assert_eq!(catalog.drill_get(failed.id).await.unwrap(), Some(failed));
    assert_eq!(catalog.drill_get(all[0].id).await.unwrap().as_ref(), Some(&all[0]));
    assert_eq!(catalog.drill_get(DrillId::from_bytes([7; 16])).await.unwrap(), None);
}

pub async fn what_is_certified_of_a_drill_is_never_replaced(catalog: Catalog) {
    let certified = drill(1, "orders", 100);
    let bare =
        Drill { signed: None, uncertified: Some("the store was away".to_owned()), ..certified.clone() };
    catalog.drill_put(&bare).await.unwrap();
    catalog.drill_put(&certified).await.unwrap();
    assert_eq!(catalog.drill_get(certified.id).await.unwrap(), Some(certified.clone()));
    let other = Drill { verdict: DrillVerdict::Failed, statement: "{}".to_owned(), ..certified.clone() };
    for later in [bare, other] {
        catalog.drill_put(&later).await.unwrap();
        assert_eq!(catalog.drill_get(certified.id).await.unwrap(), Some(certified.clone()));
    }
}

pub async fn a_database_is_proved_by_its_newest_drill_that_did_not_fail(catalog: Catalog) {
    let failed = DrillVerdict::Failed;
    let all = [
        drill(1, "orders", 100),
        drill(2, "orders", 200),
        Drill { verdict: failed, recovery: None, ..drill(3, "orders", 300) },
        Drill { incarnation: IncarnationId::from_bytes([8; 16]), ..drill(4, "orders", 400) },
        Drill { verdict: failed, ..drill(5, "others", 500) },
    ];
    for one in &all {
        catalog.drill_put(one).await.unwrap();
    }
    let newest = catalog.drill_newest(Some(&name("orders"))).await.unwrap();
    let ids = |outlines: &[farshore_catalog::proof::Outline]| {
        outlines.iter().map(|one| one.id.as_bytes()[0]).collect::<Vec<u8>>()
    };
    assert_eq!(ids(&newest), [4, 3, 2]);
    assert_eq!(ids(&catalog.drill_newest(None).await.unwrap()), [4, 3, 2, 5]);
    let proof = Proof::of(&[all[0].incarnation], &newest);
    assert_eq!(proof.last.map(|one| one.id), Some(all[2].id));
    let proved = proof.proved.unwrap();
    assert_eq!(
        (proved.id, proved.recovery, proved.objective),
        (all[1].id, all[1].recovery, all[1].objective)
    );
    assert!(proved.certified);
    assert_eq!(proof.former, Some(all[3].ended));
    for known in ["orders", "others", "never"] {
        let record = Database { name: name(known), engine: "postgres".to_owned(), added_at: time(0) };
        catalog.database_put(&record).await.unwrap();
    }
    assert_eq!(catalog.drill_drilled(all[4].began).await.unwrap(), [name("others")]);
    let span = (all[1].began, all[4].began);
    assert_eq!(ids(&catalog.drill_history(None, span).await.unwrap()), [4, 3, 2]);
    assert_eq!(ids(&catalog.drill_history(Some(&name("others")), span).await.unwrap()), [] as [u8; 0]);
}

pub async fn the_drills_of_a_day_are_counted_by_how_they_ended_however_many_there_are(catalog: Catalog) {
    use DrillVerdict::{Failed, Passed};
    let midnight = |day: i64| Time::UNIX_EPOCH + TimeDelta::days(20_000 + day);
    // More than any list has: two on the first day, at its first and its last moment, the rest on the third.
    let mut all = vec![(midnight(0), Passed), (midnight(1) - TimeDelta::microseconds(1), Failed)];
    all.extend((0..1100).map(|number| (midnight(2) + TimeDelta::seconds(number), Passed)));
    let mut txn = catalog.begin().await.unwrap();
    for (number, (began, verdict)) in all.into_iter().enumerate() {
        let database = if number % 2 == 0 { "orders" } else { "others" };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let one = drill(0, database, 0);
        let one = Drill { id: DrillId::from_bytes(id), began, ended: began, verdict, ..one };
        drill_put_in_txn(&mut txn, &one).await.unwrap();
    }
    txn.commit().await.unwrap();
    let count = |day, verdict, count| DayCount { day: midnight(day), verdict, count };
    let days = catalog.drill_days(None, (midnight(0), midnight(3))).await.unwrap();
    assert_eq!(days, [count(0, Failed, 1), count(0, Passed, 1), count(2, Passed, 1100)]);
    let days = catalog.drill_days(Some(&name("others")), (midnight(0), midnight(3))).await.unwrap();
    assert_eq!(days, [count(0, Failed, 1), count(2, Passed, 550)]);
    assert!(catalog.drill_days(None, (midnight(1), midnight(2))).await.unwrap().is_empty());
}
