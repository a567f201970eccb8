//! The fence holds in every interleaving: `FORMAT.md` section 5.
//!
//! Goal: the claim. What a writer counts as stored is part of the journal for ever, and no object stands outside the
//! journal. Method: an exhaustive walk over all states of a small world: two or three writers that run the real
//! decision functions, one store that creates only once, and a network in which a put may be answered, lose its
//! answer, wait while its writer goes on or dies, land late, or vanish. In the second world time passes and tidy
//! deletes. Objects have no kind here, so that an append is log or a renewal (R8). Each rule is also switched off, and the walk must then find a violation: the model can fail.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use farshore_journal::Sequence;
use farshore_journal::protocol::{Act, Appended, Appending, Opened, Opening, Seen};

/// A confirmation in the tick of the former send counts, one in the next tick does not.
const GRACE_TICKS: u8 = 2;

/// An object by name: its writer and its number among the writer's objects.
type Name = (u8, u8);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Object {
    name: Name,
    before: Option<Name>,
    made: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    Absent,
    /// The journal's end was read at this tick: its length and its last object.
    Read(u8, u8, Option<Name>),
    Opening(Opening, Object, u8),
    Owning,
    /// One append in flight; more only where R2 is switched off.
    Appending(Vec<(Appending, Object, u8)>),
    Fenced,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Writer {
    state: State,
    made: u8,
    appends_left: u8,
    last: Option<Name>,
    next: u8,
    former_sent: u8,
    counted: Vec<(u8, Name)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    /// What stands at each number now.
    store: Vec<Option<Object>>,
    /// What a verified segment holds of each number.
    merged: Vec<Option<Object>>,
    late: Vec<(u8, Object)>,
    writers: Vec<Writer>,
    now: u8,
    /// A writer was fenced by its own object.
    fenced_by_itself: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// R2: the next chunk is sent before the one before is confirmed.
    OneInFlight,
    /// R4: a lost answer is taken for success.
    LostMeansStored,
    /// R4: a number that is not there is left for the next one.
    AbsentMeansNext,
    /// R5: a writer that meets another goes on behind it.
    GoOnBehind,
    /// R6: a confirmation counts however late.
    NeverTooLate,
    /// R6: an opening counts however long ago the journal's end was read.
    StaleOpening,
}

#[derive(Clone, Copy)]
struct Bounds {
    writers: u8,
    appends: u8,
    late: usize,
    ticks: u8,
    tidy: bool,
    /// Openings of one writer beyond its first: lost races, and confirmations that came too late.
    reopenings: u8,
}

impl Writer {
    fn new(appends_left: u8) -> Self {
        Self {
            state: State::Absent,
            made: 0,
            appends_left,
            last: None,
            next: 0,
            former_sent: 0,
            counted: Vec::new(),
        }
    }
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let room = usize::from(bounds.writers * (bounds.appends + bounds.reopenings + 2) + 1);
        Self {
            store: vec![None; room],
            merged: vec![None; room],
            late: Vec::new(),
            writers: vec![Writer::new(bounds.appends); usize::from(bounds.writers)],
            now: 0,
            fenced_by_itself: false,
        }
    }

    /// The journal as `FORMAT.md` defines it. A verified segment's word goes before an object's.
    fn journal(&self) -> Vec<Name> {
        let mut names: Vec<Name> = Vec::new();
        for (merged, stored) in self.merged.iter().zip(&self.store) {
            match merged.or(*stored).filter(|object| object.before == names.last().copied()) {
                Some(object) => names.push(object.name),
                None => break,
            }
        }
        names
    }

    fn violation(&self) -> Option<String> {
        if self.fenced_by_itself {
            return Some("a writer was fenced by its own object".to_owned());
        }
        let journal = self.journal();
        for (number, name) in self.writers.iter().flat_map(|writer| &writer.counted) {
            if journal.get(usize::from(*number)) != Some(name) {
                return Some(format!("{name:?} was counted at {number}, the journal is {journal:?}"));
            }
        }
        // A late put may fill a number that tidy freed: readers prefer the segment, verify reports the object.
        let freed = self.merged.iter().any(Option::is_some);
        let outside = self.store.iter().flatten().find(|o| !freed && !journal.contains(&o.name))?;
        Some(format!("{:?} stands outside the journal {journal:?}", outside.name))
    }

    fn create(&mut self, number: u8, mut object: Object) -> bool {
        let slot = &mut self.store[usize::from(number)];
        if slot.is_some() {
            return false;
        }
        object.made = self.now;
        *slot = Some(object);
        true
    }

    /// All outcomes of one act.
    fn outcomes(&self, act: Act, object: Object, bounds: Bounds) -> Vec<(World, Seen)> {
        let mut out = vec![(self.clone(), Seen::Nothing)];
        match act {
            Act::Put(number) => {
                let number = number.get() as u8;
                let mut landed = self.clone();
                let new = landed.create(number, object);
                out.push((landed.clone(), if new { Seen::New } else { Seen::Exists }));
                out.push((landed, Seen::Unknown));
                if self.late.len() < bounds.late {
                    let mut late = self.clone();
                    late.late.push((number, object));
                    out.push((late, Seen::Unknown));
                }
            }
            Act::Read(number) => {
                let seen = match self.store[number.get() as usize] {
                    None => Seen::Absent,
                    Some(there) if there.name == object.name => Seen::Own,
                    Some(_) => Seen::Other,
                };
                out.push((self.clone(), seen));
            }
        }
        out
    }

    /// Every world that one step of anyone leads to.
    fn steps(&self, bounds: Bounds, broken: Broken) -> Vec<World> {
        let mut out = Vec::new();
        for which in 0..self.late.len() {
            let mut vanished = self.clone();
            let (number, object) = vanished.late.remove(which);
            let mut landed = vanished.clone();
            landed.create(number, object);
            out.extend([vanished, landed]);
        }
        if self.now < bounds.ticks {
            let mut later = self.clone();
            later.now += 1;
            out.push(later);
        }
        if bounds.tidy {
            out.extend(self.tidied());
        }
        for who in 0..self.writers.len() {
            // A writer that dies is one that takes no step any more: every walk in which it takes none holds that too.
            self.writer_steps(who, bounds, broken, &mut out);
        }
        out
    }

    /// Worse than R7 allows: any chunk of the journal, one grace after it was made. Tidy spares openings, but expiry will
    /// take them one day, and the fence must hold then too.
    fn tidied(&self) -> Vec<World> {
        let journal = self.journal();
        let old = |number: &usize| {
            let object = self.store[*number]?;
            let tidy = self.now >= object.made + GRACE_TICKS && object.name == journal[*number];
            tidy.then_some((*number, object))
        };
        let freed = (0..journal.len()).filter_map(|number| old(&number)).map(|(number, object)| {
            let mut world = self.clone();
            world.merged[number] = Some(object);
            world.store[number] = None;
            world
        });
        freed.collect()
    }

    fn writer_steps(&self, who: usize, bounds: Bounds, broken: Broken, out: &mut Vec<World>) {
        let writer = &self.writers[who];
        match &writer.state {
            State::Absent => out.push(self.read_end(who)),
            State::Read(at, free, last) => out.push(self.begin_opening(who, *at, *free, *last)),
            State::Fenced => {}
            State::Owning if writer.appends_left > 0 => {
                out.push(self.begin_append(who, writer.next, writer.last));
            }
            State::Owning => {}
            State::Opening(opening, object, sent) => {
                let (Act::Put(number) | Act::Read(number)) = opening.act();
                for (mut world, seen) in self.outcomes(opening.act(), *object, bounds) {
                    let mut opening = *opening;
                    let grace = if broken == Broken::StaleOpening { 1_000 } else { u64::from(GRACE_TICKS) };
                    let since = Duration::from_secs(u64::from(world.now - *sent));
                    match opening.seen(seen, since, Duration::from_secs(grace)) {
                        Opened::Open => world.writers[who].state = State::Opening(opening, *object, *sent),
                        Opened::Owned => {
                            // Without the rule the writer's clock begins when its opening stands.
                            let since = if broken == Broken::StaleOpening { world.now } else { *sent };
                            let writer = &mut world.writers[who];
                            writer.last = Some(object.name);
                            writer.next = number.get() as u8 + 1;
                            writer.former_sent = since;
                            writer.state = State::Owning;
                        }
                        Opened::Behind => world = world.read_end(who),
                    }
                    out.push(world);
                }
            }
            State::Appending(flight) => {
                for which in 0..flight.len() {
                    self.append_steps(who, which, bounds, broken, out);
                }
                if broken == Broken::OneInFlight && flight.len() == 1 && writer.appends_left > 0 {
                    out.push(self.begin_append(who, writer.next + 1, Some(flight[0].1.name)));
                }
            }
        }
    }

    fn append_steps(&self, who: usize, which: usize, bounds: Bounds, broken: Broken, out: &mut Vec<World>) {
        let State::Appending(flight) = &self.writers[who].state else { return };
        let (append, object, sent) = flight[which];
        let (Act::Put(number) | Act::Read(number)) = append.act();
        let number = number.get() as u8;
        for (mut world, seen) in self.outcomes(append.act(), object, bounds) {
            let mut append = append;
            let seen =
                if broken == Broken::LostMeansStored && seen == Seen::Unknown { Seen::New } else { seen };
            let since = Duration::from_secs(u64::from(world.now - self.writers[who].former_sent));
            let grace = if broken == Broken::NeverTooLate { 1_000 } else { u64::from(GRACE_TICKS) };
            let appended = append.seen(seen, since, Duration::from_secs(grace));
            let writer = &mut world.writers[who];
            let State::Appending(flight) = &mut writer.state else { return };
            match appended {
                Appended::Open if broken == Broken::AbsentMeansNext && seen == Seen::Absent => {
                    writer.state = State::Owning;
                    writer.next = number + 1;
                    writer.last = Some(object.name);
                }
                Appended::Open => flight[which].0 = append,
                // In order only: what is behind an unconfirmed chunk is not counted.
                Appended::Stored if which > 0 => continue,
                Appended::Stored => {
                    flight.remove(0);
                    if flight.is_empty() {
                        writer.state = State::Owning;
                    }
                    writer.former_sent = sent;
                    writer.counted.push((number, object.name));
                    writer.last = Some(object.name);
                    writer.next = number + 1;
                }
                Appended::Fenced if broken == Broken::GoOnBehind => {
                    writer.state = State::Owning;
                    writer.next = number + 1;
                }
                Appended::Fenced => {
                    writer.state = State::Fenced;
                    world.fenced_by_itself =
                        self.store[usize::from(number)].is_some_and(|o| o.name == object.name);
                }
                Appended::TooLate => world = world.read_end(who),
            }
            out.push(world);
        }
    }

    fn make(&mut self, who: usize, before: Option<Name>) -> Object {
        let writer = &mut self.writers[who];
        writer.made += 1;
        Object { name: (who as u8, writer.made), before, made: 0 }
    }

    /// Reading the end is a step of its own: anything may happen between it and the opening.
    fn read_end(&self, who: usize) -> World {
        let mut world = self.clone();
        let journal = world.journal();
        world.writers[who].state = State::Read(world.now, journal.len() as u8, journal.last().copied());
        world
    }

    fn begin_opening(&self, who: usize, read: u8, free: u8, last: Option<Name>) -> World {
        let mut world = self.clone();
        let object = world.make(who, last);
        let opening = Opening::at(Sequence::new(u64::from(free)));
        world.writers[who].state = State::Opening(opening, object, read);
        world
    }

    fn begin_append(&self, who: usize, number: u8, before: Option<Name>) -> World {
        let mut world = self.clone();
        let object = world.make(who, before);
        let entry = (Appending::at(Sequence::new(u64::from(number))), object, world.now);
        let writer = &mut world.writers[who];
        writer.appends_left -= 1;
        match &mut writer.state {
            State::Appending(flight) => flight.push(entry),
            state => *state = State::Appending(vec![entry]),
        }
        world
    }
}

