//! What a comparison asks of a server: a snapshot that stays, which transactions it sees, which tables there are, and digests of their rows.
//!
//! What always holds: everything is asked within one `repeatable read, read only` transaction; row-level security hides nothing (`row_security = off` fails instead); what is written as text
//! is written in the same way by every server and role. No row's value leaves the server but the keys that are asked for.
//!
//! ```text
//! open ─▶ snapshot ─▶ tables ─▶ of each: begin_table ─▶ digests ─▶ end_table
//! ```

mod digest;
mod snapshot;
mod tables;

pub use digest::{Digest, RowDigest, Seeds};
pub use snapshot::{Snapshot, SnapshotError};
pub use tables::{NotRows, Table, Tables};

use std::time::Duration;

use farshore_journal::Offset;

use super::session::{Session, column, parsed};
use crate::postgres::wire::Error;

/// How the text of a value depends on nothing but the value; and that a server does not keep for hours what it holds for somebody who is gone: half a minute
/// of silence ends the session (`tcp_keepalives_…`), a question that nobody waits for any more ends within seconds. One side may wait for the other as long as a question may take.
///
/// Source: <https://www.postgresql.org/docs/current/runtime-config-client.html>; `money` is written by `lc_monetary`
/// (<https://www.postgresql.org/docs/current/datatype-money.html>).
const PINNED: &str = "select set_config(name, value, false) from (values
    ('datestyle', 'ISO, YMD'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'), ('extra_float_digits', '3'),
    ('bytea_output', 'hex'), ('xmlbinary', 'base64'), ('lc_monetary', 'C'), ('quote_all_identifiers', 'off'),
    ('row_security', 'off'), ('jit', 'off'), ('max_parallel_workers_per_gather', '0'),
    ('standard_conforming_strings', 'on'), ('idle_in_transaction_session_timeout', '20min'), ('lock_timeout', '5s'),
    ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
    ('client_connection_check_interval', '5s')) as pinned (name, value)";

/// How far a standby is, and what its transaction sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The end of the last record that was replayed, as it was read after the snapshot was taken.
    pub replayed: Option<Offset>,
    /// The snapshot, as a standby shows it: without those that run ([`Snapshot`]).
    pub snapshot: Snapshot,
}

impl Session {
    /// Begins the transaction in which everything is asked. Its snapshot is taken by the first question.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn compare_open(&self, statement: Duration) -> Result<(), Error> {
        self.rows("the settings of a comparison", PINNED, &[]).await?;
        let limit = format!("set statement_timeout = {}", statement.as_millis().max(1));
        self.rows("statement_timeout", &limit, &[]).await?;
        let has = "select set_config(name, '0', false) from pg_settings where name = 'transaction_timeout'";
        self.rows("transaction_timeout", has, &[]).await?;
        self.rows("begin", "begin isolation level repeatable read, read only", &[]).await.map(drop)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn compare_close(&self) -> Result<(), Error> {
        self.rows("rollback", "rollback", &[]).await.map(drop)
    }

