//! Long work: what was asked, who does it, and what came of it. `docs/adr/2026-11-26-jobs-in-the-catalog.md` argues it.
//!
//! What always holds: a job has one holder at most, and every word about it names the claim that it belongs to: one of an older claim changes
//! nothing, and is answered with [`Heard::Taken`]. A state changes only as [`JobState::next`] says. Times are shown, and decide nothing.
//! What it does not do: run anything, or decide that a holder is silent (`src/jobs/` does).

mod change;
mod facts;
mod kind;
mod read;
pub mod spec;
mod state;
mod turn;

use std::time::Duration;

use farshore_journal::DatabaseName;
use sqlx::query;

use self::change::Change;
pub use self::facts::JobFacts;
pub(crate) use self::facts::job_facts_in_txn;
#[cfg(test)]
pub(crate) use self::facts::{BAD, GOOD, NEWEST};
pub use self::kind::{JobId, JobKind, Via};
pub use self::state::{JobEvent, JobState};
pub use self::turn::{Busy, job_unended_count_in_txn};
use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, big, big_known, duration, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// Tries of a change that another writer was quicker at: each try sees one more of their changes.
const TRIES: usize = 32;
/// How long nothing is heard of a holder before it counts as silent, by the clock of whoever watches.
pub const LEASE: Duration = Duration::from_secs(15);
/// The lists' queries, so that the plan test sees the very texts that run.
#[cfg(test)]
pub(crate) const LISTS: [&str; 4] = [read::LIST, read::LIST_OF, read::LIST_UNENDED, read::LIST_UNENDED_OF];
/// The most jobs that one call gives.
const PAGE: u32 = 1000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub id: JobId,
    /// What is to be done.
    pub kind: JobKind,
    /// To which database, when to one.
    pub database: Option<DatabaseName>,
    /// What exactly, as JSON, without secrets.
    pub spec: String,
    /// Who asks: a user, a token's name, a schedule.
    pub asked_by: String,
    /// By which way.
    pub via: Via,
    /// The one node that may do it; `None`: any that can.
    pub wanted_node: Option<String>,
}

/// A process that does jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its machine's name.
    pub node: String,
    /// Random, anew for each process.
    pub process: String,
}

/// A claim: every word about a job that is under way names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The job.
    pub id: JobId,
    /// How often it had been claimed with this.
    pub attempt: u64,
    /// Whose it is: a catalog that forgot a claim may give its number again.
    pub process: String,
}

/// How far a job is. `None` is "not known".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// What is being done now, in a word or two.
    pub phase: Option<String>,
    /// Bytes done of [`total_bytes`](Self::total_bytes).
    pub done_bytes: Option<u64>,
    /// Bytes in all.
    pub total_bytes: Option<u64>,
    /// The commit time that has been reached in the log.
    pub log_time: Option<Time>,
    /// How long it will take yet.
    pub eta: Option<Duration>,
}

/// A job, as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What was asked for.
    pub asked: NewJob,
    /// When.
    pub asked_at: Time,
    /// How it stands.
    pub state: JobState,
    /// How often it was claimed.
    pub attempt: u64,
    /// Who does it, or did it last.
    pub holder: Option<Holder>,
    /// Rises while its holder lives.
    pub beat: u64,
    /// Whether it was called failed because nothing was heard of its holder.
    pub silent: bool,
    /// How far it is.
    pub progress: JobProgress,
    /// When it was first begun.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// When anything was last written of it.
    pub updated_at: Time,
    /// Who wanted it ended, and when.
    pub cancel: Option<(String, Time)>,
    /// What came of it, as JSON, when it succeeded.
    pub result: Option<String>,
    /// Why it failed or what it left, as an operator message in JSON.
    pub problem: Option<String>,
}

impl Job {
    /// A job's state as it is shown at a moment, or `unknown` of one that is held by who has not been heard of. Only for show: clocks of two machines
    /// may differ, and nothing is decided by it.
    pub fn word(&self, now: Time) -> &'static str {
        let silence = (now - self.updated_at).to_std().unwrap_or_default();
        match self.state.is_held() && silence >= LEASE {
            true => "unknown",
            false => self.state.word(),
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// Done; what came of it, as JSON.
    Succeeded(String),
    /// Not done; why, as an operator message in JSON.
    Failed(String),
    /// Ended as was wished; what it left, as an operator message in JSON.
    Cancelled(String),
    /// Given back undone, to be begun anew.
    GivenBack,
}

/// What who holds a job hears back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Taken note of.
    Goes,
    /// Taken note of; somebody wants it ended.
    Cancel,
    /// Not taken note of: it is somebody else's now, or has ended.
    Taken,
    /// The catalog knows no such job: it is another catalog than the one that it was begun with.
    Gone,
}

