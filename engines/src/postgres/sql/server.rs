//! What a server is doing, and what our role may do there.

use chrono::{DateTime, Utc};
use farshore_journal::{Offset, Position, Timeline};

use super::session::{Session, column, parsed};
use crate::postgres::wire::Error;

/// Our role's rights, as far as farshore uses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRights {
    /// The role.
    pub role: String,
    /// May do anything.
    pub superuser: bool,
    /// May stream, back up, and handle slots.
    pub replication: bool,
    /// Sees all settings, such as the data directory.
    pub read_all_settings: bool,
    /// Sees what other sessions do, and the size of the log's directory.
    pub monitor: bool,
    /// May end other sessions.
    pub signal_backend: bool,
    /// May name restore points.
    pub create_restore_point: bool,
    /// May close the log segment that is being written.
    pub switch_wal: bool,
}

impl Session {
    /// What our role may do.
    ///
    /// Source: <https://www.postgresql.org/docs/current/predefined-roles.html>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn role_rights(&self) -> Result<RoleRights, Error> {
        const WHAT: &str = "the role's rights";
        let statement = "select rolname::text as role, rolsuper, rolreplication,
                    pg_has_role(oid, 'pg_read_all_settings', 'usage') as read_all_settings,
                    pg_has_role(oid, 'pg_monitor', 'usage') as monitor,
                    pg_has_role(oid, 'pg_signal_backend', 'usage') as signal_backend,
                    has_function_privilege('pg_create_restore_point(text)', 'execute') as create_restore_point,
                    has_function_privilege('pg_switch_wal()', 'execute') as switch_wal
             from pg_roles where rolname = current_user";
        let row = self.row(WHAT, statement, &[]).await?;
        Ok(RoleRights {
            role: column(WHAT, &row, "role")?,
            superuser: column(WHAT, &row, "rolsuper")?,
            replication: column(WHAT, &row, "rolreplication")?,
            read_all_settings: column(WHAT, &row, "read_all_settings")?,
            monitor: column(WHAT, &row, "monitor")?,
            signal_backend: column(WHAT, &row, "signal_backend")?,
            create_restore_point: column(WHAT, &row, "create_restore_point")?,
            switch_wal: column(WHAT, &row, "switch_wal")?,
        })
    }

    /// Whether the server is a standby, or still recovers.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn in_recovery(&self) -> Result<bool, Error> {
        const WHAT: &str = "pg_is_in_recovery";
        column(WHAT, &self.row(WHAT, "select pg_is_in_recovery() as yes", &[]).await?, "yes")
    }

    /// Which cluster it is: the number that `IDENTIFY_SYSTEM` tells too.
    ///
    /// Source: `pg_control_system` in
    /// <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-CONTROLDATA>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn system_identifier(&self) -> Result<u64, Error> {
        const WHAT: &str = "pg_control_system";
        let row = self.row(WHAT, "select (pg_control_system()).system_identifier::text as id", &[]).await?;
        parsed(WHAT, &row, "id")?.ok_or_else(|| Error::protocol(WHAT, "there is no identifier"))
    }

    /// Where the server's files are; `None` when our role may not see it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn data_directory(&self) -> Result<Option<String>, Error> {
        const WHAT: &str = "data_directory";
        let statement = "select setting from pg_settings where name = 'data_directory'";
        let rows = self.rows(WHAT, statement, &[]).await?;
        rows.first().map(|row| column(WHAT, row, "setting")).transpose()
    }

    /// Whether this session's bytes are encrypted on their way.
    ///
    /// Source: <https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-SSL-VIEW>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn encrypted(&self) -> Result<bool, Error> {
        const WHAT: &str = "pg_stat_ssl";
        let statement =
            "select coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as yes";
        column(WHAT, &self.row(WHAT, statement, &[]).await?, "yes")
    }

    /// The end of the durable log: flushed on a primary, received or replayed on a standby.
    ///
    /// A primary's timeline is that of the segment it writes; the control file's may be older for a while after a
    /// promotion. Source: <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-BACKUP>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn current_position(&self) -> Result<Position, Error> {
        const WHAT: &str = "the current position";
        // Recovery may end between two statements: one statement asks for all, and each case only for what is allowed.
        let statement = "select case when pg_is_in_recovery()
                         then coalesce((select received_tli from pg_stat_wal_receiver),
                                       (pg_control_checkpoint()).timeline_id)
                         else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int end
                         ::text as timeline,
                    (case when pg_is_in_recovery()
                          then greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                          else pg_current_wal_flush_lsn() end)::text as flushed";
        let row = self.row(WHAT, statement, &[]).await?;
        let timeline: Option<Timeline> = parsed(WHAT, &row, "timeline")?;
        let flushed: Option<Offset> = parsed(WHAT, &row, "flushed")?;
        let position = timeline.zip(flushed).map(|(timeline, offset)| Position::new(timeline, offset));
        position.ok_or_else(|| Error::protocol(WHAT, "there is none"))
    }

    /// Writes a record of a few bytes that means nothing to the database, and says where it lies. It needs no
    /// right, no transaction id and no more than `wal_level = replica`, and fails on a standby. From major 17 on it
    /// is flushed at once; before that the server's log writer does so within a fraction of a second.
    ///
    /// Source: `pg_logical_emit_message` in
    /// <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION>.
    ///
    /// # Errors
    /// When the server does not answer, or recovers.
    pub async fn emit_heartbeat(&self) -> Result<Offset, Error> {
        const WHAT: &str = "pg_logical_emit_message";
        let flush = if self.server_version().major >= 17 { ", true" } else { "" };
        let statement =
            format!("select pg_logical_emit_message(false, 'farshore', ''::text{flush})::text as written");
        let row = self.row(WHAT, &statement, &[]).await?;
        parsed(WHAT, &row, "written")?.ok_or_else(|| Error::protocol(WHAT, "nothing was written"))
    }

    /// The size of the log's directory; `None` when our role may not list it. What is free there cannot be asked
    /// for by SQL.
    ///
    /// Source: `pg_ls_waldir` in
    /// <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-GENFILE>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn wal_directory_bytes(&self) -> Result<Option<u64>, Error> {
        const WHAT: &str = "pg_ls_waldir";
        match self.row(WHAT, "select sum(size)::bigint as bytes from pg_ls_waldir()", &[]).await {
            Ok(row) => {
                let bytes: Option<i64> = column(WHAT, &row, "bytes")?;
                Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()))
            }
            // Insufficient privilege.
            Err(error) if error.code() == Some("42501") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a named restore point into the log, and says where its record ends. On `Ok` it is durable at the server.
    ///
    /// The function alone does not flush: a point that was just named would be lost with the server. A transaction that has a
    /// number is flushed when it commits, whatever the server's default is; nobody's standby is waited for.
    /// Source: `XLogRestorePoint`, xlog.c; `RecordTransactionCommit`, xact.c.
    ///
    /// Source: `pg_create_restore_point` in
    /// <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-BACKUP>.
    ///
    /// # Errors
    /// When the server does not answer, recovers, or our role may not.
    pub async fn create_restore_point(&self, name: &str) -> Result<Offset, Error> {
        const WHAT: &str = "pg_create_restore_point";
        let statement = "select pg_create_restore_point($1)::text as end, pg_current_xact_id()::text as number, \
                         set_config('synchronous_commit', 'local', true) as flush";
        parsed(WHAT, &self.row(WHAT, statement, &[&name]).await?, "end")?
            .ok_or_else(|| Error::protocol(WHAT, "nothing was written"))
    }

    /// The next transaction's 64-bit number: what the log's 32-bit ones are completed from.
    ///
    /// Source: `pg_snapshot_xmax` in
    /// <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT>.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn next_transaction(&self) -> Result<u64, Error> {
        const WHAT: &str = "pg_current_snapshot";
        let statement = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next";
        let next: i64 = column(WHAT, &self.row(WHAT, statement, &[]).await?, "next")?;
        u64::try_from(next).map_err(|_| Error::protocol(WHAT, "an impossible transaction number"))
    }

    /// The server's clock.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn now(&self) -> Result<DateTime<Utc>, Error> {
        const WHAT: &str = "clock_timestamp";
        let statement = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint as micros";
        let micros: i64 = column(WHAT, &self.row(WHAT, statement, &[]).await?, "micros")?;
        DateTime::from_timestamp_micros(micros).ok_or_else(|| Error::protocol(WHAT, "an impossible time"))
    }
}
