//! What a look at a promise does to its ledger: pure functions, the clock passed in.
//!
//! What is *known to hold*: the time between two looks that follow each other, that both saw the promise kept, and that are at most [`BEARABLE`] apart by a
//! clock that did not go back further than that. Everything else from the first look on is in an entry, whatever crashed, hung or stepped meanwhile
//! (the property test below). What is shorter than the time between two looks may go unseen, and is claimed by nobody.
//!
//! An entry begins at the last look that saw the promise kept, since nobody knows when between the two it broke, and ends at the first that saw it
//! kept again, once it was seen so for [`SETTLE`]: what breaks every few seconds is one entry. A clock that went back by more than [`BEARABLE`] makes the
//! moments between one entry: they came twice, and cannot be told apart.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::event::{Event, What, Why, Whys};
use crate::Time;

/// How far apart two looks may be that vouch for the time between them.
pub const BEARABLE: TimeDelta = TimeDelta::seconds(15);
/// For how long a promise must be seen kept until an entry is over.
pub const SETTLE: TimeDelta = TimeDelta::seconds(15);
/// How often it is said that a promise was kept: so much of what is known is lost with a catalog.
pub const WITNESS: TimeDelta = TimeDelta::hours(6);

/// What a look saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The promise holds: at most this is not stored, in milliseconds.
    Kept(u64),
    /// It does not hold, or is not known to; the exposure where it is known.
    Not(Why, Option<u64>),
    /// Not known at this moment, as while bytes are on their way: the next look tells. Too many of them are [`Why::Unknown`].
    InDoubt,
}

/// An entry that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// From when on.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub from: Time,
    /// The latest moment of which it is known that the promise was not known to hold.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub until: Time,
    /// Why, all of it so far.
    pub whys: Whys,
    /// The worst exposure that was seen.
    pub worst_ms: Option<u64>,
    /// Since when it is seen kept again.
    #[serde(with = "chrono::serde::ts_microseconds_option")]
    pub kept_since: Option<Time>,
}

/// What is kept of a promise between two looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The last look.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub last: Time,
    /// Up to when the stores will know that it was kept.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub witnessed: Time,
    /// The entry that is open.
    pub open: Option<Open>,
    /// What was promised at the last look; not known of looks before it was kept.
    #[serde(default)]
    pub objective_ms: Option<u64>,
}

impl Watch {
    /// Goes on under what is promised now. Where that is another promise, the time that the one before was kept is said up to the last look, under what was
    /// promised then: nobody has seen the new one kept in it.
    pub(crate) fn under(&mut self, objective_ms: u64) -> Option<Event> {
        let before = self.objective_ms.replace(objective_ms).filter(|before| *before != objective_ms)?;
        if self.open.is_some() {
            return None;
        }
        let span = (self.witnessed.min(self.last), self.last);
        self.witnessed = self.last;
        let kept = said(What::Kept, span, Whys::default(), None, self.last);
        Some(Event { objective_ms: before, ..kept })
    }

    /// What is known behind events that were taken back: up to their end and no further, so that all time since then is in an entry, however short it
    /// is: whoever looked then is lost. `all` are those and what was appended since.
    pub(crate) fn behind(taken: &[Event], all: &[Event], now: Time) -> Option<(Self, Vec<Event>)> {
        // What ended, or was kept, was seen kept up to when that was decided.
        let known = |event: &Event| match event.what {
            What::Ended | What::Kept => event.at,
            What::Opened | What::Grew => event.until.min(event.at),
        };
        let last = taken.iter().map(known).max()?.min(now);
        let mut open: Option<Open> = None;
        for event in all {
            match event.what {
                What::Opened | What::Grew => {
                    let one = open.get_or_insert(Open {
                        from: event.from,
                        until: event.until,
                        whys: Whys::default(),
                        worst_ms: None,
                        kept_since: None,
                    });
                    one.from = one.from.min(event.from);
                    one.until = one.until.max(event.until);
                    one.whys.0.extend(event.whys.0.iter().copied());
                    one.worst_ms = one.worst_ms.max(event.worst_ms);
                }
                What::Ended => open = None,
                What::Kept => {}
            }
        }
        let (mut watch, mut events) =
            (Self { last: now, witnessed: now, open, objective_ms: None }, Vec::new());
        widen(&mut watch, &mut events, (last, now), Why::NotLooked, None, now);
        Some((watch, events))
    }
}

