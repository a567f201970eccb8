//! What a database's state amounts to, in one word with its shape: pure functions.
//!
//! What always holds: *protected* is said only of a database whose shipper spoke lately, says that its targets confirm, from which something
//! can be restored, and whose objective, where it has one, is known not to be breached. Unknown has a word and a shape of its own.

use std::fmt;

use farshore_catalog::guard::GuardPhase;
use farshore_catalog::lag::{self, ShownState};
use farshore_catalog::shipping::ShippingState;

use crate::state::Objectives;

/// How it stands, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What is committed now is not kept as it should be.
    Unprotected,
    /// Nobody knows.
    Unknown,
    /// Kept, but a promise does not hold, or not yet.
    Degraded,
    /// Stopped on purpose.
    Paused,
    /// As it should be.
    Protected,
}

impl Level {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Unprotected, Self::Unknown, Self::Degraded, Self::Paused, Self::Protected];

    /// Its word, on screens and as a style's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unprotected => "unprotected",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::Protected => "protected",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What is known of a database.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its shipper's word, as it may be shown now.
    pub state: ShownState,
    /// Age of the oldest commit not stored.
    pub lag_seconds: Option<f64>,
    /// Whether so much log was not received that nobody knows what would be lost.
    pub unseen: bool,
    /// When that was written.
    pub measured_at: Option<farshore_catalog::Time>,
    /// Whether anything can be restored.
    pub restorable: bool,
    /// What is promised.
    pub promised: Objectives,
    /// Whether its commits wait until they are stored, where that is promised.
    pub guard: Option<GuardPhase>,
}

/// How it stands, and why, as far as its numbers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The word.
    pub level: Level,
    /// In a few words.
    pub because: String,
}

/// What it amounts to.
pub fn standing(now: farshore_catalog::Time, known: &Known) -> Standing {
    let rpo = known.promised.rpo.map(|rpo| rpo.as_secs_f64());
    let breached = lag::breached(now, known.state, known.measured_at, known.lag_seconds, rpo);
    let (level, because) = match known.state {
        ShownState::Unknown => (Level::Unknown, "nobody vouches for it now"),
        ShownState::Known(state) => match state {
            ShippingState::Failed => (Level::Unprotected, "shipping has stopped after a fault"),
            ShippingState::Fenced => (Level::Unprotected, "another shipper has taken over"),
            ShippingState::Bypass => {
                (Level::Unprotected, "shipping is off; what is committed now is not kept")
            }
            _ if breached == Some(true) => (Level::Unprotected, "more than its objective is not stored"),
            ShippingState::Paused => (Level::Paused, "stopped on purpose"),
            ShippingState::Setup => (Level::Degraded, "it is being set up"),
            ShippingState::Accumulating => (Level::Degraded, "no store confirms; the log is kept meanwhile"),
            ShippingState::Degraded => (Level::Degraded, "shipping goes on, and a promise does not hold"),
            ShippingState::Refreshing => (Level::Degraded, "a new base backup is being taken"),
            ShippingState::Backfreshing => (Level::Degraded, "it is being brought back in line"),
            ShippingState::Connected if !known.restorable => {
                (Level::Degraded, "connected, and nothing can be restored yet")
            }
            ShippingState::Connected if breached.is_none() && is_at_risk(known.lag_seconds, rpo) => {
                (Level::Degraded, "its objective may be breached; the next word tells")
            }
            ShippingState::Connected if known.unseen && rpo.is_some() => {
                (Level::Degraded, "much of its log was not received yet: what would be lost is not known")
            }
            ShippingState::Connected => {
                unguarded(known.guard).unwrap_or((Level::Protected, "connected, and its stores confirm"))
            }
        },
    };
    Standing { level, because: because.to_owned() }
}

/// Why commits do not wait as they are to.
const fn unguarded(guard: Option<GuardPhase>) -> Option<(Level, &'static str)> {
    match guard {
        None | Some(GuardPhase::Armed) => None,
        Some(GuardPhase::Arming) => {
            Some((Level::Degraded, "its commits are made to wait again; some may not be stored yet"))
        }
        Some(GuardPhase::Disarmed) => {
            Some((Level::Degraded, "its commits do not wait until they are stored"))
        }
        Some(GuardPhase::HandsOff | GuardPhase::Unknown) => {
            Some((Level::Degraded, "its commits are not known to wait until they are stored"))
        }
    }
}

fn is_at_risk(lag: Option<f64>, rpo: Option<f64>) -> bool {
    lag.zip(rpo).is_some_and(|(lag, rpo)| lag > rpo)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{TimeDelta, Utc};

    use super::*;

    #[test]
    fn protected_is_said_of_nothing_but_a_connected_database_that_keeps_its_objective() {
        let now = Utc::now();
        let (mut protected, mut looked) = (0, 0);
        let states = ShippingState::ALL.into_iter().map(ShownState::Known).chain([ShownState::Unknown]);
        for state in states {
            for restorable in [true, false] {
                for lag_seconds in [None, Some(0.0), Some(0.9), Some(1.5), Some(500.0)] {
                    for (rpo, unseen) in [(None, false), (None, true), (Some(1), false), (Some(1), true)] {
                        let promised =
                            Objectives { rpo: rpo.map(Duration::from_secs), ..Objectives::default() };
                        let measured_at = Some(now - TimeDelta::seconds(1));
                        let known = Known {
                            state,
                            lag_seconds,
                            unseen,
                            measured_at,
                            restorable,
                            promised,
                            guard: None,
                        };
                        let said = standing(now, &known);
                        looked += 1;
                        if said.level == Level::Protected {
                            protected += 1;
                            assert_eq!(state, ShownState::Known(ShippingState::Connected));
                            let keeps = !unseen && lag_seconds.is_none_or(|lag| lag <= 1.0);
                            assert!(restorable && (rpo.is_none() || keeps), "{known:?}");
                        }
                        assert_eq!(said.level == Level::Unknown, state == ShownState::Unknown, "{known:?}");
                        assert!(!said.because.is_empty());
                    }
                }
            }
        }
        assert_eq!((protected, looked), (13, 440));
    }

    #[test]
    fn the_worst_comes_first_and_unknown_before_anything_that_is_known_to_be_kept() {
        let mut all = Level::ALL;
        all.sort();
        assert_eq!(all.map(Level::word), ["unprotected", "unknown", "degraded", "paused", "protected"]);
    }

    #[test]
    fn of_commits_that_are_to_wait_and_do_not_nothing_is_called_protected() {
        let now = Utc::now();
        let known = |guard| Known {
            state: ShownState::Known(ShippingState::Connected),
            lag_seconds: Some(0.0),
            unseen: false,
            measured_at: Some(now),
            restorable: true,
            promised: Objectives { rpo: Some(Duration::from_secs(10)), ..Objectives::default() },
            guard,
        };
        let phases = GuardPhase::ALL.iter().copied().map(Some).chain([None]);
        let protected: Vec<Option<GuardPhase>> =
            phases.filter(|phase| standing(now, &known(*phase)).level == Level::Protected).collect();
        assert_eq!(protected, [Some(GuardPhase::Armed), None]);
    }
}
