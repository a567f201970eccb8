//! Where a store's pages and the catalog's entries agree, and where the next page goes: pure.
//!
//! What always holds: what a store is said to hold was compared along the chain with the catalog's digests, from the first page on; no page is put where another
//! stands; nothing that the catalog has is left out where a place for it can be found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use farshore_catalog::chronicle::{Kept, Own};
use farshore_journal::chronicle::Flaw;
use farshore_journal::format::{EntryDigest, LifeId, Page};

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The entries up to there behind which a life may begin so that it is linked to them by whoever reads without a private key: of a sealed page the last alone.
    pub links: Vec<u64>,
}

/// Finds it; `None` where no entry is known to be in both. A line whose entries were all read, or that a pinned key vouches for, goes before one of which pages were
/// not opened that anybody may have stated so: what is put behind a page is signed with it. Then the furthest, and of those the one that begins first; whether the life
/// ends there decides last, since a new one can begin beside it and nothing else brings a beginning back.
pub fn agreed(found: &Found, own: &Own, vouched: &BTreeMap<LifeId, u64>) -> Option<Agreed> {
    let of = |life: &LifeId| {
        let line = found.line(*life)?;
        let (through, digest) = agreement(&line.marks, own).through?;
        let strand = found.strands.get(life)?;
        let is_end = strand.flaws.is_empty() && strand.end() == Some((through, digest));
        let doubtful = found.doubtful(&line, through, vouched);
        Some((line, through, digest, is_end, doubtful))
    };
    let best = found.strands.keys().filter_map(of);
    let (line, through, digest, is_end, _) = best.max_by_key(|(line, through, _, is_end, doubtful)| {
        (*doubtful == 0, *through, Reverse(line.begins), Reverse(*doubtful), *is_end)
    })?;
    let links = line.marks.iter().map(|(number, _)| *number);
    let links = links.filter(|number| *number <= through && !line.hidden.contains(number)).collect();
    Some(Agreed { life: line.life, begins: line.begins, through, digest, is_end, links })
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
    /// The page that the next one goes on from, by its life and first number, where the store has one: whoever puts asks whether it is there still.
    pub page: Option<(LifeId, u64)>,
}

