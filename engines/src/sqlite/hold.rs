//! The connections of ours to a live database, and the read transaction that keeps its log from being begun anew.
//!
//! What always holds: while a read of ours is *held* it is on a slot above zero, so nobody can begin the log anew over frames that
//! were not taken; writers are held only in [`Connections::with_writers_held`], in [`Connections::with_writers_braked`] and in [`Turn::before`], and until our row is written. A crash here leaves at most one row of ours, in a table of our own.
//! Source: `walTryBeginRead`, `walRestartLog`, `sqlite3WalCheckpoint`, wal.c of SQLite 3.51.
//!
//! **Descriptors.** POSIX takes all of a process's locks on a file when *any* descriptor of it is closed. So in a process that has a
//! [`Connections`], nobody else may open the database or its `-shm`, and these connections are the only ones. The `-wal` has no locks.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::look::beside;
use super::wal_file::FileId;

/// The table that is added to the database: one row, written whenever our read begins anew.
pub const TABLE: &str = "_farshore_hold";
/// After how long a writer's lock is tried for again. SQLite's own waiting sleeps ever longer, up to a tenth of a second, and comes
/// too late for ever where writers follow one another closely.
const LOOKS: Duration = Duration::from_micros(500);
/// How long it is tried for all the time before.
const SOON: Duration = Duration::from_millis(10);
/// Bytes that the log's file keeps when it is begun anew.
const LOG_FILE_BYTES: u64 = 16 << 20;
/// How long it is waited for that SQLite says how far it counts.
const COUNTING: Duration = Duration::from_secs(2);
/// How long other statements of ours wait.
const BUSY: Duration = Duration::from_secs(30);

/// Something of SQLite's failed, or is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// SQLite itself.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// Its file.
    #[error("it cannot be read: {0}")]
    File(#[source] io::Error),
    /// Another journal mode, in which there is no log to follow.
    #[error(
        "its journal mode is {mode}; farshore follows databases in WAL mode only (`pragma journal_mode = wal`)"
    )]
    Mode {
        /// Which.
        mode: String,
    },
    /// SQLite did not say how far it counts its log, for as long as it was asked.
    #[error("its log is busy: SQLite does not say how far it counts it")]
    NotCounted,
    /// Another file is where it was.
    #[error("another file is in its place, or none")]
    Replaced,
}

impl HoldError {
    /// Whether somebody else merely held a lock for too long.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. }
            if source.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
    }
}

fn failed(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> HoldError {
    move |source| HoldError::Sqlite { doing, source }
}

/// How far SQLite counts its log, and how much of that is copied back into the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Frames in the log.
    pub frames: u32,
    /// Of them copied back.
    pub copied: u32,
}

/// What a row of ours has in it: bytes that no other transaction has.
pub type Beat = [u8; 16];

/// What is done in the course of [`Connections::hold`].
pub trait Turn {
    /// What holding comes to.
    type Held;
    /// What may fail.
    type Error: From<HoldError>;

    /// With writers held, before our row is written: what there is now is all that there is. Whether to go on.
    ///
    /// # Errors
    /// Gives writers free, as `false` does.
    fn before(&mut self) -> Result<bool, Self::Error>;

    /// While it is held: the row with this beat is written, and writers are free.
    fn held(&mut self, beat: Beat) -> Self::Held;
}

/// A second read that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge {
    at: usize,
    /// It stands behind this frame or before it.
    pub frames: u32,
    /// It stands behind this frame.
    pub exact: bool,
}

/// The connections. See the module's head for what always holds.
#[derive(Debug)]
pub struct Connections {
    /// Holds, by a statement that stays open.
    row: Connection,
    /// Hold meanwhile, in turn, by a transaction that reads.
    bridges: [Connection; 2],
    /// Holds writers while a read is held: the connection that reads cannot any more once anyone has committed.
    brake: Connection,
    /// Asks and copies back; never in a transaction.
    probe: Connection,
    path: PathBuf,
    /// For copies. Opened before the others, and closed behind them: see the module's head.
    file: Arc<File>,
    /// Whether writers are held.
    holds_writers: Arc<AtomicBool>,
}

