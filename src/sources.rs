//! What restores, verification and rebuilding read from: the incarnations of a database in a store.

mod furthest;

use std::time::Duration;

use farshore_applier::source::Source;
use farshore_journal::format::VerifyKeys;
use farshore_journal::registry::Repository;
use farshore_journal::{DatabaseName, JournalError};

use crate::cli::History;
use crate::cli::restore::Incarnation;
use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::rebuild::Held;
use crate::wiring::{self, Purpose};

pub use furthest::for_latest;

/// How often a directory's chunks are looked for.
const EVERY_LOCAL: Duration = Duration::from_millis(50);
/// The same of a store that answers over a network, and may count questions.
const EVERY_REMOTE: Duration = Duration::from_secs(1);

/// Every incarnation of `name` in `store`, oldest first.
///
/// # Errors
/// When the store cannot be read, or an incarnation is of an engine that this build does not know.
pub async fn all(config: &Config, name: &DatabaseName, store: &StoreName) -> anyhow::Result<Vec<Source>> {
    all_for(config, name, store, Purpose::Read).await
}

/// As [`all`], from a store that is opened for something.
///
/// # Errors
/// As [`all`].
pub async fn all_for(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
    purpose: Purpose,
) -> anyhow::Result<Vec<Source>> {
    all_or_why(config, name, store, purpose).await.map_err(|unread| unread.why)
}

/// Why the incarnations in a store are not known.
#[derive(Debug)]
pub struct Unread {
    /// What is said of it.
    pub why: anyhow::Error,
    /// What failed, where it is a question to the store or what that answered.
    pub failed: Option<JournalError>,
}

impl<E: Into<anyhow::Error>> From<E> for Unread {
    fn from(why: E) -> Self {
        Self { why: why.into(), failed: None }
    }
}

/// As [`all_for`].
///
/// # Errors
/// As [`all`], and what it was that failed.
pub async fn all_or_why(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
    purpose: Purpose,
) -> Result<Vec<Source>, Unread> {
    let (opened, url) = wiring::open_store(config, store, purpose)?;
    let repository = Repository::open(opened)
        .await
        .map_err(|why| Unread { why: wiring::unread_message(store, &url, &why).into(), failed: Some(why) })?;
    let records = repository
        .incarnations(name)
        .await
        .map_err(|why| Unread { why: records_message(name, store, &why).into(), failed: Some(why) })?;
    let mut sources = Vec::new();
    for record in records {
        let unlock = match config.stores.get(store) {
            Some(settings) => wiring::unlock(settings)?,
            None => farshore_journal::format::Unlock::none(),
        };
        sources.push(Source::new(&repository, record, unlock)?);
    }
    Ok(sources)
}

/// What it means that the records of a database's incarnations are not as they were written.
fn records_message(name: &DatabaseName, store: &StoreName, why: &JournalError) -> OperatorMessage {
    OperatorMessage::new(
        Code::StoreUnusable,
        format!("which journals the store {store} has of {name} is not known: {why}"),
        Safe::Unknown("what is stored was only read, and not beyond these records".to_owned()),
        "put the record back from a copy of the store; docs/manual-recovery.md reads a journal without it",
    )
}

/// Every incarnation of `name` in each of its stores, in the configuration's order.
///
/// # Errors
/// As [`all`], for the first store that cannot be read: what one store holds says nothing of another.
pub async fn held(config: &Config, name: &DatabaseName) -> anyhow::Result<Vec<Held>> {
    let of_stores = held_in_each(config, name).await.into_iter().map(|(_, held)| held);
    let of_stores: anyhow::Result<Vec<Vec<Held>>> = of_stores.collect();
    Ok(of_stores?.into_iter().flatten().collect())
}

/// Every incarnation of `name` in each of its stores, store by store in the configuration's order, or why one cannot be read.
pub async fn held_in_each(
    config: &Config,
    name: &DatabaseName,
) -> Vec<(StoreName, anyhow::Result<Vec<Held>>)> {
    let stores = config.databases.get(name).map(|settings| settings.stores.clone()).unwrap_or_default();
    let pinned = pinned(config, name);
    let mut of_stores = Vec::with_capacity(stores.len());
    for store in stores {
        let held = |source| Held { store: store.to_string(), source, pinned: pinned.clone() };
        let found = all(config, name, &store).await;
        let found = found.map(|sources| sources.into_iter().map(held).collect());
        of_stores.push((store, found));
    }
    of_stores
}

