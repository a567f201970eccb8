//! Drills: when each database was last proved, how long its recoveries took, what each drill found; and asking for one.
//!
//! What always holds: what was never drilled is said to be so, with the shape of unknown; a drill that failed is shown as it failed, whatever passed before it. A drill is asked
//! for as the REST API asks for it, once however often its form is sent.

pub mod calendar;
pub mod one;
pub mod trend;

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::drill::{Drill, DrillFilter};
use farshore_catalog::fleet::{Fleet, Member};
use farshore_catalog::job::{JobFilter, JobKind};
use farshore_journal::{DatabaseName, DrillId};
use serde::Deserialize;

use self::calendar::Month;
use self::one::{Phase, Said};
use self::trend::Trend;
use crate::api::{drill, named};
use crate::ask::{self, Key, Work};
use crate::page::{self, Query, cursor_invalid};
use crate::pages::frame::{self, Page, Part};
use crate::pages::jobs::{self, Shown, asking};
use crate::pages::look::Look;
use crate::pages::proof::{self, Proved};
use crate::pages::standing::Level;
use crate::pages::visitor::{Posted, Visitor};
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::Problem;
use crate::state::{Shared, Web};

/// Drills in the list.
const LISTED: u32 = 25;
/// How much of the past a trend shows.
const TREND: TimeDelta = TimeDelta::days(180);
/// The most trends on a page.
const TRENDS: usize = 6;
/// The list, as its cursors name it.
const LIST: &str = "drills-page";

/// The rules by which a drill's point is chosen, and what they mean.
const RULES: [(&str, &str); 4] = [
    ("", "as the configuration says"),
    ("latest", "latest: the newest stored commit"),
    ("random", "random: anywhere that can be restored to"),
    ("oldest", "oldest: as far back as can be restored to"),
];

/// Which drills.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    database: String,
    #[serde(default)]
    month: String,
    #[serde(default)]
    day: String,
    #[serde(default)]
    older: String,
}

/// A database's line.
struct Row {
    database: String,
    engine: String,
    proved: Proved,
    schedule: Option<(String, String)>,
}

/// A drill's line.
struct Line {
    id: String,
    database: String,
    began: Moment,
    level: Level,
    verdict: &'static str,
    reason: Option<String>,
    point: Option<String>,
    recovery: Option<String>,
    objective: Option<String>,
    phases: Vec<Phase>,
    certified: bool,
}

#[derive(Template)]
#[template(path = "drills_live.html")]
struct Live {
    again: String,
    at: i64,
    now: String,
    running: Vec<Shown>,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "drills.html")]
struct DrillsPage<'a> {
    database: &'a str,
    databases: Vec<String>,
    live: String,
    operator: bool,
    csrf: &'a str,
    key: String,
    rules: &'static [(&'static str, &'static str)],
    month: Month,
    trends: Vec<Trend>,
    more_trends: usize,
    lines: Vec<Line>,
    day: Option<String>,
    older: Option<String>,
    newest: bool,
}

/// All drills.
///
/// # Errors
/// When there is no such database for whoever asks, or the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let now = Utc::now();
    let name = match asked.database.trim() {
        "" => None,
        text => Some(named(text, &visitor.who)?),
    };
    let look = Look::at(&web, now).await?;
    let members: Vec<&Member> =
        look.fleet.members.iter().filter(|member| visitor.who.sees(&member.database)).collect();
    let live = live(&web, now, name.as_ref(), &look.fleet, &members).await?;
    if is_part(&headers) {
        return Ok(html(live));
    }
    let today = now.date_naive();
    let day: Option<NaiveDate> = asked.day.parse().ok();
    let first = match day {
        Some(day) if asked.month.is_empty() => calendar::first(&day.format("%Y-%m").to_string(), today),
        _ => calendar::first(&asked.month, today),
    };
    let catalog = web.catalog()?;
    let of_month = catalog.drill_days(name.as_ref(), calendar::span(first)).await?;
    let filter = filter(name.clone(), day, &asked.older)?;
    let listed = catalog.drill_list(&filter, LISTED).await?;
    let last = listed.last().filter(|_| listed.len() == LISTED as usize);
    let older = last
        .map(|last| page::cursor(LIST, &(last.began.timestamp_micros(), last.id.to_string())))
        .transpose()?;
    let (trends, more_trends) = trends(&web, now, name.as_ref(), &members).await?;
    let body = render(&DrillsPage {
        database: name.as_ref().map_or("", DatabaseName::as_str),
        databases: members.iter().map(|member| member.database.to_string()).collect(),
        live,
        operator: visitor.may(Role::Operator),
        csrf: &visitor.csrf,
        key: Key::mint()?,
        rules: &RULES,
        month: calendar::month(first, today, day, &of_month),
        trends,
        more_trends,
        lines: listed.iter().map(|drill| line(now, drill)).collect(),
        day: day.map(|day| day.to_string()),
        older,
        newest: asked.older.is_empty(),
    })?;
    let page = Page { title: "Drills".to_owned(), part: Part::Drills, trail: Vec::new(), said: None, body };
    frame::show(&page, &visitor)
}

