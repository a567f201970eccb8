//! Questions to a restored PostgreSQL that is open, over its private socket, and its own programs that look at its pages.
//!
//! What always holds: every session is read-only and each statement has a bound of time; a program that finds something is believed by its exit code, and of what it prints only
//! numbers are taken. Source: `pg_checksums(1)`, `pg_amcheck(1)`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use tokio::process::Command;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Error, NoTls, Row};

use super::control::ControlFile;
use crate::drill::{Answer, Said, judged, quoted};

/// For opening a session over a local socket, on a loaded machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// Longer than the server's own bound for a statement: that one's answer is better.
const ABOVE_LIMIT: Duration = Duration::from_secs(15);

/// A restored server that is open.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Its private socket's directory.
    pub socket_dir: PathBuf,
    /// The number that names the socket.
    pub port: u16,
    /// A superuser of the restored data.
    pub user: String,
    /// How long a statement may take.
    pub limit: Duration,
}

impl Copy {
    /// Whether a database of it answers reads.
    pub async fn reads(&self, database: &str) -> Answer {
        match self.row(database, "select count(*) from pg_catalog.pg_class").await {
            Ok(_) => Answer::Holds(String::new()),
            Err(why) => Answer::DoesNot(why),
        }
    }

    /// Whether an assertion holds in a database.
    pub async fn assertion(&self, database: &str, sql: &str) -> Answer {
        let asked = self.within(database, async |client: &Client| {
            let rows = client.query_raw(sql, Vec::<i32>::new()).await?;
            pin_mut!(rows);
            let (mut count, mut columns, mut said) = (0, 0, None);
            while let Some(row) = rows.next().await {
                let row = row?;
                count += 1;
                if count > 1 {
                    break;
                }
                columns = row.len();
                said = (columns == 1).then(|| value(&row));
            }
            Ok(judged(count, columns, said))
        });
        match asked.await {
            Ok(answer) => answer,
            Err(why) => Answer::DoesNot(why),
        }
    }

    /// How many rows a table has.
    ///
    /// # Errors
    /// In words, when it cannot be counted.
    pub async fn count(&self, database: &str, table: &str) -> Result<u64, String> {
        let row = self.row(database, &format!("select count(*) from {}", quoted(table))).await?;
        row.try_get::<_, i64>(0).map(i64::unsigned_abs).map_err(|_| "it gave no number".to_owned())
    }

    /// Has `pg_amcheck` look at tables and indexes of the databases that have its extension.
    /// `database` is one that takes connections.
    pub async fn amcheck(&self, bin: &Path, database: &str) -> Answer {
        let program = bin.join("pg_amcheck");
        if !program.is_file() {
            return Answer::NotLookedAt("pg_amcheck is not among the server's programs".to_owned());
        }
        let databases = self.within(database, async |client: &Client| {
            let rows =
                client.query("select datname from pg_catalog.pg_database where datallowconn order by 1", &[]);
            rows.await?.iter().map(|row| row.try_get::<_, String>(0)).collect::<Result<Vec<_>, _>>()
        });
        let databases = match databases.await {
            Ok(databases) => databases,
            Err(why) => return Answer::NotLookedAt(why),
        };
        let mut looked = Vec::new();
        for name in databases {
            let has =
                "select 1 from pg_catalog.pg_extension where extname = 'amcheck' union all select 0 limit 1";
            let has = self.row(&name, has).await.ok().and_then(|row| row.try_get::<_, i32>(0).ok());
            if has == Some(1) {
                looked.push(name);
            }
        }
        if looked.is_empty() {
            return Answer::NotLookedAt("no database of it has the extension amcheck".to_owned());
        }
        let mut command = own(&program, &self.socket_dir);
        command.arg("--host").arg(&self.socket_dir).arg("--port").arg(self.port.to_string());
        command.args(["--username", &self.user, "--no-password"]);
        for name in &looked {
            command.args(["--database", name]);
        }
        match run(command).await {
            Ok((Some(0), _)) => Answer::Holds(format!("databases looked at: {}", looked.len())),
            Ok((Some(2), printed)) => {
                let findings = printed.lines().filter(|line| !line.starts_with(char::is_whitespace)).count();
                Answer::DoesNot(format!("pg_amcheck found {findings} relations or blocks corrupt"))
            }
            Ok((code, _)) => Answer::NotLookedAt(format!("pg_amcheck could not look: {}", in_words(code))),
            Err(why) => Answer::NotLookedAt(format!("pg_amcheck could not look: {why}")),
        }
    }

    async fn row(&self, database: &str, sql: &str) -> Result<Row, String> {
        self.within(database, async |client: &Client| client.query_one(sql, &[]).await).await
    }

