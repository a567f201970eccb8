//! What a drill's copy is asked, and in which order.
//!
//! What always holds: what could not be asked is "not looked at" with the reason; what the user demands (assertions, tables) is required, and not looked at is then a failure of the drill. A
//! server is ended before its pages are read. Nothing that is recorded here holds a value of a row.

use std::path::Path;

use farshore_applier::plan::Plan;
use farshore_applier::restore::Restored;
use farshore_engines::drill::Answer;
use farshore_engines::postgres::restore::control::Major;
use farshore_engines::postgres::restore::server::{Network, Reached, RunningServer};
use farshore_engines::postgres::restore::{bin, drill as postgres};
use farshore_engines::sqlite::check::Checked;
use farshore_engines::sqlite::drill as sqlite;
use farshore_journal::Position;
use farshore_journal::format::certificate::{CheckOutcome, CountedTable, DrillCheck};

use super::{Course, PORT};
use crate::config::EngineConfig;
use crate::config::drill::Assertion;

/// Where a copy is reached, of either engine.
enum Asked {
    Server(postgres::Copy, String),
    File(sqlite::Copy),
}

impl Asked {
    async fn reads(&self) -> Answer {
        match self {
            Self::Server(copy, database) => copy.reads(database).await,
            Self::File(copy) => copy.reads().await,
        }
    }

    async fn assertion(&self, assertion: &Assertion) -> Answer {
        match self {
            Self::Server(copy, database) => copy.assertion(database, &assertion.sql).await,
            Self::File(copy) => copy.assertion(&assertion.sql).await,
        }
    }

    async fn count(&self, table: &str) -> Result<u64, String> {
        match self {
            Self::Server(copy, database) => copy.count(database, table).await,
            Self::File(copy) => copy.count(table).await,
        }
    }
}

/// Asks all there is to ask.
pub(super) async fn all(course: &mut Course<'_>, plan: &Plan, restored: Restored) {
    let limit = course.settings.drill.statement_timeout;
    let at = Position::new(plan.resolved.timeline, plan.resolved.position);
    let directory = restored.directory.clone();
    match (restored.file, restored.server) {
        (Some(file), _) => {
            course.network = "a file: nothing listens";
            let asked = Asked::File(sqlite::Copy::new(&file.path, limit));
            opened(course, &asked).await;
            course.note("stands at exactly the planned position", true, Answer::Holds(at.to_string()));
            let whole = match &file.checked {
                Checked::Whole => Answer::Holds(String::new()),
                Checked::InPart { .. } => Answer::NotLookedAt(
                    "in part alone: SQLite lacks a function or collation that the application adds"
                        .to_owned(),
                ),
            };
            course.note("integrity_check", false, whole);
            let keys = match (&asked, course.settings.drill.foreign_keys) {
                (Asked::File(copy), true) => copy.foreign_keys().await,
                _ => Answer::NotLookedAt("left out by the configuration".to_owned()),
            };
            course.note("foreign_key_check", false, keys);
            users(course, &asked).await;
        }
        (None, Some(Reached::Promoted(server, timeline))) => {
            course.network = network(&server);
            let copy = postgres::Copy {
                socket_dir: restored.socket_dir.unwrap_or_default(),
                port: PORT,
                user: "postgres".to_owned(),
                limit,
            };
            let asked = Asked::Server(copy.clone(), database(course));
            opened(course, &asked).await;
            let detail = format!("{at}, then opened on timeline {timeline}");
            course.note("stands at exactly the planned position", true, Answer::Holds(detail));
            users(course, &asked).await;
            of_server(course, &copy, server, &directory).await;
        }
        (None, _) => {
            let why = "the copy was not opened".to_owned();
            course.note("answers reads", true, Answer::NotLookedAt(why));
        }
    }
}

/// The last of opening is the first answer.
async fn opened(course: &mut Course<'_>, asked: &Asked) {
    let answer = asked.reads().await;
    course.clock.answered();
    course.note("answers reads", true, answer);
}

/// What the user demands.
async fn users(course: &mut Course<'_>, asked: &Asked) {
    let settings = course.settings;
    for assertion in &settings.drill.assertions {
        let answer = asked.assertion(assertion).await;
        course.note(&format!("assertion: {}", assertion.name), true, answer);
    }
    for table in &settings.drill.tables {
        let counted = asked.count(table).await;
        course.tables.push(CountedTable { table: table.clone(), rows: counted.as_ref().ok().copied() });
        let answer = counted.map_or_else(Answer::DoesNot, |rows| Answer::Holds(format!("{rows} rows")));
        course.note(&format!("table {table} is counted"), true, answer);
    }
}

/// What the server's own programs say of its relations and pages. The server is ended here.
async fn of_server(course: &mut Course<'_>, copy: &postgres::Copy, server: RunningServer, data: &Path) {
    let explicit = match &course.settings.engine {
        EngineConfig::Postgres { bin_dir, .. } => bin_dir.clone(),
        EngineConfig::Sqlite { .. } => None,
    };
    let found = match Major::new(course.held.source.record().major) {
        Some(major) => bin::find(explicit.as_deref(), major).await.ok(),
        None => None,
    };
    let no_programs = || Answer::NotLookedAt("the server's programs were not found".to_owned());
    let amcheck = match &found {
        Some(bin) => copy.amcheck(bin, &database(course)).await,
        None => no_programs(),
    };
    course.note("amcheck", false, amcheck);
    let stopped = server.stop().await;
    let checksums = match (&found, stopped) {
        (Some(bin), Ok(())) => postgres::checksums(bin, data).await,
        (None, _) => no_programs(),
        (_, Err(_)) => Answer::NotLookedAt("the server did not stop cleanly".to_owned()),
    };
    course.note("page checksums", false, checksums);
}

fn network(server: &RunningServer) -> &'static str {
    match server.network() {
        Network::Own => "the server had a network namespace of its own, without an interface",
        Network::Machines => {
            "the server had the machine's network and listened on its private socket alone: this machine lets us make no namespace"
        }
        Network::Unknown => "not known: the server could not be asked which network it had",
    }
}

/// The database that is asked.
fn database(course: &Course<'_>) -> String {
    let of_url = match &course.settings.engine {
        EngineConfig::Postgres { url, .. } => url.database().to_owned(),
        EngineConfig::Sqlite { .. } => String::new(),
    };
    let chosen = course.settings.drill.database.clone().unwrap_or(of_url);
    if chosen.is_empty() { "postgres".to_owned() } else { chosen }
}

impl Course<'_> {
    fn note(&mut self, name: &str, required: bool, answer: Answer) {
        let (outcome, detail) = match answer {
            Answer::Holds(detail) => (CheckOutcome::Passed, detail),
            Answer::DoesNot(detail) => (CheckOutcome::Failed, detail),
            Answer::NotLookedAt(detail) => (CheckOutcome::NotLookedAt, detail),
        };
        self.checks.push(DrillCheck { name: name.to_owned(), outcome, required, detail });
    }
}
