//! Who owns which bytes: the names that keep two histories apart.
//!
//! A store holds databases; a database has one or more incarnations; an incarnation's journal is written by one
//! generation after another. Each is minted once and never reused, and each is bound into every object's bytes,
//! so that an object moved from one place to another is detected.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hex_bytes::hex_bytes;
use crate::position::ParseError;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        hex_bytes!($(#[$doc])* $name, 16, $what);

        impl $name {
            /// A new one from the operating system's random source.
            ///
            /// # Panics
            /// When the operating system has no randomness to give: nothing could then be kept apart.
            #[allow(clippy::expect_used)] // without randomness no identity is safe, and no caller could go on
            pub fn mint() -> Self {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the operating system gives randomness");
                Self(bytes)
            }
        }
    };
}

random_id!(
    /// One store: a bucket with a prefix, or a directory. Minted when the store is created.
    StoreId,
    "store id (32 lower-case hexadecimal digits)"
);
random_id!(
    /// One identity of a database: what its engine says it is, at one unbroken history. A database put back from
    /// an older copy gets a new one, and both stay restorable.
    IncarnationId,
    "incarnation id (32 lower-case hexadecimal digits)"
);
random_id!(
    /// One copy of a database that is kept up to date: a copy that is made anew is another.
    StandbyId,
    "standby id (32 lower-case hexadecimal digits)"
);
random_id!(
    /// One process start of a shipper, by a random name: two shippers that race for one generation number differ.
    WriterId,
    "writer id (32 lower-case hexadecimal digits)"
);
random_id!(
    /// One base backup.
    BackupId,
    "backup id (32 lower-case hexadecimal digits)"
);
random_id!(
    /// One drill: a restore that was rehearsed.
    DrillId,
    "drill id (32 lower-case hexadecimal digits)"
);
random_id!(
    /// One comparison of a standby with its primary.
    CompareId,
    "compare id (32 lower-case hexadecimal digits)"
);
random_id!(
    /// One wish that a point stays restorable.
    HoldId,
    "hold id (32 lower-case hexadecimal digits)"
);

/// A rising number that fences older writers: one process start of a shipper that took the journal over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// The first writer of a journal.
    pub const FIRST: Self = Self(1);

    /// The generation of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one that takes over from this one; `None` after 2^64 takeovers.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A chunk's number in its journal, dense from zero. Its object's name is its sixteen hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// The first number of every journal.
    pub const FIRST: Self = Self(0);

    /// The sequence of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next one; `None` after 2^64 chunks.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Sequence {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        plain
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| ParseError::new(text, "chunk number (16 lower-case hexadecimal digits)"))
    }
}

/// A database's name in configuration, keys and paths: 1 to 63 of `a-z 0-9 _ -`, beginning with a letter or digit.
///
/// PostgreSQL allows only `a-z 0-9 _` in slot names, so a `-` becomes `_` there.
/// Source: <https://www.postgresql.org/docs/current/warm-standby.html#STREAMING-REPLICATION-SLOTS-MANIPULATION>.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseName(String);

impl DatabaseName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DatabaseName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = (1..=63).contains(&text.len())
            && text.bytes().next().is_some_and(letter)
            && text.bytes().all(|b| letter(b) || b == b'_' || b == b'-');
        good.then(|| Self(text.to_owned()))
            .ok_or_else(|| ParseError::new(text, "database name (1 to 63 of a-z, 0-9, _ and -)"))
    }
}

impl Serialize for DatabaseName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DatabaseName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_and_number_reads_back_as_it_was_written(bytes: [u8; 16], number: u64) {
            let id = StoreId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<StoreId>().unwrap(), id);
            let sequence = Sequence::new(number);
            prop_assert_eq!(sequence.to_string().parse::<Sequence>().unwrap(), sequence);
        }
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for name in ["", ".", "..", "a/b", "A", "-a", "_a", "a b", "a\0", &"a".repeat(64)] {
            assert!(name.parse::<DatabaseName>().is_err(), "{name:?}");
        }
        assert!("orders-2_eu".parse::<DatabaseName>().is_ok());
    }

    #[test]
    fn one_id_has_one_notation() {
        assert!("AB".repeat(16).parse::<StoreId>().is_err());
        assert!("0000000000000001".parse::<Sequence>().is_ok());
        assert!("1".parse::<Sequence>().is_err());
    }
}
