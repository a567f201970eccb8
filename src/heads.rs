//! What is known of a database's signed heads outside its stores, and what it means when a journal does not hold what was signed.
//!
//! What always holds: without a pinned key nothing is asked and nothing concluded; the catalog is asked and never made for it, and when
//! it is away that is said. *Safe* is told from the head's position and the journal's.

use farshore_applier::heads::{Doubt, KnownHeads, signed_at};
use farshore_journal::DatabaseName;
use farshore_journal::format::Head;

use crate::config::address::CatalogUrl;
use crate::config::{Config, DatabaseConfig, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// The pinned keys of a database, and the catalog's heads of its journals in a store.
pub async fn known(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    store: &StoreName,
) -> KnownHeads {
    let mut known = KnownHeads { pinned: settings.verify_keys.clone(), ..KnownHeads::default() };
    if known.pinned.is_empty() {
        return known;
    }
    match in_catalog(config, name, store).await {
        Ok(Some(heads)) => (known.outside, known.outside_read) = (heads, true),
        Ok(None) => {
            tracing::warn!(database = %name, %store, "there is no catalog here: what it knows of signed heads was not looked at");
        }
        Err(why) => {
            tracing::warn!(database = %name, %store, error = %why, "the catalog is away: what it knows of signed heads was not looked at");
        }
    }
    known
}

/// `None` where there is no catalog: opening one would make it.
async fn in_catalog(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
) -> Result<Option<Vec<Head>>, OperatorMessage> {
    if matches!(&config.catalog, CatalogUrl::Sqlite(path) if !path.exists()) {
        return Ok(None);
    }
    let catalog = wiring::catalog(config).await?;
    let heads = catalog.head_list(name).await.map_err(|why| wiring::catalog_away(&why))?;
    let of_store = heads.into_iter().filter(|known| known.store == store.as_str());
    Ok(Some(of_store.map(|known| known.head).collect()))
}

/// What it means that a journal does not hold what was signed of it.
pub fn not_held(name: &DatabaseName, store: &str, doubt: &Doubt) -> OperatorMessage {
    let head = doubt.head();
    let (at, signed) = (head.said.end, signed_at(head));
    match doubt {
        Doubt::Cut { end, .. } => OperatorMessage::new(
            Code::HeadNotHeld,
            match end {
                Some((last, end)) => format!(
                    "the journal of {name} in {store} ends at {end} with chunk {last}, but a head signed at {signed} says that it \
                     reached {at}: its end was cut off, or the store lost it"
                ),
                None => format!(
                    "the journal of {name} in {store} is empty, but a head signed at {signed} says that it reached {at}: it was \
                     deleted, or the store lost it"
                ),
            },
            match end {
                Some((_, end)) => Safe::Known(format!(
                    "what is left continues unbroken to {end}; what was stored behind that, up to {at} and perhaps further, is not there"
                )),
                None => Safe::Known(format!("nothing of it is left in {store}")),
            },
            match end {
                Some((_, end)) => format!(
                    "look for the rest in another store or a version of this one; to restore what is left, ask for --pos {end}"
                ),
                None => "look for it in another store, or in a version of this one".to_owned(),
            },
        ),
        Doubt::Rewritten { .. } => OperatorMessage::new(
            Code::HeadNotHeld,
            format!(
                "the journal of {name} in {store} is not the one that was signed: at chunk {} a head signed at {signed} names another \
                 history, up to {at}",
                head.said.number
            ),
            Safe::Unknown(format!(
                "which of its bytes farshore wrote: whoever may write to {store} may have written all of them"
            )),
            "take another store, or a version of this one from before; what is there is restored only with a configuration without verify_keys",
        ),
    }
}

/// What it means that the catalog knows of a journal which its store no longer has.
pub fn vanished(name: &DatabaseName, store: &str, head: &Head) -> OperatorMessage {
    let (at, signed) = (head.said.end, signed_at(head));
    OperatorMessage::new(
        Code::HeadNotHeld,
        format!(
            "{store} has no incarnation {} of {name}, but a head of it was signed at {signed}: it reached {at} there",
            head.said.incarnation
        ),
        Safe::Unknown(format!("what {store} holds now may have been written by anyone who may write there")),
        "take another store, or a version of this one from before; what is there is restored only with a configuration without verify_keys",
    )
}
