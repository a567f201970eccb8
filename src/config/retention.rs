//! What expiry keeps of a database: `[databases.NAME.retention]`.
//!
//! What always holds: without the table everything is kept; no window is shorter than a day, and no grace than what a shipper may still wait for.

use std::time::Duration;

use chrono::TimeDelta;
use farshore_applier::retention::Rule;

use super::diagnose::ConfigProblem;
use super::{Judge, document};

/// Sound base backups that stay where nobody says otherwise: one that rots leaves another.
const USUAL_COUNT: usize = 2;
/// The least time between a mark and a deletion: a shipper may wait half of it for an answer (FORMAT.md, R6).
pub const LEAST_GRACE: Duration = farshore_journal::writer::TIDY_GRACE;

/// What expiry keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Base backups, and log.
    pub rule: Rule,
    /// How long what no rule keeps stands marked before it is deleted.
    pub grace: Duration,
}

impl Judge<'_> {
    pub(super) fn retention(
        &self,
        written: Option<&document::Retention>,
    ) -> Result<Option<Retention>, ConfigProblem> {
        let Some(written) = written else { return Ok(None) };
        let window = TimeDelta::from_std(written.window.get_ref().get()).unwrap_or(TimeDelta::MAX);
        if window < TimeDelta::days(1) || window > TimeDelta::days(36_500) {
            return Err(self
                .problem(written.window.span(), "a window is a day to a hundred years")
                .hint("window = \"30d\""));
        }
        let count = match &written.count {
            None => USUAL_COUNT,
            Some(count) if *count.get_ref() > 0 => *count.get_ref(),
            Some(count) => {
                return Err(self
                    .problem(count.span(), "at least one base backup stays")
                    .hint("count = 2, and the window keeps what it needs besides"));
            }
        };
        let grace = match &written.grace {
            None => LEAST_GRACE,
            Some(grace) if grace.get_ref().get() >= LEAST_GRACE => grace.get_ref().get(),
            Some(grace) => {
                return Err(self
                    .problem(grace.span(), "a shipper may still wait for an answer that is half a day old")
                    .hint("grace = \"1d\", or more"));
            }
        };
        Ok(Some(Retention { rule: Rule { window, count }, grace }))
    }
}
