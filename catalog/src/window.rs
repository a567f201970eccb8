//! What can be restored: the recovery window, as a pure function of what one store holds.
//!
//! A position is in the window when an unbroken, checked run of journal leads to it from a usable base backup: one
//! that is complete, was checked, and whose own start to end lies in that run. Nothing is claimed beyond the end of
//! the last whole checked record, and a doubt splits the window rather than widening it.
//!
//! Offsets rise along one line of descent ([`Line`]) even across timelines, so that everything is reckoned on it.

use farshore_journal::{BackupId, Offset, Position};

use crate::backup::Backup;
use crate::branch::Line;
use crate::gap::{EXPIRED, Gap};
use crate::range::JournalRange;

/// An unbroken run of restorable positions. Both ends can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Where the unbroken log begins that it lies in, at or before its oldest usable base backup's start. What was committed before
    /// this is on the other side of a gap, or before the journal.
    pub log_from: Offset,
    /// The end of its oldest usable base backup.
    pub from: Position,
    /// The end of its last whole checked record.
    pub to: Position,
    /// That backup.
    pub oldest_backup: BackupId,
}

/// What lies between two spans, or after the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The last restorable position before it.
    pub from: Position,
    /// The first restorable position after it; `None` while there is none.
    pub to: Option<Position>,
    /// Why.
    pub reason: String,
}

impl Break {
    /// Whether it is a loss. Log that expired between two spans is none: only where nothing behind it can be restored somebody has to act.
    pub fn is_loss(&self) -> bool {
        self.to.is_none() || self.reason != EXPIRED
    }
}

/// The restorable spans along a line, oldest first, and what lies between them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows {
    /// The restorable spans, oldest first. The last is *the* recovery window.
    pub spans: Vec<Span>,
    /// `breaks[i]` follows `spans[i]`; one more than between spans when the last is cut off from the newest log.
    pub breaks: Vec<Break>,
}

impl Windows {
    /// Whether what ends at a position of the line can be restored. The caller knows that the position is on the line.
    pub fn holds(&self, position: Position) -> bool {
        self.spans.iter().any(|span| span.from.offset <= position.offset && position.offset <= span.to.offset)
    }

    /// How many parts of the history are lost that lie behind a span.
    pub fn losses(&self) -> usize {
        self.breaks.iter().filter(|one| one.is_loss()).count()
    }
}

/// An unbroken run of journal: `start <= offset < end`, checked up to `checked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    start: Offset,
    end: Offset,
    checked: Offset,
}

/// The restorable spans along `line`. Ranges, gaps and backups are those of one store and one incarnation.
pub fn windows(line: &Line, ranges: &[JournalRange], gaps: &[Gap], backups: &[Backup]) -> Windows {
    let runs = runs(line, ranges, gaps);
    let missing = missing(line, gaps);
    let mut found = Windows::default();
    let mut last_run = None;
    for (index, run) in runs.iter().enumerate() {
        let Some((from, oldest_backup)) = oldest_usable(line, run, backups) else { continue };
        let Some(to) = line.position_of_end(run.checked) else { continue };
        if let Some(before) = found.spans.last() {
            let reason = reason(&missing, before.to.offset, Some(from.offset));
            found.breaks.push(Break { from: before.to, to: Some(from), reason });
        }
        found.spans.push(Span { log_from: run.start, from, to, oldest_backup });
        last_run = Some(index);
    }
    let (Some(newest), Some(last_run)) = (found.spans.last(), last_run) else { return found };
    let lost_after = missing.iter().any(|(_, end, _)| *end > newest.to.offset);
    if last_run + 1 < runs.len() || lost_after {
        let reason = reason(&missing, newest.to.offset, None);
        found.breaks.push(Break { from: newest.to, to: None, reason });
    }
    found
}

/// The stored runs along the line, split at gaps and at log whose check did not carry on.
fn runs(line: &Line, ranges: &[JournalRange], gaps: &[Gap]) -> Vec<Run> {
    let missing = missing(line, gaps);
    let mut pieces = Vec::new();
    for stretch in line.stretches() {
        for range in ranges.iter().filter(|range| range.timeline == stretch.timeline) {
            let cut = |offset: Offset| stretch.until.map_or(offset, |until| offset.min(until));
            let start = range.start.max(stretch.from);
            let piece = Run { start, end: cut(range.end), checked: cut(range.checked_end).max(start) };
            if piece.start < piece.end {
                pieces.extend(without(piece, &missing));
            }
        }
    }
    pieces.sort_by_key(|run| (run.start, run.end));
    let mut runs: Vec<Run> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            // The next run carries on only where this one was checked to: a record across the seam was seen whole.
            Some(run) if piece.start <= run.checked => {
                run.end = run.end.max(piece.end);
                run.checked = run.checked.max(piece.checked);
            }
            _ => runs.push(piece),
        }
    }
    runs
}

