//! A file system of a few megabytes, in memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::must::Must;

/// One that is mounted; unmounted on drop.
#[derive(Debug)]
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many MiB at a folder, which is made. `None` where this user may not.
    ///
    /// # Panics
    /// If the folder cannot be made.
    #[must_use]
    pub fn at(place: PathBuf, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(&place).must("a folder is made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0777"), "tmpfs"]).arg(&place);
        let mounted = mount.output().is_ok_and(|done| done.status.success());
        mounted.then_some(Self { place })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Gives it another size.
    ///
    /// # Panics
    /// If it cannot be remounted.
    pub fn enlarge(&self, mib: u32) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={mib}m")]).arg(&self.place);
        assert!(mount.output().must("mount runs").status.success(), "the file system keeps its size");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _removed_with_the_folder = Command::new("umount").arg("-l").arg(&self.place).output();
    }
}
