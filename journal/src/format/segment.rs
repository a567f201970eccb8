//! Segments: a run of data chunks of one writer merged into one object, with a table that says which chunks they were.
//!
//! ```text
//!  frame 0, the table, never compressed or sealed; its head states the range's start as its end
//!    offset  size  field
//!         0     4  merged chunks, n
//!         4   28n  for each: written at (8), frames (4), mark (16)
//!   4 + 28n  36m  for each of all their m frames, in order: plain bytes (4), BLAKE3 of the plain bytes (32)
//!  frames 1, 2, ...: the log's bytes, each frame a whole number of the merged chunks' frames, its end a log offset
//! ```
//!
//! What always holds of a [`Segment`]: from its header and table every merged chunk's header follows, and the chain over them
//! leads from the header's value before to its value after. So a reader is given the chunks as they were, whatever became of
//! their objects. Memory is bounded by the bytes at hand.
//! Source: `FORMAT.md` section 9.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::FormatError;
use super::chain::Digest;
use super::crypt::DataKey;
use super::header::{HEADER_BYTES, Header, Kind, MAX_FRAMES};
use super::mark::{MARK_BYTES, Mark};
use super::object::{Decoded, FRAME_HEAD_BYTES, FrameHead, MAX_FRAME_BYTES, chain_over};
use crate::identity::Sequence;
use crate::position::Offset;

/// Bytes of the table before its entries.
const TABLE_HEAD_BYTES: usize = 4;
/// Bytes of a merged chunk's entry.
const CHUNK_BYTES: usize = 28;
/// Bytes of a merged frame's entry.
const FRAME_BYTES: usize = 36;

/// A merged chunk, as the table keeps it. All else about it follows from the header and the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Microseconds since 1970 UTC when the chunk was written. Information only.
    pub written_at: i64,
    /// Its frames.
    pub frames: u32,
    /// What the engine says of the position behind it.
    pub mark: Mark,
}

/// A segment's table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The merged chunks, in order.
    pub chunks: Vec<Merged>,
    /// The plain lengths and digests of all their frames, in order.
    pub frames: Vec<(u32, Digest)>,
}

impl Table {
    /// Bytes that a table of this many chunks and frames takes.
    pub fn bytes(chunks: usize, frames: usize) -> usize {
        TABLE_HEAD_BYTES + chunks * CHUNK_BYTES + frames * FRAME_BYTES
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::bytes(self.chunks.len(), self.frames.len()));
        out.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.written_at.to_le_bytes());
            out.extend_from_slice(&chunk.frames.to_le_bytes());
            out.extend_from_slice(chunk.mark.as_bytes());
        }
        for (plain_bytes, digest) in &self.frames {
            out.extend_from_slice(&plain_bytes.to_le_bytes());
            out.extend_from_slice(digest.as_bytes());
        }
        out
    }

    /// Reads a table, to its last byte.
    ///
    /// # Errors
    /// [`FormatError::Field`] when its lengths do not fit together.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let wrong = FormatError::Field { field: "table" };
        let (count, rest) = bytes.split_first_chunk::<TABLE_HEAD_BYTES>().ok_or(wrong.clone())?;
        let count = u32::from_le_bytes(*count) as usize;
        let chunk_bytes = count.checked_mul(CHUNK_BYTES).filter(|n| *n <= rest.len()).ok_or(wrong.clone())?;
        let (raw_chunks, raw_frames) = rest.split_at(chunk_bytes);
        let (raw_chunks, []) = raw_chunks.as_chunks::<CHUNK_BYTES>() else { return Err(wrong) };
        let (raw_frames, []) = raw_frames.as_chunks::<FRAME_BYTES>() else { return Err(wrong) };
        let chunks: Vec<Merged> = raw_chunks
            .iter()
            .map(|raw| {
                let (mut written_at, mut frames, mut mark) = ([0; 8], [0; 4], [0; MARK_BYTES]);
                written_at.copy_from_slice(&raw[..8]);
                frames.copy_from_slice(&raw[8..12]);
                mark.copy_from_slice(&raw[12..]);
                Merged {
                    written_at: i64::from_le_bytes(written_at),
                    frames: u32::from_le_bytes(frames),
                    mark: Mark::from_bytes(mark),
                }
            })
            .collect();
        let frames: Vec<(u32, Digest)> = raw_frames
            .iter()
            .map(|raw| {
                let (mut plain_bytes, mut digest) = ([0; 4], [0; 32]);
                plain_bytes.copy_from_slice(&raw[..4]);
                digest.copy_from_slice(&raw[4..]);
                (u32::from_le_bytes(plain_bytes), Digest::from_bytes(digest))
            })
            .collect();
        let counted: u64 = chunks.iter().map(|chunk| u64::from(chunk.frames)).sum();
        let in_bounds = chunks.iter().all(|chunk| (1..=MAX_FRAMES).contains(&chunk.frames))
            && frames.iter().all(|(plain, _)| (1..=MAX_FRAME_BYTES).contains(&(*plain as usize)));
        match counted == frames.len() as u64 && in_bounds && chunks.len() >= 2 {
            true => Ok(Self { chunks, frames }),
            false => Err(wrong),
        }
    }
}

