//! What a database's file lies on: WAL mode needs memory that all its processes share, and locks, so all of them on one machine and a
//! file system that has both.
//!
//! What always holds: only what is known not to work is called [`Kind::Network`]; what may work is [`Kind::Unsure`]. Nothing is
//! opened but `/proc/self/mountinfo`. Source: <https://www.sqlite.org/wal.html> ("WAL does not work over a network filesystem"), proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// File systems of a network or a cluster, or of a host that shares them with its guests.
const NETWORK: &[&str] = &[
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "vmhgfs",
];
/// What FUSE file systems of a network call themselves, behind `fuse.`.
const NETWORK_FUSE: &[&str] = &[
    "afpfs",
    "beegfs",
    "blobfuse",
    "blobfuse2",
    "ceph",
    "ceph-fuse",
    "curlftpfs",
    "davfs",
    "gcsfuse",
    "glusterfs",
    "goofys",
    "gvfsd-fuse",
    "juicefs",
    "mfs",
    "moosefs",
    "mount-s3",
    "mountpoint-s3",
    "rclone",
    "s3fs",
    "seaweedfs",
    "smbnetfs",
    "sshfs",
    "vmhgfs-fuse",
];
/// What programs of the user's, or a hypervisor, answer for.
const UNSURE: &[&str] = &["fuse", "fuseblk", "virtiofs"];

/// Whether SQLite's log works there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As far as its name says.
    Local,
    /// It cannot: its machines share no memory.
    Network,
    /// Its name does not say.
    Unsure,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Its type, in the system's words.
    pub name: String,
    /// Whether SQLite's log works there.
    pub kind: Kind,
    /// Whether it, or the mount, takes no writes.
    pub read_only: bool,
}

/// What a file, or where its path leads, lies on.
///
/// # Errors
/// When there is no such file, or the system does not say.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    let path = path.canonicalize()?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    found(&table, &path).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The mount that a path, links followed, lies on: the deepest, and of two at one place the later, which hides the other.
fn found(table: &[u8], path: &Path) -> Option<FileSystem> {
    let mounts = table.split(|byte| *byte == b'\n').filter_map(mount);
    let beneath = mounts.filter(|(point, _)| path.starts_with(point));
    beneath.max_by_key(|(point, _)| point.components().count()).map(|(_, file_system)| file_system)
}

fn mount(line: &[u8]) -> Option<(PathBuf, FileSystem)> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let behind = fields.iter().position(|field| *field == b"-")?;
    let (point, options) = (fields.get(4)?, fields.get(5)?);
    let (name, of_all) = (fields.get(behind + 1)?, fields.get(behind + 3)?);
    let name = String::from_utf8_lossy(name).into_owned();
    let is_ro = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
    let read_only = is_ro(options) || is_ro(of_all);
    Some((unescaped(point), FileSystem { kind: kind(&name), name, read_only }))
}

fn kind(name: &str) -> Kind {
    let fuse = name.strip_prefix("fuse.");
    if NETWORK.contains(&name) || fuse.is_some_and(|name| NETWORK_FUSE.contains(&name)) {
        Kind::Network
    } else if UNSURE.contains(&name) || fuse.is_some() {
        Kind::Unsure
    } else {
        Kind::Local
    }
}

/// Blanks and the like stand as `\040` there.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:30 / /srv rw,relatime shared:1 - ext4 /dev/vdb rw
31 30 0:31 / /srv/far\\040away rw,relatime shared:2 master:3 - nfs4 host:/export rw,vers=4.2
32 27 0:32 / /ro ro,relatime - xfs /dev/vdc rw
33 27 0:33 / /kept rw - iso9660 /dev/sr0 ro
34 27 0:34 / /home/u rw - fuse.sshfs u@host: rw
35 27 0:35 / /home/v rw - fuse.encfs encfs rw
36 27 0:36 / /twice rw - ext4 /dev/vdd rw
37 27 0:37 / /twice rw - cifs //host/share rw
a line that is cut
";

    #[test]
    fn the_deepest_mount_above_a_path_decides_and_of_two_the_later() {
        let cases = [
            ("/var/lib/app.db", "ext4", Kind::Local, false),
            ("/srv/app.db", "ext4", Kind::Local, false),
            ("/srvother/app.db", "ext4", Kind::Local, false),
            ("/srv/far away/app.db", "nfs4", Kind::Network, false),
            ("/ro/app.db", "xfs", Kind::Local, true),
            ("/kept/app.db", "iso9660", Kind::Local, true),
            ("/home/u/app.db", "fuse.sshfs", Kind::Network, false),
            ("/home/v/app.db", "fuse.encfs", Kind::Unsure, false),
            ("/twice/app.db", "cifs", Kind::Network, false),
        ];
        for (path, name, kind, read_only) in cases {
            let expected = FileSystem { name: name.to_owned(), kind, read_only };
            assert_eq!(found(TABLE, Path::new(path)), Some(expected), "{path}");
        }
        assert_eq!(found(b"", Path::new("/x")), None);
    }

    #[test]
    fn this_machine_says_what_a_file_lies_on() {
        let folder = tempfile::tempdir().unwrap();
        let found = file_system(folder.path()).unwrap();
        assert!(!found.name.is_empty() && !found.read_only, "{found:?}");
        assert!(file_system(&folder.path().join("missing")).is_err());
    }
}
