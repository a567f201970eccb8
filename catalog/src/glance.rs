//! All databases at a glance: what a page shows of hundreds of them at once.
//!
//! What always holds: a state, a lag and a window are told by the same rules as [`crate::status`] tells them of one database; all of it is
//! read from one state of the catalog, in as many queries whether there are three databases or five hundred. In exchange no commit is
//! looked up: a window's times are those of the backup that it begins with and of the newest stored commit, not those of its own commits.

use std::collections::BTreeMap;

use farshore_journal::{BackupId, DatabaseName, IncarnationId, Offset, Timeline};
use sqlx::any::AnyRow;
use sqlx::query;

use crate::backup::{self, Backup, BackupState};
use crate::branch::{self, Branch, Line};
use crate::connection::in_snapshot;
use crate::database::{Database, database_list_in_txn};
use crate::gap::{self, Gap};
use crate::incarnation::{self, Incarnation};
use crate::lag::{self, ShownState};
use crate::proof::{Outline, Proof, drill_newest_in_txn};
use crate::range::{self, JournalRange};
use crate::shipping::{self, Shipping};
use crate::status::{Backups, ships};
use crate::target::{self, Target};
use crate::window::{self, Windows};
use crate::{Catalog, Result, Time, Txn};

/// A database among others.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its name.
    pub database: DatabaseName,
    /// Its engine's word.
    pub engine: String,
    /// How its shipping stands; `Unknown` when nobody vouches for it.
    pub state: ShownState,
    /// When a service last wrote of it here.
    pub seen_at: Option<Time>,
    /// When its positions were written.
    pub measured_at: Option<Time>,
    /// Why it does not stand as it should.
    pub why: Option<String>,
    /// Bytes of log not stored, as of the last contact.
    pub ship_lag_bytes: Option<u64>,
    /// Age of the oldest commit not stored.
    pub ship_lag_seconds: Option<f64>,
    /// What can be restored of its current incarnation.
    pub window: Option<Reach>,
    /// Its base backups.
    pub backups: Backups,
    /// Its stores, by name.
    pub stores: Vec<String>,
    /// What drills say of it.
    pub proof: Proof,
}

/// How far back and forth the newest unbroken run of restorable positions reaches, in the store that has the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The store that has it.
    pub store: String,
    /// When the base backup ended that it begins with.
    pub from: Option<Time>,
    /// The time of the newest stored commit; `None` when the window ends before it.
    pub to: Option<Time>,
    /// Parts of the history before or behind it that cannot be restored.
    pub gaps: usize,
}

impl Catalog {
    /// All databases as they stand at `now`, by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn glance(&self, now: Time) -> Result<Vec<Member>> {
        in_snapshot!(self, glance_in_txn(now))
    }
}

/// What is read of one kind, by what it belongs to.
async fn grouped<K: Ord, T>(
    txn: &mut Txn,
    (name, statement): (&'static str, &'static str),
    read: fn(&AnyRow) -> Result<T>,
    key: fn(&T) -> K,
) -> Result<BTreeMap<K, Vec<T>>> {
    let mut by: BTreeMap<K, Vec<T>> = BTreeMap::new();
    for row in &txn.rows(name, query(statement)).await? {
        let one = read(row)?;
        by.entry(key(&one)).or_default().push(one);
    }
    Ok(by)
}

/// As [`Catalog::glance`].
///
/// # Errors
/// When the catalog is away.
pub async fn glance_in_txn(txn: &mut Txn, now: Time) -> Result<Vec<Member>> {
    let databases = database_list_in_txn(txn).await?;
    let statement = (
        "fleet_shipping",
        "select database_name, state, timeline, received, stored, reported, released, source_offset, retained_bytes, \
         seconds_to_full, heartbeat_us, last_contact_at, last_stored_commit_at, oldest_unstored_commit_at, updated_at, node \
         from shipping",
    );
    let mut shippings =
        grouped(txn, statement, shipping::from_row, |one: &Shipping| one.database.clone()).await?;
    let statement = (
        "fleet_target",
        "select database_name, store, url, state, stored_timeline, stored_offset, updated_at, failure_code, failure_message, \
         failed_at from target order by database_name, store",
    );
    let mut targets = grouped(txn, statement, target::from_row, |one: &Target| one.database.clone()).await?;
    // Oldest first: the last one of a database is its current one.
    let statement = (
        "fleet_incarnation",
        "select id, database_name, engine_identity, created_at, parent, reason, segment_bytes, major_version, record_number \
         from incarnation order by database_name, coalesce(record_number, -1), created_at, id",
    );
    let incarnations =
        grouped(txn, statement, incarnation::from_row, |one: &Incarnation| one.database.clone()).await?;
    let statement = (
        "fleet_branch",
        "select incarnation, timeline, parent_timeline, fork_offset, first_seen_at from branch order by incarnation, timeline",
    );
    let branches = grouped(txn, statement, branch::from_row, |one: &Branch| one.incarnation).await?;
    let statement = (
        "fleet_range",
        "select incarnation, store, timeline, start_offset, end_offset, checked_end, first_sequence, last_sequence \
         from journal_range order by incarnation, store, timeline, start_offset",
    );
    let ranges = grouped(txn, statement, range::from_row, |one: &JournalRange| one.incarnation).await?;
    let statement = (
        "fleet_gap",
        "select incarnation, store, timeline, start_offset, end_offset, reason, seen_at from journal_gap",
    );
    let gaps = grouped(txn, statement, gap::from_row, |one: &Gap| one.incarnation).await?;
    let statement = (
        "fleet_backup",
        "select id, incarnation, store, timeline, start_offset, end_offset, started_at, finished_at, bytes, stored_bytes, \
         state, checked, label, bad_pages from backup",
    );
    let backups = grouped(txn, statement, backup::from_row, |one: &Backup| one.incarnation).await?;
    let mut drills: BTreeMap<DatabaseName, Vec<Outline>> = BTreeMap::new();
    for drill in drill_newest_in_txn(txn, None).await? {
        drills.entry(drill.database.clone()).or_default().push(drill);
    }
    let of = |id: Option<IncarnationId>| Held {
        branches: id.and_then(|id| branches.get(&id)).map_or(&[], Vec::as_slice),
        ranges: id.and_then(|id| ranges.get(&id)).map_or(&[], Vec::as_slice),
        gaps: id.and_then(|id| gaps.get(&id)).map_or(&[], Vec::as_slice),
        backups: id.and_then(|id| backups.get(&id)).map_or(&[], Vec::as_slice),
    };
    let member = |database: Database| {
        let shipping = shippings.remove(&database.name).and_then(|mut all| all.pop());
        let targets = targets.remove(&database.name).unwrap_or_default();
        let current = incarnations.get(&database.name).and_then(|all| all.last()).map(|one| one.id);
        let proof = Proof::of(current, drills.get(&database.name).map_or(&[], Vec::as_slice));
        Member { proof, ..member(now, database, shipping.as_ref(), &targets, &of(current)) }
    };
    Ok(databases.into_iter().map(member).collect())
}

