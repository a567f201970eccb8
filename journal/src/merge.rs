//! Merging chunks into segments, by the writer that has their plain bytes at hand.
//!
//! What always holds: only chunks that the journal confirmed are merged, only data chunks that follow one another, of one writer
//! and one timeline; nothing waits for a segment, and a run that could not be merged leaves its chunks as they are, valid for
//! ever. A segment was opened and compared before it is put. A crash leaves chunks that stay unmerged.
//! What it does not do: it deletes nothing ([`crate::tidy`] does).

use bytes::Bytes;

use crate::error::JournalError;
use crate::format::object::{ChainUse, Compression, Draft, Encoded, Framed, MAX_FRAME_BYTES};
use crate::format::pack::{Packed, Packer};
use crate::format::segment::{Merged, Table};
use crate::format::{DataKey, Decoded, FormatError, FrameHead, Header, Kind, Mark, Segment};
use crate::layout::Layout;
use crate::put::put;
use crate::segments::SegmentName;
use crate::store::{ObjectStore, StoreError};
use crate::writer::Place;

/// When a run of chunks becomes a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeLimits {
    /// Plain bytes of log from which on a run is merged: as much as one of PostgreSQL's log files.
    pub bytes: u64,
    /// Chunks from which on it is merged, whatever their bytes: a quiet database's run must end too, and its table fit a frame.
    pub chunks: usize,
    /// A run of fewer chunks is not worth an object of its own.
    pub fewest: usize,
    /// A chunk of this many plain bytes is large enough by itself, and ends a run: merging it would only write it twice.
    pub large: u64,
}

impl Default for MergeLimits {
    fn default() -> Self {
        Self { bytes: 16 << 20, chunks: 4096, fewest: 8, large: 1 << 20 }
    }
}

/// A chunk that the journal confirmed, with what merging it needs.
#[derive(Debug)]
pub struct Confirmed {
    header: Header,
    heads: Vec<FrameHead>,
    log: Vec<Bytes>,
    compression: Compression,
    key: Option<DataKey>,
}

impl Confirmed {
    /// Of a data chunk that was encoded for `place` from these plain bytes, in pieces, and confirmed.
    pub fn new(place: &Place, chunk: &Encoded, log: Vec<Bytes>) -> Self {
        Self {
            header: chunk.header.clone(),
            heads: chunk.heads.clone(),
            log,
            compression: place.compression(),
            key: place.key().cloned(),
        }
    }
}

/// Gathers confirmed chunks. Holds at most [`MergeLimits::bytes`] of log, or [`MergeLimits::fewest`] chunks, and one chunk more.
#[derive(Debug)]
pub struct Merger {
    limits: MergeLimits,
    run: Option<Run>,
}

/// Chunks in order that may become one segment.
#[derive(Debug)]
struct Run {
    first: Header,
    last: Header,
    table: Table,
    logs: Vec<Bytes>,
    bytes: u64,
    compression: Compression,
    key: Option<DataKey>,
}

impl Merger {
    /// An empty one.
    pub fn new(limits: MergeLimits) -> Self {
        Self { limits, run: None }
    }

    /// Takes in a chunk. What is given back is ready to be merged. One that does not continue the chunk before it, as when chunks
    /// between were not told of, begins a new run.
    pub fn add(&mut self, chunk: Confirmed) -> Option<Ready> {
        let header = &chunk.header;
        if header.kind != Kind::Data || header.plain_bytes >= self.limits.large {
            return self.close();
        }
        let continues = self.run.as_ref().is_none_or(|run| run.continues(&chunk));
        let closed = if continues { None } else { self.close() };
        let run = self.run.get_or_insert_with(|| Run {
            first: header.clone(),
            last: header.clone(),
            table: Table::default(),
            logs: Vec::new(),
            bytes: 0,
            compression: chunk.compression,
            key: chunk.key,
        });
        run.table.chunks.push(Merged {
            written_at: header.written_at,
            frames: header.frames,
            mark: header.mark,
        });
        run.table.frames.extend(chunk.heads.iter().map(|head| (head.plain_bytes, head.digest)));
        run.bytes += header.plain_bytes;
        run.logs.extend(chunk.log);
        run.last = chunk.header;
        // Large enough, and of enough chunks to be worth an object: few large chunks go on until there are.
        let chunks = run.table.chunks.len();
        let full =
            chunks >= self.limits.chunks || (run.bytes >= self.limits.bytes && chunks >= self.limits.fewest);
        closed.or_else(|| if full { self.close() } else { None })
    }

    /// Ends the run: because a chunk that is no data follows, or the writer stops.
    pub fn close(&mut self) -> Option<Ready> {
        let run = self.run.take()?;
        (run.table.chunks.len() >= self.limits.fewest.max(2)).then_some(Ready(run))
    }
}

/// A run that is worth a segment.
#[derive(Debug)]
pub struct Ready(Run);

impl Ready {
    /// How many chunks it merges.
    pub fn chunks(&self) -> usize {
        self.0.table.chunks.len()
    }

