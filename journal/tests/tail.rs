//! The tail (`FORMAT.md` section 5a), with the real writer and reader over a store in memory and over a directory.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::sync::Arc;

use farshore_journal::format::object::Compression;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::packing::Packers;
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{FileStore, ObjectStore, StoreOptions};
use farshore_journal::writer::{TailTakes, Writer, WriterOptions, encode_data, encode_entry};
use farshore_journal::{JournalError, Offset, Position, Timeline};

const NOW: &str = "2026-11-28T00:00:00Z";

struct Rig {
    repository: Repository,
    record: farshore_journal::format::body::IncarnationRecord,
    options: WriterOptions,
}

impl Rig {
    async fn over(store: Arc<dyn ObjectStore>) -> Self {
        let repository = Repository::open_or_found(store, NOW).await.unwrap();
        let database = "orders".parse().unwrap();
        let founding = Founding {
            database: &database,
            number: 0,
            engine: "postgres",
            identity: "7",
            major: 15,
            segment_bytes: 1 << 20,
            now: NOW,
            reason: "first",
        };
        let record = repository.found_incarnation(founding).await.unwrap();
        let options = WriterOptions {
            compression: Compression::Zstd(1),
            recipients: Recipients::default(),
            segment_bytes: 1 << 20,
            host: "here".to_owned(),
        };
        Self { repository, record, options }
    }

    fn reader(&self) -> Reader {
        Reader::new(&self.repository, &self.record).unwrap()
    }

    async fn take_over(&self) -> Writer {
        let at = Position::new(Timeline::new(1), Offset::new(0));
        Writer::take_over(self.reader(), &self.options, at, &|_| {}).await.unwrap()
    }

    /// All log of the journal, as a restore reads it.
    async fn log(&self) -> Vec<u8> {
        let reader = self.reader();
        let Some(last) = reader.last().await.unwrap() else { return Vec::new() };
        let mut keys = Keyring::new(Unlock::default());
        let mut log = Vec::new();
        for number in 0..=last.header().number.get() {
            let chunk = reader.expected_chunk(farshore_journal::Sequence::new(number)).await.unwrap();
            if chunk.header().kind == farshore_journal::format::Kind::Data {
                let key = keys.for_chunk(&reader, chunk.header()).await.unwrap();
                for frame in 0..chunk.header().frames {
                    log.extend_from_slice(&chunk.plain(frame as usize, key.as_ref()).unwrap());
                }
            }
        }
        log
    }
}

async fn extend(writer: &mut Writer, log: &[u8]) -> bool {
    if writer.tail_takes(log.len()) == TailTakes::Nothing {
        return false;
    }
    let (entry, _) = encode_data(writer.tail_place(), log).unwrap();
    writer.extend(&entry).await.unwrap()
}

async fn append(writer: &mut Writer, log: &[u8]) -> Result<(), JournalError> {
    let (chunk, _) = encode_data(writer.place(), log).unwrap();
    writer.append(&chunk, &|_| {}).await
}

async fn both(check: impl AsyncFn(Rig)) {
    check(Rig::over(Arc::new(MemoryStore::new())).await).await;
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions::for_writing().make_root();
    let store = FileStore::open(&folder.path().join("store"), &options).unwrap();
    check(Rig::over(Arc::new(store)).await).await;
}

#[tokio::test]
async fn what_an_owner_left_in_its_tail_is_before_the_next_owners_opening() {
    both(async |rig| {
        let mut first = rig.take_over().await;
        append(&mut first, b"one ").await.unwrap();
        for log in [&b"two "[..], b"three ", b"four "] {
            assert!(extend(&mut first, log).await);
        }
        let stored = first.stored();
        drop(first);
        let second = rig.take_over().await;
        assert_eq!(second.stored(), stored);
        assert_eq!(rig.log().await, b"one two three four ");
    })
    .await;
}

/// Several on their way, as a shipper sends them.
fn send(writer: &mut Writer, log: &[u8]) {
    assert_eq!(writer.tail_takes(log.len()), TailTakes::Now);
    let packers = Packers::new(Compression::Zstd(1));
    let entry = encode_entry(writer.tail_place(), log, &packers).unwrap();
    assert!(writer.send(&entry).unwrap());
}

#[tokio::test]
async fn entries_that_are_sent_together_count_in_their_order_and_a_put_waits_for_them() {
    both(async |rig| {
        let mut owner = rig.take_over().await;
        let start = owner.stored().offset.get();
        assert!(owner.begin_tail().await);
        let large = vec![7; 10_000];
        for log in [&b"one "[..], &large, b"two ", b"three "] {
            send(&mut owner, log);
        }
        assert_eq!(owner.stored().offset.get(), start, "nothing was heard yet");
        // Asked and given up as a select does.
        let heard = tokio::time::timeout(std::time::Duration::ZERO, owner.heard()).await;
        let _ = heard;
        while owner.is_in_flight() {
            let early = append(&mut owner, b"x").await;
            assert!(early.is_err(), "a chunk that is put beside entries on their way");
            assert!(owner.heard().await);
        }
        assert_eq!(owner.stored().offset.get(), start + 4 + 10_000 + 4 + 6);
        drop(owner);
        rig.take_over().await;
        let all = [&b"one "[..], &large, b"two three "].concat();
        assert_eq!(rig.log().await, all);
    })
    .await;
}

