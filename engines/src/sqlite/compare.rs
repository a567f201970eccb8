//! Whether two databases are the same, page by page, as SQLite reads them: from the file and its log, inside a read transaction of each.
//!
//! What always holds: nothing is written; each [`Snapshot`] is one committed state, whatever others do meanwhile; all pages are compared, those on the free list too; memory
//! is one page of each. That both stand at the same position is for the caller to see to: take the primary's snapshot, have the other brought to
//! where that stands, take the other's.
//!
//! **What may differ** between a primary and a copy at the same position:
//! - A restored file: nothing. It is made of the primary's pages as its log has them, and SQLite never opened it for writing. Pages that the log leaves out read as zeros on both
//!   sides: SQLite writes all but the one that locks lie on.
//! - A standby: the 12 bytes of the first page in which SQLite says who wrote last: the change counter (24..28), the counter that the page count is valid for (92..96) and
//!   the version of the library (96..100). SQLite sets them in each transaction that writes the first page, and counts the standby's own
//!   transactions ([`standby`](super::standby) says why that is wanted). Source: `pager_write_changecounter`, pager.c of SQLite 3.51.
//!
//! Nothing else: not the schema's cookie (40..44), nor the page count (28..32), which come with the page.
//!
//! Whoever closes a database in a process drops all locks that the process has on it: nobody else in the process may have it open.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};

use super::standby::has_page_table;

/// Pages that are named; the others are counted.
const MOST_NAMED: usize = 20;
/// How long another's lock is waited for. A reader waits only while a log is recovered.
const BUSY: Duration = Duration::from_secs(10);
/// What SQLite says of the last writer, in the first page.
const LAST_WRITER: [std::ops::Range<usize>; 2] = [24..28, 92..100];

/// What is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignoring {
    /// All is: for a restored file.
    Nothing,
    /// What SQLite says of the last writer: for a standby.
    LastWriter,
}

/// Why two databases cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// This build's SQLite was compiled without what is needed.
    #[error(
        "this build's SQLite lacks `sqlite_dbpage`: build farshore with LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB, as its .cargo/config.toml says"
    )]
    NoPageTable,
    /// One of them cannot be read. Neither was changed.
    #[error("`{}` cannot be read: {source}", .path.display())]
    Unread {
        /// Which.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
}

/// How large a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Its pages.
    pub pages: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages of {} bytes", self.pages, self.page_bytes)
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The one.
    pub one: Size,
    /// The other.
    pub other: Size,
    /// Pages that both have and that differ; none is compared where pages have not the same size.
    pub differing: u32,
    /// The first of them, by number, the first page being 1.
    pub named: Vec<u32>,
}

impl Compared {
    /// Whether they are the same.
    pub fn is_same(&self) -> bool {
        self.one == self.other && self.differing == 0
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_same() {
            return write!(f, "{}, all the same", self.one);
        }
        if self.one != self.other {
            write!(f, "one has {}, the other {}", self.one, self.other)?;
        }
        if self.differing > 0 {
            let named: Vec<String> = self.named.iter().map(u32::to_string).collect();
            let and_others = if self.named.len() < self.differing as usize { ", ..." } else { "" };
            let comma = if self.one == self.other { "" } else { "; " };
            write!(f, "{comma}{} pages differ: {}{and_others}", self.differing, named.join(", "))?;
        }
        Ok(())
    }
}

/// A database as it was when this was taken, until it is dropped. Its log is not begun anew meanwhile.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    connection: Connection,
    size: Size,
}

impl Snapshot {
    /// Of the database at a path, which others may have open.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn take(path: &Path) -> Result<Self, CompareError> {
        let unread = |source| CompareError::Unread { path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(unread)?;
        prepare(&connection).map_err(unread)?;
        if !has_page_table(&connection).map_err(unread)? {
            return Err(CompareError::NoPageTable);
        }
        let size = begin(&connection).map_err(unread)?;
        Ok(Self { path: path.to_owned(), connection, size })
    }

    /// How large it is.
    pub fn size(&self) -> Size {
        self.size
    }

