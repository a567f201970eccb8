//! The guard's own ledger: from when to when commits were let go unprotected, on this machine's disk.
//!
//! What always holds: [`Ledger::open_exposure`] returns once its line, and the file's name, would survive a loss of power; a line that is not whole was never said. The order
//! of lines is what happened; their times are information. Lines are only appended.
//! A crash leaves at most a line that is not whole at the end, which the next line's writer puts an end to first.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use farshore_journal::{DatabaseName, Offset, Position, Timeline};
use serde::{Deserialize, Serialize};

/// Longest ledger that is read: a million exposures.
const LONGEST: u64 = 256 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Line {
    Opened {
        at: DateTime<Utc>,
        /// Commits are known to have waited up to then; `None`: nobody knows since when they do not.
        since: Option<DateTime<Utc>>,
        why: String,
        timeline: u32,
        /// What was flushed up to here was stored when it was opened.
        stored: Option<String>,
    },
    Closed {
        at: DateTime<Utc>,
        timeline: u32,
        /// What was flushed up to here is stored.
        until: String,
    },
}

/// When commits did not wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// When it was opened.
    pub opened: DateTime<Utc>,
    /// Up to when commits are known to have waited before; `None`: nobody knows.
    pub since: Option<DateTime<Utc>>,
    /// Why, as the ledger's word has it.
    pub why: String,
    /// Up to where all was stored when it was opened, with its timeline.
    pub stored: Option<Position>,
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
    /// When it cannot be read or made, or a whole line of it makes no sense: it is nothing of ours then, and is left alone.
    pub fn open(folder: &Path, database: &DatabaseName) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{database}.jsonl"));
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)?;
        let exposures = read(&file)?;
        // A line that is not whole ends here, and is one that makes no sense from now on.
        let end = file.seek(SeekFrom::End(0))?;
        if end > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(end - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.set_len(whole(&file)?)?;
            }
        }
        file.sync_all()?;
        flush_names(folder)?;
        let sighted = folder.join(format!("{database}.sighted"));
        Ok(Self { path, sighted, file, exposures })
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

    /// Opens an exposure, durably; nothing where one is open.
    ///
    /// # Errors
    /// When it cannot be made durable: it is not known to be open, and no commit may be let go for it.
    pub fn begin(
        &mut self,
        at: DateTime<Utc>,
        since: Option<DateTime<Utc>>,
        why: &str,
        (timeline, stored): (Timeline, Option<Offset>),
    ) -> io::Result<()> {
        if self.open_exposure().is_some() {
            return Ok(());
        }
        let line = Line::Opened {
            at,
            since,
            why: why.to_owned(),
            timeline: timeline.get(),
            stored: stored.map(|stored| stored.to_string()),
        };
        self.append(&line)?;
        let stored = stored.map(|stored| Position::new(timeline, stored));
        self.exposures.push(Exposure { opened: at, since, why: why.to_owned(), stored, until: None });
        Ok(())
    }

    /// Ends the one that is open, durably.
    ///
    /// # Errors
    /// When it cannot be made durable: it is open still.
    pub fn end(&mut self, at: DateTime<Utc>, until: Position) -> io::Result<()> {
        let line = Line::Closed { at, timeline: until.timeline.get(), until: until.offset.to_string() };
        self.append(&line)?;
        if let Some(last) = self.exposures.last_mut() {
            last.until.get_or_insert(at);
        }
        Ok(())
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
        if written.is_err() {
            // What is there of it must not be completed by the next line. Where that fails too, the next start finds it.
            let _ = self.file.set_len(before);
        }
        written
    }
}

fn flush_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// How many bytes of it are whole lines.
fn whole(file: &File) -> io::Result<u64> {
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    Ok(end as u64)
}

fn read(file: &File) -> io::Result<Vec<Exposure>> {
    let wrong = |number: usize, why: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {number} is none of a guard's ledger: {why}"),
        )
    };
    if file.metadata()?.len() > LONGEST {
        return Err(wrong(0, "it is too long"));
    }
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let mut exposures: Vec<Exposure> = Vec::new();
    let mut reader = BufReader::new(file);
    let mut text = String::new();
    for number in 1.. {
        text.clear();
        if reader.read_line(&mut text)? == 0 || !text.ends_with('\n') {
            break;
        }
        match serde_json::from_str(&text).map_err(|why| wrong(number, &why.to_string()))? {
            Line::Opened { at, since, why, timeline, stored } => {
                let stored = stored.map(|stored| stored.parse::<Offset>()).transpose();
                let stored = stored.map_err(|why| wrong(number, &why.to_string()))?;
                let stored = stored.map(|stored| Position::new(Timeline::new(timeline), stored));
                exposures.push(Exposure { opened: at, since, why, stored, until: None });
            }
            Line::Closed { at, .. } => {
                if let Some(last) = exposures.last_mut() {
                    last.until.get_or_insert(at);
                }
            }
        }
    }
    Ok(exposures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    fn opened(folder: &Path) -> Ledger {
        Ledger::open(folder, &"orders".parse().unwrap()).unwrap()
    }

    #[test]
    fn what_was_opened_is_open_after_a_crash_and_what_was_ended_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("guard");
        let mut ledger = opened(&folder);
        assert!(ledger.open_exposure().is_none());
        ledger.begin(at(1), Some(at(0)), "waited", (Timeline::new(2), Some(Offset::new(7)))).unwrap();
        // Nothing is said twice.
        ledger.begin(at(2), None, "waited", (Timeline::new(2), None)).unwrap();
        drop(ledger);
        let mut ledger = opened(&folder);
        let open = ledger.open_exposure().unwrap();
        assert_eq!((open.opened, open.since), (at(1), Some(at(0))));
        assert_eq!(open.stored, Some(Position::new(Timeline::new(2), Offset::new(7))));
        ledger.end(at(3), Position::new(Timeline::new(2), Offset::new(9))).unwrap();
        assert!(ledger.open_exposure().is_none());
        ledger.begin(at(4), None, "waited", (Timeline::new(2), None)).unwrap();
        let ledger = opened(&folder);
        assert_eq!(ledger.exposures().len(), 2);
        assert_eq!((ledger.exposures()[0].until, ledger.exposures()[1].until), (Some(at(3)), None));
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
    fn a_line_that_a_crash_cut_was_never_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = opened(folder.path());
        ledger.begin(at(1), None, "waited", (Timeline::new(1), None)).unwrap();
        let path = ledger.path().to_owned();
        let whole = std::fs::read(&path).unwrap();
        drop(ledger);
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut ledger = opened(folder.path());
            assert!(ledger.exposures().is_empty(), "cut at {cut}");
            ledger.begin(at(2), None, "waited", (Timeline::new(1), None)).unwrap();
            assert_eq!(opened(folder.path()).exposures().len(), 1, "cut at {cut}");
        }
    }

    #[test]
    fn a_file_that_is_no_ledger_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.jsonl");
        std::fs::write(&path, "something of somebody's\n").unwrap();
        assert!(Ledger::open(folder.path(), &"orders".parse().unwrap()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "something of somebody's\n");
    }
}
