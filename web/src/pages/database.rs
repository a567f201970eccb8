//! One database: is it safe, where can it be taken back to, and which point matters.
//!
//! What always holds: a point is picked in log order, by the rules that a restore follows ([`resolve::lead`]); a refresh never moves what was
//! picked. What is shown to be restorable is what the catalog knows; the restore's own plan reads the store.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::access::Role;
use farshore_catalog::backup::{Backup, BackupState};
use farshore_catalog::commit::Commit;
use farshore_catalog::mark::Mark;
use farshore_catalog::points::{Around, PointsQuery};
use farshore_catalog::status::{DatabaseStatus, Window};
use farshore_journal::{DatabaseName, Position};
use serde::Deserialize;

use crate::api::named;
use crate::api::resolve::{self, Resolved};
use crate::page::Query;
use crate::pages::exposure::{self, Chart};
use crate::pages::fleet::Exposure;
use crate::pages::frame::{self, Page, Part};
use crate::pages::standing::{Known, Level, Standing, standing};
use crate::pages::timeline::{Axis, Bar, Tick, X, Zoom, apart};
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// Commits in the table around the picked point.
const NEAR: usize = 12;
/// Base backups in the table.
const BACKUPS: usize = 12;

/// Which point, and how much of the history.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pos: Option<String>,
    at: Option<String>,
    point: Option<String>,
    #[serde(default)]
    zoom: String,
    /// The part that is fetched anew.
    #[serde(default)]
    part: String,
    /// What was done just now.
    #[serde(default)]
    said: String,
}

impl Asked {
    /// Empty fields of a form are none.
    fn given(self) -> Self {
        let some =
            |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Self { pos: some(self.pos), at: some(self.at), point: some(self.point), ..self }
    }
}

struct Target {
    store: String,
    stored: Option<String>,
    state: String,
    level: Level,
    why: Option<String>,
}

#[derive(Template)]
#[template(path = "database_facts.html")]
struct Facts {
    name: String,
    at: i64,
    now: String,
    engine: String,
    level: Level,
    because: String,
    why: Option<String>,
    state: &'static str,
    exposure: Exposure,
    rto: Option<String>,
    seen: Option<Moment>,
    to: Option<Moment>,
    behind: Option<String>,
    backup: Option<Moment>,
    backups: u64,
    damaged: u64,
    targets: Vec<Target>,
    retained: Option<String>,
    to_full: Option<String>,
    incarnation: Option<String>,
    timeline: Option<u32>,
}

/// A place that one can go to from the picked one.
struct Step {
    key: &'static str,
    label: &'static str,
    title: String,
    to: Option<String>,
}

struct Picture {
    ticks: Vec<Tick>,
    runs: Vec<Bar>,
    gaps: Vec<(Bar, String)>,
    backups: Vec<(X, String)>,
    marks: Vec<(X, (String, String))>,
    forks: Vec<(X, String)>,
    now: Option<X>,
    thumb: Option<X>,
    from: i64,
    to: i64,
}

struct Picked {
    asked: String,
    position: String,
    time: Option<Moment>,
    xid: Option<u64>,
    is_final: bool,
    restorable_in: String,
    is_restorable: bool,
    out_of_order: usize,
    min: i64,
    max: i64,
    value: i64,
    text: String,
}

struct Near {
    time: Moment,
    position: String,
    kind: &'static str,
    what: String,
    picked: bool,
    to: String,
}

struct GapLine {
    from: Option<Moment>,
    to: Option<Moment>,
    from_position: String,
    to_position: Option<String>,
    reason: String,
}

struct WindowLine {
    from: Option<Moment>,
    to: Option<Moment>,
    from_position: String,
    to_position: String,
    store: String,
}

