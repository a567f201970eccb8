//! What a store has of a chronicle, held against its chain and, where keys are pinned, its signatures.
//!
//! What always holds: an entry that is given out has the digest of what it says, and leads to an end that a pinned key signed where one is pinned; what does
//! not is named. A page that is sealed and not opened is counted, and its entries are missing from what is given out.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use farshore_catalog::chronicle::{Former, Kept};
use farshore_journal::chronicle::{self, Flaw, Strand, lives_before};
use farshore_journal::format::page::PAGE_NUMBERS;
use farshore_journal::format::{Chronicle, EntryDigest, HeadStanding, LifeId, Page, Unlock, VerifyKeys};
use farshore_journal::registry::Repository;
use farshore_journal::{JournalError, store};
use tokio::task::JoinSet;

/// Pages that are asked for at once.
const AHEAD: usize = 8;
/// From a number behind this nothing is gone on: a record does not get there, and what is written behind it could not be read any more at [`PAGE_NUMBERS`].
const FARTHEST: u64 = PAGE_NUMBERS / 2;

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
    /// Those of these numbers that nobody knows without a private key: no life that begins behind one of them is linked to this line.
    pub hidden: BTreeSet<u64>,
    /// Entries before its beginning that are in no life of this store: never brought here, or deleted.
    pub lost: Option<Flaw>,
    /// What speaks against its pages.
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
        found.strands.insert(life, Strand::of(life, read));
    }
    vouch(&mut found.strands, pinned);
    Ok(found)
}

/// Cuts off what no pinned key vouches for: a signature stands for every entry before it, in the lives that lead to it too.
fn vouch(strands: &mut BTreeMap<LifeId, Strand>, pinned: &VerifyKeys) {
    if pinned.is_empty() {
        return;
    }
    let signed = |page: &Page| page.standing(pinned) == Some(HeadStanding::Pinned);
    let mut vouched: BTreeMap<LifeId, u64> = BTreeMap::new();
    for (life, strand) in strands.iter() {
        let Some(last) = strand.pages.iter().rfind(|page| signed(page)).map(Page::last) else { continue };
        for (life, through) in lives_before(strands, *life).0 {
            let one = vouched.entry(life).or_default();
            *one = (*one).max(through.min(last));
        }
    }
    for (life, strand) in strands {
        let through = vouched.get(life).copied().unwrap_or_default();
        let counts = strand.pages.partition_point(|page| page.place().first <= through);
        if let Some(first) = strand.pages.get(counts) {
            let at = first.place().first;
            strand.flaws.insert(0, Flaw::Unread { at, why: "no key of verify_keys signed it".to_owned() });
            strand.pages.truncate(counts);
        }
    }
}

impl Line {
    /// All that speaks against it, what it lacks before its beginning included.
    pub fn all_flaws(&self) -> Vec<String> {
        self.lost.iter().chain(&self.flaws).map(ToString::to_string).collect()
    }

    /// Entries that lead to its end without a break, opened or not: what a store's word is worth.
    pub const fn unbroken(&self) -> u64 {
        self.former.last + 1 - self.begins
    }
}