    /// Asks over a session of its own, within the bound.
    async fn within<T>(
        &self,
        database: &str,
        question: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, String> {
        let mut config = Config::new();
        // Settings of roles and databases are part of the restored data; ours, of the connection, come before them.
        let options = format!(
            "-c session_preload_libraries= -c local_preload_libraries= -c jit=off -c default_transaction_read_only=on -c statement_timeout={}ms",
            self.limit.as_millis()
        );
        config.host_path(&self.socket_dir).port(self.port).user(&self.user).dbname(database);
        config.application_name("farshore drill").options(&options);
        let opened = tokio::time::timeout(CONNECT_DEADLINE, config.connect(NoTls)).await;
        let (client, connection) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(why)) => return Err(code_of(&why)),
            Err(_) => return Err("the server did not let us in in time".to_owned()),
        };
        let asked = async {
            tokio::pin!(connection);
            tokio::select! {
                answer = question(&client) => answer.map_err(|why| code_of(&why)),
                ended = &mut connection => Err(match ended {
                    Ok(()) => "the server ended the session".to_owned(),
                    Err(why) => code_of(&why),
                }),
            }
        };
        match tokio::time::timeout(self.limit + ABOVE_LIMIT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("it took longer than {} s", self.limit.as_secs())),
        }
    }
}

/// What a row's only value says.
fn value(row: &Row) -> Said {
    let of_number = |number: Option<i64>| match number {
        None => Said::Null,
        Some(1) => Said::True,
        Some(_) => Said::False,
    };
    let kind = row.columns().first().map(|column| column.type_().clone());
    match kind {
        Some(Type::BOOL) => match row.try_get::<_, Option<bool>>(0) {
            Ok(None) => Said::Null,
            Ok(Some(true)) => Said::True,
            Ok(Some(false)) => Said::False,
            Err(_) => Said::Other,
        },
        Some(Type::INT2) => {
            row.try_get::<_, Option<i16>>(0).map_or(Said::Other, |n| of_number(n.map(i64::from)))
        }
        Some(Type::INT4) => {
            row.try_get::<_, Option<i32>>(0).map_or(Said::Other, |n| of_number(n.map(i64::from)))
        }
        Some(Type::INT8) => row.try_get::<_, Option<i64>>(0).map_or(Said::Other, of_number),
        _ => Said::Other,
    }
}

/// An error without the server's words, which may quote a row.
fn code_of(why: &Error) -> String {
    match why.code().map(tokio_postgres::error::SqlState::code) {
        Some("57014") => "it took too long, and was cancelled".to_owned(),
        Some("25006") => "it would write, and a copy that is checked is only read".to_owned(),
        Some(code) => format!("PostgreSQL refused it with SQLSTATE {code}"),
        None => "the session broke off".to_owned(),
    }
}

/// Has `pg_checksums` look at all pages of a copy that was stopped cleanly.
pub async fn checksums(bin: &Path, data: &Path) -> Answer {
    let program = bin.join("pg_checksums");
    if !program.is_file() {
        return Answer::NotLookedAt("pg_checksums is not among the server's programs".to_owned());
    }
    let control = std::fs::read(data.join("global/pg_control"));
    match control.map(|bytes| ControlFile::parse(&bytes)) {
        Ok(Ok(control)) if control.data_checksums => {}
        Ok(Ok(_)) => return Answer::NotLookedAt("the database's pages carry no checksums".to_owned()),
        Ok(Err(_)) | Err(_) => return Answer::NotLookedAt("the copy's pg_control does not read".to_owned()),
    }
    let mut command = own(&program, data);
    command.arg("--check").arg("-D").arg(data);
    match run(command).await {
        Ok((Some(0), printed)) => Answer::Holds(blocks(&printed, "Blocks scanned:")),
        Ok((code, printed)) => {
            let bad = number(&printed, "Bad checksums:").filter(|bad| *bad > 0);
            match bad {
                Some(bad) => Answer::DoesNot(format!("{bad} pages do not have their checksum")),
                // It was begun and broke off: a page that cannot be read is no better than one that is wrong.
                None => {
                    Answer::DoesNot(format!("pg_checksums did not look at all pages: {}", in_words(code)))
                }
            }
        }
        Err(why) => Answer::NotLookedAt(format!("pg_checksums could not look: {why}")),
    }
}

fn blocks(printed: &str, what: &str) -> String {
    number(printed, what).map_or_else(String::new, |number| format!("{number} pages"))
}

/// The number behind a word that a program prints.
fn number(printed: &str, what: &str) -> Option<u64> {
    printed.lines().find_map(|line| line.trim().strip_prefix(what)?.trim().parse().ok())
}

fn in_words(code: Option<i32>) -> String {
    code.map_or_else(|| "it was ended by a signal".to_owned(), |code| format!("it ended with {code}"))
}

/// One of the server's programs, in an environment of ours. It ends when nobody waits for it any more; it works in the copy, by which whoever clears that
/// knows it.
fn own(program: &Path, copy: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").current_dir(copy);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a program to its end: its exit code and what it printed.
async fn run(mut command: Command) -> Result<(Option<i32>, String), String> {
    let done = command.output().await.map_err(|why| why.kind().to_string())?;
    Ok((done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_behind_its_word_and_no_other() {
        let printed =
            "Checksum operation completed\nFiles scanned:   968\nBlocks scanned:  3215\nBad checksums:  2\n";
        assert_eq!(number(printed, "Bad checksums:"), Some(2));
        assert_eq!(blocks(printed, "Blocks scanned:"), "3215 pages");
        assert_eq!(number("nothing", "Bad checksums:"), None);
    }
}
