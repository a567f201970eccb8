//! Failed attempts to be let in, counted by address, in memory that is bounded.
//!
//! What always holds: an address that failed [`MOST`] times within [`SPAN`] is refused until the span is over; an address of IPv6 stands
//! for its /64, which one machine may have whole. Whoever shows a valid token is never held up by others of his address: a token cannot
//! be guessed, and is checked first (`auth.rs`). A password can, so that a login is refused before it is checked.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many attempts of one address may fail within a span.
pub const MOST: u32 = 10;

/// How long failures are counted together.
pub const SPAN: Duration = Duration::from_secs(60);

/// How many addresses are remembered: a quarter of a megabyte.
const ADDRESSES: usize = 4096;

/// Failures of one address.
#[derive(Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

/// The failures of all addresses.
#[derive(Default)]
pub struct Attempts {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

impl Attempts {
    /// For how long an address is refused yet; `None` when it is not.
    pub fn refused(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failures.get(&subject(address))?;
        let over =
            SPAN.checked_sub(now.saturating_duration_since(known.since)).filter(|left| !left.is_zero());
        over.filter(|_| known.count >= MOST)
    }

    /// Counts one more that failed.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = subject(address);
        if !failures.contains_key(&subject) && failures.len() >= ADDRESSES {
            failures.retain(|_, known| now.saturating_duration_since(known.since) < SPAN);
            // All of them fresh: the oldest makes room.
            let oldest = failures.iter().min_by_key(|(_, known)| known.since).map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| failures.len() >= ADDRESSES) {
                failures.remove(&oldest);
            }
        }
        let known = failures.entry(subject).or_insert(Failures { since: now, count: 0 });
        if now.saturating_duration_since(known.since) >= SPAN {
            *known = Failures { since: now, count: 0 };
        }
        known.count = known.count.saturating_add(1);
    }
}

/// What is counted together.
fn subject(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_refused_after_ten_failures_until_the_span_is_over_and_others_are_not() {
        let (attempts, begin) = (Attempts::default(), Instant::now());
        let [ours, neighbour, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        for second in 0..10 {
            assert_eq!(attempts.refused(ours, begin), None);
            attempts.failed(ours, begin + Duration::from_secs(second));
        }
        assert_eq!(attempts.refused(ours, begin + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert!(attempts.refused(neighbour, begin).is_some());
        assert_eq!(attempts.refused(other, begin), None);
        assert_eq!(attempts.refused(ours, begin + SPAN), None);
        attempts.failed(ours, begin + SPAN);
        assert_eq!(attempts.refused(ours, begin + SPAN), None);
    }

    #[test]
    fn memory_is_bounded_whoever_fails() {
        let (attempts, begin) = (Attempts::default(), Instant::now());
        for number in 0..u32::try_from(ADDRESSES).unwrap() + 500 {
            attempts.failed(IpAddr::V4(number.into()), begin + Duration::from_millis(u64::from(number)));
        }
        assert_eq!(attempts.failures.lock().unwrap().len(), ADDRESSES);
    }
}
