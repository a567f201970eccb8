//! One database's log into one target: the owner task.
//!
//! What always holds: `stored <= received`; in `async` the report is what was received, so a dead store never holds the
//! primary's commits or shutdown; a chunk is appended only after the journal was taken over, and taken over only after the
//! source's bytes were found equal to the journal's. A crash here leaves at most one chunk that nobody counted.
//! What it does not do: release log at the primary (the supervisor's keep slot does), or wait for the catalog.
//!
//! ```text
//! find the primary -> journal's tail -> continuity? -> compare -> take over -> ship ... -> (timeline ends) -> branch -> ship
//!        ^                                                                       |
//!        '------------------ any error but fenced: pause, begin again -----------'
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_engines::event::{Happened, LogEvent};
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::log::{LogDecoder, LogShape, Major, SegmentBytes};
use farshore_engines::postgres::sql::{HolderEnd, Session};
use farshore_engines::postgres::wire::{
    self, ConnectParams, Connection, Host, ReplicationStream, SlotName, StandbyStatus, StreamEvent,
    SystemIdentity,
};
use farshore_journal::backup;
use farshore_journal::format::body::{GapBody, IncarnationRecord, TimelineBody};
use farshore_journal::format::object::Encoded;
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::{ObjectStore, Retry, StoreError};
use farshore_journal::writer::{Writer, WriterOptions, encode_data, encode_gap, encode_timeline};
use farshore_journal::{DatabaseName, JournalError, Offset, Position, Sequence, Timeline};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use crate::batch::Batch;
use crate::continuity::{Continuity, decide};
use crate::crash::crash_point;
use crate::error::ShipError;
use crate::progress::{CommitFact, Fact, PipelineState, PointFact, Progress};
use crate::resume::{self, Comparison, Tail};

/// How long a full batch may wait for the target before the stream is closed: a stream that is not read would hold up the
/// primary's shutdown.
const STALL: Duration = Duration::from_secs(3);
/// How long taking the journal over may take, a stream being open meanwhile: for a store that answers badly, and still short
/// enough for the primary's shutdown.
const TAKEOVER: Duration = Duration::from_secs(6);
/// How often the source is asked for a sign of life: what an idle database's exposure is measured by.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The first and longest pause before a session is begun again.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// How long a stopping pipeline waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// What a pipeline ships, from where and how.
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    /// The database.
    pub database: DatabaseName,
    /// How its servers are reached.
    pub params: ConnectParams,
    /// The slot named in the stream.
    pub slot: SlotName,
    /// The target's name in the configuration.
    pub store_name: String,
    /// Longest time that received bytes wait for company.
    pub flush_interval: Duration,
    /// How chunks are encoded; its segment size is replaced by the source's.
    pub writer: WriterOptions,
}

/// The append in flight. This box, unlike a plain one, may be looked at from several threads, which borrowing the pipeline
/// across an await needs.
type Append = ReusableBoxFuture<'static, (Writer, Result<Landed, ShipError>)>;

/// A chunk that the journal confirmed.
struct Landed {
    from: Position,
    end: Position,
    checked: Offset,
    number: Sequence,
}

/// The owner task of one database and target.
pub struct Pipeline {
    config: PipelineConfig,
    store: Arc<dyn ObjectStore>,
    writer: Option<Writer>,
    append: Option<Append>,
    progress: Arc<watch::Sender<Progress>>,
    facts: mpsc::Sender<Fact>,
    /// Commits and points that were received and are not yet stored, in log order.
    unstored: VecDeque<Seen>,
}

enum Seen {
    Commit(CommitFact),
    Point(PointFact),
}

impl Seen {
    fn end(&self) -> Offset {
        match self {
            Self::Commit(commit) => commit.end,
            Self::Point(point) => point.end,
        }
    }
}

/// A connected source and what it says of itself.
struct Source {
    host: Host,
    connection: Connection,
    sql: Session,
    identity: SystemIdentity,
    history: TimelineHistory,
    shape: LogShape,
}

