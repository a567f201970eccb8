//! The recovery timeline as a picture, from what the catalog knows: pure functions.
//!
//! What always holds: only what can be restored is drawn as a run, and what has no time is not drawn.

use chrono::{DateTime, Utc};
use farshore_catalog::backup::BackupState;
use farshore_catalog::drill::Drill;
use farshore_catalog::status::Window;
use farshore_journal::format::certificate::DrillVerdict;
use farshore_journal::{DatabaseName, IncarnationId};

use super::history::History;
use super::points::link;
use crate::pages::drills::one::Said;
use crate::pages::timeline::{Axis, Bar, Tick, X, Zoom, apart};
use crate::pages::words;

/// What is drawn.
pub(super) struct Picture {
    pub(super) ticks: Vec<Tick>,
    pub(super) runs: Vec<Bar>,
    pub(super) gaps: Vec<(Bar, String)>,
    pub(super) backups: Vec<(X, String)>,
    pub(super) marks: Vec<(X, (String, String))>,
    pub(super) forks: Vec<(X, String)>,
    pub(super) drills: Vec<(X, Drilled)>,
    pub(super) now: Option<X>,
    pub(super) thumb: Option<X>,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// A point that was restored to by a drill.
pub(super) struct Drilled {
    /// Where it says more.
    pub(super) to: String,
    /// In words.
    pub(super) said: String,
    /// Whether what was restored there was as it should be.
    pub(super) proved: bool,
}

/// The time of the point that a drill restored, where it came so far; and what it came to.
fn drilled(axis: &Axis, drill: &Drill) -> Option<(X, Drilled)> {
    let target = Said::read(drill).statement?.target?;
    let at: DateTime<Utc> = target.time?.parse().ok()?;
    let verdict = drill.verdict.word();
    let said = format!("drill {verdict} at {}, ended {}", words::full(at), words::full(drill.ended));
    let proved = drill.verdict != DrillVerdict::Failed;
    Some((axis.x(at)?, Drilled { to: format!("/drills/{}", drill.id), said, proved }))
}

/// When the window begins and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edges {
    pub(super) from: Option<DateTime<Utc>>,
    pub(super) to: Option<DateTime<Utc>>,
}

/// When all that can be drawn begins.
pub(super) fn oldest(
    history: &History,
    window: Option<&Window>,
    edges: Option<Edges>,
) -> Option<DateTime<Utc>> {
    let gaps = window.map_or(&[][..], |window| window.gaps.as_slice());
    let older = gaps.iter().flat_map(|gap| [gap.older_from_time, gap.from_time]).flatten();
    let backups = history.backups.iter().map(|backup| backup.started_at);
    older.chain(backups).chain(edges.and_then(|edges| edges.from)).min()
}

#[allow(clippy::too_many_arguments)] // what the picture shows, each once
pub(super) fn picture(
    axis: &Axis,
    now: DateTime<Utc>,
    window: Option<&Window>,
    edges: Option<Edges>,
    history: &History,
    picked: Option<DateTime<Utc>>,
    name: &DatabaseName,
    zoom: Zoom,
    incarnation: Option<IncarnationId>,
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
    // Of several in one place the one that did not hold is drawn.
    let (failed, held): (Vec<_>, Vec<_>) = history
        .drills
        .iter()
        .filter(|drill| Some(drill.incarnation) == incarnation)
        .filter_map(|drill| drilled(axis, drill))
        .partition(|(_, one)| !one.proved);
    Picture {
        drills: apart(failed.into_iter().chain(held).collect()),
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
