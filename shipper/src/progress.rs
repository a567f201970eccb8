//! What a pipeline says of itself, for status, recorder and supervisor: one snapshot, replaced as a whole.

use chrono::{DateTime, Utc};
use farshore_journal::{BackupId, Generation, IncarnationId, Offset, Position, Sequence, Timeline};

/// Where a pipeline stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PipelineState {
    /// Finding the source and the journal's end, comparing.
    #[default]
    Setup,
    /// Log flows and the target confirms.
    Connected,
    /// The target does not take what was received.
    Accumulating,
    /// Nothing is followed, so that the source's disk is not filled while the target takes nothing.
    Bypass,
    /// The source is away, or a promise does not hold; the trouble says why.
    Degraded,
    /// Another shipper has the journal.
    Fenced,
    /// Stopped by a fault that needs an operator.
    Failed,
}

/// A pipeline's snapshot. `None` is "not known".
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Where it stands.
    pub state: PipelineState,
    /// The incarnation shipped.
    pub incarnation: Option<IncarnationId>,
    /// The cluster that the source is, by its system identifier.
    pub cluster: Option<u64>,
    /// This writer's generation.
    pub generation: Option<Generation>,
    /// The end of what was received.
    pub received: Option<Position>,
    /// The end of what the journal confirmed.
    pub stored: Option<Position>,
    /// What of it was compared with, or received from, the source of this session: only that may be released there.
    pub releasable: Option<Position>,
    /// Bytes of one of the source's log segments.
    pub segment_bytes: Option<u64>,
    /// The end of the last whole, checked record among what is stored.
    pub checked: Option<Offset>,
    /// Whether a stream of this process names the target's slot at the primary.
    pub streams: bool,
    /// What the primary was told is flushed.
    pub reported: Option<Offset>,
    /// The end of the source's log when it was last heard.
    pub source_end: Option<Offset>,
    /// When the source was last heard.
    pub last_contact: Option<DateTime<Utc>>,
    /// The time of the newest commit stored.
    pub last_stored_commit: Option<DateTime<Utc>>,
    /// The time of the oldest commit received and not stored.
    pub oldest_unstored_commit: Option<DateTime<Utc>>,
    /// The next chunk's number.
    pub next_sequence: Option<Sequence>,
    /// What stands in the way now.
    pub trouble: Option<String>,
    /// Why a base backup is due, when one is: a new journal, or a gap in it.
    pub base_due: Option<String>,
    /// Facts that the recorder could not take: the catalog then lacks them until it is rebuilt.
    pub facts_dropped: u64,
}

/// A fact for the catalog. The catalog gates nothing: a fact that cannot be delivered is counted, not waited for.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A journal is shipped to: its incarnation, as its store's record says.
    Incarnation(farshore_journal::format::body::IncarnationRecord),
    /// Chunks were stored without a hole.
    Stored {
        /// Whose journal.
        incarnation: IncarnationId,
        /// The timeline.
        timeline: Timeline,
        /// First byte.
        start: Offset,
        /// First byte behind them.
        end: Offset,
        /// The end of the last checked record.
        checked: Offset,
        /// First chunk.
        first: Sequence,
        /// Last chunk.
        last: Sequence,
        /// Commits that end in the range.
        commits: Vec<CommitFact>,
        /// Named points that end in the range.
        points: Vec<PointFact>,
    },
    /// A branch began.
    Branch {
        /// Whose journal.
        incarnation: IncarnationId,
        /// The new timeline.
        timeline: Timeline,
        /// The one it leaves.
        parent: Timeline,
        /// Where.
        at: Offset,
    },
    /// Bytes are gone for good.
    Gap {
        /// Whose journal.
        incarnation: IncarnationId,
        /// The timeline.
        timeline: Timeline,
        /// First missing byte.
        start: Offset,
        /// First byte that is there again.
        end: Offset,
        /// Why.
        reason: String,
    },
    /// The journal's head was signed, and stands in the store.
    Head {
        /// The head.
        head: Box<farshore_journal::format::Head>,
        /// The keys that count: what another one signed makes way in the catalog.
        pinned: farshore_journal::format::VerifyKeys,
    },
    /// A base backup is complete.
    Backup {
        /// Its id.
        backup: BackupId,
    },
}

/// A commit for the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitFact {
    /// Its record's first byte.
    pub start: Offset,
    /// First byte behind it.
    pub end: Offset,
    /// Microseconds since 1970 by the primary's clock.
    pub time_micros: i64,
    /// Its 64-bit transaction id.
    pub xid: u64,
}

/// A named restore point for the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointFact {
    /// Its record's end.
    pub end: Offset,
    /// Microseconds since 1970 by the primary's clock.
    pub time_micros: i64,
    /// Its name.
    pub name: String,
}
