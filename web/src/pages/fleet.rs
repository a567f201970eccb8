//! All databases, the worst first: where to look now.

use std::cmp::Ordering;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::glance::{Member, Reach};
use farshore_catalog::guard::Guard;
use farshore_catalog::lag::ShownState;
use farshore_catalog::shipping::ShippingState;
use serde::Deserialize;

use crate::page::Query;
use crate::pages::exposure::Spark;
use crate::pages::frame::{self, Page, Part};
use crate::pages::look::Look;
use crate::pages::proof::{self, Proved};
use crate::pages::standing::{Known, Level, Standing, standing};
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::Problem;
use crate::state::{Objectives, Shared};

/// Which databases.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Whose name, engine or store holds this.
    #[serde(default)]
    q: String,
    /// That stand so.
    #[serde(default)]
    level: String,
}

/// A database's line.
struct Row<'a> {
    name: String,
    engine: String,
    level: Level,
    because: String,
    why: Option<String>,
    /// The shipper's own word.
    state: &'static str,
    exposure: Exposure,
    /// How it went lately; `None` when nothing was kept.
    spark: Option<&'a Spark>,
    window: Option<Window>,
    backup: Option<Moment>,
    backups: u64,
    damaged: u64,
    unopened: u64,
    bad: u64,
    seen: Option<Moment>,
    /// What drills say of it.
    proved: Proved,
}

/// What would be lost now, beside what may be.
pub struct Exposure {
    /// In words.
    pub now: String,
    /// Whether that is known.
    pub known: bool,
    /// What may be lost, in words.
    pub objective: Option<String>,
    /// What would be lost as thousandths of what may be, at most 1000.
    pub part: Option<u32>,
}

struct Window {
    span: Option<String>,
    from: Option<Moment>,
    to: Option<Moment>,
    gaps: usize,
    store: String,
}

/// How many stand so.
struct Count {
    level: Level,
    count: usize,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "fleet.html")]
struct FleetPage<'a> {
    q: &'a str,
    level: &'a str,
    live: String,
}

#[derive(Template)]
#[template(path = "fleet_live.html")]
struct FleetLive<'a> {
    again: String,
    at: i64,
    now: String,
    total: usize,
    counts: Vec<Count>,
    unproved: usize,
    /// Which of them are not known to be kept, in words.
    alarm: Option<String>,
    rows: Vec<Row<'a>>,
    q: &'a str,
    level: &'a str,
}

impl Exposure {
    /// Of what is known.
    pub fn new(lag_seconds: Option<f64>, state: ShownState, promised: Objectives) -> Self {
        let silent = state == ShownState::Unknown;
        // Nobody ships: that nothing was unstored at the last word says nothing of now.
        let lag_seconds = lag_seconds.filter(|lag| *lag > 0.0 || ships(state));
        let rpo = promised.rpo.map(|rpo| rpo.as_secs_f64());
        let now = match lag_seconds {
            // It has grown since as if nothing had been stored: what is known is only that it is no more than that.
            Some(lag) if silent => format!("up to {}", words::seconds(lag)),
            Some(lag) => words::seconds(lag),
            None => "not known".to_owned(),
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 1000
        let part = lag_seconds
            .zip(rpo.filter(|rpo| *rpo > 0.0))
            .map(|(lag, rpo)| (lag / rpo * 1000.0).clamp(0.0, 1000.0).round() as u32);
        Self { now, known: lag_seconds.is_some(), objective: rpo.map(words::seconds), part }
    }
}

/// Whether somebody stores what is committed now, or says that he cannot.
fn ships(state: ShownState) -> bool {
    match state {
        ShownState::Unknown => false,
        ShownState::Known(state) => match state {
            ShippingState::Setup
            | ShippingState::Accumulating
            | ShippingState::Connected
            | ShippingState::Degraded
            | ShippingState::Refreshing
            | ShippingState::Backfreshing => true,
            ShippingState::Bypass | ShippingState::Paused | ShippingState::Fenced | ShippingState::Failed => {
                false
            }
        },
    }
}

fn row<'a>(
    now: DateTime<Utc>,
    member: Member,
    promised: Objectives,
    (guard, spark): (Option<&Guard>, Option<&'a Spark>),
) -> Row<'a> {
    let known = Known {
        state: member.state,
        lag_seconds: member.ship_lag_seconds,
        unseen: member.unseen,
        measured_at: member.measured_at,
        restorable: member.window.is_some(),
        promised,
        guard: guard.map(|guard| guard.shown(now)),
    };
    let Standing { level, because } = standing(now, &known);
    Row {
        name: member.database.to_string(),
        engine: member.engine,
        exposure: Exposure::new(member.ship_lag_seconds, member.state, promised),
        spark,
        level,
        because,
        why: member.why,
        state: member.state.word(),
        window: member.window.map(|reach| window(now, reach)),
        backup: Moment::maybe(now, member.backups.last_at),
        backups: member.backups.count,
        damaged: member.backups.damaged,
        unopened: member.backups.unopened,
        bad: member.backups.bad,
        seen: Moment::maybe(now, member.seen_at),
        proved: proof::proved(now, &member.proof, promised.rto),
    }
}