/// Which jobs are listed: newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Of this database.
    pub database: Option<DatabaseName>,
    /// Only those that have not ended.
    pub unended: bool,
    /// Older than this one.
    pub before: Option<(Time, JobId)>,
}

impl Catalog {
    /// Puts a job into the queue, or with a `holder` records one that is begun at once.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is one of this id; when the catalog is away.
    pub async fn job_put(&self, job: &NewJob, holder: Option<&Holder>, now: Time) -> Result<()> {
        in_local_txn!(self, job_put_in_txn(job, holder, now))
    }

    /// One job.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_get(&self, id: JobId) -> Result<Option<Job>> {
        in_snapshot!(self, job_get_in_txn(id))
    }

    /// Jobs, newest first, at most 1000.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_list(&self, filter: &JobFilter, limit: u32) -> Result<Vec<Job>> {
        in_snapshot!(self, job_list_in_txn(filter, limit))
    }

    /// Those that have not ended, oldest first, at most 1000; those that are held before those that wait. For show: what is to be claimed is
    /// [`Self::job_next`].
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_unended(&self) -> Result<Vec<Job>> {
        in_snapshot!(self, job_unended_in_txn())
    }

    /// Takes a queued job. `None` when somebody else was quicker, or it has ended.
    ///
    /// # Errors
    /// When the catalog is away: then it is not known whether it was claimed, and who asked must not do it.
    pub async fn job_claim(&self, id: JobId, holder: &Holder, now: Time) -> Result<Option<Claim>> {
        in_local_txn!(self, job_claim_in_txn(id, holder, now))
    }

    /// Says that a claim's holder lives, and how far it is.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_beat(&self, claim: &Claim, progress: &JobProgress, now: Time) -> Result<Heard> {
        in_local_txn!(self, job_beat_in_txn(claim, progress, now))
    }

    /// Says how a claim ended. One that was called silent may still say it.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_end(&self, claim: &Claim, end: &JobEnd, now: Time) -> Result<Heard> {
        in_local_txn!(self, job_end_in_txn(claim, end, now))
    }

    /// Wants a job ended. How it stands then; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it has ended already.
    pub async fn job_cancel(&self, id: JobId, by: &str, now: Time) -> Result<Option<JobState>> {
        in_local_txn!(self, job_cancel_in_txn(id, by, now))
    }

    /// Takes back a job of which nothing was begun: it is as if nobody had asked for it. Whether this claim held it.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_withdraw(&self, claim: &Claim) -> Result<bool> {
        in_local_txn!(self, job_withdraw_in_txn(claim))
    }

    /// Forgets jobs that ended before this. How many.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_forget(&self, before: Time) -> Result<u64> {
        in_local_txn!(self, job_forget_in_txn(before))
    }

    /// Draws the consequence from a holder's silence, unless it spoke since it was `seen` with this claim and beat: back into the queue, or
    /// failed with this problem. Whether that was done.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn job_silent(
        &self,
        seen: (JobId, u64, u64),
        problem: Option<&str>,
        now: Time,
    ) -> Result<bool> {
        in_local_txn!(self, job_silent_in_txn(seen, problem, now))
    }
}

