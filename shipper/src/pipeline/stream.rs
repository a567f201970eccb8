//! The stream: bytes are received, compared as long as the journal has them, gathered into chunks and appended.
//!
//! What always holds: `stored <= received`; what is reported is the mode's matter ([`reported`]), and nothing is before the source was proved to be the journal's; one chunk is in flight at most, or entries of the tail. What was
//! received is stored whatever becomes of the source: it was reported, so the source may have ended on the strength of it, and may
//! never send it again. When the target takes nothing the stream is closed, so that the primary's shutdown is not held up; but not one
//! that is itself what holds the log at the source, unless the log may grow no further.
//!
//! Of a log whose records say when they were seen, a chunk either ends where a record does, and is marked, or holds no record's end:
//! what is sent again of an unmarked one is equal to it.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use farshore_engines::event::LogEvent;
use farshore_engines::log::Decoder;
use farshore_engines::stream::{self, Event, Report, Stream};
use farshore_journal::format::pack::Packed;
use farshore_journal::format::{FormatError, Mark};
use farshore_journal::packing::Packing;
use farshore_journal::reader::Reader;
use farshore_journal::writer::{TailTakes, Writer, encode_entry, encode_packed};
use farshore_journal::{JournalError, Offset, Position};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use super::based::LookForBase;
use super::copies::Copying;
use super::postgres::Guard;
use super::{Append, Came, Landed, Pipeline, SourceConfig};
use crate::batch::Batch;
use crate::crash::crash_point;
use crate::error::ShipError;
use crate::progress::{Fact, PipelineState};
use crate::reported::{Protection, Standing, reported};
use crate::resume::{Comparison, Tail};

/// How long a full batch may wait for the target before the stream is closed: a stream that is not read would hold up the
/// primary's shutdown.
const STALL: Duration = Duration::from_secs(3);
/// How long an append may take while commits wait for it, before the stream is closed: longer, and it would hold up the primary's
/// shutdown, which ends without us.
const HELD_UP: Duration = Duration::from_secs(5);
/// How long nothing must have been taken for a log that grew too large to be let go: from then on what is committed may come in a new
/// base backup only.
const LET_GO: Duration = Duration::from_secs(30);
/// How long a copy's parts may wait for whoever asked, before the copy is given up for the log behind it.
const COPY_STALL: Duration = Duration::from_secs(60);
/// Log that is packed where it is: a thread of its own for it would cost more than the packing.
const AT_ONCE_BYTES: usize = 32 << 10;
/// How long what is in the tail waits at most until it is a chunk, whatever the flush interval: readers wait for it.
const CHUNK_BEHIND_TAIL: Duration = Duration::from_secs(1);
/// How often the source is asked for a sign of life: what an idle database's exposure is measured by.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A stream that has begun, and what is to be compared in it first.
pub(super) struct Begun {
    pub stream: Stream,
    /// Where it began.
    pub from: Position,
    /// Decodes from there on; it may have read further, in files.
    pub decoder: Decoder,
    pub comparison: Comparison,
    /// What it saw in them.
    pub events: Vec<LogEvent>,
    /// What holds the log at the source, where that is not the stream itself.
    pub guard: Option<Guard>,
}

