//! The marker in a restored directory: whether a restore is under way there or done, and of which plan.
//!
//! What always holds: it is the first file written and says `running`; it is replaced, whole and durably, by `complete` only when all
//! else is durable. An interrupted restore is begun anew only for the same target of the same journal, by one process at a time, only where nothing else stands in its directory, and
//! only what the marker lists is removed: the names that this restore makes directly in its directory, and its tablespaces' places. The name that makes a SQLite
//! database of a file is none of them: what has it is never removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use farshore_journal::format::Digest;
use serde::{Deserialize, Serialize};

use super::alone::Alone;
use super::{RestoreError, io};
use crate::plan::Plan;

/// Its name in the restored directory.
pub const MARKER: &str = "farshore-restore.json";
const NEXT: &str = "farshore-restore.json.next";
const SCHEMA: &str = "farshore.restore/1";
/// A marker is small; a longer file is none.
const LONGEST: u64 = 16 << 20;

/// How far a restore came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Set when it begins. Nobody may start what is there.
    Running,
    /// Set when everything is durable.
    Complete,
}

/// The marker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// `farshore.restore/1`.
    pub schema: String,
    /// How far it came.
    pub state: State,
    /// The digest of the plan.
    pub plan_digest: Option<Digest>,
    /// The plan.
    pub plan: Plan,
    /// Names made directly in the directory.
    pub names: BTreeSet<String>,
    /// The tablespaces' places.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

/// The first marker's bytes. `names` are those that the restore makes directly in its directory.
pub(super) fn begin(
    plan: &Plan,
    mut names: BTreeSet<String>,
    tablespaces: &BTreeMap<u32, PathBuf>,
) -> Vec<u8> {
    names.insert(NEXT.to_owned());
    let marker = Marker {
        schema: SCHEMA.to_owned(),
        state: State::Running,
        plan_digest: plan.digest().ok(),
        plan: plan.clone(),
        names,
        tablespaces: tablespaces.clone(),
    };
    serde_json::to_vec_pretty(&marker).unwrap_or_default()
}

/// Writes the marker of a copy that is complete, by another name first. Durable on `Ok`.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn adopted(path: &Path, plan: &Plan) -> Result<(), RestoreError> {
    use std::io::Write as _;
    let running: Marker = serde_json::from_slice(&begin(plan, BTreeSet::new(), &BTreeMap::new()))
        .map_err(|_| RestoreError::CutOff)?;
    let bytes = serde_json::to_vec_pretty(&Marker { state: State::Complete, ..running }).unwrap_or_default();
    let next = path.with_file_name(NEXT);
    let mut file = std::fs::File::create(&next).map_err(io("create", &next))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io("write", &next))?;
    std::fs::rename(&next, path).map_err(io("name", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("synchronise", folder))
}

/// The marker in a directory, if there is one.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(directory: &Path) -> Result<Option<Marker>, RestoreError> {
    use std::io::Read;
    let path = directory.join(MARKER);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(why)
            if matches!(why.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(why) => return Err(io("open", &path)(why)),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(io("read", &path))?;
    Ok(parse(&bytes))
}

/// A file of that name that does not read is no marker: the directory is then simply not empty.
fn parse(bytes: &[u8]) -> Option<Marker> {
    serde_json::from_slice::<Marker>(bytes).ok().filter(|marker| marker.schema == SCHEMA)
}

/// Whether a marker is of this plan.
pub(super) fn is_of(marker: &Marker, plan: &Plan) -> bool {
    marker.plan_digest.is_some() && marker.plan_digest == plan.digest().ok()
}

/// Whether a marker is of a restore that asked for the same of the same journal. Its position may be another one: the latest state
/// moves on.
pub(super) fn asks_the_same(marker: &Marker, plan: &Plan) -> bool {
    let of = |plan: &Plan| (plan.database.clone(), plan.store, plan.incarnation, plan.asked.clone());
    of(&marker.plan) == of(plan)
}

/// What stands in a directory, and is none of what the restore that its marker is of made.
pub(super) fn others(alone: &Alone, directory: &Path, marker: &Marker) -> Result<Vec<String>, RestoreError> {
    let names = alone.names(directory).map_err(io("list", directory))?;
    Ok(names.into_iter().filter(|name| name != MARKER && !marker.names.contains(name)).collect())
}

/// Removes what an interrupted restore made, but for its marker: what is left is told as interrupted until another takes its place.
pub(super) fn wipe(
    directory: &Path,
    marker: &Marker,
    tablespaces: &BTreeMap<u32, PathBuf>,
) -> Result<(), RestoreError> {
    for (oid, place) in &marker.tablespaces {
        // The marker lies in a directory that others may have written to: only places named again are touched.
        if tablespaces.get(oid) == Some(place) {
            remove(place)?;
        }
    }
    for name in &marker.names {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/') && name != MARKER;
        if plain {
            remove(&directory.join(name))?;
        }
    }
    Ok(())
}

/// Removes a file, link or tree; links are never followed.
fn remove(path: &Path) -> Result<(), RestoreError> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(why) => Err(why),
    };
    match removed {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(why)),
        _ => Ok(()),
    }
}

/// Writes the first marker, in place of what an interrupted restore left; durable on `Ok`.
pub(super) fn write(alone: &Alone, directory: &Path, bytes: &[u8]) -> Result<(), RestoreError> {
    alone.replace(MARKER, NEXT, bytes).map_err(io("write", &directory.join(MARKER)))
}

/// Says that the restore is done.
pub(super) fn complete(alone: &Alone, directory: &Path, plan: &Plan) -> Result<(), RestoreError> {
    let path = directory.join(MARKER);
    let running = parse(&alone.read(MARKER).map_err(io("read", &path))?.unwrap_or_default());
    let Some(running) = running else { return Err(RestoreError::CutOff) };
    if !is_of(&running, plan) {
        return Err(RestoreError::PlanOfAnother { field: "marker" });
    }
    let done = Marker { state: State::Complete, ..running };
    write(alone, directory, &serde_json::to_vec_pretty(&done).unwrap_or_default())
}