    fn unread(&self, source: rusqlite::Error) -> CompareError {
        CompareError::Unread { path: self.path.clone(), source }
    }
}

/// Before anything else is asked: a schema that is damaged, or that this SQLite cannot read, is compared as pages like any other, and `writable_schema` lets it pass. Nothing can be written here.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.execute_batch("pragma trusted_schema = off; pragma writable_schema = on")
}

/// Begins the read transaction, with its first read.
fn begin(connection: &Connection) -> rusqlite::Result<Size> {
    connection.execute_batch("begin")?;
    let asked = |pragma: &str| connection.query_row(pragma, [], |row| row.get(0));
    Ok(Size { pages: asked("pragma page_count")?, page_bytes: asked("pragma page_size")? })
}

/// Compares two databases. `ignoring` is what may differ.
///
/// # Errors
/// When one of them cannot be read to its end.
pub fn compare(one: &Snapshot, other: &Snapshot, ignoring: Ignoring) -> Result<Compared, CompareError> {
    let mut found = Compared { one: one.size, other: other.size, differing: 0, named: Vec::new() };
    if one.size.page_bytes != other.size.page_bytes {
        return Ok(found);
    }
    let text = "select pgno, data from sqlite_dbpage order by pgno";
    let mut ours = one.connection.prepare(text).map_err(|why| one.unread(why))?;
    let mut theirs = other.connection.prepare(text).map_err(|why| other.unread(why))?;
    let mut ours = ours.query([]).map_err(|why| one.unread(why))?;
    let mut theirs = theirs.query([]).map_err(|why| other.unread(why))?;
    for number in 1..=one.size.pages.min(other.size.pages) {
        let held = ours.next().and_then(|row| page(row, number)).map_err(|why| one.unread(why))?;
        let others = theirs.next().and_then(|row| page(row, number)).map_err(|why| other.unread(why))?;
        if !same(number, held, others, ignoring) {
            found.differing += 1;
            if found.named.len() < MOST_NAMED {
                found.named.push(number);
            }
        }
    }
    Ok(found)
}

/// The page of this number, which is the next.
fn page<'a>(row: Option<&'a Row<'_>>, number: u32) -> rusqlite::Result<&'a [u8]> {
    let row = row.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    match row.get::<_, u32>(0)? {
        found if found == number => Ok(row.get_ref(1)?.as_blob()?),
        found => Err(rusqlite::Error::IntegralValueOutOfRange(0, i64::from(found))),
    }
}

