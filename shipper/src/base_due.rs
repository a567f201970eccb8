//! Whether a journal needs a base backup, and why: pure decisions over what the store holds of it.
//!
//! What always holds: a backup is a base for now only when the journal is stored without a gap from its first log segment to
//! its end *on its own timeline*, when the journal's present line of history goes through that end, and when no gap lies
//! between it and the journal's end. A position alone proves none of this: behind a promotion the same offset is other log.
//! What it does not do: it reads nothing ([`crate::line`] does) and takes nothing ([`crate::base_backup`] does).

use std::fmt;

use farshore_engines::postgres::log::history::{Branch as Leg, TimelineHistory};
use farshore_journal::backup::Range;
use farshore_journal::{Offset, Position, Sequence, Timeline};

/// Log that a journal says it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Its timeline.
    pub timeline: Timeline,
    /// Its first byte.
    pub start: Offset,
    /// The byte behind its last.
    pub end: Offset,
}

/// A journal, as far as base backups ask.
#[derive(Debug, Clone)]
pub struct Line {
    /// The first byte that it holds.
    pub begin: Offset,
    /// Its end.
    pub end: Position,
    /// Its last chunk.
    pub last: Sequence,
    /// The history of its end's timeline: along this line the offset alone orders positions.
    pub history: TimelineHistory,
    /// Its gaps, those of abandoned timelines too; at least all that lie behind the oldest backup that is asked about.
    pub gaps: Vec<Gap>,
    /// Bytes of one of the source's log segments.
    pub segment_bytes: u64,
}

/// A backup's log: what a restore from it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// The timeline that it was taken on.
    pub timeline: Timeline,
    /// Where replay starts.
    pub start: Offset,
    /// From where on its files are consistent.
    pub end: Offset,
}

impl From<&Range> for Needed {
    fn from(range: &Range) -> Self {
        Self { timeline: range.end.timeline, start: range.start.offset, end: range.end.offset }
    }
}

/// Whether a journal holds a backup's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// All of it, without a gap.
    Whole,
    /// Not yet up to its end.
    NotYet,
    /// It never will.
    Never(Never),
}

/// Why a journal will never hold a backup's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Never {
    /// The journal's history left the backup's timeline before the backup's end.
    Left {
        /// The backup's timeline.
        timeline: Timeline,
        /// Where it was left.
        at: Offset,
        /// The backup's end.
        end: Offset,
    },
    /// The backup's timeline is not in the journal's history.
    AnotherLine {
        /// The backup's timeline.
        timeline: Timeline,
        /// The journal's.
        journal: Timeline,
    },
    /// The journal begins behind the backup's first log segment.
    BeforeBegin {
        /// Where it begins.
        begin: Offset,
    },
    /// A gap lies in it.
    Gap(Gap),
}

/// Why a base backup is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// There is none at all.
    None,
    /// Log is missing between every backup and the journal's end.
    BehindGap(Gap),
    /// There are backups, and the log of none of them is stored on the journal's present line.
    OffTheLine(Timeline),
}

impl Line {
    /// The part of a timeline that belongs to this line.
    fn leg(&self, timeline: Timeline) -> Option<Leg> {
        self.history.ancestry().find(|leg| leg.timeline == timeline)
    }

    /// The newest gap of this line that has bytes in `from..to`. What a gap has beyond a fork is not this line's.
    fn gap_within(&self, from: Offset, to: Offset) -> Option<Gap> {
        let on_line = |gap: &&Gap| {
            let Some(leg) = self.leg(gap.timeline) else { return false };
            let start = gap.start.max(leg.begin).max(from);
            let end = leg.end.map_or(gap.end, |left| left.min(gap.end)).min(to);
            start < end
        };
        self.gaps.iter().filter(on_line).max_by_key(|gap| gap.end).copied()
    }

    /// Whether this journal holds the log of a backup.
    pub fn holds(&self, needed: Needed) -> Held {
        let Needed { timeline, start, end } = needed;
        let Some(leg) = self.leg(timeline) else {
            // A journal follows a promotion when its shipper does: until then nothing is known of a later timeline.
            return match timeline > self.end.timeline {
                true => Held::NotYet,
                false => Held::Never(Never::AnotherLine { timeline, journal: self.end.timeline }),
            };
        };
        if let Some(at) = leg.end.filter(|left| *left < end) {
            return Held::Never(Never::Left { timeline, at, end });
        }
        // A server reads the log from its segment's head on, and that may lie before a fork or in a gap.
        let first = start.segment_start(self.segment_bytes);
        if first < self.begin {
            return Held::Never(Never::BeforeBegin { begin: self.begin });
        }
        if let Some(gap) = self.gap_within(first, end) {
            return Held::Never(Never::Gap(gap));
        }
        // An ancestor was left at or behind the backup's end, and is stored up to where it was left but for its gaps.
        match leg.end.is_none() && self.end.offset < end {
            true => Held::NotYet,
            false => Held::Whole,
        }
    }

