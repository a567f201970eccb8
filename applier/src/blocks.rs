//! Holds the blocks of a backup's files, wherever their bytes stand, against the digests that were kept when the server sent them.
//!
//! What always holds: a file of which a byte is not what the server sent is found, also where an earlier backup gives that byte; each block is looked at once, however parts
//! cut it. Memory: the blocks that parts cut, and the digests of some gigabytes.

use std::collections::HashMap;
use std::ops::Range;

use farshore_journal::JournalError;
use farshore_journal::backup::{BLOCK_BYTES, Blocks, Manifest, PathSum, Place, Sum};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Pieces of a block, and where each begins in it.
type Pieces = Vec<(u64, Vec<u8>)>;

/// What is held against what.
pub(crate) struct Against {
    blocks: Blocks,
    /// Of each entry, its records.
    records: Vec<Range<u64>>,
    sizes: Vec<u64>,
    /// Blocks that parts cut: what there is of them.
    cut: HashMap<(usize, u64), Pieces>,
}

/// A part's blocks, or some of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    whole: Vec<(usize, u64, Sum)>,
    cut: Vec<(usize, u64, u64, Vec<u8>)>,
}

impl Seen {
    /// These too.
    pub fn and(&mut self, mut more: Self) {
        self.whole.append(&mut more.whole);
        self.cut.append(&mut more.cut);
    }
}

impl Against {
    pub fn new(blocks: Blocks, manifest: &Manifest) -> Self {
        let records = |path: &str| blocks.file(PathSum::of(path)).unwrap_or(0..0);
        let records = manifest.entries.iter().map(|entry| records(&entry.path)).collect();
        let sizes = manifest.entries.iter().map(|entry| entry.size).collect();
        Self { blocks, records, sizes, cut: HashMap::new() }
    }

    pub fn sizes(&self) -> Vec<u64> {
        self.sizes.clone()
    }

    /// The first block of a part that is not what it was; the entry, and the block's number.
    pub async fn differs(&mut self, seen: Seen) -> Result<Option<(usize, u64)>, JournalError> {
        let mut whole = seen.whole;
        for (entry, block, within, bytes) in seen.cut {
            let wanted = block_bytes(self.sizes.get(entry).copied().unwrap_or(0), block);
            let there = self.cut.entry((entry, block)).or_default();
            there.push((within, bytes));
            if there.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() < wanted {
                continue;
            }
            let mut pieces = self.cut.remove(&(entry, block)).unwrap_or_default();
            pieces.sort_unstable_by_key(|(within, _)| *within);
            let block_bytes: Vec<u8> = pieces.into_iter().flat_map(|(_, bytes)| bytes).collect();
            whole.push((entry, block, Sum::of(&block_bytes)));
        }
        for (entry, block, sum) in whole {
            let records = self.records.get(entry).cloned().unwrap_or(0..0);
            let number = records.start.saturating_add(block);
            if number >= records.end || self.blocks.record(number).await?.sum != sum {
                return Ok(Some((entry, block)));
            }
        }
        Ok(None)
    }

    /// Whether every block that was begun was seen whole.
    pub fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }
}

/// How many bytes a block of a file of `size` has.
fn block_bytes(size: u64, block: u64) -> u64 {
    size.saturating_sub(block.saturating_mul(BLOCK)).min(BLOCK)
}

/// The blocks in a part's plain bytes. Takes a core for as long as hashing takes.
pub(crate) fn seen(plain: &[u8], places: &[Place], sizes: &[u64]) -> Seen {
    let mut seen = Seen::default();
    for place in places {
        let (mut offset, mut at) = (place.offset, place.in_part);
        let end = place.offset.saturating_add(place.bytes);
        while offset < end {
            let block = offset / BLOCK;
            let within = offset % BLOCK;
            let size = block_bytes(sizes.get(place.entry).copied().unwrap_or(0), block);
            let bytes = (size.saturating_sub(within)).min(end - offset).max(1);
            let to = usize::try_from(at + bytes).unwrap_or(usize::MAX).min(plain.len());
            let content = &plain[usize::try_from(at).unwrap_or(usize::MAX).min(to)..to];
            match within == 0 && bytes == size {
                true => seen.whole.push((place.entry, block, Sum::of(content))),
                false => seen.cut.push((place.entry, block, within, content.to_vec())),
            }
            (offset, at) = (offset + bytes, at + bytes);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_a_part_cuts_is_told_from_whole_ones_and_a_last_one_is_shorter() {
        let plain: Vec<u8> = (0..3 * BLOCK_BYTES).map(|at| (at % 251) as u8).collect();
        // A file of two blocks and a half, of which the part has all but the first hundred bytes.
        let size = 2 * BLOCK + BLOCK / 2;
        let place = Place { entry: 0, offset: 100, in_part: 7, bytes: size - 100 };
        let found = seen(&plain, &[place], &[size]);
        let from = 7 + BLOCK_BYTES - 100;
        let second = Sum::of(&plain[from..from + BLOCK_BYTES]);
        let last = Sum::of(&plain[from + BLOCK_BYTES..from + BLOCK_BYTES + BLOCK_BYTES / 2]);
        assert_eq!(found.whole, [(0, 1, second), (0, 2, last)]);
        assert_eq!(found.cut, [(0, 0, 100, plain[7..from].to_vec())]);
    }
}
