//! Answers a server's `restore_command`: a log segment or a history file, from the journal.
//!
//! What always holds: [`Fetched::NotThere`] is said only when the journal, whose last chunk was seen to continue the one before
//! it, ends before the file's first byte or never had that timeline; everything else that is not a whole answer is an error, and
//! a server given an error stops instead of ending its recovery early. A file appears under its name whole and durable,
//! or not at all.
//!
//! **The last segment, in part.** A server refuses a file that is not of a segment's size. It reads records until one does not check, so
//! zeros behind the last byte are the end of the log to it, as in a file of its own: no commit that the journal
//! holds is withheld, and none is made up. A standby asks again for the same name when more has come. Were the part
//! answered with "not there", recovery would end before commits that are stored.
//! Source: `RestoreArchivedFile`, src/backend/access/transam/xlogarchive.c.

use std::io::Write;
use std::path::{Path, PathBuf};

use farshore_engines::log::Shape;
use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::log::file_name::{FileNameError, LogFileName, SegmentName};
use farshore_journal::{JournalError, Offset, Timeline};

use crate::branches::{BranchError, Branches};
use crate::log::{LogReader, Next};
use crate::source::Source;

/// The folder beside the destination for segments that were fetched ahead.
pub const SPOOL: &str = "farshore-prefetch";

/// How a fetch ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The file is at the destination.
    Found {
        /// Bytes of log in it: less than its length in the journal's last segment.
        log_bytes: u64,
        /// Whether it had been fetched ahead.
        ahead: bool,
    },
    /// The journal provably does not hold it.
    NotThere,
}

/// Doubt: whatever is not known to be there or not to be.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The name is none of the log's.
    #[error(transparent)]
    Name(#[from] FileNameError),
    /// Another engine's log has no files that a server asks for.
    #[error("the log is of engine `{engine}`: only PostgreSQL asks for its files")]
    Engine {
        /// Which.
        engine: String,
    },
    /// The store, or an object in it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The timelines.
    #[error("the journal's timelines make no sense: {why}")]
    Timelines {
        /// How.
        why: String,
    },
    /// The journal holds nothing yet: it says nothing of any file.
    #[error("the journal is empty")]
    Empty,
    /// The journal holds log behind it, but not it.
    #[error("the journal does not hold the log from {at} on, but holds later log")]
    Gap {
        /// The first missing byte.
        at: Offset,
    },
    /// The destination.
    #[error("cannot {what} `{}`", .path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
}

/// A fetched file's content.
enum Content {
    Segment { bytes: Vec<u8>, log_bytes: u64 },
    History(Vec<u8>),
    NotThere,
}

/// Fetches `name` to `destination`. Up to `ahead` following segments are fetched meanwhile into [`SPOOL`] beside it, where the next
/// call finds them; only whole segments are kept there.
///
/// # Errors
/// [`FetchError`]: doubt. The destination is then not there.
pub async fn fetch(
    source: &Source,
    name: &str,
    destination: &Path,
    ahead: u32,
) -> Result<Fetched, FetchError> {
    let Shape::Postgres(shape) = source.shape() else {
        return Err(FetchError::Engine { engine: source.record().engine.clone() });
    };
    let length = shape.segment_bytes;
    let wanted = LogFileName::parse(name, length)?;
    let spool = destination.parent().unwrap_or(Path::new(".")).join(SPOOL);
    if let LogFileName::Segment(_) = wanted {
        let there = spool.join(name);
        let whole = std::fs::metadata(&there).is_ok_and(|found| found.len() == length.get());
        if whole {
            std::fs::rename(&there, destination).map_err(io("move", &there))?;
            return Ok(Fetched::Found { log_bytes: length.get(), ahead: true });
        }
    }
    let branches = Branches::read(source.reader()).await.map_err(|why| match why {
        BranchError::Journal(why) => FetchError::Journal(why),
        other => FetchError::Timelines { why: other.to_string() },
    })?;
    let Some(branches) = branches else { return Err(FetchError::Empty) };
    let content = match wanted {
        LogFileName::History(timeline) => history(&branches, timeline)?,
        LogFileName::Segment(segment) => {
            let (now, ()) = tokio::join!(
                segment_bytes(source, &branches, segment, length),
                prefetch(source, &branches, segment, length, &spool, ahead),
            );
            now?
        }
        // Partial segments and notes of backups are never stored under their names: nothing here needs them.
        LogFileName::Partial(_) | LogFileName::Backup { .. } => Content::NotThere,
    };
    match content {
        Content::NotThere => Ok(Fetched::NotThere),
        Content::History(bytes) => {
            let log_bytes = bytes.len() as u64;
            write(destination, &bytes)?;
            Ok(Fetched::Found { log_bytes, ahead: false })
        }
        Content::Segment { bytes, log_bytes } => {
            write(destination, &bytes)?;
            Ok(Fetched::Found { log_bytes, ahead: false })
        }
    }
}

