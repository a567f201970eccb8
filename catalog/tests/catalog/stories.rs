//! The nouns: what is written reads back, what cannot be is refused, and old states are respected.

use farshore_catalog::activity::Activity;
use farshore_catalog::backup::{BackupEnd, BackupState, Read};
use farshore_catalog::database::{Database, database_put_in_txn};
use farshore_catalog::head::KnownHead;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::mark::{Mark, MarkKind};
use farshore_catalog::node::Node;
use farshore_catalog::rebuild::incarnations_replace_in_txn;
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_catalog::target::{Failure, Target};
use farshore_catalog::{Catalog, Error};
use farshore_journal::format::{Head, VerifyKey, VerifyKeys};
use farshore_journal::{BackupId, IncarnationId, Offset, Timeline};
use tokio::task::JoinSet;

use crate::make::{
    at, backup, branch, commit, gap, head, incarnation, name, orders, range, shipping, time, usable,
};

pub async fn a_database_keeps_its_engine(catalog: Catalog) {
    orders(&catalog).await;
    let again = Database { name: name("orders"), engine: "postgres".to_owned(), added_at: time(9) };
    catalog.database_put(&again).await.unwrap();
    let other = Database { engine: "sqlite".to_owned(), ..again };
    assert!(matches!(catalog.database_put(&other).await, Err(Error::Conflict { .. })));
    let known = catalog.database_find(&name("orders")).await.unwrap().unwrap();
    assert_eq!((known.engine.as_str(), known.added_at), ("postgres", time(0)));
    assert_eq!(catalog.database_list().await.unwrap(), [known]);
    assert_eq!(catalog.database_find(&name("none")).await.unwrap(), None);
}

pub async fn deleting_a_database_takes_all_it_had(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 1, None)).await.unwrap();
    catalog.range_extend(&range(id, "main", 1, 0, 100)).await.unwrap();
    catalog.commit_insert(id, &[commit(1, 50, 1, 700)]).await.unwrap();
    catalog.backup_insert(&usable(id, 1, 10, 20)).await.unwrap();
    catalog.shipping_put(&shipping(time(0))).await.unwrap();
    catalog.database_delete(&name("orders")).await.unwrap();
    assert!(catalog.database_list().await.unwrap().is_empty());
    assert!(catalog.incarnation_find(id).await.unwrap().is_none());
    assert!(catalog.backup_find(BackupId::from_bytes([1; 16])).await.unwrap().is_none());
    assert!(catalog.range_list(id).await.unwrap().is_empty());
    assert!(catalog.shipping_find(&name("orders")).await.unwrap().is_none());
    assert!(matches!(catalog.commit_by_xid(id, 700).await, Err(Error::NoIncarnation { .. })));
}

pub async fn the_latest_incarnation_is_current_and_facts_never_change(catalog: Catalog) {
    let id = orders(&catalog).await;
    let (first, second) = (incarnation(1, "orders"), incarnation(2, "orders"));
    catalog.incarnation_put(&second).await.unwrap();
    catalog.incarnation_put(&first).await.unwrap();
    assert_eq!(catalog.incarnation_current(&name("orders")).await.unwrap(), Some(second.clone()));
    assert_eq!(catalog.incarnation_find(id).await.unwrap(), Some(first.clone()));
    assert_eq!(catalog.incarnation_list(&name("orders")).await.unwrap(), [first.clone(), second]);
    let mut other = first.clone();
    other.engine_identity = "1".to_owned();
    assert!(matches!(catalog.incarnation_put(&other).await, Err(Error::Conflict { .. })));
    let mut other = first;
    other.created_at = time(77);
    assert!(matches!(catalog.incarnation_put(&other).await, Err(Error::Conflict { .. })));
    // The clock of the machine that minted the third was behind.
    let mut third = incarnation(3, "orders");
    third.created_at = time(0);
    catalog.incarnation_put(&third).await.unwrap();
    assert_eq!(catalog.incarnation_current(&name("orders")).await.unwrap(), Some(third.clone()));
    assert_eq!(catalog.incarnation_list(&name("orders")).await.unwrap().last(), Some(&third));
    // One that was recorded before numbers were kept learns its number, and keeps it.
    let unnumbered = Incarnation { number: None, ..incarnation(4, "orders") };
    catalog.incarnation_put(&unnumbered).await.unwrap();
    assert_eq!(catalog.incarnation_current(&name("orders")).await.unwrap(), Some(third));
    catalog.incarnation_put(&incarnation(4, "orders")).await.unwrap();
    catalog.incarnation_put(&unnumbered).await.unwrap();
    assert_eq!(catalog.incarnation_current(&name("orders")).await.unwrap(), Some(incarnation(4, "orders")));
    let renumbered = Incarnation { number: Some(8), ..incarnation(4, "orders") };
    assert!(matches!(catalog.incarnation_put(&renumbered).await, Err(Error::Conflict { .. })));
    // Nothing may belong to a database nobody recorded.
    let stray = incarnation(5, "stray");
    assert!(matches!(catalog.incarnation_put(&stray).await, Err(Error::Query { .. })));
}