    /// Makes the segment's object, and opens it again to see that it holds what was merged. Takes a core for as long as
    /// compression takes.
    ///
    /// # Errors
    /// [`JournalError::Encode`] when the run does not fit the format or does not read back.
    pub fn encode(self) -> Result<SegmentObject, JournalError> {
        self.0.encode().map_err(|source| JournalError::Encode { what: "segment", source })
    }
}

impl Run {
    fn continues(&self, chunk: &Confirmed) -> bool {
        let header = &chunk.header;
        let frames = self.table.frames.len() + chunk.heads.len();
        self.last.number.next() == Some(header.number)
            && self.last.after == header.before
            && self.last.link() == header.link()
            && self.last.end == header.start
            && Table::bytes(self.table.chunks.len() + 1, frames) <= MAX_FRAME_BYTES
    }

    fn encode(self) -> Result<SegmentObject, FormatError> {
        let table = Packed::open(&self.table.encode())?;
        let lengths = self.table.frames.iter().map(|(plain_bytes, _)| *plain_bytes as usize);
        let mut end = self.first.start.get();
        let mut frames = vec![Framed { end, packed: table }];
        let mut packer = Packer::new(self.compression)?;
        for plain in gathered(self.logs, groups(lengths)) {
            end += plain.len() as u64;
            frames.push(Framed { end, packed: packer.pack(&plain)? });
        }
        let draft = Draft {
            kind: Kind::Segment,
            store: self.first.store,
            incarnation: self.first.incarnation,
            number: self.first.number,
            generation: self.first.generation,
            writer: self.first.writer,
            timeline: self.first.timeline,
            start: self.first.start,
            end: self.last.end,
            written_at: self.last.written_at,
            chain: ChainUse::Stated { before: self.first.before, after: self.last.after },
            mark: Mark::NONE,
        };
        let Encoded { bytes, .. } = draft.assemble(frames, self.compression.codec(), self.key.as_ref())?;
        // Chunks will be deleted on this object's word: it is opened as a reader would.
        let segment = Segment::parse(Decoded::parse(bytes.clone())?)?;
        segment.check_content(self.key.as_ref())?;
        Ok(SegmentObject { name: SegmentName::of(segment.outline()), bytes })
    }
}

/// How many bytes each of the object's frames takes: whole merged frames, as many as fit.
fn groups(frames: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut groups: Vec<usize> = Vec::new();
    for frame in frames {
        match groups.last_mut() {
            Some(group) if *group + frame <= MAX_FRAME_BYTES => *group += frame,
            _ => groups.push(frame),
        }
    }
    groups
}

/// The logs' bytes in pieces of these lengths. Each log is let go of as it is taken in: a run is never held twice.
fn gathered(logs: Vec<Bytes>, groups: Vec<usize>) -> impl Iterator<Item = Vec<u8>> {
    let mut logs = logs.into_iter();
    let mut log = Bytes::new();
    let piece = move |length: usize| {
        let mut piece = Vec::with_capacity(length);
        while piece.len() < length {
            if log.is_empty() {
                log = logs.next()?;
            }
            piece.extend_from_slice(&log.split_to(log.len().min(length - piece.len())));
        }
        Some(piece)
    };
    // A run whose lengths and bytes do not agree gives fewer pieces, and does not read back.
    groups.into_iter().map_while(piece)
}

/// A segment's object, ready to be put.
#[derive(Debug, Clone)]
pub struct SegmentObject {
    /// Its name.
    pub name: SegmentName,
    /// All its bytes.
    pub bytes: Bytes,
}

impl SegmentObject {
    /// Puts it. On `Ok` it is durable. Failures that waiting mends are waited out, `trouble` being told: nothing waits for a
    /// segment.
    ///
    /// # Errors
    /// Failures of the store that waiting does not mend; [`JournalError::Another`] when other bytes have its name.
    ///
    /// # Cancel safety
    /// Dropped midway, the segment may or may not stand. If it does, it holds.
    pub async fn put(
        &self,
        store: &dyn ObjectStore,
        layout: &Layout,
        trouble: &(dyn Fn(&StoreError) + Send + Sync),
    ) -> Result<(), JournalError> {
        put(store, &layout.segment(&self.name)?, &self.bytes, trouble).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn groups_hold_every_frame_whole_and_fit_an_objects_frame(
            frames in prop::collection::vec(1..=MAX_FRAME_BYTES, 1..40),
        ) {
            let groups = groups(frames.iter().copied());
            prop_assert_eq!(groups.iter().sum::<usize>(), frames.iter().sum::<usize>());
            prop_assert!(groups.iter().all(|group| *group <= MAX_FRAME_BYTES));
            let mut at = 0;
            let ends: Vec<usize> = frames.iter().map(|frame| { at += frame; at }).collect();
            let mut at = 0;
            for group in groups {
                at += group;
                prop_assert!(ends.contains(&at), "a frame is cut at {}", at);
            }
        }
    }
}
