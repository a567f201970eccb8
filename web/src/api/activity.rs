//! `/activity`: who did what.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Who;
use crate::page::{self, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "activity";

/// How much of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// The most items, 1 to 1000; 100 when not given.
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

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
    let limit = page::limit(asked.limit)?;
    let before: Option<u64> = asked.cursor.map(|cursor| page::place(LIST, &cursor)).transpose()?;
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
        })
        .collect();
    let links = page::links(&uri, &["limit"], &[("next", next_cursor.as_deref())]);
    Ok((links, Json(Page { items, next_cursor })).into_response())
}
