//! `farshore points`: recovery points. The list comes from the catalog; a mark is written by the server into its own log, so
//! that the journal holds it and any store alone can find it again.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::points::{Around, PointsQuery};
use farshore_catalog::range::JournalRange;
use farshore_engines::log::commits_hold_changes;
use farshore_engines::postgres::sql::Session;
use farshore_journal::{DatabaseName, Position};
use serde::Serialize;

use crate::cli::PointsCommand;
use crate::cli::time::Moment;
use crate::commands::{self, Context};
use crate::config::{Config, DatabaseConfig, EngineConfig};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::socket::{Request, asks};
use crate::wiring;

/// How long a service may need to name a point and to store it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Commits that a list shows: the newest ones.
const SHOWN: usize = 50;

/// One point, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Point {
    time: DateTime<Utc>,
    position: Position,
    kind: String,
    name: Option<String>,
    xid: Option<u64>,
    /// Bytes of log that the transaction made, where a log says that: a wrong one is often a large one.
    changed_bytes: Option<u64>,
    /// The stores whose checked log holds it, by name. None yet for a mark that was set just now.
    stores: Vec<String>,
}

impl Row for Point {
    const HEADER: &'static [&'static str] =
        &["TIME (UTC)", "POSITION", "KIND", "NAME", "XID", "BYTES", "STORES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.time.to_rfc3339_opts(SecondsFormat::Micros, true),
            self.position.to_string(),
            self.kind.clone(),
            self.name.clone().unwrap_or_default(),
            self.xid.map(|xid| xid.to_string()).unwrap_or_default(),
            self.changed_bytes.map(|bytes| bytes.to_string()).unwrap_or_default(),
            self.stores.join(","),
        ]
    }
}

/// Runs it.
///
/// # Errors
/// When the catalog is away, or the server did not write the mark. Holds belong to expiry, which is not built yet.
pub async fn run(context: &mut Context, args: PointsCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    match args {
        PointsCommand::List { database, around } => {
            let (name, _) = commands::database(&config, Some(&database))?;
            let points = list(&config, name, around).await?;
            context.output.list("farshore.points/1", &points)?;
            Ok(Exit::Done)
        }
        PointsCommand::Mark { database, name } => {
            let (database, settings) = commands::database(&config, Some(&database))?;
            let point = match &settings.engine {
                EngineConfig::Postgres { .. } => mark(database, settings, name).await?,
                EngineConfig::Sqlite { .. } => mark_in_stream(&config, database, settings, name).await?,
            };
            context.output.list("farshore.points/1", &[point])?;
            Ok(Exit::Done)
        }
        PointsCommand::Hold { .. } => Err(OperatorMessage::not_built("points hold").into()),
        PointsCommand::Release { .. } => Err(OperatorMessage::not_built("points release").into()),
    }
}

/// The newest commits of the store that reaches furthest, or those nearest to a time, and the marks among them, oldest first. Each names the stores that hold
/// it, since a restore reads one of them.
async fn list(config: &Config, name: &DatabaseName, around: Option<Moment>) -> anyhow::Result<Vec<Point>> {
    let catalog = wiring::catalog(config).await?;
    let ranges = match catalog.incarnation_current(name).await? {
        Some(incarnation) => catalog.range_list(incarnation.id).await?,
        None => Vec::new(),
    };
    let tells =
        config.databases.get(name).is_some_and(|settings| commits_hold_changes(settings.engine.name()));
    let newest = ranges.iter().max_by_key(|range| (range.timeline, range.end));
    let Some(newest) = newest else {
        return Err(OperatorMessage::new(
            Code::StatusUnknown,
            format!("the catalog knows no point of {name}"),
            Safe::Unknown("the stores were not looked at".to_owned()),
            format!(
                "start `farshore run`, or `farshore catalog rebuild`, then `farshore points list {name}`"
            ),
        )
        .into());
    };
    let asked = PointsQuery {
        incarnation: newest.incarnation,
        timeline: newest.timeline,
        around: match around {
            Some(time) => Around::Time(time.utc()),
            None => Around::Position(Position::new(newest.timeline, newest.checked_end)),
        },
        // By count alone: one commit from a clock far ahead must not push the others out.
        span: None,
        limit: SHOWN,
        cursor: None,
    };
    let page = catalog.points_around(&asked).await?;
    let commits = page.commits.iter().map(|commit| Point {
        time: commit.time,
        position: commit.position(),
        kind: "commit".to_owned(),
        name: None,
        xid: Some(commit.xid),
        changed_bytes: commit.end.bytes_since(commit.start).filter(|_| tells),
        stores: holding(&ranges, commit.position()),
    });
    let marks = page.marks.iter().map(|mark| Point {
        time: mark.time,
        position: mark.position,
        kind: mark.kind.to_string(),
        name: Some(mark.name.clone()),
        xid: None,
        changed_bytes: None,
        stores: holding(&ranges, mark.position),
    });
    let mut points: Vec<Point> = commits.chain(marks).collect();
    points.sort_by_key(|point| (point.position.timeline, point.position.offset));
    Ok(points)
}

