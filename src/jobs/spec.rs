//! What exactly a job is to do, as the catalog keeps it: JSON without secrets.
//!
//! What always holds: a field that this version does not know fails the job, and is never passed over.

use farshore_catalog::job::{JobId, JobKind, NewJob, Via};
use farshore_journal::DatabaseName;
use serde::{Deserialize, Serialize};

/// A base backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Into this store; into each of the database's when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// A verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {}

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

/// A restore into a new place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// What was asked for, in words.
    pub asked: String,
    /// The position that it resolved to.
    pub position: String,
    /// The store that it reads.
    pub store: String,
    /// The incarnation's number in that store.
    pub incarnation: u64,
    /// The directory that it writes to.
    pub directory: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_later_version_is_never_passed_over() {
        assert!(serde_json::from_str::<Backup>("{}").is_ok());
        assert!(serde_json::from_str::<Backup>("{\"store\":\"main\"}").is_ok());
        assert!(serde_json::from_str::<Backup>("{\"store\":\"main\",\"only\":\"changed\"}").is_err());
        assert!(serde_json::from_str::<Verify>("{\"deep\":true}").is_err());
    }
}
