//! A rule: when, what it tests, what it does.
//!
//! What always holds: a test compares one measured figure with one threshold of its own unit; a rule that sets a limit tests for
//! something that lasts.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use farshore_catalog::throttle::sample::Sample;

use super::window::Window;
use crate::config::quantity::{ByteCount, Rate, Span};

/// Most actions of a rule.
pub const MOST_ACTIONS: usize = 16;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Bytes a second that go to the database's stores.
    ShipRate,
    /// How busy the machine's processors are.
    Cpu,
    /// The age of the oldest commit that is not stored.
    ShipLag,
    /// Bytes of the source's log that are not stored.
    ShipLagBytes,
    /// Bytes of log that the source keeps for us.
    RetainedLog,
    /// How full the spool is, of the limit of its own directory: more than all of it while it is extended.
    Spool,
}

impl Metric {
    const ALL: [Self; 6] =
        [Self::ShipRate, Self::Cpu, Self::ShipLag, Self::ShipLagBytes, Self::RetainedLog, Self::Spool];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ShipRate => "ship_rate",
            Self::Cpu => "cpu",
            Self::ShipLag => "ship_lag",
            Self::ShipLagBytes => "ship_lag_bytes",
            Self::RetainedLog => "retained_log",
            Self::Spool => "spool",
        }
    }

    /// What was measured of it.
    pub const fn of(self, sample: &Sample) -> Option<u64> {
        match self {
            Self::ShipRate => sample.ship_rate,
            Self::Cpu => sample.cpu,
            Self::ShipLag => sample.ship_lag,
            Self::ShipLagBytes => sample.ship_lag_bytes,
            Self::RetainedLog => sample.retained_log,
            Self::Spool => sample.spool,
        }
    }

    /// A threshold of it.
    fn threshold(self, text: &str) -> Result<u64, String> {
        let millis = |span: Span| u64::try_from(span.get().as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::ShipRate => text.parse().map(Rate::get).map_err(|why| why.to_string()),
            Self::ShipLag => text.parse().map(millis).map_err(|why| why.to_string()),
            Self::ShipLagBytes | Self::RetainedLog => {
                text.parse().map(ByteCount::get).map_err(|why| why.to_string())
            }
            Self::Cpu | Self::Spool => text
                .strip_suffix('%')
                .and_then(|number| number.parse::<u64>().ok())
                .filter(|percent| (1..=100).contains(percent))
                .map(|percent| percent * 10)
                .ok_or_else(|| {
                    "not a share; write a whole number from 1 to 100 and %, as in \"80%\"".to_owned()
                }),
        }
    }

    /// A value of it, for people.
    pub fn show(self, value: u64) -> String {
        match self {
            Self::ShipRate => Rate::new(value).to_string(),
            Self::Cpu | Self::Spool => format!("{}.{}%", value / 10, value % 10),
            Self::ShipLag => format!("{}.{}s", value / 1000, value % 1000 / 100),
            Self::ShipLagBytes | Self::RetainedLog => ByteCount::new(value).to_string(),
        }
    }
}

/// How a figure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// It is larger: for as long as it is.
    Above,
    /// It is smaller: for as long as it is.
    Below,
    /// It becomes larger: once each time.
    RisesAbove,
    /// It becomes smaller: once each time.
    FallsBelow,
}

impl Operator {
    const ALL: [Self; 4] = [Self::RisesAbove, Self::FallsBelow, Self::Above, Self::Below];

    const fn words(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
            Self::RisesAbove => "rises above",
            Self::FallsBelow => "falls below",
        }
    }

    /// Whether it asks for a crossing, which lasts no time.
    pub const fn is_transition(self) -> bool {
        matches!(self, Self::RisesAbove | Self::FallsBelow)
    }
}

/// What a rule tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// What.
    pub metric: Metric,
    /// How.
    pub operator: Operator,
    threshold: u64,
}

