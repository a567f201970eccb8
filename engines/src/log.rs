//! A database's log, whichever engine wrote it: what must be known before it can be read, and its decoder.
//!
//! What always holds: `whole_from <= checked_end <= next_wanted`, whatever the engine; the same bytes give the same events however
//! they are cut. Nobody outside of this crate asks which engine it is in order to decode.

use farshore_journal::format::Mark;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::index::Whole;
use farshore_journal::{Offset, Position};

use crate::event::{Commit, Happened, LogEvent, RecordSeen};
use crate::postgres::log as postgres;
use crate::sqlite::decoder::{Part, RecordDecoder, RecordError};

/// What PostgreSQL is called in a store's records.
pub const POSTGRES: &str = "postgres";
/// What SQLite is called in a store's records.
pub const SQLITE: &str = "sqlite";

/// A checkpoint's time is in whole seconds and taken shortly before its start in the log is fixed.
/// Source: `CreateCheckPoint`, src/backend/access/transam/xlog.c.
const CHECKPOINT_SLACK_MICROS: i64 = 2_000_000;

/// What must be known of a log before it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A PostgreSQL cluster's.
    Postgres(postgres::LogShape),
    /// A SQLite database's, which says all else itself.
    Sqlite {
        /// Bytes of one of the journal's log segments.
        segment_bytes: u64,
    },
}

/// An incarnation whose log cannot be read by this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A PostgreSQL that is not known.
    #[error(transparent)]
    Postgres(#[from] postgres::ShapeError),
    /// A PostgreSQL whose identity is none.
    #[error("the identity `{identity}` is not a PostgreSQL system identifier")]
    Identity {
        /// What it is called.
        identity: String,
    },
    /// An engine that is not known.
    #[error("the engine `{engine}` is not known")]
    Engine {
        /// Which.
        engine: String,
    },
}

