//! A record's head, checksum and main data.
//!
//! ```text
//! offset size field
//!  0     4    length of all of it
//!  4     4    transaction, or 0
//!  8     8    where the record before it starts
//! 16     1    info: high four bits are the resource manager's
//! 17     1    resource manager
//! 18     2    padding
//! 20     4    CRC-32C of bytes 24.. and then of bytes 0..20
//! 24          block heads, data heads, block data, main data
//! ```
//! Records start at multiples of eight and go on over page heads. Source: `XLogRecord`,
//! src/include/access/xlogrecord.h; `ValidXLogRecordHeader` and `ValidXLogRecord`, xlogreader.c.

use farshore_journal::Offset;

use super::error::RecordFault;
use super::fields::Fields;
use super::shape::Major;

/// Bytes of a record's head.
pub(super) const HEAD_BYTES: usize = 24;
/// Bytes of it that its checksum covers.
const HEAD_CHECKED_BYTES: usize = 20;
/// The longest record PostgreSQL writes: 1020 MiB.
/// Source: `XLogRecordMaxSize`, xlogrecord.h.
const LONGEST: u32 = 1020 << 20;

/// An accepted record head.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordHead {
    pub(super) total_bytes: u32,
    pub(super) transaction: u32,
    pub(super) info: u8,
    pub(super) resource_manager: u8,
    crc: u32,
}

impl RecordHead {
    /// Judges a head. The length was judged by [`length`] as soon as it was there.
    pub(super) fn read(
        bytes: &[u8; HEAD_BYTES],
        start: Offset,
        previous: Option<Offset>,
        major: Major,
    ) -> Result<Self, RecordFault> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let link = Offset::new(u64::from(word(12)) << 32 | u64::from(word(8)));
        let head = Self {
            total_bytes: word(0),
            transaction: word(4),
            info: bytes[16],
            resource_manager: bytes[17],
            crc: word(20),
        };
        if !major.knows_resource_manager(head.resource_manager) {
            return Err(RecordFault::ResourceManager { found: head.resource_manager });
        }
        // Without a record before it in hand, all that is known is that its link points back.
        if previous.map_or(link >= start, |p| p != link) {
            return Err(RecordFault::PreviousLink { found: link, expected: previous });
        }
        Ok(head)
    }

    /// Checks the record's checksum, given that of its bytes after the head.
    pub(super) fn check(&self, head: &[u8; HEAD_BYTES], body_crc: u32) -> Result<(), RecordFault> {
        let computed = crc32c::crc32c_append(body_crc, &head[..HEAD_CHECKED_BYTES]);
        if computed == self.crc { Ok(()) } else { Err(RecordFault::Checksum { found: self.crc, computed }) }
    }
}

/// Judges a record's length, its first four bytes.
pub(super) fn length(bytes: [u8; 4]) -> Result<u32, RecordFault> {
    match u32::from_le_bytes(bytes) {
        0 => Err(RecordFault::Zeroed),
        found if (found as usize) < HEAD_BYTES || found > LONGEST => Err(RecordFault::Length { found }),
        length => Ok(length),
    }
}

/// What a record without block references says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MainData<'a> {
    pub(super) data: &'a [u8],
    /// The replication origin the record is marked with.
    pub(super) origin: Option<u16>,
}

/// Takes the bytes after a record's head apart, to the last byte. Records with block references are refused: those
/// whose meaning is read here have none.
/// Source: `DecodeXLogRecord`, xlogreader.c; the ids, xlogrecord.h.
pub(super) fn main_data(body: &[u8]) -> Result<MainData<'_>, &'static str> {
    const SHORT: u8 = 255;
    const LONG: u8 = 254;
    const ORIGIN: u8 = 253;
    const TOP_TRANSACTION: u8 = 252;
    let mut fields = Fields::new(body);
    let mut origin = None;
    let cut = "a data head is cut short";
    while fields.remaining() > 0 {
        let length = match fields.u8().ok_or(cut)? {
            SHORT => usize::from(fields.u8().ok_or(cut)?),
            LONG => fields.u32().ok_or(cut)? as usize,
            ORIGIN => {
                origin = Some(fields.u16().ok_or(cut)?);
                continue;
            }
            TOP_TRANSACTION => {
                fields.u32().ok_or(cut)?;
                continue;
            }
            _ => return Err("it refers to data blocks"),
        };
        let data = fields.take(length).ok_or("its data is shorter than its length")?;
        return if fields.remaining() == 0 {
            Ok(MainData { data, origin })
        } else {
            Err("bytes follow its data")
        };
    }
    Ok(MainData { data: &[], origin })
}
