//! Runs of chunks that no rule keeps: `FORMAT.md` section 13. What a reader learns from them about numbers that are gone.
//!
//! What always holds: a run hides nothing that is there; whoever reads asks for the chunk first. A list of runs is not older than an hour, and a
//! run has stood for a day before any of its numbers is freed, so a number that was freed is named by a run that is known.
//! What it does not do: it does not read the chunks beside a run; [`crate::reader`] does, and holds it against them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::JournalError;
use crate::format::{Decoded, FormatError, Header, Kind, body};
use crate::identity::Sequence;
use crate::layout::Layout;
use crate::moment::Moment;
use crate::segments::SegmentName;
use crate::store::{Listed, ObjectStore};

/// How long a list of runs is believed: far less than a run stands before its numbers are freed.
const FRESH: Duration = Duration::from_secs(3600);
/// The largest object that is read as a run.
const RUN_BYTES: u64 = 64 << 10;

/// What a run says besides its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredBody {
    /// Its last chunk.
    pub last: Sequence,
    /// The machine that put it.
    pub host: String,
    /// When, RFC 3339. Information only: the grace counts by the store's clock.
    pub marked: String,
    /// Which rule let it go.
    pub reason: String,
}

/// All data chunks between two that are none, of which no rule keeps any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredRun {
    /// Its name, made as a segment's is.
    pub name: SegmentName,
    /// The chunks' generation, writer and timeline, the range of the log, and the chain before the first and behind the last.
    pub header: Header,
    /// What else it says.
    pub body: ExpiredBody,
}

impl ExpiredRun {
    /// Whether these are the two chunks beside it. Neither is data, and so neither is ever deleted: the one before binds the run's generation, writer, timeline, start
    /// and the chain before it, the one behind the chain behind it and with it all that stood between.
    /// One that does not read is passed over, if the other does.
    pub fn stands_between(&self, before: Option<&Header>, behind: Option<&Header>) -> bool {
        let run = &self.header;
        let is_border = |header: &Header| header.kind.is_chunk() && header.kind != Kind::Data;
        let begins = |before: &Header| {
            is_border(before)
                && before.number.next() == Some(self.name.first)
                && (before.generation, before.writer, before.timeline)
                    == (run.generation, run.writer, run.timeline)
                && before.end == run.start
                && before.after == run.before
        };
        let ends = |behind: &Header| {
            is_border(behind)
                && self.name.last.next() == Some(behind.number)
                && behind.before == run.after
                && (behind.kind == Kind::Timeline
                    || (behind.timeline, behind.start) == (run.timeline, run.end))
        };
        (before.is_some() || behind.is_some()) && before.is_none_or(begins) && behind.is_none_or(ends)
    }

    /// Whether an object at one of its numbers can be the chunk that stood there.
    pub fn fits(&self, object: &Header) -> bool {
        let run = &self.header;
        object.kind == Kind::Data
            && (object.generation, object.writer, object.timeline)
                == (run.generation, run.writer, run.timeline)
    }

    /// What a search by halving is told of a number that is gone.
    pub fn stand_in(&self, number: Sequence) -> Header {
        Header { kind: Kind::Data, number, end: self.header.start, ..self.header.clone() }
    }
}

/// Numbers that runs cover, for whoever asks about very many of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<(Sequence, Sequence)>);

impl Spans {
    /// Of these names, which may overlap.
    pub fn of(names: impl IntoIterator<Item = SegmentName>) -> Self {
        let mut all: Vec<(Sequence, Sequence)> =
            names.into_iter().map(|name| (name.first, name.last)).collect();
        all.sort_unstable();
        let mut spans: Vec<(Sequence, Sequence)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match spans.last_mut().filter(|span| first <= span.1) {
                Some(span) => span.1 = span.1.max(last),
                None => spans.push((first, last)),
            }
        }
        Self(spans)
    }

    /// Whether one of them covers a number.
    pub fn covers(&self, number: Sequence) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= number);
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| number <= *last)
    }
}

/// A run as a store lists it.
#[derive(Debug, Clone)]
pub struct ListedRun {
    /// Its name.
    pub name: SegmentName,
    /// As listed: its key, length and age.
    pub listed: Listed,
}

