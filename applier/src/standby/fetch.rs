//! Chunks in order, from where a copy stands to the journal's end, and on as it grows.
//!
//! What always holds: a chunk is given on only where its chain continues the one before; behind a gap, damage, a journal that is cut off or an incarnation that began, nothing is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use farshore_journal::format::{Header, Kind};
use farshore_journal::reader::follows;
use farshore_journal::registry::Repository;
use farshore_journal::store::Retry;
use farshore_journal::{JournalError, Offset, Sequence};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Order, StandbyError};
use crate::ahead::{Ahead, Fetched, Frames};
use crate::source::Source;

/// How long whole records wait at most for others to be committed with them, while more come.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// How often the journal's end is looked for by listing, which finds what a look at the next number alone does not: numbers that were merged, or lost.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// How often it is asked whether another incarnation began.
const INCARNATIONS_EVERY: Duration = Duration::from_secs(5);
/// How often what should not be is looked at anew before it is believed: a look amid an append may see one.
const LOOKS: u32 = 3;
/// The longest that a store that does not answer is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a store is left alone at first on the way to the journal's end.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the journal's end is fetched before it is believed that somebody goes on writing there.
const MOST_TURNS: u32 = 100;

/// Chunks in order from a place on, to the journal's end and on as it grows.
pub(super) struct Fetch<'a> {
    source: &'a Source,
    cancelled: &'a CancellationToken,
    way: Way,
    orders: mpsc::Sender<Order>,
    /// The next byte wanted.
    cursor: Offset,
    /// Where the journal ended when it was last looked for.
    stored: Option<Offset>,
    /// The chunk that is wanted, once it is known, and the one before it.
    next: Option<(Sequence, Option<Header>)>,
    /// Since when there is log that was given and nobody was told to commit yet.
    waits: Option<Instant>,
    listed: Option<Instant>,
    incarnations: Instant,
}

/// How far is fetched, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Until it is cancelled. Between two looks for the next chunk there is this time; a store that does not answer is asked for ever.
    On(Duration),
    /// To the journal's end, where nothing came behind it while it was fetched. A store that does not answer is given up soon.
    ToTheEnd,
}

/// Whether to go on.
enum Go {
    On,
    /// Nobody wants more.
    No,
    /// All that is stored was taken.
    Done,
}

impl<'a> Fetch<'a> {
    pub(super) fn new(
        source: &'a Source,
        cursor: Offset,
        way: Way,
        cancelled: &'a CancellationToken,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        let (next, waits, listed, incarnations) = (None, None, None, Instant::now());
        Self { source, cancelled, way, orders, cursor, stored: None, next, waits, listed, incarnations }
    }

    /// Where the journal ended when it was last looked for.
    pub(super) fn stored(&self) -> Option<Offset> {
        self.stored
    }

