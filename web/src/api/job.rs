//! `/jobs`: long work, how far it is and what came of it; and how it is ended.
//!
//! What always holds: a job whose holder has not spoken for a while is `unknown`, never running; a job of a database that is not there for whoever
//! asks is not there either.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, OriginalUri, Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use farshore_catalog::activity::{Activity, activity_append_in_txn};
use farshore_catalog::job::{self as known, JobFilter, JobId, JobState, job_cancel_in_txn};
use farshore_catalog::{Catalog, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::answer;
use crate::api::database::NoParameters;
use crate::api::named;
use crate::auth::Who;
use crate::guard::Turn;
use crate::page::{self, Page, Query};
use crate::problem::{Kind, Problem};
use crate::state::{Shared, Web};

const LIST: &str = "jobs";

/// The longest that a caller waits for a job.
const WAIT: u64 = 30;
/// How often it is looked meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Of this database; of all that may be seen when not given.
    database: Option<String>,
    /// Only those that have not ended.
    #[serde(default)]
    unended: bool,
    /// The most items, 1 to 1000; 100 when not given.
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// How long to wait for a job.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// The most seconds to wait, 1 to 30, until the job has ended, or with `If-None-Match` until it is another than that.
    wait: Option<u64>,
}

/// Long work.
#[derive(Debug, Serialize, ToSchema)]
pub struct Job {
    /// Its name.
    pub id: String,
    /// What is done: `backup`, `restore`, `verify`, `plan`, `drill`, `expire`; `unknown` what only a later version does.
    pub kind: String,
    /// To which database.
    pub database: Option<String>,
    /// `queued`, `running`, `cancelling`, `succeeded`, `failed` or `cancelled`; `unknown` while who does it is not heard of.
    pub state: String,
    /// What is being done now, in a word or two.
    pub phase: Option<String>,
    /// Bytes done.
    pub done_bytes: Option<u64>,
    /// Bytes in all.
    pub total_bytes: Option<u64>,
    /// Of the bytes in all; null where those are not known.
    pub percent: Option<f64>,
    /// The commit time that has been reached in the log.
    pub log_time: Option<DateTime<Utc>>,
    /// How long its phase will take yet at the pace so far.
    pub eta_seconds: Option<f64>,
    /// Who asked: a user, a token's name, a schedule.
    pub asked_by: String,
    /// How: `command`, `queue`, `api` or `schedule`.
    pub asked_via: String,
    /// When.
    pub asked_at: DateTime<Utc>,
    /// When it was first begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The node that does it, or did it last.
    pub node: Option<String>,
    /// The one node that may do it.
    pub wanted_node: Option<String>,
    /// How often it was begun.
    pub attempt: u64,
    /// Who wanted it ended.
    pub cancelled_by: Option<String>,
    /// What exactly was asked for.
    #[schema(value_type = Object)]
    pub spec: Value,
    /// What came of it, when it succeeded.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// Why it failed or what it left: `code`, `happened`, `safe`, `do`.
    #[schema(value_type = Option<Object>)]
    pub problem: Option<Value>,
}

impl Job {
    /// As it stands at a moment.
    pub fn new(job: known::Job, now: DateTime<Utc>) -> Self {
        let state = job.word(now).to_owned();
        let known::Job {
            asked,
            asked_at,
            state: _,
            attempt,
            holder,
            beat: _,
            silent: _,
            progress,
            started_at,
            finished_at,
            updated_at: _,
            cancel,
            result,
            problem,
        } = job;
        let known::NewJob { id, kind, database, spec, asked_by, via, wanted_node } = asked;
        let known::JobProgress { phase, done_bytes, total_bytes, log_time, eta } = progress;
        Self {
            id: id.to_string(),
            kind: kind.word().to_owned(),
            database: database.map(|name| name.to_string()),
            state,
            phase,
            done_bytes,
            total_bytes,
            percent: percent(done_bytes, total_bytes),
            log_time,
            eta_seconds: eta.map(|eta| eta.as_secs_f64()),
            asked_by,
            asked_via: via.word().to_owned(),
            asked_at,
            started_at,
            finished_at,
            node: holder.map(|holder| holder.node),
            wanted_node,
            attempt,
            cancelled_by: cancel.map(|(by, _)| by),
            spec: object(&spec),
            result: result.as_deref().map(object),
            problem: problem.as_deref().map(object),
        }
    }
}

