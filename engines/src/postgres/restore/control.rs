//! Reads `global/pg_control`, the file that says who a cluster is and how far it got.
//!
//! The bytes come from a store that may be hostile: nothing is used before the checksum over the structure of
//! that very version holds, and every value is range-checked before it becomes a number of ours.
//!
//! Little-endian layout with natural alignment, equal on 14 to 18 but for the tail:
//!
//! | offset | size | field | | offset | size | field |
//! |---|---|---|---|---|---|---|
//! | 0 | 8 | system identifier | | 168 | 1 | backup end required |
//! | 8, 12 | 4, 4 | control, catalog version | | 172, 176 | 4, 1 | wal_level, wal_log_hints |
//! | 16 | 4 | state | | 180..200 | 5 x 4 | the limits |
//! | 32 | 8 | checkpoint location | | 200 | 1 | track_commit_timestamp |
//! | 40 | 8 | its redo | | 204, 208 | 4, 8 | alignment, 1234567.0 |
//! | 48, 52 | 4, 4 | its timeline, previous one | | 216..232 | 4 x 4 | block, relation segment, log block, log segment |
//! | 64 | 8 | next transaction id | | 252 | 4 | data checksum version |
//! | 136, 144 | 8, 4 | minimum recovery point, timeline | | 256 | 32 | nonce (18: one flag, then the nonce) |
//! | 152, 160 | 8, 8 | backup start, end | | 288 (18: 292) | 4 | CRC-32C of all before |
//!
//! Source: `src/include/catalog/pg_control.h` and `catversion.h` of each release branch; every field is compared
//! with the server's own reading of it on all five majors in `tests/restore_real.rs`.

use farshore_journal::{Offset, Timeline};

/// A file of this size, whatever the version. Source: `PG_CONTROL_FILE_SIZE`.
pub const FILE_BYTES: usize = 8192;

/// A PostgreSQL major that farshore knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Major(u8);

impl Major {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [Self(14), Self(15), Self(16), Self(17), Self(18)];

    /// The major of this number, if farshore knows it.
    pub fn new(number: u32) -> Option<Self> {
        u8::try_from(number).ok().map(Self).filter(|major| Self::ALL.contains(major))
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
}

impl std::fmt::Display for Major {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a control file is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Not the size of a control file.
    #[error("pg_control has {found} bytes, not {FILE_BYTES}")]
    Size {
        /// Bytes found.
        found: usize,
    },
    /// Written by a server farshore does not know, or by a machine of the other byte order.
    #[error(
        "pg_control has format {control} of catalog {catalog}, which is none of PostgreSQL 14 to 18 on a little-endian machine"
    )]
    Version {
        /// `pg_control_version`.
        control: u32,
        /// `catalog_version_no`.
        catalog: u32,
    },
    /// Damaged.
    #[error("pg_control's checksum is {stored:08X}, its content gives {computed:08X}")]
    Checksum {
        /// In the file.
        stored: u32,
        /// Of the file.
        computed: u32,
    },
    /// A value no server writes.
    #[error("pg_control says {field} is {value}, which no server writes")]
    Value {
        /// The field's name.
        field: &'static str,
        /// What it says.
        value: i64,
    },
}

/// What the cluster was doing when the file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Starting.
    Startup,
    /// Shut down cleanly as a primary.
    ShutDown,
    /// Shut down cleanly while in recovery.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// Recovering from an archive, or a standby.
    InArchiveRecovery,
    /// Running, or crashed.
    InProduction,
}

/// How much the log says. Source: `src/include/access/xlog.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Crash recovery only: nothing can be restored across it.
    Minimal,
    /// Enough for archives and standbys.
    Replica,
    /// Enough for logical decoding as well.
    Logical,
}

/// The settings a recovering server may not go below.
/// Source: <https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

impl Limits {
    /// What satisfies both.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self {
            max_connections: self.max_connections.max(other.max_connections),
            max_worker_processes: self.max_worker_processes.max(other.max_worker_processes),
            max_wal_senders: self.max_wal_senders.max(other.max_wal_senders),
            max_prepared_transactions: self.max_prepared_transactions.max(other.max_prepared_transactions),
            max_locks_per_transaction: self.max_locks_per_transaction.max(other.max_locks_per_transaction),
        }
    }

    /// Whether a server with these limits can replay a log that demands `needed`.
    pub fn satisfy(&self, needed: &Self) -> bool {
        self.max_connections >= needed.max_connections
            && self.max_worker_processes >= needed.max_worker_processes
            && self.max_wal_senders >= needed.max_wal_senders
            && self.max_prepared_transactions >= needed.max_prepared_transactions
            && self.max_locks_per_transaction >= needed.max_locks_per_transaction
    }
}

