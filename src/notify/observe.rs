//! What stands how, of what was read: each database's state and its work, as something that could be told. Pure.
//!
//! What always holds: a state that is not known is `unknown`, never left out, and neither is a database of the configuration of which the catalog
//! knows nothing; what is safe is said from what is stored, or said not to be known.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::fleet::{Fleet, Member};
use farshore_catalog::job::JobKind;
use farshore_catalog::lag::ShownState;
use farshore_catalog::shipping::ShippingState;
use farshore_journal::DatabaseName;
use farshore_web::Metrics;

use super::throttle;
use super::transition::Word;
use crate::message::{Code, OperatorMessage, Safe};

/// The topic of how a database stands.
const STATE: &str = "state";

/// How something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Of which database.
    pub database: DatabaseName,
    /// Of what.
    pub topic: String,
    /// How it stands.
    pub word: Word,
    /// Tells one event of this word from the next.
    pub mark: i64,
    /// Whether nobody ever spoke of it: whoever was to do so may just have begun.
    pub is_new: bool,
    /// In words.
    pub message: OperatorMessage,
}

/// How everything stands that was read.
pub fn conditions(fleet: &Fleet, metrics: &Metrics, now: DateTime<Utc>) -> Vec<Condition> {
    let mut all: Vec<Condition> = fleet.members.iter().map(|member| state(member, metrics, now)).collect();
    let is_known = |name: &DatabaseName| fleet.members.iter().any(|member| member.database == *name);
    all.extend(metrics.objectives().keys().filter(|name| !is_known(name)).map(nowhere));
    all.extend(work(fleet, metrics, now));
    all.extend(throttle::conditions(fleet, now));
    all
}

/// A database of this service's configuration that has no row in the catalog.
fn nowhere(name: &DatabaseName) -> Condition {
    let happened = format!(
        "nobody vouches for how {name} stands: the configuration names it, and the catalog knows nothing of it"
    );
    let message = OperatorMessage::new(
        Code::StateUnknown,
        happened,
        Safe::Unknown("nobody said that anything is stored".to_owned()),
        format!(
            "see that `farshore run` ships it and writes this catalog; `farshore check {name}` says what is in its way"
        ),
    );
    // Who ships it may just begin.
    Condition {
        database: name.clone(),
        topic: STATE.to_owned(),
        word: Word::Unknown,
        mark: 0,
        is_new: true,
        message,
    }
}

fn state(member: &Member, metrics: &Metrics, now: DateTime<Utc>) -> Condition {
    let standing = member.standing(now, false);
    let rpo = metrics.objectives().get(&member.database).and_then(|promised| promised.rpo);
    let breached = rpo.is_some_and(|rpo| member.breached(now, false, rpo.as_secs_f64()) == Some(true));
    let word = match word(standing.state, breached) {
        // What is shipped and cannot be restored is not well, and may be about to be.
        Word::Well if member.restorable.is_none() => Word::Beginning,
        // Nobody knows that the objective holds, and that may last as long as a bulk load does.
        Word::Well if standing.unseen && rpo.is_some() => Word::Degraded,
        word => word,
    };
    let name = &member.database;
    let node = member.shipping.as_ref().and_then(|said| said.node.clone());
    let why = standing.why.map_or_else(String::new, |why| format!(": {why}"));
    let (code, happened) = match word {
        Word::Well => (Code::StandsWell, format!("{name} is shipped again as it should be")),
        Word::Breached => {
            let exposed = standing.exposure_seconds;
            let rpo = rpo.unwrap_or_default().as_secs_f64();
            (
                Code::ObjectiveBreached,
                format!(
                    "of {name} {exposed:.0} s of changes would be lost now, and its objective is {rpo} s{why}"
                ),
            )
        }
        Word::Stopped => {
            (Code::ShippingEnded, format!("shipping of {name} is {} for good{why}", standing.state.word()))
        }
        Word::Unknown => (Code::StateUnknown, format!("nobody vouches for how {name} stands{why}")),
        Word::Degraded if standing.unseen => (
            Code::ShippingDegraded,
            format!(
                "much of the log of {name} was not received yet: what would be lost now is not known{why}"
            ),
        ),
        Word::Degraded | Word::Beginning | Word::Overdue | Word::Failed => {
            (Code::ShippingDegraded, format!("{name} is {}{why}", standing.state.word()))
        }
    };
    let on = node.map_or_else(String::new, |node| format!(" on {node}"));
    let next = match word {
        Word::Well => "nothing need be done".to_owned(),
        _ => format!("`farshore status {name}`; it was shipped last{on}; docs/runbook.md says how to go on"),
    };
    Condition {
        database: name.clone(),
        topic: STATE.to_owned(),
        word,
        mark: 0,
        is_new: member.shipping.as_ref().is_none_or(|said| said.last_contact_at.is_none()),
        message: OperatorMessage::new(code, happened, safe(member, word), next),
    }
}

