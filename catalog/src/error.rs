//! What can go wrong with the catalog, and what to do about it.
//!
//! Messages carry the catalog's address without its password, and never a bound value of a query.

use std::path::PathBuf;
use std::time::Duration;

use farshore_journal::{BackupId, DatabaseName, IncarnationId, ParseError, Timeline};

/// The result of a catalog call.
pub type Result<T> = std::result::Result<T, Error>;

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// At once: another writer was quicker.
    Now,
    /// After a pause: the catalog is away or busy.
    Backoff,
    /// After a human has changed something.
    Operator,
    /// The same call will always be refused.
    Never,
}

/// Why a catalog call did not do its work. Nothing of a failed call is kept, except that after [`Error::Deadline`]
/// of a commit it is not known whether it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configured address cannot name a catalog.
    #[error("the catalog address `{address}` is refused: {reason}")]
    Address {
        /// The address without its secrets.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The catalog's file could not be created or looked at.
    #[error("the catalog file {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file was deleted or another was put in its place; what would be written now would be lost.
    #[error("the catalog file {} was deleted or replaced while it was open; open the catalog anew", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// It was not opened yet.
    #[error("the catalog {address} is not open yet")]
    NotOpen {
        /// The address without its secrets.
        address: String,
    },
    /// No connection could be made.
    #[error("the catalog {address} cannot be reached")]
    Connect {
        /// The address without its secrets.
        address: String,
        /// What the client library said.
        #[source]
        source: sqlx::Error,
    },
    /// The tables could not be brought to this version.
    #[error("the catalog {address} cannot be brought to this version's tables")]
    Migrate {
        /// The address without its secrets.
        address: String,
        /// What the client library said.
        #[source]
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// A query was refused or its connection broke.
    #[error("the catalog query `{query}` failed")]
    Query {
        /// The function's name.
        query: &'static str,
        /// What the client library said.
        #[source]
        source: sqlx::Error,
    },
    /// No answer in time.
    #[error("the catalog query `{query}` had no answer within {} ms", deadline.as_millis())]
    Deadline {
        /// The function's name.
        query: &'static str,
        /// How long it waited.
        deadline: Duration,
    },
    /// A row holds what no version of farshore writes.
    #[error("the catalog holds something unreadable in column `{column}`: {reason}")]
    Corrupt {
        /// The column.
        column: &'static str,
        /// What was expected.
        reason: String,
    },
    /// A number does not fit a column.
    #[error("the {what} {value} is 2^63 or more, which no catalog can hold")]
    TooLarge {
        /// What the number means.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// What was to be written does not make sense by itself.
    #[error("the {what} is refused: {reason}")]
    Invalid {
        /// What was to be written.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The catalog does not know this database.
    #[error("the catalog knows no database `{name}`")]
    NoDatabase {
        /// The name asked for.
        name: DatabaseName,
    },
    /// The catalog does not know this incarnation.
    #[error("the catalog knows no incarnation {id}")]
    NoIncarnation {
        /// The id asked for.
        id: IncarnationId,
    },
    /// The catalog does not know this backup.
    #[error("the catalog knows no backup {id}")]
    NoBackup {
        /// The id asked for.
        id: BackupId,
    },
    /// The catalog does not know this token, or it was revoked already.
    #[error("the catalog knows no valid token `{name}`")]
    NoToken {
        /// The name or id asked for.
        name: String,
    },
    /// The catalog does not know this user.
    #[error("the catalog knows no user `{name}`")]
    NoUser {
        /// The name asked for.
        name: String,
    },
    /// Nobody would be left who may say who may ask.
    #[error("the user `{name}` is the last admin who may log in")]
    LastAdmin {
        /// The admin.
        name: String,
    },
    /// The timeline asked for is not among the ancestors of the one looked at.
    #[error("timeline {asked} is not in the history of timeline {of}")]
    NotInHistory {
        /// The timeline of the position asked for.
        asked: Timeline,
        /// The timeline whose history was searched.
        of: Timeline,
    },
    /// As much waits or runs as may.
    #[error("{unended} jobs of {about} wait or run already, and {most} is the most that may be asked for")]
    QueueFull {
        /// Of what.
        about: String,
        /// How many there are.
        unended: u64,
        /// How many there may be.
        most: u64,
    },
    /// What is recorded already contradicts what was to be written, or the old state was not the expected one.
    #[error("the {what} {name} is recorded otherwise already: {reason}")]
    Conflict {
        /// What was to be written.
        what: &'static str,
        /// Its name.
        name: String,
        /// The difference.
        reason: String,
    },
}

impl Error {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Query { source, .. } => match source {
                sqlx::Error::Database(refusal) if refusal.is_unique_violation() => Retry::Now,
                // What it belongs to is not recorded, as with `NoIncarnation`.
                sqlx::Error::Database(refusal) if refusal.is_foreign_key_violation() => Retry::Never,
                _ => Retry::Backoff,
            },
            Self::NotOpen { .. } | Self::Connect { .. } | Self::Deadline { .. } => Retry::Backoff,
            Self::Address { .. }
            | Self::File { .. }
            | Self::Gone { .. }
            | Self::Migrate { .. }
            | Self::Corrupt { .. } => Retry::Operator,
            Self::TooLarge { .. }
            | Self::Invalid { .. }
            | Self::NoDatabase { .. }
            | Self::NoIncarnation { .. }
            | Self::NoBackup { .. }
            | Self::NoToken { .. }
            | Self::NoUser { .. }
            | Self::LastAdmin { .. }
            | Self::NotInHistory { .. }
            | Self::QueueFull { .. }
            | Self::Conflict { .. } => Retry::Never,
        }
    }

    /// Whether the catalog itself is the trouble, rather than what was asked of it. Shipping goes on either way.
    pub fn is_away(&self) -> bool {
        self.retry() != Retry::Never
    }

    pub(crate) fn corrupt(column: &'static str, reason: impl ToString) -> Self {
        Self::Corrupt { column, reason: reason.to_string() }
    }

    pub(crate) fn unreadable(column: &'static str, error: &ParseError) -> Self {
        Self::corrupt(column, error)
    }
}
