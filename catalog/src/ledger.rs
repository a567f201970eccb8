//! The exposure ledger: from when to when each promise to a database did not hold, or was not known to hold, and why.
//!
//! What always holds: events are only appended, dense from 1, each with a digest of itself and of the one before it; what is decided and what is kept of it
//! are one transaction, so a crash loses whole looks, and the time of those is an entry (`decide.rs`). A look at a clock that stepped is no order: numbers are.
//! What it does not do: it does not look; whoever does says what he saw.

mod decide;
mod entry;
mod event;
mod walk;

use std::collections::BTreeMap;

use chrono::Utc;
use farshore_journal::DatabaseName;
use farshore_journal::format::EntryDigest;
use sqlx::any::AnyRow;
use sqlx::query;

pub use self::decide::{BEARABLE, Open, SETTLE, Seen, WITNESS, Watch, look};
pub use self::entry::{Entry, entries, is_over};
pub use self::event::{Event, What, Why, Whys};
pub use self::walk::walk;
use crate::activity::Verified;
use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, big, big_known, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The promise that is kept a ledger of: no more than this is not stored.
pub const RPO: &str = "rpo";
/// The other one: commits wait until they are stored, in `sync`.
pub const SYNC: &str = "sync";

/// An event with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Its place in its database's ledger, from 1.
    pub number: u64,
    /// What it says.
    pub event: Event,
    /// The digest of the one before.
    pub former: Option<EntryDigest>,
    /// Its own.
    pub digest: EntryDigest,
}

/// A database's ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Its events, oldest first.
    pub events: Vec<Numbered>,
    /// What the last look at each promise found.
    pub watches: BTreeMap<String, Watch>,
}

impl Catalog {
    /// Takes a look at a promise into its database's ledger: what was opened, widened or ended, and that it was looked.
    ///
    /// # Errors
    /// When the catalog is away: nothing of the look is kept then, and its time is an entry later.
    pub async fn exposure_look(
        &self,
        database: &DatabaseName,
        promise: &str,
        objective_ms: u64,
        seen: Seen,
        now: Time,
    ) -> Result<Vec<Event>> {
        in_local_txn!(self, exposure_look_in_txn(database, promise, objective_ms, seen, now))
    }

    /// Walks a database's ledger, and finds what was changed, removed or put elsewhere.
    ///
    /// # Errors
    /// When the catalog is away, or a row does not read.
    pub async fn ledger_verify(&self, database: &DatabaseName) -> Result<Verified> {
        in_snapshot!(self, ledger_verify_in_txn(database))
    }

    /// The ledger of a database.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn ledger_of(&self, database: &DatabaseName) -> Result<Ledger> {
        in_snapshot!(self, ledger_of_in_txn(database))
    }
}

/// As [`Catalog::exposure_look`].
///
/// # Errors
/// When the catalog is away.
pub async fn exposure_look_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
    promise: &str,
    objective_ms: u64,
    seen: Seen,
    now: Time,
) -> Result<Vec<Event>> {
    take_end(txn, database).await?;
    let mut before = take_watch(txn, database, promise).await?;
    if let Some(kept) = before.as_mut().and_then(|watch| watch.under(objective_ms)) {
        append(txn, database, &Event { promise: promise.to_owned(), ..kept }).await?;
    }
    let (mut watch, decided) = look(before.as_ref(), seen, now);
    watch.objective_ms = Some(objective_ms);
    for event in &decided {
        let event = Event { promise: promise.to_owned(), objective_ms, ..event.clone() };
        append(txn, database, &event).await?;
    }
    put_watch(txn, database, promise, &watch).await?;
    Ok(decided)
}

/// Takes the ledger's row: whoever appends takes it first.
pub(crate) async fn take_end(txn: &mut Txn, database: &DatabaseName) -> Result<()> {
    crate::chronicle::take_in_txn(txn, &farshore_journal::format::Chronicle::Exposure(database.clone()))
        .await
        .map(drop)
}

