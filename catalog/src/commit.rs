//! Every commit of a journal: where it ends, when it was made, and its transaction id.
//!
//! Commit times step back now and then, so order comes from offsets. `latest_us` in the table is the latest time of
//! a commit and all before it on its timeline: it only rises, and finds "the first commit in log order whose time is
//! later than T" with one index look-up.
//!
//! What always holds: along a timeline `latest_us` never falls, and is at least `max(time_us)` up to each row. It may
//! be higher where the commits that raised it have expired; a look-up that meets such a row reads in log order.

use farshore_journal::{IncarnationId, Offset, Position, Timeline};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, query};

use crate::branch::Stretch;
use crate::connection::{Bound, in_own_txn};
use crate::incarnation::incarnation_number_in_txn;
use crate::row::{Read as _, at, big, branch, micros};
use crate::{Catalog, Result, Time, Txn};

/// Rows in one insert. Few, because SQLite's names of values are looked up one after the other each time a value is bound: the
/// cost of a row grows with the rows beside it. With 500 rows this took more of a service's CPU than compressing its log.
const ROWS_PER_INSERT: usize = 32;

/// The most rows already there that one insert is merged with in memory.
const OVERLAP: usize = 20_000;

/// The most rows of one timeline forgotten in one transaction.
const FORGOTTEN_AT_ONCE: usize = 20_000;

/// One commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Its timeline.
    pub timeline: Timeline,
    /// Where its record starts.
    pub start: Offset,
    /// Where its record ends: a restore to here holds it.
    pub end: Offset,
    /// When it was made, by the primary's clock.
    pub time: Time,
    /// Its transaction id, with the epoch.
    pub xid: u64,
}

impl Commit {
    /// The position that holds it: its end.
    pub fn position(&self) -> Position {
        Position::new(self.timeline, self.end)
    }
}

impl Catalog {
    /// Adds commits, in any order; those recorded already are left alone. The count of new ones.
    ///
    /// # Errors
    /// [`crate::Error::NoIncarnation`] when it is not known.
    pub async fn commit_insert(&self, incarnation: IncarnationId, commits: &[Commit]) -> Result<u64> {
        in_own_txn!(self, commit_insert_in_txn(incarnation, commits))
    }

    /// Forgets all commits of an incarnation, some thousands in each transaction: before it is written anew.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn commit_forget(&self, incarnation: IncarnationId) -> Result<()> {
        while in_own_txn!(self, commit_forget_some_in_txn(incarnation))? > 0 {}
        Ok(())
    }

    /// Forgets the commits of a timeline that end at or before `offset`, after their log was expired.
    ///
    /// # Errors
    /// [`crate::Error::NoIncarnation`] when it is not known.
    pub async fn commit_expire(
        &self,
        incarnation: IncarnationId,
        timeline: Timeline,
        offset: Offset,
    ) -> Result<u64> {
        in_own_txn!(self, commit_expire_in_txn(incarnation, timeline, offset))
    }
}

/// As [`Catalog::commit_insert`].
///
/// # Errors
/// [`crate::Error::NoIncarnation`] when it is not known.
pub async fn commit_insert_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    commits: &[Commit],
) -> Result<u64> {
    if commits.is_empty() {
        return Ok(0);
    }
    let number = incarnation_number_in_txn(txn, incarnation).await?;
    let mut ordered = commits.to_vec();
    ordered.sort_by_key(|commit| (commit.timeline, commit.end));
    let mut added = 0;
    for of_timeline in ordered.chunk_by(|a, b| a.timeline == b.timeline) {
        added += insert_on_timeline(txn, number, of_timeline).await?;
    }
    Ok(added)
}

/// Inserts commits of one timeline, sorted by offset.
async fn insert_on_timeline(txn: &mut Txn, number: i64, commits: &[Commit]) -> Result<u64> {
    let mut added = 0;
    // A stack, because what overlaps too much of what is there is cut in two, down to single commits.
    let mut work = vec![commits];
    while let Some(commits) = work.pop() {
        let (Some(first), Some(last)) = (commits.first(), commits.last()) else { continue };
        let known = known_between(txn, number, first, last).await?;
        if known.len() > OVERLAP && commits.len() > 1 {
            let (earlier, later) = commits.split_at(commits.len() / 2);
            work.extend([later, earlier]);
        } else {
            added += insert_over(txn, number, commits, &known).await?;
        }
    }
    Ok(added)
}

/// A row that is there already.
#[derive(Debug, Clone, Copy)]
struct Known {
    end: Offset,
    time: i64,
    latest: i64,
}

