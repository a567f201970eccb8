//! Keeps the catalog true while the service runs: opens it when it can be opened, and brings it up to the stores whenever it may
//! lack something.
//!
//! What always holds: the catalog gates nothing, so this runs beside the shipping and is never waited for. The catalog may lack
//! something when the service starts, when its file was deleted or replaced, when a write to it was not told, and when a
//! recorder had to drop facts. Each time the stores are read, which hold everything; what is told meanwhile is told twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use farshore_catalog::{Catalog, Renewal};
use farshore_journal::DatabaseName;
use farshore_shipper::progress::Progress;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::{rebuild, sources};

/// How often it is looked whether the catalog lacks something.
const LOOK: Duration = Duration::from_secs(1);
/// The first and longest pause before it is brought up again: a catalog that refuses a fact for good must not be written without end.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// How many failures in a row are nobody's business: a store that is founded this moment cannot be read yet.
const QUIET_FAILURES: u32 = 2;

/// What may have been lost on its way into the catalog, as counts that only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    untold: u64,
    dropped: u64,
}

/// One service's upkeep of its catalog.
pub struct Upkeep {
    /// The configuration.
    pub config: Arc<Config>,
    /// The catalog.
    pub catalog: Catalog,
    /// What each database's targets say.
    pub shown: Vec<(DatabaseName, watch::Receiver<Vec<Progress>>)>,
}

impl Upkeep {
    /// Looks after the catalog until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut known: Option<Lost> = None;
        let mut pause = PAUSE_FIRST;
        let mut done = Instant::now();
        let mut failures = 0;
        loop {
            let lost = self.lost();
            if known != Some(lost) || self.catalog.still_there().is_err() {
                if done.elapsed() > PAUSE_LONGEST {
                    pause = PAUSE_FIRST;
                }
                let brought = tokio::select! {
                    () = cancel.cancelled() => return,
                    brought = Box::pin(self.bring_up()) => brought,
                };
                match brought {
                    Ok(()) => {
                        if failures > QUIET_FAILURES {
                            tracing::info!(
                                catalog = self.catalog.address(),
                                "the catalog has what the stores hold"
                            );
                        }
                        (known, failures) = (Some(lost), 0);
                    }
                    Err(why) => {
                        failures += 1;
                        if failures == QUIET_FAILURES + 1 {
                            tracing::warn!(catalog = self.catalog.address(), error = %format!("{why:#}"),
                                "the catalog could not be brought up to the stores; shipping goes on, and it is tried again");
                        }
                    }
                }
                done = Instant::now();
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSE_LONGEST);
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn lost(&self) -> Lost {
        let dropped = self.shown.iter().flat_map(|(_, shown)| {
            let shown = shown.borrow();
            shown.iter().map(|target| target.facts_dropped).collect::<Vec<_>>()
        });
        Lost { untold: self.catalog.untold(), dropped: dropped.sum() }
    }

    async fn bring_up(&self) -> anyhow::Result<()> {
        let first = self
            .catalog
            .still_there()
            .is_err_and(|why| matches!(why, farshore_catalog::Error::NotOpen { .. }));
        if self.catalog.renew().await? == Renewal::Another && !first {
            tracing::warn!(
                catalog = self.catalog.address(),
                "the catalog was deleted or replaced: the one that is there now is brought up from the stores"
            );
        }
        let mut failed = None;
        for (name, _) in &self.shown {
            let brought = async {
                let held = sources::held(&self.config, name).await?;
                rebuild::all(&self.catalog, name, &held).await
            };
            if let Err(why) = brought.await {
                failed = failed.or(Some(why.context(format!("of {name}"))));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