/// Takes a look: what is kept now, and what is to be appended. The events' promise and objective are their caller's.
pub fn look(before: Option<&Watch>, seen: Seen, now: Time) -> (Watch, Vec<Event>) {
    let Some(before) = before else { return first(seen, now) };
    let apart = now - before.last;
    let seen = match seen {
        Seen::InDoubt if apart.abs() <= BEARABLE => return (before.clone(), Vec::new()),
        Seen::InDoubt => Seen::Not(Why::Unknown, None),
        seen => seen,
    };
    let mut watch = Watch { last: now, ..before.clone() };
    let mut events = Vec::new();
    let (from, until) = (before.last.min(now), before.last.max(now));
    if apart > BEARABLE {
        widen(&mut watch, &mut events, (from, until), Why::NotLooked, None, now);
    } else if apart < -BEARABLE {
        widen(&mut watch, &mut events, (from, until), Why::Clock, None, now);
    }
    match seen {
        Seen::Not(why, worst) => widen(&mut watch, &mut events, (from, until), why, worst, now),
        Seen::Kept(worst) => kept(&mut watch, &mut events, from, worst, now),
        Seen::InDoubt => {}
    }
    (watch, events)
}

fn first(seen: Seen, now: Time) -> (Watch, Vec<Event>) {
    let mut watch = Watch { last: now, witnessed: now, open: None, objective_ms: None };
    let mut events = Vec::new();
    match seen {
        Seen::Kept(worst) => events.push(said(What::Kept, (now, now), Whys::default(), Some(worst), now)),
        Seen::Not(why, worst) => widen(&mut watch, &mut events, (now, now), why, worst, now),
        Seen::InDoubt => widen(&mut watch, &mut events, (now, now), Why::Unknown, None, now),
    }
    (watch, events)
}

/// Takes a span into the entry that is open, or opens one.
fn widen(
    watch: &mut Watch,
    events: &mut Vec<Event>,
    (from, until): (Time, Time),
    why: Why,
    worst: Option<u64>,
    now: Time,
) {
    let Some(open) = &mut watch.open else {
        let open = Open { from, until, whys: why.into(), worst_ms: worst, kept_since: None };
        events.push(said(What::Opened, (from, until), open.whys.clone(), worst, now));
        watch.open = Some(open);
        return;
    };
    let is_earlier = from < open.from;
    open.from = open.from.min(from);
    open.until = open.until.max(until);
    open.worst_ms = open.worst_ms.max(worst);
    open.kept_since = None;
    // There are as many reasons as words, so an entry grows a few times and no more.
    if open.whys.add(why) || is_earlier {
        events.push(said(What::Grew, (open.from, open.until), open.whys.clone(), open.worst_ms, now));
    }
}

/// `from` is the earlier of the look before and this one: nobody vouches for the time from there where that one did not see it kept.
fn kept(watch: &mut Watch, events: &mut Vec<Event>, from: Time, worst: u64, now: Time) {
    let Some(open) = &mut watch.open else {
        if (now - watch.witnessed).abs() >= WITNESS {
            let span = (watch.witnessed.min(now), now);
            events.push(said(What::Kept, span, Whys::default(), Some(worst), now));
            watch.witnessed = now;
        }
        return;
    };
    if open.kept_since.is_none() {
        // Up to here nobody vouches, wherever the clock steps until the entry is over.
        open.until = open.until.max(now);
        // The clock went back a little, by less than what is an entry of its own.
        if from < open.from {
            open.from = from;
            events.push(said(What::Grew, (open.from, open.until), open.whys.clone(), open.worst_ms, now));
        }
    }
    let since = open.kept_since.map_or(now, |since| since.min(now));
    open.kept_since = Some(since);
    if now - since >= SETTLE {
        let until = open.until.max(since);
        events.push(said(What::Ended, (open.from, until), open.whys.clone(), open.worst_ms, now));
        watch.open = None;
        watch.witnessed = now;
    }
}

