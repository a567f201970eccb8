//! Looks after the log that a SQLite database keeps beside its file, for status.
//!
//! What always holds: what cannot be looked at is not known; a look takes no lock and opens nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use farshore_engines::sqlite::kept;
use farshore_journal::Position;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fill_rate::FillRate;
use crate::progress::Progress;
use crate::recorder::PrimaryFacts;

/// How often it is looked at.
const WATCH: Duration = Duration::from_secs(1);

/// A database's file, and how far its targets are.
#[derive(Debug)]
pub struct FileLog {
    /// The database.
    pub path: PathBuf,
    /// The targets.
    pub targets: Vec<watch::Receiver<Progress>>,
}

impl FileLog {
    /// Tells `facts` what is found, until cancelled.
    pub async fn run(self, facts: watch::Sender<PrimaryFacts>, cancel: CancellationToken) {
        let mut rate = FillRate::default();
        loop {
            let path = self.path.clone();
            // A file system that hangs holds up nobody else.
            let looked =
                tokio::task::spawn_blocking(move || (kept::log_bytes(&path), kept::free_bytes(&path)));
            let looked = tokio::select! {
                () = cancel.cancelled() => return,
                looked = looked => looked,
            };
            let (log, free) = looked.map_or((None, None), |(log, free)| (log.ok(), free.ok()));
            if let Some(log) = log {
                rate.saw(Instant::now(), log);
            }
            let seconds_to_full = log.and(free).and_then(|free| rate.seconds_to_full(free));
            let released = self.released();
            facts.send_replace(PrimaryFacts {
                released,
                retained_bytes: log,
                seconds_to_full,
                ..PrimaryFacts::default()
            });
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(WATCH) => {}
            }
        }
    }

    /// What every target has stored: there is one target as yet, and its follower is told the same.
    fn released(&self) -> Option<Position> {
        let stored: Option<Vec<Position>> =
            self.targets.iter().map(|target| target.borrow().releasable).collect();
        stored?.into_iter().min_by_key(|stored| stored.offset)
    }
}
