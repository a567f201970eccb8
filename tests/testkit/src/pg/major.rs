//! PostgreSQL's major versions, and where each one's programs are.

use std::fmt;
use std::path::PathBuf;

use crate::tools;

/// A supported major version of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the name says all")]
pub enum Major {
    V14,
    V15,
    V16,
    V17,
    V18,
}

impl Major {
    /// Every supported major, oldest first.
    #[must_use]
    pub const fn all() -> [Self; 5] {
        [Self::V14, Self::V15, Self::V16, Self::V17, Self::V18]
    }

    /// The number users know it by.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    /// The folder of its server programs: `initdb`, `pg_ctl`, `postgres`.
    ///
    /// # Panics
    /// If `tests/install` has not run.
    #[must_use]
    pub fn bin(self) -> PathBuf {
        tools::need(&format!("FARSHORE_PG{self}_BIN"))
    }

    /// The folder of its complete client programs (`pg_waldump`, `pg_verifybackup`, `pg_amcheck`, ...), for the majors
    /// that have them: 15, 16 and 18. `psql` and `pgbench` of 15 serve all; see [`Major::clients`].
    ///
    /// # Panics
    /// If `tests/install` has not run.
    #[must_use]
    pub fn tools(self) -> Option<PathBuf> {
        let key = format!("FARSHORE_PG{self}_TOOLS");
        tools::find(&key).map(|_| tools::need(&key))
    }

    /// The folder of `psql` and `pgbench` that drive every major.
    ///
    /// # Panics
    /// If `tests/install` has not run.
    #[must_use]
    pub fn clients() -> PathBuf {
        tools::need("FARSHORE_PG15_TOOLS")
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}
