//! Fills a spool: one task for each database.
//!
//! What always holds: it is told to be taking only while what the run holds from the slot on was compared with the source in the present connection; the stream that log is taken by
//! names no slot and reports nothing as flushed, so that no commit is acknowledged by it and no shutdown waits for it. A crash here leaves at most one
//! segment that nobody counted. What it does not do: move slots (the keeper does, on the strength of what is told here).

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use farshore_engines::postgres::log::file_name::SegmentName;
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::log::{LogDecoder, LogShape, Major, SegmentBytes};
use farshore_engines::postgres::wire::{
    ConnectParams, Connection, Host, ReplicationStream, StandbyStatus, StreamEvent,
};
use farshore_journal::{Offset, Position, Timeline};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::decide::{Floor, View, Wish, decide, floor};
use super::disk::Files;
use super::files::{PutError, Segments, SpoolFiles};
use super::{Run, SpoolState, Spooled};
use crate::crash::crash_point;
use crate::error::ShipError;
use crate::keep::{Kept, SlotStands};
use crate::progress::Progress;
use crate::push::proof::LARGEST_BYTES;

/// How often it looks whether there is something to do.
const LOOK: Duration = Duration::from_secs(1);
/// How long it leaves a source or a disk alone that did not do what it was asked.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked anew how much is there, beside what is counted.
const MEASURE: Duration = Duration::from_secs(60);
/// How long a disk may take while the stream is not read.
const STALL: Duration = Duration::from_secs(3);

/// Said while a promotion was not followed.
const PROMOTION: &str = "a store has not followed the promotion yet: until then the primary keeps its log, and the spool takes none";

/// Fills a database's spool.
#[derive(Debug)]
pub struct Spooler {
    /// How the hosts are reached.
    pub params: ConnectParams,
    /// Its files.
    pub files: SpoolFiles,
    /// How much the primary may keep for us before any is taken.
    pub above: u64,
    /// Where the keep slot stands on each host.
    pub kept: Kept,
    /// How far the targets are.
    pub targets: Vec<watch::Receiver<Progress>>,
    /// Whether the further directories are in use.
    pub extended: watch::Receiver<bool>,
    /// Told how it stands.
    pub told: watch::Sender<Spooled>,
}

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
enum SpoolError {
    #[error(transparent)]
    Ship(#[from] ShipError),
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error(
        "the segment {name} in the spool differs from the source's: nothing is let go on the strength of what is spooled"
    )]
    Differs { name: SegmentName },
    #[error("another process fills this spool")]
    Held,
    #[error("its writing broke off")]
    Ended,
    #[error("segments of {bytes} bytes are larger than a spool takes ({LARGEST_BYTES})")]
    Large { bytes: u64 },
}

/// The primary's side of a look.
#[derive(Debug, Clone, Copy)]
struct Primary {
    timeline: Timeline,
    stands: SlotStands,
    segment_bytes: SegmentBytes,
}

impl Primary {
    /// Whether it is the same server, which has not gone back in its own history.
    fn is_still(&self, before: &Self) -> bool {
        let (now, then) = (&self.stands, &before.stands);
        (self.timeline, now.system_identifier) == (before.timeline, then.system_identifier)
            && now.at >= then.at
            && now.flushed >= then.flushed
    }
}

