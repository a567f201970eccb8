//! A copy of a database that applications read while it is kept up to date: each record, or several at once, becomes one transaction of SQLite's own.
//!
//! What always holds: nothing is written beneath SQLite. Pages go through its virtual table `sqlite_dbpage` inside one `BEGIN IMMEDIATE`, so readers
//! see the copy as it was behind a whole record and never behind an earlier one than before; a crash leaves it so too. A record counts only
//! when its foot's checksum held: what was written of it before is rolled back.
//!
//! **Where the copy stands** is told by its first page. SQLite raises the *change counter* in it (bytes 24..28, and the same in 92..96) in each transaction that writes that page, and
//! each of ours does. So of the copy's own content, committed with it, there is a number that grows by one with each of our transactions. Before
//! a transaction is committed, [`Promise`] makes durable what the copy stands for once it is: that counter, and a digest of the rest of the first page. Whoever opens the copy later finds the
//! one or the other, exactly, or else that somebody else wrote to it. `synchronous = full` keeps a transaction from being lost once the next one is promised.
//! Source: `pager_write_changecounter`, pager.c of SQLite 3.51.
//!
//! So the copy is the primary page by page, but for the 12 bytes of the first page that SQLite says of its own last writer (24..28, 92..100).
//!
//! **Others that write** are found while the copy is open by `pragma data_version`, which says of each transaction that another connection made; that is asked for with the
//! writer's lock held. Another's RESTART or TRUNCATE checkpoint cannot be told from one. While it was not open, only what changed the first page is found.
//!
//! **What `sqlite_dbpage` asks for** (`dbpageUpdate`, dbpage.c): a truncation is the last statement, since a page that is written behind it cancels it; it and the first page are
//! one statement, since another behind a first page with a new schema would have SQLite read the schema amid the transaction. SQLite's b-trees keep what they read of a page that
//! is then written past them: so all pages are let go of after each transaction. With `auto_vacuum = full`, SQLite itself would move pages at the commit where
//! the free list is not empty: so the connection is told that it is incremental before the first page, whose flags go in last, says what it is.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use farshore_journal::Offset;
use farshore_journal::format::Digest;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use serde::{Deserialize, Serialize};

use super::decoder::{Ended, Part};
use super::record::{Head, Kind};
use super::wal::PageBytes;
use super::{check, look};

/// Bytes of pages that are gathered for one transaction; a record of more is one of its own, and its pages go to SQLite as they come.
const GROUP_BYTES: u64 = 4 << 20;
/// Bytes of pages that SQLite keeps in memory: beyond, they go to its log before their transaction is over.
const CACHE_KIB: u64 = 8 << 10;
/// Bytes of log after which SQLite copies back what no reader needs, and to which the log's file is cut when it is begun anew.
const LOG_BYTES: u64 = 4 << 20;
/// How long another's lock is waited for: nobody should have one for more than an instant.
const BUSY: Duration = Duration::from_secs(10);
/// Pages that a growing database may leave out of its record: SQLite writes all, but for the one that locks lie on.
const MOST_LEFT_OUT: u32 = 4096;
/// The byte that locks lie on; its page is never written. Source: `PENDING_BYTE`.
const LOCK_BYTE: u64 = 1 << 30;

/// By what a transaction of ours is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// SQLite's change counter in the first page.
    pub counter: u32,
    /// Of the first page without what SQLite says of its last writer.
    pub first_page: Digest,
}

impl Proof {
    /// Of a first page.
    pub fn of(page: &[u8]) -> Option<Self> {
        let counter = u32::from_be_bytes(*page.get(24..)?.first_chunk()?);
        Some(Self { counter, first_page: digest(page) })
    }
}

/// What the copy stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// By what that is known.
    pub proof: Proof,
    /// The end of the last record that is in it.
    pub end: Offset,
    /// The last transaction that is in it, if one is known.
    pub transaction: Option<u64>,
    /// When that was seen, microseconds since 1970.
    pub seen_micros: Option<i64>,
    /// Its pages.
    pub pages: u32,
}

/// Keeps what the copy stands for.
pub trait Promise {
    /// Makes durable that the copy stands for either of the two: `now`, or `next` once a transaction is committed.
    ///
    /// # Errors
    /// Where it cannot be: the transaction is rolled back.
    fn promise(&mut self, now: &Standing, next: &Standing) -> io::Result<()>;
}

