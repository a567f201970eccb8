//! The base backups: where each begins and ends, and whether its manifest was checked.
//!
//! A backup moves once: running to complete, or running to failed. Only a complete and checked one against which
//! nothing speaks may carry a recovery window ([`crate::window`]).

use std::fmt;
use std::str::FromStr;

use farshore_journal::{BackupId, DatabaseName, IncarnationId, Offset, Timeline};
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::row::{self, Read as _, at, at_known, big, big_known, branch, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// How far a backup came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupState {
    /// It is being taken.
    Running,
    /// All of it and its manifest are stored.
    Complete,
    /// It was given up.
    Failed,
}

impl BackupState {
    /// Its word, in the catalog and on screens.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for BackupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for BackupState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Running, Self::Complete, Self::Failed]
            .into_iter()
            .find(|state| state.word() == text)
            .ok_or_else(|| Error::corrupt("state", "a word that is no backup state"))
    }
}

/// One base backup in one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// Whose it is.
    pub incarnation: IncarnationId,
    /// The store's name.
    pub store: String,
    /// The timeline it was taken on.
    pub timeline: Timeline,
    /// Where replay must begin.
    pub start: Offset,
    /// Where replay must come to before the copy is consistent; known at its end.
    pub end: Option<Offset>,
    /// When it began.
    pub started_at: Time,
    /// When it ended, whichever way.
    pub finished_at: Option<Time>,
    /// Bytes read from the database.
    pub bytes: Option<u64>,
    /// Bytes put into the store.
    pub stored_bytes: Option<u64>,
    /// How far it came.
    pub state: BackupState,
    /// Whether its manifest was opened and found right. Of a sealed one that a catalog found in the store nobody may have done so.
    pub checked: bool,
    /// What the operator or the schedule calls it; may be empty.
    pub label: String,
    /// Pages whose checksum was wrong already at the primary; `None` until its manifest, which says so, was opened.
    pub bad_pages: Option<u64>,
    /// When a verification found that it is not as it was stored; `None` while nothing speaks against it.
    pub bad_at: Option<Time>,
}

impl Backup {
    /// Whether a recovery window may begin with it.
    pub fn is_usable(&self) -> bool {
        self.state == BackupState::Complete && self.checked && self.bad_at.is_none()
    }
}

/// What reading all of a backup came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// It was opened, and all of it is as it was stored. So many pages of it were damaged at the primary already.
    Sound(u64),
    /// Something of it is not as it was stored.
    Bad,
}

/// What is known of a backup once all of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupEnd {
    /// Where replay must come to before the copy is consistent.
    pub end: Offset,
    /// When it ended.
    pub finished_at: Time,
    /// Bytes read from the database.
    pub bytes: u64,
    /// Bytes put into the store.
    pub stored_bytes: u64,
    /// Pages whose checksum was wrong already at the primary.
    pub bad_pages: u64,
}

/// Where a backup stands among all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupKey {
    /// Its database.
    pub database: DatabaseName,
    /// When it was begun.
    pub started_at: Time,
    /// Its id.
    pub id: BackupId,
}

impl Catalog {
    /// Records a backup as given: a new one as it starts, or one found in the store.
    ///
    /// # Errors
    /// When it is recorded already, or its incarnation is not known.
    pub async fn backup_insert(&self, backup: &Backup) -> Result<()> {
        in_own_txn!(self, backup_insert_in_txn(backup))
    }

    /// Records that a running backup is complete, after its manifest was stored.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not running.
    pub async fn backup_complete(&self, id: BackupId, end: &BackupEnd) -> Result<()> {
        in_own_txn!(self, backup_complete_in_txn(id, end))
    }

    /// Records that a running backup was given up.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not running.
    pub async fn backup_fail(&self, id: BackupId, at: Time) -> Result<()> {
        in_own_txn!(self, backup_fail_in_txn(id, at))
    }

    /// Records that a complete backup's manifest was opened and found right, and how many damaged pages it tells of.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not complete.
    pub async fn backup_check(&self, id: BackupId, bad_pages: u64) -> Result<()> {
        in_own_txn!(self, backup_check_in_txn(id, bad_pages))
    }

