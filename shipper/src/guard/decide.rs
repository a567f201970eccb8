//! What the guard does next: pure. `docs/adr/2026-11-28-the-guard.md` has the argument, and the numbers of its rules are used here.
//!
//! What always holds: commits are let go only behind an exposure that was opened, and one is ended only when every commit that did not wait is stored. Whoever acts
//! says what was done ([`Decider::did`]); what was not said was not done, and is asked for again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use farshore_catalog::guard::GuardPhase as Phase;
use farshore_journal::{Offset, Position};

/// How long enough stores must be there before commits wait for them again, at first.
const STRETCH_FIRST: Duration = Duration::from_secs(3);
/// And at most, in timeouts: of a store that fails again and again commits wait for a tenth of the time.
const STRETCH_LONGEST: u32 = 10;
/// Whoever had to disarm within this time of arming waits for twice as long before he arms again.
const CALM: Duration = Duration::from_secs(600);
/// How long after the guard's own session sees the setting a sign that it counts is one (rule 5).
const SEEN_FOR: Duration = Duration::from_secs(1);
/// Two looks further apart than this leave unknown what was between them (rule 7).
const GAP: Duration = Duration::from_secs(5);
/// How far apart two looks at the checkpointer are, to be two.
const APART: Duration = Duration::from_millis(200);
/// Within this time a guard that looks notices that the setting was changed.
pub const NOTICED: Duration = Duration::from_secs(2);
/// How long a setting that was changed may not be seen before it is changed again.
const AGAIN: Duration = Duration::from_secs(2);
/// Ends of log that are remembered with their times.
const REMEMBERED: usize = 4096;

/// What the setting says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// What makes commits wait for the database's stores.
    Armed,
    /// Nothing.
    Disarmed,
    /// Something else: somebody's own will.
    Other(String),
}

/// A backend that waits for a standby.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// Its process.
    pub process: i32,
    /// When its statement began, as the server says.
    pub statement: String,
}

/// One look at the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When, since the guard began, by a clock that never steps.
    pub at: Duration,
    /// The same moment by the server's clock, in microseconds: a guard whose machine was halted has no other sign of the time.
    pub server_micros: i64,
    /// The setting, as the guard's own session sees it.
    pub names: Names,
    /// When the session last took the server's configuration files, as the server says.
    pub loaded: String,
    /// The end of its flushed log.
    pub flushed: Position,
    /// What enough stores have, as their streams said after `flushed` was asked for.
    pub stored: Option<Offset>,
    /// Backends that wait for a standby, those whose statements are oldest first; perhaps not all.
    pub waiters: Vec<Waiter>,
    /// Whether the checkpointer was where it takes signals.
    pub attentive: bool,
    /// Which start of the server, and which session of the guard, it is.
    pub life: (String, u64),
}

/// Why commits do not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// They waited for the timeout.
    Waited,
    /// The guard found it so when it began.
    FoundDisarmed,
    /// Somebody else took farshore out of the setting.
    DisarmedByAnother,
    /// The setting says something of somebody's own.
    HandsOff,
    /// The guard did not look all the time: it, its session or the server began anew, or another timeline.
    Unwatched,
}

impl Why {
    /// Its word in ledgers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waited => "waited",
            Self::FoundDisarmed => "found_disarmed",
            Self::DisarmedByAnother => "disarmed_by_another",
            Self::HandsOff => "hands_off",
            Self::Unwatched => "unwatched",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Watch,
    /// Open the exposure on disk, if none is open; then take farshore out of the setting.
    Disarm,
    /// Open the exposure on disk: commits do not wait, or are not known to.
    Open(Why),
    /// Put farshore into the setting.
    Arm,
    /// End the exposure: what was flushed up to there is stored, and every commit behind it waits.
    Close(Position),
}

/// Signs that an armed setting counts (rule 5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Signs {
    /// What [`Look::loaded`] was when it was set.
    before: String,
    /// Since when the guard's session sees it, by both clocks.
    seen: Option<(Duration, i64)>,
    /// When the checkpointer was first seen taking signals, behind that.
    attentive: Option<Duration>,
    /// It counts.
    counts: bool,
    /// What was flushed at a later look.
    until: Option<Position>,
}

/// The guard's mind.
#[derive(Debug, Clone)]
pub struct Decider {
    timeout: Duration,
    phase: Phase,
    open: bool,
    /// Ends of flushed log that were not stored when they were last looked at, oldest first.
    unstored: VecDeque<(Duration, Offset)>,
    /// Who waits, and since which look without a break.
    waiters: HashMap<Waiter, Duration>,
    last: Option<Look>,
    /// When the setting was last changed, until it is seen.
    asked: Option<Duration>,
    armed_at: Option<Duration>,
    /// Since when commits wait without a break.
    since: Option<Duration>,
    /// Since when enough stores are there.
    steady: Option<Duration>,
    stretch: Duration,
    signs: Signs,
}

