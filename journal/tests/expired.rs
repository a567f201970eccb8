//! Expired runs: whatever is marked and deleted, readers see what is left as it was, know what expired from what was lost, and find
//! the end, every generation's opening and every offset that is left.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

mod rig;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chrono::Utc;
use farshore_journal::expired::ExpiredRun;
use farshore_journal::expiry::{self, Deleted, Marking};
use farshore_journal::format::{Header, Kind};
use farshore_journal::reader::{Reader, follows};
use farshore_journal::store::ObjectStore;
use farshore_journal::{JournalError, Sequence};
use farshore_testkit::random::Random;
use farshore_testkit::soak::Campaign;

use rig::Rig;

fn marking() -> Marking {
    Marking { host: "here".to_owned(), at: Utc::now(), reason: "window".to_owned() }
}

/// Every chunk as it was written: its header, and its plain log.
type Truth = BTreeMap<u64, (Header, Vec<u8>)>;

async fn truth(rig: &Rig, known: &mut Truth) {
    let reader = rig.reader();
    let mut keys = rig.keys();
    let last = reader.last().await.unwrap().unwrap().header().number.get();
    for number in 0..=last {
        if known.contains_key(&number) {
            continue;
        }
        let chunk = reader.expected_chunk(Sequence::new(number)).await.unwrap();
        let key = keys.for_chunk(&reader, chunk.header()).await.unwrap();
        let plain = match chunk.header().kind {
            Kind::Data => chunk.plain_all(key.as_ref()).unwrap(),
            _ => Vec::new(),
        };
        known.insert(number, (chunk.header().clone(), plain));
    }
}

/// All data chunks between two that are none, chosen at random.
fn choose(known: &Truth, rng: &mut Random) -> Option<(u64, u64)> {
    let borders: Vec<u64> = known
        .iter()
        .filter(|(_, (header, _))| header.kind != Kind::Data)
        .map(|(number, _)| *number)
        .collect();
    let stretches: Vec<(u64, u64)> = borders
        .windows(2)
        .map(|pair| (pair[0] + 1, pair[1] - 1))
        .filter(|(first, last)| first <= last)
        .collect();
    stretches.get(rng.below(stretches.len().max(1) as u64) as usize).copied()
}

/// Reads all that is left, and holds it against what was written. `gone`: numbers of runs whose deletion was begun. How many have expired.
async fn stands(rig: &Rig, reader: &Reader, known: &Truth, gone: &[ExpiredRun], seed: u64) -> u64 {
    let last = reader.last().await.unwrap_or_else(|why| panic!("seed {seed}: the end: {why}")).unwrap();
    assert_eq!(last.header().number.get(), *known.keys().last().unwrap(), "seed {seed}: the end moved");
    let within = |number: u64| gone.iter().any(|run| run.name.covers(Sequence::new(number)));
    let mut keys = rig.keys();
    let mut expired = 0;
    let mut former: Option<Header> = None;
    for (number, (header, plain)) in known {
        match reader.expected_chunk(Sequence::new(*number)).await {
            Ok(chunk) => {
                assert_eq!(
                    (chunk.header().link(), chunk.header().after),
                    (header.link(), header.after),
                    "seed {seed}"
                );
                if header.kind == Kind::Data {
                    let key = keys
                        .for_chunk(reader, header)
                        .await
                        .unwrap_or_else(|why| panic!("seed {seed}: key: {why}"));
                    assert!(
                        chunk.plain_all(key.as_ref()).unwrap() == *plain,
                        "seed {seed}: chunk {number} has other bytes"
                    );
                }
                if let Some(former) = &former {
                    assert!(follows(former, chunk.header()), "seed {seed}: {number}");
                }
                former = Some(header.clone());
            }
            Err(JournalError::Expired { run, .. }) => {
                assert!(
                    within(*number),
                    "seed {seed}: chunk {number} counts as expired and nobody deleted it"
                );
                assert!(run.name.covers(Sequence::new(*number)));
                let behind = &known[&(run.name.last.get() + 1)].0;
                assert_eq!(run.header.after, behind.before, "seed {seed}: the chain goes on behind it");
                expired += 1;
                former = None;
            }
            Err(why) => panic!("seed {seed}: chunk {number}: {why}"),
        }
    }
    let end = last.header().number;
    for generation in
        known.values().map(|(header, _)| header.generation).collect::<std::collections::BTreeSet<_>>()
    {
        reader
            .opening(generation, end)
            .await
            .unwrap_or_else(|why| panic!("seed {seed}: the opening of {generation}: {why}"));
    }
    for (number, (header, _)) in known.iter().filter(|(_, (header, _))| header.kind == Kind::Data) {
        let middle = header.start.get() + (header.end.get() - header.start.get()) / 2;
        let found = reader.first_in(Sequence::FIRST, end, |h| h.end.get() > middle).await.unwrap();
        let there = &known[&found.get()].0;
        match reader.expected_chunk(Sequence::new(*number)).await {
            Ok(_) => assert_eq!(found.get(), *number, "seed {seed}: where offset {middle} is"),
            Err(_) => assert!(
                there.start.get() > middle,
                "seed {seed}: an expired offset was found in another chunk"
            ),
        }
    }
    expired
}

