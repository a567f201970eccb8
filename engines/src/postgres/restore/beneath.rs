//! Writes files only beneath a root, from a list of entries that may be hostile.
//!
//! What always holds:
//! - every step down is opened relative to its parent's descriptor without following a link, so a link planted
//!   before or during the restore ends it and is never walked through;
//! - files are created new, never opened: nothing that is there is overwritten, a hard link or device cannot be hit;
//! - links are made for tablespaces alone, to targets the operator approved; what the backup holds below a
//!   tablespace is written through the target's own descriptor, not through the link;
//! - modes are the root's, not the entry's: no set-user-id, no access for others, unless the caller gives a file others;
//! - entries, bytes in a file and bytes in all are bounded before anything is written.
//!
//! A crash leaves a directory that cannot be started, as long as the caller writes `global/pg_control` last.
//! It does not remove what a failed restore left: the operator may want to look.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

mod file;
mod path;
mod sync;

pub use file::RootFile;
pub use path::{PathFault, RelPath};

/// What a restore may write at most. All of it is known from the plan, before the first byte.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Files and directories, tablespaces included.
    pub entries: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Who may read the restored directory. Source: `initdb --allow-group-access`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// 0700 and 0600.
    Owner,
    /// 0750 and 0640, when the source had it so.
    Group,
    /// As [`Owner`](Self::Owner), but for a directory that was there: its mode is left as the operator set it.
    Kept,
}

/// What an archive says an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    SymbolicLink,
    /// A hard link.
    HardLink,
    /// A device, pipe or socket.
    Special,
}

