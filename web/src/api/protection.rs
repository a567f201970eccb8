//! `/databases/{name}/protection`: what a database's commits wait for, and whether they do.
//!
//! What always holds: a state that nobody told a moment ago is `unknown`, whatever the configuration asks for.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::guard::Guard;
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer;
use crate::api::database::NoParameters;
use crate::api::named;
use crate::auth::Who;
use crate::page::Query;
use crate::problem::Problem;
use crate::state::{Shared, Waits};

/// What a database's commits wait for.
#[derive(Debug, Serialize, ToSchema)]
pub struct Protection {
    /// The database.
    pub database: String,
    /// What the configuration asks for: `async`, `near-sync`, `sync` or `strict`; null where another service has it.
    #[schema(example = "sync")]
    pub mode: Option<&'static str>,
    /// In `near-sync`: how much log may be not stored, in bytes.
    pub bound_bytes: Option<u64>,
    /// In `sync`: for how long a commit waits at most, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether commits wait: `armed` (they do), `arming`, `disarmed`, `hands_off` (the setting is somebody's own) or `unknown`; null where they are not to.
    #[schema(example = "armed")]
    pub state: Option<&'static str>,
    /// Up to when commits are known to have waited, while they do not or are not known to.
    pub exposed_since: Option<DateTime<Utc>>,
    /// Why they do not, in a word of the guard's ledger.
    #[schema(example = "waited")]
    pub why: Option<String>,
    /// What stands in the way.
    pub trouble: Option<String>,
    /// Who says so: the guard's node in `sync`, else the shipper's.
    pub node: Option<String>,
    /// When it last saw the primary.
    pub looked_at: Option<DateTime<Utc>>,
}

/// What a database's commits wait for, and whether they do
#[utoipa::path(
    get,
    path = "/databases/{name}/protection",
    tag = "databases",
    params(("name" = String, Path, description = "The database", example = "orders")),
    responses(
        (status = 200, description = "What is asked for, and what is known of it", body = Protection),
        (status = 304, description = "As the caller has it already"),
    )
)]
pub async fn protection(
    State(web): State<Shared>,
    who: Who,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Response, Problem> {
    let name = named(&name, &who)?;
    let catalog = web.catalog()?;
    // Who waits for nothing is told apart from who is not there.
    catalog.status(&name, Utc::now()).await?;
    let guard = catalog.guard_of(&name).await?;
    let now = Utc::now();
    let waits = web.objectives.get(&name).map(|promised| promised.waits);
    let asks = !matches!(waits, None | Some(Waits::Nothing));
    let phase = guard.as_ref().map(|guard| guard.shown(now).word()).or(asks.then_some("unknown"));
    let broken = phase.is_some_and(|phase| phase != "armed");
    let millis = |timeout: std::time::Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let (mut bound_bytes, mut timeout_ms) = (None, None);
    let mode = waits.map(|waits| match waits {
        Waits::Nothing => "async",
        Waits::Within { bound_bytes: bound } => {
            bound_bytes = Some(bound);
            "near-sync"
        }
        Waits::Stored { timeout: Some(timeout) } => {
            timeout_ms = Some(millis(timeout));
            "sync"
        }
        Waits::Stored { timeout: None } => "strict",
    });
    let since = guard.as_ref().filter(|_| broken).and_then(Guard::waited_until);
    let shown = Protection {
        database: name.to_string(),
        mode,
        bound_bytes,
        timeout_ms,
        state: phase,
        exposed_since: since,
        why: guard.as_ref().filter(|_| broken).and_then(|guard| guard.why.clone()),
        trouble: guard.as_ref().and_then(|guard| guard.trouble.clone()),
        node: guard.as_ref().and_then(|guard| guard.node.clone()),
        looked_at: guard.as_ref().and_then(|guard| guard.looked_at),
    };
    answer::one(&headers, &shown)
}
