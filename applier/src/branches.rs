//! Which timelines a journal holds, and where each one's bytes are.
//!
//! What always holds: timelines rise along the journal, and offsets rise along a timeline, so both are found by halving;
//! a journal that breaks this is refused. A parent's bytes beyond a fork are held but are no part of the child's history.

use farshore_engines::postgres::log::history::{Branch as Leg, HistoryError, TimelineHistory};
use farshore_journal::format::body::TimelineBody;
use farshore_journal::format::{Header, Kind};
use farshore_journal::reader::Reader;
use farshore_journal::{JournalError, Offset, Position, Sequence, Timeline};

/// A journal whose timelines make no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BranchError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the history of a timeline in the journal does not read")]
    History(#[from] HistoryError),
    #[error("chunk {at} is on timeline {timeline}, but no timeline chunk says where that one begins")]
    NoBegin { timeline: Timeline, at: Sequence },
}

/// One timeline in the journal.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub timeline: Timeline,
    /// The first chunk on it.
    pub first: Sequence,
    /// The last chunk on it.
    pub last: Sequence,
    /// Its first byte here.
    pub begin: Offset,
    /// The first byte that is not here.
    pub end: Offset,
    /// Its history file; none for the first timeline there is.
    pub history: Option<Vec<u8>>,
    /// Whether its first byte here is where it left its parent; not so for the one on which the journal began.
    pub forked: bool,
    /// The runs of log that make up its history, oldest first.
    pub legs: Vec<Leg>,
}

/// All timelines of a journal, oldest first; never empty.
#[derive(Debug, Clone)]
pub(crate) struct Branches {
    held: Vec<Held>,
    /// The journal's last chunk.
    pub last: Header,
}

impl Branches {
    /// Reads them, and all that counted as stored; `None` for an empty journal.
    pub async fn read(reader: &Reader) -> Result<Option<Self>, BranchError> {
        match reader.last().await? {
            None => Ok(None),
            Some(last) => Self::up_to(reader, last.header().clone()).await,
        }
    }

    /// As [`read`](Self::read), as far as chunks go: for whoever follows, and decides nothing by where they end.
    pub async fn of_chunks(reader: &Reader) -> Result<Option<Self>, BranchError> {
        match reader.chunks_end().await? {
            None => Ok(None),
            Some(last) => Self::up_to(reader, last.header().clone()).await,
        }
    }

    async fn up_to(reader: &Reader, last: Header) -> Result<Option<Self>, BranchError> {
        let mut held: Vec<Held> = Vec::new();
        let mut first = reader.expected_chunk(Sequence::FIRST).await?;
        loop {
            let header = first.header().clone();
            let timeline = header.timeline;
            let (history, legs) = if header.kind == Kind::Timeline {
                let body: TimelineBody = reader.body(&first)?;
                let history = TimelineHistory::parse(timeline, &body.history)?;
                (Some(body.history), history.ancestry().collect())
            } else if held.is_empty() {
                // What came before the journal's begin is not known, and no base of ours is older. A journal that began on a
                // later timeline has its history all the same: no server recovers on one without.
                let branch = reader.branch(timeline, last.number).await?;
                (branch.map(|body| body.history), vec![Leg { timeline, begin: Offset::new(0), end: None }])
            } else {
                return Err(BranchError::NoBegin { timeline, at: header.number });
            };
            let next = match last.timeline == timeline {
                true => None,
                false => first_where(reader, header.number, last.number, |h| h.timeline > timeline).await?,
            };
            let (last_number, end) = match next {
                None => (last.number, last.end),
                Some(next) => {
                    let before = Sequence::new(next.get().saturating_sub(1));
                    match reader.expected_header(before).await {
                        Ok(header) => (before, header.end),
                        Err(JournalError::Expired { run, .. }) => (before, run.name.end),
                        Err(why) => return Err(why.into()),
                    }
                }
            };
            held.push(Held {
                timeline,
                first: header.number,
                last: last_number,
                begin: header.start,
                end,
                forked: header.kind == Kind::Timeline,
                history,
                legs,
            });
            match next {
                None => return Ok(Some(Self { held, last })),
                Some(next) => first = reader.expected_chunk(next).await?,
            }
        }
    }

