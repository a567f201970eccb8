//! Every commit of a journal: where it ends, when it was made, and its transaction id. They are kept in blocks (`block.rs`).
//!
//! Commit times step back now and then, so order comes from offsets. `latest_us` of a block is the latest time of all commits up
//! to its end on its timeline: it only rises, and finds "the first commit in log order whose time is later than T" with one index
//! look-up.
//!
//! What always holds: blocks of one timeline do not overlap; along it `latest_us` never falls, and is at least the latest time up to
//! each block's end. It may be higher where the commits that raised it have expired; a look-up that meets such a block reads in log
//! order.

mod block;

use std::collections::BTreeSet;

use farshore_journal::{IncarnationId, Offset, Position, Timeline};
use sqlx::any::AnyRow;
use sqlx::query;

use block::{Block, MOST, blocks, group, union, unpack};

use crate::branch::Stretch;
use crate::connection::{Bound, in_own_txn};
use crate::incarnation::incarnation_number_in_txn;
use crate::row::{self, Read as _, at, big, branch, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The most commits already there that one insert is merged with in memory.
const OVERLAP: u64 = 20_000;

/// The most blocks read at once: a third of a megabyte.
const BLOCKS_AT_ONCE: usize = 64;

/// The most rows forgotten in one transaction.
const FORGOTTEN_AT_ONCE: i64 = 2_000;

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
    for commit in commits {
        at(commit.end)?;
        big("transaction id", commit.xid)?;
    }
    let number = own(txn, incarnation).await?;
    let mut ordered = commits.to_vec();
    ordered.sort_by_key(|commit| (commit.timeline, commit.end));
    let mut added = 0;
    for of_timeline in ordered.chunk_by(|a, b| a.timeline == b.timeline) {
        added += insert_on_timeline(txn, number, of_timeline).await?;
    }
    Ok(added)
}

/// Makes the incarnation's commits this transaction's to change: two targets bring the same ones, and a block is read before it is
/// written. A change of nothing is a lock that both kinds of catalog have.
/// Its number on `Ok`; an incarnation that was forgotten meanwhile cannot be had.
async fn own(txn: &mut Txn, incarnation: IncarnationId) -> Result<i64> {
    let number = incarnation_number_in_txn(txn, incarnation).await?;
    let bound = query("update incarnation set reason = reason where number = $1").bind(number);
    match txn.execute("commit_insert", bound).await? {
        1 => Ok(number),
        _ => Err(Error::NoIncarnation { id: incarnation }),
    }
}

/// Inserts commits of one timeline, sorted by offset.
async fn insert_on_timeline(txn: &mut Txn, number: i64, commits: &[Commit]) -> Result<u64> {
    let mut added = 0;
    // A stack, because what overlaps too much of what is there is cut in two, down to single commits.
    let mut work = vec![commits];
    while let Some(commits) = work.pop() {
        let (Some(first), Some(last)) = (commits.first(), commits.last()) else { continue };
        let span = Span { number, timeline: first.timeline, first: first.end, last: last.end };
        if commits.len() > 1 && span.commits(txn).await? > OVERLAP {
            let (earlier, later) = commits.split_at(commits.len() / 2);
            work.extend([later, earlier]);
        } else {
            added += span.insert(txn, commits).await?;
        }
    }
    Ok(added)
}

/// A block as it is stored.
struct Stored {
    first: Offset,
    last: Offset,
    latest: i64,
    commits: Vec<Commit>,
}

impl Stored {
    fn of(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            first: row.offset("first_end")?,
            last: row.offset("last_end")?,
            latest: row.integer("latest_us")?,
            commits: unpack(row.timeline("timeline")?, &row::bytes(row, "body")?)?,
        })
    }
}

/// From the first to the last end of some commits of one timeline.
#[derive(Clone, Copy)]
struct Span {
    number: i64,
    timeline: Timeline,
    first: Offset,
    last: Offset,
}