impl Test {
    /// Reads `ship_lag above 30s` or `retained_log rises above 10GiB`.
    ///
    /// # Errors
    /// What is wrong, and what may be meant.
    pub fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        let form = || {
            Some("METRIC above|below|rises above|falls below VALUE, as in \"ship_lag above 30s\"".to_owned())
        };
        let (word, rest) = text.split_once(' ').ok_or_else(|| ("not a test".to_owned(), form()))?;
        let Some(metric) = Metric::ALL.into_iter().find(|metric| metric.word() == word) else {
            let known: Vec<&str> = Metric::ALL.into_iter().map(Metric::word).collect();
            let hint = crate::config::diagnose::nearest(word, &known).map_or_else(
                || format!("one of {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err((format!("`{word}` is not measured"), Some(hint)));
        };
        let found = Operator::ALL
            .into_iter()
            .find_map(|operator| Some((operator, rest.strip_prefix(operator.words())?.strip_prefix(' ')?)));
        let (operator, value) = found.ok_or_else(|| ("not a test".to_owned(), form()))?;
        let threshold = metric.threshold(value).map_err(|why| (why, None))?;
        Ok(Self { metric, operator, threshold })
    }

    /// Whether a figure is past the threshold.
    pub const fn is_past(&self, value: u64) -> bool {
        match self.operator {
            Operator::Above | Operator::RisesAbove => value > self.threshold,
            Operator::Below | Operator::FallsBelow => value < self.threshold,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.metric.word(), self.operator.words(), self.metric.show(self.threshold))
    }
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// No more than so much goes to the database's stores, while the rule is active.
    Bandwidth(Rate),
    /// It is written to the service's log, with these words.
    Log(String),
    /// The spool's further directories are in use, while the rule is active.
    ExtendSpool,
    /// Those who are notified of trouble are told of it.
    Notify,
    /// A program is run.
    Run {
        /// The program's path.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
}

impl Action {
    /// Whether it holds while the rule is active, and is not done once.
    pub const fn lasts(&self) -> bool {
        matches!(self, Self::Bandwidth(_) | Self::ExtendSpool)
    }

    /// In a word or two, for people: what a program is given is not shown.
    pub fn show(&self) -> String {
        match self {
            Self::Bandwidth(rate) => format!("bandwidth {rate}"),
            Self::ExtendSpool => "extend_spool".to_owned(),
            Self::Log(_) => "log".to_owned(),
            Self::Notify => "notify".to_owned(),
            Self::Run { program, .. } => format!("run {}", program.display()),
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, its database's only one of that name.
    pub name: String,
    /// When it holds.
    pub window: Window,
    /// What it tests; `None`: nothing but the time.
    pub test: Option<Test>,
    /// What it does, at least one thing.
    pub actions: Vec<Action>,
}

impl Rule {
    /// The limit that it sets while it is active: the lowest that it names.
    pub fn bandwidth(&self) -> Option<Rate> {
        let limit = |action: &Action| if let Action::Bandwidth(rate) = action { Some(*rate) } else { None };
        self.actions.iter().filter_map(limit).min()
    }

    /// Whether people are told of it.
    pub fn notifies(&self) -> bool {
        self.actions.contains(&Action::Notify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_a_figure_an_operator_and_a_threshold_of_its_unit() {
        for (text, threshold, shown) in [
            ("ship_rate above 5MB/s", 5_000_000, "ship_rate above 5MB/s"),
            ("cpu below 80%", 800, "cpu below 80.0%"),
            ("ship_lag rises above 90s", 90_000, "ship_lag rises above 90.0s"),
            ("ship_lag_bytes falls below 1GiB", 1 << 30, "ship_lag_bytes falls below 1 GiB"),
            ("retained_log above 10GiB", 10 << 30, "retained_log above 10 GiB"),
            ("spool above 80%", 800, "spool above 80.0%"),
        ] {
            let test = Test::parse(text).unwrap();
            assert_eq!((test.threshold, test.to_string().as_str()), (threshold, shown));
        }
        for (text, says) in [
            ("", "not a test"),
            ("ship_lag", "not a test"),
            ("ship_lag > 30s", "not a test"),
            ("ship_lag above", "not a test"),
            ("ship_lag above 30", "not a time span"),
            ("ship_lag above 5MB/s", "not a time span"),
            ("ship_rate above 5MB", "not a rate"),
            ("retained_log above 10GB", "not a byte count"),
            ("cpu above 101%", "not a share"),
            ("cpu above 0.8", "not a share"),
            ("shiplag above 30s", "is not measured"),
            ("spool_use above 80%", "is not measured"),
            ("spool above 8GiB", "not a share"),
        ] {
            let (why, _) = Test::parse(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn a_threshold_itself_is_neither_above_nor_below() {
        let past = |text, value| Test::parse(text).unwrap().is_past(value);
        for (text, below, at, above) in [
            ("cpu above 50%", false, false, true),
            ("cpu rises above 50%", false, false, true),
            ("cpu below 50%", true, false, false),
            ("cpu falls below 50%", true, false, false),
        ] {
            assert_eq!((past(text, 499), past(text, 500), past(text, 501)), (below, at, above), "{text}");
        }
    }
}
