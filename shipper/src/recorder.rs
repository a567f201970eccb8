//! Carries facts and snapshots into the catalog.
//!
//! What always holds: the catalog gates nothing. When it is away, facts wait here up to a bound, then are counted as dropped;
//! the store holds them all, and `catalog rebuild` brings them back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::branch::{Branch, Fork};
use farshore_catalog::commit::Commit;
use farshore_catalog::database::Database;
use farshore_catalog::gap::Gap;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::mark::{Mark, MarkKind};
use farshore_catalog::range::JournalRange;
use farshore_catalog::shipping::{Shipping, ShippingState};
use farshore_catalog::target::{Failure, Target};
use farshore_catalog::{Catalog, Result};
use farshore_journal::{DatabaseName, Position};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::progress::{Fact, PipelineState, Progress};

/// Facts that may wait for the catalog: at the default flush interval about three minutes of them.
pub const FACTS_WAITING: usize = 1024;
/// How often the snapshot is written: the heartbeat that `status` measures silence by.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// What the primary's watch learnt.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrimaryFacts {
    /// What it was told it may recycle, on the timeline shipped.
    pub released: Option<Position>,
    /// Bytes of log it keeps for us.
    pub retained_bytes: Option<u64>,
    /// Seconds until its disk is full at the present rate.
    pub seconds_to_full: Option<u64>,
}

/// One database's recorder.
pub struct Recorder {
    /// The catalog.
    pub catalog: Catalog,
    /// The database.
    pub database: DatabaseName,
    /// The target's name.
    pub store: String,
    /// The target's address, without secrets.
    pub url: String,
    /// This node's name.
    pub node: String,
}

impl Recorder {
    /// Records until cancelled, then what still waits.
    pub async fn run(
        self,
        mut facts: mpsc::Receiver<Fact>,
        mut progress: watch::Receiver<Progress>,
        primary: watch::Receiver<PrimaryFacts>,
        cancel: CancellationToken,
    ) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut away = false;
        loop {
            let recorded = tokio::select! {
                biased;
                fact = facts.recv() => match fact {
                    Some(fact) => self.keep(fact).await,
                    None => return,
                },
                _ = beat.tick() => {
                    let (progress, primary) = (progress.borrow_and_update().clone(), *primary.borrow());
                    self.snapshot(&progress, &primary).await
                }
                () = cancel.cancelled() => {
                    facts.close();
                    while let Some(fact) = facts.recv().await {
                        // The store holds the fact; the next start or a rebuild brings it back.
                        if self.keep(fact).await.is_err() {
                            return;
                        }
                    }
                    return;
                }
            };
            match recorded {
                Ok(()) => away = false,
                Err(why) if !away => {
                    away = true;
                    tracing::error!(database = %self.database, error = %why, "the catalog is away: shipping goes on, status is not recorded");
                }
                Err(_) => {}
            }
        }
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
                catalog
                    .range_extend(&JournalRange {
                        incarnation,
                        store: self.store.clone(),
                        timeline,
                        start,
                        end,
                        checked_end: checked.max(start).min(end),
                        first_sequence: first,
                        last_sequence: last,
                    })
                    .await?;
                if !commits.is_empty() {
                    catalog.commit_insert(incarnation, &commits).await?;
                }
                for point in points {
                    let Some(time) = DateTime::from_timestamp_micros(point.time_micros) else { continue };
                    catalog
                        .mark_put(&Mark {
                            incarnation,
                            kind: MarkKind::RestorePoint,
                            name: point.name,
                            position: Position::new(timeline, point.end),
                            time,
                            note: String::new(),
                            held_until: None,
                        })
                        .await?;
                }
                Ok(())
            }
            Fact::Branch { incarnation, timeline, parent, at } => {
                let fork = Some(Fork { parent, at });
                catalog.branch_put(&Branch { incarnation, timeline, fork, first_seen_at: Utc::now() }).await
            }
            Fact::Gap { incarnation, timeline, start, end, reason } => {
                let (store, seen_at) = (self.store.clone(), Utc::now());
                catalog.gap_put(&Gap { incarnation, store, timeline, start, end, reason, seen_at }).await
            }
            Fact::Backup { .. } => Ok(()),
        }
    }

    async fn snapshot(&self, progress: &Progress, primary: &PrimaryFacts) -> Result<()> {
        if progress.incarnation.is_none() {
            // Nothing is known yet, not even that the database exists.
            return Ok(());
        }
        let now = Utc::now();
        let state = match progress.state {
            PipelineState::Setup => ShippingState::Setup,
            PipelineState::Connected => ShippingState::Connected,
            PipelineState::Accumulating => ShippingState::Accumulating,
            PipelineState::Degraded => ShippingState::Degraded,
            PipelineState::Fenced => ShippingState::Fenced,
            PipelineState::Failed => ShippingState::Failed,
        };
        let same_line = |position: Option<Position>| {
            position.filter(|p| progress.received.is_none_or(|r| r.timeline == p.timeline)).map(|p| p.offset)
        };
        let timeline = progress.received.or(progress.stored).map(|position| position.timeline);
        self.catalog
            .shipping_put(&Shipping {
                database: self.database.clone(),
                state,
                timeline,
                received: progress.received.map(|p| p.offset),
                stored: same_line(progress.stored),
                reported: progress.reported,
                released: same_line(primary.released),
                source: progress.source_end,
                retained_bytes: primary.retained_bytes,
                seconds_to_full: primary.seconds_to_full,
                heartbeat: HEARTBEAT,
                last_contact_at: progress.last_contact,
                last_stored_commit_at: progress.last_stored_commit,
                oldest_unstored_commit_at: progress.oldest_unstored_commit,
                updated_at: now,
                node: Some(self.node.clone()),
            })
            .await?;
        let failure =
            progress.trouble.clone().map(|message| Failure { code: "FS-0001".to_owned(), message, at: now });
        self.catalog
            .target_put(&Target {
                database: self.database.clone(),
                store: self.store.clone(),
                url: self.url.clone(),
                state: state.word().to_owned(),
                stored: progress.stored,
                updated_at: now,
                failure,
            })
            .await
    }
}
