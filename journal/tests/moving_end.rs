//! A journal's end beside a writer that never pauses: found, and never behind a hole.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use farshore_journal::format::Recipients;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::object::Compression;
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, StoreError};
use farshore_journal::writer::{Writer, WriterOptions, encode_data};
use farshore_journal::{JournalError, Offset, Position, Sequence, Timeline};

/// A store into which somebody appends whenever it is listed.
#[derive(Debug)]
struct Restless {
    inner: MemoryStore,
    coming: Mutex<VecDeque<(Key, Bytes)>>,
    lists: Mutex<u32>,
}

#[async_trait]
impl ObjectStore for Restless {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        self.inner.create(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
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
        *self.lists.lock().unwrap() += 1;
        let next = self.coming.lock().unwrap().pop_front();
        if let Some((key, bytes)) = next {
            self.inner.create(&key, bytes).await?;
        }
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn tails(&self) -> HasTails<'_> {
        self.inner.tails()
    }
}

/// A journal of so many chunks, of which `there` are there at first; the others come one by one, but for `missing`, which never does.
async fn journal(
    chunks: usize,
    there: usize,
    missing: Option<usize>,
) -> (Arc<Restless>, Repository, IncarnationRecord) {
    let whole = Arc::new(MemoryStore::new());
    let now = "2026-11-28T00:00:00Z";
    let repository =
        Repository::open_or_found(Arc::clone(&whole) as Arc<dyn ObjectStore>, now).await.unwrap();
    let founding = Founding {
        database: &"orders".parse().unwrap(),
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
    let mut writer = Writer::take_over(reader.clone(), &options, at, &|_| {}).await.unwrap();
    // Its opening is the first.
    for _ in 1..chunks {
        let (chunk, _) = encode_data(writer.place(), b"log").unwrap();
        writer.append(&chunk, &|_| {}).await.unwrap();
    }
    let restless = Restless { inner: MemoryStore::new(), coming: Mutex::default(), lists: Mutex::default() };
    let all = whole.list(&KeyPrefix::ROOT, None, None).await.unwrap();
    let (mut number, mut coming) = (0, VecDeque::new());
    for listed in all {
        let bytes = whole.get(&listed.key).await.unwrap();
        if !listed.key.as_str().starts_with(&reader.layout().journal().to_string()) {
            restless.inner.create(&listed.key, bytes).await.unwrap();
            continue;
        }
        if number < there {
            restless.inner.create(&listed.key, bytes).await.unwrap();
        } else if missing != Some(number) {
            coming.push_back((listed.key, bytes));
        }
        number += 1;
    }
    *restless.coming.lock().unwrap() = coming;
    let restless = Arc::new(restless);
    let repository =
        Repository::open_or_found(Arc::clone(&restless) as Arc<dyn ObjectStore>, now).await.unwrap();
    (restless, repository, record)
}

#[tokio::test]
async fn an_end_that_never_rests_is_found_in_a_few_looks() {
    let (store, repository, record) = journal(400, 10, None).await;
    let reader = Reader::new(&repository, &record).unwrap();
    let before = *store.lists.lock().unwrap();
    let last = reader.last().await.unwrap().unwrap().header().number;
    let lists = *store.lists.lock().unwrap() - before;
    assert!(lists < 20 && last >= Sequence::new(9), "{lists} lists, chunk {last}");
    // It goes on from there.
    let again = reader.last().await.unwrap().unwrap().header().number;
    assert!(again > last, "{again}");
}

#[tokio::test]
async fn a_hole_before_an_end_that_never_rests_is_no_end() {
    // What is behind the hole is there already.
    let (store, repository, record) = journal(13, 10, Some(10)).await;
    while !store.coming.lock().unwrap().is_empty() {
        store.list(&KeyPrefix::ROOT, None, Some(1)).await.unwrap();
    }
    let reader = Reader::new(&repository, &record).unwrap();
    let found = reader.last().await;
    assert!(
        matches!(found, Err(JournalError::Hole { missing }) if missing == Sequence::new(10)),
        "{found:?}"
    );
}
