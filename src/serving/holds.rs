//! Which standbys somebody wants held: read from the catalog, given to their sessions, and answered.
//!
//! What always holds: a wish whose beat was not seen to move for [`LAPSE`], by this process's clock, holds nobody, whether its holder died or the catalog is away; nobody is held
//! for whom there is no wish; an answer names the hold that it is of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farshore_applier::serve::Wish;
use farshore_catalog::Catalog;
use farshore_catalog::hold::{Hold, HoldAnswer};
use farshore_journal::{DatabaseName, Offset};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the catalog is looked at while nobody is held, and while somebody is.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_HELD: Duration = Duration::from_millis(200);
/// After so long without a beat a wish holds nobody any more.
pub const LAPSE: Duration = Duration::from_secs(15);
/// How long the catalog may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Key = (DatabaseName, String);

/// One standby: what is wished of it, and how it is held.
#[derive(Debug)]
struct One {
    wish: watch::Sender<Option<Wish>>,
    /// By which hold, up to where, and what was sent.
    held: Option<(u64, Offset, Offset)>,
}

impl Default for One {
    fn default() -> Self {
        Self { wish: watch::channel(None).0, held: None }
    }
}

/// All of this process.
#[derive(Debug, Default)]
pub struct Holds {
    all: Mutex<HashMap<Key, One>>,
}

/// The beats that were seen: of which hold, which, and when it was first seen.
#[derive(Debug, Default)]
struct Beats {
    seen: HashMap<u64, (u64, Instant)>,
}

impl Beats {
    /// Those whose holders live, as far as that is known now.
    fn alive(&mut self, holds: Vec<Hold>, now: Instant) -> Vec<Hold> {
        self.seen.retain(|hold, _| holds.iter().any(|one| one.hold == *hold));
        let is_alive = |one: &Hold| {
            let seen = self.seen.entry(one.hold).or_insert((one.beat, now));
            if seen.0 != one.beat {
                *seen = (one.beat, now);
            }
            now.saturating_duration_since(seen.1) < LAPSE
        };
        holds.into_iter().filter(is_alive).collect()
    }
}

impl Holds {
    /// What is wished of a standby, now and later.
    pub fn of(&self, database: &DatabaseName, name: &str) -> watch::Receiver<Option<Wish>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((database.clone(), name.to_owned())).or_default().wish.subscribe()
    }

    /// Takes how a standby is held.
    pub fn stands(&self, database: &DatabaseName, name: &str, held: Option<(u64, Offset)>, sent: Offset) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = all.get_mut(&(database.clone(), name.to_owned())) {
            one.held = held.map(|(hold, at)| (hold, at, sent));
        }
    }

    /// Gives sessions what is wished now, and takes back what is not.
    fn wish(&self, holds: &[Hold]) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, one| {
            let wanted = holds.iter().find(|hold| (&hold.database, &hold.standby) == (&key.0, &key.1));
            let wanted = wanted.map(|hold| Wish { hold: hold.hold, ceiling: hold.ceiling });
            one.wish.send_if_modified(|wish| std::mem::replace(wish, wanted) != wanted);
            !one.wish.is_closed()
        });
    }

    /// How those are held that are, as the catalog does not know it yet.
    fn answers(&self, holds: &[Hold], node: &str) -> Vec<(u64, HoldAnswer)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = |hold: &Hold| {
            let one = all.get(&(hold.database.clone(), hold.standby.clone()))?;
            let (_, at, sent) = one.held.filter(|(id, _, _)| *id == hold.hold)?;
            let answer = HoldAnswer { node: node.to_owned(), sent, at };
            (hold.answer.as_ref() != Some(&answer)).then_some((hold.hold, answer))
        };
        holds.iter().filter_map(answer).collect()
    }

    /// Looks until cancelled.
    pub async fn watch(self: Arc<Self>, catalog: Catalog, node: String, cancel: CancellationToken) {
        let (mut beats, mut last) = (Beats::default(), Vec::new());
        loop {
            let pause = if last.is_empty() { LOOK } else { LOOK_HELD };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match tokio::time::timeout(PATIENCE, catalog.hold_list()).await {
                Ok(Ok(holds)) => last = holds,
                // What was read last holds until it lapses.
                Ok(Err(why)) => tracing::debug!(error = %why, "holds of standbys cannot be read"),
                Err(_) => tracing::debug!("holds of standbys cannot be read: the catalog is slow"),
            }
            last = beats.alive(last, Instant::now());
            self.wish(&last);
            for (hold, answer) in self.answers(&last, &node) {
                let told = tokio::time::timeout(PATIENCE, catalog.hold_answer(hold, &answer)).await;
                if !matches!(told, Ok(Ok(()))) {
                    tracing::debug!(hold, "that a standby is held is not recorded");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(hold: u64, beat: u64) -> Hold {
        Hold {
            database: "orders".parse().unwrap(),
            standby: "oslo".to_owned(),
            hold,
            holder: "a comparison".to_owned(),
            beat,
            ceiling: None,
            answer: None,
        }
    }

    #[test]
    fn a_holder_that_says_nothing_for_fifteen_seconds_holds_nobody_whatever_any_clock_says() {
        let (mut beats, began) = (Beats::default(), Instant::now());
        let mut alive =
            |beat, seconds| beats.alive(vec![hold(1, beat)], began + Duration::from_secs(seconds)).len();
        assert_eq!(alive(1, 0), 1);
        assert_eq!(alive(1, 14), 1);
        assert_eq!(alive(1, 15), 0);
        // It comes back to life, and falls silent again.
        assert_eq!(alive(2, 16), 1);
        assert_eq!(alive(2, 30), 1);
        assert_eq!(alive(2, 31), 0);
    }

    #[test]
    fn sessions_hear_wishes_and_their_end_and_only_answers_of_the_same_hold_are_told() {
        let (holds, database) = (Holds::default(), "orders".parse().unwrap());
        let wish = holds.of(&database, "oslo");
        holds.wish(&[hold(1, 1)]);
        assert_eq!(*wish.borrow(), Some(Wish { hold: 1, ceiling: None }));
        assert!(holds.answers(&[hold(1, 1)], "db1").is_empty(), "nobody said so yet");
        let at = Offset::new;
        holds.stands(&database, "oslo", Some((1, at(9))), at(7));
        let answers = holds.answers(&[hold(1, 1)], "db1");
        assert_eq!(answers, [(1, HoldAnswer { node: "db1".to_owned(), sent: at(7), at: at(9) })]);
        assert!(holds.answers(&[hold(2, 1)], "db1").is_empty());
        holds.wish(&[]);
        assert_eq!(*wish.borrow(), None);
        drop(wish);
        holds.wish(&[]);
        assert!(holds.all.lock().unwrap().is_empty(), "a session that is over is forgotten");
    }
}
