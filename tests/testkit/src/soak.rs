//! Campaigns: tests that repeat one promise with fresh random choices for as long as they are given.
//!
//! A campaign is an ordinary test named `soak_<name>`. In a normal run it lasts seconds; `tests/soak <name> --for 30m`
//! gives it time, seeds, and adds up what it counted in `docs/reliability.md`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::must::Must;
use crate::random::{Random, seed};

/// How long a campaign lasts in a normal test run.
const BRIEF: Duration = Duration::from_secs(5);

/// One run of a campaign: its time, its random choices, its counts.
#[derive(Debug)]
pub struct Campaign {
    name: &'static str,
    end: Instant,
    brief: bool,
    rounds: u64,
    counts: Vec<(&'static str, u64)>,
    /// Everything random in the campaign comes from here.
    pub random: Random,
}

impl Campaign {
    /// Starts the clock: `FARSHORE_SOAK_SECONDS`, else a few seconds; and prints the seed, which is `FARSHORE_SEED`.
    /// `name` is the test's name without `soak_`.
    ///
    /// # Panics
    /// If a variable is not a whole number.
    #[must_use]
    pub fn start(name: &'static str) -> Self {
        let (length, brief) = match std::env::var("FARSHORE_SOAK_SECONDS") {
            Ok(text) => {
                (Duration::from_secs(text.parse().must("FARSHORE_SOAK_SECONDS is a whole number")), false)
            }
            Err(_) => (BRIEF, true),
        };
        let seed = seed();
        print_line(&format!("soak {name} starts: seed {seed}, {length:?}"));
        let (end, rounds, counts, random) = (Instant::now() + length, 0, Vec::new(), Random::new(seed));
        Self { name, end, brief, rounds, counts, random }
    }

    /// Is this a normal test run's slice? A round should be short then.
    pub fn is_brief(&self) -> bool {
        self.brief
    }

    /// May another round begin? The first always may, so that a campaign never passes having done nothing.
    pub fn next_round(&mut self) -> bool {
        let go_on = self.rounds == 0 || Instant::now() < self.end;
        self.rounds += u64::from(go_on);
        go_on
    }

    /// Adds to a count.
    pub fn count(&mut self, what: &'static str, more: u64) {
        match self.counts.iter_mut().find(|(name, _)| *name == what) {
            Some((_, sum)) => *sum += more,
            None => self.counts.push((what, more)),
        }
    }

    /// Ends the campaign: all its rounds held. Prints the one line that `tests/soak` adds up.
    pub fn finish(self) {
        let mut line = format!("soak {}: rounds={}", self.name, self.rounds);
        for (what, sum) in &self.counts {
            let _to_a_string = write!(line, " {what}={sum}");
        }
        print_line(&line);
    }
}

/// Straight to standard output: the line is for the script, also where the test harness captures what is printed.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").must("print");
}
