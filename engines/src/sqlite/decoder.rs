//! The decoder of a SQLite database's log as the journal holds it: bytes in order, in any pieces, become records.
//!
//! It holds one head, one page and one foot, whatever a record's length claims. It begins where a record does: the log has no pages
//! of its own to find one by.
//!
//! ```text
//! Head ──▶ Body (pages, or a name) ──▶ Foot ──▶ Head ...
//! ```

use farshore_journal::Offset;
use farshore_journal::format::Mark;
use farshore_journal::format::index::Whole;

use super::mark;
use super::record::{self, FOOT_BYTES, HEAD_BYTES, Head, HeadFault, Kind, PAGE_NUMBER_BYTES};
use crate::event::{Commit, Happened, LogEvent, TransactionId};

/// Log bytes that are not what this engine writes. After one, a decoder takes no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("log record at {start}: {fault}")]
pub struct RecordError {
    /// Where the record starts.
    pub start: Offset,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Its head.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// It is another transaction's than the next.
    #[error("it is of transaction {found}, behind transaction {before}")]
    Number {
        /// Its own.
        found: u64,
        /// The one before.
        before: u64,
    },
    /// A page of it is not one of the database, or not behind the page before.
    #[error("it holds page {page} where none such can be")]
    Page {
        /// Which.
        page: u32,
    },
    /// Its name is no text.
    #[error("its name is not UTF-8")]
    Name,
    /// Its content was changed.
    #[error("its checksum is wrong")]
    Checksum,
    /// No position is so large.
    #[error("it ends where no position is")]
    End,
}

/// What a decoder comes to, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A record begins here. Nothing of it is proved before its end.
    Begin(&'a Head),
    /// A whole page of it.
    Page {
        /// Its number.
        number: u32,
        /// Its bytes.
        image: &'a [u8],
    },
    /// It was whole and sound.
    End(&'a Ended),
}

/// A whole, checked record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its first byte.
    pub start: Offset,
    /// The first byte behind it.
    pub end: Offset,
    /// Its head.
    pub head: Head,
    /// When it was seen.
    pub seen_micros: i64,
    /// A point's name.
    pub name: Option<String>,
}

impl Ended {
    /// What happened, as every engine says it.
    pub fn event(&self) -> LogEvent {
        let what = match &self.name {
            Some(name) => Happened::RestorePoint { name: name.clone(), time_micros: self.seen_micros },
            None => Happened::Commit(Commit {
                time_micros: self.seen_micros,
                transaction: TransactionId { low: self.head.number as u32, full: Some(self.head.number) },
                subtransactions: Vec::new(),
                prepared: None,
                database: None,
                origin: None,
                relations_dropped: 0,
            }),
        };
        LogEvent { start: self.start, end: self.end, what }
    }
}

/// Decodes the log. See the module's head for what always holds.
#[derive(Debug)]
pub struct RecordDecoder {
    /// The next byte wanted.
    at: u64,
    stage: Stage,
    gathered: Vec<u8>,
    start: Offset,
    head: Option<Head>,
    body_left: u64,
    last_page: u32,
    crc: u32,
    name: Option<Vec<u8>>,
    before: Option<u64>,
    whole_from: Option<Offset>,
    whole: Option<Whole>,
    last: Option<Head>,
    failed: Option<RecordError>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Head,
    Body,
    Foot,
}

impl RecordDecoder {
    /// A decoder that will be given the bytes from `start` on, where a record begins.
    pub fn new(start: Offset) -> Self {
        Self {
            at: start.get(),
            stage: Stage::Head,
            gathered: Vec::new(),
            start,
            head: None,
            body_left: 0,
            last_page: 0,
            crc: 0,
            name: None,
            before: None,
            whole_from: None,
            whole: None,
            last: None,
            failed: None,
        }
    }

