//! Where a restore reads from: one incarnation of a database in one store, and the private keys at hand.
//!
//! What always holds of what is read here: it has its checksums, its place and its chain verified, and is opened with the
//! right key; what cannot be opened is an error, never passed over.

use std::sync::{Arc, Mutex as Short, PoisonError};

use farshore_engines::log::{Shape, ShapeError};
use farshore_journal::chunk::Chunk;
use farshore_journal::format::Unlock;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::Repository;
use farshore_journal::store::StoreError;
use farshore_journal::{JournalError, Sequence};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::ahead::Fetched;

/// Chunks fetched ahead at most, in order: enough to hide a distant store's answer time.
pub(crate) const AHEAD: usize = 6;

/// One incarnation in a store, to be restored from.
#[derive(Debug, Clone)]
pub struct Source {
    reader: Reader,
    record: IncarnationRecord,
    unlock: Unlock,
    keys: Arc<Mutex<Keyring>>,
    /// What the ring goes on with once it is taken again: it is held while the store is searched, and a store may hang.
    next_keys: Arc<Short<Option<Unlock>>>,
    shape: Shape,
    without_index: bool,
    confined: bool,
}

/// An incarnation that cannot be restored by this build.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its journal cannot be addressed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its record names a log that is not known here.
    #[error(
        "the incarnation is of engine `{engine}`, major {major}, identity `{identity}`, whose log this build does not read"
    )]
    Shape {
        /// The engine.
        engine: String,
        /// Its major version.
        major: u32,
        /// What it calls itself.
        identity: String,
        /// Why not.
        #[source]
        source: ShapeError,
    },
}

impl Source {
    /// The incarnation of `record`. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// [`SourceError`] when its engine, or that engine's major, is none that this build knows.
    pub fn new(
        repository: &Repository,
        record: IncarnationRecord,
        unlock: Unlock,
    ) -> Result<Self, SourceError> {
        let shape = Shape::of(&record).map_err(|source| SourceError::Shape {
            engine: record.engine.clone(),
            major: record.major,
            identity: record.identity.clone(),
            source,
        })?;
        let reader = Reader::new(repository, &record)?;
        let keys = Arc::new(Mutex::new(Keyring::new(unlock.clone())));
        let next_keys = Arc::default();
        Ok(Self { reader, record, unlock, keys, next_keys, shape, without_index: false, confined: false })
    }

    /// The journal.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The incarnation.
    pub fn record(&self) -> &IncarnationRecord {
        &self.record
    }

    /// The private keys.
    pub fn unlock(&self) -> &Unlock {
        &self.unlock
    }

    /// What its log looks like.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Plans as if the journal had no index: all log is decoded.
    #[must_use]
    pub fn without_index(mut self) -> Self {
        self.without_index = true;
        self
    }

    /// Plans and restores only what stays in its directory and in the places that were given to the base's tablespaces: for whoever promised
    /// where a copy is, and that it can be removed.
    #[must_use]
    pub fn confined(mut self) -> Self {
        self.confined = true;
        self
    }

    /// Whether a copy must stay where it was put.
    pub fn is_confined(&self) -> bool {
        self.confined
    }

    /// Whether a plan asks the journal's index.
    pub fn asks_index(&self) -> bool {
        !self.without_index
    }

    /// Opens chunks, for all clones, with these private keys from now on: what their file holds may have changed. A chunk that is being opened meanwhile may be opened with the former ones still.
    pub fn go_on_with(&self, unlock: &Unlock) {
        *self.next_keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(unlock.clone());
    }

    /// The ring of data keys that were opened so far, with the private keys as they are now.
    pub(crate) async fn keys(&self) -> MutexGuard<'_, Keyring> {
        let mut keys = self.keys.lock().await;
        let next = self.next_keys.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(next) = next {
            keys.go_on_with(next);
        }
        keys
    }

    /// A chunk, and the key that opens it.
    pub(crate) async fn fetched(&self, number: Sequence) -> Result<Fetched, JournalError> {
        self.opened(self.reader.expected_chunk(number).await?).await
    }

    /// As [`fetched`](Self::fetched), of a chunk that may not be written yet.
    pub(crate) async fn fetched_if_there(&self, number: Sequence) -> Result<Option<Fetched>, JournalError> {
        match self.reader.chunk(number).await {
            Ok(chunk) => self.opened(chunk).await.map(Some),
            Err(JournalError::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(why) => Err(why),
        }
    }

    async fn opened(&self, chunk: Chunk) -> Result<Fetched, JournalError> {
        let header = chunk.header().clone();
        let key = self.keys().await.for_chunk(&self.reader, &header).await?;
        Ok(Fetched { header, chunk, key })
    }
}

/// Work that goes on while whoever wants its answer does something else, and ends when they let go of it.
#[allow(clippy::disallowed_methods)] // not detached: the handle is awaited, or aborts the task when it is dropped
pub(crate) fn in_a_task<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

pub(crate) fn cut_off() -> JournalError {
    JournalError::NotHeld { what: "the chunk: reading it was cut off".to_owned() }
}
