//! Records of the log itself: checkpoints, restore points, the ends of recoveries and backups, settings, switches.
//!
//! Source: info values and `CheckPoint`, src/include/catalog/pg_control.h; `xl_restore_point`,
//! `xl_end_of_recovery`, `xl_parameter_change` and `xl_overwrite_contrecord`, src/include/access/xlog_internal.h,
//! all of REL_14_STABLE to REL_18_STABLE. C structs are written whole, with their padding, so every length is fixed.

use farshore_journal::{Offset, Timeline};

use super::fields::{Fields, unix_micros};
use super::shape::Major;
use crate::event::{Checkpoint, Happened, Parameters};

/// The resource manager of these records.
/// Source: `RM_XLOG_ID`, src/include/access/rmgrlist.h.
pub(super) const RESOURCE_MANAGER: u8 = 0;

const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const NO_OPERATION: u8 = 0x20;
const NEXT_OID: u8 = 0x30;
const SWITCH: u8 = 0x40;
const BACKUP_END: u8 = 0x50;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const FULL_PAGE_WRITES_CHANGE: u8 = 0x80;
const END_OF_RECOVERY: u8 = 0x90;
const PAGE_IMAGE_FOR_HINT: u8 = 0xA0;
const PAGE_IMAGE: u8 = 0xB0;
const OVERWRITE_UNFINISHED: u8 = 0xD0;
const CHECKPOINT_REDO: u8 = 0xE0;

const CHECKPOINT_BYTES: usize = 88;
const RESTORE_POINT_NAME_BYTES: usize = 64;

/// What a record of the log itself is, as far as the bytes around it depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It says something that [`read`] tells.
    Read,
    /// It ends its segment.
    Switch,
    /// It says nothing of interest: page images, object numbers, nothing at all.
    Passed,
}

/// What kind of record this is; `None` when this major version has no such record.
pub(super) const fn kind(info: u8, major: Major) -> Option<Kind> {
    Some(match info & 0xF0 {
        SWITCH => Kind::Switch,
        NO_OPERATION | NEXT_OID | PAGE_IMAGE_FOR_HINT | PAGE_IMAGE => Kind::Passed,
        CHECKPOINT_SHUTDOWN
        | CHECKPOINT_ONLINE
        | BACKUP_END
        | PARAMETER_CHANGE
        | RESTORE_POINT
        | FULL_PAGE_WRITES_CHANGE
        | END_OF_RECOVERY
        | OVERWRITE_UNFINISHED => Kind::Read,
        CHECKPOINT_REDO if matches!(major, Major::Pg17 | Major::Pg18) => Kind::Read,
        _ => return None,
    })
}

/// Whether this is the record that says that an unfinished one was given up.
pub(super) const fn is_overwrite(resource_manager: u8, info: u8) -> bool {
    resource_manager == RESOURCE_MANAGER && info & 0xF0 == OVERWRITE_UNFINISHED
}

/// What a record of [`Kind::Read`] says.
pub(super) fn read(info: u8, data: &[u8], major: Major) -> Result<Happened, &'static str> {
    let mut fields = Fields::new(data);
    let happened = fields_of(info & 0xF0, &mut fields, data.len(), major)
        .ok_or("it is cut short or a field has a value it cannot have")?;
    if fields.remaining() > 0 { Err("bytes are left after its last field") } else { Ok(happened) }
}

fn fields_of(operation: u8, fields: &mut Fields<'_>, total: usize, major: Major) -> Option<Happened> {
    Some(match operation {
        CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE => {
            if total != CHECKPOINT_BYTES {
                return None;
            }
            Happened::Checkpoint(checkpoint(operation == CHECKPOINT_ONLINE, fields)?)
        }
        BACKUP_END => Happened::BackupEnd { backup_start: Offset::new(fields.u64()?) },
        PARAMETER_CHANGE => {
            let change = Parameters {
                max_connections: fields.i32()?,
                max_worker_processes: fields.i32()?,
                max_wal_senders: fields.i32()?,
                max_prepared_transactions: fields.i32()?,
                max_locks_per_transaction: fields.i32()?,
                wal_level: fields.i32()?,
                wal_log_hints: fields.bool()?,
                track_commit_timestamp: fields.bool()?,
            };
            fields.take(2)?; // padding
            Happened::ParameterChange(change)
        }
        RESTORE_POINT => {
            let time_micros = unix_micros(fields.i64()?);
            // What follows the NUL is whatever the server's memory held.
            let name = fields.take(RESTORE_POINT_NAME_BYTES)?.split(|b| *b == 0).next()?;
            Happened::RestorePoint { name: String::from_utf8_lossy(name).into_owned(), time_micros }
        }
        FULL_PAGE_WRITES_CHANGE => Happened::FullPageWritesChange { on: fields.bool()? },
        END_OF_RECOVERY => {
            let time_micros = unix_micros(fields.i64()?);
            let timeline = Timeline::new(fields.u32()?);
            let previous_timeline = Timeline::new(fields.u32()?);
            // 17 added the log level, and with it padding.
            if major >= Major::Pg17 {
                fields.take(8)?;
            }
            Happened::EndOfRecovery { time_micros, timeline, previous_timeline }
        }
        OVERWRITE_UNFINISHED => Happened::Abandoned {
            abandoned: Offset::new(fields.u64()?),
            time_micros: unix_micros(fields.i64()?),
        },
        CHECKPOINT_REDO => {
            fields.u32()?; // the log level
            Happened::CheckpointRedo
        }
        _ => return None,
    })
}

/// Reads a checkpoint. 17 put the log level into padding, so the fields read here stand alike in all majors.
fn checkpoint(online: bool, fields: &mut Fields<'_>) -> Option<Checkpoint> {
    let redo = Offset::new(fields.u64()?);
    let timeline = Timeline::new(fields.u32()?);
    let previous_timeline = Timeline::new(fields.u32()?);
    let full_page_writes = fields.bool()?;
    fields.take(7)?; // padding; from 17 on it holds the log level
    let next_transaction = fields.u64()?;
    fields.take(32)?; // object, multi-transaction and freezing limits, and padding
    let time_micros = fields.i64()?.saturating_mul(1_000_000);
    fields.take(16)?; // commit timestamp limits, oldest active transaction, and padding
    Some(Checkpoint {
        online,
        redo,
        next_transaction,
        timeline,
        previous_timeline,
        full_page_writes,
        time_micros,
    })
}
