//! What no store object implies, sealed into the stores, and taken back from there: the exposure ledger and the record of who did what.
//!
//! What always holds: nothing waits for this and nothing here waits for anything else; each store has a task of its own, so that one that is away holds up no
//! other. Before a chronicle is sealed for the first time the stores are asked what an earlier catalog sealed, and this one goes on behind that. How far each store
//! has it is in the catalog, and what it lacks is said.
//! A crash leaves a page that is there or is not: the next start looks.

pub mod ask;
pub mod damage;
pub mod found;
pub mod held;
pub mod ledger;
pub mod line;
mod opened;
mod opening;
mod patience;
pub mod place;
mod seal;
pub mod settle;
mod shelf;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_journal::DatabaseName;
use farshore_journal::format::{Chronicle, SigningKey, VerifyKeys};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StoreName};
use crate::wiring;

/// How often it is looked for what is not sealed yet.
const EVERY: Duration = Duration::from_secs(2);
/// For how long failing is nobody's business: a store that is founded this moment, or away for a minute.
const QUIET: Duration = Duration::from_secs(60);

/// Settles and seals until cancelled; what is there at the end is sealed once more.
pub async fn keep(config: Arc<Config>, catalog: Catalog, cancel: CancellationToken) {
    let mut tasks = JoinSet::new();
    let (filling, filled) = tokio::sync::watch::channel(settle::Filled::new());
    let (saying, unsettled) = tokio::sync::watch::channel(settle::Unsettled::new());
    let settling = settle::Settling::new(Arc::clone(&config), catalog.clone(), filling, saying);
    tasks.spawn(settling.run(EVERY, cancel.clone()));
    for store in config.stores.keys().filter(|store| !databases_in(&config, store).is_empty()) {
        let told = (filled.clone(), unsettled.clone());
        let sealer = seal::Sealer::new(Arc::clone(&config), catalog.clone(), store.clone(), told);
        tasks.spawn(sealer.run(EVERY, cancel.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(why) = ended {
            tracing::error!(error = %why, "what seals the record of activity and the exposure ledger broke off: both stay in the catalog alone until the service is started anew");
        }
    }
}

/// The databases that are shipped into a store.
fn databases_in<'a>(config: &'a Config, store: &StoreName) -> Vec<&'a DatabaseName> {
    let has = |settings: &crate::config::DatabaseConfig| settings.stores.contains(store);
    config.databases.iter().filter(|(_, settings)| has(settings)).map(|(name, _)| name).collect()
}

/// The chronicles that a store gets.
fn chronicles_in(config: &Config, store: &StoreName) -> Vec<Chronicle> {
    let ledgers = databases_in(config, store).into_iter().cloned().map(Chronicle::Exposure);
    std::iter::once(Chronicle::Activity).chain(ledgers).collect()
}

/// The keys whose signature counts for a chronicle in a store: of activity those of every database that is shipped there.
pub fn pinned(config: &Config, chronicle: &Chronicle, store: &StoreName) -> VerifyKeys {
    let of = databases_in(config, store);
    let of = of.into_iter().filter(|name| chronicle.database().is_none_or(|one| one == *name));
    let keys: BTreeSet<_> =
        of.flat_map(|name| config.databases[name].verify_keys.keys().iter().copied()).collect();
    VerifyKeys::new(keys.into_iter().collect())
}

/// The key that signs a chronicle in a store: the database's, and of activity the first's whose key reads; `None` where none is configured.
///
/// # Errors
/// When keys are pinned and none that is configured reads: a page that nobody signed would count for nothing there.
fn signing_key(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
) -> anyhow::Result<Option<SigningKey>> {
    let of = databases_in(config, store);
    let of = of.into_iter().filter(|name| chronicle.database().is_none_or(|one| one == *name));
    let mut unread = None;
    for settings in of.map(|name| &config.databases[name]) {
        let Some(path) = &settings.signing_key else { continue };
        match wiring::signing_key(path, &settings.verify_keys) {
            Ok(key) => return Ok(Some(key)),
            Err(why) => unread = Some(why),
        }
    }
    match unread {
        Some(why) if !pinned(config, chronicle, store).is_empty() => Err(anyhow::anyhow!(why)),
        _ => Ok(None),
    }
}

/// The verb that shows a chronicle.
const fn word(chronicle: &Chronicle) -> &'static str {
    match chronicle {
        Chronicle::Activity => "activity",
        Chronicle::Exposure(_) => "exposure",
    }
}