/// A segment's header and the headers of its chunks: what can be said of it without its log bytes.
#[derive(Debug, Clone)]
pub struct Outline {
    header: Header,
    chunks: Vec<Header>,
    /// The merged chunks' frames, in order. Their stored length is zero: nothing is stored of them alone.
    frames: Vec<FrameHead>,
    /// Where each chunk's frames begin in `frames`, and behind the last where they end.
    firsts: Vec<usize>,
}

impl Outline {
    /// How many of an object's first bytes [`read`](Self::read) needs, as far as these say: a header and the first frame's
    /// head tell the table's length.
    ///
    /// # Errors
    /// [`FormatError`] when they are not a segment's.
    pub fn bytes_wanted(first: &[u8]) -> Result<usize, FormatError> {
        Header::decode(first).and_then(segment_only)?;
        let Some(raw) = first.get(HEADER_BYTES..).and_then(|rest| rest.first_chunk::<FRAME_HEAD_BYTES>())
        else {
            return Ok(HEADER_BYTES + FRAME_HEAD_BYTES);
        };
        let table = FrameHead::decode(raw)?;
        Ok(HEADER_BYTES + FRAME_HEAD_BYTES + table.stored_bytes as usize)
    }

    /// Reads the outline from at least [`bytes_wanted`](Self::bytes_wanted) of an object's first bytes. What it says is
    /// bound by the chain; the log's bytes behind it were not looked at.
    ///
    /// # Errors
    /// [`FormatError`] when bytes are missing, or the table does not lead to the chain value that the header states.
    pub fn read(first: &[u8]) -> Result<Self, FormatError> {
        let header = Header::decode(first).and_then(segment_only)?;
        let want = Self::bytes_wanted(first)?;
        let begin = HEADER_BYTES + FRAME_HEAD_BYTES;
        let Some(table) = first.get(begin..want) else {
            return Err(FormatError::Cut { have: first.len() as u64, want: want as u64 });
        };
        Self::of(header, table)
    }

    fn of(header: Header, table: &[u8]) -> Result<Self, FormatError> {
        let table_bytes = table.len() as u64;
        let table = Table::decode(table)?;
        let wrong = || FormatError::Field { field: "table" };
        if header.end.bytes_since(header.start).and_then(|range| range.checked_add(table_bytes))
            != Some(header.plain_bytes)
        {
            return Err(wrong());
        }
        let mut frames = Vec::with_capacity(table.frames.len());
        let mut end = header.start;
        for (plain_bytes, digest) in &table.frames {
            end = end.checked_add(u64::from(*plain_bytes)).ok_or_else(wrong)?;
            frames.push(FrameHead {
                plain_bytes: *plain_bytes,
                stored_bytes: 0,
                end: end.get(),
                digest: *digest,
            });
        }
        let mut chunks: Vec<Header> = Vec::with_capacity(table.chunks.len());
        let mut firsts = vec![0];
        let mut first = 0;
        let (mut number, mut start, mut before) = (header.number, header.start, header.before);
        for merged in &table.chunks {
            let behind = first + merged.frames as usize;
            let own = frames.get(first..behind).ok_or_else(wrong)?;
            let end = own.last().map_or(start, |frame| Offset::new(frame.end));
            let mut chunk = Header {
                kind: Kind::Data,
                number,
                frames: merged.frames,
                start,
                end,
                plain_bytes: own.iter().map(|frame| u64::from(frame.plain_bytes)).sum(),
                frames_bytes: 0,
                written_at: merged.written_at,
                before,
                mark: merged.mark,
                ..header.clone()
            };
            chunk.after = chain_over(chunk.link(), before, start..end, own, merged.mark)?;
            (start, before) = (end, chunk.after);
            number = number.next().ok_or_else(wrong)?;
            first = behind;
            firsts.push(first);
            chunks.push(chunk);
        }
        match before == header.after && start == header.end {
            true => Ok(Self { header, chunks, frames, firsts }),
            false => Err(FormatError::Chain),
        }
    }

    /// The segment's own header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The headers of its chunks, in order; their object lengths mean nothing.
    pub fn chunks(&self) -> &[Header] {
        &self.chunks
    }

    /// The last chunk's number.
    pub fn last(&self) -> Sequence {
        self.chunks.last().map_or(self.header.number, |chunk| chunk.number)
    }

    /// Which of its chunks has this number.
    pub fn position(&self, number: Sequence) -> Option<usize> {
        let which = usize::try_from(number.get().checked_sub(self.header.number.get())?).ok()?;
        (which < self.chunks.len()).then_some(which)
    }

    fn frames_of(&self, which: usize) -> Range<usize> {
        match (self.firsts.get(which), self.firsts.get(which + 1)) {
            (Some(first), Some(behind)) => *first..*behind,
            _ => 0..0,
        }
    }

