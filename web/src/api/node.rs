//! `/nodes`: the processes that share the catalog.

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

const LIST: &str = "nodes";

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

/// A running farshore, as it last said. Whether it still runs is not said here: judge by `heartbeat_at`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it last said that it lives.
    pub heartbeat_at: DateTime<Utc>,
}

/// The processes that share the catalog, by name
#[utoipa::path(get, path = "/nodes", tag = "nodes", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Node>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    who.sees_all()?;
    let limit = page::limit(asked.limit)? as usize;
    let after: Option<String> = asked.cursor.map(|cursor| page::place(LIST, &cursor)).transpose()?;
    let mut nodes = web.catalog()?.node_list().await?;
    nodes.retain(|node| after.as_ref().is_none_or(|after| node.name > *after));
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let more = nodes.len() > limit;
    nodes.truncate(limit);
    let next_cursor = nodes.last().filter(|_| more).map(|node| page::cursor(LIST, &node.name)).transpose()?;
    let items = nodes
        .into_iter()
        .map(|node| Node {
            name: node.name,
            version: node.version,
            started_at: node.started_at,
            heartbeat_at: node.heartbeat_at,
        })
        .collect();
    let links = page::links(&uri, &["limit"], &[("next", next_cursor.as_deref())]);
    Ok((links, Json(Page { items, next_cursor })).into_response())
}
