//! Work that is asked for: its key, its job, and the answer 202.
//!
//! What always holds: the same key and the same work of the same asker are one job, whoever of several services is asked; nothing is answered with 202
//! that is not in the catalog. A body that only reads otherwise (spaces, order) is the same work.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use farshore_catalog::access::Secret;
use farshore_catalog::activity::Activity;
use farshore_catalog::ask::{Ask, Told};
use farshore_catalog::database::Database;
use farshore_catalog::job::{self, JobId, JobKind, JobProgress, JobState, NewJob, Via};
use farshore_journal::DatabaseName;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::api::job::Job;
use crate::api::named;
use crate::auth::Who;
use crate::pages::visitor::Posted;
use crate::problem::{Kind, Problem};
use crate::state::Web;

/// The header that names a question for whoever asks.
pub const KEY: &str = "idempotency-key";

/// The field of a form that does the same.
pub const FORM_KEY: &str = "key";

/// The longest key.
const KEY_BYTES: usize = 200;

/// After how many seconds a job is worth a look.
const LOOK_AGAIN: u32 = 1;

/// The key of a question: judged before anything else of it, so that nothing is said of work that could not be begun.
#[derive(Debug, Clone)]
pub struct Key(String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        key(&parts.headers).map(Self)
    }
}

fn fits(key: &str) -> bool {
    (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let given = headers.get(KEY).map(|value| value.to_str().unwrap_or_default().trim());
    match given {
        Some(key) if fits(key) => Ok(key.to_owned()),
        Some(_) => Err(Problem::new(
            Kind::KeyInvalid,
            format!("`{KEY}` is 1 to {KEY_BYTES} visible ASCII letters without spaces"),
        )),
        None => Err(Problem::new(Kind::KeyMissing, format!("the header `{KEY}` is missing")).hint(
            "make up a new one for each piece of work, and send the same one when you ask again for the same",
        )),
    }
}

/// The database that work is asked for, as far as it is there for whoever asks.
///
/// # Errors
/// [`Kind::DatabaseUnknown`].
pub async fn database(web: &Web, who: &Who, text: &str) -> Result<Database, Problem> {
    let name = named(text, who)?;
    let known = web.catalog()?.database_find(&name).await?;
    known.ok_or_else(|| farshore_catalog::Error::NoDatabase { name }.into())
}

impl Key {
    /// What a form repeats: one for each time that it is shown, so that sending it twice asks once.
    ///
    /// # Errors
    /// [`Kind::KeyMissing`] when it is not one.
    pub fn of_form(posted: &Posted) -> Result<Self, Problem> {
        let given = posted.field(FORM_KEY).filter(|key| fits(key));
        given.map(|key| Self(key.to_owned())).ok_or_else(|| {
            Problem::new(Kind::KeyMissing, "the form is missing the key that keeps it from asking twice")
                .hint("load the page again and send its form")
        })
    }

    /// A new one, for a form.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn mint() -> Result<String, Problem> {
        Ok(Secret::mint()?.text())
    }
}

/// Work that was judged.
pub struct Work<'a, T> {
    /// What is to be done.
    pub kind: JobKind,
    /// To which database.
    pub database: &'a DatabaseName,
    /// What exactly.
    pub spec: &'a T,
    /// The one node that may do it.
    pub node: Option<String>,
}

/// Work that was queued, now or when it was first asked for.
pub struct Queued {
    /// Its job.
    pub job: JobId,
    /// What was answered the first time.
    answer: String,
}

/// Queues work once, and answers with its job.
///
/// # Errors
/// As [`put`].
pub async fn queue<T: Serialize + Sync>(
    web: &Web,
    who: &Who,
    key: Key,
    work: Work<'_, T>,
) -> Result<Response, Problem> {
    let Queued { job, answer } = put(web, who, key, work, "the API").await?;
    Ok(accepted(job, answer))
}

