//! The newest records of our log, as long as no target has them: the last in memory, those before them in files.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::spool::{Anew, Spool};
use crate::sqlite::record::Head;
use crate::sqlite::wal::{Place, PlaceDigest};

/// Bytes in memory from which whole records go to the spool. A target that keeps up lets it never come to that.
const SPILL_BYTES: usize = 1 << 20;
/// Bytes that are not worth it.
const LITTLE_BYTES: usize = 64 << 10;
/// Most bytes in memory: of one record, as a rule.
const MEMORY_BYTES: usize = 8 << 20;

/// Where a record ends, and what the database's own log is known again by there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Boundary {
    pub offset: u64,
    pub number: u64,
    #[serde(with = "hex::serde")]
    pub digest: PlaceDigest,
}

impl Boundary {
    /// Behind the record with this head.
    pub fn behind(head: &Head, offset: u64) -> Self {
        End::behind(head, offset).boundary()
    }
}

/// Where a record ends, as it is known while it is followed: few of many are ever asked for their digest.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub offset: u64,
    number: u64,
    known: Known,
}

#[derive(Debug, Clone, Copy)]
enum Known {
    Place(Place),
    Digest(PlaceDigest),
}

impl End {
    /// Behind the record with this head.
    pub fn behind(head: &Head, offset: u64) -> Self {
        Self { offset, number: head.number, known: Known::Place(head.place) }
    }

    fn boundary(self) -> Boundary {
        let digest = match self.known {
            Known::Place(place) => place.digest(),
            Known::Digest(digest) => digest,
        };
        Boundary { offset: self.offset, number: self.number, digest }
    }
}

impl From<Boundary> for End {
    fn from(Boundary { offset, number, digest }: Boundary) -> Self {
        Self { offset, number, known: Known::Digest(digest) }
    }
}

/// The records: all behind the last boundary that was released, unless there were too many. Then those behind a later boundary, which are of
/// use once all before it is released.
#[derive(Debug)]
pub(super) struct Recent {
    /// The boundary before the records, then one behind each.
    ends: VecDeque<End>,
    /// Those before the ones in memory.
    spool: Spool,
    /// Those in memory, which whoever is told of them shares.
    pieces: VecDeque<Bytes>,
    /// Their bytes.
    bytes: usize,
    /// Where they begin: one of the boundaries.
    from: u64,
    /// There were too many: none is kept up to the end of the record that comes.
    cut: bool,
    released: u64,
    most_bytes: u64,
}

impl Recent {
    /// None yet, behind this one, up to which all is released.
    pub fn behind(begin: Boundary, spool: Spool, most_bytes: u64) -> Self {
        Self {
            ends: [begin.into()].into(),
            spool,
            pieces: VecDeque::new(),
            bytes: 0,
            from: begin.offset,
            cut: false,
            released: begin.offset,
            most_bytes,
        }
    }

    /// Takes whole records, which end here each.
    pub fn records(&mut self, bytes: Bytes, ends: &[End]) {
        let Some((last, before)) = ends.split_last() else { return };
        self.push(bytes);
        if !self.cut {
            self.ends.extend(before);
        }
        self.end(*last);
    }

    /// Takes bytes of the next record.
    pub fn push(&mut self, bytes: Bytes) {
        if self.bytes + bytes.len() > MEMORY_BYTES {
            self.cut = true;
            self.let_go();
            self.spool.forget();
        }
        if !self.cut {
            self.bytes += bytes.len();
            self.pieces.push_back(bytes);
        }
    }

    /// The record ends here.
    pub fn end(&mut self, end: End) {
        if self.cut {
            self.begin_behind(end);
            return;
        }
        self.ends.push_back(end);
        if self.bytes >= SPILL_BYTES {
            self.spill();
        }
    }

