//! How the stores hold a chronicle against the catalog: how far each has it, and what speaks against it.
//!
//! What always holds: a store that could not be read is said, and never called one that has anything; what a store lacks is counted.

use farshore_catalog::Catalog;
use farshore_catalog::activity::{Finding, Verified};
use farshore_catalog::chronicle::{Kept, Own};
use farshore_journal::chronicle::Strand;
use farshore_journal::format::{Chronicle, EntryDigest, LifeId};
use serde::Serialize;

use super::ask;
use super::damage;
use super::found::Found as Stored;
use super::line::Line;
use super::place::{self, agreement};
use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};

/// A chronicle in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InStore {
    /// The store.
    pub store: String,
    /// Whether everything that was asked holds; `None` when it could not be read.
    pub sound: Option<bool>,
    /// The number of the entry from which on it holds all up to `sealed_to`; 0 where none.
    pub sealed_from: u64,
    /// The number of the newest entry that it holds; 0 where none.
    pub sealed_to: u64,
    /// That entry's digest.
    pub digest: Option<EntryDigest>,
    /// Entries that it holds and the catalog does not, so that nothing could be compared; `None` where the catalog was not asked.
    pub not_compared: Option<u64>,
    /// Entries of the catalog's record that it does not hold, or holds as others; `None` where the catalog was not asked.
    pub lacks: Option<u64>,
    /// Entries that no private key at hand opened: their chain is followed, and what they say was not looked at.
    pub not_opened: u64,
    /// Lives that end elsewhere and that no other goes on from at their ends: branches, or another catalog's.
    pub branches: u64,
    /// What keeps a service from sealing more there, as it said last; `None` where nothing does, or the catalog was not asked.
    pub trouble: Option<String>,
    /// What speaks against it.
    pub findings: Vec<String>,
}

/// What speaks against an entry of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    number: u64,
    finding: String,
}

/// The catalog's own chain, walked from its first entry on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Whether nothing speaks against it.
    pub sound: bool,
    entries: u64,
    last: u64,
    digest: String,
    findings: Vec<Found>,
    /// Of the findings those that entries are missing: from which on, and up to which.
    #[serde(skip)]
    missing: Vec<(u64, u64)>,
}

impl From<Verified> for Chain {
    fn from(verified: Verified) -> Self {
        let Verified { entries, last, digest, findings } = verified;
        let gone = |(number, finding): &(u64, Finding)| match finding {
            Finding::Missing { through } => Some((*number, *through)),
            _ => None,
        };
        let missing = findings.iter().filter_map(gone).collect();
        let found = |(number, finding): (u64, Finding)| Found { number, finding: finding.to_string() };
        let findings: Vec<Found> = findings.into_iter().map(found).collect();
        Self { sound: findings.is_empty(), entries, last, digest, findings, missing }
    }
}

impl Chain {
    /// Where all that speaks against it is that it lacks what is before an entry which this catalog wrote first: from which on it has all. What an earlier one wrote
    /// comes back part by part, or no store shows it.
    pub fn lacks_before(&self, first: u64) -> Option<u64> {
        match self.missing.as_slice() {
            [(1, through)] if self.findings.len() == 1 && *through < first => Some(through + 1),
            _ => None,
        }
    }

    /// As lines for people.
    pub fn text(&self) -> String {
        let end = match self.digest.as_str() {
            "" => "no entry is chained yet".to_owned(),
            digest => format!("number {}, {digest}", self.last),
        };
        let mut lines = format!("entries    {}\nend        {end}\n", self.entries);
        for found in &self.findings {
            lines.push_str(&format!("FOUND      {}: {}\n", found.number, found.finding));
        }
        if self.findings.is_empty() {
            lines.push_str("sound      each entry is as it was written, and follows the one before\n");
        }
        lines
    }

    /// What it means that it is not sound.
    pub fn message(&self, chronicle: &Chronicle) -> OperatorMessage {
        let all: Vec<String> =
            self.findings.iter().map(|found| format!("{}: {}", found.number, found.finding)).collect();
        catalog_flawed(chronicle, &all.join("; "))
    }
}

/// Why entries of the catalog were not given out.
#[derive(Debug)]
pub enum Unheld {
    /// They are not as they were written.
    Flawed(String),
    /// It did not answer, or not in time: nothing is known of them.
    Away(farshore_catalog::Error),
}

