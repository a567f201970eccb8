//! Drills: what each came to, with the text that its certificate signs.
//!
//! What always holds: what is certified is not replaced, least of all by what is not; a statement is kept as the text that was signed, so that its signature can be checked from here too.
//! What it does not do: check a signature (`journal::format::Certificate` does), or judge a drill.

use std::time::Duration;

use farshore_journal::format::certificate::DrillVerdict;
use farshore_journal::format::{Certificate, FormatError, Signature, VerifyKey};
use farshore_journal::{DatabaseName, DrillId, IncarnationId};
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::proof;
use crate::row::{Read as _, big, duration, micros};
use crate::{Catalog, Result, Time, Txn};

/// The most drills that one call gives.
const PAGE: u32 = 1000;

/// One drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    /// Its id.
    pub id: DrillId,
    /// The database.
    pub database: DatabaseName,
    /// The store's name.
    pub store: String,
    /// The incarnation.
    pub incarnation: IncarnationId,
    /// How it ended.
    pub verdict: DrillVerdict,
    /// When it began.
    pub began: Time,
    /// When it was over.
    pub ended: Time,
    /// How long the recovery took; none when it was not come to its end.
    pub recovery: Option<Duration>,
    /// How long it may take; none where nothing is stated.
    pub objective: Option<Duration>,
    /// How long of it log was replayed, and how much: in bytes of log. None when it was not come to, or by an earlier build.
    pub replayed: Option<(Duration, u64)>,
    /// The statement's text.
    pub statement: String,
    /// The key that signed it, and the signature.
    pub signed: Option<(VerifyKey, Signature)>,
    /// Why there is no certificate.
    pub uncertified: Option<String>,
}

impl Drill {
    /// Its certificate, as it is in the store; `None` where nobody signed it. Whether the signature holds is not looked at here.
    ///
    /// # Errors
    /// When what the catalog has is none.
    pub fn certificate(&self) -> std::result::Result<Option<Certificate>, FormatError> {
        self.signed.map(|(key, signature)| Certificate::of_parts(&self.statement, key, signature)).transpose()
    }
}

/// Which drills are listed: newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrillFilter {
    /// Of this database.
    pub database: Option<DatabaseName>,
    /// That did not begin before this.
    pub since: Option<Time>,
    /// Older than this one.
    pub before: Option<(Time, DrillId)>,
}

impl DrillFilter {
    /// All of a database, or of all.
    pub fn of(database: Option<&DatabaseName>) -> Self {
        Self { database: database.cloned(), ..Self::default() }
    }
}

impl Catalog {
    /// Records a drill.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn drill_put(&self, drill: &Drill) -> Result<()> {
        in_local_txn!(self, drill_put_in_txn(drill))
    }

    /// One drill.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn drill_get(&self, id: DrillId) -> Result<Option<Drill>> {
        in_snapshot!(self, drill_get_in_txn(id))
    }

    /// Drills, newest first, at most 1000.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn drill_list(&self, filter: &DrillFilter, limit: u32) -> Result<Vec<Drill>> {
        in_snapshot!(self, drill_list_in_txn(filter, limit))
    }
}

