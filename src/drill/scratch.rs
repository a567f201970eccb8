//! The place of a drill's copy: made, marked, and removed whatever becomes of the drill.
//!
//! What always holds: nothing is removed but a directory of a drill's name whose marker says so, whose lock nobody holds and whose process is gone or this one; only processes
//! whose working directory lies in it are ended, and they are looked at anew right before. The marker goes last: a removal that is cut off is gone on with. A directory of another machine is left
//! to it. What is cleared is known by handles that were opened once, the place's and the directory's: whoever puts a link in the way of a path meanwhile leads nobody anywhere (`removal.rs`).
//! A crash leaves the directory, and perhaps a server in it; [`sweep`] of the next drill or service removes both. Between making a directory and marking it only an
//! empty one can be left.
//!
//! ```text
//! PLACE/drill-<12 hex>/farshore-drill.json   marker, locked while the drill goes on
//!                      d/                    the copy, and beside it its tablespaces
//! DEFAULT/elsewhere-<12 hex>                 says in which other place a drill of this name is
//! ```

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farshore_journal::{DatabaseName, DrillId};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use super::process::{self, Process};
use super::removal::{self, Folder};
use crate::wiring;

/// The marker's name.
pub const MARKER: &str = "farshore-drill.json";
const NEXT: &str = "farshore-drill.json.next";
const SCHEMA: &str = "farshore.drill-scratch/1";
const PREFIX: &str = "drill-";
const ELSEWHERE: &str = "elsewhere-";
/// A marker is small; a longer file is none.
const LONGEST_MARKER: u64 = 64 << 10;
/// Longer, and a server's socket below it would have to lie elsewhere.
const LONGEST_PLACE: usize = 44;
/// How long the removal of a copy is tried: its own workers may still write when a drill is cancelled.
const REMOVING: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(100);

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    schema: String,
    drill: DrillId,
    database: DatabaseName,
    node: String,
    boot: String,
    process: Process,
}

/// A drill's own directory.
#[derive(Debug)]
pub struct Scratch {
    folder: Folder,
    pointer: Option<PathBuf>,
    /// Held for as long as the drill goes on.
    lock: Flock<File>,
}

/// What became of what earlier drills left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// The directory.
    pub directory: PathBuf,
    /// How many processes were ended in it.
    pub ended: usize,
    /// Why it could not be removed.
    pub left: Option<String>,
}