    /// Records what a verification found of a backup at `now`. Only one that opened it and read all of it takes back that it is bad. Nothing happens to one that is
    /// not known, or not complete.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn backup_verified(&self, id: BackupId, found: Read, now: Time) -> Result<()> {
        in_own_txn!(self, backup_verified_in_txn(id, found, now))
    }

    /// Forgets a backup, after it was expired in the store.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn backup_delete(&self, id: BackupId) -> Result<()> {
        in_own_txn!(self, backup_delete_in_txn(id))
    }

    /// The backup of this id.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn backup_find(&self, id: BackupId) -> Result<Option<Backup>> {
        in_snapshot!(self, backup_find_in_txn(id))
    }

    /// Backups of one database or of all, with their databases, by database and start: at most `limit` of them behind `after`.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn backup_page(
        &self,
        database: Option<&DatabaseName>,
        after: Option<&BackupKey>,
        limit: u32,
    ) -> Result<Vec<(DatabaseName, Backup)>> {
        in_snapshot!(self, backup_page_in_txn(database, after, limit))
    }

    /// All backups of an incarnation, oldest first.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn backup_list(&self, incarnation: IncarnationId) -> Result<Vec<Backup>> {
        in_snapshot!(self, backup_list_in_txn(incarnation))
    }
}

/// As [`Catalog::backup_insert`].
///
/// # Errors
/// When it is recorded already, or its incarnation is not known.
pub async fn backup_insert_in_txn(txn: &mut Txn, backup: &Backup) -> Result<()> {
    if backup.state == BackupState::Complete && backup.end.is_none_or(|end| end < backup.start) {
        return Err(Error::Invalid { what: "backup", reason: "a complete one ends at or after its start" });
    }
    if backup.checked && backup.bad_pages.is_none() {
        return Err(Error::Invalid {
            what: "backup",
            reason: "a manifest that was opened says what is damaged",
        });
    }
    let statement = "insert into backup (id, incarnation, store, timeline, start_offset, end_offset, started_at, \
                     finished_at, bytes, stored_bytes, state, checked, label, bad_pages, bad_at) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    let bound = query(statement)
        .bind(backup.id.to_string())
        .bind(backup.incarnation.to_string())
        .bind(backup.store.clone())
        .bind(branch(backup.timeline))
        .bind(at(backup.start)?)
        .bind(at_known(backup.end)?)
        .bind(micros(backup.started_at))
        .bind(backup.finished_at.map(micros))
        .bind(big_known("backup size", backup.bytes)?)
        .bind(big_known("backup size", backup.stored_bytes)?)
        .bind(backup.state.word())
        .bind(i64::from(backup.checked))
        .bind(backup.label.clone())
        .bind(big("count of pages", backup.bad_pages.unwrap_or(0))?)
        .bind(backup.bad_at.map(micros));
    txn.execute("backup_insert", bound).await.map(|_| ())
}

/// As [`Catalog::backup_complete`].
///
/// # Errors
/// [`Error::Conflict`] when it is not running.
pub async fn backup_complete_in_txn(txn: &mut Txn, id: BackupId, end: &BackupEnd) -> Result<()> {
    let statement = "update backup set state = 'complete', end_offset = $1, finished_at = $2, bytes = $3, \
                     stored_bytes = $4, bad_pages = $5 \
                     where id = $6 and state = 'running' and start_offset <= $1";
    let bound = query(statement)
        .bind(at(end.end)?)
        .bind(micros(end.finished_at))
        .bind(big("backup size", end.bytes)?)
        .bind(big("backup size", end.stored_bytes)?)
        .bind(big("count of pages", end.bad_pages)?)
        .bind(id.to_string());
    let changed = txn.execute("backup_complete", bound).await?;
    moved(txn, id, changed, "it is not running, or would end before its start").await
}

/// As [`Catalog::backup_fail`].
///
/// # Errors
/// [`Error::Conflict`] when it is not running.
pub async fn backup_fail_in_txn(txn: &mut Txn, id: BackupId, at: Time) -> Result<()> {
    let statement =
        "update backup set state = 'failed', finished_at = $1 where id = $2 and state = 'running'";
    let changed = txn.execute("backup_fail", query(statement).bind(micros(at)).bind(id.to_string())).await?;
    moved(txn, id, changed, "it is not running").await
}

/// As [`Catalog::backup_check`].
///
/// # Errors
/// [`Error::Conflict`] when it is not complete.
pub async fn backup_check_in_txn(txn: &mut Txn, id: BackupId, bad_pages: u64) -> Result<()> {
    let statement = "update backup set checked = 1, bad_pages = $1 where id = $2 and state = 'complete'";
    let bound = query(statement).bind(big("count of pages", bad_pages)?).bind(id.to_string());
    let changed = txn.execute("backup_check", bound).await?;
    moved(txn, id, changed, "it is not complete").await
}

