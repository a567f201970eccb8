//! Reading an incarnation's journal: chunks by number, the end, and the keys that open them.
//!
//! What always holds: a chunk that is given out has its checksums, its place (store, incarnation, number) and its chain
//! verified; a chunk that was listed and is not found is doubt, asked for again, and never taken for the end.
//! What it does not do: it never writes, and it does not know what the log's bytes mean.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::JournalError;
use crate::format::body::{self, OpeningBody, TimelineBody};
use crate::format::{ChainValue, DataKey, Decoded, FormatError, Header, Kind, Unlock};
use crate::identity::{DatabaseName, Generation, IncarnationId, Sequence, StoreId};
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
    layout: Layout,
}

impl Reader {
    /// The journal of `incarnation`. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// Never in practice: every name is a key.
    pub fn new(
        repository: &Repository,
        database: &DatabaseName,
        incarnation: IncarnationId,
    ) -> Result<Self, JournalError> {
        let layout = Layout::new(database, incarnation)?;
        Ok(Self { store: Arc::clone(repository.store()), store_id: repository.id(), incarnation, layout })
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
        ChainValue::genesis(self.store_id, self.incarnation)
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
    /// The listing only says where to begin: numbers behind it are asked for until one is not there.
    ///
    /// # Errors
    /// [`JournalError::Hole`] when a number below the end is missing; [`JournalError::Broken`] when the last chunk does
    /// not continue the one before it.
    pub async fn last(&self) -> Result<Option<Decoded>, JournalError> {
        let listed = self.listed(None).await?;
        let mut last = match listed.last() {
            None => None,
            Some(number) => Some(self.expected_chunk(*number).await?),
        };
        loop {
            let next = match &last {
                None => Sequence::FIRST,
                Some(chunk) => match chunk.header().number.next() {
                    Some(next) => next,
                    None => return Ok(last),
                },
            };
            match self.chunk(next).await {
                Ok(chunk) => last = Some(chunk),
                Err(JournalError::Store(StoreError::NotFound { .. })) => break,
                Err(why) => return Err(why),
            }
        }
        if let Some(chunk) = &last {
            self.check_continues(chunk.header()).await?;
        }
        Ok(last)
    }

    async fn check_continues(&self, header: &Header) -> Result<(), JournalError> {
        let Some(before) = header.number.get().checked_sub(1).map(Sequence::new) else {
            return match header.before == self.genesis() {
                true => Ok(()),
                false => Err(JournalError::Broken { before: header.number, at: header.number }),
            };
        };
        let former = self.expected_chunk(before).await?;
        match former.header().after == header.before {
            true => Ok(()),
            false => Err(JournalError::Broken { before, at: header.number }),
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
        let mut wanted = match after {
            None => Sequence::FIRST,
            Some(number) => number.next().unwrap_or(number),
        };
        // Names that are no number are not ours; a reader is not stopped by them, verify reports them.
        for number in listed.iter().filter_map(|l| l.key.name().parse::<Sequence>().ok()) {
            while wanted < number {
                // Listed around but not itself: the listing may lag. Ask for it by name.
                self.expected_chunk(wanted).await?;
                numbers.push(wanted);
                wanted = wanted.next().unwrap_or(wanted);
            }
            numbers.push(number);
            wanted = number.next().unwrap_or(number);
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
        // A takeover may stand between the old timeline's last chunk and the new one's first: openings keep the old number.
        let chunk = self.first_where(at, |header| header.timeline >= timeline).await?;
        let header = chunk.header();
        match header.timeline == timeline && header.kind == Kind::Timeline {
            true => self.body(&chunk).map(Some),
            false => Ok(None),
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

/// The data keys of a journal's generations, opened as they are met.
#[derive(Debug)]
pub struct Keyring {
    unlock: Unlock,
    opened: HashMap<Generation, Option<DataKey>>,
}

impl Keyring {
    /// A ring that opens data keys with these private keys.
    pub fn new(unlock: Unlock) -> Self {
        Self { unlock, opened: HashMap::new() }
    }

    /// The data key under which `chunk` is sealed; `None` when it is not sealed.
    ///
    /// # Errors
    /// [`JournalError::Object`] with [`FormatError::KeyMissing`] or [`FormatError::Key`] when no private key at hand
    /// opens the generation's.
    pub async fn for_chunk(
        &mut self,
        reader: &Reader,
        header: &Header,
    ) -> Result<Option<DataKey>, JournalError> {
        if header.cipher == crate::format::Cipher::Clear {
            return Ok(None);
        }
        if let Some(key) = self.opened.get(&header.generation) {
            return Ok(key.clone());
        }
        let opening = reader.opening(header.generation, header.number).await?;
        let key = reader.layout().chunk(header.number)?;
        let opened = match &opening.key {
            None => Err(FormatError::Key { why: "its opening names no key".to_owned() }),
            Some(wrapped) => self.unlock.unwrap(wrapped),
        };
        let opened = opened.map_err(|source| JournalError::Object { key, source })?;
        self.opened.insert(header.generation, Some(opened.clone()));
        Ok(Some(opened))
    }
}