/// Inserts commits over all rows that are there between the first and the last of them.
async fn insert_over(txn: &mut Txn, number: i64, commits: &[Commit], known: &[Known]) -> Result<u64> {
    let (Some(first), Some(last)) = (commits.first(), commits.last()) else { return Ok(0) };
    let mut latest = latest_until(txn, number, first.timeline, first.end).await?.unwrap_or(i64::MIN);
    let mut fresh: Vec<(&Commit, i64)> = Vec::with_capacity(commits.len());
    let mut raised: Vec<(Offset, i64)> = Vec::new();
    let mut known = known.iter().peekable();
    for commit in commits {
        let mut new = true;
        while let Some(row) = known.next_if(|row| row.end <= commit.end) {
            new &= row.end != commit.end;
            latest = latest.max(row.time).max(row.latest);
            if row.latest < latest {
                raised.push((row.end, latest));
            }
        }
        if new {
            latest = latest.max(micros(commit.time));
            fresh.push((commit, latest));
        }
    }
    let mut added = 0;
    for rows in fresh.chunks(ROWS_PER_INSERT) {
        added += insert_rows(txn, number, rows).await?;
    }
    for (end, latest) in raised {
        let statement = "update commit_point set latest_us = $1 \
                         where incarnation_number = $2 and timeline = $3 and end_offset = $4";
        let bound = query(statement).bind(latest).bind(number).bind(branch(first.timeline)).bind(at(end)?);
        txn.execute("commit_insert", bound).await?;
    }
    raise_later(txn, number, last, latest).await?;
    Ok(added)
}

/// Inserts rows of one timeline.
async fn insert_rows(txn: &mut Txn, number: i64, rows: &[(&Commit, i64)]) -> Result<u64> {
    // A text per remainder would push the hot ones out of the connection's statement cache.
    let keep = rows.len() == ROWS_PER_INSERT || rows.len() == 1;
    let Some((first, _)) = rows.first() else { return Ok(0) };
    let mut bound = query(AssertSqlSafe(insert_text(rows.len()))).persistent(keep);
    bound = bound.bind(number).bind(branch(first.timeline));
    for (commit, latest) in rows {
        bound = bound
            .bind(at(commit.end)?)
            .bind(at(commit.start)?)
            .bind(micros(commit.time))
            .bind(*latest)
            .bind(big("transaction id", commit.xid)?);
    }
    txn.execute("commit_insert", bound).await
}

fn insert_text(rows: usize) -> String {
    let mut text = String::with_capacity(200 + rows * 50);
    text.push_str(
        "insert into commit_point (incarnation_number, timeline, end_offset, start_offset, time_us, latest_us, \
         xid) values ",
    );
    for row in 0..rows {
        // The first two are every row's: incarnation and timeline.
        let value = 2 + row * 5;
        let comma = if row == 0 { "" } else { ", " };
        text.push_str(&format!(
            "{comma}($1, $2, ${}, ${}, ${}, ${}, ${})",
            value + 1,
            value + 2,
            value + 3,
            value + 4,
            value + 5
        ));
    }
    text.push_str(" on conflict do nothing");
    text
}

/// The running maximum at the last commit before `end`.
async fn latest_until(txn: &mut Txn, number: i64, timeline: Timeline, end: Offset) -> Result<Option<i64>> {
    let bound = query(text::LATEST_UNTIL).bind(number).bind(branch(timeline)).bind(at(end)?);
    txn.row("commit_insert", bound).await?.map(|row| row.integer("latest_us")).transpose()
}

/// The rows from the first to the last of some commits, up to one more than may be worked on at once.
async fn known_between(txn: &mut Txn, number: i64, first: &Commit, last: &Commit) -> Result<Vec<Known>> {
    let bound = query(text::KNOWN_BETWEEN)
        .bind(number)
        .bind(branch(first.timeline))
        .bind(at(first.end)?)
        .bind(at(last.end)?)
        .bind(rows_limit(OVERLAP + 1));
    let rows = txn.rows("commit_insert", bound).await?;
    rows.iter()
        .map(|row| {
            Ok(Known {
                end: row.offset("end_offset")?,
                time: row.integer("time_us")?,
                latest: row.integer("latest_us")?,
            })
        })
        .collect()
}