/// Lists all runs, in the order of their first chunks; names that are none are left out, `verify` reports them.
///
/// # Errors
/// When the store does not answer.
pub async fn list(store: &dyn ObjectStore, layout: &Layout) -> Result<Vec<ListedRun>, JournalError> {
    let listed = store.list(&layout.expired()?, None, None).await?;
    let mut found: Vec<ListedRun> = listed
        .into_iter()
        .filter_map(|listed| {
            let name: SegmentName = listed.key.name().parse().ok()?;
            (name.first <= name.last && listed.size <= RUN_BYTES).then_some(ListedRun { name, listed })
        })
        .collect();
    found.sort_by_key(|run| (run.name.first, run.name.last));
    Ok(found)
}

/// Reads a run and checks that its bytes say what its name says.
///
/// # Errors
/// [`JournalError::Object`] and [`JournalError::Misplaced`] when they do not; failures of the store.
pub async fn read(
    store: &dyn ObjectStore,
    layout: &Layout,
    name: &SegmentName,
    foreign: &(dyn Fn(&Header) -> Option<&'static str> + Sync),
) -> Result<ExpiredRun, JournalError> {
    let key = layout.expired_run(name)?;
    let bytes = store.get_range(&key, 0..RUN_BYTES).await?;
    let bad = |source: FormatError| JournalError::Object { key: key.clone(), source };
    let object = Decoded::parse(bytes).map_err(bad)?;
    let header = object.header().clone();
    let body: ExpiredBody =
        object.plain(0, None).and_then(|plain| body::from_json("expired run", &plain)).map_err(bad)?;
    let said = SegmentName {
        timeline: header.timeline,
        start: header.start,
        end: header.end,
        first: header.number,
        last: body.last,
    };
    let misplaced = if header.kind != Kind::Expired { Some("kind") } else { foreign(&header) }
        .or((said != *name).then_some("range"));
    match misplaced {
        None => Ok(ExpiredRun { name: *name, header, body }),
        Some(field) => Err(JournalError::Misplaced { key, field }),
    }
}

/// What is known of one journal's runs, for all clones of a reader.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    names: Mutex<Option<(Moment, Arc<Vec<SegmentName>>)>>,
    /// Those that were looked at; `None` for one that is none of this journal's. Forgotten with each list.
    known: Mutex<HashMap<SegmentName, Option<Arc<ExpiredRun>>>>,
}

impl Runs {
    /// The runs' names; from at most an hour ago unless asked `anew`.
    pub async fn names(
        &self,
        store: &dyn ObjectStore,
        layout: &Layout,
        anew: bool,
    ) -> Result<Arc<Vec<SegmentName>>, JournalError> {
        let listed = || self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, names)) = &*listed()
            && !anew
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(names));
        }
        // The age counts from before the question.
        let at = Moment::now();
        let names: Arc<Vec<SegmentName>> =
            Arc::new(list(store, layout).await?.into_iter().map(|run| run.name).collect());
        let mut listed = listed();
        if listed.as_ref().is_none_or(|(before, _)| !at.is_before(before)) {
            *listed = Some((at, Arc::clone(&names)));
            self.known().clear();
        }
        Ok(names)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SegmentName, Option<Arc<ExpiredRun>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found of a run; `None` while it was not looked at.
    pub fn found(&self, name: &SegmentName) -> Option<Option<Arc<ExpiredRun>>> {
        self.known().get(name).cloned()
    }

    /// Remembers what was found.
    pub fn remember(&self, name: &SegmentName, found: Option<Arc<ExpiredRun>>) {
        self.known().insert(*name, found);
    }
}

/// The runs that cover `number`, of names sorted by first chunk.
pub(crate) fn covering(names: &[SegmentName], number: Sequence) -> impl Iterator<Item = &SegmentName> {
    let behind = names.partition_point(|name| name.first <= number);
    names[..behind].iter().rev().filter(move |name| name.covers(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Offset, Timeline};

    #[test]
    fn spans_cover_what_one_of_their_names_covers_and_nothing_between() {
        let name = |first, last| SegmentName {
            timeline: Timeline::new(1),
            start: Offset::new(0),
            end: Offset::new(1),
            first: Sequence::new(first),
            last: Sequence::new(last),
        };
        let names = [name(40, 50), name(2, 9), name(45, 60), name(46, 47), name(11, 11), name(61, 61)];
        let spans = Spans::of(names);
        for number in (0..70).map(Sequence::new) {
            assert_eq!(spans.covers(number), names.iter().any(|name| name.covers(number)), "{number}");
        }
        assert!(!Spans::of([]).covers(Sequence::FIRST));
    }
}
