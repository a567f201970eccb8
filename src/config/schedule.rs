//! When something falls due by a clock: cron expressions, in a zone that is named or UTC.
//!
//! What always holds: five fields and nothing else; an expression that is never due is refused. Over changes of a zone's offset: a time
//! that the zone leaves out is due when it has passed, and one that it has twice is due once.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};

use farshore_catalog::job::JobKind;
use toml::Spanned;

use super::diagnose::ConfigProblem;
use super::{Judge, document};

/// Due times that are said ahead.
const FEW: usize = 5;

/// A cron expression.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    parsed: croner::Cron,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl Cron {
    /// Reads one.
    ///
    /// # Errors
    /// In words, when it is none or never due.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let parsed = parser.parse(text).map_err(|why| format!("not a cron expression: {why}"))?;
        let cron = Self { text: text.to_owned(), parsed };
        match cron.next(Tz::UTC, Utc::now()) {
            Some(_) => Ok(cron),
            None => Err("it is never due".to_owned()),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The newest due time at or before `now`; `None` where it never was.
    pub fn last(&self, zone: Tz, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let due = self.parsed.find_previous_occurrence(&now.with_timezone(&zone), true).ok()?;
        Some(due.to_utc()).filter(|due| *due <= now)
    }

    /// The next due time behind `now`.
    pub fn next(&self, zone: Tz, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let due = self.parsed.find_next_occurrence(&now.with_timezone(&zone), false).ok()?;
        Some(due.to_utc()).filter(|due| *due > now)
    }

    /// How long lies between the last due time and the next.
    pub fn period(&self, zone: Tz, now: DateTime<Utc>) -> Option<TimeDelta> {
        Some(self.next(zone, now)? - self.last(zone, now)?)
    }
}

/// What falls due for one database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedules {
    /// Base backups.
    pub backup: Option<Cron>,
    /// Verifications.
    pub verify: Option<Cron>,
    /// Drills.
    pub drill: Option<Cron>,
    /// Expiry.
    pub expire: Option<Cron>,
    /// Comparisons of each standby whose address is known.
    pub compare: Option<Cron>,
    /// In which zone.
    pub zone: Tz,
}

impl Schedules {
    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = (JobKind, &Cron)> {
        let all = [
            (JobKind::Backup, &self.backup),
            (JobKind::Verify, &self.verify),
            (JobKind::Drill, &self.drill),
            (JobKind::Expire, &self.expire),
            (JobKind::Compare, &self.compare),
        ];
        all.into_iter().filter_map(|(kind, cron)| Some((kind, cron.as_ref()?)))
    }
}

/// The next few due times behind `now`, of an expression in a zone, the soonest first; none where either cannot be read.
pub fn next_few(cron: &str, zone: &str, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let (Ok(cron), Ok(zone)) = (Cron::parse(cron), zone.parse::<Tz>()) else { return Vec::new() };
    let mut due = now;
    std::iter::from_fn(|| cron.next(zone, due).inspect(|next| due = *next)).take(FEW).collect()
}