#[derive(Template)]
#[template(path = "database_timeline.html")]
struct TimelinePart {
    name: String,
    again: String,
    zooms: Vec<(&'static str, bool, String)>,
    zoom: &'static str,
    picture: Picture,
    picked: Option<Picked>,
    refused: Option<String>,
    steps: Vec<Step>,
    near: Vec<Near>,
    gaps: Vec<GapLine>,
    window: Option<WindowLine>,
    timelines: String,
}

struct BackupLine {
    id: String,
    store: String,
    state: &'static str,
    started: Moment,
    took: Option<String>,
    bytes: Option<String>,
    stored: Option<String>,
    position: String,
    label: String,
    bad_pages: u64,
    checked: bool,
}

struct FormerLine {
    number: String,
    from: Option<Moment>,
    to: Option<Moment>,
    restorable: bool,
}

#[derive(Template)]
#[template(path = "exposure.html")]
struct ExposurePart {
    chart: Chart,
    objective: Option<String>,
}

#[derive(Template)]
#[template(path = "database.html")]
struct DatabasePage {
    name: String,
    csrf: String,
    operator: bool,
    zoom: String,
    facts: String,
    exposure: String,
    timeline: String,
    typed: String,
    backups: Vec<BackupLine>,
    more_backups: usize,
    former: Vec<FormerLine>,
}

/// The page, or the part of it that is asked for anew.
///
/// # Errors
/// When there is no such database for whoever asks, or the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let name = named(&name, &visitor.who)?;
    let asked = asked.given();
    let now = Utc::now();
    let catalog = web.catalog()?;
    let status = catalog.status(&name, now).await?;
    let part = if is_part(&headers) { asked.part.as_str() } else { "" };
    if part == "facts" {
        return Ok(html(render(&facts(&web, &name, now, status))?));
    }
    let history = History::read(catalog, &status).await?;
    let timeline = timeline(catalog, &name, now, &status, &history, &asked).await?;
    if part == "timeline" {
        return Ok(html(timeline));
    }
    let page = DatabasePage {
        name: name.to_string(),
        csrf: visitor.csrf.clone(),
        operator: visitor.may(Role::Operator),
        zoom: asked.zoom.clone(),
        typed: asked.at.clone().unwrap_or_default(),
        backups: history.lines(now),
        more_backups: history.backups.len().saturating_sub(BACKUPS),
        former: former(now, &status),
        exposure: exposure(&web, catalog, &name, now).await?,
        timeline,
        facts: render(&facts(&web, &name, now, status))?,
    };
    let said = match asked.said.as_str() {
        "backup" => Some("A base backup is asked for; the jobs page follows it.".to_owned()),
        "verify" => Some("A verification is asked for; the jobs page follows it.".to_owned()),
        _ => None,
    };
    let trail = vec![("/".to_owned(), "Fleet".to_owned())];
    frame::show(
        &Page { title: name.to_string(), part: Part::Fleet, trail, said, body: render(&page)? },
        &visitor,
    )
}

/// How the exposure went over the last day.
async fn exposure(
    web: &Shared,
    catalog: &Catalog,
    name: &DatabaseName,
    now: DateTime<Utc>,
) -> Result<String, Problem> {
    let from = now - TimeDelta::days(1);
    let kept = catalog.exposure_of(name, from).await?;
    let rpo = web.objectives.get(name).and_then(|promised| promised.rpo).map(|rpo| rpo.as_secs_f64());
    render(&ExposurePart {
        chart: exposure::chart(from, now, &kept, rpo),
        objective: rpo.map(words::seconds),
    })
}

fn facts(web: &Shared, name: &DatabaseName, now: DateTime<Utc>, status: DatabaseStatus) -> Facts {
    let promised = web.objectives.get(name).copied().unwrap_or_default();
    let known = Known {
        state: status.state,
        lag_seconds: status.ship_lag_seconds,
        measured_at: status.measured_at,
        restorable: status.window.is_some(),
        promised,
    };
    let Standing { level, because } = standing(now, &known);
    let targets = status.targets.into_iter().map(|target| Target {
        level: match target.state.as_str() {
            "connected" => Level::Protected,
            "unknown" => Level::Unknown,
            "paused" => Level::Paused,
            "failed" | "fenced" | "bypass" => Level::Unprotected,
            _ => Level::Degraded,
        },
        store: target.store,
        stored: target.stored.map(|position| position.to_string()),
        state: target.state,
        why: target.why,
    });
    Facts {
        name: name.to_string(),
        at: now.timestamp_millis(),
        now: words::full(now),
        engine: status.engine,
        level,
        because,
        why: status.why,
        state: status.state.word(),
        exposure: Exposure::new(status.ship_lag_seconds, status.state, promised),
        rto: promised.rto.map(|rto| words::seconds(rto.as_secs_f64())),
        seen: Moment::maybe(now, status.seen_at),
        to: Moment::maybe(now, status.window.as_ref().and_then(|window| window.to_time)),
        behind: status.ship_lag_bytes.map(words::bytes),
        backup: Moment::maybe(now, status.backups.last_at),
        backups: status.backups.count,
        damaged: status.backups.damaged,
        targets: targets.collect(),
        retained: status.primary.retained_bytes.map(words::bytes),
        #[allow(clippy::cast_precision_loss)] // shown in two units
        to_full: status.primary.seconds_to_full.map(|seconds| words::seconds(seconds as f64)),
        incarnation: status.incarnation_number.map(|number| number.to_string()),
        timeline: status.timeline.map(farshore_journal::Timeline::get),
    }
}

