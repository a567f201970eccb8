//! What restores, verification and rebuilding read from: the incarnations of a database in a store.

use farshore_applier::source::Source;
use farshore_journal::{DatabaseName, JournalError};

use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::rebuild::Held;
use crate::wiring::{self, Purpose};

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
    let repository = wiring::repository_for(config, store, purpose).await?;
    let records = repository.incarnations(name).await.map_err(|why| records_message(name, store, &why))?;
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
    let mut held = Vec::new();
    let stores = config.databases.get(name).map(|settings| settings.stores.clone()).unwrap_or_default();
    for store in &stores {
        let sources = all(config, name, store).await?;
        held.extend(sources.into_iter().map(|source| Held { store: store.to_string(), source }));
    }
    Ok(held)
}

/// The current incarnation of `name` in the first of its stores that has one.
///
/// # Errors
/// When no store can be read or none has anything of it: the last store's reason.
pub async fn current(config: &Config, name: &DatabaseName) -> anyhow::Result<Source> {
    let nothing = || {
        OperatorMessage::new(
            Code::NothingStored,
            format!("no store holds anything of {name}"),
            Safe::Known("nothing was written".to_owned()),
            format!("`farshore status {name}` and `farshore backup list {name}` show what there is"),
        )
    };
    let mut last: Option<anyhow::Error> = None;
    let stores = config.databases.get(name).map(|settings| settings.stores.clone()).unwrap_or_default();
    for store in &stores {
        match all(config, name, store).await {
            Ok(mut sources) => match sources.pop() {
                Some(source) => return Ok(source),
                None => last = last.or(Some(nothing().into())),
            },
            Err(why) => {
                tracing::warn!(database = %name, store = %store, "not read from this store: {why}");
                last = Some(why);
            }
        }
    }
    Err(last.unwrap_or_else(|| nothing().into()))
}
