//! A standby copy of a SQLite database: restored once, then kept up to date from the store for as long as it is asked, while applications read it.
//!
//! What always holds: the copy stands behind a whole record at every moment, and never behind an earlier one than before; where it stands is found from the copy itself
//! (`farshore_engines::sqlite::standby` says how). Chunks are taken as readers take them, in order, their chain checked. Behind a gap, or where a new incarnation began,
//! nothing is guessed: following ends, and says so. One process at a time has the directory.
//!
//! ```text
//! store ─▶ fetch (chunks in order) ─▶ a few pieces wait ─▶ write (decode, promise, commit) ─▶ the copy
//! ```
//! Memory is bounded by what is fetched ahead, the pieces that wait, and one transaction's pages; a larger record's go to SQLite as they come.

mod state;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farshore_engines::log::Shape;
use farshore_engines::sqlite::backup;
use farshore_engines::sqlite::check::{CheckError, Checked, check_in_use};
use farshore_engines::sqlite::decoder::{RecordDecoder, RecordError};
use farshore_engines::sqlite::standby::{Copy, CopyError, Proof, Standing, proof};
use farshore_journal::format::{Header, Kind};
use farshore_journal::reader::follows;
use farshore_journal::registry::Repository;

use farshore_journal::store::Retry;
use farshore_journal::{IncarnationId, JournalError, Offset, Sequence};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ahead::{Ahead, Fetched, Frames};
use crate::restore::{self, Alone, RestoreError};
use crate::source::Source;
use state::Keeper;
pub use state::{Role, STATE, State};

