//! A journal with its writer, its merger and a store in memory: what tests of segments, tidying and expiry act on.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test uses a part of it; helpers of tests are tests too

use std::sync::Arc;

use bytes::Bytes;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::object::Compression;
use farshore_journal::format::{Mark, Recipients, Unlock};
use farshore_journal::merge::{Confirmed, MergeLimits, Merger, Ready};
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{Key, ObjectStore};
use farshore_journal::tidy::{TidyOptions, tidy};
use farshore_journal::writer::{Writer, WriterOptions, encode_marked};
use farshore_journal::{Offset, Position, Sequence, Timeline};
use farshore_testkit::random::Random;

pub const SEGMENT: u64 = 1 << 20;
pub const LIMITS: MergeLimits = MergeLimits { bytes: 40_000, chunks: 12, fewest: 3, large: 20_000 };

/// A journal with its writer and its merger, and what was written to it.
pub struct Rig {
    pub store: Arc<MemoryStore>,
    pub repository: Repository,
    pub record: IncarnationRecord,
    pub recipients: Recipients,
    pub unlock: Unlock,
    pub writer: Writer,
    pub merger: Merger,
    pub log: Vec<u8>,
    pub ready: Vec<Ready>,
    pub rng: Random,
}

impl Rig {
    pub async fn new(seed: u64, sealed: bool) -> Self {
        let store = Arc::new(MemoryStore::new());
        let identity = age::x25519::Identity::generate();
        let (recipients, unlock) = match sealed {
            true => {
                use age::secrecy::ExposeSecret;
                let public = identity.to_public().to_string();
                let private = identity.to_string().expose_secret().to_owned();
                (Recipients::parse([public.as_str()]).unwrap(), Unlock::parse(&private).unwrap())
            }
            false => (Recipients::default(), Unlock::none()),
        };
        let now = "2026-11-25T00:00:00Z";
        let repository =
            Repository::open_or_found(Arc::clone(&store) as Arc<dyn ObjectStore>, now).await.unwrap();
        let database = "orders".parse().unwrap();
        let founding = Founding {
            database: &database,
            number: 0,
            engine: "postgres",
            identity: "7",
            major: 15,
            segment_bytes: SEGMENT,
            now,
            reason: "first",
        };
        let record = repository.found_incarnation(founding).await.unwrap();
        let writer = open(&repository, &record, &recipients).await;
        Self {
            store,
            repository,
            record,
            recipients,
            unlock,
            writer,
            merger: Merger::new(LIMITS),
            log: Vec::new(),
            ready: Vec::new(),
            rng: Random::new(seed),
        }
    }

    /// Appends a data chunk of random content and length.
    pub async fn append(&mut self) {
        let bytes = 1 + self.rng.below(6_000) as usize;
        let log: Vec<u8> = (0..bytes).map(|_| self.rng.below(7) as u8).collect();
        let place = self.writer.place().clone();
        let (chunk, _) = encode_marked(&place, &log, mark(place.number())).unwrap();
        self.writer.append(&chunk, &|_| {}).await.unwrap();
        self.log.extend_from_slice(&log);
        self.ready.extend(self.merger.add(Confirmed::new(&place, &chunk, vec![Bytes::from(log)])));
    }

    /// A new generation takes over, as after a restart, or its owner opens anew.
    pub async fn reopen(&mut self) {
        self.ready.extend(self.merger.close());
        match self.rng.below(2) {
            0 => self.writer = open(&self.repository, &self.record, &self.recipients).await,
            _ => self.writer.renew(&options(&self.recipients), &|_| {}).await.unwrap(),
        }
    }

    /// Puts the segments that are ready; how many.
    pub async fn merge(&mut self) -> usize {
        let ready = std::mem::take(&mut self.ready);
        let merged = ready.len();
        for ready in ready {
            let object = ready.encode().unwrap();
            object.put(&*self.store, self.writer.reader().layout(), &|_| {}).await.unwrap();
        }
        merged
    }

    /// A reader that remembers nothing.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.repository, &self.record).unwrap()
    }

    pub fn keys(&self) -> Keyring {
        Keyring::new(self.unlock.clone())
    }

    pub async fn objects(&self, folder: &str) -> Vec<Key> {
        let prefix = self.writer.reader().layout().root().join(folder).unwrap();
        self.store.list(&prefix, None, None).await.unwrap().into_iter().map(|listed| listed.key).collect()
    }

    pub async fn tidy(&self) -> farshore_journal::tidy::Tidied {
        tidy(&self.reader(), &mut self.keys(), TidyOptions::at_once_for_tests()).await.unwrap()
    }
}

pub async fn open(repository: &Repository, record: &IncarnationRecord, recipients: &Recipients) -> Writer {
    let at = Position::new(Timeline::new(1), Offset::new(0));
    let reader = Reader::new(repository, record).unwrap();
    Writer::take_over(reader, &options(recipients), at, &|_| {}).await.unwrap()
}

pub fn options(recipients: &Recipients) -> WriterOptions {
    WriterOptions {
        compression: Compression::Zstd(1),
        recipients: recipients.clone(),
        segment_bytes: SEGMENT,
        host: "here".to_owned(),
    }
}

/// What the chunk of this number says of its end; every third says nothing.
pub fn mark(number: Sequence) -> Mark {
    let kind = number.get() % 3;
    Mark::from_bytes(if kind == 0 { [0; 16] } else { [number.get() as u8 | 1; 16] })
}
