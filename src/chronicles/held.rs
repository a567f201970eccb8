//! How the stores hold a chronicle against the catalog: how far each has it, and what speaks against it.
//!
//! What always holds: a store that could not be read is said, and never called one that has anything; what a store lacks is counted.

use farshore_catalog::Catalog;
use farshore_catalog::chronicle::Kept;
use farshore_journal::chronicle::lives_before;
use farshore_journal::format::{Chronicle, EntryDigest};
use serde::Serialize;

use super::settle;
use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};

/// A chronicle in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InStore {
    /// The store.
    pub store: String,
    /// Whether everything that was asked holds; `None` when it could not be read.
    pub sound: Option<bool>,
    /// The number of the newest entry that it holds; 0 where none.
    pub sealed_to: u64,
    /// That entry's digest.
    pub digest: Option<EntryDigest>,
    /// Entries of the catalog that it does not hold; `None` where the catalog was not asked.
    pub lacks: Option<u64>,
    /// Entries that no private key at hand opened: their chain is followed, and what they say was not looked at.
    pub not_opened: u64,
    /// Lives that no other goes on from, besides the newest: branches, or another catalog's.
    pub branches: u64,
    /// What speaks against it.
    pub findings: Vec<String>,
}

/// Looks at a chronicle in a store; with a catalog it is held against that.
pub async fn look(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
    catalog: Option<&Catalog>,
) -> InStore {
    let mut shown = InStore { store: store.to_string(), ..InStore::default() };
    match Box::pin(look_into(config, chronicle, store, catalog, &mut shown)).await {
        Ok(()) => shown.sound = Some(shown.findings.is_empty()),
        Err(why) => shown.findings.push(format!("it could not be read: {why:#}")),
    }
    shown
}

async fn look_into(
    config: &Config,
    chronicle: &Chronicle,
    store: &StoreName,
    catalog: Option<&Catalog>,
    shown: &mut InStore,
) -> anyhow::Result<()> {
    let standing = match catalog {
        Some(catalog) => Some(catalog.chronicle_standing(chronicle).await?),
        None => None,
    };
    let (repository, found) = settle::read(config, chronicle, store).await?;
    shown.findings.extend(found.strangers.iter().map(|key| format!("{key} is no page of it")));
    let own = standing.and_then(|standing| standing.life).filter(|life| found.strands.contains_key(life));
    let newest = settle::newest_life(config, chronicle, store, &repository, &found).await?;
    let Some(life) = own.or(newest) else {
        // Pages of which none counts.
        let flaws = found.strands.values().flat_map(|strand| &strand.flaws).map(ToString::to_string);
        shown.findings.extend(flaws);
        shown.lacks = standing.map(|standing| standing.last);
        return Ok(());
    };
    let (path, _) = lives_before(&found.strands, life);
    shown.branches = (found.strands.len() - path.len().min(found.strands.len())) as u64;
    if let Some(flaws) =
        found.strands.get(&life).filter(|strand| strand.end().is_none()).map(|strand| &strand.flaws)
    {
        shown.findings.extend(flaws.iter().map(ToString::to_string));
    }
    let Some(line) = found.line(chronicle, life, &super::unlock(config, store)) else {
        shown.findings.push("not one entry of it holds".to_owned());
        shown.lacks = standing.map(|standing| standing.last);
        return Ok(());
    };
    (shown.sealed_to, shown.digest, shown.not_opened) =
        (line.former.last, Some(line.former.digest), line.sealed);
    shown.findings.extend(line.flaws.iter().map(ToString::to_string));
    let (Some(catalog), Some(standing)) = (catalog, standing) else { return Ok(()) };
    shown.lacks = Some(standing.last.saturating_sub(shown.sealed_to) + line.begins - 1);
    let kept = catalog.chronicle_entries(chronicle, shown.sealed_to, 1).await?.pop();
    match kept.filter(|kept| kept.number == shown.sealed_to) {
        Some(kept) if Some(kept.digest) == shown.digest => {}
        Some(_) => {
            shown.findings.push(format!("entry {} is another one than in the catalog", shown.sealed_to));
        }
        None => shown
            .findings
            .push(format!("it has entries up to {}, which the catalog has not", shown.sealed_to)),
    }
    Ok(())
}

/// The entries that a store alone gives, oldest first, and what speaks against them.
///
/// # Errors
/// When it does not answer, or has none.
pub async fn entries(config: &Config, chronicle: &Chronicle, store: &StoreName) -> anyhow::Result<Vec<Kept>> {
    if !settle::stores(config, chronicle).contains(store) {
        return Err(OperatorMessage::new(
            Code::StoreUnknown,
            format!("{store} is no store of {chronicle}"),
            Safe::Known("nothing was asked".to_owned()),
            "name a store that a database of the configuration is shipped into",
        )
        .into());
    }
    let (repository, found) = settle::read(config, chronicle, store).await?;
    let life = settle::newest_life(config, chronicle, store, &repository, &found).await?;
    let line = life.and_then(|life| found.line(chronicle, life, &super::unlock(config, store)));
    let Some(line) = line else {
        let flaws = found.strands.values().flat_map(|strand| &strand.flaws).map(ToString::to_string);
        let flaws: Vec<String> = flaws.collect();
        if !flaws.is_empty() {
            return Err(settle::flawed(chronicle, store.as_str(), &flaws).into());
        }
        return Err(OperatorMessage::new(
            Code::NothingStored,
            format!("the store {store} has nothing of {chronicle} that counts"),
            Safe::Unknown(
                "whether anything was ever sealed there; what the catalog has was not looked at".to_owned(),
            ),
            format!("`farshore {} verify --store {store}` says why", super::word(chronicle)),
        )
        .into());
    };
    if !line.flaws.is_empty() {
        let flaws: Vec<String> = line.flaws.iter().map(ToString::to_string).collect();
        tracing::error!("{}", settle::flawed(chronicle, store.as_str(), &flaws));
    }
    if line.sealed > 0 {
        tracing::warn!(%chronicle, %store, entries = line.sealed, "encrypted, and no private key is at hand: these entries are not shown");
    }
    Ok(line.former.entries)
}

/// How the stores stand, as lines for people.
pub fn lines(all: &[InStore]) -> String {
    let mut text = String::new();
    for one in all {
        let lacks = match (one.sound, one.lacks) {
            (None, _) => "not known".to_owned(),
            (_, Some(0)) => format!("has all, up to {}", one.sealed_to),
            (_, Some(lacks)) => {
                format!("up to {}; {lacks} more are in the catalog, and not there", one.sealed_to)
            }
            (_, None) => format!("up to {}", one.sealed_to),
        };
        text.push_str(&format!("store      {}: {lacks}\n", one.store));
        if one.not_opened > 0 {
            text.push_str(&format!(
                "           {} are sealed, and no key at hand opened them\n",
                one.not_opened
            ));
        }
        if one.branches > 0 {
            text.push_str(&format!(
                "           {} more that other catalogs, or copies of this one, wrote\n",
                one.branches
            ));
        }
        for finding in &one.findings {
            text.push_str(&format!("FOUND      {}: {finding}\n", one.store));
        }
    }
    text
}
