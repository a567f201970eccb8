//! Who did what, and when. Append only: no function changes or removes an entry.
//!
//! Numbers are dense and rise in the order in which entries were accepted.

use farshore_journal::DatabaseName;
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::incarnation::NUMBER_TRIES;
use crate::row::{Read as _, big, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The most entries one call gives.
const PAGE: u32 = 1000;

/// Something somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// When.
    pub at: Time,
    /// Who: a user, a token's name, a schedule, a node.
    pub who: String,
    /// What, as a command or event word.
    pub what: String,
    /// To which database, when to one.
    pub database: Option<DatabaseName>,
    /// More, without secrets and row values.
    pub detail: String,
}

/// An entry with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityEntry {
    /// Its place in the record, from 1.
    pub number: u64,
    /// What it says.
    pub activity: Activity,
}

impl Catalog {
    /// Appends an entry; its number.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn activity_append(&self, activity: &Activity) -> Result<u64> {
        in_own_txn!(self, activity_append_in_txn(activity))
    }

    /// The newest entries first, at most 1000; with `before`, those older than that number.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn activity_list(&self, before: Option<u64>, limit: u32) -> Result<Vec<ActivityEntry>> {
        in_snapshot!(self, activity_list_in_txn(before, limit))
    }
}

/// As [`Catalog::activity_append`].
///
/// # Errors
/// When the catalog is away.
pub async fn activity_append_in_txn(txn: &mut Txn, activity: &Activity) -> Result<u64> {
    let statement = "insert into activity (number, at_us, who, what, database_name, detail) \
                     select coalesce(max(number), 0) + 1, $1, $2, $3, $4, $5 from activity \
                     where true on conflict do nothing returning number";
    // Another writer may take the number at the same moment; each try sees one more of them.
    for _ in 0..NUMBER_TRIES {
        let bound = query(statement)
            .bind(micros(activity.at))
            .bind(activity.who.clone())
            .bind(activity.what.clone())
            .bind(activity.database.as_ref().map(ToString::to_string))
            .bind(activity.detail.clone());
        if let Some(row) = txn.row("activity_append", bound).await? {
            return row.count("number");
        }
    }
    Err(Error::Conflict {
        what: "activity",
        name: activity.what.clone(),
        reason: "no number was free".to_owned(),
    })
}

/// As [`Catalog::activity_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn activity_list_in_txn(
    txn: &mut Txn,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<ActivityEntry>> {
    let statement = "select number, at_us, who, what, database_name, detail from activity \
                     where number < $1 order by number desc limit $2";
    let before = before.map_or(Ok(i64::MAX), |before| big("activity number", before))?;
    let bound = query(statement).bind(before).bind(i64::from(limit.min(PAGE)));
    txn.rows("activity_list", bound).await?.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<ActivityEntry> {
    Ok(ActivityEntry {
        number: row.count("number")?,
        activity: Activity {
            at: row.time("at_us")?,
            who: row.text("who")?,
            what: row.text("what")?,
            database: row.maybe_parsed("database_name")?,
            detail: row.text("detail")?,
        },
    })
}