fn said(what: What, (from, until): (Time, Time), whys: Whys, worst_ms: Option<u64>, at: Time) -> Event {
    Event { at, promise: String::new(), what, from, until, whys, worst_ms, objective_ms: 0 }
}

#[cfg(test)]
mod tests {
    use super::super::entry::spans;
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Time {
        Time::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(seconds)
    }

    fn run(looks: &[(i64, Seen)]) -> (Option<Watch>, Vec<Event>) {
        let (mut watch, mut events) = (None, Vec::new());
        for (seconds, seen) in looks {
            let (next, more) = look(watch.as_ref(), *seen, at(*seconds));
            watch = Some(next);
            events.extend(more);
        }
        (watch, events)
    }

    fn words(events: &[Event]) -> Vec<(What, i64, i64, String)> {
        let seconds = |time: Time| (time - at(0)).num_seconds();
        events.iter().map(|e| (e.what, seconds(e.from), seconds(e.until), e.whys.to_string())).collect()
    }

    #[test]
    fn an_entry_reaches_from_the_last_look_that_saw_it_kept_to_the_first_that_sees_it_so_again() {
        let not = Seen::Not(Why::TargetFailing, Some(9000));
        let kept = Seen::Kept(0);
        let looks = [
            (0, kept),
            (5, kept),
            (10, not),
            (15, not),
            (20, kept),
            (25, not),
            (30, kept),
            (35, kept),
            (45, kept),
        ];
        let (watch, events) = run(&looks);
        assert_eq!(
            words(&events[1..]),
            [
                (What::Opened, 5, 10, "target_failing".to_owned()),
                (What::Ended, 5, 30, "target_failing".to_owned())
            ]
        );
        assert_eq!(events[2].worst_ms, Some(9000));
        assert_eq!(watch.unwrap().open, None);
    }

    #[test]
    fn time_in_which_nobody_looked_is_an_entry_with_the_bounds_that_are_known() {
        let kept = Seen::Kept(0);
        let (_, events) = run(&[(0, kept), (5, kept), (100, kept), (105, kept), (110, kept), (115, kept)]);
        assert_eq!(
            words(&events[1..]),
            [(What::Opened, 5, 100, "not_looked".to_owned()), (What::Ended, 5, 100, "not_looked".to_owned())]
        );
        // The clock went back an hour: its moments came twice.
        let (watch, events) = run(&[(0, kept), (3600, Seen::Not(Why::Behind, Some(1))), (10, kept)]);
        let open = watch.unwrap().open.unwrap();
        assert_eq!((open.from, open.until), (at(0), at(3600)));
        assert_eq!(words(&events).last().unwrap().3, "behind,not_looked,clock");
        // A little doubt is nothing, much of it is not knowing.
        let (_, events) =
            run(&[(0, kept), (5, Seen::InDoubt), (10, kept), (20, Seen::InDoubt), (26, Seen::InDoubt)]);
        assert_eq!(
            words(&events[1..]),
            [
                (What::Opened, 10, 26, "not_looked".to_owned()),
                (What::Grew, 10, 26, "unknown,not_looked".to_owned())
            ]
        );
    }

    #[test]
    fn what_was_kept_under_one_promise_is_not_said_of_another() {
        let mut watch = run(&[(0, Seen::Kept(0)), (10, Seen::Kept(0))]).0.unwrap();
        assert_eq!((watch.under(1000), watch.under(1000)), (None, None));
        let kept = watch.under(60_000).unwrap();
        assert_eq!((kept.what, kept.from, kept.until, kept.objective_ms), (What::Kept, at(0), at(10), 1000));
        let (next, events) = look(Some(&watch), Seen::Kept(0), at(10) + WITNESS);
        assert_eq!((next.objective_ms, events[0].from >= at(10)), (Some(60_000), true));
    }

