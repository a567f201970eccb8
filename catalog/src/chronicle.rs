//! Chronicles: the records of the catalog that no store object implies, as the stores keep them, and taking them back.
//!
//! What always holds: an entry that is given out has the digest that the catalog keeps; what is taken back was held against its digests and is written in one
//! transaction with the record's end behind it, and what this catalog wrote before goes on behind that. Nothing that has a place is ever replaced.
//! What it does not do: it reads no store (the service and `catalog rebuild` do).

mod own;
mod said;
mod settling;

use chrono::Utc;
use farshore_journal::format::{Chronicle, EntryDigest, LifeId};
use sqlx::query;

pub use self::own::{Own, unsealed_anywhere};
use self::own::{digest_in_txn, own_in_txn};
pub use self::said::{Kept, Said};
pub use self::settling::{chronicle_fill_in_txn, chronicle_settle_in_txn};
use crate::activity;
use crate::connection::{in_local_txn, in_snapshot};
use crate::ledger;
use crate::row::{Read as _, big, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The most entries that one transaction takes back: a row or two each, well within the catalog's deadline on either kind of catalog. Others write in between.
pub const BATCH: usize = 200;

/// Where a chronicle stands in this catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the stores were asked for what an earlier catalog wrote: before that nothing is sealed.
    pub settled: bool,
    /// The number of the first entry that this catalog wrote, or will.
    pub first: u64,
    /// Whose entries those are, once there is one.
    pub life: Option<LifeId>,
    /// The number of the newest entry, 0 without one.
    pub last: u64,
}

/// What an earlier catalog wrote, as a store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// The number of its newest entry.
    pub last: u64,
    /// That entry's digest.
    pub digest: EntryDigest,
    /// Its entries as far as they could be opened, each held against its digest.
    pub entries: Vec<Kept>,
    /// The digests of its entries as far as they are known, opened or not, by rising number.
    pub marks: Vec<(u64, EntryDigest)>,
    /// When the store got its newest page.
    pub written: Time,
}

/// What the stores have of a chronicle that a catalog is to go on from.
#[derive(Debug, Clone, Copy)]
pub enum Before<'a> {
    /// Nothing.
    Nothing,
    /// Pages, of which none counts: damaged, foreign, or signed by nobody who is known.
    Unvouched {
        /// When the store got the oldest of them, by its clock.
        since: Time,
        /// What is promised now, in milliseconds; of activity 0.
        objective_ms: u64,
    },
    /// This.
    Former(&'a Former),
}

/// What settling came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was settled before.
    Before,
    /// Nothing of an earlier catalog was there.
    Nothing,
    /// The end of what was there is an entry of this catalog: it is the one that wrote it.
    Own,
    /// What is there counts for nothing. The ledger says that nobody vouches for the time since then.
    Unvouched,
    /// What was there stands before all that this catalog writes.
    TakenBack {
        /// The number of its newest entry.
        last: u64,
        /// How many entries of it could be opened; of those the newest are in the catalog.
        entries: u64,
    },
}

/// How far a store has a chronicle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The chronicle's name.
    pub chronicle: String,
    /// The store's name in the configuration.
    pub store: String,
    /// The number of the entry from which on it holds all up to `number`: more than 1 where it lacks what is before.
    pub first: u64,
    /// The same as it was once: lower than `first` while it does not have any more what it confirmed.
    pub once: u64,
    /// The number of the newest entry that it confirmed, 0 when none.
    pub number: u64,
    /// That entry's digest; empty when none.
    pub digest: String,
    /// When that was written.
    pub at: Time,
    /// What last went wrong; cleared by what goes well.
    pub trouble: Option<String>,
}

impl Seal {
    /// How many of so many entries the store is not known to hold.
    pub const fn lacks(&self, last: u64) -> u64 {
        let held = if self.number == 0 { 0 } else { (self.number + 1).saturating_sub(self.first) };
        last.saturating_sub(held)
    }
}

