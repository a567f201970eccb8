//! What an index says of a run of chunks: every commit in it and whatever else a restore's plan asks of the log.
//!
//! ```text
//!  level, last chunk, resume, to, last record, next transaction     where the run ends, and how reading goes on behind it
//!  newest, newest commit, transactions, commits                     what it claims of all entries, also of those left out
//!  entries, each: kind and flags (1), end since the entry before, length, and what its kind has
//! ```
//! Numbers are LEB128, signed ones zigzag; times and transaction numbers are differences to the entry before. A level 0 index lists
//! everything; a higher one stands for a run of lower ones and leaves out what only a reader inside of its run needs.
//!
//! What always holds of a decoded one: entries' ends rise strictly and lie in the header's range; at level 0 the claims are those of
//! the entries. Memory is bounded by the bytes at hand, whatever they claim. That it is true of the log, nothing here knows:
//! an index is a hint.
//! Source: `FORMAT.md` section 11.

use super::FormatError;
use super::header::{Header, Kind};
use crate::identity::Sequence;
use crate::position::Offset;

/// The highest level: with sixteen indexes in each of the next level this is beyond any journal.
pub const MAX_LEVEL: u8 = 12;

/// A transaction's number as the log carries it, and whole where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// The low 32 bits.
    pub low: u32,
    /// All of it.
    pub full: Option<u64>,
}

/// One thing that a record of the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The record's first byte.
    pub start: Offset,
    /// The first byte behind it.
    pub end: Offset,
    /// What it says.
    pub what: What,
}

/// What a record says, as far as a plan asks. Times are microseconds since 1970 by the database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields' names say it; `engines` says whence they come
pub enum What {
    /// A transaction was committed; `prepared`: one that had been prepared.
    Commit { time: i64, number: Number, within: Vec<Number>, prepared: bool },
    /// A transaction was rolled back.
    Abort { time: i64, number: Number, within: Vec<Number>, prepared: bool },
    /// A transaction was prepared.
    Prepare { time: i64, number: Number, name: String },
    /// A named point.
    Point { time: i64, name: String },
    /// A checkpoint, from where its replay starts, and the next transaction's number.
    Checkpoint { time: i64, redo: Offset, next: u64 },
    /// Something with no more than a time that counts.
    Moment { time: i64 },
    /// A tablespace was made.
    Tablespace { oid: u32, location: String },
    /// Settings that a copy must match, in the engine's own order.
    Settings { values: [i32; 6] },
}

impl What {
    const fn tag(&self) -> u8 {
        match self {
            Self::Commit { .. } => 0,
            Self::Abort { .. } => 1,
            Self::Prepare { .. } => 2,
            Self::Point { .. } => 3,
            Self::Checkpoint { .. } => 4,
            Self::Moment { .. } => 5,
            Self::Tablespace { .. } => 6,
            Self::Settings { .. } => 7,
        }
    }

    const fn time(&self) -> Option<i64> {
        match self {
            Self::Commit { time, .. }
            | Self::Abort { time, .. }
            | Self::Prepare { time, .. }
            | Self::Point { time, .. }
            | Self::Checkpoint { time, .. }
            | Self::Moment { time } => Some(*time),
            Self::Tablespace { .. } | Self::Settings { .. } => None,
        }
    }

    /// Whether a higher level keeps it: all but what changes nothing for a reader whose target lies elsewhere.
    const fn is_kept(&self) -> bool {
        match self {
            Self::Commit { prepared, .. } | Self::Abort { prepared, .. } => *prepared,
            Self::Moment { .. } | Self::Point { .. } => false,
            Self::Prepare { .. }
            | Self::Checkpoint { .. }
            | Self::Tablespace { .. }
            | Self::Settings { .. } => true,
        }
    }
}

impl Entry {
    /// More bytes than it takes for as long as numbers are near one another, as they are.
    pub fn about_bytes(&self) -> usize {
        const PLAIN: usize = 20;
        PLAIN
            + match &self.what {
                What::Commit { within, .. } | What::Abort { within, .. } => 6 * within.len(),
                What::Prepare { name, .. } | What::Point { name, .. } => name.len(),
                What::Tablespace { location, .. } => location.len(),
                What::Settings { .. } => 20,
                What::Checkpoint { .. } | What::Moment { .. } => 0,
            }
    }

