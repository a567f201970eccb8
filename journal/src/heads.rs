//! Signed heads in a store: which there are, reading, putting, and deleting those that newer ones supersede.
//!
//! What always holds: a head that is given out decodes and stands under its own number in its own journal; whether its signature
//! counts, whoever has the pinned keys asks. Nothing waits for a head, and no reader needs one: they only ever witness. A crash
//! leaves fewer of them.
//! What it does not do: it does not sign (the shipper does, what it had confirmed), and it does not judge a journal (the applier's
//! `verify` does).

use chrono::{DateTime, Utc};

use crate::error::JournalError;
use crate::format::{FormatError, Head, HeadStanding, VerifyKeys};
use crate::identity::Sequence;
use crate::layout::Layout;
use crate::put;
use crate::reader::Reader;
use crate::store::{Listed, ObjectStore, StoreError};
use crate::tidy::TidyOptions;

/// Heads that are kept whatever their age: the newest ones that hold. More than one, so that one that rots leaves others.
const KEPT: usize = 16;

/// Puts a head. On `Ok` exactly this one is there, durably. Failures that waiting mends are waited out, `trouble` being told.
///
/// # Errors
/// [`JournalError::Another`] when other bytes have its name; failures of the store that waiting does not mend.
///
/// # Cancel safety
/// Dropped midway, the head may or may not stand. If it does, it holds.
pub async fn put(
    store: &dyn ObjectStore,
    layout: &Layout,
    head: &Head,
    trouble: &(dyn Fn(&StoreError) + Send + Sync),
) -> Result<(), JournalError> {
    let bytes = head.encode().map_err(|source| JournalError::Encode { what: "head", source })?;
    put::put(store, &layout.head(head.said.number)?, &bytes, trouble).await
}

/// The heads that a store lists, by number. Other names are left out; `verify` reports them.
///
/// # Errors
/// When the store does not answer.
pub async fn list(reader: &Reader) -> Result<Vec<(Sequence, Listed)>, JournalError> {
    list_behind(reader, None).await
}

async fn list_behind(
    reader: &Reader,
    after: Option<Sequence>,
) -> Result<Vec<(Sequence, Listed)>, JournalError> {
    let after = after.map(|number| reader.layout().head(number)).transpose()?;
    let listed = reader.store().list(&reader.layout().heads()?, after.as_ref(), None).await?;
    let mut found: Vec<(Sequence, Listed)> =
        listed.into_iter().filter_map(|listed| Some((listed.key.name().parse().ok()?, listed))).collect();
    found.sort_by_key(|(number, _)| *number);
    Ok(found)
}

/// The head of one chunk, in its place and whole; a signature that its own key did not make is an error too.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none; [`JournalError::Object`] or [`JournalError::Misplaced`] when it is not what was
/// written there.
pub async fn read(reader: &Reader, number: Sequence) -> Result<Head, JournalError> {
    let key = reader.layout().head(number)?;
    let bytes = reader.store().get(&key).await?;
    let head = Head::decode(bytes).map_err(|source| JournalError::Object { key: key.clone(), source })?;
    let said = &head.said;
    let misplaced = if said.number != number {
        Some("number")
    } else if said.store != reader.store_id() {
        Some("store id")
    } else if said.incarnation != reader.incarnation() {
        Some("incarnation id")
    } else if Layout::new(&said.database, said.incarnation)? != *reader.layout() {
        Some("database")
    } else {
        None
    };
    if let Some(field) = misplaced {
        return Err(JournalError::Misplaced { key, field });
    }
    match head.standing(&VerifyKeys::default()) {
        HeadStanding::Broken => Err(JournalError::Object { key, source: FormatError::Signature }),
        HeadStanding::Pinned | HeadStanding::UnknownKey => Ok(head),
    }
}

/// The newest head of the store that a pinned key signed. Those that do not read or that another key signed are passed over:
/// whoever may write there can put any number of them.
///
/// # Errors
/// When the store does not answer, or the journal's end cannot be found.
pub async fn newest(reader: &Reader, pinned: &VerifyKeys) -> Result<Option<Head>, JournalError> {
    if pinned.is_empty() {
        return Ok(None);
    }
    // The newest one stands near the journal's end, or behind it when that was cut off: what lies before is listed only when
    // nothing is there, twice as much each time.
    let end = reader.last().await?.map_or(0, |last| last.header().number.get());
    let mut back = 1u64;
    loop {
        let from = end.checked_sub(back);
        let listed = list_behind(reader, from.map(Sequence::new)).await?;
        for (number, _) in listed.iter().rev() {
            match read(reader, *number).await {
                Ok(head) if pinned.contains(&head.key) => return Ok(Some(head)),
                Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
                Ok(_) | Err(_) => {}
            }
        }
        if from.is_none() {
            return Ok(None);
        }
        back = back.saturating_mul(64);
    }
}

/// Deletes heads that newer ones supersede; how many, or how many it would. Only heads that a pinned key signed and that the journal
/// holds are deleted, only when sixteen such heads are newer, and only when they have stood for the grace: what does not hold
/// stays, as evidence.
///
/// # Errors
/// When the store does not answer, or the journal does not read. What was deleted before is superseded.
pub async fn tidy(reader: &Reader, pinned: &VerifyKeys, options: TidyOptions) -> Result<u64, JournalError> {
    let mut deleted = 0;
    if pinned.is_empty() {
        return Ok(deleted);
    }
    let listed = list(reader).await?;
    let newest = listed.iter().map(|(_, listed)| listed.modified).max();
    // The store's own clock, as its newest head shows it, and never later than this machine's.
    let now = newest.map_or(DateTime::<Utc>::MIN_UTC, |newest| newest.min(Utc::now()));
    let mut kept = 0;
    for (number, listed) in listed.iter().rev() {
        // Heads before these were not reached yet, and the young ones need no reading.
        if kept >= KEPT && !options.is_old(listed, now) {
            continue;
        }
        if !holds(reader, pinned, *number).await? {
            continue;
        }
        if kept < KEPT {
            kept += 1;
            continue;
        }
        if !options.dry_run {
            reader.store().delete(&listed.key).await?;
        }
        deleted += 1;
    }
    Ok(deleted)
}

/// Whether a pinned key signed the head of this number, and the journal holds what it says.
async fn holds(reader: &Reader, pinned: &VerifyKeys, number: Sequence) -> Result<bool, JournalError> {
    let head = match read(reader, number).await {
        Ok(head) if pinned.contains(&head.key) => head,
        Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
        Ok(_) | Err(_) => return Ok(false),
    };
    match reader.expected_header(number).await {
        Ok(chunk) => Ok(head.said.is_of(&chunk)),
        Err(JournalError::Store(why)) => Err(why.into()),
        Err(_) => Ok(false),
    }
}
