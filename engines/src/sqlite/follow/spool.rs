//! What is kept beside a database when its log is begun anew: the records that no target has stored yet, and what the first
//! transaction of the new log must hold.
//!
//! ```text
//! magic "FSHRSQL1" | bytes of the head (4) | head, JSON | records | BLAKE3 of all before it (32)
//! ```
//! What always holds: a file that was not written whole does not read. It is written before the row that begins the log anew; a crash between
//! the two leaves a log that still holds all that is in it. There is one, of the last such moment.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::recent::Boundary;
use crate::sqlite::hold::Beat;
use crate::sqlite::wal::Salts;

const MAGIC: &[u8; 8] = b"FSHRSQL1";
const DIGEST_BYTES: usize = 32;
/// A file of more is none: the records in it are bounded, see `SPOOL_BYTES`.
const MOST_BYTES: u64 = 64 << 20;

/// The head of what is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Where the records begin.
    pub before: Boundary,
    /// The salts of the log that is begun anew.
    pub salts: Salts,
    /// What the row has that begins it.
    #[serde(with = "hex::serde")]
    pub beat: Beat,
}

/// Keeps it, in the place of what was kept before. It is not synchronised: writers wait meanwhile. A process that is killed leaves it as it is; after a
/// power loss it may be gone or not read, which is doubt, and never wrong.
///
/// # Errors
/// When it cannot be written: what was kept before is there.
pub(super) fn write(path: &Path, kept: &Kept, records: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(kept).map_err(io::Error::other)?;
    let length = u32::try_from(head.len()).map_err(io::Error::other)?;
    let mut hasher = blake3::Hasher::new();
    let mut name = path.to_owned().into_os_string();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let mut file = File::create(&fresh)?;
    for part in [&MAGIC[..], &length.to_le_bytes(), &head, records] {
        hasher.update(part);
        file.write_all(part)?;
    }
    file.write_all(hasher.finalize().as_bytes())?;
    std::fs::rename(fresh, path)
}

/// What is kept; `None` when there is nothing whole.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(path: &Path) -> io::Result<Option<(Kept, Vec<u8>)>> {
    let bytes = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MOST_BYTES => return Ok(None),
        Ok(_) => std::fs::read(path)?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why),
    };
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Option<(Kept, Vec<u8>)> {
    let (content, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    if blake3::hash(content).as_bytes() != digest {
        return None;
    }
    let (length, rest) = content.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (head, records) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((serde_json::from_slice(head).ok()?, records.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back_and_nothing_that_was_cut_or_changed_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        assert_eq!(read(&path).unwrap(), None);
        let before = Boundary { offset: 99, number: 7, digest: [1; 8] };
        let kept = Kept { before, salts: Salts { rising: 3, random: 4 }, beat: [5; 16] };
        write(&path, &kept, b"older").unwrap();
        write(&path, &kept, b"records").unwrap();
        assert_eq!(read(&path).unwrap(), Some((kept, b"records".to_vec())));
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(parse(&changed), None, "byte {at}");
            assert_eq!(parse(&bytes[..at]), None, "cut to {at}");
        }
    }
}
