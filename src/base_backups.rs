//! Takes base backups: when asked, and while the service runs when they fall due.
//!
//! What always holds: a backup is of the primary that is shipped, and counts only when its manifest is in the store and the
//! journal holds its log from begin to end, without a gap; one of which nothing moves any more is given up; one that failed is
//! said, and tried again later. What the store holds decides whether one is due ([`farshore_shipper::base_due`]), never the
//! memory of a process.

mod keep;
mod objective;
mod sharing;
mod stuck;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_engines::postgres::backup::BackupOptions as CopyOptions;
use farshore_journal::backup::{self, Sharing};
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::store::{Retry, StoreError};
use farshore_journal::{DatabaseName, Position, Sequence};
pub use farshore_shipper::base_backup::Progress as TakeProgress;
use farshore_shipper::base_backup::{self, LogWait, Request, TakeError, Taken, copied};
use farshore_shipper::base_due::{Held, Needed};
use farshore_shipper::pipeline::copies::Copies;
use farshore_shipper::refreshing::Refreshing;
use farshore_shipper::throttle::metered::Metered;
use farshore_shipper::throttle::valve::Valve;
use farshore_shipper::{line, primary};

use crate::config::{Config, DatabaseConfig, EngineConfig, Refresh, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::{self, Purpose};

pub use keep::keep_taken;
pub use sharing::How;
use stuck::Watched;

/// How long the journal may stand still before a backup's end without the backup being given up.
const LOG_STALL: Duration = Duration::from_secs(60);
/// Between two looks at a store that does not answer.
const AWAY: Duration = Duration::from_secs(2);
/// How long nothing of a backup may move, from the server or into the store, without its being given up: it holds the
/// server's copy open, and a place that other databases wait for.
pub const STUCK: Duration = Duration::from_secs(600);

/// What this process has of a database that it ships.
#[derive(Debug, Clone)]
pub struct Streamed {
    /// Where copies are asked for, where they come in the stream of the log.
    pub copies: Copies,
    /// What all bytes pass that go to its stores.
    pub valve: Arc<Valve>,
    /// Told that a base backup is taken because of a gap.
    pub refreshing: Refreshing,
}

/// The databases that this process ships.
pub type Streams = BTreeMap<DatabaseName, Streamed>;

/// What the process that takes backups has besides.
#[derive(Clone, Copy)]
pub struct Process<'a> {
    /// The streams of what it ships.
    pub streams: &'a Streams,
    /// Who is told of a backup.
    pub catalog: Option<&'a Catalog>,
}

/// What a base backup is called, and whether it refers to what is there.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What it is called.
    pub label: &'a str,
    /// Whether it refers to what is there.
    pub how: How,
}

/// Takes one base backup of a database into one store, and tells the catalog when there is one. It is given up when nothing of
/// it moved for `stuck`.
///
/// # Errors
/// [`Code::BackupFailed`] with what to mend: there is no backup then.
pub async fn take(
    config: &Config,
    name: &DatabaseName,
    store_name: &StoreName,
    asked: Asked<'_>,
    process: Process<'_>,
    stuck: Duration,
    progress: &(dyn Fn(TakeProgress) + Sync),
) -> Result<Taken, OperatorMessage> {
    let watched = Watched::new(stuck);
    let seen = |now: TakeProgress| {
        watched.moved(now.phase);
        progress(now);
    };
    tokio::select! {
        taken = Box::pin(take_unwatched(config, name, store_name, asked, process, &seen)) => taken,
        () = watched.stuck() => Err(failed(
            name,
            store_name,
            &format!("nothing of it moved for {} seconds: the server or the store does not answer", stuck.as_secs()),
        )),
    }
}

/// There is no new backup, for this reason.
pub fn failed(name: &DatabaseName, store: &StoreName, why: &dyn std::fmt::Display) -> OperatorMessage {
    not_taken(name, format!("the base backup of {name} into {store} failed: {why}"))
}

/// There is no new backup; `what` says why.
pub fn not_taken(name: &DatabaseName, what: String) -> OperatorMessage {
    OperatorMessage::new(
        Code::BackupFailed,
        what,
        Safe::Known(
            "a backup without its manifest does not exist for a restore; older ones stay as they are"
                .to_owned(),
        ),
        format!(
            "mend what it says; the service takes one by itself when one is due, and `farshore backup run {name}` takes one now"
        ),
    )
}