impl Unheld {
    /// Which of the two an error is.
    pub fn of(why: farshore_catalog::Error) -> Self {
        match why {
            why @ farshore_catalog::Error::Corrupt { .. } => Self::Flawed(why.to_string()),
            why => Self::Away(why),
        }
    }
}

/// What it means that the catalog does not have a chronicle as it was written.
pub fn catalog_flawed(chronicle: &Chronicle, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::ChronicleFlawed,
        format!("what the catalog has of {chronicle} is not as it was written: {why}"),
        Safe::Unknown(
            "whether what is shown of it is what happened; journals and backups are not touched by this"
                .to_owned(),
        ),
        format!(
            "`farshore {} verify` holds it against the stores, and `list --store NAME` shows what one of them has",
            super::word(chronicle)
        ),
    )
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
    // Before the store: what was confirmed by then is in it. Behind it the catalog: what is sealed meanwhile is in that.
    let confirmed = match catalog {
        Some(catalog) => catalog.seal_of(chronicle, store.as_str()).await?,
        None => None,
    };
    shown.trouble = confirmed.as_ref().and_then(|seal| seal.trouble.clone());
    let (repository, found) = ask::read(config, chronicle, store).await?;
    let own = match catalog {
        Some(catalog) => Some(catalog.chronicle_own(chronicle).await?),
        None => None,
    };
    let vouched = found.vouched(&super::pinned(config, chronicle, store));
    shown.findings.extend(found.strangers.iter().map(|key| format!("{key} is no page of it")));
    shown.findings.extend(confirmed.and_then(|seal| damage::gone(&found, &seal)));
    shown.lacks = own.as_ref().map(Own::last);
    shown.not_compared = own.as_ref().map(|_| 0);
    let agreed = own.as_ref().and_then(|own| place::agreed(&found, own, &vouched));
    let newest = ask::newest_life(config, chronicle, store, &repository, &found).await?;
    let Some(life) = agreed.map(|one| one.life).or(newest) else {
        // Pages of which none counts.
        let flaws = found.strands.values().flat_map(|strand| &strand.flaws).map(ToString::to_string);
        shown.findings.extend(flaws);
        return Ok(());
    };
    if let Some(flaws) =
        found.strands.get(&life).filter(|strand| strand.end().is_none()).map(|strand| &strand.flaws)
    {
        shown.findings.extend(flaws.iter().map(ToString::to_string));
    }
    let Some(line) = found.line(life) else {
        shown.findings.push("not one entry of it holds".to_owned());
        return Ok(());
    };
    shown.branches = branches(&found, life, &line);
    (shown.sealed_from, shown.sealed_to) = (line.begins, line.last);
    (shown.digest, shown.not_opened) = (Some(line.digest), line.sealed);
    shown.findings.extend(line.all_flaws());
    if let Some(own) = &own {
        compare(&line, own, shown);
    }
    Ok(())
}

/// Lives besides one that end elsewhere than on its line, and that no other goes on from at their ends.
fn branches(found: &Stored, life: LifeId, line: &Line) -> u64 {
    let apart = |(other, strand): &(&LifeId, &Strand)| {
        let Some((last, digest)) = strand.end() else { return **other != life };
        let on_line = line.marks.binary_search_by_key(&last, |(number, _)| *number);
        let on_line = on_line.is_ok_and(|at| line.marks[at].1 == digest);
        let goes_on = |next: &Strand| next.base == last && next.before == Some(digest);
        **other != life && !on_line && !found.strands.values().any(goes_on)
    };
    found.strands.iter().filter(apart).count() as u64
}

/// Holds what leads to the store's end against the catalog, entry by entry.
fn compare(line: &Line, own: &Own, shown: &mut InStore) {
    let met = agreement(&line.marks, own);
    let held = met.through.map_or(0, |(through, _)| (through + 1).saturating_sub(line.begins));
    shown.lacks = Some(own.last().saturating_sub(held));
    shown.not_compared = Some(met.older.map_or(0, |(_, last)| last + 1 - line.begins));
    if let Some(number) = met.differs {
        let whose = match met.through {
            Some((through, _)) => format!("up to {through} both have the same"),
            None => "no entry before it is in both".to_owned(),
        };
        shown.findings.push(format!(
            "entry {number} is another one than in the catalog, and each behind it: {whose}; which of the two was written first no digest tells"
        ));
    }
    if let Some((first, last)) = met.newer {
        shown.findings.push(format!(
            "it has entries {first} to {last}, which the catalog has not: that was put back from an older copy or cut, or another writes there"
        ));
    }
}