fn window(now: DateTime<Utc>, reach: Reach) -> Window {
    #[allow(clippy::cast_precision_loss)] // shown in two units
    let span =
        reach.from.zip(reach.to).map(|(from, to)| words::seconds((to - from).num_seconds().max(0) as f64));
    Window {
        span,
        from: Moment::maybe(now, reach.from),
        to: Moment::maybe(now, reach.to),
        gaps: reach.gaps,
        store: reach.store,
    }
}

/// The worst first; among equals what would lose most of its objective, then by name.
fn worst_first(a: &Row<'_>, b: &Row<'_>) -> Ordering {
    a.level
        .cmp(&b.level)
        .then(b.exposure.part.unwrap_or(0).cmp(&a.exposure.part.unwrap_or(0)))
        .then_with(|| a.name.cmp(&b.name))
}

/// Which are not known to be kept, in words; `None` where none is.
fn alarm<'a>(all: impl Iterator<Item = (&'a str, Level)>) -> Option<String> {
    let mut names: Vec<&str> = all
        .filter(|(_, level)| matches!(level, Level::Unprotected | Level::Unknown))
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    let what = "what is committed now is not known to be kept";
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("Of {one} {what}.")),
        [one, two] => Some(format!("Of {one} and {two} {what}.")),
        [one, two, more @ ..] => Some(format!("Of {one}, {two} and {} more {what}.", more.len())),
    }
}

/// All databases.
///
/// # Errors
/// When the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let now = Utc::now();
    let look = Look::at(&web, now).await?;
    let sparks = look.sparks(&web, now).await?;
    let read_at = look.fleet.read_at;
    let members = look.fleet.members.iter();
    let seen = members.filter(|member| visitor.who.sees(&member.database)).map(|member| member.glance(now));
    let q = asked.q.trim().to_lowercase();
    let holds = |member: &Member| {
        let mut all = [member.database.as_str(), member.engine.as_str()]
            .into_iter()
            .chain(member.stores.iter().map(String::as_str));
        q.is_empty() || all.any(|text| text.contains(&q))
    };
    let all: Vec<Row<'_>> = seen
        .filter(holds)
        .map(|member| {
            let promised = web.objectives.get(&member.database).copied().unwrap_or_default();
            let spark = sparks.get(&member.database);
            let guard = look.fleet.guards.iter().find(|guard| guard.database == member.database);
            row(now, member, promised, (guard, spark))
        })
        .collect();
    let total = all.len();
    let unproved = all.iter().filter(|row| row.proved.at.is_none()).count();
    let alarm = alarm(all.iter().map(|row| (row.name.as_str(), row.level)));
    let counts = Level::ALL.into_iter().map(|level| Count {
        level,
        count: all.iter().filter(|row| row.level == level).count(),
        chosen: asked.level == level.word(),
    });
    let counts = counts.collect();
    let chosen = Level::ALL.into_iter().find(|level| asked.level == level.word());
    let mut rows: Vec<Row<'_>> =
        all.into_iter().filter(|row| chosen.is_none_or(|level| row.level == level)).collect();
    rows.sort_by(worst_first);
    let level = chosen.map_or("", Level::word);
    let again = format!("/?q={}&level={level}", words::escaped(asked.q.trim()));
    let live = FleetLive {
        again,
        at: read_at.timestamp_millis(),
        now: words::full(read_at),
        total,
        counts,
        unproved,
        alarm,
        rows,
        q: asked.q.trim(),
        level,
    };
    let live = render(&live)?;
    if is_part(&headers) {
        return Ok(html(live));
    }
    let body = render(&FleetPage { q: asked.q.trim(), level, live })?;
    frame::show(
        &Page { title: "Fleet".to_owned(), part: Part::Fleet, trail: Vec::new(), said: None, body },
        &visitor,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_page_turns_red_for_each_that_is_not_known_to_be_kept_and_for_no_other() {
        let of = |levels: &[(&'static str, Level)]| alarm(levels.iter().copied());
        let fine = ("fine", Level::Protected);
        assert_eq!(of(&[fine, ("late", Level::Degraded), ("off", Level::Paused)]), None);
        let said = of(&[("b", Level::Unknown), fine, ("a", Level::Unprotected)]).unwrap();
        assert!(said.starts_with("Of a and b "), "{said}");
        let many =
            of(&[("a", Level::Unknown), ("b", Level::Unknown), ("c", Level::Unknown), ("d", Level::Unknown)]);
        assert!(many.unwrap().starts_with("Of a, b and 2 more "));
    }

    #[test]
    fn where_nobody_ships_it_is_never_said_that_nothing_would_be_lost() {
        let promised = Objectives { rpo: Some(Duration::from_secs(10)), ..Objectives::default() };
        let states = ShippingState::ALL.into_iter().map(ShownState::Known).chain([ShownState::Unknown]);
        for state in states {
            let none = Exposure::new(Some(0.0), state, promised);
            assert_eq!(none.known, ships(state), "{state:?}");
            assert_eq!(none.now == "0 s", ships(state), "{state:?}: {}", none.now);
            let some = Exposure::new(Some(5.0), state, promised);
            assert_eq!((some.known, some.part), (true, Some(500)), "{state:?}");
            assert!(!Exposure::new(None, state, promised).known);
        }
        let silent = Exposure::new(Some(5.0), ShownState::Unknown, promised);
        assert_eq!(silent.now, "up to 5.0 s");
    }
}
