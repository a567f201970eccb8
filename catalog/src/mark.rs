//! Named points: restore points found in the log, marks an operator set, and holds that keep a point from expiry.

use std::fmt;
use std::str::FromStr;

use farshore_journal::{IncarnationId, Position};
use sqlx::any::AnyRow;
use sqlx::query;

use crate::commit::Part;
use crate::connection::{in_own_txn, in_snapshot};
use crate::row::{Read as _, at, branch, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The most marks one look-up by name or position gives: a name may be used many times in the log.
pub(crate) const MARKS: i64 = 1000;

/// Where a mark comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarkKind {
    /// The database wrote it into its log.
    RestorePoint,
    /// An operator or a job set it.
    Mark,
    /// It keeps its point restorable until it is released or its time is over.
    Hold,
}

impl MarkKind {
    /// Its word, in the catalog and on screens.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RestorePoint => "restore_point",
            Self::Mark => "mark",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for MarkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for MarkKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::RestorePoint, Self::Mark, Self::Hold]
            .into_iter()
            .find(|kind| kind.word() == text)
            .ok_or_else(|| Error::corrupt("kind", "a word that is no kind of mark"))
    }
}

/// A named point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whose history it is in.
    pub incarnation: IncarnationId,
    /// Where it comes from.
    pub kind: MarkKind,
    /// Its name; restore points may repeat one.
    pub name: String,
    /// The position that is restored for it.
    pub position: Position,
    /// Its time.
    pub time: Time,
    /// Why it was set; may be empty.
    pub note: String,
    /// Until when it keeps its point from expiry; `None` on a hold: until released.
    pub held_until: Option<Time>,
}

impl Catalog {
    /// Records a mark. One of the same kind, name and position takes the new note and hold.
    ///
    /// # Errors
    /// When the incarnation is not known or the catalog is away.
    pub async fn mark_put(&self, mark: &Mark) -> Result<()> {
        in_own_txn!(self, mark_put_in_txn(mark))
    }

    /// Removes the marks of this kind and name. The count of them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a restore point: the log has it.
    pub async fn mark_release(&self, incarnation: IncarnationId, kind: MarkKind, name: &str) -> Result<u64> {
        in_own_txn!(self, mark_release_in_txn(incarnation, kind, name))
    }

    /// The marks of this name, of every kind, in log order within a timeline.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn mark_find(&self, incarnation: IncarnationId, name: &str) -> Result<Vec<Mark>> {
        in_snapshot!(self, mark_find_in_txn(incarnation, name))
    }

    /// All marks of an incarnation, by timeline, offset, kind and name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn mark_list(&self, incarnation: IncarnationId) -> Result<Vec<Mark>> {
        in_snapshot!(self, mark_list_in_txn(incarnation))
    }
}

/// As [`Catalog::mark_put`].
///
/// # Errors
/// When the incarnation is not known or the catalog is away.
pub async fn mark_put_in_txn(txn: &mut Txn, mark: &Mark) -> Result<()> {
    let statement = "insert into mark (incarnation, kind, name, timeline, at_offset, time_us, note, held_until) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8) \
                     on conflict (incarnation, kind, name, timeline, at_offset) do update set \
                     note = excluded.note, held_until = excluded.held_until";
    let bound = query(statement)
        .bind(mark.incarnation.to_string())
        .bind(mark.kind.word())
        .bind(mark.name.clone())
        .bind(branch(mark.position.timeline))
        .bind(at(mark.position.offset)?)
        .bind(micros(mark.time))
        .bind(mark.note.clone())
        .bind(mark.held_until.map(micros));
    txn.execute("mark_put", bound).await.map(|_| ())
}

/// As [`Catalog::mark_release`].
///
/// # Errors
/// [`Error::Invalid`] for a restore point: the log has it.
pub async fn mark_release_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    kind: MarkKind,
    name: &str,
) -> Result<u64> {
    if kind == MarkKind::RestorePoint {
        return Err(Error::Invalid { what: "release", reason: "a restore point stands in the log itself" });
    }
    let statement = "delete from mark where incarnation = $1 and kind = $2 and name = $3";
    let bound = query(statement).bind(incarnation.to_string()).bind(kind.word()).bind(name.to_owned());
    txn.execute("mark_release", bound).await
}

/// As [`Catalog::mark_find`].
///
/// # Errors
/// When the catalog is away.
pub async fn mark_find_in_txn(txn: &mut Txn, incarnation: IncarnationId, name: &str) -> Result<Vec<Mark>> {
    let statement = "select incarnation, kind, name, timeline, at_offset, time_us, note, held_until from mark \
                     where incarnation = $1 and name = $2 order by timeline, at_offset, kind limit $3";
    let bound = query(statement).bind(incarnation.to_string()).bind(name.to_owned()).bind(MARKS);
    txn.rows("mark_find", bound).await?.iter().map(from_row).collect()
}

/// As [`Catalog::mark_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn mark_list_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<Vec<Mark>> {
    let statement = "select incarnation, kind, name, timeline, at_offset, time_us, note, held_until from mark \
                     where incarnation = $1 order by timeline, at_offset, kind, name";
    let rows = txn.rows("mark_list", query(statement).bind(incarnation.to_string())).await?;
    rows.iter().map(from_row).collect()
}

/// The marks in a part of one timeline, in log order, at most [`MARKS`] of them: the last ones.
pub(crate) async fn mark_between_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    part: Part,
) -> Result<Vec<Mark>> {
    let statement = "select incarnation, kind, name, timeline, at_offset, time_us, note, held_until from mark \
                     where incarnation = $1 and timeline = $2 and at_offset > $3 and at_offset <= $4 \
                     order by at_offset desc, kind desc, name desc limit $5";
    let bound = query(statement)
        .bind(incarnation.to_string())
        .bind(branch(part.timeline))
        .bind(at(part.after)?)
        .bind(part.until.map(at).transpose()?.unwrap_or(i64::MAX))
        .bind(MARKS);
    txn.rows("mark_between", bound).await?.iter().rev().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Mark> {
    Ok(Mark {
        incarnation: row.parsed("incarnation")?,
        kind: row.text("kind")?.parse()?,
        name: row.text("name")?,
        position: Position::new(row.timeline("timeline")?, row.offset("at_offset")?),
        time: row.time("time_us")?,
        note: row.text("note")?,
        held_until: row.maybe_time("held_until")?,
    })
}
