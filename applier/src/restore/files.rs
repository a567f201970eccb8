//! The base's files: parts, its own and those of backups that it refers to, fetched a few at a time, opened frame by frame and written by two workers, each byte to its
//! place. Of a part only what the base's files need is opened.
//!
//! What always holds: bytes that another backup gives are held, block by block, against the digests that were kept when the server sent this one's, and those that differ end the restore, before its
//! control file is there; where those digests do not read that is said, and the manifests alone bind them. A file is created once, with its announced size, and finished only when every byte was written; memory is bounded
//! by the parts in hand as they are stored, and a frame for each worker; so are open files, since what is referred to lies in other parts than what changed. `global/pg_control` is held back for the caller, who writes it last.
//! A large file is written to its disk while it grows, beside the workers: left to the end, the disk would idle first and all would wait for
//! it then. It is not durable for that: the caller synchronises.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use farshore_engines::postgres::restore::beneath::{EntryKind, RelPath, Root, RootFile};
use farshore_engines::postgres::restore::install::left_out;
use farshore_journal::JournalError;
use farshore_journal::backup::{self, Backup, Place, Share};
use farshore_journal::store::Retry;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::{RestoreError, Shared, blocking, io};
use crate::blocks::{Against, Seen, seen};
use crate::plan::CONTROL_FILE;

/// Parts fetched at a time.
const FETCHES: usize = 3;
/// Parts that are opened and written at a time: decompression is cheap, first-touch of the page cache is not.
const WORKERS: usize = 2;
/// Parts whose blocks wait to be held against digests; writing waits for that.
const BORROWED_PARTS: usize = 4;
/// Bytes of a file after which the disk is given what was written of it.
const SETTLE_BYTES: u64 = 64 << 20;
/// Files that are open at a time; others that are not finished rest. A quarter of what a process may have open without asking.
const OPEN_FILES: usize = 256;

/// What becomes of a base's entries.
#[derive(Debug, Clone)]
pub(super) enum Fates {
    /// A PostgreSQL's: each in its place, but for what a restore brings itself and the control file, which is held back.
    Postgres,
    /// These go to other places, by the paths they have in the base, and no others are there.
    Moved(BTreeMap<String, String>),
}

/// Puts the base's files in place, all but the control file, whose bytes are given back.
pub(super) async fn place(
    backup: &Backup,
    root: &Arc<Root>,
    shared: &Arc<Shared>,
    fates: Fates,
) -> Result<Vec<u8>, RestoreError> {
    let (parts, taken) = mpsc::channel::<(usize, Bytes)>(1);
    let shares = backup.shares();
    let wanted: Vec<_> = shares.iter().map(|share| (share.of, share.number)).collect();
    let against = against(backup).await?;
    let (found, borrowed) = mpsc::channel::<Seen>(BORROWED_PARTS);
    let sizes = against.as_ref().map(Against::sizes);
    let work = {
        let (backup, root, shared) = (backup.clone(), Arc::clone(root), Arc::clone(shared));
        let holds = sizes.map(|sizes| (sizes, found));
        blocking(move || write_all((&backup, shares, holds), &root, &shared, &fates, taken))
    };
    let hold = hold(backup, against, borrowed);
    let fetch = async {
        let fetched =
            futures::stream::iter(wanted.into_iter().enumerate()).map(|(index, (of, number))| async move {
                let holder = backup.holder(of).ok_or(RestoreError::CutOff)?;
                Ok::<_, RestoreError>((index, holder.part_bytes(number).await?))
            });
        let mut fetched = std::pin::pin!(fetched.buffer_unordered(FETCHES));
        while let Some(part) = fetched.next().await {
            // A worker that has gone says itself why.
            if shared.is_stopped() || parts.send(part?).await.is_err() {
                break;
            }
        }
        drop(parts);
        Ok::<(), RestoreError>(())
    };
    let (written, fetched, held) = tokio::join!(work, fetch, hold);
    // A failed fetch leaves files unfinished, and what differs ends the writing: the lesser news.
    let () = fetched?;
    let () = held?;
    written?
}

