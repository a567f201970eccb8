//! Why a standby is not made, does not go on, or is not promoted.

use std::path::{Path, PathBuf};

use farshore_engines::sqlite::check::CheckError;
use farshore_engines::sqlite::decoder::RecordError;
use farshore_engines::sqlite::standby::{CopyError, Standing};
use farshore_journal::{IncarnationId, JournalError, Offset};

use super::{How, State};

/// Why a standby does not go on.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// Another process has the directory.
    #[error("another process has `{}`", .directory.display())]
    Busy {
        /// Which.
        directory: PathBuf,
    },
    /// The directory holds a restore's copy.
    #[error("`{}` holds {}{} (asked for: {asked}), and no standby", .directory.display(),
        if *.complete { "a copy that `farshore restore` made" } else { "what a `farshore restore` that was cut off left" },
        .transaction.map_or_else(String::new, |number| format!(" of transaction {number}")))]
    Restored {
        /// Which.
        directory: PathBuf,
        /// Whether the restore came to its end.
        complete: bool,
        /// What it was to restore.
        asked: String,
        /// The last transaction that is in it, if one is known.
        transaction: Option<u64>,
    },
    /// The directory holds something else.
    #[error("`{}` holds what is no standby's: {}", .directory.display(), shown(.names))]
    Foreign {
        /// Which.
        directory: PathBuf,
        /// What, by name.
        names: Vec<String>,
    },
    /// The directory holds no standby.
    #[error("`{}` holds no standby", .directory.display())]
    None {
        /// Which.
        directory: PathBuf,
    },
    /// The copy is not made yet.
    #[error("the standby in `{}` {}", .directory.display(), if *.running { "is being made" } else { "was not made to its end" })]
    Preparing {
        /// Which.
        directory: PathBuf,
        /// Whether a process makes it.
        running: bool,
    },
    /// The copy was promoted.
    #[error("the copy in `{}` was promoted: it is a database of its own", .directory.display())]
    Promoted {
        /// Which.
        directory: PathBuf,
    },
    /// Somebody else wrote to the copy, as a run found.
    #[error("somebody else wrote to the copy in `{}`, as was found at {at}: {found}", .directory.display())]
    Spoiled {
        /// Which.
        directory: PathBuf,
        /// What was found.
        found: String,
        /// When.
        at: String,
        /// Where the standby's own last transaction left it.
        standing: Box<Standing>,
    },
    /// The standby is of another journal.
    #[error("the standby in `{}` is of {what}", .directory.display())]
    OfAnother {
        /// Which.
        directory: PathBuf,
        /// Of what.
        what: String,
    },
    /// The copy's file is gone.
    #[error("the standby's copy `{}` is gone", .path.display())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// There is no place for the directory.
    #[error("`{}` cannot be made: its parent is not there", .directory.display())]
    NoParent {
        /// Which.
        directory: PathBuf,
    },
    /// What is said of the standby in its directory.
    #[error("what `{}` says of the standby cannot be read or kept: {source}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The store, or an object in it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Records that are none.
    #[error("the journal is damaged: {0}")]
    Damaged(#[from] RecordError),
    /// Log is missing.
    #[error("the journal has a gap behind {at}{}", .end.map_or_else(String::new, |end| format!(", up to {end}")))]
    Gap {
        /// Its first byte.
        at: Offset,
        /// The first byte behind it.
        end: Option<Offset>,
    },
    /// The journal ends before the copy.
    #[error("the journal ends at {end}, before the copy: its end was cut off, or it is another")]
    Cut {
        /// Where it ends.
        end: Offset,
    },
    /// The database began anew.
    #[error(
        "incarnation {number} ({incarnation}) of the database began at {created}: this one goes no further"
    )]
    Anew {
        /// Its number.
        number: u64,
        /// Its id.
        incarnation: IncarnationId,
        /// When, RFC 3339.
        created: String,
    },
    /// The journal's end is not reached.
    #[error("the journal grows as fast as it is read: something still ships transactions of the database")]
    Grows,
    /// The copy could not be brought to the journal's end.
    #[error("{why}")]
    Behind {
        /// Where it stands.
        standing: Box<Standing>,
        /// Bytes of log behind it, where that is known.
        left: Option<u64>,
        /// Why.
        why: Box<StandbyError>,
    },
    /// The copy is no whole database.
    #[error("the copy is no whole database: {0}")]
    Unsound(#[from] CheckError),
    /// The database is no file.
    #[error("a standby is built for SQLite databases only")]
    Engine,
    /// A worker ended without a result.
    #[error("the standby was cut off")]
    CutOff,
}

impl StandbyError {
    pub(super) fn spoiled(directory: &Path, state: &State) -> Self {
        let (found, at) = state.ended.clone().map_or_else(Default::default, |ended| (ended.what, ended.at));
        Self::Spoiled { directory: directory.to_owned(), found, at, standing: Box::new(state.now.clone()) }
    }

    /// What it means for the next run.
    pub(super) fn how(&self) -> How {
        match self {
            Self::Gap { .. } | Self::Cut { .. } => How::NoFurther,
            Self::Anew { .. } => How::Anew,
            Self::Spoiled { .. } | Self::Copy(CopyError::Written { .. }) => How::Spoiled,
            _ => How::Stopped,
        }
    }

    /// Whether it is about the journal, and the copy is as whole as it was.
    pub(super) fn is_of_the_journal(&self) -> bool {
        match self {
            Self::Journal(_) | Self::Damaged(_) | Self::Grows => true,
            other => matches!(other.how(), How::NoFurther | How::Anew),
        }
    }
}

/// A few names, and how many more there are.
fn shown(names: &[String]) -> String {
    const MOST: usize = 5;
    let more = names.len().saturating_sub(MOST);
    let shown: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
