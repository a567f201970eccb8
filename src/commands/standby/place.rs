//! What lies in a directory that a command on a standby is given.
//!
//! What always holds: files are read and nothing is changed. A PostgreSQL standby is one only where all of it says so: the marker of a completed restore of farshore's, `standby.signal`, and
//! a `primary_conninfo` that is bound to an incarnation. What was promoted has no `standby.signal` any more: the server removes it (`xlogrecovery.c`), and it is a database of its own.

use std::path::{Path, PathBuf};

use farshore_applier::restore::{MARKER, State, marker};
use farshore_applier::standby::STATE;
use farshore_engines::postgres::restore::control::ControlFile;
use farshore_engines::postgres::standby::{conninfo_value, setting};
use farshore_journal::{DatabaseName, IncarnationId, StoreId};

use crate::message::{Code, OperatorMessage, Safe};
use crate::serving::route;

/// The mark of a standby whose removal was begun: what the restore's marker is called from then on.
pub(super) const LEAVING: &str = "farshore-standby.dropped.json";
/// Makes a server a standby when it starts. Source: `STANDBY_SIGNAL_FILE` in `xlog.h`.
const SIGNAL: &str = "standby.signal";

/// What a directory holds.
#[derive(Debug)]
pub(super) enum Place {
    /// A copy of a SQLite database, or what one is made from.
    Sqlite(PathBuf),
    /// A PostgreSQL standby.
    Postgres(Box<Standby>),
    /// What is left of one whose removal was begun.
    Leaving(PathBuf),
}

/// A PostgreSQL standby that `standby create` made.
#[derive(Debug)]
pub(super) struct Standby {
    /// Where it is, every link followed.
    pub directory: PathBuf,
    /// Of which database.
    pub database: DatabaseName,
    /// From which store.
    pub store: StoreId,
    /// Which incarnation it is bound to.
    pub incarnation: IncarnationId,
    /// What it calls itself: its `application_name`, else its `cluster_name`, else `walreceiver`, as `walreceiver.c` has it.
    pub name: String,
    /// Whether it is sent log only once it is old enough.
    pub delayed: bool,
    /// Which cluster, by its control file.
    pub system: u64,
}

impl Place {
    /// What lies there.
    ///
    /// # Errors
    /// When it is no standby's, or a promoted one's.
    pub fn look(to: &Path) -> Result<Self, OperatorMessage> {
        let directory = std::fs::canonicalize(to).map_err(|why| no_standby(to, &format!("{why}")))?;
        // What this user may not look into is not called empty.
        let has = |name: &str| {
            let found = directory.join(name).try_exists();
            found.map_err(|why| no_standby(to, &format!("it cannot be looked into: {why}")))
        };
        if has(STATE)? {
            return Ok(Self::Sqlite(directory));
        }
        if has(LEAVING)? {
            return Ok(Self::Leaving(directory));
        }
        if !has("PG_VERSION")? {
            return match has(MARKER)? {
                // What became of it is told by whoever knows such copies.
                true => Ok(Self::Sqlite(directory)),
                false => Err(no_standby(to, "no standby lies there")),
            };
        }
        postgres(to, directory).map(|standby| Self::Postgres(Box::new(standby)))
    }
}

fn postgres(to: &Path, directory: PathBuf) -> Result<Standby, OperatorMessage> {
    let plan = match marker(&directory).map_err(|why| no_standby(to, &why.to_string()))? {
        None => return Err(no_standby(to, "farshore did not make the PostgreSQL that lies there")),
        Some(marker) if marker.state != State::Complete => {
            return Err(no_standby(to, "the restore that makes one was not completed there"));
        }
        Some(marker) => marker.plan,
    };
    if !directory.join(SIGNAL).exists() {
        return Err(of_its_own(to, plan.database.as_str()));
    }
    let control = std::fs::read(directory.join("global/pg_control"));
    let control = control.map_err(|why| no_standby(to, &format!("global/pg_control: {why}")))?;
    let control = ControlFile::parse(&control).map_err(|why| no_standby(to, &why.to_string()))?;
    let conninfo = of_files(&directory, "primary_conninfo").unwrap_or_default();
    let options = conninfo_value(&conninfo, "options").unwrap_or_default();
    let Some(incarnation) = route::bound_to(&options) else {
        return Err(no_standby(
            to,
            "its primary_conninfo names no incarnation of a journal (farshore.incarnation): it follows something else",
        ));
    };
    let named = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let name = conninfo_value(&conninfo, "application_name")
        .and_then(|name| named(&name))
        .or_else(|| of_files(&directory, "cluster_name").and_then(|name| named(&name)))
        .unwrap_or_else(|| "walreceiver".to_owned());
    Ok(Standby {
        database: plan.database,
        store: plan.store,
        incarnation,
        name,
        delayed: options.contains("farshore.apply_delay="),
        system: control.system_identifier,
        directory,
    })
}

/// A setting in the directory's own files: what `ALTER SYSTEM` set comes before what was written by hand.
fn of_files(directory: &Path, name: &str) -> Option<String> {
    ["postgresql.auto.conf", "postgresql.conf"].iter().find_map(|file| {
        let text = std::fs::read(directory.join(file)).ok()?;
        setting(&String::from_utf8_lossy(&text), name)
    })
}

/// It is none.
pub(super) fn no_standby(to: &Path, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyUnknown,
        format!("`{}` is no standby of farshore's: {why}", to.display()),
        Safe::Known("nothing in it was changed".to_owned()),
        "name the directory that `farshore standby create --to` or `farshore standby run --to` was given",
    )
}

/// It was one, or never was.
pub(super) fn of_its_own(to: &Path, database: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::StandbyTaken,
        format!(
            "what lies in `{}` is no standby: it was promoted, or restored as a copy of {database}, and is a database of its own",
            to.display()
        ),
        Safe::Known("nothing in it was changed".to_owned()),
        "use it as what it is; farshore removes no database of its own",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(to: &Path) -> Result<&'static str, Code> {
        match Place::look(to) {
            Ok(Place::Sqlite(_)) => Ok("sqlite"),
            Ok(Place::Postgres(_)) => Ok("postgres"),
            Ok(Place::Leaving(_)) => Ok("leaving"),
            Err(why) => Err(why.code),
        }
    }

    /// A whole one is made by `standby create` alone: the tests of `tests/serving/commands.rs` have it.
    #[test]
    fn what_nothing_says_is_a_standby_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        assert_eq!(code(&place.join("missing")), Err(Code::StandbyUnknown));
        assert_eq!(code(place), Err(Code::StandbyUnknown), "it is empty");
        std::fs::write(place.join("PG_VERSION"), "17\n").unwrap();
        std::fs::write(place.join(SIGNAL), "").unwrap();
        assert_eq!(code(place), Err(Code::StandbyUnknown), "farshore did not make it");
        std::fs::write(place.join(LEAVING), "").unwrap();
        assert_eq!(code(place), Ok("leaving"));
        std::fs::write(place.join(STATE), "").unwrap();
        assert_eq!(code(place), Ok("sqlite"));
    }
}