/// Why the copy is not kept up to date any more. It is whole, at [`Copy::standing`].
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// SQLite itself.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// This build's SQLite was compiled without what is needed.
    #[error(
        "this build's SQLite lacks `sqlite_dbpage`: build farshore with LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB, as its .cargo/config.toml says"
    )]
    NoPageTable,
    /// The copy is in another journal mode.
    #[error("the copy's journal mode is {mode}, not wal")]
    Mode {
        /// Which.
        mode: String,
    },
    /// Another connection has a lock for longer than it is waited for. Nothing was written, by nobody.
    #[error("{doing}: another process holds a lock of the copy for more than {} s", BUSY.as_secs())]
    Locked {
        /// What was being done.
        doing: &'static str,
    },
    /// Another connection wrote to it.
    #[error("somebody else wrote to the copy: {found}")]
    Written {
        /// How that shows.
        found: String,
    },
    /// A record does not fit what is in the copy.
    #[error("the record behind {end} does not continue the copy: {what}")]
    Record {
        /// Where the copy stands.
        end: Offset,
        /// What does not fit.
        what: String,
    },
    /// What the copy stands for could not be kept.
    #[error("where the copy stands cannot be kept: {0}")]
    Promise(#[source] io::Error),
}

fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> CopyError {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => CopyError::Locked { doing },
        _ => CopyError::Sqlite { doing, source },
    }
}

/// A copy, open for writing by us alone.
pub struct Copy<K> {
    connection: Connection,
    page_bytes: PageBytes,
    /// What [`connection`](Self) was told of others' transactions when it last looked.
    others: i64,
    /// What is committed.
    now: Standing,
    /// Behind the last record that was taken whole; its proof is the old one.
    ahead: Standing,
    keep: K,
    /// Pages of whole records that wait for their transaction.
    group: BTreeMap<u32, Vec<u8>>,
    group_bytes: u64,
    /// Pages of the record that is being taken.
    record: Vec<(u32, Vec<u8>)>,
    large: Option<Large>,
    failed: Option<CopyError>,
}

/// A record whose pages go to SQLite as they come.
struct Large {
    /// The first page as it is in the copy.
    before: Vec<u8>,
    /// Its image in the record.
    first: Option<Vec<u8>>,
    /// The last page that is in the copy, or was written.
    filled: u32,
}

