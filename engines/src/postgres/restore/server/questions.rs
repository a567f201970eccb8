//! Questions to the restored server, over its private socket.
//!
//! One session serves as long as it lasts: each new one costs the server a process that fills its caches anew, on the cores that replay
//! wants. Replay may end a session whose database it drops, and a question that a kept session did not answer is put again over a
//! new one. An idle session holds no snapshot and no lock, so it holds up no replay.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, Error, NoTls, Row, Socket};

use super::verdict::Answer;
use super::{ServerError, Start};

/// For one question over a local socket, on a loaded machine.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// Asks one server.
pub(super) struct Questions<'s> {
    start: &'s Start,
    /// The session that answered last.
    session: Option<Session>,
}

struct Session {
    client: Client,
    connection: Connection<Socket, NoTlsStream>,
}

impl<'s> Questions<'s> {
    /// To the server that was started so.
    pub fn to(start: &'s Start) -> Self {
        Self { start, session: None }
    }

    /// One look through SQL; `None` while it takes no connections.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn where_it_stands(&mut self) -> Result<Option<Answer>, ServerError> {
        const ASK: &str = "select pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()::text, \
            case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_get_wal_replay_pause_state() end";
        let row = self.ask(ASK).await?;
        let read = |row: &Row| -> Result<Answer, Error> {
            let replayed: Option<String> = row.try_get(1)?;
            let state: Option<String> = row.try_get(2)?;
            Ok(Answer {
                in_recovery: row.try_get(0)?,
                replayed: replayed.and_then(|text| text.parse().ok()),
                paused: state.as_deref() == Some("paused"),
            })
        };
        Ok(row.as_ref().and_then(|row| read(row).ok()))
    }

    /// The answer's one row; `None` when there is none in time, or not yet.
    ///
    /// # Errors
    /// When the server refuses us for good.
    pub async fn ask(&mut self, sql: &str) -> Result<Option<Row>, ServerError> {
        let kept = self.session.take();
        let asked = async {
            if let Some(session) = kept
                && let Ok((Some(row), session)) = session.ask(sql).await
            {
                return Ok((Some(row), session));
            }
            Session::open(self.start).await?.ask(sql).await
        };
        match tokio::time::timeout(ASK_DEADLINE, asked).await {
            Ok(Ok((row, session))) => {
                self.session = row.is_some().then_some(session);
                Ok(row)
            }
            Ok(Err(error)) if not_yet(&error) => Ok(None),
            Ok(Err(source)) => {
                let (user, database) = (self.start.user.clone(), self.start.database.clone());
                Err(ServerError::Refused { user, database, source })
            }
            // No answer in time is no answer: what moves or not is decided by the evidence.
            Err(_) => Ok(None),
        }
    }
}

impl Session {
    async fn open(start: &Start) -> Result<Self, Error> {
        let mut config = Config::new();
        // Settings of roles and databases are part of the restored data; ours, of the connection, come before them.
        config
            .host_path(&start.socket_dir)
            .port(start.port)
            .user(&start.user)
            .dbname(&start.database)
            .application_name("farshore restore")
            .options(
                "-c session_preload_libraries= -c local_preload_libraries= -c jit=off -c statement_timeout=9s",
            );
        let (client, connection) = config.connect(NoTls).await?;
        Ok(Self { client, connection })
    }

    /// The answer, and the session, which serves again when there is one.
    async fn ask(mut self, sql: &str) -> Result<(Option<Row>, Self), Error> {
        let row = tokio::select! {
            row = self.client.query_one(sql, &[]) => row.map(Some),
            ended = &mut self.connection => ended.map(|()| None),
        }?;
        Ok((row, self))
    }
}

/// Whether a later look may be answered. Only an answer about who we are is final.
fn not_yet(error: &Error) -> bool {
    let refused = [
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::UNDEFINED_FUNCTION,
    ];
    error.code().is_none_or(|code| !refused.contains(code))
}
