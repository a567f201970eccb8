//! Log made by hand for tests: pages, records, switches and unfinished records as PostgreSQL lays them out.

use farshore_journal::{Offset, Position, Timeline};

use super::shape::{LogShape, Major, PAGE_BYTES, SegmentBytes};
use super::{LogDecoder, LogError};
use crate::event::{Happened, LogEvent};

pub(super) const SYSTEM: u64 = 7_000_000_000_000_000_001;

pub(super) fn shape(major: u32) -> LogShape {
    LogShape {
        major: Major::new(major).unwrap(),
        segment_bytes: SegmentBytes::new(1 << 20).unwrap(),
        system_identifier: SYSTEM,
    }
}

/// A log that grows from the start of a segment.
pub(super) struct Handmade {
    pub(super) shape: LogShape,
    pub(super) timeline: u32,
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
    /// Start of the last record.
    pub(super) previous: u64,
    /// Start and end of each record.
    pub(super) records: Vec<(u64, u64)>,
}

impl Handmade {
    pub(super) fn new(major: u32) -> Self {
        Self::at(major, 1, 5 << 20, (5 << 20) - 64)
    }

    pub(super) fn at(major: u32, timeline: u32, start: u64, previous: u64) -> Self {
        Self { shape: shape(major), timeline, start, bytes: Vec::new(), previous, records: Vec::new() }
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub(super) fn position(&self) -> Position {
        Position::new(Timeline::new(self.timeline), Offset::new(self.start))
    }

    pub(super) fn decoder(&self) -> LogDecoder {
        LogDecoder::new(self.shape, self.position()).unwrap().with_every_record()
    }

    /// Bytes from an offset on.
    pub(super) fn from(&self, offset: u64) -> &[u8] {
        &self.bytes[(offset - self.start) as usize..]
    }

    pub(super) fn page(&mut self, flags: u16, remaining: u32) {
        let at = self.end();
        assert_eq!(at % PAGE_BYTES, 0);
        let long = at.is_multiple_of(self.shape.segment_bytes.get());
        self.bytes.extend(self.shape.major.magic().to_le_bytes());
        self.bytes.extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(SYSTEM.to_le_bytes());
            self.bytes.extend((self.shape.segment_bytes.get() as u32).to_le_bytes());
            self.bytes.extend((PAGE_BYTES as u32).to_le_bytes());
        }
    }

    /// The record's bytes, were it to follow the last one.
    pub(super) fn encode(&self, manager: u8, info: u8, transaction: u32, body: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend((24 + body.len() as u32).to_le_bytes());
        record.extend(transaction.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        record
    }

    /// Appends a record with these bytes after its head.
    pub(super) fn raw(&mut self, manager: u8, info: u8, transaction: u32, body: &[u8]) -> (u64, u64) {
        let record = self.encode(manager, info, transaction, body);
        if self.end().is_multiple_of(PAGE_BYTES) {
            self.page(0, 0);
        }
        let start = self.end();
        let mut rest = &record[..];
        while !rest.is_empty() {
            if self.end().is_multiple_of(PAGE_BYTES) {
                self.page(1, rest.len() as u32);
            }
            let room = (PAGE_BYTES - self.end() % PAGE_BYTES) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(now);
            rest = later;
        }
        self.pad();
        self.previous = start;
        self.records.push((start, self.end()));
        (start, self.end())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// Appends a record with this main data.
    pub(super) fn record(&mut self, manager: u8, info: u8, transaction: u32, data: &[u8]) -> (u64, u64) {
        self.raw(manager, info, transaction, &main(data))
    }

    /// Appends a plain commit.
    pub(super) fn commit(&mut self, transaction: u32) -> (u64, u64) {
        self.record(1, 0, transaction, &0i64.to_le_bytes())
    }

    /// Appends a record of no meaning here, of this many bytes after its head.
    pub(super) fn filler(&mut self, bytes: usize) -> (u64, u64) {
        self.raw(10, 0, 700, &vec![0xA5; bytes])
    }

    /// Fills up the page, so that `room` bytes are left in it.
    pub(super) fn leave(&mut self, room: u64) {
        if self.end().is_multiple_of(PAGE_BYTES) {
            self.page(0, 0);
        }
        let left = PAGE_BYTES - self.end() % PAGE_BYTES;
        assert!(left >= room + 24, "{left} bytes are left");
        self.filler((left - room - 24) as usize);
    }

    /// Ends the segment.
    pub(super) fn switch(&mut self) -> (u64, u64) {
        let record = self.raw(0, 0x40, 0, &[]);
        let end = self.end().next_multiple_of(self.shape.segment_bytes.get());
        self.bytes.resize((end - self.start) as usize, 0);
        record
    }

    /// Begins a record that goes over this page's end, gives it up there, and says so on the next page.
    pub(super) fn abandon(&mut self, named: Option<u64>) -> u64 {
        let record = self.encode(10, 0, 700, &vec![0xA5; 3 * PAGE_BYTES as usize]);
        let start = self.end();
        let room = (PAGE_BYTES - start % PAGE_BYTES) as usize;
        self.bytes.extend(&record[..room]);
        self.page(8, 0);
        let mut data = named.unwrap_or(start).to_le_bytes().to_vec();
        data.extend(1_000_000i64.to_le_bytes());
        self.record(0, 0xD0, 0, &data);
        start
    }
}

/// Main data with its head, as short as it can be.
pub(super) fn main(data: &[u8]) -> Vec<u8> {
    let mut body = match u8::try_from(data.len()) {
        Ok(length) => vec![255, length],
        Err(_) => {
            let mut head = vec![254];
            head.extend((data.len() as u32).to_le_bytes());
            head
        }
    };
    body.extend(data);
    body
}

/// Decodes bytes in pieces that end at these places.
pub(super) fn decode(
    decoder: &mut LogDecoder,
    bytes: &[u8],
    cuts: &[usize],
) -> (Vec<LogEvent>, Result<(), LogError>) {
    let mut events = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        let to = to.clamp(from, bytes.len());
        if let Err(error) = decoder.push(&bytes[from..to], &mut |event| events.push(event)) {
            return (events, Err(error));
        }
        from = to;
    }
    (events, Ok(()))
}

/// Decodes all bytes of a log, which must be right.
pub(super) fn events(log: &Handmade) -> Vec<LogEvent> {
    let (events, result) = decode(&mut log.decoder(), &log.bytes, &[]);
    result.unwrap();
    events
}

/// Where the records that were told of start and end.
pub(super) fn seen(events: &[LogEvent]) -> Vec<(u64, u64)> {
    let records = events.iter().filter(|e| matches!(e.what, Happened::Record(_)));
    records.map(|e| (e.start.get(), e.end.get())).collect()
}

/// What else was told of.
pub(super) fn meanings(events: &[LogEvent]) -> Vec<&Happened> {
    events.iter().map(|e| &e.what).filter(|w| !matches!(w, Happened::Record(_))).collect()
}
