//! What exactly a job is to do, as the catalog keeps it: JSON without secrets.
//!
//! What always holds: a field that this version does not know fails the job, and is never passed over.

use serde::{Deserialize, Serialize};

use crate::Time;

/// A base backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Into this store; into each of the database's when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Whether blocks that an earlier one holds are referred to; as the configuration says when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<bool>,
}

/// A verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {}

/// An expiry, by the rule of the configuration of whoever does it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expire {}

/// What an expiry would do, by the rule of the configuration of whoever looks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preview {}

/// What a restore aims at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The newest stored commit when it is done.
    Latest,
    /// Just before the first commit, in log order, that is later than this.
    At(Time),
    /// A position, with its timeline or without.
    Pos(String),
    /// The commit of a transaction.
    Xid(u64),
    /// A named point.
    Point(String),
}

/// Which history is read; what is not named is chosen as a command chooses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// In this store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Of this incarnation, by its number or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
}

/// A plan of a restore, which writes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// Which history.
    #[serde(default)]
    pub history: History,
}

/// What a restored server does at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Stays read-only there.
    Pause,
    /// Opens for writing on a new timeline.
    Promote,
    /// Stops.
    Shutdown,
}

/// How a restored server is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The number of its socket's name.
    pub port: u16,
    /// What it does at the target.
    pub then: Then,
}

/// What a target led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolved {
    /// The position.
    pub position: String,
    /// The store that was read.
    pub store: String,
    /// The incarnation's number in it.
    pub incarnation: u64,
}

/// A restore into a new place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Where to.
    pub target: Target,
    /// Which history.
    #[serde(default)]
    pub history: History,
    /// The directory that is written to.
    pub directory: String,
    /// Whether a server is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// What it led to when it was asked for, where whoever asked had read the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
}

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

/// A comparison of standbys with their primary. What is not said here the configuration says when it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// With this standby; with each whose address is known when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<String>,
    /// Of this database of the cluster alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Of these tables alone, as `schema.table`; of all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// Without these, besides those that the configuration leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The most that is read of each side, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
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
        let restore = |more: &str| {
            serde_json::from_str::<Restore>(&format!(
                "{{\"target\":\"latest\",\"directory\":\"/srv/r\"{more}}}"
            ))
        };
        assert_eq!(restore("").unwrap().target, Target::Latest);
        for more in
            [",\"in_place\":true", ",\"history\":{\"group\":1}", ",\"start\":{\"port\":1,\"then\":\"dance\"}"]
        {
            assert!(restore(more).is_err(), "{more}");
        }
    }
}
