//! `/databases/{name}/throttles`: what limits a database's shipping now.
//!
//! What always holds: while nobody speaks of them, its throttles are unknown and its limit is null. They are read here and changed nowhere: a rule
//! may run a program, and who may name one is whoever writes the configuration file.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer;
use crate::api::database::NoParameters;
use crate::api::named;
use crate::auth::Who;
use crate::page::Query;
use crate::problem::Problem;
use crate::state::Shared;

/// A rule of a database.
#[derive(Debug, Serialize, ToSchema)]
pub struct Throttle {
    /// Its name.
    pub name: String,
    /// How it stands now: `off` (outside its hours), `quiet`, `active` or `unknown`.
    #[schema(example = "active")]
    pub state: &'static str,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What was measured.
    #[schema(example = "ship_lag is 45.6s; ship_lag above 30.0s")]
    pub why: String,
    /// The limit that it sets while it is active, in bytes a second; null: none.
    pub bandwidth: Option<u64>,
    /// When it last acted.
    pub fired_at: Option<DateTime<Utc>>,
}

/// What limits a database's shipping.
#[derive(Debug, Serialize, ToSchema)]
pub struct Throttles {
    /// The database.
    pub database: String,
    /// Whether its service spoke of them lately.
    pub known: bool,
    /// The most that goes to its stores now, in bytes a second; null: nothing limits it, or that is not known.
    pub limit: Option<u64>,
    /// Bytes that went there since its service began.
    pub sent: Option<u64>,
    /// How long these waited for a limit, all of it together, in milliseconds.
    pub waited_ms: Option<u64>,
    /// Which node said so.
    pub node: Option<String>,
    /// When it did.
    pub heard_at: Option<DateTime<Utc>>,
    /// Its rules, by name.
    pub rules: Vec<Throttle>,
}

/// What limits a database's shipping: its limit, and each rule with its state, since when and why
#[utoipa::path(
    get,
    path = "/databases/{name}/throttles",
    tag = "databases",
    params(("name" = String, Path, description = "The database", example = "orders")),
    responses(
        (status = 200, description = "Its limit and its rules", body = Throttles),
        (status = 304, description = "As the caller has it already"),
    )
)]
pub async fn throttles(
    State(web): State<Shared>,
    who: Who,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let name = named(&name, &who)?;
    let catalog = web.catalog()?;
    // Who has no rules is told apart from who is not there.
    catalog.status(&name, Utc::now()).await?;
    let said = catalog.throttle_list().await?.into_iter().find(|one| one.database == name);
    let now = Utc::now();
    let known = said.as_ref().is_some_and(|said| !said.is_silent(now));
    let rules = said.iter().flat_map(|said| said.rules.iter().map(move |rule| (said, rule)));
    let rules = rules.map(|(said, rule)| Throttle {
        name: rule.name.clone(),
        state: said.shown(rule, now).word(),
        since: if known { rule.since } else { said.heard_at },
        why: rule.why.clone(),
        bandwidth: rule.bandwidth,
        fired_at: rule.fired_at,
    });
    let shown = Throttles {
        database: name.to_string(),
        known,
        limit: said.as_ref().filter(|_| known).and_then(|said| said.bandwidth),
        sent: said.as_ref().map(|said| said.sent),
        waited_ms: said.as_ref().map(|said| u64::try_from(said.waited.as_millis()).unwrap_or(u64::MAX)),
        node: said.as_ref().map(|said| said.node.clone()),
        heard_at: said.as_ref().map(|said| said.heard_at),
        rules: rules.collect(),
    };
    answer::one(&headers, &shown)
}
