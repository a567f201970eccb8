//! What is kept beside a database when its log is begun anew: the records that no target has stored yet, and what the first
//! transaction of the new log must hold.
//!
//! ```text
//! the head:  magic "FSHRSQL1" | bytes of what follows (4) | JSON | the newest records | BLAKE3 of all before it (32)
//! a part:    <the head's name>.<number>: older records, one behind the other
//! a lock:    <the head's name>.lock: held by whoever keeps
//! ```
//! The JSON names the parts in their order, for each the record's boundary that it begins at, how many of its bytes count, and their BLAKE3.
//!
//! What always holds: a head that was not written whole does not read, and a part is believed only as far as the head's digest of it. A head is written
//! before the row that begins the log anew; a crash between the two leaves a log that still holds all that is in it. There is one, of the last such moment. A
//! part only grows, so it reads as the head names it whatever was appended since; no two have one number while a head may name
//! either; one that the head names is removed only once all of it is released: whoever follows again begins behind it. One that is missing or does not read
//! hides those before it and itself, never those behind it. Two lives never keep at once: the former may still be at it when its service is gone, and
//! what it keeps then is what the next one needs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blake3::Hasher;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use super::recent::Boundary;
use crate::sqlite::hold::Beat;
use crate::sqlite::wal::Salts;

const MAGIC: &[u8; 8] = b"FSHRSQL1";
const DIGEST_BYTES: usize = 32;
/// A head of more is none: the records in it are bounded, see `MEMORY_BYTES`.
const MOST_BYTES: u64 = 64 << 20;
/// Bytes from which the next records go to another part: one is removed as a whole.
const PART_BYTES: u64 = 4 << 20;
/// How long another life is waited for. It ends once it sees that nobody tells it anything, between two tries at most.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the log is that is begun anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Anew {
    /// The salts of the log that is begun anew.
    pub salts: Salts,
    /// What the row has that begins it.
    #[serde(with = "hex::serde")]
    pub beat: Beat,
}

/// The head's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Where the records behind the head's JSON begin.
    before: Boundary,
    #[serde(flatten)]
    anew: Anew,
    /// Those before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Named>,
}

/// A part, as a head names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    number: u64,
    before: Boundary,
    bytes: u64,
    #[serde(with = "hex::serde")]
    digest: [u8; DIGEST_BYTES],
}

/// What was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Where the records begin.
    pub before: Boundary,
    /// Of the log that was begun anew.
    pub anew: Anew,
    /// The records.
    pub records: Vec<u8>,
}

/// The files, for who keeps.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    /// Not all of it is released.
    parts: VecDeque<Part>,
    /// The parts that the head names.
    named: Vec<u64>,
    /// Parts that are of no more use, and are not removed yet.
    gone: Vec<u64>,
    next: u64,
    /// Locked for as long as it is open.
    _lock: Flock<File>,
}

#[derive(Debug)]
struct Part {
    number: u64,
    before: Boundary,
    bytes: u64,
    hasher: Hasher,
    file: File,
}

impl Part {
    fn end(&self) -> u64 {
        self.before.offset + self.bytes
    }
}

impl Spool {
    /// Begins behind what is kept there, which stays as it is until it is kept anew. Parts that its head does not name are removed. Waits for another
    /// life to end.
    ///
    /// # Errors
    /// When the folder cannot be read; [`io::ErrorKind::WouldBlock`] when another life does not end.
    pub fn open(path: &Path) -> io::Result<Self> {
        let lock = lock(&beside(path, "lock"))?;
        let named = match head(path)? {
            Some((head, _)) => head.parts.iter().map(|part| part.number).collect(),
            None => Vec::new(),
        };
        let found = found(path)?;
        let next = found.iter().chain(&named).max().map_or(0, |number| number.saturating_add(1));
        let gone = found.into_iter().filter(|number| !named.contains(number)).collect();
        let mut spool =
            Self { path: path.to_owned(), parts: VecDeque::new(), named, gone, next, _lock: lock };
        spool.sweep();
        Ok(spool)
    }

