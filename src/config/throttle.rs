//! How fast a database's bytes may go to its stores: `bandwidth`, and the rules of `[[databases.NAME.throttles]]`.
//!
//! What always holds: a limit that is accepted lets a chunk of log pass within about a second; a rule has a name of its own, something that
//! decides when it is active, and something to do; what is not built is refused.

use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;
use farshore_shipper::throttle::valve::LEAST_RATE;
use toml::Spanned;

use super::diagnose::ConfigProblem;
use super::quantity::Rate;
use super::{DatabaseConfig, Judge, document};
use crate::throttles::rule::{Action, MOST_ACTIONS, Rule, Test};
use crate::throttles::window::{DaySet, Hours, Window};

/// Most rules of a database: all are judged at each look.
const MOST_RULES: usize = 64;
/// The highest limit: more than any machine sends, and less than overflows anywhere.
const MOST_RATE: u64 = 1_000_000_000_000;
/// How long a program may take unless told otherwise, and at most.
const RUN: Duration = Duration::from_secs(30);
const RUN_MOST: Duration = Duration::from_secs(300);
/// Characters of what is logged.
const LONGEST_WORDS: usize = 200;

impl DatabaseConfig {
    /// The lowest limit that may ever hold; `None`: there is none.
    pub fn lowest_bandwidth(&self) -> Option<Rate> {
        self.throttles.iter().filter_map(Rule::bandwidth).chain(self.bandwidth).min()
    }

    /// Whether a rule may extend its spool.
    pub fn extends_spool(&self) -> bool {
        self.throttles.iter().any(|rule| rule.actions.contains(&Action::ExtendSpool))
    }
}

