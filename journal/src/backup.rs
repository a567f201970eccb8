//! Base backups in a store: `FORMAT.md` section 8. Engine neutral: files with their bytes, and what was true of them.
//!
//! What always holds: a backup is what its manifest says, and its manifest is put last, so a crash leaves an opening
//! and parts that nobody claims; every part is bound to its store, incarnation, backup and number, and to the digest in
//! the manifest; memory is bounded by a few parts, whatever the database's size; what it
//! refers to in others is bound to those by the trailers of their manifests.
//! What it does not do: it does not know how an engine is copied or put back, and it never deletes.

mod blocks;
mod manifest;
mod pieces;
mod reader;
mod refresh;
mod writer;

pub use blocks::{
    BLOCK_BYTES, Blocks, FileBlocks, Named, PathSum, RECORD_BYTES, Record, Sum, SumsObject, Table, blocks_of,
    database_bytes, loose_sums, manifest_trailer,
};
pub use manifest::{
    BadPage, ConfigFile, Entry, EntryKind, MAX_ENTRIES, MAX_MANIFEST_BYTES, Manifest, Opening, Part,
    REFERRING, SettingRow, Tablespace,
};
pub use pieces::{Borrowed, Held, MAX_HOLDERS, MAX_PIECES, Piece, Place, Share};
pub use reader::{Backup, Range, Standing, list, opening, sealed_part, standing, stored_bytes};
pub use refresh::{FilesWriter, Full, Sharing};
pub use writer::{BackupOptions, BackupWriter, PART_BYTES, Trouble};