impl Span {
    fn bound(&self, statement: &'static str) -> Result<Bound> {
        Ok(query(statement)
            .bind(self.number)
            .bind(branch(self.timeline))
            .bind(at(self.first)?)
            .bind(at(self.last)?))
    }

    /// How many commits the blocks have that it touches.
    async fn commits(&self, txn: &mut Txn) -> Result<u64> {
        let row = txn.row("commit_insert", self.bound(text::COMMITS_TOUCHED)?).await?;
        row.map_or(Ok(0), |row| row.count("commits"))
    }

    /// Inserts commits: the blocks that they touch are made anew.
    async fn insert(&self, txn: &mut Txn, commits: &[Commit]) -> Result<u64> {
        let rows = txn.rows("commit_insert", self.bound(text::TOUCHED)?).await?;
        let mut touched = rows.iter().map(Stored::of).collect::<Result<Vec<_>>>()?;
        let begin = touched.first().map_or(self.first, |block| block.first.min(self.first));
        let mut former = self.block_before(txn, begin).await?;
        // A block that is not full takes in what follows it.
        if let Some(filling) = former.take_if(|block| block.commits.len() < MOST) {
            former = self.block_before(txn, filling.first).await?;
            touched.insert(0, filling);
        }
        let mut known = Vec::new();
        for block in touched {
            self.delete(txn, &block).await?;
            known.extend(block.commits);
        }
        let (all, new) = union(known, commits);
        let made = blocks(&all, former.map_or(i64::MIN, |block| block.latest));
        for block in &made {
            self.put(txn, block).await?;
        }
        if let Some(last) = made.last() {
            self.raise_behind(txn, last).await?;
        }
        Ok(new as u64)
    }

    async fn block_before(&self, txn: &mut Txn, offset: Offset) -> Result<Option<Stored>> {
        let bound = query(text::BEFORE).bind(self.number).bind(branch(self.timeline)).bind(at(offset)?);
        txn.row("commit_insert", bound).await?.as_ref().map(Stored::of).transpose()
    }

    async fn delete(&self, txn: &mut Txn, block: &Stored) -> Result<()> {
        let groups: BTreeSet<u64> = block.commits.iter().map(|commit| group(commit.xid)).collect();
        for group in groups {
            let statement = "delete from commit_block_group where incarnation_number = $1 and xid_group = $2 \
                             and timeline = $3 and last_end = $4";
            let bound = query(statement).bind(self.number).bind(big("transaction id", group)?);
            let bound = bound.bind(branch(self.timeline)).bind(at(block.last)?);
            txn.execute("commit_insert", bound).await?;
        }
        let statement =
            "delete from commit_block where incarnation_number = $1 and timeline = $2 and last_end = $3";
        let bound = query(statement).bind(self.number).bind(branch(self.timeline)).bind(at(block.last)?);
        txn.execute("commit_insert", bound).await.map(|_| ())
    }

    async fn put(&self, txn: &mut Txn, block: &Block) -> Result<()> {
        let statement = "insert into commit_block (incarnation_number, timeline, last_end, first_end, commits, \
                         newest_us, latest_us, body) values ($1, $2, $3, $4, $5, $6, $7, $8)";
        let bound = query(statement)
            .bind(self.number)
            .bind(branch(self.timeline))
            .bind(at(block.last)?)
            .bind(at(block.first)?)
            .bind(rows_limit(block.commits))
            .bind(block.newest)
            .bind(block.latest)
            .bind(block.body.clone());
        txn.execute("commit_insert", bound).await?;
        for group in &block.groups {
            let statement = "insert into commit_block_group (incarnation_number, xid_group, timeline, last_end) \
                             values ($1, $2, $3, $4)";
            let bound = query(statement).bind(self.number).bind(big("transaction id", *group)?);
            let bound = bound.bind(branch(self.timeline)).bind(at(block.last)?);
            txn.execute("commit_insert", bound).await?;
        }
        Ok(())
    }