/// The stores whose checked log holds what ends at a position.
fn holding(ranges: &[JournalRange], position: Position) -> Vec<String> {
    let holds = |range: &&JournalRange| {
        range.timeline == position.timeline
            && range.start < position.offset
            && position.offset <= range.checked_end
    };
    ranges.iter().filter(holds).map(|range| range.store.clone()).collect()
}

fn not_marked(database: &DatabaseName, name: &str, why: &str, safe: Safe, next: &str) -> OperatorMessage {
    OperatorMessage::new(Code::MarkFailed, format!("{database} has no new point `{name}`: {why}"), safe, next)
}

/// By the service, whose stream is the only way into the log. It is stored when this returns.
async fn mark_in_stream(
    config: &Config,
    database: &DatabaseName,
    settings: &DatabaseConfig,
    name: String,
) -> anyhow::Result<Point> {
    let request = Request::Point(asks::Point { database: database.clone(), name: name.clone() });
    let asked =
        tokio::time::timeout(PATIENCE, asks::ask::<asks::Named>(&config.service.socket, &request)).await;
    let asked = asked.unwrap_or_else(|_| {
        Err(anyhow::anyhow!("the service did not answer in {} seconds", PATIENCE.as_secs()))
    });
    let next = format!(
        "`farshore status {database}` says how shipping stands; then `farshore points list {database}`"
    );
    let not_known = Safe::Unknown("whether it was named".to_owned());
    let named = match asked {
        Ok(Some(Ok(named))) => named,
        Ok(Some(Err(why))) => return Err(not_marked(database, &name, &why, not_known, &next).into()),
        Ok(None) => {
            let why = "no service ships it, and only its stream can name a point of a SQLite database";
            let safe = Safe::Known("nothing was written into its log".to_owned());
            return Err(not_marked(database, &name, why, safe, "start `farshore run`, then name it").into());
        }
        Err(why) => return Err(not_marked(database, &name, &format!("{why:#}"), not_known, &next).into()),
    };
    Ok(Point {
        time: named.time,
        position: named.position,
        kind: "restore_point".to_owned(),
        name: Some(name),
        xid: None,
        changed_bytes: None,
        stores: settings.stores.iter().map(ToString::to_string).collect(),
    })
}

async fn mark(database: &DatabaseName, settings: &DatabaseConfig, name: String) -> anyhow::Result<Point> {
    let params = wiring::connect_params(database, settings)?;
    let failed = |why: String, next: &str| {
        let safe = Safe::Known("nothing was written into its log".to_owned());
        not_marked(database, &name, &why, safe, next)
    };
    let grant = "as a superuser: grant execute on function pg_create_restore_point(text) to the role that farshore uses";
    let mut last = "no host of it is a primary that answers".to_owned();
    for host in params.hosts() {
        let session = match Session::connect(&params, host).await {
            Ok(session) => session,
            Err(why) => {
                last = why.to_string();
                continue;
            }
        };
        if !matches!(session.in_recovery().await, Ok(false)) {
            continue;
        }
        let end = session.create_restore_point(&name).await.map_err(|why| failed(why.to_string(), grant))?;
        let timeline =
            session.current_position().await.map_err(|why| failed(why.to_string(), grant))?.timeline;
        let kind = "restore_point".to_owned();
        return Ok(Point {
            time: Utc::now(),
            position: Position::new(timeline, end),
            kind,
            name: Some(name),
            xid: None,
            changed_bytes: None,
            stores: Vec::new(),
        });
    }
    Err(failed(last, "mend what it says; `farshore check` looks at every step to the server").into())
}
