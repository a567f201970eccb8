//! The log's bytes in order, across the timelines of one history, from the chunks that hold them.
//!
//! What always holds: bytes are contiguous from the start that was asked for, or from where [`LogReader::skip`] went on; where
//! they are not to be had the stream ends with a [`Gap`] and says why. Memory is bounded by what [`Ahead`] holds.

use std::collections::VecDeque;

use bytes::Bytes;
use farshore_journal::format::{ChainValue, Header, Kind};
use farshore_journal::index::Indexed;
use farshore_journal::{Generation, JournalError, Offset, Position, Sequence, Timeline, WriterId};

use crate::ahead::{Ahead, Frames};
use crate::branches::{Branches, Stretch};
use crate::source::Source;

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
    /// A chunk without log: reading may stand at a [`Border`] now.
    Passed,
    Gap(Gap),
    /// The journal behind what was skipped is not what the index spoke of.
    Misled,
    End,
}

/// Where one chunk ends and the next begins, with all log up to here taken or skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Border {
    pub timeline: Timeline,
    pub offset: Offset,
    /// The chunk behind it.
    pub next: Sequence,
    /// The chain value between them.
    pub chain: ChainValue,
    /// Who wrote the one before, and so the log behind it: whoever takes over begins with an opening, which holds no log.
    pub generation: Generation,
    pub writer: WriterId,
    /// The last chunk on the timeline, and the end of what is read of it.
    pub last: Sequence,
    pub until: Offset,
}

/// The stretch that is being read.
struct Now {
    stretch: Stretch,
    /// The first chunk that has log of it.
    first: Sequence,
    chunks: Ahead,
    frames: Option<Frames>,
    border: Option<Border>,
    /// What was skipped to here: the chunk that must end with this chain value.
    skipped: Option<(Sequence, ChainValue)>,
    /// Nothing was read since it was skipped.
    at_skip: bool,
}

/// The log of one history, being read.
pub(crate) struct LogReader {
    source: Source,
    branches: Branches,
    left: VecDeque<Stretch>,
    now: Option<Now>,
    cursor: Offset,
    /// The last chunk that whoever reads has taken from another reader: this one goes on behind it.
    former: Option<Header>,
    /// The last chunk that was read.
    last: Option<Header>,
}

/// So many chunks without log are read to come from one that was read before to the next that has some.
const BETWEEN: u64 = 1000;

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
            former: None,
            last: None,
        }
    }

    /// Goes on behind this chunk, from its end or from within it: by the chain, so that no log of another history is read behind it, wherever in the store it lies.
    pub fn following(self, former: Option<Header>) -> Self {
        Self { former, ..self }
    }

    /// The last chunk that was read, of whatever kind.
    pub fn last_read(&self) -> Option<&Header> {
        self.last.as_ref()
    }

    /// Where the next piece begins.
    pub fn cursor(&self) -> Offset {
        self.cursor
    }

    /// The next piece.
    pub async fn next(&mut self) -> Result<Next, JournalError> {
        loop {
            let Some(now) = &mut self.now else {
                let Some(stretch) = self.left.pop_front() else { return Ok(Next::End) };
                let reader = self.source.reader();
                let Some(first) = self.branches.chunk_behind(reader, &stretch.held, stretch.from).await?
                else {
                    return Ok(Next::Gap(Gap {
                        at: Position::new(stretch.held.timeline, self.cursor),
                        end: None,
                    }));
                };
                // Where that lies further back, the chain leads from there; where it is read anew, it is to be the same.
                let chunks = match self.former.take_if(|former| former.number < first) {
                    Some(former) if first.get() - former.number.get() <= BETWEEN => {
                        Ahead::behind(&self.source, former, stretch.held.last)
                    }
                    _ => Ahead::new(&self.source, first, stretch.held.last),
                };
                self.now = Some(Now {
                    stretch,
                    first,
                    chunks,
                    frames: None,
                    border: None,
                    skipped: None,
                    at_skip: false,
                });
                continue;
            };
            if self.cursor >= now.stretch.to {
                self.now = None;
                continue;
            }
            if let Some(frames) = &mut now.frames {
                match frames.next().await? {
                    Some((start, plain)) => {
                        let Some(bytes) = cut(start, &plain, self.cursor, now.stretch.to) else { continue };
                        let start = self.cursor;
                        self.cursor = Offset::new(start.get().saturating_add(bytes.len() as u64));
                        return Ok(Next::Bytes(Piece { start, bytes }));
                    }
                    None => now.frames = None,
                }
                continue;
            }
            let timeline = now.stretch.held.timeline;
            let gap = |end| Ok(Next::Gap(Gap { at: Position::new(timeline, self.cursor), end }));
            let fetched = match now.chunks.next().await {
                Ok(Some(fetched)) => fetched,
                Ok(None) => return gap(None),
                // What expired is log that is not there, and is known to be.
                Err(JournalError::Expired { run, .. }) => return gap(Some(run.name.end)),
                Err(why) => return Err(why),
            };
            now.at_skip = false;
            let header = &fetched.header;
            if let Some(former) = self.former.take_if(|former| former.number <= header.number)
                && (former.number, former.after) != (header.number, header.after)
            {
                return Err(JournalError::Broken { before: former.number, at: header.number });
            }
            self.last = Some(header.clone());
            // It only leads there.
            if header.number < now.first {
                return Ok(Next::Passed);
            }
            if !now.is_as_skipped(header, self.cursor) {
                return Ok(Next::Misled);
            }
            now.border = header.number.next().map(|next| Border {
                timeline,
                offset: header.end,
                next,
                chain: header.after,
                generation: header.generation,
                writer: header.writer,
                last: now.stretch.held.last,
                until: now.stretch.to,
            });
            match header.kind {
                Kind::Data if header.start > self.cursor => return gap(Some(header.start)),
                Kind::Data => now.frames = Some(Frames::behind(&self.source, fetched, self.cursor)),
                Kind::Gap if header.end > self.cursor => return gap(Some(header.end)),
                _ => return Ok(Next::Passed),
            }
        }
    }

    /// The border that reading stands at, where all up to it was taken.
    pub fn border(&self) -> Option<&Border> {
        let now = self.now.as_ref()?;
        let border = now.border.as_ref()?;
        let stands_here = self.cursor == border.offset && now.skipped.is_none();
        (border.offset < now.stretch.to && (now.at_skip || stands_here)).then_some(border)
    }

    /// Goes on behind a run that begins at the [`border`](Self::border) and ends before what is read of its timeline does.
    pub fn skip(&mut self, over: &Indexed) {
        let Some(now) = &mut self.now else { return };
        let index = &over.index;
        now.border = index.last.next().map(|next| Border {
            timeline: over.header.timeline,
            offset: over.header.end,
            next,
            chain: over.header.after,
            generation: over.header.generation,
            writer: over.header.writer,
            last: now.stretch.held.last,
            until: now.stretch.to,
        });
        now.skipped = Some((index.last, over.header.after));
        now.at_skip = true;
        now.chunks = Ahead::new(&self.source, index.resume, now.stretch.held.last);
        now.frames = None;
        self.cursor = index.whole.to;
    }
}

