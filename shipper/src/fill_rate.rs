//! How soon the primary's disk is full, from how fast the log grows that it keeps: pure, the clock is passed in.
//!
//! `None` is "not known", and also "not at this rate": log that does not grow fills nothing. It is never 0 by guess.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Looks are kept for so long: long enough that a checkpoint's recycling does not look like a trend.
const WINDOW: Duration = Duration::from_secs(60);
/// Before so much time is covered nothing is said.
const SHORTEST: Duration = Duration::from_secs(10);

/// What was kept when.
#[derive(Debug, Default)]
pub struct FillRate {
    seen: VecDeque<(Instant, u64)>,
}

impl FillRate {
    /// Takes a look at how many bytes are kept.
    pub fn saw(&mut self, now: Instant, retained_bytes: u64) {
        self.seen.push_back((now, retained_bytes));
        while self.seen.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.seen.pop_front();
        }
    }

    /// Seconds until `free_bytes` are filled at the rate of the looks kept.
    pub fn seconds_to_full(&self, free_bytes: u64) -> Option<u64> {
        let ((from, before), (to, after)) = (self.seen.front()?, self.seen.back()?);
        let took = to.duration_since(*from);
        let grown = after.checked_sub(*before).filter(|grown| *grown > 0 && took >= SHORTEST)?;
        let millis = u128::from(free_bytes) * took.as_millis() / u128::from(grown);
        u64::try_from(millis / 1000).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_full_follows_the_growth_and_is_unknown_without_one() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut rate = FillRate::default();
        assert_eq!(rate.seconds_to_full(1000), None);
        rate.saw(at(0), 100);
        rate.saw(at(5), 150);
        assert_eq!(rate.seconds_to_full(1000), None, "too short to say");
        rate.saw(at(10), 200);
        assert_eq!(rate.seconds_to_full(1000), Some(100));
        assert_eq!(rate.seconds_to_full(0), Some(0));
        rate.saw(at(65), 200);
        assert_eq!(rate.seconds_to_full(1200), Some(1440), "the oldest look is dropped");
        rate.saw(at(130), 180);
        assert_eq!(rate.seconds_to_full(1000), None, "it does not grow");
    }
}
