//! How much of a journal the catalog knows without a hole, and whether the store holds what the catalog says.
//!
//! Between two ranges there may be a recorded gap, or a recorded branch, and nothing else. Anything else is a fact that never
//! reached the catalog: a bring-up goes on from in front of it.

use farshore_catalog::Catalog;
use farshore_catalog::branch::Branch;
use farshore_catalog::gap::Gap;
use farshore_catalog::range::JournalRange;
use farshore_journal::store::StoreError;
use farshore_journal::{JournalError, Offset, Position, Sequence, backup, expiry};

use super::Held;

/// What the catalog knows of one incarnation in one store.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By their first chunk.
    pub ranges: Vec<JournalRange>,
    pub gaps: Vec<Gap>,
    pub branches: Vec<Branch>,
}

impl Known {
    pub(super) async fn read(catalog: &Catalog, held: &Held) -> farshore_catalog::Result<Self> {
        let incarnation = held.source.record().incarnation;
        let mut ranges = catalog.range_list(incarnation).await?;
        ranges.retain(|range| range.store == held.store);
        ranges.sort_by_key(|range| range.first_sequence);
        let mut gaps = catalog.gap_list(incarnation).await?;
        gaps.retain(|gap| gap.store == held.store);
        Ok(Self { ranges, gaps, branches: catalog.branch_list(incarnation).await? })
    }

    /// The last range that is known without a hole from `first` on, where the journal's first data begins.
    pub(super) fn whole_to(&self, first: Position) -> Option<&JournalRange> {
        let begins = |range: &&JournalRange| range.timeline == first.timeline && range.start <= first.offset;
        let mut whole = self.ranges.first().filter(begins)?;
        for next in self.ranges.iter().skip(1) {
            if !self.joins(whole, next) {
                break;
            }
            whole = next;
        }
        Some(whole)
    }

    /// Where the last gap before a position ends: a record starts there. Not so behind log that expired, which ends where a shipper stopped.
    pub(super) fn gap_end_before(&self, at: Position) -> Option<Offset> {
        let lost = self.gaps.iter().filter(|gap| !gap.is_expired());
        let before = lost.filter(|gap| gap.timeline == at.timeline && gap.end <= at.offset);
        before.map(|gap| gap.end).max()
    }

    /// Whether the recorded gaps and branches lead from the end of one range to the start of the next.
    fn joins(&self, former: &JournalRange, next: &JournalRange) -> bool {
        let (mut timeline, mut offset) = (next.timeline, next.start);
        // Each step goes back along a gap or to a lower timeline; there are no more of them than facts.
        for _ in 0..=self.gaps.len() + self.branches.len() {
            // A journal may hold more of a timeline than its child goes on from.
            if timeline == former.timeline && offset <= former.end && former.timeline != next.timeline {
                return true;
            }
            let behind = |gap: &&Gap| gap.timeline == timeline && gap.end == offset;
            if let Some(gap) = self.gaps.iter().find(behind) {
                if gap.timeline == former.timeline && gap.start == former.end {
                    return true;
                }
                offset = gap.start;
                continue;
            }
            let began = self.branches.iter().find(|branch| branch.timeline == timeline);
            // What is compared again after a restart may begin in front of the fork.
            match began
                .and_then(|branch| branch.fork)
                .filter(|fork| fork.at >= offset || fork.at == next.start)
            {
                Some(fork) => (timeline, offset) = (fork.parent, fork.at),
                None => return false,
            }
        }
        false
    }
}

