//! Segments and tidying: whatever is merged and deleted, readers see the same journal, and nothing is deleted on the word of a
//! segment that does not hold.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

mod rig;

use std::sync::Arc;

use bytes::Bytes;
use farshore_journal::chunk::Chunk;
use farshore_journal::format::{ChainValue, Header, Unlock};
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::Repository;
use farshore_journal::segments::SegmentName;
use farshore_journal::store::memory::MemoryStore;
use farshore_journal::store::{Key, KeyPrefix, ObjectStore};
use farshore_journal::tidy::{TidyOptions, tidy};
use farshore_journal::{JournalError, Sequence};
use farshore_testkit::soak::Campaign;

use rig::{Rig, mark};

/// Walks the whole journal, as a restore would: its log's bytes and the chain's head.
async fn walk(reader: &Reader, keys: &mut Keyring) -> Result<(Vec<u8>, ChainValue, usize), JournalError> {
    let last = reader.last().await?.expect("a journal").header().number;
    let mut before = reader.genesis();
    let (mut log, mut merged) = (Vec::new(), 0);
    for number in 0..=last.get() {
        let chunk: Chunk = reader.expected_chunk(Sequence::new(number)).await?;
        let header = chunk.header().clone();
        assert_eq!(header.number.get(), number);
        if header.before != before {
            return Err(JournalError::Broken { before: header.number, at: header.number });
        }
        // The two may be read from the object and from its segment: what lies where in the store may differ, no more.
        let outlined = reader.expected_header(header.number).await?;
        let said =
            |of: &Header| (of.number, of.link(), of.start, of.end, of.frames, of.before, of.after, of.mark);
        assert_eq!(said(&outlined), said(&header));
        before = header.after;
        merged += usize::from(chunk.is_merged());
        if header.kind == farshore_journal::format::Kind::Data {
            let key = keys.for_chunk(reader, &header).await?;
            let plain = chunk.plain_all(key.as_ref()).map_err(|source| JournalError::Object {
                key: reader.layout().chunk(header.number).unwrap(),
                source,
            })?;
            assert_eq!(header.start.get(), log.len() as u64);
            assert_eq!(header.mark, mark(header.number));
            log.extend_from_slice(&plain);
        }
    }
    Ok((log, before, merged))
}

async fn everything_stands(rig: &Rig) -> usize {
    let (log, head, merged) = walk(&rig.reader(), &mut rig.keys()).await.unwrap();
    assert!(log == rig.log, "the journal's bytes changed");
    assert_eq!(head, rig.writer.place().chain());
    merged
}

#[tokio::test]
async fn a_journal_reads_the_same_with_chunks_present_absent_or_half_deleted() {
    for sealed in [false, true] {
        let mut rig = Rig::new(11, sealed).await;
        for _ in 0..60 {
            rig.append().await;
        }
        assert_eq!(everything_stands(&rig).await, 0);
        rig.reopen().await;
        assert!(rig.merge().await >= 4);
        assert!(everything_stands(&rig).await > 30, "segments' word goes before objects'");
        let present = rig.objects("journal").await.len();
        for key in rig.objects("journal").await.into_iter().skip(2).step_by(2).take(10) {
            rig.store.delete(&key).await.unwrap();
        }
        everything_stands(&rig).await;
        let done = rig.tidy().await;
        assert!(done.chunks > 20 && done.refused.is_empty(), "{done:?}");
        assert!(rig.objects("journal").await.len() < present / 2);
        everything_stands(&rig).await;
        assert_eq!(rig.tidy().await.chunks, 0, "tidied twice is tidied once");
        rig.append().await;
        everything_stands(&rig).await;
    }
}

#[tokio::test]
async fn an_opener_finds_the_end_of_a_tidied_journal() {
    let mut rig = Rig::new(3, false).await;
    for round in 0..5 {
        for _ in 0..40 {
            rig.append().await;
        }
        rig.reopen().await;
        rig.merge().await;
        rig.tidy().await;
        let last = rig.reader().last().await.unwrap().unwrap().header().number;
        assert_eq!(last.next(), Some(rig.writer.place().number()), "round {round}");
    }
    everything_stands(&rig).await;
}

#[tokio::test]
async fn nothing_behind_the_newest_opening_is_deleted() {
    let mut rig = Rig::new(5, false).await;
    for _ in 0..60 {
        rig.append().await;
    }
    assert!(rig.merge().await > 2);
    let before = rig.objects("journal").await;
    let done = rig.tidy().await;
    assert!(done.segments > 2 && done.chunks == 0, "{done:?}");
    assert_eq!(rig.objects("journal").await, before);
}

