//! The tail holds in every interleaving: `FORMAT.md` section 5a.
//!
//! Goal: the claim. Whatever an owner counted, in chunks or in its tail, is before the opening of every newer owner, and before the end that any reader says who began to look afterwards. Method: an exhaustive
//! walk over all states of a small world: two owners one after another, of whom the first may sleep at any instruction, a reader that settles, and a store that carries out what was sent in groups, each write and each look by itself, also long after its owner gave it up.
//! Puts may lose their answers, land late or never. Log is counted in units; a chunk's chain value is what was stepped over. Rules are also switched off one by one (`Broken`), and the walk must then find a violation: the model can fail.
//! (That the end is read anew behind `closed` is not among them: an opener's put, and a reader's second look, find the same out later. Nor that a put waits for the answers, since a chunk holds all that was sent; nor the tidy grace. A tail is read in one step.)

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// How much of the world there is.
#[derive(Clone, Copy)]
struct Bounds {
    /// Units of log.
    log: u8,
    /// Entries and chunks that the first owner may send.
    entries: u8,
    chunks: u8,
    /// Whether there is a second owner, who takes over from the first; and a reader.
    second: bool,
    reader: bool,
}

const OWNERS: Bounds = Bounds { log: 3, entries: 3, chunks: 2, second: true, reader: false };
const READER: Bounds = Bounds { log: 3, entries: 3, chunks: 1, second: false, reader: true };
const ALL: Bounds = Bounds { log: 2, entries: 2, chunks: 1, second: true, reader: true };

