//! A journal as the upstream of stock PostgreSQL standbys: answers what they ask, and streams log to them.
//!
//! What always holds: nothing is told of the cluster that the journal does not hold, and each answer is of the journal as it is then. What it does not do: let anybody in, or listen;
//! it is given sessions ([`farshore_engines::postgres::serve`]), and says of each how far it is.
//!
//! ```text
//! command ──▶ offer (pure) ──▶ stream: journal ─ log reader ─▶ slices (pure) ─▶ standby
//!                                                                 positions ◀──┘   pace (pure)
//! ```

mod histories;
mod offer;
mod pace;
mod slices;
mod stream;

use std::time::Duration;

use farshore_engines::log::Shape;
use farshore_engines::postgres::serve::{Command, Greeting, Refusal, ServeError, Session};
use farshore_engines::postgres::wire::{StandbyStatus, SystemIdentity};
use farshore_journal::{Offset, Position, Timeline};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::branches::Branches;
use crate::source::Source;
use offer::{Line, Offer};

/// SQLSTATE of a server that is not ready.
const NOT_READY: &str = "57P03";

/// How far a standby is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// On which timeline log is sent to it.
    pub timeline: Timeline,
    /// The end of what was sent.
    pub sent: Offset,
    /// What it has.
    pub status: StandbyStatus,
}

/// One incarnation's journal in one store, served.
#[derive(Debug, Clone)]
pub struct JournalServer {
    source: Source,
    /// How often the journal's end is looked at while there is nothing more.
    every: Duration,
    system: u64,
    major: u32,
    segment_bytes: u64,
}

impl JournalServer {
    /// Of a PostgreSQL journal; `None` where it is of another engine, whose standbys do not come to a server.
    pub fn new(source: Source, every: Duration) -> Option<Self> {
        let Shape::Postgres(_) = source.shape() else { return None };
        let record = source.record();
        let (system, major) = (record.identity.parse().ok()?, record.major);
        let segment_bytes = record.segment_bytes;
        Some(Self { source, every, system, major, segment_bytes })
    }

    /// What a client is told before its first command.
    pub fn greeting(&self) -> Greeting {
        Greeting {
            version: format!("{}.0 (farshore {})", self.major, env!("CARGO_PKG_VERSION")),
            major: self.major,
        }
    }

    /// Answers a session until it ends. `heard` is told of each word of a standby. Cancelled, it ends between two messages.
    ///
    /// # Errors
    /// When the connection broke, or the other side makes no sense.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut session: Session<S>,
        heard: &(dyn Fn(Heard) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), ServeError> {
        loop {
            let command = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                command = session.command() => command?,
            };
            let Some(command) = command else { return Ok(()) };
            let (timeline, start) = match self.answer(&mut session, command).await? {
                None => continue,
                Some(stream) => stream,
            };
            let stream = session.stream().await?;
            match stream::run(self, stream, (timeline, start), heard, cancel).await? {
                None => return Ok(()),
                Some(goes_on) => session = goes_on,
            }
        }
    }

    /// Answers a command; what is to be streamed, where that was asked for.
    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        session: &mut Session<S>,
        command: Command,
    ) -> Result<Option<(Timeline, Offset)>, ServeError> {
        match command {
            // Log is kept by rules and not by slots: each name is as good as another, and stands for all that there is.
            Command::CreateSlot { name, .. } => session.slot_made(&name).await?,
            Command::ReadSlot(_) => match self.branches().await {
                Ok(branches) => {
                    let line = Line::of(&branches);
                    let first = line.legs.iter().find(|leg| branches.get(leg.timeline).is_some());
                    let kept = first.map(|leg| Position::new(leg.timeline, line.begin));
                    session.slot(kept).await?;
                }
                Err(refusal) => session.refuse(&refusal).await?,
            },
            Command::DropSlot(_) => session.slot_dropped().await?,
            Command::Show(name) => match self.setting(&name) {
                Some(value) => session.show(&name, &value).await?,
                None => {
                    let shown: String = name.chars().filter(|letter| !letter.is_control()).take(80).collect();
                    let refusal = Refusal::new("42704", format!("a journal has no setting \"{shown}\""));
                    session.refuse(&refusal).await?;
                }
            },
            Command::IdentifySystem => match self.branches().await {
                Ok(branches) => {
                    let (timeline, flushed) = (branches.newest(), branches.last.end);
                    session
                        .identify(SystemIdentity { system_identifier: self.system, timeline, flushed })
                        .await?;
                }
                Err(refusal) => session.refuse(&refusal).await?,
            },
            Command::TimelineHistory(timeline) => match self.branches().await {
                Ok(branches) => match histories::file(&branches, timeline) {
                    Some(file) => session.history(timeline, &file).await?,
                    None => {
                        let why = format!("timeline {timeline} has no history in this journal");
                        session.refuse(&Refusal::new(offer::GONE, why)).await?;
                    }
                },
                Err(refusal) => session.refuse(&refusal).await?,
            },
            Command::Start { timeline, start, .. } => {
                let offered = match self.branches().await {
                    Ok(branches) => offer::offer(&Line::of(&branches), timeline, start),
                    Err(refusal) => Err(refusal),
                };
                match offered {
                    Ok(Offer::Log { timeline, start }) => return Ok(Some((timeline, start))),
                    Ok(Offer::Left { next, at }) => session.left_already(next, at).await?,
                    Err(refusal) => session.refuse(&refusal).await?,
                }
            }
        }
        Ok(None)
    }

    /// The journal's timelines as they are now.
    async fn branches(&self) -> Result<Branches, Refusal> {
        match Branches::read(self.source.reader()).await {
            Ok(Some(branches)) => Ok(branches),
            Ok(None) => Err(Refusal::new(NOT_READY, "the journal holds no log yet")),
            Err(why) => Err(Refusal::new(NOT_READY, format!("the journal cannot be read now: {why}"))
                .hint("it is asked again by itself; farshore verify says whether it is damaged")),
        }
    }

    /// What `pg_receivewal` and its like ask before they begin.
    fn setting(&self, name: &str) -> Option<String> {
        match name {
            "wal_segment_size" => Some(match self.segment_bytes >> 20 {
                mib if mib >= 1024 && mib % 1024 == 0 => format!("{}GB", mib / 1024),
                mib => format!("{mib}MB"),
            }),
            "data_directory_mode" => Some("0700".to_owned()),
            "server_version" => Some(self.greeting().version),
            _ => None,
        }
    }
}
