//! When what failed is tried again: pure, the clock passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Between the first failure and the next try.
const FIRST: Duration = Duration::from_secs(2);
/// The longest between two tries: a store that comes back is seen within this.
const LONGEST: Duration = Duration::from_secs(120);

/// What failed since it last went well.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    failing: Option<(Instant, Instant, Duration)>,
}

impl Patience {
    /// It went well.
    pub const fn well(&mut self) {
        self.failing = None;
    }

    /// It failed: the next try is twice as far away as the last one was.
    pub fn failed(&mut self, now: Instant) {
        let (since, wait) =
            self.failing.map_or((now, FIRST), |(since, _, wait)| (since, (wait * 2).min(LONGEST)));
        self.failing = Some((since, now + wait, wait));
    }

    /// Whether it may be tried.
    pub fn is_due(&self, now: Instant) -> bool {
        self.failing.is_none_or(|(_, next, _)| next <= now)
    }

    /// For how long it has been failing.
    pub fn failing_for(&self, now: Instant) -> Duration {
        self.failing.map_or(Duration::ZERO, |(since, _, _)| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_ever_more_rarely_and_at_once_when_it_went_well() {
        let (begin, mut patience) = (Instant::now(), Patience::default());
        let (mut now, mut tries) = (begin, 0);
        while now - begin < Duration::from_secs(3600) {
            if patience.is_due(now) {
                tries += 1;
                patience.failed(now);
            }
            now += FIRST;
        }
        assert!((30..40).contains(&tries), "{tries} tries in an hour");
        assert_eq!(patience.failing_for(now), now - begin);
        patience.well();
        assert!(patience.is_due(now) && patience.failing_for(now).is_zero());
    }
}
