//! Recovery points: commits and marks around a time or position, and what a time or transaction resolves to.
//!
//! Everything here follows log order along one line of descent; a commit's time only chooses where to look.
//! Finding a point here does not say that it can be restored: [`crate::window`] does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use farshore_journal::{IncarnationId, Offset, ParseError, Position, Timeline};

use crate::branch::{Line, branch_list_in_txn};
use crate::commit::{self, Commit, Part};
use crate::connection::in_snapshot;
use crate::incarnation::incarnation_number_in_txn;
use crate::mark::{Mark, mark_between_in_txn};
use crate::{Catalog, Error, Result, Time, Txn};

/// The most commits one page gives.
pub const PAGE: usize = 10_000;

/// Beyond this many, the commits of a span are not counted.
const COUNTED: u64 = 100_000;

/// How many commits after a resolved time are looked at for times out of order, and how many are named.
const OUT_OF_ORDER_READ: usize = 10_000;
const OUT_OF_ORDER_NAMED: usize = 20;

/// The middle of what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// A commit time.
    Time(Time),
    /// A position on the line.
    Position(Position),
}

/// Where the next page goes on. Written `before=1:0/30` or `after=1:0/30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Towards older commits.
    Before(Position),
    /// Towards newer commits.
    After(Position),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(position) => write!(f, "before={position}"),
            Self::After(position) => write!(f, "after={position}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = ParseError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseError> {
        match text.split_once('=') {
            Some(("before", position)) => position.parse().map(Self::Before),
            Some(("after", position)) => position.parse().map(Self::After),
            _ => Err(ParseError {
                text: text.chars().take(80).collect(),
                what: "page cursor (before=timeline:offset or after=timeline:offset)",
            }),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PointsQuery {
    /// In which history.
    pub incarnation: IncarnationId,
    /// The line that leads to this timeline.
    pub timeline: Timeline,
    /// The middle.
    pub around: Around,
    /// How far from the middle, by commit time, to either side; `None`: as far as the limit allows. The stretch of log that it
    /// bounds always holds the middle, also where a commit's clock was far ahead.
    pub span: Option<Duration>,
    /// The most commits wanted, up to [`PAGE`]; those nearest the middle are given first.
    pub limit: usize,
    /// Where to go on; the middle when `None`.
    pub cursor: Option<Cursor>,
}

/// A page of points, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointsPage {
    /// Commits in log order.
    pub commits: Vec<Commit>,
    /// The marks in the same stretch of log: behind the commit before the page's first, up to the page's last commit. Where
    /// no commit is left on a side, up to the end of what was asked for.
    pub marks: Vec<Mark>,
    /// How to get older ones of the span; `None` when there are none.
    pub earlier: Option<Cursor>,
    /// How to get newer ones of the span; `None` when there are none.
    pub later: Option<Cursor>,
    /// Commits in the whole span; `None` when there are more than a hundred thousand.
    pub commits_in_span: Option<u64>,
}

/// What a time resolves to: just before the first commit, in log order, whose time is later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BeforeTime {
    /// The last commit that is held; `None` when every commit looked at is later.
    pub commit: Option<Commit>,
    /// The first commit that is left out; `None` when none is later.
    pub next: Option<Commit>,
    /// Commits left out although their time is not later: the clock stepped back there. The first 20.
    pub out_of_order: Vec<Commit>,
}

impl Catalog {
    /// A page of points.
    ///
    /// # Errors
    /// [`Error::NotInHistory`] when the middle or the cursor is not on the line.
    pub async fn points_around(&self, asked: &PointsQuery) -> Result<PointsPage> {
        in_snapshot!(self, points_around_in_txn(asked))
    }

    /// What `time` resolves to on the line to `timeline`, looking at commits that end after `from` only (the end
    /// of the base backup, or the window's start).
    ///
    /// # Errors
    /// [`Error::NotInHistory`] when `from` is not on the line.
    pub async fn commit_before_time(
        &self,
        incarnation: IncarnationId,
        timeline: Timeline,
        from: Option<Position>,
        time: Time,
    ) -> Result<BeforeTime> {
        in_snapshot!(self, commit_before_time_in_txn(incarnation, timeline, from, time))
    }