    /// Raises the running maximum of the blocks behind `last`; usually there are none.
    async fn raise_behind(&self, txn: &mut Txn, last: &Block) -> Result<()> {
        let bound = query(text::NEXT).bind(self.number).bind(branch(self.timeline)).bind(at(last.last)?);
        // Asked first, because a planner may take the other index for the update and walk all earlier rows.
        match txn.row("commit_insert", bound).await?.map(|row| row.integer("latest_us")).transpose()? {
            Some(next) if next < last.latest => {}
            _ => return Ok(()),
        }
        let statement = "update commit_block set latest_us = $1 where incarnation_number = $2 and timeline = $3 \
                         and last_end > $4 and latest_us < $1";
        let bound = query(statement).bind(last.latest).bind(self.number);
        let bound = bound.bind(branch(self.timeline)).bind(at(last.last)?);
        txn.execute("commit_insert", bound).await.map(|_| ())
    }
}

/// Forgets some of an incarnation's commits; the count of rows that are gone.
///
/// # Errors
/// When the catalog is away.
async fn commit_forget_some_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<u64> {
    let mut gone = 0;
    for statement in [text::FORGET_GROUPS, text::FORGET_BLOCKS] {
        let bound = query(statement).bind(incarnation.to_string()).bind(FORGOTTEN_AT_ONCE);
        gone += txn.execute("commit_forget", bound).await?;
    }
    Ok(gone)
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
    let number = own(txn, incarnation).await?;
    let part = Part { timeline, after: Offset::new(0), until: Some(offset) };
    let mut expired = 0;
    loop {
        let found = blocks_of(txn, number, part, text::ASCENDING, BLOCKS_AT_ONCE).await?;
        if found.is_empty() {
            return Ok(expired);
        }
        for block in found {
            let span = Span { number, timeline, first: block.first, last: block.last };
            span.delete(txn, &block).await?;
            let gone = block.commits.partition_point(|commit| commit.end <= offset);
            expired += gone as u64;
            for kept in blocks(&block.commits[gone..], block.latest) {
                span.put(txn, &kept).await?;
            }
        }
    }
}

