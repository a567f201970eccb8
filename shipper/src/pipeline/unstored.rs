//! Commits and points that were received and are not yet in chunks: what the catalog is told once they are.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use farshore_engines::event::{Happened, LogEvent};
use farshore_journal::Offset;

use crate::progress::{CommitFact, PointFact};

/// What was seen and is not stored, in log order.
#[derive(Default)]
pub(super) struct Unstored {
    seen: VecDeque<Seen>,
}

enum Seen {
    Commit(CommitFact),
    Point(PointFact),
}

impl Seen {
    fn end(&self) -> Offset {
        match self {
            Self::Commit(commit) => commit.end,
            Self::Point(point) => point.end,
        }
    }
}

impl Seen {
    fn committed(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Commit(commit) => DateTime::from_timestamp_micros(commit.time_micros),
            Self::Point(_) => None,
        }
    }
}

impl Unstored {
    /// Forgets everything: what was seen is seen again.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    /// Keeps what the catalog is to know once it is stored.
    pub(super) fn note(&mut self, event: LogEvent) {
        match event.what {
            Happened::Commit(commit) => {
                if let Some(xid) = commit.transaction.full {
                    let (start, end) = (event.start, event.end);
                    self.seen.push_back(Seen::Commit(CommitFact {
                        start,
                        end,
                        time_micros: commit.time_micros,
                        xid,
                    }));
                }
            }
            Happened::RestorePoint { name, time_micros } => {
                self.seen.push_back(Seen::Point(PointFact { end: event.end, time_micros, name }));
            }
            _ => {}
        }
    }

    /// Takes what was seen up to `stored`.
    pub(super) fn up_to(&mut self, stored: Offset) -> (Vec<CommitFact>, Vec<PointFact>) {
        let mut commits = Vec::new();
        let mut points = Vec::new();
        while self.seen.front().is_some_and(|seen| seen.end() <= stored) {
            match self.seen.pop_front() {
                Some(Seen::Commit(commit)) => commits.push(commit),
                Some(Seen::Point(point)) => points.push(point),
                None => {}
            }
        }
        (commits, points)
    }

    /// The time of the oldest commit behind `stored`.
    pub(super) fn oldest_commit(&self, stored: Offset) -> Option<DateTime<Utc>> {
        let behind = self.seen.partition_point(|seen| seen.end() <= stored);
        self.seen.iter().skip(behind).find_map(Seen::committed)
    }

    /// The time of the newest commit up to `stored`, of those that are still to be told.
    pub(super) fn newest_stored(&self, stored: Offset) -> Option<DateTime<Utc>> {
        let behind = self.seen.partition_point(|seen| seen.end() <= stored);
        self.seen.iter().take(behind).rev().find_map(Seen::committed)
    }
}
