//! Where standbys connect that take a journal for their primary: `[serve]`.
//!
//! What always holds: what cannot be served stops nothing else of the process; nobody gets a journal whose password he has not proved, whose database he may not have, or whose
//! incarnation is another than the one that his copy is of. Whoever has not proved himself holds one of few places, one of fewer that his address has, and for a minute at most; no user takes the places of
//! all others. Whoever is turned away is counted, and told once in a while. Sessions are tasks of a set that is joined.
//!
//! ```text
//! accept ─▶ admit (TLS, password) ─▶ route (pure) ─▶ journal: the newest incarnation in the user's store ─▶ JournalServer ─▶ standby
//!                                                                                       how far it is ─▶ standbys ─▶ catalog, once a second
//! ```

pub mod holds;
mod journals;
mod known;
pub(crate) mod places;
pub(crate) mod route;
mod standbys;
mod trail;
pub(crate) mod turned;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farshore_applier::serve::Standing;
use farshore_catalog::Catalog;
use farshore_engines::postgres::serve::{Door, Guest, Refusal, ServeError, Session, Socket, Tls, shown};
use farshore_journal::Offset;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrivals;
use crate::config::serve::ServeConfig;
use crate::config::{Config, TlsFiles};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;
use holds::Holds;
use journals::{Journal, Journals};
use known::Known;
use places::{Full, Peer, Place, Places};
use standbys::{Standbys, Visit, Who};
use turned::{Tell, Turned};

/// How long proving may take, and finding the journal.
const ADMISSION: Duration = Duration::from_secs(60);
/// How long to wait when no connection can be taken, as when the process has too many files open.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked whether somebody is to be told who was turned away.
const TELL: Duration = Duration::from_secs(5);
/// SQLSTATE of a server that has no place left.
const FULL: &str = "53300";
/// A machine that vanished is noticed within about two minutes, also between two commands.
const ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// What every session needs.
struct Serving {
    config: Arc<Config>,
    door: Door,
    known: Known,
    journals: Journals,
    standbys: Arc<Standbys>,
    holds: Arc<Holds>,
    places: Arc<Places<String>>,
    turned: Mutex<Turned>,
    cancel: CancellationToken,
}

/// Serves until cancelled. Nothing is done where the configuration has no `[serve]`.
///
/// # Errors
/// When nothing can be served: what it says is for whoever started it.
pub async fn serve(
    config: Arc<Config>,
    catalog: Option<Catalog>,
    arrivals: Arrivals,
    cancel: CancellationToken,
) -> Result<(), OperatorMessage> {
    let Some(settings) = &config.serve else { return Ok(()) };
    let tls = match &settings.tls {
        None => None,
        Some(files) => {
            Some(tls(files).map_err(|why| refused(settings, &why, "mend what it says and start again"))?)
        }
    };
    let listener = TcpListener::bind(settings.listen).await.map_err(|why| {
        let next = "give `serve.listen` an address of this machine that is free, and start again";
        refused(settings, &why.to_string(), next)
    })?;
    let address = listener.local_addr().unwrap_or(settings.listen);
    tracing::info!(%address, tls = tls.is_some(), "journals are served to standbys");
    let door = Door { clear: settings.listen.ip().is_loopback(), tls };
    let standbys = Standbys::new(wiring::node());
    let holds = Arc::new(Holds::default());
    let serving = Arc::new(Serving {
        door,
        known: Known::new(),
        journals: Journals::new(Arc::clone(&config), catalog.clone(), arrivals),
        standbys: Arc::clone(&standbys),
        holds: Arc::clone(&holds),
        places: Places::of_sessions(settings.users.len()),
        turned: Mutex::default(),
        cancel: cancel.clone(),
        config: Arc::clone(&config),
    });
    // The catalog hears the last of it when all sessions are over.
    let over = CancellationToken::new();
    let holding = catalog.clone().map(|catalog| holds.watch(catalog, wiring::node(), cancel.clone()));
    let holding = async {
        if let Some(holding) = holding {
            holding.await;
        }
    };
    let telling = async {
        if let Some(catalog) = catalog {
            standbys.tell(catalog, over.clone()).await;
        }
    };
    let accepting = async {
        accept(listener, &serving).await;
        over.cancel();
    };
    let watching = serving.journals.watch(cancel.clone());
    tokio::join!(accepting, telling, watching, holding);
    Ok(())
}

