//! Reading an incarnation's journal: chunks by number, the end, and the keys that open them.
//!
//! What always holds: a chunk that is given out has its checksums, its place (store, incarnation, number) and its own steps of
//! the chain verified; that it continues the chunk before is [`follows`], which whoever walks the journal asks. A chunk that was
//! listed and is not found is doubt, asked for again, and never taken for the end. A chunk that a segment covers is read from
//! there, and from its own object only when the segment does not read (R7).
//! What it does not do: it never writes, and it does not know what the log's bytes mean.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::chunk::Chunk;
use crate::error::JournalError;
use crate::expired::{self, ExpiredRun, Runs};
use crate::format::body::{self, IncarnationRecord, OpeningBody, TimelineBody};
use crate::format::segment::Outline;
use crate::format::{ChainValue, Cipher, DataKey, Decoded, FormatError, Header, Kind, Segment, Unlock};
use crate::identity::{Generation, IncarnationId, Sequence, StoreId};
use crate::layout::Layout;
use crate::position::{Position, Timeline};
use crate::registry::Repository;
use crate::segments::{self, SegmentName, Segments};
use crate::store::{Key, ObjectStore, StoreError};

/// How often a listed object that is not found is asked for again, and how long between: a listing may run ahead of
/// reads on some stores for a second or two.
const DOUBT_TRIES: u32 = 5;
const DOUBT_PAUSE: Duration = Duration::from_millis(400);
/// How many chunks that do not read are stepped over in one search. Being sure of a hole takes time, and a journal with more of them is no matter of one
/// bad object.
const STEPPED_OVER: u32 = 8;
/// How often an end is looked for again that has moved on while it was.
const CHASED: usize = 4;
/// Names that are listed at a time behind the journal's end, where one is expected, or none.
const LISTED: usize = 16;
/// Runs that are looked at at once.
const RUNS_AT_ONCE: usize = 16;

/// One incarnation's journal in one store, to be read.
#[derive(Debug, Clone)]
pub struct Reader {
    store: Arc<dyn ObjectStore>,
    store_id: StoreId,
    incarnation: IncarnationId,
    genesis: ChainValue,
    layout: Layout,
    segments: Arc<Segments>,
    runs: Arc<Runs>,
    /// How many chunks the journal is known to have: its end never moves back, so the next search begins here.
    known: Arc<AtomicU64>,
}

impl Reader {
    /// The journal of the incarnation that this record founded. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// Never in practice: every name is a key.
    pub fn new(repository: &Repository, record: &IncarnationRecord) -> Result<Self, JournalError> {
        let layout = Layout::new(&record.database, record.incarnation)?;
        Ok(Self {
            store: Arc::clone(repository.store()),
            store_id: repository.id(),
            incarnation: record.incarnation,
            genesis: ChainValue::genesis(record),
            layout,
            segments: Arc::default(),
            runs: Arc::default(),
            known: Arc::default(),
        })
    }

    /// The names of the incarnation's objects.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The store's id.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// The incarnation's id.
    pub fn incarnation(&self) -> IncarnationId {
        self.incarnation
    }

    /// The chain value before the first chunk.
    pub fn genesis(&self) -> ChainValue {
        self.genesis
    }

    /// The object at a chunk's number, whole and in its place, whatever segments say: for the owner of the newest chunks, and
    /// for whoever looks at objects.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the store has no such number; [`JournalError::Object`] or
    /// [`JournalError::Misplaced`] when its bytes are not what was written there.
    pub async fn object(&self, sequence: Sequence) -> Result<Decoded, JournalError> {
        let key = self.layout.chunk(sequence)?;
        let bytes = self.store.get(&key).await?;
        self.check(&key, sequence, bytes)
    }

    /// One chunk, from the segment that covers it or its own object.
    ///
    /// # Errors
    /// As [`object`](Self::object).
    pub async fn chunk(&self, sequence: Sequence) -> Result<Chunk, JournalError> {
        self.look(sequence, false).await
    }

