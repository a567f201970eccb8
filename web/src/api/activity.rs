//! `/activity`: who did what.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Who;
use crate::page::{self, Asked, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "activity";

/// Something somebody did.
#[derive(Debug, Serialize, ToSchema)]
pub struct Entry {
    /// Its place in the record, from 1.
    pub number: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who: a user, a token's name, a schedule, a node.
    pub who: String,
    /// What, as a command or event word.
    pub what: String,
    /// To which database, when to one.
    pub database: Option<String>,
    /// More, without secrets and row values.
    pub detail: String,
    /// Its digest, which holds that of the entry before: `farshore activity verify` holds the whole record against them.
    pub digest: Option<String>,
}

/// Who did what, newest first
#[utoipa::path(get, path = "/activity", tag = "activity", params(Asked),
    responses((status = 200, description = "A page of it", body = Page<Entry>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    who.sees_all()?;
    let (limit, before) = asked.read::<u64>(LIST)?;
    // No number is that large: it is behind all of them.
    let before = before.filter(|before| i64::try_from(*before).is_ok());
    let found = web.catalog()?.activity_list(before, limit).await?;
    // Numbers are dense from 1 on: behind the first there is nothing.
    let last = found.last().map(|entry| entry.number).filter(|number| *number > 1);
    let next_cursor = last.map(|number| page::cursor(LIST, &number)).transpose()?;
    let items = found
        .into_iter()
        .map(|entry| Entry {
            number: entry.number,
            at: entry.activity.at,
            who: entry.activity.who,
            what: entry.activity.what,
            database: entry.activity.database.map(|name| name.to_string()),
            detail: entry.activity.detail,
            digest: entry.digest,
        })
        .collect();
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}
