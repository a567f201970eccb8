//! Where other machines' journals are put: `[receive]`, a directory of this machine as a store for others.
//!
//! What always holds: nobody is heard who has no certificate of the authority that was named, and nothing is done for a name beyond its rights; "created" is said when the directory's own create
//! has said so. Whoever has not proved himself holds one of few places, for a handshake; no name has more than its share of connections, and no connection more than its share of bytes in hand; whoever
//! sends slowly has a deadline. Connections are tasks of a set that is joined: on the way out requests in hand are answered first.
//!
//! ```text
//! accept ─▶ TLS with a client's certificate ─▶ rights of its names (pure) ─▶ HTTP/2: question (wire) ─▶ may it? ─▶ directory ─▶ answer (wire)
//! ```

mod in_hand;
mod rights;
mod tails;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farshore_journal::store::remote::wire::{self, Answer, Asked, MOST_BYTES, TailAsked, Word};
use farshore_journal::store::tails::TAIL_BYTES;
use farshore_journal::store::{Key, KeyPrefix, ObjectStore};
use farshore_journal::{DatabaseName, layout};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrivals;
use crate::config::Config;
use crate::config::receive::ReceiveConfig;
use crate::message::{Code, OperatorMessage, Safe};
use crate::serving::places::{Peer, Place, Places};
use crate::serving::prepare;
use crate::serving::turned::{Tell, Turned};
use crate::wiring::{self, Purpose};
use in_hand::{Held, IN_HAND_KIB, busy, place, units, whole};
use rights::{Rights, Verdict};
use tails::{Append, TailsKept};

/// Connections at once, and of one name: a machine has one for each store, way and process of its own.
const CONNECTIONS: (usize, usize) = (256, 32);
/// Questions at once of one connection.
const STREAMS: u32 = 64;
/// What a listing counts as, in those units: its rows are about a hundred bytes each.
const LISTING_KIB: u32 = 16 << 10;
/// What the tails of a folder count as: an owner has one at a time, and few that he gave up.
const TAILS_KIB: u32 = 32 << 10;
/// Listings at once of all: each walks folders, and creates wait behind it for the same disk.
const LISTINGS: usize = 2;
/// How long a handshake may take, and how long a connection may be there before it asks anything.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a connection shows a sign of life, and how long it may be silent after one.
const ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// How long requests in hand may take when it ends.
const DRAIN: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be taken, as when the process has too many files open.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked whether somebody is to be told who was turned away.
const TELL: Duration = Duration::from_secs(5);
/// Bytes that a client may send before they were read: of one question, and of all of a connection. All questions at once fit, so that none holds up another.
const WINDOW: (u32, u32) = (256 << 10, STREAMS * (256 << 10));

/// What every connection needs.
struct Receiving {
    settings: Settings,
    tls: TlsAcceptor,
    store: Arc<dyn ObjectStore>,
    arrivals: Arrivals,
    /// The digest of the store's record, once there is one.
    record: OnceLock<String>,
    listings: Semaphore,
    tails: TailsKept,
    clients: Arc<Places<String>>,
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
pub async fn receive(
    config: Arc<Config>,
    arrivals: Arrivals,
    cancel: CancellationToken,
) -> Result<(), OperatorMessage> {
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
        arrivals,
        record: OnceLock::new(),
        listings: Semaphore::new(LISTINGS),
        tails: TailsKept::default(),
        clients: Places::new(CONNECTIONS.0, CONNECTIONS.1),
        turned: Mutex::default(),
        cancel,
    });
    let left = tails::settle_left(
        Arc::clone(&receiving.store),
        receiving.arrivals.clone(),
        receiving.cancel.clone(),
    );
    tokio::join!(accept(listener, &receiving), left);
    Ok(())
}

