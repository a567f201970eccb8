//! Jobs from rows.

use std::time::Duration;

use sqlx::any::AnyRow;

use super::{Holder, Job, JobKind, JobProgress, NewJob, Via};
use crate::row::Read as _;
use crate::{Error, Result};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select id, kind, database_name, spec, asked_by, asked_via, asked_at, wanted_node, state, attempt, holder_node, \
             holder_process, beat, silent, phase, done_bytes, total_bytes, log_at_us, eta_us, started_at, finished_at, \
             updated_at, cancel_by, cancel_at, result, problem from job ",
            $rest
        )
    };
}

/// One, by id.
pub(super) const ONE: &str = select!("where id = $1");
/// Those older than a moment and an id. Each list has a text of its own, so that each searches an index: one text for all reads what it does not list.
pub(super) const LIST: &str =
    select!("where (asked_at, id) < ($1, $2) order by asked_at desc, id desc limit $3");
/// The same of one database.
pub(super) const LIST_OF: &str = select!(
    "where database_name = $4 and (asked_at, id) < ($1, $2) order by asked_at desc, id desc limit $3"
);
/// Those of them that have not ended. They are few beside those that have: they are looked for by their states, and never by their age, for
/// which `+ 0` keeps an index from being taken.
pub(super) const LIST_UNENDED: &str = select!(
    "where state in ('queued', 'running', 'cancelling') and (asked_at + 0, id) < ($1, $2) \
     order by asked_at + 0 desc, id desc limit $3"
);
/// The same of one database.
pub(super) const LIST_UNENDED_OF: &str = select!(
    "where state in ('queued', 'running', 'cancelling') and database_name || '' = $4 and (asked_at + 0, id) < ($1, $2) \
     order by asked_at + 0 desc, id desc limit $3"
);
/// Those that have not ended: those that are being done first, so that however many wait, nobody's silence is overlooked.
pub(super) const UNENDED: &str = select!(
    "where state in ('queued', 'running', 'cancelling') \
     order by case when state = 'queued' then 1 else 0 end, asked_at, id limit $1"
);

/// Those that somebody does.
pub(super) const HELD: &str =
    select!("where state in ('running', 'cancelling') order by asked_at, id limit $1");
/// Those of one database that have not ended, in the order of [`UNENDED`].
pub(super) const UNENDED_OF: &str = select!(
    "where database_name = $1 and state in ('queued', 'running', 'cancelling') \
     order by case when state = 'queued' then 1 else 0 end, asked_at, id limit $2"
);
/// What a node may claim, in the order of turns. What names another node, and a restore that names none, is nobody's here and stands before nobody.
pub(super) const NEXT: &str = concat!(
    "with waiting as (select id, database_name, asked_at, \
     row_number() over (partition by database_name, kind order by asked_at, id) as place \
     from job where state = 'queued' and (wanted_node is null or wanted_node = $1) \
     and (kind <> 'restore' or wanted_node is not null)), \
     turn as (select id, asked_at, \
     (select count(*) from job of_same where of_same.state in ('running', 'cancelling') \
     and coalesce(of_same.database_name, '') = coalesce(waiting.database_name, '')) as held, \
     coalesce((select max(of_same.started_at) from job of_same \
     where of_same.database_name = waiting.database_name), 0) as begun \
     from waiting where place = 1) ",
    "select job.id, kind, database_name, spec, asked_by, asked_via, job.asked_at, wanted_node, state, attempt, holder_node, \
     holder_process, beat, silent, phase, done_bytes, total_bytes, log_at_us, eta_us, started_at, finished_at, \
     updated_at, cancel_by, cancel_at, result, problem from turn join job on job.id = turn.id \
     order by held, begun, job.asked_at, job.id"
);

/// A job.
pub(super) fn job(row: &AnyRow) -> Result<Job> {
    let holder = match (row.maybe_text("holder_node")?, row.maybe_text("holder_process")?) {
        (Some(node), Some(process)) => Some(Holder { node, process }),
        (None, None) => None,
        _ => return Err(Error::corrupt("holder_node", "half a holder")),
    };
    let cancel = match (row.maybe_text("cancel_by")?, row.maybe_time("cancel_at")?) {
        (Some(by), Some(at)) => Some((by, at)),
        (None, None) => None,
        _ => return Err(Error::corrupt("cancel_by", "half a wish")),
    };
    Ok(Job {
        asked: NewJob {
            id: row.text("id")?.parse()?,
            kind: row.text("kind")?.parse().unwrap_or(JobKind::Unknown),
            database: row.maybe_parsed("database_name")?,
            spec: row.text("spec")?,
            asked_by: row.text("asked_by")?,
            via: row.text("asked_via")?.parse().unwrap_or(Via::Unknown),
            wanted_node: row.maybe_text("wanted_node")?,
        },
        asked_at: row.time("asked_at")?,
        state: row.text("state")?.parse()?,
        attempt: row.count("attempt")?,
        holder,
        beat: row.count("beat")?,
        silent: row.flag("silent")?,
        progress: JobProgress {
            phase: row.maybe_text("phase")?,
            done_bytes: row.maybe_count("done_bytes")?,
            total_bytes: row.maybe_count("total_bytes")?,
            log_time: row.maybe_time("log_at_us")?,
            eta: row.maybe_count("eta_us")?.map(Duration::from_micros),
        },
        started_at: row.maybe_time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
        updated_at: row.time("updated_at")?,
        cancel,
        result: row.maybe_text("result")?,
        problem: row.maybe_text("problem")?,
    })
}
