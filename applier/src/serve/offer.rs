//! What a standby gets that asks for log from somewhere on: pure.
//!
//! What always holds: nothing is offered that the newest timeline's history does not hold, and no byte behind a fork of the timeline that was left there. What is refused
//! is refused with PostgreSQL's own code, so that a standby does what it does with a primary.

use farshore_engines::postgres::log::history::Branch as Leg;
use farshore_engines::postgres::serve::Refusal;
use farshore_journal::{Offset, Position, Timeline};

use super::State;
use crate::branches::Branches;

/// SQLSTATE of log that is not there any more, or was never here: the standby has to be made anew.
pub(super) const GONE: &str = "58P01";
/// SQLSTATE of a history that is not this one.
pub(super) const OTHER_HISTORY: &str = "55000";

/// The history that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its runs of log, oldest first; the last is the newest timeline's own.
    pub legs: Vec<Leg>,
    /// Its first byte here.
    pub begin: Offset,
    /// The first byte that is not here.
    pub end: Offset,
}

impl Line {
    /// The newest one of a journal.
    pub fn of(branches: &Branches) -> Self {
        let newest = branches.get(branches.newest());
        let legs = newest.map(|held| held.legs.clone()).unwrap_or_default();
        let first = legs.iter().find_map(|leg| branches.get(leg.timeline));
        let begin = first.map_or(branches.last.end, |held| held.begin);
        Self { legs, begin, end: branches.last.end }
    }

    /// That log of a timeline up to `end` has expired: nothing of the history is here before that, from where a segment begins.
    pub fn expired(&mut self, timeline: Timeline, end: Offset, segment_bytes: u64) {
        // What expired on a branch that was left says nothing of the history behind the fork.
        let leg = self.legs.iter().find(|leg| leg.timeline == timeline);
        let end = leg.filter(|leg| leg.begin < end).map(|leg| leg.end.map_or(end, |left| left.min(end)));
        if let Some(end) = end {
            self.begin = self.begin.max(segment_from(end, segment_bytes)).min(self.end);
        }
    }

    /// The first segment that is here from its start, and its timeline.
    pub fn first_segment(&self, segment_bytes: u64) -> Option<Position> {
        let start = segment_from(self.begin, segment_bytes);
        let leg = self.legs.iter().find(|leg| leg.end.is_none_or(|end| start < end))?;
        (start <= self.end).then_some(Position::new(leg.timeline, start))
    }

    /// The newest timeline.
    pub fn newest(&self) -> Option<Timeline> {
        self.legs.last().map(|leg| leg.timeline)
    }

    /// Where a timeline of the history was left, and for which.
    pub fn left(&self, timeline: Timeline) -> Option<(Offset, Timeline)> {
        let at = self.legs.iter().position(|leg| leg.timeline == timeline)?;
        Some((self.legs.get(at)?.end?, self.legs.get(at + 1)?.timeline))
    }
}

/// Where the first segment begins that does not begin before an offset.
fn segment_from(offset: Offset, segment_bytes: u64) -> Offset {
    Offset::new(offset.get().next_multiple_of(segment_bytes.max(1)))
}

/// What is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// Log of this timeline from the start on: up to where it was left, or on and on.
    Log { timeline: Timeline, start: Offset },
    /// None: the timeline was left right there.
    Left { next: Timeline, at: Offset },
}

/// Why nothing is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// What it says of the standby.
    pub state: State,
    /// What it is told.
    pub refusal: Refusal,
}

