//! When received bytes become a chunk: at the flush interval, when they are many, or at once when the source goes quiet.
//!
//! Pure: the clock is passed in. Memory is bounded by [`Batch::is_full`]: the pipeline reads no more until a chunk is taken.

use std::time::{Duration, Instant};

use farshore_journal::{Offset, Position};

/// Most bytes of a chunk: with one chunk gathering, one being encoded and its encoding, a pipeline stays below 45 MiB.
pub const MAX_CHUNK_BYTES: usize = 8 << 20;
/// Bytes from which a chunk is worth sending before the interval is over: compression gains little beyond.
const WORTH_SENDING_BYTES: usize = 4 << 20;

/// Bytes that were received and are not yet in a chunk.
#[derive(Debug)]
pub struct Batch {
    start: Position,
    bytes: Vec<u8>,
    first_at: Option<Instant>,
    quiet: bool,
}

impl Batch {
    /// Nothing yet, at this position.
    pub fn at(start: Position) -> Self {
        Self { start, bytes: Vec::new(), first_at: None, quiet: false }
    }

    /// Where the next byte would stand.
    pub fn end(&self) -> Position {
        Position::new(self.start.timeline, Offset::new(self.start.offset.get() + self.bytes.len() as u64))
    }

    /// Takes bytes that continue [`end`](Self::end); `source_end` is how far the source said its log went.
    pub fn push(&mut self, bytes: &[u8], source_end: Offset, now: Instant) {
        if self.bytes.is_empty() {
            self.first_at = Some(now);
        }
        self.bytes.extend_from_slice(bytes);
        self.quiet = source_end <= self.end().offset;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether no more may be taken.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_CHUNK_BYTES
    }

    /// When a chunk is due at the latest; `None` while nothing waits. `last_sent` spaces chunks by the interval, so that a
    /// trickle does not become a chunk per message, while the first bytes after a pause go at once.
    pub fn due(&self, last_sent: Option<Instant>, interval: Duration) -> Option<Instant> {
        let first_at = self.first_at?;
        if self.bytes.len() >= WORTH_SENDING_BYTES {
            return Some(first_at);
        }
        let spaced = last_sent.map_or(first_at, |sent| sent + interval);
        match self.quiet {
            true => Some(spaced.max(first_at)),
            false => Some(spaced.max(first_at).max(first_at + interval / 4)),
        }
    }

    /// Takes what waits, and begins anew behind it.
    pub fn take(&mut self) -> (Position, Vec<u8>) {
        let end = self.end();
        let start = std::mem::replace(&mut self.start, end);
        self.first_at = None;
        self.quiet = false;
        (start, std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Timeline;

    const INTERVAL: Duration = Duration::from_millis(200);

    fn batch() -> Batch {
        Batch::at(Position::new(Timeline::new(1), Offset::new(1000)))
    }

    #[test]
    fn the_first_bytes_after_a_pause_go_at_once_when_the_source_is_quiet() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(&[1; 10], Offset::new(1010), now);
        assert_eq!(batch.due(None, INTERVAL), Some(now));
        assert_eq!(batch.due(Some(now - INTERVAL), INTERVAL), Some(now));
    }

    #[test]
    fn a_steady_trickle_makes_one_chunk_an_interval() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(&[1; 10], Offset::new(1010), now);
        assert_eq!(batch.due(Some(now), INTERVAL), Some(now + INTERVAL));
    }

    #[test]
    fn many_bytes_go_without_waiting() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(&vec![1; WORTH_SENDING_BYTES], Offset::new(u64::MAX), now);
        assert_eq!(batch.due(Some(now), INTERVAL), Some(now));
    }

    #[test]
    fn what_is_taken_is_continued_without_a_hole() {
        let mut batch = batch();
        batch.push(&[1; 10], Offset::new(1010), Instant::now());
        let (start, bytes) = batch.take();
        assert_eq!((start.offset, bytes.len()), (Offset::new(1000), 10));
        assert_eq!(batch.end().offset, Offset::new(1010));
        assert!(batch.is_empty() && batch.due(None, INTERVAL).is_none());
    }
}
