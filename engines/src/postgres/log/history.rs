//! Timeline history files: which timelines a timeline comes from, and where each was left.
//!
//! One line for each ancestor, oldest first: its number, the offset at which it was left, and a reason in free text,
//! separated by white space; lines that begin with `#` and empty lines are passed over. Timeline 1 has no file.
//! What always holds of a parsed one: numbers rise strictly and stay below the timeline's own, offsets never fall.
//! Source: `readTimeLineHistory` and `writeTimeLineHistory`, src/backend/access/transam/timeline.c, of
//! REL_14_STABLE to REL_18_STABLE. PostgreSQL accepts falling offsets; they describe no history, so we do not.

use farshore_journal::{Offset, Position, Timeline};

/// Longest file read: PostgreSQL writes at most a line of some hundred bytes for each promotion.
const LONGEST_BYTES: usize = 1 << 20;

/// Where an ancestor was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline that was left.
    pub timeline: Timeline,
    /// The first byte that is no longer on it: log of the next timeline starts here.
    pub left_at: Offset,
    /// Why, in PostgreSQL's words.
    pub reason: String,
}

/// A timeline and those it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: Timeline,
    ancestors: Vec<Ancestor>,
}

/// A run of one timeline's log within a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// The timeline.
    pub timeline: Timeline,
    /// Its first byte in this history.
    pub begin: Offset,
    /// The first byte that is no longer on it; `None` for the newest.
    pub end: Option<Offset>,
}

/// A text that is no timeline history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Too long to be one.
    #[error("the history of timeline {timeline} has {bytes} bytes, more than any server writes")]
    TooLong {
        /// The timeline the file is named after.
        timeline: Timeline,
        /// Its length.
        bytes: usize,
    },
    /// A line does not name a timeline and an offset.
    #[error("line {line} of the history of timeline {timeline} names no timeline and log position")]
    Line {
        /// The timeline the file is named after.
        timeline: Timeline,
        /// The line, from 1.
        line: usize,
    },
    /// A line's timeline is not above that of the line before, or not below the file's own.
    #[error("line {line} of the history of timeline {timeline} names timeline {found} out of order")]
    TimelineOrder {
        /// The timeline the file is named after.
        timeline: Timeline,
        /// The line, from 1.
        line: usize,
        /// What it names.
        found: Timeline,
    },
    /// A line's offset is before that of the line before.
    #[error("line {line} of the history of timeline {timeline} goes back to {found}")]
    OffsetOrder {
        /// The timeline the file is named after.
        timeline: Timeline,
        /// The line, from 1.
        line: usize,
        /// What it names.
        found: Offset,
    },
    /// A timeline above 1 comes from somewhere.
    #[error("the history of timeline {timeline} names no ancestor")]
    NoAncestor {
        /// The timeline the file is named after.
        timeline: Timeline,
    },
}

impl TimelineHistory {
    /// The history of timeline 1, which has no file.
    pub fn first() -> Self {
        Self { timeline: Timeline::new(1), ancestors: Vec::new() }
    }

    /// Reads the file of `timeline`. Reasons that are not UTF-8 are shown with replacement characters.
    ///
    /// # Errors
    /// [`HistoryError`] for a text that describes no history.
    pub fn parse(timeline: Timeline, text: &[u8]) -> Result<Self, HistoryError> {
        if text.len() > LONGEST_BYTES {
            return Err(HistoryError::TooLong { timeline, bytes: text.len() });
        }
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (index, bytes) in text.split(|b| *b == b'\n').enumerate() {
            let line = index + 1;
            let content = String::from_utf8_lossy(bytes);
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let ancestor = ancestor(content).ok_or(HistoryError::Line { timeline, line })?;
            let last = ancestors.last();
            if last.is_some_and(|l| l.timeline >= ancestor.timeline) || ancestor.timeline >= timeline {
                return Err(HistoryError::TimelineOrder { timeline, line, found: ancestor.timeline });
            }
            if last.is_some_and(|l| l.left_at > ancestor.left_at) {
                return Err(HistoryError::OffsetOrder { timeline, line, found: ancestor.left_at });
            }
            ancestors.push(ancestor);
        }
        if ancestors.is_empty() && timeline > Timeline::new(1) {
            return Err(HistoryError::NoAncestor { timeline });
        }
        Ok(Self { timeline, ancestors })
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The timelines it comes from, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// The runs of log that make up this history, oldest first; the last is the timeline's own.
    pub fn ancestry(&self) -> impl Iterator<Item = Branch> + '_ {
        let begins = std::iter::once(Offset::new(0)).chain(self.ancestors.iter().map(|a| a.left_at));
        let left = self.ancestors.iter().map(|a| (a.timeline, Some(a.left_at)));
        let all = left.chain(std::iter::once((self.timeline, None)));
        begins.zip(all).map(|(begin, (timeline, end))| Branch { timeline, begin, end })
    }

