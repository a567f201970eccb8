//! The guard of a database in `sync`: it lets commits go when no store takes them in time, and has them wait again when stores keep up.
//!
//! What always holds (`docs/adr/2026-11-28-the-guard.md`): an exposure is on disk before a commit is let go, and ends only when each commit that did not wait is stored.
//! What it needs is an SQL session at the primary and its ledger: no store, no catalog, no shipper. A crash at any step leaves what the next start reads
//! as one of its states.

pub mod decide;
pub mod ledger;
#[cfg(test)]
mod model;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::guard::GuardPhase;
use farshore_engines::postgres::sql::{Session, Waits};
use farshore_engines::postgres::wire::{ConnectParams, Error, Timeouts};
use farshore_journal::{DatabaseName, Offset, Timeline};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::decide::{Decider, Look, NOTICED, Names, Step, Waiter, Why};
use self::ledger::Ledger;
use crate::primary;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(250);
/// How long one host may take to answer a look: one that hangs must not keep commits waiting for long.
const ANSWER: Duration = Duration::from_secs(2);
/// How long changing the setting may take, which the server writes to its disk.
const ACT: Duration = Duration::from_secs(30);
/// After how long without a word the server ends a guard's session, and gives its lock away: a guard that is frozen or cut off must not keep another
/// from acting.
const SILENT: &str = "10s";
/// How often the server looks whether the guard is there still, while it works for it.
const THERE: &str = "1s";
/// How often one that looks on asks whether it is its turn.
const SPARE: Duration = Duration::from_secs(1);
/// How often it is written down that commits wait.
const SIGHT: Duration = Duration::from_secs(5);
/// How often the other hosts of a URL are looked at for a newer primary.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// The advisory lock of whoever changes the setting, which is one for the whole server.
pub const LOCK: &str = "farshore guard";

/// What a guard of a database is called among its primary's sessions.
pub fn session_name(database: &DatabaseName) -> String {
    format!("farshore guard {database}")
}

/// What is guarded.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// The database.
    pub database: DatabaseName,
    /// How its hosts are reached.
    pub params: ConnectParams,
    /// What the setting says while commits wait.
    pub armed: String,
    /// What its stores' streams are called.
    pub streams: Vec<String>,
    /// How many of them must have what is called stored.
    pub durable: usize,
    /// How long a commit may wait.
    pub timeout: Duration,
    /// The folder of its ledger.
    pub folder: PathBuf,
}

/// What a guard shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where it is.
    pub phase: GuardPhase,
    /// Another guard acts; this one is ready.
    pub is_spare: bool,
    /// Whether commits do not wait, or are not known to, as the ledger has it.
    pub is_exposed: bool,
    /// Up to when they are known to have waited before that; `None`: they wait, or nobody knows.
    pub exposed_since: Option<DateTime<Utc>>,
    /// Why they do not, or last did not, as the ledger's word has it.
    pub why: Option<String>,
    /// When it last asked the primary and was answered.
    pub looked_at: Option<DateTime<Utc>>,
    /// How often an exposure was opened, for whatever reason: what is short may be over when it is looked.
    pub openings: u64,
    /// What keeps it from its work.
    pub trouble: Option<String>,
}

impl Standing {
    /// Of a guard that has not looked.
    pub const BEGUN: Self = Self {
        phase: GuardPhase::Unknown,
        is_spare: false,
        is_exposed: false,
        exposed_since: None,
        why: None,
        looked_at: None,
        openings: 0,
        trouble: None,
    };
}

