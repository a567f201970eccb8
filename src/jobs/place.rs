//! Where a service may write a restore: beneath the folders that its operator named, and nowhere else.
//!
//! What always holds: a place is judged by where it really is, with every link followed; it is new, lies strictly beneath one of the folders and within
//! nobody's copy, and without any folder named there is none. Whoever may write in such a folder by other means can change it meanwhile: it should be the service's alone.

use std::io;
use std::path::{Component, Path, PathBuf};

use farshore_applier::{restore, standby};

use crate::drill::scratch;
use crate::message::{Code, OperatorMessage, Safe};

/// What lies in a directory that is somebody's copy: a restore, a standby, a drill, a PostgreSQL server.
const OF_A_COPY: [&str; 4] = [restore::MARKER, standby::STATE, scratch::MARKER, "PG_VERSION"];

/// The place of a restore, without links.
///
/// # Errors
/// With the reason why it is refused.
pub fn judged(directory: &Path, roots: &[PathBuf]) -> Result<PathBuf, OperatorMessage> {
    if roots.is_empty() {
        let happened = "the service was asked to restore, and its configuration names no folder that it may restore into";
        let next =
            "name one with `restore_roots` in [service], or restore by `farshore restore` without --no-wait";
        return Err(refused(happened, next));
    }
    let named = || roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ");
    let next = || format!("name a new directory beneath one of `restore_roots`: {}", named());
    let place = real(directory).map_err(|why| {
        refused(&format!("the restore cannot go to `{}`: {why}", directory.display()), &next())
    })?;
    let root = roots
        .iter()
        .filter_map(|root| root.canonicalize().ok())
        // Where one lies in another, the outer one: what lies between them is looked at too.
        .filter(|root| place.starts_with(root) && place != *root)
        .min_by_key(|root| root.as_os_str().len());
    let Some(root) = root else {
        let happened = format!(
            "the service may not restore into `{}`: it is beneath none of its `restore_roots`",
            directory.display()
        );
        return Err(refused(&happened, &next()));
    };
    match within_a_copy(&place, &root) {
        Ok(None) => Ok(place),
        Ok(Some(copy)) => {
            let happened = format!(
                "the service may not restore into `{}`: it lies within another copy, in `{}`",
                directory.display(),
                copy.display()
            );
            Err(refused(&happened, &next()))
        }
        Err(why) => {
            let happened = format!("the restore cannot go to `{}`: {why}", directory.display());
            Err(refused(&happened, &next()))
        }
    }
}

/// The directory of somebody's copy that a place lies in, between it and `root`. What cannot be looked at is no answer.
fn within_a_copy(place: &Path, root: &Path) -> Result<Option<PathBuf>, String> {
    let between = place.ancestors().skip(1).take_while(|above| *above != root);
    for above in between {
        let why = |why: io::Error| format!("`{}` cannot be looked at: {why}", above.display());
        let entries = match above.read_dir() {
            Ok(entries) => entries,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => continue,
            Err(failed) => return Err(why(failed)),
        };
        for entry in entries {
            let name = entry.map_err(why)?.file_name();
            if name.to_str().is_some_and(is_of_a_copy) {
                return Ok(Some(above.to_owned()));
            }
        }
    }
    Ok(None)
}

/// Whether a name is in somebody's copy, or is a server's own in a tablespace of one.
/// Source: `TABLESPACE_VERSION_DIRECTORY`, src/include/common/relpath.h: `PG_`, the major version, `_` and the catalog's.
fn is_of_a_copy(name: &str) -> bool {
    let of_tablespace = || {
        let (major, catalog) = name.strip_prefix("PG_")?.split_once('_')?;
        Some(major.parse::<u32>().is_ok() && catalog.parse::<u32>().is_ok())
    };
    OF_A_COPY.contains(&name) || of_tablespace() == Some(true)
}

