//! What only a plan of a PostgreSQL has: its control file and settings, what replay would make outside of the copy, and what is prepared.

use std::path::Path;

use farshore_engines::postgres::restore::control::{ControlFile, Major};
use farshore_engines::postgres::restore::safe_start::{
    self, ConfigFile, RecoveryTarget, Request, Setting, SourceSettings,
};
use farshore_journal::Timeline;
use farshore_journal::backup::{Backup, EntryKind, Manifest};

use super::scan::Found;
use super::takes::Takes;
use super::{Neutralised, PlanError, PreparedThen, TablespaceThen};

/// The control file's path in every backup.
pub(crate) const CONTROL_FILE: &str = "global/pg_control";
/// In a plan nobody has a port or directory for the server yet.
const NO_PORT: u16 = 5432;
const NO_SOCKET_DIR: &str = "/farshore";

/// What a copy takes that stands at the target.
pub(super) async fn takes(
    backup: &Backup,
    found: &Found,
    timeline: Timeline,
    confined: bool,
) -> Result<Takes, PlanError> {
    let manifest = backup.manifest();
    // Records in front of the base's start share its first segment and are not replayed.
    let made = found.tablespaces.iter().filter(|(at, _)| *at >= manifest.start.offset);
    tablespaces_possible(made.map(|(_, location)| Path::new(location)), confined)?;
    let control = control_file(backup).await?;
    let target = RecoveryTarget { record_start: found.record.start, timeline, end: found.record.end };
    let request = Request {
        major: control.major,
        port: NO_PORT,
        socket_dir: NO_SOCKET_DIR.into(),
        target,
        consistent_from: manifest.end.offset,
        demanded: found.demanded,
        restore_command: None,
        follow: None,
        shared_buffers_limit: u64::MAX,
        preload: Vec::new(),
    };
    let safe = safe_start::plan(&source_settings(manifest), &control, &request)?;
    let segment = manifest.segment_bytes;
    let first = manifest.start.offset.segment_start(segment);
    let log_bytes = found.record.end.get().saturating_sub(first.get());
    let segments = log_bytes.div_ceil(segment);
    let files: u64 = manifest.entries.iter().map(|entry| entry.size).sum();
    let named = safe.neutralised.into_iter().filter(|row| !is_placeholder(&row.setting));
    let tablespaces = manifest.tablespaces.iter();
    Ok(Takes {
        segments,
        writes_bytes: files + segments * segment,
        neutralised: named.map(neutralised).collect(),
        prepared: prepared(manifest, found),
        tablespaces: tablespaces
            .map(|t| TablespaceThen { oid: t.oid, location: t.location.clone() })
            .collect(),
    })
}

/// Replay makes a tablespace at the place that the source named, whatever is there; on the source's own machine that is
/// the live one. Only an empty directory can take it, and nothing can where the copy is `confined`: no setting of the server sends it
/// elsewhere. One inside of the data directory has an empty name; any other that is not absolute no server ever wrote.
/// Source: `create_tablespace_directories`, src/backend/commands/tablespace.c, the same in REL_14_STABLE to REL_18_STABLE but for the empty name (from 15 on).
pub(super) fn tablespaces_possible<'a>(
    made: impl Iterator<Item = &'a Path>,
    confined: bool,
) -> Result<(), PlanError> {
    let mut outside: Vec<&Path> = made.filter(|location| !location.as_os_str().is_empty()).collect();
    outside.sort_unstable();
    outside.dedup();
    if let Some(location) = outside.iter().find(|place| confined || !place.is_absolute()) {
        return Err(PlanError::TablespaceOutside { location: location.to_path_buf() });
    }
    let entries = |place: &Path| std::fs::read_dir(place).map(|mut entries| entries.next().is_some());
    // What cannot be looked at counts as something.
    let holds = |place: &Path| match entries(place) {
        Ok(something) => something,
        Err(why) => why.kind() != std::io::ErrorKind::NotFound,
    };
    if let Some(location) = safe_start::tablespaces_in_the_way(outside.iter().copied(), holds).first() {
        return Err(PlanError::TablespaceInTheWay { location: location.to_path_buf() });
    }
    match outside.iter().find(|place| entries(place).is_err()) {
        Some(location) => Err(PlanError::TablespaceNowhere { location: location.to_path_buf() }),
        None => Ok(()),
    }
}

/// Settings whose value a plan cannot know yet.
fn is_placeholder(setting: &str) -> bool {
    matches!(setting, "port" | "unix_socket_directories")
}

pub(crate) fn neutralised(row: safe_start::Neutralised) -> Neutralised {
    Neutralised { setting: row.setting, was: row.was, now: row.now, why: row.why.to_owned() }
}