async fn take_unwatched(
    config: &Config,
    name: &DatabaseName,
    store_name: &StoreName,
    asked: Asked<'_>,
    process: Process<'_>,
    progress: &(dyn Fn(TakeProgress) + Sync),
) -> Result<Taken, OperatorMessage> {
    let failed = |why: &dyn std::fmt::Display| failed(name, store_name, why);
    let (Some(settings), Some(store_config)) = (config.databases.get(name), config.stores.get(store_name))
    else {
        return Err(failed(&"it is not in the configuration"));
    };
    let (mut store, _) = wiring::open_store(config, store_name, Purpose::Write)?;
    if let Some(streamed) = process.streams.get(name) {
        store = Arc::new(Metered::new(store, Arc::clone(&streamed.valve)));
    }
    let repository = Repository::open(store).await.map_err(|why| failed(&why))?;
    let records = repository.incarnations(name).await.map_err(|why| failed(&why))?;
    let Some(record) = records.last().cloned() else {
        return Err(failed(&"nothing was shipped yet: start `farshore run` first"));
    };
    let reader = Reader::new(&repository, &record).map_err(|why| failed(&why))?;
    let Some(last) = reader.last().await.map_err(|why| failed(&why))? else {
        return Err(failed(&"nothing was shipped yet: start `farshore run` first"));
    };
    let journal_end = last.header().end_position();
    let next = last.header().number.next().unwrap_or(Sequence::FIRST);
    let stored = backup::BackupOptions {
        compression: wiring::compression(settings),
        recipients: wiring::writer_options(settings, store_config)?.recipients,
        label: asked.label.to_owned(),
        host: wiring::node(),
    };
    if asked.how == How::Refresh && settings.refresh == Refresh::Never {
        return Err(failed(
            &"`refresh = \"never\"` keeps no digests of blocks, so that there is nothing to compare with",
        ));
    }
    let place = (record.incarnation, store_name);
    let sharing = sharing::sharing(asked.how, settings.refresh, process.catalog, place).await;
    let of = Of { record: &record, reader: &reader, journal_end, next, stored, sharing };
    let taken = match &settings.engine {
        EngineConfig::Postgres { .. } => {
            Box::pin(of_server(name, settings, of, progress)).await?.map_err(|why| failed(&why))?
        }
        EngineConfig::Sqlite { path, .. } => {
            let Some(Streamed { copies, .. }) = process.streams.get(name) else {
                return Err(failed(&"nothing is streamed of it here"));
            };
            let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            use std::os::unix::fs::MetadataExt as _;
            // Looked at and not opened: a descriptor of a database that this process closes takes its locks along.
            let mode = std::fs::metadata(path).map_or(0o600, |found| found.mode());
            Box::pin(of_stream(copies, (&file, mode), of, progress)).await.map_err(|why| failed(&why))?
        }
    };
    let manifest = &taken.manifest;
    tracing::info!(
        database = %name, store = %store_name, backup = %taken.id,
        database_bytes = manifest.plain_bytes, changed_bytes = manifest.own_bytes(), moved_bytes = manifest.moved_bytes(),
        "a base backup is stored"
    );
    if let Some(catalog) = process.catalog
        && let Err(why) = record_backup(catalog, &record, store_name, &taken).await
    {
        tracing::error!(error = %why, "the catalog lacks a backup: `farshore catalog rebuild` brings it back");
    }
    Ok(taken)
}

/// A wait for a backup's log.
type LogStored = Pin<Box<dyn Future<Output = LogWait> + Send>>;

/// What a backup belongs to.
struct Of<'a> {
    record: &'a IncarnationRecord,
    reader: &'a Reader,
    journal_end: Position,
    /// The number of the journal's next chunk.
    next: Sequence,
    stored: backup::BackupOptions,
    sharing: Sharing,
}

impl Of<'_> {
    fn log_stored(&self) -> impl FnOnce(Needed) -> LogStored + use<> {
        let (reader, segment_bytes, next) = (self.reader.clone(), self.record.segment_bytes, self.next);
        move |needed| Box::pin(wait_for_log(reader, segment_bytes, next, needed))
    }

    fn trouble() -> backup::Trouble {
        Arc::new(|why: &StoreError| tracing::warn!(error = %why, "the backup waits for the store"))
    }
}

