//! Standbys that take a journal for their primary: how far each is, as whoever serves it last heard.
//!
//! What always holds: that one waits for its store, which says nothing against it, replaces nothing for which it is to be made anew or looked after (`log_missing`, `diverged`, `ahead`, `damaged`); what is shown as now was said within three heartbeats, or by one that was sent away while the store does not answer, and comes again; a standby that nobody hears of is `away`, whatever it was. A row is a standby by the name that it gives
//! itself (`application_name`, else `cluster_name`): two of one database that give the same name are one row.

use std::time::Duration;

use farshore_journal::{DatabaseName, IncarnationId, Offset, Timeline};
use serde::{Serialize, Serializer};
use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::error::Error;
use crate::lag::is_silent;
use crate::row::{Read as _, at, branch, duration, micros};
use crate::{Catalog, Result, Time, Txn};

/// How often whoever serves a standby renews its row.
pub const STANDBY_HEARTBEAT: Duration = Duration::from_secs(1);

/// How often one is heard that is sent away while the store does not answer: it comes again after five seconds (`wal_retrieve_retry_interval`), and a store may hang for twenty.
const STANDBY_COMES_AGAIN: Duration = Duration::from_secs(25);

/// How a standby is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyState {
    /// It gets log that the journal has had for longer.
    CatchingUp,
    /// It has all that the journal has, and gets what comes.
    Streaming,
    /// A comparison holds it where it is, for as long as that takes.
    Held,
    /// The store does not answer; it goes on by itself once it does.
    WaitsForStore,
    /// The log that it needs is not in the journal: it is to be made anew.
    LogMissing,
    /// It has log that is in no history of this journal: it is to be made anew, or rewound.
    Diverged,
    /// It has more log than the store that serves it.
    Ahead,
    /// The journal does not read where it is.
    Damaged,
    /// It left, or said nothing for too long.
    Away,
}

impl StandbyState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::CatchingUp,
        Self::Streaming,
        Self::Held,
        Self::WaitsForStore,
        Self::LogMissing,
        Self::Diverged,
        Self::Ahead,
        Self::Damaged,
        Self::Away,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::CatchingUp => "catching_up",
            Self::Streaming => "streaming",
            Self::Held => "held",
            Self::WaitsForStore => "waits_for_store",
            Self::LogMissing => "log_missing",
            Self::Diverged => "diverged",
            Self::Ahead => "ahead",
            Self::Damaged => "damaged",
            Self::Away => "away",
        }
    }

    /// Whether it follows, and it is known how far the journal is.
    pub const fn is_sure(self) -> bool {
        matches!(self, Self::CatchingUp | Self::Streaming | Self::Held)
    }

    /// Whether it says that the standby is connected and follows.
    pub const fn follows(self) -> bool {
        matches!(self, Self::CatchingUp | Self::Streaming | Self::Held | Self::WaitsForStore)
    }
}

impl Serialize for StandbyState {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// A standby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// Whose.
    pub database: DatabaseName,
    /// What it calls itself.
    pub name: String,
    /// Which node serves it.
    pub node: String,
    /// As which user it came.
    pub login: String,
    /// From where.
    pub address: String,
    /// From which store.
    pub store: String,
    /// Of which incarnation.
    pub incarnation: IncarnationId,
    /// On which timeline.
    pub timeline: Timeline,
    /// The end of what was sent to it.
    pub sent: Offset,
    /// The end of what it has.
    pub written: Offset,
    /// The end of what a crash of it leaves.
    pub flushed: Offset,
    /// The end of what its queries see.
    pub applied: Offset,
    /// Where the journal ended; 0 where nobody has looked.
    pub end: Offset,
    /// How it was doing.
    pub state: StandbyState,
    /// Since when.
    pub since: Time,
    /// Why, where that is not plain.
    pub problem: Option<String>,
    /// For how long the journal has had what it has not replayed; zero when it has all, `None` when that is not known.
    pub behind: Option<Duration>,
    /// How old log is at the least when it is sent to it; `None`: it is sent at once.
    pub delay: Option<Duration>,
    /// When it, or its end, was last heard of.
    pub heard_at: Time,
}

