//! Where a store's pages and the catalog's entries agree, and where the next page goes: pure.
//!
//! What always holds: what a store is said to hold was compared along the chain with the catalog's digests, from the first page on; no page is put where another
//! stands; nothing that the catalog has is left out where a place for it can be found.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use farshore_catalog::chronicle::{Kept, Own};
use farshore_journal::chronicle::Flaw;
use farshore_journal::format::{Chronicle, EntryDigest, LifeId, Page, Unlock};

use super::found::Found;

/// How digests that follow each other in a store agree with the catalog's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The newest entry that both have.
    pub through: Option<(u64, EntryDigest)>,
    /// The first that is another one than in the catalog.
    pub differs: Option<u64>,
    /// The first and last of the store that are older than what the catalog has: not compared.
    pub older: Option<(u64, u64)>,
    /// The first and last of the store that are newer than what the catalog has.
    pub newer: Option<(u64, u64)>,
}

/// Holds a store's digests, by rising number, against the catalog's: up to the first that differs.
pub fn agreement(marks: &[(u64, EntryDigest)], own: &Own) -> Agreement {
    let mut found = Agreement::default();
    let widen = |span: &mut Option<(u64, u64)>, number| {
        *span = Some((span.map_or(number, |(first, _)| first), number));
    };
    for (number, digest) in marks.iter().copied() {
        match own.digest(number) {
            Some(own) if own == digest => found.through = Some((number, digest)),
            Some(_) => {
                found.differs = Some(number);
                break;
            }
            None if number > own.last() => widen(&mut found.newer, number),
            None => widen(&mut found.older, number),
        }
    }
    found
}

/// The life of a store that has the most of what the catalog has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The life.
    pub life: LifeId,
    /// From which entry on the store leads to `through` without a hole.
    pub begins: u64,
    /// The newest entry that both have.
    pub through: u64,
    /// Its digest.
    pub digest: EntryDigest,
    /// Whether the life's pages end there.
    pub is_end: bool,
}

/// Finds it; `None` where no entry is known to be in both.
pub fn agreed(found: &Found, chronicle: &Chronicle, unlock: &Unlock, own: &Own) -> Option<Agreed> {
    let of = |life: &LifeId| {
        let line = found.line(chronicle, *life, unlock)?;
        let (through, digest) = agreement(&line.marks, own).through?;
        let strand = found.strands.get(life)?;
        let is_end = strand.flaws.is_empty() && strand.end() == Some((through, digest));
        Some(Agreed { life: *life, begins: line.begins, through, digest, is_end })
    };
    found.strands.keys().filter_map(of).max_by_key(|one| (one.through, one.is_end, Reverse(one.begins)))
}

/// Where pages are put next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The life; `None` while no entry is there that gives it a name of its own.
    pub life: Option<LifeId>,
    /// The number of the first entry of the next page.
    pub next: u64,
    /// The digest of the one before.
    pub before: Option<EntryDigest>,
    /// From which entry on the store leads there without a hole.
    pub begins: u64,
}

/// Behind what the store has, in the same life where that ends there; else in one of its own. `names` are those that are taken, `foreign` the lives in
/// which a page stands that is not this catalog's, listed or not.
pub fn run(agreed: Option<&Agreed>, own: &Own, names: &BTreeSet<LifeId>, foreign: &BTreeSet<LifeId>) -> Run {
    if let Some(one) = agreed.filter(|one| one.is_end && !foreign.contains(&one.life)) {
        let Agreed { life, begins, through, digest, .. } = *one;
        return Run { life: Some(life), next: through + 1, before: Some(digest), begins };
    }
    let behind = agreed.map_or_else(|| own.oldest(), |one| one.through + 1);
    let named = |number: u64| {
        let life = LifeId::of(&own.digest(number).filter(|_| number >= own.oldest())?);
        (!names.contains(&life) && !foreign.contains(&life)).then_some((life, number))
    };
    // A life is named after its first entry. Where that name is taken, an entry that the store has already gives another one, and nothing is left out; only where
    // none does, one that it has not is.
    let earlier = agreed.map_or(behind, |one| if one.begins == 1 { 1 } else { one.begins + 1 });
    let found = named(behind)
        .or_else(|| (earlier..behind).rev().find_map(named))
        .or_else(|| (behind + 1..=own.last()).find_map(named));
    let (life, next) = found.map_or((None, behind), |(life, next)| (Some(life), next));
    let begins = agreed.filter(|_| next <= behind).map_or(next, |one| one.begins);
    Run { life, next, before: own.digest(next - 1), begins }
}