    /// Whether its numbers can be written: those of its sub-transactions are all known whole, or none is.
    pub fn is_writable(&self) -> bool {
        match &self.what {
            What::Commit { within, .. } | What::Abort { within, .. } => {
                within.iter().all(|one| one.full.is_some()) || within.iter().all(|one| one.full.is_none())
            }
            _ => true,
        }
    }
}

/// What is claimed of all entries of a run, those that a higher level leaves out among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claims {
    /// The newest time of all.
    pub newest: Option<i64>,
    /// The newest time of a commit.
    pub newest_commit: Option<i64>,
    /// The least and the greatest number of a transaction that ended, sub-transactions among them.
    pub numbers: Option<(u64, u64)>,
    /// A number was not known whole.
    pub unknown: bool,
    /// How many commits there are.
    pub commits: u64,
}

impl Claims {
    /// Counts an entry in.
    pub fn note(&mut self, entry: &Entry) {
        self.newest = self.newest.max(entry.what.time());
        if let What::Commit { time, .. } = entry.what {
            self.newest_commit = self.newest_commit.max(Some(time));
            self.commits = self.commits.saturating_add(1);
        }
        if let What::Commit { number, within, .. } | What::Abort { number, within, .. } = &entry.what {
            for one in std::iter::once(number).chain(within) {
                match one.full {
                    Some(full) => self.number(full, full),
                    None => self.unknown = true,
                }
            }
        }
    }

    /// Counts a run behind in.
    pub fn join(&mut self, next: &Self) {
        self.newest = self.newest.max(next.newest);
        self.newest_commit = self.newest_commit.max(next.newest_commit);
        if let Some((least, greatest)) = next.numbers {
            self.number(least, greatest);
        }
        self.unknown |= next.unknown;
        self.commits = self.commits.saturating_add(next.commits);
    }

    fn number(&mut self, least: u64, greatest: u64) {
        let (from, to) = self.numbers.unwrap_or((least, greatest));
        self.numbers = Some((from.min(least), to.max(greatest)));
    }

    /// Whether a transaction of this number may have ended in the run.
    pub fn may_hold(&self, number: u64) -> bool {
        self.unknown || self.numbers.is_some_and(|(least, greatest)| (least..=greatest).contains(&number))
    }
}

/// Where the last whole record of a run ends, and what decoding goes on with from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// The end of the last whole, checked record, or of the log segment that it gave up.
    pub to: Offset,
    /// Where that record starts.
    pub last_record: Offset,
    /// A transaction number that is near those behind, where one was known.
    pub next_transaction: Option<u64>,
}

/// What an index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// 0: everything is listed.
    pub level: u8,
    /// The last chunk of the run.
    pub last: Sequence,
    /// The chunk that holds the byte behind the last whole record; the one behind the run when that byte is not in it.
    pub resume: Sequence,
    /// Where the last whole record ends.
    pub whole: Whole,
    /// What holds of all entries.
    pub claims: Claims,
    /// What is listed, in log order.
    pub entries: Vec<Entry>,
}

impl Index {
    /// What the next level keeps of entries: what changes something for a reader that passes the run over, and the last commit.
    pub fn thin(entries: &[Entry]) -> Vec<Entry> {
        let last = entries.iter().rposition(|entry| matches!(entry.what, What::Commit { .. }));
        let kept = |(at, entry): &(usize, &Entry)| entry.what.is_kept() || Some(*at) == last;
        entries.iter().enumerate().filter(kept).map(|(_, entry)| entry.clone()).collect()
    }

    /// Its bytes, for an object whose range starts with this chunk and these offsets.
    ///
    /// # Errors
    /// [`FormatError::Field`] when it does not fit the range, or cannot be written.
    pub fn encode(&self, first: Sequence, start: Offset, end: Offset) -> Result<Vec<u8>, FormatError> {
        let wrong = |field| FormatError::Field { field };
        let mut out = Writer::default();
        out.byte(self.level);
        out.number(self.last.get().checked_sub(first.get()).ok_or(wrong("last chunk"))?);
        let behind = self.last.get().checked_add(1).ok_or(wrong("last chunk"))?;
        out.number(behind.checked_sub(self.resume.get()).ok_or(wrong("resume"))?);
        out.number(end.bytes_since(self.whole.to).ok_or(wrong("to"))?);
        out.number(self.whole.to.bytes_since(self.whole.last_record).ok_or(wrong("last record"))?);
        out.maybe(self.whole.next_transaction);
        out.maybe_signed(self.claims.newest);
        out.maybe_signed(self.claims.newest_commit);
        out.maybe(self.claims.numbers.map(|(least, _)| least));
        if let Some((least, greatest)) = self.claims.numbers {
            out.number(greatest.checked_sub(least).ok_or(wrong("numbers"))?);
        }
        out.byte(u8::from(self.claims.unknown));
        out.number(self.claims.commits);
        out.number(self.entries.len() as u64);
        let mut state = Differences::at(start);
        for entry in &self.entries {
            if !entry.is_writable() {
                return Err(wrong("sub-transactions"));
            }
            state.write(entry, &mut out).ok_or(wrong("entry"))?;
        }
        // What was written must read: an index that breaks the format's bounds must not reach a store.
        Ok(out.0)
    }

