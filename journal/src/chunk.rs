//! A chunk of the journal, wherever its bytes stand: in an object of its own, or in a segment that was merged from it.
//!
//! What always holds: header, frame heads and plain bytes are those that its writer made, checked as far as is possible
//! without a key. Only how the bytes lie in the store differs, and nobody above the reader needs to know.

use std::sync::Arc;

use bytes::Bytes;

use crate::format::{DataKey, Decoded, FormatError, FrameHead, Header, Segment};

/// One chunk of a journal.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// Its own object.
    Own(Arc<Decoded>),
    /// One of a segment's.
    Merged {
        /// The segment.
        segment: Arc<Segment>,
        /// Which of its chunks.
        which: usize,
    },
}

impl Chunk {
    /// Its header. That of a merged chunk has no object length.
    pub fn header(&self) -> &Header {
        match self {
            Self::Own(object) => object.header(),
            Self::Merged { segment, which } => {
                segment.outline().chunks().get(*which).unwrap_or(segment.outline().header())
            }
        }
    }

    /// The heads of its frames, in order. Those of a merged chunk have no stored length.
    pub fn heads(&self) -> &[FrameHead] {
        match self {
            Self::Own(object) => object.heads(),
            Self::Merged { segment, which } => segment.outline().heads(*which),
        }
    }

    /// The plain bytes of one frame, checked against its digest.
    ///
    /// # Errors
    /// As [`Decoded::plain`].
    pub fn plain(&self, frame: usize, key: Option<&DataKey>) -> Result<Bytes, FormatError> {
        match self {
            Self::Own(object) => object.plain(frame, key),
            Self::Merged { segment, which } => segment.plain(*which, frame, key),
        }
    }

    /// The plain bytes of all frames, one behind the other.
    ///
    /// # Errors
    /// As [`Decoded::plain`].
    pub fn plain_all(&self, key: Option<&DataKey>) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::new();
        for frame in 0..self.heads().len() {
            out.extend_from_slice(&self.plain(frame, key)?);
        }
        Ok(out)
    }

    /// Whether its bytes were read from a segment.
    pub fn is_merged(&self) -> bool {
        matches!(self, Self::Merged { .. })
    }
}