/// As [`Catalog::backup_verified`].
///
/// # Errors
/// When the catalog is away.
pub async fn backup_verified_in_txn(txn: &mut Txn, id: BackupId, found: Read, now: Time) -> Result<()> {
    let sound =
        "update backup set checked = 1, bad_pages = $1, bad_at = null where id = $2 and state = 'complete'";
    let bad = "update backup set bad_at = $1 where id = $2 and state = 'complete' and bad_at is null";
    let bound = match found {
        Read::Sound(pages) => query(sound).bind(big("count of pages", pages)?),
        Read::Bad => query(bad).bind(micros(now)),
    };
    txn.execute("backup_verified", bound.bind(id.to_string())).await.map(|_| ())
}

async fn moved(txn: &mut Txn, id: BackupId, changed: u64, reason: &str) -> Result<()> {
    if changed == 1 {
        return Ok(());
    }
    match backup_find_in_txn(txn, id).await? {
        None => Err(Error::NoBackup { id }),
        Some(_) => Err(Error::Conflict { what: "backup", name: id.to_string(), reason: reason.to_owned() }),
    }
}

/// As [`Catalog::backup_delete`].
///
/// # Errors
/// When the catalog is away.
pub async fn backup_delete_in_txn(txn: &mut Txn, id: BackupId) -> Result<()> {
    let bound = query("delete from backup where id = $1").bind(id.to_string());
    txn.execute("backup_delete", bound).await.map(|_| ())
}

/// As [`Catalog::backup_find`].
///
/// # Errors
/// When the catalog is away.
pub async fn backup_find_in_txn(txn: &mut Txn, id: BackupId) -> Result<Option<Backup>> {
    let statement = "select id, incarnation, store, timeline, start_offset, end_offset, started_at, finished_at, \
                     bytes, stored_bytes, state, checked, label, bad_pages, bad_at from backup where id = $1";
    let row = txn.row("backup_find", query(statement).bind(id.to_string())).await?;
    row.as_ref().map(from_row).transpose()
}

/// As [`Catalog::backup_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn backup_list_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<Vec<Backup>> {
    let statement = "select id, incarnation, store, timeline, start_offset, end_offset, started_at, finished_at, \
                     bytes, stored_bytes, state, checked, label, bad_pages, bad_at from backup \
                     where incarnation = $1 order by started_at, id";
    let rows = txn.rows("backup_list", query(statement).bind(incarnation.to_string())).await?;
    rows.iter().map(from_row).collect()
}

/// As [`Catalog::backup_page`].
///
/// # Errors
/// When the catalog is away.
pub async fn backup_page_in_txn(
    txn: &mut Txn,
    database: Option<&DatabaseName>,
    after: Option<&BackupKey>,
    limit: u32,
) -> Result<Vec<(DatabaseName, Backup)>> {
    // No database's name is empty, so that an empty one is before all of them.
    let statement = "select backup.id, incarnation, store, timeline, start_offset, end_offset, started_at, finished_at, \
                     bytes, stored_bytes, state, checked, label, bad_pages, bad_at, incarnation.database_name \
                     from backup join incarnation on incarnation.id = backup.incarnation \
                     where ($1 = '' or incarnation.database_name = $1) \
                     and (incarnation.database_name > $2 or (incarnation.database_name = $2 \
                     and (started_at > $3 or (started_at = $3 and backup.id > $4)))) \
                     order by incarnation.database_name, started_at, backup.id limit $5";
    let bound = query(statement)
        .bind(database.map(ToString::to_string).unwrap_or_default())
        .bind(after.map(|after| after.database.to_string()).unwrap_or_default())
        .bind(after.map_or(i64::MIN, |after| micros(after.started_at)))
        .bind(after.map(|after| after.id.to_string()).unwrap_or_default())
        .bind(i64::from(limit));
    let rows = txn.rows("backup_page", bound).await?;
    rows.iter().map(|row| Ok((row.parsed("database_name")?, from_row(row)?))).collect()
}

pub(crate) fn from_row(row: &impl row::Read) -> Result<Backup> {
    let checked = row.flag("checked")?;
    Ok(Backup {
        id: row.parsed("id")?,
        incarnation: row.parsed("incarnation")?,
        store: row.text("store")?,
        timeline: row.timeline("timeline")?,
        start: row.offset("start_offset")?,
        end: row.maybe_offset("end_offset")?,
        started_at: row.time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
        bytes: row.maybe_count("bytes")?,
        stored_bytes: row.maybe_count("stored_bytes")?,
        state: row.str("state")?.parse()?,
        checked,
        label: row.text("label")?,
        // The column has a number of pages in any case: while nobody opened the manifest it says nothing.
        bad_pages: Some(row.count("bad_pages")?).filter(|_| checked),
        bad_at: row.maybe_time("bad_at")?,
    })
}
