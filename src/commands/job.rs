//! `farshore job`: what long work there is, how far it is and what came of it; and how it is ended.
//!
//! What always holds: a job whose holder has not spoken for a while is shown as `unknown`, never as running.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::job::{Job, JobFilter, JobId, JobState};
use farshore_journal::DatabaseName;
use serde::Serialize;
use serde_json::Value;

use crate::cli::job::JobCommand;
use crate::cli::zone::Zone;
use crate::commands::Context;
use crate::config::Config;
use crate::exit::Exit;
use crate::jobs::spec;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::wiring;

/// How often `watch` looks.
const WATCH: Duration = Duration::from_millis(500);
/// Jobs that are listed.
const LISTED: u32 = 50;

/// One job, as `-o json` shows it.
#[derive(Debug, Serialize)]
pub struct Shown {
    id: String,
    kind: &'static str,
    database: Option<DatabaseName>,
    /// A job's state, or `unknown` of one that is held by who has not been heard of.
    state: &'static str,
    phase: Option<String>,
    done_bytes: Option<u64>,
    total_bytes: Option<u64>,
    log_time: Option<DateTime<Utc>>,
    eta_seconds: Option<f64>,
    asked_by: String,
    asked_via: &'static str,
    asked_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    node: Option<String>,
    wanted_node: Option<String>,
    attempt: u64,
    cancelled_by: Option<String>,
    spec: Value,
    result: Option<Value>,
    problem: Option<Value>,
}

impl Shown {
    /// As it stands at a moment.
    fn new(job: Job, now: DateTime<Utc>) -> Self {
        let state = job.word(now);
        let json = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            id: job.asked.id.to_string(),
            kind: job.asked.kind.word(),
            database: job.asked.database,
            state,
            phase: job.progress.phase,
            done_bytes: job.progress.done_bytes,
            total_bytes: job.progress.total_bytes,
            log_time: job.progress.log_time,
            eta_seconds: job.progress.eta.map(|eta| eta.as_secs_f64()),
            asked_by: job.asked.asked_by,
            asked_via: job.asked.via.word(),
            asked_at: job.asked_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            node: job.holder.map(|holder| holder.node),
            wanted_node: job.asked.wanted_node,
            attempt: job.attempt,
            cancelled_by: job.cancel.map(|(by, _)| by),
            spec: json(job.asked.spec),
            result: job.result.map(json),
            problem: job.problem.map(json),
        }
    }

    /// Whether it was done, and what it found is not well.
    fn found_damage(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result["sound"] == false)
    }

    /// Whether it was done, and took longer than its objective allows.
    fn breached(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result["verdict"] == "breached")
    }

    fn percent(&self) -> String {
        match (self.done_bytes, self.total_bytes) {
            (Some(done), Some(total)) if total > 0 => {
                format!("{} %", u128::from(done) * 100 / u128::from(total))
            }
            (Some(done), _) => format!("{} MB", done / 1_000_000),
            _ => "-".to_owned(),
        }
    }

    /// All of it, for people.
    fn text(&self, zone: Zone) -> String {
        let time = |time: Option<DateTime<Utc>>| {
            time.map_or_else(|| "-".to_owned(), |time| zone.show(time, SecondsFormat::Secs))
        };
        let mut lines = vec![
            ("job", format!("{}, {}", self.id, self.kind)),
            ("database", self.database.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
            ("state", self.state.to_owned()),
            ("asked", format!("{} by {}, via {}", time(Some(self.asked_at)), self.asked_by, self.asked_via)),
            ("began", time(self.started_at)),
            ("ended", time(self.finished_at)),
        ];
        if let Some(node) = &self.node {
            lines.push(("done by", format!("{node}, attempt {}", self.attempt)));
        } else if let Some(node) = &self.wanted_node {
            lines.push(("waits for", node.clone()));
        }
        if let Some(phase) = &self.phase {
            let eta = self.eta_seconds.map_or_else(String::new, |eta| format!(", {eta:.0} s left"));
            lines.push(("doing", format!("{phase} ({}{eta})", self.percent())));
        }
        if let Some(by) = &self.cancelled_by {
            lines.push(("cancelled", format!("by {by}")));
        }
        lines.push(("spec", self.spec.to_string()));
        if let Some(result) = &self.result {
            lines.push(("result", result.to_string()));
        }
        if let Some(problem) = &self.problem {
            let part = |key: &str| problem[key].as_str().unwrap_or("-").to_owned();
            lines.push(("problem", format!("{} {}", part("code"), part("happened"))));
            lines.push(("safe", part("safe")));
            lines.push(("do", part("do")));
        }
        lines.iter().map(|(what, text)| format!("{what:<10} {text}\n")).collect()
    }
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["JOB", "KIND", "DATABASE", "STATE", "DONE", "ASKED (UTC)", "BY", "NODE", "PHASE"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let breached =
            self.breached().then_some("OBJECTIVE BREACHED: `farshore drill show` says by how much");
        let damage = self.found_damage().then_some("NOT SOUND: `farshore job show` says what").or(breached);
        let problem = self.problem.as_ref().and_then(|problem| problem["happened"].as_str()).or(damage);
        vec![
            self.id.clone(),
            self.kind.to_owned(),
            or_none(self.database.as_ref().map(DatabaseName::as_str)),
            self.state.to_owned(),
            self.percent(),
            zone.show(self.asked_at, SecondsFormat::Secs),
            self.asked_by.clone(),
            or_none(self.node.as_deref()),
            or_none(problem.or(self.phase.as_deref())),
        ]
    }
}

