//! farshore's vocabulary, its on-store format and the client of its stores.
//!
//! `FORMAT.md` beside this crate's sources is the specification; the code follows it.

pub mod format;
pub mod identity;
pub mod position;
pub mod store;

pub use identity::{BackupId, DatabaseName, Generation, IncarnationId, Sequence, StoreId, WriterId};
pub use position::{Offset, ParseError, Position, Timeline};
