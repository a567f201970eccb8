//! Looks at a journal's timelines and end, for all standbys of it together.
//!
//! What always holds: a look is at most as old as the interval, and there is one at a time: a hundred standbys ask a store as often as one does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::branches::{BranchError, Branches};
use crate::source::Source;

/// What was seen; nothing where the journal holds no log yet.
type Seen = Result<Option<Arc<Branches>>, Arc<BranchError>>;

/// Looks at one journal.
#[derive(Debug)]
pub(super) struct Looks {
    source: Source,
    every: Duration,
    last: Mutex<Option<(Instant, Seen)>>,
}

impl Looks {
    pub fn new(source: Source, every: Duration) -> Self {
        Self { source, every, last: Mutex::new(None) }
    }

    /// How the journal is, as of at most an interval ago.
    pub async fn now(&self) -> Seen {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        // One that began while this one waited is as good as one of its own, however long it took.
        if let Some((at, seen)) = &*last
            && (*at >= asked || at.elapsed() < self.every)
        {
            return seen.clone();
        }
        // As of when it began: what came meanwhile may not be in it.
        let at = Instant::now();
        let seen =
            Branches::read(self.source.reader()).await.map(|seen| seen.map(Arc::new)).map_err(Arc::new);
        *last = Some((at, seen.clone()));
        seen
    }
}
