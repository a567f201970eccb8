//! Finds a target in the log: takes bytes, decodes them, remembers the last record that counts. Pure.
//!
//! What always holds: the found record is the last that ends at or before the target, and what is remembered of commits and
//! prepared transactions is as of that record. Bounded: a decoder, the prepared transactions, and short lists.

use std::collections::HashMap;

use farshore_engines::event::{Commit, Happened, LogEvent, Parameters, TransactionId};
use farshore_engines::indexed;
use farshore_engines::log::{Decoder, LogError, Shape};
use farshore_engines::postgres::restore::control::Limits;
use farshore_journal::format::index::What;
use farshore_journal::index::Indexed;
use farshore_journal::{Offset, Position, Timeline};

/// How many out-of-order commits and fitting points are named.
const MAX_NAMED: usize = 100;
/// How much log behind a time's target is looked at for commits that are out of order.
const LOOK_BEHIND_BYTES: u64 = 16 << 20;
/// A server has at most as many prepared transactions as connections it can have. Source: `max_prepared_transactions`.
const MAX_PREPARED: usize = 262_143;

/// Below this replay is refused. Source: `WalLevel`, src/include/access/xlog.h.
const WAL_LEVEL_REPLICA: i32 = 1;
/// How many tablespaces are remembered. Whoever reaches this is refused for the first of them.
const MAX_TABLESPACES: usize = 10_000;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    End,
    /// Microseconds since 1970.
    Time(i64),
    Position(Offset),
    Transaction(u64),
    Point(String),
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub start: Offset,
    pub end: Offset,
}

/// A commit that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitSeen {
    pub xid: Option<u64>,
    pub time_micros: i64,
    pub end: Offset,
}

/// What the search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The target.
    Found(Box<Found>),
    /// It lies before the first record.
    Before,
    /// It is not in the log that was read.
    Absent,
    /// The transaction was rolled back.
    Aborted { at: Offset },
    /// It fits more than once.
    Ambiguous { at: Vec<Offset> },
    /// No commit is later than the time, and nothing shows that the log reaches it.
    TimeBeyond { newest_micros: Option<i64> },
}

/// The target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub record: Mark,
    pub commit: Option<CommitSeen>,
    /// Prepared in the log that was read, by low number.
    pub prepared: Vec<(TransactionId, String)>,
    /// Decided in it: those the base held prepared are undecided only if they are not here.
    pub decided: Vec<u32>,
    pub out_of_order: Vec<CommitSeen>,
    /// For a time: whether it is known that the base itself holds no later commit.
    pub base_is_early: bool,
    /// Tablespaces made in it: where their records start, and where the tablespaces were.
    pub tablespaces: Vec<(Offset, String)>,
    /// The most that the source's settings were from the base's start on, where the log says that they changed.
    pub demanded: Option<Limits>,
    /// The first record behind the base's start from which on the source logged too little to be replayed.
    pub minimal_from: Option<Offset>,
}

/// The search.
#[derive(Debug)]
pub(crate) struct Scan {
    decoder: Decoder,
    search: Search,
    /// Whose history is read: log of its ancestors is followed by its own.
    timeline: Timeline,
}

#[derive(Debug)]
struct Search {
    shape: Shape,
    wanted: Wanted,
    last: Option<Mark>,
    before_last: Option<Mark>,
    commit: Option<CommitSeen>,
    prepared: HashMap<u32, (TransactionId, String)>,
    decided: Vec<u32>,
    tablespaces: Vec<(Offset, String)>,
    demanded: Option<Limits>,
    minimal_from: Option<Offset>,
    newest_micros: Option<i64>,
    /// Points or transactions that fit.
    fits: Vec<Found>,
    /// The target, frozen.
    found: Option<Found>,
    ended: Option<Outcome>,
    /// Where the base's replay starts.
    base_start: Offset,
    /// A commit in front of the base was seen: none of those read there is later than the time asked for.
    commit_before_base: bool,
    /// A time that no commit in the base is later than, as the log says it: microseconds since 1970.
    base_until_micros: Option<i64>,
    look_until: Option<Offset>,
}

impl Scan {
    /// Begins at `start`, where a decoder can; for a time perhaps some way before the base's start. `next_transaction` gives transactions their whole numbers.
    pub fn new(
        shape: Shape,
        start: Position,
        base_start: Offset,
        next_transaction: Option<u64>,
        wanted: Wanted,
    ) -> Result<Self, LogError> {
        let decoder = shape.decoder(start)?.with_every_record();
        let decoder = match next_transaction {
            Some(next) => decoder.with_transaction_anchor(next),
            None => decoder,
        };
        let search = Search {
            shape,
            wanted,
            last: None,
            before_last: None,
            commit: None,
            prepared: HashMap::new(),
            decided: Vec::new(),
            tablespaces: Vec::new(),
            demanded: None,
            minimal_from: None,
            newest_micros: None,
            fits: Vec::new(),
            found: None,
            ended: None,
            base_start,
            commit_before_base: false,
            base_until_micros: None,
            look_until: None,
        };
        Ok(Self { decoder, search, timeline: start.timeline })
    }

