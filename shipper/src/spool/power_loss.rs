//! Power is lost behind any step of a spool's life: what is found then holds every segment that counted, whole.
//!
//! The disk here keeps what was flushed. Of the rest any part may have reached it: names and contents each by themselves, contents in part or wrongly.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::log::file_name::SegmentName;
use farshore_journal::{Offset, Position, Timeline};
use farshore_testkit::random::Random;

use super::disk::Disk;
use super::files::{Place, SpoolFiles};

const BYTES: u64 = 1 << 20;
const DIRECTORY: &str = "/spool";

/// What a file holds: the content of a segment, or so many zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Segment(u64),
    Zeros(u64),
}

impl Holds {
    fn of(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len() as u64, BYTES);
        Self::Segment(u64::from_be_bytes(bytes[..8].try_into().unwrap()))
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Segment(_) => BYTES,
            Self::Zeros(bytes) => bytes,
        }
    }
}

/// A file's content: what was written, and what of that is durable.
#[derive(Debug, Clone, Copy)]
struct Content {
    written: Holds,
    durable: Option<Holds>,
}

/// A folder's names, each of which leads to a content by its number.
type Names = BTreeMap<PathBuf, usize>;

#[derive(Debug, Clone, Default)]
struct State {
    contents: Vec<Content>,
    names: Names,
    durable_names: Names,
    folders: Vec<PathBuf>,
    steps: usize,
    /// Behind which step the power is lost: nothing more succeeds.
    dies_at: Option<usize>,
    /// Which step is refused.
    refuses: Option<usize>,
}

/// A disk in memory.
#[derive(Debug, Clone, Default)]
struct Fickle(Arc<Mutex<State>>);

impl Fickle {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does one step, unless the power is gone or it is refused.
    fn step<T>(&self, work: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        self.with(|state| {
            if state.dies_at.is_some_and(|dies| state.steps >= dies) {
                return Err(io::Error::other("the power is gone"));
            }
            state.steps += 1;
            if state.refuses == Some(state.steps) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(work(state))
        })
    }

    /// What is there once the power is back.
    fn after_the_loss(&self, random: &mut Random) -> Self {
        self.with(|before| {
            let mut state = State { folders: before.folders.clone(), ..State::default() };
            // Of each name the durable one or the newer one, each by itself.
            let mut paths: Vec<&PathBuf> = before.names.keys().chain(before.durable_names.keys()).collect();
            paths.sort();
            paths.dedup();
            for path in paths {
                let names = if random.below(2) == 0 { &before.names } else { &before.durable_names };
                let Some(content) = names.get(path).and_then(|number| before.contents.get(*number)) else {
                    continue;
                };
                let mut holds = content.written;
                if content.durable != Some(holds) {
                    match random.below(4) {
                        0 => holds = content.durable.unwrap_or(Holds::Zeros(0)),
                        // Its length arrived and not its bytes.
                        1 => holds = Holds::Zeros(BYTES),
                        2 => holds = Holds::Zeros(random.below(BYTES)),
                        _ => {}
                    }
                }
                state.names.insert(path.clone(), state.contents.len());
                state.contents.push(Content { durable: Some(holds), written: holds });
            }
            state.durable_names = state.names.clone();
            Self(Arc::new(Mutex::new(state)))
        })
    }
}

