//! The bytes of every object in a store: `FORMAT.md` sections 2 to 4, and nothing else.
//!
//! Encoding and decoding are pure. A decoded object is whole: its checksums hold, its lengths are within the
//! limits, and its chain value is what its frames give. Whether it belongs where it was found is the caller's
//! question: it compares the header with the name it asked for.

pub mod body;
pub mod certificate;
pub mod chain;
pub mod crypt;
pub mod head;
pub mod header;
pub mod index;
pub mod mark;
pub mod object;
pub mod pack;
pub mod page;
pub mod segment;
pub mod signing;

pub use certificate::Certificate;
pub use chain::{ChainValue, Digest};
pub use crypt::{DataKey, Recipients, Unlock};
pub use head::{Head, HeadStanding, Statement};
pub use header::{Cipher, Codec, Header, Kind};
pub use mark::Mark;
pub use object::{Decoded, Draft, FrameHead};
pub use page::{Chronicle, EntryDigest, LifeId, Page};
pub use segment::Segment;
pub use signing::{Signature, SigningKey, VerifyKey, VerifyKeys};

/// Why bytes are not an object of this format. Each is reported with the object's key by the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end before the object does.
    #[error("the object is cut: {have} bytes are there, {want} are needed")]
    Cut {
        /// Bytes present.
        have: u64,
        /// Bytes needed.
        want: u64,
    },
    /// There are bytes behind the object's end.
    #[error("{surplus} bytes stand behind the object's end")]
    Surplus {
        /// How many.
        surplus: u64,
    },
    /// The first bytes are not ours.
    #[error("this is not an object of farshore's")]
    Magic,
    /// A version that this build does not know.
    #[error("the object has format version {version}; this build reads version 1: use a newer farshore")]
    Version {
        /// The version found.
        version: u16,
    },
    /// A field holds a value that the format does not allow.
    #[error("the field `{field}` holds a value that the format does not allow")]
    Field {
        /// The field's name in `FORMAT.md`.
        field: &'static str,
    },
    /// The header's own checksum does not match.
    #[error("the header's checksum does not match: its bytes were changed")]
    HeaderChecksum,
    /// The trailer does not match the bytes before it.
    #[error("the object's checksum does not match: its bytes were changed")]
    ObjectChecksum,
    /// A frame's plain bytes do not have the digest that its head states.
    #[error("frame {frame} does not have the content its head states")]
    FrameDigest {
        /// The frame's number in the object.
        frame: u32,
    },
    /// A frame does not decompress to its stated length.
    #[error("frame {frame} does not decompress to its stated length")]
    Decompress {
        /// The frame's number in the object.
        frame: u32,
    },
    /// A frame could not be opened with the key at hand: another key, or changed bytes.
    #[error("frame {frame} does not open with this key")]
    Sealed {
        /// The frame's number in the object.
        frame: u32,
    },
    /// The object is encrypted and no key was given.
    #[error("the object is encrypted and no private key for it is at hand")]
    KeyMissing,
    /// The frames do not lead to the chain value that the header states.
    #[error("the object's content does not lead to the chain value it states")]
    Chain,
    /// The key that a head names did not sign what it says.
    #[error("its signature does not hold: what it says was changed")]
    Signature,
    /// A JSON body does not read.
    #[error("the {what} does not read: {why}")]
    Body {
        /// Which body.
        what: &'static str,
        /// What the reader of JSON said, without content.
        why: String,
    },
    /// What is sealed for private keys is not as whoever seals writes it, whatever key is at hand: no missing key explains it.
    #[error("what is sealed in it is not as it was sealed: {why}")]
    Age {
        /// What is wrong, without content.
        why: String,
    },
    /// A data key could not be wrapped or unwrapped.
    #[error("the data key: {why}")]
    Key {
        /// What went wrong, without key material.
        why: String,
    },
}
