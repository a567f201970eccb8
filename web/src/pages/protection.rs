//! What commits of each database wait for, the worst first: what is asked for, whether it holds, since when not, and what limits what goes to its stores.
//!
//! What always holds: a mode that the configuration asks for is no evidence that it holds: nothing is drawn as good that nobody saw a moment ago.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::fleet::Member;
use farshore_catalog::guard::{Guard, GuardPhase};
use farshore_catalog::spool::{Spool, SpoolState};
use farshore_catalog::throttle::{RuleState, Throttles};

use crate::page::Query;
use crate::pages::fleet::Exposure;
use crate::pages::frame::{self, Page, Part};
use crate::pages::look::Look;
use crate::pages::standing::Level;
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::pages::{html, is_part, render};
use crate::problem::Problem;
use crate::state::{Objectives, Shared, Waits};

/// Nothing is asked.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {}

struct Line {
    database: String,
    /// `None`: nothing is promised that could be broken.
    level: Option<Level>,
    mode: String,
    commits: &'static str,
    /// Up to when they are known to have waited, while they do not.
    since: Option<Moment>,
    lost: Exposure,
    limit: String,
    /// How its spool stands, and whether something is the matter with it.
    spool: String,
    spool_trouble: Option<String>,
    trouble: Option<String>,
    next: Option<&'static str>,
    node: Option<String>,
}

#[derive(Template)]
#[template(path = "protection.html")]
struct ProtectionPage {
    live: String,
}

#[derive(Template)]
#[template(path = "protection_live.html")]
struct ProtectionLive {
    at: i64,
    now: String,
    lines: Vec<Line>,
}

/// The mode that is asked for, in words.
pub(crate) fn mode(waits: Waits) -> String {
    match waits {
        Waits::Nothing => "async".to_owned(),
        Waits::Within { bound_bytes } => {
            format!("near-sync, at most {} not stored", words::bytes(bound_bytes))
        }
        Waits::Stored { timeout: None } => "strict".to_owned(),
        Waits::Stored { timeout: Some(timeout) } => {
            format!("sync, for {} at most", words::seconds(timeout.as_secs_f64()))
        }
    }
}

/// How it stands, in words, and what to do; `waits` is `None` where another service has the configuration.
fn stands(
    waits: Option<Waits>,
    phase: Option<GuardPhase>,
) -> (Option<Level>, &'static str, Option<&'static str>) {
    let guarded = matches!(waits, Some(Waits::Stored { timeout: Some(_) }));
    match (phase, waits) {
        (None, Some(Waits::Nothing)) => (None, "wait for nothing", None),
        (None, None) => (None, "not said to wait", None),
        (None, Some(_)) | (Some(GuardPhase::Unknown), _) => (
            Some(Level::Unknown),
            "not known to wait",
            Some(match guarded {
                true => "nobody guards it, or its guard does not reach the primary: farshore guard",
                false => "its shipper does not see how the primary is set",
            }),
        ),
        (Some(GuardPhase::Armed), Some(Waits::Within { .. })) => {
            (Some(Level::Protected), "wait beyond the bound", None)
        }
        (Some(GuardPhase::Armed), _) => (Some(Level::Protected), "wait until they are stored", None),
        (Some(GuardPhase::Arming), _) => {
            (Some(Level::Degraded), "are made to wait; some may not be stored yet", None)
        }
        (Some(GuardPhase::Disarmed), _) => (
            Some(Level::Unprotected),
            "do not wait",
            Some(match guarded {
                true => "they wait again by themselves once its stores keep up",
                false => {
                    "farshore check has the statement that makes them wait, and says when it is time for it"
                }
            }),
        ),
        (Some(GuardPhase::HandsOff), _) => (
            Some(Level::Unprotected),
            "not known to wait: the setting is somebody's own",
            Some("farshore check says what it is to be"),
        ),
    }
}

