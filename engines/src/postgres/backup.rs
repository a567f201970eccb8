//! Base backups by the server's own copy: BASE_BACKUP streamed, its tar archives read, its pages and its manifest
//! checked on the way.
//!
//! [`BackupStream`] brings what the server sends; [`read_archive`] turns one tar archive into entries whose
//! paths cannot leave the target, with a digest per file and the pages whose checksum is wrong;
//! [`Manifest::check`] compares that with what the server says it sent.
//!
//! What it does not do: store or encrypt anything, or make a backup restorable: that also takes the log from
//! [`BackupEvent::Started`] to [`BackupEvent::Finished`].
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-BASE-BACKUP>.

mod archive;
mod manifest;
mod options;
mod page_checksum;
mod stream;

pub use archive::{
    ArchiveError, ArchiveFeed, ArchiveReport, ArchiveSource, BackupEntry, EntryKind, EntrySink, SeenFile,
    archive_channel, read_archive,
};
pub use manifest::{Manifest, ManifestError, ManifestFile, Mismatch, WalRange};
pub use options::BackupOptions;
pub use page_checksum::{BadPage, PageRules, page_checksum};
pub use stream::{BackupEvent, BackupStream, Tablespace};
