//! How long each phase of a drill takes, by the monotonic clock.
//!
//! What always holds: phases follow each other and none is counted twice: where one begins the one before ends. A phase that was not come to has no time, and one that needed
//! nothing has the time zero.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use farshore_applier::restore::{self, Progress};
use farshore_journal::format::certificate::Measured;

/// A drill's phases, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Finding out what to restore.
    Plan,
    /// Base and log into place.
    Fetch,
    /// Replaying the log.
    Replay,
    /// Opening.
    Open,
    /// Checks.
    Check,
    /// Removing the copy.
    Cleanup,
}

impl Phase {
    const ALL: [Self; 6] = [Self::Plan, Self::Fetch, Self::Replay, Self::Open, Self::Check, Self::Cleanup];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Fetch => "fetch",
            Self::Replay => "replay",
            Self::Open => "open",
            Self::Check => "check",
            Self::Cleanup => "cleanup",
        }
    }
}

struct Now {
    phase: Phase,
    since: Option<Instant>,
    spent: [Option<Duration>; Phase::ALL.len()],
}

/// The clock of one drill.
pub struct Clock(Mutex<Now>);

impl Clock {
    /// Begins with the plan.
    pub fn start() -> Self {
        let spent = [None; Phase::ALL.len()];
        Self(Mutex::new(Now { phase: Phase::Plan, since: Some(Instant::now()), spent }))
    }

    /// The phase in hand.
    pub fn phase(&self) -> Phase {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).phase
    }

    /// Ends the phase in hand and begins this one. Of a recovery those that are passed over took no time.
    pub fn begin(&self, phase: Phase) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.turn(phase);
    }

    /// Begins the phase that a restore's progress shows. A server replays once its files are there; a file's log is applied as it comes, and it is open once it has its
    /// name.
    pub fn seen(&self, progress: &Progress, is_server: bool) {
        let phase = match (progress.phase, is_server) {
            (restore::Phase::Copying, false) if progress.log.is_some() => Phase::Replay,
            (restore::Phase::Copying, _) | (restore::Phase::Synchronising, true) => Phase::Fetch,
            (restore::Phase::Synchronising, false) | (restore::Phase::Opening, _) => Phase::Open,
            (restore::Phase::Replaying, _) => Phase::Replay,
        };
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Workers tell of pieces in any order: a restore goes back to fetching only where it begins anew, which `begin` says.
        if phase > now.phase && now.since.is_some() {
            now.turn(phase);
        }
    }

    /// The copy answered for the first time: it is open, and what follows are checks.
    pub fn answered(&self) {
        self.begin(Phase::Check);
    }

    /// Ends the phase in hand.
    pub fn end(&self) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.settle();
        now.since = None;
    }

    /// How long each took.
    pub fn measured(&self) -> Measured {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |phase: Phase| now.spent[phase as usize].map(super::micros);
        Measured {
            plan_us: of(Phase::Plan),
            fetch_us: of(Phase::Fetch),
            replay_us: of(Phase::Replay),
            open_us: of(Phase::Open),
            check_us: of(Phase::Check),
            cleanup_us: of(Phase::Cleanup),
        }
    }
}

impl Now {
    fn settle(&mut self) {
        if let Some(since) = self.since {
            let spent = &mut self.spent[self.phase as usize];
            *spent = Some(spent.unwrap_or_default() + since.elapsed());
        }
    }

    fn turn(&mut self, phase: Phase) {
        self.settle();
        // Passed over on the way, so needed nothing: but for a drill that broke off, which goes to its cleanup from anywhere.
        if phase != Phase::Cleanup {
            for passed in Phase::ALL.into_iter().filter(|passed| self.phase < *passed && *passed < phase) {
                self.spent[passed as usize].get_or_insert_default();
            }
        }
        (self.phase, self.since) = (phase, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Offset;

    fn progress(phase: restore::Phase, log: Option<u64>) -> Progress {
        Progress { phase, done_bytes: 0, total_bytes: 0, eta_seconds: None, log: log.map(Offset::new) }
    }

    #[test]
    fn each_phase_has_its_own_time_and_a_recovery_is_the_sum_of_its_four() {
        let clock = Clock::start();
        let began = Instant::now();
        let step = Duration::from_millis(15);
        farshore_testkit::process::let_pass(step);
        clock.begin(Phase::Fetch);
        farshore_testkit::process::let_pass(step);
        clock.seen(&progress(restore::Phase::Copying, None), true);
        clock.seen(&progress(restore::Phase::Replaying, Some(5)), true);
        assert_eq!(clock.phase(), Phase::Replay);
        farshore_testkit::process::let_pass(step);
        clock.seen(&progress(restore::Phase::Copying, None), true);
        assert_eq!(clock.phase(), Phase::Replay, "a late word of a worker turns nothing back");
        clock.seen(&progress(restore::Phase::Opening, None), true);
        farshore_testkit::process::let_pass(step);
        clock.begin(Phase::Check);
        clock.begin(Phase::Cleanup);
        clock.end();
        let all = super::super::micros(began.elapsed());
        let measured = clock.measured();
        for phase in [measured.plan_us, measured.fetch_us, measured.replay_us, measured.open_us] {
            assert!(phase.unwrap() >= 15_000, "{measured:?}");
        }
        let sum = measured.recovery_us().unwrap() + measured.check_us.unwrap() + measured.cleanup_us.unwrap();
        assert!(sum <= all, "nothing is counted twice: {sum} of {all}");
    }

    #[test]
    fn a_phase_without_work_took_no_time_and_one_that_was_not_come_to_is_not_known() {
        let clock = Clock::start();
        clock.begin(Phase::Fetch);
        // A file without log behind its base.
        clock.seen(&progress(restore::Phase::Synchronising, None), false);
        assert_eq!(clock.phase(), Phase::Open);
        assert_eq!(clock.measured().replay_us, Some(0));
        let broken = Clock::start();
        broken.begin(Phase::Fetch);
        broken.begin(Phase::Cleanup);
        broken.end();
        let measured = broken.measured();
        assert!(measured.fetch_us.is_some() && measured.cleanup_us.is_some());
        assert_eq!((measured.replay_us, measured.open_us, measured.recovery_us()), (None, None, None));
    }

    #[test]
    fn a_files_log_is_replayed_as_it_comes() {
        let clock = Clock::start();
        clock.begin(Phase::Fetch);
        clock.seen(&progress(restore::Phase::Copying, None), false);
        assert_eq!(clock.phase(), Phase::Fetch);
        clock.seen(&progress(restore::Phase::Copying, Some(9)), false);
        assert_eq!(clock.phase(), Phase::Replay);
    }
}
