//! Which life of a store goes on from which: pure.
//!
//! What always holds: a life leads to one whose pages begin before its own, so every path ends; where several have the entry that it goes on from, the one that leads
//! back furthest is taken, then one whose entries were read, and never the one that happens to sort first.
//! What it does not do: whether an entry says what its digest states, whoever knows what an entry says asked before; pages that do not hold are in no strand.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::strand::{Flaw, Strand};
use crate::format::{EntryDigest, LifeId};

/// What a life goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    /// The life that has the entry; `None` where none is needed, or none is there.
    former: Option<LifeId>,
    /// The number of the first entry that the whole path holds.
    begins: u64,
    /// What the first life of the path goes on from and no life has.
    lost: u64,
}

/// The lives of a store, each with the one that it goes on from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<LifeId, Link>);

impl Tree {
    /// Of strands. `is_open` says of the page of a life that begins with a number whether its entries were read: of any other its last digest is known.
    pub fn of(strands: &BTreeMap<LifeId, Strand>, is_open: impl Fn(&LifeId, u64) -> bool) -> Self {
        let mut asked: BTreeMap<(u64, EntryDigest), Vec<(LifeId, bool)>> = BTreeMap::new();
        for strand in strands.values() {
            if let Some(before) = strand.before {
                asked.entry((strand.base, before)).or_default();
            }
        }
        for (life, strand) in strands {
            for page in &strand.pages {
                let first = page.place().first;
                for ((number, digest), has) in asked.range_mut((first, LOWEST)..=(page.last(), HIGHEST)) {
                    if page.digest_at(*number) == Some(*digest) {
                        has.push((*life, is_open(life, first)));
                    }
                }
            }
        }
        // A life that has what another goes on from begins before that one does: those before it are known when it is asked for.
        let mut rising: Vec<(&LifeId, &Strand)> = strands.iter().collect();
        rising.sort_by_key(|(_, strand)| strand.base);
        let mut tree = BTreeMap::<LifeId, Link>::new();
        for (life, strand) in rising {
            let has = strand.before.and_then(|before| asked.get(&(strand.base, before)));
            let known = has.into_iter().flatten().filter_map(|(other, is_open)| {
                let link = tree.get(other)?;
                Some((Reverse(link.begins), *is_open, Reverse(*other), *link))
            });
            let best = known.max_by_key(|(begins, is_open, other, _)| (*begins, *is_open, *other));
            let link = match best {
                Some((_, _, Reverse(former), link)) => Link { former: Some(former), ..link },
                None => Link { former: None, begins: strand.base + 1, lost: strand.base },
            };
            tree.insert(*life, link);
        }
        Self(tree)
    }

    /// The lives that lead to one, the oldest first and itself last, each with the number up to which it counts; and where what they go on from is in none, that flaw.
    pub fn path(
        &self,
        strands: &BTreeMap<LifeId, Strand>,
        life: LifeId,
    ) -> (Vec<(LifeId, u64)>, Option<Flaw>) {
        let mut path = vec![(life, u64::MAX)];
        let mut at = life;
        while let Some(former) = self.0.get(&at).and_then(|link| link.former) {
            path.push((former, strands.get(&at).map_or(0, |strand| strand.base)));
            at = former;
        }
        path.reverse();
        let lost = self.0.get(&life).map_or(0, |link| link.lost);
        (path, (lost > 0).then_some(Flaw::Missing { from: 1, through: lost }))
    }
}

const LOWEST: EntryDigest = EntryDigest::from_bytes([0; 32]);
const HIGHEST: EntryDigest = EntryDigest::from_bytes([u8::MAX; 32]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chronicle::strand::tests::{digest, life, page, whole};
    use crate::format::Page;

    fn path(strands: &BTreeMap<LifeId, Strand>, life: LifeId) -> (Vec<(LifeId, u64)>, Option<Flaw>) {
        Tree::of(strands, |_, _| true).path(strands, life)
    }

    fn strand(life: LifeId, page: Page) -> Strand {
        Strand::of(life, vec![(page.place().first, Ok(page))])
    }

    #[test]
    fn a_life_leads_back_to_the_one_that_it_went_on_from_and_both_branches_of_a_fork_stay() {
        let (a, b, c) = (life(1, 1), life(2, 10), life(3, 5));
        let mut strands = BTreeMap::from([
            (a, Strand::of(a, whole())),
            (b, strand(b, page(b, 2, Some(digest(1, 9)), (10, 12)))),
            // A catalog that was put back from a copy went on from the midst of what was stored.
            (c, strand(c, page(c, 3, Some(digest(1, 5)), (6, 6)))),
        ]);
        assert_eq!(path(&strands, b), (vec![(a, 9), (b, u64::MAX)], None));
        assert!(strands[&c].flaws == [Flaw::Broken { at: 6 }], "its name is not its first entry's");
        let c = life(3, 6);
        strands.insert(c, strand(c, page(c, 3, Some(digest(1, 5)), (6, 6))));
        assert_eq!(path(&strands, c), (vec![(a, 5), (c, u64::MAX)], None));
        strands.remove(&a);
        assert_eq!(path(&strands, b).1, Some(Flaw::Missing { from: 1, through: 9 }));
    }

    /// Whoever may write to the store can state any digest at the end of a page of his.
    #[test]
    fn a_page_that_states_the_entry_that_a_life_goes_on_from_does_not_take_the_place_of_those_that_lead_to_it()
     {
        let (a, b) = (life(1, 1), life(2, 10));
        let forged = |before, numbers: (u64, u64)| {
            (0..=u8::MAX).map(move |name| {
                let life = LifeId::from_bytes([name; 16]);
                let mut page = page(life, 9, before, numbers);
                page.state_after(digest(1, 9));
                (life, Strand { base: numbers.0 - 1, before, pages: vec![page], flaws: Vec::new() })
            })
        };
        let own = [(a, Strand::of(a, whole())), (b, strand(b, page(b, 2, Some(digest(1, 9)), (10, 12))))];
        // Each begins later, whatever its name.
        let mut strands: BTreeMap<LifeId, Strand> = forged(Some(digest(9, 7)), (8, 9)).collect();
        strands.extend(own.clone());
        assert_eq!(path(&strands, b), (vec![(a, 9), (b, u64::MAX)], None));
        // Each begins with 1, and its entries were not read.
        let mut strands: BTreeMap<LifeId, Strand> = forged(None, (1, 9)).collect();
        strands.extend(own);
        let tree = Tree::of(&strands, |life, _| *life == a || *life == b);
        assert_eq!(tree.path(&strands, b), (vec![(a, 9), (b, u64::MAX)], None));
    }
}
