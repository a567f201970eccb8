//! A job's name, what it is of, and how it was asked for.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Letters of a job's name: digits and letters that are not taken for each other.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// How many of them: fifty bits, so that a name can be typed, and two jobs of one catalog do not meet.
const LENGTH: usize = 10;

/// A job's name: `jb-` and ten letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId([u8; LENGTH]);

impl JobId {
    /// A new one from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    #[allow(clippy::expect_used)] // without randomness no two jobs are kept apart, and no caller could go on
    pub fn mint() -> Self {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes).expect("the operating system gives randomness");
        Self(bytes.map(|byte| LETTERS[usize::from(byte % 32)]))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("jb-")?;
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let letters =
            text.strip_prefix("jb-").and_then(|letters| <[u8; LENGTH]>::try_from(letters.as_bytes()).ok());
        letters.filter(|letters| letters.iter().all(|letter| LETTERS.contains(letter))).map(Self).ok_or(
            Error::Invalid { what: "job id", reason: "it is jb- and ten lower-case letters or digits" },
        )
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $column:literal, $($(#[$one:meta])* $variant:ident = $word:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$one])* $variant,)* }

        impl $name {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its word, in the catalog and on screens.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let known = Self::ALL.iter().copied().find(|known| known.word() == text);
                known.ok_or_else(|| Error::corrupt($column, "a word that this version does not know"))
            }
        }
    };
}

words!(
    /// What is done.
    JobKind, "kind",
    /// A base backup.
    Backup = "backup",
    /// A database taken to a commit, in a new place.
    Restore = "restore",
    /// What a store holds, held against its checksums and its chain.
    Verify = "verify",
    /// A rehearsal of a restore, measured.
    Drill = "drill",
    /// Standbys held against their primary, row by row.
    Compare = "compare",
    /// Deletion of what no rule keeps.
    Expire = "expire",
    /// A restore's plan, read from the store; nothing is written.
    Plan = "plan",
    /// What an expiry would do, read from the stores; nothing is written.
    Preview = "preview",
    /// Something that a later version does, and this one leaves alone.
    Unknown = "unknown",
);

impl JobKind {
    /// Whether it may be begun anew while its former holder perhaps still works on it: a backup more does no harm, a verification and a comparison only read, and a
    /// drill has a scratch directory of its own.
    pub const fn is_repeatable(self) -> bool {
        match self {
            Self::Backup | Self::Verify | Self::Plan | Self::Preview | Self::Drill | Self::Compare => true,
            Self::Restore | Self::Expire | Self::Unknown => false,
        }
    }
}

words!(
    /// How a job was asked for.
    Via, "asked_via",
    /// By the command line, which does it itself.
    Command = "command",
    /// By the command line, of a service.
    Queue = "queue",
    /// By REST or the dashboard.
    Api = "api",
    /// By a schedule.
    Schedule = "schedule",
    /// In a way that a later version knows.
    Unknown = "unknown",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_name_reads_back_and_nothing_else_is_one() {
        let id = JobId::mint();
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert_ne!(JobId::mint(), JobId::mint());
        for wrong in
            ["", "jb-", "jb-0123456789a", "jb-012345678", "jb-O123456789", "xx-0123456789", "jb-01234567é"]
        {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_kind_has_its_word_and_reads_back() {
        for kind in JobKind::ALL {
            assert_eq!(kind.word().parse::<JobKind>().unwrap(), *kind);
        }
        assert!("dance".parse::<JobKind>().is_err());
    }
}
