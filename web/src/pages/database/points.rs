//! The point that is picked on a database's timeline, where one can go from it, and what lies near it.
//!
//! What always holds: a point is picked in log order, by the rules that a restore follows ([`resolve::lead`]).

use askama::Template;
use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::commit::Commit;
use farshore_catalog::mark::Mark;
use farshore_catalog::points::{Around, PointsQuery};
use farshore_catalog::status::{DatabaseStatus, Window};
use farshore_journal::{DatabaseName, Position};

use super::Asked;
use super::history::History;
use super::picture::{Edges, Picture, oldest, picture};
use crate::api::resolve::{self, Resolved};
use crate::pages::render;
use crate::pages::timeline::{Axis, Zoom};
use crate::pages::words::{self, Moment};
use crate::problem::{Kind, Problem};

/// Commits in the table around the picked point.
const NEAR: usize = 12;

/// A place that one can go to from the picked one.
struct Step {
    key: &'static str,
    label: &'static str,
    title: String,
    to: Option<String>,
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

/// The address of a point.
pub(super) fn link(name: &DatabaseName, zoom: Zoom, what: &str, value: &str) -> String {
    format!("/databases/{name}?zoom={}&{what}={}", zoom.word(), words::escaped(value))
}

/// The timeline, as a part of the page.
pub(super) async fn timeline(
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
        picture: picture(&axis, now, window, edges, history, time, name, zoom, status.incarnation),
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
