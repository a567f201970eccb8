//! What a recovering server's answer means: pure decisions, so that every combination can be tested.

use farshore_journal::{Offset, Timeline};

use super::super::safe_start::RecoveryTarget;

/// One answer of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// `pg_last_wal_replay_lsn()`.
    pub replayed: Option<Offset>,
    /// Whether `pg_get_wal_replay_pause_state()` is `paused`: replay has stopped, not merely been asked to.
    pub paused: bool,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Replay goes on.
    Wait,
    /// Paused at exactly the promised end.
    Reached,
    /// Paused somewhere else: limits too small, or another target than ours.
    PausedElsewhere(Option<Offset>),
    /// Replayed beyond what was promised.
    Overshot(Offset),
    /// Open for writes, which nobody asked for.
    Opened,
}

pub(super) fn verdict(answer: Answer, target: &RecoveryTarget) -> Verdict {
    if !answer.in_recovery {
        // When hot standby could not be offered at the target (too many sub-transactions), the server does not
        // pause but opens. Source: `recoveryPausesHere` in `xlogrecovery.c`.
        return Verdict::Opened;
    }
    match answer.replayed {
        Some(replayed) if replayed > target.end => Verdict::Overshot(replayed),
        Some(replayed) if answer.paused && replayed == target.end => Verdict::Reached,
        at if answer.paused => Verdict::PausedElsewhere(at),
        _ => Verdict::Wait,
    }
}

/// Why a server ended before it reached its target, from its last messages (`lc_messages` is `C`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The log ends before the target: the restore holds less than promised.
    RecoveryEndedEarly,
    /// The target lies before the base backup's end.
    BeforeConsistency,
    /// The log demands larger limits than the plan knew: plan again with the control file as it is now.
    LimitsTooSmall,
    /// The log holds an extension's own records: its library must be preloaded.
    ExtensionRecords,
    /// The history file of the target's timeline is not there, or does not descend from the base.
    Timeline,
    /// Something else.
    Other,
}

/// Names the ending; a hint for the operator, never the proof of anything.
pub(super) fn ending(messages: &str) -> Ending {
    const SIGNS: [(&str, Ending); 7] = [
        ("recovery ended before configured recovery target was reached", Ending::RecoveryEndedEarly),
        ("WAL ends before end of online backup", Ending::RecoveryEndedEarly),
        ("is before consistent recovery point", Ending::BeforeConsistency),
        ("insufficient parameter settings", Ending::LimitsTooSmall),
        ("resource manager with ID", Ending::ExtensionRecords),
        ("recovery target timeline", Ending::Timeline),
        ("is not a child of this server's history", Ending::Timeline),
    ];
    let found = SIGNS.iter().find(|(sign, _)| messages.contains(sign));
    found.map_or(Ending::Other, |(_, ending)| *ending)
}

/// The last switch of a timeline's history file: parent and position.
/// Source: `src/backend/access/transam/timeline.c`.
pub(super) fn last_switch(history: &str) -> Option<(Timeline, Offset)> {
    let line = history.lines().rfind(|line| !line.trim().is_empty() && !line.starts_with('#'))?;
    let mut fields = line.split('\t');
    Some((fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pause_at_exactly_the_promised_end_counts_as_reached() {
        let target = RecoveryTarget {
            record_start: Offset::new(100),
            timeline: Timeline::new(1),
            end: Offset::new(140),
        };
        for in_recovery in [false, true] {
            for paused in [false, true] {
                for at in [None, Some(100), Some(139), Some(140), Some(141)] {
                    let answer = Answer { in_recovery, paused, replayed: at.map(Offset::new) };
                    let expected = match (in_recovery, paused, at) {
                        (false, ..) => Verdict::Opened,
                        (true, _, Some(141)) => Verdict::Overshot(Offset::new(141)),
                        (true, true, Some(140)) => Verdict::Reached,
                        (true, true, at) => Verdict::PausedElsewhere(at.map(Offset::new)),
                        (true, false, _) => Verdict::Wait,
                    };
                    assert_eq!(verdict(answer, &target), expected, "{answer:?}");
                }
            }
        }
    }

    #[test]
    fn the_last_switch_of_a_history_is_read() {
        let history = "1\t0/3000060\tno recovery target specified\n\n2\t5F/3AA7B9A0\tafter LSN 5F/3AA7B968\n";
        assert_eq!(last_switch(history), Some((Timeline::new(2), "5F/3AA7B9A0".parse().unwrap())));
        assert_eq!(last_switch(""), None);
        assert_eq!(last_switch("x\ty"), None);
    }
}
