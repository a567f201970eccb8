//! Makes a restored tree durable: every file and directory, in parallel, once at the end.
//!
//! Files are opened again for it: a restore may write more files than a process may hold open, and a write that
//! failed behind our back is reported to the first descriptor that asks. Source: `fsync(2)`, Linux 4.13 and later.

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::{BeneathError, RelPath, Root, io_error};

/// More threads than this only queue at the device.
const MAX_THREADS: usize = 16;

impl Root {
    /// Synchronises all that was written, with up to `threads` threads. Blocks. On `Ok` a power loss keeps it all.
    ///
    /// # Errors
    /// When a file is unfinished, or the device reports a failure: then nothing is known, and the restore is void.
    pub fn sync(&self, threads: usize) -> Result<(), BeneathError> {
        let files = self.unfinished.load(Ordering::Acquire);
        if files > 0 {
            return Err(BeneathError::Unfinished { files });
        }
        let (files, dirs, tablespaces) = {
            let taken = self.taken();
            let places: Vec<_> = taken.tablespaces.values().map(|t| std::sync::Arc::clone(&t.dir)).collect();
            (
                taken.files.iter().cloned().collect::<Vec<_>>(),
                taken.dirs.iter().cloned().collect::<Vec<_>>(),
                places,
            )
        };
        in_parallel(threads, &files, |path| {
            self.open(path)?.sync_all().map_err(|source| io_error("sync", path, source))
        })?;
        in_parallel(threads, &dirs, |path| {
            let dir = self.walk(path, path.names().count())?;
            nix::unistd::fsync(dir.as_ref()).map_err(|errno| io_error("sync", path, errno))
        })?;
        // A tablespace's name stands in its parent directory, which is the operator's.
        for dir in tablespaces.iter().chain([&self.dir]) {
            nix::unistd::fsync(dir.as_ref()).map_err(|errno| io_error("sync", "a root", errno))?;
            let up = openat(dir.as_ref(), "..", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|errno| io_error("open", "a root's parent", errno))?;
            nix::unistd::fsync(up).map_err(|errno| io_error("sync", "a root's parent", errno))?;
        }
        Ok(())
    }
}

fn in_parallel(
    threads: usize,
    paths: &[RelPath],
    sync: impl Fn(&RelPath) -> Result<(), BeneathError> + Sync,
) -> Result<(), BeneathError> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = sync(path) {
                // The other threads need not go on: the restore is void.
                next.store(paths.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    let threads = threads.clamp(1, MAX_THREADS).min(paths.len().max(1));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for worker in workers {
            let done = worker.join().unwrap_or(Err(BeneathError::Unfinished { files: paths.len() }));
            result = result.and(done);
        }
        result
    })
}