impl Pipeline {
    /// Compares, takes over, ships. `Ok(None)`: cancelled and drained. `Ok(Some(()))`: the timeline ended.
    pub(super) async fn stream(
        &mut self,
        reader: &Reader,
        begun: Begun,
        tail: &Tail,
        cancel: &CancellationToken,
    ) -> Result<Option<()>, ShipError> {
        self.unstored.clear();
        (self.proven, self.based) = (None, false);
        let mut base = LookForBase::default();
        self.naming.forget();
        self.notes.clear();
        let Begun { stream, from, mut decoder, mut comparison, events, guard } = begun;
        for event in events {
            self.notes.note(&event);
            self.unstored.note(event);
        }
        let mut stream = Some(stream);
        let mut copying = Copying::None;
        let mut batch = Batch::at(tail.end, self.config.writer.segment_bytes);
        let mut packing = Packing::new(self.packers.clone());
        let large = self.config.merge.large;
        // What commits wait for goes as soon as nothing else is on its way: many share an append by waiting for the one before.
        let interval =
            if self.config.protection.holds_commits() { Duration::ZERO } else { self.config.flush_interval };
        let mut last_sent: Option<Instant> = None;
        let mut full_since: Option<Instant> = None;
        let mut copy_full_since: Option<Instant> = None;
        let mut append_since: Option<Instant> = None;
        // Bytes of the log at the source, once they are more than it may keep.
        let mut too_large: Option<u64> = None;
        // The begin of a long record, while what lies before it is sent.
        let mut held: Option<Event> = None;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        if comparison.is_done() {
            self.notes.forget(tail.end.offset);
            self.own(reader, tail.end, Some(tail.last)).await?;
        }
        let mut timer = Timer::new();
        let mut timeline_over = false;
        // Why the stream was closed, while what came by it is not yet stored.
        let mut closed: Option<ShipError> = None;
        loop {
            batch.narrow(self.store.chunk_bytes());
            while !packing.is_full()
                && let Some(frame) = batch.frame(large)
            {
                packing.hand(frame);
            }
            if self.append.is_none() && comparison.is_done() && closed.is_none() && !cancel.is_cancelled() {
                self.renew();
            }
            let for_tail = self.for_tail(&batch, comparison.is_done());
            // What the tail does not take is a chunk as soon as it would be without one.
            let due_at = match for_tail != ForTail::Nothing || batch.is_stored() {
                true => batch.due_behind_tail(self.config.flush_interval.min(CHUNK_BEHIND_TAIL)),
                false => batch.due(last_sent, interval),
            };
            if self.append.is_none() && packing.is_idle() && !batch.is_empty() {
                let now = Instant::now();
                let is_due = timeline_over
                    || closed.is_some()
                    || cancel.is_cancelled()
                    || batch.is_chunk()
                    || held.is_some()
                    || due_at.is_some_and(|due| due <= now);
                if !is_due {
                    match for_tail {
                        ForTail::Now => self.hand(&mut batch)?,
                        ForTail::OnceBegun => self.begin_tail()?,
                        ForTail::Later | ForTail::Nothing => {}
                    }
                } else if !self.is_in_flight() {
                    // A record that began before decoding did is in no entry, so neither is a chunk that one may end in, where the
                    // journal has more in front of it.
                    let start = batch.start().offset;
                    let begun =
                        start == from.offset || decoder.whole_from().is_some_and(|from| from <= start);
                    if begun && decoder.next_wanted() == batch.end().offset {
                        self.notes.cut(decoder.whole());
                    }
                    let mark = if ends_whole(&decoder, &batch) { decoder.mark() } else { Mark::NONE };
                    let checked = decoder.checked_end().unwrap_or(from.offset);
                    self.send(&mut batch, packing.take(), checked, mark)?;
                    last_sent = Some(now);
                }
            }
            if self.append.is_none() && batch.is_empty() {
                if let Some(why) = closed {
                    return Err(why);
                }
                if timeline_over {
                    return Ok(Some(()));
                }
                if cancel.is_cancelled() {
                    if let Some(stream) = stream {
                        stream.stop().await;
                    }
                    return Ok(None);
                }
            }
            full_since = if batch.is_chunk() { full_since.or_else(|| Some(Instant::now())) } else { None };
            append_since = self.append.as_ref().and(append_since.or_else(|| Some(Instant::now())));
            let waited = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| since.elapsed());
            let waits = (waited(full_since), waited(append_since));
            if let Some(why) =
                yields(stream.as_ref(), waits, self.holds_up(stream.as_ref(), &guard), too_large)
            {
                stream = None;
                closed = Some(self.closed(why));
            }
            copy_full_since =
                if copying.is_full() { copy_full_since.or_else(|| Some(Instant::now())) } else { None };
            // A copy that goes slowly keeps the log from being read, and with it from being begun anew.
            let in_the_way = too_large.is_some() && matches!(copying, Copying::For(_));
            if waited(copy_full_since) > COPY_STALL || in_the_way {
                // The log comes behind it in the same stream.
                copying = Copying::Nobody;
            }
            let listens = !timeline_over && stream.is_some() && !cancel.is_cancelled();
            let waits = held.is_some() && !batch.is_empty();
            let reads = listens && !batch.is_full() && !copying.is_full() && !waits;
            let may_send = self.append.is_none() && packing.is_idle() && !self.is_in_flight();
            let due = due_at.filter(|_| may_send);
            tokio::select! {
                biased;
                done = arrived(&mut self.append, &mut self.writer) => {
                    match done {
                        Arrived::Append(ended) => {
                            let (writer, came) = *ended;
                            (self.append, append_since) = (None, None);
                            self.landed(writer, came)?;
                        }
                        Arrived::Tailed(end) => {
                            batch.is_tailed(end.offset);
                            self.tailed(end);
                        }
                        Arrived::NotTailed => {}
                    }
                    if closed.is_none() {
                        self.streams(&guard);
                    }
                    // What waits at the source for what was stored is let go at once.
                    let waits = self.config.protection.holds_commits();
                    if (waits || stream.as_ref().is_some_and(Stream::holds_log))
                        && let Err(why) = self.report(stream.as_mut(), &guard, false).await
                    {
                        stream = None;
                        closed = Some(self.closed(why));
                    }
                }
                joined = packing.joined() => joined?,
                there = base.found() => {
                    self.based = there;
                    if there && let Err(why) = self.report(stream.as_mut(), &guard, false).await {
                        stream = None;
                        closed = Some(self.closed(why));
                    }
                }
                // These before what comes: a source that never pauses must not keep a report from being made, nor a base or a copy from being asked for.
                _ = heartbeat.tick() => {
                    too_large = stream.as_ref().and_then(Stream::lets_go);
                    // What is stored protects nothing while no restore can begin before it.
                    if self.config.protection.holds_commits() && self.proven.is_some() && !self.based {
                        base.look(reader, self.config.writer.segment_bytes);
                    }
                    if !timeline_over
                        && let Err(why) = self.report(stream.as_mut(), &guard, true).await
                    {
                        stream = None;
                        closed = Some(self.closed(why));
                    }
                }
                asked = self.copies.next(reader.incarnation()), if listens && copying.is_none() && comparison.is_done() => {
                    let Some(source) = stream.as_mut() else { continue };
                    match source.base().await {
                        Ok(true) => copying = Copying::For(asked),
                        Ok(false) => {}
                        Err(why) => {
                            stream = None;
                            closed = Some(self.closed(why.into()));
                        }
                    }
                }
                asked = self.points.next(), if listens && comparison.is_done() => {
                    let Some(source) = stream.as_mut() else { continue };
                    let received = source.received().offset;
                    match source.point(&asked.name).await {
                        Ok(true) => self.naming.told(asked, received),
                        // Its points come another way: whoever asked hears that none will come.
                        Ok(false) => {}
                        Err(why) => {
                            stream = None;
                            closed = Some(self.closed(why.into()));
                        }
                    }
                }
                event = next_event(&mut stream, &mut held), if reads => match event {
                    Ok(event @ Event::Data { goes_on: true, .. })
                        if ends_whole(&decoder, &batch) && !decoder.mark().is_none() =>
                    {
                        held = Some(event);
                    }
                    Ok(Event::Data { bytes, source_end, .. }) => {
                        let (unstored, notes) = (&mut self.unstored, &mut self.notes);
                        let decoded = decoder.push(&bytes, &mut |event| {
                            notes.note(&event);
                            unstored.note(event);
                        });
                        if let Err(why) = decoded {
                            stream = None;
                            closed = Some(self.closed(why.into()));
                            continue;
                        }
                        let compared = comparison.is_done();
                        let fresh = comparison.take(&bytes)?;
                        if !compared && comparison.is_done() {
                            self.own(reader, tail.end, Some(tail.last)).await?;
                            self.proven = Some(tail.end);
                            // A process that was killed may have stored what its catalog never heard of: said again here.
                            let (commits, points) = self.unstored.up_to(tail.end.offset);
                            self.notes.forget(tail.end.offset);
                            let start = tail.compare_from().offset;
                            self.fact(Fact::Stored {
                                incarnation: reader.incarnation(),
                                timeline: tail.end.timeline,
                                start,
                                end: tail.end.offset,
                                checked: decoder.checked_end().unwrap_or(start).max(start).min(tail.end.offset),
                                first: tail.first,
                                last: tail.last,
                                commits,
                                points,
                            });
                            let checked = decoder.checked_end().filter(|end| *end <= tail.end.offset);
                            let resumes_at = self.resumes_at.map(|at| Position::new(tail.end.timeline, at));
                            self.tell(|progress| {
                                progress.checked = checked.or(progress.checked);
                                progress.stored = Some(tail.end);
                                progress.releasable = Some(resumes_at.unwrap_or(tail.end));
                            });
                        }
                        if !fresh.is_empty() {
                            let end = Offset::new(batch.end().offset.get() + fresh.len() as u64);
                            let quiet = source_end.is_some_and(|source_end| source_end <= end);
                            batch.push(fresh, quiet, Instant::now());
                        }
                        self.heard(stream.as_ref(), source_end);
                        self.takes(&guard, comparison.is_done() && batch.is_stored());
                        // What came may be within the bound as it is.
                        if matches!(self.config.protection, Protection::Near { .. })
                            && let Err(why) = self.report(stream.as_mut(), &guard, false).await
                        {
                            stream = None;
                            closed = Some(self.closed(why));
                        }
                    }
                    Ok(Event::KeepAlive { source_end, reply_requested }) => {
                        // A mere sign of life says nothing of the log.
                        if let Some(source_end) = source_end {
                            batch.rests_at(source_end);
                            self.heard(stream.as_ref(), Some(source_end));
                            self.takes(&guard, comparison.is_done() && batch.is_stored());
                        }
                        if reply_requested
                            && let Err(why) = self.report(stream.as_mut(), &guard, false).await
                        {
                            stream = None;
                            closed = Some(self.closed(why));
                        }
                    }
                    Ok(Event::TimelineEnd) => timeline_over = true,
                    Ok(Event::Base(part)) => copying.take(part, decoder.whole()),
                    Err(why) => {
                        stream = None;
                        closed = Some(self.closed(why.into()));
                    }
                },
                () = timer.until(due) => {}
                _ = tokio::time::timeout(STALL, copying.room()), if copying.is_full() => {}
                () = cancel.cancelled(), if listens => {}
            }
        }
    }

    /// What may be reported now.
    fn may_report(&self, stream: &Stream, guard: &Option<Guard>) -> Option<Offset> {
        let stored = self.progress.borrow().stored;
        let limit = guard.as_ref().and_then(|guard| guard.limit(stored));
        let kept = guard.as_ref().is_some_and(|guard| guard.keeps_unstored(stored));
        let (proven, based) = (self.proven, self.based);
        let standing = Standing { received: stream.received(), proven, based, limit, kept };
        reported(self.config.protection, standing)
    }

    /// Whether a primary that is told to stop would wait for more than may be reported. (For "nothing flushed" it does not wait.)
    fn holds_up(&self, stream: Option<&Stream>, guard: &Option<Guard>) -> bool {
        let less = |stream: &Stream| {
            self.may_report(stream, guard).is_some_and(|reported| reported < stream.received().offset)
        };
        self.config.protection.holds_commits() && stream.is_some_and(less)
    }

    /// The stream is over, and what came by it goes on its way to the target first: said at once, since that may take a while.
    fn closed(&self, why: ShipError) -> ShipError {
        if self.append.is_some() {
            tracing::info!(database = %self.config.database, store = %self.config.store_name, error = %why,
                "the stream is closed; what was received is stored first");
        }
        self.tell(|progress| {
            progress.streams = false;
            let stalled = matches!(why, ShipError::TargetStalled);
            progress.state = match why {
                ShipError::TargetStalled => PipelineState::Accumulating,
                ShipError::LetGo { .. } => PipelineState::Bypass,
                _ => PipelineState::Degraded,
            };
            // What the store itself said is the reason, and stays.
            if !(stalled && progress.trouble.is_some()) {
                progress.trouble = Some(why.to_string());
            }
        });
        why
    }

    fn heard(&self, stream: Option<&Stream>, source_end: Option<Offset>) {
        let Some(stream) = stream else { return };
        let stored = self.proven.map_or(Offset::new(0), |proven| proven.offset);
        let oldest = self.unstored.oldest_commit(stored);
        self.tell(|progress| {
            progress.received = Some(stream.received());
            let received = stream.received().offset;
            // Where the source did not say how far its log goes, that is known only when it has said so once.
            progress.source_end = source_end.or(progress.source_end).map(|end| end.max(received));
            progress.last_contact = Some(Utc::now());
            progress.oldest_unstored_commit = oldest;
        });
    }

    /// The target takes what comes, as far as is known: it was not said otherwise, or all that came is stored (`nothing_waits`).
    fn takes(&self, guard: &Option<Guard>, nothing_waits: bool) {
        let all_stored = nothing_waits && self.append.is_none();
        if all_stored || self.progress.borrow().state != PipelineState::Accumulating {
            self.streams(guard);
        }
    }

    /// The stream lives and the target takes what comes: connected, unless nothing holds the log at the primary.
    fn streams(&self, guard: &Option<Guard>) {
        let trouble = guard.as_ref().and_then(Guard::trouble);
        self.tell(|progress| {
            progress.state = match trouble {
                None => PipelineState::Connected,
                Some(_) => PipelineState::Degraded,
            };
            progress.trouble = trouble;
        });
    }

    /// Tells the source how far we are, as the mode says. The keep slot holds what is not yet stored; while it does not, the live slot
    /// must, and is moved no further than a resume needs.
    async fn report(
        &self,
        stream: Option<&mut Stream>,
        guard: &Option<Guard>,
        ask: bool,
    ) -> Result<(), ShipError> {
        let Some(stream) = stream else { return Ok(()) };
        crash_point!("ship-report");
        let reported = self.may_report(stream, guard);
        let frees = self.config.protection.holds_commits();
        stream.report(Report { reported, frees, released: self.resumes_at, ask }).await?;
        self.tell(|progress| progress.reported = reported);
        Ok(())
    }

    /// Whether what waits goes to the target's tail: of PostgreSQL, whose chunks may end anywhere.
    fn for_tail(&self, batch: &Batch, is_owner: bool) -> ForTail {
        let Some(writer) = self.writer.as_ref().filter(|_| is_owner && self.append.is_none()) else {
            return ForTail::Nothing;
        };
        if !matches!(self.config.source, SourceConfig::Postgres(_)) || batch.is_stored() {
            return ForTail::Nothing;
        }
        if batch.is_handed() && writer.is_in_flight() {
            return ForTail::Later;
        }
        let Some((from, bytes)) = batch.for_tail() else { return ForTail::Nothing };
        if writer.tail_place().at() != Position::new(batch.start().timeline, from) {
            return ForTail::Nothing;
        }
        match writer.tail_takes(bytes) {
            TailTakes::Now => ForTail::Now,
            TailTakes::OnceBegun => ForTail::OnceBegun,
            TailTakes::Later => ForTail::Later,
            TailTakes::Nothing => ForTail::Nothing,
        }
    }

    /// Whether entries of the tail are on their way.
    fn is_in_flight(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::is_in_flight)
    }

    /// Begins a tail.
    fn begin_tail(&mut self) -> Result<(), ShipError> {
        let Some(mut writer) = self.writer.take() else {
            return Err(ShipError::TaskEnded { what: "writer" });
        };
        self.append = Some(ReusableBoxFuture::new(async move {
            writer.begin_tail().await;
            (writer, Ok(Came::Begun))
        }));
        Ok(())
    }

    /// Hands what came to the tail.
    fn hand(&mut self, batch: &mut Batch) -> Result<(), ShipError> {
        let Some(writer) = self.writer.as_mut() else {
            return Err(ShipError::TaskEnded { what: "writer" });
        };
        let log = batch.hand();
        let entry = encode_entry(writer.tail_place(), &log, &self.packers)?;
        crash_point!("ship-tail");
        writer.send(&entry)?;
        Ok(())
    }

    /// Makes a chunk of what waits and puts it on its way: of the frames that are packed and of those that are still plain.
    pub(super) fn send(
        &mut self,
        batch: &mut Batch,
        mut packed: Vec<Packed>,
        checked: Offset,
        mark: Mark,
    ) -> Result<(), ShipError> {
        let Some(mut writer) = self.writer.take() else {
            return Err(ShipError::TaskEnded { what: "writer" });
        };
        let (from, plain) = batch.take();
        let (trouble, packers) = (self.trouble(), self.packers.clone());
        let merging = self.merging.clone().filter(|_| packed.is_empty());
        let indexing = self.indexing.clone().zip(self.notes.take());
        self.append = Some(ReusableBoxFuture::new(async move {
            let landed = async {
                let place = writer.place().clone();
                if place.at() != from {
                    return Err(ShipError::JournalMoved);
                }
                let log: Vec<Bytes> = plain.into_iter().map(Bytes::from).collect();
                let encoded = {
                    let (place, log) = (place.clone(), log.clone());
                    let small =
                        packed.is_empty() && log.iter().map(Bytes::len).sum::<usize>() <= AT_ONCE_BYTES;
                    let encode = move || {
                        for frame in log {
                            packed.push(packers.pack(&frame).map_err(encode_error)?);
                        }
                        encode_packed(&place, packed, mark)
                    };
                    match small {
                        true => encode(),
                        false => {
                            let ended = |_| ShipError::TaskEnded { what: "encoding" };
                            tokio::task::spawn_blocking(encode).await.map_err(ended)?
                        }
                    }
                };
                let (chunk, _) = encoded?;
                crash_point!("ship-encoded");
                // Kept only for a chunk that will be merged.
                let log = Some(log).filter(|_| merging.as_ref().is_some_and(|tell| tell.takes(&chunk)));
                writer.append(&chunk, &*trouble).await?;
                crash_point!("ship-appended");
                if let (Some(merging), Some(log)) = (merging, log) {
                    merging.confirmed(&writer, &place, &chunk, log);
                }
                if let Some((indexing, sheet)) = indexing {
                    indexing.confirmed(&writer, &place, &chunk.header, sheet);
                }
                let end = chunk.header.end_position();
                Ok(Came::Chunk(Landed {
                    from,
                    end,
                    checked: checked.min(end.offset),
                    number: chunk.header.number,
                    is_marked: !mark.is_none(),
                }))
            }
            .await;
            (writer, landed)
        }));
        Ok(())
    }
}