    /// What the transaction sees, of a server that takes writes.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn compare_snapshot(&self) -> Result<Snapshot, Error> {
        const WHAT: &str = "pg_current_snapshot";
        let row = self.row(WHAT, "select pg_current_snapshot()::text as snapshot", &[]).await?;
        parsed(WHAT, &row, "snapshot")?.ok_or_else(|| Error::protocol(WHAT, "there is none"))
    }

    /// Behind the last log that the server has made, of one that takes writes. The log of whatever is seen when this is asked lies before it.
    ///
    /// # Errors
    /// When the server does not answer, or is a standby.
    pub async fn log_made(&self) -> Result<Offset, Error> {
        const WHAT: &str = "pg_current_wal_insert_lsn";
        let row = self.row(WHAT, "select pg_current_wal_insert_lsn()::text as made", &[]).await?;
        parsed(WHAT, &row, "made")?.ok_or_else(|| Error::protocol(WHAT, "there is none"))
    }

    /// The end of the last record that a standby replayed.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn replayed(&self) -> Result<Option<Offset>, Error> {
        const WHAT: &str = "pg_last_wal_replay_lsn";
        let row = self.row(WHAT, "select pg_last_wal_replay_lsn()::text as replayed", &[]).await?;
        parsed(WHAT, &row, "replayed")
    }

    /// What a standby's transaction sees, and how far its replay was after that.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn compare_standby_snapshot(&self) -> Result<Seen, Error> {
        let snapshot = self.compare_snapshot().await?;
        Ok(Seen { replayed: self.replayed().await?, snapshot })
    }

    /// What the walreceiver of a standby is called by whoever serves it; `None` while there is none, or our role may not see it.
    ///
    /// Source: `pg_stat_wal_receiver`, <https://www.postgresql.org/docs/current/monitoring-stats.html>: its `conninfo` has all that it connects with (`libpqrcv_get_conninfo`,
    /// libpqwalreceiver.c), among it `fallback_application_name`, which is `cluster_name` or `walreceiver` (walreceiver.c).
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn follows_as(&self) -> Result<Option<String>, Error> {
        const WHAT: &str = "pg_stat_wal_receiver";
        let row = self.rows(WHAT, "select conninfo from pg_stat_wal_receiver", &[]).await?;
        let Some(row) = row.first() else { return Ok(None) };
        Ok(column::<Option<String>>(WHAT, row, "conninfo")?.and_then(|text| called(&text)))
    }

    /// Which of these transactions have committed, as this server knows it.
    ///
    /// Source: `pg_xact_status`, <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT>.
    ///
    /// # Errors
    /// When the server does not answer, or does not know one of them yet.
    pub async fn committed_of(&self, transactions: &[u64]) -> Result<Vec<u64>, Error> {
        const WHAT: &str = "pg_xact_status";
        let texts: Vec<String> = transactions.iter().map(ToString::to_string).collect();
        let statement = "select asked as number from unnest($1::text[]) as asked
                         where pg_xact_status(asked::xid8) is not distinct from 'committed'";
        let rows = self.rows(WHAT, statement, &[&texts]).await?;
        let number = |row| parsed(WHAT, row, "number")?.ok_or_else(|| Error::protocol(WHAT, "there is none"));
        rows.iter().map(number).collect()
    }

    /// The databases of the cluster: those that can be connected to, and those that cannot or should not, with the reason.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn databases(&self) -> Result<(Vec<String>, Vec<NotRows>), Error> {
        const WHAT: &str = "the databases";
        let statement = "select datname::text as name, case
                when not datallowconn then 'it takes no connections'
                when datistemplate then 'it is a template, which a session in it would keep from being copied'
                when not has_database_privilege(oid, 'connect') then 'the role may not connect to it' end as why,
                datname not in ('template0', 'template1') as counts
            from pg_database order by datname";
        let (mut open, mut shut) = (Vec::new(), Vec::new());
        for row in self.rows(WHAT, statement, &[]).await? {
            let name: String = column(WHAT, &row, "name")?;
            match column::<Option<String>>(WHAT, &row, "why")? {
                None => open.push(name),
                Some(reason) => {
                    let counts = column(WHAT, &row, "counts")?;
                    shut.push(NotRows { name, reason, counts });
                }
            }
        }
        Ok((open, shut))
    }
}

/// The application's name in what a standby shows of its connection: `key=value` with a space between, and values as they are. One with a space in it is cut there, and so is another's.
fn called(conninfo: &str) -> Option<String> {
    let of = |key: &str| conninfo.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    of("application_name").or_else(|| of("fallback_application_name")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::called;

    #[test]
    fn a_walreceiver_is_called_by_its_own_name_or_else_by_the_one_that_it_falls_back_to() {
        let said = "user=fs passfile=/x dbname=replication host=10.0.0.1 port=5433 application_name=oslo fallback_application_name=walreceiver sslmode=prefer";
        assert_eq!(called(said).as_deref(), Some("oslo"));
        let without = said.replace("application_name=oslo ", "");
        assert_eq!(called(&without).as_deref(), Some("walreceiver"));
        assert_eq!(called("host=x"), None);
    }
}
