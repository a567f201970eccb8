//! The spool's decisions in a world of a few variables that does its worst: stores go and come, the service dies and begins not knowing where they end, looks are
//! late, and the primary forgets at once whatever its keep slot does not hold.

use std::collections::BTreeSet;

use farshore_journal::{Offset, Position, Timeline};
use farshore_testkit::random::Random;

use super::Run;
use super::decide::{Floor, View, Wish, decide, floor, let_go};
use crate::resume::compare_floor;
use crate::retention;

const SEGMENT: u64 = 1 << 20;
const ABOVE: u64 = 4 * SEGMENT;
const ROOM: usize = 12;

/// A rule that is switched off, to see that the walk notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// A segment counts before it is written.
    Written,
    /// Segments are removed though it is not known where a target ends.
    Knowledge,
    /// The slot moves to what was flushed, and not to what is spooled.
    Spooled,
}

#[derive(Debug, Clone, Default)]
struct Target {
    /// What its store has.
    stored: u64,
    /// What the service knows of that.
    known: Option<u64>,
    /// What of it was compared with the source.
    compared: Option<u64>,
    is_away: bool,
}

/// What is told of the spool.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    run: Option<Run>,
    taking: bool,
}

#[derive(Debug)]
struct World {
    random: Random,
    without: Option<Without>,
    flushed: u64,
    slot: u64,
    /// From where on the primary has log.
    oldest: u64,
    /// Segments in the spool, by number.
    files: BTreeSet<u64>,
    targets: [Target; 2],
    told: Told,
    /// The next segment that is gathered, while log is taken.
    gathers: Option<u64>,
    /// What a keeper that is late saw.
    seen: (Told, [Target; 2]),
    puts: u64,
    removed: u64,
    drained: u64,
}

fn at(offset: u64) -> Option<Position> {
    Some(Position::new(Timeline::new(1), Offset::new(offset)))
}

impl World {
    fn new(seed: u64, without: Option<Without>) -> Self {
        let target =
            Target { stored: SEGMENT, known: Some(SEGMENT), compared: Some(SEGMENT), is_away: false };
        Self {
            random: Random::new(seed),
            without,
            flushed: SEGMENT,
            slot: 0,
            oldest: 0,
            files: BTreeSet::new(),
            targets: [target.clone(), target],
            told: Told::default(),
            gathers: None,
            seen: Default::default(),
            puts: 0,
            removed: 0,
            drained: 0,
        }
    }

    /// As `Segments::run_around`.
    fn run_around(&self, slot: u64) -> Option<Run> {
        let first = slot / SEGMENT;
        let (mut start, mut end) = (first, first);
        while start > 0 && self.files.contains(&(start - 1)) {
            start -= 1;
        }
        while self.files.contains(&end) {
            end += 1;
        }
        let offset = |number| Offset::new(number * SEGMENT);
        (start < end).then_some(Run { timeline: Timeline::new(1), start: offset(start), end: offset(end) })
    }

    fn floor(&self) -> Floor {
        let mut known: Vec<_> = self.targets.iter().map(|target| target.known.and_then(at)).collect();
        if self.without == Some(Without::Knowledge) {
            known.retain(Option::is_some);
        }
        floor(&known, Timeline::new(1), SEGMENT)
    }

    fn view(&self, run: Option<Run>) -> View {
        View {
            slot: Offset::new(self.slot),
            flushed: Offset::new(self.flushed),
            fork: Offset::new(0),
            floor: self.floor(),
            run,
            taking: self.gathers.is_some(),
            above: ABOVE,
            segment_bytes: SEGMENT,
        }
    }

    fn tidy(&mut self) {
        if let Floor::At(floor) = self.floor() {
            let before = self.files.len();
            self.files.retain(|number| (number + 1) * SEGMENT > floor.get());
            self.removed += (before - self.files.len()) as u64;
            if let Some(run) = &mut self.told.run {
                run.start = run.start.max(floor);
            }
            self.told.run = self.told.run.filter(|run| run.start < run.end);
        }
    }

    /// The spool's task does one thing.
    fn spool(&mut self) {
        self.tidy();
        match self.gathers {
            None => {
                let run = self.run_around(self.slot);
                self.told = Told { run, taking: false };
                if let Wish::Take { from, known } = decide(&self.view(run)) {
                    assert!(
                        from.get() >= self.oldest,
                        "what is compared first is asked of a primary that forgot it"
                    );
                    self.gathers = Some(known.get() / SEGMENT);
                    self.told.taking = true;
                }
            }
            Some(number) => {
                if !matches!(decide(&self.view(self.told.run)), Wish::Take { .. })
                    || self.random.below(12) == 0
                {
                    (self.gathers, self.told.taking) = (None, false);
                    return;
                }
                if (number + 1) * SEGMENT > self.flushed {
                    return;
                }
                let fails = self.files.len() >= ROOM || self.random.below(10) == 0;
                if fails && self.without != Some(Without::Written) {
                    (self.gathers, self.told.taking) = (None, false);
                    return;
                }
                if !fails {
                    self.files.insert(number);
                    self.puts += 1;
                }
                let start = self.told.run.map_or(number * SEGMENT, |run| run.start.get());
                let (start, end) = (Offset::new(start), Offset::new((number + 1) * SEGMENT));
                self.told.run = Some(Run { timeline: Timeline::new(1), start, end });
                self.gathers = Some(number + 1);
            }
        }
    }

