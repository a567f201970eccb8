//! farshore's vocabulary, its on-store format and the client of its stores.
//!
//! `FORMAT.md` beside this crate's sources is the specification; the code follows it. The way in: a
//! [`registry::Repository`] is a founded store, a [`reader::Reader`] one incarnation's journal in it, a
//! [`writer::Writer`] its one owner. A [`merge::Merger`] makes segments of its chunks, [`tidy`] deletes what they replace, an
//! [`index::Indexer`] notes what is in them. What no rule keeps is [`expired`], and [`expiry`] deletes it; [`holds`] keep a point. [`heads`] are signed, so that a journal that was cut off or rewritten is found. What no other object implies, a [`chronicle`] keeps.

pub mod backup;
pub mod chronicle;
pub mod chunk;
pub mod drills;
pub mod error;
pub mod expired;
pub mod expiry;
pub mod format;
pub mod heads;
mod hex_bytes;
pub mod holds;
pub mod identity;
pub mod index;
pub mod layout;
pub mod merge;
pub mod moment;
pub mod packing;
pub mod position;
pub mod protocol;
mod put;
pub mod reader;
pub mod registry;
pub mod segments;
pub mod store;
mod tail;
pub mod tidy;
pub mod writer;

pub use error::JournalError;
pub use identity::{
    BackupId, CompareId, DatabaseName, DrillId, Generation, HoldId, IncarnationId, Sequence, StandbyId,
    StoreId, WriterId,
};
pub use position::{Offset, ParseError, Position, Timeline};
