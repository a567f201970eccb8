//! All databases at a glance, for whoever watches them all: metrics, notifications, and pages of hundreds of them.
//!
//! What always holds: what is read is one state of the catalog, by one query per table however many databases there are; what was read is
//! kept as it was written, and judged later against the clock of that moment ([`Member::standing`], [`Member::glance`]), by the rules of
//! [`crate::lag`] and [`crate::window`], so that one reading serves everybody. A reading that is old says so by itself: whoever was heard last then counts as silent now. When the catalog is away
//! nobody vouches for anything: each database is unknown, and its exposure grows.

use std::collections::BTreeMap;

use crate::backup::Backup;
use crate::chronicle::{Seal, seal_list_in_txn};
use crate::connection::in_snapshot;
use crate::database::database_all_in_txn;
use crate::glance;
use crate::guard::{Guard, guard_list_in_txn};
use crate::incarnation::{Incarnation, incarnation_all_in_txn};
pub use crate::job::JobFacts;
use crate::job::job_facts_in_txn;
use crate::journals::{Journal, journals_in_txn};
use crate::lag::{self, ShownState};
use crate::lineup;
use crate::proof::{Outline, Proof, drill_newest_in_txn};
use crate::schedule::{Schedule, schedule_list_in_txn};
use crate::shipping::{Shipping, shipping_all_in_txn};
use crate::spool::{Spool, spool_list_in_txn};
use crate::standby::{Standby, standby_list_in_txn};
use crate::status::{Along, Backups, is_target, ships, shown_timeline};
use crate::target::{Target, target_all_in_txn};
use crate::throttle::{Throttles, throttle_list_in_txn};
use crate::window::Span;
use crate::{Catalog, Result, Time, Txn};
use farshore_journal::{DatabaseName, IncarnationId, Timeline};

/// The newest complete base backup of a database's current incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBackup {
    /// When it was begun.
    pub started_at: Time,
    /// When it was complete.
    pub finished_at: Time,
    /// What was moved to its store for it: all that it takes there, but for what it refers to in others.
    pub stored_bytes: Option<u64>,
    /// Bytes of the database's files in it.
    pub bytes: Option<u64>,
}

/// What can be restored of a database's current incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restorable {
    /// Whose.
    pub incarnation: IncarnationId,
    /// Along the line to this timeline.
    pub timeline: Timeline,
    /// The store that reaches furthest.
    pub store: String,
    /// Its newest unbroken run.
    pub span: Span,
    /// When the base backup ended that it begins with.
    pub begun_at: Option<Time>,
    /// Parts of the history, after an older run, that cannot be restored, but for log that expired.
    pub gaps: usize,
    /// Whether the log goes on behind the newest run, and cannot be restored from there on.
    pub cut_off: bool,
}

/// One database, as it was written.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub database: DatabaseName,
    /// Its engine's word.
    pub engine: String,
    /// The major version of its engine, where it has one.
    pub major_version: Option<u32>,
    /// What its shipper last said.
    pub shipping: Option<Shipping>,
    /// Its stores, by name.
    pub targets: Vec<Target>,
    /// What can be restored; `None` when nothing can, or nothing is known.
    pub restorable: Option<Restorable>,
    /// Its newest base backup.
    pub last_backup: Option<LastBackup>,
    /// Its base backups.
    pub backups: Backups,
    /// What drills say of it.
    pub proof: Proof,
}

/// All databases, as they were written.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// When it was read.
    pub read_at: Time,
    /// The databases, by name.
    pub members: Vec<Member>,
    /// The schedules that any service has.
    pub schedules: Vec<Schedule>,
    /// How work went, by kind and database.
    pub jobs: Vec<JobFacts>,
    /// How far each store has each chronicle, and the number of each one's newest entry.
    pub seals: Vec<(Seal, u64)>,
    /// Standbys that take a journal for their primary, as they were last heard of.
    pub standbys: Vec<Standby>,
    /// Whether commits wait, of databases whose commits are to.
    pub guards: Vec<Guard>,
    /// How spools stand.
    pub spools: Vec<Spool>,
    /// What limits databases, as their shippers last said.
    pub throttles: Vec<Throttles>,
}

/// How a database stands at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Its state; `unknown` when nobody vouches for it.
    pub state: ShownState,
    /// The most that would be lost now, as time.
    pub exposure_seconds: f64,
    /// Whether its source was not heard lately.
    pub silent: bool,
    /// Bytes of the source's log that our process does not have, while the source is heard.
    pub receive_lag_bytes: Option<u64>,
    /// Bytes of log that a store does not have, by store, while the source is heard.
    pub store_lag_bytes: Vec<(String, u64)>,
    /// What its log keeps for us, while somebody measures it.
    pub retained_bytes: Option<u64>,
    /// Seconds until its log's disk is full, while somebody measures it.
    pub seconds_to_full: Option<u64>,
    /// Whether so much log was not received that nobody knows what would be lost ([`lag::is_unseen`]).
    pub unseen: bool,
    /// Why it does not stand as it should, as far as anybody said so.
    pub why: Option<String>,
}

