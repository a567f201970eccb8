//! Whether a directory is a standby's, and what it may become.
//!
//! What always holds: only a directory whose state file says that it is a standby's, of this journal, is one. A directory becomes one while it is empty, by that file, before anything is
//! restored there. Whatever else is there is never written to or removed: not a copy that `restore` made, of whatever target, and not a file that has the database's name.

use std::collections::BTreeSet;
use std::path::Path;

use farshore_engines::sqlite::backup::{BENEATH, RESTORING};
use farshore_journal::StoreId;
use farshore_journal::format::body::IncarnationRecord;

use super::StandbyError;
use super::state::{NEXT, Record, Role, STATE, State};
use crate::restore::{self, Marker};

/// What a standby's making leaves while the copy has no name: all that is removed when it is made again.
pub(super) const MAKING: [&str; 2] = [RESTORING, BENEATH];
/// The standby's own files.
pub(super) const BESIDE: [&str; 2] = [STATE, NEXT];

/// What may be done in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A standby can be made there: it is empty, or holds no more than a making that was cut off left.
    Make,
    /// The copy there goes on.
    GoOn(Box<State>),
}

/// The journal that a standby is to be of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub record: &'a IncarnationRecord,
    pub store: StoreId,
}

/// Judges a directory by what it says of itself and what is in it.
///
/// # Errors
/// When it is neither a standby's of this journal nor empty.
pub(super) fn judge(
    directory: &Path,
    record: Option<Record>,
    marker: Option<&Marker>,
    names: &BTreeSet<String>,
    wanted: Wanted<'_>,
) -> Result<Verdict, StandbyError> {
    let directory_of = || directory.to_owned();
    let only = |known: &[&str]| names.iter().all(|name| known.contains(&name.as_str()));
    let others =
        |known: &[&str]| names.iter().filter(|name| !known.contains(&name.as_str())).cloned().collect();
    let making: Vec<&str> = MAKING.into_iter().chain(BESIDE).collect();
    let Some(record) = record else {
        return match marker {
            _ if only(&[NEXT]) => Ok(Verdict::Make),
            Some(marker) => Err(StandbyError::Restored {
                directory: directory_of(),
                complete: marker.state == restore::State::Complete,
                asked: marker.plan.asked.to_string(),
                transaction: marker.plan.resolved.xid,
            }),
            None => Err(StandbyError::Foreign { directory: directory_of(), names: others(&[NEXT]) }),
        };
    };
    let differs = differs(&record, wanted);
    match record {
        // Nothing of worth is there: it may be made of another incarnation, or from another store, than was begun.
        Record::Preparing { origin } if origin.database != wanted.record.database => {
            let what = format!("database {}", origin.database);
            Err(StandbyError::OfAnother { directory: directory_of(), what })
        }
        Record::Preparing { .. } if only(&making) => Ok(Verdict::Make),
        Record::Preparing { .. } => {
            Err(StandbyError::Foreign { directory: directory_of(), names: others(&making) })
        }
        Record::Copy(state) => match (state.role, differs) {
            (Role::Promoted, _) => Err(StandbyError::Promoted { directory: directory_of() }),
            (Role::Spoiled, _) => Err(StandbyError::spoiled(directory, &state)),
            (Role::Standby, Some(what)) => Err(StandbyError::OfAnother { directory: directory_of(), what }),
            (Role::Standby, None) if names.contains(&state.file) => Ok(Verdict::GoOn(state)),
            // It was cut off between the state and the name.
            (Role::Standby, None) if names.contains(RESTORING) && only(&making) => Ok(Verdict::Make),
            (Role::Standby, None) => Err(StandbyError::Gone { path: directory.join(&state.file) }),
        },
    }
}

/// In what a standby is of another journal.
fn differs(record: &Record, wanted: Wanted<'_>) -> Option<String> {
    let origin = record.origin();
    if origin.database != wanted.record.database {
        Some(format!("database {}", origin.database))
    } else if origin.incarnation != wanted.record.incarnation {
        Some(format!("incarnation {}", origin.incarnation))
    } else {
        (origin.store != wanted.store).then(|| format!("the store {}", origin.store))
    }
}

