//! The log's bytes in order, across the timelines of one history, from the chunks that hold them.
//!
//! What always holds: bytes are contiguous from the start that was asked for; where they are not to be had the stream ends
//! with a [`Gap`] and says why. Memory is bounded by the chunks fetched ahead.

use std::collections::VecDeque;

use bytes::Bytes;
use farshore_journal::format::Kind;
use farshore_journal::{JournalError, Offset, Position, Timeline};
use futures::stream::{BoxStream, StreamExt};

use crate::branches::{Branches, Stretch};
use crate::source::{Run, Source};

/// A piece of the log.
#[derive(Debug)]
pub(crate) struct Piece {
    pub start: Offset,
    pub bytes: Bytes,
}

/// Log that the journal does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub at: Position,
    pub end: Option<Offset>,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    Bytes(Piece),
    Gap(Gap),
    End,
}

/// The log of one history, being read.
pub(crate) struct LogReader {
    source: Source,
    branches: Branches,
    left: VecDeque<Stretch>,
    now: Option<(Stretch, BoxStream<'static, Result<Run, JournalError>>)>,
    cursor: Offset,
}

impl LogReader {
    /// Reads `timeline`'s history from `from` up to `until`, or as far as it is stored.
    pub fn new(
        source: &Source,
        branches: &Branches,
        timeline: Timeline,
        from: Offset,
        until: Option<Offset>,
    ) -> Self {
        Self {
            source: source.clone(),
            branches: branches.clone(),
            left: branches.stretches(timeline, from, until).into(),
            now: None,
            cursor: from,
        }
    }

    /// The next piece.
    pub async fn next(&mut self) -> Result<Next, JournalError> {
        loop {
            let Some((stretch, runs)) = &mut self.now else {
                let Some(stretch) = self.left.pop_front() else { return Ok(Next::End) };
                let reader = self.source.reader();
                let Some(first) = self.branches.chunk_behind(reader, &stretch.held, stretch.from).await?
                else {
                    return Ok(Next::Gap(Gap {
                        at: Position::new(stretch.held.timeline, self.cursor),
                        end: None,
                    }));
                };
                let runs = self.source.runs(first, stretch.held.last);
                self.now = Some((stretch, runs));
                continue;
            };
            if self.cursor >= stretch.to {
                self.now = None;
                continue;
            }
            let timeline = stretch.held.timeline;
            let gap = |end| Ok(Next::Gap(Gap { at: Position::new(timeline, self.cursor), end }));
            let Some(run) = runs.next().await else { return gap(None) };
            let run = run?;
            match run.header.kind {
                Kind::Data => {
                    if run.header.start > self.cursor {
                        return gap(Some(run.header.start));
                    }
                    let Some(piece) = cut(&run, self.cursor, stretch.to) else { continue };
                    let start = self.cursor;
                    let Some(end) = start.checked_add(piece.len() as u64) else { return gap(None) };
                    self.cursor = end;
                    return Ok(Next::Bytes(Piece { start, bytes: piece }));
                }
                Kind::Gap if run.header.end > self.cursor => return gap(Some(run.header.end)),
                _ => {}
            }
        }
    }
}

/// The bytes of a data chunk from `from` up to `to`; `None` when it has none of them.
fn cut(run: &Run, from: Offset, to: Offset) -> Option<Bytes> {
    let begin = usize::try_from(from.bytes_since(run.header.start)?).ok()?;
    let end = usize::try_from(to.min(run.header.end).bytes_since(run.header.start)?).ok()?;
    (begin < end && end <= run.plain.len()).then(|| run.plain.slice(begin..end))
}
