//! A journal as the upstream of stock PostgreSQL standbys: answers what they ask, and streams log to them.
//!
//! What always holds: nothing is told of the cluster that the journal does not hold, and each answer is of the journal as it is then. What it does not do: let anybody in, or listen;
//! it is given sessions ([`farshore_engines::postgres::serve`]), and says of each how far it is.
//!
//! ```text
//! command ──▶ offer (pure) ──▶ stream: journal ─ log reader ─▶ slices (pure) ─▶ standby
//!                                   course (pure): kept?            positions ◀──┘   pace (pure)
//! ```

mod ceiling;
mod course;
mod histories;
mod look;
mod offer;
mod pace;
mod slices;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use farshore_engines::log::Shape;
use farshore_engines::postgres::serve::{Command, Greeting, Refusal, ServeError, Session};
use farshore_engines::postgres::wire::{StandbyStatus, SystemIdentity};
use farshore_journal::format::Unlock;
use farshore_journal::store::Retry;
use farshore_journal::{JournalError, Offset, Timeline};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::branches::{BranchError, Branches};
use crate::source::Source;
pub use ceiling::Wish;
use look::Looks;
use offer::{Line, Offer, Refused};

/// How long an answer may take, until the other side has it.
const ANSWER: Duration = Duration::from_secs(60);
/// SQLSTATE of a server that is not ready.
const NOT_READY: &str = "57P03";

/// How a standby is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It gets log that the journal has had for longer.
    CatchingUp,
    /// It has had all of the journal, and gets what comes.
    Streaming,
    /// Somebody has it held where it is.
    Held,
    /// The store does not answer, or what is in it cannot be opened with the private keys at hand.
    WaitsForStore,
    /// The log that it needs is not in the journal.
    LogMissing,
    /// It has log that is in no history of this journal.
    Diverged,
    /// It has more log than the journal.
    Ahead,
    /// The journal does not read where it is.
    Damaged,
}

/// How far a standby is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// On which timeline log is sent to it, or was asked for.
    pub timeline: Timeline,
    /// The end of what was sent.
    pub sent: Offset,
    /// Where the journal ended when it was last looked at; `None` before it was.
    pub end: Option<Offset>,
    /// What it has; `None` before it said so.
    pub status: Option<StandbyStatus>,
    /// How it is doing.
    pub state: State,
    /// Why it does not follow.
    pub problem: Option<String>,
    /// By which hold it is held, and the end of what it is sent at most.
    pub held: Option<(u64, Offset)>,
}

/// Who is told of a standby: often, so it must not block.
pub type Heard<'a> = &'a (dyn Fn(Standing) + Send + Sync);

/// One incarnation's journal in one store, served. Clones look at it together.
#[derive(Debug, Clone)]
pub struct JournalServer {
    source: Source,
    /// How often the journal's end is looked at while there is nothing more.
    every: Duration,
    looks: Arc<Looks>,
    system: u64,
    major: u32,
    segment_bytes: u64,
}

impl JournalServer {
    /// `came` is another number whenever something is put into it by this process, which is then looked at at once; a closed one is fine. Of a PostgreSQL journal; `None` where it is of another engine, whose standbys do not come to a server.
    pub fn new(source: Source, every: Duration, came: watch::Receiver<u64>) -> Option<Self> {
        let Shape::Postgres(_) = source.shape() else { return None };
        let record = source.record();
        let (system, major) = (record.identity.parse().ok()?, record.major);
        let segment_bytes = record.segment_bytes;
        let looks = Arc::new(Looks::new(source.clone(), every, came));
        Some(Self { source, every, looks, system, major, segment_bytes })
    }

    /// Opens log with these private keys from now on, as they were read now.
    pub fn go_on_with(&self, unlock: &Unlock) {
        self.source.go_on_with(unlock);
    }

    /// What a client is told before its first command.
    pub fn greeting(&self) -> Greeting {
        Greeting {
            version: format!("{}.0 (farshore {})", self.major, env!("CARGO_PKG_VERSION")),
            major: self.major,
        }
    }

