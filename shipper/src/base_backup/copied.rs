//! Takes a base backup of a database whose copy comes in the stream of its log.
//!
//! ```text
//! opening ─▶ asked of the stream ─▶ what lies beneath, then the copy ─▶ parts ─▶ log stored to the copy's end ─▶ manifest put
//! ```
//! What always holds: the manifest is put only when the copy came whole and the journal is stored from the copy's begin to its end,
//! so a backup with a manifest is restorable. The log's range is never empty: it begins with the last record before the copy, which
//! may be applied again. Whatever fails leaves an opening and parts that nobody claims.

use std::sync::Arc;
use std::time::Duration;

use farshore_engines::sqlite::backup::BENEATH;
use farshore_journal::backup::{BackupOptions, BackupWriter, Entry, EntryKind, Manifest, Trouble};
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::{Position, Sequence};
use tokio::sync::mpsc;

use super::{LogWait, Phase, Progress, TakeError, Taken};
use crate::base_due::Needed;
use crate::pipeline::copies::{Copies, CopyPart};

/// How long a copy may take to begin: a stream that runs begins it at its next look, behind another copy.
const BEGIN: Duration = Duration::from_secs(60);

/// What a backup is taken of, and how.
pub struct Request<'a> {
    /// Where the copy is asked for.
    pub copies: &'a Copies,
    /// The file's name, under which a restore writes it.
    pub file: &'a str,
    /// Its permission bits at the source.
    pub mode: u32,
    /// The incarnation's journal, in the store that the backup goes to.
    pub reader: &'a Reader,
    /// The incarnation.
    pub record: &'a IncarnationRecord,
    /// How the copy is stored.
    pub store: BackupOptions,
    /// Is told of failures of the store that are waited out.
    pub trouble: Trouble,
}

/// What came.
struct Copied {
    beneath_bytes: u64,
    copy_bytes: u64,
    start: Position,
    end: Position,
}

/// Takes a backup. `next_sequence` is the number that the journal's next chunk has now; `log_stored` is asked once, for the
/// copy's log, and answers when the journal holds all of it, with the number of its next chunk then.
///
/// # Errors
/// [`TakeError`]: there is no backup. On `Ok` it is durable and complete.
///
/// # Cancel safety
/// Dropped midway it leaves an opening and parts without a manifest; the rest of the copy goes nowhere.
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
    let trouble = Arc::clone(&request.trouble);
    let mut writer = BackupWriter::begin(request.reader, &request.store, next_sequence, trouble).await?;
    let id = writer.id();
    let said = |taken_bytes, phase| progress(Progress { taken_bytes, total_bytes: None, phase });
    said(0, Phase::Copying);
    let mut parts = request.copies.ask(request.record.incarnation);
    let first = tokio::time::timeout(BEGIN, parts.recv()).await;
    let first = first.map_err(|_| TakeError::Broken { why: "nothing is streamed of it now".to_owned() })?;
    let copied = store(&mut writer, first, parts, &said).await?;
    let Copied { beneath_bytes, copy_bytes, start, end } = copied;
    let finished = chrono::Utc::now();
    writer.end_stream().await?;
    said(writer.at(), Phase::WaitingForLog(end));
    let needed = Needed { timeline: end.timeline, start: start.offset, end: end.offset };
    let journal_end = log_stored(needed).await.map_err(|why| TakeError::LogNotStored { end, why })?;
    let mode = request.mode & 0o777;
    let entry = |path: &str, size, at| Entry {
        path: path.to_owned(),
        kind: EntryKind::File,
        mode,
        modified: finished.timestamp(),
        size,
        at: if size > 0 { at } else { 0 },
        sha256: None,
    };
    let beneath = Some(entry(BENEATH, beneath_bytes, 0)).filter(|entry| entry.size > 0);
    let manifest = Manifest {
        format: farshore_journal::format::header::VERSION,
        backup: id,
        label: request.store.label.clone(),
        engine: request.record.engine.clone(),
        major: request.record.major,
        identity: request.record.identity.clone(),
        segment_bytes: request.record.segment_bytes,
        start,
        end,
        started,
        finished: finished.to_rfc3339(),
        checksums: false,
        bad_pages: Vec::new(),
        damaged: false,
        next_transaction: None,
        journal_begin: next_sequence,
        journal_end,
        plain_bytes: 0,
        parts: Vec::new(),
        entries: beneath.into_iter().chain([entry(request.file, copy_bytes, beneath_bytes)]).collect(),
        tablespaces: Vec::new(),
        settings: Vec::new(),
        config_files: Vec::new(),
        borrowed: None,
        table: None,
    };
    said(writer.at(), Phase::Claiming);
    let (manifest, _) = writer.finish(manifest).await?;
    Ok(Taken { id, manifest, bad_page_count: 0, damaged: false })
}

/// Writes the parts as they come.
async fn store(
    writer: &mut BackupWriter,
    first: Option<CopyPart>,
    mut parts: mpsc::Receiver<CopyPart>,
    said: &(dyn Fn(u64, Phase) + Sync),
) -> Result<Copied, TakeError> {
    let (mut beneath_bytes, mut copy_bytes, mut start) = (0, 0, None);
    let mut next = first;
    while let Some(part) = next {
        match part {
            CopyPart::Beneath(bytes) if start.is_none() => {
                writer.write(&bytes).await?;
                beneath_bytes += bytes.len() as u64;
            }
            CopyPart::Begin(at) => start = Some(at),
            CopyPart::Copy(bytes) => {
                writer.write(&bytes).await?;
                copy_bytes += bytes.len() as u64;
            }
            CopyPart::Whole(end) => {
                let start = start.ok_or(TakeError::Missing { what: "begin" })?;
                return Ok(Copied { beneath_bytes, copy_bytes, start, end });
            }
            CopyPart::Beneath(_) => return Err(TakeError::Missing { what: "order" }),
            CopyPart::Broken(why) => return Err(TakeError::Broken { why }),
        }
        said(writer.at(), Phase::Copying);
        next = parts.recv().await;
    }
    Err(TakeError::Broken { why: "shipping was interrupted meanwhile".to_owned() })
}