impl Judge<'_> {
    pub(super) fn bandwidth(&self, written: Option<&Spanned<Rate>>) -> Result<Option<Rate>, ConfigProblem> {
        written.map(|rate| self.rate(rate)).transpose()
    }

    fn rate(&self, rate: &Spanned<Rate>) -> Result<Rate, ConfigProblem> {
        if rate.get_ref().get() > MOST_RATE {
            return Err(self
                .problem(rate.span(), format!("a limit is {} at most", Rate::new(MOST_RATE)))
                .hint("without a limit leave it out"));
        }
        match rate.get_ref().get() < LEAST_RATE {
            true => Err(self
                .problem(rate.span(), format!("a database is given {} at least", Rate::new(LEAST_RATE)))
                .hint("with less a flush is on its way for seconds; to stop shipping for a while, stop the service")),
            false => Ok(*rate.get_ref()),
        }
    }

    pub(super) fn throttles(
        &self,
        written: &[Spanned<document::Throttle>],
    ) -> Result<Vec<Rule>, ConfigProblem> {
        let mut rules: Vec<Rule> = Vec::new();
        for throttle in written {
            let name = &throttle.get_ref().name;
            if rules.len() == MOST_RULES {
                return Err(
                    self.problem(name.span(), format!("a database has {MOST_RULES} throttles at most"))
                );
            }
            let rule = self.throttle(throttle.get_ref())?;
            if rules.iter().any(|earlier| earlier.name == rule.name) {
                return Err(self.problem(name.span(), format!("two throttles are named `{}`", rule.name)));
            }
            rules.push(rule);
        }
        Ok(rules)
    }

    fn throttle(&self, written: &document::Throttle) -> Result<Rule, ConfigProblem> {
        let name = &written.name;
        // It becomes a label, a topic and an argument.
        if name.get_ref().parse::<farshore_journal::DatabaseName>().is_err() {
            return Err(self.problem(name.span(), "not a throttle's name (1 to 63 of a-z, 0-9, _ and -)"));
        }
        let window = self.window(written)?;
        let test = written.test.as_ref().map(|test| {
            Test::parse(test.get_ref()).map_err(|(why, hint)| {
                let problem = self.problem(test.span(), why);
                match hint {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                }
            })
        });
        let test = test.transpose()?;
        if test.is_none() && written.when.is_none() && written.days.is_none() {
            return Err(self
                .problem(name.span(), "nothing says when this throttle is active")
                .hint("test = \"ship_lag above 30s\", or when = \"08:00-18:00\"; a limit that always holds is the database's `bandwidth`"));
        }
        let actions = self.actions(&written.actions, test.as_ref())?;
        Ok(Rule { name: name.get_ref().clone(), window, test, actions })
    }

    fn window(&self, written: &document::Throttle) -> Result<Window, ConfigProblem> {
        let days = written.days.as_ref().map(|days| {
            let hint = "days = \"mon-fri\", or \"sat,sun\"";
            DaySet::parse(days.get_ref()).map_err(|why| self.problem(days.span(), why).hint(hint))
        });
        let hours = written.when.as_ref().map(|when| {
            let hint = "when = \"08:00-18:00\"; \"22:00-06:00\" goes over midnight";
            Hours::parse(when.get_ref()).map_err(|why| self.problem(when.span(), why).hint(hint))
        });
        let zone = written.zone.as_ref().map(|zone| {
            zone.get_ref().parse::<Tz>().map_err(|_| {
                self.problem(zone.span(), "not a time zone").hint("zone = \"Europe/Berlin\"; UTC without it")
            })
        });
        Ok(Window {
            days: days.transpose()?.unwrap_or(DaySet::ALL),
            hours: hours.transpose()?,
            zone: zone.transpose()?.unwrap_or_default(),
        })
    }

    fn actions(
        &self,
        written: &Spanned<Vec<Spanned<document::ThrottleAction>>>,
        test: Option<&Test>,
    ) -> Result<Vec<Action>, ConfigProblem> {
        let all = written.get_ref();
        if all.is_empty() {
            return Err(self
                .problem(written.span(), "this throttle does nothing")
                .hint("actions = [{ bandwidth = \"5MB/s\" }, { notify = true }]"));
        }
        if let Some(beyond) = all.get(MOST_ACTIONS) {
            let what =
                format!("a throttle has {MOST_ACTIONS} actions at most, and this one has {}", all.len());
            return Err(self.problem(beyond.span(), what).hint("write a second throttle with the same test"));
        }
        all.iter().map(|action| self.action(action, test)).collect()
    }

    fn action(
        &self,
        written: &Spanned<document::ThrottleAction>,
        test: Option<&Test>,
    ) -> Result<Action, ConfigProblem> {
        let span = written.span();
        let written = written.get_ref();
        if let Some(release) = &written.release_spool {
            return Err(self
                .problem(release.span(), "a spool is not released by an action of its own")
                .hint("its extensions are in use while a throttle with extend_spool = true is active, and are left when it is not"));
        }
        let named = [
            written.bandwidth.is_some(),
            written.log.is_some(),
            written.notify.is_some(),
            written.run.is_some(),
            written.extend_spool.is_some(),
        ];
        if named.into_iter().filter(|named| *named).count() != 1 {
            return Err(self.problem(span, "an action is one thing").hint(
                "one of bandwidth = \"5MB/s\", extend_spool = true, log = \"words\", notify = true, run = [\"/path/to/program\"]",
            ));
        }
        if let (Some(timeout), None) = (&written.timeout, &written.run) {
            return Err(self.problem(timeout.span(), "`timeout` is for `run` alone"));
        }
        let crossing = test.filter(|test| test.operator.is_transition());
        if let Some(rate) = &written.bandwidth {
            if let Some(test) = crossing {
                return Err(self
                    .problem(rate.span(), format!("a crossing lasts no time, and a limit does: `{test}`"))
                    .hint("write `above` or `below`: the limit holds for as long as it is so"));
            }
            return self.rate(rate).map(Action::Bandwidth);
        }
        if let Some(extend) = &written.extend_spool {
            return match (extend.get_ref(), crossing) {
                (true, None) => Ok(Action::ExtendSpool),
                (true, Some(test)) => Err(self
                    .problem(
                        extend.span(),
                        format!("a crossing lasts no time, and an extension does: `{test}`"),
                    )
                    .hint("write `above`: the extensions are in use for as long as it is so")),
                (false, _) => Err(self.problem(extend.span(), "this does nothing").hint("leave it out")),
            };
        }
        if let Some(words) = &written.log {
            let plain = !words.get_ref().is_empty()
                && words.get_ref().chars().count() <= LONGEST_WORDS
                && !words.get_ref().chars().any(char::is_control);
            return match plain {
                true => Ok(Action::Log(words.get_ref().clone())),
                false => Err(self.problem(
                    words.span(),
                    format!("1 to {LONGEST_WORDS} characters on one line are logged"),
                )),
            };
        }
        if let Some(notify) = &written.notify {
            return match notify.get_ref() {
                true => Ok(Action::Notify),
                false => Err(self.problem(notify.span(), "this does nothing").hint("leave it out")),
            };
        }
        self.run(written, span)
    }

    fn run(
        &self,
        written: &document::ThrottleAction,
        span: std::ops::Range<usize>,
    ) -> Result<Action, ConfigProblem> {
        let argv = written.run.as_ref().map(|run| (run.span(), run.get_ref().as_slice()));
        let (span, argv) = argv.unwrap_or((span, &[]));
        let program = argv.first().map(PathBuf::from).filter(|program| program.is_absolute());
        let Some(program) = program.filter(|_| !argv.iter().any(|argument| argument.contains('\0'))) else {
            return Err(self
                .problem(span, "no program is named by its whole path")
                .hint("run = [\"/usr/local/bin/page\", \"orders\"]; no shell is between: its words are taken as they are"));
        };
        let timeout = match &written.timeout {
            None => RUN,
            Some(timeout) if timeout.get_ref().get() <= RUN_MOST => timeout.get_ref().get(),
            Some(timeout) => {
                return Err(self
                    .problem(timeout.span(), format!("a program is given {} s at most", RUN_MOST.as_secs()))
                    .hint("let it start what takes longer, and end"));
            }
        };
        Ok(Action::Run { program, arguments: argv[1..].to_vec(), timeout })
    }
}
