//! Where other machines' journals are put: `[receive]`, a directory of this machine as a store for others.
//!
//! What always holds: nobody is heard who has no certificate of the authority that was named, and nothing is done for a name beyond its rights; "created" is said when the directory's own create
//! has said so; bytes in hand are bounded, and whoever sends slowly has a deadline. Connections are tasks of a set that is joined: on the way out requests in hand are answered first.
//!
//! ```text
//! accept ─▶ TLS with a client's certificate ─▶ rights of its names (pure) ─▶ HTTP/2: question (wire) ─▶ may it? ─▶ directory ─▶ answer (wire)
//! ```

mod rights;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use farshore_journal::store::remote::wire::{self, Answer, Asked, MOST_BYTES, Word};
use farshore_journal::store::{Key, KeyPrefix, ObjectStore};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::receive::ReceiveConfig;
use crate::message::{Code, OperatorMessage, Safe};
use crate::serving::turned::{Tell, Turned};
use crate::wiring::{self, Purpose};
use rights::{Rights, Verdict};

/// Connections at once: a machine has one for each store and process of its own.
const CONNECTIONS: usize = 256;
/// Questions at once of one connection.
const STREAMS: u32 = 64;
/// Bytes of creates in hand at once, in units of a KiB, whoever sends them.
const IN_HAND_KIB: usize = 512 << 10;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a connection shows a sign of life, and how long it may be silent after one.
const ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// How long the bytes of a create may take to come, and per MiB of them more.
const BODY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(4));
/// How long requests in hand may take when it ends.
const DRAIN: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be taken, as when the process has too many files open.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked whether somebody is to be told who was turned away.
const TELL: Duration = Duration::from_secs(5);
/// Bytes that a client may send before they were read: of one question, and of all of a connection.
const WINDOW: (u32, u32) = (4 << 20, 16 << 20);

/// What every connection needs.
struct Receiving {
    settings: Settings,
    tls: TlsAcceptor,
    store: Arc<dyn ObjectStore>,
    in_hand: Semaphore,
    turned: Mutex<Turned>,
    cancel: CancellationToken,
}

/// The settings, which live as long as the configuration.
struct Settings(Arc<Config>);

impl Settings {
    fn get(&self) -> Option<&ReceiveConfig> {
        self.0.receive.as_ref()
    }
}

/// Receives until cancelled. Nothing is done where the configuration has no `[receive]`.
///
/// # Errors
/// When nothing can be received: what it says is for whoever started it.
pub async fn receive(config: Arc<Config>, cancel: CancellationToken) -> Result<(), OperatorMessage> {
    let Some(settings) = &config.receive else { return Ok(()) };
    let tls =
        acceptor(settings).map_err(|why| refused(settings, &why, "mend what it says and start again"))?;
    let (store, _url) = wiring::open_store(&config, &settings.store, Purpose::Tidy)?;
    let listener = TcpListener::bind(settings.listen).await.map_err(|why| {
        let next = "give `receive.listen` an address of this machine that is free, and start again";
        refused(settings, &why.to_string(), next)
    })?;
    let address = listener.local_addr().unwrap_or(settings.listen);
    tracing::info!(%address, store = %settings.store, "journals of other machines are received");
    let receiving = Arc::new(Receiving {
        settings: Settings(Arc::clone(&config)),
        tls,
        store,
        in_hand: Semaphore::new(IN_HAND_KIB),
        turned: Mutex::default(),
        cancel,
    });
    accept(listener, &receiving).await;
    Ok(())
}

