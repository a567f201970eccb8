//! `wal push`: is this log file, as the primary archives it, stored?
//!
//! The streaming pipeline stores the log; the archiver's file is held against it. What always holds: "stored" is answered only
//! when every byte of the file's log is in the journal and equal, by the digests in the chunks' heads, so no private key is
//! needed; a file that differs is never called stored, and neither is one that the journal has a gap for.

use farshore_journal::format::{Digest, Kind};
use farshore_journal::reader::Reader;
use farshore_journal::{JournalError, Offset, Position, Timeline};

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
    /// The journal begins behind this byte, or has a gap here: it will never hold the file.
    NeverHeld {
        /// The first byte it does not hold.
        at: Offset,
    },
}

/// Holds a file against the journal: `bytes` are the log of `timeline` from `start` on, up to where the log in the file ends.
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
    let at_or_behind = |header: &farshore_journal::format::Header| {
        header.timeline > timeline || (header.timeline == timeline && header.end > start)
    };
    let mut chunk = reader.first_where(last, at_or_behind).await?;
    let mut at = start;
    while at < end {
        let header = chunk.header();
        match header.kind {
            _ if header.timeline != timeline => return Ok(Pushed::NeverHeld { at }),
            Kind::Gap if header.end > at => return Ok(Pushed::NeverHeld { at }),
            Kind::Data if header.start > at => return Ok(Pushed::NeverHeld { at }),
            Kind::Data => {
                let mut from = header.start;
                for head in chunk.heads() {
                    let to = Offset::new(head.end);
                    if from >= start && from < end {
                        // No frame crosses a log segment's boundary, but the log in a partial file may end inside one.
                        let (Some(first), Some(behind)) = (from.bytes_since(start), to.bytes_since(start))
                        else {
                            break;
                        };
                        let equal = bytes
                            .get(first as usize..behind as usize)
                            .is_some_and(|own| Digest::of(own) == head.digest);
                        if !equal && to <= end {
                            return Ok(Pushed::Differs { from, to });
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
    Ok(if at >= end { Pushed::Stored } else { Pushed::NeverHeld { at } })
}
