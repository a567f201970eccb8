//! The decoder of streamed log: bytes in order, in any pieces, become events; anything out of place is an error.
//!
//! It keeps one page head, one record head and, for transaction, control and tablespace records only, the record's bytes as they
//! come. Other records are summed and forgotten, so a claimed length costs nothing and memory is bounded by the
//! largest commit record (four bytes a sub-transaction, sixteen a cache invalidation).
//!
//! ```text
//!            page head            head complete         all bytes, rounded up to 8
//!  Remnant ────────────▶ Between ─────────────▶ Record ─────────────▶ Between, or after a switch
//!  (began before start)     ▲                      │                  Unused until the segment ends
//!                           └── page replaces it ──┘
//! ```
//! What a page may begin with follows from the stage alone; see `page_begins`.

use farshore_journal::format::index::Whole;
use farshore_journal::{Offset, Position, Timeline};

use super::control::{self, Kind};
use super::error::{LogError, PageFault, RecordFault};
use super::page::{self, PageBegins};
use super::record::{self, RecordHead};
use super::shape::{LONG_PAGE_HEAD_BYTES, LogShape, PAGE_BYTES, PAGE_HEAD_BYTES};
use super::tablespace;
use super::transaction;
use super::xid::XidClock;
use crate::event::{Happened, LogEvent, RecordSeen};

/// Positions from here on are refused, so that no sum of a position and a length can overflow. A server that writes
/// a gigabyte a second gets here after three centuries.
const POSITION_LIMIT: u64 = 1 << 63;

/// Decodes log as a server streams it. See the module's head for what always holds.
#[derive(Debug)]
pub struct LogDecoder {
    shape: LogShape,
    timeline: Timeline,
    every_record: bool,
    /// The next byte wanted.
    at: u64,
    /// Bytes left of the page `at` is in; zero when its head comes first.
    page_left: u64,
    page_head: Gathered<LONG_PAGE_HEAD_BYTES>,
    pages_seen: u64,
    page_timeline: Option<Timeline>,
    stage: Stage,
    replaces: Replaces,
    xids: XidClock,
    whole_from: Option<Offset>,
    last_record: Option<Offset>,
    expected_previous: Option<Offset>,
    checked_end: Option<Offset>,
    failed: Option<LogError>,
}

#[derive(Debug)]
enum Stage {
    /// This many bytes of a record that began before the start are still to come.
    Remnant(u64),
    /// A record starts at `at`, once that is a multiple of eight.
    Between,
    /// A record is coming.
    Record(Coming),
    /// After a switch, up to this offset: zeros, or after a crash anything.
    Unused(u64),
}

/// What the next record must be, after a page that replaces an unfinished one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaces {
    /// Not the one that names an unfinished record.
    Nothing,
    /// That one, naming the record that starts here.
    Record(Offset),
    /// That one; what it names began before our start.
    Unknown,
    /// We began in the middle of a page and its flags are not known.
    Perhaps,
}

#[derive(Debug)]
struct Coming {
    start: Offset,
    head: Gathered<{ record::HEAD_BYTES }>,
    /// Known with the first four bytes.
    total: Option<u64>,
    accepted: Option<RecordHead>,
    /// Bytes taken, with the head.
    have: u64,
    crc: u32,
    /// The bytes after the head, if they will be read.
    kept: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Gathered<const N: usize> {
    bytes: [u8; N],
    have: usize,
}

impl<const N: usize> Gathered<N> {
    const EMPTY: Self = Self { bytes: [0; N], have: 0 };

    /// Takes bytes up to `want`, and says how many.
    fn take(&mut self, from: &[u8], want: usize) -> usize {
        let count = from.len().min(want.saturating_sub(self.have));
        self.bytes[self.have..self.have + count].copy_from_slice(&from[..count]);
        self.have += count;
        count
    }
}

impl LogDecoder {
    /// A decoder that will be given the bytes of `start.timeline` from `start.offset` on: the start of a segment, of
    /// a page, or of a record.
    ///
    /// # Errors
    /// [`LogError::Start`] when none of these can be at that offset.
    pub fn new(shape: LogShape, start: Position) -> Result<Self, LogError> {
        let at = start.offset.get();
        let in_page = at % PAGE_BYTES;
        let head = page::head_bytes(Offset::new(at - in_page), &shape) as u64;
        let record = at.is_multiple_of(8) && in_page >= head;
        if at >= POSITION_LIMIT || !(in_page == 0 || record) {
            return Err(LogError::Start { offset: start.offset });
        }
        Ok(Self {
            shape,
            timeline: start.timeline,
            every_record: false,
            at,
            page_left: if in_page == 0 { 0 } else { PAGE_BYTES - in_page },
            page_head: Gathered::EMPTY,
            pages_seen: 0,
            page_timeline: None,
            stage: Stage::Between,
            replaces: if in_page == 0 { Replaces::Nothing } else { Replaces::Perhaps },
            xids: XidClock::default(),
            whole_from: None,
            last_record: None,
            expected_previous: None,
            checked_end: None,
            failed: None,
        })
    }

