//! A claim in hand: its work is done beside the beats that say that it lives, and then its end is said.
//!
//! What always holds: the catalog being away ends no work; that the job is another's now does. The end is said once, and tried again for a
//! while where the catalog is away. A process that dies here leaves a claim that falls silent.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_catalog::job::{Heard, JobEnd, JobId, JobKind, JobProgress};
use farshore_shipper::crash_point;
use tokio_util::sync::CancellationToken;

use super::{BEAT, cancelled, interrupted, taken};
use crate::message::OperatorMessage;

/// How often the end is said where it is not heard, and the pause between.
const SAYINGS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// Where work says how far it is.
#[derive(Debug, Clone, Default)]
pub struct Reporter(Arc<Mutex<JobProgress>>);

impl Reporter {
    /// Says how far it is; told with the next beat.
    pub fn say(&self, progress: JobProgress) {
        crash_point!("job-said");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    fn now(&self) -> JobProgress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A claim.
pub struct Held {
    /// Where it is recorded; `None`: nowhere.
    catalog: Option<Catalog>,
    id: JobId,
    kind: JobKind,
    attempt: u64,
    reporter: Reporter,
    /// Cancelled when the work is to end: for whatever reason.
    stop: CancellationToken,
    /// Cancelled when this process is to end.
    process: CancellationToken,
    lost: AtomicBool,
}

impl Held {
    /// A claim of this process, which ends when `process` is cancelled.
    pub fn new(
        catalog: Option<Catalog>,
        (id, kind, attempt): (JobId, JobKind, u64),
        process: &CancellationToken,
    ) -> Self {
        Self {
            catalog,
            id,
            kind,
            attempt,
            reporter: Reporter::default(),
            stop: process.child_token(),
            process: process.clone(),
            lost: AtomicBool::new(false),
        }
    }

    /// The job's name, where it is recorded.
    pub fn id(&self) -> Option<JobId> {
        self.catalog.as_ref().map(|_| self.id)
    }

    /// Where its work says how far it is.
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Cancelled when its work is to end at its next safe point.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Does the work beside the beats; `None` when it was stopped. Dropped where it waits, it must leave what [`super::left_behind`] says.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.stop.cancelled() => None,
            never = Box::pin(self.beats()) => match never {},
        }
    }

    async fn beats(&self) -> Infallible {
        let Some(catalog) = &self.catalog else { return std::future::pending().await };
        loop {
            match catalog.job_beat(self.id, self.attempt, &self.reporter.now(), Utc::now()).await {
                Ok(Heard::Goes | Heard::Gone) => {}
                Ok(Heard::Cancel) => self.stop.cancel(),
                Ok(Heard::Taken) => {
                    self.lost.store(true, Ordering::Relaxed);
                    self.stop.cancel();
                }
                Err(why) => tracing::debug!(job = %self.id, error = %why, "a job's progress is not recorded"),
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Why its work was stopped.
    pub fn stopped(&self) -> OperatorMessage {
        if self.lost.load(Ordering::Relaxed) {
            taken(self.kind)
        } else if self.process.is_cancelled() {
            interrupted(self.kind)
        } else {
            cancelled(self.kind)
        }
    }

    /// How a claim ends whose work was stopped: given back where another may begin it anew.
    pub fn stopped_end(&self, gives_back: bool) -> JobEnd {
        match self.process.is_cancelled() {
            true if gives_back && self.kind.is_repeatable() => JobEnd::GivenBack,
            true => JobEnd::Failed(json(&self.stopped())),
            false => JobEnd::Cancelled(json(&self.stopped())),
        }
    }

    /// Says how it ended.
    pub async fn end(self, end: JobEnd) {
        let Some(catalog) = &self.catalog else { return };
        if self.lost.load(Ordering::Relaxed) {
            return;
        }
        for saying in 1..=SAYINGS {
            match catalog.job_end(self.id, self.attempt, &end, Utc::now()).await {
                Ok(_) => return,
                Err(why) if saying == SAYINGS => {
                    tracing::warn!(job = %self.id, error = %why, "how the job ended is not in the catalog, which will call it silent");
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// A message as a job keeps it.
pub(super) fn json(message: &OperatorMessage) -> String {
    // Strings, a number and a truth value: there is nothing that could not be written.
    serde_json::to_string(message).unwrap_or_default()
}