async fn accept(listener: TcpListener, serving: &Arc<Serving>) {
    let strangers = Places::of_strangers();
    let mut sessions = JoinSet::new();
    let mut tell = tokio::time::interval(TELL);
    loop {
        let accepted = tokio::select! {
            () = serving.cancel.cancelled() => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            _ = tell.tick() => {
                serving.turned(|turned| turned.due(Instant::now()));
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => match strangers.take(peer.ip().into()) {
                Ok(stranger) => {
                    sessions.spawn(Arc::clone(serving).session(socket, peer, stranger));
                }
                // A standby comes again by itself.
                Err(full) => {
                    let (most, from) = match full {
                        Full::Own(most) => (most, "there"),
                        Full::All(most) => (most, "anywhere"),
                    };
                    let why = format!("{most} connections from {from} have not proved yet who they are");
                    serving.turn_away(peer, &why);
                }
            },
            Err(why) => {
                tracing::debug!(error = %why, "a standby's connection could not be taken");
                tokio::select! {
                    () = serving.cancel.cancelled() => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

impl Serving {
    /// Counts one that is turned away.
    fn turn_away(&self, peer: SocketAddr, why: &str) {
        self.turned(|turned| turned.away(peer.ip().into(), why, Instant::now()));
    }

    fn turned<T: IntoIterator<Item = Tell>>(&self, tell: impl FnOnce(&mut Turned) -> T) {
        let told = tell(&mut self.turned.lock().unwrap_or_else(PoisonError::into_inner));
        for Tell { peer, count, why } in told {
            tracing::warn!(address = %peer, count, "connections of standbys were turned away: {why}");
        }
    }

    async fn session(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, stranger: Place<Peer>) {
        let admitted = tokio::select! {
            () = self.cancel.cancelled() => return,
            admitted = tokio::time::timeout(ADMISSION, self.admit(socket, peer, stranger)) => admitted,
        };
        let (session, journal, visit, _place) = match admitted {
            Ok(Ok(Some(admitted))) => admitted,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(why @ ServeError::NotLetIn { .. })) => return self.turn_away(peer, &why.to_string()),
            Ok(Err(why)) => return tracing::debug!(%peer, error = %why, "a connection came to nothing"),
        };
        let who = visit.who();
        let heard = |standing: Standing| {
            self.holds.stands(&who.database, &who.name, standing.held, standing.sent);
            visit.stands(standing);
        };
        let wishes = self.holds.of(&who.database, &who.name);
        let served = journal.server.serve(session, who.delay, wishes, &heard, &journal.cancel).await;
        self.holds.stands(&who.database, &who.name, None, Offset::new(0));
        if let Err(why) = served {
            tracing::debug!(%peer, standby = visit.who().name, error = %why, "a standby's session is over");
        }
    }

    /// Lets somebody in, and finds what he gets.
    async fn admit(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        stranger: Place<Peer>,
    ) -> Result<Option<(Session<Socket<TcpStream>>, Journal, Visit, Place<String>)>, ServeError> {
        prepare(&socket)?;
        let Some(settings) = &self.config.serve else { return Ok(None) };
        let secrets = self.known.now(settings);
        let Some(guest) = Guest::admit(socket, &self.door, &secrets).await? else { return Ok(None) };
        let hello = guest.hello().clone();
        let Some(user) = settings.users.get(&hello.user) else { return Ok(None) };
        let place = match self.places.take(hello.user.clone()) {
            Ok(place) => place,
            Err(full) => {
                let refusal = Refusal::new(
                    FULL,
                    match full {
                        Full::Own(most) => format!("{most} standbys of this user are served already"),
                        Full::All(most) => format!("{most} standbys are served already"),
                    },
                );
                return Err(guest.turn_away(&refusal).await?);
            }
        };
        // He is none any more; looking for his journal may take as long as the store does.
        drop(stranger);
        let asked = match route::asked(&hello.options, &user.databases) {
            Ok(asked) => asked,
            Err(refusal) => return Err(guest.turn_away(&refusal).await?),
        };
        let name = match shown(&hello.application) {
            name if name.is_empty() => hello.user.clone(),
            name => name,
        };
        let journal = match self.journals.of(&asked, user.store.as_ref(), &name).await {
            Ok(journal) => journal,
            Err(refused) => {
                self.journals.refused((&asked.database, &name), &refused).await;
                return Err(guest.turn_away(&refused.refusal).await?);
            }
        };
        let who = Who {
            database: asked.database,
            name,
            login: hello.user.clone(),
            address: peer.to_string(),
            store: journal.store.clone(),
            incarnation: journal.incarnation,
            delay: asked.delay,
        };
        let visit = self.standbys.visit(who);
        let session = guest.welcome(&journal.server.greeting()).await?;
        Ok(Some((session, journal, visit, place)))
    }
}

/// Words and small messages go at once; a machine that is gone is noticed.
pub(crate) fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    socket.set_nodelay(true)?;
    let (idle, between, count) = ALIVE;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, between)?;
    sockopt::set_tcp_keepcnt(socket, count)?;
    Ok(())
}

fn tls(files: &TlsFiles) -> Result<Tls, String> {
    let said = |path: &std::path::Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|why| said(&files.certificate, &why))?;
    if chain.is_empty() {
        return Err(said(&files.certificate, &"it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| said(&files.key, &why))?;
    Tls::new(chain, key).map_err(|why| said(&files.certificate, &why))
}

/// That nothing is served there.
fn refused(settings: &ServeConfig, why: &str, next: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::ServeRefused,
        format!("no journal is served to standbys at {}: {why}", settings.listen),
        Safe::Known("shipping does not need it and goes on; standbys stay what they are and wait".to_owned()),
        next,
    )
}
