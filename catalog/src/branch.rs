//! The timelines of an incarnation as branches, and the line of descent of one of them.
//!
//! Along one line offsets only rise, although it crosses timelines: each stretch begins where its parent's ends.

use farshore_journal::{IncarnationId, Offset, Position, Timeline};
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::packed::{Packed, packed};
use crate::row::{self, Read, at_known, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// Where a timeline left its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The timeline it left.
    pub parent: Timeline,
    /// The first offset that is its own.
    pub at: Offset,
}

/// One timeline of an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Whose it is.
    pub incarnation: IncarnationId,
    /// Its number.
    pub timeline: Timeline,
    /// Where it began; `None` when its history begins with it, or is not known yet.
    pub fork: Option<Fork>,
    /// When this catalog first heard of it.
    pub first_seen_at: Time,
}

/// The part of a timeline that a line of descent runs through: `from <= offset < until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The timeline.
    pub timeline: Timeline,
    /// Where the line enters it.
    pub from: Offset,
    /// Where the line leaves it for the next; `None` on the last.
    pub until: Option<Offset>,
}

/// The ancestors of a timeline and itself, oldest first. Stretches do not overlap and their offsets rise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(Vec<Stretch>);

impl Line {
    /// The line that leads to `timeline`. It begins where the branches say nothing more of a parent.
    pub fn to(timeline: Timeline, branches: &[Branch]) -> Self {
        let mut stretches = Vec::new();
        let mut current = timeline;
        let mut until: Option<Offset> = None;
        loop {
            // PostgreSQL gives a child a higher number than its parent; anything else would be a circle.
            let fork = branches
                .iter()
                .find(|branch| branch.timeline == current)
                .and_then(|branch| branch.fork)
                .filter(|fork| fork.parent < current);
            let from = fork.map_or(Offset::new(0), |fork| fork.at);
            if until.is_none_or(|until| from < until) {
                stretches.push(Stretch { timeline: current, from, until });
            }
            let Some(fork) = fork else { break };
            until = Some(until.map_or(fork.at, |until| until.min(fork.at)));
            current = fork.parent;
        }
        stretches.reverse();
        Self(stretches)
    }

    /// The stretches, oldest first.
    pub fn stretches(&self) -> &[Stretch] {
        &self.0
    }

    /// The timeline the line leads to.
    pub fn timeline(&self) -> Option<Timeline> {
        self.0.last().map(|stretch| stretch.timeline)
    }

    /// The place of a timeline in the line.
    ///
    /// # Errors
    /// [`Error::NotInHistory`] when the line does not run through it.
    pub fn index_of(&self, asked: Timeline) -> Result<usize> {
        self.0
            .iter()
            .position(|stretch| stretch.timeline == asked)
            .ok_or_else(|| Error::NotInHistory { asked, of: self.timeline().unwrap_or(asked) })
    }

    /// The position of an end offset on this line: a range that ends at a fork belongs to the older timeline.
    pub fn position_of_end(&self, offset: Offset) -> Option<Position> {
        self.0
            .iter()
            .find(|stretch| stretch.until.is_none_or(|until| offset <= until))
            .map(|stretch| Position::new(stretch.timeline, offset))
    }
}

impl Catalog {
    /// Records a timeline. What an earlier call did not know (where it forked) is filled in.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another fork is recorded.
    pub async fn branch_put(&self, branch: &Branch) -> Result<()> {
        in_own_txn!(self, branch_put_in_txn(branch))
    }

    /// All timelines of an incarnation, by number.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn branch_list(&self, incarnation: IncarnationId) -> Result<Vec<Branch>> {
        in_snapshot!(self, branch_list_in_txn(incarnation))
    }
}