    async fn look(&self, sequence: Sequence, anew: bool) -> Result<Chunk, JournalError> {
        let names = self.segment_names(anew).await?;
        let mut bad = None;
        for name in segments::covering(&names, sequence) {
            if self.segments.holds(name) == Some(false) {
                bad = Some(*name);
                continue;
            }
            match self.segment(name).await {
                Ok(segment) => {
                    if let Some(which) = segment.outline().position(sequence) {
                        return Ok(Chunk::Merged { segment, which });
                    }
                }
                // Its own object is as good, if it is still there.
                Err(why) if segments::is_absent(&why) || !matches!(why, JournalError::Store(_)) => {
                    self.segments.remember(name, false);
                    bad = Some(*name);
                }
                Err(why) => return Err(why),
            }
        }
        match (self.object(sequence).await, bad) {
            (Ok(object), _) => match self.expired_at(sequence, anew).await? {
                // A request that came a day late: the number was freed.
                Some(run) if !run.fits(object.header()) => {
                    Err(JournalError::Expired { number: sequence, run })
                }
                _ => Ok(Chunk::Own(Arc::new(object))),
            },
            (Err(why), bad) if segments::is_absent(&why) => {
                match (self.expired_at(sequence, anew).await?, bad) {
                    // A segment of it that was put late, or whose followers are gone already, is no finding.
                    (Some(run), _) => Err(JournalError::Expired { number: sequence, run }),
                    // What is wrong with the segment that should hold it.
                    (None, Some(bad)) if anew => match self.segment(&bad).await {
                        Err(why) => Err(why),
                        Ok(_) => {
                            Err(JournalError::Misplaced { key: self.layout.segment(&bad)?, field: "range" })
                        }
                    },
                    (None, _) => Err(why),
                }
            }
            (Err(why), _) => Err(why),
        }
    }

