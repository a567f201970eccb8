//! Commit, abort and prepare records, parsed to their last byte.
//!
//! A commit or abort is its time (i64), then, if the info byte has 0x80, a u32 of flags, and for each flag in this
//! order: 0x001 database u32 and tablespace u32; 0x002 sub-transactions, a count and u32 each; 0x004 dropped
//! relations, a count and 12 bytes each; 0x100 dropped statistics, a count and 12 bytes each, 16 from PostgreSQL 18
//! (none in 14); 0x008 cache invalidations, a count and 16 bytes each (commits only); 0x010 the prepared
//! transaction's number; 0x080, only with 0x010, its name up to a NUL; 0x020 the origin's position and time.
//! Source: src/include/access/xact.h of REL_14_STABLE to REL_18_STABLE; `ParseCommitRecord` and
//! `ParseAbortRecord`, src/backend/access/rmgrdesc/xactdesc.c.
//!
//! A prepare record is `xl_xact_prepare`, the name with its NUL, the sub-transactions, and what the two-phase file
//! holds after them, which only its length is checked of. Sources: as above; `StartPrepare` and `EndPrepare`,
//! src/backend/access/transam/twophase.c.

use farshore_journal::Offset;

use super::fields::{Fields, u32s, unix_micros};
use super::record::MainData;
use super::shape::Major;
use super::xid::XidClock;
use crate::event::{Abort, Commit, Happened, Origin, Prepare, Prepared, TransactionId};

/// The resource manager of these records.
/// Source: `RM_XACT_ID`, src/include/access/rmgrlist.h.
pub(super) const RESOURCE_MANAGER: u8 = 1;

const OPERATION: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const ASSIGNMENT: u8 = 0x50;
const INVALIDATIONS: u8 = 0x60;
const HAS_FLAGS: u8 = 0x80;

const DATABASE: u32 = 1;
const SUBTRANSACTIONS: u32 = 1 << 1;
const RELATIONS: u32 = 1 << 2;
const INVALIDATION_MESSAGES: u32 = 1 << 3;
const TWO_PHASE: u32 = 1 << 4;
const ORIGIN: u32 = 1 << 5;
const NAME: u32 = 1 << 7;
const STATISTICS: u32 = 1 << 8;
/// Flags that add no bytes: exclusive locks, apply feedback, relation cache file, forced synchronous commit.
const WITHOUT_BYTES: u32 = 1 << 6 | 1 << 29 | 1 << 30 | 1 << 31;

const RELATION_BYTES: usize = 12;
const INVALIDATION_BYTES: usize = 16;

/// Whether a record's data must be kept for [`read`]. Sub-transaction assignments and lone invalidations say nothing
/// of where a transaction ends.
pub(super) const fn is_read(info: u8) -> bool {
    !matches!(info & OPERATION, ASSIGNMENT | INVALIDATIONS)
}

/// What a transaction record says.
pub(super) fn read(
    info: u8,
    transaction: u32,
    main: MainData<'_>,
    major: Major,
    xids: &XidClock,
) -> Result<Happened, &'static str> {
    let operation = info & OPERATION;
    if operation == PREPARE {
        return prepare(main.data, major, xids);
    }
    let commits = matches!(operation, COMMIT | COMMIT_PREPARED);
    if !commits && !matches!(operation, ABORT | ABORT_PREPARED) {
        return Err("the operation is not known");
    }
    let end = ending(info, commits, main, major)?;
    let prepares = matches!(operation, COMMIT_PREPARED | ABORT_PREPARED);
    // The record of a two-phase ending is written by another transaction than the one it ends.
    let (transaction, prepared) = match (prepares, end.two_phase) {
        (true, Some((of, name))) => (of, Some(Prepared { name })),
        (false, None) => (transaction, None),
        (true, None) => return Err("it ends a prepared transaction and does not name it"),
        (false, Some(_)) => return Err("it names a prepared transaction and does not end one"),
    };
    if transaction == 0 {
        return Err("it ends no transaction");
    }
    let transaction = xids.widen(transaction);
    let subtransactions = widen_all(end.subtransactions, xids);
    let Ending { time_micros, database, origin, relations_dropped, .. } = end;
    Ok(if commits {
        Happened::Commit(Commit {
            time_micros,
            transaction,
            subtransactions,
            prepared,
            database,
            origin,
            relations_dropped,
        })
    } else {
        Happened::Abort(Abort { time_micros, transaction, subtransactions, prepared, database })
    })
}

struct Ending<'a> {
    time_micros: i64,
    database: Option<u32>,
    subtransactions: &'a [u8],
    relations_dropped: u32,
    two_phase: Option<(u32, Option<String>)>,
    origin: Option<Origin>,
}

