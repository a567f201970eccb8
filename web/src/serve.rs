//! Connections: accepted, bounded in number and time, carried by TLS where that is configured.
//!
//! What always holds: an address that others can reach is served with TLS or not at all; every wait for a peer has a deadline, so that
//! none can hold a connection for longer than `LIFE`; at `CONNECTIONS` the next one waits until another ends. Each connection is a
//! task of a set that is joined: on the way out requests in hand are answered first.
//!
//! # Cancel safety
//! Dropping the future of [`serve`] closes the listener and every connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::auth::Peer;

/// Connections at once: a browser takes six, a fleet of programs one each.
const CONNECTIONS: usize = 256;

/// How long a handshake may take, the head of a request may take to arrive, and a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may live: whoever reads slowly does not keep a place for ever.
const LIFE: Duration = Duration::from_secs(600);

/// How long requests in hand may take when the service ends.
const DRAIN: Duration = Duration::from_secs(10);

/// How long to wait when no connection can be taken, as when the process has too many files open.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the service could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could reach it, and read what is said.
    #[error("serve on {address}: it is not a loopback address, and there is no TLS")]
    NotLoopback {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// Listening failed.
    #[error("serve the web")]
    Listen(#[source] io::Error),
}

/// Serves until cancelled; requests in hand are answered first.
///
/// # Errors
/// When the address is not on loopback and there is no TLS.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Router,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    serve_called("health endpoint", listener, tls, app, cancel).await
}

/// As [`serve`], called something else in the log.
///
/// # Errors
/// As [`serve`].
pub async fn serve_called(
    called: &'static str,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Router,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listen)?;
    if tls.is_none() && !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback { address });
    }
    tracing::info!(%address, tls = tls.is_some(), "{called} listens");
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (app, tls, cancel) = (app.clone(), tls.clone(), cancel.clone());
                connections.spawn(async move {
                    connection(stream, peer, tls, app, cancel).await;
                    drop(place);
                });
            }
            Err(why) => {
                tracing::debug!(error = %why, "a connection could not be taken");
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    app: Router,
    cancel: CancellationToken,
) {
    match tls {
        None => speak(stream, peer, app, cancel).await,
        Some(tls) => match timeout(HEAD, tls.accept(stream)).await {
            Ok(Ok(stream)) => speak(stream, peer, app, cancel).await,
            Ok(Err(why)) => tracing::debug!(error = %why, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn speak<S>(stream: S, peer: SocketAddr, app: Router, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer.ip()));
        app.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = cancel.cancelled() => None,
        () = tokio::time::sleep(LIFE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            // Whoever does not read his answer in time has none.
            timeout(DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(why) = ended {
        tracing::debug!(error = %why, "a connection broke");
    }
}