/// Pieces of log that wait for the copy.
const WAITING: usize = 4;
/// How long whole records wait at most for others to be committed with them, while more come.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// How often the journal's end is looked for by listing, which finds what a look at the next number alone does not: numbers that were merged, or lost.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// How often it is asked whether another incarnation began.
const INCARNATIONS_EVERY: Duration = Duration::from_secs(5);
/// How often what should not be is looked at anew before it is believed: a look amid an append may see one.
const LOOKS: u32 = 3;
/// The longest that a store that does not answer is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a standby does not go on.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// Another process has the directory.
    #[error("another process has `{}`", .directory.display())]
    Busy {
        /// Which.
        directory: PathBuf,
    },
    /// The directory holds no standby, and something else.
    #[error("`{}` holds a restored copy that is none of a standby's, or was used since: a standby begins in an empty directory", .directory.display())]
    Other {
        /// Which.
        directory: PathBuf,
    },
    /// The directory holds no standby.
    #[error("`{}` holds no standby", .directory.display())]
    None {
        /// Which.
        directory: PathBuf,
    },
    /// The copy was promoted.
    #[error("the copy in `{}` was promoted: it is a database of its own", .directory.display())]
    Promoted {
        /// Which.
        directory: PathBuf,
    },
    /// The standby is of another journal.
    #[error("the standby in `{}` is of {what}", .directory.display())]
    OfAnother {
        /// Which.
        directory: PathBuf,
        /// Of what.
        what: String,
    },
    /// What is said of the standby in its directory.
    #[error("what `{}` says of the standby cannot be read or kept: {source}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The store, or an object in it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Records that are none.
    #[error("the journal is damaged: {0}")]
    Damaged(#[from] RecordError),
    /// Log is missing.
    #[error("the journal has a gap behind {at}{}", .end.map_or_else(String::new, |end| format!(", up to {end}")))]
    Gap {
        /// Its first byte.
        at: Offset,
        /// The first byte behind it.
        end: Option<Offset>,
    },
    /// The journal ends before the copy.
    #[error("the journal ends at {end}, before the copy: its end was cut off, or it is another")]
    Cut {
        /// Where it ends.
        end: Offset,
    },
    /// The database began anew.
    #[error("incarnation {number} ({incarnation}) of the database began: this one goes no further")]
    Anew {
        /// Its number.
        number: u64,
        /// Its id.
        incarnation: IncarnationId,
    },
    /// The copy is no whole database.
    #[error("the copy is no whole database: {0}")]
    Unsound(#[from] CheckError),
    /// The database is no file.
    #[error("a standby is built for SQLite databases only")]
    Engine,
    /// A worker ended without a result.
    #[error("the standby was cut off")]
    CutOff,
}

/// A standby's directory, which nobody else has.
#[derive(Debug)]
pub struct Standby {
    directory: PathBuf,
    state: State,
    _alone: Alone,
}

/// What a directory holds.
#[derive(Debug)]
pub enum Found {
    /// A standby of this journal.
    Standby(Box<Standby>),
    /// Nothing that is complete: a restore may be run there.
    Nothing,
}

fn kept(directory: &Path) -> impl Fn(std::io::Error) -> StandbyError {
    let path = directory.join(STATE);
    move |source| StandbyError::State { path: path.clone(), source }
}

/// Takes a directory; it must not be taken by a restore, or another standby.
fn take(directory: &Path) -> Result<Alone, StandbyError> {
    restore::lock(directory).map_err(|why| match why {
        RestoreError::Busy { directory } => StandbyError::Busy { directory },
        RestoreError::Io { source, .. } => kept(directory)(source),
        other => kept(directory)(std::io::Error::other(other)),
    })
}

impl Standby {
    /// What a directory holds of a standby of this journal. A copy that was restored there to the journal's latest state, and that nobody changed since, is one: with
    /// that a standby begins.
    ///
    /// # Errors
    /// When there is something else, or another process has it.
    pub fn find(directory: &Path, source: &Source) -> Result<Found, StandbyError> {
        let Shape::Sqlite { .. } = source.shape() else { return Err(StandbyError::Engine) };
        let alone = take(directory)?;
        let (directory, record) = (directory.to_owned(), source.record());
        if let Some(state) = State::read(&directory).map_err(kept(&directory))? {
            let what = if state.database != record.database {
                Some(format!("database {}", state.database))
            } else if state.incarnation != record.incarnation {
                Some(format!("incarnation {}", state.incarnation))
            } else {
                (state.store != source.reader().store_id()).then(|| format!("the store {}", state.store))
            };
            return match (state.role, what) {
                (Role::Promoted, _) => Err(StandbyError::Promoted { directory }),
                (Role::Standby, Some(what)) => Err(StandbyError::OfAnother { directory, what }),
                (Role::Standby, None) => {
                    Ok(Found::Standby(Box::new(Self { directory, state, _alone: alone })))
                }
            };
        }
        let marker =
            restore::marker(&directory).map_err(|why| kept(&directory)(std::io::Error::other(why)))?;
        match marker {
            Some(marker) if marker.state == restore::State::Complete => {
                let state = adopted(&directory, source, &marker)?;
                state.write(&directory).map_err(kept(&directory))?;
                Ok(Found::Standby(Box::new(Self { directory, state, _alone: alone })))
            }
            _ => Ok(Found::Nothing),
        }
    }

    /// What is written of where it stands; the copy itself has the last word.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Keeps the copy up to date until it is `cancelled`; where it stands then, and why it does not go on if it was not. `every` is how long is waited
    /// between two looks for the next chunk. The copy is whole in any case.
    ///
    /// # Errors
    /// When the copy cannot be opened as the one that was left. Nothing was done then.
    ///
    /// # Cancel safety
    /// None: dropped midway, a transaction goes on in its thread.
    pub async fn follow(
        self,
        source: &Source,
        every: Duration,
        cancelled: &CancellationToken,
    ) -> Result<(Standing, Result<(), StandbyError>), StandbyError> {
        let Self { directory, state, _alone: alone } = self;
        let path = directory.join(&state.file);
        let opened = tokio::task::spawn_blocking(move || {
            let known = state.clone();
            let copy = Copy::open(&path, &known.known(), Keeper { directory, state });
            // Held until nobody writes any more.
            copy.map(|copy| (copy, alone))
        });
        let (copy, alone) = opened.await.map_err(|_| StandbyError::CutOff)??;
        let from = copy.standing().clone();
        tracing::info!(position = %from.end, transaction = from.transaction, "the standby goes on from here");
        let (orders, taken) = mpsc::channel(WAITING);
        let write = tokio::task::spawn_blocking(move || (write(copy, taken), alone));
        let mut fetch = Fetch::new(source, from.end, every, cancelled, orders);
        let fetched = Box::pin(fetch.run()).await;
        drop(fetch);
        let ((standing, written), _alone) = write.await.map_err(|_| StandbyError::CutOff)?;
        // Who writes knows better why it ended: the other merely found it gone.
        Ok((standing, written.and(fetched)))
    }
}

/// The state of a copy that was just restored.
fn adopted(directory: &Path, source: &Source, marker: &restore::Marker) -> Result<State, StandbyError> {
    use std::io::Read as _;
    let other = || StandbyError::Other { directory: directory.to_owned() };
    let reading = kept(directory);
    let file =
        marker.names.iter().find(|name| backup::is_file_name(name) && !name.contains("farshore-restore"));
    let file = file.filter(|name| !name.starts_with(STATE)).ok_or_else(other)?;
    let path = directory.join(file);
    let wal = std::fs::metadata(directory.join(format!("{file}-wal"))).map_or(0, |wal| wal.len());
    let at = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified());
    let changed = at(&path).map_err(&reading)? > at(&directory.join(restore::MARKER)).map_err(&reading)?;
    let plan = &marker.plan;
    let same = plan.incarnation == source.record().incarnation && plan.store == source.reader().store_id();
    if wal > 0 || changed || !same {
        return Err(other());
    }
    let mut opened = std::fs::File::open(&path).map_err(&reading)?;
    let length = opened.metadata().map_err(&reading)?.len();
    let mut page = vec![0; 100];
    opened.read_exact(&mut page).map_err(&reading)?;
    // Bytes of a page; one stands for 65536. Source: https://www.sqlite.org/fileformat.html, 1.3.2.
    let bytes = match u16::from_be_bytes([page[16], page[17]]) {
        1 => 65536,
        bytes => usize::from(bytes).max(512),
    };
    page.resize(bytes, 0);
    opened.read_exact(&mut page[100..]).map_err(&reading)?;
    let now = Standing {
        proof: Proof::of(&page).ok_or_else(other)?,
        end: plan.resolved.position,
        transaction: plan.resolved.xid,
        seen_micros: plan.resolved.time.map(|time| time.timestamp_micros()),
        pages: u32::try_from(length / bytes as u64).map_err(|_| other())?,
    };
    let record = source.record();
    Ok(State::first(&record.database, source.reader().store_id(), record.incarnation, file, now))
}

