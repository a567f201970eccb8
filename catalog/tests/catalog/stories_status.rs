//! Status, windows, rebuild: only what is known is said, in exactly the promised shape.

use farshore_catalog::backup::Backup;
use farshore_catalog::commit::commit_insert_in_txn;
use farshore_catalog::database::{Database, database_put_in_txn};
use farshore_catalog::gap::Gap;
use farshore_catalog::mark::{Mark, MarkKind};
use farshore_catalog::rebuild::{
    IncarnationFacts, incarnation_replace_all_in_txn, incarnation_retain_in_txn,
};
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_catalog::target::{Failure, Target};
use farshore_catalog::{Catalog, Error, Retry};
use farshore_journal::{IncarnationId, Timeline};
use serde_json::json;

use crate::make::{
    at, backup, branch, commit, gap, incarnation, name, orders, range, shipping, time, usable,
};

pub async fn status_without_facts_is_unknown_and_null(catalog: Catalog) {
    let unknown = catalog.status(&name("orders"), time(0)).await;
    assert!(matches!(unknown, Err(Error::NoDatabase { .. })));
    let database = Database { name: name("orders"), engine: "postgres".to_owned(), added_at: time(0) };
    catalog.database_put(&database).await.unwrap();
    let status = catalog.status(&name("orders"), time(0)).await.unwrap();
    let expected = json!({
        "schema": "farshore.status/1", "database": "orders", "engine": "postgres", "state": "unknown",
        "seen_at": null, "measured_at": null, "why": "no service has written of it here yet: is `farshore run` alive?", "incarnation": null, "incarnation_number": null, "timeline": null, "received": null, "stored": null, "reported": null,
        "released": null, "ship_lag_bytes": null, "ship_lag_seconds": null, "window": null, "former": [],
        "backups": { "count": 0, "damaged": 0, "unopened": 0, "bad": 0, "last_at": null }, "targets": [],
        "primary": { "retained_bytes": null, "seconds_to_full": null },
    });
    assert_eq!(serde_json::to_value(status).unwrap(), expected);
}

pub async fn status_has_exactly_the_promised_shape(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 1, None)).await.unwrap();
    for (start, end) in [(0, 400), (500, 900)] {
        catalog.range_extend(&range(id, "main", 1, start, end)).await.unwrap();
    }
    catalog.gap_put(&gap(id, 400, 500)).await.unwrap();
    catalog.backup_insert(&usable(id, 1, 100, 200)).await.unwrap();
    catalog.backup_insert(&usable(id, 2, 600, 700)).await.unwrap();
    catalog.backup_insert(&backup(id, 3, 800)).await.unwrap();
    let commits = [commit(1, 150, 1, 1), commit(1, 390, 2, 2), commit(1, 650, 3, 3), commit(1, 890, 4, 4)];
    catalog.commit_insert(id, &commits).await.unwrap();
    let now = time(1000);
    catalog.shipping_put(&shipping(now)).await.unwrap();
    let target = Target {
        database: name("orders"),
        store: "main".to_owned(),
        url: "s3://bucket".to_owned(),
        state: "confirming".to_owned(),
        stored: Some(at(1, 900)),
        updated_at: now,
        failure: None,
    };
    catalog.target_put(&target).await.unwrap();
    let mut expected = json!({
        "schema": "farshore.status/1", "database": "orders", "engine": "postgres", "state": "connected",
        "seen_at": "2026-03-29T14:16:40Z", "measured_at": "2026-03-29T14:16:40Z", "why": null, "incarnation": id.to_string(), "incarnation_number": 0, "timeline": 1,
        "received": "0/3E8", "stored": "0/384", "reported": "0/3E8", "released": "0/320",
        "ship_lag_bytes": 200, "ship_lag_seconds": 2.5,
        "window": {
            "store": "main",
            "from_time": "2026-03-29T14:00:03Z", "to_time": "2026-03-29T14:00:04Z",
            "from_position": "1:0/2BC", "to_position": "1:0/384",
            "gaps": [{
                "from_time": "2026-03-29T14:00:02Z", "to_time": "2026-03-29T14:00:03Z",
                "from_position": "1:0/190", "to_position": "1:0/2BC", "reason": "the slot was lost",
                "older_from_position": "1:0/C8", "older_from_time": "2026-03-29T14:00:01Z",
            }],
        },
        "former": [],
        "backups": { "count": 2, "damaged": 0, "unopened": 0, "bad": 0, "last_at": "2026-03-29T14:01:42Z" },
        "targets": [{ "store": "main", "stored": "1:0/384", "state": "confirming", "why": null }],
        "primary": { "retained_bytes": 5u64 << 30, "seconds_to_full": 7200 },
    });
    let status = catalog.status(&name("orders"), now).await.unwrap();
    assert_eq!(serde_json::to_value(status).unwrap(), expected);

    // Silence: what was proved stays, what can only be known now is unknown, and the loss at stake grows.
    let status = catalog.status(&name("orders"), time(1040)).await.unwrap();
    expected["state"] = json!("unknown");
    expected["why"] =
        json!("no service has written here since 2026-03-29T14:16:40Z: is `farshore run` alive?");
    expected["ship_lag_bytes"] = json!(null);
    expected["ship_lag_seconds"] = json!(42.5);
    expected["targets"][0]["state"] = json!("unknown");
    expected["primary"] = json!({ "retained_bytes": null, "seconds_to_full": null });
    assert_eq!(serde_json::to_value(status).unwrap(), expected);
}

