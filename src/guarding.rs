//! What guards show is told to the catalog, and taken into the exposure ledger of their databases.
//!
//! What always holds: nothing here is waited for by a guard; while the catalog is away what it says of guards grows old and shows as that, and in the ledger that
//! time is an entry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::guard::{Guard, GuardPhase, SILENT};
use farshore_catalog::ledger::{SYNC, Seen, Why};
use farshore_journal::DatabaseName;
use farshore_shipper::guard::Standing;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::wiring;

/// How often it is told.
const TELL: Duration = Duration::from_secs(1);
/// How often it is looked for the ledger, as for what else it holds.
const LOOK: Duration = Duration::from_secs(5);

/// Tells until cancelled.
pub async fn tell(
    config: Arc<Config>,
    shown: Vec<(DatabaseName, watch::Receiver<Standing>)>,
    cancel: CancellationToken,
) {
    let catalog = match wiring::unopened_catalog(&config) {
        Ok(catalog) => catalog,
        Err(why) => {
            tracing::error!("{why}");
            return;
        }
    };
    let node = wiring::node();
    let mut looked: Option<Instant> = None;
    let mut openings = BTreeMap::new();
    let mut is_away = false;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(TELL) => {}
        }
        let looks = looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if looks {
            looked = Some(Instant::now());
        }
        let told = tokio::select! {
            () = cancel.cancelled() => return,
            told = tell_all(&config, (&catalog, &node), &shown, looks.then_some(&mut openings)) => told,
        };
        match told {
            Ok(()) => is_away = false,
            Err(why) if is_away => tracing::debug!(error = %why, "the catalog is not told of guards"),
            Err(why) => {
                is_away = true;
                tracing::warn!(error = %why, "the catalog is not told of guards; they act all the same, and their own ledgers have it");
            }
        }
    }
}

async fn tell_all(
    config: &Config,
    (catalog, node): (&Catalog, &str),
    shown: &[(DatabaseName, watch::Receiver<Standing>)],
    mut looks: Option<&mut BTreeMap<DatabaseName, u64>>,
) -> Result<(), farshore_catalog::Error> {
    catalog.renew().await?;
    for (name, standing) in shown {
        let standing = standing.borrow().clone();
        // Another guard acts, and tells.
        if standing.is_spare {
            continue;
        }
        let now = Utc::now();
        catalog.guard_put(&told(name, node, &standing, now)).await?;
        let timeout = config.databases.get(name).and_then(|settings| settings.protection.guarded());
        if let (Some(timeout), Some(told)) = (timeout, looks.as_deref_mut()) {
            let objective = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            // One that was opened and is over since the last look is said first.
            let is_new = told.get(name) != Some(&standing.openings);
            catalog.exposure_look(name, SYNC, objective, seen(&standing, is_new, now), now).await?;
            told.insert(name.clone(), standing.openings);
        }
    }
    Ok(())
}

fn told(name: &DatabaseName, node: &str, standing: &Standing, now: DateTime<Utc>) -> Guard {
    Guard {
        database: name.clone(),
        node: Some(node.to_owned()),
        phase: standing.phase,
        is_exposed: standing.is_exposed,
        exposed_since: standing.exposed_since,
        why: standing.why.clone(),
        trouble: standing.trouble.clone(),
        looked_at: standing.looked_at,
        told_at: Some(now),
    }
}

/// What the ledger may say of it.
fn seen(standing: &Standing, is_new: bool, now: DateTime<Utc>) -> Seen {
    let fresh = standing.looked_at.is_some_and(|looked| (now - looked).abs() <= SILENT);
    match (fresh, standing.phase, standing.why.as_deref()) {
        (false, ..) => Seen::Not(Why::SourceSilent, None),
        (true, GuardPhase::Armed, _) if !standing.is_exposed && !is_new => Seen::Kept(0),
        (true, _, Some("waited")) => Seen::Not(Why::LetGo, None),
        (true, _, Some("unwatched")) => Seen::Not(Why::NotLooked, None),
        (true, ..) => Seen::Not(Why::Disarmed, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_only_where_a_guard_sees_that_it_is() {
        let now = Utc::now();
        let armed = Standing { phase: GuardPhase::Armed, looked_at: Some(now), ..Standing::BEGUN };
        assert_eq!(seen(&armed, false, now), Seen::Kept(0));
        assert_eq!(seen(&armed, false, now + SILENT * 2), Seen::Not(Why::SourceSilent, None));
        assert_eq!(seen(&Standing::BEGUN, false, now), Seen::Not(Why::SourceSilent, None));
        // One that is over already is not passed over.
        let over = Standing { why: Some("waited".to_owned()), ..armed.clone() };
        assert_eq!(seen(&over, true, now), Seen::Not(Why::LetGo, None));
        let exposed = Standing { is_exposed: true, why: Some("waited".to_owned()), ..armed.clone() };
        assert_eq!(seen(&exposed, false, now), Seen::Not(Why::LetGo, None));
        let hands_off = Standing {
            is_exposed: true,
            why: Some("hands_off".to_owned()),
            phase: GuardPhase::HandsOff,
            ..armed
        };
        assert_eq!(seen(&hands_off, false, now), Seen::Not(Why::Disarmed, None));
    }
}
