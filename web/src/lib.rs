//! The health endpoint: is the process alive, and is it doing its work?
//!
//! What always holds: it listens on loopback only, tells nothing of any row, secret or address, and is read from
//! memory, so that asking it costs nothing and cannot wait. `/readyz` says 503 until it was told otherwise, and
//! again when whoever tells it is gone. The REST API and the dashboard will live beside it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use farshore_journal::DatabaseName;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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

/// Why the endpoint could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could reach it.
    #[error("serve health on {address}: it is not a loopback address")]
    NotLoopback {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// Listening failed.
    #[error("serve health")]
    Listen(#[source] io::Error),
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

/// The routes, on one screen.
pub fn router(health: watch::Receiver<Health>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(health)
}

/// Serves until cancelled; requests in hand are answered first.
///
/// # Errors
/// When the address is not on loopback, or the listener fails.
///
/// # Cancel safety
/// Dropping the future closes the listener and every connection.
pub async fn serve(
    listener: TcpListener,
    health: watch::Receiver<Health>,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listen)?;
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback { address });
    }
    tracing::info!(%address, "health endpoint listens");
    axum::serve(listener, router(health))
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
        .map_err(ServeError::Listen)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    fn health(shipping: &[Shipping]) -> Health {
        let name = |at: usize| format!("db{at}").parse().unwrap();
        Health { databases: shipping.iter().enumerate().map(|(at, s)| (name(at), *s)).collect() }
    }

    #[tokio::test]
    async fn ready_is_said_only_while_every_database_is_and_the_teller_lives() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = watch::channel(Health::default());
        let cancel = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(serve(listener, told, cancel.clone()));

        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        for (shipping, status) in [
            (&[][..], "503"),
            (&[Shipping::Starting], "503"),
            (&[Shipping::Ready], "200"),
            (&[Shipping::Ready, Shipping::Failing], "503"),
            (&[Shipping::Ready], "200"),
        ] {
            tell.send(health(shipping)).unwrap();
            let answer = ask(address, "/readyz").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shipping:?}: {answer}");
        }
        drop(tell);
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 503"));

        cancel.cancel();
        timeout(DEADLINE, tasks.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_address_others_can_reach_is_refused() {
        let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
        let (_tell, told) = watch::channel(Health::default());
        let served = serve(listener, told, CancellationToken::new()).await;
        assert!(matches!(served, Err(ServeError::NotLoopback { .. })));
    }
}