/// Where a path leads, whose end may be missing.
fn real(path: &Path) -> Result<PathBuf, String> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err("it is no absolute path without `..`".to_owned());
    }
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            let mut entries = path.read_dir().map_err(|why| why.to_string())?;
            if entries.next().is_some() {
                return Err("it is there already, and not empty".to_owned());
            }
        }
        Ok(_) => return Err("it is there already, and no directory".to_owned()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why.to_string()),
    }
    let mut missing = Vec::new();
    let mut there = path;
    loop {
        match there.canonicalize() {
            Ok(real) => return Ok(missing.iter().rev().fold(real, |real, part| real.join(part))),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(why.to_string()),
        }
        // A link that leads nowhere is not followed by making what it names.
        if there.symlink_metadata().is_ok() {
            return Err(format!("`{}` is a link that leads nowhere", there.display()));
        }
        let (Some(above), Some(name)) = (there.parent(), there.file_name()) else {
            return Err("it has no beginning".to_owned());
        };
        missing.push(name);
        there = above;
    }
}

fn refused(happened: &str, next: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::RestorePlaceRefused,
        happened,
        Safe::Known("nothing was written".to_owned()),
        next,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_service_writes_new_places_beneath_its_folders_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        for made in ["root/full/of", "root/empty", "elsewhere", "root-beside"] {
            std::fs::create_dir_all(folder.join(made)).unwrap();
        }
        std::fs::write(folder.join("root/file"), "").unwrap();
        symlink(folder.join("elsewhere"), folder.join("root/out")).unwrap();
        symlink(folder.join("nowhere"), folder.join("root/dangling")).unwrap();
        symlink(folder.join("root"), folder.join("in")).unwrap();
        let roots = [folder.join("root")];
        let judged = |place: &str, roots: &[PathBuf]| judged(&folder.join(place), roots);
        for (good, real) in [
            ("root/new", "root/new"),
            ("root/empty", "root/empty"),
            ("root/a/b", "root/a/b"),
            ("in/new", "root/new"),
        ] {
            assert_eq!(judged(good, &roots).unwrap(), folder.join(real), "{good}");
        }
        for bad in [
            "root",
            "root/",
            "root/full",
            "root/file",
            "root/out",
            "root/out/new",
            "root/dangling",
            "root/dangling/new",
            "root/../elsewhere/new",
            "elsewhere/new",
            "root-beside/new",
            "/etc/new",
        ] {
            let why = judged(bad, &roots).unwrap_err();
            assert_eq!(why.code, Code::RestorePlaceRefused, "{bad}: {why}");
        }
        assert!(super::judged(Path::new("root/new"), &roots).is_err());
        // A folder in a folder: what is in the inner one is judged up to the outer one.
        let nested = [folder.join("root/full"), folder.join("root")];
        assert!(judged("root/full/new", &nested).is_ok());
        assert!(judged("root/new", &[]).is_err());
    }

    #[test]
    fn a_service_restores_into_nobodys_copy_however_deep() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let roots = [root.clone()];
        std::fs::create_dir_all(root.join("plain/folder")).unwrap();
        assert!(judged(&root.join("plain/folder/new"), &roots).is_ok());
        for name in [
            "farshore-restore.json",
            "farshore-standby.json",
            "farshore-drill.json",
            "PG_VERSION",
            "PG_15_202209061",
        ] {
            let copy = root.join(format!("copy-{name}"));
            std::fs::create_dir_all(copy.join("base/1")).unwrap();
            std::fs::write(copy.join(name), "").unwrap();
            for within in ["new", "base/new", "base/1/new", "not/there/yet", "base"] {
                let place = copy.join(within);
                if within == "base" {
                    std::fs::remove_dir(copy.join("base/1")).unwrap();
                }
                let why = judged(&place, &roots).unwrap_err();
                assert_eq!(why.code, Code::RestorePlaceRefused, "{}: {why}", place.display());
                assert!(why.to_string().contains("another copy"), "{why}");
            }
            // Beside it, and the root itself though something of a copy lies there, is another matter.
            assert!(judged(&root.join(format!("beside-{name}")), &roots).is_ok());
        }
        for other in ["PG_", "PG_15", "PG_a_b", "pg_version", "PG_VERSION.old"] {
            assert!(!is_of_a_copy(other), "{other}");
        }
    }
}
