//! What of a log's events goes into the journal's index, and what an index says as events again.
//!
//! What always holds: whoever is given the events of an index comes to the same end as whoever decoded the log, as far as a restore's
//! plan and the list of commits ask: times, transaction numbers with those of sub-transactions, two-phase state, named points,
//! checkpoints, tablespaces, and the settings that a copy must match. All else of an event is left out.

use farshore_journal::Timeline;
use farshore_journal::format::index::{Entry, Number, What};

use crate::event::{
    Abort, Checkpoint, Commit, Happened, LogEvent, Parameters, Prepare, Prepared, TransactionId,
};

/// What an index keeps of an event; `None` for those that it does not list.
pub fn entry(event: &LogEvent) -> Option<Entry> {
    let what = match &event.what {
        Happened::Commit(commit) => What::Commit {
            time: commit.time_micros,
            number: number(commit.transaction),
            within: commit.subtransactions.iter().copied().map(number).collect(),
            prepared: commit.prepared.is_some(),
        },
        Happened::Abort(abort) => What::Abort {
            time: abort.time_micros,
            number: number(abort.transaction),
            within: abort.subtransactions.iter().copied().map(number).collect(),
            prepared: abort.prepared.is_some(),
        },
        Happened::Prepare(prepare) => What::Prepare {
            time: prepare.time_micros,
            number: number(prepare.transaction),
            name: prepare.name.clone(),
        },
        Happened::RestorePoint { name, time_micros } => {
            What::Point { time: *time_micros, name: name.clone() }
        }
        Happened::Checkpoint(checkpoint) => What::Checkpoint {
            time: checkpoint.time_micros,
            redo: checkpoint.redo,
            next: checkpoint.next_transaction,
        },
        Happened::EndOfRecovery { time_micros, .. } | Happened::Abandoned { time_micros, .. } => {
            What::Moment { time: *time_micros }
        }
        Happened::TablespaceCreated { oid, location } => {
            What::Tablespace { oid: *oid, location: location.clone() }
        }
        Happened::ParameterChange(now) => What::Settings {
            values: [
                now.max_connections,
                now.max_worker_processes,
                now.max_wal_senders,
                now.max_prepared_transactions,
                now.max_locks_per_transaction,
                now.wal_level,
            ],
        },
        // Of one record each, and nothing that a plan asks of log that it passes over.
        Happened::Record(_)
        | Happened::CheckpointRedo
        | Happened::BackupEnd { .. }
        | Happened::FullPageWritesChange { .. }
        | Happened::Switch { .. } => return None,
    };
    Some(Entry { start: event.start, end: event.end, what })
}

/// An entry as the event that it was noted from, with what an index leaves out left empty. A moment without more is told as the end
/// of a recovery.
pub fn event(entry: &Entry, timeline: Timeline) -> LogEvent {
    let prepared = |prepared: bool| prepared.then_some(Prepared { name: None });
    let what = match &entry.what {
        What::Commit { time, number, within, prepared: was } => Happened::Commit(Commit {
            time_micros: *time,
            transaction: transaction(*number),
            subtransactions: within.iter().copied().map(transaction).collect(),
            prepared: prepared(*was),
            database: None,
            origin: None,
            relations_dropped: 0,
        }),
        What::Abort { time, number, within, prepared: was } => Happened::Abort(Abort {
            time_micros: *time,
            transaction: transaction(*number),
            subtransactions: within.iter().copied().map(transaction).collect(),
            prepared: prepared(*was),
            database: None,
        }),
        What::Prepare { time, number, name } => Happened::Prepare(Prepare {
            time_micros: *time,
            transaction: transaction(*number),
            subtransactions: Vec::new(),
            name: name.clone(),
            database: 0,
        }),
        What::Point { time, name } => Happened::RestorePoint { name: name.clone(), time_micros: *time },
        What::Checkpoint { time, redo, next } => Happened::Checkpoint(Checkpoint {
            online: true,
            redo: *redo,
            next_transaction: *next,
            timeline,
            previous_timeline: timeline,
            full_page_writes: true,
            time_micros: *time,
        }),
        What::Moment { time } => {
            Happened::EndOfRecovery { time_micros: *time, timeline, previous_timeline: timeline }
        }
        What::Tablespace { oid, location } => {
            Happened::TablespaceCreated { oid: *oid, location: location.clone() }
        }
        What::Settings { values } => {
            let [connections, workers, senders, prepared, locks, wal_level] = *values;
            Happened::ParameterChange(Parameters {
                max_connections: connections,
                max_worker_processes: workers,
                max_wal_senders: senders,
                max_prepared_transactions: prepared,
                max_locks_per_transaction: locks,
                wal_level,
                wal_log_hints: false,
                track_commit_timestamp: false,
            })
        }
    };
    LogEvent { start: entry.start, end: entry.end, what }
}

fn number(id: TransactionId) -> Number {
    Number { low: id.low, full: id.full }
}

fn transaction(number: Number) -> TransactionId {
    TransactionId { low: number.low, full: number.full }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_journal::Offset;

    fn back(what: Happened) -> Option<Happened> {
        let told = LogEvent { start: Offset::new(80), end: Offset::new(120), what };
        let again = event(&entry(&told)?, Timeline::new(1));
        assert_eq!((again.start, again.end), (told.start, told.end));
        Some(again.what)
    }

    #[test]
    fn what_a_plan_asks_of_an_event_survives_the_index() {
        let id = |low| TransactionId { low, full: Some(u64::from(low)) };
        let commit = Commit {
            time_micros: 7,
            transaction: id(700),
            subtransactions: vec![id(701), TransactionId { low: 702, full: Some(702) }],
            prepared: Some(Prepared { name: Some("half".to_owned()) }),
            database: Some(5),
            origin: None,
            relations_dropped: 3,
        };
        let kept = Commit {
            prepared: Some(Prepared { name: None }),
            database: None,
            relations_dropped: 0,
            ..commit.clone()
        };
        assert_eq!(back(Happened::Commit(commit)), Some(Happened::Commit(kept)));
        let point = Happened::RestorePoint { name: "deploy".to_owned(), time_micros: -3 };
        assert_eq!(back(point.clone()), Some(point));
        let made = Happened::TablespaceCreated { oid: 16_400, location: "/fast".to_owned() };
        assert_eq!(back(made.clone()), Some(made));
        let settings = Parameters {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 5,
            max_locks_per_transaction: 64,
            wal_level: 1,
            wal_log_hints: false,
            track_commit_timestamp: false,
        };
        assert_eq!(back(Happened::ParameterChange(settings)), Some(Happened::ParameterChange(settings)));
        assert_eq!(back(Happened::CheckpointRedo), None);
        assert_eq!(back(Happened::Switch { next_segment: Offset::new(160) }), None);
    }
}
