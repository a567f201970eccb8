//! Tails of other machines' journals: those that this process began, and those that nobody makes chunks of any more.
//!
//! What always holds: a tail is appended to in the order in which its owner sent, and what comes again, too late or too early is refused before anything is written (`FORMAT.md` T2).
//! What it does not do: it remembers nothing beyond this process. Whoever asks for a tail of a former one is refused, and begins another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::store::remote::wire::{Answer, TailAnswer, TailAsked, Word};
use farshore_journal::store::tails::{ENTRY_ALIGN, Tail};
use farshore_journal::store::{HasTails, Key, KeyPrefix, ObjectStore};
use farshore_journal::{DatabaseName, IncarnationId, JournalError, Sequence, WriterId};
use futures::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrivals;

/// Tails at once, of all clients: each is an open file and a thread.
const MOST: usize = 512;
/// Journals that are looked at together.
const AT_ONCE: usize = 8;
/// What a chunk's entry begins at a multiple of.
const ALIGN: u64 = ENTRY_ALIGN as u64;
/// How long an append waits for those before it.
const TURN: Duration = Duration::from_secs(2);
/// How often it is looked for those that nobody makes chunks of.
const LOOK: Duration = Duration::from_secs(5);

/// A tail and what may come next.
struct Kept {
    folder: KeyPrefix,
    state: Arc<State>,
}

struct State {
    /// The order of the next append.
    turns: watch::Sender<u64>,
    next: Mutex<Next>,
}

struct Next {
    /// It takes nothing more behind a failure.
    tail: Box<dyn Tail>,
    /// Where the next entry of the round begins.
    end: u64,
}

