//! How drills of a database are done.
//!
//! What always holds: an assertion has a name of its own, which stands for it in logs and certificates, where its statement never does.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use farshore_journal::format::VerifyKeys;

use super::diagnose::ConfigProblem;
use super::{EngineKind, Judge, document};
use crate::drill::point::Point;

/// How long a statement of a check may take unless told otherwise.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Characters of an assertion's name, and of a table's.
const LONGEST_NAME: usize = 120;
/// Assertions and tables: their outcomes must fit into a certificate.
const MOST: usize = 200;

/// How drills of a database are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillConfig {
    /// Which point is restored to.
    pub point: Point,
    /// Where copies go; beside the socket without it.
    pub scratch: Option<PathBuf>,
    /// The database that is asked, of a PostgreSQL cluster; that of its url without it.
    pub database: Option<String>,
    /// Tables that are counted.
    pub tables: Vec<String>,
    /// What must hold.
    pub assertions: Vec<Assertion>,
    /// How long each of them may take.
    pub statement_timeout: Duration,
    /// Whether foreign keys are checked, of SQLite.
    pub foreign_keys: bool,
    /// The key that signs certificates; that of the heads without it.
    pub signing_key: Option<PathBuf>,
    /// The public keys whose certificates count; those of the heads when there are none.
    pub verify_keys: VerifyKeys,
}

/// A statement that must give one row with one value, which is true or one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Its name.
    pub name: String,
    /// The statement.
    pub sql: String,
}

impl Default for DrillConfig {
    fn default() -> Self {
        Self {
            point: Point::Latest,
            scratch: None,
            database: None,
            tables: Vec::new(),
            assertions: Vec::new(),
            statement_timeout: STATEMENT_TIMEOUT,
            foreign_keys: true,
            signing_key: None,
            verify_keys: VerifyKeys::default(),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

impl Judge<'_> {
    pub(super) fn drill(
        &self,
        written: Option<&document::Drill>,
        engine: EngineKind,
    ) -> Result<DrillConfig, ConfigProblem> {
        let Some(written) = written else { return Ok(DrillConfig::default()) };
        let mut drill = DrillConfig::default();
        if let Some(point) = &written.point {
            drill.point = point.get_ref().parse().map_err(|why: String| {
                self.problem(point.span(), why).hint("point = \"latest\", \"random\" or \"oldest\"")
            })?;
        }
        if let (Some(database), EngineKind::Sqlite) = (&written.database, engine) {
            let what = "`database` is for postgres; an SQLite database is one file";
            return Err(self.problem(database.span(), what).hint("leave it out"));
        }
        if let (Some(keys), EngineKind::Postgres) = (&written.foreign_keys, engine) {
            let what = "`foreign_keys` is for sqlite; PostgreSQL has no such check";
            return Err(self.problem(keys.span(), what).hint("leave it out"));
        }
        let mut names = BTreeSet::new();
        for assertion in &written.assertions {
            let Assertion { name, sql } =
                Assertion { name: assertion.get_ref().name.clone(), sql: assertion.get_ref().sql.clone() };
            if !is_name(&name) || sql.trim().is_empty() || names.len() == MOST {
                let what = "an assertion has a name of 1 to 120 characters and a statement, and there are 200 at most";
                return Err(self.problem(assertion.span(), what));
            }
            if !names.insert(name.clone()) {
                return Err(self.problem(assertion.span(), format!("two assertions are called `{name}`")));
            }
            drill.assertions.push(Assertion { name, sql });
        }
        for table in &written.tables {
            if !is_name(table.get_ref()) || drill.tables.len() == MOST {
                let what = "a table is written as NAME or SCHEMA.NAME, and there are 200 at most";
                return Err(self.problem(table.span(), what));
            }
            drill.tables.push(table.get_ref().clone());
        }
        drill.scratch = written.scratch.as_ref().map(|path| self.folder.join(path));
        drill.database = written.database.as_ref().map(|database| database.get_ref().clone());
        drill.statement_timeout = written.statement_timeout.map_or(STATEMENT_TIMEOUT, |span| span.get());
        drill.foreign_keys = written.foreign_keys.as_ref().is_none_or(|keys| *keys.get_ref());
        drill.signing_key = written.signing_key.as_ref().map(|path| self.folder.join(path));
        drill.verify_keys = self.public_keys(&written.verify_keys)?;
        Ok(drill)
    }
}