impl Connections {
    /// Opens a database that is there and is in WAL mode. Writes nothing: a row would begin a log anew that was copied back, and
    /// with it destroy the proof that it is the one that was followed.
    ///
    /// # Errors
    /// [`HoldError`] says what is not so.
    pub fn open(path: &Path) -> Result<Self, HoldError> {
        let open = || -> Result<Connection, rusqlite::Error> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            // Ours alone: other connections keep their own.
            connection.execute_batch("pragma wal_autocheckpoint = 0; pragma synchronous = normal;")?;
            Ok(connection)
        };
        let opened = || open().map_err(failed("it cannot be opened"));
        // SQLite has the log beside the file itself, not beside a link to it.
        let path = &path.canonicalize().map_err(HoldError::File)?;
        let file = Arc::new(File::open(path).map_err(HoldError::File)?);
        let bridges = [opened()?, opened()?];
        let holds_writers = Arc::default();
        let (row, brake, probe) = (opened()?, opened()?, opened()?);
        let connections = Self { row, bridges, brake, probe, path: path.to_owned(), file, holds_writers };
        for connection in [&connections.row, &connections.brake] {
            connection.busy_timeout(Duration::ZERO).map_err(failed("its patience cannot be set"))?;
        }
        // Its row begins the log anew, so it is ours to give back what one large transaction, or a store that was away, made of the file.
        let give_back = format!("pragma journal_size_limit = {LOG_FILE_BYTES}");
        connections.row.execute_batch(&give_back).map_err(failed("its log's size cannot be bounded"))?;
        connections.check_in_place()?;
        let mode = connections.mode()?;
        if mode != "wal" {
            return Err(HoldError::Mode { mode });
        }
        Ok(connections)
    }

    /// Its journal mode now.
    ///
    /// # Errors
    /// When it does not say.
    pub fn mode(&self) -> Result<String, HoldError> {
        let mode = self.probe.query_row("pragma journal_mode", [], |row| row.get(0));
        mode.map_err(failed("its journal mode cannot be asked"))
    }

    /// The database's file, to be copied. It must not be opened a second time, and what this gives must be let
    /// go of before anybody opens connections anew in this process.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Whether writers are held by us, for whoever watches that they are not held for long.
    pub fn holds_writers(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.holds_writers)
    }

    /// That its path still leads to the file that is open.
    ///
    /// # Errors
    /// [`HoldError::Replaced`] when it does not.
    pub fn check_in_place(&self) -> Result<(), HoldError> {
        let open = FileId::of(&self.file).map_err(HoldError::File)?;
        match FileId::at(&self.path).map_err(HoldError::File)? {
            Some(there) if there == open => Ok(()),
            _ => Err(HoldError::Replaced),
        }
    }

    /// Where its log is.
    pub fn wal_path(&self) -> PathBuf {
        beside(&self.path, "-wal")
    }

    /// How far SQLite counts its log. Waits for nobody but a writer that is just at counting.
    ///
    /// # Errors
    /// When it does not say; when the database is no longer in WAL mode.
    pub fn counted(&self) -> Result<Counted, HoldError> {
        let until = Instant::now() + COUNTING;
        loop {
            match self.checkpoint("pragma wal_checkpoint(noop)", "its log cannot be asked")? {
                Some(counted) => return Ok(counted),
                // A commit was being counted at that very instant: seen about seven times in a million beside a busy writer.
                None if Instant::now() < until => pause(),
                None => {
                    let mode = self.mode()?;
                    return Err(match mode.as_str() {
                        "wal" => HoldError::NotCounted,
                        _ => HoldError::Mode { mode },
                    });
                }
            }
        }
    }

    /// The same, once it counts more than `frames`, for which it waits for so long.
    ///
    /// # Errors
    /// As [`counted`](Self::counted).
    pub fn counted_behind(&self, frames: u32, patience: Duration) -> Result<Counted, HoldError> {
        let until = Instant::now() + patience;
        loop {
            let counted = self.counted()?;
            if counted.frames > frames || Instant::now() >= until {
                return Ok(counted);
            }
            pause();
        }
    }

    /// Copies back as much of the log as no reader needs, without waiting for anybody. `None` when another process is at that.
    ///
    /// # Errors
    /// When that fails.
    pub fn copy_back(&self) -> Result<Option<Counted>, HoldError> {
        self.checkpoint("pragma wal_checkpoint(passive)", "its log cannot be copied back")
    }

    /// The same, and waits for so long for another process that is at that.
    ///
    /// # Errors
    /// When that fails.
    pub fn copy_back_within(&self, patience: Duration) -> Result<Option<Counted>, HoldError> {
        let until = Instant::now() + patience;
        loop {
            match self.copy_back()? {
                None if Instant::now() < until => pause(),
                copied => return Ok(copied),
            }
        }
    }

    /// `None` when it was busy, in the words of the row that SQLite answers with.
    fn checkpoint(&self, pragma: &str, doing: &'static str) -> Result<Option<Counted>, HoldError> {
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(i64, i64, i64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        };
        let (busy, frames, copied) = self.probe.query_row(pragma, [], read).map_err(failed(doing))?;
        Ok(match (busy, u32::try_from(frames), u32::try_from(copied)) {
            (0, Ok(frames), Ok(copied)) => Some(Counted { frames, copied }),
            _ => None,
        })
    }

    /// Runs `held` with all writers held, and gives them free again with nothing written.
    ///
    /// # Errors
    /// When they cannot be held in so much time.
    pub fn with_writers_held<T>(&self, patience: Duration, held: impl FnOnce() -> T) -> Result<T, HoldError> {
        self.while_held_by(&self.row, patience, held)
    }

    /// The same while a read is held by [`hold`](Self::hold).
    ///
    /// # Errors
    /// When they cannot be held in so much time.
    pub fn with_writers_braked<T>(
        &self,
        patience: Duration,
        held: impl FnOnce() -> T,
    ) -> Result<T, HoldError> {
        self.while_held_by(&self.brake, patience, held)
    }

    fn while_held_by<T>(
        &self,
        connection: &Connection,
        patience: Duration,
        held: impl FnOnce() -> T,
    ) -> Result<T, HoldError> {
        self.hold_writers(connection, patience)?;
        let result = held();
        self.free_writers(connection)?;
        Ok(result)
    }

    fn hold_writers(&self, connection: &Connection, patience: Duration) -> Result<(), HoldError> {
        let (begun, until) = (Instant::now(), Instant::now() + patience);
        loop {
            match connection.execute_batch("begin immediate").map_err(failed("its writers cannot be held")) {
                // As a rule it is a moment, in which what is left grows, and between two transactions there is hardly any.
                Err(why) if why.is_busy() && begun.elapsed() < SOON => std::thread::yield_now(),
                Err(why) if why.is_busy() && Instant::now() < until => pause(),
                other => {
                    self.holds_writers.store(other.is_ok(), Ordering::Relaxed);
                    return other;
                }
            }
        }
    }

    fn free_writers(&self, connection: &Connection) -> Result<(), HoldError> {
        let freed = connection.execute_batch("rollback");
        self.holds_writers.store(false, Ordering::Relaxed);
        freed.map_err(failed("a transaction of ours cannot be undone"))
    }

    /// Begins to hold with a row that has `beat` in it, and does so for as long as [`Turn::held`] runs. `None`: the turn did not want it,
    /// and nothing was written.
    ///
    /// The read is begun before our row and lasts behind it: it is on a slot above zero, also when the row is the first of a log
    /// begun anew.
    ///
    /// # Errors
    /// When SQLite does not do it; nothing is held then.
    pub fn hold<T: Turn>(
        &self,
        patience: Duration,
        beat: Beat,
        turn: &mut T,
    ) -> Result<Option<T::Held>, T::Error> {
        self.hold_writers(&self.row, patience)?;
        match turn.before() {
            Ok(true) => {}
            Ok(false) => {
                self.free_writers(&self.row)?;
                return Ok(None);
            }
            Err(why) => {
                self.free_writers(&self.row)?;
                return Err(why);
            }
        }
        let result = self.row_and_read(beat, || turn.held(beat));
        if result.is_err() {
            // Ends the transaction, if it is not over: without one this fails, and says nothing new.
            let _ = self.free_writers(&self.row);
        }
        Ok(Some(result?))
    }

    fn row_and_read<T>(&self, beat: Beat, held: impl FnOnce() -> T) -> Result<T, HoldError> {
        let reading = "its table of farshore's cannot be read";
        let writing = "a row of farshore's cannot be written";
        let make = format!(
            "create table if not exists {TABLE} (one integer primary key check (one = 1), beat blob not null)"
        );
        self.row.execute_batch(&make).map_err(failed("its table of farshore's cannot be made"))?;
        // Never over after its first row, so it stays open, and with it the read.
        let mut statement = self
            .row
            .prepare(&format!("select 1 from {TABLE} union all select 2 union all select 3"))
            .map_err(failed(reading))?;
        let mut rows = statement.query([]).map_err(failed(reading))?;
        rows.next().map_err(failed(reading))?;
        let write = format!("insert or replace into {TABLE} (one, beat) values (1, ?1)");
        self.row.execute(&write, [&beat[..]]).map_err(failed(writing))?;
        self.row.execute_batch("commit").map_err(failed(writing))?;
        self.holds_writers.store(false, Ordering::Relaxed);
        let result = held();
        drop(rows);
        Ok(result)
    }

    /// Begins a second read that is held, while another is: the other may end then. `None`, and nothing was begun, when
    /// the log is all copied back. `beside` is the bridge that holds, if one does.
    ///
    /// While not all is copied back, a read is on a slot above zero, wherever writers have come to meanwhile.
    ///
    /// # Errors
    /// When SQLite does not do it.
    pub fn bridge(&self, beside: Option<Bridge>) -> Result<Option<Bridge>, HoldError> {
        let at = beside.map_or(0, |bridge| 1 - bridge.at);
        let reading = "a second read cannot begin";
        let before = self.counted()?;
        if before.copied >= before.frames {
            // The read would take slot zero, which holds nothing.
            return Ok(None);
        }
        self.bridges[at].execute_batch("begin").map_err(failed(reading))?;
        let read = self.bridges[at].query_row("select count(*) from sqlite_schema", [], |row| row.get(0));
        let read: Result<i64, _> = read.map_err(failed(reading));
        match read.and_then(|_| self.counted()) {
            // All copied back meanwhile: it may have taken slot zero.
            Ok(after) if after.copied < after.frames => {
                Ok(Some(Bridge { at, frames: after.frames, exact: after.frames == before.frames }))
            }
            other => {
                self.bridges[at].execute_batch("rollback").map_err(failed("a second read cannot end"))?;
                other.map(|_| None)
            }
        }
    }

    /// Ends a second read.
    ///
    /// # Errors
    /// When SQLite does not do it.
    pub fn end_bridge(&self, bridge: Bridge) -> Result<(), HoldError> {
        self.bridges[bridge.at].execute_batch("rollback").map_err(failed("a second read cannot end"))
    }
}

/// Between two tries.
fn pause() {
    // A plain thread of a process that does nothing else.
    #[allow(clippy::disallowed_methods)]
    std::thread::sleep(LOOKS);
}
