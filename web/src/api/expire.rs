//! `/expiries`: base backups and log that no rule keeps are marked, and a grace later deleted; `/expiry-previews`: what would be.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use farshore_catalog::job::{JobKind, spec};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::database::NoParameters;
use crate::api::job::Job;
use crate::ask::{self, Key, Work};
use crate::auth::Who;
use crate::body;
use crate::page::Query;
use crate::problem::Problem;
use crate::state::Shared;

/// An expiry that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpireAsked {
    /// Of this database, in all its stores.
    #[schema(example = "orders")]
    database: String,
}

/// Mark and delete what no rule keeps of a database
///
/// A service does it that was told that it may delete (`expire` in `[service]`); until there is one, the job waits.
#[utoipa::path(
    post,
    path = "/expiries",
    tag = "expiries",
    params(("Idempotency-Key" = String, Header, description = "Names this question: asked again with it, the first answer comes")),
    request_body = ExpireAsked,
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
    let asked: ExpireAsked = body::json(&headers, &body, "{\"database\": ...}")?;
    let database = ask::database(&web, &who, &asked.database).await?;
    let work = Work { kind: JobKind::Expire, database: &database.name, spec: &spec::Expire {}, node: None };
    ask::queue(&web, &who, key, work).await
}

/// Say what an expiry of a database would do
///
/// A quick job that reads the stores and writes nothing. Its result is, for each store and incarnation, what stays and why, what would be marked, and what would be deleted since its grace has
/// passed. A service does it whose configuration has the database's rule; until there is one, the job waits. While one waits or runs, it is the answer to whoever asks.
#[utoipa::path(
    post,
    path = "/expiry-previews",
    tag = "expiries",
    params(("Idempotency-Key" = String, Header, description = "Names this question: asked again with it, the first answer comes")),
    request_body = ExpireAsked,
    responses((status = 202, description = "Its job; `Location` says where it is", body = Job))
)]
pub async fn preview(
    State(web): State<Shared>,
    who: Who,
    key: Key,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
    body: Bytes,
) -> Result<Response, Problem> {
    let asked: ExpireAsked = body::json(&headers, &body, "{\"database\": ...}")?;
    let database = ask::database(&web, &who, &asked.database).await?;
    if let Some(found) = ask::under_way(&web, JobKind::Preview, &database.name).await? {
        return ask::there(found);
    }
    let work = Work { kind: JobKind::Preview, database: &database.name, spec: &spec::Preview {}, node: None };
    ask::queue(&web, &who, key, work).await
}
