//! The local socket to which `wal push` hands its files, and what is answered.
//!
//! ```text
//! pusher ──▶ {"database", "file", "bytes"}\n, then the bytes        service ──▶ {"stored": bool, "why": text}\n
//! ```
//! What always holds: "stored" is answered only after as many stores as `durable` asks for were read and hold the file's log byte by
//! byte; what is handed over is material in the room, and appended by the owner tasks alone. A crash leaves a part in the room.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::log::file_name::{LogFileName, SegmentName};
use farshore_journal::{DatabaseName, Position};
use farshore_shipper::progress::Progress;
use farshore_shipper::push::room::Room;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::pushed::Counted;

/// Files that are taken in at once; an archiver pushes one at a time.
const AT_ONCE: usize = 8;
/// The longest first line, in bytes.
const LONGEST_LINE: u64 = 4096;
/// How long a file may take to come.
const COMING: Duration = Duration::from_secs(60);
/// How long a file may wait for the stores before PostgreSQL is told to ask again.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// What a pusher says first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offer {
    /// Whose log.
    pub database: DatabaseName,
    /// The file's name.
    pub file: String,
    /// How many bytes follow.
    pub bytes: u64,
    /// Whether a file passes that the journal will never hold.
    pub pass_unheld: bool,
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Whether as many stores as are required hold it.
    pub stored: bool,
    /// Why not.
    pub why: String,
}

/// Each database's progress, a store each in the configuration's order.
pub type Shown = Vec<(DatabaseName, watch::Receiver<Vec<Progress>>)>;

/// Listens at the configured path; a socket that nobody listens at any more is replaced. Its owner and group may connect.
///
/// # Errors
/// When it cannot be made, or another process listens there.
pub async fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            let why = format!("another process listens at {}", path.display());
            return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, why));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    Ok(listener)
}

/// Takes files in until cancelled.
pub async fn serve(listener: UnixListener, config: Arc<Config>, shown: Shown, cancel: CancellationToken) {
    let shown = Arc::new(shown);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut pushes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = pushes.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let (config, shown, room) = (Arc::clone(&config), Arc::clone(&shown), Arc::clone(&room));
        pushes.spawn(async move {
            let Ok(_permit) = room.acquire().await else { return };
            let mut stream = BufReader::new(stream);
            let answer = match Box::pin(take(&mut stream, &config, &shown)).await {
                Ok(()) => Answer { stored: true, why: String::new() },
                Err(why) => Answer { stored: false, why: format!("{why:#}") },
            };
            let Ok(mut line) = serde_json::to_vec(&answer) else { return };
            line.push(b'\n');
            // A pusher that is gone asks again.
            let _ = stream.get_mut().write_all(&line).await;
        });
    }
    pushes.shutdown().await;
}

/// Takes one file into the room, and waits until it is stored.
async fn take(stream: &mut BufReader<UnixStream>, config: &Config, shown: &Shown) -> anyhow::Result<()> {
    let (name, segment, pass_unheld) =
        tokio::time::timeout(COMING, Box::pin(receive(stream, config, shown))).await??;
    let Some((_, progress)) = shown.iter().find(|(of, _)| *of == name) else {
        anyhow::bail!("{name} is not shipped by this service");
    };
    let file = config.service.room(&name).join(segment.to_string());
    let end = segment.end().unwrap_or(segment.start());
    let begun = Instant::now();
    let mut counted = Counted::new(pass_unheld);
    loop {
        let stored: Vec<Option<Position>> = progress.borrow().iter().map(|target| target.stored).collect();
        let reached = |at: usize| {
            stored.get(at).copied().flatten().is_some_and(|stored| {
                stored.timeline > segment.timeline()
                    || (stored.timeline == segment.timeline() && stored.offset >= end)
            })
        };
        match Box::pin(counted.look(config, &name, &file, reached)).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // It will never be held: it must not stand in the way of the right file.
            Err(why) => {
                let _ = tokio::fs::remove_file(&file).await;
                return Err(why);
            }
        }
        if begun.elapsed() > PATIENCE {
            anyhow::bail!("{}", counted.why());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn receive(
    stream: &mut BufReader<UnixStream>,
    config: &Config,
    shown: &Shown,
) -> anyhow::Result<(DatabaseName, SegmentName, bool)> {
    static PUSHES: AtomicU64 = AtomicU64::new(0);
    let mut line = String::new();
    (&mut *stream).take(LONGEST_LINE).read_line(&mut line).await?;
    let offer: Offer = serde_json::from_str(&line)?;
    anyhow::ensure!(
        shown.iter().any(|(name, _)| *name == offer.database),
        "{} is not shipped by this service",
        offer.database
    );
    // A segment's size is a power of two, so a file's length is one or it is no segment.
    let segment = match LogFileName::parse(&offer.file, SegmentBytes::new(offer.bytes)?)? {
        LogFileName::Segment(segment) => segment,
        other => anyhow::bail!("{other} is no whole segment"),
    };
    let room = Room::new(config.service.room(&offer.database));
    let part = room.part(&segment, &format!("{}", PUSHES.fetch_add(1, Ordering::Relaxed)))?;
    let mut file = tokio::fs::File::create(&part).await?;
    tokio::io::copy(&mut (&mut *stream).take(offer.bytes), &mut file).await?;
    file.flush().await?;
    drop(file);
    tokio::task::spawn_blocking(move || room.take_in(&segment, &part)).await??;
    Ok((offer.database, segment, offer.pass_unheld))
}

/// Hands a file over and waits for the answer. `None` when nobody listens.
///
/// # Errors
/// When someone listens and does not answer.
pub async fn hand_over(
    socket: &Path,
    database: &DatabaseName,
    file: &str,
    from: &Path,
    pass_unheld: bool,
) -> anyhow::Result<Option<Answer>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(why) if nobody(&why) => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let mut stream = BufReader::new(stream);
    let talked = async {
        let mut source = tokio::fs::File::open(from).await?;
        let bytes = source.metadata().await?.len();
        let mut line = serde_json::to_vec(&Offer {
            database: database.clone(),
            file: file.to_owned(),
            bytes,
            pass_unheld,
        })?;
        line.push(b'\n');
        // A service that has its answer already does not read to the end: the answer is what counts.
        let sent = async {
            stream.get_mut().write_all(&line).await?;
            tokio::io::copy(&mut source, stream.get_mut()).await?;
            std::io::Result::Ok(())
        };
        let sent = sent.await;
        let mut answer = String::new();
        (&mut stream).take(64 * LONGEST_LINE).read_line(&mut answer).await?;
        if answer.is_empty() {
            sent?;
            anyhow::bail!("the service ended before it answered");
        }
        anyhow::Ok(serde_json::from_str(&answer)?)
    };
    Ok(Some(tokio::time::timeout(COMING + PATIENCE, Box::pin(talked)).await??))
}

fn nobody(why: &std::io::Error) -> bool {
    matches!(why.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}