async fn live(
    web: &Web,
    now: DateTime<Utc>,
    name: Option<&DatabaseName>,
    fleet: &Fleet,
    members: &[&Member],
) -> Result<String, Problem> {
    let catalog = web.catalog()?;
    let known: BTreeSet<&DatabaseName> = members.iter().map(|member| &member.database).collect();
    let filter = JobFilter { database: name.cloned(), unended: true, before: None };
    let running = catalog.job_list(&filter, 1000).await?.into_iter().filter(|job| {
        job.asked.kind == JobKind::Drill
            && job.asked.database.as_ref().is_some_and(|name| known.contains(name))
    });
    let running = running.map(|job| jobs::shown(now, job)).collect();
    let mut schedules: BTreeMap<&DatabaseName, (String, String)> = BTreeMap::new();
    for schedule in fleet.schedules.iter().filter(|one| one.kind == JobKind::Drill) {
        schedules.insert(&schedule.database, (schedule.cron.clone(), schedule.zone.clone()));
    }
    let mut rows: Vec<Row> = members
        .iter()
        .filter(|member| name.is_none_or(|name| *name == member.database))
        .map(|member| Row {
            database: member.database.to_string(),
            engine: member.engine.clone(),
            proved: proof::proved(now, &member.proof, rto(web, &member.database)),
            schedule: schedules.remove(&member.database),
        })
        .collect();
    rows.sort_by(|a, b| a.proved.level.cmp(&b.proved.level).then_with(|| a.database.cmp(&b.database)));
    render(&Live {
        again: format!("/drills?database={}", name.map_or("", DatabaseName::as_str)),
        at: fleet.read_at.timestamp_millis(),
        now: words::full(fleet.read_at),
        running,
        rows,
    })
}

fn rto(web: &Web, name: &DatabaseName) -> Option<std::time::Duration> {
    web.objectives.get(name).and_then(|promised| promised.rto)
}

/// Which drills the list has.
fn filter(
    database: Option<DatabaseName>,
    day: Option<NaiveDate>,
    older: &str,
) -> Result<DrillFilter, Problem> {
    let mut filter = DrillFilter { database, since: None, before: None };
    if let Some(day) = day {
        filter.since = Some(calendar::midnight(day));
        // No id is before this one.
        let none = DrillId::from_bytes([0; 16]);
        filter.before = day.checked_add_days(Days::new(1)).map(|next| (calendar::midnight(next), none));
    }
    if !older.is_empty() {
        let (at, id): (i64, String) = page::place(LIST, older)?;
        let at = DateTime::from_timestamp_micros(at).ok_or_else(cursor_invalid)?;
        filter.before = Some((at, id.parse().map_err(|_| cursor_invalid())?));
    }
    Ok(filter)
}

/// The trends of the databases that were drilled, and how many more there are. Drills of those alone are read whose trend is shown.
async fn trends(
    web: &Web,
    now: DateTime<Utc>,
    name: Option<&DatabaseName>,
    members: &[&Member],
) -> Result<(Vec<Trend>, usize), Problem> {
    let catalog = web.catalog()?;
    let wanted = members.iter().map(|member| &member.database);
    let wanted = wanted.filter(|database| name.is_none_or(|name| name == *database));
    let drilled: BTreeSet<DatabaseName> = catalog.drill_drilled(now - TREND).await?.into_iter().collect();
    let mut all = wanted.filter(|database| drilled.contains(*database));
    let mut shown = Vec::new();
    for database in all.by_ref().take(TRENDS) {
        let own = catalog.drill_history(Some(database), (now - TREND, now + TimeDelta::days(1))).await?;
        shown.push(trend::trend(now, database.as_str(), &own, rto(web, database)));
    }
    Ok((shown, all.count()))
}

fn line(now: DateTime<Utc>, drill: &Drill) -> Line {
    let said = Said::read(drill);
    Line {
        id: drill.id.to_string(),
        database: drill.database.to_string(),
        began: Moment::new(now, drill.began),
        level: proof::level(drill.verdict),
        verdict: proof::verdict(drill.verdict),
        reason: one::reason(drill, said.statement.as_ref()),
        point: said.statement.as_ref().map(|statement| statement.point.asked.clone()),
        recovery: drill.recovery.map(words::took),
        objective: drill.objective.map(words::took),
        phases: said.statement.as_ref().map_or_else(Vec::new, |statement| one::phases(&statement.measured)),
        certified: drill.signed.is_some(),
    }
}

/// Asks for a drill.
///
/// # Errors
/// When there is no such database for whoever asks, what is asked for cannot be one, or the catalog is away.
pub async fn ask(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    form: Posted,
) -> Result<Response, Problem> {
    let key = Key::of_form(&form)?;
    let point = form.field("named").or_else(|| form.field("rule")).map(str::to_owned);
    let spec = drill::wanted(point, None, None)?;
    let database = ask::database(&web, &visitor.who, form.field("database").unwrap_or_default()).await?;
    let work = Work { kind: JobKind::Drill, database: &database.name, spec: &spec, node: None };
    Ok(asking::to(ask::put(&web, &visitor.who, key, work, asking::WAY).await?.job))
}
