//! Whether commits of databases wait until they are stored, where they are to: what the guard of one in `sync` last said, and of others their shipper.
//!
//! What always holds: what is old vouches for nothing: it reads as unknown. A database whose commits are to wait, and of which nobody has said anything, has a row that says so.

use chrono::TimeDelta;
use farshore_journal::DatabaseName;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// How old what a guard said, or saw of its primary, may be: it looks four times a second, and tells once a second.
pub const SILENT: TimeDelta = TimeDelta::seconds(10);

macro_rules! phases {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Whether commits of a database wait until they are stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum GuardPhase { $($(#[$doc])* $name,)* }

        impl GuardPhase {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its word.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            fn of(word: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|one| one.word() == word).ok_or_else(|| Error::corrupt("phase", format!("`{word}`")))
            }
        }
    };
}

phases! {
    /// Nobody vouches for it.
    Unknown = "unknown",
    /// They wait.
    Armed = "armed",
    /// They do not: they were let go, or somebody took farshore out.
    Disarmed = "disarmed",
    /// They are to wait, and it is not known yet that each does.
    Arming = "arming",
    /// Somebody made the setting something of his own.
    HandsOff = "hands_off",
}

/// What a guard or, where there is none to have, a shipper said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The database.
    pub database: DatabaseName,
    /// Who guards it; `None`: nobody ever did.
    pub node: Option<String>,
    /// Where it was; see [`Guard::shown`] for what may be said of it now.
    pub phase: GuardPhase,
    /// Whether commits did not wait, or were not known to.
    pub is_exposed: bool,
    /// Up to when they are known to have waited before that.
    pub exposed_since: Option<Time>,
    /// Why, in a word.
    pub why: Option<String>,
    /// What keeps the guard from its work.
    pub trouble: Option<String>,
    /// When its primary last answered it.
    pub looked_at: Option<Time>,
    /// When it last told.
    pub told_at: Option<Time>,
}

impl Guard {
    /// Up to when commits are known to have waited, where they do not or are not known to now: whoever has not been heard of for a while was heard of then.
    pub fn waited_until(&self) -> Option<Time> {
        if self.is_exposed { self.exposed_since } else { self.looked_at }
    }

    /// What may be said now.
    pub fn shown(&self, now: Time) -> GuardPhase {
        let fresh = |at: Option<Time>| at.is_some_and(|at| (now - at).abs() <= SILENT);
        match fresh(self.told_at) && fresh(self.looked_at) {
            true if self.phase == GuardPhase::Armed && self.is_exposed => GuardPhase::Arming,
            true => self.phase,
            false => GuardPhase::Unknown,
        }
    }
}

impl Catalog {
    /// Takes down what a guard says; one that has seen its primary later has the last word.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn guard_put(&self, guard: &Guard) -> Result<()> {
        in_local_txn!(self, guard_put_in_txn(guard))
    }

    /// Takes down of which of these databases commits are to wait, and forgets what was said of the others.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn guard_expect(&self, databases: &[(DatabaseName, bool)]) -> Result<()> {
        in_local_txn!(self, guard_expect_in_txn(databases))
    }

    /// What was said of a database whose commits are to wait.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn guard_of(&self, database: &DatabaseName) -> Result<Option<Guard>> {
        in_snapshot!(self, guard_of_in_txn(database))
    }

    /// What was said of all whose commits are to wait, by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn guard_list(&self) -> Result<Vec<Guard>> {
        in_snapshot!(self, guard_list_in_txn())
    }
}

/// As [`Catalog::guard_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn guard_put_in_txn(txn: &mut Txn, guard: &Guard) -> Result<()> {
    let statement = "insert into guard (database_name, node, phase, is_exposed, exposed_since, why, trouble, looked_at, told_at) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                     on conflict (database_name) do update set node = excluded.node, phase = excluded.phase, \
                     is_exposed = excluded.is_exposed, exposed_since = excluded.exposed_since, why = excluded.why, \
                     trouble = excluded.trouble, looked_at = excluded.looked_at, told_at = excluded.told_at \
                     where guard.looked_at is null or excluded.looked_at >= guard.looked_at";
    let bound = query(statement)
        .bind(guard.database.to_string())
        .bind(guard.node.clone())
        .bind(guard.phase.word())
        .bind(i64::from(guard.is_exposed))
        .bind(guard.exposed_since.map(micros))
        .bind(guard.why.clone())
        .bind(guard.trouble.clone())
        .bind(guard.looked_at.map(micros))
        .bind(guard.told_at.map(micros));
    txn.execute("guard_put", bound).await.map(drop)
}

/// As [`Catalog::guard_expect`].
///
/// # Errors
/// When the catalog is away.
pub async fn guard_expect_in_txn(txn: &mut Txn, databases: &[(DatabaseName, bool)]) -> Result<()> {
    for (database, is_guarded) in databases {
        let statement = match is_guarded {
            true => {
                "insert into guard (database_name, phase, is_exposed) values ($1, 'unknown', 1) \
                 on conflict (database_name) do nothing"
            }
            false => "delete from guard where database_name = $1",
        };
        txn.execute("guard_expect", query(statement).bind(database.to_string())).await?;
    }
    Ok(())
}

/// As [`Catalog::guard_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn guard_list_in_txn(txn: &mut Txn) -> Result<Vec<Guard>> {
    let bound = query(
        "select database_name, node, phase, is_exposed, exposed_since, why, trouble, looked_at, told_at from guard order by database_name",
    );
    txn.rows("guard_list", bound).await?.iter().map(from_row).collect()
}

/// As [`Catalog::guard_of`].
///
/// # Errors
/// When the catalog is away.
pub async fn guard_of_in_txn(txn: &mut Txn, database: &DatabaseName) -> Result<Option<Guard>> {
    let bound = query(
        "select database_name, node, phase, is_exposed, exposed_since, why, trouble, looked_at, told_at from guard where database_name = $1",
    );
    txn.row("guard_of", bound.bind(database.to_string())).await?.as_ref().map(from_row).transpose()
}

fn from_row(row: &AnyRow) -> Result<Guard> {
    Ok(Guard {
        database: row.parsed("database_name")?,
        node: row.maybe_text("node")?,
        phase: GuardPhase::of(row.str("phase")?)?,
        is_exposed: row.flag("is_exposed")?,
        exposed_since: row.maybe_time("exposed_since")?,
        why: row.maybe_text("why")?,
        trouble: row.maybe_text("trouble")?,
        looked_at: row.maybe_time("looked_at")?,
        told_at: row.maybe_time("told_at")?,
    })
}