    /// Takes the next bytes. `true` when no more are needed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, LogError> {
        let search = &mut self.search;
        let pushed = self.decoder.push(bytes, &mut |event| search.see(&event));
        self.end_at_position();
        // What is found in front of damage is found.
        match pushed {
            Err(_) if self.is_settled() => Ok(true),
            Err(why) => Err(why),
            Ok(()) => Ok(self.search.is_done()),
        }
    }

    /// A record that ends at the very position is the last by it, whatever follows: that need not be read, and may be damaged.
    fn end_at_position(&mut self) {
        let Wanted::Position(target) = self.search.wanted else { return };
        // A switch ends behind padding, which must be there.
        let is_whole = self.decoder.next_wanted() >= target;
        if is_whole && !self.is_settled() && self.search.last.is_some_and(|last| last.end == target) {
            self.search.stop_at(self.search.last);
        }
    }

    /// Whether what follows cannot change what the search comes to: a time's target is found with the first later commit, and only
    /// what else might be of interest is looked for behind it.
    pub fn is_settled(&self) -> bool {
        self.search.found.is_some() || self.search.ended.is_some()
    }

    /// Whether log may be passed over here on an index's word: nothing was found yet, and what is known of the base came from its log.
    /// A name may have been given twice, so for a point all log is read.
    pub fn may_pass(&self) -> bool {
        let search = &self.search;
        let base_is_known = match search.wanted {
            Wanted::Time(_) => search.commit_before_base || search.base_until_micros.is_some(),
            Wanted::End | Wanted::Position(_) | Wanted::Transaction(_) => true,
            Wanted::Point(_) => return false,
        };
        base_is_known && search.found.is_none() && search.ended.is_none()
    }

    /// Whether the target lies behind this run, by the index's word.
    pub fn lies_behind(&self, run: &Indexed) -> bool {
        let (header, index) = (&run.header, &run.index);
        match self.search.wanted {
            Wanted::End => true,
            // Whether the journal reaches the time is decided by what the log itself says.
            Wanted::Time(target) => {
                let claims = &index.claims;
                [claims.newest, claims.newest_commit].into_iter().flatten().all(|newest| newest < target)
            }
            Wanted::Position(target) => header.end < target,
            Wanted::Transaction(xid) if index.level > 0 => !index.claims.may_hold(xid),
            Wanted::Transaction(xid) => !index.entries.iter().any(|entry| may_have_ended(xid, &entry.what)),
            Wanted::Point(_) => false,
        }
    }

    /// Takes an index's word for a run, and goes on decoding behind its last whole record.
    pub fn pass(&mut self, run: &Indexed) -> Result<(), LogError> {
        let index = &run.index;
        let before = self.decoder.whole().and_then(|whole| whole.next_transaction);
        let decoder = self.search.shape.decoder(Position::new(self.timeline, index.whole.to))?;
        let decoder = decoder.with_every_record().with_previous_record(index.whole.last_record);
        self.decoder = match index.whole.next_transaction.or(before) {
            Some(next) => decoder.with_transaction_anchor(next),
            None => decoder,
        };
        let newest_of_log = self.search.newest_micros;
        for entry in &index.entries {
            self.search.see(&indexed::event(entry, run.header.timeline));
        }
        self.search.newest_micros = newest_of_log;
        self.search.last = Some(Mark { start: index.whole.last_record, end: index.whole.to });
        Ok(())
    }

    /// What the log up to a plan's target holds, all of it read: the same search, come to the same end. `None` when it ends
    /// otherwise.
    pub fn confirmed(mut self) -> Option<Found> {
        self.unless_padding_lacks();
        match (self.search.ended.take(), self.search.found.take(), &self.search.wanted) {
            (Some(_), _, _) => None,
            (None, Some(found), _) => Some(found),
            // A transaction is found where it is committed, or not at all.
            (None, None, Wanted::Transaction(_)) => None,
            (None, None, _) => self.search.last.map(|last| self.search.freeze(last)),
        }
    }

    /// The end of the last whole record.
    pub fn whole_to(&self) -> Option<Offset> {
        self.search.last.map(|mark| mark.end)
    }

    /// What the search came to, when the log has ended or no more was needed.
    pub fn finish(mut self) -> Outcome {
        self.unless_padding_lacks();
        self.search.finish()
    }

    /// A switch was seen, and the padding up to its end is not there: replay could not come to stand at that end.
    fn unless_padding_lacks(&mut self) {
        let read_to = self.decoder.next_wanted();
        if self.search.last.is_some_and(|last| last.end > read_to) {
            self.search.last = self.search.before_last;
        }
    }
}

