//! The newest signed head of each journal: what was known of it outside its store.
//!
//! What always holds: a head is only ever replaced by one of a later chunk, or where its own key is not pinned any more, and it stays
//! when the store no longer holds what it speaks of: it is the witness. Whether its signature counts is asked by whoever has the pinned
//! keys, of this copy too.

use farshore_journal::format::{Head, Statement, VerifyKey, VerifyKeys};
use farshore_journal::{DatabaseName, Generation, Position, Sequence};
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::row::{Read as _, at, big, branch};
use crate::{Catalog, Result, Txn};

/// A head, and the name of the store that its journal is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHead {
    /// The store's name in the configuration.
    pub store: String,
    /// The head.
    pub head: Head,
}

impl Catalog {
    /// Records a head that one of these pinned keys signed. One of an earlier chunk of the same journal changes nothing, unless what is
    /// known was signed by a key that is not pinned.
    ///
    /// # Errors
    /// When the database is not known or the catalog is away.
    pub async fn head_put(&self, store: &str, head: &Head, pinned: &VerifyKeys) -> Result<()> {
        in_own_txn!(self, head_put_in_txn(store, head, pinned))
    }

    /// The newest known head of each journal of a database, by store and incarnation.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn head_list(&self, database: &DatabaseName) -> Result<Vec<KnownHead>> {
        in_snapshot!(self, head_list_in_txn(database))
    }
}

/// As [`Catalog::head_put`].
///
/// # Errors
/// When the database is not known or the catalog is away.
pub async fn head_put_in_txn(txn: &mut Txn, store: &str, head: &Head, pinned: &VerifyKeys) -> Result<()> {
    if pinned.contains(&head.key) {
        head_forget_unpinned_in_txn(txn, store, head, pinned).await?;
    }
    let statement = "insert into journal_head (database_name, store, incarnation, store_id, sequence, chain, timeline, \
                     end_offset, generation, signed_at, signing_key, signature) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
                     on conflict (database_name, store, incarnation) do update set store_id = excluded.store_id, \
                     sequence = excluded.sequence, chain = excluded.chain, timeline = excluded.timeline, \
                     end_offset = excluded.end_offset, generation = excluded.generation, \
                     signed_at = excluded.signed_at, signing_key = excluded.signing_key, \
                     signature = excluded.signature where excluded.sequence > journal_head.sequence";
    let said = &head.said;
    let bound = query(statement)
        .bind(said.database.to_string())
        .bind(store.to_owned())
        .bind(said.incarnation.to_string())
        .bind(said.store.to_string())
        .bind(big("chunk number", said.number.get())?)
        .bind(said.chain.to_string())
        .bind(branch(said.end.timeline))
        .bind(at(said.end.offset)?)
        .bind(big("generation", said.generation.get())?)
        .bind(head.signed_at)
        .bind(head.key.to_string())
        .bind(head.signature.to_string());
    txn.execute("head_put", bound).await.map(|_| ())
}

/// Whoever got hold of a key that was replaced since could have put a head there that no chunk ever comes up to.
async fn head_forget_unpinned_in_txn(
    txn: &mut Txn,
    store: &str,
    head: &Head,
    pinned: &VerifyKeys,
) -> Result<()> {
    let statement = "select signing_key from journal_head \
                     where database_name = $1 and store = $2 and incarnation = $3";
    let (database, incarnation) = (head.said.database.to_string(), head.said.incarnation.to_string());
    let bound = query(statement).bind(database.clone()).bind(store.to_owned()).bind(incarnation.clone());
    for row in txn.rows("head_key_find", bound).await? {
        let key: VerifyKey = row.parsed("signing_key")?;
        if pinned.contains(&key) {
            continue;
        }
        let statement = "delete from journal_head \
                         where database_name = $1 and store = $2 and incarnation = $3 and signing_key = $4";
        let bound = query(statement)
            .bind(database.clone())
            .bind(store.to_owned())
            .bind(incarnation.clone())
            .bind(key.to_string());
        txn.execute("head_forget_unpinned", bound).await?;
    }
    Ok(())
}

/// As [`Catalog::head_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn head_list_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Vec<KnownHead>> {
    let statement = "select database_name, store, incarnation, store_id, sequence, chain, timeline, end_offset, \
                     generation, signed_at, signing_key, signature from journal_head \
                     where database_name = $1 order by store, incarnation";
    let rows = txn.rows("head_list", query(statement).bind(database.to_string())).await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<KnownHead> {
    let said = Statement {
        store: row.parsed("store_id")?,
        incarnation: row.parsed("incarnation")?,
        database: row.parsed("database_name")?,
        number: Sequence::new(row.count("sequence")?),
        chain: row.parsed("chain")?,
        end: Position::new(row.timeline("timeline")?, row.offset("end_offset")?),
        generation: Generation::new(row.count("generation")?),
    };
    let head = Head {
        said,
        signed_at: row.integer("signed_at")?,
        key: row.parsed("signing_key")?,
        signature: row.parsed("signature")?,
    };
    Ok(KnownHead { store: row.text("store")?, head })
}