/// Whether the store holds what the catalog says of it: the last chunk of each range ends where the range does, and each backup
/// has its manifest.
///
/// # Errors
/// When the store or the catalog does not answer.
pub(super) async fn is_held(catalog: &Catalog, held: &Held) -> anyhow::Result<bool> {
    let reader = held.source.reader();
    for range in Known::read(catalog, held).await?.ranges {
        match reader.expected_header(range.last_sequence).await {
            // The catalog may have been told of more since it was asked, but never of less.
            Ok(header) if header.timeline == range.timeline && header.end >= range.end => {}
            // The catalog remembers what the store no longer has.
            Err(JournalError::Expired { .. }) => {}
            Ok(_) | Err(JournalError::Hole { .. }) => return Ok(false),
            Err(why) => return Err(why.into()),
        }
    }
    for known in catalog.backup_list(held.source.record().incarnation).await? {
        if known.store != held.store {
            continue;
        }
        match backup::standing(reader, known.id).await {
            Ok(standing) if standing.complete.is_some() => {}
            // It expired, and whoever deleted it had the catalog forget it meanwhile; or it was another catalog's to forget.
            Ok(_) | Err(JournalError::Store(StoreError::NotFound { .. }))
                if catalog.backup_find(known.id).await?.is_none()
                    || expiry::backup_marked(reader, known.id).await?.is_some() =>
            {
                catalog.backup_delete(known.id).await?;
            }
            Ok(_) => return Ok(false),
            Err(why) if super::passed_over(&why) => return Ok(false),
            Err(why) => return Err(why.into()),
        }
    }
    Ok(true)
}

/// The start of the log segment from which a range's records are to be read again: that in which its last checked record ends, or
/// in which the range ends. A record that begins before a range's end and was not seen whole may be a commit.
pub(super) fn decoding_start(range: &JournalRange, segment_bytes: u64) -> Offset {
    checked_within(range).segment_start(segment_bytes).max(range.start)
}

/// How far a range's records were checked, short of its last byte.
pub(super) fn checked_within(range: &JournalRange) -> Offset {
    let within = Offset::new(range.end.get().saturating_sub(1));
    range.checked_end.min(within)
}

/// Where a walk goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GoOn<'a> {
    /// At the journal's first log: nothing is known from there.
    First,
    /// In the log segment in which this range is to be read again.
    In(&'a JournalRange),
    /// Nowhere: whoever ships has told more than the journal's end that the walk was given.
    Nowhere,
}

