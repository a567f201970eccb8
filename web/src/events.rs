//! What changes, for whoever listens: a bounded buffer of numbered events, and one look at the catalog for all listeners.
//!
//! What always holds: numbers rise by one; a listener that is behind the buffer, by reading slowly or by coming back late, hears `reset` and not a part of
//! what it missed. That the catalog is away is said to every listener, and that it is back. Nothing is kept for a single listener but its place, so that none can hold memory. While nobody listens the catalog is not asked.

mod poll;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use farshore_journal::DatabaseName;
use tokio::sync::{Semaphore, watch};

pub use self::poll::poll;

/// Events that are kept: some minutes of a busy service, a few megabytes.
const KEPT: usize = 1024;

/// Listeners at once: of the connections that are served, most are left to others.
pub const LISTENERS: usize = 32;

/// What an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A job is another than it was.
    Job,
    /// A database stands otherwise than it did.
    Status,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Job, Self::Status];

    /// Its word, as an event's type.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Status => "status",
        }
    }
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub number: u64,
    /// What it is of.
    pub kind: Kind,
    /// Of which database, when of one.
    pub database: Option<DatabaseName>,
    /// What is now, as JSON.
    pub data: String,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    /// The number of the next one.
    next: u64,
}

/// The events of this process.
#[derive(Debug)]
pub struct Events {
    /// Random, so that a number of another process is not taken for one of this.
    epoch: String,
    kept: Mutex<Kept>,
    /// The number of the next event: who waits is woken by it.
    next: watch::Sender<u64>,
    /// How often the catalog was looked at.
    looked: watch::Sender<u64>,
    /// Whether the catalog did not answer when it was last looked at.
    away: watch::Sender<bool>,
    /// Raised by each listener that comes.
    came: watch::Sender<u64>,
    /// Places of listeners.
    pub places: Arc<Semaphore>,
}

impl Default for Events {
    fn default() -> Self {
        let mut bytes = [0; 4];
        // Without randomness a listener that comes back to another process may be told of fewer changes than it missed.
        let _ = getrandom::fill(&mut bytes);
        Self {
            epoch: hex::encode(bytes),
            kept: Mutex::new(Kept::default()),
            next: watch::channel(0).0,
            looked: watch::channel(0).0,
            away: watch::channel(false).0,
            came: watch::channel(0).0,
            places: Arc::new(Semaphore::new(LISTENERS)),
        }
    }
}

impl Events {
    /// Adds one, and wakes who waits.
    pub fn add(&self, kind: Kind, database: Option<DatabaseName>, data: String) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.next;
        kept.next += 1;
        kept.events.push_back(Arc::new(Event { number, kind, database, data }));
        if kept.events.len() > KEPT {
            kept.events.pop_front();
        }
        drop(kept);
        self.next.send_replace(number + 1);
    }

    /// The number of the next event.
    pub fn next(&self) -> u64 {
        *self.next.borrow()
    }

    /// All from a number on; `None` when some of them are not kept any more.
    pub fn since(&self, number: u64) -> Option<Vec<Arc<Event>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = kept.next.checked_sub(number)?;
        let missing = usize::try_from(missing).ok()?;
        let skipped = kept.events.len().checked_sub(missing)?;
        Some(kept.events.iter().skip(skipped).cloned().collect())
    }

    /// An event's id: what a listener that comes back says that it heard last.
    pub fn id(&self, number: u64) -> String {
        format!("{}.{number}", self.epoch)
    }

    /// From where on a listener goes on that heard this last; `None` when it is no id of this process, or is too old.
    pub fn behind(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('.')?;
        let number = number.parse::<u64>().ok().filter(|_| epoch == self.epoch)?.checked_add(1)?;
        self.since(number).map(|_| number)
    }

    /// Whether the catalog is away, and when that changes.
    pub fn away(&self) -> watch::Receiver<bool> {
        self.away.subscribe()
    }

    fn catalog_is(&self, away: bool) {
        self.away.send_if_modified(|was| std::mem::replace(was, away) != away);
    }

    /// Wakes at the next event.
    pub fn waking(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// Waits until the catalog was looked at, from a moment behind this call's begin on.
    pub async fn looked(&self) {
        let mut looked = self.looked.subscribe();
        looked.mark_unchanged();
        // The one that is under way may have begun before.
        let two_more = *looked.borrow() + 2;
        self.came.send_modify(|came| *came += 1);
        let _ = looked.wait_for(|looked| *looked >= two_more).await;
    }

    /// Whether anybody listens.
    fn is_heard(&self) -> bool {
        self.places.available_permits() < LISTENERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_is_behind_the_buffer_is_told_so_and_any_other_hears_each_once() {
        let events = Events::default();
        let numbers =
            |from| events.since(from).map(|all| all.iter().map(|one| one.number).collect::<Vec<_>>());
        assert_eq!(numbers(0), Some(vec![]));
        for at in 0..3 {
            events.add(Kind::Job, None, at.to_string());
        }
        assert_eq!(numbers(0), Some(vec![0, 1, 2]));
        assert_eq!(numbers(2), Some(vec![2]));
        assert_eq!(numbers(3), Some(vec![]));
        assert_eq!(numbers(4), None, "of another process, or made up");
        for at in 3..KEPT as u64 + 3 {
            events.add(Kind::Job, None, at.to_string());
        }
        assert_eq!(numbers(2), None);
        assert_eq!(numbers(3).map(|all| all.len()), Some(KEPT));
        assert_eq!(events.behind(&events.id(2)), Some(3));
        assert_eq!(events.behind(&events.id(1)), None);
        assert_eq!(events.behind(&Events::default().id(5)), None);
        for odd in ["", "7", ".", &format!("{}.x", events.epoch), &events.id(u64::MAX)] {
            assert_eq!(events.behind(odd), None, "{odd}");
        }
    }
}
