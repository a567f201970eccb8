//! Brings the catalog up to what a store proves: from nothing after it was lost, or from where it stopped being told.
//!
//! What always holds: the store is only read; what is written twice changes nothing; the journal's chain is walked as it is
//! read, so a chunk that does not continue the one before it is an error and never a fact. Commits need the log's bytes, so a
//! journal that is encrypted and has no private key at hand gives ranges without commits, and the report says so. While it is
//! under way the catalog says less than the store, never more: what is no longer in the store is forgotten first, and the
//! commits of a range are there before the range is.

pub mod drills;
mod known;
mod walk;

use chrono::{DateTime, Utc};
use farshore_applier::source::Source;
use farshore_catalog::Catalog;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_catalog::database::Database;
use farshore_catalog::gap::{self, Gap};
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::rebuild::incarnations_replace_in_txn;
use farshore_journal::expired::ExpiredRun;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::{FormatError, Head, HeadStanding, VerifyKeys};
use farshore_journal::{DatabaseName, JournalError, Sequence, backup, expiry, heads};
use serde::Serialize;

use crate::config::StoreName;
use walk::Walk;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Chunks read.
    pub chunks: u64,
    /// Commits found.
    pub commits: u64,
    /// Complete backups found.
    pub backups: u64,
    /// Gaps found.
    pub gaps: u64,
    /// Chunks whose log could not be opened, for want of a private key: their commits are not in the catalog.
    pub sealed: u64,
    /// Backups that do not read: they are no base, and not in the catalog. `verify` says what is wrong with them.
    pub unread: u64,
}

/// One incarnation in one store, with the store's name.
#[derive(Debug, Clone)]
pub struct Held {
    /// The store's name.
    pub store: String,
    /// The incarnation.
    pub source: Source,
    /// The keys whose heads count.
    pub pinned: VerifyKeys,
}

/// Forgets everything of a database and writes it anew from `held`, which is all that its stores hold of it. What an operator
/// marked stays.
///
/// # Errors
/// When a store or the catalog does not answer, or a journal is not whole. What was read until then is in the catalog.
pub async fn anew(catalog: &Catalog, name: &DatabaseName, held: &[Held]) -> anyhow::Result<Vec<Report>> {
    forget(catalog, name, held).await?;
    let mut reports = Vec::with_capacity(held.len());
    for held in held {
        reports.push(bring_up(catalog, held).await?);
    }
    Ok(reports)
}

/// Brings the catalog up to all that the stores of a database hold. What the catalog has is gone on from, unless it says something
/// that the stores do not: then it is written anew.
///
/// `known` are the incarnations that the catalog had before the stores were listed: one that is founded meanwhile is in the
/// catalog and not in the list, and no lie.
///
/// # Errors
/// As [`anew`]; the stores that can be read are brought up all the same, and nothing is forgotten.
pub async fn all(
    catalog: &Catalog,
    name: &DatabaseName,
    known: &[Incarnation],
    held: &[Held],
) -> anyhow::Result<()> {
    for known in known {
        if !held.iter().any(|held| held.source.record().incarnation == known.id) {
            tracing::warn!(database = %name, incarnation = %known.id, "the catalog has an incarnation that no store holds: it is written anew");
            return anew(catalog, name, held).await.map(|_| ());
        }
    }
    let (mut refuted, mut failed) = (None, None);
    for one in held {
        match known::is_held(catalog, one).await {
            Ok(true) => {}
            Ok(false) => refuted = refuted.or(Some(one)),
            Err(why) => failed = failed.or(Some(why)),
        }
    }
    if let (Some(one), None) = (refuted, &failed) {
        tracing::warn!(database = %name, store = %one.store, "the catalog says what the store does not hold: it is written anew");
        return anew(catalog, name, held).await.map(|_| ());
    }
    let brought = more(catalog, held).await;
    failed.map_or(brought, Err)
}

