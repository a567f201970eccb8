//! A token bucket: pure, times are passed in.
//!
//! Always: what was taken since any moment is at most `rate` times the time since, and what was saved up until then;
//! that is at most a second's worth. A bucket that is new, or begins to be limited, has nothing saved up.

use std::time::Duration;

/// How much may be saved up while nothing goes: as much as flows in this time. A put that is answered within it costs
/// no bandwidth, and a minute is at most a sixtieth too much.
const SAVED: Duration = Duration::from_secs(1);
/// Nanoseconds of a second: levels are kept in billionths of a byte, so that no time is lost to rounding.
const NANOS: u128 = 1_000_000_000;

/// Bytes that may go.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Bytes a second; `None`: no limit.
    rate: Option<u64>,
    /// Billionths of a byte that may go now.
    level: u128,
    /// Up to when time was counted.
    at: Duration,
}

impl Bucket {
    /// A bucket of `rate` bytes a second from `now` on; times are counted from any one moment.
    pub const fn new(rate: Option<u64>, now: Duration) -> Self {
        Self { rate, level: 0, at: now }
    }

    /// The limit in bytes a second.
    pub const fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Sets another limit. What was saved up stays, as far as the new limit lets so much be saved.
    pub fn set(&mut self, rate: Option<u64>, now: Duration) {
        self.fill(now);
        self.rate = rate;
        self.level = self.level.min(self.most());
    }

    /// Takes `bytes` when they may go by `now`. Otherwise how long until they may, if nothing else is taken meanwhile.
    ///
    /// # Errors
    /// How long to wait. Of more than can be saved up it is for ever: whoever takes asks for less at a time ([`Self::slice`]).
    pub fn take(&mut self, bytes: u64, now: Duration) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        self.fill(now);
        let wanted = u128::from(bytes) * NANOS;
        if let Some(rest) = self.level.checked_sub(wanted) {
            self.level = rest;
            return Ok(());
        }
        if wanted > self.most() {
            return Err(Duration::MAX);
        }
        let lacking = (wanted - self.level).div_ceil(u128::from(rate.max(1)));
        Err(Duration::from_nanos(u64::try_from(lacking).unwrap_or(u64::MAX)))
    }

    /// The most that is taken at a time: a quarter of a second's worth, so that nobody waits long for somebody else's turn.
    pub fn slice(&self) -> u64 {
        self.rate.map_or(u64::MAX, |rate| (rate / 4).max(1))
    }

    fn most(&self) -> u128 {
        self.rate.map_or(0, |rate| u128::from(rate) * SAVED.as_nanos())
    }

    fn fill(&mut self, now: Duration) {
        // A clock that goes back gives nothing, and what it took is not given twice.
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let flowed = self.rate.map_or(0, |rate| u128::from(rate) * passed.as_nanos());
        self.level = self.level.saturating_add(flowed).min(self.most());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_limit_holds_from_its_first_byte_and_saves_up_a_second() {
        let mut bucket = Bucket::new(Some(1000), ms(0));
        assert_eq!(bucket.take(250, ms(0)), Err(ms(250)), "nothing was saved up");
        assert_eq!(bucket.take(250, ms(250)), Ok(()));
        assert_eq!(bucket.take(1, ms(250)), Err(ms(1)));
        assert_eq!(bucket.take(1000, ms(60_000)), Ok(()));
        assert_eq!(bucket.take(1, ms(60_000)), Err(ms(1)), "a minute saved up no more than a second");
        assert_eq!(bucket.take(1001, ms(90_000)), Err(Duration::MAX), "more than is ever saved up");
    }

    #[test]
    fn without_a_limit_all_goes_and_a_new_limit_has_nothing_saved_up() {
        let mut bucket = Bucket::new(None, ms(0));
        assert_eq!(bucket.take(u64::MAX, ms(0)), Ok(()));
        assert_eq!(bucket.slice(), u64::MAX);
        bucket.set(Some(1000), ms(5000));
        assert_eq!(bucket.take(1, ms(5000)), Err(ms(1)));
        bucket.set(Some(100), ms(6000));
        assert_eq!(
            bucket.take(101, ms(6000)),
            Err(Duration::MAX),
            "what was saved up is cut to the new limit"
        );
        assert_eq!(bucket.take(100, ms(6000)), Ok(()));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = Bucket::new(Some(1000), ms(1000));
        assert_eq!(bucket.take(500, ms(1500)), Ok(()));
        assert_eq!(bucket.take(1, ms(1000)), Err(ms(1)));
        assert_eq!(bucket.take(1, ms(1500)), Err(ms(1)), "no time is counted twice");
    }

    proptest! {
        /// Whoever asks for whatever, whenever: from any moment on no more goes than flowed since and a second's worth.
        #[test]
        fn no_span_of_time_takes_more_than_its_rate_and_what_was_saved_up(
            rate in 1..10_000_000_u64,
            asked in prop::collection::vec((0..3000_u64, 0..3_000_000_u64), 1..200),
        ) {
            let mut bucket = Bucket::new(Some(rate), ms(0));
            let (mut now, mut taken) = (0, Vec::new());
            for (pause, bytes) in asked {
                now += pause;
                if bucket.take(bytes, ms(now)).is_ok() {
                    taken.push((now, bytes));
                }
            }
            for (at, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0_u128;
                for (then, bytes) in &taken[at..] {
                    sum += u128::from(*bytes);
                    let flowed = u128::from(rate) * u128::from(then - from) / 1000;
                    prop_assert!(sum <= flowed + u128::from(rate), "{sum} in {} ms", then - from);
                }
            }
        }
    }
}