impl Search {
    fn is_done(&self) -> bool {
        self.ended.is_some() || (self.found.is_some() && self.look_until.is_none())
    }

    fn freeze(&self, record: Mark) -> Found {
        Found {
            record,
            commit: self.commit.filter(|commit| commit.end <= record.end),
            prepared: in_order(&self.prepared),
            decided: self.decided.clone(),
            out_of_order: Vec::new(),
            base_is_early: match self.wanted {
                Wanted::Time(target) => {
                    self.commit_before_base || self.base_until_micros.is_some_and(|at| at <= target)
                }
                _ => true,
            },
            tablespaces: self.tablespaces.iter().filter(|(at, _)| *at <= record.start).cloned().collect(),
            demanded: self.demanded,
            minimal_from: self.minimal_from.filter(|at| *at <= record.start),
        }
    }

    fn see(&mut self, event: &LogEvent) {
        if self.is_done() {
            return;
        }
        if let Some(found) = &mut self.found {
            // Only a time is looked at further: for commits that are out of order behind it.
            if let (Wanted::Time(target), Happened::Commit(commit)) = (&self.wanted, &event.what)
                && commit.time_micros <= *target
                && found.out_of_order.len() < MAX_NAMED
            {
                found.out_of_order.push(seen(commit, event));
            }
            if self.look_until.is_some_and(|until| event.start >= until) {
                self.look_until = None;
            }
            return;
        }
        // The first was read from the log: none is passed over before.
        self.base_until_micros =
            self.base_until_micros.or_else(|| self.shape.base_holds_until(self.base_start, event));
        match &event.what {
            Happened::Record(_) => self.record(Mark { start: event.start, end: event.end }),
            Happened::Switch { next_segment } => self.switch(event, *next_segment),
            Happened::Commit(commit) => self.commit(event, commit),
            Happened::Abort(abort) => {
                self.newest(abort.time_micros);
                if let Wanted::Transaction(xid) = self.wanted
                    && is_one(xid, &abort.transaction, &abort.subtransactions)
                {
                    self.ended = Some(Outcome::Aborted { at: event.end });
                }
                if abort.prepared.is_some() {
                    self.decide(abort.transaction.low);
                }
            }
            Happened::Prepare(prepare) => {
                self.newest(prepare.time_micros);
                if self.prepared.len() < MAX_PREPARED {
                    let value = (prepare.transaction, prepare.name.clone());
                    self.prepared.insert(prepare.transaction.low, value);
                }
            }
            Happened::RestorePoint { name, time_micros } => {
                self.newest(*time_micros);
                if matches!(&self.wanted, Wanted::Point(wanted) if wanted == name)
                    && self.fits.len() < MAX_NAMED
                {
                    let fits = self.freeze(Mark { start: event.start, end: event.end });
                    self.fits.push(fits);
                }
            }
            Happened::Checkpoint(checkpoint) => {
                self.newest(checkpoint.time_micros);
            }
            Happened::EndOfRecovery { time_micros, .. } | Happened::Abandoned { time_micros, .. } => {
                self.newest(*time_micros);
            }
            Happened::TablespaceCreated { location, .. } => {
                if self.tablespaces.len() < MAX_TABLESPACES {
                    self.tablespaces.push((event.start, location.clone()));
                }
            }
            // What lies before the base's start is not replayed.
            Happened::ParameterChange(now) if event.start >= self.base_start => self.parameters(event, now),
            Happened::CheckpointRedo
            | Happened::BackupEnd { .. }
            | Happened::ParameterChange(_)
            | Happened::FullPageWritesChange { .. } => {}
        }
    }

    /// A record, told before what it says.
    fn record(&mut self, mark: Mark) {
        if let Wanted::Position(target) = self.wanted
            && mark.end > target
        {
            self.stop_at(self.last);
            return;
        }
        self.before_last = self.last;
        self.last = Some(mark);
    }

    /// A switch ends where its segment does: replay stands there, and nowhere in between.
    fn switch(&mut self, event: &LogEvent, next_segment: Offset) {
        if let Wanted::Position(target) = self.wanted
            && next_segment > target
        {
            self.stop_at(self.before_last);
            return;
        }
        self.last = Some(Mark { start: event.start, end: next_segment });
    }

