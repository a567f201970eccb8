//! Tails in a directory: files of zeros under `.tails`, written in place.
//!
//! Always: a tail's zeros, its name and its folders are flushed before its first append, so an append flushes the file's bytes alone. The looks behind the flush
//! (`FORMAT.md` T2) go through the kernel's own view of this machine's file system, which every process here shares; on file systems that answer from a cache of their own there are no tails.

mod appender;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{self, FsType, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use self::appender::Appender;
use super::super::tails::{ENTRY_ALIGN, MAX_TAILS, PEEKED, Peeked, Standing, TAIL_BYTES, Tail, Tails};
use super::super::{Created, Key, KeyPrefix, ObjectStore, Operation, StoreError};
use super::FileStore;
use super::create::{FILE_MODE, folder_at, random_name};
use super::tree::{FOLDER, TAILS, Tree, failed};

/// What says that a folder is closed.
const CLOSED: &str = "closed";
/// How long a tail counts as written just now.
const FRESH: Duration = Duration::from_secs(5);

/// File systems of one machine, whose names every process sees as they are. Source: `statfs(2)`; ZFS: OpenZFS's `ZFS_SUPER_MAGIC`; F2FS: `linux/magic.h`.
const LOCAL: [FsType; 5] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::OVERLAYFS_SUPER_MAGIC,
];
const LOCAL_NUMBERS: [i64; 2] = [0x2fc1_2fc1, 0xf2f5_2010];

#[async_trait]
impl Tails for FileStore {
    async fn begin(&self, folder: &KeyPrefix) -> Result<Box<dyn Tail>, StoreError> {
        let (name, tree) = (folder.clone(), Arc::clone(&self.tree));
        let bytes = usize::try_from(TAIL_BYTES).unwrap_or(usize::MAX);
        self.run(Operation::Append, folder.to_string(), bytes, move |_| begin(&tree, &name)).await
    }

    async fn close(&self, folder: &KeyPrefix) -> Result<(), StoreError> {
        let name = folder.clone();
        self.writing()?.run(Operation::Append, folder.to_string(), 0, move |tree| close(tree, &name)).await
    }

    async fn read(&self, folder: &KeyPrefix) -> Result<Vec<Standing>, StoreError> {
        let name = folder.clone();
        self.run(Operation::Get, folder.to_string(), 0, move |tree| read(tree, &name)).await
    }

