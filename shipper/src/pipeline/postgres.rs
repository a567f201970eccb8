//! Where a PostgreSQL cluster's log comes from: its primary's stream by the live slot, and the room of pushed files.

mod breaks;
mod fill;
mod guard;
mod open_stream;
mod session;
mod source;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farshore_engines::postgres::log::SegmentBytes;
use farshore_engines::postgres::sql::Session;
use farshore_engines::postgres::wire::{ConnectParams, SlotName};
use farshore_journal::Position;

pub(super) use self::guard::Guard;
use crate::error::ShipError;
use crate::founding::Witness;
use crate::keep::Kept;
use crate::push::proof::LogFiles;
use crate::push::room::{LogFile, Room};
use crate::spool::files::{Segments, SpoolFiles};

/// A cluster, and how it is shipped into one store.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// How its servers are reached.
    pub params: ConnectParams,
    /// The slot named in the stream.
    pub slot: SlotName,
    /// The slot that keeps the log until it is released.
    pub keep: SlotName,
    /// The room of pushed files, which may hold what the source no longer has.
    pub room: Room,
    /// The spool, where there is one.
    pub spool: Option<SpoolAccess>,
    /// That slot as it is looked at on each host.
    pub kept: Kept,
}

/// A spool, as pipelines read it.
#[derive(Debug, Clone)]
pub struct SpoolAccess {
    /// Its files.
    pub files: SpoolFiles,
    /// Whether log that the primary was made to let go is waited for where it is not found, and not given up.
    pub holds: bool,
    /// Whether somebody reads them.
    pub reads: Arc<AtomicBool>,
}

/// A spool's files while they are read: a disk that hangs holds this, however long nobody waits for it any more.
#[derive(Clone)]
struct Asked {
    segments: Segments,
    _reading: Arc<Reading>,
}

struct Reading(Arc<AtomicBool>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl SpoolAccess {
    /// Leave to read the files of a cluster; none while a reading that nobody waits for any more has not ended.
    fn ask(&self, system_identifier: u64) -> Option<Asked> {
        let free = !self.reads.swap(true, Ordering::AcqRel);
        free.then(|| Asked {
            segments: self.files.of(system_identifier),
            _reading: Arc::new(Reading(Arc::clone(&self.reads))),
        })
    }
}

impl Asked {
    fn is_all_there(&self) -> io::Result<()> {
        self.segments.is_all_there()
    }
}

impl LogFiles for Asked {
    fn run_from(&self, from: Position, segment_bytes: SegmentBytes) -> io::Result<Vec<LogFile>> {
        self.segments.run_from(from, segment_bytes)
    }
}

/// A store's live slot at the primary bears witness that it was shipped into.
pub(super) struct LiveSlot<'a> {
    pub sql: &'a Session,
    pub slot: &'a SlotName,
}

impl Witness for LiveSlot<'_> {
    async fn saw(&self) -> Result<Option<String>, ShipError> {
        let found = self.sql.slot_get(self.slot).await?;
        Ok(found.map(|_| format!("the primary has its slot {}", self.slot)))
    }
}
