//! Reading an incarnation's journal: chunks by number, the end, and the keys that open them.
//!
//! What always holds: a chunk that is given out has its checksums, its place (store, incarnation, number) and its own steps of
//! the chain verified; that it continues the chunk before is [`follows`], which whoever walks the journal asks. A chunk that was listed and is not found is doubt, asked for again, and never taken for the end.
//! What it does not do: it never writes, and it does not know what the log's bytes mean.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::JournalError;
use crate::format::body::{self, IncarnationRecord, OpeningBody, TimelineBody};
use crate::format::{ChainValue, Cipher, DataKey, Decoded, FormatError, Header, Kind, Unlock};
use crate::identity::{Generation, IncarnationId, Sequence, StoreId};
use crate::layout::Layout;
use crate::position::Timeline;
use crate::registry::Repository;
use crate::store::{Key, ObjectStore, StoreError};

/// How often a listed object that is not found is asked for again, and how long between: a listing may run ahead of
/// reads on some stores for a second or two.
const DOUBT_TRIES: u32 = 5;
const DOUBT_PAUSE: Duration = Duration::from_millis(400);

/// One incarnation's journal in one store, to be read.
#[derive(Debug, Clone)]
pub struct Reader {
    store: Arc<dyn ObjectStore>,
    store_id: StoreId,
    incarnation: IncarnationId,
    genesis: ChainValue,
    layout: Layout,
}

impl Reader {
    /// The journal of the incarnation that this record founded. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// Never in practice: every name is a key.
    pub fn new(repository: &Repository, record: &IncarnationRecord) -> Result<Self, JournalError> {
        let layout = Layout::new(&record.database, record.incarnation)?;
        Ok(Self {
            store: Arc::clone(repository.store()),
            store_id: repository.id(),
            incarnation: record.incarnation,
            genesis: ChainValue::genesis(record),
            layout,
        })
    }

    /// The names of the incarnation's objects.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The store's id.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// The incarnation's id.
    pub fn incarnation(&self) -> IncarnationId {
        self.incarnation
    }

    /// The chain value before the first chunk.
    pub fn genesis(&self) -> ChainValue {
        self.genesis
    }

    /// One chunk, whole and in its place.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the store has no such number; [`JournalError::Object`] or
    /// [`JournalError::Misplaced`] when its bytes are not what was written there.
    pub async fn chunk(&self, sequence: Sequence) -> Result<Decoded, JournalError> {
        let key = self.layout.chunk(sequence)?;
        let bytes = self.store.get(&key).await?;
        self.check(&key, sequence, bytes)
    }

    /// A chunk that a listing or a later chunk says is there: not found is doubt.
    ///
    /// # Errors
    /// [`JournalError::Hole`] when it stays away; otherwise as [`chunk`](Self::chunk).
    pub async fn expected_chunk(&self, sequence: Sequence) -> Result<Decoded, JournalError> {
        for _ in 0..DOUBT_TRIES {
            match self.chunk(sequence).await {
                Err(JournalError::Store(StoreError::NotFound { .. })) => {
                    tokio::time::sleep(DOUBT_PAUSE).await
                }
                other => return other,
            }
        }
        Err(JournalError::Hole { missing: sequence })
    }

    /// Checks bytes that were read at a chunk's name.
    pub(crate) fn check(&self, key: &Key, sequence: Sequence, bytes: Bytes) -> Result<Decoded, JournalError> {
        let decoded =
            Decoded::parse(bytes).map_err(|source| JournalError::Object { key: key.clone(), source })?;
        let header = decoded.header();
        let misplaced = if !header.kind.is_chunk() {
            Some("kind")
        } else if header.number != sequence {
            Some("number")
        } else if header.store != self.store_id {
            Some("store id")
        } else if header.incarnation != self.incarnation {
            Some("incarnation id")
        } else {
            None
        };
        match misplaced {
            Some(field) => Err(JournalError::Misplaced { key: key.clone(), field }),
            None => Ok(decoded),
        }
    }

