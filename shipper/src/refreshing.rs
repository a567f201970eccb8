//! Whether a base backup is being taken because a gap left none that leads to now: what `status` calls `refreshing`.
//!
//! Whoever takes it says so for as long as it holds its guard; whoever records how the database stands looks. A guard that is dropped, however that came, says no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One database's. Clones are of the same database.
#[derive(Debug, Clone, Default)]
pub struct Refreshing(Arc<AtomicUsize>);

/// A base backup that is being taken for that reason.
#[derive(Debug)]
pub struct UnderWay(Arc<AtomicUsize>);

impl Refreshing {
    /// One begins.
    pub fn begin(&self) -> UnderWay {
        self.0.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.0))
    }

    /// Whether one is under way.
    pub fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
