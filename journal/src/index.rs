//! The journal's index: objects that say which commits a run of chunks holds, so that nobody need decode the log to find one.
//!
//! What always holds: only chunks that the journal confirmed are indexed, only data chunks that follow one another, of one writer
//! and one timeline; nothing waits for an index, and nothing is lost with one: what none covers is decoded. It is a hint, never a
//! proof: its chain values say whose chunks it speaks of, not that it speaks the truth. Memory is bounded by [`IndexLimits`].
//! What it does not do: it does not know what a record is (`engines` does), and it decides nothing about restores.
//!
//! ```text
//!  chunks ─▶ level 0, a run of 16 MiB of log ─▶ 16 of them: level 1 ─▶ 16 of these: level 2 ...
//! ```
//! So a reader that passes a long stretch over reads a few dozen objects for each generation, of which there is one a day at least.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::error::JournalError;
use crate::format::index::{Claims, Entry, Index, MAX_LEVEL, Whole};
use crate::format::object::{ChainUse, Compression, Draft, Encoded, MAX_FRAME_BYTES, Piece};
use crate::format::{DataKey, Decoded, FormatError, Header, Kind, Mark};
use crate::identity::Sequence;
use crate::layout::Layout;
use crate::position::{Offset, ParseError};
use crate::put::put;
use crate::reader::{Keyring, Reader};
use crate::store::{ObjectStore, StoreError};
use crate::writer::Place;

/// Log after which a run is given up in which decoding could nowhere go on: more than a log segment's rest that was given up, or a record
/// that is worth it, takes.
const UNSURE_BYTES: u64 = 64 << 20;

/// An index's name: the first and the last chunk of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexName {
    /// The first chunk.
    pub first: Sequence,
    /// The last one.
    pub last: Sequence,
}

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for IndexName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new(text, "index's name (first-last in hexadecimal)");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let name = Self { first: first.parse()?, last: last.parse()? };
        if name.first > name.last { Err(wrong()) } else { Ok(name) }
    }
}

/// An index object that was read: in its place, whole, and opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// Its header: the run's range, and the chain values before its first and behind its last chunk.
    pub header: Header,
    /// What it says.
    pub index: Index,
}

/// No index is longer: it is one frame, with little around it.
const MAX_OBJECT_BYTES: u64 = 2 * MAX_FRAME_BYTES as u64;

/// Names of indexes, and whether there may be more behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// In order.
    pub names: Vec<IndexName>,
    /// The store has names that were not looked at.
    pub more: bool,
}

/// The names of the indexes from `first` on, in order, some of them: at most `limit` of the store's names are looked at. An object that
/// is longer than any index is none.
///
/// # Errors
/// When the store does not answer.
pub async fn names_from(reader: &Reader, first: Sequence, limit: usize) -> Result<Listed, JournalError> {
    let prefix = reader.layout().indexes()?;
    // The greatest name that sorts before all that begin with `first`.
    let after = first.get().checked_sub(1).map(Sequence::new);
    let after = after.map(|before| IndexName { first: before, last: Sequence::new(u64::MAX) });
    let after = after.map(|name| reader.layout().index(&name)).transpose()?;
    let listed = reader.store().list(&prefix, after.as_ref(), Some(limit)).await?;
    let more = listed.len() >= limit;
    let fit = listed.into_iter().filter(|listed| listed.size <= MAX_OBJECT_BYTES);
    Ok(Listed { names: fit.filter_map(|listed| listed.key.name().parse().ok()).collect(), more })
}

/// An index's object, checked as far as is possible without a key.
///
/// # Errors
/// [`JournalError::Object`] and [`JournalError::Misplaced`] when its bytes are not what its name says; failures of the store.
pub async fn object(reader: &Reader, name: &IndexName) -> Result<Decoded, JournalError> {
    let key = reader.layout().index(name)?;
    let bytes = reader.store().get(&key).await?;
    let decoded =
        Decoded::parse(bytes).map_err(|source| JournalError::Object { key: key.clone(), source })?;
    let header = decoded.header();
    let misplaced = if header.kind != Kind::Index {
        Some("kind")
    } else if header.store != reader.store_id() {
        Some("store id")
    } else if header.incarnation != reader.incarnation() {
        Some("incarnation id")
    } else if header.number != name.first {
        Some("number")
    } else if header.frames != 1 {
        Some("frames")
    } else {
        None
    };
    match misplaced {
        Some(field) => Err(JournalError::Misplaced { key, field }),
        None => Ok(decoded),
    }
}

