//! `wal push`: is this log file, as the primary archives it, stored? And where the stream cannot store it, can the file?
//!
//! The streaming pipeline stores the log; the archiver's file is held against it, and kept for a while in the [`room`], where it
//! stands in for what the source no longer has ([`proof`]), or is appended when no service runs ([`alone`]). What always holds: "stored" is answered only
//! when every byte of the file's log is in the journal and equal, by the digests in the chunks' heads, so no private key is
//! needed; a file that differs is never called stored, and neither is one that the journal has a gap for.

pub mod alone;
pub mod proof;
pub mod room;

use std::ops::Range;

use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::log::{LogShape, Major, SegmentBytes, ShapeError};
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::{Cipher, Digest, Kind};
use farshore_journal::reader::Reader;
use farshore_journal::{JournalError, Offset, Position, Sequence, Timeline};

/// What the journal says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// All of it is stored, byte by byte.
    Stored,
    /// The journal ends before the file does: ask again.
    NotYet {
        /// Where the journal ends; `None` while it is empty.
        stored: Option<Position>,
    },
    /// The journal holds other bytes in this range.
    Differs {
        /// First byte.
        from: Offset,
        /// First byte behind it.
        to: Offset,
    },
    /// The journal begins behind this byte, or has a gap here: it will never hold all of the file. What it holds of it is equal.
    NeverHeld {
        /// The first byte it does not hold.
        at: Offset,
    },
}

/// Holds a file against the journal: `bytes` are the log of `timeline` from `start` on, up to where the log in the file ends. The
/// first file of a timeline begins with its parent's bytes: they are held against the parent's in the journal.
///
/// # Errors
/// When the journal does not read.
pub async fn check(
    reader: &Reader,
    timeline: Timeline,
    start: Offset,
    bytes: &[u8],
) -> Result<Pushed, JournalError> {
    let Some(last) = reader.last().await? else { return Ok(Pushed::NotYet { stored: None }) };
    let stored = last.header().end_position();
    let end = Offset::new(start.get() + bytes.len() as u64);
    if stored.timeline < timeline || (stored.timeline == timeline && stored.offset < end) {
        return Ok(Pushed::NotYet { stored: Some(stored) });
    }
    let last = last.header().number;
    let history = match reader.branch(timeline, last).await? {
        Some(body) => TimelineHistory::parse(timeline, &body.history).ok(),
        None => None,
    };
    let mut unheld = None;
    for (of, range) in runs(timeline, history.as_ref(), start..end) {
        let from = range.start.bytes_since(start).unwrap_or(0) as usize;
        let to = range.end.bytes_since(start).unwrap_or(0) as usize;
        let part = bytes.get(from..to).unwrap_or_default();
        match check_run(reader, last, of, range, part).await? {
            Pushed::Stored => {}
            Pushed::NeverHeld { at } => unheld = unheld.or(Some(at)),
            other => return Ok(other),
        }
    }
    Ok(unheld.map_or(Pushed::Stored, |at| Pushed::NeverHeld { at }))
}

/// Whether a history file says what the journal says of its timeline.
///
/// # Errors
/// When the journal does not read.
pub async fn check_history(reader: &Reader, timeline: Timeline, file: &[u8]) -> Result<Pushed, JournalError> {
    let Some(last) = reader.last().await? else { return Ok(Pushed::NotYet { stored: None }) };
    let stored = last.header().end_position();
    if stored.timeline < timeline {
        return Ok(Pushed::NotYet { stored: Some(stored) });
    }
    let read = |text: &[u8]| TimelineHistory::parse(timeline, text).ok();
    let held = reader.branch(timeline, last.header().number).await?.and_then(|body| read(&body.history));
    Ok(match (held, read(file)) {
        (Some(held), Some(pushed)) if held.ancestors().iter().eq(pushed.ancestors()) => Pushed::Stored,
        (None, _) => Pushed::NeverHeld { at: Offset::new(0) },
        (Some(held), _) => {
            let fork = held.ancestors().last().map_or(Offset::new(0), |parent| parent.left_at);
            Pushed::Differs { from: fork, to: fork }
        }
    })
}

