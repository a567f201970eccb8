//! Signed heads in a store: the newest that counts is found wherever it stands, and tidying deletes none that is needed or that is
//! evidence.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::object::Compression;
use farshore_journal::format::{ChainValue, Head, Recipients, SigningKey, Statement, VerifyKeys};
use farshore_journal::heads::{HEAD_BYTES, Newest, PASSED_OVER};
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{
    Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, Operation, StoreError,
};
use farshore_journal::tidy::TidyOptions;
use farshore_journal::writer::{TIDY_GRACE, Writer, WriterOptions, encode_data};
use farshore_journal::{DatabaseName, JournalError, Offset, Position, Sequence, Timeline, heads};

struct Rig {
    store: Arc<MemoryStore>,
    repository: Repository,
    record: IncarnationRecord,
    writer: Writer,
    key: SigningKey,
    pinned: VerifyKeys,
}

impl Rig {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let now = "2026-11-26T00:00:00Z";
        let repository =
            Repository::open_or_found(Arc::clone(&store) as Arc<dyn ObjectStore>, now).await.unwrap();
        let database: DatabaseName = "orders".parse().unwrap();
        let founding = Founding {
            database: &database,
            number: 0,
            engine: "postgres",
            identity: "7",
            major: 15,
            segment_bytes: 1 << 20,
            now,
            reason: "first",
        };
        let record = repository.found_incarnation(founding).await.unwrap();
        let options = WriterOptions {
            compression: Compression::None,
            recipients: Recipients::default(),
            segment_bytes: 1 << 20,
            host: "here".to_owned(),
        };
        let at = Position::new(Timeline::new(1), Offset::new(0));
        let reader = Reader::new(&repository, &record).unwrap();
        let writer = Writer::take_over(reader, &options, at, &|_| {}).await.unwrap();
        let (key, _) = SigningKey::mint().unwrap();
        let pinned = VerifyKeys::new(vec![key.public()]);
        Self { store, repository, record, writer, key, pinned }
    }

    fn reader(&self) -> &Reader {
        self.writer.reader()
    }

    async fn append(&mut self, chunks: u64) {
        for _ in 0..chunks {
            let (chunk, _) = encode_data(self.writer.place(), b"log").unwrap();
            self.writer.append(&chunk, &|_| {}).await.unwrap();
        }
    }

    /// What a head says of the newest chunk.
    fn said(&self) -> Statement {
        Statement {
            store: self.reader().store_id(),
            incarnation: self.reader().incarnation(),
            database: "orders".parse().unwrap(),
            number: Sequence::new(self.writer.place().number().get() - 1),
            chain: self.writer.place().chain(),
            end: self.writer.place().at(),
            generation: self.writer.generation(),
        }
    }

    async fn put(&self, head: &Head) -> Result<(), JournalError> {
        heads::put(&*self.store, self.reader().layout(), head, &|_| {}).await
    }

    /// Signs the newest chunk.
    async fn sign(&self) -> Head {
        let head = Head::sign(self.said(), 5, &self.key);
        self.put(&head).await.unwrap();
        head
    }

    async fn numbers(&self) -> Vec<u64> {
        heads::list(self.reader()).await.unwrap().into_iter().map(|(number, _)| number.get()).collect()
    }

    /// By a reader that remembers nothing.
    async fn newest(&self) -> Option<Head> {
        let reader = Reader::new(&self.repository, &self.record).unwrap();
        let newest = heads::newest(&reader, &self.pinned, &VerifyKeys::default()).await.unwrap();
        assert!(newest.unread.is_empty() && !newest.given_up, "{newest:?}");
        newest.head
    }

    /// A reader that remembers nothing, of a store that counts and refuses.
    async fn watched(&self, refused: &[Key]) -> (Reader, Arc<Watched>) {
        let store = Arc::new(Watched {
            inner: Arc::clone(&self.store),
            read: Mutex::default(),
            refused: refused.iter().cloned().collect(),
        });
        let repository = Repository::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
        (Reader::new(&repository, &self.record).unwrap(), store)
    }

    fn key(&self, number: u64) -> Key {
        self.reader().layout().head(Sequence::new(number)).unwrap()
    }

    /// A true head but for its key, which nobody pinned.
    async fn forge(&self, number: u64, key: &SigningKey) {
        let said = Statement { number: Sequence::new(number), ..self.said() };
        self.put(&Head::sign(said, 1, key)).await.unwrap();
    }
}

/// A store that counts which objects are read, and does not give out some.
#[derive(Debug)]
struct Watched {
    inner: Arc<MemoryStore>,
    read: Mutex<BTreeMap<Key, usize>>,
    refused: BTreeSet<Key>,
}

