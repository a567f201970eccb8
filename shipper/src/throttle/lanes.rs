//! Whose turn it is to pay: pure, times are passed in.
//!
//! Always: of one lane the first who came pays first; of two lanes that wait, the log gets three parts of four, so that no
//! copy keeps commits waiting and none waits for ever; of one lane that waits alone all is its own. An object is paid for in
//! slices and goes when all of it is paid: a large one that saves up holds up nobody.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::bucket::Bucket;

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Chunks of log: what commits wait for, or would be lost.
    Log,
    /// All else: copies, and what is made of log that is stored already.
    Other,
}

impl Lane {
    /// What a byte counts when turns are dealt out.
    const fn weight(self) -> u128 {
        match self {
            Self::Log => 1,
            Self::Other => 3,
        }
    }
}

/// Someone who waits.
pub type Ticket = u64;

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    unpaid: u64,
}

/// Those of a lane who wait, and what it has used so far.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    used: u128,
}

/// Everybody who waits, and what may go.
#[derive(Debug)]
pub struct Lanes {
    bucket: Bucket,
    log: Queue,
    other: Queue,
    /// What the lane had used that had the last turn.
    clock: u128,
    next: Ticket,
    /// Who has paid and does not know yet.
    paid: BTreeSet<Ticket>,
}

impl Lanes {
    /// Nobody waits.
    pub fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            log: Queue::default(),
            other: Queue::default(),
            clock: 0,
            next: 0,
            paid: BTreeSet::new(),
        }
    }

    /// The limit in bytes a second.
    pub const fn rate(&self) -> Option<u64> {
        self.bucket.rate()
    }

    /// Sets another limit.
    pub fn set(&mut self, rate: Option<u64>, now: Duration) {
        self.bucket.set(rate, now);
    }

    /// Somebody waits to send `bytes`.
    pub fn join(&mut self, lane: Lane, bytes: u64) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        if bytes == 0 {
            self.paid.insert(ticket);
            return ticket;
        }
        let clock = self.clock;
        let queue = self.queue(lane);
        // A lane that was idle saved up no turns.
        if queue.waiting.is_empty() {
            queue.used = queue.used.max(clock);
        }
        queue.waiting.push_back(Waiter { ticket, unpaid: bytes });
        ticket
    }

    /// Somebody waits no more. What was paid for is not given back: it may have gone.
    pub fn leave(&mut self, ticket: Ticket) {
        self.paid.remove(&ticket);
        for queue in [&mut self.log, &mut self.other] {
            queue.waiting.retain(|waiter| waiter.ticket != ticket);
        }
    }

    /// Lets all pay who can by `now`; how long until the next can, `None` when nobody waits.
    pub fn advance(&mut self, now: Duration) -> Option<Duration> {
        loop {
            let lane = self.turn()?;
            let slice = self.bucket.slice();
            let clock = self.queue(lane).used;
            let part = self.queue(lane).waiting.front()?.unpaid.min(slice);
            if let Err(wait) = self.bucket.take(part, now) {
                return Some(wait);
            }
            self.clock = clock;
            let queue = self.queue(lane);
            queue.used += u128::from(part) * lane.weight();
            let first = queue.waiting.front_mut()?;
            first.unpaid -= part;
            if first.unpaid == 0 {
                let ticket = first.ticket;
                queue.waiting.pop_front();
                self.paid.insert(ticket);
            }
        }
    }

    /// Whether somebody has paid, who then waits no more.
    pub fn goes(&mut self, ticket: Ticket) -> bool {
        self.paid.remove(&ticket)
    }

    /// How many have paid and do not know it.
    pub fn has_paid(&self) -> usize {
        self.paid.len()
    }

    /// Whose turn it is: the lane's that has used less of its part.
    fn turn(&self) -> Option<Lane> {
        match (self.log.waiting.is_empty(), self.other.waiting.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Lane::Log),
            (true, false) => Some(Lane::Other),
            (false, false) if self.log.used <= self.other.used => Some(Lane::Log),
            (false, false) => Some(Lane::Other),
        }
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Log => &mut self.log,
            Lane::Other => &mut self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that each lane has sent once `seconds` are over, where one object of each size waits in its lane at all times.
    fn sent(log: Option<u64>, other: Option<u64>, rate: u64, seconds: u64) -> [u64; 2] {
        let mut lanes = Lanes::new(Bucket::new(Some(rate), Duration::ZERO));
        let mut sent = [0; 2];
        let mut waits = [(Lane::Log, log), (Lane::Other, other)]
            .map(|(lane, bytes)| (lane, bytes, bytes.map(|bytes| lanes.join(lane, bytes))));
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(seconds) {
            let wait = lanes.advance(now);
            for (at, (lane, bytes, ticket)) in waits.iter_mut().enumerate() {
                if let (Some(bytes), Some(waiting)) = (*bytes, *ticket)
                    && lanes.goes(waiting)
                {
                    sent[at] += bytes;
                    *ticket = Some(lanes.join(*lane, bytes));
                }
            }
            now += wait.unwrap_or(Duration::from_millis(1)).min(Duration::from_millis(100));
        }
        sent
    }

    #[test]
    fn a_lane_that_waits_alone_has_all_of_it() {
        let [log, _] = sent(Some(500_000), None, 1_000_000, 60);
        assert!((59_000_000..=60_000_000).contains(&log), "{log}");
        let [_, other] = sent(None, Some(16 << 20), 5_000_000, 60);
        assert!((283_000_000..=300_000_000).contains(&other), "{other}");
    }

    #[test]
    fn of_two_lanes_the_log_has_three_parts_of_four_however_large_the_others_objects_are() {
        let [log, other] = sent(Some(500_000), Some(16 << 20), 5_000_000, 200);
        let part = log as f64 / (log + other) as f64;
        assert!((0.74..=0.77).contains(&part), "{log} {other}");
        assert!(log + other <= 1_000_000_000, "{log} {other}");
    }

    #[test]
    fn who_leaves_is_waited_for_by_nobody_and_what_is_nothing_goes_at_once() {
        let second = Duration::from_secs(1);
        let mut lanes = Lanes::new(Bucket::new(Some(1000), Duration::ZERO));
        let (first, then) = (lanes.join(Lane::Log, 900), lanes.join(Lane::Log, 100));
        let nothing = lanes.join(Lane::Other, 0);
        lanes.advance(Duration::ZERO);
        assert!(lanes.goes(nothing) && !lanes.goes(first) && !lanes.goes(then));
        lanes.leave(first);
        lanes.advance(second / 4);
        assert!(lanes.goes(then) && lanes.has_paid() == 0);
        assert_eq!(lanes.advance(second), None);
    }

    #[test]
    fn a_limit_that_is_lifted_lets_all_go_who_wait() {
        let mut lanes = Lanes::new(Bucket::new(Some(1), Duration::ZERO));
        let waits = [lanes.join(Lane::Log, 1 << 30), lanes.join(Lane::Other, 1 << 30)];
        assert!(lanes.advance(Duration::ZERO).is_some());
        lanes.set(None, Duration::ZERO);
        assert_eq!(lanes.advance(Duration::ZERO), None);
        assert!(waits.into_iter().all(|ticket| lanes.goes(ticket)));
    }
}
