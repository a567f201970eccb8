//! A claim in hand: its work is done beside the beats that say that it lives, and then its end is said.
//!
//! What always holds: the catalog being away ends no work and holds none up; that the job is another's now ends it. A command says its end once, and
//! waits for the catalog no longer than `BRIEFLY`; a service says it until it is heard or must end itself. A process that dies here leaves a
//! claim that falls silent.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_catalog::job::{Claim, Heard, JobEnd, JobKind, JobProgress};
use farshore_shipper::crash_point;
use tokio_util::sync::CancellationToken;

use super::{BEAT, cancelled, interrupted, taken};
use crate::message::OperatorMessage;

/// The longest that a command waits for the catalog, which it could do without.
pub(super) const BRIEFLY: Duration = Duration::from_secs(2);
/// Between two times that a service says an end that was not heard.
const PAUSE: Duration = Duration::from_secs(2);

/// Who holds a claim: what waiting for the catalog costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A command, whose user waits.
    Command,
    /// A service, which has time.
    Service,
}

/// Where work says how far it is.
#[derive(Debug, Clone, Default)]
pub struct Reporter(Arc<Mutex<Pace>>);

/// How far work is, and since when its phase goes on.
#[derive(Debug, Default)]
struct Pace {
    said: JobProgress,
    /// When the phase was first said, and how many bytes were done then.
    began: Option<(Instant, u64)>,
}

impl Pace {
    /// Takes what is said. How long the phase takes yet is reckoned where whoever says it does not know better, and all of it is known.
    fn take(&mut self, mut progress: JobProgress, now: Instant) {
        if progress.phase != self.said.phase {
            self.began = None;
        }
        let done = progress.done_bytes.unwrap_or(0);
        let (began, from) = *self.began.get_or_insert((now, done));
        if let (None, Some(total)) = (progress.eta, progress.total_bytes) {
            let (came, left) = (done.saturating_sub(from), total.saturating_sub(done));
            #[allow(clippy::cast_precision_loss)] // an estimate
            let eta = (now - began).as_secs_f64() * (left as f64) / (came as f64);
            progress.eta = (came > 0).then(|| Duration::try_from_secs_f64(eta).ok()).flatten();
        }
        self.said = progress;
    }
}

impl Reporter {
    /// Says how far it is; told with the next beat.
    pub fn say(&self, progress: JobProgress) {
        crash_point!("job-said");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(progress, Instant::now());
    }

    fn now(&self) -> JobProgress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).said.clone()
    }
}

/// A claim.
pub struct Held {
    /// Where it is recorded; `None`: nowhere.
    catalog: Option<Catalog>,
    claim: Claim,
    kind: JobKind,
    patience: Patience,
    reporter: Reporter,
    /// Cancelled when the work is to end: for whatever reason.
    stop: CancellationToken,
    /// Cancelled when this process is to end.
    process: CancellationToken,
    lost: AtomicBool,
    wished: AtomicBool,
}

impl Held {
    /// A claim of this process, which ends when `process` is cancelled.
    pub fn new(
        catalog: Option<Catalog>,
        (claim, kind): (Claim, JobKind),
        patience: Patience,
        process: &CancellationToken,
    ) -> Self {
        Self {
            catalog,
            claim,
            kind,
            patience,
            reporter: Reporter::default(),
            stop: process.child_token(),
            process: process.clone(),
            lost: AtomicBool::new(false),
            wished: AtomicBool::new(false),
        }
    }

