//! What a spool does, and what the primary may let go on the strength of it: pure functions over positions.
//!
//! `docs/adr/2026-11-29-the-spool.md` has the argument; `model.rs` walks these functions in a primary and stores that do their worst.

use farshore_journal::{Offset, Position, Timeline};

use super::Run;
use crate::resume::compare_floor;

/// From where on the targets may still ask for log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// A target's end is not known: its store does not answer since the service began.
    Unknown,
    /// A target stands on another timeline than the primary.
    Elsewhere,
    /// Every target has stored, and compared with this source, what lies before.
    At(Offset),
}

/// The floor of targets that have stored so much, for a primary on this timeline.
pub fn floor(stored: &[Option<Position>], timeline: Timeline, segment_bytes: u64) -> Floor {
    if stored.iter().flatten().any(|position| position.timeline != timeline) {
        return Floor::Elsewhere;
    }
    let known: Option<Vec<Position>> = stored.iter().copied().collect();
    match known.and_then(|known| known.into_iter().map(|position| position.offset).min()) {
        Some(least) => Floor::At(compare_floor(least, segment_bytes)),
        None => Floor::Unknown,
    }
}

/// What a decision is made on.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Where the primary's keep slot stands.
    pub slot: Offset,
    /// How far the primary's log was flushed.
    pub flushed: Offset,
    /// Where its timeline left the one before; zero for the first.
    pub fork: Offset,
    /// From where on targets may ask.
    pub floor: Floor,
    /// The row of segments, as found on the disk, that reaches the slot.
    pub run: Option<Run>,
    /// Whether log is being taken.
    pub taking: bool,
    /// How much the primary may keep for us before any is taken.
    pub above: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Rest,
    /// Take segments, from the one on that the slot stands in.
    Take {
        /// That one's first byte.
        from: Offset,
        /// Up to where they are in the run already, and are compared.
        known: Offset,
    },
    /// Log should be taken, and may not be: a target has not followed a promotion, as far as is known.
    Wait,
}

/// Decides.
pub fn decide(view: &View) -> Wish {
    let View { slot, flushed, floor, run, segment_bytes, .. } = *view;
    let behind = |from: Offset| flushed.bytes_since(from).unwrap_or(0);
    let above = view.above.max(segment_bytes.saturating_mul(4));
    let enough = match (view.taking, floor) {
        (false, _) => behind(slot) <= above,
        (true, Floor::At(floor)) => behind(floor) <= above / 2,
        (true, Floor::Unknown | Floor::Elsewhere) => false,
    };
    if enough {
        return Wish::Rest;
    }
    let from = slot.segment_start(segment_bytes);
    if matches!(floor, Floor::Elsewhere) || from < view.fork {
        return Wish::Wait;
    }
    Wish::Take { from, known: run.map_or(from, |run| run.end.max(from)) }
}

/// Where a keep slot that stands at `slot` may stand: behind what every target has `released`, and behind what the run holds, less what is compared when
/// one goes on. `run` is one that counts, of the timeline of the slot's host, which has `flushed` so much: a standby that is promoted there is compared with the journal.
pub fn let_go(
    slot: Offset,
    released: Option<Offset>,
    run: Option<Run>,
    flushed: Offset,
    segment_bytes: u64,
) -> Offset {
    let stored = released.map_or(slot, |released| released.max(slot));
    match run.filter(|run| run.reaches(stored)) {
        Some(run) => stored.max(compare_floor(run.end.min(flushed), segment_bytes)),
        None => stored,
    }
}