/// Why an entry was not written.
#[derive(Debug, thiserror::Error)]
pub enum BeneathError {
    /// The target is not empty.
    #[error("`{path}` is not empty: a restore writes only to a new or empty directory", path = path.display())]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// The path is not one below the root.
    #[error("the backup names the path {path:?}: {fault}")]
    Path {
        /// As written in the backup, cut to 200 characters.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// Neither file nor directory.
    #[error("the backup holds `{path}` as {kind:?}: a restore makes files and directories only")]
    Kind {
        /// The entry.
        path: RelPath,
        /// What it claims to be.
        kind: EntryKind,
    },
    /// A link, file or other thing stands where a directory was expected, or anything where something new was.
    #[error("`{path}` is already there, or is a link or not a directory")]
    InTheWay {
        /// The path.
        path: String,
    },
    /// More than the plan said.
    #[error("the backup holds more {what} than its plan: the bound is {bound}")]
    Bound {
        /// Entries, bytes in a file, bytes in all.
        what: &'static str,
        /// The bound.
        bound: u64,
    },
    /// A write past the announced size.
    #[error("`{path}` was announced with {announced} bytes, and has a write at {offset} that goes beyond")]
    FileSize {
        /// The file.
        path: RelPath,
        /// Its size.
        announced: u64,
        /// Where the write began.
        offset: u64,
    },
    /// Two writes to one place.
    #[error("`{path}` is written twice at {offset}")]
    WrittenTwice {
        /// The file.
        path: RelPath,
        /// Where.
        offset: u64,
    },
    /// Bytes are missing.
    #[error("`{path}` ended before all of its bytes were written")]
    FileIncomplete {
        /// The file.
        path: RelPath,
    },
    /// A synchronise with files still open or given up.
    #[error("{files} files are not finished")]
    Unfinished {
        /// How many.
        files: usize,
    },
    /// A tablespace nobody gave a place.
    #[error("the backup holds files of tablespace {oid}, which has no place yet: map it")]
    TablespaceUnmapped {
        /// Its directory's name, an oid.
        oid: String,
    },
    /// A place for a tablespace that cannot be one.
    #[error("tablespace {oid} cannot be put at `{target}`: {why}", target = target.display())]
    TablespaceTarget {
        /// Its oid.
        oid: u32,
        /// The place.
        target: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {what} `{path}`")]
    Io {
        /// The operation.
        what: &'static str,
        /// On what.
        path: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

fn io_error(what: &'static str, path: impl ToString, source: impl Into<io::Error>) -> BeneathError {
    BeneathError::Io { what, path: path.to_string(), source: source.into() }
}

#[derive(Debug)]
struct Tablespace {
    dir: Arc<OwnedFd>,
    real: PathBuf,
}

#[derive(Debug, Default)]
struct Taken {
    entries: u64,
    bytes: u64,
    tablespaces: BTreeMap<u32, Tablespace>,
    files: BTreeSet<RelPath>,
    dirs: BTreeSet<RelPath>,
}

/// A directory that is being restored into. Shared by the threads that write it.
#[derive(Debug)]
pub struct Root {
    real: PathBuf,
    dir: Arc<OwnedFd>,
    access: Access,
    bounds: Bounds,
    taken: Mutex<Taken>,
    unfinished: AtomicUsize,
}

impl Root {
    /// Makes `path` (its parent must be there), or takes it if it is an empty directory.
    ///
    /// # Errors
    /// [`BeneathError::NotEmpty`] when anything is in it, `lost+found` included: PostgreSQL refuses that as well.
    pub fn create(path: &Path, access: Access, bounds: Bounds) -> Result<Self, BeneathError> {
        Self::create_beside(path, access, bounds, &[])
    }

    /// As [`create`](Self::create), in a directory that may hold files of these names. Nothing is written to them.
    ///
    /// # Errors
    /// [`BeneathError::NotEmpty`] when anything else is in it.
    pub fn create_beside(
        path: &Path,
        access: Access,
        bounds: Bounds,
        beside: &[&str],
    ) -> Result<Self, BeneathError> {
        let (real, dir) = empty_directory(path, access, beside)?;
        let taken = Mutex::new(Taken::default());
        Ok(Self { real, dir: Arc::new(dir), access, bounds, taken, unfinished: AtomicUsize::new(0) })
    }

    /// Takes a directory that was filled before, for changes to it; its tablespaces are out of reach.
    ///
    /// # Errors
    /// When it is not a directory.
    pub fn adopt(path: &Path, access: Access, bounds: Bounds) -> Result<Self, BeneathError> {
        let real = fs::canonicalize(path).map_err(|source| io_error("resolve", path.display(), source))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(&real, flags, Mode::empty())
            .map_err(|errno| io_error("open directory", path.display(), errno))?;
        let taken = Mutex::new(Taken::default());
        Ok(Self { real, dir: Arc::new(dir), access, bounds, taken, unfinished: AtomicUsize::new(0) })
    }

    /// Where it is, without links.
    pub fn path(&self) -> &Path {
        &self.real
    }

    /// Checks what an archive says of an entry.
    ///
    /// # Errors
    /// When its path leads anywhere but down, or it is neither file nor directory.
    pub fn admit(&self, kind: EntryKind, path: &str) -> Result<RelPath, BeneathError> {
        let cut = || path.chars().take(200).collect();
        let path = RelPath::parse(path).map_err(|fault| BeneathError::Path { path: cut(), fault })?;
        match kind {
            EntryKind::File | EntryKind::Directory => Ok(path),
            EntryKind::SymbolicLink | EntryKind::HardLink | EntryKind::Special => {
                Err(BeneathError::Kind { path, kind })
            }
        }
    }

    /// Makes a directory and those above it; one that is there already is fine.
    ///
    /// # Errors
    /// When something else is in the way.
    pub fn dir(&self, path: &RelPath) -> Result<(), BeneathError> {
        self.walk(path, path.names().count()).map(drop)
    }

    /// Creates a file of exactly `bytes`, and the directories above it.
    ///
    /// # Errors
    /// When anything is there already, or a bound would be passed.
    pub fn file(&self, path: &RelPath, bytes: u64) -> Result<RootFile<'_>, BeneathError> {
        if bytes > self.bounds.file_bytes {
            return Err(BeneathError::Bound { what: "bytes in a file", bound: self.bounds.file_bytes });
        }
        self.take(1, bytes)?;
        let (parent, name) = self.parent(path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(parent.as_fd(), name, flags, self.file_mode()) {
            Ok(fd) => File::from(fd),
            Err(Errno::EEXIST | Errno::ELOOP) => {
                return Err(BeneathError::InTheWay { path: path.to_string() });
            }
            Err(errno) => return Err(io_error("create", path, errno)),
        };
        self.unfinished.fetch_add(1, Ordering::AcqRel);
        let file = Mutex::new(Some(Arc::new(file)));
        Ok(RootFile { root: self, path: path.clone(), file, bytes, written: Mutex::default() })
    }

    /// A file that was made here, once more.
    fn reopened(&self, path: &RelPath) -> Result<File, BeneathError> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(parent.as_fd(), name, flags, Mode::empty()) {
            Ok(fd) => Ok(File::from(fd)),
            Err(errno) => Err(io_error("open once more", path, errno)),
        }
    }

    /// Writes a whole small file of our own, created new.
    ///
    /// # Errors
    /// As [`Root::file`].
    pub fn write(&self, path: &RelPath, content: &[u8]) -> Result<(), BeneathError> {
        let file = self.file(path, content.len() as u64)?;
        file.write_all_at(content, 0)?;
        file.finish()
    }

    /// Puts a tablespace at `target` (missing or empty) and links it. Before any of its files.
    ///
    /// # Errors
    /// When the place is relative, taken, or overlaps the data directory or another tablespace.
    pub fn tablespace_link(&self, oid: u32, target: &Path) -> Result<(), BeneathError> {
        let refuse = |why| BeneathError::TablespaceTarget { oid, target: target.to_owned(), why };
        let plain = target.to_str().is_some_and(|text| !text.chars().any(char::is_control));
        if oid == 0 || !target.is_absolute() || !plain {
            return Err(refuse("it must be an absolute path in plain text"));
        }
        if self.taken().tablespaces.contains_key(&oid) {
            return Err(refuse("the tablespace has a place already"));
        }
        self.take(1, 0)?;
        let links = self.walk(&relative("pg_tblspc"), 1)?;
        // Overlap is decided on the real path of the parent before anything is made there.
        let parent = target.parent().ok_or_else(|| refuse("it is the root of the file system"))?;
        let real = fs::canonicalize(parent).map_err(|e| io_error("resolve", parent.display(), e))?;
        let name = target.file_name().ok_or_else(|| refuse("its last name is `..`"))?;
        let overlaps = |place: &Path, other: &Path| place.starts_with(other) || other.starts_with(place);
        let taken_by = |place: &Path| {
            let taken = self.taken();
            overlaps(place, &self.real) || taken.tablespaces.values().any(|t| overlaps(place, &t.real))
        };
        if taken_by(&real.join(name)) {
            return Err(refuse("it overlaps the data directory or another tablespace"));
        }
        let (real, dir) = empty_directory(target, self.access, &[])?;
        if taken_by(&real) {
            return Err(refuse("it overlaps the data directory or another tablespace"));
        }
        match symlinkat(real.as_path(), links.as_fd(), oid.to_string().as_str()) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(BeneathError::InTheWay { path: format!("pg_tblspc/{oid}") }),
            Err(errno) => return Err(io_error("link", format!("pg_tblspc/{oid}"), errno)),
        }
        self.taken().tablespaces.insert(oid, Tablespace { dir: Arc::new(dir), real });
        Ok(())
    }

    /// Gives a file other permission bits.
    ///
    /// # Errors
    /// When it is not there, or is a link.
    pub fn set_mode(&self, path: &RelPath, mode: u32) -> Result<(), BeneathError> {
        let file = self.open(path)?;
        let mode = Mode::from_bits_truncate(mode & 0o777);
        fchmod(&file, mode).map_err(|errno| io_error("set the mode of", path, errno))
    }

    /// Renames a file, if it is there; whether it was. The new name must be free, which the rename itself sees to where the file system can.
    ///
    /// # Errors
    /// When the new name is taken.
    pub fn set_aside(&self, from: &RelPath, to: &RelPath) -> Result<bool, BeneathError> {
        let ((from_dir, from_name), (to_dir, to_name)) = (self.parent(from)?, self.parent(to)?);
        if fstatat(to_dir.as_fd(), to_name, AtFlags::AT_SYMLINK_NOFOLLOW) != Err(Errno::ENOENT) {
            return Err(BeneathError::InTheWay { path: to.to_string() });
        }
        match rename_to_free(&from_dir, from_name, &to_dir, to_name) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(false),
            Err(Errno::EEXIST) => return Err(BeneathError::InTheWay { path: to.to_string() }),
            Err(errno) => return Err(io_error("rename", from, errno)),
        }
        let mut taken = self.taken();
        if taken.files.remove(from) {
            taken.files.insert(to.clone());
        }
        Ok(true)
    }

    /// Removes a file or link, if it is there; whether it was.
    ///
    /// # Errors
    /// When it is a directory.
    pub fn remove(&self, path: &RelPath) -> Result<bool, BeneathError> {
        let (parent, name) = self.parent(path)?;
        match unlinkat(parent.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(io_error("remove", path, errno)),
        }
        self.taken().files.remove(path);
        Ok(true)
    }

    /// Removes an empty directory, if it is there; whether it was.
    ///
    /// # Errors
    /// When it is not empty or no directory.
    pub fn remove_directory(&self, path: &RelPath) -> Result<bool, BeneathError> {
        let (parent, name) = self.parent(path)?;
        match unlinkat(parent.as_fd(), name, UnlinkatFlags::RemoveDir) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(io_error("remove", path, errno)),
        }
        self.taken().dirs.remove(path);
        Ok(true)
    }

