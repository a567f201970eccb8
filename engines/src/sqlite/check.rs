//! Whether a file is a whole database, by SQLite's own word.
//!
//! What always holds: the file is only read, and nothing is left beside it: it is opened as one that nobody changes, so nobody may have it
//! open for writing. What SQLite cannot ask, since a function or a collation of the application's own is not here, is said to be unchecked
//! and is no damage. Source: `PRAGMA integrity_check`, <https://www.sqlite.org/pragma.html#pragma_integrity_check>.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

/// Findings that are named.
const MOST_FINDINGS: usize = 10;
/// Characters of a finding that are kept: a name in it may be of any length.
const MOST_CHARACTERS: usize = 200;

/// How far a file was found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// All of it.
    Whole,
    /// What could be asked. SQLite lacks something of the application's own for the rest.
    InPart {
        /// What it lacks.
        why: String,
    },
}

/// A file that is no whole database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// SQLite finds it damaged.
    #[error("SQLite finds it damaged: {}", .findings.join("; "))]
    Damaged {
        /// The first things that it names.
        findings: Vec<String>,
    },
    /// It cannot be read.
    #[error("SQLite cannot read it: {why}")]
    Unread {
        /// SQLite's words.
        why: String,
    },
}

/// Asks SQLite.
///
/// # Errors
/// When it is damaged, or cannot be read.
pub fn check(path: &Path) -> Result<Checked, CheckError> {
    asked(&open(path, "?mode=ro&immutable=1", OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(refused)?)
}

/// Asks SQLite of a file that others may have open: it is opened as every application does, with its locks and its log.
///
/// # Errors
/// As [`check`].
pub fn check_in_use(path: &Path) -> Result<Checked, CheckError> {
    asked(&open(path, "?mode=rw", OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(refused)?)
}

fn asked(connection: &Connection) -> Result<Checked, CheckError> {
    match ask(connection, "pragma integrity_check") {
        Ok(findings) => said(findings),
        // It was not asked at all: pages and tables still can be.
        Err(why) if is_lacking(&why) => {
            match ask(connection, "pragma quick_check") {
                Err(other) if !is_lacking(&other) => return Err(refused(other)),
                Ok(findings) => said(findings)?,
                Err(_) => Checked::Whole,
            };
            Ok(Checked::InPart { why: why.to_string() })
        }
        Err(why) => Err(refused(why)),
    }
}

fn said(findings: Vec<String>) -> Result<Checked, CheckError> {
    match findings.as_slice() {
        [only] if only == "ok" => Ok(Checked::Whole),
        _ => Err(CheckError::Damaged { findings }),
    }
}

/// A file's name as SQLite takes it with parameters behind it.
pub(super) fn uri(path: &Path, how: &str) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            // Writing to a String does not fail.
            other => drop(write!(uri, "%{other:02X}")),
        }
    }
    uri.push_str(how);
    uri
}

fn open(path: &Path, how: &str, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Read and write locks, a `-wal` and a `-shm` are for a file that changes.
    let uri = uri(path, how);
    let flags = access | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    // What a restore writes came from a store: its schema is not to be believed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(connection)
}

/// The file as [`check`] opens it, which takes no write.
pub(super) fn open_to_ask(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open(path, "?mode=ro&immutable=1", OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn ask(connection: &Connection, pragma: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(pragma)?;
    let mut rows = statement.query([])?;
    let mut findings: Vec<String> = Vec::new();
    while let Some(row) = rows.next()? {
        let finding: String = row.get(0)?;
        if findings.len() < MOST_FINDINGS {
            findings.push(finding.chars().take(MOST_CHARACTERS).collect());
        }
    }
    Ok(findings)
}

/// SQLite's primary code.
fn code(why: &rusqlite::Error) -> Option<i32> {
    let error = match why {
        // As it calls what it found wrong with a statement, or while it read one's schema.
        rusqlite::Error::SqlInputError { error, .. } => Some(error),
        other => other.sqlite_error(),
    };
    error.map(|error| error.extended_code & 0xff)
}

/// Whether SQLite refused the question, and not the file: it knows no such function, collation or module.
fn is_lacking(why: &rusqlite::Error) -> bool {
    code(why) == Some(ffi::SQLITE_ERROR)
}

fn refused(why: rusqlite::Error) -> CheckError {
    match code(&why) {
        Some(ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB) => {
            CheckError::Damaged { findings: vec![why.to_string()] }
        }
        _ => CheckError::Unread { why: why.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(folder: &Path, script: &str) -> std::path::PathBuf {
        let path = folder.join("a file? of 100%.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(script).unwrap();
        path
    }

    fn rows() -> String {
        "create table t (a, b); create index i on t (a);
         insert into t with recursive n (v) as (select 1 union all select v + 1 from n where v < 500)
         select v, hex(randomblob(200)) from n;"
            .to_owned()
    }

    #[test]
    fn a_whole_database_is_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path(), &format!("pragma journal_mode = wal; {}", rows()));
        assert_eq!(check(&path), Ok(Checked::Whole));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_page_that_was_changed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path(), &rows());
        let mut bytes = std::fs::read(&path).unwrap();
        // Another page's content in the place of one.
        bytes.copy_within(4096..8192, 5 * 4096);
        std::fs::write(&path, &bytes).unwrap();
        let Err(CheckError::Damaged { findings }) = check(&path) else { panic!("not found") };
        assert!((1..=MOST_FINDINGS).contains(&findings.len()), "{findings:?}");
        bytes.truncate(20 * 4096);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(check(&path), Err(CheckError::Damaged { .. })));
        std::fs::write(&path, [7; 5000]).unwrap();
        assert!(matches!(check(&path), Err(CheckError::Damaged { .. })));
    }

    #[test]
    fn a_file_that_is_not_there_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(check(&folder.path().join("none")), Err(CheckError::Unread { .. })));
    }
}
