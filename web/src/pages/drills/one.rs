//! One drill: what was restored, how long each phase took, what each check found, and the certificate.
//!
//! What always holds: a phase that was not come to has no time, and never 0 s; a check that was not looked at says why and is never drawn as passed; what has no certificate says
//! why not. A statement that this version cannot read is said to be one.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use farshore_catalog::drill::Drill;
use farshore_journal::format::certificate::{CheckOutcome, DrillStatement, DrillVerdict, Measured};

use crate::api::drill;
use crate::pages::frame::{self, Page, Part};
use crate::pages::proof;
use crate::pages::render;
use crate::pages::standing::Level;
use crate::pages::visitor::Visitor;
use crate::pages::words::{self, Moment};
use crate::problem::Problem;
use crate::state::Shared;

/// A drill's statement, as far as it reads.
pub struct Said {
    /// The statement; `None` where this version cannot read it.
    pub statement: Option<DrillStatement>,
}

impl Said {
    /// What the catalog has of it.
    pub fn read(drill: &Drill) -> Self {
        Self { statement: serde_json::from_str(&drill.statement).ok() }
    }
}

/// A phase, as it is drawn and told.
#[derive(Debug, PartialEq, Eq)]
pub struct Phase {
    /// Its name, and its style's.
    pub name: &'static str,
    /// How long it took; `None` when it was not come to.
    pub took: Option<String>,
    /// Its left edge and width, in percent of all that was measured.
    pub bar: Option<(String, String)>,
    /// Whether what may be taken counts it.
    pub counts: bool,
}

/// The phases of a drill, in order.
pub fn phases(measured: &Measured) -> Vec<Phase> {
    let all = [
        ("plan", measured.plan_us, true),
        ("fetch", measured.fetch_us, true),
        ("replay", measured.replay_us, true),
        ("open", measured.open_us, true),
        ("check", measured.check_us, false),
        ("cleanup", measured.cleanup_us, false),
    ];
    #[allow(clippy::cast_precision_loss)] // drawn
    let us = |us: u64| us as f64;
    let whole: f64 = all.iter().filter_map(|(_, took, _)| *took).map(us).sum::<f64>().max(1.0);
    let mut at = 0.0;
    all.map(|(name, took, counts)| {
        let bar = took.map(|took| {
            let (x, width) = (at / whole * 100.0, us(took) / whole * 100.0);
            at += us(took);
            (format!("{x:.2}%"), format!("{width:.2}%"))
        });
        Phase { name, took: took.map(|took| words::took(Duration::from_micros(took))), bar, counts }
    })
    .into()
}

/// Why a drill did not pass as it should, in a line.
pub fn reason(drill: &Drill, said: Option<&DrillStatement>) -> Option<String> {
    let Some(said) = said else {
        return Some("what the catalog has of it does not read; its certificate in the store may".to_owned());
    };
    if let Some(failure) = &said.failure {
        return Some(format!("in {}: {} {}", failure.phase, failure.code, failure.happened));
    }
    let not_well = said.checks.iter().filter(|check| match check.outcome {
        CheckOutcome::Passed => false,
        CheckOutcome::Failed => true,
        CheckOutcome::NotLookedAt => check.required,
    });
    let not_well: Vec<String> = not_well.map(|check| format!("{}: {}", check.name, check.detail)).collect();
    if !not_well.is_empty() {
        return Some(not_well.join("; "));
    }
    if !said.removed {
        return Some("its copy could not be removed".to_owned());
    }
    (drill.verdict == DrillVerdict::Breached).then(|| "it took longer than its objective".to_owned())
}

struct Check {
    level: Level,
    word: &'static str,
    name: String,
    detail: String,
    required: bool,
}