/// The queries, so that the plan test sees the very texts that run.
pub(crate) mod text {
    pub(crate) const TOUCHED: &str = "select timeline, first_end, last_end, latest_us, body from commit_block \
        where incarnation_number = $1 and timeline = $2 and last_end >= $3 and first_end <= $4 order by last_end";
    pub(crate) const COMMITS_TOUCHED: &str = "select cast(coalesce(sum(commits), 0) as bigint) as commits \
        from commit_block where incarnation_number = $1 and timeline = $2 and last_end >= $3 and first_end <= $4";
    pub(crate) const BEFORE: &str = "select timeline, first_end, last_end, latest_us, body from commit_block \
        where incarnation_number = $1 and timeline = $2 and last_end < $3 order by last_end desc limit 1";
    pub(crate) const NEXT: &str = "select latest_us from commit_block \
        where incarnation_number = $1 and timeline = $2 and last_end > $3 order by last_end limit 1";
    pub(crate) const BY_XID: &str = "select b.timeline, b.body from commit_block_group g join commit_block b \
        on b.incarnation_number = g.incarnation_number and b.timeline = g.timeline and b.last_end = g.last_end \
        where g.incarnation_number = $1 and g.xid_group = $2 order by g.timeline, g.last_end";
    pub(crate) const ASCENDING: &str = "select timeline, first_end, last_end, latest_us, body from commit_block \
        where incarnation_number = $1 and timeline = $2 and last_end > $3 and first_end <= $4 \
        order by last_end limit $5";
    pub(crate) const DESCENDING: &str = "select timeline, first_end, last_end, latest_us, body from commit_block \
        where incarnation_number = $1 and timeline = $2 and last_end > $3 and first_end <= $4 \
        order by last_end desc limit $5";
    pub(crate) const FIRST_LATER: &str = "select timeline, first_end, last_end, latest_us, body from commit_block \
        where incarnation_number = $1 and timeline = $2 and latest_us > $3 order by latest_us, last_end limit 1";
    pub(crate) const FIRST_LATER_SCANNED: &str = "select timeline, first_end, last_end, latest_us, body \
        from commit_block where incarnation_number = $1 and timeline = $2 and last_end > $3 and first_end <= $4 \
        and newest_us > $5 order by last_end limit 1";
    pub(crate) const SIZES: &str = "select first_end, last_end, commits from commit_block \
        where incarnation_number = $1 and timeline = $2 and last_end > $3 and first_end <= $4 \
        order by last_end limit $5";
    pub(crate) const FORGET_GROUPS: &str = "delete from commit_block_group \
        where incarnation_number = (select number from incarnation where id = $1) \
        and xid_group <= (select max(xid_group) from (select xid_group from commit_block_group \
        where incarnation_number = (select number from incarnation where id = $1) \
        order by xid_group limit $2) as first_ones)";
    pub(crate) const FORGET_BLOCKS: &str = "delete from commit_block \
        where incarnation_number = (select number from incarnation where id = $1) \
        and timeline = (select min(timeline) from commit_block \
        where incarnation_number = (select number from incarnation where id = $1)) \
        and last_end <= (select max(last_end) from (select last_end from commit_block \
        where incarnation_number = (select number from incarnation where id = $1) \
        order by timeline, last_end limit $2) as first_ones)";
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

impl Part {
    fn holds(&self, commit: &Commit) -> bool {
        commit.end > self.after && self.until.is_none_or(|until| commit.end <= until)
    }
}

fn bounds(statement: &'static str, number: i64, part: Part) -> Result<Bound> {
    // An open end takes in whatever the column can hold.
    let until = part.until.map(at).transpose()?.unwrap_or(i64::MAX);
    Ok(query(statement).bind(number).bind(branch(part.timeline)).bind(at(part.after)?).bind(until))
}

/// Blocks that have, or may have, commits of a part, in the order of the statement.
async fn blocks_of(
    txn: &mut Txn,
    number: i64,
    part: Part,
    statement: &'static str,
    limit: usize,
) -> Result<Vec<Stored>> {
    let bound = bounds(statement, number, part)?.bind(rows_limit(limit));
    txn.rows("commit_blocks", bound).await?.iter().map(Stored::of).collect()
}

/// Blocks to read for this many commits more.
fn blocks_for(commits: usize) -> usize {
    (commits / MOST + 2).min(BLOCKS_AT_ONCE)
}

/// The first `limit` commits of a part.
pub(crate) async fn ascending(txn: &mut Txn, number: i64, part: Part, limit: usize) -> Result<Vec<Commit>> {
    let (mut found, mut rest) = (Vec::new(), part);
    while found.len() < limit {
        let blocks = blocks_of(txn, number, rest, text::ASCENDING, blocks_for(limit - found.len())).await?;
        let Some(last) = blocks.last() else { break };
        rest.after = last.last;
        found.extend(blocks.into_iter().flat_map(|block| block.commits).filter(|commit| part.holds(commit)));
    }
    found.truncate(limit);
    Ok(found)
}

/// The last `limit` commits of a part, newest first.
pub(crate) async fn descending(txn: &mut Txn, number: i64, part: Part, limit: usize) -> Result<Vec<Commit>> {
    let (mut found, mut rest) = (Vec::new(), part);
    while found.len() < limit {
        let blocks = blocks_of(txn, number, rest, text::DESCENDING, blocks_for(limit - found.len())).await?;
        let Some(first) = blocks.last().map(|block| block.first) else { break };
        let newest_first = blocks.into_iter().flat_map(|block| block.commits.into_iter().rev());
        found.extend(newest_first.filter(|commit| part.holds(commit)));
        // Blocks do not overlap: what is left ends before this one begins.
        match first.get().checked_sub(1).map(Offset::new) {
            Some(before) if before > part.after => rest.until = Some(before),
            _ => break,
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// How many commits a part has, counting no further than `limit`.
pub(crate) async fn count(txn: &mut Txn, number: i64, part: Part, limit: u64) -> Result<u64> {
    let (mut counted, mut rest) = (0, part);
    while counted < limit {
        let bound = bounds(text::SIZES, number, rest)?.bind(rows_limit(BLOCKS_AT_ONCE));
        let rows = txn.rows("commit_count", bound).await?;
        let Some(last) = rows.last() else { break };
        let last = last.offset("last_end")?;
        for row in &rows {
            let (first, last) = (row.offset("first_end")?, row.offset("last_end")?);
            let inside = first > part.after && part.until.is_none_or(|until| last <= until);
            counted += match inside {
                true => row.count("commits")?,
                false => {
                    let edge = Part { after: rest.after.max(before(first)), until: Some(last), ..part };
                    let commits = ascending(txn, number, edge, MOST).await?;
                    commits.iter().filter(|commit| part.holds(commit)).count() as u64
                }
            };
        }
        rest.after = last;
    }
    Ok(counted.min(limit))
}

/// The last offset before `offset`.
fn before(offset: Offset) -> Offset {
    Offset::new(offset.get().saturating_sub(1))
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
    // The first block of a risen maximum has the answer when a commit of its own raised it. Otherwise a commit before this part
    // did, or one that has expired: a clock stepped back, and the part is read in log order.
    let raised = Stored::of(&row)?.commits.into_iter().find(|commit| commit.time > time);
    if let Some(commit) = raised.filter(|commit| commit.end > part.after) {
        return Ok(Some(commit).filter(|commit| part.holds(commit)));
    }
    let mut rest = part;
    loop {
        let bound = bounds(text::FIRST_LATER_SCANNED, number, rest)?.bind(micros(time));
        let Some(row) = txn.row("commit_first_later", bound).await? else { return Ok(None) };
        let block = Stored::of(&row)?;
        rest.after = block.last;
        let mut commits = block.commits.into_iter();
        if let Some(found) = commits.find(|commit| commit.time > time && part.holds(commit)) {
            return Ok(Some(found));
        }
    }
}

/// The commits of a transaction id; on more than one timeline when it was decided before a fork, or used again.
pub(crate) async fn by_xid(txn: &mut Txn, number: i64, xid: u64) -> Result<Vec<Commit>> {
    let bound = query(text::BY_XID).bind(number).bind(big("transaction id", group(xid))?);
    let mut found = Vec::new();
    for row in txn.rows("commit_by_xid", bound).await? {
        let commits = unpack(row.timeline("timeline")?, &row::bytes(&row, "body")?)?;
        found.extend(commits.into_iter().filter(|commit| commit.xid == xid));
    }
    Ok(found)
}

fn rows_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[tokio::test]
    async fn queries_search_an_index_and_sort_nothing() {
        const KEY: &str = "sqlite_autoindex_commit_block_1";
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/plan.db", folder.path().display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        for (statement, index) in [
            (text::BY_XID, "sqlite_autoindex_commit_block_group_1"),
            (text::ASCENDING, KEY),
            (text::DESCENDING, KEY),
            (text::FIRST_LATER, "commit_block_by_latest"),
            (text::FIRST_LATER_SCANNED, KEY),
            (text::SIZES, KEY),
            (text::TOUCHED, KEY),
            (text::COMMITS_TOUCHED, KEY),
            (text::BEFORE, KEY),
            (text::NEXT, KEY),
        ] {
            let plan = catalog.plan_of(statement).await;
            assert!(plan.contains(index), "{statement}\n{plan}");
            let sorts = plan.contains("USE TEMP B-TREE");
            let scans = plan.contains("SCAN");
            assert!(!sorts && !scans, "{statement}\n{plan}");
        }
    }
}
