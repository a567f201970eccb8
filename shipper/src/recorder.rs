//! Carries facts and snapshots into the catalog.
//!
//! What always holds: the catalog gates nothing. When it is away, facts wait here up to a bound, then are counted as dropped;
//! the store holds them all, and `catalog rebuild` brings them back. A target's recorder writes that target's row; how the
//! database stands is one row with one writer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::branch::{Branch, Fork};
use farshore_catalog::commit::{Commit, commit_insert_in_txn};
use farshore_catalog::database::Database;

use farshore_catalog::gap::Gap;
use farshore_catalog::guard::{Guard, GuardPhase};
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::mark::{Mark, MarkKind, mark_put_in_txn};
use farshore_catalog::range::{JournalRange, range_extend_in_txn};
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_catalog::spool::Spool;
use farshore_catalog::target::{Failure, Target};
use farshore_catalog::{Catalog, Result, Retry};
use farshore_journal::{DatabaseName, Position};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::facts::FactReceiver;
use crate::progress::{Fact, PipelineState, Progress};
use crate::refreshing::Refreshing;
use crate::spool::Spooled;
use crate::standing::standing;
use crate::waits::WaitsSeen;

/// How often the snapshot is written: the heartbeat that `status` measures silence by.
pub const HEARTBEAT: Duration = farshore_catalog::lag::TARGET_HEARTBEAT;
/// How long facts are gathered behind those that were written: what is said of a hundred chunks costs hardly more than of one.
const GATHER: Duration = Duration::from_millis(250);
/// How often, and for how long, it is written at first: who asks as soon as there is something must not be told that nobody writes.
const FIRST_BEATS: Duration = Duration::from_millis(100);
const FIRST: Duration = Duration::from_secs(3);
/// The heartbeat of a last word: it stays true until another shipper writes.
const LAST_WORD: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the primary's watch learnt.
#[derive(Debug, Clone, Default)]
pub struct PrimaryFacts {
    /// What it was told it may recycle, on the timeline shipped.
    pub released: Option<Position>,
    /// Bytes of log it keeps for us.
    pub retained_bytes: Option<u64>,
    /// Seconds until its disk is full at the present rate.
    pub seconds_to_full: Option<u64>,
    /// Why the log that is not stored is not kept there as it should be.
    pub trouble: Option<String>,
    /// The slot that keeps that log is not made yet, or was not seen since the start.
    pub slot_awaited: bool,
    /// Whether commits wait there, where they are to and no guard says so.
    pub waits: Option<WaitsSeen>,
}

/// One target's recorder.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// The catalog.
    pub catalog: Catalog,
    /// The database.
    pub database: DatabaseName,
    /// The target's name.
    pub store: String,
    /// The target's address, without secrets.
    pub url: String,
}

