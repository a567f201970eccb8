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
    /// The journal's end lies on the source's history: ask for its last bytes again and compare.
    Compare,
    /// The source's history left the journal's timeline at the journal's end or before it. Once the bytes below the fork are
    /// found equal, a branch begins there, and what the journal holds beyond it is not on the new primary.
    Branch {
        /// The new timeline.
        timeline: Timeline,
        /// The timeline it leaves.
        parent: Timeline,
        /// Where.
        at: Offset,
    },
    /// The source ends before the journal: compare what it has, then wait.
    Behind {
        /// Where the source ends.
        source: Position,
    },
    /// The source is on an ancestor of the journal's timeline, or on a sibling: which of the two is the primary only an
    /// operator knows. Refuse.
    OldPrimary {
        /// The source's timeline.
        source: Timeline,
    },
    /// The histories cannot be one: timelines of one number that were left at different places, or no common ancestor. A new
    /// incarnation.
    Stranger,
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
    let parted = source.parts_from(journal);
    if end.timeline == flushed.timeline {
        // One number, two histories: two promotions that each took it for theirs.
        return match parted {
            Some(_) => Continuity::Stranger,
            None if flushed.offset < end.offset => Continuity::Behind { source: flushed },
            None => Continuity::Compare,
        };
    }
    if let Some(left_at) = source.leaves(end.timeline) {
        // The source descends from the journal's timeline only if the two histories agree up to where it was left.
        return match parted == Some(left_at) {
            false => Continuity::Stranger,
            // At the very end too: the parent has nothing more to send, so asking for it again would never end.
            true if left_at <= end.offset => branch(source, end.timeline, left_at),
            true => Continuity::Compare,
        };
    }
    match journal.leaves(flushed.timeline) {
        // An ancestor of the journal's timeline.
        Some(left_at) if parted == Some(left_at) => Continuity::OldPrimary { source: flushed.timeline },
        Some(_) => Continuity::Stranger,
        // Siblings, when they have an ancestor in common.
        None if parted.is_some_and(|at| at > Offset::new(0)) => {
            Continuity::OldPrimary { source: flushed.timeline }
        }
        None => Continuity::Stranger,
    }
}

/// The source's first timeline behind `parent`.
fn branch(source: &TimelineHistory, parent: Timeline, at: Offset) -> Continuity {
    let behind = source.ancestry().skip_while(|run| run.timeline != parent).nth(1);
    Continuity::Branch { timeline: behind.map_or(source.timeline(), |run| run.timeline), parent, at }
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
        assert_eq!(decide(Some((at(1, 0x4ff), &one)), at(2, 0x900), &two, SEGMENT), Continuity::Compare);
        assert_eq!(decide(Some((at(1, 0x400), &one)), at(2, 0x900), &two, SEGMENT), Continuity::Compare);
    }

    #[test]
    fn a_promotion_at_or_before_the_journals_end_branches_at_the_fork() {
        let (one, two) = (history(1, ""), history(2, "1\t0/500\tx\n"));
        let branch = |timeline, parent, at| Continuity::Branch {
            timeline: Timeline::new(timeline),
            parent: Timeline::new(parent),
            at: Offset::new(at),
        };
        for end in [0x500, 0x501] {
            assert_eq!(decide(Some((at(1, end), &one)), at(2, 0x900), &two, SEGMENT), branch(2, 1, 0x500));
        }
        // Two promotions while away: the first one's timeline comes first.
        let three = history(3, "1\t0/500\tx\n2\t0/700\tx\n");
        assert_eq!(decide(Some((at(1, 0x600), &one)), at(3, 0x900), &three, SEGMENT), branch(2, 1, 0x500));
    }

    #[test]
    fn an_old_primary_is_refused() {
        let (one, two) = (history(1, ""), history(2, "1\t0/500\tx\n"));
        let found = decide(Some((at(2, 0x600), &two)), at(1, 0x900), &one, SEGMENT);
        assert_eq!(found, Continuity::OldPrimary { source: Timeline::new(1) });
    }

    #[test]
    fn a_sibling_is_refused_whichever_number_is_higher() {
        let (two, three) = (history(2, "1\t0/500\tx\n"), history(3, "1\t0/300\tx\n"));
        let refused = |source| Continuity::OldPrimary { source: Timeline::new(source) };
        assert_eq!(decide(Some((at(2, 0x600), &two)), at(3, 0x900), &three, SEGMENT), refused(3));
        assert_eq!(decide(Some((at(3, 0x600), &three)), at(2, 0x900), &two, SEGMENT), refused(2));
    }

    #[test]
    fn one_number_with_two_histories_is_a_stranger() {
        let (two, other) = (history(2, "1\t0/500\tx\n"), history(2, "1\t0/400\tx\n"));
        assert_eq!(decide(Some((at(2, 0x600), &two)), at(2, 0x900), &other, SEGMENT), Continuity::Stranger);
        let descendant = history(3, "1\t0/400\tx\n2\t0/580\tx\n");
        assert_eq!(
            decide(Some((at(2, 0x600), &two)), at(3, 0x900), &descendant, SEGMENT),
            Continuity::Stranger
        );
    }
}
