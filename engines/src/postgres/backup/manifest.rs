//! The server's own list of what it sent, and the log that the copy needs.
//!
//! Source: <https://www.postgresql.org/docs/current/backup-manifest-format.html>.

use std::collections::HashMap;

use farshore_journal::{Offset, Timeline};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::archive::SeenFile;

/// How many mismatches are named; a backup with more is no better understood.
const MAX_NAMED: usize = 1000;

/// Why a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not the JSON that was due.
    #[error("the backup manifest cannot be read: {problem}")]
    Parse {
        /// What is wrong.
        problem: String,
    },
    /// Its own checksum is wrong.
    #[error("the backup manifest is damaged: its checksum is wrong")]
    Damaged,
    /// A version that farshore does not know.
    #[error("the backup manifest is of version {version}; known are 1 and 2")]
    UnknownVersion {
        /// Its version.
        version: u32,
    },
}

/// A file of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its path below the data directory, a tablespace's as `pg_tblspc/<oid>/...`. Bytes, as a name need not be UTF-8.
    pub path: Vec<u8>,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// A stretch of log that the backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// Its timeline.
    pub timeline: Timeline,
    /// Its first byte.
    pub start: Offset,
    /// The byte behind its last.
    pub end: Offset,
}

/// What differs between manifest and archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// In the manifest, not in the archives.
    Missing {
        /// Its path.
        path: String,
    },
    /// In the archives, not in the manifest.
    Unlisted {
        /// Its path.
        path: String,
    },
    /// Of another length.
    Size {
        /// Its path.
        path: String,
        /// What the manifest says.
        listed: u64,
        /// What came.
        seen: u64,
    },
    /// Of other content.
    Content {
        /// Its path.
        path: String,
    },
}

/// A backup manifest whose own checksum was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster (from major 17 on).
    pub system_identifier: Option<u64>,
    /// The files.
    pub files: Vec<ManifestFile>,
    /// The log needed, timeline by timeline.
    pub wal_ranges: Vec<WalRange>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawManifest {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<RawRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawFile {
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    checksum: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRange {
    timeline: Timeline,
    #[serde(rename = "Start-LSN")]
    start: Offset,
    #[serde(rename = "End-LSN")]
    end: Offset,
}

impl Manifest {
    /// Reads a manifest and checks its own checksum.
    ///
    /// # Errors
    /// When it is damaged, of an unknown version, or without SHA-256.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let bad = |problem: String| ManifestError::Parse { problem };
        let raw: RawManifest = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if !matches!(raw.version, 1 | 2) {
            return Err(ManifestError::UnknownVersion { version: raw.version });
        }
        // Everything before the line of the checksum is what it was made of.
        const LAST: &[u8] = b"\"Manifest-Checksum\"";
        let end =
            bytes.windows(LAST.len()).rposition(|window| window == LAST).ok_or(ManifestError::Damaged)?;
        if digest(&raw.checksum) != Some(Sha256::digest(&bytes[..end]).into()) {
            return Err(ManifestError::Damaged);
        }
        let files = raw.files.into_iter().map(|file| file.parse().ok_or_else(|| bad("a file".to_owned())));
        let ranges = raw.wal_ranges.into_iter().map(|range| {
            let RawRange { timeline, start, end } = range;
            (start <= end)
                .then_some(WalRange { timeline, start, end })
                .ok_or_else(|| bad("a range of log ends before it starts".to_owned()))
        });
        Ok(Self {
            system_identifier: raw.system_identifier,
            files: files.collect::<Result<_, _>>()?,
            wal_ranges: ranges.collect::<Result<_, _>>()?,
        })
    }

    /// What differs from the files that came; empty means that all is there and equal. At most a thousand are named.
    pub fn check<'a>(&self, seen: impl IntoIterator<Item = &'a SeenFile>) -> Vec<Mismatch> {
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let mut left: HashMap<&[u8], &ManifestFile> =
            self.files.iter().map(|file| (file.path.as_slice(), file)).collect();
        let mut found = Vec::new();
        for file in seen {
            let path = shown(&file.path);
            match left.remove(file.path.as_slice()) {
                None => found.push(Mismatch::Unlisted { path }),
                Some(listed) if listed.size != file.size => {
                    found.push(Mismatch::Size { path, listed: listed.size, seen: file.size });
                }
                Some(listed) if listed.sha256 != file.sha256 => found.push(Mismatch::Content { path }),
                Some(_) => {}
            }
            if found.len() >= MAX_NAMED {
                return found;
            }
        }
        let mut missing: Vec<_> = left.into_keys().collect();
        missing.sort_unstable();
        found.extend(missing.into_iter().map(|path| Mismatch::Missing { path: shown(path) }));
        found.truncate(MAX_NAMED);
        found
    }
}

impl RawFile {
    fn parse(self) -> Option<ManifestFile> {
        let path = match (self.path, self.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(encoded)) => hex::decode(encoded).ok()?,
            _ => return None,
        };
        if self.algorithm.as_deref() != Some("SHA256") {
            return None;
        }
        Some(ManifestFile { path, size: self.size, sha256: digest(&self.checksum?)? })
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest(body: &str) -> Vec<u8> {
        let sum = hex::encode(Sha256::digest(body));
        format!("{body}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
    }

    fn sample() -> Vec<u8> {
        let sum = hex::encode(Sha256::digest(b"x"));
        manifest(&format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7000000000000000001,\n\"Files\": [\n\
             {{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{sum}\" }},\n\
             {{ \"Encoded-Path\": \"ff\", \"Size\": 1, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{sum}\" }}\n],\n\
             \"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n"
        ))
    }

    #[test]
    fn every_way_in_which_files_differ_is_named() {
        let manifest = Manifest::parse(&sample()).unwrap();
        assert_eq!(manifest.system_identifier, Some(7_000_000_000_000_000_001));
        let file = |path: &[u8], size, content: &[u8]| SeenFile {
            path: path.to_vec(),
            size,
            sha256: Sha256::digest(content).into(),
        };
        assert_eq!(manifest.check(&[file(b"a", 1, b"x"), file(b"\xff", 1, b"x")]), []);
        assert_eq!(
            manifest.check(&[file(b"a", 1, b"y"), file(b"b", 0, b"")]),
            [
                Mismatch::Content { path: "a".to_owned() },
                Mismatch::Unlisted { path: "b".to_owned() },
                Mismatch::Missing { path: "\u{FFFD}".to_owned() },
            ]
        );
        let size = manifest.check(&[file(b"a", 2, b"xx"), file(b"\xff", 1, b"x")]);
        assert_eq!(size, [Mismatch::Size { path: "a".to_owned(), listed: 1, seen: 2 }]);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut bytes = sample();
        let at = bytes.iter().position(|byte| *byte == b'a').unwrap();
        for at in [at, bytes.len() / 2] {
            bytes[at] ^= 1;
            assert!(Manifest::parse(&bytes).is_err());
            bytes[at] ^= 1;
        }
        assert!(Manifest::parse(&bytes).is_ok());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Manifest::parse(&bytes);
        }
    }
}
