//! Has base backups taken while the service runs, as they fall due.
//!
//! What always holds: each database has a task of its own, so that none waits for another's failure; within a database one
//! backup is taken at a time, so that two do not share the primary's disk; in the process [`AT_ONCE`] are, so that memory and
//! line stay bounded, and each of them ends ([`super::take`]). Whether one is due is asked of the store: at the start, and when
//! the journal's incarnation, timeline or gaps change. Where an `rto` is stated, the catalog is asked besides, once a minute, whether one is due for it
//! ([`super::objective`]); a catalog that does not answer makes none due. A database that is not shipped any more is left alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_journal::reader::Reader;
use farshore_journal::{DatabaseName, IncarnationId, Timeline};
use farshore_shipper::base_due::Due;
use farshore_shipper::line;
use farshore_shipper::progress::{PipelineState, Progress as Shipped};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::objective::{self, Asks, REST};
use super::{Asked, How, Process, STUCK, Streams, take};
use crate::config::{Config, StoreName};
use crate::wiring;

/// Backups at a time in the process: a second one, so that one that is slow or stuck does not keep all others waiting. Each
/// holds up to 150 MB.
const AT_ONCE: usize = 2;
/// How long after a failure it is tried again, at first and at most. At first soon: where there is no base backup yet, nothing
/// can be restored, and whoever waits for what is stored waits for it too.
const AGAIN_FIRST: Duration = Duration::from_secs(10);
const AGAIN_LONGEST: Duration = Duration::from_secs(3600);
/// How often it is asked what a recovery would take, and how long the catalog is given to answer.
const RECKONED: Duration = Duration::from_secs(60);
const ANSWERS: Duration = Duration::from_secs(10);

/// Looks after every database until cancelled.
pub async fn keep_taken(
    config: Arc<Config>,
    shown: Vec<(DatabaseName, watch::Receiver<Vec<Shipped>>)>,
    streams: Streams,
    catalog: Option<Catalog>,
    cancel: CancellationToken,
) {
    let streams = Arc::new(streams);
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (name, progress) in shown {
        let keeper = Keeper {
            config: Arc::clone(&config),
            name,
            streams: Arc::clone(&streams),
            catalog: catalog.clone(),
            at_once: Arc::clone(&at_once),
            cancel: cancel.clone(),
        };
        tasks.spawn(keeper.run(progress));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(why) = ended {
            tracing::error!(error = %why, "base backups of one database are no longer looked after");
        }
    }
}

/// What a store's answer depends on: while it stays, the answer does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    incarnation: IncarnationId,
    timeline: Option<Timeline>,
    /// What the pipeline said of gaps.
    hint: Option<String>,
}

impl Question {
    /// Of a target that ships; others are not asked about.
    fn of(target: &Shipped) -> Option<Self> {
        let incarnation = target.incarnation.filter(|_| target.state == PipelineState::Connected)?;
        let timeline = target.stored.map(|stored| stored.timeline);
        Some(Self { incarnation, timeline, hint: target.base_due.clone() })
    }
}

/// What is remembered of one target.
#[derive(Debug, Default)]
struct Memory {
    /// The question to which the answer was: none is due.
    settled: Option<Question>,
    /// Attempts since then, whatever came of them: each makes the pause before the next one longer.
    attempts: u32,
    /// Base backups that failed, one after the other.
    failed: u32,
    /// When that question is asked again. Another one is asked at once: a promotion that was followed, a gap that came.
    not_before: Option<(Question, Instant)>,
    /// When it is next asked what a recovery would take.
    reckoned_next: Option<Instant>,
    /// Attempts for the objective that failed one after the other.
    objective_failed: u32,
    /// What was last said of base backups that do not keep the objective.
    told: Option<Told>,
}

/// What is said once, until it is otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Recovery does not begin with the newest base backup.
    PassedOver,
    /// Recovery takes longer without any log.
    More,
}

impl Memory {
    fn is_open(&self, question: &Question, now: Instant) -> bool {
        let waits = self.not_before.as_ref().is_some_and(|(asked, until)| asked == question && now < *until);
        self.settled.as_ref() != Some(question) && !waits
    }

    fn settle(&mut self, question: Question) {
        (self.settled, self.attempts, self.failed, self.not_before) = (Some(question), 0, 0, None);
    }

    /// One was taken, or could not be.
    fn took(&mut self, is_complete: bool) {
        self.failed = if is_complete { 0 } else { self.failed.saturating_add(1) };
    }

    /// How one that is due is taken.
    fn how(&self, due: &Due) -> How {
        match due {
            // What went wrong once may lie in what was referred to. A store that did not say whether one is due says nothing of that.
            _ if self.failed > 0 => How::Full,
            Due::None => How::AsConfigured,
            Due::BehindGap(_) | Due::OffTheLine(_) => How::AfterGap,
        }
    }