/// A timer that is set anew only where it is asked for another moment: to set one wakes the runtime.
struct Timer(Pin<Box<Sleep>>);

impl Timer {
    fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(Duration::ZERO)))
    }

    /// Waits until then; for ever where there is no such moment.
    ///
    /// # Cancel safety
    /// May be dropped and asked again.
    async fn until(&mut self, due: Option<Instant>) {
        let Some(due) = due.map(Into::into) else { return std::future::pending().await };
        if self.0.deadline() != due {
            self.0.as_mut().reset(due);
        }
        self.0.as_mut().await;
    }
}

/// What becomes of log that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ForTail {
    /// It goes to the tail.
    Now,
    /// It does, once there is one.
    OnceBegun,
    /// It does, or it counts, once something is heard of what is on its way.
    Later,
    /// It is to be a chunk, or nothing waits.
    Nothing,
}

/// What came of what was on its way.
enum Arrived {
    /// An append ended.
    Append(Box<(Writer, Result<Came, ShipError>)>),
    /// The tail holds log up to here.
    Tailed(Position),
    /// It took nothing: what was sent there goes as a chunk.
    NotTailed,
}

/// The next answer of the target, for ever none while nothing is on its way.
async fn arrived(append: &mut Option<Append>, writer: &mut Option<Writer>) -> Arrived {
    match (append.as_mut(), writer.as_mut()) {
        (Some(append), _) => Arrived::Append(Box::new(append.await)),
        (None, Some(writer)) => {
            let before = writer.stored();
            writer.heard().await;
            crash_point!("ship-tailed");
            let stored = writer.stored();
            if stored == before { Arrived::NotTailed } else { Arrived::Tailed(stored) }
        }
        (None, None) => std::future::pending().await,
    }
}