    /// Until it is cancelled, nobody takes what it fetches, it has all that it was to have (`true`), or there is a reason to end.
    pub(super) async fn run(&mut self) -> Result<bool, StandbyError> {
        let (mut failures, mut before, mut turns) = (0u32, (self.cursor, None), 0u32);
        loop {
            turns += 1;
            if self.way == Way::ToTheEnd && turns > MOST_TURNS {
                return Err(StandbyError::Grows);
            }
            let cancelled = self.cancelled.clone();
            let turn = tokio::select! {
                () = cancelled.cancelled() => return Ok(false),
                turn = self.turn() => turn,
            };
            let why = match turn {
                Ok(Go::On) => {
                    failures = 0;
                    continue;
                }
                Ok(Go::No) => return Ok(false),
                Ok(Go::Done) => return Ok(true),
                Err(StandbyError::Journal(why)) => why,
                Err(why) => return Err(why),
            };
            let at = (self.cursor, self.next.as_ref().map(|(next, _)| *next));
            failures = if at == before { failures + 1 } else { 1 };
            before = at;
            match why.retry() {
                Retry::Now | Retry::Backoff if self.way != Way::ToTheEnd || failures < LOOKS => {}
                Retry::Now | Retry::Backoff => return Err(why.into()),
                Retry::Operator | Retry::Never if failures < LOOKS => {}
                Retry::Operator | Retry::Never => return Err(why.into()),
            }
            // What came before is committed meanwhile.
            self.commit().await;
            let pause = self.every().saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            tracing::warn!(error = %why, pause_seconds = pause.as_secs_f64(), "the store could not be read; it is asked again");
            self.listed = None;
            tokio::select! {
                () = cancelled.cancelled() => return Ok(false),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn every(&self) -> Duration {
        match self.way {
            Way::On(every) => every,
            Way::ToTheEnd => PAUSE,
        }
    }

    /// Fetches what is there, or waits for a while.
    ///
    /// # Cancel safety
    /// What was not given on is fetched again by nobody: only to end.
    async fn turn(&mut self) -> Result<Go, StandbyError> {
        let reader = self.source.reader();
        let (next, before) = match &self.next {
            Some(place) => place.clone(),
            None => self.find().await?,
        };
        self.next = Some((next, before.clone()));
        let to_the_end = self.way == Way::ToTheEnd;
        if to_the_end || self.listed.is_none_or(|when| when.elapsed() >= LIST_EVERY) {
            let last = reader.last().await?.map(|chunk| (chunk.header().number, chunk.header().end));
            self.stored = last.map(|(_, end)| end);
            let last = last.map(|(number, _)| number);
            self.listed = Some(Instant::now());
            if let Some(last) = last.filter(|last| *last >= next) {
                let mut ahead = Ahead::new(self.source, next, last);
                loop {
                    let fetched = match ahead.next().await {
                        Ok(Some(fetched)) => fetched,
                        Ok(None) => break,
                        Err(JournalError::Expired { run, .. }) => {
                            return Err(StandbyError::Gap { at: self.cursor, end: Some(run.name.end) });
                        }
                        Err(why) => return Err(why.into()),
                    };
                    if let Go::No = self.take(fetched).await? {
                        return Ok(Go::No);
                    }
                }
                return Ok(self.commit().await);
            }
            if to_the_end {
                return self.still_the_newest(next).await;
            }
            if self.incarnations.elapsed() >= INCARNATIONS_EVERY {
                self.incarnations = Instant::now();
                self.still_the_newest(next).await?;
            }
        }
        match self.source.fetched_if_there(next).await? {
            Some(fetched) => self.take(fetched).await,
            None => {
                if let Go::No = self.commit().await {
                    return Ok(Go::No);
                }
                tokio::select! {
                    () = self.orders.closed() => return Ok(Go::No),
                    () = tokio::time::sleep(self.every()) => {}
                }
                Ok(Go::On)
            }
        }
    }

    /// The chunk that holds the next byte, or will, and the one before it.
    async fn find(&mut self) -> Result<(Sequence, Option<Header>), StandbyError> {
        let reader = self.source.reader();
        let last = reader.last().await?.map(|chunk| chunk.header().clone());
        self.stored = last.as_ref().map(|last| last.end);
        let last = match last {
            Some(last) if last.end >= self.cursor => last,
            other => return Err(StandbyError::Cut { end: other.map_or(Offset::new(0), |last| last.end) }),
        };
        let behind = last.number.next().unwrap_or(last.number);
        let next = reader.first_in(Sequence::FIRST, behind, |header| header.end > self.cursor).await?;
        let before = match next.get().checked_sub(1) {
            Some(before) => match reader.expected_header(Sequence::new(before)).await {
                Ok(header) => Some(header),
                // What comes next of this journal expired: it is a gap to this standby, and it must be made anew.
                Err(JournalError::Expired { run, .. }) => {
                    return Err(StandbyError::Gap { at: self.cursor, end: Some(run.name.end) });
                }
                Err(why) => return Err(why.into()),
            },
            None => None,
        };
        Ok((next, before))
    }

    /// Gives on what a chunk holds.
    async fn take(&mut self, fetched: Fetched) -> Result<Go, StandbyError> {
        let header = fetched.header.clone();
        let before = self.next.as_ref().and_then(|(_, before)| before.as_ref());
        let continues = match before {
            Some(before) => follows(before, &header),
            None => header.before == self.source.reader().genesis(),
        };
        if !continues {
            let before = before.map_or(header.number, |before| before.number);
            return Err(JournalError::Broken { before, at: header.number }.into());
        }
        match header.kind {
            Kind::Data if header.start > self.cursor => {
                return Err(StandbyError::Gap { at: self.cursor, end: Some(header.start) });
            }
            Kind::Data => {
                let mut frames = Frames::behind(self.source, fetched, self.cursor);
                while let Some((start, plain)) = frames.next().await? {
                    let skip = self.cursor.bytes_since(start).and_then(|skip| usize::try_from(skip).ok());
                    let Some(rest) = skip.filter(|skip| *skip < plain.len()).map(|skip| plain.slice(skip..))
                    else {
                        continue;
                    };
                    let bytes = rest.len() as u64;
                    if self.orders.send(Order::Log(rest)).await.is_err() {
                        return Ok(Go::No);
                    }
                    self.waits.get_or_insert_with(Instant::now);
                    self.cursor = Offset::new(self.cursor.get().saturating_add(bytes));
                }
            }
            Kind::Gap if header.end > self.cursor => {
                return Err(StandbyError::Gap { at: self.cursor, end: Some(header.end) });
            }
            _ => {}
        }
        if let Some(behind) = header.number.next() {
            self.next = Some((behind, Some(header)));
        }
        match self.waits.is_some_and(|since| since.elapsed() >= LONGEST_WAIT) {
            true => Ok(self.commit().await),
            false => Ok(Go::On),
        }
    }

    /// Has what was given committed.
    async fn commit(&mut self) -> Go {
        if self.waits.take().is_some() && self.orders.send(Order::Commit).await.is_err() {
            return Go::No;
        }
        Go::On
    }

    /// That no incarnation behind this one began, once all of this one was taken: there is nothing more then. Where one began and there is more of this one, that comes first.
    async fn still_the_newest(&self, next: Sequence) -> Result<Go, StandbyError> {
        let reader = self.source.reader();
        let own = self.source.record();
        let repository = Repository::open(Arc::clone(reader.store())).await?;
        let newest = repository.incarnations(&own.database).await?.pop();
        let Some(newest) = newest.filter(|newest| newest.number > own.number) else { return Ok(Go::Done) };
        // Nothing is appended to this one any more: what is there now is all.
        let more = reader.last().await?.is_some_and(|chunk| chunk.header().number >= next);
        match more {
            true => Ok(Go::On),
            false => Err(StandbyError::Anew {
                number: newest.number,
                incarnation: newest.incarnation,
                created: newest.created,
            }),
        }
    }
}
