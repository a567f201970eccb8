//! Why shipping to a target stopped, and whether it may begin again by itself.

use std::time::Duration;

use farshore_engines::log::LogError;
use farshore_engines::postgres::{log, wire};
use farshore_engines::sqlite::stream as sqlite;
use farshore_engines::stream;
use farshore_journal::store::Retry;
use farshore_journal::{JournalError, Offset, Position, Timeline};

/// Shipping to one target stopped.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The source did not do what it was asked.
    #[error("source: {0}")]
    Source(#[from] wire::Error),
    /// A SQLite database cannot be followed, or not from where the journal ends.
    #[error("source: {0}")]
    Followed(#[from] sqlite::Error),
    /// The journal could not be read, taken over or appended to.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// The source sent log that is not log.
    #[error("the source's log does not decode: {0}")]
    Decode(#[from] LogError),
    /// A timeline history of the source does not read.
    #[error("the source's timeline history does not read: {0}")]
    History(#[from] log::history::HistoryError),
    /// The source's shape is not one that can be shipped.
    #[error("the source cannot be shipped: {0}")]
    Shape(#[from] log::ShapeError),
    /// No host of the database's takes writes.
    #[error("none of the hosts {hosts} is a primary that takes writes")]
    NoPrimary {
        /// The hosts asked.
        hosts: String,
    },
    /// The store is empty, though it was shipped into before: a mount that is away, or a wrong address. It is not founded anew.
    #[error(
        "the store is away: {found}, but this database was shipped to this store before ({witness}). Mount it or correct its address; if what it held is lost for good, give it another name in the configuration, and remove what bears witness of it"
    )]
    StoreAway {
        /// What is missing there.
        found: String,
        /// Who knows of it.
        witness: String,
    },
    /// The source ends before the journal does, with the same bytes up to there: a copy that lags, or a primary that has
    /// not recovered yet. Nothing is concluded; it is waited for.
    #[error(
        "the source ends at {source_end}, but the journal holds {stored}: waiting for the source to catch up"
    )]
    Behind {
        /// Where the source ends.
        source_end: Position,
        /// Where the journal ends.
        stored: Position,
    },
    /// The source is on a timeline that the journal's has left behind: an old primary.
    #[error(
        "the source is on timeline {source_timeline}, the journal has gone on with timeline {journal_timeline}: this may be an old primary"
    )]
    OldPrimary {
        /// The source's timeline.
        source_timeline: Timeline,
        /// The journal's.
        journal_timeline: Timeline,
    },
    /// The source's history cannot be the journal's.
    #[error("the source's timeline history and the journal's cannot be one")]
    Stranger,
    /// The source says that log is gone which, by its own account, it still has.
    #[error("the source says that its log at {stored} is gone, where its present log segment begins")]
    NothingToCompare {
        /// Where the journal ends.
        stored: Position,
    },
    /// The journal's end gives nothing to compare the source with.
    #[error("the journal ends with chunk {last}, behind which there is nothing to compare the source with")]
    Incomparable {
        /// The last chunk.
        last: farshore_journal::Sequence,
    },
    /// The source's bytes differ from what is stored: another history under the same name.
    #[error("the source's log differs from the journal between {from} and {to}")]
    Conflict {
        /// First byte of the range that differs.
        from: Position,
        /// First byte behind it.
        to: Offset,
    },
    /// The target did not take what was received, and no more may be kept in memory.
    #[error("the target takes nothing: shipping pauses until it does, the primary keeps its log")]
    TargetStalled,
    /// The target takes nothing, and the log that the database keeps for us is as large as it may become.
    #[error(
        "the target took nothing for {} seconds, and the database's own log grew to {bytes} bytes, more than wal_limit: it was let go. What was received is stored once \
         the target takes it; if the database's log was begun anew by then, a new incarnation begins with a base backup", .waited.as_secs()
    )]
    LetGo {
        /// How large it was.
        bytes: u64,
        /// For how long nothing was taken.
        waited: Duration,
    },
    /// The primary may have been made to let go of log because the spool had it, and the spool does not say now what it has.
    #[error(
        "the log from {from} to {to} is not at the primary any more, and the spool does not answer for it: {wrong}. What is stored is untouched. Mount its directory or put its files back; a file that does not \
         read is removed once it is given up{}", if *holds { "" } else { "; after ten minutes the gap is recorded, as on_full = \"bypass\" asks" }
    )]
    SpoolLacks {
        /// Where the journal ends.
        from: Position,
        /// From where on the primary has log.
        to: Offset,
        /// What is wrong with the spool.
        wrong: String,
        /// Whether it is waited for without an end.
        holds: bool,
    },
    /// The journal's end is not where it was read: it was appended to meanwhile. It is read and compared anew.
    #[error("the journal was appended to while it was compared; it is compared anew")]
    JournalMoved,
    /// Another server answered in the midst of a session than the one it began with.
    #[error("another server answers than the one the session began with; it begins anew")]
    SourceChanged,
    /// A sibling of the pipeline ended without a word.
    #[error("the {what} task ended unexpectedly")]
    TaskEnded {
        /// Which.
        what: &'static str,
    },
}

impl ShipError {
    /// What the supervisor does about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Source(why) => match why.retry() {
                wire::Retry::Now => Retry::Now,
                wire::Retry::Backoff => Retry::Backoff,
                wire::Retry::Operator => Retry::Operator,
                wire::Retry::Never => Retry::Never,
            },
            Self::Followed(_) => Retry::Backoff,
            Self::Journal(why) => why.retry(),
            Self::Decode(_)
            | Self::NoPrimary { .. }
            | Self::Behind { .. }
            | Self::TargetStalled
            | Self::LetGo { .. } => Retry::Backoff,
            Self::Stranger
            | Self::Incomparable { .. }
            | Self::History(_)
            | Self::Shape(_)
            | Self::OldPrimary { .. }
            | Self::StoreAway { .. }
            | Self::SpoolLacks { .. }
            | Self::Conflict { .. } => Retry::Operator,
            Self::TaskEnded { .. }
            | Self::JournalMoved
            | Self::SourceChanged
            | Self::NothingToCompare { .. } => Retry::Backoff,
        }
    }

    /// Whether another shipper has taken the journal over.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Fenced { .. }))
    }
}

impl From<stream::Error> for ShipError {
    fn from(why: stream::Error) -> Self {
        match why {
            stream::Error::Postgres(why) => Self::Source(why),
            stream::Error::Sqlite(why) => Self::Followed(why),
        }
    }
}
