//! When what falls due by a clock is overdue: pure.
//!
//! What always holds: a schedule is not overdue before its due time came and, behind it, half of the time to the next one has passed, six hours at
//! most: a base backup of many terabytes takes hours, and one that is late by a day is late whatever its schedule.

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::schedule::Schedule;

use crate::config::schedule::Cron;

/// The longest that work may take, or be missing, before it is overdue.
const MOST: TimeDelta = TimeDelta::hours(6);

/// When a schedule's next run becomes overdue, unless work succeeds before. `None` where its expression is one that this version
/// cannot read.
pub fn overdue_at(schedule: &Schedule, last_success: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    let cron = Cron::parse(&schedule.cron).ok()?;
    let zone = schedule.zone.parse().ok()?;
    // A schedule that never succeeded counts from the newest due time that was answered: by a job that is still to succeed, or, for a
    // new one, by asking for nothing.
    let due = match last_success {
        Some(succeeded) => cron.next(zone, succeeded)?,
        None if schedule.job.is_some() => schedule.due,
        None => cron.next(zone, schedule.due)?,
    };
    let period = cron.next(zone, due)? - due;
    Some(due + (period / 2).min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_catalog::job::{JobId, JobKind};

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn work_is_overdue_half_a_period_behind_its_due_time_and_six_hours_at_most() {
        for (cron, zone, answered, job, succeeded, overdue) in [
            (
                "0 2 * * *",
                "UTC",
                "2026-07-01T02:00:00Z",
                true,
                Some("2026-07-01T03:00:00Z"),
                Some("2026-07-02T08:00:00Z"),
            ),
            (
                "*/10 * * * *",
                "UTC",
                "2026-07-01T02:00:00Z",
                true,
                Some("2026-07-01T02:01:00Z"),
                Some("2026-07-01T02:15:00Z"),
            ),
            // Never succeeded: since the due time that a job answered, or the first one behind a new schedule.
            ("0 2 * * *", "UTC", "2026-07-01T02:00:00Z", true, None, Some("2026-07-01T08:00:00Z")),
            ("0 2 * * *", "UTC", "2026-07-01T02:00:00Z", false, None, Some("2026-07-02T08:00:00Z")),
            // Failures in between change nothing: what counts is the last success.
            (
                "0 2 * * *",
                "UTC",
                "2026-07-05T02:00:00Z",
                true,
                Some("2026-07-01T03:00:00Z"),
                Some("2026-07-02T08:00:00Z"),
            ),
            (
                "0 2 * * *",
                "Europe/Berlin",
                "2026-07-01T00:00:00Z",
                true,
                Some("2026-07-01T01:00:00Z"),
                Some("2026-07-02T06:00:00Z"),
            ),
            ("0 2 30 2 *", "UTC", "2026-07-01T02:00:00Z", true, None, None),
            ("0 2 * * *", "Atlantis", "2026-07-01T02:00:00Z", true, None, None),
        ] {
            let schedule = Schedule {
                database: "orders".parse().unwrap(),
                kind: JobKind::Backup,
                cron: cron.to_owned(),
                zone: zone.to_owned(),
                due: at(answered),
                job: job.then(JobId::mint),
            };
            assert_eq!(
                overdue_at(&schedule, succeeded.map(at)),
                overdue.map(at),
                "{cron} {zone} {succeeded:?}"
            );
        }
    }
}