    /// The journal's last chunk, or `None` while there is none.
    ///
    /// Numbers are dense, so the end is found by galloping and halving over "is there an object"; a listing then shows
    /// whether anything stands behind it.
    ///
    /// # Errors
    /// [`JournalError::Hole`] when the number behind the end is missing but later ones are there;
    /// [`JournalError::Broken`] when the last chunk does not continue the one before it.
    pub async fn last(&self) -> Result<Option<Decoded>, JournalError> {
        let mut end = self.end().await?;
        loop {
            let after = end.get().checked_sub(1).map(Sequence::new);
            let after_key = after.map(|number| self.layout.chunk(number)).transpose()?;
            let behind = self.store.list(self.layout.journal(), after_key.as_ref(), Some(1)).await?;
            match behind.first().and_then(|listed| listed.key.name().parse::<Sequence>().ok()) {
                // Another writer appended meanwhile.
                Some(number) if number == end => end = number.next().unwrap_or(number),
                Some(_) => match self.expected_chunk(end).await {
                    Ok(_) => end = end.next().unwrap_or(end),
                    Err(why) => return Err(why),
                },
                None => break,
            }
        }
        let Some(last) = end.get().checked_sub(1).map(Sequence::new) else { return Ok(None) };
        let chunk = self.expected_chunk(last).await?;
        match last.get().checked_sub(1).map(Sequence::new) {
            None if chunk.header().before == self.genesis() => {}
            None => return Err(JournalError::Broken { before: last, at: last }),
            Some(before) => {
                self.check_follows(self.expected_chunk(before).await?.header(), chunk.header())?
            }
        }
        Ok(Some(chunk))
    }

    /// The first number without an object.
    async fn end(&self) -> Result<Sequence, JournalError> {
        let (mut present, mut absent) = (0u64, 1u64);
        while self.is_there(Sequence::new(absent - 1)).await? {
            present = absent;
            absent = absent.saturating_mul(2);
        }
        // Everything below `present` is there; the object before `absent` is not.
        while present + 1 < absent {
            let middle = present + (absent - present) / 2;
            match self.is_there(Sequence::new(middle - 1)).await? {
                true => present = middle,
                false => absent = middle,
            }
        }
        Ok(Sequence::new(present))
    }

    async fn is_there(&self, sequence: Sequence) -> Result<bool, JournalError> {
        match self.store.size(&self.layout.chunk(sequence)?).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(why) => Err(why.into()),
        }
    }

    /// Whether `next` continues `former`, in its chain, its number, its writer and its range.
    ///
    /// # Errors
    /// [`JournalError::Broken`] when it does not.
    pub fn check_follows(&self, former: &Header, next: &Header) -> Result<(), JournalError> {
        match follows(former, next) {
            true => Ok(()),
            false => Err(JournalError::Broken { before: former.number, at: next.number }),
        }
    }

    /// The numbers that a listing shows behind `after`, checked to be dense. A hole that stays when the missing number is
    /// asked for is an error.
    ///
    /// # Errors
    /// [`JournalError::Hole`] names the first missing number.
    pub async fn listed(&self, after: Option<Sequence>) -> Result<Vec<Sequence>, JournalError> {
        let after_key = after.map(|number| self.layout.chunk(number)).transpose()?;
        let listed = self.store.list(self.layout.journal(), after_key.as_ref(), None).await?;
        let mut numbers: Vec<Sequence> = Vec::with_capacity(listed.len());
        let mut wanted = after.map_or(Some(Sequence::FIRST), Sequence::next);
        // Names that are no number are not ours; a reader is not stopped by them, verify reports them.
        for number in listed.iter().filter_map(|l| l.key.name().parse::<Sequence>().ok()) {
            while let Some(missing) = wanted.filter(|wanted| *wanted < number) {
                // Listed around but not itself: the listing may lag. Ask for it by name.
                self.expected_chunk(missing).await?;
                numbers.push(missing);
                wanted = missing.next();
            }
            numbers.push(number);
            wanted = number.next();
        }
        Ok(numbers)
    }

    /// The first chunk up to `at` for which `holds`, found by halving: once it holds it must hold for every later chunk, as
    /// it does for "generation at least" and "timeline at least". `at` itself when it holds for none before.
    ///
    /// # Errors
    /// As [`expected_chunk`](Self::expected_chunk).
    pub async fn first_where(
        &self,
        at: Sequence,
        holds: impl Fn(&Header) -> bool + Send,
    ) -> Result<Decoded, JournalError> {
        let (mut low, mut high) = (0, at.get());
        while low < high {
            let middle = low + (high - low) / 2;
            match holds(self.expected_chunk(Sequence::new(middle)).await?.header()) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        self.expected_chunk(Sequence::new(low)).await
    }

    /// The opening of `generation`. Generations never fall along the numbers.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`] when no such generation opened at or before `at`.
    pub async fn opening(&self, generation: Generation, at: Sequence) -> Result<OpeningBody, JournalError> {
        let chunk = self.first_where(at, |header| header.generation >= generation).await?;
        let header = chunk.header();
        if header.generation != generation || header.kind != Kind::Opening {
            return Err(JournalError::NotHeld { what: format!("the opening of generation {generation}") });
        }
        self.body(&chunk)
    }

    /// The chunk that began `timeline`; `None` when the journal began on it without one. Timelines never fall along the
    /// numbers.
    ///
    /// # Errors
    /// As [`expected_chunk`](Self::expected_chunk); [`JournalError::Object`] when its body does not read.
    pub async fn branch(
        &self,
        timeline: Timeline,
        at: Sequence,
    ) -> Result<Option<TimelineBody>, JournalError> {
        let mut chunk = self.first_where(at, |header| header.timeline >= timeline).await?;
        loop {
            let header = chunk.header();
            match header.kind {
                _ if header.timeline != timeline => return Ok(None),
                Kind::Timeline => return self.body(&chunk).map(Some),
                // A journal that begins on a later timeline has its opening before the timeline's chunk.
                Kind::Opening if header.number < at => {}
                _ => return Ok(None),
            }
            let next = header.number.next().unwrap_or(at);
            chunk = self.expected_chunk(next).await?;
        }
    }

    /// The JSON body of an opening, timeline or gap chunk.
    ///
    /// # Errors
    /// [`JournalError::Object`] when it does not read.
    pub fn body<T: serde::de::DeserializeOwned>(&self, chunk: &Decoded) -> Result<T, JournalError> {
        let read = chunk.plain(0, None).and_then(|plain| body::from_json("chunk's body", &plain));
        let key = self.layout.chunk(chunk.header().number)?;
        read.map_err(|source| JournalError::Object { key, source })
    }
}

