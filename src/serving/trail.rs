//! For how long a journal has had what a standby has not replayed: pure, clock passed in.
//!
//! What always holds: it is never shorter than it is by more than a look's interval; an idle journal makes nobody late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use farshore_journal::Offset;

/// Ends that are remembered: of more, each second one is forgotten, and what is said is longer than it is, not shorter.
const MOST: usize = 1024;

/// Where a journal ended, and when that was first seen.
#[derive(Debug, Default)]
pub struct Trail {
    ends: VecDeque<(Offset, Instant)>,
    /// The first end that was seen: since when the journal had what lies before it is not known.
    first: Option<Offset>,
}

impl Trail {
    /// Takes a look's end. One that is smaller is another timeline's.
    pub fn saw(&mut self, end: Offset, now: Instant) {
        match self.ends.back() {
            Some((known, _)) if *known == end => return,
            Some((known, _)) if *known > end => *self = Self::default(),
            _ => {}
        }
        if self.first.is_none() {
            self.first = Some(end);
        }
        if self.ends.len() >= MOST {
            // Of two that follow each other the later end goes with the earlier time.
            let pairs: Vec<_> = self.ends.drain(..).collect();
            let both = |pair: &[(Offset, Instant)]| Some((pair.last()?.0, pair.first()?.1));
            self.ends = pairs.chunks(2).filter_map(both).collect();
        }
        self.ends.push_back((end, now));
    }

    /// For how long the journal has had the first byte that is not replayed; zero where all is. `None` while it has not replayed what was there at the first look.
    pub fn behind(&mut self, applied: Offset, now: Instant) -> Option<Duration> {
        self.first.filter(|first| *first <= applied)?;
        // The last one stays: it says where the journal ends.
        while self.ends.len() > 1 && self.ends.front().is_some_and(|(end, _)| *end <= applied) {
            self.ends.pop_front();
        }
        let lacks = self.ends.front().filter(|(end, _)| *end > applied);
        Some(lacks.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_behind_since_the_journal_had_what_it_lacks_and_an_idle_journal_makes_nobody_late() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut trail = Trail::default();
        trail.saw(Offset::new(100), at(0));
        trail.saw(Offset::new(100), at(5));
        trail.saw(Offset::new(300), at(10));
        let behind = |trail: &mut Trail, applied, now| {
            trail.behind(Offset::new(applied), at(now)).map(|behind| behind.as_secs())
        };
        assert_eq!(behind(&mut trail, 50, 12), None, "what was there before anybody looked");
        assert_eq!(behind(&mut trail, 100, 12), Some(2));
        assert_eq!(behind(&mut trail, 299, 13), Some(3));
        assert_eq!(behind(&mut trail, 300, 900), Some(0));
        trail.saw(Offset::new(400), at(1000));
        assert_eq!(behind(&mut trail, 300, 1001), Some(1));
        // A promotion left the timeline at 350.
        trail.saw(Offset::new(360), at(1010));
        assert_eq!((behind(&mut trail, 350, 1012), behind(&mut trail, 360, 1900)), (None, Some(0)));
    }

    #[test]
    fn what_is_forgotten_makes_it_later_and_never_earlier() {
        let begin = Instant::now();
        let (mut trail, mut exact) = (Trail::default(), Vec::new());
        for step in 0..5000_u64 {
            let now = begin + Duration::from_millis(step * 50);
            trail.saw(Offset::new(step * 10 + 10), now);
            exact.push((step * 10 + 10, now));
        }
        assert!(trail.ends.len() <= MOST);
        let now = begin + Duration::from_secs(300);
        for applied in [10, 5_000, 10_000, 25_005, 49_990, 50_000] {
            let since = exact.iter().find(|(end, _)| *end > applied).map(|(_, since)| *since);
            let right = since.map_or(Duration::ZERO, |since| now - since);
            assert!(trail.behind(Offset::new(applied), now).unwrap() >= right, "{applied}");
        }
    }
}
