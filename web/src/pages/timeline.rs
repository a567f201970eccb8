//! The recovery timeline as a picture: where everything lies between two times, in thousandths of its width. Pure functions.
//!
//! What always holds: only what can be restored is drawn as a bar; a gap is hatched between its own times, and what has no time is not drawn
//! at all, but stands in the table beneath. Marks that would lie on each other are drawn once.

use chrono::{DateTime, TimeDelta, Utc};

/// How much time is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zoom {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
    /// All of the history.
    All,
}

impl Zoom {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::All];

    /// Its word, in addresses and on buttons.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::All => "all",
        }
    }

    /// The one of this word; for any other, a day, or an hour where all there is fits into it.
    pub fn of(word: &str, now: DateTime<Utc>, oldest: Option<DateTime<Utc>>) -> Self {
        let usual = match oldest.is_some_and(|oldest| now - oldest < TimeDelta::minutes(50)) {
            true => Self::Hour,
            false => Self::Day,
        };
        Self::ALL.into_iter().find(|zoom| zoom.word() == word).unwrap_or(usual)
    }

    fn span(self) -> Option<TimeDelta> {
        match self {
            Self::Hour => Some(TimeDelta::hours(1)),
            Self::Day => Some(TimeDelta::days(1)),
            Self::Week => Some(TimeDelta::days(7)),
            Self::All => None,
        }
    }
}

/// Between which times the picture lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Its left edge.
    pub from: DateTime<Utc>,
    /// Its right edge.
    pub to: DateTime<Utc>,
}

/// A place on the axis, in hundredths of a percent from its left edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct X(u32);

/// The whole width.
const WIDTH: u32 = 10_000;
/// Marks nearer than this are one: about five pixels of a wide page.
const APART: u32 = 40;

impl X {
    /// In ten thousandths of the width.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for X {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}%", self.0 / 100, self.0 % 100)
    }
}

impl Axis {
    /// For a zoom: up to the present, or around a picked time that would not be seen otherwise. `oldest` is the oldest of all there is.
    pub fn new(
        zoom: Zoom,
        now: DateTime<Utc>,
        oldest: Option<DateTime<Utc>>,
        picked: Option<DateTime<Utc>>,
    ) -> Self {
        let Some(span) = zoom.span() else {
            let oldest = oldest.into_iter().chain(picked).min().unwrap_or(now - TimeDelta::days(1));
            let to = picked.into_iter().chain([now]).max().unwrap_or(now);
            let span = (to - oldest).max(TimeDelta::minutes(1));
            return Self { from: to - span - span / 40, to: to + span / 40 };
        };
        let to = now + span / 60;
        match picked {
            Some(picked) if picked < to - span || picked > to => {
                Self { from: picked - span / 2, to: picked + span / 2 }
            }
            _ => Self { from: to - span, to },
        }
    }

    /// Where a time lies; `None` outside.
    pub fn x(&self, time: DateTime<Utc>) -> Option<X> {
        (self.from <= time && time <= self.to).then(|| self.clamped(time))
    }

    fn clamped(&self, time: DateTime<Utc>) -> X {
        let all = i128::from((self.to - self.from).num_milliseconds().max(1));
        let at = i128::from((time - self.from).num_milliseconds()).clamp(0, all);
        X(u32::try_from(at * i128::from(WIDTH) / all).unwrap_or(0).min(WIDTH))
    }

