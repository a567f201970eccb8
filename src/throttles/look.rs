//! One look at a database: what its own process knows of it now, without the catalog.
//!
//! What always holds: what is not known is `None`: of a source that is silent, and of a rate before there was a look to reckon it from.

use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::lag;
use farshore_catalog::throttle::sample::Sample;
use farshore_shipper::progress::{PipelineState, Progress};
use farshore_shipper::recorder::{HEARTBEAT, PrimaryFacts};
use farshore_shipper::standing::standing;

/// How a rate is reckoned: what was counted at the look before.
#[derive(Debug, Default)]
pub struct RateOf(Option<u64>);

impl RateOf {
    /// What was counted since the look before, which is so long ago, a second.
    pub fn look(&mut self, counted: u64, since: Option<Duration>) -> Option<u64> {
        let grown = self.0.replace(counted).and_then(|before| counted.checked_sub(before));
        let millis = since.map(|since| since.as_millis()).filter(|millis| *millis > 0)?;
        u64::try_from(u128::from(grown?) * 1000 / millis).ok()
    }
}

/// How busy the machine's processors are.
#[derive(Debug, Default)]
pub struct Cpu(Option<[u64; 2]>);

impl Cpu {
    /// In thousandths, since the look before; `None` where the machine does not say.
    pub fn look(&mut self) -> Option<u64> {
        let now = std::fs::read_to_string("/proc/stat").ok().as_deref().and_then(ticks);
        let before = std::mem::replace(&mut self.0, now);
        share(before?, now?)
    }
}

/// Ticks in all, and those of them in which processors were busy.
///
/// Source: proc(5), `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice; guests' are in user and nice too.
fn ticks(stat: &str) -> Option<[u64; 2]> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|number| number.parse().ok()).collect();
    let idle = ticks.get(3)?.checked_add(*ticks.get(4)?)?;
    let all = ticks.iter().try_fold(0_u64, |sum, ticks| sum.checked_add(*ticks))?;
    Some([all, all.checked_sub(idle)?])
}

fn share(before: [u64; 2], now: [u64; 2]) -> Option<u64> {
    let [all, busy] = [now[0].checked_sub(before[0])?, now[1].checked_sub(before[1])?];
    (busy * 1000).checked_div(all).map(|share| share.min(1000))
}

/// What is known of a database now; `rate` and `cpu` were reckoned from counters.
pub fn look(
    now: DateTime<Utc>,
    (targets, required): (&[Progress], usize),
    primary: &PrimaryFacts,
    (rate, cpu): (Option<u64>, Option<u64>),
) -> Sample {
    let stands = standing(targets, required);
    let stopped = matches!(stands.state, PipelineState::Fenced | PipelineState::Failed);
    let silent = stopped || lag::is_silent(now, stands.last_contact, HEARTBEAT);
    let stored = stands.stored.map(|position| position.offset);
    let source = stands.source_end.filter(|_| !silent);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, an age
    let age = lag::lag_seconds(now, silent, source, stored, stands.oldest_unstored_commit)
        .map(|lag| (lag * 1000.0).round() as u64);
    Sample {
        ship_rate: rate,
        cpu,
        ship_lag: age,
        ship_lag_bytes: lag::lag_bytes(source, stored),
        retained_log: primary.retained_bytes.filter(|_| !silent),
        ..Sample::unknown(now)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use farshore_journal::{Offset, Position, Timeline};

    use super::*;

    #[test]
    fn a_rate_is_known_from_the_second_look_on() {
        let mut rate = RateOf::default();
        let ten = Some(Duration::from_secs(10));
        assert_eq!(rate.look(1000, None), None);
        assert_eq!(rate.look(51_000, ten), Some(5000));
        assert_eq!(rate.look(51_000, ten), Some(0));
        assert_eq!(rate.look(0, ten), None, "counted anew");
    }

    #[test]
    fn waiting_for_a_disk_is_not_being_busy() {
        let before = ticks("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        let now = ticks("cpu  130 0 130 720 120 0 0 0 0 0\n").unwrap();
        assert_eq!(share(before, now), Some(600));
        assert_eq!(share(now, now), None, "no time passed");
        for wrong in ["", "cpu", "cpu  1 2 3", "intr 1 2 3 4 5"] {
            assert_eq!(ticks(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn of_a_silent_source_nothing_is_known_but_the_age_of_what_is_known_to_wait() {
        let now: DateTime<Utc> = "2026-07-01T12:00:00Z".parse().unwrap();
        let at = |offset| Some(Position::new(Timeline::new(1), Offset::new(offset)));
        let primary = PrimaryFacts { retained_bytes: Some(7), ..PrimaryFacts::default() };
        let target = |heard: i64, oldest: Option<i64>| Progress {
            state: PipelineState::Connected,
            received: at(100),
            stored: at(60),
            source_end: Some(Offset::new(100)),
            last_contact: Some(now - TimeDelta::seconds(heard)),
            oldest_unstored_commit: oldest.map(|ago| now - TimeDelta::seconds(ago)),
            ..Progress::default()
        };
        let seen = |heard, oldest| {
            let look = look(now, (&[target(heard, oldest)], 1), &primary, (Some(1), None));
            (look.ship_lag, look.ship_lag_bytes, look.retained_log)
        };
        assert_eq!(seen(0, Some(5)), (Some(5000), Some(40), Some(7)));
        assert_eq!(seen(60, Some(5)), (Some(5000), None, None));
        assert_eq!(seen(60, None), (None, None, None));
        let nobody = look(now, (&[], 1), &PrimaryFacts::default(), (None, Some(3)));
        assert_eq!(nobody, Sample { cpu: Some(3), ..Sample::unknown(now) });
    }
}
