//! A drill as it is shown.

use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::drill::Drill;
use farshore_journal::format::certificate::{CheckOutcome, DrillStatement, DrillVerdict};
use farshore_journal::{DatabaseName, DrillId};
use serde::Serialize;

use crate::cli::zone::Zone;
use crate::drill::outcome::Came;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;

/// One drill, with how it is certified.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) store_name: String,
    /// Whether a certificate is in the store.
    pub(super) certified: bool,
    /// Why there is none.
    pub(super) uncertified: Option<String>,
    pub(super) signing_key: Option<String>,
    pub(super) statement: DrillStatement,
}

impl Shown {
    pub(super) fn of(came: &Came) -> Self {
        Self {
            store_name: came.store.clone(),
            certified: came.certificate.is_some(),
            uncertified: came.uncertified.clone(),
            signing_key: came.certificate.as_ref().map(|certificate| certificate.key.to_string()),
            statement: came.statement.clone(),
        }
    }

    /// # Errors
    /// When the catalog's text does not read.
    pub(super) fn of_row(drill: &Drill) -> Result<Self, OperatorMessage> {
        let statement = serde_json::from_str(&drill.statement).map_err(|why| {
            OperatorMessage::new(
                Code::DrillUnknown,
                format!("what the catalog has of the drill {} does not read: {why}", drill.id),
                Safe::Known("nothing was changed".to_owned()),
                "`farshore drill verify` reads its certificate from the store, if it has one",
            )
        })?;
        Ok(Self {
            store_name: drill.store.clone(),
            certified: drill.signed.is_some(),
            uncertified: drill.uncertified.clone(),
            signing_key: drill.signed.map(|(key, _)| key.to_string()),
            statement,
        })
    }

    /// All of it, for people.
    pub(super) fn text(&self) -> String {
        let said = &self.statement;
        let mut text = String::new();
        let mut line = |what: &str, value: &str| {
            let _to_a_string = writeln!(text, "{what:<10} {value}");
        };
        line("drill", &format!("{} of {} in {}", said.drill, said.database, self.store_name));
        line("verdict", verdict(said.verdict));
        line("on", &format!("{} ({}), farshore {}", said.node, said.machine, said.version));
        line("began", &said.began);
        let seed = said.point.seed.map_or_else(String::new, |seed| format!(" by seed {seed}"));
        line("point", &format!("{}{seed}", said.point.asked));
        if let Some(target) = &said.target {
            let time = target.time.as_deref().unwrap_or("no commit behind the base");
            line("restored", &format!("{} ({time}) from base backup {}", target.position, target.base));
        }
        if let Some(failure) = &said.failure {
            line("failed", &format!("in {}: {} {}", failure.phase, failure.code, failure.happened));
        }
        let measured = &said.measured;
        let phases = [
            ("plan", measured.plan_us),
            ("fetch", measured.fetch_us),
            ("replay", measured.replay_us),
            ("open", measured.open_us),
            ("check", measured.check_us),
            ("cleanup", measured.cleanup_us),
        ];
        let phases: Vec<String> =
            phases.iter().map(|(what, us)| format!("{what} {}", seconds(*us))).collect();
        line("took", &phases.join(", "));
        let objective = said
            .objective_us
            .map_or_else(|| "no rto is stated".to_owned(), |us| format!("rto {}", seconds(Some(us))));
        line("recovery", &format!("{} ({objective})", seconds(said.recovery_us)));
        line("network", &said.network);
        for check in &said.checks {
            let detail = if check.detail.is_empty() { String::new() } else { format!(": {}", check.detail) };
            line(outcome(check.outcome), &format!("{}{detail}", check.name));
        }
        if !said.removed {
            line("LEFT", "the copy could not be removed");
        }
        match (&self.uncertified, &self.signing_key) {
            (Some(why), _) => line("signed", &format!("NOT CERTIFIED: {why}")),
            (None, Some(key)) => line("signed", &format!("by {key}")),
            (None, None) => line("signed", "NOT CERTIFIED"),
        }
        text
    }
}

/// A verdict for people.
pub(super) const fn verdict(verdict: DrillVerdict) -> &'static str {
    match verdict {
        DrillVerdict::Passed => "passed",
        DrillVerdict::Breached => "passed, objective breached",
        DrillVerdict::Failed => "FAILED",
    }
}

/// An outcome for people.
pub(super) const fn outcome(outcome: CheckOutcome) -> &'static str {
    match outcome {
        CheckOutcome::Passed => "passed",
        CheckOutcome::Failed => "FAILED",
        CheckOutcome::NotLookedAt => "not looked",
    }
}

/// A time for people.
pub(super) fn seconds(us: Option<u64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| format!("{:.3} s", Duration::from_micros(us).as_secs_f64()))
}

/// One drill in a list.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    drill: DrillId,
    database: DatabaseName,
    store: String,
    verdict: DrillVerdict,
    began: DateTime<Utc>,
    recovery_seconds: Option<f64>,
    objective_seconds: Option<f64>,
    certified: bool,
    uncertified: Option<String>,
}

impl Listed {
    pub(super) fn of(drill: &Drill) -> Self {
        Self {
            drill: drill.id,
            database: drill.database.clone(),
            store: drill.store.clone(),
            verdict: drill.verdict,
            began: drill.began,
            recovery_seconds: drill.recovery.map(|time| time.as_secs_f64()),
            objective_seconds: drill.objective.map(|time| time.as_secs_f64()),
            certified: drill.signed.is_some(),
            uncertified: drill.uncertified.clone(),
        }
    }
}

impl Row for Listed {
    const HEADER: &'static [&'static str] =
        &["DRILL", "DATABASE", "STORE", "BEGAN (UTC)", "VERDICT", "RECOVERY", "RTO", "CERTIFIED"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let time = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.1} s"));
        vec![
            self.drill.to_string(),
            self.database.to_string(),
            self.store.clone(),
            zone.show(self.began, SecondsFormat::Secs),
            verdict(self.verdict).to_owned(),
            time(self.recovery_seconds),
            time(self.objective_seconds),
            if self.certified { "yes" } else { "NO" }.to_owned(),
        ]
    }
}
