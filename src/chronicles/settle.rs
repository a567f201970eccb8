//! Asking the stores what an earlier catalog sealed, once for each chronicle, before this catalog seals anything.
//!
//! What always holds: what is taken back is what the chain holds, and what speaks against it is said; a catalog that was there before the other one wrote last
//! takes nothing. When every store answers, the longest is taken; one that stays away is not waited for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_catalog::chronicle::Settled;
use farshore_journal::chronicle as stored;
use farshore_journal::format::{Chronicle, LifeId};
use tokio_util::sync::CancellationToken;

use super::found::{self, Found, Line};
use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// How often all stores are waited for before those that answer suffice.
const PATIENCE: u32 = 15;

/// The task that settles.
pub struct Settling {
    config: Arc<Config>,
    catalog: Catalog,
}

impl Settling {
    /// Of this configuration.
    pub fn new(config: Arc<Config>, catalog: Catalog) -> Self {
        Self { config, catalog }
    }

    /// Settles what is not, until cancelled: a catalog that is deleted under the service is another, and is settled anew.
    pub async fn run(self, every: Duration, cancel: CancellationToken) {
        let mut tries = 0;
        loop {
            let mut is_settled = true;
            for chronicle in all(&self.config) {
                let patient = tries < PATIENCE;
                let settled = tokio::select! {
                    () = cancel.cancelled() => return,
                    settled = settle(&self.config, &self.catalog, &chronicle, patient) => settled,
                };
                match settled {
                    Ok(done) => is_settled &= done,
                    Err(why) => {
                        is_settled = false;
                        tracing::debug!(%chronicle, error = %format!("{why:#}"), "the stores could not be asked yet what an earlier catalog sealed");
                    }
                }
            }
            tries = if is_settled { 0 } else { tries + 1 };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }
}

/// Every chronicle that this configuration has a part in.
pub fn all(config: &Config) -> Vec<Chronicle> {
    let ledgers = config.databases.keys().cloned().map(Chronicle::Exposure);
    std::iter::once(Chronicle::Activity).chain(ledgers).collect()
}

/// Settles one chronicle where it is not; whether it is now. With patience every store must answer, else one.
///
/// # Errors
/// When the catalog is away or no store answers.
pub async fn settle(
    config: &Config,
    catalog: &Catalog,
    chronicle: &Chronicle,
    patient: bool,
) -> anyhow::Result<bool> {
    if catalog.chronicle_standing(chronicle).await?.settled {
        return Ok(true);
    }
    let (mut best, mut answered, mut failed) = (None::<(StoreName, Line)>, 0, None);
    for store in stores(config, chronicle) {
        match newest(config, chronicle, &store).await {
            Ok(line) => {
                answered += 1;
                let Some(line) = line else { continue };
                let is_better = best.as_ref().is_none_or(|(_, best)| {
                    (line.former.last, line.former.entries.len())
                        > (best.former.last, best.former.entries.len())
                });
                if is_better {
                    best = Some((store, line));
                }
            }
            Err(why) => failed = Some(why),
        }
    }
    if let Some(why) = failed
        && (patient || answered == 0)
    {
        return Err(why);
    }
    let settled = catalog.chronicle_settle(chronicle, best.as_ref().map(|(_, line)| &line.former)).await?;
    if let Some((store, line)) = &best {
        told(chronicle, store, line, settled);
    }
    Ok(true)
}

/// Adds what an earlier catalog sealed and could not be opened when it was taken back. How many entries.
///
/// # Errors
/// When the catalog is away.
pub async fn fill(config: &Config, catalog: &Catalog, chronicle: &Chronicle) -> anyhow::Result<u64> {
    let standing = catalog.chronicle_standing(chronicle).await?;
    let Some(life) = standing.life.filter(|_| standing.first > 1) else { return Ok(0) };
    let mut added = 0;
    for store in stores(config, chronicle) {
        let Ok(found) = read(config, chronicle, &store).await else { continue };
        let Some(line) = found.line(chronicle, life, &super::unlock(config, &store)) else { continue };
        let mut former = line.former;
        former.entries.retain(|entry| entry.number < standing.first);
        let Some(last) = former.entries.last() else { continue };
        (former.last, former.digest) = (last.number, last.digest);
        added += catalog.chronicle_fill(chronicle, &former).await?;
    }
    Ok(added)
}

/// The stores that a chronicle is in.
pub fn stores(config: &Config, chronicle: &Chronicle) -> Vec<StoreName> {
    let of = config.databases.iter().filter(|(name, _)| chronicle.database().is_none_or(|one| one == *name));
    let all: BTreeSet<StoreName> = of.flat_map(|(_, settings)| settings.stores.iter().cloned()).collect();
    all.into_iter().collect()
}

/// What a store has of a chronicle.
///
/// # Errors
/// When it does not answer.
pub async fn read(config: &Config, chronicle: &Chronicle, store: &StoreName) -> anyhow::Result<Found> {
    let repository = wiring::repository(config, store).await?;
    Ok(found::read(&repository, chronicle, &super::pinned(config, chronicle, store)).await?)
}

/// The line to go on from in a store. Of activity only what a database of this configuration belongs to: two catalogs may share a store.
///
/// # Errors
/// When it does not answer.
pub async fn newest(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
) -> anyhow::Result<Option<Line>> {
    let found = read(config, chronicle, store).await?;
    let leaf = newest_life(config, chronicle, store, &found).await?;
    Ok(leaf.and_then(|life| found.line(chronicle, life, &super::unlock(config, store))))
}

/// The life at the end of that line.
///
/// # Errors
/// As [`newest`].
pub async fn newest_life(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
    found: &Found,
) -> anyhow::Result<Option<LifeId>> {
    if matches!(chronicle, Chronicle::Exposure(_)) {
        return Ok(found.leaf(None));
    }
    let repository = wiring::repository(config, store).await?;
    let mut lives: BTreeSet<LifeId> = BTreeSet::new();
    for name in super::databases_in(config, store) {
        lives.extend(stored::belongs(&repository, name).await?);
    }
    Ok(found.leaf(Some(&lives)))
}

fn told(chronicle: &Chronicle, store: &StoreName, line: &Line, settled: Settled) {
    match settled {
        Settled::TakenBack { last, entries } => {
            tracing::info!(%chronicle, %store, last, entries, "taken back from the store: this catalog goes on behind it");
            if line.sealed > 0 {
                tracing::warn!(%chronicle, %store, entries = line.sealed,
                    "encrypted, and no private key is at hand: `farshore catalog rebuild` brings these entries back where one is");
            }
        }
        Settled::Another => {
            tracing::warn!(%chronicle, %store, life = %line.life, "another catalog writes of this database into the store: nothing is taken from it");
        }
        Settled::Before | Settled::Nothing => return,
    }
    if !line.flaws.is_empty() {
        tracing::error!(
            "{}",
            flawed(
                chronicle,
                store.as_str(),
                &line.flaws.iter().map(ToString::to_string).collect::<Vec<_>>()
            )
        );
    }
}

/// What it means that a store does not have a chronicle as it was sealed.
pub fn flawed(chronicle: &Chronicle, store: &str, flaws: &[String]) -> OperatorMessage {
    OperatorMessage::new(
        Code::ChronicleFlawed,
        format!("what the store {store} has of {chronicle} is not as it was sealed: {}", flaws.join("; ")),
        Safe::Known("each entry that is shown has the digest of what it says; journals and backups are not touched by this".to_owned()),
        "put the pages back from another store or a version of this one; who may write to the store can have changed them",
    )
}