    /// Whether a plain file stands there.
    ///
    /// # Errors
    /// When a directory above it is none.
    pub fn has_file(&self, path: &RelPath) -> Result<bool, BeneathError> {
        Ok(self.kind_of(path)? == Some(SFlag::S_IFREG))
    }

    /// Whether a directory stands there.
    ///
    /// # Errors
    /// When a directory above it is none.
    pub fn has_directory(&self, path: &RelPath) -> Result<bool, BeneathError> {
        Ok(self.kind_of(path)? == Some(SFlag::S_IFDIR))
    }

    fn kind_of(&self, path: &RelPath) -> Result<Option<SFlag>, BeneathError> {
        let (parent, name) = self.parent(path)?;
        match fstatat(parent.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(io_error("look at", path, errno)),
        }
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// When it is not there, is a link, or is longer.
    pub fn read(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, BeneathError> {
        use std::io::Read;
        let mut content = Vec::new();
        let file = self.open(path)?;
        file.take(limit.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|source| io_error("read", path, source))?;
        if content.len() as u64 > limit {
            return Err(BeneathError::Bound { what: "bytes in a file", bound: limit });
        }
        Ok(content)
    }

    /// Names of what stands directly in a directory.
    ///
    /// # Errors
    /// When it is not a directory.
    pub fn list(&self, path: &RelPath) -> Result<Vec<String>, BeneathError> {
        // Walked first so that no link is followed; names alone are taken from the listing.
        self.dir(path)?;
        let mut names = Vec::new();
        let place = self.real.join(path.as_str());
        for entry in fs::read_dir(place).map_err(|source| io_error("list", path, source))? {
            let entry = entry.map_err(|source| io_error("list", path, source))?;
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
            if names.len() as u64 > self.bounds.entries {
                return Err(BeneathError::Bound { what: "entries", bound: self.bounds.entries });
            }
        }
        Ok(names)
    }

    fn open(&self, path: &RelPath) -> Result<File, BeneathError> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = openat(parent.as_fd(), name, flags, Mode::empty()).map_err(|e| io_error("open", path, e))?;
        Ok(File::from(fd))
    }

    fn finished(&self, path: RelPath) {
        self.taken().files.insert(path);
    }

    fn parent<'p>(&self, path: &'p RelPath) -> Result<(Arc<OwnedFd>, &'p str), BeneathError> {
        let above = path.names().count() - 1;
        let parent = self.walk(path, above)?;
        Ok((parent, path.last()))
    }

