//! What an engine leaves at a data chunk's end, so that its shipper knows from the store alone, and without a key, what to look for.

use std::fmt;

/// Bytes of a mark.
pub const MARK_BYTES: usize = 16;

/// An engine's sixteen bytes about the position behind a data chunk. What they mean is the engine's affair; the chain binds them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark([u8; MARK_BYTES]);

impl Mark {
    /// No mark: the engine has nothing to say of this position.
    pub const NONE: Self = Self([0; MARK_BYTES]);

    /// The mark of these bytes; all zero is [`NONE`](Self::NONE).
    pub const fn from_bytes(bytes: [u8; MARK_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; MARK_BYTES] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({})", hex::encode(self.0))
    }
}