/// What the catalog keeps as JSON; what is none is shown as the text that it is.
fn object(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Value::Object(fields),
        _ => serde_json::json!({ "text": text }),
    }
}

fn percent(done: Option<u64>, total: Option<u64>) -> Option<f64> {
    let (done, total) = (done?, total.filter(|total| *total > 0)?);
    let tenths = u128::from(done.min(total)) * 1000 / u128::from(total);
    // At most a thousand.
    u32::try_from(tenths).ok().map(|tenths| f64::from(tenths) / 10.0)
}

/// Jobs, newest first
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Job>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)?;
    let database = match &asked.database {
        Some(text) => Some(named(text, &who)?),
        None => who.database.clone(),
    };
    let before = asked.cursor.map(|cursor| page::moment(LIST, &cursor)).transpose()?;
    let filter = JobFilter { database, unended: asked.unended, before };
    let found = web.catalog()?.job_list(&filter, limit).await?;
    // One that is full may be the last: the page behind it is empty then.
    let last = found.last().filter(|_| found.len() == limit as usize);
    let place = last.map(|last| (last.asked_at.timestamp_micros(), last.asked.id.to_string()));
    let next_cursor = place.map(|place| page::cursor(LIST, &place)).transpose()?;
    let now = Utc::now();
    let items = found.into_iter().map(|job| Job::new(job, now)).collect();
    Ok(page::answer(&uri, &["limit", "database", "unended"], items, next_cursor))
}

/// One job
///
/// With `wait` the answer comes once the job has ended, or with `If-None-Match` once it is another than the caller has; or as it stands when that took
/// too long.
#[utoipa::path(
    get,
    path = "/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job's name", example = "jb-0000000001"), Wait),
    responses(
        (status = 200, description = "How it stands", body = Job),
        (status = 304, description = "As the caller has it already"))
)]
pub async fn show(
    State(web): State<Shared>,
    who: Who,
    Extension(turn): Extension<Turn>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Query(asked): Query<Wait>,
) -> Result<Response, Problem> {
    let wait = match asked.wait {
        None => Duration::ZERO,
        Some(seconds @ 1..=WAIT) => Duration::from_secs(seconds),
        Some(_) => return Err(Problem::invalid("wait", "is 1 to 30")),
    };
    // Where as many wait as may, the answer is how it stands now.
    let place = web.waiting.try_acquire().ok();
    let until = Instant::now() + if place.is_some() { wait } else { Duration::ZERO };
    loop {
        let job = one(&web, &who, &id).await?;
        let has_ended = job.state.is_ended();
        let answer = answer::one(&headers, &Job::new(job, Utc::now()))?;
        let has_it = answer.status() == axum::http::StatusCode::NOT_MODIFIED;
        let asks_for_change = headers.contains_key(axum::http::header::IF_NONE_MATCH);
        if has_ended || (asks_for_change && !has_it) || Instant::now() + LOOK > until {
            return Ok(answer);
        }
        // Whoever waits keeps nobody else from asking.
        turn.give_back();
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = web.here.stop.cancelled() => return Ok(answer),
        }
        turn.take(&web).await;
    }
}

/// What came of a job
#[utoipa::path(
    get,
    path = "/jobs/{id}/result",
    tag = "jobs",
    params(("id" = String, Path, description = "The job's name", example = "jb-0000000001")),
    responses(
        (status = 200, description = "It succeeded; what came of it", body = Outcome),
        (status = 424, description = "It failed, or was cancelled; `job_problem` says why and what it left", body = crate::problem::Body,
            content_type = "application/problem+json"))
)]
pub async fn result(
    State(web): State<Shared>,
    who: Who,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let job = one(&web, &who, &id).await?;
    let kind = match job.state {
        JobState::Queued | JobState::Running | JobState::Cancelling => {
            return Err(Problem::new(
                Kind::JobNotFinished,
                format!("the job {id} is {}", job.word(Utc::now())),
            )
            .hint(format!("GET /api/v1/jobs/{id}?wait=30 waits for it")));
        }
        JobState::Succeeded => {
            let result = job.result.as_deref().map_or(Value::Null, object);
            return Ok(Json(Outcome { id, kind: job.asked.kind.word().to_owned(), result }).into_response());
        }
        JobState::Failed => Kind::JobFailed,
        JobState::Cancelled => Kind::JobCancelled,
    };
    let said = job.problem.as_deref().map(object);
    let part = |key: &str| said.as_ref().and_then(|said| said[key].as_str()).map(str::to_owned);
    let cancelled = || match job.cancel {
        Some((by, _)) => format!("the job was cancelled by {by} before it was begun"),
        None => "the job was not done".to_owned(),
    };
    let mut problem = Problem::new(kind, part("happened").unwrap_or_else(cancelled));
    if let Some(next) = part("do") {
        problem = problem.hint(next);
    }
    Err(problem.of_job(said))
}

