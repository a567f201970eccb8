//! One session: what a source that was found is to the journal, and what follows from it.
//!
//! What always holds: a chunk is appended only after the source's bytes were found equal to the journal's end; bytes that
//! differ, or that nobody can compare any more behind a fork, begin a new incarnation and leave the old one as it is.

use std::sync::Arc;

use chrono::Utc;
use farshore_engines::postgres::wire::{self, StreamEvent};
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::{Offset, Position};
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use super::source::{Source, find_primary};
use crate::continuity::{Continuity, decide};
use crate::error::ShipError;
use crate::progress::Fact;
use crate::resume::{self, Comparison, Tail};

impl Pipeline {
    /// One session: from finding the primary to the end of the stream.
    pub(super) async fn session(&mut self, cancel: &CancellationToken) -> Result<(), ShipError> {
        let mut source = find_primary(&self.config.params).await?;
        let now = Utc::now().to_rfc3339();
        let repository = Repository::open_or_found(Arc::clone(&self.store), &now).await?;
        let mut record = self.incarnation(&repository, &source).await?;
        let mut reader = Reader::new(&repository, &record)?;
        self.config.writer.segment_bytes = record.segment_bytes;
        self.tell(|progress| {
            progress.segment_bytes = Some(record.segment_bytes);
            progress.releasable = None;
        });
        let mut conflict: Option<String> = None;
        loop {
            if let Some(reason) = conflict.take() {
                // Both histories stay restorable: the old incarnation is left as it is.
                tracing::error!(database = %self.config.database, reason, "a new incarnation begins");
                self.writer = None;
                record = self.found(&repository, &source, record.number + 1, &reason).await?;
                reader = Reader::new(&repository, &record)?;
            }
            self.tell(|progress| progress.incarnation = Some(record.incarnation));
            self.fact(Fact::Incarnation(record.clone()));
            self.check_not_fenced(&reader).await?;
            let tail = resume::tail(&reader, record.segment_bytes).await?;
            self.check_own_end(&reader, tail.as_ref()).await?;
            if let Some(opened) = tail.as_ref().filter(|tail| tail.lacks_history) {
                match opened.end.timeline == source.identity.timeline {
                    true => self.begin(&reader, &mut source, opened.end, Some(opened.last)).await?,
                    false => {
                        conflict = Some("the journal was opened and nothing was shipped to it".to_owned())
                    }
                }
                continue;
            }
            let flushed = Position::new(source.identity.timeline, source.identity.flushed);
            let journal = tail.as_ref().map(|tail| (tail.end, &tail.history));
            match decide(journal, flushed, &source.history, record.segment_bytes) {
                Continuity::Begin { at } => self.begin(&reader, &mut source, at, None).await?,
                Continuity::Branch { timeline, parent, at } => {
                    match self.overlap(&tail, at).await {
                        Ok(None) => {}
                        Ok(Some(differs)) => {
                            conflict = Some(differs);
                            continue;
                        }
                        // Never continued on trust: both histories stay restorable, and a base backup follows.
                        Err(ShipError::Source(wire::Error::LogMissing { .. })) => {
                            conflict = Some(format!(
                                "the source no longer has the log before {at}, where timeline {timeline} begins: it cannot be compared with the journal"
                            ));
                            continue;
                        }
                        Err(why) => return Err(why),
                    }
                    self.branch(&reader, &mut source, &tail, Position::new(timeline, at), parent).await?;
                }
                Continuity::Stranger => {
                    conflict = Some(ShipError::Stranger.to_string());
                }
                Continuity::Behind { source } => {
                    if let Some(differs) = self.overlap(&tail, source.offset).await? {
                        conflict = Some(differs);
                        continue;
                    }
                    let stored = tail.map_or(source, |tail| tail.end);
                    return Err(ShipError::Behind { source_end: source, stored });
                }
                Continuity::OldPrimary { source } => {
                    let journal_timeline = tail.map_or(source, |tail| tail.end.timeline);
                    return Err(ShipError::OldPrimary { source_timeline: source, journal_timeline });
                }
                Continuity::Compare => {
                    let Some(tail) = tail else { continue };
                    if !tail.can_be_compared() {
                        return Err(ShipError::Incomparable { last: tail.last });
                    }
                    self.base_behind_gap(&reader, &tail).await?;
                    match Box::pin(self.stream(&reader, source, &tail, cancel)).await {
                        Ok(None) => return Ok(()),
                        // The timeline ended: ask the server anew how its history goes on.
                        Ok(Some(())) => source = find_primary(&self.config.params).await?,
                        Err(ShipError::Conflict { from, to }) => {
                            conflict = Some(format!(
                                "the source's log differs from the journal between {from} and {to}"
                            ));
                            source = find_primary(&self.config.params).await?;
                        }
                        // Only at the stream's begin: later, what was received is settled and the journal's end read first.
                        Err(ShipError::Source(wire::Error::LogMissing { .. }))
                            if self.stands_at(tail.end) =>
                        {
                            source = find_primary(&self.config.params).await?;
                            self.gap(&reader, &source, &tail).await?;
                        }
                        Err(why) => return Err(why),
                    }
                }
            }
        }
    }

    /// Compares what the journal and the source both have of the journal's last bytes, up to `until`. What differs, in words;
    /// `None` when everything that both have is equal.
    async fn overlap(&self, tail: &Option<Tail>, until: Offset) -> Result<Option<String>, ShipError> {
        let Some(shared) = tail.as_ref().map(|tail| tail.up_to(until)) else { return Ok(None) };
        if shared.frames.is_empty() {
            return Ok(None);
        }
        let source = find_primary(&self.config.params).await?;
        let mut comparison = Comparison::over(&shared);
        let mut stream = source.connection.start_physical(None, shared.compare_from()).await?;
        while !comparison.is_done() {
            match stream.next_event().await? {
                StreamEvent::Data { bytes, .. } => match comparison.take(&bytes) {
                    Ok(_) => {}
                    Err(why @ ShipError::Conflict { .. }) => return Ok(Some(why.to_string())),
                    Err(why) => return Err(why),
                },
                StreamEvent::KeepAlive { .. } => {}
                StreamEvent::TimelineEnd { .. } => break,
            }
        }
        Ok(None)
    }

    /// The incarnation that this source continues by its identity, or the first one.
    async fn incarnation(
        &self,
        repository: &Repository,
        source: &Source,
    ) -> Result<IncarnationRecord, ShipError> {
        let records = repository.incarnations(&self.config.database).await?;
        let identity = source.identity.system_identifier.to_string();
        match records.last() {
            Some(record) if record.identity == identity => Ok(record.clone()),
            Some(record) => {
                let reason = format!("the system identifier changed from {} to {identity}", record.identity);
                self.found(repository, source, record.number + 1, &reason).await
            }
            None => self.found(repository, source, 0, "first").await,
        }
    }

    async fn found(
        &self,
        repository: &Repository,
        source: &Source,
        number: u64,
        reason: &str,
    ) -> Result<IncarnationRecord, ShipError> {
        let founding = Founding {
            database: &self.config.database,
            number,
            engine: "postgres",
            identity: &source.identity.system_identifier.to_string(),
            major: source.shape.major.number(),
            segment_bytes: source.shape.segment_bytes.get(),
            now: &Utc::now().to_rfc3339(),
            reason,
        };
        Ok(repository.found_incarnation(founding).await?)
    }
}
