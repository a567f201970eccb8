//! What a copy takes besides its base and its log: the one place where a plan asks whose copy it is.

use farshore_engines::log::Shape;
use farshore_engines::sqlite::backup as sqlite;
use farshore_journal::Timeline;
use farshore_journal::backup::Backup;

use super::scan::Found;
use super::{Neutralised, PlanError, PreparedThen, TablespaceThen, postgres};
use crate::source::Source;

/// What a copy takes, and what it is told of.
#[derive(Debug, Default)]
pub(super) struct Takes {
    /// Log segments that will be written.
    pub segments: u64,
    /// Bytes that will be written.
    pub writes_bytes: u64,
    pub neutralised: Vec<Neutralised>,
    pub prepared: Vec<PreparedThen>,
    pub tablespaces: Vec<TablespaceThen>,
}

/// What a copy from this base takes that stands at the target.
pub(super) async fn takes(
    source: &Source,
    backup: &Backup,
    found: &Found,
    timeline: Timeline,
) -> Result<Takes, PlanError> {
    match source.shape() {
        Shape::Postgres(_) => postgres::takes(backup, found, timeline, source.is_confined()).await,
        Shape::Sqlite { .. } => {
            let manifest = backup.manifest();
            sqlite::files(manifest).map_err(|source| PlanError::Files { backup: backup.id(), source })?;
            let files: u64 = manifest.entries.iter().map(|entry| entry.size).sum();
            let log = found.record.end.get().saturating_sub(manifest.start.offset.get());
            // The log is applied and not written, but for its pages: with their heads it is no shorter than they are. Pages that a later
            // record has again are written over, so this is the most that is written.
            Ok(Takes { writes_bytes: files.saturating_add(log), ..Takes::default() })
        }
    }
}
