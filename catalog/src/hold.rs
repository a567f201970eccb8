//! Standbys that somebody wants held where they are, and whether they are.
//!
//! What always holds: a standby is held for one at a time; what a wish's holder says and what whoever serves answers are about the same hold, or nothing is written.
//! What it does not do: judge whether a holder still lives. Who looks keeps the beats that he saw, by his own clock.

use farshore_journal::{DatabaseName, Offset};
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, at, at_known, big};
use crate::{Catalog, Result, Txn};

/// A standby that is to be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Whose standby.
    pub database: DatabaseName,
    /// What it calls itself.
    pub standby: String,
    /// Which hold: random, below 2^63.
    pub hold: u64,
    /// Who wants it, for people.
    pub holder: String,
    /// Rises while the holder lives.
    pub beat: u64,
    /// The end of what it may be sent; `None`: no more than it was sent.
    pub ceiling: Option<Offset>,
    /// How it is held; `None`: it is not yet.
    pub answer: Option<HoldAnswer>,
}

/// How a standby is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldAnswer {
    /// Which node serves it.
    pub node: String,
    /// The end of what was sent to it.
    pub sent: Offset,
    /// The end of what it is sent at most.
    pub at: Offset,
}

impl Catalog {
    /// Asks for a hold, where nobody else has one on the standby; who has it now. Durable on `Ok`.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn hold_take(&self, wanted: &Hold) -> Result<Hold> {
        in_local_txn!(self, hold_take_in_txn(wanted))
    }

    /// Takes a hold from another whose beat stands; whether it was as `former` still.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn hold_drop(&self, former: &Hold) -> Result<bool> {
        in_local_txn!(self, hold_drop_in_txn(former))
    }

    /// Says that the holder lives, and what he wants now; `None` when the hold is not his any more.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn hold_beat(&self, hold: u64, beat: u64, ceiling: Option<Offset>) -> Result<Option<Hold>> {
        in_local_txn!(self, hold_beat_in_txn(hold, beat, ceiling))
    }

    /// Gives a hold back.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn hold_release(&self, hold: u64) -> Result<()> {
        in_local_txn!(self, hold_release_in_txn(hold))
    }

    /// All standbys that are to be held.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn hold_list(&self) -> Result<Vec<Hold>> {
        in_snapshot!(self, hold_list_in_txn())
    }

    /// Says how one is held.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn hold_answer(&self, hold: u64, answer: &HoldAnswer) -> Result<()> {
        in_local_txn!(self, hold_answer_in_txn(hold, answer))
    }
}

/// As [`Catalog::hold_take`].
///
/// # Errors
/// When the catalog is away.
pub async fn hold_take_in_txn(txn: &mut Txn, wanted: &Hold) -> Result<Hold> {
    let statement = "insert into standby_hold (database_name, name, hold, holder, beat, ceiling) \
                     values ($1, $2, $3, $4, $5, $6) on conflict (database_name, name) do nothing";
    let bound = query(statement)
        .bind(wanted.database.to_string())
        .bind(wanted.standby.clone())
        .bind(big("hold", wanted.hold)?)
        .bind(wanted.holder.clone())
        .bind(big("beat", wanted.beat)?)
        .bind(at_known(wanted.ceiling)?);
    txn.execute("hold_take", bound).await?;
    let statement = "select * from standby_hold where database_name = $1 and name = $2";
    let bound = query(statement).bind(wanted.database.to_string()).bind(wanted.standby.clone());
    let found = txn.row("hold_take", bound).await?;
    Ok(found.as_ref().map(from_row).transpose()?.unwrap_or_else(|| wanted.clone()))
}

/// As [`Catalog::hold_drop`].
///
/// # Errors
/// When the catalog is away.
pub async fn hold_drop_in_txn(txn: &mut Txn, former: &Hold) -> Result<bool> {
    let bound = query("delete from standby_hold where hold = $1 and beat = $2")
        .bind(big("hold", former.hold)?)
        .bind(big("beat", former.beat)?);
    Ok(txn.execute("hold_drop", bound).await? == 1)
}

/// As [`Catalog::hold_beat`].
///
/// # Errors
/// When the catalog is away.
pub async fn hold_beat_in_txn(
    txn: &mut Txn,
    hold: u64,
    beat: u64,
    ceiling: Option<Offset>,
) -> Result<Option<Hold>> {
    let bound = query("update standby_hold set beat = $1, ceiling = $2 where hold = $3")
        .bind(big("beat", beat)?)
        .bind(at_known(ceiling)?)
        .bind(big("hold", hold)?);
    txn.execute("hold_beat", bound).await?;
    let bound = query("select * from standby_hold where hold = $1").bind(big("hold", hold)?);
    txn.row("hold_beat", bound).await?.as_ref().map(from_row).transpose()
}

/// As [`Catalog::hold_release`].
///
/// # Errors
/// When the catalog is away.
pub async fn hold_release_in_txn(txn: &mut Txn, hold: u64) -> Result<()> {
    let bound = query("delete from standby_hold where hold = $1").bind(big("hold", hold)?);
    txn.execute("hold_release", bound).await.map(drop)
}

/// As [`Catalog::hold_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn hold_list_in_txn(txn: &mut Txn) -> Result<Vec<Hold>> {
    let bound = query("select * from standby_hold order by database_name, name");
    txn.rows("hold_list", bound).await?.iter().map(from_row).collect()
}

/// As [`Catalog::hold_answer`].
///
/// # Errors
/// When the catalog is away.
pub async fn hold_answer_in_txn(txn: &mut Txn, hold: u64, answer: &HoldAnswer) -> Result<()> {
    let bound = query("update standby_hold set node = $1, sent = $2, held_at = $3 where hold = $4")
        .bind(answer.node.clone())
        .bind(at(answer.sent)?)
        .bind(at(answer.at)?)
        .bind(big("hold", hold)?);
    txn.execute("hold_answer", bound).await.map(drop)
}

fn from_row(row: &AnyRow) -> Result<Hold> {
    let (node, sent, at) = (row.maybe_text("node")?, row.maybe_offset("sent")?, row.maybe_offset("held_at")?);
    let answer = node.zip(sent).zip(at).map(|((node, sent), at)| HoldAnswer { node, sent, at });
    Ok(Hold {
        database: row.parsed("database_name")?,
        standby: row.text("name")?,
        hold: row.count("hold")?,
        holder: row.text("holder")?,
        beat: row.count("beat")?,
        ceiling: row.maybe_offset("ceiling")?,
        answer,
    })
}
