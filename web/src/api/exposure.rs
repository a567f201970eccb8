//! `/databases/{name}/exposure`: from when to when a promise did not hold.

use axum::extract::{OriginalUri, Path, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::ledger;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::named;
use crate::auth::Who;
use crate::page::{self, Asked, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "exposure";

/// A span in which a promise did not hold, or was not known to
#[derive(Debug, Serialize, ToSchema)]
pub struct Exposure {
    /// The number of the event that opened it, in the database's ledger; null of one that nobody has written yet, since nobody looks.
    pub number: Option<u64>,
    /// Which promise.
    pub promise: String,
    /// What was promised, in milliseconds.
    pub objective_ms: u64,
    /// From when on: the last look that saw it hold.
    pub from: DateTime<Utc>,
    /// When it was seen to hold again; null while it is not.
    pub until: Option<DateTime<Utc>>,
    /// Whether it is not known to hold yet.
    pub open: bool,
    /// Why, in the ledger's words.
    pub why: Vec<String>,
    /// The worst exposure that was seen, in milliseconds; null: none was known.
    pub worst_ms: Option<u64>,
}

/// From when to when a promise to a database did not hold, or was not known to, newest first
///
/// Time in which nobody looked is an entry too. A database of which nothing is promised has none.
#[utoipa::path(
    get,
    path = "/databases/{name}/exposure",
    tag = "exposure",
    params(("name" = String, Path, description = "The database", example = "orders"), Asked),
    responses((status = 200, description = "A page of it", body = Page<Exposure>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let name = named(&name, &who)?;
    let place = asked.read::<u64>(LIST)?;
    let catalog = web.catalog()?;
    if catalog.database_find(&name).await?.is_none() {
        return Err(farshore_catalog::Error::NoDatabase { name }.into());
    }
    let entries = ledger::entries(&catalog.ledger_of(&name).await?, Utc::now());
    // Newest first, and before all of them what is not written yet.
    let newest_first = |entry: &ledger::Entry| entry.number.map_or(0, |number| u64::MAX - number);
    let (entries, next_cursor) = page::cut(entries, LIST, place, newest_first)?;
    let items = entries
        .into_iter()
        .map(|entry| Exposure {
            number: entry.number,
            promise: entry.promise,
            objective_ms: entry.objective_ms,
            from: entry.from,
            until: entry.until,
            open: entry.until.is_none(),
            why: entry.whys.0.iter().map(|why| why.word().to_owned()).collect(),
            worst_ms: entry.worst_ms,
        })
        .collect();
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}
