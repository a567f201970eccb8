//! The demo's folder: new, for its user alone, and removed when it goes, unless it is left.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two attempts to remove it, and how many there are: a process that was killed may be writing still.
const AGAIN: Duration = Duration::from_millis(50);
const ATTEMPTS: usize = 100;

/// It.
pub(super) struct Folder {
    path: PathBuf,
    gone: bool,
}

impl Folder {
    /// A new one in the folder for what is temporary.
    ///
    /// # Errors
    /// When there can be none.
    pub(super) fn new() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("farshore-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let mut folder = Self { path, gone: false };
        // Processes say where they work by a path without links.
        folder.path = std::fs::canonicalize(&folder.path)?;
        Ok(folder)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It stays.
    pub(super) fn leave(&mut self) {
        self.gone = true;
    }

    /// Removes it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) async fn remove(&mut self) -> io::Result<()> {
        for _ in 1..ATTEMPTS {
            if self.try_remove().is_ok() {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.try_remove()
    }

    fn try_remove(&mut self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => {
                self.gone = true;
                Ok(())
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.gone {
            // What cannot be removed is in the system's folder for what is temporary.
            let _ = (0..ATTEMPTS).any(|_| {
                let gone = self.try_remove().is_ok();
                if !gone {
                    std::thread::park_timeout(AGAIN);
                }
                gone
            });
        }
    }
}
