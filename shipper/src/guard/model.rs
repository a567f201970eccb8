//! The guard in a primary of a few variables that does its worst: whoever reads the setting reads it late, acts fail or succeed unheard, the guard and the server die.

use std::time::Duration;

use farshore_catalog::guard::GuardPhase;
use farshore_journal::{Offset, Position, Timeline};
use farshore_testkit::random::Random;

use super::decide::{Decider, Look, Names, Step, Waiter, Why};

const TICK: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_secs(5);

fn waiter(commit: u64) -> Waiter {
    Waiter { process: i32::try_from(commit % 1000).unwrap(), statement: commit.to_string() }
}

/// A primary, a store and a guard's ledger.
struct World {
    seed: u64,
    random: Random,
    now: Duration,
    /// What the configuration file says, and since when it was to be read again.
    file: bool,
    signalled: Option<Duration>,
    /// What the guard's session sees, and what commits go by.
    session: bool,
    flag: bool,
    /// The checkpointer flushes until then, and takes no signal.
    busy_until: Duration,
    started: u32,
    /// How often the guard's session took the files, and which session it is.
    loaded: u32,
    sessions: u64,
    flushed: u64,
    stored: u64,
    store_works: bool,
    /// Commits that wait, and since when.
    waiting: Vec<(u64, Duration)>,
    /// Commits that were told to be done.
    acknowledged: Vec<(u64, Duration)>,
    open: bool,
    /// Acknowledged without being stored while no exposure was open, and when.
    uncovered: Vec<(u64, Duration)>,
    /// When a guard last saw that commits wait, as its machine's disk has it.
    sighted: Duration,
    exposures: u32,
    closed: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random::new(seed),
            now: Duration::ZERO,
            file: false,
            signalled: None,
            session: false,
            flag: false,
            busy_until: Duration::ZERO,
            started: 0,
            loaded: 0,
            sessions: 0,
            flushed: 10,
            stored: 0,
            store_works: true,
            waiting: Vec::new(),
            acknowledged: Vec::new(),
            open: false,
            uncovered: Vec::new(),
            sighted: Duration::ZERO,
            exposures: 0,
            closed: 0,
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    fn attentive(&self) -> bool {
        self.now >= self.busy_until
    }

    /// Time passes, and everybody but the guard does something.
    fn pass(&mut self, faults: bool) {
        self.now += TICK;
        if faults {
            if self.chance(40) {
                self.store_works = !self.store_works;
            }
            if self.chance(30) {
                self.busy_until = self.now + TICK * u32::try_from(self.random.below(40)).unwrap();
            }
            if self.chance(400) {
                self.restart();
            }
            if self.chance(300) {
                // Somebody takes farshore out, or puts it back.
                let armed = self.chance(2);
                self.set(armed);
            }
        }
        if let Some(signalled) = self.signalled {
            // The session reads it between statements; the checkpointer where it takes signals, a moment later.
            let late = TICK * u32::try_from(self.random.below(3)).unwrap();
            if self.now >= signalled + late {
                self.session = self.file;
                self.loaded += 1;
            }
            // Where it takes signals it may be seen a moment before it took one.
            let taken = self.now >= self.busy_until + TICK;
            if taken && self.now >= signalled + TICK {
                self.count(self.file);
                if self.session == self.file {
                    self.signalled = None;
                }
            }
        }
        for _ in 0..self.random.below(3) {
            self.flushed += 10;
            if self.flag {
                self.waiting.push((self.flushed, self.now));
            } else {
                self.acknowledge(self.flushed);
            }
        }
        if self.store_works {
            // Behind by a commit, now and then.
            let behind = 10 * self.random.below(2);
            self.stored = self.stored.max(self.flushed.saturating_sub(behind));
        }
        self.let_go();
    }

    fn restart(&mut self) {
        // Whoever waited hears nothing.
        self.waiting.clear();
        self.started += 1;
        self.sessions += 1;
        self.session = self.file;
        // Servers of old let commits go until the checkpointer runs.
        self.flag = self.file && self.chance(2);
        self.signalled = (self.flag != self.file).then_some(self.now);
    }

    fn count(&mut self, flag: bool) {
        self.flag = flag;
        if !flag {
            for (commit, _) in std::mem::take(&mut self.waiting) {
                self.acknowledge(commit);
            }
        }
    }

    fn let_go(&mut self) {
        let stored = self.stored;
        let (done, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(end, _)| *end <= stored);
        self.waiting = waiting;
        let done: Vec<(u64, Duration)> = done;
        for (commit, _) in done {
            self.acknowledge(commit);
        }
    }

    fn acknowledge(&mut self, commit: u64) {
        if commit > self.stored && !self.open {
            self.uncovered.push((commit, self.now));
        }
        self.acknowledged.push((commit, self.now));
    }

    /// What a guard says that was armed and has nothing open at the end of its look: whoever was told that his commit is done has it stored. Commits that were
    /// let go by others are in an exposure that says since when.
    fn promised(&mut self, guard: &Decider) {
        let Some(sighted) = guard.sighted(self.now) else { return };
        let (stored, flag, session) = (self.stored, self.flag, self.session);
        self.uncovered.retain(|(commit, _)| *commit > stored);
        assert!(
            self.uncovered.is_empty() || !session || !flag,
            "seed {}, at {:?}: {:?} acknowledged, {stored} stored, and the guard says that commits wait",
            self.seed,
            self.now,
            self.uncovered
        );
        self.sighted = sighted;
    }