/// What a walk came across: a walk that never met a fence would prove nothing about it.
#[derive(Debug, Default)]
struct Walked {
    states: usize,
    counted: bool,
    fenced: bool,
    read_again: bool,
}

impl Walked {
    fn is_telling(&self) -> bool {
        self.states > 10_000 && self.counted && self.fenced && self.read_again
    }
}

/// Walks every reachable state; what it came across, or the first violation.
fn walk(bounds: Bounds, broken: Broken) -> Result<Walked, String> {
    let mut walked = Walked::default();
    let first = World::new(bounds);
    // Fingerprints instead of states: a collision (one in 2^64 per pair) could hide a state, never invent a violation.
    let fingerprint = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world);
    let mut known = HashSet::from([fingerprint(&first)]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        for next in world.steps(bounds, broken) {
            if let Some(what) = next.violation() {
                return Err(what);
            }
            for writer in &next.writers {
                walked.counted |= !writer.counted.is_empty();
                walked.fenced |= writer.state == State::Fenced;
                walked.read_again |= writer.made > 0 && matches!(writer.state, State::Read(..));
            }
            // A writer that never gets an answer may open for ever: its objects bound it.
            if next.writers.iter().any(|writer| writer.made > bounds.appends + bounds.reopenings + 1) {
                continue;
            }
            if known.insert(fingerprint(&next)) {
                open.push(next);
            }
        }
    }
    walked.states = known.len();
    Ok(walked)
}

