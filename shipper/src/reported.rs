//! What is reported to a PostgreSQL primary: by it a commit waits. Pure; `docs/adr/2026-11-28-what-a-commit-waits-for.md` has the argument.
//!
//! What always holds: `reported <= received`; under [`Protection::Stored`] `reported <= proven`, under [`Protection::Near`] `reported <= proven + bytes`, and no more than proven while no slot keeps the log;
//! nothing is reported of a timeline that nothing is proven of, and nothing of a journal that no restore could begin in.

use farshore_journal::{Offset, Position};

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// Nothing.
    #[default]
    Async,
    /// Until so many bytes of log at most are not stored behind it.
    Near {
        /// The bound, in bytes of log.
        bytes: u64,
    },
    /// Until it is stored.
    Stored,
}

impl Protection {
    /// Whether a commit may wait for what is reported.
    pub const fn holds_commits(self) -> bool {
        !matches!(self, Self::Async)
    }
}

/// How far things are, for a report.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The end of what was received, with its timeline.
    pub received: Position,
    /// The end of what is stored of the very bytes that this source has, as this session found; `None` while it has not.
    pub proven: Option<Position>,
    /// Whether the journal has a base backup from which its end can be reached: before that nothing in it can be restored.
    pub based: bool,
    /// The most that a resume can do without; `None` while a slot keeps the log anyway.
    pub limit: Option<Offset>,
    /// Whether a slot keeps at least what is not stored.
    pub kept: bool,
}

/// What may be reported; `None`: that nothing is flushed.
pub fn reported(protection: Protection, standing: Standing) -> Option<Offset> {
    let Standing { received, proven, based, limit, kept } = standing;
    let proven = proven
        .filter(|proven| based && proven.timeline == received.timeline)
        .map(|proven| proven.offset.min(received.offset));
    match (protection, limit) {
        (Protection::Async, None) => Some(received.offset),
        (Protection::Async, Some(limit)) => Some(limit.min(received.offset)),
        // What is stored the source need not keep. A resume may then find nothing to compare, and the journal begins anew: commits wait
        // for its base. To report less would let them wait for a slot that may itself wait for log to be written.
        (Protection::Stored, _) => proven,
        (Protection::Near { .. }, _) if !kept => proven,
        (Protection::Near { bytes }, _) => {
            proven.map(|proven| Offset::new(proven.get().saturating_add(bytes)).min(received.offset))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Timeline;
    use proptest::prelude::*;

    fn at(timeline: u32, offset: u64) -> Position {
        Position::new(Timeline::new(timeline), Offset::new(offset))
    }

    fn standing(received: u64, proven: Option<(u32, u64)>, limit: Option<u64>) -> Standing {
        let proven = proven.map(|(timeline, offset)| at(timeline, offset));
        Standing {
            received: at(2, received),
            proven,
            based: true,
            limit: limit.map(Offset::new),
            kept: limit.is_none(),
        }
    }

    #[test]
    fn nothing_is_reported_of_a_source_that_is_not_proved_and_of_a_timeline_of_which_nothing_is_stored() {
        for protection in [Protection::Stored, Protection::Near { bytes: u64::MAX }] {
            assert_eq!(reported(protection, standing(900, None, None)), None);
            assert_eq!(reported(protection, standing(900, Some((1, 800)), None)), None);
            assert_eq!(reported(protection, standing(900, Some((3, 800)), None)), None);
            // Nor of a journal that nothing could be restored from.
            let baseless = Standing { based: false, ..standing(900, Some((2, 800)), None) };
            assert_eq!(reported(protection, baseless), None);
        }
        assert_eq!(reported(Protection::Async, standing(900, None, None)), Some(Offset::new(900)));
    }

    #[test]
    fn each_mode_reports_what_it_says() {
        let of = |protection| reported(protection, standing(900, Some((2, 500)), None)).map(Offset::get);
        assert_eq!(of(Protection::Stored), Some(500));
        assert_eq!(of(Protection::Near { bytes: 100 }), Some(600));
        assert_eq!(of(Protection::Near { bytes: 4000 }), Some(900));
        assert_eq!(of(Protection::Async), Some(900));
        // No slot keeps the log: what is stored may be reported, and nothing beyond.
        let alone =
            |protection| reported(protection, standing(900, Some((2, 500)), Some(100))).map(Offset::get);
        assert_eq!(alone(Protection::Stored), Some(500));
        assert_eq!(alone(Protection::Near { bytes: 100 }), Some(500));
        assert_eq!(alone(Protection::Async), Some(100));
        assert_eq!(Protection::default(), Protection::Async);
    }

    proptest! {
        #[test]
        fn no_report_is_beyond_what_its_mode_allows(
            received: u64, proven in proptest::option::of((1_u32..4, any::<u64>())), limit: Option<u64>, bytes: u64,
        ) {
            let now = standing(received, proven, limit);
            let stored = proven.filter(|(timeline, _)| *timeline == 2).map(|(_, offset)| offset);
            for protection in [Protection::Async, Protection::Near { bytes }, Protection::Stored] {
                let Some(end) = reported(protection, now).map(Offset::get) else {
                    prop_assert!(protection.holds_commits() && stored.is_none());
                    continue;
                };
                prop_assert!(end <= received);
                match protection {
                    Protection::Async => prop_assert!(limit.is_none_or(|limit| end <= limit)),
                    Protection::Near { .. } if limit.is_some() => prop_assert!(end <= stored.unwrap()),
                    Protection::Near { bytes } => prop_assert!(end <= stored.unwrap().saturating_add(bytes)),
                    Protection::Stored => prop_assert!(end <= stored.unwrap()),
                }
            }
        }
    }
}
