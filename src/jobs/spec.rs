//! What is asked for here, and by whom. What exactly each kind of job is to do stands in the catalog's own `job::spec`.

pub use farshore_catalog::job::spec::{
    Backup, History, Plan, Resolved, Restore, Start, Target, Then, Verify,
};
use farshore_catalog::job::{JobId, JobKind, NewJob, Via};
use farshore_journal::DatabaseName;
use serde::{Deserialize, Serialize};

/// A drill. What is not said here the configuration says when it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// The point, or the rule by which it is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// Where the copy goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<std::path::PathBuf>,
    /// The seed of a random choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The store to read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// What the user of this process asks for now, and this process does.
pub fn asked<T: Serialize>(kind: JobKind, database: Option<&DatabaseName>, spec: &T) -> NewJob {
    NewJob {
        id: JobId::mint(),
        kind,
        database: database.cloned(),
        // Strings and numbers: there is nothing that could not be written.
        spec: serde_json::to_string(spec).unwrap_or_default(),
        asked_by: user(),
        via: Via::Command,
        wanted_node: None,
    }
}

/// What is asked for now, by the user of this process, of whoever is there to do it.
pub fn queued<T: Serialize>(kind: JobKind, database: Option<&DatabaseName>, spec: &T) -> NewJob {
    NewJob { via: Via::Queue, ..asked(kind, database, spec) }
}

/// The name of the user that this process runs as, or the number.
pub fn user() -> String {
    let id = nix::unistd::geteuid();
    let known = nix::unistd::User::from_uid(id).ok().flatten();
    known.map_or_else(|| id.to_string(), |user| user.name)
}