async fn accept(listener: TcpListener, receiving: &Arc<Receiving>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut tell = tokio::time::interval(TELL);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(std::io::Error::other)?;
            listener.accept().await.map(|(socket, peer)| (socket, peer, place))
        };
        let accepted = tokio::select! {
            () = receiving.cancel.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = tell.tick() => {
                receiving.turned(|turned| turned.due(Instant::now()));
                continue;
            }
            accepted = next => accepted,
        };
        match accepted {
            Ok((socket, peer, place)) => {
                let receiving = Arc::clone(receiving);
                connections.spawn(async move {
                    receiving.connection(socket, peer).await;
                    drop(place);
                });
            }
            Err(why) => {
                tracing::debug!(error = %why, "a connection could not be taken");
                tokio::select! {
                    () = receiving.cancel.cancelled() => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

impl Receiving {
    fn turned<T: IntoIterator<Item = Tell>>(&self, tell: impl FnOnce(&mut Turned) -> T) {
        let told = tell(&mut self.turned.lock().unwrap_or_else(PoisonError::into_inner));
        for Tell { peer, count, why } in told {
            tracing::warn!(address = %peer, count, "connections of shippers were turned away: {why}");
        }
    }

    fn turn_away(&self, peer: SocketAddr, why: &str) {
        self.turned(|turned| turned.away(peer.ip().into(), why, Instant::now()));
    }

    async fn connection(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let _only_delays = socket.set_nodelay(true);
        let stream = tokio::select! {
            () = self.cancel.cancelled() => return,
            stream = tokio::time::timeout(HANDSHAKE, self.tls.accept(socket)) => stream,
        };
        let stream = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => return self.turn_away(peer, &format!("TLS: {why}")),
            Err(_) => return self.turn_away(peer, "TLS took too long"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let rights = match (certificate, self.settings.get()) {
            (Some(certificate), Some(settings)) => Rights::of(certificate, &settings.clients),
            _ => Rights::default(),
        };
        if rights.names.is_empty() {
            // He is answered all the same: with why nothing is done for him.
            self.turn_away(peer, "no client of this receiver goes by a name of the certificate");
        } else {
            tracing::info!(%peer, names = rights.names.join(", "), "a shipper or reader is connected");
        }
        let rights = Arc::new(rights);
        let service = service_fn(|request| {
            let (receiving, rights) = (Arc::clone(&self), Arc::clone(&rights));
            async move { Ok::<_, Infallible>(respond(&receiving.answer(&rights, request).await)) }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW.0)
            .initial_connection_window_size(WINDOW.1);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(why) = ended {
            tracing::debug!(%peer, error = %why, "a connection broke");
        }
    }

    async fn answer(&self, rights: &Rights, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let asked = Asked::read(&head.method, head.uri.path(), head.uri.query(), &head.headers);
        let asked = match asked {
            Ok(asked) => asked,
            Err(why) => return Answer::refused(Word::Malformed, why),
        };
        let store = &*self.store;
        match (rights.judge(&asked), &asked) {
            (Verdict::No(why), _) => Answer::refused(Word::Refused, why),
            (Verdict::OwnOf(most), Asked::List { prefix, after, .. }) => {
                own_of(store, rights, (prefix, after.as_ref()), most).await
            }
            (_, Asked::Create { length, .. }) => match self.whole(body, *length).await {
                Ok((bytes, _in_hand)) => wire::answer(store, &asked, bytes).await,
                Err(answer) => answer,
            },
            _ => wire::answer(store, &asked, Bytes::new()).await,
        }
    }

    /// The bytes of a create, and their place among those in hand.
    async fn whole(
        &self,
        mut body: Incoming,
        length: u64,
    ) -> Result<(Bytes, tokio::sync::SemaphorePermit<'_>), Answer> {
        if length > MOST_BYTES {
            let why = format!("an object has at most {MOST_BYTES} bytes");
            return Err(Answer::refused(Word::Malformed, why));
        }
        let units = u32::try_from(length.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
        let other = |why: &str| Answer::refused(Word::Malformed, format!("its bytes: {why}"));
        let read = async {
            let place = self.in_hand.acquire_many(units).await.map_err(|_| other("it ends"))?;
            let length = usize::try_from(length).map_err(|_| other("too many"))?;
            let mut bytes = BytesMut::with_capacity(length);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|why| other(&why.to_string()))?;
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > length {
                    return Err(other("they are more than it says"));
                }
                bytes.extend_from_slice(&data);
            }
            match bytes.len() == length {
                true => Ok((bytes.freeze(), place)),
                false => Err(other("they are fewer than it says")),
            }
        };
        let mib = u32::try_from(length >> 20).unwrap_or(u32::MAX);
        let within = BODY.0 + BODY.1 * mib;
        tokio::time::timeout(within, read).await.unwrap_or_else(|_| Err(other("they took too long")))
    }
}

/// What is his own of a list. All of it is read: what he may not see must not shorten what he sees.
async fn own_of(
    store: &dyn ObjectStore,
    rights: &Rights,
    (prefix, after): (&KeyPrefix, Option<&Key>),
    most: usize,
) -> Answer {
    match store.list(prefix, after, None).await {
        Ok(all) => Answer::Listed(rights.filter(all, most)),
        Err(why) => Answer::failed(&why),
    }
}

fn respond(answer: &Answer) -> Response<Full<Bytes>> {
    let (status, headers, body) = answer.to_http();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

fn acceptor(settings: &ReceiveConfig) -> Result<TlsAcceptor, String> {
    let said = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let chain_of = |path: &Path| -> Result<Vec<CertificateDer<'static>>, String> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = read.map_err(|why| said(path, &why))?;
        if chain.is_empty() { Err(said(path, &"it holds no certificate")) } else { Ok(chain) }
    };
    let mut roots = RootCertStore::empty();
    for authority in chain_of(&settings.client_ca)? {
        roots.add(authority).map_err(|why| said(&settings.client_ca, &why))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|why| said(&settings.client_ca, &why))?;
    let files = &settings.tls;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| said(&files.key, &why))?;
    let pair = |why: rustls::Error| said(&files.certificate, &why);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain_of(&files.certificate)?, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// That nothing is received there.
fn refused(settings: &ReceiveConfig, why: &str, next: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::ReceiveRefused,
        format!("nothing is received at {}: {why}", settings.listen),
        Safe::Known(
            "what was received before is in its directory; shippers keep what is not stored here, and wait"
                .to_owned(),
        ),
        next,
    )
}
