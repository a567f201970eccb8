//! Long work: what there is, how far it is, what came of it, and what to do next. `asking` asks for it and ends it.
//!
//! What always holds: a job whose holder has not spoken for a while is shown as unknown, never as running.

mod after;
pub mod asking;
mod expiry;

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::job::{Job, JobFilter, JobState};
use serde::Deserialize;
use serde_json::Value;

use self::after::After;
use crate::api::{job, named};
use crate::ask::Key;
use crate::page::Query;
use crate::pages::frame::{self, Page, Part};
use crate::pages::standing::Level;
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::Problem;
use crate::state::Shared;

/// After how much silence of its holder a job is no longer called running: as `farshore job list` has it.
const SILENT: Duration = Duration::from_secs(15);
/// For how long what an expiry would do is worth acting on.
const FRESH: TimeDelta = TimeDelta::minutes(15);
/// Jobs on a page.
const LISTED: u32 = 100;

/// A job as it is shown.
pub struct Shown {
    /// Its name.
    pub id: String,
    /// What is done.
    pub kind: &'static str,
    /// To which database.
    pub database: Option<String>,
    /// Its state's word; `unknown` of one that is held by who has not been heard of.
    pub state: &'static str,
    /// Its shape and hue.
    pub level: Level,
    /// What is being done now.
    pub phase: Option<String>,
    /// How much of it, where all of it is known.
    pub percent: Option<u64>,
    /// How much, in words.
    pub done: Option<String>,
    /// How long its phase takes yet.
    pub eta: Option<String>,
    /// The commit time that was reached in the log.
    pub log_time: Option<Moment>,
    /// When it was asked for.
    pub asked: Moment,
    /// When it was first begun.
    pub began: Option<Moment>,
    /// When it ended.
    pub ended: Option<Moment>,
    /// How long it took so far.
    pub took: Option<String>,
    /// Who asked.
    pub by: String,
    /// How.
    pub via: &'static str,
    /// Who does it, or did it last.
    pub node: Option<String>,
    /// How often it was begun.
    pub attempt: u64,
    /// Who wanted it ended.
    pub cancelled_by: Option<String>,
    /// Why it failed, or what it left.
    pub problem: Option<Told>,
    /// What came of it.
    pub result: Option<String>,
    /// Whether what it found is not sound.
    pub damage: bool,
    /// Whether it can be ended yet.
    pub ends: bool,
}

/// An operator message.
pub struct Told {
    /// Its code.
    pub code: String,
    /// What happened.
    pub happened: String,
    /// What is safe.
    pub safe: String,
    /// What to do.
    pub next: String,
}

/// A job, as it is shown now.
pub fn shown(now: DateTime<Utc>, job: Job) -> Shown {
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
    /// It will not change any more: whoever marks and copies from it is not disturbed.
    settled: bool,
    next: Option<After>,
    /// What an expiry did, or would do.
    expiry: Option<expiry::Shown>,
    /// Whether that was a moment ago.
    fresh: bool,
    at: i64,
    now: String,
    operator: bool,
    admin: bool,
    csrf: &'a str,
    key: String,
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
    let job = job::one(&web, &visitor.who, &id).await?;
    let next = after::after(&job);
    let fresh = job.finished_at.is_some_and(|ended| now - ended < FRESH);
    let result: Option<Value> = job.result.as_deref().and_then(|text| serde_json::from_str(text).ok());
    // One that was called failed because nothing was heard of it may yet say how it really ended.
    let settled = matches!(job.state, JobState::Succeeded | JobState::Cancelled);
    let job = shown(now, job);
    let title = format!("{} {}", job.kind, job.id);
    let live = JobLive {
        job,
        settled,
        next,
        expiry: result.as_ref().and_then(expiry::shown),
        fresh,
        at: now.timestamp_millis(),
        now: words::full(now),
        operator: visitor.may(Role::Operator),
        admin: visitor.may(Role::Admin),
        csrf: &visitor.csrf,
        key: Key::mint()?,
    };
    let body = render(&live)?;
    if is_part(&headers) {
        return Ok(html(body));
    }
    let trail = vec![("/jobs".to_owned(), "Jobs".to_owned())];
    frame::show(&Page { title, part: Part::Jobs, trail, said: None, body }, &visitor)
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
