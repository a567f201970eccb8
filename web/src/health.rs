//! The health endpoint: is the process alive, and is it doing its work?
//!
//! What always holds: it tells nothing of any row, secret or address, and is read from memory, so that asking it costs nothing and
//! cannot wait. `/readyz` says 503 until it was told otherwise, and again when whoever tells it is gone.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use farshore_journal::DatabaseName;
use serde::Serialize;
use tokio::sync::watch;

/// Whether one database's shipping does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shipping {
    /// Not known yet: the service has just begun.
    Starting,
    /// Connected, and what is received becomes stored.
    Ready,
    /// Not so, for a reason that `farshore status` tells.
    Failing,
}

/// What the service says of itself; replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Every database this process ships.
    pub databases: BTreeMap<DatabaseName, Shipping>,
}

impl Health {
    /// Ready is: at least one database, and every one of them is.
    fn is_ready(&self) -> bool {
        !self.databases.is_empty() && self.databases.values().all(|shipping| *shipping == Shipping::Ready)
    }
}

#[derive(Serialize)]
struct Alive {
    schema: &'static str,
    alive: bool,
    version: &'static str,
}

#[derive(Serialize)]
struct Ready {
    schema: &'static str,
    ready: bool,
    databases: BTreeMap<DatabaseName, Shipping>,
}

/// Open to everybody: a balancer has no token.
pub(crate) fn router(health: watch::Receiver<Health>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(health)
}

async fn healthz() -> impl IntoResponse {
    let body = Alive { schema: "farshore.health/1", alive: true, version: env!("CARGO_PKG_VERSION") };
    ([(header::CACHE_CONTROL, "no-store")], Json(body))
}

async fn readyz(State(health): State<watch::Receiver<Health>>) -> impl IntoResponse {
    // A teller that is gone leaves its last word behind: an old "ready" is not known to be true.
    let told = health.has_changed().is_ok();
    let databases = health.borrow().clone();
    let ready = told && databases.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Ready { schema: "farshore.ready/1", ready, databases: databases.databases };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body))
}