const TWO: Bounds = Bounds { writers: 2, appends: 2, late: 2, ticks: 0, tidy: false, reopenings: 1 };
const THREE: Bounds = Bounds { writers: 3, appends: 1, late: 1, ticks: 0, tidy: false, reopenings: 2 };
const TIDIED: Bounds = Bounds { writers: 2, appends: 1, late: 1, ticks: 3, tidy: true, reopenings: 0 };

#[test]
fn what_two_writers_count_is_in_the_journal_in_every_interleaving() {
    let walked = walk(TWO, Broken::Nothing).unwrap();
    println!("two writers: {} states", walked.states);
    assert!(walked.is_telling(), "the walk must not have been cut short: {walked:?}");
}

#[test]
fn what_three_writers_count_is_in_the_journal_in_every_interleaving() {
    let walked = walk(THREE, Broken::Nothing).unwrap();
    println!("three writers: {} states", walked.states);
    assert!(walked.is_telling(), "the walk must not have been cut short: {walked:?}");
}

#[test]
fn what_is_counted_stays_in_the_journal_while_tidy_deletes() {
    let walked = walk(TIDIED, Broken::Nothing).unwrap();
    println!("two writers, tidy: {} states", walked.states);
    assert!(walked.is_telling(), "the walk must not have been cut short: {walked:?}");
}

#[test]
fn without_any_one_rule_the_claim_breaks() {
    for broken in [Broken::OneInFlight, Broken::LostMeansStored, Broken::AbsentMeansNext, Broken::GoOnBehind]
    {
        let found = walk(TWO, broken).expect_err(&format!("{broken:?} must be found out"));
        println!("{broken:?}: {found}");
    }
    for broken in [Broken::NeverTooLate, Broken::StaleOpening] {
        let found = walk(TIDIED, broken).expect_err(&format!("{broken:?} must be found out"));
        println!("{broken:?}: {found}");
    }
}