/// As [`Catalog::drill_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn drill_put_in_txn(txn: &mut Txn, drill: &Drill) -> Result<()> {
    let statement = "insert into drill (id, database_name, store, incarnation, verdict, began_at, ended_at, recovery_us, \
                     objective_us, statement, signing_key, signature, uncertified, replay_us, replay_bytes) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
                     on conflict (id) do update set database_name = excluded.database_name, store = excluded.store, \
                     incarnation = excluded.incarnation, verdict = excluded.verdict, began_at = excluded.began_at, \
                     ended_at = excluded.ended_at, recovery_us = excluded.recovery_us, \
                     objective_us = excluded.objective_us, statement = excluded.statement, \
                     signing_key = excluded.signing_key, signature = excluded.signature, uncertified = excluded.uncertified, \
                     replay_us = excluded.replay_us, replay_bytes = excluded.replay_bytes \
                     where drill.signature is null";
    let bound = query(statement)
        .bind(drill.id.to_string())
        .bind(drill.database.to_string())
        .bind(drill.store.clone())
        .bind(drill.incarnation.to_string())
        .bind(drill.verdict.word())
        .bind(micros(drill.began))
        .bind(micros(drill.ended))
        .bind(drill.recovery.map(|time| duration("duration", time)).transpose()?)
        .bind(drill.objective.map(|time| duration("duration", time)).transpose()?)
        .bind(drill.statement.clone())
        .bind(drill.signed.map(|(key, _)| key.to_string()))
        .bind(drill.signed.map(|(_, signature)| signature.to_string()))
        .bind(drill.uncertified.clone())
        .bind(drill.replayed.map(|(took, _)| duration("duration", took)).transpose()?)
        .bind(drill.replayed.map(|(_, bytes)| big("bytes", bytes)).transpose()?);
    txn.execute("drill_put", bound).await.map(|_| ())
}

/// As [`Catalog::drill_get`].
///
/// # Errors
/// When the catalog is away.
pub async fn drill_get_in_txn(txn: &mut Txn, id: DrillId) -> Result<Option<Drill>> {
    let statement = "select id, database_name, store, incarnation, verdict, began_at, ended_at, recovery_us, objective_us, \
                     statement, signing_key, signature, uncertified, replay_us, replay_bytes from drill where id = $1";
    let row = txn.row("drill_get", query(statement).bind(id.to_string())).await?;
    row.as_ref().map(from_row).transpose()
}

/// As [`Catalog::drill_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn drill_list_in_txn(txn: &mut Txn, filter: &DrillFilter, limit: u32) -> Result<Vec<Drill>> {
    let (before, id) = match filter.before {
        Some((time, id)) => (micros(time), id.to_string()),
        None => (i64::MAX, String::new()),
    };
    let mut bound = query(if filter.database.is_some() { text::LIST_OF } else { text::LIST })
        .bind(filter.since.map_or(i64::MIN, micros))
        .bind(before)
        .bind(id)
        .bind(i64::from(limit.min(PAGE)));
    if let Some(database) = &filter.database {
        bound = bound.bind(database.to_string());
    }
    txn.rows("drill_list", bound).await?.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Drill> {
    let time = |micros: Option<u64>| micros.map(Duration::from_micros);
    Ok(Drill {
        id: row.parsed("id")?,
        database: row.parsed("database_name")?,
        store: row.text("store")?,
        incarnation: row.parsed("incarnation")?,
        verdict: proof::verdict(&row.text("verdict")?)?,
        began: row.time("began_at")?,
        ended: row.time("ended_at")?,
        recovery: time(row.maybe_count("recovery_us")?),
        objective: time(row.maybe_count("objective_us")?),
        replayed: time(row.maybe_count("replay_us")?).zip(row.maybe_count("replay_bytes")?),
        statement: row.text("statement")?,
        signed: row.maybe_parsed("signing_key")?.zip(row.maybe_parsed("signature")?),
        uncertified: row.maybe_text("uncertified")?,
    })
}

/// The lists, so that the plan test sees the very texts that run. Each has a text of its own, so that each searches an index: statements are long, and one
/// text for all reads what it does not list.
pub(crate) mod text {
    macro_rules! select {
        ($rest:literal) => {
            concat!(
                "select id, database_name, store, incarnation, verdict, began_at, ended_at, recovery_us, objective_us, \
                 statement, signing_key, signature, uncertified, replay_us, replay_bytes from drill ",
                $rest
            )
        };
    }

    pub(crate) const LIST: &str = select!(
        "where began_at >= $1 and (began_at, id) < ($2, $3) order by began_at desc, id desc limit $4"
    );
    pub(crate) const LIST_OF: &str = select!(
        "where database_name = $5 and began_at >= $1 and (began_at, id) < ($2, $3) \
         order by began_at desc, id desc limit $4"
    );
}