/// The gaps along the line with their reasons, by offset.
fn missing<'a>(line: &Line, gaps: &'a [Gap]) -> Vec<(Offset, Offset, &'a str)> {
    let mut missing = Vec::new();
    for stretch in line.stretches() {
        for gap in gaps.iter().filter(|gap| gap.timeline == stretch.timeline) {
            let start = gap.start.max(stretch.from);
            let end = stretch.until.map_or(gap.end, |until| gap.end.min(until));
            if start < end {
                missing.push((start, end, gap.reason.as_str()));
            }
        }
    }
    missing.sort_unstable();
    missing
}

/// What is left of a run once the missing parts, sorted by offset, are taken out.
fn without(run: Run, missing: &[(Offset, Offset, &str)]) -> Vec<Run> {
    let mut left = Vec::new();
    let mut start = run.start;
    for &(gap_start, gap_end, _) in missing {
        if gap_end <= start || gap_start >= run.end {
            continue;
        }
        if start < gap_start {
            // A record that runs into the gap is not whole; the checked end cannot lie beyond it.
            left.push(Run { start, end: gap_start, checked: run.checked.clamp(start, gap_start) });
        }
        start = start.max(gap_end);
    }
    if start < run.end {
        left.push(Run { start, end: run.end, checked: run.checked.max(start) });
    }
    left
}

/// The usable backup with the lowest end in a run.
fn oldest_usable(line: &Line, run: &Run, backups: &[Backup]) -> Option<(Position, BackupId)> {
    let usable = backups
        .iter()
        .filter_map(|backup| Some((usable_end(line, backup, (run.start, run.checked))?, backup.id)));
    usable.min_by_key(|(end, id)| (end.offset, *id))
}

/// The backup that a restore to the end of a span begins with. Those that have damaged pages come last.
pub(crate) fn newest_usable<'a>(line: &Line, span: &Span, backups: &'a [Backup]) -> Option<&'a Backup> {
    let usable = backups
        .iter()
        .filter_map(|backup| Some((usable_end(line, backup, (span.log_from, span.to.offset))?, backup)));
    usable.max_by_key(|(end, backup)| (backup.bad_pages == Some(0), end.offset)).map(|(_, backup)| backup)
}

/// Where a backup ends, if a restore can begin with it in log of this line that is whole between these offsets.
fn usable_end(line: &Line, backup: &Backup, (from, to): (Offset, Offset)) -> Option<Position> {
    let end = backup.end.filter(|_| backup.is_usable())?;
    let on_line = line.stretches().iter().any(|stretch| {
        stretch.timeline == backup.timeline
            && stretch.from <= backup.start
            && stretch.until.is_none_or(|until| end <= until)
    });
    let within = from <= backup.start && backup.start <= end && end <= to;
    (on_line && within).then(|| Position::new(backup.timeline, end))
}

