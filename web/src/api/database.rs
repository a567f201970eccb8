//! `/databases`: what is protected, how it stands, and what can be restored.

use axum::Json;
use axum::extract::{OriginalUri, Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use farshore_journal::DatabaseName;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer;
use crate::api::named;
use crate::api::shape::{Former, Status, Window};
use crate::auth::Who;
use crate::page::{self, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

/// The list that its cursors are of.
const LIST: &str = "databases";

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

/// What can be restored of a database.
#[derive(Debug, Serialize, ToSchema)]
pub struct Restorable {
    /// The database.
    pub database: String,
    /// Its current incarnation.
    pub incarnation: Option<String>,
    /// The number of that one.
    pub incarnation_number: Option<u64>,
    /// What can be restored of the current incarnation; null when nothing can, or nothing is known.
    pub window: Option<Window>,
    /// What can be restored of the incarnations before it, oldest first.
    pub former: Vec<Former>,
}

/// The databases, by name, each as it stands
#[utoipa::path(get, path = "/databases", tag = "databases", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Status>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let limit = page::limit(asked.limit)? as usize;
    let after: Option<String> = asked.cursor.map(|cursor| page::place(LIST, &cursor)).transpose()?;
    let catalog = web.catalog()?;
    let all = catalog.database_list().await?;
    let behind = |name: &DatabaseName| after.as_ref().is_none_or(|after| name.as_str() > after.as_str());
    let mut names: Vec<DatabaseName> =
        all.into_iter().map(|database| database.name).filter(|name| who.sees(name) && behind(name)).collect();
    // The catalog may sort by other letters than we compare by.
    names.sort();
    let more = names.len() > limit;
    names.truncate(limit);
    let mut items = Vec::with_capacity(names.len());
    for name in &names {
        let now = Utc::now();
        match catalog.status(name, now).await {
            Ok(status) => {
                items.push(Status::new(now, status, web.objectives.get(name).copied().unwrap_or_default()));
            }
            // Forgotten since the list was read.
            Err(farshore_catalog::Error::NoDatabase { .. }) => {}
            Err(why) => return Err(why.into()),
        }
    }
    let last = names.last().filter(|_| more);
    let next_cursor = last.map(|name| page::cursor(LIST, &name.as_str())).transpose()?;
    let links = page::links(&uri, &["limit"], &[("next", next_cursor.as_deref())]);
    Ok((links, Json(Page { items, next_cursor })).into_response())
}

/// One database as it stands
///
/// What `farshore status NAME -o json` shows: state, lag, exposure, window, targets.
#[utoipa::path(
    get,
    path = "/databases/{name}",
    tag = "databases",
    params(("name" = String, Path, description = "The database")),
    responses(
        (status = 200, description = "How it stands", body = Status),
        (status = 304, description = "As the caller has it already"))
)]
pub async fn show(
    State(web): State<Shared>,
    who: Who,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let name = named(&name, &who)?;
    let now = Utc::now();
    let status = web.catalog()?.status(&name, now).await?;
    let promised = web.objectives.get(&name).copied().unwrap_or_default();
    answer::one(&headers, &Status::new(now, status, promised))
}

/// What can be restored of a database
#[utoipa::path(
    get,
    path = "/databases/{name}/window",
    tag = "databases",
    params(("name" = String, Path, description = "The database")),
    responses(
        (status = 200, description = "From when to when, and what is missing", body = Restorable),
        (status = 304, description = "As the caller has it already"))
)]
pub async fn window(
    State(web): State<Shared>,
    who: Who,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let name = named(&name, &who)?;
    let status = web.catalog()?.status(&name, Utc::now()).await?;
    let restorable = Restorable {
        database: name.to_string(),
        incarnation: status.incarnation.map(|id| id.to_string()),
        incarnation_number: status.incarnation_number,
        window: status.window.map(Window::from),
        former: status.former.into_iter().map(Former::from).collect(),
    };
    answer::one(&headers, &restorable)
}

/// A path that takes no parameters: one that is given is a mistake that would go unseen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}
