//! The unprivileged user. PostgreSQL refuses root (`initdb` and `postgres` both), and containers of build services
//! often are root: then everything that touches a data directory runs as `postgres`, which Debian's package makes.
//! Whoever is not root runs all as himself, and this file does next to nothing.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, User};
use tempfile::TempDir;

use crate::must::Must;

/// Whom to become; `None` when we are not root and stay who we are.
fn target() -> Option<(Uid, Gid)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = User::from_name("postgres").must("look up the user postgres");
    let user = user.must("the user postgres (run tests/install)");
    Some((user.uid, user.gid))
}

/// Makes `command` run as the unprivileged user, in a folder that user may be in.
///
/// For `tokio::process`, convert afterwards: `tokio::process::Command::from(command)`.
#[must_use]
pub fn run_as(mut command: Command) -> Command {
    if let Some((uid, gid)) = target() {
        // The standard library drops root's supplementary groups along with the user.
        command.uid(uid.as_raw()).gid(gid.as_raw()).env("HOME", "/").env("USER", "postgres");
        if command.get_current_dir().is_none() {
            command.current_dir("/");
        }
    }
    command
}

/// A new folder that belongs to the unprivileged user, mode 0700, removed on drop.
#[must_use]
pub fn tempdir() -> TempDir {
    // Short, because socket paths are limited to 107 bytes.
    let folder = tempfile::Builder::new().prefix("fs-").tempdir().must("make a temporary folder");
    give(folder.path());
    folder
}

/// Makes `path` and all beneath it belong to the unprivileged user. Symbolic links are not followed.
pub fn give(path: &Path) {
    let Some((uid, gid)) = target() else { return };
    std::os::unix::fs::lchown(path, Some(uid.as_raw()), Some(gid.as_raw()))
        .must(format_args!("give {} away", path.display()));
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).must(format_args!("list {}", path.display())) {
            give(&entry.must(format_args!("list {}", path.display())).path());
        }
    }
}

/// A path under which the unprivileged user can execute `program`: itself where possible, else a copy outside of
/// root's home, made once per build.
#[must_use]
pub fn executable(program: &Path) -> PathBuf {
    let reachable = |path: &Path| {
        path.ancestors()
            .all(|part| std::fs::metadata(part).is_ok_and(|found| found.permissions().mode() & 0o001 != 0))
    };
    if target().is_none() || reachable(program) {
        return program.to_owned();
    }
    let found = std::fs::metadata(program).must(format_args!("find {}", program.display()));
    let name = program.file_name().must("a program has a name");
    let build = format!("{}-{}-{}", found.ino(), found.mtime(), found.len());
    let folder = std::env::temp_dir().join("farshore-test-bin").join(build);
    let copy = folder.join(name);
    if !copy.exists() {
        std::fs::create_dir_all(&folder).must(format_args!("make {}", folder.display()));
        // Other tests do the same at the same time: each copies under its own name, and the rename decides.
        let staged = folder.join(format!("{}", std::process::id()));
        std::fs::copy(program, &staged).must(format_args!("copy {}", program.display()));
        std::fs::set_permissions(&staged, PermissionsExt::from_mode(0o755)).must("make the copy executable");
        std::fs::rename(&staged, &copy).must("put the copy in place");
    }
    copy
}
