//! How often shipped log is put into a store, what that costs, and why.
//!
//! The arithmetic, once for `init`, `check` and the service: a change waits at most one flush interval before its
//! chunk is cut, then the put must be confirmed. Half of the RPO is given to waiting; the other half is left for
//! the put and one retry of it. What always holds: 200 ms ≤ derived interval ≤ 30 s, and 50 ms for a receiver; an interval that was set by
//! hand is taken as it is. Puts per day are a ceiling: a database that writes nothing puts nothing.

use std::fmt;
use std::time::Duration;

use crate::config::quantity::Span;

/// On a directory, and the least that is derived elsewhere: a put takes about this long, so more would only queue.
pub const LEAST: Duration = Duration::from_millis(200);
/// In a receiver: a put takes a millisecond or two there, and costs nothing.
pub const NEAR: Duration = Duration::from_millis(50);
/// The most that is derived: a longer wait saves next to nothing and delays the first sign of trouble.
pub const MOST: Duration = Duration::from_secs(30);
/// Without an RPO: what an RPO of one second would give, below a dollar a day at list price.
pub const WITHOUT_RPO: Duration = Duration::from_millis(500);

/// List price of one put in millionths of a dollar: 0.005 $ for 1 000 in S3 Standard (us-east-1); Google Cloud
/// Storage Standard asks the same and Azure hot blobs a little more. A request, without bytes or storage.
/// Source: <https://aws.amazon.com/s3/pricing/>.
pub const PUT_MICRO_DOLLARS: u64 = 5;

const DAY: Duration = Duration::from_secs(86_400);

/// What puts cost in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// A directory: nothing.
    Free,
    /// A receiver: nothing, and it answers in a millisecond or two.
    Near,
    /// An object store: by the request.
    PerPut,
}

/// The flush interval of one database in one store, with its consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPlan {
    /// The longest a received change waits before it is put.
    pub interval: Duration,
    /// The most puts in a day.
    pub puts_per_day: u64,
    /// Their list price, in millionths of a dollar a day; `None` where puts cost nothing.
    pub micro_dollars_per_day: Option<u64>,
    /// Whether interval and one prompt put fit into the RPO: `None` without one.
    pub holds_rpo: Option<bool>,
}

/// The plan for a store, from the interval set by hand if there is one, else from the RPO.
pub fn flush_plan(billing: Billing, rpo: Option<Span>, by_hand: Option<Span>) -> FlushPlan {
    let interval = match (by_hand, billing, rpo) {
        (Some(span), _, _) => span.get(),
        (None, Billing::Free, _) => LEAST,
        (None, Billing::Near, _) => NEAR,
        (None, Billing::PerPut, Some(rpo)) => (rpo.get() / 2).clamp(LEAST, MOST),
        (None, Billing::PerPut, None) => WITHOUT_RPO,
    };
    // A span is at least a millisecond, so this divides by no zero.
    let puts_per_day = u64::try_from(DAY.as_millis() / interval.as_millis().max(1)).unwrap_or(u64::MAX);
    FlushPlan {
        interval,
        puts_per_day,
        micro_dollars_per_day: match billing {
            Billing::Free | Billing::Near => None,
            Billing::PerPut => Some(puts_per_day.saturating_mul(PUT_MICRO_DOLLARS)),
        },
        holds_rpo: rpo.map(|rpo| interval.saturating_add(LEAST) <= rpo.get()),
    }
}

impl fmt::Display for FlushPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        let interval = Span::from_millis(millis).map_or_else(|| "0ms".to_owned(), |span| span.to_string());
        write!(f, "flush every {interval}: at most {} puts a day", self.puts_per_day)?;
        match self.micro_dollars_per_day {
            None => f.write_str(", which cost nothing there"),
            Some(day) => {
                // To the cent and upwards: an estimate that flatters is worse than none.
                let cents = |micro: u64| micro.div_ceil(10_000);
                let (day, month) = (cents(day), cents(day.saturating_mul(30)));
                write!(
                    f,
                    ", about ${}.{:02} a day (${}.{:02} in 30 days) at $0.005 for 1000",
                    day / 100,
                    day % 100,
                    month / 100,
                    month % 100
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Option<Span> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn half_of_the_rpo_is_left_for_the_put() {
        for (rpo, millis) in [("1s", 500), ("30s", 15_000), ("2m", 30_000), ("1h", 30_000), ("100ms", 200)] {
            let plan = flush_plan(Billing::PerPut, span(rpo), None);
            assert_eq!(plan.interval, Duration::from_millis(millis), "{rpo}");
        }
    }

    #[test]
    fn an_rpo_that_cannot_hold_is_said_not_to_hold() {
        assert_eq!(flush_plan(Billing::PerPut, span("100ms"), None).holds_rpo, Some(false));
        assert_eq!(flush_plan(Billing::PerPut, span("1s"), span("5s")).holds_rpo, Some(false));
        assert_eq!(flush_plan(Billing::PerPut, span("1s"), None).holds_rpo, Some(true));
        assert_eq!(flush_plan(Billing::PerPut, None, None).holds_rpo, None);
    }

    #[test]
    fn the_price_names_its_arithmetic() {
        assert_eq!(
            flush_plan(Billing::PerPut, span("1s"), None).to_string(),
            "flush every 500ms: at most 172800 puts a day, about $0.87 a day ($25.92 in 30 days) at $0.005 for 1000"
        );
        assert_eq!(
            flush_plan(Billing::Near, span("1s"), None).to_string(),
            "flush every 50ms: at most 1728000 puts a day, which cost nothing there"
        );
        assert_eq!(
            flush_plan(Billing::Free, span("1s"), None).to_string(),
            "flush every 200ms: at most 432000 puts a day, which cost nothing there"
        );
    }
}
