//! `farshore points`: recovery points. The list comes from the catalog; a mark is written by the server into its own log, so
//! that the journal holds it and any store alone can find it again.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::points::{Around, PointsQuery};
use farshore_catalog::range::holding;
use farshore_engines::log::commits_hold_changes;
use farshore_engines::postgres::sql::Session;
use farshore_journal::{DatabaseName, Position};
use serde::Serialize;

use crate::cli::PointsCommand;
use crate::cli::restore::Incarnation as Which;
use crate::cli::time::Moment;
use crate::cli::zone::Zone;
use crate::commands::{self, Context, hold};
use crate::config::{Config, DatabaseConfig, EngineConfig};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::socket::{Request, asks};
use crate::wiring;

/// How long a service may need to name a point and to store it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Commits that a list shows: the newest ones, or those nearest to a time.
const SHOWN: usize = 50;

/// One point, as `-o json` shows it.
#[derive(Debug, Clone, Serialize)]
struct Point {
    time: DateTime<Utc>,
    /// The number of its incarnation, which `restore --incarnation` takes. None for a mark that was set just now, and where it was
    /// recorded before numbers were kept.
    incarnation: Option<u64>,
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
        &["TIME (UTC)", "INC", "POSITION", "KIND", "NAME", "XID", "BYTES", "STORES"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        vec![
            zone.show(self.time, SecondsFormat::Micros),
            number(self.incarnation),
            self.position.to_string(),
            self.kind.clone(),
            self.name.clone().unwrap_or_default(),
            number(self.xid),
            number(self.changed_bytes),
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
        PointsCommand::List { database, around, incarnation } => {
            let (name, _) = commands::database(&config, Some(&database))?;
            let points = list(&config, name, around, incarnation).await?;
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
        PointsCommand::Hold { database, point, reason, until, incarnation } => {
            hold::put(context, &config, &database, (&point, incarnation), (&reason, until)).await
        }
        PointsCommand::Holds { database } => hold::list(context, &config, &database).await,
        PointsCommand::Release { database, hold } => hold::release(context, &config, &database, hold).await,
    }
}

/// The newest commits, or those nearest to a time, and the marks among them, oldest first: of every incarnation, or of the one that
/// is named, each along the line of the store that reaches furthest. Each names the stores that hold it, since a restore reads one
/// of them.
async fn list(
    config: &Config,
    name: &DatabaseName,
    around: Option<Moment>,
    which: Option<Which>,
) -> anyhow::Result<Vec<Point>> {
    let catalog = wiring::catalog(config).await?;
    let around = around.map(Moment::utc);
    let tells =
        config.databases.get(name).is_some_and(|settings| commits_hold_changes(settings.engine.name()));
    let known = catalog.incarnation_list(name).await?;
    let wanted = |incarnation: &&Incarnation| match which {
        None => true,
        Some(Which::Number(number)) => incarnation.number == Some(number),
        Some(Which::Id(id)) => incarnation.id == id,
    };
    let mut of_incarnations = Vec::new();
    for incarnation in known.iter().filter(wanted) {
        of_incarnations.extend(of_incarnation(&catalog, incarnation, around, tells).await?);
    }
    if of_incarnations.is_empty() {
        return Err(nothing_known(name, which, &known).into());
    }
    say_what_has_no_base(&catalog, name, which).await;
    Ok(nearest(of_incarnations, around, SHOWN))
}

/// Up to as many of an incarnation's points as are shown in all; `None` when the catalog knows nothing of its log.
async fn of_incarnation(
    catalog: &Catalog,
    incarnation: &Incarnation,
    around: Option<DateTime<Utc>>,
    tells: bool,
) -> anyhow::Result<Option<Vec<Point>>> {
    let ranges = catalog.range_list(incarnation.id).await?;
    let Some(newest) = ranges.iter().max_by_key(|range| (range.timeline, range.end)) else { return Ok(None) };
    let asked = PointsQuery {
        incarnation: newest.incarnation,
        timeline: newest.timeline,
        around: match around {
            Some(time) => Around::Time(time),
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
        incarnation: incarnation.number,
        position: commit.position(),
        kind: "commit".to_owned(),
        name: None,
        xid: Some(commit.xid),
        changed_bytes: commit.end.bytes_since(commit.start).filter(|_| tells),
        stores: holding(&ranges, commit.position()),
    });
    let marks = page.marks.iter().map(|mark| Point {
        time: mark.time,
        incarnation: incarnation.number,
        position: mark.position,
        kind: mark.kind.to_string(),
        name: Some(mark.name.clone()),
        xid: None,
        changed_bytes: None,
        stores: holding(&ranges, mark.position),
    });
    let mut points: Vec<Point> = commits.chain(marks).collect();
    points.sort_by_key(|point| (point.position.timeline, point.position.offset));
    Ok(Some(points))
}

/// At most `limit` commits of several incarnations, oldest incarnation first, each in the order of its log: the newest ones, or those
/// nearest to a time. Marks stay where a commit of their incarnation does, or where it has none.
fn nearest(of_incarnations: Vec<Vec<Point>>, around: Option<DateTime<Utc>>, limit: usize) -> Vec<Point> {
    let is_commit = |point: &Point| point.xid.is_some();
    let mut commits: Vec<(usize, usize)> = Vec::new();
    for (of, points) in of_incarnations.iter().enumerate() {
        commits
            .extend(points.iter().enumerate().filter(|(_, point)| is_commit(point)).map(|(at, _)| (of, at)));
    }
    // Order comes from incarnations and log, never from clocks; a clock only says what is near.
    commits.reverse();
    if let Some(around) = around {
        commits.sort_by_key(|(of, at)| (of_incarnations[*of][*at].time - around).abs());
    }
    commits.truncate(limit);
    let kept: BTreeSet<(usize, usize)> = commits.into_iter().collect();
    let mut shown = Vec::new();
    for (of, points) in of_incarnations.into_iter().enumerate() {
        let marks = !points.iter().any(is_commit) || kept.range((of, 0)..(of + 1, 0)).next().is_some();
        let stays =
            |at: usize, point: &Point| if is_commit(point) { kept.contains(&(of, at)) } else { marks };
        shown.extend(
            points.into_iter().enumerate().filter(|(at, point)| stays(*at, point)).map(|(_, point)| point),
        );
    }
    shown
}

/// That what was committed since the newest incarnation began cannot be restored yet, where that is so.
async fn say_what_has_no_base(catalog: &Catalog, name: &DatabaseName, which: Option<Which>) {
    let Ok(status) = catalog.status(name, Utc::now()).await else { return };
    let is_asked_for = match (which, status.incarnation) {
        (None, _) => true,
        (Some(Which::Number(number)), _) => status.incarnation_number == Some(number),
        (Some(Which::Id(id)), current) => current == Some(id),
    };
    if status.window.is_none() && is_asked_for {
        let number = status.incarnation_number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        tracing::warn!(database = %name, "the newest incarnation ({number}) has no complete backup yet: its points cannot be restored until it has one");
    }
}

/// What it means that there is nothing to list.
fn nothing_known(name: &DatabaseName, which: Option<Which>, known: &[Incarnation]) -> OperatorMessage {
    let numbers: Vec<String> =
        known.iter().filter_map(|incarnation| incarnation.number).map(|number| number.to_string()).collect();
    let (what, next) = match which {
        Some(which) if !known.is_empty() => (
            format!("the catalog knows no point of incarnation {which} of {name}"),
            format!("name another incarnation, it knows {}; or", numbers.join(", ")),
        ),
        _ => (format!("the catalog knows no point of {name}"), String::new()),
    };
    OperatorMessage::new(
        Code::StatusUnknown,
        what,
        Safe::Unknown("the stores were not looked at".to_owned()),
        format!(
            "{next} start `farshore run`, or `farshore catalog rebuild`, then `farshore points list {name}`"
        )
        .trim_start(),
    )
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
        incarnation: None,
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
            incarnation: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::{Offset, Timeline};

    fn time(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    /// Points of an incarnation: a commit's number and second, or a mark.
    fn points(incarnation: u64, of: &[(Option<u64>, i64)]) -> Vec<Point> {
        let point = |(at, (xid, second)): (usize, &(Option<u64>, i64))| Point {
            time: time(*second),
            incarnation: Some(incarnation),
            position: Position::new(Timeline::new(1), Offset::new(at as u64)),
            kind: String::new(),
            name: None,
            xid: *xid,
            changed_bytes: None,
            stores: Vec::new(),
        };
        of.iter().enumerate().map(point).collect()
    }

    fn shown(of: &[Vec<Point>], around: Option<i64>, limit: usize) -> Vec<(u64, Option<u64>)> {
        let nearest = nearest(of.to_vec(), around.map(time), limit);
        nearest.iter().map(|point| (point.incarnation.unwrap(), point.xid)).collect()
    }

    #[test]
    fn points_near_a_time_are_found_in_every_incarnation_and_the_newest_by_order_not_by_clock() {
        // The second incarnation's clock was set back.
        let of = [
            points(0, &[(Some(1), 100), (None, 105), (Some(2), 110), (Some(3), 900)]),
            points(1, &[(Some(1), 300), (Some(2), 310), (None, 320)]),
        ];
        assert_eq!(shown(&of, Some(108), 2), [(0, Some(1)), (0, None), (0, Some(2))]);
        assert_eq!(
            shown(&of, Some(290), 3),
            [(0, None), (0, Some(2)), (1, Some(1)), (1, Some(2)), (1, None)]
        );
        assert_eq!(shown(&of, None, 2), [(1, Some(1)), (1, Some(2)), (1, None)]);
        assert_eq!(shown(&of, None, 3), [(0, None), (0, Some(3)), (1, Some(1)), (1, Some(2)), (1, None)]);
        assert_eq!(shown(&of, None, 50).len(), 7);
        // Where nothing was committed, marks are all there is.
        assert_eq!(
            shown(&[points(0, &[(None, 1)]), of[1].clone()], None, 1),
            [(0, None), (1, Some(2)), (1, None)]
        );
    }
}
