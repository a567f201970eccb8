//! How long recoveries took over time, against what they may take, as a picture: pure functions.
//!
//! What always holds: a drill whose recovery was not come to its end has no height: it stands on the ground line, in the shape of a failure, and no line leads through it.

use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::proof::Outline;
use farshore_journal::format::certificate::DrillVerdict;

use crate::pages::proof;
use crate::pages::standing::Level;
use crate::pages::timeline::{Axis, Tick, X};
use crate::pages::words;

/// How high the drawing is, and what stays free above and below.
const HEIGHT: f64 = 120.0;
const FREE: f64 = 8.0;
/// How many times as long as the slowest drill took what may be taken is at most drawn.
const FAR: u32 = 5;

/// A drill in the picture.
#[derive(Debug, PartialEq, Eq)]
pub struct Point {
    /// Its id.
    pub id: String,
    /// Where it lies.
    pub x: X,
    /// How high, in pixels from above.
    pub y: String,
    /// Its shape and hue.
    pub level: Level,
    /// It, in words.
    pub said: String,
}

/// A picture of a database's drills.
#[derive(Debug, PartialEq, Eq)]
pub struct Trend {
    /// The database.
    pub database: String,
    /// The drills.
    pub points: Vec<Point>,
    /// The line through those that came to their end, as the data of a path in ten thousandths of the width.
    pub line: String,
    /// How high what may be taken lies, and in words; without a height where it is so far above that all drills would lie on the ground beneath it.
    pub objective: Option<(Option<String>, String)>,
    /// What the upper edge stands for.
    pub top: String,
    /// Times beneath.
    pub ticks: Vec<Tick>,
    /// How long the slowest and the quickest took.
    pub span: Option<(String, String)>,
}

/// The picture of drills, newest first, of one database.
pub fn trend(now: DateTime<Utc>, database: &str, drills: &[Outline], rto: Option<Duration>) -> Trend {
    let oldest = drills.iter().map(|drill| drill.began).min().unwrap_or(now).min(now);
    let room = ((now - oldest) / 20).max(TimeDelta::minutes(10));
    let axis = Axis { from: oldest - room, to: now + room / 2 };
    let objective = rto.or_else(|| drills.iter().find_map(|drill| drill.objective));
    let took = || drills.iter().filter_map(|drill| drill.recovery);
    let slowest = took().max();
    let fits = |objective: Duration| slowest.is_none_or(|slowest| objective <= slowest * FAR);
    let highest = slowest.into_iter().chain(objective.filter(|one| fits(*one))).max();
    let highest = highest.map_or(1.0, |highest| highest.as_secs_f64());
    let top = (highest * 1.15).max(0.001);
    let y = |took: Duration| HEIGHT - FREE - took.as_secs_f64() / top * (HEIGHT - 2.0 * FREE);
    let mut points = Vec::new();
    let mut line = String::new();
    for drill in drills.iter().rev() {
        let Some(x) = axis.x(drill.began) else { continue };
        let high = match (drill.verdict, drill.recovery) {
            (DrillVerdict::Passed | DrillVerdict::Breached, Some(took)) => {
                let step = if line.is_empty() { 'M' } else { 'L' };
                let _ = write!(line, "{step}{} {:.1} ", x.get(), y(took));
                y(took)
            }
            _ => HEIGHT - FREE,
        };
        let took = drill.recovery.map_or_else(
            || "did not come to its end".to_owned(),
            |took| format!("took {}", words::took(took)),
        );
        points.push(Point {
            id: drill.id.to_string(),
            x,
            y: format!("{high:.1}"),
            level: proof::level(drill.verdict),
            said: format!("{}: {}, recovery {took}", words::full(drill.began), proof::verdict(drill.verdict)),
        });
    }
    let said = words::took;
    Trend {
        database: database.to_owned(),
        points,
        line,
        objective: objective
            .map(|objective| (fits(objective).then(|| format!("{:.1}", y(objective))), said(objective))),
        top: words::took(Duration::from_secs_f64(top)),
        ticks: axis.ticks(),
        span: took().min().zip(took().max()).map(|(least, most)| (said(least), said(most))),
    }
}

#[cfg(test)]
mod tests {
    use farshore_journal::{DrillId, IncarnationId};

    use super::*;

    #[test]
    fn what_did_not_come_to_its_end_has_no_height_and_no_line_leads_through_it() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(100);
        let drill = |days: i64, verdict, took: Option<u64>| Outline {
            id: DrillId::from_bytes([1; 16]),
            database: "orders".parse().unwrap(),
            incarnation: IncarnationId::from_bytes([1; 16]),
            verdict,
            began: now - TimeDelta::days(days),
            ended: now,
            recovery: took.map(Duration::from_secs),
            objective: Some(Duration::from_secs(100)),
            certified: true,
        };
        use DrillVerdict::{Breached, Failed, Passed};
        let all = [
            drill(0, Passed, Some(50)),
            drill(10, Failed, None),
            drill(20, Breached, Some(150)),
            drill(30, Failed, Some(40)),
        ];
        let shown = trend(now, "orders", &all, None);
        assert_eq!(shown.points.len(), 4);
        assert_eq!(shown.line.matches(['M', 'L']).count(), 2, "{}", shown.line);
        // Oldest first; both that failed stand on the ground.
        let heights: Vec<&str> = shown.points.iter().map(|point| point.y.as_str()).collect();
        assert_eq!((heights[0], heights[2]), ("112.0", "112.0"));
        let high = |at: usize| heights[at].parse::<f64>().unwrap();
        let (objective, said) = shown.objective.unwrap();
        let objective: f64 = objective.unwrap().parse().unwrap();
        assert!(high(1) < objective && objective < high(3), "{heights:?} {objective}");
        assert_eq!(said, "100 s");
        assert!(shown.points[0].said.contains("failed"), "{}", shown.points[0].said);
        // None at all, and what may be taken now rather than then.
        let none = trend(now, "orders", &[], Some(Duration::from_secs(7)));
        assert_eq!((none.points.len(), none.line.as_str(), none.span), (0, "", None));
        assert_eq!(none.objective.unwrap().1, "7.0 s");
        // What is allowed is an hour, and it took a minute and less: the drills are told from each other.
        let quick = trend(now, "orders", &all, Some(Duration::from_secs(3600)));
        assert_eq!(quick.objective, Some((None, "60 min".to_owned())));
        let heights: Vec<f64> = quick.points.iter().map(|point| point.y.parse().unwrap()).collect();
        assert!(heights[1] < 30.0 && heights[3] > 60.0, "{heights:?}");
    }
}
