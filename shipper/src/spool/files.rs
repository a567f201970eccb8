//! A spool's files: `DIRECTORY/SYSTEM-IDENTIFIER/SEGMENT`.
//!
//! What always holds: a segment under its name is whole and was flushed before it got that name; a configured directory is never made, so that one on a disk that is not mounted is missed.
//! A crash leaves a name that ends in `.part`, which is swept when the folder is next made ready.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::log::file_name::{LogFileName, SegmentName};
use farshore_journal::{Offset, Position, Timeline};

use super::Run;
use super::disk::{Disk, Files};
use crate::push::room::LogFile;

/// The end of the name of a segment that is being written.
const PART: &str = ".part";
/// Whoever fills a spool holds a lock on this file.
const LOCK: &str = "lock";
/// How many files a pipeline is told of at once: what it compares, and what it appends.
const AT_ONCE: usize = 4;

/// A directory, and how much of it may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory, which is this database's alone and the service's to write in.
    pub directory: PathBuf,
    /// Bytes that may stand in it.
    pub limit: u64,
}

/// A database's spool.
#[derive(Debug, Clone)]
pub struct SpoolFiles<D = Files> {
    /// The first is always in use, the others while the spool is extended.
    places: Vec<Place>,
    disk: D,
    /// Bytes in each place, as far as they were measured: a spool may hold tens of thousands of files.
    measured: Arc<Mutex<Vec<Option<u64>>>>,
}

/// Why a segment was not written.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// There is no room.
    #[error("there is no room for another segment")]
    Full,
    /// Something else stands under its name.
    #[error("another segment of this name is there")]
    Differs,
    /// Another process fills it, or the file system refused.
    #[error(transparent)]
    Refused(#[from] io::Error),
}

impl SpoolFiles {
    /// One on this machine's disks.
    pub fn new(places: Vec<Place>) -> Self {
        Self { measured: measured(&places), places, disk: Files }
    }

    /// The file to be locked by whoever fills it, in its first directory.
    ///
    /// # Errors
    /// When that is not there.
    pub fn lock_path(&self) -> io::Result<PathBuf> {
        let first = self.places.first().ok_or(io::ErrorKind::NotFound)?;
        self.is_there(first)?;
        Ok(first.directory.join(LOCK))
    }
}

impl<D: Disk> SpoolFiles<D> {
    #[cfg(test)]
    pub(super) fn on(disk: D, places: Vec<Place>) -> Self {
        Self { measured: measured(&places), places, disk }
    }

    /// The segments of one cluster.
    pub fn of(&self, system_identifier: u64) -> Segments<D> {
        Segments { files: self.clone(), system_identifier }
    }

    /// Bytes that may be used, with the further directories or without.
    pub fn limit(&self, extended: bool) -> u64 {
        self.in_use(extended).iter().fold(0, |sum, place| sum.saturating_add(place.limit))
    }

    /// Bytes of all its segments, of other clusters too, as far as is known without looking anew.
    pub fn bytes(&self) -> Option<u64> {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.iter().flatten().copied().reduce(u64::saturating_add)
    }

