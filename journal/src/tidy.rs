//! Deleting chunks that a segment replaces: R7 of `FORMAT.md`. The one place in farshore's journal that deletes.
//!
//! What always holds: only data chunks before the newest opening are deleted, only when a segment that was read back now was opened,
//! holds every byte of them and continues the journal on both sides, only when the chunk's own chain values are those that the
//! segment says it had, and only when chunk and segment have both stood for a whole grace by the store's own clock. A run that is cut off leaves fewer chunks and nothing else; the next one goes on.
//! What it does not do: it never deletes an opening, a timeline, a gap, a segment or anything of a backup, and it never runs in
//! the shipper, whose credential need not allow deletion.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::JournalError;
use crate::format::Kind;
use crate::format::segment::Outline;
use crate::identity::Sequence;
use crate::reader::{Keyring, Reader};
use crate::segments::{self, ListedSegment};
use crate::store::Listed;
use crate::writer::TIDY_GRACE;

/// Chunks that are listed at a time.
const PAGE: usize = 1000;

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tidied {
    /// Segments looked at.
    pub segments: u64,
    /// Chunks deleted, or that would be.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks before the newest opening that a segment replaces, and that have not stood for the whole grace yet.
    pub kept: u64,
    /// Segments that do not hold what they should: their chunks stay.
    pub refused: Vec<Refused>,
}

/// A segment on whose word nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its name.
    pub segment: String,
    /// Why.
    pub why: String,
}

/// How to tidy.
#[derive(Debug, Clone, Copy)]
pub struct TidyOptions {
    grace: Duration,
    /// Look only.
    pub dry_run: bool,
}

impl TidyOptions {
    /// With this grace.
    ///
    /// # Errors
    /// [`JournalError::Another`] for less than writers reckon with ([`TIDY_GRACE`], R6).
    pub fn new(grace: Duration, dry_run: bool) -> Result<Self, JournalError> {
        match grace >= TIDY_GRACE {
            true => Ok(Self { grace, dry_run }),
            false => Err(JournalError::Another {
                found: format!("a grace of {} hours", grace.as_secs() / 3600),
                expected: format!("at least {} hours", TIDY_GRACE.as_secs() / 3600),
            }),
        }
    }

    /// Whether an object has stood for the whole grace at `now`, by the store's clock.
    pub(crate) fn is_old(&self, listed: &Listed, now: DateTime<Utc>) -> bool {
        is_old(listed, now, self.grace)
    }

    /// Without waiting: for tests, which cannot wait a day and let no writer sleep meanwhile.
    #[doc(hidden)]
    pub fn at_once_for_tests() -> Self {
        Self { grace: Duration::ZERO, dry_run: false }
    }
}

/// Deletes what segments replace. `keys` open what is sealed: every byte of a segment is compared with its table before anything
/// is deleted on its word, so a sealed journal is tidied only where a private key is at hand.
///
/// # Errors
/// When the journal does not read or the store does not answer. What was deleted before stays deleted, and is replaced.
pub async fn tidy(reader: &Reader, keys: &mut Keyring, options: TidyOptions) -> Result<Tidied, JournalError> {
    let mut done = Tidied::default();
    let Some(last) = reader.last().await? else { return Ok(done) };
    let last = last.header().clone();
    let newest = reader.first_in(Sequence::FIRST, last.number, |h| h.generation >= last.generation).await?;
    // By its own object: nothing is deleted on a search's word.
    let opening = reader.object(newest).await?.header().clone();
    if opening.kind != Kind::Opening || opening.generation != last.generation {
        return Err(JournalError::NotHeld { what: format!("the opening of generation {}", last.generation) });
    }
    let opening = opening.number;
    let listed = segments::list(&**reader.store(), reader.layout()).await?;
    let chunks = chunks(reader, opening).await?;
    let now = now_of(&chunks, &listed, newest_written(reader, last.number).await?);
    for segment in listed {
        done.segments += 1;
        let first = chunks.partition_point(|(number, _)| *number < segment.name.first);
        let behind = chunks.partition_point(|(number, _)| *number <= segment.name.last);
        let (old, young): (Vec<_>, Vec<_>) =
            chunks[first..behind].iter().partition(|(_, listed)| is_old(listed, now, options.grace));
        let ready = segment.name.last < opening && is_old(&segment.listed, now, options.grace);
        done.kept += young.len() as u64;
        if !ready || old.is_empty() {
            done.kept += old.len() as u64;
            continue;
        }
        let outline = match replaces(reader, keys, &segment).await {
            Ok(outline) => outline,
            Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
            Err(why) => {
                done.kept += old.len() as u64;
                let segment = segment.listed.key.to_string();
                done.refused.push(Refused { segment, why: why.to_string() });
                continue;
            }
        };
        for (number, listed) in old {
            if !is_merged(reader, &outline, *number).await? {
                done.kept += 1;
                continue;
            }
            if !options.dry_run {
                reader.store().delete(&listed.key).await?;
            }
            done.chunks += 1;
            done.bytes += listed.size;
        }
    }
    Ok(done)
}

