//! What can go wrong at a store, and what a caller may do about it.
//!
//! Always: `NotFound` is only ever the store's own word about one object; an error that is not ambiguous means that a
//! create made nothing. Texts never carry credentials: causes from the network are redacted before they get here.

use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Duration;

use super::key::{Key, KeyError};

/// What was asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opening the store itself.
    Open,
    /// Creating an object.
    Create,
    /// Reading an object or a range of it.
    Get,
    /// Asking for an object's length.
    Size,
    /// Listing objects.
    List,
    /// Deleting an object.
    Delete,
    /// Racing creators at a new store.
    Probe,
    /// Appending to a tail, making one or closing it.
    Append,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Get => "get",
            Self::Size => "size",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Probe => "probe",
            Self::Append => "append to",
        })
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// At once: nothing suggests that waiting helps.
    Now,
    /// After a growing, jittered pause.
    Backoff,
    /// When a human has changed something: credentials, space, settings. Keep trying slowly, and say so.
    Operator,
    /// Not at all: the same question will always get the same answer.
    Never,
}

/// A store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store says that this object is not there.
    #[error("there is no object {key}")]
    NotFound {
        /// The object asked for.
        key: Key,
    },
    /// The range is empty, or begins at or behind the end of the object.
    #[error("object {key} has no bytes {}..{}", .range.start, .range.end)]
    OutOfRange {
        /// The object asked for.
        key: Key,
        /// The range asked for.
        range: Range<u64>,
    },
    /// The store refused: credentials, rights, or an object lock.
    #[error("the store refused to {operation} {what}: {reason}")]
    Refused {
        /// What was asked.
        operation: Operation,
        /// The object or the store concerned.
        what: String,
        /// The store's reason, redacted.
        reason: String,
    },
    /// The bucket, container or root folder is not there: nothing can be said about any object in it.
    #[error("the store itself is not there ({operation}): {reason}")]
    NoStore {
        /// What was asked.
        operation: Operation,
        /// What is missing, redacted.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("the store could not be reached to {operation} {what}: {reason}")]
    Unreachable {
        /// What was asked.
        operation: Operation,
        /// The object or prefix concerned.
        what: String,
        /// The cause, redacted.
        reason: String,
        /// Whether the request may have taken effect.
        ambiguous: bool,
    },
    /// No answer within the deadline.
    #[error("the store gave no answer to {operation} {what} within {after:?}")]
    TimedOut {
        /// What was asked.
        operation: Operation,
        /// The object or prefix concerned.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// Whether the request may have taken effect.
        ambiguous: bool,
    },
    /// The store answered that it cannot now: throttling, an error of its own, or a conflicting request in flight.
    #[error("the store is too busy to {operation} {what}: {reason}")]
    Busy {
        /// What was asked.
        operation: Operation,
        /// The object or prefix concerned.
        what: String,
        /// The store's reason, redacted.
        reason: String,
        /// Whether the request may have taken effect.
        ambiguous: bool,
    },
    /// No space left, or a quota reached. Nothing became visible.
    #[error("no space left in the store for {key} ({bytes} bytes)")]
    Full {
        /// The object that did not fit.
        key: Key,
        /// Its length.
        bytes: u64,
    },
    /// The store does not keep its promises, so farshore must not use it.
    #[error("this store is not safe to use: {what}")]
    Unsafe {
        /// What was seen.
        what: String,
    },
    /// The operating system failed a file operation.
    #[error("{operation} {what}: {step} failed")]
    Io {
        /// What was asked.
        operation: Operation,
        /// The object or folder concerned.
        what: String,
        /// The step that failed.
        step: &'static str,
        /// The operating system's reason.
        #[source]
        source: io::Error,
        /// Whether the object may be there nevertheless.
        ambiguous: bool,
    },
    /// The address or an option of the store is not usable.
    #[error("store settings: {what}")]
    Settings {
        /// What is wrong, without values that may be secret.
        what: String,
    },
    /// The store answered with something it should not have.
    #[error("the store's answer to {operation} {what} makes no sense: {reason}")]
    Answer {
        /// What was asked.
        operation: Operation,
        /// The object or prefix concerned.
        what: String,
        /// What came back, redacted.
        reason: String,
        /// Whether the request may have taken effect.
        ambiguous: bool,
    },
    /// A name that is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl StoreError {
    /// What a caller may do about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotFound { .. } | Self::OutOfRange { .. } | Self::Unsafe { .. } | Self::Key(_) => {
                Retry::Never
            }
            Self::Refused { .. } | Self::NoStore { .. } | Self::Full { .. } | Self::Settings { .. } => {
                Retry::Operator
            }
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Busy { .. } | Self::Answer { .. } => {
                Retry::Backoff
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::Interrupted => Retry::Now,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Retry::Operator,
                _ => Retry::Backoff,
            },
        }
    }

    /// Whether a create or delete that failed this way may have taken effect, now or later.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Unreachable { ambiguous, .. }
            | Self::TimedOut { ambiguous, .. }
            | Self::Busy { ambiguous, .. }
            | Self::Answer { ambiguous, .. }
            | Self::Io { ambiguous, .. } => *ambiguous,
            Self::NotFound { .. }
            | Self::OutOfRange { .. }
            | Self::Refused { .. }
            | Self::NoStore { .. }
            | Self::Full { .. }
            | Self::Unsafe { .. }
            | Self::Settings { .. }
            | Self::Key(_) => false,
        }
    }

    /// Whether the store said that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