fn former(now: DateTime<Utc>, status: &DatabaseStatus) -> Vec<FormerLine> {
    let line = |former: &farshore_catalog::status::Former| FormerLine {
        number: former.number.map_or_else(|| former.incarnation.to_string(), |number| number.to_string()),
        from: Moment::maybe(now, former.window.as_ref().and_then(|window| window.from_time)),
        to: Moment::maybe(now, former.window.as_ref().and_then(|window| window.to_time)),
        restorable: former.window.is_some(),
    };
    status.former.iter().map(line).collect()
}

/// What the current incarnation's history holds beside its log.
struct History {
    backups: Vec<Backup>,
    marks: Vec<Mark>,
    forks: Vec<(u32, u32, DateTime<Utc>)>,
}

impl History {
    async fn read(catalog: &Catalog, status: &DatabaseStatus) -> Result<Self, Problem> {
        let Some(incarnation) = status.incarnation else {
            return Ok(Self { backups: Vec::new(), marks: Vec::new(), forks: Vec::new() });
        };
        let branches = catalog.branch_list(incarnation).await?;
        let fork = |branch: &farshore_catalog::branch::Branch| {
            branch.fork.map(|fork| (branch.timeline.get(), fork.parent.get(), branch.first_seen_at))
        };
        Ok(Self {
            backups: catalog.backup_list(incarnation).await?,
            marks: catalog.mark_list(incarnation).await?,
            forks: branches.iter().filter_map(fork).collect(),
        })
    }

    /// When a restorable position was consistent first, for one that no commit precedes in its log.
    fn ended_at(&self, position: Position) -> Option<DateTime<Utc>> {
        let ends =
            |backup: &&Backup| backup.timeline == position.timeline && backup.end == Some(position.offset);
        self.backups.iter().find(ends).and_then(|backup| backup.finished_at)
    }

    fn lines(&self, now: DateTime<Utc>) -> Vec<BackupLine> {
        let line = |backup: &Backup| BackupLine {
            id: backup.id.to_string(),
            store: backup.store.clone(),
            state: backup.state.word(),
            started: Moment::new(now, backup.started_at),
            #[allow(clippy::cast_precision_loss)] // shown in two units
            took: backup.finished_at.map(|end| words::seconds((end - backup.started_at).num_milliseconds().max(0) as f64 / 1000.0)),
            bytes: backup.bytes.map(words::bytes),
            stored: backup.stored_bytes.map(words::bytes),
            position: Position::new(backup.timeline, backup.end.unwrap_or(backup.start)).to_string(),
            label: backup.label.clone(),
            bad_pages: backup.bad_pages,
            checked: backup.checked,
        };
        self.backups.iter().rev().take(BACKUPS).map(line).collect()
    }
}

/// The address of a point.
fn link(name: &DatabaseName, zoom: Zoom, what: &str, value: &str) -> String {
    format!("/databases/{name}?zoom={}&{what}={}", zoom.word(), words::escaped(value))
}

