//! Whether a recovering server still moves, when it does not answer yet.
//!
//! Before it is consistent a server takes no connections, and a large replay may take hours: a deadline on the whole
//! would end good restores, none would wait for dead ones for ever. So the deadline is on standing still. Evidence
//! of movement is anything that changes; none of it is used for anything else.

use std::path::Path;
use std::time::{Duration, Instant};

/// What was seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Size of the server's messages; from 15 on it says once a second where replay is.
    log_bytes: u64,
    /// Its control file: minimum recovery point, checkpoints.
    control: Vec<u8>,
    /// Titles of its processes: the startup process shows the segment being replayed. Linux only.
    titles: Vec<Vec<u8>>,
}

impl Evidence {
    /// Looks. Blocks on a few small files; what cannot be read counts as unchanged.
    pub fn look(data: &Path, log: &Path, postmaster: u32) -> Self {
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let title = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Self {
            log_bytes: std::fs::metadata(log).map_or(0, |found| found.len()),
            control: std::fs::read(data.join("global/pg_control")).unwrap_or_default(),
            titles: children.split_ascii_whitespace().map(title).collect(),
        }
    }
}

/// Remembers when something last changed.
#[derive(Debug)]
pub struct Stillness<T> {
    last: T,
    since: Instant,
}

impl<T: PartialEq> Stillness<T> {
    /// Begins to watch.
    pub fn new(first: T, now: Instant) -> Self {
        Self { last: first, since: now }
    }

    /// Takes what is seen now, and says for how long it has been so.
    pub fn seen(&mut self, what: T, now: Instant) -> Duration {
        if what != self.last {
            (self.last, self.since) = (what, now);
        }
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_standing_still_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Stillness::new(1, start);
        assert_eq!(watch.seen(1, at(5)), Duration::from_secs(5));
        assert_eq!(watch.seen(2, at(9)), Duration::ZERO);
        assert_eq!(watch.seen(2, at(12)), Duration::from_secs(3));
    }
}
