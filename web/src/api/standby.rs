//! `/standbys`: the PostgreSQL standbys that follow a journal.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_journal::Position;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Who;
use crate::page::{self, Asked, Page, Query};
use crate::problem::Problem;
use crate::state::Shared;

const LIST: &str = "standbys";

/// A PostgreSQL standby that takes a journal for its primary, as whoever serves it last heard of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Standby {
    /// Whose journal it follows.
    pub database: String,
    /// What it calls itself.
    pub name: String,
    /// How it is doing now: `catching_up`, `streaming`, `waits_for_store`, `log_missing`, `diverged`, `ahead`, `damaged` or `away`.
    #[schema(example = "streaming")]
    pub state: &'static str,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why it does not follow, where that is known.
    pub problem: Option<String>,
    /// The incarnation that its copy is of.
    pub incarnation: String,
    /// The store that it is served from.
    pub store: String,
    /// Which node serves it.
    pub node: String,
    /// The end of what its queries see: timeline and offset.
    #[schema(example = "1:0/5A001F8")]
    pub applied: String,
    /// The end of what a crash of it leaves.
    pub flushed: String,
    /// The end of what was sent to it.
    pub sent: String,
    /// Log that the journal has and it has not replayed, in bytes; null where that is not known now.
    pub lag_bytes: Option<u64>,
    /// For how long the journal has had it, in milliseconds; likewise.
    pub lag_ms: Option<u64>,
    /// How old log is at the least when it is sent to it, in milliseconds; null: it is sent at once.
    pub delay_ms: Option<u64>,
    /// When it, or its end, was last heard of.
    pub heard_at: DateTime<Utc>,
}

impl Standby {
    fn new(known: farshore_catalog::standby::Standby, now: DateTime<Utc>) -> Self {
        let at = |offset| Position::new(known.timeline, offset).to_string();
        Self {
            state: known.shown(now).word(),
            since: known.shown_since(now),
            incarnation: known.incarnation.to_string(),
            applied: at(known.applied),
            flushed: at(known.flushed),
            sent: at(known.sent),
            lag_bytes: known.lag_bytes(now),
            lag_ms: known.lag(now).map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
            delay_ms: known.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            database: known.database.to_string(),
            name: known.name,
            problem: known.problem,
            store: known.store,
            node: known.node,
            heard_at: known.heard_at,
        }
    }
}

/// The PostgreSQL standbys that follow a journal, by database and name
#[utoipa::path(get, path = "/standbys", tag = "standbys", params(Asked),
    responses((status = 200, description = "A page of them", body = Page<Standby>)))]
pub async fn list(
    State(web): State<Shared>,
    who: Who,
    uri: OriginalUri,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let page = asked.read::<(String, String)>(LIST)?;
    let mut known = web.catalog()?.standby_list(None).await?;
    known.retain(|one| who.sees(&one.database));
    let key = |one: &farshore_catalog::standby::Standby| (one.database.to_string(), one.name.clone());
    let (known, next_cursor) = page::cut(known, LIST, page, key)?;
    let now = Utc::now();
    let items = known.into_iter().map(|one| Standby::new(one, now)).collect();
    Ok(page::answer(&uri, &["limit"], items, next_cursor))
}
