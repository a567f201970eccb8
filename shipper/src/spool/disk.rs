//! What the spool asks of a file system, so that a test's own can forget what was not flushed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A file system.
pub trait Disk: Clone + Send + Sync + 'static {
    /// Writes a file anew and flushes its content. Its name may still be lost.
    ///
    /// # Errors
    /// When it cannot; what was written of it may stand there.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file another name in its folder, replacing what stands there. Lost with the power until the folder is flushed.
    ///
    /// # Errors
    /// When it cannot.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; one that is not there is removed.
    ///
    /// # Errors
    /// When it cannot.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder in one that is there; nothing where it is there already.
    ///
    /// # Errors
    /// When it cannot, or what it is to stand in is not there.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// When it cannot: then they are not.
    fn flush_folder(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, with each file's length; folders have none. Empty where there is no such folder.
    ///
    /// # Errors
    /// When it cannot be read.
    fn names(&self, folder: &Path) -> io::Result<Vec<(String, Option<u64>)>>;

    /// A file's length; `None` where there is none.
    ///
    /// # Errors
    /// When nobody can say.
    fn length(&self, path: &Path) -> io::Result<Option<u64>>;

    /// A file's content.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Whether a folder is there.
    fn is_folder(&self, path: &Path) -> bool;

    /// Whether another file system begins at this folder.
    ///
    /// # Errors
    /// When nobody can say.
    fn is_mount_point(&self, path: &Path) -> io::Result<bool>;

    /// Bytes that may still be written beside this path.
    ///
    /// # Errors
    /// When the file system does not say.
    fn free(&self, path: &Path) -> io::Result<u64>;
}

/// The machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

impl Disk for Files {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Log holds what the database holds.
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        absent(fs::remove_file(path)).map(drop)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn flush_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        let Some(entries) = absent(fs::read_dir(folder))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            // One that was removed meanwhile is not there.
            let Some(about) = absent(entry.metadata())? else { continue };
            if let Ok(name) = entry.file_name().into_string() {
                names.push((name, about.is_file().then_some(about.len())));
            }
        }
        Ok(names)
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(absent(fs::metadata(path))?.map(|about| about.len()))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn is_mount_point(&self, path: &Path) -> io::Result<bool> {
        let device = |path: &Path| fs::metadata(path).map(|about| about.dev());
        Ok(device(path)? != device(&path.join(".."))?)
    }

    fn free(&self, path: &Path) -> io::Result<u64> {
        farshore_engines::sqlite::kept::free_bytes(path)
    }
}

/// `None` for what is not there.
fn absent<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}
