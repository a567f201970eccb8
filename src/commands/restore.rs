//! `farshore restore`: takes a database to any commit.
//!
//! What always holds: a plan comes first, and a target that cannot be reached is refused before a byte is written; in place is
//! refused unless the database's name was typed again, letter for letter, whatever `--yes` says.

mod incarnations;
mod planned;
mod refusal;
pub(crate) mod wish;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::SecondsFormat;
use farshore_applier::heads::{Doubt, doubts, unwitnessed};
use farshore_applier::plan::{Asked, AskedPosition, Plan, PlanError};
use farshore_applier::restore::{RestoreError, RestoreOptions, Restored, StartOptions};
use farshore_applier::source::Source;
use farshore_catalog::job::{JobKind, NewJob, Via};
use farshore_engines::log::Shape;
use farshore_engines::postgres::restore::safe_start::Then as EngineThen;
use farshore_engines::postgres::restore::server::Reached;
use farshore_engines::sqlite::check::Checked;
use farshore_journal::{DatabaseName, JournalError};
use serde_json::json;

pub(crate) use self::planned::{Chosen, Planned, progress_of};
pub(crate) use self::refusal::failed;
pub(crate) use self::refusal::{NAME_THE_KEY, is_sealed, unreachable};
use crate::cli::restore::{Destination, LogPoint, TablespaceRef, Target, Then};
use crate::cli::zone::Zone;
use crate::cli::{History, RestoreArgs};
use crate::commands::{self, Context, job as jobs};
use crate::config::{Config, DatabaseConfig, EngineConfig, StoreName};
use crate::exit::Exit;
use crate::jobs::held::Held;
use crate::jobs::{place, record, spec};
use crate::message::{Code, OperatorMessage, Safe};
use crate::{heads, sources, wiring};

/// The port whose number names the socket of a copy that is not started.
const UNSTARTED_PORT: u16 = 5432;
/// The most `shared_buffers` a copy takes: it runs beside others.
const SHARED_BUFFERS: u64 = 2 << 30;
/// How long a started copy may make no progress.
const STALL: Duration = Duration::from_secs(300);

/// Runs it.
///
/// # Errors
/// When the target cannot be reached, the place cannot be used, or the copy did not come to stand at exactly the target.
pub async fn run(context: &mut Context, args: RestoreArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let zone = context.output.zone();
    let (name, settings) = commands::database(&config, Some(&args.database))?;
    let (Some(target), Some(destination)) = (args.target(), args.destination()) else {
        let refused = OperatorMessage::new(
            Code::RestoreNotConfirmed,
            format!("restoring {name} in place was not confirmed: --confirm must be the database's name"),
            Safe::Known(format!("nothing was written; {name} is as it was")),
            format!("write --confirm {name} if its present content may go, or --to DIR for a copy"),
        );
        return Err(refused.into());
    };
    let chosen = Box::pin(Chosen::open(&config, (name, settings), &target, &args.history)).await?;
    if let Shape::Sqlite { .. } = chosen.source.shape() {
        no_server(name, args.start, !args.tablespaces.is_empty())?;
    }
    if args.dry_run {
        let planned = Box::pin(chosen.planned(&config, name)).await?;
        let text = describe(&planned, zone);
        show(context, &planned.plan, &text)?;
        return Ok(Exit::Done);
    }
    let Destination::To(directory) = destination else {
        return Err(OperatorMessage::not_built("restore --in-place").into());
    };
    let directory = std::path::absolute(&directory)?;
    if args.no_wait {
        let planned = Box::pin(chosen.planned(&config, name)).await?;
        tablespaces(&args, &planned.plan)?;
        place::judged(&directory, &config.service.restore_roots)?;
        let job = job_of(name, (&target, &args), Some(wish::resolved(&planned)), &directory);
        return jobs::queue(context, &config, NewJob { via: Via::Queue, ..job }).await;
    }
    let job = job_of(name, (&target, &args), None, &directory);
    let options = |plan: &Plan| -> anyhow::Result<RestoreOptions> {
        let start = args.port.filter(|_| args.start).map(|port| (port, args.then));
        let tablespaces = tablespaces(&args, plan)?;
        Ok(RestoreOptions { tablespaces, resume: args.resume, ..options(settings, directory.clone(), start) })
    };
    let Some(done) = done(context, (&config, name), chosen, job, options).await? else {
        return Ok(Exit::Interrupted);
    };
    let (planned, restored) = (&done.planned, &done.restored);
    let plan = &planned.plan;
    let mut text = describe(planned, zone);
    let _ = writeln!(text, "restored   {}", restored.directory.display());
    if let Some(file) = &restored.file {
        let found = match &file.checked {
            Checked::Whole => "SQLite finds it whole".to_owned(),
            Checked::InPart { why } => format!(
                "SQLite could check it only in part ({why}): have the application ask `pragma integrity_check`"
            ),
        };
        let at = plan.resolved.position;
        let _ = writeln!(text, "file       {} is at exactly {at}; {found}", file.path.display());
    } else {
        text.push_str(&server(restored, plan, done.port));
    }
    done.end(context, &text).await?;
    Ok(Exit::Done)
}