    /// The commits of a transaction id: more than one when it was used on several timelines.
    ///
    /// # Errors
    /// [`Error::NoIncarnation`] when it is not known.
    pub async fn commit_by_xid(&self, incarnation: IncarnationId, xid: u64) -> Result<Vec<Commit>> {
        in_snapshot!(self, commit_by_xid_in_txn(incarnation, xid))
    }

    /// The last commit on the line to `timeline` that ends at or before `position`.
    ///
    /// # Errors
    /// [`Error::NotInHistory`] when the position is not on the line.
    pub async fn commit_at(
        &self,
        incarnation: IncarnationId,
        timeline: Timeline,
        position: Position,
    ) -> Result<Option<Commit>> {
        in_snapshot!(self, commit_at_in_txn(incarnation, timeline, position))
    }
}

/// The commits of one incarnation along one line.
struct Commits {
    number: i64,
    line: Line,
}

impl Commits {
    async fn of(txn: &mut Txn, incarnation: IncarnationId, timeline: Timeline) -> Result<Self> {
        let number = incarnation_number_in_txn(txn, incarnation).await?;
        let branches = branch_list_in_txn(txn, incarnation).await?;
        Ok(Self { number, line: Line::to(timeline, &branches) })
    }

    /// The parts of the line with `after < end <= until`, oldest first.
    fn parts(&self, after: Option<Position>, until: Option<Position>) -> Result<Vec<Part>> {
        let stretches = self.line.stretches();
        let first = after.map_or(Ok(0), |after| self.line.index_of(after.timeline))?;
        let last = until
            .map_or(Ok(stretches.len().saturating_sub(1)), |until| self.line.index_of(until.timeline))?;
        let mut parts = Vec::new();
        for (index, stretch) in stretches.iter().enumerate().take(last + 1).skip(first) {
            let mut part = Part::from(*stretch);
            if let Some(after) = after.filter(|_| index == first) {
                part.after = part.after.max(after.offset);
            }
            if let Some(until) = until.filter(|_| index == last) {
                part.until = Some(part.until.map_or(until.offset, |end| end.min(until.offset)));
            }
            if part.until.is_none_or(|until| part.after < until) {
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// The first commits in `parts`, in log order.
    async fn first(&self, txn: &mut Txn, parts: &[Part], limit: usize) -> Result<Vec<Commit>> {
        let mut found = Vec::new();
        for part in parts {
            if found.len() < limit {
                found.extend(commit::ascending(txn, self.number, *part, limit - found.len()).await?);
            }
        }
        Ok(found)
    }

    /// The last commits in `parts`, in log order.
    async fn last(&self, txn: &mut Txn, parts: &[Part], limit: usize) -> Result<Vec<Commit>> {
        let mut found = Vec::new();
        for part in parts.iter().rev() {
            if found.len() < limit {
                found.extend(commit::descending(txn, self.number, *part, limit - found.len()).await?);
            }
        }
        found.reverse();
        Ok(found)
    }

    async fn first_later(&self, txn: &mut Txn, parts: &[Part], time: Time) -> Result<Option<Commit>> {
        for part in parts {
            if let Some(found) = commit::first_later(txn, self.number, *part, time).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// How far log order is asked for: from the first commit later than `from`, to the last before the first behind `middle` that
    /// is later than `to`. No commit at all is `None`.
    async fn between_times(
        &self,
        txn: &mut Txn,
        middle: Position,
        from: Time,
        to: Time,
    ) -> Result<Option<Bounds>> {
        let all = self.parts(None, None)?;
        let just_before = from - chrono::TimeDelta::microseconds(1);
        let Some(first) = self.first_later(txn, &all, just_before).await? else { return Ok(None) };
        // Only behind the middle: a clock that was ahead for one commit before it must not end the span there.
        let beyond = self.first_later(txn, &self.parts(Some(middle), None)?, to).await?;
        let until = beyond.as_ref().map(just_before_commit);
        Ok(Some(Bounds { after: Some(just_before_commit(&first)), until }))
    }
}

/// `after < end <= until`; `None` is the line's end.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    after: Option<Position>,
    until: Option<Position>,
}

/// The highest end that excludes a commit. Its record has bytes, so that its end is not zero.
fn just_before_commit(commit: &Commit) -> Position {
    Position::new(commit.timeline, Offset::new(commit.end.get().saturating_sub(1)))
}

/// The earlier of two positions on a line.
fn cut(line: &Line, a: Position, b: Position, later: bool) -> Result<Position> {
    let rank = |position: Position| Ok::<_, Error>((line.index_of(position.timeline)?, position.offset));
    Ok(if (rank(a)? < rank(b)?) == later { b } else { a })
}

/// As [`Catalog::points_around`].
///
/// # Errors
/// [`Error::NotInHistory`] when the middle or the cursor is not on the line.
pub async fn points_around_in_txn(txn: &mut Txn, asked: &PointsQuery) -> Result<PointsPage> {
    let commits = Commits::of(txn, asked.incarnation, asked.timeline).await?;
    let limit = asked.limit.clamp(1, PAGE);
    let mut empty = PointsPage {
        commits: Vec::new(),
        marks: Vec::new(),
        earlier: None,
        later: None,
        commits_in_span: Some(0),
    };
    let Some((time, middle)) = middle(txn, &commits, asked.around).await? else {
        // Where nothing was committed, no time bounds the marks.
        empty.marks = marks_in(txn, asked.incarnation, &commits.parts(None, None)?).await?;
        return Ok(empty);
    };
    let bounds = match asked.span {
        None => Bounds::default(),
        Some(span) => {
            let span = chrono::TimeDelta::from_std(span)
                .map_err(|_| Error::Invalid { what: "span", reason: "it is longer than any calendar" })?;
            let from = time.checked_sub_signed(span).unwrap_or(Time::MIN_UTC + chrono::TimeDelta::days(1));
            let to = time.checked_add_signed(span).unwrap_or(Time::MAX_UTC);
            match commits.between_times(txn, middle, from, to).await? {
                Some(bounds) => bounds,
                None => return Ok(empty),
            }
        }
    };

    // Older commits end at or before the split, newer ones after it.
    let split = match asked.cursor {
        Some(Cursor::Before(position)) => {
            Position::new(position.timeline, Offset::new(position.offset.get().saturating_sub(1)))
        }
        Some(Cursor::After(position)) => position,
        None => middle,
    };
    let split = match bounds.after {
        Some(after) => cut(&commits.line, split, after, true)?,
        None => split,
    };
    let split = match bounds.until {
        Some(until) => cut(&commits.line, split, until, false)?,
        None => split,
    };
    let older = commits.parts(bounds.after, Some(split))?;
    let newer = commits.parts(Some(split), bounds.until)?;

    // One more than wanted tells whether there is another page on that side.
    let mut before = match asked.cursor {
        Some(Cursor::After(_)) => Vec::new(),
        _ => commits.last(txn, &older, limit + 1).await?,
    };
    let mut after = match asked.cursor {
        Some(Cursor::Before(_)) => Vec::new(),
        _ => commits.first(txn, &newer, limit + 1).await?,
    };
    let (keep_before, keep_after) = shares(limit, before.len(), after.len());
    let more_before = before.len() > keep_before || matches!(asked.cursor, Some(Cursor::After(_)));
    let more_after = after.len() > keep_after || matches!(asked.cursor, Some(Cursor::Before(_)));
    // Pages meet at commits' ends, so that a mark between two pages is in the later one.
    let former = match asked.cursor {
        Some(Cursor::After(_)) => Some(split),
        _ => before.drain(..before.len() - keep_before).next_back().map(|commit| commit.position()),
    };
    after.truncate(keep_after);
    before.append(&mut after);

    let earlier = before.first().filter(|_| more_before).map(|commit| Cursor::Before(commit.position()));
    let later = before.last().filter(|_| more_after).map(|commit| Cursor::After(commit.position()));
    let last = before.last().map(Commit::position);
    let marked = match asked.cursor {
        // Behind the page's last commit the next page begins.
        Some(Cursor::Before(_)) => commits.parts(former.or(bounds.after), last.or(Some(split)))?,
        _ => commits.parts(former.or(bounds.after), last.filter(|_| more_after).or(bounds.until))?,
    };
    let marks = marks_in(txn, asked.incarnation, &marked).await?;
    let commits_in_span = count(txn, &commits, &commits.parts(bounds.after, bounds.until)?).await?;
    Ok(PointsPage { commits: before, marks, earlier, later, commits_in_span })
}

/// How many to keep of what was found on either side, nearest the middle, `limit` in all.
fn shares(limit: usize, before: usize, after: usize) -> (usize, usize) {
    let half = limit / 2;
    let keep_before = before.min(limit.saturating_sub(after).max(half));
    let keep_after = after.min(limit - keep_before);
    (keep_before, keep_after)
}

/// The middle as a time and as a split of the log: what ends at or before the split is older.
async fn middle(txn: &mut Txn, commits: &Commits, around: Around) -> Result<Option<(Time, Position)>> {
    match around {
        Around::Position(position) => {
            let until = commits.parts(None, Some(position))?;
            let nearest = match commits.last(txn, &until, 1).await?.first() {
                Some(commit) => Some(*commit),
                None => commits.first(txn, &commits.parts(None, None)?, 1).await?.first().copied(),
            };
            Ok(nearest.map(|commit| (commit.time, position)))
        }
        Around::Time(time) => {
            let all = commits.parts(None, None)?;
            let split = match commits.first_later(txn, &all, time).await? {
                Some(commit) => Some(just_before_commit(&commit)),
                None => commits.last(txn, &all, 1).await?.first().map(Commit::position),
            };
            Ok(split.map(|split| (time, split)))
        }
    }
}

/// The marks in some parts of the log, as many of each part as one look-up gives.
async fn marks_in(txn: &mut Txn, incarnation: IncarnationId, parts: &[Part]) -> Result<Vec<Mark>> {
    let mut marks = Vec::new();
    for part in parts {
        marks.extend(mark_between_in_txn(txn, incarnation, *part).await?);
    }
    Ok(marks)
}

async fn count(txn: &mut Txn, commits: &Commits, parts: &[Part]) -> Result<Option<u64>> {
    let mut all = 0;
    for part in parts {
        all += commit::count(txn, commits.number, *part, COUNTED + 1 - all).await?;
        if all > COUNTED {
            return Ok(None);
        }
    }
    Ok(Some(all))
}

/// As [`Catalog::commit_before_time`].
///
/// # Errors
/// [`Error::NotInHistory`] when `from` is not on the line.
pub async fn commit_before_time_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    timeline: Timeline,
    from: Option<Position>,
    time: Time,
) -> Result<BeforeTime> {
    let commits = Commits::of(txn, incarnation, timeline).await?;
    let all = commits.parts(from, None)?;
    let Some(next) = commits.first_later(txn, &all, time).await? else {
        let commit = commits.last(txn, &all, 1).await?.first().copied();
        return Ok(BeforeTime { commit, next: None, out_of_order: Vec::new() });
    };
    let held = commits.parts(from, Some(just_before_commit(&next)))?;
    let commit = commits.last(txn, &held, 1).await?.first().copied();
    let left_out = commits.parts(Some(next.position()), None)?;
    let mut out_of_order = commits.first(txn, &left_out, OUT_OF_ORDER_READ).await?;
    out_of_order.retain(|commit| commit.time <= time);
    out_of_order.truncate(OUT_OF_ORDER_NAMED);
    Ok(BeforeTime { commit, next: Some(next), out_of_order })
}

/// As [`Catalog::commit_by_xid`].
///
/// # Errors
/// [`Error::NoIncarnation`] when it is not known.
pub async fn commit_by_xid_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    xid: u64,
) -> Result<Vec<Commit>> {
    let number = incarnation_number_in_txn(txn, incarnation).await?;
    commit::by_xid(txn, number, xid).await
}

/// As [`Catalog::commit_at`].
///
/// # Errors
/// [`Error::NotInHistory`] when the position is not on the line.
pub async fn commit_at_in_txn(
    txn: &mut Txn,
    incarnation: IncarnationId,
    timeline: Timeline,
    position: Position,
) -> Result<Option<Commit>> {
    let commits = Commits::of(txn, incarnation, timeline).await?;
    let until = commits.parts(None, Some(position))?;
    Ok(commits.last(txn, &until, 1).await?.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_what_is_nearest_the_middle_and_wastes_no_place() {
        for (limit, before, after, kept) in [
            (10, 11, 11, (5, 5)),
            (10, 2, 11, (2, 8)),
            (10, 11, 3, (7, 3)),
            (1, 2, 2, (0, 1)),
            (4, 0, 0, (0, 0)),
        ] {
            assert_eq!(shares(limit, before, after), kept, "{limit} {before} {after}");
        }
    }

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        for text in ["before=1:0/30", "after=2:5F/3AA7B9A0"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        assert!("1:0/30".parse::<Cursor>().is_err());
    }
}
