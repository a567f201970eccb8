//! A directory that this process has for itself, and its own small files in it.
//!
//! What always holds: the lock lies on the directory and not on its name, and all that is read and written here goes by the locked descriptor: who renames the
//! directory and puts another in its place moves no file of one into the other. What is replaced is replaced whole and durably: a crash leaves the old or the new.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{RestoreError, io as io_error};

/// Our files are small; a longer one is none of ours.
const LONGEST: u64 = 16 << 20;
/// How often a directory is taken anew that was renamed while it was.
const TAKES: u32 = 5;

/// Holds a directory against all other restores and standbys, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Alone {
    locked: Flock<File>,
}

/// Takes a directory, which is made when it is not there.
pub(crate) fn lock(directory: &Path) -> Result<Alone, RestoreError> {
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("make directory", directory)(why));
        }
        _ => {}
    }
    match lock_there(directory)? {
        Some(alone) => Ok(alone),
        None => Err(io_error("open", directory)(io::ErrorKind::NotFound.into())),
    }
}

/// Takes a directory that is there; `None` where there is none.
pub(crate) fn lock_there(directory: &Path) -> Result<Option<Alone>, RestoreError> {
    for _ in 0..TAKES {
        let file = match File::open(directory) {
            Ok(file) => file,
            Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(why) => return Err(io_error("open", directory)(why)),
        };
        if !file.metadata().map_err(io_error("look at", directory))?.is_dir() {
            return Ok(None);
        }
        let alone = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => Alone { locked },
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(RestoreError::Busy { directory: directory.to_owned() });
            }
            Err((_, why)) => return Err(io_error("lock", directory)(why.into())),
        };
        // It may have been renamed between the two.
        if alone.is_at(directory).map_err(io_error("look at", directory))? {
            return Ok(Some(alone));
        }
    }
    Err(RestoreError::Busy { directory: directory.to_owned() })
}

impl Alone {
    fn directory(&self) -> BorrowedFd<'_> {
        self.locked.as_fd()
    }

    /// Whether the directory still has this name.
    pub(crate) fn is_at(&self, directory: &Path) -> io::Result<bool> {
        let own = self.locked.metadata()?;
        match std::fs::metadata(directory) {
            Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Whether a path leads to the file of this name in the directory.
    pub(crate) fn has_at(&self, name: &str, path: &Path) -> io::Result<bool> {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        let own = nix::sys::stat::fstatat(self.directory(), name, flags)?;
        let found = std::fs::symlink_metadata(path)?;
        Ok((found.dev(), found.ino()) == (own.st_dev, own.st_ino))
    }

    /// What stands in the directory, by name. Names that are no text are shown as well as can be.
    pub(crate) fn names(&self, directory: &Path) -> io::Result<BTreeSet<String>> {
        let names = std::fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<io::Result<_>>()?;
        match self.is_at(directory)? {
            true => Ok(names),
            false => Err(io::Error::other("the directory was renamed meanwhile")),
        }
    }

    /// A small file of ours; `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(self.directory(), name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(why) => return Err(why.into()),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Replaces a small file of ours, which is called `next` until it is durable; so is the replacement, on `Ok`.
    pub(crate) fn replace(&self, name: &str, next: &str, bytes: &[u8]) -> io::Result<()> {
        self.remove(next)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH;
        let mut file = File::from(openat(self.directory(), next, flags, mode)?);
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(why) = written {
            // A disk that is full keeps no piece of it.
            let _ = self.remove(next);
            return Err(why);
        }
        self.rename(next, name)
    }

    /// Renames a file, in place of what has that name; durable on `Ok`.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        renameat(self.directory(), from, self.directory(), to)?;
        self.locked.sync_all()
    }

    /// Removes a file or link, if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(self.directory(), name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) | Ok(()) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_renamed_keeps_its_files_and_another_in_its_place_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("r"), folder.path().join("r.old"));
        let one = lock(&path).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        let other = lock(&path).unwrap();
        one.replace("state", "state.next", b"one").unwrap();
        other.replace("state", "state.next", b"other").unwrap();
        assert_eq!(std::fs::read(moved.join("state")).unwrap(), b"one");
        assert_eq!(std::fs::read(path.join("state")).unwrap(), b"other");
        assert_eq!(one.read("state").unwrap().unwrap(), b"one");
        assert!(one.is_at(&moved).unwrap() && !one.is_at(&path).unwrap());
        assert!(one.names(&path).is_err(), "another's names");
        assert!(matches!(lock(&moved), Err(RestoreError::Busy { .. })));
    }

    #[test]
    fn a_directory_that_is_only_looked_for_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        assert!(lock_there(&folder.path().join("typo")).unwrap().is_none());
        std::fs::write(folder.path().join("file"), b"").unwrap();
        assert!(lock_there(&folder.path().join("file")).unwrap().is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
