//! Log of a journal to one standby, on and on.
//!
//! What always holds: what is sent is what the journal holds, in order; of a timeline that was left nothing behind the fork. A store that does not answer ends no stream: signs of
//! life go on, and it is asked again. What is held for a standby that takes slowly is bounded by [`Slices::has_room`] and by what a log reader reads ahead.

use std::pin::Pin;
use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_engines::postgres::serve::{FromStandby, Refusal, ServeError, Session, Stream};
use farshore_journal::store::Retry;
use farshore_journal::{JournalError, Offset, Timeline};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::offer::{GONE, Line};
use super::pace::{Due, Pace};
use super::slices::Slices;
use super::{Heard, JournalServer};
use crate::branches::{BranchError, Branches};
use crate::log::{LogReader, Next};

/// How often a conversation is looked at, whatever happens.
const TICK: Duration = Duration::from_millis(250);
/// The longest pause between two questions to a store that does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long an end may take that the other side has to take notice of.
const ENDING: Duration = Duration::from_secs(30);

/// What was read.
enum Read {
    Log(Box<LogReader>, Result<Next, JournalError>),
    Line(Result<Option<Branches>, BranchError>),
}

type Reading = Pin<Box<dyn Future<Output = Read> + Send>>;

/// Where it stands.
struct Sending<'a> {
    server: &'a JournalServer,
    timeline: Timeline,
    slices: Slices,
    /// Where the timeline was left, and for which; `None` while it goes on.
    left: Option<(Offset, Timeline)>,
    /// The end of what was sent.
    sent: Offset,
    applied: Offset,
    /// Whether all that waits may go, since the journal ends there.
    is_all: bool,
    failures: u32,
}

/// Sends log until one of the two ends it; the session, where the standby goes on with it.
///
/// # Errors
/// When the connection broke, or the other side makes no sense.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    server: &JournalServer,
    mut stream: Stream<S>,
    (timeline, start): (Timeline, Offset),
    heard: &(dyn Fn(Heard) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Option<Session<S>>, ServeError> {
    let mut sending = Sending {
        server,
        timeline,
        slices: Slices::new(start),
        left: None,
        sent: start,
        applied: Offset::new(0),
        is_all: false,
        failures: 0,
    };
    let mut pace = Pace::begin(Instant::now());
    let mut reading: Option<Reading> = Some(sending.look(Duration::ZERO));
    loop {
        if stream.is_clear() {
            if let Some((at, bytes)) = sending.slices.next(sending.is_all) {
                sending.sent = Offset::new(at.get().saturating_add(bytes.len() as u64));
                stream.put_log(at, &bytes, sending.sent, Utc::now());
                pace.spoke(Instant::now(), false);
            } else if let Some((at, next)) = sending.left.filter(|(at, _)| sending.sent >= *at) {
                tracing::info!(timeline = %timeline, position = %at, %next, "a standby goes on with the next timeline");
                return match tokio::time::timeout(ENDING, stream.end(Some((next, at)))).await {
                    Ok(ended) => ended,
                    Err(_) => Ok(None),
                };
            }
        }
        let may_read = sending.slices.has_room();
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                // Whoever does not take it comes again all the same.
                let _ = tokio::time::timeout(ENDING, stream.stop()).await;
                return Ok(None);
            }
            said = stream.next() => {
                match said? {
                    FromStandby::Status { status, reply_requested } => {
                        pace.heard(Instant::now());
                        sending.applied = status.applied;
                        heard(Heard { timeline, sent: sending.sent, status });
                        if reply_requested {
                            stream.put_keepalive(sending.sent, Utc::now(), false);
                            pace.spoke(Instant::now(), false);
                        }
                    }
                    FromStandby::Feedback { .. } => pace.heard(Instant::now()),
                    FromStandby::Sent => {}
                    FromStandby::Gone => return Ok(None),
                    FromStandby::Done => {
                        return tokio::time::timeout(ENDING, stream.end(None)).await.unwrap_or(Ok(None));
                    }
                }
                continue;
            }
            done = async { match reading.as_mut() { Some(reading) => reading.await, None => std::future::pending().await } }, if may_read => done,
            () = tokio::time::sleep(TICK) => {
                let now = Instant::now();
                let is_replaying = sending.is_all && sending.slices.is_empty() && sending.applied < sending.sent;
                match pace.due(now, is_replaying) {
                    Due::Nothing => {}
                    Due::GiveUp => {
                        tracing::warn!("a standby said nothing for a minute, and is given up");
                        return Ok(None);
                    }
                    due @ (Due::Speak | Due::Ask) => {
                        stream.put_keepalive(sending.sent, Utc::now(), due == Due::Ask);
                        pace.spoke(now, due == Due::Ask);
                    }
                }
                continue;
            }
        };
        reading = match sending.take(done) {
            Ok(next) => Some(next),
            Err(refusal) => {
                tracing::error!(code = refusal.code, "a standby is not served any more: {}", refusal.message);
                let _ = tokio::time::timeout(ENDING, stream.fail(&refusal)).await;
                return Ok(None);
            }
        };
    }
}

