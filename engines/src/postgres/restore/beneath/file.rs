//! One file being restored: written in any order, by several threads, within the size it was announced with.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::{BeneathError, RelPath, Root};

/// Disjoint written ranges one file may have at a time; each of a few readers writes forwards, so that ranges merge.
const MAX_RANGES: usize = 65_536;

/// A new file below a [`Root`]. Dropped before [`RootFile::finish`] it counts as incomplete, and the root cannot
/// be synchronised.
#[derive(Debug)]
pub struct RootFile<'a> {
    pub(super) root: &'a Root,
    pub(super) path: RelPath,
    /// None while it rests.
    pub(super) file: Mutex<Option<Arc<File>>>,
    pub(super) bytes: u64,
    pub(super) written: Mutex<Ranges>,
}

impl RootFile<'_> {
    /// Its path below the root.
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// Writes `content` at `offset`. Blocks; durable only after [`Root::sync`].
    ///
    /// # Errors
    /// When the range leaves the announced size, or was written before: two contents for one place are a lie.
    pub fn write_all_at(&self, content: &[u8], offset: u64) -> Result<(), BeneathError> {
        let end = offset.checked_add(content.len() as u64).filter(|end| *end <= self.bytes);
        let Some(end) = end else {
            return Err(BeneathError::FileSize { path: self.path.clone(), announced: self.bytes, offset });
        };
        if !self.written.lock().unwrap_or_else(PoisonError::into_inner).add(offset, end) {
            return Err(BeneathError::WrittenTwice { path: self.path.clone(), offset });
        }
        let file = self.opened()?;
        file.write_all_at(content, offset).map_err(|source| BeneathError::Io {
            what: "write",
            path: self.path.to_string(),
            source,
        })
    }

    /// Gives its descriptor back until it is written to again: files that are written here and there may be more than a process may hold open.
    pub fn rest(&self) {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn opened(&self) -> Result<Arc<File>, BeneathError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match &*file {
            Some(file) => Ok(Arc::clone(file)),
            None => Ok(Arc::clone(file.insert(Arc::new(self.root.reopened(&self.path)?)))),
        }
    }

    /// The file's handle once more, for whoever has the system write early what was written so far. A failure of that must end the
    /// restore: the system tells it only once, and [`Root::sync`] may not be told it again.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn handle(&self) -> Result<File, BeneathError> {
        self.opened()?.try_clone().map_err(|source| BeneathError::Io {
            what: "open once more",
            path: self.path.to_string(),
            source,
        })
    }

    /// Ends the file: every byte must have been written.
    ///
    /// # Errors
    /// When a range is missing.
    pub fn finish(self) -> Result<(), BeneathError> {
        let whole = self.written.lock().unwrap_or_else(PoisonError::into_inner).cover(self.bytes);
        if !whole {
            return Err(BeneathError::FileIncomplete { path: self.path });
        }
        self.root.finished(self.path);
        self.root.unfinished.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Disjoint half-open ranges in order.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Takes a range in; `false` when it overlaps one that is there, or when there are too many.
    fn add(&mut self, start: u64, end: u64) -> bool {
        if start == end {
            return true;
        }
        let at = self.0.partition_point(|(_, range_end)| *range_end <= start);
        if self.0.get(at).is_some_and(|(next, _)| *next < end) {
            return false;
        }
        let joins_left = at > 0 && self.0[at - 1].1 == start;
        let joins_right = self.0.get(at).is_some_and(|(next, _)| *next == end);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = end,
            (false, true) => self.0[at].0 = start,
            (false, false) if self.0.len() >= MAX_RANGES => return false,
            (false, false) => self.0.insert(at, (start, end)),
        }
        true
    }

    fn cover(&self, bytes: u64) -> bool {
        if bytes == 0 { self.0.is_empty() } else { self.0 == [(0, bytes)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_cover_a_file_exactly_when_every_byte_was_written_once(
            ranges in prop::collection::vec((0u64..24, 0u64..8), 0..24),
        ) {
            let mut taken = Ranges::default();
            let mut model = [false; 32];
            for (start, length) in ranges {
                let (start, end) = (start, start + length);
                let free = model[start as usize..end as usize].iter().all(|byte| !byte);
                prop_assert_eq!(taken.add(start, end), free);
                if free {
                    model[start as usize..end as usize].fill(true);
                }
            }
            for bytes in 0..32u64 {
                let exact = model.iter().enumerate().all(|(at, byte)| *byte == ((at as u64) < bytes));
                prop_assert_eq!(taken.cover(bytes), exact);
            }
        }
    }
}