#[cfg(test)]
mod tests {
    use farshore_engines::sqlite::standby::{Proof, Standing};
    use farshore_journal::{IncarnationId, Offset, StandbyId};

    use super::*;
    use crate::standby::{Ended, How, Origin};

    const STORE: StoreId = StoreId::from_bytes([1; 16]);

    fn record() -> IncarnationRecord {
        IncarnationRecord {
            format: 1,
            store: STORE,
            number: 0,
            incarnation: IncarnationId::from_bytes([2; 16]),
            database: "orders".parse().unwrap(),
            engine: "sqlite".to_owned(),
            identity: "x".to_owned(),
            major: 3,
            segment_bytes: 1 << 20,
            created: "2026-11-26T00:00:00Z".to_owned(),
            reason: "first".to_owned(),
        }
    }

    fn copy(role: Role) -> State {
        let record = record();
        let origin = Origin {
            standby: StandbyId::mint(),
            database: record.database,
            store: STORE,
            incarnation: record.incarnation,
        };
        let proof = Proof::of(&[0; 512]).unwrap();
        let now = Standing { proof, end: Offset::new(9), transaction: None, seen_micros: None, pages: 1 };
        let ended = Some(Ended::now("why".to_owned(), How::Spoiled));
        State { role, ended, ..State::first(origin, "app.db", now) }
    }

    fn says(record_there: Option<Record>, names: &[&str]) -> &'static str {
        let record = record();
        let wanted = Wanted { record: &record, store: STORE };
        let mut all: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        if record_there.is_some() {
            all.insert(STATE.to_owned());
        }
        match judge(Path::new("/d"), record_there, None, &all, wanted) {
            Ok(Verdict::Make) => "make",
            Ok(Verdict::GoOn(_)) => "go on",
            Err(StandbyError::Foreign { .. }) => "foreign",
            Err(StandbyError::OfAnother { .. }) => "another",
            Err(StandbyError::Promoted { .. }) => "promoted",
            Err(StandbyError::Spoiled { .. }) => "spoiled",
            Err(StandbyError::Gone { .. }) => "gone",
            Err(other) => panic!("{other}"),
        }
    }

    /// Each state of the file, with each of what may stand beside it.
    #[test]
    fn a_directory_is_a_standbys_by_its_state_alone_and_only_a_makings_own_is_ever_removed() {
        let beside: [&[&str]; 7] = [
            &[],
            &[NEXT],
            &[RESTORING, BENEATH],
            &["app.db"],
            &["app.db", "app.db-wal"],
            &[RESTORING, "mine"],
            &["mine"],
        ];
        let preparing = |of: State| Record::Preparing { origin: of.origin };
        let standby = |role| Record::Copy(Box::new(copy(role)));
        let mut other = copy(Role::Standby);
        other.origin.incarnation = IncarnationId::from_bytes([3; 16]);
        let mut stranger = copy(Role::Standby);
        stranger.origin.database = "other".parse().unwrap();
        let table = [
            (None, ["make", "make", "foreign", "foreign", "foreign", "foreign", "foreign"]),
            (
                Some(preparing(copy(Role::Standby))),
                ["make", "make", "make", "foreign", "foreign", "foreign", "foreign"],
            ),
            // It was begun when the database had another incarnation: nothing of that one is there.
            (
                Some(preparing(other.clone())),
                ["make", "make", "make", "foreign", "foreign", "foreign", "foreign"],
            ),
            (Some(preparing(stranger.clone())), ["another"; 7]),
            (Some(standby(Role::Standby)), ["gone", "gone", "make", "go on", "go on", "gone", "gone"]),
            (Some(standby(Role::Spoiled)), ["spoiled"; 7]),
            (Some(standby(Role::Promoted)), ["promoted"; 7]),
            (Some(Record::Copy(Box::new(other))), ["another"; 7]),
            (Some(Record::Copy(Box::new(stranger))), ["another"; 7]),
        ];
        for (record, expected) in table {
            for (names, expected) in beside.iter().zip(expected) {
                assert_eq!(says(record.clone(), names), expected, "{record:?} beside {names:?}");
            }
        }
    }
}
