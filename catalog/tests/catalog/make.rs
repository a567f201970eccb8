//! Short ways to say facts.

use std::time::Duration;

use chrono::{TimeDelta, TimeZone, Utc};
use farshore_catalog::backup::{Backup, BackupState};
use farshore_catalog::branch::{Branch, Fork};
use farshore_catalog::commit::Commit;
use farshore_catalog::database::Database;
use farshore_catalog::gap::Gap;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::range::JournalRange;
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_catalog::{Catalog, Time};
use farshore_journal::format::{ChainValue, Head, Signature, Statement, VerifyKey};
use farshore_journal::{
    BackupId, DatabaseName, Generation, IncarnationId, Offset, Position, Sequence, StoreId, Timeline,
};

pub fn time(seconds: i64) -> Time {
    Utc.with_ymd_and_hms(2026, 3, 29, 14, 0, 0).unwrap() + TimeDelta::seconds(seconds)
}

pub fn name(text: &str) -> DatabaseName {
    text.parse().unwrap()
}

pub fn at(timeline: u32, offset: u64) -> Position {
    Position::new(Timeline::new(timeline), Offset::new(offset))
}

pub fn incarnation(id: u8, database: &str) -> Incarnation {
    Incarnation {
        id: IncarnationId::from_bytes([id; 16]),
        database: name(database),
        engine_identity: "7301234567890123456".to_owned(),
        number: Some(u64::from(id) - 1),
        created_at: time(i64::from(id)),
        parent: (id > 1).then(|| IncarnationId::from_bytes([id - 1; 16])),
        reason: "first contact".to_owned(),
        segment_bytes: 16 << 20,
        major_version: Some(15),
    }
}

/// A catalog with the database `orders` and its incarnation 1.
pub async fn orders(catalog: &Catalog) -> IncarnationId {
    let database = Database { name: name("orders"), engine: "postgres".to_owned(), added_at: time(0) };
    catalog.database_put(&database).await.unwrap();
    let first = incarnation(1, "orders");
    catalog.incarnation_put(&first).await.unwrap();
    first.id
}

pub fn branch(incarnation: IncarnationId, timeline: u32, fork: Option<(u32, u64)>) -> Branch {
    Branch {
        incarnation,
        timeline: Timeline::new(timeline),
        fork: fork.map(|(parent, at)| Fork { parent: Timeline::new(parent), at: Offset::new(at) }),
        first_seen_at: time(0),
    }
}

pub fn range(incarnation: IncarnationId, store: &str, timeline: u32, start: u64, end: u64) -> JournalRange {
    JournalRange {
        incarnation,
        store: store.to_owned(),
        timeline: Timeline::new(timeline),
        start: Offset::new(start),
        end: Offset::new(end),
        checked_end: Offset::new(end),
        first_sequence: Sequence::new(start / 10),
        last_sequence: Sequence::new(end / 10),
    }
}

pub fn gap(incarnation: IncarnationId, start: u64, end: u64) -> Gap {
    Gap {
        incarnation,
        store: "main".to_owned(),
        timeline: Timeline::new(1),
        start: Offset::new(start),
        end: Offset::new(end),
        reason: "the slot was lost".to_owned(),
        seen_at: time(0),
    }
}

/// A signed head of `orders`' first store; nobody checks its signature here.
pub fn head(incarnation: IncarnationId, number: u64) -> Head {
    let said = Statement {
        store: StoreId::from_bytes([9; 16]),
        incarnation,
        database: name("orders"),
        number: Sequence::new(number),
        chain: ChainValue::from_bytes([8; 32]),
        end: at(1, number * 100),
        generation: Generation::new(3),
    };
    let (key, signature) = (VerifyKey::from_bytes([7; 32]), Signature::from_bytes([6; 64]));
    Head { said, signed_at: time(5).timestamp_micros(), key, signature }
}

pub fn backup(incarnation: IncarnationId, id: u8, start: u64) -> Backup {
    Backup {
        id: BackupId::from_bytes([id; 16]),
        incarnation,
        store: "main".to_owned(),
        timeline: Timeline::new(1),
        start: Offset::new(start),
        end: None,
        started_at: time(i64::from(id)),
        finished_at: None,
        bytes: None,
        stored_bytes: None,
        state: BackupState::Running,
        checked: false,
        label: "nightly".to_owned(),
        bad_pages: None,
        bad_at: None,
    }
}

/// A complete and checked backup.
pub fn usable(incarnation: IncarnationId, id: u8, start: u64, end: u64) -> Backup {
    Backup {
        end: Some(Offset::new(end)),
        finished_at: Some(time(100 + i64::from(id))),
        bytes: Some(1 << 40),
        stored_bytes: Some(1 << 38),
        state: BackupState::Complete,
        checked: true,
        bad_pages: Some(0),
        ..backup(incarnation, id, start)
    }
}

/// A commit whose record is ten bytes long.
pub fn commit(timeline: u32, end: u64, seconds: i64, xid: u64) -> Commit {
    Commit {
        timeline: Timeline::new(timeline),
        start: Offset::new(end - 10),
        end: Offset::new(end),
        time: time(seconds),
        xid,
    }
}

pub fn shipping(now: Time) -> Shipping {
    let offset = |bytes| Some(Offset::new(bytes));
    Shipping {
        database: name("orders"),
        state: ShippingState::Connected,
        timeline: Some(Timeline::new(1)),
        received: offset(1000),
        stored: offset(900),
        reported: offset(1000),
        released: offset(800),
        source: offset(1100),
        retained_bytes: Some(5 << 30),
        seconds_to_full: Some(7200),
        heartbeat: Duration::from_secs(10),
        last_contact_at: Some(now - TimeDelta::seconds(1)),
        last_stored_commit_at: Some(now - TimeDelta::seconds(4)),
        oldest_unstored_commit_at: Some(now - TimeDelta::milliseconds(2500)),
        updated_at: now,
        node: Some("oslo-1".to_owned()),
    }
}