    /// Takes the next bytes and gives what they complete to `sink`, in order.
    ///
    /// # Errors
    /// At the first byte that is out of place; parts before it were given. Every later call gives the same error.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(Part<'_>)) -> Result<(), RecordError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = match self.at.checked_add(bytes.len() as u64) {
            Some(_) => self.advance(bytes, sink),
            None => Err(RecordError { start: self.start, fault: RecordFault::End }),
        };
        if let Err(error) = result {
            self.failed = Some(error);
        }
        result
    }

    /// The end of the last whole, checked record.
    pub fn checked_end(&self) -> Option<Offset> {
        self.whole.map(|whole| whole.to)
    }

    /// Where the first whole record starts.
    pub fn whole_from(&self) -> Option<Offset> {
        self.whole_from
    }

    /// Where the last whole record ends: decoding can always go on from there.
    pub fn whole(&self) -> Option<Whole> {
        self.whole
    }

    /// What is to be known of the last whole record's end, so that following can go on from there.
    pub fn mark(&self) -> Mark {
        self.last.as_ref().map_or(Mark::NONE, mark::of)
    }

    /// The next byte wanted, where nothing failed.
    pub fn next_wanted(&self) -> Offset {
        Offset::new(self.at)
    }

    fn wanted(&self) -> usize {
        match (self.stage, &self.head) {
            (Stage::Body, Some(Head { kind: Kind::Transaction, page_bytes, .. })) => {
                PAGE_NUMBER_BYTES + page_bytes.as_usize()
            }
            // A name, which is short.
            (Stage::Body, _) => usize::try_from(self.body_left).unwrap_or(0),
            (Stage::Head, _) => HEAD_BYTES,
            (Stage::Foot, _) => FOOT_BYTES,
        }
    }

    fn advance(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Part<'_>)) -> Result<(), RecordError> {
        while !bytes.is_empty() {
            let wanted = self.wanted();
            let (now, rest) = bytes.split_at(bytes.len().min(wanted - self.gathered.len()));
            self.at += now.len() as u64;
            bytes = rest;
            // What came whole is not gathered.
            let mut gathered = std::mem::take(&mut self.gathered);
            let whole = if gathered.is_empty() && now.len() == wanted {
                now
            } else {
                gathered.extend_from_slice(now);
                &gathered
            };
            if whole.len() == wanted {
                self.piece(whole, sink).map_err(|fault| RecordError { start: self.start, fault })?;
                gathered.clear();
            }
            self.gathered = gathered;
        }
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8], sink: &mut impl FnMut(Part<'_>)) -> Result<(), RecordFault> {
        match self.stage {
            Stage::Head => {
                self.start = Offset::new(self.at - HEAD_BYTES as u64);
                let raw = bytes.first_chunk().ok_or(HeadFault::Checksum)?;
                let head = Head::decode(raw)?;
                self.start.checked_add(head.bytes).ok_or(RecordFault::End)?;
                if let Some(before) = self.before {
                    let next = match head.kind {
                        Kind::Transaction => before.checked_add(1),
                        Kind::Point => Some(before),
                    };
                    if next != Some(head.number) {
                        return Err(RecordFault::Number { found: head.number, before });
                    }
                }
                (self.body_left, self.last_page, self.crc) = (head.body_bytes(), 0, 0);
                sink(Part::Begin(&head));
                self.stage = if self.body_left == 0 { Stage::Foot } else { Stage::Body };
                self.head = Some(head);
            }
            Stage::Body => {
                self.crc = crc32c::crc32c_append(self.crc, bytes);
                self.body_left -= bytes.len() as u64;
                if let Some(Head { kind: Kind::Transaction, database_pages, .. }) = self.head {
                    let (number, image) = bytes.split_first_chunk().ok_or(RecordFault::Checksum)?;
                    let number = u32::from_le_bytes(*number);
                    if number <= self.last_page || number > database_pages {
                        return Err(RecordFault::Page { page: number });
                    }
                    self.last_page = number;
                    sink(Part::Page { number, image });
                } else {
                    // Kept for the end: a name is short.
                    self.name = Some(bytes.to_vec());
                }
                if self.body_left == 0 {
                    self.stage = Stage::Foot;
                }
            }
            Stage::Foot => {
                let raw = bytes.first_chunk().ok_or(RecordFault::Checksum)?;
                let seen_micros = record::seen_micros(raw, self.crc).ok_or(RecordFault::Checksum)?;
                let Some(head) = self.head.take() else { return Err(RecordFault::Checksum) };
                let name = self.name.take().map(String::from_utf8).transpose();
                let name = name.map_err(|_| RecordFault::Name)?;
                let (start, end) = (self.start, Offset::new(self.at));
                self.before = Some(head.number);
                self.whole_from = self.whole_from.or(Some(start));
                let next_transaction = head.number.checked_add(1);
                self.whole = Some(Whole { to: end, last_record: start, next_transaction });
                self.last = Some(head);
                self.stage = Stage::Head;
                sink(Part::End(&Ended { start, end, head, seen_micros, name }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sqlite::wal::{PageBytes, Place, Salts, Sum};
    use proptest::prelude::*;

    fn place(frames: u32) -> Place {
        let salts = Salts { rising: 7, random: 9 };
        Place { salts, frames, sum: Sum::from_bytes(u64::from(frames).to_be_bytes()) }
    }

    /// A transaction's record, with pages that begin with their numbers.
    pub fn transaction(number: u64, pages: &[u32], database_pages: u32, seen: i64) -> Vec<u8> {
        let page_bytes = PageBytes::new(512).unwrap();
        let head = Head::transaction(page_bytes, pages.len() as u32, number, database_pages, place(3));
        let mut out = head.encode().to_vec();
        for page in pages {
            out.extend_from_slice(&page.to_le_bytes());
            out.extend_from_slice(&[*page as u8; 512]);
        }
        let sum = crc32c::crc32c(&out[HEAD_BYTES..]);
        out.extend_from_slice(&record::foot(sum, seen));
        out
    }

    fn point(number: u64, name: &str, seen: i64) -> Vec<u8> {
        let head = Head::transaction(PageBytes::new(512).unwrap(), 1, number, 9, place(3)).point(name);
        let foot = record::foot(crc32c::crc32c(name.as_bytes()), seen);
        [&head.encode()[..], name.as_bytes(), &foot].concat()
    }

    fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), RecordError>) {
        let mut decoder = RecordDecoder::new(Offset::new(100));
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece) {
            let pushed = decoder.push(piece, &mut |part| {
                seen.push(match part {
                    Part::Begin(head) => format!("{:?} {}", head.kind, head.number),
                    Part::Page { number, image } => format!("page {number} {} {}", image.len(), image[0]),
                    Part::End(ended) => {
                        format!("{} to {} at {}, {:?}", ended.start, ended.end, ended.seen_micros, ended.name)
                    }
                });
            });
            if pushed.is_err() {
                return (seen, pushed);
            }
        }
        (seen, Ok(()))
    }

    fn log() -> Vec<u8> {
        [
            transaction(5, &[1, 4], 9, 10),
            point(5, "before", 11),
            transaction(6, &[], 9, 11),
            transaction(7, &[9], 9, 12),
        ]
        .concat()
    }

    #[test]
    fn records_in_any_pieces_are_the_same_records() {
        let whole = decode(&log(), usize::MAX);
        assert_eq!(whole.1, Ok(()));
        assert_eq!(whole.0.iter().filter(|line| line.contains(" to ")).count(), 4);
        assert!(whole.0.contains(&"page 4 512 4".to_owned()), "{:?}", whole.0);
        for piece in [1, 2, 3, 55, 56, 57, 515, 516, 517, 4000] {
            assert_eq!(decode(&log(), piece), whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_record_that_does_not_follow_the_one_before_is_refused() {
        let fault = |records: &[Vec<u8>]| decode(&records.concat(), 4096).1.map_err(|error| error.fault);
        let first = transaction(5, &[1], 9, 10);
        assert_eq!(
            fault(&[first.clone(), transaction(7, &[1], 9, 10)]),
            Err(RecordFault::Number { found: 7, before: 5 })
        );
        assert_eq!(fault(&[first, point(6, "x", 10)]), Err(RecordFault::Number { found: 6, before: 5 }));
        assert_eq!(fault(&[transaction(5, &[2, 2], 9, 10)]), Err(RecordFault::Page { page: 2 }));
        assert_eq!(fault(&[transaction(5, &[10], 9, 10)]), Err(RecordFault::Page { page: 10 }));
        assert_eq!(fault(&[transaction(5, &[0], 9, 10)]), Err(RecordFault::Page { page: 0 }));
    }

    #[test]
    fn a_record_with_any_bit_changed_is_refused_and_never_said_to_be_whole() {
        let log = transaction(5, &[1, 4], 9, 10);
        for at in 0..log.len() {
            for bit in [0, 7] {
                let mut changed = log.clone();
                changed[at] ^= 1 << bit;
                let (parts, result) = decode(&changed, 4096);
                let ended = parts.iter().any(|part| part.contains(" to "));
                assert!(!ended && (result.is_err() || at < 8), "byte {at} bit {bit}: {parts:?} {result:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_in_an_error_or_wait_for_more(mut bytes in prop::collection::vec(any::<u8>(), 0..300), sound: bool) {
            if sound && bytes.len() >= HEAD_BYTES {
                let sum = crc32c::crc32c(&bytes[..52]);
                bytes[52..56].copy_from_slice(&sum.to_le_bytes());
            }
            let mut decoder = RecordDecoder::new(Offset::new(u64::MAX - 50));
            let _ = decoder.push(&bytes, &mut |_| {});
            prop_assert!(decoder.gathered.capacity() <= (1 << 16) + 1024);
        }

        #[test]
        fn a_head_reads_back(
            exponent in 9..=16u8, pages in 0..1000u32, more in 0..1000u32, number in 1..=u64::MAX, frames: u32, point: bool,
        ) {
            let page_bytes = PageBytes::from_exponent(exponent).unwrap();
            let head = Head::transaction(page_bytes, pages, number, pages + more, place(frames));
            let head = if point { head.point("name") } else { head };
            prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
        }
    }
}
