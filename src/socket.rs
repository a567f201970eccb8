//! The local socket by which commands reach the service that ships: it alone has the streams.
//!
//! ```text
//! command ──▶ a request, one line of JSON; what belongs to it        service ──▶ an answer, one line of JSON
//! ```
//! What always holds: who may connect is who may open the socket's file (its owner and group). A command that is gone stops nothing
//! that it asked for; a service that ends answers nothing more.

pub mod asks;
pub mod push;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_journal::DatabaseName;
use farshore_shipper::pipeline::points::Points;
use farshore_shipper::progress::Progress;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base_backups::Streams;
use crate::config::Config;

/// Files and points that are taken at once: an archiver pushes one file at a time.
const AT_ONCE: usize = 8;
/// Base backups by hand at once: each holds up to 150 MB, beside those that are due.
const BACKUPS: usize = 1;
/// Connections at once.
const CONNECTIONS: usize = 64;
/// The longest request or answer, in bytes.
const LONGEST_LINE: u64 = 64 << 10;
/// How long a request may take to come.
const COMING: Duration = Duration::from_secs(60);
/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(200);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// To hold a file of the log against the journal; its bytes follow.
    Push(push::Offer),
    /// To name the state of a database that is there now.
    Point(asks::Point),
    /// To take a base backup.
    Backup(asks::Backup),
}

/// Each database's progress, a store each in the configuration's order.
pub type Shown = Vec<(DatabaseName, watch::Receiver<Vec<Progress>>)>;

/// What the service can do for a command.
pub struct Does {
    /// Its configuration.
    pub config: Arc<Config>,
    /// How shipping stands.
    pub shown: Shown,
    /// Where copies are asked for.
    pub streams: Streams,
    /// Where points are asked for.
    pub points: BTreeMap<DatabaseName, Points>,
    /// Who is told.
    pub catalog: Option<Catalog>,
}

/// Listens at the configured path; a socket that nobody listens at any more is replaced. Its owner and group may connect.
///
/// # Errors
/// When it cannot be made, or another process listens there.
pub async fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            let why = format!("another process listens at {}", path.display());
            return Err(std::io::Error::new(ErrorKind::AddrInUse, why));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    Ok(listener)
}

/// Serves commands until cancelled.
pub async fn serve(listener: UnixListener, does: Does, cancel: CancellationToken) {
    let does = Arc::new(does);
    let places = Arc::new(Places {
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
        pushes: Semaphore::new(AT_ONCE),
        points: Semaphore::new(AT_ONCE),
        backups: Semaphore::new(BACKUPS),
    });
    let mut served = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = served.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(connection) = Arc::clone(&places.connections).try_acquire_owned() else { continue };
        let (does, places) = (Arc::clone(&does), Arc::clone(&places));
        served.spawn(async move {
            let _connection = connection;
            let mut stream = BufReader::new(stream);
            let answer = match tokio::time::timeout(COMING, request(&mut stream)).await {
                Ok(Ok(request)) => answer(&mut stream, &does, &places, request).await,
                // Nothing that anybody understands was asked.
                Ok(Err(_)) | Err(_) => None,
            };
            if let Some(mut line) = answer {
                line.push(b'\n');
                // A command that is gone asks again.
                let _ = stream.get_mut().write_all(&line).await;
            }
        });
    }
    served.shutdown().await;
}

/// How much is done at once: none of these waits for another.
struct Places {
    connections: Arc<Semaphore>,
    pushes: Semaphore,
    points: Semaphore,
    backups: Semaphore,
}

async fn answer(
    stream: &mut BufReader<UnixStream>,
    does: &Does,
    places: &Places,
    request: Request,
) -> Option<Vec<u8>> {
    match request {
        Request::Push(offer) => {
            let _place = places.pushes.acquire().await.ok()?;
            push::answer(stream, does, offer).await
        }
        Request::Point(point) => {
            let named = async {
                let _place = places.points.acquire().await.ok()?;
                asks::line(&asks::point(does, point).await)
            };
            // A point that nobody waits for any more would be named at a later state.
            tokio::select! {
                line = named => line,
                () = gone(stream) => None,
            }
        }
        Request::Backup(backup) => {
            let Ok(_place) = places.backups.try_acquire() else {
                let busy = "another one that was asked for is under way; ask again when it is complete";
                return asks::line(&asks::Answer::<asks::Complete>::Err(busy.to_owned()));
            };
            // Who asked is gone, or wants it no more.
            tokio::select! {
                answer = Box::pin(asks::backup(does, backup)) => asks::line(&answer),
                () = gone(stream) => None,
            }
        }
    }
}

/// Resolves when the command is gone: it says nothing more behind its request.
async fn gone(stream: &mut BufReader<UnixStream>) {
    let _ = stream.read(&mut [0; 1]).await;
}

async fn request(stream: &mut BufReader<UnixStream>) -> anyhow::Result<Request> {
    let mut line = String::new();
    stream.take(LONGEST_LINE).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

/// Connects; `None` when nobody listens.
async fn connect(socket: &Path) -> std::io::Result<Option<BufReader<UnixStream>>> {
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Some(BufReader::new(stream))),
        Err(why) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Err(why) => Err(why),
    }
}

async fn say(stream: &mut BufReader<UnixStream>, request: &Request) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(stream.get_mut().write_all(&line).await?)
}

/// What was answered; nothing when the service ended before it did.
async fn heard(stream: &mut BufReader<UnixStream>) -> std::io::Result<Option<String>> {
    let mut answer = String::new();
    stream.take(LONGEST_LINE).read_line(&mut answer).await?;
    Ok(Some(answer).filter(|answer| answer.ends_with('\n')))
}