/// From where on the log is held, by a slot that stands at `slot` and the run before it.
pub fn held_from(slot: Offset, run: Option<Run>) -> Offset {
    run.filter(|run| run.reaches(slot)).map_or(slot, |run| run.start.min(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1 << 20;

    fn offset(segments: u64) -> Offset {
        Offset::new(segments * SEGMENT)
    }

    fn run(start: u64, end: u64) -> Option<Run> {
        Some(Run { timeline: Timeline::new(1), start: offset(start), end: offset(end) })
    }

    fn view() -> View {
        View {
            slot: offset(10),
            flushed: offset(30),
            fork: Offset::new(0),
            floor: Floor::At(offset(10)),
            run: None,
            taking: false,
            above: 8 * SEGMENT,
            segment_bytes: SEGMENT,
        }
    }

    #[test]
    fn log_is_taken_once_the_primary_keeps_much_and_until_the_targets_are_near() {
        let takes = |from, known| Wish::Take { from: offset(from), known: offset(known) };
        assert_eq!(decide(&view()), takes(10, 10));
        assert_eq!(decide(&View { flushed: offset(18), ..view() }), Wish::Rest);
        let taking = View { taking: true, slot: offset(29), run: run(10, 30), ..view() };
        assert_eq!(
            decide(&taking),
            takes(29, 30),
            "the slot follows the run, and the targets are what counts"
        );
        assert_eq!(decide(&View { floor: Floor::At(offset(26)), ..taking }), Wish::Rest);
        assert_eq!(decide(&View { floor: Floor::Unknown, ..taking }), takes(29, 30));
        let small = View { above: 0, flushed: offset(14), ..view() };
        assert_eq!(decide(&small), Wish::Rest, "four segments at least");
        // The slot may stand within a segment, and its row may end before it: what was compared when it got there is not asked for again.
        let within = View { slot: Offset::new(10 * SEGMENT + 7), run: run(8, 10), ..view() };
        assert_eq!(decide(&within), takes(10, 10));
    }

    #[test]
    fn nothing_is_taken_across_a_promotion() {
        let waits = Wish::Wait;
        assert_eq!(decide(&View { floor: Floor::Elsewhere, ..view() }), waits);
        assert_eq!(decide(&View { fork: Offset::new(10 * SEGMENT + 1), ..view() }), waits);
        assert_ne!(decide(&View { fork: offset(10), ..view() }), waits);
        let at = |timeline, segments| Some(Position::new(Timeline::new(timeline), offset(segments)));
        let floor = |stored: &[Option<Position>]| floor(stored, Timeline::new(2), SEGMENT);
        assert_eq!(floor(&[at(2, 9), at(1, 9)]), Floor::Elsewhere);
        assert_eq!(floor(&[at(1, 9), None]), Floor::Elsewhere);
        assert_eq!(floor(&[at(2, 9), None]), Floor::Unknown);
        assert_eq!(floor(&[at(2, 9), at(2, 7)]), Floor::At(offset(6)));
        assert_eq!(floor(&[]), Floor::Unknown);
    }

    #[test]
    fn a_slot_moves_over_what_is_stored_or_in_the_row_and_over_nothing_else() {
        let go = |slot, released: Option<u64>, run| {
            let_go(offset(slot), released.map(offset), run, offset(90), SEGMENT).get() / SEGMENT
        };
        let standby = let_go(offset(10), None, run(10, 20), offset(15), SEGMENT);
        assert_eq!(standby, offset(14), "what a promotion there is compared by stays there");
        assert_eq!(go(10, None, run(10, 20)), 19);
        assert_eq!(go(10, None, run(11, 20)), 10, "a segment is missing between");
        assert_eq!(go(10, Some(11), run(11, 20)), 19);
        assert_eq!(go(10, Some(25), run(10, 20)), 25);
        assert_eq!(go(20, None, run(10, 20)), 20, "never back");
        assert_eq!(
            go(21, None, run(10, 20)),
            21,
            "moved by another: the row says nothing of what lies between"
        );
        assert_eq!(held_from(offset(19), run(10, 20)), offset(10));
        assert_eq!(held_from(offset(21), run(10, 20)), offset(21));
        assert_eq!(held_from(offset(9), run(10, 20)), offset(9));
    }
}
