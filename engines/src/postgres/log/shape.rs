//! What must be known of a cluster before its log can be read: major version, segment size, identity.

use std::fmt;

/// Bytes of a log page. PostgreSQL can be built with others; such a cluster is refused at its first page.
/// Source: `XLOG_BLCKSZ`, src/include/pg_config.h of a default build.
pub(super) const PAGE_BYTES: u64 = 8192;
/// Bytes of a page's head.
/// Source: `XLogPageHeaderData`, src/include/access/xlog_internal.h.
pub(super) const PAGE_HEAD_BYTES: usize = 24;
/// Bytes of the head of a segment's first page.
/// Source: `XLogLongPageHeaderData`, same file.
pub(super) const LONG_PAGE_HEAD_BYTES: usize = 40;

/// A cluster this decoder cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A major version whose log layout is not known here; reading it by guess could miss commits.
    #[error("the log of PostgreSQL {major} cannot be read: known majors are 14 to 18")]
    UnknownMajor {
        /// What was asked for.
        major: u32,
    },
    /// Not a power of two between 1 MiB and 1 GiB.
    #[error("{bytes} is not a log segment size: it must be a power of two from 1 MiB to 1 GiB")]
    SegmentSize {
        /// What was asked for.
        bytes: u64,
    },
}

/// A major version whose log this decoder reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Major {
    Pg14,
    Pg15,
    Pg16,
    Pg17,
    Pg18,
}

impl Major {
    /// The known major of this number.
    ///
    /// # Errors
    /// [`ShapeError::UnknownMajor`].
    pub fn new(major: u32) -> Result<Self, ShapeError> {
        Ok(match major {
            14 => Self::Pg14,
            15 => Self::Pg15,
            16 => Self::Pg16,
            17 => Self::Pg17,
            18 => Self::Pg18,
            _ => return Err(ShapeError::UnknownMajor { major }),
        })
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Pg14 => 14,
            Self::Pg15 => 15,
            Self::Pg16 => 16,
            Self::Pg17 => 17,
            Self::Pg18 => 18,
        }
    }

    /// The first two bytes of each log page.
    /// Source: `XLOG_PAGE_MAGIC`, src/include/access/xlog_internal.h of each `REL_..._STABLE` branch.
    pub(super) const fn magic(self) -> u16 {
        match self {
            Self::Pg14 => 0xD10D,
            Self::Pg15 => 0xD110,
            Self::Pg16 => 0xD113,
            Self::Pg17 => 0xD116,
            Self::Pg18 => 0xD118,
        }
    }

    /// Whether a resource manager of this number can have written a record. Extensions have their own from 15 on.
    /// Source: src/include/access/rmgrlist.h and rmgr.h (`RmgrIdIsValid`).
    pub(super) const fn knows_resource_manager(self, id: u8) -> bool {
        const LAST_BUILT_IN: u8 = 21;
        const FIRST_CUSTOM: u8 = 128;
        id <= LAST_BUILT_IN || (id >= FIRST_CUSTOM && !matches!(self, Self::Pg14))
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// Bytes of a log segment: a power of two from 1 MiB to 1 GiB.
/// Source: `IsValidWalSegSize`, src/include/access/xlog_internal.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentBytes(u32);

impl SegmentBytes {
    /// What `initdb` chooses when not told otherwise: 16 MiB.
    pub const DEFAULT: Self = Self(16 << 20);

    /// The segment size of this many bytes.
    ///
    /// # Errors
    /// [`ShapeError::SegmentSize`].
    pub fn new(bytes: u64) -> Result<Self, ShapeError> {
        u32::try_from(bytes)
            .ok()
            .filter(|b| b.is_power_of_two() && (1 << 20..=1 << 30).contains(b))
            .map(Self)
            .ok_or(ShapeError::SegmentSize { bytes })
    }

    /// Its bytes.
    pub const fn get(self) -> u64 {
        self.0 as u64
    }
}

/// What a cluster's log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogShape {
    /// The server's major version.
    pub major: Major,
    /// `wal_segment_size`.
    pub segment_bytes: SegmentBytes,
    /// What `IDENTIFY_SYSTEM` answers: pages of another cluster are refused.
    pub system_identifier: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoder_refuses_unknown_majors() {
        for major in [0, 9, 13, 19, 20, u32::MAX] {
            assert_eq!(Major::new(major), Err(ShapeError::UnknownMajor { major }));
        }
        for major in 14..=18 {
            assert_eq!(Major::new(major).unwrap().number(), major);
        }
    }

    #[test]
    fn only_sizes_that_initdb_accepts_are_segment_sizes() {
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, u64::MAX] {
            assert_eq!(SegmentBytes::new(bytes), Err(ShapeError::SegmentSize { bytes }));
        }
        for shift in 20..=30 {
            assert_eq!(SegmentBytes::new(1 << shift).unwrap().get(), 1 << shift);
        }
    }
}
