//! The directory as a tree of descriptors: finding, reading, listing and deleting, never leaving the root.
//!
//! Always: every name is opened relative to its folder's descriptor with `O_NOFOLLOW`; only regular files are objects;
//! an object with a second link is believed only after its folder was flushed (see `file`).

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use chrono::DateTime;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, unlinkat};

use super::super::options::MAX_GET;
use super::super::{Key, KeyPrefix, Listed, Operation, StoreError};

/// Where creates write first. No key can have this name: segments never begin with a dot.
pub(super) const TMP: &str = ".tmp";
/// Where tails lie. No key can have this name either.
pub(super) const TAILS: &str = ".tails";
/// A folder, and not a link to one.
pub(super) const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// An object. `O_NONBLOCK`, or a named pipe in its place would hang the opening.
const OBJECT: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);
/// Folders of the root that are no keys'.
const OWN: [&[u8]; 2] = [TMP.as_bytes(), TAILS.as_bytes()];
/// Folders remembered as flushed up to the root; forgotten together when full, which costs a few fsyncs.
const MAX_SETTLED: usize = 4096;

/// The root, held open.
#[derive(Debug)]
pub(super) struct Tree {
    path: PathBuf,
    pub(super) root: OwnedFd,
    /// The folder `.tmp`; only a store opened for writing has it.
    pub(super) tmp: Option<OwnedFd>,
    /// Whose the root is, where this process is the administrator's and the root is another's: what it makes there is to be his.
    owner: Option<(Uid, Gid)>,
    settled: Mutex<HashSet<String>>,
    /// Why nothing more may be created through this handle.
    broken: Mutex<Option<String>>,
}

/// An error of the operating system as the store's error. `None` for the key means the store itself.
pub(super) fn failed(
    operation: Operation,
    what: impl ToString,
    step: &'static str,
    errno: impl Into<io::Error>,
    ambiguous: bool,
) -> StoreError {
    let source = errno.into();
    match Errno::from_raw(source.raw_os_error().unwrap_or_default()) {
        Errno::EACCES | Errno::EPERM | Errno::EROFS if !ambiguous => {
            StoreError::Refused { operation, what: what.to_string(), reason: format!("{step}: {source}") }
        }
        _ => StoreError::Io { operation, what: what.to_string(), step, source, ambiguous },
    }
}

