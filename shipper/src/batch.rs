//! When received bytes become a chunk: at the flush interval, when they are many, or at once when the source goes quiet.
//!
//! Pure: the clock is passed in. Memory is bounded by [`Batch::is_full`]: the pipeline reads no more until a frame is packed or a
//! chunk is taken.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use farshore_journal::writer::frame_room;
use farshore_journal::{Offset, Position};

/// Most bytes of a chunk. All but the last of its frames wait packed.
pub const MAX_CHUNK_BYTES: usize = 8 << 20;
/// Bytes from which a chunk is worth sending before the interval is over: compression gains little beyond.
const WORTH_SENDING_BYTES: usize = 4 << 20;
/// Most plain bytes of an entry of a tail: more is as well a chunk.
const MAX_ENTRY_BYTES: usize = 256 << 10;
/// Whole frames that may wait for being packed.
const MAX_WHOLE: usize = 2;

/// Bytes that were received and are not yet in a chunk.
#[derive(Debug)]
pub struct Batch {
    start: Position,
    segment_bytes: u64,
    /// Frames that are whole and still plain.
    whole: VecDeque<Vec<u8>>,
    /// The frame being filled.
    filling: Vec<u8>,
    /// Plain bytes in all.
    bytes: usize,
    first_at: Option<Instant>,
    quiet: bool,
    /// Bytes from which it is a chunk.
    most: usize,
    /// Of those, how many are in the target's tail already: stored, and part of the chunk all the same.
    tailed: usize,
    /// And how many were handed to it.
    handed: usize,
    /// Whether frames of it were given out, whose plain bytes it has no more.
    was_given: bool,
}

impl Batch {
    /// Nothing yet, at this position of a source with such log segments.
    pub fn at(start: Position, segment_bytes: u64) -> Self {
        Self {
            start,
            segment_bytes,
            whole: VecDeque::new(),
            filling: Vec::new(),
            bytes: 0,
            first_at: None,
            quiet: false,
            most: MAX_CHUNK_BYTES,
            tailed: 0,
            handed: 0,
            was_given: false,
        }
    }

    /// Makes a chunk of fewer bytes, for a target that takes so many at a time; `None`: of as many as it can hold.
    pub fn narrow(&mut self, most: Option<u64>) {
        let most = most.and_then(|most| usize::try_from(most).ok());
        self.most = most.map_or(MAX_CHUNK_BYTES, |most| most.clamp(1, MAX_CHUNK_BYTES));
    }

    /// Where what waits begins.
    pub fn start(&self) -> Position {
        self.start
    }

    /// Where the next byte would stand.
    pub fn end(&self) -> Position {
        Position::new(self.start.timeline, Offset::new(self.start.offset.get() + self.bytes as u64))
    }

    /// Takes bytes that continue [`end`](Self::end); `quiet`: the source said that its log goes no further.
    pub fn push(&mut self, mut bytes: &[u8], quiet: bool, now: Instant) {
        if self.bytes == 0 {
            self.first_at = Some(now);
        }
        while !bytes.is_empty() {
            let begun = self.end().offset.get() - self.filling.len() as u64;
            let room = frame_room(Offset::new(begun), self.segment_bytes) - self.filling.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.filling.extend_from_slice(now);
            self.bytes += now.len();
            bytes = later;
            if now.len() == room {
                self.whole.push_back(std::mem::take(&mut self.filling));
            }
        }
        self.quiet = quiet;
    }

    /// The source said that its log goes no further than to here.
    pub fn rests_at(&mut self, source_end: Offset) {
        self.quiet |= source_end == self.end().offset;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether no more may be taken: until a chunk is taken, or a frame to be packed.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.most || self.whole.len() > MAX_WHOLE
    }

    /// Whether no more may be taken until a chunk is.
    pub fn is_chunk(&self) -> bool {
        self.bytes >= self.most
    }

