//! A standby held against its primary at one cut: what is decided, and the reading of the journal that finds the cut. `docs/adr/2026-11-28-compare.md` argues why it is exact.
//!
//! What always holds: nothing here says that two sides are alike; a cut that is in doubt is none.

pub mod cut;
pub mod narrow;

use farshore_engines::postgres::sql::compare::Snapshot;
use farshore_journal::{JournalError, Offset, Position, Timeline};

use crate::branches::{BranchError, Branches};
use crate::log::{LogReader, Next};
use crate::source::Source;
use cut::{Cut, Finder, Mixed};
use farshore_engines::log::{LogError, Shape};

/// A page of PostgreSQL's log.
const PAGE: u64 = 8192;
/// The head of a page, and of a segment's first. Source: `XLogPageHeaderData`, `XLogLongPageHeaderData`, src/include/access/xlog_internal.h.
const HEAD: u64 = 24;
const LONG_HEAD: u64 = 40;

/// Why a cut was not looked for to its end.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal's timelines make no sense.
    #[error("the journal's timelines do not read: {0}")]
    Timelines(String),
    /// Its log does not decode.
    #[error("the journal's log does not decode")]
    Log(#[from] LogError),
    /// The primary, or the standby, is on another timeline than the journal's newest.
    #[error("the journal is on timeline {newest}, and the comparison began on {timeline}")]
    OtherTimeline {
        /// The journal's.
        newest: Timeline,
        /// That of the comparison.
        timeline: Timeline,
    },
    /// Log is missing in between.
    #[error("the log behind {at} is not in the journal")]
    Missing {
        /// Where it ends.
        at: Position,
    },
    /// It is no PostgreSQL's.
    #[error("the journal is none of PostgreSQL")]
    OtherEngine,
}

/// What a look for a cut came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Here it is.
    Cut(Cut),
    /// The snapshot fits no position of the log: another may.
    Mixed(Mixed),
    /// The journal does not hold the log up to `until` yet.
    NotYet,
}

/// Looks in the journal's log from about `from` up to `until` for the cut of a snapshot.
///
/// # Errors
/// When the log cannot be read, or is of another history.
pub async fn find_cut(
    source: &Source,
    timeline: Timeline,
    (from, until): (Offset, Offset),
    snapshot: &Snapshot,
) -> Result<Found, CutError> {
    let branches = match Branches::read(source.reader()).await {
        Ok(Some(branches)) => branches,
        Ok(None) => return Ok(Found::NotYet),
        Err(BranchError::Journal(why)) => return Err(why.into()),
        Err(why) => return Err(CutError::Timelines(why.to_string())),
    };
    if branches.newest() != timeline {
        return Err(CutError::OtherTimeline { newest: branches.newest(), timeline });
    }
    let Shape::Postgres(shape) = source.shape() else { return Err(CutError::OtherEngine) };
    let until = end_of_log(until, shape.segment_bytes.get());
    if branches.last.end < until {
        return Ok(Found::NotYet);
    }
    // A decoder begins at a page; that of a timeline's first log may be within it.
    let begin = branches.get(timeline).map_or(from, |held| held.begin);
    let page = Offset::new(from.get() - from.get() % PAGE).max(begin);
    let decoder = source.shape().decoder(Position::new(timeline, page))?;
    let mut decoder = decoder.with_transaction_anchor(snapshot.xmax());
    let mut finder = Finder::new(snapshot, page);
    let mut log = LogReader::new(source, &branches, timeline, page, Some(until));
    loop {
        match log.next().await? {
            Next::Bytes(piece) => decoder.push(&piece.bytes, &mut |event| finder.see(&event))?,
            Next::Passed => {}
            Next::Gap(gap) => return Err(CutError::Missing { at: gap.at }),
            Next::End | Next::Misled => break,
        }
    }
    if log.cursor() < until {
        return Ok(Found::NotYet);
    }
    // Whatever ended before the first whole record ended before it.
    let whole_from = decoder.whole_from().unwrap_or(page);
    Ok(match finder.found(whole_from, until) {
        Ok(cut) => Found::Cut(cut),
        Err(mixed) => Found::Mixed(mixed),
    })
}

/// The end of log that was made: a server names the place of the next record, which on a new page is behind a head that is not written before the record is.
///
/// Source: `XLogBytePosToRecPtr`, src/backend/access/transam/xlog.c.
fn end_of_log(place: Offset, segment_bytes: u64) -> Offset {
    let within = place.get() % PAGE;
    // Elsewhere such a place is where a record ends that began on the page before.
    let head = if place.get() % segment_bytes < PAGE { LONG_HEAD } else { HEAD };
    match within == head {
        true => Offset::new(place.get() - within),
        false => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_behind_a_head_that_nobody_wrote_is_the_end_of_the_page_before() {
        const SEGMENT: u64 = 1 << 20;
        let end = |at| end_of_log(Offset::new(at), SEGMENT).get();
        assert_eq!(end(5 * PAGE + 24), 5 * PAGE);
        assert_eq!(end(3 * SEGMENT + 40), 3 * SEGMENT);
        // A record ends there whose last 16 bytes stand behind the head.
        assert_eq!(end(5 * PAGE + 40), 5 * PAGE + 40);
        assert_eq!(end(3 * SEGMENT + 24), 3 * SEGMENT + 24);
        assert_eq!(end(5 * PAGE + 32), 5 * PAGE + 32);
        assert_eq!(end(5 * PAGE), 5 * PAGE);
    }
}
