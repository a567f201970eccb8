//! PostgreSQL's data page checksums, checked while a backup passes by.
//!
//! The page is read as 64 rows of 32 little-endian words; each of the 32 columns is hashed by its own FNV-1a with a
//! start value of its own, two rows of zeroes follow, and the columns are combined by exclusive or. The block's number
//! is mixed in, so that a page in another's place is noticed.
//!
//! Accepted without a look, as the server does: pages that were never written (their `upper` is 0), and pages whose
//! log position is at or after the backup's start, because replay restores them. A page cannot be judged when the
//! damage is in that position itself: the manifest and a later backup find that no better.
//!
//! Source: `storage/checksum_impl.h`, `storage/bufpage.h` and `verify_page_checksum` in `basebackup.c` of PostgreSQL.

use std::path::Path;

use farshore_journal::Offset;

/// The only page size farshore knows. Source: `BLCKSZ`.
pub(crate) const PAGE: usize = 8192;
/// Pages of a full relation segment of 1 GiB. Source: `RELSEG_SIZE`.
const SEGMENT_PAGES: u32 = 131_072;
const COLUMNS: usize = 32;
const FNV_PRIME: u32 = 16_777_619;
const CHECKSUM_AT: usize = 8;
const UPPER_AT: usize = 14;
/// How many bad pages of one archive are named; the rest is counted.
pub(super) const MAX_NAMED: usize = 1000;

/// Start values of the columns, fixed by the file format. Source: `checksumBaseOffsets`.
const START: [u32; COLUMNS] = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
];

/// What pages are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRules {
    /// The backup's start: later pages are restored by replay.
    pub backup_start: Offset,
}

/// A page whose checksum is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPage {
    /// Its file, as the manifest names it.
    pub path: String,
    /// Its number in the relation's fork.
    pub block: u32,
    /// The checksum of its content.
    pub expected: u16,
    /// The checksum that stands in it.
    pub found: u16,
}

/// The checksum that a page should carry at this place.
pub fn page_checksum(page: &[u8; PAGE], block: u32) -> u16 {
    let mut sums = START;
    let mix = |sum: u32, word: u32| {
        let mixed = sum ^ word;
        mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
    };
    let (rows, _) = page.as_chunks::<{ COLUMNS * 4 }>();
    for (at, row) in rows.iter().enumerate() {
        let (words, _) = row.as_chunks::<4>();
        for (column, (sum, word)) in sums.iter_mut().zip(words).enumerate() {
            let mut word = u32::from_le_bytes(*word);
            if at == 0 && column == CHECKSUM_AT / 4 {
                // The checksum's own two bytes count as zero.
                word &= 0xFFFF_0000;
            }
            *sum = mix(*sum, word);
        }
    }
    for _ in 0..2 {
        for sum in &mut sums {
            *sum = mix(*sum, 0);
        }
    }
    let combined = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // Never zero, and below 65 536: the remainder is at most 65 534.
    (combined % 65_535 + 1) as u16
}

/// Judges a page: `Err` holds the checksum expected and the one found.
fn judge(page: &[u8; PAGE], block: u32, rules: PageRules) -> Result<(), (u16, u16)> {
    let number = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let word = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    let changed = Offset::new(u64::from(word(0)) << 32 | u64::from(word(4)));
    if number(UPPER_AT) == 0 || changed >= rules.backup_start {
        return Ok(());
    }
    let (expected, found) = (page_checksum(page, block), number(CHECKSUM_AT));
    if expected == found { Ok(()) } else { Err((expected, found)) }
}

/// The first block's number, if this is a relation's file by its name: `base/<db>/`, `global/` or, in a tablespace,
/// `PG_<version>/<db>/`, then `<number>[_fsm|_vm|_init][.<segment>]`.
///
/// Source: `parse_filename_for_nontemp_relation` in PostgreSQL's `reinit.c`, and
/// <https://www.postgresql.org/docs/current/storage-file-layout.html>.
fn first_block(path: &Path, in_tablespace: bool) -> Option<u32> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match parts.as_slice() {
        ["global", name] if !in_tablespace => name,
        ["base", database, name] if !in_tablespace && digits(database) => name,
        [version, database, name] if in_tablespace && version.starts_with("PG_") && digits(database) => name,
        _ => return None,
    };
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) if digits(segment) => (name, segment.parse::<u32>().ok()?),
        Some(_) => return None,
        None => (*name, 0),
    };
    let (number, fork) = name.split_once('_').unwrap_or((name, ""));
    let relation = digits(number) && number.parse::<u32>().is_ok_and(|number| number > 0);
    (relation && matches!(fork, "" | "fsm" | "vm" | "init"))
        .then(|| segment.checked_mul(SEGMENT_PAGES))
        .flatten()
}