async fn take_watch(txn: &mut Txn, database: &DatabaseName, promise: &str) -> Result<Option<Watch>> {
    let statement = "insert into exposure_watch (database_name, promise, looks) values ($1, $2, 0) \
                     on conflict (database_name, promise) do nothing";
    let bound = query(statement).bind(database.to_string()).bind(promise.to_owned());
    txn.execute("exposure_look", bound).await?;
    let statement = "update exposure_watch set looks = looks + 1 where database_name = $1 and promise = $2 returning body";
    let bound = query(statement).bind(database.to_string()).bind(promise.to_owned());
    let row = txn.row("exposure_look", bound).await?;
    let body = row.map(|row| row.maybe_text("body")).transpose()?.flatten();
    body.map(|body| serde_json::from_str(&body).map_err(|why| Error::corrupt("body", why))).transpose()
}

pub(crate) async fn put_watch(
    txn: &mut Txn,
    database: &DatabaseName,
    promise: &str,
    watch: &Watch,
) -> Result<()> {
    let body = serde_json::to_string(watch).map_err(|why| Error::corrupt("body", why))?;
    let statement = "insert into exposure_watch (database_name, promise, looks, body) values ($1, $2, 1, $3) \
                     on conflict (database_name, promise) do update set body = excluded.body";
    let bound = query(statement).bind(database.to_string()).bind(promise.to_owned()).bind(body);
    txn.execute("exposure_look", bound).await.map(drop)
}

/// Appends an event behind the ledger's end, whose row was taken.
pub(crate) async fn append(txn: &mut Txn, database: &DatabaseName, event: &Event) -> Result<()> {
    let end = end(txn, database).await?;
    append_behind(txn, database, end, event).await.map(drop)
}

/// Appends an event behind an end; the end then.
pub(crate) async fn append_behind(
    txn: &mut Txn,
    database: &DatabaseName,
    end: Option<(u64, EntryDigest)>,
    event: &Event,
) -> Result<(u64, EntryDigest)> {
    let (number, former) = end.map_or((1, None), |(number, digest)| (number + 1, Some(digest)));
    let event = event.clone().rounded();
    let digest = event.digest(former, number, database);
    insert(txn, database, &Numbered { number, event, former, digest }).await?;
    Ok((number, digest))
}

/// The number and digest of the newest event.
pub(crate) async fn end(txn: &mut Txn, database: &DatabaseName) -> Result<Option<(u64, EntryDigest)>> {
    let statement =
        "select number, digest from exposure_event where database_name = $1 order by number desc limit 1";
    let row = txn.row("exposure_end", query(statement).bind(database.to_string())).await?;
    row.map(|row| Ok((row.count("number")?, row.parsed("digest")?))).transpose()
}

/// Writes an event at its number; one that is there stays. How many were written.
pub(crate) async fn insert(txn: &mut Txn, database: &DatabaseName, one: &Numbered) -> Result<u64> {
    let statement = "insert into exposure_event (database_name, number, at_us, promise, what, from_us, until_us, whys, worst_ms, \
                     objective_ms, former, digest) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
                     on conflict (database_name, number) do nothing";
    let event = &one.event;
    let bound = query(statement)
        .bind(database.to_string())
        .bind(big("event number", one.number)?)
        .bind(micros(event.at))
        .bind(event.promise.clone())
        .bind(event.what.word())
        .bind(micros(event.from))
        .bind(micros(event.until))
        .bind(event.whys.to_string())
        .bind(big_known("worst exposure", event.worst_ms)?)
        .bind(big("objective", event.objective_ms)?)
        .bind(one.former.map(|former| former.to_string()).unwrap_or_default())
        .bind(one.digest.to_string());
    txn.execute("exposure_append", bound).await
}

