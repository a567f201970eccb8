//! Takes a base backup: the server's own copy, streamed into the store, checked on the way. [`copied`] takes those that come in
//! the stream of the log.
//!
//! ```text
//! opening ─▶ BASE_BACKUP ─▶ parts ─▶ server's manifest checked ─▶ log stored to the copy's end ─▶ manifest put
//! ```
//! What always holds: the manifest is put only when every file is what the server's own manifest lists and the journal is
//! stored from the copy's begin to its end, so a backup with a manifest is restorable; it is of the primary whose log the
//! journal holds, since its begin lies on the journal's timeline at or behind the journal's end when it was asked for; pages
//! with a wrong checksum are recorded, never hidden. Whatever fails leaves an opening and parts that nobody claims.
//! What it does not do: it does not ship the log, and it does not decide when a backup is due.

pub mod copied;
mod record;

use std::future::Future;
use std::sync::Arc;

use farshore_engines::postgres::backup::{
    ArchiveError, ArchiveFeed, ArchiveReport, BackupEvent, BackupOptions as CopyOptions, BackupStream,
    Manifest as Listed, ManifestError, Mismatch, PageRules, archive_channel, read_archive,
};
use farshore_engines::postgres::restore::control::{ControlError, ControlFile};
use farshore_engines::postgres::wire::{ConnectParams, Connection, Error as WireError, Host};
use farshore_journal::backup::{
    BackupOptions, BadPage, ConfigFile, Entry, EntryKind, FilesWriter, Manifest, SettingRow, Sharing,
    Tablespace, Trouble,
};
use farshore_journal::reader::Reader;
use farshore_journal::{BackupId, JournalError, Position, Sequence};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::base_due::Needed;
use record::{Item, Recorder};

/// Bytes of the stream that wait for the store's side, in pieces of up to 256 KiB: 16 MiB.
const WAITING: usize = 64;
/// The server's manifest is JSON of some hundred bytes a file.
const MAX_LISTED_BYTES: usize = 1 << 30;
/// The control file, from which the next transaction's number is taken.
const CONTROL_FILE: &str = "global/pg_control";
/// The name of the server's manifest in the copy.
const LISTED: &str = "backup_manifest";

/// What a backup is taken of, and how.
pub struct Request<'a> {
    /// How to connect.
    pub params: &'a ConnectParams,
    /// To which host.
    pub host: &'a Host,
    /// The incarnation's journal, in the store that the backup goes to.
    pub reader: &'a Reader,
    /// What the incarnation's record calls the server: a copy of another one is refused.
    pub system_identifier: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Where the journal ended before the copy was asked for. A server that is not there yet, or on another timeline, is not the
    /// one that is shipped: a copy of it would be of no use, or worse, would look like one of the journal's own.
    pub journal_end: Position,
    /// How the server copies.
    pub copy: CopyOptions,
    /// How the copy is stored.
    pub store: BackupOptions,
    /// Whether blocks that an earlier backup holds are put again.
    pub sharing: Sharing,
    /// Rows of the source's `pg_settings`.
    pub settings: Vec<SettingRow>,
    /// The source's configuration files, wherever they lie.
    pub config_files: Vec<ConfigFile>,
    /// Is told of failures of the store that are waited out.
    pub trouble: Trouble,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of files taken from the server.
    pub taken_bytes: u64,
    /// Bytes in all, as the server estimated them.
    pub total_bytes: Option<u64>,
    /// What is being done.
    pub phase: Phase,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The server's checkpoint is waited for.
    Checkpoint,
    /// Files are copied.
    Copying,
    /// All is copied; the last parts go to the store.
    Storing,
    /// The journal is waited for, up to this position.
    WaitingForLog(Position),
    /// The manifest goes to the store.
    Claiming,
}

