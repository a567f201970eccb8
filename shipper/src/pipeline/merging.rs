//! Merging stored chunks into segments, beside the stream.
//!
//! What always holds: nothing waits for it. It is told of chunks that the journal confirmed; what it cannot take in time stays
//! unmerged, valid for ever. It ends when the pipeline does, which gives it [`LAST`] for what it has in hand. Memory is
//! bounded by [`WAITING_BYTES`], one run and its object. A crash here leaves chunks unmerged, or a segment that nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farshore_journal::JournalError;
use farshore_journal::format::object::Encoded;
use farshore_journal::layout::Layout;
use farshore_journal::merge::{Confirmed, MergeLimits, Merger, Ready};
use farshore_journal::store::{ObjectStore, StoreError};
use farshore_journal::writer::{Place, Writer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::ShipError;

/// Confirmed chunks that wait to be taken in, while a segment is being put, and their plain bytes. Full: the next are not merged.
const WAITING: usize = 256;
const WAITING_BYTES: usize = 4 << 20;
/// How long merging may take once its pipeline has ended: no shutdown is held up by a store that is away.
pub(super) const LAST: Duration = Duration::from_secs(2);
/// How long a segment may wait for its store. Its chunks stay unmerged then, and their bytes are let go of.
const PUT: Duration = Duration::from_secs(60);

/// The store that a journal is in, and the names it has there.
type Home = (Arc<dyn ObjectStore>, Layout);

/// A confirmed chunk, and the journal it is of.
#[derive(Debug)]
pub(super) struct Told {
    home: Home,
    chunk: Confirmed,
    _room: OwnedSemaphorePermit,
}

/// The pipeline's end of the channel.
#[derive(Debug, Clone)]
pub(super) struct Tell {
    sender: mpsc::Sender<Told>,
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
    limits: MergeLimits,
}

impl Tell {
    /// Whether such a chunk may be merged. What a large one was encoded from need not be kept: the run that it ends shows the hole
    /// by itself.
    pub fn takes(&self, chunk: &Encoded) -> bool {
        chunk.header.plain_bytes < self.limits.large
    }

    /// Tells of a confirmed chunk that was encoded from `log`, in pieces. Never waits.
    pub fn confirmed(&self, writer: &Writer, place: &Place, chunk: &Encoded, log: Vec<Bytes>) {
        let bytes = u32::try_from(chunk.header.plain_bytes).unwrap_or(u32::MAX);
        let told = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok().and_then(|room| {
            let home = (Arc::clone(writer.reader().store()), writer.reader().layout().clone());
            self.sender.try_send(Told { home, chunk: Confirmed::new(place, chunk, log), _room: room }).ok()
        });
        if told.is_none() {
            tracing::debug!(chunk = %place.number(), "a chunk stays unmerged: merging is behind");
        }
    }
}

/// The channel, and what is at its other end.
pub(super) fn channel(limits: MergeLimits) -> (Tell, Merging) {
    let (sender, told) = mpsc::channel(WAITING);
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    (Tell { sender, room, limits }, Merging { told, merger: Merger::new(limits), home: None })
}

/// Takes in confirmed chunks and puts segments.
#[derive(Debug)]
pub(super) struct Merging {
    told: mpsc::Receiver<Told>,
    merger: Merger,
    home: Option<Home>,
}

impl Merging {
    /// Runs until the pipeline is gone.
    pub async fn run(mut self) {
        while let Some(told) = self.told.recv().await {
            if self.home.as_ref().is_some_and(|(_, layout)| *layout != told.home.1) {
                // Another incarnation began: the run belongs to the one before.
                let last = self.merger.close();
                self.put(last).await;
            }
            self.home = Some(told.home);
            let ready = self.merger.add(told.chunk);
            self.put(ready).await;
        }
        let last = self.merger.close();
        self.put(last).await;
    }

    async fn put(&self, ready: Option<Ready>) {
        let (Some(ready), Some(home)) = (ready, &self.home) else { return };
        let chunks = ready.chunks();
        match tokio::time::timeout(PUT, self.merged(ready, home)).await {
            Ok(Ok(())) => tracing::debug!(chunks, "merged into a segment"),
            Ok(Err(why)) => tracing::warn!(chunks, error = %why, "chunks stay unmerged"),
            Err(_) => tracing::warn!(chunks, "chunks stay unmerged: the store did not take their segment"),
        }
    }

    async fn merged(&self, ready: Ready, (store, layout): &Home) -> Result<(), ShipError> {
        let encoded = tokio::task::spawn_blocking(move || ready.encode()).await;
        let segment = encoded.map_err(|_| ShipError::TaskEnded { what: "merging" })??;
        let trouble = |why: &StoreError| tracing::debug!(error = %why, "a segment waits for its store");
        match segment.put(&**store, layout, &trouble).await {
            // The same run, merged by this writer before: whichever stands, holds.
            Err(JournalError::Another { .. }) | Ok(()) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}
