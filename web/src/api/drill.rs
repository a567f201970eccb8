//! `/drills`: rehearsed recoveries, what each came to, its certificate; and asking for one.
//!
//! What always holds: what was not measured or not looked at is null or says so, and is never called passed; a certificate is given out only while its signature is of the text
//! that the catalog has. Whether its key counts is for whoever reads it to judge, with the public key.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use farshore_catalog::drill::{Drill as Known, DrillFilter};
use farshore_catalog::job::{JobKind, spec};
use farshore_journal::DrillId;
use farshore_journal::format::{HeadStanding, VerifyKeys};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::api::database::NoParameters;
use crate::api::job::Job;
use crate::api::named;
use crate::api::plan::history;
use crate::ask::{self, Key, Work};
use crate::auth::Who;
use crate::body;
use crate::page::{self, Page, Query};
use crate::problem::{Kind, Problem};
use crate::state::{Shared, Web};

const LIST: &str = "drills";

/// The longest text that names a point.
const POINT_BYTES: usize = 100;

/// Which drills.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Of this database; of all that may be seen when not given.
    database: Option<String>,
    /// The most items, 1 to 1000; 100 when not given.
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A drill.
#[derive(Debug, Serialize, ToSchema)]
pub struct Drill {
    /// Its id.
    pub id: String,
    /// Its database.
    pub database: String,
    /// The incarnation that it restored.
    pub incarnation: String,
    /// The store that it read.
    pub store: String,
    /// `passed`, `breached` (passed, and took longer than the objective) or `failed`.
    pub verdict: String,
    /// When it began.
    pub began_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: DateTime<Utc>,
    /// How long the recovery took; null when it was not come to its end.
    pub recovery_seconds: Option<f64>,
    /// How long it might take; null where nothing was stated.
    pub objective_seconds: Option<f64>,
    /// Whether it has a certificate.
    pub certified: bool,
    /// Why it has none.
    pub uncertified: Option<String>,
    /// The public key that signed it.
    pub signing_key: Option<String>,
}

/// A drill, with all that it says.
#[derive(Debug, Serialize, ToSchema)]
pub struct DrillShown {
    /// What lists have of it.
    pub drill: Drill,
    /// Its statement: point, target, phases, checks, tables, machine. Null where what the catalog has does not read.
    #[schema(value_type = Option<Object>)]
    pub statement: Option<Value>,
}

impl Drill {
    fn new(drill: &Known) -> Self {
        Self {
            id: drill.id.to_string(),
            database: drill.database.to_string(),
            incarnation: drill.incarnation.to_string(),
            store: drill.store.clone(),
            verdict: drill.verdict.word().to_owned(),
            began_at: drill.began,
            ended_at: drill.ended,
            recovery_seconds: drill.recovery.map(|time| time.as_secs_f64()),
            objective_seconds: drill.objective.map(|time| time.as_secs_f64()),
            certified: drill.signed.is_some(),
            uncertified: drill.uncertified.clone(),
            signing_key: drill.signed.map(|(key, _)| key.to_string()),
        }
    }
}

/// Drills, newest first
#[utoipa::path(get, path = "/drills", tag = "drills", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Drill>)))]
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
    let filter = DrillFilter { database, since: None, before };
    let found = web.catalog()?.drill_list(&filter, limit).await?;
    // A page that is full may be the last: the one behind it is empty then.
    let last = found.last().filter(|_| found.len() == limit as usize);
    let place = last.map(|last| (last.began.timestamp_micros(), last.id.to_string()));
    let next_cursor = place.map(|place| page::cursor(LIST, &place)).transpose()?;
    let items = found.iter().map(Drill::new).collect();
    Ok(page::answer(&uri, &["limit", "database"], items, next_cursor))
}

/// One drill
#[utoipa::path(
    get,
    path = "/drills/{id}",
    tag = "drills",
    params(("id" = String, Path, description = "The drill's id", example = "0123456789abcdef0123456789abcdef")),
    responses((status = 200, description = "What it came to", body = DrillShown))
)]
pub async fn show(
    State(web): State<Shared>,
    who: Who,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let found = one(&web, &who, &id).await?;
    let statement = serde_json::from_str(&found.statement).ok().filter(Value::is_object);
    Ok(Json(DrillShown { drill: Drill::new(&found), statement }).into_response())
}