pub async fn a_head_only_moves_forward_and_outlives_its_incarnation(catalog: Catalog) {
    let id = orders(&catalog).await;
    let known = |store: &str, number| KnownHead { store: store.to_owned(), head: head(id, number) };
    for number in [7, 9, 8, 9] {
        catalog.head_put("main", &head(id, number), &VerifyKeys::default()).await.unwrap();
    }
    catalog.head_put("second", &head(id, 4), &VerifyKeys::default()).await.unwrap();
    let wanted = [known("main", 9), known("second", 4)];
    assert_eq!(catalog.head_list(&name("orders")).await.unwrap(), wanted);
    // A head of a key that is not pinned any more makes way, however late the chunk is that it speaks of; one of a key that is does not.
    let pinned = |key| VerifyKeys::new(vec![VerifyKey::from_bytes([key; 32])]);
    catalog.head_put("main", &head(id, 5), &pinned(7)).await.unwrap();
    assert_eq!(catalog.head_list(&name("orders")).await.unwrap(), wanted);
    let other = Head { key: VerifyKey::from_bytes([8; 32]), ..head(id, 5) };
    catalog.head_put("main", &other, &pinned(8)).await.unwrap();
    assert_eq!(catalog.head_list(&name("orders")).await.unwrap()[0].head, other);
    catalog.head_put("main", &head(id, 9), &pinned(7)).await.unwrap();
    assert_eq!(catalog.head_list(&name("orders")).await.unwrap(), wanted);
    // What the store no longer holds is forgotten; what was signed of it is not.
    let mut txn = catalog.begin().await.unwrap();
    incarnations_replace_in_txn(&mut txn, &name("orders"), &[]).await.unwrap();
    txn.commit().await.unwrap();
    assert_eq!(catalog.incarnation_find(id).await.unwrap(), None);
    assert_eq!(catalog.head_list(&name("orders")).await.unwrap(), wanted);
    catalog.database_delete(&name("orders")).await.unwrap();
    assert!(catalog.head_list(&name("orders")).await.unwrap().is_empty());
}

pub async fn a_timeline_learns_its_fork_once(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 2, None)).await.unwrap();
    catalog.branch_put(&branch(id, 2, Some((1, 500)))).await.unwrap();
    catalog.branch_put(&branch(id, 2, None)).await.unwrap();
    assert_eq!(catalog.branch_list(id).await.unwrap(), [branch(id, 2, Some((1, 500)))]);
    let other = branch(id, 2, Some((1, 501)));
    assert!(matches!(catalog.branch_put(&other).await, Err(Error::Conflict { .. })));
    assert_eq!(catalog.branch_list(id).await.unwrap(), [branch(id, 2, Some((1, 500)))]);
}

pub async fn a_target_keeps_no_secret(catalog: Catalog) {
    orders(&catalog).await;
    let mut target = Target {
        database: name("orders"),
        store: "main".to_owned(),
        url: "s3://key:s3cret@bucket/prefix?token=s3cret".to_owned(),
        state: "confirming".to_owned(),
        stored: Some(at(1, 900)),
        updated_at: time(1),
        failure: None,
    };
    catalog.target_put(&target).await.unwrap();
    let known = catalog.target_list(&name("orders")).await.unwrap();
    assert_eq!(known[0].url, "s3://bucket/prefix");
    target.url = known[0].url.clone();
    assert_eq!(known, [target.clone()]);
    target.stored = None;
    target.failure =
        Some(Failure { code: "FS-0203".to_owned(), message: "it is full".to_owned(), at: time(2) });
    catalog.target_put(&target).await.unwrap();
    assert_eq!(catalog.target_list(&name("orders")).await.unwrap(), [target]);
    catalog.target_delete(&name("orders"), "main").await.unwrap();
    assert!(catalog.target_list(&name("orders")).await.unwrap().is_empty());
}

