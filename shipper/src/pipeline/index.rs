//! Noting what is in stored chunks, beside the stream: the journal's index.
//!
//! What always holds: nothing waits for it. It is told of chunks that the journal confirmed, with what the pipeline's own decoder saw in
//! them; what it cannot take in time is in no index, and is decoded by whoever asks. It ends when the pipeline does, which gives it
//! what merging gets too. Memory is bounded by [`WAITING_BYTES`] and what [`Indexer`] holds. A crash here leaves the last run
//! without an index, and so does whatever the decoder did not see from a chunk's first byte on: pushed files, and the chunks of
//! another process.

use std::sync::Arc;
use std::time::Duration;

use farshore_engines::event::LogEvent;
use farshore_engines::indexed;
use farshore_journal::JournalError;
use farshore_journal::Offset;
use farshore_journal::format::Header;
use farshore_journal::format::index::{Entry, Whole};
use farshore_journal::index::{IndexLimits, Indexer, Noted, Ready, Sheet};
use farshore_journal::layout::Layout;
use farshore_journal::store::{ObjectStore, StoreError};
use farshore_journal::writer::{Place, Writer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::ShipError;

/// Confirmed chunks that wait to be taken in, while an index is being put, and about the bytes of their entries. Full: the next are
/// in no index.
const WAITING: usize = 256;
const WAITING_BYTES: usize = 4 << 20;
/// How long an index may wait for its store. Its run has none then.
const PUT: Duration = Duration::from_secs(60);

/// What the decoder saw and is not yet in a chunk.
#[derive(Default)]
pub(super) struct Notes {
    seen: Vec<Entry>,
    cut: Option<Sheet>,
}

impl Notes {
    /// Forgets everything: what was seen is seen again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps what an index lists.
    pub fn note(&mut self, event: &LogEvent) {
        self.seen.extend(indexed::entry(event));
    }

    /// Forgets what ends in chunks that the journal held before.
    pub fn forget(&mut self, stored: Offset) {
        self.seen.retain(|entry| entry.end > stored);
    }

    /// Everything seen so far is in the chunk that is sent next: the decoder stands at its last byte.
    pub fn cut(&mut self, whole: Option<Whole>) {
        self.cut = Some(Sheet { entries: std::mem::take(&mut self.seen), whole });
    }

    /// What was cut for the chunk that is sent now; none when nobody decoded it.
    pub fn take(&mut self) -> Option<Sheet> {
        self.cut.take()
    }
}

/// The store that a journal is in, and the names it has there.
type Home = (Arc<dyn ObjectStore>, Layout);

/// A confirmed chunk, and the journal it is of.
#[derive(Debug)]
pub(super) struct Told {
    home: Home,
    chunk: Noted,
    _room: OwnedSemaphorePermit,
}

/// The pipeline's end of the channel.
#[derive(Debug, Clone)]
pub(super) struct Tell {
    sender: mpsc::Sender<Told>,
    /// Bytes of entries that may still wait.
    room: Arc<Semaphore>,
}

impl Tell {
    /// Tells of a confirmed chunk. Never waits.
    pub fn confirmed(&self, writer: &Writer, place: &Place, chunk: &Header, sheet: Sheet) {
        let bytes: usize = sheet.entries.iter().map(Entry::about_bytes).sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let told = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok().and_then(|room| {
            let home = (Arc::clone(writer.reader().store()), writer.reader().layout().clone());
            self.sender.try_send(Told { home, chunk: Noted::new(place, chunk, sheet), _room: room }).ok()
        });
        if told.is_none() {
            tracing::debug!(chunk = %chunk.number, "a chunk is in no index: indexing is behind");
        }
    }
}

/// The channel, and what is at its other end.
pub(super) fn channel(limits: IndexLimits) -> (Tell, Indexing) {
    let (sender, told) = mpsc::channel(WAITING);
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    (Tell { sender, room }, Indexing { told, indexer: Indexer::new(limits), home: None })
}

/// Takes in confirmed chunks and puts indexes.
#[derive(Debug)]
pub(super) struct Indexing {
    told: mpsc::Receiver<Told>,
    indexer: Indexer,
    home: Option<Home>,
}

impl Indexing {
    /// Runs until the pipeline is gone.
    pub async fn run(mut self) {
        while let Some(told) = self.told.recv().await {
            if self.home.as_ref().is_some_and(|(_, layout)| *layout != told.home.1) {
                // Another incarnation began: the run belongs to the one before.
                let last = self.indexer.close();
                self.put(last).await;
            }
            self.home = Some(told.home);
            let ready = self.indexer.add(told.chunk);
            self.put(ready).await;
        }
        let last = self.indexer.close();
        self.put(last).await;
    }

    async fn put(&self, ready: Vec<Ready>) {
        let Some(home) = &self.home else { return };
        for ready in ready {
            match tokio::time::timeout(PUT, indexed(ready, home)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::warn!(error = %why, "a run of chunks has no index"),
                Err(_) => tracing::warn!("a run of chunks has no index: the store did not take it"),
            }
        }
    }
}

async fn indexed(ready: Ready, (store, layout): &Home) -> Result<(), ShipError> {
    let encoded = tokio::task::spawn_blocking(move || ready.encode()).await;
    let index = encoded.map_err(|_| ShipError::TaskEnded { what: "indexing" })??;
    let trouble = |why: &StoreError| tracing::debug!(error = %why, "an index waits for its store");
    match index.put(&**store, layout, &trouble).await {
        // Whichever stands speaks of the same chunks, and is no more than a hint.
        Err(JournalError::Another { .. }) | Ok(()) => Ok(()),
        Err(why) => Err(why.into()),
    }
}
