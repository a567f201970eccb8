//! Whom commits wait for at a primary: looking at it, and changing it.
//!
//! What always holds: nothing is decided here. What was flushed is asked before what the streams reported, so that a report at or behind it covers it.
//!
//! Source: <https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION>,
//! <https://www.postgresql.org/docs/current/monitoring-stats.html>; `syncrep.c` and `checkpointer.c` for who reads the setting when.

use farshore_journal::{Offset, Position, Timeline};

use super::session::{Session, column, parsed};
use crate::postgres::wire::Error;

const NAME: &str = "synchronous_standby_names";
/// Backends that wait and are told of, at most.
const WAITERS: i64 = 256;

/// A stream, as the primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSeen {
    /// What it calls itself.
    pub name: String,
    /// Up to where it says that log is flushed; `None` before its first word.
    pub flushed: Option<Offset>,
    /// Whether it has caught up once, so that commits may wait for it.
    pub streams: bool,
}

/// One look at what commits wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// What `synchronous_standby_names` says to this session.
    pub names: String,
    /// Whether commits may be written here: it is no standby.
    pub primary: bool,
    /// The end of its flushed log; `None` on a standby.
    pub flushed: Option<Position>,
    /// The moment, by the server's clock, in microseconds since 1970.
    pub server_micros: i64,
    /// When this session last took the server's configuration files; they are taken whole or, where one is flawed, not at all.
    pub loaded: String,
    /// Backends that wait for a standby, with their processes and when their statements began: the oldest 256.
    pub waiters: Vec<(i32, String)>,
    /// Whether the checkpointer, which alone makes the setting count, was where it takes signals.
    pub attentive: bool,
    /// Since when the server runs, as it says itself: another text is another start.
    pub started: String,
    /// Whether this session holds the advisory lock that was asked for, and is the only one in the cluster that does, or the one of the lowest process: one
    /// behind a pooler is another at each look.
    pub holds: bool,
    /// Whether our role may see who waits and what streams say.
    pub sees: bool,
    /// The streams of the names that were asked for, each as often as it is there.
    pub streams: Vec<StreamSeen>,
}

/// A glance at what commits wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitsGlance {
    /// What `synchronous_standby_names` says to this session.
    pub names: String,
    /// Whether the checkpointer, which alone makes the setting count, was where it takes signals; `None` where our role does not see it.
    pub attentive: Option<bool>,
}