impl Scratch {
    /// Makes one in `place`, which is made when it is not there. `home` is where drills are looked for that went elsewhere.
    ///
    /// # Errors
    /// In words.
    pub fn make(place: &Path, home: &Path, drill: DrillId, database: &DatabaseName) -> Result<Self, String> {
        let why = |what: &str, path: &Path| {
            let text = format!("{} cannot be {what}", path.display());
            move |why: io::Error| format!("{text}: {why}")
        };
        let me =
            process::this().ok_or_else(|| "this process cannot be told from others by /proc".to_owned())?;
        make_place(place).map_err(why("made", place))?;
        let name = name_of(drill);
        let pointer = (place != home).then(|| home.join(format!("{ELSEWHERE}{}", &name[PREFIX.len()..])));
        if let Some(pointer) = &pointer {
            make_place(home).map_err(why("made", home))?;
            let text = place.to_str().ok_or_else(|| format!("{} is no text", place.display()))?;
            std::fs::write(pointer, text).map_err(why("written", pointer))?;
        }
        let alone = lock(place).map_err(why("locked", place))?;
        let directory = place.join(&name);
        let made = (|| {
            mkdirat(alone.as_fd(), name.as_str(), Mode::S_IRWXU)?;
            Folder::open(alone.try_clone()?.into(), &name, &directory)
        })();
        let folder = made.map_err(why("made", &directory))?;
        let marker = Marker {
            schema: SCHEMA.to_owned(),
            drill,
            database: database.clone(),
            node: wiring::node(),
            boot: process::boot(),
            process: me,
        };
        let bytes = serde_json::to_vec_pretty(&marker).unwrap_or_default();
        let marked = (|| {
            let flags =
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file = File::from(openat(folder.as_fd(), NEXT, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
            file.write_all(&bytes)?;
            file.sync_all()?;
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| why)?;
            renameat(folder.as_fd(), NEXT, folder.as_fd(), MARKER)?;
            io::Result::Ok(lock)
        })();
        match marked {
            Ok(lock) => Ok(Self { folder, pointer, lock }),
            Err(failed) => {
                let _what_was_made = folder.remove(NEXT);
                Err(why("marked", &directory)(failed))
            }
        }
    }

    /// Where the copy goes.
    pub fn copy(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    /// Ends what runs in it and removes it.
    ///
    /// # Errors
    /// In words; the next drill tries again.
    pub fn remove(self) -> Result<(), String> {
        let done = clear(&self.folder).map(|_| ());
        drop(self.lock);
        if done.is_ok()
            && let Some(pointer) = &self.pointer
        {
            let _stale = std::fs::remove_file(pointer);
        }
        done
    }
}

/// Whether a server's socket fits below such a place.
///
/// # Errors
/// In words.
pub fn fits_a_socket(place: &Path) -> Result<(), String> {
    let text = place.to_str().unwrap_or_default();
    if text.is_empty()
        || text.len() > LONGEST_PLACE
        || text.chars().any(|c| c.is_control() || " ,\"'\\".contains(c))
    {
        return Err(format!(
            "a PostgreSQL server's socket lies below it, so its path has at most {LONGEST_PLACE} bytes and no blanks, quotes or commas"
        ));
    }
    Ok(())
}

/// Removes what drills left that are over. `places` are all those where they may be; `home` says of more.
pub fn sweep(places: &[PathBuf], home: &Path) -> Vec<Swept> {
    let mut all: Vec<PathBuf> = places.to_vec();
    all.push(home.to_owned());
    let pointers = pointers(home);
    all.extend(pointers.iter().map(|(_, place, _)| place.clone()));
    all.sort();
    all.dedup();
    let swept = all.iter().flat_map(|place| sweep_place(place)).collect();
    for (pointer, place, name) in pointers {
        if matches!(place.join(name).try_exists(), Ok(false)) && is_over(&pointer) {
            let _stale = std::fs::remove_file(pointer);
        }
    }
    swept
}

/// A pointer is written before its directory is made: a young one may belong to a drill that begins just now.
fn is_over(pointer: &Path) -> bool {
    let modified = std::fs::metadata(pointer).and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > REMOVING))
}

fn pointers(home: &Path) -> Vec<(PathBuf, PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(home) else { return Vec::new() };
    let pointer = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let id = path.file_name()?.to_str()?.strip_prefix(ELSEWHERE)?.to_owned();
        let place = read_small(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
        Path::new(&place).is_absolute().then(|| (path.clone(), PathBuf::from(place), format!("{PREFIX}{id}")))
    };
    entries.filter_map(pointer).collect()
}