    /// Bytes in parts that are not released.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Keeps whole records that begin at `before`: behind those that came last, or with nothing kept before them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, before: Boundary, records: &VecDeque<Bytes>) -> io::Result<()> {
        let goes_on =
            self.parts.back().is_some_and(|part| part.end() == before.offset && part.bytes < PART_BYTES);
        if !goes_on {
            let number = self.next;
            self.next = number.checked_add(1).ok_or(io::ErrorKind::QuotaExceeded)?;
            let file = File::create_new(part(&self.path, number))?;
            self.parts.push_back(Part { number, before, bytes: 0, hasher: Hasher::new(), file });
        }
        let Some(part) = self.parts.back_mut() else { return Ok(()) };
        for bytes in records {
            part.file.write_all(bytes)?;
            part.hasher.update(bytes);
            part.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// All up to `offset` is released.
    pub fn release(&mut self, offset: u64) {
        while self.parts.front().is_some_and(|part| part.end() <= offset) {
            let part = self.parts.pop_front();
            part.into_iter().for_each(|part| self.let_go(part.number));
        }
    }

    /// Keeps none of them any more.
    pub fn forget(&mut self) {
        while let Some(part) = self.parts.pop_front() {
            self.let_go(part.number);
        }
    }

    /// Removes what is of no more use. Not while writers are held: it takes a while.
    pub fn sweep(&mut self) {
        for number in std::mem::take(&mut self.gone) {
            // What stays takes space until the next life, and is named by no head.
            let _ = std::fs::remove_file(part(&self.path, number));
        }
    }

    /// Keeps nothing any more that a log could be known by.
    ///
    /// # Errors
    /// When the head is still there.
    pub fn void(&mut self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => {
                let mut gone = std::mem::take(&mut self.named);
                gone.retain(|number| self.parts.iter().all(|part| part.number != *number));
                self.gone.extend(gone);
                Ok(())
            }
        }
    }

    /// Keeps the parts and the newest records, which begin at `before`, in the place of what was kept before. It is not synchronised: writers wait
    /// meanwhile. A process that is killed leaves it as it is; after a power loss it may be gone or not read, or an older one may read, which another row was to
    /// begin the log anew by: that is doubt, and never wrong, as long as no two are kept with one row.
    ///
    /// # Errors
    /// When it cannot be written: what was kept before is there.
    pub fn keep(&mut self, before: Boundary, anew: Anew, newest: &VecDeque<Bytes>) -> io::Result<()> {
        let parts: Vec<Named> = self
            .parts
            .iter()
            .map(|Part { number, before, bytes, hasher, .. }| Named {
                number: *number,
                before: *before,
                bytes: *bytes,
                digest: hasher.finalize().into(),
            })
            .collect();
        let named: Vec<u64> = parts.iter().map(|part| part.number).collect();
        let head = serde_json::to_vec(&Head { before, anew, parts }).map_err(io::Error::other)?;
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        let fresh = beside(&self.path, "new");
        // The head before the last, written over: a file that is made anew each time takes longer than what is in it.
        let mut file = File::options().create(true).truncate(false).write(true).open(&fresh)?;
        let mut hasher = Hasher::new();
        let head = [&MAGIC[..], &length.to_le_bytes(), &head].concat();
        for part in std::iter::once(&head[..]).chain(newest.iter().map(|bytes| &bytes[..])) {
            hasher.update(part);
            file.write_all(part)?;
        }
        file.write_all(hasher.finalize().as_bytes())?;
        let end = file.stream_position()?;
        if file.metadata()?.len() != end {
            file.set_len(end)?;
        }
        exchange(&fresh, &self.path)?;
        let before = std::mem::replace(&mut self.named, named);
        self.gone.extend(before.into_iter().filter(|number| !self.named.contains(number)));
        Ok(())
    }

    /// One that the head names stays until there is another head.
    fn let_go(&mut self, number: u64) {
        if !self.named.contains(&number) {
            self.gone.push(number);
        }
    }
}

