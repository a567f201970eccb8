//! The log that farshore makes of a SQLite database's transactions: one record for each, in the order of commits.
//!
//! ```text
//! head, 56 bytes                               body of a transaction: n pages, ascending
//!  offset  size  field                          offset  size  field
//!       0     8  bytes of the record                 0     4  the page's number, from 1
//!       8     1  kind: 1 transaction, 2 point        4     -  its last image in the transaction
//!       9     1  power of two of a page's bytes
//!      10     2  zero                           body of a point: its name, UTF-8
//!      12     4  pages in the body, n
//!      16     8  number of the transaction      foot, 12 bytes
//!      24     4  pages of the database after it      0     8  when it was seen
//!      28     4  salt 1                              8     4  CRC-32C of the body and of the foot before it
//!      32     4  salt 2
//!      36     4  frames up to its commit        A point repeats the head of the transaction before it, but for
//!      40     8  checksum of its commit frame   its length, its kind and n, which is zero.
//!      48     4  zero
//!      52     4  CRC-32C of bytes 0..52
//! ```
//! Integers are little-endian, times microseconds since 1970 UTC by the clock of whoever follows: from one life of it to the next they
//! may run backwards. Transactions are numbered densely. All but the foot follows from the transaction alone: whoever encodes it again comes to the same
//! bytes and offsets.

use super::wal::{PageBytes, Place, Salts, Sum};

/// Bytes of a record's head.
pub const HEAD_BYTES: usize = 56;
/// Bytes of its foot.
pub const FOOT_BYTES: usize = 12;
/// Bytes of a page's number before its image.
pub const PAGE_NUMBER_BYTES: usize = 4;
/// Longest name of a point, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A transaction's pages.
    Transaction,
    /// A named point behind the transaction before it.
    Point,
}

/// A record's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the record, this head and the foot with it.
    pub bytes: u64,
    /// Bytes of a page.
    pub page_bytes: PageBytes,
    /// Pages in the body.
    pub pages: u32,
    /// The transaction's number, from one.
    pub number: u64,
    /// Pages of the database after it.
    pub database_pages: u32,
    /// Where the database's own log stood behind it.
    pub place: Place,
}

/// Bytes that are no record's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Its checksum is wrong.
    #[error("its head's checksum is wrong")]
    Checksum,
    /// It says what no record is.
    #[error("its {field} is not one that a record has")]
    Field {
        /// Which.
        field: &'static str,
    },
}

impl Head {
    /// Of a transaction with so many pages; its length follows.
    pub fn transaction(
        page_bytes: PageBytes,
        pages: u32,
        number: u64,
        database_pages: u32,
        place: Place,
    ) -> Self {
        let page = (PAGE_NUMBER_BYTES + page_bytes.as_usize()) as u64;
        let bytes = (HEAD_BYTES + FOOT_BYTES) as u64 + u64::from(pages) * page;
        Self { kind: Kind::Transaction, bytes, page_bytes, pages, number, database_pages, place }
    }

    /// Of a point behind this record. The name is one that [`is_name`] takes.
    pub fn point(self, name: &str) -> Self {
        let bytes = (HEAD_BYTES + name.len() + FOOT_BYTES) as u64;
        Self { kind: Kind::Point, bytes, pages: 0, ..self }
    }

    /// Bytes of its body.
    pub fn body_bytes(&self) -> u64 {
        self.bytes - (HEAD_BYTES + FOOT_BYTES) as u64
    }

    /// The head with which these bytes begin; `None` where they begin with none.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes.first_chunk()?).ok()
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[0..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8] = match self.kind {
            Kind::Transaction => 1,
            Kind::Point => 2,
        };
        out[9] = self.page_bytes.exponent();
        out[12..16].copy_from_slice(&self.pages.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..28].copy_from_slice(&self.database_pages.to_le_bytes());
        out[28..32].copy_from_slice(&self.place.salts.rising.to_le_bytes());
        out[32..36].copy_from_slice(&self.place.salts.random.to_le_bytes());
        out[36..40].copy_from_slice(&self.place.frames.to_le_bytes());
        out[40..48].copy_from_slice(&self.place.sum.bytes());
        let sum = crc32c::crc32c(&out[..52]);
        out[52..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`HeadFault`] when it is none.
    pub fn decode(raw: &[u8; HEAD_BYTES]) -> Result<Self, HeadFault> {
        let long = |at: usize| raw[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let short = |at: usize| raw[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if crc32c::crc32c(&raw[..52]) != short(52) {
            return Err(HeadFault::Checksum);
        }
        let wrong = |field| Err(HeadFault::Field { field });
        let kind = match raw[8] {
            1 => Kind::Transaction,
            2 => Kind::Point,
            _ => return wrong("kind"),
        };
        let Some(page_bytes) = PageBytes::from_exponent(raw[9]) else { return wrong("page size") };
        if raw[10..12] != [0; 2] || raw[48..52] != [0; 4] {
            return wrong("zero");
        }
        let salts = Salts { rising: short(28), random: short(32) };
        let place = Place { salts, frames: short(36), sum: Sum::from_bytes(long(40).to_le_bytes()) };
        let (bytes, pages, number, database_pages) = (long(0), short(12), long(16), short(24));
        let head = Self { kind, bytes, page_bytes, pages, number, database_pages, place };
        let name_bytes = bytes.checked_sub((HEAD_BYTES + FOOT_BYTES) as u64);
        let length_holds = match kind {
            Kind::Transaction => {
                // The body's pages are different ones of the database.
                pages <= database_pages
                    && bytes == Self::transaction(page_bytes, pages, number, database_pages, place).bytes
            }
            Kind::Point => {
                pages == 0 && name_bytes.is_some_and(|name| (1..=MAX_NAME_BYTES as u64).contains(&name))
            }
        };
        match (length_holds, number, database_pages) {
            (false, _, _) => wrong("length"),
            (true, 0, _) => wrong("number"),
            (true, _, 0) => wrong("count of the database's pages"),
            (true, _, _) => Ok(head),
        }
    }
}

/// The foot behind a body whose CRC-32C is `body`.
pub fn foot(body: u32, seen_micros: i64) -> [u8; FOOT_BYTES] {
    let mut out = [0; FOOT_BYTES];
    out[..8].copy_from_slice(&seen_micros.to_le_bytes());
    let sum = crc32c::crc32c_append(body, &out[..8]);
    out[8..].copy_from_slice(&sum.to_le_bytes());
    out
}

/// When the record was seen, if the foot is one behind a body whose CRC-32C is `body`.
pub fn seen_micros(raw: &[u8; FOOT_BYTES], body: u32) -> Option<i64> {
    let seen = raw.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))?;
    (foot(body, seen) == *raw).then_some(seen)
}

/// Whether a point may be called so.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
}