/// A backup that is complete: restorable from its end on.
#[derive(Debug)]
pub struct Taken {
    /// Its id.
    pub id: BackupId,
    /// What it holds.
    pub manifest: Manifest,
    /// Pages with a wrong checksum, more than the manifest names.
    pub bad_page_count: u64,
    /// Whether the server itself said that the copy has damaged pages.
    pub damaged: bool,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The server, or the connection to it.
    #[error(transparent)]
    Server(#[from] WireError),
    /// The store.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The server is not the one whose journal this is.
    #[error("the server is cluster {found}, the journal is of {expected}")]
    AnotherCluster {
        /// The server's.
        found: u64,
        /// The journal's.
        expected: u64,
    },
    /// The server does not continue the journal.
    #[error(
        "the server is at {found}, the journal ends at {journal_end}: it is not the primary that is shipped, or not yet"
    )]
    NotTheShipped {
        /// Where the server is, or where its copy begins.
        found: Position,
        /// Where the journal ended.
        journal_end: Position,
    },
    /// What the server sent as archive is none.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The server's manifest.
    #[error(transparent)]
    Listed(#[from] ManifestError),
    /// Files are not what the server's manifest lists.
    #[error("{} files are not what the server's manifest lists, the first: {:?}", .mismatches.len(), .mismatches.first())]
    Mismatch {
        /// Which, and how they differ.
        mismatches: Vec<Mismatch>,
    },
    /// The copied control file.
    #[error("the copied control file is damaged")]
    Control(#[from] ControlError),
    /// Something essential did not come.
    #[error("the server's copy has no {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// The journal will not be stored up to the copy's end.
    #[error("the log was not stored from the copy's begin to {end}: {why}")]
    LogNotStored {
        /// The copy's end.
        end: Position,
        /// Why.
        why: String,
    },
    /// A copy that comes in the stream of the log broke off.
    #[error("the copy broke off: {why}")]
    Broken {
        /// Why.
        why: String,
    },
    /// A worker ended without a result.
    #[error("the backup was cut off")]
    CutOff,
}

/// What the journal's side says of a wait for a position.
pub type LogWait = Result<Sequence, String>;

/// Takes a backup. `next_sequence` is the number that the journal's next chunk has now; `log_stored` is asked once, for the
/// copy's log, and answers when the journal holds all of it, with the number of its next chunk then.
///
/// # Errors
/// [`TakeError`]: there is no backup. On `Ok` it is durable and complete.
///
/// # Cancel safety
/// Dropped midway it leaves an opening and parts without a manifest; the server ends its copy.
pub async fn take<W, F>(
    request: Request<'_>,
    next_sequence: Sequence,
    log_stored: W,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Taken, TakeError>
where
    W: FnOnce(Needed) -> F,
    F: Future<Output = LogWait>,
{
    let started = chrono::Utc::now().to_rfc3339();
    let mut connection = Connection::connect(request.params, request.host).await?;
    let identity = connection.identify_system().await?;
    if identity.system_identifier != request.system_identifier {
        let (found, expected) = (identity.system_identifier, request.system_identifier);
        return Err(TakeError::AnotherCluster { found, expected });
    }
    // Before anything is asked of it: a checkpoint alone would make a server go its own way that is only behind.
    let flushed = Position::new(identity.timeline, identity.flushed);
    continues(request.journal_end, flushed)?;
    let checksums = connection.show("data_checksums").await? == "on";
    let major = connection.server_version().major;
    // The opening names the journal's next number, so it stands before the copy's start.
    let trouble = Arc::clone(&request.trouble);
    let begun = FilesWriter::begin(request.reader, &request.store, next_sequence, &request.sharing, trouble);
    let (writer, full) = Box::pin(begun).await?;
    let id = writer.id();
    match (writer.base(), full) {
        (Some(base), _) => {
            tracing::info!(backup = %id, refers_to = %base, "blocks that an earlier base backup holds are not put again")
        }
        (None, Some(why)) => {
            tracing::info!(backup = %id, reason = why, "all blocks are put: no earlier base backup may be referred to")
        }
        (None, None) => {}
    }
    progress(Progress { taken_bytes: 0, total_bytes: None, phase: Phase::Checkpoint });

    let stream = BackupStream::start(connection, request.copy.clone())?;
    let (items, received) = mpsc::channel(WAITING);
    let (copied, stored) = tokio::join!(
        Box::pin(copy(stream, request.journal_end, checksums, items, progress)),
        Box::pin(store(writer, received)),
    );
    // Where the store's side failed, the copy's failure is only that nobody takes it.
    let (mut writer, mut entries) = stored?;
    let copied = copied?;
    let Copied { start, end, damaged, tablespaces, reports, listed, control } = copied;
    progress(Progress { taken_bytes: writer.at(), total_bytes: None, phase: Phase::Storing });

    let parsed = Listed::parse(&listed)?;
    let mismatches = parsed.check(reports.iter().flat_map(|report| &report.files));
    if !mismatches.is_empty() {
        return Err(TakeError::Mismatch { mismatches });
    }
    let control = ControlFile::parse(&control.ok_or(TakeError::Missing { what: "control file" })?)?;
    add_digests(&mut entries, &reports);
    let at = writer.at();
    writer.begin_file(LISTED, listed.len() as u64).await?;
    writer.write(&listed).await?;
    entries.push(Entry {
        path: LISTED.to_owned(),
        kind: EntryKind::File,
        mode: 0o600,
        modified: chrono::Utc::now().timestamp(),
        size: listed.len() as u64,
        at,
        sha256: None,
    });
    let finished = chrono::Utc::now().to_rfc3339();
    writer.end_stream().await?;
    progress(Progress { taken_bytes: writer.at(), total_bytes: None, phase: Phase::WaitingForLog(end) });
    let needed = Needed { timeline: end.timeline, start: start.offset, end: end.offset };
    let journal_end = log_stored(needed).await.map_err(|why| TakeError::LogNotStored { end, why })?;

    let bad_page_count = reports.iter().map(|report| report.bad_page_count).sum();
    let bad_pages = reports.iter().flat_map(|report| &report.bad_pages);
    let bad_pages = bad_pages.map(|page| BadPage { path: page.path.clone(), page: page.block.into() });
    let manifest = Manifest {
        format: farshore_journal::format::header::VERSION,
        backup: id,
        label: request.store.label.clone(),
        engine: "postgres".to_owned(),
        major,
        identity: request.system_identifier.to_string(),
        segment_bytes: request.segment_bytes,
        start,
        end,
        started,
        finished,
        checksums,
        bad_pages: bad_pages.collect(),
        damaged,
        next_transaction: Some(control.next_xid),
        journal_begin: next_sequence,
        journal_end,
        plain_bytes: 0,
        parts: Vec::new(),
        entries,
        tablespaces,
        settings: request.settings,
        config_files: request.config_files,
        borrowed: None,
        table: None,
    };
    progress(Progress { taken_bytes: writer.at(), total_bytes: None, phase: Phase::Claiming });
    let (manifest, _) = writer.finish(manifest).await?;
    Ok(Taken { id, manifest, bad_page_count, damaged })
}

/// A server of the journal's source is at or behind the journal's end, on its timeline: it flushes before it sends.
fn continues(journal_end: Position, found: Position) -> Result<(), TakeError> {
    match found.timeline == journal_end.timeline && found.offset >= journal_end.offset {
        true => Ok(()),
        false => Err(TakeError::NotTheShipped { found, journal_end }),
    }
}

/// What came from the server besides the files.
struct Copied {
    start: Position,
    end: Position,
    damaged: bool,
    tablespaces: Vec<Tablespace>,
    reports: Vec<ArchiveReport>,
    listed: Vec<u8>,
    control: Option<Vec<u8>>,
}

type Reading = (ArchiveFeed, JoinHandle<(Result<ArchiveReport, ArchiveError>, Option<Vec<u8>>)>);

/// Receives the server's copy; archives are read on a blocking thread, whose entries go to `items`.
async fn copy(
    mut stream: BackupStream,
    journal_end: Position,
    checksums: bool,
    items: mpsc::Sender<Item>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Copied, TakeError> {
    let BackupEvent::Started { start, tablespaces } = stream.next_event().await? else {
        return Err(TakeError::Missing { what: "start" });
    };
    continues(journal_end, start)?;
    let total_bytes = tablespaces.iter().map(|tablespace| tablespace.size_bytes).sum::<Option<u64>>();
    let outside = tablespaces.iter().filter_map(|tablespace| {
        Some(Tablespace { oid: tablespace.oid?, location: tablespace.location.clone()? })
    });
    let outside: Vec<Tablespace> = outside.collect();
    let (mut reports, mut control, mut listed) = (Vec::new(), None, Vec::new());
    let mut reading: Option<Reading> = None;
    let mut taken_bytes = 0;
    let (end, damaged) = loop {
        match stream.next_event().await? {
            BackupEvent::Started { .. } => {
                return Err(TakeError::Missing { what: "order: it started twice" });
            }
            BackupEvent::Archive { tablespace } => {
                close(&mut reading, &mut reports, &mut control).await?;
                let (feed, source) = archive_channel();
                let items = items.clone();
                let pages = checksums.then_some(PageRules { backup_start: start.offset });
                let read = move || {
                    let mut recorder = Recorder::new(items, tablespace);
                    let report = read_archive(source, tablespace, pages, &mut recorder);
                    (report, recorder.into_control())
                };
                reading = Some((feed, tokio::task::spawn_blocking(read)));
            }
            BackupEvent::Data(bytes) => {
                taken_bytes += bytes.len() as u64;
                progress(Progress { taken_bytes, total_bytes, phase: Phase::Copying });
                let taken = match &mut reading {
                    Some((feed, _)) => feed.put(bytes).await,
                    None => return Err(TakeError::Missing { what: "archive for its bytes" }),
                };
                if !taken {
                    close(&mut reading, &mut reports, &mut control).await?;
                    return Err(TakeError::CutOff);
                }
            }
            BackupEvent::Manifest(bytes) => {
                close(&mut reading, &mut reports, &mut control).await?;
                if listed.len() + bytes.len() > MAX_LISTED_BYTES {
                    return Err(TakeError::Missing { what: "manifest of a bounded size" });
                }
                listed.extend_from_slice(&bytes);
            }
            BackupEvent::Progress(_) => {}
            BackupEvent::Finished { end, damaged } => break (end, damaged),
        }
    };
    stream.into_connection()?.close().await;
    Ok(Copied { start, end, damaged, tablespaces: outside, reports, listed, control })
}

async fn close(
    reading: &mut Option<Reading>,
    reports: &mut Vec<ArchiveReport>,
    control: &mut Option<Vec<u8>>,
) -> Result<(), TakeError> {
    if let Some((feed, reader)) = reading.take() {
        feed.finish().await;
        let (report, seen) = reader.await.map_err(|_| TakeError::CutOff)?;
        reports.push(report?);
        *control = control.take().or(seen);
    }
    Ok(())
}

/// Writes what comes, and notes whose bytes are whose.
async fn store(
    mut writer: FilesWriter,
    mut received: mpsc::Receiver<Item>,
) -> Result<(FilesWriter, Vec<Entry>), TakeError> {
    let mut entries: Vec<Entry> = Vec::new();
    while let Some(item) = received.recv().await {
        match item {
            Item::Entry(mut entry) => {
                entry.at = if entry.size > 0 { writer.at() } else { 0 };
                writer.begin_file(&entry.path, entry.size).await?;
                entries.push(entry);
            }
            Item::Bytes(bytes) => writer.write(&bytes).await?,
        }
    }
    Ok((writer, entries))
}

fn add_digests(entries: &mut [Entry], reports: &[ArchiveReport]) {
    let seen = reports.iter().flat_map(|report| &report.files);
    let seen: std::collections::HashMap<&[u8], [u8; 32]> =
        seen.map(|file| (file.path.as_slice(), file.sha256)).collect();
    for entry in entries.iter_mut().filter(|entry| entry.kind == EntryKind::File) {
        entry.sha256 = seen.get(entry.path.as_bytes()).map(record::hexadecimal);
    }
}