/// Raises the running maximum of the rows after `last`; usually there are none.
async fn raise_later(txn: &mut Txn, number: i64, last: &Commit, latest: i64) -> Result<()> {
    let bound = query(text::NEXT_AFTER).bind(number).bind(branch(last.timeline)).bind(at(last.end)?);
    // Asked first, because a planner may take the other index for the update and walk all earlier rows.
    match txn.row("commit_insert", bound).await?.map(|row| row.integer("latest_us")).transpose()? {
        Some(next) if next < latest => {}
        _ => return Ok(()),
    }
    let statement = "update commit_point set latest_us = $1 where incarnation_number = $2 and timeline = $3 \
                     and end_offset > $4 and latest_us < $1";
    let bound = query(statement).bind(latest).bind(number).bind(branch(last.timeline)).bind(at(last.end)?);
    txn.execute("commit_insert", bound).await.map(|_| ())
}

/// Forgets some of an incarnation's commits, those of its lowest timeline first; the count of them.
///
/// # Errors
/// When the catalog is away.
async fn commit_forget_some_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<u64> {
    let statement = "delete from commit_point \
                     where incarnation_number = (select number from incarnation where id = $1) \
                     and timeline = (select min(timeline) from commit_point \
                     where incarnation_number = (select number from incarnation where id = $1)) \
                     and end_offset <= (select max(end_offset) from (select end_offset from commit_point \
                     where incarnation_number = (select number from incarnation where id = $1) \
                     order by timeline, end_offset limit $2) as first_ones)";
    let bound = query(statement).bind(incarnation.to_string()).bind(rows_limit(FORGOTTEN_AT_ONCE));
    txn.execute("commit_forget", bound).await
}

/// As [`Catalog::commit_expire`]. What is left keeps its running maximum, which those expired may have raised.
///
/// # Errors
/// [`crate::Error::NoIncarnation`] when it is not known.
pub async fn commit_expire_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    timeline: Timeline,
    offset: Offset,
) -> Result<u64> {
    let number = incarnation_number_in_txn(txn, incarnation).await?;
    let statement =
        "delete from commit_point where incarnation_number = $1 and timeline = $2 and end_offset <= $3";
    let bound = query(statement).bind(number).bind(branch(timeline)).bind(at(offset)?);
    txn.execute("commit_expire", bound).await
}

/// The hot queries, so that the plan test sees the very texts that run.
pub(crate) mod text {
    pub(crate) const BY_XID: &str = "select timeline, start_offset, end_offset, time_us, xid from commit_point \
        where incarnation_number = $1 and xid = $2 order by timeline, end_offset limit 100";
    pub(crate) const ASCENDING: &str = "select timeline, start_offset, end_offset, time_us, xid from commit_point \
        where incarnation_number = $1 and timeline = $2 and end_offset > $3 and end_offset <= $4 \
        order by end_offset limit $5";
    pub(crate) const DESCENDING: &str = "select timeline, start_offset, end_offset, time_us, xid from commit_point \
        where incarnation_number = $1 and timeline = $2 and end_offset > $3 and end_offset <= $4 \
        order by end_offset desc limit $5";
    pub(crate) const FIRST_LATER: &str = "select timeline, start_offset, end_offset, time_us, xid \
        from commit_point where incarnation_number = $1 and timeline = $2 and latest_us > $3 \
        order by latest_us, end_offset limit 1";
    pub(crate) const FIRST_LATER_SCANNED: &str = "select timeline, start_offset, end_offset, time_us, xid \
        from commit_point where incarnation_number = $1 and timeline = $2 and end_offset > $3 \
        and end_offset <= $4 and time_us > $5 order by end_offset limit 1";
    pub(crate) const LATEST_UNTIL: &str = "select latest_us from commit_point \
        where incarnation_number = $1 and timeline = $2 and end_offset < $3 order by end_offset desc limit 1";
    pub(crate) const NEXT_AFTER: &str = "select latest_us from commit_point \
        where incarnation_number = $1 and timeline = $2 and end_offset > $3 order by end_offset limit 1";
    pub(crate) const KNOWN_BETWEEN: &str = "select end_offset, time_us, latest_us from commit_point \
        where incarnation_number = $1 and timeline = $2 and end_offset >= $3 and end_offset <= $4 \
        order by end_offset limit $5";
    pub(crate) const COUNT: &str = "select cast(count(*) as bigint) as commits from (\
        select end_offset from commit_point where incarnation_number = $1 and timeline = $2 \
        and end_offset > $3 and end_offset <= $4 limit $5) as counted";
}

/// A part of one timeline in log order: commits with `after < end <= until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) timeline: Timeline,
    pub(crate) after: Offset,
    pub(crate) until: Option<Offset>,
}

impl From<Stretch> for Part {
    fn from(stretch: Stretch) -> Self {
        Self { timeline: stretch.timeline, after: stretch.from, until: stretch.until }
    }
}

