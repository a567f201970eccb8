//! Turns an archive's entries into a manifest's, and passes files' bytes on, from the blocking thread that reads the archive.
//!
//! What always holds: an entry is passed before its bytes; names that are not UTF-8 and links end the backup, because a
//! manifest could not say what they were. The control file is kept aside besides.

use std::io;

use bytes::Bytes;
use farshore_engines::postgres::backup::{BackupEntry, EntryKind as Copied, EntrySink};
use farshore_journal::backup::{Entry, EntryKind};
use tokio::sync::mpsc;

use super::CONTROL_FILE;

/// A control file has 8 KiB.
const MAX_CONTROL_BYTES: usize = 64 << 10;

/// What goes to the store's side.
pub(super) enum Item {
    /// An entry begins; where its bytes are is not known yet.
    Entry(Entry),
    /// Its bytes.
    Bytes(Bytes),
}

/// Takes one archive's entries.
pub(super) struct Recorder {
    items: mpsc::Sender<Item>,
    tablespace: Option<u32>,
    control: Option<Vec<u8>>,
    in_control: bool,
}

impl Recorder {
    pub fn new(items: mpsc::Sender<Item>, tablespace: Option<u32>) -> Self {
        Self { items, tablespace, control: None, in_control: false }
    }

    /// The control file, if it was in this archive.
    pub fn into_control(self) -> Option<Vec<u8>> {
        self.control
    }

    fn send(&self, item: Item) -> io::Result<()> {
        self.items.blocking_send(item).map_err(|_| io::Error::other("the store's side has ended"))
    }
}

impl EntrySink for Recorder {
    fn begin(&mut self, entry: &BackupEntry) -> io::Result<()> {
        let name = entry.path.to_str().ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
        let name = name.trim_end_matches('/');
        let path = match self.tablespace {
            None => name.to_owned(),
            Some(oid) => format!("pg_tblspc/{oid}/{name}"),
        };
        let kind = match &entry.kind {
            Copied::File => EntryKind::File,
            Copied::Dir => EntryKind::Directory,
            Copied::Symlink(_) => {
                return Err(io::Error::other("it is a link, where a tablespace map was asked for"));
            }
        };
        self.in_control = self.tablespace.is_none() && path == CONTROL_FILE && kind == EntryKind::File;
        if self.in_control {
            self.control = Some(Vec::new());
        }
        let modified = i64::try_from(entry.mtime).unwrap_or(i64::MAX);
        let size = if kind == EntryKind::File { entry.size } else { 0 };
        self.send(Item::Entry(Entry { path, kind, mode: entry.mode, modified, size, at: 0, sha256: None }))
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.in_control
            && let Some(control) = &mut self.control
        {
            if control.len() + bytes.len() > MAX_CONTROL_BYTES {
                return Err(io::Error::other("a control file of that size is none"));
            }
            control.extend_from_slice(bytes);
        }
        self.send(Item::Bytes(Bytes::copy_from_slice(bytes)))
    }

    fn end(&mut self) -> io::Result<()> {
        self.in_control = false;
        Ok(())
    }
}

/// Bytes as lower-case hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8; 32]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
