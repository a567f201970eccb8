//! Holds a plan against the log while it is restored: all of it from the base to the target is read then anyway.
//!
//! What always holds: a plan that was made on the word of an index becomes a copy that can be started only when the log itself, searched
//! as the plan's search does, comes to the same record, the same last commit and the same demands. So an index that is wrong, old
//! or forged can waste a restore's time, and cannot change what is restored.

use bytes::Bytes;
use farshore_engines::log::LogError;
use farshore_journal::backup::Manifest;
use farshore_journal::{Offset, Position};

use super::postgres::{prepared, tablespaces_possible};
use super::scan::{Found, Scan, Wanted};
use super::{Asked, Plan, PlanError, PreparedThen};
use crate::source::Source;

/// A plan's search, given the log that is being restored.
pub(crate) struct Confirmation {
    scan: Scan,
    base: Position,
    confined: bool,
}

impl Confirmation {
    /// Of a plan; the log that follows begins where the base's is to be read from.
    pub fn of(source: &Source, plan: &Plan, manifest: &Manifest) -> Result<Self, PlanError> {
        let confined = source.is_confined();
        let first = source.shape().read_from(manifest.start.offset);
        let base = Position::new(plan.resolved.timeline, first);
        let wanted = wanted(&plan.asked);
        let scan = Scan::new(source.shape(), base, manifest.start.offset, manifest.next_transaction, wanted);
        Ok(Self { scan: scan.map_err(|source| damaged(base, None, source))?, base, confined })
    }

    /// Takes the next bytes. Decoding takes a core for as long as a checksum of them does.
    pub fn take(&mut self, bytes: &Bytes) -> Result<(), PlanError> {
        match self.scan.push(bytes) {
            Ok(_) => Ok(()),
            Err(source) => Err(damaged(self.base, self.scan.whole_to(), source)),
        }
    }

    /// Whether the log up to the target says what the plan says: if not, in what it differs.
    pub fn differs(self, plan: &Plan, manifest: &Manifest) -> Result<Option<&'static str>, PlanError> {
        let Some(found) = self.scan.confirmed() else { return Ok(Some("what it comes to")) };
        if let Some(at) = found.minimal_from {
            return Err(PlanError::Minimal { at });
        }
        let made = found.tablespaces.iter().filter(|(at, _)| *at >= manifest.start.offset);
        tablespaces_possible(made.map(|(_, location)| std::path::Path::new(location)), self.confined)?;
        Ok(difference(&found, plan, manifest))
    }
}

fn difference(found: &Found, plan: &Plan, manifest: &Manifest) -> Option<&'static str> {
    let resolved = &plan.resolved;
    if (found.record.start, found.record.end) != (resolved.record_start, resolved.position) {
        return Some("the record at the target");
    }
    let commit = match (found.commit, resolved.commit_position) {
        (None, None) => true,
        // A plan for a time reads some log before the base's first segment, which is not read here: itself, and no index of it.
        (None, Some(end)) => matches!(plan.asked, Asked::Time(_)) && end <= manifest.start.offset,
        // How often the counter went round may be known to one of the two only.
        (Some(commit), Some(end)) => {
            commit.end == end
                && (commit.xid.is_none() || resolved.xid.is_none() || commit.xid == resolved.xid)
                && chrono::DateTime::from_timestamp_micros(commit.time_micros) == resolved.time
        }
        (Some(_), None) => false,
    };
    if !commit {
        return Some("the last commit at the target");
    }
    if found.demanded.map(Into::into) != plan.demanded {
        return Some("the settings that the log demands");
    }
    if !are_same(&prepared(manifest, found), &plan.prepared) {
        return Some("the prepared transactions");
    }
    None
}

/// Whether two lists may be of the same prepared transactions: whole numbers and names may be known to one of them only.
fn are_same(found: &[PreparedThen], planned: &[PreparedThen]) -> bool {
    let may_be = |a: &PreparedThen, b: &PreparedThen| {
        let unless_unknown = |equal: Option<bool>| equal.unwrap_or(true);
        unless_unknown(a.xid.zip(b.xid).map(|(a, b)| a == b))
            && unless_unknown(a.name.as_ref().zip(b.name.as_ref()).map(|(a, b)| a == b))
    };
    let mut left: Vec<&PreparedThen> = planned.iter().collect();
    // The best known first: what is known less fits more.
    let mut found: Vec<&PreparedThen> = found.iter().collect();
    found.sort_by_key(|one| (one.xid.is_none(), one.name.is_none()));
    left.sort_by_key(|one| (one.xid.is_none(), one.name.is_none()));
    let all = found.into_iter().all(|one| {
        let at = left.iter().position(|other| may_be(one, other));
        at.is_some_and(|at| {
            left.remove(at);
            true
        })
    });
    all && left.is_empty()
}

fn damaged(base: Position, whole_to: Option<Offset>, source: LogError) -> PlanError {
    PlanError::Damaged { base, whole_to, source }
}

/// What a search looks for.
pub(super) fn wanted(asked: &Asked) -> Wanted {
    match asked {
        Asked::Latest => Wanted::End,
        Asked::Time(time) => Wanted::Time(time.timestamp_micros()),
        Asked::Position(position) => Wanted::Position(position.offset),
        Asked::Transaction(xid) => Wanted::Transaction(*xid),
        Asked::Point(name) => Wanted::Point(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(xid: Option<u64>, name: Option<&str>) -> PreparedThen {
        PreparedThen { xid, name: name.map(str::to_owned) }
    }

    #[test]
    fn prepared_transactions_are_the_same_only_if_each_may_be_its_counterpart() {
        let (a, b) = (one(Some(7), Some("a")), one(Some(8), Some("b")));
        assert!(are_same(&[a.clone(), b.clone()], &[b.clone(), a.clone()]));
        assert!(!are_same(std::slice::from_ref(&a), std::slice::from_ref(&b)));
        assert!(!are_same(std::slice::from_ref(&a), &[a.clone(), b.clone()]));
        assert!(are_same(&[one(None, Some("a")), b.clone()], &[b.clone(), a.clone()]));
        assert!(are_same(&[one(None, None), a.clone()], &[a, b]));
        assert!(!are_same(&[one(None, Some("a"))], &[one(None, Some("b"))]));
    }
}