    /// The file of an ancestor, as far as this history says what is in it.
    pub fn ancestor_file(&self, timeline: Timeline) -> Vec<u8> {
        let before = self.ancestors.iter().take_while(|ancestor| ancestor.timeline != timeline);
        let lines = before.map(|a| format!("{}\t{}\tas a later history says\n", a.timeline, a.left_at));
        lines.collect::<String>().into_bytes()
    }

    /// Where this history leaves `timeline`; `None` if that is its own or none of its ancestors.
    pub fn leaves(&self, timeline: Timeline) -> Option<Offset> {
        self.ancestors.iter().find(|a| a.timeline == timeline).map(|a| a.left_at)
    }

    /// The timeline whose log holds the byte at `offset` in this history.
    pub fn timeline_at(&self, offset: Offset) -> Timeline {
        self.ancestors.iter().find(|a| offset < a.left_at).map_or(self.timeline, |a| a.timeline)
    }

    /// Whether all log up to `position` is part of this history, so that it can be followed from there.
    pub fn contains(&self, position: Position) -> bool {
        position.timeline == self.timeline
            || self.leaves(position.timeline).is_some_and(|left_at| position.offset <= left_at)
    }

    /// Where this history and `other` part: the first byte that may differ. `None` when they are the same history.
    /// A timeline number that two servers each took for their own cannot be told apart here; only bytes can.
    pub fn parts_from(&self, other: &Self) -> Option<Offset> {
        let mut theirs = other.ancestry();
        for mine in self.ancestry() {
            let Some(their) = theirs.next().filter(|t| t.timeline == mine.timeline) else {
                return Some(mine.begin);
            };
            match (mine.end, their.end) {
                (a, b) if a == b => {}
                (Some(a), Some(b)) => return Some(a.min(b)),
                (a, b) => return a.or(b),
            }
        }
        None
    }
}