pub async fn shipping_reads_back_as_written_and_unknown_stays_unknown(catalog: Catalog) {
    orders(&catalog).await;
    assert_eq!(catalog.shipping_find(&name("orders")).await.unwrap(), None);
    let full = shipping(time(0));
    catalog.shipping_put(&full).await.unwrap();
    assert_eq!(catalog.shipping_find(&name("orders")).await.unwrap(), Some(full.clone()));
    for state in ShippingState::ALL {
        let bare = Shipping {
            state,
            timeline: None,
            received: None,
            stored: None,
            reported: None,
            released: None,
            source: None,
            retained_bytes: None,
            seconds_to_full: None,
            last_contact_at: None,
            last_stored_commit_at: None,
            oldest_unstored_commit_at: None,
            node: None,
            ..full.clone()
        };
        catalog.shipping_put(&bare).await.unwrap();
        assert_eq!(catalog.shipping_find(&name("orders")).await.unwrap(), Some(bare));
    }
}

pub async fn a_number_no_column_can_hold_is_refused(catalog: Catalog) {
    let id = orders(&catalog).await;
    let too_far = range(id, "main", 1, 0, 1 << 63);
    assert!(matches!(catalog.range_extend(&too_far).await, Err(Error::TooLarge { .. })));
    let furthest = range(id, "main", 1, 0, (1 << 63) - 1);
    catalog.range_extend(&furthest).await.unwrap();
    assert_eq!(catalog.range_list(id).await.unwrap(), [furthest]);
    let xid = commit(1, 50, 1, u64::MAX);
    assert!(matches!(catalog.commit_insert(id, &[xid]).await, Err(Error::TooLarge { .. })));
}

pub async fn ranges_that_touch_are_one(catalog: Catalog) {
    let id = orders(&catalog).await;
    let ends = async || {
        let all = catalog.range_list(id).await.unwrap();
        all.iter()
            .map(|range| (range.store.clone(), range.timeline.get(), range.start.get(), range.end.get()))
            .collect::<Vec<_>>()
    };
    let main = |timeline, start, end| ("main".to_owned(), timeline, start, end);
    for (start, end) in [(100, 200), (200, 300), (100, 200), (250, 260)] {
        catalog.range_extend(&range(id, "main", 1, start, end)).await.unwrap();
    }
    assert_eq!(ends().await, [main(1, 100, 300)]);
    catalog.range_extend(&range(id, "main", 1, 400, 500)).await.unwrap();
    catalog.range_extend(&range(id, "main", 2, 300, 500)).await.unwrap();
    catalog.range_extend(&range(id, "other", 1, 300, 400)).await.unwrap();
    let other = ("other".to_owned(), 1, 300, 400);
    assert_eq!(ends().await, [main(1, 100, 300), main(1, 400, 500), main(2, 300, 500), other.clone()]);
    // The hole is filled, and a range before the first joins it.
    catalog.range_extend(&range(id, "main", 1, 300, 400)).await.unwrap();
    catalog.range_extend(&range(id, "main", 1, 50, 100)).await.unwrap();
    assert_eq!(ends().await, [main(1, 50, 500), main(2, 300, 500), other]);
    let joined = &catalog.range_list(id).await.unwrap()[0];
    assert_eq!((joined.first_sequence.get(), joined.last_sequence.get()), (5, 50));

    let mut bad = range(id, "main", 1, 10, 10);
    assert!(matches!(catalog.range_extend(&bad).await, Err(Error::Invalid { .. })));
    bad.end = Offset::new(20);
    bad.checked_end = Offset::new(21);
    assert!(matches!(catalog.range_extend(&bad).await, Err(Error::Invalid { .. })));
}