impl Spooler {
    /// Fills it until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut lock = None;
        loop {
            let ended = tokio::select! {
                () = cancel.cancelled() => return,
                ended = self.look(&mut lock) => ended,
            };
            let pause = match ended {
                Ok(pause) => pause,
                Err(why) => {
                    // What was compared stays what the log is held by; nothing more is let go on the strength of it.
                    let run = self.told.borrow().run.filter(|_| !matches!(why, SpoolError::Differs { .. }));
                    self.tell(SpoolState::Waiting, run, Some(why.to_string()));
                    // One whose directory went away must not be kept from being unmounted, nor looked at through the old one.
                    lock = None;
                    PAUSE
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once, and takes log as long as there is reason to. When to look again.
    async fn look(&self, lock: &mut Option<Flock<File>>) -> Result<Duration, SpoolError> {
        let Some((host, primary)) = self.primary() else {
            self.counts_no_more();
            return Ok(LOOK);
        };
        if primary.segment_bytes.get() > LARGEST_BYTES {
            return Err(SpoolError::Large { bytes: primary.segment_bytes.get() });
        }
        // Nobody else's segments are removed, nor others put among them.
        if lock.is_none() {
            *lock = Some(self.lock().await?);
        }
        let segments = self.files.of(primary.stands.system_identifier);
        let floor = self.floor(&primary);
        let away = blocking(&segments, move |segments| {
            if let Floor::At(_) = floor {
                // While all is well: a service that begins with every store away knows by its folder whose primary that is.
                segments.make_folder()?;
            }
            segments.measure()?;
            Ok(segments.is_all_there().err().map(|why| why.to_string()))
        });
        let away = away.await?;
        self.tidy(&segments, &primary, floor).await?;
        // Of a first timeline there is no fork; of a later one the server is asked before anything is taken.
        let view = self.view(&segments, &primary, Offset::new(0)).await?;
        match decide(&view) {
            Wish::Rest => {
                self.tell(SpoolState::Idle, view.run, away);
                Ok(LOOK)
            }
            Wish::Wait => {
                self.tell(SpoolState::Waiting, view.run, Some(PROMOTION.to_owned()));
                Ok(PAUSE)
            }
            Wish::Take { .. } => self.take(&host, primary, &segments, (view.run, away)).await,
        }
    }

    /// Connects, and takes log until there is no reason to, or no room.
    async fn take(
        &self,
        host: &Host,
        primary: Primary,
        segments: &Segments<Files>,
        (held, away): (Option<Run>, Option<String>),
    ) -> Result<Duration, SpoolError> {
        let bytes = primary.segment_bytes.get();
        blocking(segments, Segments::make_ready).await?;
        let extended = *self.extended.borrow();
        if !blocking(segments, move |segments| segments.has_room(bytes, extended)).await? {
            self.full(held);
            return Ok(LOOK);
        }
        let name = format!("{} spool", self.params.application_name());
        let params = self.params.clone().with_application_name(name);
        let mut connection = Connection::connect(&params, host).await.map_err(ShipError::from)?;
        let system = connection.identify_system().await.map_err(ShipError::from)?;
        if (system.system_identifier, system.timeline) != (primary.stands.system_identifier, primary.timeline)
        {
            return Err(ShipError::SourceChanged.into());
        }
        let fork = fork(&mut connection, primary.timeline).await?;
        let view = self.view(segments, &primary, fork).await?;
        let (from, known) = match decide(&view) {
            Wish::Take { from, known } => (from, known),
            Wish::Rest => return Ok(LOOK),
            Wish::Wait => {
                self.tell(SpoolState::Waiting, held, Some(PROMOTION.to_owned()));
                return Ok(PAUSE);
            }
        };
        let begin = Position::new(primary.timeline, from);
        let shape = LogShape {
            major: Major::new(connection.server_version().major).map_err(ShipError::from)?,
            segment_bytes: primary.segment_bytes,
            system_identifier: primary.stands.system_identifier,
        };
        let stream = connection.start_physical(None, begin).await.map_err(ShipError::from)?;
        let decoder = LogDecoder::new(shape, begin).map_err(|why| ShipError::Decode(why.into()))?;
        tracing::info!(from = %begin, "the spool takes log");
        let taking = Taking {
            stream: Some(stream),
            decoder,
            gathered: Vec::new(),
            at: begin,
            run: view.run,
            known,
            away,
        };
        let ended = taking.run(self, segments, primary, fork).await;
        self.counts_no_more();
        ended
    }

    fn primary(&self) -> Option<(Host, Primary)> {
        let found = self.kept.iter().filter_map(|(host, kept)| {
            let kept = kept.borrow();
            Some((host, kept.primary?, kept.stands?))
        });
        let (host, timeline, stands) = found.max_by_key(|(_, timeline, _)| *timeline)?;
        let segment_bytes = SegmentBytes::new(stands.segment_bytes).ok()?;
        Some((host.clone(), Primary { timeline, stands, segment_bytes }))
    }

    /// From where on targets may still ask: whatever a store confirmed, be it from the spool itself, is not asked for again.
    fn floor(&self, primary: &Primary) -> Floor {
        let stored = self.targets.iter().map(|target| {
            let target = target.borrow();
            target.stored.filter(|_| target.cluster == Some(primary.stands.system_identifier))
        });
        floor(&stored.collect::<Vec<_>>(), primary.timeline, primary.segment_bytes.get())
    }

    /// What there is to decide on while nothing is taken.
    async fn view(
        &self,
        segments: &Segments<Files>,
        primary: &Primary,
        fork: Offset,
    ) -> Result<View, SpoolError> {
        let Primary { timeline, stands, segment_bytes } = *primary;
        let run = blocking(segments, move |segments| segments.run_around(timeline, stands.at, segment_bytes));
        Ok(View { run: run.await?, ..self.view_of(primary, fork) })
    }

    fn view_of(&self, primary: &Primary, fork: Offset) -> View {
        View {
            slot: primary.stands.at,
            flushed: primary.stands.flushed,
            fork,
            floor: self.floor(primary),
            run: None,
            taking: false,
            above: self.above,
            segment_bytes: primary.segment_bytes.get(),
        }
    }

    async fn lock(&self) -> Result<Flock<File>, SpoolError> {
        let files = self.files.clone();
        let locked = tokio::task::spawn_blocking(move || {
            let file = File::options().create(true).append(true).mode(0o600).open(files.lock_path()?)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => Ok(lock),
                Err((_, Errno::EWOULDBLOCK)) => Err(SpoolError::Held),
                Err((_, why)) => Err(io::Error::from(why).into()),
            }
        });
        locked.await.map_err(|_| SpoolError::Ended)?
    }

    /// Removes what every target has stored.
    async fn tidy(
        &self,
        segments: &Segments<Files>,
        primary: &Primary,
        floor: Floor,
    ) -> Result<(), SpoolError> {
        let Floor::At(at) = floor else { return Ok(()) };
        let (floor, bytes) = (Position::new(primary.timeline, at), primary.segment_bytes);
        blocking(segments, move |segments| segments.remove_before(floor, bytes)).await
    }

    fn full(&self, held: Option<Run>) {
        let why =
            "it is full: the primary keeps its log until a store takes what is here, or there is more room";
        self.tell(SpoolState::Full, held, Some(why.to_owned()));
    }

    /// Says how it stands, without asking a disk.
    fn tell(&self, state: SpoolState, run: Option<Run>, trouble: Option<String>) {
        let limit = self.files.limit(*self.extended.borrow());
        let bytes = self.files.bytes();
        let said = self.told.borrow().trouble.clone();
        if let Some(trouble) = trouble.as_ref().filter(|trouble| said.as_ref() != Some(*trouble)) {
            tracing::warn!(state = state.word(), "the spool: {trouble}");
        }
        self.told.send_replace(Spooled { state, run, bytes, limit, trouble });
    }

    /// Whatever was compared was compared in a connection that is over.
    fn counts_no_more(&self) {
        self.told.send_if_modified(|told| {
            let counted = told.state == SpoolState::Taking;
            if counted {
                told.state = SpoolState::Waiting;
            }
            counted
        });
    }
}

/// What is left of a run once what lies before the floor is removed; nothing of another timeline's.
fn cut(run: Option<Run>, primary: &Primary, floor: Floor) -> Option<Run> {
    let mut run = run.filter(|run| run.timeline == primary.timeline)?;
    if let Floor::At(floor) = floor {
        run.start = run.start.max(floor);
    }
    Some(run).filter(|run| run.start < run.end)
}

/// A stream from which segments are gathered.
struct Taking {
    /// `None` once it was closed because a disk was slow.
    stream: Option<ReplicationStream>,
    decoder: LogDecoder,
    /// Of the segment that begins at `at`.
    gathered: Vec<u8>,
    at: Position,
    /// What is there.
    run: Option<Run>,
    /// Up to where it is compared, and not written. Behind that, all of the run counts.
    known: Offset,
    /// Which of its directories is not there.
    away: Option<String>,
}

impl Taking {
    async fn run(
        mut self,
        spooler: &Spooler,
        segments: &Segments<Files>,
        mut primary: Primary,
        fork: Offset,
    ) -> Result<Duration, SpoolError> {
        let (mut tidied, mut measured) = (None, Instant::now());
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let Some(stream) = self.stream.as_mut() else { return Ok(LOOK) };
            tokio::select! {
                biased;
                _ = looks.tick() => {
                    match spooler.primary() {
                        Some((_, now)) if now.is_still(&primary) => primary = now,
                        _ => return Ok(LOOK),
                    }
                    let floor = spooler.floor(&primary);
                    if tidied != Some(floor) {
                        self.waiting_for(spooler, spooler.tidy(segments, &primary, floor)).await?;
                        tidied = Some(floor);
                    }
                    if measured.elapsed() > MEASURE {
                        self.waiting_for(spooler, blocking(segments, Segments::measure)).await?;
                        measured = Instant::now();
                    }
                    self.run = cut(self.run, &primary, floor);
                    let view = View { taking: true, run: self.run, ..spooler.view_of(&primary, fork) };
                    match decide(&view) {
                        Wish::Take { .. } if self.at.offset < self.known => {}
                        Wish::Take { .. } => spooler.tell(SpoolState::Taking, self.run, self.away.clone()),
                        Wish::Rest | Wish::Wait => return Ok(LOOK),
                    }
                }
                event = stream.next_event() => match event.map_err(ShipError::from)? {
                    StreamEvent::Data { bytes, .. } => {
                        if !self.gather(&bytes, spooler, segments, primary.segment_bytes).await? {
                            spooler.full(self.run);
                            return Ok(PAUSE);
                        }
                        self.report().await?;
                    }
                    StreamEvent::KeepAlive { reply_requested, .. } => {
                        if reply_requested {
                            self.report().await?;
                        }
                    }
                    // What of it is no whole segment is in the next timeline's first.
                    StreamEvent::TimelineEnd { .. } => return Ok(LOOK),
                },
            }
        }
    }

    /// Takes bytes in. `false`: a segment is whole, and there is no room for it.
    async fn gather(
        &mut self,
        mut bytes: &[u8],
        spooler: &Spooler,
        segments: &Segments<Files>,
        segment_bytes: SegmentBytes,
    ) -> Result<bool, SpoolError> {
        self.decoder.push(bytes, &mut |_| {}).map_err(|why| ShipError::Decode(why.into()))?;
        let whole = usize::try_from(segment_bytes.get()).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            let (mine, rest) = bytes.split_at(bytes.len().min(whole - self.gathered.len()));
            self.gathered.extend_from_slice(mine);
            bytes = rest;
            if self.gathered.len() == whole {
                let content = std::mem::take(&mut self.gathered);
                let name = SegmentName::holding(self.at.timeline, self.at.offset, segment_bytes);
                let Some(end) = name.end() else { return Ok(false) };
                if self.at.offset < self.known {
                    let read = blocking(segments, move |segments| segments.read(&name));
                    if self.waiting_for(spooler, read).await? != content {
                        return Err(SpoolError::Differs { name });
                    }
                } else {
                    let extended = *spooler.extended.borrow();
                    let segments = segments.clone();
                    let put = tokio::task::spawn_blocking(move || segments.put(&name, &content, extended));
                    match self.waiting_for(spooler, put).await.map_err(|_| SpoolError::Ended)? {
                        Ok(()) => {}
                        Err(PutError::Full) => return Ok(false),
                        Err(PutError::Differs) => return Err(SpoolError::Differs { name }),
                        Err(PutError::Refused(why)) => return Err(why.into()),
                    }
                    crash_point!("spool-put");
                    let start = self.run.map_or(self.at.offset, |run| run.start);
                    self.run = Some(Run { timeline: self.at.timeline, start, end });
                }
                self.at.offset = end;
                if self.at.offset >= self.known && self.stream.is_some() {
                    spooler.tell(SpoolState::Taking, self.run, self.away.clone());
                    crash_point!("spool-told");
                }
            }
        }
        Ok(true)
    }

