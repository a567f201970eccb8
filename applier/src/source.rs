//! Where a restore reads from: one incarnation of a database in one store, and the private keys at hand.
//!
//! What always holds of what is read here: it has its checksums, its place and its chain verified, and is opened with the
//! right key; what cannot be opened is an error, never passed over.

use std::sync::Arc;

use bytes::Bytes;
use farshore_engines::postgres::log::{LogShape, Major, SegmentBytes, ShapeError};
use farshore_journal::chunk::Chunk;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::{FormatError, Header, Unlock};
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::Repository;
use farshore_journal::{JournalError, Sequence};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// Chunks fetched and decoded at a time, in order: enough to hide a distant store's answer time, few enough for memory.
pub(crate) const AHEAD: usize = 6;

/// One incarnation in a store, to be restored from.
#[derive(Debug, Clone)]
pub struct Source {
    reader: Reader,
    record: IncarnationRecord,
    unlock: Unlock,
    keys: Arc<Mutex<Keyring>>,
    shape: LogShape,
}

/// An incarnation that cannot be restored by this build.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its journal cannot be addressed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its record names a log that is not known here.
    #[error("the incarnation's record does not describe a PostgreSQL that can be read")]
    Shape(#[source] ShapeError),
    /// It is another engine's.
    #[error("the incarnation is of engine `{engine}`, identity `{identity}`: only postgres is restored here")]
    Engine {
        /// The engine.
        engine: String,
        /// What it calls itself.
        identity: String,
    },
}

/// A chunk and its plain bytes: the log's of a data chunk, the body's of others.
#[derive(Debug)]
pub(crate) struct Run {
    pub header: Header,
    pub plain: Bytes,
}

impl Source {
    /// The incarnation of `record`. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// [`SourceError`] when it is not a PostgreSQL of a known major.
    pub fn new(
        repository: &Repository,
        record: IncarnationRecord,
        unlock: Unlock,
    ) -> Result<Self, SourceError> {
        let identity = record.identity.parse().ok().filter(|_| record.engine == "postgres");
        let Some(system_identifier) = identity else {
            return Err(SourceError::Engine { engine: record.engine, identity: record.identity });
        };
        let shape = LogShape {
            major: Major::new(record.major).map_err(SourceError::Shape)?,
            segment_bytes: SegmentBytes::new(record.segment_bytes).map_err(SourceError::Shape)?,
            system_identifier,
        };
        let reader = Reader::new(repository, &record)?;
        let keys = Arc::new(Mutex::new(Keyring::new(unlock.clone())));
        Ok(Self { reader, record, unlock, keys, shape })
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
    pub fn shape(&self) -> LogShape {
        self.shape
    }

    /// The chunks of these numbers in order, each checked to continue the one before it, with their plain bytes.
    pub(crate) fn runs(
        &self,
        first: Sequence,
        last: Sequence,
    ) -> BoxStream<'static, Result<Run, JournalError>> {
        let source = self.clone();
        // Tasks of their own: whoever takes the runs may ask for a segment, or a key, that one of these is reading.
        let fetched = stream::iter(first.get()..=last.get()).map(move |number| {
            let source = source.clone();
            in_a_task(async move { source.run(Sequence::new(number)).await })
        });
        let mut before: Option<Header> = None;
        let checked = fetched.buffered(AHEAD).map(move |run| {
            let run = run.map_err(|_| cut_off())??;
            if let Some(former) = &before
                && former.after != run.header.before
            {
                return Err(JournalError::Broken { before: former.number, at: run.header.number });
            }
            before = Some(run.header.clone());
            Ok(run)
        });
        checked.boxed()
    }

    async fn run(&self, number: Sequence) -> Result<Run, JournalError> {
        let chunk = self.reader.expected_chunk(number).await?;
        let (header, merged) = (chunk.header().clone(), chunk.is_merged());
        let name = self.reader.layout().chunk(number)?;
        match self.decoded(chunk).await? {
            Ok(run) => Ok(run),
            // A segment that does not open, while the chunk that it was merged from still stands.
            Err(source) if merged => match self.reader.own_object(&header).await {
                Ok(chunk) => {
                    let decoded = self.decoded(chunk).await?;
                    decoded.map_err(|source| JournalError::Object { key: name, source })
                }
                Err(_) => Err(JournalError::Object { key: name, source }),
            },
            Err(source) => Err(JournalError::Object { key: name, source }),
        }
    }

    async fn decoded(&self, chunk: Chunk) -> Result<Result<Run, FormatError>, JournalError> {
        let key = self.keys.lock().await.for_chunk(&self.reader, chunk.header()).await?;
        let decode = move || {
            let plain = chunk.plain_all(key.as_ref())?;
            Ok(Run { header: chunk.header().clone(), plain: Bytes::from(plain) })
        };
        let decoded = tokio::task::spawn_blocking(decode).await;
        decoded.map_err(|_| cut_off())
    }
}

/// Work that goes on while whoever wants its answer does something else, and ends when they let go of it.
#[allow(clippy::disallowed_methods)] // not detached: the handle is awaited, or aborts the task when it is dropped
pub(crate) fn in_a_task<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

fn cut_off() -> JournalError {
    JournalError::NotHeld { what: "the chunk: reading it was cut off".to_owned() }
}
