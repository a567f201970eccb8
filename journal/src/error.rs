//! What can go wrong with a journal in a store, and what may be done about it.

use std::sync::Arc;

use crate::expired::ExpiredRun;
use crate::format::FormatError;
use crate::identity::{Generation, Sequence, WriterId};
use crate::position::Position;
use crate::store::{Key, KeyError, KeyPrefix, Retry, StoreError};

/// A journal could not be read, founded, taken over or appended to.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The store did not do what it was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object's bytes are not what was written.
    #[error("`{key}` is bad: {source}")]
    Object {
        /// The object.
        key: Key,
        /// What does not hold.
        source: FormatError,
    },
    /// An object's bytes say that it belongs elsewhere: it was moved, swapped, or copied from another store.
    #[error("`{key}` does not belong here: its {field} is another one's")]
    Misplaced {
        /// The object.
        key: Key,
        /// The field that differs from the name.
        field: &'static str,
    },
    /// A chunk names another predecessor than the chunk before it: it is not part of the journal.
    #[error("chunk {at} does not continue chunk {before}: one of them was replaced")]
    Broken {
        /// The chunk before.
        before: Sequence,
        /// The chunk that does not continue it.
        at: Sequence,
    },
    /// A number below the journal's end has no chunk.
    #[error("chunk {missing} is not in the store, but later ones are: the store lost it, or it was deleted")]
    Hole {
        /// The missing number.
        missing: Sequence,
    },
    /// A chunk was deleted because no rule kept it.
    #[error("chunk {number} has expired: no rule kept it, and it was deleted with the chunks up to {}", run.name.last)]
    Expired {
        /// The chunk.
        number: Sequence,
        /// What is known of it and its neighbours.
        run: Arc<ExpiredRun>,
    },
    /// More is stored than this process may read.
    #[error(
        "more is stored than may be read here: chunks end at {end}, and a tail whose owner does not answer holds log up to {held}; \
         this process may not make chunks of it: {why}. Run this as the user who owns the store's directory, or start its service or receiver"
    )]
    Unsettled {
        /// Where the chunks end.
        end: Position,
        /// Where the tail does.
        held: Position,
        /// Why not.
        why: String,
    },
    /// An incarnation's record is missing and later ones are there.
    #[error("`{key}` is not in the store, but later records are: the store lost it, or it was deleted")]
    RecordLost {
        /// The missing record.
        key: Key,
    },
    /// Objects of an incarnation are there, and no record says so: without it an older one would be taken for the current.
    #[error(
        "no incarnation record names `{folder}`, but it has objects: its record was deleted, or the store lost it"
    )]
    Unclaimed {
        /// The incarnation's folder.
        folder: KeyPrefix,
    },
    /// Another writer took the journal over.
    #[error(
        "another writer{} took this journal over at chunk {at}; this writer was generation {own}",
        named(by)
    )]
    Fenced {
        /// This writer's generation.
        own: Generation,
        /// The other's generation and name, where its chunk could be read.
        by: Option<(Generation, WriterId)>,
        /// Where.
        at: Sequence,
    },
    /// A chunk was confirmed so late that the confirmation proves nothing, or an earlier append of this writer was given up
    /// midway and landed.
    #[error(
        "what stands at chunk {at} proves nothing to this writer any more: the journal must be opened anew"
    )]
    OpenAnew {
        /// The chunk.
        at: Sequence,
    },
    /// The journal, the store record or an incarnation is of another store or database.
    #[error("the store's record says {found}, but {expected} was expected")]
    Another {
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// An object cannot be encoded.
    #[error("an object of kind {what} cannot be encoded: {source}")]
    Encode {
        /// Which.
        what: &'static str,
        /// Why.
        source: FormatError,
    },
    /// What was asked for is not in the journal, and provably never was.
    #[error("the journal does not hold {what}")]
    NotHeld {
        /// What was asked for.
        what: String,
    },
}

fn named(by: &Option<(Generation, WriterId)>) -> String {
    by.map_or_else(String::new, |(generation, writer)| format!(" (generation {generation}, {writer})"))
}

impl From<KeyError> for JournalError {
    fn from(why: KeyError) -> Self {
        Self::Store(StoreError::Key(why))
    }
}

impl JournalError {
    /// Whether an object is not what was written, or is not there, and nothing of the store's answer is in doubt.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Object { .. } | Self::Misplaced { .. } | Self::Hole { .. })
    }

    /// Whether what is stored cannot be opened with the private keys at hand, which says nothing against it.
    pub fn lacks_key(&self) -> bool {
        matches!(self, Self::Object { source: FormatError::KeyMissing | FormatError::Key { .. }, .. })
    }

    /// What a caller may do about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(why) => why.retry(),
            Self::OpenAnew { .. } => Retry::Now,
            Self::Object { .. }
            | Self::Misplaced { .. }
            | Self::Broken { .. }
            | Self::Hole { .. }
            | Self::Unsettled { .. }
            | Self::RecordLost { .. }
            | Self::Unclaimed { .. } => Retry::Operator,
            Self::Fenced { .. }
            | Self::Another { .. }
            | Self::Encode { .. }
            | Self::Expired { .. }
            | Self::NotHeld { .. } => Retry::Never,
        }
    }
}
