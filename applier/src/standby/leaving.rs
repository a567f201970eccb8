//! A standby that is given up: its directory is held, and judged, before anything of it is removed.
//!
//! What always holds: only a directory that says of itself that it is a standby's is one, and no promoted copy is; nor is anything given up beside which something of others lies. Nothing is
//! removed here. Whoever removes it removes the state's file last: one that was cut off is a standby's directory still, and is gone on with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use farshore_journal::DatabaseName;

use super::place::{BESIDE, MAKING};
use super::state::Record;
use super::{Role, StandbyError, kept, taken};
use crate::restore::{self, Alone};

/// What SQLite calls the files beside a database, behind its name. Source: <https://www.sqlite.org/tempfiles.html>.
const BESIDE_A_DATABASE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A standby's directory that nobody else has, and in which nothing of others lies.
#[derive(Debug)]
pub struct Leaving {
    /// The directory.
    pub directory: PathBuf,
    /// Of which database the standby is.
    pub database: DatabaseName,
    _alone: Alone,
}

/// Holds the directory of a standby that is to be removed, whatever became of its copy.
///
/// # Errors
/// When there is none, a process has it, its copy was promoted, or something of others is there. Nothing was changed.
pub fn leave(directory: &Path) -> Result<Leaving, StandbyError> {
    let none = || StandbyError::None { directory: directory.to_owned() };
    let alone = restore::lock_there(directory).map_err(|why| taken(directory, why))?.ok_or_else(none)?;
    let record = Record::read(&alone).map_err(kept(directory))?.ok_or_else(none)?;
    let names = alone.names(directory).map_err(kept(directory))?;
    let names = others(&record, &names);
    if matches!(&record, Record::Copy(state) if state.role == Role::Promoted) {
        return Err(StandbyError::Promoted { directory: directory.to_owned() });
    }
    match names.is_empty() {
        true => Ok(Leaving {
            directory: directory.to_owned(),
            database: record.origin().database.clone(),
            _alone: alone,
        }),
        false => Err(StandbyError::Foreign { directory: directory.to_owned(), names }),
    }
}

/// What is none of the standby's.
fn others(record: &Record, names: &BTreeSet<String>) -> Vec<String> {
    let mut bases: Vec<&str> = MAKING.to_vec();
    if let Record::Copy(state) = record {
        bases.push(&state.file);
    }
    let is_own = |name: &String| {
        BESIDE.contains(&name.as_str())
            || bases.iter().any(|base| {
                name.strip_prefix(base)
                    .is_some_and(|rest| rest.is_empty() || BESIDE_A_DATABASE.contains(&rest))
            })
    };
    names.iter().filter(|name| !is_own(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use farshore_journal::{IncarnationId, StandbyId, StoreId};

    use super::*;
    use crate::standby::{Origin, STATE};

    #[test]
    fn a_directory_in_which_something_of_others_lies_is_not_given_up_nor_one_that_is_no_standbys() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("standby");
        assert!(matches!(leave(&place), Err(StandbyError::None { .. })));
        let alone = restore::lock(&place).unwrap();
        assert!(matches!(leave(&place), Err(StandbyError::Busy { .. })));
        let origin = Origin {
            standby: StandbyId::mint(),
            database: "orders".parse().unwrap(),
            store: StoreId::from_bytes([1; 16]),
            incarnation: IncarnationId::from_bytes([2; 16]),
        };
        std::fs::write(place.join("farshore-restoring"), "").unwrap();
        drop(alone);
        assert!(matches!(leave(&place), Err(StandbyError::None { .. })), "nothing says whose it is");
        let alone = restore::lock(&place).unwrap();
        Record::Preparing { origin }.write(&alone).unwrap();
        drop(alone);
        assert_eq!(leave(&place).unwrap().database.as_str(), "orders");
        std::fs::write(place.join("notes"), "").unwrap();
        let refused = leave(&place).unwrap_err();
        assert!(matches!(&refused, StandbyError::Foreign { names, .. } if names == &["notes"]), "{refused}");
        assert!(place.join(STATE).exists() && place.join("farshore-restoring").exists());
    }
}
