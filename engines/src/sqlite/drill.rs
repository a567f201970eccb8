//! Questions to a restored SQLite file that nobody else has open.
//!
//! What always holds: it is opened as one that nobody changes, and takes no write; its schema is not believed; a statement that takes too long is ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, InterruptHandle, ffi};

use super::check::open_to_ask;
use crate::drill::{Answer, Said, judged, quoted};

/// A restored file.
#[derive(Debug, Clone)]
pub struct Copy {
    path: PathBuf,
    limit: Duration,
}

impl Copy {
    /// The file there, of which each question may take so long.
    pub fn new(path: &Path, limit: Duration) -> Self {
        Self { path: path.to_owned(), limit }
    }

    /// Whether it answers reads.
    pub async fn reads(&self) -> Answer {
        let found = self.asked(|connection| {
            connection.query_row("select count(*) from sqlite_schema", [], |row| row.get::<_, i64>(0))
        });
        match found.await {
            Ok(_) => Answer::Holds(String::new()),
            Err(why) => Answer::DoesNot(why),
        }
    }

    /// Whether every foreign key has what it refers to.
    pub async fn foreign_keys(&self) -> Answer {
        let found = self.asked(|connection| {
            let mut statement = connection.prepare("pragma foreign_key_check")?;
            let mut rows = statement.query([])?;
            let mut count = 0_u64;
            while rows.next()?.is_some() {
                count += 1;
            }
            Ok(count)
        });
        match found.await {
            Ok(0) => Answer::Holds(String::new()),
            Ok(count) => Answer::DoesNot(format!("{count} rows refer to what is not there")),
            Err(why) => Answer::NotLookedAt(why),
        }
    }

    /// Whether an assertion holds.
    pub async fn assertion(&self, sql: &str) -> Answer {
        let sql = sql.to_owned();
        let found = self.asked(move |connection| {
            let mut statement = connection.prepare(&sql)?;
            let columns = statement.column_count();
            let mut rows = statement.query([])?;
            let mut said = None;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                count += 1;
                if count > 1 {
                    break;
                }
                if columns == 1 {
                    said = Some(match row.get_ref(0)? {
                        ValueRef::Integer(1) => Said::True,
                        ValueRef::Integer(_) => Said::False,
                        ValueRef::Null => Said::Null,
                        _ => Said::Other,
                    });
                }
            }
            Ok(judged(count, columns, said))
        });
        match found.await {
            Ok(answer) => answer,
            Err(why) => Answer::DoesNot(why),
        }
    }

    /// How many rows a table has.
    ///
    /// # Errors
    /// In words, when it cannot be counted.
    pub async fn count(&self, table: &str) -> Result<u64, String> {
        let sql = format!("select count(*) from {}", quoted(table));
        let count =
            self.asked(move |connection| connection.query_row(&sql, [], |row| row.get::<_, i64>(0))).await?;
        Ok(count.unsigned_abs())
    }

    /// Asks in a thread of its own, which is ended when it takes too long or nobody waits any more.
    async fn asked<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let path = self.path.clone();
        let (handle, ended_by) = tokio::sync::oneshot::channel::<InterruptHandle>();
        let work = tokio::task::spawn_blocking(move || {
            let connection = open_to_ask(&path).map_err(|why| in_words(&why))?;
            let _nobody_waits = handle.send(connection.get_interrupt_handle());
            question(&connection).map_err(|why| in_words(&why))
        });
        let guard = Interrupts(ended_by.await.ok());
        let answer = tokio::time::timeout(self.limit, work).await;
        let too_long = answer.is_err();
        drop(guard);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("it was cut off".to_owned()),
            Err(_) => {
                debug_assert!(too_long);
                Err(format!("it took longer than {} s", self.limit.as_secs()))
            }
        }
    }
}

/// Ends a question that nobody waits for any more.
struct Interrupts(Option<InterruptHandle>);

impl Drop for Interrupts {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
    }
}

/// An error without what SQLite says of names and values.
fn in_words(why: &rusqlite::Error) -> String {
    let code = match why {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.extended_code),
        other => other.sqlite_error().map(|error| error.extended_code),
    };
    match code {
        Some(code) if code & 0xff == ffi::SQLITE_READONLY => {
            "it would write, and a copy that is checked is only read".to_owned()
        }
        Some(code) => format!("SQLite refused it with code {code}"),
        None => "it is not one statement that gives rows".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(folder: &Path, script: &str) -> Copy {
        let path = folder.join("copy.db");
        Connection::open(&path).unwrap().execute_batch(script).unwrap();
        Copy::new(&path, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn questions_are_answered_and_what_would_write_is_refused_with_nothing_left_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let copy = copy(
            folder.path(),
            "pragma journal_mode = wal; create table t (a); insert into t values (1), (2), ('secret');",
        );
        assert_eq!(copy.reads().await, Answer::Holds(String::new()));
        assert_eq!(copy.count("t").await, Ok(3));
        assert!(copy.count("none").await.is_err());
        assert_eq!(copy.assertion("select count(*) = 3 from t").await, Answer::Holds(String::new()));
        for (sql, why) in [
            ("select count(*) = 4 from t", "it is not true"),
            ("select a from t", "it gave several rows"),
            ("select a from t where a = 7", "it gave no row"),
            ("select 1, 1", "it gave several columns"),
            ("select null", "it is null"),
            ("select a from t where a = 'secret'", "it is no truth value and no whole number"),
            ("delete from t", "it would write, and a copy that is checked is only read"),
            ("select nonsense", "SQLite refused it with code 1"),
        ] {
            assert_eq!(copy.assertion(sql).await, Answer::DoesNot(why.to_owned()), "{sql}");
        }
        assert_eq!(copy.count("t").await, Ok(3));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_row_that_refers_to_nothing_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let copy = copy(
            folder.path(),
            "create table p (id integer primary key); create table c (p references p); insert into p values (1); insert into c values (1);",
        );
        assert_eq!(copy.foreign_keys().await, Answer::Holds(String::new()));
        Connection::open(folder.path().join("copy.db"))
            .unwrap()
            .execute_batch("pragma foreign_keys = off; insert into c values (2), (3)")
            .unwrap();
        assert_eq!(
            copy.foreign_keys().await,
            Answer::DoesNot("2 rows refer to what is not there".to_owned())
        );
    }

    #[tokio::test]
    async fn a_statement_that_takes_too_long_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let copy = Copy { limit: Duration::from_millis(200), ..copy(folder.path(), "create table t (a)") };
        let endless =
            "with recursive n (v) as (select 1 union all select v + 1 from n) select count(*) from n";
        let Answer::DoesNot(why) = copy.assertion(endless).await else { panic!("it ended") };
        assert!(why.contains("longer"), "{why}");
    }
}
