//! Whether a rule acts: pure, from the rule, what was known of it, and one look.
//!
//! What always holds: what it does once it does when what it tests for begins to hold, and not again before it was seen not to hold; a rule for
//! a crossing acts when it was seen on the one side and then on the other, so that a first look is none. What is not known in between is forgotten by
//! neither. Outside its hours a rule knows nothing.
//!
//! ```text
//!            ┌── the window ends ──┐
//!            ▼                     │
//!   off ──▶ quiet ◀──────────▶ active      unknown: the figure is not known; from any, and back to what is then known
//!                └─ fires: log, notify, run
//! ```

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::throttle::RuleState;
use farshore_catalog::throttle::sample::Sample;

use super::rule::Rule;
use crate::config::quantity::Rate;

/// What is known of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// How it stands.
    pub state: RuleState,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What was measured, in words.
    pub why: String,
    /// Whether what it tests for held when that was last known within its hours.
    pub past: Option<bool>,
    /// When it last acted.
    pub fired_at: Option<DateTime<Utc>>,
}

/// How long what was known of a rule may be gone for without being out of date: for longer nobody knows on which side it was meanwhile.
const LATE: TimeDelta = TimeDelta::minutes(15);

/// Judges a rule by a look. `true`: it does now what it does once.
pub fn judge(rule: &Rule, before: Option<&Known>, sample: &Sample) -> (Known, bool) {
    let (state, past, why) = match (rule.window.holds(sample.at), rule.test.as_ref()) {
        (false, _) => (RuleState::Off, None, format!("outside {}", rule.window)),
        (true, None) => (RuleState::Active, Some(true), format!("it is {}", rule.window)),
        (true, Some(test)) => match test.metric.of(sample) {
            None => (
                RuleState::Unknown,
                before.and_then(|before| before.past),
                format!("{} is not known", test.metric.word()),
            ),
            Some(value) => {
                let is_past = test.is_past(value);
                let state = if is_past { RuleState::Active } else { RuleState::Quiet };
                let why = format!("{} is {}; {test}", test.metric.word(), test.metric.show(value));
                (state, Some(is_past), why)
            }
        },
    };
    let was = before.and_then(|before| before.past);
    let is_transition = rule.test.is_some_and(|test| test.operator.is_transition());
    let begins = if is_transition { was == Some(false) } else { was != Some(true) };
    let fires = state == RuleState::Active && begins;
    let same = before.filter(|before| before.state == state);
    let known = Known {
        state,
        since: same.map_or(sample.at, |before| before.since),
        why,
        past,
        fired_at: match fires {
            true => Some(sample.at),
            // What it did on another day is nothing of this one's.
            false => {
                before.filter(|before| before.state != RuleState::Off).and_then(|before| before.fired_at)
            }
        },
    };
    (known, fires)
}

