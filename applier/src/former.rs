//! A former primary, as its journal sees it: where the newest history left the timeline that it wrote.
//!
//! What always holds: nothing is written but the marker of [`adopt`], by which commands on standbys know a directory, and that last of all.

use std::path::Path;

use farshore_engines::postgres::log::history::{Branch as Leg, TimelineHistory};
use farshore_journal::{Offset, Timeline};

use crate::branches::{BranchError, Branches};
use crate::plan::{Plan, PlanError};
use crate::restore::{MARKER, RestoreError};
use crate::source::Source;

/// Where a journal's newest history goes on from a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The journal's newest timeline.
    pub newest: Timeline,
    /// Where its history left the timeline that was asked about; none where that is the newest one, or is not in its history.
    pub at: Option<Offset>,
    /// The runs of log that make up its history, oldest first; the last is the newest timeline's own.
    pub legs: Vec<Leg>,
}

impl Left {
    /// Whether a server's history of that newest timeline, as it tells it, is the journal's.
    pub fn is_history(&self, told: &TimelineHistory) -> bool {
        told.timeline() == self.newest && told.ancestry().eq(self.legs.iter().copied())
    }
}

/// Where the journal's newest history left `timeline`; `None` for an empty journal.
///
/// # Errors
/// When the journal does not read.
pub async fn left(source: &Source, timeline: Timeline) -> Result<Option<Left>, PlanError> {
    let branches = Branches::read(source.reader()).await.map_err(|why| match why {
        BranchError::Journal(why) => PlanError::from(why),
        other => PlanError::Timelines { why: other.to_string() },
    })?;
    let Some(branches) = branches else { return Ok(None) };
    let newest = branches.newest();
    let legs = branches.get(newest).map(|held| held.legs.clone()).unwrap_or_default();
    let at = legs.iter().find(|leg| leg.timeline == timeline).and_then(|leg| leg.end);
    Ok(Some(Left { newest, at, legs }))
}

/// Says of a directory that another tool brought in line with the journal that it is a copy of it, as `restore` says of one that it made. Durable on `Ok`.
///
/// # Errors
/// When it cannot be written.
pub fn adopt(directory: &Path, plan: &Plan) -> Result<(), RestoreError> {
    crate::restore::adopted(&directory.join(MARKER), plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_the_journals_only_where_each_timeline_was_left_at_the_same_place() {
        let history =
            |number, text: &str| TimelineHistory::parse(Timeline::new(number), text.as_bytes()).unwrap();
        let own = history(3, "1\t0/500\tx\n2\t0/900\ty\n");
        let left = Left { newest: Timeline::new(3), at: None, legs: own.ancestry().collect() };
        assert!(left.is_history(&history(3, "1\t0/500\twhatever it says\n2\t0/900\t\n")));
        for (number, other) in
            [(3, "1\t0/500\tx\n2\t0/901\ty\n"), (3, "1\t0/500\tx\n"), (4, "1\t0/500\tx\n2\t0/900\ty\n")]
        {
            assert!(!left.is_history(&history(number, other)), "{number} {other}");
        }
    }
}
