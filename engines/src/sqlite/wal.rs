//! SQLite's write-ahead log as bytes: what its header and its frames say, and the checksum that runs through them.
//!
//! ```text
//! header, 32 bytes                            frame head, 24 bytes, before each page
//!  offset  size  field                         offset  size  field
//!       0     4  magic; bit 0: byte order           0     4  page number, from 1
//!                of the checksums                   4     4  pages of the database after this commit; 0: no commit
//!       4     4  format, 3007000                    8     4  salt 1
//!       8     4  bytes of a page                   12     4  salt 2
//!      12     4  checkpoint sequence               16     8  checksum up to and with this frame
//!      16     4  salt 1
//!      20     4  salt 2
//!      24     8  checksum of bytes 0..24
//! ```
//! All fields are big-endian. The checksum of a frame goes on from the one before it, over the frame head's first eight bytes and
//! the page. Source: fileformat2.html sections 4.1 and 4.2.
//!
//! What always holds: a [`Place`] was reached by computing the checksum from the header on, so it stands for all frames before it.
//! A frame's own head proves nothing: the log is begun anew over old frames, which keep theirs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 24;
/// The only format there is. Source: fileformat2.html section 4.1.
const FORMAT: u32 = 3_007_000;
const MAGIC: u32 = 0x377f_0682;

/// A write-ahead log that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WalFault {
    /// Its first bytes are something else.
    #[error("its magic is {found:#010x}")]
    Magic {
        /// What it has.
        found: u32,
    },
    /// A later format.
    #[error("its format is {found}, not {FORMAT}")]
    Format {
        /// What it has.
        found: u32,
    },
    /// No page has so many bytes.
    #[error("its pages have {found} bytes")]
    PageBytes {
        /// What it has.
        found: u32,
    },
    /// The header was not written whole.
    #[error("its header's checksum is wrong")]
    Checksum,
}

/// Bytes of a database's page: a power of two from 512 to 65536.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBytes(u32);

impl PageBytes {
    /// Of so many bytes.
    pub fn new(bytes: u32) -> Option<Self> {
        (bytes.is_power_of_two() && (512..=65536).contains(&bytes)).then_some(Self(bytes))
    }

    /// How many.
    pub fn get(self) -> u32 {
        self.0
    }

    /// How many, as a length.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// The power of two.
    pub fn exponent(self) -> u8 {
        self.0.trailing_zeros() as u8
    }

    /// From the power of two.
    pub fn from_exponent(exponent: u8) -> Option<Self> {
        1u32.checked_shl(exponent.into()).and_then(Self::new)
    }
}

/// What tells one life of the log from the next: the first number rises by one each time it is begun anew, the second is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Salts {
    /// Rises by one.
    pub rising: u32,
    /// Random.
    pub random: u32,
}

impl Salts {
    /// Whether the log was begun anew exactly once to come from `before` to these.
    pub fn follow(self, before: Self) -> bool {
        self.rising == before.rising.wrapping_add(1)
    }
}

impl fmt::Display for Salts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}:{:08x}", self.rising, self.random)
    }
}

/// The byte order in which a log's checksums take their words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

/// A running checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sum(u32, u32);

impl Sum {
    fn over(self, order: Order, bytes: &[u8]) -> Self {
        let word = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            match order {
                Order::Little => u32::from_le_bytes(bytes),
                Order::Big => u32::from_be_bytes(bytes),
            }
        };
        let Self(mut one, mut two) = self;
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add(word(&pair[..4])).wrapping_add(two);
            two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
        }
        Self(one, two)
    }

    /// Eight bytes that are equal when the checksums are.
    pub fn bytes(self) -> [u8; 8] {
        (u64::from(self.0) << 32 | u64::from(self.1)).to_be_bytes()
    }

    /// From what [`bytes`](Self::bytes) gave.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self::read(&bytes)
    }

    fn read(bytes: &[u8]) -> Self {
        Self(number(bytes, 0), number(bytes, 4))
    }
}

/// The log's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalHeader {
    order: Order,
    /// Bytes of a page.
    pub page_bytes: PageBytes,
    /// Which life of the log this is.
    pub salts: Salts,
    sum: Sum,
}

impl WalHeader {
    /// Reads it.
    ///
    /// # Errors
    /// [`WalFault`] when it is none.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WalFault> {
        let magic = number(bytes, 0);
        let order = match magic ^ MAGIC {
            0 => Order::Little,
            1 => Order::Big,
            _ => return Err(WalFault::Magic { found: magic }),
        };
        let format = number(bytes, 4);
        if format != FORMAT {
            return Err(WalFault::Format { found: format });
        }
        let page = number(bytes, 8);
        let Some(page_bytes) = PageBytes::new(page) else { return Err(WalFault::PageBytes { found: page }) };
        let sum = Sum(0, 0).over(order, &bytes[..24]);
        if sum != Sum::read(&bytes[24..]) {
            return Err(WalFault::Checksum);
        }
        let salts = Salts { rising: number(bytes, 16), random: number(bytes, 20) };
        Ok(Self { order, page_bytes, salts, sum })
    }

    /// Before the first frame.
    pub fn begin(&self) -> Place {
        Place { salts: self.salts, frames: 0, sum: self.sum }
    }

    /// Whether so many frames of such a log are at most so many bytes.
    pub fn is_within(self, frames: u32, bytes: u64) -> bool {
        u64::from(frames) * self.frame_bytes() as u64 <= bytes
    }

    /// Bytes of a frame, its head and its page.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEAD_BYTES + self.page_bytes.as_usize()
    }

    /// Where in the file the frame begins that follows `frames` others.
    pub fn frame_at(&self, frames: u32) -> u64 {
        HEADER_BYTES as u64 + u64::from(frames) * self.frame_bytes() as u64
    }

    /// The frame in `bytes`, one whole frame, if it is the one behind `place`.
    pub fn frame_behind(&self, place: Place, bytes: &[u8]) -> Option<Frame> {
        let head = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
        if bytes.len() != self.frame_bytes() || place.salts != self.salts {
            return None;
        }
        let salts = Salts { rising: number(head, 8), random: number(head, 12) };
        let page = number(head, 0);
        if salts != self.salts || page == 0 {
            return None;
        }
        let sum = place.sum.over(self.order, &head[..8]).over(self.order, &bytes[FRAME_HEAD_BYTES..]);
        if sum != Sum::read(&head[16..]) {
            return None;
        }
        let behind = Place { salts, frames: place.frames.checked_add(1)?, sum };
        Some(Frame { page, commit: Some(number(head, 4)).filter(|pages| *pages > 0), behind })
    }
}

/// A frame whose checksum continues the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The page's number, from one.
    pub page: u32,
    /// Pages of the database after the transaction that this frame ends.
    pub commit: Option<u32>,
    /// The place behind it.
    pub behind: Place,
}

/// A place in the log, behind some frames of one life of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which life.
    pub salts: Salts,
    /// How many frames.
    pub frames: u32,
    /// The checksum of all of them.
    pub sum: Sum,
}

/// Eight bytes of a place's digest.
pub type PlaceDigest = [u8; 8];

impl Place {
    /// What the journal keeps in the clear of it, to know it again.
    pub fn digest(self) -> PlaceDigest {
        let mut hasher = blake3::Hasher::new_derive_key("farshore 2026-11 sqlite place v1");
        hasher.update(&self.salts.rising.to_le_bytes());
        hasher.update(&self.salts.random.to_le_bytes());
        hasher.update(&self.frames.to_le_bytes());
        hasher.update(&self.sum.bytes());
        let mut digest = [0; 8];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        digest
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {} of {}", self.frames, self.salts)
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
