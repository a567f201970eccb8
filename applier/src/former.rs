//! A former primary, as its journal sees it: where the newest history left the timeline that it wrote.
//!
//! What always holds: nothing is written but the marker of [`adopt`], by which commands on standbys know a directory, and that last of all.

use std::path::Path;

use farshore_journal::{Offset, Timeline};

use crate::branches::{BranchError, Branches};
use crate::plan::{Plan, PlanError};
use crate::restore::{MARKER, RestoreError};
use crate::source::Source;

/// Where a journal's newest history goes on from a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The journal's newest timeline.
    pub newest: Timeline,
    /// Where its history left the timeline that was asked about; none where that is the newest one, or is not in its history.
    pub at: Option<Offset>,
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
    let legs = branches.get(newest).map(|held| &*held.legs).unwrap_or_default();
    let at = legs.iter().find(|leg| leg.timeline == timeline).and_then(|leg| leg.end);
    Ok(Some(Left { newest, at }))
}

/// Says of a directory that another tool brought in line with the journal that it is a copy of it, as `restore` says of one that it made. Durable on `Ok`.
///
/// # Errors
/// When it cannot be written.
pub fn adopt(directory: &Path, plan: &Plan) -> Result<(), RestoreError> {
    crate::restore::adopted(&directory.join(MARKER), plan)
}
