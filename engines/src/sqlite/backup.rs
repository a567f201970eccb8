//! What a backup of a SQLite database holds, by its manifest, which may be hostile.
//!
//! ```text
//! <name of the database's file>   the copy, whose pages may be of several moments
//! farshore-beneath                one record of our log: what was not in the file when the copy began; none where there was nothing
//! ```
//! What always holds: the copy, with what is beneath applied to it, and the records from the manifest's `start` up to the end of any
//! that ends at or behind its `end`, is the database as it was there. `start` is where the last record before the copy began starts: that
//! one is applied again, and changes nothing.

use farshore_journal::backup::{Entry, EntryKind, Manifest};

use crate::log::SQLITE;

/// The entry that holds what was beneath.
pub const BENEATH: &str = "farshore-beneath";
/// The file's name while it is restored: no application opens it.
pub const RESTORING: &str = "farshore-restoring";
/// What a restore puts beside the file begins so.
const RESERVED: &str = "farshore-restor";
/// The limit of one name on every file system in use.
const MAX_NAME_BYTES: usize = 255;

/// A backup's two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files<'a> {
    /// The copy.
    pub database: &'a Entry,
    /// What was beneath, if anything was.
    pub beneath: Option<&'a Entry>,
}

/// A manifest that is none of a SQLite database's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// It is another engine's.
    #[error("it is of engine `{engine}`")]
    Engine {
        /// Which.
        engine: String,
    },
    /// It names no file, more than one, or what is no file.
    #[error("it does not hold one file and what was beneath it")]
    Entries,
    /// The file's name is none that a file can be given here.
    #[error("it calls the database's file {name:?}, which is no plain name of a file")]
    Name {
        /// As written, cut.
        name: String,
    },
}

/// The files of a backup.
///
/// # Errors
/// [`FilesError`] when it is not made as this module's head says.
pub fn files(manifest: &Manifest) -> Result<Files<'_>, FilesError> {
    if manifest.engine != SQLITE {
        return Err(FilesError::Engine { engine: manifest.engine.chars().take(80).collect() });
    }
    if manifest.entries.iter().any(|entry| entry.kind != EntryKind::File) {
        return Err(FilesError::Entries);
    }
    let (beneath, database): (Vec<&Entry>, Vec<&Entry>) =
        manifest.entries.iter().partition(|entry| entry.path == BENEATH);
    match (database.as_slice(), beneath.as_slice()) {
        ([database], [] | [_]) if is_file_name(&database.path) => {
            Ok(Files { database, beneath: beneath.first().copied() })
        }
        ([database], [] | [_]) => {
            Err(FilesError::Name { name: database.path.chars().take(MAX_NAME_BYTES).collect() })
        }
        _ => Err(FilesError::Entries),
    }
}

/// Whether a database's file can be backed up and restored under this name.
pub fn is_file_name(name: &str) -> bool {
    let plain = (1..=MAX_NAME_BYTES).contains(&name.len())
        && !matches!(name, "." | ".." | BENEATH)
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
    plain && !name.starts_with(RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_name_is_a_database_file() {
        for name in ["app.db", "a b.sqlite3", "..db", "ünïcode", &"x".repeat(255)] {
            assert!(is_file_name(name), "{name}");
        }
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "../a",
            "a\\b",
            "a\nb",
            "a\0",
            "app.db/",
            BENEATH,
            RESTORING,
            "farshore-restore.json",
            &long,
        ] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