impl Catalog {
    /// Where a chronicle stands.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn chronicle_standing(&self, chronicle: &Chronicle) -> Result<Standing> {
        in_snapshot!(self, chronicle_standing_in_txn(chronicle))
    }

    /// Entries from a number on, oldest first.
    ///
    /// # Errors
    /// When the catalog is away, or an entry has no digest or another than what it says.
    pub async fn chronicle_entries(&self, chronicle: &Chronicle, from: u64, limit: u32) -> Result<Vec<Kept>> {
        in_snapshot!(self, chronicle_entries_in_txn(chronicle, from, limit))
    }

    /// Takes what an earlier catalog wrote before all that this one does, once.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn chronicle_settle(&self, chronicle: &Chronicle, before: Before<'_>) -> Result<Settled> {
        in_local_txn!(self, chronicle_settle_in_txn(chronicle, before))
    }

    /// Adds entries that an earlier catalog wrote and that are not here yet, where an entry that is here names this one as the one before it. How many were added;
    /// `None` where none names it. That the entries lead to it whoever calls has seen; at most [`BATCH`] of them.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn chronicle_fill(
        &self,
        chronicle: &Chronicle,
        leads_to: (u64, EntryDigest),
        entries: &[Kept],
    ) -> Result<Option<u64>> {
        in_local_txn!(self, chronicle_fill_in_txn(chronicle, leads_to, entries))
    }

    /// The digests of what is here of a chronicle, up to its newest entry.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn chronicle_own(&self, chronicle: &Chronicle) -> Result<Own> {
        in_snapshot!(self, own_in_txn(chronicle))
    }

    /// The digest of an entry, as it is here now: its own, or what the one behind it names; `None` where neither is here.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn chronicle_digest(&self, chronicle: &Chronicle, number: u64) -> Result<Option<EntryDigest>> {
        in_snapshot!(self, digest_in_txn(chronicle, number))
    }

    /// Says how far a store has a chronicle.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn seal_put(&self, seal: &Seal) -> Result<()> {
        in_local_txn!(self, seal_put_in_txn(seal))
    }

    /// Says what keeps a store from having more of a chronicle, and leaves standing how far it has it.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn seal_trouble(
        &self,
        chronicle: &Chronicle,
        store: &str,
        trouble: Option<&str>,
    ) -> Result<()> {
        in_local_txn!(self, seal_trouble_in_txn(chronicle, store, trouble))
    }

    /// How far a store has a chronicle.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn seal_of(&self, chronicle: &Chronicle, store: &str) -> Result<Option<Seal>> {
        let all = self.seal_list().await?.into_iter().map(|(seal, _)| seal);
        Ok(all.into_iter().find(|seal| seal.chronicle == chronicle.to_string() && seal.store == store))
    }

    /// How far each store has each chronicle, and the number of each one's newest entry.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn seal_list(&self) -> Result<Vec<(Seal, u64)>> {
        in_snapshot!(self, seal_list_in_txn())
    }
}

/// Takes a chronicle's row until the transaction ends; from which number on this catalog writes, and whether that is settled.
pub(crate) async fn take_in_txn(txn: &mut Txn, chronicle: &Chronicle) -> Result<(u64, bool)> {
    let statement = "insert into chronicle (name, first_number) values ($1, 1) on conflict (name) do nothing";
    txn.execute("chronicle_take", query(statement).bind(chronicle.to_string())).await?;
    let statement =
        "update chronicle set first_number = first_number where name = $1 returning first_number, settled_us";
    let row = txn.row("chronicle_take", query(statement).bind(chronicle.to_string())).await?;
    let row = row.ok_or_else(|| Error::corrupt("chronicle", "gone while it was held"))?;
    Ok((row.count("first_number")?, row.maybe_integer("settled_us")?.is_some()))
}

/// As [`Catalog::chronicle_standing`].
///
/// # Errors
/// When the catalog is away.
pub async fn chronicle_standing_in_txn(txn: &mut Txn, chronicle: &Chronicle) -> Result<Standing> {
    let statement = "select first_number, settled_us from chronicle where name = $1";
    let row = txn.row("chronicle_standing", query(statement).bind(chronicle.to_string())).await?;
    let (first, settled) = match &row {
        Some(row) => (row.count("first_number")?, row.maybe_integer("settled_us")?.is_some()),
        None => (1, false),
    };
    let begins = chronicle_entries_in_txn(txn, chronicle, first, 1).await?.pop();
    let life = begins.filter(|entry| entry.number == first).map(|entry| LifeId::of(&entry.digest));
    let last = match chronicle {
        Chronicle::Activity => {
            activity::activity_list_in_txn(txn, None, 1).await?.pop().map_or(0, |entry| entry.number)
        }
        Chronicle::Exposure(database) => ledger::end(txn, database).await?.map_or(0, |(number, _)| number),
    };
    Ok(Standing { settled, first, life, last })
}

