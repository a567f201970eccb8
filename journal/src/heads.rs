//! Signed heads in a store: which there are, reading, putting, and deleting those that newer ones supersede.
//!
//! What always holds: a head that is given out decodes and stands under its own number in its own journal; whether its signature
//! counts, whoever has the pinned keys asks. Nothing waits for a head, and no reader needs one: they only ever witness. A crash
//! leaves fewer of them. Whoever may write to the store can put any number of objects at heads' names: none above [`HEAD_BYTES`] is
//! fetched, none is fetched twice in one look, and a look that passed over [`PASSED_OVER`] of them ends and says so.
//! What it does not do: it does not sign (the shipper does, what it had confirmed), and it does not judge a journal (the applier's
//! `verify` does).

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::join_all;

use crate::error::JournalError;
use crate::format::{FormatError, Head, HeadStanding, Header, VerifyKeys};
use crate::identity::Sequence;
use crate::layout::Layout;
use crate::put;
use crate::reader::Reader;
use crate::store::{Key, Listed, ObjectStore, StoreError};
use crate::tidy::TidyOptions;

/// The largest object that is read as a head, in bytes; a larger one is none. A head has some 600. Source: `FORMAT.md` section 10.
pub const HEAD_BYTES: u64 = 4096;
/// How many objects at heads' names one look fetches that count for nothing, before it ends and says so.
pub const PASSED_OVER: usize = 1000;
/// How many of retired keys: two weeks' heads that nobody tidied.
pub const FORMER_PASSED_OVER: usize = 20 * PASSED_OVER;
/// Heads fetched at a time: enough to hide a distant store's answer time.
const TOGETHER: usize = 8;

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
    let bytes = match reader.store().get_range(&key, 0..HEAD_BYTES + 1).await {
        Err(StoreError::OutOfRange { .. }) => Bytes::new(),
        other => other?,
    };
    if let Some(surplus) = (bytes.len() as u64).checked_sub(HEAD_BYTES).filter(|surplus| *surplus > 0) {
        return Err(JournalError::Object { key, source: FormatError::Surplus { surplus } });
    }
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

/// An object that a look at heads wanted and the store did not give out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its name.
    pub object: Key,
    /// Why.
    pub why: String,
}

/// What a look for the newest head found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Newest {
    /// The newest head that a pinned key signed, among those that could be looked at.
    pub head: Option<Head>,
    /// Heads of later chunks that the store did not give out: one of them may be newer.
    pub unread: Vec<Unread>,
    /// The look ended at [`PASSED_OVER`] objects that count for nothing, or [`FORMER_PASSED_OVER`] of retired keys: what lies before
    /// them was not looked at.
    pub given_up: bool,
}

impl Newest {
    /// Whether a newer head may be there: not all could be looked at.
    pub fn may_be_newer(&self) -> bool {
        self.given_up || !self.unread.is_empty()
    }
}

/// The newest head of the store that a pinned key signed. Those that do not read or that another key signed are passed over:
/// whoever may write there can put any number of them. Those of retired keys are most likely the journal's own, from before the pinned
/// key was there, so more of them are looked at, and not without bound: such a key may be in other hands.
///
/// # Errors
/// When the store does not list.
pub async fn newest(
    reader: &Reader,
    pinned: &VerifyKeys,
    retired: &VerifyKeys,
) -> Result<Newest, JournalError> {
    let mut found = Newest::default();
    if pinned.is_empty() {
        return Ok(found);
    }
    // The newest one stands near the journal's end, or behind it when that was cut off: what lies before is listed only when
    // nothing is there, more each time. A journal whose end does not read has its heads all the same: then all are listed.
    let end = reader.chunks_end().await.ok().flatten().map_or(0, |last| last.header().number.get());
    let (mut back, mut below, mut passed, mut former) = (1u64, None, 0, 0);
    loop {
        let from = end.checked_sub(back);
        let listed = list_behind(reader, from.map(Sequence::new)).await?;
        let fits = |(_, listed): &&(Sequence, Listed)| listed.size <= HEAD_BYTES;
        let unseen = listed.iter().rev().filter(fits).map(|(number, _)| *number);
        let unseen: Vec<Sequence> =
            unseen.filter(|number| below.is_none_or(|below| number.get() <= below)).collect();
        // The first one is nearly always it; the others are fetched together.
        let (first, others) = unseen.split_at(unseen.len().min(1));
        for some in [first].into_iter().chain(others.chunks(TOGETHER)) {
            for (number, read) in some.iter().zip(join_all(some.iter().map(|at| read(reader, *at))).await) {
                match read {
                    Ok(head) if pinned.contains(&head.key) => {
                        found.head = Some(head);
                        return Ok(found);
                    }
                    Ok(head) if retired.contains(&head.key) => {
                        former += 1;
                        continue;
                    }
                    Err(JournalError::Store(why)) if !why.is_not_found() => {
                        let object = reader.layout().head(*number)?;
                        found.unread.push(Unread { object, why: why.to_string() });
                    }
                    Ok(_) | Err(_) => {}
                }
                passed += 1;
            }
            if passed >= PASSED_OVER || former >= FORMER_PASSED_OVER {
                found.given_up = true;
                return Ok(found);
            }
        }
        if from.is_none() {
            return Ok(found);
        }
        below = from;
        back = back.saturating_mul(64);
    }
}