/// Whether a page has the entries that the catalog has at its numbers. Of one that does not open its two ends are compared: the last digest stands for all before
/// it, and what the page says to whoever opens it is held against that by whoever does.
pub fn is_same(own: &[Kept], page: &Page, opened: Result<Option<Vec<Kept>>, Flaw>) -> bool {
    let (Some(first), Some(last)) = (own.first(), own.last()) else { return false };
    if first.number != page.place().first || first.former != page.place().before || last.number != page.last()
    {
        return false;
    }
    match opened {
        Ok(Some(theirs)) => theirs == own,
        Ok(None) => last.digest == page.after(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(branch: u8, number: u64) -> EntryDigest {
        let mut bytes = [branch; 32];
        bytes[0] = u8::try_from(number).unwrap();
        EntryDigest::from_bytes(bytes)
    }

    fn life(number: u64) -> LifeId {
        LifeId::of(&digest(1, number))
    }

    /// The catalog's entries from one on.
    fn own(from: u64, through: u64) -> Own {
        Own::new((from..=through).rev().map(|n| (n, (n > 1).then(|| digest(1, n - 1)), digest(1, n))))
    }

    fn marks(branch: u8, from: u64, through: u64) -> Vec<(u64, EntryDigest)> {
        (from..=through).map(|n| (n, digest(branch, n))).collect()
    }

    #[test]
    fn what_a_store_has_agrees_up_to_the_first_entry_that_differs_whatever_stands_behind_it() {
        let all = agreement(&marks(1, 1, 9), &own(1, 9));
        assert_eq!((all.through, all.differs), (Some((9, digest(1, 9))), None));
        let mut changed = marks(1, 1, 9);
        changed[3].1 = digest(2, 4);
        let cut = agreement(&changed, &own(1, 9));
        assert_eq!(
            (cut.through, cut.differs),
            (Some((3, digest(1, 3))), Some(4)),
            "the last digest alone would agree"
        );
        let more = agreement(&marks(1, 1, 12), &own(5, 9));
        assert_eq!(
            (more.through, more.older, more.newer),
            (Some((9, digest(1, 9))), Some((1, 3)), Some((10, 12)))
        );
        assert_eq!(agreement(&marks(2, 1, 2), &own(5, 9)).through, None, "nothing that could be compared");
    }

    #[test]
    fn a_store_goes_on_behind_what_it_has_and_one_that_is_new_gets_all_that_the_catalog_has() {
        let (none, agreed) = (BTreeSet::new(), |begins, through, is_end| Agreed {
            life: life(begins),
            begins,
            through,
            digest: digest(1, through),
            is_end,
        });
        let of = |agreed: Option<&Agreed>, own: &Own, names: &[u64]| {
            let names = names.iter().copied().map(life).collect();
            let run = run(agreed, own, &names, &none);
            assert_eq!(run.before, own.digest(run.next - 1));
            (run.life, run.next, run.begins)
        };
        // New, and new where the catalog has not all.
        assert_eq!(of(None, &own(1, 9), &[]), (Some(life(1)), 1, 1));
        assert_eq!(of(None, &own(4, 9), &[]), (Some(life(4)), 4, 4));
        // Behind.
        assert_eq!(of(Some(&agreed(1, 5, true)), &own(1, 9), &[1]), (Some(life(1)), 6, 1));
        // Another's pages stand behind what is ours; and one that no listing shows yet.
        assert_eq!(of(Some(&agreed(1, 5, false)), &own(1, 9), &[1]), (Some(life(6)), 6, 1));
        let foreign = BTreeSet::from([life(1)]);
        assert_eq!(run(Some(&agreed(1, 5, true)), &own(1, 9), &none, &foreign).life, Some(life(6)));
        // The name is taken: an older entry gives one, and nothing is left out.
        assert_eq!(of(Some(&agreed(1, 5, false)), &own(1, 9), &[1, 6]), (Some(life(5)), 5, 1));
        assert_eq!(of(Some(&agreed(4, 5, false)), &own(1, 9), &[4, 6, 5]), (Some(life(7)), 7, 7));
        // The very first page is damaged: of what gives no name, one entry is left out, and that is a hole.
        assert_eq!(of(None, &own(1, 9), &[1]), (Some(life(2)), 2, 2));
        // Nothing there yet that gives a name.
        assert_eq!(of(None, &own(1, 1), &[1]), (None, 1, 1));
        assert_eq!(of(Some(&agreed(1, 9, false)), &own(1, 9), &[1, 2, 3, 4, 5, 6, 7, 8, 9]), (None, 10, 1));
    }
}