    /// Where its work says how far it is.
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Does the work beside the beats; `None` when it was stopped. Dropped where it waits, it must leave what `left_behind` says.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.stop.cancelled() => None,
            never = Box::pin(self.beats()) => match never {},
        }
    }

    /// Cancelled when its work is to end at its next safe point.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Does the work beside the beats to its own end, which it comes to by itself once [`stop`](Self::stop) is cancelled.
    pub async fn to_its_end<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = Box::pin(self.beats()) => match never {},
        }
    }

    async fn beats(&self) -> Infallible {
        let Some(catalog) = &self.catalog else { return std::future::pending().await };
        loop {
            match catalog.job_beat(&self.claim, &self.reporter.now(), Utc::now()).await {
                Ok(Heard::Goes | Heard::Gone) => {}
                Ok(Heard::Cancel) => {
                    self.wished.store(true, Ordering::Relaxed);
                    self.stop.cancel();
                }
                Ok(Heard::Taken) => {
                    self.lost.store(true, Ordering::Relaxed);
                    self.stop.cancel();
                }
                Err(why) => {
                    tracing::debug!(job = %self.claim.id, error = %why, "a job's progress is not recorded");
                }
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Why its work was stopped.
    fn stopped(&self) -> OperatorMessage {
        if self.lost.load(Ordering::Relaxed) {
            taken(self.kind)
        } else if self.wished.load(Ordering::Relaxed) {
            cancelled(self.kind)
        } else {
            interrupted(self.kind)
        }
    }

    /// Says that its work was stopped, and what it left: a service gives back what another may begin anew.
    pub async fn end_stopped(self) {
        let why = self.stopped();
        tracing::warn!(job = %self.claim.id, "{why}");
        let gives_back = self.patience == Patience::Service && self.kind.is_repeatable();
        let end = match self.wished.load(Ordering::Relaxed) {
            true => JobEnd::Cancelled(json(&why)),
            false if gives_back => JobEnd::GivenBack,
            false => JobEnd::Failed(json(&why)),
        };
        self.end(end).await;
    }

    /// Says what came of it.
    pub async fn end_done(self, done: Result<String, OperatorMessage>) {
        let end = match done {
            Ok(result) => JobEnd::Succeeded(result),
            Err(why) => JobEnd::Failed(json(&why)),
        };
        self.end(end).await;
    }

    /// Takes it back: nothing of it was begun, and nobody need hear of it.
    pub async fn end_withdrawn(self) {
        let Some(catalog) = self.catalog.as_ref().filter(|_| !self.lost.load(Ordering::Relaxed)) else {
            return;
        };
        match tokio::time::timeout(BRIEFLY, catalog.job_withdraw(&self.claim)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(job = %self.claim.id, "that it was not begun is not in the catalog, which is away and will call it silent");
            }
        }
    }

    /// Says how it ended.
    async fn end(self, end: JobEnd) {
        let Some(catalog) = &self.catalog else { return };
        if self.lost.load(Ordering::Relaxed) {
            return;
        }
        loop {
            let is_last = self.patience == Patience::Command || self.process.is_cancelled();
            let saying = catalog.job_end(&self.claim, &end, Utc::now());
            let said = match is_last {
                true => tokio::time::timeout(BRIEFLY, saying).await.ok(),
                false => Some(saying.await),
            };
            match said {
                Some(Ok(Heard::Goes | Heard::Cancel)) => return,
                Some(Ok(Heard::Taken | Heard::Gone)) => {
                    tracing::warn!(job = %self.claim.id, "how the job ended is in no catalog: it is another's now, or the catalog is another one");
                    return;
                }
                _ if is_last => {
                    tracing::warn!(job = %self.claim.id, "how the job ended is not in the catalog, which is away and will call it silent");
                    return;
                }
                // Said again until it is heard: hours of work would be done again.
                _ => tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = self.process.cancelled() => {}
                },
            }
        }
    }
}

/// A message as a job keeps it: without what a server may have said behind its first line, which could hold statements.
pub(super) fn json(message: &OperatorMessage) -> String {
    let first = message.happened.lines().next().unwrap_or_default().to_owned();
    let message = OperatorMessage { happened: first, ..message.clone() };
    // Strings, a number and a truth value: there is nothing that could not be written.
    serde_json::to_string(&message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_phase_takes_yet_is_reckoned_from_its_own_pace_and_not_where_all_of_it_is_not_known() {
        let began = Instant::now();
        let mut pace = Pace::default();
        let mut eta = |phase: &str, done, total, at| {
            let said = JobProgress {
                phase: Some(phase.to_owned()),
                done_bytes: Some(done),
                total_bytes: total,
                ..JobProgress::default()
            };
            pace.take(said, began + Duration::from_secs(at));
            pace.said.eta
        };
        assert_eq!(eta("waiting", 0, Some(1000), 0), None);
        assert_eq!(eta("copying", 100, Some(1000), 60), None, "nothing came yet");
        assert_eq!(eta("copying", 400, Some(1000), 90), Some(Duration::from_secs(60)));
        assert_eq!(eta("copying", 500, None, 95), None);
        assert_eq!(eta("completing", 1000, Some(1000), 100), None);
        let known = JobProgress { eta: Some(Duration::from_secs(7)), ..JobProgress::default() };
        pace.take(known, began);
        assert_eq!(pace.said.eta, Some(Duration::from_secs(7)));
    }
}
