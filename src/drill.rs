//! Drills: a restore for real into a scratch place, looked at, measured, removed, and signed for.
//!
//! What always holds: what is protected is never spoken to, the store is only read but for the certificate; the copy is removed before a word is said of how the drill went; a drill passes
//! only when its restore and every required check did. A drill that is stopped tears down and comes to no verdict. `docs/adr/2026-11-27-drills.md` says what a
//! certificate proves. A crash leaves what [`scratch::sweep`] removes.
//!
//! ```text
//! plan ─▶ (scratch made) fetch ─▶ replay ─▶ open ─▶ check ─▶ cleanup ─▶ statement ─▶ certificate ─▶ catalog
//! └───────────── recovery: what `rto` promises ───────┘
//! ```

pub mod checks;
pub mod clock;
pub mod outcome;
pub mod point;
pub mod process;
pub(crate) mod removal;
pub mod scratch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_applier::plan::{Plan, PlanError, reachable, resolve};
use farshore_applier::restore::{self, RestoreError, RestoreOptions, Restored, StartOptions};
use farshore_catalog::Catalog;
use farshore_catalog::job::JobProgress;
use farshore_engines::log::Shape;
use farshore_engines::postgres::restore::safe_start::Then;
use farshore_journal::format::certificate::{
    ChosenPoint, CountedTable, DrillCheck, DrillFailure, DrillStatement, DrillTarget, JournalEnd, SCHEMA,
};
use farshore_journal::{DatabaseName, DrillId, JournalError, Position};
use farshore_shipper::crash_point;
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;

use self::clock::{Clock, Phase};
use self::outcome::Came;
use self::point::Point;
use self::scratch::Scratch;
use crate::cli::History;
use crate::cli::restore::Target;
use crate::commands::restore as restoring;
use crate::config::{Config, DatabaseConfig, EngineConfig, StoreName};
use crate::jobs::held::Reporter;
use crate::jobs::spec;
use crate::message::{Code, OperatorMessage, Safe, with_causes};
use crate::rebuild::Held;
use crate::{sources, wiring};

/// The number that names the copy's socket; no TCP port is opened.
pub(crate) const PORT: u16 = 5432;
/// The most `shared_buffers` a copy takes: it runs beside others.
const SHARED_BUFFERS: u64 = 2 << 30;
/// How long a started copy may make no progress.
const STALL: Duration = Duration::from_secs(300);
/// What is left free beside a copy: logs and the server's own files.
const SPARE: u64 = 64 << 20;

/// What a drill has for its work.
pub struct Means<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The catalog, where there is one.
    pub catalog: Option<&'a Catalog>,
    /// Where it says how far it is.
    pub reporter: &'a Reporter,
    /// Cancelled when it is to end at its next safe point.
    pub stop: &'a CancellationToken,
}

/// Does a drill. `None` when it was stopped: then nothing of it is left.
///
/// # Errors
/// When it could not be begun: the store or a key cannot be read, or it was not understood. What failed of a drill that was begun is in [`Came`].
pub async fn run(
    means: Means<'_>,
    (name, settings): (&DatabaseName, &DatabaseConfig),
    wanted: &spec::Drill,
) -> Result<Option<Came>, OperatorMessage> {
    farshore_shipper::crash::prepare();
    sweep(means.config, wanted.scratch.as_deref()).await;
    let key = outcome::signing_key(name, settings)?;
    let point = match &wanted.point {
        None => settings.drill.point.clone(),
        Some(text) => text.parse().map_err(|why: String| point_unread(text, &why))?,
    };
    let mut course = begun(&means, name, settings, wanted, point).await?;
    crash_point!("drill-begun");
    let work = Box::pin(course.run(&means));
    let done = tokio::select! {
        biased;
        done = work => Some(done),
        () = means.stop.cancelled() => None,
    };
    if let Some(Err(failed)) = &done {
        course.failure = Some(failed.clone());
    }
    course.clear(&means).await;
    crash_point!("drill-cleaned");
    if done.is_none() {
        return match course.left {
            None => Ok(None),
            Some(why) => Err(outcome::left(name, &why)),
        };
    }
    Ok(Some(outcome::certify(means.config, means.catalog, course, key).await))
}

