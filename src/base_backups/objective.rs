//! Whether the next base backup is due for `rto`: a pure decision over what a recovery is reckoned to take.
//!
//! What always holds: nothing is due that no drill measured; one is due only where it makes recovery faster, which is by the replay alone; and a tenth of the time at most
//! goes into base backups that are taken for this.

use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::recovery::Recovery;

/// Of the objective, at which one is due: the backup takes time itself, and log comes meanwhile.
const DUE: (u32, u32) = (4, 5);
/// Of the objective, what the replay must take at least: less is not worth a base backup.
const WORTH: u32 = 10;
/// How many times as long as it took nothing is due behind a base backup.
const REST: i32 = 10;

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
    /// More than base backups can do: a recovery takes so long without any log.
    More {
        /// How long.
        rest: Duration,
        /// The objective.
        of: Duration,
    },
}

/// What `rto` asks for.
pub fn asks(rto: Duration, recovery: &Recovery, now: DateTime<Utc>) -> Asks {
    let (Some(takes), Some(replay), Some(pace)) = (recovery.whole(), recovery.replay(), recovery.pace) else {
        return Asks::Unknown;
    };
    let bound = rto.saturating_mul(DUE.0) / DUE.1;
    if takes < bound {
        return Asks::Nothing;
    }
    if replay < rto / WORTH {
        return if pace.rest >= bound { Asks::More { rest: pace.rest, of: rto } } else { Asks::Nothing };
    }
    let base = &recovery.base;
    let took = base.finished_at.map_or_else(chrono::TimeDelta::zero, |ended| ended - base.started_at);
    let rests = now - base.started_at < took.max(chrono::TimeDelta::zero()) * REST;
    if rests { Asks::Nothing } else { Asks::Backup { takes, of: rto } }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone as _};
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
        Recovery {
            store: "main".to_owned(),
            base: Backup {
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
            },
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
            ("all of it without log", 48, 5, 1, Asks::More { rest: Duration::from_secs(48), of: minute }),
            ("log besides", 55, 20, 1, due(75)),
            ("a backup takes long, and the last one is not long ago", 10, 50, 361, Asks::Nothing),
            ("the same, and it is", 10, 50, 360, due(60)),
        ] {
            assert_eq!(asks(minute, &recovery(rest, mib, took), now()), expected, "{case}");
        }
    }

    #[test]
    fn nothing_is_asked_for_that_no_drill_measured() {
        let unmeasured = Recovery { pace: None, ..recovery(10, 500, 1) };
        assert_eq!(asks(Duration::from_secs(1), &unmeasured, now()), Asks::Unknown);
    }
}
