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
/// The lowest limit: with less a chunk would be on its way for longer than a second.
pub const LEAST_RATE: u64 = 100_000;

/// How fast one database's bytes go to all its stores together.
#[derive(Debug)]
pub struct Valve {
    lanes: Mutex<Lanes>,
    /// Somebody has paid, or the limit changed.
    moved: Notify,
    began: Instant,
    sent: AtomicU64,
    waited_us: AtomicU64,
    /// How many stores share it.
    stores: u64,
}

impl Default for Valve {
    fn default() -> Self {
        Self::new(None, 1)
    }
}

impl Valve {
    /// A valve with a limit in bytes a second, or without one, for so many stores.
    pub fn new(rate: Option<u64>, stores: usize) -> Self {
        Self {
            lanes: Mutex::new(Lanes::new(Bucket::new(rate, Duration::ZERO))),
            moved: Notify::new(),
            began: Instant::now(),
            sent: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
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

    /// How long was waited since then, by all who waited, in all.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.load(Ordering::Relaxed))
    }

    /// Most plain bytes of a chunk of log now; `None`: as many as it can hold.
    pub fn chunk_bytes(&self) -> Option<u64> {
        self.rate().map(|rate| (rate / CHUNK_PARTS / self.stores).max(CHUNK_LEAST))
    }

    /// Waits until `bytes` may go.
    ///
    /// # Cancel safety
    /// Dropped midway it counts for nothing; what was paid for part of it is gone.
    pub async fn pass(&self, lane: Lane, bytes: u64) {
        let place = Waiting { valve: self, ticket: self.lanes().join(lane, bytes), began: Instant::now() };
        let mut has_waited = false;
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
            has_waited = true;
            // Somebody waits, this one, so there is a time; a limit that changes wakes it besides.
            let wait = wait.unwrap_or(Duration::from_millis(100)).max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = moved => {}
            }
        }
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        if has_waited {
            let waited = u64::try_from(place.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.waited_us.fetch_add(waited, Ordering::Relaxed);
        }
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
    began: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.valve.lanes().leave(self.ticket);
        // Who stood behind it may go now.
        self.valve.moved.notify_waiters();
    }
}