/// Opens an index's object. As with a chunk, the generation's opening decides whether it must be sealed: one in the clear among
/// sealed chunks is a forgery.
///
/// # Errors
/// [`JournalError::Object`] when it does not open, [`JournalError::Misplaced`] when it says another run than its name; failures of
/// the store.
pub async fn open(
    reader: &Reader,
    keys: &mut Keyring,
    name: &IndexName,
    object: &Decoded,
) -> Result<Indexed, JournalError> {
    let key = reader.layout().index(name)?;
    let header = object.header().clone();
    // Sealed as the data chunks of its generation are.
    let data_key = keys.for_chunk(reader, &Header { kind: Kind::Data, ..header.clone() }).await?;
    let opened = object.plain(0, data_key.as_ref()).and_then(|plain| Index::decode(&header, &plain));
    let index = opened.map_err(|source| JournalError::Object { key: key.clone(), source })?;
    match index.last == name.last {
        true => Ok(Indexed { header, index }),
        false => Err(JournalError::Misplaced { key, field: "last chunk" }),
    }
}

/// Reads an index.
///
/// # Errors
/// As [`object`] and [`open`].
pub async fn read(reader: &Reader, keys: &mut Keyring, name: &IndexName) -> Result<Indexed, JournalError> {
    let object = object(reader, name).await?;
    open(reader, keys, name, &object).await
}

/// When a run becomes an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexLimits {
    /// Plain bytes of log from which on a run is closed: what a reader at its target decodes at most.
    pub bytes: u64,
    /// Chunks from which on it is closed.
    pub chunks: usize,
    /// Bytes of entries from which on it is closed, and that no index may have more of: reading one stays cheap.
    pub entry_bytes: usize,
    /// How many indexes make one of the next level.
    pub fan: usize,
    /// A run that ends early, of fewer chunks, is not worth an object.
    pub fewest: usize,
}

impl Default for IndexLimits {
    fn default() -> Self {
        Self { bytes: 16 << 20, chunks: 2048, entry_bytes: 256 << 10, fan: 16, fewest: 2 }
    }
}

/// What the decoder saw in a chunk.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// The entries whose records end in it.
    pub entries: Vec<Entry>,
    /// Where the last whole record up to the chunk's end ends, where decoding can go on from there; none inside of log that was
    /// given up, or where it is not known.
    pub whole: Option<Whole>,
}

/// A chunk that the journal confirmed, with what the decoder saw in it.
#[derive(Debug)]
pub struct Noted {
    header: Header,
    sheet: Sheet,
    compression: Compression,
    key: Option<DataKey>,
}

impl Noted {
    /// Of a data chunk that was encoded for `place` and confirmed.
    pub fn new(place: &Place, chunk: &Header, sheet: Sheet) -> Self {
        let (compression, key) = (place.compression(), place.key().cloned());
        Self { header: chunk.clone(), sheet, compression, key }
    }
}

/// Gathers what was seen in confirmed chunks. Holds one run's entries, and as many again for each level.
#[derive(Debug)]
pub struct Indexer {
    limits: IndexLimits,
    run: Option<Run>,
    levels: Vec<Option<Run>>,
}

/// A run of chunks, or of indexes of the level below.
#[derive(Debug)]
struct Run {
    level: u8,
    first: Header,
    compression: Compression,
    key: Option<DataKey>,
    /// The last chunk up to which everything is known: the index would end here.
    sure: Option<Sure>,
    entries: Vec<Entry>,
    claims: Claims,
    bytes: usize,
    members: usize,
    /// Level 0: the last chunk that was taken in, and what was seen behind the sure part.
    last: Header,
    open: Vec<Entry>,
    open_bytes: usize,
    /// The chunks that may hold the byte behind the last whole record, with their first bytes.
    starts: Vec<(Sequence, Offset)>,
}

