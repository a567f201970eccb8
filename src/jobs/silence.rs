//! Whose holders say nothing: pure, the clock is passed in.
//!
//! What always holds: a holder counts as silent only when the same claim and the same beat were seen all through [`LEASE`] by one clock, in
//! looks that followed each other closely. Whoever could not look for a while (frozen, catalog away) begins to count anew.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use farshore_catalog::job::JobId;

use super::LEASE;

/// The longest pause between two looks that belong together.
const CLOSE: Duration = Duration::from_secs(5);

/// A claim as it was seen: which job, which claim, its beat.
pub(super) type Seen = (JobId, u64, u64);

/// What was seen, and since when.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: HashMap<JobId, (u64, u64, Instant)>,
    looked: Option<Instant>,
}

impl Silence {
    /// Takes what is seen now; which of it has been silent for too long.
    pub(super) fn look(&mut self, now: Instant, seen: impl Iterator<Item = Seen>) -> Vec<Seen> {
        let follows = self.looked.is_some_and(|looked| now.saturating_duration_since(looked) <= CLOSE);
        self.looked = Some(now);
        let before = std::mem::take(&mut self.since);
        let mut silent = Vec::new();
        for (id, attempt, beat) in seen {
            let since = match before.get(&id) {
                Some((was, beat_was, since)) if follows && (*was, *beat_was) == (attempt, beat) => *since,
                _ => now,
            };
            self.since.insert(id, (attempt, beat, since));
            if now.saturating_duration_since(since) >= LEASE {
                silent.push((id, attempt, beat));
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(silence: &mut Silence, begin: Instant, seconds: std::ops::Range<u64>, seen: Seen) -> Vec<u64> {
        seconds
            .filter(|at| !silence.look(begin + Duration::from_secs(*at), std::iter::once(seen)).is_empty())
            .collect()
    }

    #[test]
    fn a_holder_is_silent_once_the_same_beat_was_seen_for_the_whole_lease() {
        let (begin, id) = (Instant::now(), JobId::mint());
        let mut silence = Silence::default();
        assert_eq!(looks(&mut silence, begin, 0..15, (id, 1, 4)), [0_u64; 0]);
        assert_eq!(looks(&mut silence, begin, 15..17, (id, 1, 4)), [15, 16]);
    }

    #[test]
    fn a_beat_or_another_claim_begins_the_count_anew() {
        let (begin, id) = (Instant::now(), JobId::mint());
        let mut silence = Silence::default();
        assert!(looks(&mut silence, begin, 0..14, (id, 1, 4)).is_empty());
        assert!(looks(&mut silence, begin, 14..28, (id, 1, 5)).is_empty());
        assert!(looks(&mut silence, begin, 28..42, (id, 2, 5)).is_empty());
        assert_eq!(looks(&mut silence, begin, 42..44, (id, 2, 5)), [43]);
    }

    #[test]
    fn a_watcher_that_could_not_look_for_a_while_accuses_nobody() {
        let (begin, id) = (Instant::now(), JobId::mint());
        let mut silence = Silence::default();
        assert!(looks(&mut silence, begin, 0..5, (id, 1, 4)).is_empty());
        assert!(looks(&mut silence, begin, 60..75, (id, 1, 4)).is_empty());
        assert_eq!(looks(&mut silence, begin, 75..76, (id, 1, 4)), [75]);
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let (begin, id) = (Instant::now(), JobId::mint());
        let mut silence = Silence::default();
        looks(&mut silence, begin, 0..10, (id, 1, 4));
        silence.look(begin + Duration::from_secs(10), std::iter::empty());
        assert!(silence.since.is_empty());
        assert!(looks(&mut silence, begin, 11..26, (id, 1, 4)).is_empty());
    }
}
