//! What falls due by a clock, and up to when it was answered.
//!
//! What always holds: a due time is answered once, whoever watches, and with its job in the same transaction; what was answered moves forward only, but where a clock had been ahead
//! ([`Catalog::schedule_restart`]). What it does not do: compute when something is due (`src/jobs/schedule.rs` does).

use farshore_journal::DatabaseName;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::job::{JobId, JobKind, NewJob, job_put_in_txn};
use crate::packed::{Packed, packed};
use crate::row::{Read, micros};
use crate::{Catalog, Result, Time, Txn};

/// A schedule: one kind of work for one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The database.
    pub database: DatabaseName,
    /// What is done.
    pub kind: JobKind,
    /// When, as a cron expression.
    pub cron: String,
    /// In this zone.
    pub zone: String,
    /// The newest due time that was answered.
    pub due: Time,
    /// The job that last answered one.
    pub job: Option<JobId>,
}

impl Catalog {
    /// Records a schedule that is seen for the first time, or whose expression is another one now; nothing is due for it up to its `due`. As it
    /// stands then.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn schedule_put(&self, schedule: &Schedule, now: Time) -> Result<Schedule> {
        in_local_txn!(self, schedule_put_in_txn(schedule, now))
    }

    /// Answers a due time: with a job, or by leaving it out. Whether it was not answered yet.
    ///
    /// # Errors
    /// When the catalog is away: then it is not known whether it was answered.
    pub async fn schedule_answer(
        &self,
        (database, kind, due): (&DatabaseName, JobKind, Time),
        job: Option<&NewJob>,
        now: Time,
    ) -> Result<bool> {
        in_local_txn!(self, schedule_answer_in_txn((database, kind, due), job, now))
    }

    /// Takes back a due time that lies ahead, where it is still the `known` one: nothing is due up to `due`, and everything behind it is. Whether
    /// it was.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn schedule_restart(&self, known: &Schedule, due: Time, now: Time) -> Result<bool> {
        in_local_txn!(self, schedule_restart_in_txn(known, due, now))
    }

    /// All schedules that any service ever had, by database and kind.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn schedule_list(&self) -> Result<Vec<Schedule>> {
        in_snapshot!(self, schedule_list_in_txn())
    }
}

/// As [`Catalog::schedule_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn schedule_put_in_txn(txn: &mut Txn, schedule: &Schedule, now: Time) -> Result<Schedule> {
    // What was answered stays answered, also where another expression would have been due before.
    let statement = "insert into schedule (database_name, kind, cron, zone, due_us, job, updated_at) \
                     values ($1, $2, $3, $4, $5, null, $6) \
                     on conflict (database_name, kind) do update set \
                     due_us = case when (schedule.cron <> excluded.cron or schedule.zone <> excluded.zone) \
                     and schedule.due_us < excluded.due_us then excluded.due_us else schedule.due_us end, \
                     cron = excluded.cron, zone = excluded.zone, updated_at = excluded.updated_at \
                     returning database_name, kind, cron, zone, due_us, job";
    let bound = query(statement)
        .bind(schedule.database.to_string())
        .bind(schedule.kind.word())
        .bind(schedule.cron.clone())
        .bind(schedule.zone.clone())
        .bind(micros(schedule.due))
        .bind(micros(now));
    match txn.row("schedule_put", bound).await? {
        Some(row) => from_row(&row),
        None => Ok(schedule.clone()),
    }
}

/// As [`Catalog::schedule_answer`].
///
/// # Errors
/// When the catalog is away.
pub async fn schedule_answer_in_txn(
    txn: &mut Txn,
    (database, kind, due): (&DatabaseName, JobKind, Time),
    job: Option<&NewJob>,
    now: Time,
) -> Result<bool> {
    let statement = "update schedule set due_us = $1, job = coalesce($2, job), updated_at = $3 \
                     where database_name = $4 and kind = $5 and due_us < $1";
    let bound = query(statement)
        .bind(micros(due))
        .bind(job.map(|job| job.id.to_string()))
        .bind(micros(now))
        .bind(database.to_string())
        .bind(kind.word());
    if txn.execute("schedule_answer", bound).await? == 0 {
        return Ok(false);
    }
    if let Some(job) = job {
        job_put_in_txn(txn, job, None, now).await?;
    }
    Ok(true)
}

/// As [`Catalog::schedule_restart`].
///
/// # Errors
/// When the catalog is away.
pub async fn schedule_restart_in_txn(txn: &mut Txn, known: &Schedule, due: Time, now: Time) -> Result<bool> {
    let statement = "update schedule set due_us = $1, updated_at = $2 \
                     where database_name = $3 and kind = $4 and due_us = $5 and due_us > $1";
    let bound = query(statement)
        .bind(micros(due))
        .bind(micros(now))
        .bind(known.database.to_string())
        .bind(known.kind.word())
        .bind(micros(known.due));
    Ok(txn.execute("schedule_restart", bound).await? > 0)
}

/// As [`Catalog::schedule_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn schedule_list_in_txn(txn: &mut Txn) -> Result<Vec<Schedule>> {
    const ALL: Packed = packed!("schedule"; database_name, kind, due_us, job; cron, zone);
    let mut all = txn.packed("schedule_list", ALL.columns, query(ALL.statement), from_row).await?;
    all.sort_by(|a: &Schedule, b| (&a.database, a.kind.word()).cmp(&(&b.database, b.kind.word())));
    Ok(all)
}

fn from_row(row: &impl Read) -> Result<Schedule> {
    Ok(Schedule {
        database: row.parsed("database_name")?,
        kind: row.str("kind")?.parse().unwrap_or(JobKind::Unknown),
        cron: row.text("cron")?,
        zone: row.text("zone")?,
        due: row.time("due_us")?,
        job: row.maybe_str("job")?.map(str::parse).transpose()?,
    })
}
