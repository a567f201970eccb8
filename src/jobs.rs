//! Long work as jobs of the catalog: who does it, that they live, and what came of it.
//!
//! What always holds: work that a command does needs no catalog, is recorded where there is one, and is never done again by anybody else; work that was asked for is done by
//! one claim at a time, and a claim that lost its job to another ends its work. `docs/adr/2026-11-26-jobs-in-the-catalog.md` argues it.
//!
//! ```text
//! command ──▶ record (a job that it holds) ─┐
//! --no-wait, REST, schedules ──▶ queue ──▶ runner (claims) ──▶ held: work beside beats ──▶ end
//!                                           └─ silence: whose holders say nothing
//! ```

pub mod held;
pub mod overdue;
pub mod place;
pub mod record;
mod restore;
pub mod runner;
mod schedule;
mod silence;
pub mod spec;
pub mod work;

use std::time::Duration;

pub use farshore_catalog::job::LEASE;
use farshore_catalog::job::{Holder, JobKind};

use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// How often a holder says that it lives.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long a job that has ended is kept.
const KEPT: chrono::TimeDelta = chrono::TimeDelta::days(90);

/// This process, as the holder of jobs.
pub fn this_process() -> Holder {
    // An id of 16 random bytes, whatever else it may name.
    Holder { node: wiring::node(), process: farshore_journal::WriterId::mint().to_string() }
}

/// What a job that was not done may have left behind, and what is safe then.
fn left_behind(kind: JobKind) -> Safe {
    Safe::Known(
        match kind {
            JobKind::Backup => "what it left in a store is a backup only if `farshore backup list` calls it complete; no restore uses any other, and older backups stay as they are",
            JobKind::Restore => "while the marker in the directory that it wrote to says `running`, nothing there starts or opens; where it says `complete` the copy is whole, and a server may run on it; the journal is untouched",
            JobKind::Verify | JobKind::Plan | JobKind::Preview => "it only reads",
            JobKind::Compare => "it only reads; a standby that it held follows again within half a minute",
            JobKind::Drill => "its scratch directory and the server in it are ended and removed by the next drill, or by the next start of a service on that machine; the journal is untouched",
            JobKind::Expire => "what it had planned and not deleted is there; it goes on with its plan",
            JobKind::Unknown => return Safe::Unknown("a later version knows what it does".to_owned()),
        }
        .to_owned(),
    )
}

/// How one goes on behind a job that was not done.
fn next(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Restore => {
            "look at the marker: where it says `running`, `farshore restore` with the same target and `--resume` begins anew"
        }
        JobKind::Expire => {
            "nothing need be done: for a day it may still be going on, and no other begins; the next one goes on where it was"
        }
        _ => "ask for it again",
    }
}

/// Nothing was heard of who did a job.
fn silent(kind: JobKind, holder: Option<&Holder>) -> OperatorMessage {
    let who =
        holder.map_or_else(|| "its process".to_owned(), |holder| format!("its process on {}", holder.node));
    let happened = format!(
        "nothing was heard of {who} for {} seconds: it ended, or is cut off from the catalog and may go on",
        LEASE.as_secs()
    );
    OperatorMessage::new(Code::JobSilent, happened, left_behind(kind), next(kind))
}

/// A job ended because its process was asked to end.
fn interrupted(kind: JobKind) -> OperatorMessage {
    let happened = format!("the {kind} was ended by a signal to its process");
    OperatorMessage::new(Code::Interrupted, happened, left_behind(kind), next(kind))
}

/// A job ended because somebody wanted it so.
fn cancelled(kind: JobKind) -> OperatorMessage {
    OperatorMessage::new(
        Code::JobCancelled,
        format!("the {kind} was cancelled"),
        left_behind(kind),
        next(kind),
    )
}

/// A claim ended because the job is another's now.
fn taken(kind: JobKind) -> OperatorMessage {
    let happened =
        format!("the {kind} is another process's now, or has ended: this one had been silent for too long");
    OperatorMessage::new(Code::JobTaken, happened, left_behind(kind), "`farshore job list` shows who does it")
}
