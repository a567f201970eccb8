//! All databases at a glance, for whoever watches them all: metrics and notifications.
//!
//! What always holds: what is read is one state of the catalog, by one query per table however many databases there are; what was read is
//! kept as it was written, and judged later against the clock of that moment ([`Member::standing`]), by the rules of [`crate::lag`] and
//! [`crate::window`]. A reading that is old says so by itself: whoever was heard last then counts as silent now. When the catalog is away
//! nobody vouches for anything: each database is unknown, and its exposure grows.

use std::collections::BTreeMap;

use farshore_journal::{DatabaseName, IncarnationId, Timeline};
use sqlx::query;

use crate::backup::Backup;
use crate::chronicle::{Seal, seal_list_in_txn};
use crate::connection::in_snapshot;
use crate::database::database_list_in_txn;
use crate::incarnation::{Incarnation, incarnation_all_in_txn};
use crate::job::JobKind;
use crate::journals::{Journal, journals_in_txn};
use crate::lag::{self, ShownState};
use crate::row::Read as _;
use crate::schedule::{Schedule, schedule_list_in_txn};
use crate::shipping::{Shipping, shipping_all_in_txn};
use crate::status::{Along, ships, shown_timeline};
use crate::target::{Target, target_all_in_txn};
use crate::window::Span;
use crate::{Catalog, Result, Time, Txn};

/// The newest complete base backup of a database's current incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBackup {
    /// When it was begun.
    pub started_at: Time,
    /// When it was complete.
    pub finished_at: Time,
    /// What it takes in its store.
    pub stored_bytes: Option<u64>,
}

/// What can be restored of a database's current incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restorable {
    /// Whose.
    pub incarnation: IncarnationId,
    /// Along the line to this timeline.
    pub timeline: Timeline,
    /// The newest unbroken run.
    pub span: Span,
    /// Parts of the history, after an older run, that cannot be restored, but for log that expired.
    pub gaps: usize,
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
}

/// How one kind of job went for a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// The kind.
    pub kind: JobKind,
    /// The database; `None` for work that is of none.
    pub database: Option<DatabaseName>,
    /// How many run now.
    pub running: u64,
    /// When one last succeeded.
    pub last_success: Option<Time>,
    /// When one last failed.
    pub last_failure: Option<Time>,
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
            store_lag_bytes: self.targets.iter().filter_map(on_line).collect(),
            retained_bytes: said.and_then(|said| said.retained_bytes).filter(|_| ships(state)),
            seconds_to_full: said.and_then(|said| said.seconds_to_full).filter(|_| ships(state)),
            why: match away {
                true => Some("the catalog does not answer: nothing is known of it now".to_owned()),
                false => lag::why(now, said, &self.targets),
            },
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
    let databases = database_list_in_txn(txn).await?;
    let mut shipping: BTreeMap<DatabaseName, Shipping> =
        shipping_all_in_txn(txn).await?.into_iter().map(|said| (said.database.clone(), said)).collect();
    let mut targets: BTreeMap<DatabaseName, Vec<Target>> = BTreeMap::new();
    for target in target_all_in_txn(txn).await? {
        targets.entry(target.database.clone()).or_default().push(target);
    }
    // Each database's oldest first: the last one is the current one.
    let mut current: BTreeMap<DatabaseName, Incarnation> =
        incarnation_all_in_txn(txn).await?.into_iter().map(|one| (one.database.clone(), one)).collect();
    let journals = journals_in_txn(txn).await?;
    let members = databases.into_iter().map(|database| {
        let shipping = shipping.remove(&database.name);
        let incarnation = current.remove(&database.name);
        let journal = incarnation.as_ref().and_then(|one| Some((one.id, journals.get(&one.id)?)));
        Member {
            restorable: journal.and_then(|(id, journal)| {
                let state = lag::shown_state(now, shipping.as_ref());
                restorable(id, journal, state, shipping.as_ref().and_then(|said| said.timeline))
            }),
            last_backup: journal.and_then(|(_, journal)| last_backup(journal.newest.as_ref()?)),
            major_version: incarnation.as_ref().and_then(|one| one.major_version),
            targets: targets.remove(&database.name).unwrap_or_default(),
            database: database.name,
            engine: database.engine,
            shipping,
        }
    });
    let members = members.collect();
    Ok(Fleet {
        read_at: now,
        members,
        schedules: schedule_list_in_txn(txn).await?,
        jobs: jobs_in_txn(txn).await?,
        seals: seal_list_in_txn(txn).await?,
    })
}

fn restorable(
    incarnation: IncarnationId,
    journal: &Journal,
    state: ShownState,
    shipped: Option<Timeline>,
) -> Option<Restorable> {
    let timeline = shown_timeline(state, shipped, journal.newest_timeline())?;
    let (span, _, windows) = journal.furthest(timeline)?;
    // Of those that the window of `status` has, the ones that are losses.
    let gaps = windows.losses();
    Some(Restorable { incarnation, timeline, span, gaps })
}

fn last_backup(newest: &Backup) -> Option<LastBackup> {
    let (started_at, finished_at) = (newest.started_at, newest.finished_at?);
    Some(LastBackup { started_at, finished_at, stored_bytes: newest.stored_bytes })
}

async fn jobs_in_txn(txn: &mut Txn) -> Result<Vec<JobFacts>> {
    // A cancelled job neither succeeded nor failed. A verification that found damage and a drill that took too long were done, and are no good news.
    let statement = "select kind, database_name, \
                     count(case when state in ('running', 'cancelling') then 1 end) as running, \
                     max(case when state = 'succeeded' and coalesce(result, '') not like '%\"sound\":false%' \
                     and coalesce(result, '') not like '%\"verdict\":\"breached\"%' then finished_at end) as last_success, \
                     max(case when state = 'failed' or (state = 'succeeded' and (result like '%\"sound\":false%' \
                     or result like '%\"verdict\":\"breached\"%')) then finished_at end) as last_failure \
                     from job group by kind, database_name order by kind, database_name";
    let rows = txn.rows("job_facts", query(statement)).await?;
    rows.iter()
        .map(|row| {
            Ok(JobFacts {
                kind: row.text("kind")?.parse().unwrap_or(JobKind::Unknown),
                database: row.maybe_parsed("database_name")?,
                running: row.count("running")?,
                last_success: row.maybe_time("last_success")?,
                last_failure: row.maybe_time("last_failure")?,
            })
        })
        .collect()
}
