//! Time that has passed, where believing too little of it would be unsafe.

use std::time::{Duration, Instant, SystemTime};

/// A moment by both clocks: the monotonic one stands still in a suspended machine, the wall clock may be set back.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether it was earlier than `other`, in this process.
    pub fn is_before(&self, other: &Self) -> bool {
        self.steady < other.steady
    }

    /// The larger of what the two clocks say has passed.
    pub fn elapsed(&self) -> Duration {
        self.steady.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

#[cfg(test)]
impl Moment {
    /// So long ago, by the wall clock.
    pub fn ago(span: Duration) -> Self {
        let now = Self::now();
        Self { wall: now.wall - span, ..now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in a machine that was suspended, whose monotonic clock stood still, and in one whose wall clock was set back.
    #[test]
    fn what_either_clock_says_has_passed_counts() {
        let hour = Duration::from_secs(3600);
        let now = Moment::now();
        let suspended = Moment { wall: now.wall - hour, ..now };
        assert!(suspended.elapsed() >= hour);
        let set_back = Moment { wall: now.wall + hour, ..now };
        assert!(set_back.elapsed() < hour);
    }
}
