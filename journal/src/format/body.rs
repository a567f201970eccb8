//! The JSON documents of the format: what a person reads in a store without farshore.
//!
//! Unknown fields are ignored, so that a later minor addition does not make an object unreadable; missing ones are
//! errors. Sizes are bounded by the frame that holds them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Digest, FormatError};
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

/// The last field of a document that is an object by itself, before and behind its 64 hexadecimal digits.
const SEAL: (&str, &str) = (",\"blake3\":\"", "\"}");
const SEAL_BYTES: usize = SEAL.0.len() + 64 + SEAL.1.len();

/// A document that is an object by itself: JSON whose last field is the BLAKE3 of the text without that field. It has no
/// envelope, so that a person can read it, and a changed letter in it is found all the same.
///
/// # Errors
/// As [`to_json`].
pub fn to_document<T: Serialize>(what: &'static str, body: &T) -> Result<Vec<u8>, FormatError> {
    let mut text = to_json(what, body)?;
    let digest = Digest::of(&text);
    if text.pop() != Some(b'}') {
        return Err(FormatError::Body { what, why: "it is no JSON object".to_owned() });
    }
    text.extend_from_slice(format!("{}{digest}{}", SEAL.0, SEAL.1).as_bytes());
    Ok(text)
}

/// A document from bytes.
///
/// # Errors
/// [`FormatError::ObjectChecksum`] when a byte of it was changed, is missing or too many; otherwise as [`from_json`].
pub fn from_document<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    let Some((text, seal)) = bytes.split_last_chunk::<SEAL_BYTES>() else {
        return Err(FormatError::ObjectChecksum);
    };
    let whole = [text, b"}"].concat();
    if *seal != *format!("{}{}{}", SEAL.0, Digest::of(&whole), SEAL.1).as_bytes() {
        return Err(FormatError::ObjectChecksum);
    }
    from_json(what, &whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> StoreRecord {
        let created = "2026-11-21T02:00:00Z".to_owned();
        StoreRecord { format: 1, store: StoreId::mint(), created }
    }

    #[test]
    fn a_document_reads_back_and_shows_its_fields_to_any_reader_of_json() {
        let record = record();
        let bytes = to_document("store record", &record).unwrap();
        assert_eq!(from_document::<StoreRecord>("store record", &bytes).unwrap(), record);
        let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read["created"], "2026-11-21T02:00:00Z");
        assert_eq!(read["blake3"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn a_document_with_any_bit_changed_any_byte_missing_or_one_too_many_does_not_read() {
        let bytes = to_document("store record", &record()).unwrap();
        let read = |bytes: &[u8]| from_document::<StoreRecord>("store record", bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(read(&changed), Err(FormatError::ObjectChecksum), "byte {at} bit {bit}");
            }
            assert!(read(&bytes[..at]).is_err(), "cut to {at}");
        }
        assert!(read(&[bytes.as_slice(), b" "].concat()).is_err());
        assert!(read(&[bytes.as_slice(), b"\n"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn a_history_file_reads_back_byte_for_byte(history: Vec<u8>) {
            let body = TimelineBody { parent: Timeline::new(1), parent_end: Offset::new(5), history };
            let json = to_json("timeline", &body).unwrap();
            prop_assert_eq!(from_json::<TimelineBody>("timeline", &json).unwrap(), body);
        }
    }
}
