//! The gaps of a journal, for whoever must be told what can be reached: found among its small objects, read by their heads.
//!
//! A gap's chunk holds one line of text, so it is smaller than almost every chunk of log. Nothing of a plan rests on this: a plan
//! reads the log that it will replay, and meets every gap in it.

use farshore_journal::format::header::HEADER_BYTES;
use farshore_journal::format::{Header, Kind};
use farshore_journal::reader::Reader;
use farshore_journal::{JournalError, Offset, Position, Timeline};
use futures::stream::{self, StreamExt};

use super::Window;
use crate::branches::Branches;

/// No gap's chunk is larger: head, frame, trailer, and a reason of some lines.
const LARGEST: u64 = 8 << 10;
/// How many objects are looked into, some at a time: a refusal must come while somebody waits for it.
const MOST: usize = 20_000;
const AT_ONCE: usize = 32;

/// Log that the journal says it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    start: Position,
    end: Offset,
}

/// Ends each window of `timeline` where the first gap behind its beginning does, and says so when there were too many objects to look
/// into.
pub(super) async fn end_at_gaps(
    reader: &Reader,
    branches: &Branches,
    timeline: Timeline,
    windows: &mut Vec<Window>,
) -> Result<(), JournalError> {
    let Some(lost) = lost(reader).await? else { return Ok(()) };
    let in_history: Vec<Lost> =
        lost.into_iter().filter(|lost| branches.is_in_history(timeline, lost.start)).collect();
    for window in windows.iter_mut() {
        let behind = in_history.iter().map(|lost| lost.start.offset).filter(|at| *at >= window.from);
        window.to = behind.min().map_or(window.to, |at| at.min(window.to));
        window.gaps_looked_for = true;
    }
    // A backup that itself lies across a gap is none.
    windows.retain(|window| {
        !in_history.iter().any(|lost| lost.start.offset < window.from && window.from < lost.end)
    });
    Ok(())
}

/// All gaps; `None` when there are too many small objects.
async fn lost(reader: &Reader) -> Result<Option<Vec<Lost>>, JournalError> {
    let mut listed = reader.store().list(reader.layout().journal(), None, None).await?;
    listed.retain(|listed| listed.size <= LARGEST);
    if listed.len() > MOST {
        return Ok(None);
    }
    let heads = stream::iter(listed).map(|listed| async move {
        let read = reader.store().get_range(&listed.key, 0..HEADER_BYTES as u64).await;
        match read {
            // One that does not read is no gap; whoever needs it meets it.
            Ok(bytes) => Ok(Header::decode(&bytes).ok().filter(|header| header.kind == Kind::Gap)),
            Err(why) if why.is_not_found() => Ok(None),
            Err(why) => Err(JournalError::from(why)),
        }
    });
    let mut heads = std::pin::pin!(heads.buffer_unordered(AT_ONCE));
    let mut found = Vec::new();
    while let Some(head) = heads.next().await {
        if let Some(header) = head? {
            found.push(Lost { start: Position::new(header.timeline, header.start), end: header.end });
        }
    }
    Ok(Some(found))
}