/// The job of this kind that waits or runs for a database already.
///
/// # Errors
/// When the catalog is away.
pub async fn under_way(
    web: &Web,
    kind: JobKind,
    database: &DatabaseName,
) -> Result<Option<job::Job>, Problem> {
    let unended = web.catalog()?.job_unended_of(database).await?;
    let goes_on = |job: &job::Job| matches!(job.state, JobState::Queued | JobState::Running);
    Ok(unended.into_iter().find(|job| job.asked.kind == kind && goes_on(job)))
}

/// Answers with a job that is there.
///
/// # Errors
/// A fault of ours: a job that is no JSON.
pub fn there(found: job::Job) -> Result<Response, Problem> {
    let id = found.asked.id;
    let body = serde_json::to_string(&Job::new(found, Utc::now()));
    let body =
        body.map_err(|why| Problem::new(Kind::Unexpected, "farshore could not do this").because(&why))?;
    Ok(accepted(id, body))
}

/// Queues work once, with its entry in the record of activity and its key in one transaction. `way` says there how it was asked for.
///
/// # Errors
/// When the key stands for something else, as much is queued as may be, and when the catalog is away.
pub async fn put<T: Serialize + Sync>(
    web: &Web,
    who: &Who,
    Key(key): Key,
    work: Work<'_, T>,
    way: &str,
) -> Result<Queued, Problem> {
    let fault =
        |why: serde_json::Error| Problem::new(Kind::Unexpected, "farshore could not do this").because(&why);
    let now = Utc::now();
    let asked = NewJob {
        id: JobId::mint(),
        kind: work.kind,
        database: Some(work.database.clone()),
        spec: serde_json::to_string(work.spec).map_err(fault)?,
        asked_by: who.name.clone(),
        via: Via::Api,
        wanted_node: work.node,
    };
    let meant = [
        asked.kind.word(),
        work.database.as_str(),
        &asked.spec,
        asked.wanted_node.as_deref().unwrap_or_default(),
    ];
    let request = hex::encode(Sha256::digest(meant.join("\n").as_bytes()));
    let answer = serde_json::to_string(&Job::new(queued(&asked, now), now)).map_err(fault)?;
    let activity = Activity {
        at: now,
        who: who.name.clone(),
        what: format!("{} ask", asked.kind),
        database: asked.database.clone(),
        detail: format!("{} via {way}, by {}: {}", asked.id, who.id, asked.spec),
    };
    let id = asked.id;
    let ask = Ask { by: who.id.clone(), key, request, answer, job: asked, activity };
    match web.catalog()?.job_ask(&ask, now).await? {
        Told::First => Ok(Queued { job: id, answer: ask.answer }),
        Told::Again { answer, job } => Ok(Queued { job, answer }),
        Told::Otherwise => Err(Problem::new(
            Kind::KeyUsed,
            "this key stands for other work that you asked for within the last day",
        )
        .hint("make up a new key for each piece of work; a form gets one when its page is loaded")),
    }
}

/// 202, and where the job is.
fn accepted(job: JobId, body: String) -> Response {
    let mut answer = (StatusCode::ACCEPTED, body).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::RETRY_AFTER, LOOK_AGAIN.into());
    if let Ok(place) = HeaderValue::from_str(&format!("/api/v1/jobs/{job}")) {
        headers.insert(header::LOCATION, place);
    }
    answer
}

/// A job as it is once it waits.
fn queued(asked: &NewJob, now: farshore_catalog::Time) -> job::Job {
    job::Job {
        asked: asked.clone(),
        asked_at: now,
        state: JobState::Queued,
        attempt: 0,
        holder: None,
        beat: 0,
        silent: false,
        progress: JobProgress::default(),
        started_at: None,
        finished_at: None,
        updated_at: now,
        cancel: None,
        result: None,
        problem: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_can_stand_in_a_line() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            key(&headers)
        };
        assert_eq!(with("8e03978e-40d5").unwrap(), "8e03978e-40d5");
        for bad in ["", "a b", "ä", &"a".repeat(201)] {
            assert_eq!(with(bad).unwrap_err().kind, Kind::KeyInvalid, "{bad:?}");
        }
        assert_eq!(key(&HeaderMap::new()).unwrap_err().kind, Kind::KeyMissing);
    }
}