/// Removes what drills left that are over, on this machine, and says so.
pub async fn sweep(config: &Config, also: Option<&Path>) {
    let home = config.service.scratch();
    let named = config.databases.values().filter_map(|settings| settings.drill.scratch.clone());
    let places: Vec<PathBuf> = named.chain(also.and_then(|path| std::path::absolute(path).ok())).collect();
    let swept = tokio::task::spawn_blocking(move || scratch::sweep(&places, &home)).await;
    for swept in swept.unwrap_or_default() {
        let directory = swept.directory.display();
        match swept.left {
            None => {
                tracing::warn!(%directory, processes = swept.ended, "a drill that was cut off had left this: it was removed");
            }
            Some(why) => {
                tracing::error!(%directory, why, "a drill that was cut off had left this, and it stays")
            }
        }
    }
}

/// A drill that goes on, and what is known of it so far.
pub(crate) struct Course<'a> {
    pub(crate) name: &'a DatabaseName,
    pub(crate) settings: &'a DatabaseConfig,
    pub(crate) held: Held,
    id: DrillId,
    began: DateTime<Utc>,
    journal: Option<JournalEnd>,
    /// Why the journal's end does not read, though the store answers.
    damaged: Option<OperatorMessage>,
    point: Point,
    chosen: ChosenPoint,
    place: PathBuf,
    pub(crate) clock: Arc<Clock>,
    scratch: Option<Scratch>,
    target: Option<DrillTarget>,
    failure: Option<Failed>,
    pub(crate) checks: Vec<DrillCheck>,
    pub(crate) tables: Vec<CountedTable>,
    pub(crate) network: &'static str,
    left: Option<String>,
}

/// What failed before the checks, and in which phase.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    phase: Phase,
    pub(crate) message: OperatorMessage,
}

async fn begun<'a>(
    means: &Means<'_>,
    name: &'a DatabaseName,
    settings: &'a DatabaseConfig,
    wanted: &spec::Drill,
    point: Point,
) -> Result<Course<'a>, OperatorMessage> {
    let (began, clock) = (Utc::now(), Arc::new(Clock::start()));
    if matches!(settings.engine, EngineConfig::Postgres { .. }) && nix::unistd::geteuid().is_root() {
        return Err(OperatorMessage::new(
            Code::RootRefused,
            format!("the drill of {name} would start a PostgreSQL server, and that does not run as root"),
            Safe::Known("nothing was begun".to_owned()),
            "drill as the user that runs farshore, or leave it to a service with --no-wait",
        ));
    }
    let store = wanted.store.as_ref().map(|store| store.parse::<StoreName>()).transpose();
    let store = store.map_err(|why| point_unread("the store", &why))?;
    let history = History { store, incarnation: None };
    let mut held = sources::chosen(means.config, name, &history).await.map_err(message)?;
    // What replay made elsewhere would be left there, and the certificate would say that all was removed.
    held.source = held.source.confined();
    let away = |why| restoring::unreachable(name, &PlanError::Journal(why), None);
    let (journal, damaged) = match held.source.reader().last().await {
        Ok(Some(last)) => {
            let last = last.header();
            let end = JournalEnd { chunk: last.number, chain: last.after, position: last.end_position() };
            (Some(end), None)
        }
        Ok(None) => {
            let (incarnation, why) = (held.source.record().number, "its journal is empty".to_owned());
            return Err(restoring::unreachable(
                name,
                &PlanError::NoBase { unfit: 0, incarnation, why },
                None,
            ));
        }
        Err(why @ JournalError::Store(_)) => return Err(away(why)),
        // The store answers, and what it has is no whole journal: that is what a drill is to find.
        Err(why) => (None, Some(away(why))),
    };
    let is_random = point == Point::Random;
    let seed = is_random.then(|| wanted.seed.unwrap_or_else(mint_seed));
    let chosen = ChosenPoint { asked: point.to_string(), seed, spans: Vec::new() };
    let place = wanted.scratch.clone().or_else(|| settings.drill.scratch.clone());
    let place = place.unwrap_or_else(|| means.config.service.scratch());
    let place = std::path::absolute(&place).map_err(|why| no_place(name, &place, &why.to_string()))?;
    Ok(Course {
        name,
        settings,
        held,
        id: DrillId::mint(),
        began,
        journal,
        damaged,
        point,
        chosen,
        place,
        clock,
        scratch: None,
        target: None,
        failure: None,
        checks: Vec::new(),
        tables: Vec::new(),
        network: "nothing was started",
        left: None,
    })
}

