//! What falls due by a clock becomes a job.
//!
//! What always holds: a due time is answered once, whichever service sees it first; of several that were missed the newest is, once. A schedule that is new
//! asks for nothing at once. While a job of the same kind waits or runs for the database, a due time is left out, and that is said. A clock that is wrong stops no
//! schedule for longer than it is wrong: whose clock is far from the catalog's answers nothing, and a due time that lies ahead, which such a clock
//! left, is taken back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::job::{JobKind, NewJob, Via};
use farshore_catalog::schedule::Schedule;
use farshore_journal::DatabaseName;

use super::spec;
use crate::config::Config;
use crate::config::schedule::{Cron, Schedules};

/// How long the catalog is taken to be the one that was asked last.
const AGAIN: Duration = Duration::from_secs(60);
/// How far two clocks may be from each other, and a due time that was answered ahead of one.
const SKEW: TimeDelta = TimeDelta::hours(1);

/// What is to be done about a due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: it was answered.
    Nothing,
    /// The catalog is to know it first, or its new expression.
    Record,
    /// A job.
    Ask,
    /// It is left out: the one before is not done yet.
    LeaveOut,
    /// What was answered lies ahead: a clock was wrong, and it is taken back.
    Restart,
}

/// The step, from what the catalog knows, the newest due time, the time now by the catalog's clock, from which whoever answers is no further than [`SKEW`], and whether such a job has not ended.
fn step(
    known: Option<&Schedule>,
    (cron, zone): (&str, &str),
    (due, now): (DateTime<Utc>, DateTime<Utc>),
    is_busy: bool,
) -> Step {
    match known {
        None => Step::Record,
        Some(known) if known.due - now > SKEW => Step::Restart,
        Some(known) if known.cron != cron || known.zone != zone => Step::Record,
        Some(known) if known.due >= due => Step::Nothing,
        Some(_) if is_busy => Step::LeaveOut,
        Some(_) => Step::Ask,
    }
}

/// What was answered, as far as this process knows: the catalog is asked only when something new is due.
#[derive(Debug, Default)]
pub(super) struct Answered {
    due: HashMap<(DatabaseName, JobKind), DateTime<Utc>>,
    /// When the catalog was last asked: it may be another one now, which knows nothing.
    asked: Option<Instant>,
    /// When it was last said that a clock is wrong.
    told: Option<Instant>,
}

impl Answered {
    /// Answers what is due now.
    pub(super) async fn answer(
        &mut self,
        config: &Config,
        catalog: &Catalog,
    ) -> farshore_catalog::Result<()> {
        let now = Utc::now();
        let mut due = Vec::new();
        for (name, settings) in &config.databases {
            for (kind, cron) in settings.schedules.all() {
                if let Some(last) = cron.last(settings.schedules.zone, now) {
                    due.push(((name.clone(), kind), (&settings.schedules, cron), last));
                }
            }
        }
        let is_known = |key, last| self.due.get(key).is_some_and(|known| *known >= last);
        let is_fresh = self.asked.is_some_and(|asked| asked.elapsed() < AGAIN);
        if due.is_empty() || (is_fresh && due.iter().all(|(key, _, last)| is_known(key, *last))) {
            return Ok(());
        }
        let there = catalog.clock().await?;
        let off = there - Utc::now();
        if off.abs() > SKEW {
            self.asked = None;
            if self.told.is_none_or(|told| told.elapsed() >= AGAIN) {
                self.told = Some(Instant::now());
                tracing::error!(
                    seconds = off.num_seconds(),
                    "this machine's clock is far from the catalog's: nothing is asked for by schedule here until one of them is set right"
                );
            }
            return Ok(());
        }
        let known = catalog.schedule_list().await?;
        let busy = catalog.job_busy().await?;
        self.asked = Some(Instant::now());
        for (key, schedule, last) in due {
            let (name, kind) = &key;
            let known = known.iter().find(|known| known.database == *name && known.kind == *kind);
            let is_busy = busy.contains(&(Some(name.clone()), *kind));
            one(catalog, (name, *kind), schedule, (last, there), known, is_busy).await?;
            self.due.insert(key, last);
        }
        Ok(())
    }
}

