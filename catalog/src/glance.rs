//! All databases at a glance: what a page shows of hundreds of them at once.
//!
//! What always holds: a state, a lag and a window are told by the same rules as [`crate::status`] tells them of one database; all of it is
//! read from one state of the catalog, in as many queries whether there are three databases or five hundred. In exchange no commit is
//! looked up: a window's times are those of the backup that it begins with and of the newest stored commit, not those of its own commits.

use std::collections::BTreeMap;

use farshore_journal::{DatabaseName, IncarnationId, Timeline};

use crate::connection::in_snapshot;
use crate::database::{Database, database_list_in_txn};
use crate::incarnation::incarnation_all_in_txn;
use crate::journals::{Journal, journals_in_txn};
use crate::lag::{self, ShownState};
use crate::proof::{Outline, Proof, drill_newest_in_txn};
use crate::shipping::{Shipping, shipping_all_in_txn};
use crate::status::{Backups, shown_timeline};
use crate::target::{Target, target_all_in_txn};
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
    /// Parts of the history before or behind it that cannot be restored, but for log that expired.
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

/// As [`Catalog::glance`].
///
/// # Errors
/// When the catalog is away.
pub async fn glance_in_txn(txn: &mut Txn, now: Time) -> Result<Vec<Member>> {
    let databases = database_list_in_txn(txn).await?;
    let mut shipping: BTreeMap<DatabaseName, Shipping> =
        shipping_all_in_txn(txn).await?.into_iter().map(|said| (said.database.clone(), said)).collect();
    let mut targets: BTreeMap<DatabaseName, Vec<Target>> = BTreeMap::new();
    for target in target_all_in_txn(txn).await? {
        targets.entry(target.database.clone()).or_default().push(target);
    }
    // Each database's oldest first: the last one is the current one.
    let current: BTreeMap<DatabaseName, IncarnationId> =
        incarnation_all_in_txn(txn).await?.into_iter().map(|one| (one.database, one.id)).collect();
    let journals = journals_in_txn(txn).await?;
    let mut drills: BTreeMap<DatabaseName, Vec<Outline>> = BTreeMap::new();
    for drill in drill_newest_in_txn(txn, None).await? {
        drills.entry(drill.database.clone()).or_default().push(drill);
    }
    let member = |database: Database| {
        let (said, targets) = (shipping.remove(&database.name), targets.remove(&database.name));
        let id = current.get(&database.name).copied();
        let proof = Proof::of(id, drills.get(&database.name).map_or(&[], Vec::as_slice));
        let journal = id.and_then(|id| journals.get(&id));
        Member { proof, ..member(now, database, said.as_ref(), &targets.unwrap_or_default(), journal) }
    };
    Ok(databases.into_iter().map(member).collect())
}

fn member(
    now: Time,
    database: Database,
    said: Option<&Shipping>,
    targets: &[Target],
    journal: Option<&Journal>,
) -> Member {
    let state = lag::shown_state(now, said);
    let silent = said.is_none_or(|said| lag::is_silent(now, said.last_contact_at, said.heartbeat));
    let shipped = said.and_then(|said| said.timeline);
    let timeline = shown_timeline(state, shipped, journal.and_then(Journal::newest_timeline));
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
        window: timeline.zip(journal).and_then(|(timeline, journal)| reach(journal, timeline, newest_commit)),
        backups: journal.map_or_else(Backups::default, |journal| journal.counted.clone()),
        stores: targets.iter().map(|target| target.store.clone()).collect(),
        proof: Proof::default(),
    }
}

/// The window of the store that reaches furthest.
fn reach(journal: &Journal, timeline: Timeline, newest_commit: Option<Time>) -> Option<Reach> {
    let (newest, store, windows) = journal.furthest(timeline)?;
    let cut_off = windows.breaks.len() >= windows.spans.len();
    Some(Reach {
        store,
        from: journal.begins(&newest).and_then(|backup| backup.finished_at),
        to: newest_commit.filter(|_| !cut_off),
        gaps: windows.losses(),
    })
}