/// The incarnation that is chosen, and in which store; without a choice the newest one in the first of the database's stores that
/// has one.
///
/// # Errors
/// When a store that comes first cannot be read: another may end earlier, so it is not taken in its place unless it is named. When
/// no store has what is chosen.
pub async fn chosen(config: &Config, name: &DatabaseName, history: &History) -> anyhow::Result<Held> {
    let stores = stores(config, name, history)?;
    let mut known = Vec::new();
    for store in &stores {
        let sources = all(config, name, store).await.inspect_err(|_| {
            if stores.len() > 1 {
                tracing::error!(database = %name, %store, "this store cannot be read; another may hold less: name one with --store");
            }
        })?;
        known.extend(sources.iter().map(|source| (store.clone(), source.record().number)));
        if let Some(source) = pick(sources, history.incarnation) {
            return Ok(Held { store: store.to_string(), source, pinned: pinned(config, name) });
        }
    }
    Err(nothing_there(name, history, &known).into())
}

/// No store has what is chosen; these incarnations there are.
fn nothing_there(name: &DatabaseName, history: &History, known: &[(StoreName, u64)]) -> OperatorMessage {
    match (known.is_empty(), history.incarnation) {
        (false, Some(incarnation)) => {
            let known = known.iter().map(|(store, number)| format!("{number} in {store}"));
            let known = known.collect::<Vec<_>>().join(", ");
            OperatorMessage::new(
                Code::NothingStored,
                format!("no store holds incarnation {incarnation} of {name}"),
                Safe::Known("nothing was written".to_owned()),
                format!("there are: {known}"),
            )
        }
        _ => nothing_stored(name),
    }
}

/// One incarnation in each of the database's stores, as far as they can be read: what is chosen, or the newest one.
pub async fn in_each(
    config: &Config,
    name: &DatabaseName,
    history: &History,
) -> anyhow::Result<Vec<anyhow::Result<InStore>>> {
    let mut found = Vec::new();
    for store in stores(config, name, history)? {
        let read = all(config, name, &store).await.map(|sources| {
            let only = sources.len() <= 1 || history.incarnation.is_some();
            InStore { store, source: pick(sources, history.incarnation), only }
        });
        found.push(read);
    }
    Ok(found)
}

/// What one store holds of a choice.
#[derive(Debug)]
pub struct InStore {
    /// The store.
    pub store: StoreName,
    /// The incarnation, if it holds it.
    pub source: Option<Source>,
    /// Whether it is surely the one that is meant: it was named, or there is no other.
    pub only: bool,
}

/// How often whoever follows a journal looks for more of it in a store.
pub fn look_interval(config: &Config, store: &str) -> Duration {
    let store: Option<StoreName> = store.parse().ok();
    let url = store.and_then(|store| config.stores.get(&store)).map(|settings| settings.url.to_string());
    match url.is_some_and(|url| url.starts_with("file:")) {
        true => EVERY_LOCAL,
        false => EVERY_REMOTE,
    }
}

fn pinned(config: &Config, name: &DatabaseName) -> VerifyKeys {
    config.databases.get(name).map(|settings| settings.verify_keys.clone()).unwrap_or_default()
}

fn pick(mut sources: Vec<Source>, which: Option<Incarnation>) -> Option<Source> {
    sources.retain(|source| which.is_none_or(|which| is(source, which)));
    sources.pop()
}

/// Whether it is this incarnation.
pub fn is(source: &Source, which: Incarnation) -> bool {
    match which {
        Incarnation::Number(number) => source.record().number == number,
        Incarnation::Id(id) => source.record().incarnation == id,
    }
}

/// The stores to look into, in the configuration's order.
fn stores(config: &Config, name: &DatabaseName, history: &History) -> anyhow::Result<Vec<StoreName>> {
    let all = config.databases.get(name).map(|settings| settings.stores.clone()).unwrap_or_default();
    match &history.store {
        None => Ok(all),
        Some(store) if all.contains(store) => Ok(vec![store.clone()]),
        Some(store) => {
            let all = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(OperatorMessage::new(
                Code::StoreUnknown,
                format!("{store} is not a store of {name}"),
                Safe::Known("nothing was written".to_owned()),
                format!("name one of its stores: {all}"),
            )
            .into())
        }
    }
}

fn nothing_stored(name: &DatabaseName) -> OperatorMessage {
    OperatorMessage::new(
        Code::NothingStored,
        format!("no store holds anything of {name}"),
        Safe::Known("nothing was written".to_owned()),
        format!("`farshore status {name}` and `farshore backup list {name}` show what there is"),
    )
}