#[tokio::test]
async fn behind_one_that_is_refused_nothing_counts_and_the_next_chunk_holds_all_that_was_sent() {
    both(async |rig| {
        let mut owner = rig.take_over().await;
        assert!(extend(&mut owner, b"one ").await);
        let counted = owner.stored();
        let reader = rig.reader();
        let folder = reader.layout().tails(owner.generation()).unwrap();
        reader.store().tails().there().unwrap().close(&folder).await.unwrap();
        for log in [b"two ", b"six "] {
            send(&mut owner, log);
        }
        assert!(!owner.heard().await);
        assert!(!owner.is_in_flight() && owner.tail_takes(1) == TailTakes::Nothing);
        assert_eq!(owner.stored(), counted, "what was counted stays, and no more");
        assert!(append(&mut owner, b"one two ").await.is_err(), "it lacks what was sent");
        append(&mut owner, b"one two six ").await.unwrap();
        assert_eq!(rig.log().await, b"one two six ");
    })
    .await;
}

#[tokio::test]
async fn a_chunk_takes_the_tails_place_and_the_next_round_begins() {
    both(async |rig| {
        let mut owner = rig.take_over().await;
        for round in 0..5u8 {
            let all: Vec<u8> = (0..3).map(|entry| round * 3 + entry).collect();
            for entry in &all {
                assert!(extend(&mut owner, &[*entry]).await);
            }
            assert!(owner.has_tail());
            append(&mut owner, &all).await.unwrap();
            assert!(!owner.has_tail());
        }
        assert!(extend(&mut owner, &[15]).await);
        drop(owner);
        // Nobody opens: whoever reads puts what stands there.
        assert_eq!(rig.log().await, (0..16).collect::<Vec<u8>>());
    })
    .await;
}

#[tokio::test]
async fn a_chunk_that_holds_less_than_was_sent_to_the_tail_is_refused() {
    both(async |rig| {
        let mut owner = rig.take_over().await;
        assert!(extend(&mut owner, b"one").await);
        assert!(matches!(append(&mut owner, b"on").await, Err(JournalError::Broken { .. })));
        append(&mut owner, b"one two").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_owner_whose_tail_was_closed_counts_nothing_more_in_it_and_the_newer_one_fences_it() {
    both(async |rig| {
        let mut old = rig.take_over().await;
        assert!(extend(&mut old, b"one ").await);
        let new = rig.take_over().await;
        assert!(!extend(&mut old, b"two ").await, "it is closed");
        assert!(!extend(&mut old, b"two ").await, "and stays so");
        let put = append(&mut old, b"one two ").await;
        let by = Some((new.generation(), new.place().writer_id()));
        assert!(matches!(&put, Err(JournalError::Fenced { by: found, .. }) if *found == by), "{put:?}");
        assert_eq!(rig.log().await, b"one ");
    })
    .await;
}

#[tokio::test]
async fn an_owner_whose_tail_a_reader_put_opens_anew_and_loses_nothing() {
    both(async |rig| {
        let mut owner = rig.take_over().await;
        assert!(extend(&mut owner, b"one ").await);
        assert_eq!(rig.reader().last_to_own("here").await.unwrap().unwrap().header().end.get(), 4);
        let put = append(&mut owner, b"one two ").await;
        assert!(matches!(put, Err(JournalError::OpenAnew { .. })), "{put:?}");
        let mut owner = rig.take_over().await;
        assert!(extend(&mut owner, b"two ").await, "a new generation has tails of its own");
        assert_eq!(rig.log().await, b"one two ");
    })
    .await;
}

#[tokio::test]
async fn a_tail_that_failed_is_followed_by_a_chunk_and_what_it_held_is_no_log_twice() {
    both(async |rig| {
        let mut owner = rig.take_over().await;
        assert!(extend(&mut owner, b"one ").await);
        // What comes after it was closed is sent, and does not count.
        rig.repository
            .store()
            .tails()
            .there()
            .unwrap()
            .close(&rig.reader().layout().tails(owner.generation()).unwrap())
            .await
            .unwrap();
        assert!(!extend(&mut owner, b"two ").await);
        append(&mut owner, b"one two ").await.unwrap();
        append(&mut owner, b"three ").await.unwrap();
        drop(owner);
        rig.take_over().await;
        assert_eq!(rig.log().await, b"one two three ");
    })
    .await;
}

#[tokio::test]
async fn tails_of_older_generations_are_deleted_once_the_next_owner_stands() {
    both(async |rig| {
        let mut owner = rig.take_over().await;
        assert!(extend(&mut owner, b"one ").await);
        let mut owner = rig.take_over().await;
        assert!(extend(&mut owner, b"two ").await);
        let tails = rig.repository.store().tails().there().unwrap();
        let first = rig.reader().layout().tails(farshore_journal::Generation::FIRST).unwrap();
        assert_eq!(tails.read(&first).await.unwrap(), []);
        let own = rig.reader().layout().tails(owner.generation()).unwrap();
        assert_eq!(tails.read(&own).await.unwrap().len(), 1);
    })
    .await;
}
