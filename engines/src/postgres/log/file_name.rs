//! Names of the files in `pg_wal` and in an archive, parsed from hostile text and written as PostgreSQL does.
//!
//! ```text
//! TTTTTTTTXXXXXXXXYYYYYYYY                   segment: timeline, and its number in two parts, Y below 2^32 / size
//! TTTTTTTTXXXXXXXXYYYYYYYY.partial           a segment of which only a prefix was written
//! TTTTTTTTXXXXXXXXYYYYYYYY.OOOOOOOO.backup   a backup that starts at offset O of that segment
//! TTTTTTTT.history                           where a timeline comes from
//! ```
//! Eight upper-case hexadecimal digits each. A `.partial` never counts as its segment: only what a decoder verifies
//! of it does. Source: `XLogFileName`, `IsPartialXLogFileName`, `BackupHistoryFileName`, `TLHistoryFileName`,
//! src/include/access/xlog_internal.h. A name means nothing without the cluster's segment size.

use farshore_journal::{Offset, Timeline};

use super::shape::SegmentBytes;

/// The segment that holds `start` on `timeline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentName {
    timeline: Timeline,
    number: u64,
    segment_bytes: SegmentBytes,
}

/// A file of the log, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFileName {
    /// A whole segment.
    Segment(SegmentName),
    /// A segment of which only a prefix was written: after a promotion, or while it is received.
    Partial(SegmentName),
    /// A note of a finished base backup.
    Backup {
        /// The segment in which the backup starts.
        segment: SegmentName,
        /// Where it starts.
        start: Offset,
    },
    /// A timeline's history.
    History(Timeline),
}

/// A text that names no file of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not the name of a log file with segments of {segment_bytes} bytes")]
pub struct FileNameError {
    /// The start of the text.
    pub name: String,
    /// The segment size it was read with.
    pub segment_bytes: u64,
}

impl SegmentName {
    /// The segment that holds `offset`.
    pub fn holding(timeline: Timeline, offset: Offset, segment_bytes: SegmentBytes) -> Self {
        Self { timeline, number: offset.get() / segment_bytes.get(), segment_bytes }
    }

    /// Its timeline.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Its first byte.
    pub fn start(&self) -> Offset {
        Offset::new(self.number * self.segment_bytes.get())
    }

    /// The first byte of the next one; `None` for the last there can be.
    pub fn end(&self) -> Option<Offset> {
        self.start().checked_add(self.segment_bytes.get())
    }

    fn per_high_part(segment_bytes: SegmentBytes) -> u64 {
        (1 << 32) / segment_bytes.get()
    }

    fn parse(text: &str, segment_bytes: SegmentBytes) -> Option<Self> {
        let timeline = timeline(text.get(..8)?)?;
        let high = u64::from(digits(text.get(8..16)?)?);
        let low = u64::from(digits(text.get(16..)?)?);
        let per_high = Self::per_high_part(segment_bytes);
        (low < per_high).then_some(Self { timeline, number: high * per_high + low, segment_bytes })
    }
}

impl LogFileName {
    /// Reads a file's name, with no folder before it.
    ///
    /// # Errors
    /// [`FileNameError`] for every other text.
    pub fn parse(name: &str, segment_bytes: SegmentBytes) -> Result<Self, FileNameError> {
        Self::parse_parts(name, segment_bytes).ok_or_else(|| FileNameError {
            name: name.chars().take(80).collect(),
            segment_bytes: segment_bytes.get(),
        })
    }

    fn parse_parts(name: &str, segment_bytes: SegmentBytes) -> Option<Self> {
        let Some((stem, ending)) = name.split_once('.') else {
            return SegmentName::parse(name, segment_bytes).map(Self::Segment);
        };
        match ending {
            "history" => timeline(stem).map(Self::History),
            "partial" => SegmentName::parse(stem, segment_bytes).map(Self::Partial),
            _ => {
                let segment = SegmentName::parse(stem, segment_bytes)?;
                let within = u64::from(digits(ending.strip_suffix(".backup")?)?);
                let start = segment.start().checked_add(within)?;
                (within < segment_bytes.get()).then_some(Self::Backup { segment, start })
            }
        }
    }
}

/// A timeline's number; there is none with number 0.
fn timeline(text: &str) -> Option<Timeline> {
    digits(text).filter(|number| *number > 0).map(Timeline::new)
}

/// Eight upper-case hexadecimal digits and nothing else.
fn digits(text: &str) -> Option<u32> {
    let plain = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let per_high = Self::per_high_part(self.segment_bytes);
        let (high, low) = (self.number / per_high, self.number % per_high);
        write!(f, "{:08X}{high:08X}{low:08X}", self.timeline.get())
    }
}

impl std::fmt::Display for LogFileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::Backup { segment, start } => {
                let within = start.get() - segment.start().get();
                write!(f, "{segment}.{within:08X}.backup")
            }
            Self::History(timeline) => write!(f, "{:08X}.history", timeline.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_reads_back_as_it_was_written(
            timeline in 1u32.., offset: u64, shift in 20u32..=30, kind in 0..4,
        ) {
            let size = SegmentBytes::new(1 << shift).unwrap();
            let timeline = Timeline::new(timeline);
            let segment = SegmentName::holding(timeline, Offset::new(offset), size);
            prop_assert!(segment.start().get() <= offset);
            prop_assert!(segment.end().is_none_or(|end| offset < end.get()));
            let name = match kind {
                0 => LogFileName::Segment(segment),
                1 => LogFileName::Partial(segment),
                2 => LogFileName::Backup { segment, start: Offset::new(offset) },
                _ => LogFileName::History(timeline),
            };
            prop_assert_eq!(LogFileName::parse(&name.to_string(), size).unwrap(), name);
        }

        #[test]
        fn a_text_that_is_read_is_the_one_that_would_be_written(text in "[0-9A-Fa-f.]{0,30}(\\.backup|\\.partial|\\.history)?") {
            if let Ok(name) = LogFileName::parse(&text, SegmentBytes::DEFAULT) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn names_are_those_that_postgresql_gives() {
        let one_mib = SegmentBytes::new(1 << 20).unwrap();
        let at = |size| SegmentName::holding(Timeline::new(2), Offset::new(0x5F_3AA7_B9A0), size).to_string();
        assert_eq!(at(SegmentBytes::DEFAULT), "000000020000005F0000003A");
        assert_eq!(at(one_mib), "000000020000005F000003AA");
        assert_eq!(at(SegmentBytes::new(1 << 30).unwrap()), "000000020000005F00000000");
        let backup = LogFileName::parse("000000010000000000000002.00000028.backup", SegmentBytes::DEFAULT);
        let Ok(LogFileName::Backup { start, .. }) = backup else { panic!("{backup:?}") };
        assert_eq!(start, Offset::new(0x0200_0028));
    }

    #[test]
    fn what_is_no_log_file_is_refused() {
        for text in [
            "",
            ".history",
            "00000000.history",
            "00000001.HISTORY",
            "0000001.history",
            "000000010000000000000100",
            "00000000000000000000000A",
            "00000001000000000000000a",
            "00000001000000000000000A.partial.partial",
            "00000001000000000000000A.01000000.backup",
            "00000001000000000000000A.ready",
            "+0000001000000000000000A",
            "../../etc/passwd00000000",
            "ÄÄÄÄÄÄÄÄÄÄÄÄ",
        ] {
            assert!(LogFileName::parse(text, SegmentBytes::DEFAULT).is_err(), "{text:?}");
        }
    }
}