    /// Also gives [`Happened::Record`] for every record.
    #[must_use]
    pub fn with_every_record(mut self) -> Self {
        self.every_record = true;
        self
    }

    /// Gives transactions their whole numbers from the start, from a whole number known to be near: for instance
    /// `pg_snapshot_xmax(pg_current_snapshot())`, or the last checkpoint's next one.
    #[must_use]
    pub fn with_transaction_anchor(mut self, next_transaction: u64) -> Self {
        self.xids.anchor(next_transaction);
        self
    }

    /// Requires that the first whole record follows the one that starts here: what ties this run of bytes to one
    /// read before.
    #[must_use]
    pub fn with_previous_record(mut self, start: Offset) -> Self {
        self.expected_previous = Some(start);
        self
    }

    /// Takes the next bytes and gives what they complete to `sink`, in log order.
    ///
    /// # Errors
    /// At the first byte that is out of place; events before it were given. Every later call gives the same error.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(LogEvent)) -> Result<(), LogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance(bytes, sink);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// The end of the last whole, linked record with a right checksum. After a switch it is the end of its segment,
    /// once those bytes came too.
    pub fn checked_end(&self) -> Option<Offset> {
        self.checked_end
    }

    /// Where that record starts.
    pub fn last_record_start(&self) -> Option<Offset> {
        self.last_record
    }

    /// Where the first whole record starts. Events before it are not told, as their records began before the start.
    pub fn whole_from(&self) -> Option<Offset> {
        self.whole_from
    }

    /// Where the last whole record ends, if decoding can go on from there with nothing known of what came before but this: not
    /// inside of a segment's rest that a switch gave up.
    pub fn whole(&self) -> Option<Whole> {
        match (&self.stage, self.checked_end, self.last_record) {
            (Stage::Unused(_), _, _) => None,
            (_, Some(to), Some(last_record)) => {
                Some(Whole { to, last_record, next_transaction: self.xids.next() })
            }
            _ => None,
        }
    }

    /// The next byte wanted, where nothing failed.
    pub fn next_wanted(&self) -> Offset {
        Offset::new(self.at)
    }

