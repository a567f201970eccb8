//! Tails of other machines' journals: those that this process began, and those that nobody makes chunks of any more.
//!
//! What always holds: a tail is appended to in the order in which its owner sent, and what comes again or too late is refused before anything is written (`FORMAT.md` T2); one whose request was cut off midway takes nothing more.
//! What it does not do: it remembers nothing beyond this process. Whoever asks for a tail of a former one is refused, and begins another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::store::remote::wire::{Answer, TailAnswer, TailAsked, Word};
use farshore_journal::store::tails::Tail;
use farshore_journal::store::{HasTails, Key, KeyPrefix, ObjectStore};
use farshore_journal::{DatabaseName, IncarnationId, JournalError, WriterId};
use tokio_util::sync::CancellationToken;

/// Tails at once, of all clients: each is an open file.
const MOST: usize = 512;
/// How often it is looked for those that nobody makes chunks of.
const LOOK: Duration = Duration::from_secs(5);

/// A tail and what may come next.
struct Kept {
    folder: KeyPrefix,
    state: Arc<tokio::sync::Mutex<State>>,
}

struct State {
    /// None once something failed.
    tail: Option<Box<dyn Tail>>,
    order: u64,
}

/// The tails that this process began.
#[derive(Default)]
pub(super) struct TailsKept(Mutex<HashMap<String, Kept>>);

impl TailsKept {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a tail and remembers it, in the place of an older one of its folder.
    pub(super) async fn begin(&self, store: &dyn ObjectStore, folder: &KeyPrefix) -> Answer {
        let HasTails::Yes(tails) = store.tails() else {
            return Answer::refused(Word::Refused, "there are no tails here");
        };
        let id = WriterId::mint().to_string();
        let tail = match tails.begin(folder).await {
            Ok(tail) => tail,
            Err(why) => return Answer::failed(&why),
        };
        let mut all = self.all();
        all.retain(|_, kept| kept.folder != *folder);
        if all.len() >= MOST {
            return Answer::refused(Word::Busy, "too many tails are kept already");
        }
        let state = State { tail: Some(tail), order: 0 };
        all.insert(
            id.clone(),
            Kept { folder: folder.clone(), state: Arc::new(tokio::sync::Mutex::new(state)) },
        );
        Answer::Tail(TailAnswer::Begun(id))
    }

    /// Appends what is next in a tail's order.
    pub(super) async fn append(&self, asked: Append<'_>, bytes: Bytes) -> Answer {
        let refused = |why: &str| Answer::refused(Word::Refused, why);
        let state = self
            .all()
            .get(asked.id)
            .filter(|kept| kept.folder == *asked.folder)
            .map(|kept| Arc::clone(&kept.state));
        let Some(state) = state else { return refused("this receiver began no such tail since it started") };
        let mut state = state.lock().await;
        if state.order != asked.order {
            return refused("it is not what comes next in this tail");
        }
        // Put back only when it is done: a request that is cut off midway leaves it taken.
        let Some(mut tail) = state.tail.take() else { return refused("this tail was given up") };
        match tail.append(asked.at, bytes, asked.free).await {
            Ok(()) => {
                state.order += 1;
                state.tail = Some(tail);
                Answer::Tail(TailAnswer::Appended)
            }
            Err(why) => Answer::failed(&why),
        }
    }
}

/// An append that was asked for.
pub(super) struct Append<'a> {
    pub(super) folder: &'a KeyPrefix,
    pub(super) id: &'a str,
    pub(super) order: u64,
    pub(super) at: u64,
    pub(super) free: &'a Key,
}

impl<'a> Append<'a> {
    /// Of a question, if it is one.
    pub(super) fn of(asked: &'a TailAsked) -> Option<Self> {
        match asked {
            TailAsked::Append { folder, id, order, at, free, .. } => {
                Some(Self { folder, id, order: *order, at: *at, free })
            }
            _ => None,
        }
    }
}

/// Makes chunks of tails whose owners are gone, until cancelled: whoever reads here may have no right to.
pub(super) async fn settle_left(store: Arc<dyn ObjectStore>, cancel: CancellationToken) {
    let mut readers = HashMap::new();
    loop {
        if let Err(why) = look(&store, &mut readers).await {
            tracing::debug!(error = %why, "it could not be looked for what shippers left behind");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(
    store: &Arc<dyn ObjectStore>,
    readers: &mut HashMap<(DatabaseName, IncarnationId), Reader>,
) -> Result<(), JournalError> {
    let repository = Repository::open(Arc::clone(store)).await?;
    for database in repository.databases().await? {
        let Some(record) = repository.incarnations(&database).await?.pop() else { continue };
        let reader = match readers.remove(&(database.clone(), record.incarnation)) {
            Some(reader) => reader,
            None => Reader::new(&repository, &record)?,
        };
        // Looking for the end is all: what stands behind it for long is settled on the way.
        if let Err(why) = reader.last().await {
            tracing::debug!(%database, error = %why, "the journal's end does not read");
        }
        readers.insert((database, record.incarnation), reader);
    }
    Ok(())
}
