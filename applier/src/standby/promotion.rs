//! A look at a standby, and what makes one a database of its own.
//!
//! What always holds: a look makes and writes nothing. A promoted copy has all that its store holds of it, or whoever promotes it said that it need not; where that is not
//! known, nothing is promoted. It is called promoted once SQLite found all of it whole, and for ever.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farshore_engines::sqlite::check::{Checked, check_in_use};
use farshore_engines::sqlite::standby::{CopyError, Standing, proof};
use farshore_journal::Offset;
use tokio_util::sync::CancellationToken;

use super::fetch::Way;
use super::state::Record;
use super::{Role, Standby, StandbyError, State, kept, open, taken};
use crate::restore;
use crate::source::Source;

/// How often a copy that does not stand where its state says is looked at anew: it may have gone on between the two.
const LOOKS: u32 = 3;

/// Where the standby in a directory stands, and whether a process keeps it up to date. Nothing is written, and the database of a promoted one is not opened.
///
/// # Errors
/// When there is none, or it was written to by somebody else.
pub fn look(directory: &Path) -> Result<(State, Standing, bool), StandbyError> {
    for _ in 0..LOOKS {
        let alone = match restore::lock_there(directory).map_err(|why| taken(directory, why)) {
            Ok(Some(alone)) => Some(alone),
            Ok(None) => break,
            Err(StandbyError::Busy { .. }) => None,
            Err(why) => return Err(why),
        };
        let running = alone.is_none();
        let record = match &alone {
            Some(alone) => Record::read(alone),
            None => Record::look(directory),
        };
        let state = match record.map_err(kept(directory))? {
            None => break,
            Some(record) => copied(directory, record, running)?,
        };
        if state.role == Role::Promoted {
            let now = state.now.clone();
            return Ok((state, now, false));
        }
        let found = proof(&directory.join(&state.file))?;
        if let Some(standing) = state.known().into_iter().find(|standing| Some(standing.proof) == found) {
            return Ok((state.clone(), standing.clone(), running));
        }
        if !running {
            let found = "its first page is none that the standby left".to_owned();
            return Err(CopyError::Written { found }.into());
        }
    }
    Err(StandbyError::None { directory: directory.to_owned() })
}

/// The state of a copy that nobody else wrote to.
fn copied(directory: &Path, record: Record, running: bool) -> Result<State, StandbyError> {
    match record {
        Record::Preparing { .. } => Err(StandbyError::Preparing { directory: directory.to_owned(), running }),
        Record::Copy(state) if state.role == Role::Spoiled => Err(StandbyError::spoiled(directory, &state)),
        Record::Copy(state) => Ok(*state),
    }
}

/// A copy that is a database of its own.
#[derive(Debug)]
pub struct Promoted {
    /// Its file.
    pub file: PathBuf,
    /// Where it stands.
    pub standing: Standing,
    /// How far SQLite found it whole.
    pub checked: Checked,
}

/// Makes the standby in a directory a database of its own, once it has all that `upto` holds and SQLite finds it whole. Without `upto` it is promoted as it is: what its store holds more is
/// not asked. Durable on `Ok`.
///
/// # Errors
/// When a process keeps it up to date, when there is none, when it was written to, is not whole, or cannot be brought to the journal's end: it stays a standby then.
///
/// # Cancel safety
/// As [`Standby::follow`]. Cancelled by its token it ends as [`StandbyError::CutOff`], and stays a standby.
pub async fn promote(
    directory: &Path,
    upto: Option<&Source>,
    cancelled: &CancellationToken,
) -> Result<Promoted, StandbyError> {
    let mut standby = held(directory)?;
    if let Some(source) = upto {
        let directory = standby.directory.clone();
        let followed = Box::pin(standby.keep(source, Way::ToTheEnd, cancelled)).await?;
        match followed.ended {
            Ok(true) => {}
            Ok(false) => return Err(StandbyError::CutOff),
            Err(why) if why.is_of_the_journal() => {
                let left = behind(source, followed.stored, followed.standing.end);
                let left = cancelled.run_until_cancelled(left).await.flatten();
                let standing = Box::new(followed.standing);
                return Err(StandbyError::Behind { standing, left, why: Box::new(why) });
            }
            Err(why) => return Err(why),
        }
        standby = Standby { directory, state: followed.keeper.state, alone: followed.keeper.alone };
    }
    let finished = tokio::task::spawn_blocking(move || finish(standby));
    finished.await.map_err(|_| StandbyError::CutOff)?
}

/// Bytes of log that the journal shows behind a copy that could not be brought to its end; `None` where nothing shows it. They are told, and nothing follows from them.
async fn behind(source: &Source, stored: Option<Offset>, copy: Offset) -> Option<u64> {
    let stored = match stored {
        Some(end) => Some(end),
        // The look for the end met what is damaged itself.
        None => source.reader().claimed_end().await.ok().flatten().map(|end| end.offset),
    };
    stored.and_then(|end| end.bytes_since(copy))
}

/// The standby in a directory, which nobody else has.
fn held(directory: &Path) -> Result<Standby, StandbyError> {
    let alone = restore::lock_there(directory).map_err(|why| taken(directory, why))?;
    let none = || StandbyError::None { directory: directory.to_owned() };
    let alone = alone.ok_or_else(none)?;
    let record = Record::read(&alone).map_err(kept(directory))?.ok_or_else(none)?;
    let state = copied(directory, record, false)?;
    if state.role == Role::Promoted {
        return Err(StandbyError::Promoted { directory: directory.to_owned() });
    }
    Ok(Standby { directory: directory.to_owned(), state, alone: Arc::new(alone) })
}

fn finish(standby: Standby) -> Result<Promoted, StandbyError> {
    let Standby { directory, state, alone } = standby;
    let file = directory.join(&state.file);
    let copy = open(&directory, Arc::clone(&alone), state)?;
    let standing = copy.standing().clone();
    let checked = check_in_use(&file)?;
    let (now, keeper, closed) = copy.close();
    closed?;
    let state = State { role: Role::Promoted, now, next: None, ended: None, ..keeper.state };
    Record::Copy(Box::new(state)).write(&alone).map_err(kept(&directory))?;
    Ok(Promoted { file, standing, checked })
}
