//! Whether the next base backup is due for `rto`: a pure decision over what a recovery is reckoned to take.
//!
//! What always holds: nothing is due that no drill measured; one is due only where it makes recovery faster, which is by the log alone that it spares, and
//! not behind one that did not; and a tenth of the time at most goes into base backups that are taken for this.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::recovery::Recovery;

/// Of the objective, at which one is due: the backup takes time itself, and log comes meanwhile.
const DUE: (u32, u32) = (4, 5);
/// Of the objective, what one must win at least: less is not worth a base backup.
const WORTH: u32 = 10;
/// How many times as long as it took nothing is due behind a base backup.
pub const REST: i32 = 10;

/// What the objective asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Nothing now.
    Nothing,
    /// What a recovery would take is not known: no drill measured it.
    Unknown,
    /// A base backup: with what there is a recovery would take so long.
    Backup {
        /// How long.
        takes: Duration,
        /// The objective.
        of: Duration,
    },
    /// One was taken, and a recovery does not begin with it: its pages are damaged, or the journal does not hold its log.
    PassedOver,
    /// More than base backups can do: a recovery takes so long without any log, and the log there is would make it little longer.
    More {
        /// How long.
        least: Duration,
        /// The objective.
        of: Duration,
    },
}

/// What `rto` asks for.
pub fn asks(rto: Duration, recovery: &Recovery, now: DateTime<Utc>) -> Asks {
    let (Some(takes), Some(pace)) = (recovery.whole(), recovery.pace) else {
        return Asks::Unknown;
    };
    let bound = rto.saturating_mul(DUE.0) / DUE.1;
    if takes < bound {
        return Asks::Nothing;
    }
    // What a recovery takes with no log at all behind its base backup: ending a replay takes its time as well.
    let least = pace.rest.saturating_add(pace.replay(0).unwrap_or_default());
    let gain = takes.saturating_sub(least);
    // Where it cannot be kept at all, one is taken so that recovery takes no longer than twice that.
    let worth = if least >= rto { rto } else { rto / WORTH };
    if gain < worth {
        return if least >= rto { Asks::More { least, of: rto } } else { Asks::Nothing };
    }
    // Taken since, and none that a recovery begins with: another one would be none either.
    if recovery.newest.id != recovery.base.id && recovery.newest.started_at >= recovery.base.started_at {
        return Asks::PassedOver;
    }
    let newest = &recovery.newest;
    let took = newest.finished_at.map_or_else(TimeDelta::zero, |ended| ended - newest.started_at);
    // A clock that was ahead when it was taken is no reason to rest until then.
    let since = now - newest.started_at;
    let rests = since >= TimeDelta::zero() && since < took.max(TimeDelta::zero()) * REST;
    if rests { Asks::Nothing } else { Asks::Backup { takes, of: rto } }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use farshore_catalog::backup::{Backup, BackupState};
    use farshore_catalog::recovery::{Pace, Took};
    use farshore_journal::{BackupId, IncarnationId, Offset, Timeline};

    use super::*;

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 3, 29, 14, 0, 0).unwrap()
    }

    /// Where a recovery takes so many seconds, and one more for each MiB of log; its base was begun an hour ago.
    fn recovery(rest: u64, mib: u64, backup_took: i64) -> Recovery {
        let replay = Duration::from_secs(100);
        let whole = replay + Duration::from_secs(rest);
        let began = now() - TimeDelta::hours(1);
        let base = Backup {
            id: BackupId::from_bytes([1; 16]),
            incarnation: IncarnationId::from_bytes([1; 16]),
            store: "main".to_owned(),
            timeline: Timeline::new(1),
            start: Offset::new(0),
            end: Some(Offset::new(0)),
            started_at: began,
            finished_at: Some(began + TimeDelta::seconds(backup_took)),
            bytes: None,
            stored_bytes: None,
            state: BackupState::Complete,
            checked: true,
            label: String::new(),
            bad_pages: Some(0),
            bad_at: None,
        };
        Recovery {
            store: "main".to_owned(),
            newest: base.clone(),
            base,
            log_bytes: mib << 20,
            pace: Pace::of(&[Took { whole, replay, bytes: 100 << 20 }]),
        }
    }

    #[test]
    fn a_base_backup_is_due_before_the_objective_is_missed_and_only_where_it_helps() {
        let minute = Duration::from_secs(60);
        let due = |takes| Asks::Backup { takes: Duration::from_secs(takes), of: minute };
        for (case, rest, mib, took, expected) in [
            ("little log", 10, 37, 1, Asks::Nothing),
            ("four fifths", 10, 38, 1, due(48)),
            ("more than all", 10, 500, 1, due(510)),
            ("hardly any log", 47, 5, 1, Asks::Nothing),
            ("all but a little without log", 55, 5, 1, Asks::Nothing),
            ("most of it without log, and log besides", 55, 20, 1, due(75)),
            ("all of it without log", 60, 59, 1, Asks::More { least: Duration::from_secs(60), of: minute }),
            ("all of it without log, and as much again", 60, 60, 1, due(120)),
            ("a backup takes long, and the last one is not long ago", 10, 50, 361, Asks::Nothing),
            ("the same, and it is", 10, 50, 360, due(60)),
        ] {
            assert_eq!(asks(minute, &recovery(rest, mib, took), now()), expected, "{case}");
        }
    }

    #[test]
    fn none_is_due_behind_one_that_won_nothing() {
        let minute = Duration::from_secs(60);
        // Drills of hardly any log took 8 s to end their replay: so will the next recovery, whatever its base.
        let small = Took { whole: Duration::from_secs(68), replay: Duration::from_secs(8), bytes: 1 << 20 };
        let floor = Recovery { pace: Pace::of(&[small]), ..recovery(0, 0, 1) };
        assert_eq!(asks(minute, &floor, now()), Asks::More { least: Duration::from_secs(68), of: minute });
        let due = recovery(10, 500, 1);
        assert!(matches!(asks(minute, &due, now()), Asks::Backup { .. }));
        // The newest one has damaged pages, so that recovery begins with an older one.
        let damaged = Backup {
            id: BackupId::from_bytes([2; 16]),
            started_at: now() - TimeDelta::minutes(30),
            bad_pages: Some(1),
            ..due.base.clone()
        };
        assert_eq!(asks(minute, &Recovery { newest: damaged, ..due.clone() }, now()), Asks::PassedOver);
        // Taken by a clock that was a year ahead.
        let mut ahead = due;
        ahead.base.started_at = now() + TimeDelta::days(365);
        ahead.base.finished_at = Some(ahead.base.started_at + TimeDelta::hours(1));
        ahead.newest = ahead.base.clone();
        assert!(matches!(asks(minute, &ahead, now()), Asks::Backup { .. }));
    }

    #[test]
    fn nothing_is_asked_for_that_no_drill_measured() {
        let unmeasured = Recovery { pace: None, ..recovery(10, 500, 1) };
        assert_eq!(asks(Duration::from_secs(1), &unmeasured, now()), Asks::Unknown);
    }
}
