//! Whether anything at the primary holds the log that is received and not yet stored.
//!
//! The keep slot does, as a rule. While it is not there, or stands further on than a resume needs, the live slot is all there is,
//! and what is reported moves it: then no more may be reported than a resume can do without.

use farshore_engines::postgres::wire::Host;
use farshore_journal::{Offset, Position};
use tokio::sync::watch;

use crate::keep::{HostKept, Kept};
use crate::resume::compare_floor;

/// The keep slot on the host that a stream comes from.
pub(in crate::pipeline) struct Guard {
    kept: Option<watch::Receiver<HostKept>>,
    from: Position,
    segment_bytes: u64,
}

impl Guard {
    /// For a stream of `host` that began at `from`.
    pub(in crate::pipeline) fn new(kept: &Kept, host: &Host, from: Position, segment_bytes: u64) -> Self {
        let kept = kept.iter().find(|(of, _)| of == host).map(|(_, kept)| kept.clone());
        Self { kept, from, segment_bytes }
    }

    /// The most that may be reported; `None` when the keep slot holds what is not stored.
    pub(in crate::pipeline) fn limit(&self, stored: Option<Position>) -> Option<Offset> {
        let kept_from = self.kept.as_ref().and_then(|kept| kept.borrow().kept_from);
        limit(kept_from, self.from, stored, self.segment_bytes)
    }

    /// Whether the keep slot holds at least what is not stored, be it too little for a resume to compare.
    pub(in crate::pipeline) fn keeps_unstored(&self, stored: Option<Position>) -> bool {
        let kept_from = self.kept.as_ref().and_then(|kept| kept.borrow().kept_from);
        keeps_unstored(kept_from, self.from, stored, self.segment_bytes)
    }

    /// Why the primary does not keep the log as it should, if that is known.
    pub(in crate::pipeline) fn trouble(&self) -> Option<String> {
        self.kept.as_ref().and_then(|kept| kept.borrow().trouble.clone())
    }
}

fn limit(
    kept_from: Option<Offset>,
    from: Position,
    stored: Option<Position>,
    segment_bytes: u64,
) -> Option<Offset> {
    let stored = stored.filter(|stored| stored.timeline == from.timeline);
    // Never before the stream's begin: the slot would be moved back to log that may be gone.
    let floor =
        stored.map_or(from.offset, |stored| compare_floor(stored.offset, segment_bytes)).max(from.offset);
    // Log is kept by whole segments.
    match kept_from {
        Some(kept_from) if kept_from.segment_start(segment_bytes) <= floor => None,
        _ => Some(floor),
    }
}

fn keeps_unstored(
    kept_from: Option<Offset>,
    from: Position,
    stored: Option<Position>,
    segment_bytes: u64,
) -> bool {
    let stored = stored.filter(|stored| stored.timeline == from.timeline);
    let needed = stored.map_or(from.offset, |stored| stored.offset);
    // Log is kept by whole segments.
    kept_from.is_some_and(|kept_from| kept_from.segment_start(segment_bytes) <= needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Timeline;

    const SEGMENT: u64 = 16 << 20;

    fn at(timeline: u32, offset: u64) -> Position {
        Position::new(Timeline::new(timeline), Offset::new(offset))
    }

    #[test]
    fn what_the_keep_slot_does_not_hold_is_not_reported() {
        let stored = Some(at(1, 5 * SEGMENT + (2 << 20)));
        let limited = |kept: Option<u64>| limit(kept.map(Offset::new), at(1, SEGMENT), stored, SEGMENT);
        assert_eq!(limited(Some(5 * SEGMENT + 7)), None);
        assert_eq!(limited(Some(6 * SEGMENT)), Some(Offset::new(5 * SEGMENT)));
        assert_eq!(limited(None), Some(Offset::new(5 * SEGMENT)));
    }

    #[test]
    fn a_slot_that_was_made_where_stored_log_ends_keeps_what_is_not_stored() {
        // Too little for a resume, which compares the segment before: the limit of `async` stands.
        let stored = Some(at(1, 5 * SEGMENT + 7));
        let keeps =
            |kept: Option<u64>| keeps_unstored(kept.map(Offset::new), at(1, SEGMENT), stored, SEGMENT);
        assert!(limit(Some(Offset::new(5 * SEGMENT)), at(1, SEGMENT), stored, SEGMENT).is_some());
        assert!(keeps(Some(5 * SEGMENT + 9)) && keeps(Some(SEGMENT)));
        assert!(!keeps(Some(6 * SEGMENT)) && !keeps(None));
    }

    #[test]
    fn the_slot_is_never_moved_back_behind_the_streams_begin() {
        let from = at(2, 5 * SEGMENT);
        for stored in [None, Some(at(1, 9 * SEGMENT)), Some(at(2, 5 * SEGMENT + 9))] {
            assert_eq!(limit(None, from, stored, SEGMENT), Some(from.offset), "{stored:?}");
        }
    }
}
