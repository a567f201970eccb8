//! A change of a job's state, and its entry in the record of activity once the job has ended.

use sqlx::query;

use super::{Job, JobState};
use crate::activity::{Activity, activity_append_in_txn};
use crate::row::{big, micros};
use crate::{Result, Time, Txn};

/// A change of a job's state.
pub(super) struct Change<'a> {
    pub(super) next: JobState,
    pub(super) silent: bool,
    pub(super) result: Option<&'a String>,
    pub(super) problem: Option<&'a str>,
}

impl Change<'_> {
    /// Makes it, unless anything was written of the job since it was read as `seen`.
    pub(super) async fn make(&self, txn: &mut Txn, seen: &Job, now: Time) -> Result<bool> {
        let statement = "update job set state = $1, silent = $2, result = $3, problem = $4, updated_at = $5, finished_at = $6, \
                         phase = null, eta_us = null, log_at_us = null, \
                         done_bytes = case when $1 = 'queued' then null else done_bytes end, \
                         total_bytes = case when $1 = 'queued' then null else total_bytes end \
                         where id = $7 and attempt = $8 and beat = $9 and state = $10 and silent = $11";
        let bound = query(statement)
            .bind(self.next.word())
            .bind(i64::from(self.silent))
            .bind(self.result.cloned())
            .bind(self.problem.map(str::to_owned))
            .bind(micros(now))
            .bind(self.next.is_ended().then(|| micros(now)))
            .bind(seen.asked.id.to_string())
            .bind(big("claim", seen.attempt)?)
            .bind(big("beat", seen.beat)?)
            .bind(seen.state.word())
            .bind(i64::from(seen.silent));
        if txn.execute("job_change", bound).await? != 1 {
            return Ok(false);
        }
        say_end(txn, seen, self.next, now).await?;
        Ok(true)
    }
}

/// Says in the record of activity what became of what somebody asked for, once it has ended.
async fn say_end(txn: &mut Txn, job: &Job, next: JobState, now: Time) -> Result<()> {
    if !next.is_ended() {
        return Ok(());
    }
    let node = job.holder.as_ref().map_or("nobody", |holder| holder.node.as_str());
    let activity = Activity {
        at: now,
        who: job.asked.asked_by.clone(),
        what: format!("{} {next}", job.asked.kind),
        database: job.asked.database.clone(),
        detail: format!("{}, asked for by {}, done by {node}", job.asked.id, job.asked.via),
    };
    activity_append_in_txn(txn, &activity).await.map(drop)
}
