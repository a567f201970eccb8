//! Writers that are faster than following: whether they are to be held for a moment, so that their log does not grow without bound.
//!
//! Pure: told at each look how far the log is counted and taken. The log is begun anew only where all of it is taken, so once writers are held they are held
//! again and again until little waits. They are held only where that can come about: a target that takes hardly anything is no reason to hold
//! anybody, and its log grows as far as it may.

use std::time::Duration;

/// Bytes that may wait to be taken, with nobody held.
const MUCH_BYTES: u64 = 64 << 20;
/// Bytes with which it has come to an end.
const LITTLE_BYTES: u64 = 2 << 20;
/// How long writers are held at a time, at first and at most: the longer, the more often it did not suffice. It does where what waits shrinks by half of
/// what is taken.
const HOLD: Duration = Duration::from_millis(100);
const MOST_HOLD: Duration = Duration::from_millis(400);
/// How long they are free between two holds, at first and at least: as long as SQLite sleeps at most before it looks whether it may write.
const FREE: Duration = Duration::from_millis(200);
const LEAST_FREE: Duration = Duration::from_millis(100);
/// How many times faster than whoever takes the records writers may be for holds to be tried: less than what [`MOST_HOLD`] and [`LEAST_FREE`] can come to.
const FASTER: u64 = 4;

/// How often in a row holds may be of no use before no more are tried for now.
const VAIN: u32 = 5;

/// What the last look saw, bytes of one life of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    counted: u64,
    taken: u64,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Pace {
    last: Option<Seen>,
    /// Writers are held now and then.
    holding: bool,
    hold: Duration,
    free: Duration,
    /// Bytes that were taken while they were held last.
    gained: u64,
    /// How often in a row it was of no use.
    vain: u32,
}

impl Pace {
    pub fn new() -> Self {
        Self { last: None, holding: false, hold: HOLD, free: FREE, gained: 0, vain: 0 }
    }

    /// How long a look takes what is new with nobody held.
    pub fn free(&self) -> Duration {
        self.free
    }

    /// So many bytes of the log are counted, and so many taken. How long writers are to be held now, if they are.
    pub fn look(&mut self, counted: u64, taken: u64) -> Option<Duration> {
        let last = self.last.replace(Seen { counted, taken });
        let waits = counted.saturating_sub(taken);
        if waits <= if self.holding { LITTLE_BYTES } else { MUCH_BYTES } {
            self.let_go();
            return None;
        }
        // Another life of the log says nothing of this one's pace.
        let Some(last) = last.filter(|last| last.taken <= taken && last.counted <= counted) else {
            self.let_go();
            return None;
        };
        let (came, went) = (counted - last.counted, taken - last.taken);
        if !self.holding {
            self.holding = came >= went && came <= FASTER.saturating_mul(went);
            return self.holding.then_some(self.hold);
        }
        // With what was taken while they were held before.
        let gained = std::mem::take(&mut self.gained);
        let cycle = went + gained;
        let most = self.hold == MOST_HOLD && self.free == LEAST_FREE;
        self.vain = if gained == 0 || (most && came > cycle) { self.vain + 1 } else { 0 };
        if self.vain >= VAIN {
            // Nobody takes anything, or it is of no use.
            self.let_go();
            return None;
        }
        if came > cycle / 2 {
            self.hold = (self.hold * 2).min(MOST_HOLD);
            self.free = (self.free / 2).max(LEAST_FREE);
        } else if came < cycle / 8 {
            self.hold = (self.hold / 2).max(HOLD);
            self.free = (self.free * 2).min(FREE);
        }
        Some(self.hold)
    }

    /// Writers were held, and the log stands so behind it.
    pub fn held(&mut self, counted: u64, taken: u64) {
        let before = self.last.replace(Seen { counted, taken });
        self.gained = before.map_or(0, |before| taken.saturating_sub(before.taken));
        if counted.saturating_sub(taken) <= LITTLE_BYTES {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        *self = Self { last: self.last, ..Self::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = (1 << 20) as f64;

    /// Writers and a taker of so many MiB a second: the most that the log came to in a minute, MiB, and the share of it that writers were held.
    fn minute(writers: f64, taker: f64) -> (f64, f64) {
        let (mut pace, mut now, mut held, mut most) = (Pace::new(), 0.0, 0.0, 0.0f64);
        let (mut counted, mut taken) = (0.0f64, 0.0f64);
        while now < 60.0 {
            if let Some(hold) = pace.look((counted * MIB) as u64, (taken * MIB) as u64) {
                let time = hold.as_secs_f64().min((counted - taken) / taker);
                taken += taker * time;
                now += time;
                held += time;
                pace.held((counted * MIB) as u64, (taken * MIB) as u64);
            }
            if counted - taken < 1.0 {
                (counted, taken) = (0.0, 0.0);
            }
            let time = pace.free().as_secs_f64();
            counted += writers * time;
            taken = (taken + taker * time).min(counted);
            now += time;
            most = most.max(counted);
        }
        (most, held / 60.0)
    }

    #[test]
    fn the_log_of_a_writer_that_is_several_times_faster_stays_bounded() {
        for (writers, taker) in [(110.0, 100.0), (150.0, 100.0), (300.0, 200.0), (350.0, 100.0)] {
            let (most, held) = minute(writers, taker);
            let needed = 1.0 - taker / writers;
            assert!(most < 1000.0, "{writers} of {taker}: {most}");
            assert!(held < needed + 0.2, "{writers} of {taker}: held for {held}, where {needed} is needed");
        }
    }

    #[test]
    fn nobody_is_held_where_following_keeps_up_or_the_target_takes_hardly_anything() {
        for (writers, taker) in [(100.0, 110.0), (5.0, 200.0), (100.0, 1.0), (100.0, 20.0)] {
            assert_eq!(minute(writers, taker).1, 0.0, "{writers} of {taker}");
        }
    }

    #[test]
    fn nobody_is_held_while_what_waits_shrinks_by_itself_or_behind_a_log_begun_anew() {
        let mut pace = Pace::new();
        assert_eq!(pace.look(500 << 20, 0), None);
        assert_eq!(pace.look(510 << 20, 100 << 20), None, "it shrinks");
        assert_eq!(pace.look(200 << 20, 0), None, "another life");
        assert_eq!(pace.look(250 << 20, 0), None, "nothing is taken at all");
        assert_eq!(pace.look(300 << 20, 40 << 20), Some(HOLD));
    }

    #[test]
    fn once_begun_writers_are_held_until_little_waits() {
        let mut pace = Pace::new();
        assert_eq!(pace.look(100 << 20, 0), None);
        assert_eq!(pace.look(200 << 20, 50 << 20), Some(HOLD));
        pace.held(200 << 20, 150 << 20);
        assert_eq!(pace.look(220 << 20, 200 << 20), Some(HOLD), "20 MiB wait");
        pace.held(220 << 20, 219 << 20);
        assert_eq!(pace.look(221 << 20, 220 << 20), None);
        assert_eq!(pace.free(), FREE);
    }
}
