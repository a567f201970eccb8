//! All that the store can prove, in one canonical text: two catalogs of the same stores give equal snapshots.
//!
//! Left out is what only one installation knows: when something was first noticed, backups that are running or
//! failed, shipping progress, targets, nodes, activity. The whole of it is held in memory; it is for comparing a
//! rebuilt catalog with a lost one, not for serving.

use serde_json::{Value, json};

use crate::backup::{BackupState, backup_list_in_txn};
use crate::branch::branch_list_in_txn;
use crate::commit::{self, Part};
use crate::connection::in_snapshot;
use crate::database::database_list_in_txn;
use crate::gap::gap_list_in_txn;
use crate::incarnation::{Incarnation, incarnation_list_in_txn, incarnation_number_in_txn};
use crate::mark::mark_list_in_txn;
use crate::range::range_list_in_txn;
use crate::row::{Read as _, micros};
use crate::{Catalog, Result, Txn};
use farshore_journal::{IncarnationId, Offset, Timeline};

/// The name of the JSON's shape.
pub const SCHEMA: &str = "farshore.snapshot/1";

/// Commits read at once.
const BATCH: usize = 10_000;

impl Catalog {
    /// All restorable facts, ordered by name, time, timeline and offset.
    ///
    /// # Errors
    /// When the catalog is away, or there is more than can be read within the deadline.
    pub async fn snapshot(&self) -> Result<Value> {
        in_snapshot!(self, snapshot_in_txn())
    }
}

/// As [`Catalog::snapshot`].
///
/// # Errors
/// When the catalog is away.
pub async fn snapshot_in_txn(txn: &mut Txn) -> Result<Value> {
    let mut databases = Vec::new();
    for database in database_list_in_txn(txn).await? {
        let mut incarnations = Vec::new();
        for incarnation in incarnation_list_in_txn(txn, &database.name).await? {
            incarnations.push(incarnation_facts(txn, &incarnation).await?);
        }
        databases.push(json!({
            "name": database.name,
            "engine": database.engine,
            "incarnations": incarnations,
        }));
    }
    Ok(json!({ "schema": SCHEMA, "databases": databases }))
}

async fn incarnation_facts(txn: &mut Txn, incarnation: &Incarnation) -> Result<Value> {
    let id = incarnation.id;
    let branches = branch_list_in_txn(txn, id).await?;
    let ranges = range_list_in_txn(txn, id).await?;
    let gaps = gap_list_in_txn(txn, id).await?;
    let backups = backup_list_in_txn(txn, id).await?;
    let marks = mark_list_in_txn(txn, id).await?;
    let timelines: Vec<Value> = branches
        .iter()
        .map(|branch| {
            json!({
                "timeline": branch.timeline,
                "parent": branch.fork.map(|fork| fork.parent),
                "fork": branch.fork.map(|fork| fork.at),
            })
        })
        .collect();
    let ranges: Vec<Value> = ranges
        .iter()
        .map(|range| {
            json!({
                "store": range.store,
                "timeline": range.timeline,
                "start": range.start,
                "end": range.end,
                "checked_end": range.checked_end,
                "first_sequence": range.first_sequence,
                "last_sequence": range.last_sequence,
            })
        })
        .collect();
    let gaps: Vec<Value> = gaps
        .iter()
        .map(|gap| {
            json!({
                "store": gap.store,
                "timeline": gap.timeline,
                "start": gap.start,
                "end": gap.end,
                "reason": gap.reason,
            })
        })
        .collect();
    let backups: Vec<Value> = backups
        .iter()
        .filter(|backup| backup.state == BackupState::Complete)
        .map(|backup| {
            json!({
                "id": backup.id,
                "store": backup.store,
                "timeline": backup.timeline,
                "start": backup.start,
                "end": backup.end,
                "started_us": micros(backup.started_at),
                "finished_us": backup.finished_at.map(micros),
                "bytes": backup.bytes,
                "stored_bytes": backup.stored_bytes,
                "checked": backup.checked,
                "label": backup.label,
                "bad_pages": backup.bad_pages,
            })
        })
        .collect();
    let marks: Vec<Value> = marks
        .iter()
        .map(|mark| {
            json!({
                "kind": mark.kind.word(),
                "name": mark.name,
                "position": mark.position.to_string(),
                "time_us": micros(mark.time),
                "note": mark.note,
                "held_until_us": mark.held_until.map(micros),
            })
        })
        .collect();
    Ok(json!({
        "id": id,
        "engine_identity": incarnation.engine_identity,
        "number": incarnation.number,
        "created_us": micros(incarnation.created_at),
        "parent": incarnation.parent,
        "reason": incarnation.reason,
        "segment_bytes": incarnation.segment_bytes,
        "major_version": incarnation.major_version,
        "timelines": timelines,
        "ranges": ranges,
        "gaps": gaps,
        "backups": backups,
        "points": marks,
        "commits": commits(txn, id).await?,
    }))
}

async fn commits(txn: &mut Txn, id: IncarnationId) -> Result<Vec<Value>> {
    let number = incarnation_number_in_txn(txn, id).await?;
    let statement =
        "select distinct timeline from commit_block where incarnation_number = $1 order by timeline";
    let rows = txn.rows("snapshot", sqlx::query(statement).bind(number)).await?;
    let timelines: Vec<Timeline> = rows.iter().map(|row| row.timeline("timeline")).collect::<Result<_>>()?;
    let mut all = Vec::new();
    for timeline in timelines {
        let mut part = Part { timeline, after: Offset::new(0), until: None };
        loop {
            let batch = commit::ascending(txn, number, part, BATCH).await?;
            let Some(last) = batch.last() else { break };
            part.after = last.end;
            all.extend(batch.iter().map(|commit| {
                json!([commit.timeline, commit.start, commit.end, micros(commit.time), commit.xid])
            }));
        }
    }
    Ok(all)
}