/// Checks the pages of one file as its bytes pass by, however they are cut.
#[derive(Debug)]
pub(super) struct FileCheck {
    rules: PageRules,
    block: u32,
    partial: Vec<u8>,
}

impl FileCheck {
    /// A check for this file, if its pages carry checksums.
    pub(super) fn new(path: &Path, in_tablespace: bool, rules: PageRules) -> Option<Self> {
        first_block(path, in_tablespace).map(|block| Self { rules, block, partial: Vec::new() })
    }

    /// Looks at the next bytes; calls `bad` with block, expected and found. What is left at the end of a file is no
    /// whole page and is not looked at.
    pub(super) fn update(&mut self, mut bytes: &[u8], mut bad: impl FnMut(u32, u16, u16)) {
        if !self.partial.is_empty() {
            let wanted = (PAGE - self.partial.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(wanted);
            self.partial.extend_from_slice(head);
            bytes = rest;
            let partial = std::mem::take(&mut self.partial);
            match partial.as_slice().try_into() {
                Ok(page) => self.page(page, &mut bad),
                Err(_) => {
                    self.partial = partial;
                    return;
                }
            }
        }
        let (pages, rest) = bytes.as_chunks::<PAGE>();
        for page in pages {
            self.page(page, &mut bad);
        }
        self.partial.extend_from_slice(rest);
    }

    fn page(&mut self, page: &[u8; PAGE], bad: &mut impl FnMut(u32, u16, u16)) {
        if let Err((expected, found)) = judge(page, self.block, self.rules) {
            bad(self.block, expected, found);
        }
        self.block = self.block.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relation_files_are_looked_at() {
        let main = |path: &str| first_block(Path::new(path), false);
        assert_eq!(main("base/5/16384"), Some(0));
        assert_eq!(main("base/5/16384.2"), Some(262_144));
        assert_eq!(main("base/5/16384_vm.1"), Some(131_072));
        assert_eq!(main("global/1262_fsm"), Some(0));
        for path in [
            "global/pg_control",
            "base/5/pg_filenode.map",
            "base/5/PG_VERSION",
            "base/5/t3_16384",
            "base/5/0",
            "base/5/16384_x",
            "base/5/16384.",
            "base/5/16384.99999",
            "pg_xact/0000",
            "PG_15_202209061/5/16384",
        ] {
            assert_eq!(main(path), None, "{path}");
        }
        assert_eq!(first_block(Path::new("PG_15_202209061/5/16384"), true), Some(0));
        assert_eq!(first_block(Path::new("base/5/16384"), true), None);
    }

    #[test]
    fn a_page_is_judged_alike_however_its_bytes_are_cut() {
        let mut page = [7u8; PAGE];
        page[..8].fill(0);
        let sum = page_checksum(&page, 1).to_le_bytes();
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum);
        let file = [page, page, page].concat();
        let rules = PageRules { backup_start: Offset::new(1) };
        for cut in [1, 100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
            let mut check = FileCheck::new(Path::new("base/1/1"), false, rules).unwrap();
            let mut found = Vec::new();
            for part in file.chunks(cut) {
                check.update(part, |block, _, _| found.push(block));
            }
            // The same bytes are right at block 1 and wrong at 0 and 2.
            assert_eq!(found, [0, 2], "cut {cut}");
        }
    }

    #[test]
    fn pages_that_replay_restores_and_pages_never_written_are_accepted() {
        let rules = PageRules { backup_start: Offset::new(100) };
        assert_eq!(judge(&[0; PAGE], 0, rules), Ok(()));
        let mut page = [9; PAGE];
        page[..8].copy_from_slice(&[0, 0, 0, 0, 100, 0, 0, 0]);
        assert_eq!(judge(&page, 0, rules), Ok(()));
        page[4] = 99;
        assert!(judge(&page, 0, rules).is_err());
    }
}