impl Member {
    /// How it stands now. `away`: what was read cannot be read again, so that nobody vouches for it.
    pub fn standing(&self, now: Time, away: bool) -> Standing {
        let said = self.shipping.as_ref();
        let state = if away { ShownState::Unknown } else { lag::shown_state(now, said) };
        let unheard = said.is_none_or(|said| lag::is_silent(now, said.last_contact_at, said.heartbeat));
        let silent = away || unheard || said.is_some_and(|said| said.state.is_stopped());
        let exposure = match said {
            // Nobody says that anything was stored, or that nothing was committed, since it was last read.
            Some(said) if away => lag::exposure_seconds(
                now,
                Some(&Shipping { heartbeat: std::time::Duration::ZERO, ..said.clone() }),
            ),
            said => lag::exposure_seconds(now, said),
        };
        let source = said.and_then(|said| said.source).filter(|_| !silent);
        let lag_seconds = said.and_then(|said| {
            lag::lag_seconds(now, silent, said.source, said.stored, said.oldest_unstored_commit_at)
        });
        let on_line = |target: &Target| {
            let stored = target
                .stored
                .filter(|stored| Some(stored.timeline) == said.and_then(|said| said.timeline))?;
            Some((target.store.clone(), lag::lag_bytes(source, Some(stored.offset))?))
        };
        Standing {
            state,
            exposure_seconds: exposure,
            silent,
            receive_lag_bytes: lag::lag_bytes(source, said.and_then(|said| said.received)),
            unseen: lag::is_unseen(lag_seconds, source, said.and_then(|said| said.received)),
            store_lag_bytes: self.targets.iter().filter_map(on_line).collect(),
            retained_bytes: said.and_then(|said| said.retained_bytes).filter(|_| ships(state)),
            seconds_to_full: said.and_then(|said| said.seconds_to_full).filter(|_| ships(state)),
            why: match away {
                true => Some("the catalog does not answer: nothing is known of it now".to_owned()),
                false => lag::why(now, said, &self.targets),
            },
        }
    }

    /// How a page shows it now.
    pub fn glance(&self, now: Time) -> glance::Member {
        let said = self.shipping.as_ref();
        let silent = said.is_none_or(|said| lag::is_silent(now, said.last_contact_at, said.heartbeat));
        let (source, stored) = (said.and_then(|said| said.source), said.and_then(|said| said.stored));
        let oldest = said.and_then(|said| said.oldest_unstored_commit_at);
        let newest_commit = said.and_then(|said| said.last_stored_commit_at);
        let lag_seconds = lag::lag_seconds(now, silent, source, stored, oldest);
        glance::Member {
            unseen: lag::is_unseen(lag_seconds, source, said.and_then(|said| said.received)),
            database: self.database.clone(),
            engine: self.engine.clone(),
            state: lag::shown_state(now, said),
            seen_at: lag::seen_at(said, &self.targets),
            measured_at: said.map(|said| said.updated_at),
            why: lag::why(now, said, &self.targets),
            ship_lag_bytes: lag::lag_bytes(source, stored).filter(|_| !silent),
            ship_lag_seconds: lag_seconds,
            window: self.restorable.as_ref().map(|found| glance::Reach {
                store: found.store.clone(),
                from: found.begun_at,
                to: newest_commit.filter(|_| !found.cut_off),
                gaps: found.gaps,
            }),
            backups: self.backups.clone(),
            stores: self.targets.iter().map(|target| target.store.clone()).collect(),
            proof: self.proof.clone(),
        }
    }

    /// Whether more than `rpo_seconds` is not stored, as [`lag::breached`] judges it.
    pub fn breached(&self, now: Time, away: bool, rpo_seconds: f64) -> Option<bool> {
        let said = self.shipping.as_ref().filter(|_| !away)?;
        let silent = lag::is_silent(now, said.last_contact_at, said.heartbeat);
        let lag_seconds =
            lag::lag_seconds(now, silent, said.source, said.stored, said.oldest_unstored_commit_at);
        let state = lag::shown_state(now, Some(said));
        lag::breached(now, state, Some(said.updated_at), lag_seconds, Some(rpo_seconds))
    }
}

impl Catalog {
    /// All databases as they are written now.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn fleet(&self, now: Time) -> Result<Fleet> {
        in_snapshot!(self, fleet_in_txn(now))
    }

    /// The times of the last commits at the two ends of what can be restored, as [`Catalog::status`] says them.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn window_times(&self, restorable: &Restorable) -> Result<(Option<Time>, Option<Time>)> {
        in_snapshot!(self, window_times_in_txn(restorable))
    }
}

