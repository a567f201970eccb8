//! Long work: what there is, how far it is, what came of it; asking for it, and ending it.
//!
//! What always holds: a job whose holder has not spoken for a while is shown as unknown, never as running. Work is asked for by putting a job into
//! the catalog's queue, and that is written down under the asker's name; nothing is done here.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::activity::Activity;
use farshore_catalog::job::{Job, JobFilter, JobId, JobKind, JobState, NewJob, Via};
use serde::Deserialize;
use serde_json::Value;

use crate::api::named;
use crate::page::Query;
use crate::pages::frame::{self, Page, Part};
use crate::pages::standing::Level;
use crate::pages::visitor::{Posted, Visitor};
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// After how much silence of its holder a job is no longer called running: as `farshore job list` has it.
const SILENT: Duration = Duration::from_secs(15);
/// Jobs on a page.
const LISTED: u32 = 100;

/// A job as it is shown.
struct Shown {
    id: String,
    kind: &'static str,
    database: Option<String>,
    /// Its state's word; `unknown` of one that is held by who has not been heard of.
    state: &'static str,
    level: Level,
    phase: Option<String>,
    percent: Option<u64>,
    done: Option<String>,
    eta: Option<String>,
    log_time: Option<Moment>,
    asked: Moment,
    began: Option<Moment>,
    ended: Option<Moment>,
    took: Option<String>,
    by: String,
    via: &'static str,
    node: Option<String>,
    attempt: u64,
    cancelled_by: Option<String>,
    problem: Option<Told>,
    result: Option<String>,
    damage: bool,
    ends: bool,
}

/// An operator message.
struct Told {
    code: String,
    happened: String,
    safe: String,
    next: String,
}

fn shown(now: DateTime<Utc>, job: Job) -> Shown {
    // Only for show: clocks of two machines may differ, and nothing is decided by it.
    let silence = (now - job.updated_at).max(TimeDelta::zero()).to_std().unwrap_or_default();
    let state = match job.state.is_held() && silence >= SILENT {
        true => "unknown",
        false => job.state.word(),
    };
    let result: Option<Value> = job.result.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let damage = result.as_ref().is_some_and(|result| result["sound"] == false);
    let progress = &job.progress;
    let done = match (progress.done_bytes, progress.total_bytes) {
        (Some(done), Some(total)) => Some(format!("{} of {}", words::bytes(done), words::bytes(total))),
        (Some(done), None) => Some(words::bytes(done)),
        _ => None,
    };
    let percent =
        progress.done_bytes.zip(progress.total_bytes).filter(|(_, total)| *total > 0).map(|(done, total)| {
            u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total)).unwrap_or(100)
        });
    let took = job.started_at.map(|began| job.finished_at.unwrap_or(now) - began);
    Shown {
        level: level(state, damage),
        id: job.asked.id.to_string(),
        kind: job.asked.kind.word(),
        database: job.asked.database.map(|name| name.to_string()),
        state,
        phase: progress.phase.clone(),
        percent,
        done,
        eta: progress.eta.map(|eta| words::seconds(eta.as_secs_f64())),
        log_time: Moment::maybe(now, progress.log_time),
        asked: Moment::new(now, job.asked_at),
        began: Moment::maybe(now, job.started_at),
        ended: Moment::maybe(now, job.finished_at),
        took: took.map(|took| words::seconds(took.max(TimeDelta::zero()).as_seconds_f64())),
        by: job.asked.asked_by,
        via: job.asked.via.word(),
        node: job.holder.map(|holder| holder.node),
        attempt: job.attempt,
        cancelled_by: job.cancel.map(|(by, _)| by),
        problem: job.problem.as_deref().map(told),
        result: result.map(|result| serde_json::to_string_pretty(&result).unwrap_or_default()),
        damage,
        ends: !job.state.is_ended() && job.state != JobState::Cancelling,
    }
}

fn told(text: &str) -> Told {
    let read: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let part = |key: &str| read[key].as_str().unwrap_or("not said").to_owned();
    // Of another version, or not by us: it is shown as it stands.
    let happened = read["happened"].as_str().unwrap_or(text).to_owned();
    Told { code: part("code"), happened, safe: part("safe"), next: part("do") }
}

/// The shape and hue of a job's state.
fn level(state: &str, damage: bool) -> Level {
    match state {
        "succeeded" if damage => Level::Unprotected,
        "succeeded" | "running" => Level::Protected,
        "failed" => Level::Unprotected,
        "cancelling" => Level::Degraded,
        "queued" | "cancelled" => Level::Paused,
        _ => Level::Unknown,
    }
}

/// Which jobs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    database: String,
    #[serde(default)]
    only: String,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage<'a> {
    database: &'a str,
    unended: bool,
    live: String,
}

#[derive(Template)]
#[template(path = "jobs_live.html")]
struct JobsLive {
    again: String,
    at: i64,
    now: String,
    jobs: Vec<Shown>,
    most: bool,
}