/// Prepared in the log and undecided at the target, and those that the base's files hold prepared.
/// Source: `TwoPhaseFilePath`, src/backend/access/transam/twophase.c: `pg_twophase/` and the number in hexadecimal, 8
/// digits, from 17 on 16.
pub(super) fn prepared(manifest: &Manifest, found: &Found) -> Vec<PreparedThen> {
    let in_base = manifest.entries.iter().filter_map(|entry| {
        let name = entry.path.strip_prefix("pg_twophase/").filter(|_| entry.kind == EntryKind::File)?;
        u64::from_str_radix(name, 16)
            .ok()
            .filter(|_| matches!(name.len(), 8 | 16))
            .map(|number| (number, name.len()))
    });
    let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    let known = |number: u64| found.prepared.iter().any(|(id, _)| id.low == low(number));
    let held = in_base.filter(|(number, _)| !found.decided.contains(&low(*number)) && !known(*number));
    let held =
        held.map(|(number, digits)| PreparedThen { xid: (digits == 16).then_some(number), name: None });
    let logged =
        found.prepared.iter().map(|(id, name)| PreparedThen { xid: id.full, name: Some(name.clone()) });
    held.chain(logged).collect()
}

/// What the backup keeps of its server's configuration.
pub(crate) fn source_settings(manifest: &Manifest) -> SourceSettings {
    let settings = manifest.settings.iter().map(|row| Setting {
        name: row.name.clone(),
        setting: row.setting.clone(),
        source: row.source.clone(),
        context: row.context.clone(),
    });
    let files = manifest.config_files.iter();
    let files = files.map(|file| ConfigFile { path: file.path.clone(), content: file.content.clone() });
    SourceSettings { settings: settings.collect(), config_files: files.collect() }
}

/// The backup's control file, read from the part that holds it.
pub(crate) async fn control_file(backup: &Backup) -> Result<ControlFile, PlanError> {
    let bad = |source| PlanError::Control { backup: backup.id(), source };
    let manifest = backup.manifest();
    let bytes = entry_bytes(backup, CONTROL_FILE).await?.ok_or_else(|| bad(None))?;
    let control = ControlFile::parse(&bytes).map_err(|why| bad(Some(why)))?;
    let same = Major::new(manifest.major) == Some(control.major)
        && manifest.identity.parse() == Ok(control.system_identifier);
    if same { Ok(control) } else { Err(bad(None)) }
}

/// A small file of a backup; `None` when it has none, or it is not small.
async fn entry_bytes(backup: &Backup, path: &str) -> Result<Option<Vec<u8>>, PlanError> {
    const SMALL: u64 = 1 << 20;
    let manifest = backup.manifest();
    let Some(index) = manifest.entries.iter().position(|entry| entry.path == path && entry.size <= SMALL)
    else {
        return Ok(None);
    };
    let mut bytes: Vec<u8> = Vec::new();
    let mut pieces = Vec::new();
    for share in backup.shares() {
        let Some(holder) = backup.holder(share.of) else { continue };
        for place in share.places.iter().filter(|place| place.entry == index) {
            let range = place.in_part..place.in_part.saturating_add(place.bytes);
            pieces.push((place.offset, holder.part_range(share.number, range).await?));
        }
    }
    pieces.sort_by_key(|(offset, _)| *offset);
    bytes.extend(pieces.into_iter().flat_map(|(_, piece)| piece));
    Ok((bytes.len() as u64 == manifest.entries[index].size).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confined_copy_takes_no_tablespace_that_replay_would_make_outside_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path();
        let judged = |place: &Path, confined| tablespaces_possible(std::iter::once(place), confined);
        // An empty directory takes it, where nobody promised that the copy stays where it was put.
        assert!(judged(empty, false).is_ok());
        assert!(
            matches!(judged(empty, true), Err(PlanError::TablespaceOutside { location }) if location == empty)
        );
        let nowhere = empty.join("nowhere");
        assert!(matches!(judged(&nowhere, false), Err(PlanError::TablespaceNowhere { .. })));
        assert!(matches!(judged(&nowhere, true), Err(PlanError::TablespaceOutside { .. })));
        for confined in [false, true] {
            // One in the data directory stays there.
            assert!(judged(Path::new(""), confined).is_ok());
            for forged in ["../beside", "beside", "./../../etc"] {
                let why = judged(Path::new(forged), confined);
                assert!(matches!(why, Err(PlanError::TablespaceOutside { .. })), "{forged}");
            }
            assert!(tablespaces_possible(std::iter::empty(), confined).is_ok());
        }
    }
}
