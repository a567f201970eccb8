//! Comparisons of standbys with their primaries: what each came to.
//!
//! What always holds: a verdict is one of three words; what was not compared is never `equal`. What it does not do: judge.

use std::fmt;
use std::str::FromStr;

use farshore_journal::{CompareId, DatabaseName};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The most that one call gives.
const PAGE: u32 = 1000;

/// How a comparison ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All that was to be compared was, and is alike.
    Equal,
    /// Something was not compared, and nothing is known to differ.
    NotCompared,
    /// Something differs.
    Different,
}

impl Verdict {
    /// All there are, the better first.
    pub const ALL: [Self; 3] = [Self::Equal, Self::NotCompared, Self::Different];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::NotCompared => "not_compared",
            Self::Different => "different",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Verdict {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|known| known.word() == text);
        known.ok_or_else(|| Error::corrupt("verdict", "a word that this version does not know"))
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// Its id.
    pub id: CompareId,
    /// Whose.
    pub database: DatabaseName,
    /// With which standby.
    pub standby: String,
    /// How it ended.
    pub verdict: Verdict,
    /// When it began.
    pub began: Time,
    /// When it was over.
    pub ended: Time,
    /// What it found, as JSON.
    pub statement: String,
}

/// Which are listed: newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompareFilter {
    /// Of this database.
    pub database: Option<DatabaseName>,
    /// Older than this one.
    pub before: Option<(Time, CompareId)>,
}

impl Catalog {
    /// Records one.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn compare_put(&self, compare: &Compare) -> Result<()> {
        in_local_txn!(self, compare_put_in_txn(compare))
    }

    /// One of them.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn compare_get(&self, id: CompareId) -> Result<Option<Compare>> {
        in_snapshot!(self, compare_get_in_txn(id))
    }

    /// Comparisons, newest first, at most 1000.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn compare_list(&self, filter: &CompareFilter, limit: u32) -> Result<Vec<Compare>> {
        in_snapshot!(self, compare_list_in_txn(filter, limit))
    }
}

/// As [`Catalog::compare_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn compare_put_in_txn(txn: &mut Txn, compare: &Compare) -> Result<()> {
    let statement = "insert into compare (id, database_name, standby, verdict, began_at, ended_at, statement) \
                     values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do nothing";
    let bound = query(statement)
        .bind(compare.id.to_string())
        .bind(compare.database.to_string())
        .bind(compare.standby.clone())
        .bind(compare.verdict.word())
        .bind(micros(compare.began))
        .bind(micros(compare.ended))
        .bind(compare.statement.clone());
    txn.execute("compare_put", bound).await.map(drop)
}

/// As [`Catalog::compare_get`].
///
/// # Errors
/// When the catalog is away.
pub async fn compare_get_in_txn(txn: &mut Txn, id: CompareId) -> Result<Option<Compare>> {
    let statement = "select id, database_name, standby, verdict, began_at, ended_at, statement from compare where id = $1";
    let row = txn.row("compare_get", query(statement).bind(id.to_string())).await?;
    row.as_ref().map(from_row).transpose()
}

/// As [`Catalog::compare_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn compare_list_in_txn(txn: &mut Txn, filter: &CompareFilter, limit: u32) -> Result<Vec<Compare>> {
    let (before, id) = match filter.before {
        Some((time, id)) => (micros(time), id.to_string()),
        None => (i64::MAX, String::new()),
    };
    let mut bound = query(if filter.database.is_some() { LIST_OF } else { LIST })
        .bind(before)
        .bind(id)
        .bind(i64::from(limit.min(PAGE)));
    if let Some(database) = &filter.database {
        bound = bound.bind(database.to_string());
    }
    txn.rows("compare_list", bound).await?.iter().map(from_row).collect()
}

const LIST: &str = "select id, database_name, standby, verdict, began_at, ended_at, statement from compare \
                    where (began_at, id) < ($1, $2) order by began_at desc, id desc limit $3";
const LIST_OF: &str = "select id, database_name, standby, verdict, began_at, ended_at, statement from compare \
                       where database_name = $4 and (began_at, id) < ($1, $2) order by began_at desc, id desc limit $3";

fn from_row(row: &AnyRow) -> Result<Compare> {
    Ok(Compare {
        id: row.parsed("id")?,
        database: row.parsed("database_name")?,
        standby: row.text("standby")?,
        verdict: row.text("verdict")?.parse()?,
        began: row.time("began_at")?,
        ended: row.time("ended_at")?,
        statement: row.text("statement")?,
    })
}
