//! `/databases`: what is protected, how it stands, and what can be restored.

use axum::extract::{OriginalUri, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::Utc;
use farshore_journal::DatabaseName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer;
use crate::api::named;
use crate::api::shape::{Former, Status, Window};
use crate::auth::Who;
use crate::page::{self, Asked, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

/// The list that its cursors are of.
const LIST: &str = "databases";

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
    let page = asked.read(LIST)?;
    let catalog = web.catalog()?;
    let all = catalog.database_list().await?.into_iter().map(|database| database.name);
    let seen: Vec<DatabaseName> = all.filter(|name| who.sees(name)).collect();
    let (names, next_cursor) = page::cut(seen, LIST, page, |name| name.as_str().to_owned())?;
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
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}

/// One database as it stands
///
/// What `farshore status NAME -o json` shows: state, lag, exposure, window, targets.
#[utoipa::path(
    get,
    path = "/databases/{name}",
    tag = "databases",
    params(("name" = String, Path, description = "The database", example = "orders")),
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
    params(("name" = String, Path, description = "The database", example = "orders")),
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