async fn window_times_in_txn(txn: &mut Txn, restorable: &Restorable) -> Result<(Option<Time>, Option<Time>)> {
    let along = Along { incarnation: restorable.incarnation, timeline: restorable.timeline };
    let span = &restorable.span;
    Ok((along.time_at(txn, span, span.from).await?, along.time_at(txn, span, span.to).await?))
}

/// As [`Catalog::fleet`].
///
/// # Errors
/// When the catalog is away.
pub async fn fleet_in_txn(txn: &mut Txn, now: Time) -> Result<Fleet> {
    Ok(Fleet {
        read_at: now,
        members: members_in_txn(txn, now).await?,
        schedules: schedule_list_in_txn(txn).await?,
        jobs: job_facts_in_txn(txn, now).await?,
        seals: seal_list_in_txn(txn).await?,
        standbys: standby_list_in_txn(txn, None).await?,
        guards: guard_list_in_txn(txn).await?,
        spools: spool_list_in_txn(txn).await?,
        throttles: throttle_list_in_txn(txn).await?,
    })
}

/// The databases, by name.
pub(crate) async fn members_in_txn(txn: &mut Txn, now: Time) -> Result<Vec<Member>> {
    let databases = database_all_in_txn(txn).await?;
    let mut shipping: BTreeMap<DatabaseName, Shipping> =
        shipping_all_in_txn(txn).await?.into_iter().map(|said| (said.database.clone(), said)).collect();
    let mut targets: BTreeMap<DatabaseName, Vec<Target>> = BTreeMap::new();
    for target in target_all_in_txn(txn).await? {
        targets.entry(target.database.clone()).or_default().push(target);
    }
    // Each database's oldest first.
    let mut incarnations: BTreeMap<DatabaseName, Vec<Incarnation>> = BTreeMap::new();
    for one in incarnation_all_in_txn(txn).await? {
        incarnations.entry(one.database.clone()).or_default().push(one);
    }
    let journals = journals_in_txn(txn).await?;
    let mut drills: BTreeMap<DatabaseName, Vec<Outline>> = BTreeMap::new();
    for drill in drill_newest_in_txn(txn, None).await? {
        drills.entry(drill.database.clone()).or_default().push(drill);
    }
    let members = databases.into_iter().map(|database| {
        let shipping = shipping.remove(&database.name);
        let incarnations = incarnations.remove(&database.name).unwrap_or_default();
        let targets = targets.remove(&database.name).unwrap_or_default();
        let stores = |id| {
            let all = journals.get(&id).map(Journal::stores).unwrap_or_default();
            all.into_iter().filter(|store| is_target(store, &targets)).collect()
        };
        let present = lineup::present(&incarnations, stores);
        let present_journals = || present.iter().filter_map(|id| Some((*id, journals.get(id)?)));
        let mut backups = Backups::default();
        present_journals().for_each(|(_, journal)| backups.add(&journal.counted));
        let newest = present_journals().filter_map(|(_, journal)| last_backup(journal.newest.as_ref()?));
        Member {
            restorable: {
                let state = lag::shown_state(now, shipping.as_ref());
                let shipped = shipping.as_ref().and_then(|said| said.timeline);
                let each =
                    present_journals().filter_map(|(id, journal)| restorable(id, journal, state, shipped));
                let mut each: Vec<Restorable> = each.collect();
                let runs: Vec<_> = each.iter().map(|one| (one.span.from, one.span.to)).collect();
                lineup::shown(&runs).map(|at| each.swap_remove(at))
            },
            last_backup: newest.max_by_key(|one| one.finished_at),
            backups,
            proof: Proof::of(&present, drills.get(&database.name).map_or(&[], Vec::as_slice)),
            major_version: incarnations.last().and_then(|one| one.major_version),
            targets,
            database: database.name,
            engine: database.engine,
            shipping,
        }
    });
    Ok(members.collect())
}

fn restorable(
    incarnation: IncarnationId,
    journal: &Journal,
    state: ShownState,
    shipped: Option<Timeline>,
) -> Option<Restorable> {
    let timeline = shown_timeline(state, shipped, journal.newest_timeline())?;
    let (span, store, windows) = journal.furthest(timeline)?;
    Some(Restorable {
        incarnation,
        timeline,
        store,
        begun_at: journal.begins(&span).and_then(|backup| backup.finished_at),
        // Of those that the window of `status` has, the ones that are losses.
        gaps: windows.losses(),
        cut_off: windows.breaks.len() >= windows.spans.len(),
        span,
    })
}

fn last_backup(newest: &Backup) -> Option<LastBackup> {
    let (started_at, finished_at) = (newest.started_at, newest.finished_at?);
    Some(LastBackup { started_at, finished_at, stored_bytes: newest.stored_bytes, bytes: newest.bytes })
}