/// Runs it. `watch` ends as the job did: 0 when it succeeded, 9 when it did and found damage, 8 when it did and breached an objective, 1 when it failed, 130 when it was cancelled.
///
/// # Errors
/// When there is no such job, it has ended already, or the catalog is away.
pub async fn run(context: &mut Context, command: JobCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let catalog = wiring::catalog(&config).await?;
    match command {
        JobCommand::List { database, unended } => {
            let filter = JobFilter { database, unended, before: None };
            let jobs = catalog.job_list(&filter, LISTED).await.map_err(away)?;
            let now = Utc::now();
            let shown: Vec<Shown> = jobs.into_iter().map(|job| Shown::new(job, now)).collect();
            context.output.list("farshore.job-list/1", &shown)?;
            Ok(Exit::Done)
        }
        JobCommand::Show { job } => {
            let shown = Shown::new(one(&catalog, job).await?, Utc::now());
            let text = shown.text(context.output.zone());
            context.output.one("farshore.job/1", &shown, &text)?;
            Ok(Exit::Done)
        }
        JobCommand::Watch { job } => watch(context, &catalog, job).await,
        JobCommand::Cancel { job } => cancel(context, &catalog, job).await,
    }
}

async fn watch(context: &mut Context, catalog: &Catalog, id: JobId) -> anyhow::Result<Exit> {
    let mut said = None;
    loop {
        let looked = one(catalog, id).await;
        let job = match looked {
            Ok(job) => job,
            // It may come back, and the job goes on meanwhile.
            Err(why) if why.code == Code::CatalogAway && said.is_some() => {
                tracing::warn!("{}", why.happened);
                tokio::select! {
                    () = context.cancel.cancelled() => return Ok(Exit::Interrupted),
                    () = tokio::time::sleep(WATCH) => continue,
                }
            }
            Err(why) => return Err(why.into()),
        };
        let state = job.state;
        let shown = Shown::new(job, Utc::now());
        let now = (shown.state, shown.phase.clone());
        if !state.is_ended() && said.as_ref() != Some(&now) {
            tracing::info!(job = %id, state = shown.state, phase = shown.phase, done = shown.percent(), "watching");
            said = Some(now);
        }
        if state.is_ended() {
            let text = shown.text(context.output.zone());
            context.output.one("farshore.job/1", &shown, &text)?;
            return Ok(match state {
                JobState::Succeeded if shown.found_damage() => Exit::Findings,
                JobState::Succeeded if shown.breached() => Exit::Breached,
                JobState::Succeeded => Exit::Done,
                JobState::Cancelled => Exit::Interrupted,
                _ => Exit::Failed,
            });
        }
        tokio::select! {
            () = context.cancel.cancelled() => return Ok(Exit::Interrupted),
            () = tokio::time::sleep(WATCH) => {}
        }
    }
}

async fn cancel(context: &mut Context, catalog: &Catalog, id: JobId) -> anyhow::Result<Exit> {
    match catalog.job_cancel(id, &spec::user(), Utc::now()).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(unknown(id).into()),
        Err(farshore_catalog::Error::Conflict { reason, .. }) => {
            return Err(OperatorMessage::new(
                Code::JobEnded,
                format!("the job {id} was not cancelled: {reason}"),
                Safe::Known("nothing was changed".to_owned()),
                format!("`farshore job show {id}` says what came of it"),
            )
            .into());
        }
        Err(why) => return Err(away(why).into()),
    }
    let shown = Shown::new(one(catalog, id).await?, Utc::now());
    let text = shown.text(context.output.zone());
    context.output.one("farshore.job/1", &shown, &text)?;
    Ok(Exit::Done)
}