impl Pipeline {
    /// A pipeline that has not begun.
    pub fn new(
        config: PipelineConfig,
        store: Arc<dyn ObjectStore>,
        progress: watch::Sender<Progress>,
        facts: mpsc::Sender<Fact>,
    ) -> Self {
        Self {
            config,
            store,
            writer: None,
            append: None,
            progress: Arc::new(progress),
            facts,
            unstored: VecDeque::new(),
        }
    }

    /// Ships until cancelled (`Ok`) or stopped for good.
    ///
    /// # Errors
    /// When another shipper took the journal over, or a fault never mends by waiting.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), ShipError> {
        let mut pause = PAUSE_FIRST;
        loop {
            let begun = Instant::now();
            let ended = tokio::select! {
                ended = Box::pin(self.session(&cancel)) => ended,
                // A session drains by itself once it streams; before that there is nothing to drain.
                () = drained(&cancel) => Ok(()),
            };
            let why = match ended {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            let state = match (&why, why.retry()) {
                _ if why.is_fenced() => PipelineState::Fenced,
                (ShipError::TargetStalled, _) => PipelineState::Accumulating,
                (_, Retry::Never) => PipelineState::Failed,
                _ => PipelineState::Degraded,
            };
            self.tell(|progress| {
                progress.state = state;
                progress.trouble = Some(why.to_string());
            });
            if matches!(state, PipelineState::Fenced | PipelineState::Failed) {
                return Err(why);
            }
            tracing::warn!(database = %self.config.database, store = %self.config.store_name, error = %why, "shipping paused");
            if matches!(why, ShipError::Journal(JournalError::OpenAnew { .. })) {
                self.writer = None;
            }
            if begun.elapsed() > PAUSE_LONGEST {
                pause = PAUSE_FIRST;
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                settled = self.settle() => if let Err(why) = settled && why.is_fenced() {
                    self.tell(|progress| {
                        progress.state = PipelineState::Fenced;
                        progress.trouble = Some(why.to_string());
                    });
                    return Err(why);
                },
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    /// Waits for the append in flight, which a session that ended left behind.
    async fn settle(&mut self) -> Result<(), ShipError> {
        let Some(append) = self.append.as_mut() else { return Ok(()) };
        let (writer, landed) = append.await;
        self.append = None;
        self.landed(writer, landed)
    }

    fn landed(&mut self, writer: Writer, landed: Result<Landed, ShipError>) -> Result<(), ShipError> {
        let next = writer.place().number();
        self.writer = Some(writer);
        let landed = landed?;
        let stored = landed.end.offset;
        let (commits, points) = self.seen_up_to(stored);
        let newest = commits.last().and_then(|commit| DateTime::from_timestamp_micros(commit.time_micros));
        let oldest = self.oldest_unstored();
        let mut incarnation = None;
        self.tell(|progress| {
            progress.stored = Some(landed.end);
            progress.releasable = Some(landed.end);
            progress.checked = Some(landed.checked);
            progress.next_sequence = Some(next);
            progress.oldest_unstored_commit = oldest;
            progress.last_stored_commit = newest.or(progress.last_stored_commit);
            progress.trouble = None;
            progress.state = PipelineState::Connected;
            incarnation = progress.incarnation;
        });
        if let Some(incarnation) = incarnation {
            self.fact(Fact::Stored {
                incarnation,
                timeline: landed.end.timeline,
                start: landed.from.offset,
                end: landed.end.offset,
                checked: landed.checked,
                first: landed.number,
                last: landed.number,
                commits,
                points,
            });
        }
        Ok(())
    }

    /// Takes what was seen up to `stored`, for the catalog.
    fn seen_up_to(&mut self, stored: Offset) -> (Vec<CommitFact>, Vec<PointFact>) {
        let mut commits = Vec::new();
        let mut points = Vec::new();
        while self.unstored.front().is_some_and(|seen| seen.end() <= stored) {
            match self.unstored.pop_front() {
                Some(Seen::Commit(commit)) => commits.push(commit),
                Some(Seen::Point(point)) => points.push(point),
                None => {}
            }
        }
        (commits, points)
    }

    fn oldest_unstored(&self) -> Option<DateTime<Utc>> {
        self.unstored.iter().find_map(|seen| match seen {
            Seen::Commit(commit) => DateTime::from_timestamp_micros(commit.time_micros),
            Seen::Point(_) => None,
        })
    }

    fn fact(&self, fact: Fact) {
        if self.facts.try_send(fact).is_err() {
            self.tell(|progress| progress.facts_dropped += 1);
        }
    }

    /// One session: from finding the primary to the end of the stream.
    async fn session(&mut self, cancel: &CancellationToken) -> Result<(), ShipError> {
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

    /// A writer that owned the journal and was away must not take it back from one that took over meanwhile.
    async fn check_not_fenced(&mut self, reader: &Reader) -> Result<(), ShipError> {
        let Some(writer) = self.writer.as_ref().filter(|w| w.reader().incarnation() == reader.incarnation())
        else {
            return Ok(());
        };
        let at = writer.place().number();
        match reader.chunk(at).await {
            Err(JournalError::Store(StoreError::NotFound { .. })) => Ok(()),
            Err(why) => Err(why.into()),
            Ok(chunk) => {
                let header = chunk.header();
                if writer.wrote(header) {
                    // An append that was given up stands after all. Nobody else was there: take the journal over again.
                    self.writer = None;
                    return Ok(());
                }
                let by = Some((header.generation, header.writer));
                Err(JournalError::Fenced { own: writer.generation(), by, at }.into())
            }
        }
    }

    /// The journal's end that was read must be this writer's own: another shipper may have taken over between the two looks.
    async fn check_own_end(&mut self, reader: &Reader, tail: Option<&Tail>) -> Result<(), ShipError> {
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
    fn stands_at(&self, end: Position) -> bool {
        self.append.is_none() && self.writer.as_ref().is_none_or(|writer| writer.stored() == end)
    }

    /// The journal's owner: this process, from here on. What was read of the journal's end before must still be its end.
    async fn own(
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
        let writer = tokio::time::timeout(TAKEOVER, taken).await.map_err(|_| ShipError::TargetStalled)??;
        crash_point!("ship-after-takeover");
        let found = writer.found().map(|header| header.number);
        self.tell(|progress| {
            progress.generation = Some(writer.generation());
            progress.stored = found.map(|_| writer.stored());
            progress.next_sequence = Some(writer.place().number());
        });
        tracing::info!(database = %self.config.database, store = %self.config.store_name, generation = %writer.generation(),
            position = %writer.stored(), "took the journal over");
        self.writer = Some(writer);
        match found == read {
            true => Ok(()),
            // Another shipper appended after the comparison: compare anew, now as the owner.
            false => Err(ShipError::JournalMoved),
        }
    }

    fn trouble(&self) -> Arc<dyn Fn(&StoreError) + Send + Sync> {
        let progress = Arc::clone(&self.progress);
        Arc::new(move |why: &StoreError| {
            progress.send_modify(|progress| {
                progress.state = PipelineState::Accumulating;
                progress.trouble = Some(why.to_string());
            });
        })
    }

    /// Puts one chunk that is not log bytes.
    async fn put(&mut self, chunk: Encoded) -> Result<(), ShipError> {
        let trouble = self.trouble();
        let Some(writer) = self.writer.as_mut() else {
            return Err(ShipError::TaskEnded { what: "writer" });
        };
        crash_point!("ship-record");
        writer.append(&chunk, &*trouble).await?;
        crash_point!("ship-recorded");
        let (stored, next) = (writer.stored(), writer.place().number());
        self.tell(|progress| {
            progress.stored = Some(stored);
            progress.next_sequence = Some(next);
        });
        Ok(())
    }

    /// Begins an empty journal. One that begins on a later timeline keeps that timeline's history, and says that what lies
    /// between the fork and here was never here.
    /// `read` is the last chunk when there are only openings.
    async fn begin(
        &mut self,
        reader: &Reader,
        source: &mut Source,
        at: Position,
        read: Option<Sequence>,
    ) -> Result<(), ShipError> {
        self.own(reader, at, read).await?;
        self.tell(|progress| progress.base_due = Some("the journal begins".to_owned()));
        if let Some(parent) = source.history.ancestors().last().cloned() {
            self.branch_chunk(
                source,
                Position::new(at.timeline, parent.left_at),
                parent.timeline,
                parent.left_at,
            )
            .await?;
            if parent.left_at < at.offset {
                self.gap_chunk(reader, at.offset, "the journal began here").await?;
            }
        }
        Ok(())
    }

    /// Follows the source's history where it left the journal's.
    async fn branch(
        &mut self,
        reader: &Reader,
        source: &mut Source,
        tail: &Option<Tail>,
        branch: Position,
        parent: Timeline,
    ) -> Result<(), ShipError> {
        self.own(reader, branch, tail.as_ref().map(|tail| tail.last)).await?;
        let parent_end = tail.as_ref().map_or(branch.offset, |tail| tail.end.offset);
        if let Some(beyond) = parent_end.bytes_since(branch.offset).filter(|bytes| *bytes > 0) {
            tracing::error!(database = %self.config.database, beyond_bytes = beyond, timeline = %parent,
                "acknowledged log of the old timeline is not on the new primary");
        }
        self.branch_chunk(source, branch, parent, parent_end).await
    }

    async fn branch_chunk(
        &mut self,
        source: &mut Source,
        branch: Position,
        parent: Timeline,
        parent_end: Offset,
    ) -> Result<(), ShipError> {
        let history = match source.connection.timeline_history(branch.timeline).await? {
            Some(file) => file.content.to_vec(),
            // The server lacks a file of its own past; its newest history says the same.
            None => written_history(&source.history, branch.timeline),
        };
        let body = TimelineBody { parent, parent_end, history };
        let Some(writer) = self.writer.as_ref() else { return Err(ShipError::TaskEnded { what: "writer" }) };
        let (chunk, _) = encode_timeline(writer.place(), branch, &body)?;
        let incarnation = writer.reader().incarnation();
        self.put(chunk).await?;
        self.fact(Fact::Branch { incarnation, timeline: branch.timeline, parent, at: branch.offset });
        tracing::warn!(database = %self.config.database, timeline = %branch.timeline, %parent, position = %branch, "a timeline begins");
        Ok(())
    }

    /// The source no longer has what comes next: the gap's bounds are recorded exactly, and a new base backup is due.
    async fn gap(&mut self, reader: &Reader, source: &Source, tail: &Tail) -> Result<(), ShipError> {
        self.own(reader, tail.end, Some(tail.last)).await?;
        // On an ancestor everything up to the fork is gone; on the source's own timeline, up to its present segment.
        let end = match source.history.leaves(tail.end.timeline) {
            Some(fork) => fork,
            None => source.identity.flushed.segment_start(self.config.writer.segment_bytes),
        };
        if end <= tail.end.offset {
            return Err(ShipError::Behind {
                source_end: Position::new(tail.end.timeline, end),
                stored: tail.end,
            });
        }
        self.tell(|progress| progress.base_due = Some(format!("the log up to {end} is gone at the source")));
        self.gap_chunk(reader, end, "the source no longer had this log").await
    }

    /// A process that recorded a gap may have died before the base backup that follows it.
    async fn base_behind_gap(&self, reader: &Reader, tail: &Tail) -> Result<(), ShipError> {
        let Some(gap_end) = tail.behind_gap.filter(|_| self.progress.borrow().base_due.is_none()) else {
            return Ok(());
        };
        for id in backup::list(reader).await? {
            // One that does not read is no base, and no reason to stop shipping.
            let range = backup::standing(reader, id).await.ok().and_then(|standing| standing.complete);
            if range.is_some_and(|r| r.start.timeline == tail.end.timeline && r.start.offset >= gap_end) {
                return Ok(());
            }
        }
        self.tell(|progress| progress.base_due = Some(format!("the log up to {gap_end} is missing")));
        Ok(())
    }

    async fn gap_chunk(&mut self, reader: &Reader, end: Offset, reason: &str) -> Result<(), ShipError> {
        let Some(writer) = self.writer.as_ref() else { return Err(ShipError::TaskEnded { what: "writer" }) };
        let start = writer.stored();
        let (chunk, _) = encode_gap(writer.place(), end, &GapBody { reason: reason.to_owned() })?;
        self.put(chunk).await?;
        tracing::error!(database = %self.config.database, from = %start, to = %end, reason, "a gap in the journal");
        self.fact(Fact::Gap {
            incarnation: reader.incarnation(),
            timeline: start.timeline,
            start: start.offset,
            end,
            reason: reason.to_owned(),
        });
        Ok(())
    }

    /// Compares, takes over, ships. `Ok(None)`: cancelled and drained. `Ok(Some(()))`: the timeline ended.
    async fn stream(
        &mut self,
        reader: &Reader,
        source: Source,
        tail: &Tail,
        cancel: &CancellationToken,
    ) -> Result<Option<()>, ShipError> {
        let from = tail.compare_from();
        let anchor = source.sql.next_transaction().await?;
        let mut decoder = LogDecoder::new(source.shape, from)?.with_transaction_anchor(anchor);
        let mut stream = self.open_stream(source, from).await?;
        let mut comparison = Comparison::over(tail);
        let mut batch = Batch::at(tail.end);
        let mut last_sent: Option<Instant> = None;
        let mut full_since: Option<Instant> = None;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.unstored.clear();
        if comparison.is_done() {
            self.own(reader, tail.end, Some(tail.last)).await?;
        }
        let mut timeline_over = false;
        loop {
            if self.append.is_none() && !batch.is_empty() {
                let due = batch.due(last_sent, self.config.flush_interval);
                let now = Instant::now();
                if timeline_over
                    || cancel.is_cancelled()
                    || batch.is_full()
                    || due.is_some_and(|due| due <= now)
                {
                    self.send(&mut batch, decoder.checked_end().unwrap_or(from.offset))?;
                    last_sent = Some(now);
                }
            }
            if self.append.is_none() && batch.is_empty() {
                if timeline_over {
                    return Ok(Some(()));
                }
                if cancel.is_cancelled() {
                    // A stream that cannot be ended politely is ended by closing it.
                    let _ = stream.stop().await;
                    return Ok(None);
                }
            }
            full_since = if batch.is_full() { full_since.or_else(|| Some(Instant::now())) } else { None };
            if full_since.is_some_and(|since| since.elapsed() > STALL) {
                return Err(ShipError::TargetStalled);
            }
            let reads = !batch.is_full() && !timeline_over && !cancel.is_cancelled();
            let due = batch.due(last_sent, self.config.flush_interval).filter(|_| self.append.is_none());
            tokio::select! {
                biased;
                done = async { match self.append.as_mut() {
                    Some(append) => append.await,
                    None => std::future::pending().await,
                } } => {
                    self.append = None;
                    let (writer, landed) = done;
                    self.landed(writer, landed)?;
                }
                event = stream.next_event(), if reads => match event? {
                    StreamEvent::Data { bytes, server_end, .. } => {
                        let unstored = &mut self.unstored;
                        decoder.push(&bytes, &mut |event| note(unstored, event))?;
                        let compared = comparison.is_done();
                        let fresh = comparison.take(&bytes)?;
                        if !compared && comparison.is_done() {
                            self.own(reader, tail.end, Some(tail.last)).await?;
                            // A process that was killed may have stored what its catalog never heard of: said again here.
                            let (commits, points) = self.seen_up_to(tail.end.offset);
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
                            self.tell(|progress| {
                                progress.checked = checked.or(progress.checked);
                                progress.stored = Some(tail.end);
                                progress.releasable = Some(tail.end);
                            });
                        }
                        if !fresh.is_empty() {
                            batch.push(fresh, server_end, Instant::now());
                        }
                        self.heard(&stream, server_end);
                    }
                    StreamEvent::KeepAlive { server_end, reply_requested } => {
                        self.heard(&stream, server_end);
                        if reply_requested {
                            self.report(&mut stream, false).await?;
                        }
                    }
                    StreamEvent::TimelineEnd { .. } => timeline_over = true,
                },
                _ = heartbeat.tick() => if !timeline_over { self.report(&mut stream, true).await?; },
                () = async { match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                } } => {}
                () = cancel.cancelled(), if reads => {}
            }
        }
    }

    fn heard(&self, stream: &ReplicationStream, source_end: Offset) {
        let oldest = self.oldest_unstored();
        self.tell(|progress| {
            progress.received = Some(stream.received());
            progress.source_end = Some(source_end.max(stream.received().offset));
            progress.last_contact = Some(Utc::now());
            progress.oldest_unstored_commit = oldest;
            if progress.state != PipelineState::Accumulating {
                progress.state = PipelineState::Connected;
                progress.trouble = None;
            }
        });
    }

    /// `async`: the report is what was received. The keep slot holds what is not yet stored.
    async fn report(&self, stream: &mut ReplicationStream, ask: bool) -> Result<(), ShipError> {
        crash_point!("ship-report");
        let received = stream.received().offset;
        let status = StandbyStatus { written: received, flushed: received, applied: received };
        stream.send_status(status, ask).await?;
        self.tell(|progress| progress.reported = Some(received));
        Ok(())
    }

    /// Makes a chunk of what waits and puts it on its way.
    fn send(&mut self, batch: &mut Batch, checked: Offset) -> Result<(), ShipError> {
        let Some(mut writer) = self.writer.take() else {
            return Err(ShipError::TaskEnded { what: "writer" });
        };
        let (from, bytes) = batch.take();
        let trouble = self.trouble();
        self.append = Some(ReusableBoxFuture::new(async move {
            let landed = async {
                let place = writer.place().clone();
                if place.at() != from {
                    return Err(ShipError::JournalMoved);
                }
                let encoded = tokio::task::spawn_blocking(move || encode_data(&place, &bytes)).await;
                let (chunk, _) = encoded.map_err(|_| ShipError::TaskEnded { what: "encoding" })??;
                crash_point!("ship-encoded");
                writer.append(&chunk, &*trouble).await?;
                crash_point!("ship-appended");
                let end = chunk.header.end_position();
                Ok(Landed { from, end, checked: checked.min(end.offset), number: chunk.header.number })
            }
            .await;
            (writer, landed)
        }));
        Ok(())
    }

    /// Names the live slot in a stream from `from`; makes the slot when it is missing, and ends an older stream of ours.
    async fn open_stream(&self, source: Source, from: Position) -> Result<ReplicationStream, ShipError> {
        let slot = &self.config.slot;
        let Source { host, mut connection, sql, .. } = source;
        let found = sql.slot_get(slot).await?;
        let lost = found.as_ref().is_some_and(|slot| slot.is_lost() && slot.active_pid.is_none());
        if lost {
            // It keeps nothing and cannot be streamed by. Whether the log itself is gone, the stream will say.
            tracing::warn!(slot = %slot, "the primary gave up the log that this slot kept; it is made anew");
            sql.slot_drop(slot).await?;
        }
        if found.is_none() || lost {
            match connection.create_physical_slot(slot, true).await {
                Ok(()) | Err(wire::Error::SlotExists { .. }) => {}
                Err(why) => return Err(why.into()),
            }
        }
        match connection.start_physical(Some(slot), from).await {
            Err(why @ wire::Error::SlotInUse { .. }) => {
                // An older stream, ours or a frozen shipper's: end it, so that only one is fed.
                match sql.slot_terminate_holder(slot).await? {
                    HolderEnd::Told { .. } | HolderEnd::NotHeld => {}
                    HolderEnd::NotOurs { .. } => return Err(why.into()),
                }
                let deadline = Instant::now() + Duration::from_secs(5);
                loop {
                    let connection = Connection::connect(&self.config.params, &host).await?;
                    match connection.start_physical(Some(slot), from).await {
                        Err(wire::Error::SlotInUse { .. }) if Instant::now() < deadline => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        other => return Ok(other?),
                    }
                }
            }
            other => Ok(other?),
        }
    }
}

/// Keeps what the catalog is to know once it is stored.
fn note(unstored: &mut VecDeque<Seen>, event: LogEvent) {
    match event.what {
        Happened::Commit(commit) => {
            if let Some(xid) = commit.transaction.full {
                let (start, end) = (event.start, event.end);
                unstored.push_back(Seen::Commit(CommitFact {
                    start,
                    end,
                    time_micros: commit.time_micros,
                    xid,
                }));
            }
        }
        Happened::RestorePoint { name, time_micros } => {
            unstored.push_back(Seen::Point(PointFact { end: event.end, time_micros, name }));
        }
        _ => {}
    }
}

/// The history file of `timeline`, from that of a descendant.
fn written_history(of: &TimelineHistory, timeline: Timeline) -> Vec<u8> {
    let before = of.ancestors().iter().take_while(|ancestor| ancestor.timeline != timeline);
    let lines = before.map(|a| format!("{}\t{}\tas a later history says\n", a.timeline, a.left_at));
    lines.collect::<String>().into_bytes()
}

/// The host that takes writes, with both kinds of connection. Of several, which a promotion beside a living primary leaves,
/// the one on the newest timeline: the service must not wait for a host that the others have left behind.
async fn find_primary(params: &ConnectParams) -> Result<Source, ShipError> {
    let mut last = None;
    let mut found: Option<Source> = None;
    for host in params.hosts() {
        match connect(params, host).await {
            Ok(Some(source)) => {
                if found.as_ref().is_none_or(|found| found.identity.timeline < source.identity.timeline) {
                    found = Some(source);
                }
            }
            Ok(None) => {}
            Err(why) => last = Some(why),
        }
    }
    if let Some(found) = found {
        return Ok(found);
    }
    let hosts = params.hosts().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(last.unwrap_or(ShipError::NoPrimary { hosts }))
}

async fn connect(params: &ConnectParams, host: &Host) -> Result<Option<Source>, ShipError> {
    let sql = Session::connect(params, host).await?;
    if sql.in_recovery().await? {
        return Ok(None);
    }
    let segment_bytes = SegmentBytes::new(sql.settings().await?.wal_segment_bytes)?;
    let mut connection = Connection::connect(params, host).await?;
    let identity = connection.identify_system().await?;
    let history = match connection.timeline_history(identity.timeline).await? {
        Some(file) => TimelineHistory::parse(identity.timeline, &file.content)?,
        None => TimelineHistory::first(),
    };
    let major = Major::new(connection.server_version().major)?;
    let shape = LogShape { major, segment_bytes, system_identifier: identity.system_identifier };
    Ok(Some(Source { host: host.clone(), connection, sql, identity, history, shape }))
}

/// Resolves when a cancelled session had its time to drain.
async fn drained(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_that_the_server_lacks_is_written_from_a_later_one() {
        let later =
            TimelineHistory::parse(Timeline::new(4), b"1\t0/500\tx\n2\t0/700\ty\n3\t0/900\tz\n").unwrap();
        let written = written_history(&later, Timeline::new(3));
        let read = TimelineHistory::parse(Timeline::new(3), &written).unwrap();
        assert_eq!(read.leaves(Timeline::new(1)), Some(Offset::new(0x500)));
        assert_eq!(read.leaves(Timeline::new(2)), Some(Offset::new(0x700)));
        assert_eq!(read.ancestors().len(), 2);
    }
}
