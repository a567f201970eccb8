//! The steps of a create, in the order that makes them safe (see `file`), with a fail point before each.
//!
//! Always: `linked` comes after the file's fsync, `Ok` after the folder's. Any error before the link leaves nothing
//! visible and is not ambiguous; an error after it is.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::super::{Created, Key, Operation, StoreError};
use super::tree::{FOLDER, Tree, failed, folders};

/// Bytes written between two looks at the fail point; also keeps one write call short.
const BLOCK: usize = 1 << 20;
/// A leftover this old belongs to no create that still runs: deadlines are minutes.
const SWEEP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Readable by the owner and the group, which a restore may run as; no one else.
pub(super) const FILE_MODE: Mode = Mode::from_bits_truncate(0o640);
const FOLDER_MODE: Mode = Mode::from_bits_truncate(0o750);

/// The error a fail point asks for by its number; 5 is `EIO`. Only builds with fail points call it.
#[allow(dead_code)] // the call sites vanish with the fail points
pub(super) fn injected(number: Option<String>) -> io::Error {
    io::Error::from_raw_os_error(number.and_then(|n| n.parse().ok()).unwrap_or(Errno::EIO as i32))
}

/// Creates the object, or says that one is there, durably.
pub(super) fn create(tree: &Tree, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
    tree.sound()?;
    // Saves writing the bytes when they are there already, as after a lost answer.
    if tree.find(key, Operation::Create)?.is_some() {
        return Ok(Created::Exists);
    }
    let temp = Temp::write(tree, bytes).map_err(|(step, error)| before_link(key, bytes, step, error))?;
    let folder = make_folders(tree, key).map_err(|(step, error)| before_link(key, bytes, step, error))?;
    match link(&temp, &folder, key) {
        Ok(()) => {}
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EEXIST) => {
                drop(temp);
                // `find` flushes a winner that is not yet durable, so that "exists" outlives a power cut too.
                return match tree.find(key, Operation::Create)? {
                    Some(_) => Ok(Created::Exists),
                    None => Err(failed(Operation::Create, key, "find what is there", Errno::ENOENT, false)),
                };
            }
            Some(Errno::EXDEV | Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                return Err(StoreError::Unsafe {
                    what: format!("{}: no hard link to {key}: {error}", tree.path()),
                });
            }
            _ => return Err(before_link(key, bytes, "link the object", error)),
        },
    }
    if let Err(error) = tree.flush_folder(&folder) {
        // The second link stays as a mark for readers: nobody said that this object is durable.
        temp.keep();
        return Err(failed(Operation::Create, key, "flush the folder", error, true));
    }
    fail::fail_point!("store-file-flushed");
    drop(temp);
    Ok(Created::New)
}

/// An error after which nothing is visible.
fn before_link(key: &Key, bytes: &[u8], step: &'static str, error: io::Error) -> StoreError {
    match error.raw_os_error().map(Errno::from_raw) {
        // EFBIG: a limit on file length is a full store to whoever hit it.
        Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) => {
            StoreError::Full { key: key.clone(), bytes: bytes.len() as u64 }
        }
        _ => failed(Operation::Create, key, step, error, false),
    }
}

pub(super) type Step<T> = Result<T, (&'static str, io::Error)>;

fn step<T>(name: &'static str, result: Result<T, impl Into<io::Error>>) -> Step<T> {
    result.map_err(|error| (name, error.into()))
}

/// A name that nobody has used.
pub(super) fn random_name() -> Step<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| ("draw a name", io::Error::other(e.to_string())))?;
    Ok(hex::encode(random))
}

/// A file in `.tmp`, flushed; its name goes when it is dropped.
struct Temp<'a> {
    folder: &'a OwnedFd,
    name: String,
    keep: bool,
}

impl<'a> Temp<'a> {
    fn write(tree: &'a Tree, bytes: &[u8]) -> Step<Self> {
        let folder = tree.tmp.as_ref().ok_or(("write", Errno::EROFS.into()))?;
        let name = random_name()?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = step("make a file in .tmp", openat(folder, name.as_str(), flags, FILE_MODE))?;
        let temp = Self { folder, name, keep: false };
        let mut file = File::from(file);
        step("give it to the folder's owner", tree.give(&file))?;
        for block in bytes.chunks(BLOCK) {
            step("write the object", write_block(&mut file, block))?;
        }
        // After a failure the file is dropped with its pages; a second fsync of it could lie.
        step("flush the object", flush_file(&file))?;
        Ok(temp)
    }

    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = unlinkat(self.folder, self.name.as_str(), UnlinkatFlags::NoRemoveDir)
        {
            // Harmless for every promise, and the next opening sweeps it.
            tracing::warn!(name = self.name, %error, "a temporary file could not be removed");
        }
    }
}

fn write_block(file: &mut File, block: &[u8]) -> io::Result<()> {
    fail::fail_point!("store-file-write", |arg| Err(injected(arg)));
    file.write_all(block)
}

fn flush_file(file: &File) -> io::Result<()> {
    fail::fail_point!("store-file-flush", |arg| Err(injected(arg)));
    file.sync_all()
}

fn link(temp: &Temp<'_>, folder: &OwnedFd, key: &Key) -> io::Result<()> {
    fail::fail_point!("store-file-link", |arg| Err(injected(arg)));
    linkat(temp.folder, temp.name.as_str(), folder, key.name(), AtFlags::empty())?;
    fail::fail_point!("store-file-linked");
    Ok(())
}