    /// Writes what is in memory to files, where it is not little. At a record's end.
    pub fn spill(&mut self) {
        let Some(end) = self.ends.back().copied().filter(|_| self.bytes >= LITTLE_BYTES && !self.cut) else {
            return;
        };
        let fits = self.spool.bytes() + self.bytes as u64 <= self.most_bytes;
        let before = self.before_memory().filter(|_| fits);
        // Where there is no space for them, following goes on: the log is not begun anew until they are released.
        if before.is_some_and(|before| self.spool.append(before, &self.pieces).is_ok()) {
            self.let_go();
            self.from = end.offset;
        } else {
            self.spool.forget();
            self.begin_behind(end);
        }
    }

    /// Keeps what comes behind this one, and nothing before it.
    fn begin_behind(&mut self, end: End) {
        self.ends = [end].into();
        self.let_go();
        self.from = end.offset;
        self.cut = false;
    }

    fn let_go(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
    }

    /// All up to `offset` is released: what ends there or before is forgotten.
    pub fn release(&mut self, offset: u64) {
        self.released = self.released.max(offset);
        while self.ends.get(1).is_some_and(|second| second.offset <= self.released) {
            self.ends.pop_front();
        }
        let Some(first) = self.ends.front() else { return };
        if first.offset > self.from {
            let mut count = (first.offset - self.from) as usize;
            self.bytes -= count.min(self.bytes);
            while count > 0
                && let Some(piece) = self.pieces.front_mut()
            {
                let gone = count.min(piece.len());
                piece.advance(gone);
                count -= gone;
                if piece.is_empty() {
                    self.pieces.pop_front();
                }
            }
            self.from = first.offset;
        }
        self.spool.release(first.offset);
    }

    /// Whether [`keep`](Self::keep) keeps them.
    pub fn are_all(&self) -> bool {
        !self.cut && self.ends.front().is_some_and(|begin| begin.offset <= self.released)
    }

    /// Keeps all records that are not released, for a log that is begun anew; `false` where some were let go that are not. With nothing behind the
    /// last boundary.
    ///
    /// # Errors
    /// When they cannot be written: what was kept before is there.
    pub fn keep(&mut self, anew: Anew) -> io::Result<bool> {
        let Some(before) = self.before_memory().filter(|_| self.are_all()) else { return Ok(false) };
        self.spool.keep(before, anew, &self.pieces)?;
        Ok(true)
    }

    /// Keeps nothing that a log could be known by.
    ///
    /// # Errors
    /// When what was kept before is still there.
    pub fn void(&mut self) -> io::Result<()> {
        self.spool.void()
    }

    /// Removes files that are of no more use. Not while writers are held.
    pub fn sweep(&mut self) {
        self.spool.sweep();
    }

    fn before_memory(&self) -> Option<Boundary> {
        let at = self.ends.partition_point(|end| end.offset < self.from);
        self.ends.get(at).copied().map(End::boundary)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::sqlite::follow::spool::{Kept, read};
    use crate::sqlite::wal::Salts;

    const ANEW: Anew = Anew { salts: Salts { rising: 3, random: 4 }, beat: [5; 16] };

    struct Kit {
        recent: Recent,
        path: PathBuf,
        folder: tempfile::TempDir,
    }

    impl Kit {
        fn new(most_bytes: usize) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("spool");
            let recent = Recent::behind(at(0), Spool::open(&path).unwrap(), most_bytes as u64);
            Self { recent, path, folder }
        }

        fn record(&mut self, byte: u8, bytes: usize) {
            let end = self.recent.ends.back().unwrap().offset + bytes as u64;
            self.recent.push(vec![byte; bytes].into());
            self.recent.end(at(end).into());
        }

        /// Where what is kept begins, and its records.
        fn kept(&mut self) -> Option<(u64, Vec<u8>)> {
            let kept = self.recent.keep(ANEW).unwrap();
            kept.then(|| {
                let Kept { before, records, .. } = read(&self.path).unwrap().unwrap();
                (before.offset, records)
            })
        }
    }