#[derive(Debug, Clone)]
struct Sure {
    last: Header,
    whole: Whole,
    resume: Sequence,
}

impl Run {
    fn at(chunk: &Noted) -> Self {
        Self {
            level: 0,
            first: chunk.header.clone(),
            compression: chunk.compression,
            key: chunk.key.clone(),
            sure: None,
            entries: Vec::new(),
            claims: Claims::default(),
            bytes: 0,
            members: 0,
            last: chunk.header.clone(),
            open: Vec::new(),
            open_bytes: 0,
            starts: Vec::new(),
        }
    }

    fn continues(&self, header: &Header) -> bool {
        self.last.number.next() == Some(header.number)
            && self.last.after == header.before
            && self.last.link() == header.link()
            && self.last.end == header.start
    }

    fn take(&mut self, chunk: Noted) {
        let Noted { header, sheet, .. } = chunk;
        self.starts.push((header.number, header.start));
        self.open_bytes += sheet.entries.iter().map(Entry::about_bytes).sum::<usize>();
        self.open.extend(sheet.entries);
        self.members += 1;
        self.last = header;
        let Some(whole) = sheet.whole.filter(|whole| whole.to > self.first.start) else { return };
        let behind = self.last.number.next().unwrap_or(self.last.number);
        let held = self.starts.iter().rposition(|(_, start)| *start <= whole.to);
        let held = held.filter(|_| whole.to < self.last.end);
        let resume = held.and_then(|at| self.starts.get(at)).map_or(behind, |(number, _)| *number);
        self.starts.retain(|(number, _)| *number >= resume);
        for entry in self.open.drain(..) {
            self.claims.note(&entry);
            self.entries.push(entry);
        }
        self.bytes += std::mem::take(&mut self.open_bytes);
        self.sure = Some(Sure { last: self.last.clone(), whole, resume });
    }

    /// The run as one member of the next level.
    fn as_member(&self) -> Option<Self> {
        let sure = self.sure.clone()?;
        let entries = Index::thin(&self.entries);
        Some(Self {
            level: self.level + 1,
            first: self.first.clone(),
            compression: self.compression,
            key: self.key.clone(),
            bytes: entries.iter().map(Entry::about_bytes).sum(),
            entries,
            claims: self.claims,
            members: 1,
            last: sure.last.clone(),
            sure: Some(sure),
            open: Vec::new(),
            open_bytes: 0,
            starts: Vec::new(),
        })
    }

    /// Takes in the run behind, of the same level.
    fn join(&mut self, next: Self) {
        self.entries.extend(next.entries);
        self.entries = Index::thin(&self.entries);
        self.bytes = self.entries.iter().map(Entry::about_bytes).sum();
        self.claims.join(&next.claims);
        self.members += 1;
        self.last = next.last;
        self.sure = next.sure;
    }

    fn ready(self) -> Option<Ready> {
        let fits = self.bytes < MAX_FRAME_BYTES && self.sure.is_some();
        fits.then_some(Ready(Box::new(self)))
    }
}

impl Indexer {
    /// An empty one.
    pub fn new(limits: IndexLimits) -> Self {
        Self { limits, run: None, levels: Vec::new() }
    }