    #[test]
    fn a_clock_that_goes_back_a_little_behind_a_broken_promise_leaves_no_moment_out() {
        let (watch, events) = run(&[(0, Seen::Not(Why::Behind, Some(0))), (-3, Seen::Kept(3))]);
        let open = watch.unwrap().open.unwrap();
        assert_eq!((open.from, open.until), (at(-3), at(0)));
        assert_eq!((events[1].what, events[1].from), (What::Grew, at(-3)));
    }

    #[test]
    fn a_clock_that_goes_back_while_an_entry_settles_does_not_end_it_before_the_first_look_that_saw_it_kept()
    {
        let kept = Seen::Kept(3);
        let (_, events) = run(&[(0, Seen::Not(Why::Behind, Some(0))), (1, kept), (-13, kept), (2, kept)]);
        assert_eq!(words(&events).last().unwrap(), &(What::Ended, 0, 1, "behind".to_owned()));
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            4 => Just(Seen::Kept(3)),
            2 => (0..Why::ALL.len()).prop_map(|n| Seen::Not(Why::ALL[n], Some(n as u64))),
            1 => Just(Seen::InDoubt),
        ]
    }

    proptest! {
        /// Looks with any time between them, a clock that steps either way, and crashes, which lose looks that were never kept: what is in no entry is
        /// exactly what two looks vouch for, and the ledger read back from its events alone says the same.
        #[test]
        fn the_ledger_covers_every_moment_at_which_the_promise_was_not_known_to_hold(
            steps in prop::collection::vec((prop_oneof![8 => 0_i64..20, 2 => 20_i64..400, 1 => -400_i64..0], seen(), prop::bool::weighted(0.15)), 1..60)
        ) {
            let (mut watch, mut events): (Option<Watch>, Vec<Event>) = (None, Vec::new());
            let mut clock = 0;
            // What was seen, as the ledger was told: the moment and whether it was kept.
            let mut told: Vec<(i64, bool)> = Vec::new();
            for (step, seen, is_lost) in steps {
                clock += step;
                if is_lost {
                    continue;
                }
                if let (Seen::InDoubt, Some((last, _))) = (seen, told.last())
                    && (clock - last).abs() <= BEARABLE.num_seconds()
                {
                    continue;
                }
                let (next, more) = look(watch.as_ref(), seen, at(clock));
                // What is kept survives as its text.
                watch = Some(serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap());
                events.extend(more);
                told.push((clock, matches!(seen, Seen::Kept(_))));
            }
            let covered = spans(&events, watch.as_ref());
            let is_covered = |from: i64, until: i64| covered.iter().any(|(a, b)| *a <= at(from) && b.is_none_or(|b| at(until) <= b));
            for pair in told.windows(2) {
                let [(a, kept_a), (b, kept_b)] = pair else { unreachable!() };
                let vouched = *kept_a && *kept_b && (b - a).abs() <= BEARABLE.num_seconds();
                prop_assert!(vouched || is_covered(*a.min(b), *a.max(b)), "{a}..{b} of {told:?} is not in {covered:?}");
            }
            if let Some((last, false)) = told.last() {
                prop_assert!(is_covered(*last, *last) && covered.iter().any(|(_, until)| until.is_none()), "{told:?}: {covered:?}");
            }
            // Events alone, as a store has them, know at least every entry that is over, and that one is open.
            let from_store = spans(&events, None);
            for span in covered.iter().filter(|(_, until)| until.is_some()) {
                prop_assert!(from_store.contains(span), "{span:?} is not in {from_store:?}");
            }
            prop_assert_eq!(from_store.iter().filter(|(_, until)| until.is_none()).count(), covered.iter().filter(|(_, until)| until.is_none()).count());
        }
    }
}