/// As [`Catalog::job_put`].
///
/// # Errors
/// [`Error::Conflict`] when there is one of this id.
pub async fn job_put_in_txn(txn: &mut Txn, job: &NewJob, holder: Option<&Holder>, now: Time) -> Result<()> {
    let statement = "insert into job (id, kind, database_name, spec, asked_by, asked_via, asked_at, wanted_node, state, \
                     attempt, holder_node, holder_process, beat, silent, started_at, updated_at) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, 0, $13, $7) \
                     on conflict (id) do nothing";
    if job.kind == JobKind::Unknown {
        return Err(Error::Invalid { what: "job", reason: "this version knows no such work" });
    }
    let state = if holder.is_some() { JobState::Running } else { JobState::Queued };
    let bound = query(statement)
        .bind(job.id.to_string())
        .bind(job.kind.word())
        .bind(job.database.as_ref().map(ToString::to_string))
        .bind(job.spec.clone())
        .bind(job.asked_by.clone())
        .bind(job.via.word())
        .bind(micros(now))
        .bind(job.wanted_node.clone())
        .bind(state.word())
        .bind(i64::from(holder.is_some()))
        .bind(holder.map(|holder| holder.node.clone()))
        .bind(holder.map(|holder| holder.process.clone()))
        .bind(holder.map(|_| micros(now)));
    match txn.execute("job_put", bound).await? {
        0 => Err(Error::Conflict {
            what: "job",
            name: job.id.to_string(),
            reason: "there is one of this id".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// As [`Catalog::job_get`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_get_in_txn(txn: &mut Txn, id: JobId) -> Result<Option<Job>> {
    let row = txn.row("job_get", query(read::ONE).bind(id.to_string())).await?;
    row.as_ref().map(read::job).transpose()
}

/// As [`Catalog::job_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_list_in_txn(txn: &mut Txn, filter: &JobFilter, limit: u32) -> Result<Vec<Job>> {
    let (before, id) = match filter.before {
        Some((time, id)) => (micros(time), id.to_string()),
        None => (i64::MAX, String::new()),
    };
    let statement = match (&filter.database, filter.unended) {
        (None, false) => read::LIST,
        (Some(_), false) => read::LIST_OF,
        (None, true) => read::LIST_UNENDED,
        (Some(_), true) => read::LIST_UNENDED_OF,
    };
    let mut bound = query(statement).bind(before).bind(id).bind(i64::from(limit.min(PAGE)));
    if let Some(database) = &filter.database {
        bound = bound.bind(database.to_string());
    }
    txn.rows("job_list", bound).await?.iter().map(read::job).collect()
}

/// As [`Catalog::job_unended`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_unended_in_txn(txn: &mut Txn) -> Result<Vec<Job>> {
    let bound = query(read::UNENDED).bind(i64::from(PAGE));
    txn.rows("job_unended", bound).await?.iter().map(read::job).collect()
}

/// As [`Catalog::job_claim`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_claim_in_txn(txn: &mut Txn, id: JobId, holder: &Holder, now: Time) -> Result<Option<Claim>> {
    let statement = "update job set state = $1, attempt = attempt + 1, holder_node = $2, holder_process = $3, beat = 0, \
                     started_at = coalesce(started_at, $4), updated_at = $4, phase = null, done_bytes = null, \
                     total_bytes = null, log_at_us = null, eta_us = null \
                     where id = $5 and state = $6 returning attempt";
    let bound = query(statement)
        .bind(JobState::Running.word())
        .bind(holder.node.clone())
        .bind(holder.process.clone())
        .bind(micros(now))
        .bind(id.to_string())
        .bind(JobState::Queued.word());
    let Some(row) = txn.row("job_claim", bound).await? else { return Ok(None) };
    Ok(Some(Claim { id, attempt: row.count("attempt")?, process: holder.process.clone() }))
}

/// As [`Catalog::job_beat`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_beat_in_txn(
    txn: &mut Txn,
    claim: &Claim,
    progress: &JobProgress,
    now: Time,
) -> Result<Heard> {
    // One that was called silent is heard of again: it is running, as it was all the while.
    let statement = "update job set beat = beat + 1, updated_at = $1, phase = $2, done_bytes = $3, total_bytes = $4, \
                     log_at_us = $5, eta_us = $6, \
                     state = case when silent = 1 then (case when cancel_at is null then $9 else $10 end) else state end, \
                     finished_at = null, problem = null, silent = 0 \
                     where id = $7 and attempt = $8 and holder_process = $11 \
                     and (state in ($9, $10) or silent = 1) returning state";
    let bound = query(statement)
        .bind(micros(now))
        .bind(progress.phase.clone())
        .bind(big_known("count of bytes", progress.done_bytes)?)
        .bind(big_known("count of bytes", progress.total_bytes)?)
        .bind(progress.log_time.map(micros))
        .bind(progress.eta.map(|eta| duration("duration", eta)).transpose()?)
        .bind(claim.id.to_string())
        .bind(big("claim", claim.attempt)?)
        .bind(JobState::Running.word())
        .bind(JobState::Cancelling.word())
        .bind(claim.process.clone());
    match txn.row("job_beat", bound).await? {
        Some(row) => Ok(match row.text("state")?.parse()? {
            JobState::Cancelling => Heard::Cancel,
            _ => Heard::Goes,
        }),
        None => not_heard(txn, claim.id).await,
    }
}