    /// Whether a base backup is due, `backups` being the complete ones.
    pub fn due(&self, backups: &[Needed]) -> Option<Due> {
        let is_base = |backup: &Needed| {
            self.holds(*backup) == Held::Whole && self.gap_within(backup.end, self.end.offset).is_none()
        };
        if backups.iter().any(is_base) {
            return None;
        }
        if backups.is_empty() {
            return Some(Due::None);
        }
        let gap = self.gap_within(self.begin, self.end.offset);
        Some(gap.map_or(Due::OffTheLine(self.end.timeline), Due::BehindGap))
    }
}

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left { timeline, at, end } => write!(
                f,
                "the journal left timeline {timeline} at {at}, before the backup's end at {end}: a promotion overtook it"
            ),
            Self::AnotherLine { timeline, journal } => write!(
                f,
                "the backup is of timeline {timeline}, which is not in the history of the journal's timeline {journal}"
            ),
            Self::BeforeBegin { begin } => {
                write!(f, "the journal begins at {begin}, behind the backup's first log segment")
            }
            Self::Gap(gap) => write!(f, "{gap} is missing in the journal"),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the log from {} to {} of timeline {}", self.start, self.end, self.timeline)
    }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("the store holds no complete backup"),
            Self::BehindGap(gap) => write!(f, "{gap} is missing, and no backup follows it"),
            Self::OffTheLine(timeline) => {
                write!(f, "no complete backup has its log on the way to timeline {timeline}")
            }
        }
    }
}

