//! What is recorded of all journals, by incarnation: what [`crate::fleet`] and [`crate::glance`] tell of hundreds of databases.
//!
//! What always holds: it is read in as many queries however many databases, stores and base backups there are; and [`Journal::furthest`] is the window that
//! [`crate::status`] tells of one database from all of its rows. For that not all base backups are read. Where a store's log is one range on a timeline that
//! branched from none, and no gap is known, the window begins with the first one to end of those that lie in that range: that one alone is read. Of every
//! other incarnation all are.

use std::collections::{BTreeMap, BTreeSet};

use farshore_journal::{IncarnationId, Timeline};
use sqlx::query;

use crate::backup::{self, Backup};
use crate::branch::{Branch, Line, branch_all_in_txn};
use crate::gap::{Gap, gap_all_in_txn};
use crate::packed::{Packed, PackedRow, packed};
use crate::range::{JournalRange, range_all_in_txn};
use crate::row::Read as _;
use crate::status::{Backups, furthest, newest_timeline, windows_by_store};
use crate::window::{Span, Windows};
use crate::{Result, Txn};

/// What is recorded of an incarnation's journal.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    branches: Vec<Branch>,
    ranges: Vec<JournalRange>,
    gaps: Vec<Gap>,
    /// Those that a window can begin with.
    bases: Vec<Backup>,
    /// How many there are.
    pub(crate) counted: Backups,
    /// The one that was complete last.
    pub(crate) newest: Option<Backup>,
}

/// What is recorded of all journals.
pub(crate) type Journals = BTreeMap<IncarnationId, Journal>;

macro_rules! backups {
    ($rest:literal) => {
        packed!(
            concat!(
                "(select backup.id, backup.incarnation, backup.store, backup.timeline, backup.start_offset, backup.end_offset, \
                 backup.started_at, backup.finished_at, backup.bytes, backup.stored_bytes, backup.state, backup.checked, backup.label, \
                 backup.bad_pages, backup.bad_at from ",
                $rest,
                ") one"
            );
            id, incarnation, timeline, start_offset, end_offset, started_at, finished_at, bytes, stored_bytes, state, checked, bad_pages, bad_at;
            store, label
        )
    };
}

/// Of each range the base backup that a window in it begins with, where nothing splits the range.
const FIRST: Packed = backups!(
    "journal_range join backup on backup.id = (select inner_one.id from backup inner_one \
     where inner_one.incarnation = journal_range.incarnation and inner_one.store = journal_range.store \
     and inner_one.timeline = journal_range.timeline and inner_one.end_offset <= journal_range.checked_end \
     and inner_one.state = 'complete' and inner_one.checked = 1 and inner_one.bad_at is null and inner_one.start_offset >= journal_range.start_offset \
     and inner_one.start_offset <= inner_one.end_offset order by inner_one.end_offset, inner_one.id limit 1)"
);
/// All of incarnations whose log is not whole, or has branched.
const ALL_OF_TORN: Packed = backups!(
    "backup where state = 'complete' and checked = 1 and bad_at is null and incarnation in (select incarnation from journal_gap \
     union select incarnation from branch where parent_timeline is not null \
     union select incarnation from journal_range group by incarnation, store having count(*) > 1)"
);
/// The newest of each incarnation, or several that ended in the same moment.
const NEWEST: Packed = backups!(
    "(select incarnation, max(finished_at) as finished_at from backup where state = 'complete' group by incarnation) newest \
     join backup on backup.incarnation = newest.incarnation and backup.state = 'complete' and backup.finished_at = newest.finished_at"
);
/// How many there are of each incarnation.
const COUNTED: Packed = packed!(
    "(select incarnation, count(*) as complete, count(case when checked = 1 and bad_pages > 0 then 1 end) as damaged, \
     count(case when checked = 0 then 1 end) as unopened, count(bad_at) as bad, \
     max(finished_at) as last_at from backup where state = 'complete' group by incarnation) one";
    incarnation, complete, damaged, unopened, bad, last_at
);