    fn commit(&mut self, event: &LogEvent, commit: &Commit) {
        if let Wanted::Time(target) = self.wanted
            && commit.time_micros > target
        {
            self.stop_at(self.before_last);
            self.look_until = event.end.checked_add(LOOK_BEHIND_BYTES);
            return;
        }
        self.newest(commit.time_micros);
        self.commit_before_base |= event.end <= self.base_start;
        self.commit = Some(seen(commit, event));
        if commit.prepared.is_some() {
            self.decide(commit.transaction.low);
        }
        if let Wanted::Transaction(xid) = self.wanted {
            if is_one(xid, &commit.transaction, &commit.subtransactions) {
                self.found = Some(self.freeze(Mark { start: event.start, end: event.end }));
            } else if unknown_one(xid, &commit.transaction, &commit.subtransactions) {
                self.ended = Some(Outcome::Ambiguous { at: vec![event.end] });
            }
        }
    }

    fn parameters(&mut self, event: &LogEvent, now: &Parameters) {
        let count = |value: i32| u32::try_from(value).unwrap_or(0);
        let limits = Limits {
            max_connections: count(now.max_connections),
            max_worker_processes: count(now.max_worker_processes),
            max_wal_senders: count(now.max_wal_senders),
            max_prepared_transactions: count(now.max_prepared_transactions),
            max_locks_per_transaction: count(now.max_locks_per_transaction),
        };
        self.demanded = Some(self.demanded.map_or(limits, |known| known.with(&limits)));
        if now.wal_level < WAL_LEVEL_REPLICA {
            self.minimal_from = self.minimal_from.or(Some(event.start));
        }
    }

    fn stop_at(&mut self, mark: Option<Mark>) {
        match mark {
            Some(mark) => self.found = Some(self.freeze(mark)),
            None => self.ended = Some(Outcome::Before),
        }
    }

    fn decide(&mut self, low: u32) {
        self.prepared.remove(&low);
        if self.decided.len() < MAX_PREPARED {
            self.decided.push(low);
        }
    }

    fn newest(&mut self, micros: i64) {
        self.newest_micros = Some(self.newest_micros.map_or(micros, |known| known.max(micros)));
    }

    fn finish(mut self) -> Outcome {
        if let Some(outcome) = self.ended.take() {
            return outcome;
        }
        if let Some(found) = self.found.take() {
            return Outcome::Found(Box::new(found));
        }
        let at_end = |search: &Self| match search.last {
            Some(last) => Outcome::Found(Box::new(search.freeze(last))),
            None => Outcome::Absent,
        };
        match &self.wanted {
            Wanted::End | Wanted::Position(_) => at_end(&self),
            Wanted::Time(target) if self.newest_micros.is_some_and(|newest| newest >= *target) => {
                at_end(&self)
            }
            Wanted::Time(_) => Outcome::TimeBeyond { newest_micros: self.newest_micros },
            Wanted::Transaction(_) => Outcome::Absent,
            Wanted::Point(_) => match self.fits.len() {
                0 => Outcome::Absent,
                1 => self.fits.pop().map_or(Outcome::Absent, |found| Outcome::Found(Box::new(found))),
                _ => Outcome::Ambiguous { at: self.fits.iter().map(|found| found.record.end).collect() },
            },
        }
    }
}

/// Two plans of one target are equal, whatever the order in which prepared transactions are remembered.
fn in_order(prepared: &HashMap<u32, (TransactionId, String)>) -> Vec<(TransactionId, String)> {
    let mut prepared: Vec<_> = prepared.values().cloned().collect();
    prepared.sort_unstable_by_key(|(transaction, _)| (transaction.full, transaction.low));
    prepared
}

/// Whether an entry tells the end of this transaction, or may.
#[allow(clippy::cast_possible_truncation)] // the low half is meant
fn may_have_ended(xid: u64, what: &What) -> bool {
    match what {
        What::Commit { number, within, .. } | What::Abort { number, within, .. } => {
            std::iter::once(number).chain(within).any(|one| match one.full {
                Some(full) => full == xid,
                None => one.low == xid as u32,
            })
        }
        _ => false,
    }
}

fn seen(commit: &Commit, event: &LogEvent) -> CommitSeen {
    CommitSeen { xid: commit.transaction.full, time_micros: commit.time_micros, end: event.end }
}

/// Whether the transaction, or one of its sub-transactions, is this one.
fn is_one(xid: u64, transaction: &TransactionId, subtransactions: &[TransactionId]) -> bool {
    transaction.full == Some(xid) || subtransactions.iter().any(|sub| sub.full == Some(xid))
}

/// Whether it may be this one, where the log does not say how often the counter went round.
#[allow(clippy::cast_possible_truncation)] // the low half is meant
fn unknown_one(xid: u64, transaction: &TransactionId, subtransactions: &[TransactionId]) -> bool {
    let may_be = |id: &TransactionId| id.full.is_none() && id.low == xid as u32;
    may_be(transaction) || subtransactions.iter().any(may_be)
}
