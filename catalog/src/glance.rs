//! All databases at a glance: what a page shows of hundreds of them at once.
//!
//! What always holds: a state, a lag and a window are told by the same rules as [`crate::status`] tells them of one database; all of it is
//! read from one state of the catalog, in as many queries whether there are three databases or five hundred. In exchange no commit is
//! looked up: a window's times are those of the backup that it begins with and of the newest stored commit, not those of its own commits. It is what
//! [`crate::fleet`] has read, judged by the clock ([`crate::fleet::Member::glance`]).

use farshore_journal::DatabaseName;

use crate::connection::in_snapshot;
use crate::fleet::members_in_txn;
use crate::lag::ShownState;
use crate::proof::Proof;
use crate::status::Backups;
use crate::{Catalog, Result, Time, Txn};

/// A database among others.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its name.
    pub database: DatabaseName,
    /// Its engine's word.
    pub engine: String,
    /// How its shipping stands; `Unknown` when nobody vouches for it.
    pub state: ShownState,
    /// When a service last wrote of it here.
    pub seen_at: Option<Time>,
    /// When its positions were written.
    pub measured_at: Option<Time>,
    /// Why it does not stand as it should.
    pub why: Option<String>,
    /// Bytes of log not stored, as of the last contact.
    pub ship_lag_bytes: Option<u64>,
    /// Age of the oldest commit not stored.
    pub ship_lag_seconds: Option<f64>,
    /// Whether so much log was not received that nobody knows what would be lost ([`lag::is_unseen`](crate::lag::is_unseen)).
    pub unseen: bool,
    /// What can be restored of its current incarnation.
    pub window: Option<Reach>,
    /// Its base backups.
    pub backups: Backups,
    /// Its stores, by name.
    pub stores: Vec<String>,
    /// What drills say of it.
    pub proof: Proof,
}

/// How far back and forth the newest unbroken run of restorable positions reaches, in the store that has the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The store that has it.
    pub store: String,
    /// When the base backup ended that it begins with.
    pub from: Option<Time>,
    /// The time of the newest stored commit; `None` when the window ends before it.
    pub to: Option<Time>,
    /// Parts of the history before or behind it that cannot be restored, but for log that expired.
    pub gaps: usize,
}

impl Catalog {
    /// All databases as they stand at `now`, by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn glance(&self, now: Time) -> Result<Vec<Member>> {
        in_snapshot!(self, glance_in_txn(now))
    }
}

/// As [`Catalog::glance`].
///
/// # Errors
/// When the catalog is away.
pub async fn glance_in_txn(txn: &mut Txn, now: Time) -> Result<Vec<Member>> {
    Ok(members_in_txn(txn, now).await?.iter().map(|member| member.glance(now)).collect())
}
