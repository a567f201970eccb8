//! The 256-byte header of every object.
//!
//! ```text
//!  offset  size  field                          offset  size  field
//!       0     8  magic "FARSHORE"                   84     4  frames
//!       8     2  format version                     88     8  start
//!      10     1  kind                               96     8  end
//!      11     1  codec                             104     8  plain bytes
//!      12     1  cipher                            112     8  bytes between header and trailer
//!      13     3  zero                              120     8  written at, microseconds since 1970
//!      16    16  store id                          128    32  chain value before
//!      32    16  incarnation id                    160    32  chain value after
//!      48     8  number                            192    32  salt
//!      56     8  generation                        224    16  mark
//!      64    16  writer or backup id               240    16  BLAKE3 of bytes 0..240, first 16 bytes
//!      80     4  timeline
//! ```
//! Source: `FORMAT.md` section 2.

use super::FormatError;
use super::chain::{ChainValue, Link};
use super::mark::Mark;
use crate::identity::{Generation, IncarnationId, Sequence, StoreId, WriterId};
use crate::position::{Offset, Position, Timeline};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 256;
/// Bytes of the header that its checksum and every frame's authentication cover.
pub const HEADER_BOUND_BYTES: usize = 240;
/// The version this build writes and reads.
pub const VERSION: u16 = 1;
/// Most frames in an object: eight times what full ones need, and a bound on what a hostile header may claim.
pub const MAX_FRAMES: u32 = 4096;
/// Most plain bytes of an object: a bound on what a reader sets aside for one, well below what a store's client reads.
pub const MAX_PLAIN_BYTES: u64 = 1 << 29;

const MAGIC: &[u8; 8] = b"FARSHORE";

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A generation takes the journal over.
    Opening = 1,
    /// Log bytes.
    Data = 2,
    /// A branch of history begins.
    Timeline = 3,
    /// Bytes that will never be here.
    Gap = 4,
    /// Merged chunks.
    Segment = 5,
    /// Commits of a run of chunks.
    Index = 6,
    /// A signed chain value.
    Head = 7,
    /// Bytes of a backup's files.
    Part = 8,
    /// What a complete backup holds.
    Manifest = 9,
    /// A backup began.
    BackupOpening = 10,
    /// A run of chunks that no rule keeps.
    Expired = 11,
    /// Digests of the blocks of a backup's files.
    Sums = 12,
    /// Which of them are whose.
    Table = 13,
}

impl Kind {
    fn parse(byte: u8) -> Result<Self, FormatError> {
        Ok(match byte {
            1 => Self::Opening,
            2 => Self::Data,
            3 => Self::Timeline,
            4 => Self::Gap,
            5 => Self::Segment,
            6 => Self::Index,
            7 => Self::Head,
            8 => Self::Part,
            9 => Self::Manifest,
            10 => Self::BackupOpening,
            11 => Self::Expired,
            12 => Self::Sums,
            13 => Self::Table,
            _ => return Err(FormatError::Field { field: "kind" }),
        })
    }

    /// Whether this kind is a chunk of the journal.
    pub fn is_chunk(self) -> bool {
        matches!(self, Self::Opening | Self::Data | Self::Timeline | Self::Gap)
    }
}

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    Plain = 0,
    /// Zstandard, one frame each.
    Zstd = 1,
}

/// How frames are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cipher {
    /// Not at all.
    Clear = 0,
    /// AES-256-GCM under a key of the object's own.
    Aes256Gcm = 1,
}

/// An object's header, every field within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: Kind,
    /// How its frames are compressed.
    pub codec: Codec,
    /// How its frames are sealed.
    pub cipher: Cipher,
    /// The store it was made for.
    pub store: StoreId,
    /// The incarnation it belongs to.
    pub incarnation: IncarnationId,
    /// A chunk's sequence, a part's number, the first sequence of a segment or index.
    pub number: Sequence,
    /// The writer's generation.
    pub generation: Generation,
    /// The writer, or for backups the backup's id in the same sixteen bytes.
    pub writer: WriterId,
    /// The timeline of the range.
    pub timeline: Timeline,
    /// Frames in the object.
    pub frames: u32,
    /// First byte of the range.
    pub start: Offset,
    /// First byte behind the range.
    pub end: Offset,
    /// Plain bytes of all frames.
    pub plain_bytes: u64,
    /// Bytes between header and trailer.
    pub frames_bytes: u64,
    /// Microseconds since 1970 UTC when it was written. Information only.
    pub written_at: i64,
    /// Chain value before the object.
    pub before: ChainValue,
    /// Chain value after it.
    pub after: ChainValue,
    /// Salt of the object's key; zero when not sealed.
    pub salt: [u8; 32],
    /// What the engine says of the position behind a data chunk.
    pub mark: Mark,
}

impl Header {
    /// The step's constant part: who wrote, what, on which timeline.
    pub fn link(&self) -> Link {
        Link { kind: self.kind, generation: self.generation, writer: self.writer, timeline: self.timeline }
    }

    /// Where the journal stands after this chunk.
    pub fn end_position(&self) -> Position {
        Position::new(self.timeline, self.end)
    }

