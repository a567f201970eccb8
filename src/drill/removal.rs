//! A folder that is removed by handles: each step goes from an open folder to a name in it, and follows no link.
//!
//! What always holds: nothing is removed but what lies in the folder that was opened, wherever that is by now, and the folder's own name in its place while
//! that name is still this folder's. A link is removed and never followed; what it leads to is not touched. What comes between names while they are removed
//! makes the removal fail, and it is tried anew.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How a folder is opened.
const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A folder and the place that it has its name in, both open.
#[derive(Debug)]
pub(crate) struct Folder {
    place: OwnedFd,
    name: String,
    itself: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// The folder of this name; `path` is for words.
    pub(crate) fn open(place: OwnedFd, name: &str, path: &Path) -> io::Result<Self> {
        let itself = openat(place.as_fd(), name, FOLDER, Mode::empty())?;
        Ok(Self { place, name: name.to_owned(), itself, path: path.to_owned() })
    }

    /// A folder by its path, whose last name is no link; links above it are followed.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let (Some(place), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(io::Error::other("its path has no name that is text"));
        };
        Self::open(std::fs::File::open(place)?.into(), name, path)
    }

    /// Gives one of its files another name in it, in place of what has that.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(self.as_fd(), from, self.as_fd(), to)?)
    }

    /// Removes a file or link beneath it, by names that are followed one by one and never by a link; whether it was there.
    pub(crate) fn remove_file(&self, folders: &[&str], name: &str) -> io::Result<bool> {
        let mut place = self.itself.try_clone()?;
        for folder in folders {
            place = match openat(place.as_fd(), *folder, FOLDER, Mode::empty()) {
                Ok(inner) => inner,
                Err(Errno::ENOENT) => return Ok(false),
                Err(why) => return Err(why.into()),
            };
        }
        match unlinkat(place.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(why) => Err(why.into()),
        }
    }

    /// Empties it, the name `last` behind all others; its own name stays.
    pub(crate) fn empty(&self, last: &str) -> io::Result<()> {
        empty(self.as_fd(), Some(last))?;
        unlinkat(self.as_fd(), last, UnlinkatFlags::NoRemoveDir).or_else(not_there)?;
        Ok(())
    }

    /// Where it was, for words.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Removes it and all in it, the name `last` behind all others.
    pub(crate) fn remove(&self, last: &str) -> io::Result<()> {
        self.empty(last)?;
        self.remove_name()
    }

    /// Removes its name, where it is empty.
    pub(crate) fn remove_name(&self) -> io::Result<()> {
        let named = match fstatat(self.place.as_fd(), self.name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(named) => named,
            Err(Errno::ENOENT) => return Ok(()),
            Err(why) => return Err(why.into()),
        };
        let own = fstat(self.itself.as_fd())?;
        if (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino) {
            return Err(io::Error::other("something else has its name now; what it held is removed"));
        }
        unlinkat(self.place.as_fd(), self.name.as_str(), UnlinkatFlags::RemoveDir).or_else(not_there)?;
        Ok(())
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.itself.as_fd()
    }
}

/// The names in an open folder.
pub(crate) fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::openat(folder, ".", FOLDER, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes all that is in an open folder, `but` one name. What is mounted in it is somebody else's, and ends it.
fn empty(folder: BorrowedFd<'_>, but: Option<&str>) -> io::Result<()> {
    let own = fstat(folder)?.st_dev;
    for name in names(folder)? {
        if but.is_some_and(|but| but.as_bytes() == name.to_bytes()) {
            continue;
        }
        match openat(folder, name.as_c_str(), FOLDER, Mode::empty()) {
            Ok(inner) => {
                if fstat(inner.as_fd())?.st_dev != own {
                    let name = name.to_string_lossy();
                    return Err(io::Error::other(format!(
                        "a file system is mounted at `{name}`: unmount it first"
                    )));
                }
                empty(inner.as_fd(), None)?;
                unlinkat(folder, name.as_c_str(), UnlinkatFlags::RemoveDir).or_else(not_there)?;
            }
            // A file, or a link.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                unlinkat(folder, name.as_c_str(), UnlinkatFlags::NoRemoveDir).or_else(not_there)?;
            }
            Err(Errno::ENOENT) => {}
            Err(why) => return Err(why.into()),
        }
    }
    Ok(())
}

fn not_there(why: Errno) -> nix::Result<()> {
    if why == Errno::ENOENT { Ok(()) } else { Err(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn open(place: &Path, name: &str) -> io::Result<Folder> {
        Folder::open(fs::File::open(place).unwrap().into(), name, &place.join(name))
    }

    /// A place with a folder to remove, and beside it what must stay.
    fn made(place: &Path) {
        fs::create_dir_all(place.join("mine/a/b")).unwrap();
        fs::write(place.join("mine/a/b/file"), "").unwrap();
        fs::write(place.join("mine/last"), "").unwrap();
        fs::create_dir_all(place.join("theirs/deep")).unwrap();
        fs::write(place.join("theirs/deep/file"), "theirs").unwrap();
        symlink(place.join("theirs"), place.join("mine/a/out")).unwrap();
        symlink(place.join("theirs/deep/file"), place.join("mine/out")).unwrap();
    }

    fn stays(place: &Path) {
        assert_eq!(fs::read_to_string(place.join("theirs/deep/file")).unwrap(), "theirs");
    }

    #[test]
    fn a_link_in_what_is_removed_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        made(place);
        open(place, "mine").unwrap().remove("last").unwrap();
        assert!(!place.join("mine").exists());
        stays(place);
        symlink(place.join("theirs"), place.join("link")).unwrap();
        assert!(open(place, "link").is_err(), "a link of a folder's name is no folder");
        stays(place);
    }

    #[test]
    fn a_link_that_was_put_in_the_way_of_the_path_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        made(place);
        let mine = open(place, "mine").unwrap();
        // Moved away, and a link to somebody else's folder in its place.
        fs::rename(place.join("mine"), place.join("moved")).unwrap();
        symlink(place.join("theirs"), place.join("mine")).unwrap();
        assert!(mine.remove("last").unwrap_err().to_string().contains("something else"));
        stays(place);
        assert_eq!(
            fs::read_dir(place.join("moved")).unwrap().count(),
            0,
            "what was opened is what was emptied"
        );
        // The same above it: the place itself is another one by its path.
        let above = tempfile::tempdir().unwrap();
        let place = above.path().join("place");
        made(&place);
        let mine = open(&place, "mine").unwrap();
        fs::rename(&place, above.path().join("elsewhere")).unwrap();
        made(&place);
        mine.remove("last").unwrap();
        assert!(!above.path().join("elsewhere/mine").exists() && place.join("mine/a/b/file").exists());
    }
}