fn bounds(statement: &'static str, number: i64, part: Part) -> Result<Bound> {
    // An open end takes in whatever the column can hold.
    let until = part.until.map(at).transpose()?.unwrap_or(i64::MAX);
    Ok(query(statement).bind(number).bind(branch(part.timeline)).bind(at(part.after)?).bind(until))
}

/// The first `limit` commits of a part.
pub(crate) async fn ascending(txn: &mut Txn, number: i64, part: Part, limit: usize) -> Result<Vec<Commit>> {
    let bound = bounds(text::ASCENDING, number, part)?.bind(rows_limit(limit));
    txn.rows("commit_ascending", bound).await?.iter().map(from_row).collect()
}

/// The last `limit` commits of a part, newest first.
pub(crate) async fn descending(txn: &mut Txn, number: i64, part: Part, limit: usize) -> Result<Vec<Commit>> {
    let bound = bounds(text::DESCENDING, number, part)?.bind(rows_limit(limit));
    txn.rows("commit_descending", bound).await?.iter().map(from_row).collect()
}

/// How many commits a part has, counting no further than `limit`.
pub(crate) async fn count(txn: &mut Txn, number: i64, part: Part, limit: u64) -> Result<u64> {
    let bound = bounds(text::COUNT, number, part)?.bind(big("limit", limit)?);
    match txn.row("commit_count", bound).await? {
        Some(row) => row.count("commits"),
        None => Ok(0),
    }
}

/// The first commit of a part, in log order, whose time is later than `time`.
pub(crate) async fn first_later(
    txn: &mut Txn,
    number: i64,
    part: Part,
    time: Time,
) -> Result<Option<Commit>> {
    let bound = query(text::FIRST_LATER).bind(number).bind(branch(part.timeline)).bind(micros(time));
    let Some(row) = txn.row("commit_first_later", bound).await? else { return Ok(None) };
    let mut found = Some(from_row(&row)?);
    // The first row of a risen maximum is the answer when it raised the maximum itself. Otherwise a commit before
    // this part did, or one that has expired: a clock stepped back, and the part is read in log order.
    if found.is_some_and(|commit| commit.end <= part.after || commit.time <= time) {
        let bound = bounds(text::FIRST_LATER_SCANNED, number, part)?.bind(micros(time));
        found = txn.row("commit_first_later", bound).await?.as_ref().map(from_row).transpose()?;
    }
    Ok(found.filter(|commit| part.until.is_none_or(|until| commit.end <= until)))
}

/// The commits of a transaction id; on more than one timeline when it was decided before a fork, or used again.
pub(crate) async fn by_xid(txn: &mut Txn, number: i64, xid: u64) -> Result<Vec<Commit>> {
    let bound = query(text::BY_XID).bind(number).bind(big("transaction id", xid)?);
    txn.rows("commit_by_xid", bound).await?.iter().map(from_row).collect()
}

fn rows_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn from_row(row: &AnyRow) -> Result<Commit> {
    Ok(Commit {
        timeline: row.timeline("timeline")?,
        start: row.offset("start_offset")?,
        end: row.offset("end_offset")?,
        time: row.time("time_us")?,
        xid: row.count("xid")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[tokio::test]
    async fn hot_queries_search_an_index_and_sort_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/plan.db", folder.path().display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        for (statement, index) in [
            (text::BY_XID, "commit_point_by_xid"),
            (text::ASCENDING, "sqlite_autoindex_commit_point_1"),
            (text::DESCENDING, "sqlite_autoindex_commit_point_1"),
            (text::FIRST_LATER, "commit_point_by_latest"),
            (text::FIRST_LATER_SCANNED, "sqlite_autoindex_commit_point_1"),
            (text::COUNT, "sqlite_autoindex_commit_point_1"),
            (text::LATEST_UNTIL, "sqlite_autoindex_commit_point_1"),
            (text::NEXT_AFTER, "sqlite_autoindex_commit_point_1"),
            (text::KNOWN_BETWEEN, "sqlite_autoindex_commit_point_1"),
        ] {
            let mut txn = catalog.begin_snapshot_unbounded().await.unwrap();
            let explain = query(AssertSqlSafe(format!("explain query plan {statement}")));
            let rows = txn.rows("plan", explain).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.text("detail").unwrap()).collect();
            let plan = plan.join("\n");
            assert!(plan.contains(index), "{statement}\n{plan}");
            let sorts = plan.contains("USE TEMP B-TREE");
            let scans = plan.contains("SCAN commit_point");
            assert!(!sorts && !scans, "{statement}\n{plan}");
        }
    }
}
