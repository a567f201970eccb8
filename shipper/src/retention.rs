//! What the primary may let go of: one minimum, as a pure function.

use farshore_journal::Position;

use crate::resume::compare_floor;

/// How far the primary may recycle its log, given how far each target has stored it, each compared with this very primary;
/// `None` while any target's progress is unknown, and while targets stand on different timelines: an offset means nothing
/// across a fork. The log that a resume compares is kept, though it is stored.
pub fn released(stored: &[Option<Position>], segment_bytes: u64) -> Option<Position> {
    let known: Vec<Position> = stored.iter().copied().collect::<Option<_>>()?;
    let first = known.first()?;
    let one_timeline = known.iter().all(|position| position.timeline == first.timeline);
    let least = known.iter().map(|position| position.offset).min().filter(|_| one_timeline)?;
    Some(Position::new(first.timeline, compare_floor(least, segment_bytes)))
}

/// Where `required` of the targets have stored the log: the position that may be called stored; `None` while fewer are
/// known, or their timelines differ.
pub fn stored(targets: &[Option<Position>], required: usize) -> Option<Position> {
    let mut known: Vec<Position> = targets.iter().flatten().copied().collect();
    let newest = known.iter().map(|position| position.timeline).max()?;
    known.retain(|position| position.timeline == newest);
    known.sort_by_key(|position| std::cmp::Reverse(position.offset));
    known.get(required.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::{Offset, Timeline};

    const SEGMENT: u64 = 1 << 20;

    fn at(timeline: u32, offset: u64) -> Option<Position> {
        Some(Position::new(Timeline::new(timeline), Offset::new(offset)))
    }

    #[test]
    fn nothing_is_released_beyond_the_slowest_target() {
        let stored = [at(1, 9 * SEGMENT), at(1, 4 * SEGMENT + 7), at(1, 7 * SEGMENT)];
        assert_eq!(released(&stored, SEGMENT), at(1, 3 * SEGMENT));
        assert_eq!(released(&[at(1, 7)], SEGMENT), at(1, 0));
    }

    #[test]
    fn nothing_is_released_while_a_target_is_unknown_or_on_another_timeline() {
        assert_eq!(released(&[at(1, 9), None], SEGMENT), None);
        assert_eq!(released(&[at(1, 9), at(2, 9)], SEGMENT), None);
        assert_eq!(released(&[], SEGMENT), None);
    }

    #[test]
    fn stored_means_stored_in_as_many_targets_as_are_required() {
        let targets = [at(1, 9), at(1, 4), None];
        assert_eq!(stored(&targets, 1), at(1, 9));
        assert_eq!(stored(&targets, 2), at(1, 4));
        assert_eq!(stored(&targets, 3), None);
        assert_eq!(stored(&[at(1, 9), at(2, 4)], 2), None);
    }
}