/// The entries that a store alone gives, oldest first, and what speaks against them.
///
/// # Errors
/// When it does not answer, or has none.
pub async fn entries(config: &Config, chronicle: &Chronicle, store: &StoreName) -> anyhow::Result<Vec<Kept>> {
    ask::known(config, Some(chronicle), store)?;
    let (repository, found) = ask::read(config, chronicle, store).await?;
    let life = ask::newest_life(config, chronicle, store, &repository, &found).await?;
    let line = life.and_then(|life| found.line(life));
    let Some(line) = line else {
        let flaws = found.strands.values().flat_map(|strand| &strand.flaws).map(ToString::to_string);
        let flaws: Vec<String> = flaws.collect();
        if !flaws.is_empty() {
            return Err(ask::flawed(chronicle, store.as_str(), &flaws).into());
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
    let flaws = line.all_flaws();
    if !flaws.is_empty() {
        tracing::error!("{}", ask::flawed(chronicle, store.as_str(), &flaws));
    }
    if line.sealed > 0 {
        tracing::warn!(%chronicle, %store, entries = line.sealed, "encrypted, and no private key is at hand: these entries are not shown");
    }
    Ok(found.former(&line).entries)
}

/// How the stores stand, as lines for people.
pub fn lines(all: &[InStore]) -> String {
    let mut text = String::new();
    for one in all {
        let lacks = match (one.sound, one.lacks) {
            (None, _) => "not known".to_owned(),
            (_, Some(0)) => format!("has all, up to {}", one.sealed_to),
            (_, Some(lacks)) => {
                format!("up to {}; {lacks} that the catalog counts are not there", one.sealed_to)
            }
            (_, None) => format!("up to {}", one.sealed_to),
        };
        text.push_str(&format!("store      {}: {lacks}\n", one.store));
        if one.not_opened > 0 {
            text.push_str(&format!(
                "           {} are sealed, and no key at hand opened them: their chain was followed, and what they say was not looked at\n",
                one.not_opened
            ));
        }
        if one.sealed_from > 1 {
            text.push_str(&format!(
                "           begins with {}: what is before is not there\n",
                one.sealed_from
            ));
        }
        if let Some(many) = one.not_compared.filter(|many| *many > 0) {
            text.push_str(&format!(
                "           {many} are there and not in the catalog: whether they are what it wrote is known by the chain alone\n"
            ));
        }
        if one.branches > 0 {
            text.push_str(&format!(
                "           {} more that other catalogs, or copies of this one, wrote\n",
                one.branches
            ));
        }
        if let Some(trouble) = &one.trouble {
            text.push_str(&format!("           TROUBLE when it was sealed to last: {trouble}\n"));
        }
        for finding in &one.findings {
            text.push_str(&format!("FOUND      {}: {finding}\n", one.store));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(findings: Vec<(u64, Finding)>) -> Chain {
        Chain::from(Verified { entries: 3, last: 9, digest: String::new(), findings })
    }

    #[test]
    fn what_an_earlier_catalog_wrote_and_is_not_here_yet_is_told_from_what_was_changed() {
        let missing = (1, Finding::Missing { through: 4 });
        assert_eq!(chain(vec![missing]).lacks_before(7), Some(5));
        assert_eq!(chain(vec![missing]).lacks_before(5), Some(5));
        assert_eq!(chain(vec![missing]).lacks_before(4), None, "this catalog wrote some of them");
        assert_eq!(chain(vec![missing, (6, Finding::Changed)]).lacks_before(7), None);
        assert_eq!(chain(vec![(6, Finding::Missing { through: 6 })]).lacks_before(7), None);
        assert_eq!(chain(Vec::new()).lacks_before(7), None);
    }

    #[test]
    fn a_catalog_that_does_not_answer_is_not_called_changed() {
        let late = farshore_catalog::Error::Deadline { query: "q", deadline: std::time::Duration::ZERO };
        assert!(matches!(Unheld::of(late), Unheld::Away(_)));
        let corrupt =
            farshore_catalog::Error::Corrupt { column: "digest", reason: "not as written".to_owned() };
        assert!(matches!(Unheld::of(corrupt), Unheld::Flawed(_)));
    }
}