#[tokio::test]
async fn nothing_is_deleted_before_its_grace() {
    let mut rig = Rig::new(5, false).await;
    for _ in 0..60 {
        rig.append().await;
    }
    rig.reopen().await;
    rig.merge().await;
    // Time stands still in this store: nothing ever grows old in it.
    let options = TidyOptions::new(farshore_journal::writer::TIDY_GRACE, false).unwrap();
    let done = tidy(&rig.reader(), &mut rig.keys(), options).await.unwrap();
    assert_eq!((done.chunks, done.refused.len()), (0, 0));
    assert!(done.kept > 20);
    assert!(TidyOptions::new(farshore_journal::writer::TIDY_GRACE / 2, false).is_err());
}

#[tokio::test]
async fn nothing_is_deleted_for_a_segment_that_does_not_hold() {
    let mut rig = Rig::new(8, true).await;
    for _ in 0..80 {
        rig.append().await;
    }
    rig.reopen().await;
    rig.merge().await;
    let segments = rig.objects("segments").await;
    let chunks = rig.objects("journal").await;
    for at in 0..200u64 {
        let key = &segments[(at as usize) % segments.len()];
        let sound = rig.store.get(key).await.unwrap();
        let mut bytes = sound.to_vec();
        let place = rig.rng.below(bytes.len() as u64) as usize;
        bytes[place] ^= 1 << rig.rng.below(8);
        rig.store.replace(key, Bytes::from(bytes));
        // The chunks are still there: readers take them.
        let reader = rig.reader();
        let name = key.name().parse().unwrap();
        assert!(reader.segment_anew(&name).await.is_err(), "byte {place} of {key} changed unseen");
        rig.store.replace(key, sound);
    }
    let key = &segments[1];
    let other = rig.store.get(&segments[0]).await.unwrap();
    let sound = rig.store.get(key).await.unwrap();
    rig.store.replace(key, other);
    everything_stands(&rig).await;
    let done = rig.tidy().await;
    assert_eq!(done.refused.len(), 1, "{done:?}");
    let left = rig.objects("journal").await;
    let name: SegmentName = key.name().parse().unwrap();
    let covered = |key: &&Key| key.name().parse().is_ok_and(|number| name.covers(number));
    assert_eq!(left.iter().filter(covered).count(), chunks.iter().filter(covered).count());
    rig.store.replace(key, sound);
    everything_stands(&rig).await;
}

#[tokio::test]
async fn a_bad_segment_without_its_chunks_is_an_error_and_never_a_shorter_journal() {
    let mut rig = Rig::new(9, false).await;
    for _ in 0..60 {
        rig.append().await;
    }
    rig.reopen().await;
    rig.merge().await;
    rig.tidy().await;
    let key = rig.objects("segments").await[1].clone();
    let sound = rig.store.get(&key).await.unwrap();
    rig.store.replace(&key, sound.slice(..sound.len() - 1));
    let walked = walk(&rig.reader(), &mut rig.keys()).await;
    assert!(matches!(walked, Err(JournalError::Object { .. })), "{walked:?}");
    rig.store.delete(&key).await.unwrap();
    let walked = walk(&rig.reader(), &mut rig.keys()).await;
    assert!(matches!(walked, Err(JournalError::Hole { .. })), "{:?}", walked.map(|w| w.2));
}

/// Whoever may create objects puts a segment of bytes that never were in the journal.
#[tokio::test]
async fn a_forged_segment_hides_no_chunk_and_lets_none_be_deleted() {
    let mut rig = Rig::new(21, false).await;
    for _ in 0..6 {
        rig.append().await;
    }
    // The forger has everything that is stored so far, and goes on otherwise.
    let forged = {
        let mut forger = Rig::new(22, false).await;
        forger.store = Arc::new(MemoryStore::new());
        for listed in rig.store.list(&KeyPrefix::ROOT, None, None).await.unwrap() {
            let bytes = rig.store.get(&listed.key).await.unwrap();
            forger.store.create(&listed.key, bytes).await.unwrap();
        }
        let store = Arc::clone(&forger.store) as Arc<dyn ObjectStore>;
        forger.repository = Repository::open(store).await.unwrap();
        forger.record = rig.record.clone();
        forger.reopen().await;
        forger.log.clear();
        for _ in 0..30 {
            forger.append().await;
        }
        assert!(forger.merge().await > 1);
        let mut objects = Vec::new();
        for key in forger.objects("segments").await {
            objects.push((key.clone(), forger.store.get(&key).await.unwrap()));
        }
        objects
    };
    for _ in 0..60 {
        rig.append().await;
    }
    for (key, bytes) in forged {
        rig.store.create(&key, bytes).await.unwrap();
    }
    assert_eq!(everything_stands(&rig).await, 0);
    rig.reopen().await;
    rig.merge().await;
    everything_stands(&rig).await;
    let done = rig.tidy().await;
    assert!(done.refused.len() > 1 && done.chunks > 20, "{done:?}");
    everything_stands(&rig).await;
}

