//! What a service does for each kind of job.
//!
//! What always holds: whatever the work comes to, its claim's end is said once. Dropped at a safe point it leaves what
//! `left_behind` says.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::job::{Job, JobId, JobKind, JobProgress};
use farshore_journal::{BackupId, DatabaseName};
use farshore_shipper::base_backup::Phase;
use farshore_shipper::crash_point;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::held::{Held, Reporter};
use super::{restore, spec};
use crate::base_backups::{self, Asked, How, Process, STUCK, Streams, TakeProgress};
use crate::chronicles::damage::{Pages, Shared};
use crate::commands::{self, verify};
use crate::compare;
use crate::config::{Config, StoreName};
use crate::drill;
use crate::expire::{self, Expired, Expiry};
use crate::message::{Code, OperatorMessage, Safe};

/// What it has for its work.
pub(super) struct Means {
    pub(super) config: Arc<Config>,
    pub(super) catalog: Catalog,
    pub(super) streams: Streams,
    /// What verifications found of the record of activity.
    pub(super) activity: Shared,
}

/// Whether a service of this version does such work.
pub(super) const fn is_known(kind: JobKind) -> bool {
    match kind {
        JobKind::Backup
        | JobKind::Verify
        | JobKind::Restore
        | JobKind::Plan
        | JobKind::Preview
        | JobKind::Drill
        | JobKind::Compare
        | JobKind::Expire => true,
        JobKind::Unknown => false,
    }
}

/// Does a job, and says how it ended.
pub(super) async fn does(means: Means, job: Job, held: Held) {
    let (id, kind) = (job.asked.id, job.asked.kind);
    tracing::info!(job = %id, kind = %kind, database = job.asked.database.as_ref().map(ToString::to_string), "a job begins");
    crash_point!("job-claimed");
    let reporter = held.reporter();
    let done = match kind {
        // It removes its copy before it ends.
        JobKind::Drill => held.to_its_end(Box::pin(drill(&means, &job, &reporter, held.stop()))).await,
        // It gives the standby back before it ends.
        JobKind::Compare => held.to_its_end(Box::pin(comparison(&means, &job, &reporter, held.stop()))).await,
        _ => held.beside(Box::pin(run(&means, &job, &reporter))).await,
    };
    if let Some(Err(why)) = &done {
        tracing::error!(job = %id, kind = %kind, "{why}");
    }
    crash_point!("job-done");
    match done {
        Some(done) => held.end_done(done).await,
        None => held.end_stopped().await,
    }
    crash_point!("job-ended");
    tracing::info!(job = %id, kind = %kind, "the job ended");
}

async fn run(means: &Means, job: &Job, reporter: &Reporter) -> Result<String, OperatorMessage> {
    let database = job.asked.database.as_ref().ok_or_else(|| not_readable("it names no database"))?;
    match job.asked.kind {
        JobKind::Backup => backup(means, database, &spec_of(job)?, reporter).await,
        JobKind::Verify => {
            let spec::Verify {} = spec_of(job)?;
            verification(means, (database, job.asked_at), reporter).await
        }
        JobKind::Restore => restore::restored(means, database, &spec_of(job)?, reporter).await,
        JobKind::Plan => restore::plan(means, database, &spec_of(job)?).await,
        JobKind::Expire => {
            let spec::Expire {} = spec_of(job)?;
            let shown = expiry(means, Some(job.asked.id), database).await?;
            expire::result(database, &shown)
        }
        JobKind::Preview => {
            let spec::Preview {} = spec_of(job)?;
            let shown = expiry(means, None, database).await?;
            // That nothing may go of something is an answer too.
            Ok(json!({ "preview": shown }).to_string())
        }
        JobKind::Drill | JobKind::Compare | JobKind::Unknown => {
            Err(OperatorMessage::not_built(job.asked.kind.word()))
        }
    }
}

/// A drill; `None` when it was stopped, and nothing of it is left.
async fn drill(
    means: &Means,
    job: &Job,
    reporter: &Reporter,
    stop: &CancellationToken,
) -> Option<Result<String, OperatorMessage>> {
    let done = async {
        let database = job.asked.database.as_ref().ok_or_else(|| not_readable("it names no database"))?;
        let wanted: spec::Drill = spec_of(job)?;
        let database = commands::database(&means.config, Some(database))?;
        let of = drill::Means { config: &means.config, catalog: Some(&means.catalog), reporter, stop };
        Box::pin(drill::run(of, database, &wanted)).await
    };
    match done.await {
        Ok(None) => None,
        Ok(Some(came)) => Some(drill_result(came)),
        Err(why) => Some(Err(why)),
    }
}

/// A comparison of one standby, or of each; `None` when it was stopped.
async fn comparison(
    means: &Means,
    job: &Job,
    reporter: &Reporter,
    stop: &CancellationToken,
) -> Option<Result<String, OperatorMessage>> {
    let done = async {
        let database = job.asked.database.as_ref().ok_or_else(|| not_readable("it names no database"))?;
        let wanted: spec::Compare = spec_of(job)?;
        let database = commands::database(&means.config, Some(database))?;
        let of =
            compare::Means { config: &means.config, catalog: &means.catalog, by_hand: false, reporter, stop };
        Box::pin(compare::all(of, database, &wanted)).await
    };
    match done.await {
        Ok(None) => None,
        Ok(Some(came)) => Some(compare::outcome::result(&came)),
        Err(why) => Some(Err(why)),
    }
}