    /// The expired run that covers a number, if it is one of this journal: where the number has no chunk, it was deleted because no rule kept it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn expired_at(
        &self,
        sequence: Sequence,
        anew: bool,
    ) -> Result<Option<Arc<ExpiredRun>>, JournalError> {
        let names = self.runs.names(&*self.store, &self.layout, anew).await?;
        for name in expired::covering(&names, sequence) {
            let found = match self.runs.found(name) {
                Some(found) => found,
                None => {
                    let found = self.run(name).await?.map(Arc::new);
                    self.runs.remember(name, found.clone());
                    found
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The run of this name, if what it says is true of the two chunks beside it, which are never deleted: they bind all its fields.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn run(&self, name: &SegmentName) -> Result<Option<ExpiredRun>, JournalError> {
        let Some(run) = self.read_run(name).await? else { return Ok(None) };
        let before = name.first.get().checked_sub(1).map(Sequence::new);
        let (Some(before), Some(behind)) = (before, name.last.next()) else { return Ok(None) };
        // One that rots must not make a hole of what expired beside it: the other still speaks. Whoever reads it meets the damage.
        let mut beside = [None, None];
        for (place, number) in beside.iter_mut().zip([before, behind]) {
            match self.object(number).await {
                Ok(object) => *place = Some(object.header().clone()),
                Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
                Err(_) => {}
            }
        }
        Ok(run.stands_between(beside[0].as_ref(), beside[1].as_ref()).then_some(run))
    }

    /// The runs of this journal of which anything was deleted, in order. What is left of them is nothing that a walk through the journal reads.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn runs_begun(&self) -> Result<Vec<Arc<ExpiredRun>>, JournalError> {
        let names = self.runs.names(&*self.store, &self.layout, true).await?;
        self.begun(names.iter().copied().collect()).await
    }

    /// As [`runs_begun`](Self::runs_begun), of the runs that reach to chunk `from` or beyond, by a list that may be an hour old: one whose chunks are gone has stood for longer.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn runs_begun_from(&self, from: Sequence) -> Result<Vec<Arc<ExpiredRun>>, JournalError> {
        let names = self.runs.names(&*self.store, &self.layout, false).await?;
        self.begun(names.iter().filter(|name| name.last >= from).copied().collect()).await
    }

    async fn begun(&self, names: Vec<SegmentName>) -> Result<Vec<Arc<ExpiredRun>>, JournalError> {
        let asked = stream::iter(names).map(|name| async move {
            match self.expected_header(name.first).await {
                Err(JournalError::Expired { run, .. }) => Ok(Some(run)),
                Err(JournalError::Store(why)) => Err(JournalError::from(why)),
                // A chunk that does not read is whoever reads it's to say.
                Ok(_) | Err(_) => Ok(None),
            }
        });
        let begun: Vec<Option<Arc<ExpiredRun>>> = asked.buffered(RUNS_AT_ONCE).try_collect().await?;
        let mut begun: Vec<Arc<ExpiredRun>> = begun.into_iter().flatten().collect();
        begun.sort_by_key(|run| run.name.first);
        Ok(begun)
    }

    /// The header of a chunk that is expected to be there, or of one that expired what a search by halving needs of it: its generation, writer and timeline,
    /// and an end that is its run's start.
    ///
    /// # Errors
    /// As [`expected_chunk`](Self::expected_chunk), but for [`JournalError::Expired`].
    pub async fn searched_header(&self, sequence: Sequence) -> Result<Header, JournalError> {
        match self.expected_header(sequence).await {
            Err(JournalError::Expired { number, run }) => Ok(run.stand_in(number)),
            other => other,
        }
    }

    /// A run as it stands in the store; `None` when it does not read, or is gone.
    async fn read_run(&self, name: &SegmentName) -> Result<Option<ExpiredRun>, JournalError> {
        let foreign = |header: &Header| self.foreign(header);
        match expired::read(&*self.store, &self.layout, name, &foreign).await {
            Ok(run) => Ok(Some(run)),
            Err(JournalError::Store(why)) if !why.is_not_found() => Err(why.into()),
            Err(_) => Ok(None),
        }
    }

    /// The chunk's own object, where the segment that it was read from does not open: it must be the very same chunk.
    ///
    /// # Errors
    /// As [`object`](Self::object); [`JournalError::Broken`] when it is another.
    pub async fn own_object(&self, merged: &Header) -> Result<Chunk, JournalError> {
        let object = self.object(merged.number).await?;
        match (object.header().before, object.header().after) == (merged.before, merged.after) {
            true => Ok(Chunk::Own(Arc::new(object))),
            false => Err(JournalError::Broken { before: merged.number, at: merged.number }),
        }
    }

    /// A chunk that a listing or a later chunk says is there: not found is doubt.
    ///
    /// # Errors
    /// [`JournalError::Hole`] when it stays away; otherwise as [`chunk`](Self::chunk).
    pub async fn expected_chunk(&self, sequence: Sequence) -> Result<Chunk, JournalError> {
        for attempt in 0..DOUBT_TRIES {
            // It may have been merged and freed since the segments were listed, and so may the chunk that continues its segment.
            match self.look(sequence, attempt > 0).await {
                Err(JournalError::Store(StoreError::NotFound { .. })) => {}
                Err(JournalError::Broken { .. }) if attempt + 1 < DOUBT_TRIES => {}
                other => return other,
            }
            if attempt > 0 {
                tokio::time::sleep(DOUBT_PAUSE).await;
            }
        }
        Err(JournalError::Hole { missing: sequence })
    }

    /// The header of a chunk that is expected to be there; that of a merged one is read without the log's bytes.
    ///
    /// # Errors
    /// As [`expected_chunk`](Self::expected_chunk).
    pub async fn expected_header(&self, sequence: Sequence) -> Result<Header, JournalError> {
        let names = self.segment_names(false).await?;
        for name in segments::covering(&names, sequence) {
            if self.segments.holds(name) == Some(false) {
                continue;
            }
            if let Ok(outline) = self.outline(name).await
                && self.borders_hold(name, &outline).await?
                && let Some(header) = outline.position(sequence).and_then(|which| outline.chunks().get(which))
            {
                return Ok(header.clone());
            }
        }
        Ok(self.expected_chunk(sequence).await?.header().clone())
    }

    /// The names of the journal's segments, sorted by first chunk; from at most an hour ago unless asked `anew`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn segment_names(&self, anew: bool) -> Result<Arc<Vec<SegmentName>>, JournalError> {
        self.segments.names(&*self.store, &self.layout, anew).await
    }

    /// A segment of this journal, whole in everything that can be checked without a key, and continued by the journal.
    ///
    /// # Errors
    /// [`JournalError::Object`] and [`JournalError::Misplaced`] when its bytes are not what its name says;
    /// [`JournalError::Broken`] when no chunk behind it continues it.
    pub async fn segment(&self, name: &SegmentName) -> Result<Arc<Segment>, JournalError> {
        let place = |header: &Header| self.foreign(header);
        let segment = self.segments.segment(&*self.store, &self.layout, name, &place).await?;
        match self.borders_hold(name, segment.outline()).await? {
            true => Ok(segment),
            false => Err(JournalError::Broken { before: name.first, at: name.last }),
        }
    }

    async fn outline(&self, name: &SegmentName) -> Result<Arc<Outline>, JournalError> {
        let place = |header: &Header| self.foreign(header);
        self.segments.outline(&*self.store, &self.layout, name, &place).await
    }

    /// Whether a segment may stand for its chunks: the journal must continue it. Its last chain value then is the journal's, and
    /// with it everything before, for the chain takes no other bytes to the same value. A segment with nothing behind it is not
    /// needed yet: tidy leaves its chunks alone. Looked at once for each listing.
    async fn borders_hold(&self, name: &SegmentName, outline: &Outline) -> Result<bool, JournalError> {
        if let Some(holds) = self.segments.holds(name) {
            return Ok(holds);
        }
        let holds = self.is_continued(outline).await?;
        self.segments.remember(name, holds);
        Ok(holds)
    }

    /// Follows the chain from behind a segment to the next chunk that has an object of its own. Where chunks have none left, every
    /// segment that continues the value is followed, and one that does not is none of the journal's.
    async fn is_continued(&self, outline: &Outline) -> Result<bool, JournalError> {
        let names = self.segment_names(false).await?;
        let mut open = vec![(outline.last(), outline.header().after)];
        let mut seen = HashSet::new();
        while let Some((last, after)) = open.pop() {
            let Some(behind) = last.next().filter(|_| seen.insert((last, after))) else { continue };
            match self.object(behind).await {
                Ok(object) if object.header().before == after => return Ok(true),
                Ok(_) => continue,
                Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
                Err(_) => {}
            }
            for name in segments::covering(&names, behind) {
                match self.outline(name).await {
                    Ok(next) => {
                        let which = next.position(behind).and_then(|which| next.chunks().get(which));
                        if which.is_some_and(|chunk| chunk.before == after) {
                            open.push((next.last(), next.header().after));
                        }
                    }
                    Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
                    // One that does not read leads nowhere.
                    Err(_) => {}
                }
            }
        }
        Ok(false)
    }

    /// As [`segment`](Self::segment), and read from the store now, not remembered.
    ///
    /// # Errors
    /// As [`segment`](Self::segment).
    pub async fn segment_anew(&self, name: &SegmentName) -> Result<Segment, JournalError> {
        segments::read(&*self.store, &self.layout, name, &|header: &Header| self.foreign(header)).await
    }

    /// The field by which an object is of another store or journal.
    fn foreign(&self, header: &Header) -> Option<&'static str> {
        if header.store != self.store_id {
            Some("store id")
        } else if header.incarnation != self.incarnation {
            Some("incarnation id")
        } else {
            None
        }
    }

    /// Checks bytes that were read at a chunk's name.
    fn check(&self, key: &Key, sequence: Sequence, bytes: Bytes) -> Result<Decoded, JournalError> {
        let decoded =
            Decoded::parse(bytes).map_err(|source| JournalError::Object { key: key.clone(), source })?;
        let header = decoded.header();
        let misplaced = if !header.kind.is_chunk() {
            Some("kind")
        } else if header.number != sequence {
            Some("number")
        } else {
            self.foreign(header)
        };
        match misplaced {
            Some(field) => Err(JournalError::Misplaced { key: key.clone(), field }),
            None => Ok(decoded),
        }
    }

    /// The last chunk, or `None` while there is none, whatever a tail holds behind it: [`last`](Self::last) is what decisions are made by.
    ///
    /// Numbers are dense, so the end is found by galloping and halving over "is there an object"; a listing then shows
    /// whether anything stands behind it. Beside a writer it is the last of some moment since it was asked.
    ///
    /// # Errors
    /// [`JournalError::Hole`] when the number behind the end is missing but later ones are there;
    /// [`JournalError::Broken`] when the last chunk does not continue the one before it.
    pub async fn chunks_end(&self) -> Result<Option<Chunk>, JournalError> {
        let mut end = self.end().await?;
        let mut chased = 0;
        loop {
            match self.listed_behind(end.get().checked_sub(1).map(Sequence::new)).await? {
                // A writer appended meanwhile. One that never pauses is not chased for ever: what stood at the end at one of these moments is an answer, since what
                // stands behind it is no hole.
                Some(number) if number == end && chased == CHASED => break,
                Some(number) if number == end => {
                    chased += 1;
                    end = self.end_from(number.get().saturating_add(1)).await?;
                }
                Some(_) => match self.expected_chunk(end).await {
                    Ok(_) => end = end.next().unwrap_or(end),
                    Err(why) => return Err(why),
                },
                None => break,
            }
        }
        let Some(last) = end.get().checked_sub(1).map(Sequence::new) else { return Ok(None) };
        let chunk = self.expected_chunk(last).await?;
        match last.get().checked_sub(1).map(Sequence::new) {
            None if chunk.header().before == self.genesis() => {}
            None => return Err(JournalError::Broken { before: last, at: last }),
            Some(before) => match self.expected_header(before).await {
                Ok(former) => self.check_follows(&former, chunk.header())?,
                Err(JournalError::Expired { run, .. })
                    if run.name.last == before && run.header.after == chunk.header().before => {}
                Err(JournalError::Expired { .. }) => return Err(JournalError::Broken { before, at: last }),
                Err(why) => return Err(why),
            },
        }
        self.known.fetch_max(end.get(), Ordering::Relaxed);
        Ok(Some(chunk))
    }

    /// The first chunk that a listing shows behind `after`. Names that are no number are stepped over: they are not ours, and
    /// must not hide what stands behind them; `verify` reports them.
    async fn listed_behind(&self, after: Option<Sequence>) -> Result<Option<Sequence>, JournalError> {
        // A segment behind the end says that chunks were there: they are lost, not unwritten.
        let names = self.segment_names(false).await?;
        let merged =
            names.iter().map(|name| name.first).filter(|first| after.is_none_or(|after| *first > after));
        if let Some(first) = merged.min() {
            return Ok(Some(first));
        }
        let mut after = after.map(|number| self.layout.chunk(number)).transpose()?;
        loop {
            let page = self.store.list(self.layout.journal(), after.as_ref(), Some(LISTED)).await?;
            if let Some(number) = page.iter().find_map(|listed| listed.key.name().parse().ok()) {
                return Ok(Some(number));
            }
            let Some(last) = page.last() else { return Ok(None) };
            after = Some(last.key.clone());
        }
    }

    /// Where the last chunk that the store shows says that it ends; with very many holes before it, one that is there. It is for being told beside damage, where [`last`](Self::last) fails because that chunk
    /// does not stand on the ones before it: they are not read. Nothing may be restored, appended or released by it.
    ///
    /// `None` where there is no chunk.
    ///
    /// # Errors
    /// As [`expected_chunk`](Self::expected_chunk), of that chunk alone.
    pub async fn claimed_end(&self) -> Result<Option<Position>, JournalError> {
        let mut end = self.end().await?;
        // Once for each hole.
        for _ in 0..STEPPED_OVER {
            match self.listed_behind(end.get().checked_sub(1).map(Sequence::new)).await? {
                Some(behind) => end = self.end_from(behind.get()).await?.max(end),
                None => break,
            }
        }
        let Some(last) = end.get().checked_sub(1).map(Sequence::new) else { return Ok(None) };
        Ok(Some(self.expected_header(last).await?.end_position()))
    }

    /// The first number without an object, as far as numbers go that no segment covers.
    async fn end(&self) -> Result<Sequence, JournalError> {
        self.end_from(self.known.load(Ordering::Relaxed)).await
    }

    /// The first number without an object at or behind `present`, below which all are there or were.
    async fn end_from(&self, mut present: u64) -> Result<Sequence, JournalError> {
        let mut step = 1u64;
        let mut absent = present.saturating_add(step);
        while self.is_there(Sequence::new(absent - 1)).await? {
            present = absent;
            step = step.saturating_mul(2);
            absent = absent.saturating_add(step);
        }
        // Everything below `present` is there; the object before `absent` is not.
        while present.saturating_add(1) < absent {
            let middle = present + (absent - present) / 2;
            match self.is_there(Sequence::new(middle - 1)).await? {
                true => present = middle,
                false => absent = middle,
            }
        }
        Ok(Sequence::new(present))
    }

    async fn is_there(&self, sequence: Sequence) -> Result<bool, JournalError> {
        let names = self.segment_names(false).await?;
        if segments::covering(&names, sequence).next().is_some() {
            return Ok(true);
        }
        match self.store.size(&self.layout.chunk(sequence)?).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(self.expired_at(sequence, false).await?.is_some()),
            Err(why) => Err(why.into()),
        }
    }

    /// Whether `next` continues `former`, in its chain, its number, its writer and its range.
    ///
    /// # Errors
    /// [`JournalError::Broken`] when it does not.
    pub fn check_follows(&self, former: &Header, next: &Header) -> Result<(), JournalError> {
        match follows(former, next) {
            true => Ok(()),
            false => Err(JournalError::Broken { before: former.number, at: next.number }),
        }
    }

    /// The first chunk up to `at` for which `holds`, found by halving: once it holds it must hold for every later chunk, as
    /// it does for "generation at least" and "timeline at least". `at` itself when it holds for none before.
    ///
    /// # Errors
    /// As [`expected_chunk`](Self::expected_chunk).
    pub async fn first_where(
        &self,
        at: Sequence,
        holds: impl Fn(&Header) -> bool + Send,
    ) -> Result<Chunk, JournalError> {
        let low = self.first_in(Sequence::FIRST, at, holds).await?;
        self.expected_chunk(low).await
    }

    /// The first number of `first..=last` whose header `holds`, found by halving as [`first_where`](Self::first_where) does;
    /// `last` when it holds for none before.
    ///
    /// Where chunks that do not read may hold, the first of them is given: whoever reads it meets the damage. Of expired chunks
    /// [`searched_header`](Self::searched_header) is asked: what is found for an offset may begin behind it.
    ///
    /// # Errors
    /// As [`first_beside_damage`](Self::first_beside_damage).
    pub async fn first_in(
        &self,
        first: Sequence,
        last: Sequence,
        holds: impl Fn(&Header) -> bool + Send,
    ) -> Result<Sequence, JournalError> {
        let (found, unread) = self.first_beside_damage(first, last, holds).await?;
        Ok(unread.unwrap_or(found))
    }

    /// The first number of `first..=last` whose header is read and `holds`, or `last`; and the first of the chunks directly before it that do not
    /// read, and so may hold. A chunk that does not read may be far from what is looked for: the nearest before it that does is
    /// asked in its place.
    ///
    /// # Errors
    /// As [`expected_chunk`](Self::expected_chunk): those of the store, and those of a chunk where many do not read.
    pub async fn first_beside_damage(
        &self,
        first: Sequence,
        last: Sequence,
        holds: impl Fn(&Header) -> bool + Send,
    ) -> Result<(Sequence, Option<Sequence>), JournalError> {
        let (mut low, mut high) = (first.get(), last.get());
        // Where the run of those that do not read begins that ends before `low`.
        let mut unread = None;
        let mut left = STEPPED_OVER;
        while low < high {
            let middle = low + (high - low) / 2;
            let mut asked = middle;
            let header = loop {
                match self.searched_header(Sequence::new(asked)).await {
                    Ok(header) => break Some(header),
                    Err(why) if !why.is_damage() || left == 0 => return Err(why),
                    Err(_) if asked > low => asked -= 1,
                    Err(_) => break None,
                }
                left -= 1;
            };
            match header {
                Some(header) if holds(&header) => high = asked,
                Some(_) => (unread, low) = ((asked < middle).then_some(asked + 1), middle + 1),
                None => (unread, low) = (unread.or(Some(low)), middle + 1),
            }
        }
        Ok((Sequence::new(low), unread.map(Sequence::new)))
    }

    /// The opening of `generation`. Generations never fall along the numbers.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`] when no such generation opened at or before `at`.
    pub async fn opening(&self, generation: Generation, at: Sequence) -> Result<OpeningBody, JournalError> {
        let chunk = self.first_where(at, |header| header.generation >= generation).await?;
        let header = chunk.header();
        if header.generation != generation || header.kind != Kind::Opening {
            return Err(JournalError::NotHeld { what: format!("the opening of generation {generation}") });
        }
        self.body(&chunk)
    }

    /// The chunk that began `timeline`; `None` when the journal began on it without one. Timelines never fall along the
    /// numbers.
    ///
    /// # Errors
    /// As [`expected_chunk`](Self::expected_chunk); [`JournalError::Object`] when its body does not read.
    pub async fn branch(
        &self,
        timeline: Timeline,
        at: Sequence,
    ) -> Result<Option<TimelineBody>, JournalError> {
        let mut chunk = self.first_where(at, |header| header.timeline >= timeline).await?;
        loop {
            let header = chunk.header();
            match header.kind {
                _ if header.timeline != timeline => return Ok(None),
                Kind::Timeline => return self.body(&chunk).map(Some),
                // A journal that begins on a later timeline has its opening before the timeline's chunk.
                Kind::Opening if header.number < at => {}
                _ => return Ok(None),
            }
            let next = header.number.next().unwrap_or(at);
            chunk = match self.expected_chunk(next).await {
                Ok(chunk) => chunk,
                // Data, then.
                Err(JournalError::Expired { .. }) => return Ok(None),
                Err(why) => return Err(why),
            };
        }
    }

    /// The JSON body of an opening, timeline or gap chunk.
    ///
    /// # Errors
    /// [`JournalError::Object`] when it does not read.
    pub fn body<T: serde::de::DeserializeOwned>(&self, chunk: &Chunk) -> Result<T, JournalError> {
        let read = chunk.plain(0, None).and_then(|plain| body::from_json("chunk's body", &plain));
        let key = self.layout.chunk(chunk.header().number)?;
        read.map_err(|source| JournalError::Object { key, source })
    }
}