impl Tree {
    /// Opens the root; for writing also `.tmp`, made when missing.
    pub(super) fn open(path: &Path, write: bool) -> Result<Self, StoreError> {
        let what = path.display().to_string();
        // The root may itself be a symbolic link: its owner chose the path. Beneath it none is followed.
        let flags = FOLDER.difference(OFlag::O_NOFOLLOW);
        let root = match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                return Err(StoreError::NoStore {
                    operation: Operation::Open,
                    reason: format!("{what} is no folder; is its file system mounted?"),
                });
            }
            Err(errno) => return Err(failed(Operation::Open, what, "open the folder", errno, false)),
        };
        let stat = fstat(&root)
            .map_err(|errno| failed(Operation::Open, &what, "look at the folder", errno, false))?;
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let mut tree = Self {
            path: path.to_owned(),
            root,
            tmp: None,
            owner: Some(owner).filter(|(user, _)| Uid::effective().is_root() && !user.is_root()),
            settled: Mutex::default(),
            broken: Mutex::default(),
        };
        if write {
            match nix::sys::stat::mkdirat(&tree.root, TMP, Mode::from_bits_truncate(0o750)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => {
                    return Err(failed(Operation::Open, what, "make the folder .tmp", errno, false));
                }
            }
            let tmp = openat(&tree.root, TMP, FOLDER, Mode::empty())
                .map_err(|errno| failed(Operation::Open, &what, "open the folder .tmp", errno, false))?;
            tree.give(&tmp)
                .map_err(|error| failed(Operation::Open, what, "give .tmp its owner", error, false))?;
            tree.tmp = Some(tmp);
        }
        Ok(tree)
    }

    /// Gives what was just made to whom the root belongs: what an administrator makes must not be closed to the service.
    pub(super) fn give(&self, made: &impl AsFd) -> io::Result<()> {
        match self.owner {
            None => Ok(()),
            Some((user, group)) => Ok(fchown(made, Some(user), Some(group))?),
        }
    }

    /// Whether what this process makes here can be read by whom the root belongs to.
    pub(super) fn is_owners(&self) -> bool {
        self.owner.is_some() || fstat(&self.root).is_ok_and(|stat| stat.st_uid == Uid::effective().as_raw())
    }

    /// Where the root was found.
    pub(super) fn root_path(&self) -> &Path {
        &self.path
    }

    /// The root's path, for messages.
    pub(super) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Refuses when a folder's fsync failed before: what this handle created may not survive a power cut.
    pub(super) fn sound(&self) -> Result<(), StoreError> {
        match &*self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(what) => Err(StoreError::Unsafe { what: what.clone() }),
        }
    }

    /// Flushes a folder's names. A failure is remembered for good: the next fsync could succeed and mean nothing.
    pub(super) fn flush_folder(&self, folder: &OwnedFd) -> io::Result<()> {
        let flushed = flush(folder);
        if let Err(error) = &flushed {
            let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
            broken.get_or_insert_with(|| {
                format!(
                    "a folder in {} could not be flushed ({error}); check the disk, then open the store anew",
                    self.path.display()
                )
            });
        }
        flushed
    }

    /// Whether this folder's chain up to the root is known to be flushed.
    pub(super) fn is_settled(&self, folder: &str) -> bool {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    /// Remembers that it is.
    pub(super) fn settle(&self, folder: &str) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.len() >= MAX_SETTLED {
            settled.clear();
        }
        settled.insert(folder.to_owned());
    }

    /// The folder of a path of segments, from the root. `Ok(None)`: it is not there.
    pub(super) fn descend<'a>(
        &self,
        segments: impl Iterator<Item = &'a str>,
        operation: Operation,
        what: &dyn ToString,
    ) -> Result<Option<OwnedFd>, StoreError> {
        let io = |step, errno| failed(operation, what.to_string(), step, errno, false);
        let mut folder = self
            .root
            .try_clone()
            .map_err(|e| failed(operation, what.to_string(), "hold the root", e, false))?;
        for segment in segments {
            folder = match openat(&folder, segment, FOLDER, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::ENOENT) => return self.absent(operation).map(|()| None),
                Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => {
                    // An object in the place of a folder: nothing can be below it. A link there is a doubt.
                    return match kind(&folder, segment) {
                        Ok(SFlag::S_IFREG) => Ok(None),
                        _ => Err(io("open a folder (is it a symbolic link?)", errno)),
                    };
                }
                Err(errno) => return Err(io("open a folder", errno)),
            };
        }
        Ok(Some(folder))
    }

    /// Refuses when the root was removed: "not there" is only worth something while the root itself is there.
    fn absent(&self, operation: Operation) -> Result<(), StoreError> {
        match fstat(&self.root) {
            Ok(stat) if stat.st_nlink > 0 => Ok(()),
            _ => {
                let reason = format!("{} was removed while in use", self.path.display());
                Err(StoreError::NoStore { operation, reason })
            }
        }
    }

    /// The object, opened and believed; `Ok(None)`: it is not there.
    pub(super) fn find(&self, key: &Key, operation: Operation) -> Result<Option<(File, u64)>, StoreError> {
        let Some(folder) = self.descend(folders(key), operation, key)? else { return Ok(None) };
        let file = match openat(&folder, key.name(), OBJECT, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return self.absent(operation).map(|()| None),
            Err(Errno::ELOOP) => return Err(no_file(key, operation, "a symbolic link")),
            Err(errno) => return Err(failed(operation, key, "open the object", errno, false)),
        };
        let meta = file.metadata().map_err(|e| failed(operation, key, "look at the object", e, false))?;
        if !meta.is_file() {
            return Err(no_file(key, operation, "no regular file"));
        }
        if meta.nlink() > 1 {
            // Its creator has not yet said that it is durable, and may never: make it so before believing it.
            self.sound()?;
            match self.flush_folder(&folder) {
                Ok(()) => {}
                // Read-only: nothing can be pending there.
                Err(e) if e.raw_os_error() == Some(Errno::EROFS as i32) => {}
                Err(e) => return Err(failed(operation, key, "flush the object's folder", e, true)),
            }
        }
        Ok(Some((file, meta.len())))
    }

    /// Whether a name stands there, durable or not.
    pub(super) fn is_there(&self, key: &Key) -> Result<bool, StoreError> {
        // In one step where the system can. Source: `openat2(2)`, since Linux 5.6; ENOSYS before, EPERM behind a filter that does not know it.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&self.root, key.as_str(), how) {
            Ok(_) => return Ok(true),
            Err(Errno::ENOENT) => return self.absent(Operation::Size).map(|()| false),
            // Said by the steps below, where it is so.
            Err(_) => {}
        }
        let Some(folder) = self.descend(folders(key), Operation::Size, key)? else { return Ok(false) };
        match fstatat(&folder, key.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => self.absent(Operation::Size).map(|()| false),
            Err(errno) => Err(failed(Operation::Size, key, "look at the object", errno, false)),
        }
    }

    /// The object's length.
    pub(super) fn size(&self, key: &Key) -> Result<u64, StoreError> {
        let found = self.find(key, Operation::Size)?;
        found.map(|(_, size)| size).ok_or_else(|| StoreError::NotFound { key: key.clone() })
    }

    /// The whole object, or a range of it cut at its end.
    pub(super) fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let Some((file, size)) = self.find(key, Operation::Get)? else {
            return Err(StoreError::NotFound { key: key.clone() });
        };
        let wanted = match range {
            None => 0..size,
            Some(range) if range.start >= size || range.is_empty() => {
                return Err(StoreError::OutOfRange { key: key.clone(), range });
            }
            Some(range) => range.start..range.end.min(size),
        };
        let length = wanted.end - wanted.start;
        let Some(length) = usize::try_from(length).ok().filter(|_| length <= MAX_GET) else {
            return Err(no_file(key, Operation::Get, "larger than one read may be; read it by ranges"));
        };
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, wanted.start)
            .map_err(|e| failed(Operation::Get, key, "read the object", e, false))?;
        Ok(bytes.into())
    }

    /// Deletes the object, durably.
    pub(super) fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if self.tmp.is_none() {
            let reason = "the store was opened for reading".into();
            return Err(StoreError::Refused { operation: Operation::Delete, what: key.to_string(), reason });
        }
        let Some(folder) = self.descend(folders(key), Operation::Delete, key)? else { return Ok(()) };
        match unlinkat(&folder, key.name(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => flush(&folder).map_err(|e| failed(Operation::Delete, key, "flush the folder", e, true)),
            Err(Errno::ENOENT) => self.absent(Operation::Delete),
            Err(errno) => Err(failed(Operation::Delete, key, "unlink the object", errno, false)),
        }
    }

    /// The objects below a prefix, sorted.
    pub(super) fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        self.absent(Operation::List)?;
        let base = prefix.folder().unwrap_or_default();
        let segments = base.split('/').filter(|s| !s.is_empty());
        let Some(folder) = self.descend(segments, Operation::List, prefix)? else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        walk(&folder, base, after, &mut keys)?;
        keys.sort_unstable();
        let mut listed = Vec::new();
        let mut at: Option<(String, OwnedFd)> = None;
        for key in keys {
            if limit.is_some_and(|limit| listed.len() >= limit) {
                break;
            }
            let parent = key.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
            if at.as_ref().is_none_or(|(name, _)| name != parent) {
                // Removed since: so are the objects in it.
                let Some(fd) = self.descend(folders(&key), Operation::List, &key)? else { continue };
                at = Some((parent.to_owned(), fd));
            }
            let Some((_, fd)) = &at else { continue };
            match fstatat(fd, key.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => listed.push(entry(key, &stat)?),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(failed(Operation::List, key, "look at the object", errno, false)),
            }
        }
        Ok(listed)
    }
}

