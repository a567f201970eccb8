//! One tar archive of a backup, entry by entry.
//!
//! What always holds: a path that could leave the target is refused (`..`, absolute, NUL, empty part); an archive that
//! ends early is an error, never a shorter file; at most [`CAPACITY`] batches wait between network and disk.
//!
//! The archive is read on a blocking thread by [`read_archive`], and fed from an async one through [`ArchiveFeed`].
//! What it does not do: write files. An [`EntrySink`] does, or anything else.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::page_checksum::{BadPage, FileCheck, MAX_NAMED, PageRules};

/// Batches that wait for a slow sink: 2 MiB.
const CAPACITY: usize = 8;
/// Bytes of a batch. The server sends 32 KiB at a time, and waking a thread for each of these costs more than copying them.
const BATCH: usize = 256 << 10;
/// One read of a file: a multiple of the page size, so that pages are seldom cut.
const PIECE: usize = 256 << 10;
/// More entries than any cluster has: 2^24.
const MAX_ENTRIES: usize = 1 << 24;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no tar archive, or it ends early.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// A path that could leave the target.
    #[error("the archive holds the path `{path}`, which is not beneath its target")]
    UnsafePath {
        /// The path, as text.
        path: String,
    },
    /// Neither file, directory nor symbolic link.
    #[error("the archive holds `{path}`, which is neither file, directory nor symbolic link")]
    UnknownKind {
        /// The path, as text.
        path: String,
    },
    /// A file that is shorter than its header says.
    #[error("the archive ends inside `{path}`")]
    Truncated {
        /// The path, as text.
        path: String,
    },
    /// More entries than any cluster has.
    #[error("the archive holds more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// The sink failed.
    #[error("`{path}` could not be taken")]
    Take {
        /// The path, as text.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link to this. Its target is what the server had, and leads anywhere: whoever makes the link decides.
    Symlink(PathBuf),
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupEntry {
    /// Its path, beneath the target for certain.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Its length in bytes; 0 but for files.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// When it was changed, in seconds since 1970.
    pub mtime: u64,
}

/// Where entries go.
pub trait EntrySink {
    /// An entry begins.
    ///
    /// # Errors
    /// Any ends the backup.
    fn begin(&mut self, entry: &BackupEntry) -> io::Result<()>;

    /// Bytes of the file that began.
    ///
    /// # Errors
    /// Any ends the backup.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The entry is whole.
    ///
    /// # Errors
    /// Any ends the backup.
    fn end(&mut self) -> io::Result<()>;
}

/// A file that came, as the manifest would list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Its path below the data directory, a tablespace's as `pg_tblspc/<oid>/...`.
    pub path: Vec<u8>,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// What an archive held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveReport {
    /// Its files in their order.
    pub files: Vec<SeenFile>,
    /// Pages with a wrong checksum: the first thousand.
    pub bad_pages: Vec<BadPage>,
    /// How many there are in all.
    pub bad_page_count: u64,
}

enum Piece {
    Batch(VecDeque<Bytes>),
    End,
}

/// The async end: takes an archive's bytes.
pub struct ArchiveFeed {
    pieces: mpsc::Sender<Piece>,
    batch: VecDeque<Bytes>,
    batch_bytes: usize,
}

impl std::fmt::Debug for ArchiveFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Content of a database is not for logs.
        f.debug_struct("ArchiveFeed").field("batch_bytes", &self.batch_bytes).finish_non_exhaustive()
    }
}

/// The blocking end: reads them.
#[derive(Debug)]
pub struct ArchiveSource {
    pieces: mpsc::Receiver<Piece>,
    batch: VecDeque<Bytes>,
    rest: Bytes,
    ended: bool,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Content of a database is not for logs.
            Self::Batch(batch) => write!(f, "Batch({})", batch.len()),
            Self::End => f.write_str("End"),
        }
    }
}

