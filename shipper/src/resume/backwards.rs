//! Chunks from a number back to the first, several asked for at once.
//!
//! What commits wait for is stored in a chunk for each flush, so a log segment may be thousands of them; a store that is far away answers many questions in the
//! time of one. What is asked for beside what is wanted is little: twice as many at a time as were wanted so far, and no more than the bytes that
//! are left promise.

use std::collections::VecDeque;

use farshore_journal::chunk::Chunk;
use farshore_journal::reader::Reader;
use farshore_journal::{JournalError, Sequence};

/// How many chunks are asked for at once.
const AT_ONCE: u64 = 32;
/// How many bytes of log are expected of them at most, by those before.
const AHEAD_BYTES: u64 = 32 << 20;

/// A walk over a journal's chunks, newest first.
pub(super) struct Backwards<'a> {
    reader: &'a Reader,
    /// The number behind the next that is asked for.
    behind: u64,
    read: VecDeque<Result<Chunk, JournalError>>,
    given: u64,
    /// Bytes of log in those.
    bytes: u64,
}

impl<'a> Backwards<'a> {
    /// A walk that gives chunk `number` first.
    pub(super) fn from(reader: &'a Reader, number: Sequence) -> Self {
        Self { reader, behind: number.get().saturating_add(1), read: VecDeque::new(), given: 0, bytes: 0 }
    }

    /// The next chunk, where `left` bytes of log are still wanted; `None` before the first. Those behind one that does not read are not asked for.
    pub(super) async fn next(&mut self, left: u64) -> Option<Result<Chunk, JournalError>> {
        if self.read.is_empty() {
            let first = self.behind.saturating_sub(ahead(self.given, self.bytes, left));
            let asked =
                (first..self.behind).rev().map(|number| self.reader.expected_chunk(Sequence::new(number)));
            self.read = futures::future::join_all(asked).await.into();
            self.behind = first;
        }
        let next = self.read.pop_front()?;
        if let Ok(chunk) = &next {
            let header = chunk.header();
            self.given += 1;
            self.bytes += header.end.bytes_since(header.start).unwrap_or(0);
        }
        Some(next)
    }
}

/// How many chunks to ask for, of which `given` held `bytes` and `left` more are wanted.
fn ahead(given: u64, bytes: u64, left: u64) -> u64 {
    let each = (bytes / given.max(1)).max(1);
    let enough = left.div_ceil(each).min(AHEAD_BYTES / each);
    enough.min(2 * given).clamp(1, AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_what_came_before_promises() {
        // Chunks of 4 KiB, of which a log segment is thousands.
        let mut given = 0;
        let mut asked = Vec::new();
        while given < 200 {
            let next = ahead(given, given * 4096, (16 << 20) - given * 4096);
            asked.push(next);
            given += next;
        }
        assert_eq!(asked[..7], [1, 2, 6, 18, 32, 32, 32]);
        // Whole ones of 8 MiB: what is left, and never more than may be held.
        assert_eq!((ahead(1, 8 << 20, 9 << 20), ahead(2, 16 << 20, 1)), (2, 1));
        assert_eq!(ahead(8, 64 << 20, u64::MAX), 4);
        // Openings hold nothing.
        assert_eq!(ahead(3, 0, 1 << 20), 6);
    }
}