impl Watched {
    fn reads(&self, key: &Key) -> Result<(), StoreError> {
        *self.read.lock().unwrap().entry(key.clone()).or_default() += 1;
        match self.refused.contains(key) {
            true => Err(StoreError::Refused {
                operation: Operation::Get,
                what: key.to_string(),
                reason: "403".to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// How often each head was read.
    fn heads(&self) -> Vec<usize> {
        let read = self.read.lock().unwrap();
        read.iter().filter(|(key, _)| key.as_str().contains("/heads/")).map(|(_, times)| *times).collect()
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        self.inner.create(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.reads(key)?;
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.reads(key)?;
        self.inner.get_range(key, range).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn tails(&self) -> HasTails<'_> {
        self.inner.tails()
    }
}

#[tokio::test]
async fn the_newest_head_that_counts_is_found_near_the_end_far_before_it_and_behind_it() {
    let mut rig = Rig::new().await;
    assert_eq!(rig.newest().await, None);
    let first = rig.sign().await;
    assert_eq!(rig.newest().await, Some(first.clone()));
    rig.append(500).await;
    assert_eq!(rig.newest().await, Some(first));
    let second = rig.sign().await;
    rig.append(1).await;
    let third = rig.sign().await;
    assert_eq!(rig.newest().await.as_ref(), Some(&third));
    // Nobody's, of a key that counts for nothing, and a true one that says another place: passed over.
    let mut said = rig.said();
    said.number = Sequence::new(900);
    let (foreign, _) = SigningKey::mint().unwrap();
    rig.put(&Head::sign(said, 1, &foreign)).await.unwrap();
    let garbage = rig.reader().layout().head(Sequence::new(901)).unwrap();
    rig.store.create(&garbage, Bytes::from_static(b"x")).await.unwrap();
    let moved = rig.reader().layout().head(Sequence::new(902)).unwrap();
    rig.store.create(&moved, second.encode().unwrap()).await.unwrap();
    assert_eq!(rig.newest().await.as_ref(), Some(&third));
    assert_eq!(
        heads::newest(rig.reader(), &VerifyKeys::default(), &VerifyKeys::default()).await.unwrap(),
        Newest::default()
    );
    // The journal's end is cut off, and the head is still found.
    let last = rig.reader().layout().chunk(third.said.number).unwrap();
    rig.store.delete(&last).await.unwrap();
    assert_eq!(rig.newest().await, Some(third));
}

#[tokio::test]
async fn a_head_is_put_once_and_the_same_one_twice_is_no_conflict() {
    let rig = Rig::new().await;
    let head = rig.sign().await;
    rig.put(&head).await.unwrap();
    let later = Head::sign(rig.said(), 6, &rig.key);
    assert!(matches!(rig.put(&later).await, Err(JournalError::Another { .. })));
    assert_eq!(heads::read(rig.reader(), head.said.number).await.unwrap(), head);
    let none = heads::read(rig.reader(), Sequence::new(77)).await;
    assert!(matches!(none, Err(JournalError::Store(StoreError::NotFound { .. }))));
}

#[tokio::test]
async fn tidying_deletes_superseded_heads_and_neither_the_newest_nor_what_is_evidence() {
    let mut rig = Rig::new().await;
    for _ in 0..40 {
        rig.append(1).await;
        rig.sign().await;
    }
    let all: Vec<u64> = (1..=40).collect();
    assert_eq!(rig.numbers().await, all);
    // What whoever may write puts before and behind them must make no true one go.
    let (foreign, _) = SigningKey::mint().unwrap();
    for number in 100..102 {
        let said = Statement { number: Sequence::new(number), ..rig.said() };
        let head = Head::sign(said, 1, if number % 2 == 0 { &foreign } else { &rig.key });
        rig.put(&head).await.unwrap();
    }
    let zero = Head::sign(
        Statement { number: Sequence::FIRST, chain: ChainValue::from_bytes([1; 32]), ..rig.said() },
        1,
        &rig.key,
    );
    rig.put(&zero).await.unwrap();
    let tidy = |pinned: VerifyKeys, options| {
        let reader = rig.reader().clone();
        async move {
            let tidied = heads::tidy(&reader, &pinned, &VerifyKeys::default(), options).await.unwrap();
            assert!(tidied.unread.is_empty() && !tidied.given_up, "{tidied:?}");
            tidied.deleted
        }
    };
    // No head is old yet, and without a pinned key none can be told from another.
    assert_eq!(tidy(rig.pinned.clone(), TidyOptions::new(TIDY_GRACE, false).unwrap()).await, 0);
    assert_eq!(tidy(VerifyKeys::default(), TidyOptions::at_once_for_tests()).await, 0);
    let mut look = TidyOptions::at_once_for_tests();
    look.dry_run = true;
    assert_eq!(tidy(rig.pinned.clone(), look).await, 24);
    assert_eq!(tidy(rig.pinned.clone(), TidyOptions::at_once_for_tests()).await, 24);
    let mut left = vec![0];
    left.extend(25..=40);
    left.extend(100..102);
    assert_eq!(rig.numbers().await, left);
    assert_eq!(tidy(rig.pinned.clone(), TidyOptions::at_once_for_tests()).await, 0);
}

#[tokio::test]
async fn forged_heads_are_read_once_and_no_further_than_the_bound_which_is_said() {
    let mut rig = Rig::new().await;
    let true_one = rig.sign().await;
    rig.append(300).await;
    let (foreign, _) = SigningKey::mint().unwrap();
    // In each stretch that is listed: near the journal's end, far before it and behind it.
    for number in (1..300).step_by(7).chain(400..500) {
        rig.forge(number, &foreign).await;
    }
    let (reader, store) = rig.watched(&[]).await;
    let newest = heads::newest(&reader, &rig.pinned, &VerifyKeys::default()).await.unwrap();
    assert_eq!((newest.head, newest.given_up), (Some(true_one.clone()), false));
    assert!(store.heads().iter().all(|times| *times == 1), "{:?}", store.heads());
    // An object that no head can be as large as is not fetched.
    for number in 500..500 + PASSED_OVER as u64 {
        let large = Bytes::from(vec![0; HEAD_BYTES as usize + 1]);
        rig.store.create(&rig.key(number), large).await.unwrap();
    }
    let (reader, store) = rig.watched(&[]).await;
    assert_eq!(
        heads::newest(&reader, &rig.pinned, &VerifyKeys::default()).await.unwrap().head,
        Some(true_one.clone())
    );
    let true_head = true_one;
    assert!(store.heads().len() < PASSED_OVER);
    let large = heads::read(&reader, Sequence::new(500)).await;
    assert!(matches!(large, Err(JournalError::Object { .. })), "{large:?}");
    rig.store.create(&rig.key(9000), Bytes::new()).await.unwrap();
    let empty = heads::read(&reader, Sequence::new(9000)).await;
    assert!(matches!(empty, Err(JournalError::Object { .. })), "{empty:?}");
    // So many that the true one is not come to.
    for number in 2000..2000 + PASSED_OVER as u64 {
        rig.forge(number, &foreign).await;
    }
    let (reader, store) = rig.watched(&[]).await;
    let newest = heads::newest(&reader, &rig.pinned, &VerifyKeys::default()).await.unwrap();
    assert_eq!((newest.head, newest.given_up), (None, true));
    assert!(store.heads().len() < PASSED_OVER + 10, "{}", store.heads().len());
    // Were they a retired key's, they would be the journal's own, and the true one is come to.
    let retired = VerifyKeys::new(vec![foreign.public()]);
    let newest = heads::newest(&reader, &rig.pinned, &retired).await.unwrap();
    assert_eq!((newest.head, newest.given_up), (Some(true_head), false));
    let (none, options) = (VerifyKeys::default(), TidyOptions::at_once_for_tests());
    assert!(heads::tidy(&reader, &rig.pinned, &none, options).await.unwrap().given_up);
}

#[tokio::test]
async fn a_head_that_the_store_does_not_give_out_is_named_and_hides_no_other() {
    let mut rig = Rig::new().await;
    for _ in 0..20 {
        rig.append(1).await;
        rig.sign().await;
    }
    let before = heads::read(rig.reader(), Sequence::new(19)).await.unwrap();
    let (reader, _) =
        rig.watched(&[rig.key(20), rig.reader().layout().chunk(Sequence::new(18)).unwrap()]).await;
    let newest = heads::newest(&reader, &rig.pinned, &VerifyKeys::default()).await.unwrap();
    assert_eq!(newest.head, Some(before));
    let named: Vec<&Key> = newest.unread.iter().map(|unread| &unread.object).collect();
    assert_eq!(named, [&rig.key(20)]);
    // Nor does it, or a chunk, keep others from being tidied.
    let options = TidyOptions::at_once_for_tests();
    let tidied = heads::tidy(&reader, &rig.pinned, &VerifyKeys::default(), options).await.unwrap();
    assert_eq!((tidied.deleted, tidied.unread.len(), tidied.given_up), (2, 2, false), "{tidied:?}");
    let mut left = Vec::from_iter(3..=20);
    left.sort_unstable();
    assert_eq!(rig.numbers().await, left);
}

#[tokio::test]
async fn heads_of_a_retired_key_go_once_sixteen_that_count_stand() {
    let mut rig = Rig::new().await;
    let (former, _) = SigningKey::mint().unwrap();
    let retired = VerifyKeys::new(vec![former.public()]);
    rig.append(1).await;
    rig.put(&Head::sign(rig.said(), 1, &former)).await.unwrap();
    // Of a chunk that never comes, as whoever got hold of the key could sign it.
    rig.forge(1 << 40, &former).await;
    let tidy = async |rig: &Rig| {
        let options = TidyOptions::at_once_for_tests();
        heads::tidy(rig.reader(), &rig.pinned, &retired, options).await.unwrap().deleted
    };
    for _ in 0..15 {
        rig.append(1).await;
        rig.sign().await;
    }
    assert_eq!(tidy(&rig).await, 0);
    rig.append(1).await;
    rig.sign().await;
    assert_eq!(tidy(&rig).await, 2);
    assert_eq!(rig.numbers().await, Vec::from_iter(2..=17));
}