impl Now {
    /// Whether a chunk is what an index said is here; always, when nothing was skipped.
    fn is_as_skipped(&mut self, header: &Header, cursor: Offset) -> bool {
        let Some((last, after)) = self.skipped else { return true };
        if header.number < last {
            return header.kind == Kind::Data && header.start <= cursor;
        }
        // From here on each chunk is checked to continue the one before it.
        self.skipped = None;
        match header.number == last {
            true => header.after == after && header.start <= cursor,
            false => header.before == after && last.next() == Some(header.number),
        }
    }
}

/// The bytes of a frame that begins at `start`, from `from` up to `to`; `None` when it has none of them.
fn cut(start: Offset, plain: &Bytes, from: Offset, to: Offset) -> Option<Bytes> {
    let begin = usize::try_from(from.bytes_since(start)?).ok()?;
    let end = usize::try_from(to.bytes_since(start)?).ok()?.min(plain.len());
    (begin < end).then(|| plain.slice(begin..end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{CHUNK, SEGMENT, founded, opened};

    /// Reads all that there is behind `from`; how much that was, and the last chunk.
    async fn read(
        source: &Source,
        from: u64,
        former: Option<Header>,
    ) -> Result<(u64, Option<Header>), JournalError> {
        let branches = Branches::read(source.reader()).await.unwrap().unwrap();
        let from = Offset::new(SEGMENT + from);
        let mut log = LogReader::new(source, &branches, Timeline::new(1), from, None).following(former);
        let mut bytes = 0;
        loop {
            match log.next().await? {
                Next::Bytes(piece) => bytes += piece.bytes.len() as u64,
                Next::Passed => {}
                Next::End => return Ok((bytes, log.last_read().cloned())),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_read_later_continues_what_was_read_before_and_a_store_that_was_put_back_is_found_out() {
        let (source, reader) = founded().await;
        opened(&reader, 3).await;
        let (bytes, former) = read(&source, 0, None).await.unwrap();
        assert_eq!(bytes, 3 * CHUNK);
        let former = former.unwrap();
        // Two take over, each with an opening that has no log.
        opened(&reader, 0).await;
        opened(&reader, 2).await;
        let (bytes, last) = read(&source, 3 * CHUNK, Some(former.clone())).await.unwrap();
        assert_eq!((bytes, last.unwrap().number), (2 * CHUNK, Sequence::new(former.number.get() + 4)));
        // From within the chunk that was read last, and from one before it.
        assert_eq!(read(&source, 250, Some(former.clone())).await.unwrap().0, 250);
        assert_eq!(read(&source, 50, Some(former.clone())).await.unwrap().0, 450);
        // Another journal's, at the same place.
        let (other, others) = founded().await;
        opened(&others, 1).await;
        opened(&others, 2).await;
        let stranger = read(&other, 0, None).await.unwrap().1.unwrap();
        let stranger = Header { number: former.number, ..stranger };
        for from in [3 * CHUNK, 250, 50] {
            let read = read(&source, from, Some(stranger.clone())).await;
            assert!(matches!(read, Err(JournalError::Broken { .. })), "{from}: {read:?}");
        }
    }
}
