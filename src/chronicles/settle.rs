//! Asking the stores what an earlier catalog sealed, once for each chronicle, before this catalog seals anything.
//!
//! What always holds: what is taken back is what the chain holds, and what speaks against it is said; a catalog that was there before the other one wrote last
//! takes nothing. When every store answers, the longest is taken; one that stays away is not waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::chronicle::{BATCH, Before, Settled};
use farshore_journal::chronicle as stored;
use farshore_journal::format::{Chronicle, LifeId, VerifyKeys};
use farshore_journal::registry::Repository;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::QUIET;
use super::found::{self, Found, Line};
use super::opened::Opened;
use super::patience::Patience;
use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::Purpose;

/// For how long all stores are waited for before those that answer suffice.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stores that were asked, opened as far as they could be.
#[derive(Default)]
pub struct Stores {
    opened: BTreeMap<StoreName, Opened>,
    /// Those that did not answer in this round: each is waited for once in it, however many chronicles are asked for.
    away: BTreeMap<StoreName, String>,
}

impl Stores {
    /// Begins a round: every store is asked again.
    fn again(&mut self) {
        self.away.clear();
    }
}

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

/// Every chronicle that this configuration has a part in.
pub fn all(config: &Config) -> Vec<Chronicle> {
    let ledgers = config.databases.keys().cloned().map(Chronicle::Exposure);
    std::iter::once(Chronicle::Activity).chain(ledgers).collect()
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
    let (mut best, mut answered, mut failed) = (None::<(StoreName, Box<Line>)>, 0, None);
    let mut unvouched = None::<DateTime<Utc>>;
    for (store, line) in ask(config, opened, chronicle).await {
        match line {
            Ok(line) => {
                answered += 1;
                let line = match line {
                    Newest::Line(line) => line,
                    Newest::Unvouched(since) => {
                        unvouched = Some(unvouched.map_or(since, |one| one.min(since)));
                        continue;
                    }
                    Newest::Nothing => continue,
                };
                let is_better = best.as_ref().is_none_or(|(_, best)| {
                    (line.unbroken(), line.former.entries.len())
                        > (best.unbroken(), best.former.entries.len())
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
    let objective = chronicle.database().and_then(|name| config.databases.get(name)?.rpo);
    let before = match (&best, unvouched) {
        (Some((_, line)), _) => Before::Former(&line.former),
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
    if let Some((store, line)) = &best {
        told(chronicle, store, line, settled);
    }
    Ok(true)
}

/// Asks every store of a chronicle at once for the line to go on from; in the order of their names.
async fn ask(
    config: &Arc<Config>,
    opened: &mut Stores,
    chronicle: &Chronicle,
) -> BTreeMap<StoreName, anyhow::Result<Newest>> {
    let (mut asking, mut answers) = (JoinSet::new(), BTreeMap::new());
    for store in stores(config, chronicle) {
        if let Some(why) = opened.away.get(&store) {
            answers.insert(store, Err(anyhow::anyhow!("it did not answer a moment ago: {why}")));
            continue;
        }
        let one = match opened.opened.remove(&store) {
            Some(one) => Ok(one),
            None => Opened::new(config, &store, Purpose::Read),
        };
        match one {
            Err(why) => {
                answers.insert(store, Err(why));
            }
            Ok(mut one) => {
                let (config, chronicle) = (Arc::clone(config), chronicle.clone());
                asking.spawn(async move {
                    let line = newest(&config, &chronicle, &store, &mut one).await;
                    (store, one, line)
                });
            }
        }
    }
    while let Some(ended) = asking.join_next().await {
        match ended {
            Ok((store, one, line)) => {
                opened.opened.insert(store.clone(), one);
                if let Err(why) = &line {
                    opened.away.insert(store.clone(), format!("{why:#}"));
                }
                answers.insert(store, line);
            }
            // Every store must be in the answers: one that is not would pass for one that has nothing.
            Err(why) => tracing::error!(%chronicle, error = %why, "asking a store broke off"),
        }
    }
    for store in stores(config, chronicle) {
        answers.entry(store).or_insert_with(|| Err(anyhow::anyhow!("asking it broke off")));
    }
    answers
}

/// Adds what an earlier catalog sealed and is not in this one, in transactions of a few entries, the newest first: whoever is cut off goes on where it ended.
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
    let Some(mut oldest) = catalog.chronicle_oldest(chronicle).await? else { return Ok(0) };
    // A hole in what this catalog wrote itself is somebody's doing: `verify` names it, and nothing covers it up.
    if oldest <= 1 || oldest > first {
        return Ok(0);
    }
    let (mut added, mut failed) = (0, None);
    for (store, line) in ask(config, opened, chronicle).await {
        let mut former = match line {
            Ok(Newest::Line(line)) => line.former,
            Ok(Newest::Unvouched(_) | Newest::Nothing) => continue,
            Err(why) => {
                failed = Some(why.context(format!("store {store}")));
                continue;
            }
        };
        loop {
            former.entries.retain(|entry| entry.number < oldest);
            let Some(last) = former.entries.last().filter(|last| last.number + 1 == oldest) else { break };
            (former.last, former.digest) = (last.number, last.digest);
            match catalog.chronicle_fill(chronicle, &former).await? {
                0 => break,
                more => added += more,
            }
            oldest = former.entries[former.entries.len().saturating_sub(BATCH)].number;
            if oldest <= 1 {
                return Ok(added);
            }
        }
    }
    match failed {
        Some(why) => Err(why),
        None => Ok(added),
    }
}

/// The stores that a chronicle is in.
pub fn stores(config: &Config, chronicle: &Chronicle) -> Vec<StoreName> {
    let of = config.databases.iter().filter(|(name, _)| chronicle.database().is_none_or(|one| one == *name));
    let all: BTreeSet<StoreName> = of.flat_map(|(_, settings)| settings.stores.iter().cloned()).collect();
    all.into_iter().collect()
}

/// Refuses a store that the chronicle is not in, or, where none is named, none of any database: asking nobody must not read as a good answer.
///
/// # Errors
/// Then; it names those that there are.
pub fn known(
    config: &Config,
    chronicle: Option<&Chronicle>,
    store: &StoreName,
) -> Result<(), OperatorMessage> {
    let all = stores(config, chronicle.unwrap_or(&Chronicle::Activity));
    if all.contains(store) {
        return Ok(());
    }
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    let of = chronicle.map_or_else(|| "any database".to_owned(), ToString::to_string);
    Err(OperatorMessage::new(
        Code::StoreUnknown,
        format!("{store} is no store of {of}"),
        Safe::Known("nothing was asked".to_owned()),
        format!("name one of the stores that there are: {}", all.join(", ")),
    ))
}

/// What a store has of a chronicle, and the store.
///
/// # Errors
/// When it does not answer.
pub async fn read(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
) -> anyhow::Result<(Repository, Found)> {
    let repository = Opened::new(config, store, Purpose::Read)?.repository().await?;
    let found = found::read(&repository, chronicle, &super::pinned(config, chronicle, store)).await?;
    Ok((repository, found))
}

/// The same, whoever signed it.
///
/// # Errors
/// When it does not answer.
pub async fn read_as_it_is(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
) -> anyhow::Result<(Repository, Found)> {
    let repository = Opened::new(config, store, Purpose::Read)?.repository().await?;
    let found = found::read(&repository, chronicle, &VerifyKeys::default()).await?;
    Ok((repository, found))
}

/// The line to go on from in a store. Of activity only what a database of this configuration belongs to: two catalogs may share a store.
///
/// # Errors
/// When it does not answer.
async fn newest(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
    opened: &mut Opened,
) -> anyhow::Result<Newest> {
    let repository = opened.repository().await?;
    let found = found::read(&repository, chronicle, &super::pinned(config, chronicle, store)).await?;
    let leaf = newest_life(config, chronicle, store, &repository, &found).await?;
    let line = leaf.and_then(|life| found.line(chronicle, life, &super::unlock(config, store)));
    if let Some(line) = line {
        return Ok(Newest::Line(Box::new(line)));
    }
    let of_others = match chronicle {
        // A store that several share has others' activity: ours is what belongs to a database of this configuration.
        Chronicle::Activity => lives_of(config, store, &repository).await?.is_empty(),
        Chronicle::Exposure(_) => false,
    };
    let Some(since) = found.oldest.filter(|_| !of_others) else { return Ok(Newest::Nothing) };
    let mut flaws: Vec<String> =
        found.strands.values().flat_map(|strand| &strand.flaws).map(ToString::to_string).collect();
    flaws.extend(found.strangers.iter().map(|key| format!("{key} is no page of it")));
    flaws.push(
        "not one entry of it counts, so nothing of the time before is taken back from there".to_owned(),
    );
    tracing::error!("{}", flawed(chronicle, store.as_str(), &flaws));
    Ok(Newest::Unvouched(since))
}

/// What a store has to go on from.
enum Newest {
    /// This line.
    Line(Box<Line>),
    /// Pages since then, of which none counts.
    Unvouched(DateTime<Utc>),
    /// Nothing.
    Nothing,
}

/// The lives of activity that belong to the databases of this configuration.
async fn lives_of(
    config: &Config,
    store: &StoreName,
    repository: &Repository,
) -> anyhow::Result<BTreeSet<LifeId>> {
    let mut lives = BTreeSet::new();
    for name in super::databases_in(config, store) {
        lives.extend(stored::belongs(repository, name).await?);
    }
    Ok(lives)
}

/// The lives of a store that are of this configuration: of activity those of its databases, for several catalogs may share a store.
///
/// # Errors
/// As [`newest`].
pub async fn own_lives(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
    repository: &Repository,
    found: &Found,
) -> anyhow::Result<BTreeSet<LifeId>> {
    match chronicle {
        Chronicle::Activity => lives_of(config, store, repository).await,
        Chronicle::Exposure(_) => Ok(found.strands.keys().copied().collect()),
    }
}

/// The life at the end of that line.
///
/// # Errors
/// As [`newest`].
pub async fn newest_life(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
    repository: &Repository,
    found: &Found,
) -> anyhow::Result<Option<LifeId>> {
    let lives = own_lives(config, chronicle, store, repository, found).await?;
    Ok(found.leaf(&lives))
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

/// What it means that a store does not have a chronicle as it was sealed.
pub fn flawed(chronicle: &Chronicle, store: &str, flaws: &[String]) -> OperatorMessage {
    OperatorMessage::new(
        Code::ChronicleFlawed,
        format!("what the store {store} has of {chronicle} is not as it was sealed: {}", flaws.join("; ")),
        Safe::Known("each entry that is shown has the digest of what it says; journals and backups are not touched by this".to_owned()),
        "put the pages back from another store or a version of this one; who may write to the store can have changed them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &std::path::Path) -> Arc<Config> {
        let text = format!(
            "[stores.main]\nurl = \"file:{0}/main\"\n[stores.second]\nurl = \"file:{0}/second\"\n[stores.spare]\nurl = \"file:{0}/spare\"\n\
             [databases.orders]\nengine = \"sqlite\"\npath = \"a.db\"\nstores = [\"main\"]\n\
             [databases.invoices]\nengine = \"sqlite\"\npath = \"b.db\"\nstores = [\"main\", \"second\"]\n",
            folder.display()
        );
        let nothing = crate::config::Environment::new();
        Arc::new(crate::config::parse(&folder.join("farshore.toml"), folder, &text, &nothing).unwrap())
    }

    #[test]
    fn a_store_that_no_database_is_shipped_into_is_refused_and_those_that_there_are_are_named() {
        let config = config(std::path::Path::new("/nowhere"));
        let orders = Chronicle::Exposure("orders".parse().unwrap());
        let refused = |chronicle: Option<&Chronicle>, store: &str| {
            known(&config, chronicle, &store.parse().unwrap()).err().map(|why| why.to_string())
        };
        assert_eq!(refused(None, "second"), None);
        assert_eq!(refused(Some(&orders), "main"), None);
        for (chronicle, store, names) in [
            (None, "mian", "main, second"),
            (None, "spare", "main, second"),
            (Some(&orders), "second", ": main"),
        ] {
            let why = refused(chronicle, store).unwrap();
            assert!(why.contains("FS-0108") && why.contains(store) && why.contains(names), "{why}");
        }
    }

    /// However many chronicles there are, one that hangs is waited for once in a round.
    #[tokio::test]
    async fn a_store_that_does_not_answer_is_asked_once_in_a_round_and_again_in_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let mut stores = Stores::default();
        let main: StoreName = "main".parse().unwrap();
        let mut whys = Vec::new();
        for chronicle in all(&config) {
            let mut answers = ask(&config, &mut stores, &chronicle).await;
            whys.push(format!("{:#}", answers.remove(&main).unwrap().err().unwrap()));
        }
        assert!(!whys[0].contains("a moment ago"), "{whys:?}");
        assert!(whys.len() == 3 && whys[1..].iter().all(|why| why.contains("a moment ago")), "{whys:?}");
        stores.again();
        let mut answers = ask(&config, &mut stores, &Chronicle::Activity).await;
        let why = format!("{:#}", answers.remove(&main).unwrap().err().unwrap());
        assert!(!why.contains("a moment ago"), "{why}");
    }

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
