//! Chain values and digests: `FORMAT.md` section 4.
//!
//! A chain value stands for every byte before it. Two journals with one chain value hold the same history.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::body::IncarnationRecord;
use super::header::Kind;
use super::mark::Mark;
use crate::identity::{Generation, WriterId};
use crate::position::{Offset, ParseError, Timeline};

const CONTEXT: &str = "farshore 2026-11 journal chain v1";

macro_rules! hash_value {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The value of these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseError::new(text, $what))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hash_value!(
    /// The chain's value at one point of a journal.
    ChainValue,
    "chain value (64 hexadecimal digits)"
);
hash_value!(
    /// BLAKE3 of plain bytes.
    Digest,
    "digest (64 hexadecimal digits)"
);

impl Digest {
    /// The digest of `plain`.
    pub fn of(plain: &[u8]) -> Self {
        Self(*blake3::hash(plain).as_bytes())
    }
}

/// Who took a step of the chain, and with what kind of chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The chunk's kind.
    pub kind: Kind,
    /// The writer's generation.
    pub generation: Generation,
    /// The writer.
    pub writer: WriterId,
    /// The timeline of the range.
    pub timeline: Timeline,
}

impl ChainValue {
    /// The value before an incarnation's first chunk. It binds the record that says whose journal this is: a journal that is
    /// copied under another database's name, or whose record was changed, does not begin with it.
    pub fn genesis(record: &IncarnationRecord) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(record.store.as_bytes()).update(record.incarnation.as_bytes());
        hasher.update(&record.segment_bytes.to_le_bytes()).update(&record.major.to_le_bytes());
        for text in [record.database.as_str(), &record.engine, &record.identity] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The value after one step: the range `start..end` with content of this digest.
    #[must_use]
    pub fn step(self, link: Link, start: Offset, end: Offset, digest: &Digest) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher
            .update(&self.0)
            .update(&[link.kind as u8])
            .update(&link.generation.get().to_le_bytes())
            .update(link.writer.as_bytes())
            .update(&link.timeline.get().to_le_bytes())
            .update(&start.get().to_le_bytes())
            .update(&end.get().to_le_bytes())
            .update(digest.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The value after a data chunk's mark; the same where it has none.
    #[must_use]
    pub fn marked(self, mark: Mark) -> Self {
        if mark.is_none() {
            return self;
        }
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&self.0).update(mark.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}