/// A drill's certificate
///
/// As it is in the store: two lines, the statement and the signature over it. `farshore drill verify FILE --key HEX` checks it, and so does `openssl`.
#[utoipa::path(
    get,
    path = "/drills/{id}/certificate",
    tag = "drills",
    params(("id" = String, Path, description = "The drill's id", example = "0123456789abcdef0123456789abcdef")),
    responses((status = 200, description = "The certificate", body = String, content_type = "application/octet-stream"))
)]
pub async fn certificate(
    State(web): State<Shared>,
    who: Who,
    Path(id): Path<String>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let found = one(&web, &who, &id).await?;
    let broken = || {
        Problem::new(Kind::Conflict, "what the catalog has of this certificate is not what was signed")
            .hint("`farshore drill verify` reads it from the store, and says whether that one holds")
    };
    let certificate = found.certificate().map_err(|why| broken().because(&why))?.ok_or_else(|| {
        let why = found.uncertified.as_deref().unwrap_or("nobody signed it");
        Problem::new(Kind::DrillUnknown, format!("the drill has no certificate: {why}"))
            .hint("docs/drills.md says how drills are signed")
    })?;
    if certificate.standing(&VerifyKeys::default()) == HeadStanding::Broken {
        return Err(broken());
    }
    let bytes = certificate.encode().map_err(|why| broken().because(&why))?;
    let mut answer = bytes.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let name = format!("attachment; filename=\"drill-{}.certificate\"", found.id);
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(answer)
}

/// A drill that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillAsked {
    /// Of this database.
    #[schema(example = "orders")]
    database: String,
    /// `latest`, `oldest`, `random`, a time with its offset, a position or a named point; as the configuration says when not given.
    point: Option<String>,
    /// The seed of a random choice, to make the same one again.
    seed: Option<u64>,
    /// From this store; from the first of the database's that has it when not given.
    store: Option<String>,
}

/// Rehearse a recovery
///
/// A service that has the database restores it into a scratch place, checks the copy, measures each phase and removes it. The job's result names the drill.
#[utoipa::path(
    post,
    path = "/drills",
    tag = "drills",
    params(("Idempotency-Key" = String, Header, description = "Names this question: asked again with it, the first answer comes")),
    request_body = DrillAsked,
    responses((status = 202, description = "Its job; `Location` says where it is", body = Job))
)]
pub async fn ask(
    State(web): State<Shared>,
    who: Who,
    key: Key,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
    body: Bytes,
) -> Result<Response, Problem> {
    let asked: DrillAsked = body::json(&headers, &body, "{\"database\": ...}")?;
    let spec = wanted(asked.point, asked.seed, asked.store)?;
    let database = ask::database(&web, &who, &asked.database).await?;
    let work = Work { kind: JobKind::Drill, database: &database.name, spec: &spec, node: None };
    ask::queue(&web, &who, key, work).await
}

/// A drill as the job keeps it. Where its copy goes is the configuration's to say, and nobody else's.
///
/// # Errors
/// When a part of it cannot be one.
pub fn wanted(
    point: Option<String>,
    seed: Option<u64>,
    store: Option<String>,
) -> Result<spec::Drill, Problem> {
    let is_text =
        |point: &String| (1..=POINT_BYTES).contains(&point.len()) && !point.chars().any(char::is_control);
    if point.as_ref().is_some_and(|point| !is_text(point)) {
        return Err(Problem::invalid(
            "point",
            "is latest, oldest, random, a time, a position or a named point",
        ));
    }
    if seed.is_some() && point.as_deref().is_some_and(|point| point != "random") {
        return Err(Problem::invalid("seed", "is for a random point"));
    }
    Ok(spec::Drill { point, scratch: None, seed, store: history(store, None)?.store })
}

/// A drill that is there for whoever asks.
///
/// # Errors
/// [`Kind::DrillUnknown`].
pub async fn one(web: &Web, who: &Who, text: &str) -> Result<Known, Problem> {
    let unknown = || {
        Problem::new(Kind::DrillUnknown, "the catalog knows no such drill").hint(
            "GET /api/v1/drills lists those there are; `farshore catalog rebuild` brings back the certified ones",
        )
    };
    let id: DrillId = text.parse().map_err(|_| unknown())?;
    let found = web.catalog()?.drill_get(id).await?;
    found.filter(|drill| who.sees(&drill.database)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_of_a_drill_is_what_can_be_said_of_one_and_never_names_a_place() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(wanted(None, None, None).unwrap(), spec::Drill::default());
        let random = wanted(some("random"), Some(7), some("main")).unwrap();
        assert_eq!((random.seed, random.store.as_deref(), random.scratch), (Some(7), Some("main"), None));
        for (point, seed, store) in [
            (some(""), None, None),
            (some("a\nb"), None, None),
            (some(&"p".repeat(POINT_BYTES + 1)), None, None),
            (some("latest"), Some(7), None),
            (None, None, some("../x")),
        ] {
            assert_eq!(wanted(point.clone(), seed, store).unwrap_err().kind, Kind::Invalid, "{point:?}");
        }
    }
}
