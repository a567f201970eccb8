//! Whether a channel is told something now: pure, times are passed in.
//!
//! What always holds: a channel is told what is, until it took it, and not what was meanwhile; who heard of a beginning is told of the end, and who
//! did not is not. What it did not take is tried again after a pause that doubles; what is new is tried at once. What is tried together and was not taken is tried in smaller parts, down to one by one, so
//! that nothing keeps the rest from being taken: each notice's own tries bound with how many others it goes, whatever else the channel takes meanwhile.

use chrono::{DateTime, TimeDelta, Utc};

use super::transition::Word;

/// The pause behind the first try that failed: longer than a delivery takes with all its tries, so that there are not two of it at once.
pub const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(60);
/// The longest pause: how late somebody may hear of what is bad still, once his channel is back.
const LONGEST_PAUSE: TimeDelta = TimeDelta::minutes(15);

/// What a channel heard of something, and how it stands with what it has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// What it took last; `None` before it took anything.
    pub last: Option<(Word, i64)>,
    /// Since when that is to be told which was last tried.
    pub trying: DateTime<Utc>,
    /// How often that was tried.
    pub tries: u32,
    /// Before this nobody tries it again.
    pub next_at: DateTime<Utc>,
}

/// Whether what `is` since a moment is to be told to a channel now; how often that was tried before.
pub fn due(
    (word, mark): (Word, i64),
    since: DateTime<Utc>,
    heard: Option<&Heard>,
    now: DateTime<Utc>,
) -> Option<u32> {
    // Nobody tells anybody that what he never heard of is well.
    let (knows, of) = heard.and_then(|heard| heard.last).unwrap_or((Word::Well, 0));
    if knows == word && (of == mark || word == Word::Well) {
        return None;
    }
    match heard {
        Some(heard) if heard.trying == since => {
            // A clock that was set back must not silence anybody for longer than any pause.
            let is_over = now >= heard.next_at || heard.next_at - now > LONGEST_PAUSE;
            is_over.then_some(heard.tries)
        }
        _ => Some(0),
    }
}

/// How long nobody tries again after so many tries.
pub fn pause(tries: u32) -> TimeDelta {
    let factor = 1_i32.checked_shl(tries.min(16)).unwrap_or(i32::MAX);
    FIRST_PAUSE.checked_mul(factor).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
}

/// How much is claimed and told together next, where so much was taken or not (by the channel, or before that by the catalog); `most`: what the channel holds.
pub fn together(now: usize, took: bool, most: usize) -> usize {
    match took {
        true => now.saturating_mul(2).min(most),
        false => (now / 4).max(1),
    }
}

