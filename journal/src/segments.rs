//! The segments of a journal: which numbers they cover, and their objects as they are read.
//!
//! What always holds (R7 of `FORMAT.md`): tidy deletes a chunk only when its segment has stood for a whole grace. So a listing
//! of segments that is not older than an hour names a segment for every number that tidy has freed, and a number that is
//! covered is read from its segment first: what stands at a freed number may be a late request's.
//! What it does not do: it does not know whether a segment belongs to the journal; [`crate::reader`] follows whether the
//! journal continues it.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::error::JournalError;
use crate::format::segment::Outline;
use crate::format::{Decoded, FormatError, Header, Segment};
use crate::identity::Sequence;
use crate::layout::Layout;
use crate::moment::Moment;
use crate::position::{Offset, ParseError, Timeline};
use crate::store::{Listed, ObjectStore, StoreError};

/// How long a listing of segments is believed: far less than a tidy grace.
const FRESH: Duration = Duration::from_secs(3600);
/// Segments that are kept after they were read: readers go through a journal in order, some chunks ahead.
const KEPT: usize = 2;
/// Outlines that are kept: a search by halving comes back to the same ones.
const KEPT_OUTLINES: usize = 8;
/// Segments of which is remembered that they do not hold, or that their borders do.
const REMEMBERED: usize = 64;
/// Most chunks that a segment merges: their table fits one frame. A name that says more is none.
pub const MOST_CHUNKS: u64 = 21_845;
/// Bytes that are asked for first when only a segment's outline is wanted: a table of some hundred chunks.
const OUTLINE_FIRST_BYTES: u64 = 64 << 10;

/// A segment's name: its range of the log, and the chunks that were merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentName {
    /// The timeline of the range.
    pub timeline: Timeline,
    /// Its first byte.
    pub start: Offset,
    /// The byte behind its last.
    pub end: Offset,
    /// The first merged chunk.
    pub first: Sequence,
    /// The last merged chunk.
    pub last: Sequence,
}

impl SegmentName {
    /// The name that a segment's bytes say it has.
    pub fn of(outline: &Outline) -> Self {
        let header = outline.header();
        Self {
            timeline: header.timeline,
            start: header.start,
            end: header.end,
            first: header.number,
            last: outline.last(),
        }
    }

    /// Whether this chunk is one of those that were merged.
    pub fn covers(&self, number: Sequence) -> bool {
        self.first <= number && number <= self.last
    }

    /// Whether a segment can merge as many chunks as the name says.
    pub fn is_possible(&self) -> bool {
        let more = self.last.get().checked_sub(self.first.get());
        more.is_some_and(|more| (1..MOST_CHUNKS).contains(&more))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (timeline, start, end) = (self.timeline.get(), self.start.get(), self.end.get());
        write!(f, "{timeline:08x}-{start:016x}-{end:016x}-{}-{}", self.first, self.last)
    }
}

impl FromStr for SegmentName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new(text, "segment's name (timeline-start-end-first-last in hexadecimal)");
        let digits = |part: &str, wanted: usize| {
            let plain = part.len() == wanted && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            plain.then(|| u64::from_str_radix(part, 16).ok()).flatten().ok_or_else(wrong)
        };
        let parts: Vec<&str> = text.split('-').collect();
        let [timeline, start, end, first, last] = parts[..] else { return Err(wrong()) };
        Ok(Self {
            timeline: Timeline::new(digits(timeline, 8)? as u32),
            start: Offset::new(digits(start, 16)?),
            end: Offset::new(digits(end, 16)?),
            first: Sequence::new(digits(first, 16)?),
            last: Sequence::new(digits(last, 16)?),
        })
    }
}

/// What a store lists of a journal's segments.
#[derive(Debug, Clone)]
pub struct ListedSegment {
    /// Its name.
    pub name: SegmentName,
    /// As listed: its key, length and age.
    pub listed: Listed,
}