pub async fn status_names_what_the_incarnations_before_the_current_one_reach(catalog: Catalog) {
    let old = orders(&catalog).await;
    catalog.range_extend(&range(old, "main", 1, 0, 500)).await.unwrap();
    catalog.backup_insert(&usable(old, 1, 100, 200)).await.unwrap();
    catalog.commit_insert(old, &[commit(1, 150, 1, 1), commit(1, 490, 2, 2)]).await.unwrap();
    // The next one was left before its first base was complete, and the current one has none yet either.
    let (left, current) = (incarnation(2, "orders"), incarnation(3, "orders"));
    for one in [&left, &current] {
        catalog.incarnation_put(one).await.unwrap();
        catalog.range_extend(&range(one.id, "main", 1, 0, 300)).await.unwrap();
    }
    let status = catalog.status(&name("orders"), time(0)).await.unwrap();
    assert_eq!((status.incarnation, status.incarnation_number), (Some(current.id), Some(2)));
    assert_eq!((status.window, status.former.len()), (None, 2));
    let window = status.former[0].window.as_ref().unwrap();
    assert_eq!((status.former[0].incarnation, status.former[0].number), (old, Some(0)));
    assert_eq!((window.from_position, window.to_position), (at(1, 200), at(1, 500)));
    assert_eq!((window.from_time, window.to_time), (Some(time(1)), Some(time(2))));
    assert_eq!((&status.former[1].window, status.former[1].number), (&None, Some(1)));
}

pub async fn what_is_wrong_with_a_store_is_said_and_takes_nothing_back_that_was_stored(catalog: Catalog) {
    let _id = orders(&catalog).await;
    let failure = Failure { code: "FS-0001".to_owned(), message: "its disk is away".to_owned(), at: time(5) };
    // One that is not known here gets no row of its own.
    catalog.target_trouble(&name("orders"), "main", "setup", &failure).await.unwrap();
    assert_eq!(catalog.target_list(&name("orders")).await.unwrap(), []);
    let target = Target {
        database: name("orders"),
        store: "main".to_owned(),
        url: "s3://bucket".to_owned(),
        state: "connected".to_owned(),
        stored: Some(at(1, 900)),
        updated_at: time(1),
        failure: None,
    };
    catalog.target_put(&target).await.unwrap();
    catalog.target_trouble(&name("orders"), "main", "setup", &failure).await.unwrap();
    let expected =
        Target { state: "setup".to_owned(), updated_at: time(5), failure: Some(failure), ..target };
    assert_eq!(catalog.target_list(&name("orders")).await.unwrap(), [expected]);
    let status = catalog.status(&name("orders"), time(6)).await.unwrap();
    assert_eq!((status.state.word(), status.why.as_deref()), ("unknown", Some("its disk is away")));
    assert_eq!((status.seen_at, status.targets[0].why.as_deref()), (Some(time(5)), Some("its disk is away")));
}

