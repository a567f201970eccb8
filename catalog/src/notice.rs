//! What was last told to people of a database, and by which service: of several one tells.
//!
//! What always holds: what was told changes only from what it was known to be ([`Catalog::notice_claim`] tests the old row), so that of
//! any number of services that see the same change one claims it. A claim that no channel took stays undelivered, and may be
//! claimed again by anybody. What it does not do: decide what is worth telling (`src/notify/transition.rs` does).

use farshore_journal::DatabaseName;
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, big, micros};
use crate::{Catalog, Result, Time, Txn};

/// What was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Of which database.
    pub database: DatabaseName,
    /// Of what: `state`, or a kind of work.
    pub topic: String,
    /// How it stood.
    pub word: String,
    /// Tells one event of this word from the next, in microseconds; 0 where there is one only.
    pub mark: i64,
    /// How often it recovered of late.
    pub turns: u64,
    /// When it was told.
    pub told_at: Time,
    /// By which node.
    pub node: String,
    /// Whether a channel took it.
    pub delivered: bool,
}

impl Catalog {
    /// What was last told of each database and topic.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn notice_list(&self) -> Result<Vec<Notice>> {
        in_snapshot!(self, notice_list_in_txn())
    }

    /// Takes it upon a node to tell `now`, where `before` was told last. Whether nobody else did meanwhile.
    ///
    /// # Errors
    /// When the catalog is away: then it is not known whether it was claimed, and what was not delivered is claimed again later.
    pub async fn notice_claim(&self, before: Option<&Notice>, now: &Notice) -> Result<bool> {
        in_local_txn!(self, notice_claim_in_txn(before, now))
    }

    /// A channel took it; nothing happens when something else was told since.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn notice_delivered(&self, notice: &Notice) -> Result<()> {
        in_local_txn!(self, notice_delivered_in_txn(notice))
    }
}

async fn notice_list_in_txn(txn: &mut Txn) -> Result<Vec<Notice>> {
    let statement = "select database_name, topic, word, mark, turns, told_at, node, delivered from notice \
                     order by database_name, topic";
    txn.rows("notice_list", query(statement)).await?.iter().map(from_row).collect()
}

async fn notice_claim_in_txn(txn: &mut Txn, before: Option<&Notice>, now: &Notice) -> Result<bool> {
    let changed = match before {
        None => {
            let statement = "insert into notice (database_name, topic, word, mark, turns, told_at, node, delivered) \
                             values ($1, $2, $3, $4, $5, $6, $7, 0) on conflict (database_name, topic) do nothing";
            let bound = query(statement)
                .bind(now.database.to_string())
                .bind(now.topic.clone())
                .bind(now.word.clone())
                .bind(now.mark)
                .bind(big("turns", now.turns)?)
                .bind(micros(now.told_at))
                .bind(now.node.clone());
            txn.execute("notice_claim", bound).await?
        }
        Some(before) => {
            let statement = "update notice set word = $1, mark = $2, turns = $3, told_at = $4, node = $5, delivered = 0 \
                             where database_name = $6 and topic = $7 and word = $8 and mark = $9 and told_at = $10";
            let bound = query(statement)
                .bind(now.word.clone())
                .bind(now.mark)
                .bind(big("turns", now.turns)?)
                .bind(micros(now.told_at))
                .bind(now.node.clone())
                .bind(before.database.to_string())
                .bind(before.topic.clone())
                .bind(before.word.clone())
                .bind(before.mark)
                .bind(micros(before.told_at));
            txn.execute("notice_claim", bound).await?
        }
    };
    Ok(changed == 1)
}

async fn notice_delivered_in_txn(txn: &mut Txn, notice: &Notice) -> Result<()> {
    let statement = "update notice set delivered = 1 where database_name = $1 and topic = $2 and told_at = $3 and node = $4";
    let bound = query(statement)
        .bind(notice.database.to_string())
        .bind(notice.topic.clone())
        .bind(micros(notice.told_at))
        .bind(notice.node.clone());
    txn.execute("notice_delivered", bound).await.map(|_| ())
}

fn from_row(row: &AnyRow) -> Result<Notice> {
    Ok(Notice {
        database: row.parsed("database_name")?,
        topic: row.text("topic")?,
        word: row.text("word")?,
        mark: row.integer("mark")?,
        turns: row.count("turns")?,
        told_at: row.time("told_at")?,
        node: row.text("node")?,
        delivered: row.flag("delivered")?,
    })
}