fn history(branches: &Branches, timeline: Timeline) -> Result<Content, FetchError> {
    if let Some(history) = branches.get(timeline).and_then(|held| held.history.clone()) {
        return Ok(Content::History(history));
    }
    let oldest = branches.all().first().map(|held| held.timeline);
    // The timeline on which the journal began has no history here, and its server began on it as well; later than the newest
    // there is none. Between them, a missing one was skipped by the source, or is older than the journal.
    if oldest == Some(timeline)
        || timeline > branches.newest()
        || oldest.is_some_and(|oldest| timeline > oldest)
    {
        return Ok(Content::NotThere);
    }
    Err(FetchError::Timelines { why: format!("the journal begins behind timeline {timeline}") })
}

/// A segment's bytes, with zeros behind the last one that the journal holds.
async fn segment_bytes(
    source: &Source,
    branches: &Branches,
    segment: SegmentName,
    length: SegmentBytes,
) -> Result<Content, FetchError> {
    let Some(held) = branches.get(segment.timeline()) else {
        // A timeline that was never here: provable only when it is newer than all that is.
        return match segment.timeline() > branches.newest() {
            true => Ok(Content::NotThere),
            false => Err(FetchError::Timelines {
                why: format!("it does not hold timeline {}", segment.timeline()),
            }),
        };
    };
    let (start, end) = (segment.start(), segment.end());
    if held.end <= start {
        return Ok(Content::NotThere);
    }
    // On this timeline the file begins with its parent's bytes where it holds the fork; before that it has no file.
    if end.is_some_and(|end| end <= held.begin) && held.forked {
        return Ok(Content::NotThere);
    }
    let length = usize::try_from(length.get()).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(length);
    let mut log = LogReader::new(source, branches, segment.timeline(), start, end);
    loop {
        match log.next().await? {
            Next::Bytes(piece) => bytes.extend_from_slice(&piece.bytes),
            Next::Passed => {}
            Next::Gap(gap) => return Err(FetchError::Gap { at: gap.at.offset }),
            // Nothing was passed over here, so nothing misled.
            Next::Misled | Next::End => break,
        }
    }
    let at = Offset::new(start.get() + bytes.len() as u64);
    // Less than the journal says it holds: the chain has a hole that later log stands behind.
    if at < held.end && bytes.len() < length {
        return Err(FetchError::Gap { at });
    }
    let log_bytes = bytes.len() as u64;
    bytes.resize(length, 0);
    Ok(Content::Segment { bytes, log_bytes })
}

/// Fetches following segments. What fails here is not told: the server asks for it by name, and is told then.
async fn prefetch(
    source: &Source,
    branches: &Branches,
    after: SegmentName,
    length: SegmentBytes,
    spool: &Path,
    ahead: u32,
) {
    if ahead == 0 || std::fs::create_dir_all(spool).is_err() {
        return;
    }
    let mut next = after.end();
    for _ in 0..ahead {
        let Some(start) = next else { return };
        let name = SegmentName::holding(after.timeline(), start, length);
        next = name.end();
        let place = spool.join(name.to_string());
        if place.exists() {
            continue;
        }
        match segment_bytes(source, branches, name, length).await {
            // A part would be stale by the time it is asked for.
            Ok(Content::Segment { bytes, log_bytes }) if log_bytes == length.get() => {
                if write(&place, &bytes).is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Writes a file whole and durable, under another name first.
fn write(destination: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    let mut name = destination.as_os_str().to_owned();
    name.push(format!(".farshore-{}", std::process::id()));
    let next = PathBuf::from(name);
    let written = std::fs::File::create(&next).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(io("write", &next))?;
    std::fs::rename(&next, destination).map_err(io("rename", &next))?;
    let parent = destination.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(io("sync", parent))
}

fn io(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Io { what, path: path.clone(), source }
}
