//! Which journal a standby gets: pure.
//!
//! The database of a standby's `primary_conninfo` never arrives: its connection names `replication` (`libpqwalreceiver.c`). So it is the user's only one, or `options` names it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use farshore_engines::postgres::serve::Refusal;
use farshore_journal::{DatabaseName, IncarnationId};

use crate::config::quantity::Span;

/// How late a standby may ask to be.
pub const DELAYS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(90 * 86_400);
/// SQLSTATE of a user who may not do what he asks for.
const NOT_ALLOWED: &str = "42501";
/// SQLSTATE of a setting that makes no sense.
const NO_SETTING: &str = "22023";

/// What a standby asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of which database.
    pub database: DatabaseName,
    /// Of which incarnation; `None`: it did not say.
    pub incarnation: Option<IncarnationId>,
    /// How old log is to be when it is sent; `None`: it did not say.
    pub delay: Option<Duration>,
}

/// Reads what `options` asks for, of these databases.
///
/// # Errors
/// What it is refused with.
pub fn asked(options: &str, allowed: &BTreeSet<DatabaseName>) -> Result<Asked, Refusal> {
    let (mut database, mut incarnation, mut delay) = (None, None, None);
    for (name, value) in settings(options) {
        let wrong = || Refusal::new(NO_SETTING, format!("{name} has a value that is none"));
        match name {
            "farshore.database" => {
                database = Some(value.parse::<DatabaseName>().map_err(|_| wrong())?);
            }
            "farshore.incarnation" => {
                incarnation = Some(value.parse::<IncarnationId>().map_err(|_| wrong())?);
            }
            "farshore.apply_delay" => {
                let asked = value.parse::<Span>().map_err(|_| wrong())?.get();
                delay = Some(asked).filter(|asked| DELAYS.contains(asked));
                delay.ok_or_else(wrong)?;
            }
            // Settings of sessions, which mean nothing here.
            _ => {}
        }
    }
    let database = match database {
        Some(database) if allowed.contains(&database) => database,
        // Whether there is such a database is nobody's matter who may not have it.
        Some(database) => {
            let why = format!("this user may not take the journal of \"{database}\"");
            return Err(Refusal::new(NOT_ALLOWED, why));
        }
        None => match allowed.iter().collect::<Vec<_>>().as_slice() {
            [only] => (*only).clone(),
            _ => {
                return Err(Refusal::new(NO_SETTING, "this user may take several journals, and named none")
                    .hint("write options='-c farshore.database=NAME' into primary_conninfo"));
            }
        },
    };
    Ok(Asked { database, incarnation, delay })
}

/// The incarnation that `options` names.
pub fn bound_to(options: &str) -> Option<IncarnationId> {
    let named = settings(options).into_iter().rfind(|(name, _)| *name == "farshore.incarnation");
    named.and_then(|(_, id)| id.parse().ok())
}

/// The settings in a text as `options` has it: `-c name=value`, `-cname=value`, `--name=value`.
///
/// Source: <https://www.postgresql.org/docs/current/app-postgres.html>; a backslash that quotes a space has no place in what is read here.
fn settings(options: &str) -> Vec<(&str, &str)> {
    let mut words = options.split_ascii_whitespace();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(rest) => Some(rest),
            None => word.strip_prefix("--"),
        };
        found.extend(setting.and_then(|setting| setting.split_once('=')));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(names: &[&str]) -> BTreeSet<DatabaseName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_standby_gets_the_only_journal_of_its_user_or_the_one_that_it_names_and_never_anothers() {
        let (one, two) = (allowed(&["orders"]), allowed(&["orders", "billing"]));
        let named = |options: &str, of: &BTreeSet<DatabaseName>| {
            asked(options, of).map(|asked| asked.database.to_string()).map_err(|why| why.code)
        };
        assert_eq!(named("", &one), Ok("orders".to_owned()));
        assert_eq!(named("-c farshore.database=orders", &one), Ok("orders".to_owned()));
        assert_eq!(named("", &two), Err(NO_SETTING));
        for options in [
            "-c farshore.database=billing",
            "-cfarshore.database=billing",
            "--farshore.database=billing",
            "-c work_mem=1MB -c farshore.database=billing",
            "-c farshore.database=orders -c farshore.database=billing",
        ] {
            assert_eq!(named(options, &two), Ok("billing".to_owned()), "{options}");
        }
        assert_eq!(named("-c farshore.database=secret", &two), Err(NOT_ALLOWED));
        assert_eq!(named("-c farshore.database=NO/NAME", &two), Err(NO_SETTING));
        assert_eq!(named("-c", &one), Ok("orders".to_owned()));
        let id = "0123456789abcdef0123456789abcdef";
        let found = asked(&format!("-c farshore.incarnation={id}"), &one).unwrap();
        assert_eq!(found.incarnation.map(|id| id.to_string()), Some(id.to_owned()));
        let delayed = asked("-c farshore.apply_delay=4h", &one).unwrap().delay;
        assert_eq!((delayed, found.delay), (Some(Duration::from_secs(4 * 3600)), None));
        // One that cannot be read is no reason to send at once.
        for none in ["soon", "1ms", "100d", "200000000d"] {
            assert_eq!(named(&format!("-c farshore.apply_delay={none}"), &one), Err(NO_SETTING), "{none}");
        }
    }
}
