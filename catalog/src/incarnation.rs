//! The incarnations of a database: which histories it has had. Facts of an incarnation never change.
//!
//! The current one has the highest number in its store's records: order never comes from clocks. Older ones stay restorable.

use farshore_journal::{DatabaseName, IncarnationId};
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::packed::{Packed, packed};
use crate::row::{Read, big, big_known, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// How often a new local number is tried while other writers take theirs. Each try sees one more of them.
pub(crate) const NUMBER_TRIES: usize = 100;

/// One identity of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// Its id.
    pub id: IncarnationId,
    /// Whose it is.
    pub database: DatabaseName,
    /// What the engine says it is. PostgreSQL: the system identifier, in decimal.
    pub engine_identity: String,
    /// The number that its store's record gives it, from 0 on; `None` when it was recorded before numbers were kept.
    pub number: Option<u64>,
    /// When it was minted, by a clock: for showing, never for order.
    pub created_at: Time,
    /// The one it came from, when that is known.
    pub parent: Option<IncarnationId>,
    /// Why it was minted, in a word or a sentence.
    pub reason: String,
    /// Bytes in one file of the engine's log.
    pub segment_bytes: u64,
    /// The engine's major version.
    pub major_version: Option<u32>,
}

impl Catalog {
    /// Records an incarnation; nothing happens when it is recorded already.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is recorded with other facts.
    pub async fn incarnation_put(&self, incarnation: &Incarnation) -> Result<()> {
        in_own_txn!(self, incarnation_put_in_txn(incarnation))
    }

    /// All incarnations of a database, oldest first.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn incarnation_list(&self, database: &DatabaseName) -> Result<Vec<Incarnation>> {
        in_snapshot!(self, incarnation_list_in_txn(database))
    }

    /// The incarnation of this id.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn incarnation_find(&self, id: IncarnationId) -> Result<Option<Incarnation>> {
        in_snapshot!(self, incarnation_find_in_txn(id))
    }

    /// The incarnation of a database with the highest number.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn incarnation_current(&self, database: &DatabaseName) -> Result<Option<Incarnation>> {
        in_snapshot!(self, incarnation_current_in_txn(database))
    }
}

/// As [`Catalog::incarnation_put`].
///
/// # Errors
/// [`Error::Conflict`] when it is recorded with other facts.
pub async fn incarnation_put_in_txn(txn: &mut Txn, incarnation: &Incarnation) -> Result<()> {
    let statement = "insert into incarnation (id, number, database_name, engine_identity, created_at, parent, \
                     reason, segment_bytes, major_version, record_number) \
                     select $1, coalesce(max(number), 0) + 1, $2, $3, $4, $5, $6, $7, $8, $9 from incarnation \
                     where true on conflict do nothing";
    for _ in 0..NUMBER_TRIES {
        let bound = query(statement)
            .bind(incarnation.id.to_string())
            .bind(incarnation.database.to_string())
            .bind(incarnation.engine_identity.clone())
            .bind(micros(incarnation.created_at))
            .bind(incarnation.parent.map(|parent| parent.to_string()))
            .bind(incarnation.reason.clone())
            .bind(big("segment size", incarnation.segment_bytes)?)
            .bind(incarnation.major_version.map(i64::from))
            .bind(big_known("incarnation's number", incarnation.number)?);
        if txn.execute("incarnation_put", bound).await? == 1 {
            return Ok(());
        }
        // Either this incarnation is there, or another one took the number at the same moment.
        if let Some(known) = incarnation_find_in_txn(txn, incarnation.id).await? {
            let number = incarnation.number.or(known.number);
            let filled = Incarnation { number, created_at: known.created_at, ..incarnation.clone() };
            let same = filled == Incarnation { number: known.number.or(number), ..known.clone() }
                && micros(known.created_at) == micros(incarnation.created_at);
            return match (same, known.number) {
                (false, _) => Err(conflict(incarnation, "with other facts")),
                (true, None) if number.is_some() => number_fill_in(txn, incarnation.id, number).await,
                (true, _) => Ok(()),
            };
        }
    }
    Err(conflict(incarnation, "no number was free"))
}

