//! Identity is bytes: what the source sends again is compared with what is stored, before anything is appended to it.
//!
//! The comparison runs over the frames of the journal's last log segment, whose digests stand in the chunks' heads and are
//! readable without a private key. No frame crosses a log segment's boundary, so the frames begin where the source is
//! asked to begin. Where a source cannot be asked for a position, it is asked for what a chunk's mark says of its end, and the frames
//! behind the last marked chunk are compared: none, as a rule, since a source with marks proves its continuity itself.

mod backwards;

use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_journal::format::{Digest, Header, Kind, Mark};
use farshore_journal::reader::Reader;
use farshore_journal::{JournalError, Offset, Position, Sequence, Timeline};

use self::backwards::Backwards;
use crate::error::ShipError;

/// At least so many bytes of the journal's end are compared where it holds them: a source that diverged earlier differs in them,
/// since every page's head and every record's link to the one before are in it. The least log segment has this size.
pub const COMPARED_BYTES: u64 = 1 << 20;

/// From where the log must still be at the source, for a journal that ends at `end` to be resumed: the keep slot never moves
/// beyond it.
pub fn compare_floor(end: Offset, segment_bytes: u64) -> Offset {
    Offset::new(end.get().saturating_sub(COMPARED_BYTES)).segment_start(segment_bytes)
}

/// A stored frame: its range and the digest of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredFrame {
    /// First byte.
    pub start: Offset,
    /// First byte behind it.
    pub end: Offset,
    /// BLAKE3 of the bytes.
    pub digest: Digest,
}

/// The journal's end, as far as resuming needs it.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The last chunk's number.
    pub last: Sequence,
    /// The chunk that holds the first of the frames; the last one when there are none.
    pub first: Sequence,
    /// Where the journal ends.
    pub end: Position,
    /// The history of its timeline.
    pub history: TimelineHistory,
    /// The stored frames from [`compare_from`](Self::compare_from) to the end, without a hole.
    pub frames: Vec<StoredFrame>,
    /// Whether the frames begin behind a fork or a gap: there may be none then, and none before could be asked for.
    pub behind_a_break: bool,
    /// Whether the journal was opened on a later timeline and its owner died before it recorded that timeline's history.
    /// `history` means nothing then.
    pub lacks_history: bool,
    /// What the chunk that ends where comparing begins says of that end.
    pub mark: Mark,
}

impl Tail {
    /// Whether there is anything to know this journal's source by: bytes, or at least that the journal holds none.
    pub fn can_be_compared(&self) -> bool {
        !self.frames.is_empty() || self.behind_a_break
    }

    /// Where the source is to begin, so that everything up to the end can be compared.
    pub fn compare_from(&self) -> Position {
        Position::new(self.end.timeline, self.frames.first().map_or(self.end.offset, |frame| frame.start))
    }
}

/// Reads the journal's end, for a shipper of this host; `None` while the journal is empty.
///
/// # Errors
/// When the journal does not read.
pub async fn tail(reader: &Reader, segment_bytes: u64, host: &str) -> Result<Option<Tail>, ShipError> {
    let Some(last) = reader.last_to_own(host).await? else { return Ok(None) };
    let end = last.header().end_position();
    let number = last.header().number;
    let floor = Floor::At(compare_floor(end.offset, segment_bytes));
    let found = walk_back(reader, last.header().number, end, floor).await?;
    let lacks_history = found.only_openings && end.timeline != Timeline::new(1);
    let history = match lacks_history {
        true => TimelineHistory::first(),
        false => history(reader, end.timeline, number).await?,
    };
    Ok(Some(found.tail(number, end, history, lacks_history)))
}

/// Reads the end of a journal whose chunks carry marks: back to the last marked one. `None` while the journal is empty.
///
/// # Errors
/// When the journal does not read.
pub async fn marked_tail(reader: &Reader) -> Result<Option<Tail>, ShipError> {
    let Some(last) = reader.last().await? else { return Ok(None) };
    let (number, end) = (last.header().number, last.header().end_position());
    let found = walk_back(reader, number, end, Floor::Mark).await?;
    Ok(Some(found.tail(number, end, TimelineHistory::first(), false)))
}