    /// The part of a stretch that is seen; `None` when nothing of it is.
    pub fn bar(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<Bar> {
        if to < self.from || from > self.to || from > to {
            return None;
        }
        let (left, right) = (self.clamped(from), self.clamped(to));
        // What is too short to be seen is drawn as wide as a hair.
        let width = X((right.0.saturating_sub(left.0)).max(15));
        Some(Bar { x: X(left.0.min(WIDTH - width.0)), width })
    }

    /// Times to write beneath, at most seven.
    pub fn ticks(&self) -> Vec<Tick> {
        const STEPS: [i64; 16] = [
            60,
            300,
            600,
            1800,
            3600,
            10_800,
            21_600,
            43_200,
            86_400,
            172_800,
            604_800,
            1_209_600,
            2_592_000,
            7_776_000,
            31_536_000,
            315_360_000,
        ];
        let span = (self.to - self.from).num_seconds().max(1);
        let step = STEPS.into_iter().find(|step| span / step <= 6).unwrap_or(span);
        let form = if step < 86_400 { "%H:%M" } else { "%m-%d" };
        let first = self.from.timestamp().div_euclid(step).saturating_add(1).saturating_mul(step);
        (0..8)
            .filter_map(|number| DateTime::from_timestamp(first.checked_add(step * number)?, 0))
            .filter_map(|time| {
                let x = self.x(time)?;
                // At the edges a label would be cut.
                let seen = (300..=WIDTH - 300).contains(&x.0);
                let midnight = time.timestamp() % 86_400 == 0;
                let text = time.format(if midnight { "%m-%d" } else { form }).to_string();
                Some(Tick { x, text: seen.then_some(text) })
            })
            .collect()
    }
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Its left edge.
    pub x: X,
    /// How wide it is.
    pub width: X,
}

/// A time beneath the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Where.
    pub x: X,
    /// In words; `None` where there is no room for them.
    pub text: Option<String>,
}

/// Leaves out what would be drawn on what is drawn already.
pub fn apart<T>(mut all: Vec<(X, T)>) -> Vec<(X, T)> {
    all.sort_by_key(|(x, _)| *x);
    let mut last: Option<X> = None;
    all.retain(|(x, _)| {
        let far = last.is_none_or(|last| x.0 >= last.0 + APART);
        if far {
            last = Some(*x);
        }
        far
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_774_792_800 + seconds, 0).unwrap()
    }

    #[test]
    fn a_picked_time_is_always_seen_and_the_present_unless_the_picked_is_far_from_it() {
        for zoom in Zoom::ALL {
            assert_eq!(Zoom::of(zoom.word(), at(0), None), zoom);
            for picked in [None, Some(at(-30)), Some(at(-90_000)), Some(at(-9_000_000))] {
                let axis = Axis::new(zoom, at(0), Some(at(-5_000_000)), picked);
                assert!(picked.is_none_or(|picked| axis.x(picked).is_some()), "{zoom:?} {picked:?}");
                assert!(picked.is_some_and(|picked| picked < at(-40)) || axis.x(at(0)).is_some());
                assert!(axis.ticks().len() <= 7, "{zoom:?} {:?}", axis.ticks());
            }
        }
        // Nothing is known, and a clock that is ahead.
        assert!(Axis::new(Zoom::All, at(0), None, None).x(at(0)).is_some());
        assert!(Axis::new(Zoom::All, at(0), Some(at(-9)), Some(at(900))).x(at(900)).is_some());
    }

    #[test]
    fn a_bar_shows_what_is_seen_of_a_stretch_and_nothing_beside_it() {
        let axis = Axis { from: at(0), to: at(1000) };
        let bar = |from, to| axis.bar(at(from), at(to)).map(|bar| (bar.x.0, bar.width.0));
        assert_eq!(bar(-500, 500), Some((0, 5000)));
        assert_eq!(bar(250, 750), Some((2500, 5000)));
        assert_eq!(bar(900, 9000), Some((9000, 1000)));
        assert_eq!(bar(-10, -1), None);
        assert_eq!(bar(1001, 1002), None);
        assert_eq!(bar(20, 10), None);
        // A moment is seen, at the edge too.
        assert_eq!(bar(1000, 1000), Some((9985, 15)));
        assert_eq!(X(1234).to_string(), "12.34%");
        assert_eq!(X(5).to_string(), "0.05%");
    }

    #[test]
    fn marks_that_lie_on_each_other_are_drawn_once() {
        let all = (0..10_000).map(|x| (X(x), x)).collect();
        let drawn = apart(all);
        assert_eq!(drawn.len(), 250);
        assert!(drawn.windows(2).all(|pair| pair[1].0.0 - pair[0].0.0 >= APART));
    }
}