/// A control file whose checksum held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// The server's major.
    pub major: Major,
    /// Which cluster.
    pub system_identifier: u64,
    /// What it was doing.
    pub state: ClusterState,
    /// Start of the last checkpoint's record.
    pub checkpoint: Offset,
    /// Where replay from that checkpoint begins.
    pub redo: Offset,
    /// The timeline of that checkpoint.
    pub timeline: Timeline,
    /// The timeline before it; the same one unless the checkpoint began a timeline.
    pub previous_timeline: Timeline,
    /// The next 64-bit transaction id at that checkpoint.
    pub next_xid: u64,
    /// Replay must reach this before the data is consistent; `None` outside archive recovery.
    pub min_recovery_point: Option<(Offset, Timeline)>,
    /// The redo of the base backup being recovered from, until its end has been replayed.
    pub backup_start: Option<Offset>,
    /// Whether an end-of-backup record must still be seen.
    pub backup_end_required: bool,
    /// How much the log says.
    pub wal_level: WalLevel,
    /// The limits the log demands.
    pub limits: Limits,
    /// Whether commit times are kept.
    pub track_commit_timestamp: bool,
    /// Bytes of a data block.
    pub block_bytes: u32,
    /// Blocks of a relation's segment file.
    pub relation_segment_blocks: u32,
    /// Bytes of a log block.
    pub wal_block_bytes: u32,
    /// Bytes of a log segment.
    pub wal_segment_bytes: u32,
    /// Whether changes of hints are logged too, so that every changed block is in the log.
    pub wal_log_hints: bool,
    /// Whether data pages carry checksums.
    pub data_checksums: bool,
}

impl ControlFile {
    /// Reads the whole file's bytes.
    ///
    /// # Errors
    /// When it is not the unharmed control file of a PostgreSQL 14 to 18.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let bytes: &[u8; FILE_BYTES] =
            bytes.try_into().map_err(|_| ControlError::Size { found: bytes.len() })?;
        let (control, catalog) = (u32_at(bytes, 8), u32_at(bytes, 12));
        let (major, crc_at) = version(control, catalog).ok_or(ControlError::Version { control, catalog })?;
        let (stored, computed) = (u32_at(bytes, crc_at), crc32c::crc32c(&bytes[..crc_at]));
        if stored != computed {
            return Err(ControlError::Checksum { stored, computed });
        }
        let in_range = |field, at, low: i64, high: i64| {
            let value = i64::from(u32_at(bytes, at).cast_signed());
            let fits = (low..=high).contains(&value);
            fits.then(|| value.unsigned_abs() as u32).ok_or(ControlError::Value { field, value })
        };
        let power = |field, at, low: u32, high: u32| {
            let value = in_range(field, at, low.into(), high.into())?;
            let value = value.is_power_of_two().then_some(value);
            value.ok_or_else(|| ControlError::Value { field, value: u32_at(bytes, at).into() })
        };
        let flag = |at: usize| bytes[at] != 0;
        let offset = |at: usize| Offset::new(u64_at(bytes, at));
        let set = |at: usize| Some(offset(at)).filter(|o| o.get() != 0);
        // 8-byte alignment and IEEE doubles: what every platform of a supported server has.
        in_range("maximum alignment", 204, 8, 8)?;
        if f64::from_bits(u64_at(bytes, 208)) != 1_234_567.0 {
            return Err(ControlError::Value {
                field: "float format",
                value: u64_at(bytes, 208).cast_signed(),
            });
        }
        let timeline = Timeline::new(in_range("timeline", 48, 1, i32::MAX.into())?);
        Ok(Self {
            major,
            system_identifier: u64_at(bytes, 0),
            state: match u32_at(bytes, 16) {
                0 => ClusterState::Startup,
                1 => ClusterState::ShutDown,
                2 => ClusterState::ShutDownInRecovery,
                3 => ClusterState::ShuttingDown,
                4 => ClusterState::InCrashRecovery,
                5 => ClusterState::InArchiveRecovery,
                6 => ClusterState::InProduction,
                other => return Err(ControlError::Value { field: "state", value: other.into() }),
            },
            checkpoint: offset(32),
            redo: offset(40),
            timeline,
            previous_timeline: Timeline::new(in_range("previous timeline", 52, 1, i32::MAX.into())?),
            next_xid: u64_at(bytes, 64),
            min_recovery_point: set(136).map(|point| (point, Timeline::new(u32_at(bytes, 144)))),
            backup_start: set(152),
            backup_end_required: flag(168),
            wal_level: match u32_at(bytes, 172) {
                0 => WalLevel::Minimal,
                1 => WalLevel::Replica,
                2 => WalLevel::Logical,
                other => return Err(ControlError::Value { field: "wal_level", value: other.into() }),
            },
            // The servers' own upper bounds; higher ones would keep the restored server from starting.
            limits: Limits {
                max_connections: in_range("max_connections", 180, 1, 262_143)?,
                max_worker_processes: in_range("max_worker_processes", 184, 0, 262_143)?,
                max_wal_senders: in_range("max_wal_senders", 188, 0, 262_143)?,
                max_prepared_transactions: in_range("max_prepared_transactions", 192, 0, 262_143)?,
                max_locks_per_transaction: in_range("max_locks_per_transaction", 196, 10, i32::MAX.into())?,
            },
            track_commit_timestamp: flag(200),
            block_bytes: power("block size", 216, 1 << 10, 1 << 15)?,
            relation_segment_blocks: in_range("relation segment size", 220, 1, i32::MAX.into())?,
            wal_block_bytes: power("log block size", 224, 1 << 10, 1 << 16)?,
            wal_segment_bytes: power("log segment size", 228, 1 << 20, 1 << 30)?,
            wal_log_hints: flag(176),
            data_checksums: u32_at(bytes, 252) != 0,
        })
    }
}

