//! What a chunk says of its end, so that whoever follows again knows from the store alone, and without a key, what to look for.
//!
//! ```text
//!  offset  size  field
//!       0     8  number of the last transaction, little-endian
//!       8     8  digest of where the database's own log stood behind it
//! ```

use farshore_journal::Offset;
use farshore_journal::format::Mark;

use super::follow::Start;
use super::record::Head;

/// The mark of the end of this record.
pub fn of(head: &Head) -> Mark {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&head.number.to_le_bytes());
    bytes[8..].copy_from_slice(&head.place.digest());
    Mark::from_bytes(bytes)
}

/// Where following begins that goes on behind a chunk with this mark, which ends at `end`.
pub fn start(mark: Mark, end: Offset) -> Start {
    let (number, digest) = mark.as_bytes().split_at(8);
    let (mut raw, mut behind) = ([0; 8], [0; 8]);
    raw.copy_from_slice(number);
    behind.copy_from_slice(digest);
    let behind = Some(behind).filter(|_| !mark.is_none());
    Start { number: u64::from_le_bytes(raw), offset: end.get(), behind }
}
