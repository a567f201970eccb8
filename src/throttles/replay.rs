//! What rules would have done: recorded looks are judged in their order, as the service judges them. Pure.
//!
//! What always holds: nothing is done. Where no look was recorded nothing is known, and nothing happens; that is counted.

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::throttle::RuleState;
use farshore_catalog::throttle::sample::Sample;

use super::judge::{self, Known};
use super::rule::{Action, Rule};
use crate::config::quantity::Rate;

/// Looks are ten seconds apart; where more than this is between two, nobody looked.
const APART: TimeDelta = TimeDelta::seconds(45);

/// What would have happened at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: DateTime<Utc>,
    /// Of which rule; `None`: of the limit, whoever sets it.
    pub rule: Option<String>,
    /// What.
    pub what: What,
    /// Why, in words.
    pub why: String,
}

/// What would have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The rule would stand so from then on.
    State(RuleState),
    /// It would have done this, once.
    Does(Action),
    /// This limit would hold from then on; `None`: none.
    Limit(Option<Rate>),
}

impl What {
    /// In words.
    pub fn show(&self) -> String {
        match self {
            Self::State(state) => state.word().to_owned(),
            Self::Does(action) => action.show(),
            Self::Limit(None) => "no limit".to_owned(),
            Self::Limit(Some(rate)) => format!("limit {rate}"),
        }
    }
}

/// What would have happened over a run of looks, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replay {
    /// What, in order.
    pub events: Vec<Event>,
    /// How many looks there were.
    pub looks: usize,
    /// How long nobody looked, between the first look and the last.
    pub unseen: TimeDelta,
}