/// All journals.
///
/// # Errors
/// When the catalog is away.
pub(crate) async fn journals_in_txn(txn: &mut Txn) -> Result<Journals> {
    let mut all = Journals::new();
    for branch in branch_all_in_txn(txn).await? {
        all.entry(branch.incarnation).or_default().branches.push(branch);
    }
    for range in range_all_in_txn(txn).await? {
        all.entry(range.incarnation).or_default().ranges.push(range);
    }
    for gap in gap_all_in_txn(txn).await? {
        all.entry(gap.incarnation).or_default().gaps.push(gap);
    }
    // One that is read twice changes nothing: of those that can begin a window the first counts.
    for (name, asked) in [("backup_first", FIRST), ("backup_of_torn", ALL_OF_TORN)] {
        for one in txn.packed(name, asked.columns, query(asked.statement), backup::from_row).await? {
            all.entry(one.incarnation).or_default().bases.push(one);
        }
    }
    let newest = txn.packed("backup_newest", NEWEST.columns, query(NEWEST.statement), backup::from_row);
    for one in newest.await? {
        let id = one.incarnation;
        all.entry(id).or_default().newest = Some(one);
    }
    let counted = |row: &PackedRow| {
        let counted = Backups {
            count: row.count("complete")?,
            damaged: row.count("damaged")?,
            unopened: row.count("unopened")?,
            bad: row.count("bad")?,
            last_at: row.maybe_time("last_at")?,
        };
        Ok((row.parsed("incarnation")?, counted))
    };
    for (id, counted) in
        txn.packed("backup_counted", COUNTED.columns, query(COUNTED.statement), counted).await?
    {
        all.entry(id).or_default().counted = counted;
    }
    Ok(all)
}

impl Journal {
    /// The stores in which there is log of it.
    pub(crate) fn stores(&self) -> BTreeSet<&str> {
        self.ranges.iter().map(|range| range.store.as_str()).collect()
    }

    /// The newest timeline that the catalog has heard of.
    pub(crate) fn newest_timeline(&self) -> Option<Timeline> {
        newest_timeline(&self.branches, &self.ranges)
    }

    /// What can be restored along the line to a timeline by the store that reaches furthest: its newest unbroken run, its name, and all of its windows.
    pub(crate) fn furthest(&self, timeline: Timeline) -> Option<(Span, String, Windows)> {
        let line = Line::to(timeline, &self.branches);
        furthest(windows_by_store(&line, &self.ranges, &self.gaps, &self.bases))
    }

    /// The base backup that a span begins with.
    pub(crate) fn begins(&self, span: &Span) -> Option<&Backup> {
        self.bases.iter().find(|backup| backup.id == span.oldest_backup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalog, Options, drill, job, proof, recovery};

    #[tokio::test]
    async fn what_pages_of_many_databases_ask_searches_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/plan.db", folder.path().display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        for (statement, index, may_scan) in [
            // One look-up for each range; the ranges themselves are all read.
            (
                FIRST.statement,
                "SEARCH inner_one USING INDEX backup_by_end (incarnation=? AND store=? AND timeline=? AND end_offset<?",
                true,
            ),
            (COUNTED.statement, "COVERING INDEX backup_by_state", true),
            (NEWEST.statement, "COVERING INDEX backup_by_state", true),
            (job::NEWEST.statement, "COVERING INDEX job_by_outcome", true),
            (job::BAD.statement, "INDEX job_of_bad_news", true),
            (
                job::GOOD.statement,
                "SEARCH good USING INDEX job_by_outcome (kind=? AND database_name=? AND state=? AND finished_at<?)",
                true,
            ),
            (job::LISTS[0], "SEARCH job USING INDEX job_by_age", false),
            (job::LISTS[1], "SEARCH job USING INDEX job_by_database (database_name=?", false),
            (job::LISTS[2], "SEARCH job USING INDEX job_by_state (state=?", false),
            (job::LISTS[3], "SEARCH job USING INDEX job_by_state (state=?", false),
            (drill::text::LIST, "SEARCH drill USING INDEX drill_by_age", false),
            (drill::text::LIST_OF, "SEARCH drill USING INDEX drill_by_database (database_name=?", false),
            (recovery::text::MEASURED, "SEARCH drill USING INDEX drill_by_database (database_name=?", false),
            (proof::text::HISTORY, "SEARCH drill USING INDEX drill_by_age", false),
            (proof::text::HISTORY_OF, "SEARCH drill USING INDEX drill_by_database (database_name=?", false),
            (
                proof::text::DAYS.statement,
                "SEARCH drill USING COVERING INDEX drill_by_day (began_at>? AND began_at<?)",
                true,
            ),
            (
                proof::text::DAYS_OF.statement,
                "SEARCH drill USING INDEX drill_by_database (database_name=? AND began_at>? AND began_at<?)",
                true,
            ),
            (
                proof::text::DRILLED.statement,
                "USING COVERING INDEX drill_by_database (database_name=? AND began_at>?)",
                true,
            ),
            (proof::text::NEWEST.statement, "COVERING INDEX drill_by_verdict", true),
            (proof::text::NEWEST_OF.statement, "COVERING INDEX drill_by_verdict (database_name=?", true),
        ] {
            let plan = catalog.plan_of(statement).await;
            assert!(plan.contains(index), "{statement}\n{plan}");
            assert!(may_scan || !plan.contains("SCAN"), "{statement}\n{plan}");
        }
    }
}
