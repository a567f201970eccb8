//! `farshore check` as a pure function: facts in, findings out.
//!
//! What always holds: a fact that is not known becomes a finding of level `unknown`, never `ok`; every problem and
//! every warning says how to mend it; every code stands in `docs/messages.md`. Facts are gathered elsewhere, by
//! whoever speaks to the server and the stores.

pub mod connection;
pub mod facts;
mod heads;
mod settings;
mod spool;
pub mod sqlite;
mod stores;
mod surroundings;

use std::fmt;

use serde::Serialize;

pub use facts::CheckFacts;
use stores::Origin;

/// How a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Looked at and right.
    Ok,
    /// Works, and should be better.
    Warning,
    /// Could not be looked at.
    Unknown,
    /// Something promised does not hold.
    Problem,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its stable name.
    pub code: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// How to mend it; `None` only when it is ok.
    pub mend: Option<String>,
}

impl Finding {
    fn ok(code: &'static str, what: impl Into<String>) -> Self {
        Self { code, level: Level::Ok, what: what.into(), mend: None }
    }

    fn warning(code: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { code, level: Level::Warning, what: what.into(), mend: Some(mend.into()) }
    }

    fn problem(code: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { code, level: Level::Problem, what: what.into(), mend: Some(mend.into()) }
    }

    fn unknown(code: &'static str, what: impl fmt::Display) -> Self {
        Self {
            code,
            level: Level::Unknown,
            what: format!("not known: {what}"),
            mend: Some(
                "mend the connection, role and store findings first; it could not be looked at".to_owned(),
            ),
        }
    }

    fn unknown_until(code: &'static str, what: impl fmt::Display, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..Self::unknown(code, what) }
    }
}

/// Every code a finding can have, in the order they are reported.
pub const CODES: &[&str] = &[
    "connection.sql",
    "connection.replication",
    "connection.encrypted",
    "connection.cluster",
    "server.version",
    "server.primary",
    "server.settings",
    "server.service",
    "settings.wal_level",
    "settings.fsync",
    "settings.full_page_writes",
    "settings.data_checksums",
    "settings.max_replication_slots",
    "settings.max_wal_senders",
    "settings.slots_in_use",
    "settings.max_slot_wal_keep_size",
    "settings.idle_replication_slot_timeout",
    "protection.guard",
    "settings.synchronous_commit",
    "role.rights",
    "role.superuser",
    "role.replication",
    "role.settings",
    "role.stats",
    "role.points",
    "slots.state",
    "slots.standby",
    "space.pg_wal",
    "spool.directory",
    "spool.apart",
    "server.clock",
    "sqlite.file",
    "sqlite.database",
    "sqlite.journal_mode",
    "sqlite.page_size",
    "sqlite.rights",
    "sqlite.file_system",
    "sqlite.locking",
    "sqlite.wal",
    "sqlite.table",
    "space.sqlite",
    "space.spool",
    "sqlite.stores",
    "store.reachable",
    "store.writable",
    "store.creates_once",
    "store.journal",
    "store.clock",
    "store.space",
    "store.apart",
    "keys.encryption",
    "keys.apart",
    "keys.identity",
    "keys.opens",
    "heads.signed",
    "heads.newest",
    "restore.programs",
];

/// Judges everything that is known of a PostgreSQL database; of a SQLite database [`sqlite::findings`] does.
pub fn findings(facts: &CheckFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    connection::judge(facts, &mut findings);
    settings::judge(facts, &mut findings);
    surroundings::judge_role(facts, &mut findings);
    surroundings::judge_slots(facts, &mut findings);
    surroundings::judge_standby_slots(facts, &mut findings);
    surroundings::judge_space(facts, &mut findings);
    let is_asked = facts.cluster.is_some();
    facts.spool.iter().for_each(|spool| spool::judge(spool, is_asked, &mut findings));
    surroundings::judge_clock("server.clock", "the server's clock", facts.clock_difference, &mut findings);
    if facts.stores.is_empty() {
        findings.push(Finding::unknown("store.reachable", "any store of this database"));
    }
    for store in &facts.stores {
        stores::judge(store, Origin::Cluster(facts.cluster), &mut findings);
    }
    heads::judge(facts.heads.as_ref(), facts.signed.as_deref(), &mut findings);
    surroundings::judge_programs(facts.restore_programs, &mut findings);
    findings
}

/// The worst level among findings; without any finding nothing is known.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Unknown)
}

#[cfg(test)]
mod tests;