/// What a chain value was stepped over: who, from where, to where. Frames alone count, not the number of chunks.
type Chain = Vec<(u8, u8, u8)>;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Chunk {
    generation: u8,
    /// An opening covers nothing.
    start: u8,
    end: u8,
    before: Chain,
    after: Chain,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Entry {
    number: u8,
    chunk: Chunk,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Tail {
    slots: Vec<Option<Entry>>,
    has_name: bool,
}

/// What carries the appends of one tail out, in their order: whoever sent them may have given it up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Appender {
    owner: usize,
    tail: (u8, u8),
    /// Sent and not taken yet, each with the number of its owner's next chunk.
    waits: Vec<(Entry, u8)>,
    /// Taken together: so many are written, and so many of the looks behind them were well (name, closed, number).
    group: Vec<(Entry, u8)>,
    written: usize,
    looks: u8,
    /// Whether somebody waits for the answers.
    is_heard: bool,
}

/// Where an owner is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    Asleep,
    /// The journal's end was read: its length and its last chunk's generation.
    Read,
    /// It closed this generation.
    Closed(u8),
    /// It read the end anew: so many chunks.
    ReadAnew(u8, u8),
    /// It puts entries from this number on.
    Putting(Vec<Entry>, u8, u8),
    /// Its opening is to be put at this number.
    Opening(u8, u8),
    Owning,
    /// Its chunk is on its way.
    Sent(Chunk),
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Owner {
    state: State,
    generation: u8,
    /// The number of its next chunk, and what is before it.
    next: u8,
    chain: Chain,
    at: u8,
    /// The round: the next entry's number and chain (behind all that were sent), what counts, what was sent.
    number: u8,
    round: Chain,
    counted: u8,
    sent: u8,
    tail: Option<u8>,
    /// The generation's tails are closed, as far as it knows.
    closed: bool,
    entries_left: u8,
    chunks_left: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Looking {
    Not,
    /// From here on: what was counted when it began.
    Began(u8),
    /// So many chunks were read, of this generation.
    Read(u8, u8, u8),
    /// The tail went on up to here: that is waited for, or put.
    Wants(u8, u8),
    Closed(u8, u8, u8),
    ReadAnew(u8, u8, u8, u8),
    Putting(u8, u8, Vec<Entry>, u8),
    /// Nothing goes on: whether a chunk came.
    Again(u8, u8),
    Said(u8, u8),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    store: Vec<Option<Chunk>>,
    late: Vec<(u8, Chunk)>,
    tails: BTreeMap<(u8, u8), Tail>,
    closed: BTreeSet<u8>,
    appenders: Vec<Appender>,
    owners: Vec<Owner>,
    reader: Looking,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// T1: a chunk holds what counted, not what was sent.
    HoldsCountedOnly,
    /// T2: the looks come before the write.
    LooksFirst,
    /// T2: `closed` is looked for after the number.
    ClosedLast,
    /// T2 and T3: one is taken though the one before it was lost on its way, and its answer counts.
    AnyOrder,
    /// T2: what came while it was looked is written, and answered with what was looked for.
    AnsweredTogether,
    /// T5: an opener closes nothing.
    NeverCloses,
    /// T6: entries are read, and not put.
    PutsNothing,
    /// T6: a reader does not look once more.
    NotAgain,
    /// T6: a chunk behind the end that was read is taken for the owner's, though it may be an entry that somebody puts.
    AnyChunkWillDo,
    /// T7: an owner deletes `closed` of its own generation, and goes on there.
    OwnClosed,
}

impl Owner {
    fn new((entries_left, chunks_left): (u8, u8)) -> Self {
        Self {
            state: State::Asleep,
            generation: 0,
            next: 0,
            chain: Vec::new(),
            at: 0,
            number: 0,
            round: Vec::new(),
            counted: 0,
            sent: 0,
            tail: None,
            closed: false,
            entries_left,
            chunks_left,
        }
    }
}

fn step(generation: u8, chain: &Chain, start: u8, end: u8) -> Chunk {
    let mut after = chain.clone();
    after.push((generation, start, end));
    Chunk { generation, start, end, before: chain.clone(), after }
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let mut owners = vec![Owner::new((bounds.entries, bounds.chunks))];
        if bounds.second {
            owners.push(Owner::new((0, 0)));
        }
        Self {
            store: vec![None; 16],
            late: Vec::new(),
            tails: BTreeMap::new(),
            closed: BTreeSet::new(),
            appenders: Vec::new(),
            owners,
            reader: Looking::Not,
        }
    }

    fn journal(&self) -> Vec<&Chunk> {
        let mut journal: Vec<&Chunk> = Vec::new();
        for chunk in &self.store {
            let before = journal.last().map_or(&[][..], |last| &last.after);
            match chunk.as_ref().filter(|chunk| chunk.before == before) {
                Some(chunk) => journal.push(chunk),
                None => break,
            }
        }
        journal
    }

    fn end(&self) -> (u8, u8, u8) {
        let journal = self.journal();
        let last = journal.last();
        (journal.len() as u8, last.map_or(0, |last| last.generation), last.map_or(0, |last| last.end))
    }

    fn violation(&self) -> Option<String> {
        let journal = self.journal();
        for owner in self.owners.iter().filter(|owner| owner.generation > 0) {
            let newer = journal.iter().find(|chunk| chunk.generation > owner.generation);
            if newer.is_some_and(|opening| opening.start < owner.counted) {
                return Some(format!(
                    "generation {} counted up to {}, a newer one opened at {newer:?}",
                    owner.generation, owner.counted
                ));
            }
        }
        if self.store.iter().flatten().count() != journal.len() {
            return Some("a chunk stands outside the journal".to_owned());
        }
        match self.reader {
            Looking::Said(counted, end) if end < counted => {
                Some(format!("a reader said {end}, and {counted} was counted when it began"))
            }
            _ => None,
        }
    }

    fn create(&mut self, number: u8, chunk: &Chunk) -> bool {
        let slot = &mut self.store[usize::from(number)];
        let is_free = slot.is_none();
        if is_free {
            *slot = Some(chunk.clone());
        }
        is_free
    }

    /// The entries of a generation's tails that continue the journal's end as it was read.
    fn continuing(&self, generation: u8, length: u8) -> Vec<Entry> {
        let all: Vec<&Entry> = self
            .tails
            .iter()
            .filter(|((of, _), tail)| *of == generation && tail.has_name)
            .flat_map(|(_, tail)| tail.slots.iter().flatten())
            .collect();
        let mut found: Vec<Entry> = Vec::new();
        let (mut number, mut last) = (length, self.store[usize::from(length) - 1].clone());
        while let Some(end) = &last {
            let next = all.iter().find(|entry| {
                entry.number == number
                    && entry.chunk.before == end.after
                    && entry.chunk.start == end.end
                    && entry.chunk.generation == end.generation
            });
            let Some(next) = next else { break };
            found.push((*next).clone());
            (number, last) = (number + 1, Some(next.chunk.clone()));
        }
        found
    }

    fn steps(&self, bounds: Bounds, broken: Broken) -> Vec<World> {
        let mut out = Vec::new();
        for which in 0..self.late.len() {
            let mut landed = self.clone();
            let (number, chunk) = landed.late.remove(which);
            landed.create(number, &chunk);
            out.push(landed);
        }
        for which in 0..self.appenders.len() {
            self.appender_steps(which, broken, &mut out);
        }
        for who in 0..self.owners.len() {
            self.owner_steps(who, (bounds.log, broken), &mut out);
        }
        if bounds.reader {
            self.reader_steps(broken, &mut out);
        }
        out
    }

    fn owner_steps(&self, who: usize, (log, broken): (u8, Broken), out: &mut Vec<World>) {
        let with = |change: &dyn Fn(&mut World, &mut Owner)| {
            let mut world = self.clone();
            let mut owner = world.owners[who].clone();
            change(&mut world, &mut owner);
            world.owners[who] = owner;
            world
        };
        let owner = &self.owners[who];
        match &owner.state {
            // The second begins when the first owns: it takes over from it.
            State::Asleep if who == 0 || self.owners[0].generation > 0 => {
                out.push(with(&|_, owner| owner.state = State::Read));
            }
            State::Asleep | State::Done => {}
            State::Read => {
                let (length, generation, _) = self.end();
                out.push(with(&|world, owner| {
                    owner.state = match (length, broken) {
                        (0, _) => State::Opening(0, 1),
                        (_, Broken::NeverCloses) => State::Opening(length, generation + 1),
                        _ => {
                            world.closed.insert(generation);
                            State::Closed(generation)
                        }
                    };
                }));
            }
            State::Closed(closed) => {
                let (length, generation, _) = self.end();
                out.push(with(&|_, owner| {
                    owner.state =
                        if generation == *closed { State::ReadAnew(length, generation) } else { State::Read };
                }));
            }
            State::ReadAnew(length, generation) => {
                let found = self.continuing(*generation, *length);
                out.push(with(&|_, owner| {
                    owner.state = match found.is_empty() || broken == Broken::PutsNothing {
                        true => State::Opening(*length, generation + 1),
                        false => State::Putting(found.clone(), *length, *generation),
                    };
                }));
            }
            State::Putting(entries, number, generation) => {
                let mut rest = entries.clone();
                let entry = rest.remove(0);
                out.push(with(&|world, owner| {
                    let is_there = world.create(*number, &entry.chunk)
                        || world.store[usize::from(*number)].as_ref() == Some(&entry.chunk);
                    owner.state = match (is_there, rest.is_empty()) {
                        (false, _) => State::Read,
                        (true, true) => State::Opening(number + 1, generation + 1),
                        (true, false) => State::Putting(rest.clone(), number + 1, *generation),
                    };
                }));
            }
            State::Opening(number, generation) => {
                let before = number.checked_sub(1).and_then(|last| self.store[usize::from(last)].clone());
                out.push(with(&|world, owner| {
                    let (chain, at) =
                        before.as_ref().map_or((Vec::new(), 0), |last| (last.after.clone(), last.end));
                    let opening = step(*generation, &chain, at, at);
                    if !world.create(*number, &opening) {
                        owner.state = State::Read;
                        return;
                    }
                    owner.state = State::Owning;
                    (owner.generation, owner.next, owner.number) = (*generation, number + 1, number + 1);
                    (owner.chain, owner.round) = (opening.after.clone(), opening.after);
                    (owner.at, owner.counted, owner.sent) = (at, at, at);
                    // T7, one after another in the world, and at once here: the order is walked where a look is split.
                    for ((of, _), tail) in &mut world.tails {
                        tail.has_name &= *of >= *generation;
                    }
                    world.closed.retain(|of| of >= generation);
                }));
            }
            State::Owning => self.owning_steps(who, (log, broken), out),
            State::Sent(chunk) => {
                let number = owner.next;
                // It lands, and its answer comes or is found out by reading; or it is late, and read as absent for as long as it is.
                out.push(with(&|world, owner| {
                    let is_own = world.create(number, chunk)
                        || world.store[usize::from(number)].as_ref() == Some(chunk);
                    if !is_own {
                        owner.state = State::Done;
                        return;
                    }
                    owner.state = State::Owning;
                    owner.next = number + 1;
                    owner.number = number + 1;
                    (owner.chain, owner.round) = (chunk.after.clone(), chunk.after.clone());
                    (owner.at, owner.sent) = (chunk.end, chunk.end);
                    owner.counted = owner.counted.max(chunk.end);
                    if broken == Broken::OwnClosed && owner.closed {
                        world.closed.remove(&owner.generation);
                        owner.closed = false;
                    }
                }));
                if self.late.is_empty() {
                    out.push(with(&|world, _| world.late.push((number, chunk.clone()))));
                }
            }
        }
    }

    /// The one that carries out what this owner sends, if there is one that he hears.
    fn appender_of(&self, who: usize) -> Option<usize> {
        self.appenders.iter().position(|appender| appender.owner == who && appender.is_heard)
    }

    fn owning_steps(&self, who: usize, (log, broken): (u8, Broken), out: &mut Vec<World>) {
        let owner = &self.owners[who];
        // Entries of one unit, or of two; behind a failure it puts first.
        let failed = owner.tail.is_none() && owner.sent > owner.at;
        for units in 1..=2 {
            if owner.entries_left == 0 || owner.closed || failed || owner.sent + units > log {
                continue;
            }
            let mut world = self.clone();
            let mut owner = owner.clone();
            owner.entries_left -= 1;
            if owner.tail.is_none() {
                let tail = world.tails.keys().filter(|(of, _)| *of == owner.generation).count() as u8;
                world.tails.insert((owner.generation, tail), Tail { slots: Vec::new(), has_name: true });
                owner.tail = Some(tail);
                world.appenders.push(Appender {
                    owner: who,
                    tail: (owner.generation, tail),
                    waits: Vec::new(),
                    group: Vec::new(),
                    written: 0,
                    looks: 0,
                    is_heard: true,
                });
            }
            let end = owner.sent + units;
            let chunk = step(owner.generation, &owner.round, owner.sent, end);
            (owner.sent, owner.round) = (end, chunk.after.clone());
            let entry = Entry { number: owner.number, chunk };
            owner.number += 1;
            if let Some(appender) = world.appender_of(who) {
                world.appenders[appender].waits.push((entry, owner.next));
            }
            world.owners[who] = owner;
            out.push(world);
        }
        // An answer is late, or lost: the tail is given up, whatever stands in it, or will.
        if let Some(appender) = self.appender_of(who).filter(|_| owner.sent > owner.counted) {
            let mut world = self.clone();
            world.appenders[appender].is_heard = false;
            world.owners[who].tail = None;
            out.push(world);
        }
        let is_answered = owner.sent == owner.counted || owner.tail.is_none();
        if owner.chunks_left > 0 && is_answered {
            let least = if broken == Broken::HoldsCountedOnly { owner.counted } else { owner.sent };
            for end in least.max(owner.at + 1)..=log {
                let mut world = self.clone();
                let owner = &mut world.owners[who];
                owner.chunks_left -= 1;
                owner.state = State::Sent(step(owner.generation, &owner.chain, owner.at, end));
                out.push(world);
            }
        }
    }

    fn appender_steps(&self, which: usize, broken: Broken, out: &mut Vec<World>) {
        let appender = &self.appenders[which];
        let mut world = self.clone();
        let own = &mut world.appenders[which];
        if appender.group.is_empty() {
            if !appender.waits.is_empty() {
                own.group = std::mem::take(&mut own.waits);
                if broken == Broken::AnyOrder && own.group.len() > 1 {
                    let mut lost = world.clone();
                    lost.appenders[which].group.remove(0);
                    out.push(lost);
                }
                out.push(world);
            }
            return;
        }
        let looks_now = match broken {
            Broken::LooksFirst => appender.looks < 3,
            _ => appender.written == appender.group.len() && appender.looks < 3,
        };
        if looks_now {
            let (generation, _) = appender.tail;
            let has_name = self.tails.get(&appender.tail).is_some_and(|tail| tail.has_name);
            let is_open = !self.closed.contains(&generation);
            let is_free = appender.group.iter().all(|(_, free)| self.store[usize::from(*free)].is_none());
            let order = match broken {
                Broken::ClosedLast => [is_free, has_name, is_open],
                _ => [has_name, is_open, is_free],
            };
            if order[usize::from(appender.looks)] {
                own.looks += 1;
            } else {
                world.appenders.remove(which);
                if appender.is_heard {
                    let owner = &mut world.owners[appender.owner];
                    (owner.tail, owner.closed) = (None, true);
                }
            }
            out.push(world);
            return;
        }
        if appender.written < appender.group.len() {
            let (entry, free) = &appender.group[appender.written];
            own.written += 1;
            world.write(appender.tail, entry, *free);
            out.push(world);
            return;
        }
        let mut answered = appender.group.clone();
        (own.group, own.written, own.looks) = (Vec::new(), 0, 0);
        if broken == Broken::AnsweredTogether {
            answered.append(&mut own.waits);
        }
        let is_heard = own.is_heard;
        for (entry, free) in &answered {
            if broken == Broken::AnsweredTogether {
                world.write(appender.tail, entry, *free);
            }
            if is_heard {
                world.owners[appender.owner].counted = entry.chunk.end;
            }
        }
        // Nobody sends anything more to it.
        world
            .appenders
            .retain(|appender| appender.is_heard || !appender.waits.is_empty() || !appender.group.is_empty());
        out.push(world);
    }

    /// Where the entry stands follows from its place in the round: what is behind it stays, as in a file.
    fn write(&mut self, tail: (u8, u8), entry: &Entry, next: u8) {
        let Some(tail) = self.tails.get_mut(&tail) else { return };
        let slot = usize::from(entry.number - next);
        if tail.slots.len() <= slot {
            tail.slots.resize(slot + 1, None);
        }
        tail.slots[slot] = Some(entry.clone());
    }

    fn reader_steps(&self, broken: Broken, out: &mut Vec<World>) {
        let (length, generation, end) = self.end();
        let counted = self.owners.iter().map(|owner| owner.counted).max().unwrap_or(0);
        let with = |reader: Looking| World { reader, ..self.clone() };
        match &self.reader {
            Looking::Not if length > 0 => out.push(with(Looking::Began(counted))),
            Looking::Not | Looking::Said(..) => {}
            Looking::Began(counted) => out.push(with(Looking::Read(*counted, length, generation))),
            Looking::Read(counted, length, generation) => {
                let found = self.continuing(*generation, *length);
                let end = self.store[usize::from(*length) - 1].as_ref().map_or(0, |last| last.end);
                out.push(with(match (found.last(), broken) {
                    (None, Broken::NotAgain) | (Some(_), Broken::PutsNothing) => Looking::Said(*counted, end),
                    (None, _) => Looking::Again(*counted, *length),
                    (Some(last), _) => Looking::Wants(*counted, last.chunk.end),
                }));
            }
            // The owner's chunk came, or all was put; or nothing comes for long.
            Looking::Wants(counted, wanted) if end >= *wanted => out.push(with(Looking::Said(*counted, end))),
            Looking::Wants(counted, wanted) => {
                if broken == Broken::AnyChunkWillDo
                    && self.store.iter().flatten().last().is_some_and(|last| last.end > last.start)
                {
                    out.push(with(Looking::Said(*counted, end)));
                }
                let mut world = with(Looking::Closed(*counted, *wanted, generation));
                world.closed.insert(generation);
                out.push(world);
            }
            Looking::Closed(counted, wanted, closed) => out.push(with(match generation == *closed {
                true => Looking::ReadAnew(*counted, *wanted, length, generation),
                false => Looking::Wants(*counted, *wanted),
            })),
            Looking::ReadAnew(counted, wanted, length, generation) => {
                let found = self.continuing(*generation, *length);
                out.push(with(match found.is_empty() {
                    true => Looking::Wants(*counted, *wanted),
                    false => Looking::Putting(*counted, *wanted, found, *length),
                }));
            }
            Looking::Putting(counted, wanted, entries, number) => {
                let mut rest = entries.clone();
                let entry = rest.remove(0);
                let mut world = self.clone();
                let is_there = world.create(*number, &entry.chunk)
                    || world.store[usize::from(*number)].as_ref() == Some(&entry.chunk);
                world.reader = match (is_there, rest.is_empty()) {
                    (true, false) => Looking::Putting(*counted, *wanted, rest, number + 1),
                    _ => Looking::Wants(*counted, *wanted),
                };
                out.push(world);
            }
            Looking::Again(counted, _) => out.push(with(Looking::Said(*counted, end))),
        }
    }
}

#[derive(Debug, Default)]
struct Walked {
    states: usize,
    tailed: bool,
    put: bool,
    refused: bool,
    said: bool,
    fenced: bool,
}

fn walk(bounds: Bounds, broken: Broken) -> Result<Walked, String> {
    let mut walked = Walked::default();
    let fingerprint = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world);
    let first = World::new(bounds);
    let mut known = HashSet::from([fingerprint(&first)]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        for next in world.steps(bounds, broken) {
            if let Some(what) = next.violation() {
                return Err(format!("{what}\n{next:#?}"));
            }
            walked.tailed |= next.owners.iter().any(|owner| owner.counted > owner.at);
            walked.put |= next.owners.get(1).is_some_and(|owner| matches!(owner.state, State::Putting(..)));
            walked.refused |= next.owners[0].closed;
            walked.said |= matches!(next.reader, Looking::Said(..));
            walked.fenced |= next.owners[0].state == State::Done;
            if known.insert(fingerprint(&next)) {
                open.push(next);
            }
        }
    }
    walked.states = known.len();
    Ok(walked)
}

