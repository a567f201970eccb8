//! What a promotion may do, given where the standby and its journal stand: pure.
//!
//! What always holds: a standby is held to have all only where it received every byte of the journal's newest timeline, or replayed the last whole record there is. What it received is
//! compared and not what it replayed, because a journal may end in the middle of a record, which no server replays; and what it replayed is compared with what it received, because
//! only that is in the database. Positions of two timelines say nothing of each other.

use std::time::Duration;

use farshore_journal::{Offset, Position};

/// What is known of a standby and of the journal it is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The end of what the standby has durable, on the timeline that it replays.
    pub received: Position,
    /// The end of what it replayed.
    pub replayed: Offset,
    /// The journal's end.
    pub journal: Position,
    /// The end of the last whole record in the journal, where that was looked for.
    pub whole: Option<Position>,
}

/// How a standby stands to its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It has all, and replayed it.
    Done,
    /// It has all, and has not replayed it yet.
    Replays,
    /// The journal holds so many bytes more.
    Behind(u64),
    /// The journal went on to a later timeline.
    OlderTimeline,
    /// It is on a timeline that the journal has nothing of.
    LaterTimeline,
    /// It has so many bytes more than the journal.
    Ahead(u64),
}

/// How it stands.
pub fn stands(known: &Known) -> Stands {
    let Known { received, replayed, journal, whole } = *known;
    if received.timeline < journal.timeline {
        return Stands::OlderTimeline;
    }
    if received.timeline > journal.timeline {
        return Stands::LaterTimeline;
    }
    let has = received.offset.max(replayed);
    let whole = whole.filter(|whole| whole.timeline == journal.timeline).map(|whole| whole.offset);
    if has > journal.offset {
        return Stands::Ahead(has.get() - journal.offset.get());
    }
    // Behind the last whole record nothing can be replayed, however much of the next one is there.
    if replayed == journal.offset || whole.is_some_and(|whole| replayed >= whole) {
        return Stands::Done;
    }
    match has < journal.offset && whole.is_none_or(|whole| has < whole) {
        true => Stands::Behind(journal.offset.get() - has.get()),
        false => Stands::Replays,
    }
}

/// What to do next about a standby that is to be promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Promote it.
    Promote,
    /// Look again.
    Wait,
    /// Ask where the last whole record of the journal ends: nothing moves any more, and it may have replayed that one.
    AskWhole,
    /// Do not.
    Refuse,
}

/// For how long was waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// Since what it received or replayed last moved.
    pub still: Duration,
    /// How long that may be before nothing more is waited for.
    pub patience: Duration,
    /// Whether there is time at all.
    pub left: bool,
    /// Whether the last whole record was looked for, found or not.
    pub asked: bool,
}

/// The next step. What is ahead, or on a later timeline than the journal, does not become otherwise by waiting.
pub fn step(known: &Known, waited: Waited) -> Step {
    let Waited { still, patience, left, asked } = waited;
    match stands(known) {
        Stands::Done => Step::Promote,
        Stands::Ahead(_) | Stands::LaterTimeline => Step::Refuse,
        Stands::Replays | Stands::Behind(_) if still >= patience && !asked => Step::AskWhole,
        // Replay may be held up by queries for as long as the server lets them.
        Stands::Replays if left => Step::Wait,
        Stands::Behind(_) | Stands::OlderTimeline if left && still < patience => Step::Wait,
        Stands::Replays | Stands::Behind(_) | Stands::OlderTimeline => Step::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use farshore_journal::Timeline;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(6);

    fn at(timeline: u32, offset: u64) -> Position {
        Position::new(Timeline::new(timeline), Offset::new(offset))
    }

    /// On timeline 2 of a journal that ends at 100, with the last whole record at `whole`.
    fn known(timeline: u32, received: u64, replayed: u64, whole: Option<u64>) -> Known {
        Known {
            received: at(timeline, received),
            replayed: Offset::new(replayed),
            journal: at(2, 100),
            whole: whole.map(|whole| at(2, whole)),
        }
    }

    #[test]
    fn a_standby_has_all_only_where_it_received_the_end_or_replayed_the_last_whole_record() {
        for (timeline, received, replayed, whole, expected) in [
            (2, 100, 100, None, Stands::Done),
            (2, 100, 90, None, Stands::Replays),
            (2, 100, 90, Some(90), Stands::Done),
            (2, 100, 80, Some(90), Stands::Replays),
            (2, 95, 90, None, Stands::Behind(5)),
            (2, 95, 80, Some(90), Stands::Replays),
            // After a restart without anybody who serves nothing is known to be received.
            (2, 64, 90, Some(90), Stands::Done),
            (2, 64, 89, Some(90), Stands::Behind(11)),
            (2, 64, 64, None, Stands::Behind(36)),
            (2, 101, 90, Some(90), Stands::Ahead(1)),
            (2, 90, 101, Some(90), Stands::Ahead(1)),
            (1, 100, 100, Some(90), Stands::OlderTimeline),
            (1, 200, 200, None, Stands::OlderTimeline),
            (3, 100, 100, None, Stands::LaterTimeline),
        ] {
            let known = known(timeline, received, replayed, whole);
            assert_eq!(stands(&known), expected, "{known:?}");
        }
        // What a plan found on a timeline that was left is none of the newest one's.
        let left = Known { whole: Some(at(1, 10)), ..known(2, 64, 64, None) };
        assert_eq!(stands(&left), Stands::Behind(36));
    }

    /// Every standing, with and without time, moving and still, before and after the last whole record was looked for.
    #[test]
    fn only_one_that_has_all_is_promoted_and_what_can_still_come_is_waited_for() {
        let (moving, still) = (Duration::ZERO, PATIENCE);
        for left in [true, false] {
            for still_for in [moving, still] {
                for whole in [None, Some(90)] {
                    let asked = whole.is_some();
                    let waited = Waited { still: still_for, patience: PATIENCE, left, asked };
                    let next = |known: Known| step(&known, waited);
                    let asks = still_for == still && !asked;
                    let (wait, refuse) = (Step::Wait, Step::Refuse);
                    assert_eq!(next(known(2, 100, 100, whole)), Step::Promote);
                    assert_eq!(next(known(2, 101, 100, whole)), refuse);
                    assert_eq!(next(known(3, 100, 100, whole)), refuse);
                    let behind = next(known(2, 80, 80, whole));
                    let replays = next(known(2, 100, 80, whole));
                    let older = next(known(1, 80, 80, whole));
                    if asks {
                        assert_eq!((behind, replays), (Step::AskWhole, Step::AskWhole));
                    } else {
                        assert_eq!(behind, if left && still_for == moving { wait } else { refuse });
                        assert_eq!(replays, if left { wait } else { refuse });
                    }
                    // Asked, and not found: as before, and not asked again.
                    let unknown = step(&known(2, 80, 80, None), Waited { asked: true, ..waited });
                    assert_eq!(unknown, if left && still_for == moving { wait } else { refuse });
                    assert_eq!(older, if left && still_for == moving { wait } else { refuse });
                }
            }
        }
    }
}
