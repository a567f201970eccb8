//! The two documents of a backup: its opening and its manifest.
//!
//! What always holds of a manifest that [`Manifest::check`] passed: its parts are dense from zero and cover the plain
//! stream without a hole; its entries lie within the stream, in order, without overlap; no path is named twice; the
//! log's range is not empty. A path's meaning is the engine's, and a restore checks it again before it writes.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::pieces::{Borrowed, Piece, Share, shares};
use crate::format::{Digest, FormatError};
use crate::identity::{BackupId, Sequence};
use crate::position::Position;

/// Most plain bytes of a manifest: some millions of files.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 30;
/// The format of a manifest that refers to others: a reader that does not know it must not take the parts for the whole.
pub const REFERRING: u16 = 2;
/// Most files and directories of a backup: a bound on what a hostile manifest makes a reader set aside.
pub const MAX_ENTRIES: usize = 8 << 20;

/// A backup's opening: it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// What the operator or schedule called it.
    pub label: String,
    /// The machine it was taken on.
    pub host: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// The backup's data key, wrapped for its recipients; none without encryption.
    pub key: Option<String>,
    /// The number that the journal's next chunk had when it began.
    pub next_sequence: Sequence,
    /// The backups whose bytes it may refer to: they stay for as long as it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refers: Vec<BackupId>,
}

/// What a complete backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format version: 2 of one that refers to others.
    pub format: u16,
    /// Its id.
    pub backup: BackupId,
    /// What it was called.
    pub label: String,
    /// The engine's name.
    pub engine: String,
    /// The engine's major version.
    pub major: u32,
    /// What the engine calls itself.
    pub identity: String,
    /// Bytes of one of the source's log segments.
    pub segment_bytes: u64,
    /// Where replay starts.
    pub start: Position,
    /// From where on the files are consistent.
    pub end: Position,
    /// When it began, RFC 3339.
    pub started: String,
    /// When its last byte was taken, RFC 3339.
    pub finished: String,
    /// Whether the source's pages carry checksums.
    pub checksums: bool,
    /// Pages whose checksum was wrong in the source.
    pub bad_pages: Vec<BadPage>,
    /// Whether the server itself said that the copy has damaged pages.
    #[serde(default)]
    pub damaged: bool,
    /// The next transaction number that the copied control file names, where there is one.
    pub next_transaction: Option<u64>,
    /// The number of the journal's next chunk when it began: the log before `start` lies before it, or shortly after.
    pub journal_begin: Sequence,
    /// The number of the journal's next chunk when it ended.
    pub journal_end: Sequence,
    /// Bytes of the plain stream.
    pub plain_bytes: u64,
    /// Its parts, in order.
    pub parts: Vec<Part>,
    /// Its files and directories, in the order of the stream.
    pub entries: Vec<Entry>,
    /// Places outside the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// The source's settings.
    pub settings: Vec<SettingRow>,
    /// The source's configuration files, wherever they lay.
    pub config_files: Vec<ConfigFile>,
    /// What it has of others; none when it holds all of its bytes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub borrowed: Option<Borrowed>,
    /// BLAKE3 of its table's object, where digests of its blocks were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Digest>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number, dense from zero.
    pub number: Sequence,
    /// Its plain bytes.
    pub plain_bytes: u64,
    /// Its object's bytes.
    pub bytes: u64,
    /// BLAKE3 of its object.
    pub digest: Digest,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A link to a place outside; `tablespaces` says where it led.
    Tablespace,
}

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path below the data directory, `/` between names.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its permission bits.
    pub mode: u32,
    /// When it was last changed, seconds since 1970 UTC.
    pub modified: i64,
    /// Its bytes; zero but for a file.
    #[serde(default)]
    pub size: u64,
    /// Where its bytes begin in the plain stream.
    #[serde(default)]
    pub at: u64,
    /// SHA-256 of its bytes in hexadecimal, where the server's own manifest states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A place outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its number at the source.
    pub oid: u32,
    /// Where it was.
    pub location: String,
}

/// A page whose checksum was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPage {
    /// The file.
    pub path: String,
    /// The page's number in it.
    pub page: u64,
}

/// One setting of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRow {
    /// Its name.
    pub name: String,
    /// Its value.
    pub setting: String,
    /// Where the value came from.
    pub source: String,
    /// When it can be changed.
    pub context: String,
}

/// One configuration file of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Its path on the source's machine.
    pub path: String,
    /// Its bytes, in hexadecimal.
    #[serde(with = "hex::serde")]
    pub content: Vec<u8>,
}

