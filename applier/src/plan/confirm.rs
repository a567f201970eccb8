//! Holds a plan against the log while it is restored: all of it from the base to the target is read then anyway.
//!
//! What always holds: a plan that was made on the word of an index becomes a copy that can be started only when the log itself, searched
//! as the plan's search does, comes to the same record, the same last commit and the same demands. So an index that is wrong, old
//! or forged can waste a restore's time, and cannot change what is restored.

use bytes::Bytes;
use farshore_engines::postgres::log::LogError;
use farshore_journal::backup::Manifest;
use farshore_journal::{Offset, Position};

use super::resolve::{prepared, tablespaces_possible};
use super::scan::{Found, Scan, Wanted};
use super::{Asked, Plan, PlanError};
use crate::source::Source;

/// A plan's search, given the log that is being restored.
pub(crate) struct Confirmation {
    scan: Scan,
    base: Position,
}

impl Confirmation {
    /// Of a plan; the log that follows begins at the base's first segment.
    pub fn of(source: &Source, plan: &Plan, manifest: &Manifest) -> Result<Self, PlanError> {
        let first = manifest.start.offset.segment_start(source.shape().segment_bytes.get());
        let base = Position::new(plan.resolved.timeline, first);
        let wanted = wanted(&plan.asked);
        let scan = Scan::new(source.shape(), base, manifest.start.offset, manifest.next_transaction, wanted);
        Ok(Self { scan: scan.map_err(|source| damaged(base, None, source))?, base })
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
        tablespaces_possible(made.map(|(_, location)| std::path::Path::new(location)))?;
        Ok(difference(&found, plan, manifest))
    }
}

fn difference(found: &Found, plan: &Plan, manifest: &Manifest) -> Option<&'static str> {
    let resolved = &plan.resolved;
    if (found.record.start, found.record.end) != (resolved.record_start, resolved.position) {
        return Some("the record at the target");
    }
    // A plan for a time may know a commit from before the first segment, which is not read here.
    // How often the counter went round may be known to one of the two only.
    let commit = found.commit.is_none_or(|commit| {
        (commit.xid.is_none() || resolved.xid.is_none() || commit.xid == resolved.xid)
            && chrono::DateTime::from_timestamp_micros(commit.time_micros) == resolved.time
    });
    if !commit {
        return Some("the last commit at the target");
    }
    if found.demanded.map(Into::into) != plan.demanded {
        return Some("the settings that the log demands");
    }
    // Their names may be known from one and not from the other.
    if prepared(manifest, found).len() != plan.prepared.len() {
        return Some("the prepared transactions");
    }
    None
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