    /// The frame heads of a chunk.
    pub fn heads(&self, which: usize) -> &[FrameHead] {
        &self.frames[self.frames_of(which)]
    }
}

fn segment_only(header: Header) -> Result<Header, FormatError> {
    match header.kind {
        Kind::Segment => Ok(header),
        _ => Err(FormatError::Field { field: "kind" }),
    }
}

/// A segment, whole in everything that can be checked without a key.
#[derive(Debug)]
pub struct Segment {
    object: Decoded,
    outline: Outline,
    /// For each merged frame, the object's frame that holds it and where in that one's plain bytes it begins.
    places: Vec<(usize, usize)>,
    /// The object's frame that was opened last: chunks follow one another, and one frame holds many.
    opened: Mutex<Option<(usize, Bytes)>>,
}

impl Segment {
    /// Takes a segment's object apart.
    ///
    /// # Errors
    /// [`FormatError`] when it is none, its table does not lead to the chain value that its header states, or its frames do
    /// not hold whole merged frames.
    pub fn parse(object: Decoded) -> Result<Self, FormatError> {
        let header = segment_only(object.header().clone())?;
        let table = object.plain(0, None)?;
        let outline = Outline::of(header, &table)?;
        if object.heads().first().map(|head| head.end) != Some(outline.header.start.get()) {
            return Err(FormatError::Field { field: "end" });
        }
        let mut places = Vec::with_capacity(outline.frames.len());
        let mut merged = outline.frames.iter();
        let mut begin = outline.header.start.get();
        for (number, holder) in object.heads().iter().enumerate().skip(1) {
            let mut at = 0;
            while at < holder.plain_bytes as usize {
                let frame = merged.next().ok_or(FormatError::Field { field: "end" })?;
                places.push((number, at));
                at += frame.plain_bytes as usize;
            }
            begin += u64::from(holder.plain_bytes);
            if at != holder.plain_bytes as usize || holder.end != begin {
                return Err(FormatError::Field { field: "end" });
            }
        }
        match merged.next() {
            None => Ok(Self { object, outline, places, opened: Mutex::default() }),
            Some(_) => Err(FormatError::Field { field: "end" }),
        }
    }

    /// Its header, and those of its chunks.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// The bytes of its object.
    pub fn object_bytes(&self) -> u64 {
        self.object.header().object_bytes()
    }

    /// One frame of one of its chunks, checked against its own digest.
    ///
    /// # Errors
    /// As [`Decoded::plain`]; the frame is named by its number in its chunk.
    pub fn plain(&self, which: usize, frame: usize, key: Option<&DataKey>) -> Result<Bytes, FormatError> {
        let none = FormatError::Field { field: "frames" };
        let range = self.outline.frames_of(which);
        let at = range.start.checked_add(frame).filter(|at| range.contains(at)).ok_or(none.clone())?;
        let (Some(head), Some((holder, begin))) = (self.outline.frames.get(at), self.places.get(at)) else {
            return Err(none);
        };
        let opened = self.open(*holder, key)?;
        let plain = opened.slice(*begin..*begin + head.plain_bytes as usize);
        match Digest::of(&plain) == head.digest {
            true => Ok(plain),
            false => Err(FormatError::FrameDigest { frame: frame as u32 }),
        }
    }

    /// Opens one of the object's frames. The lock is held meanwhile: whoever else wants a chunk of this frame waits for it
    /// instead of opening it again.
    fn open(&self, holder: usize, key: Option<&DataKey>) -> Result<Bytes, FormatError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, bytes)) = &*opened
            && *number == holder
        {
            return Ok(bytes.clone());
        }
        let bytes = self.object.plain(holder, key)?;
        *opened = Some((holder, bytes.clone()));
        Ok(bytes)
    }

    /// Opens every frame of every chunk.
    ///
    /// # Errors
    /// As [`plain`](Self::plain), for the first that does not hold.
    pub fn check_content(&self, key: Option<&DataKey>) -> Result<(), FormatError> {
        for which in 0..self.outline.chunks.len() {
            for frame in 0..self.outline.heads(which).len() {
                self.plain(which, frame, key)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Table::decode(&bytes);
            let _ = Outline::read(&bytes);
        }

        #[test]
        fn a_table_reads_back_as_it_was_written(frames in prop::collection::vec(1..4u32, 2..20)) {
            let all = frames.iter().sum::<u32>();
            let table = Table {
                chunks: frames.iter().map(|frames| Merged { written_at: 7, frames: *frames, mark: Mark::from_bytes([*frames as u8; MARK_BYTES]) }).collect(),
                frames: (0..all).map(|n| (n + 1, Digest::of(&n.to_le_bytes()))).collect(),
            };
            let bytes = table.encode();
            prop_assert_eq!(bytes.len(), Table::bytes(table.chunks.len(), table.frames.len()));
            prop_assert_eq!(Table::decode(&bytes).unwrap(), table);
            prop_assert!(Table::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