    /// Bytes held for a record that will be read.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        match &self.stage {
            Stage::Record(coming) => coming.kept.as_ref().map_or(0, Vec::capacity),
            _ => 0,
        }
    }

    fn advance(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(LogEvent)) -> Result<(), LogError> {
        while !bytes.is_empty() {
            let used = match self.stage {
                Stage::Unused(until) => self.skip_unused(bytes, until),
                _ if self.page_left == 0 => self.take_page_head(bytes)?,
                _ => {
                    let room = usize::try_from(self.page_left).unwrap_or(usize::MAX).min(bytes.len());
                    let used = self.take_body(&bytes[..room])?;
                    self.page_left -= used as u64;
                    used
                }
            };
            self.at += used as u64;
            bytes = &bytes[used..];
            self.settle(sink)?;
        }
        Ok(())
    }

    fn skip_unused(&mut self, bytes: &[u8], until: u64) -> usize {
        usize::try_from(until - self.at).unwrap_or(usize::MAX).min(bytes.len())
    }

    fn take_page_head(&mut self, bytes: &[u8]) -> Result<usize, LogError> {
        let at = Offset::new(self.at - self.page_head.have as u64);
        let want = page::head_bytes(at, &self.shape);
        debug_assert!(want == PAGE_HEAD_BYTES || want == LONG_PAGE_HEAD_BYTES);
        let used = self.page_head.take(bytes, want);
        if self.page_head.have == want {
            let fault = |fault| LogError::Page { at, first: self.pages_seen == 0, fault };
            let head = &self.page_head.bytes[..want];
            let head = page::read(head, at, &self.shape, self.page_timeline, self.timeline).map_err(fault)?;
            let (stage, replaces) = page_begins(
                std::mem::replace(&mut self.stage, Stage::Between),
                head.begins,
                self.pages_seen == 0,
                self.replaces,
            )
            .map_err(fault)?;
            self.stage = stage;
            self.replaces = replaces;
            self.page_timeline = Some(head.timeline);
            self.pages_seen += 1;
            self.page_head = Gathered::EMPTY;
            self.page_left = PAGE_BYTES - want as u64;
        }
        Ok(used)
    }

    /// Takes bytes of one page, after its head, up to the next point where something is decided.
    fn take_body(&mut self, bytes: &[u8]) -> Result<usize, LogError> {
        let to_boundary = (self.at.next_multiple_of(8) - self.at) as usize;
        match &mut self.stage {
            Stage::Remnant(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= used as u64;
                if *left == 0 {
                    self.stage = Stage::Between;
                }
                Ok(used)
            }
            Stage::Between if to_boundary > 0 => Ok(to_boundary.min(bytes.len())),
            Stage::Between => {
                self.stage = Stage::Record(Coming::at(Offset::new(self.at)));
                Ok(0)
            }
            Stage::Record(coming) => {
                let previous = self.last_record.or(self.expected_previous);
                coming.take(bytes, to_boundary, previous, &self.shape)
            }
            Stage::Unused(_) => Ok(0),
        }
    }

    /// Draws the conclusions of the bytes taken so far.
    fn settle(&mut self, sink: &mut impl FnMut(LogEvent)) -> Result<(), LogError> {
        match &mut self.stage {
            Stage::Unused(until) if *until == self.at => {
                self.checked_end = Some(Offset::new(self.at));
                self.stage = Stage::Between;
                self.page_left = 0;
            }
            Stage::Record(coming) if coming.total == Some(coming.have) && self.at.is_multiple_of(8) => {
                if let Stage::Record(coming) = std::mem::replace(&mut self.stage, Stage::Between) {
                    self.finish(coming, sink)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, coming: Coming, sink: &mut impl FnMut(LogEvent)) -> Result<(), LogError> {
        let (start, end) = (coming.start, Offset::new(self.at));
        // A record is never complete before its head was accepted.
        let Some(head) = coming.accepted else { return Ok(()) };
        let fault = |fault| LogError::Record { start, fault };
        head.check(&coming.head.bytes, coming.crc).map_err(fault)?;
        self.xids.observe(head.transaction);
        let happened = self.interpret(&head, coming.kept.as_deref(), start)?;
        check_replacement(self.replaces, &head, happened.as_ref()).map_err(fault)?;
        self.replaces = Replaces::Nothing;
        self.whole_from = self.whole_from.or(Some(start));
        self.last_record = Some(start);
        self.checked_end = Some(end);
        if self.every_record {
            let what = Happened::Record(RecordSeen {
                resource_manager: head.resource_manager,
                info: head.info,
                transaction: head.transaction,
                total_bytes: head.total_bytes,
            });
            sink(LogEvent { start, end, what });
        }
        if let Some(Happened::Switch { next_segment }) = happened
            && next_segment > end
        {
            self.stage = Stage::Unused(next_segment.get());
        }
        if let Some(what) = happened {
            sink(LogEvent { start, end, what });
        }
        Ok(())
    }

    fn interpret(
        &mut self,
        head: &RecordHead,
        kept: Option<&[u8]>,
        start: Offset,
    ) -> Result<Option<Happened>, LogError> {
        let major = self.shape.major;
        let unknown = |what| LogError::UnknownLayout {
            start,
            resource_manager: head.resource_manager,
            info: head.info,
            what,
        };
        match head.resource_manager {
            control::RESOURCE_MANAGER => {
                let kind = control::kind(head.info, major)
                    .ok_or_else(|| unknown("this major version has no such record"))?;
                let Some(body) = kept.filter(|_| kind != Kind::Passed) else { return Ok(None) };
                let main = record::main_data(body).map_err(unknown)?;
                if kind == Kind::Switch {
                    let end = self.at.next_multiple_of(self.shape.segment_bytes.get());
                    return Ok(Some(Happened::Switch { next_segment: Offset::new(end) }));
                }
                let happened = control::read(head.info, main.data, major).map_err(unknown)?;
                if let Happened::Checkpoint(checkpoint) = &happened {
                    self.xids.anchor(checkpoint.next_transaction);
                }
                Ok(Some(happened))
            }
            transaction::RESOURCE_MANAGER => {
                let Some(body) = kept else { return Ok(None) };
                let main = record::main_data(body).map_err(unknown)?;
                transaction::read(head.info, head.transaction, main, major, &self.xids)
                    .map(Some)
                    .map_err(unknown)
            }
            tablespace::RESOURCE_MANAGER => {
                let Some(body) = kept else { return Ok(None) };
                let main = record::main_data(body).map_err(unknown)?;
                tablespace::read(main).map(Some).map_err(unknown)
            }
            _ => Ok(None),
        }
    }
}

/// What follows of the stage before a page and of what the page says it begins with.
fn page_begins(
    stage: Stage,
    begins: PageBegins,
    first: bool,
    replaces: Replaces,
) -> Result<(Stage, Replaces), PageFault> {
    let in_hand = match &stage {
        Stage::Remnant(left) => *left,
        Stage::Record(coming) => coming.total.map_or(0, |total| total - coming.have),
        Stage::Between | Stage::Unused(_) => 0,
    };
    match begins {
        PageBegins::Record if in_hand == 0 => Ok((Stage::Between, replaces)),
        PageBegins::Rest(left) if u64::from(left) == in_hand => Ok((stage, replaces)),
        PageBegins::Rest(left) if first && in_hand == 0 => Ok((Stage::Remnant(u64::from(left)), replaces)),
        PageBegins::Replacement => match stage {
            Stage::Record(coming) => Ok((Stage::Between, Replaces::Record(coming.start))),
            Stage::Remnant(_) => Ok((Stage::Between, Replaces::Unknown)),
            _ if first => Ok((Stage::Between, Replaces::Unknown)),
            _ => Err(PageFault::NothingAbandoned),
        },
        PageBegins::Rest(found) => Err(PageFault::Remaining { found, expected: in_hand }),
        PageBegins::Record => Err(PageFault::Remaining { found: 0, expected: in_hand }),
    }
}

/// Checks that the record which names an unfinished one stands where one was replaced, and only there.
fn check_replacement(
    replaces: Replaces,
    head: &RecordHead,
    happened: Option<&Happened>,
) -> Result<(), RecordFault> {
    let found = match happened {
        Some(Happened::Abandoned { abandoned, .. }) => Some(*abandoned),
        _ => None,
    };
    debug_assert!(found.is_some() == control::is_overwrite(head.resource_manager, head.info));
    let (right, expected) = match replaces {
        Replaces::Nothing => (found.is_none(), None),
        Replaces::Record(start) => (found == Some(start), Some(start)),
        Replaces::Unknown => (found.is_some(), None),
        Replaces::Perhaps => (true, None),
    };
    if right { Ok(()) } else { Err(RecordFault::Abandoned { expected, found }) }
}

impl Coming {
    const fn at(start: Offset) -> Self {
        let head = Gathered::EMPTY;
        Self { start, head, total: None, accepted: None, have: 0, crc: 0, kept: None }
    }

    /// Takes bytes of one page up to the next decision: the length, the head, the end, the boundary after it.
    fn take(
        &mut self,
        bytes: &[u8],
        to_boundary: usize,
        previous: Option<Offset>,
        shape: &LogShape,
    ) -> Result<usize, LogError> {
        let fault = |fault| LogError::Record { start: self.start, fault };
        let Some(total) = self.total else {
            let used = self.head.take(bytes, 4);
            if self.head.have == 4 {
                let [a, b, c, d, ..] = self.head.bytes;
                self.total = Some(u64::from(record::length([a, b, c, d]).map_err(fault)?));
            }
            self.have += used as u64;
            return Ok(used);
        };
        if self.accepted.is_none() {
            let used = self.head.take(bytes, record::HEAD_BYTES);
            self.have += used as u64;
            if self.head.have == record::HEAD_BYTES {
                let head =
                    RecordHead::read(&self.head.bytes, self.start, previous, shape.major).map_err(fault)?;
                self.kept = is_read(&head, shape).then(Vec::new);
                self.accepted = Some(head);
            }
            return Ok(used);
        }
        if self.have == total {
            return Ok(to_boundary.min(bytes.len()));
        }
        let used = usize::try_from(total - self.have).unwrap_or(usize::MAX).min(bytes.len());
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..used]);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&bytes[..used]);
        }
        self.have += used as u64;
        Ok(used)
    }
}

/// Whether a record's bytes are kept to be read once its checksum is known to be right.
fn is_read(head: &RecordHead, shape: &LogShape) -> bool {
    match head.resource_manager {
        control::RESOURCE_MANAGER => {
            matches!(control::kind(head.info, shape.major), Some(Kind::Read | Kind::Switch))
        }
        transaction::RESOURCE_MANAGER => transaction::is_read(head.info),
        tablespace::RESOURCE_MANAGER => tablespace::is_read(head.info),
        _ => false,
    }
}