/// The major and where its checksum stands. A catalog version belongs to one major: it is fixed at release.
/// Source: `catversion.h`, `pg_control.h` (format 1300 for 14 to 16, 1700 for 17, 1800 for 18).
fn version(control: u32, catalog: u32) -> Option<(Major, usize)> {
    match (control, catalog) {
        (1300, 202_107_181) => Some((Major(14), 288)),
        (1300, 202_209_061) => Some((Major(15), 288)),
        (1300, 202_307_071) => Some((Major(16), 288)),
        (1300 | 1700, 202_406_281) => Some((Major(17), 288)),
        (1800, 202_506_291) => Some((Major(18), 292)),
        _ => None,
    }
}

fn u32_at(bytes: &[u8; FILE_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; FILE_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file as a running server of this major leaves it, with the checksum right.
    pub(in super::super) fn sample(major: Major) -> Vec<u8> {
        let mut bytes = vec![0u8; FILE_BYTES];
        let (control, catalog, crc_at) = match major.get() {
            14 => (1300u32, 202_107_181u32, 288),
            15 => (1300, 202_209_061, 288),
            16 => (1300, 202_307_071, 288),
            17 => (1700, 202_406_281, 288),
            _ => (1800, 202_506_291, 292),
        };
        for (at, value) in [
            (8, control),
            (12, catalog),
            (16, 6),
            (48, 3),
            (52, 2),
            (172, 1),
            (180, 100),
            (184, 8),
            (188, 10),
            (192, 0),
            (196, 64),
            (204, 8),
            (216, 8192),
            (220, 131_072),
            (224, 8192),
            (228, 16 << 20),
            (252, 1),
        ] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes[0..8].copy_from_slice(&7_123_456_789_012_345_678u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&0x2000_0060u64.to_le_bytes());
        bytes[40..48].copy_from_slice(&0x2000_0028u64.to_le_bytes());
        bytes[64..72].copy_from_slice(&(5u64 << 32 | 748).to_le_bytes());
        bytes[208..216].copy_from_slice(&1_234_567.0f64.to_le_bytes());
        reseal(&mut bytes, crc_at);
        bytes
    }

    fn reseal(bytes: &mut [u8], crc_at: usize) {
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn every_major_is_told_by_its_own_file() {
        for major in Major::ALL {
            let file = ControlFile::parse(&sample(major)).unwrap();
            assert_eq!(file.major, major);
            assert_eq!(file.timeline, Timeline::new(3));
            assert_eq!(file.next_xid, 5 << 32 | 748);
            assert_eq!(file.min_recovery_point, None);
            assert_eq!(file.redo, "0/20000028".parse().unwrap());
        }
    }

    #[test]
    fn a_file_of_another_size_or_version_is_refused() {
        assert_eq!(ControlFile::parse(&[]), Err(ControlError::Size { found: 0 }));
        let mut bytes = sample(Major(15));
        bytes[12] ^= 1;
        reseal(&mut bytes, 288);
        assert!(matches!(ControlFile::parse(&bytes), Err(ControlError::Version { .. })));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_goes_unseen(at in 0usize..292, bit in 0u8..8, major in 0usize..5) {
            let major = Major::ALL[major];
            let mut bytes = sample(major);
            prop_assume!(major.get() == 18 || at < 292);
            bytes[at] ^= 1 << bit;
            prop_assert!(ControlFile::parse(&bytes).is_err());
        }

        #[test]
        fn a_sealed_lie_gives_an_error_or_a_value_in_range(at in 16usize..252, value: [u8; 4], major in 0usize..5) {
            let major = Major::ALL[major];
            let mut bytes = sample(major);
            bytes[at..at + 4].copy_from_slice(&value);
            reseal(&mut bytes, if major.get() == 18 { 292 } else { 288 });
            if let Ok(file) = ControlFile::parse(&bytes) {
                prop_assert!(file.wal_segment_bytes.is_power_of_two());
                prop_assert!(file.limits.max_connections < 262_144);
            }
        }
    }
}
