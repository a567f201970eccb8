//! What is promised of reckoning how long a recovery would take.

use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_catalog::backup::Backup;
use farshore_catalog::drill::Drill;
use farshore_catalog::incarnation::Incarnation;
use farshore_journal::{DrillId, IncarnationId};

use crate::make::{name, orders, range, time, usable};
use crate::stories_drills::drill;

const MIB: u64 = 1 << 20;

/// A drill that took 2 s beside so many seconds for so much log.
fn drilled(number: u8, seconds: u64, mib: u64) -> Drill {
    let replay = Duration::from_secs(seconds);
    Drill {
        id: DrillId::from_bytes([number; 16]),
        recovery: Some(replay + Duration::from_secs(2)),
        replayed: Some((replay, mib * MIB)),
        ..drill(number, "orders", 100 * i64::from(number))
    }
}

pub async fn a_recovery_is_reckoned_from_the_newest_base_and_the_three_newest_drills(catalog: Catalog) {
    let id = orders(&catalog).await;
    let whole = || async {
        let found = catalog.recovery(&name("orders"), time(5000)).await.unwrap();
        found.into_iter().map(|one| (one.store.clone(), one.log_bytes, one.whole())).collect::<Vec<_>>()
    };
    assert_eq!(whole().await, [], "nothing is stored");
    catalog.range_extend(&range(id, "main", 1, 0, 400 * MIB)).await.unwrap();
    catalog.backup_insert(&usable(id, 1, 10, MIB)).await.unwrap();
    assert_eq!(whole().await, [("main".to_owned(), 400 * MIB - 10, None)], "no drill measured it");
    // The oldest was the slowest, and does not count any more.
    for one in [drilled(1, 900, 100), drilled(2, 10, 100), drilled(3, 20, 100), drilled(4, 5, 100)] {
        catalog.drill_put(&one).await.unwrap();
    }
    let unmeasured = Drill { replayed: None, ..drilled(5, 900, 100) };
    catalog.drill_put(&unmeasured).await.unwrap();
    let took = whole().await[0].2.unwrap();
    assert_eq!(took.as_secs_f64().round(), 82.0, "2 s, and 400 MiB at 20 s for a hundred");
    // Another store's base is none of this one's, one that has damaged pages comes last.
    let late = |number| usable(id, number, 350 * MIB, 360 * MIB);
    catalog.backup_insert(&Backup { store: "other".to_owned(), ..late(2) }).await.unwrap();
    catalog.backup_insert(&Backup { bad_pages: Some(2), ..late(3) }).await.unwrap();
    assert_eq!(whole().await[0].1, 400 * MIB - 10);
    catalog.backup_insert(&usable(id, 4, 300 * MIB, 310 * MIB)).await.unwrap();
    let [(_, bytes, Some(took))] = &whole().await[..] else { panic!("one store") };
    assert_eq!((*bytes, took.as_secs_f64().round()), (100 * MIB, 22.0));
}

/// Incarnations are each store's own: a database with two stores has two at a time.
pub async fn what_each_store_has_of_the_cluster_is_told_beside_the_other(catalog: Catalog) {
    let first = orders(&catalog).await;
    let known = catalog.incarnation_find(first).await.unwrap().unwrap();
    let second = IncarnationId::from_bytes([77; 16]);
    catalog.incarnation_put(&Incarnation { id: second, ..known.clone() }).await.unwrap();
    let late = |number| usable(second, number, 300 * MIB, 310 * MIB);
    catalog.range_extend(&range(first, "main", 1, 0, 400 * MIB)).await.unwrap();
    catalog.backup_insert(&usable(first, 1, 10, MIB)).await.unwrap();
    catalog.range_extend(&range(second, "other", 1, 200 * MIB, 401 * MIB)).await.unwrap();
    catalog.backup_insert(&Backup { store: "other".to_owned(), ..late(2) }).await.unwrap();
    let found = catalog.recovery(&name("orders"), time(5000)).await.unwrap();
    let told: Vec<_> = found.iter().map(|one| (one.store.as_str(), one.log_bytes)).collect();
    assert_eq!(told, [("main", 400 * MIB - 10), ("other", 101 * MIB)]);
    let status = catalog.status(&name("orders"), time(5000)).await.unwrap();
    let window = status.window.as_ref().unwrap();
    assert_eq!((window.store.as_str(), status.incarnation), ("other", Some(second)), "it reaches furthest");
    assert_eq!((status.backups.count, status.former.len()), (2, 0), "neither is a former one");
    let fleet = catalog.fleet(time(5000)).await.unwrap();
    let restorable = fleet.members[0].restorable.as_ref().unwrap();
    assert_eq!((restorable.incarnation, restorable.store.as_str()), (second, "other"));
    assert_eq!(fleet.members[0].backups, status.backups);
    // It was put back, and what is in the other store may be of the history before.
    let third = IncarnationId::from_bytes([99; 16]);
    let created_at = time(4000);
    catalog.incarnation_put(&Incarnation { id: third, created_at, number: Some(7), ..known }).await.unwrap();
    catalog.range_extend(&range(third, "main", 1, 0, 100 * MIB)).await.unwrap();
    let status = catalog.status(&name("orders"), time(5000)).await.unwrap();
    assert_eq!((status.incarnation, status.window.as_ref(), status.former.len()), (Some(third), None, 2));
    assert_eq!(catalog.fleet(time(5000)).await.unwrap().members[0].restorable, None);
}
