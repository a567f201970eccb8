//! What the history of a database's current incarnation holds beside its log: base backups, named points, forks.

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::backup::Backup;
use farshore_catalog::drill::{Drill, DrillFilter};
use farshore_catalog::mark::Mark;
use farshore_catalog::status::DatabaseStatus;
use farshore_journal::Position;

use crate::pages::words::{self, Moment};
use crate::problem::Problem;

/// Base backups in the table.
pub(super) const BACKUPS: usize = 12;

/// Drills that are drawn, the newest.
const DRILLS: u32 = 50;

/// A base backup, as it is listed.
pub(super) struct BackupLine {
    pub(super) id: String,
    pub(super) store: String,
    pub(super) state: &'static str,
    pub(super) started: Moment,
    pub(super) took: Option<String>,
    pub(super) bytes: Option<String>,
    pub(super) stored: Option<String>,
    pub(super) position: String,
    pub(super) label: String,
    pub(super) bad_pages: u64,
    pub(super) checked: bool,
    pub(super) is_bad: bool,
}

/// What the current incarnation's history holds beside its log.
pub(super) struct History {
    pub(super) backups: Vec<Backup>,
    pub(super) marks: Vec<Mark>,
    pub(super) forks: Vec<(u32, u32, DateTime<Utc>)>,
    pub(super) drills: Vec<Drill>,
}

impl History {
    pub(super) async fn read(catalog: &Catalog, status: &DatabaseStatus) -> Result<Self, Problem> {
        let Some(incarnation) = status.incarnation else {
            return Ok(Self {
                backups: Vec::new(),
                marks: Vec::new(),
                forks: Vec::new(),
                drills: Vec::new(),
            });
        };
        let branches = catalog.branch_list(incarnation).await?;
        let fork = |branch: &farshore_catalog::branch::Branch| {
            branch.fork.map(|fork| (branch.timeline.get(), fork.parent.get(), branch.first_seen_at))
        };
        let drills = catalog.drill_list(&DrillFilter::of(Some(&status.database)), DRILLS).await?;
        Ok(Self {
            drills,
            backups: catalog.backup_list(incarnation).await?,
            marks: catalog.mark_list(incarnation).await?,
            forks: branches.iter().filter_map(fork).collect(),
        })
    }

    /// When a restorable position was consistent first, for one that no commit precedes in its log.
    pub(super) fn ended_at(&self, position: Position) -> Option<DateTime<Utc>> {
        let ends =
            |backup: &&Backup| backup.timeline == position.timeline && backup.end == Some(position.offset);
        self.backups.iter().find(ends).and_then(|backup| backup.finished_at)
    }

    /// The newest base backups.
    pub(super) fn lines(&self, now: DateTime<Utc>) -> Vec<BackupLine> {
        let line = |backup: &Backup| BackupLine {
            id: backup.id.to_string(),
            store: backup.store.clone(),
            state: backup.state.word(),
            started: Moment::new(now, backup.started_at),
            #[allow(clippy::cast_precision_loss)] // shown in two units
            took: backup.finished_at.map(|end| words::seconds((end - backup.started_at).num_milliseconds().max(0) as f64 / 1000.0)),
            bytes: backup.bytes.map(words::bytes),
            stored: backup.stored_bytes.map(words::bytes),
            position: Position::new(backup.timeline, backup.end.unwrap_or(backup.start)).to_string(),
            label: backup.label.clone(),
            // Beside `checked`, without which it says nothing.
            bad_pages: backup.bad_pages.unwrap_or_default(),
            checked: backup.checked,
            is_bad: backup.bad_at.is_some(),
        };
        self.backups.iter().rev().take(BACKUPS).map(line).collect()
    }
}
