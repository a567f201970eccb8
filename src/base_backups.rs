//! Takes base backups: when asked, and while the service runs when they fall due.
//!
//! What always holds: one backup at a time in this process, so that two do not share the primary's disk; a backup counts only
//! when its manifest is in the store and the journal is stored to its end; one that failed is said, and tried again later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_engines::postgres::backup::BackupOptions as CopyOptions;
use farshore_engines::postgres::sql::Session;
use farshore_journal::backup;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::store::StoreError;
use farshore_journal::{DatabaseName, IncarnationId, Position, Sequence};
pub use farshore_shipper::base_backup::Progress as TakeProgress;
use farshore_shipper::base_backup::{self, Request, Taken};
use farshore_shipper::progress::{PipelineState, Progress as Shipped};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::{self, Purpose};

/// How often it is looked whether a backup fell due.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long the journal may stand still before a backup's end without the backup being given up.
const LOG_STALL: Duration = Duration::from_secs(60);

/// Takes one base backup of a database into one store, and tells the catalog when there is one.
///
/// # Errors
/// [`Code::BackupFailed`] with what to mend: there is no backup then.
pub async fn take(
    config: &Config,
    name: &DatabaseName,
    store_name: &StoreName,
    label: &str,
    catalog: Option<&Catalog>,
    progress: &(dyn Fn(TakeProgress) + Sync),
) -> Result<Taken, OperatorMessage> {
    let failed = |why: &dyn std::fmt::Display| {
        OperatorMessage::new(
            Code::BackupFailed,
            format!("the base backup of {name} into {store_name} failed: {why}"),
            Safe::Known(
                "a backup without its manifest does not exist for a restore; older ones stay as they are"
                    .to_owned(),
            ),
            format!("mend what it says; `farshore backup run {name}` takes one now"),
        )
    };
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
    let mut primary = None;
    let mut away = "no host of it is a primary that answers".to_owned();
    for host in params.hosts() {
        let sql = match Session::connect(&params, host).await {
            Ok(sql) => sql,
            Err(why) => {
                away = why.to_string();
                continue;
            }
        };
        if matches!(sql.in_recovery().await, Ok(false)) {
            primary = Some((host.clone(), sql));
            break;
        }
    }
    let Some((host, sql)) = primary else { return Err(failed(&away)) };
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
    let next = match reader.last().await.map_err(|why| failed(&why))? {
        Some(last) => last.header().number.next().unwrap_or(Sequence::FIRST),
        None => return Err(failed(&"nothing was shipped yet: start `farshore run` first")),
    };
    let log_stored = |end| wait_for_log(reader.clone(), end);
    let taken =
        Box::pin(base_backup::take(request, next, log_stored, progress)).await.map_err(|why| failed(&why))?;
    if let Some(catalog) = catalog
        && let Err(why) = record_backup(catalog, &record, store_name, &taken).await
    {
        tracing::error!(error = %why, "the catalog lacks a backup: `farshore catalog rebuild` brings it back");
    }
    Ok(taken)
}

/// Waits until the journal in the store reaches `end`: the store itself is asked, whoever ships.
async fn wait_for_log(reader: Reader, end: Position) -> Result<Sequence, String> {
    let mut seen = None;
    let mut moved = Instant::now();
    loop {
        let last = reader.last().await.map_err(|why| why.to_string())?;
        let Some(last) = last else { return Err("the journal is empty".to_owned()) };
        let at = last.header().end_position();
        if at.timeline > end.timeline || (at.timeline == end.timeline && at.offset >= end.offset) {
            return Ok(last.header().number.next().unwrap_or(Sequence::FIRST));
        }
        if seen != Some(at) {
            (seen, moved) = (Some(at), Instant::now());
        }
        if moved.elapsed() > LOG_STALL {
            return Err(format!("the journal stands still at {at}: is `farshore run` shipping?"));
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

/// What made a backup due, so that it is taken once for it.
type Due = (DatabaseName, usize, IncarnationId, String);

/// Looks after every database until cancelled.
pub async fn keep_taken(
    config: Arc<Config>,
    shown: Vec<(DatabaseName, watch::Receiver<Vec<Shipped>>)>,
    catalog: Option<Catalog>,
    cancel: CancellationToken,
) {
    let mut taken: BTreeSet<Due> = BTreeSet::new();
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if Instant::now() < not_before {
            continue;
        }
        let Some((due, store)) = next_due(&config, &shown, &mut taken).await else { continue };
        tracing::info!(database = %due.0, store = %store, reason = due.3, "a base backup is due");
        let took = tokio::select! {
            () = cancel.cancelled() => return,
            took = Box::pin(take(&config, &due.0, &store, &due.3, catalog.as_ref(), &|_| {})) => took,
        };
        match took {
            Ok(backup) => {
                tracing::info!(database = %due.0, store = %store, backup = %backup.id, "a base backup is complete");
                taken.insert(due);
            }
            Err(why) => {
                tracing::error!("{why}");
                not_before = Instant::now() + AGAIN;
            }
        }
    }
}

/// The first target that ships and lacks a base: its journal is new or has a gap, or its store holds no complete backup.
async fn next_due(
    config: &Config,
    shown: &[(DatabaseName, watch::Receiver<Vec<Shipped>>)],
    taken: &mut BTreeSet<Due>,
) -> Option<(Due, StoreName)> {
    for (name, progress) in shown {
        let stores = &config.databases.get(name)?.stores;
        let targets = progress.borrow().clone();
        for (at, (target, store)) in targets.iter().zip(stores).enumerate() {
            let Some(incarnation) = target.incarnation.filter(|_| target.state == PipelineState::Connected)
            else {
                continue;
            };
            let reason = match &target.base_due {
                Some(reason) => reason.clone(),
                None => {
                    let first: Due = (name.clone(), at, incarnation, "first look".to_owned());
                    if taken.contains(&first) {
                        continue;
                    }
                    let Ok(has) = has_backup(config, name, store, incarnation).await else { continue };
                    taken.insert(first);
                    if has {
                        continue;
                    }
                    "the store holds no complete backup".to_owned()
                }
            };
            let due: Due = (name.clone(), at, incarnation, reason);
            if !taken.contains(&due) {
                return Some((due, store.clone()));
            }
        }
    }
    None
}

async fn has_backup(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
    incarnation: IncarnationId,
) -> anyhow::Result<bool> {
    let repository = wiring::repository(config, store).await?;
    let records = repository.incarnations(name).await?;
    let Some(record) = records.iter().find(|record| record.incarnation == incarnation) else {
        return Ok(false);
    };
    let reader = Reader::new(&repository, record)?;
    for id in backup::list(&reader).await? {
        if backup::standing(&reader, id).await?.complete.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
