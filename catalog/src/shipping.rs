//! How the shipping of a database stands, as its shipper last wrote it: one row per database.
//!
//! The row is the shipper's word at `updated_at`, never newer knowledge. What may be shown of it, and how long,
//! is decided in [`crate::lag`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use farshore_journal::{DatabaseName, Offset, Timeline};
use sqlx::query;

use crate::connection::{in_own_txn, in_snapshot};
use crate::packed::{Packed, packed};
use crate::row::{self, Read, at_known, big_known, branch, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The states of a database's shipping. The shipper sets each; all are persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShippingState {
    /// Not shipping yet: identity, slots or the first base backup are being made.
    Setup,
    /// The log is kept locally while no target confirms.
    Accumulating,
    /// Bytes flow and targets confirm.
    Connected,
    /// Bytes flow, but a promise does not hold.
    Degraded,
    /// Shipping is off on purpose; a gap is recorded.
    Bypass,
    /// A new base is being taken after a gap.
    Refreshing,
    /// A former primary is being brought back in line.
    Backfreshing,
    /// Stopped by an operator.
    Paused,
    /// Another shipper has taken over; this one has stopped.
    Fenced,
    /// Stopped by a fault that needs an operator.
    Failed,
}

impl ShippingState {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::Setup,
        Self::Accumulating,
        Self::Connected,
        Self::Degraded,
        Self::Bypass,
        Self::Refreshing,
        Self::Backfreshing,
        Self::Paused,
        Self::Fenced,
        Self::Failed,
    ];

    /// Its word, in the catalog and on screens.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Accumulating => "accumulating",
            Self::Connected => "connected",
            Self::Degraded => "degraded",
            Self::Bypass => "bypass",
            Self::Refreshing => "refreshing",
            Self::Backfreshing => "backfreshing",
            Self::Paused => "paused",
            Self::Fenced => "fenced",
            Self::Failed => "failed",
        }
    }

    /// Whether it is a shipper's last word: it stays true until another shipper writes.
    pub const fn is_stopped(self) -> bool {
        matches!(self, Self::Fenced | Self::Failed)
    }
}

impl fmt::Display for ShippingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for ShippingState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.word() == text)
            .ok_or_else(|| Error::corrupt("state", "a word that is no shipping state"))
    }
}

/// What a shipper last said of its database. `None` is "not known".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipping {
    /// The database.
    pub database: DatabaseName,
    /// Its state.
    pub state: ShippingState,
    /// The timeline of the offsets below.
    pub timeline: Option<Timeline>,
    /// Up to where our process has the bytes.
    pub received: Option<Offset>,
    /// Up to where the required targets have confirmed them.
    pub stored: Option<Offset>,
    /// Up to where the primary was told they are flushed.
    pub reported: Option<Offset>,
    /// Up to where the primary may recycle its log.
    pub released: Option<Offset>,
    /// The source's own end of log, when it was last heard.
    pub source: Option<Offset>,
    /// Bytes of log the primary keeps for us.
    pub retained_bytes: Option<u64>,
    /// Seconds until the primary's disk is full at the present rate.
    pub seconds_to_full: Option<u64>,
    /// How often the shipper renews this row and the source says something.
    pub heartbeat: Duration,
    /// When the source was last heard; in a state that has no source connection, when the shipper last vouched for
    /// the state.
    pub last_contact_at: Option<Time>,
    /// The time of the newest commit that is stored.
    pub last_stored_commit_at: Option<Time>,
    /// The time of the oldest commit that is received and not stored.
    pub oldest_unstored_commit_at: Option<Time>,
    /// When this was written.
    pub updated_at: Time,
    /// The node that wrote it.
    pub node: Option<String>,
}

impl Catalog {
    /// Records how shipping stands now.
    ///
    /// # Errors
    /// When the database is not known or the catalog is away.
    pub async fn shipping_put(&self, shipping: &Shipping) -> Result<()> {
        in_own_txn!(self, shipping_put_in_txn(shipping))
    }

    /// How shipping stood when its shipper last wrote.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn shipping_find(&self, database: &DatabaseName) -> Result<Option<Shipping>> {
        in_snapshot!(self, shipping_find_in_txn(database))
    }

    /// How shipping stood of every database when its shipper last wrote.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn shipping_list(&self) -> Result<Vec<Shipping>> {
        in_snapshot!(self, shipping_list_in_txn())
    }
}

/// As [`Catalog::shipping_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn shipping_list_in_txn(txn: &mut Txn) -> Result<Vec<Shipping>> {
    let statement = "select database_name, state, timeline, received, stored, reported, released, source_offset, \
                     retained_bytes, seconds_to_full, heartbeat_us, last_contact_at, last_stored_commit_at, \
                     oldest_unstored_commit_at, updated_at, node from shipping order by database_name";
    txn.rows("shipping_list", query(statement)).await?.iter().map(from_row).collect()
}

