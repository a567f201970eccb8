//! The PostgreSQL standbys that follow a journal, the worst first: how far each is, why one does not follow, and what to do.
//!
//! What always holds: one that nobody hears of is not shown as following, and a lag that is not known is not shown as none.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::standby::{Standby, StandbyState};
use farshore_journal::Position;
use serde::Deserialize;

use crate::page::Query;
use crate::pages::fleet::Exposure;
use crate::pages::frame::{self, Page, Part};
use crate::pages::look::Look;
use crate::pages::standing::Level;
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::Problem;
use crate::state::Shared;

/// Of which database.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    database: String,
}

struct Line {
    database: String,
    name: String,
    address: String,
    level: Level,
    state: String,
    /// How late it is on purpose.
    delay: Option<String>,
    since: Moment,
    /// How far the journal is behind the primary, in words; `None` where the catalog does not know the database.
    ship: Option<Exposure>,
    /// How far it is behind the journal: for how long, and how much.
    lag: Option<String>,
    behind: Option<String>,
    applied: String,
    sent: String,
    store: String,
    node: String,
    problem: Option<String>,
    next: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "standbys.html")]
struct StandbysPage<'a> {
    database: &'a str,
    live: String,
}

#[derive(Template)]
#[template(path = "standbys_live.html")]
struct StandbysLive {
    again: String,
    at: i64,
    now: String,
    lines: Vec<Line>,
}

/// How one stands: what follows and lacks nothing but what a comparison holds from it for a while is good, what goes on by itself is a warning, and what does not go on is bad.
const fn level(state: StandbyState) -> Level {
    match state {
        StandbyState::Streaming | StandbyState::Held => Level::Protected,
        StandbyState::CatchingUp | StandbyState::WaitsForStore => Level::Degraded,
        StandbyState::LogMissing | StandbyState::Diverged | StandbyState::Ahead | StandbyState::Damaged => {
            Level::Unprotected
        }
        StandbyState::Away => Level::Unknown,
    }
}

/// What to do about one, as `docs/standbys.md` says; `None` where it goes on by itself.
const fn next(state: StandbyState) -> Option<&'static str> {
    Some(match state {
        StandbyState::Streaming | StandbyState::CatchingUp => return None,
        StandbyState::Held => "a comparison holds it and lets it go by itself",
        StandbyState::WaitsForStore => {
            "the store does not answer whoever serves it; it goes on by itself once it does"
        }
        StandbyState::LogMissing => {
            "make it anew with farshore standby create: the log that it needs is gone"
        }
        StandbyState::Diverged => "make it anew with farshore standby create, or rewind it with pg_rewind",
        StandbyState::Ahead => {
            "wait until its store has as much log as it has, or make it anew from that store"
        }
        StandbyState::Damaged => "farshore verify says what of the journal does not read",
        StandbyState::Away => "look at its own log, and whether its machine reaches whoever serves it",
    })
}

fn line(now: DateTime<Utc>, standby: Standby, ship: Option<Exposure>) -> Line {
    let state = standby.shown(now);
    let at = |offset| Position::new(standby.timeline, offset).to_string();
    Line {
        level: level(state),
        state: state.word().replace('_', " "),
        delay: standby.delay.map(|delay| words::seconds(delay.as_secs_f64())),
        since: Moment::new(now, standby.shown_since(now)),
        ship,
        lag: standby.lag(now).map(|lag| words::seconds(lag.as_secs_f64())),
        behind: standby.lag_bytes(now).map(words::bytes),
        applied: at(standby.applied),
        sent: at(standby.sent),
        next: next(state),
        database: standby.database.to_string(),
        name: standby.name,
        address: standby.address,
        store: standby.store,
        node: standby.node,
        problem: standby.problem,
    }
}

/// All of them, the worst first.
///
/// # Errors
/// When the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let database = asked.database.trim();
    let known = web.catalog()?.standby_list(None).await?;
    let now = Utc::now();
    let look = Look::at(&web, now).await?;
    let ship = |standby: &Standby| {
        let member =
            look.fleet.members.iter().find(|member| member.database == standby.database)?.glance(now);
        let promised = web.objectives.get(&standby.database).copied().unwrap_or_default();
        Some(Exposure::new(member.ship_lag_seconds, member.state, promised))
    };
    let mut lines: Vec<Line> = known
        .into_iter()
        .filter(|standby| visitor.who.sees(&standby.database))
        .filter(|standby| database.is_empty() || standby.database.as_str() == database)
        .map(|standby| {
            let ship = ship(&standby);
            line(now, standby, ship)
        })
        .collect();
    lines.sort_by(|a, b| (a.level, &a.database, &a.name).cmp(&(b.level, &b.database, &b.name)));
    let live = StandbysLive {
        again: format!("/standbys?database={}", words::escaped(database)),
        at: now.timestamp_millis(),
        now: words::full(now),
        lines,
    };
    let live = render(&live)?;
    if is_part(&headers) {
        return Ok(html(live));
    }
    let body = render(&StandbysPage { database, live })?;
    let page =
        Page { title: "Standbys".to_owned(), part: Part::Standbys, trail: Vec::new(), said: None, body };
    frame::show(&page, &visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_follow_is_never_drawn_as_good_and_says_what_to_do() {
        for state in StandbyState::ALL {
            let good = level(state) == Level::Protected;
            assert_eq!(good, matches!(state, StandbyState::Streaming | StandbyState::Held), "{state:?}");
            assert_eq!(next(state).is_none(), state.is_sure() && state != StandbyState::Held, "{state:?}");
        }
    }
}