    /// The next whole frame, to be packed before the chunk is due. None of a batch of less than `large` bytes: its chunk's plain
    /// bytes are wanted when it is merged.
    pub fn frame(&mut self, large: u64) -> Option<Vec<u8>> {
        let frame = if self.bytes as u64 >= large { self.whole.pop_front() } else { None };
        self.was_given |= frame.is_some();
        frame
    }

    /// Whether all of it is stored, or there is nothing.
    pub fn is_stored(&self) -> bool {
        self.tailed == self.bytes
    }

    /// What was not handed to the tail yet, if it may go there: where it begins, and how many bytes. Few, that have all stayed plain.
    pub fn for_tail(&self) -> Option<(Offset, usize)> {
        let fresh = self.bytes - self.handed;
        let goes = fresh > 0 && fresh <= MAX_ENTRY_BYTES && !self.was_given;
        goes.then(|| (Offset::new(self.start.offset.get() + self.handed as u64), fresh))
    }

    /// Whether all of it was handed to the tail.
    pub fn is_handed(&self) -> bool {
        self.handed == self.bytes
    }

    /// Hands out what was not handed to the tail yet, of what stayed plain.
    pub fn hand(&mut self) -> Vec<u8> {
        let (mut log, mut before) = (Vec::with_capacity(self.bytes - self.handed), self.handed);
        for frame in self.whole.iter().chain([&self.filling]) {
            let skipped = before.min(frame.len());
            log.extend_from_slice(&frame[skipped..]);
            before -= skipped;
        }
        self.handed = self.bytes;
        log
    }

    /// Everything up to `end` is in the tail.
    pub fn is_tailed(&mut self, end: Offset) {
        let tailed = end.get().saturating_sub(self.start.offset.get());
        self.tailed =
            usize::try_from(tailed).map_or(self.bytes, |tailed| tailed.min(self.bytes)).max(self.tailed);
    }

    /// When the chunk of what goes to a tail is due: nobody waits for it but whoever reads.
    pub fn due_behind_tail(&self, interval: Duration) -> Option<Instant> {
        let first_at = self.first_at?;
        let is_large = self.bytes >= WORTH_SENDING_BYTES.min(self.most);
        Some(if is_large { first_at } else { first_at + interval })
    }

    /// When a chunk is due at the latest; `None` while nothing waits. `last_sent` spaces chunks by the interval, so that a
    /// trickle does not become a chunk per message, while the first bytes after a pause go at once.
    pub fn due(&self, last_sent: Option<Instant>, interval: Duration) -> Option<Instant> {
        let first_at = self.first_at?;
        if self.bytes >= WORTH_SENDING_BYTES.min(self.most) {
            return Some(first_at);
        }
        let spaced = last_sent.map_or(first_at, |sent| sent + interval);
        match self.quiet {
            true => Some(spaced.max(first_at)),
            false => Some(spaced.max(first_at).max(first_at + interval / 4)),
        }
    }

    /// Takes what waits, and begins anew behind it: where the chunk begins, and its last frames, those that were not given out.
    pub fn take(&mut self) -> (Position, Vec<Vec<u8>>) {
        let behind = Self { most: self.most, ..Self::at(self.end(), self.segment_bytes) };
        let Self { start, whole, filling, .. } = std::mem::replace(self, behind);
        let filling = Some(filling).filter(|frame| !frame.is_empty());
        (start, whole.into_iter().chain(filling).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Timeline;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_millis(200);

    const SEGMENT: u64 = 16 << 20;

    fn batch() -> Batch {
        Batch::at(Position::new(Timeline::new(1), Offset::new(1000)), SEGMENT)
    }

    #[test]
    fn the_first_bytes_after_a_pause_go_at_once_when_the_source_is_quiet() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(&[1; 10], true, now);
        assert_eq!(batch.due(None, INTERVAL), Some(now));
        assert_eq!(batch.due(Some(now - INTERVAL), INTERVAL), Some(now));
    }

    #[test]
    fn a_source_that_says_later_that_it_rests_is_quiet_from_then_on() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(&[1; 10], false, now);
        batch.rests_at(Offset::new(1005));
        assert_eq!(batch.due(None, INTERVAL), Some(now + INTERVAL / 4));
        batch.rests_at(Offset::new(1010));
        assert_eq!(batch.due(None, INTERVAL), Some(now));
        batch.push(&[1; 10], false, now);
        assert_eq!(batch.due(None, INTERVAL), Some(now + INTERVAL / 4));
    }