/// A bounded channel from the network to [`read_archive`].
pub fn archive_channel() -> (ArchiveFeed, ArchiveSource) {
    let (sender, pieces) = mpsc::channel(CAPACITY);
    let feed = ArchiveFeed { pieces: sender, batch: VecDeque::new(), batch_bytes: 0 };
    (feed, ArchiveSource { pieces, batch: VecDeque::new(), rest: Bytes::new(), ended: false })
}

impl ArchiveFeed {
    /// Passes bytes on, some later than at once; waits while the reader is behind. `false` when the reader has gone: its result
    /// says why.
    ///
    /// # Cancel safety
    /// When dropped, the bytes may be lost: do not use it in a race.
    pub async fn put(&mut self, bytes: Bytes) -> bool {
        self.batch_bytes += bytes.len();
        self.batch.push_back(bytes);
        self.batch_bytes < BATCH || self.pass_on().await
    }

    async fn pass_on(&mut self) -> bool {
        self.batch_bytes = 0;
        self.pieces.send(Piece::Batch(std::mem::take(&mut self.batch))).await.is_ok()
    }

    /// Says that the archive is whole. A feed dropped without this makes the reader fail. `false` when the reader has
    /// gone.
    pub async fn finish(mut self) -> bool {
        self.pass_on().await && self.pieces.send(Piece::End).await.is_ok()
    }
}

impl Read for ArchiveSource {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            if let Some(bytes) = self.batch.pop_front() {
                self.rest = bytes;
                continue;
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Batch(batch)) => self.batch = batch,
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the backup was broken off"));
                }
            }
        }
        let length = into.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

/// Reads one archive to its end, on a blocking thread. `tablespace` is the archive's; `pages` asks for a check of the
/// pages (the cluster must have checksums).
///
/// # Errors
/// See [`ArchiveError`].
pub fn read_archive(
    source: impl Read,
    tablespace: Option<u32>,
    pages: Option<PageRules>,
    sink: &mut dyn EntrySink,
) -> Result<ArchiveReport, ArchiveError> {
    let mut archive = tar::Archive::new(source);
    let mut report = ArchiveReport::default();
    let mut buffer = vec![0; PIECE];
    let mut count = 0;
    for entry in archive.entries().map_err(ArchiveError::Read)? {
        let mut reader = entry.map_err(ArchiveError::Read)?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(ArchiveError::TooManyEntries);
        }
        let entry = describe(&reader)?;
        let shown = entry.path.display().to_string();
        let taken = |source| ArchiveError::Take { path: shown.clone(), source };
        sink.begin(&entry).map_err(taken)?;
        if entry.kind == EntryKind::File {
            let listed = listed_path(&entry.path, tablespace);
            let mut check = pages.and_then(|rules| FileCheck::new(&entry.path, tablespace.is_some(), rules));
            let (mut hash, mut size) = (Sha256::new(), 0);
            loop {
                let length = reader.read(&mut buffer).map_err(ArchiveError::Read)?;
                if length == 0 {
                    break;
                }
                let bytes = &buffer[..length];
                size += length as u64;
                hash.update(bytes);
                if let Some(check) = &mut check {
                    check.update(bytes, |block, expected, found| {
                        report.bad_page_count += 1;
                        if report.bad_pages.len() < MAX_NAMED {
                            let path = String::from_utf8_lossy(&listed).into_owned();
                            report.bad_pages.push(BadPage { path, block, expected, found });
                        }
                    });
                }
                sink.content(bytes).map_err(taken)?;
            }
            if size != entry.size {
                return Err(ArchiveError::Truncated { path: shown });
            }
            report.files.push(SeenFile { path: listed, size, sha256: hash.finalize().into() });
        }
        sink.end().map_err(taken)?;
    }
    // The padding behind the last entry belongs to the archive: the feeder must not be left waiting with it.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(ArchiveError::Read)?;
    Ok(report)
}

