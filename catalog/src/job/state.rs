//! How a job stands, and what may become of it.
//!
//! ```text
//!            claim                     done
//! queued ───────────▶ running ──────────────────▶ succeeded | failed
//!   │ cancel             │ cancel       ▲ done all the same
//!   ▼                    ▼              │
//! cancelled         cancelling ─────────┴───────▶ cancelled
//! ```
//! What always holds: an ended job stays as it ended, but for one that was called failed because nothing was heard of who did it: that
//! one may still say what really came of it. The catalog keeps the state; nothing else does.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Set by who asks; waits for a node that may do it.
    Queued,
    /// Set by who claims it, and does it.
    Running,
    /// Set by who wants it ended; waits for who does it to reach a safe point.
    Cancelling,
    /// Set by who did it.
    Succeeded,
    /// Set by who did it, or by a watcher that heard nothing of them.
    Failed,
    /// Set by who did it, or at once where nobody had begun.
    Cancelled,
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// A process takes it.
    Claim,
    /// Somebody wants it ended.
    Cancel,
    /// It is done.
    Succeed,
    /// It could not be done.
    Fail,
    /// Who did it ended it as was wished.
    Stop,
    /// Who did it gives it back undone, or is silent and the work may be done twice.
    GiveBack,
    /// Nothing is heard of who did it.
    FallSilent,
}

impl JobState {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Cancelling, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Its word, in the catalog and on screens.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more is expected.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether somebody does it now, as far as is known.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Running | Self::Cancelling)
    }

    /// The state behind an event; `None` where it cannot happen. `silent`: it was called failed because nothing was heard.
    pub const fn next(self, event: JobEvent, silent: bool) -> Option<Self> {
        use JobEvent::{Cancel, Claim, Fail, FallSilent, GiveBack, Stop, Succeed};
        match (self, event) {
            (Self::Queued, Claim) => Some(Self::Running),
            (Self::Queued, Cancel) => Some(Self::Cancelled),
            (Self::Queued, Succeed | Fail | Stop | GiveBack | FallSilent) => None,
            (Self::Running, Cancel) | (Self::Cancelling, Cancel) => Some(Self::Cancelling),
            (Self::Running | Self::Cancelling, Succeed) => Some(Self::Succeeded),
            (Self::Running | Self::Cancelling, Fail | FallSilent) => Some(Self::Failed),
            (Self::Running | Self::Cancelling, Stop) => Some(Self::Cancelled),
            (Self::Running, GiveBack) => Some(Self::Queued),
            // What was to end is not begun anew.
            (Self::Cancelling, GiveBack) => Some(Self::Cancelled),
            (Self::Running | Self::Cancelling, Claim) => None,
            (Self::Failed, Succeed) if silent => Some(Self::Succeeded),
            (Self::Failed, Fail) if silent => Some(Self::Failed),
            (Self::Failed, Stop) if silent => Some(Self::Cancelled),
            (
                Self::Succeeded | Self::Failed | Self::Cancelled,
                Claim | Cancel | Succeed | Fail | Stop | GiveBack | FallSilent,
            ) => None,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for JobState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|state| state.word() == text);
        known.ok_or_else(|| Error::corrupt("state", "a word that is no state of a job"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [JobEvent; 7] = [
        JobEvent::Claim,
        JobEvent::Cancel,
        JobEvent::Succeed,
        JobEvent::Fail,
        JobEvent::Stop,
        JobEvent::GiveBack,
        JobEvent::FallSilent,
    ];

    #[test]
    fn every_state_has_its_word_and_reads_back() {
        for state in JobState::ALL {
            assert_eq!(state.word().parse::<JobState>().unwrap(), state);
        }
        assert!("lost".parse::<JobState>().is_err());
    }

    #[test]
    fn an_ended_job_stays_as_it_ended_unless_it_was_only_called_silent() {
        for state in JobState::ALL.into_iter().filter(|state| state.is_ended()) {
            for event in EVENTS {
                assert_eq!(state.next(event, false), None, "{state} {event:?}");
                let corrected = state.next(event, true);
                let may = state == JobState::Failed
                    && matches!(event, JobEvent::Succeed | JobEvent::Fail | JobEvent::Stop);
                assert_eq!(corrected.is_some(), may, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn nobody_takes_a_job_that_is_held_and_nobody_ends_one_that_was_not_begun() {
        assert_eq!(JobState::Running.next(JobEvent::Claim, false), None);
        assert_eq!(JobState::Cancelling.next(JobEvent::Claim, false), None);
        for event in [JobEvent::Succeed, JobEvent::Fail, JobEvent::Stop, JobEvent::FallSilent] {
            assert_eq!(JobState::Queued.next(event, false), None);
        }
    }

    #[test]
    fn what_was_to_end_is_never_queued_again() {
        for event in EVENTS {
            assert_ne!(JobState::Cancelling.next(event, false), Some(JobState::Queued), "{event:?}");
        }
    }

    #[test]
    fn every_job_that_is_held_can_end_each_way() {
        for state in [JobState::Running, JobState::Cancelling] {
            assert_eq!(state.next(JobEvent::Succeed, false), Some(JobState::Succeeded));
            assert_eq!(state.next(JobEvent::Fail, false), Some(JobState::Failed));
            assert_eq!(state.next(JobEvent::Stop, false), Some(JobState::Cancelled));
        }
    }
}