pub async fn a_window_never_joins_two_stores(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 1, None)).await.unwrap();
    catalog.range_extend(&range(id, "main", 1, 0, 500)).await.unwrap();
    catalog.range_extend(&range(id, "other", 1, 400, 900)).await.unwrap();
    catalog.backup_insert(&usable(id, 1, 100, 200)).await.unwrap();
    let found = catalog.windows(id, Timeline::new(1)).await.unwrap();
    let spans: Vec<_> = found.iter().map(|(store, windows)| (store.as_str(), windows.spans.len())).collect();
    assert_eq!(spans, [("main", 1), ("other", 0)]);
    let window = catalog.status(&name("orders"), time(0)).await.unwrap().window.unwrap();
    assert_eq!(window.store, "main");
    assert_eq!((window.from_position, window.to_position), (at(1, 200), at(1, 500)));
    assert_eq!((window.from_time, window.to_time), (None, None));
}

/// The commit at 390 lies before the gap. Behind it the journal begins at 500, and its first commit ends at 750, behind the end of
/// the base backup.
pub async fn no_time_of_a_window_comes_from_behind_a_gap(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.range_extend(&range(id, "main", 1, 0, 400)).await.unwrap();
    catalog.gap_put(&gap(id, 400, 500)).await.unwrap();
    catalog.backup_insert(&usable(id, 1, 100, 200)).await.unwrap();
    catalog.commit_insert(id, &[commit(1, 390, 2, 2)]).await.unwrap();
    let window = async || catalog.status(&name("orders"), time(0)).await.unwrap().window.unwrap();
    assert_eq!((window().await.from_time, window().await.to_time), (None, Some(time(2))));
    catalog.range_extend(&range(id, "main", 1, 500, 900)).await.unwrap();
    catalog.backup_insert(&usable(id, 2, 600, 700)).await.unwrap();
    let behind = window().await;
    assert_eq!((behind.from_position, behind.to_position), (at(1, 700), at(1, 900)));
    assert_eq!((behind.from_time, behind.to_time), (None, None));
    let lost = &behind.gaps[0];
    assert_eq!((lost.from_time, lost.to_time, lost.older_from_time), (Some(time(2)), None, None));
    catalog.commit_insert(id, &[commit(1, 750, 9, 3)]).await.unwrap();
    assert_eq!((window().await.from_time, window().await.to_time), (None, Some(time(9))));
    // A record that begins before the gap's end is not whole in this log.
    catalog.commit_insert(id, &[commit(1, 505, 5, 4)]).await.unwrap();
    assert_eq!(window().await.from_time, None);
    catalog.commit_insert(id, &[commit(1, 510, 6, 5)]).await.unwrap();
    assert_eq!(window().await.from_time, Some(time(6)));
}

/// After a last word nobody measures the primary's disk, and nobody vouches for the targets that were stopped along.
pub async fn a_last_word_vouches_for_nothing_but_itself(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.range_extend(&range(id, "main", 1, 0, 400)).await.unwrap();
    let now = time(1000);
    for (store, state) in [("broken", "failed"), ("healthy", "connected")] {
        let target = Target {
            database: name("orders"),
            store: store.to_owned(),
            url: "s3://bucket".to_owned(),
            state: state.to_owned(),
            stored: Some(at(1, 400)),
            updated_at: now,
            failure: None,
        };
        catalog.target_put(&target).await.unwrap();
    }
    let year = std::time::Duration::from_secs(365 * 24 * 3600);
    for state in [ShippingState::Failed, ShippingState::Fenced] {
        let last = Shipping { state, heartbeat: year, last_contact_at: Some(now), ..shipping(now) };
        catalog.shipping_put(&last).await.unwrap();
        for (later, healthy) in [(1001, "connected"), (1004, "unknown"), (90_000, "unknown")] {
            let status = catalog.status(&name("orders"), time(later)).await.unwrap();
            assert_eq!(status.state.word(), state.word());
            let states: Vec<_> = status.targets.iter().map(|target| target.state.as_str()).collect();
            assert_eq!(states, ["failed", healthy], "{later}");
            assert_eq!((status.primary.retained_bytes, status.primary.seconds_to_full), (None, None));
        }
    }
}

