//! The targets of a database: which store has how much, and what last went wrong there.
//!
//! The stored position of a target is written by the one shipper of the database; this file does not check that it
//! only rises, because a takeover may prove less than its predecessor believed.

use farshore_journal::{DatabaseName, Position};
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot, without_secrets};
use crate::packed::{Packed, packed};
use crate::row::{Read, at_known, branch, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// What last went wrong with a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The operator message's code.
    pub code: String,
    /// What happened, without secrets.
    pub message: String,
    /// When.
    pub at: Time,
}

/// A store a database is shipped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The database.
    pub database: DatabaseName,
    /// The store's name in the configuration.
    pub store: String,
    /// The store's address; what may be secret in it is cut off when written.
    pub url: String,
    /// The shipper's word for how it stands.
    pub state: String,
    /// Up to where this target has confirmed the journal; `None` when not known.
    pub stored: Option<Position>,
    /// When this was written.
    pub updated_at: Time,
    /// The last failure, until a later write clears it.
    pub failure: Option<Failure>,
}

impl Catalog {
    /// Records a target as it stands now.
    ///
    /// # Errors
    /// When the database is not known or the catalog is away.
    pub async fn target_put(&self, target: &Target) -> Result<()> {
        in_own_txn!(self, target_put_in_txn(target))
    }

    /// Says what is wrong with a target that is known here, and nothing else of it: of what is stored there the shipper may not have
    /// learnt anything yet. Nothing happens when it is not known.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn target_trouble(
        &self,
        database: &DatabaseName,
        store: &str,
        state: &str,
        failure: &Failure,
    ) -> Result<()> {
        in_own_txn!(self, target_trouble_in_txn(database, store, state, failure))
    }

    /// The targets of a database, by store.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn target_list(&self, database: &DatabaseName) -> Result<Vec<Target>> {
        in_snapshot!(self, target_list_in_txn(database))
    }

    /// Forgets a target that is no longer configured.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn target_delete(&self, database: &DatabaseName, store: &str) -> Result<()> {
        in_own_txn!(self, target_delete_in_txn(database, store))
    }
}

/// As [`Catalog::target_put`].
///
/// # Errors
/// When the database is not known or the catalog is away.
pub async fn target_put_in_txn(txn: &mut Txn, target: &Target) -> Result<()> {
    let statement = "insert into target (database_name, store, url, state, stored_timeline, stored_offset, \
                     updated_at, failure_code, failure_message, failed_at) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                     on conflict (database_name, store) do update set url = excluded.url, \
                     state = excluded.state, stored_timeline = excluded.stored_timeline, \
                     stored_offset = excluded.stored_offset, updated_at = excluded.updated_at, \
                     failure_code = excluded.failure_code, failure_message = excluded.failure_message, \
                     failed_at = excluded.failed_at";
    let failure = target.failure.as_ref();
    let bound = query(statement)
        .bind(target.database.to_string())
        .bind(target.store.clone())
        .bind(without_secrets(&target.url))
        .bind(target.state.clone())
        .bind(target.stored.map(|stored| branch(stored.timeline)))
        .bind(at_known(target.stored.map(|stored| stored.offset))?)
        .bind(micros(target.updated_at))
        .bind(failure.map(|failure| failure.code.clone()))
        .bind(failure.map(|failure| failure.message.clone()))
        .bind(failure.map(|failure| micros(failure.at)));
    txn.execute("target_put", bound).await.map(|_| ())
}

/// As [`Catalog::target_trouble`].
///
/// # Errors
/// When the catalog is away.
pub async fn target_trouble_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
    store: &str,
    state: &str,
    failure: &Failure,
) -> Result<()> {
    let statement = "update target set state = $1, updated_at = $2, failure_code = $3, failure_message = $4, failed_at = $2 \
                     where database_name = $5 and store = $6";
    let bound = query(statement)
        .bind(state.to_owned())
        .bind(micros(failure.at))
        .bind(failure.code.clone())
        .bind(failure.message.clone())
        .bind(database.to_string())
        .bind(store.to_owned());
    txn.execute("target_trouble", bound).await.map(|_| ())
}

/// As [`Catalog::target_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn target_list_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Vec<Target>> {
    let statement = "select database_name, store, url, state, stored_timeline, stored_offset, updated_at, \
                     failure_code, failure_message, failed_at from target \
                     where database_name = $1 order by store";
    let rows = txn.rows("target_list", query(statement).bind(database.to_string())).await?;
    rows.iter().map(from_row).collect()
}

/// As [`Catalog::target_delete`].
///
/// # Errors
/// When the catalog is away.
pub async fn target_delete_in_txn(txn: &mut Txn, database: &DatabaseName, store: &str) -> Result<()> {
    let statement = "delete from target where database_name = $1 and store = $2";
    let bound = query(statement).bind(database.to_string()).bind(store.to_owned());
    txn.execute("target_delete", bound).await.map(|_| ())
}

/// The targets of all databases, by store.
pub(crate) async fn target_all_in_txn(txn: &mut Txn) -> Result<Vec<Target>> {
    const ALL: Packed = packed!("target"; database_name, state, stored_timeline, stored_offset, updated_at, failed_at;
        store, url, failure_code, failure_message);
    let mut all = txn.packed("target_all", ALL.columns, query(ALL.statement), from_row).await?;
    all.sort_by(|a: &Target, b| a.store.cmp(&b.store));
    Ok(all)
}

pub(crate) fn from_row(row: &impl Read) -> Result<Target> {
    let failure = match (
        row.maybe_text("failure_code")?,
        row.maybe_text("failure_message")?,
        row.maybe_time("failed_at")?,
    ) {
        (Some(code), Some(message), Some(at)) => Some(Failure { code, message, at }),
        (None, None, None) => None,
        _ => return Err(Error::corrupt("failure_code", "half a failure")),
    };
    Ok(Target {
        database: row.parsed("database_name")?,
        store: row.text("store")?,
        url: row.text("url")?,
        state: row.text("state")?,
        stored: row.maybe_position("stored_timeline", "stored_offset")?,
        updated_at: row.time("updated_at")?,
        failure,
    })
}
