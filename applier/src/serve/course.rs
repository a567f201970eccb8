//! Whether the log that is being read is what another look at the journal would have read: pure.
//!
//! What always holds: nothing but an end may have moved, and that only on. A reader that is kept reads no further than the look that it began with saw the journal end, so that it reads
//! nothing behind a fork that was found since: a fork that lies before what it reads to, or on another timeline, is another course. That each chunk continues the one before it is the
//! reader's own matter, whichever look it began with.

use farshore_journal::{Offset, Timeline};

use crate::branches::Stretch;

/// Which log is read.
#[derive(Debug, Clone)]
pub(super) struct Course {
    stretches: Vec<Stretch>,
    /// Where the timeline was left, and for which.
    left: Option<(Offset, Timeline)>,
}

impl Course {
    /// These stretches, of a timeline that was left there.
    pub fn new(stretches: Vec<Stretch>, left: Option<(Offset, Timeline)>) -> Self {
        Self { stretches, left }
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Whether whoever reads `former`, and is at `cursor`, reads what this one begins with, which is read from there.
    pub fn continues(&self, former: &Self, cursor: Offset) -> bool {
        let rest: Vec<_> = former.stretches.iter().filter(|stretch| stretch.to > cursor).collect();
        let Some((last, before)) = rest.split_last() else { return false };
        let Some((now_last, now_before)) = self.stretches.split_last() else { return false };
        self.left == former.left
            && before.len() == now_before.len()
            && before.iter().zip(now_before).all(|(former, now)| {
                is_same(former, now) && (former.held.last, former.to) == (now.held.last, now.to)
            })
            && is_same(last, now_last)
            && last.held.last <= now_last.held.last
            && last.to <= now_last.to
    }
}

/// Whether both are of one timeline that begins in the same place.
fn is_same(former: &Stretch, now: &Stretch) -> bool {
    let of = |stretch: &Stretch| (stretch.held.timeline, stretch.held.first, stretch.held.begin);
    of(former) == of(now) && former.held.history == now.held.history
}

#[cfg(test)]
mod tests {
    use farshore_journal::Sequence;

    use super::*;
    use crate::branches::Held;

    /// Timeline, first and last chunk, from, to.
    fn stretch((timeline, first, last, from, to): (u32, u64, u64, u64, u64)) -> Stretch {
        let held = Held {
            timeline: Timeline::new(timeline),
            first: Sequence::new(first),
            last: Sequence::new(last),
            begin: Offset::new(0),
            end: Offset::new(to),
            history: None,
            forked: false,
            legs: Vec::new(),
        };
        Stretch { held, from: Offset::new(from), to: Offset::new(to) }
    }

    fn course(stretches: &[(u32, u64, u64, u64, u64)], left: Option<(u64, u32)>) -> Course {
        let left = left.map(|(at, next)| (Offset::new(at), Timeline::new(next)));
        Course::new(stretches.iter().copied().map(stretch).collect(), left)
    }

    #[test]
    fn what_is_read_is_kept_while_nothing_but_the_end_moved_on() {
        let former = course(&[(1, 1, 9, 100, 500), (2, 10, 20, 500, 800)], None);
        let kept = |now: &[(u32, u64, u64, u64, u64)], left, cursor| {
            course(now, left).continues(&former, Offset::new(cursor))
        };
        for (what, now, left, cursor, expected) in [
            ("nothing moved", &[(1, 1, 9, 200, 500), (2, 10, 20, 500, 800)][..], None, 200, true),
            ("the end moved on", &[(1, 1, 9, 200, 500), (2, 10, 29, 500, 950)], None, 200, true),
            ("the first is read", &[(2, 10, 29, 600, 950)], None, 600, true),
            ("all is read", &[(2, 10, 29, 800, 950)], None, 800, false),
            ("the end moved back", &[(1, 1, 9, 200, 500), (2, 10, 19, 500, 750)], None, 200, false),
            ("it was left", &[(1, 1, 9, 200, 500), (2, 10, 20, 500, 700)], Some((700, 3)), 200, false),
            ("it was left further on", &[(2, 10, 20, 600, 800)], Some((900, 3)), 600, false),
            ("a former one ends elsewhere", &[(1, 1, 8, 200, 450), (2, 9, 20, 450, 800)], None, 200, false),
            ("a former one is longer", &[(1, 1, 10, 200, 500), (2, 10, 20, 500, 800)], None, 200, false),
            ("it begins with another chunk", &[(2, 11, 20, 600, 800)], None, 600, false),
            ("another timeline", &[(3, 10, 20, 600, 800)], None, 600, false),
            ("one more timeline", &[(2, 10, 20, 600, 800), (3, 21, 22, 800, 900)], None, 600, false),
            ("it is gone", &[], None, 600, false),
        ] {
            assert_eq!(kept(now, left, cursor), expected, "{what}");
        }
        let left = |next| course(&[(1, 1, 9, 100, 500)], Some((500, next)));
        assert!(left(2).continues(&left(2), Offset::new(100)));
        assert!(!left(3).continues(&left(2), Offset::new(100)), "another history goes on from there");
        let mut other = course(&[(2, 10, 20, 600, 800)], None);
        other.stretches[0].held.history = Some(b"1\t0/1F4\tx\n".to_vec());
        assert!(!other.continues(&former, Offset::new(600)), "it is another one of the same number");
    }
}
