//! When something is said to a standby that was not asked for: pure, clock passed in.
//!
//! PostgreSQL's own sender gives a standby up after `wal_sender_timeout`, a minute, and asks at half of that; a standby gives us up after a minute of silence. How far it has replayed
//! a standby says when it is asked, when log comes, or every ten seconds: whoever wants to know it within a second asks.

use std::time::{Duration, Instant};

/// After so much silence it is given up.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// After so much it is asked.
const ASKED: Duration = Duration::from_secs(30);
/// How often it is asked while it has not replayed all that it has.
const REPLAYING: Duration = Duration::from_secs(1);
/// How often it hears of us.
const SPEAKING: Duration = Duration::from_secs(10);

/// What is known of a conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    heard: Instant,
    spoke: Instant,
    asked: Option<Instant>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// A sign of life.
    Speak,
    /// One that wants an answer.
    Ask,
    /// It is gone.
    GiveUp,
}

impl Pace {
    pub fn begin(now: Instant) -> Self {
        Self { heard: now, spoke: now, asked: None }
    }

    /// It said something.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// It was sent something; `asks`: what wants an answer.
    pub fn spoke(&mut self, now: Instant, asks: bool) {
        self.spoke = now;
        if asks {
            self.asked = Some(now);
        }
    }

    /// What is due. `replaying`: it has all that there is, and has not replayed all of it.
    pub fn due(&self, now: Instant, replaying: bool) -> Due {
        let silence = now.saturating_duration_since(self.heard);
        let asked = self.asked.map(|asked| now.saturating_duration_since(asked));
        if silence >= GIVEN_UP {
            Due::GiveUp
        } else if (silence >= ASKED && asked.is_none_or(|asked| asked > silence))
            || (replaying && asked.is_none_or(|asked| asked >= REPLAYING))
        {
            Due::Ask
        } else if now.saturating_duration_since(self.spoke) >= SPEAKING {
            Due::Speak
        } else {
            Due::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_standby_is_asked_once_and_then_given_up() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut pace = Pace::begin(begin);
        assert_eq!(pace.due(at(9), false), Due::Nothing);
        assert_eq!(pace.due(at(10), false), Due::Speak);
        pace.spoke(at(29), false);
        assert_eq!(pace.due(at(30), false), Due::Ask);
        pace.spoke(at(30), true);
        assert_eq!(pace.due(at(35), false), Due::Nothing);
        assert_eq!(pace.due(at(59), false), Due::Speak);
        assert_eq!(pace.due(at(60), false), Due::GiveUp);
        pace.heard(at(59));
        assert_eq!(pace.due(at(60), false), Due::Speak);
        // The next silence is another one.
        assert_eq!(pace.due(at(89), false), Due::Ask);
    }

    #[test]
    fn one_that_replays_still_is_asked_each_second() {
        let begin = Instant::now();
        let mut pace = Pace::begin(begin);
        assert_eq!(pace.due(begin, true), Due::Ask);
        pace.spoke(begin, true);
        assert_eq!(pace.due(begin + Duration::from_millis(900), true), Due::Nothing);
        assert_eq!(pace.due(begin + Duration::from_secs(1), true), Due::Ask);
    }
}
