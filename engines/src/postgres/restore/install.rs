//! Puts a [`SafeStart`] in place, through the same gate as every other file of the restore.
//!
//! The source's own files are set aside, never lost. Run after the backup's files and before `global/pg_control`
//! is written, or at least before anything may start the server. A crash in between leaves some files set aside and
//! no `pg_control`: nothing can be started, and the restore begins anew elsewhere.

use super::beneath::{BeneathError, EntryKind, RelPath, Root};
use super::safe_start::SafeStart;

/// Why the plan was not put in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Without it the server would recover from the wrong checkpoint, and seem well.
    #[error("the backup has no `backup_label`: a server started without it would be silently corrupt")]
    BackupLabelMissing,
    /// A write failed.
    #[error(transparent)]
    Beneath(#[from] BeneathError),
}

/// Whether an entry of a backup is left out: what belongs to the source's running server and means harm or nothing
/// in a copy. Directories stay. Source: the list of `BASE_BACKUP` in
/// <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP-DATA>.
pub fn left_out(path: &RelPath) -> bool {
    const DIRECTORIES: [&str; 7] = [
        "pg_replslot/",
        "pg_dynshmem/",
        "pg_notify/",
        "pg_serial/",
        "pg_snapshots/",
        "pg_stat_tmp/",
        "pg_subtrans/",
    ];
    const FILES: [&str; 7] = [
        "postmaster.pid",
        "postmaster.opts",
        "standby.signal",
        "recovery.signal",
        "backup_label.old",
        "tablespace_map.old",
        "postgresql.auto.conf.tmp",
    ];
    let text = path.as_str();
    DIRECTORIES.iter().any(|dir| text.starts_with(dir))
        || FILES.contains(&text)
        || text.split('/').any(|name| name.starts_with("pgsql_tmp"))
        || text.rsplit('/').next() == Some("pg_internal.init")
}

/// Puts `plan` in place below `root`.
///
/// # Errors
/// [`InstallError::BackupLabelMissing`], or when a write fails: the directory must then not be started.
pub fn install(root: &Root, plan: &SafeStart) -> Result<(), InstallError> {
    if !root.has_file(&path(root, "backup_label")?)? {
        return Err(InstallError::BackupLabelMissing);
    }
    for name in &plan.remove {
        root.remove(&path(root, name)?)?;
    }
    for name in &plan.set_aside {
        set_aside(root, name)?;
    }
    // Slots of the source would hold log back for ever, and refuse a start with fewer places for them.
    clear(root, "pg_replslot", 0)?;
    for file in &plan.files {
        set_aside(root, &file.name)?;
        root.write(&path(root, &file.name)?, &file.content)?;
    }
    Ok(())
}

fn path(root: &Root, name: &str) -> Result<RelPath, BeneathError> {
    root.admit(EntryKind::File, name)
}

fn set_aside(root: &Root, name: &str) -> Result<(), BeneathError> {
    root.set_aside(&path(root, name)?, &path(root, &format!("{name}.from-backup"))?).map(drop)
}

/// Removes what lies below a directory, two levels deep: a slot is a directory of files.
fn clear(root: &Root, directory: &str, level: u32) -> Result<(), BeneathError> {
    for name in root.list(&path(root, directory)?)? {
        let inside = format!("{directory}/{name}");
        if level < 2 && root.has_directory(&path(root, &inside)?)? {
            clear(root, &inside, level + 1)?;
            root.remove_directory(&path(root, &inside)?)?;
        } else {
            root.remove(&path(root, &inside)?)?;
        }
    }
    Ok(())
}