/// Puts a job into the queue, for a service that has the database, and says its name.
///
/// # Errors
/// When the catalog is away.
pub async fn queue(
    context: &mut Context,
    config: &Config,
    job: farshore_catalog::job::NewJob,
) -> anyhow::Result<Exit> {
    let catalog = wiring::catalog(config).await?;
    catalog.job_put(&job, None, Utc::now()).await.map_err(away)?;
    let shown = Shown::new(one(&catalog, job.id).await?, Utc::now());
    let text = format!("{}\n", job.id);
    context.output.one("farshore.job/1", &shown, &text)?;
    tracing::info!("`farshore job watch {}` follows it", job.id);
    Ok(Exit::Done)
}

async fn one(catalog: &Catalog, id: JobId) -> Result<Job, OperatorMessage> {
    catalog.job_get(id).await.map_err(away)?.ok_or_else(|| unknown(id))
}

fn unknown(id: JobId) -> OperatorMessage {
    OperatorMessage::new(
        Code::JobUnknown,
        format!("the catalog knows no job {id}"),
        Safe::Known("nothing was changed".to_owned()),
        "`farshore job list` shows those there are; a catalog that was rebuilt knows none of before",
    )
}

#[allow(clippy::needless_pass_by_value)] // it stands where a closure would
fn away(why: farshore_catalog::Error) -> OperatorMessage {
    wiring::catalog_away(&why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use farshore_catalog::job::{Holder, JobKind, JobProgress};

    fn job(state: JobState, age: i64) -> Job {
        let now = Utc::now();
        Job {
            asked: spec::asked(JobKind::Backup, Some(&"orders".parse().unwrap()), &spec::Backup::default()),
            asked_at: now,
            state,
            attempt: 1,
            holder: Some(Holder { node: "oslo-1".to_owned(), process: String::new() }),
            beat: 3,
            silent: false,
            progress: JobProgress { done_bytes: Some(30), total_bytes: Some(40), ..JobProgress::default() },
            started_at: Some(now),
            finished_at: None,
            updated_at: now - TimeDelta::seconds(age),
            cancel: None,
            result: None,
            problem: Some("{\"code\":\"FS-0404\",\"happened\":\"the store is full\"}".to_owned()),
        }
    }

    #[test]
    fn a_verification_that_found_damage_is_not_shown_as_well() {
        let ended = |result: &str| {
            let result = Some(result.to_owned());
            Shown::new(Job { result, problem: None, ..job(JobState::Succeeded, 0) }, Utc::now())
        };
        let found = ended("{\"sound\":false}");
        assert!(found.found_damage() && found.cells(Zone::UTC)[8].starts_with("NOT SOUND"));
        let well = ended("{\"sound\":true}");
        assert!(!well.found_damage() && well.cells(Zone::UTC)[8] == "-");
        let breached = ended("{\"verdict\":\"breached\"}");
        assert!(breached.breached() && breached.cells(Zone::UTC)[8].starts_with("OBJECTIVE BREACHED"));
        assert!(!ended("{\"verdict\":\"passed\"}").breached());
    }

    #[test]
    fn a_job_whose_holder_is_not_heard_of_is_shown_as_unknown_and_an_ended_one_as_it_ended() {
        let shown = |state, age| Shown::new(job(state, age), Utc::now()).state;
        assert_eq!(shown(JobState::Running, 3), "running");
        assert_eq!(shown(JobState::Running, 20), "unknown");
        assert_eq!(shown(JobState::Cancelling, 20), "unknown");
        assert_eq!(shown(JobState::Queued, 2000), "queued");
        assert_eq!(shown(JobState::Succeeded, 2000), "succeeded");
    }

    #[test]
    fn a_jobs_row_says_how_far_it_is_and_why_it_failed() {
        let shown = Shown::new(job(JobState::Failed, 0), Utc::now());
        let cells = shown.cells(Zone::UTC);
        assert_eq!(cells.len(), Shown::HEADER.len());
        assert_eq!((cells[3].as_str(), cells[4].as_str()), ("failed", "75 %"));
        assert_eq!(cells[8], "the store is full");
        assert!(shown.text(Zone::UTC).contains("problem    FS-0404 the store is full"));
    }
}