    /// Reads an index, to its last byte. `header` is its object's.
    ///
    /// # Errors
    /// [`FormatError::Field`] names the first thing that does not hold.
    pub fn decode(header: &Header, bytes: &[u8]) -> Result<Self, FormatError> {
        if header.kind != Kind::Index {
            return Err(FormatError::Field { field: "kind" });
        }
        Self::read(header.number, header.start, header.end, bytes)
    }

    fn read(first: Sequence, start: Offset, end: Offset, bytes: &[u8]) -> Result<Self, FormatError> {
        let wrong = |field| FormatError::Field { field };
        let mut from = Reader(bytes);
        let level = from.byte().filter(|level| *level <= MAX_LEVEL).ok_or(wrong("level"))?;
        let add = |base: u64, more: Option<u64>| base.checked_add(more?);
        let last =
            add(first.get(), from.number()).filter(|last| *last < u64::MAX).ok_or(wrong("last chunk"))?;
        let resume = from.number().and_then(|back| (last + 1).checked_sub(back)).ok_or(wrong("resume"))?;
        let to = from.number().and_then(|back| end.get().checked_sub(back)).ok_or(wrong("to"))?;
        let last_record = from.number().and_then(|back| to.checked_sub(back)).ok_or(wrong("last record"))?;
        if to <= start.get() || last_record >= to || resume < first.get() {
            return Err(wrong("to"));
        }
        let next_transaction = from.maybe().ok_or(wrong("next transaction"))?;
        let newest = from.maybe_signed().ok_or(wrong("newest"))?;
        let newest_commit = from.maybe_signed().ok_or(wrong("newest commit"))?;
        let numbers = match from.maybe().ok_or(wrong("numbers"))? {
            Some(least) => Some((least, add(least, from.number()).ok_or(wrong("numbers"))?)),
            None => None,
        };
        let unknown = from.byte().filter(|byte| *byte <= 1).ok_or(wrong("numbers"))? == 1;
        let commits = from.number().ok_or(wrong("commits"))?;
        let claims = Claims { newest, newest_commit, numbers, unknown, commits };
        let count = from.number().ok_or(wrong("entries"))?;
        // A count is only believed as far as there are bytes for it.
        let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(from.0.len() / 4));
        let mut state = Differences::at(start);
        for _ in 0..count {
            let entry = state.read(&mut from).ok_or(wrong("entry"))?;
            if entry.end.get() > to {
                return Err(wrong("entry"));
            }
            entries.push(entry);
        }
        if !from.0.is_empty() {
            return Err(wrong("entries"));
        }
        let mut listed = Claims::default();
        entries.iter().for_each(|entry| listed.note(entry));
        let agrees = match level {
            0 => listed == claims,
            _ => {
                let mut both = claims;
                both.join(&Claims { commits: 0, ..listed });
                both == claims && listed.commits <= claims.commits
            }
        };
        if !agrees {
            return Err(wrong("claims"));
        }
        let whole = Whole { to: Offset::new(to), last_record: Offset::new(last_record), next_transaction };
        Ok(Self { level, last: Sequence::new(last), resume: Sequence::new(resume), whole, claims, entries })
    }
}

const FLAG_PREPARED: u8 = 1 << 3;
const FLAG_UNKNOWN: u8 = 1 << 4;
const FLAG_WITHIN: u8 = 1 << 5;
const FLAG_WITHIN_UNKNOWN: u8 = 1 << 6;

/// What entries are written as differences to.
struct Differences {
    end: u64,
    time: i64,
    number: u64,
}

impl Differences {
    fn at(start: Offset) -> Self {
        Self { end: start.get(), time: 0, number: 0 }
    }