pub async fn a_gap_goes_only_when_wholly_filled(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.gap_put(&gap(id, 100, 200)).await.unwrap();
    catalog.gap_put(&gap(id, 100, 200)).await.unwrap();
    assert_eq!(catalog.gap_list(id).await.unwrap(), [gap(id, 100, 200)]);
    let fill = async |start, end| {
        let (start, end) = (Offset::new(start), Offset::new(end));
        catalog.gap_filled(id, "main", Timeline::new(1), start, end).await.unwrap()
    };
    assert_eq!(fill(100, 199).await, 0);
    assert_eq!(fill(50, 200).await, 1);
    assert!(catalog.gap_list(id).await.unwrap().is_empty());
    assert!(matches!(catalog.gap_put(&gap(id, 5, 5)).await, Err(Error::Invalid { .. })));
}

pub async fn a_backup_moves_once(catalog: Catalog) {
    let id = orders(&catalog).await;
    let mut good = backup(id, 1, 100);
    let mut lost = backup(id, 2, 300);
    catalog.backup_insert(&good).await.unwrap();
    catalog.backup_insert(&lost).await.unwrap();
    assert!(matches!(catalog.backup_insert(&good).await, Err(Error::Query { .. })));
    assert!(matches!(catalog.backup_check(good.id, 1).await, Err(Error::Conflict { .. })));
    let mut end =
        BackupEnd { end: Offset::new(99), finished_at: time(9), bytes: 7, stored_bytes: 3, bad_pages: 1 };
    assert!(matches!(catalog.backup_complete(good.id, &end).await, Err(Error::Conflict { .. })));
    end.end = Offset::new(200);
    catalog.backup_complete(good.id, &end).await.unwrap();
    assert!(matches!(catalog.backup_complete(good.id, &end).await, Err(Error::Conflict { .. })));
    assert!(matches!(catalog.backup_fail(good.id, time(9)).await, Err(Error::Conflict { .. })));
    let known = catalog.backup_find(good.id).await.unwrap().unwrap();
    assert_eq!((known.checked, known.bad_pages), (false, None), "nobody opened its manifest");
    catalog.backup_check(good.id, 1).await.unwrap();
    catalog.backup_fail(lost.id, time(8)).await.unwrap();
    // What a verification finds of it stays until one that read all of it finds otherwise; one that is not complete, or not known, is passed over.
    for id in [good.id, lost.id, BackupId::from_bytes([9; 16])] {
        catalog.backup_verified(id, Read::Bad, time(10)).await.unwrap();
    }
    catalog.backup_verified(good.id, Read::Bad, time(11)).await.unwrap();
    let known = catalog.backup_find(good.id).await.unwrap().unwrap();
    assert_eq!((known.bad_at, known.is_usable()), (Some(time(10)), false));
    catalog.backup_verified(good.id, Read::Sound(1), time(12)).await.unwrap();
    let known = catalog.backup_find(good.id).await.unwrap().unwrap();
    assert_eq!((known.bad_at, known.is_usable()), (None, true));
    assert!(matches!(catalog.backup_complete(lost.id, &end).await, Err(Error::Conflict { .. })));
    let unknown = BackupId::from_bytes([9; 16]);
    assert!(matches!(catalog.backup_fail(unknown, time(8)).await, Err(Error::NoBackup { .. })));

    good.end = Some(Offset::new(200));
    good.finished_at = Some(time(9));
    (good.bytes, good.stored_bytes, good.bad_pages) = (Some(7), Some(3), Some(1));
    (good.state, good.checked) = (BackupState::Complete, true);
    (lost.state, lost.finished_at) = (BackupState::Failed, Some(time(8)));
    assert_eq!(catalog.backup_list(id).await.unwrap(), [good.clone(), lost.clone()]);
    assert_eq!(catalog.backup_find(good.id).await.unwrap(), Some(good.clone()));
    catalog.backup_delete(good.id).await.unwrap();
    assert_eq!(catalog.backup_list(id).await.unwrap(), [lost]);
    let half = farshore_catalog::backup::Backup { end: None, ..good };
    assert!(matches!(catalog.backup_insert(&half).await, Err(Error::Invalid { .. })));
}