/// What is known of an incarnation's journal.
struct Held<'a> {
    branches: &'a [Branch],
    ranges: &'a [JournalRange],
    gaps: &'a [Gap],
    backups: &'a [Backup],
}

fn member(
    now: Time,
    database: Database,
    said: Option<&Shipping>,
    targets: &[Target],
    held: &Held<'_>,
) -> Member {
    let state = lag::shown_state(now, said);
    let silent = said.is_none_or(|said| lag::is_silent(now, said.last_contact_at, said.heartbeat));
    let shipped = said.and_then(|said| said.timeline);
    let newest = held.newest_timeline();
    // As in `status`: while nothing ships, the timeline shipped last may be one that the journal has left behind.
    let timeline = if ships(state) { shipped.or(newest) } else { newest.or(shipped) };
    let (source, stored) = (said.and_then(|said| said.source), said.and_then(|said| said.stored));
    let oldest = said.and_then(|said| said.oldest_unstored_commit_at);
    let newest_commit = said.and_then(|said| said.last_stored_commit_at);
    Member {
        database: database.name,
        engine: database.engine,
        state,
        seen_at: lag::seen_at(said, targets),
        measured_at: said.map(|said| said.updated_at),
        why: lag::why(now, said, targets),
        ship_lag_bytes: lag::lag_bytes(source, stored).filter(|_| !silent),
        ship_lag_seconds: lag::lag_seconds(now, silent, source, stored, oldest),
        window: timeline.and_then(|timeline| held.reach(timeline, newest_commit)),
        backups: held.counted(),
        stores: targets.iter().map(|target| target.store.clone()).collect(),
        proof: Proof::default(),
    }
}

impl Held<'_> {
    fn newest_timeline(&self) -> Option<Timeline> {
        let stored = self.ranges.iter().map(|range| range.timeline);
        self.branches.iter().map(|branch| branch.timeline).chain(stored).max()
    }

    /// The window of the store that reaches furthest.
    fn reach(&self, timeline: Timeline, newest_commit: Option<Time>) -> Option<Reach> {
        let line = Line::to(timeline, self.branches);
        let of_stores = self.ranges.chunk_by(|a, b| a.store == b.store).filter_map(|ranges| {
            let store = ranges.first()?.store.clone();
            let gaps: Vec<Gap> = self.gaps.iter().filter(|gap| gap.store == store).cloned().collect();
            let backups: Vec<Backup> =
                self.backups.iter().filter(|one| one.store == store).cloned().collect();
            Some((store, window::windows(&line, ranges, &gaps, &backups)))
        });
        let reaches = of_stores.filter_map(|(store, windows)| {
            let newest = windows.spans.last()?.clone();
            Some((store, newest, windows))
        });
        let key = |(_, newest, _): &(String, window::Span, Windows)| -> (Offset, std::cmp::Reverse<Offset>) {
            (newest.to.offset, std::cmp::Reverse(newest.from.offset))
        };
        let (store, newest, windows) = reaches.max_by_key(key)?;
        let cut_off = windows.breaks.len() >= windows.spans.len();
        Some(Reach {
            store,
            from: self.finished(newest.oldest_backup),
            to: newest_commit.filter(|_| !cut_off),
            gaps: windows.breaks.len(),
        })
    }

    fn finished(&self, id: BackupId) -> Option<Time> {
        self.backups.iter().find(|backup| backup.id == id).and_then(|backup| backup.finished_at)
    }

    fn counted(&self) -> Backups {
        let complete = || self.backups.iter().filter(|backup| backup.state == BackupState::Complete);
        Backups {
            count: complete().count() as u64,
            damaged: complete().filter(|backup| backup.bad_pages > 0).count() as u64,
            last_at: complete().filter_map(|backup| backup.finished_at).max(),
        }
    }
}
