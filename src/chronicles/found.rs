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
    /// When it got the oldest page.
    pub oldest: Option<DateTime<Utc>>,
    /// Names that are none of it.
    pub strangers: Vec<store::Key>,
}

/// What leads to the end of a life.
#[derive(Debug, Clone)]
pub struct Line {
    /// The number that it begins with: 1, unless its beginning is lost.
    pub begins: u64,
    /// Its end, and the entries that could be opened.
    pub former: Former,
    /// Entries that are sealed and were not opened.
    pub sealed: u64,
    /// The digests that are known, by rising number: each entry's that was opened, and of what was not the last of each page.
    pub marks: Vec<(u64, EntryDigest)>,
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
    let mut found =
        Found { newest: names.newest, oldest: names.oldest, strangers: names.strangers, ..Found::default() };
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

impl Line {
    /// Entries that lead to its end without a break, opened or not: what a store's word is worth.
    pub const fn unbroken(&self) -> u64 {
        self.former.last + 1 - self.begins
    }
}

impl Found {
    /// The life to go on from, among these: the one that reaches the highest number of those that no other goes on from; a clock decides between equals alone. The
    /// others stay where they are.
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
        let reaches = |life: &LifeId| self.strands.get(life).and_then(Strand::end).map(|(last, _)| last);
        leaves.max_by_key(|life| (reaches(life), self.newest.get(life))).copied()
    }

    /// What leads to the end of a life; `None` where nothing of it counts.
    pub fn line(&self, chronicle: &Chronicle, life: LifeId, unlock: &Unlock) -> Option<Line> {
        self.strands.get(&life)?.end()?;
        let (path, lost) = lives_before(&self.strands, life);
        let mut flaws: Vec<Flaw> = lost.into_iter().collect();
        let (mut entries, mut sealed) = (Vec::new(), 0);
        let (mut marks, mut beginning) = (Vec::new(), None);
        // Behind a page that does not hold nothing counts: what is left out in the midst would read as kept.
        'line: for (life, through) in path {
            let Some(strand) = self.strands.get(&life) else { continue };
            flaws.extend(strand.flaws.iter().filter(|flaw| begins(flaw) <= through).cloned());
            for page in strand.pages.iter().filter(|page| page.place().first <= through) {
                let first = page.place().first;
                match opened(chronicle, page, unlock) {
                    Ok(Some(kept)) => {
                        let kept = kept.into_iter().filter(|entry| entry.number <= through);
                        for entry in kept {
                            marks.push((entry.number, entry.digest));
                            entries.push(entry);
                        }
                    }
                    Ok(None) => {
                        sealed += page.last().min(through) + 1 - first;
                        // Of a page that is not opened the last digest alone is known; a life that branches from its midst is in no path.
                        marks.push((page.last(), page.after()));
                    }
                    Err(flaw) => {
                        flaws.push(flaw);
                        break 'line;
                    }
                }
                beginning.get_or_insert(first);
            }
        }
        let ((last, digest), begins) = (marks.last().copied()?, beginning?);
        let written = self.newest.get(&life).copied().unwrap_or_default();
        Some(Line { begins, former: Former { last, digest, entries, written }, sealed, marks, flaws })
    }
}

/// The entries of a page; `None` where no key at hand opens it.
pub fn opened(chronicle: &Chronicle, page: &Page, unlock: &Unlock) -> Result<Option<Vec<Kept>>, Flaw> {
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

#[cfg(test)]
mod tests {
    use farshore_catalog::chronicle::Said;
    use farshore_catalog::ledger::{Event, RPO, What, Whys};
    use farshore_journal::StoreId;
    use farshore_journal::format::Recipients;
    use farshore_journal::format::page::Place;

    use super::*;

    fn chronicle() -> Chronicle {
        Chronicle::Exposure("orders".parse().unwrap())
    }

    type Pages = Vec<(u64, Result<Page, String>)>;

    /// Entries of a record, and their pages of two each.
    fn pages(entries: u64, forged: Option<u64>) -> (LifeId, Pages) {
        let mut former = None;
        let mut kept = Vec::new();
        for number in 1..=entries {
            let at = DateTime::<Utc>::UNIX_EPOCH;
            let event = Event {
                at,
                promise: RPO.to_owned(),
                what: What::Kept,
                from: at,
                until: at,
                whys: Whys::default(),
                worst_ms: None,
                objective_ms: number,
            };
            let digest = event.digest(former, number, &"orders".parse().unwrap());
            kept.push(Kept { number, former, digest, said: Said::Event(event) });
            former = Some(digest);
        }
        let life = LifeId::of(&kept[0].digest);
        let page = |kept: &[Kept]| {
            let (first, before) = (kept[0].number, kept[0].former);
            let mut entries: Vec<_> = kept.iter().map(|one| one.entry().unwrap()).collect();
            if forged == Some(first) {
                entries[0].said["worst_ms"] = 7.into();
            }
            let store = StoreId::from_bytes([1; 16]);
            let place = Place { store, chronicle: chronicle(), life, first, before };
            (first, Ok(Page::make(place, entries, &Recipients::default(), None).unwrap()))
        };
        (life, kept.chunks(2).map(page).collect())
    }

    fn line(forged: Option<u64>) -> Line {
        let (life, pages) = pages(8, forged);
        let strands = BTreeMap::from([(life, Strand::of(life, pages))]);
        let found = Found { strands, ..Found::default() };
        found.line(&chronicle(), life, &Unlock::none()).unwrap()
    }

    #[test]
    fn a_line_ends_before_the_first_page_that_does_not_hold_and_is_worth_what_leads_to_there() {
        let whole = line(None);
        assert_eq!((whole.former.last, whole.unbroken(), whole.flaws.len()), (8, 8, 0));
        for forged in [3, 5, 7] {
            let cut = line(Some(forged));
            assert_eq!((cut.former.last, cut.unbroken()), (forged - 1, forged - 1));
            assert_eq!(cut.former.entries.last().unwrap().digest, cut.former.digest);
            assert!(
                matches!(cut.flaws.as_slice(), [Flaw::Unread { at, .. }] if *at == forged),
                "{:?}",
                cut.flaws
            );
        }
    }
}