    fn write(&mut self, entry: &Entry, out: &mut Writer) -> Option<()> {
        let mut flags = entry.what.tag();
        if let What::Commit { number, within, prepared, .. } | What::Abort { number, within, prepared, .. } =
            &entry.what
        {
            flags |= if *prepared { FLAG_PREPARED } else { 0 };
            flags |= if number.full.is_none() { FLAG_UNKNOWN } else { 0 };
            flags |= match within.first().map(|one| one.full) {
                None => 0,
                Some(Some(_)) => FLAG_WITHIN,
                Some(None) => FLAG_WITHIN_UNKNOWN,
            };
        }
        if let What::Prepare { number: Number { full: None, .. }, .. } = entry.what {
            flags |= FLAG_UNKNOWN;
        }
        out.byte(flags);
        let since = entry.end.get().checked_sub(self.end).filter(|since| *since > 0)?;
        out.number(since);
        self.end = entry.end.get();
        out.number(entry.end.bytes_since(entry.start).filter(|bytes| *bytes > 0)?);
        match &entry.what {
            What::Commit { time, number, within, .. } | What::Abort { time, number, within, .. } => {
                self.put_time(*time, out);
                self.put_number(*number, out);
                if !within.is_empty() {
                    out.number(within.len() as u64);
                    within.iter().for_each(|one| self.put_number(*one, out));
                }
            }
            What::Prepare { time, number, name } => {
                self.put_time(*time, out);
                self.put_number(*number, out);
                out.text(name);
            }
            What::Point { time, name } => {
                self.put_time(*time, out);
                out.text(name);
            }
            What::Checkpoint { time, redo, next } => {
                self.put_time(*time, out);
                out.number(redo.get());
                out.number(*next);
            }
            What::Moment { time } => self.put_time(*time, out),
            What::Tablespace { oid, location } => {
                out.number(u64::from(*oid));
                out.text(location);
            }
            What::Settings { values } => values.iter().for_each(|value| out.signed(i64::from(*value))),
        }
        Some(())
    }

    fn put_time(&mut self, time: i64, out: &mut Writer) {
        out.signed(time.wrapping_sub(self.time));
        self.time = time;
    }

    #[allow(clippy::cast_possible_wrap)] // the difference on a ring is meant
    fn put_number(&mut self, number: Number, out: &mut Writer) {
        let value = number.full.unwrap_or(u64::from(number.low));
        out.signed(value.wrapping_sub(self.number) as i64);
        self.number = value;
    }

    fn read(&mut self, from: &mut Reader<'_>) -> Option<Entry> {
        let flags = from.byte()?;
        let since = from.number().filter(|since| *since > 0)?;
        self.end = self.end.checked_add(since)?;
        let bytes = from.number().filter(|bytes| *bytes > 0)?;
        let start = Offset::new(self.end.checked_sub(bytes)?);
        let (prepared, known) = (flags & FLAG_PREPARED != 0, flags & FLAG_UNKNOWN == 0);
        let what = match flags & 7 {
            tag @ (0 | 1) => {
                let time = self.take_time(from)?;
                let number = self.take_number(from, known)?;
                let within = match (flags & FLAG_WITHIN != 0, flags & FLAG_WITHIN_UNKNOWN != 0) {
                    (false, false) => Vec::new(),
                    (true, true) => return None,
                    (known, _) => self.take_numbers(from, known)?,
                };
                match tag {
                    0 => What::Commit { time, number, within, prepared },
                    _ => What::Abort { time, number, within, prepared },
                }
            }
            2 => {
                let time = self.take_time(from)?;
                let number = self.take_number(from, known)?;
                What::Prepare { time, number, name: from.text()? }
            }
            3 => What::Point { time: self.take_time(from)?, name: from.text()? },
            4 => {
                let time = self.take_time(from)?;
                What::Checkpoint { time, redo: Offset::new(from.number()?), next: from.number()? }
            }
            5 => What::Moment { time: self.take_time(from)? },
            6 => What::Tablespace { oid: u32::try_from(from.number()?).ok()?, location: from.text()? },
            _ => {
                let mut values = [0; 6];
                for value in &mut values {
                    *value = i32::try_from(from.signed()?).ok()?;
                }
                What::Settings { values }
            }
        };
        let allowed = match what {
            What::Commit { .. } | What::Abort { .. } => 0x7f,
            What::Prepare { .. } => 7 | FLAG_UNKNOWN,
            _ => 7,
        };
        (flags & !allowed == 0).then_some(Entry { start, end: Offset::new(self.end), what })
    }