/// Whether `next` continues `former`: the number behind it, its chain value, its writer unless it is an opening of a higher
/// generation, and its range where the former's ended. A timeline's chunk alone may step back, to its fork.
pub fn follows(former: &Header, next: &Header) -> bool {
    let same_writer = next.generation == former.generation && next.writer == former.writer;
    let same_place = next.timeline == former.timeline && next.start == former.end;
    former.number.next() == Some(next.number)
        && next.before == former.after
        && match next.kind {
            Kind::Opening => next.generation > former.generation && same_place,
            Kind::Data | Kind::Gap => same_writer && same_place,
            Kind::Timeline => same_writer && next.timeline >= former.timeline,
            _ => false,
        }
}

/// The data keys of journals' generations, opened as they are met.
#[derive(Debug)]
pub struct Keyring {
    unlock: Unlock,
    opened: HashMap<(IncarnationId, Generation), Option<DataKey>>,
}

impl Keyring {
    /// A ring that opens data keys with these private keys.
    pub fn new(unlock: Unlock) -> Self {
        Self { unlock, opened: HashMap::new() }
    }

    /// Opens what was not opened so far with these private keys.
    pub fn go_on_with(&mut self, unlock: Unlock) {
        self.unlock = unlock;
    }

    /// The data key under which a data chunk is sealed; `None` when its generation does not encrypt, and for other chunks, which
    /// never are.
    ///
    /// The generation's opening decides, not the chunk: a chunk in the clear among sealed ones is a forgery.
    ///
    /// # Errors
    /// [`JournalError::Object`] with [`FormatError::KeyMissing`] or [`FormatError::Key`] when no private key at hand
    /// opens the generation's, or with [`FormatError::Field`] when chunk and opening do not agree.
    pub async fn for_chunk(
        &mut self,
        reader: &Reader,
        header: &Header,
    ) -> Result<Option<DataKey>, JournalError> {
        if header.kind != Kind::Data {
            return Ok(None);
        }
        let at = (reader.incarnation(), header.generation);
        let key = reader.layout().chunk(header.number)?;
        let bad = |source| JournalError::Object { key: key.clone(), source };
        let data_key = match self.opened.get(&at) {
            Some(data_key) => data_key.clone(),
            None => {
                let opening = reader.opening(header.generation, header.number).await?;
                let wrapped = opening.key.as_ref();
                let data_key = wrapped.map(|wrapped| self.unlock.unwrap(wrapped)).transpose().map_err(bad)?;
                self.opened.insert(at, data_key.clone());
                data_key
            }
        };
        match data_key.is_some() == (header.cipher == Cipher::Aes256Gcm) {
            true => Ok(data_key),
            false => Err(bad(FormatError::Field { field: "cipher" })),
        }
    }
}