impl Standby {
    /// How it is doing now: what claims that it follows counts as long as it is heard.
    pub fn shown(&self, now: Time) -> StandbyState {
        let heartbeat = match self.is_sent_away() {
            true => STANDBY_COMES_AGAIN,
            false => STANDBY_HEARTBEAT,
        };
        match self.state.follows() && is_silent(now, Some(self.heard_at), heartbeat) {
            true => StandbyState::Away,
            false => self.state,
        }
    }

    /// Whether it was told why it does not follow now, and comes again by itself.
    pub fn is_sent_away(&self) -> bool {
        self.state == StandbyState::WaitsForStore && self.problem.is_some()
    }

    /// Log that the journal has and it has not replayed, in bytes, where that is known now.
    pub fn lag_bytes(&self, now: Time) -> Option<u64> {
        let known = self.shown(now).is_sure() && self.end > Offset::new(0);
        known.then(|| self.end.get().saturating_sub(self.applied.get()))
    }

    /// For how long the journal has had that log, where that is known now.
    pub fn lag(&self, now: Time) -> Option<Duration> {
        self.shown(now).is_sure().then(|| self.behind_now(now)).flatten()
    }

    /// Since when it is as it is shown.
    pub fn shown_since(&self, now: Time) -> Time {
        if self.shown(now) == self.state { self.since } else { self.heard_at }
    }

    /// For how long, at the least, the journal has had what it has not replayed, as of now: what it was when it was last heard of, and longer since. `None` when nothing says.
    ///
    /// One that has all is not late while it is heard: an idle journal makes nobody late. One that is not heard may lack whatever came since.
    pub fn behind_now(&self, now: Time) -> Option<Duration> {
        let behind = self.behind?;
        if self.shown(now).is_sure() && behind.is_zero() {
            return Some(Duration::ZERO);
        }
        let since = (now - self.heard_at).to_std().unwrap_or_default();
        Some(behind.saturating_add(since))
    }
}

impl Catalog {
    /// Records how standbys are doing; `since` of a state that is as it was stays what it was, and so does all of one that is to be made anew or looked after and now waits for its store.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn standby_put(&self, standbys: &[Standby]) -> Result<()> {
        in_local_txn!(self, standby_put_in_txn(standbys))
    }

    /// Standbys by database and name, of all databases or of one.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn standby_list(&self, database: Option<&DatabaseName>) -> Result<Vec<Standby>> {
        in_snapshot!(self, standby_list_in_txn(database))
    }

    /// Binds a standby to an incarnation, unless it is bound already; to which it is bound. Durable on `Ok`.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn standby_bind(
        &self,
        (database, name): (&DatabaseName, &str),
        incarnation: IncarnationId,
        now: Time,
    ) -> Result<IncarnationId> {
        in_local_txn!(self, standby_bind_in_txn((database, name), incarnation, now))
    }

    /// To which incarnation a standby is bound; `None` where it is to none.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn standby_bound(&self, database: &DatabaseName, name: &str) -> Result<Option<IncarnationId>> {
        in_snapshot!(self, standby_bound_in_txn(database, name))
    }

    /// Records that a known standby of an incarnation was refused what it asked for; of one that is not known, or of another incarnation, nothing.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn standby_refused(
        &self,
        (database, name): (&DatabaseName, &str),
        incarnation: IncarnationId,
        (state, problem): (StandbyState, &str),
        now: Time,
    ) -> Result<()> {
        in_local_txn!(self, standby_refused_in_txn((database, name), incarnation, (state, problem), now))
    }

    /// Forgets one, and to what it was bound; whether there was one of that name. One that still comes is there again at once.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn standby_forget(&self, database: &DatabaseName, name: &str) -> Result<bool> {
        in_local_txn!(self, standby_forget_in_txn(database, name))
    }
}

