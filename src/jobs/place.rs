//! Where a service may write a restore: beneath the folders that its operator named, and nowhere else.
//!
//! What always holds: a place is judged by where it really is, with every link followed; it is new, lies strictly beneath one of the folders, and without
//! any named there is none. Whoever may write in such a folder by other means can change it meanwhile: it should be the service's alone.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::message::{Code, OperatorMessage, Safe};

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
    let is_beneath = roots
        .iter()
        .filter_map(|root| root.canonicalize().ok())
        .any(|root| place.starts_with(&root) && place != root);
    match is_beneath {
        true => Ok(place),
        false => {
            let happened = format!(
                "the service may not restore into `{}`: it is beneath none of its `restore_roots`",
                directory.display()
            );
            Err(refused(&happened, &next()))
        }
    }
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
        assert!(judged("root/new", &[]).is_err());
    }
}