/// Replays looks.
pub fn replay(always: Option<Rate>, rules: &[Rule], looks: &[Sample]) -> Replay {
    let mut known: Vec<Option<Known>> = vec![None; rules.len()];
    let mut limit = always;
    let mut all = Replay { looks: looks.len(), ..Replay::default() };
    let mut before: Option<DateTime<Utc>> = None;
    for look in looks {
        if let Some(then) = before
            && look.at - then > APART
        {
            all.unseen += look.at - then;
            // As a service that begins again: what is long past is not taken for known.
            for one in &mut known {
                *one = one.take().and_then(|one| judge::remembered(one, then, look.at));
            }
        }
        before = Some(look.at);
        for (rule, known) in rules.iter().zip(&mut known) {
            let (now, fires) = judge::judge(rule, known.as_ref(), look);
            let event =
                |what| Event { at: look.at, rule: Some(rule.name.clone()), what, why: now.why.clone() };
            if known.as_ref().is_none_or(|known| known.state != now.state) {
                all.events.push(event(What::State(now.state)));
            }
            if fires {
                let once = rule.actions.iter().filter(|action| !action.lasts());
                all.events.extend(once.map(|action| event(What::Does(action.clone()))));
            }
            *known = Some(now);
        }
        let states = known.iter().map(|known| known.as_ref().map_or(RuleState::Unknown, |known| known.state));
        let holds = judge::limit(always, rules.iter().zip(states));
        if holds.map(|(rate, _)| rate) != limit {
            let why = match holds {
                None => "no rule sets one".to_owned(),
                Some((_, None)) => "`bandwidth` of the database".to_owned(),
                Some((_, Some(rule))) => format!("rule {rule}"),
            };
            limit = holds.map(|(rate, _)| rate);
            all.events.push(Event { at: look.at, rule: None, what: What::Limit(limit), why });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use chrono_tz::Europe::Berlin;

    use super::super::rule::Test;
    use super::super::window::{DaySet, Hours, Window};
    use super::*;

    fn rule(name: &str, hours: Option<&str>, test: Option<&str>, actions: Vec<Action>) -> Rule {
        let hours = hours.map(|hours| Hours::parse(hours).unwrap());
        Rule {
            name: name.to_owned(),
            window: Window { days: DaySet::ALL, hours, zone: Berlin },
            test: test.map(|test| Test::parse(test).unwrap()),
            actions,
        }
    }

    /// A day as it might be: a bulk load from 9 to 10 that the office's limit lets pile up and that is caught up with by 11, a busy half hour at
    /// noon of which five minutes were not measured, an hour in the evening in which the service was down.
    fn day() -> Vec<Sample> {
        let midnight: DateTime<Utc> = "2026-10-25T00:00:00+02:00".parse().unwrap();
        // The clock goes back in this night: 25 hours, and 9:00 is ten hours behind midnight.
        let nine = midnight + TimeDelta::hours(10);
        let mut looks = Vec::new();
        for number in 0..25 * 360_i64 {
            let at = midnight + TimeDelta::seconds(number * 10);
            let into = (at - nine).num_seconds();
            if (9 * 3600..10 * 3600).contains(&into) {
                continue;
            }
            let lag = match into {
                0..3600 => u64::try_from(into).unwrap() * 500,
                3600..7200 => 1_800_000 - u64::try_from(into - 3600).unwrap() * 500,
                _ => 200,
            };
            let cpu = match into {
                10_800..11_400 | 11_700..12_600 => Some(930),
                11_400..11_700 => None,
                _ => Some(150),
            };
            looks.push(Sample {
                at,
                ship_rate: Some(1_000_000),
                cpu,
                ship_lag: Some(lag),
                ship_lag_bytes: Some(lag * 5000),
                retained_log: Some(64 << 20),
                spool: None,
            });
        }
        looks
    }

    #[test]
    fn a_day_of_recorded_looks_gives_exactly_these_actions() {
        let rate = |text: &str| Action::Bandwidth(text.parse().unwrap());
        let said = Action::Log("the load is behind".to_owned());
        let rules = [
            rule("office", Some("08:00-18:00"), None, vec![rate("5MB/s")]),
            rule("behind", None, Some("ship_lag rises above 15m"), vec![said.clone(), Action::Notify]),
            rule("caught-up", None, Some("ship_lag falls below 1s"), vec![Action::Notify]),
            rule("busy", None, Some("cpu above 90%"), vec![rate("1MB/s"), Action::Notify]),
            rule("full", None, Some("retained_log above 10GiB"), vec![Action::Notify]),
        ];
        let replay = replay(Some("20MB/s".parse().unwrap()), &rules, &day());
        let shown: Vec<String> = replay
            .events
            .iter()
            .map(|event| {
                let at = event.at.with_timezone(&Berlin).format("%H:%M:%S");
                format!("{at} {} {}", event.rule.as_deref().unwrap_or("-"), event.what.show())
            })
            .collect();
        assert_eq!(
            shown,
            [
                "00:00:00 office off",
                "00:00:00 behind quiet",
                "00:00:00 caught-up active",
                "00:00:00 busy quiet",
                "00:00:00 full quiet",
                "08:00:00 office active",
                "08:00:00 - limit 5MB/s",
                "09:00:10 caught-up quiet",
                "09:30:10 behind active",
                "09:30:10 behind log",
                "09:30:10 behind notify",
                "10:30:00 behind quiet",
                "11:00:00 caught-up active",
                "11:00:00 caught-up notify",
                "12:00:00 busy active",
                "12:00:00 busy notify",
                "12:00:00 - limit 1MB/s",
                "12:10:00 busy unknown",
                "12:10:00 - limit 5MB/s",
                "12:15:00 busy active",
                "12:15:00 - limit 1MB/s",
                "12:30:00 busy quiet",
                "12:30:00 - limit 5MB/s",
                // Nobody looked from 18:00 on, and the hours of the office had ended.
                "19:00:00 office off",
                "19:00:00 behind quiet",
                "19:00:00 caught-up active",
                "19:00:00 busy quiet",
                "19:00:00 full quiet",
                "19:00:00 - limit 20MB/s",
            ]
        );
        assert_eq!((replay.looks, replay.unseen), (24 * 360, TimeDelta::seconds(3610)));
    }

    #[test]
    fn where_nothing_was_recorded_nothing_happens() {
        let rules = [rule("always", None, Some("cpu below 100%"), vec![Action::Notify])];
        assert_eq!(replay(None, &rules, &[]), Replay::default());
        let at: DateTime<Utc> = "2026-07-01T12:00:00Z".parse().unwrap();
        let unknown = replay(None, &rules, &[Sample::unknown(at)]);
        assert_eq!(unknown.events.len(), 1);
        assert_eq!(unknown.events[0].what, What::State(RuleState::Unknown));
    }
}
