//! Log of a journal to one standby, on and on.
//!
//! What always holds: what is sent is what the journal holds, in order; of a timeline that was left nothing behind the fork, once that is known, which is looked for while log is read. A look costs no
//! log that was read: the reader goes on unless its course is another one now (`course.rs`); one that begins anew continues, by the chain, what was read before. What lies
//! before something that is not to be had goes out before that is said. A store that does not answer ends no stream for minutes: signs of life go on, and it is asked again; log that
//! does not read ends it, and so does log that is sealed for a private key which is not at hand: that is no damage, and a standby comes again. What is held for a standby that takes slowly is bounded by [`Slices::has_room`] and by what a log reader reads ahead, whatever the standby says meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use farshore_engines::postgres::serve::{FromStandby, Refusal, ServeError, Session, Stream};
use farshore_engines::postgres::wire::StandbyStatus;
use farshore_journal::format::Header;
use farshore_journal::store::Retry;
use farshore_journal::{JournalError, Offset, Timeline};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::ceiling::{Ceiling, Wish};
use super::course::Course;
use super::look::Looks;
use super::offer::{GONE, Line, OTHER_HISTORY, Refused};
use super::pace::{Due, Pace};
use super::slices::Slices;
use super::{Heard, JournalServer, NOT_READY, Standing, State};
use crate::branches::{BranchError, Branches};
use crate::log::{LogReader, Next};

/// How often a conversation is looked at, whatever happens.
const TICK: Duration = Duration::from_millis(250);
/// For how long log is read by one look at the journal: a timeline that was left meanwhile is to be known soon.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// After so long without a look it is not known any more what the journal has.
const STALE: Duration = Duration::from_secs(10);
/// One that was sent all once, and now lacks so much, catches up again.
const BEHIND: u64 = 64 << 20;
/// How much a standby may have of a record of which it says that it has nothing, since the rest is not there.
const PART: u64 = 1 << 20;
/// How soon a standby says what it has: with the first log that it gets.
const SAYS_SOON: Duration = Duration::from_secs(2);
/// The longest pause between two questions to a store that does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For how long a store may fail before its standbys are told: they come again by themselves.
const STORE_AWAY: Duration = Duration::from_secs(300);
/// How often log is tried that did not read: what a store said once may have been a moment's.
const TRIES: u32 = 4;
/// How long an end may take that the other side has to take notice of.
const ENDING: Duration = Duration::from_secs(30);

/// What was read, with the reader that log is read with; none where it is to be made anew.
enum Read {
    Log(Box<LogReader>, Result<Next, JournalError>),
    Line(Option<Box<LogReader>>, Result<Option<Arc<Branches>>, Arc<BranchError>>),
}

type Reading = Pin<Box<dyn Future<Output = Read> + Send>>;

/// Where it stands.
struct Sending<'a> {
    server: &'a JournalServer,
    timeline: Timeline,
    slices: Slices,
    /// The last chunk that log was read from: what is sent next continues it.
    last: Option<Header>,
    /// What the reader reads that log is read with.
    course: Option<Course>,
    /// Where the timeline was left, and for which; `None` while it goes on.
    left: Option<(Offset, Timeline)>,
    /// The end of what was sent.
    sent: Offset,
    /// Where the journal ended when it was last looked at.
    end: Offset,
    has_looked: bool,
    looked: Instant,
    /// What the standby has; `None` before it said so.
    status: Option<StandbyStatus>,
    /// Whether it replayed something between the last two times that it said so.
    replays: bool,
    /// What it had before this, as it first said; `None` before that.
    had: Option<Offset>,
    began: Instant,
    /// Whether it is known how it is doing, and not only where it begins.
    is_known: bool,
    /// Whether it was sent all that there was, once.
    has_caught_up: bool,
    /// Whether all that waits may go, since the journal ends there.
    is_all: bool,
    /// How old log is to be when it is sent, and until when what comes next is too young.
    delay: Option<Duration>,
    held: Option<DateTime<Utc>>,
    /// Up to where it may go while somebody holds the standby.
    ceiling: Ceiling,
    /// How often reading failed since it last succeeded, and since when.
    failures: u32,
    failing: Option<Instant>,
}

