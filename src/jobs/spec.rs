//! What is asked for here, and by whom. What exactly each kind of job is to do stands in the catalog's own `job::spec`.

pub use farshore_catalog::job::spec::{
    Backup, Compare, Drill, Expire, History, Plan, Preview, Resolved, Restore, Start, Target, Then, Verify,
};
use farshore_catalog::job::{JobId, JobKind, NewJob, Via};
use farshore_journal::DatabaseName;
use serde::Serialize;

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
