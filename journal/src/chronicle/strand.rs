//! What the pages of a life lead to, and from where: pure.
//!
//! What always holds: the pages of a strand are one unbroken run of entries, from the one behind its base on; what stands behind a flaw is not among them.

use std::fmt;

use crate::format::{EntryDigest, LifeId, Page};

/// What speaks against a life's pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// Entries are in no page.
    Missing {
        /// The first of them.
        from: u64,
        /// The last of them.
        through: u64,
    },
    /// A page does not continue what is before it.
    Broken {
        /// Its first entry.
        at: u64,
    },
    /// A page does not read, or counts for nothing.
    Unread {
        /// Its first entry.
        at: u64,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { from, through } if from == through => write!(f, "entry {from} is missing"),
            Self::Missing { from, through } => write!(f, "entries {from} to {through} are missing"),
            Self::Broken { at } => write!(f, "entry {at} does not continue the one before it"),
            Self::Unread { at, why } => write!(f, "the page of entry {at} counts for nothing: {why}"),
        }
    }
}

/// The pages of one life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strand {
    /// The number of the entry that it goes on from, 0 where it begins.
    pub base: u64,
    /// That entry's digest.
    pub before: Option<EntryDigest>,
    /// Its pages before any flaw.
    pub pages: Vec<Page>,
    /// What speaks against it.
    pub flaws: Vec<Flaw>,
}

impl Strand {
    /// Puts the pages of a life together, by first number, each as it was read.
    pub fn of(life: LifeId, read: Vec<(u64, Result<Page, String>)>) -> Self {
        let mut strand = Self::default();
        // Where the last page that read ends, flaws or not: each flaw is named once.
        let mut end: Option<(u64, EntryDigest)> = None;
        for (at, page) in read {
            let page = match page {
                Ok(page) => page,
                Err(why) => {
                    strand.flaws.push(Flaw::Unread { at, why });
                    end = None;
                    continue;
                }
            };
            match end {
                Some((last, _)) if at > last + 1 => {
                    strand.flaws.push(Flaw::Missing { from: last + 1, through: at - 1 });
                }
                Some((last, after)) if at != last + 1 || page.place().before != Some(after) => {
                    strand.flaws.push(Flaw::Broken { at });
                }
                // A life's name is its first entry's; of a sealed page of several entries it is not known without a key.
                None if strand.flaws.is_empty()
                    && page.digest_at(at).is_some_and(|first| LifeId::of(&first) != life) =>
                {
                    strand.flaws.push(Flaw::Broken { at });
                }
                Some(_) | None => {}
            }
            end = Some((page.last(), page.after()));
            if strand.flaws.is_empty() {
                if strand.pages.is_empty() {
                    (strand.base, strand.before) = (at.saturating_sub(1), page.place().before);
                }
                strand.pages.push(page);
            }
        }
        strand
    }

    /// The number and digest of its last entry before any flaw; `None` where no page counts.
    pub fn end(&self) -> Option<(u64, EntryDigest)> {
        self.pages.last().map(|page| (page.last(), page.after()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::page::{Entry, Place};
    use crate::format::{Chronicle, Recipients};
    use crate::identity::StoreId;
    use serde_json::Value;

    pub(crate) fn digest(branch: u8, number: u64) -> EntryDigest {
        let mut bytes = [branch; 32];
        bytes[0] = u8::try_from(number).unwrap();
        EntryDigest::from_bytes(bytes)
    }

    pub(crate) fn page(life: LifeId, branch: u8, before: Option<EntryDigest>, numbers: (u64, u64)) -> Page {
        let store = StoreId::from_bytes([1; 16]);
        let place = Place { store, chronicle: Chronicle::Activity, life, first: numbers.0, before };
        let entry = |number| Entry { digest: digest(branch, number), said: Value::Null };
        let entries = (numbers.0..=numbers.1).map(entry).collect();
        Page::make(place, entries, &Recipients::default(), None).unwrap()
    }

    pub(crate) fn life(branch: u8, first: u64) -> LifeId {
        LifeId::of(&digest(branch, first))
    }

    pub(crate) fn whole() -> Vec<(u64, Result<Page, String>)> {
        let life = life(1, 1);
        vec![
            (1, Ok(page(life, 1, None, (1, 3)))),
            (4, Ok(page(life, 1, Some(digest(1, 3)), (4, 4)))),
            (5, Ok(page(life, 1, Some(digest(1, 4)), (5, 9)))),
        ]
    }

    #[test]
    fn pages_that_are_gone_cut_or_swapped_are_named_and_nothing_behind_them_counts() {
        let strand = Strand::of(life(1, 1), whole());
        assert_eq!((strand.base, strand.end(), strand.flaws.len()), (0, Some((9, digest(1, 9))), 0));
        let mut gone = whole();
        drop(gone.remove(1));
        let strand = Strand::of(life(1, 1), gone);
        assert_eq!(strand.flaws, [Flaw::Missing { from: 4, through: 4 }]);
        assert_eq!(strand.end(), Some((3, digest(1, 3))));
        let mut unread = whole();
        unread[1].1 = Err("it rots".to_owned());
        let strand = Strand::of(life(1, 1), unread);
        assert_eq!(strand.flaws, [Flaw::Unread { at: 4, why: "it rots".to_owned() }]);
        assert_eq!(strand.end(), Some((3, digest(1, 3))));
        let mut forged = whole();
        forged[1].1 = Ok(page(life(1, 1), 2, Some(digest(1, 3)), (4, 4)));
        let strand = Strand::of(life(1, 1), forged);
        assert_eq!(strand.flaws, [Flaw::Broken { at: 5 }]);
        // The first page is gone: the name says whose it was.
        let strand = Strand::of(life(1, 1), whole().split_off(1));
        assert_eq!((strand.flaws, strand.pages), (vec![Flaw::Broken { at: 4 }], Vec::new()));
    }
}