fn reason(missing: &[(Offset, Offset, &str)], from: Offset, to: Option<Offset>) -> String {
    let between = || {
        let between = missing.iter().filter(|(start, end, _)| *end > from && to.is_none_or(|to| *start < to));
        between.map(|(_, _, reason)| *reason)
    };
    // What was lost beside log that expired is not to be taken for expired.
    let lost = between().find(|reason| *reason != EXPIRED).or_else(|| between().next());
    lost.unwrap_or("log is missing or unchecked, and no base backup bridges it").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;
    use crate::backup::BackupState;
    use crate::branch::{Branch, Fork};
    use farshore_journal::{IncarnationId, Sequence, Timeline};

    const WHO: IncarnationId = IncarnationId::from_bytes([7; 16]);

    fn line(forks: &[(u32, u32, u64)], to: u32) -> Line {
        let branches: Vec<_> = forks
            .iter()
            .map(|&(timeline, parent, at)| Branch {
                incarnation: WHO,
                timeline: Timeline::new(timeline),
                fork: Some(Fork { parent: Timeline::new(parent), at: Offset::new(at) }),
                first_seen_at: Time::default(),
            })
            .collect();
        Line::to(Timeline::new(to), &branches)
    }

    fn range(timeline: u32, start: u64, end: u64, checked: u64) -> JournalRange {
        JournalRange {
            incarnation: WHO,
            store: "main".to_owned(),
            timeline: Timeline::new(timeline),
            start: Offset::new(start),
            end: Offset::new(end),
            checked_end: Offset::new(checked),
            first_sequence: Sequence::new(0),
            last_sequence: Sequence::new(0),
        }
    }

    fn gap(timeline: u32, start: u64, end: u64) -> Gap {
        Gap {
            incarnation: WHO,
            store: "main".to_owned(),
            timeline: Timeline::new(timeline),
            start: Offset::new(start),
            end: Offset::new(end),
            reason: "lost".to_owned(),
            seen_at: Time::default(),
        }
    }

    fn backup(timeline: u32, start: u64, end: u64) -> Backup {
        Backup {
            id: BackupId::from_bytes([u8::try_from(start % 251).unwrap(); 16]),
            incarnation: WHO,
            store: "main".to_owned(),
            timeline: Timeline::new(timeline),
            start: Offset::new(start),
            end: Some(Offset::new(end)),
            started_at: Time::default(),
            finished_at: Some(Time::default()),
            bytes: None,
            stored_bytes: None,
            state: BackupState::Complete,
            checked: true,
            label: String::new(),
            bad_pages: Some(0),
            bad_at: None,
        }
    }

    type Ends = Vec<((u32, u64), (u32, u64))>;

    fn spans(found: &Windows) -> Ends {
        let plain = |position: Position| (position.timeline.get(), position.offset.get());
        found.spans.iter().map(|span| (plain(span.from), plain(span.to))).collect()
    }

    #[test]
    fn the_window_claims_only_what_a_usable_backup_and_checked_log_reach() {
        let mut unchecked = backup(1, 10, 20);
        unchecked.checked = false;
        let bad = Backup { bad_at: Some(Time::default()), ..backup(1, 10, 20) };
        let mut running = backup(1, 10, 20);
        running.state = BackupState::Running;
        let mut endless = backup(1, 10, 20);
        endless.end = None;
        let one = || line(&[], 1);
        let two = || line(&[(2, 1, 60)], 2);
        #[allow(clippy::type_complexity)]
        let table: Vec<(&str, Line, Vec<JournalRange>, Vec<Gap>, Vec<Backup>, Ends, usize)> = vec![
            ("nothing", one(), vec![], vec![], vec![], vec![], 0),
            ("log without a backup", one(), vec![range(1, 0, 100, 100)], vec![], vec![], vec![], 0),
            ("a backup without log", one(), vec![], vec![], vec![backup(1, 10, 20)], vec![], 0),
            ("an unchecked backup", one(), vec![range(1, 0, 100, 100)], vec![], vec![unchecked], vec![], 0),
            (
                "one that a verification found to be bad, and another",
                one(),
                vec![range(1, 0, 100, 100)],
                vec![],
                vec![bad, backup(1, 30, 40)],
                vec![((1, 40), (1, 100))],
                0,
            ),
            (
                "a running backup",
                one(),
                vec![range(1, 0, 100, 100)],
                vec![],
                vec![running, endless],
                vec![],
                0,
            ),
            (
                "log stored short of the backup's end",
                one(),
                vec![range(1, 0, 19, 19)],
                vec![],
                vec![backup(1, 10, 20)],
                vec![],
                0,
            ),
            (
                "log checked short of the backup's end",
                one(),
                vec![range(1, 0, 100, 19)],
                vec![],
                vec![backup(1, 10, 20)],
                vec![],
                0,
            ),
            (
                "log that begins after the backup's start",
                one(),
                vec![range(1, 11, 100, 100)],
                vec![],
                vec![backup(1, 10, 20)],
                vec![],
                0,
            ),
            (
                "it ends at the last whole checked record",
                one(),
                vec![range(1, 0, 100, 97)],
                vec![],
                vec![backup(1, 30, 40), backup(1, 10, 20)],
                vec![((1, 20), (1, 97))],
                0,
            ),
            (
                "a gap with a backup on each side gives two spans",
                one(),
                vec![range(1, 0, 100, 100), range(1, 120, 200, 200)],
                vec![gap(1, 100, 120)],
                vec![backup(1, 10, 20), backup(1, 130, 140)],
                vec![((1, 20), (1, 100)), ((1, 140), (1, 200))],
                1,
            ),
            (
                "a gap without a backup after it ends the window there",
                one(),
                vec![range(1, 0, 100, 100), range(1, 120, 200, 200)],
                vec![gap(1, 100, 120)],
                vec![backup(1, 10, 20)],
                vec![((1, 20), (1, 100))],
                1,
            ),
            (
                "a gap that nothing follows yet is shown",
                one(),
                vec![range(1, 0, 100, 100)],
                vec![gap(1, 100, 120)],
                vec![backup(1, 10, 20)],
                vec![((1, 20), (1, 100))],
                1,
            ),
            (
                "a gap recorded inside a range counts as missing",
                one(),
                vec![range(1, 0, 200, 200)],
                vec![gap(1, 100, 120)],
                vec![backup(1, 10, 20), backup(1, 130, 140)],
                vec![((1, 20), (1, 100)), ((1, 140), (1, 200))],
                1,
            ),
            (
                "a hole that nobody recorded splits as well",
                one(),
                vec![range(1, 0, 100, 100), range(1, 101, 200, 200)],
                vec![],
                vec![backup(1, 10, 20), backup(1, 130, 140)],
                vec![((1, 20), (1, 100)), ((1, 140), (1, 200))],
                1,
            ),
            (
                "a seam that was not checked splits",
                one(),
                vec![range(1, 0, 100, 90), range(1, 100, 200, 200)],
                vec![],
                vec![backup(1, 10, 20)],
                vec![((1, 20), (1, 90))],
                1,
            ),
            (
                "a backup that spans a gap is not usable",
                one(),
                vec![range(1, 0, 100, 100), range(1, 120, 200, 200)],
                vec![gap(1, 100, 120)],
                vec![backup(1, 90, 130)],
                vec![],
                0,
            ),
            (
                "a fork is crossed and the parent's later log left out",
                two(),
                vec![range(1, 0, 80, 80), range(2, 48, 100, 100)],
                vec![],
                vec![backup(1, 10, 20)],
                vec![((1, 20), (2, 100))],
                0,
            ),
            (
                "the parent's log must be stored up to the fork",
                two(),
                vec![range(1, 0, 59, 59), range(2, 60, 100, 100)],
                vec![],
                vec![backup(1, 10, 20), backup(2, 70, 75)],
                vec![((1, 20), (1, 59)), ((2, 75), (2, 100))],
                1,
            ),
            (
                "a backup that ran on beyond the fork belongs to the abandoned branch",
                two(),
                vec![range(1, 0, 80, 80), range(2, 60, 100, 100)],
                vec![],
                vec![backup(1, 50, 70)],
                vec![],
                0,
            ),
            (
                "a gap on the abandoned branch does not matter",
                two(),
                vec![range(1, 0, 70, 70), range(2, 60, 100, 100)],
                vec![gap(1, 65, 70)],
                vec![backup(1, 10, 20)],
                vec![((1, 20), (2, 100))],
                0,
            ),
            (
                "it may end on the parent while the child has nothing yet",
                two(),
                vec![range(1, 0, 80, 80)],
                vec![],
                vec![backup(1, 10, 20)],
                vec![((1, 20), (1, 60))],
                0,
            ),
        ];
        for (case, line, ranges, gaps, backups, expected, breaks) in table {
            let found = windows(&line, &ranges, &gaps, &backups);
            assert_eq!(spans(&found), expected, "{case}");
            assert_eq!(found.breaks.len(), breaks, "{case}");
        }
    }

    #[test]
    fn a_break_names_its_bounds_and_the_recorded_reason() {
        let found = windows(
            &line(&[], 1),
            &[range(1, 0, 100, 100), range(1, 120, 200, 200)],
            &[gap(1, 100, 120)],
            &[backup(1, 10, 20), backup(1, 130, 140)],
        );
        let at = |offset| Position::new(Timeline::new(1), Offset::new(offset));
        let expected = Break { from: at(100), to: Some(at(140)), reason: "lost".to_owned() };
        assert_eq!(found.breaks, [expected]);
    }

    /// A point is held behind the first backup, and what lies between it and the window went.
    #[test]
    fn log_that_expired_splits_the_window_and_is_a_loss_only_where_nothing_follows() {
        let expired = |start, end| Gap { reason: EXPIRED.to_owned(), ..gap(1, start, end) };
        let backups = [backup(1, 10, 20), backup(1, 130, 140)];
        // The catalog was told of the log while it was shipped, and has it as one range.
        let of = |gaps: &[Gap], backups: &[Backup]| {
            windows(&line(&[], 1), &[range(1, 0, 200, 200)], gaps, backups)
        };
        let found = of(&[expired(40, 60), expired(60, 100)], &backups);
        assert_eq!(spans(&found), [((1, 20), (1, 40)), ((1, 140), (1, 200))]);
        assert_eq!((found.breaks.len(), found.losses(), found.breaks[0].reason.as_str()), (1, 0, EXPIRED));
        assert!(!found.holds(Position::new(Timeline::new(1), Offset::new(70))));
        // Something was lost there as well.
        let found = of(&[expired(40, 60), gap(1, 60, 100)], &backups);
        assert_eq!((found.losses(), found.breaks[0].reason.as_str()), (1, "lost"));
        // The backups behind it are gone.
        let found = of(&[expired(40, 100)], &backups[..1]);
        assert_eq!((spans(&found), found.losses()), (vec![((1, 20), (1, 40))], 1));
    }
}
