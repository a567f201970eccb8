//! What is known of a database now, as tiles: pure over its status and its proof.
//!
//! What always holds: what is not known is said to be so; a state that nobody vouches for is unknown.

use askama::Template;
use chrono::{DateTime, Utc};
use farshore_catalog::guard::Guard;
use farshore_catalog::proof::Proof;
use farshore_catalog::recovery::Recovery;
use farshore_catalog::status::DatabaseStatus;
use farshore_journal::DatabaseName;

use crate::pages::fleet::Exposure;
use crate::pages::proof::{self, Proved};
use crate::pages::standing::{Known, Level, Standing, standing};
use crate::pages::words::{self, Moment};
use crate::state::Shared;

struct Target {
    store: String,
    stored: Option<String>,
    state: String,
    level: Level,
    why: Option<String>,
}

#[derive(Template)]
#[template(path = "database_facts.html")]
pub(super) struct Facts {
    name: String,
    at: i64,
    now: String,
    engine: String,
    level: Level,
    because: String,
    why: Option<String>,
    state: &'static str,
    exposure: Exposure,
    proved: Proved,
    seen: Option<Moment>,
    to: Option<Moment>,
    behind: Option<String>,
    backup: Option<Moment>,
    backups: u64,
    damaged: u64,
    unopened: u64,
    bad: u64,
    recovery: Option<String>,
    targets: Vec<Target>,
    retained: Option<String>,
    to_full: Option<String>,
    incarnation: Option<String>,
    timeline: Option<u32>,
}

/// The tiles.
pub(super) fn facts(
    web: &Shared,
    name: &DatabaseName,
    now: DateTime<Utc>,
    status: DatabaseStatus,
    (guard, proof, recoveries): (Option<&Guard>, &Proof, &[Recovery]),
) -> Facts {
    let promised = web.objectives.get(name).copied().unwrap_or_default();
    let known = Known {
        state: status.state,
        lag_seconds: status.ship_lag_seconds,
        unseen: status.unseen,
        measured_at: status.measured_at,
        restorable: status.window.is_some(),
        promised,
        guard: guard.map(|guard| guard.shown(now)),
    };
    let Standing { level, because } = standing(now, &known);
    let recovery = recovery(&status, recoveries);
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
        proved: proof::proved(now, proof, promised.rto),
        seen: Moment::maybe(now, status.seen_at),
        to: Moment::maybe(now, status.window.as_ref().and_then(|window| window.to_time)),
        behind: status.ship_lag_bytes.map(words::bytes),
        backup: Moment::maybe(now, status.backups.last_at),
        backups: status.backups.count,
        damaged: status.backups.damaged,
        unopened: status.backups.unopened,
        bad: status.backups.bad,
        recovery,
        targets: targets.collect(),
        retained: status.primary.retained_bytes.map(words::bytes),
        #[allow(clippy::cast_precision_loss)] // shown in two units
        to_full: status.primary.seconds_to_full.map(|seconds| words::seconds(seconds as f64)),
        incarnation: status.incarnation_number.map(|number| number.to_string()),
        timeline: status.timeline.map(farshore_journal::Timeline::get),
    }
}

/// How long a recovery from the store that is shown would take now; `None` when no drill measured it.
fn recovery(status: &DatabaseStatus, recoveries: &[Recovery]) -> Option<String> {
    let store = &status.window.as_ref()?.store;
    let one = recoveries.iter().find(|one| one.store == *store)?;
    one.whole().map(words::took)
}
