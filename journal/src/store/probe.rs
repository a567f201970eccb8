//! Races creators at a new store, because everything rests on one of them winning.
//!
//! Some servers accept a conditional put and ignore the condition, or check it before they take the lock. Asking once
//! does not show it; racing does. A store that lets two win is never used.
//!
//! It leaves one small object for each round below `probe/`, unless the store lets it delete: under an object lock they
//! stay, and cost nothing worth naming.

use bytes::Bytes;
use futures::future::join_all;

use super::{Created, KeyPrefix, ObjectStore, Operation, StoreError};

/// Creators that race for one key.
const CREATORS: usize = 8;
/// Keys raced for. Stores known to be broken let several win in nearly every round.
const ROUNDS: usize = 20;

/// Proves by races that of many creators of a key exactly one wins, and that the winner's bytes are what is there.
///
/// # Errors
/// [`StoreError::Unsafe`] when the store broke the promise, saying how; any other error when it could not be tried.
pub async fn probe(store: &dyn ObjectStore) -> Result<(), StoreError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| StoreError::Answer {
        operation: Operation::Probe,
        what: "a name".into(),
        reason: e.to_string(),
        ambiguous: false,
    })?;
    let folder = KeyPrefix::new("probe")?.join(hex::encode(random))?;
    for round in 0..ROUNDS {
        race(store, &folder, round).await?;
    }
    for round in 0..ROUNDS {
        if let Err(error) = store.delete(&folder.key(round)?).await {
            // An object lock, or a credential that may not delete: as it should be for a shipper.
            tracing::debug!(%error, "the probe's objects stay");
            break;
        }
    }
    Ok(())
}

async fn race(store: &dyn ObjectStore, folder: &KeyPrefix, round: usize) -> Result<(), StoreError> {
    let key = folder.key(round)?;
    // Different lengths too: a mixture of two writes shows.
    let bytes = |creator: usize| Bytes::from(format!("round {round}, creator {creator}").repeat(creator + 1));
    let told = join_all((0..CREATORS).map(|creator| store.create(&key, bytes(creator)))).await;
    let mut winners = Vec::new();
    let mut doubts = Vec::new();
    let mut failure = None;
    for (creator, told) in told.into_iter().enumerate() {
        match told {
            Ok(Created::New) => winners.push(creator),
            Ok(Created::Exists) => {}
            Err(error) => {
                // A busy store may turn creators away; whoever was left in doubt may be the winner.
                if error.is_ambiguous() {
                    doubts.push(creator);
                }
                failure = Some(error);
            }
        }
    }
    if winners.len() > 1 {
        let what = format!(
            "it told {} of {CREATORS} racing creators of {key} that they made it (round {} of {ROUNDS}): \
             conditional creates are ignored or not atomic",
            winners.len(),
            round + 1
        );
        return Err(StoreError::Unsafe { what });
    }
    if winners.is_empty()
        && let Some(failure) = failure
    {
        return Err(failure);
    }
    let Some(&winner) = winners.first() else {
        let what =
            format!("it told all {CREATORS} racing creators of the new key {key} that it exists already");
        return Err(StoreError::Unsafe { what });
    };
    let there = store.get(&key).await.map_err(|error| match error {
        StoreError::NotFound { key } => {
            StoreError::Unsafe { what: format!("it confirmed {key} and then does not have it") }
        }
        error => error,
    })?;
    if there != bytes(winner) {
        let other = (0..CREATORS).find(|creator| there == bytes(*creator));
        let what = match other {
            Some(other) => {
                format!("it told creator {winner} of {key} that it won, but kept the bytes of {other}")
            }
            None => format!("it gave back other bytes for {key} than anyone sent"),
        };
        return Err(StoreError::Unsafe { what });
    }
    // One that comes late must lose too.
    match store.create(&key, Bytes::from_static(b"late")).await? {
        Created::Exists => Ok(()),
        Created::New => Err(StoreError::Unsafe { what: format!("it created {key} a second time") }),
    }
}