/// The newest jobs.
///
/// # Errors
/// When the catalog is away.
pub async fn list(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let database = asked.database.trim();
    let name = match database {
        "" => None,
        text => Some(named(text, &visitor.who)?),
    };
    let unended = asked.only == "unended";
    let now = Utc::now();
    let filter = JobFilter { database: name, unended, before: None };
    let jobs = web.catalog()?.job_list(&filter, LISTED).await?;
    let most = jobs.len() == LISTED as usize;
    let live = JobsLive {
        again: format!(
            "/jobs?database={}&only={}",
            words::escaped(database),
            if unended { "unended" } else { "" }
        ),
        at: now.timestamp_millis(),
        now: words::full(now),
        jobs: jobs.into_iter().map(|job| shown(now, job)).collect(),
        most,
    };
    let live = render(&live)?;
    if is_part(&headers) {
        return Ok(html(live));
    }
    let body = render(&JobsPage { database, unended, live })?;
    let page = Page { title: "Jobs".to_owned(), part: Part::Jobs, trail: Vec::new(), said: None, body };
    frame::show(&page, &visitor)
}

#[derive(Template)]
#[template(path = "job_live.html")]
struct JobLive<'a> {
    job: Shown,
    at: i64,
    now: String,
    operator: bool,
    csrf: &'a str,
}

/// One job.
///
/// # Errors
/// When there is none of this name, or the catalog is away.
pub async fn show(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = Utc::now();
    let job = web.catalog()?.job_get(job_id(&id)?).await?.ok_or_else(unknown)?;
    let job = shown(now, job);
    let title = format!("{} {}", job.kind, job.id);
    let live = JobLive {
        job,
        at: now.timestamp_millis(),
        now: words::full(now),
        operator: visitor.may(Role::Operator),
        csrf: &visitor.csrf,
    };
    let body = render(&live)?;
    if is_part(&headers) {
        return Ok(html(body));
    }
    let trail = vec![("/jobs".to_owned(), "Jobs".to_owned())];
    frame::show(&Page { title, part: Part::Jobs, trail, said: None, body }, &visitor)
}

fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| unknown())
}

fn unknown() -> Problem {
    Problem::new(Kind::PathUnknown, "the catalog knows no such job")
        .hint("those that ended more than 90 days ago are forgotten")
}

/// Wants a job ended.
///
/// # Errors
/// When there is none, or it has ended already.
pub async fn cancel(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    _form: Posted,
) -> Result<Response, Problem> {
    let id = job_id(&id)?;
    let (catalog, now) = (web.catalog()?, Utc::now());
    let job = catalog.job_get(id).await?.ok_or_else(unknown)?;
    catalog.job_cancel(id, &visitor.who.name, now).await?.ok_or_else(unknown)?;
    let activity = Activity {
        at: now,
        who: visitor.who.name.clone(),
        what: "job cancel".to_owned(),
        database: job.asked.database,
        detail: format!("{} {id}", job.asked.kind),
    };
    written(&web, &activity).await;
    Ok(Redirect::to(&format!("/jobs/{id}")).into_response())
}

/// Asks for a base backup.
///
/// # Errors
/// When there is no such database for whoever asks, or the catalog is away.
pub async fn ask_backup(
    web: State<Shared>,
    visitor: Extension<Visitor>,
    name: Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    ask(web, visitor, name, form, JobKind::Backup).await
}

/// Asks for a verification.
///
/// # Errors
/// As [`ask_backup`].
pub async fn ask_verify(
    web: State<Shared>,
    visitor: Extension<Visitor>,
    name: Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    ask(web, visitor, name, form, JobKind::Verify).await
}

async fn ask(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    _form: Posted,
    kind: JobKind,
) -> Result<Response, Problem> {
    let name = named(&name, &visitor.who)?;
    let (catalog, now) = (web.catalog()?, Utc::now());
    if catalog.database_find(&name).await?.is_none() {
        return Err(farshore_catalog::Error::NoDatabase { name }.into());
    }
    let job = NewJob {
        id: JobId::mint(),
        kind,
        database: Some(name.clone()),
        // Whatever is not said is as it is for all: into each of the database's stores.
        spec: "{}".to_owned(),
        asked_by: visitor.who.name.clone(),
        via: Via::Api,
        wanted_node: None,
    };
    catalog.job_put(&job, None, now).await?;
    let activity = Activity {
        at: now,
        who: visitor.who.name.clone(),
        what: format!("{kind} ask"),
        database: Some(name.clone()),
        detail: job.id.to_string(),
    };
    written(&web, &activity).await;
    Ok(Redirect::to(&format!("/jobs/{}", job.id)).into_response())
}

/// Writes down who did what. What was done is done; that it is not written down is said in the log.
async fn written(web: &Shared, activity: &Activity) {
    let told = match web.catalog() {
        Ok(catalog) => catalog.activity_append(activity).await.map(drop).map_err(Problem::from),
        Err(problem) => Err(problem),
    };
    if let Err(problem) = told {
        tracing::warn!(who = %activity.who, what = %activity.what, "what was done could not be written down: {}", problem.cause());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_another_version_is_shown_as_it_stands() {
        let one = told("{\"code\":\"FS-0417\",\"happened\":\"a\",\"safe\":\"b\",\"do\":\"c\"}");
        assert_eq!(
            (one.code.as_str(), one.happened.as_str(), one.safe.as_str(), one.next.as_str()),
            ("FS-0417", "a", "b", "c")
        );
        assert_eq!(told("no JSON").happened, "no JSON");
        assert_eq!(told("{\"what\":1}").safe, "not said");
    }

    #[test]
    fn a_job_that_nobody_speaks_of_is_never_drawn_as_good() {
        assert_eq!(level("unknown", false), Level::Unknown);
        assert_eq!(level("later", false), Level::Unknown);
        assert_eq!(level("succeeded", true), Level::Unprotected);
        for state in JobState::ALL {
            assert_ne!(level(state.word(), false), Level::Unknown, "{state}");
        }
    }
}