async fn timeline(
    catalog: &Catalog,
    name: &DatabaseName,
    now: DateTime<Utc>,
    status: &DatabaseStatus,
    history: &History,
    asked: &Asked,
) -> Result<String, Problem> {
    let window = status.window.as_ref();
    let edges = window.map(|window| Edges {
        from: window.from_time.or_else(|| history.ended_at(window.from_position)),
        to: window.to_time.or_else(|| history.ended_at(window.to_position)),
    });
    let oldest = oldest(history, window, edges);
    let zoom = Zoom::of(&asked.zoom, now, oldest);
    let (found, refused) = found(catalog, name, window, asked).await?;
    let near = match (&found, status.incarnation) {
        (Some(found), Some(incarnation)) => {
            let position: Position =
                found.position.parse().map_err(|_| Problem::new(Kind::Unexpected, "no position"))?;
            let query = PointsQuery {
                incarnation,
                timeline: status
                    .timeline
                    .filter(|timeline| *timeline >= position.timeline)
                    .unwrap_or(position.timeline),
                around: Around::Position(position),
                span: None,
                limit: NEAR,
                cursor: None,
            };
            let page = catalog.points_around(&query).await?;
            Some((position, page.commits))
        }
        _ => None,
    };
    let time = found.as_ref().and_then(|found| found.commit.as_ref()).map(|commit| commit.time);
    let picked = found.map(|found| picked(now, asked, found, edges, history));
    let steps = match &near {
        Some((position, commits)) => steps(&To { name, zoom }, *position, commits, history, window, time),
        None => Vec::new(),
    };
    let axis = Axis::new(zoom, now, oldest, time);
    let place = match (&asked.pos, &asked.at, &asked.point) {
        (Some(pos), ..) => format!("&pos={}", words::escaped(pos)),
        (_, Some(at), _) => format!("&at={}", words::escaped(at)),
        (.., Some(point)) => format!("&point={}", words::escaped(point)),
        _ => String::new(),
    };
    let zooms = Zoom::ALL
        .map(|one| (one.word(), one == zoom, format!("/databases/{name}?zoom={}{place}", one.word())));
    let moment = |time: Option<DateTime<Utc>>| Moment::maybe(now, time);
    let part = TimelinePart {
        again: format!("/databases/{name}?zoom={}{place}&part=timeline", zoom.word()),
        zooms: zooms.into(),
        zoom: zoom.word(),
        picture: picture(&axis, now, window, edges, history, time, name, zoom),
        refused,
        steps,
        near: near.map_or_else(Vec::new, |(position, commits)| {
            near_lines(now, name, zoom, position, &commits, &history.marks)
        }),
        gaps: window.map_or_else(Vec::new, |window| {
            let line = |gap: &farshore_catalog::status::WindowGap| GapLine {
                from: moment(gap.from_time),
                to: moment(gap.to_time),
                from_position: gap.from_position.to_string(),
                to_position: gap.to_position.map(|position| position.to_string()),
                reason: gap.reason.clone(),
            };
            window.gaps.iter().map(line).collect()
        }),
        window: window.zip(edges).map(|(window, edges)| WindowLine {
            from: moment(edges.from),
            to: moment(edges.to),
            from_position: window.from_position.to_string(),
            to_position: window.to_position.to_string(),
            store: window.store.clone(),
        }),
        timelines: timelines(status, history),
        picked,
        name: name.to_string(),
    };
    render(&part)
}

fn timelines(status: &DatabaseStatus, history: &History) -> String {
    let Some(timeline) = status.timeline.map(farshore_journal::Timeline::get) else { return String::new() };
    match history.forks.iter().find(|(child, ..)| *child == timeline) {
        Some((_, parent, seen)) => {
            format!("timeline {timeline}, branched from {parent}, first seen {}", words::full(*seen))
        }
        None => format!("timeline {timeline}"),
    }
}

