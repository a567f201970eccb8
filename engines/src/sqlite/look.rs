//! What can be told of a SQLite database without changing it, for whoever judges whether it can be followed.
//!
//! What always holds: nothing is written, and no file is made beside the database: SQLite makes a `-wal` for a reader too, so it is asked
//! only where its files are there already, or is told that the file does not change (`immutable`), where no log stands beside it. The
//! one thing that others may notice is a reader's lock, for as long as it takes to read one row. (Run as root, SQLite gives a `-wal` and
//! `-shm` that are another's to the file's owner.) A crash leaves nothing.
//!
//! **Descriptors.** Closing any descriptor of the database or of its `-shm` takes all of the process's POSIX locks on it (see
//! [`super::hold`]): [`look`] must never run in a process that follows a database. `farshore check` is a process of its own; what
//! follows is another.
//! Source: <https://www.sqlite.org/fileformat2.html> section 1.3, <https://www.sqlite.org/walformat.html> section 2.1,
//! `unixLock` in os_unix.c and `sqlite3PagerOpenWal` in pager.c of SQLite 3.51.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::{AccessFlags, access};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::hold::TABLE;
use super::mounted::{self, FileSystem};
use super::wal::{FRAME_HEAD_BYTES, PageBytes};

/// Bytes of a database's header.
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// A byte that a writer locks who waits for readers to end, and which readers therefore lock for a moment before they begin, and the
/// bytes that readers lock, and writers who want to be alone. Source: `PENDING_BYTE`, `SHARED_FIRST` and `SHARED_SIZE`, os.h of SQLite.
const PENDING: (i64, i64) = (0x4000_0000, 1);
const SHARED: (i64, i64) = (0x4000_0002, 510);
/// How long a lock that shuts readers out is waited for: outside WAL mode each commit takes it for a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long all is asked anew where a writer came between. It is longer: a try may have waited for a lock all that time.
const SETTLES: Duration = Duration::from_secs(6);
/// Between two tries. Where commits follow each other closely outside WAL mode, there is no lock for moments only: seen, a try each 20 ms
/// met none of them in two seconds.
const TRY: Duration = Duration::from_micros(500);
/// Bytes of the `-shm` up to what says how much was copied back, and the number it begins with.
const INDEX_BYTES: usize = 100;
const INDEX_VERSION: u32 = 3_007_000;

/// Why there is no file to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// Nothing is there.
    Nothing,
    /// Symbolic links that lead to each other.
    Loop,
    /// Something is there that is no file.
    NoFile,
    /// It cannot be come to.
    Shut {
        /// What the operating system said.
        said: String,
    },
}

/// What was seen of a file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Where the path leads, links followed: SQLite has its log beside this one.
    pub path: PathBuf,
    /// The device it lies on.
    pub device: u64,
    /// How many names it has (hard links).
    pub names: u64,
    /// Its owner.
    pub owner: u32,
    /// Its bytes.
    pub bytes: u64,
    /// Its first page's head.
    pub header: Result<Header, HeaderFault>,
    /// What this user may not do and who follows must.
    pub lacking: Vec<Lack>,
    /// What it lies on; `None` where the system does not say.
    pub file_system: Option<FileSystem>,
    /// Whether a read may begin.
    pub locking: Locking,
    /// The log beside it; `Ok(None)` when there is none.
    pub log: Result<Option<Log>, String>,
    /// Whether farshore's table is in it.
    pub table: Result<bool, TableUnknown>,
}

/// What the head of a database's first page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of a page.
    pub page_bytes: PageBytes,
    /// Whether it is in WAL mode: the only journal mode that the file itself remembers.
    pub wal: bool,
}

/// Why a file's first bytes are no database's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// It does not read.
    #[error("it cannot be read: {said}")]
    Unreadable {
        /// What the operating system said.
        said: String,
    },
    /// There are none: SQLite makes it a database with the first table, or the first `pragma journal_mode = wal`.
    #[error("it is empty: no database yet")]
    Empty,
    /// They are something else.
    #[error("it is no SQLite database, or an encrypted one")]
    NoDatabase,
    /// No page has so many bytes.
    #[error("its header names pages of {found} bytes, which there are not")]
    PageBytes {
        /// What it names.
        found: u32,
    },
    /// A later version.
    #[error("its header names file format {found}, which this build does not know")]
    Version {
        /// Which.
        found: u8,
    },
}

