//! What a restore that was refused, or not completed, says.

use std::path::Path;

use farshore_applier::plan::PlanError;
use farshore_applier::restore::{self, RestoreError};
use farshore_applier::source::Source;
use farshore_journal::{DatabaseName, JournalError};

use super::incarnations::Elsewhere;
use crate::message::{Code, OperatorMessage, Safe, with_causes};

/// Whether what is stored cannot be opened with the private keys at hand.
pub(crate) fn is_sealed(why: &JournalError) -> bool {
    why.lacks_key()
}

pub(crate) const NAME_THE_KEY: &str = "name the file with the private key in `identity_file` of the store; without it nobody can read what is encrypted";

pub(crate) fn unreachable(
    name: &DatabaseName,
    why: &PlanError,
    elsewhere: Option<Elsewhere>,
) -> OperatorMessage {
    let code = match why {
        PlanError::Journal(_) => Code::StoreUnusable,
        _ => Code::RestoreUnreachable,
    };
    let next = match (elsewhere, why) {
        (Some(elsewhere), _) => elsewhere.what_to_do(name),
        (None, PlanError::NoBase { .. }) => format!(
            "wait for its first backup, which `farshore run` takes by itself and `farshore backup list {name}` shows; or name an earlier \
             incarnation with --incarnation, where `farshore status {name}` names one"
        ),
        (None, PlanError::Journal(why)) if is_sealed(why) => NAME_THE_KEY.to_owned(),
        (None, PlanError::Journal(_)) => {
            "`farshore verify` names what is wrong with the journal; mend the store, or restore from another one"
                .to_owned()
        }
        (
            None,
            PlanError::TablespaceInTheWay { .. }
            | PlanError::TablespaceNowhere { .. }
            | PlanError::TablespaceOutside { .. },
        ) => {
            "do one of what it says, then restore again".to_owned()
        }
        (None, _) => {
            "choose a target inside a window that is named, or `farshore verify` when the journal itself is at fault"
                .to_owned()
        }
    };
    OperatorMessage::new(
        code,
        format!("{name} cannot be restored as asked: {}", with_causes(why)),
        Safe::Known("nothing was written".to_owned()),
        next,
    )
}

pub(crate) fn failed(
    name: &DatabaseName,
    source: &Source,
    directory: &Path,
    why: &RestoreError,
) -> OperatorMessage {
    let incarnation = source.record().incarnation;
    let in_the_way = |what: &str, next: &str| {
        OperatorMessage::new(
            Code::RestoreFailed,
            format!("the restore of {name} was not begun: {why}"),
            Safe::Known(format!("nothing was written, and {what} is as it was")),
            next,
        )
    };
    match why {
        RestoreError::Interrupted { same_plan: true, .. } => {
            return in_the_way(
                "what the interrupted restore wrote",
                "add --resume: what it wrote is removed and written anew; or name an empty directory",
            );
        }
        RestoreError::Interrupted { same_plan: false, .. } => {
            return in_the_way(
                "what the interrupted restore wrote",
                "ask for what it asked for, with --resume, or name an empty directory",
            );
        }
        RestoreError::Busy { .. } => {
            return in_the_way(
                "what the other restore writes",
                "wait for it to end, or name an empty directory",
            );
        }
        RestoreError::AlreadyThere { .. } => {
            return in_the_way("the restored copy", "use the copy that is there, or name an empty directory");
        }
        RestoreError::Standbys { .. } => {
            return in_the_way("the standby", "name an empty directory");
        }
        RestoreError::Others { .. } => {
            return in_the_way(
                "what is there",
                "move what it names out of the directory, then add --resume again; or name an empty directory",
            );
        }
        RestoreError::Named { .. } => {
            return in_the_way(
                "the database",
                "use it: it is the copy that was asked for, with what was written to it since; or name an empty directory",
            );
        }
        _ => {}
    }
    // The marker is the first file of a restore, and is not removed before another takes its place: without it nothing was written.
    let (written, again) = match directory.join(restore::MARKER).exists() {
        true => (
            "what was written is marked as interrupted and will not start",
            "mend what it says, then the same command with --resume, or restore into an empty directory",
        ),
        false => ("nothing was written", "mend what it says, then restore into an empty directory"),
    };
    OperatorMessage::new(
        Code::RestoreFailed,
        format!("the restore of {name} was not completed: {}", with_causes(why)),
        Safe::Known(format!(
            "the store (incarnation {incarnation}) was only read; the source was not touched; {written}"
        )),
        match why {
            RestoreError::Journal(why) if is_sealed(why) => NAME_THE_KEY,
            RestoreError::NotWhole { .. } => {
                "`farshore verify` names what is wrong with the journal; restore to an earlier target or from another store, into an empty directory"
            }
            _ => again,
        },
    )
}