impl Recorder {
    /// Records until every sender of facts is gone or it is cancelled, then what still waits and how the target stands at last.
    pub async fn run(
        self,
        mut facts: FactReceiver,
        mut progress: watch::Receiver<Progress>,
        cancel: CancellationToken,
    ) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut away = Away::default();
        // The fact that the catalog did not take: it is offered again, and those behind it wait.
        let mut waiting: Option<Fact> = None;
        // Whether the first fact was taken or refused. It names the database: before it the catalog has no place for a target.
        let mut named = false;
        // Facts wait until then. The first after a pause does not.
        let mut next = Instant::now();
        while !cancel.is_cancelled() {
            // In no order: a backlog of facts must not make the target look as if nobody vouched for it, and a catalog that is slower
            // than the beat must not keep facts waiting.
            let recorded = tokio::select! {
                _ = beat.tick() => {
                    let progress = progress.borrow_and_update().clone();
                    match waiting.take() {
                        Some(fact) => {
                            let kept = self.keep(fact.clone()).await;
                            waiting = is_away(&kept).then_some(fact);
                            named |= waiting.is_none();
                            kept
                        }
                        None if named => self.snapshot(&progress).await,
                        None => self.trouble(&progress).await,
                    }
                }
                fact = async { tokio::time::sleep_until(next).await; facts.recv().await }, if waiting.is_none() => match fact {
                    Some(fact) => {
                        let kept = self.keep(fact.clone()).await;
                        if matches!(fact, Fact::Stored { .. }) {
                            next = Instant::now() + GATHER;
                        }
                        waiting = is_away(&kept).then_some(fact);
                        named |= waiting.is_none();
                        kept
                    }
                    None => break,
                },
                () = cancel.cancelled() => break,
            };
            away.after(&self.database, recorded);
        }
        facts.close();
        let mut left = Vec::from_iter(waiting);
        while let Some(fact) = facts.recv().await {
            left.push(fact);
        }
        for fact in left {
            // The store holds the fact; the next start or a rebuild brings it back. One that is refused hides no later one, nor how the
            // target ended.
            if is_away(&self.keep(fact).await) {
                return;
            }
        }
        let last = progress.borrow().clone();
        away.after(&self.database, self.snapshot(&last).await);
    }

    async fn keep(&self, fact: Fact) -> Result<()> {
        let catalog = &self.catalog;
        match fact {
            Fact::Incarnation(record) => {
                let added_at = Utc::now();
                let database =
                    Database { name: record.database.clone(), engine: record.engine.clone(), added_at };
                catalog.database_put(&database).await?;
                let created_at = record.created.parse::<DateTime<Utc>>().unwrap_or(added_at);
                let incarnation = Incarnation {
                    id: record.incarnation,
                    database: record.database,
                    engine_identity: record.identity,
                    number: Some(record.number),
                    created_at,
                    parent: None,
                    reason: record.reason,
                    segment_bytes: record.segment_bytes,
                    major_version: Some(record.major),
                };
                catalog.incarnation_put(&incarnation).await
            }
            Fact::Stored { incarnation, timeline, start, end, checked, first, last, commits, points } => {
                let commits: Vec<Commit> = commits
                    .into_iter()
                    .filter_map(|c| {
                        let time = DateTime::from_timestamp_micros(c.time_micros)?;
                        Some(Commit { timeline, start: c.start, end: c.end, time, xid: c.xid })
                    })
                    .collect();
                let range = JournalRange {
                    incarnation,
                    store: self.store.clone(),
                    timeline,
                    start,
                    end,
                    checked_end: checked.max(start).min(end),
                    first_sequence: first,
                    last_sequence: last,
                };
                // All of it or nothing: a range that is known without its commits would look whole to whoever brings the catalog up.
                let mut txn = catalog.begin().await?;
                commit_insert_in_txn(&mut txn, incarnation, &commits).await?;
                for point in points {
                    let Some(time) = DateTime::from_timestamp_micros(point.time_micros) else { continue };
                    let mark = Mark {
                        incarnation,
                        kind: MarkKind::RestorePoint,
                        name: point.name,
                        position: Position::new(timeline, point.end),
                        time,
                        note: String::new(),
                        held_until: None,
                    };
                    mark_put_in_txn(&mut txn, &mark).await?;
                }
                range_extend_in_txn(&mut txn, &range).await?;
                txn.commit().await
            }
            Fact::Branch { incarnation, timeline, parent, at } => {
                let fork = Some(Fork { parent, at });
                catalog.branch_put(&Branch { incarnation, timeline, fork, first_seen_at: Utc::now() }).await
            }
            Fact::Gap { incarnation, timeline, start, end, reason } => {
                let (store, seen_at) = (self.store.clone(), Utc::now());
                catalog.gap_put(&Gap { incarnation, store, timeline, start, end, reason, seen_at }).await
            }
            Fact::Head { head, pinned } => catalog.head_put(&self.store, &head, &pinned).await,
            Fact::Backup { .. } => Ok(()),
        }
    }

    /// Says of a target that the catalog knows from before what stands in the way, while nothing is known of its journal yet: a store that
    /// is away, or a database that is not there.
    async fn trouble(&self, progress: &Progress) -> Result<()> {
        match failure(progress, Utc::now()) {
            Some(failure) => {
                let state = state_of(progress.state).word();
                self.catalog.target_trouble(&self.database, &self.store, state, &failure).await
            }
            None => Ok(()),
        }
    }

    async fn snapshot(&self, progress: &Progress) -> Result<()> {
        if progress.incarnation.is_none() {
            // Nothing is known yet, not even that the database exists.
            return Ok(());
        }
        let now = Utc::now();
        let failure = failure(progress, now);
        self.catalog
            .target_put(&Target {
                database: self.database.clone(),
                store: self.store.clone(),
                url: self.url.clone(),
                state: state_of(progress.state).word().to_owned(),
                stored: progress.stored,
                updated_at: now,
                failure,
            })
            .await
    }
}

/// What stands in a target's way.
fn failure(progress: &Progress, now: DateTime<Utc>) -> Option<Failure> {
    progress.trouble.clone().map(|message| Failure { code: "FS-0001".to_owned(), message, at: now })
}

