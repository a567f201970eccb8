//! Signed heads in a store: the newest that counts is found wherever it stands, and tidying deletes none that is needed or that is
//! evidence.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::sync::Arc;

use bytes::Bytes;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::object::Compression;
use farshore_journal::format::{ChainValue, Head, Recipients, SigningKey, Statement, VerifyKeys};
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{ObjectStore, StoreError};
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
        heads::newest(&reader, &self.pinned).await.unwrap()
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
    assert_eq!(heads::newest(rig.reader(), &VerifyKeys::default()).await.unwrap(), None);
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
        async move { heads::tidy(&reader, &pinned, options).await.unwrap() }
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