/// As [`Catalog::shipping_put`].
///
/// # Errors
/// When the database is not known or the catalog is away.
pub async fn shipping_put_in_txn(txn: &mut Txn, shipping: &Shipping) -> Result<()> {
    let statement = "insert into shipping (database_name, state, timeline, received, stored, reported, released, \
                     source_offset, retained_bytes, seconds_to_full, heartbeat_us, last_contact_at, \
                     last_stored_commit_at, oldest_unstored_commit_at, updated_at, node) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
                     on conflict (database_name) do update set state = excluded.state, \
                     timeline = excluded.timeline, received = excluded.received, stored = excluded.stored, \
                     reported = excluded.reported, released = excluded.released, \
                     source_offset = excluded.source_offset, retained_bytes = excluded.retained_bytes, \
                     seconds_to_full = excluded.seconds_to_full, heartbeat_us = excluded.heartbeat_us, \
                     last_contact_at = excluded.last_contact_at, \
                     last_stored_commit_at = excluded.last_stored_commit_at, \
                     oldest_unstored_commit_at = excluded.oldest_unstored_commit_at, \
                     updated_at = excluded.updated_at, node = excluded.node";
    let bound = query(statement)
        .bind(shipping.database.to_string())
        .bind(shipping.state.word())
        .bind(shipping.timeline.map(branch))
        .bind(at_known(shipping.received)?)
        .bind(at_known(shipping.stored)?)
        .bind(at_known(shipping.reported)?)
        .bind(at_known(shipping.released)?)
        .bind(at_known(shipping.source)?)
        .bind(big_known("retained size", shipping.retained_bytes)?)
        .bind(big_known("time to full", shipping.seconds_to_full)?)
        .bind(row::duration("heartbeat", shipping.heartbeat)?)
        .bind(shipping.last_contact_at.map(micros))
        .bind(shipping.last_stored_commit_at.map(micros))
        .bind(shipping.oldest_unstored_commit_at.map(micros))
        .bind(micros(shipping.updated_at))
        .bind(shipping.node.clone());
    txn.execute("shipping_put", bound).await.map(|_| ())
}

/// As [`Catalog::shipping_find`].
///
/// # Errors
/// When the catalog is away.
pub async fn shipping_find_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Option<Shipping>> {
    let statement = "select database_name, state, timeline, received, stored, reported, released, source_offset, \
                     retained_bytes, seconds_to_full, heartbeat_us, last_contact_at, last_stored_commit_at, \
                     oldest_unstored_commit_at, updated_at, node from shipping where database_name = $1";
    let row = txn.row("shipping_find", query(statement).bind(database.to_string())).await?;
    row.as_ref().map(from_row).transpose()
}

/// What every shipper last said.
pub(crate) async fn shipping_all_in_txn(txn: &mut Txn) -> Result<Vec<Shipping>> {
    const ALL: Packed = packed!("shipping"; database_name, state, timeline, received, stored, reported, released, source_offset,
        retained_bytes, seconds_to_full, heartbeat_us, last_contact_at, last_stored_commit_at, oldest_unstored_commit_at,
        updated_at; node);
    txn.packed("shipping_all", ALL.columns, query(ALL.statement), from_row).await
}

pub(crate) fn from_row(row: &impl Read) -> Result<Shipping> {
    Ok(Shipping {
        database: row.parsed("database_name")?,
        state: row.str("state")?.parse()?,
        timeline: row.maybe_timeline("timeline")?,
        received: row.maybe_offset("received")?,
        stored: row.maybe_offset("stored")?,
        reported: row.maybe_offset("reported")?,
        released: row.maybe_offset("released")?,
        source: row.maybe_offset("source_offset")?,
        retained_bytes: row.maybe_count("retained_bytes")?,
        seconds_to_full: row.maybe_count("seconds_to_full")?,
        heartbeat: Duration::from_micros(row.count("heartbeat_us")?),
        last_contact_at: row.maybe_time("last_contact_at")?,
        last_stored_commit_at: row.maybe_time("last_stored_commit_at")?,
        oldest_unstored_commit_at: row.maybe_time("oldest_unstored_commit_at")?,
        updated_at: row.time("updated_at")?,
        node: row.maybe_text("node")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_from_its_word() {
        for state in ShippingState::ALL {
            assert_eq!(state.word().parse::<ShippingState>().unwrap(), state);
        }
        assert!("unknown".parse::<ShippingState>().is_err());
    }
}
