//! The SQLite file behind a catalog: which one is open, how a new one is made, what a former one leaves behind.
//!
//! SQLite finds a database's `-wal` and `-shm` by their names alone. A process that still has a deleted catalog open
//! has its `-shm` mapped, and a new catalog beside it would share that map and believe a log it never wrote. So what
//! always holds: a new file is made only after the former one's companions were removed, under a lock on the folder;
//! and a file put in the place of one that was open here loses the companions of that one before it is opened.
//! What a former process still holds open stays its own, without a name.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::{Error, Result};

/// What SQLite keeps beside a database. Source: <https://www.sqlite.org/tempfiles.html>, sections 2.1 to 2.3.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// How often the folder's lock is tried for: another opener has it for some file operations only.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A file as the system knows it, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&fs::metadata(path)?))
    }
}

/// A catalog's file as it was when it was opened.
#[derive(Debug, Clone)]
pub(super) struct OpenFile {
    path: PathBuf,
    identity: Identity,
    /// Keeps the file's number from being given to another one. Opened by path only: closing any other handle would drop
    /// the locks that SQLite has on it in this process. Source: fcntl(2), "Record locks"; open(2), `O_PATH`.
    _held: Arc<File>,
    /// Its companions, once a connection made them.
    companions: Vec<(PathBuf, Identity)>,
}

impl OpenFile {
    /// The file at `path`, created for its owner only when there is none.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        if !path.try_exists().map_err(failed)? {
            let _folder = lock(path).await?;
            create(path).map_err(failed)?;
        }
        let path = fs::canonicalize(path).map_err(failed)?;
        let by_path = OFlag::O_PATH.bits();
        let held = fs::OpenOptions::new().read(true).custom_flags(by_path).open(&path).map_err(failed)?;
        let identity = Identity::from(&held.metadata().map_err(failed)?);
        Ok(Self { path, identity, _held: Arc::new(held), companions: Vec::new() })
    }

    /// Its path, without links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Learns which companions it has now, while a connection keeps them.
    pub(super) fn learn_companions(&mut self) {
        self.companions = companions(&self.path)
            .filter_map(|path| Identity::of(&path).ok().map(|identity| (path, identity)))
            .collect();
    }

    /// Whether the file at the path is still this one. A deleted file stays writable for whoever has it open, and all
    /// that is written to it is lost.
    pub(super) fn still_there(&self) -> Result<()> {
        match Identity::of(&self.path) {
            Ok(now) if now == self.identity => Ok(()),
            Ok(_) => Err(Error::Gone { path: self.path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::Gone { path: self.path.clone() })
            }
            Err(source) => Err(Error::File { path: self.path.clone(), source }),
        }
    }

    /// Removes the companions that this file left behind, so that one put in its place does not take them for its own.
    pub(super) fn clear_away(&self) -> Result<()> {
        for (path, identity) in &self.companions {
            if Identity::of(path).is_ok_and(|now| now == *identity) {
                remove(path).map_err(|source| Error::File { path: path.clone(), source })?;
            }
        }
        Ok(())
    }
}

fn companions(path: &Path) -> impl Iterator<Item = PathBuf> {
    COMPANIONS.into_iter().map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// Makes an empty file, unless another opener was first.
fn create(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    for companion in companions(path) {
        remove(&companion)?;
    }
    // Made without being opened: closing it here would drop the locks of whoever in this process opened it meanwhile.
    match mknod(path, SFlag::S_IFREG, Mode::S_IRUSR | Mode::S_IWUSR, 0) {
        Err(Errno::EEXIST) | Ok(()) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The lock of the folder that a catalog's file is in: of several openers one makes the file.
async fn lock(path: &Path) -> Result<Flock<File>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut file = File::open(folder).map_err(failed)?;
    for _ in 0..LOCK_TRIES {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, why)) => return Err(failed(why.into())),
        };
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Err(failed(io::Error::new(io::ErrorKind::WouldBlock, "its folder is locked by another process")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_file_has_no_companions_of_a_former_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        for companion in companions(&path) {
            fs::write(companion, "of one that is gone").unwrap();
        }
        OpenFile::open(&path).await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn only_the_companions_of_the_former_file_are_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let mut former = OpenFile::open(&path).await.unwrap();
        let all: Vec<PathBuf> = companions(&path).collect();
        fs::write(&all[0], "the former one's").unwrap();
        fs::write(&all[1], "the former one's").unwrap();
        former.learn_companions();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        fs::rename(&all[1], folder.path().join("moved-shm")).unwrap();
        fs::write(&path, "another").unwrap();
        fs::write(&all[1], "the new one's").unwrap();
        assert!(matches!(former.still_there(), Err(Error::Gone { .. })));
        former.clear_away().unwrap();
        assert!(!all[0].exists());
        assert!(all[1].exists());
    }
}
