//! Takes base backups: when asked, and while the service runs when they fall due.
//!
//! What always holds: a backup is of the primary that is shipped, and counts only when its manifest is in the store and the
//! journal holds its log from begin to end, without a gap; one of which nothing moves any more is given up; one that failed is
//! said, and tried again later. What the store holds decides whether one is due ([`farshore_shipper::base_due`]), never the
//! memory of a process.

mod keep;
mod stuck;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_engines::postgres::backup::BackupOptions as CopyOptions;
use farshore_journal::backup;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::store::{Retry, StoreError};
use farshore_journal::{DatabaseName, Position, Sequence};
pub use farshore_shipper::base_backup::Progress as TakeProgress;
use farshore_shipper::base_backup::{self, Request, Taken};
use farshore_shipper::base_due::{Held, Needed};
use farshore_shipper::{line, primary};

use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::{self, Purpose};

pub use keep::keep_taken;
use stuck::Watched;

/// How long the journal may stand still before a backup's end without the backup being given up.
const LOG_STALL: Duration = Duration::from_secs(60);
/// Between two looks at a store that does not answer.
const AWAY: Duration = Duration::from_secs(2);
/// How long nothing of a backup may move, from the server or into the store, without its being given up: it holds the
/// server's copy open, and a place that other databases wait for.
pub const STUCK: Duration = Duration::from_secs(600);

/// Takes one base backup of a database into one store, and tells the catalog when there is one. It is given up when nothing of
/// it moved for `stuck`.
///
/// # Errors
/// [`Code::BackupFailed`] with what to mend: there is no backup then.
pub async fn take(
    config: &Config,
    name: &DatabaseName,
    store_name: &StoreName,
    label: &str,
    catalog: Option<&Catalog>,
    stuck: Duration,
    progress: &(dyn Fn(TakeProgress) + Sync),
) -> Result<Taken, OperatorMessage> {
    let watched = Watched::new(stuck);
    let seen = |now: TakeProgress| {
        watched.moved(now.phase);
        progress(now);
    };
    tokio::select! {
        taken = Box::pin(take_unwatched(config, name, store_name, label, catalog, &seen)) => taken,
        () = watched.stuck() => Err(failed(
            name,
            store_name,
            &format!("nothing of it moved for {} seconds: the server or the store does not answer", stuck.as_secs()),
        )),
    }
}

fn failed(name: &DatabaseName, store: &StoreName, why: &dyn std::fmt::Display) -> OperatorMessage {
    OperatorMessage::new(
        Code::BackupFailed,
        format!("the base backup of {name} into {store} failed: {why}"),
        Safe::Known(
            "a backup without its manifest does not exist for a restore; older ones stay as they are"
                .to_owned(),
        ),
        format!("mend what it says; `farshore backup run {name}` takes one now"),
    )
}

async fn take_unwatched(
    config: &Config,
    name: &DatabaseName,
    store_name: &StoreName,
    label: &str,
    catalog: Option<&Catalog>,
    progress: &(dyn Fn(TakeProgress) + Sync),
) -> Result<Taken, OperatorMessage> {
    let failed = |why: &dyn std::fmt::Display| failed(name, store_name, why);
    let (Some(settings), Some(store_config)) = (config.databases.get(name), config.stores.get(store_name))
    else {
        return Err(failed(&"it is not in the configuration"));
    };
    let params = wiring::connect_params(name, settings)?;
    let (store, _) = wiring::open_store(config, store_name, Purpose::Write)?;
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
    let primary = primary::find(&params).await.map_err(|why| failed(&why))?;
    let (host, sql) = (primary.host, primary.sql);
    let rows = sql.setting_rows().await.map_err(|why| failed(&why))?;
    let files = sql.config_files().await.map_err(|why| failed(&why))?;
    let writer = wiring::writer_options(settings, store_config)?;
    let request = Request {
        params: &params,
        host: &host,
        reader: &reader,
        system_identifier: record
            .identity
            .parse()
            .map_err(|_| failed(&"the incarnation's identity is no number"))?,
        segment_bytes: record.segment_bytes,
        journal_end,
        copy: CopyOptions { label: format!("farshore {label}"), ..CopyOptions::default() },
        store: backup::BackupOptions {
            compression: wiring::compression(settings),
            recipients: writer.recipients,
            label: label.to_owned(),
            host: wiring::node(),
        },
        settings: rows
            .into_iter()
            .map(|row| backup::SettingRow {
                name: row.name,
                setting: row.setting,
                source: row.source,
                context: row.context,
            })
            .collect(),
        config_files: files.into_iter().map(|(path, content)| backup::ConfigFile { path, content }).collect(),
        trouble: Arc::new(|why: &StoreError| tracing::warn!(error = %why, "the backup waits for the store")),
    };
    let log_stored = |needed| wait_for_log(reader.clone(), record.segment_bytes, next, needed);
    let taken =
        Box::pin(base_backup::take(request, next, log_stored, progress)).await.map_err(|why| failed(&why))?;
    if let Some(catalog) = catalog
        && let Err(why) = record_backup(catalog, &record, store_name, &taken).await
    {
        tracing::error!(error = %why, "the catalog lacks a backup: `farshore catalog rebuild` brings it back");
    }
    Ok(taken)
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
            stored_bytes: Some(manifest.parts.iter().map(|part| part.bytes).sum()),
            state: BackupState::Complete,
            checked: true,
            label: manifest.label.clone(),
            bad_pages: taken.bad_page_count,
        })
        .await
}