/// Lists all segments, in the order of their first chunks; names that are none are left out, `verify` reports them.
///
/// # Errors
/// When the store does not answer.
pub async fn list(store: &dyn ObjectStore, layout: &Layout) -> Result<Vec<ListedSegment>, JournalError> {
    let listed = store.list(&layout.segments()?, None, None).await?;
    let mut found: Vec<ListedSegment> = listed
        .into_iter()
        .filter_map(|listed| {
            let name: SegmentName = listed.key.name().parse().ok()?;
            name.is_possible().then_some(ListedSegment { name, listed })
        })
        .collect();
    found.sort_by_key(|segment| (segment.name.first, segment.name.last));
    Ok(found)
}

/// Reads a segment and checks that its bytes say what its name says.
///
/// # Errors
/// [`JournalError::Object`] and [`JournalError::Misplaced`] when they do not; failures of the store.
pub async fn read(
    store: &dyn ObjectStore,
    layout: &Layout,
    name: &SegmentName,
    place: &(dyn Fn(&Header) -> Option<&'static str> + Sync),
) -> Result<Segment, JournalError> {
    let key = layout.segment(name)?;
    let bytes = store.get(&key).await?;
    let segment = Decoded::parse(bytes).and_then(Segment::parse);
    let segment = segment.map_err(|source| JournalError::Object { key: key.clone(), source })?;
    misplaced(name, segment.outline(), place)
        .map_or(Ok(segment), |field| Err(JournalError::Misplaced { key, field }))
}

fn misplaced(
    name: &SegmentName,
    outline: &Outline,
    place: &(dyn Fn(&Header) -> Option<&'static str> + Sync),
) -> Option<&'static str> {
    place(outline.header()).or((SegmentName::of(outline) != *name).then_some("range"))
}

type Kept<T> = Mutex<VecDeque<(SegmentName, Arc<OnceCell<Arc<T>>>)>>;

/// One journal's segments, listed and read once for all clones of a reader.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    names: Mutex<Option<(Moment, Arc<Vec<SegmentName>>)>>,
    whole: Kept<Segment>,
    outlines: Kept<Outline>,
    /// Whether a segment may stand for its chunks, as was found since the names were listed.
    found: Mutex<VecDeque<(SegmentName, bool)>>,
}