impl Header {
    /// Of a file's first bytes.
    ///
    /// # Errors
    /// When they are no database's.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderFault> {
        if bytes.is_empty() {
            return Err(HeaderFault::Empty);
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>().filter(|bytes| bytes.starts_with(MAGIC)) else {
            return Err(HeaderFault::NoDatabase);
        };
        let page = match u32::from(u16::from_be_bytes([bytes[16], bytes[17]])) {
            1 => 65_536,
            bytes => bytes,
        };
        let page_bytes = PageBytes::new(page).ok_or(HeaderFault::PageBytes { found: page })?;
        match bytes[18].max(bytes[19]) {
            found @ (0 | 3..) => Err(HeaderFault::Version { found }),
            _ => Ok(Self { page_bytes, wal: bytes[19] == 2 }),
        }
    }
}

/// Something that this user may not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// With which file or folder.
    pub path: PathBuf,
    /// Whether it may not be written, rather than read.
    pub write: bool,
}

/// Whether a read may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locking {
    /// It may.
    Free,
    /// Somebody shut readers out for as long as was waited.
    Held {
        /// The process, where it is one that can be seen from here.
        process: Option<i32>,
    },
    /// That could not be tried.
    Unknown {
        /// Why.
        said: String,
    },
}

/// The log beside a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Bytes of the file. It keeps the length that it once had until it is closed by the last one or cut off.
    pub bytes: u64,
    /// Of them not copied back into the database, as its `-shm` says.
    pub waiting: Option<u64>,
}

/// Why it is not known whether farshore's table is in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableUnknown {
    /// It is no database, or somebody shuts readers out: said elsewhere.
    NotRead,
    /// Its log stands beside it without a `-shm`, and reading it would make one.
    NoIndex,
    /// Somebody kept it locked for as long as was waited.
    Busy,
    /// SQLite could not read it.
    Sqlite {
        /// Its words.
        said: String,
    },
}

/// Looks. Waits for at most a few seconds.
///
/// # Errors
/// When there is no file.
pub fn look(path: &Path) -> Result<Looked, Absent> {
    let absent = |why: io::Error| match Errno::from_raw(why.raw_os_error().unwrap_or(0)) {
        Errno::ENOENT => Absent::Nothing,
        Errno::ELOOP => Absent::Loop,
        _ => Absent::Shut { said: why.to_string() },
    };
    let path = path.canonicalize().map_err(absent)?;
    let meta = path.metadata().map_err(absent)?;
    if !meta.is_file() {
        return Err(Absent::NoFile);
    }
    let mut looked = Looked {
        device: meta.dev(),
        names: meta.nlink(),
        owner: meta.uid(),
        bytes: meta.len(),
        header: Err(HeaderFault::Unreadable { said: String::new() }),
        lacking: lacking(&path),
        file_system: mounted::file_system(&path).ok(),
        locking: Locking::Unknown { said: String::new() },
        log: Ok(None),
        table: Err(TableUnknown::NotRead),
        path,
    };
    look_inside(&mut looked);
    Ok(looked)
}

/// `app.db` with `-wal`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// What who follows needs: SQLite writes to the file, and makes and removes those beside it.
fn lacking(path: &Path) -> Vec<Lack> {
    let may_not = |path: &Path, right| access(path, right).is_err_and(|why| why != Errno::ENOENT);
    let mut lacking = Vec::new();
    let mut need = |path: &Path, read: AccessFlags| {
        for (right, write) in [(read, false), (AccessFlags::W_OK, true)] {
            if may_not(path, right) {
                lacking.push(Lack { path: path.to_owned(), write });
            }
        }
    };
    need(path, AccessFlags::R_OK);
    if let Some(folder) = path.parent() {
        need(folder, AccessFlags::X_OK);
    }
    need(&beside(path, "-wal"), AccessFlags::R_OK);
    need(&beside(path, "-shm"), AccessFlags::R_OK);
    lacking
}

/// What the file itself and those beside it say.
fn look_inside(looked: &mut Looked) {
    let file = match File::open(&looked.path) {
        Ok(file) => file,
        Err(why) => {
            let said = why.to_string();
            looked.header = Err(HeaderFault::Unreadable { said: said.clone() });
            looked.locking = Locking::Unknown { said };
            looked.log = log(&looked.path, None);
            return;
        }
    };
    let until = Instant::now() + SETTLES;
    loop {
        look_once(&file, looked);
        // A log's index that changes at that very instant SQLite takes for one to be mended, which a reader that writes nothing may not
        // ("attempt to write a readonly database"): seen twice in some hundred looks beside a busy writer.
        let settled = !matches!(looked.table, Err(TableUnknown::Busy | TableUnknown::Sqlite { .. }));
        if settled || Instant::now() >= until {
            return;
        }
        // SQLite's connection was closed, and took our lock with it: whoever waits for readers to end goes on.
        pause();
    }
}