    /// Goes down the first `depth` names of `path`, making what is missing, following nothing.
    fn walk(&self, path: &RelPath, depth: usize) -> Result<Arc<OwnedFd>, BeneathError> {
        let mut here = Arc::clone(&self.dir);
        let mut so_far = String::new();
        let mut in_tablespaces = false;
        for (level, name) in path.names().take(depth).enumerate() {
            if level > 0 {
                so_far.push('/');
            }
            so_far.push_str(name);
            if level == 1 && in_tablespaces {
                // The link is never walked: the target's own descriptor was kept when it was made.
                let oid = name.parse().ok().filter(|oid: &u32| oid.to_string() == name);
                let known =
                    oid.and_then(|oid| self.taken().tablespaces.get(&oid).map(|t| Arc::clone(&t.dir)));
                here = known.ok_or_else(|| BeneathError::TablespaceUnmapped { oid: name.to_owned() })?;
                continue;
            }
            in_tablespaces = level == 0 && name == "pg_tblspc";
            here = Arc::new(self.step(&here, name, &so_far)?);
        }
        // A file directly in `pg_tblspc` would stand where a tablespace's link belongs.
        if depth == 1 && in_tablespaces && path.names().count() == 2 {
            return Err(BeneathError::TablespaceUnmapped { oid: path.last().to_owned() });
        }
        Ok(here)
    }