/// A server's own copy.
async fn of_server(
    name: &DatabaseName,
    settings: &DatabaseConfig,
    of: Of<'_>,
    progress: &(dyn Fn(TakeProgress) + Sync),
) -> Result<Result<Taken, anyhow::Error>, OperatorMessage> {
    let params = wiring::connect_params(name, settings)?;
    let taken = async {
        let primary = primary::find(&params).await.map_err(anyhow::Error::msg)?;
        let (host, sql) = (primary.host, primary.sql);
        let rows = sql.setting_rows().await?;
        let files = sql.config_files().await?;
        let identity = of.record.identity.parse();
        let log_stored = of.log_stored();
        let request = Request {
            params: &params,
            host: &host,
            reader: of.reader,
            system_identifier: identity
                .map_err(|_| anyhow::anyhow!("the incarnation's identity is no number"))?,
            segment_bytes: of.record.segment_bytes,
            journal_end: of.journal_end,
            copy: CopyOptions { label: format!("farshore {}", of.stored.label), ..CopyOptions::default() },
            store: of.stored,
            sharing: of.sharing,
            settings: rows
                .into_iter()
                .map(|row| backup::SettingRow {
                    name: row.name,
                    setting: row.setting,
                    source: row.source,
                    context: row.context,
                })
                .collect(),
            config_files: files
                .into_iter()
                .map(|(path, content)| backup::ConfigFile { path, content })
                .collect(),
            trouble: Of::trouble(),
        };
        Ok(Box::pin(base_backup::take(request, of.next, log_stored, progress)).await?)
    };
    Ok(taken.await)
}

/// A copy that comes in the stream of the log.
async fn of_stream(
    copies: &Copies,
    (file, mode): (&str, u32),
    of: Of<'_>,
    progress: &(dyn Fn(TakeProgress) + Sync),
) -> Result<Taken, TakeError> {
    let log_stored = of.log_stored();
    let Of { record, reader, next, stored, .. } = of;
    let trouble = Of::trouble();
    let request = copied::Request { copies, file, mode, reader, record, store: stored, trouble };
    copied::take(request, next, log_stored, progress).await
}

/// Waits until the journal in the store holds a backup's log: the store itself is asked, whoever ships. `next` is the number that
/// the journal's next chunk had when the backup began.
async fn wait_for_log(
    reader: Reader,
    segment_bytes: u64,
    next: Sequence,
    needed: Needed,
) -> Result<Sequence, String> {
    let mut seen: Option<Position> = None;
    let mut moved = Instant::now();
    let mut away: Option<Instant> = None;
    loop {
        let line = match line::read(&reader, segment_bytes, next).await {
            Ok(Some(line)) => line,
            Ok(None) => return Err("the journal is empty".to_owned()),
            // The parts are stored: a store that is away for a while does not make them worthless.
            Err(why)
                if matches!(why.retry(), Retry::Now | Retry::Backoff)
                    && away.get_or_insert_with(Instant::now).elapsed() <= STUCK =>
            {
                tracing::warn!(error = %why, "the backup waits for the store");
                tokio::time::sleep(AWAY).await;
                continue;
            }
            Err(why) => return Err(why.to_string()),
        };
        if away.take().is_some() {
            moved = Instant::now();
        }
        match line.holds(needed) {
            Held::Whole => return Ok(line.last.next().unwrap_or(Sequence::FIRST)),
            Held::Never(why) => return Err(why.to_string()),
            Held::NotYet => {}
        }
        if seen != Some(line.end) {
            (seen, moved) = (Some(line.end), Instant::now());
        }
        if moved.elapsed() > LOG_STALL {
            return Err(format!("the journal stands still at {}: is `farshore run` shipping?", line.end));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn record_backup(
    catalog: &Catalog,
    record: &IncarnationRecord,
    store: &StoreName,
    taken: &Taken,
) -> farshore_catalog::Result<()> {
    let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap_or_else(|_| Utc::now());
    let manifest = &taken.manifest;
    catalog
        .backup_insert(&Backup {
            id: taken.id,
            incarnation: record.incarnation,
            store: store.to_string(),
            timeline: manifest.start.timeline,
            start: manifest.start.offset,
            end: Some(manifest.end.offset),
            started_at: time(&manifest.started),
            finished_at: Some(time(&manifest.finished)),
            bytes: Some(manifest.plain_bytes),
            stored_bytes: Some(manifest.moved_bytes()),
            state: BackupState::Complete,
            checked: true,
            label: manifest.label.clone(),
            // A server may have found a page that was right again when it was looked at here.
            bad_pages: Some(taken.bad_page_count.max(u64::from(taken.damaged))),
            bad_at: None,
        })
        .await
}
