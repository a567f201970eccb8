//! Which bytes of a journal a store holds: unbroken ranges, grown in place.
//!
//! What always holds: `start < end`, `start <= checked_end <= end`, and two ranges of one timeline in one store
//! neither overlap nor touch. What is written here was stored first; a crash in between leaves the catalog behind.

use farshore_journal::{IncarnationId, Offset, Position, Sequence, Timeline};
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::incarnation::incarnation_number_in_txn;
use crate::packed::{Packed, packed};
use crate::row::{Read, at, big, branch};
use crate::{Catalog, Error, Result, Txn};

/// An unbroken run of one timeline's journal in one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRange {
    /// Whose journal.
    pub incarnation: IncarnationId,
    /// The store's name.
    pub store: String,
    /// The timeline.
    pub timeline: Timeline,
    /// Its first offset.
    pub start: Offset,
    /// The next offset wanted.
    pub end: Offset,
    /// The end of the last whole record whose checksum was found right: what is restorable ends here. Its start when no record of
    /// it is known to be whole: it lies inside of one, or nobody decoded it.
    pub checked_end: Offset,
    /// The lowest chunk number in it.
    pub first_sequence: Sequence,
    /// The highest chunk number in it.
    pub last_sequence: Sequence,
}

/// The stores whose checked log holds what ends at a position.
pub fn holding(ranges: &[JournalRange], position: Position) -> Vec<String> {
    let holds = |range: &&JournalRange| {
        range.timeline == position.timeline
            && range.start < position.offset
            && position.offset <= range.checked_end
    };
    ranges.iter().filter(holds).map(|range| range.store.clone()).collect()
}

impl JournalRange {
    fn validate(&self) -> Result<()> {
        let refused = |reason| Err(Error::Invalid { what: "journal range", reason });
        if self.start >= self.end {
            return refused("it is empty");
        }
        if self.checked_end < self.start || self.checked_end > self.end {
            return refused("its checked end lies outside");
        }
        if self.first_sequence > self.last_sequence {
            return refused("its chunk numbers run backwards");
        }
        Ok(())
    }

    /// Where its last checked record ends; none when it lies inside of one record.
    fn last_checked(&self) -> Option<Offset> {
        Some(self.checked_end).filter(|end| *end > self.start)
    }

    /// Both as one; the caller knows that they overlap or touch.
    fn joined(self, other: &Self) -> Self {
        let start = self.start.min(other.start);
        Self {
            start,
            end: self.end.max(other.end),
            checked_end: self.last_checked().max(other.last_checked()).unwrap_or(start),
            first_sequence: self.first_sequence.min(other.first_sequence),
            last_sequence: self.last_sequence.max(other.last_sequence),
            ..self
        }
    }
}

impl Catalog {
    /// Adds what was stored. It joins the ranges it touches; adding it twice changes nothing.
    ///
    /// Add only what continues the chain: a chunk whose check failed is a [`crate::gap::Gap`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that is none, [`Error::NoIncarnation`] for one of an incarnation that is not known.
    pub async fn range_extend(&self, range: &JournalRange) -> Result<()> {
        in_own_txn!(self, range_extend_in_txn(range))
    }

    /// Forgets all ranges of an incarnation: nothing is restorable then, as far as the catalog knows.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn range_forget(&self, incarnation: IncarnationId) -> Result<()> {
        in_own_txn!(self, range_forget_in_txn(incarnation))
    }

    /// All ranges of an incarnation, by store, timeline and offset.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn range_list(&self, incarnation: IncarnationId) -> Result<Vec<JournalRange>> {
        in_snapshot!(self, range_list_in_txn(incarnation))
    }
}

/// As [`Catalog::range_extend`].
///
/// # Errors
/// [`Error::Invalid`] for a range that is none, [`Error::NoIncarnation`] for one of an incarnation that is not known.
pub async fn range_extend_in_txn(txn: &mut Txn, range: &JournalRange) -> Result<()> {
    range.validate()?;
    let statement = "select incarnation, store, timeline, start_offset, end_offset, checked_end, \
                     first_sequence, last_sequence from journal_range \
                     where incarnation = $1 and store = $2 and timeline = $3 \
                     and start_offset <= $4 and end_offset >= $5";
    let bound = query(statement)
        .bind(range.incarnation.to_string())
        .bind(range.store.clone())
        .bind(branch(range.timeline))
        .bind(at(range.end)?)
        .bind(at(range.start)?);
    let touched: Vec<JournalRange> =
        txn.rows("range_extend", bound).await?.iter().map(from_row).collect::<Result<_>>()?;
    let joined = touched.iter().fold(range.clone(), JournalRange::joined);
    if let [only] = touched.as_slice()
        && only.start == joined.start
    {
        return if *only == joined { Ok(()) } else { range_grow(txn, &joined).await };
    }
    for old in &touched {
        let statement = "delete from journal_range where incarnation = $1 and store = $2 and timeline = $3 \
                         and start_offset = $4";
        let bound = query(statement)
            .bind(old.incarnation.to_string())
            .bind(old.store.clone())
            .bind(branch(old.timeline))
            .bind(at(old.start)?);
        txn.execute("range_extend", bound).await?;
    }
    // Asked for first, so that one that is not known is named.
    let _known = incarnation_number_in_txn(txn, joined.incarnation).await?;
    let statement = "insert into journal_range (incarnation, store, timeline, start_offset, end_offset, \
                     checked_end, first_sequence, last_sequence) values ($1, $2, $3, $4, $5, $6, $7, $8)";
    let bound = query(statement)
        .bind(joined.incarnation.to_string())
        .bind(joined.store.clone())
        .bind(branch(joined.timeline))
        .bind(at(joined.start)?)
        .bind(at(joined.end)?)
        .bind(at(joined.checked_end)?)
        .bind(big("chunk number", joined.first_sequence.get())?)
        .bind(big("chunk number", joined.last_sequence.get())?);
    txn.execute("range_extend", bound).await.map(|_| ())
}

