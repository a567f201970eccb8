//! Packing: a frame's plain bytes are digested and compressed as soon as there are enough of them, so that whoever gathers an
//! object holds it packed, and never whole in plain.
//!
//! Pure. A packer reuses its compressor's memory; one that is dropped leaves nothing. Where the frame will stand, and whether it
//! is sealed, is decided when the object is made ([`super::object::Draft::assemble`]).

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::FormatError;
use super::chain::Digest;
use super::header::Codec;
use super::object::MAX_FRAME_BYTES;

/// How frames are to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Zstandard at this level, 1 to 19.
    Zstd(i32),
}

impl Compression {
    /// What an object's header calls it.
    pub fn codec(self) -> Codec {
        match self {
            Self::None => Codec::Plain,
            Self::Zstd(_) => Codec::Zstd,
        }
    }
}

/// A frame whose content is settled and whose place is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    pub(super) plain_bytes: u32,
    pub(super) digest: Digest,
    pub(super) bytes: Box<[u8]>,
}

impl Packed {
    /// A frame that stays as it is, whatever the object's codec: a segment's table.
    ///
    /// # Errors
    /// [`FormatError::Field`] when it is empty, or longer than a frame may be.
    pub fn open(plain: &[u8]) -> Result<Self, FormatError> {
        Self::of(plain, plain)
    }

    /// Bytes of the plain content.
    pub fn plain_bytes(&self) -> u64 {
        u64::from(self.plain_bytes)
    }

    fn of(plain: &[u8], stored: &[u8]) -> Result<Self, FormatError> {
        if plain.is_empty() || plain.len() > MAX_FRAME_BYTES {
            return Err(FormatError::Field { field: "plain length" });
        }
        Ok(Self { plain_bytes: plain.len() as u32, digest: Digest::of(plain), bytes: stored.into() })
    }
}

/// Packs frames, one after the other.
pub struct Packer {
    compression: Compression,
    zstd: Option<Compressor<'static>>,
    /// What zstd writes to: a frame keeps only what it came to.
    room: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Packer {
    /// One that compresses so.
    ///
    /// # Errors
    /// [`FormatError::Field`] for a level that zstd does not have.
    pub fn new(compression: Compression) -> Result<Self, FormatError> {
        let zstd = match compression {
            Compression::None => None,
            Compression::Zstd(level) => {
                Some(compressor(level).map_err(|_| FormatError::Field { field: "codec" })?)
            }
        };
        Ok(Self { compression, zstd, room: Vec::new() })
    }

    /// How it compresses.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Packs one frame's plain bytes. Takes a core for as long as compression takes.
    ///
    /// # Errors
    /// [`FormatError::Field`] when they are none, or more than a frame may have.
    pub fn pack(&mut self, plain: &[u8]) -> Result<Packed, FormatError> {
        let Some(zstd) = &mut self.zstd else { return Packed::open(plain) };
        if plain.len() > MAX_FRAME_BYTES {
            return Err(FormatError::Field { field: "plain length" });
        }
        self.room.clear();
        self.room.reserve(compress_bound(plain.len()));
        zstd.compress_to_buffer(plain, &mut self.room).map_err(|_| FormatError::Field { field: "codec" })?;
        Packed::of(plain, &self.room)
    }
}

/// What zstd remembers of a frame at levels 3 and 4, as a power of two: two tables of this many entries of four bytes.
///
/// The level's own tables, 768 KiB for a frame, are larger than a core's second cache, and a packer shares its core with the stream.
/// With these, packing alone took a fifth less time; log came out no larger, tables and text at most 0.6 % larger
/// (`docs/performance.md`).
const TABLE_LOG: u32 = 14;

fn compressor(level: i32) -> std::io::Result<Compressor<'static>> {
    let mut zstd = Compressor::new(level)?;
    if matches!(level, 3 | 4) {
        zstd.set_parameter(CParameter::HashLog(TABLE_LOG))?;
        zstd.set_parameter(CParameter::ChainLog(TABLE_LOG))?;
    }
    Ok(zstd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packer_that_is_used_again_packs_as_a_new_one_does() {
        let mut used = Packer::new(Compression::Zstd(3)).unwrap();
        for content in [vec![7; 100_000], (0..=255).collect::<Vec<u8>>(), vec![1]] {
            let fresh = Packer::new(Compression::Zstd(3)).unwrap().pack(&content).unwrap();
            assert_eq!(used.pack(&content).unwrap(), fresh);
        }
    }

    #[test]
    fn every_level_gives_back_what_was_packed() {
        let content: Vec<u8> =
            (0..300_000u32).flat_map(|n| (n % 1000 * 7).to_le_bytes()).take(1 << 20).collect();
        for level in 1..=19 {
            let packed = Packer::new(Compression::Zstd(level)).unwrap().pack(&content).unwrap();
            assert!(packed.bytes.len() < content.len() / 2, "level {level}");
            assert_eq!(
                zstd::bulk::decompress(&packed.bytes, content.len()).unwrap(),
                content,
                "level {level}"
            );
        }
    }

    #[test]
    fn a_frame_is_neither_empty_nor_longer_than_a_frame_may_be() {
        for compression in [Compression::None, Compression::Zstd(1)] {
            let mut packer = Packer::new(compression).unwrap();
            assert!(packer.pack(&[]).is_err());
            assert!(packer.pack(&vec![0; MAX_FRAME_BYTES + 1]).is_err());
            assert_eq!(packer.pack(&vec![0; MAX_FRAME_BYTES]).unwrap().plain_bytes(), MAX_FRAME_BYTES as u64);
        }
    }
}