    fn look(&self) -> Look {
        Look {
            at: self.now,
            names: if self.session { Names::Armed } else { Names::Disarmed },
            flushed: Position::new(Timeline::new(1), Offset::new(self.flushed)),
            stored: (self.stored > 0).then(|| Offset::new(self.stored)),
            server_micros: i64::try_from(self.now.as_micros()).unwrap(),
            loaded: self.loaded.to_string(),
            waiters: self.waiting.iter().map(|(commit, _)| waiter(*commit)).collect(),
            attentive: self.attentive(),
            life: (self.started.to_string(), self.sessions),
        }
    }

    fn set(&mut self, armed: bool) {
        self.file = armed;
        self.signalled = Some(self.now);
    }

    /// What a guard does of a step, in order; it may die or not hear an answer on the way.
    fn take(&mut self, step: Step, faults: bool, guard: &mut Decider) {
        if matches!(step, Step::Open(_) | Step::Disarm) && !self.open {
            self.open = true;
            self.exposures += 1;
            let since =
                if matches!(step, Step::Open(why) if why != Why::Waited) { self.sighted } else { self.now };
            let before: Vec<_> = self.uncovered.iter().filter(|(_, at)| *at < since).collect();
            assert!(
                before.is_empty(),
                "seed {}, at {:?}: an exposure begins at {since:?}, and {before:?} were let go before",
                self.seed,
                self.now
            );
            self.uncovered.clear();
        }
        if let Step::Close(_) = step {
            let behind = self.acknowledged.iter().filter(|(commit, _)| *commit > self.stored).copied();
            let behind: Vec<_> = behind.collect();
            // What somebody else let go this moment is noticed at a later look.
            assert!(
                behind.is_empty() || !self.flag,
                "seed {}, at {:?}: an exposure ended, and {behind:?} are not stored",
                self.seed,
                self.now
            );
            self.uncovered = behind;
            self.open = false;
            self.closed += 1;
        }
        if faults && self.chance(10) {
            // Done or not, nobody heard.
            if self.chance(2) {
                match step {
                    Step::Disarm => self.set(false),
                    Step::Arm => self.set(true),
                    _ => {}
                }
            }
            if step == Step::Disarm {
                // Its exposure was opened in any case.
                guard.did(Step::Open(Why::Waited), self.now);
            }
            if matches!(step, Step::Disarm | Step::Arm) {
                return;
            }
        }
        match step {
            Step::Disarm => self.set(false),
            Step::Arm => self.set(true),
            Step::Watch | Step::Open(_) | Step::Close(_) => {}
        }
        guard.did(step, self.now);
    }
}

fn run(seed: u64, faults: bool, ticks: u32) -> World {
    let mut world = World::new(seed);
    let mut guard = Decider::new(TIMEOUT, false);
    let mut away_until = Duration::ZERO;
    for _ in 0..ticks {
        world.pass(faults);
        if faults && world.chance(150) {
            // It dies, and another one begins later with the ledger.
            guard = Decider::new(TIMEOUT, world.open);
            world.sessions += 1;
            away_until = world.now + TICK * u32::try_from(world.random.below(60)).unwrap();
        }
        if world.now < away_until {
            continue;
        }
        let step = guard.look(&world.look());
        world.take(step, faults, &mut guard);
        world.promised(&guard);
    }
    // Everything works from now on, so everything is well in the end.
    world.store_works = true;
    for _ in 0..4 * 700 {
        world.pass(false);
        world.store_works = true;
        let step = guard.look(&world.look());
        world.take(step, false, &mut guard);
    }
    assert!(
        world.flag && !world.open && guard.phase() == GuardPhase::Armed,
        "{:?} in the end",
        guard.phase()
    );
    world
}

#[test]
fn no_commit_is_acknowledged_unprotected_without_an_exposure_and_none_ends_too_soon() {
    let (mut exposures, mut closed) = (0, 0);
    for seed in 0..150 {
        let world = run(seed, true, 4000);
        exposures += world.exposures;
        closed += world.closed;
    }
    assert!(
        exposures > 400 && closed > 300,
        "{exposures} exposures, {closed} of them ended: too few to show anything"
    );
}

#[test]
fn commits_wait_for_the_timeout_and_two_seconds_at_most_while_a_guard_is_there() {
    for seed in 0..100 {
        let mut world = run(seed, false, 100);
        let mut guard = Decider::new(TIMEOUT, world.open);
        world.exposures = 0;
        let mut longest = Duration::ZERO;
        for tick in 0..400 {
            world.store_works = tick < 40;
            world.pass(false);
            world.store_works = tick < 40;
            longest = world
                .waiting
                .iter()
                .map(|(_, since)| world.now - *since)
                .max()
                .unwrap_or_default()
                .max(longest);
            let step = guard.look(&world.look());
            world.take(step, false, &mut guard);
        }
        assert!(
            (1..=2).contains(&world.exposures) && longest > TIMEOUT - TICK * 2,
            "seed {seed}: {longest:?}, {} exposures",
            world.exposures
        );
        assert!(longest <= TIMEOUT + Duration::from_secs(2), "{longest:?}");
    }
}