/// When the window begins and ends.
#[derive(Debug, Clone, Copy)]
struct Edges {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

/// Where what was asked for leads to; the newest that can be restored when nothing was. Or why it leads nowhere.
async fn found(
    catalog: &Catalog,
    name: &DatabaseName,
    window: Option<&Window>,
    asked: &Asked,
) -> Result<(Option<Resolved>, Option<String>), Problem> {
    let mut question = resolve::Asked {
        at: asked.at.clone(),
        pos: asked.pos.clone(),
        point: asked.point.clone(),
        ..Default::default()
    };
    if asked.at.is_none() && asked.pos.is_none() && asked.point.is_none() {
        let Some(window) = window else { return Ok((None, None)) };
        question.pos = Some(window.to_position.to_string());
    }
    match resolve::lead(catalog, name, question).await {
        Ok(found) => Ok((Some(found), None)),
        Err(problem) if matches!(problem.kind, Kind::PointUnknown | Kind::PointAmbiguous | Kind::Invalid) => {
            let hint = problem.hint.map_or_else(String::new, |hint| format!(" ({hint})"));
            Ok((None, Some(format!("{}{hint}", problem.detail))))
        }
        Err(problem) => Err(problem),
    }
}

fn oldest(history: &History, window: Option<&Window>, edges: Option<Edges>) -> Option<DateTime<Utc>> {
    let gaps = window.map_or(&[][..], |window| window.gaps.as_slice());
    let older = gaps.iter().flat_map(|gap| [gap.older_from_time, gap.from_time]).flatten();
    let backups = history.backups.iter().map(|backup| backup.started_at);
    older.chain(backups).chain(edges.and_then(|edges| edges.from)).min()
}

fn picked(
    now: DateTime<Utc>,
    asked: &Asked,
    found: Resolved,
    edges: Option<Edges>,
    history: &History,
) -> Picked {
    let time = found.commit.as_ref().map(|commit| commit.time);
    let millis = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_millis());
    let value = millis(time).unwrap_or(0);
    let nearest = time.and_then(|time| history.marks.iter().min_by_key(|mark| (mark.time - time).abs()));
    let nearest = nearest.map_or_else(String::new, |mark| format!(", nearest named point {}", mark.name));
    let at = time.map_or_else(|| "no commit".to_owned(), words::full);
    Picked {
        asked: match (&asked.at, &asked.point, &asked.pos) {
            (Some(at), ..) => format!("at {at}"),
            (_, Some(point), _) => format!("named point {point}"),
            (.., Some(pos)) => format!("position {pos}"),
            _ => "the newest that can be restored".to_owned(),
        },
        text: format!("{at}, {}{nearest}", found.position),
        position: found.position,
        time: Moment::maybe(now, time),
        xid: found.commit.map(|commit| commit.xid),
        is_final: found.is_final,
        is_restorable: !found.restorable_in.is_empty(),
        restorable_in: found.restorable_in.join(", "),
        out_of_order: found.out_of_order.len(),
        min: millis(edges.and_then(|edges| edges.from)).unwrap_or(value).min(value),
        max: millis(edges.and_then(|edges| edges.to)).unwrap_or(value).max(value),
        value,
    }
}

/// Where links lead.
struct To<'a> {
    name: &'a DatabaseName,
    zoom: Zoom,
}

fn steps(
    to: &To<'_>,
    at: Position,
    commits: &[Commit],
    history: &History,
    window: Option<&Window>,
    time: Option<DateTime<Utc>>,
) -> Vec<Step> {
    let pos = |position: Position| link(to.name, to.zoom, "pos", &position.to_string());
    // Along one line offsets only rise.
    let back = commits.iter().rev().map(Commit::position).find(|one| one.offset < at.offset);
    let on = commits.iter().map(Commit::position).find(|one| one.offset > at.offset);
    let mark_back = history
        .marks
        .iter()
        .filter(|mark| mark.position.offset < at.offset)
        .max_by_key(|mark| mark.position.offset);
    let mark_on = history
        .marks
        .iter()
        .filter(|mark| mark.position.offset > at.offset)
        .min_by_key(|mark| mark.position.offset);
    let ten = TimeDelta::minutes(10);
    let by_time = |time: Option<DateTime<Utc>>| {
        let (from, until) = (window?.from_time?, window?.to_time?);
        time.map(|time| link(to.name, to.zoom, "at", &words::exact(time.clamp(from, until.max(from)))))
    };
    let step = |key, label, title: &str, to| Step { key, label, title: title.to_owned(), to };
    let named = |mark: Option<&Mark>, none: &str| {
        mark.map_or_else(|| none.to_owned(), |mark| format!("To the named point {}", mark.name))
    };
    vec![
        step(
            "home",
            "⇤",
            "To the oldest that can be restored (Home)",
            window.map(|window| pos(window.from_position)),
        ),
        step(
            "event-back",
            "◀ event",
            &named(mark_back, "No named point before"),
            mark_back.map(|mark| pos(mark.position)),
        ),
        step("ten-back", "◀ 10 min", "Ten minutes earlier (Page down)", by_time(time.map(|time| time - ten))),
        step("commit-back", "◀ commit", "To the commit before (Left)", back.map(pos)),
        step("commit-on", "commit ▶", "To the next commit (Right)", on.map(pos)),
        step("ten-on", "10 min ▶", "Ten minutes later (Page up)", by_time(time.map(|time| time + ten))),
        step(
            "event-on",
            "event ▶",
            &named(mark_on, "No named point after"),
            mark_on.map(|mark| pos(mark.position)),
        ),
        step(
            "end",
            "⇥",
            "To the newest that can be restored (End)",
            window.map(|window| pos(window.to_position)),
        ),
    ]
}