    /// Answers a session until it ends. `heard` is told how the standby is doing, four times a second while log is sent. Log is sent once it was written so long ago as `delay` says, and no further than whoever `wishes` it held lets it. Cancelled, it ends between two messages.
    ///
    /// # Errors
    /// When the connection broke, or the other side makes no sense.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut session: Session<S>,
        delay: Option<Duration>,
        mut wishes: watch::Receiver<Option<Wish>>,
        heard: Heard<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), ServeError> {
        loop {
            let command = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                command = session.command() => command?,
            };
            let Some(command) = command else { return Ok(()) };
            let answered = tokio::time::timeout(ANSWER, self.answer(&mut session, command, heard));
            let answered = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                answered = answered => answered,
            };
            let (timeline, start) = match answered {
                Ok(answered) => match answered? {
                    None => continue,
                    Some(stream) => stream,
                },
                // It does not take its answer, or the store hangs: it comes again.
                Err(_) => return Ok(()),
            };
            let Ok(stream) = tokio::time::timeout(ANSWER, session.stream()).await else { return Ok(()) };
            match stream::run(self, stream?, (timeline, start, delay), &mut wishes, heard, cancel).await? {
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
        heard: Heard<'_>,
    ) -> Result<Option<(Timeline, Offset)>, ServeError> {
        match command {
            // Log is kept by rules and not by slots: each name is as good as another, and stands for all that there is.
            Command::CreateSlot { name, .. } => session.slot_made(&name).await?,
            Command::ReadSlot(_) => match self.line().await {
                Ok(line) => session.slot(line.first_segment(self.segment_bytes)).await?,
                Err(refused) => refuse(session, refused, Asked::default(), heard).await?,
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
                // What a standby asks first: it asks for no log then.
                Err(refused) => refuse(session, refused, Asked::default(), heard).await?,
            },
            Command::TimelineHistory(timeline) => {
                let asked = Asked { timeline: Some(timeline), ..Asked::default() };
                match self.branches().await {
                    Ok(branches) => match histories::file(&branches, timeline) {
                        Some(file) => session.history(timeline, &file).await?,
                        None => {
                            // It is kept for ever by whoever gets it.
                            let is_to_come = timeline == branches.newest() && timeline > Timeline::new(1);
                            let refused = match is_to_come {
                                true => waits(format!(
                                    "the history of timeline {timeline} is not in this journal yet"
                                )),
                                false => Refused {
                                    state: State::Diverged,
                                    refusal: Refusal::new(
                                        offer::GONE,
                                        format!("timeline {timeline} has no history in this journal"),
                                    ),
                                },
                            };
                            let asked = Asked { end: Some(branches.last.end), ..asked };
                            refuse(session, refused, asked, heard).await?;
                        }
                    },
                    Err(refused) => refuse(session, refused, asked, heard).await?,
                }
            }
            Command::Start { timeline, start, .. } => {
                let (line, offered) = match self.line().await {
                    Ok(line) => {
                        let offered = offer::offer(&line, timeline, start);
                        (Some(line), offered)
                    }
                    Err(refused) => (None, Err(refused)),
                };
                match offered {
                    Ok(Offer::Log { timeline, start }) => return Ok(Some((timeline, start))),
                    Ok(Offer::Left { next, at }) => session.left_already(next, at).await?,
                    Err(refused) => {
                        let asked = Asked {
                            timeline: timeline.or(line.as_ref().and_then(Line::newest)),
                            // What it asked for is a stranger's number.
                            start: line.as_ref().map(|line| start.min(line.end)),
                            end: line.map(|line| line.end),
                        };
                        refuse(session, refused, asked, heard).await?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// The journal's timelines as they are now.
    async fn branches(&self) -> Result<Arc<Branches>, Refused> {
        match self.looks.now().await {
            Ok(Some(branches)) => Ok(branches),
            Ok(None) => Err(waits("the journal holds no log yet".to_owned())),
            Err(why) => Err(match &*why {
                BranchError::Journal(why) => unread(why),
                why @ (BranchError::History(_) | BranchError::NoBegin { .. }) => stream::damaged(why),
            }),
        }
    }

    /// The newest history, from where on nothing of it has expired.
    async fn line(&self) -> Result<Line, Refused> {
        let branches = self.branches().await?;
        let mut line = Line::of(&branches);
        let begun = self.source.reader().runs_begun().await.map_err(|why| unread(&why))?;
        for run in begun {
            line.expired(run.name.timeline, run.name.end, self.segment_bytes);
        }
        Ok(line)
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

/// What a standby asked for that is refused, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    timeline: Option<Timeline>,
    start: Option<Offset>,
    /// Where the journal ends.
    end: Option<Offset>,
}

/// Refuses what a standby asked for, and says of it why.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S>,
    Refused { state, refusal }: Refused,
    Asked { timeline, start, end }: Asked,
    heard: Heard<'_>,
) -> Result<(), ServeError> {
    heard(Standing {
        timeline: timeline.unwrap_or(Timeline::new(0)),
        sent: start.unwrap_or(Offset::new(0)),
        end,
        status: None,
        state,
        problem: Some(refusal.message.clone()),
        held: None,
    });
    session.refuse(&refusal).await
}

fn waits(what: String) -> Refused {
    Refused { state: State::WaitsForStore, refusal: Refusal::new(NOT_READY, what) }
}

/// Why nothing can be said of the journal: a store that does not answer, and log whose private key is not at hand, are no damage.
fn unread(why: &JournalError) -> Refused {
    match why.retry() {
        _ if why.lacks_key() => stream::sealed(why),
        Retry::Operator if !matches!(why, JournalError::Store(_)) => stream::damaged(why),
        Retry::Never => stream::damaged(why),
        Retry::Now | Retry::Backoff | Retry::Operator => {
            tracing::warn!(error = %why, "the journal cannot be read for a standby");
            let Refused { state, refusal } =
                waits("the journal cannot be read now; its server's log says why".to_owned());
            Refused { state, refusal: refusal.hint("it is asked again by itself") }
        }
    }
}

#[cfg(test)]
mod tests {
    use farshore_journal::Sequence;
    use farshore_journal::store::{Operation, StoreError};

    use super::*;

    #[test]
    fn a_store_that_does_not_answer_is_waited_for_and_what_does_not_read_is_damaged() {
        let state = |why: JournalError| unread(&why).state;
        let away = StoreError::NoStore { operation: Operation::Get, reason: "it is not mounted".to_owned() };
        assert_eq!(state(JournalError::Store(away)), State::WaitsForStore);
        assert_eq!(state(JournalError::OpenAnew { at: Sequence::FIRST }), State::WaitsForStore);
        assert_eq!(state(JournalError::Hole { missing: Sequence::FIRST }), State::Damaged);
        assert_eq!(state(JournalError::NotHeld { what: "a chunk".to_owned() }), State::Damaged);
    }
}
