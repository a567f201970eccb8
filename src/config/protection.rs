//! `protection`: what a commit of a database waits for.
//!
//! What always holds: a mode that is accepted is kept; `near-sync` has a bound that was written down, and `sync` a time.

use std::time::Duration;

use farshore_journal::DatabaseName;
use farshore_shipper::reported;
use toml::Spanned;

use super::diagnose::ConfigProblem;
use super::quantity::{ByteCount, Span};
use super::{DatabaseConfig, Durable, EngineKind, Judge, StoreName, document};

/// The longest name that PostgreSQL knows a standby by, in bytes.
/// Source: `NAMEDATALEN`, pg_config_manual.h; `application_name` is cut there.
const LONGEST_STANDBY: usize = 63;

/// How long a commit waits in `sync` unless told otherwise, and what may be said.
const TIMEOUT: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// How a commit is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// A commit waits for nothing; the lag is shown.
    Async,
    /// A commit waits while more log than this is not stored.
    NearSync {
        /// Bytes of log.
        bound: ByteCount,
    },
    /// A commit waits until it is stored, and for so long at most: then a guard lets it go.
    Sync {
        /// How long.
        timeout: Duration,
    },
    /// A commit waits until it is stored.
    Strict,
}

/// What is written of it.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) mode: Option<&'a Spanned<document::Protection>>,
    pub(super) bound: Option<&'a Spanned<ByteCount>>,
    pub(super) timeout: Option<&'a Spanned<Span>>,
}

impl Protection {
    /// What the shipper reports in it.
    pub const fn reported(self) -> reported::Protection {
        match self {
            Self::Async => reported::Protection::Async,
            Self::NearSync { bound } => reported::Protection::Near { bytes: bound.get() },
            Self::Sync { .. } | Self::Strict => reported::Protection::Stored,
        }
    }

    /// Its word in configurations.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::NearSync { .. } => "near-sync",
            Self::Sync { .. } => "sync",
            Self::Strict => "strict",
        }
    }

    /// How long a guard lets commits wait; `None` where there is none to have.
    pub const fn guarded(self) -> Option<Duration> {
        match self {
            Self::Sync { timeout } => Some(timeout),
            Self::Async | Self::NearSync { .. } | Self::Strict => None,
        }
    }
}

impl Durable {
    /// How many of so many stores it asks for.
    pub fn of(self, stores: usize) -> usize {
        match self {
            Self::All => stores,
            Self::Any => 1,
            Self::AtLeast(number) => usize::from(number.get()),
        }
    }
}

/// What a store's stream is called among the primary's standbys, where commits wait for it. Its name says what it reports: one that reports more than is stored must
/// never pass for one that does not, or a guard would take its word for what it is not.
pub fn standby_name(mode: Protection, name: &DatabaseName, store: &StoreName) -> String {
    match mode {
        Protection::NearSync { .. } => format!("farshore near {name}/{store}"),
        Protection::Async | Protection::Sync { .. } | Protection::Strict => {
            format!("farshore {name}/{store}")
        }
    }
}

/// Whether a setting names one of a database's streams.
pub fn names_stream(names: &str, database: &str) -> bool {
    ["", "near "].iter().any(|kind| names.contains(&format!("farshore {kind}{database}/")))
}

/// What the primary's `synchronous_standby_names` says so that a commit waits for as many stores as `durable` asks for.
/// Source: <https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES>.
pub fn synchronous_names(name: &DatabaseName, settings: &DatabaseConfig) -> String {
    names_of(settings.protection, name, &settings.stores, settings.durable)
}

fn names_of(mode: Protection, name: &DatabaseName, stores: &[StoreName], durable: Durable) -> String {
    let names: Vec<String> =
        stores.iter().map(|store| format!("\"{}\"", standby_name(mode, name, store))).collect();
    let names = names.join(", ");
    match durable {
        Durable::All => format!("FIRST {} ({names})", stores.len()),
        Durable::Any => format!("ANY 1 ({names})"),
        Durable::AtLeast(number) => format!("ANY {number} ({names})"),
    }
}

