//! A standby copy of a SQLite database: made once, then kept up to date from the store for as long as it is asked, while applications read it.
//!
//! What always holds: the copy stands behind a whole record at every moment, and never behind an earlier one than before; where it stands is found from the copy itself
//! (`farshore_engines::sqlite::standby` says how). Chunks are taken as readers take them, in order, their chain checked. Behind a gap, or where a new incarnation began,
//! nothing is guessed: following ends, and says so. One process at a time has the directory, which is a standby's from its first byte (`place`). A copy that somebody else wrote
//! to is refused from then on: that is kept before the directory is let go (`state`).
//!
//! ```text
//! store ─▶ fetch (chunks in order) ─▶ a few pieces wait ─▶ write (decode, promise, commit) ─▶ the copy
//! ```
//! Memory is bounded by what is fetched ahead, the pieces that wait, and one transaction's pages; a larger record's go to SQLite as they come.

mod error;
mod fetch;
mod leaving;
mod place;
mod promotion;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farshore_engines::log::Shape;
use farshore_engines::sqlite::decoder::RecordDecoder;
use farshore_engines::sqlite::standby::{Copy, CopyError, Proof, Standing};
use farshore_journal::{Offset, StandbyId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::plan::Plan;
use crate::restore::{self, Alone, Making, RestoreError, Watcher};
use crate::source::Source;
pub use error::StandbyError;
use fetch::{Fetch, Way};
pub use leaving::{Leaving, leave};
use place::{BESIDE, MAKING, Verdict, Wanted, judge};
pub use promotion::{Promoted, look, promote};
pub use state::{Ended, How, Origin, Role, STATE, State};
use state::{Keeper, Record};

/// Pieces of log that wait for the copy.
const WAITING: usize = 4;

/// A standby's directory, which nobody else has, with a copy.
#[derive(Debug)]
pub struct Standby {
    directory: PathBuf,
    state: State,
    alone: Arc<Alone>,
}

/// What a directory holds.
#[derive(Debug)]
pub enum Found {
    /// A standby of this journal.
    Standby(Box<Standby>),
    /// None yet, and nothing else: one can be made there.
    Nothing,
}

/// A directory that is a standby's, has no copy yet, and that nobody else has.
#[derive(Debug)]
pub struct Prepared {
    directory: PathBuf,
    origin: Origin,
    alone: Arc<Alone>,
}

fn kept(directory: &Path) -> impl Fn(std::io::Error) -> StandbyError {
    let path = directory.join(STATE);
    move |source| StandbyError::State { path: path.clone(), source }
}

fn taken(directory: &Path, why: RestoreError) -> StandbyError {
    match why {
        RestoreError::Busy { directory } => StandbyError::Busy { directory },
        RestoreError::Io { source, .. } => kept(directory)(source),
        other => kept(directory)(std::io::Error::other(other)),
    }
}

/// Judges a directory that is ours.
fn judged(alone: &Alone, directory: &Path, source: &Source) -> Result<Verdict, StandbyError> {
    let record = Record::read(alone).map_err(kept(directory))?;
    let marker = restore::marker(directory).map_err(|why| taken(directory, why))?;
    let names = alone.names(directory).map_err(kept(directory))?;
    let wanted = Wanted { record: source.record(), store: source.reader().store_id() };
    judge(directory, record, marker.as_ref(), &names, wanted)
}

impl Standby {
    /// What a directory holds of a standby of this journal. Nothing is made or changed.
    ///
    /// # Errors
    /// When there is something else, or another process has it.
    pub fn find(directory: &Path, source: &Source) -> Result<Found, StandbyError> {
        let Shape::Sqlite { .. } = source.shape() else { return Err(StandbyError::Engine) };
        let alone = restore::lock_there(directory).map_err(|why| taken(directory, why))?;
        let Some(alone) = alone else { return Ok(Found::Nothing) };
        match judged(&alone, directory, source)? {
            Verdict::Make => Ok(Found::Nothing),
            Verdict::GoOn(state) => Ok(Found::Standby(Box::new(Self {
                directory: directory.to_owned(),
                state: *state,
                alone: Arc::new(alone),
            }))),
        }
    }

    /// Makes a directory a standby's, in which there is none yet: missing, empty, or with what the making of one left that was cut off. Durable on `Ok`.
    ///
    /// # Errors
    /// When it is not, or another process has it. Nothing was changed then.
    pub fn prepare(directory: &Path, source: &Source) -> Result<Prepared, StandbyError> {
        let Shape::Sqlite { .. } = source.shape() else { return Err(StandbyError::Engine) };
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        if parent.is_some_and(|parent| !parent.is_dir()) {
            return Err(StandbyError::NoParent { directory: directory.to_owned() });
        }
        let alone = restore::lock(directory).map_err(|why| taken(directory, why))?;
        if let Verdict::GoOn(_) = judged(&alone, directory, source)? {
            // Somebody made it since it was looked for.
            return Err(StandbyError::Busy { directory: directory.to_owned() });
        }
        let record = source.record();
        let origin = Origin {
            standby: StandbyId::mint(),
            database: record.database.clone(),
            store: source.reader().store_id(),
            incarnation: record.incarnation,
        };
        let written = Record::Preparing { origin: origin.clone() }.write(&alone);
        written.map_err(kept(directory))?;
        Ok(Prepared { directory: directory.to_owned(), origin, alone: Arc::new(alone) })
    }

    /// What is written of where it stands; the copy itself has the last word.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Keeps the copy up to date until it is `cancelled`; where it stands then, and why it does not go on if it was not. `every` is how long is waited
    /// between two looks for the next chunk. The copy is whole in any case, but where somebody else wrote to it.
    ///
    /// # Errors
    /// When the copy cannot be opened as the one that was left. Nothing was done then, but that a copy that somebody else wrote to is refused from then on.
    ///
    /// # Cancel safety
    /// None: dropped midway, a transaction goes on in its thread.
    pub async fn follow(
        self,
        source: &Source,
        every: Duration,
        cancelled: &CancellationToken,
    ) -> Result<(Standing, Result<(), StandbyError>), StandbyError> {
        let followed = Box::pin(self.keep(source, Way::On(every), cancelled)).await?;
        Ok((followed.standing, followed.ended.map(drop)))
    }

    async fn keep(
        self,
        source: &Source,
        way: Way,
        cancelled: &CancellationToken,
    ) -> Result<Followed, StandbyError> {
        let Self { directory, state, alone } = self;
        let folder = directory.clone();
        let opened = tokio::task::spawn_blocking(move || open(&folder, alone, state));
        let copy = opened.await.map_err(|_| StandbyError::CutOff)??;
        let from = copy.standing().clone();
        tracing::info!(position = %from.end, transaction = from.transaction, "the standby goes on from here");
        let (orders, taken) = mpsc::channel(WAITING);
        // The directory is held until nobody writes any more.
        let write = tokio::task::spawn_blocking(move || write(copy, taken));
        let mut fetch = Fetch::new(source, from.end, way, cancelled, orders);
        let fetched = Box::pin(fetch.run()).await;
        let stored = fetch.stored();
        drop(fetch);
        let (keeper, standing, written) = write.await.map_err(|_| StandbyError::CutOff)?;
        // Who writes knows better why it ended: the other merely found it gone.
        let ended = written.and(fetched);
        let settle = tokio::task::spawn_blocking(move || settle(&directory, keeper, ended));
        let (keeper, ended) = settle.await.map_err(|_| StandbyError::CutOff)?;
        Ok(Followed { keeper, standing, stored, ended })
    }
}

impl Prepared {
    /// Makes the copy. On `Ok` it is durable and stands at the plan's target.
    ///
    /// # Errors
    /// When it cannot be: the directory stays a standby's without a copy, in which one can be made.
    ///
    /// # Cancel safety
    /// Dropped midway it leaves such a directory, or a standby.
    pub async fn make(
        &self,
        source: &Source,
        plan: &Plan,
        watcher: Watcher,
    ) -> Result<Standby, RestoreError> {
        for name in MAKING {
            // What was cut off: nothing here has the database's name.
            let removed = self.alone.remove(name);
            removed.map_err(|source| RestoreError::Io {
                what: "remove",
                path: self.directory.join(name),
                source,
            })?;
        }
        let (alone, origin) = (Arc::clone(&self.alone), self.origin.clone());
        let resolved = plan.resolved.clone();
        let (made, state) = std::sync::mpsc::sync_channel(1);
        let naming = Box::new(move |name: &str, path: &Path| {
            let wrong = |source| RestoreError::Io { what: "read", path: path.to_owned(), source };
            let (proof, pages) = first(path).map_err(wrong)?;
            let now = Standing {
                proof,
                end: resolved.position,
                transaction: resolved.xid,
                seen_micros: resolved.time.map(|time| time.timestamp_micros()),
                pages,
            };
            let state = State::first(origin, name, now);
            let written = Record::Copy(Box::new(state.clone())).write(&alone);
            written.map_err(|source| RestoreError::Io {
                what: "write",
                path: path.with_file_name(STATE),
                source,
            })?;
            // One at most comes, and there is room for it.
            let _ = made.try_send(state);
            Ok(())
        });
        let making = Making { alone: Arc::clone(&self.alone), beside: &BESIDE, naming };
        restore::make(source, plan, &self.directory, making, watcher).await?;
        let state = state.try_recv().map_err(|_| RestoreError::CutOff)?;
        Ok(Standby { directory: self.directory.clone(), state, alone: Arc::clone(&self.alone) })
    }
}

/// What tells a database's file, and its pages.
fn first(path: &Path) -> std::io::Result<(Proof, u32)> {
    use std::io::Read as _;
    let none = || std::io::Error::other("it does not begin as a database does");
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut page = vec![0; 100];
    file.read_exact(&mut page)?;
    // Bytes of a page; one stands for 65536. Source: https://www.sqlite.org/fileformat.html, 1.3.2.
    let bytes = match u16::from_be_bytes([page[16], page[17]]) {
        1 => 65536,
        bytes => usize::from(bytes).max(512),
    };
    page.resize(bytes, 0);
    file.read_exact(&mut page[100..])?;
    let pages = u32::try_from(length / bytes as u64).map_err(|_| none())?;
    Ok((Proof::of(&page).ok_or_else(none)?, pages))
}

/// A run that ended.
struct Followed {
    keeper: Keeper,
    standing: Standing,
    /// Where the journal ended when it was last looked for.
    stored: Option<Offset>,
    /// Whether all that is stored is in the copy; why it does not go on.
    ended: Result<bool, StandbyError>,
}

/// Opens the copy as the one that was left. One that is not is refused from then on.
fn open(directory: &Path, alone: Arc<Alone>, mut state: State) -> Result<Copy<Keeper>, StandbyError> {
    let path = directory.join(&state.file);
    state.ended = None;
    let mut known = state.clone();
    let opened = Copy::open(&path, &known.known(), Keeper { alone: Arc::clone(&alone), state });
    // What was opened by its name may be another directory's.
    let own = alone.has_at(&known.file, &path).and_then(|own| Ok(own && alone.is_at(directory)?));
    if !own.map_err(kept(directory))? {
        return Err(kept(directory)(std::io::Error::other("the directory was renamed meanwhile")));
    }
    if let Err(CopyError::Written { found }) = &opened {
        known.spoil(&alone, found.clone());
    }
    Ok(opened?)
}

/// What the copy's thread is told.
enum Order {
    /// More log.
    Log(Bytes),
    /// There is nothing more at hand: what is whole is committed.
    Commit,
}

/// Writes what comes until nothing comes any more.
fn write(
    mut copy: Copy<Keeper>,
    mut orders: mpsc::Receiver<Order>,
) -> (Keeper, Standing, Result<(), StandbyError>) {
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
    }
    (keeper, standing, done)
}

/// Keeps how a run ended, before the directory is let go.
fn settle(
    directory: &Path,
    mut keeper: Keeper,
    ended: Result<bool, StandbyError>,
) -> (Keeper, Result<bool, StandbyError>) {
    let why = match &ended {
        Err(StandbyError::Copy(CopyError::Written { found })) => {
            keeper.state.spoil(&keeper.alone, found.clone());
            return (keeper, ended);
        }
        Err(why) => Some(Ended::now(why.to_string(), why.how())),
        Ok(_) => None,
    };
    keeper.state.ended = why;
    let written = Record::Copy(Box::new(keeper.state.clone())).write(&keeper.alone);
    let ended = ended.and_then(|done| written.map(|()| done).map_err(kept(directory)));
    (keeper, ended)
}