/// How a journal stands to a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The chunk that it speaks of is the journal's.
    Yes,
    /// Another chunk stands at its number.
    Other,
    /// No chunk has its number.
    No,
    /// It expired: nothing can be said of it any more, and nothing is wrong.
    Expired,
}

impl Held {
    /// How this chunk, which stands at the head's number, answers it.
    pub fn by(head: &Head, chunk: &Header) -> Self {
        if head.said.is_of(chunk) { Self::Yes } else { Self::Other }
    }
}

/// Whether the chunk that a head speaks of is in the journal, asked of the store now.
///
/// # Errors
/// When the store does not answer, or what stands at the head's number does not read.
pub async fn held(reader: &Reader, head: &Head) -> Result<Held, JournalError> {
    match reader.expected_header(head.said.number).await {
        Ok(chunk) => Ok(Held::by(head, &chunk)),
        Err(JournalError::Hole { .. }) => Ok(Held::No),
        Err(JournalError::Expired { .. }) => Ok(Held::Expired),
        Err(why) => Err(why),
    }
}

/// What tidying did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TidiedHeads {
    /// Heads deleted, or that would be.
    pub deleted: u64,
    /// What the store did not give out: it stays.
    pub unread: Vec<Unread>,
    /// It ended at [`PASSED_OVER`] objects that do not hold: what lies before them was not looked at.
    pub given_up: bool,
}

/// What a head is to tidying.
enum Stands {
    /// A pinned key signed it, and the journal holds it.
    Held,
    /// A key signed it that counts no more.
    Retired,
    /// It is evidence, or nothing.
    Not,
}

/// Deletes heads that newer ones supersede. Only heads that have stood for the grace are deleted, only when sixteen heads stand that a
/// pinned key signed and the journal holds, and of those only what is older than these sixteen; of what a retired key signed, all. What
/// does not hold otherwise stays, as evidence.
///
/// # Errors
/// When the store does not list or delete. What was deleted before is superseded.
pub async fn tidy(
    reader: &Reader,
    pinned: &VerifyKeys,
    retired: &VerifyKeys,
    options: TidyOptions,
) -> Result<TidiedHeads, JournalError> {
    let mut tidied = TidiedHeads::default();
    if pinned.is_empty() {
        return Ok(tidied);
    }
    let listed = list(reader).await?;
    let newest = listed.iter().map(|(_, listed)| listed.modified).max();
    // The store's own clock, as its newest head shows it, and never later than this machine's.
    let now = newest.map_or(DateTime::<Utc>::MIN_UTC, |newest| newest.min(Utc::now()));
    let mut left = listed.iter().rev().filter(|(_, listed)| listed.size <= HEAD_BYTES);
    let (mut kept, mut passed) = (0, 0);
    let mut superseded: Vec<&Key> = Vec::new();
    while passed < PASSED_OVER {
        // Heads before these were not reached yet, and the young ones need no reading.
        let worth = |(_, listed): &&(Sequence, Listed)| kept < KEPT || options.is_old(listed, now);
        let some: Vec<&(Sequence, Listed)> = left.by_ref().filter(worth).take(TOGETHER).collect();
        let looked = some.iter().map(|(number, _)| stands(reader, pinned, retired, *number));
        for ((_, listed), stands) in some.iter().zip(join_all(looked).await) {
            match stands? {
                Ok(Stands::Held) if kept < KEPT => kept += 1,
                Ok(Stands::Held | Stands::Retired) if options.is_old(listed, now) => {
                    superseded.push(&listed.key)
                }
                Ok(Stands::Held | Stands::Retired) => {}
                Ok(Stands::Not) => passed += 1,
                Err(unread) => {
                    passed += 1;
                    tidied.unread.push(unread);
                }
            }
        }
        if some.is_empty() {
            break;
        }
    }
    tidied.given_up = passed >= PASSED_OVER;
    if kept < KEPT {
        return Ok(tidied);
    }
    for key in superseded {
        if !options.dry_run {
            reader.store().delete(key).await?;
        }
        tidied.deleted += 1;
    }
    Ok(tidied)
}

/// What the head of this number is. What the store does not give out is told apart.
async fn stands(
    reader: &Reader,
    pinned: &VerifyKeys,
    retired: &VerifyKeys,
    number: Sequence,
) -> Result<Result<Stands, Unread>, JournalError> {
    let unread = |object: Key, why: &StoreError| Ok(Err(Unread { object, why: why.to_string() }));
    let head = match read(reader, number).await {
        Ok(head) if pinned.contains(&head.key) => head,
        Ok(head) if retired.contains(&head.key) => return Ok(Ok(Stands::Retired)),
        Err(JournalError::Store(why)) if !why.is_not_found() => {
            return unread(reader.layout().head(number)?, &why);
        }
        Ok(_) | Err(_) => return Ok(Ok(Stands::Not)),
    };
    match held(reader, &head).await {
        // What its chunk went with, newer ones supersede as they do one that is held.
        Ok(Held::Yes | Held::Expired) => Ok(Ok(Stands::Held)),
        Err(JournalError::Store(why)) => unread(reader.layout().chunk(number)?, &why),
        Ok(Held::Other | Held::No) | Err(_) => Ok(Ok(Stands::Not)),
    }
}