/// Puts `fresh` in the place of what is at `path`, which is at `fresh` then, where the file system can do that.
fn exchange(fresh: &Path, path: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, fresh, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(()),
        // Nothing is there yet, or this file system does not exchange.
        Err(_) => std::fs::rename(fresh, path),
    }
}

/// The lock, once no other life has it.
fn lock(path: &Path) -> io::Result<Flock<File>> {
    let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
    let until = Instant::now() + PATIENCE;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < until => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                let why = format!("another process follows the database and has `{}` locked", path.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
            }
            Err((_, why)) => return Err(why.into()),
        };
        // A plain thread of a process that does nothing else.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The numbers of all parts that are there.
fn found(path: &Path) -> io::Result<Vec<u64>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let other = entry?.file_name();
        let ending = other.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        let ending = ending.and_then(|rest| std::str::from_utf8(rest.strip_prefix(b".")?).ok());
        let number = ending.and_then(|ending| ending.parse::<u64>().ok().filter(|n| n.to_string() == ending));
        found.extend(number);
    }
    Ok(found)
}

/// What is kept; `None` when there is nothing whole.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(path: &Path) -> io::Result<Option<Kept>> {
    let Some((head, newest)) = head(path)? else { return Ok(None) };
    let (mut before, mut from) = (head.before, head.parts.len());
    for named in head.parts.iter().rev() {
        let dense = named.before.offset.checked_add(named.bytes) == Some(before.offset);
        if !dense || !named.is_there(path)? {
            break;
        }
        before = named.before;
        from -= 1;
    }
    // Twice through the files, and once in memory.
    let mut records = Vec::with_capacity((head.before.offset - before.offset) as usize + newest.len());
    for named in head.parts.get(from..).unwrap_or_default() {
        File::open(part(path, named.number))?.take(named.bytes).read_to_end(&mut records)?;
    }
    records.extend(newest);
    Ok(Some(Kept { before, anew: head.anew, records }))
}

impl Named {
    /// Whether it is there as it was named.
    fn is_there(&self, path: &Path) -> io::Result<bool> {
        let file = match File::open(part(path, self.number)) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(why) => return Err(why),
        };
        let mut hasher = Hasher::new();
        hasher.update_reader(file.take(self.bytes))?;
        Ok(*hasher.finalize().as_bytes() == self.digest)
    }
}

fn part(path: &Path, number: u64) -> PathBuf {
    beside(path, &number.to_string())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{ending}"));
    PathBuf::from(name)
}

