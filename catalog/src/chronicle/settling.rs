//! Taking back what an earlier catalog wrote: once, and what is older behind that part by part.
//!
//! What always holds: it is one transaction with the record's end behind it; what this catalog wrote before goes on behind that, but for what is there already.

use chrono::Utc;
use farshore_journal::format::{Chronicle, EntryDigest};
use sqlx::query;

use super::{BATCH, Before, Former, Kept, Said, Settled, chronicle_entries_in_txn, take_in_txn};
use crate::activity::{self, Activity};
use crate::ledger;
use crate::row::{big, micros};
use crate::{Error, Result, Time, Txn};

/// As [`Catalog::chronicle_settle`](crate::Catalog::chronicle_settle).
///
/// # Errors
/// When the catalog is away.
pub async fn chronicle_settle_in_txn(
    txn: &mut Txn,
    chronicle: &Chronicle,
    before: Before<'_>,
) -> Result<Settled> {
    if *chronicle == Chronicle::Activity {
        activity::hold_end_in_txn(txn).await?;
    }
    let (_, settled) = take_in_txn(txn, chronicle).await?;
    if settled {
        return Ok(Settled::Before);
    }
    let former = match before {
        Before::Nothing => {
            settle_at(txn, chronicle, 1).await?;
            return Ok(Settled::Nothing);
        }
        Before::Unvouched { since, objective_ms } => {
            unvouched_in_txn(txn, chronicle, since, objective_ms).await?;
            settle_at(txn, chronicle, 1).await?;
            return Ok(Settled::Unvouched);
        }
        Before::Former(former) => former,
    };
    // Digests decide, and no clock: what this catalog wrote before it asked is in no store, and goes on behind what is there. Should another that lives go on
    // from the same end, both meet at one name in the store.
    let own = chronicle_entries_in_txn(txn, chronicle, former.last, 1).await;
    if own.is_ok_and(|own| own.iter().any(|own| own.number == former.last && own.digest == former.digest)) {
        settle_at(txn, chronicle, 1).await?;
        return Ok(Settled::Own);
    }
    // The end alone, and what is newest; what is older is filled in behind it, however long it is.
    let newest = &former.entries[former.entries.len().saturating_sub(BATCH)..];
    match chronicle {
        Chronicle::Activity => {
            let own = activity::take_all_in_txn(txn).await?;
            let known =
                known(former, &own, |own, kept| matches!(&kept.said, Said::Activity(said) if own == said));
            let mut behind: Vec<Activity> = own.into_iter().skip(known).map(|(_, _, said)| said).collect();
            for entry in newest {
                activity::insert_kept_in_txn(txn, entry).await?;
            }
            activity::set_end_in_txn(txn, former.last, former.digest).await?;
            let note = Activity {
                at: Utc::now(),
                who: "farshore".to_owned(),
                what: "activity taken back".to_owned(),
                database: None,
                detail: format!(
                    "from a store, up to entry {}, {}; {} of them could be opened",
                    former.last,
                    former.digest,
                    former.entries.len()
                ),
            };
            behind.push(note);
            for activity in &behind {
                activity::activity_append_in_txn(txn, activity).await?;
            }
        }
        Chronicle::Exposure(database) => {
            let mut own = ledger::events_in_txn(txn, database, 1, u32::MAX).await?;
            let events: Vec<_> = own.iter().map(|one| (one.number, Some(one.digest), &one.event)).collect();
            let known =
                known(former, &events, |own, kept| matches!(&kept.said, Said::Event(said) if *own == said));
            own.drain(..known);
            let statement = "delete from exposure_event where database_name = $1";
            txn.execute("chronicle_settle", query(statement).bind(database.to_string())).await?;
            for event in newest.iter().filter_map(Kept::event) {
                ledger::insert(txn, database, &event).await?;
            }
            // The numbers go on behind what is stored, be its newest entries here or not.
            let mut end = Some((former.last, former.digest));
            for event in &own {
                end = Some(ledger::append_behind(txn, database, end, &event.event).await?);
            }
            let taken: Vec<ledger::Numbered> = former.entries.iter().filter_map(Kept::event).collect();
            let all: Vec<ledger::Numbered> = taken.iter().cloned().chain(own).collect();
            ledger::watch_anew(txn, database, end, &taken, &all).await?;
        }
    }
    settle_at(txn, chronicle, former.last + 1).await?;
    Ok(Settled::TakenBack { last: former.last, entries: former.entries.len() as u64 })
}

