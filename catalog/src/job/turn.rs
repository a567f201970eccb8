//! Whose turn it is: what may be claimed next, what is held, and how much waits.
//!
//! What always holds: however many jobs of a database wait, each other database's oldest of each kind is among what may be claimed, and a database
//! that had its turn stands behind those that had not.

use std::collections::BTreeSet;

use farshore_journal::DatabaseName;
use sqlx::query;

use super::{Job, JobKind, PAGE, read};
use crate::connection::in_snapshot;
use crate::row::Read as _;
use crate::{Catalog, Result, Txn};

/// The kinds of work that wait or run, with their databases.
pub type Busy = BTreeSet<(Option<DatabaseName>, JobKind)>;

impl Catalog {
    /// What this node may claim next: of each database and kind the one that waits longest, in the order of their turns. First come databases
    /// of which least is held, then those whose last job was begun longest ago. As many as there are databases and kinds.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_next(&self, node: &str) -> Result<Vec<Job>> {
        in_snapshot!(self, job_next_in_txn(node))
    }

    /// Those that somebody does now, as far as is known; at most 1000, oldest first.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_held(&self) -> Result<Vec<Job>> {
        in_snapshot!(self, job_held_in_txn())
    }

    /// Which work waits or runs, of any node.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_busy(&self) -> Result<Busy> {
        in_snapshot!(self, job_busy_in_txn())
    }

    /// Those of one database that have not ended, those that are held first; at most 1000.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_unended_of(&self, database: &DatabaseName) -> Result<Vec<Job>> {
        in_snapshot!(self, job_unended_of_in_txn(database))
    }
}

async fn job_next_in_txn(txn: &mut Txn, node: &str) -> Result<Vec<Job>> {
    let rows = txn.rows("job_next", query(read::NEXT).bind(node.to_owned())).await?;
    rows.iter().map(read::job).collect()
}

async fn job_held_in_txn(txn: &mut Txn) -> Result<Vec<Job>> {
    let bound = query(read::HELD).bind(i64::from(PAGE));
    txn.rows("job_held", bound).await?.iter().map(read::job).collect()
}

async fn job_busy_in_txn(txn: &mut Txn) -> Result<Busy> {
    let statement =
        "select distinct database_name, kind from job where state in ('queued', 'running', 'cancelling')";
    let rows = txn.rows("job_busy", query(statement)).await?;
    rows.iter()
        .map(|row| {
            let kind = row.text("kind")?.parse().unwrap_or(JobKind::Unknown);
            Ok((row.maybe_parsed("database_name")?, kind))
        })
        .collect()
}

async fn job_unended_of_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Vec<Job>> {
    let bound = query(read::UNENDED_OF).bind(database.to_string()).bind(i64::from(PAGE));
    txn.rows("job_unended_of", bound).await?.iter().map(read::job).collect()
}

/// How many jobs of a database, or of none, have not ended.
///
/// # Errors
/// When the catalog is away.
pub async fn job_unended_count_in_txn(txn: &mut Txn, database: Option<&DatabaseName>) -> Result<u64> {
    let statement = "select count(*) as unended from job \
                     where state in ('queued', 'running', 'cancelling') and coalesce(database_name, '') = $1";
    // No database has an empty name.
    let bound = query(statement).bind(database.map(ToString::to_string).unwrap_or_default());
    let row = txn.row("job_unended_count", bound).await?;
    row.map_or(Ok(0), |row| row.count("unended"))
}