/// How many of what is to be told go together, each tried so often in vain, the least tried first; `beside`: how many go with them in any case. One that was tried goes in a message of a quarter of `most`
/// for each of its tries, of one at the least: what is never taken is alone soon, also where other messages are taken between its tries.
pub fn go_together(tried: impl IntoIterator<Item = u32>, room: usize, most: usize, beside: usize) -> usize {
    let bound = |tries: u32| room.min(most.checked_shr(tries.saturating_mul(2)).unwrap_or(0)).max(1);
    let counted = tried.into_iter().zip(beside..);
    counted.take_while(|(tries, before)| *before < bound(*tries)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap()
    }

    fn heard(last: Option<Word>, trying: i64, tries: u32, next: i64) -> Heard {
        Heard { last: last.map(|word| (word, 0)), trying: at(trying), tries, next_at: at(next) }
    }

    #[test]
    fn the_end_of_an_alarm_is_told_to_whoever_heard_of_its_beginning_and_to_nobody_else() {
        let heard = |word| Heard { trying: at(0), tries: 0, next_at: at(60), last: Some((word, 0)) };
        assert_eq!(due((Word::Well, 0), at(50), Some(&heard(Word::Unknown)), at(50)), Some(0));
        assert_eq!(due((Word::Well, 0), at(50), Some(&heard(Word::Well)), at(50)), None);
        assert_eq!(due((Word::Well, 0), at(50), None, at(50)), None);
        let never = Heard { last: None, ..heard(Word::Well) };
        assert_eq!(due((Word::Well, 0), at(50), Some(&never), at(500)), None);
    }

    #[test]
    fn what_a_channel_did_not_take_is_told_again_later_and_later_until_it_did() {
        // Away for six hours: when it is tried, by a service that looks each second.
        let (mut now, mut tried) = (0, Vec::new());
        let mut known: Option<Heard> = None;
        while now < 6 * 3600 {
            if let Some(tries) = due((Word::Breached, 0), at(0), known.as_ref(), at(now)) {
                tried.push(now);
                let next = now + pause(tries).num_seconds();
                known = Some(heard(None, 0, tries + 1, next));
            }
            now += 1;
        }
        assert_eq!(tried[..6], [0, 60, 180, 420, 900, 1800]);
        assert!(tried.windows(2).all(|pair| pair[1] - pair[0] <= 900), "{tried:?}");
        assert!(tried.len() > 24, "{tried:?}");
        let took = Heard { last: Some((Word::Breached, 0)), ..known.unwrap() };
        assert_eq!(due((Word::Breached, 0), at(0), Some(&took), at(now)), None);
        // One that is new, and one that took something else, hears it at once.
        assert_eq!(due((Word::Breached, 0), at(0), None, at(now)), Some(0));
        assert_eq!(due((Word::Failed, 9), at(now), Some(&took), at(now)), Some(0));
    }

    #[test]
    fn what_is_new_waits_for_no_pause_and_what_is_over_is_told_to_nobody() {
        let waiting = heard(Some(Word::Well), 0, 5, 900);
        assert_eq!(due((Word::Breached, 0), at(0), Some(&waiting), at(100)), None);
        assert_eq!(due((Word::Stopped, 0), at(100), Some(&waiting), at(100)), Some(0), "the latest wins");
        assert_eq!(
            due((Word::Well, 0), at(100), Some(&waiting), at(1000)),
            None,
            "nobody heard that it began"
        );
        let failed = Heard { last: Some((Word::Failed, 7)), ..waiting };
        assert_eq!(due((Word::Failed, 7), at(100), Some(&failed), at(100)), None);
        assert_eq!(due((Word::Failed, 8), at(100), Some(&failed), at(100)), Some(0), "each failure is one");
    }

    #[test]
    fn one_that_is_never_taken_keeps_none_of_the_others_from_being_told() {
        // A receiver that refuses each message which has this one in it.
        let (bad, mut room) = (17, 50);
        let mut waits: Vec<u32> = (0..50).collect();
        for tried in 0.. {
            assert!(tried < 100, "{waits:?}");
            let message: Vec<u32> = waits.iter().copied().take(room).collect();
            let took = !message.contains(&bad);
            room = together(room, took, 50);
            waits.retain(|one| !message.contains(one));
            if !took {
                // Backed off: each comes again behind what waits.
                waits.extend(message);
            }
            if waits == [bad] {
                break;
            }
        }
        assert_eq!(together(50, false, 50), 12);
        assert_eq!((together(1, false, 50), together(1, true, 50), together(40, true, 50)), (1, 2, 50));
    }

    #[test]
    fn one_that_is_never_taken_is_soon_alone_whatever_is_taken_between_its_tries() {
        const POISON: usize = 17;
        struct One {
            tries: u32,
            next: i64,
            took: Option<i64>,
        }
        let mut all: Vec<One> = (0..100).map(|_| One { tries: 0, next: 0, took: None }).collect();
        let mut room = 100;
        for now in 0..7200 {
            // Other traffic, all of which is taken, gives the channel all its room back between two tries.
            if now % 5 == 4 {
                all.push(One { tries: 0, next: now, took: None });
            }
            let mut due: Vec<usize> =
                (0..all.len()).filter(|at| all[*at].took.is_none() && all[*at].next <= now).collect();
            due.sort_by_key(|at| all[*at].tries);
            due.truncate(go_together(due.iter().map(|at| all[*at].tries), room, 100, 0));
            if due.is_empty() {
                continue;
            }
            let took = !due.contains(&POISON);
            assert!(took || now < 600 || due == [POISON], "at {now}: {due:?}");
            room = together(room, took, 100);
            for at in due {
                let one = &mut all[at];
                (one.next, one.tries) = (now + pause(one.tries).num_seconds(), one.tries + 1);
                one.took = took.then_some(now);
            }
        }
        for (at, one) in all.iter().enumerate().take(100) {
            assert_eq!(one.took.is_some_and(|took| took < 600), at != POISON, "{at}: {:?}", one.took);
        }
        // It is tried on all the same, and no other one is tried twice for it now.
        assert!(all[POISON].tries > 10);
        assert!(all.iter().skip(100).all(|one| one.tries <= 2));
        assert_eq!(go_together([0, 0, 1, 2], 2, 100, 0), 2, "no more than there is room");
        assert_eq!(go_together([9], 100, 100, 0), 1);
        assert_eq!(go_together([9], 100, 100, 1), 0, "what is alone goes with nothing else");
    }

    #[test]
    fn a_catalog_that_is_far_keeps_nobody_from_being_told() {
        // Each claim is a round trip of 30 ms, and all of a message's are to be done within 3 s.
        let (mut waits, mut room, mut looks) = (100_usize, 100, 0);
        while waits > 0 {
            let claims = waits.min(room);
            let is_claimed = claims * 30 < 3000;
            waits -= if is_claimed { claims } else { 0 };
            room = together(room, is_claimed, 100);
            looks += 1;
            assert!(looks < 5, "{waits} wait still");
        }
        // However far it is, one is asked for.
        assert_eq!((0..9).fold(100, |room, _| together(room, false, 100)), 1);
    }

    #[test]
    fn a_clock_that_was_set_back_silences_nobody() {
        let known = heard(None, 0, 3, 86_400);
        assert_eq!(due((Word::Unknown, 0), at(0), Some(&known), at(10)), Some(3));
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