    /// Looks anew how much it holds.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn measure(&self) -> io::Result<()> {
        for (at, place) in self.places.iter().enumerate() {
            let bytes = self.bytes_in(place)?;
            self.remember(at, |_| Some(bytes));
        }
        Ok(())
    }

    fn remember(&self, at: usize, change: impl FnOnce(Option<u64>) -> Option<u64>) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = measured.get_mut(at) {
            *bytes = change(*bytes);
        }
    }

    fn used(&self, at: usize, place: &Place) -> io::Result<u64> {
        let known = self.measured.lock().unwrap_or_else(PoisonError::into_inner).get(at).copied().flatten();
        match known {
            Some(known) => Ok(known),
            None => {
                let bytes = self.bytes_in(place)?;
                self.remember(at, |_| Some(bytes));
                Ok(bytes)
            }
        }
    }

    fn is_there(&self, place: &Place) -> io::Result<()> {
        let (disk, directory) = (&self.disk, &place.directory);
        if !disk.is_folder(directory) {
            let why = format!("{} is not there", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        if disk.is_mount_point(directory)? {
            let why = format!(
                "{} is where a disk is mounted: were it not, another disk would be filled and nobody would know. Make a folder in it, and name that",
                directory.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        disk.names(directory).map(drop)
    }

    /// Of each of its directories how much it may hold, of that what it holds, and what is free beside it.
    pub fn looked_at(&self) -> Vec<(&Place, io::Result<(u64, u64)>)> {
        let look = |place: &Place| {
            self.is_there(place)?;
            Ok((self.bytes_in(place)?, self.disk.free(&place.directory)?))
        };
        self.places.iter().map(|place| (place, look(place))).collect()
    }

    fn in_use(&self, extended: bool) -> &[Place] {
        let count = if extended { self.places.len() } else { 1 };
        self.places.get(..count).unwrap_or_default()
    }

    fn bytes_in(&self, place: &Place) -> io::Result<u64> {
        let mut sum = 0_u64;
        for (name, bytes) in self.disk.names(&place.directory)? {
            if bytes.is_none() {
                let files = self.disk.names(&place.directory.join(name))?;
                sum = files.iter().fold(sum, |sum, (_, bytes)| sum.saturating_add(bytes.unwrap_or(0)));
            }
        }
        Ok(sum)
    }
}

/// A cluster's segments in a spool.
#[derive(Debug, Clone)]
pub struct Segments<D = Files> {
    files: SpoolFiles<D>,
    system_identifier: u64,
}

impl<D: Disk> Segments<D> {
    /// Whether its folder is there in the first directory.
    pub fn has_folder(&self) -> bool {
        self.files.places.first().is_some_and(|place| self.files.disk.is_folder(&self.folder(place)))
    }

    /// Looks anew how much all of it holds.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn measure(&self) -> io::Result<()> {
        self.files.measure()
    }

    /// Whether all of its directories are there.
    ///
    /// # Errors
    /// Which is not.
    pub fn is_all_there(&self) -> io::Result<()> {
        self.files.places.iter().try_for_each(|place| self.files.is_there(place))
    }

    /// Makes the folder in each directory that is there.
    ///
    /// # Errors
    /// When the first directory is not there, or a file system refuses.
    pub fn make_folder(&self) -> io::Result<()> {
        let disk = &self.files.disk;
        for (at, place) in self.files.places.iter().enumerate() {
            if let Err(why) = self.files.is_there(place) {
                match at {
                    0 => return Err(why),
                    _ => continue,
                }
            }
            let folder = self.folder(place);
            if !disk.is_folder(&folder) {
                disk.make_folder(&folder)?;
                disk.flush_folder(&place.directory)?;
            }
        }
        Ok(())
    }

    /// Makes the folders, removes what a crash left half written, and makes durable what names there are. Only behind this does a segment that is found count.
    ///
    /// # Errors
    /// As [`Self::make_folder`].
    pub fn make_ready(&self) -> io::Result<()> {
        self.make_folder()?;
        let disk = &self.files.disk;
        for place in &self.files.places {
            let folder = self.folder(place);
            if !disk.is_folder(&folder) {
                continue;
            }
            for (name, _) in disk.names(&folder)? {
                if name.ends_with(PART) {
                    disk.remove(&folder.join(name))?;
                }
            }
            disk.flush_folder(&folder)?;
            disk.flush_folder(&place.directory)?;
        }
        Ok(())
    }

    /// The row of segments that holds `slot`, or ends at the segment that does.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn run_around(
        &self,
        timeline: Timeline,
        slot: Offset,
        segment_bytes: SegmentBytes,
    ) -> io::Result<Option<Run>> {
        let bytes = segment_bytes.get();
        let first = slot.segment_start(bytes);
        let (mut start, mut end) = (first, first);
        while let Some(before) = start.get().checked_sub(bytes).map(Offset::new) {
            if self.find(&SegmentName::holding(timeline, before, segment_bytes))?.is_none() {
                break;
            }
            start = before;
        }
        loop {
            let name = SegmentName::holding(timeline, end, segment_bytes);
            match (self.find(&name)?, name.end()) {
                (Some(_), Some(next)) => end = next,
                _ => break,
            }
        }
        Ok((start < end).then_some(Run { timeline, start, end }))
    }

    /// The first segments without a hole between them, the first of which holds `from`; none when it is not here.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn run_from(&self, from: Position, segment_bytes: SegmentBytes) -> io::Result<Vec<LogFile>> {
        let mut run = Vec::new();
        let mut at = from.offset;
        while run.len() < AT_ONCE {
            let name = SegmentName::holding(from.timeline, at, segment_bytes);
            let (Some(path), Some(end)) = (self.find(&name)?, name.end()) else { break };
            run.push(LogFile { path, start: Position::new(from.timeline, name.start()), end });
            at = end;
        }
        Ok(run)
    }

    /// A segment's content.
    ///
    /// # Errors
    /// When it is not there, or does not read.
    pub fn read(&self, name: &SegmentName) -> io::Result<Vec<u8>> {
        let path = self.find(name)?.ok_or(io::ErrorKind::NotFound)?;
        self.files.disk.read(&path)
    }

    /// Whether another segment of this size may be written.
    ///
    /// # Errors
    /// When nobody can say.
    pub fn has_room(&self, bytes: u64, extended: bool) -> io::Result<bool> {
        Ok(self.place_for(bytes, extended)?.is_some())
    }

    /// Writes a whole segment; one that is there already, and equal, is left. On `Ok` it survives power loss.
    ///
    /// # Errors
    /// When another stands under its name, there is no room, or a file system refuses. Nothing else stands there then, as far as the file system lets that be seen to.
    pub fn put(&self, name: &SegmentName, content: &[u8], extended: bool) -> Result<(), PutError> {
        if self.find(name)?.is_some() {
            // Behind a hole: it may be another history's, and the only copy of it.
            return if self.read(name)? == content { Ok(()) } else { Err(PutError::Differs) };
        }
        let Some((at, place)) = self.place_for(content.len() as u64, extended)? else {
            return Err(PutError::Full);
        };
        let folder = self.folder(place);
        let (part, path) = (folder.join(format!("{name}{PART}")), folder.join(name.to_string()));
        let disk = &self.files.disk;
        let written = disk.write(&part, content).and_then(|()| disk.rename(&part, &path));
        let durable = match written {
            Ok(()) => disk.flush_folder(&folder).inspect_err(|_| remove(disk, &path)),
            Err(why) => {
                remove(disk, &part);
                Err(why)
            }
        };
        match durable {
            Ok(()) => {
                self.files.remember(at, |bytes| Some(bytes?.saturating_add(content.len() as u64)));
                Ok(())
            }
            Err(why) if matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Err(PutError::Full)
            }
            Err(why) => Err(why.into()),
        }
    }

    /// Removes the segments that end at or before `floor`, and those of other timelines: every target has what it may ask for of them.
    ///
    /// # Errors
    /// When a file system refuses.
    pub fn remove_before(&self, floor: Position, segment_bytes: SegmentBytes) -> io::Result<()> {
        for (at, place) in self.files.places.iter().enumerate() {
            let folder = self.folder(place);
            for (file, bytes) in self.files.disk.names(&folder)? {
                let Ok(LogFileName::Segment(name)) = LogFileName::parse(&file, segment_bytes) else {
                    continue;
                };
                // One of another size was written when segments had that size, and its name means another place.
                if bytes != Some(segment_bytes.get()) {
                    continue;
                }
                let is_before = name.end().is_some_and(|end| end <= floor.offset);
                if is_before || name.timeline() != floor.timeline {
                    self.files.disk.remove(&folder.join(file))?;
                    self.files.remember(at, |bytes| Some(bytes?.saturating_sub(segment_bytes.get())));
                }
            }
        }
        Ok(())
    }

    fn folder(&self, place: &Place) -> PathBuf {
        place.directory.join(self.system_identifier.to_string())
    }

    /// Where a segment stands, if it does whole.
    fn find(&self, name: &SegmentName) -> io::Result<Option<PathBuf>> {
        let bytes = name.end().and_then(|end| end.bytes_since(name.start()));
        for place in &self.files.places {
            let path = self.folder(place).join(name.to_string());
            if self.files.disk.length(&path)? == bytes && bytes.is_some() {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    fn place_for(&self, bytes: u64, extended: bool) -> io::Result<Option<(usize, &Place)>> {
        for (at, place) in self.files.in_use(extended).iter().enumerate() {
            match self.files.is_there(place) {
                Ok(()) if self.files.disk.is_folder(&self.folder(place)) => {}
                // A full spool is another thing than one that is gone.
                Err(why) if at == 0 => return Err(why),
                Ok(()) | Err(_) => continue,
            }
            let used = self.files.used(at, place)?;
            let free = self.files.disk.free(&self.folder(place))?;
            if used.saturating_add(bytes) <= place.limit && bytes <= free {
                return Ok(Some((at, place)));
            }
        }
        Ok(None)
    }
}

fn measured(places: &[Place]) -> Arc<Mutex<Vec<Option<u64>>>> {
    Arc::new(Mutex::new(vec![None; places.len()]))
}

/// What is not durable under its name must not be taken for it at the next look.
fn remove(disk: &impl Disk, path: &Path) {
    if let Err(why) = disk.remove(path) {
        tracing::warn!(file = %path.display(), error = %why, "what is not whole cannot be removed");
    }
}
