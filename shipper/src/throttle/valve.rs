//! The one place that a database's bytes pass on their way to its stores.
//!
//! Always: [`Valve::pass`] returns once its bytes are paid for, and not before; who stops waiting is waited for by nobody;
//! a limit that changes holds at once, for those who wait too. Without a limit nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::lanes::{Lane, Lanes, Ticket};

/// A chunk of log holds no more than flows in half a second, of all stores that one goes to: none is on its way for so long that
/// whoever waits for it, or for the stream behind it, takes the store for one that takes nothing.
const CHUNK_PARTS: u64 = 2;
/// Smaller ones are not worth an object: one page of PostgreSQL's log.
const CHUNK_LEAST: u64 = 8 << 10;
/// An object that is made of stored chunks holds no more than flows in this many seconds, so that one more or less within a
/// minute is little of it.
const OBJECT_TENTHS: u64 = 15;
/// The lowest limit: with less a part of a base backup would be on its way for longer than a stream, or whoever watches over a backup, waits, and what is put
/// beside a full log would be given up.
pub const LEAST_RATE: u64 = 1_000_000;

/// How fast one database's bytes go to all its stores together.
#[derive(Debug)]
pub struct Valve {
    lanes: Mutex<Lanes>,
    /// Somebody has paid, or the limit changed.
    moved: Notify,
    began: Instant,
    sent: AtomicU64,
    waits: Mutex<Waits>,
    /// The lowest limit that may ever hold: what was read before it begins must not be on its way for long behind it.
    lowest: Option<u64>,
    /// How many stores share it.
    stores: u64,
}

impl Default for Valve {
    fn default() -> Self {
        Self::new(None, 1)
    }
}

impl Valve {
    /// A valve for so many stores, with the lowest limit in bytes a second that may ever hold, which holds until another is set; or without one.
    pub fn new(lowest: Option<u64>, stores: usize) -> Self {
        Self {
            lanes: Mutex::new(Lanes::new(Bucket::new(lowest, Duration::ZERO))),
            lowest,
            moved: Notify::new(),
            began: Instant::now(),
            sent: AtomicU64::new(0),
            waits: Mutex::default(),
            stores: u64::try_from(stores).unwrap_or(u64::MAX).max(1),
        }
    }

    /// Sets another limit, from now on.
    pub fn set(&self, rate: Option<u64>) {
        self.lanes().set(rate, self.began.elapsed());
        self.moved.notify_waiters();
    }

    /// The limit in bytes a second.
    pub fn rate(&self) -> Option<u64> {
        self.lanes().rate()
    }

    /// Bytes that went since the valve was made, in all.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// For how long somebody waited since then.
    pub fn waited(&self) -> Duration {
        let waits = self.waits();
        waits.over + waits.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Most plain bytes of a chunk of log now; `None`: as many as it can hold.
    pub fn chunk_bytes(&self) -> Option<u64> {
        let lowest = match (self.lowest, self.rate()) {
            (Some(lowest), Some(rate)) => lowest.min(rate),
            (lowest, rate) => lowest.or(rate)?,
        };
        Some((lowest / CHUNK_PARTS / self.stores).max(CHUNK_LEAST))
    }

    /// Waits until `bytes` may go.
    ///
    /// # Cancel safety
    /// Dropped midway it counts for nothing; what was paid for part of it is gone.
    pub async fn pass(&self, lane: Lane, bytes: u64) {
        let mut place = Waiting { valve: self, ticket: self.lanes().join(lane, bytes), waits: false };
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let wait = {
                let mut lanes = self.lanes();
                let knew = lanes.has_paid();
                let wait = lanes.advance(self.began.elapsed());
                // Once for each: one who has paid may not be listening for a while, and nobody is to spin meanwhile.
                let others_paid = lanes.has_paid() > knew;
                let goes = lanes.goes(place.ticket);
                if others_paid {
                    self.moved.notify_waiters();
                }
                if goes {
                    break;
                }
                wait
            };
            place.begin();
            // Somebody waits, this one, so there is a time; a limit that changes wakes it besides.
            let wait = wait.unwrap_or(Duration::from_millis(100)).max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = moved => {}
            }
        }
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Every change of it is whole by itself.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most bytes of log of an object that is made of stored chunks, where so many bytes a second are the lowest limit that may hold.
pub const fn object_bytes(lowest: u64) -> u64 {
    lowest.saturating_mul(OBJECT_TENTHS) / 10
}

/// A place in a lane, given up when it is dropped.
struct Waiting<'a> {
    valve: &'a Valve,
    ticket: Ticket,
    waits: bool,
}

/// For how long somebody waited, and how many wait now.
#[derive(Debug, Default)]
struct Waits {
    over: Duration,
    many: usize,
    since: Option<Instant>,
}

impl Waiting<'_> {
    /// It has to wait.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.waits, true) {
            let mut waits = self.valve.waits();
            waits.many += 1;
            waits.since.get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.waits {
            let mut waits = self.valve.waits();
            waits.many = waits.many.saturating_sub(1);
            if waits.many == 0 {
                let waited = waits.since.take().map_or(Duration::ZERO, |since| since.elapsed());
                waits.over += waited;
            }
        }
        self.valve.lanes().leave(self.ticket);
        // Who stood behind it may go now.
        self.valve.moved.notify_waiters();
    }
}
