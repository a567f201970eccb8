//! The files that `wal push` hands to the service, and what is answered.
//!
//! ```text
//! pusher ──▶ what it offers, then the file's bytes        service ──▶ {"stored": bool, "why": text}
//! ```
//! What always holds: "stored" is answered only after as many stores as `durable` asks for were read and hold the file's log byte by
//! byte; what is handed over is material in the room, and appended by the owner tasks alone. A crash leaves a part in the room.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::log::file_name::{LogFileName, SegmentName};
use farshore_journal::{DatabaseName, Position};
use farshore_shipper::push::room::Room;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{Does, Request, Shown, connect, heard, say};
use crate::config::Config;
use crate::pushed::Counted;

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

/// Takes what a pusher offers, and says how it went.
pub(super) async fn answer(stream: &mut BufReader<UnixStream>, does: &Does, offer: Offer) -> Option<Vec<u8>> {
    let answer = match Box::pin(take(stream, &does.config, &does.shown, offer)).await {
        Ok(()) => Answer { stored: true, why: String::new() },
        Err(why) => Answer { stored: false, why: format!("{why:#}") },
    };
    serde_json::to_vec(&answer).ok()
}

/// Takes one file into the room, and waits until it is stored.
async fn take(
    stream: &mut BufReader<UnixStream>,
    config: &Config,
    shown: &Shown,
    offer: Offer,
) -> anyhow::Result<()> {
    let (name, segment, pass_unheld) =
        tokio::time::timeout(COMING, Box::pin(receive(stream, config, shown, offer))).await??;
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
    offer: Offer,
) -> anyhow::Result<(DatabaseName, SegmentName, bool)> {
    static PUSHES: AtomicU64 = AtomicU64::new(0);
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
    let Some(mut stream) = connect(socket).await? else { return Ok(None) };
    let talked = async {
        let mut source = tokio::fs::File::open(from).await?;
        let bytes = source.metadata().await?.len();
        let offer = Offer { database: database.clone(), file: file.to_owned(), bytes, pass_unheld };
        // A service that has its answer already does not read to the end: the answer is what counts.
        let sent = async {
            say(&mut stream, &Request::Push(offer)).await?;
            tokio::io::copy(&mut source, stream.get_mut()).await?;
            anyhow::Ok(())
        };
        let sent = sent.await;
        let Some(answer) = heard(&mut stream).await? else {
            sent?;
            anyhow::bail!("the service ended before it answered");
        };
        anyhow::Ok(serde_json::from_str(&answer)?)
    };
    Ok(Some(tokio::time::timeout(COMING + PATIENCE, Box::pin(talked)).await??))
}
