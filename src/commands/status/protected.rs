//! What `status` says of commits that are to wait until they are stored.

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::guard::{Guard, GuardPhase};
use serde::Serialize;

use crate::cli::zone::Zone;

/// What a database's guard says of it.
#[derive(Serialize)]
pub(super) struct Protected {
    /// Whether they do: `armed` is yes.
    state: GuardPhase,
    /// Up to when they are known to have waited, while they do not or are not known to.
    exposed_since: Option<DateTime<Utc>>,
    /// Why they do not, in a word.
    why: Option<String>,
    /// What keeps the guard from its work.
    trouble: Option<String>,
    /// Who says so: in `sync` its guard, else its shipper.
    node: Option<String>,
    #[serde(skip)]
    is_guarded: bool,
}

impl Protected {
    pub(super) fn new(guard: &Guard, is_guarded: bool, now: DateTime<Utc>) -> Self {
        let state = guard.shown(now);
        let waits = state == GuardPhase::Armed;
        Self {
            state,
            exposed_since: guard.waited_until().filter(|_| !waits),
            why: guard.why.clone().filter(|_| !waits),
            trouble: guard.trouble.clone(),
            node: guard.node.clone(),
            is_guarded,
        }
    }

    /// Whether commits wait as they should; `None`: nobody vouches for it.
    pub(super) const fn holds(&self) -> Option<bool> {
        match self.state {
            GuardPhase::Armed => Some(true),
            GuardPhase::Arming | GuardPhase::Disarmed | GuardPhase::HandsOff => Some(false),
            GuardPhase::Unknown => None,
        }
    }

    pub(super) fn line(&self, zone: Zone) -> String {
        let since = self.exposed_since.map_or_else(
            || "nobody knows since when".to_owned(),
            |since| format!("since {}", zone.show(since, SecondsFormat::Secs)),
        );
        let mut line = match self.state {
            GuardPhase::Armed if !self.is_guarded => "each commit waits, as the primary is set".to_owned(),
            GuardPhase::Armed => "each commit waits until it is stored".to_owned(),
            GuardPhase::Arming if !self.is_guarded => format!(
                "the primary is set so that commits wait, and it is not known yet that each does ({since})"
            ),
            GuardPhase::Arming => format!(
                "commits are made to wait again; until all are stored some may be lost with the primary ({since})"
            ),
            GuardPhase::Disarmed => {
                format!("commits do not wait: they may be lost with the primary ({since})")
            }
            GuardPhase::HandsOff => format!(
                "synchronous_standby_names is somebody's own: commits are not known to wait ({since})"
            ),
            GuardPhase::Unknown if !self.is_guarded => {
                format!(
                    "its shipper does not see how the primary is set: commits are not known to wait ({since})"
                )
            }
            GuardPhase::Unknown if self.node.is_none() => {
                "no guard was ever heard of: no commit is known to wait; run `farshore guard`".to_owned()
            }
            GuardPhase::Unknown => format!(
                "its guard is not heard, or does not hear the primary: commits are not known to wait ({since})"
            ),
        };
        if let Some(trouble) = &self.trouble {
            line.push_str("; ");
            line.push_str(trouble);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_guard_vouches_for_is_never_called_protected() {
        let now: DateTime<Utc> = "2026-03-29T12:00:00Z".parse().unwrap();
        let guard = Guard {
            database: "orders".parse().unwrap(),
            node: Some("db1".to_owned()),
            phase: GuardPhase::Armed,
            is_exposed: false,
            exposed_since: None,
            why: None,
            trouble: None,
            looked_at: Some(now),
            told_at: Some(now),
        };
        let shown = |guard: &Guard, later: i64| {
            let shown = Protected::new(guard, true, now + chrono::TimeDelta::seconds(later));
            (shown.holds(), shown.line(Zone::UTC))
        };
        assert_eq!(shown(&guard, 1), (Some(true), "each commit waits until it is stored".to_owned()));
        let (holds, line) = shown(&guard, 60);
        assert!(holds.is_none() && line.contains("since 2026-03-29T12:00:00Z"), "{line}");
        let exposed = Guard {
            is_exposed: true,
            exposed_since: Some(now),
            phase: GuardPhase::Disarmed,
            ..guard.clone()
        };
        assert_eq!(shown(&exposed, 1).0, Some(false));
        assert_eq!(
            shown(&Guard { phase: GuardPhase::Armed, ..exposed }, 1).0,
            Some(false),
            "what is open is not over"
        );
        let never = Guard {
            node: None,
            looked_at: None,
            told_at: None,
            is_exposed: true,
            phase: GuardPhase::Unknown,
            ..guard
        };
        let (holds, line) = shown(&never, 1);
        assert!(holds.is_none() && line.contains("farshore guard"), "{line}");
    }
}
