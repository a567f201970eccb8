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

mod based;
pub mod copies;
pub mod heads;
mod incarnation;
mod index;
mod merging;
mod ownership;
pub mod points;
pub mod postgres;
pub mod sqlite;
mod stream;
mod unstored;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use farshore_journal::index::IndexLimits;
use farshore_journal::merge::MergeLimits;
use farshore_journal::packing::Packers;
use farshore_journal::store::Retry;
use farshore_journal::writer::{Writer, WriterOptions};
use farshore_journal::{DatabaseName, JournalError, Offset, Position, Sequence};
use futures::future::Either;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use self::copies::Copies;
use self::points::{Naming, Points};
use self::unstored::Unstored;
use crate::error::ShipError;
use crate::facts::FactSender;
use crate::founding::Place;
use crate::progress::{Fact, PipelineState, Progress};
use crate::reported::Protection;

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
    /// Where its log comes from.
    pub source: SourceConfig,
    /// The target's name in the configuration.
    pub store_name: String,
    /// What a commit waits for.
    pub protection: Protection,
    /// Longest time that received bytes wait for company.
    pub flush_interval: Duration,
    /// How chunks are encoded; its segment size is replaced by the source's.
    pub writer: WriterOptions,
    /// When stored chunks become a segment.
    pub merge: MergeLimits,
    /// How heads are signed; `None` where no key is configured.
    pub signing: Option<heads::Signing>,
    /// When they become an index.
    pub index: IndexLimits,
}

/// Where a database's log comes from.
#[derive(Debug, Clone)]
pub enum SourceConfig {
    /// A PostgreSQL cluster.
    Postgres(Box<postgres::Cluster>),
    /// A SQLite database's file.
    Sqlite(Box<sqlite::File>),
}

/// The append in flight, of a chunk or of an opening, or a tail that is begun. This box, unlike a plain one, may be looked at from several threads, which borrowing the pipeline
/// across an await needs.
type Append = ReusableBoxFuture<'static, (Writer, Result<Came, ShipError>)>;

/// What came of an append.
enum Came {
    /// The journal confirmed a chunk.
    Chunk(Landed),
    /// It was opened anew.
    Opening,
    /// A tail was begun, or none could be: what waits goes there, or as a chunk.
    Begun,
}

/// A chunk that the journal confirmed.
struct Landed {
    from: Position,
    end: Position,
    checked: Offset,
    number: Sequence,
    /// Whether it says how its end is found again.
    is_marked: bool,
}

/// The owner task of one database and target.
pub struct Pipeline {
    config: PipelineConfig,
    store: Place,
    writer: Option<Writer>,
    append: Option<Append>,
    progress: Arc<watch::Sender<Progress>>,
    facts: FactSender,
    /// Commits and points that were received and are not yet stored, in log order.
    unstored: Unstored,
    /// Told of each stored data chunk while the pipeline runs.
    merging: Option<merging::Tell>,
    packers: Packers,
    /// Told of the journal's end as its owner knows it, while the pipeline runs.
    heads: Option<heads::Tell>,
    /// Told of them too, with what was seen in them.
    indexing: Option<index::Tell>,
    notes: index::Notes,
    /// Where a resume would begin, of a source that must be told.
    resumes_at: Option<Offset>,
    /// The end of what is stored of the bytes that the present stream's source has; `None` until the stream showed it.
    proven: Option<Position>,
    /// Whether what is appended comes from files: the source was not compared with it.
    filling: bool,
    /// Since when the spool does not say what it has; `None` while it does.
    spool_away: Option<Instant>,
    /// Whether the journal was found to have a base from which its end can be reached; looked for where commits wait.
    based: bool,
    copies: Copies,
    points: Points,
    naming: Naming,
}

impl Pipeline {
    /// A pipeline that has not begun.
    pub fn new(
        config: PipelineConfig,
        store: Place,
        progress: watch::Sender<Progress>,
        facts: FactSender,
        copies: Copies,
        points: Points,
    ) -> Self {
        Self {
            packers: Packers::new(config.writer.compression),
            config,
            store,
            writer: None,
            append: None,
            progress: Arc::new(progress),
            facts,
            unstored: Unstored::default(),
            merging: None,
            heads: None,
            indexing: None,
            notes: index::Notes::default(),
            resumes_at: None,
            proven: None,
            filling: false,
            spool_away: None,
            based: false,
            copies,
            points,
            naming: Naming::default(),
        }
    }