/// What is left of what was known, at the begin of a service that did not look since `heard_at`.
pub fn remembered(known: Known, heard_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<Known> {
    (now - heard_at <= LATE).then_some(known)
}

/// The limit that holds: the lowest of the one that always does and those of active rules, and whose it is.
pub fn limit<'a>(
    always: Option<Rate>,
    rules: impl IntoIterator<Item = (&'a Rule, RuleState)>,
) -> Option<(Rate, Option<&'a str>)> {
    let rules = rules.into_iter().filter(|(_, state)| *state == RuleState::Active);
    let set = rules.filter_map(|(rule, _)| Some((rule.bandwidth()?, Some(rule.name.as_str()))));
    set.chain(always.map(|rate| (rate, None))).min_by_key(|(rate, _)| *rate)
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::super::rule::{Action, Test};
    use super::super::window::{DaySet, Hours, Window};
    use super::*;

    fn rule(test: Option<&str>, hours: Option<&str>) -> Rule {
        Rule {
            name: "it".to_owned(),
            window: Window {
                days: DaySet::ALL,
                hours: hours.map(|hours| Hours::parse(hours).unwrap()),
                zone: Tz::UTC,
            },
            test: test.map(|test| Test::parse(test).unwrap()),
            actions: vec![Action::Notify],
        }
    }

    /// Looks ten seconds apart from noon on, each with the lag that was seen: how the rule stands after each, and whether it acted.
    fn judged(rule: &Rule, lags: &[Option<u64>]) -> String {
        let noon: DateTime<Utc> = "2026-07-01T12:00:00Z".parse().unwrap();
        let mut known = None;
        let mut all = Vec::new();
        for (at, lag) in lags.iter().enumerate() {
            let at = noon + TimeDelta::seconds(10 * i64::try_from(at).unwrap());
            let sample = Sample { ship_lag: lag.map(|lag| lag * 1000), ..Sample::unknown(at) };
            let (now, fires) = judge(rule, known.as_ref(), &sample);
            all.push(format!("{}{}", now.state.word(), if fires { "!" } else { "" }));
            known = Some(now);
        }
        all.join(" ")
    }

    #[test]
    fn what_a_rule_did_within_its_hours_is_nothing_of_the_next_ones() {
        let rule = rule(Some("ship_lag rises above 15m"), Some("08:00-18:00"));
        let at = |text: &str, lag: u64| Sample {
            ship_lag: Some(lag * 60_000),
            ..Sample::unknown(text.parse().unwrap())
        };
        let mut known = None;
        let mut fired = Vec::new();
        for sample in [
            at("2026-07-01T09:00:00Z", 1),
            at("2026-07-01T09:00:10Z", 20),
            at("2026-07-01T18:00:00Z", 20),
            at("2026-07-02T08:00:00Z", 20),
        ] {
            let (now, fires) = judge(&rule, known.as_ref(), &sample);
            fired.push((fires, now.fired_at.is_some()));
            known = Some(now);
        }
        assert_eq!(fired, [(false, false), (true, true), (false, true), (false, false)]);
        assert_eq!(known.unwrap().state, RuleState::Active);
    }

    #[test]
    fn a_rule_acts_when_what_it_tests_for_begins_to_hold_and_not_again_while_it_does() {
        let above = rule(Some("ship_lag above 30s"), None);
        for (lags, stood) in [
            (vec![Some(0), Some(31), Some(40), Some(30), Some(31)], "quiet active! active quiet active!"),
            (vec![Some(31)], "active!"),
            (vec![Some(31), None, Some(31)], "active! unknown active"),
            (vec![Some(31), None, Some(0), None, Some(31)], "active! unknown quiet unknown active!"),
            (vec![None, Some(31)], "unknown active!"),
        ] {
            assert_eq!(judged(&above, &lags), stood, "{lags:?}");
        }
    }

    #[test]
    fn a_crossing_is_acted_on_once_and_a_first_look_is_none() {
        let rises = rule(Some("ship_lag rises above 30s"), None);
        for (lags, stood) in [
            (vec![Some(31), Some(40)], "active active"),
            (vec![Some(0), Some(31), Some(40), Some(0), Some(31)], "quiet active! active quiet active!"),
            (vec![Some(0), None, Some(31)], "quiet unknown active!"),
            (vec![Some(31), None, Some(31)], "active unknown active"),
            (vec![None, Some(31)], "unknown active"),
        ] {
            assert_eq!(judged(&rises, &lags), stood, "{lags:?}");
        }
        let falls = rule(Some("ship_lag falls below 30s"), None);
        assert_eq!(judged(&falls, &[Some(40), Some(29), Some(30), Some(29)]), "quiet active! quiet active!");
    }

    #[test]
    fn outside_its_hours_a_rule_does_nothing_and_within_them_the_first_look_begins_anew() {
        let hours = Some("12:00-12:01");
        let lags = [Some(31); 8];
        assert_eq!(
            judged(&rule(Some("ship_lag above 30s"), hours), &lags),
            "active! active active active active active off off"
        );
        let later = Some("12:01-13:00");
        assert_eq!(judged(&rule(None, later), &lags), "off off off off off off active! active");
        // What happened before the hours began is no crossing within them.
        let rises = rule(Some("ship_lag rises above 30s"), later);
        assert_eq!(judged(&rises, &lags), "off off off off off off active active");
    }

    #[test]
    fn since_is_when_it_became_so() {
        let above = rule(Some("ship_lag above 30s"), None);
        let at = |seconds| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let look = |seconds, lag| Sample { ship_lag: lag, ..Sample::unknown(at(seconds)) };
        let (one, _) = judge(&above, None, &look(0, Some(31_000)));
        let (two, _) = judge(&above, Some(&one), &look(10, Some(45_600)));
        assert_eq!((two.since, two.fired_at), (at(0), Some(at(0))));
        assert_eq!(two.why, "ship_lag is 45.6s; ship_lag above 30.0s");
        let (three, _) = judge(&above, Some(&two), &look(20, None));
        assert_eq!((three.since, three.fired_at, three.past), (at(20), Some(at(0)), Some(true)));
        assert_eq!(remembered(three.clone(), at(20), at(60)), Some(three.clone()));
        assert_eq!(remembered(three, at(20), at(20 + 16 * 60)), None);
    }

    #[test]
    fn of_several_limits_the_lowest_holds_and_only_active_rules_set_one() {
        let set = |name: &str, rate| Rule {
            name: name.to_owned(),
            actions: vec![Action::Bandwidth(Rate::new(rate)), Action::Bandwidth(Rate::new(rate + 1))],
            ..rule(None, None)
        };
        let (low, high) = (set("low", 100), set("high", 300));
        let rate = |rate| Some(Rate::new(rate));
        use RuleState::{Active, Off, Quiet, Unknown};
        for (always, states, held) in [
            (None, [Off, Off], None),
            (rate(200), [Off, Quiet], Some((Rate::new(200), None))),
            (rate(200), [Active, Active], Some((Rate::new(100), Some("low")))),
            (rate(200), [Unknown, Active], Some((Rate::new(200), None))),
            (None, [Quiet, Active], Some((Rate::new(300), Some("high")))),
        ] {
            assert_eq!(limit(always, [(&low, states[0]), (&high, states[1])]), held, "{states:?}");
        }
    }
}
