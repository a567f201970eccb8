//! Many databases: the fleet's page asks as much of the catalog for five hundred as for one, and its rows say what a database's own page says.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_catalog::branch::Branch;
use farshore_catalog::database::Database;
use farshore_catalog::exposure::Minute;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::range::JournalRange;
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_catalog::target::Target;
use farshore_journal::{BackupId, IncarnationId, Offset, Position, Sequence, Timeline};

use crate::person::{get, log_in};
use crate::rig::{Rig, name, time};

/// One that is well, heard a moment ago, with as many base backups.
pub async fn add(rig: &Rig, number: u16, backups: u8) {
    let database = name(&format!("db-{number:03}"));
    let [high, low] = number.to_be_bytes();
    let id = |kind: u8, of: u8| [kind, of, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let incarnation = IncarnationId::from_bytes(id(1, 0));
    let (timeline, at, now) = (Timeline::new(1), Offset::new, Utc::now());
    let catalog = &rig.catalog;
    let record = Database { name: database.clone(), engine: "postgres".to_owned(), added_at: time(0) };
    catalog.database_put(&record).await.unwrap();
    let record = Incarnation {
        id: incarnation,
        database: database.clone(),
        engine_identity: number.to_string(),
        number: Some(0),
        created_at: time(0),
        parent: None,
        reason: "first contact".to_owned(),
        segment_bytes: 16 << 20,
        major_version: Some(15),
    };
    catalog.incarnation_put(&record).await.unwrap();
    catalog.branch_put(&Branch { incarnation, timeline, fork: None, first_seen_at: time(0) }).await.unwrap();
    let range = JournalRange {
        incarnation,
        store: "main".to_owned(),
        timeline,
        start: at(0),
        end: at(1000),
        checked_end: at(950),
        first_sequence: Sequence::new(0),
        last_sequence: Sequence::new(9),
    };
    catalog.range_extend(&range).await.unwrap();
    for of in 0..backups {
        let backup = Backup {
            id: BackupId::from_bytes(id(2, of)),
            incarnation,
            store: "main".to_owned(),
            timeline,
            start: at(10),
            end: Some(at(60 + u64::from(of))),
            started_at: time(i64::from(of)),
            finished_at: Some(time(100 + i64::from(of))),
            bytes: Some(1 << 30),
            stored_bytes: Some(1 << 28),
            state: BackupState::Complete,
            checked: true,
            label: "nightly".to_owned(),
            bad_pages: Some(0),
            bad_at: None,
        };
        catalog.backup_insert(&backup).await.unwrap();
    }
    let target = Target {
        database: database.clone(),
        store: "main".to_owned(),
        url: "file:///srv/journal".to_owned(),
        state: "connected".to_owned(),
        stored: Some(Position::new(timeline, at(1000))),
        updated_at: now,
        failure: None,
    };
    catalog.target_put(&target).await.unwrap();
    let shipping = Shipping {
        database,
        state: ShippingState::Connected,
        timeline: Some(timeline),
        received: Some(at(1000)),
        stored: Some(at(1000)),
        reported: Some(at(1000)),
        released: Some(at(800)),
        source: Some(at(1000)),
        retained_bytes: Some(1),
        seconds_to_full: None,
        heartbeat: Duration::from_secs(600),
        last_contact_at: Some(now),
        last_stored_commit_at: Some(now - TimeDelta::seconds(3)),
        oldest_unstored_commit_at: None,
        updated_at: now,
        node: Some("oslo".to_owned()),
    };
    catalog.shipping_put(&shipping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_the_fleet_says_what_the_status_of_its_database_says() {
    let rig = Rig::new().await;
    for number in 0..3 {
        add(&rig, number, 2).await;
    }
    let now = Utc::now();
    let fleet = rig.catalog.glance(now).await.unwrap();
    assert_eq!(fleet.len(), 5);
    for member in fleet {
        let status = rig.catalog.status(&member.database, now).await.unwrap();
        assert_eq!((member.engine, member.state), (status.engine, status.state));
        assert_eq!(
            (member.seen_at, member.measured_at, member.why),
            (status.seen_at, status.measured_at, status.why)
        );
        assert_eq!(member.ship_lag_bytes, status.ship_lag_bytes);
        assert_eq!(member.ship_lag_seconds, status.ship_lag_seconds);
        assert_eq!(member.backups, status.backups);
        let window = |store: &str, gaps: usize| (store.to_owned(), gaps);
        assert_eq!(
            member.window.map(|reach| window(&reach.store, reach.gaps)),
            status.window.map(|one| window(&one.store, one.gaps.len()))
        );
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_asks_as_much_of_the_catalog_however_many_databases_there_are() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let mut counts = Vec::new();
    for _ in 0..2 {
        for number in if counts.is_empty() { 0..2 } else { 2..40 } {
            add(&rig, number, 2).await;
        }
        let mut asked = Vec::new();
        for path in ["/", "/?q=db-001", "/drills", "/jobs", "/activity", "/settings", "/databases/db-001"] {
            let before = rig.catalog.asked();
            let page = get(&rig, path, &person.cookie).await;
            assert_eq!(page.status, 200);
            asked.push((path, rig.catalog.asked() - before));
        }
        counts.push(asked);
    }
    assert_eq!(counts[0], counts[1]);
    let fleet = counts[0][0].1;
    assert!((5..30).contains(&fleet), "the fleet's page is counted: {fleet}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_databases_are_shown_in_time() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    for number in 0..500 {
        add(&rig, number, 3).await;
    }
    // A day of how each database's exposure went, an hour's row for each.
    let now = Utc::now();
    for hour in 0..24 {
        let at = now - TimeDelta::hours(hour);
        let told: Vec<_> = (0..500)
            .map(|number| (name(&format!("db-{number:03}")), Minute::of(at, Some(number), false)))
            .collect();
        rig.catalog.exposure_add(&told).await.unwrap();
    }
    let person = log_in(&rig, "ana").await;
    let mut figures = Vec::new();
    for path in ["/", "/?q=db-499", "/databases/orders", "/databases/db-250", "/jobs"] {
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..20 {
            let began = Instant::now();
            let page = get(&rig, path, &person.cookie).await;
            took.push(began.elapsed());
            assert_eq!(page.status, 200);
        }
        took.sort();
        figures.push((path, took[10], took[18]));
    }
    for (path, median, p95) in &figures {
        println!("{path}: median {median:?}, p95 {p95:?}");
    }
    // A build for tests on a machine that does much else: what must not be is a query for each database.
    assert!(figures.iter().all(|(_, median, _)| *median < Duration::from_secs(2)), "{figures:?}");
    rig.end().await;
}
