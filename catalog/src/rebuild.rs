//! Writing an incarnation anew from what the store proves.
//!
//! The caller owns the transaction: it replaces the facts, adds the commits in batches with
//! [`crate::commit::commit_insert_in_txn`], and commits, so that readers see the old facts or all of the new.

use farshore_journal::{DatabaseName, IncarnationId};
use sqlx::query;

use crate::backup::{Backup, backup_insert_in_txn, backup_list_in_txn};
use crate::branch::{Branch, branch_put_in_txn};
use crate::gap::{Gap, gap_put_in_txn};
use crate::incarnation::{Incarnation, incarnation_put_in_txn};
use crate::mark::{Mark, MarkKind, mark_list_in_txn, mark_put_in_txn};
use crate::range::{JournalRange, range_extend_in_txn};
use crate::{Error, Result, Txn};

/// All that the store proves of an incarnation, but for its commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncarnationFacts {
    /// The incarnation itself; its database must be recorded.
    pub incarnation: Incarnation,
    /// Its timelines.
    pub branches: Vec<Branch>,
    /// What each store holds; they may overlap and touch.
    pub ranges: Vec<JournalRange>,
    /// What is missing.
    pub gaps: Vec<Gap>,
    /// Its backups.
    pub backups: Vec<Backup>,
    /// Its restore points, marks and holds.
    pub marks: Vec<Mark>,
}

impl IncarnationFacts {
    fn validate(&self) -> Result<()> {
        let id = self.incarnation.id;
        let mut owners = (self.branches.iter().map(|branch| branch.incarnation))
            .chain(self.ranges.iter().map(|range| range.incarnation))
            .chain(self.gaps.iter().map(|gap| gap.incarnation))
            .chain(self.backups.iter().map(|backup| backup.incarnation))
            .chain(self.marks.iter().map(|mark| mark.incarnation));
        if owners.any(|owner| owner != id) {
            return Err(Error::Invalid { what: "rebuild", reason: "a fact belongs to another incarnation" });
        }
        Ok(())
    }
}

/// Replaces everything known of an incarnation, its commits included: those are gone until they are added again.
///
/// # Errors
/// [`Error::Invalid`] when a fact belongs to another incarnation. Roll the transaction back on any error.
pub async fn incarnation_replace_all_in_txn(txn: &mut Txn, facts: &IncarnationFacts) -> Result<()> {
    facts.validate()?;
    incarnation_delete_in_txn(txn, facts.incarnation.id).await?;
    incarnation_put_in_txn(txn, &facts.incarnation).await?;
    for branch in &facts.branches {
        branch_put_in_txn(txn, branch).await?;
    }
    for range in &facts.ranges {
        range_extend_in_txn(txn, range).await?;
    }
    for gap in &facts.gaps {
        gap_put_in_txn(txn, gap).await?;
    }
    for backup in &facts.backups {
        backup_insert_in_txn(txn, backup).await?;
    }
    for mark in &facts.marks {
        mark_put_in_txn(txn, mark).await?;
    }
    Ok(())
}

/// Leaves of a database these incarnations, without a fact about them but what an operator marked and which base backups a verification found bad, and no other: its stores say
/// the rest. What a shipper tells of them meanwhile waits for this transaction and is kept.
///
/// # Errors
/// When the catalog is away. Roll the transaction back on any error.
pub async fn incarnations_replace_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
    incarnations: &[Incarnation],
) -> Result<()> {
    let kept: Vec<IncarnationId> = incarnations.iter().map(|incarnation| incarnation.id).collect();
    incarnation_retain_in_txn(txn, database, &kept).await?;
    for incarnation in incarnations {
        let mut marks = mark_list_in_txn(txn, incarnation.id).await?;
        marks.retain(|mark| mark.kind != MarkKind::RestorePoint);
        // That a verification found one bad is in no store.
        let mut backups = backup_list_in_txn(txn, incarnation.id).await?;
        backups.retain(|backup| backup.bad_at.is_some());
        let facts = IncarnationFacts {
            incarnation: incarnation.clone(),
            branches: Vec::new(),
            ranges: Vec::new(),
            gaps: Vec::new(),
            backups,
            marks,
        };
        incarnation_replace_all_in_txn(txn, &facts).await?;
    }
    Ok(())
}

/// Forgets an incarnation and everything known of it.
///
/// # Errors
/// When the catalog is away.
pub async fn incarnation_delete_in_txn(txn: &mut Txn, id: IncarnationId) -> Result<()> {
    let bound = query("delete from incarnation where id = $1").bind(id.to_string());
    txn.execute("incarnation_delete", bound).await.map(|_| ())
}

/// Forgets the incarnations of a database that are not among `kept`: the store no longer has them.
///
/// # Errors
/// When the catalog is away.
pub async fn incarnation_retain_in_txn(
    txn: &mut Txn,
    database: &DatabaseName,
    kept: &[IncarnationId],
) -> Result<()> {
    for known in crate::incarnation::incarnation_list_in_txn(txn, database).await? {
        if !kept.contains(&known.id) {
            incarnation_delete_in_txn(txn, known.id).await?;
        }
    }
    Ok(())
}