/// The journal as far as `until` on `timeline`: what a source must have that left the timeline there, or ends there, however far
/// the journal went beyond. `None` when it holds nothing of that timeline before `until`.
///
/// # Errors
/// When the journal does not read.
pub async fn tail_before(
    reader: &Reader,
    segment_bytes: u64,
    timeline: Timeline,
    until: Offset,
) -> Result<Option<Tail>, ShipError> {
    let Some(last) = reader.last().await? else { return Ok(None) };
    // Along the numbers timelines never fall, and on one timeline ends never do.
    let reaches =
        |header: &Header| header.timeline > timeline || (header.timeline == timeline && header.end >= until);
    // What expired is held no more.
    let chunk = |number| async move {
        match reader.expected_chunk(number).await {
            Ok(chunk) => Ok(Some(chunk.header().clone())),
            Err(JournalError::Expired { .. }) => Ok(None),
            Err(why) => Err(why),
        }
    };
    let found = reader.first_in(Sequence::FIRST, last.header().number, reaches).await?;
    let Some(mut at) = chunk(found).await? else { return Ok(None) };
    if at.timeline > timeline {
        let Some(before) = at.number.get().checked_sub(1) else { return Ok(None) };
        let Some(header) = chunk(Sequence::new(before)).await? else { return Ok(None) };
        at = header;
    }
    if at.timeline != timeline {
        return Ok(None);
    }
    let end = Position::new(timeline, until.min(at.end));
    let floor = Floor::At(compare_floor(end.offset, segment_bytes));
    let found = walk_back(reader, at.number, end, floor).await?;
    Ok(Some(found.tail(at.number, end, TimelineHistory::first(), false)))
}

/// What a walk from a chunk back through the log before it found.
struct Found {
    frames: Vec<StoredFrame>,
    first: Sequence,
    behind_a_break: bool,
    only_openings: bool,
    mark: Mark,
}

/// How far a walk goes back.
#[derive(Debug, Clone, Copy)]
enum Floor {
    /// To this offset.
    At(Offset),
    /// To the last marked chunk.
    Mark,
}

impl Found {
    fn tail(self, last: Sequence, end: Position, history: TimelineHistory, lacks_history: bool) -> Tail {
        let Self { frames, first, behind_a_break, mark, .. } = self;
        Tail { last, first, end, history, frames, behind_a_break, lacks_history, mark }
    }
}

/// Gathers the frames that end at or before `end`, from as far back as `floor`.
async fn walk_back(
    reader: &Reader,
    number: Sequence,
    end: Position,
    floor: Floor,
) -> Result<Found, ShipError> {
    let from = if let Floor::At(from) = floor { from } else { Offset::new(0) };
    let mut found = Found {
        frames: Vec::new(),
        first: number,
        behind_a_break: false,
        only_openings: true,
        mark: Mark::NONE,
    };
    let mut newer: Option<Header> = None;
    // Newest first, until all are known.
    let mut frames: Vec<StoredFrame> = Vec::new();
    let mut backwards = Backwards::from(reader, number);
    loop {
        let reached = frames.last().map_or(end.offset, |frame| frame.start);
        let Some(chunk) = backwards.next(reached.bytes_since(from).unwrap_or(0)).await else { break };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            // Nothing before can be compared.
            Err(JournalError::Expired { .. }) if newer.is_some() => {
                found.behind_a_break = true;
                break;
            }
            Err(why) => return Err(why.into()),
        };
        let header = chunk.header();
        if let Some(newer) = &newer {
            reader.check_follows(header, newer)?;
        }
        newer = Some(header.clone());
        found.only_openings &= header.kind == Kind::Opening;
        match header.kind {
            // A takeover changes nothing about the bytes.
            Kind::Opening => {}
            Kind::Data if matches!(floor, Floor::Mark) && !header.mark.is_none() => {
                found.mark = header.mark;
                break;
            }
            Kind::Data if header.timeline == end.timeline => {
                let mut starts = vec![header.start];
                starts.extend(chunk.heads().iter().map(|head| Offset::new(head.end)));
                let ranges = starts.windows(2).zip(chunk.heads());
                let known = frames.len();
                frames.extend(
                    ranges
                        .map(|(range, head)| StoredFrame {
                            start: range[0],
                            end: range[1],
                            digest: head.digest,
                        })
                        .filter(|frame| frame.start >= from && frame.end <= end.offset)
                        .rev(),
                );
                if frames.len() > known {
                    found.first = header.number;
                }
            }
            // Behind a fork or a gap nothing before can be asked for on this timeline.
            _ => {
                found.behind_a_break = true;
                break;
            }
        }
        // Before the first chunk there is nothing to ask for, however often the journal was opened.
        found.behind_a_break |= header.number == Sequence::FIRST && frames.is_empty();
        if frames.last().is_some_and(|frame| frame.start <= from) {
            break;
        }
    }
    frames.reverse();
    found.frames = frames;
    Ok(found)
}