/// A restore that went well, before its last words.
pub(crate) struct Done {
    held: Held,
    /// What was done.
    pub(crate) planned: Planned,
    /// What came of it.
    pub(crate) restored: Restored,
    /// Names its server's socket.
    pub(crate) port: u16,
}

/// Plans it and does it, as a job. `None`: it was asked to end, and its job says so.
///
/// # Errors
/// As [`run`].
pub(crate) async fn done(
    context: &Context,
    (config, name): (&Config, &DatabaseName),
    chosen: Chosen,
    job: NewJob,
    options: impl FnOnce(&Plan) -> anyhow::Result<RestoreOptions>,
) -> anyhow::Result<Option<Done>> {
    // Before it is planned: what a plan finds, whoever deletes is to leave alone from when on it may be found.
    let catalog = record::catalog(config).await;
    let held = record::begin(catalog.as_ref(), job, &context.cancel).await;
    let Some(planned) = held.beside(Box::pin(chosen.planned(config, name))).await else {
        held.end_stopped().await;
        return Ok(None);
    };
    let ready = planned.and_then(|planned| Ok((options(&planned.plan)?, planned)));
    let (mut options, mut planned) = match ready {
        Ok(ready) => ready,
        // What is refused before anything was begun is no job.
        Err(why) => {
            held.end_withdrawn().await;
            return Err(why);
        }
    };
    tracing::info!("{}", describe(&planned, context.output.zone()));
    let reporter = held.reporter();
    let Some(restored) =
        held.beside(Box::pin(planned.followed(&mut options, catalog.as_ref(), &reporter))).await
    else {
        tracing::warn!(directory = %options.directory.display(), "the restore was stopped");
        held.end_stopped().await;
        return Ok(None);
    };
    match restored {
        Ok(restored) => Ok(Some(Done { held, planned, restored, port: options.port })),
        Err(why) => {
            let why = failed(name, &planned.source, &options.directory, &why);
            held.end_done(Err(why.clone())).await;
            Err(why.into())
        }
    }
}

impl Done {
    /// Says it, leaves the copy to itself, and ends its job.
    ///
    /// # Errors
    /// When it cannot be said.
    pub(crate) async fn end(self, context: &mut Context, text: &str) -> anyhow::Result<()> {
        let result = result_of(&self.restored, &self.planned, self.port);
        leave(self.restored);
        // First of all: whoever waits for it must not wait for a catalog.
        show(context, &self.planned.plan, text)?;
        self.held.end_done(Ok(result)).await;
        Ok(())
    }
}

/// The restore as a job.
fn job_of(
    name: &DatabaseName,
    (target, args): (&Target, &RestoreArgs),
    resolved: Option<spec::Resolved>,
    directory: &Path,
) -> NewJob {
    let start = args.port.filter(|_| args.start);
    let start = start.map(|port| spec::Start { port, then: wish::kept_then(args.then) });
    job(name, (target, &args.history), (start, resolved), directory)
}

