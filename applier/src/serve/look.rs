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
    last: Mutex<Option<(Instant, Seen)>>,
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
        if let Some((at, seen)) = &*last
            && (*at >= asked || (at.elapsed() < self.every && !is_new))
        {
            return seen.clone();
        }
        // As of when it began: what came meanwhile may not be in it.
        let at = Instant::now();
        self.looked.store(came, Ordering::Relaxed);
        let seen =
            Branches::read(self.source.reader()).await.map(|seen| seen.map(Arc::new)).map_err(Arc::new);
        *last = Some((at, seen.clone()));
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