/// The head and the newest records.
fn head(path: &Path) -> io::Result<Option<(Head, Vec<u8>)>> {
    let bytes = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MOST_BYTES => return Ok(None),
        Ok(_) => std::fs::read(path)?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why),
    };
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Option<(Head, Vec<u8>)> {
    let (content, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    if blake3::hash(content).as_bytes() != digest {
        return None;
    }
    let (length, rest) = content.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (head, records) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((serde_json::from_slice(head).ok()?, records.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANEW: Anew = Anew { salts: Salts { rising: 3, random: 4 }, beat: [5; 16] };

    fn records(pieces: &[&[u8]]) -> VecDeque<Bytes> {
        pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect()
    }

    fn at(offset: u64) -> Boundary {
        Boundary { offset, number: 7, digest: [1; 8] }
    }

    fn kept(before: u64, records: &[u8]) -> Option<Kept> {
        Some(Kept { before: at(before), anew: ANEW, records: records.to_vec() })
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        // What was there before the head waits beside it to be written over.
        names.retain(|name| name != "spool.lock" && name != "spool.new");
        names.sort();
        names
    }

    #[test]
    fn what_is_kept_reads_back_and_nothing_that_was_cut_or_changed_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        assert_eq!(read(&path).unwrap(), None);
        let mut spool = Spool::open(&path).unwrap();
        spool.keep(at(99), ANEW, &records(&[b"older"])).unwrap();
        spool.keep(at(99), ANEW, &records(&[b"rec", b"ords"])).unwrap();
        assert_eq!(read(&path).unwrap(), kept(99, b"records"));
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(parse(&changed), None, "byte {at}");
            assert_eq!(parse(&bytes[..at]), None, "cut to {at}");
        }
    }

    #[test]
    fn parts_come_before_the_newest_and_what_was_appended_since_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut spool = Spool::open(&path).unwrap();
        spool.append(at(10), &records(&[b"one", b"two"])).unwrap();
        spool.append(at(16), &records(&[b"three"])).unwrap();
        spool.keep(at(21), ANEW, &records(&[b"newest"])).unwrap();
        spool.append(at(21), &records(&[b"newest, and more"])).unwrap();
        assert_eq!(spool.bytes(), 27);
        assert_eq!(read(&path).unwrap(), kept(10, b"onetwothreenewest"));
        drop(spool);
        // Another life's part does not take the place of one that the head names.
        let mut next = Spool::open(&path).unwrap();
        next.append(at(40), &records(&[b"another life"])).unwrap();
        assert_eq!(read(&path).unwrap(), kept(10, b"onetwothreenewest"));
        assert_eq!(names(folder.path()), ["spool", "spool.0", "spool.1"]);
        next.keep(at(52), ANEW, &records(&[])).unwrap();
        assert_eq!(names(folder.path()), ["spool", "spool.0", "spool.1"], "writers are held");
        next.sweep();
        assert_eq!(read(&path).unwrap(), kept(40, b"another life"));
        assert_eq!(names(folder.path()), ["spool", "spool.1"]);
    }

    #[test]
    fn a_part_that_is_gone_or_damaged_hides_itself_and_those_before_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut spool = Spool::open(&path).unwrap();
        let large = vec![1; PART_BYTES as usize];
        let ends: Vec<u64> = (0..3).map(|number| number * PART_BYTES).collect();
        for end in &ends {
            spool.append(at(*end), &records(&[&large])).unwrap();
        }
        spool.keep(at(3 * PART_BYTES), ANEW, &records(&[b"newest"])).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().records.len() as u64, 3 * PART_BYTES + 6);
        // What the head names stays, though it is released.
        spool.release(PART_BYTES);
        assert_eq!((spool.bytes(), read(&path).unwrap().unwrap().before), (2 * PART_BYTES, at(0)));
        std::fs::write(part(&path, 1), b"damaged").unwrap();
        let read_then = read(&path).unwrap().unwrap();
        assert_eq!((read_then.before, read_then.records.len() as u64), (at(ends[2]), PART_BYTES + 6));
        std::fs::remove_file(part(&path, 2)).unwrap();
        assert_eq!(read(&path).unwrap(), kept(3 * PART_BYTES, b"newest"));
        spool.forget();
        spool.keep(at(3 * PART_BYTES), ANEW, &records(&[b"newest"])).unwrap();
        spool.sweep();
        assert_eq!(names(folder.path()), ["spool"]);
        spool.void().unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn a_second_life_keeps_nothing_and_removes_nothing_while_the_first_is_at_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut first = Spool::open(&path).unwrap();
        first.append(at(0), &records(&[b"records"])).unwrap();
        let second = std::thread::spawn({
            let path = path.clone();
            move || {
                let spool = Spool::open(&path).unwrap();
                (read(&path).unwrap(), spool.named.len())
            }
        });
        // It waits: what is not named yet is not removed.
        first.keep(at(7), ANEW, &records(&[])).unwrap();
        drop(first);
        assert_eq!(second.join().unwrap(), (kept(0, b"records"), 1));
    }

    #[test]
    fn only_what_is_a_part_by_name_is_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        for name in ["spool.+5", "spool.05", "spool.part", "spools.1", "other.1", "spool.7"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        let spool = Spool::open(&path).unwrap();
        assert_eq!(spool.next, 8);
        assert_eq!(names(folder.path()), ["other.1", "spool.+5", "spool.05", "spool.part", "spools.1"]);
    }
}