/// Log bytes that are not what their engine writes. After one, a decoder takes no more bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// PostgreSQL's.
    #[error(transparent)]
    Postgres(#[from] postgres::LogError),
    /// A SQLite database's.
    #[error(transparent)]
    Sqlite(#[from] RecordError),
}

impl Shape {
    /// Of an incarnation, as its record says.
    ///
    /// # Errors
    /// When this build does not know such a log.
    pub fn of(record: &IncarnationRecord) -> Result<Self, ShapeError> {
        match record.engine.as_str() {
            POSTGRES => {
                let identity = record.identity.parse();
                Ok(Self::Postgres(postgres::LogShape {
                    major: postgres::Major::new(record.major)?,
                    segment_bytes: postgres::SegmentBytes::new(record.segment_bytes)?,
                    system_identifier: identity
                        .map_err(|_| ShapeError::Identity { identity: record.identity.clone() })?,
                }))
            }
            SQLITE => Ok(Self::Sqlite { segment_bytes: record.segment_bytes }),
            engine => Err(ShapeError::Engine { engine: engine.to_owned() }),
        }
    }

    /// Bytes of one of the journal's log segments.
    pub fn segment_bytes(&self) -> u64 {
        match self {
            Self::Postgres(shape) => shape.segment_bytes.get(),
            Self::Sqlite { segment_bytes } => *segment_bytes,
        }
    }

    /// Where reading must begin so that what starts at `from`, a record's start, is decoded as the engine itself would come to it: at
    /// its segment's start for PostgreSQL, which finds records by its pages.
    pub fn read_from(&self, from: Offset) -> Offset {
        match self {
            Self::Postgres(shape) => from.segment_start(shape.segment_bytes.get()),
            Self::Sqlite { .. } => from,
        }
    }

    /// Whether records are found from any segment's start on, and not only from a record's.
    pub fn finds_records(&self) -> bool {
        match self {
            Self::Postgres(_) => true,
            Self::Sqlite { .. } => false,
        }
    }

    /// The first place at or behind `at` where a decoder that knows nothing can begin; `is_record` says whether a record is known to
    /// start at `at`. `None`: nowhere before the next place of which that is known.
    pub fn next_begin(&self, at: Offset, is_record: bool) -> Option<Offset> {
        match self {
            // Only at a segment's start is it known that a page begins.
            Self::Postgres(shape) => {
                at.get().checked_next_multiple_of(shape.segment_bytes.get()).map(Offset::new)
            }
            // A mark in a chunk's header will say where to go on.
            Self::Sqlite { .. } => is_record.then_some(at),
        }
    }

    /// Places some way before `at` where a decoder can begin, the furthest first: at most so many bytes before it, or one segment.
    pub fn begins_before(&self, at: Offset, bytes: u64) -> impl Iterator<Item = Offset> + use<> {
        let (segment, segments) = match self {
            Self::Postgres(shape) => {
                let segment = shape.segment_bytes.get();
                (segment, (bytes / segment).max(1))
            }
            // None that is known. See `base_holds_until`.
            Self::Sqlite { .. } => (0, 0),
        };
        (1..=segments)
            .rev()
            .filter_map(move |back| at.get().checked_sub(back.checked_mul(segment)?))
            .map(Offset::new)
    }

    /// A time that no commit in a base is later than, where this event says one; the base's log begins at `base_start`. Microseconds
    /// since 1970.
    pub fn base_holds_until(&self, base_start: Offset, event: &LogEvent) -> Option<i64> {
        match (self, &event.what) {
            (Self::Postgres(_), Happened::Checkpoint(checkpoint)) if checkpoint.redo == base_start => {
                checkpoint.time_micros.checked_add(CHECKPOINT_SLACK_MICROS)
            }
            // The last record before the copy began. Times never fall while one process follows; from one to the next the clock may have been
            // set back, and a base that is that process's first cannot be told from its log alone to hold what the clock said before.
            (
                Self::Sqlite { .. },
                Happened::Commit(Commit { time_micros, .. }) | Happened::RestorePoint { time_micros, .. },
            ) if event.start == base_start => Some(*time_micros),
            _ => None,
        }
    }

    /// A decoder that will be given the bytes from `start` on: a record's start, or for PostgreSQL a page's or a segment's.
    ///
    /// # Errors
    /// When none of these can be there.
    pub fn decoder(&self, start: Position) -> Result<Decoder, LogError> {
        Ok(match self {
            Self::Postgres(shape) => Decoder::Postgres(Box::new(postgres::LogDecoder::new(*shape, start)?)),
            Self::Sqlite { .. } => {
                Decoder::Sqlite { records: Box::new(RecordDecoder::new(start.offset)), every_record: false }
            }
        })
    }
}

/// Decodes a log. See the module's head for what always holds.
#[derive(Debug)]
pub enum Decoder {
    /// PostgreSQL's.
    Postgres(Box<postgres::LogDecoder>),
    /// A SQLite database's.
    Sqlite {
        /// Its records.
        records: Box<RecordDecoder>,
        /// Whether every record is told of.
        every_record: bool,
    },
}

impl Decoder {
    /// Also gives [`Happened::Record`] for every record, before what else it says.
    #[must_use]
    pub fn with_every_record(self) -> Self {
        match self {
            Self::Postgres(decoder) => Self::Postgres(Box::new(decoder.with_every_record())),
            Self::Sqlite { records, .. } => Self::Sqlite { records, every_record: true },
        }
    }

    /// Gives transactions their whole numbers from the start, from one that is known to be near. A log that carries them whole needs none.
    #[must_use]
    pub fn with_transaction_anchor(self, next_transaction: u64) -> Self {
        match self {
            Self::Postgres(decoder) => {
                Self::Postgres(Box::new(decoder.with_transaction_anchor(next_transaction)))
            }
            other => other,
        }
    }

    /// Requires, where records say which one they follow, that the first whole one follows the one that starts here.
    #[must_use]
    pub fn with_previous_record(self, start: Offset) -> Self {
        match self {
            Self::Postgres(decoder) => Self::Postgres(Box::new(decoder.with_previous_record(start))),
            other => other,
        }
    }

    /// Takes the next bytes and gives what they complete to `sink`, in log order.
    ///
    /// # Errors
    /// At the first byte that is out of place; events before it were given. Every later call gives the same error.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(LogEvent)) -> Result<(), LogError> {
        match self {
            Self::Postgres(decoder) => decoder.push(bytes, sink)?,
            Self::Sqlite { records, every_record } => records.push(bytes, &mut |part| {
                let Part::End(ended) = part else { return };
                let event = ended.event();
                if *every_record {
                    let seen = RecordSeen {
                        resource_manager: 0,
                        info: 0,
                        // As the log of an engine with numbers of 32 bits has it.
                        transaction: ended.head.number as u32,
                        total_bytes: u32::try_from(ended.head.bytes).unwrap_or(u32::MAX),
                    };
                    sink(LogEvent { start: event.start, end: event.end, what: Happened::Record(seen) });
                }
                sink(event);
            })?,
        }
        Ok(())
    }

    /// The end of the last whole, checked record.
    pub fn checked_end(&self) -> Option<Offset> {
        match self {
            Self::Postgres(decoder) => decoder.checked_end(),
            Self::Sqlite { records, .. } => records.checked_end(),
        }
    }

    /// Where the first whole record starts.
    pub fn whole_from(&self) -> Option<Offset> {
        match self {
            Self::Postgres(decoder) => decoder.whole_from(),
            Self::Sqlite { records, .. } => records.whole_from(),
        }
    }

    /// Where the last whole record ends, if decoding can go on from there with nothing known of what came before but this.
    pub fn whole(&self) -> Option<Whole> {
        match self {
            Self::Postgres(decoder) => decoder.whole(),
            Self::Sqlite { records, .. } => records.whole(),
        }
    }

    /// What a chunk that ends where the last whole record does says of that end: [`Mark::NONE`] where the log itself can be found again.
    pub fn mark(&self) -> Mark {
        match self {
            Self::Postgres(_) => Mark::NONE,
            Self::Sqlite { records, .. } => records.mark(),
        }
    }

    /// The next byte wanted, where nothing failed.
    pub fn next_wanted(&self) -> Offset {
        match self {
            Self::Postgres(decoder) => decoder.next_wanted(),
            Self::Sqlite { records, .. } => records.next_wanted(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TransactionId;

    fn record(engine: &str, identity: &str) -> IncarnationRecord {
        IncarnationRecord {
            format: 1,
            store: farshore_journal::StoreId::from_bytes([1; 16]),
            database: "orders".parse().unwrap(),
            engine: engine.to_owned(),
            incarnation: farshore_journal::IncarnationId::from_bytes([2; 16]),
            number: 0,
            identity: identity.to_owned(),
            major: 15,
            segment_bytes: 16 << 20,
            created: String::new(),
            reason: String::new(),
        }
    }

    fn commit(start: u64, time_micros: i64) -> LogEvent {
        let what = Happened::Commit(Commit {
            time_micros,
            transaction: TransactionId { low: 1, full: Some(1) },
            subtransactions: Vec::new(),
            prepared: None,
            database: None,
            origin: None,
            relations_dropped: 0,
        });
        LogEvent { start: Offset::new(start), end: Offset::new(start + 80), what }
    }

    #[test]
    fn an_engine_that_is_not_known_is_named() {
        let unknown = Shape::of(&record("oracle", "1"));
        assert_eq!(unknown, Err(ShapeError::Engine { engine: "oracle".to_owned() }));
        let identity = Shape::of(&record(POSTGRES, "no number"));
        assert!(matches!(identity, Err(ShapeError::Identity { .. })));
    }

    #[test]
    fn where_a_decoder_can_begin_is_what_the_engine_says() {
        let segment = 16 << 20;
        let (postgres, sqlite) =
            (Shape::of(&record(POSTGRES, "1")).unwrap(), Shape::of(&record(SQLITE, "any")).unwrap());
        let at = Offset::new(3 * segment + 7);
        assert_eq!(postgres.read_from(at), Offset::new(3 * segment));
        assert_eq!(sqlite.read_from(at), at);
        for is_record in [false, true] {
            assert_eq!(postgres.next_begin(at, is_record), Some(Offset::new(4 * segment)));
            assert_eq!(sqlite.next_begin(at, is_record), is_record.then_some(at));
        }
        assert_eq!(postgres.next_begin(Offset::new(u64::MAX), true), None);
        let before: Vec<u64> =
            postgres.begins_before(Offset::new(3 * segment), 2 * segment).map(Offset::get).collect();
        assert_eq!(before, [segment, 2 * segment]);
        assert_eq!(postgres.begins_before(Offset::new(3 * segment), 1).count(), 1);
        assert_eq!(postgres.begins_before(Offset::new(0), 64 * segment).count(), 0);
        assert_eq!(sqlite.begins_before(at, 64 * segment).count(), 0);
    }

    #[test]
    fn a_base_holds_nothing_later_than_its_own_last_record() {
        let (postgres, sqlite) =
            (Shape::of(&record(POSTGRES, "1")).unwrap(), Shape::of(&record(SQLITE, "any")).unwrap());
        let base = Offset::new(500);
        assert_eq!(sqlite.base_holds_until(base, &commit(500, 77)), Some(77));
        assert_eq!(sqlite.base_holds_until(base, &commit(580, 77)), None);
        // A commit behind a checkpoint's redo says nothing of what the base holds.
        assert_eq!(postgres.base_holds_until(base, &commit(500, 77)), None);
    }
}
