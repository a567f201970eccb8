//! What speaks against the pages of the stores, for `farshore verify`.
//!
//! What always holds: a store that could not be read is among it. Its pages are held against themselves, and against what the store confirmed once; whether they are the
//! catalog's, `activity verify` and `exposure verify` ask (`held.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::chronicle::Seal;
use farshore_journal::DatabaseName;
use farshore_journal::format::Chronicle;
use farshore_journal::moment::Moment;

use super::ask;
use super::found::Found;
use crate::config::{Config, StoreName};

/// How long what was read counts, by either clock: one that was wrong must not let it count for longer.
const COUNTS: Duration = Duration::from_secs(600);

/// What speaks against the pages of activity in a store, and when reading them began, as asking is dated and by both clocks.
type Read = (DateTime<Utc>, Moment, Vec<String>);

/// What a service found of activity, which is of all databases, in each store: a job takes what was read since it was asked for, so that of those which a schedule
/// asks for together the first reads it and the others do not.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<BTreeMap<StoreName, Read>>>);

impl Shared {
    fn since(&self, store: &StoreName, asked: DateTime<Utc>) -> Option<Vec<String>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |begun: &DateTime<Utc>, read: &Moment| *begun >= asked && read.elapsed() < COUNTS;
        all.get(store).filter(|(begun, read, _)| counts(begun, read)).map(|(_, _, found)| found.clone())
    }

    fn keep(&self, store: &StoreName, read: Read) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(store.clone(), read);
    }
}

/// What speaks against the stores' pages. Activity is read once in each store.
pub struct Pages {
    /// What the stores confirmed, before any of them was read; empty where the catalog is away.
    confirmed: Vec<Seal>,
    activity: Shared,
    asked: DateTime<Utc>,
}

impl Pages {
    /// For one who looks now, with a catalog where there is one.
    pub async fn new(catalog: Option<&Catalog>) -> Self {
        Self::asked_for(catalog, Shared::default(), Utc::now()).await
    }

    /// For work that was asked for at a time, beside what was read since then. Asks the catalog how far the stores have each chronicle.
    pub async fn asked_for(catalog: Option<&Catalog>, activity: Shared, asked: DateTime<Utc>) -> Self {
        let confirmed = match catalog {
            Some(catalog) => catalog.seal_list().await,
            None => {
                tracing::info!(
                    "no catalog is at hand: whether the last pages of the activity and of the exposure ledgers were deleted is not looked at"
                );
                Ok(Vec::new())
            }
        };
        let confirmed = confirmed.unwrap_or_else(|why| {
            tracing::warn!(error = %why, "the catalog is away: whether the last pages of the activity and of the exposure ledgers were deleted is not looked at");
            Vec::new()
        });
        let confirmed = confirmed.into_iter().map(|(seal, _)| seal).collect();
        Self { confirmed, activity, asked }
    }

    /// Of a database in a store.
    pub async fn of(&self, config: &Config, name: &DatabaseName, store: &StoreName) -> Vec<String> {
        let mut all = self.read(config, &Chronicle::Exposure(name.clone()), store).await;
        let activity = match self.activity.since(store, self.asked) {
            Some(activity) => activity,
            None => {
                let (begun, read) = (Utc::now(), Moment::now());
                let activity = self.read(config, &Chronicle::Activity, store).await;
                self.activity.keep(store, (begun, read, activity.clone()));
                activity
            }
        };
        all.extend(activity);
        all
    }

    async fn read(&self, config: &Config, chronicle: &Chronicle, store: &StoreName) -> Vec<String> {
        let of = chronicle.to_string();
        let confirmed = self.confirmed.iter().find(|one| one.chronicle == of && one.store == store.as_str());
        let damaged = Box::pin(damaged(config, chronicle, store, confirmed)).await;
        if !damaged.is_empty() {
            tracing::error!(%chronicle, %store, "{}", ask::flawed(chronicle, store.as_str(), &damaged));
        }
        damaged.into_iter().map(|what| format!("{chronicle}: {what}")).collect()
    }
}

/// What a store confirmed once, and does not have now: the catalog alone can tell that pages at its end were deleted.
pub(super) fn gone(found: &Found, seal: &Seal) -> Option<String> {
    let digest = seal.digest.parse().ok().filter(|_| seal.number > 0)?;
    let (first, number) = (seal.once, seal.number);
    let lacks = match found.leads_to((number, digest)) {
        Some(begins) if begins <= first => return None,
        Some(begins) => format!("those before {begins} are not there now"),
        None => format!("nothing there leads to {number} now"),
    };
    Some(format!(
        "it had entries {first} to {number} once, as the catalog says, and {lacks}: they were deleted, or the store is an older copy or another one"
    ))
}

/// What speaks against a store's pages of a chronicle whoever signed them: damaged, missing, or not what they state. A store that could not be read is among it.
/// That it begins later than the record, as one that was added later may, is none; nor is what other catalogs wrote there looked at. `confirmed` is how far the
/// catalog said that the store has it, before it was read.
async fn damaged(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
    confirmed: Option<&Seal>,
) -> Vec<String> {
    let read = async {
        let (repository, found) = ask::read_as_it_is(config, chronicle, store).await?;
        let own = ask::own_lives(config, chronicle, store, &repository, &found).await?;
        anyhow::Ok((found, own))
    };
    let (found, own) = match read.await {
        Ok(read) => read,
        Err(why) => return vec![format!("it could not be read: {why:#}")],
    };
    let mut all: Vec<String> = found.strangers.iter().map(|key| format!("{key} is no page of it")).collect();
    for (life, strand) in found.strands.iter().filter(|(life, _)| own.contains(life)) {
        let line = found.line(*life);
        let flaws = line.as_ref().map_or(&strand.flaws, |line| &line.flaws);
        let flaws = flaws.iter().map(ToString::to_string);
        all.extend(flaws.filter(|flaw| !all.contains(flaw)).collect::<Vec<_>>());
    }
    all.extend(confirmed.and_then(|seal| gone(&found, seal)));
    all
}
