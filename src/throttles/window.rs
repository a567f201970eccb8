//! The hours of a rule: days and times of the day, in a zone.
//!
//! What always holds: the wall clock of the zone decides. Hours that a change of the clock leaves out are not there on that day, and those
//! that come twice are there twice. Hours over midnight belong to the day that they begin on.

use std::fmt;

use chrono::{DateTime, Datelike as _, Days, NaiveTime, Utc, Weekday};
use chrono_tz::Tz;

/// All days, by their names from Monday on.
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Mon),
    ("tue", Weekday::Tue),
    ("wed", Weekday::Wed),
    ("thu", Weekday::Thu),
    ("fri", Weekday::Fri),
    ("sat", Weekday::Sat),
    ("sun", Weekday::Sun),
];

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaySet([bool; 7]);

impl DaySet {
    /// Every day.
    pub const ALL: Self = Self([true; 7]);

    /// Reads `mon-fri`, `sat,sun` or `fri-mon,wed`.
    ///
    /// # Errors
    /// In words, when it is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let day = |name: &str| {
            let found = DAYS.iter().position(|(known, _)| *known == name);
            found.ok_or_else(|| format!("`{name}` is no day"))
        };
        let mut days = [false; 7];
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut at, last) = (day(first)?, day(last)?);
            days[at] = true;
            while at != last {
                at = (at + 1) % 7;
                days[at] = true;
            }
        }
        Ok(Self(days))
    }

    fn has(self, day: Weekday) -> bool {
        self.0[day.num_days_from_monday() as usize]
    }
}

impl fmt::Display for DaySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = DAYS.iter().filter(|(_, day)| self.has(*day)).map(|(name, _)| *name).collect();
        f.write_str(&names.join(","))
    }
}

/// Times of the day; from a time to an earlier or the same one they go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: NaiveTime,
    to: NaiveTime,
}

impl Hours {
    /// Reads `08:00-18:00`; `24:00` is the end of a day.
    ///
    /// # Errors
    /// In words, when it is no such span.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "not hours of a day".to_owned();
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| {
            let plain = text.len() == 5 && text.is_ascii();
            plain.then(|| NaiveTime::parse_from_str(text, "%H:%M").ok()).flatten().ok_or_else(wrong)
        };
        let to = if to == "24:00" { NaiveTime::MIN } else { time(to)? };
        Ok(Self { from: time(from)?, to })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Midnight is the end of a day here, not its begin.
        let to =
            if self.to == NaiveTime::MIN { "24:00".to_owned() } else { self.to.format("%H:%M").to_string() };
        write!(f, "{}-{to}", self.from.format("%H:%M"))
    }
}

/// When a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// On which days.
    pub days: DaySet,
    /// At which times; `None`: all day.
    pub hours: Option<Hours>,
    /// By which clock.
    pub zone: Tz,
}

