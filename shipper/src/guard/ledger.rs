//! The guards' own ledger of a database: from when to when commits were let go unprotected, on this machine's disk.
//!
//! What always holds: [`Ledger::begin`] returns once its line, and the file's name, would survive a loss of power. Lines are only appended, each whole or, after a crash or on a full disk, one that
//! makes no sense and was never said; the order of lines is what happened, their times are information. Each opening has a number, and an end names the opening that it
//! is of: a guard that was frozen and ends what it knew ends nothing that another has begun since.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use farshore_journal::{DatabaseName, Offset, Position, Timeline};
use serde::{Deserialize, Serialize};

/// Longest ledger that is read: more than a hundred thousand exposures.
const LONGEST: u64 = 64 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Line {
    Opened {
        number: u64,
        at: DateTime<Utc>,
        /// Commits are known to have waited up to then; `None`: nobody knows since when they do not.
        since: Option<DateTime<Utc>>,
        why: String,
        timeline: u32,
        /// What was flushed up to here was stored when it was opened.
        stored: Option<String>,
    },
    Closed {
        /// Of the opening that it ends, and all before it.
        number: u64,
        at: DateTime<Utc>,
        timeline: u32,
        /// What was flushed up to here is stored.
        until: String,
    },
}

/// When commits did not wait, or were not known to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The number of its last opening.
    pub number: u64,
    /// Up to when commits are known to have waited before; `None`: nobody knows.
    pub since: Option<DateTime<Utc>>,
    /// Why, as ledgers have it: the last reason.
    pub why: String,
    /// When it ended; `None` while it is open.
    pub until: Option<DateTime<Utc>>,
}

/// A database's ledger.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    /// The file that says up to when commits are known to have waited.
    sighted: PathBuf,
    file: File,
    exposures: Vec<Exposure>,
}

impl Ledger {
    /// Opens it, or begins it, in a folder that is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be read or made, or is none of a guard's: it is left alone then.
    pub fn open(folder: &Path, database: &DatabaseName) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{database}.jsonl"));
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)?;
        let exposures = read(&file)?;
        file.sync_all()?;
        flush_names(folder)?;
        let sighted = folder.join(format!("{database}.sighted"));
        Ok(Self { path, sighted, file, exposures })
    }

    /// Reads it again: another guard of this machine may have written to it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn again(&mut self) -> io::Result<()> {
        self.exposures = read(&self.file)?;
        self.file.sync_all()
    }

    /// Keeps, durably, up to when commits are known to have waited.
    ///
    /// # Errors
    /// When it cannot be written: what was kept before is there still.
    pub fn sight(&self, at: DateTime<Utc>) -> io::Result<()> {
        let new = self.sighted.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&new)?;
        file.write_all(at.to_rfc3339().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.sighted)?;
        match self.sighted.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Up to when commits are known to have waited, as it was kept; `None`: nobody ever saw it, or what was kept does not read.
    pub fn sighted(&self) -> Option<DateTime<Utc>> {
        let text = std::fs::read_to_string(&self.sighted).ok()?;
        text.parse().ok()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it, oldest first.
    pub fn exposures(&self) -> &[Exposure] {
        &self.exposures
    }

    /// The one that is open.
    pub fn open_exposure(&self) -> Option<&Exposure> {
        self.exposures.last().filter(|last| last.until.is_none())
    }

    /// How often one was opened, for whatever reason.
    pub fn openings(&self) -> u64 {
        self.exposures.last().map_or(0, |last| last.number)
    }

    /// Opens an exposure, durably, or says one more reason for the one that is open.
    ///
    /// # Errors
    /// When it cannot be made durable: it is not known to be said, and no commit may be let go for it.
    pub fn begin(
        &mut self,
        at: DateTime<Utc>,
        since: Option<DateTime<Utc>>,
        why: &str,
        (timeline, stored): (Timeline, Option<Offset>),
    ) -> io::Result<()> {
        let number = self.openings().saturating_add(1);
        self.append(&Line::Opened {
            number,
            at,
            since,
            why: why.to_owned(),
            timeline: timeline.get(),
            stored: stored.map(|stored| stored.to_string()),
        })?;
        opened(&mut self.exposures, number, since, why.to_owned());
        Ok(())
    }

    /// Ends the one that is open, durably.
    ///
    /// # Errors
    /// When it cannot be made durable: it is open still.
    pub fn end(&mut self, at: DateTime<Utc>, until: Position) -> io::Result<()> {
        let number = self.openings();
        let (timeline, until) = (until.timeline.get(), until.offset.to_string());
        self.append(&Line::Closed { number, at, timeline, until })?;
        closed(&mut self.exposures, number, at);
        Ok(())
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        fail::fail_point!("guard-ledger", |_| Err(io::Error::other("the ledger cannot be written")));
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let before = self.file.metadata()?.len();
        // Behind a line that is not whole another one begins.
        if before > 0 && !ends_with_a_line(&self.file)? {
            text.insert(0, '\n');
        }
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
        if written.is_err() {
            // It was never said. Where this fails too, it is a line that is not whole, or one too many that is open.
            let _ = self.file.set_len(before);
        }
        written
    }
}

