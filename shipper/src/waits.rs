//! Whether a primary is set so that each commit waits, where no guard sees to it: pure, moments are passed in.
//!
//! What always holds: that commits wait is said only while the primary says so, and once the process of it that alone makes a changed setting count had the time to.
//! `docs/adr/2026-11-28-the-guard.md`, rule 5, says why what a session sees is not enough.

use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::guard::GuardPhase;
use farshore_engines::postgres::sql::WaitsGlance;

/// For how long the setting was to be seen before the checkpointer is believed to have seen it.
const SEEN_FOR: Duration = Duration::from_secs(2);
/// For how long where it cannot be seen what the checkpointer does: longer than a checkpoint takes as a rule.
const UNSEEN_FOR: Duration = Duration::from_secs(600);

/// What a primary's setting says of commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitsSeen {
    /// Whether they wait.
    pub phase: GuardPhase,
    /// Up to when they are known to have waited before that; `None` while they do, and where nobody knows.
    pub held_until: Option<DateTime<Utc>>,
    /// Why they do not.
    pub trouble: Option<String>,
    /// When it was looked.
    pub looked_at: DateTime<Utc>,
}

/// Looks at it again and again.
#[derive(Debug, Clone)]
pub struct WaitsWatch {
    wanted: String,
    /// What stands in a setting that names a stream of this database's.
    ours: String,
    /// For how long it has said so without a break.
    seen_for: Duration,
    counts: bool,
    held_until: Option<DateTime<Utc>>,
}

impl WaitsWatch {
    /// One for a setting that is to be `wanted`.
    pub fn new(wanted: String, ours: String) -> Self {
        Self { wanted, ours, seen_for: Duration::ZERO, counts: false, held_until: None }
    }

    /// What a look amounts to; `since` is the time that passed since the one before, and counts only where nothing was missed in it.
    pub fn look(&mut self, seen: &WaitsGlance, since: Option<Duration>, now: DateTime<Utc>) -> WaitsSeen {
        let (phase, trouble) = if seen.names == self.wanted {
            match since {
                Some(since) => self.seen_for = self.seen_for.saturating_add(since),
                None => (self.seen_for, self.counts) = (Duration::ZERO, false),
            }
            let enough = if seen.attentive.is_some() { SEEN_FOR } else { UNSEEN_FOR };
            self.counts |= self.seen_for >= enough && seen.attentive != Some(false);
            match self.counts {
                true => (GuardPhase::Armed, None),
                false => (GuardPhase::Arming, None),
            }
        } else {
            (self.seen_for, self.counts) = (Duration::ZERO, false);
            let (phase, lack) = match seen.names.contains(&self.ours) {
                true => (GuardPhase::HandsOff, format!("is to be '{}'", self.wanted)),
                false => (GuardPhase::Disarmed, "names none of its streams".to_owned()),
            };
            let trouble = format!(
                "synchronous_standby_names is '{}', and {lack}: `farshore check` has the statement",
                seen.names
            );
            (phase, Some(trouble))
        };
        if phase == GuardPhase::Armed {
            self.held_until = Some(now);
        }
        let held_until = self.held_until.filter(|_| phase != GuardPhase::Armed);
        WaitsSeen { phase, held_until, trouble, looked_at: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = "FIRST 1 (\"farshore orders/main\")";
    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn glance(names: &str, attentive: Option<bool>) -> WaitsGlance {
        WaitsGlance { names: names.to_owned(), attentive }
    }

    fn watch() -> WaitsWatch {
        WaitsWatch::new(WANTED.to_owned(), "orders/".to_owned())
    }

    #[test]
    fn commits_are_said_to_wait_only_once_the_checkpointer_had_the_time_to_see_it() {
        let mut watch = watch();
        let phase = |watch: &mut WaitsWatch, since, attentive, second| {
            watch.look(&glance(WANTED, attentive), since, at(second)).phase
        };
        assert_eq!(phase(&mut watch, None, Some(true), 0), GuardPhase::Arming);
        assert_eq!(phase(&mut watch, SECOND, Some(true), 1), GuardPhase::Arming);
        // It writes a checkpoint and looks at nothing.
        for second in 2..60 {
            assert_eq!(phase(&mut watch, SECOND, Some(false), second), GuardPhase::Arming);
        }
        assert_eq!(phase(&mut watch, SECOND, Some(true), 60), GuardPhase::Armed);
        assert_eq!(phase(&mut watch, SECOND, Some(false), 61), GuardPhase::Armed);
        // Another session, or a while that nobody saw.
        assert_eq!(phase(&mut watch, None, Some(true), 62), GuardPhase::Arming);
        // A role that does not see the checkpointer waits for longer.
        for second in 63..663 {
            assert_eq!(
                phase(&mut watch, SECOND, None, second) == GuardPhase::Armed,
                second == 662,
                "{second}"
            );
        }
    }

    #[test]
    fn a_setting_that_is_not_what_is_promised_is_said_with_up_to_when_it_was() {
        let mut watch = watch();
        for second in 0..3 {
            watch.look(&glance(WANTED, Some(true)), SECOND, at(second));
        }
        let taken_out = watch.look(&glance("", Some(true)), SECOND, at(3));
        assert_eq!((taken_out.phase, taken_out.held_until), (GuardPhase::Disarmed, Some(at(2))));
        assert!(taken_out.trouble.unwrap().contains("''"));
        let other = watch.look(&glance("ANY 1 (\"farshore orders/main\", x)", Some(true)), SECOND, at(4));
        assert_eq!((other.phase, other.held_until), (GuardPhase::HandsOff, Some(at(2))));
    }
}
