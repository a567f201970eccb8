//! The JSON documents of the format: what a person reads in a store without farshore.
//!
//! Unknown fields are ignored, so that a later minor addition does not make an object unreadable; missing ones are
//! errors. Sizes are bounded by the frame that holds them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::FormatError;
use crate::identity::{DatabaseName, IncarnationId, StoreId};
use crate::position::{Offset, Timeline};

/// `farshore.store`: which store this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRecord {
    /// The format version.
    pub format: u16,
    /// The store's id.
    pub store: StoreId,
    /// When it was founded, RFC 3339.
    pub created: String,
}

/// `incarnations/<number>`: one identity of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationRecord {
    /// The format version.
    pub format: u16,
    /// The store's id.
    pub store: StoreId,
    /// Its place in the order of incarnations, from zero.
    pub number: u64,
    /// Its id.
    pub incarnation: IncarnationId,
    /// The database.
    pub database: DatabaseName,
    /// The engine's name, `postgres`.
    pub engine: String,
    /// What the engine calls itself: PostgreSQL's system identifier, in decimal.
    pub identity: String,
    /// The engine's major version when it was founded.
    pub major: u32,
    /// Bytes of one of the source's log segments.
    pub segment_bytes: u64,
    /// When it was founded, RFC 3339.
    pub created: String,
    /// Why: `first`, or what made the former one end.
    pub reason: String,
}

/// An opening chunk's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningBody {
    /// The machine the writer runs on.
    pub host: String,
    /// farshore's version.
    pub version: String,
    /// When the writer started, RFC 3339.
    pub started: String,
    /// The generation's data key, wrapped for its recipients; none without encryption.
    pub key: Option<String>,
}

/// A timeline chunk's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineBody {
    /// The timeline it leaves.
    pub parent: Timeline,
    /// How far the journal holds the parent.
    pub parent_end: Offset,
    /// The engine's history file, in hexadecimal.
    #[serde(with = "hex::serde")]
    pub history: Vec<u8>,
}

/// A gap chunk's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapBody {
    /// Why the bytes are not there.
    pub reason: String,
}

/// A body as bytes.
///
/// # Errors
/// [`FormatError::Body`] when it cannot be written as JSON, which no type here gives cause for.
pub fn to_json<T: Serialize>(what: &'static str, body: &T) -> Result<Vec<u8>, FormatError> {
    serde_json::to_vec(body).map_err(|why| FormatError::Body { what, why: why.to_string() })
}

/// A body from bytes.
///
/// # Errors
/// [`FormatError::Body`] says where it does not read.
pub fn from_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(bytes).map_err(|why| FormatError::Body { what, why: why.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_history_file_reads_back_byte_for_byte(history: Vec<u8>) {
            let body = TimelineBody { parent: Timeline::new(1), parent_end: Offset::new(5), history };
            let json = to_json("timeline", &body).unwrap();
            prop_assert_eq!(from_json::<TimelineBody>("timeline", &json).unwrap(), body);
        }
    }
}
