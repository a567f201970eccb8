//! Log in messages: pure.
//!
//! What always holds: bytes go out in order, none twice and none left out; a message is at most [`MAX_DATA`] long, and ends at a page or where the journal's chunk
//! ends. A standby replays a record only when it has one byte more than its end, or the end is a page's: PostgreSQL's own sender cuts at pages and at what is flushed,
//! which is where chunks end.

use bytes::{Bytes, BytesMut};
use farshore_engines::postgres::serve::MAX_DATA;
use farshore_journal::Offset;

/// A page of the log, whatever the source's blocks are: PostgreSQL's standard, of which others are multiples.
const PAGE: u64 = 8192;

/// Log that waits to be sent.
#[derive(Debug)]
pub(super) struct Slices {
    start: Offset,
    held: BytesMut,
}

impl Slices {
    /// Of log from here on.
    pub fn new(start: Offset) -> Self {
        Self { start, held: BytesMut::new() }
    }

    /// Where the next byte is to begin.
    pub fn end(&self) -> Offset {
        Offset::new(self.start.get().saturating_add(self.held.len() as u64))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether more is worth taking before something of it was sent.
    pub fn has_room(&self) -> bool {
        self.held.len() < 2 * MAX_DATA
    }

    /// Takes log that begins at [`Self::end`].
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Forgets what waits from `at` on.
    pub fn cut(&mut self, at: Offset) {
        let kept = at.get().saturating_sub(self.start.get());
        self.held.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// The next message, of a whole number of pages; of less only where `all` is to go, or at the `ceiling` up to which log may go.
    pub fn next(&mut self, all: bool, ceiling: Option<Offset>) -> Option<(Offset, Bytes)> {
        let within = ceiling.map_or(u64::MAX, |at| at.get().saturating_sub(self.start.get()));
        let within = self.held.len().min(usize::try_from(within).unwrap_or(usize::MAX));
        let all = all || within < self.held.len();
        let length = match within {
            0 => return None,
            length if length <= MAX_DATA && all => length,
            length => {
                let most = self.start.get().saturating_add(length.min(MAX_DATA) as u64);
                let cut = most - most % PAGE;
                usize::try_from(cut.saturating_sub(self.start.get())).ok().filter(|length| *length > 0)?
            }
        };
        let start = self.start;
        let bytes = self.held.split_to(length).freeze();
        self.start = Offset::new(start.get().saturating_add(length as u64));
        Some((start, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_waits_behind_a_fork_is_forgotten() {
        let mut slices = Slices::new(Offset::new(100));
        slices.push(&[7; 50]);
        slices.cut(Offset::new(200));
        assert_eq!(slices.end(), Offset::new(150));
        slices.cut(Offset::new(120));
        assert_eq!(slices.next(true, None), Some((Offset::new(100), Bytes::from(vec![7; 20]))));
        slices.push(&[7; 5]);
        slices.cut(Offset::new(90));
        assert!(slices.is_empty() && slices.end() == Offset::new(120));
    }

    #[test]
    fn nothing_goes_beyond_a_ceiling_and_what_lies_before_it_goes_at_once() {
        let mut slices = Slices::new(Offset::new(100));
        slices.push(&[7; 50_000]);
        assert_eq!(slices.next(false, Some(Offset::new(100))), None);
        assert_eq!(slices.next(false, Some(Offset::new(90))), None);
        assert_eq!(slices.next(false, Some(Offset::new(108))).unwrap().1.len(), 8);
        assert_eq!(slices.next(false, Some(Offset::new(108))), None);
        assert_eq!(slices.next(false, None).unwrap().1.len() as u64, 49_152 - 108);
    }

    proptest! {
        #[test]
        fn all_of_it_goes_out_in_order_and_is_cut_at_pages_only(
            start in 0u64..100_000,
            pieces in prop::collection::vec((1usize..300_000, any::<bool>()), 1..8),
        ) {
            let mut slices = Slices::new(Offset::new(start));
            let (mut sent, mut given) = (start, start);
            let byte = |at: u64| (at % 251) as u8;
            for (length, chunk_ends) in pieces {
                slices.push(&(given..given + length as u64).map(byte).collect::<Vec<u8>>());
                given += length as u64;
                while let Some((at, bytes)) = slices.next(chunk_ends, None) {
                    prop_assert_eq!(at.get(), sent);
                    prop_assert!(!bytes.is_empty() && bytes.len() <= MAX_DATA);
                    prop_assert!(bytes.iter().zip(sent..).all(|(found, at)| *found == byte(at)));
                    sent += bytes.len() as u64;
                    prop_assert!(sent % PAGE == 0 || (chunk_ends && sent == given), "cut at {sent} of {given}");
                }
                prop_assert!(!chunk_ends || sent == given);
                prop_assert!(given - sent < 2 * PAGE || chunk_ends);
            }
            prop_assert_eq!(slices.end().get(), given);
        }
    }
}
