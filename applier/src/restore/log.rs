//! The log up to the target, fetched ahead of whoever puts it in place.
//!
//! What always holds: what is given is contiguous from the first byte to the target's and no further; it is decoded on its way and held
//! against the plan, which may rest on the journal's index: the log has the last word. Memory is bounded: a few pieces wait.

use std::sync::Arc;

use bytes::Bytes;
use farshore_journal::Offset;
use farshore_journal::backup::Manifest;
use tokio::sync::mpsc;

use super::{RestoreError, Shared, blocking};
use crate::branches::Branches;
use crate::log::{LogReader, Next};
use crate::plan::{Confirmation, Plan};
use crate::source::Source;

/// Pieces of log that wait for the disk.
pub(super) const WAITING: usize = 4;

/// Gives the log from `first` up to the plan's target to `pieces`. `Ok` too when whoever takes them has gone: they say why.
pub(super) async fn fetch(
    source: &Source,
    branches: &Branches,
    plan: &Plan,
    manifest: &Manifest,
    first: Offset,
    shared: &Arc<Shared>,
    pieces: mpsc::Sender<Bytes>,
) -> Result<(), RestoreError> {
    let (target, timeline) = (plan.resolved.position, plan.resolved.timeline);
    let missing = |at| RestoreError::LogMissing { at, target };
    let mut confirmation = Confirmation::of(source, plan, manifest)?;
    let mut log = LogReader::new(source, branches, timeline, first, Some(target));
    let mut cursor = first;
    while cursor < target && !shared.is_stopped() {
        match log.next().await? {
            Next::Bytes(piece) => {
                cursor = piece.start.checked_add(piece.bytes.len() as u64).ok_or(missing(cursor))?;
                let bytes = piece.bytes.clone();
                let (back, taken) = blocking(move || {
                    let taken = confirmation.take(&bytes);
                    (confirmation, taken)
                })
                .await?;
                confirmation = back;
                taken?;
                if pieces.send(piece.bytes).await.is_err() {
                    return Ok(());
                }
            }
            Next::Passed => {}
            Next::Gap(_) | Next::Misled | Next::End => return Err(missing(cursor)),
        }
    }
    drop(pieces);
    if cursor < target {
        return Ok(());
    }
    match confirmation.differs(plan, manifest)? {
        None => Ok(()),
        Some(what) => Err(RestoreError::OtherThanPlanned { what }),
    }
}
