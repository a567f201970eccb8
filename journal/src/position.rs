//! Where a change stands in a database's history.
//!
//! A [`Position`] is a byte offset on a [`Timeline`]; it has no total order, because two timelines may hold
//! different bytes at the same offset. Ranges are half-open: `end` is the next byte wanted.
//!
//! What always holds of the positions of one database (`docs/architecture.md` explains the words):
//! `discarded <= released <= stored <= received`, `reported <= received`, `restorable <= stored`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that does not name a position, timeline or identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct ParseError {
    /// The text that was read.
    pub text: String,
    /// What it should have been, with its notation.
    pub what: &'static str,
}

impl ParseError {
    pub(crate) fn new(text: &str, what: &'static str) -> Self {
        // A hostile or mistaken text may be long; the message shows its start.
        Self { text: text.chars().take(80).collect(), what }
    }
}

/// A byte offset in one timeline's log, counted from the start of the log's address space.
///
/// Written as PostgreSQL writes a log sequence number: two hexadecimal halves, `5F/3AA7B9A0`.
/// Source: <https://www.postgresql.org/docs/current/datatype-pg-lsn.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(u64);

impl Offset {
    /// The offset with this many bytes before it.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the start of the address space.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `bytes` later, or `None` past the end of the address space.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// Bytes from `earlier` to here, or `None` when `earlier` is later.
    pub fn bytes_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The start of the log segment of `segment_bytes` that holds this offset.
    ///
    /// # Panics
    /// When `segment_bytes` is zero, which no parsed segment size can be.
    pub fn segment_start(self, segment_bytes: u64) -> Self {
        Self(self.0 - self.0 % segment_bytes)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Offset {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new(text, "log position (two hexadecimal halves, as in 5F/3AA7B9A0)");
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let half = |digits: &str| {
            let plain =
                !digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or_else(bad)
        };
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

/// A branch of a database's history. PostgreSQL counts its own; a new number at each promotion or restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(u32);

impl Timeline {
    /// The timeline of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Timeline {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse().map(Self).map_err(|_| ParseError::new(text, "timeline number"))
    }
}

/// A point in one incarnation's journal. Compare two of them only on one timeline: [`PartialOrd`] gives `None`
/// across timelines, and the caller decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The branch of history.
    pub timeline: Timeline,
    /// The next byte wanted on it.
    pub offset: Offset,
}

impl Position {
    /// The position at `offset` on `timeline`.
    pub const fn new(timeline: Timeline, offset: Offset) -> Self {
        Self { timeline, offset }
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.timeline == other.timeline).then(|| self.offset.cmp(&other.offset))
    }
}

/// Written as `timeline:offset`, for instance `2:5F/3AA7B9A0`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.timeline, self.offset)
    }
}

impl FromStr for Position {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (timeline, offset) =
            text.split_once(':').ok_or_else(|| ParseError::new(text, "position (timeline:offset)"))?;
        Ok(Self { timeline: timeline.parse()?, offset: offset.parse()? })
    }
}

impl Serialize for Offset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Offset {
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
        fn every_position_reads_back_as_it_was_written(timeline: u32, offset: u64) {
            let position = Position::new(Timeline::new(timeline), Offset::new(offset));
            prop_assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }
    }

    #[test]
    fn positions_on_two_timelines_have_no_order() {
        let at = |timeline| Position::new(Timeline::new(timeline), Offset::new(16));
        assert_eq!(at(1).partial_cmp(&at(2)), None);
        assert_eq!(at(1).partial_cmp(&at(1)), Some(Ordering::Equal));
    }

    #[test]
    fn a_text_that_is_no_position_is_refused() {
        for text in ["", "0", "/", "0/", "+1/0", "0/123456789", "1:0/0", "0/ 1", "g/0"] {
            assert!(text.parse::<Offset>().is_err(), "{text}");
        }
    }
}
