//! Whether something is told now: pure, times are passed in.
//!
//! What always holds: what grew worse is told at once, but for what mends itself within seconds as a rule; what is well again is told once it
//! stayed so, for longer each time it turned of late, so that what flaps is told some six times an hour and not without end. The same is not
//! told twice. Who has heard of it is another question (`delivery.rs`).
//!
//! ```text
//! well ──worse──▶ told at once ──well, held for 30 s · 2^turns──▶ told ──▶ well
//!                     └─ well for less: nothing was told, and the same again is not told anew
//! ```

use std::time::Duration;

/// How something stands, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// As it should.
    Well,
    /// Neither good nor bad yet.
    Beginning,
    /// A promise does not hold, and something is done about it.
    Degraded,
    /// Work that was due is missing.
    Overdue,
    /// Work failed.
    Failed,
    /// More would be lost than the objective allows.
    Breached,
    /// Shipping has ended for good.
    Stopped,
    /// Nobody vouches for it.
    Unknown,
}

impl Word {
    /// Every word.
    pub const ALL: [Self; 8] = [
        Self::Well,
        Self::Beginning,
        Self::Degraded,
        Self::Overdue,
        Self::Failed,
        Self::Breached,
        Self::Stopped,
        Self::Unknown,
    ];

    /// As it is written down and sent.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Beginning => "beginning",
            Self::Degraded => "degraded",
            Self::Overdue => "overdue",
            Self::Failed => "failed",
            Self::Breached => "breached",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }

    /// From its text; what a later version wrote is none that we know, and counts as told and bad.
    pub fn from_text(text: &str) -> Self {
        Self::ALL.into_iter().find(|word| word.text() == text).unwrap_or(Self::Unknown)
    }
}

/// What is seen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How it stands.
    pub word: Word,
    /// Tells one event of this word from the next.
    pub mark: i64,
    /// For how long this was seen without a break.
    pub held: Duration,
    /// Whether who is to speak of it may just have begun: the service that looks has, and ships this itself, or nobody ever spoke of it.
    pub warm: bool,
}

/// What was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// How it stood.
    pub word: Word,
    /// Of which event.
    pub mark: i64,
    /// How long ago.
    pub ago: Duration,
    /// How often it recovered of late.
    pub turns: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Tell it; so many turns are written down with it.
    Tell(u64),
}

/// How long a lesser evil must hold.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a beginning may take until it is taken for one that does not end.
const STUCK: Duration = Duration::from_secs(600);
/// How long a good state must hold the first time.
const GOOD: Duration = Duration::from_secs(30);
/// The longest a good state must hold.
const GOOD_MOST: Duration = Duration::from_secs(30 * 60);
/// How long turns count.
const LATE: Duration = Duration::from_secs(3600);
/// How long a service that begins may take until it speaks of what it ships.
pub const BEGIN: Duration = Duration::from_secs(15);

/// What is to be done about what is seen.
pub fn step(last: Option<Last>, seen: Seen) -> Step {
    let new = Last { word: Word::Well, mark: 0, ago: Duration::MAX, turns: 0 };
    let last = last.unwrap_or(new);
    let turns = if last.ago > LATE { 0 } else { last.turns };
    if (last.word, last.mark) == (seen.word, seen.mark) || (last.word == seen.word && seen.word == Word::Well)
    {
        return Step::Nothing;
    }
    let settle = match seen.word {
        Word::Beginning => STUCK,
        Word::Well => good_for(turns),
        Word::Unknown if seen.warm => BEGIN,
        Word::Degraded => SETTLE,
        // From bad to less bad is no news of the moment.
        Word::Overdue | Word::Failed | Word::Breached | Word::Stopped | Word::Unknown
            if seen.word < last.word =>
        {
            SETTLE
        }
        Word::Overdue | Word::Failed | Word::Breached | Word::Stopped | Word::Unknown => Duration::ZERO,
    };
    match seen.held >= settle {
        true => Step::Tell(turns + u64::from(seen.word == Word::Well)),
        false => Step::Nothing,
    }
}

