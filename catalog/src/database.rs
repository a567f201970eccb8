//! The databases this installation protects.

use farshore_journal::DatabaseName;
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::packed::{Packed, packed};
use crate::row::{Read, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// A protected database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its name in the configuration and in the store.
    pub name: DatabaseName,
    /// Its engine's word, as in the configuration: `postgres`, `sqlite`.
    pub engine: String,
    /// When this catalog first heard of it.
    pub added_at: Time,
}

impl Catalog {
    /// Records a database; nothing happens when it is recorded already.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is recorded with another engine.
    pub async fn database_put(&self, database: &Database) -> Result<()> {
        in_own_txn!(self, database_put_in_txn(database))
    }

    /// All databases by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn database_list(&self) -> Result<Vec<Database>> {
        in_snapshot!(self, database_list_in_txn())
    }

    /// The database of this name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn database_find(&self, name: &DatabaseName) -> Result<Option<Database>> {
        in_snapshot!(self, database_find_in_txn(name))
    }

    /// Forgets a database and everything known of it. The store keeps what it has.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn database_delete(&self, name: &DatabaseName) -> Result<()> {
        in_own_txn!(self, database_delete_in_txn(name))
    }
}

/// As [`Catalog::database_put`].
///
/// # Errors
/// [`Error::Conflict`] when it is recorded with another engine.
pub async fn database_put_in_txn(txn: &mut Txn, database: &Database) -> Result<()> {
    let statement = "insert into farshore_database (name, engine, added_at) values ($1, $2, $3) \
                     on conflict (name) do nothing";
    let bound = query(statement)
        .bind(database.name.to_string())
        .bind(database.engine.clone())
        .bind(micros(database.added_at));
    if txn.execute("database_put", bound).await? == 1 {
        return Ok(());
    }
    match database_find_in_txn(txn, &database.name).await? {
        Some(known) if known.engine != database.engine => Err(Error::Conflict {
            what: "database",
            name: database.name.to_string(),
            reason: format!("its engine is {}, not {}", known.engine, database.engine),
        }),
        _ => Ok(()),
    }
}

/// As [`Catalog::database_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn database_list_in_txn(txn: &mut Txn) -> Result<Vec<Database>> {
    let bound = query("select name, engine, added_at from farshore_database order by name");
    txn.rows("database_list", bound).await?.iter().map(from_row).collect()
}

/// All databases, by name.
pub(crate) async fn database_all_in_txn(txn: &mut Txn) -> Result<Vec<Database>> {
    const ALL: Packed = packed!("farshore_database"; name, added_at; engine);
    let mut all = txn.packed("database_all", ALL.columns, query(ALL.statement), from_row).await?;
    all.sort_by(|a: &Database, b| a.name.cmp(&b.name));
    Ok(all)
}

/// As [`Catalog::database_find`].
///
/// # Errors
/// When the catalog is away.
pub async fn database_find_in_txn(txn: &mut Txn, name: &DatabaseName) -> Result<Option<Database>> {
    let statement = "select name, engine, added_at from farshore_database where name = $1";
    let row = txn.row("database_find", query(statement).bind(name.to_string())).await?;
    row.as_ref().map(from_row).transpose()
}

/// As [`Catalog::database_delete`].
///
/// # Errors
/// When the catalog is away.
pub async fn database_delete_in_txn(txn: &mut Txn, name: &DatabaseName) -> Result<()> {
    for statement in
        ["delete from guard where database_name = $1", "delete from spool where database_name = $1"]
    {
        txn.execute("database_delete", query(statement).bind(name.to_string())).await?;
    }
    let bound = query("delete from farshore_database where name = $1").bind(name.to_string());
    txn.execute("database_delete", bound).await.map(|_| ())
}

fn from_row(row: &impl Read) -> Result<Database> {
    Ok(Database { name: row.parsed("name")?, engine: row.text("engine")?, added_at: row.time("added_at")? })
}
