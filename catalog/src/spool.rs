//! How the spools of databases stand, as the services that fill them last said.
//!
//! What always holds: what is old vouches for nothing: it reads as unknown. Nothing that a spool holds is stored.

use chrono::TimeDelta;
use farshore_journal::{DatabaseName, Offset, Timeline};
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, at_known, big, big_known, branch, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// How old what a service said of a spool may be: it says so about once a second.
pub const SILENT: TimeDelta = TimeDelta::seconds(15);

/// How a spool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoolState {
    /// Nobody vouches for it.
    Unknown,
    /// The primary keeps little for us: nothing is taken.
    #[default]
    Idle,
    /// It takes log.
    Taking,
    /// There is no room: the primary keeps its log.
    Full,
    /// It would take log and may not, or cannot; the trouble says why.
    Waiting,
}

impl SpoolState {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Idle, Self::Taking, Self::Full, Self::Waiting];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Idle => "idle",
            Self::Taking => "taking",
            Self::Full => "full",
            Self::Waiting => "waiting",
        }
    }

    fn of(word: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.word() == word)
            .ok_or_else(|| Error::corrupt("state", format!("`{word}`")))
    }
}

/// What was last said of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// The database.
    pub database: DatabaseName,
    /// Whose spool it is.
    pub node: Option<String>,
    /// How it stood; see [`Spool::shown`] for what may be said of it now.
    pub state: SpoolState,
    /// Bytes of everything in it.
    pub bytes: Option<u64>,
    /// Bytes that it may hold, in the directories that were in use.
    pub limit: u64,
    /// The row of log segments that it holds: timeline, first byte, first byte behind.
    pub run: Option<(Timeline, Offset, Offset)>,
    /// Why it takes no log, or lets none go.
    pub trouble: Option<String>,
    /// When that was said.
    pub told_at: Time,
}

impl Spool {
    /// What may be said now.
    pub fn shown(&self, now: Time) -> SpoolState {
        match (now - self.told_at).abs() <= SILENT {
            true => self.state,
            false => SpoolState::Unknown,
        }
    }
}

impl Catalog {
    /// Takes down how a spool stands.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn spool_put(&self, spool: &Spool) -> Result<()> {
        in_local_txn!(self, spool_put_in_txn(spool))
    }

    /// Forgets the spool of a database that has none any more.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn spool_forget(&self, database: &DatabaseName) -> Result<()> {
        in_local_txn!(self, spool_forget_in_txn(database))
    }

    /// How all spools stand, by database.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn spool_list(&self) -> Result<Vec<Spool>> {
        in_snapshot!(self, spool_list_in_txn())
    }
}

/// As [`Catalog::spool_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn spool_put_in_txn(txn: &mut Txn, spool: &Spool) -> Result<()> {
    let statement = "insert into spool (database_name, node, state, bytes, limit_bytes, timeline, starts_at, ends_at, trouble, told_at) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                     on conflict (database_name) do update set node = excluded.node, state = excluded.state, \
                     bytes = excluded.bytes, limit_bytes = excluded.limit_bytes, timeline = excluded.timeline, \
                     starts_at = excluded.starts_at, ends_at = excluded.ends_at, trouble = excluded.trouble, told_at = excluded.told_at";
    let bound = query(statement)
        .bind(spool.database.to_string())
        .bind(spool.node.clone())
        .bind(spool.state.word())
        .bind(big_known("size of a spool", spool.bytes)?)
        .bind(big("limit of a spool", spool.limit)?)
        .bind(spool.run.map(|(timeline, ..)| branch(timeline)))
        .bind(at_known(spool.run.map(|(_, start, _)| start))?)
        .bind(at_known(spool.run.map(|(.., end)| end))?)
        .bind(spool.trouble.clone())
        .bind(micros(spool.told_at));
    txn.execute("spool_put", bound).await.map(drop)
}

/// As [`Catalog::spool_forget`].
///
/// # Errors
/// When the catalog is away.
pub async fn spool_forget_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<()> {
    let bound = query("delete from spool where database_name = $1").bind(database.to_string());
    txn.execute("spool_forget", bound).await.map(drop)
}

/// As [`Catalog::spool_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn spool_list_in_txn(txn: &mut Txn) -> Result<Vec<Spool>> {
    let bound = query(
        "select database_name, node, state, bytes, limit_bytes, timeline, starts_at, ends_at, trouble, told_at from spool order by database_name",
    );
    txn.rows("spool_list", bound).await?.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Spool> {
    let run = (row.maybe_timeline("timeline")?, row.maybe_offset("starts_at")?, row.maybe_offset("ends_at")?);
    Ok(Spool {
        database: row.parsed("database_name")?,
        node: row.maybe_text("node")?,
        state: SpoolState::of(row.str("state")?)?,
        bytes: row.maybe_count("bytes")?,
        limit: row.count("limit_bytes")?,
        run: match run {
            (Some(timeline), Some(start), Some(end)) => Some((timeline, start, end)),
            _ => None,
        },
        trouble: row.maybe_text("trouble")?,
        told_at: row.time("told_at")?,
    })
}