/// The common case, one update: the range that was there goes on.
async fn range_grow(txn: &mut Txn, joined: &JournalRange) -> Result<()> {
    let statement = "update journal_range set end_offset = $1, checked_end = $2, first_sequence = $3, \
                     last_sequence = $4 where incarnation = $5 and store = $6 and timeline = $7 \
                     and start_offset = $8 and end_offset <= $1";
    let bound = query(statement)
        .bind(at(joined.end)?)
        .bind(at(joined.checked_end)?)
        .bind(big("chunk number", joined.first_sequence.get())?)
        .bind(big("chunk number", joined.last_sequence.get())?)
        .bind(joined.incarnation.to_string())
        .bind(joined.store.clone())
        .bind(branch(joined.timeline))
        .bind(at(joined.start)?);
    match txn.execute("range_extend", bound).await? {
        1 => Ok(()),
        _ => Err(Error::Conflict {
            what: "journal range",
            name: format!("{}:{}", joined.timeline, joined.start),
            reason: "another writer changed it meanwhile".to_owned(),
        }),
    }
}

/// As [`Catalog::range_forget`].
///
/// # Errors
/// When the catalog is away.
pub async fn range_forget_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<()> {
    let bound = query("delete from journal_range where incarnation = $1").bind(incarnation.to_string());
    txn.execute("range_forget", bound).await.map(|_| ())
}

/// As [`Catalog::range_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn range_list_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<Vec<JournalRange>> {
    let statement = "select incarnation, store, timeline, start_offset, end_offset, checked_end, \
                     first_sequence, last_sequence from journal_range \
                     where incarnation = $1 order by store, timeline, start_offset";
    let rows = txn.rows("range_list", query(statement).bind(incarnation.to_string())).await?;
    rows.iter().map(from_row).collect()
}

/// The ranges of all incarnations, each one's by store, timeline and offset.
pub(crate) async fn range_all_in_txn(txn: &mut Txn) -> Result<Vec<JournalRange>> {
    const ALL: Packed = packed!("journal_range"; incarnation, timeline, start_offset, end_offset, checked_end, first_sequence, last_sequence; store);
    let mut all = txn.packed("range_all", ALL.columns, query(ALL.statement), from_row).await?;
    all.sort_by(|a: &JournalRange, b| (&a.store, a.timeline, a.start).cmp(&(&b.store, b.timeline, b.start)));
    Ok(all)
}

pub(crate) fn from_row(row: &impl Read) -> Result<JournalRange> {
    Ok(JournalRange {
        incarnation: row.parsed("incarnation")?,
        store: row.text("store")?,
        timeline: row.timeline("timeline")?,
        start: row.offset("start_offset")?,
        end: row.offset("end_offset")?,
        checked_end: row.offset("checked_end")?,
        first_sequence: row.count("first_sequence").map(Sequence::new)?,
        last_sequence: row.count("last_sequence").map(Sequence::new)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_inside_of_one_record_moves_no_checked_end() {
        let range = |start, end, checked| JournalRange {
            incarnation: IncarnationId::from_bytes([1; 16]),
            store: "main".to_owned(),
            timeline: Timeline::new(1),
            start: Offset::new(start),
            end: Offset::new(end),
            checked_end: Offset::new(checked),
            first_sequence: Sequence::FIRST,
            last_sequence: Sequence::FIRST,
        };
        fn joined(one: &JournalRange, other: &JournalRange) -> (u64, u64, u64) {
            let both = one.clone().joined(other);
            (both.start.get(), both.end.get(), both.checked_end.get())
        }
        let (before, within, behind) = (range(0, 100, 60), range(100, 200, 100), range(200, 300, 250));
        assert_eq!(joined(&before, &within), (0, 200, 60));
        assert_eq!(joined(&within, &before), (0, 200, 60));
        assert_eq!(joined(&within, &range(200, 300, 200)), (100, 300, 100));
        assert_eq!(joined(&before.clone().joined(&within), &behind), (0, 300, 250));
        // One that ends with its last record is checked to its end.
        assert_eq!(joined(&range(0, 100, 100), &within), (0, 200, 100));
    }
}