/// What a base that refers to others holds their bytes against; none for one that has all of its own, or whose digests do not read.
async fn against(backup: &Backup) -> Result<Option<Against>, RestoreError> {
    if backup.manifest().borrowed.is_none() {
        return Ok(None);
    }
    match backup.blocks().await {
        Ok(blocks) => Ok(blocks.map(|blocks| Against::new(blocks, backup.manifest()))),
        Err(why) if is_no_digest(&why) => {
            unheld(backup, &why);
            Ok(None)
        }
        Err(why) => Err(why.into()),
    }
}

/// Holds what others give against the digests of the base. It ends when nobody writes any more, or with the first block that differs.
async fn hold(
    backup: &Backup,
    against: Option<Against>,
    mut borrowed: mpsc::Receiver<Seen>,
) -> Result<(), RestoreError> {
    let Some(mut against) = against else { return Ok(()) };
    while let Some(seen) = borrowed.recv().await {
        let differs = match against.differs(seen).await {
            Ok(differs) => differs,
            Err(why) if is_no_digest(&why) => {
                unheld(backup, &why);
                // Whoever writes need not wait for anybody.
                while borrowed.recv().await.is_some() {}
                return Ok(());
            }
            Err(why) => return Err(why.into()),
        };
        if let Some((entry, block)) = differs {
            let path = backup.manifest().entries.get(entry).map_or("?", |entry| entry.path.as_str());
            let what = format!(
                "block {block} of {path}, which another backup gives {}, as the server sent it",
                backup.id()
            );
            return Err(JournalError::NotHeld { what }.into());
        }
    }
    Ok(())
}

/// Whether this says that digests are lost or damaged: no restore fails for that.
fn is_no_digest(why: &JournalError) -> bool {
    match why {
        JournalError::Store(why) => why.retry() == Retry::Never,
        JournalError::NotHeld { .. } => true,
        why => why.is_damage(),
    }
}

fn unheld(backup: &Backup, why: &JournalError) {
    tracing::warn!(
        backup = %backup.id(), error = %why,
        "the digests of its blocks do not read: what other base backups give is held against their own manifests alone"
    );
}

struct Open<'a> {
    file: Arc<RootFile<'a>>,
    left: u64,
    /// Written since the disk was given what there was.
    unsettled: u64,
    is_awake: bool,
}

/// Files that are not finished.
#[derive(Default)]
struct OpenFiles<'a> {
    files: HashMap<usize, Open<'a>>,
    /// Those that do not rest, the one that was opened first before the others.
    awake: VecDeque<usize>,
}

impl<'a> OpenFiles<'a> {
    /// Has so many rest that another one may be opened.
    fn make_room(&mut self) {
        while self.awake.len() >= OPEN_FILES {
            let Some(first) = self.awake.pop_front() else { return };
            if let Some(open) = self.files.get_mut(&first) {
                open.is_awake = false;
                open.file.rest();
            }
        }
    }

    /// A file to be written to, where it is there.
    fn wake(&mut self, entry: usize) -> Option<Arc<RootFile<'a>>> {
        if !self.files.get(&entry)?.is_awake {
            self.make_room();
            self.awake.push_back(entry);
        }
        let open = self.files.get_mut(&entry)?;
        open.is_awake = true;
        Some(Arc::clone(&open.file))
    }

    fn add(&mut self, entry: usize, file: Arc<RootFile<'a>>, bytes: u64) {
        self.awake.push_back(entry);
        self.files.insert(entry, Open { file, left: bytes, unsettled: 0, is_awake: true });
    }

    fn remove(&mut self, entry: usize) -> Option<Open<'a>> {
        let open = self.files.remove(&entry)?;
        if open.is_awake {
            self.awake.retain(|awake| *awake != entry);
        }
        Some(open)
    }
}

/// Where it is told which blocks others gave; with the sizes of entries.
type Holds = (Vec<u64>, mpsc::Sender<Seen>);