impl Judge<'_> {
    pub(super) fn protection(
        &self,
        name: &DatabaseName,
        engine: EngineKind,
        stores: &[Spanned<StoreName>],
        written: Written<'_>,
    ) -> Result<Protection, ConfigProblem> {
        let Some(mode) = written.mode else { return self.alone(Protection::Async, written) };
        let judged = match mode.get_ref() {
            document::Protection::Async => return self.alone(Protection::Async, written),
            document::Protection::Sync => {
                self.alone(Protection::Strict, Written { timeout: None, ..written })?;
                Protection::Sync { timeout: self.timeout(written.timeout)? }
            }
            document::Protection::NearSync => match written.bound {
                None => {
                    return Err(self
                        .problem(mode.span(), "how much log may be not stored is not said")
                        .hint("protection_bound = \"1MiB\""));
                }
                Some(bound) => self.alone(
                    Protection::NearSync { bound: *bound.get_ref() },
                    Written { bound: None, ..written },
                )?,
            },
            document::Protection::Strict => self.alone(Protection::Strict, written)?,
        };
        if engine == EngineKind::Sqlite {
            return Err(self
                .problem(mode.span(), "no commit of a SQLite database can be made to wait")
                .hint("leave it out: the lag is shown"));
        }
        for store in stores {
            let standby = standby_name(judged, name, store.get_ref());
            if standby.len() > LONGEST_STANDBY {
                let what = format!(
                    "PostgreSQL would know this store's stream as `{standby}`, and cuts names at {LONGEST_STANDBY} bytes"
                );
                return Err(self
                    .problem(store.span(), what)
                    .hint("give the database or the store a shorter name"));
            }
        }
        Ok(judged)
    }

    fn timeout(&self, written: Option<&Spanned<Span>>) -> Result<Duration, ConfigProblem> {
        let Some(written) = written else { return Ok(TIMEOUT) };
        let timeout = written.get_ref().get();
        match (SHORTEST..=LONGEST).contains(&timeout) {
            true => Ok(timeout),
            false => Err(self
                .problem(written.span(), "a commit cannot be let go after that time")
                .hint("write 1s to 1h; it is 10s where nothing is written")),
        }
    }

    /// Without what is for other modes.
    fn alone(&self, mode: Protection, written: Written<'_>) -> Result<Protection, ConfigProblem> {
        if let Some(bound) = written.bound {
            return Err(self.problem(bound.span(), "a bound is for `protection = \"near-sync\"` alone"));
        }
        match written.timeout {
            None => Ok(mode),
            Some(timeout) => Err(self
                .problem(timeout.span(), "how long a commit waits is for `protection = \"sync\"` alone")
                .hint("in \"strict\" and \"near-sync\" it waits as long as it takes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_stores_are_waited_for_as_durable_says() {
        let name: DatabaseName = "orders".parse().unwrap();
        let stores: Vec<StoreName> = ["main", "oslo"].map(|name| name.parse().unwrap()).to_vec();
        let names = |durable| names_of(Protection::Strict, &name, &stores, durable);
        assert_eq!(names(Durable::All), "FIRST 2 (\"farshore orders/main\", \"farshore orders/oslo\")");
        assert_eq!(names(Durable::Any), "ANY 1 (\"farshore orders/main\", \"farshore orders/oslo\")");
        let two = Durable::AtLeast(2.try_into().unwrap());
        assert_eq!(names(two), "ANY 2 (\"farshore orders/main\", \"farshore orders/oslo\")");
        // Who reports more than is stored goes by another name.
        let near = Protection::NearSync { bound: "1MiB".parse().unwrap() };
        let near = names_of(near, &name, &stores, Durable::Any);
        assert_eq!(near, "ANY 1 (\"farshore near orders/main\", \"farshore near orders/oslo\")");
        assert!(names_stream(&near, "orders") && names_stream(&names(Durable::All), "orders"));
        assert!(!names_stream(&near, "rders") && !names_stream("other", "orders"));
    }
}