    fn take_time(&mut self, from: &mut Reader<'_>) -> Option<i64> {
        self.time = self.time.wrapping_add(from.signed()?);
        Some(self.time)
    }

    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)] // the ring, and the low half, are meant
    fn take_number(&mut self, from: &mut Reader<'_>, known: bool) -> Option<Number> {
        self.number = self.number.wrapping_add(from.signed()? as u64);
        match known {
            true => Some(Number { low: self.number as u32, full: Some(self.number) }),
            false => Some(Number { low: u32::try_from(self.number).ok()?, full: None }),
        }
    }

    fn take_numbers(&mut self, from: &mut Reader<'_>, known: bool) -> Option<Vec<Number>> {
        let count = usize::try_from(from.number().filter(|count| *count > 0)?).ok()?;
        // Each takes a byte at least.
        if count > from.0.len() {
            return None;
        }
        (0..count).map(|_| self.take_number(from, known)).collect()
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    #[allow(clippy::cast_possible_truncation)] // seven bits at a time
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    #[allow(clippy::cast_sign_loss)] // zigzag
    fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    fn maybe(&mut self, value: Option<u64>) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            self.number(value);
        }
    }

    fn maybe_signed(&mut self, value: Option<i64>) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            self.signed(value);
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[allow(clippy::cast_possible_wrap)] // zigzag
    fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn maybe(&mut self) -> Option<Option<u64>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.number().map(Some),
            _ => None,
        }
    }

    fn maybe_signed(&mut self) -> Option<Option<i64>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.signed().map(Some),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let bytes = self.0.get(..length)?;
        self.0 = &self.0[length..];
        String::from_utf8(bytes.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: Sequence = Sequence::new(900);
    const START: Offset = Offset::new(1 << 40);

    fn number() -> impl Strategy<Value = Number> {
        prop_oneof![
            any::<u64>().prop_map(|full| Number { low: full as u32, full: Some(full) }),
            (700..2000u64).prop_map(|full| Number { low: full as u32, full: Some(full) }),
            any::<u32>().prop_map(|low| Number { low, full: None }),
        ]
    }

    fn within() -> impl Strategy<Value = Vec<Number>> {
        prop_oneof![
            Just(Vec::new()),
            prop::collection::vec(any::<u64>(), 1..5).prop_map(|all| all
                .into_iter()
                .map(|full| Number { low: full as u32, full: Some(full) })
                .collect()),
            prop::collection::vec(any::<u32>(), 1..5)
                .prop_map(|all| all.into_iter().map(|low| Number { low, full: None }).collect()),
        ]
    }

    fn what() -> impl Strategy<Value = What> {
        let time = prop_oneof![any::<i64>(), 1_700_000_000_000_000..1_800_000_000_000_000i64];
        let text = "[a-zé ]{0,12}";
        prop_oneof![
            6 => (time.clone(), number(), within(), any::<bool>())
                .prop_map(|(time, number, within, prepared)| What::Commit { time, number, within, prepared }),
            1 => (time.clone(), number(), within(), any::<bool>())
                .prop_map(|(time, number, within, prepared)| What::Abort { time, number, within, prepared }),
            1 => (time.clone(), number(), text).prop_map(|(time, number, name)| What::Prepare { time, number, name }),
            1 => (time.clone(), text).prop_map(|(time, name)| What::Point { time, name }),
            1 => (time.clone(), any::<u64>(), any::<u64>())
                .prop_map(|(time, redo, next)| What::Checkpoint { time, redo: Offset::new(redo), next }),
            1 => time.prop_map(|time| What::Moment { time }),
            1 => (any::<u32>(), text).prop_map(|(oid, location)| What::Tablespace { oid, location }),
            1 => any::<[i32; 6]>().prop_map(|values| What::Settings { values }),
        ]
    }

    prop_compose! {
        fn index()(
            whats in prop::collection::vec((what(), 1..5_000u64, 1..9_000u64), 0..60),
            chunks in 0..50u64,
            back in 0..4u64,
            tail in 0..9_000u64,
            next_transaction in any::<Option<u64>>(),
        ) -> (Index, Offset) {
            let mut end = START.get() + 8;
            let entries: Vec<Entry> = whats.into_iter().map(|(what, since, bytes)| {
                end += since;
                Entry { start: Offset::new(end - bytes), end: Offset::new(end), what }
            }).collect();
            let mut claims = Claims::default();
            entries.iter().for_each(|entry| claims.note(entry));
            let last = Sequence::new(FIRST.get() + chunks);
            let whole = Whole { to: Offset::new(end), last_record: Offset::new(end - 8), next_transaction };
            let resume = Sequence::new(last.get() + 1 - back.min(chunks + 1));
            (Index { level: 0, last, resume, whole, claims, entries }, Offset::new(end + tail))
        }
    }

    proptest! {
        #[test]
        fn an_index_reads_back_as_it_was_written((index, end) in index()) {
            let bytes = index.encode(FIRST, START, end).unwrap();
            prop_assert_eq!(Index::read(FIRST, START, end, &bytes).unwrap(), index);
        }

        #[test]
        fn a_higher_level_reads_back_and_keeps_what_passing_over_needs((index, end) in index()) {
            let higher = Index { level: 1, entries: Index::thin(&index.entries), ..index.clone() };
            let bytes = higher.encode(FIRST, START, end).unwrap();
            prop_assert_eq!(&Index::read(FIRST, START, end, &bytes).unwrap(), &higher);
            let commit = |entries: &[Entry]| {
                entries.iter().rfind(|entry| matches!(entry.what, What::Commit { .. })).cloned()
            };
            prop_assert_eq!(commit(&higher.entries), commit(&index.entries));
            let kept = |entries: &[Entry]| {
                entries.iter().filter(|entry| entry.what.is_kept()).cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(kept(&higher.entries), kept(&index.entries));
        }

        #[test]
        fn a_cut_or_longer_index_is_refused((index, end) in index(), at in any::<prop::sample::Index>()) {
            let mut bytes = index.encode(FIRST, START, end).unwrap();
            prop_assert!(Index::read(FIRST, START, end, &bytes[..at.index(bytes.len())]).is_err());
            bytes.push(0);
            prop_assert!(Index::read(FIRST, START, end, &bytes).is_err());
        }

        #[test]
        fn hostile_bytes_never_panic_and_what_reads_keeps_its_bounds(
            (index, end) in index(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = index.encode(FIRST, START, end).unwrap();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(read) = Index::read(FIRST, START, end, &bytes) {
                prop_assert!(read.entries.windows(2).all(|two| two[0].end < two[1].end));
                prop_assert!(read.entries.iter().all(|entry| entry.start < entry.end && entry.end <= read.whole.to));
                prop_assert!(read.whole.to <= end && read.last >= FIRST && read.resume >= FIRST);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _refused_or_not = Index::read(FIRST, START, Offset::new(START.get() + 99), &bytes);
        }
    }

    #[test]
    fn a_count_that_is_only_claimed_sets_no_memory_aside() {
        let whole = Whole { to: Offset::new(START.get() + 8), last_record: START, next_transaction: None };
        let empty = Index {
            level: 0,
            last: FIRST,
            resume: FIRST,
            whole,
            claims: Claims::default(),
            entries: Vec::new(),
        };
        let end = whole.to;
        let bytes = empty.encode(FIRST, START, end).unwrap();
        let mut hostile = bytes[..bytes.len() - 1].to_vec();
        hostile.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(
            Index::read(FIRST, START, end, &hostile).unwrap_err(),
            FormatError::Field { field: "entry" }
        );
    }

    #[test]
    fn claims_that_are_not_those_of_the_entries_are_refused() {
        let number = Number { low: 700, full: Some(700) };
        let commit = What::Commit { time: 5, number, within: Vec::new(), prepared: false };
        let at = |end: u64| Offset::new(START.get() + end);
        let entries = vec![Entry { start: at(8), end: at(40), what: commit }];
        let mut claims = Claims::default();
        claims.note(&entries[0]);
        let whole = Whole { to: at(48), last_record: at(40), next_transaction: Some(701) };
        let index = Index { level: 0, last: FIRST, resume: FIRST, whole, claims, entries };
        assert!(index.claims.may_hold(700) && !index.claims.may_hold(701));
        for lie in [
            Claims { newest_commit: Some(4), ..claims },
            Claims { numbers: Some((701, 702)), ..claims },
            Claims { numbers: None, ..claims },
            Claims { commits: 0, ..claims },
        ] {
            for level in [0, 1] {
                let lying = Index { level, claims: lie, ..index.clone() };
                let bytes = lying.encode(FIRST, START, at(64)).unwrap();
                let read = Index::read(FIRST, START, at(64), &bytes);
                assert_eq!(read.unwrap_err(), FormatError::Field { field: "claims" }, "{lie:?}");
            }
        }
    }
}
