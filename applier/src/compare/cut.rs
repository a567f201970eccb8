//! The span of the log at whose positions a standby shows what a snapshot of its primary sees: pure.
//!
//! What always holds: every commit of the log that was read and that the snapshot sees ends at or before the cut's begin, and every other one starts at or behind its end.
//! What lies before the log that was read is not judged here: `pg_xact_status` on the standby is asked for it.
//!
//! ```text
//!  log read   │ seen  seen │            │ unseen  …        │ until
//!             whole_from   begin ─ cut ─ end
//! ```

use farshore_engines::event::{Happened, LogEvent};
use farshore_engines::postgres::sql::compare::Snapshot;
use farshore_journal::Offset;

/// Bytes of a record that a standby is sent so that it replays the one before: fewer than the 24 of a record's head, without which it replays nothing of it.
const ENOUGH: u64 = 8;

/// A cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The end of the last commit that is seen, or from where on the log was looked at.
    pub begin: Offset,
    /// The start of the first commit that is not seen; where there was none, up to where the log was looked at.
    pub end: Offset,
    /// Whether a commit begins at the end.
    pub is_closed: bool,
}

/// A commit that is seen lies behind one that is not, or of one it is not known whether it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixed {
    /// Where the one that is not seen starts.
    pub unseen: Offset,
    /// Where the one that is seen starts.
    pub seen: Offset,
}

/// How a standby stands to a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It has not replayed up to there.
    Before,
    /// It shows what the snapshot sees, as far as the log that was read says.
    Within,
    /// It has replayed more.
    Behind,
}

impl Cut {
    /// The end of what the standby is sent.
    pub fn ceiling(&self) -> Offset {
        let more = if self.is_closed { ENOUGH } else { 0 };
        Offset::new(self.end.get().saturating_add(more))
    }

    /// How a standby stands that has replayed up to there.
    pub fn stand(&self, replayed: Offset) -> Stand {
        match replayed {
            at if at < self.begin => Stand::Before,
            at if at <= self.end => Stand::Within,
            _ => Stand::Behind,
        }
    }
}

/// Looks for it while log is decoded.
#[derive(Debug)]
pub struct Finder<'a> {
    snapshot: &'a Snapshot,
    begin: Offset,
    unseen: Option<Offset>,
    mixed: Option<Mixed>,
}

impl<'a> Finder<'a> {
    /// Of log from there on.
    pub fn new(snapshot: &'a Snapshot, from: Offset) -> Self {
        Self { snapshot, begin: from, unseen: None, mixed: None }
    }

    /// Takes what the log says next.
    pub fn see(&mut self, event: &LogEvent) {
        let Happened::Commit(commit) = &event.what else { return };
        let Some(number) = commit.transaction.full else {
            // Of one whose number's upper half is not known nobody can say whether it is seen.
            self.mixed.get_or_insert(Mixed { unseen: event.start, seen: event.start });
            return;
        };
        let is_seen = self.snapshot.sees(number);
        match (is_seen, self.unseen) {
            (true, None) => self.begin = event.end,
            (true, Some(unseen)) => {
                self.mixed.get_or_insert(Mixed { unseen, seen: event.start });
            }
            (false, None) => self.unseen = Some(event.start),
            (false, Some(_)) => {}
        }
    }

    /// What was found, in log that was whole from there on and was read up to `until`.
    ///
    /// # Errors
    /// When the snapshot fits no position.
    pub fn found(self, whole_from: Offset, until: Offset) -> Result<Cut, Mixed> {
        if let Some(mixed) = self.mixed {
            return Err(mixed);
        }
        let begin = self.begin.max(whole_from);
        let end = self.unseen.unwrap_or(until).max(begin);
        Ok(Cut { begin, end, is_closed: self.unseen.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use farshore_engines::event::{Abort, Commit, Prepared, TransactionId};

    use super::*;

    fn at(offset: u64) -> Offset {
        Offset::new(offset)
    }

    fn commit(start: u64, number: u64, prepared: bool) -> LogEvent {
        let what = Happened::Commit(Commit {
            time_micros: 0,
            transaction: TransactionId { low: number as u32, full: Some(number) },
            // They commit by their parent's record, whatever their numbers are.
            subtransactions: vec![TransactionId { low: 999, full: Some(999) }],
            prepared: prepared.then_some(Prepared { name: None }),
            database: None,
            origin: None,
            relations_dropped: 0,
        });
        LogEvent { start: at(start), end: at(start + 50), what }
    }

    fn abort(start: u64, number: u64) -> LogEvent {
        let transaction = TransactionId { low: number as u32, full: Some(number) };
        let (subtransactions, prepared, database) = (Vec::new(), None, None);
        let what =
            Happened::Abort(Abort { time_micros: 0, transaction, subtransactions, prepared, database });
        LogEvent { start: at(start), end: at(start + 50), what }
    }

    fn found(events: &[LogEvent]) -> Result<Cut, Mixed> {
        let snapshot: Snapshot = "10:20:10,12".parse().unwrap();
        let mut finder = Finder::new(&snapshot, at(8192));
        events.iter().for_each(|event| finder.see(event));
        finder.found(at(8300), at(20_000))
    }

    #[test]
    fn a_cut_lies_between_the_last_commit_that_is_seen_and_the_first_that_is_not() {
        let cut = |begin, end, is_closed| Ok(Cut { begin: at(begin), end: at(end), is_closed });
        assert_eq!(found(&[]), cut(8300, 20_000, false));
        assert_eq!(found(&[commit(9000, 11, false)]), cut(9050, 20_000, false));
        assert_eq!(found(&[commit(9000, 11, false), commit(9100, 12, false)]), cut(9050, 9100, true));
        assert_eq!(found(&[commit(9000, 25, false), commit(9100, 10, true)]), cut(8300, 9000, true));
        // What is rolled back shows nobody anything.
        let events = [abort(8900, 12), commit(9000, 11, false), abort(9100, 21), commit(9200, 20, false)];
        assert_eq!(found(&events), cut(9050, 9200, true));
        // A prepared one commits by its own number.
        assert_eq!(found(&[commit(9000, 12, true), commit(9100, 10, false)]), cut(8300, 9000, true));
    }

    #[test]
    fn a_snapshot_that_sees_a_commit_behind_one_that_it_does_not_see_fits_nowhere() {
        let mixed = Err(Mixed { unseen: at(9000), seen: at(9200) });
        let events = [commit(9000, 12, false), commit(9100, 21, false), commit(9200, 11, false)];
        assert_eq!(found(&events), mixed);
        let mut unknown = commit(9000, 11, false);
        if let Happened::Commit(commit) = &mut unknown.what {
            commit.transaction.full = None;
        }
        assert_eq!(found(&[unknown]), Err(Mixed { unseen: at(9000), seen: at(9000) }));
    }

    #[test]
    fn a_standby_is_sent_too_little_of_the_first_unseen_commit_to_replay_it() {
        let cut = found(&[commit(9000, 11, false), commit(9100, 12, false)]).unwrap();
        assert_eq!(cut.ceiling(), at(9108));
        let open = found(&[]).unwrap();
        assert_eq!(open.ceiling(), at(20_000));
        let stands = [9049, 9050, 9100, 9101].map(|replayed| cut.stand(at(replayed)));
        assert_eq!(stands, [Stand::Before, Stand::Within, Stand::Within, Stand::Behind]);
    }
}