impl Segments {
    /// The segments' names, by first chunk. `anew`: whatever is known, list again.
    pub async fn names(
        &self,
        store: &dyn ObjectStore,
        layout: &Layout,
        anew: bool,
    ) -> Result<Arc<Vec<SegmentName>>, JournalError> {
        // Never held while the store is asked: a reader may be one of many futures that are polled only between two other steps,
        // and one of those may want it.
        let known = || self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, names)) = &*known()
            && !anew
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(names));
        }
        // The age counts from before the question: what the answer lacks may have come since.
        let at = Moment::now();
        let names = list(store, layout).await?.into_iter().map(|segment| segment.name).collect();
        let names = Arc::new(names);
        let mut known = known();
        // An answer to an earlier question does not replace that to a later one.
        if known.as_ref().is_none_or(|(before, _)| !at.is_before(before)) {
            *known = Some((at, Arc::clone(&names)));
            self.found().clear();
        }
        Ok(names)
    }

    fn found(&self) -> MutexGuard<'_, VecDeque<(SegmentName, bool)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this segment was found to hold, or not to; `None` while it was not looked at.
    pub fn holds(&self, name: &SegmentName) -> Option<bool> {
        self.found().iter().find(|(known, _)| known == name).map(|(_, holds)| *holds)
    }

    /// Remembers what was found, so that a rotten segment is not fetched for each of its chunks.
    pub fn remember(&self, name: &SegmentName, holds: bool) {
        let mut found = self.found();
        found.retain(|(known, _)| known != name);
        found.push_front((*name, holds));
        found.truncate(REMEMBERED);
    }

    /// A segment's object.
    pub async fn segment(
        &self,
        store: &dyn ObjectStore,
        layout: &Layout,
        name: &SegmentName,
        place: &(dyn Fn(&Header) -> Option<&'static str> + Sync),
    ) -> Result<Arc<Segment>, JournalError> {
        let cell = kept(&self.whole, name, KEPT);
        let read = cell.get_or_try_init(|| async { read(store, layout, name, place).await.map(Arc::new) });
        read.await.cloned()
    }

    /// A segment's outline, without its log's bytes.
    pub async fn outline(
        &self,
        store: &dyn ObjectStore,
        layout: &Layout,
        name: &SegmentName,
        place: &(dyn Fn(&Header) -> Option<&'static str> + Sync),
    ) -> Result<Arc<Outline>, JournalError> {
        let cell = kept(&self.outlines, name, KEPT_OUTLINES);
        let read = cell.get_or_try_init(|| async {
            let key = layout.segment(name)?;
            let bad = |source: FormatError| JournalError::Object { key: key.clone(), source };
            let mut first = store.get_range(&key, 0..OUTLINE_FIRST_BYTES).await?;
            // Each look says how much the next must fetch: the header first, then the table.
            for _ in 0..2 {
                let want = Outline::bytes_wanted(&first).map_err(bad)?;
                if first.len() < want {
                    first = store.get_range(&key, 0..want as u64).await?;
                }
            }
            let outline = Outline::read(&first).map_err(bad)?;
            match misplaced(name, &outline, place) {
                None => Ok(Arc::new(outline)),
                Some(field) => Err(JournalError::Misplaced { key: key.clone(), field }),
            }
        });
        read.await.cloned()
    }
}

/// The cell of this name, the newest first; the oldest is let go.
fn kept<T>(cells: &Kept<T>, name: &SegmentName, most: usize) -> Arc<OnceCell<Arc<T>>> {
    let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
    let found = cells.iter().position(|(known, _)| known == name).and_then(|at| cells.remove(at));
    let entry = found.unwrap_or_else(|| (*name, Arc::default()));
    let cell = Arc::clone(&entry.1);
    cells.push_front(entry);
    cells.truncate(most);
    cell
}

/// The segments that cover `number`, of names sorted by first chunk.
pub(crate) fn covering(names: &[SegmentName], number: Sequence) -> impl Iterator<Item = &SegmentName> {
    let behind = names.partition_point(|name| name.first <= number);
    // The nearest begin is tried first. One that begins farther away than a segment can reach does not cover it.
    let near = move |name: &&SegmentName| number.get() - name.first.get() < MOST_CHUNKS;
    names[..behind].iter().rev().take_while(near).filter(move |name| name.covers(number))
}

/// Whether an error says that the object is simply not there.
pub(crate) fn is_absent(why: &JournalError) -> bool {
    matches!(why, JournalError::Store(StoreError::NotFound { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(first: u64, last: u64) -> SegmentName {
        SegmentName {
            timeline: Timeline::new(3),
            start: Offset::new(first * 10),
            end: Offset::new(last * 10 + 10),
            first: Sequence::new(first),
            last: Sequence::new(last),
        }
    }

    #[test]
    fn a_name_reads_back_and_sorts_by_range() {
        let text = name(16, 31).to_string();
        assert_eq!(text, "00000003-00000000000000a0-0000000000000140-0000000000000010-000000000000001f");
        assert_eq!(text.parse::<SegmentName>().unwrap(), name(16, 31));
        for bad in ["", "3-a0-140-10-1f", &text[1..], &format!("{text}-"), &text.to_uppercase()] {
            assert!(bad.parse::<SegmentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_is_covered_by_the_segments_that_hold_it_and_no_other() {
        let names = [name(2, 5), name(4, 9), name(12, 20)];
        let found = |number| covering(&names, Sequence::new(number)).copied().collect::<Vec<_>>();
        assert_eq!(found(1), []);
        assert_eq!(found(5), [name(4, 9), name(2, 5)]);
        assert_eq!(found(9), [name(4, 9)]);
        assert_eq!(found(10), []);
        assert_eq!(found(20), [name(12, 20)]);
    }
}
