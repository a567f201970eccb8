//! Asking a server: one-liners through `psql`, sessions through `tokio-postgres`.

use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use super::{Major, Server};
use crate::must::Must;

/// Until a session stands.
const CONNECT: Duration = Duration::from_secs(30);

/// A session. It dereferences to the client; the task that moves its bytes ends with it.
pub struct Connection {
    client: Client,
    _tasks: JoinSet<()>,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Server {
    /// A session as superuser in the database `postgres`.
    ///
    /// # Panics
    /// If there is none within half a minute.
    pub async fn connect(&self) -> Connection {
        self.connect_to("postgres").await
    }

    /// A session as superuser in another database.
    ///
    /// # Panics
    /// If there is none within half a minute.
    pub async fn connect_to(&self, database: &str) -> Connection {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_dir()).port(self.port()).user("postgres").dbname(database);
        let connected = tokio::time::timeout(CONNECT, config.connect(NoTls)).await.must("connect in time");
        let (client, connection) = connected.must(format_args!("connect to PostgreSQL {}", self.major()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // The client reports what ends the session; a server stopped by the test is no news.
            let _ended = connection.await;
        });
        Connection { client, _tasks: tasks }
    }

    /// Runs SQL as superuser and returns what `psql` prints: rows by line, columns by `|`, the end trimmed.
    /// Statements run one by one, each in its own transaction unless the text says otherwise.
    ///
    /// # Panics
    /// At the first error.
    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        match self.try_sql(text) {
            Ok(answer) => answer,
            Err(error) => panic!("{text:?} on PostgreSQL {}: {error}", self.major()),
        }
    }

    /// As [`Server::sql`], for statements that may fail.
    ///
    /// # Errors
    /// With what `psql` wrote to its error output.
    pub fn try_sql(&self, text: &str) -> Result<String, String> {
        let mut psql = self.client_command("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = psql.spawn().must("start psql");
        if let Some(mut input) = child.stdin.take() {
            // It may stop reading at an error, which its exit code then tells.
            let _told_by_exit = input.write_all(text.as_bytes());
        }
        let done = child.wait_with_output().must("wait for psql");
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).trim_end().to_owned())
        }
    }

    /// A client program of 15 (`psql`, `pgbench`), pointed at this server as superuser.
    #[must_use]
    pub fn client_command(&self, program: &str) -> Command {
        let mut command = Command::new(Major::clients().join(program));
        command
            .env("PGHOST", self.socket_dir())
            .env("PGPORT", self.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGCONNECT_TIMEOUT", "30");
        command
    }
}
