//! The spool: log that the primary may let go before a store has it, in whole segments under PostgreSQL's own names.
//!
//! What always holds (`docs/adr/2026-11-29-the-spool.md`): nothing is called stored for being here; what the primary is made to let go on the
//! strength of it survives power loss, was compared with the source, and stays until every target has stored it.

pub mod decide;
pub mod disk;
pub mod files;
#[cfg(test)]
mod model;
#[cfg(test)]
mod power_loss;
pub mod task;

pub use farshore_catalog::spool::SpoolState;
use farshore_journal::{Offset, Timeline};

/// Segments of one timeline without a hole between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Their timeline.
    pub timeline: Timeline,
    /// The first one's first byte.
    pub start: Offset,
    /// The first byte behind the last.
    pub end: Offset,
}

impl Run {
    /// Whether what lies behind `offset` begins in it, or at its end.
    pub fn reaches(&self, offset: Offset) -> bool {
        self.start <= offset && offset <= self.end
    }
}

/// A spool's snapshot. `None` is "not known".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spooled {
    /// How it stands.
    pub state: SpoolState,
    /// The row of segments that it holds around the keep slot. Log is let go on the strength of it while log is taken: then it was compared.
    pub run: Option<Run>,
    /// Bytes of everything in its folders.
    pub bytes: Option<u64>,
    /// Bytes that it may hold, in the directories that are in use now.
    pub limit: u64,
    /// Why it does not take log, or lets none go.
    pub trouble: Option<String>,
}