pub async fn the_window_is_on_the_newest_timeline_while_nothing_ships(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.range_extend(&range(id, "main", 1, 0, 400)).await.unwrap();
    catalog.backup_insert(&usable(id, 1, 100, 200)).await.unwrap();
    let now = time(1000);
    let end = async |later| catalog.status(&name("orders"), time(later)).await.unwrap().window.unwrap();
    // The first timeline has no branch, and nobody has shipped here.
    assert_eq!(end(1000).await.to_position, at(1, 400));
    catalog.shipping_put(&shipping(now)).await.unwrap();
    catalog.branch_put(&branch(id, 2, Some((1, 300)))).await.unwrap();
    catalog.range_extend(&range(id, "main", 2, 300, 900)).await.unwrap();
    assert_eq!(end(1000).await.to_position, at(1, 400), "the timeline that is shipped");
    assert_eq!(end(1040).await.to_position, at(2, 900), "in silence");
    let year = std::time::Duration::from_secs(365 * 24 * 3600);
    let failed = Shipping { state: ShippingState::Failed, heartbeat: year, ..shipping(now) };
    catalog.shipping_put(&failed).await.unwrap();
    assert_eq!(end(1000).await.to_position, at(2, 900), "stopped");
}

pub async fn a_store_is_forgotten_for_one_database_alone(catalog: Catalog) {
    let id = orders(&catalog).await;
    let other = incarnation(2, "billing");
    let database = Database { name: name("billing"), engine: "postgres".to_owned(), added_at: time(0) };
    catalog.database_put(&database).await.unwrap();
    catalog.incarnation_put(&other).await.unwrap();
    for (number, (id, database)) in (0u8..).zip([(id, "orders"), (other.id, "billing")]) {
        for (place, store) in (1u8..).zip(["main", "dropped"]) {
            catalog.range_extend(&range(id, store, 1, 0, 400)).await.unwrap();
            catalog.gap_put(&Gap { store: store.to_owned(), ..gap(id, 400, 500) }).await.unwrap();
            let backup = usable(id, number * 2 + place, 100, 200);
            catalog.backup_insert(&Backup { store: store.to_owned(), ..backup }).await.unwrap();
            let target = Target {
                database: name(database),
                store: store.to_owned(),
                url: "s3://bucket".to_owned(),
                state: "connected".to_owned(),
                stored: None,
                updated_at: time(0),
                failure: None,
            };
            catalog.target_put(&target).await.unwrap();
        }
    }
    catalog.commit_insert(id, &[commit(1, 390, 2, 2)]).await.unwrap();
    assert_eq!(catalog.store_list(&name("orders")).await.unwrap(), ["dropped", "main"]);
    catalog.store_forget(&name("orders"), "dropped").await.unwrap();
    assert_eq!(catalog.store_list(&name("orders")).await.unwrap(), ["main"]);
    assert_eq!(catalog.store_list(&name("billing")).await.unwrap(), ["dropped", "main"]);
    for (id, database, left) in [(id, "orders", 1), (other.id, "billing", 2)] {
        assert_eq!(catalog.range_list(id).await.unwrap().len(), left, "{database}");
        assert_eq!(catalog.gap_list(id).await.unwrap().len(), left, "{database}");
        assert_eq!(catalog.backup_list(id).await.unwrap().len(), left, "{database}");
        assert_eq!(catalog.target_list(&name(database)).await.unwrap().len(), left, "{database}");
    }
    assert_eq!(catalog.commit_by_xid(id, 2).await.unwrap().len(), 1);
}

