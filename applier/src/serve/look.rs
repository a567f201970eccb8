//! Looks at a journal's timelines and end, for all standbys of it together.
//!
//! What always holds: a look is at most as old as the interval, and there is one at a time: a hundred standbys ask a store as often as one does. Who hears that something came looks
//! sooner, and yet not more often than [`SHARED`] lets him.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::branches::{BranchError, Branches};
use crate::source::Source;

/// What came within this time is looked at together: a look costs as much as reading a few chunks.
const SHARED: Duration = Duration::from_millis(10);

/// How long no chunk must have come before it is asked what a tail holds behind them.
const RESTS: Duration = Duration::from_secs(5);

/// What was seen; nothing where the journal holds no log yet.
type Seen = Result<Option<Arc<Branches>>, Arc<BranchError>>;

/// Looks at one journal.
#[derive(Debug)]
pub(super) struct Looks {
    source: Source,
    every: Duration,
    /// Another number whenever something came into the journal by this process; nobody says so where it is closed.
    came: watch::Receiver<u64>,
    /// That number when the last look began.
    looked: AtomicU64,
    last: Mutex<Option<Looked>>,
}

/// A look.
#[derive(Debug)]
struct Looked {
    /// When it began.
    at: Instant,
    seen: Seen,
    /// Since when the journal's chunks end where they do.
    rests: Instant,
    /// Whether it was asked since then what a tail holds behind them.
    is_settled: bool,
}

impl Looks {
    pub fn new(source: Source, every: Duration, came: watch::Receiver<u64>) -> Self {
        let looked = AtomicU64::new(*came.borrow());
        Self { source, every, came, looked, last: Mutex::new(None) }
    }

    /// How the journal is, as of at most an interval ago, and not before what came since.
    pub async fn now(&self) -> Seen {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        let came = *self.came.borrow();
        let is_new = self.looked.load(Ordering::Relaxed) != came;
        // One that began while this one waited is as good as one of its own, however long it took.
        if let Some(Looked { at, seen, .. }) = &*last
            && (*at >= asked || (at.elapsed() < self.every && !is_new))
        {
            return seen.clone();
        }
        // As of when it began: what came meanwhile may not be in it.
        let at = Instant::now();
        self.looked.store(came, Ordering::Relaxed);
        let reader = self.source.reader();
        // Chunks alone: whoever follows waits for no tail to become one. Only where none came for long it may be that nobody makes one of it any more.
        let former = last.as_ref().map(|last| (last.rests, last.is_settled));
        let is_due = former.is_some_and(|(rests, is_settled)| !is_settled && rests.elapsed() >= RESTS);
        let seen = if is_due { Branches::read(reader).await } else { Branches::of_chunks(reader).await };
        let seen: Seen = seen.map(|seen| seen.map(Arc::new)).map_err(Arc::new);
        let end = |seen: &Seen| seen.as_ref().ok()?.as_ref().map(|seen| seen.last.number);
        let moved = last.as_ref().is_none_or(|last| end(&last.seen) != end(&seen));
        let (rests, is_settled) = match former {
            Some((rests, is_settled)) if !moved => (rests, is_settled || is_due),
            _ => (at, false),
        };
        *last = Some(Looked { at, seen: seen.clone(), rests, is_settled });
        seen
    }

    /// Waits for so long, or until something came that no look has seen.
    pub async fn wait(&self, pause: Duration) {
        let mut came = self.came.clone();
        let woken = async {
            let new = came.wait_for(|count| *count != self.looked.load(Ordering::Relaxed)).await.map(drop);
            match new {
                Ok(()) => tokio::time::sleep(SHARED).await,
                // Nobody says so here.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = woken => {}
        }
    }
}