#[test]
fn what_counts_in_a_tail_is_before_every_newer_opening() {
    let walked = walk(OWNERS, Broken::Nothing).unwrap();
    println!("{walked:?}");
    let all = walked.tailed && walked.put && walked.refused && walked.fenced;
    assert!(walked.states > 10_000 && all, "the walk must not have been cut short: {walked:?}");
}

#[test]
fn what_counts_in_a_tail_is_before_every_end_that_is_said() {
    let walked = walk(READER, Broken::Nothing).unwrap();
    println!("{walked:?}");
    let all = walked.tailed && walked.refused && walked.said;
    assert!(walked.states > 10_000 && all, "the walk must not have been cut short: {walked:?}");
}

#[test]
fn who_takes_over_and_who_reads_at_once_lose_nothing_that_counts_in_a_tail() {
    let walked = walk(ALL, Broken::Nothing).unwrap();
    println!("{walked:?}");
    let all = walked.tailed && walked.put && walked.refused && walked.said && walked.fenced;
    assert!(walked.states > 10_000 && all, "the walk must not have been cut short: {walked:?}");
}

#[test]
fn without_any_one_rule_of_the_tail_the_claim_breaks() {
    for (bounds, broken) in [
        (OWNERS, Broken::HoldsCountedOnly),
        (OWNERS, Broken::LooksFirst),
        (OWNERS, Broken::ClosedLast),
        (OWNERS, Broken::AnsweredTogether),
        (OWNERS, Broken::AnyOrder),
        (OWNERS, Broken::NeverCloses),
        (OWNERS, Broken::PutsNothing),
        (OWNERS, Broken::OwnClosed),
        (ALL, Broken::AnyChunkWillDo),
        (READER, Broken::NotAgain),
        (READER, Broken::PutsNothing),
    ] {
        let found = walk(bounds, broken).expect_err(&format!("{broken:?} must be found out"));
        println!("{broken:?}: {}", found.lines().next().unwrap_or_default());
    }
}