    /// Takes in a chunk. What is given back is ready to be put. One that does not continue the chunk before it, as when chunks
    /// between were not told of, begins a new run.
    pub fn add(&mut self, chunk: Noted) -> Vec<Ready> {
        let mut ready = Vec::new();
        let writable = chunk.header.kind == Kind::Data && chunk.sheet.entries.iter().all(Entry::is_writable);
        if !writable {
            self.close_into(&mut ready);
            return ready;
        }
        let bytes: usize = chunk.sheet.entries.iter().map(Entry::about_bytes).sum();
        let held = |run: &Run| run.bytes + run.open_bytes;
        // What does not fit goes into the next; one chunk that does not fit alone is indexed by none.
        let fits = self.run.as_ref().is_none_or(|run| held(run) + bytes < MAX_FRAME_BYTES);
        let continues = self.run.as_ref().is_none_or(|run| run.continues(&chunk.header));
        match continues {
            false => self.close_into(&mut ready),
            true if !fits => self.cut(true, &mut ready),
            true => {}
        }
        if bytes >= MAX_FRAME_BYTES {
            self.close_into(&mut ready);
            return ready;
        }
        let run = self.run.get_or_insert_with(|| Run::at(&chunk));
        run.take(chunk);
        let log = run.last.end.bytes_since(run.first.start).unwrap_or(0);
        let full = log >= self.limits.bytes
            || run.members >= self.limits.chunks
            || held(run) >= self.limits.entry_bytes;
        // Only where decoding can go on; a run that never comes there is given up.
        let sure = run.sure.as_ref().is_some_and(|sure| sure.last.number == run.last.number);
        if full && sure {
            self.cut(true, &mut ready);
        } else if full && (run.members >= 4 * self.limits.chunks || log >= UNSURE_BYTES) {
            self.close_into(&mut ready);
        }
        ready
    }

    /// Ends all runs: because something else than data follows, or the writer stops.
    pub fn close(&mut self) -> Vec<Ready> {
        let mut ready = Vec::new();
        self.close_into(&mut ready);
        ready
    }

    /// Closes the run at its last sure chunk. What was seen behind it is in no index, unless it is all there is.
    fn cut(&mut self, is_full: bool, ready: &mut Vec<Ready>) {
        let Some(run) = self.run.take() else { return };
        let whole_run = run.sure.as_ref().is_some_and(|sure| sure.last.number == run.last.number);
        let worth = (is_full || run.members >= self.limits.fewest) && run.sure.is_some();
        if !worth || run.bytes >= MAX_FRAME_BYTES {
            self.close_levels(0, ready);
            return;
        }
        self.stack(&run, 0, ready);
        ready.extend(run.ready());
        if !whole_run {
            self.close_levels(0, ready);
        }
    }

    fn close_into(&mut self, ready: &mut Vec<Ready>) {
        self.cut(false, ready);
        self.close_levels(0, ready);
    }

    /// Adds a closed run to the level above it.
    fn stack(&mut self, run: &Run, above: usize, ready: &mut Vec<Ready>) {
        if above >= usize::from(MAX_LEVEL) {
            return;
        }
        let Some(member) = run.as_member() else { return };
        if self.levels.len() <= above {
            self.levels.resize_with(above + 1, || None);
        }
        let Some(place) = self.levels.get_mut(above) else { return };
        let taken = match place.take() {
            Some(mut there)
                if there.continues(&member.first) && there.bytes + member.bytes < self.limits.entry_bytes =>
            {
                there.join(member);
                there
            }
            Some(there) => {
                ready.extend(Some(there).filter(|run| run.members > 1).and_then(Run::ready));
                self.close_levels(above + 1, ready);
                member
            }
            None => member,
        };
        if taken.members >= self.limits.fan {
            self.stack(&taken, above + 1, ready);
            ready.extend(taken.ready());
        } else if let Some(place) = self.levels.get_mut(above) {
            *place = Some(taken);
        }
    }

    fn close_levels(&mut self, from: usize, ready: &mut Vec<Ready>) {
        for place in self.levels.iter_mut().skip(from) {
            ready.extend(place.take().filter(|run| run.members > 1).and_then(Run::ready));
        }
    }
}

/// What an index of a run must say, found anew from the run's chunks: for whoever checks one.
#[derive(Debug)]
pub struct Anew {
    run: Run,
    /// Entries from which on a higher level's are thinned again.
    thin_at: usize,
}

impl Anew {
    /// Of an index of this level whose run begins with this chunk.
    pub fn of(level: u8, first: &Header) -> Self {
        const SOME: usize = 1000;
        let none = Noted {
            header: first.clone(),
            sheet: Sheet::default(),
            compression: Compression::None,
            key: None,
        };
        Self { run: Run { level, ..Run::at(&none) }, thin_at: SOME }
    }