    fn step(&self, parent: &OwnedFd, name: &str, so_far: &str) -> Result<OwnedFd, BeneathError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || openat(parent.as_fd(), name, flags, Mode::empty());
        let opened = match open() {
            Err(Errno::ENOENT) => {
                self.take(1, 0)?;
                match mkdirat(parent.as_fd(), name, self.dir_mode()) {
                    // Another thread of this restore may have made it first: then it is opened like any other.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(io_error("make directory", so_far, errno)),
                }
                self.taken().dirs.insert(relative(so_far));
                open()
            }
            other => other,
        };
        match opened {
            Ok(fd) => Ok(fd),
            Err(Errno::ELOOP | Errno::ENOTDIR) => Err(BeneathError::InTheWay { path: so_far.to_owned() }),
            Err(errno) => Err(io_error("open directory", so_far, errno)),
        }
    }

    fn take(&self, entries: u64, bytes: u64) -> Result<(), BeneathError> {
        let mut taken = self.taken();
        let bound = |what, bound| BeneathError::Bound { what, bound };
        let entries = taken.entries.saturating_add(entries);
        let bytes = taken.bytes.saturating_add(bytes);
        if entries > self.bounds.entries {
            return Err(bound("entries", self.bounds.entries));
        }
        if bytes > self.bounds.total_bytes {
            return Err(bound("bytes", self.bounds.total_bytes));
        }
        (taken.entries, taken.bytes) = (entries, bytes);
        Ok(())
    }

    /// A panic elsewhere cannot leave this half changed: each holder changes it in one go.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dir_mode(&self) -> Mode {
        directory_mode(self.access)
    }

    fn file_mode(&self) -> Mode {
        match self.access {
            Access::Owner | Access::Kept => Mode::S_IRUSR | Mode::S_IWUSR,
            Access::Group => Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP,
        }
    }
}

/// Renames a file to a name that is free, which the rename itself sees to.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn rename_to_free(from: &OwnedFd, from_name: &str, to: &OwnedFd, to_name: &str) -> nix::Result<()> {
    use nix::fcntl::{RenameFlags, renameat2};
    match renameat2(from.as_fd(), from_name, to.as_fd(), to_name, RenameFlags::RENAME_NOREPLACE) {
        // A file system or a kernel that does not know it: that it was free a moment ago is all there is then.
        Err(Errno::EINVAL | Errno::ENOSYS) => renameat(from.as_fd(), from_name, to.as_fd(), to_name),
        other => other,
    }
}

/// Renames a file to a name that was free a moment ago.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn rename_to_free(from: &OwnedFd, from_name: &str, to: &OwnedFd, to_name: &str) -> nix::Result<()> {
    renameat(from.as_fd(), from_name, to.as_fd(), to_name)
}

/// A path of our own making, whose names were checked before or are constants.
pub(super) fn relative(text: &str) -> RelPath {
    RelPath::trusted(text)
}

fn directory_mode(access: Access) -> Mode {
    match access {
        Access::Owner | Access::Kept => Mode::S_IRWXU,
        Access::Group => Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IXGRP,
    }
}

/// Makes or takes a directory that the operator named, and that is empty but for these names: links above it are the operator's and are followed.
fn empty_directory(path: &Path, access: Access, beside: &[&str]) -> Result<(PathBuf, OwnedFd), BeneathError> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(directory_mode(access).bits()).create(path) {
        Ok(()) => {
            // The new name must survive a power loss as well as what is put below it.
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let synced = File::open(parent).and_then(|dir| dir.sync_all());
            synced.map_err(|source| io_error("sync", parent.display(), source))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(io_error("make directory", path.display(), source)),
    }
    let real = fs::canonicalize(path).map_err(|source| io_error("resolve", path.display(), source))?;
    for entry in fs::read_dir(&real).map_err(|source| io_error("list", path.display(), source))? {
        let name = entry.map_err(|source| io_error("list", path.display(), source))?.file_name();
        if !beside.iter().any(|known| name == *known) {
            return Err(BeneathError::NotEmpty { path: path.to_owned() });
        }
    }
    let dir = File::open(&real).map_err(|source| io_error("open directory", path.display(), source))?;
    if access != Access::Kept {
        fchmod(&dir, directory_mode(access))
            .map_err(|errno| io_error("set the mode of", path.display(), errno))?;
    }
    Ok((real, OwnedFd::from(dir)))
}

#[cfg(test)]
mod tests;