pub async fn marks_keep_their_holds_and_restore_points_stay(catalog: Catalog) {
    let id = orders(&catalog).await;
    let mut hold = Mark {
        incarnation: id,
        kind: MarkKind::Hold,
        name: "before-release-812".to_owned(),
        position: at(1, 500),
        time: time(5),
        note: "asked for by the release team".to_owned(),
        held_until: Some(time(500)),
    };
    let point = Mark {
        kind: MarkKind::RestorePoint,
        position: at(1, 400),
        note: String::new(),
        held_until: None,
        ..hold.clone()
    };
    catalog.mark_put(&hold).await.unwrap();
    catalog.mark_put(&point).await.unwrap();
    hold.held_until = None;
    catalog.mark_put(&hold).await.unwrap();
    assert_eq!(catalog.mark_list(id).await.unwrap(), [point.clone(), hold.clone()]);
    assert_eq!(catalog.mark_find(id, "before-release-812").await.unwrap(), [point.clone(), hold]);
    let refused = catalog.mark_release(id, MarkKind::RestorePoint, "before-release-812").await;
    assert!(matches!(refused, Err(Error::Invalid { .. })));
    assert_eq!(catalog.mark_release(id, MarkKind::Mark, "before-release-812").await.unwrap(), 0);
    assert_eq!(catalog.mark_release(id, MarkKind::Hold, "before-release-812").await.unwrap(), 1);
    assert_eq!(catalog.mark_list(id).await.unwrap(), [point]);
}

pub async fn activity_is_numbered_in_order_and_never_changes(catalog: Catalog) {
    for number in 1..=5 {
        let activity = Activity {
            at: time(number),
            who: "anna".to_owned(),
            what: "restore".to_owned(),
            database: (number % 2 == 0).then(|| name("orders")),
            detail: format!("plan {number}"),
        };
        assert_eq!(catalog.activity_append(&activity).await.unwrap(), number.unsigned_abs());
    }
    let numbers = async |before, limit| {
        let entries = catalog.activity_list(before, limit).await.unwrap();
        entries.iter().map(|entry| entry.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(None, 3).await, [5, 4, 3]);
    assert_eq!(numbers(Some(3), 3).await, [2, 1]);
    let newest = &catalog.activity_list(None, 1).await.unwrap()[0].activity;
    assert_eq!((newest.detail.as_str(), &newest.database), ("plan 5", &None));
}

pub async fn nodes_are_renewed(catalog: Catalog) {
    let mut node = Node {
        name: "oslo-1".to_owned(),
        version: "0.1.0".to_owned(),
        roles: Vec::new(),
        started_at: time(0),
        heartbeat_at: time(1),
    };
    catalog.node_put(&node).await.unwrap();
    node.heartbeat_at = time(2);
    node.roles = vec!["ships".to_owned(), "jobs".to_owned()];
    catalog.node_put(&node).await.unwrap();
    assert_eq!(catalog.node_list().await.unwrap(), [node]);
}

pub async fn a_dropped_transaction_leaves_nothing(catalog: Catalog) {
    let database = Database { name: name("gone"), engine: "postgres".to_owned(), added_at: time(0) };
    let mut txn = catalog.begin().await.unwrap();
    database_put_in_txn(&mut txn, &database).await.unwrap();
    drop(txn);
    assert!(catalog.database_list().await.unwrap().is_empty());
    let mut txn = catalog.begin().await.unwrap();
    database_put_in_txn(&mut txn, &database).await.unwrap();
    txn.commit().await.unwrap();
    assert_eq!(catalog.database_list().await.unwrap(), [database]);
}

/// On SQLite too: two writers wait for each other, and neither hears that the database is locked.
pub async fn writers_at_once_all_succeed(catalog: Catalog) {
    let id: IncarnationId = orders(&catalog).await;
    let mut writers = JoinSet::new();
    for writer in 0..6u64 {
        let catalog = catalog.clone();
        writers.spawn(async move {
            for round in 0..10u64 {
                let end = (writer * 10 + round + 1) * 100;
                catalog.commit_insert(id, &[commit(1, end, 1, end)]).await.unwrap();
                catalog.range_extend(&range(id, &format!("s{writer}"), 1, round, round + 1)).await.unwrap();
                let activity = Activity {
                    at: time(0),
                    who: format!("w{writer}"),
                    what: "write".to_owned(),
                    database: None,
                    detail: String::new(),
                };
                catalog.activity_append(&activity).await.unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let entries = catalog.activity_list(None, 1000).await.unwrap();
    let numbers: Vec<u64> = entries.iter().rev().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    assert_eq!(catalog.range_list(id).await.unwrap().len(), 6);
}