    /// After an attempt that left it due, or not known to be settled, and took so long: the primary's disk rests for as long at
    /// least. One that succeeded is no reason to take the next at once.
    fn pause(&mut self, question: Question, took: Duration, now: Instant) {
        let pause = pause_after(self.attempts).max(took);
        self.attempts = self.attempts.saturating_add(1);
        self.not_before = now.checked_add(pause).map(|until| (question, until));
    }

    /// Whether it is time to reckon what a recovery would take: only where nothing else is due.
    fn is_reckoned(&self, question: &Question, now: Instant) -> bool {
        self.settled.as_ref() == Some(question) && self.reckoned_next.is_none_or(|next| now >= next)
    }
}

/// After so many attempts that failed.
fn pause_after(attempts: u32) -> Duration {
    AGAIN_FIRST.saturating_mul(1 << attempts.min(9)).min(AGAIN_LONGEST)
}

struct Keeper {
    config: Arc<Config>,
    name: DatabaseName,
    streams: Arc<Streams>,
    catalog: Option<Catalog>,
    at_once: Arc<Semaphore>,
    cancel: CancellationToken,
}

impl Keeper {
    /// Looks whenever it is shown how shipping stands, which is some times a second.
    async fn run(self, mut shown: watch::Receiver<Vec<Shipped>>) {
        let Some(settings) = self.config.databases.get(&self.name) else { return };
        let mut memories: Vec<Memory> = settings.stores.iter().map(|_| Memory::default()).collect();
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                // Whoever told of its shipping is gone: it is not shipped here any more.
                changed = shown.changed() => if changed.is_err() { return },
            }
            let targets = shown.borrow_and_update().clone();
            for ((target, store), memory) in targets.iter().zip(&settings.stores).zip(&mut memories) {
                let Some(question) = Question::of(target) else { continue };
                let now = Instant::now();
                if memory.is_open(&question, now) {
                    tokio::select! {
                        () = self.cancel.cancelled() => return,
                        () = self.look(store, question, memory) => {}
                    }
                } else if let Some(rto) = settings.rto.filter(|_| memory.is_reckoned(&question, now)) {
                    tokio::select! {
                        () = self.cancel.cancelled() => return,
                        () = self.keep_objective(store, rto.get(), memory) => {}
                    }
                }
            }
        }
    }

    /// Asks the store, and takes what is due.
    async fn look(&self, store: &StoreName, question: Question, memory: &mut Memory) {
        let begun = Instant::now();
        let due = match self.due(store, question.incarnation).await {
            Ok(Some(due)) => due,
            Ok(None) => return memory.settle(question),
            Err(why) => {
                tracing::warn!(database = %self.name, store = %store, error = %format!("{why:#}"), "it is not known whether a base backup is due");
                return memory.pause(question, begun.elapsed(), Instant::now());
            }
        };
        // Asked again at once: it is none if a gap or a promotion came meanwhile.
        let how = memory.how(&due);
        let streamed = self.streams.get(&self.name).filter(|_| matches!(due, Due::BehindGap(_)));
        let _refreshing = streamed.map(|streamed| streamed.refreshing.begin());
        let is_complete = self.take(store, &due.to_string(), Asked { label: &due.label(), how }).await;
        memory.took(is_complete);
        if is_complete && matches!(self.due(store, question.incarnation).await, Ok(None)) {
            return memory.settle(question);
        }
        memory.pause(question, begun.elapsed(), Instant::now());
    }

    /// Takes one; whether it is complete.
    async fn take(&self, store: &StoreName, reason: &str, asked: Asked<'_>) -> bool {
        let Ok(_place) = self.at_once.acquire().await else { return false };
        tracing::info!(database = %self.name, store = %store, reason, "a base backup is due");
        let process = Process { streams: &self.streams, catalog: self.catalog.as_ref() };
        match Box::pin(take(&self.config, &self.name, store, asked, process, STUCK, &|_| {})).await {
            Ok(backup) => {
                tracing::info!(database = %self.name, store = %store, backup = %backup.id, "a base backup is complete");
                true
            }
            Err(why) => {
                tracing::error!("{why}");
                false
            }
        }
    }

    /// Takes one, if the objective asks for it.
    async fn keep_objective(&self, store: &StoreName, rto: Duration, memory: &mut Memory) {
        let mut pause = RECKONED;
        match self.asks(store, rto).await {
            Asks::Nothing => memory.told = None,
            Asks::Unknown => {}
            Asks::PassedOver => {
                if memory.told.replace(Told::PassedOver) != Some(Told::PassedOver) {
                    tracing::warn!(
                        database = %self.name, store = %store,
                        "recovery would take longer than rto allows, and does not begin with the newest base backup: no other is taken for that; `farshore backup list` and `farshore verify` say what speaks against it"
                    );
                }
            }
            Asks::More { least, of } => {
                if memory.told.replace(Told::More) != Some(Told::More) {
                    tracing::warn!(
                        database = %self.name, store = %store,
                        "by its drills a recovery takes {} without any log to replay, where rto is {}: no base backup can keep that",
                        seconds(least), seconds(of)
                    );
                }
            }
            Asks::Backup { takes, of } => {
                let label = format!(
                    "taken because a recovery would have taken {} of {}",
                    seconds(takes),
                    seconds(of)
                );
                let reason = format!("a recovery would take {} where rto is {}", seconds(takes), seconds(of));
                let begun = Instant::now();
                let asked = Asked { label: &label, how: How::AsConfigured };
                let taken = self.take(store, &reason, asked).await;
                // Whether the catalog was told of it or not.
                pause = pause.max(begun.elapsed().saturating_mul(REST.unsigned_abs()));
                memory.objective_failed = if taken { 0 } else { memory.objective_failed.saturating_add(1) };
                pause = pause.max(pause_after(memory.objective_failed));
            }
        }
        memory.reckoned_next = Instant::now().checked_add(pause);
    }

    async fn asks(&self, store: &StoreName, rto: Duration) -> Asks {
        let Some(catalog) = &self.catalog else { return Asks::Unknown };
        let now = Utc::now();
        match tokio::time::timeout(ANSWERS, catalog.recovery(&self.name, now)).await {
            Ok(Ok(found)) => {
                let own = found.iter().find(|one| one.store == store.as_str());
                own.map_or(Asks::Unknown, |one| objective::asks(rto, one, now))
            }
            // Said by whoever keeps the catalog.
            Ok(Err(_)) | Err(_) => Asks::Unknown,
        }
    }

    /// What the store says. The incarnation that is shipped is asked about, whichever is the newest meanwhile.
    async fn due(&self, store: &StoreName, incarnation: IncarnationId) -> anyhow::Result<Option<Due>> {
        let asked = async {
            let repository = wiring::repository(&self.config, store).await?;
            let records = repository.incarnations(&self.name).await?;
            let Some(record) = records.iter().find(|record| record.incarnation == incarnation) else {
                anyhow::bail!("the store does not show the incarnation that is shipped");
            };
            let reader = Reader::new(&repository, record)?;
            Ok(line::due(&reader, record.segment_bytes).await?)
        };
        tokio::time::timeout(STUCK, asked).await?
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(timeline: u32, hint: Option<&str>) -> Question {
        Question {
            incarnation: IncarnationId::from_bytes([1; 16]),
            timeline: Some(Timeline::new(timeline)),
            hint: hint.map(str::to_owned),
        }
    }

    #[test]
    fn a_settled_question_is_asked_again_when_a_gap_or_a_timeline_comes() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        assert!(memory.is_open(&question(1, None), now));
        memory.settle(question(1, None));
        assert!(!memory.is_open(&question(1, None), now));
        assert!(memory.is_open(&question(1, Some("the log up to 0/500 is gone at the source")), now));
        assert!(memory.is_open(&question(2, None), now));
    }

    #[test]
    fn what_failed_is_tried_again_later_and_later_but_at_least_each_hour() {
        let (mut memory, begun) = (Memory::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            memory.pause(question(1, None), Duration::from_secs(1), begun);
            pauses.push(memory.not_before.clone().unwrap().1 - begun);
            assert!(!memory.is_open(&question(1, None), begun));
        }
        assert_eq!((pauses[0], pauses[1], pauses[11]), (AGAIN_FIRST, AGAIN_FIRST * 2, AGAIN_LONGEST));
        assert!(memory.is_open(&question(1, None), begun + AGAIN_LONGEST));
        assert!(memory.is_open(&question(2, None), begun), "a promotion was followed meanwhile");
    }

    #[test]
    fn one_is_taken_in_full_once_one_failed_and_not_because_nobody_knew_whether_it_is_due() {
        let (mut memory, begun) = (Memory::default(), Instant::now());
        let due = Due::OffTheLine(Timeline::new(2));
        memory.pause(question(1, None), Duration::ZERO, begun);
        assert_eq!(memory.how(&due), How::AfterGap);
        memory.took(false);
        assert_eq!(memory.how(&due), How::Full);
        memory.took(true);
        memory.pause(question(1, None), Duration::ZERO, begun);
        assert_eq!(memory.how(&due), How::AfterGap, "another gap came meanwhile");
    }

    #[test]
    fn a_base_backup_that_failed_late_leaves_the_primary_alone_for_as_long_as_it_took() {
        let (mut memory, begun) = (Memory::default(), Instant::now());
        memory.pause(question(1, None), Duration::from_secs(900), begun);
        assert_eq!(memory.not_before.clone().unwrap().1 - begun, Duration::from_secs(900));
    }
}
