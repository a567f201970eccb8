//! The journal's chunks that are no log: where it begins, where a timeline leaves another, where log is missing.
//!
//! What always holds: they are put by the journal's owner only, behind an end that was read; a gap's bounds are exact, and it
//! stands behind an opening, where whoever asks whether a base backup is due finds it. A crash leaves the chunk or not; the next
//! session reads which.

use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_journal::format::body::{GapBody, TimelineBody};
use farshore_journal::reader::Reader;
use farshore_journal::writer::{encode_gap, encode_timeline};
use farshore_journal::{Offset, Position, Sequence, Timeline};

use super::source::Source;
use crate::error::ShipError;
use crate::pipeline::Pipeline;
use crate::progress::Fact;
use crate::resume::Tail;

impl Pipeline {
    /// Begins an empty journal. One that begins on a later timeline keeps that timeline's history, and says that what lies
    /// between the fork and here was never here.
    /// `read` is the last chunk when there are only openings.
    pub(super) async fn begin(
        &mut self,
        reader: &Reader,
        source: &mut Source,
        at: Position,
        read: Option<Sequence>,
    ) -> Result<(), ShipError> {
        self.own(reader, at, read).await?;
        self.tell(|progress| progress.base_due = Some("the journal begins".to_owned()));
        if let Some(parent) = source.history.ancestors().last().cloned() {
            self.branch_chunk(
                source,
                Position::new(at.timeline, parent.left_at),
                parent.timeline,
                parent.left_at,
            )
            .await?;
            if parent.left_at < at.offset {
                self.gap_chunk(reader, at.offset, "the journal began here").await?;
            }
        }
        Ok(())
    }

    /// Follows the source's history where it left the journal's.
    pub(super) async fn branch(
        &mut self,
        reader: &Reader,
        source: &mut Source,
        tail: &Option<Tail>,
        branch: Position,
        parent: Timeline,
    ) -> Result<(), ShipError> {
        self.own(reader, branch, tail.as_ref().map(|tail| tail.last)).await?;
        let parent_end = tail.as_ref().map_or(branch.offset, |tail| tail.end.offset);
        if let Some(beyond) = parent_end.bytes_since(branch.offset).filter(|bytes| *bytes > 0) {
            tracing::error!(database = %self.config.database, beyond_bytes = beyond, timeline = %parent,
                "acknowledged log of the old timeline is not on the new primary");
        }
        self.branch_chunk(source, branch, parent, parent_end).await
    }

    async fn branch_chunk(
        &mut self,
        source: &mut Source,
        branch: Position,
        parent: Timeline,
        parent_end: Offset,
    ) -> Result<(), ShipError> {
        let history = match source.connection.timeline_history(branch.timeline).await {
            Ok(Some(file)) => file.content.to_vec(),
            Ok(None) => source.history.ancestor_file(branch.timeline),
            // The server lacks a file of its own past, having come to a later timeline as a copy; its newest history says the
            // same. `undefined_file`. Source: appendix A of the manual.
            Err(why) if why.code() == Some("58P01") && branch.timeline != source.system.timeline => {
                source.history.ancestor_file(branch.timeline)
            }
            Err(why) => return Err(why.into()),
        };
        let body = TimelineBody { parent, parent_end, history };
        let Some(writer) = self.writer.as_ref() else { return Err(ShipError::TaskEnded { what: "writer" }) };
        let (chunk, _) = encode_timeline(writer.place(), branch, &body)?;
        let incarnation = writer.reader().incarnation();
        self.put(chunk).await?;
        self.fact(Fact::Branch { incarnation, timeline: branch.timeline, parent, at: branch.offset });
        tracing::warn!(database = %self.config.database, timeline = %branch.timeline, %parent, position = %branch, "a timeline begins");
        Ok(())
    }

    /// The source no longer has what comes next: the gap's bounds are recorded exactly, and a new base backup is due.
    /// `end` is where the source has log again, by [`gap_end`].
    pub(super) async fn gap(&mut self, reader: &Reader, tail: &Tail, end: Offset) -> Result<(), ShipError> {
        // A gap stands behind an opening (FORMAT.md section 2), where whoever looks for gaps finds it: open anew for it.
        self.writer = None;
        self.own(reader, tail.end, Some(tail.last)).await?;
        self.tell(|progress| progress.base_due = Some(format!("the log up to {end} is gone at the source")));
        self.gap_chunk(reader, end, "the source no longer had this log").await
    }

    async fn gap_chunk(&mut self, reader: &Reader, end: Offset, reason: &str) -> Result<(), ShipError> {
        let Some(writer) = self.writer.as_ref() else { return Err(ShipError::TaskEnded { what: "writer" }) };
        let start = writer.stored();
        let (chunk, _) = encode_gap(writer.place(), end, &GapBody { reason: reason.to_owned() })?;
        self.put(chunk).await?;
        tracing::error!(database = %self.config.database, from = %start, to = %end, reason, "a gap in the journal");
        self.fact(Fact::Gap {
            incarnation: reader.incarnation(),
            timeline: start.timeline,
            start: start.offset,
            end,
            reason: reason.to_owned(),
        });
        Ok(())
    }
}

/// Where a gap behind `stored` ends, when the source no longer has the log that a resume would compare. On an ancestor of the
/// source's timeline everything up to the fork is gone; on the source's own, everything up to its present segment.
/// `None`: the source still has all that follows the journal's end, so nothing is missing, and a gap is no name for it.
pub(super) fn gap_end(
    stored: Position,
    flushed: Offset,
    history: &TimelineHistory,
    segment_bytes: u64,
) -> Option<Offset> {
    let end = history.leaves(stored.timeline).unwrap_or_else(|| flushed.segment_start(segment_bytes));
    Some(end).filter(|end| *end > stored.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_reaches_from_the_journals_end_to_where_the_source_has_log_again_or_there_is_none() {
        const SEGMENT: u64 = 16 << 20;
        let at = |timeline, offset| Position::new(Timeline::new(timeline), Offset::new(offset));
        let one = TimelineHistory::first();
        let end =
            |stored, flushed| gap_end(at(1, stored), Offset::new(flushed), &one, SEGMENT).map(Offset::get);
        assert_eq!(end(5 * SEGMENT + 7, 9 * SEGMENT + 1), Some(9 * SEGMENT));
        assert_eq!(end(9 * SEGMENT, 9 * SEGMENT + 1), None);
        assert_eq!(end(9 * SEGMENT + 7, 9 * SEGMENT + 7), None);
        let two = TimelineHistory::parse(Timeline::new(2), b"1\t0/7000000\tx\n").unwrap();
        let fork = gap_end(at(1, 5 * SEGMENT), Offset::new(9 * SEGMENT), &two, SEGMENT);
        assert_eq!(fork, Some(Offset::new(0x700_0000)));
    }
}
