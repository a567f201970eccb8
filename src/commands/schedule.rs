//! `farshore schedule`: what falls due by a clock, from the configuration, and when it was last answered, from the catalog.
//!
//! What always holds: what was due and not answered is shown as overdue, also while no service runs.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use farshore_catalog::schedule::Schedule;
use farshore_journal::DatabaseName;
use serde::Serialize;

use crate::cli::schedule::ScheduleCommand;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::config::schedule::{Cron, Schedules};
use crate::exit::Exit;
use crate::output::Row;
use crate::wiring;

/// How far ahead of this machine's clock an answered one is called overdue.
const AHEAD: TimeDelta = TimeDelta::hours(1);
/// How long behind its due time an unanswered one is called overdue: services look once a second.
const OVERDUE: TimeDelta = TimeDelta::minutes(1);

/// One schedule, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    kind: &'static str,
    cron: String,
    zone: &'static str,
    next: Option<DateTime<Utc>>,
    /// The newest due time that was answered; null when no service has seen this schedule yet.
    answered: Option<DateTime<Utc>>,
    job: Option<String>,
    /// A due time has come and no service has answered it.
    overdue: bool,
}

impl Shown {
    fn new(
        (database, kind): (&DatabaseName, &'static str),
        (schedules, cron): (&Schedules, &Cron),
        known: Option<&Schedule>,
        now: DateTime<Utc>,
    ) -> Self {
        let last = cron.last(schedules.zone, now);
        let same = known.filter(|known| known.cron == cron.text() && known.zone == schedules.zone.name());
        let overdue = same.zip(last).is_some_and(|(known, last)| {
            // One that lies ahead was answered by a wrong clock: until a service takes it back, nothing is done.
            (known.due < last && now.signed_duration_since(last) > OVERDUE) || known.due - now > AHEAD
        });
        Self {
            database: database.clone(),
            kind,
            cron: cron.text().to_owned(),
            zone: schedules.zone.name(),
            next: cron.next(schedules.zone, now),
            answered: same.map(|known| known.due),
            job: known.and_then(|known| known.job).map(|job| job.to_string()),
            overdue,
        }
    }
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["DATABASE", "KIND", "CRON", "ZONE", "NEXT (UTC)", "ANSWERED (UTC)", "JOB", ""];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let time = |time: Option<DateTime<Utc>>| {
            time.map_or_else(|| "-".to_owned(), |time| zone.show(time, SecondsFormat::Secs))
        };
        vec![
            self.database.to_string(),
            self.kind.to_owned(),
            self.cron.clone(),
            self.zone.to_owned(),
            time(self.next),
            time(self.answered),
            self.job.clone().unwrap_or_else(|| "-".to_owned()),
            if self.overdue { "OVERDUE" } else { "" }.to_owned(),
        ]
    }
}

/// Runs it. Ends with 8 when something is overdue.
///
/// # Errors
/// When the catalog is away.
pub async fn run(context: &mut Context, command: ScheduleCommand) -> anyhow::Result<Exit> {
    let ScheduleCommand::List { database } = command;
    let config = context.config()?;
    let catalog = wiring::catalog(&config).await?;
    let known = catalog.schedule_list().await.map_err(|why| wiring::catalog_away(&why))?;
    let now = Utc::now();
    let mut shown = Vec::new();
    for (name, settings) in commands::databases(&config, database.as_ref())? {
        for (kind, cron) in settings.schedules.all() {
            let known = known.iter().find(|known| known.database == *name && known.kind == kind);
            shown.push(Shown::new((name, kind.word()), (&settings.schedules, cron), known, now));
        }
    }
    context.output.list("farshore.schedule-list/1", &shown)?;
    Ok(if shown.iter().any(|shown| shown.overdue) { Exit::Breached } else { Exit::Done })
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_catalog::job::JobKind;

    #[test]
    fn what_was_due_and_not_answered_is_overdue() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let cron = Cron::parse("0 2 * * *").unwrap();
        let schedules = Schedules { backup: Some(cron.clone()), ..Schedules::default() };
        let database: DatabaseName = "orders".parse().unwrap();
        let known = |due: &str| Schedule {
            database: database.clone(),
            kind: JobKind::Backup,
            cron: "0 2 * * *".to_owned(),
            zone: "UTC".to_owned(),
            due: at(due),
            job: None,
        };
        let shown = |known: Option<&Schedule>, now: &str| {
            Shown::new((&database, "backup"), (&schedules, &cron), known, at(now)).overdue
        };
        let answered = known("2026-07-02T02:00:00Z");
        assert!(!shown(Some(&answered), "2026-07-02T12:00:00Z"));
        assert!(!shown(Some(&answered), "2026-07-03T02:00:30Z"), "services look once a second");
        assert!(shown(Some(&answered), "2026-07-03T02:02:00Z"));
        assert!(!shown(None, "2026-07-03T02:02:00Z"), "no service has seen it: nothing was due yet");
        assert!(
            !shown(Some(&known("2026-07-04T02:00:00Z")), "2026-07-04T01:59:00Z"),
            "a clock a little ahead"
        );
        assert!(shown(Some(&known("2031-07-02T02:00:00Z")), "2026-07-03T02:02:00Z"), "a clock years ahead");
        let mut other = answered;
        other.cron = "0 3 * * *".to_owned();
        assert!(!shown(Some(&other), "2026-07-03T02:02:00Z"));
    }
}