struct Writing<'a> {
    backup: &'a Backup,
    root: &'a Root,
    shared: &'a Shared,
    shares: Vec<Share>,
    holds: Option<Holds>,
    /// What becomes of each entry.
    fates: Vec<Fate>,
    open: Mutex<OpenFiles<'a>>,
    control: Mutex<Vec<u8>>,
    /// Whoever gives the disk what was written; one file waits at most, and what finds no room is settled later.
    settles: Mutex<Option<SyncSender<(RelPath, File)>>>,
}

enum Fate {
    Write(RelPath),
    Control,
    Leave,
}

fn write_all(
    (backup, shares, holds): (&Backup, Vec<Share>, Option<Holds>),
    root: &Root,
    shared: &Shared,
    wanted: &Fates,
    parts: mpsc::Receiver<(usize, Bytes)>,
) -> Result<Vec<u8>, RestoreError> {
    let manifest = backup.manifest();
    let mut fates = Vec::with_capacity(manifest.entries.len());
    let mut control_bytes = 0;
    for entry in &manifest.entries {
        if let Fates::Moved(places) = wanted {
            let place = places.get(&entry.path).map_or(entry.path.as_str(), String::as_str);
            let path = root.admit(EntryKind::File, place)?;
            if entry.size == 0 {
                root.file(&path, 0)?.finish()?;
            }
            fates.push(Fate::Write(path));
            continue;
        }
        let kind = match entry.kind {
            backup::EntryKind::File => EntryKind::File,
            backup::EntryKind::Directory | backup::EntryKind::Tablespace => EntryKind::Directory,
        };
        let path = root.admit(kind, &entry.path)?;
        // The log is ours to bring, up to the target and no further.
        let is_log = entry.path.starts_with("pg_wal/") && kind == EntryKind::File;
        let fate = match entry.kind {
            backup::EntryKind::Tablespace => Fate::Leave,
            backup::EntryKind::Directory => {
                root.dir(&path)?;
                Fate::Leave
            }
            backup::EntryKind::File if entry.path == CONTROL_FILE => {
                control_bytes = entry.size;
                Fate::Control
            }
            backup::EntryKind::File if is_log || left_out(&path) => Fate::Leave,
            backup::EntryKind::File => {
                if entry.size == 0 {
                    root.file(&path, 0)?.finish()?;
                }
                Fate::Write(path)
            }
        };
        fates.push(fate);
    }
    let (settles, settled) = sync_channel(1);
    let writing = Writing {
        backup,
        root,
        shared,
        shares,
        holds,
        fates,
        open: Mutex::default(),
        control: Mutex::new(vec![0; usize::try_from(control_bytes).unwrap_or(0)]),
        settles: Mutex::new(Some(settles)),
    };
    let parts = Mutex::new(parts);
    let written = std::thread::scope(|scope| {
        let settler = scope.spawn(|| settle(settled, &parts));
        // None of them here: what panics must not leave the settler waiting for more.
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| writing.work(&parts))).collect();
        let mut result = Ok(());
        for worker in workers {
            result = result.and(worker.join().unwrap_or(Err(RestoreError::CutOff)));
        }
        // It ends when nobody can give it more.
        lock(&writing.settles).take();
        // A disk that fails is the first cause of whatever else failed.
        settler.join().unwrap_or(Err(RestoreError::CutOff)).and(result)
    });
    written?;
    let unfinished = lock(&writing.open).files.len();
    if unfinished > 0 {
        return Err(farshore_engines::postgres::restore::beneath::BeneathError::Unfinished {
            files: unfinished,
        }
        .into());
    }
    Ok(writing.control.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Has the system write what it was given so far of each file that comes. Where it cannot, no more parts are taken.
fn settle(
    files: Receiver<(RelPath, File)>,
    parts: &Mutex<mpsc::Receiver<(usize, Bytes)>>,
) -> Result<(), RestoreError> {
    for (path, file) in files {
        if let Err(why) = file.sync_data() {
            lock(parts).close();
            return Err(io("write", Path::new(&path.to_string()))(why));
        }
    }
    Ok(())
}

impl Writing<'_> {
    fn work(&self, parts: &Mutex<mpsc::Receiver<(usize, Bytes)>>) -> Result<(), RestoreError> {
        loop {
            let next = lock(parts).blocking_recv();
            let Some((index, bytes)) = next else { return Ok(()) };
            if let Err(why) = self.part(index, bytes) {
                // The others and the fetcher need not go on.
                lock(parts).close();
                return Err(why);
            }
        }
    }

    fn part(&self, index: usize, bytes: Bytes) -> Result<(), RestoreError> {
        let share = self.shares.get(index).ok_or(RestoreError::CutOff)?;
        let holder = self.backup.holder(share.of).ok_or(RestoreError::CutOff)?;
        let object = holder.check_part(share.number, bytes)?;
        let mut places = share.places.iter().peekable();
        let holds = self.holds.as_ref().filter(|_| share.of > 0);
        let mut begin = 0;
        let mut borrowed = Seen::default();
        for (frame, head) in object.heads().iter().enumerate() {
            let end = begin + u64::from(head.plain_bytes);
            if places.peek().is_none_or(|place| place.in_part >= end) {
                begin = end;
                continue;
            }
            let plain = holder.open_frame(share.number, &object, frame)?;
            while let Some(place) = places.peek() {
                let place_end = place.in_part + place.bytes;
                let (from, until) = (place.in_part.max(begin), place_end.min(end));
                if from < until {
                    let offset = place.offset + (from - place.in_part);
                    let piece = Place { offset, in_part: from, bytes: until - from, ..**place };
                    // A frame is at most 1 MiB, so these fit.
                    let content = &plain[(from - begin) as usize..(until - begin) as usize];
                    self.put(&piece, content)?;
                    if let Some((sizes, _)) = holds {
                        borrowed.and(seen(content, &[Place { in_part: 0, ..piece }], sizes));
                    }
                }
                if place_end > end {
                    break;
                }
                places.next();
            }
            begin = end;
        }
        if places.next().is_some() {
            return Err(RestoreError::CutOff);
        }
        if let Some((_, found)) = holds {
            // Whoever holds them has gone, and says itself why.
            found.blocking_send(borrowed).map_err(|_| RestoreError::CutOff)?;
        }
        self.shared.add(share.bytes());
        Ok(())
    }

    /// Brings a piece of an entry to its place.
    fn put(&self, place: &Place, content: &[u8]) -> Result<(), RestoreError> {
        match self.fates.get(place.entry) {
            Some(Fate::Write(path)) => self.write(path, place, content)?,
            Some(Fate::Control) => {
                let at = usize::try_from(place.offset).unwrap_or(usize::MAX);
                let mut control = lock(&self.control);
                let into = control.get_mut(at..at.saturating_add(content.len()));
                into.ok_or(RestoreError::CutOff)?.copy_from_slice(content);
            }
            Some(Fate::Leave) | None => {}
        }
        Ok(())
    }

    fn write(&self, path: &RelPath, place: &Place, content: &[u8]) -> Result<(), RestoreError> {
        let size = self.backup.manifest().entries.get(place.entry).map_or(0, |entry| entry.size);
        let file = {
            let mut open = lock(&self.open);
            match open.wake(place.entry) {
                Some(there) => there,
                None => {
                    open.make_room();
                    let file = Arc::new(self.root.file(path, size)?);
                    open.add(place.entry, Arc::clone(&file), size);
                    file
                }
            }
        };
        file.write_all_at(content, place.offset)?;
        drop(file);
        let finished = {
            let mut open = lock(&self.open);
            let left = open.files.get_mut(&place.entry).map(|there| {
                there.left = there.left.saturating_sub(place.bytes);
                there.unsettled += place.bytes;
                if there.unsettled >= SETTLE_BYTES
                    && let Ok(handle) = there.file.handle()
                    && let Some(settles) = &*lock(&self.settles)
                    && settles.try_send((path.clone(), handle)).is_ok()
                {
                    there.unsettled = 0;
                }
                there.left
            });
            (left == Some(0)).then(|| open.remove(place.entry)).flatten()
        };
        // Whoever still wrote would have bytes left, so this is the only hold on it.
        if let Some(file) = finished.and_then(|there| Arc::into_inner(there.file)) {
            file.finish()?;
        }
        Ok(())
    }
}

/// A panic elsewhere cannot leave these half changed: each holder changes them in one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