#[derive(Template)]
#[template(path = "drill.html")]
struct DrillPage {
    id: String,
    database: String,
    store: String,
    incarnation: String,
    level: Level,
    verdict: &'static str,
    reason: Option<String>,
    began: Moment,
    ended: Moment,
    recovery: Option<String>,
    objective: Option<String>,
    part: Option<u32>,
    phases: Vec<Phase>,
    said: Option<DrillStatement>,
    replay: Option<String>,
    checks: Vec<Check>,
    passed: usize,
    signed: Option<String>,
    uncertified: Option<String>,
}

/// One drill.
///
/// # Errors
/// When there is none of this id for whoever asks, or the catalog is away.
pub async fn page(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let found = drill::one(&web, &visitor.who, &id).await?;
    let shown = shown(Utc::now(), &found);
    let database = shown.database.clone();
    let title = format!("Drill of {database}");
    let trail =
        vec![("/drills".to_owned(), "Drills".to_owned()), (format!("/drills?database={database}"), database)];
    let body = render(&shown)?;
    frame::show(&Page { title, part: Part::Drills, trail, said: None, body }, &visitor)
}

fn shown(now: DateTime<Utc>, drill: &Drill) -> DrillPage {
    let said = Said::read(drill).statement;
    let checks: Vec<Check> = said.iter().flat_map(|said| &said.checks).map(check).collect();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 1000
    let part = drill.recovery.zip(drill.objective.filter(|rto| !rto.is_zero())).map(|(took, rto)| {
        (took.as_secs_f64() / rto.as_secs_f64() * 1000.0).clamp(0.0, 1000.0).round() as u32
    });
    DrillPage {
        id: drill.id.to_string(),
        database: drill.database.to_string(),
        store: drill.store.clone(),
        incarnation: said
            .as_ref()
            .map_or_else(|| drill.incarnation.to_string(), |said| said.incarnation_number.to_string()),
        level: proof::level(drill.verdict),
        verdict: proof::verdict(drill.verdict),
        reason: reason(drill, said.as_ref()),
        began: Moment::new(now, drill.began),
        ended: Moment::new(now, drill.ended),
        recovery: drill.recovery.map(words::took),
        objective: drill.objective.map(words::took),
        part,
        phases: said.as_ref().map_or_else(Vec::new, |said| phases(&said.measured)),
        replay: said
            .as_ref()
            .and_then(|said| said.target.as_ref())
            .map(|target| words::bytes(target.replay_bytes)),
        passed: checks.iter().filter(|check| check.level == Level::Protected).count(),
        checks,
        signed: drill.signed.map(|(key, _)| key.to_string()),
        uncertified: drill.uncertified.clone(),
        said,
    }
}

fn check(check: &farshore_journal::format::certificate::DrillCheck) -> Check {
    let (level, word) = match check.outcome {
        CheckOutcome::Passed => (Level::Protected, "passed"),
        CheckOutcome::Failed => (Level::Unprotected, "failed"),
        CheckOutcome::NotLookedAt => (Level::Unknown, "not looked at"),
    };
    Check { level, word, name: check.name.clone(), detail: check.detail.clone(), required: check.required }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_was_not_come_to_has_no_time_and_no_place_in_the_bar() {
        let measured = Measured {
            plan_us: Some(1_000_000),
            fetch_us: Some(3_000_000),
            cleanup_us: Some(0),
            ..Measured::default()
        };
        let drawn = phases(&measured);
        assert_eq!(drawn.len(), 6);
        let one = |name: &str| drawn.iter().find(|phase| phase.name == name).unwrap();
        assert_eq!(one("fetch").bar, Some(("25.00%".to_owned(), "75.00%".to_owned())));
        assert_eq!((one("replay").took.as_deref(), &one("replay").bar), (None, &None));
        assert_eq!(one("cleanup").took.as_deref(), Some("0 s"));
        let counted: Vec<&str> = drawn.iter().filter(|phase| phase.counts).map(|phase| phase.name).collect();
        assert_eq!(counted, ["plan", "fetch", "replay", "open"], "what rto promises");
        assert!(phases(&Measured::default()).iter().all(|phase| phase.bar.is_none()));
    }
}
