//! `protection`: what a commit of a database waits for.
//!
//! What always holds: a mode that is accepted is kept; `near-sync` has a bound that was written down.

use farshore_journal::DatabaseName;
use farshore_shipper::reported;
use toml::Spanned;

use super::diagnose::ConfigProblem;
use super::quantity::ByteCount;
use super::{Durable, EngineKind, Judge, StoreName, document};

/// The longest name that PostgreSQL knows a standby by, in bytes.
/// Source: `NAMEDATALEN`, pg_config_manual.h; `application_name` is cut there.
const LONGEST_STANDBY: usize = 63;

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
    /// A commit waits until it is stored.
    Strict,
}

impl Protection {
    /// What the shipper reports in it.
    pub const fn reported(self) -> reported::Protection {
        match self {
            Self::Async => reported::Protection::Async,
            Self::NearSync { bound } => reported::Protection::Near { bytes: bound.get() },
            Self::Strict => reported::Protection::Stored,
        }
    }

    /// Its word in configurations.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::NearSync { .. } => "near-sync",
            Self::Strict => "strict",
        }
    }
}

/// What a store's stream is called among the primary's standbys, where commits wait for it.
pub fn standby_name(name: &DatabaseName, store: &StoreName) -> String {
    format!("farshore {name}/{store}")
}

/// What the primary's `synchronous_standby_names` says so that a commit waits for as many stores as `durable` asks for.
/// Source: <https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES>.
pub fn synchronous_names(name: &DatabaseName, stores: &[StoreName], durable: Durable) -> String {
    let names: Vec<String> =
        stores.iter().map(|store| format!("\"{}\"", standby_name(name, store))).collect();
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
        written: (Option<&Spanned<document::Protection>>, Option<&Spanned<ByteCount>>),
    ) -> Result<Protection, ConfigProblem> {
        let (mode, bound) = written;
        let Some(mode) = mode else { return self.without_bound(Protection::Async, bound) };
        let judged = match mode.get_ref() {
            document::Protection::Async => return self.without_bound(Protection::Async, bound),
            document::Protection::Sync => {
                return Err(self.problem(mode.span(), "this protection mode is not built yet").hint(
                    "`sync` lets commits go unprotected when no store answers, and needs a guard for that; \"strict\" lets them wait",
                ));
            }
            document::Protection::NearSync => match bound {
                None => {
                    return Err(self
                        .problem(mode.span(), "how much log may be not stored is not said")
                        .hint("protection_bound = \"1MiB\""));
                }
                Some(bound) => Protection::NearSync { bound: *bound.get_ref() },
            },
            document::Protection::Strict => self.without_bound(Protection::Strict, bound)?,
        };
        if engine == EngineKind::Sqlite {
            return Err(self
                .problem(mode.span(), "no commit of a SQLite database can be made to wait")
                .hint("leave it out: the lag is shown"));
        }
        for store in stores {
            let standby = standby_name(name, store.get_ref());
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

    fn without_bound(
        &self,
        mode: Protection,
        bound: Option<&Spanned<ByteCount>>,
    ) -> Result<Protection, ConfigProblem> {
        match bound {
            None => Ok(mode),
            Some(bound) => {
                Err(self.problem(bound.span(), "a bound is for `protection = \"near-sync\"` alone"))
            }
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
        let names = |durable| synchronous_names(&name, &stores, durable);
        assert_eq!(names(Durable::All), "FIRST 2 (\"farshore orders/main\", \"farshore orders/oslo\")");
        assert_eq!(names(Durable::Any), "ANY 1 (\"farshore orders/main\", \"farshore orders/oslo\")");
        let two = Durable::AtLeast(2.try_into().unwrap());
        assert_eq!(names(two), "ANY 2 (\"farshore orders/main\", \"farshore orders/oslo\")");
    }
}