/// A reader's lock is held until all is asked: until then nobody removes the log or leaves WAL mode, so SQLite finds what was found
/// here. It is never waited under this lock: in other journal modes a commit waits for it to be given free. Nor is anything done under it
/// that can be done before, such as opening SQLite's connection: a writer that comes to wait meanwhile shuts that one out.
fn look_once(file: &File, looked: &mut Looked) {
    let seen = header(file).ok();
    let seen =
        seen.and_then(|header| how_to_ask(&looked.path, header, &log(&looked.path, Some(header))).ok());
    let ready = seen.map(|how| (how, open(&looked.path, how)));
    looked.locking = begin_to_read(file);
    looked.header = header(file);
    let header = looked.header.as_ref().ok().copied();
    looked.log = log(&looked.path, header);
    looked.table = Err(TableUnknown::NotRead);
    let Some(header) = header.filter(|_| looked.locking == Locking::Free) else { return };
    looked.table = how_to_ask(&looked.path, header, &looked.log).and_then(|how| match ready {
        Some((ready, connection)) if ready == how => {
            connection.and_then(|connection| has_table(&connection)).map_err(TableUnknown::of)
        }
        // Opening another would mean closing this one, and our lock with it.
        _ => Err(TableUnknown::Busy),
    });
}

/// With which parameter SQLite is to open it, so that it makes no file.
fn how_to_ask(
    path: &Path,
    header: Header,
    log: &Result<Option<Log>, String>,
) -> Result<&'static str, TableUnknown> {
    match (log, beside(path, "-shm").exists()) {
        (Err(said), _) => Err(TableUnknown::Sqlite { said: said.clone() }),
        (Ok(Some(Log { bytes: 1.., .. })), false) => Err(TableUnknown::NoIndex),
        // A reader of SQLite's would make a log. What no log stands beside has all that was committed.
        (Ok(None), _) if header.wal => Ok("immutable=1"),
        (Ok(Some(_)), false) => Ok("immutable=1"),
        (Ok(_), _) => Ok("readonly_shm=1"),
    }
}

fn header(file: &File) -> Result<Header, HeaderFault> {
    let mut bytes = [0; HEADER_BYTES];
    let mut read = || -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    };
    let filled = read().map_err(|why| HeaderFault::Unreadable { said: why.to_string() })?;
    Header::parse(&bytes[..filled])
}

/// Takes the lock of a reader, which lasts as long as the file is open, in the two steps in which SQLite takes it: outside WAL mode a writer
/// who waits for readers to end must not meet ever new ones, or neither gets on (seen: it slept longer from try to try, held the
/// first lock all the while, and each look of ours held the second and failed at the first).
fn begin_to_read(file: &File) -> Locking {
    let lock = |(start, length): (i64, i64), kind: i32| libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    let take = |bytes, kind| fcntl(file, FcntlArg::F_SETLK(&lock(bytes, kind))).map(drop);
    let begin = || {
        take(PENDING, libc::F_RDLCK).map_err(|why| (PENDING, why))?;
        let begun = take(SHARED, libc::F_RDLCK).map_err(|why| (SHARED, why));
        take(PENDING, libc::F_UNLCK).map_err(|why| (PENDING, why))?;
        begun
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let bytes = match begin() {
            Ok(()) => return Locking::Free,
            Err((bytes, Errno::EACCES | Errno::EAGAIN)) => bytes,
            Err((_, why)) => return Locking::Unknown { said: why.desc().to_owned() },
        };
        if Instant::now() >= until {
            let mut held = lock(bytes, libc::F_RDLCK);
            let asked = fcntl(file, FcntlArg::F_GETLK(&mut held));
            let process = asked.ok().map(|_| held.l_pid).filter(|process| *process > 0);
            return Locking::Held { process };
        }
        pause();
    }
}

/// Between two tries.
fn pause() {
    // A plain thread, or one that blocks by agreement.
    #[allow(clippy::disallowed_methods)]
    std::thread::sleep(TRY);
}

