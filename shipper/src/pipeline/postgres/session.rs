//! One session: what a source that was found is to the journal, and what follows from it.
//!
//! What always holds: a chunk is appended only after the source's bytes were found equal to the journal's end; bytes that
//! differ, or that nobody can compare any more behind a fork, begin a new incarnation and leave the old one as it is.

use chrono::Utc;
use farshore_engines::log::{Decoder, Shape};
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::wire::{self, StreamEvent};
use farshore_engines::stream::Stream;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::{Offset, Position, Timeline};
use tokio_util::sync::CancellationToken;

use super::breaks::gap_end;
use super::fill::Filled;
use super::source::{Source, find_primary};
use super::{Cluster, Guard, LiveSlot};
use crate::continuity::{Continuity, decide};
use crate::error::ShipError;
use crate::pipeline::Pipeline;
use crate::pipeline::incarnation::Left;
use crate::pipeline::stream::Begun;
use crate::progress::Fact;
use crate::push::proof::Proof;
use crate::resume::{self, Comparison, Tail};

impl Pipeline {
    /// One session: from finding the primary to the end of the stream.
    pub(in crate::pipeline) async fn postgres_session(
        &mut self,
        cluster: &Cluster,
        cancel: &CancellationToken,
    ) -> Result<(), ShipError> {
        let mut source = find_primary(&cluster.params).await?;
        let now = Utc::now().to_rfc3339();
        let identity = source.identity();
        let witness = LiveSlot { sql: &source.sql, slot: &cluster.slot };
        let repository = self.store.repository(&witness, &now).await?;
        let mut record = self.incarnation(&repository, &identity, &witness).await?;
        let mut reader = Reader::new(&repository, &record)?;
        self.config.writer.segment_bytes = record.segment_bytes;
        self.tell(|progress| {
            progress.segment_bytes = Some(record.segment_bytes);
            progress.cluster = Some(source.system.system_identifier);
            progress.releasable = None;
        });
        let mut conflict: Option<String> = None;
        let mut begun = false;
        let mut witness: Option<Box<Proof>> = None;
        loop {
            if let Some(reason) = conflict.take() {
                // Both histories stay restorable: the old incarnation is left as it is, with what the spool has of it.
                self.fill_before_leaving(cluster, &reader, &source, record.segment_bytes).await?;
                let left = Left::of(&repository, &record).await;
                tracing::error!(database = %self.config.database, "{}", left.followed_by(&reason));
                record = self.found(&repository, &identity, record.number + 1, &reason).await?;
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
            let tail = resume::tail(&reader, record.segment_bytes, &self.config.writer.host).await?;
            self.check_own_end(&reader, tail.as_ref()).await?;
            if let Some(opened) = tail.as_ref().filter(|tail| tail.lacks_history) {
                match opened.end.timeline == source.system.timeline {
                    true => self.begin(&reader, &mut source, opened.end, Some(opened.last)).await?,
                    false => {
                        conflict = Some("the journal was opened and nothing was shipped to it".to_owned())
                    }
                }
                continue;
            }
            let flushed = Position::new(source.system.timeline, source.system.flushed);
            let journal = tail.as_ref().map(|tail| (tail.end, &tail.history));
            let mut continuity = decide(journal, flushed, &source.history, record.segment_bytes);
            // The journal was read behind the source: while another ships, an answer of a moment ago is behind what that one stored since.
            if let Continuity::Behind { .. } = continuity {
                let now = source.sql.current_position().await?;
                if now.timeline == flushed.timeline && now.offset > flushed.offset {
                    source.system.flushed = now.offset;
                    continuity = decide(journal, now, &source.history, record.segment_bytes);
                }
            }
            match continuity {
                // A journal that was begun and is still empty is not begun again without a pause.
                Continuity::Begin { .. } if begun => return Err(ShipError::JournalMoved),
                Continuity::Begin { at } => {
                    begun = true;
                    let at = self.oldest_kept(cluster, &source, at).await?;
                    self.begin(&reader, &mut source, at, None).await?;
                }
                Continuity::Branch { timeline, parent, at } => {
                    match self.overlap(cluster, &reader, &record, &source, parent, at).await {
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
                        self.overlap(cluster, &reader, &record, &source, ends.timeline, ends.offset).await?
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
                    let begun = begin(cluster, source, &tail, proof).await;
                    let streamed = match begun {
                        Ok(begun) => {
                            self.spool_away = None;
                            self.tell(|progress| progress.streams = true);
                            Box::pin(self.stream(&reader, begun, &tail, cancel)).await
                        }
                        Err(why) => Err(why),
                    };
                    self.tell(|progress| progress.streams = false);
                    match streamed {
                        Ok(None) => return Ok(()),
                        // The timeline ended: ask the server anew how its history goes on.
                        Ok(Some(())) => source = find_again(cluster, &record).await?,
                        Err(ShipError::Conflict { from, to }) => {
                            conflict = Some(format!(
                                "the source's log differs from the journal between {from} and {to}"
                            ));
                            source = find_again(cluster, &record).await?;
                        }
                        // Only at the stream's begin: later, what was received is settled and the journal's end read first.
                        Err(ShipError::Source(wire::Error::LogMissing { .. }))
                            if self.stands_at(tail.end) =>
                        {
                            source = find_again(cluster, &record).await?;
                            // What one host no longer has, another that was promoted meanwhile may still have.
                            if source.host != host || source.history != history {
                                return Err(ShipError::SourceChanged);
                            }
                            match self.fill(cluster, &reader, &source, &tail).await? {
                                Filled::Appended => {}
                                Filled::Witness(proof) if !witnessed => witness = Some(proof),
                                Filled::Differs { how } => conflict = Some(how),
                                nothing @ (Filled::Witness(_) | Filled::Nothing { .. }) => {
                                    self.check_given_up(cluster, &source, &tail, nothing.wrong()).await?;
                                    let now = source.system.flushed;
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

    /// Where an empty journal begins: at the oldest log of the source's timeline that the keep slot still holds. What an earlier
    /// incarnation lacks of this source's log is then in this one.
    async fn oldest_kept(
        &self,
        cluster: &Cluster,
        source: &Source,
        at: Position,
    ) -> Result<Position, ShipError> {
        let slot = source.sql.slot_get(&cluster.keep).await?.filter(|slot| !slot.is_lost());
        Ok(match slot.and_then(|slot| slot.restart) {
            Some(kept_from) => begin_at(at, kept_from, &source.history, source.shape.segment_bytes.get()),
            None => at,
        })
    }

    /// Compares what the journal and the source both have of `timeline` before `until`.
    async fn overlap(
        &self,
        cluster: &Cluster,
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
        let source = find_again(cluster, record).await?;
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
}

/// The primary once more. Another cluster that answers in its place is not this journal's: the session begins anew with it.
async fn find_again(cluster: &Cluster, record: &IncarnationRecord) -> Result<Source, ShipError> {
    let source = find_primary(&cluster.params).await?;
    match source.system.system_identifier.to_string() == record.identity {
        true => Ok(source),
        false => Err(ShipError::SourceChanged),
    }
}

/// Begins the stream where a resume compares, or behind what files were compared in the place of what the source no longer has.
async fn begin(
    cluster: &Cluster,
    source: Source,
    tail: &Tail,
    witness: Option<Box<Proof>>,
) -> Result<Begun, ShipError> {
    let (from, decoder, comparison, events) = match witness.map(|proof| *proof) {
        // The decoder goes on from the files into the stream.
        Some(Proof { end, decoder, comparison, events, .. }) => {
            (end, Decoder::Postgres(Box::new(decoder)), comparison, events)
        }
        None => {
            let from = tail.compare_from();
            let anchor = source.sql.next_transaction().await?;
            let decoder = Shape::Postgres(source.shape).decoder(from)?.with_transaction_anchor(anchor);
            (from, decoder, Comparison::over(tail), Vec::new())
        }
    };
    let guard = Guard::new(&cluster.kept, &source.host, from, source.shape.segment_bytes.get());
    let stream = source.open_stream(&cluster.params, &cluster.slot, from).await?;
    let stream = Stream::Postgres(Box::new(stream));
    Ok(Begun { stream, from, decoder, comparison, events, guard: Some(guard) })
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