    async fn peek(&self, folder: &KeyPrefix) -> Result<Peeked, StoreError> {
        let name = folder.clone();
        self.run(Operation::Get, folder.to_string(), 0, move |tree| peek(tree, &name)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        self.writing()?.create(key, bytes).await
    }

    async fn folders(&self, below: &KeyPrefix) -> Result<Vec<KeyPrefix>, StoreError> {
        let name = below.clone();
        self.run(Operation::List, below.to_string(), 0, move |tree| folders(tree, &name)).await
    }

    async fn remove(&self, folder: &KeyPrefix) -> Result<(), StoreError> {
        let name = folder.clone();
        self.run(Operation::Delete, folder.to_string(), 0, move |tree| remove(tree, &name)).await
    }
}

/// Whether tails can be kept here at all.
pub(super) fn is_local(tree: &Tree) -> bool {
    fstatfs(tree.root.as_fd()).is_ok_and(|found| {
        let kind = found.filesystem_type();
        #[allow(clippy::unnecessary_cast)] // the kernel's word has another width on other machines
        let number = kind.0 as i64;
        LOCAL.contains(&kind) || LOCAL_NUMBERS.contains(&number)
    })
}

fn below(folder: &KeyPrefix) -> impl Iterator<Item = &str> {
    std::iter::once(TAILS)
        .chain(folder.folder().unwrap_or_default().split('/').filter(|part| !part.is_empty()))
}

fn to_write(tree: &Tree, folder: &KeyPrefix) -> Result<(), StoreError> {
    let refused = |reason: &str| {
        let (what, reason) = (folder.to_string(), reason.to_owned());
        Err(StoreError::Refused { operation: Operation::Append, what, reason })
    };
    match tree.tmp {
        None => refused("the store was opened for reading"),
        Some(_) => tree.sound(),
    }
}

fn begin(tree: &Arc<Tree>, folder: &KeyPrefix) -> Result<Box<dyn Tail>, StoreError> {
    to_write(tree, folder)?;
    if !is_local(tree) {
        let (what, reason) =
            (folder.to_string(), "this file system is not known to be one machine's own".to_owned());
        return Err(StoreError::Refused { operation: Operation::Append, what, reason });
    }
    let io = |step, error: io::Error| failed(Operation::Append, folder, step, error, false);
    let held = folder_at(tree, below(folder)).map_err(|(step, error)| io(step, error))?;
    if is_closed(&held).map_err(|error| io("look whether the tail is closed", error))? {
        return Err(closed(folder));
    }
    let name = random_name().map_err(|(step, error)| io(step, error))?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file =
        openat(&held, name.as_str(), flags, FILE_MODE).map_err(|errno| io("make a tail", errno.into()))?;
    let file = File::from(file);
    let made = tree.give(&file).and_then(|()| zeros(&file)).and_then(|()| tree.flush_folder(&held));
    if let Err(error) = made {
        let _ = unlinkat(&held, name.as_str(), UnlinkatFlags::NoRemoveDir);
        return Err(io("make a tail", error));
    }
    let what = format!("{folder}{name}");
    let appender = Appender { tree: Arc::clone(tree), folder: held, file, name: name.clone(), what };
    match appender.start() {
        Ok(tail) => Ok(Box::new(tail)),
        Err(error) => {
            if let Ok(held) = folder_at(tree, below(folder)) {
                let _ = unlinkat(&held, name.as_str(), UnlinkatFlags::NoRemoveDir);
            }
            Err(io("start a thread for a tail", error))
        }
    }
}

/// Space that is taken and written: an append then changes bytes and nothing else.
fn zeros(file: &File) -> io::Result<()> {
    let block = vec![0; 64 << 10];
    let mut at = 0;
    while at < TAIL_BYTES {
        file.write_all_at(&block, at)?;
        at += block.len() as u64;
    }
    file.sync_all()
}

fn closed(folder: &KeyPrefix) -> StoreError {
    let (what, reason) = (folder.to_string(), "it is closed".to_owned());
    StoreError::Refused { operation: Operation::Append, what, reason }
}

/// Whether the name is still this file's, and its only one.
fn is_named(folder: &OwnedFd, name: &str, file: &File) -> io::Result<bool> {
    let own = file.metadata()?;
    match nix::sys::stat::fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino, there.st_nlink) == (own.dev(), own.ino(), 1)),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn is_closed(folder: &OwnedFd) -> io::Result<bool> {
    match nix::sys::stat::fstatat(folder, CLOSED, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn close(tree: &Tree, folder: &KeyPrefix) -> Result<(), StoreError> {
    // On every file system: another machine may keep tails where this one may not.
    tree.sound()?;
    let io = |step, error: io::Error| failed(Operation::Append, folder, step, error, false);
    let held = folder_at(tree, below(folder)).map_err(|(step, error)| io(step, error))?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mark =
        openat(&held, CLOSED, flags, FILE_MODE).map_err(|errno| io("close the tails", errno.into()))?;
    // Also where it was made by another, who may not have come so far.
    let mark = File::from(mark);
    let flushed = tree.give(&mark).and_then(|()| mark.sync_all()).and_then(|()| tree.flush_folder(&held));
    flushed.map_err(|error| io("flush the folder of the tails", error))
}

/// Opens each of a folder's tails; says whether it is closed.
fn each(
    tree: &Tree,
    folder: &KeyPrefix,
    mut take: impl FnMut(&File) -> io::Result<()>,
) -> Result<bool, StoreError> {
    let io = |step, error: io::Error| failed(Operation::Get, folder, step, error, false);
    let Some(held) = tree.descend(below(folder), Operation::Get, folder)? else { return Ok(false) };
    let mut is_closed = false;
    for name in names(&held).map_err(|error| io("list the tails", error))? {
        if name == CLOSED {
            is_closed = true;
            continue;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match openat(&held, name.as_str(), flags, Mode::empty()) {
            Ok(file) => take(&File::from(file)).map_err(|error| io("read a tail", error))?,
            // Deleted since: all that was in it is in chunks.
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(io("open a tail", errno.into())),
        }
    }
    Ok(is_closed)
}

fn peek(tree: &Tree, folder: &KeyPrefix) -> Result<Peeked, StoreError> {
    let mut firsts = Vec::new();
    let is_closed = each(tree, folder, |file| {
        let mut first = vec![0; PEEKED];
        match file.read_exact_at(&mut first, 0) {
            Ok(()) => firsts.push(first.into()),
            // One that is being made.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
        if firsts.len() > MAX_TAILS { Err(Errno::E2BIG.into()) } else { Ok(()) }
    })?;
    Ok(Peeked { is_closed, firsts })
}

fn read(tree: &Tree, folder: &KeyPrefix) -> Result<Vec<Standing>, StoreError> {
    let mut all = Vec::new();
    each(tree, folder, |file| {
        let meta = file.metadata()?;
        let mut bytes = vec![0; usize::try_from(meta.len().min(TAIL_BYTES)).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0)?;
        let last = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if last == 0 {
            return Ok(());
        }
        // What ends with zeros itself keeps them.
        bytes.truncate(last.next_multiple_of(ENTRY_ALIGN).saturating_add(ENTRY_ALIGN).min(bytes.len()));
        let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        all.push(Standing { bytes: bytes.into(), is_fresh: age.is_none_or(|age| age < FRESH) });
        if all.len() > MAX_TAILS { Err(Errno::E2BIG.into()) } else { Ok(()) }
    })?;
    Ok(all)
}

fn names(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in Dir::openat(folder, ".", FOLDER, Mode::empty())?.iter() {
        if let Ok(name) = item?.file_name().to_str()
            && !name.starts_with('.')
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn folders(tree: &Tree, parent: &KeyPrefix) -> Result<Vec<KeyPrefix>, StoreError> {
    let io = |step, error: io::Error| failed(Operation::List, parent, step, error, false);
    let Some(held) = tree.descend(below(parent), Operation::List, parent)? else { return Ok(Vec::new()) };
    let names = names(&held).map_err(|error| io("list the tails", error))?;
    Ok(names.iter().filter_map(|name| parent.join(name).ok()).collect())
}

fn remove(tree: &Tree, folder: &KeyPrefix) -> Result<(), StoreError> {
    to_write(tree, folder)?;
    let io = |step, error: io::Error| failed(Operation::Delete, folder, step, error, false);
    let Some(held) = tree.descend(below(folder), Operation::Delete, folder)? else { return Ok(()) };
    let mut names = names(&held).map_err(|error| io("list the tails", error))?;
    // That it is closed goes last.
    names.sort_by_key(|name| name == CLOSED);
    for name in names {
        match unlinkat(&held, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(io("delete a tail", errno.into())),
        }
    }
    let (parent, name) = match folder.folder().and_then(|path| path.rsplit_once('/')) {
        Some((parent, name)) => (KeyPrefix::new(parent)?, name),
        None => return Ok(()),
    };
    if let Some(parent) = tree.descend(below(&parent), Operation::Delete, folder)? {
        match unlinkat(&parent, name, UnlinkatFlags::RemoveDir) {
            // Somebody began one meanwhile.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(errno) => return Err(io("delete a folder of tails", errno.into())),
        }
    }
    Ok(())
}