impl<K: Promise> Copy<K> {
    /// Opens a copy that stands for one of these, and finds which.
    ///
    /// # Errors
    /// When it is none of them, or cannot be opened.
    pub fn open(path: &Path, known: &[&Standing], keep: K) -> Result<Self, CopyError> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let opening = failed("the copy cannot be opened");
        let mode: String =
            connection.query_row("pragma journal_mode", [], |row| row.get(0)).map_err(&opening)?;
        if mode != "wal" {
            return Err(CopyError::Mode { mode });
        }
        begin_immediate(&connection)?;
        let page = first_page(&connection)?;
        let others = data_version(&connection)?;
        connection.execute_batch("rollback").map_err(&opening)?;
        let found = Proof::of(&page);
        let now = known.iter().find(|standing| Some(standing.proof) == found);
        let Some(now) = now.map(|standing| (*standing).clone()) else {
            let found = found.map_or(0, |proof| proof.counter);
            let expected: Vec<String> =
                known.iter().map(|standing| standing.proof.counter.to_string()).collect();
            return Err(CopyError::Written {
                found: format!(
                    "its first page (change counter {found}) is none that a transaction of the standby's left (change counter {})",
                    expected.join(" or ")
                ),
            });
        };
        let page_bytes = u32::try_from(page.len()).ok().and_then(PageBytes::new);
        let Some(page_bytes) = page_bytes else {
            return Err(CopyError::Record { end: now.end, what: "its page size is none".to_owned() });
        };
        let checkpoint = LOG_BYTES / u64::from(page_bytes.get());
        let settings =
            format!("pragma wal_autocheckpoint = {checkpoint}; pragma journal_size_limit = {LOG_BYTES};");
        connection.execute_batch(&settings).map_err(&opening)?;
        Ok(Self {
            connection,
            page_bytes,
            others,
            ahead: now.clone(),
            now,
            keep,
            group: BTreeMap::new(),
            group_bytes: 0,
            record: Vec::new(),
            large: None,
            failed: None,
        })
    }

    /// What is committed, and what keeps it.
    pub fn standing(&self) -> &Standing {
        &self.now
    }

    /// Takes what a decoder gives, in order from the end of what the copy stands for. What fails is said by [`result`](Self::result).
    pub fn take(&mut self, part: Part<'_>) {
        if self.failed.is_none()
            && let Err(why) = self.accept(part)
        {
            self.undo();
            self.failed = Some(why);
        }
    }

    /// What failed; after that nothing is taken any more.
    ///
    /// # Errors
    /// As [`CopyError`] says.
    pub fn result(&mut self) -> Result<(), CopyError> {
        self.failed.take().map_or(Ok(()), |why| {
            self.failed = Some(CopyError::Record { end: self.now.end, what: "it failed before".to_owned() });
            Err(why)
        })
    }

    /// Commits all whole records that were taken: nothing more is at hand. A record that is amid its pages is left alone.
    ///
    /// # Errors
    /// As [`CopyError`] says; what was not committed is rolled back.
    pub fn flush(&mut self) -> Result<(), CopyError> {
        self.result()?;
        if self.large.is_none() {
            let done = self.commit_group();
            self.settle(done)?;
        }
        Ok(())
    }

    /// Commits what is whole, rolls back what is not, and closes the copy. What it stands for, and what keeps that.
    ///
    /// # Errors
    /// As [`CopyError`] says. The copy is closed all the same.
    pub fn close(mut self) -> (Standing, K, Result<(), CopyError>) {
        // What is amid its pages is not in the group.
        self.undo();
        let mut done = self.result();
        if done.is_ok() {
            done = self.commit_group();
        }
        if done.is_err() {
            self.undo();
        }
        drop(self.connection);
        (self.now, self.keep, done)
    }

    fn settle(&mut self, done: Result<(), CopyError>) -> Result<(), CopyError> {
        if done.is_err() {
            self.undo();
            self.failed =
                Some(CopyError::Record { end: self.now.end, what: "a transaction failed before".to_owned() });
        }
        done
    }

    /// Rolls back what was begun, if anything was.
    fn undo(&mut self) {
        self.large = None;
        if !self.connection.is_autocommit() {
            // What it would say is that there was nothing to undo, or SQLite does it when the connection closes.
            let _ = self.connection.execute_batch("rollback");
        }
    }

    fn accept(&mut self, part: Part<'_>) -> Result<(), CopyError> {
        match part {
            Part::Begin(head) => self.begin_record(head),
            Part::Page { number, image } => self.page(number, image),
            Part::End(ended) => self.end_record(ended),
        }
    }

    fn wrong(&self, what: String) -> CopyError {
        CopyError::Record { end: self.ahead.end, what }
    }

    fn begin_record(&mut self, head: &Head) -> Result<(), CopyError> {
        if head.page_bytes != self.page_bytes {
            let (copy, record) = (self.page_bytes.get(), head.page_bytes.get());
            return Err(self.wrong(format!("its pages have {record} bytes, the copy's {copy}")));
        }
        if let Some(before) = self.ahead.transaction {
            let wanted = match head.kind {
                Kind::Transaction => before.checked_add(1),
                Kind::Point => Some(before),
            };
            if wanted != Some(head.number) {
                return Err(
                    self.wrong(format!("it is transaction {}, behind transaction {before}", head.number))
                );
            }
        }
        self.record.clear();
        if head.kind == Kind::Transaction && head.bytes > GROUP_BYTES {
            self.commit_group()?;
            let before = self.begin()?;
            self.large = Some(Large { before, first: None, filled: self.now.pages });
        }
        Ok(())
    }

    fn page(&mut self, number: u32, image: &[u8]) -> Result<(), CopyError> {
        match &mut self.large {
            None => self.record.push((number, image.to_vec())),
            Some(large) if number == 1 => large.first = Some(image.to_vec()),
            Some(large) => {
                let filled = large.filled;
                large.filled = filled.max(number);
                self.fill(filled, number.saturating_sub(1))?;
                self.write(number, image)?;
            }
        }
        Ok(())
    }

    fn end_record(&mut self, ended: &Ended) -> Result<(), CopyError> {
        self.ahead.end = ended.end;
        self.ahead.transaction = Some(ended.head.number);
        if ended.head.kind == Kind::Point {
            return Ok(());
        }
        let (pages, before) = (ended.head.database_pages, self.ahead.pages);
        self.ahead.seen_micros = Some(ended.seen_micros);
        self.ahead.pages = pages;
        if let Some(large) = self.large.take() {
            self.fill(large.filled, pages)?;
            return self.commit(large.first.unwrap_or(large.before));
        }
        for (number, image) in self.record.drain(..) {
            self.group_bytes += image.len() as u64;
            self.group.insert(number, image);
        }
        if pages < before {
            self.group.split_off(&pages.saturating_add(1));
        }
        // What lies behind a database's end is nothing: pages that come back there later begin as zeros.
        match pages < before || self.group_bytes >= GROUP_BYTES {
            true => self.commit_group(),
            false => Ok(()),
        }
    }

    /// Commits the whole records that wait.
    fn commit_group(&mut self) -> Result<(), CopyError> {
        if self.ahead.transaction == self.now.transaction && self.group.is_empty() {
            // Points at most: they are in no page.
            self.now.end = self.ahead.end;
            return Ok(());
        }
        let before = self.begin()?;
        let group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        let (mut first, mut filled) = (None, self.now.pages);
        for (number, image) in group {
            if number == 1 {
                first = Some(image);
                continue;
            }
            self.fill(filled, number.saturating_sub(1))?;
            self.write(number, &image)?;
            filled = filled.max(number);
        }
        self.fill(filled, self.ahead.pages)?;
        self.commit(first.unwrap_or(before))
    }

    /// Begins a transaction on the copy as it was left; its first page.
    fn begin(&mut self) -> Result<Vec<u8>, CopyError> {
        begin_immediate(&self.connection)?;
        let others = data_version(&self.connection)?;
        let page = first_page(&self.connection)?;
        if others != self.others {
            return Err(CopyError::Written {
                found: "SQLite counts a transaction, or a restart of its log, that was not the standby's"
                    .to_owned(),
            });
        }
        if Proof::of(&page) != Some(self.now.proof) {
            return Err(CopyError::Written {
                found: format!(
                    "its first page is not the one that the standby's last transaction left (change counter {})",
                    self.now.proof.counter
                ),
            });
        }
        if is_full_auto_vacuum(&page) {
            let told = self.connection.execute_batch("pragma auto_vacuum = 2");
            told.map_err(failed("auto_vacuum cannot be held off"))?;
        }
        Ok(page)
    }

    /// Commits, with the first page and the file's length last.
    fn commit(&mut self, first: Vec<u8>) -> Result<(), CopyError> {
        let counter = self.now.proof.counter.wrapping_add(1);
        let proof = Proof { counter, first_page: digest(&first) };
        let next = Standing { proof, ..self.ahead.clone() };
        self.keep.promise(&self.now, &next).map_err(CopyError::Promise)?;
        let writing = failed("a transaction cannot be written to the copy");
        let shrinks = next.pages < self.now.pages;
        let behind = i64::from(next.pages) + 1;
        let written = match shrinks {
            true => {
                let text = "insert into sqlite_dbpage (pgno, data) values (1, ?1), (?2, null)";
                self.connection.prepare_cached(text).and_then(|mut all| all.execute(params![first, behind]))
            }
            false => {
                let text = "insert into sqlite_dbpage (pgno, data) values (1, ?1)";
                self.connection.prepare_cached(text).and_then(|mut all| all.execute(params![first]))
            }
        };
        written.map_err(&writing)?;
        self.connection.execute_batch("commit").map_err(&writing)?;
        self.now = next.clone();
        self.ahead = next;
        // SQLite's b-trees must not go by what they read of pages that were written past them, nor its pager by an old counter.
        self.connection.execute_batch("pragma shrink_memory").map_err(failed("memory cannot be let go of"))
    }

    fn write(&self, number: u32, image: &[u8]) -> Result<(), CopyError> {
        let text = "insert into sqlite_dbpage (pgno, data) values (?1, ?2)";
        let written =
            self.connection.prepare_cached(text).and_then(|mut one| one.execute(params![number, image]));
        written.map(drop).map_err(failed("a page cannot be written to the copy"))
    }

    /// Writes zeros to the pages behind `filled` up to `to`, which no record holds.
    fn fill(&self, filled: u32, to: u32) -> Result<(), CopyError> {
        let lock_page = u32::try_from(LOCK_BYTE / u64::from(self.page_bytes.get()) + 1).unwrap_or(0);
        if to.saturating_sub(filled) > MOST_LEFT_OUT {
            return Err(
                self.wrong(format!("it leaves out more than {MOST_LEFT_OUT} of the pages that it adds"))
            );
        }
        let zeros = vec![0; self.page_bytes.as_usize()];
        (filled.saturating_add(1)..=to)
            .filter(|number| *number != lock_page)
            .try_for_each(|number| self.write(number, &zeros))
    }
}