/// Whether `next` continues `former`: the number behind it, its chain value, its writer unless it is an opening of a higher
/// generation, and its range where the former's ended. A timeline's chunk alone may step back, to its fork.
pub fn follows(former: &Header, next: &Header) -> bool {
    let same_writer = next.generation == former.generation && next.writer == former.writer;
    let same_place = next.timeline == former.timeline && next.start == former.end;
    former.number.next() == Some(next.number)
        && next.before == former.after
        && match next.kind {
            Kind::Opening => next.generation > former.generation && same_place,
            Kind::Data | Kind::Gap => same_writer && same_place,
            Kind::Timeline => same_writer && next.timeline >= former.timeline,
            _ => false,
        }
}

/// The data keys of journals' generations, opened as they are met.
#[derive(Debug)]
pub struct Keyring {
    unlock: Unlock,
    opened: HashMap<(IncarnationId, Generation), Option<DataKey>>,
}

impl Keyring {
    /// A ring that opens data keys with these private keys.
    pub fn new(unlock: Unlock) -> Self {
        Self { unlock, opened: HashMap::new() }
    }

    /// The data key under which a data chunk is sealed; `None` when its generation does not encrypt, and for other chunks, which
    /// never are.
    ///
    /// The generation's opening decides, not the chunk: a chunk in the clear among sealed ones is a forgery.
    ///
    /// # Errors
    /// [`JournalError::Object`] with [`FormatError::KeyMissing`] or [`FormatError::Key`] when no private key at hand
    /// opens the generation's, or with [`FormatError::Field`] when chunk and opening do not agree.
    pub async fn for_chunk(
        &mut self,
        reader: &Reader,
        header: &Header,
    ) -> Result<Option<DataKey>, JournalError> {
        if header.kind != Kind::Data {
            return Ok(None);
        }
        let at = (reader.incarnation(), header.generation);
        let key = reader.layout().chunk(header.number)?;
        let bad = |source| JournalError::Object { key: key.clone(), source };
        let data_key = match self.opened.get(&at) {
            Some(data_key) => data_key.clone(),
            None => {
                let opening = reader.opening(header.generation, header.number).await?;
                let wrapped = opening.key.as_ref();
                let data_key = wrapped.map(|wrapped| self.unlock.unwrap(wrapped)).transpose().map_err(bad)?;
                self.opened.insert(at, data_key.clone());
                data_key
            }
        };
        match data_key.is_some() == (header.cipher == Cipher::Aes256Gcm) {
            true => Ok(data_key),
            false => Err(bad(FormatError::Field { field: "cipher" })),
        }
    }
}
