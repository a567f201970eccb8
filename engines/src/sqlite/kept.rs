//! How much log a database keeps beside it, and how much room there is for it.
//!
//! What always holds: nothing is opened (see [`super::hold`] for why), and a look takes no lock.

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::look::beside;

/// Where a database's log is: beside the file itself, not beside a link to it.
///
/// # Errors
/// When there is no such file.
fn log_path(database: &Path) -> io::Result<PathBuf> {
    Ok(beside(&database.canonicalize()?, "-wal"))
}

/// Bytes of a database's log; none where it has none.
///
/// # Errors
/// When the database or its log cannot be looked at.
pub fn log_bytes(database: &Path) -> io::Result<u64> {
    match std::fs::metadata(log_path(database)?) {
        Ok(log) => Ok(log.len()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(why) => Err(why),
    }
}

/// Bytes that are free for it, to whoever asks.
///
/// # Errors
/// When the file system does not say.
pub fn free_bytes(database: &Path) -> io::Result<u64> {
    let found = statvfs(&database.canonicalize()?)?;
    found
        .blocks_available()
        .checked_mul(found.fragment_size())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_looked_for_beside_the_file_that_a_link_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("app.db"), "x").unwrap();
        std::os::unix::fs::symlink(real.join("app.db"), &link).unwrap();
        assert_eq!(log_bytes(&link).unwrap(), 0);
        std::fs::write(real.join("app.db-wal"), "frames").unwrap();
        std::fs::write(folder.path().join("link-wal"), "none of its").unwrap();
        assert_eq!(log_bytes(&link).unwrap(), 6);
        assert!(free_bytes(&link).unwrap() > 0);
        assert!(log_bytes(&folder.path().join("none")).is_err());
    }
}
