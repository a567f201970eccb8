//! Passing log over on the word of the journal's index.
//!
//! What always holds: an index is a hint. Only one whose run begins where reading stands, by its number, its offset and the chain value
//! there, and ends before what is read does, is looked at, so that a chunk behind it is always read and shows whether the index spoke
//! of this journal; the widest is tried first. One that is not there, does not read, does not open or speaks of other chunks is passed
//! over, and its log is decoded.
//! What rests on an index and what does not: `docs/adr/2026-11-26-journal-index.md`.

use std::collections::VecDeque;

use farshore_journal::format::index::MAX_LEVEL;
use farshore_journal::index::{self, IndexName, Indexed};
use farshore_journal::{JournalError, Sequence};

use crate::log::Border;
use crate::source::Source;

/// Names that are listed at a time.
const PAGE: usize = 100;

/// The indexes from one place of the journal on.
pub(super) struct Shortcuts<'a> {
    source: &'a Source,
    names: VecDeque<IndexName>,
    /// Up to this chunk all names are known.
    listed_to: Option<Sequence>,
    /// The store did not answer: a hint is not worth waiting for, and whoever reads the log is told by it.
    given_up: bool,
}

impl<'a> Shortcuts<'a> {
    pub fn new(source: &'a Source) -> Self {
        Self { source, names: VecDeque::new(), listed_to: None, given_up: false }
    }

    /// The widest run from the border on behind which `lies_behind` says the target is; `None` when the log is to be decoded.
    pub async fn over(&mut self, border: &Border, lies_behind: impl Fn(&Indexed) -> bool) -> Option<Indexed> {
        if self.given_up {
            return None;
        }
        let names = match self.names_at(border.next).await {
            Ok(names) => names,
            Err(why) => return self.give_up(&why),
        };
        for name in names.into_iter().rev() {
            // What is behind it must be read, and the journal's last chunks say where reading ends.
            if name.last >= border.last {
                continue;
            }
            let read = {
                let mut keys = self.source.keys().await;
                index::read(self.source.reader(), &mut keys, &name).await
            };
            let indexed = match read {
                Ok(indexed) => indexed,
                Err(JournalError::Store(why)) if !why.is_not_found() => return self.give_up(&why),
                Err(why) => {
                    tracing::warn!(index = %name, error = %why, "an index of the journal does not read: its log is decoded");
                    continue;
                }
            };
            let header = &indexed.header;
            // One of another generation might be in the clear where this one's chunks are sealed.
            let here = header.timeline == border.timeline
                && header.generation == border.generation
                && header.writer == border.writer
                && header.start == border.offset
                && header.before == border.chain;
            if !here {
                tracing::warn!(index = %name, "an index speaks of other chunks than the journal's: its log is decoded");
                continue;
            }
            if header.end < border.until && lies_behind(&indexed) {
                return Some(indexed);
            }
        }
        None
    }

    fn give_up(&mut self, why: &dyn std::fmt::Display) -> Option<Indexed> {
        tracing::warn!(error = %why, "the store does not give the journal's index: all log is decoded");
        self.given_up = true;
        None
    }

    /// The names of runs that begin with this chunk, the widest last.
    async fn names_at(&mut self, first: Sequence) -> Result<Vec<IndexName>, JournalError> {
        while self.names.front().is_some_and(|name| name.first < first) {
            self.names.pop_front();
        }
        if self.listed_to.is_none_or(|to| to < first) {
            let listed = index::names_from(self.source.reader(), first, PAGE).await?;
            // The last chunk on a full page may have more; behind a page that is not full there is none.
            self.listed_to = Some(match listed.names.last() {
                Some(last) if listed.more => {
                    let before = last.first.get().saturating_sub(1);
                    Sequence::new(before).max(first)
                }
                None if listed.more => first,
                _ => Sequence::new(u64::MAX),
            });
            self.names = listed.names.into();
        }
        let here = self.names.iter().take_while(|name| name.first == first);
        // One for each level: more are none of ours.
        Ok(here.take(usize::from(MAX_LEVEL) + 2).copied().collect())
    }
}
