//! Which bytes of a journal are missing, with exact bounds and the reason.
//!
//! Log that expired is missing like any other: nothing is restored across it. It is a gap with a reason of its own, so that whoever is
//! told of losses can leave it out.

use farshore_journal::{IncarnationId, Offset, Timeline};
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::packed::{Packed, packed};
use crate::row::{Read, at, branch, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The reason of a gap that is no loss: log that no rule of retention kept was deleted.
pub const EXPIRED: &str = "expired: no rule of retention kept it";

/// A missing or unusable range of one timeline in one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whose journal.
    pub incarnation: IncarnationId,
    /// The store's name.
    pub store: String,
    /// The timeline.
    pub timeline: Timeline,
    /// The first missing offset.
    pub start: Offset,
    /// The first offset that is there again.
    pub end: Offset,
    /// Why it is missing.
    pub reason: String,
    /// When it was noticed.
    pub seen_at: Time,
}

impl Gap {
    /// Whether it is log that was deleted because nothing kept it.
    pub fn is_expired(&self) -> bool {
        self.reason == EXPIRED
    }
}

impl Catalog {
    /// Records a gap; nothing happens when it is recorded already.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty one.
    pub async fn gap_put(&self, gap: &Gap) -> Result<()> {
        in_own_txn!(self, gap_put_in_txn(gap))
    }

    /// Takes back the gaps that lie wholly in what was stored since. The count of them.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn gap_filled(
        &self,
        incarnation: IncarnationId,
        store: &str,
        timeline: Timeline,
        start: Offset,
        end: Offset,
    ) -> Result<u64> {
        in_own_txn!(self, gap_filled_in_txn(incarnation, store, timeline, start, end))
    }

    /// All gaps of an incarnation, by store, timeline and offset.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn gap_list(&self, incarnation: IncarnationId) -> Result<Vec<Gap>> {
        in_snapshot!(self, gap_list_in_txn(incarnation))
    }
}

/// As [`Catalog::gap_put`].
///
/// # Errors
/// [`Error::Invalid`] for an empty one.
pub async fn gap_put_in_txn(txn: &mut Txn, gap: &Gap) -> Result<()> {
    if gap.start >= gap.end {
        return Err(Error::Invalid { what: "gap", reason: "it is empty" });
    }
    let statement = "insert into journal_gap (incarnation, store, timeline, start_offset, end_offset, reason, \
                     seen_at) values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing";
    let bound = query(statement)
        .bind(gap.incarnation.to_string())
        .bind(gap.store.clone())
        .bind(branch(gap.timeline))
        .bind(at(gap.start)?)
        .bind(at(gap.end)?)
        .bind(gap.reason.clone())
        .bind(micros(gap.seen_at));
    txn.execute("gap_put", bound).await.map(|_| ())
}

/// As [`Catalog::gap_filled`].
///
/// # Errors
/// When the catalog is away.
pub async fn gap_filled_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    store: &str,
    timeline: Timeline,
    start: Offset,
    end: Offset,
) -> Result<u64> {
    let statement = "delete from journal_gap where incarnation = $1 and store = $2 and timeline = $3 \
                     and start_offset >= $4 and end_offset <= $5";
    let bound = query(statement)
        .bind(incarnation.to_string())
        .bind(store.to_owned())
        .bind(branch(timeline))
        .bind(at(start)?)
        .bind(at(end)?);
    txn.execute("gap_filled", bound).await
}

/// As [`Catalog::gap_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn gap_list_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<Vec<Gap>> {
    let statement = "select incarnation, store, timeline, start_offset, end_offset, reason, seen_at \
                     from journal_gap where incarnation = $1 \
                     order by store, timeline, start_offset, end_offset";
    let rows = txn.rows("gap_list", query(statement).bind(incarnation.to_string())).await?;
    rows.iter().map(from_row).collect()
}

/// The gaps of all incarnations.
pub(crate) async fn gap_all_in_txn(txn: &mut Txn) -> Result<Vec<Gap>> {
    const ALL: Packed =
        packed!("journal_gap"; incarnation, timeline, start_offset, end_offset, seen_at; store, reason);
    let mut all = txn.packed("gap_all", ALL.columns, query(ALL.statement), from_row).await?;
    all.sort_by(|a: &Gap, b| {
        (&a.store, a.timeline, a.start, a.end).cmp(&(&b.store, b.timeline, b.start, b.end))
    });
    Ok(all)
}

pub(crate) fn from_row(row: &impl Read) -> Result<Gap> {
    Ok(Gap {
        incarnation: row.parsed("incarnation")?,
        store: row.text("store")?,
        timeline: row.timeline("timeline")?,
        start: row.offset("start_offset")?,
        end: row.offset("end_offset")?,
        reason: row.text("reason")?,
        seen_at: row.time("seen_at")?,
    })
}