    /// The keeper moves the slot, on what it saw a while ago as the case may be, and the primary forgets.
    fn keep(&mut self) {
        if self.random.below(3) > 0 {
            self.seen = (self.told, self.targets.clone());
        }
        let (told, targets) = &self.seen;
        let compared: Vec<_> = targets.iter().map(|target| target.compared.and_then(at)).collect();
        let released = retention::released(&compared, SEGMENT).map(|released| released.offset);
        let run = told.run.filter(|_| told.taking);
        let (slot, flushed) = (Offset::new(self.slot), Offset::new(self.flushed));
        let to = match (self.without, run) {
            (Some(Without::Spooled), Some(_)) => compare_floor(flushed, SEGMENT).max(slot),
            _ => let_go(slot, released, run, flushed, SEGMENT),
        };
        self.slot = to.get();
        self.oldest = self.oldest.max(self.slot / SEGMENT * SEGMENT);
    }

    /// A target's pipeline stores what it gets hold of: by the stream where the primary has what is compared, from the spool else.
    fn ship(&mut self, which: usize) {
        let target = &self.targets[which];
        if target.is_away {
            return;
        }
        let (stored, from) = (target.stored, compare_floor(Offset::new(target.stored), SEGMENT).get());
        let by_stream = from >= self.oldest;
        let reach = if by_stream {
            self.flushed
        } else {
            let mut end = from / SEGMENT;
            while self.files.contains(&end) {
                end += 1;
            }
            end * SEGMENT
        };
        assert!(reach >= stored, "target {which} stands at {stored}, the spool leads to {reach}: {self:?}");
        let more = self.random.below(3 * SEGMENT).min(reach - stored);
        let target = &mut self.targets[which];
        target.stored += more;
        target.known = Some(target.stored);
        match by_stream {
            true => target.compared = Some(target.stored),
            false => self.drained += more,
        }
    }

    /// The service dies, and begins not knowing where anything ends.
    fn die(&mut self) {
        (self.told, self.gathers, self.seen) = Default::default();
        for target in &mut self.targets {
            (target.known, target.compared) = (None, None);
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..25 => self.flushed += self.random.below(2 * SEGMENT),
            25..55 => self.spool(),
            55..75 => self.keep(),
            75..92 => {
                let which = usize::from(self.random.below(2) == 1);
                self.ship(which);
            }
            92..98 => {
                let which = usize::from(self.random.below(2) == 1);
                // The second is away for long.
                self.targets[which].is_away = self.random.below(2 + 4 * which as u64) != 0;
            }
            _ => self.die(),
        }
    }

    /// Every byte that a target may ask for is at the primary or in the spool.
    fn lacks(&self) -> Option<u64> {
        let least = self.targets.iter().map(|target| target.stored).min()?;
        let from = compare_floor(Offset::new(least), SEGMENT).get() / SEGMENT;
        (from..self.oldest / SEGMENT).find(|number| !self.files.contains(number))
    }
}

/// Walks until something is missing: after how many steps, and which segment.
fn walk(seed: u64, without: Option<Without>, steps: u64) -> (World, Option<(u64, u64)>) {
    let mut world = World::new(seed, without);
    for step in 0..steps {
        world.step();
        if let Some(number) = world.lacks() {
            return (world, Some((step, number)));
        }
    }
    (world, None)
}

#[test]
fn whatever_happens_no_log_that_a_store_lacks_is_neither_at_the_primary_nor_in_the_spool() {
    let seed = farshore_testkit::random::seed();
    let (mut puts, mut removed, mut drained, mut let_go) = (0, 0, 0, 0);
    for walked in 0..300 {
        let (world, found) = walk(seed.wrapping_add(walked), None, 2000);
        assert_eq!(found, None, "seed {}: {world:?}", seed.wrapping_add(walked));
        let least = world.targets.iter().map(|target| target.stored).min().unwrap();
        let_go += u64::from(world.oldest > least);
        (puts, removed, drained) = (puts + world.puts, removed + world.removed, drained + world.drained);
    }
    // The walk went where it is dangerous.
    assert!(
        puts > 10_000 && removed > 5000 && drained > 1000 * SEGMENT && let_go > 20,
        "{puts} {removed} {drained} {let_go}"
    );
}

#[test]
fn each_rule_is_needed() {
    let seed = farshore_testkit::random::seed();
    for without in [Without::Written, Without::Knowledge, Without::Spooled] {
        let found = (0..300).any(|walked| {
            std::panic::catch_unwind(|| walk(seed.wrapping_add(walked), Some(without), 2000).1.is_some())
                .unwrap_or(true)
        });
        assert!(found, "nothing is lost without {without:?}: the walk is too tame");
    }
}