/// Where the standby in a directory stands, and whether a process keeps it up to date. Nothing is written.
///
/// # Errors
/// When there is none, or it was written to by somebody else.
pub fn look(directory: &Path) -> Result<(State, Standing, bool), StandbyError> {
    for _ in 0..LOOKS {
        let Some(state) = State::read(directory).map_err(kept(directory))? else { break };
        let running = match take(directory) {
            Ok(_) => false,
            Err(StandbyError::Busy { .. }) => true,
            Err(why) => return Err(why),
        };
        let found = proof(&directory.join(&state.file))?;
        if let Some(standing) = state.known().into_iter().find(|standing| Some(standing.proof) == found) {
            return Ok((state.clone(), standing.clone(), running));
        }
        if state.role == Role::Promoted {
            let now = state.now.clone();
            return Ok((state, now, false));
        }
        if !running {
            let found = "its first page is none that the standby left".to_owned();
            return Err(CopyError::Written { found }.into());
        }
        // It went on between the two looks.
    }
    Err(StandbyError::None { directory: directory.to_owned() })
}

/// Makes the standby in a directory a database of its own, once SQLite finds it whole; where it stood. Durable on `Ok`.
///
/// # Errors
/// When a process keeps it up to date, when there is none, when it was written to, or is not whole: it stays a standby then.
pub fn promote(directory: &Path) -> Result<(PathBuf, Standing, Checked), StandbyError> {
    let alone = take(directory)?;
    let state = State::read(directory).map_err(kept(directory))?;
    let state = state.ok_or_else(|| StandbyError::None { directory: directory.to_owned() })?;
    if state.role == Role::Promoted {
        return Err(StandbyError::Promoted { directory: directory.to_owned() });
    }
    let path = directory.join(&state.file);
    let known = state.clone();
    let copy = Copy::open(&path, &known.known(), Keeper { directory: directory.to_owned(), state })?;
    let standing = copy.standing().clone();
    let checked = check_in_use(&path)?;
    let (now, keeper, closed) = copy.close();
    closed?;
    let state = State { role: Role::Promoted, now, next: None, ..keeper.state };
    state.write(directory).map_err(kept(directory))?;
    drop(alone);
    Ok((path, standing, checked))
}