impl Course<'_> {
    /// Up to the last check.
    async fn run(&mut self, means: &Means<'_>) -> Result<(), Failed> {
        let (mut plan, bytes) = self.planned(means).await?;
        let directory = self.make(means, bytes)?;
        crash_point!("drill-marked");
        let restored = Box::pin(self.restored(means, &mut plan, directory)).await?;
        crash_point!("drill-opened");
        say(means, "checking the copy");
        crash_point!("drill-checking");
        Box::pin(checks::all(self, &plan, restored)).await;
        crash_point!("drill-checked");
        Ok(())
    }

    /// What is restored to, and how much it takes.
    async fn planned(&mut self, means: &Means<'_>) -> Result<(Plan, u64), Failed> {
        say(means, "planning");
        if let Some(damaged) = self.damaged.take() {
            return Err(self.failed(damaged));
        }
        let target = self.target().await?;
        let source = &self.held.source;
        let (name, store) = (self.name, self.held.store.clone());
        let held =
            restoring::hold_against_heads(means.config, name, self.settings, source, &store, &target, false);
        Box::pin(held).await.map_err(|why| self.failed(message(why)))?;
        let plan = Box::pin(resolve(source, restoring::asked(&target))).await;
        let plan = plan.map_err(|why| self.failed(restoring::unreachable(name, &why, None)))?;
        self.aim(&plan);
        let bytes = plan.writes_bytes;
        Ok((plan, bytes))
    }

    fn aim(&mut self, plan: &Plan) {
        let time = plan.resolved.time.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true));
        self.target = Some(DrillTarget {
            position: Position::new(plan.resolved.timeline, plan.resolved.position),
            time,
            transaction: plan.resolved.xid,
            base: plan.base.id,
            base_end: plan.base.end,
            replay_bytes: plan.replay_bytes,
            planned_bytes: plan.writes_bytes,
        });
    }

    /// The target that the rule chooses.
    async fn target(&mut self) -> Result<Target, Failed> {
        let at = match &self.point {
            Point::Latest => return Ok(Target::Latest),
            Point::Named(target, _) => return Ok(target.clone()),
            Point::Oldest | Point::Random => {
                let windows = reachable(&self.held.source).await;
                let windows =
                    windows.map_err(|why| self.failed(restoring::unreachable(self.name, &why, None)))?;
                self.chosen.spans = point::spans(&windows);
                match self.chosen.seed {
                    Some(seed) => point::random(&self.chosen.spans, seed),
                    None => point::oldest(&self.chosen.spans),
                }
            }
        };
        match at {
            Some(at) => Ok(Target::Pos(crate::cli::restore::LogPoint::On(at))),
            None => {
                let (incarnation, why) = (
                    self.held.source.record().number,
                    "no span of its journal can be restored to".to_owned(),
                );
                let why = PlanError::NoBase { unfit: 0, incarnation, why };
                Err(self.failed(restoring::unreachable(self.name, &why, None)))
            }
        }
    }

    /// Makes the scratch directory; where the copy goes. Some small files, and on purpose without a wait: a drill that was cancelled in one would leave a
    /// directory that nobody here knows of.
    fn make(&mut self, means: &Means<'_>, bytes: u64) -> Result<PathBuf, Failed> {
        let refused = |why: &str| self.failed(no_place(self.name, &self.place, why));
        if matches!(self.held.source.shape(), Shape::Postgres(_)) {
            scratch::fits_a_socket(&self.place).map_err(|why| refused(&why))?;
        }
        let made = Scratch::make(&self.place, &means.config.service.scratch(), self.id, self.name);
        let made = made.map_err(|why| refused(&why))?;
        let free = statvfs(&self.place);
        let directory = made.copy();
        let wanted = bytes.saturating_add(SPARE);
        let short = free.ok().map(|found| found.blocks_available().saturating_mul(found.fragment_size()));
        let short = short.filter(|free| *free < wanted);
        let refusal =
            short.map(|free| refused(&format!("the copy takes up to {wanted} bytes and {free} are free")));
        self.scratch = Some(made);
        refusal.map_or(Ok(directory), Err)
    }

    async fn restored(
        &mut self,
        means: &Means<'_>,
        plan: &mut Plan,
        directory: PathBuf,
    ) -> Result<Restored, Failed> {
        self.clock.begin(Phase::Fetch);
        let is_server = matches!(self.held.source.shape(), Shape::Postgres(_));
        let mut options = RestoreOptions {
            directory,
            tablespaces: BTreeMap::new(),
            resume: false,
            port: PORT,
            shared_buffers_limit: SHARED_BUFFERS,
            preload: Vec::new(),
            follow: None,
            start: is_server.then(|| start(self.settings)),
        };
        let (clock, reporter) = (Arc::clone(&self.clock), means.reporter.clone());
        let watcher: restore::Watcher = Arc::new(move |progress: restore::Progress| {
            clock.seen(&progress, is_server);
            if progress.phase == restore::Phase::Copying {
                crash_point!("drill-fetching");
            }
            if clock.phase() == Phase::Replay {
                crash_point!("drill-replaying");
            }
            reporter.say(restoring::progress_of(&progress, None));
        });
        loop {
            let source = self.held.source.clone();
            match Box::pin(restore::run(&source, plan, &options, Arc::clone(&watcher))).await {
                Ok(restored) => {
                    self.clock.begin(Phase::Open);
                    return Ok(restored);
                }
                // The journal's index led to a plan that its log does not bear out: the log alone is asked, and the time counts.
                Err(why) if source.asks_index() && restoring::may_be_misled(&why, plan) => {
                    tracing::warn!(database = %self.name, error = %why, "the journal's index may have led to another plan than its log does: the drill's restore begins anew");
                    self.held.source = source.without_index();
                    let asked = plan.asked.clone();
                    let anew = Box::pin(resolve(&self.held.source, asked)).await;
                    *plan = anew.map_err(|why| self.failed(restoring::unreachable(self.name, &why, None)))?;
                    self.aim(plan);
                    options.resume = true;
                    self.clock.begin(Phase::Fetch);
                }
                Err(why) => return Err(self.failed(not_restored(self.name, &why))),
            }
        }
    }

    fn failed(&self, message: OperatorMessage) -> Failed {
        Failed { phase: self.clock.phase(), message }
    }

    /// Ends what runs in the copy and removes it.
    async fn clear(&mut self, means: &Means<'_>) {
        self.clock.begin(Phase::Cleanup);
        if let Some(scratch) = self.scratch.take() {
            say(means, "removing the copy");
            crash_point!("drill-clearing");
            let removed = tokio::task::spawn_blocking(move || scratch.remove()).await;
            self.left = removed.unwrap_or_else(|_| Err("its removal broke off".to_owned())).err();
        }
        self.clock.end();
    }

    /// A server that ended before it could be asked may have had either network.
    fn network_said(&self) -> &'static str {
        let is_server = matches!(self.held.source.shape(), Shape::Postgres(_));
        let was_started = self.failure.as_ref().is_some_and(|failed| failed.phase >= Phase::Replay);
        match is_server && was_started {
            true => "not known: the server was gone before it could be asked",
            false => self.network,
        }
    }

    /// What it came to.
    pub(crate) fn statement(&self) -> DrillStatement {
        let measured = self.clock.measured();
        let recovery_us = self.failure.is_none().then(|| measured.recovery_us()).flatten();
        let objective_us = self.settings.rto.map(|rto| micros(rto.get()));
        let record = self.held.source.record();
        let failure = self.failure.as_ref().map(|failed| DrillFailure {
            phase: failed.phase.word().to_owned(),
            code: failed.message.code.to_string(),
            // A server may have said more behind the first line, which could hold statements.
            happened: failed.message.happened.lines().next().unwrap_or_default().to_owned(),
        });
        let verdict = outcome::verdict(failure.is_some(), &self.checks, recovery_us, objective_us);
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
        DrillStatement {
            certificate: SCHEMA.to_owned(),
            drill: self.id,
            database: self.name.clone(),
            engine: record.engine.clone(),
            store: self.held.source.reader().store_id(),
            incarnation: record.incarnation,
            incarnation_number: record.number,
            node: wiring::node(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine(),
            began: time(self.began),
            ended: time(Utc::now()),
            verdict,
            point: self.chosen.clone(),
            journal: self.journal,
            target: self.target.clone(),
            failure,
            checks: self.checks.clone(),
            tables: self.tables.clone(),
            measured,
            recovery_us,
            objective_us,
            network: self.network_said().to_owned(),
            removed: self.left.is_none(),
        }
    }
}