/// Sends log until one of the two ends it; the session, where the standby goes on with it.
///
/// # Errors
/// When the connection broke, or the other side makes no sense.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    server: &JournalServer,
    mut stream: Stream<S>,
    (timeline, start, delay): (Timeline, Offset, Option<Duration>),
    wishes: &mut watch::Receiver<Option<Wish>>,
    heard: Heard<'_>,
    cancel: &CancellationToken,
) -> Result<Option<Session<S>>, ServeError> {
    let mut sending = Sending::begin(server, timeline, start);
    sending.delay = delay;
    let mut pace = Pace::begin(Instant::now());
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reading: Option<Reading> = Some(sending.look(Duration::ZERO, None));
    // Why it ends, once what was read before has gone.
    let mut ends: Option<Refused> = None;
    let mut owes_reply = false;
    loop {
        let wish = *wishes.borrow_and_update();
        if sending.ceiling.hold().is_some() || wish.is_some() {
            sending.ceiling.take(wish, sending.sent);
        }
        if stream.is_clear() {
            if let Some((at, bytes)) = sending.slices.next(sending.is_all, sending.ceiling.at()) {
                sending.sent = Offset::new(at.get().saturating_add(bytes.len() as u64));
                stream.put_log(at, &bytes, sending.shown_end(), Utc::now());
                owes_reply = false;
                pace.spoke(Instant::now(), false);
            } else if let Some((at, next)) = sending.left.filter(|(at, _)| sending.sent >= *at) {
                tracing::info!(timeline = %timeline, position = %at, %next, "a standby goes on with the next timeline");
                return match tokio::time::timeout(ENDING, stream.end(Some((next, at)))).await {
                    Ok(ended) => ended,
                    Err(_) => Ok(None),
                };
            } else if sending.slices.is_empty()
                && let Some(Refused { state, refusal }) = ends
            {
                let problem = Some(refusal.message.clone());
                heard(Standing { state, problem, ..sending.standing() });
                let _ = tokio::time::timeout(ENDING, stream.fail(&refusal)).await;
                return Ok(None);
            } else if owes_reply {
                stream.put_keepalive(sending.sent, Utc::now(), false);
                owes_reply = false;
                pace.spoke(Instant::now(), false);
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
            // Whoever says nothing any more holds nobody: the last wish is taken back before its sender goes.
            Ok(()) = wishes.changed() => continue,
            now = tick.tick() => {
                if let Some(standing) = sending.known() {
                    heard(standing);
                }
                match pace.due(now.into_std(), sending.is_replaying()) {
                    Due::Nothing => {}
                    Due::GiveUp => {
                        tracing::warn!("a standby said nothing for a minute, and is given up");
                        return Ok(None);
                    }
                    // One that takes nothing hears of it from what waits for it.
                    Due::Speak | Due::Ask if !stream.is_clear() => {}
                    due @ (Due::Speak | Due::Ask) => {
                        stream.put_keepalive(sending.sent, Utc::now(), due == Due::Ask);
                        pace.spoke(now.into_std(), due == Due::Ask);
                    }
                }
                continue;
            }
            said = stream.next() => {
                match said? {
                    FromStandby::Status { status, reply_requested } => {
                        pace.heard(Instant::now());
                        sending.hear(status);
                        if let Some(standing) = sending.known() {
                            heard(standing);
                        }
                        owes_reply |= reply_requested;
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
        };
        reading = match sending.take(done) {
            Ok(next) => Some(next),
            Err(refused) => {
                sending.is_all = true;
                ends = Some(refused);
                None
            }
        };
        sending.has_caught_up |= sending.is_all && sending.slices.is_empty() && ends.is_none();
    }
}

impl<'a> Sending<'a> {
    fn begin(server: &'a JournalServer, timeline: Timeline, start: Offset) -> Self {
        Self {
            server,
            timeline,
            slices: Slices::new(start),
            last: None,
            course: None,
            left: None,
            sent: start,
            end: start,
            has_looked: false,
            looked: Instant::now(),
            status: None,
            replays: true,
            had: None,
            began: Instant::now(),
            is_known: false,
            has_caught_up: false,
            is_all: false,
            delay: None,
            held: None,
            ceiling: Ceiling::default(),
            failures: 0,
            failing: None,
        }
    }

    /// Takes what a standby says that it has: no more than it was sent.
    fn hear(&mut self, said: StandbyStatus) {
        // One that begins anew with a segment says first what it had, or has of this one.
        self.had.get_or_insert(said.written.max(said.flushed).max(said.applied));
        let bounded = |offset: Offset| offset.min(self.sent);
        let status = StandbyStatus {
            written: bounded(said.written),
            flushed: bounded(said.flushed),
            applied: bounded(said.applied),
        };
        self.replays = self.status.is_none_or(|before| before.applied < status.applied);
        self.status = Some(status);
    }

    /// Whether it has all that there is and is replaying it: then it is asked how far it is. One that replays nothing (`pg_receivewal`; replay that is paused) is not.
    fn is_replaying(&self) -> bool {
        let is_behind = self.status.is_some_and(|status| status.applied < self.sent);
        self.is_all && self.slices.is_empty() && is_behind && self.replays
    }

    /// The end of what could be sent.
    fn shown_end(&self) -> Offset {
        let end = self.left.map_or(self.end, |(at, _)| self.end.min(at));
        end.max(self.sent)
    }

    /// Where reading ends: at the fork, or where the journal does.
    fn until(&self) -> Offset {
        self.left.map_or(self.end, |(at, _)| at)
    }

    /// A store that hangs fails late; while there is no room for more, nobody asks it.
    fn hangs(&self) -> bool {
        self.looked.elapsed() > STALE.saturating_add(self.server.every) && self.slices.has_room()
    }

    /// How it is doing, once that is known. One that comes again and again to log which cannot be read begins each time with a segment that it has in part: that is no catching up, and what was said of
    /// it last stays.
    fn known(&mut self) -> Option<Standing> {
        let has_more = match self.had {
            Some(had) => self.slices.end().get() > had.get().saturating_add(PART),
            // Not all say so soon.
            None => self.last.is_some() && self.began.elapsed() > SAYS_SOON,
        };
        self.is_known |= has_more || self.has_caught_up || self.hangs();
        self.is_known.then(|| self.standing())
    }

    fn standing(&self) -> Standing {
        // What is not due yet a delayed one does not lack, and how much that is is not known.
        let lacks = if self.delay.is_some() { 0 } else { self.end.bytes_since(self.sent).unwrap_or(0) };
        let state = match (self.failures > 0 || self.hangs(), self.has_caught_up && lacks < BEHIND) {
            (true, _) => State::WaitsForStore,
            (false, _) if self.ceiling.at().is_some() => State::Held,
            (false, true) => State::Streaming,
            (false, false) => State::CatchingUp,
        };
        let Self { timeline, sent, status, .. } = *self;
        let end = self.has_looked.then_some(self.end.max(sent));
        let held = self.ceiling.hold().zip(self.ceiling.at());
        Standing { timeline, sent, end, status, state, problem: None, held }
    }

    /// Looks at the journal's end, after a while, between two pieces that a reader reads.
    fn look(&self, pause: Duration, log: Option<Box<LogReader>>) -> Reading {
        let looks: Arc<Looks> = Arc::clone(&self.server.looks);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            Read::Line(log, looks.now().await)
        })
    }

    /// The same, after a while or as soon as something came.
    fn look_for_more(&self, pause: Duration) -> Reading {
        let looks: Arc<Looks> = Arc::clone(&self.server.looks);
        Box::pin(async move {
            looks.wait(pause).await;
            Read::Line(None, looks.now().await)
        })
    }

    fn go_on(mut log: Box<LogReader>) -> Reading {
        Box::pin(async move {
            let next = log.next().await;
            Read::Log(log, next)
        })
    }

    /// Takes what was read, and says what is read next.
    fn take(&mut self, read: Read) -> Result<Reading, Refused> {
        if let Read::Log(log, Ok(Next::Bytes(_))) = &read
            && let Some(delay) = self.delay
        {
            let now = Utc::now();
            self.held = log.last_read().and_then(|chunk| held_until(chunk.written_at, delay, now));
            if let Some(due) = self.held {
                // It is read again then: until then it is looked whether it is in the history still.
                (self.failures, self.failing) = (0, None);
                self.is_all = true;
                return Ok(self.look(self.patience(due, now), None));
            }
        }
        if let Read::Log(log, _) = &read
            && let Some(last) = log.last_read()
        {
            self.last = Some(last.clone());
        }
        match read {
            Read::Log(log, Ok(Next::Bytes(piece))) => {
                (self.failures, self.failing) = (0, None);
                self.is_all = false;
                self.slices.push(&piece.bytes);
                match self.looked.elapsed() > LOOK_AGAIN {
                    true => Ok(self.look(Duration::ZERO, Some(log))),
                    false => Ok(Self::go_on(log)),
                }
            }
            Read::Log(log, Ok(Next::Passed)) => Ok(Self::go_on(log)),
            Read::Log(_, Ok(Next::End | Next::Misled)) => {
                (self.failures, self.failing) = (0, None);
                // A look since the reader began may have seen more.
                self.is_all = self.slices.end() >= self.until();
                Ok(match self.is_all {
                    true => self.look_for_more(self.server.every),
                    false => self.look(Duration::ZERO, None),
                })
            }
            Read::Log(_, Ok(Next::Gap(gap))) => Err(missing(&format!(
                "the log behind {} is not in this journal: it was lost at the source, or has expired",
                gap.at
            ))),
            Read::Log(_, Err(why)) => self.again(&why, None),
            Read::Line(_, Ok(None)) => Ok(self.look_for_more(self.server.every)),
            Read::Line(log, Ok(Some(branches))) => self.follow(&branches, log),
            Read::Line(log, Err(why)) => match &*why {
                BranchError::Journal(why) => self.again(why, log),
                why => Err(damaged(why)),
            },
        }
    }

    /// How long nothing is read while what comes next is too young: the journal is looked at all the same.
    fn patience(&self, due: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
        let wait = (due - now).to_std().unwrap_or_default();
        wait.min(LOOK_AGAIN).max(self.server.every)
    }

    /// What is to be sent of the journal as it is now, with the reader that there is where it reads that.
    fn follow(&mut self, branches: &Branches, log: Option<Box<LogReader>>) -> Result<Reading, Refused> {
        let line = Line::of(branches);
        let newest = line.newest().unwrap_or(self.timeline);
        self.left = line.left(self.timeline);
        (self.end, self.looked, self.has_looked) = (line.end, Instant::now(), true);
        if self.left.is_none() && newest != self.timeline {
            // None of what waits is in the history.
            self.slices.cut(self.sent);
            return Err(other_history(&format!(
                "timeline {} is not in this journal's history any more",
                self.timeline
            )));
        }
        let until = self.left.map(|(at, _)| at);
        if let Some(at) = until {
            self.slices.cut(at);
        }
        let from = self.slices.end();
        if from >= until.unwrap_or(line.end) {
            (self.failures, self.failing) = (0, None);
            self.is_all = true;
            return Ok(self.look(self.server.every, None));
        }
        let now = Utc::now();
        if let Some(due) = self.held.filter(|due| *due > now) {
            (self.failures, self.failing) = (0, None);
            self.is_all = true;
            return Ok(self.look(self.patience(due, now), None));
        }
        let course = Course::new(branches.stretches(newest, from, until), self.left);
        if course.is_empty() {
            let until = until.unwrap_or(line.end);
            return Err(missing(&format!(
                "the log of timeline {} from {from} up to {until} is not in this journal",
                self.timeline
            )));
        }
        let goes_on = self.course.as_ref().is_some_and(|former| course.continues(former, from));
        if let Some(log) = log.filter(|log| goes_on && log.cursor() == from) {
            // Its course stays what it began with: so far it reads, and no further.
            return Ok(Self::go_on(log));
        }
        self.course = Some(course);
        let log = LogReader::new(&self.server.source, branches, newest, from, until);
        let log = log.following(self.last.clone());
        Ok(Self::go_on(Box::new(log)))
    }

    /// A store that failed is asked again, later and later, for a while; what does not read a few times.
    fn again(&mut self, why: &JournalError, log: Option<Box<LogReader>>) -> Result<Reading, Refused> {
        if why.lacks_key() {
            return Err(sealed(why));
        }
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing.get_or_insert_with(Instant::now);
        match why.retry() {
            Retry::Operator if !matches!(why, JournalError::Store(_)) && self.failures >= TRIES => {
                Err(damaged(why))
            }
            Retry::Now | Retry::Backoff | Retry::Operator => {
                if since.elapsed() > STORE_AWAY {
                    return Err(away(why));
                }
                // What did not read may read the next time, or is damaged: which of the two is not known yet.
                self.is_known |= matches!(why, JournalError::Store(_));
                let pause = self.server.every.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
                tracing::warn!(error = %why, pause_seconds = pause.as_secs_f64(), "the journal cannot be read for a standby now; it is asked again");
                Ok(self.look(pause, log))
            }
            Retry::Never => Err(damaged(why)),
        }
    }
}

/// Until when a chunk that was written then, in microseconds since 1970, is too young to be sent; `None`: it is old enough.
fn held_until(written_at: i64, delay: Duration, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let delay = TimeDelta::from_std(delay).unwrap_or(TimeDelta::MAX);
    let written = DateTime::from_timestamp_micros(written_at).unwrap_or(now);
    let due = written.checked_add_signed(delay).unwrap_or(DateTime::<Utc>::MAX_UTC);
    (due > now).then_some(due)
}

fn missing(what: &str) -> Refused {
    let refusal = Refusal::new(GONE, what.to_owned()).hint("make the standby anew: farshore restore");
    Refused { state: State::LogMissing, refusal }
}

fn other_history(what: &str) -> Refused {
    Refused { state: State::Diverged, refusal: Refusal::new(OTHER_HISTORY, what.to_owned()) }
}

/// What a store says may name what is nobody else's matter: it stands in our own log.
pub(super) fn damaged(why: &dyn std::fmt::Display) -> Refused {
    tracing::error!(error = %why, "the journal does not read for a standby");
    let refusal =
        Refusal::new("XX001", "the journal does not read here; its server's log says why".to_owned())
            .hint("farshore verify names what is damaged");
    Refused { state: State::Damaged, refusal }
}

pub(super) fn sealed(why: &dyn std::fmt::Display) -> Refused {
    tracing::error!(error = %why, "the log is sealed, and no private key at hand opens it for a standby: what is stored is sound");
    let what =
        "the log from here on is sealed, and no private key that opens it is at hand where it is served";
    let refusal = Refusal::new(NOT_READY, what.to_owned())
        .hint("name the file with the private key as the store's identity_file there; nothing is lost, and a standby goes on by itself");
    Refused { state: State::WaitsForStore, refusal }
}

fn away(why: &dyn std::fmt::Display) -> Refused {
    tracing::error!(error = %why, "the store did not answer for minutes: standbys are told");
    let refusal =
        Refusal::new(NOT_READY, "the store does not answer; the journal's server's log says why".to_owned());
    Refused { state: State::WaitsForStore, refusal }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;
    use age::x25519::Identity;
    use farshore_journal::format::body::TimelineBody;
    use farshore_journal::format::{Recipients, Unlock};
    use farshore_journal::store::ObjectStore as _;
    use farshore_journal::store::faults::{Faults, Faulty};
    use farshore_journal::store::memory::MemoryStore;
    use farshore_journal::writer::{Writer, encode_data, encode_timeline};
    use farshore_journal::{Position, Sequence};

    use super::*;
    use crate::fixture::{SEGMENT, founded_in, opened_for, quiet};

    /// Frames of a chunk, each as long as a segment of these journals.
    const FRAMES: u64 = 4;

    /// A journal of one chunk, what counts the questions to its store, and who writes it.
    async fn journal(every: Duration) -> (JournalServer, Arc<Faulty<MemoryStore>>, Writer) {
        sealed_for(every, Recipients::default()).await
    }

    async fn sealed_for(
        every: Duration,
        recipients: Recipients,
    ) -> (JournalServer, Arc<Faulty<MemoryStore>>, Writer) {
        let store = Arc::new(Faulty::new(MemoryStore::new(), 1, Faults::default()));
        let (source, reader) = founded_in(Arc::clone(&store) as _).await;
        let mut writer = opened_for(&reader, recipients).await;
        chunk(&mut writer).await;
        (JournalServer::new(source, every, tokio::sync::watch::channel(0).1).unwrap(), store, writer)
    }

    async fn chunk(writer: &mut Writer) {
        let (chunk, _) = encode_data(writer.place(), &vec![7; (FRAMES * SEGMENT) as usize]).unwrap();
        writer.append(&chunk, &quiet).await.unwrap();
    }

    /// Where log ends that is so many bytes long.
    fn at(bytes: u64) -> Offset {
        Offset::new(SEGMENT + bytes)
    }

    /// A standby whose line takes all that is read at once.
    struct Line<'a> {
        sending: Sending<'a>,
        reading: Option<Reading>,
        taken: u64,
    }

    impl<'a> Line<'a> {
        fn begin(server: &'a JournalServer) -> Self {
            let sending = Sending::begin(server, Timeline::new(1), at(0));
            let reading = Some(sending.look(Duration::ZERO, None));
            Self { sending, reading, taken: 0 }
        }

        /// One step; `looks`: the last look was long ago.
        async fn step(&mut self, looks: bool) {
            if looks {
                self.sending.looked = Instant::now().checked_sub(LOOK_AGAIN * 2).unwrap();
            }
            let read = self.reading.take().unwrap().await;
            self.reading = Some(self.sending.take(read).map_err(|why| why.refusal).unwrap());
            while let Some((start, bytes)) = self.sending.slices.next(self.sending.is_all, None) {
                assert_eq!(start, at(self.taken));
                self.taken += bytes.len() as u64;
                self.sending.sent = at(self.taken);
            }
        }

        async fn all(&mut self, looks: bool) {
            while !self.sending.is_all {
                self.step(looks).await;
            }
        }
    }

    #[test]
    fn log_is_held_until_it_is_as_old_as_its_delay_says_and_no_longer() {
        let now = DateTime::from_timestamp(1_774_792_800, 0).unwrap();
        let hour = Duration::from_secs(3600);
        let written = |ago: i64| (now - TimeDelta::seconds(ago)).timestamp_micros();
        assert_eq!(held_until(written(0), Duration::ZERO, now), None);
        assert_eq!(held_until(written(3599), hour, now), Some(now + TimeDelta::seconds(1)));
        assert_eq!(held_until(written(3600), hour, now), None);
        // What cannot be reckoned is not sent.
        assert!(held_until(written(9), Duration::MAX, now).is_some());
        assert!(held_until(i64::MAX, hour, now).is_some());
    }

    #[tokio::test]
    async fn a_look_while_log_is_read_asks_the_store_for_none_of_it_again() {
        let mut calls = Vec::new();
        for looks in [false, true] {
            // One look is as good as all.
            let (server, store, _writer) = journal(Duration::from_secs(3600)).await;
            let (mut line, before) = (Line::begin(&server), store.calls());
            line.all(looks).await;
            assert_eq!(line.taken, FRAMES * SEGMENT);
            calls.push(store.calls() - before);
        }
        assert_eq!(calls[0], calls[1]);
    }

    #[tokio::test]
    async fn what_came_while_log_was_read_goes_too_before_all_is_said_to_have_gone() {
        let (server, store, mut writer) = journal(Duration::ZERO).await;
        let mut line = Line::begin(&server);
        line.step(false).await;
        line.step(false).await;
        assert_eq!(line.taken, SEGMENT);
        chunk(&mut writer).await;
        // A look that fails keeps what was read, too.
        let before = Faults { before: 1.0, ..Faults::default() };
        line.step(true).await;
        store.set(before);
        line.step(true).await;
        assert_eq!(line.sending.failures, 1);
        store.set(Faults::default());
        line.all(true).await;
        assert_eq!((line.taken, line.sending.sent), (2 * FRAMES * SEGMENT, at(2 * FRAMES * SEGMENT)));
    }

    #[tokio::test]
    async fn nothing_behind_a_fork_is_taken_that_was_found_while_its_chunk_was_read() {
        for fork in [FRAMES * SEGMENT, 5 * SEGMENT / 2] {
            let (server, _store, mut writer) = journal(Duration::ZERO).await;
            let mut line = Line::begin(&server);
            line.step(false).await;
            line.step(false).await;
            let (parent, next) = (Timeline::new(1), Timeline::new(2));
            let history = format!("1\t{}\tno recovery target specified\n", at(fork)).into_bytes();
            let body = TimelineBody { parent, parent_end: at(FRAMES * SEGMENT), history };
            let branch = Position::new(next, at(fork));
            let (begins, _) = encode_timeline(writer.place(), branch, &body).unwrap();
            writer.append(&begins, &quiet).await.unwrap();
            chunk(&mut writer).await;
            line.all(true).await;
            assert_eq!((line.taken, line.sending.left), (fork, Some((at(fork), next))));
        }
    }

    #[tokio::test]
    async fn nothing_is_said_of_a_standby_before_it_is_known_how_it_is_doing() {
        let (server, store, _writer) = journal(Duration::ZERO).await;
        let said = |bytes| StandbyStatus { written: at(0), flushed: at(bytes), applied: at(0) };
        // It had a segment of the log that it is sent: only what it had not is news.
        let mut line = Line::begin(&server);
        assert_eq!(line.sending.known(), None);
        line.step(false).await;
        line.sending.hear(said(SEGMENT));
        line.step(false).await;
        assert_eq!((line.taken, line.sending.known()), (SEGMENT, None));
        while line.taken < 3 * SEGMENT {
            line.step(false).await;
        }
        let known = line.sending.known().map(|standing| standing.state);
        assert_eq!(known, Some(State::CatchingUp));
        // A store that fails is news at once.
        let mut line = Line::begin(&server);
        store.set(Faults { before: 1.0, ..Faults::default() });
        line.step(false).await;
        let known = line.sending.known().map(|standing| standing.state);
        assert_eq!(known, Some(State::WaitsForStore));
    }

    /// Steps until it ends, and why it does.
    async fn refused(server: &JournalServer) -> (State, String) {
        let mut sending = Sending::begin(server, Timeline::new(1), at(0));
        let mut reading = sending.look(Duration::ZERO, None);
        loop {
            match sending.take(reading.await) {
                Ok(next) => reading = next,
                Err(Refused { state, refusal }) => return (state, refusal.message),
            }
        }
    }

    #[tokio::test]
    async fn log_whose_private_key_is_not_at_hand_is_no_damage_and_goes_on_once_it_is() {
        let (key, other) = (Identity::generate(), Identity::generate());
        let recipients = Recipients::parse([key.to_public().to_string().as_str()]).unwrap();
        let (server, store, writer) = sealed_for(Duration::ZERO, recipients).await;
        let with = |key: &Identity| Unlock::parse(key.to_string().expose_secret()).unwrap();
        for (name, keys) in [("none", Unlock::none()), ("another's", with(&other))] {
            server.go_on_with(&keys);
            let (state, message) = refused(&server).await;
            assert_eq!(state, State::WaitsForStore, "{name}: {message}");
            assert!(message.contains("no private key that opens it is at hand"), "{name}: {message}");
        }
        // The ring is held while the store is searched.
        let searches = server.source.keys().await;
        server.go_on_with(&with(&key));
        drop(searches);
        let mut line = Line::begin(&server);
        line.all(false).await;
        assert_eq!(line.taken, FRAMES * SEGMENT);
        // What was changed is damage still, whichever key is at hand.
        let number = writer.place().number();
        let last = writer.reader().layout().chunk(Sequence::new(number.get() - 1)).unwrap();
        let mut bytes = store.get(&last).await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        store.inner().replace(&last, bytes.into());
        assert_eq!(refused(&server).await.0, State::Damaged);
    }
}
