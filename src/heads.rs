//! What is known of a database's signed heads outside its stores, and what it means when a journal does not hold what was signed.
//!
//! What always holds: without a pinned key nothing is asked and nothing concluded; the catalog is asked and never made for it, and when
//! it is away that is said. *Safe* is told from the head's position and the journal's.

use farshore_applier::heads::{Doubt, KnownHeads, Unwitnessed};
use farshore_journal::format::Head;
use farshore_journal::{DatabaseName, Position, Sequence};

use crate::config::{Config, DatabaseConfig, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::{self, Purpose};

/// Where a journal does not hold what was signed of it, nothing of it is taken but on purpose.
const ANOTHER: &str = "take another store, or a version of this one from before; what is there is restored only with a configuration without verify_keys";

/// The pinned keys of a database, and the catalog's heads of its journals in a store. The catalog is asked before the store.
pub async fn known(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    store: &StoreName,
) -> KnownHeads {
    let mut known = KnownHeads {
        pinned: settings.verify_keys.clone(),
        retired: settings.retired_keys.clone(),
        ..KnownHeads::default()
    };
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

/// `None` where there is no catalog.
async fn in_catalog(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
) -> Result<Option<Vec<Head>>, OperatorMessage> {
    if wiring::catalog_is_absent(config) {
        return Ok(None);
    }
    let catalog = wiring::catalog(config).await?;
    let heads = catalog.head_list(name).await.map_err(|why| wiring::catalog_away(&why))?;
    // By the store's id, which stays when it is called otherwise; and by its name, under which another one may stand now.
    let repository = wiring::repository_for(config, store, Purpose::Read).await;
    let id = repository.ok().map(|repository| repository.id());
    let of_store =
        heads.into_iter().filter(|known| known.store == store.as_str() || Some(known.head.said.store) == id);
    Ok(Some(of_store.map(|known| known.head).collect()))
}

/// What it means that a journal does not hold what was signed of it, or that this could not be found out.
pub fn not_held(name: &DatabaseName, store: &str, doubt: &Doubt) -> OperatorMessage {
    match doubt {
        Doubt::Cut { head, end } => cut(name, store, head, end.as_ref()),
        Doubt::Hole { head, missing, before } => OperatorMessage::new(
            Code::HeadNotHeld,
            format!(
                "the journal of {name} in {store} has no chunk {missing}, though later ones are there and a head signed at {} says \
                 that it reached {}: the chunk was deleted, or the store lost it",
                head.signed_when(),
                head.said.end
            ),
            match before {
                Some(before) => Safe::Known(format!(
                    "the chunk before it ends at {before}; nothing behind that can be reached across the hole but from a backup \
                     taken behind it"
                )),
                None => Safe::Unknown("where the hole begins could not be read".to_owned()),
            },
            "put the chunk back from another store or a version of this one; `farshore verify` names what else is missing",
        ),
        Doubt::Rewritten { head } => OperatorMessage::new(
            Code::HeadNotHeld,
            format!(
                "the journal of {name} in {store} is not the one that was signed: at chunk {} a head signed at {} names another \
                 history, up to {}",
                head.said.number,
                head.signed_when(),
                head.said.end
            ),
            Safe::Unknown(format!(
                "which of its bytes farshore wrote: whoever may write to {store} may have written all of them"
            )),
            ANOTHER,
        ),
        Doubt::Unread { object, why } => OperatorMessage::new(
            Code::HeadNotHeld,
            format!(
                "whether the journal of {name} in {store} holds what was signed of it is not known: {object}: {why}"
            ),
            Safe::Unknown("whether its end is the end of what was shipped".to_owned()),
            "mend the access to that object, or put it back from a copy; a target that is named is restored with this warning",
        ),
        Doubt::GivenUp { looked } => OperatorMessage::new(
            Code::HeadNotHeld,
            format!(
                "whether the journal of {name} in {store} holds what was signed of it is not known: {looked} objects at the names \
                 of its newest heads count for nothing, and the others were not looked at"
            ),
            Safe::Unknown("whether its end is the end of what was shipped".to_owned()),
            "delete the heads that `farshore verify` names: someone else puts them; a target that is named is restored with this warning",
        ),
    }
}

fn cut(name: &DatabaseName, store: &str, head: &Head, end: Option<&(Sequence, Position)>) -> OperatorMessage {
    let (at, signed) = (head.said.end, head.signed_when());
    match end {
        Some((last, end)) => OperatorMessage::new(
            Code::HeadNotHeld,
            format!(
                "the journal of {name} in {store} ends at {end} with chunk {last}, but a head signed at {signed} says that it \
                 reached {at}: its end was cut off, or the store lost it"
            ),
            Safe::Known(format!(
                "what is left ends at {end}, and what was stored behind that, up to {at} and perhaps further, is not there; whether it \
                 is unbroken up to its end is seen when it is read, by `farshore verify` or a restore"
            )),
            format!(
                "look for the rest in another store or a version of this one; to restore what is left, ask for --pos {end}"
            ),
        ),
        None => OperatorMessage::new(
            Code::HeadNotHeld,
            format!(
                "the journal of {name} in {store} is empty, but a head signed at {signed} says that it reached {at}: it was \
                 deleted, or the store lost it"
            ),
            Safe::Known(format!("nothing of it is left in {store}")),
            "look for it in another store, or in a version of this one",
        ),
    }
}

/// What it means that nothing is signed of the newest incarnation, and something is of one before it.
pub fn unwitnessed(name: &DatabaseName, store: &str, found: &Unwitnessed) -> OperatorMessage {
    let Unwitnessed { number, earlier, head } = found;
    let of_earlier = match head {
        Some(head) => format!("a head of incarnation {earlier} was signed at {}", head.signed_when()),
        None => format!("incarnation {earlier} may have heads, which could not be looked at"),
    };
    OperatorMessage::new(
        Code::HeadNotHeld,
        format!(
            "of incarnation {number} of {name} in {store}, the newest, nothing is signed, and {of_earlier}"
        ),
        Safe::Unknown(format!(
            "who wrote incarnation {number}: a shipper signs a new one within seconds, and whoever may write to {store} can put one there"
        )),
        format!(
            "if the shipper began it this moment, ask again once it has signed; else restore with --incarnation {earlier}. \
             --incarnation {number} takes it unsigned"
        ),
    )
}

/// What it means that the catalog knows of a journal which its store no longer has.
pub fn vanished(name: &DatabaseName, store: &str, head: &Head) -> OperatorMessage {
    let (at, signed) = (head.said.end, head.signed_when());
    OperatorMessage::new(
        Code::HeadNotHeld,
        format!(
            "{store} has no incarnation {} of {name}, but a head of it was signed at {signed}: it reached {at} there",
            head.said.incarnation
        ),
        Safe::Unknown(format!("what {store} holds now may have been written by anyone who may write there")),
        ANOTHER,
    )
}
