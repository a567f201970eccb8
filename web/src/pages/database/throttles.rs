//! What limits a database now, as a part of its page: pure over what its service last said.
//!
//! What always holds: a rule that nobody spoke of lately is unknown, and its limit is not called none.

use askama::Template;
use chrono::{DateTime, Utc};
use farshore_catalog::throttle::{RuleState, Throttles};
use farshore_journal::DatabaseName;

use crate::pages::standing::Level;
use crate::pages::words::{self, Moment};

struct Line {
    name: String,
    state: &'static str,
    level: Level,
    since: Option<Moment>,
    limit: Option<String>,
    why: String,
    fired: Option<Moment>,
}

#[derive(Template)]
#[template(path = "database_throttles.html")]
pub(super) struct Shown {
    name: String,
    at: i64,
    /// The limit that holds, in words.
    limit: String,
    is_known: bool,
    waited: Option<String>,
    lines: Vec<Line>,
}

/// How a rule looks: one that acts is worth a look, one that is quiet is well.
const fn level(state: RuleState) -> Level {
    match state {
        RuleState::Quiet | RuleState::Off => Level::Protected,
        RuleState::Active => Level::Degraded,
        RuleState::Unknown => Level::Unknown,
    }
}

/// The part.
pub(super) fn shown(name: &DatabaseName, now: DateTime<Utc>, said: Option<&Throttles>) -> Shown {
    let is_known = said.is_some_and(|said| !said.is_silent(now));
    let limit = said.filter(|_| is_known).map(|said| said.bandwidth);
    let lines = said.iter().flat_map(|said| {
        said.rules.iter().map(|rule| {
            let state = said.shown(rule, now);
            Line {
                name: rule.name.clone(),
                state: state.word(),
                level: level(state),
                since: Some(Moment::new(now, if is_known { rule.since } else { said.heard_at })),
                limit: rule.bandwidth.map(words::rate),
                why: rule.why.clone(),
                fired: Moment::maybe(now, rule.fired_at),
            }
        })
    });
    Shown {
        name: name.to_string(),
        at: now.timestamp_millis(),
        limit: match limit {
            None => "not known".to_owned(),
            Some(None) => "none".to_owned(),
            Some(Some(limit)) => words::rate(limit),
        },
        is_known,
        waited: said.filter(|said| !said.waited.is_zero()).map(|said| words::took(said.waited)),
        lines: lines.collect(),
    }
}
