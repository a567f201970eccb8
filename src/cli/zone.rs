//! `--tz`: the zone that people are shown times in, and in which they write one without an offset.
//!
//! What always holds: a zone is named or it is UTC, and is never taken from the machine; JSON is in UTC always, and so are messages and
//! logs. Without `--tz` a time without an offset is refused.

use std::ffi::{OsStr, OsString};
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use clap::Parser;

use super::Cli;
use super::time::without_a_place;

/// Flags that take a moment.
const MOMENTS: [&str; 2] = ["--at", "--around"];
const FLAG: &str = "--tz";

/// The zone of tables and of what is said to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(Tz);

impl Zone {
    /// Universal time.
    pub const UTC: Self = Self(Tz::UTC);

    /// The zone that was asked for, or UTC.
    pub fn of(asked: Option<Tz>) -> Self {
        asked.map_or(Self::UTC, Self)
    }

    /// A time with its offset; `Z` where that is none.
    pub fn show(self, time: DateTime<Utc>, digits: SecondsFormat) -> String {
        time.with_timezone(&self.0).to_rfc3339_opts(digits, true)
    }

    /// As [`show`](Self::show), of a time that was written down by somebody: as it stands where it is none.
    pub fn show_written(self, time: &str) -> String {
        time.parse::<DateTime<Utc>>()
            .map_or_else(|_| time.to_owned(), |time| self.show(time, SecondsFormat::AutoSi))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Cli {
    /// The line's meaning: a time that names no place is one of the zone that the line names.
    ///
    /// # Errors
    /// clap's, for a line that means nothing, and for help and version.
    pub fn from_line(line: Vec<OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(with_places(line))
    }
}

/// A line whose moments all name a place, where it has a `--tz`.
fn with_places(mut line: Vec<OsString>) -> Vec<OsString> {
    let end = line.iter().position(|word| word == "--").unwrap_or(line.len());
    let Some(zone) = value_of(&line[..end], FLAG) else { return line };
    for at in 0..end {
        let is_value = at
            .checked_sub(1)
            .and_then(|before| line[before].to_str())
            .is_some_and(|flag| MOMENTS.contains(&flag));
        let Some(word) = line[at].to_str() else { continue };
        let joined = MOMENTS.iter().find_map(|flag| word.strip_prefix(flag)?.strip_prefix('='));
        let moment = if is_value { Some(word) } else { joined };
        if moment.is_some_and(without_a_place) {
            line[at] = OsString::from(format!("{word}[{zone}]"));
        }
    }
    line
}

/// What a flag was given on a line, as the next word or behind an equals sign; the last one where there are several.
fn value_of(line: &[OsString], flag: &str) -> Option<String> {
    let apart =
        line.windows(2).filter(|pair| pair[0] == OsStr::new(flag)).filter_map(|pair| pair[1].to_str());
    let joined = line.iter().filter_map(|word| word.to_str()?.strip_prefix(flag)?.strip_prefix('='));
    apart.chain(joined).last().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    fn at(line: &[&str]) -> Result<String, String> {
        let line = line.iter().map(OsString::from).collect();
        match Cli::from_line(line).map_err(|why| why.to_string())?.command {
            Command::Restore(args) => Ok(args.at.unwrap().utc().to_rfc3339()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_time_without_an_offset_is_one_of_the_zone_that_the_line_names_and_else_refused() {
        let restore = ["farshore", "restore", "orders", "--to", "x"];
        let local = "2026-11-26 18:45:22";
        for line in [
            &["--tz", "Europe/Berlin", "--at", local][..],
            &["--at", local, "--tz", "Europe/Berlin"],
            &["--tz=Europe/Berlin", "--at=2026-11-26 18:45:22"],
        ] {
            assert_eq!(
                at(&[&restore, line].concat()).as_deref(),
                Ok("2026-11-26T17:45:22+00:00"),
                "{line:?}"
            );
        }
        let other = at(&[&restore[..], &["--tz", "Europe/Berlin", "--at", "2026-11-26T18:45:22Z"]].concat());
        assert_eq!(other.as_deref(), Ok("2026-11-26T18:45:22+00:00"));
        assert!(at(&[&restore[..], &["--at", local]].concat()).unwrap_err().contains("time has no offset"));
        // What stands behind `--` is no flag.
        let name = ["farshore", "restore", "--to", "x", "--at", local, "--", "--tz=Europe/Berlin"];
        assert!(at(&name).is_err());
    }

    #[test]
    fn a_local_time_that_happened_twice_or_never_in_the_named_zone_is_refused_with_both_readings() {
        for (local, readings) in [
            ("2026-10-25 02:30", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]),
            ("2026-03-29 02:30", ["2026-03-29T02:30:00+02:00", "2026-03-29T02:30:00+01:00"]),
        ] {
            let said =
                at(&["farshore", "restore", "orders", "--to", "x", "--tz", "Europe/Berlin", "--at", local])
                    .unwrap_err();
            assert!(readings.iter().all(|reading| said.contains(reading)), "{said}");
        }
    }

    #[test]
    fn a_time_is_shown_with_its_offset_in_the_zone() {
        let time = "2026-07-01T12:00:00.5Z".parse().unwrap();
        let berlin = Zone::of(Some(Tz::Europe__Berlin));
        assert_eq!(berlin.show(time, SecondsFormat::Millis), "2026-07-01T14:00:00.500+02:00");
        assert_eq!(Zone::of(None).show(time, SecondsFormat::Millis), "2026-07-01T12:00:00.500Z");
        assert_eq!(berlin.show_written("2026-01-01T12:00:00+00:00"), "2026-01-01T13:00:00+01:00");
        assert_eq!(berlin.show_written("an unknown time"), "an unknown time");
        assert_eq!(berlin.to_string(), "Europe/Berlin");
    }
}