/// Where a walk up to chunk `last` goes on, when the catalog knows the journal without a hole up to `whole`.
pub(super) fn goes_on(whole: Option<&JournalRange>, last: Sequence) -> GoOn<'_> {
    match whole {
        None => GoOn::First,
        Some(whole) if whole.last_sequence > last => GoOn::Nowhere,
        Some(whole) => GoOn::In(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_catalog::branch::Fork;
    use farshore_journal::{IncarnationId, Timeline};

    const WHO: IncarnationId = IncarnationId::from_bytes([7; 16]);

    fn range(timeline: u32, start: u64, end: u64, first: u64) -> JournalRange {
        JournalRange {
            incarnation: WHO,
            store: "main".to_owned(),
            timeline: Timeline::new(timeline),
            start: Offset::new(start),
            end: Offset::new(end),
            checked_end: Offset::new(end),
            first_sequence: Sequence::new(first),
            last_sequence: Sequence::new(first + 1),
        }
    }

    fn gap(timeline: u32, start: u64, end: u64) -> Gap {
        Gap {
            incarnation: WHO,
            store: "main".to_owned(),
            timeline: Timeline::new(timeline),
            start: Offset::new(start),
            end: Offset::new(end),
            reason: "lost".to_owned(),
            seen_at: farshore_catalog::Time::default(),
        }
    }

    fn branch(timeline: u32, parent: u32, at: u64) -> Branch {
        Branch {
            incarnation: WHO,
            timeline: Timeline::new(timeline),
            fork: Some(Fork { parent: Timeline::new(parent), at: Offset::new(at) }),
            first_seen_at: farshore_catalog::Time::default(),
        }
    }

    #[test]
    fn a_walk_that_the_shipper_overtook_reads_nothing_again() {
        let told = range(1, 0, 100, 1);
        for (last, expected) in [(1, GoOn::Nowhere), (2, GoOn::In(&told)), (3, GoOn::In(&told))] {
            assert_eq!(goes_on(Some(&told), Sequence::new(last)), expected, "{last}");
        }
        assert_eq!(goes_on(None, Sequence::new(3)), GoOn::First);
    }

    /// A commit may begin before the segment's border and end behind it; where the range ends behind it too, decoding from the
    /// border would never see that commit.
    #[test]
    fn decoding_begins_where_the_last_checked_record_ends() {
        for (start, checked, end, expected) in [
            (0, 250, 250, 200),
            (0, 200, 200, 100),
            (0, 195, 250, 100),
            (0, 50, 250, 0),
            (120, 195, 250, 120),
            (120, 120, 250, 120),
        ] {
            let known = JournalRange { checked_end: Offset::new(checked), ..range(1, start, end, 1) };
            let found = decoding_start(&known, 100).get();
            assert_eq!(found, expected, "{start} {checked} {end}");
        }
    }

    /// Behind what was lost the source was taken up at a record; what expired ends wherever a shipper stopped.
    #[test]
    fn a_record_starts_behind_what_was_lost_and_not_behind_what_expired() {
        let expired = Gap { reason: farshore_catalog::gap::EXPIRED.to_owned(), ..gap(1, 300, 400) };
        let known = Known { gaps: vec![gap(1, 100, 200), expired], ..Known::default() };
        let before = |at| known.gap_end_before(Position::new(Timeline::new(1), Offset::new(at)));
        assert_eq!(before(900), Some(Offset::new(200)));
        assert_eq!(before(150), None);
    }

    #[test]
    fn a_fact_that_never_arrived_ends_what_is_known() {
        let ranges = || vec![range(1, 0, 100, 1), range(1, 200, 300, 5)];
        #[allow(clippy::type_complexity)]
        let table: Vec<(&str, Vec<JournalRange>, Vec<Gap>, Vec<Branch>, Option<u64>)> = vec![
            ("nothing", vec![], vec![], vec![], None),
            ("the first chunks are missing", vec![range(1, 50, 100, 3)], vec![], vec![], None),
            ("another timeline's", vec![range(2, 0, 100, 3)], vec![], vec![], None),
            ("one range", vec![range(1, 0, 100, 1)], vec![], vec![], Some(100)),
            ("a hole", ranges(), vec![], vec![], Some(100)),
            ("a gap between", ranges(), vec![gap(1, 100, 200)], vec![], Some(300)),
            ("two gaps between", ranges(), vec![gap(1, 100, 150), gap(1, 150, 200)], vec![], Some(300)),
            ("a gap and a hole", ranges(), vec![gap(1, 150, 200)], vec![], Some(100)),
            (
                "a branch that nobody recorded",
                vec![range(1, 0, 100, 1), range(2, 100, 300, 5)],
                vec![],
                vec![],
                Some(100),
            ),
            (
                "a branch",
                vec![range(1, 0, 100, 1), range(2, 100, 300, 5)],
                vec![],
                vec![branch(2, 1, 100)],
                Some(300),
            ),
            (
                "a branch before the parent's end",
                vec![range(1, 0, 100, 1), range(2, 80, 300, 5)],
                vec![],
                vec![branch(2, 1, 80)],
                Some(300),
            ),
            (
                "what was compared again begins before the fork",
                vec![range(1, 0, 100, 1), range(2, 64, 300, 5)],
                vec![],
                vec![branch(2, 1, 80)],
                Some(300),
            ),
            (
                "a branch behind a hole",
                vec![range(1, 0, 70, 1), range(2, 80, 300, 5)],
                vec![],
                vec![branch(2, 1, 80)],
                Some(70),
            ),
            (
                "a gap up to the fork, and one behind it",
                vec![range(1, 0, 70, 1), range(2, 90, 300, 5)],
                vec![gap(1, 70, 80), gap(2, 80, 90)],
                vec![branch(2, 1, 80)],
                Some(300),
            ),
            (
                "two branches and a hole between",
                vec![range(1, 0, 100, 1), range(3, 90, 300, 5)],
                vec![],
                vec![branch(2, 1, 80), branch(3, 2, 90)],
                // Log of timeline 2 is missing between them.
                Some(100),
            ),
            (
                "two branches at one place",
                vec![range(1, 0, 100, 1), range(3, 80, 300, 5)],
                vec![],
                vec![branch(2, 1, 80), branch(3, 2, 80)],
                Some(300),
            ),
        ];
        for (case, ranges, gaps, branches, expected) in table {
            let known = Known { ranges, gaps, branches };
            let whole = known.whole_to(Position::new(Timeline::new(1), Offset::new(0)));
            assert_eq!(whole.map(|range| range.end.get()), expected, "{case}");
        }
    }
}
