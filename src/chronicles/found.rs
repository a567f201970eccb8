//! What a store has of a chronicle, held against its chain and, where keys are pinned, its signatures.
//!
//! What always holds: a page that counts holds what it states, or is sealed for somebody whose key is not at hand; each page is opened once. Where keys are pinned and
//! [`Found::pin`] was asked, every entry leads to an end that one of them signed. What does not count is named. Which lives make a line, and which line is gone on
//! from, `line.rs` tells.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use farshore_catalog::chronicle::Kept;
use farshore_journal::chronicle::{self, Flaw, Strand, Tree};
use farshore_journal::format::{Chronicle, EntryDigest, HeadStanding, LifeId, Page, VerifyKeys};
use farshore_journal::registry::Repository;
use farshore_journal::{JournalError, store};
use tokio::task::JoinSet;

use super::opening::{Keys, opened};

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
    /// Which life goes on from which.
    pub(super) tree: Tree,
    /// The entries of each page that was opened and holds, be there a flaw before it or not.
    pub(super) opened: BTreeMap<(LifeId, u64), Vec<Kept>>,
    /// What each page states that was not opened, or does not hold what it states.
    pub(super) spans: Vec<Span>,
}

/// The pages of a life by first number, each as it was read.
pub(super) type Pages = Vec<(u64, Result<Page, String>)>;

/// What a page states of entries that it does not show.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) before: Option<EntryDigest>,
    pub(super) last: u64,
    pub(super) after: EntryDigest,
    /// Whether a pinned key signed it.
    pub(super) is_pinned: bool,
}

/// Reads all of a chronicle.
///
/// # Errors
/// When the store does not answer. What is there and counts for nothing is no error.
pub async fn read(
    repository: &Repository,
    chronicle: &Chronicle,
    pinned: &VerifyKeys,
    keys: &Keys,
) -> Result<Found, JournalError> {
    let names = chronicle::names(repository, chronicle).await?;
    let mut lives = BTreeMap::new();
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
        lives.insert(life, read);
    }
    let found = Found::of(chronicle, lives, pinned, keys);
    Ok(Found { newest: names.newest, oldest: names.oldest, strangers: names.strangers, ..found })
}

fn is_pinned(page: &Page, pinned: &VerifyKeys) -> bool {
    page.standing(pinned) == Some(HeadStanding::Pinned)
}

impl Found {
    /// Of the pages of each life, by first number, as they were read: each is opened, and one that does not hold is a flaw of its life.
    pub(super) fn of(
        chronicle: &Chronicle,
        lives: BTreeMap<LifeId, Pages>,
        pinned: &VerifyKeys,
        keys: &Keys,
    ) -> Self {
        let mut found = Self::default();
        for (life, read) in lives {
            let mut pages = Vec::with_capacity(read.len());
            for (first, page) in read {
                let page = page.and_then(|page| {
                    let inside = opened(chronicle, &page, keys);
                    if let Ok(Some(kept)) = inside {
                        found.opened.insert((life, first), kept);
                        return Ok(page);
                    }
                    found.spans.push(Span {
                        first,
                        before: page.place().before,
                        last: page.last(),
                        after: page.after(),
                        is_pinned: is_pinned(&page, pinned),
                    });
                    match inside {
                        Err(Flaw::Unread { why, .. }) => Err(why),
                        Err(flaw) => Err(flaw.to_string()),
                        Ok(_) => Ok(page),
                    }
                });
                pages.push((first, page));
            }
            found.strands.insert(life, Strand::of(life, pages));
        }
        found.link();
        found
    }

    pub(super) fn link(&mut self) {
        let opened = &self.opened;
        self.tree = Tree::of(&self.strands, |life, first| opened.contains_key(&(*life, first)));
    }

    /// Up to which number of each life a pinned key vouches: a signature stands for every entry before it, in the lives that lead to it too.
    pub fn vouched(&self, pinned: &VerifyKeys) -> BTreeMap<LifeId, u64> {
        let mut vouched: BTreeMap<LifeId, u64> = BTreeMap::new();
        for (life, strand) in &self.strands {
            let signed = strand.pages.iter().rfind(|page| is_pinned(page, pinned));
            let Some(last) = signed.map(Page::last) else { continue };
            for (life, through) in self.tree.path(&self.strands, *life).0 {
                let one = vouched.entry(life).or_default();
                *one = (*one).max(through.min(last));
            }
        }
        vouched
    }

    /// Cuts off what no pinned key vouches for, where any is pinned.
    pub fn pin(&mut self, pinned: &VerifyKeys) {
        if pinned.is_empty() {
            return;
        }
        let vouched = self.vouched(pinned);
        for (life, strand) in &mut self.strands {
            let through = vouched.get(life).copied().unwrap_or_default();
            let counts = strand.pages.partition_point(|page| page.place().first <= through);
            if let Some(first) = strand.pages.get(counts) {
                let at = first.place().first;
                strand
                    .flaws
                    .insert(0, Flaw::Unread { at, why: "no key of verify_keys signed it".to_owned() });
                strand.pages.truncate(counts);
            }
        }
        self.link();
    }

    /// The lives that are none of these, and that lead to none of these.
    pub fn besides(&self, own: &BTreeSet<LifeId>) -> Vec<LifeId> {
        let led: BTreeSet<LifeId> = own
            .iter()
            .flat_map(|life| self.tree.path(&self.strands, *life).0)
            .map(|(life, _)| life)
            .collect();
        self.strands.keys().filter(|life| !led.contains(life)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use farshore_catalog::chronicle::{Former, Said};
    use farshore_catalog::ledger::{Event, RPO, What, Whys};
    use farshore_journal::StoreId;
    use farshore_journal::format::page::{Entry, PAGE_NUMBERS, Place};
    use farshore_journal::format::{Recipients, SigningKey};

    use super::super::line::Line;
    use super::*;

    fn chronicle() -> Chronicle {
        Chronicle::Exposure("orders".parse().unwrap())
    }

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

    fn line(forged: Option<u64>) -> (Line, Former) {
        let (life, pages) = pages(8, forged);
        let lives = BTreeMap::from([(life, pages)]);
        let found = Found::of(&chronicle(), lives, &VerifyKeys::default(), &Keys::default());
        let line = found.line(life).unwrap();
        (line.clone(), found.former(&line))
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
            let strands = BTreeMap::from([of(old, unsigned.to_vec()), of(new, vec![behind])]);
            let mut found = Found { strands, ..Found::default() };
            found.link();
            found.pin(&pinned);
            found.strands
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
        let (whole, former) = line(None);
        assert_eq!((whole.begins, whole.last, whole.flaws.len(), former.entries.len()), (1, 8, 0, 8));
        for forged in [3, 5, 7] {
            let (cut, former) = line(Some(forged));
            assert_eq!((cut.begins, cut.last), (1, forged - 1));
            assert_eq!((former.last, former.entries.last().unwrap().digest), (cut.last, cut.digest));
            assert!(
                matches!(cut.flaws.as_slice(), [Flaw::Unread { at, .. }] if *at == forged),
                "{:?}",
                cut.flaws
            );
        }
    }
}