async fn accept(listener: TcpListener, receiving: &Arc<Receiving>) {
    let strangers = Places::of_strangers();
    let mut connections = JoinSet::new();
    let mut tell = tokio::time::interval(TELL);
    loop {
        let accepted = tokio::select! {
            () = receiving.cancel.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = tell.tick() => {
                receiving.turned(|turned| turned.due(Instant::now()));
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => match strangers.take(peer.ip().into()) {
                Ok(stranger) => {
                    connections.spawn(Arc::clone(receiving).connection(socket, peer, stranger));
                }
                // A shipper comes again by itself.
                Err(_) => receiving.turn_away(peer, "too many have not proved yet who they are"),
            },
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

    async fn connection(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, stranger: Place<Peer>) {
        if let Err(why) = prepare(&socket) {
            return tracing::debug!(%peer, error = %why, "a connection came to nothing");
        }
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
        let is_known = !rights.names.is_empty();
        let _place = match rights.names.first().map(|name| self.clients.take(name.clone())) {
            // He is told why nothing is done for him, and gone with the time of a handshake.
            None => {
                self.turn_away(peer, "no client of this receiver goes by a name of the certificate");
                None
            }
            Some(Ok(place)) => {
                drop(stranger);
                tracing::debug!(%peer, names = rights.names.join(", "), "a client is connected");
                Some(place)
            }
            Some(Err(_)) => return self.turn_away(peer, "this client has too many connections"),
        };
        let visit = Arc::new(Visit {
            rights,
            puts: Arc::new(Semaphore::new(IN_HAND_KIB)),
            answers: Arc::new(Semaphore::new(IN_HAND_KIB)),
            has_asked: AtomicBool::new(false),
        });
        let service = service_fn(|request| {
            let (receiving, visit) = (Arc::clone(&self), Arc::clone(&visit));
            async move { Ok::<_, Infallible>(receiving.respond(&visit, request).await) }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW.0)
            .initial_connection_window_size(WINDOW.1);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let silent = async {
            tokio::time::sleep(HANDSHAKE).await;
            if is_known && visit.has_asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            // Whoever asks nothing is shown no sign of life, and would stay for ever.
            () = silent => return,
            () = self.cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(why) = ended {
            tracing::debug!(%peer, error = %why, "a connection broke");
        }
    }

    async fn respond(&self, visit: &Visit, request: Request<Incoming>) -> Response<Held> {
        visit.has_asked.store(true, Ordering::Relaxed);
        let (answer, place) = self.answer(visit, request).await;
        if let Answer::Failed(failure) = &answer
            && !matches!(failure.word, Word::NotFound | Word::OutOfRange)
        {
            tracing::warn!(
                names = visit.rights.names.join(", "),
                "a client was not served: {}",
                failure.reason
            );
        }
        let (status, mut headers, body) = answer.to_http();
        if let Ok(record) = HeaderValue::from_str(&self.record().await) {
            headers.insert(wire::STORE, record);
        }
        let mut response = Response::new(Held::new(body, place));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        response
    }

    /// What tells this store from others.
    async fn record(&self) -> String {
        if let Some(record) = self.record.get() {
            return record.clone();
        }
        let read = match layout::store_record() {
            Ok(key) => self.store.get(&key).await.ok(),
            Err(_) => None,
        };
        match read {
            None => "-".to_owned(),
            Some(bytes) => self.record.get_or_init(|| blake3::hash(&bytes).to_hex().to_string()).clone(),
        }
    }

    /// What is answered, and its place among the bytes in hand.
    async fn answer(
        &self,
        visit: &Visit,
        request: Request<Incoming>,
    ) -> (Answer, Option<OwnedSemaphorePermit>) {
        let (head, body) = request.into_parts();
        let asked = Asked::read(&head.method, head.uri.path(), head.uri.query(), &head.headers);
        let asked = match asked {
            Ok(asked) => asked,
            Err(why) => return (Answer::refused(Word::Malformed, why), None),
        };
        let verdict = visit.rights.judge(&asked);
        if let Verdict::No(why) = verdict {
            return (Answer::refused(Word::Refused, why), None);
        }
        if let Asked::Create { length, key, .. } = &asked {
            return match whole(&visit.puts, body, *length).await {
                // Its place is free again when the directory has them, or does not.
                Ok((bytes, _place)) => {
                    let answer = wire::answer(&*self.store, &asked, bytes).await;
                    if let Some(database) = journal_of(key) {
                        self.arrivals.came(&database);
                    }
                    (answer, None)
                }
                Err(answer) => (answer, None),
            };
        }
        if let Asked::Tail(tail) = &asked {
            // All that one folder's tails may hold.
            let place = match tail {
                TailAsked::Read { .. } => place(&visit.answers, TAILS_KIB).await.map(Some),
                _ => Ok(None),
            };
            return match place {
                Ok(place) => (self.of_tails(visit, tail, body, &asked).await, place),
                Err(answer) => (answer, None),
            };
        }
        let place = match self.room_for(visit, &asked).await {
            Ok(place) => place,
            Err(answer) => return (answer, None),
        };
        let answer = match (&asked, verdict) {
            (Asked::List { after, limit, .. }, Verdict::Within(folders)) => {
                let Ok(_turn) = self.listings.acquire().await else { return (busy(), None) };
                within(&*self.store, &folders, after.as_ref(), wire::most(*limit)).await
            }
            (Asked::List { .. }, _) => {
                let Ok(_turn) = self.listings.acquire().await else { return (busy(), None) };
                wire::answer(&*self.store, &asked, Bytes::new()).await
            }
            _ => wire::answer(&*self.store, &asked, Bytes::new()).await,
        };
        (answer, place)
    }

    /// What is answered about tails.
    async fn of_tails(&self, visit: &Visit, tail: &TailAsked, body: Incoming, asked: &Asked) -> Answer {
        match tail {
            TailAsked::Begin { folder } => self.tails.begin(&*self.store, folder).await,
            TailAsked::Append { length, .. } => {
                let Some(append) = Append::of(tail) else { return busy() };
                // What waits for a disk is held there, whatever becomes of the request.
                if *length > TAIL_BYTES {
                    return Answer::refused(Word::Malformed, "no tail takes so much");
                }
                match whole(&visit.puts, body, *length).await {
                    Ok((bytes, _place)) => self.tails.append(append, bytes).await,
                    Err(answer) => answer,
                }
            }
            // He may delete nothing that counts.
            TailAsked::Remove { folder } => match tails::are_left(&self.store, folder).await {
                Ok(true) => wire::answer(&*self.store, asked, Bytes::new()).await,
                Ok(false) => Answer::refused(Word::Refused, "no newer generation stands behind these tails"),
                Err(why) => Answer::refused(Word::Busy, why.to_string()),
            },
            TailAsked::Close { .. }
            | TailAsked::Read { .. }
            | TailAsked::Peek { .. }
            | TailAsked::Folders { .. } => wire::answer(&*self.store, asked, Bytes::new()).await,
        }
    }

    /// A place for the bytes of an answer, held until it was sent.
    async fn room_for(&self, visit: &Visit, asked: &Asked) -> Result<Option<OwnedSemaphorePermit>, Answer> {
        let units = match asked {
            Asked::Get { key, range } => {
                let size = self.store.size(key).await.map_err(|why| Answer::failed(&why))?;
                let wanted =
                    range.as_ref().map_or(size, |range| size.min(range.end.saturating_sub(range.start)));
                if wanted > 2 * MOST_BYTES {
                    return Err(Answer::refused(Word::Malformed, "ask for a part of so large an object"));
                }
                units(wanted)
            }
            Asked::List { .. } => LISTING_KIB,
            _ => return Ok(None),
        };
        place(&visit.answers, units).await.map(Some)
    }
}

/// What one connection has.
struct Visit {
    rights: Rights,
    puts: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    has_asked: AtomicBool,
}

/// Whose journal it is that an object of this key is a chunk of.
fn journal_of(key: &Key) -> Option<DatabaseName> {
    let mut segments = key.segments();
    let [Some("db"), Some(database), Some(_), Some("journal")] = [(); 4].map(|()| segments.next()) else {
        return None;
    };
    database.parse().ok()
}

/// A list of what is below these folders, which are sorted and none within another.
async fn within(store: &dyn ObjectStore, folders: &[KeyPrefix], after: Option<&Key>, most: usize) -> Answer {
    let mut all = Vec::new();
    for folder in folders {
        match store.list(folder, after, Some(most + 1 - all.len())).await {
            Ok(listed) => all.extend(listed),
            Err(why) => return Answer::failed(&why),
        }
        if all.len() > most {
            break;
        }
    }
    Answer::listed(all, most)
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
