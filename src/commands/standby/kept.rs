//! What a former primary wrote and its successor never had, kept aside before its directory is changed.
//!
//! ```text
//! keeping ─▶ kept ─▶ rewound ─▶ done         each written down, durably, before the step behind it begins
//! ```
//! What always holds: `kept` is written only when every file is durable, so what comes behind it loses nothing; what was kept once is not written again, by whichever run. A record of another
//! cluster, incarnation or directory is refused.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use farshore_engines::postgres::restore::control::{ClusterState, ControlFile};
use farshore_journal::{IncarnationId, Offset, Timeline};
use serde::{Deserialize, Serialize};

/// The record's name.
const RECORD: &str = "farshore-backfresh.json";
/// Files of a server's own that its successor's copy would take the place of.
pub(super) const SETTINGS: [&str; 4] =
    ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"];
const CONTROL: &str = "global/pg_control";

/// How far a backfresh came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Files are being copied aside; the directory is as it was.
    Keeping,
    /// All of them are durable; the directory may be changed.
    Kept,
    /// Its blocks are the successor's.
    Rewound,
    /// It is a standby.
    Done,
}

/// Which directory of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Of {
    pub directory: PathBuf,
    pub incarnation: IncarnationId,
    pub system: u64,
    /// The timeline that the former primary wrote.
    pub timeline: Timeline,
    /// Where its successor's history left that.
    pub left: Offset,
}

/// What stands in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub of: Of,
    pub stage: Stage,
    /// Bytes of log that were kept.
    pub log_bytes: u64,
}

/// A folder for one backfresh.
#[derive(Debug)]
pub(super) struct Kept {
    pub folder: PathBuf,
}

impl Kept {
    /// The record there, if there is one.
    pub fn record(&self) -> io::Result<Option<Record>> {
        match std::fs::read(self.folder.join(RECORD)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Says how far it came. Durable on `Ok`.
    pub fn reach(&self, record: &Record) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        replace(&self.folder.join(RECORD), &bytes)
    }

    /// Copies aside what the successor never had. Durable on `Ok`.
    ///
    /// # Errors
    /// When the folder holds something else, or a file cannot be copied.
    pub fn keep(&self, of: Of, control: &ControlFile) -> io::Result<Record> {
        let mut record = Record { of, stage: Stage::Keeping, log_bytes: 0 };
        if self.record()?.is_none() {
            // Its content is the database's, and settings may hold passwords.
            match std::fs::DirBuilder::new().mode(0o700).create(&self.folder) {
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists && is_empty(&self.folder)? => {}
                other => other?,
            }
            synced(self.folder.parent().unwrap_or(Path::new("/")))?;
            self.reach(&record)?;
        }
        let directory = record.of.directory.clone();
        for name in SETTINGS.iter().chain([&CONTROL]) {
            if directory.join(name).exists() {
                copy(&directory.join(name), &self.folder.join(name.replace('/', "-")))?;
            }
        }
        let log = self.folder.join("pg_wal");
        std::fs::create_dir_all(&log)?;
        for entry in std::fs::read_dir(directory.join("pg_wal"))? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| is_kept(name, &record.of, control)) {
                record.log_bytes += copy(&entry.path(), &log.join(&name))?;
            }
        }
        synced(&log)?;
        synced(&self.folder)?;
        record.stage = Stage::Kept;
        self.reach(&record)?;
        Ok(record)
    }
}

/// Whether a file of the log holds what the successor never had, or says how timelines went.
fn is_kept(name: &str, of: &Of, control: &ControlFile) -> bool {
    if name.ends_with(".history") {
        return true;
    }
    let segment = name.strip_suffix(".partial").unwrap_or(name);
    let Some((timeline, number)) = segment_of(segment, control.wal_segment_bytes.into()) else {
        return false;
    };
    let size = u64::from(control.wal_segment_bytes);
    // What it wrote, or got of somebody, behind a promotion of its own. Its control file may name the timeline before: that changes with the first checkpoint.
    if timeline > of.timeline {
        return true;
    }
    // Behind a clean end there are files that wait to be written to, with other log in them.
    let ends = match control.state {
        ClusterState::ShutDown => control.checkpoint.get() / size,
        _ => u64::MAX,
    };
    timeline == of.timeline && (of.left.get() / size..=ends).contains(&number)
}