fn near_lines(
    now: DateTime<Utc>,
    name: &DatabaseName,
    zoom: Zoom,
    at: Position,
    commits: &[Commit],
    marks: &[Mark],
) -> Vec<Near> {
    let line = |time, position: Position, kind, what| Near {
        time: Moment::new(now, time),
        position: position.to_string(),
        kind,
        what,
        picked: position == at,
        to: link(name, zoom, "pos", &position.to_string()),
    };
    let mut all: Vec<(Position, Near)> = commits
        .iter()
        .map(|commit| {
            (
                commit.position(),
                line(commit.time, commit.position(), "commit", format!("transaction {}", commit.xid)),
            )
        })
        .collect();
    let bounds = commits.first().zip(commits.last());
    if let Some((first, last)) = bounds {
        let within = |mark: &&Mark| first.end <= mark.position.offset && mark.position.offset <= last.end;
        all.extend(marks.iter().filter(within).take(NEAR).map(|mark| {
            let kind = match mark.kind.word() {
                "restore_point" => "restore point",
                word => word,
            };
            (mark.position, line(mark.time, mark.position, kind, mark.name.clone()))
        }));
    }
    all.sort_by_key(|(position, _)| (position.timeline, position.offset));
    all.into_iter().map(|(_, near)| near).rev().collect()
}

#[allow(clippy::too_many_arguments)] // what the picture shows, each once
fn picture(
    axis: &Axis,
    now: DateTime<Utc>,
    window: Option<&Window>,
    edges: Option<Edges>,
    history: &History,
    picked: Option<DateTime<Utc>>,
    name: &DatabaseName,
    zoom: Zoom,
) -> Picture {
    let mut runs = Vec::new();
    let mut gaps = Vec::new();
    if let Some((from, to)) = edges.and_then(|edges| edges.from.zip(edges.to)) {
        runs.extend(axis.bar(from, to));
    }
    for gap in window.map_or(&[][..], |window| window.gaps.as_slice()) {
        if let Some((from, to)) = gap.older_from_time.zip(gap.from_time) {
            runs.extend(axis.bar(from, to));
        }
        let from = gap.from_time.or_else(|| history.ended_at(gap.from_position));
        let to = match gap.to_position {
            Some(position) => gap.to_time.or_else(|| history.ended_at(position)),
            // Nothing behind it can be restored yet.
            None => Some(now),
        };
        if let Some((from, to)) = from.zip(to) {
            gaps.extend(axis.bar(from, to).map(|bar| (bar, gap.reason.clone())));
        }
    }
    let complete = history.backups.iter().filter(|backup| backup.state == BackupState::Complete);
    let backups = complete.filter_map(|backup| {
        let at = backup.finished_at?;
        Some((axis.x(at)?, format!("base backup in {}, ended {}", backup.store, words::full(at))))
    });
    let marks = history.marks.iter().filter_map(|mark| {
        let said = format!("{} {}", mark.name, words::full(mark.time));
        Some((axis.x(mark.time)?, (said, link(name, zoom, "pos", &mark.position.to_string()))))
    });
    let forks = history.forks.iter().filter_map(|(child, parent, seen)| {
        Some((axis.x(*seen)?, format!("timeline {child} from {parent}, first seen {}", words::full(*seen))))
    });
    Picture {
        ticks: axis.ticks(),
        runs,
        gaps,
        backups: apart(backups.collect()),
        marks: apart(marks.collect()),
        forks: apart(forks.collect()),
        now: axis.x(now),
        thumb: picked.and_then(|picked| axis.x(picked)),
        from: axis.from.timestamp_millis(),
        to: axis.to.timestamp_millis(),
    }
}