impl State {
    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let Some((journal, _)) = generation_of(folder) else {
            return Answer::refused(Word::Malformed, "no generation of a journal has such a folder");
        };
        // A journal has one owner, and he one tail: of former ones nothing is wanted any more.
        self.all().retain(|_, kept| generation_of(&kept.folder).is_none_or(|(of, _)| of != journal));
        if self.all().len() >= MOST {
            return Answer::refused(Word::Busy, "too many tails are kept already");
        }
        let id = WriterId::mint().to_string();
        let tail = match tails.begin(folder).await {
            Ok(tail) => tail,
            Err(why) => return Answer::failed(&why),
        };
        let state = State { turns: watch::Sender::new(0), next: Mutex::new(Next { tail, end: 0 }) };
        self.all().insert(id.clone(), Kept { folder: folder.clone(), state: Arc::new(state) });
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
        // Requests that are sent one behind another may come in another order.
        let turn = async {
            let mut turns = state.turns.subscribe();
            turns.wait_for(|turn| *turn >= asked.order).await.is_ok_and(|turn| *turn == asked.order)
        };
        if !tokio::time::timeout(TURN, turn).await.unwrap_or(false) {
            return refused("it is not what comes next in this tail");
        }
        let answer = {
            let mut next = state.next();
            let is_turn = *state.turns.borrow() == asked.order;
            // Behind the last one, or a new round.
            if !is_turn || asked.at != 0 && asked.at != next.end {
                return refused("it is no place of this tail's next entry");
            }
            let answer = next.tail.append(asked.at, bytes.clone(), asked.free);
            next.end = asked.at.saturating_add((bytes.len() as u64).next_multiple_of(ALIGN));
            state.turns.send_modify(|turn| *turn += 1);
            answer
        };
        match answer.await {
            Ok(()) => Answer::Tail(TailAnswer::Appended),
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

/// The journal and the number of the generation whose tails lie in a folder: `db/DATABASE/INCARNATION/GENERATION`.
fn generation_of(folder: &KeyPrefix) -> Option<(&str, u64)> {
    let (journal, generation) = folder.folder()?.rsplit_once('/')?;
    let is_journal = journal.starts_with("db/") && journal.split('/').count() == 3;
    let is_number = generation.len() == 16;
    (is_journal && is_number).then_some((journal, u64::from_str_radix(generation, 16).ok()?))
}

/// Whether a folder's tails are those of a generation behind which a newer one stands: nobody else's may go.
pub(super) async fn are_left(store: &Arc<dyn ObjectStore>, folder: &KeyPrefix) -> Result<bool, JournalError> {
    let Some((journal, generation)) = generation_of(folder) else { return Ok(false) };
    let Some((database, incarnation)) = journal.strip_prefix("db/").and_then(|path| path.split_once('/'))
    else {
        return Ok(false);
    };
    let Ok(database) = database.parse::<DatabaseName>() else { return Ok(false) };
    let repository = Repository::open(Arc::clone(store)).await?;
    let records = repository.incarnations(&database).await?;
    let Some(record) = records.iter().find(|record| record.incarnation.to_string() == incarnation) else {
        return Ok(false);
    };
    let end = Reader::new(&repository, record)?.chunks_end().await?;
    Ok(end.is_some_and(|end| end.header().generation.get() > generation))
}

/// Makes chunks of tails whose owners are gone, until cancelled: whoever reads here may have no right to.
pub(super) async fn settle_left(store: Arc<dyn ObjectStore>, arrivals: Arrivals, cancel: CancellationToken) {
    let mut readers = HashMap::new();
    loop {
        if let Err(why) = look(&store, &arrivals, &mut readers).await {
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
    arrivals: &Arrivals,
    readers: &mut HashMap<(DatabaseName, IncarnationId), (Reader, Option<Sequence>)>,
) -> Result<(), JournalError> {
    let repository = Repository::open(Arc::clone(store)).await?;
    let mut journals = Vec::new();
    for database in repository.databases().await? {
        let Some(record) = repository.incarnations(&database).await?.pop() else { continue };
        let (reader, end) = match readers.remove(&(database.clone(), record.incarnation)) {
            Some(known) => known,
            None => (Reader::new(&repository, &record)?, None),
        };
        journals.push((database, reader, end));
    }
    let looked = stream::iter(journals).map(|(database, reader, former)| async move {
        // Looking for the end is all: what stands behind it for long is settled on the way.
        let end = match reader.last().await {
            Ok(last) => last.map(|last| last.header().number),
            Err(why) => {
                tracing::debug!(%database, error = %why, "the journal's end does not read");
                former
            }
        };
        if end != former {
            arrivals.came(&database);
        }
        ((database, reader.incarnation()), (reader, end))
    });
    *readers = looked.buffer_unordered(AT_ONCE).collect().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_of_a_tail_are_taken_in_their_order_whichever_way_they_arrive_and_none_twice() {
        use farshore_journal::store::memory::MemoryStore;

        let (store, kept) = (MemoryStore::new(), TailsKept::default());
        let folder = KeyPrefix::new("db/orders/in-1/000000000000000a").unwrap();
        let free = Key::new("db/orders/in-1/journal/0000000000000009").unwrap();
        let Answer::Tail(TailAnswer::Begun(id)) = kept.begin(&store, &folder).await else {
            panic!("none was begun")
        };
        let append = |order, at| Append { folder: &folder, id: &id, order, at, free: &free };
        let is_well = |answer: &Answer| matches!(answer, Answer::Tail(TailAnswer::Appended));
        // The second comes first.
        let (second, first) = tokio::join!(
            kept.append(append(1, ALIGN), Bytes::from_static(b"second")),
            kept.append(append(0, 0), Bytes::from_static(b"first")),
        );
        assert!(is_well(&first) && is_well(&second), "{first:?} {second:?}");
        for (what, asked) in [
            ("again", append(1, ALIGN)),
            ("without the one before", append(3, 2 * ALIGN)),
            ("behind a hole", append(2, 3 * ALIGN)),
        ] {
            let answer = kept.append(asked, Bytes::from_static(b"third")).await;
            assert!(!is_well(&answer), "{what}: {answer:?}");
        }
        let third = kept.append(append(2, 2 * ALIGN), Bytes::from_static(b"third")).await;
        assert!(is_well(&third), "{third:?}");
    }

    #[test]
    fn a_folder_of_tails_is_one_generation_of_one_journal() {
        let of = |text: &str| {
            generation_of(&KeyPrefix::new(text).unwrap())
                .map(|(journal, number)| (journal.to_owned(), number))
        };
        assert_eq!(of("db/orders/in-1/000000000000000a"), Some(("db/orders/in-1".to_owned(), 10)));
        for text in [
            "db/orders/in-1/a",
            "db/orders/000000000000000a",
            "db/orders/in-1/x/000000000000000a",
            "activity/a/b/000000000000000a",
            "db/orders/in-1/zzzzzzzzzzzzzzzz",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