async fn one_story(seed: u64) -> (u64, u64) {
    let mut rng = Random::new(seed);
    let mut rig = Rig::new(rng.number(), rng.below(2) < 1).await;
    let mut known = Truth::new();
    let mut runs: Vec<ExpiredRun> = Vec::new();
    let (mut gone, mut deleted): (Vec<ExpiredRun>, _) = (Vec::new(), Deleted::default());
    let (mut expired, mut late_openings) = (0, 0);
    for _ in 0..12 {
        for _ in 0..rng.below(50) {
            rig.append().await;
        }
        if rng.below(2) < 1 {
            rig.reopen().await;
        }
        truth(&rig, &mut known).await;
        if rng.below(3) < 2 {
            rig.merge().await;
        }
        if rng.below(2) < 1 {
            rig.tidy().await;
        }
        if let Some((first, last)) = choose(&known, &mut rng) {
            match expiry::mark_run(&rig.reader(), (Sequence::new(first), Sequence::new(last)), &marking())
                .await
            {
                Ok(run) => runs.push(run),
                // Its deletion was begun.
                Err(JournalError::Expired { .. }) => {}
                Err(why) => panic!("seed {seed}: marking: {why}"),
            }
        }
        stands(&rig, &rig.reader(), &known, &gone, seed).await;
        if !runs.is_empty() && rng.below(3) < 2 {
            let run = runs[rng.below(runs.len() as u64) as usize].clone();
            let most = if rng.below(2) < 1 { 1_000 } else { 8 };
            let left = AtomicU64::new(rng.below(most));
            let more = || {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            };
            gone.push(run.clone());
            let ends = (run.name.first, run.name.last);
            let left = expiry::Leftovers::list(&rig.reader(), ends).await.unwrap();
            deleted.add(expiry::delete_run(&rig.reader(), &run, &left, &more).await.unwrap());
        }
        expired = stands(&rig, &rig.reader(), &known, &gone, seed).await;
        if rng.below(3) < 1
            && let Some(run) = gone.last()
        {
            // An opener who slept for more than a day: his opening lands at a number that was freed.
            let number = run.name.first;
            let key = rig.writer.reader().layout().chunk(number).unwrap();
            let opening = known.values().rev().find(|(header, _)| header.kind == Kind::Opening).unwrap();
            let bytes =
                rig.store.get(&rig.writer.reader().layout().chunk(opening.0.number).unwrap()).await.unwrap();
            rig.store.create(&key, late(bytes, number)).await.unwrap();
            // Each look at its run counts it.
            late_openings += 12;
            expired = stands(&rig, &rig.reader(), &known, &gone, seed).await;
        }
    }
    assert!(deleted.foreign <= late_openings, "seed {seed}: {deleted:?}");
    (deleted.objects, expired)
}

/// The same opening as it would stand at another number: what matters is that it is another generation's.
fn late(bytes: Bytes, number: Sequence) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[48..56].copy_from_slice(&number.get().to_le_bytes());
    let checksum = blake3::hash(&bytes[..240]);
    bytes[240..256].copy_from_slice(&checksum.as_bytes()[..16]);
    let end = bytes.len() - 32;
    let trailer = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(trailer.as_bytes());
    Bytes::from(bytes)
}

/// A segment that was put over numbers that had expired meanwhile, behind which nothing is left: the campaign found it taken for damage.
#[tokio::test]
async fn a_segment_that_comes_late_over_expired_chunks_is_no_damage() {
    one_story(15_508_903_688_617_999_709).await;
}

#[tokio::test]
async fn soak_expired_runs_mislead_no_reader() {
    let mut campaign = Campaign::start("expired_runs_mislead_no_reader");
    while campaign.next_round() {
        let (objects, expired) = one_story(campaign.random.number()).await;
        campaign.count("stories", 1);
        campaign.count("deleted", objects);
        campaign.count("expired", expired);
    }
    campaign.finish();
}