#[tokio::test]
async fn chunks_lost_before_a_segment_are_a_hole_and_not_the_journals_end() {
    let mut rig = Rig::new(23, false).await;
    for _ in 0..60 {
        rig.append().await;
    }
    rig.merge().await;
    // What a lagging copy of a store may have: the first chunks, and a segment of later ones.
    for key in rig.objects("journal").await.split_off(5) {
        rig.store.delete(&key).await.unwrap();
    }
    let mut others = rig.objects("segments").await;
    assert!(others.len() > 2 && others.pop().is_some());
    for key in others {
        rig.store.delete(&key).await.unwrap();
    }
    let found = rig.reader().last().await;
    let hole = matches!(found, Err(JournalError::Hole { missing: at }) if at.get() == 5);
    assert!(hole, "{:?}", found.map(|last| last.map(|last| last.header().number)));
}

#[tokio::test]
async fn a_sealed_journal_is_tidied_only_where_a_private_key_is_at_hand() {
    let mut rig = Rig::new(24, true).await;
    for _ in 0..60 {
        rig.append().await;
    }
    rig.reopen().await;
    rig.merge().await;
    let options = TidyOptions::at_once_for_tests();
    let done = tidy(&rig.reader(), &mut Keyring::new(Unlock::none()), options).await.unwrap();
    assert!(done.chunks == 0 && done.refused.len() > 2, "{done:?}");
    assert!(rig.tidy().await.chunks > 20);
    everything_stands(&rig).await;
}

/// A late request of a writer that died may fill a number that tidy freed. The segment was there first.
#[tokio::test]
async fn what_a_late_request_puts_at_a_freed_number_is_not_read() {
    let mut rig = Rig::new(2, false).await;
    for _ in 0..40 {
        rig.append().await;
    }
    rig.reopen().await;
    rig.merge().await;
    let zombie = rig.store.get(&rig.objects("journal").await[5]).await.unwrap();
    rig.tidy().await;
    let freed = rig.writer.reader().layout().chunk(Sequence::new(3)).unwrap();
    rig.store.replace(&freed, zombie);
    everything_stands(&rig).await;
}

#[tokio::test]
async fn a_name_that_is_no_number_never_ends_the_journal() {
    let mut rig = Rig::new(2, false).await;
    for _ in 0..9 {
        rig.append().await;
    }
    // One of those that the search for the end asks for.
    let key = rig.writer.reader().layout().chunk(Sequence::new(6)).unwrap();
    let bytes = rig.store.get(&key).await.unwrap();
    rig.store.delete(&key).await.unwrap();
    rig.store.create(&Key::new(format!("{key}.bad")).unwrap(), bytes).await.unwrap();
    let found = rig.reader().last().await;
    assert!(
        matches!(found, Err(JournalError::Hole { missing }) if missing.get() == 6),
        "{:?}",
        found.is_ok()
    );
}

/// Readers walk the journal again and again while it grows, is merged and is tidied, each with what it remembers of the
/// segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_merges_and_tidies() {
    let mut campaign = Campaign::start("merges_and_tidies");
    let mut sealed = false;
    let mut merges = 0;
    while campaign.next_round() {
        sealed = !sealed;
        let mut rig = Rig::new(campaign.random.number(), sealed).await;
        for _ in 0..40 {
            rig.append().await;
        }
        rig.reopen().await;
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let (reader, mut keys, stop) = (rig.reader(), rig.keys(), Arc::clone(&stop));
            readers.spawn(async move {
                let (mut walks, mut longest) = (0u64, 0);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let (log, _, _) = walk(&reader, &mut keys).await.unwrap();
                    assert!(log.len() >= longest, "the journal became shorter");
                    longest = log.len();
                    walks += 1;
                }
                walks
            });
        }
        for _ in 0..6 {
            for _ in 0..30 {
                rig.append().await;
                tokio::task::yield_now().await;
            }
            rig.reopen().await;
            merges += rig.merge().await as u64;
            campaign.count("tidies", 1);
            campaign.count("deleted", rig.tidy().await.chunks);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        while let Some(walks) = readers.join_next().await {
            campaign.count("walks", walks.unwrap());
        }
        everything_stands(&rig).await;
    }
    campaign.count("merges", merges);
    assert!(merges > 0);
    campaign.finish();
}