fn line(
    now: DateTime<Utc>,
    member: &Member,
    promised: Option<Objectives>,
    (guard, throttles): (Option<&Guard>, Option<&Throttles>),
    spool: Option<&Spool>,
) -> Line {
    let phase = guard.map(|guard| guard.shown(now));
    let waits = promised.map(|promised| promised.waits);
    let (level, commits, next) = stands(waits, phase);
    let broken = phase.is_some_and(|phase| phase != GuardPhase::Armed);
    let since = guard.filter(|_| broken).and_then(Guard::waited_until);
    let member = member.glance(now);
    Line {
        database: member.database.to_string(),
        level,
        mode: waits.map_or_else(|| "not known here".to_owned(), mode),
        commits,
        since: Moment::maybe(now, since),
        lost: Exposure::new(member.ship_lag_seconds, member.state, promised.unwrap_or_default()),
        limit: throttles.map_or_else(|| "none".to_owned(), |throttles| limit(throttles, now)),
        spool: spool.map_or_else(|| "none".to_owned(), |spool| spooled(spool, now)),
        spool_trouble: spool
            .filter(|spool| spool.shown(now) != SpoolState::Unknown)
            .and_then(|spool| spool.trouble.clone()),
        trouble: guard.and_then(|guard| guard.trouble.clone()),
        next,
        node: guard.and_then(|guard| guard.node.clone()),
    }
}

/// How a spool stands, in words.
fn spooled(spool: &Spool, now: DateTime<Utc>) -> String {
    let held = spool.bytes.map_or_else(|| "?".to_owned(), words::bytes);
    match spool.shown(now) {
        SpoolState::Unknown => "not known".to_owned(),
        SpoolState::Idle if spool.run.is_none() => "empty".to_owned(),
        SpoolState::Idle => format!("{held}, draining"),
        state => format!("{}, {held} of {}", state.word(), words::bytes(spool.limit)),
    }
}

/// What limits what goes to its stores.
fn limit(throttles: &Throttles, now: DateTime<Utc>) -> String {
    if throttles.is_silent(now) {
        return "not known".to_owned();
    }
    let Some(bandwidth) = throttles.bandwidth else { return "none".to_owned() };
    let active: Vec<&str> = throttles
        .rules
        .iter()
        .filter(|rule| throttles.shown(rule, now) == RuleState::Active && rule.bandwidth.is_some())
        .map(|rule| rule.name.as_str())
        .collect();
    match active.as_slice() {
        [] => words::rate(bandwidth),
        active => format!("{} by {}", words::rate(bandwidth), active.join(", ")),
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
    Query(Asked {}): Query<Asked>,
) -> Result<Response, Problem> {
    let throttles = web.catalog()?.throttle_list().await?;
    let now = Utc::now();
    let look = Look::at(&web, now).await?;
    let seen = look.fleet.members.iter().filter(|member| visitor.who.sees(&member.database));
    let mut lines: Vec<Line> = seen
        .map(|member| {
            let guard = look.fleet.guards.iter().find(|guard| guard.database == member.database);
            let throttles = throttles.iter().find(|one| one.database == member.database);
            let spool = look.fleet.spools.iter().find(|spool| spool.database == member.database);
            line(now, member, web.objectives.get(&member.database).copied(), (guard, throttles), spool)
        })
        .collect();
    lines.sort_by(|a, b| {
        let rank = |line: &Line| (line.level.is_none(), line.level);
        (rank(a), &a.database).cmp(&(rank(b), &b.database))
    });
    let live = render(&ProtectionLive { at: now.timestamp_millis(), now: words::full(now), lines })?;
    if is_part(&headers) {
        return Ok(html(live));
    }
    let body = render(&ProtectionPage { live })?;
    let page =
        Page { title: "Protection".to_owned(), part: Part::Protection, trail: Vec::new(), said: None, body };
    frame::show(&page, &visitor)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_is_drawn_as_good_but_commits_that_were_seen_to_wait() {
        let modes = [
            None,
            Some(Waits::Nothing),
            Some(Waits::Within { bound_bytes: 1 << 20 }),
            Some(Waits::Stored { timeout: None }),
            Some(Waits::Stored { timeout: Some(Duration::from_secs(10)) }),
        ];
        for waits in modes {
            for phase in GuardPhase::ALL.iter().copied().map(Some).chain([None]) {
                let (level, ..) = stands(waits, phase);
                assert_eq!(
                    level == Some(Level::Protected),
                    phase == Some(GuardPhase::Armed),
                    "{waits:?} {phase:?}"
                );
            }
        }
        // What is promised and not seen is not passed over.
        assert_eq!(stands(modes[3], None).0, Some(Level::Unknown));
    }
}
