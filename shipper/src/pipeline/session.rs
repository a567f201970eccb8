//! One session: what a source that was found is to the journal, and what follows from it.
//!
//! What always holds: a chunk is appended only after the source's bytes were found equal to the journal's end; bytes that
//! differ, or that nobody can compare any more behind a fork, begin a new incarnation and leave the old one as it is.

use chrono::Utc;
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::wire::{self, StreamEvent};
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::{Offset, Position, Timeline};
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use super::breaks::gap_end;
use super::fill::Filled;
use super::source::{Source, find_primary};
use crate::continuity::{Continuity, decide};
use crate::error::ShipError;
use crate::progress::Fact;
use crate::push::proof::Proof;
use crate::resume::{self, Comparison};

impl Pipeline {
    /// One session: from finding the primary to the end of the stream.
    pub(super) async fn session(&mut self, cancel: &CancellationToken) -> Result<(), ShipError> {
        let mut source = find_primary(&self.config.params).await?;
        let now = Utc::now().to_rfc3339();
        let repository = self.store.repository(&source.sql, &self.config.slot, &now).await?;
        let mut record = self.incarnation(&repository, &source).await?;
        let mut reader = Reader::new(&repository, &record)?;
        self.config.writer.segment_bytes = record.segment_bytes;
        self.tell(|progress| {
            progress.segment_bytes = Some(record.segment_bytes);
            progress.cluster = Some(source.identity.system_identifier);
            progress.releasable = None;
        });
        let mut conflict: Option<String> = None;
        let mut begun = false;
        let mut witness: Option<Box<Proof>> = None;
        loop {
            if let Some(reason) = conflict.take() {
                // Both histories stay restorable: the old incarnation is left as it is.
                tracing::error!(database = %self.config.database, reason, "a new incarnation begins");
                record = self.found(&repository, &source, record.number + 1, &reason).await?;
                reader = Reader::new(&repository, &record)?;
                begun = false;
            }
            // A writer belongs to one incarnation's journal and must never meet another's.
            if self.writer.as_ref().is_some_and(|writer| writer.reader().incarnation() != record.incarnation)
            {
                self.writer = None;
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
                // A journal that was begun and is still empty is not begun again without a pause.
                Continuity::Begin { .. } if begun => return Err(ShipError::JournalMoved),
                Continuity::Begin { at } => {
                    begun = true;
                    let at = self.oldest_kept(&source, at).await?;
                    self.begin(&reader, &mut source, at, None).await?;
                }
                Continuity::Branch { timeline, parent, at } => {
                    match self.overlap(&reader, &record, &source, parent, at).await {
                        Ok(Overlap::Equal) => {}
                        Ok(Overlap::Differs(how)) => {
                            conflict = Some(how);
                            continue;
                        }
                        // Never continued on trust: both histories stay restorable, and a base backup follows.
                        Ok(Overlap::Nothing) => {
                            conflict = Some(format!(
                                "the journal holds nothing before {at}, where timeline {timeline} begins, that the source could be compared with"
                            ));
                            continue;
                        }
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
                Continuity::Behind { source: ends } => {
                    if let Overlap::Differs(how) =
                        self.overlap(&reader, &record, &source, ends.timeline, ends.offset).await?
                    {
                        conflict = Some(how);
                        continue;
                    }
                    let stored = tail.map_or(ends, |tail| tail.end);
                    return Err(ShipError::Behind { source_end: ends, stored });
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
                    let (host, history) = (source.host.clone(), source.history.clone());
                    let proof = witness.take().filter(|proof| proof.of == tail.end);
                    let witnessed = proof.is_some();
                    match Box::pin(self.stream(&reader, source, &tail, proof, cancel)).await {
                        Ok(None) => return Ok(()),
                        // The timeline ended: ask the server anew how its history goes on.
                        Ok(Some(())) => source = self.find_again(&record).await?,
                        Err(ShipError::Conflict { from, to }) => {
                            conflict = Some(format!(
                                "the source's log differs from the journal between {from} and {to}"
                            ));
                            source = self.find_again(&record).await?;
                        }
                        // Only at the stream's begin: later, what was received is settled and the journal's end read first.
                        Err(ShipError::Source(wire::Error::LogMissing { .. }))
                            if self.stands_at(tail.end) =>
                        {
                            source = self.find_again(&record).await?;
                            // What one host no longer has, another that was promoted meanwhile may still have.
                            if source.host != host || source.history != history {
                                return Err(ShipError::SourceChanged);
                            }
                            match self.fill(&reader, &source, &tail).await? {
                                Filled::Appended => {}
                                Filled::Witness(proof) if !witnessed => witness = Some(proof),
                                Filled::Witness(_) | Filled::Nothing => {
                                    let now = source.identity.flushed;
                                    match gap_end(tail.end, now, &source.history, record.segment_bytes) {
                                        Some(end) => self.gap(&reader, &tail, end).await?,
                                        None if tail.frames.is_empty() => {
                                            return Err(ShipError::NothingToCompare { stored: tail.end });
                                        }
                                        // Nothing is missing, and nothing shows whose log it is: never continued on trust.
                                        None => {
                                            conflict = Some(format!(
                                                "the source has the log behind {} and no longer what lies before it: it cannot be compared with the journal",
                                                tail.end
                                            ));
                                        }
                                    }
                                }
                            }
                        }
                        Err(why) => return Err(why),
                    }
                }
            }
        }
    }

    /// The primary once more. Another cluster that answers in its place is not this journal's: the session begins anew with it.
    async fn find_again(&self, record: &IncarnationRecord) -> Result<Source, ShipError> {
        let source = find_primary(&self.config.params).await?;
        match source.identity.system_identifier.to_string() == record.identity {
            true => Ok(source),
            false => Err(ShipError::SourceChanged),
        }
    }

    /// Where an empty journal begins: at the oldest log of the source's timeline that the keep slot still holds. What an earlier
    /// incarnation lacks of this source's log is then in this one.
    async fn oldest_kept(&self, source: &Source, at: Position) -> Result<Position, ShipError> {
        let slot = source.sql.slot_get(&self.config.keep).await?.filter(|slot| !slot.is_lost());
        Ok(match slot.and_then(|slot| slot.restart) {
            Some(kept_from) => begin_at(at, kept_from, &source.history, source.shape.segment_bytes.get()),
            None => at,
        })
    }

    /// Compares what the journal and the source both have of `timeline` before `until`.
    async fn overlap(
        &self,
        reader: &Reader,
        record: &IncarnationRecord,
        decided_on: &Source,
        timeline: Timeline,
        until: Offset,
    ) -> Result<Overlap, ShipError> {
        let Some(shared) = resume::tail_before(reader, record.segment_bytes, timeline, until).await? else {
            return Ok(Overlap::Nothing);
        };
        if shared.frames.is_empty() {
            // Behind a fork or a gap that lies right here there is nothing before that could be asked for.
            return Ok(if shared.end.offset == until && shared.behind_a_break {
                Overlap::Equal
            } else {
                Overlap::Nothing
            });
        }
        let source = self.find_again(record).await?;
        if source.host != decided_on.host || source.history != decided_on.history {
            return Err(ShipError::SourceChanged);
        }
        let mut comparison = Comparison::over(&shared);
        let mut stream = source.connection.start_physical(None, shared.compare_from()).await?;
        while !comparison.is_done() {
            match stream.next_event().await? {
                StreamEvent::Data { bytes, .. } => match comparison.take(&bytes) {
                    Ok(_) => {}
                    Err(why @ ShipError::Conflict { .. }) => return Ok(Overlap::Differs(why.to_string())),
                    Err(why) => return Err(why),
                },
                StreamEvent::KeepAlive { .. } => {}
                StreamEvent::TimelineEnd { .. } => break,
            }
        }
        // What the source could not send was not compared.
        Ok(if comparison.is_done() { Overlap::Equal } else { Overlap::Nothing })
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
                // As it should be after initdb, and an operator's slip when the address is another database's.
                tracing::error!(database = %self.config.database, reason, "a new incarnation begins");
                self.found(repository, source, record.number + 1, &reason).await
            }
            None => {
                let found = "it holds nothing of this database";
                self.store.check_new(&source.sql, &self.config.slot, found).await?;
                self.found(repository, source, 0, "first").await
            }
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

/// What a comparison of a part of the journal with the source came to.
enum Overlap {
    /// All of it is equal, or there is nothing that could have been compared.
    Equal,
    /// It differs, in words.
    Differs(String),
    /// The journal holds nothing there, so nothing is known.
    Nothing,
}

/// Where a journal begins, given the oldest log that is kept: at that segment, but not before its timeline does.
fn begin_at(at: Position, kept_from: Offset, history: &TimelineHistory, segment_bytes: u64) -> Position {
    let fork = history.ancestors().last().map_or(Offset::new(0), |parent| parent.left_at);
    let oldest = kept_from.segment_start(segment_bytes).max(fork);
    Position::new(at.timeline, oldest.min(at.offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_begins_at_the_oldest_log_that_is_kept_of_its_timeline() {
        const SEGMENT: u64 = 16 << 20;
        let at = |timeline, offset| Position::new(Timeline::new(timeline), Offset::new(offset));
        let first = TimelineHistory::first();
        assert_eq!(
            begin_at(at(1, 9 * SEGMENT), Offset::new(4 * SEGMENT + 7), &first, SEGMENT),
            at(1, 4 * SEGMENT)
        );
        assert_eq!(
            begin_at(at(1, 9 * SEGMENT), Offset::new(10 * SEGMENT), &first, SEGMENT),
            at(1, 9 * SEGMENT)
        );
        let second = TimelineHistory::parse(Timeline::new(2), b"1\t0/6000028\tx\n").unwrap();
        let fork = at(2, 0x600_0028);
        assert_eq!(begin_at(at(2, 9 * SEGMENT), Offset::new(4 * SEGMENT), &second, SEGMENT), fork);
    }
}
