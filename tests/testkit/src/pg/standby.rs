//! Standbys that stream from a primary of the same major.
//!
//! Where the major has `pg_basebackup`, that makes the copy. 14 and 17 come as server programs only; there the files
//! are copied between the start and the stop of a backup over SQL, as the manual's "low level API" describes it. Both ways
//! keep the WAL by a slot made before the copy and used afterwards. It is the standby's: `pg_drop_replication_slot`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::builder::append;
use super::{Major, Server};
use crate::must::Must;
use crate::user;

/// Not part of a backup. Source: PostgreSQL manual, "Making a Base Backup Using the Low Level API".
const EMPTIED: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];
const OMITTED: [&str; 5] =
    ["postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "pg_internal.init"];

impl Server {
    /// A streaming standby of `primary`, started. Its application name is `standby_<port>`, and so is its slot's.
    /// It reaches the primary through the Unix socket.
    ///
    /// # Panics
    /// If the copy fails or the standby does not become ready.
    pub async fn standby_of(primary: &Self) -> Self {
        let folder = user::tempdir();
        let data = folder.path().join("data");
        let standby = Self::new(primary.major(), folder, data, None, false);
        let name = format!("standby_{}", standby.port());
        primary.sql(&format!("select pg_create_physical_replication_slot('{name}', true)"));
        match primary.major().tools() {
            Some(tools) => by_program(&tools, primary, standby.data_dir()),
            None => by_hand(primary, standby.data_dir()).await,
        }
        append(
            &standby.data_dir().join("postgresql.auto.conf"),
            &format!(
                "primary_conninfo = 'host={} port={} user=postgres application_name={name}'\n\
                 primary_slot_name = '{name}'\n",
                primary.socket_dir().display(),
                primary.port(),
            ),
        );
        fs::write(standby.data_dir().join("standby.signal"), "").must("write standby.signal");
        user::give(standby.folder());
        standby.start();
        standby
    }
}

fn by_program(tools: &Path, primary: &Server, to: &Path) {
    let mut command = Command::new(tools.join("pg_basebackup"));
    command
        .args(["-X", "stream", "-c", "fast", "-U", "postgres", "-D"])
        .arg(to)
        .arg("-h")
        .arg(primary.socket_dir())
        .args(["-p", &primary.port().to_string()]);
    for (_, location) in primary.tablespaces() {
        command.arg(format!("--tablespace-mapping={location}={}", moved(&location, to)));
    }
    let done = user::run_as(command).output().must("run pg_basebackup");
    assert!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
}

/// The session that starts the backup must live until its end.
async fn by_hand(primary: &Server, to: &Path) {
    let (start, stop) = match primary.major() {
        // Source: release notes of PostgreSQL 15: the functions were renamed, the exclusive mode removed.
        Major::V14 => ("pg_start_backup('standby', true, false)", "pg_stop_backup(false)"),
        _ => ("pg_backup_start('standby', true)", "pg_backup_stop(true)"),
    };
    let session = primary.connect().await;
    session.simple_query(&format!("select {start}")).await.must("start the backup");
    copy(primary.data_dir(), to, true);
    for (oid, location) in primary.tablespaces() {
        let place = moved(&location, to);
        copy(Path::new(&location), Path::new(&place), false);
        let link = to.join("pg_tblspc").join(&oid);
        let _old = fs::remove_file(&link);
        std::os::unix::fs::symlink(&place, &link).must(format_args!("link tablespace {oid}"));
    }
    let label = session.query_one(&format!("select labelfile from {stop}"), &[]).await.must("end the backup");
    // No tablespace map: it would lead back to the primary's folders, and the links are right already.
    fs::write(to.join("backup_label"), label.get::<_, String>(0)).must("write backup_label");
}

impl Server {
    /// Number and place of each tablespace but the built-in ones.
    fn tablespaces(&self) -> Vec<(String, String)> {
        self.sql("select oid, pg_tablespace_location(oid) from pg_tablespace where oid >= 16384")
            .lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(oid, location)| (oid.to_owned(), location.to_owned()))
            .collect()
    }
}

/// Where a tablespace goes: beside the standby's data directory.
fn moved(location: &str, data: &Path) -> String {
    let name = Path::new(location).file_name().must("name the tablespace");
    let beside = data.parent().must("find the standby's folder").join("tablespaces");
    beside.join(name).display().to_string()
}

/// Copies a folder that a server is writing to: files may vanish or grow meanwhile, recovery puts that right.
fn copy(from: &Path, to: &Path, top: bool) {
    fs::create_dir_all(to).must(format_args!("make {}", to.display()));
    fs::set_permissions(to, PermissionsExt::from_mode(0o700)).must(format_args!("protect {}", to.display()));
    for entry in fs::read_dir(from).must(format_args!("list {}", from.display())) {
        let entry = entry.must(format_args!("list {}", from.display()));
        let name = entry.file_name();
        let (source, target) = (entry.path(), to.join(&name));
        let name = name.to_string_lossy();
        if OMITTED.contains(&name.as_ref()) || name.starts_with("pgsql_tmp") {
            continue;
        }
        let kind = match fs::symlink_metadata(&source) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("look at {}: {error}", source.display()),
        };
        if kind.is_symlink() {
            continue; // tablespaces, which the caller copies
        } else if kind.is_dir() && top && EMPTIED.contains(&name.as_ref()) {
            empty_tree(&source, &target);
        } else if kind.is_dir() {
            copy(&source, &target, false);
        } else if kind.is_file() {
            match fs::copy(&source, &target) {
                Ok(_) => {
                    let mode = PermissionsExt::from_mode(kind.mode() & 0o777);
                    fs::set_permissions(&target, mode).must(format_args!("protect {}", target.display()));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => panic!("copy {}: {error}", source.display()),
            }
        }
    }
}

/// Folders are kept, such as `pg_wal/archive_status`; what is in them is not.
fn empty_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).must(format_args!("make {}", to.display()));
    fs::set_permissions(to, PermissionsExt::from_mode(0o700)).must(format_args!("protect {}", to.display()));
    if from.ends_with("pg_replslot") {
        return; // each folder in it is a slot, and a slot without its file stops the server
    }
    for entry in fs::read_dir(from).must(format_args!("list {}", from.display())).flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty_tree(&entry.path(), &to.join(entry.file_name()));
        }
    }
}
