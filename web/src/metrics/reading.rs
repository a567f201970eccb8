//! What this process last read of the catalog, kept while the catalog is away, and the task that reads it. Metrics, notifications and pages are made from it.
//!
//! What always holds: a reading is never taken for newer than it is. Once the catalog did not answer, or nobody read it for [`FRESH`],
//! it counts as away, and what was read last only says since when nothing is known. No page is drawn from one that is older than [`SHOWN`], or behind which
//! the catalog failed: whoever asks for the page reads the catalog then, or is told that it is away.
//!
//! # Cancel safety
//! Dropping the future of [`keep`] leaves the last reading behind, which then grows old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use farshore_catalog::fleet::{Fleet, Restorable};
use farshore_catalog::{Catalog, Time};
use farshore_journal::DatabaseName;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How often the catalog is read: what a shipper says once a second is seen within another.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long a reading may take before the catalog counts as away: within three heartbeats of a shipper, with time to tell.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long a reading counts.
pub const FRESH: TimeDelta = TimeDelta::seconds(4);
/// How old a reading may be that a page is drawn from: a page says for six seconds more that it is fresh, while it is not fetched anew.
pub const SHOWN: TimeDelta = TimeDelta::milliseconds(2500);
/// How often the commits at the ends of a window are looked up anew, which takes queries of its own.
const TIMES_EVERY: TimeDelta = TimeDelta::seconds(10);
/// How many windows' ends are looked up beside one reading.
const TIMES_AT_ONCE: usize = 16;

/// The commits at the ends of what can be restored.
#[derive(Debug, Clone)]
pub struct Ends {
    of: Restorable,
    looked_at: Time,
    /// The time of the commit at the start.
    pub from: Option<Time>,
    /// The time of the newest commit.
    pub to: Option<Time>,
}

/// What was read last.
#[derive(Debug, Clone)]
pub struct Reading {
    /// All databases, as they were written.
    pub fleet: Arc<Fleet>,
    /// The ends of their windows.
    pub ends: BTreeMap<DatabaseName, Ends>,
    /// Whether the catalog did not answer since.
    pub failed: bool,
}

impl Reading {
    /// Whether the catalog counts as away.
    pub fn is_away(&self, now: Time) -> bool {
        self.failed || (now - self.fleet.read_at).abs() > FRESH
    }

    /// What a page may be drawn from, if anything: the catalog answered when it was last asked, and that was a moment ago.
    pub fn shown(&self, now: Time) -> Option<Arc<Fleet>> {
        let fresh = !self.failed && (now - self.fleet.read_at).abs() <= SHOWN;
        fresh.then(|| Arc::clone(&self.fleet))
    }
}

/// Reads the catalog until cancelled; `turned` is called each time.
pub async fn keep(
    metrics: Arc<Metrics>,
    catalog: Catalog,
    turned: &(dyn Fn() + Send + Sync),
    cancel: CancellationToken,
) {
    loop {
        turned();
        tokio::select! {
            () = cancel.cancelled() => return,
            () = read(&metrics, &catalog) => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Reads the catalog once.
pub async fn read(metrics: &Metrics, catalog: &Catalog) {
    match tokio::time::timeout(PATIENCE, catalog.fleet(Utc::now())).await {
        Ok(Ok(fleet)) => {
            metrics.told(fleet);
            look_up_ends(metrics, catalog).await;
        }
        Ok(Err(why)) => metrics.not_told(&why.to_string()),
        Err(_) => metrics.not_told("it did not answer in time"),
    }
}

async fn look_up_ends(metrics: &Metrics, catalog: &Catalog) {
    let Some(reading) = metrics.reading() else { return };
    let now = Utc::now();
    let old = reading.fleet.members.iter().filter_map(|member| {
        let restorable = member.restorable.as_ref()?;
        let known = reading.ends.get(&member.database);
        let current =
            known.is_some_and(|known| known.of == *restorable || now - known.looked_at < TIMES_EVERY);
        (!current).then(|| (member.database.clone(), restorable.clone()))
    });
    let old: Vec<_> = old.take(TIMES_AT_ONCE).collect();
    for (database, of) in old {
        let looked = tokio::time::timeout(PATIENCE, catalog.window_times(&of)).await;
        let Ok(Ok((from, to))) = looked else { return };
        metrics.ends_found(database, Ends { of, looked_at: now, from, to });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_drawn_from_a_reading_that_is_old_or_behind_which_the_catalog_failed() {
        let read_at = Utc::now();
        let fleet = Fleet {
            read_at,
            members: Vec::new(),
            schedules: Vec::new(),
            jobs: Vec::new(),
            seals: Vec::new(),
            standbys: Vec::new(),
            guards: Vec::new(),
            spools: Vec::new(),
            throttles: Vec::new(),
        };
        let reading = Reading { fleet: Arc::new(fleet), ends: BTreeMap::new(), failed: false };
        let failed = Reading { failed: true, ..reading.clone() };
        let just = TimeDelta::milliseconds(1);
        // A clock that was set back says as little of how old it is as one that went on.
        for (age, shown) in [
            (TimeDelta::zero(), true),
            (SHOWN, true),
            (SHOWN + just, false),
            (-SHOWN, true),
            (-SHOWN - just, false),
            (TimeDelta::days(1), false),
        ] {
            let now = read_at + age;
            assert_eq!(reading.shown(now).is_some(), shown, "{age}");
            assert!(failed.shown(now).is_none(), "{age}");
            // What a page shows counts for metrics too.
            assert!(!shown || !reading.is_away(now), "{age}");
        }
    }
}
