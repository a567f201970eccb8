//! Asking the stores what an earlier catalog sealed, once for each chronicle, before this catalog seals anything.
//!
//! What always holds: what is taken back is what the chain holds, and what speaks against it is said; a catalog that was there before the other one wrote last
//! takes nothing. When every store answers, the line that the most leads to is taken, and of lines that agree the furthest; one that stays away is not waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_catalog::chronicle::{BATCH, Before, Settled};
use farshore_journal::format::{Chronicle, LifeId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::QUIET;
use super::ask::{Asked, Stores, all, ask, flawed, stores};
use super::line::{Line, longest};
use super::patience::Patience;
use super::shelf::Shelf;
use crate::config::{Config, StoreName};

/// For how long all stores are waited for before those that answer suffice.
const PATIENCE: Duration = Duration::from_secs(30);

/// The chronicles whose filling from the stores is not waited for any longer, each with a number that rises when it brought more: whoever seals looks anew then.
pub type Filled = BTreeMap<Chronicle, u64>;
/// The chronicles that are not settled, and why: nothing of them is sealed until they are.
pub type Unsettled = BTreeMap<Chronicle, String>;

/// The task that settles.
pub struct Settling {
    config: Arc<Config>,
    catalog: Catalog,
    filled: watch::Sender<Filled>,
    unsettled: watch::Sender<Unsettled>,
}

impl Settling {
    /// Of this configuration.
    pub const fn new(
        config: Arc<Config>,
        catalog: Catalog,
        filled: watch::Sender<Filled>,
        unsettled: watch::Sender<Unsettled>,
    ) -> Self {
        Self { config, catalog, filled, unsettled }
    }

    /// Settles what is not, until cancelled: a catalog that is deleted under the service is another, and is settled anew.
    pub async fn run(self, every: Duration, cancel: CancellationToken) {
        let mut stores = Stores::default();
        let mut patience: BTreeMap<Chronicle, Patience> = BTreeMap::new();
        let mut filled: BTreeSet<Chronicle> = BTreeSet::new();
        let mut warned: BTreeSet<Chronicle> = BTreeSet::new();
        loop {
            stores.again();
            for chronicle in all(&self.config) {
                let patience = patience.entry(chronicle.clone()).or_default();
                let now = Instant::now();
                if !patience.is_due(now) {
                    continue;
                }
                let is_patient = patience.failing_for(now) < PATIENCE;
                let mut is_settled = false;
                let settled = async {
                    if settle(&self.config, &self.catalog, &mut stores, &chronicle, is_patient).await? {
                        filled.remove(&chronicle);
                        self.filled.send_modify(|all| {
                            all.remove(&chronicle);
                        });
                    }
                    is_settled = true;
                    if !filled.contains(&chronicle) {
                        fill(&self.config, &self.catalog, &mut stores, &chronicle).await?;
                    }
                    anyhow::Ok(())
                };
                let settled = tokio::select! {
                    () = cancel.cancelled() => return,
                    settled = settled => settled,
                };
                match settled {
                    // What no store gives now is asked for again by the next start, or by `catalog rebuild`.
                    Ok(()) => {
                        patience.well();
                        warned.remove(&chronicle);
                        self.say_unsettled(&chronicle, None);
                        if filled.insert(chronicle.clone()) {
                            self.filled.send_modify(|all| *all.entry(chronicle).or_default() += 1);
                        }
                    }
                    Err(why) => {
                        patience.failed(Instant::now());
                        // A store that stays away holds up no other's sealing: what it gives later is sealed then.
                        if patience.failing_for(Instant::now()) >= PATIENCE {
                            self.filled.send_modify(|all| {
                                all.entry(chronicle.clone()).or_default();
                            });
                        }
                        let error = format!("{why:#}");
                        self.say_unsettled(&chronicle, Some(&error).filter(|_| !is_settled));
                        if patience.failing_for(Instant::now()) >= QUIET && warned.insert(chronicle.clone()) {
                            let lacks = match is_settled {
                                true => {
                                    "what an earlier catalog sealed is not all taken back: the stores are asked again"
                                }
                                false => {
                                    "not settled: what an earlier catalog sealed could not be asked of the stores; until it is, this is in the catalog alone"
                                }
                            };
                            tracing::warn!(%chronicle, error, "{lacks}");
                        }
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    /// Says why a chronicle is not settled, or that it is.
    fn say_unsettled(&self, chronicle: &Chronicle, why: Option<&String>) {
        self.unsettled.send_modify(|all| match why {
            Some(why) => drop(all.insert(chronicle.clone(), why.clone())),
            None => drop(all.remove(chronicle)),
        });
    }
}

/// Settles one chronicle where it is not; whether it was not. With patience every store must answer, else one. The stores are asked side by side.
///
/// # Errors
/// When the catalog is away or no store answers.
pub async fn settle(
    config: &Arc<Config>,
    catalog: &Catalog,
    opened: &mut Stores,
    chronicle: &Chronicle,
    patient: bool,
) -> anyhow::Result<bool> {
    if catalog.chronicle_standing(chronicle).await?.settled {
        return Ok(false);
    }
    let (mut answers, mut failed) = (Vec::new(), None);
    for (store, asked) in ask(config, opened, chronicle).await {
        match asked {
            Ok(asked) => answers.push((store, asked)),
            Err(why) => failed = Some(why),
        }
    }
    if let Some(why) = failed
        && (patient || answers.is_empty())
    {
        return Err(why);
    }
    let of = |(store, asked): &'_ (StoreName, Asked)| Some((store.clone(), asked.line.clone()?));
    let lines: Vec<(StoreName, Line)> = answers.iter().filter_map(of).collect();
    let best = longest(&lines.iter().map(|(_, line)| line).collect::<Vec<_>>()).map(|at| &lines[at]);
    let former = best.and_then(|(store, line)| {
        let (_, asked) = answers.iter().find(|(other, _)| other == store)?;
        Some(asked.found.former(line))
    });
    let unvouched = answers.iter().filter_map(|(_, asked)| asked.unvouched).min();
    let objective = chronicle.database().and_then(|name| config.databases.get(name)?.rpo);
    let before = match (&former, unvouched) {
        (Some(former), _) => Before::Former(former),
        // Of a database of which nothing is promised there is no ledger.
        (None, Some(since)) if *chronicle == Chronicle::Activity || objective.is_some() => {
            Before::Unvouched {
                since,
                objective_ms: objective
                    .map_or(0, |rpo| u64::try_from(rpo.get().as_millis()).unwrap_or(u64::MAX)),
            }
        }
        _ => Before::Nothing,
    };
    let settled = catalog.chronicle_settle(chronicle, before).await?;
    if let Some((store, line)) = best {
        told(chronicle, store, line, settled);
    }
    for (store, asked) in answers.iter().filter(|(_, asked)| !asked.besides.is_empty()) {
        tracing::warn!(%chronicle, %store, "{}", of_nobody(&asked.besides));
    }
    Ok(true)
}

/// What it means that a store has lives of activity that no database of this configuration belongs to.
fn of_nobody(lives: &[LifeId]) -> String {
    let lives: Vec<String> = lives.iter().map(ToString::to_string).collect();
    format!(
        "pages of activity there are of no database of this configuration, and nothing of them is taken back: they are another catalog's, or what said whose they are (db/DATABASE/activity/LIFE) was deleted; lives {}",
        lives.join(", ")
    )
}

/// Adds what an earlier catalog sealed and is not in this one, in transactions of a few entries, the newest first: whoever is cut off goes on where it
/// ended. Where entries are not shown by any store those before them are added all the same, and the hole is named by whoever verifies.
/// How many entries.
///
/// # Errors
/// When the catalog is away, or a store that may have them does not answer.
pub async fn fill(
    config: &Arc<Config>,
    catalog: &Catalog,
    opened: &mut Stores,
    chronicle: &Chronicle,
) -> anyhow::Result<u64> {
    let first = catalog.chronicle_standing(chronicle).await?.first;
    let own = catalog.chronicle_own(chronicle).await?;
    // A hole in what this catalog wrote itself is somebody's doing: `verify` names it, and nothing covers it up.
    if own.oldest() <= 1 || own.oldest() > first {
        return Ok(0);
    }
    // Where any store has keys, another without them states nothing that a key would have to.
    let is_pinned =
        stores(config, chronicle).iter().any(|store| !super::pinned(config, chronicle, store).is_empty());
    let (mut shelf, mut failed) = (Shelf::default(), None);
    for (store, asked) in ask(config, opened, chronicle).await {
        match asked {
            Ok(asked) => shelf.take(asked.found, is_pinned),
            Err(why) => failed = Some(why.context(format!("store {store}"))),
        }
    }
    let (mut added, mut below) = (0, own.oldest() - 1);
    let mut next = own.digest(below);
    while let Some(digest) = next {
        let entries = shelf.up_to((below, digest), BATCH);
        let Some(oldest) = entries.first() else { break };
        let Some(more) = catalog.chronicle_fill(chronicle, (below, digest), &entries).await? else { break };
        added += more;
        (below, next) = (oldest.number - 1, oldest.former);
    }
    match failed {
        Some(why) => Err(why),
        None => Ok(added),
    }
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
        Settled::Before | Settled::Nothing | Settled::Own | Settled::Unvouched => return,
    }
    let flaws = line.all_flaws();
    if !flaws.is_empty() {
        tracing::error!("{}", flawed(chronicle, store.as_str(), &flaws));
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::super::ask::tests::config;
    use super::*;

    /// Until a chronicle is settled nothing of it is sealed: who seals has to say why.
    #[tokio::test]
    async fn why_a_chronicle_is_not_settled_is_told_to_those_who_seal() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/catalog.db", folder.path().display());
        let catalog = Catalog::open(&url, farshore_catalog::Options::default()).await.unwrap();
        let (filled, _) = watch::channel(Filled::new());
        let (unsettled, mut told) = watch::channel(Unsettled::new());
        let settling = Settling::new(config(folder.path()), catalog, filled, unsettled);
        let cancel = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(settling.run(Duration::from_secs(60), cancel.clone()));
        let told = told.wait_for(|all| all.contains_key(&Chronicle::Activity)).await.unwrap().clone();
        assert!(told[&Chronicle::Activity].contains("cannot be opened"), "{told:?}");
        cancel.cancel();
        running.join_next().await.unwrap().unwrap();
    }
}