/// One into a directory whose copy is not started here, as a job.
pub(crate) fn job_into(
    name: &DatabaseName,
    wish: (&Target, &History),
    resolved: Option<spec::Resolved>,
    directory: &Path,
) -> NewJob {
    job(name, wish, (None, resolved), directory)
}

fn job(
    name: &DatabaseName,
    (target, history): (&Target, &History),
    (start, resolved): (Option<spec::Start>, Option<spec::Resolved>),
    directory: &Path,
) -> NewJob {
    let restore = spec::Restore {
        target: wish::kept(target),
        history: wish::kept_history(history),
        directory: directory.display().to_string(),
        start,
        resolved,
    };
    let job = spec::asked(JobKind::Restore, Some(name), &restore);
    // Its directory is on this machine.
    NewJob { wanted_node: Some(wiring::node()), ..job }
}

/// How a restore is done into a directory; with a port its server is started.
pub(crate) fn options(
    settings: &DatabaseConfig,
    directory: PathBuf,
    started: Option<(u16, Then)>,
) -> RestoreOptions {
    RestoreOptions {
        directory,
        tablespaces: BTreeMap::new(),
        resume: false,
        port: started.map_or(UNSTARTED_PORT, |(port, _)| port),
        shared_buffers_limit: SHARED_BUFFERS,
        preload: Vec::new(),
        follow: None,
        start: started.map(|(_, then)| start(settings, then)),
    }
}

/// What came of it, for the job.
pub(crate) fn result_of(restored: &Restored, planned: &Planned, port: u16) -> String {
    let plan = &planned.plan;
    let file = restored.file.as_ref().map(|file| file.path.display().to_string());
    let checked = restored.file.as_ref().map(|file| match &file.checked {
        Checked::Whole => "whole".to_owned(),
        Checked::InPart { why } => format!("in part: {why}"),
    });
    let server = restored.server.as_ref().map(|server| match server {
        Reached::Paused(_) => json!({ "state": "paused", "port": port, "socket": restored.socket_dir }),
        Reached::Promoted(_, timeline) => {
            json!({ "state": "promoted", "timeline": timeline.get(), "port": port, "socket": restored.socket_dir })
        }
        Reached::ShutDown => json!({ "state": "shutdown" }),
    });
    json!({
        "directory": restored.directory.display().to_string(),
        "file": file,
        "checked": checked,
        "position": plan.resolved.position.to_string(),
        "time": plan.resolved.time,
        "server": server,
        "store": planned.store,
        "remarks": planned.remarks,
        "plan": plan,
    })
    .to_string()
}

/// What a plan says, for its job.
pub(crate) fn plan_result(planned: &Planned) -> String {
    let (store, remarks, plan) = (&planned.store, &planned.remarks, &planned.plan);
    let incarnation = planned.source.record().number;
    json!({ "store": store, "incarnation": incarnation, "remarks": remarks, "plan": plan }).to_string()
}

/// Leaves the copy's server to itself.
pub(crate) fn leave(restored: Restored) {
    match restored.server {
        Some(Reached::Paused(server) | Reached::Promoted(server, _)) => {
            server.leave();
        }
        Some(Reached::ShutDown) | None => {}
    }
}

/// What became of the copy's server, for people.
fn server(restored: &Restored, plan: &Plan, port: u16) -> String {
    let at = plan.resolved.position;
    let place = restored.socket_dir.clone().unwrap_or_default();
    let connect = format!("connect    psql -h {} -p {port}\n", place.display());
    match &restored.server {
        Some(Reached::Paused(_)) => {
            format!("server     answers read-only and paused at exactly {at}\n{connect}")
        }
        Some(Reached::Promoted(_, timeline)) => {
            format!(
                "server     was at exactly {at}, and is open for writes on timeline {timeline}\n{connect}"
            )
        }
        Some(Reached::ShutDown) => format!("server     was at exactly {at}, and is stopped\n"),
        None => "server     not started: --start --port N does\n".to_owned(),
    }
}

