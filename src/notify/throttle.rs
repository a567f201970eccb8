//! Throttles that people asked to be told of. Pure.
//!
//! What always holds: of a rule that is not known now nothing is said: neither that it is active, nor that it is not any more.

use chrono::{DateTime, Utc};
use farshore_catalog::fleet::Fleet;
use farshore_catalog::throttle::{Rule, RuleState};
use farshore_journal::DatabaseName;

use super::observe::Condition;
use super::transition::Word;
use crate::message::{Code, OperatorMessage, Safe};

/// How the throttles stand that are to be told of.
pub fn conditions(fleet: &Fleet, now: DateTime<Utc>) -> Vec<Condition> {
    let all = fleet.throttles.iter().filter(|throttles| !throttles.is_silent(now));
    let told = all.flat_map(|throttles| {
        let rules = throttles.rules.iter().filter(|rule| rule.notifies);
        rules.filter_map(|rule| condition(&throttles.database, rule))
    });
    told.collect()
}

fn condition(database: &DatabaseName, rule: &Rule) -> Option<Condition> {
    let name = &rule.name;
    let (word, code, happened) = match rule.state {
        RuleState::Unknown => return None,
        RuleState::Active => (
            Word::Degraded,
            Code::ThrottleActive,
            format!("the throttle {name} of {database} is active: {}", rule.why),
        ),
        RuleState::Quiet | RuleState::Off => (
            Word::Well,
            Code::ThrottleQuiet,
            format!("the throttle {name} of {database} is not active any more: {}", rule.why),
        ),
    };
    // What is past a threshold without having been seen to cross it is no crossing.
    let fired = rule.fired_at.filter(|_| word == Word::Degraded);
    if word == Word::Degraded && fired.is_none() {
        return None;
    }
    let safe = Safe::Known("what is called stored is stored, whatever limits what comes after it".to_owned());
    Some(Condition {
        database: database.clone(),
        topic: format!("throttle {name}"),
        word,
        mark: fired.map_or(0, |at| at.timestamp_micros()),
        is_new: false,
        message: OperatorMessage::new(code, happened, safe, format!("`farshore throttle list {database}`")),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::TimeDelta;
    use farshore_catalog::throttle::Throttles;

    use super::*;

    fn told(state: RuleState, fired: bool, heard: i64) -> Vec<(Word, i64)> {
        let at = |seconds| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let rule = |name: &str, notifies| Rule {
            name: name.to_owned(),
            state,
            since: at(0),
            why: "cpu is 93.0%".to_owned(),
            bandwidth: None,
            notifies,
            past: None,
            fired_at: fired.then(|| at(1)),
        };
        let throttles = Throttles {
            database: "orders".parse().unwrap(),
            bandwidth: None,
            sent: 0,
            waited: Duration::ZERO,
            node: "oslo-1".to_owned(),
            heard_at: at(heard),
            rules: vec![rule("busy", true), rule("silent", false)],
        };
        let fleet = Fleet {
            read_at: at(100),
            members: Vec::new(),
            jobs: Vec::new(),
            schedules: Vec::new(),
            seals: Vec::new(),
            standbys: Vec::new(),
            throttles: vec![throttles],
            guards: Vec::new(),
            spools: Vec::new(),
        };
        conditions(&fleet, at(100)).into_iter().map(|one| (one.word, one.mark)).collect()
    }

    #[test]
    fn who_asked_is_told_of_each_time_that_a_rule_acted_and_of_nothing_that_is_not_known() {
        for (state, fired, heard, expected) in [
            (RuleState::Active, true, 95, Some((Word::Degraded, 1_000_000))),
            (RuleState::Active, false, 95, None),
            (RuleState::Quiet, true, 95, Some((Word::Well, 0))),
            (RuleState::Off, true, 95, Some((Word::Well, 0))),
            (RuleState::Unknown, true, 95, None),
            (RuleState::Active, true, 60, None),
        ] {
            assert_eq!(told(state, fired, heard), Vec::from_iter(expected), "{state:?} {heard}");
        }
    }
}