impl Sending<'_> {
    /// Looks at the journal's end, after a while.
    fn look(&self, pause: Duration) -> Reading {
        let source = self.server.source.clone();
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            Read::Line(Branches::read(source.reader()).await)
        })
    }

    fn go_on(mut log: Box<LogReader>) -> Reading {
        Box::pin(async move {
            let next = log.next().await;
            Read::Log(log, next)
        })
    }

    /// Takes what was read, and says what is read next.
    fn take(&mut self, read: Read) -> Result<Reading, Refusal> {
        match read {
            Read::Log(log, Ok(Next::Bytes(piece))) => {
                self.failures = 0;
                self.is_all = false;
                self.slices.push(&piece.bytes);
                Ok(Self::go_on(log))
            }
            Read::Log(log, Ok(Next::Passed)) => Ok(Self::go_on(log)),
            Read::Log(_, Ok(Next::End | Next::Misled)) => {
                self.is_all = true;
                Ok(self.look(self.server.every))
            }
            Read::Log(_, Ok(Next::Gap(gap))) => Err(Refusal::new(
                GONE,
                format!(
                    "the log behind {} is not in this journal: it was lost at the source, or has expired",
                    gap.at
                ),
            )
            .hint("make the standby anew: farshore restore")),
            Read::Log(_, Err(why)) => self.again(&why),
            Read::Line(Ok(None)) => Ok(self.look(self.server.every)),
            Read::Line(Ok(Some(branches))) => {
                self.failures = 0;
                self.follow(&branches)
            }
            Read::Line(Err(BranchError::Journal(why))) => self.again(&why),
            Read::Line(Err(why)) => Err(damaged(&why)),
        }
    }

    /// What is to be sent of the journal as it is now.
    fn follow(&mut self, branches: &Branches) -> Result<Reading, Refusal> {
        let line = Line::of(branches);
        let newest = line.newest().unwrap_or(self.timeline);
        self.left = line.left(self.timeline);
        if self.left.is_none() && newest != self.timeline {
            return Err(Refusal::new(
                "55000",
                format!("timeline {} is not in this journal's history any more", self.timeline),
            ));
        }
        let until = self.left.map(|(at, _)| at);
        let from = self.slices.end();
        let end = until.unwrap_or(line.end);
        if from >= end {
            self.is_all = true;
            return Ok(self.look(self.server.every));
        }
        if let Some((at, _)) = self.left
            && branches.stretches(newest, from, until).is_empty()
        {
            let (timeline, why) = (self.timeline, "the journal went on with the next one before it had that");
            return Err(Refusal::new(
                GONE,
                format!(
                    "the log of timeline {timeline} from {from} up to {at} is not in this journal: {why}"
                ),
            )
            .hint("make the standby anew: farshore restore"));
        }
        let log = LogReader::new(&self.server.source, branches, newest, from, until);
        Ok(Self::go_on(Box::new(log)))
    }

    /// A store that failed is asked again, later and later; what does not read is not.
    fn again(&mut self, why: &JournalError) -> Result<Reading, Refusal> {
        match why.retry() {
            Retry::Now | Retry::Backoff | Retry::Operator => {
                self.failures = self.failures.saturating_add(1);
                let pause = self.server.every.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
                tracing::warn!(error = %why, pause_seconds = pause.as_secs_f64(), "the journal cannot be read for a standby now; it is asked again");
                Ok(self.look(pause))
            }
            Retry::Never => Err(damaged(why)),
        }
    }
}

fn damaged(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new("XX001", format!("the journal does not read: {why}"))
        .hint("farshore verify names what is damaged")
}
