//! A log page's head: read and judged, as pure functions.
//!
//! ```text
//! offset size field
//!  0     2    magic, one per major version
//!  2     2    flags: 1 begins with the rest of a record, 2 long head, 4 (of no meaning here), 8 takes the place of
//!             an unfinished record
//!  4     4    timeline of whoever began the page
//!  8     8    address: the offset of this page
//! 16     4    bytes still to come of the record that began before, on this and later pages
//! 20     4    padding
//! 24     8    long head only: system identifier
//! 32     4    long head only: segment size
//! 36     4    long head only: page size
//! ```
//! Source: `XLogPageHeaderData`, `XLogLongPageHeaderData` and the XLP flags, src/include/access/xlog_internal.h;
//! what is checked follows `XLogReaderValidatePageHeader`, src/backend/access/transam/xlogreader.c.
//!
//! Timelines: when a server is promoted in the middle of a segment, the new timeline's segment starts with a copy of
//! the old one, and the page in which the switch lies keeps its head. So log of timeline t, streamed or in a file
//! named after t, holds pages of t's ancestors and then of t: numbers never fall and never pass t.

use farshore_journal::{Offset, Timeline};

use super::error::PageFault;
use super::fields::Fields;
use super::shape::{LONG_PAGE_HEAD_BYTES, LogShape, PAGE_BYTES, PAGE_HEAD_BYTES};

const CONTINUES: u16 = 1;
const LONG: u16 = 2;
const REPLACES_UNFINISHED: u16 = 8;
const ALL_FLAGS: u16 = 15;

/// What a page's head says of the record bytes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageBegins {
    /// With a new record.
    Record,
    /// With the last `0` bytes, on this and later pages, of a record that began before. Never zero.
    Rest(u32),
    /// With the record that says that an unfinished one was given up.
    Replacement,
}

/// An accepted page head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHead {
    pub(super) timeline: Timeline,
    pub(super) begins: PageBegins,
}

/// Bytes of the head of the page at this offset.
pub(super) fn head_bytes(at: Offset, shape: &LogShape) -> usize {
    if at.get().is_multiple_of(shape.segment_bytes.get()) { LONG_PAGE_HEAD_BYTES } else { PAGE_HEAD_BYTES }
}

/// Judges the head of the page at `at`. `lowest` is the timeline of the page before, if one was seen, and `highest`
/// the timeline that is read.
pub(super) fn read(
    head: &[u8],
    at: Offset,
    shape: &LogShape,
    lowest: Option<Timeline>,
    highest: Timeline,
) -> Result<PageHead, PageFault> {
    if head.iter().all(|b| *b == 0) {
        return Err(PageFault::Zeroed);
    }
    let expected = shape.major.magic();
    let mut fields = Fields::new(head);
    let magic = fields.u16().unwrap_or_default();
    if magic != expected {
        return Err(PageFault::Magic { found: magic, expected });
    }
    let long = head.len() == LONG_PAGE_HEAD_BYTES;
    // The head was gathered to its full length; the defaults are never taken.
    let flags = fields.u16().unwrap_or_default();
    let timeline = Timeline::new(fields.u32().unwrap_or_default());
    let address = Offset::new(fields.u64().unwrap_or_default());
    let remaining = fields.u32().unwrap_or_default();
    if flags & !ALL_FLAGS != 0 || (flags & LONG != 0) != long {
        return Err(PageFault::Flags { found: flags });
    }
    if address != at {
        return Err(PageFault::Address { found: address });
    }
    if long {
        fields.u32();
        let found = fields.u64().unwrap_or_default();
        if found != shape.system_identifier {
            return Err(PageFault::SystemIdentifier { found, expected: shape.system_identifier });
        }
        let found = fields.u32().unwrap_or_default();
        if u64::from(found) != shape.segment_bytes.get() {
            return Err(PageFault::SegmentSize { found, expected: shape.segment_bytes.get() });
        }
        let found = fields.u32().unwrap_or_default();
        if u64::from(found) != PAGE_BYTES {
            return Err(PageFault::PageSize { found });
        }
    }
    let lowest = lowest.unwrap_or(Timeline::new(1));
    if timeline < lowest || timeline > highest {
        return Err(PageFault::Timeline { found: timeline, lowest, highest });
    }
    let begins = match (flags & CONTINUES != 0, flags & REPLACES_UNFINISHED != 0) {
        (true, true) => return Err(PageFault::Flags { found: flags }),
        (true, false) if remaining > 0 => PageBegins::Rest(remaining),
        (false, false) if remaining == 0 => PageBegins::Record,
        (false, true) if remaining == 0 => PageBegins::Replacement,
        _ => return Err(PageFault::Remaining { found: remaining, expected: 0 }),
    };
    Ok(PageHead { timeline, begins })
}