fn log(path: &Path, header: Option<Header>) -> Result<Option<Log>, String> {
    match beside(path, "-wal").metadata() {
        Ok(meta) => {
            let frame = header.map(|header| FRAME_HEAD_BYTES as u64 + u64::from(header.page_bytes.get()));
            let frames = waiting_frames(&beside(path, "-shm"));
            let waiting =
                frame.zip(frames).map(|(frame, frames)| (frame * u64::from(frames)).min(meta.len()));
            Ok(Some(Log { bytes: meta.len(), waiting }))
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why.to_string()),
    }
}

/// Frames that SQLite's index of the log counts and that are not copied back: of one moment, and read without a lock.
fn waiting_frames(index: &Path) -> Option<u32> {
    let mut bytes = [0; INDEX_BYTES];
    File::open(index).ok()?.read_exact_at(&mut bytes, 0).ok()?;
    waiting_in(&bytes)
}

/// Both copies of the head must agree, and the log have been read whole by somebody. The numbers are in this machine's byte order.
fn waiting_in(bytes: &[u8; INDEX_BYTES]) -> Option<u32> {
    let number = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let sound = bytes[..48] == bytes[48..96] && number(0)? == INDEX_VERSION && bytes[12] == 1;
    if sound { number(16)?.checked_sub(number(96)?) } else { None }
}

fn open(path: &Path, how: &str) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(path, how), flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn has_table(connection: &Connection) -> rusqlite::Result<bool> {
    let count = "select count(*) from sqlite_schema where type = 'table' and name = ?1";
    connection.query_row(count, [TABLE], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

impl TableUnknown {
    fn of(why: rusqlite::Error) -> Self {
        match why.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy) => Self::Busy,
            _ => Self::Sqlite { said: why.to_string() },
        }
    }
}

/// A path as SQLite's file name with parameters. Source: <https://www.sqlite.org/uri.html>.
fn uri(path: &Path, how: &str) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            // Into a string that grows this cannot fail.
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri.push_str("?mode=ro&");
    uri.push_str(how);
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(page: u16, write: u8, read: u8) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..18].copy_from_slice(&page.to_be_bytes());
        (bytes[18], bytes[19]) = (write, read);
        bytes
    }

    #[test]
    fn a_header_says_pages_and_mode_and_other_bytes_are_no_database() {
        for (page, size) in [(512, 512), (4096, 4096), (1, 65_536)] {
            for (version, wal) in [(1, false), (2, true)] {
                let header = Header::parse(&bytes(page, version, version)).unwrap();
                assert_eq!((header.page_bytes.get(), header.wal), (size, wal));
            }
        }
        assert_eq!(Header::parse(&[]), Err(HeaderFault::Empty));
        assert_eq!(Header::parse(b"SQLite format 3\0"), Err(HeaderFault::NoDatabase));
        assert_eq!(Header::parse(&[7; 4096]), Err(HeaderFault::NoDatabase));
        assert_eq!(Header::parse(&bytes(1000, 1, 1)), Err(HeaderFault::PageBytes { found: 1000 }));
        assert_eq!(Header::parse(&bytes(4096, 3, 1)), Err(HeaderFault::Version { found: 3 }));
        assert_eq!(Header::parse(&bytes(4096, 0, 0)), Err(HeaderFault::Version { found: 0 }));
    }

    #[test]
    fn an_index_counts_only_when_both_of_its_heads_agree() {
        let mut index = [0; INDEX_BYTES];
        for at in [0, 48] {
            index[at..at + 4].copy_from_slice(&INDEX_VERSION.to_ne_bytes());
            index[at + 12] = 1;
            index[at + 16..at + 20].copy_from_slice(&100_u32.to_ne_bytes());
        }
        index[96..].copy_from_slice(&30_u32.to_ne_bytes());
        assert_eq!(waiting_in(&index), Some(70));
        let mut torn = index;
        torn[16] = 101;
        assert_eq!(waiting_in(&torn), None);
        index[96..].copy_from_slice(&101_u32.to_ne_bytes());
        assert_eq!(waiting_in(&index), None);
        assert_eq!(waiting_in(&[0; INDEX_BYTES]), None);
    }

    #[test]
    fn a_path_becomes_a_file_name_that_keeps_every_letter() {
        assert_eq!(
            uri(Path::new("/a b/ü?x.db"), "immutable=1"),
            "file:/a%20b/%C3%BC%3Fx.db?mode=ro&immutable=1"
        );
    }
}