/// What the copy's thread is told.
enum Order {
    /// More log.
    Log(Bytes),
    /// There is nothing more at hand: what is whole is committed.
    Commit,
}

/// Writes what comes until nothing comes any more.
fn write(mut copy: Copy<Keeper>, mut orders: mpsc::Receiver<Order>) -> (Standing, Result<(), StandbyError>) {
    let mut decoder = RecordDecoder::new(copy.standing().end);
    let mut done = Ok(());
    while let Some(order) = orders.blocking_recv() {
        done = match order {
            Order::Log(bytes) => {
                let pushed = decoder.push(&bytes, &mut |part| copy.take(part));
                copy.result().map_err(StandbyError::Copy).and(pushed.map_err(StandbyError::Damaged))
            }
            Order::Commit => copy.flush().map_err(StandbyError::Copy),
        };
        if done.is_err() {
            break;
        }
    }
    // Whoever fetches finds that nobody takes it any more.
    drop(orders);
    let (standing, mut keeper, closed) = copy.close();
    let done = done.and(closed.map_err(StandbyError::Copy));
    if done.is_ok() {
        keeper.state.now = standing.clone();
        keeper.state.next = None;
        if let Err(why) = keeper.state.write(&keeper.directory) {
            return (standing, Err(kept(&keeper.directory)(why)));
        }
    }
    (standing, done)
}

/// Chunks in order from a place on, to the journal's end and on as it grows.
struct Fetch<'a> {
    source: &'a Source,
    cancelled: &'a CancellationToken,
    every: Duration,
    orders: mpsc::Sender<Order>,
    /// The next byte wanted.
    cursor: Offset,
    /// The chunk that is wanted, once it is known, and the one before it.
    next: Option<(Sequence, Option<Header>)>,
    /// Since when there is log that was given and nobody was told to commit yet.
    waits: Option<Instant>,
    listed: Option<Instant>,
    incarnations: Instant,
}

/// Whether to go on.
enum Go {
    On,
    /// Nobody wants more.
    No,
}

impl<'a> Fetch<'a> {
    fn new(
        source: &'a Source,
        cursor: Offset,
        every: Duration,
        cancelled: &'a CancellationToken,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        let (next, waits, listed, incarnations) = (None, None, None, Instant::now());
        Self { source, cancelled, every, orders, cursor, next, waits, listed, incarnations }
    }