impl Window {
    /// Whether a moment lies in it.
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        let there = now.with_timezone(&self.zone);
        let (today, time) = (there.weekday(), there.time());
        let Some(Hours { from, to }) = self.hours else { return self.days.has(today) };
        if from < to {
            return self.days.has(today) && from <= time && time < to;
        }
        // The hours behind midnight are the evening's before, whatever the offset was then.
        let yesterday = there.date_naive().checked_sub_days(Days::new(1)).map(|day| day.weekday());
        (self.days.has(today) && from <= time)
            || (yesterday.is_some_and(|day| self.days.has(day)) && time < to)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hours, self.days == DaySet::ALL) {
            (None, true) => f.write_str("always"),
            (None, false) => write!(f, "{} {}", self.days, self.zone),
            (Some(hours), true) => write!(f, "{hours} {}", self.zone),
            (Some(hours), false) => write!(f, "{} {hours} {}", self.days, self.zone),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use chrono_tz::Europe::Berlin;

    use super::*;

    fn window(days: &str, hours: &str) -> Window {
        Window { days: DaySet::parse(days).unwrap(), hours: Some(Hours::parse(hours).unwrap()), zone: Berlin }
    }

    fn holds(window: &Window, at: &str) -> bool {
        window.holds(at.parse().unwrap())
    }

    #[test]
    fn a_window_is_of_the_wall_clock_of_its_zone() {
        let office = window("mon-fri", "08:00-18:00");
        for (case, at, inside) in [
            ("Wednesday 07:59:59 in summer", "2026-07-01T05:59:59Z", false),
            ("Wednesday 08:00 in summer", "2026-07-01T06:00:00Z", true),
            ("Wednesday 17:59:59.9 in summer", "2026-07-01T15:59:59.900Z", true),
            ("Wednesday 18:00 in summer", "2026-07-01T16:00:00Z", false),
            ("Wednesday 07:30 in winter", "2026-01-07T06:30:00Z", false),
            ("Wednesday 08:00 in winter", "2026-01-07T07:00:00Z", true),
            ("Saturday", "2026-07-04T10:00:00Z", false),
        ] {
            assert_eq!(holds(&office, at), inside, "{case}");
        }
        assert_eq!(office.to_string(), "mon,tue,wed,thu,fri 08:00-18:00 Europe/Berlin");
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_they_begin_on() {
        let night = window("fri", "22:00-06:00");
        for (case, at, inside) in [
            ("Friday 05:00", "2026-07-03T03:00:00Z", false),
            ("Friday 23:00", "2026-07-03T21:00:00Z", true),
            ("Saturday 05:59", "2026-07-04T03:59:00Z", true),
            ("Saturday 06:00", "2026-07-04T04:00:00Z", false),
            ("Saturday 23:00", "2026-07-04T21:00:00Z", false),
        ] {
            assert_eq!(holds(&night, at), inside, "{case}");
        }
        let evening = window("sun", "20:00-24:00");
        assert!(holds(&evening, "2026-07-05T21:59:59Z") && !holds(&evening, "2026-07-05T22:00:00Z"));
        let all_day = window("sun", "00:00-24:00");
        assert!(holds(&all_day, "2026-07-04T22:00:00Z") && !holds(&all_day, "2026-07-05T22:00:00Z"));
    }

    #[test]
    fn hours_that_a_change_of_the_clock_leaves_out_or_doubles_are_there_as_the_clock_shows_them() {
        let minutes = |window: &Window, from: &str| {
            let from: DateTime<Utc> = from.parse().unwrap();
            (0..24 * 60).filter(|minute| window.holds(from + TimeDelta::minutes(*minute))).count()
        };
        let early = window("mon-sun", "02:00-03:00");
        assert_eq!(minutes(&early, "2026-03-28T12:00:00Z"), 0, "the clock goes from 2 to 3");
        assert_eq!(minutes(&early, "2026-10-24T12:00:00Z"), 120, "it is between 2 and 3 twice");
        assert_eq!(minutes(&early, "2026-07-01T12:00:00Z"), 60);
        let night = window("sat", "22:00-06:00");
        assert_eq!(minutes(&night, "2026-03-28T12:00:00Z"), 7 * 60);
        assert_eq!(minutes(&night, "2026-10-24T12:00:00Z"), 9 * 60);
    }

    #[test]
    fn days_and_hours_are_read_strictly() {
        assert_eq!(DaySet::parse("fri-mon").unwrap().to_string(), "mon,fri,sat,sun");
        for wrong in ["", "monday", "mon-", "mon,,tue", "Mon", "mon - fri"] {
            assert!(DaySet::parse(wrong).is_err(), "{wrong}");
        }
        for said in ["08:00-18:00", "22:00-06:00", "00:00-24:00"] {
            assert_eq!(Hours::parse(said).unwrap().to_string(), said);
        }
        for wrong in
            ["", "8-18", "8:00-18:00", "08:00", "08:00-25:00", "24:00-08:00", "08:00 - 18:00", "08:00-18:60"]
        {
            assert!(Hours::parse(wrong).is_err(), "{wrong}");
        }
    }
}