    /// Waits for a disk. A stream that is not read meanwhile would hold up the primary's shutdown: it is closed where that takes long.
    async fn waiting_for<T>(&mut self, spooler: &Spooler, disk: impl Future<Output = T>) -> T {
        let mut disk = std::pin::pin!(disk);
        match tokio::time::timeout(STALL, &mut disk).await {
            Ok(done) => done,
            Err(_) => {
                self.stream = None;
                let why = "its disk does not answer: no log is taken meanwhile";
                spooler.tell(SpoolState::Waiting, self.run, Some(why.to_owned()));
                disk.await
            }
        }
    }

    /// Tells the server what has come, and nothing as flushed: a stream that reports that is a candidate for synchronous replication (`SyncRepGetCandidateStandbys`,
    /// src/backend/replication/syncrep.c), and a server that stops waits for what was flushed, or else for what was written (`WalSndDone`, walsender.c).
    async fn report(&mut self) -> Result<(), SpoolError> {
        let Some(stream) = self.stream.as_mut() else { return Ok(()) };
        let written = stream.received().offset;
        let status = StandbyStatus { written, ..StandbyStatus::default() };
        Ok(stream.send_status(status, false).await.map_err(ShipError::from)?)
    }
}

/// Where a timeline left the one before; zero for the first.
async fn fork(connection: &mut Connection, timeline: Timeline) -> Result<Offset, SpoolError> {
    let Some(file) = connection.timeline_history(timeline).await.map_err(ShipError::from)? else {
        return Ok(Offset::new(0));
    };
    let history = TimelineHistory::parse(timeline, &file.content).map_err(ShipError::from)?;
    Ok(history.ancestors().last().map_or(Offset::new(0), |parent| parent.left_at))
}

/// Does something with the files where that may block.
async fn blocking<T: Send + 'static>(
    segments: &Segments<Files>,
    work: impl FnOnce(&Segments<Files>) -> io::Result<T> + Send + 'static,
) -> Result<T, SpoolError> {
    let segments = segments.clone();
    let done = tokio::task::spawn_blocking(move || work(&segments)).await;
    Ok(done.map_err(|_| SpoolError::Ended)??)
}