fn sweep_place(place: &Path) -> Vec<Swept> {
    let mut over = Vec::new();
    {
        // A drill that begins just now has no marker yet, and holds this.
        let Ok(alone) = lock(place) else { return Vec::new() };
        let Ok(names) = removal::names(alone.as_fd()) else { return Vec::new() };
        for name in names.iter().filter_map(|name| name.to_str().ok()).filter(|name| is_name(name)) {
            let directory = place.join(name);
            let Ok(handle) = alone.try_clone() else { continue };
            // What is no folder, or a link to one, is not looked at.
            let Ok(folder) = Folder::open(handle.into(), name, &directory) else { continue };
            match claim(&folder) {
                Claimed::Over(lock) => over.push((folder, lock)),
                Claimed::Unmarked => {
                    // Only what no drill got beyond: an empty one goes, anything else stays.
                    let _not_there = unlinkat(folder.as_fd(), NEXT, UnlinkatFlags::NoRemoveDir);
                    if let Err(why) = folder.remove_name() {
                        tracing::warn!(directory = %directory.display(), error = %why, "it has a drill's name and no marker: it is left as it is");
                    }
                }
                Claimed::Others(why) => {
                    tracing::debug!(directory = %directory.display(), why, "a drill's directory is left as it is");
                }
            }
        }
    }
    let clear = |(folder, lock): (Folder, Flock<File>)| {
        let done = clear(&folder);
        let directory = folder.path().to_owned();
        drop(lock);
        let (ended, left) = match done {
            Ok(ended) => (ended, None),
            Err(why) => (0, Some(why)),
        };
        Swept { directory, ended, left }
    };
    over.into_iter().map(clear).collect()
}

/// How a directory of a drill's name stands.
enum Claimed {
    /// Its drill is over; nobody else clears it while this is held.
    Over(Flock<File>),
    /// It was never marked.
    Unmarked,
    /// It is not ours to remove.
    Others(&'static str),
}

fn claim(folder: &Folder) -> Claimed {
    // A marker that is none must not have us wait for whoever writes to it.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(folder.as_fd(), MARKER, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Claimed::Unmarked,
        Err(_) => return Claimed::Others("its marker cannot be opened"),
    };
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Claimed::Others("its drill goes on"),
        Err(_) => return Claimed::Others("its marker cannot be locked"),
    };
    let marker = read_from(&lock).ok().and_then(|bytes| serde_json::from_slice::<Marker>(&bytes).ok());
    let Some(marker) = marker.filter(|marker| marker.schema == SCHEMA) else {
        return Claimed::Others("its marker is none of this version");
    };
    if folder.name() != name_of(marker.drill) {
        return Claimed::Others("its marker is another's");
    }
    if marker.node != wiring::node() {
        return Claimed::Others("it is another machine's");
    }
    // The lock says that the drill is over. A process that lives under the marker's own name has its own way to clear it.
    let lives = marker.boot == process::boot() && marker.process.is_alive();
    match lives && Some(marker.process) != process::this() {
        true => Claimed::Others("its process lives"),
        false => Claimed::Over(lock),
    }
}

/// Ends what runs in a directory and removes it, the marker last. How many processes were ended.
#[allow(clippy::disallowed_methods)] // on a thread for blocking work, which waits for threads that write there for a moment yet
fn clear(folder: &Folder) -> Result<usize, String> {
    let ended = process::end_all_in(folder.as_fd())?;
    let deadline = Instant::now() + REMOVING;
    loop {
        let why = match folder.remove(MARKER) {
            Ok(()) => return Ok(ended),
            Err(why) => why,
        };
        if Instant::now() > deadline {
            return Err(format!("{} cannot be removed: {why}", folder.path().display()));
        }
        std::thread::sleep(AGAIN);
    }
}

fn make_place(place: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(place)
}

/// Holds a place against others that make or judge a directory in it.
fn lock(place: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(place)?, FlockArg::LockExclusive).map_err(|(_, why)| why.into())
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    read_from(&File::open(path)?)
}

fn read_from(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST_MARKER).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn name_of(drill: DrillId) -> String {
    format!("{PREFIX}{}", &drill.to_string()[..12])
}