/// What came of a drill, as its job's result. One that breached its objective was done, and says so.
///
/// # Errors
/// When the restore or a check failed, or something of it is left to do.
pub fn drill_result(came: drill::outcome::Came) -> Result<String, OperatorMessage> {
    match came.message {
        Some(message) if message.code != Code::DrillBreached => Err(message),
        _ => {
            let said = &came.statement;
            let (recovery, objective) = (said.recovery_us, said.objective_us);
            let result = json!({ "drill": said.drill, "verdict": said.verdict, "store": came.store,
                "recovery_us": recovery, "objective_us": objective, "certified": came.certificate.is_some() });
            Ok(result.to_string())
        }
    }
}

fn spec_of<T: serde::de::DeserializeOwned>(job: &Job) -> Result<T, OperatorMessage> {
    serde_json::from_str(&job.asked.spec).map_err(|why| not_readable(&why.to_string()))
}

pub(super) fn not_readable(why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::JobUnreadable,
        format!("this version does not understand what was asked for: {why}"),
        Safe::Known("nothing was begun".to_owned()),
        "ask for it with the version that does it",
    )
}

/// What an error is for whoever asked.
pub(super) fn message(why: anyhow::Error) -> OperatorMessage {
    match why.downcast::<OperatorMessage>() {
        Ok(message) => message,
        Err(why) => OperatorMessage::new(
            Code::Unexpected,
            format!("it was not begun: {why:#}"),
            Safe::Known("nothing was written".to_owned()),
            "mend what it says, and ask for it again",
        ),
    }
}

/// A base backup into each store that is asked for.
async fn backup(
    means: &Means,
    database: &DatabaseName,
    spec: &spec::Backup,
    reporter: &Reporter,
) -> Result<String, OperatorMessage> {
    let (name, settings) = commands::database(&means.config, Some(database))?;
    let mut taken = Vec::new();
    for store in settings.stores.iter().filter(|store| wanted(store, spec)) {
        let say = |progress: TakeProgress| reporter.say(of_backup(store, &progress));
        let process = Process { streams: &means.streams, catalog: Some(&means.catalog) };
        let asked = Asked { label: "by a job", how: How::said(spec.refresh) };
        let take = base_backups::take(&means.config, name, store, asked, process, STUCK, &say);
        let id = Box::pin(take).await?.id;
        taken.push((store.clone(), id));
    }
    match taken.is_empty() {
        true => Err(not_readable("the store that it names is not one of the database's")),
        false => Ok(backups(&taken)),
    }
}

/// An expiry of a database in all its stores, by its own rule; without a job of its `own`, what it would do.
async fn expiry(
    means: &Means,
    own: Option<JobId>,
    database: &DatabaseName,
) -> Result<Vec<Expired>, OperatorMessage> {
    let (name, settings) = commands::database(&means.config, Some(database))?;
    let retention = settings.retention.as_ref().ok_or_else(|| expire::guard::without_rule(name))?;
    let (config, catalog) = (&*means.config, &means.catalog);
    // More than half at once is a person's word.
    let (grace, yes) = (None, false);
    let expiry = Expiry { config, catalog, name, settings, retention, grace, own, yes };
    let mut shown = Vec::new();
    Box::pin(expiry.run(&mut shown)).await?;
    Ok(shown)
}

/// What backups came of a job, as its result.
pub fn backups(taken: &[(StoreName, BackupId)]) -> String {
    let taken: Vec<_> =
        taken.iter().map(|(store, id)| json!({ "store": store.as_str(), "backup": id })).collect();
    json!({ "backups": taken }).to_string()
}

fn wanted(store: &StoreName, spec: &spec::Backup) -> bool {
    spec.store.as_deref().is_none_or(|wanted| wanted == store.as_str())
}

/// How far a base backup is.
pub fn of_backup(store: &StoreName, progress: &TakeProgress) -> JobProgress {
    let phase = match progress.phase {
        Phase::Checkpoint => "waiting for the server's checkpoint".to_owned(),
        Phase::Copying => format!("copying into {store}"),
        Phase::Storing => format!("storing into {store}"),
        Phase::WaitingForLog(end) => format!("waiting until {store} holds the log up to {end}"),
        Phase::Claiming => format!("completing it in {store}"),
    };
    JobProgress {
        phase: Some(phase),
        done_bytes: Some(progress.taken_bytes),
        total_bytes: progress.total_bytes,
        ..JobProgress::default()
    }
}

/// A verification of all that a database has.
async fn verification(
    means: &Means,
    (database, asked_at): (&DatabaseName, DateTime<Utc>),
    reporter: &Reporter,
) -> Result<String, OperatorMessage> {
    let (name, settings) = commands::database(&means.config, Some(database))?;
    let pages = Pages::asked_for(Some(&means.catalog), means.activity.clone(), asked_at).await;
    let found =
        Box::pin(verify::verified(&means.config, (name, settings), Some(&means.catalog), reporter, &pages))
            .await;
    match found.summary() {
        Ok(summary) => Ok(summary.to_string()),
        Err(why) => Err(why),
    }
}