/// Behind what the store has, in the same life where that ends there; else in one of its own. `names` are those that are taken, `foreign` the lives in
/// which a page stands that is not this catalog's, listed or not. The page that it goes on from is not looked for here.
pub fn run(agreed: Option<&Agreed>, own: &Own, names: &BTreeSet<LifeId>, foreign: &BTreeSet<LifeId>) -> Run {
    if let Some(one) = agreed.filter(|one| one.is_end && !foreign.contains(&one.life)) {
        let Agreed { life, begins, through, digest, .. } = *one;
        return Run { life: Some(life), next: through + 1, before: Some(digest), begins, page: None };
    }
    let behind = agreed.map_or_else(|| own.oldest(), |one| one.through + 1);
    let begins = agreed.map_or(behind, |one| one.begins);
    let at = |life, next: u64, begins| Run { life, next, before: own.digest(next - 1), begins, page: None };
    // The entry that gives the name is not written yet.
    if behind > own.last() {
        return at(None, behind, begins);
    }
    let named = |number: u64| {
        let life = LifeId::of(&own.digest(number).filter(|_| number >= own.oldest())?);
        (!names.contains(&life) && !foreign.contains(&life)).then_some((life, number))
    };
    // A life is named after its first entry. Where that name is taken, or no reader would see what it goes on from, it begins at an older entry that the store has
    // already, and nothing is left out. Where none will do it begins with the oldest that gives a name: what is before that is a hole.
    let linked = |number: &u64| agreed.is_none_or(|one| one.links.binary_search(&(number - 1)).is_ok());
    let joined = (begins + 1..=behind).rev().filter(linked).find_map(named);
    let joined = joined.or_else(|| named(behind).filter(|_| agreed.is_none()));
    match joined {
        Some((life, next)) => at(Some(life), next, begins),
        None => match (own.oldest()..=own.last()).find_map(named) {
            Some((life, next)) => at(Some(life), next, next),
            None => at(None, behind, begins),
        },
    }
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
    use farshore_journal::chronicle::Strand;
    use farshore_journal::format::page::{Entry, Place};
    use farshore_journal::format::{Chronicle, Recipients};

    use super::*;

    fn digest(branch: u8, number: u64) -> EntryDigest {
        let mut bytes = [branch; 32];
        bytes[0] = u8::try_from(number).unwrap();
        EntryDigest::from_bytes(bytes)
    }

    fn life(number: u64) -> LifeId {
        LifeId::of(&digest(1, number))
    }

    /// Pages for somebody else: their numbers and last digests are all that is known. The store has a life that begins first and behind which another's stand, and one
    /// that ends with the same entry and that nothing is seen to lead to.
    #[test]
    fn of_lives_that_agree_as_far_the_one_that_begins_first_is_gone_on_from_whether_it_ends_there_or_not() {
        let recipient = age::x25519::Identity::generate().to_public().to_string();
        let recipients = Recipients::parse([recipient.as_str()]).unwrap();
        let page = |life, branch, (first, last): (u64, u64)| {
            let store = farshore_journal::StoreId::from_bytes([1; 16]);
            let before = (first > 1).then(|| digest(1, first - 1));
            let place = Place { store, chronicle: Chronicle::Activity, life, first, before };
            let entry = |number| Entry { digest: digest(branch, number), said: serde_json::Value::Null };
            let page = Page::make(place, (first..=last).map(entry).collect(), &recipients, None).unwrap();
            (first, Ok(page))
        };
        let whole = vec![page(life(1), 1, (1, 4)), page(life(1), 1, (5, 6)), page(life(1), 2, (7, 8))];
        let strands = [(life(1), whole), (life(3), vec![page(life(3), 1, (3, 6))])];
        let strands = strands.map(|(life, pages)| (life, Strand::of(life, pages)));
        let mut found = Found { strands: strands.into_iter().collect(), ..Found::default() };
        found.link();
        let agreed = super::agreed(&found, &own(1, 7), &BTreeMap::new()).unwrap();
        assert_eq!((agreed.begins, agreed.through, agreed.is_end), (1, 6, false), "{agreed:?}");
        // What a pinned key vouches for goes first, however far the other goes.
        let agreed = super::agreed(&found, &own(1, 8), &BTreeMap::from([(life(3), 6)])).unwrap();
        assert_eq!((agreed.begins, agreed.through), (3, 6), "{agreed:?}");
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

    fn agreed(begins: u64, through: u64, is_end: bool) -> Agreed {
        let (life, digest) = (life(begins), digest(1, through));
        Agreed { life, begins, through, digest, is_end, links: (begins..=through).collect() }
    }

    fn run_of(agreed: Option<&Agreed>, own: &Own, names: &[u64]) -> (Option<LifeId>, u64, u64) {
        let names = names.iter().copied().map(life).collect();
        let run = run(agreed, own, &names, &BTreeSet::new());
        assert_eq!(run.before, own.digest(run.next - 1));
        (run.life, run.next, run.begins)
    }

    #[test]
    fn a_store_goes_on_behind_what_it_has_and_one_that_is_new_gets_all_that_the_catalog_has() {
        let of = run_of;
        // New, and new where the catalog has not all.
        assert_eq!(of(None, &own(1, 9), &[]), (Some(life(1)), 1, 1));
        assert_eq!(of(None, &own(4, 9), &[]), (Some(life(4)), 4, 4));
        // Behind.
        assert_eq!(of(Some(&agreed(1, 5, true)), &own(1, 9), &[1]), (Some(life(1)), 6, 1));
        // Another's pages stand behind what is ours; and one that no listing shows yet.
        assert_eq!(of(Some(&agreed(1, 5, false)), &own(1, 9), &[1]), (Some(life(6)), 6, 1));
        let foreign = BTreeSet::from([life(1)]);
        assert_eq!(
            run(Some(&agreed(1, 5, true)), &own(1, 9), &BTreeSet::new(), &foreign).life,
            Some(life(6))
        );
        // The name is taken: an older entry gives one, and nothing is left out.
        assert_eq!(of(Some(&agreed(1, 5, false)), &own(1, 9), &[1, 6]), (Some(life(5)), 5, 1));
        // None of those does: the oldest that the catalog has gives one, all is put anew.
        assert_eq!(of(Some(&agreed(4, 5, false)), &own(1, 9), &[4, 6, 5]), (Some(life(1)), 1, 1));
        assert_eq!(of(Some(&agreed(4, 5, false)), &own(4, 9), &[4, 6, 5]), (Some(life(7)), 7, 7));
        // The very first page is damaged: of what gives no name, one entry is left out, and that is a hole.
        assert_eq!(of(None, &own(1, 9), &[1]), (Some(life(2)), 2, 2));
        // Nothing there yet that gives a name.
        assert_eq!(of(None, &own(1, 1), &[1]), (None, 1, 1));
        assert_eq!(of(Some(&agreed(1, 9, false)), &own(1, 9), &[1]), (None, 10, 1));
        assert_eq!(of(Some(&agreed(1, 8, false)), &own(1, 9), &[1, 2, 3, 4, 5, 6, 7, 8, 9]), (None, 9, 1));
    }

    #[test]
    fn a_life_begins_where_a_reader_without_a_private_key_sees_what_it_goes_on_from_or_with_the_oldest_entry()
    {
        // Sealed pages of 1 to 3 and 4 to 8; a private key shows that they are the catalog's up to 5.
        let sealed = Agreed { links: vec![3], ..agreed(1, 5, false) };
        assert_eq!(run_of(Some(&sealed), &own(1, 9), &[1]), (Some(life(4)), 4, 1));
        // That name is taken: never within a page but with a beginning of its own.
        assert_eq!(run_of(Some(&sealed), &own(1, 9), &[1, 4]), (Some(life(2)), 2, 2));
        let other = Agreed { links: vec![6], ..agreed(4, 8, false) };
        assert_eq!(run_of(Some(&other), &own(1, 9), &[4, 7]), (Some(life(1)), 1, 1));
        // Where it ends with the page it is linked as ever.
        let whole = Agreed { links: vec![3, 5], ..agreed(1, 5, false) };
        assert_eq!(run_of(Some(&whole), &own(1, 9), &[1]), (Some(life(6)), 6, 1));
    }
}
