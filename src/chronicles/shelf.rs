//! The entries that stores give, found by what is known to come behind them: pure.
//!
//! What always holds: an entry that is given out is the one whose digest the entry behind it names, whatever life, page or signature it stands in; so nothing that
//! somebody puts beside it takes its place or cuts off what is before. Behind entries that no page shows it goes on from what a page states of them, and where keys
//! are pinned only one that such a key signed: those that were not seen bind nothing.

use std::collections::BTreeMap;

use farshore_catalog::chronicle::Kept;
use farshore_journal::format::EntryDigest;

use super::found::Found;

/// An entry's number and digest.
type Mark = (u64, EntryDigest);

/// Entries of one chronicle in any number of stores.
#[derive(Debug, Default)]
pub struct Shelf {
    entries: BTreeMap<Mark, Kept>,
    /// By what a page that was not opened states as its last: the numbers of its first, and the digest of the one before that.
    spans: BTreeMap<Mark, Vec<(u64, EntryDigest)>>,
}

impl Shelf {
    /// Takes what a store has. `is_pinned`: whether keys are pinned.
    pub fn take(&mut self, found: Found, is_pinned: bool) {
        for kept in found.opened.into_values().flatten() {
            self.entries.entry((kept.number, kept.digest)).or_insert(kept);
        }
        for span in found.spans.into_iter().filter(|span| span.is_pinned || !is_pinned) {
            let Some(before) = span.before else { continue };
            self.spans.entry((span.last, span.after)).or_default().push((span.first, before));
        }
    }

    /// Entries that lead to one, oldest first, at most so many: those before it itself, or before what hides them.
    pub fn up_to(&self, mark: Mark, many: usize) -> Vec<Kept> {
        let mut entries = Vec::new();
        let mut next = self.seen(mark);
        while let Some(kept) = next.filter(|_| entries.len() < many).and_then(|mark| self.entries.get(&mark))
        {
            next = kept.former.map(|former| (kept.number - 1, former));
            entries.push(kept.clone());
        }
        entries.reverse();
        entries
    }

    /// The newest entry that is here and leads to one: itself, or behind what is not shown.
    fn seen(&self, mark: Mark) -> Option<Mark> {
        // Of what several pages state about the same entries, whichever leads to one that is here. Numbers fall, so this ends.
        let mut asked = std::collections::BTreeSet::from([mark]);
        while let Some(mark) = asked.pop_last() {
            if self.entries.contains_key(&mark) {
                return Some(mark);
            }
            let states = self.spans.get(&mark).into_iter().flatten();
            asked.extend(
                states.filter(|(first, _)| *first <= mark.0).map(|(first, before)| (first - 1, *before)),
            );
        }
        None
    }
}
