//! Who did what, and when. Append only: no function changes or removes an entry, and one that was is found ([`Catalog::activity_verify`]).
//!
//! What always holds: numbers are dense and rise in the order in which entries were accepted; each entry holds a digest of itself and of the one before
//! (`chain.rs`); whoever appends takes the end's row first and keeps it until he commits, so that no two entries follow the same one.

mod chain;

use farshore_journal::DatabaseName;
use farshore_journal::format::EntryDigest;
use sqlx::any::AnyRow;
use sqlx::query;

pub use self::chain::Finding;
use self::chain::{BEGIN, HEAD_LOST, Link, Walk, digest};
use crate::chronicle::{Kept, Said};
use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, big, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// The most entries one call gives.
const PAGE: u32 = 1000;

/// Something somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// When.
    pub at: Time,
    /// Who: a user, a token's name, a schedule, a node.
    pub who: String,
    /// What, as a command or event word.
    pub what: String,
    /// To which database, when to one.
    pub database: Option<DatabaseName>,
    /// More, without secrets and row values.
    pub detail: String,
}

/// An entry with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityEntry {
    /// Its place in the record, from 1.
    pub number: u64,
    /// What it says.
    pub activity: Activity,
    /// Its digest, which holds that of the entry before; `None` while no entry was appended since there is a chain.
    pub digest: Option<String>,
}

/// What a walk through the whole record found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Entries that are there.
    pub entries: u64,
    /// The number of the newest, by the record's end.
    pub last: u64,
    /// Its digest: two that agree on it agree on every entry before. Empty where there is no chain yet.
    pub digest: String,
    /// What speaks against the record, by number.
    pub findings: Vec<(u64, Finding)>,
}

impl Catalog {
    /// Appends an entry; its number.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn activity_append(&self, activity: &Activity) -> Result<u64> {
        in_local_txn!(self, activity_append_in_txn(activity))
    }

    /// Walks the whole record, and finds what was changed, removed or put elsewhere.
    ///
    /// # Errors
    /// When the catalog is away, or the record is too long to be read within the deadline.
    pub async fn activity_verify(&self) -> Result<Verified> {
        in_snapshot!(self, activity_verify_in_txn())
    }

    /// The newest entries first, at most 1000; with `before`, those older than that number.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn activity_list(&self, before: Option<u64>, limit: u32) -> Result<Vec<ActivityEntry>> {
        in_snapshot!(self, activity_list_in_txn(before, limit))
    }
}

/// As [`Catalog::activity_append`]. The record's end is taken until the transaction ends: append last.
///
/// # Errors
/// When the catalog is away.
pub async fn activity_append_in_txn(txn: &mut Txn, activity: &Activity) -> Result<u64> {
    let (number, former) = match take_end(txn).await? {
        Some(end) => end,
        None => found_end(txn, activity).await?,
    };
    let former = match former.is_empty() && number > 1 {
        // The record is older than its chain.
        true => adopt(txn, number).await?,
        false => former,
    };
    append(txn, number, &former, activity).await?;
    Ok(number)
}

/// Takes the end's row: the next number and the digest before it.
async fn take_end(txn: &mut Txn) -> Result<Option<(u64, String)>> {
    let statement = "update activity_head set number = number + 1 where one = 1 returning number, digest";
    let row = txn.row("activity_append", query(statement)).await?;
    row.map(|row| Ok((row.count("number")?, row.text("digest")?))).transpose()
}

/// Begins a new end behind the newest entry, where the end's row is gone, and says so in the record. What is to be appended must not fail for it.
async fn found_end(txn: &mut Txn, activity: &Activity) -> Result<(u64, String)> {
    let newest = activity_list_in_txn(txn, None, 1).await?.pop();
    let (last, former) =
        newest.map_or((0, BEGIN.to_owned()), |newest| (newest.number, newest.digest.unwrap_or_default()));
    let statement =
        "insert into activity_head (one, number, digest) values (1, $1, $2) on conflict do nothing";
    let bound = query(statement).bind(big("activity number", last)?).bind(former);
    txn.execute("activity_append", bound).await?;
    let lost = Error::Conflict {
        what: "activity",
        name: activity.what.clone(),
        reason: "others kept changing its end".to_owned(),
    };
    let (number, former) = take_end(txn).await?.ok_or(lost)?;
    let said = Activity {
        at: activity.at,
        who: "farshore".to_owned(),
        what: HEAD_LOST.to_owned(),
        database: None,
        detail: "the end of the record was gone; it goes on behind the newest entry that was there"
            .to_owned(),
    };
    append(txn, number, &former, &said).await?;
    let end = take_end(txn).await?;
    end.ok_or_else(|| Error::corrupt("activity_head", "gone while it was held"))
}