/// Adds what these stores hold, and forgets nothing: for when not every store of the database can be read.
///
/// # Errors
/// The first store's that does not answer, or whose journal is not whole; the others are brought up all the same.
pub async fn more(catalog: &Catalog, held: &[Held]) -> anyhow::Result<()> {
    let mut failed = None;
    for held in held {
        if let Err(why) = bring_up(catalog, held).await {
            failed = failed.or(Some(why.context(format!("in the store {}", held.store))));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Forgets what the catalog says of stores that are not among `configured`, all those of the database. Other databases of the
/// catalog may be another service's and are left alone.
///
/// # Errors
/// When the catalog is away.
pub async fn forget_dropped_stores(
    catalog: &Catalog,
    name: &DatabaseName,
    configured: &[StoreName],
) -> anyhow::Result<()> {
    for store in catalog.store_list(name).await? {
        if !configured.iter().any(|one| one.as_str() == store) {
            tracing::info!(database = %name, %store, "the store is no longer the database's: the catalog forgets what it held");
            catalog.store_forget(name, &store).await?;
        }
    }
    Ok(())
}

/// Brings one incarnation in one store up to date: what the catalog has of it without a hole is gone on from.
///
/// # Errors
/// When the store or the catalog does not answer, or the journal is not whole.
pub async fn bring_up(catalog: &Catalog, held: &Held) -> anyhow::Result<Report> {
    let mut report = Report::default();
    put_record(catalog, held.source.record()).await?;
    let anchor = put_backups(catalog, held, &mut report).await?;
    let Some(last) = held.source.reader().last().await? else { return Ok(report) };
    put_head(catalog, held).await?;
    Walk::new(catalog, held, anchor, report).run(last.header().number).await
}

/// Records that log expired: to whoever asks what can be restored it is a gap.
///
/// # Errors
/// When the catalog is away.
pub async fn put_expired(
    catalog: &Catalog,
    record: &IncarnationRecord,
    store: &str,
    run: &ExpiredRun,
) -> farshore_catalog::Result<()> {
    let gap = Gap {
        incarnation: record.incarnation,
        store: store.to_owned(),
        timeline: run.header.timeline,
        start: run.header.start,
        end: run.header.end,
        reason: gap::EXPIRED.to_owned(),
        seen_at: Utc::now(),
    };
    match gap.start < gap.end {
        true => catalog.gap_put(&gap).await,
        // Chunks without log: nothing is missing.
        false => Ok(()),
    }
}

/// Leaves of a database what its stores' records say, and no fact about them.
async fn forget(catalog: &Catalog, name: &DatabaseName, held: &[Held]) -> anyhow::Result<()> {
    let mut kept: Vec<Incarnation> = Vec::new();
    for held in held {
        let incarnation = incarnation(held.source.record());
        if !kept.iter().any(|kept| kept.id == incarnation.id) {
            kept.push(incarnation);
        }
    }
    for held in held {
        put_database(catalog, held.source.record()).await?;
    }
    // Ranges first, so that no window is shown with fewer commits than it has; commits in pieces, for there may be millions.
    for known in catalog.incarnation_list(name).await? {
        catalog.range_forget(known.id).await?;
        catalog.commit_forget(known.id).await?;
    }
    let mut txn = catalog.begin().await?;
    incarnations_replace_in_txn(&mut txn, name, &kept).await?;
    Ok(txn.commit().await?)
}

fn incarnation(record: &IncarnationRecord) -> Incarnation {
    Incarnation {
        id: record.incarnation,
        database: record.database.clone(),
        engine_identity: record.identity.clone(),
        number: Some(record.number),
        created_at: time_of(&record.created),
        parent: None,
        reason: record.reason.clone(),
        segment_bytes: record.segment_bytes,
        major_version: Some(record.major),
    }
}

async fn put_database(catalog: &Catalog, record: &IncarnationRecord) -> farshore_catalog::Result<()> {
    let (name, engine) = (record.database.clone(), record.engine.clone());
    catalog.database_put(&Database { name, engine, added_at: Utc::now() }).await
}

async fn put_record(catalog: &Catalog, record: &IncarnationRecord) -> farshore_catalog::Result<()> {
    put_database(catalog, record).await?;
    catalog.incarnation_put(&incarnation(record)).await
}

/// Records the newest head of the store that a pinned key signed: no other is taken from there, and none is made. What the catalog
/// knows of a later chunk stays, and where the journal does not hold what either says, all that it knows does: it is the witness.
async fn put_head(catalog: &Catalog, held: &Held) -> anyhow::Result<()> {
    let reader = held.source.reader();
    let Some(head) = heads::newest(reader, &held.pinned, &VerifyKeys::default()).await?.head else {
        return Ok(());
    };
    let known = catalog.head_list(&held.source.record().database).await?.into_iter().map(|known| known.head);
    let counts = |head: &Head| {
        (head.said.store, head.said.incarnation) == (reader.store_id(), reader.incarnation())
            && head.standing(&held.pinned) == HeadStanding::Pinned
    };
    for witness in known.filter(counts).chain([head.clone()]) {
        let why = match heads::held(reader, &witness).await {
            Ok(heads::Held::Yes | heads::Held::Expired) => continue,
            Ok(heads::Held::Other | heads::Held::No) => {
                "the journal does not hold what was signed of it".to_owned()
            }
            Err(why) => why.to_string(),
        };
        tracing::error!(database = %witness.said.database, store = %held.store, chunk = %witness.said.number, why,
            "the catalog keeps the signed head that it has: `farshore verify` says more");
        return Ok(());
    }
    Ok(catalog.head_put(&held.store, &head, &held.pinned).await?)
}

/// Records the complete backups that the catalog lacks. The transaction number that the oldest of them knows completes those of
/// the log. One that does not read is counted and passed over: it must not hide the others.
async fn put_backups(catalog: &Catalog, held: &Held, report: &mut Report) -> anyhow::Result<Option<u64>> {
    let source = &held.source;
    let mut anchor: Option<(farshore_journal::Offset, u64)> = None;
    let known = catalog.backup_list(source.record().incarnation).await?;
    for id in backup::list(source.reader()).await? {
        let standing = match backup::standing(source.reader(), id).await {
            Ok(standing) => standing,
            Err(why) if passed_over(&why) => {
                report.unread += 1;
                tracing::warn!(store = %held.store, backup = %id, error = %why, "a backup does not read: `farshore verify` says more");
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        let Some(range) = standing.complete else { continue };
        let opened = match backup::Backup::open(source.reader(), id, source.unlock()).await {
            Ok(opened) => opened,
            Err(JournalError::Object {
                source: FormatError::KeyMissing | FormatError::Key { .. }, ..
            }) => None,
            Err(why) if passed_over(&why) => {
                report.unread += 1;
                tracing::warn!(store = %held.store, backup = %id, error = %why, "a backup does not read: `farshore verify` says more");
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        report.backups += 1;
        let manifest = opened.as_ref().map(backup::Backup::manifest);
        if let Some(next) = manifest.and_then(|manifest| manifest.next_transaction)
            && anchor.is_none_or(|(start, _)| range.start.offset < start)
        {
            anchor = Some((range.start.offset, next));
        }
        let bad_pages =
            manifest.map(|manifest| (manifest.bad_pages.len() as u64).max(u64::from(manifest.damaged)));
        // Its deletion may have been begun, and with it what was known of it was forgotten: that a verification found it bad, too. It counts again once one finds it well.
        let marked = expiry::backup_marked(source.reader(), id).await?.is_some();
        if let Some(known) = known.iter().find(|known| known.id == id) {
            // It was found where no private key is at hand.
            if let Some(bad_pages) =
                bad_pages.filter(|_| !marked && !known.checked && known.state == BackupState::Complete)
            {
                catalog.backup_check(id, bad_pages).await?;
            }
            continue;
        }
        let written = DateTime::from_timestamp_micros(range.written_at);
        let opening = &standing.opening;
        let found = Backup {
            id,
            incarnation: source.record().incarnation,
            store: held.store.clone(),
            timeline: range.start.timeline,
            start: range.start.offset,
            end: Some(range.end.offset),
            started_at: time_of(manifest.map_or(&opening.started, |manifest| &manifest.started)),
            finished_at: manifest.map_or(written, |manifest| Some(time_of(&manifest.finished))),
            bytes: manifest.map(|manifest| manifest.plain_bytes),
            stored_bytes: manifest.map(backup::Manifest::moved_bytes),
            state: BackupState::Complete,
            // Of a sealed one only the head was read: it is there, and nobody here saw that it is right.
            checked: manifest.is_some() && !marked,
            label: opening.label.clone(),
            bad_pages,
            bad_at: None,
        };
        match catalog.backup_insert(&found).await {
            // Whoever took it was quicker to say so.
            Err(_) if matches!(catalog.backup_find(id).await, Ok(Some(_))) => {}
            inserted => inserted?,
        }
    }
    // What a verification found bad outlives a catalog that is made anew, and not what it was found of.
    for gone in known.iter().filter(|known| known.store == held.store && known.bad_at.is_some()) {
        if backup::standing(source.reader(), gone.id).await.is_err_and(|why| is_not_there(&why)) {
            catalog.backup_delete(gone.id).await?;
        }
    }
    Ok(anchor.map(|(_, next)| next))
}

fn is_not_there(why: &JournalError) -> bool {
    matches!(why, JournalError::Store(why) if why.is_not_found())
}

/// Whether an object is not what was written, or gone: no fact, and no reason to stop.
fn passed_over(why: &JournalError) -> bool {
    match why {
        JournalError::Object { .. } | JournalError::Misplaced { .. } => true,
        JournalError::Store(why) => why.is_not_found(),
        _ => false,
    }
}

fn time_of(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or(DateTime::UNIX_EPOCH)
}

/// The numbers from `first` to `last`.
fn numbers(first: Sequence, last: Sequence) -> impl Iterator<Item = Sequence> {
    (first.get()..=last.get()).map(Sequence::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_catalog::Options;
    use farshore_catalog::target::Target;
    use farshore_journal::{IncarnationId, StoreId};

    async fn founded() -> (tempfile::TempDir, Catalog, DatabaseName) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/catalog.db", folder.path().display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        let record = IncarnationRecord {
            format: 1,
            store: StoreId::from_bytes([9; 16]),
            database: "orders".parse().unwrap(),
            engine: "postgres".to_owned(),
            incarnation: IncarnationId::from_bytes([7; 16]),
            number: 0,
            identity: "7301234567890123456".to_owned(),
            major: 15,
            segment_bytes: 16 << 20,
            created: "2026-11-26T00:00:00Z".to_owned(),
            reason: "first".to_owned(),
        };
        put_record(&catalog, &record).await.unwrap();
        (folder, catalog, record.database)
    }

    /// The catalog is asked first and the stores then: a journal that is founded in between is in the catalog alone.
    #[tokio::test]
    async fn an_incarnation_founded_after_the_catalog_was_asked_is_no_lie() {
        let (_folder, catalog, name) = founded().await;
        all(&catalog, &name, &[], &[]).await.unwrap();
        let known = catalog.incarnation_list(&name).await.unwrap();
        assert_eq!(known.len(), 1);
        all(&catalog, &name, &known, &[]).await.unwrap();
        assert_eq!(catalog.incarnation_list(&name).await.unwrap(), []);
    }

    #[tokio::test]
    async fn only_stores_that_are_no_longer_the_databases_are_forgotten() {
        let (_folder, catalog, name) = founded().await;
        for store in ["main", "dropped"] {
            let target = Target {
                database: name.clone(),
                store: store.to_owned(),
                url: "file:/nowhere".to_owned(),
                state: "connected".to_owned(),
                stored: None,
                updated_at: Utc::now(),
                failure: None,
            };
            catalog.target_put(&target).await.unwrap();
        }
        let configured = ["main".parse().unwrap(), "not_founded_yet".parse().unwrap()];
        forget_dropped_stores(&catalog, &name, &configured).await.unwrap();
        assert_eq!(catalog.store_list(&name).await.unwrap(), ["main"]);
    }
}