/// A segment's timeline and number, by its name. Source: `XLogFromFileName` in `xlog_internal.h`.
fn segment_of(name: &str, size: u64) -> Option<(Timeline, u64)> {
    let digits = |from: usize| u32::from_str_radix(name.get(from..from + 8)?, 16).ok();
    if name.len() != 24 {
        return None;
    }
    let (timeline, high, low) = (digits(0)?, digits(8)?, digits(16)?);
    Some((Timeline::new(timeline), u64::from(high) * ((1 << 32) / size) + u64::from(low)))
}

/// Has the disk write what a tool wrote below a folder. Durable on `Ok`. Links are followed to log and tablespaces, which are the directory's.
pub(super) fn settled(folder: &Path) -> io::Result<()> {
    let holds_tablespaces = folder.file_name().is_some_and(|name| name == "pg_tblspc");
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_its_own = holds_tablespaces || entry.file_name() == "pg_wal";
        if kind.is_dir() || kind.is_symlink() && is_its_own {
            settled(&path)?;
        } else if kind.is_file() {
            File::open(&path)?.sync_all()?;
        }
    }
    synced(folder)
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    Ok(std::fs::read_dir(folder)?.next().is_none())
}

fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    let (mut from, mut to) = (File::open(from)?, created(to)?);
    let copied = io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    Ok(copied)
}

/// An empty file that only its owner reads.
fn created(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes a file by another name and puts it in its place. Durable on `Ok`.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    let mut file = created(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    synced(path.parent().unwrap_or(Path::new("/")))
}

pub(super) fn synced(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(super) mod tests {
    use farshore_engines::postgres::restore::control::{Limits, Major, WalLevel};

    use super::*;

    /// A control file that says this, and of all else what a server of today does.
    pub fn control(state: ClusterState, timeline: u32, checkpoint: u64) -> ControlFile {
        ControlFile {
            major: Major::new(17).unwrap(),
            system_identifier: 7,
            state,
            checkpoint: Offset::new(checkpoint),
            redo: Offset::new(checkpoint),
            timeline: Timeline::new(timeline),
            previous_timeline: Timeline::new(timeline),
            next_xid: 700,
            min_recovery_point: None,
            backup_start: None,
            backup_end_required: false,
            wal_level: WalLevel::Replica,
            limits: Limits {
                max_connections: 100,
                max_worker_processes: 8,
                max_wal_senders: 10,
                max_prepared_transactions: 0,
                max_locks_per_transaction: 64,
            },
            track_commit_timestamp: false,
            block_bytes: 8192,
            relation_segment_blocks: 131_072,
            wal_block_bytes: 8192,
            wal_segment_bytes: 16 << 20,
            wal_log_hints: true,
            data_checksums: true,
        }
    }

    /// Cut off before the first checkpoint on the timeline that it began, its control file names the one before.
    #[test]
    fn log_behind_a_promotion_of_its_own_is_kept_too() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("data");
        std::fs::create_dir_all(directory.join("pg_wal/archive_status")).unwrap();
        let is_kept = [
            ("000000010000000000000004", false),
            ("000000010000000000000005", true),
            ("000000020000000000000005", true),
            ("000000020000000000000006.partial", true),
            ("00000002.history", true),
            ("000000010000000000000005.tmp", false),
        ];
        for (name, _) in is_kept {
            std::fs::write(directory.join("pg_wal").join(name), name).unwrap();
        }
        settled(&directory).unwrap();
        let kept = Kept { folder: folder.path().join("kept") };
        let of = Of {
            directory,
            incarnation: IncarnationId::from_bytes([1; 16]),
            system: 7,
            timeline: Timeline::new(1),
            left: Offset::new(5 * (16 << 20) + 100),
        };
        kept.keep(of, &control(ClusterState::InProduction, 1, 5 * (16 << 20))).unwrap();
        for (name, wanted) in is_kept {
            assert_eq!(kept.folder.join("pg_wal").join(name).exists(), wanted, "{name}");
        }
    }

    #[test]
    fn a_segments_name_says_timeline_and_number() {
        let size = 16 << 20;
        assert_eq!(segment_of("000000010000000200000003", size), Some((Timeline::new(1), 2 * 256 + 3)));
        for wrong in ["", "00000001000000020000000", "0000000g0000000200000003", "archive_status"] {
            assert_eq!(segment_of(wrong, size), None, "{wrong}");
        }
    }
}