/// Takes entries of before into the chain, as they stand; the digest of the last.
async fn adopt(txn: &mut Txn, before: u64) -> Result<String> {
    let mut walk = Walk::begin();
    let mut former = BEGIN.to_owned();
    loop {
        let links = links(txn, walk.next(), before).await?;
        if links.is_empty() {
            return Ok(former);
        }
        for link in links {
            walk.take(&link, false);
            let own = digest(&former, link.number, &link.activity);
            let statement =
                "update activity set former = $1, digest = $2 where number = $3 and digest is null";
            let bound =
                query(statement).bind(former).bind(own.clone()).bind(big("activity number", link.number)?);
            txn.execute("activity_append", bound).await?;
            former = own;
        }
    }
}

/// Writes an entry, and the record's end behind it.
async fn append(txn: &mut Txn, number: u64, former: &str, activity: &Activity) -> Result<()> {
    // What is kept is what is read back: finer parts of a second are cut off.
    let own = digest(former, number, activity);
    let statement = "insert into activity (number, at_us, who, what, database_name, detail, former, digest) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8)";
    let bound = query(statement)
        .bind(big("activity number", number)?)
        .bind(micros(activity.at))
        .bind(activity.who.clone())
        .bind(activity.what.clone())
        .bind(activity.database.as_ref().map(ToString::to_string))
        .bind(activity.detail.clone())
        .bind(former.to_owned())
        .bind(own.clone());
    txn.execute("activity_append", bound).await?;
    let statement = "update activity_head set digest = $1 where one = 1";
    txn.execute("activity_append", query(statement).bind(own)).await.map(drop)
}

/// Entries from a number on and before another, oldest first, at most a page of them.
async fn links(txn: &mut Txn, from: u64, before: u64) -> Result<Vec<Link>> {
    let statement = "select number, at_us, who, what, database_name, detail, former, digest from activity \
                     where number >= $1 and number < $2 order by number limit $3";
    let bound = query(statement)
        .bind(big("activity number", from)?)
        .bind(big("activity number", before)?)
        .bind(i64::from(PAGE));
    let rows = txn.rows("activity_verify", bound).await?;
    rows.iter()
        .map(|row| {
            Ok(Link {
                number: row.count("number")?,
                activity: said(row)?,
                former: row.maybe_text("former")?,
                digest: row.maybe_text("digest")?,
            })
        })
        .collect()
}

/// The digest of an entry behind another.
pub(crate) fn activity_digest(
    former: Option<EntryDigest>,
    number: u64,
    activity: &Activity,
) -> Option<EntryDigest> {
    let former = former.map_or_else(|| BEGIN.to_owned(), |former| former.to_string());
    digest(&former, number, activity).parse().ok()
}

/// Entries from a number on that are chained, oldest first: up to the first that is not, or that is gone. Where the first is gone they begin behind it, so that
/// whoever asks sees the hole and does not take it for the record's end.
pub(crate) async fn chained_in_txn(txn: &mut Txn, from: u64, limit: u32) -> Result<Vec<Kept>> {
    let mut kept = Vec::new();
    let mut next = from;
    'all: while kept.len() < limit as usize {
        let links = links(txn, next, u64::MAX >> 1).await?;
        if links.is_empty() {
            break;
        }
        for link in links {
            let (Some(former), Some(digest)) = (link.former, link.digest) else { break 'all };
            if kept.is_empty() {
                next = link.number;
            }
            if link.number != next || kept.len() == limit as usize {
                break 'all;
            }
            let parsed = |text: &str| text.parse().map_err(|why| Error::unreadable("digest", &why));
            let former = (former != BEGIN).then(|| parsed(&former)).transpose()?;
            let said = Said::Activity(link.activity);
            kept.push(Kept { number: link.number, former, digest: parsed(&digest)?, said });
            next += 1;
        }
    }
    Ok(kept)
}

/// Takes the end's row until the transaction ends.
pub(crate) async fn hold_end_in_txn(txn: &mut Txn) -> Result<()> {
    let statement = "update activity_head set number = number where one = 1";
    txn.execute("activity_hold", query(statement)).await.map(drop)
}

