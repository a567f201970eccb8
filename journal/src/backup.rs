//! Base backups in a store: `FORMAT.md` section 8. Engine neutral: files with their bytes, and what was true of them.
//!
//! What always holds: a backup is what its manifest says, and its manifest is put last, so a crash leaves an opening
//! and parts that nobody claims; every part is bound to its store, incarnation, backup and number, and to the digest in
//! the manifest; memory is bounded by a few parts, whatever the database's size.
//! What it does not do: it does not know how an engine is copied or put back, and it never deletes.

mod manifest;
mod reader;
mod writer;

pub use manifest::{
    BadPage, ConfigFile, Entry, EntryKind, MAX_ENTRIES, MAX_MANIFEST_BYTES, Manifest, Opening, Part, Place,
    SettingRow, Tablespace,
};
pub use reader::{Backup, Range, Standing, list, opening, sealed_part, standing, stored_bytes};
pub use writer::{BackupOptions, BackupWriter, PART_BYTES, Trouble};
