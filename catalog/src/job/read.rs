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
/// Those older than a moment and an id, of one database or ($3 empty) of all, ended ones too unless $4.
pub(super) const LIST: &str = select!(
    "where (asked_at < $1 or (asked_at = $1 and id < $2)) and ($3 = '' or database_name = $3) \
     and ($4 = 0 or state in ('queued', 'running', 'cancelling')) order by asked_at desc, id desc limit $5"
);
/// Those that have not ended: those that are being done first, so that however many wait, nobody's silence is overlooked.
pub(super) const UNENDED: &str = select!(
    "where state in ('queued', 'running', 'cancelling') \
     order by case when state = 'queued' then 1 else 0 end, asked_at, id limit $1"
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