/// Takes all entries out of the record, oldest first, each with its number and, where it is chained, its digest: whoever calls puts them back behind others.
pub(crate) async fn take_all_in_txn(txn: &mut Txn) -> Result<Vec<(u64, Option<EntryDigest>, Activity)>> {
    let (mut all, mut next) = (Vec::new(), 1);
    loop {
        let links = links(txn, next, u64::MAX >> 1).await?;
        let Some(last) = links.last() else { break };
        next = last.number + 1;
        let digest = |link: &Link| link.digest.as_deref().and_then(|digest| digest.parse().ok());
        all.extend(links.into_iter().map(|link| (link.number, digest(&link), link.activity)));
    }
    txn.execute("activity_take", query("delete from activity")).await?;
    Ok(all)
}

/// Writes an entry that was taken back at its own number; one that is there stays. How many were written.
pub(crate) async fn insert_kept_in_txn(txn: &mut Txn, kept: &Kept) -> Result<u64> {
    let Said::Activity(activity) = &kept.said else { return Ok(0) };
    let statement = "insert into activity (number, at_us, who, what, database_name, detail, former, digest) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (number) do nothing";
    let bound = query(statement)
        .bind(big("activity number", kept.number)?)
        .bind(micros(activity.at))
        .bind(activity.who.clone())
        .bind(activity.what.clone())
        .bind(activity.database.as_ref().map(ToString::to_string))
        .bind(activity.detail.clone())
        .bind(kept.former.map_or_else(|| BEGIN.to_owned(), |former| former.to_string()))
        .bind(kept.digest.to_string());
    txn.execute("activity_insert", bound).await
}

/// Sets the record's end: what is appended next goes on behind it.
pub(crate) async fn set_end_in_txn(txn: &mut Txn, number: u64, digest: EntryDigest) -> Result<()> {
    let statement = "insert into activity_head (one, number, digest) values (1, $1, $2) \
                     on conflict (one) do update set number = excluded.number, digest = excluded.digest";
    let bound = query(statement).bind(big("activity number", number)?).bind(digest.to_string());
    txn.execute("activity_end", bound).await.map(drop)
}

/// As [`Catalog::activity_verify`].
///
/// # Errors
/// When the catalog is away.
pub async fn activity_verify_in_txn(txn: &mut Txn) -> Result<Verified> {
    let row =
        txn.row("activity_verify", query("select number, digest from activity_head where one = 1")).await?;
    let head = row.map(|row| Ok::<_, Error>((row.count("number")?, row.text("digest")?))).transpose()?;
    let is_lost = head.is_none();
    let (last, digest) = head.unwrap_or((u64::MAX >> 1, String::new()));
    let mut walk = Walk::begin();
    // What is newest is read first: entries that are appended meanwhile are in another snapshot.
    loop {
        let links = links(txn, walk.next(), u64::MAX >> 1).await?;
        let Some(newest) = links.last().map(|link| link.number) else { break };
        for link in &links {
            match link.number > last {
                true => walk.behind(link.number),
                false => walk.take(link, is_lost || !digest.is_empty()),
            }
        }
        walk.pass(newest);
    }
    if is_lost {
        let last = walk.next().saturating_sub(1);
        let (entries, mut findings) = walk.end((0, ""));
        findings.push((last, Finding::HeadLost));
        return Ok(Verified { entries, last, digest, findings });
    }
    let (entries, findings) = walk.end((last, &digest));
    Ok(Verified { entries, last, digest, findings })
}

/// As [`Catalog::activity_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn activity_list_in_txn(
    txn: &mut Txn,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<ActivityEntry>> {
    let statement = "select number, at_us, who, what, database_name, detail, digest from activity \
                     where number < $1 order by number desc limit $2";
    let before = before.map_or(Ok(i64::MAX), |before| big("activity number", before))?;
    let bound = query(statement).bind(before).bind(i64::from(limit.min(PAGE)));
    txn.rows("activity_list", bound).await?.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<ActivityEntry> {
    Ok(ActivityEntry {
        number: row.count("number")?,
        activity: said(row)?,
        digest: row.maybe_text("digest")?,
    })
}

/// What an entry says.
fn said(row: &AnyRow) -> Result<Activity> {
    Ok(Activity {
        at: row.time("at_us")?,
        who: row.text("who")?,
        what: row.text("what")?,
        database: row.maybe_parsed("database_name")?,
        detail: row.text("detail")?,
    })
}