/// The proof of what a copy stands for now, while it may be written to. Nothing is written to the copy or its log, and no log is copied back. Where there is a log, its index
/// (`-shm`) is made if it is missing.
///
/// # Errors
/// When it cannot be read.
pub fn proof(path: &Path) -> Result<Option<Proof>, CopyError> {
    let has_log = std::fs::metadata(look::beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    // Without a log all is in the file; a reader would make an empty one, and leave it.
    let how = if has_log { "?mode=ro" } else { "?mode=ro&immutable=1" };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = connect(check::uri(path, how), flags)?;
    let told = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    told.map_err(failed("the copy cannot be opened"))?;
    Ok(Proof::of(&first_page(&connection)?))
}

fn connect(path: impl AsRef<Path>, how: OpenFlags) -> Result<Connection, CopyError> {
    let opening = failed("the copy cannot be opened");
    let connection =
        Connection::open_with_flags(path, how | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(&opening)?;
    if !has_page_table(&connection).map_err(&opening)? {
        return Err(CopyError::NoPageTable);
    }
    connection.busy_timeout(BUSY).map_err(&opening)?;
    // A schema that this SQLite cannot read, or that asks for functions of the application's own, is none of the standby's business:
    // it asks for pages only. `writable_schema` lets it pass.
    let settings = format!(
        "pragma synchronous = full; pragma cache_size = -{CACHE_KIB}; pragma trusted_schema = off; pragma writable_schema = on;"
    );
    connection.execute_batch(&settings).map_err(&opening)?;
    Ok(connection)
}

/// Whether this build's SQLite has `sqlite_dbpage`.
pub(super) fn has_page_table(connection: &Connection) -> rusqlite::Result<bool> {
    let asked = "select count(*) from pragma_compile_options where compile_options = 'ENABLE_DBPAGE_VTAB'";
    connection.query_row(asked, [], |row| row.get::<_, i64>(0)).map(|has| has > 0)
}

fn begin_immediate(connection: &Connection) -> Result<(), CopyError> {
    connection.execute_batch("begin immediate").map_err(failed("a transaction of the copy cannot begin"))
}

fn first_page(connection: &Connection) -> Result<Vec<u8>, CopyError> {
    let text = "select data from sqlite_dbpage where pgno = 1";
    let read = connection.prepare_cached(text).and_then(|mut one| one.query_row([], |row| row.get(0)));
    read.map_err(failed("the copy's first page cannot be read"))
}

/// Changes when another connection commits. Source: <https://www.sqlite.org/pragma.html#pragma_data_version>.
fn data_version(connection: &Connection) -> Result<i64, CopyError> {
    let read = connection.query_row("pragma data_version", [], |row| row.get(0));
    read.map_err(failed("the copy does not say whether others wrote to it"))
}

/// Of a first page without what SQLite writes into it by itself: the change counter, the counter for which that is valid, and its own version.
fn digest(page: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (at, byte) in page.chunks(4).enumerate() {
        // Bytes 24..28 and 92..100.
        if !matches!(at, 6 | 23 | 24) {
            hasher.update(byte);
        }
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// Whether the first page says so: the largest root page stands at 52, whether it is incremental at 64. Source: <https://www.sqlite.org/fileformat.html>.
fn is_full_auto_vacuum(page: &[u8]) -> bool {
    let says = |at: usize| page.get(at..at + 4).is_some_and(|bytes| bytes != [0; 4]);
    says(52) && !says(64)
}
