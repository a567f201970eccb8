//! Asking the stores what they have of a chronicle.
//!
//! What always holds: every store of a chronicle is in the answers, one that could not be read as that; one that does not answer is waited for once in a round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use farshore_journal::chronicle as stored;
use farshore_journal::format::{Chronicle, LifeId};
use farshore_journal::registry::Repository;
use tokio::task::JoinSet;

use super::found::{self, Found};
use super::line::Line;
use super::opened::Opened;
use super::opening::Keys;
use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::Purpose;

/// The stores that were asked, opened as far as they could be.
#[derive(Default)]
pub struct Stores {
    opened: BTreeMap<StoreName, Opened>,
    /// Those that did not answer in this round: each is waited for once in it, however many chronicles are asked for.
    away: BTreeMap<StoreName, String>,
}

impl Stores {
    /// Begins a round: every store is asked again.
    pub fn again(&mut self) {
        self.away.clear();
    }
}

/// Every chronicle that this configuration has a part in.
pub fn all(config: &Config) -> Vec<Chronicle> {
    let ledgers = config.databases.keys().cloned().map(Chronicle::Exposure);
    std::iter::once(Chronicle::Activity).chain(ledgers).collect()
}

/// Asks every store of a chronicle at once what it has of it; in the order of their names.
pub async fn ask(
    config: &Arc<Config>,
    opened: &mut Stores,
    chronicle: &Chronicle,
) -> BTreeMap<StoreName, anyhow::Result<Asked>> {
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

/// What a store has of a chronicle, and what is gone on from.
#[derive(Debug)]
pub struct Asked {
    /// All of it.
    pub found: Found,
    /// The line to go on from.
    pub line: Option<Line>,
    /// Since when it has pages, where none counts.
    pub unvouched: Option<DateTime<Utc>>,
    /// Lives of activity that are none of this configuration's: another catalog's, or what said whose they are is gone.
    pub besides: Vec<LifeId>,
}

/// What a store has. Of activity only what a database of this configuration belongs to is gone on from: two catalogs may share a store.
///
/// # Errors
/// When it does not answer.
async fn newest(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
    opened: &mut Opened,
) -> anyhow::Result<Asked> {
    let repository = opened.repository().await?;
    let (pinned, keys) = (super::pinned(config, chronicle, store), Keys::of(config, store));
    let mut found = found::read(&repository, chronicle, &pinned, &keys).await?;
    let own = own_lives(config, chronicle, store, &repository, &found).await?;
    let besides = found.besides(&own);
    found.pin(&pinned);
    let line = found.leaf(&own).and_then(|life| found.line(life));
    if line.is_some() {
        return Ok(Asked { found, line, unvouched: None, besides });
    }
    // A store that several share has others' activity: ours is what belongs to a database of this configuration.
    let of_others = *chronicle == Chronicle::Activity && own.is_empty();
    let unvouched = found.oldest.filter(|_| !of_others);
    if unvouched.is_some() {
        let mut flaws: Vec<String> =
            found.strands.values().flat_map(|strand| &strand.flaws).map(ToString::to_string).collect();
        flaws.extend(found.strangers.iter().map(|key| format!("{key} is no page of it")));
        flaws.push(
            "not one entry of it counts, so nothing of the time before is taken back from there".to_owned(),
        );
        tracing::error!("{}", flawed(chronicle, store.as_str(), &flaws));
    }
    Ok(Asked { found, line, unvouched, besides })
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
    let (pinned, keys) = (super::pinned(config, chronicle, store), Keys::of(config, store));
    let mut found = found::read(&repository, chronicle, &pinned, &keys).await?;
    found.pin(&pinned);
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
    let (pinned, keys) = (super::pinned(config, chronicle, store), Keys::of(config, store));
    let found = found::read(&repository, chronicle, &pinned, &keys).await?;
    Ok((repository, found))
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
pub(super) mod tests {
    use super::*;

    pub(crate) fn config(folder: &std::path::Path) -> Arc<Config> {
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
}