/// A key's folders, outermost first.
pub(super) fn folders(key: &Key) -> impl Iterator<Item = &str> {
    let all = key.segments().count();
    key.segments().take(all - 1)
}

fn no_file(key: &Key, operation: Operation, what: &str) -> StoreError {
    StoreError::Answer { operation, what: key.to_string(), reason: format!("it is {what}"), ambiguous: false }
}

fn kind(folder: &OwnedFd, name: &str) -> nix::Result<SFlag> {
    let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()))
}

fn flush(folder: &OwnedFd) -> io::Result<()> {
    fail::fail_point!("store-file-flush-folder", |arg| Err(super::create::injected(arg)));
    Ok(fsync(folder.as_fd())?)
}

fn entry(key: Key, stat: &FileStat) -> Result<Listed, StoreError> {
    // An object is written under another name first and linked last, which the second of these shows: the age that tidy asks for
    // is the object's, not its bytes'.
    let at = |seconds, nanos| u32::try_from(nanos).ok().and_then(|n| DateTime::from_timestamp(seconds, n));
    let modified = at(stat.st_mtime, stat.st_mtime_nsec).max(at(stat.st_ctime, stat.st_ctime_nsec));
    let size = u64::try_from(stat.st_size).ok();
    match (modified, size) {
        (Some(modified), Some(size)) => Ok(Listed { key, size, modified }),
        _ => Err(no_file(&key, Operation::List, "of an impossible time or length")),
    }
}

