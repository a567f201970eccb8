//! Which point a drill restores to: a rule, or a target that is named.
//!
//! What always holds: a random choice follows from its seed and the spans alone, and falls on each byte of log that can be restored to with the same likelihood; a span that
//! several backups reach counts once.

use std::fmt;
use std::str::FromStr;

use farshore_applier::plan::Window;
use farshore_journal::Position;
use farshore_journal::format::Digest;
use farshore_journal::format::certificate::ChosenSpan;

use crate::cli::restore::{LogPoint, Target};

/// A point, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// As far as the journal goes.
    Latest,
    /// As far back as it can be restored to.
    Oldest,
    /// Anywhere between.
    Random,
    /// This one.
    Named(Target, String),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Latest => "latest",
            Self::Oldest => "oldest",
            Self::Random => "random",
            Self::Named(_, written) => written,
        })
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |target| Ok(Self::Named(target, text.to_owned()));
        match text {
            "" => Err("latest, random, oldest, a time, a position, or a named point".to_owned()),
            "latest" => Ok(Self::Latest),
            "oldest" => Ok(Self::Oldest),
            "random" => Ok(Self::Random),
            _ => {
                if let Ok(position) = text.parse::<LogPoint>() {
                    return named(Target::Pos(position));
                }
                if let Ok(moment) = text.parse() {
                    return named(Target::At(moment));
                }
                let name = text.strip_prefix("point:").unwrap_or(text);
                if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
                    return Err("no time, no position, and no point's name: 1 to 63 bytes".to_owned());
                }
                named(Target::Point(name.to_owned()))
            }
        }
    }
}

/// The spans that can be restored to, each byte once, in order.
pub fn spans(windows: &[Window]) -> Vec<ChosenSpan> {
    let mut all: Vec<ChosenSpan> = windows
        .iter()
        .map(|window| ChosenSpan {
            timeline: window.timeline,
            from: window.from,
            to: window.to.max(window.from),
        })
        .collect();
    all.sort_unstable_by_key(|span| (span.timeline, span.from, span.to));
    let mut merged: Vec<ChosenSpan> = Vec::new();
    for span in all {
        match merged.last_mut().filter(|last| last.timeline == span.timeline && span.from <= last.to) {
            Some(last) => last.to = last.to.max(span.to),
            None => merged.push(span),
        }
    }
    merged
}

/// The oldest position.
pub fn oldest(spans: &[ChosenSpan]) -> Option<Position> {
    spans.first().map(|span| Position::new(span.timeline, span.from))
}

/// A position by a seed. A byte of log is chosen, and the position is behind it; where there is none, the only state there is.
pub fn random(spans: &[ChosenSpan], seed: u64) -> Option<Position> {
    let length = |span: &ChosenSpan| span.to.bytes_since(span.from).unwrap_or(0);
    let total: u64 = spans.iter().map(length).sum();
    if total == 0 {
        return oldest(spans);
    }
    let digest = Digest::of(format!("farshore drill {seed}").as_bytes());
    let mut word = [0; 8];
    word.copy_from_slice(&digest.as_bytes()[..8]);
    // The upper half of the product: even to one part in 2^64 / total.
    let at = (u128::from(u64::from_le_bytes(word)) * u128::from(total)) >> 64;
    let mut at = u64::try_from(at).unwrap_or(0);
    for span in spans {
        match at.checked_sub(length(span)) {
            Some(left) => at = left,
            None => {
                let offset = span.from.get() + at + 1;
                return Some(Position::new(span.timeline, farshore_journal::Offset::new(offset)));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::{BackupId, Offset, Timeline};

    fn window(from: u64, to: u64) -> Window {
        Window {
            base: BackupId::from_bytes([1; 16]),
            timeline: Timeline::new(1),
            from: Offset::new(from),
            to: Offset::new(to),
            finished: String::new(),
            to_time: None,
            to_transaction: None,
            gaps_looked_for: true,
        }
    }

    #[test]
    fn what_several_backups_reach_counts_once() {
        let spans = spans(&[window(500, 1000), window(100, 1000), window(2000, 2500)]);
        let plain: Vec<(u64, u64)> = spans.iter().map(|span| (span.from.get(), span.to.get())).collect();
        assert_eq!(plain, [(100, 1000), (2000, 2500)]);
        assert_eq!(oldest(&spans), Some(Position::new(Timeline::new(1), Offset::new(100))));
    }

    #[test]
    fn a_random_point_follows_from_its_seed_lies_in_a_span_and_reaches_all_of_it() {
        let spans = spans(&[window(100, 110), window(200, 205)]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..2000 {
            let at = random(&spans, seed).unwrap();
            assert_eq!(random(&spans, seed), Some(at));
            seen.insert(at.offset.get());
        }
        let all: std::collections::BTreeSet<u64> = (101..=110).chain(201..=205).collect();
        assert_eq!(seen, all);
        assert_eq!(random(&super::spans(&[window(7, 7)]), 3).unwrap().offset.get(), 7);
        assert_eq!(random(&[], 3), None);
    }

    #[test]
    fn a_point_is_a_rule_a_position_a_time_or_a_name() {
        let of = |text: &str| text.parse::<Point>();
        assert_eq!(of("random"), Ok(Point::Random));
        assert!(matches!(of("0/5F"), Ok(Point::Named(Target::Pos(LogPoint::Anywhere(_)), _))));
        assert!(matches!(of("2:0/5F"), Ok(Point::Named(Target::Pos(LogPoint::On(_)), _))));
        assert!(matches!(of("2026-11-26T14:02:17Z"), Ok(Point::Named(Target::At(_), _))));
        assert!(matches!(of("before-release"), Ok(Point::Named(Target::Point(_), _))));
        let Ok(Point::Named(Target::Point(name), _)) = of("point:latest") else { panic!() };
        assert_eq!(name, "latest");
        for wrong in ["", "point:", "a\nb"] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