    /// The newest timeline.
    pub fn newest(&self) -> Timeline {
        self.last.timeline
    }

    /// All of them, oldest first.
    pub fn all(&self) -> &[Held] {
        &self.held
    }

    /// One of them.
    pub fn get(&self, timeline: Timeline) -> Option<&Held> {
        self.held.iter().find(|held| held.timeline == timeline)
    }

    /// The first chunk of `held` whose end lies behind `offset`; `None` when there is none.
    pub async fn chunk_behind(
        &self,
        reader: &Reader,
        held: &Held,
        offset: Offset,
    ) -> Result<Option<Sequence>, JournalError> {
        if held.end <= offset {
            return Ok(None);
        }
        let behind = |header: &Header| header.end > offset;
        let (found, unread) = reader.first_beside_damage(held.first, held.last, behind).await?;
        let Some(unread) = unread else { return Ok(Some(found)) };
        // What does not read before it is not wanted, if the byte is in what does.
        match reader.searched_header(found).await {
            Ok(header) if header.start <= offset => Ok(Some(found)),
            Err(why) if !why.is_damage() => Err(why),
            _ => Ok(Some(unread)),
        }
    }

    /// The parts of `timeline`'s history from `from` up to `until`, or as far as the journal holds it, with the timeline that
    /// each lies on. The first missing byte ends it.
    pub fn stretches(&self, timeline: Timeline, from: Offset, until: Option<Offset>) -> Vec<Stretch> {
        let Some(target) = self.get(timeline) else { return Vec::new() };
        let mut found = Vec::new();
        let mut cursor = from;
        for leg in &target.legs {
            let leg_end =
                leg.end.unwrap_or(Offset::new(u64::MAX)).min(until.unwrap_or(Offset::new(u64::MAX)));
            if leg_end <= cursor {
                continue;
            }
            let Some(held) = self.get(leg.timeline) else { break };
            // A timeline's own bytes begin at the fork: what the journal has of it before that is its parent's.
            if cursor < held.begin {
                break;
            }
            let end = held.end.min(leg_end);
            if end > cursor {
                found.push(Stretch { held: held.clone(), from: cursor, to: end });
            }
            cursor = end;
            if cursor < leg_end {
                break;
            }
        }
        found
    }

    /// How far `timeline`'s history is stored without a break of timelines, seen from `from`.
    pub fn stored_end(&self, timeline: Timeline, from: Offset) -> Option<Offset> {
        self.stretches(timeline, from, None).last().map(|stretch| stretch.to)
    }

    /// Whether `position` lies in the history of `timeline`.
    pub fn is_in_history(&self, timeline: Timeline, position: Position) -> bool {
        let leg = self
            .get(timeline)
            .and_then(|held| held.legs.iter().find(|leg| leg.timeline == position.timeline));
        leg.is_some_and(|leg| leg.end.is_none_or(|end| position.offset <= end))
    }

    /// The timeline that holds the byte before `end` in `timeline`'s history: the one that names its segment.
    pub fn timeline_before(&self, timeline: Timeline, end: Offset) -> Timeline {
        let legs = self.get(timeline).map_or(&[][..], |held| &held.legs);
        legs.iter().rev().find(|leg| leg.begin < end).map_or(timeline, |leg| leg.timeline)
    }
}

/// A run of one timeline's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    pub held: Held,
    pub from: Offset,
    pub to: Offset,
}

/// The first chunk of `first..=last` for which `holds`, which is false and then true along the numbers.
async fn first_where(
    reader: &Reader,
    first: Sequence,
    last: Sequence,
    holds: impl Fn(&Header) -> bool + Send,
) -> Result<Option<Sequence>, JournalError> {
    // One number more, which is never asked for: it is the answer when there is none.
    let found = reader.first_in(first, last.next().unwrap_or(last), holds).await?;
    Ok((found <= last).then_some(found))
}