/// As [`Catalog::branch_put`].
///
/// # Errors
/// [`Error::Conflict`] when another fork is recorded.
pub async fn branch_put_in_txn(txn: &mut Txn, branch: &Branch) -> Result<()> {
    let statement = "insert into branch (incarnation, timeline, parent_timeline, fork_offset, first_seen_at) \
                     values ($1, $2, $3, $4, $5) on conflict (incarnation, timeline) do update set \
                     parent_timeline = coalesce(branch.parent_timeline, excluded.parent_timeline), \
                     fork_offset = coalesce(branch.fork_offset, excluded.fork_offset)";
    let bound = query(statement)
        .bind(branch.incarnation.to_string())
        .bind(row::branch(branch.timeline))
        .bind(branch.fork.map(|fork| row::branch(fork.parent)))
        .bind(at_known(branch.fork.map(|fork| fork.at))?)
        .bind(micros(branch.first_seen_at));
    txn.execute("branch_put", bound).await?;
    let Some(fork) = branch.fork else { return Ok(()) };
    let all = branch_list_in_txn(txn, branch.incarnation).await?;
    match all.iter().find(|known| known.timeline == branch.timeline).and_then(|known| known.fork) {
        Some(known) if known != fork => Err(Error::Conflict {
            what: "timeline",
            name: branch.timeline.to_string(),
            reason: format!("it left timeline {} at {}", known.parent, known.at),
        }),
        _ => Ok(()),
    }
}

/// As [`Catalog::branch_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn branch_list_in_txn(txn: &mut Txn, incarnation: IncarnationId) -> Result<Vec<Branch>> {
    let statement = "select incarnation, timeline, parent_timeline, fork_offset, first_seen_at from branch \
                     where incarnation = $1 order by timeline";
    let rows = txn.rows("branch_list", query(statement).bind(incarnation.to_string())).await?;
    rows.iter().map(from_row).collect()
}

/// The branches of all incarnations.
pub(crate) async fn branch_all_in_txn(txn: &mut Txn) -> Result<Vec<Branch>> {
    const ALL: Packed = packed!("branch"; incarnation, timeline, parent_timeline, fork_offset, first_seen_at);
    let mut all = txn.packed("branch_all", ALL.columns, query(ALL.statement), from_row).await?;
    all.sort_by_key(|branch| branch.timeline);
    Ok(all)
}

pub(crate) fn from_row(row: &impl Read) -> Result<Branch> {
    Ok(Branch {
        incarnation: row.parsed("incarnation")?,
        timeline: row.timeline("timeline")?,
        fork: row
            .maybe_position("parent_timeline", "fork_offset")?
            .map(|position| Fork { parent: position.timeline, at: position.offset }),
        first_seen_at: row.time("first_seen_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(timeline: u32, fork: Option<(u32, u64)>) -> Branch {
        Branch {
            incarnation: IncarnationId::from_bytes([1; 16]),
            timeline: Timeline::new(timeline),
            fork: fork.map(|(parent, at)| Fork { parent: Timeline::new(parent), at: Offset::new(at) }),
            first_seen_at: Time::default(),
        }
    }

    #[test]
    fn a_line_runs_through_the_ancestors_only_and_its_offsets_rise() {
        for (case, branches, to, expected) in [
            ("alone", vec![branch(1, None)], 1, vec![(1, 0, None)]),
            ("not recorded", vec![], 3, vec![(3, 0, None)]),
            (
                "a sibling is left out",
                vec![branch(1, None), branch(2, Some((1, 50))), branch(3, Some((1, 80)))],
                3,
                vec![(1, 0, Some(80)), (3, 80, None)],
            ),
            (
                "a fork before the parent's own start skips the parent",
                vec![branch(1, None), branch(2, Some((1, 50))), branch(3, Some((2, 40)))],
                3,
                vec![(1, 0, Some(40)), (3, 40, None)],
            ),
            (
                "a circle ends",
                vec![branch(1, Some((2, 9))), branch(2, Some((1, 5)))],
                2,
                vec![(1, 0, Some(5)), (2, 5, None)],
            ),
        ] {
            let line = Line::to(Timeline::new(to), &branches);
            let found: Vec<_> = line
                .stretches()
                .iter()
                .map(|s| (s.timeline.get(), s.from.get(), s.until.map(Offset::get)))
                .collect();
            assert_eq!(found, expected, "{case}");
        }
    }
}