/// The key's folder, made when missing, its chain of names flushed up to the root. Another process may have made a
/// folder and died before it flushed, so a folder that merely exists is flushed too, once for each handle.
fn make_folders(tree: &Tree, key: &Key) -> Step<OwnedFd> {
    make_path(tree, folders(key), true)
}

/// A folder by its path, made when missing, its chain of names flushed up to the root, whoever made and flushed it before.
pub(super) fn folder_at<'a>(tree: &Tree, path: impl Iterator<Item = &'a str>) -> Step<OwnedFd> {
    make_path(tree, path, false)
}

fn make_path<'a>(tree: &Tree, segments: impl Iterator<Item = &'a str>, remembers: bool) -> Step<OwnedFd> {
    let mut folder = step("hold the root", tree.root.try_clone())?;
    let mut path = String::new();
    for segment in segments {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(segment);
        let mut made = false;
        let next = match openat(&folder, segment, FOLDER, Mode::empty()) {
            Err(Errno::ENOENT) => {
                match mkdirat(&folder, segment, FOLDER_MODE) {
                    Ok(()) | Err(Errno::EEXIST) => made = true,
                    Err(errno) => return Err(("make a folder", errno.into())),
                }
                fail::fail_point!("store-file-folder");
                let folder = step("open a folder", openat(&folder, segment, FOLDER, Mode::empty()))?;
                step("give it to the root's owner", tree.give(&folder))?;
                folder
            }
            other => step("open a folder", other)?,
        };
        if made || !remembers || !tree.is_settled(&path) {
            step("flush a folder", tree.flush_folder(&folder))?;
            if remembers {
                tree.settle(&path);
            }
        }
        folder = next;
    }
    Ok(folder)
}

/// Makes the root and its missing parents, durably.
pub(super) fn make_root(root: &Path) -> Result<(), StoreError> {
    let io = |step, error| failed(Operation::Open, root.display(), step, error, false);
    let missing: Vec<_> = root.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for folder in missing.into_iter().rev() {
        use std::os::unix::fs::DirBuilderExt;
        match std::fs::DirBuilder::new().mode(FOLDER_MODE.bits()).create(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io("make the folder", e)),
            _ => {}
        }
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|p| p.sync_all()).map_err(|e| io("flush the parent folder", e))?;
    }
    Ok(())
}

/// Proves on this very file system what creates rely on: fsync of files and folders, and hard links that refuse to
/// replace.
pub(super) fn prove(tree: &Tree) -> Result<(), StoreError> {
    let refuse = |what: &str, error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EACCES | Errno::EROFS) => {
            failed(Operation::Open, tree.path(), "try out the folder", error, false)
        }
        _ => StoreError::Unsafe { what: format!("{}: {what}: {error}", tree.path()) },
    };
    let one = Temp::write(tree, b"farshore").map_err(|(step, error)| refuse(step, error))?;
    let two = Temp { folder: one.folder, name: format!("{}.link", one.name), keep: false };
    let hard = |name: &str| linkat(one.folder, one.name.as_str(), one.folder, name, AtFlags::empty());
    if let Err(errno) = hard(&two.name) {
        two.keep();
        return Err(refuse("the file system has no hard links", errno.into()));
    }
    if hard(&two.name) != Err(Errno::EEXIST) {
        return Err(refuse("a hard link replaced a file, or failed oddly", Errno::EEXIST.into()));
    }
    tree.flush_folder(&tree.root).map_err(|e| refuse("a folder cannot be flushed", e))
}

/// Removes what crashed creates left in `.tmp`. A clock that is wrong costs a running create its file and so an error,
/// never an object.
pub(super) fn sweep(tree: &Tree) -> Result<(), StoreError> {
    let Some(tmp) = &tree.tmp else { return Ok(()) };
    let io = |step, errno: Errno| failed(Operation::Open, tree.path(), step, errno, false);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let oldest = i64::try_from(now.saturating_sub(SWEEP_AFTER).as_secs()).unwrap_or(i64::MAX);
    let mut dir = Dir::openat(tmp, ".", FOLDER, Mode::empty()).map_err(|e| io("open .tmp", e))?;
    let mut flushed = false;
    for item in dir.iter() {
        let item = item.map_err(|e| io("read .tmp", e))?;
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match fstatat(tmp, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(io("look into .tmp", errno)),
        };
        if stat.st_mtime >= oldest {
            continue;
        }
        if stat.st_nlink > 1 && !flushed {
            // The mark of an object nobody called durable: make everything durable before the mark goes.
            everything(&tree.root).map_err(|e| io("flush the file system", e))?;
            flushed = true;
        }
        match unlinkat(tmp, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => tracing::info!(name = ?name, "removed a leftover of an interrupted create"),
            Err(Errno::ENOENT) => {}
            Err(error) => tracing::warn!(name = ?name, %error, "a leftover could not be removed"),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn everything(root: &OwnedFd) -> nix::Result<()> {
    nix::unistd::syncfs(root.as_fd())
}

#[cfg(not(target_os = "linux"))]
fn everything(root: &OwnedFd) -> nix::Result<()> {
    nix::unistd::sync();
    nix::unistd::fsync(root.as_fd())
}