async fn one(
    catalog: &Catalog,
    (name, kind): (&DatabaseName, JobKind),
    (schedules, cron): (&Schedules, &Cron),
    (due, there): (DateTime<Utc>, DateTime<Utc>),
    known: Option<&Schedule>,
    is_busy: bool,
) -> farshore_catalog::Result<()> {
    let now = Utc::now();
    let zone = schedules.zone.name();
    match step(known, (cron.text(), zone), (due, there), is_busy) {
        Step::Nothing => {}
        Step::Restart => {
            if let Some(known) = known
                && catalog.schedule_restart(known, due, now).await?
            {
                tracing::error!(database = %name, kind = %kind, answered = %known.due, "a clock was far ahead when this was last due: it goes on from now");
            }
        }
        Step::Record => {
            let schedule = Schedule {
                database: name.clone(),
                kind,
                cron: cron.text().to_owned(),
                zone: zone.to_owned(),
                due,
                job: None,
            };
            catalog.schedule_put(&schedule, now).await?;
        }
        Step::Ask => {
            let job = job(name, kind, cron);
            if catalog.schedule_answer((name, kind, due), Some(&job), now).await? {
                tracing::info!(database = %name, kind = %kind, job = %job.id, due = %due, "due by schedule");
            }
        }
        Step::LeaveOut => {
            if catalog.schedule_answer((name, kind, due), None, now).await? {
                tracing::warn!(database = %name, kind = %kind, due = %due, "left out: the one before waits or runs still");
            }
        }
    }
    Ok(())
}

fn job(name: &DatabaseName, kind: JobKind, cron: &Cron) -> NewJob {
    let asked = match kind {
        JobKind::Backup => spec::asked(kind, Some(name), &spec::Backup::default()),
        JobKind::Drill => spec::asked(kind, Some(name), &spec::Drill::default()),
        JobKind::Expire => spec::asked(kind, Some(name), &spec::Expire {}),
        JobKind::Compare => spec::asked(kind, Some(name), &spec::Compare::default()),
        _ => spec::asked(kind, Some(name), &spec::Verify {}),
    };
    NewJob { asked_by: cron.text().to_owned(), via: Via::Schedule, ..asked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_due_time_is_answered_once_and_a_new_schedule_asks_for_nothing_at_once() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let known = Schedule {
            database: "orders".parse().unwrap(),
            kind: JobKind::Backup,
            cron: "0 2 * * *".to_owned(),
            zone: "UTC".to_owned(),
            due: at("2026-07-01T02:00:00Z"),
            job: None,
        };
        let same = ("0 2 * * *", "UTC");
        let (next, now) = (at("2026-07-02T02:00:00Z"), at("2026-07-02T02:00:01Z"));
        let asks = |known, same, due, is_busy| step(known, same, (due, now), is_busy);
        assert_eq!(asks(None, same, next, false), Step::Record);
        assert_eq!(asks(Some(&known), ("0 3 * * *", "UTC"), next, false), Step::Record);
        assert_eq!(asks(Some(&known), ("0 2 * * *", "Europe/Berlin"), next, false), Step::Record);
        assert_eq!(asks(Some(&known), same, known.due, false), Step::Nothing);
        assert_eq!(asks(Some(&known), same, next, false), Step::Ask);
        assert_eq!(asks(Some(&known), same, next, true), Step::LeaveOut);
        // A clock that went back asks for nothing again.
        assert_eq!(asks(Some(&known), same, at("2026-06-30T02:00:00Z"), false), Step::Nothing);
        let ahead = |due: &str| Schedule { due: at(due), ..known.clone() };
        let (years, minutes) = (ahead("2031-01-01T02:00:00Z"), ahead("2026-07-02T02:59:00Z"));
        assert_eq!(asks(Some(&years), same, next, true), Step::Restart);
        assert_eq!(asks(Some(&minutes), same, next, false), Step::Nothing);
    }
}
