//! A month of drills: pure functions.
//!
//! What always holds: a day with no drill has no mark; a day's drills are counted by how they ended, so that one that failed is seen beside ten that passed.

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveTime, Utc};
use farshore_catalog::proof::DayCount;
use farshore_journal::format::certificate::DrillVerdict;

use crate::pages::proof;
use crate::pages::standing::Level;

/// A day.
#[derive(Debug, PartialEq, Eq)]
pub struct Day {
    /// Its number in the month.
    pub number: u32,
    /// Itself, as `2026-11-27`.
    pub date: String,
    /// Whether it is the present one.
    pub is_today: bool,
    /// Whether its drills alone are listed.
    pub is_chosen: bool,
    /// How many drills ended how.
    pub marks: Vec<(Level, u64)>,
    /// The same in words.
    pub said: String,
}

/// A month.
#[derive(Debug, PartialEq, Eq)]
pub struct Month {
    /// As `November 2026`.
    pub title: String,
    /// As `2026-11`.
    pub word: String,
    /// Weeks from Monday on; `None` before its first day and after its last.
    pub weeks: Vec<Vec<Option<Day>>>,
    /// The one before.
    pub before: String,
    /// The next one; `None` when that has not begun.
    pub after: Option<String>,
    /// Drills in it.
    pub count: u64,
}

/// The first day of a month that is named as `2026-11`; of the present one when it is not.
pub fn first(word: &str, today: NaiveDate) -> NaiveDate {
    let named = NaiveDate::parse_from_str(&format!("{word}-01"), "%Y-%m-%d").ok();
    // What was before farshore, or is to come, has none.
    let named = named.filter(|first| (2000..=today.year()).contains(&first.year()) && *first <= today);
    named.or_else(|| today.with_day(1)).unwrap_or(today)
}

/// From when to when a month is.
pub fn span(first: NaiveDate) -> (DateTime<Utc>, DateTime<Utc>) {
    let next = first.checked_add_months(Months::new(1)).unwrap_or(NaiveDate::MAX);
    (midnight(first), midnight(next))
}

/// When a day begins.
pub fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// The month that begins with `first`.
pub fn month(first: NaiveDate, today: NaiveDate, chosen: Option<NaiveDate>, drills: &[DayCount]) -> Month {
    let (from, until) = span(first);
    let mut weeks: Vec<Vec<Option<Day>>> = Vec::new();
    let mut week: Vec<Option<Day>> = (0..first.weekday().num_days_from_monday()).map(|_| None).collect();
    let mut day = first;
    while midnight(day) < until {
        week.push(Some(of(day, today, chosen, drills)));
        if week.len() == 7 {
            weeks.push(std::mem::take(&mut week));
        }
        let Some(next) = day.checked_add_days(Days::new(1)) else { break };
        day = next;
    }
    if !week.is_empty() {
        week.resize_with(7, || None);
        weeks.push(week);
    }
    let word = |day: NaiveDate| day.format("%Y-%m").to_string();
    let next = first.checked_add_months(Months::new(1)).filter(|next| *next <= today);
    Month {
        title: first.format("%B %Y").to_string(),
        word: word(first),
        weeks,
        before: word(first.checked_sub_months(Months::new(1)).unwrap_or(first)),
        after: next.map(word),
        count: drills.iter().filter(|one| from <= one.day && one.day < until).map(|one| one.count).sum(),
    }
}

fn of(day: NaiveDate, today: NaiveDate, chosen: Option<NaiveDate>, drills: &[DayCount]) -> Day {
    let ended = |verdict: DrillVerdict| -> u64 {
        drills
            .iter()
            .filter(|one| one.day == midnight(day) && one.verdict == verdict)
            .map(|one| one.count)
            .sum()
    };
    // The worst first.
    let counted = [DrillVerdict::Failed, DrillVerdict::Breached, DrillVerdict::Passed]
        .map(|verdict| (verdict, ended(verdict)));
    let there = || counted.iter().filter(|(_, count)| *count > 0);
    let said: Vec<String> =
        there().map(|(verdict, count)| format!("{count} {}", proof::verdict(*verdict))).collect();
    Day {
        number: day.day(),
        date: day.to_string(),
        is_today: day == today,
        is_chosen: Some(day) == chosen,
        marks: there().map(|(verdict, count)| (proof::level(*verdict), *count)).collect(),
        said: said.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn drills(day: &str, verdict: DrillVerdict, count: u64) -> DayCount {
        DayCount { day: midnight(date(day)), verdict, count }
    }

    #[test]
    fn every_day_of_a_month_stands_in_its_week_and_what_failed_is_seen_beside_what_passed() {
        use DrillVerdict::{Failed, Passed};
        let drills = [
            drills("2026-11-01", Passed, 1),
            drills("2026-11-27", Failed, 1),
            drills("2026-11-27", Passed, 2),
            drills("2026-10-31", Failed, 5),
        ];
        let today = date("2026-11-28");
        let november = month(first("2026-11", today), today, Some(date("2026-11-27")), &drills);
        assert_eq!((november.title.as_str(), november.count, november.weeks.len()), ("November 2026", 4, 6));
        assert_eq!((november.before.as_str(), november.after), ("2026-10", None));
        // It began on a Sunday.
        assert!(november.weeks[0][..6].iter().all(Option::is_none));
        let days: Vec<&Day> = november.weeks.iter().flatten().flatten().collect();
        assert_eq!(days.iter().map(|day| day.number).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
        assert!(november.weeks.iter().all(|week| week.len() == 7));
        assert_eq!(days[26].marks, [(Level::Unprotected, 1), (Level::Protected, 2)]);
        assert_eq!((days[26].said.as_str(), days[26].is_chosen), ("1 failed, 2 passed", true));
        assert_eq!(days.iter().filter(|day| day.marks.is_empty()).count(), 28);
        assert_eq!(days.iter().filter(|day| day.is_today).count(), 1);
    }

    #[test]
    fn a_month_that_is_none_or_has_not_begun_is_the_present_one() {
        let today = date("2026-11-28");
        for word in ["", "2026-12", "2027-01", "1969-05", "2026-13", "x", "2026-11-03", "99999-01"] {
            assert_eq!(first(word, today), date("2026-11-01"), "{word}");
        }
        assert_eq!(first("2024-02", today), date("2024-02-01"));
        let leap = month(date("2024-02-01"), today, None, &[]);
        assert_eq!(leap.weeks.iter().flatten().flatten().count(), 29);
        assert_eq!(leap.after.as_deref(), Some("2024-03"));
    }
}
