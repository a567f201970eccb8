//! PostgreSQL's write-ahead log, majors 14 to 18: bytes in, checked events out. Pure: no I/O, no clock, no tasks.
//!
//! What always holds: `whole_from <= last_record_start < checked_end <= next_wanted`. `checked_end` is the end of
//! the last record that came whole, is linked to the one before and has a right checksum; no claim of what is
//! restorable may go beyond it. The same bytes give the same events and the same error however they are cut.
//!
//! The one question a mismatch raises is whether it is damage or just where the log ends. Both decoders answer it
//! by their type: [`LogDecoder`] reads what a server streams, where nothing but whole log may come, so any mismatch
//! is an error; [`LogFileDecoder`] reads a segment file, whose tail may be zeros or an older file's pages, so a
//! mismatch that such a tail can explain is an [`EndOfLog`], and the rest are errors.
//!
//! Only little-endian servers with 8 KiB log pages are read; others are refused at their first page.
//!
//! It does not: interpret data pages, follow timelines (`history` says where they fork), or read files.

pub mod file_name;
pub mod history;

mod control;
mod decoder;
mod error;
mod fields;
mod file;
#[cfg(test)]
mod guarantees;
#[cfg(test)]
mod handmade;
mod page;
mod record;
mod shape;
mod tablespace;
mod transaction;
mod xid;

pub use decoder::LogDecoder;
pub use error::{EndOfLog, LogError, PageFault, RecordFault};
pub use file::{FileProgress, LogFileDecoder};
pub use shape::{LogShape, Major, SegmentBytes, ShapeError};
