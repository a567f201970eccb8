//! What a store has of a chronicle, held against its chain and, where keys are pinned, its signatures.
//!
//! What always holds: an entry that is given out has the digest of what it says, and leads to an end that a pinned key signed where one is pinned; what does
//! not is named. A page that is sealed and not opened is counted, and its entries are missing from what is given out.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use farshore_catalog::chronicle::{Former, Kept};
use farshore_journal::chronicle::{self, Flaw, Strand, lives_before};
use farshore_journal::format::{Chronicle, EntryDigest, HeadStanding, LifeId, Page, Unlock, VerifyKeys};
use farshore_journal::registry::Repository;
use farshore_journal::{JournalError, store};
use tokio::task::JoinSet;

/// Pages that are asked for at once.
const AHEAD: usize = 8;

/// A chronicle in a store.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its lives.
    pub strands: BTreeMap<LifeId, Strand>,
    /// When the store got each one's newest page.
    pub newest: BTreeMap<LifeId, DateTime<Utc>>,
    /// Names that are none of it.
    pub strangers: Vec<store::Key>,
}

/// What leads to the end of a life.
#[derive(Debug, Clone)]
pub struct Line {
    /// The life.
    pub life: LifeId,
    /// Its end, and the entries that could be opened.
    pub former: Former,
    /// Entries that are sealed and were not opened.
    pub sealed: u64,
    /// What speaks against it.
    pub flaws: Vec<Flaw>,
}

/// Reads all of a chronicle.
///
/// # Errors
/// When the store does not answer. What is there and counts for nothing is no error.
pub async fn read(
    repository: &Repository,
    chronicle: &Chronicle,
    pinned: &VerifyKeys,
) -> Result<Found, JournalError> {
    let names = chronicle::names(repository, chronicle).await?;
    let mut found = Found { newest: names.newest, strangers: names.strangers, ..Found::default() };
    for (life, firsts) in names.lives {
        let mut read = Vec::with_capacity(firsts.len());
        for firsts in firsts.chunks(AHEAD) {
            let mut pages = JoinSet::new();
            for first in firsts.iter().copied() {
                let (repository, chronicle) = (repository.clone(), chronicle.clone());
                pages.spawn(
                    async move { (first, chronicle::read(&repository, &chronicle, life, first).await) },
                );
            }
            while let Some(page) = pages.join_next().await {
                let Ok((first, page)) = page else { continue };
                let page = match page {
                    Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
                    other => other.map_err(|why| why.to_string()),
                };
                read.push((first, page));
            }
        }
        read.sort_by_key(|(first, _)| *first);
        found.strands.insert(life, vouched(Strand::of(life, read), pinned));
    }
    Ok(found)
}

/// Cuts off what no pinned key vouches for: a signature stands for every entry before it.
fn vouched(mut strand: Strand, pinned: &VerifyKeys) -> Strand {
    if pinned.is_empty() {
        return strand;
    }
    let signed = |page: &Page| page.standing(pinned) == Some(HeadStanding::Pinned);
    let vouched = strand.pages.iter().rposition(signed).map_or(0, |last| last + 1);
    if let Some(first) = strand.pages.get(vouched) {
        let at = first.place().first;
        strand.flaws.insert(0, Flaw::Unread { at, why: "no key of verify_keys signed it".to_owned() });
        strand.pages.truncate(vouched);
    }
    strand
}

impl Found {
    /// The life to go on from, among these: the one with the newest page of those that no other goes on from. The others stay where they are.
    pub fn leaf(&self, among: Option<&BTreeSet<LifeId>>) -> Option<LifeId> {
        let counts = |life: &LifeId| {
            among.is_none_or(|among| among.contains(life))
                && self.strands.get(life).is_some_and(|strand| strand.end().is_some())
        };
        let gone_on_from: BTreeSet<LifeId> = self
            .strands
            .keys()
            .filter(|life| counts(life))
            .flat_map(|life| {
                let (mut path, _) = lives_before(&self.strands, *life);
                path.pop();
                path.into_iter().map(|(life, _)| life)
            })
            .collect();
        let leaves = self.strands.keys().filter(|life| counts(life) && !gone_on_from.contains(life));
        leaves.max_by_key(|life| self.newest.get(life)).copied()
    }

    /// What leads to the end of a life; `None` where nothing of it counts.
    pub fn line(&self, chronicle: &Chronicle, life: LifeId, unlock: &Unlock) -> Option<Line> {
        let (last, digest) = self.strands.get(&life)?.end()?;
        let (path, lost) = lives_before(&self.strands, life);
        let mut flaws: Vec<Flaw> = lost.into_iter().collect();
        let (mut entries, mut sealed) = (Vec::new(), 0);
        for (life, through) in path {
            let Some(strand) = self.strands.get(&life) else { continue };
            flaws.extend(strand.flaws.iter().filter(|flaw| begins(flaw) <= through).cloned());
            for page in strand.pages.iter().filter(|page| page.place().first <= through) {
                match opened(chronicle, page, unlock) {
                    Ok(Some(kept)) => {
                        entries.extend(kept.into_iter().filter(|entry| entry.number <= through));
                    }
                    Ok(None) => sealed += page.last().min(through) + 1 - page.place().first,
                    Err(flaw) => flaws.push(flaw),
                }
            }
        }
        let written = self.newest.get(&life).copied().unwrap_or_default();
        Some(Line { life, former: Former { last, digest, entries, written }, sealed, flaws })
    }
}

/// The entries of a page; `None` where no key at hand opens it.
fn opened(chronicle: &Chronicle, page: &Page, unlock: &Unlock) -> Result<Option<Vec<Kept>>, Flaw> {
    let place = page.place();
    let entries = match page.entries(unlock) {
        Ok(entries) => entries,
        Err(
            farshore_journal::format::FormatError::KeyMissing
            | farshore_journal::format::FormatError::Key { .. },
        ) => {
            return Ok(None);
        }
        Err(why) => return Err(Flaw::Unread { at: place.first, why: why.to_string() }),
    };
    let mut former: Option<EntryDigest> = place.before;
    let mut kept = Vec::with_capacity(entries.len());
    for (number, entry) in (place.first..).zip(&entries) {
        let Some(one) = Kept::read(chronicle, number, former, entry) else {
            let why = "its digest is not that of what it says".to_owned();
            return Err(Flaw::Unread { at: number, why });
        };
        former = Some(one.digest);
        kept.push(one);
    }
    Ok(Some(kept))
}

fn begins(flaw: &Flaw) -> u64 {
    match flaw {
        Flaw::Missing { from, .. } => *from,
        Flaw::Broken { at } | Flaw::Unread { at, .. } => *at,
    }
}