fn is_name(name: &str) -> bool {
    let id = name.strip_prefix(PREFIX).unwrap_or_default();
    id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(place: &Path) -> Scratch {
        Scratch::make(place, place, DrillId::mint(), &"orders".parse().unwrap()).unwrap()
    }

    fn count(place: &Path) -> usize {
        std::fs::read_dir(place).unwrap().count()
    }

    #[test]
    fn a_directory_of_a_drill_that_goes_on_stays_and_one_that_is_over_goes_with_what_runs_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (going, over) = (made(folder.path()), made(folder.path()));
        std::fs::create_dir_all(over.copy().join("base/1")).unwrap();
        std::fs::write(over.copy().join("base/1/2"), b"page").unwrap();
        let mut left =
            std::process::Command::new("/bin/sleep").arg("100").current_dir(over.copy()).spawn().unwrap();
        let mut other =
            std::process::Command::new("/bin/sleep").arg("100").current_dir(folder.path()).spawn().unwrap();
        let directory = over.folder.path().to_owned();
        drop(over);
        // Somebody reaps what was ended.
        let reaper = std::thread::spawn(move || left.wait().unwrap());
        let swept = sweep(&[], folder.path());
        assert_eq!(swept, [Swept { directory: directory.clone(), ended: 1, left: None }]);
        assert!(!reaper.join().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "what runs beside it is nobody's to end");
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!directory.exists() && going.folder.path().exists());
        going.remove().unwrap();
        assert_eq!(count(folder.path()), 0);
    }

    #[test]
    fn what_bears_no_marker_of_a_drill_that_is_over_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        let over = made(place);
        let directory = over.folder.path().to_owned();
        drop(over);
        let text = std::fs::read_to_string(directory.join(MARKER)).unwrap();
        let marked = |text: &str| {
            std::fs::write(directory.join(MARKER), text).unwrap();
            assert_eq!(sweep(&[], place), [], "{text}");
        };
        let node = wiring::node();
        marked(&text.replace(&format!("\"node\": \"{node}\""), "\"node\": \"elsewhere\""));
        marked(&text.replace(SCHEMA, "farshore.drill-scratch/2"));
        marked("{}");
        let other = DrillId::mint().to_string();
        let own = serde_json::from_str::<Marker>(&text).unwrap().drill.to_string();
        marked(&text.replace(&own, &other));
        // Another process's that lives, though it holds no lock: init does.
        let init = Process::of(1).unwrap();
        let mut marker: Marker = serde_json::from_str(&text).unwrap();
        marker.process = init;
        marked(&serde_json::to_string(&marker).unwrap());
        std::fs::create_dir(place.join("drill-000000000000")).unwrap();
        std::fs::create_dir(place.join("drill-000000000001")).unwrap();
        std::fs::write(place.join("drill-000000000001/file"), b"somebody's").unwrap();
        std::fs::create_dir(place.join("drills-of-mine")).unwrap();
        assert_eq!(sweep(&[], place), []);
        assert!(!place.join("drill-000000000000").exists(), "an empty one goes");
        assert!(place.join("drill-000000000001/file").exists() && place.join("drills-of-mine").exists());
        std::fs::write(directory.join(MARKER), &text).unwrap();
        assert_eq!(sweep(&[], place).len(), 1);
    }

    #[test]
    fn a_link_of_a_drills_name_is_not_followed_and_what_it_leads_to_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let (place, other) = (folder.path().join("place"), folder.path().join("other"));
        let over = made(&other);
        let directory = over.folder.path().to_owned();
        std::fs::write(directory.join("file"), b"theirs").unwrap();
        drop(over);
        std::fs::create_dir(&place).unwrap();
        let link = place.join(directory.file_name().unwrap());
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert_eq!(sweep(&[], &place), []);
        assert!(directory.join("file").exists() && link.symlink_metadata().is_ok());
    }

    #[test]
    fn what_a_drill_left_elsewhere_is_found_from_home() {
        let folder = tempfile::tempdir().unwrap();
        let (home, place) = (folder.path().join("home"), folder.path().join("place"));
        let drill = DrillId::mint();
        let scratch = Scratch::make(&place, &home, drill, &"orders".parse().unwrap()).unwrap();
        assert_eq!(count(&home), 1);
        drop(scratch);
        assert_eq!(sweep(&[], &home).len(), 1);
        assert_eq!(count(&place), 0);
    }
}