/// As [`Catalog::standby_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn standby_put_in_txn(txn: &mut Txn, standbys: &[Standby]) -> Result<()> {
    let statement = "insert into standby (database_name, name, node, login, address, store, incarnation, timeline, sent, \
                     written, flushed, applied, end_offset, state, since, problem, behind_us, heard_at, delay_us) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
                     on conflict (database_name, name) do update set node = excluded.node, login = excluded.login, \
                     address = excluded.address, store = excluded.store, incarnation = excluded.incarnation, \
                     timeline = excluded.timeline, sent = excluded.sent, written = excluded.written, \
                     flushed = excluded.flushed, applied = excluded.applied, end_offset = excluded.end_offset, \
                     since = case when standby.state = excluded.state then standby.since else excluded.since end, \
                     state = excluded.state, problem = excluded.problem, behind_us = excluded.behind_us, \
                     heard_at = excluded.heard_at, delay_us = excluded.delay_us \
                     where excluded.state <> 'waits_for_store' or standby.incarnation <> excluded.incarnation \
                     or standby.state not in ('log_missing', 'diverged', 'ahead', 'damaged')";
    for standby in standbys {
        let behind = standby.behind.map(|behind| duration("behind", behind)).transpose()?;
        let bound = query(statement)
            .bind(standby.database.to_string())
            .bind(standby.name.clone())
            .bind(standby.node.clone())
            .bind(standby.login.clone())
            .bind(standby.address.clone())
            .bind(standby.store.clone())
            .bind(standby.incarnation.to_string())
            .bind(branch(standby.timeline))
            .bind(at(standby.sent)?)
            .bind(at(standby.written)?)
            .bind(at(standby.flushed)?)
            .bind(at(standby.applied)?)
            .bind(at(standby.end)?)
            .bind(standby.state.word())
            .bind(micros(standby.since))
            .bind(standby.problem.clone())
            .bind(behind)
            .bind(micros(standby.heard_at))
            .bind(standby.delay.map(|delay| duration("delay", delay)).transpose()?);
        txn.execute("standby_put", bound).await?;
    }
    Ok(())
}

/// As [`Catalog::standby_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn standby_list_in_txn(txn: &mut Txn, database: Option<&DatabaseName>) -> Result<Vec<Standby>> {
    const ALL: &str = "select * from standby order by database_name, name";
    const OF_ONE: &str = "select * from standby where database_name = $1 order by name";
    let bound = match database {
        Some(database) => query(OF_ONE).bind(database.to_string()),
        None => query(ALL),
    };
    txn.rows("standby_list", bound).await?.iter().map(from_row).collect()
}

/// As [`Catalog::standby_bind`].
///
/// # Errors
/// When the catalog is away.
pub async fn standby_bind_in_txn(
    txn: &mut Txn,
    (database, name): (&DatabaseName, &str),
    incarnation: IncarnationId,
    now: Time,
) -> Result<IncarnationId> {
    let statement = "insert into standby_binding (database_name, name, incarnation, bound_at) values ($1, $2, $3, $4) \
                     on conflict (database_name, name) do nothing";
    let bound = query(statement)
        .bind(database.to_string())
        .bind(name.to_owned())
        .bind(incarnation.to_string())
        .bind(micros(now));
    txn.execute("standby_bind", bound).await?;
    Ok(standby_bound_in_txn(txn, database, name).await?.unwrap_or(incarnation))
}

/// As [`Catalog::standby_bound`].
///
/// # Errors
/// When the catalog is away.
pub async fn standby_bound_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
    name: &str,
) -> Result<Option<IncarnationId>> {
    let statement = "select incarnation from standby_binding where database_name = $1 and name = $2";
    let bound = query(statement).bind(database.to_string()).bind(name.to_owned());
    txn.rows("standby_bound", bound).await?.first().map(|row| row.parsed("incarnation")).transpose()
}

/// As [`Catalog::standby_refused`].
///
/// # Errors
/// When the catalog is away.
pub async fn standby_refused_in_txn(
    txn: &mut Txn,
    (database, name): (&DatabaseName, &str),
    incarnation: IncarnationId,
    (state, problem): (StandbyState, &str),
    now: Time,
) -> Result<()> {
    // It did not get further since it was heard: by so much it is later now.
    let statement = "update standby set since = case when state = $1 then since else $2 end, state = $1, \
                     behind_us = behind_us + case when $2 > heard_at then $2 - heard_at else 0 end, \
                     problem = $3, heard_at = $2 where database_name = $4 and name = $5 and incarnation = $6 \
                     and ($1 <> 'waits_for_store' or state not in ('log_missing', 'diverged', 'ahead', 'damaged'))";
    let bound = query(statement)
        .bind(state.word())
        .bind(micros(now))
        .bind(problem.to_owned())
        .bind(database.to_string())
        .bind(name.to_owned())
        .bind(incarnation.to_string());
    txn.execute("standby_refused", bound).await.map(|_| ())
}