/// Guards until cancelled. The setting is left as it is then.
///
/// # Errors
/// When the ledger cannot be read: nothing was changed.
pub async fn run(
    config: GuardConfig,
    told: watch::Sender<Standing>,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let ledger = Ledger::open(&config.folder, &config.database)?;
    let timeouts = |answer| Timeouts { connect: ANSWER, answer, ..config.params.timeouts() };
    let params = config.params.clone().with_application_name(session_name(&config.database));
    // What a login does must not wait for those whom the guard lets go.
    let params = params
        .with_setting("synchronous_commit", "local")
        .with_setting("idle_session_timeout", SILENT)
        .with_setting("client_connection_check_interval", THERE);
    let mut guard = Guard {
        decider: Decider::new(config.timeout, ledger.open_exposure().is_some()),
        sighted: None,
        kept: None,
        asks: params.clone().with_timeouts(timeouts(ANSWER)),
        acts: params.with_timeouts(timeouts(ACT)),
        config,
        ledger,
        begun: Instant::now(),
        told,
        sessions: 0,
        has_opened: false,
        elsewhere: Elsewhere::default(),
    };
    guard.show(|_| {});
    let mut session: Option<Session> = None;
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        // A step that is begun is brought to its end: it is bounded by the session's own deadlines.
        session = guard.turn(session.take()).await;
        if session.is_none() {
            guard.decider.lost();
            guard.show(|_| {});
            let pause = if guard.told.borrow().is_spare { SPARE } else { LOOK };
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

struct Guard {
    config: GuardConfig,
    /// How a primary is looked for, and how the session there is that acts.
    asks: ConnectParams,
    acts: ConnectParams,
    ledger: Ledger,
    decider: Decider,
    /// Up to when commits are known to have waited, and when that was last written down.
    sighted: Option<DateTime<Utc>>,
    kept: Option<Instant>,
    begun: Instant,
    told: watch::Sender<Standing>,
    sessions: u64,
    /// Whether an exposure was opened since this guard began to act.
    has_opened: bool,
    elsewhere: Elsewhere,
}

/// Whether there is a newer primary, asked beside: a promotion leaves the old one behind, which may go on answering.
#[derive(Default)]
struct Elsewhere {
    asked: Option<Instant>,
    asking: JoinSet<Result<Timeline, String>>,
}

impl Elsewhere {
    /// Whether a primary is known on a later timeline than that of the session.
    fn is_newer(&mut self, params: &ConnectParams, than: Timeline) -> bool {
        if params.hosts().len() < 2 {
            return false;
        }
        if let Some(Ok(Ok(found))) = self.asking.try_join_next()
            && found > than
        {
            return true;
        }
        if self.asking.is_empty() && self.asked.is_none_or(|asked| asked.elapsed() > ELSEWHERE) {
            self.asked = Some(Instant::now());
            let params = params.clone();
            self.asking
                .spawn(async move { primary::find(&params).await.map(|found| found.flushed.timeline) });
        }
        false
    }
}

/// Why a turn came to nothing.
enum Hindered {
    /// The session is of no more use.
    Session(String),
    /// Something else keeps it.
    Other(String),
}

impl From<Error> for Hindered {
    fn from(why: Error) -> Self {
        match &why {
            Error::Server { .. } => Self::Other(why.to_string()),
            _ => Self::Session(why.to_string()),
        }
    }
}

impl Guard {
    /// One look and what follows from it; the session that is used on.
    async fn turn(&mut self, session: Option<Session>) -> Option<Session> {
        let session = match session {
            Some(session) => session,
            None => match self.begin_session().await {
                Ok(session) => session?,
                Err(why) => {
                    self.hindered(why);
                    return None;
                }
            },
        };
        match self.look(&session).await {
            Ok(true) => Some(session),
            Ok(false) => None,
            Err(Hindered::Other(why)) => {
                self.hindered(why);
                Some(session)
            }
            Err(Hindered::Session(why)) => {
                self.hindered(why);
                None
            }
        }
    }

    /// A session at the primary, of the one guard that acts there; `None`: another one does.
    async fn begin_session(&mut self) -> Result<Option<Session>, String> {
        let found = primary::find(&self.asks).await?;
        // The one that acts is given more time.
        let said = |why: Error| why.to_string();
        let session = Session::connect(&self.acts, &found.host).await.map_err(said)?;
        drop(found);
        self.sessions += 1;
        if !session.advisory_lock(LOCK).await.map_err(said)? {
            self.spare();
            return Ok(None);
        }
        if !session.may_change_waits().await.map_err(said)? {
            return Err("its role may not change synchronous_standby_names, or not see who waits".to_owned());
        }
        // Another guard of this machine may have acted meanwhile.
        self.ledger.again().map_err(|why| format!("{}: {why}", self.ledger.path().display()))?;
        let ended = self.ledger.exposures().last().and_then(|last| last.until).and_then(noticed);
        self.sighted = self.sighted.max(self.ledger.sighted()).max(ended);
        self.has_opened = false;
        self.decider.takes_over(self.ledger.open_exposure().is_some());
        self.show(|standing| standing.is_spare = false);
        Ok(Some(session))
    }

    fn spare(&self) {
        if !self.told.borrow().is_spare {
            tracing::info!(database = %self.config.database, "another guard acts at this server; this one is ready");
        }
        self.show(|standing| (standing.is_spare, standing.trouble) = (true, None));
    }

    /// Looks, and does what follows; `false`: it is another guard's turn.
    async fn look(&mut self, session: &Session) -> Result<bool, Hindered> {
        let (at, asked_at) = (self.begun.elapsed(), Utc::now());
        let asked = tokio::time::timeout(ANSWER, session.waits(&self.config.streams, LOCK)).await;
        let waits = asked.map_err(|_| Hindered::Session("the primary does not answer".to_owned()))??;
        let Some(flushed) = waits.flushed.filter(|_| waits.primary) else {
            return Err(Hindered::Session("the server is a standby now".to_owned()));
        };
        if !waits.holds {
            // In another of the server's databases, or a pooler stands between.
            self.spare();
            return Ok(false);
        }
        if !waits.sees {
            return Err(Hindered::Session("its role does not see who waits: it lacks pg_monitor".to_owned()));
        }
        if self.elsewhere.is_newer(&self.asks, flushed.timeline) {
            return Err(Hindered::Session("another host is the primary now".to_owned()));
        }
        let look = Look {
            at,
            names: self.names(&waits.names),
            flushed,
            stored: stored(&self.config.streams, self.config.durable, &waits),
            server_micros: waits.server_micros,
            loaded: waits.loaded,
            waiters: waits
                .waiters
                .into_iter()
                .map(|(process, statement)| Waiter { process, statement })
                .collect(),
            attentive: waits.attentive,
            life: (waits.started, self.sessions),
        };
        let phase = self.decider.phase();
        let step = self.decider.look(&look);
        self.take(session, step, &look, asked_at).await?;
        if let Step::Disarm | Step::Arm = step {
            self.decider.did(step, self.begun.elapsed());
        }
        let now = self.decider.phase();
        if now != phase {
            tracing::info!(database = %self.config.database, from = phase.word(), to = now.word(), "the guard's state changed");
        }
        let trouble = match &look.names {
            Names::Other(names) => Some(format!(
                "synchronous_standby_names is '{names}', which is somebody's own: it is left alone"
            )),
            _ if self.decider.is_late(look.at) => Some(self.late(session).await),
            _ => None,
        };
        self.sight(look.at, asked_at);
        self.show(|standing| {
            standing.looked_at = Some(asked_at);
            standing.trouble = trouble;
        });
        Ok(true)
    }

    /// Does what was decided. The exposure comes first, and nothing without it.
    async fn take(
        &mut self,
        session: &Session,
        step: Step,
        look: &Look,
        asked_at: DateTime<Utc>,
    ) -> Result<(), Hindered> {
        match step {
            Step::Watch => {}
            Step::Open(why) => self.expose(why, look, self.sighted)?,
            Step::Disarm => {
                self.is_prompt(look)?;
                let said = self.ledger.open_exposure().is_some_and(|open| open.why == Why::Waited.word());
                if !(said && self.has_opened) {
                    self.expose(Why::Waited, look, Some(asked_at))?;
                }
                tracing::warn!(
                    database = %self.config.database,
                    waited_seconds = self.decider.waited(look.at).as_secs_f64(),
                    "commits waited for too long and are let go: from now on what is committed may be lost with the primary"
                );
                self.change(session, look, "").await?;
            }
            Step::Arm => {
                self.is_prompt(look)?;
                self.change(session, look, &self.config.armed).await?;
            }
            Step::Close(until) => {
                self.is_prompt(look)?;
                let ended = self.ledger.end(Utc::now(), until);
                ended.map_err(|why| Hindered::Other(format!("{}: {why}", self.ledger.path().display())))?;
                self.sighted = noticed(asked_at);
                self.decider.did(step, look.at);
                tracing::info!(database = %self.config.database, %until, "every commit is stored again, and new ones wait for it");
            }
        }
        Ok(())
    }

    /// One that was halted since it looked knows nothing of what others did meanwhile.
    fn is_prompt(&self, look: &Look) -> Result<(), Hindered> {
        match self.begun.elapsed().saturating_sub(look.at) > ANSWER * 2 {
            true => Err(Hindered::Session("it was halted".to_owned())),
            false => Ok(()),
        }
    }

    /// Changes the setting, unless somebody else did since it was looked at: writing down what follows may have taken a while.
    async fn change(&self, session: &Session, look: &Look, to: &str) -> Result<(), Hindered> {
        if self.names(&session.waits_glance().await?.names) != look.names {
            return Err(Hindered::Other("the setting was changed while it was to be changed".to_owned()));
        }
        Ok(session.wait_for(to).await?)
    }

    /// Opens an exposure that began behind `since`.
    fn expose(&mut self, why: Why, look: &Look, since: Option<DateTime<Utc>>) -> Result<(), Hindered> {
        let place = (look.flushed.timeline, look.stored);
        self.ledger.begin(Utc::now(), since, why.word(), place).map_err(|error| {
            Hindered::Other(format!(
                "{}: {error}; no commit is let go while its exposure cannot be written down",
                self.ledger.path().display()
            ))
        })?;
        self.has_opened = true;
        self.decider.did(Step::Open(why), look.at);
        Ok(())
    }

    /// Keeps up to when commits are known to have waited, on disk every few seconds.
    fn sight(&mut self, at: Duration, asked_at: DateTime<Utc>) {
        let Some(sighted) = self.decider.sighted(at) else { return };
        let before = TimeDelta::from_std(at.saturating_sub(sighted)).ok();
        let Some(sighted) = before.and_then(|before| asked_at.checked_sub_signed(before)) else { return };
        self.sighted = Some(sighted);
        if self.kept.is_some_and(|kept| kept.elapsed() < SIGHT) {
            return;
        }
        self.kept = Some(Instant::now());
        if let Err(why) = self.ledger.sight(sighted) {
            tracing::warn!(database = %self.config.database, error = %why, "up to when commits waited could not be written down: an exposure may begin too early");
        }
    }

    /// Why a setting that was changed is not what commits go by.
    async fn late(&self, session: &Session) -> String {
        match tokio::time::timeout(ANSWER, session.waits_source()).await {
            Ok(Ok(source)) if source == "command line" => {
                "synchronous_standby_names is on the server's command line, where nothing changes it".to_owned()
            }
            _ => "the server has not taken the changed setting: a checkpoint is at work that does not look at it, or a configuration file is flawed, which its log says".to_owned(),
        }
    }

    fn names(&self, names: &str) -> Names {
        match names.trim() {
            "" => Names::Disarmed,
            names if names == self.config.armed => Names::Armed,
            names => Names::Other(names.to_owned()),
        }
    }

    fn hindered(&self, why: String) {
        let before = self.told.borrow().trouble.clone();
        if before.as_ref() != Some(&why) {
            tracing::warn!(database = %self.config.database, error = %why, "the guard is kept from its work");
        }
        self.show(|standing| standing.trouble = Some(why));
    }

    fn show(&self, change: impl FnOnce(&mut Standing)) {
        let open = self.ledger.open_exposure();
        let since = open.and_then(|open| open.since);
        let why = self.ledger.exposures().last().map(|last| last.why.clone());
        let (phase, is_exposed) = (self.decider.phase(), open.is_some());
        let openings = self.ledger.openings();
        self.told.send_modify(|standing| {
            (standing.phase, standing.is_exposed, standing.openings) = (phase, is_exposed, openings);
            (standing.exposed_since, standing.why) = (since, why);
            change(standing);
        });
    }
}

/// The moment of which is known what one looks at now.
fn noticed(now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(TimeDelta::from_std(NOTICED).ok()?)
}

/// What as many of these streams have as must. A stream that has not caught up yet is one that no commit can wait for.
fn stored(names: &[String], durable: usize, waits: &Waits) -> Option<Offset> {
    let of = |name: &String| {
        waits
            .streams
            .iter()
            .filter(|stream| stream.name == *name && stream.streams)
            .filter_map(|stream| stream.flushed)
            .max()
    };
    let mut ends: Vec<Option<Offset>> = names.iter().map(of).collect();
    ends.sort_unstable_by(|a, b| b.cmp(a));
    ends.get(durable.checked_sub(1)?).copied().flatten()
}

#[cfg(test)]
mod tests {
    use farshore_engines::postgres::sql::StreamSeen;

    use super::*;

    #[test]
    fn stored_is_what_as_many_streams_have_as_must() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let seen = |name: &str, flushed: Option<u64>, streams| StreamSeen {
            name: name.to_owned(),
            flushed: flushed.map(Offset::new),
            streams,
        };
        let waits = |streams| Waits {
            names: String::new(),
            primary: true,
            flushed: None,
            server_micros: 0,
            loaded: String::new(),
            waiters: Vec::new(),
            attentive: false,
            started: String::new(),
            holds: true,
            sees: true,
            streams,
        };
        let three = waits(vec![seen("a", Some(5), true), seen("b", Some(9), true), seen("c", None, true)]);
        let of = |durable, waits: &Waits| stored(&names, durable, waits).map(Offset::get);
        assert_eq!((of(1, &three), of(2, &three), of(3, &three)), (Some(9), Some(5), None));
        // One that catches up holds no commit, whatever it has; of two of a name one is enough.
        let two = waits(vec![
            seen("a", Some(50), false),
            seen("a", Some(5), true),
            seen("a", Some(7), true),
            seen("x", Some(90), true),
        ]);
        assert_eq!((of(1, &two), of(2, &two)), (Some(7), None));
    }
}
