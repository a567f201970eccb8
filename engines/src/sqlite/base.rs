//! A copy of a live database's file, as a base to apply records to.
//!
//! What always holds: a copy that begins while the log is held, with what is [`beneath`] at that moment, is the database of any later moment
//! once the records up to the copy's end were applied: whatever is written to the file meanwhile comes out of the log, so it is in
//! that or in a later record. A page that was caught half written is such a page. A crash leaves nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::wal::Place;
use super::wal_file::{Encoder, Transaction, WalReadError, last_images};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// What the file may lack of all that was committed up to a place of the log: the last image of each page in the log, as if one
/// transaction had written them. `None` where the log is empty up to there, and the file has all.
///
/// # Errors
/// When the log does not read.
pub fn beneath(log: Encoder<'_>, place: Place) -> Result<Option<Transaction>, WalReadError> {
    let mut all = log.wal.transactions(log.header, log.header.begin(), place.frames);
    let mut pages: Vec<(u32, u32)> = Vec::new();
    let mut database_pages = None;
    while let Some(transaction) = all.next()? {
        pages.extend(transaction.pages);
        database_pages = Some(transaction.database_pages);
    }
    Ok(database_pages.map(|database_pages| Transaction {
        pages: last_images(pages, database_pages),
        database_pages,
        place,
    }))
}

/// Gives the file's bytes to `sink`, in order, which may keep them; how many there were. The file may grow or shrink meanwhile.
///
/// # Errors
/// When it cannot be read, or `sink` fails.
pub fn copy(file: &File, sink: &mut dyn FnMut(Bytes) -> io::Result<()>) -> io::Result<u64> {
    let mut at = 0;
    loop {
        let mut buffer = vec![0; READ_BYTES];
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            return Ok(at);
        }
        buffer.truncate(count);
        sink(buffer.into())?;
        at += count as u64;
    }
}
