//! Work that is asked for over a network: once, however often it is asked.
//!
//! What always holds: a key of whoever asks stands for one job, made in the same transaction as the key and the entry in the record of activity;
//! who asks again within a day gets the first answer, and who means something else by the same key is told so. Keys of others are not met. No more than
//! [`MOST_UNENDED`] jobs of a database wait or run once one was asked for.

use chrono::TimeDelta;
use sqlx::query;

use crate::activity::{Activity, activity_append_in_txn};
use crate::connection::in_local_txn;
use crate::job::{JobId, NewJob, job_put_in_txn, job_unended_count_in_txn};
use crate::row::{Read as _, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// How long an answer is kept.
pub const KEPT: TimeDelta = TimeDelta::hours(24);

/// The most jobs of one database, and of those that are of none, that wait or run when another is asked for. A service does two at a time and
/// of a kind one for a database: these are hours of work, more than anybody who asked still waits for, and few enough that a list of them is read.
pub const MOST_UNENDED: u64 = 32;

/// A question for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Who asks, by what no other ever has.
    pub by: String,
    /// What names the question, for whoever asks.
    pub key: String,
    /// A digest of what is asked.
    pub request: String,
    /// What is answered, should this be the first time.
    pub answer: String,
    /// The work.
    pub job: NewJob,
    /// What the record of activity says of it.
    pub activity: Activity,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It was asked for the first time: its job is queued.
    First,
    /// It was asked before: the first answer, and its job.
    Again {
        /// What was answered.
        answer: String,
        /// The job.
        job: JobId,
    },
    /// Something else was asked with this key.
    Otherwise,
}

impl Catalog {
    /// Puts a job into the queue, unless the same was asked before.
    ///
    /// # Errors
    /// [`Error::QueueFull`] when [`MOST_UNENDED`] wait or run; nothing is kept of the question then, and the same may be asked again. When the catalog is away: then it is not known whether it was queued, and the same may be asked again.
    pub async fn job_ask(&self, ask: &Ask, now: Time) -> Result<Told> {
        in_local_txn!(self, job_ask_in_txn(ask, now))
    }
}

/// As [`Catalog::job_ask`].
///
/// # Errors
/// [`Error::QueueFull`]: the transaction is to be given up. When the catalog is away.
pub async fn job_ask_in_txn(txn: &mut Txn, ask: &Ask, now: Time) -> Result<Told> {
    let statement = "delete from idempotency where created_at < $1";
    txn.execute("job_ask", query(statement).bind(micros(now - KEPT))).await?;
    let statement = "insert into idempotency (asked_by, idempotency_key, request, answer, job, created_at) \
                     values ($1, $2, $3, $4, $5, $6) on conflict do nothing";
    let bound = query(statement)
        .bind(ask.by.clone())
        .bind(ask.key.clone())
        .bind(ask.request.clone())
        .bind(ask.answer.clone())
        .bind(ask.job.id.to_string())
        .bind(micros(now));
    if txn.execute("job_ask", bound).await? == 1 {
        // The record's end is held from here to the commit: of those who ask at once each counts what the one before put.
        activity_append_in_txn(txn, &ask.activity).await?;
        let unended = job_unended_count_in_txn(txn, ask.job.database.as_ref()).await?;
        if unended >= MOST_UNENDED {
            let about =
                ask.job.database.as_ref().map_or_else(|| "no database".to_owned(), ToString::to_string);
            return Err(Error::QueueFull { about, unended, most: MOST_UNENDED });
        }
        job_put_in_txn(txn, &ask.job, None, now).await?;
        return Ok(Told::First);
    }
    let statement =
        "select request, answer, job from idempotency where asked_by = $1 and idempotency_key = $2";
    let bound = query(statement).bind(ask.by.clone()).bind(ask.key.clone());
    let Some(row) = txn.row("job_ask", bound).await? else {
        // Who stood in the way is gone since: its day was over.
        return Err(Error::Conflict {
            what: "idempotency key",
            name: ask.key.clone(),
            reason: "others kept changing it".to_owned(),
        });
    };
    Ok(match row.text("request")? == ask.request {
        true => Told::Again { answer: row.text("answer")?, job: row.text("job")?.parse()? },
        false => Told::Otherwise,
    })
}
