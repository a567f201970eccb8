//! The stores that the catalog has facts of, by the names that the configuration gave them.
//!
//! A store that is no longer in a database's list, or has another name there, is read by nobody under that name: what the catalog
//! says of it would stay for ever. Whoever brings the catalog up forgets it, of its own databases only: others may share the catalog.

use farshore_journal::DatabaseName;
use farshore_journal::format::Chronicle;
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::row::Read as _;
use crate::target::target_delete_in_txn;
use crate::{Catalog, Result, Txn};

impl Catalog {
    /// The stores that the catalog has a target, a range, a gap, a backup or a sealed ledger of for a database, by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn store_list(&self, database: &DatabaseName) -> Result<Vec<String>> {
        in_snapshot!(self, store_list_in_txn(database))
    }

    /// Forgets what a store holds of a database, how it stood as its target, and how far it had its ledger; of activity too where nothing else is shipped there. What is not kept store by store stays: commits and
    /// marks go with their incarnation. Its newest signed head stays too, as a witness.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn store_forget(&self, database: &DatabaseName, store: &str) -> Result<()> {
        in_own_txn!(self, store_forget_in_txn(database, store))
    }
}

/// As [`Catalog::store_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn store_list_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Vec<String>> {
    let statement = "select store from target where database_name = $1 \
                     union select r.store from journal_range r join incarnation i on i.id = r.incarnation \
                     where i.database_name = $1 \
                     union select g.store from journal_gap g join incarnation i on i.id = g.incarnation \
                     where i.database_name = $1 \
                     union select b.store from backup b join incarnation i on i.id = b.incarnation \
                     where i.database_name = $1 \
                     union select s.store from chronicle_seal s where s.chronicle = $2 order by store";
    let ledger = Chronicle::Exposure(database.clone()).to_string();
    let rows = txn.rows("store_list", query(statement).bind(database.to_string()).bind(ledger)).await?;
    rows.iter().map(|row| row.text("store")).collect()
}

/// As [`Catalog::store_forget`].
///
/// # Errors
/// When the catalog is away.
pub async fn store_forget_in_txn(txn: &mut Txn, database: &DatabaseName, store: &str) -> Result<()> {
    target_delete_in_txn(txn, database, store).await?;
    for statement in [
        "delete from journal_range where store = $2 \
         and incarnation in (select id from incarnation where database_name = $1)",
        "delete from journal_gap where store = $2 \
         and incarnation in (select id from incarnation where database_name = $1)",
        "delete from backup where store = $2 \
         and incarnation in (select id from incarnation where database_name = $1)",
    ] {
        let bound = query(statement).bind(database.to_string()).bind(store.to_owned());
        txn.execute("store_forget", bound).await?;
    }
    let ledger = Chronicle::Exposure(database.clone()).to_string();
    // Activity goes into a store as long as any database does.
    let statement = "delete from chronicle_seal where store = $1 and (chronicle = $2 or chronicle = $3 \
                     and not exists (select 1 from target t where t.store = $1) \
                     and not exists (select 1 from chronicle_seal s where s.store = $1 and s.chronicle not in ($2, $3)))";
    let bound = query(statement).bind(store.to_owned()).bind(ledger).bind(Chronicle::Activity.to_string());
    txn.execute("store_forget", bound).await?;
    Ok(())
}
