//! The gaps of a journal, for whoever must be told what can be reached: found among its small objects, read by their heads.
//!
//! Log that expired is a gap to whoever restores, and is known by its runs.
//!
//! A gap's chunk holds one line of text, so it is smaller than almost every chunk of log. Nothing of a plan rests on this: a plan
//! reads the log that it will replay, and meets every gap in it.

use farshore_journal::format::header::HEADER_BYTES;
use farshore_journal::format::{Header, Kind};
use farshore_journal::reader::Reader;
use farshore_journal::{JournalError, Offset, Position, Timeline};
use futures::stream::{self, StreamExt};

use super::Window;
use crate::branches::Branches;

/// No gap's chunk is larger: head, frame, trailer, and a reason of some lines.
const LARGEST: u64 = 8 << 10;
/// How many objects are looked into, some at a time: a refusal must come while somebody waits for it.
const MOST: usize = 20_000;
const AT_ONCE: usize = 32;

/// Log that the journal says it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    start: Position,
    end: Offset,
}

impl Lost {
    /// What of it lies in the history of `timeline`: what a parent has beyond a fork is no part of it.
    fn within(self, branches: &Branches, timeline: Timeline) -> Option<Self> {
        let held = branches.get(timeline)?;
        let leg = held.legs.iter().find(|leg| leg.timeline == self.start.timeline)?;
        let start = Position::new(self.start.timeline, self.start.offset.max(leg.begin));
        let end = leg.end.map_or(self.end, |left| left.min(self.end));
        (start.offset < end).then_some(Self { start, end })
    }
}

/// Log that expired. There are few runs, so it is known also where there are too many objects to look for gaps.
async fn expired(reader: &Reader) -> Result<Vec<Lost>, JournalError> {
    let runs = reader.runs_begun().await?;
    let lost = |run: &std::sync::Arc<farshore_journal::expired::ExpiredRun>| Lost {
        start: Position::new(run.header.timeline, run.header.start),
        end: run.header.end,
    };
    Ok(runs.iter().map(lost).collect())
}

/// Ends each window of `timeline` where the first gap behind its beginning starts, be it lost or expired, and says so when there were too many objects to
/// look into for the lost ones.
pub(super) async fn end_at_gaps(
    reader: &Reader,
    branches: &Branches,
    timeline: Timeline,
    windows: &mut Vec<Window>,
) -> Result<(), JournalError> {
    let lost = lost(reader).await?;
    let looked_for = lost.is_some();
    let all = expired(reader).await?.into_iter().chain(lost.into_iter().flatten());
    let in_history: Vec<Lost> = all.filter_map(|lost| lost.within(branches, timeline)).collect();
    for window in windows.iter_mut() {
        let behind = in_history.iter().map(|lost| lost.start.offset).filter(|at| *at >= window.from);
        window.to = behind.min().map_or(window.to, |at| at.min(window.to));
        window.gaps_looked_for |= looked_for;
    }
    // A backup that itself lies across a gap is none.
    windows.retain(|window| {
        !in_history.iter().any(|lost| lost.start.offset < window.from && window.from < lost.end)
    });
    Ok(())
}

/// All gaps; `None` when there are too many small objects.
async fn lost(reader: &Reader) -> Result<Option<Vec<Lost>>, JournalError> {
    let mut listed = reader.store().list(reader.layout().journal(), None, None).await?;
    listed.retain(|listed| listed.size <= LARGEST);
    if listed.len() > MOST {
        return Ok(None);
    }
    let heads = stream::iter(listed).map(|listed| async move {
        let read = reader.store().get_range(&listed.key, 0..HEADER_BYTES as u64).await;
        match read {
            // One that does not read is no gap; whoever needs it meets it.
            Ok(bytes) => Ok(Header::decode(&bytes).ok().filter(|header| header.kind == Kind::Gap)),
            Err(why) if why.is_not_found() => Ok(None),
            Err(why) => Err(JournalError::from(why)),
        }
    });
    let mut heads = std::pin::pin!(heads.buffer_unordered(AT_ONCE));
    let mut found = Vec::new();
    while let Some(head) = heads.next().await {
        if let Some(header) = head? {
            found.push(Lost { start: Position::new(header.timeline, header.start), end: header.end });
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use farshore_journal::expiry::{self, Marking};
    use farshore_journal::format::body::TimelineBody;
    use farshore_journal::writer::encode_timeline;
    use farshore_journal::{BackupId, Sequence};

    use super::*;
    use crate::fixture::{SEGMENT, data, founded, opened, quiet};

    /// What a base at `from` reaches along `timeline`.
    async fn reached(reader: &Reader, timeline: u32, from: u64) -> Vec<(u64, u64)> {
        let branches = Branches::read(reader).await.unwrap().unwrap();
        let timeline = Timeline::new(timeline);
        let mut windows = vec![Window {
            base: BackupId::from_bytes([1; 16]),
            timeline,
            from: Offset::new(SEGMENT + from),
            to: branches.stored_end(timeline, Offset::new(SEGMENT)).unwrap(),
            finished: String::new(),
            to_time: None,
            to_transaction: None,
            gaps_looked_for: false,
        }];
        end_at_gaps(reader, &branches, timeline, &mut windows).await.unwrap();
        windows.iter().map(|window| (window.from.get() - SEGMENT, window.to.get() - SEGMENT)).collect()
    }

    /// Drills choose their points from these spans, and refusals name them.
    #[tokio::test]
    async fn a_base_reaches_to_where_log_expired_and_no_further() {
        let (_, reader) = founded().await;
        // Chunks 1 to 3, 5 to 8, and 10 to 13, of which the last two are beyond a fork.
        opened(&reader, 3).await;
        opened(&reader, 4).await;
        let mut writer = opened(&reader, 4).await;
        let fork = Offset::new(SEGMENT + 900);
        let body = TimelineBody {
            parent: Timeline::new(1),
            parent_end: writer.stored().offset,
            history: format!("1\t{fork}\tx\n").into_bytes(),
        };
        let branch = Position::new(Timeline::new(2), fork);
        let (chunk, _) = encode_timeline(writer.place(), branch, &body).unwrap();
        writer.append(&chunk, &quiet).await.unwrap();
        data(&mut writer, 3).await;
        opened(&reader, 2).await;

        let marking =
            Marking { host: "test".to_owned(), at: chrono::Utc::now(), reason: "not kept".to_owned() };
        let run = |first, last| (Sequence::new(first), Sequence::new(last));
        let first = expiry::mark_run(&reader, run(5, 8), &marking).await.unwrap();
        assert_eq!(reached(&reader, 2, 150).await, [(150, 1400)], "nothing of it went");
        let left = expiry::Leftovers::list(&reader, (first.name.first, first.name.last)).await.unwrap();
        expiry::delete_run(&reader, &first, &left, &|| true).await.unwrap();
        assert_eq!(reached(&reader, 2, 150).await, [(150, 300)]);
        assert_eq!(reached(&reader, 2, 500).await, [], "a base within what expired is none");
        assert_eq!(reached(&reader, 2, 750).await, [(750, 1400)]);
        // What its parent had beyond the fork is nothing that a timeline lacks.
        let second = expiry::mark_run(&reader, run(10, 13), &marking).await.unwrap();
        expiry::delete_run(&reader, &second, &left, &|| true).await.unwrap();
        assert_eq!(reached(&reader, 2, 150).await, [(150, 300)]);
        assert_eq!(reached(&reader, 2, 950).await, [(950, 1400)]);
    }
}