fn ending<'a>(info: u8, commits: bool, main: MainData<'a>, major: Major) -> Result<Ending<'a>, &'static str> {
    let mut fields = Fields::new(main.data);
    let time_micros = unix_micros(fields.i64().ok_or("its time is cut short")?);
    let flags = if info & HAS_FLAGS == 0 { 0 } else { fields.u32().ok_or("its flags are cut short")? };
    let statistics_bytes = match major {
        Major::Pg14 => None,
        Major::Pg15 | Major::Pg16 | Major::Pg17 => Some(12),
        Major::Pg18 => Some(16),
    };
    let mut known = DATABASE | SUBTRANSACTIONS | RELATIONS | TWO_PHASE | ORIGIN | NAME | WITHOUT_BYTES;
    if commits {
        known |= INVALIDATION_MESSAGES;
    }
    if statistics_bytes.is_some() {
        known |= STATISTICS;
    }
    if flags & !known != 0 {
        return Err("it has flags this major version does not set");
    }
    let has = |flag| flags & flag != 0;
    let mut database = None;
    if has(DATABASE) {
        let number = fields.u32().ok_or("its database is cut short")?;
        database = (number != 0).then_some(number);
        fields.u32().ok_or("its tablespace is cut short")?;
    }
    let mut counted = |flag, bytes, cut| -> Result<(i32, &'a [u8]), &'static str> {
        if !has(flag) {
            return Ok((0, &[]));
        }
        let count = fields.i32().ok_or(cut)?;
        Ok((count, fields.items(count, bytes).ok_or(cut)?))
    };
    let (_, subtransactions) = counted(SUBTRANSACTIONS, 4, "its sub-transactions are cut short")?;
    let (relations, _) = counted(RELATIONS, RELATION_BYTES, "its dropped relations are cut short")?;
    counted(STATISTICS, statistics_bytes.unwrap_or(0), "its dropped statistics are cut short")?;
    counted(INVALIDATION_MESSAGES, INVALIDATION_BYTES, "its invalidations are cut short")?;
    let mut two_phase = None;
    if has(TWO_PHASE) {
        let of = fields.u32().ok_or("its prepared transaction is cut short")?;
        let name =
            if has(NAME) { Some(lossy(fields.until_nul().ok_or("its name is cut short")?)) } else { None };
        two_phase = Some((of, name));
    }
    let mut origin = None;
    if has(ORIGIN) {
        let cut = "its origin is cut short";
        let offset = Offset::new(fields.u64().ok_or(cut)?);
        let time_micros = unix_micros(fields.i64().ok_or(cut)?);
        origin = Some(Origin { node: main.origin, offset, time_micros });
    }
    if fields.remaining() > 0 {
        return Err("bytes are left after its last part");
    }
    let relations_dropped = relations.unsigned_abs();
    Ok(Ending { time_micros, database, subtransactions, relations_dropped, two_phase, origin })
}

/// Reads a prepare record. The header grew by two counts of statistics in 15.
fn prepare(data: &[u8], major: Major, xids: &XidClock) -> Result<Happened, &'static str> {
    prepare_fields(data, major, xids).ok_or("it is cut short or its lengths do not agree")
}

fn prepare_fields(data: &[u8], major: Major, xids: &XidClock) -> Option<Happened> {
    let mut fields = Fields::new(data);
    fields.u32()?; // a magic that changes whenever the file's layout does, within a major never
    let file_bytes = fields.u32()?;
    // The file ends in a checksum that the log's own makes needless.
    if file_bytes.checked_sub(4)? as usize != data.len() {
        return None;
    }
    let transaction = xids.widen(fields.u32()?);
    let database = fields.u32()?;
    let time_micros = unix_micros(fields.i64()?);
    fields.u32()?; // owner
    let subtransactions = fields.i32()?;
    let counts_after = if major == Major::Pg14 { 3 } else { 5 };
    fields.take(counts_after * 4)?;
    fields.bool()?;
    fields.take(1)?; // padding
    let name_bytes = fields.u16()?;
    fields.take(16)?; // the origin's position and time, of no meaning without one
    let name = fields.take(usize::from(name_bytes))?.strip_suffix(&[0])?;
    if name.contains(&0) {
        return None;
    }
    fields.take(usize::from(name_bytes).next_multiple_of(8) - usize::from(name_bytes))?;
    let subtransactions = widen_all(fields.items(subtransactions, 4)?, xids);
    Some(Happened::Prepare(Prepare {
        time_micros,
        transaction,
        subtransactions,
        name: lossy(name),
        database,
    }))
}

fn widen_all(numbers: &[u8], xids: &XidClock) -> Vec<TransactionId> {
    u32s(numbers).map(|low| xids.widen(low)).collect()
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
