//! Takes base backups: when asked, and while the service runs when they fall due.
//!
//! What always holds: one backup at a time in this process, so that two do not share the primary's disk; a backup counts only
//! when its manifest is in the store and the journal is stored to its end; one that failed is said, and tried again later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_engines::postgres::backup::BackupOptions as CopyOptions;
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::sql::Session;
use farshore_engines::postgres::wire::{ConnectParams, Host};
use farshore_journal::backup;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::header::HEADER_BYTES;
use farshore_journal::format::{Header, Kind};
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::store::StoreError;
use farshore_journal::{DatabaseName, IncarnationId, JournalError, Position, Sequence, Timeline};
pub use farshore_shipper::base_backup::Progress as TakeProgress;
use farshore_shipper::base_backup::{self, Phase, Request, Taken};
use farshore_shipper::progress::{PipelineState, Progress as Shipped};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StoreName};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::{self, Purpose};

/// How often it is looked whether a backup fell due.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a backup may stand still before it is given up, so that others are taken.
const STALL: Duration = Duration::from_secs(600);
/// Heads of chunks that are read at once.
const LOOKS: usize = 16;
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
    let (host, sql) = primary(&params).await.map_err(|why| failed(&why))?;
    let rows = sql.setting_rows().await.map_err(|why| failed(&why))?;
    let files = sql.config_files().await.map_err(|why| failed(&why))?;
    let writer = wiring::writer_options(settings, store_config)?;
    let (next, journal_end) = match reader.last().await.map_err(|why| failed(&why))? {
        Some(last) => (last.header().number.next().unwrap_or(Sequence::FIRST), last.header().end_position()),
        None => return Err(failed(&"nothing was shipped yet: start `farshore run` first")),
    };
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
    let log_stored = |end| wait_for_log(reader.clone(), next, journal_end, end);
    let taken =
        Box::pin(base_backup::take(request, next, log_stored, progress)).await.map_err(|why| failed(&why))?;
    if let Some(catalog) = catalog
        && let Err(why) = record_backup(catalog, &record, store_name, &taken).await
    {
        tracing::error!(error = %why, "the catalog lacks a backup: `farshore catalog rebuild` brings it back");
    }
    Ok(taken)
}

/// The host that takes writes; of several the one on the newest timeline, as the shipper chooses. Otherwise why there is none.
async fn primary(params: &ConnectParams) -> Result<(Host, Session), String> {
    let mut found: Option<(Timeline, Host, Session)> = None;
    let mut away = "no host of it is a primary that answers".to_owned();
    for host in params.hosts() {
        let sql = match Session::connect(params, host).await {
            Ok(sql) => sql,
            Err(why) => {
                away = why.to_string();
                continue;
            }
        };
        let (Ok(false), Ok(at)) = (sql.in_recovery().await, sql.current_position().await) else { continue };
        if found.as_ref().is_none_or(|(timeline, _, _)| *timeline < at.timeline) {
            found = Some((at.timeline, host.clone(), sql));
        }
    }
    found.map(|(_, host, sql)| (host, sql)).ok_or(away)
}