/// Refuses what only a server has, of a database that is a file.
pub(crate) fn no_server(
    name: &DatabaseName,
    starts: bool,
    moves_tablespaces: bool,
) -> Result<(), OperatorMessage> {
    let (option, next) = if starts {
        ("--start", "leave --start and --port out: the restore names the file, which any SQLite opens")
    } else if moves_tablespaces {
        ("--tablespace", "leave --tablespace out: all of it is one file, in the directory that --to names")
    } else {
        return Ok(());
    };
    Err(OperatorMessage::new(
        Code::RestoreUnreachable,
        format!("{name} is a SQLite database, a file and no server: {option} means nothing for it"),
        Safe::Known("nothing was written".to_owned()),
        next,
    ))
}

/// Refuses what signed heads speak against: a journal that was rewritten, an incarnation that nobody signed behind one that was,
/// unless it was `named`, and the latest state of a journal whose end is gone or whose witnesses cannot be read. A target that is
/// named lies in what is left or is refused by the plan; what speaks against the end is then said.
pub(crate) async fn hold_against_heads(
    config: &Config,
    name: &DatabaseName,
    settings: &DatabaseConfig,
    source: &Source,
    store: &str,
    target: &Target,
    named: bool,
) -> anyhow::Result<()> {
    if settings.verify_keys.is_empty() {
        return Ok(());
    }
    let store_name: StoreName = store.parse().map_err(anyhow::Error::msg)?;
    // The catalog first: what it knows was stored before it was told.
    let known = heads::known(config, name, settings, &store_name).await;
    let all = sources::all(config, name, &store_name).await?;
    if let Some(head) = known.vanished(&all).first() {
        return Err(heads::vanished(name, store, head).into());
    }
    let away = |why| unreachable(name, &PlanError::Journal(why), None);
    if !named && let Some(found) = Box::pin(unwitnessed(source, &all, &known)).await.map_err(away)? {
        return Err(heads::unwitnessed(name, store, &found).into());
    }
    for doubt in Box::pin(doubts(source, &known)).await.map_err(away)? {
        let said = heads::not_held(name, store, &doubt);
        match doubt {
            Doubt::Rewritten { .. } => return Err(said.into()),
            _ if matches!(target, Target::Latest) => return Err(said.into()),
            Doubt::Cut { .. } | Doubt::Hole { .. } | Doubt::Unread { .. } | Doubt::GivenUp { .. } => {
                tracing::warn!("{said}");
            }
        }
    }
    Ok(())
}

/// Prints the plan; its own schema is the answer's.
fn show(context: &mut Context, plan: &Plan, text: &str) -> anyhow::Result<()> {
    let mut fields = serde_json::to_value(plan)?;
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("schema");
    }
    Ok(context.output.one(&plan.schema, &fields, text)?)
}

pub(crate) fn asked(target: &Target) -> Asked {
    match target {
        Target::Latest => Asked::Latest,
        Target::At(moment) => Asked::Time(moment.utc()),
        Target::Pos(LogPoint::On(position)) => {
            Asked::Position(AskedPosition { timeline: Some(position.timeline), offset: position.offset })
        }
        Target::Pos(LogPoint::Anywhere(offset)) => {
            Asked::Position(AskedPosition { timeline: None, offset: *offset })
        }
        Target::Xid(xid) => Asked::Transaction(*xid),
        Target::Point(name) => Asked::Point(name.clone()),
    }
}

fn start(settings: &DatabaseConfig, then: Then) -> StartOptions {
    let bin = match &settings.engine {
        EngineConfig::Postgres { bin_dir, .. } => bin_dir.clone(),
        EngineConfig::Sqlite { .. } => None,
    };
    StartOptions {
        bin,
        then: match then {
            Then::Pause => EngineThen::Pause,
            Then::Promote => EngineThen::Promote,
            Then::Shutdown => EngineThen::Shutdown,
        },
        user: "postgres".to_owned(),
        database: "postgres".to_owned(),
        run_as: None,
        stall: STALL,
        apart: false,
    }
}

