//! What the process that follows a database waits for: an order, and a write to the log.
//!
//! What always holds: an order ends the waiting at once. While transactions come, the database is looked at by the clock, which takes
//! many of them in one look. Once it rests, a write to its log has it looked at; a timer backs that up, since the system may give no
//! word of writes, or none of some. Nothing here opens the database or its log: see [`super::hold`] for why.
//! Source: inotify(7).

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::time::TimeSpec;

/// How long nothing must have come for the database to be at rest.
const REST: Duration = Duration::from_secs(1);
/// How often one at rest is looked at all the same.
pub const BACKUP: Duration = Duration::from_secs(1);

/// Rung when there is an order.
#[derive(Debug, Clone)]
pub struct Bell(Arc<EventFd>);

impl Bell {
    /// A bell that was not rung.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Ends the waiting, or the next one.
    pub fn ring(&self) {
        // It fails when it was rung as often as can be counted.
        let _ = self.0.write(1);
    }
}

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The bell was rung.
    Rung,
    /// It is time to look.
    Look,
}

/// Waits.
#[derive(Debug)]
pub struct Wake {
    bell: Bell,
    /// `None` where the system gives no word of writes.
    writes: Option<Inotify>,
    /// How often a database is looked at that does not rest.
    every: Duration,
    looked: Instant,
    came: Instant,
}

impl Wake {
    /// Waits for the bell, and for writes to the log at `log`, which is there.
    pub fn new(bell: Bell, log: &Path, every: Duration) -> Self {
        let now = Instant::now();
        Self { bell, writes: watch(log).ok(), every, looked: now, came: now }
    }

    /// Something came of the last look.
    pub fn came(&mut self) {
        self.came = Instant::now();
    }

    /// Waits until there may be something to do. Asked again after [`Woken::Rung`], it goes on waiting for the same look.
    pub fn wait(&mut self) -> Woken {
        let rests = self.came.elapsed() >= REST;
        let writes = self.writes.as_ref().filter(|_| rests);
        let pause = if writes.is_some() { BACKUP.max(self.every) } else { self.every };
        let left = (self.looked + pause).saturating_duration_since(Instant::now());
        let mut waits = vec![PollFd::new(self.bell.0.as_fd(), PollFlags::POLLIN)];
        waits.extend(writes.map(|writes| PollFd::new(writes.as_fd(), PollFlags::POLLIN)));
        // An interrupted or failed wait is over early: that is one look more.
        let _ = ppoll(&mut waits, Some(TimeSpec::from_duration(left)), None);
        let is = |at: usize| waits.get(at).and_then(PollFd::any).unwrap_or(false);
        let (rung, written) = (is(0), is(1));
        if rung {
            let _ = self.bell.0.read();
            return Woken::Rung;
        }
        if written {
            // What was written may count for SQLite only in a moment, so it is looked at by the clock for a while.
            self.came();
            let _ = self.writes.as_ref().map(Inotify::read_events);
        }
        self.looked = Instant::now();
        Woken::Look
    }
}

fn watch(log: &Path) -> nix::Result<Inotify> {
    let writes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    writes.add_watch(log, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE_SELF)?;
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const EVERY: Duration = Duration::from_millis(5);

    fn at_rest(log: &Path) -> (Bell, Wake) {
        let bell = Bell::new().unwrap();
        let mut wake = Wake::new(bell.clone(), log, EVERY);
        assert!(wake.writes.is_some());
        wake.came -= REST;
        wake.looked = Instant::now();
        (bell, wake)
    }

    #[test]
    fn a_write_to_the_log_ends_the_rest_and_the_timer_does_without_one() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let (_bell, mut wake) = at_rest(log.path());
        let begun = Instant::now();
        assert_eq!(wake.wait(), Woken::Look);
        assert!(begun.elapsed() >= BACKUP, "nothing was written");
        assert!(wake.came.elapsed() >= REST, "it still rests");
        log.write_all(b"frame").unwrap();
        let begun = Instant::now();
        assert_eq!(wake.wait(), Woken::Look);
        assert!(begun.elapsed() < BACKUP, "it was written to");
        assert!(wake.came.elapsed() < REST, "it is looked at by the clock again");
    }

    #[test]
    fn the_bell_ends_the_waiting_and_the_look_comes_no_later_for_it() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let (bell, mut wake) = at_rest(log.path());
        let begun = Instant::now();
        bell.ring();
        bell.ring();
        assert_eq!(wake.wait(), Woken::Rung);
        assert!(begun.elapsed() < BACKUP);
        assert_eq!(wake.wait(), Woken::Look);
        assert!((BACKUP..BACKUP * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_log_that_cannot_be_watched_is_looked_at_by_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let mut wake = Wake::new(Bell::new().unwrap(), &folder.path().join("none"), EVERY);
        wake.came -= REST;
        let begun = Instant::now();
        (0..10).for_each(|_| assert_eq!(wake.wait(), Woken::Look));
        assert!(begun.elapsed() < BACKUP);
    }
}
