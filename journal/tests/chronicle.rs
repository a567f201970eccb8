//! The promise: however many seal a chronicle at once, with whatever they last knew of the store, what it holds is one unbroken run of the entries that were
//! written, and nothing in it is another's.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure message

use std::sync::Arc;

use farshore_journal::chronicle::{self, Flaw, Put, Strand};
use farshore_journal::format::page::{Entry, Place};
use farshore_journal::format::{Chronicle, EntryDigest, LifeId, Page, Recipients};
use farshore_journal::registry::Repository;
use farshore_journal::store::ObjectStore;
use farshore_journal::store::faults::{Faults, Faulty};
use farshore_journal::store::memory::MemoryStore;
use farshore_testkit::random::Random;
use serde_json::json;

const ROUNDS: u64 = 300;

fn digest(number: u64) -> EntryDigest {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    EntryDigest::from_bytes(bytes)
}

fn life() -> LifeId {
    LifeId::of(&digest(1))
}

/// One who seals: what he last knew of the store's end.
struct Sealer {
    repository: Repository,
    next: u64,
}

impl Sealer {
    fn page(&self, upto: u64) -> Page {
        let place = Place {
            store: self.repository.id(),
            chronicle: Chronicle::Activity,
            life: life(),
            first: self.next,
            before: (self.next > 1).then(|| digest(self.next - 1)),
        };
        let entry = |number| Entry { digest: digest(number), said: json!(number) };
        Page::make(place, (self.next..=upto).map(entry).collect(), &Recipients::default(), None).unwrap()
    }

    /// Begins anew with what a listing says, which may be old.
    async fn look(&mut self) {
        let Ok(names) = chronicle::names(&self.repository, &Chronicle::Activity).await else { return };
        let firsts = names.lives.get(&life()).cloned().unwrap_or_default();
        self.next = 1;
        if let Some(first) = firsts.last()
            && let Ok(page) = chronicle::read(&self.repository, &Chronicle::Activity, life(), *first).await
        {
            self.next = page.last() + 1;
        }
    }

    async fn seal(&mut self, upto: u64) {
        if upto < self.next {
            return;
        }
        let page = self.page(upto.min(self.next + 9));
        match chronicle::put(&self.repository, &page).await {
            Ok(Put::Done) => self.next = page.last() + 1,
            Ok(Put::There(there)) => {
                assert_eq!(there.after(), digest(there.last()), "a page that nobody wrote");
                self.next = there.last() + 1;
            }
            // In doubt: he looks again, or sends again from where he was, with more by then.
            Err(_) => {}
        }
    }
}

async fn strand(repository: &Repository) -> Strand {
    let names = chronicle::names(repository, &Chronicle::Activity).await.unwrap();
    assert_eq!(names.strangers, []);
    let mut read = Vec::new();
    for first in &names.lives[&life()] {
        let page = chronicle::read(repository, &Chronicle::Activity, life(), *first).await;
        read.push((*first, page.map_err(|why| why.to_string())));
    }
    Strand::of(life(), read)
}

#[tokio::test]
async fn two_who_seal_at_once_over_a_store_that_loses_answers_make_one_unbroken_run() {
    for seed in 0..ROUNDS {
        let memory = Arc::new(MemoryStore::new());
        let repository = Repository::open_or_found(memory.clone(), "2026-11-27T00:00:00Z").await.unwrap();
        let mut sealers = Vec::new();
        for which in 0..2 {
            let faults = Faults { short_list: 0.3, empty_list: 0.1, ..Faults::weather(0.15) };
            let store = Arc::new(Faulty::new(memory.clone(), seed * 2 + which, Faults::default()));
            let repository = Repository::open(store.clone()).await.unwrap();
            store.set(faults);
            sealers.push(Sealer { repository, next: 1 });
        }
        let mut random = Random::new(seed);
        let mut draw = |below: u64| random.below(below);
        let mut written = 0;
        for _ in 0..60 {
            written += draw(4);
            let who = usize::try_from(draw(2)).unwrap();
            match draw(5) {
                0 => sealers[who].look().await,
                // An older snapshot of the catalog.
                1 => sealers[who].seal(written / 2).await,
                _ => sealers[who].seal(written).await,
            }
        }
        let mut calm = Sealer { repository: repository.clone(), next: 1 };
        calm.look().await;
        while calm.next <= written {
            calm.seal(written).await;
        }
        let strand = strand(&repository).await;
        assert_eq!(strand.flaws, [], "seed {seed}");
        assert_eq!(strand.end(), Some((written, digest(written))), "seed {seed}");
    }
}

#[tokio::test]
async fn a_page_that_was_changed_moved_or_deleted_is_found() {
    let memory = Arc::new(MemoryStore::new());
    let repository = Repository::open_or_found(memory.clone(), "2026-11-27T00:00:00Z").await.unwrap();
    let mut sealer = Sealer { repository: repository.clone(), next: 1 };
    for upto in [3, 5, 9] {
        sealer.seal(upto).await;
    }
    assert_eq!(strand(&repository).await.flaws, []);
    let keys = memory
        .list(&farshore_journal::layout::chronicle(&Chronicle::Activity).unwrap(), None, None)
        .await
        .unwrap();
    let bytes = memory.get(&keys[1].key).await.unwrap();
    memory.delete(&keys[1].key).await.unwrap();
    assert_eq!(strand(&repository).await.flaws, [Flaw::Missing { from: 4, through: 5 }]);
    // Another page in its place, whole and of this store.
    let other = memory.get(&keys[2].key).await.unwrap();
    memory.create(&keys[1].key, other).await.unwrap();
    assert!(matches!(strand(&repository).await.flaws.as_slice(), [Flaw::Unread { at: 4, .. }]));
    memory.delete(&keys[1].key).await.unwrap();
    let mut changed = bytes.to_vec();
    let at = changed.len() / 2;
    changed[at] ^= 4;
    memory.create(&keys[1].key, changed.into()).await.unwrap();
    assert!(matches!(strand(&repository).await.flaws.as_slice(), [Flaw::Unread { at: 4, .. }]));
    // A page that would not end is not fetched whole.
    memory.delete(&keys[1].key).await.unwrap();
    memory.create(&keys[1].key, vec![b' '; 9 << 20].into()).await.unwrap();
    assert!(matches!(strand(&repository).await.flaws.as_slice(), [Flaw::Unread { at: 4, .. }]));
}