async fn history(reader: &Reader, timeline: Timeline, at: Sequence) -> Result<TimelineHistory, ShipError> {
    match reader.branch(timeline, at).await? {
        Some(body) => Ok(TimelineHistory::parse(timeline, &body.history)?),
        None if timeline == Timeline::new(1) => Ok(TimelineHistory::first()),
        None => Err(JournalError::NotHeld { what: format!("the history of timeline {timeline}") }.into()),
    }
}

/// Compares bytes that are sent again with the stored frames.
#[derive(Debug)]
pub struct Comparison {
    timeline: Timeline,
    frames: std::vec::IntoIter<StoredFrame>,
    current: Option<StoredFrame>,
    gathered: Vec<u8>,
}

impl Comparison {
    /// A comparison over a journal's tail.
    pub fn over(tail: &Tail) -> Self {
        let mut frames = tail.frames.clone().into_iter();
        let current = frames.next();
        Self { timeline: tail.end.timeline, frames, current, gathered: Vec::new() }
    }

    /// Whether everything stored was compared.
    pub fn is_done(&self) -> bool {
        self.current.is_none()
    }

    /// Takes bytes in order from the comparison's start. What is left over lies behind the journal's end and is new.
    ///
    /// # Errors
    /// [`ShipError::Conflict`] names the first frame whose bytes differ.
    pub fn take<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], ShipError> {
        while let Some(frame) = self.current {
            // A frame is at most 1 MiB, so the difference fits.
            let wanted = frame.end.bytes_since(frame.start).unwrap_or(0) as usize - self.gathered.len();
            let (mine, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.gathered.extend_from_slice(mine);
            bytes = rest;
            if mine.len() < wanted {
                return Ok(bytes);
            }
            if Digest::of(&self.gathered) != frame.digest {
                let from = Position::new(self.timeline, frame.start);
                return Err(ShipError::Conflict { from, to: frame.end });
            }
            self.gathered.clear();
            self.current = self.frames.next();
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(contents: &[&[u8]]) -> Tail {
        let mut at = 0;
        let mut frames = Vec::new();
        for content in contents {
            let end = at + content.len() as u64;
            frames.push(StoredFrame {
                start: Offset::new(at),
                end: Offset::new(end),
                digest: Digest::of(content),
            });
            at = end;
        }
        let end = Position::new(Timeline::new(1), Offset::new(at));
        let (first, last) = (Sequence::new(1), Sequence::new(3));
        Tail {
            last,
            first,
            end,
            history: TimelineHistory::first(),
            frames,
            behind_a_break: false,
            lacks_history: false,
            mark: Mark::NONE,
        }
    }

    #[test]
    fn equal_bytes_in_any_pieces_continue_behind_the_journals_end() {
        let tail = tail(&[b"abc", b"de"]);
        for piece in 1..7 {
            let mut comparison = Comparison::over(&tail);
            let fresh: Vec<u8> =
                b"abcdeNEW".chunks(piece).flat_map(|part| comparison.take(part).unwrap().to_vec()).collect();
            assert!(comparison.is_done());
            assert_eq!(fresh, b"NEW");
        }
    }

    #[test]
    fn a_byte_that_differs_is_a_conflict_with_its_range() {
        let mut comparison = Comparison::over(&tail(&[b"abc", b"de"]));
        let found = comparison.take(b"abcdX");
        assert!(
            matches!(found, Err(ShipError::Conflict { from, to }) if from.offset.get() == 3 && to.get() == 5)
        );
    }
}