    /// Whether this is the next chunk of the run.
    pub fn continues(&self, header: &Header) -> bool {
        match self.run.members {
            0 => self.run.first.number == header.number,
            _ => self.run.continues(header),
        }
    }

    /// Takes in the next chunk of the run.
    pub fn take(&mut self, header: &Header, sheet: Sheet) {
        let noted = Noted { header: header.clone(), sheet, compression: Compression::None, key: None };
        self.run.take(noted);
        if self.run.level > 0 && self.run.entries.len() >= self.thin_at {
            self.run.entries = Index::thin(&self.run.entries);
            self.thin_at = 2 * self.run.entries.len().max(self.thin_at / 2);
        }
    }

    /// What an index that ends with the last chunk taken says; `None` when none can end there.
    pub fn index(mut self) -> Option<Index> {
        if self.run.level > 0 {
            self.run.entries = Index::thin(&self.run.entries);
        }
        let Run { level, sure, entries, claims, last, .. } = self.run;
        let sure = sure.filter(|sure| sure.last.number == last.number)?;
        Some(Index { level, last: last.number, resume: sure.resume, whole: sure.whole, claims, entries })
    }
}

/// A run that is worth an index.
#[derive(Debug)]
pub struct Ready(Box<Run>);

impl Ready {
    /// Makes its object, and reads it again to see that it says what was noted.
    ///
    /// # Errors
    /// [`JournalError::Encode`] when it does not fit the format or does not read back.
    pub fn encode(self) -> Result<IndexObject, JournalError> {
        self.0.encode().map_err(|source| JournalError::Encode { what: "index", source })
    }
}

impl Run {
    fn encode(self) -> Result<IndexObject, FormatError> {
        let Some(Sure { last, whole, resume }) = self.sure else {
            return Err(FormatError::Field { field: "to" });
        };
        let index = Index {
            level: self.level,
            last: last.number,
            resume,
            whole,
            claims: self.claims,
            entries: self.entries,
        };
        let plain = index.encode(self.first.number, self.first.start, last.end)?;
        let draft = Draft {
            kind: Kind::Index,
            store: self.first.store,
            incarnation: self.first.incarnation,
            number: self.first.number,
            generation: self.first.generation,
            writer: self.first.writer,
            timeline: self.first.timeline,
            start: self.first.start,
            end: last.end,
            written_at: last.written_at,
            chain: ChainUse::Stated { before: self.first.before, after: last.after },
            mark: Mark::NONE,
        };
        let piece = Piece { end: plain.len() as u64, plain: &plain };
        let Encoded { bytes, .. } = draft.encode(&[piece], self.compression, self.key.as_ref())?;
        let object = Decoded::parse(bytes.clone())?;
        let read = Index::decode(object.header(), &object.plain(0, self.key.as_ref())?)?;
        if read != index {
            return Err(FormatError::Field { field: "entry" });
        }
        Ok(IndexObject { name: IndexName { first: self.first.number, last: last.number }, bytes })
    }
}

/// An index's object, ready to be put.
#[derive(Debug, Clone)]
pub struct IndexObject {
    /// Its name.
    pub name: IndexName,
    /// All its bytes.
    pub bytes: Bytes,
}

impl IndexObject {
    /// Puts it. On `Ok` it is durable. Failures that waiting mends are waited out, `trouble` being told: nothing waits for an index.
    ///
    /// # Errors
    /// Failures of the store that waiting does not mend; [`JournalError::Another`] when other bytes have its name.
    ///
    /// # Cancel safety
    /// Dropped midway, the index may or may not stand.
    pub async fn put(
        &self,
        store: &dyn ObjectStore,
        layout: &Layout,
        trouble: &(dyn Fn(&StoreError) + Send + Sync),
    ) -> Result<(), JournalError> {
        put(store, &layout.index(&self.name)?, &self.bytes, trouble).await
    }
}
