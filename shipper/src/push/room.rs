//! The room: log files that were pushed, under PostgreSQL's own names, in a folder of the database's on this machine.
//!
//! What always holds: a file stands here under its name only whole, so far as the machine did not lose power; it is material and
//! no claim, and whoever uses it compares and decodes it. A crash leaves a name that ends in `.part`, which is swept an hour later.
//! What it does not do: nothing here is ever called stored.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::log::file_name::{LogFileName, SegmentName};
use farshore_journal::{Offset, Position};

/// Files that are kept: enough for a resume to compare, and for some that wait for a store.
const KEPT_FILES: usize = 8;
/// After how long a part is no push's any more.
const LEFT_OVER: Duration = Duration::from_secs(3600);
/// The end of the name of a file that is being written.
const PART: &str = ".part";
/// Whoever appends to the database's journal on this machine holds a lock on this file.
const LOCK: &str = "lock";

/// A database's room.
#[derive(Debug, Clone)]
pub struct Room {
    folder: PathBuf,
}

/// A whole log segment in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its first byte's place.
    pub start: Position,
    /// The first byte behind it.
    pub end: Offset,
}

impl Room {
    /// The room in this folder, which need not be there yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The file to be locked by whoever appends to the database's journal.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn lock_path(&self) -> io::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(self.folder.join(LOCK))
    }

    /// Where a segment is written until it is whole; `unlike` tells writers at one time apart.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn part(&self, name: &SegmentName, unlike: &str) -> io::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(self.folder.join(format!("{name}.{unlike}{PART}")))
    }

    /// Whether a segment is here.
    pub fn has(&self, name: &SegmentName) -> bool {
        self.folder.join(name.to_string()).exists()
    }

    /// Takes a written part in under the segment's name, replacing one of the same name, and says where it is.
    ///
    /// # Errors
    /// When it has not as many bytes as a segment, or cannot be renamed. It is gone then, and under the name stands what stood
    /// there before.
    pub fn take_in(&self, name: &SegmentName, part: &Path) -> io::Result<PathBuf> {
        let bytes = name.end().map_or(0, |end| end.get() - name.start().get());
        let came = std::fs::metadata(part)?.len();
        if came != bytes {
            std::fs::remove_file(part)?;
            let why = format!("{came} bytes came, a segment has {bytes}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        let place = self.folder.join(name.to_string());
        std::fs::rename(part, &place)?;
        self.tidy(name)?;
        Ok(place)
    }

    /// Whole segments without a hole between them, the first of which holds `from`, on its timeline; none when it is not here.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn run_from(&self, from: Position, segment_bytes: SegmentBytes) -> io::Result<Vec<LogFile>> {
        let mut run = Vec::new();
        let mut at = from.offset;
        loop {
            let name = SegmentName::holding(from.timeline, at, segment_bytes);
            let path = self.folder.join(name.to_string());
            let Some(end) = name.end() else { return Ok(run) };
            match std::fs::metadata(&path) {
                Ok(found) if found.len() == segment_bytes.get() => {
                    run.push(LogFile { path, start: Position::new(from.timeline, name.start()), end });
                }
                Ok(_) => return Ok(run),
                Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(run),
                Err(why) => return Err(why),
            }
            at = end;
        }
    }

    /// Removes all but the last files up to `newest`, and those of other timelines behind it in number.
    fn tidy(&self, newest: &SegmentName) -> io::Result<()> {
        let segment_bytes = SegmentBytes::new(newest.end().map_or(0, |end| end.get() - newest.start().get()));
        let Ok(segment_bytes) = segment_bytes else { return Ok(()) };
        let mut files: Vec<(SegmentName, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if is_left_over(&path) {
                std::fs::remove_file(&path)?;
            }
            if let Some(name) = segment(&path, segment_bytes) {
                files.push((name, path));
            }
        }
        files.sort_by_key(|(name, _)| (name.timeline(), name.start()));
        // One that was pushed anew out of turn is kept with those that follow it: someone fills a hole.
        let oldest_kept = files.len().saturating_sub(KEPT_FILES);
        for (name, path) in files.into_iter().take(oldest_kept) {
            if name != *newest {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Whether a part was left by a push that died.
fn is_left_over(path: &Path) -> bool {
    let is_part = path.extension().is_some_and(|extension| extension == PART.trim_start_matches('.'));
    let age = path.metadata().and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
    is_part && age.is_some_and(|age| age > LEFT_OVER)
}

fn segment(path: &Path, segment_bytes: SegmentBytes) -> Option<SegmentName> {
    match LogFileName::parse(path.file_name()?.to_str()?, segment_bytes).ok()? {
        LogFileName::Segment(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Timeline;

    const BYTES: u64 = 1 << 20;

    fn size() -> SegmentBytes {
        SegmentBytes::new(BYTES).unwrap()
    }

    fn name(number: u64) -> SegmentName {
        SegmentName::holding(Timeline::new(1), Offset::new(number * BYTES), size())
    }

    fn keep(room: &Room, number: u64, bytes: u64) -> io::Result<()> {
        let part = room.part(&name(number), "test").unwrap();
        std::fs::write(&part, vec![7; bytes as usize]).unwrap();
        room.take_in(&name(number), &part).map(drop)
    }

    #[test]
    fn a_run_ends_at_a_hole_and_begins_with_the_file_that_holds_its_first_byte() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path().join("orders"));
        for number in [3, 4, 6] {
            keep(&room, number, BYTES).unwrap();
        }
        let run = |offset| {
            let from = Position::new(Timeline::new(1), Offset::new(offset));
            let run = room.run_from(from, size()).unwrap();
            run.iter().map(|file| file.start.offset.get() / BYTES).collect::<Vec<_>>()
        };
        assert_eq!(run(3 * BYTES + 5), [3, 4]);
        assert_eq!(run(2 * BYTES), Vec::<u64>::new());
        assert_eq!(run(6 * BYTES), [6]);
    }

    #[test]
    fn a_file_that_did_not_come_whole_does_not_stand_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path().to_owned());
        assert!(keep(&room, 3, 9).is_err());
        let from = Position::new(Timeline::new(1), Offset::new(3 * BYTES));
        assert!(room.run_from(from, size()).unwrap().is_empty());
    }

    #[test]
    fn the_room_is_bounded_and_keeps_the_last_files() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path().to_owned());
        for number in 1..20 {
            keep(&room, number, BYTES).unwrap();
        }
        let from = Position::new(Timeline::new(1), Offset::new(12 * BYTES));
        assert_eq!(room.run_from(from, size()).unwrap().len(), 8);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 8);
    }
}