fn opened(exposures: &mut Vec<Exposure>, number: u64, since: Option<DateTime<Utc>>, why: String) {
    match exposures.last_mut().filter(|last| last.until.is_none()) {
        Some(open) => (open.number, open.why) = (number, why),
        None => exposures.push(Exposure { number, since, why, until: None }),
    }
}

fn closed(exposures: &mut [Exposure], number: u64, at: DateTime<Utc>) {
    if let Some(last) = exposures.last_mut().filter(|last| last.number == number) {
        last.until.get_or_insert(at);
    }
}

fn flush_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn ends_with_a_line(file: &File) -> io::Result<bool> {
    let mut file = file;
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn read(file: &File) -> io::Result<Vec<Exposure>> {
    let mut file = file;
    let wrong =
        |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("it is none of a guard's: {why}"));
    if file.metadata()?.len() > LONGEST {
        return Err(wrong("it is too long"));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut exposures: Vec<Exposure> = Vec::new();
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let (mut lines, mut said) = (0_usize, 0_usize);
    for line in whole {
        lines += 1;
        match serde_json::from_slice(line) {
            Ok(Line::Opened { number, since, why, .. }) => opened(&mut exposures, number, since, why),
            Ok(Line::Closed { number, at, .. }) => closed(&mut exposures, number, at),
            // A crash cut it.
            Err(why) => {
                tracing::debug!(line = lines, error = %why, "a line of a guard's ledger makes no sense");
                continue;
            }
        }
        said += 1;
    }
    // Two lines that follow each other are cut only where the disk was full.
    if said == 0 && lines > 2 {
        return Err(wrong("no line of it makes sense"));
    }
    Ok(exposures)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (Timeline, Option<Offset>) = (Timeline::new(2), None);

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    fn opened(folder: &Path) -> Ledger {
        Ledger::open(folder, &"orders".parse().unwrap()).unwrap()
    }

    fn end() -> Position {
        Position::new(Timeline::new(2), Offset::new(9))
    }

    #[test]
    fn what_was_opened_is_open_after_a_crash_and_what_was_ended_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("guard");
        let mut ledger = opened(&folder);
        assert!(ledger.open_exposure().is_none());
        ledger.begin(at(1), Some(at(0)), "unwatched", (Timeline::new(2), Some(Offset::new(7)))).unwrap();
        // One more reason of the same one.
        ledger.begin(at(2), None, "waited", PLACE).unwrap();
        drop(ledger);
        let mut ledger = opened(&folder);
        let open = ledger.open_exposure().unwrap();
        assert_eq!((open.since, open.why.as_str(), open.number), (Some(at(0)), "waited", 2));
        ledger.end(at(3), end()).unwrap();
        assert!(ledger.open_exposure().is_none());
        ledger.begin(at(4), None, "waited", PLACE).unwrap();
        let ledger = opened(&folder);
        assert_eq!((ledger.exposures().len(), ledger.openings()), (2, 3));
        assert_eq!((ledger.exposures()[0].until, ledger.exposures()[1].until), (Some(at(3)), None));
    }

    #[test]
    fn a_guard_that_was_frozen_ends_nothing_that_another_began() {
        let folder = tempfile::tempdir().unwrap();
        let mut frozen = opened(folder.path());
        frozen.begin(at(1), None, "unwatched", PLACE).unwrap();
        let mut other = opened(folder.path());
        other.begin(at(2), Some(at(2)), "waited", PLACE).unwrap();
        frozen.end(at(3), end()).unwrap();
        other.again().unwrap();
        assert_eq!(other.open_exposure().unwrap().number, 2);
        // And what the other has ended is not open for it any more.
        other.end(at(4), end()).unwrap();
        frozen.again().unwrap();
        assert!(frozen.open_exposure().is_none());
    }

    #[test]
    fn a_line_that_a_crash_cut_was_never_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = opened(folder.path());
        ledger.begin(at(1), None, "waited", PLACE).unwrap();
        let path = ledger.path().to_owned();
        let whole = std::fs::read(&path).unwrap();
        drop(ledger);
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut ledger = opened(folder.path());
            assert!(ledger.exposures().is_empty(), "cut at {cut}");
            ledger.begin(at(2), None, "waited", PLACE).unwrap();
            let mut ledger = opened(folder.path());
            assert_eq!(ledger.exposures().len(), 1, "cut at {cut}");
            ledger.end(at(3), end()).unwrap();
            assert!(opened(folder.path()).open_exposure().is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn the_last_sighting_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = opened(folder.path());
        assert_eq!(ledger.sighted(), None);
        ledger.sight(at(5)).unwrap();
        ledger.sight(at(9)).unwrap();
        assert_eq!(opened(folder.path()).sighted(), Some(at(9)));
    }

    #[test]
    fn a_file_that_is_no_ledger_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.jsonl");
        let theirs = "something\nof\nsomebody's\nown\n";
        std::fs::write(&path, theirs).unwrap();
        assert!(Ledger::open(folder.path(), &"orders".parse().unwrap()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
    }
}