/// Whether the same would succeed once the catalog is back; a fact that it refuses as such is offered once.
fn is_away(kept: &Result<()>) -> bool {
    kept.as_ref().is_err_and(|why| matches!(why.retry(), Retry::Now | Retry::Backoff))
}

/// Says once that the catalog is away, until it is back.
#[derive(Default)]
struct Away(bool);

impl Away {
    fn after(&mut self, database: &DatabaseName, recorded: Result<()>) {
        match recorded {
            Ok(()) => self.0 = false,
            Err(why) if !self.0 => {
                self.0 = true;
                tracing::error!(database = %database, error = %why, "the catalog is away: shipping goes on, status is not recorded");
            }
            Err(_) => {}
        }
    }
}

fn state_of(state: PipelineState) -> ShippingState {
    match state {
        PipelineState::Setup => ShippingState::Setup,
        PipelineState::Connected => ShippingState::Connected,
        PipelineState::Accumulating => ShippingState::Accumulating,
        PipelineState::Bypass => ShippingState::Bypass,
        PipelineState::Degraded => ShippingState::Degraded,
        PipelineState::Fenced => ShippingState::Fenced,
        PipelineState::Failed => ShippingState::Failed,
    }
}

/// The one writer of how a database stands as a whole.
#[derive(Debug, Clone)]
pub struct StandingRecorder {
    /// The catalog.
    pub catalog: Catalog,
    /// The database.
    pub database: DatabaseName,
    /// How many targets must have a position for it to count as stored.
    pub required: usize,
    /// This node's name.
    pub node: String,
    /// Whether a base backup is taken because of a gap.
    pub refreshing: Refreshing,
    /// Its spool, where it has one.
    pub spool: Option<watch::Receiver<Spooled>>,
}

impl StandingRecorder {
    /// Records until cancelled, and then once more: how it ended.
    pub async fn run(
        self,
        targets: Vec<watch::Receiver<Progress>>,
        primary: watch::Receiver<PrimaryFacts>,
        cancel: CancellationToken,
    ) {
        let begun = Instant::now();
        let mut next = begun;
        let mut away = Away::default();
        if self.spool.is_none()
            && let Err(why) = self.catalog.spool_forget(&self.database).await
        {
            tracing::debug!(database = %self.database, error = %why, "the catalog still has a spool");
        }
        loop {
            let ended = tokio::select! {
                () = tokio::time::sleep_until(next) => false,
                () = cancel.cancelled() => true,
            };
            // Known before any store answers.
            if let Some(spool) = self.spooled()
                && let Err(why) = self.catalog.spool_put(&spool).await
            {
                tracing::debug!(database = %self.database, error = %why, "how the spool stands is not recorded");
            }
            let now: Vec<Progress> = targets.iter().map(|target| target.borrow().clone()).collect();
            if now.iter().any(|target| target.incarnation.is_some()) {
                let primary = primary.borrow().clone();
                let shipping = self.shipping(&now, &primary);
                // Another recorder's line says that the catalog is away; before the first fact came it knows no such database.
                let recorded = self.catalog.shipping_put(&shipping).await;
                let recorded = match primary.waits.filter(|_| recorded.is_ok()) {
                    Some(waits) => self.catalog.guard_put(&self.guard(waits)).await,
                    None => recorded,
                };
                match recorded {
                    Err(why) if !ended => {
                        tracing::debug!(database = %self.database, error = %why, "status is not recorded")
                    }
                    other => away.after(&self.database, other),
                }
            }
            if ended {
                return;
            }
            next = Instant::now() + if begun.elapsed() < FIRST { FIRST_BEATS } else { HEARTBEAT };
        }
    }

    fn spooled(&self) -> Option<Spool> {
        let Spooled { state, run, bytes, limit, trouble } = self.spool.as_ref()?.borrow().clone();
        Some(Spool {
            database: self.database.clone(),
            node: Some(self.node.clone()),
            state,
            bytes,
            limit,
            run: run.map(|run| (run.timeline, run.start, run.end)),
            trouble,
            told_at: Utc::now(),
        })
    }

    /// What is seen of commits that nobody lets go stands where a guard says it of others.
    fn guard(&self, waits: WaitsSeen) -> Guard {
        Guard {
            database: self.database.clone(),
            node: Some(self.node.clone()),
            phase: waits.phase,
            is_exposed: waits.phase != GuardPhase::Armed,
            exposed_since: waits.held_until,
            why: None,
            trouble: waits.trouble,
            looked_at: Some(waits.looked_at),
            told_at: Some(Utc::now()),
        }
    }