fn ancestor(line: &str) -> Option<Ancestor> {
    let (number, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (offset, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let timeline = plain.then(|| number.parse().ok()).flatten().filter(|n| *n > 0).map(Timeline::new)?;
    Some(Ancestor { timeline, left_at: offset.parse().ok()?, reason: reason.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FOURTH: &[u8] = b"1\t0/3000148\tno recovery target specified\n\n\
        # made by hand\n2\t0/50000A0\tbefore transaction 781 at 2026-01-02 03:04:05+00\n3\t1/0\n";

    fn tl(number: u32) -> Timeline {
        Timeline::new(number)
    }

    fn fourth() -> TimelineHistory {
        TimelineHistory::parse(tl(4), FOURTH).unwrap()
    }

    #[test]
    fn a_history_file_that_the_server_lacks_is_written_from_a_later_one() {
        let later =
            TimelineHistory::parse(Timeline::new(4), b"1\t0/500\tx\n2\t0/700\ty\n3\t0/900\tz\n").unwrap();
        let written = later.ancestor_file(Timeline::new(3));
        let read = TimelineHistory::parse(Timeline::new(3), &written).unwrap();
        assert_eq!(read.leaves(Timeline::new(1)), Some(Offset::new(0x500)));
        assert_eq!(read.leaves(Timeline::new(2)), Some(Offset::new(0x700)));
        assert_eq!(read.ancestors().len(), 2);
    }

    #[test]
    fn a_history_says_which_timeline_holds_each_byte() {
        let history = fourth();
        assert_eq!(history.ancestors()[0].reason, "no recovery target specified");
        assert_eq!(history.timeline_at(Offset::new(0)), tl(1));
        assert_eq!(history.timeline_at(Offset::new(0x3000147)), tl(1));
        assert_eq!(history.timeline_at(Offset::new(0x3000148)), tl(2));
        assert_eq!(history.timeline_at(Offset::new(1 << 32)), tl(4));
        assert_eq!(history.leaves(tl(2)), Some(Offset::new(0x50000A0)));
        assert_eq!(history.leaves(tl(4)), None);
        let branches: Vec<_> = history.ancestry().collect();
        assert_eq!(branches.len(), 4);
        assert!(branches.windows(2).all(|w| w[0].end == Some(w[1].begin)));
        assert_eq!(branches[3].end, None);
    }

    #[test]
    fn a_position_beyond_the_fork_is_not_part_of_the_history() {
        let at = |timeline, offset| Position::new(tl(timeline), Offset::new(offset));
        assert!(fourth().contains(at(1, 0x3000148)));
        assert!(!fourth().contains(at(1, 0x3000149)));
        assert!(!fourth().contains(at(5, 0)));
        assert!(fourth().contains(at(4, u64::MAX)));
    }

    #[test]
    fn two_histories_part_where_their_bytes_may_first_differ() {
        let other = |text: &str| TimelineHistory::parse(tl(5), text.as_bytes()).unwrap();
        assert_eq!(fourth().parts_from(&fourth()), None);
        assert_eq!(fourth().parts_from(&TimelineHistory::first()), Some(Offset::new(0x3000148)));
        assert_eq!(other("1 0/2000000 x").parts_from(&fourth()), Some(Offset::new(0x2000000)));
        assert_eq!(other("1 0/3000148 x\n3 0/4000000 y").parts_from(&fourth()), Some(Offset::new(0x3000148)));
        assert_eq!(fourth().parts_from(&other("1 0/3000148 x\n2 0/50000A0 y")), Some(Offset::new(0x50000A0)));
    }

    #[test]
    fn a_text_that_describes_no_history_is_refused() {
        for (text, refused) in [
            ("", "names no ancestor"),
            ("# 1 0/0 x", "names no ancestor"),
            ("x", "line 1"),
            ("1", "line 1"),
            ("1 zero", "line 1"),
            ("-1 0/0", "line 1"),
            ("+1 0/0", "line 1"),
            ("0 0/0", "line 1"),
            ("4294967296 0/0", "line 1"),
            ("1 0/0 x\n1 0/1 x", "out of order"),
            ("4 0/0 x", "out of order"),
            ("1 0/5 x\n2 0/4 x", "goes back"),
        ] {
            let error = TimelineHistory::parse(tl(4), text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(refused), "{text:?}: {error}");
        }
        let long = vec![b'\n'; LONGEST_BYTES + 1];
        assert!(matches!(TimelineHistory::parse(tl(4), &long), Err(HistoryError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics_and_never_breaks_the_order(text: Vec<u8>, number in 1u32..9) {
            if let Ok(history) = TimelineHistory::parse(tl(number), &text) {
                prop_assert!(history.ancestors().windows(2).all(|w| w[0].timeline < w[1].timeline));
            }
        }

        #[test]
        fn a_history_reads_back(mut forks in proptest::collection::vec(0u64.., 1..8)) {
            forks.sort_unstable();
            let text: String =
                forks.iter().enumerate().map(|(i, at)| format!("{}\t{}\twhy {i}\n", i + 1, Offset::new(*at))).collect();
            let history = TimelineHistory::parse(tl(9), text.as_bytes()).unwrap();
            let read: Vec<_> = history.ancestors().iter().map(|a| a.left_at.get()).collect();
            prop_assert_eq!(read, forks);
        }
    }
}
