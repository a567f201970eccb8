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

/// The same, as small as a row of a list has it: its line, and what there is none of.
#[derive(Debug, PartialEq)]
pub struct Spark {
    /// The line, as the data of a path.
    pub line: String,
    /// Stretches of which nothing is known: left edge and width.
    pub unknown: Vec<(i64, i64)>,
    /// How high the objective lies, where there is one.
    pub objective: Option<String>,
}

/// What was known at each place of a picture: `None` where nobody looked, or somebody who looked found nobody who knew.
struct Places {
    worst: Vec<Option<u64>>,
    /// Minutes that they stand for.
    span: i64,
}

impl Places {
    fn of(from: DateTime<Utc>, now: DateTime<Utc>, kept: &[Minute]) -> Self {
        let span = (now - from).num_minutes().max(1);
        let places = span.min(WIDTH);
        let mut looked: Vec<Option<Option<u64>>> = vec![None; usize::try_from(places).unwrap_or(0)];
        for minute in kept {
            let into = (minute.at - from).num_minutes();
            let Ok(place) = usize::try_from(into * places / span) else { continue };
            if let Some(one) = looked.get_mut(place) {
                // Known only where it is known at every look.
                let known = minute.worst.filter(|_| !minute.unknown);
                *one = Some(match *one {
                    None => known,
                    Some(former) => former.zip(known).map(|(a, b)| a.max(b)),
                });
            }
        }
        Self { worst: looked.into_iter().map(Option::flatten).collect(), span }
    }

    fn x(&self, place: usize) -> i64 {
        i64::try_from(place).unwrap_or(0) * WIDTH / i64::try_from(self.worst.len()).unwrap_or(1).max(1)
    }

    /// Runs of places of which something is known, or nothing: where each begins and ends.
    fn runs(&self) -> impl Iterator<Item = (usize, &[Option<u64>])> {
        self.worst.chunk_by(|a, b| a.is_some() == b.is_some()).scan(0, |at, run| {
            let begun = *at;
            *at += run.len();
            Some((begun, run))
        })
    }

    fn unknown(&self) -> Vec<(i64, i64)> {
        let dark = self.runs().filter(|(_, run)| run.first().is_some_and(Option::is_none));
        dark.map(|(begun, run)| (self.x(begun), self.x(begun + run.len()) - self.x(begun))).collect()
    }

    /// The steps of each run of which something is known, as a path goes on with them from its first height: equal ones are one.
    fn steps(&self, height: &Height) -> Vec<Steps> {
        let known = self.runs().filter(|(_, run)| run.first().is_some_and(Option::is_some));
        let mut all = Vec::new();
        for (begun, run) in known {
            let (mut first, mut steps, mut place) = (String::new(), String::new(), begun);
            let heights = run.iter().map(|value| height.of(value.unwrap_or(0)));
            for (at, same) in heights.collect::<Vec<_>>().chunk_by(|a, b| a == b).enumerate() {
                place += same.len();
                let y = same.first().map_or("", String::as_str);
                match at {
                    0 => y.clone_into(&mut first),
                    _ => {
                        let _ = write!(steps, "V{y}");
                    }
                }
                let _ = write!(steps, "H{}", self.x(place));
            }
            all.push((self.x(begun), first, steps));
        }
        all
    }
}

/// Where a run begins, how high, and how a path goes on from there.
type Steps = (i64, String, String);

/// How high what lies.
struct Height {
    top: f64,
    digits: usize,
}

impl Height {
    fn new(worst: Option<u64>, objective: Option<f64>, digits: usize) -> Self {
        let highest = worst.map_or(0.0, seconds).max(objective.unwrap_or(0.0));
        Self { top: (highest * 1.25).max(1.0), digits }
    }

    fn of(&self, millis: u64) -> String {
        let at = self.at(seconds(millis));
        match self.digits {
            // A whole number is written in a fraction of the time, and a page has tens of thousands of them.
            #[allow(clippy::cast_possible_truncation)] // between 0 and 100
            0 => (at.round() as i64).to_string(),
            digits => format!("{at:.digits$}"),
        }
    }

    fn at(&self, value: f64) -> f64 {
        HEIGHT - (value / self.top * HEIGHT).clamp(0.0, HEIGHT)
    }
}

fn seconds(millis: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // an age
    let seconds = millis as f64 / 1000.0;
    seconds
}

fn line(steps: &[Steps]) -> String {
    steps.iter().map(|(x, y, steps)| format!("M{x} {y}{steps}")).collect()
}

/// The line of the minutes since `from`, for a row of a list: a whole page of them is sent every two seconds, so that it says no more than is seen.
pub fn spark(from: DateTime<Utc>, now: DateTime<Utc>, kept: &[Minute], objective: Option<f64>) -> Spark {
    let places = Places::of(from, now, kept);
    // A hundredth of its height is a sixth of a pixel.
    let height = Height::new(kept.iter().filter_map(|minute| minute.worst).max(), objective, 0);
    Spark {
        line: line(&places.steps(&height)),
        unknown: places.unknown(),
        objective: objective.map(|objective| format!("{:.0}", height.at(objective))),
    }
}

/// The picture of the minutes since `from`.
pub fn chart(from: DateTime<Utc>, now: DateTime<Utc>, kept: &[Minute], objective: Option<f64>) -> Chart {
    let places = Places::of(from, now, kept);
    let worst = kept.iter().filter_map(|minute| minute.worst).max();
    let height = Height::new(worst, objective, 1);
    let steps = places.steps(&height);
    let over = objective.map(|objective| {
        let over = |minute: &&Minute| minute.worst.is_some_and(|worst| seconds(worst) > objective);
        kept.iter().filter(over).count()
    });
    let minutes = |count: usize| format!("{count} min");
    let dark = i64::try_from(places.worst.iter().filter(|one| one.is_none()).count()).unwrap_or(0);
    let dark = dark * places.span / i64::try_from(places.worst.len()).unwrap_or(1).max(1);
    Chart {
        line: line(&steps),
        area: steps.iter().map(|(x, y, steps)| format!("M{x} {HEIGHT}V{y}{steps}V{HEIGHT}Z")).collect(),
        unknown: places.unknown(),
        objective: objective.map(|objective| format!("{:.1}", height.at(objective))),
        objective_at: objective.map(|objective| format!("{:.1}%", height.at(objective))),
        top: words::seconds(height.top.round()),
        worst: worst.map(|worst| words::seconds(seconds(worst))),
        breached: over.map(minutes),
        dark: minutes(usize::try_from(dark).unwrap_or(0)),
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
        assert_eq!(some.line, "M10 100.0H11V20.0H12");
        assert_eq!((some.worst.as_deref(), some.breached.as_deref()), (Some("45 s"), Some("1 min")));
        assert_eq!(some.area, "M10 100V100.0H11V20.0H12V100Z");
        let small = spark(at(0), at(1440), &kept, Some(30.0));
        assert_eq!(
            (small.line.as_str(), small.unknown.as_slice()),
            ("M10 100H11V20H12", some.unknown.as_slice())
        );
        assert_eq!(small.objective.as_deref(), Some("47"));
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
        assert!(two_days.line.contains("H3V20.0H4V100.0"), "{}", two_days.line);
        assert_eq!(two_days.unknown, [(50, 1)]);
        assert!(two_days.objective.is_none() && two_days.breached.is_none());
    }
}