/// As [`Catalog::ledger_verify`].
///
/// # Errors
/// As there.
pub async fn ledger_verify_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Verified> {
    let events = events_in_txn(txn, database, 1, u32::MAX).await?;
    let statement = "select number from chronicle_seal where chronicle = $1 order by number desc limit 1";
    let of = farshore_journal::format::Chronicle::Exposure(database.clone()).to_string();
    let row = txn.row("ledger_verify", query(statement).bind(of)).await?;
    let sealed_to = row.map_or(Ok(0), |row| row.count("number"))?;
    Ok(walk(database, &events, sealed_to))
}

/// As [`Catalog::ledger_of`].
///
/// # Errors
/// When the catalog is away.
pub async fn ledger_of_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Ledger> {
    let events = events_in_txn(txn, database, 1, u32::MAX).await?;
    let statement = "select promise, body from exposure_watch where database_name = $1 and body is not null";
    let rows = txn.rows("ledger_of", query(statement).bind(database.to_string())).await?;
    let read = |row: &AnyRow| {
        let watch = serde_json::from_str(&row.text("body")?).map_err(|why| Error::corrupt("body", why))?;
        Ok((row.text("promise")?, watch))
    };
    let watches = rows.iter().map(read).collect::<Result<_>>()?;
    Ok(Ledger { events, watches })
}

/// Events from a number on, oldest first.
pub(crate) async fn events_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
    from: u64,
    limit: u32,
) -> Result<Vec<Numbered>> {
    let statement = "select number, at_us, promise, what, from_us, until_us, whys, worst_ms, objective_ms, former, digest \
                     from exposure_event where database_name = $1 and number >= $2 order by number limit $3";
    let bound =
        query(statement).bind(database.to_string()).bind(big("event number", from)?).bind(i64::from(limit));
    txn.rows("exposure_events", bound).await?.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Numbered> {
    let word = |column, why: String| Error::corrupt(column, why);
    let worst = row.maybe_integer("worst_ms")?;
    let former = row.text("former")?;
    Ok(Numbered {
        number: row.count("number")?,
        event: Event {
            at: row.time("at_us")?,
            promise: row.text("promise")?,
            what: row.text("what")?.parse().map_err(|why| word("what", why))?,
            from: row.time("from_us")?,
            until: row.time("until_us")?,
            whys: row.text("whys")?.parse().map_err(|why| word("whys", why))?,
            worst_ms: worst
                .map(|worst| u64::try_from(worst).map_err(|why| word("worst_ms", why.to_string())))
                .transpose()?,
            objective_ms: row.count("objective_ms")?,
        },
        former: (!former.is_empty())
            .then(|| former.parse().map_err(|why| Error::unreadable("former", &why)))
            .transpose()?,
        digest: row.parsed("digest")?,
    })
}

/// Behind a ledger that was taken back: what it says at its end is all that is known, and the time since then is looked at by nobody.
pub(crate) async fn watch_anew(
    txn: &mut Txn,
    database: &DatabaseName,
    mut end: Option<(u64, EntryDigest)>,
    taken: &[Numbered],
    all: &[Numbered],
) -> Result<()> {
    let mut promises: Vec<&str> = taken.iter().map(|one| one.event.promise.as_str()).collect();
    promises.sort_unstable();
    promises.dedup();
    for promise in promises {
        let of = |events: &[Numbered]| -> Vec<Event> {
            events.iter().map(|one| one.event.clone()).filter(|event| event.promise == promise).collect()
        };
        let Some((watch, events)) = Watch::behind(&of(taken), &of(all), Utc::now()) else { continue };
        let objective_ms = all.iter().rev().find(|one| one.event.promise == promise);
        let objective_ms = objective_ms.map_or(0, |one| one.event.objective_ms);
        for event in events {
            let event = Event { promise: promise.to_owned(), objective_ms, ..event };
            end = Some(append_behind(txn, database, end, &event).await?);
        }
        put_watch(txn, database, promise, &watch).await?;
    }
    Ok(())
}