/// The chunks' objects before the newest opening.
async fn chunks(reader: &Reader, opening: Sequence) -> Result<Vec<(Sequence, Listed)>, JournalError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = reader.store().list(reader.layout().journal(), after.as_ref(), Some(PAGE)).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.key.clone());
        for listed in page {
            match listed.key.name().parse::<Sequence>() {
                Ok(number) if number < opening => found.push((number, listed)),
                Ok(_) => return Ok(found),
                Err(_) => {}
            }
        }
    }
}

/// Whether the object at this number is the very chunk that the segment holds. What is another's, or does not read, stays: it is
/// evidence.
async fn is_merged(reader: &Reader, outline: &Outline, number: Sequence) -> Result<bool, JournalError> {
    let Some(merged) = outline.position(number).and_then(|which| outline.chunks().get(which)) else {
        return Ok(false);
    };
    match reader.object(number).await {
        Ok(object) => {
            let header = object.header();
            let same = (header.before, header.after) == (merged.before, merged.after);
            Ok(header.kind == Kind::Data && same)
        }
        Err(JournalError::Store(why)) if !why.is_not_found() => Err(why.into()),
        Err(_) => Ok(false),
    }
}

/// When the journal's last chunk was written, by the store.
async fn newest_written(reader: &Reader, last: Sequence) -> Result<Option<DateTime<Utc>>, JournalError> {
    let after = last.get().checked_sub(1).map(|before| reader.layout().chunk(Sequence::new(before)));
    let after = after.transpose()?;
    let listed = reader.store().list(reader.layout().journal(), after.as_ref(), Some(1)).await?;
    Ok(listed.first().map(|listed| listed.modified))
}

/// The store's own clock, as far as its newest object shows it, and never later than this machine's: ages are differences of
/// one clock, and a clock that runs ahead on either side only makes tidying wait.
fn now_of(
    chunks: &[(Sequence, Listed)],
    listed: &[ListedSegment],
    newest: Option<DateTime<Utc>>,
) -> DateTime<Utc> {
    let all = chunks
        .iter()
        .map(|(_, listed)| listed.modified)
        .chain(listed.iter().map(|segment| segment.listed.modified))
        .chain(newest);
    all.max().map_or(DateTime::<Utc>::MIN_UTC, |newest| newest.min(Utc::now()))
}

fn is_old(listed: &Listed, now: DateTime<Utc>, grace: Duration) -> bool {
    (now - listed.modified).to_std().is_ok_and(|age| age >= grace)
}

/// A segment, read now, that may stand for its chunks: whole, opened, and continuing the journal on both sides.
async fn replaces(
    reader: &Reader,
    keys: &mut Keyring,
    segment: &ListedSegment,
) -> Result<Outline, JournalError> {
    let key = segment.listed.key.clone();
    let read = reader.segment_anew(&segment.name).await?;
    let outline = read.outline().clone();
    // The journal continues it, so its content is the journal's.
    reader.segment(&segment.name).await?;
    let data_key = match outline.chunks().first() {
        Some(first) => keys.for_chunk(reader, first).await?,
        None => None,
    };
    let opened = tokio::task::spawn_blocking(move || read.check_content(data_key.as_ref())).await;
    let opened = opened
        .map_err(|_| JournalError::NotHeld { what: "the segment: reading it was cut off".to_owned() })?;
    match opened {
        Ok(()) => Ok(outline),
        Err(source) => Err(JournalError::Object { key, source }),
    }
}