impl Decider {
    /// One that begins; `open`: its ledger has an exposure that did not end.
    pub fn new(timeout: Duration, open: bool) -> Self {
        Self {
            timeout,
            phase: Phase::Unknown,
            open,
            unstored: VecDeque::new(),
            waiters: HashMap::new(),
            last: None,
            asked: None,
            armed_at: None,
            since: None,
            steady: None,
            stretch: STRETCH_FIRST,
            signs: Signs::default(),
        }
    }

    /// Where it is.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether an exposure is open.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Up to when commits are known to have waited, at a look that has just been taken. Whoever changes the setting is noticed a moment after commits go by it.
    pub fn sighted(&self, at: Duration) -> Option<Duration> {
        let since = self.since.filter(|_| self.phase == Phase::Armed && !self.open)?;
        at.checked_sub(NOTICED).filter(|sighted| *sighted >= since)
    }

    /// It is not looked without a break any more (rule 7).
    pub fn lost(&mut self) {
        self.signs = Signs::default();
        self.steady = None;
        if matches!(self.phase, Phase::Armed | Phase::Arming) {
            (self.phase, self.asked) = (Phase::Unknown, None);
        }
    }

    /// It begins to act, and the ledger is as it is now: another may have acted meanwhile.
    pub fn takes_over(&mut self, open: bool) {
        self.open = open;
        self.lost();
    }

    /// For how long the oldest flushed log that is not stored has been so, at this look.
    pub fn behind(&self, at: Duration) -> Duration {
        self.unstored.front().map_or(Duration::ZERO, |(since, _)| at.saturating_sub(*since))
    }

    /// For how long somebody has waited without a break, at the last look.
    pub fn waited(&self, at: Duration) -> Duration {
        self.waiters.values().map(|since| at.saturating_sub(*since)).max().unwrap_or_default()
    }

    /// Whether the setting that was asked for is not what commits go by yet, though it should long be.
    pub fn is_late(&self, at: Duration) -> bool {
        let asked = self.asked.or(self.signs.seen.map(|(seen, _)| seen + SEEN_FOR));
        matches!(self.phase, Phase::Disarmed | Phase::Arming)
            && self.signs.until.is_none()
            && asked.is_some_and(|asked| at.saturating_sub(asked) > AGAIN)
    }

    /// What to do after a look.
    pub fn look(&mut self, look: &Look) -> Step {
        self.remember(look);
        let changing = self.asked.is_some_and(|asked| look.at.saturating_sub(asked) < AGAIN);
        // Rule 2: somebody waited for so long, and what was flushed then is not stored yet.
        let over = self.waited(look.at) > self.timeout && self.behind(look.at) > self.timeout;
        match (self.phase, &look.names) {
            (_, Names::Other(_)) => {
                (self.phase, self.asked) = (Phase::HandsOff, None);
                self.opened(Why::HandsOff)
            }
            // What was before is not known (rule 7), and the right to arm is the right to disarm (rule 3).
            (Phase::Unknown | Phase::HandsOff, Names::Armed) if !self.open => Step::Open(Why::Unwatched),
            (Phase::Unknown | Phase::HandsOff, Names::Armed) => Step::Arm,
            (Phase::Unknown | Phase::HandsOff, Names::Disarmed) => {
                self.phase = Phase::Disarmed;
                self.opened(Why::FoundDisarmed)
            }
            (Phase::Armed | Phase::Arming, Names::Armed) if over => Step::Disarm,
            // An exposure was opened for what was then not done.
            (Phase::Armed, Names::Armed) if self.open => Step::Arm,
            (Phase::Armed, Names::Armed) => Step::Watch,
            (Phase::Armed, Names::Disarmed) => {
                self.disarmed(look.at);
                self.opened(Why::DisarmedByAnother)
            }
            (Phase::Disarmed, Names::Disarmed) => self.while_disarmed(look),
            // What was changed is not seen yet.
            (Phase::Disarmed, Names::Armed) if self.asked.is_some() => {
                if changing {
                    Step::Watch
                } else {
                    Step::Disarm
                }
            }
            // Somebody armed it.
            (Phase::Disarmed, Names::Armed) => Step::Arm,
            (Phase::Arming, Names::Armed) => self.while_arming(look),
            (Phase::Arming, Names::Disarmed) if self.signs.seen.is_none() => {
                if changing {
                    Step::Watch
                } else {
                    Step::Arm
                }
            }
            // Somebody disarmed it.
            (Phase::Arming, Names::Disarmed) => {
                self.disarmed(look.at);
                self.opened(Why::DisarmedByAnother)
            }
        }
    }

