//! What drills say of a database, in a word with its shape: pure functions.
//!
//! What always holds: *proved* is said only where the newest drill of the current incarnation passed within what may be taken now; never drilled has the shape of unknown, and a
//! drill that failed is not covered by one that passed before it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::proof::{Outline, Proof};
use farshore_journal::format::certificate::DrillVerdict;

use crate::pages::standing::Level;
use crate::pages::words::{self, Moment};

/// What drills say of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// Its shape and hue.
    pub level: Level,
    /// In a word.
    pub word: &'static str,
    /// Why that word.
    pub because: String,
    /// The newest drill's id.
    pub last: Option<String>,
    /// When it was last proved.
    pub at: Option<Moment>,
    /// How long the recovery that proved it took.
    pub recovery: Option<String>,
    /// How long it may take.
    pub objective: Option<String>,
    /// What it took as thousandths of what it may, at most 1000.
    pub part: Option<u32>,
    /// Whether what proved it is signed.
    pub certified: bool,
}

/// What a proof amounts to, where recovery may take `rto`.
pub fn proved(now: DateTime<Utc>, proof: &Proof, rto: Option<Duration>) -> Proved {
    let objective = rto.or_else(|| proof.proved.as_ref().and_then(|one| one.objective));
    let shown = proof.proved.as_ref();
    let (level, word, because) = match (&proof.last, shown) {
        (None, _) => (Level::Unknown, "never", never(now, proof)),
        (Some(last), shown) if last.verdict == DrillVerdict::Failed => (
            Level::Unprotected,
            "failed",
            match shown {
                Some(one) => {
                    format!(
                        "the newest drill failed; before that it was proved {}",
                        words::ago(now, one.ended)
                    )
                }
                None => "its drills failed: that it can be restored is not proved".to_owned(),
            },
        ),
        (Some(_), Some(one)) if is_slow(one, objective) => {
            (Level::Degraded, "slow", "restored, and it took longer than its objective".to_owned())
        }
        (Some(_), Some(_)) => (
            Level::Protected,
            "proved",
            match objective {
                Some(_) => "restored within its objective, and every check passed".to_owned(),
                None => "restored, and every check passed; no objective is stated".to_owned(),
            },
        ),
        // No drill is neither failed nor passed.
        (Some(_), None) => (Level::Unknown, "unknown", "how its drills went is not known".to_owned()),
    };
    let recovery = shown.and_then(|one| one.recovery);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 1000
    let part = recovery.zip(objective.filter(|rto| !rto.is_zero())).map(|(took, rto)| {
        (took.as_secs_f64() / rto.as_secs_f64() * 1000.0).clamp(0.0, 1000.0).round() as u32
    });
    Proved {
        level,
        word,
        because,
        last: proof.last.as_ref().map(|one| one.id.to_string()),
        at: Moment::maybe(now, shown.map(|one| one.ended)),
        recovery: recovery.map(words::took),
        objective: objective.map(|rto| words::seconds(rto.as_secs_f64())),
        part,
        certified: shown.is_some_and(|one| one.certified),
    }
}

fn never(now: DateTime<Utc>, proof: &Proof) -> String {
    match proof.former {
        Some(former) => format!(
            "no drill of this incarnation; a former one was proved {}, which says nothing of this one",
            words::ago(now, former)
        ),
        None => "no drill has restored it: that it can be recovered is not proved".to_owned(),
    }
}

fn is_slow(one: &Outline, objective: Option<Duration>) -> bool {
    match (one.recovery, objective) {
        (Some(took), Some(rto)) => took > rto,
        // What it was held against then is not known any more; the verdict is.
        _ => one.verdict == DrillVerdict::Breached,
    }
}

/// The shape of a verdict.
pub const fn level(verdict: DrillVerdict) -> Level {
    match verdict {
        DrillVerdict::Passed => Level::Protected,
        DrillVerdict::Breached => Level::Degraded,
        DrillVerdict::Failed => Level::Unprotected,
    }
}

/// A verdict in words.
pub const fn verdict(verdict: DrillVerdict) -> &'static str {
    match verdict {
        DrillVerdict::Passed => "passed",
        DrillVerdict::Breached => "too slow",
        DrillVerdict::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use farshore_journal::{DrillId, IncarnationId};

    use super::*;

    fn outline(number: u8, incarnation: u8, verdict: DrillVerdict, took: Option<u64>) -> Outline {
        let began = DateTime::UNIX_EPOCH + TimeDelta::hours(i64::from(number));
        Outline {
            id: DrillId::from_bytes([number; 16]),
            database: "orders".parse().unwrap(),
            incarnation: IncarnationId::from_bytes([incarnation; 16]),
            verdict,
            began,
            ended: began,
            recovery: took.map(Duration::from_secs),
            objective: Some(Duration::from_secs(60)),
            certified: true,
        }
    }

    #[test]
    fn proved_is_said_only_where_the_newest_drill_passed_within_what_may_be_taken_now() {
        use DrillVerdict::{Breached, Failed, Passed};
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(2);
        let id = Some(IncarnationId::from_bytes([1; 16]));
        let (passed, slow) = (outline(1, 1, Passed, Some(10)), outline(2, 1, Breached, Some(90)));
        let failed = outline(3, 1, Failed, None);
        let former = outline(4, 2, Passed, Some(1));
        let minute = Some(Duration::from_secs(60));
        for (drills, rto, level, word) in [
            (vec![], minute, Level::Unknown, "never"),
            (vec![former.clone()], minute, Level::Unknown, "never"),
            (vec![passed.clone()], minute, Level::Protected, "proved"),
            (vec![passed.clone()], None, Level::Protected, "proved"),
            // The objective was made shorter, or longer, since.
            (vec![passed.clone()], Some(Duration::from_secs(9)), Level::Degraded, "slow"),
            (vec![slow.clone()], Some(Duration::from_secs(900)), Level::Protected, "proved"),
            (vec![passed.clone(), slow.clone()], minute, Level::Degraded, "slow"),
            (vec![passed.clone(), failed.clone()], minute, Level::Unprotected, "failed"),
            (vec![failed.clone()], minute, Level::Unprotected, "failed"),
        ] {
            let said = proved(now, &Proof::of(id.as_slice(), &drills), rto);
            assert_eq!((said.level, said.word), (level, word), "{drills:?}");
            assert!(!said.because.is_empty());
            // Of one that was never proved no time is shown, and none of a recovery.
            let is_proved = drills.iter().any(|one| Some(one.incarnation) == id && one.verdict != Failed);
            assert_eq!((said.at.is_some(), said.recovery.is_some()), (is_proved, is_proved), "{drills:?}");
        }
    }
}
