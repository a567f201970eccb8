//! A standby's recovery over SQL: how far it is, holding and letting go of its replay, and its end.
//!
//! What always holds: nothing is decided here, and no answer is taken for more than the server says. Who may do it is the server's matter: pausing needs `EXECUTE` on the functions, a
//! promotion too, and `ALTER SYSTEM` a superuser.
//!
//! Source: <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-CONTROL>,
//! <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-INFO-TABLE>.

use farshore_journal::{Offset, Timeline};

use super::session::{Session, column, parsed};
use crate::postgres::wire::Error;

/// Whether replay goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It does.
    Not,
    /// It was told to stop, and has not yet: it does so between two records.
    Requested,
    /// It stands.
    Held,
}

/// One look at a server that recovers, or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Whether it is a standby still.
    pub in_recovery: bool,
    /// The end of the last record that was replayed; `None` where none was.
    pub replayed: Option<Offset>,
    /// Whether replay goes on; [`Pause::Not`] where there is none.
    pub pause: Pause,
    /// Whether log comes in: its receiver streams.
    pub streams: bool,
    /// Whether it was given a target: a replay that is held there ends its recovery when it is let go. Source: `recoveryPausesHere` in `xlogrecovery.c`.
    pub has_target: bool,
}

impl Session {
    /// How far its recovery is.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn recovery(&self) -> Result<Recovery, Error> {
        const WHAT: &str = "how far recovery is";
        // Recovery may end between two statements: one statement asks for all.
        let statement = "select pg_is_in_recovery() as standby, pg_last_wal_replay_lsn()::text as replayed,
                    case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() else 'not paused' end as pause,
                    exists (select from pg_stat_wal_receiver where status = 'streaming') as streams,
                    exists (select from pg_settings where setting <> '' and name in ('recovery_target',
                        'recovery_target_lsn', 'recovery_target_name', 'recovery_target_time', 'recovery_target_xid')) as target";
        let row = self.row(WHAT, statement, &[]).await?;
        let pause = match column::<&str>(WHAT, &row, "pause")? {
            "not paused" => Pause::Not,
            "pause requested" => Pause::Requested,
            "paused" => Pause::Held,
            other => return Err(Error::protocol(WHAT, format!("replay is `{other}`"))),
        };
        Ok(Recovery {
            in_recovery: column(WHAT, &row, "standby")?,
            replayed: parsed(WHAT, &row, "replayed")?,
            pause,
            streams: column(WHAT, &row, "streams")?,
            has_target: column(WHAT, &row, "target")?,
        })
    }

    /// Tells replay to stop. It goes on to the end of the record in hand: [`recovery`](Self::recovery) says when it stands. Log is received all the same.
    ///
    /// # Errors
    /// When the server does not answer, our role may not, or nothing is replayed there.
    pub async fn replay_pause(&self) -> Result<(), Error> {
        self.row("pg_wal_replay_pause", "select pg_wal_replay_pause()::text", &[]).await.map(drop)
    }

    /// Tells replay to go on.
    ///
    /// # Errors
    /// As [`replay_pause`](Self::replay_pause).
    pub async fn replay_resume(&self) -> Result<(), Error> {
        self.row("pg_wal_replay_resume", "select pg_wal_replay_resume()::text", &[]).await.map(drop)
    }

    /// Ends its recovery: it replays all that it received, and takes writes. Whether it did so within that many seconds; one that did not is promoted all the same, later. The session's own
    /// deadline must be longer.
    ///
    /// Source: `CheckForStandbyTrigger` is asked in `xlogrecovery.c` once no more log is at hand, and by a paused replay, which then goes on.
    ///
    /// # Errors
    /// As [`replay_pause`](Self::replay_pause).
    pub async fn promote(&self, seconds: i32) -> Result<bool, Error> {
        const WHAT: &str = "pg_promote";
        column(WHAT, &self.row(WHAT, "select pg_promote(true, $1) as yes", &[&seconds]).await?, "yes")
    }

    /// The timeline that it writes, once it is no standby; `None` while it is one.
    ///
    /// Source: `pg_walfile_name` in <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-BACKUP>: the first eight digits.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn written_timeline(&self) -> Result<Option<Timeline>, Error> {
        const WHAT: &str = "the timeline that is written";
        let statement = "select case when not pg_is_in_recovery()
                         then ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int end
                         ::text as timeline";
        parsed(WHAT, &self.row(WHAT, statement, &[]).await?, "timeline")
    }

    /// Takes `primary_conninfo` out of what `ALTER SYSTEM` has set, and has the server read its settings again.
    ///
    /// # Errors
    /// When the server does not answer, or our role may not.
    pub async fn follow_nobody(&self) -> Result<(), Error> {
        self.rows("ALTER SYSTEM", "alter system reset primary_conninfo", &[]).await?;
        self.row("pg_reload_conf", "select pg_reload_conf()", &[]).await.map(drop)
    }

    /// Whom it would follow as a standby, as far as our role may see it; empty: nobody.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn follows(&self) -> Result<Option<String>, Error> {
        const WHAT: &str = "primary_conninfo";
        let statement = "select setting from pg_settings where name = 'primary_conninfo'";
        let rows = self.rows(WHAT, statement, &[]).await?;
        rows.first().map(|row| column(WHAT, row, "setting")).transpose()
    }
}
