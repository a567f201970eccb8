//! How the throttles of each database stand, as its shipper last said.
//!
//! What always holds: a rule that nobody spoke of lately is `unknown`, whatever it was; what is written of a database's rules replaces
//! all that was written of them before, so that a rule that is no more is not shown.

use std::time::Duration;

use farshore_journal::DatabaseName;
use serde::{Serialize, Serializer};
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::error::Error;
use crate::lag::is_silent;
use crate::row::{Read, big, big_known, duration, micros};
use crate::{Catalog, Result, Time, Txn};

pub mod sample;

/// How often rules are judged, and what they come to is written.
pub const THROTTLE_HEARTBEAT: Duration = Duration::from_secs(10);

/// How a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleState {
    /// It is outside its hours.
    Off,
    /// What it tests for does not hold.
    Quiet,
    /// What it tests for holds.
    Active,
    /// What it tests is not known: it does nothing, and nobody says that all is well.
    Unknown,
}

impl RuleState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Off, Self::Quiet, Self::Active, Self::Unknown];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Quiet => "quiet",
            Self::Active => "active",
            Self::Unknown => "unknown",
        }
    }

    fn read(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|state| state.word() == word);
        found.ok_or_else(|| Error::corrupt("state", "a word that is no state of a rule"))
    }
}

impl Serialize for RuleState {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// A rule of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: RuleState,
    /// Since when.
    pub since: Time,
    /// What was measured, in words.
    pub why: String,
    /// The limit that it sets while it is active, in bytes a second.
    pub bandwidth: Option<u64>,
    /// Whether people are told of it.
    pub notifies: bool,
    /// Whether what it tests for held when that was last known.
    pub past: Option<bool>,
    /// When it last acted.
    pub fired_at: Option<Time>,
}

/// The throttles of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttles {
    /// The database.
    pub database: DatabaseName,
    /// The limit that holds now, in bytes a second.
    pub bandwidth: Option<u64>,
    /// Bytes that went to its stores since the process began.
    pub sent: u64,
    /// How long these waited for a limit, in all.
    pub waited: Duration,
    /// Which node says so.
    pub node: String,
    /// When it did.
    pub heard_at: Time,
    /// Its rules, by name.
    pub rules: Vec<Rule>,
}

impl Throttles {
    /// Whether nobody spoke of them lately.
    pub fn is_silent(&self, now: Time) -> bool {
        is_silent(now, Some(self.heard_at), THROTTLE_HEARTBEAT)
    }

    /// How a rule is shown now.
    pub fn shown(&self, rule: &Rule, now: Time) -> RuleState {
        if self.is_silent(now) { RuleState::Unknown } else { rule.state }
    }
}

impl Catalog {
    /// Records how a database's throttles stand; of a database that is not known here nothing.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn throttle_put(&self, throttles: &Throttles) -> Result<()> {
        in_local_txn!(self, throttle_put_in_txn(throttles))
    }

    /// How the throttles of all databases stood when somebody last said so, by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn throttle_list(&self) -> Result<Vec<Throttles>> {
        in_snapshot!(self, throttle_list_in_txn())
    }
}

/// As [`Catalog::throttle_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn throttle_put_in_txn(txn: &mut Txn, throttles: &Throttles) -> Result<()> {
    let statement = "insert into throttle_limit (database_name, bandwidth, sent, waited_us, node, heard_at) \
                     select name, $2, $3, $4, $5, $6 from farshore_database where name = $1 \
                     on conflict (database_name) do update set bandwidth = excluded.bandwidth, sent = excluded.sent, \
                     waited_us = excluded.waited_us, node = excluded.node, heard_at = excluded.heard_at";
    let name = throttles.database.to_string();
    let bound = query(statement)
        .bind(name.clone())
        .bind(big_known("bandwidth", throttles.bandwidth)?)
        .bind(big("sent", throttles.sent)?)
        .bind(duration("waited", throttles.waited)?)
        .bind(throttles.node.clone())
        .bind(micros(throttles.heard_at));
    if txn.execute("throttle_put", bound).await? == 0 {
        return Ok(());
    }
    let forget = query("delete from throttle where database_name = $1").bind(name.clone());
    txn.execute("throttle_put", forget).await?;
    let statement = "insert into throttle (database_name, rule, state, since, why, bandwidth, notifies, past, fired_at) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    for rule in &throttles.rules {
        let bound = query(statement)
            .bind(name.clone())
            .bind(rule.name.clone())
            .bind(rule.state.word())
            .bind(micros(rule.since))
            .bind(rule.why.clone())
            .bind(big_known("bandwidth", rule.bandwidth)?)
            .bind(i64::from(rule.notifies))
            .bind(rule.past.map(i64::from))
            .bind(rule.fired_at.map(micros));
        txn.execute("throttle_put", bound).await?;
    }
    Ok(())
}

/// As [`Catalog::throttle_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn throttle_list_in_txn(txn: &mut Txn) -> Result<Vec<Throttles>> {
    let statement = "select database_name, bandwidth, sent, waited_us, node, heard_at from throttle_limit \
                     order by database_name";
    let mut all = Vec::new();
    for row in &txn.rows("throttle_list", query(statement)).await? {
        all.push(Throttles {
            database: row.parsed("database_name")?,
            bandwidth: row.maybe_count("bandwidth")?,
            sent: row.count("sent")?,
            waited: Duration::from_micros(row.count("waited_us")?),
            node: row.text("node")?,
            heard_at: row.time("heard_at")?,
            rules: Vec::new(),
        });
    }
    let statement = "select database_name, rule, state, since, why, bandwidth, notifies, past, fired_at from throttle \
                     order by database_name, rule";
    for row in &txn.rows("throttle_list", query(statement)).await? {
        let database: DatabaseName = row.parsed("database_name")?;
        let Some(of) = all.iter_mut().find(|one| one.database == database) else { continue };
        of.rules.push(Rule {
            name: row.text("rule")?,
            state: RuleState::read(row.str("state")?)?,
            since: row.time("since")?,
            why: row.text("why")?,
            bandwidth: row.maybe_count("bandwidth")?,
            notifies: row.flag("notifies")?,
            past: row.maybe_integer("past")?.map(|past| past != 0),
            fired_at: row.maybe_time("fired_at")?,
        });
    }
    Ok(all)
}