/// How the log of an incarnation's source is built.
///
/// # Errors
/// When it is of a kind that this build does not know.
pub fn shape(record: &IncarnationRecord) -> Result<LogShape, ShapeError> {
    Ok(LogShape {
        major: Major::new(record.major)?,
        segment_bytes: SegmentBytes::new(record.segment_bytes)?,
        // One that is no number is no PostgreSQL's: no file has it.
        system_identifier: record.identity.parse().unwrap_or(0),
    })
}

/// The runs of single timelines in a range of one that has a history.
fn runs(
    timeline: Timeline,
    history: Option<&TimelineHistory>,
    range: Range<Offset>,
) -> Vec<(Timeline, Range<Offset>)> {
    let mut runs = Vec::new();
    let mut at = range.start;
    for ancestor in history.map(TimelineHistory::ancestors).unwrap_or_default() {
        let to = ancestor.left_at.min(range.end);
        if at < to {
            runs.push((ancestor.timeline, at..to));
            at = to;
        }
    }
    if at < range.end {
        runs.push((timeline, at..range.end));
    }
    runs
}

/// As [`check`], for a run of one timeline.
async fn check_run(
    reader: &Reader,
    last: Sequence,
    timeline: Timeline,
    range: Range<Offset>,
    bytes: &[u8],
) -> Result<Pushed, JournalError> {
    let Range { start, end } = range;
    let at_or_behind = |header: &farshore_journal::format::Header| {
        header.timeline > timeline || (header.timeline == timeline && header.end > start)
    };
    let mut chunk = reader.first_where(last, at_or_behind).await?;
    let mut at = start;
    let mut unheld = None;
    while at < end {
        let header = chunk.header();
        if header.timeline != timeline {
            unheld = unheld.or(Some(at));
            break;
        }
        // Chunks follow one another without a hole, so what is skipped lies before the first of them.
        if header.start > at {
            unheld = unheld.or(Some(at));
            at = header.start;
        }
        match header.kind {
            Kind::Gap if header.end > at => {
                unheld = unheld.or(Some(at));
                at = header.end;
            }
            Kind::Data => {
                let mut from = header.start;
                for (number, head) in chunk.heads().iter().enumerate() {
                    let to = Offset::new(head.end);
                    let shared = from.max(start)..to.min(end);
                    if shared.start < shared.end {
                        let within = |offset: Offset| offset.bytes_since(start).unwrap_or(0) as usize;
                        let own = bytes.get(within(shared.start)..within(shared.end)).unwrap_or_default();
                        let equal = match shared == (from..to) {
                            true => Digest::of(own) == head.digest,
                            // The log in the file ends, or begins, inside this frame: where it can be read, its bytes tell. A sealed
                            // one cannot, and is taken on its place.
                            false => match chunk.plain(number, None) {
                                Ok(plain) => {
                                    let within =
                                        |offset: Offset| offset.bytes_since(from).unwrap_or(0) as usize;
                                    plain.get(within(shared.start)..within(shared.end)) == Some(own)
                                }
                                Err(_) => header.cipher != Cipher::Clear,
                            },
                        };
                        if !equal {
                            return Ok(Pushed::Differs { from: shared.start, to: shared.end });
                        }
                    }
                    from = to;
                }
                at = header.end.max(at);
            }
            _ => {}
        }
        match header.number.next().filter(|next| *next <= last) {
            Some(next) if at < end => chunk = reader.expected_chunk(next).await?,
            _ => break,
        }
    }
    let unheld = unheld.or_else(|| (at < end).then_some(at));
    Ok(unheld.map_or(Pushed::Stored, |at| Pushed::NeverHeld { at }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_of_a_timeline_is_held_against_its_parents_log_up_to_the_fork() {
        let history = TimelineHistory::parse(Timeline::new(3), b"1\t0/500\tx\n2\t0/700\ty\n").unwrap();
        let offset = Offset::new;
        let found = runs(Timeline::new(3), Some(&history), offset(0x400)..offset(0x800));
        let of = |timeline| Timeline::new(timeline);
        assert_eq!(
            found,
            [
                (of(1), offset(0x400)..offset(0x500)),
                (of(2), offset(0x500)..offset(0x700)),
                (of(3), offset(0x700)..offset(0x800)),
            ]
        );
        assert_eq!(runs(of(3), Some(&history), offset(0x700)..offset(0x800)).len(), 1);
        assert_eq!(runs(of(1), None, offset(0)..offset(8)), [(of(1), offset(0)..offset(8))]);
    }
}