    fn shipping(&self, targets: &[Progress], primary: &PrimaryFacts) -> Shipping {
        let now = Utc::now();
        let standing = standing(targets, self.required);
        let timeline = standing.received.or(standing.stored).map(|position| position.timeline);
        let same_line = |position: Option<Position>| {
            position.filter(|position| Some(position.timeline) == timeline).map(|position| position.offset)
        };
        let stopped = matches!(standing.state, PipelineState::Fenced | PipelineState::Failed);
        // A promise that does not hold is not connected: without its slot the primary keeps nothing for us.
        let state = match standing.state {
            PipelineState::Connected if primary.trouble.is_some() => ShippingState::Degraded,
            PipelineState::Connected if primary.slot_awaited => ShippingState::Setup,
            PipelineState::Connected if self.refreshing.is_under_way() => ShippingState::Refreshing,
            state => state_of(state),
        };
        Shipping {
            database: self.database.clone(),
            state,
            timeline,
            received: standing.received.map(|position| position.offset),
            stored: same_line(standing.stored),
            reported: standing.reported,
            released: same_line(primary.released),
            // One that stopped for good hears the source no more, and says so for as long as nobody else writes here.
            source: standing.source_end.filter(|_| !stopped),
            // Figures of the moment they were measured in: after the last word nobody measures them.
            retained_bytes: primary.retained_bytes.filter(|_| !stopped),
            seconds_to_full: primary.seconds_to_full.filter(|_| !stopped),
            heartbeat: if stopped { LAST_WORD } else { HEARTBEAT },
            last_contact_at: if stopped { Some(now) } else { standing.last_contact },
            last_stored_commit_at: standing.last_stored_commit,
            oldest_unstored_commit_at: standing.oldest_unstored_commit,
            updated_at: now,
            node: Some(self.node.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_catalog::Options;
    use farshore_journal::{Offset, Timeline};

    #[test]
    fn a_last_word_carries_no_figure_that_somebody_would_have_to_measure() {
        let recorder = StandingRecorder {
            catalog: Catalog::unopened("sqlite:/nowhere/catalog.db", Options::default()).unwrap(),
            database: "orders".parse().unwrap(),
            required: 1,
            node: "oslo-1".to_owned(),
            refreshing: Refreshing::default(),
            spool: None,
        };
        let measured = PrimaryFacts {
            retained_bytes: Some(5 << 30),
            seconds_to_full: Some(7200),
            ..PrimaryFacts::default()
        };
        for (state, figures) in [
            (PipelineState::Connected, (Some(5 << 30), Some(7200))),
            (PipelineState::Failed, (None, None)),
            (PipelineState::Fenced, (None, None)),
        ] {
            let stored = Some(Position::new(Timeline::new(1), Offset::new(100)));
            let targets = [Progress { state, stored, ..Progress::default() }];
            let said = recorder.shipping(&targets, &measured);
            assert_eq!((said.retained_bytes, said.seconds_to_full), figures, "{state:?}");
        }
    }

    #[test]
    fn a_database_that_gets_a_base_backup_after_a_gap_is_refreshing_until_it_has_it_and_no_longer() {
        let recorder = StandingRecorder {
            catalog: Catalog::unopened("sqlite:/nowhere/catalog.db", Options::default()).unwrap(),
            database: "orders".parse().unwrap(),
            required: 1,
            node: "oslo-1".to_owned(),
            refreshing: Refreshing::default(),
            spool: None,
        };
        let state = |state, trouble: Option<&str>| {
            let targets = [Progress { state, ..Progress::default() }];
            let primary = PrimaryFacts { trouble: trouble.map(str::to_owned), ..PrimaryFacts::default() };
            recorder.shipping(&targets, &primary).state
        };
        assert_eq!(state(PipelineState::Connected, None), ShippingState::Connected);
        let under_way = recorder.refreshing.begin();
        assert_eq!(state(PipelineState::Connected, None), ShippingState::Refreshing);
        // What is worse is said.
        assert_eq!(state(PipelineState::Connected, Some("no slot")), ShippingState::Degraded);
        assert_eq!(state(PipelineState::Accumulating, None), ShippingState::Accumulating);
        drop(under_way);
        assert_eq!(state(PipelineState::Connected, None), ShippingState::Connected);
    }
}