/// How long a good state must hold after so many turns.
fn good_for(turns: u64) -> Duration {
    let factor = 1_u32.checked_shl(u32::try_from(turns).unwrap_or(u32::MAX)).unwrap_or(u32::MAX);
    GOOD.saturating_mul(factor).min(GOOD_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn last(word: Word, ago: u64, turns: u64) -> Option<Last> {
        Some(Last { word, mark: 0, ago: seconds(ago), turns })
    }

    fn seen(word: Word, held: u64) -> Seen {
        Seen { word, mark: 0, held: seconds(held), warm: false }
    }

    #[test]
    fn what_grew_worse_is_told_at_once_and_what_is_well_again_once_it_stayed_so() {
        use Word::{Beginning, Breached, Degraded, Failed, Overdue, Stopped, Unknown, Well};
        for (case, last, seen, told) in [
            ("never told, well", None, seen(Well, 999), Step::Nothing),
            ("never told, unknown", None, seen(Unknown, 0), Step::Tell(0)),
            ("never told, beginning", None, seen(Beginning, 599), Step::Nothing),
            ("a beginning that does not end", None, seen(Beginning, 600), Step::Tell(0)),
            ("well, then breached", last(Well, 5, 0), seen(Breached, 0), Step::Tell(0)),
            ("well, then stopped", last(Well, 5, 0), seen(Stopped, 0), Step::Tell(0)),
            ("well, then failed", last(Well, 5, 0), seen(Failed, 0), Step::Tell(0)),
            ("well, then overdue", last(Well, 5, 0), seen(Overdue, 0), Step::Tell(0)),
            ("well, then degraded for a moment", last(Well, 5, 0), seen(Degraded, 9), Step::Nothing),
            ("well, then degraded for longer", last(Well, 5, 0), seen(Degraded, 10), Step::Tell(0)),
            ("worse still", last(Breached, 5, 0), seen(Unknown, 0), Step::Tell(0)),
            ("less bad", last(Unknown, 5, 0), seen(Breached, 9), Step::Nothing),
            ("less bad for longer", last(Unknown, 5, 0), seen(Breached, 10), Step::Tell(0)),
            ("the same", last(Unknown, 5000, 0), seen(Unknown, 5000), Step::Nothing),
            ("well for a moment", last(Unknown, 50, 0), seen(Well, 29), Step::Nothing),
            ("well for longer", last(Unknown, 50, 0), seen(Well, 30), Step::Tell(1)),
            ("well for a moment, after turns", last(Unknown, 50, 3), seen(Well, 239), Step::Nothing),
            ("well for longer, after turns", last(Unknown, 50, 3), seen(Well, 240), Step::Tell(4)),
            ("turns of long ago", last(Unknown, 3601, 9), seen(Well, 30), Step::Tell(1)),
            ("turns without end", last(Unknown, 50, u64::MAX - 1), seen(Well, 1800), Step::Tell(u64::MAX)),
        ] {
            assert_eq!(step(last, seen), told, "{case}");
        }
    }

    #[test]
    fn a_service_that_begins_does_not_accuse_itself() {
        let young = |held| Seen { warm: true, ..seen(Word::Unknown, held) };
        assert_eq!(step(last(Word::Well, 5, 0), young(14)), Step::Nothing);
        assert_eq!(step(last(Word::Well, 5, 0), young(15)), Step::Tell(0));
    }

    #[test]
    fn every_failure_is_told_once() {
        let failed = |mark| Seen { mark, ..seen(Word::Failed, 0) };
        let told = Some(Last { word: Word::Failed, mark: 7, ago: seconds(5), turns: 0 });
        assert_eq!(step(told, failed(7)), Step::Nothing);
        assert_eq!(step(told, failed(8)), Step::Tell(0));
    }

    #[test]
    fn what_flaps_for_an_hour_is_told_a_few_times() {
        // Ten seconds bad, two minutes good, for an hour, looked at each second.
        let (mut told, mut count, mut since, mut word) = (None::<(Word, u64, u64)>, 0, 0, Word::Well);
        for now in 0..3600_u64 {
            let is = if now % 130 < 10 { Word::Unknown } else { Word::Well };
            if is != word {
                (word, since) = (is, now);
            }
            let last = told.map(|(word, at, turns)| Last { word, mark: 0, ago: seconds(now - at), turns });
            if let Step::Tell(turns) = step(last, seen(word, now - since)) {
                told = Some((word, now, turns));
                count += 1;
            }
        }
        assert!((3..=8).contains(&count), "{count}");
        assert_eq!(
            told.map(|(word, ..)| word),
            Some(Word::Unknown),
            "what does not stay well stays told as bad"
        );
    }

    #[test]
    fn words_read_back_and_order_from_good_to_bad() {
        for word in Word::ALL {
            assert_eq!(Word::from_text(word.text()), word);
        }
        assert_eq!(Word::from_text("a later version's"), Word::Unknown);
        assert!(Word::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
