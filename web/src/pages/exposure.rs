//! How the exposure went, as a picture: pure functions over the minutes that the catalog keeps.
//!
//! What always holds: a minute that nobody looked at, or at which nobody knew, is drawn as not known, and never as a line at 0. Where several
//! minutes share a place, the worst is drawn.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::exposure::Minute;

use crate::pages::words;

/// How wide and high the drawing's own coordinates are.
const WIDTH: i64 = 1440;
const HEIGHT: f64 = 100.0;

/// A picture of some hours.
#[derive(Debug, PartialEq)]
pub struct Chart {
    /// The line, as the data of a path.
    pub line: String,
    /// The area beneath it.
    pub area: String,
    /// Stretches of which nothing is known: left edge and width.
    pub unknown: Vec<(i64, i64)>,
    /// How high the objective lies, where there is one.
    pub objective: Option<String>,
    /// The same in percent, for its label.
    pub objective_at: Option<String>,
    /// What the upper edge stands for.
    pub top: String,
    /// The worst that was seen; `None` when nothing was.
    pub worst: Option<String>,
    /// For how long more than the objective was not stored.
    pub breached: Option<String>,
    /// For how long nothing is known.
    pub dark: String,
    /// Whether anything at all was kept.
    pub is_kept: bool,
    /// Each hour in words, newest first: when, the worst, minutes of which nothing is known.
    pub hours: Vec<(String, String, i64)>,
}

/// The picture of the minutes since `from`.
pub fn chart(from: DateTime<Utc>, now: DateTime<Utc>, kept: &[Minute], objective: Option<f64>) -> Chart {
    let span = (now - from).num_minutes().max(1);
    let places = span.min(WIDTH);
    let mut worst_at: Vec<Option<Option<u64>>> = vec![None; usize::try_from(places).unwrap_or(0)];
    for minute in kept {
        let into = (minute.at - from).num_minutes();
        let Ok(place) = usize::try_from(into * places / span) else { continue };
        if let Some(one) = worst_at.get_mut(place) {
            // Known only where it is known at every look.
            let known = minute.worst.filter(|_| !minute.unknown);
            *one = Some(match *one {
                None => known,
                Some(former) => former.zip(known).map(|(a, b)| a.max(b)),
            });
        }
    }
    let worst = kept.iter().filter_map(|minute| minute.worst).max();
    let seconds = |millis: u64| {
        #[allow(clippy::cast_precision_loss)] // an age
        let seconds = millis as f64 / 1000.0;
        seconds
    };
    let highest = worst.map_or(0.0, seconds).max(objective.unwrap_or(0.0));
    let top = (highest * 1.25).max(1.0);
    let y = |value: f64| HEIGHT - (value / top * HEIGHT).clamp(0.0, HEIGHT);
    let (mut line, mut area, mut unknown) = (String::new(), String::new(), Vec::new());
    let x = |place: usize| i64::try_from(place).unwrap_or(0) * WIDTH / places;
    let mut place = 0;
    while place < worst_at.len() {
        let known = |at: usize| worst_at.get(at).copied().flatten().flatten();
        let begun = place;
        match known(place) {
            Some(_) => {
                let mut points = String::new();
                while let Some(value) = known(place) {
                    let at = y(seconds(value));
                    let _ = write!(points, "{} {at:.1} {} {at:.1} ", x(place), x(place + 1));
                    place += 1;
                }
                let _ = write!(line, "M{points}");
                let _ = write!(area, "M{} {HEIGHT} L{points}{} {HEIGHT}Z", x(begun), x(place));
            }
            None => {
                while place < worst_at.len() && known(place).is_none() {
                    place += 1;
                }
                unknown.push((x(begun), x(place) - x(begun)));
            }
        }
    }
    let over = objective.map(|objective| {
        let over = |minute: &&Minute| minute.worst.is_some_and(|worst| seconds(worst) > objective);
        kept.iter().filter(over).count()
    });
    let minutes = |count: usize| format!("{count} min");
    let dark = worst_at.iter().filter(|one| one.flatten().is_none()).count();
    let dark = usize::try_from(i64::try_from(dark).unwrap_or(0) * span / places).unwrap_or(0);
    Chart {
        line,
        area,
        unknown,
        objective: objective.map(|objective| format!("{:.1}", y(objective))),
        objective_at: objective.map(|objective| format!("{:.1}%", y(objective))),
        top: words::seconds(top.round()),
        worst: worst.map(|worst| words::seconds(seconds(worst))),
        breached: over.map(minutes),
        dark: minutes(dark),
        is_kept: !kept.is_empty(),
        hours: hours(from, now, kept),
    }
}

fn hours(from: DateTime<Utc>, now: DateTime<Utc>, kept: &[Minute]) -> Vec<(String, String, i64)> {
    let hour = TimeDelta::hours(1);
    let mut all = Vec::new();
    let mut end = now;
    while end > from && all.len() < 24 {
        let begin = (end - hour).max(from);
        let of = || kept.iter().filter(|minute| begin <= minute.at && minute.at < end);
        let worst = of().filter_map(|minute| minute.worst).max();
        #[allow(clippy::cast_precision_loss)] // an age
        let worst =
            worst.map_or_else(|| "not known".to_owned(), |worst| words::seconds(worst as f64 / 1000.0));
        let known = of().filter(|minute| !minute.unknown).count();
        let dark = (end - begin).num_minutes() - i64::try_from(known).unwrap_or(0);
        all.push((format!("{} to {}", begin.format("%m-%d %H:%M"), end.format("%H:%M")), worst, dark.max(0)));
        end = begin;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    #[test]
    fn what_nobody_looked_at_or_knew_is_drawn_as_not_known_and_never_as_a_line() {
        let of = |minute: i64, worst: Option<u64>, unknown| Minute::of(at(minute), worst, unknown);
        let empty = chart(at(0), at(1440), &[], Some(30.0));
        assert_eq!((empty.line.as_str(), empty.unknown.as_slice()), ("", [(0, 1440)].as_slice()));
        assert_eq!((empty.worst, empty.is_kept, empty.dark.as_str()), (None, false, "1440 min"));
        let kept =
            [of(10, Some(0), false), of(11, Some(45_000), false), of(12, None, true), of(13, Some(5), true)];
        let some = chart(at(0), at(1440), &kept, Some(30.0));
        assert_eq!(some.unknown, [(0, 10), (12, 1428)]);
        assert_eq!(some.line, "M10 100.0 11 100.0 11 20.0 12 20.0 ");
        assert_eq!((some.worst.as_deref(), some.breached.as_deref()), (Some("45 s"), Some("1 min")));
        assert_eq!(some.hours.len(), 24);
        assert_eq!(some.hours[23], ("01-01 00:00 to 01:00".to_owned(), "45 s".to_owned(), 58));
        assert_eq!(some.hours[0].1, "not known");
    }

    #[test]
    fn where_minutes_share_a_place_the_worst_is_drawn_and_a_doubt_stays_one() {
        let kept: Vec<Minute> = (0..2880)
            .map(|minute| Minute::of(at(minute), Some(u64::from(minute == 7) * 9000), minute == 100))
            .collect();
        let two_days = chart(at(0), at(2880), &kept, None);
        assert!(two_days.line.contains("3 20.0 4 20.0"), "{}", two_days.line);
        assert_eq!(two_days.unknown, [(50, 1)]);
        assert!(two_days.objective.is_none() && two_days.breached.is_none());
    }
}