/// Waits until the journal in the store holds the log up to `end`, without a gap since `begin`, where the journal ended before
/// the backup began and its next chunk had the number `next`. The store itself is asked, whoever ships.
async fn wait_for_log(
    reader: Reader,
    next: Sequence,
    begin: Position,
    end: Position,
) -> Result<Sequence, String> {
    let words = |why: JournalError| why.to_string();
    let mut seen = None;
    let mut moved = Instant::now();
    loop {
        let last = reader.last().await.map_err(words)?;
        let Some(last) = last else { return Err("the journal is empty".to_owned()) };
        let (at, number) = (last.header().end_position(), last.header().number);
        if at.timeline > end.timeline {
            // What lies beyond the fork is not the new timeline's past, and will never be stored.
            let branch = reader.branch(at.timeline, number).await.map_err(words)?;
            let left_at = branch
                .and_then(|body| TimelineHistory::parse(at.timeline, &body.history).ok())
                .and_then(|history| history.leaves(end.timeline));
            if left_at.is_none_or(|left_at| left_at < end.offset) {
                return Err(format!("the journal went on with timeline {} before {end}", at.timeline));
            }
        }
        if at.timeline > end.timeline || (at.timeline == end.timeline && at.offset >= end.offset) {
            no_gap(&reader, next, number, begin, end).await?;
            return Ok(number.next().unwrap_or(Sequence::FIRST));
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

/// Looks at the heads of the chunks from `next` to `last` for a gap before `end`. Heads only: the bodies may be all that was
/// written during the backup.
async fn no_gap(
    reader: &Reader,
    next: Sequence,
    last: Sequence,
    begin: Position,
    end: Position,
) -> Result<(), String> {
    let mut number = next;
    let mut looks = JoinSet::new();
    loop {
        while looks.len() < LOOKS && number <= last {
            looks.spawn(head(reader.clone(), number));
            let Some(behind) = number.next() else { break };
            number = behind;
        }
        let Some(looked) = looks.join_next().await else { return Ok(()) };
        let head = looked.map_err(|why| why.to_string())?.map_err(|why| why.to_string())?;
        let within = head.timeline == end.timeline && head.start < end.offset && head.end > begin.offset;
        if head.kind == Kind::Gap && within {
            return Err(format!("the log from {} to {} is missing", head.start, head.end));
        }
    }
}

async fn head(reader: Reader, number: Sequence) -> Result<Header, JournalError> {
    let key = reader.layout().chunk(number)?;
    if let Ok(bytes) = reader.store().get_range(&key, 0..HEADER_BYTES as u64).await
        && let Ok(header) = Header::decode(&bytes)
    {
        return Ok(header);
    }
    Ok(reader.expected_chunk(number).await?.header().clone())
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
    // One that failed is tried again later, and holds up no other.
    let mut not_before: BTreeMap<Due, Instant> = BTreeMap::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        not_before.retain(|_, until| *until > Instant::now());
        let next = next_due(&config, &shown, catalog.as_ref(), &mut taken, &not_before).await;
        let Some((due, store)) = next else { continue };
        tracing::info!(database = %due.0, store = %store, reason = due.3, "a base backup is due");
        let moved = Moved::default();
        let tell = |progress: TakeProgress| moved.saw(progress);
        let took = tokio::select! {
            () = cancel.cancelled() => return,
            took = Box::pin(take(&config, &due.0, &store, &due.3, catalog.as_ref(), &tell)) => took,
            () = moved.stalled() => Err(OperatorMessage::new(
                Code::BackupFailed,
                format!("the base backup of {} into {store} did not move for {} s and is given up", due.0, STALL.as_secs()),
                Safe::Known("a backup without its manifest does not exist for a restore; older ones stay as they are".to_owned()),
                format!("look at the store and the server; it is tried again, or by `farshore backup run {}`", due.0),
            )),
        };
        match took {
            Ok(backup) => {
                tracing::info!(database = %due.0, store = %store, backup = %backup.id, "a base backup is complete");
                taken.insert(due);
            }
            Err(why) => {
                tracing::error!("{why}");
                not_before.insert(due, Instant::now() + AGAIN);
            }
        }
    }
}

/// When a backup last moved, so that one that hangs is given up.
struct Moved(Mutex<(Option<TakeProgress>, Instant)>);

impl Default for Moved {
    fn default() -> Self {
        Self(Mutex::new((None, Instant::now())))
    }
}

impl Moved {
    fn saw(&self, progress: TakeProgress) {
        if let Ok(mut last) = self.0.lock()
            && last.0 != Some(progress)
        {
            *last = (Some(progress), Instant::now());
        }
    }

    async fn stalled(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            // Its own wait for the log has its own end.
            let moves = self.0.lock().is_ok_and(|last| {
                last.1.elapsed() < STALL
                    || matches!(last.0.map(|seen| seen.phase), Some(Phase::WaitingForLog(_)))
            });
            if !moves {
                return;
            }
        }
    }
}

/// The first target that ships and lacks a base: its journal is new or has a gap, or its store holds no complete backup.
async fn next_due(
    config: &Config,
    shown: &[(DatabaseName, watch::Receiver<Vec<Shipped>>)],
    catalog: Option<&Catalog>,
    taken: &mut BTreeSet<Due>,
    not_before: &BTreeMap<Due, Instant>,
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
                    let Ok(lacks) = lacks_base(config, name, store, incarnation, catalog).await else {
                        continue;
                    };
                    let Some(reason) = lacks else {
                        taken.insert(first);
                        continue;
                    };
                    reason
                }
            };
            let due: Due = (name.clone(), at, incarnation, reason);
            if !taken.contains(&due) && !not_before.contains_key(&due) {
                return Some((due, store.clone()));
            }
        }
    }
    None
}

/// Why the store's newest incarnation lacks a base backup, if it does: there is none, or there is none behind the newest gap that
/// the catalog knows of. The journal's own end shows a gap for a while only, and a process that recorded one may have ended before
/// the backup did.
async fn lacks_base(
    config: &Config,
    name: &DatabaseName,
    store: &StoreName,
    incarnation: IncarnationId,
    catalog: Option<&Catalog>,
) -> anyhow::Result<Option<String>> {
    let repository = wiring::repository(config, store).await?;
    let records = repository.incarnations(name).await?;
    let Some(record) = records.iter().find(|record| record.incarnation == incarnation) else {
        return Ok(Some("the journal begins".to_owned()));
    };
    let reader = Reader::new(&repository, record)?;
    let Some(last) = reader.last().await? else { return Ok(Some("the journal begins".to_owned())) };
    let (now, number) = (last.header().timeline, last.header().number);
    let branch = reader.branch(now, number).await?;
    let history = branch.and_then(|body| TimelineHistory::parse(now, &body.history).ok());
    // One that ends beyond the fork at which the journal left its timeline is no base for anything that comes.
    let on_the_line = |range: &backup::Range| {
        let left_at = history.as_ref().and_then(|history| history.leaves(range.end.timeline));
        range.end.timeline == now || left_at.is_some_and(|left_at| range.end.offset <= left_at)
    };
    let mut newest: Option<Position> = None;
    for id in backup::list(&reader).await? {
        // One that does not read is no base.
        let range = backup::standing(&reader, id).await.ok().and_then(|standing| standing.complete);
        let start = range.filter(on_the_line).map(|range| range.start);
        newest = newest.into_iter().chain(start).max_by_key(|at| (at.timeline, at.offset));
    }
    let gaps = match catalog {
        Some(catalog) => catalog.gap_list(incarnation).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let gap = gaps.iter().filter(|gap| gap.store == store.as_str()).max_by_key(|gap| (gap.timeline, gap.end));
    Ok(match (newest, gap) {
        (None, _) => Some("the store holds no complete backup".to_owned()),
        (Some(start), Some(gap)) if (start.timeline, start.offset) < (gap.timeline, gap.end) => {
            Some(format!("the log up to {} is missing", gap.end))
        }
        _ => None,
    })
}