/// As [`Catalog::chronicle_fill`](crate::Catalog::chronicle_fill).
///
/// # Errors
/// As there.
pub async fn chronicle_fill_in_txn(
    txn: &mut Txn,
    chronicle: &Chronicle,
    (number, digest): (u64, EntryDigest),
    entries: &[Kept],
) -> Result<Option<u64>> {
    take_in_txn(txn, chronicle).await?;
    let follows = chronicle_entries_in_txn(txn, chronicle, number + 1, 1).await?.pop();
    let follows = follows.filter(|entry| entry.number == number + 1).and_then(|entry| entry.former);
    if follows != Some(digest) {
        return Ok(None);
    }
    let mut added = 0;
    for entry in entries {
        added += match entry.event() {
            Some(event) => ledger::insert(txn, event_of(chronicle)?, &event).await?,
            None => activity::insert_kept_in_txn(txn, entry).await?,
        };
    }
    Ok(Some(added))
}

fn event_of(chronicle: &Chronicle) -> Result<&farshore_journal::DatabaseName> {
    chronicle.database().ok_or_else(|| Error::corrupt("chronicle", "activity holds no event of a ledger"))
}

/// How many of this catalog's entries, oldest first, what is taken back holds already: a copy of a catalog from before it was settled writes none of them a second
/// time. They are those up to the last that has its number and digest there; or, where they were put behind what that catalog took back and have other numbers
/// there, those that say the same one after the other. That of entries that nobody opened cannot be told.
fn known<T>(
    former: &Former,
    own: &[(u64, Option<EntryDigest>, T)],
    is_same: impl Fn(&T, &Kept) -> bool,
) -> usize {
    let marked = |(number, digest, _): &(u64, Option<EntryDigest>, T)| {
        let at = former.marks.binary_search_by_key(number, |(number, _)| *number);
        at.is_ok_and(|at| Some(former.marks[at].1) == *digest)
    };
    if let Some(last) = own.iter().rposition(marked) {
        return last + 1;
    }
    let Some((_, _, first)) = own.first() else { return 0 };
    let begins = former.entries.iter().position(|kept| is_same(first, kept));
    let there = begins.map_or(&[][..], |at| &former.entries[at..]);
    own.iter().zip(there).take_while(|((_, _, own), kept)| is_same(own, kept)).count()
}

async fn settle_at(txn: &mut Txn, chronicle: &Chronicle, first: u64) -> Result<()> {
    let statement = "update chronicle set first_number = $1, settled_us = $2 where name = $3";
    let bound = query(statement)
        .bind(big("entry number", first)?)
        .bind(micros(Utc::now()))
        .bind(chronicle.to_string());
    txn.execute("chronicle_settle", bound).await.map(drop)
}

/// Says in the chronicle that what was before is not known: pages were there, and none counts.
async fn unvouched_in_txn(
    txn: &mut Txn,
    chronicle: &Chronicle,
    since: Time,
    objective_ms: u64,
) -> Result<()> {
    let now = Utc::now();
    let Chronicle::Exposure(database) = chronicle else {
        let said = Activity {
            at: now,
            who: "farshore".to_owned(),
            what: "activity not taken back".to_owned(),
            database: None,
            detail: format!(
                "a store has pages of it since {since}, and not one of them counts: who did what before is not known here"
            ),
        };
        return activity::activity_append_in_txn(txn, &said).await.map(drop);
    };
    let own = ledger::events_in_txn(txn, database, 1, u32::MAX).await?;
    let statement = "delete from exposure_event where database_name = $1";
    txn.execute("chronicle_settle", query(statement).bind(database.to_string())).await?;
    let event = ledger::Event {
        at: now,
        promise: ledger::RPO.to_owned(),
        what: ledger::What::Opened,
        from: since.min(now),
        until: now,
        whys: ledger::Why::NotLooked.into(),
        worst_ms: None,
        objective_ms,
    }
    .rounded();
    let mut end = Some(ledger::append_behind(txn, database, None, &event).await?);
    for event in &own {
        end = Some(ledger::append_behind(txn, database, end, &event.event).await?);
    }
    let all = ledger::events_in_txn(txn, database, 1, u32::MAX).await?;
    ledger::watch_anew(txn, database, end, &all[..1], &all).await
}
