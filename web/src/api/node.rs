//! `/nodes`: the processes that share the catalog.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Who;
use crate::page::{self, Asked, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "nodes";

/// A running farshore, as it last said. Whether it still runs is not said here: judge by `heartbeat_at`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does: `ships`, `jobs`, `restores`, `expires`, `serves`; nothing of a node of an earlier version.
    #[schema(example = json!(["ships", "jobs"]))]
    pub roles: Vec<String>,
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
    let page = asked.read(LIST)?;
    let nodes = web.catalog()?.node_list().await?;
    let (nodes, next_cursor) = page::cut(nodes, LIST, page, |node| node.name.clone())?;
    let items = nodes
        .into_iter()
        .map(|node| Node {
            name: node.name,
            version: node.version,
            roles: node.roles,
            started_at: node.started_at,
            heartbeat_at: node.heartbeat_at,
        })
        .collect();
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}