    #[test]
    fn a_steady_trickle_makes_one_chunk_an_interval() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(&[1; 10], true, now);
        assert_eq!(batch.due(Some(now), INTERVAL), Some(now + INTERVAL));
    }

    #[test]
    fn many_bytes_go_without_waiting() {
        let now = Instant::now();
        let mut batch = batch();
        batch.push(&vec![1; WORTH_SENDING_BYTES], false, now);
        assert_eq!(batch.due(Some(now), INTERVAL), Some(now));
    }

    #[test]
    fn a_target_that_takes_few_bytes_at_a_time_gets_chunks_of_as_many() {
        let now = Instant::now();
        let mut batch = batch();
        batch.narrow(Some(100));
        batch.push(&[1; 99], false, now);
        assert!(!batch.is_full() && !batch.is_chunk());
        batch.push(&[1; 1], false, now);
        assert!(batch.is_full() && batch.is_chunk());
        assert_eq!(batch.due(Some(now), INTERVAL), Some(now), "more cannot come");
        batch.take();
        batch.push(&[1; 100], false, now);
        assert!(batch.is_chunk(), "the next one too");
        batch.narrow(None);
        assert!(!batch.is_full());
    }

    #[test]
    fn what_is_taken_is_continued_without_a_hole() {
        let mut batch = batch();
        batch.push(&[1; 10], true, Instant::now());
        let (start, frames) = batch.take();
        assert_eq!((start.offset, frames), (Offset::new(1000), vec![vec![1; 10]]));
        assert_eq!(batch.end().offset, Offset::new(1010));
        assert!(batch.is_empty() && batch.due(None, INTERVAL).is_none());
    }

    #[test]
    fn a_small_batch_stays_plain_for_its_merge() {
        let mut batch = Batch::at(Position::new(Timeline::new(1), Offset::new(SEGMENT - 10)), SEGMENT);
        batch.push(&[1; 30], false, Instant::now());
        assert_eq!(batch.frame(1 << 20), None);
        assert_eq!(batch.take().1, vec![vec![1; 10], vec![1; 20]]);
    }

    proptest! {
        // Frames are large, and so are cases.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the pieces that come and the moments at which frames are given out.
        #[test]
        fn frames_given_out_and_those_taken_are_the_bytes_in_order(
            start in 0..SEGMENT, pieces in prop::collection::vec((1..3_000_000usize, 0..3usize), 1..8),
        ) {
            let mut batch = Batch::at(Position::new(Timeline::new(1), Offset::new(start)), SEGMENT);
            let (mut came, mut frames) = (Vec::new(), Vec::new());
            for (number, (bytes, given)) in pieces.into_iter().enumerate() {
                let piece: Vec<u8> = (0..bytes).map(|at| (at * (number + 3)) as u8).collect();
                batch.push(&piece, false, Instant::now());
                came.extend(piece);
                frames.extend((0..given).map_while(|_| batch.frame(1 << 20)));
            }
            let (from, rest) = batch.take();
            prop_assert_eq!(from.offset.get(), start);
            frames.extend(rest);
            let mut at = start;
            for frame in &frames {
                prop_assert!(frame.len() <= frame_room(Offset::new(at), SEGMENT));
                at += frame.len() as u64;
            }
            prop_assert_eq!(batch.end().offset.get(), at);
            prop_assert!(frames.concat() == came);
        }
    }
}
