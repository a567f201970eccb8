//! Finds the server's programs of one major, and refuses any other: a data directory belongs to its major.

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
}

/// The folder of `postgres` of this major: the one named, else Debian's, else the one in `PATH`.
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
    let mut folders = vec![PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))];
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&in_path).filter(|folder| folder.is_absolute()));
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
}