/// Keeps the number of an incarnation that was recorded before numbers were kept.
async fn number_fill_in(txn: &mut Txn, id: IncarnationId, number: Option<u64>) -> Result<()> {
    let statement = "update incarnation set record_number = $1 where id = $2 and record_number is null";
    let bound = query(statement).bind(big_known("incarnation's number", number)?).bind(id.to_string());
    txn.execute("incarnation_put", bound).await.map(|_| ())
}

fn conflict(incarnation: &Incarnation, reason: &str) -> Error {
    Error::Conflict { what: "incarnation", name: incarnation.id.to_string(), reason: reason.to_owned() }
}

/// As [`Catalog::incarnation_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn incarnation_list_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Vec<Incarnation>> {
    let statement = "select id, database_name, engine_identity, created_at, parent, reason, segment_bytes, \
                     major_version, record_number from incarnation where database_name = $1 \
                     order by coalesce(record_number, -1), created_at, id";
    let rows = txn.rows("incarnation_list", query(statement).bind(database.to_string())).await?;
    rows.iter().map(from_row).collect()
}

/// As [`Catalog::incarnation_find`].
///
/// # Errors
/// When the catalog is away.
pub async fn incarnation_find_in_txn(txn: &mut Txn, id: IncarnationId) -> Result<Option<Incarnation>> {
    let statement = "select id, database_name, engine_identity, created_at, parent, reason, segment_bytes, \
                     major_version, record_number from incarnation where id = $1";
    let row = txn.row("incarnation_find", query(statement).bind(id.to_string())).await?;
    row.as_ref().map(from_row).transpose()
}

/// As [`Catalog::incarnation_current`].
///
/// # Errors
/// When the catalog is away.
pub async fn incarnation_current_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
) -> Result<Option<Incarnation>> {
    let statement = "select id, database_name, engine_identity, created_at, parent, reason, segment_bytes, \
                     major_version, record_number from incarnation where database_name = $1 \
                     order by coalesce(record_number, -1) desc, created_at desc, id desc limit 1";
    let row = txn.row("incarnation_current", query(statement).bind(database.to_string())).await?;
    row.as_ref().map(from_row).transpose()
}

/// The local number that stands for an incarnation in the commits' table.
pub(crate) async fn incarnation_number_in_txn(txn: &mut Txn, id: IncarnationId) -> Result<i64> {
    let bound = query("select number from incarnation where id = $1").bind(id.to_string());
    let row = txn.row("incarnation_number", bound).await?;
    row.ok_or(Error::NoIncarnation { id })?.integer("number")
}

/// The incarnations of all databases, each database's oldest first.
pub(crate) async fn incarnation_all_in_txn(txn: &mut Txn) -> Result<Vec<Incarnation>> {
    const ALL: Packed = packed!("incarnation"; id, database_name, created_at, parent, segment_bytes, major_version, record_number;
        engine_identity, reason);
    let mut all = txn.packed("incarnation_all", ALL.columns, query(ALL.statement), from_row).await?;
    // One without a number is older than those that have one.
    all.sort_by_key(|one: &Incarnation| (one.number, one.created_at, one.id));
    Ok(all)
}

pub(crate) fn from_row(row: &impl Read) -> Result<Incarnation> {
    let major = row.maybe_integer("major_version")?.map(u32::try_from).transpose();
    Ok(Incarnation {
        id: row.parsed("id")?,
        database: row.parsed("database_name")?,
        engine_identity: row.text("engine_identity")?,
        number: row.maybe_count("record_number")?,
        created_at: row.time("created_at")?,
        parent: row.maybe_parsed("parent")?,
        reason: row.text("reason")?,
        segment_bytes: row.count("segment_bytes")?,
        major_version: major.map_err(|error| Error::corrupt("major_version", error))?,
    })
}