fn word(state: ShownState, breached: bool) -> Word {
    match state {
        ShownState::Unknown => Word::Unknown,
        ShownState::Known(ShippingState::Fenced | ShippingState::Failed) => Word::Stopped,
        ShownState::Known(_) if breached => Word::Breached,
        ShownState::Known(ShippingState::Connected) => Word::Well,
        ShownState::Known(ShippingState::Setup | ShippingState::Refreshing | ShippingState::Backfreshing) => {
            Word::Beginning
        }
        ShownState::Known(
            ShippingState::Accumulating
            | ShippingState::Degraded
            | ShippingState::Bypass
            | ShippingState::Paused,
        ) => Word::Degraded,
    }
}

fn safe(member: &Member, word: Word) -> Safe {
    let said = member.shipping.as_ref();
    match said.and_then(|said| said.stored.zip(said.timeline).map(|stored| (stored, said.updated_at))) {
        None => Safe::Unknown("nobody said that anything is stored".to_owned()),
        Some(((stored, timeline), at)) => {
            let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
            let behind = match word {
                Word::Well => "",
                _ => "; of what was committed behind it nothing is known to be stored",
            };
            Safe::Known(format!("the log up to {stored} on timeline {timeline} was stored at {at}{behind}"))
        }
    }
}

/// Work that failed or is overdue: the newest run counts.
fn work(fleet: &Fleet, metrics: &Metrics, now: DateTime<Utc>) -> Vec<Condition> {
    let mut found: BTreeMap<(DatabaseName, JobKind), Condition> = BTreeMap::new();
    for job in &fleet.jobs {
        let Some(database) = &job.database else { continue };
        // Whoever asked hears the answer, and nothing was to be done.
        if matches!(job.kind, JobKind::Plan | JobKind::Preview) {
            continue;
        }
        let failed =
            job.last_failure.filter(|failed| job.last_success.is_none_or(|succeeded| *failed > succeeded));
        let condition = match failed {
            Some(failed) => of_work(database, job.kind, Word::Failed, failed.timestamp_micros()),
            None => of_work(database, job.kind, Word::Well, 0),
        };
        found.insert((database.clone(), job.kind), condition);
    }
    for schedule in &fleet.schedules {
        let Some(due) = metrics.overdue(schedule, fleet).filter(|due| *due < now) else { continue };
        let condition = of_work(&schedule.database, schedule.kind, Word::Overdue, due.timestamp_micros());
        // That it failed says more than that it is late.
        let known =
            found.entry((schedule.database.clone(), schedule.kind)).or_insert_with(|| condition.clone());
        if known.word < condition.word {
            *known = condition;
        }
    }
    found.into_values().collect()
}

fn of_work(database: &DatabaseName, kind: JobKind, word: Word, mark: i64) -> Condition {
    let (code, happened) = match word {
        Word::Failed => (Code::WorkFailed, format!("the newest {kind} of {database} failed")),
        Word::Overdue => {
            (Code::WorkOverdue, format!("a {kind} of {database} was due, and none succeeded in time"))
        }
        _ => (Code::WorkWell, format!("a {kind} of {database} succeeded again")),
    };
    let safe = match word {
        Word::Failed => Safe::Unknown("its own message says it: `farshore job show`".to_owned()),
        _ => Safe::Known("what was backed up and stored before stays as it was".to_owned()),
    };
    let message = OperatorMessage::new(code, happened, safe, format!("`farshore job list {database}`"));
    Condition {
        database: database.clone(),
        topic: kind.word().to_owned(),
        word,
        mark,
        is_new: false,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connected_database_within_its_objective_is_well() {
        for state in ShippingState::ALL {
            let well = word(ShownState::Known(state), false) == Word::Well;
            assert_eq!(well, state == ShippingState::Connected, "{state}");
            assert_ne!(word(ShownState::Known(state), true), Word::Well, "{state}");
        }
        assert_eq!(word(ShownState::Unknown, false), Word::Unknown);
    }

    #[test]
    fn a_database_of_the_configuration_that_the_catalog_does_not_know_is_told_of_as_unknown() {
        let objectives = BTreeMap::from([
            ("orders".parse().unwrap(), farshore_web::Objectives::default()),
            ("billing".parse().unwrap(), farshore_web::Objectives::default()),
        ]);
        let metrics = Metrics::new(objectives, Box::new(|_, _| None));
        let now = Utc::now();
        let fleet = Fleet {
            read_at: now,
            members: Vec::new(),
            jobs: Vec::new(),
            schedules: Vec::new(),
            seals: Vec::new(),
            standbys: Vec::new(),
            guards: Vec::new(),
            spools: Vec::new(),
            throttles: Vec::new(),
        };
        let told = conditions(&fleet, &metrics, now);
        let names: Vec<String> = told.iter().map(|condition| condition.database.to_string()).collect();
        assert_eq!(names, ["billing", "orders"]);
        for condition in told {
            assert_eq!((condition.word, condition.topic.as_str()), (Word::Unknown, STATE));
            // A service that just begins has a moment to make its row.
            assert!(condition.is_new && matches!(condition.message.safe, Safe::Unknown(_)));
        }
    }
}
