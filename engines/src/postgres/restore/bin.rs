//! Finds the server's programs of one major, and refuses any other: a data directory belongs to its major. For a new data directory it
//! finds the newest ones.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::control::Major;

/// A program that only prints its version answers at once; a hung file system must not hold a restore.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// Why no programs were found.
#[derive(Debug, thiserror::Error)]
pub enum BinError {
    /// The folder the operator named holds none, or those of another major.
    #[error("`{path}` is not the program folder of PostgreSQL {wanted}: its `postgres` says {said:?}", path = path.display())]
    Explicit {
        /// The folder.
        path: PathBuf,
        /// The major of the data.
        wanted: Major,
        /// What `postgres --version` printed; `None` when it could not be run.
        said: Option<String>,
    },
    /// Nothing anywhere.
    #[error("no PostgreSQL {wanted} found; looked at {looked:?}: install it, or name its program folder")]
    NotFound {
        /// The major of the data.
        wanted: Major,
        /// Folders looked at, with what was found there.
        looked: Vec<String>,
    },
    /// The folder the operator named holds none that farshore knows.
    #[error("`{path}` is not a program folder of PostgreSQL 14 to 18: its `postgres` says {said:?}", path = path.display())]
    Unknown {
        /// The folder.
        path: PathBuf,
        /// What `postgres --version` printed; `None` when it could not be run.
        said: Option<String>,
    },
    /// Nothing of any major anywhere.
    #[error("no server programs of PostgreSQL 14 to 18 were found; looked at {}", looked.join(", "))]
    NoneAtAll {
        /// Folders looked at, with what was found there.
        looked: Vec<String>,
    },
}

/// The folder of `postgres` of this major: the one named, else a package's, else the one in `PATH`.
///
/// # Errors
/// When it is of another major: PostgreSQL would refuse the data, or worse, an old server would not know what it reads.
pub async fn find(explicit: Option<&Path>, major: Major) -> Result<PathBuf, BinError> {
    if let Some(path) = explicit {
        let said = version(path).await;
        return match said.as_deref().and_then(major_of) {
            Some(found) if found == major.get() => Ok(path.to_owned()),
            _ => Err(BinError::Explicit { path: path.to_owned(), wanted: major, said }),
        };
    }
    let folders = packaged(major).into_iter().chain(in_path());
    let mut looked = Vec::new();
    for folder in folders {
        let Some(said) = version(&folder).await else { continue };
        if major_of(&said) == Some(major.get()) {
            return Ok(folder);
        }
        looked.push(format!("{}: {said}", folder.display()));
    }
    Err(BinError::NotFound { wanted: major, looked })
}

/// The folder of the newest server programs that farshore knows: the one named, else the packages' and those in `PATH`.
///
/// # Errors
/// When there are none.
pub async fn newest(explicit: Option<&Path>) -> Result<(PathBuf, Major), BinError> {
    let everywhere = || Major::ALL.into_iter().rev().flat_map(packaged).chain(in_path()).collect();
    newest_of(explicit, everywhere).await
}

async fn newest_of(
    explicit: Option<&Path>,
    everywhere: impl FnOnce() -> Vec<PathBuf>,
) -> Result<(PathBuf, Major), BinError> {
    let known = |said: &str| major_of(said).and_then(Major::new);
    if let Some(path) = explicit {
        let said = version(path).await;
        return match said.as_deref().and_then(known) {
            Some(major) => Ok((path.to_owned(), major)),
            None => Err(BinError::Unknown { path: path.to_owned(), said }),
        };
    }
    let mut found: Option<(PathBuf, Major)> = None;
    let mut looked = Vec::new();
    for folder in everywhere() {
        let said = version(&folder).await;
        // Of two of one major the one looked at first.
        match said.as_deref().and_then(known) {
            Some(major) if found.as_ref().is_none_or(|(_, newest)| major > *newest) => {
                found = Some((folder, major))
            }
            Some(_) => {}
            None => looked.push(said.map_or_else(
                || folder.display().to_string(),
                |said| format!("{} ({said})", folder.display()),
            )),
        }
    }
    found.ok_or(BinError::NoneAtAll { looked })
}

/// Where packages of a major put its server programs: Debian's and its kin, PostgreSQL's own for Red Hat and its kin.
fn packaged(major: Major) -> [PathBuf; 2] {
    [format!("/usr/lib/postgresql/{major}/bin").into(), format!("/usr/pgsql-{major}/bin").into()]
}

/// The folders in `PATH`.
fn in_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect()
}

async fn version(folder: &Path) -> Option<String> {
    let program = folder.join("postgres");
    let run = tokio::process::Command::new(program)
        .arg("--version")
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_DEADLINE, run).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.trim().chars().take(200).collect())
}

/// `postgres (PostgreSQL) 15.20 (Debian 15.20-1)` is 15; `18beta1` and `19devel` have no dot.
fn major_of(said: &str) -> Option<u32> {
    let number = said.strip_prefix("postgres (PostgreSQL) ")?;
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_is_read_from_every_form_of_version() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 14"), Some(14));
        assert_eq!(major_of("postgres (PostgreSQL) "), None);
        assert_eq!(major_of("bash 5"), None);
    }

    /// A folder whose `postgres` says that it is of this version.
    fn folder(root: &Path, says: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let folder = root.join(says.replace(' ', "-"));
        std::fs::create_dir(&folder).unwrap();
        let program = folder.join("postgres");
        std::fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[tokio::test]
    async fn the_newest_major_that_is_known_is_found_wherever_it_stands_among_the_folders() {
        let root = tempfile::tempdir().unwrap();
        let [old, new, same, unknown] = ["15.20", "17.1", "17.9", "29.0"]
            .map(|number| folder(root.path(), &format!("postgres (PostgreSQL) {number}")));
        let all = vec![root.path().join("nothing"), old, new.clone(), same, unknown];
        let found = newest_of(None, || all).await.unwrap();
        assert_eq!(found, (new, Major::new(17).unwrap()));
    }

    #[tokio::test]
    async fn where_no_known_major_is_every_folder_that_was_looked_at_is_named() {
        let root = tempfile::tempdir().unwrap();
        let unknown = folder(root.path(), "postgres (PostgreSQL) 29.0");
        let none = root.path().join("nothing");
        let looked = [none.clone(), unknown.clone()];
        let said = newest_of(None, || looked.to_vec()).await.unwrap_err().to_string();
        let ending = format!("{}, {} (postgres (PostgreSQL) 29.0)", none.display(), unknown.display());
        assert!(said.ends_with(&ending), "{said}");
        let named = newest_of(Some(&unknown), Vec::new).await.unwrap_err();
        assert!(matches!(named, BinError::Unknown { said: Some(_), .. }), "{named}");
    }
}
