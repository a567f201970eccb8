//! Keeps the catalog true while the service runs: opens it when it can be opened, and brings it up to the stores whenever it may
//! lack something.
//!
//! What always holds: the catalog gates nothing, so this runs beside the shipping and is never waited for. The catalog may lack
//! something when the service starts, when its file was deleted or replaced, when a write to it was not told, and when a
//! recorder had to drop facts. Each time the stores are read, which hold everything; what is told meanwhile is told twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farshore_catalog::{Catalog, Renewal};
use farshore_journal::DatabaseName;
use farshore_shipper::progress::Progress;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StoreName};
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

/// The stores that were added while another store of their database could not be read: each is read once for that, and not at
/// every try until the other one is back.
type Added = HashSet<(DatabaseName, StoreName)>;

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
        let (mut tried, mut added) = (None, Added::new());
        let mut pause = PAUSE_FIRST;
        let mut done = Instant::now();
        let mut failures = 0;
        loop {
            let lost = self.lost();
            if known != Some(lost) || self.catalog.still_there().is_err() {
                if done.elapsed() > PAUSE_LONGEST {
                    pause = PAUSE_FIRST;
                }
                if tried.replace(lost) != Some(lost) {
                    added.clear();
                }
                let brought = tokio::select! {
                    () = cancel.cancelled() => return,
                    brought = Box::pin(self.bring_up(&mut added)) => brought,
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

    async fn bring_up(&self, added: &mut Added) -> anyhow::Result<()> {
        let first = self
            .catalog
            .still_there()
            .is_err_and(|why| matches!(why, farshore_catalog::Error::NotOpen { .. }));
        if self.catalog.renew().await? == Renewal::Another {
            added.clear();
            if !first {
                tracing::warn!(
                    catalog = self.catalog.address(),
                    "the catalog was deleted or replaced: the one that is there now is brought up from the stores"
                );
            }
        }
        // In `sync` a guard says whether they wait, else the shipper.
        let waits: Vec<_> = self
            .config
            .databases
            .iter()
            .map(|(name, settings)| (name.clone(), settings.protection.reported().holds_commits()))
            .collect();
        self.catalog.guard_expect(&waits).await?;
        let mut failed = None;
        for (name, _) in &self.shown {
            if let Err(why) = self.bring_up_one(name, added).await {
                failed = failed.or(Some(why.context(format!("of {name}"))));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Brings one database up from those of its stores that can be read. Only when all can, anything is forgotten but what a store
    /// held that is no longer the database's.
    async fn bring_up_one(&self, name: &DatabaseName, added: &mut Added) -> anyhow::Result<()> {
        let Some(settings) = self.config.databases.get(name) else { return Ok(()) };
        rebuild::forget_dropped_stores(&self.catalog, name, &settings.stores).await?;
        // Before the stores are listed: what is founded in between is not taken for a lie.
        let known = self.catalog.incarnation_list(name).await?;
        let (mut readable, mut failed) = (Vec::new(), None);
        for (store, held) in sources::held_in_each(&self.config, name).await {
            match held {
                Ok(held) => readable.push((store, held)),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        if failed.is_none() {
            let held: Vec<_> = readable.into_iter().flat_map(|(_, held)| held).collect();
            return rebuild::all(&self.catalog, name, &known, &held).await;
        }
        for (store, held) in readable {
            let one = (name.clone(), store);
            if added.contains(&one) {
                continue;
            }
            match rebuild::more(&self.catalog, &held).await {
                Ok(()) => {
                    added.insert(one);
                }
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
