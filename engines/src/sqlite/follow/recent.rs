//! The newest records of our log, as long as no target has them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::sqlite::record::Head;
use crate::sqlite::wal::PlaceDigest;

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
        Self { offset, number: head.number, digest: head.place.digest() }
    }
}

/// The records: all behind the last boundary that was released, unless there were too many. Then those behind a later boundary, which are of
/// use once all before it is released.
#[derive(Debug)]
pub(super) struct Recent {
    /// The boundary before the bytes, then one behind each record.
    ends: VecDeque<Boundary>,
    bytes: VecDeque<u8>,
    /// There were too many: none is kept up to the end of the record that comes.
    cut: bool,
    released: u64,
    most_bytes: usize,
}

impl Recent {
    /// None yet, behind this one, up to which all is released.
    pub fn behind(begin: Boundary, most_bytes: usize) -> Self {
        Self { released: begin.offset, ends: [begin].into(), bytes: VecDeque::new(), cut: false, most_bytes }
    }

    /// Takes bytes of the next record.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > self.most_bytes {
            self.cut = true;
            self.bytes = VecDeque::new();
        }
        if !self.cut {
            self.bytes.extend(bytes);
        }
    }

    /// The record ends here.
    pub fn end(&mut self, boundary: Boundary) {
        if self.cut {
            self.ends.clear();
            self.cut = false;
        }
        self.ends.push_back(boundary);
    }

    /// All up to `offset` is released: what ends there or before is forgotten.
    pub fn release(&mut self, offset: u64) {
        self.released = self.released.max(offset);
        while let (Some(first), Some(second)) = (self.ends.front(), self.ends.get(1))
            && second.offset <= self.released
        {
            let count = (second.offset - first.offset) as usize;
            self.bytes.drain(..count.min(self.bytes.len()));
            self.ends.pop_front();
        }
    }

    /// Whether [`all`](Self::all) gives them.
    pub fn are_all(&self) -> bool {
        !self.cut && self.ends.front().is_some_and(|begin| begin.offset <= self.released)
    }

    /// All records that are not released, and the boundary before them; `None` where some were let go that are not.
    pub fn all(&mut self) -> Option<(Boundary, &[u8])> {
        let begin = *self.ends.front()?;
        self.are_all().then(|| (begin, &*self.bytes.make_contiguous()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Boundary {
        Boundary { offset, number: offset, digest: [0; 8] }
    }

    #[test]
    fn what_is_not_released_is_there_from_a_records_begin_on() {
        let mut recent = Recent::behind(at(0), 100);
        for record in 1..=4u64 {
            recent.push(&[record as u8; 10]);
            recent.end(at(record * 10));
        }
        recent.release(25);
        let (begin, bytes) = recent.all().unwrap();
        assert_eq!((begin.offset, bytes.len(), bytes[0]), (20, 20, 3));
        recent.release(40);
        assert_eq!(recent.all(), Some((at(40), &[][..])));
    }

    #[test]
    fn after_too_much_there_is_nothing_until_what_was_let_go_is_released() {
        let mut recent = Recent::behind(at(0), 100);
        recent.push(&[1; 60]);
        recent.push(&[1; 60]);
        assert_eq!(recent.all(), None);
        recent.end(at(120));
        recent.release(119);
        assert_eq!(recent.all(), None);
        // A target that is always a record behind.
        recent.push(&[2; 10]);
        recent.end(at(130));
        recent.push(&[3; 10]);
        recent.end(at(140));
        recent.release(130);
        assert_eq!(recent.all(), Some((at(130), &[3; 10][..])));
        recent.release(140);
        assert_eq!(recent.all(), Some((at(140), &[][..])));
    }
}