impl Disk for Fickle {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|state| {
            state.names.insert(path.to_owned(), state.contents.len());
            state.contents.push(Content { written: Holds::of(bytes), durable: None });
        })?;
        self.step(|state| {
            if let Some(content) = state.contents.last_mut() {
                content.durable = Some(content.written);
            }
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|state| {
            if let Some(number) = state.names.remove(from) {
                state.names.insert(to.to_owned(), number);
            }
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|state| {
            state.names.remove(path);
        })
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.step(|state| state.folders.push(path.to_owned()))
    }

    fn flush_folder(&self, path: &Path) -> io::Result<()> {
        self.step(|state| {
            state.durable_names.retain(|name, _| name.parent() != Some(path));
            let inside = state.names.iter().filter(|(name, _)| name.parent() == Some(path));
            state.durable_names.extend(inside.map(|(name, number)| (name.clone(), *number)));
        })
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(self.with(|state| {
            let inside = |path: &Path| path.parent() == Some(folder);
            let files = state.names.iter().filter(|(path, _)| inside(path)).filter_map(|(path, number)| {
                let bytes = state.contents.get(*number).map_or(0, |content| content.written.bytes());
                Some((name(path)?, Some(bytes)))
            });
            let folders =
                state.folders.iter().filter(|path| inside(path)).filter_map(|path| Some((name(path)?, None)));
            files.chain(folders).collect()
        }))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.with(|state| {
            let number = state.names.get(path)?;
            state.contents.get(*number).map(|content| content.written.bytes())
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content =
            self.with(|state| state.names.get(path).and_then(|number| state.contents.get(*number).copied()));
        match content.ok_or(io::ErrorKind::NotFound)?.written {
            Holds::Segment(number) => Ok(content_of(number)),
            Holds::Zeros(bytes) => Ok(vec![0; usize::try_from(bytes).unwrap()]),
        }
    }

    fn is_folder(&self, path: &Path) -> bool {
        path == Path::new(DIRECTORY) || self.with(|state| state.folders.iter().any(|folder| folder == path))
    }

    fn is_mount_point(&self, _: &Path) -> io::Result<bool> {
        Ok(false)
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

fn segment_bytes() -> SegmentBytes {
    SegmentBytes::new(BYTES).unwrap()
}

fn spool(disk: &Fickle) -> SpoolFiles<Fickle> {
    SpoolFiles::on(disk.clone(), vec![Place { directory: DIRECTORY.into(), limit: u64::MAX }])
}

/// A segment's content is told by its number.
fn content_of(number: u64) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(BYTES).unwrap()];
    content[..8].copy_from_slice(&number.to_be_bytes());
    content
}

/// What a spool's life came to: its first segment that was not removed, and the first that does not count.
#[derive(Debug, Clone, Copy)]
struct Life {
    removed_to: u64,
    counted_to: u64,
}

/// Goes on with a life until the power is lost, or `to` counts.
fn live(disk: &Fickle, mut life: Life, to: u64) -> Life {
    let timeline = Timeline::new(1);
    let segments = spool(disk).of(7);
    if segments.make_ready().is_err() {
        return life;
    }
    let slot = Offset::new(life.removed_to * BYTES);
    // What stands there behind what counted is whole: it counts now.
    if let Some(run) = segments.run_around(timeline, slot, segment_bytes()).unwrap() {
        life.counted_to = life.counted_to.max(run.end.get() / BYTES);
    }
    while life.counted_to < to {
        let number = life.counted_to;
        let name = SegmentName::holding(timeline, Offset::new(number * BYTES), segment_bytes());
        if segments.put(&name, &content_of(number), false).is_err() {
            return life;
        }
        life.counted_to += 1;
        if number % 3 == 2 {
            // Every target has stored what lies before.
            life.removed_to = number - 1;
            let floor = Position::new(timeline, Offset::new(life.removed_to * BYTES));
            if segments.remove_before(floor, segment_bytes()).is_err() {
                return life;
            }
        }
    }
    life
}

/// Every segment that counted and was not removed is there, whole, in one row.
fn check(disk: &Fickle, life: Life) {
    let segments = spool(disk).of(7);
    let row =
        segments.run_around(Timeline::new(1), Offset::new(life.removed_to * BYTES), segment_bytes()).unwrap();
    for number in life.removed_to..life.counted_to {
        let at = Offset::new(number * BYTES);
        let row = row.unwrap_or_else(|| panic!("{life:?}: nothing is there"));
        assert!(row.start <= at && at < row.end, "{life:?}: segment {number} is missing of {row:?}");
        let name = SegmentName::holding(Timeline::new(1), at, segment_bytes());
        assert_eq!(segments.read(&name).unwrap(), content_of(number), "{life:?}: segment {number}");
    }
    // What stands there beyond what counted is whole all the same.
    if let Some(row) = row {
        for number in life.counted_to..row.end.get() / BYTES {
            let name = SegmentName::holding(Timeline::new(1), Offset::new(number * BYTES), segment_bytes());
            assert_eq!(
                segments.read(&name).unwrap(),
                content_of(number),
                "{life:?}: segment {number}, uncounted"
            );
        }
    }
}

#[test]
fn every_segment_that_counted_survives_a_loss_of_power_behind_any_step() {
    let mut random = Random::new(farshore_testkit::random::seed());
    let whole = Fickle::default();
    live(&whole, Life { removed_to: 0, counted_to: 0 }, 14);
    let steps = whole.with(|state| state.steps);
    assert!(steps > 60, "{steps}");
    let mut states = 0;
    for dies_at in 0..=steps {
        for refuses in [None, Some(dies_at / 2)] {
            for _ in 0..4 {
                let disk = Fickle::default();
                disk.with(|state| (state.dies_at, state.refuses) = (Some(dies_at), refuses));
                let mut life = live(&disk, Life { removed_to: 0, counted_to: 0 }, 14);
                // A disk that refused once is gone on with.
                if disk.with(|state| state.steps < dies_at) {
                    life = live(&disk, life, 14);
                }
                let disk = disk.after_the_loss(&mut random);
                check(&disk, life);
                // And once more, in the midst of what follows.
                let again = usize::try_from(random.below(12)).unwrap();
                disk.with(|state| state.dies_at = Some(again));
                let life = live(&disk, life, 20);
                check(&disk.after_the_loss(&mut random), life);
                states += 2;
            }
        }
    }
    assert!(states > 1000, "{states}");
}