    fn at(offset: u64) -> Boundary {
        Boundary { offset, number: offset, digest: [0; 8] }
    }

    #[test]
    fn what_is_not_released_is_there_from_a_records_begin_on() {
        let mut kit = Kit::new(100 << 20);
        (1..=4).for_each(|record| kit.record(record, 10));
        kit.recent.release(25);
        let (begin, bytes) = kit.kept().unwrap();
        assert_eq!((begin, bytes.len(), bytes[0]), (20, 20, 3));
        kit.recent.release(40);
        assert_eq!(kit.kept(), Some((40, vec![])));
    }

    #[test]
    fn what_is_too_much_for_memory_is_kept_in_files_until_it_is_released() {
        const RECORD: usize = 700 << 10;
        let mut kit = Kit::new(100 << 20);
        (1..=21).for_each(|record| kit.record(record, RECORD));
        assert!(kit.recent.bytes < SPILL_BYTES && kit.recent.spool.bytes() > 10 << 20);
        for first in [1, 2, 3, 11, 20, 21] {
            let begin = (first as usize - 1) * RECORD;
            kit.recent.release(begin as u64 + 1);
            let (from, bytes) = kit.kept().unwrap();
            // A part is let go as a whole.
            assert!(from <= begin as u64, "{first}");
            let skip = begin - from as usize;
            assert!(skip < 6 << 20, "{first}");
            let wanted: Vec<u8> = (first..=21u8).flat_map(|record| vec![record; RECORD]).collect();
            assert!(bytes[skip..] == wanted, "{first}");
        }
        kit.recent.release(21 * RECORD as u64);
        assert_eq!(kit.kept(), Some((21 * RECORD as u64, vec![])));
        kit.recent.sweep();
        assert_eq!(
            std::fs::read_dir(kit.folder.path()).unwrap().count(),
            3,
            "the head, what it is written over, and the lock are left"
        );
    }

    #[test]
    fn after_too_much_there_is_nothing_until_what_was_let_go_is_released() {
        let mut kit = Kit::new(3 << 20);
        let mut end = 0;
        for record in 1..=4 {
            kit.record(record, 1 << 20);
            end += 1 << 20;
        }
        assert_eq!(kit.kept(), None);
        kit.recent.release(end - 1);
        assert_eq!(kit.kept(), None);
        // A target that is always a record behind.
        kit.record(5, 10);
        kit.record(6, 10);
        kit.recent.release(end + 10);
        assert_eq!(kit.kept(), Some((end + 10, vec![6; 10])));
        kit.recent.release(end + 20);
        assert_eq!(kit.kept(), Some((end + 20, vec![])));
    }

    #[test]
    fn where_the_files_cannot_be_written_following_goes_on_and_keeps_again_once_it_is_released() {
        let mut kit = Kit::new(100 << 20);
        // The next part cannot be made.
        std::fs::create_dir(kit.folder.path().join("spool.0")).unwrap();
        kit.record(1, 2 << 20);
        kit.record(2, 10);
        assert_eq!(kit.kept(), None);
        kit.recent.release(2 << 20);
        assert_eq!(kit.kept(), Some((2 << 20, vec![2; 10])));
    }

    #[test]
    fn a_record_that_is_too_large_for_memory_is_not_kept_nor_is_what_came_before_it() {
        let mut kit = Kit::new(100 << 20);
        kit.record(1, 2 << 20);
        kit.recent.push(vec![2; MEMORY_BYTES].into());
        kit.recent.push(vec![2].into());
        assert_eq!(kit.kept(), None);
        let end = (2 << 20) + MEMORY_BYTES as u64 + 1;
        kit.recent.end(at(end).into());
        kit.recent.release(end - 1);
        assert_eq!(kit.kept(), None);
        kit.record(3, 10);
        kit.recent.release(end);
        assert_eq!(kit.kept(), Some((end, vec![3; 10])));
    }
}