impl Judge<'_> {
    /// `kept`: whether a rule says what expiry keeps.
    pub(super) fn schedules(
        &self,
        written: Option<&document::Schedule>,
        kept: bool,
    ) -> Result<Schedules, ConfigProblem> {
        let Some(written) = written else { return Ok(Schedules::default()) };
        let cron = |text: &Option<Spanned<String>>| {
            let read = text.as_ref().map(|text| {
                Cron::parse(text.get_ref()).map_err(|why| {
                    self.problem(text.span(), why).hint("minute hour day month weekday, as in \"0 2 * * *\"")
                })
            });
            read.transpose()
        };
        let zone = written.zone.as_ref().map(|zone| {
            zone.get_ref().parse().map_err(|_| {
                self.problem(zone.span(), "not a time zone").hint("zone = \"Europe/Berlin\"; UTC without it")
            })
        });
        if let Some(expire) = &written.expire {
            if !kept {
                return Err(self
                    .problem(expire.span(), "nothing of it would ever expire: no rule says what is kept")
                    .hint("add a [databases.NAME.retention] table with a `window`"));
            }
            if !self.may_expire {
                return Err(self
                    .problem(expire.span(), "no service would do it: this one may not delete")
                    .hint("write `expire = true` in [service], with a credential that can delete; or leave it to a timer with `farshore backup expire`"));
            }
        }
        Ok(Schedules {
            backup: cron(&written.backup)?,
            verify: cron(&written.verify)?,
            drill: cron(&written.drill)?,
            expire: cron(&written.expire)?,
            compare: cron(&written.compare)?,
            zone: zone.transpose()?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::Europe::Berlin;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_due_times_follow_each_other_and_what_cannot_be_read_has_none() {
        let next = next_few("0 2 * * *", "Europe/Berlin", at("2026-10-24T12:00:00Z"));
        // The clock goes back in the night of the 25th.
        assert_eq!(next[..2], [at("2026-10-25T00:00:00Z"), at("2026-10-26T01:00:00Z")]);
        assert_eq!(next.len(), FEW);
        assert!(next_few("soon", "UTC", at("2026-10-24T12:00:00Z")).is_empty());
        assert!(next_few("0 2 * * *", "Mars/Olympus", at("2026-10-24T12:00:00Z")).is_empty());
    }

    #[test]
    fn what_is_no_cron_expression_or_never_due_is_refused() {
        for wrong in ["", "nightly", "0 2 * *", "0 0 2 * * *", "61 2 * * *", "0 2 30 2 *", "0 2 * * * 2027"] {
            assert!(Cron::parse(wrong).is_err(), "{wrong}");
        }
        for right in ["0 2 * * *", "*/15 * * * *", "30 2 * * SUN", "0 4 1 * *", "0 3 * * 1-5"] {
            assert_eq!(Cron::parse(right).unwrap().text(), right);
        }
    }

    #[test]
    fn a_due_time_is_the_newest_that_has_come() {
        let cron = Cron::parse("0 2 * * *").unwrap();
        let noon = at("2026-07-01T12:00:00Z");
        assert_eq!(cron.last(Tz::UTC, noon), Some(at("2026-07-01T02:00:00Z")));
        assert_eq!(cron.next(Tz::UTC, noon), Some(at("2026-07-02T02:00:00Z")));
        // In the moment itself it is due, and a moment before it is not.
        assert_eq!(cron.last(Tz::UTC, at("2026-07-02T02:00:00Z")), Some(at("2026-07-02T02:00:00Z")));
        assert_eq!(cron.last(Tz::UTC, at("2026-07-02T01:59:59.999Z")), Some(at("2026-07-01T02:00:00Z")));
        // Two in the morning in Berlin.
        assert_eq!(cron.last(Berlin, noon), Some(at("2026-07-01T00:00:00Z")));
    }

    #[test]
    fn a_night_in_which_the_clock_changes_has_one_due_time() {
        for (cron, nights) in [
            (
                "30 2 * * *",
                [
                    ("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
                    ("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"),
                ],
            ),
            (
                "0 2 * * *",
                [
                    ("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
                    ("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"),
                ],
            ),
        ] {
            let cron = Cron::parse(cron).unwrap();
            for (noon, next_noon) in nights {
                let (mut now, end) = (at(noon), at(next_noon));
                let mut due = Vec::new();
                // As a service looks: each minute for the newest due time.
                while now < end {
                    now += TimeDelta::minutes(1);
                    let last = cron.last(Berlin, now).unwrap();
                    if last > at(noon) && due.last() != Some(&last) {
                        due.push(last);
                    }
                }
                assert_eq!(due.len(), 1, "{} behind {noon}: {due:?}", cron.text());
            }
        }
    }

    #[test]
    fn due_times_only_rise() {
        let cron = Cron::parse("*/7 1-3 * * *").unwrap();
        let (mut now, end) = (at("2026-10-24T20:00:00Z"), at("2026-10-25T06:00:00Z"));
        let mut before = cron.last(Berlin, now).unwrap();
        while now < end {
            now += TimeDelta::seconds(30);
            let last = cron.last(Berlin, now).unwrap();
            assert!(last >= before && last <= now, "{last} behind {before} at {now}");
            before = last;
        }
    }
}
