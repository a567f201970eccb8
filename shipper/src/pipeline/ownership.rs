//! Whose the journal is: taking it over, noticing that another took it, and putting single chunks as its owner.
//!
//! What always holds: a writer that was away does not take the journal back from one that took over meanwhile; nothing is
//! appended behind an end that was not the one read and compared. A crash here leaves at most an opening or one chunk that
//! nobody counted.

use std::sync::Arc;
use std::time::Duration;

use farshore_journal::format::object::Encoded;
use farshore_journal::reader::Reader;
use farshore_journal::store::StoreError;
use farshore_journal::writer::Writer;
use farshore_journal::{JournalError, Position, Sequence};
use tokio_util::sync::ReusableBoxFuture;

use super::{Came, Pipeline, SourceConfig};
use crate::crash::crash_point;
use crate::error::ShipError;
use crate::progress::PipelineState;
use crate::resume::Tail;

/// How long taking the journal over may take, a stream being open meanwhile: for a store that answers badly, and still short
/// enough for the primary's shutdown.
const TAKEOVER: Duration = Duration::from_secs(6);
/// Seconds.
const DAY: u64 = 86_400;

/// How long a generation is appended to: a day, but for tests.
fn generation_lasts() -> Duration {
    fn seconds() -> u64 {
        use crate::crash::fail;
        fail::fail_point!("generation-lasts", |seconds| seconds
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or(DAY));
        DAY
    }
    Duration::from_secs(seconds())
}

impl Pipeline {
    /// A writer that owned the journal and was away must not take it back from one that took over meanwhile.
    pub(super) async fn check_not_fenced(&mut self, reader: &Reader) -> Result<(), ShipError> {
        let Some(writer) = self.writer.as_ref().filter(|w| w.reader().incarnation() == reader.incarnation())
        else {
            return Ok(());
        };
        let at = writer.place().number();
        match reader.chunk(at).await {
            Err(JournalError::Store(StoreError::NotFound { .. })) => Ok(()),
            Err(why) => Err(why.into()),
            Ok(chunk) => {
                if !writer.wrote(chunk.header()) {
                    let by = Some((chunk.header().generation, chunk.header().writer));
                    return Err(JournalError::Fenced { own: writer.generation(), by, at }.into());
                }
                match writer.stands_at(at).await? {
                    Some(by) => {
                        Err(JournalError::Fenced { own: writer.generation(), by: Some(by), at }.into())
                    }
                    // An append that was given up stands after all, or somebody put what the tail held. Nobody else was there: take the journal over again.
                    None => {
                        self.writer = None;
                        Ok(())
                    }
                }
            }
        }
    }

    /// The journal's end that was read must be this writer's own: another shipper may have taken over between the two looks.
    pub(super) async fn check_own_end(
        &mut self,
        reader: &Reader,
        tail: Option<&Tail>,
    ) -> Result<(), ShipError> {
        let next = tail.map_or(Some(Sequence::FIRST), |tail| tail.last.next());
        match self.writer.as_ref().filter(|w| w.reader().incarnation() == reader.incarnation()) {
            Some(writer) if Some(writer.place().number()) != next => {
                self.check_not_fenced(reader).await?;
                Err(ShipError::JournalMoved)
            }
            _ => Ok(()),
        }
    }

    /// Whether nothing is on its way, and the journal ends here as far as this process knows.
    pub(super) fn stands_at(&self, end: Position) -> bool {
        self.append.is_none() && self.writer.as_ref().is_none_or(|writer| writer.stored() == end)
    }

    /// The journal's owner: this process, from here on. What was read of the journal's end before must still be its end.
    pub(super) async fn own(
        &mut self,
        reader: &Reader,
        empty_at: Position,
        read: Option<Sequence>,
    ) -> Result<(), ShipError> {
        if self.writer.as_ref().is_some_and(|writer| writer.is_stale()) {
            self.writer = None;
        }
        if self.writer.is_some() {
            return Ok(());
        }
        let trouble = self.trouble();
        crash_point!("ship-before-takeover");
        // A stream may be open and unread meanwhile, and would hold up the primary's shutdown: a store that does not answer
        // ends the session. An opening that lands all the same is found by the next takeover.
        let taken = Writer::take_over(reader.clone(), &self.config.writer, empty_at, &*trouble);
        let writer = match self.config.source {
            SourceConfig::Postgres(_) => {
                tokio::time::timeout(TAKEOVER, taken).await.map_err(|_| ShipError::TargetStalled)??
            }
            // Its stream is what holds the log, and holds up nobody.
            SourceConfig::Sqlite(_) => taken.await?,
        };
        crash_point!("ship-after-takeover");
        let found = writer.found().map(|header| header.number);
        self.tell(|progress| {
            progress.generation = Some(writer.generation());
            progress.stored = found.map(|_| writer.stored());
            progress.next_sequence = Some(writer.place().number());
        });
        tracing::info!(database = %self.config.database, store = %self.config.store_name, generation = %writer.generation(),
            position = %writer.stored(), "took the journal over");
        if let Some(heads) = &self.heads {
            heads.confirmed(&writer);
        }
        self.writer = Some(writer);
        match found == read {
            true => Ok(()),
            // Another shipper appended after the comparison: compare anew, now as the owner.
            false => Err(ShipError::JournalMoved),
        }
    }

    /// Opens the journal anew where its newest opening is a day old and log came since: what lies before an opening can expire, and nothing behind it. As an append: log is received meanwhile.
    pub(super) fn renew(&mut self) {
        let Some(mut writer) = self.writer.take_if(|writer| writer.is_due(generation_lasts())) else {
            return;
        };
        let (trouble, options) = (self.trouble(), self.config.writer.clone());
        self.append = Some(ReusableBoxFuture::new(async move {
            crash_point!("ship-renew");
            let renewed = writer.renew(&options, &*trouble).await;
            crash_point!("ship-renewed");
            (writer, renewed.map(|()| Came::Opening).map_err(ShipError::from))
        }));
    }

    pub(super) fn trouble(&self) -> Arc<dyn Fn(&StoreError) + Send + Sync> {
        let progress = Arc::clone(&self.progress);
        let (database, store) = (self.config.database.clone(), self.config.store_name.clone());
        Arc::new(move |why: &StoreError| {
            let said = why.to_string();
            progress.send_modify(|progress| {
                // Once for as long as it stays: it is tried again every few seconds.
                if progress.trouble.as_ref() != Some(&said) {
                    tracing::warn!(%database, %store, error = %said, "the store does not take what is shipped; it is tried again");
                }
                if progress.state != PipelineState::Bypass {
                    progress.state = PipelineState::Accumulating;
                }
                progress.trouble = Some(said);
            });
        })
    }

    /// Puts one chunk that is not log bytes.
    pub(super) async fn put(&mut self, chunk: Encoded) -> Result<(), ShipError> {
        let trouble = self.trouble();
        let Some(writer) = self.writer.as_mut() else {
            return Err(ShipError::TaskEnded { what: "writer" });
        };
        crash_point!("ship-record");
        writer.append(&chunk, &*trouble).await?;
        crash_point!("ship-recorded");
        let (stored, next) = (writer.stored(), writer.place().number());
        if let Some(heads) = &self.heads {
            heads.confirmed(writer);
        }
        self.tell(|progress| {
            progress.stored = Some(stored);
            progress.next_sequence = Some(next);
        });
        Ok(())
    }
}