    /// A step was done.
    pub fn did(&mut self, step: Step, at: Duration) {
        match step {
            Step::Watch => {}
            Step::Open(_) => self.open = true,
            Step::Disarm => {
                self.open = true;
                if self.phase != Phase::Disarmed {
                    self.disarmed(at);
                }
                self.asked = Some(at);
            }
            Step::Arm => {
                (self.phase, self.asked, self.armed_at, self.steady) =
                    (Phase::Arming, Some(at), Some(at), None);
                let before = self.last.as_ref().map(|last| last.loaded.clone()).unwrap_or_default();
                self.signs = Signs { before, ..Signs::default() };
            }
            Step::Close(_) => {
                (self.open, self.phase, self.asked, self.since) = (false, Phase::Armed, None, Some(at));
            }
        }
    }

    fn opened(&self, why: Why) -> Step {
        if self.open { Step::Watch } else { Step::Open(why) }
    }

    fn disarmed(&mut self, at: Duration) {
        let soon = self.armed_at.is_some_and(|armed| at.saturating_sub(armed) < CALM);
        let longest = self.timeout.saturating_mul(STRETCH_LONGEST).max(STRETCH_FIRST);
        self.stretch = if soon { self.stretch.saturating_mul(2).min(longest) } else { STRETCH_FIRST };
        (self.phase, self.steady, self.asked) = (Phase::Disarmed, None, None);
        self.signs = Signs::default();
    }

    fn remember(&mut self, look: &Look) {
        if let Some(last) = &self.last {
            // Another history, another server or a while that nobody saw: what was waited for there says nothing here.
            let another = last.flushed.timeline != look.flushed.timeline
                || last.life.0 != look.life.0
                || look.at.saturating_sub(last.at) > GAP;
            if another {
                self.unstored.clear();
                self.waiters.clear();
            }
            if another || last.life.1 != look.life.1 {
                self.lost();
            }
        }
        let before = std::mem::take(&mut self.waiters);
        let since = |waiter: &Waiter| before.get(waiter).copied().unwrap_or(look.at);
        self.waiters = look.waiters.iter().map(|waiter| (waiter.clone(), since(waiter))).collect();
        self.last = Some(look.clone());
        let flushed = look.flushed.offset;
        if self.unstored.back().is_none_or(|(_, last)| *last < flushed) {
            if self.unstored.len() >= REMEMBERED {
                // The oldest says since when; of the others every second will do.
                let mut odd = false;
                self.unstored.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
            self.unstored.push_back((look.at, flushed));
        }
        while self.unstored.front().is_some_and(|(_, end)| look.stored.is_some_and(|stored| *end <= stored)) {
            self.unstored.pop_front();
        }
    }

    fn while_disarmed(&mut self, look: &Look) -> Step {
        if !self.open {
            return Step::Open(Why::FoundDisarmed);
        }
        // Commits that waited are still not let go: the setting was not taken.
        if let Some(asked) = self.asked {
            if look.waiters.is_empty() {
                self.asked = None;
            } else if look.at.saturating_sub(asked) >= AGAIN {
                return Step::Disarm;
            }
        }
        if look.stored.is_none() {
            self.steady = None;
            return Step::Watch;
        }
        let since = *self.steady.get_or_insert(look.at);
        // Whoever writes as fast as he can is ahead of his stores again and again while he need not wait for them: that they kept up at this moment is enough, or
        // a busy database would never be protected again.
        let keeps_up = self.behind(look.at) <= self.timeout / 2;
        if keeps_up && look.at.saturating_sub(since) >= self.stretch { Step::Arm } else { Step::Watch }
    }

    fn while_arming(&mut self, look: &Look) -> Step {
        // The same value, set again, is seen once the files were taken again.
        if self.signs.seen.is_none() && look.loaded == self.signs.before {
            let asked = self.asked.unwrap_or(look.at);
            return if look.at.saturating_sub(asked) < AGAIN { Step::Watch } else { Step::Arm };
        }
        let (seen, server) = *self.signs.seen.get_or_insert((look.at, look.server_micros));
        let by_server = look.server_micros.saturating_sub(server);
        if look.at.saturating_sub(seen) < SEEN_FOR
            || u128::try_from(by_server).is_ok_and(|by| by < SEEN_FOR.as_micros())
        {
            return Step::Watch;
        }
        if let Some(until) = self.signs.until {
            let stored = look.stored.is_some_and(|stored| stored >= until.offset);
            return if stored { Step::Close(until) } else { Step::Watch };
        }
        if self.signs.counts {
            // This look began behind the one that saw it count; a flush that was read in the same look may lie before it.
            self.signs.until = Some(look.flushed);
            return Step::Watch;
        }
        if look.attentive {
            let first = *self.signs.attentive.get_or_insert(look.at);
            self.signs.counts = look.at.saturating_sub(first) >= APART;
        }
        Step::Watch
    }
}