/// A fact of an incarnation that is not recorded is refused for good: whoever queues facts must not offer it for ever.
pub async fn a_fact_of_an_unknown_incarnation_is_refused_for_good(catalog: Catalog) {
    orders(&catalog).await;
    let id = IncarnationId::from_bytes([9; 16]);
    let mark = facts(9).marks.remove(0);
    let refusals = [
        catalog.range_extend(&range(id, "main", 1, 0, 400)).await,
        catalog.gap_put(&gap(id, 400, 500)).await,
        catalog.branch_put(&branch(id, 2, Some((1, 300)))).await,
        catalog.backup_insert(&usable(id, 1, 100, 200)).await,
        catalog.mark_put(&mark).await,
        catalog.commit_insert(id, &[commit(1, 390, 2, 2)]).await.map(|_| ()),
    ];
    for refused in refusals {
        let why = refused.unwrap_err();
        assert_eq!(why.retry(), Retry::Never, "{why:?}");
    }
}

fn facts(id: u8) -> IncarnationFacts {
    let incarnation = incarnation(id, "orders");
    let who = incarnation.id;
    IncarnationFacts {
        incarnation,
        branches: vec![branch(who, 1, None), branch(who, 2, Some((1, 480)))],
        ranges: vec![range(who, "main", 1, 0, 400), range(who, "main", 2, 480, 600)],
        gaps: vec![gap(who, 400, 450)],
        backups: vec![usable(who, id, 100, 200)],
        marks: vec![Mark {
            incarnation: who,
            kind: MarkKind::RestorePoint,
            name: "before".to_owned(),
            position: at(1, 300),
            time: time(3),
            note: String::new(),
            held_until: None,
        }],
    }
}

pub async fn a_rebuilt_catalog_equals_the_lost_one(catalog: Catalog) {
    orders(&catalog).await;
    let commits: Vec<_> = (1..=3000).map(|n| commit(1 + (n as u32 % 2), n * 100, n as i64, n)).collect();
    let rebuild = async |stale: Option<IncarnationId>| {
        let mut txn = catalog.begin().await.unwrap();
        let database = Database { name: name("orders"), engine: "postgres".to_owned(), added_at: time(7) };
        database_put_in_txn(&mut txn, &database).await.unwrap();
        let mut kept = Vec::new();
        for id in [2, 1] {
            let facts = facts(id);
            incarnation_replace_all_in_txn(&mut txn, &facts).await.unwrap();
            for batch in commits.chunks(700).rev() {
                commit_insert_in_txn(&mut txn, facts.incarnation.id, batch).await.unwrap();
            }
            kept.push(facts.incarnation.id);
        }
        incarnation_retain_in_txn(&mut txn, &name("orders"), &kept).await.unwrap();
        if let Some(stale) = stale {
            assert!(!kept.contains(&stale));
        }
        txn.commit().await.unwrap();
    };
    rebuild(None).await;
    let before = catalog.snapshot().await.unwrap();
    assert_eq!(before["databases"][0]["incarnations"].as_array().unwrap().len(), 2);
    assert_eq!(before["databases"][0]["incarnations"][0]["commits"].as_array().unwrap().len(), 3000);

    // A rebuild over what is there, with an incarnation the store does not have, comes to the same.
    let stale = incarnation(3, "orders");
    catalog.incarnation_put(&stale).await.unwrap();
    assert_ne!(catalog.snapshot().await.unwrap(), before);
    rebuild(Some(stale.id)).await;
    assert_eq!(catalog.snapshot().await.unwrap(), before);

    // And so does one from nothing.
    catalog.database_delete(&name("orders")).await.unwrap();
    rebuild(None).await;
    assert_eq!(catalog.snapshot().await.unwrap().to_string(), before.to_string());

    let mut mixed = facts(1);
    mixed.gaps = facts(2).gaps;
    let mut txn = catalog.begin().await.unwrap();
    let refused = incarnation_replace_all_in_txn(&mut txn, &mixed).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })));
}
