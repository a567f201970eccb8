//! Does the source continue the journal? A decision over positions and histories, without I/O.
//!
//! What always holds: nothing is taken as continued on the strength of names and numbers alone; [`Continuity::Compare`]
//! asks for bytes, and only equal bytes continue. A source that is behind is waited for, never taken for one that was put
//! back: only a byte difference shows that.

use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_journal::{Offset, Position, Timeline};

/// What to do about a source, given where the journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The journal is empty: begin at this segment start.
    Begin {
        /// Where.
        at: Position,
    },
    /// The journal's end lies on the source's history: ask for its last segment again and compare.
    Compare,
    /// The source's history left the journal's before its end: a branch begins at the fork, and what the journal holds
    /// beyond it is not on the new primary.
    Branch {
        /// The new timeline.
        timeline: Timeline,
        /// The timeline it leaves.
        parent: Timeline,
        /// Where.
        at: Offset,
    },
    /// The source ends before the journal: wait.
    Behind {
        /// Where the source ends.
        source: Position,
    },
    /// The source is on an ancestor of the journal's timeline: an old primary, refuse.
    OldPrimary {
        /// The source's timeline.
        source: Timeline,
    },
}

/// Decides. `journal` is where the journal ends, with the history of its timeline; `flushed` is where the source's log
/// ends, with the history of its own.
pub fn decide(
    journal: Option<(Position, &TimelineHistory)>,
    flushed: Position,
    source: &TimelineHistory,
    segment_bytes: u64,
) -> Continuity {
    let Some((end, journal)) = journal else {
        return Continuity::Begin {
            at: Position::new(flushed.timeline, flushed.offset.segment_start(segment_bytes)),
        };
    };
    if end.timeline == flushed.timeline {
        return match flushed.offset < end.offset {
            true => Continuity::Behind { source: flushed },
            false => Continuity::Compare,
        };
    }
    if let Some(left_at) = source.leaves(end.timeline) {
        return match left_at < end.offset {
            true => branch(source, left_at, end.timeline),
            false => Continuity::Compare,
        };
    }
    if journal.leaves(flushed.timeline).is_some() {
        return Continuity::OldPrimary { source: flushed.timeline };
    }
    // Siblings: both left a common ancestor. Without one the histories are strangers and part at the very beginning.
    let parted = source.parts_from(journal).unwrap_or_default();
    let parent = journal.timeline_at(Offset::new(parted.get().saturating_sub(1)));
    match branch(source, parted, parent) {
        // Timelines rise along a journal. A sibling with a smaller number is the older of two promotions.
        Continuity::Branch { timeline, .. } if timeline <= end.timeline => {
            Continuity::OldPrimary { source: flushed.timeline }
        }
        decided => decided,
    }
}

/// The source's first timeline behind the fork.
fn branch(source: &TimelineHistory, at: Offset, parent: Timeline) -> Continuity {
    let timeline =
        source.ancestry().find(|run| run.begin >= at && run.timeline != parent).map(|run| run.timeline);
    Continuity::Branch { timeline: timeline.unwrap_or(source.timeline()), parent, at }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    fn history(timeline: u32, text: &str) -> TimelineHistory {
        match timeline {
            1 => TimelineHistory::first(),
            _ => TimelineHistory::parse(Timeline::new(timeline), text.as_bytes()).unwrap(),
        }
    }

    fn at(timeline: u32, offset: u64) -> Position {
        Position::new(Timeline::new(timeline), Offset::new(offset))
    }

    #[test]
    fn an_empty_journal_begins_at_a_segment_start() {
        let found = decide(None, at(1, SEGMENT + 77), &history(1, ""), SEGMENT);
        assert_eq!(found, Continuity::Begin { at: at(1, SEGMENT) });
    }

    #[test]
    fn the_same_timeline_is_compared_or_waited_for_and_never_taken_on_trust() {
        let one = history(1, "");
        let decide = |journal, source| decide(Some((at(1, journal), &one)), at(1, source), &one, SEGMENT);
        assert_eq!(decide(500, 500), Continuity::Compare);
        assert_eq!(decide(500, 501), Continuity::Compare);
        assert_eq!(decide(500, 499), Continuity::Behind { source: at(1, 499) });
    }

    #[test]
    fn a_promotion_behind_the_journals_end_is_followed() {
        let (one, two) = (history(1, ""), history(2, "1\t0/500\tno recovery target specified\n"));
        assert_eq!(decide(Some((at(1, 0x500), &one)), at(2, 0x900), &two, SEGMENT), Continuity::Compare);
        assert_eq!(decide(Some((at(1, 0x400), &one)), at(2, 0x900), &two, SEGMENT), Continuity::Compare);
    }

    #[test]
    fn a_promotion_before_the_journals_end_branches_at_the_fork() {
        let (one, two) = (history(1, ""), history(2, "1\t0/500\tx\n"));
        let branch = |timeline, parent, at| Continuity::Branch {
            timeline: Timeline::new(timeline),
            parent: Timeline::new(parent),
            at: Offset::new(at),
        };
        assert_eq!(decide(Some((at(1, 0x501), &one)), at(2, 0x900), &two, SEGMENT), branch(2, 1, 0x500));
        // Two promotions while away: the first one's timeline comes first.
        let three = history(3, "1\t0/500\tx\n2\t0/700\tx\n");
        assert_eq!(decide(Some((at(1, 0x600), &one)), at(3, 0x900), &three, SEGMENT), branch(2, 1, 0x500));
        // A sibling of the journal's timeline.
        let sibling = history(3, "1\t0/300\tx\n");
        assert_eq!(decide(Some((at(2, 0x600), &two)), at(3, 0x900), &sibling, SEGMENT), branch(3, 1, 0x300));
    }

    #[test]
    fn an_old_primary_is_refused() {
        let (one, two) = (history(1, ""), history(2, "1\t0/500\tx\n"));
        let found = decide(Some((at(2, 0x600), &two)), at(1, 0x900), &one, SEGMENT);
        assert_eq!(found, Continuity::OldPrimary { source: Timeline::new(1) });
        // The older of two promotions: the journal went on with timeline 3.
        let three = history(3, "1\t0/500\tx\n");
        let found = decide(Some((at(3, 0x600), &three)), at(2, 0x900), &history(2, "1\t0/400\tx\n"), SEGMENT);
        assert_eq!(found, Continuity::OldPrimary { source: Timeline::new(2) });
    }
}