    /// Ships until cancelled (`Ok`) or stopped for good.
    ///
    /// # Errors
    /// When another shipper took the journal over, or a fault never mends by waiting.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), ShipError> {
        let (tell, merging) = merging::channel(self.config.merge);
        self.merging = Some(tell);
        let (signing, database) = (self.config.signing.clone(), self.config.database.clone());
        let (store, facts) = (self.config.store_name.clone(), self.facts.clone());
        let (tell, heads) = heads::channel(signing, database, store, facts, Arc::clone(&self.progress));
        self.heads = Some(tell);
        let (tell, indexing) = index::channel(self.config.index);
        self.indexing = Some(tell);
        let companions = futures::future::join3(merging.run(), heads.run(), indexing.run());
        let (sessions, companions) = (Box::pin(self.sessions(cancel)), Box::pin(companions));
        match futures::future::select(sessions, companions).await {
            // The pipeline is gone, and with it their channels: the companions end by themselves, or are ended.
            Either::Left((ended, companions)) => {
                if tokio::time::timeout(merging::LAST.max(heads::LAST), companions).await.is_err() {
                    tracing::debug!(
                        "the last chunks stay unmerged, without a head or in no index: the store does not answer"
                    );
                }
                ended
            }
            Either::Right((_, sessions)) => sessions.await,
        }
    }

    async fn sessions(mut self, cancel: CancellationToken) -> Result<(), ShipError> {
        let mut pause = PAUSE_FIRST;
        loop {
            let begun = Instant::now();
            let stored = self.progress.borrow().stored;
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
                (ShipError::LetGo { .. }, _) => PipelineState::Bypass,
                (_, Retry::Never) => PipelineState::Failed,
                _ => PipelineState::Degraded,
            };
            self.filling = false;
            self.tell(|progress| {
                progress.state = state;
                progress.streams = false;
                // What the store itself said is the reason, and stays.
                if !(matches!(why, ShipError::TargetStalled) && progress.trouble.is_some()) {
                    progress.trouble = Some(why.to_string());
                }
            });
            if matches!(state, PipelineState::Fenced | PipelineState::Failed) {
                return Err(why);
            }
            tracing::warn!(database = %self.config.database, store = %self.config.store_name, error = %why, "shipping paused");
            if matches!(why, ShipError::Journal(JournalError::OpenAnew { .. })) {
                self.writer = None;
            }
            tokio::select! {
                () = drained(&cancel) => return Ok(()),
                settled = self.settle() => if let Err(why) = settled && why.is_fenced() {
                    self.tell(|progress| {
                        progress.state = PipelineState::Fenced;
                        progress.trouble = Some(why.to_string());
                    });
                    return Err(why);
                },
            }
            // What its tail holds is put by whoever takes the journal over next: this process, in a moment.
            self.writer.take_if(|writer| writer.has_tail());
            // A target that takes what it gets, however slowly, is not one that must be spared.
            if begun.elapsed() > PAUSE_LONGEST || self.progress.borrow().stored != stored {
                pause = PAUSE_FIRST;
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// One session: from finding the source to the end of its stream.
    async fn session(&mut self, cancel: &CancellationToken) -> Result<(), ShipError> {
        match self.config.source.clone() {
            SourceConfig::Postgres(cluster) => self.postgres_session(&cluster, cancel).await,
            SourceConfig::Sqlite(file) => self.sqlite_session(&file, cancel).await,
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

    fn landed(&mut self, writer: Writer, came: Result<Came, ShipError>) -> Result<(), ShipError> {
        let (next, generation) = (writer.place().number(), writer.generation());
        if let (Some(heads), Ok(Came::Chunk(_) | Came::Opening)) = (&self.heads, &came) {
            heads.confirmed(&writer);
        }
        self.writer = Some(writer);
        let landed = match came? {
            Came::Chunk(landed) => landed,
            Came::Opening => {
                self.tell(|progress| {
                    (progress.generation, progress.next_sequence) = (Some(generation), Some(next));
                    progress.trouble = None;
                });
                return Ok(());
            }
            Came::Begun => return Ok(()),
        };
        let stored = landed.end.offset;
        if !self.filling {
            self.proven = Some(landed.end);
        }
        if landed.is_marked {
            self.resumes_at = Some(stored);
        }
        let (commits, points) = self.unstored.up_to(stored);
        let newest = commits.last().and_then(|commit| DateTime::from_timestamp_micros(commit.time_micros));
        for point in &points {
            self.naming.stored(point, Position::new(landed.end.timeline, point.end));
        }
        let oldest = self.unstored.oldest_commit(stored);
        let mut incarnation = None;
        let filling = self.filling;
        let resumes_at = self.resumes_at.map(|at| Position::new(landed.end.timeline, at));
        self.tell(|progress| {
            progress.stored = Some(landed.end);
            if !filling {
                // A follower is told of marked ends only.
                progress.releasable = Some(resumes_at.unwrap_or(landed.end));
            }
            progress.checked = Some(landed.checked);
            progress.next_sequence = Some(next);
            progress.oldest_unstored_commit = oldest;
            progress.last_stored_commit = newest.or(progress.last_stored_commit);
            progress.trouble = None;
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

    /// Log up to `end` counts as stored. The catalog is told when it is in a chunk.
    fn tailed(&mut self, end: Position) {
        self.proven = Some(end);
        let (oldest, newest) =
            (self.unstored.oldest_commit(end.offset), self.unstored.newest_stored(end.offset));
        self.tell(|progress| {
            progress.stored = Some(end);
            progress.oldest_unstored_commit = oldest;
            progress.last_stored_commit = newest.or(progress.last_stored_commit);
            progress.trouble = None;
        });
    }

    fn fact(&self, fact: Fact) {
        if !self.facts.offer(fact) {
            self.tell(|progress| progress.facts_dropped += 1);
        }
    }
}

/// Resolves when a cancelled session had its time to drain.
async fn drained(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}