/// The new places of tablespaces, by number.
fn tablespaces(
    args: &RestoreArgs,
    plan: &Plan,
) -> Result<BTreeMap<u32, std::path::PathBuf>, OperatorMessage> {
    let mut places = BTreeMap::new();
    for moved in &args.tablespaces {
        let known = plan.tablespaces.iter().find(|there| match &moved.from {
            TablespaceRef::Oid(oid) => there.oid == *oid,
            TablespaceRef::Path(path) => std::path::Path::new(&there.location) == path,
        });
        let Some(known) = known else {
            return Err(OperatorMessage::new(
                Code::RestoreUnreachable,
                "a --tablespace names none of the backup's tablespaces",
                Safe::Known("nothing was written".to_owned()),
                "`--dry-run -o json` lists them",
            ));
        };
        places.insert(known.oid, moved.to.clone());
    }
    Ok(places)
}

/// Whether a plan that the log alone leads to may come through where this one did not: an index may have hidden that the target lies
/// before what is missing or damaged.
pub(crate) fn may_be_misled(why: &RestoreError, plan: &Plan) -> bool {
    match why {
        RestoreError::OtherThanPlanned { .. } => true,
        RestoreError::Journal(JournalError::Store(_)) => false,
        RestoreError::LogMissing { .. }
        | RestoreError::Journal(_)
        | RestoreError::Plan(
            PlanError::Damaged { .. }
            | PlanError::Minimal { .. }
            | PlanError::TablespaceInTheWay { .. }
            | PlanError::TablespaceOutside { .. }
            | PlanError::TablespaceNowhere { .. },
        ) => plan.rests_on_index,
        _ => false,
    }
}

/// The plan for people.
pub(crate) fn describe(planned: &Planned, zone: Zone) -> String {
    let Planned { source, store, plan, .. } = planned;
    let mut text = String::new();
    let resolved = &plan.resolved;
    let time = resolved
        .time
        .map_or_else(|| "no commit since the base".to_owned(), |time| zone.show(time, SecondsFormat::AutoSi));
    let xid = resolved.xid.map_or_else(String::new, |xid| format!(", xid {xid}"));
    let record = source.record();
    // Writing to a String does not fail.
    let _ =
        writeln!(text, "from       store {store}, incarnation {} ({})", record.number, record.incarnation);
    for remark in &planned.remarks {
        let _ = writeln!(text, "note       {remark}");
    }
    let asked = match &plan.asked {
        Asked::Time(time) => format!("time {}", zone.show(*time, SecondsFormat::Micros)),
        other => other.to_string(),
    };
    let _ = writeln!(text, "asked      {asked}");
    let _ = writeln!(
        text,
        "resolved   {time}, position {}, timeline {}{xid}",
        resolved.position, resolved.timeline
    );
    let _ = writeln!(
        text,
        "base       {} of {}, {} bytes",
        plan.base.id,
        zone.show_written(&plan.base.finished),
        plan.base.bytes
    );
    if plan.base.is_damaged() {
        let named: Vec<String> =
            plan.base.first_bad_pages.iter().map(|bad| format!("{} page {}", bad.path, bad.page)).collect();
        let _ = writeln!(
            text,
            "DAMAGED    the base has {} pages that were damaged in the source, and no sound base reaches the target: {}",
            plan.base.bad_pages,
            named.join(", ")
        );
    }
    let is_file = matches!(source.shape(), Shape::Sqlite { .. });
    let _ = match is_file {
        true => writeln!(text, "replay     {} bytes of records", plan.replay_bytes),
        false => writeln!(text, "replay     {} bytes in {} segments", plan.replay_bytes, plan.segments),
    };
    let at_most = if is_file { "at most " } else { "" };
    let _ = writeln!(text, "writes     {at_most}{} bytes", plan.writes_bytes);
    if plan.rests_on_index {
        let _ = writeln!(
            text,
            "by         the journal's index; a restore holds the plan against the log as it writes it"
        );
    }
    for prepared in &plan.prepared {
        let _ = writeln!(
            text,
            "prepared   {} stays undecided at the target",
            prepared.name.as_deref().unwrap_or("a transaction")
        );
    }
    for commit in &plan.out_of_order {
        let _ = writeln!(
            text,
            "left out   a commit at {} whose clock time is not later than asked",
            commit.position
        );
    }
    if !is_file {
        let _ = writeln!(
            text,
            "changed    {} settings, so that the copy touches nothing of the source",
            plan.neutralised.len()
        );
    }
    text
}