/// Why a stream is closed, if it is: a full batch has waited for so long, and an append. One that holds the log at the source itself
/// stays for a target that is merely slow, and as long as that log is not `too_large`.
fn yields(
    stream: Option<&Stream>,
    (full, appending): (Duration, Duration),
    holds_up: bool,
    too_large: Option<u64>,
) -> Option<ShipError> {
    let bytes = too_large.filter(|_| appending > LET_GO);
    match stream?.holds_log() {
        true => bytes.map(|bytes| ShipError::LetGo { bytes, waited: appending }),
        // A primary that stops waits for what is reported, and less than what was received is.
        false => (full > STALL || holds_up && appending > HELD_UP).then_some(ShipError::TargetStalled),
    }
}

/// Whether something waits, and ends where a record does.
fn ends_whole(decoder: &Decoder, batch: &Batch) -> bool {
    !batch.is_empty() && decoder.whole().is_some_and(|whole| whole.to == batch.end().offset)
}

/// The stream's next event, what was held back first; for ever none when there is no stream.
async fn next_event(stream: &mut Option<Stream>, held: &mut Option<Event>) -> Result<Event, stream::Error> {
    if let Some(held) = held.take() {
        return Ok(held);
    }
    match stream {
        Some(stream) => stream.next_event().await,
        None => std::future::pending().await,
    }
}

fn encode_error(source: FormatError) -> JournalError {
    JournalError::Encode { what: "chunk", source }
}