    /// The object's whole length by this header.
    pub fn object_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.frames_bytes + super::object::TRAILER_BYTES as u64
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.kind as u8;
        out[11] = self.codec as u8;
        out[12] = self.cipher as u8;
        out[16..32].copy_from_slice(self.store.as_bytes());
        out[32..48].copy_from_slice(self.incarnation.as_bytes());
        out[48..56].copy_from_slice(&self.number.get().to_le_bytes());
        out[56..64].copy_from_slice(&self.generation.get().to_le_bytes());
        out[64..80].copy_from_slice(self.writer.as_bytes());
        out[80..84].copy_from_slice(&self.timeline.get().to_le_bytes());
        out[84..88].copy_from_slice(&self.frames.to_le_bytes());
        out[88..96].copy_from_slice(&self.start.get().to_le_bytes());
        out[96..104].copy_from_slice(&self.end.get().to_le_bytes());
        out[104..112].copy_from_slice(&self.plain_bytes.to_le_bytes());
        out[112..120].copy_from_slice(&self.frames_bytes.to_le_bytes());
        out[120..128].copy_from_slice(&self.written_at.to_le_bytes());
        out[128..160].copy_from_slice(self.before.as_bytes());
        out[160..192].copy_from_slice(self.after.as_bytes());
        out[192..224].copy_from_slice(&self.salt);
        out[224..HEADER_BOUND_BYTES].copy_from_slice(self.mark.as_bytes());
        let sum = blake3::hash(&out[..HEADER_BOUND_BYTES]);
        out[HEADER_BOUND_BYTES..].copy_from_slice(&sum.as_bytes()[..16]);
        out
    }

    /// Reads a header from an object's first bytes, and checks every field against its bounds.
    ///
    /// # Errors
    /// [`FormatError`] says which field is wrong; the magic and version are looked at before the checksum, so that
    /// a newer version is named as such.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let Some(raw) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(FormatError::Cut { have: bytes.len() as u64, want: HEADER_BYTES as u64 });
        };
        if &raw[0..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u16::from_le_bytes(take(raw, 8));
        if version != VERSION {
            return Err(FormatError::Version { version });
        }
        let sum = blake3::hash(&raw[..HEADER_BOUND_BYTES]);
        if sum.as_bytes()[..16] != raw[HEADER_BOUND_BYTES..] {
            return Err(FormatError::HeaderChecksum);
        }
        let header = Self {
            kind: Kind::parse(raw[10])?,
            codec: match raw[11] {
                0 => Codec::Plain,
                1 => Codec::Zstd,
                _ => return Err(FormatError::Field { field: "codec" }),
            },
            cipher: match raw[12] {
                0 => Cipher::Clear,
                1 => Cipher::Aes256Gcm,
                _ => return Err(FormatError::Field { field: "cipher" }),
            },
            store: StoreId::from_bytes(take(raw, 16)),
            incarnation: IncarnationId::from_bytes(take(raw, 32)),
            number: Sequence::new(u64::from_le_bytes(take(raw, 48))),
            generation: Generation::new(u64::from_le_bytes(take(raw, 56))),
            writer: WriterId::from_bytes(take(raw, 64)),
            timeline: Timeline::new(u32::from_le_bytes(take(raw, 80))),
            frames: u32::from_le_bytes(take(raw, 84)),
            start: Offset::new(u64::from_le_bytes(take(raw, 88))),
            end: Offset::new(u64::from_le_bytes(take(raw, 96))),
            plain_bytes: u64::from_le_bytes(take(raw, 104)),
            frames_bytes: u64::from_le_bytes(take(raw, 112)),
            written_at: i64::from_le_bytes(take(raw, 120)),
            before: ChainValue::from_bytes(take(raw, 128)),
            after: ChainValue::from_bytes(take(raw, 160)),
            salt: take(raw, 192),
            mark: Mark::from_bytes(take(raw, 224)),
        };
        header.validate(raw)?;
        Ok(header)
    }

    fn validate(&self, raw: &[u8; HEADER_BYTES]) -> Result<(), FormatError> {
        let wrong = |field| Err(FormatError::Field { field });
        if raw[13..16] != [0; 3] {
            return wrong("zero");
        }
        if self.kind != Kind::Data && !self.mark.is_none() {
            return wrong("mark");
        }
        if self.frames > MAX_FRAMES {
            return wrong("frames");
        }
        if self.plain_bytes > MAX_PLAIN_BYTES || (self.frames == 0) != (self.plain_bytes == 0) {
            return wrong("plain bytes");
        }
        // Each frame is at least a head and a byte, and at most a head and the largest sealed frame.
        let (least, most) = super::object::frames_bytes_bounds(self.frames);
        if !(least..=most).contains(&self.frames_bytes) {
            return wrong("bytes between header and trailer");
        }
        let Some(range) = self.end.bytes_since(self.start) else { return wrong("end") };
        let shape_holds = match self.kind {
            Kind::Data => range > 0 && range == self.plain_bytes,
            Kind::Opening | Kind::Timeline | Kind::Head => range == 0 && self.frames == 1,
            Kind::Gap | Kind::Expired => range > 0 && self.frames == 1,
            // A table, then frames with the range's bytes.
            Kind::Segment => self.frames >= 2 && range > 0 && range < self.plain_bytes,
            Kind::Index => range > 0 && self.frames == 1,
            Kind::Part | Kind::Manifest | Kind::BackupOpening | Kind::Table => true,
            Kind::Sums => range > 0 && range.saturating_mul(crate::backup::RECORD_BYTES) == self.plain_bytes,
        };
        if !shape_holds {
            return wrong("end");
        }
        let readable_without_key = matches!(
            self.kind,
            Kind::Opening
                | Kind::Timeline
                | Kind::Gap
                | Kind::Head
                | Kind::BackupOpening
                | Kind::Expired
                | Kind::Sums
                | Kind::Table
        );
        if readable_without_key && self.cipher != Cipher::Clear {
            return wrong("cipher");
        }
        if self.cipher == Cipher::Clear && self.salt != [0; 32] {
            return wrong("salt");
        }
        Ok(())
    }
}

fn take<const N: usize>(raw: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[at..at + N]);
    out
}