fn say(means: &Means<'_>, phase: &str) {
    means.reporter.say(JobProgress { phase: Some(phase.to_owned()), ..JobProgress::default() });
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn start(settings: &DatabaseConfig) -> StartOptions {
    let bin = match &settings.engine {
        EngineConfig::Postgres { bin_dir, .. } => bin_dir.clone(),
        EngineConfig::Sqlite { .. } => None,
    };
    StartOptions {
        bin,
        // What is only paused serves nobody: opening for writes is a part of what recovery takes.
        then: Then::Promote,
        user: "postgres".to_owned(),
        database: "postgres".to_owned(),
        run_as: None,
        stall: STALL,
        apart: true,
    }
}

fn mint_seed() -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&DrillId::mint().as_bytes()[..8]);
    // Numbers that JSON's readers keep whole.
    u64::from_le_bytes(word) >> 12
}

/// What it ran on.
fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{} {} {}, {cores} processors", std::env::consts::OS, kernel.trim(), std::env::consts::ARCH)
}

#[allow(clippy::needless_pass_by_value)] // it stands where a closure would
fn message(why: anyhow::Error) -> OperatorMessage {
    why.downcast_ref::<OperatorMessage>().cloned().unwrap_or_else(|| {
        OperatorMessage::new(
            Code::Unexpected,
            format!("{why:#}"),
            Safe::Known("the store was only read, and nothing was restored".to_owned()),
            "mend what it says, and drill again",
        )
    })
}

fn not_restored(name: &DatabaseName, why: &RestoreError) -> OperatorMessage {
    let next = match why {
        RestoreError::Journal(why) if restoring::is_sealed(why) => restoring::NAME_THE_KEY,
        RestoreError::Server(_) | RestoreError::Bin(_) => {
            "mend what the server says, then drill again: a real restore would fail in the same way"
        }
        _ => "`farshore verify` names what is wrong with the journal; take a base backup, then drill again",
    };
    OperatorMessage::new(
        Code::RestoreFailed,
        format!("the drill's restore of {name} failed: {}", with_causes(why)),
        Safe::Known(
            "the store was only read and the database was not touched; whether another target can be restored is not known"
                .to_owned(),
        ),
        next,
    )
}

fn no_place(name: &DatabaseName, place: &Path, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::DrillScratch,
        format!("the drill of {name} has no place in {}: {why}", place.display()),
        Safe::Known("nothing was restored; the store was only read".to_owned()),
        "name another place with --scratch or `drill.scratch`",
    )
}

fn point_unread(text: &str, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::DrillPoint,
        format!("{text} is not understood: {why}"),
        Safe::Known("nothing was begun".to_owned()),
        "write latest, random, oldest, a time, a position or a named point",
    )
}