/// Collects the keys greater than `after` in `folder`, whose own path is `base`. As deep as a key may be, no deeper.
fn walk(folder: &OwnedFd, base: &str, after: Option<&Key>, keys: &mut Vec<Key>) -> Result<(), StoreError> {
    let io = |step, errno| failed(Operation::List, base, step, errno, false);
    let mut dir = Dir::openat(folder, ".", FOLDER, Mode::empty()).map_err(|e| io("open a folder", e))?;
    for item in dir.iter() {
        let item = item.map_err(|e| io("read a folder", e))?;
        let raw = item.file_name();
        if matches!(raw.to_bytes(), b"." | b"..") || base.is_empty() && OWN.contains(&raw.to_bytes()) {
            continue;
        }
        let path = raw.to_str().ok().map(|name| match base {
            "" => name.to_owned(),
            base => format!("{base}/{name}"),
        });
        // A folder's path obeys the same rules as a key.
        let Some(key) = path.and_then(|path| Key::new(path).ok()) else {
            tracing::warn!(folder = base, name = ?raw, "a name that is no key is left out of the listing");
            continue;
        };
        let is = match item.file_type() {
            Some(Type::File) => SFlag::S_IFREG,
            Some(Type::Directory) => SFlag::S_IFDIR,
            Some(_) => SFlag::S_IFLNK,
            // Some file systems do not say.
            None => match kind(folder, key.name()) {
                Ok(is) => is,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(io("look at a name", errno)),
            },
        };
        match is {
            SFlag::S_IFREG if after.is_none_or(|after| key > *after) => keys.push(key),
            SFlag::S_IFREG => {}
            SFlag::S_IFDIR => {
                let inner = format!("{key}/");
                // Everything in it begins with `inner`: all of it comes before `after`, unless that begins so too.
                if after.is_some_and(|a| a.as_str() > inner.as_str() && !a.as_str().starts_with(&inner)) {
                    continue;
                }
                match openat(folder, key.name(), FOLDER, Mode::empty()) {
                    Ok(next) => walk(&next, key.as_str(), after, keys)?,
                    Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(io("open a folder", errno)),
                }
            }
            _ => tracing::warn!(folder = base, name = ?raw, "a link or device is left out of the listing"),
        }
    }
    Ok(())
}