fn same(number: u32, one: &[u8], other: &[u8], ignoring: Ignoring) -> bool {
    if number != 1 || ignoring == Ignoring::Nothing || one.len() != other.len() {
        return one == other;
    }
    let ignored = |at: usize| LAST_WRITER.iter().any(|range| range.contains(&at));
    one.iter().zip(other).enumerate().all(|(at, (one, other))| one == other || ignored(at))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A database whose log is copied back, and a copy of its file.
    fn two(folder: &Path, page_bytes: u32, rows: u32) -> (PathBuf, PathBuf) {
        let (one, other) = (folder.join("one.db"), folder.join("other.db"));
        let connection = Connection::open(&one).unwrap();
        let script = format!(
            "pragma page_size = {page_bytes}; pragma journal_mode = wal; create table t (a integer primary key, b);
             with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
             insert into t select i, randomblob({page_bytes} / 3) from n;
             delete from t where a % 5 = 0; pragma wal_checkpoint(truncate)"
        );
        connection.execute_batch(&script).unwrap();
        std::fs::copy(&one, &other).unwrap();
        (one, other)
    }

    fn compared(one: &Path, other: &Path, ignoring: Ignoring) -> Compared {
        compare(&Snapshot::take(one).unwrap(), &Snapshot::take(other).unwrap(), ignoring).unwrap()
    }

    fn flip(path: &Path, at: u64) {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    #[test]
    fn one_changed_byte_in_any_page_is_found_and_named() {
        for page_bytes in [512, 4096, 65536] {
            let folder = tempfile::tempdir().unwrap();
            let (one, other) = two(folder.path(), page_bytes, 40);
            let same = compared(&one, &other, Ignoring::Nothing);
            assert!(same.is_same() && same.one.page_bytes == page_bytes, "{same}");
            assert!(same.one.pages > 10, "{same}");
            for number in 1..=same.one.pages {
                let begin = u64::from(number - 1) * u64::from(page_bytes);
                // Of the first page: where the application's version stands, and where nothing does.
                let first = if number == 1 { 63 } else { 0 };
                for at in [begin + first, begin + 80, begin + u64::from(page_bytes) - 1] {
                    flip(&other, at);
                    for ignoring in [Ignoring::Nothing, Ignoring::LastWriter] {
                        let found = compared(&one, &other, ignoring);
                        assert_eq!((found.differing, &found.named[..]), (1, &[number][..]), "byte {at}");
                        assert!(!found.is_same());
                    }
                    flip(&other, at);
                }
            }
            assert!(compared(&one, &other, Ignoring::Nothing).is_same());
        }
    }

    #[test]
    fn twelve_bytes_of_the_first_page_may_differ_in_a_standby_and_none_in_a_restored_file() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = two(folder.path(), 512, 40);
        // Not the form of the schema and of text, by which a file cannot be read at all; the last is the schema's b-tree.
        let bytes: Vec<u64> = (24..44).chain(60..101).collect();
        for at in bytes {
            flip(&other, at);
            let of_the_last_writer = (24..28).contains(&at) || (92..100).contains(&at);
            assert_eq!(compared(&one, &other, Ignoring::Nothing).named, [1], "byte {at}");
            assert_eq!(
                compared(&one, &other, Ignoring::LastWriter).differing,
                u32::from(!of_the_last_writer),
                "byte {at}"
            );
            flip(&other, at);
        }
        // The same bytes of any other page are compared.
        flip(&other, 512 + 24);
        assert_eq!(compared(&one, &other, Ignoring::LastWriter).named, [2]);
    }

    #[test]
    fn different_sizes_are_named_and_so_are_pages_that_differ_before_the_shorter_ones_end() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = two(folder.path(), 4096, 40);
        let connection = Connection::open(&other).unwrap();
        connection.execute_batch("insert into t values (1000, zeroblob(50000))").unwrap();
        let found = compared(&one, &other, Ignoring::Nothing);
        assert!(found.other.pages > found.one.pages && found.named.contains(&1), "{found}");
        let said = found.to_string();
        assert!(said.starts_with(&format!("one has {}, the other {}; ", found.one, found.other)), "{said}");

        let second = tempfile::tempdir().unwrap();
        let (small, _) = two(second.path(), 512, 40);
        let found = compared(&one, &small, Ignoring::Nothing);
        assert_eq!((found.one.page_bytes, found.other.page_bytes, found.differing), (4096, 512, 0));
        assert!(!found.is_same());
    }

    #[test]
    fn what_is_in_the_log_counts_and_what_comes_behind_the_snapshot_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = two(folder.path(), 4096, 40);
        let connection = Connection::open(&other).unwrap();
        let before = Snapshot::take(&other).unwrap();
        connection.execute_batch("update t set b = 'another' where a = 1").unwrap();
        let primary = Snapshot::take(&one).unwrap();
        assert!(compare(&primary, &before, Ignoring::Nothing).unwrap().is_same());
        let behind = Snapshot::take(&other).unwrap();
        assert_eq!(compare(&primary, &behind, Ignoring::LastWriter).unwrap().differing, 1);
    }

    #[test]
    fn the_first_pages_that_differ_are_named_and_the_others_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = two(folder.path(), 512, 200);
        Connection::open(&other).unwrap().execute_batch("update t set b = randomblob(170)").unwrap();
        let found = compared(&one, &other, Ignoring::LastWriter);
        assert!(found.named.len() == MOST_NAMED && found.differing > 20, "{found}");
        assert!(found.to_string().ends_with(", ..."), "{found}");
    }

    #[test]
    fn a_file_that_is_no_database_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.db");
        std::fs::write(&path, [7; 4096]).unwrap();
        let why = Snapshot::take(&path).unwrap_err().to_string();
        assert!(why.contains("none.db"), "{why}");
    }
}