/// What came of a job that succeeded.
#[derive(Debug, Serialize, ToSchema)]
pub struct Outcome {
    /// The job's name.
    pub id: String,
    /// What was done.
    pub kind: String,
    /// What came of it.
    #[schema(value_type = Object)]
    pub result: Value,
}

/// End a job
///
/// A wish: what waits is cancelled at once, what runs ends at its next safe point and says what it left.
#[utoipa::path(
    post,
    path = "/jobs/{id}/cancel",
    tag = "jobs",
    params(("id" = String, Path, description = "The job's name", example = "jb-0000000001")),
    responses(
        (status = 200, description = "How it stands now", body = Job),
        (status = 409, description = "It has ended already", body = crate::problem::Body, content_type = "application/problem+json"))
)]
pub async fn cancel(
    State(web): State<Shared>,
    who: Who,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let job = one(&web, &who, &id).await?;
    let catalog = web.catalog()?;
    match cancelled(catalog, &who, &job, "the API").await {
        Ok(true) => {}
        Ok(false) => return Err(unknown()),
        Err(Error::Conflict { reason, .. }) => {
            return Err(Problem::new(Kind::JobEnded, format!("the job {id} was not cancelled: {reason}"))
                .hint(format!("GET /api/v1/jobs/{id}/result says what came of it")));
        }
        Err(why) => return Err(why.into()),
    }
    let job = one(&web, &who, &id).await?;
    Ok(Json(Job::new(job, Utc::now())).into_response())
}

/// The wish and its entry in the record of activity, in one transaction. Whether there is such a job.
///
/// # Errors
/// [`Error::Conflict`] when it has ended already.
pub async fn cancelled(
    catalog: &Catalog,
    who: &Who,
    job: &known::Job,
    way: &str,
) -> farshore_catalog::Result<bool> {
    let now = Utc::now();
    let mut txn = catalog.begin_local().await?;
    let Some(state) = job_cancel_in_txn(&mut txn, job.asked.id, &who.name, now).await? else {
        return Ok(false);
    };
    let activity = Activity {
        at: now,
        who: who.name.clone(),
        what: "job cancel".to_owned(),
        database: job.asked.database.clone(),
        detail: format!("{}, a {}, is {state}; via {way}, by {}", job.asked.id, job.asked.kind, who.id),
    };
    activity_append_in_txn(&mut txn, &activity).await?;
    txn.commit().await?;
    Ok(true)
}

/// A job that is there for whoever asks.
///
/// # Errors
/// [`Kind::JobUnknown`].
pub async fn one(web: &Web, who: &Who, text: &str) -> Result<known::Job, Problem> {
    let id: JobId = text.parse().map_err(|_| unknown())?;
    let found = web.catalog()?.job_get(id).await?;
    let seen = |job: &known::Job| match &job.asked.database {
        Some(database) => who.sees(database),
        None => who.database.is_none(),
    };
    found.filter(seen).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(Kind::JobUnknown, "the catalog knows no such job")
        .hint("GET /api/v1/jobs lists those there are")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_is_done_is_said_only_where_all_of_it_is_known() {
        assert_eq!(percent(Some(1), Some(3)), Some(33.3));
        assert_eq!(percent(Some(5), Some(3)), Some(100.0));
        assert_eq!(percent(Some(u64::MAX), Some(u64::MAX)), Some(100.0));
        for (done, total) in [(None, Some(3)), (Some(1), None), (Some(0), Some(0))] {
            assert_eq!(percent(done, total), None);
        }
    }
}
