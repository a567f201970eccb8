//! What it means that a standby is not made, does not go on or is not promoted: what is safe is said from where the copy stands, and from what can have been written by then.

use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use farshore_applier::restore::RestoreError;
use farshore_applier::standby::StandbyError;
use farshore_engines::sqlite::standby::{CopyError, Standing};
use farshore_journal::DatabaseName;

use crate::commands::restore::{NAME_THE_KEY, is_sealed};
use crate::message::{Code, OperatorMessage, Safe, with_causes};

const ANEW: &str =
    "make it anew: `farshore standby run` into an empty directory, then have the applications read that one";

/// When the last commit of a copy was seen.
pub(super) fn time(standing: &Standing) -> Option<String> {
    let time = standing.seen_micros.and_then(DateTime::from_timestamp_micros);
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Where a copy stands, for people.
pub(super) fn as_of(standing: &Standing) -> String {
    let number =
        standing.transaction.map_or_else(|| "an unknown one".to_owned(), |number| number.to_string());
    let time = time(standing).map_or_else(String::new, |time| format!(", seen at {time}"));
    format!("transaction {number}{time} (position {})", standing.end)
}

/// Of a run.
pub(super) fn stopped(
    name: &DatabaseName,
    directory: &Path,
    standing: Option<&Standing>,
    why: &StandbyError,
) -> OperatorMessage {
    let message = told(directory, standing, why);
    OperatorMessage {
        happened: format!("the standby of {name} does not go on: {}", message.happened),
        ..message
    }
}

/// Of a copy that could not be made in a directory that is a standby's already.
pub(super) fn not_made(name: &DatabaseName, directory: &Path, why: &RestoreError) -> OperatorMessage {
    OperatorMessage::new(
        Code::RestoreFailed,
        format!("the standby of {name} was not made: {}", with_causes(why)),
        Safe::Known(format!(
            "the store was only read; in `{}` nothing has the database's name yet, and nothing of others was written to",
            directory.display()
        )),
        match why {
            RestoreError::Journal(why) if is_sealed(why) => NAME_THE_KEY,
            RestoreError::NotWhole { .. } => {
                "`farshore verify` names what is wrong with the journal; mend the store, then give the same command again"
            }
            _ => "mend what it says, then give the same command again: the copy is made anew",
        },
    )
}

/// Of a promotion whose journal holds more than the copy could be given, or may.
pub(super) fn behind(
    directory: &Path,
    standing: &Standing,
    left: Option<u64>,
    why: &StandbyError,
) -> OperatorMessage {
    let left = match (why, left) {
        (StandbyError::Anew { .. }, _) => "what was committed there is not in the copy".to_owned(),
        (StandbyError::Cut { .. }, _) => "the copy may hold more than its store does".to_owned(),
        (_, Some(bytes)) if bytes > 0 => format!("the journal holds {bytes} bytes more than the copy"),
        _ => "it is not known whether the journal holds more".to_owned(),
    };
    let next = match why {
        StandbyError::Anew { .. } => {
            "to have what was committed since, make a standby of the new incarnation in an empty directory; or `--as-it-is` promotes this one as of there, without it"
        }
        StandbyError::Grows => {
            "stop what ships (the former primary takes writes still), then promote again; or `--as-it-is` promotes the copy as of there, without what came later"
        }
        _ => {
            "`farshore verify` names what is wrong with the journal; mend the store, then promote again; or `--as-it-is` promotes the copy as of there, without what came later"
        }
    };
    let happened = format!("the standby in `{}` was not promoted: {why}; {left}", directory.display());
    OperatorMessage::new(Code::StandbyBehind, happened, still_a_standby(standing), next)
}

/// Of a promotion whose store could not be asked.
pub(super) fn unasked(directory: &Path, standing: &Standing, why: &anyhow::Error) -> OperatorMessage {
    let why = match why.downcast_ref::<OperatorMessage>() {
        Some(message) => message.happened.clone(),
        None => format!("{why:#}"),
    };
    OperatorMessage::new(
        Code::StandbyBehind,
        format!(
            "the standby in `{}` was not promoted: it is not known whether the journal holds more: {why}",
            directory.display()
        ),
        still_a_standby(standing),
        "make its store readable, by a configuration that names it, then promote again; where the store is lost too, `--as-it-is` promotes the copy as of there",
    )
}

fn still_a_standby(standing: &Standing) -> Safe {
    Safe::Known(format!(
        "the copy stays a standby, and is whole as of {}; the store was only read",
        as_of(standing)
    ))
}

/// What it means.
pub(super) fn told(directory: &Path, standing: Option<&Standing>, why: &StandbyError) -> OperatorMessage {
    let place = directory.display();
    let untouched = |what: &str| Safe::Known(format!("{what}; the store was only read"));
    let nothing = || untouched(&format!("nothing in `{place}` was changed"));
    // Where it stands; or where that is not at hand, what cannot have happened: no transaction is begun before it is.
    let whole = || match standing {
        Some(standing) => untouched(&format!(
            "the copy in `{place}` is whole as of {}, and applications may go on reading it",
            as_of(standing)
        )),
        None => untouched(&format!("no transaction was written to a copy in `{place}`")),
    };
    let (code, safe, next) = match why {
        StandbyError::Gap { .. } | StandbyError::Cut { .. } | StandbyError::Anew { .. } => {
            (Code::StandbyEnded, whole(), ANEW)
        }
        StandbyError::OfAnother { .. } => (
            Code::StandbyEnded,
            nothing(),
            "make it anew in an empty directory; or name its own incarnation with --incarnation, to bring it to the end of that one",
        ),
        StandbyError::Copy(CopyError::Written { .. }) | StandbyError::Spoiled { .. } => {
            let last = match why {
                StandbyError::Spoiled { standing, .. } => Some(standing.as_ref()),
                _ => standing,
            };
            let last = last.map_or_else(String::new, |last| format!(" behind {}", as_of(last)));
            (
                Code::StandbyWritten,
                Safe::Unknown(format!(
                    "what was written to the copy{last} is in it still, and was not the primary's; it is followed and promoted no more; the store was only read"
                )),
                "find who writes there (or ran a RESTART or TRUNCATE checkpoint) and have it read only; then make the standby anew in an empty directory",
            )
        }
        StandbyError::Copy(CopyError::Locked { .. }) => (
            Code::StandbyLocked,
            whole(),
            "find who holds it (an application that opens the copy for writing, a backup, a shell): `lsof` on the file names the processes; end its transaction, then start the standby again: it goes on from there",
        ),
        StandbyError::Busy { .. } => (
            Code::StandbyTaken,
            nothing(),
            "stop the process that has it (SIGTERM to `farshore standby run`), then give the same command again",
        ),
        StandbyError::Restored { complete: true, .. } => (
            Code::StandbyTaken,
            untouched("nothing in it was changed"),
            "use that copy as what it is, or name an empty directory for the standby",
        ),
        StandbyError::Restored { complete: false, .. } => (
            Code::StandbyTaken,
            untouched("nothing in it was changed"),
            "name an empty directory for the standby",
        ),
        StandbyError::Promoted { .. } | StandbyError::Foreign { .. } => {
            (Code::StandbyTaken, nothing(), "use what is there, or name an empty directory for the standby")
        }
        StandbyError::None { .. } => {
            (Code::StandbyUnknown, nothing(), "name the directory that `farshore standby run --to` was given")
        }
        StandbyError::Preparing { running: true, .. } => {
            (Code::StandbyUnknown, nothing(), "wait until it is made")
        }
        StandbyError::Preparing { running: false, .. } => {
            (Code::StandbyUnknown, nothing(), "`farshore standby run` with the same directory makes it")
        }
        StandbyError::Gone { .. } => (
            Code::StandbyFailed,
            Safe::Unknown("what became of it: farshore does not remove it; nothing was changed, and the store was only read".to_owned()),
            "put the file, its -wal and its -shm back where they were; or make the standby anew in an empty directory",
        ),
        StandbyError::NoParent { .. } => (
            Code::StandbyFailed,
            untouched("nothing was begun"),
            "make the parent directory (or mount what belongs there), then give the same command again",
        ),
        StandbyError::Damaged(_) | StandbyError::Journal(_) => (
            Code::StandbyFailed,
            whole(),
            "`farshore verify` names what is wrong with the journal; mend the store and start it again: it goes on from there, or make it anew from another store",
        ),
        StandbyError::Unsound(_) => (
            Code::StandbyFailed,
            Safe::Unknown("the copy stays a standby and was not promoted; the store was only read".to_owned()),
            "restore from the store with `farshore restore`",
        ),
        StandbyError::Engine => {
            (Code::StandbyFailed, nothing(), "use `farshore restore` for a database of another engine")
        }
        StandbyError::State { .. } => (
            Code::StandbyFailed,
            whole(),
            "mend what it says, then give the same command again; a file of another version of farshore is that one's to use, or make the standby anew in an empty directory",
        ),
        StandbyError::Behind { .. } | StandbyError::Grows | StandbyError::Copy(_) => {
            (Code::StandbyFailed, whole(), "mend what it says, then start it again: it goes on from there")
        }
        StandbyError::CutOff => (
            Code::StandbyFailed,
            Safe::Unknown("whether its last transaction was committed; the copy finds that when it is started".to_owned()),
            "start it again: it goes on from there",
        ),
    };
    OperatorMessage::new(code, why.to_string(), safe, next)
}