    /// Until it is cancelled, nobody takes what it fetches, or there is a reason to end.
    async fn run(&mut self) -> Result<(), StandbyError> {
        let (mut failures, mut before) = (0u32, (self.cursor, None));
        loop {
            let cancelled = self.cancelled.clone();
            let turn = tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                turn = self.turn() => turn,
            };
            let why = match turn {
                Ok(Go::On) => {
                    failures = 0;
                    continue;
                }
                Ok(Go::No) => return Ok(()),
                Err(StandbyError::Journal(why)) => why,
                Err(why) => return Err(why),
            };
            let at = (self.cursor, self.next.as_ref().map(|(next, _)| *next));
            failures = if at == before { failures + 1 } else { 1 };
            before = at;
            match why.retry() {
                Retry::Now | Retry::Backoff => {}
                Retry::Operator | Retry::Never if failures < LOOKS => {}
                Retry::Operator | Retry::Never => return Err(why.into()),
            }
            // What came before is committed meanwhile.
            self.commit().await;
            let pause = self.every.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            tracing::warn!(error = %why, pause_seconds = pause.as_secs_f64(), "the store could not be read; it is asked again");
            self.listed = None;
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Fetches what is there, or waits for a while.
    ///
    /// # Cancel safety
    /// What was not given on is fetched again by nobody: only to end.
    async fn turn(&mut self) -> Result<Go, StandbyError> {
        let reader = self.source.reader();
        let (next, before) = match &self.next {
            Some(place) => place.clone(),
            None => self.find().await?,
        };
        self.next = Some((next, before.clone()));
        if self.listed.is_none_or(|when| when.elapsed() >= LIST_EVERY) {
            let last = reader.last().await?.map(|chunk| chunk.header().number);
            self.listed = Some(Instant::now());
            if let Some(last) = last.filter(|last| *last >= next) {
                let mut ahead = Ahead::new(self.source, next, last);
                while let Some(fetched) = ahead.next().await? {
                    if let Go::No = self.take(fetched).await? {
                        return Ok(Go::No);
                    }
                }
                return Ok(self.commit().await);
            }
            if self.incarnations.elapsed() >= INCARNATIONS_EVERY {
                self.incarnations = Instant::now();
                self.still_the_newest(next).await?;
            }
        }
        match self.source.fetched_if_there(next).await? {
            Some(fetched) => self.take(fetched).await,
            None => {
                if let Go::No = self.commit().await {
                    return Ok(Go::No);
                }
                tokio::select! {
                    () = self.orders.closed() => return Ok(Go::No),
                    () = tokio::time::sleep(self.every) => {}
                }
                Ok(Go::On)
            }
        }
    }

    /// The chunk that holds the next byte, or will, and the one before it.
    async fn find(&self) -> Result<(Sequence, Option<Header>), StandbyError> {
        let reader = self.source.reader();
        let last = reader.last().await?.map(|chunk| chunk.header().clone());
        let last = match last {
            Some(last) if last.end >= self.cursor => last,
            other => return Err(StandbyError::Cut { end: other.map_or(Offset::new(0), |last| last.end) }),
        };
        let behind = last.number.next().unwrap_or(last.number);
        let next = reader.first_in(Sequence::FIRST, behind, |header| header.end > self.cursor).await?;
        let before = match next.get().checked_sub(1) {
            Some(before) => Some(reader.expected_header(Sequence::new(before)).await?),
            None => None,
        };
        Ok((next, before))
    }

    /// Gives on what a chunk holds.
    async fn take(&mut self, fetched: Fetched) -> Result<Go, StandbyError> {
        let header = fetched.header.clone();
        let before = self.next.as_ref().and_then(|(_, before)| before.as_ref());
        let continues = match before {
            Some(before) => follows(before, &header),
            None => header.before == self.source.reader().genesis(),
        };
        if !continues {
            let before = before.map_or(header.number, |before| before.number);
            return Err(JournalError::Broken { before, at: header.number }.into());
        }
        match header.kind {
            Kind::Data if header.start > self.cursor => {
                return Err(StandbyError::Gap { at: self.cursor, end: Some(header.start) });
            }
            Kind::Data => {
                let mut frames = Frames::behind(self.source, fetched, self.cursor);
                while let Some((start, plain)) = frames.next().await? {
                    let skip = self.cursor.bytes_since(start).and_then(|skip| usize::try_from(skip).ok());
                    let Some(rest) = skip.filter(|skip| *skip < plain.len()).map(|skip| plain.slice(skip..))
                    else {
                        continue;
                    };
                    let bytes = rest.len() as u64;
                    if self.orders.send(Order::Log(rest)).await.is_err() {
                        return Ok(Go::No);
                    }
                    self.waits.get_or_insert_with(Instant::now);
                    self.cursor = Offset::new(self.cursor.get().saturating_add(bytes));
                }
            }
            Kind::Gap if header.end > self.cursor => {
                return Err(StandbyError::Gap { at: self.cursor, end: Some(header.end) });
            }
            _ => {}
        }
        if let Some(behind) = header.number.next() {
            self.next = Some((behind, Some(header)));
        }
        match self.waits.is_some_and(|since| since.elapsed() >= LONGEST_WAIT) {
            true => Ok(self.commit().await),
            false => Ok(Go::On),
        }
    }

    /// Has what was given committed.
    async fn commit(&mut self) -> Go {
        if self.waits.take().is_some() && self.orders.send(Order::Commit).await.is_err() {
            return Go::No;
        }
        Go::On
    }

    /// That no incarnation behind this one began, once all of this one was taken.
    async fn still_the_newest(&self, next: Sequence) -> Result<(), StandbyError> {
        let reader = self.source.reader();
        let own = self.source.record();
        let repository = Repository::open(std::sync::Arc::clone(reader.store())).await?;
        let newest = repository.incarnations(&own.database).await?.pop();
        let Some(newest) = newest.filter(|newest| newest.number > own.number) else { return Ok(()) };
        // Nothing is appended to this one any more: what is there now is all.
        let more = reader.last().await?.is_some_and(|chunk| chunk.header().number >= next);
        match more {
            true => Ok(()),
            false => Err(StandbyError::Anew { number: newest.number, incarnation: newest.incarnation }),
        }
    }
}
