//! What is to be told to people of a database, and what each channel of theirs has heard: of several services one tells.
//!
//! What always holds: what is to be told changes only from what it was known to be ([`Catalog::notice_claim`] tests the old row), and so does who tries to tell
//! it to a channel ([`Catalog::notice_try`]): of any number of services that see the same one does it. What a channel heard changes
//! only when it took it, and never to something older. What it does not do: decide what is worth telling (`src/notify/transition.rs` does), or to whom and
//! when (`src/notify/delivery.rs`).

use farshore_journal::DatabaseName;
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, big, micros};
use crate::{Catalog, Result, Time, Txn};

/// What is to be told.
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
    /// Since when.
    pub told_at: Time,
    /// Which node saw it.
    pub node: String,
}

/// What a channel heard, and how it stands with what it has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeHeard {
    /// The channel's name. Services that give two channels the same name take them for one.
    pub channel: String,
    /// Of which database.
    pub database: DatabaseName,
    /// Of what.
    pub topic: String,
    /// How it stood by what the channel last took; `None` before it took anything.
    pub word: Option<String>,
    /// Of which event.
    pub mark: i64,
    /// The [`Notice::told_at`] of what was last tried to be told.
    pub trying: Time,
    /// How often that was tried and not taken, as far as is known.
    pub tries: u64,
    /// Before this nobody tries it again.
    pub next_at: Time,
}

/// That somebody is about to tell a channel something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeTry {
    /// How it stood with that; `None` where the channel was never told anything of it.
    pub before: Option<NoticeHeard>,
    /// What is tried, and before when nobody else does.
    pub now: NoticeHeard,
}

impl Catalog {
    /// What is to be told of each database and topic.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn notice_list(&self) -> Result<Vec<Notice>> {
        in_snapshot!(self, notice_list_in_txn())
    }

    /// Takes it upon a node to tell `now`, where `before` was told last. Whether nobody else did meanwhile.
    ///
    /// # Errors
    /// When the catalog is away: then it is not known whether it was claimed.
    pub async fn notice_claim(&self, before: Option<&Notice>, now: &Notice) -> Result<bool> {
        in_local_txn!(self, notice_claim_in_txn(before, now))
    }

    /// What each channel heard.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn notice_heard_list(&self) -> Result<Vec<NoticeHeard>> {
        in_snapshot!(self, notice_heard_list_in_txn())
    }

    /// Takes it upon the caller to tell channels this. What they heard stays. Of each whether nobody else did meanwhile.
    ///
    /// # Errors
    /// When the catalog is away: then it is not known whether they were claimed.
    pub async fn notice_try(&self, tries: &[NoticeTry]) -> Result<Vec<bool>> {
        in_local_txn!(self, notice_try_in_txn(tries))
    }

    /// A channel took these; nothing happens to those of which it took something newer since.
    ///
    /// # Errors
    /// When the catalog is away: then they may be told again.
    pub async fn notice_took(&self, channel: &str, notices: &[Notice]) -> Result<()> {
        in_local_txn!(self, notice_took_in_txn(channel, notices))
    }
}

async fn notice_list_in_txn(txn: &mut Txn) -> Result<Vec<Notice>> {
    let statement = "select database_name, topic, word, mark, turns, told_at, node from notice \
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
            let statement = "update notice set word = $1, mark = $2, turns = $3, told_at = $4, node = $5 \
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

async fn notice_heard_list_in_txn(txn: &mut Txn) -> Result<Vec<NoticeHeard>> {
    let statement = "select channel, database_name, topic, word, mark, trying, tries, next_at from notice_heard \
                     order by channel, database_name, topic";
    let rows = txn.rows("notice_heard_list", query(statement)).await?;
    rows.iter()
        .map(|row| {
            Ok(NoticeHeard {
                channel: row.text("channel")?,
                database: row.parsed("database_name")?,
                topic: row.text("topic")?,
                word: row.maybe_text("word")?,
                mark: row.integer("mark")?,
                trying: row.time("trying")?,
                tries: row.count("tries")?,
                next_at: row.time("next_at")?,
            })
        })
        .collect()
}

async fn notice_try_in_txn(txn: &mut Txn, tries: &[NoticeTry]) -> Result<Vec<bool>> {
    // In one order, whoever else tries some of them: nobody waits for somebody who waits for him.
    let mut order: Vec<_> = tries.iter().enumerate().collect();
    order.sort_by_key(|(_, one)| (&one.now.channel, &one.now.database, &one.now.topic));
    let mut claimed = vec![false; tries.len()];
    for (at, NoticeTry { before, now }) in order {
        let is_ours = notice_try_one(txn, before.as_ref(), now).await?;
        claimed.iter_mut().skip(at).take(1).for_each(|claimed| *claimed = is_ours);
    }
    Ok(claimed)
}

async fn notice_try_one(txn: &mut Txn, before: Option<&NoticeHeard>, now: &NoticeHeard) -> Result<bool> {
    let statement = match before {
        None => {
            "insert into notice_heard (channel, database_name, topic, mark, trying, tries, next_at) \
             values ($1, $2, $3, 0, $4, $5, $6) on conflict (channel, database_name, topic) do nothing"
        }
        Some(_) => {
            "update notice_heard set trying = $4, tries = $5, next_at = $6 \
             where channel = $1 and database_name = $2 and topic = $3 \
             and trying = $7 and tries = $8 and next_at = $9"
        }
    };
    let mut bound = query(statement)
        .bind(now.channel.clone())
        .bind(now.database.to_string())
        .bind(now.topic.clone())
        .bind(micros(now.trying))
        .bind(big("tries", now.tries)?)
        .bind(micros(now.next_at));
    if let Some(before) = before {
        bound =
            bound.bind(micros(before.trying)).bind(big("tries", before.tries)?).bind(micros(before.next_at));
    }
    Ok(txn.execute("notice_try", bound).await? == 1)
}

async fn notice_took_in_txn(txn: &mut Txn, channel: &str, notices: &[Notice]) -> Result<()> {
    let statement = "update notice_heard set word = $1, mark = $2, took = $3, tries = 0 \
                     where channel = $4 and database_name = $5 and topic = $6 and (took is null or took <= $3)";
    let mut order: Vec<_> = notices.iter().collect();
    order.sort_by_key(|notice| (&notice.database, &notice.topic));
    for notice in order {
        let bound = query(statement)
            .bind(notice.word.clone())
            .bind(notice.mark)
            .bind(micros(notice.told_at))
            .bind(channel.to_owned())
            .bind(notice.database.to_string())
            .bind(notice.topic.clone());
        txn.execute("notice_took", bound).await?;
    }
    Ok(())
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
    })
}
