//! What can be wrong with log bytes, and which of it a segment file's unused tail explains.

use farshore_journal::{Offset, Timeline};

/// Log bytes that are not what PostgreSQL writes. After one, a decoder takes no more bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The caller wants to start where no record or page can.
    #[error("no log record or page starts at {offset}")]
    Start {
        /// Where the caller wants to start.
        offset: Offset,
    },
    /// A page's head is not what belongs there.
    #[error("log page at {at}: {fault}")]
    Page {
        /// Where the page starts.
        at: Offset,
        /// Whether it is the first page this decoder was given.
        first: bool,
        /// What is wrong with it.
        fault: PageFault,
    },
    /// A record is not what belongs there.
    #[error("log record at {start}: {fault}")]
    Record {
        /// Where the record starts.
        start: Offset,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// A record with a right checksum holds something this decoder has no layout for. Its meaning may be a commit,
    /// so it is not passed over.
    #[error(
        "log record at {start} (resource manager {resource_manager}, info {info:#04x}) has an unknown layout: {what}"
    )]
    UnknownLayout {
        /// Where the record starts.
        start: Offset,
        /// Its resource manager.
        resource_manager: u8,
        /// Its info byte.
        info: u8,
        /// What did not fit.
        what: &'static str,
    },
}

/// What is wrong with a page's head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// It is all zeros: never written.
    #[error("it is zeroed")]
    Zeroed,
    /// Another major version, or no log at all.
    #[error("its magic is {found:#06x}, expected {expected:#06x}")]
    Magic {
        /// What it has.
        found: u16,
        /// What this major version has.
        expected: u16,
    },
    /// It has flags no known version sets, or a long head where a short one belongs, or the reverse.
    #[error("its flags are {found:#06x}")]
    Flags {
        /// What it has.
        found: u16,
    },
    /// It belongs at another offset: left over from an older use of the file.
    #[error("it says it belongs at {found}")]
    Address {
        /// Where it says it belongs.
        found: Offset,
    },
    /// Its timeline is earlier than that of the page before, or later than the one that is read.
    #[error("its timeline is {found}, expected {lowest} to {highest}")]
    Timeline {
        /// What it has.
        found: Timeline,
        /// That of the page before, or 1.
        lowest: Timeline,
        /// The timeline that is read.
        highest: Timeline,
    },
    /// It belongs to another cluster.
    #[error("it is of cluster {found}, expected {expected}")]
    SystemIdentifier {
        /// What it has.
        found: u64,
        /// What the caller reads.
        expected: u64,
    },
    /// The cluster's segments have another size.
    #[error("its segment size is {found}, expected {expected}")]
    SegmentSize {
        /// What it has, in bytes.
        found: u32,
        /// What the caller reads, in bytes.
        expected: u64,
    },
    /// The cluster's log pages have another size.
    #[error("its page size is {found}, and only 8192 can be read")]
    PageSize {
        /// What it has, in bytes.
        found: u32,
    },
    /// It says that this many bytes of an earlier record go on in it, and the record says otherwise.
    #[error("it continues a record by {found} bytes, expected {expected}")]
    Remaining {
        /// What it has.
        found: u32,
        /// What the record in hand needs; zero when none is in hand.
        expected: u64,
    },
    /// It says that it takes the place of an unfinished record, and none is in hand.
    #[error("it takes the place of an unfinished record, and none is in hand")]
    NothingAbandoned,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Its length is zero: never written.
    #[error("it is zeroed")]
    Zeroed,
    /// Its length is below that of a head or above what PostgreSQL writes.
    #[error("its length is {found}")]
    Length {
        /// What it has, in bytes.
        found: u32,
    },
    /// No such resource manager.
    #[error("its resource manager is {found}")]
    ResourceManager {
        /// What it has.
        found: u8,
    },
    /// It follows another record than the one before it: the two are of different histories, or one is missing.
    #[error("it follows a record at {found}, expected {}", expected.map_or("an earlier one".into(), |e| e.to_string()))]
    PreviousLink {
        /// Where it says the record before it starts.
        found: Offset,
        /// Where that starts, if known.
        expected: Option<Offset>,
    },
    /// Its bytes are not those that were written.
    #[error("its checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// What it has.
        found: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// After an unfinished record one that names it must come, and this one does not; or it does with none unfinished.
    #[error("it should name the unfinished record at {}, it names {}", shown(expected), shown(found))]
    Abandoned {
        /// The unfinished record's start, if known.
        expected: Option<Offset>,
        /// What this record names.
        found: Option<Offset>,
    },
}

fn shown(offset: &Option<Offset>) -> String {
    offset.map_or_else(|| "none".into(), |o| o.to_string())
}

impl LogError {
    /// Whether the unused tail of a segment file explains this: zeros, pages of the file's earlier use, a record
    /// that a crash cut short. What names another cluster, version or layout, or a later timeline than the one that
    /// is read, is never a tail.
    pub(super) fn may_be_tail(&self) -> bool {
        match self {
            Self::Start { .. } | Self::UnknownLayout { .. } => false,
            Self::Record { fault, .. } => match fault {
                RecordFault::Zeroed
                | RecordFault::Length { .. }
                | RecordFault::ResourceManager { .. }
                | RecordFault::PreviousLink { .. }
                | RecordFault::Checksum { .. } => true,
                // It has a right checksum and link, so it was written as it is.
                RecordFault::Abandoned { .. } => false,
            },
            Self::Page { first, fault, .. } => match fault {
                PageFault::Zeroed | PageFault::Address { .. } => true,
                PageFault::Flags { .. } | PageFault::Remaining { .. } | PageFault::NothingAbandoned => true,
                // A file that begins with another magic is another version's log, not an unused tail.
                PageFault::Magic { .. } => !first,
                PageFault::Timeline { found, highest, .. } => found <= highest,
                PageFault::SystemIdentifier { .. }
                | PageFault::SegmentSize { .. }
                | PageFault::PageSize { .. } => false,
            },
        }
    }
}

/// Where the log in a file ends, as far as the file can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOfLog {
    /// The end of the last whole, checked record; `None` when there was none.
    pub at: Option<Offset>,
    /// What stands behind it. `None` when the file's bytes simply stop, within a record or after one.
    pub why: Option<LogError>,
}
