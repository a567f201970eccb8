//! Which backups of a journal a restore can begin with, and how far each one reaches.

use std::fmt;

use chrono::SecondsFormat;
use farshore_journal::backup::{self, Standing};
use farshore_journal::{JournalError, Position, Timeline};

use super::{PlanError, Window};
use crate::branches::Branches;
use crate::source::Source;

/// A backup that may be the base.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub standing: Standing,
    pub start: Position,
    pub end: Position,
}

impl Candidate {
    /// When its manifest was written: it is the last object of a backup. To the microsecond, since a time that is cut off may lie before
    /// the backup is consistent.
    fn finished(&self) -> String {
        let written = self.standing.complete.map(|range| range.written_at);
        let written = written.and_then(chrono::DateTime::from_timestamp_micros);
        written.map_or_else(
            || "an unknown time".to_owned(),
            |at| at.to_rfc3339_opts(SecondsFormat::Micros, true),
        )
    }
}

/// The complete backups in the target's history whose log is stored to their end, newest first; what keeps the others from being some.
pub(super) async fn candidates(
    source: &Source,
    branches: &Branches,
    timeline: Timeline,
) -> Result<(Vec<Candidate>, Unfit), PlanError> {
    let mut fit = Vec::new();
    let mut unfit = Unfit::default();
    for id in backup::list(source.reader()).await? {
        let standing = match backup::standing(source.reader(), id).await {
            Ok(standing) => standing,
            // One bad backup must not hide the good ones; verify names it.
            Err(JournalError::Object { .. } | JournalError::Misplaced { .. }) => {
                unfit.unreadable += 1;
                continue;
            }
            Err(JournalError::Store(why)) if why.is_not_found() => {
                unfit.unreadable += 1;
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        let Some(range) = standing.complete else {
            unfit.unfinished += 1;
            continue;
        };
        if !branches.is_in_history(timeline, range.end) {
            unfit.elsewhere += 1;
            continue;
        }
        let first = source.shape().read_from(range.start.offset);
        match branches.stored_end(timeline, first).is_some_and(|end| end >= range.end.offset) {
            true => fit.push(Candidate { standing, start: range.start, end: range.end }),
            false => unfit.lacks_log += 1,
        }
    }
    fit.sort_by_key(|candidate| std::cmp::Reverse((candidate.end.offset, candidate.start.offset)));
    Ok((fit, unfit))
}

/// Why backups are none that a restore could begin with, and how many of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Unfit {
    /// Without a manifest: they run, or were cut off.
    unfinished: usize,
    /// Their log is not stored to their end.
    lacks_log: usize,
    /// Of a timeline that is not in the target's history.
    elsewhere: usize,
    /// What there is of them does not read.
    unreadable: usize,
}

impl Unfit {
    /// How many.
    pub(super) fn count(&self) -> usize {
        self.unfinished + self.lacks_log + self.elsewhere + self.unreadable
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (
                self.unfinished,
                "unfinished (it runs, or was cut off)",
                "unfinished (they run, or were cut off)",
            ),
            (
                self.lacks_log,
                "not followed by its log: the journal does not hold it to the backup's end",
                "not followed by their log: the journal does not hold it to the backups' ends",
            ),
            (
                self.elsewhere,
                "of a timeline that is not in the target's history",
                "of timelines that are not in the target's history",
            ),
            (
                self.unreadable,
                "unreadable: `farshore verify` names it",
                "unreadable: `farshore verify` names them",
            ),
        ];
        let mut separator = "";
        for (count, one, many) in kinds.iter().filter(|(count, _, _)| *count > 0) {
            match count {
                1 => write!(f, "{separator}1 is {one}")?,
                _ => write!(f, "{separator}{count} are {many}")?,
            }
            separator = "; ";
        }
        if separator.is_empty() { f.write_str("none was begun") } else { Ok(()) }
    }
}

/// What can be restored to from each of them, as far as the journal is stored.
pub(super) fn windows(branches: &Branches, timeline: Timeline, candidates: &[Candidate]) -> Vec<Window> {
    let window = |candidate: &Candidate| {
        let to = branches.stored_end(timeline, candidate.start.offset)?;
        Some(Window {
            base: candidate.standing.id,
            timeline,
            from: candidate.end.offset,
            to,
            finished: candidate.finished(),
            to_time: None,
            to_transaction: None,
            gaps_looked_for: false,
        })
    };
    candidates.iter().filter_map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_backup_that_is_none_is_named_with_its_count() {
        let unfit = Unfit { unfinished: 1, lacks_log: 2, ..Unfit::default() };
        assert_eq!(
            unfit.to_string(),
            "1 is unfinished (it runs, or was cut off); 2 are not followed by their log: the journal does not hold it to the backups' ends"
        );
        let unfit = Unfit { elsewhere: 1, unreadable: 1, ..Unfit::default() };
        assert_eq!(
            unfit.to_string(),
            "1 is of a timeline that is not in the target's history; 1 is unreadable: `farshore verify` names it"
        );
        assert_eq!(Unfit::default().to_string(), "none was begun");
    }
}