/// As [`Catalog::chronicle_entries`].
///
/// # Errors
/// As there.
pub async fn chronicle_entries_in_txn(
    txn: &mut Txn,
    chronicle: &Chronicle,
    from: u64,
    limit: u32,
) -> Result<Vec<Kept>> {
    let all: Vec<Kept> = match chronicle {
        Chronicle::Activity => activity::chained_in_txn(txn, from, limit).await?,
        Chronicle::Exposure(database) => {
            let events = ledger::events_in_txn(txn, database, from, limit).await?;
            events.into_iter().map(Kept::from).collect()
        }
    };
    match all.iter().find(|entry| !entry.holds(chronicle)) {
        // What was changed is not sealed: the stores would call it right for ever.
        Some(entry) => Err(Error::corrupt(
            "digest",
            format!("entry {} of {chronicle} is not as it was written", entry.number),
        )),
        None => Ok(all),
    }
}

/// As [`Catalog::seal_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn seal_put_in_txn(txn: &mut Txn, seal: &Seal) -> Result<()> {
    let statement = "insert into chronicle_seal (chronicle, store, first_number, once_number, number, digest, at_us, trouble) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (chronicle, store) do update set \
                     first_number = excluded.first_number, once_number = excluded.once_number, number = excluded.number, \
                     digest = excluded.digest, at_us = excluded.at_us, trouble = excluded.trouble";
    let bound = query(statement)
        .bind(seal.chronicle.clone())
        .bind(seal.store.clone())
        .bind(big("entry number", seal.first)?)
        .bind(big("entry number", seal.once)?)
        .bind(big("entry number", seal.number)?)
        .bind(seal.digest.clone())
        .bind(micros(seal.at))
        .bind(seal.trouble.clone());
    txn.execute("seal_put", bound).await.map(drop)
}

/// As [`Catalog::seal_trouble`].
///
/// # Errors
/// When the catalog is away.
pub async fn seal_trouble_in_txn(
    txn: &mut Txn,
    chronicle: &Chronicle,
    store: &str,
    trouble: Option<&str>,
) -> Result<()> {
    let statement = "insert into chronicle_seal (chronicle, store, number, digest, at_us, trouble) values ($1, $2, 0, '', $3, $4) \
                     on conflict (chronicle, store) do update set at_us = excluded.at_us, trouble = excluded.trouble";
    let bound = query(statement)
        .bind(chronicle.to_string())
        .bind(store.to_owned())
        .bind(micros(Utc::now()))
        .bind(trouble.map(str::to_owned));
    txn.execute("seal_trouble", bound).await.map(drop)
}

/// As [`Catalog::seal_list`]. The newest numbers are looked up at the end of an index: a reading of the fleet costs no more for a long record.
///
/// # Errors
/// When the catalog is away.
pub async fn seal_list_in_txn(txn: &mut Txn) -> Result<Vec<(Seal, u64)>> {
    let statement = "select s.chronicle as chronicle, s.store as store, s.first_number as first_number, s.once_number as once_number, s.number as number, \
                     s.digest as digest, s.at_us as at_us, s.trouble as trouble, coalesce(case when s.chronicle = 'activity' \
                     then (select a.number from activity a order by a.number desc limit 1) \
                     else (select e.number from exposure_event e where e.database_name = substr(s.chronicle, 10) \
                     order by e.number desc limit 1) end, 0) as newest from chronicle_seal s order by s.chronicle, s.store";
    let rows = txn.rows("seal_list", query(statement)).await?;
    rows.iter()
        .map(|row| {
            let seal = Seal {
                chronicle: row.text("chronicle")?,
                store: row.text("store")?,
                first: row.count("first_number")?,
                once: row.count("once_number")?,
                number: row.count("number")?,
                digest: row.text("digest")?,
                at: row.time("at_us")?,
                trouble: row.maybe_text("trouble")?,
            };
            Ok((seal, row.count("newest")?))
        })
        .collect()
}