impl Due {
    /// What a backup is called that was taken for it: it stands beside complete ones for as long as they are kept.
    pub fn label(&self) -> String {
        match self {
            Self::None => "taken because there was none".to_owned(),
            Self::BehindGap(gap) => format!("taken because {gap} is missing and none followed it"),
            Self::OffTheLine(timeline) => {
                format!("taken because none had its log on the way to timeline {timeline}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 0x100;

    /// A journal from 0x100 on, whose timeline comes from others as the history file says.
    fn line(end: (u32, u64), history: &str, gaps: &[(u32, u64, u64)]) -> Line {
        let timeline = Timeline::new(end.0);
        let history = match end.0 {
            1 => TimelineHistory::first(),
            _ => TimelineHistory::parse(timeline, history.as_bytes()).unwrap(),
        };
        let gap = |(timeline, start, end): &(u32, u64, u64)| Gap {
            timeline: Timeline::new(*timeline),
            start: Offset::new(*start),
            end: Offset::new(*end),
        };
        Line {
            begin: Offset::new(0x100),
            end: Position::new(timeline, Offset::new(end.1)),
            last: Sequence::FIRST,
            history,
            gaps: gaps.iter().map(gap).collect(),
            segment_bytes: SEGMENT,
        }
    }

    fn backup(timeline: u32, start: u64, end: u64) -> Needed {
        Needed { timeline: Timeline::new(timeline), start: Offset::new(start), end: Offset::new(end) }
    }

    #[test]
    fn a_backup_whose_log_is_stored_to_its_end_is_held_and_one_ahead_is_waited_for() {
        let journal = line((1, 0x900), "", &[]);
        assert_eq!(journal.holds(backup(1, 0x210, 0x900)), Held::Whole);
        assert_eq!(journal.holds(backup(1, 0x210, 0x901)), Held::NotYet);
        // The server was promoted and its shipper has not followed yet.
        assert_eq!(journal.holds(backup(2, 0x910, 0x920)), Held::NotYet);
    }

    #[test]
    fn a_backup_that_a_promotion_overtook_is_never_held() {
        let journal = line((2, 0x2000), "1\t0/500\tx\n", &[]);
        assert_eq!(journal.holds(backup(1, 0x210, 0x500)), Held::Whole);
        let (timeline, at, end) = (Timeline::new(1), Offset::new(0x500), Offset::new(0x501));
        assert_eq!(journal.holds(backup(1, 0x210, 0x501)), Held::Never(Never::Left { timeline, at, end }));
        assert_eq!(journal.holds(backup(2, 0x610, 0x700)), Held::Whole);
        assert_eq!(journal.holds(backup(2, 0x610, 0x2001)), Held::NotYet);
    }

    #[test]
    fn a_backup_of_a_sibling_is_never_held() {
        let journal = line((3, 0x2000), "1\t0/500\tx\n", &[]);
        let (timeline, own) = (Timeline::new(2), Timeline::new(3));
        let never = Held::Never(Never::AnotherLine { timeline, journal: own });
        assert_eq!(journal.holds(backup(2, 0x610, 0x700)), never);
    }

    #[test]
    fn a_backup_whose_log_has_a_gap_is_never_held() {
        let journal = line((1, 0x2000), "", &[(1, 0x700, 0x800)]);
        let gap = Held::Never(Never::Gap(journal.gaps[0]));
        assert_eq!(journal.holds(backup(1, 0x610, 0x900)), gap);
        assert_eq!(journal.holds(backup(1, 0x610, 0x701)), gap);
        assert_eq!(journal.holds(backup(1, 0x610, 0x700)), Held::Whole);
        assert_eq!(journal.holds(backup(1, 0x810, 0x900)), Held::Whole);
        // It will not get better by waiting.
        assert_eq!(journal.holds(backup(1, 0x610, 0x3000)), gap);
    }

    #[test]
    fn the_head_of_the_first_segment_is_needed_too() {
        let journal = line((2, 0x2000), "1\t0/780\tx\n", &[(1, 0x700, 0x780)]);
        // It starts behind the fork, in the segment whose head the gap took.
        assert_eq!(journal.holds(backup(2, 0x7a0, 0x900)), Held::Never(Never::Gap(journal.gaps[0])));
        assert_eq!(journal.holds(backup(2, 0x810, 0x900)), Held::Whole);
        let begin = Held::Never(Never::BeforeBegin { begin: Offset::new(0x100) });
        assert_eq!(journal.holds(backup(1, 0xf0, 0x120)), begin);
        assert_eq!(journal.holds(backup(1, 0x100, 0x120)), Held::Whole);
    }

    #[test]
    fn a_gap_beyond_the_fork_is_no_gap_of_the_line() {
        let journal = line((2, 0x2000), "1\t0/500\tx\n", &[(1, 0x500, 0x600), (1, 0x700, 0x800)]);
        assert_eq!(journal.holds(backup(1, 0x210, 0x300)), Held::Whole);
        assert_eq!(journal.holds(backup(2, 0x610, 0x900)), Held::Whole);
        assert_eq!(journal.due(&[backup(1, 0x210, 0x300)]), None);
    }

    #[test]
    fn a_journal_without_a_complete_backup_is_due_one() {
        assert_eq!(line((1, 0x900), "", &[]).due(&[]), Some(Due::None));
        assert_eq!(line((1, 0x900), "", &[(1, 0x300, 0x400)]).due(&[]), Some(Due::None));
    }

    #[test]
    fn one_backup_serves_as_long_as_no_gap_and_no_fork_before_its_end_follows() {
        let backups = [backup(1, 0x210, 0x280)];
        assert_eq!(line((1, 0x90_0000), "", &[]).due(&backups), None);
        assert_eq!(line((3, 0x90_0000), "1\t0/280\tx\n2\t0/700\ty\n", &[]).due(&backups), None);
        let overtaken = line((2, 0x90_0000), "1\t0/27f\tx\n", &[]);
        assert_eq!(overtaken.due(&backups), Some(Due::OffTheLine(Timeline::new(2))));
        assert_eq!(overtaken.due(&[backups[0], backup(2, 0x310, 0x400)]), None);
    }

    #[test]
    fn behind_a_gap_a_backup_is_due_however_far_back_the_gap_lies() {
        let journal = line((1, 0x90_0000), "", &[(1, 0x700, 0x800)]);
        let before = backup(1, 0x210, 0x280);
        assert_eq!(journal.due(&[before]), Some(Due::BehindGap(journal.gaps[0])));
        // Begun before the gap, ended behind it: its own log has the hole.
        assert_eq!(journal.due(&[before, backup(1, 0x610, 0x900)]), Some(Due::BehindGap(journal.gaps[0])));
        assert_eq!(journal.due(&[before, backup(1, 0x810, 0x900)]), None);
        // A gap up to a fork: the timeline's chunk behind it hides nothing.
        let forked = line((2, 0x90_0000), "1\t0/800\tx\n", &[(1, 0x700, 0x800)]);
        assert_eq!(forked.due(&[before]), Some(Due::BehindGap(forked.gaps[0])));
        assert_eq!(forked.due(&[before, backup(2, 0x810, 0x900)]), None);
        // A second gap is a second reason.
        let twice = line((1, 0x90_0000), "", &[(1, 0x700, 0x800), (1, 0xa00, 0xb00)]);
        assert_eq!(twice.due(&[before, backup(1, 0x810, 0x900)]), Some(Due::BehindGap(twice.gaps[1])));
    }

    #[test]
    fn a_backup_ahead_of_the_journal_is_no_base_yet() {
        let journal = line((1, 0x900), "", &[]);
        assert_eq!(journal.due(&[backup(1, 0x810, 0x1000)]), Some(Due::OffTheLine(Timeline::new(1))));
    }

    #[test]
    fn a_label_says_why_a_backup_was_taken_and_reads_as_no_alarm_beside_it() {
        let gap = Gap { timeline: Timeline::new(1), start: Offset::new(0x10), end: Offset::new(0x20) };
        for (due, label) in [
            (Due::None, "taken because there was none"),
            (
                Due::BehindGap(gap),
                "taken because the log from 0/10 to 0/20 of timeline 1 is missing and none followed it",
            ),
            (Due::OffTheLine(Timeline::new(2)), "taken because none had its log on the way to timeline 2"),
        ] {
            assert_eq!(due.label(), label);
        }
    }
}
