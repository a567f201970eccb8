//! Whether a journal holds what a number names, told from its ends alone: positions and a SQLite database's transactions are counted
//! anew in each incarnation, so the same number may name something else in another one.
//!
//! What always holds: no log is read for it, however long the journal is. Yes means that the number lies in what is stored, not that a
//! base backup leads to it.

use farshore_engines::log::Shape;
use farshore_engines::sqlite::mark;
use farshore_journal::format::Kind;
use farshore_journal::{JournalError, Position, Sequence};

use crate::branches::{BranchError, Branches};
use crate::plan::{Asked, AskedPosition, PlanError};
use crate::source::Source;

/// Whether the journal of `source` holds what is `asked` for; `None` where its ends alone do not say so: a time, a point, and a
/// transaction of an engine that does not count them from 1 on without a hole.
///
/// # Errors
/// When the journal does not read.
pub async fn holds(source: &Source, asked: &Asked) -> Result<Option<bool>, PlanError> {
    match (asked, source.shape()) {
        (Asked::Position(position), _) => {
            let within = !positions(source, *position).await?.is_empty();
            Ok(Some(within))
        }
        (Asked::Transaction(number), Shape::Sqlite { .. }) => {
            let last = last_transaction(source).await?;
            Ok(Some(*number > 0 && last.is_some_and(|last| *number <= last)))
        }
        (Asked::Transaction(_), Shape::Postgres(_))
        | (Asked::Latest | Asked::Time(_) | Asked::Point(_), _) => Ok(None),
    }
}

/// Every position of the journal that is `asked` for: several where it names no timeline and more than one holds the offset.
///
/// # Errors
/// When the journal does not read.
pub async fn positions(source: &Source, asked: AskedPosition) -> Result<Vec<Position>, PlanError> {
    let branches = Branches::read(source.reader()).await.map_err(|why| match why {
        BranchError::Journal(why) => PlanError::Journal(why),
        other => PlanError::Timelines { why: other.to_string() },
    })?;
    let AskedPosition { timeline, offset } = asked;
    let Some(branches) = branches else { return Ok(Vec::new()) };
    let named = branches.all().iter().filter(|held| timeline.is_none_or(|named| held.timeline == named));
    let within = named.filter(|held| held.begin < offset && offset <= held.end);
    Ok(within.map(|held| Position::new(held.timeline, offset)).collect())
}

/// The number of the last transaction that a SQLite journal holds whole: the last mark says it, since a chunk without one holds no
/// record's end.
///
/// # Errors
/// When the journal does not read.
pub async fn last_transaction(source: &Source) -> Result<Option<u64>, JournalError> {
    let reader = source.reader();
    let Some(last) = reader.last().await? else { return Ok(None) };
    let mut header = last.header().clone();
    loop {
        if header.kind == Kind::Data && !header.mark.is_none() {
            return Ok(Some(mark::start(header.mark, header.end).number));
        }
        let Some(before) = header.number.get().checked_sub(1) else { return Ok(None) };
        header = reader.expected_header(Sequence::new(before)).await?;
    }
}
