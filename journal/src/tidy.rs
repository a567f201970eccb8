//! Deleting chunks that a segment replaces: R7 of `FORMAT.md`. The one place in farshore's journal that deletes.
//!
//! What always holds: only data chunks before the newest opening are deleted, only when a segment that was read back now holds
//! every byte of them and continues the journal on both sides, and only when chunk and segment have both stood for a whole grace
//! by the store's own clock. A run that is cut off leaves fewer chunks and nothing else; the next one goes on.
//! What it does not do: it never deletes an opening, a timeline, a gap, a segment or anything of a backup, and it never runs in
//! the shipper, whose credential need not allow deletion.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::JournalError;
use crate::format::segment::Outline;
use crate::format::{FormatError, Header, Kind, Segment};
use crate::identity::Sequence;
use crate::reader::{Keyring, Reader};
use crate::segments::{self, ListedSegment, SegmentName};
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

    /// Without waiting: for tests, which cannot wait a day and let no writer sleep meanwhile.
    #[doc(hidden)]
    pub fn at_once_for_tests() -> Self {
        Self { grace: Duration::ZERO, dry_run: false }
    }
}

/// Deletes what segments replace. `keys` open what is sealed, where a private key is at hand: then every byte of a segment is
/// compared; else its own checksum, made when its writer had compared it, must do.
///
/// # Errors
/// When the journal does not read or the store does not answer. What was deleted before stays deleted, and is replaced.
pub async fn tidy(reader: &Reader, keys: &mut Keyring, options: TidyOptions) -> Result<Tidied, JournalError> {
    let mut done = Tidied::default();
    let Some(last) = reader.last().await? else { return Ok(done) };
    let newest =
        reader.first_where(last.header().number, |h| h.generation >= last.header().generation).await?;
    let opening = newest.header().number;
    let listed = segments::list(&**reader.store(), reader.layout()).await?;
    let chunks = chunks(reader, opening).await?;
    let behind = reader.layout().chunk(opening)?;
    let newest_end = reader.store().list(reader.layout().journal(), Some(&behind), None).await?;
    let now = now_of(&chunks, &listed, &newest_end);
    for segment in listed {
        done.segments += 1;
        let replaced: Vec<&(Sequence, Listed)> =
            chunks.iter().filter(|(number, _)| segment.name.covers(*number)).collect();
        let (old, young): (Vec<_>, Vec<_>) =
            replaced.into_iter().partition(|(_, listed)| is_old(listed, now, options.grace));
        let ready = segment.name.last < opening && is_old(&segment.listed, now, options.grace);
        done.kept += young.len() as u64;
        if !ready || old.is_empty() {
            done.kept += old.len() as u64;
            continue;
        }
        if let Err(why) = replaces(reader, keys, &segment).await {
            match why {
                JournalError::Store(why) if !why.is_not_found() => return Err(why.into()),
                why => {
                    done.kept += old.len() as u64;
                    let segment = segment.listed.key.to_string();
                    done.refused.push(Refused { segment, why: why.to_string() });
                    continue;
                }
            }
        }
        for (number, listed) in old {
            // What stands here may be another than was merged (a late request's, or a mistake): only data is ever freed.
            match reader.object(*number).await {
                Ok(object) if object.header().kind == Kind::Data => {}
                Err(JournalError::Object { .. }) => {}
                Err(why) if segments::is_absent(&why) => continue,
                Ok(_) | Err(JournalError::Misplaced { .. }) => {
                    done.kept += 1;
                    continue;
                }
                Err(why) => return Err(why),
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

/// The store's own clock, as far as its newest object shows it, and never later than this machine's: ages are differences of
/// one clock, and a clock that runs ahead on either side only makes tidying wait.
fn now_of(chunks: &[(Sequence, Listed)], listed: &[ListedSegment], newest: &[Listed]) -> DateTime<Utc> {
    let all = chunks
        .iter()
        .map(|(_, listed)| listed.modified)
        .chain(listed.iter().map(|segment| segment.listed.modified))
        .chain(newest.iter().map(|listed| listed.modified));
    all.max().map_or(DateTime::<Utc>::MIN_UTC, |newest| newest.min(Utc::now()))
}

fn is_old(listed: &Listed, now: DateTime<Utc>, grace: Duration) -> bool {
    (now - listed.modified).to_std().is_ok_and(|age| age >= grace)
}

/// Whether this segment, read now, may stand for its chunks: whole, opened where a key is at hand, and continuing the journal on
/// both sides.
async fn replaces(reader: &Reader, keys: &mut Keyring, segment: &ListedSegment) -> Result<(), JournalError> {
    let key = segment.listed.key.clone();
    let bad = |source: FormatError| JournalError::Object { key: key.clone(), source };
    let read = reader.segment_anew(&segment.name).await?;
    neighbours(reader, &segment.name, read.outline()).await?;
    let first = read.outline().chunks().first().cloned();
    let data_key = match first {
        Some(first) => match keys.for_chunk(reader, &first).await {
            Ok(data_key) => Some(data_key),
            Err(JournalError::Object { source: FormatError::KeyMissing, .. }) => None,
            Err(why) => return Err(why),
        },
        None => None,
    };
    let Some(data_key) = data_key else { return Ok(()) };
    let opened = tokio::task::spawn_blocking(move || opens(&read, data_key.as_ref())).await;
    opened
        .map_err(|_| JournalError::NotHeld { what: "the segment: reading it was cut off".to_owned() })?
        .map_err(bad)
}

fn opens(segment: &Segment, key: Option<&crate::format::DataKey>) -> Result<(), FormatError> {
    segment.check_content(key)
}

/// The chunks before and behind the segment are the ones that it continues, and that continue it: with the chain between, the
/// segment's content is the journal's.
async fn neighbours(reader: &Reader, name: &SegmentName, outline: &Outline) -> Result<(), JournalError> {
    let header = outline.header();
    let broken = |before, at| Err(JournalError::Broken { before, at });
    match name.first.get().checked_sub(1).map(Sequence::new) {
        Some(before) => {
            let former = reader.expected_header(before).await?;
            if former.after != header.before {
                return broken(before, name.first);
            }
        }
        None if header.before == reader.genesis() => {}
        None => return broken(name.first, name.first),
    }
    let Some(behind) = name.last.next() else { return broken(name.last, name.last) };
    let next: Header = reader.expected_header(behind).await?;
    match next.before == header.after {
        true => Ok(()),
        false => broken(name.last, behind),
    }
}