/// As [`Catalog::job_end`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_end_in_txn(txn: &mut Txn, claim: &Claim, end: &JobEnd, now: Time) -> Result<Heard> {
    let (event, result, problem) = match end {
        JobEnd::Succeeded(result) => (JobEvent::Succeed, Some(result), None),
        JobEnd::Failed(problem) => (JobEvent::Fail, None, Some(problem)),
        JobEnd::Cancelled(problem) => (JobEvent::Stop, None, Some(problem)),
        JobEnd::GivenBack => (JobEvent::GiveBack, None, None),
    };
    for _ in 0..TRIES {
        let Some(job) = job_get_in_txn(txn, claim.id).await? else { return Ok(Heard::Gone) };
        let holds = job.attempt == claim.attempt
            && job.holder.as_ref().is_some_and(|holder| holder.process == claim.process);
        let next = job.state.next(event, job.silent).filter(|_| holds);
        let Some(next) = next else { return Ok(Heard::Taken) };
        let change = Change { next, silent: false, result, problem: problem.map(String::as_str) };
        if change.make(txn, &job, now).await? {
            return Ok(Heard::Goes);
        }
    }
    Err(busy(claim.id))
}

/// As [`Catalog::job_cancel`].
///
/// # Errors
/// [`Error::Conflict`] when it has ended already.
pub async fn job_cancel_in_txn(txn: &mut Txn, id: JobId, by: &str, now: Time) -> Result<Option<JobState>> {
    let statement = "update job set state = $1, updated_at = $2, cancel_by = coalesce(cancel_by, $3), \
                     cancel_at = coalesce(cancel_at, $2), finished_at = $4 where id = $5 and state = $6";
    for _ in 0..TRIES {
        let Some(job) = job_get_in_txn(txn, id).await? else { return Ok(None) };
        let Some(next) = job.state.next(JobEvent::Cancel, job.silent) else {
            return Err(Error::Conflict {
                what: "job",
                name: id.to_string(),
                reason: format!("it has ended already: {}", job.state),
            });
        };
        let bound = query(statement)
            .bind(next.word())
            .bind(micros(now))
            .bind(by.to_owned())
            .bind(next.is_ended().then(|| micros(now)))
            .bind(id.to_string())
            .bind(job.state.word());
        if txn.execute("job_cancel", bound).await? == 1 {
            return Ok(Some(next));
        }
    }
    Err(busy(id))
}

/// As [`Catalog::job_silent`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_silent_in_txn(
    txn: &mut Txn,
    (id, attempt, beat): (JobId, u64, u64),
    problem: Option<&str>,
    now: Time,
) -> Result<bool> {
    let Some(job) = job_get_in_txn(txn, id).await? else { return Ok(false) };
    let event = if problem.is_some() { JobEvent::FallSilent } else { JobEvent::GiveBack };
    let Some(next) = job.state.next(event, false).filter(|_| (job.attempt, job.beat) == (attempt, beat))
    else {
        return Ok(false);
    };
    let change = Change { next, silent: next == JobState::Failed, result: None, problem };
    change.make(txn, &job, now).await
}

/// As [`Catalog::job_withdraw`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_withdraw_in_txn(txn: &mut Txn, claim: &Claim) -> Result<bool> {
    let statement = "delete from job where id = $1 and attempt = $2 and holder_process = $3 \
                     and state in ('running', 'cancelling')";
    let bound = query(statement)
        .bind(claim.id.to_string())
        .bind(big("attempt", claim.attempt)?)
        .bind(claim.process.clone());
    Ok(txn.execute("job_withdraw", bound).await? > 0)
}

/// As [`Catalog::job_forget`].
///
/// # Errors
/// When the catalog is away.
pub async fn job_forget_in_txn(txn: &mut Txn, before: Time) -> Result<u64> {
    let statement =
        "delete from job where state in ('succeeded', 'failed', 'cancelled') and finished_at < $1";
    txn.execute("job_forget", query(statement).bind(micros(before))).await
}

async fn not_heard(txn: &mut Txn, id: JobId) -> Result<Heard> {
    Ok(match job_get_in_txn(txn, id).await? {
        Some(_) => Heard::Taken,
        None => Heard::Gone,
    })
}

fn busy(id: JobId) -> Error {
    Error::Conflict { what: "job", name: id.to_string(), reason: "others kept changing it".to_owned() }
}