fn describe<R: Read>(reader: &tar::Entry<'_, R>) -> Result<BackupEntry, ArchiveError> {
    let raw = reader.path_bytes();
    let shown = || String::from_utf8_lossy(&raw).chars().take(200).collect::<String>();
    let path = safe_path(&raw).ok_or_else(|| ArchiveError::UnsafePath { path: shown() })?;
    let header = reader.header();
    let (kind, size) = match header.entry_type() {
        tar::EntryType::Regular => (EntryKind::File, reader.size()),
        tar::EntryType::Directory => (EntryKind::Dir, 0),
        tar::EntryType::Symlink => {
            let target = reader.link_name_bytes().filter(|target| !target.contains(&0));
            let target = target.ok_or_else(|| ArchiveError::UnsafePath { path: shown() })?;
            (EntryKind::Symlink(std::ffi::OsString::from_vec(target.into_owned()).into()), 0)
        }
        _ => return Err(ArchiveError::UnknownKind { path: shown() }),
    };
    let mode = header.mode().map_err(ArchiveError::Read)? & 0o7777;
    let mtime = header.mtime().map_err(ArchiveError::Read)?;
    Ok(BackupEntry { path, kind, size, mode, mtime })
}

/// The path, if it stays beneath its target. A leading `./` and a trailing `/` are left out, as the server writes both.
fn safe_path(raw: &[u8]) -> Option<PathBuf> {
    let mut raw = raw.strip_prefix(b"./").unwrap_or(raw);
    raw = raw.strip_suffix(b"/").unwrap_or(raw);
    let safe = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    raw.split(|byte| *byte == b'/').all(safe).then(|| Path::new(OsStr::from_bytes(raw)).to_owned())
}

fn listed_path(path: &Path, tablespace: Option<u32>) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    match tablespace {
        None => path.to_vec(),
        Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), path].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Nowhere;

    impl EntrySink for Nowhere {
        fn begin(&mut self, _: &BackupEntry) -> io::Result<()> {
            Ok(())
        }
        fn content(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn end(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn archive_of(path: &[u8], content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(1);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_path_that_leaves_its_target_is_refused() {
        for path in [&b"/etc/x"[..], b"../x", b"a/../x", b"a//x", b".", b"..", b"a/./x", b"./../x"] {
            assert_eq!(safe_path(path), None, "{}", String::from_utf8_lossy(path));
            let read = read_archive(&archive_of(path, b"x")[..], None, None, &mut Nowhere);
            assert!(matches!(read, Err(ArchiveError::UnsafePath { .. })), "{read:?}");
        }
        assert_eq!(safe_path(b"./pg_wal/"), Some(PathBuf::from("pg_wal")));
    }

    #[test]
    fn an_archive_cut_inside_a_file_is_an_error() {
        let whole = archive_of(b"base/1/1", &[7; 3000]);
        for cut in [100, 600, 3000] {
            assert!(read_archive(&whole[..cut], None, None, &mut Nowhere).is_err(), "cut at {cut}");
        }
        let report = read_archive(&whole[..], Some(5), None, &mut Nowhere).unwrap();
        assert_eq!(
            (report.files[0].path.as_slice(), report.files[0].size),
            (&b"pg_tblspc/5/base/1/1"[..], 3000)
        );
    }

    #[tokio::test]
    async fn a_feed_that_is_dropped_never_looks_like_a_whole_archive() {
        let whole = archive_of(b"a", b"x");
        for finish in [false, true] {
            let (mut feed, source) = archive_channel();
            let reader = tokio::task::spawn_blocking(move || read_archive(source, None, None, &mut Nowhere));
            assert!(feed.put(whole.clone().into()).await);
            if finish {
                assert!(feed.finish().await);
            } else {
                drop(feed);
            }
            assert_eq!(reader.await.unwrap().is_ok(), finish);
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read_archive(&bytes[..], None, None, &mut Nowhere);
        }
    }
}