impl Manifest {
    /// Checks that the parts and entries make one stream.
    ///
    /// # Errors
    /// [`FormatError::Field`] names the first field that does not hold.
    pub fn check(&self) -> Result<(), FormatError> {
        let wrong = |field| Err(FormatError::Field { field });
        if self.format != self.format_needed() {
            return Err(FormatError::Version { version: self.format });
        }
        let mut covered = 0u64;
        for (number, part) in self.parts.iter().enumerate() {
            if part.number.get() != number as u64 || part.plain_bytes == 0 {
                return wrong("parts");
            }
            covered = covered.saturating_add(part.plain_bytes);
        }
        match &self.borrowed {
            Some(borrowed) => borrowed.check(self.backup, covered, self.plain_bytes)?,
            None if covered != self.plain_bytes => return wrong("plain_bytes"),
            None => {}
        }
        if self.entries.len() > MAX_ENTRIES {
            return wrong("entries");
        }
        let mut paths = HashSet::with_capacity(self.entries.len());
        let mut at = 0u64;
        for entry in &self.entries {
            if !paths.insert(entry.path.as_str()) {
                return wrong("entries");
            }
            if entry.size == 0 {
                continue;
            }
            let end = entry.at.checked_add(entry.size).filter(|end| *end <= self.plain_bytes);
            let Some(end) = end.filter(|_| entry.kind == EntryKind::File && entry.at >= at) else {
                return wrong("entries");
            };
            at = end;
        }
        if !self.segment_bytes.is_power_of_two() {
            return wrong("segment_bytes");
        }
        if self.end.timeline != self.start.timeline || self.end.offset <= self.start.offset {
            return wrong("end");
        }
        Ok(())
    }

    /// The format version that says all of it.
    pub fn format_needed(&self) -> u16 {
        match self.borrowed {
            None => crate::format::header::VERSION,
            Some(_) => REFERRING,
        }
    }

    /// Bytes that its own parts hold.
    pub fn own_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.plain_bytes).sum()
    }

    /// Bytes of its parts' objects: what was moved to the store for it, but for what describes it.
    pub fn moved_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The parts that hold its files' bytes, its own and those of the others, whose parts are given in the order in which it names them. Of a checked manifest.
    pub fn shares(&self, others: &[&[Part]]) -> Vec<Share> {
        let whole = [Piece { bytes: self.plain_bytes, from: 0, at: 0 }];
        let pieces = self.borrowed.as_ref().map_or(&whole[..], |borrowed| &borrowed.pieces);
        let parts: Vec<&[Part]> = std::iter::once(&*self.parts).chain(others.iter().copied()).collect();
        shares(&self.entries, pieces, &parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Offset, Timeline};
    use proptest::prelude::*;

    fn manifest(parts: &[u64], files: &[u64]) -> Manifest {
        let position = |offset| Position::new(Timeline::new(1), Offset::new(offset));
        let mut at = 0;
        let entries = files.iter().enumerate().map(|(number, size)| {
            let entry = Entry {
                path: format!("base/{number}"),
                kind: EntryKind::File,
                mode: 0o600,
                modified: 0,
                size: *size,
                at,
                sha256: None,
            };
            at += size;
            entry
        });
        let part = |(number, bytes): (usize, &u64)| Part {
            number: Sequence::new(number as u64),
            plain_bytes: *bytes,
            bytes: 0,
            digest: Digest::of(b""),
        };
        Manifest {
            format: 1,
            backup: BackupId::from_bytes([1; 16]),
            label: String::new(),
            engine: "postgres".to_owned(),
            major: 15,
            identity: "1".to_owned(),
            segment_bytes: 1 << 24,
            start: position(8),
            end: position(16),
            started: String::new(),
            finished: String::new(),
            checksums: true,
            bad_pages: Vec::new(),
            damaged: false,
            next_transaction: None,
            journal_begin: Sequence::FIRST,
            journal_end: Sequence::FIRST,
            plain_bytes: parts.iter().sum(),
            parts: parts.iter().enumerate().map(part).collect(),
            entries: entries.collect(),
            tablespaces: Vec::new(),
            settings: Vec::new(),
            config_files: Vec::new(),
            borrowed: None,
            table: None,
        }
    }

    proptest! {
        #[test]
        fn every_byte_of_every_file_has_exactly_one_place(
            parts in prop::collection::vec(1..40u64, 0..8), files in prop::collection::vec(0..50u64, 0..8),
        ) {
            let manifest = manifest(&parts, &files);
            let fits = files.iter().sum::<u64>() <= parts.iter().sum::<u64>();
            prop_assert_eq!(manifest.check().is_ok(), fits);
            if fits {
                let mut seen: Vec<u64> = vec![0; files.len()];
                for share in manifest.shares(&[]) {
                    for place in &share.places {
                        prop_assert_eq!(place.offset, seen[place.entry]);
                        prop_assert!(place.in_part + place.bytes <= parts[share.number.get() as usize]);
                        seen[place.entry] += place.bytes;
                    }
                }
                prop_assert_eq!(seen, files);
            }
        }
    }

    #[test]
    fn a_manifest_whose_entries_share_bytes_or_names_is_refused() {
        let sound = manifest(&[10], &[5, 5]);
        assert!(sound.check().is_ok());
        let mut shared = sound.clone();
        shared.entries[1].at = 4;
        assert!(shared.check().is_err());
        let mut twice = sound.clone();
        twice.entries[1].path = "base/0".to_owned();
        assert!(twice.check().is_err());
        let mut hole = sound;
        hole.parts[0].number = Sequence::new(1);
        assert!(hole.check().is_err());
    }
}