impl Session {
    /// What commits wait for, how far the streams of these names are, and whether this session holds the advisory lock of that name. Needs `pg_monitor`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn waits(&self, names: &[String], lock: &str) -> Result<Waits, Error> {
        const WHAT: &str = "what commits wait for";
        let statement = "select current_setting('synchronous_standby_names') as names, not pg_is_in_recovery() as is_primary,
                    case when not pg_is_in_recovery()
                         then ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int end
                         ::text as timeline,
                    case when not pg_is_in_recovery() then pg_current_wal_flush_lsn() end::text as flushed,
                    (extract(epoch from clock_timestamp()) * 1000000)::bigint as server_micros, pg_conf_load_time()::text as loaded,
                    exists (select from pg_stat_activity where backend_type = 'checkpointer'
                        and wait_event in ('CheckpointerMain', 'CheckpointWriteDelay')) as attentive,
                    pg_postmaster_start_time()::text as started,
                    coalesce((select min(pid) from pg_locks, hashtextextended($1, 0) as key where locktype = 'advisory' and granted and objsubid = 1
                        and classid::bigint << 32 | objid::bigint = key) = pg_backend_pid(), false) as holds,
                    pg_has_role('pg_read_all_stats', 'usage') as sees";
        let row = self.row(WHAT, statement, &[&lock]).await?;
        let timeline: Option<Timeline> = parsed(WHAT, &row, "timeline")?;
        let flushed: Option<Offset> = parsed(WHAT, &row, "flushed")?;
        // Two wait events have this name: the other is of a lock.
        let statement = "select pid, query_start::text as began from pg_stat_activity
             where wait_event_type = 'IPC' and wait_event = 'SyncRep' order by query_start, pid limit $1";
        let rows = self.rows(WHAT, statement, &[&WAITERS]).await?;
        let waiter = |row| {
            Ok((column(WHAT, row, "pid")?, column::<Option<String>>(WHAT, row, "began")?.unwrap_or_default()))
        };
        let waiters = rows.iter().map(waiter).collect::<Result<_, Error>>()?;
        let statement =
            "select application_name as name, flush_lsn::text as flushed, state = 'streaming' as streams
             from pg_stat_replication where application_name = any($1)";
        let rows = self.rows(WHAT, statement, &[&names]).await?;
        let mut streams = Vec::with_capacity(rows.len());
        for row in &rows {
            streams.push(StreamSeen {
                name: column(WHAT, row, "name")?,
                flushed: parsed(WHAT, row, "flushed")?,
                streams: column::<Option<bool>>(WHAT, row, "streams")?.unwrap_or(false),
            });
        }
        Ok(Waits {
            names: column(WHAT, &row, "names")?,
            primary: column(WHAT, &row, "is_primary")?,
            flushed: timeline.zip(flushed).map(|(timeline, offset)| Position::new(timeline, offset)),
            server_micros: column(WHAT, &row, "server_micros")?,
            loaded: column(WHAT, &row, "loaded")?,
            waiters,
            attentive: column(WHAT, &row, "attentive")?,
            started: column(WHAT, &row, "started")?,
            holds: column(WHAT, &row, "holds")?,
            sees: column(WHAT, &row, "sees")?,
            streams,
        })
    }

    /// Whom commits wait for as this session has it, and what the checkpointer does.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn waits_glance(&self) -> Result<WaitsGlance, Error> {
        const WHAT: &str = "whom commits wait for";
        // Of another role's processes nothing is shown without `pg_read_all_stats`.
        let statement = "select current_setting('synchronous_standby_names') as names,
             (select bool_or(wait_event in ('CheckpointerMain', 'CheckpointWriteDelay')) from pg_stat_activity
              where backend_type = 'checkpointer') as attentive, pg_has_role('pg_read_all_stats', 'usage') as sees";
        let row = self.row(WHAT, statement, &[]).await?;
        let attentive: Option<bool> = column(WHAT, &row, "attentive")?;
        let sees: bool = column(WHAT, &row, "sees")?;
        Ok(WaitsGlance {
            names: column(WHAT, &row, "names")?,
            attentive: sees.then(|| attentive.unwrap_or(false)),
        })
    }

    /// Sets whom commits wait for, durably, and has the server read its settings again: all of them. It counts some moments later.
    ///
    /// # Errors
    /// When the server does not answer, or our role may not.
    pub async fn wait_for(&self, names: &str) -> Result<(), Error> {
        // A utility statement takes no parameters. Only the quote ends the text: `standard_conforming_strings` may be off, where a
        // backslash would begin something.
        let text = names.replace('\\', "\\\\").replace('\'', "''");
        self.rows("ALTER SYSTEM", &format!("alter system set {NAME} = E'{text}'"), &[]).await?;
        self.settings_again().await
    }

    /// Has the server read its settings again.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub async fn settings_again(&self) -> Result<(), Error> {
        const WHAT: &str = "pg_reload_conf";
        match column(WHAT, &self.row(WHAT, "select pg_reload_conf() as yes", &[]).await?, "yes")? {
            true => Ok(()),
            false => Err(Error::protocol(WHAT, "the server could not be told to read its settings again")),
        }
    }

    /// Whether our role may change whom commits wait for, and see who waits.
    ///
    /// Source: `has_parameter_privilege` in <https://www.postgresql.org/docs/current/functions-info.html> (from major 15 on; before it a
    /// superuser alone may).
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn may_change_waits(&self) -> Result<bool, Error> {
        const WHAT: &str = "the right to change synchronous_standby_names";
        let statement = match self.server_version().major {
            ..15 => "select rolsuper as yes from pg_roles where rolname = current_user",
            15.. => {
                "select has_parameter_privilege('synchronous_standby_names', 'alter system')
                    and has_function_privilege('pg_reload_conf()', 'execute')
                    and pg_has_role('pg_read_all_stats', 'usage') as yes"
            }
        };
        column(WHAT, &self.row(WHAT, statement, &[]).await?, "yes")
    }

    /// Where the setting comes from, as the server says: what is given on its command line no `ALTER SYSTEM` changes.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn waits_source(&self) -> Result<String, Error> {
        const WHAT: &str = "where synchronous_standby_names comes from";
        let statement = "select source from pg_settings where name = 'synchronous_standby_names'";
        column(WHAT, &self.row(WHAT, statement, &[]).await?, "source")
    }

    /// Takes the advisory lock of a name, in the session's database, for the session's life; `false`: another session has it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn advisory_lock(&self, name: &str) -> Result<bool, Error> {
        const WHAT: &str = "pg_try_advisory_lock";
        let statement = "select pg_try_advisory_lock(hashtextextended($1, 0)) as yes";
        column(WHAT, &self.row(WHAT, statement, &[&name]).await?, "yes")
    }

    /// Whether a session that calls itself so holds the advisory lock of that name.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn is_locked_by(&self, name: &str, lock: &str) -> Result<bool, Error> {
        const WHAT: &str = "whether a session holds a lock";
        let statement = "select exists (select from pg_locks join pg_stat_activity using (pid), hashtextextended($2, 0) as key
                where application_name = $1 and locktype = 'advisory' and granted and objsubid = 1
                and classid::bigint << 32 | objid::bigint = key) as yes";
        column(WHAT, &self.row(WHAT, statement, &[&name, &lock]).await?, "yes")
    }
}
