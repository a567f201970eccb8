//! How work last went, by kind and database, from all jobs at once.
//!
//! What always holds: a cancelled job neither succeeded nor failed; a verification that found damage and a drill that took too long were done, and
//! are no good news; what a clock that was wrong let end years ahead did not end, or it would say for years that nothing is overdue. No job's result is read but those of bad news, and of jobs of the same kind and database until one is good.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use farshore_journal::DatabaseName;
use sqlx::query;

use super::{JobKind, JobState};
use crate::packed::{Packed, PackedRow, packed};
use crate::row::{Read as _, micros};
use crate::{Result, Time, Txn};

/// How far one clock may be ahead of another.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// How one kind of job went for a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// The kind.
    pub kind: JobKind,
    /// The database; `None` for work that is of none.
    pub database: Option<DatabaseName>,
    /// How many run now.
    pub running: u64,
    /// When one last succeeded.
    pub last_success: Option<Time>,
    /// When one last failed.
    pub last_failure: Option<Time>,
}

// Word for word as the index `job_of_bad_news` has it, or it is not used.
macro_rules! bad {
    ($rest:literal) => {
        concat!(
            "from job where state = 'succeeded' and (result like '%\"sound\":false%' or result like '%\"verdict\":\"breached\"%')",
            $rest
        )
    };
}

/// The newest of each kind, database and state.
pub(crate) const NEWEST: Packed = packed!(
    "(select kind, database_name, state, count(*) as jobs, max(case when finished_at <= $1 then finished_at end) as newest from job group by kind, database_name, state) one";
    kind, database_name, state, jobs, newest
);
/// The newest of those that were done and are no good news.
pub(crate) const BAD: Packed = packed!(
    concat!(
        "(select kind, database_name, max(case when finished_at <= $1 then finished_at end) as newest ",
        bad!(" group by kind, database_name) one")
    );
    kind, database_name, newest
);
/// Where there are such, the newest good one.
pub(crate) const GOOD: Packed = packed!(
    concat!(
        "(select kind, database_name, coalesce(",
        "(select max(good.finished_at) from job good where good.kind = bad.kind and good.database_name = bad.database_name \
         and good.state = 'succeeded' and good.finished_at <= $1 and coalesce(good.result, '') not like '%\"sound\":false%' \
         and coalesce(good.result, '') not like '%\"verdict\":\"breached\"%'), ",
        "(select max(good.finished_at) from job good where good.kind = bad.kind and good.database_name is null \
         and bad.database_name is null and good.state = 'succeeded' and good.finished_at <= $1 and coalesce(good.result, '') not like '%\"sound\":false%' \
         and coalesce(good.result, '') not like '%\"verdict\":\"breached\"%')) as newest from (select distinct kind, database_name ",
        bad!(") bad) one")
    );
    kind, database_name, newest
);

type Key = (String, Option<DatabaseName>);

fn key(row: &PackedRow) -> Result<Key> {
    Ok((row.text("kind")?, row.maybe_parsed("database_name")?))
}

fn newest(row: &PackedRow) -> Result<(Key, Option<Time>)> {
    Ok((key(row)?, row.maybe_time("newest")?))
}

/// How work last went, by kind and database.
///
/// # Errors
/// When the catalog is away.
pub(crate) async fn job_facts_in_txn(txn: &mut Txn, now: Time) -> Result<Vec<JobFacts>> {
    let by_state = |row: &PackedRow| {
        let state = row.str("state")?.parse::<JobState>().ok();
        Ok((key(row)?, state, row.count("jobs")?, row.maybe_time("newest")?))
    };
    let until = micros(now + AHEAD);
    let all = txn.packed("job_newest", NEWEST.columns, query(NEWEST.statement).bind(until), by_state).await?;
    let bad = txn.packed("job_bad", BAD.columns, query(BAD.statement).bind(until), newest).await?;
    let good: BTreeMap<Key, Option<Time>> = txn
        .packed("job_good", GOOD.columns, query(GOOD.statement).bind(until), newest)
        .await?
        .into_iter()
        .collect();
    let mut facts: BTreeMap<Key, JobFacts> = BTreeMap::new();
    for (key, state, jobs, newest) in all {
        let one = facts.entry(key.clone()).or_insert_with(|| JobFacts {
            kind: key.0.parse().unwrap_or(JobKind::Unknown),
            database: key.1.clone(),
            running: 0,
            last_success: None,
            last_failure: None,
        });
        match state {
            Some(JobState::Running | JobState::Cancelling) => one.running += jobs,
            Some(JobState::Succeeded) => one.last_success = good.get(&key).copied().unwrap_or(newest),
            Some(JobState::Failed) => one.last_failure = one.last_failure.max(newest),
            Some(JobState::Queued | JobState::Cancelled) | None => {}
        }
    }
    for (key, newest) in bad {
        if let Some(one) = facts.get_mut(&key) {
            one.last_failure = one.last_failure.max(newest);
        }
    }
    Ok(facts.into_values().collect())
}