/// As [`Catalog::standby_forget`].
///
/// # Errors
/// When the catalog is away.
pub async fn standby_forget_in_txn(txn: &mut Txn, database: &DatabaseName, name: &str) -> Result<bool> {
    let mut forgotten = 0;
    for statement in [
        "delete from standby where database_name = $1 and name = $2",
        "delete from standby_binding where database_name = $1 and name = $2",
    ] {
        let bound = query(statement).bind(database.to_string()).bind(name.to_owned());
        forgotten += txn.execute("standby_forget", bound).await?;
    }
    Ok(forgotten > 0)
}

fn from_row(row: &AnyRow) -> Result<Standby> {
    let word = row.text("state")?;
    let state = StandbyState::ALL.into_iter().find(|state| state.word() == word);
    let state = state.ok_or_else(|| Error::corrupt("state", "a word that is no state of a standby"))?;
    Ok(Standby {
        database: row.parsed("database_name")?,
        name: row.text("name")?,
        node: row.text("node")?,
        login: row.text("login")?,
        address: row.text("address")?,
        store: row.text("store")?,
        incarnation: row.parsed("incarnation")?,
        timeline: row.timeline("timeline")?,
        sent: row.offset("sent")?,
        written: row.offset("written")?,
        flushed: row.offset("flushed")?,
        applied: row.offset("applied")?,
        end: row.offset("end_offset")?,
        state,
        since: row.time("since")?,
        problem: row.maybe_text("problem")?,
        behind: row.maybe_count("behind_us")?.map(Duration::from_micros),
        delay: row.maybe_count("delay_us")?.map(Duration::from_micros),
        heard_at: row.time("heard_at")?,
    })
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};

    use super::*;

    #[test]
    fn a_standby_that_nobody_hears_of_is_away_and_grows_later_and_one_that_was_refused_stays_so() {
        let (heard_at, none) = (Utc::now(), Offset::new(0));
        let standby = |state, behind: Option<u64>| Standby {
            database: "orders".parse().unwrap(),
            name: "oslo".to_owned(),
            node: "db1".to_owned(),
            login: "far".to_owned(),
            address: "127.0.0.1:5".to_owned(),
            store: "main".to_owned(),
            incarnation: IncarnationId::from_bytes([1; 16]),
            timeline: Timeline::new(1),
            sent: none,
            written: none,
            flushed: none,
            applied: none,
            end: none,
            state,
            since: heard_at,
            problem: None,
            behind: behind.map(Duration::from_secs),
            delay: None,
            heard_at,
        };
        let later = |seconds| heard_at + TimeDelta::seconds(seconds);
        let secs =
            |standby: &Standby, seconds| standby.behind_now(later(seconds)).map(|behind| behind.as_secs());
        let well = standby(StandbyState::Streaming, Some(0));
        assert_eq!((well.shown(later(3)), secs(&well, 3)), (StandbyState::Streaming, Some(0)));
        assert_eq!((well.shown(later(4)), secs(&well, 60)), (StandbyState::Away, Some(60)));
        let late = standby(StandbyState::CatchingUp, Some(100));
        assert_eq!(secs(&late, 2), Some(102));
        assert_eq!(secs(&standby(StandbyState::Streaming, None), 2), None);
        let refused = standby(StandbyState::Diverged, Some(7));
        assert_eq!((refused.shown(later(900)), secs(&refused, 900)), (StandbyState::Diverged, Some(907)));
        // One that waits in a session is heard as any other, and one that was sent away when it comes again; nobody knows how far the journal is.
        let waits = standby(StandbyState::WaitsForStore, Some(0));
        assert_eq!((waits.shown(later(4)), waits.lag(later(1))), (StandbyState::Away, None));
        let sent_away = Standby { problem: Some("the store".to_owned()), ..waits };
        assert_eq!(
            (sent_away.shown(later(60)), secs(&sent_away, 60)),
            (StandbyState::WaitsForStore, Some(60))
        );
        assert_eq!(sent_away.shown(later(80)), StandbyState::Away);
        // A clock that was set back vouches for nobody.
        assert_eq!(well.shown(later(-60)), StandbyState::Away);
    }
}