/// What is offered to whoever asks for `timeline`, or the newest, from `start` on.
///
/// # Errors
/// What it is refused with.
pub(super) fn offer(line: &Line, timeline: Option<Timeline>, start: Offset) -> Result<Offer, Refused> {
    let refused = |state, refusal| Err(Refused { state, refusal });
    let Some(newest) = line.newest() else {
        return refused(State::WaitsForStore, Refusal::new("57P03", "the journal holds no log yet"));
    };
    let timeline = timeline.unwrap_or(newest);
    let end = match line.left(timeline) {
        Some((at, _)) if start > at => {
            return refused(State::Diverged, Refusal::new(
                OTHER_HISTORY,
                format!("requested starting point {start} on timeline {timeline} is not in this journal's history, which left it at {at}"),
            )
            .hint("this standby has gone on with a timeline that was left: make it anew, or rewind it"));
        }
        Some((at, next)) if start == at => return Ok(Offer::Left { next, at }),
        Some((at, _)) => at,
        None if timeline == newest => line.end,
        None => {
            return refused(
                State::Diverged,
                Refusal::new(
                    OTHER_HISTORY,
                    format!(
                        "requested timeline {timeline} is not in this journal's history, whose newest is {newest}"
                    ),
                ),
            );
        }
    };
    if start > end {
        return refused(
            State::Ahead,
            Refusal::new(
                OTHER_HISTORY,
                format!("requested starting point {start} is ahead of this journal, which ends at {end}"),
            )
            .hint("the standby has more of the log than this store: serve it from one that has as much"),
        );
    }
    if start < line.begin {
        return refused(
            State::LogMissing,
            Refusal::new(
                GONE,
                format!("the log from {start} on is not in this journal, which begins at {}", line.begin),
            )
            .hint("make the standby anew: farshore restore"),
        );
    }
    Ok(Offer::Log { timeline, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let leg = |timeline, begin, end: Option<u64>| Leg {
            timeline: Timeline::new(timeline),
            begin: Offset::new(begin),
            end: end.map(Offset::new),
        };
        Line {
            legs: vec![leg(1, 0, Some(500)), leg(3, 500, Some(700)), leg(4, 700, None)],
            begin: Offset::new(100),
            end: Offset::new(900),
        }
    }

    #[test]
    fn what_has_expired_is_offered_to_nobody_and_a_slot_stands_at_a_segment_that_is_there() {
        let after = |runs: &[(u32, u64)]| {
            let mut line = line();
            for (timeline, end) in runs {
                line.expired(Timeline::new(*timeline), Offset::new(*end), 64);
            }
            let first = line.first_segment(64).map(|first| (first.timeline.get(), first.offset.get()));
            (line.begin.get(), first)
        };
        assert_eq!(after(&[]), (100, Some((1, 128))));
        assert_eq!(after(&[(1, 200), (1, 130)]), (256, Some((1, 256))));
        assert_eq!(after(&[(1, 490)]), (512, Some((3, 512))), "the segment is in the next timeline's");
        assert_eq!(after(&[(1, 600)]), (512, Some((3, 512))), "what was left expired beyond the fork");
        assert_eq!(after(&[(2, 800)]), (100, Some((1, 128))), "a branch that is nobody's");
        assert_eq!(after(&[(4, 899)]), (900, None));
    }

    #[test]
    fn what_the_history_holds_is_offered_and_nothing_else() {
        let log =
            |timeline, start| Ok(Offer::Log { timeline: Timeline::new(timeline), start: Offset::new(start) });
        let left = |next, at| Ok(Offer::Left { next: Timeline::new(next), at: Offset::new(at) });
        for (timeline, start, expected) in [
            (None, 900, log(4, 900)),
            (None, 100, log(4, 100)),
            (Some(4), 600, log(4, 600)),
            (Some(1), 100, log(1, 100)),
            (Some(1), 500, left(3, 500)),
            (Some(3), 699, log(3, 699)),
            (Some(3), 700, left(4, 700)),
            (Some(1), 501, Err("55000")),
            (Some(2), 100, Err("55000")),
            (Some(5), 100, Err("55000")),
            (None, 901, Err("55000")),
            (None, 99, Err("58P01")),
            (Some(1), 0, Err("58P01")),
        ] {
            let found = offer(&line(), timeline.map(Timeline::new), Offset::new(start))
                .map_err(|why| why.refusal.code);
            assert_eq!(found, expected, "{timeline:?} {start}");
        }
        let empty = Line { legs: Vec::new(), ..line() };
        assert_eq!(offer(&empty, None, Offset::new(0)).map_err(|why| why.refusal.code), Err("57P03"));
    }
}