impl Found {
    /// The life to go on from, among these: the one that reaches the highest number of those that no other goes on from; a clock decides between equals alone. The
    /// others stay where they are.
    pub fn leaf(&self, among: &BTreeSet<LifeId>) -> Option<LifeId> {
        let counts = |life: &LifeId| {
            among.contains(life)
                && self.strands.get(life).and_then(Strand::end).is_some_and(|(last, _)| last < FARTHEST)
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
        let (mut entries, mut sealed, mut flaws) = (Vec::new(), 0, Vec::new());
        let (mut marks, mut hidden, mut beginning) = (Vec::new(), BTreeSet::new(), None);
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
                            if page.is_sealed() && entry.number != page.last() {
                                hidden.insert(entry.number);
                            }
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
        let former = Former { last, digest, entries, written };
        Some(Line { begins, former, sealed, marks, hidden, lost, flaws })
    }

    /// The entry from which on a life leads to one of this number and digest; `None` where none does. Of one in the midst of a page that does not open that cannot
    /// be told, and is not denied.
    pub fn leads_to(
        &self,
        chronicle: &Chronicle,
        unlock: &Unlock,
        (number, digest): (u64, EntryDigest),
    ) -> Option<u64> {
        let leads = |life: &LifeId| {
            let line = self.line(chronicle, *life, unlock)?;
            let at = line.marks.partition_point(|(mark, _)| *mark < number);
            let there = match line.marks.get(at) {
                Some((mark, there)) if *mark == number => *there == digest,
                Some(_) => number >= line.begins,
                None => false,
            };
            there.then_some(line.begins)
        };
        self.strands.keys().filter_map(leads).min()
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
    use farshore_journal::format::page::{Entry, Place};
    use farshore_journal::format::{Recipients, SigningKey};

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

    /// Entries of numbers, each with a digest that nobody asks here, on a page of their own.
    fn bare(life: LifeId, before: Option<EntryDigest>, numbers: &[u64], key: Option<&SigningKey>) -> Page {
        let place = Place {
            store: StoreId::from_bytes([1; 16]),
            chronicle: chronicle(),
            life,
            first: numbers[0],
            before,
        };
        let entry = |number: &u64| Entry { digest: mark(*number), said: serde_json::Value::Null };
        let entries = numbers.iter().map(entry).collect();
        Page::make(place, entries, &Recipients::default(), key).unwrap()
    }

    fn mark(number: u64) -> EntryDigest {
        let mut bytes = [5; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EntryDigest::from_bytes(bytes)
    }

    #[test]
    fn a_signature_stands_for_every_entry_before_it_in_the_lives_that_lead_to_it_too_and_for_none_behind() {
        let (key, _) = SigningKey::mint().unwrap();
        let pinned = VerifyKeys::new(vec![key.public()]);
        let (old, new) = (LifeId::of(&mark(1)), LifeId::of(&mark(5)));
        let strands = |signed| {
            let of = |life, pages: Vec<Page>| {
                let read = pages.into_iter().map(|page| (page.place().first, Ok(page))).collect();
                (life, Strand::of(life, read))
            };
            // Put before there was a key; the last of them is another branch.
            let unsigned = [(None, [1, 2]), (Some(mark(2)), [3, 4]), (Some(mark(4)), [5, 6])]
                .map(|(before, numbers)| bare(old, before, &numbers, None));
            let behind = bare(new, Some(mark(4)), &[5], signed);
            let mut strands = BTreeMap::from([of(old, unsigned.to_vec()), of(new, vec![behind])]);
            vouch(&mut strands, &pinned);
            strands
        };
        let ends = |signed| {
            let strands = strands(signed);
            [old, new].map(|life| strands[&life].end().map(|(last, _)| last))
        };
        assert_eq!(ends(Some(&key)), [Some(4), Some(5)]);
        assert_eq!(ends(None), [None, None]);
        assert_eq!(strands(Some(&key))[&old].flaws.len(), 1, "what is behind is named");
    }

    #[test]
    fn a_life_at_a_number_that_no_record_gets_to_is_not_gone_on_from() {
        let (own, far) = (LifeId::of(&mark(1)), LifeId::of(&mark(PAGE_NUMBERS - 1)));
        let pages = [bare(own, None, &[1, 2], None), bare(far, Some(mark(9)), &[PAGE_NUMBERS - 1], None)];
        let strands = [own, far].into_iter().zip(pages);
        let strands =
            strands.map(|(life, page)| (life, Strand::of(life, vec![(page.place().first, Ok(page))])));
        let found = Found { strands: strands.collect(), ..Found::default() };
        assert_eq!(found.leaf(&BTreeSet::from([own, far])), Some(own));
        assert_eq!(found.leaf(&BTreeSet::from([far])), None);
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
