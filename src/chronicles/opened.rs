//! A store that is opened once and kept.
//!
//! What always holds: opening, which for a folder is file work that may never end, is on no async thread; nobody waits for it longer than a deadline, and at most
//! one is under way: a store that hangs holds one thread, however often it is asked for. What is done in an opened store has deadlines of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use farshore_journal::registry::Repository;
use farshore_journal::store::{ObjectStore, StoreError};
use farshore_shipper::founding::Open;
use tokio::task::JoinHandle;

use crate::config::{Config, StoreName};
use crate::wiring::{self, Purpose};

/// How long opening is waited for: the links and syncs of a healthy store take milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

type Opening = JoinHandle<Result<Arc<dyn ObjectStore>, StoreError>>;

/// A store, opened or not yet.
pub struct Opened {
    open: Open,
    url: String,
    deadline: Duration,
    kept: Option<Arc<dyn ObjectStore>>,
    opening: Option<Opening>,
}

impl Opened {
    /// A store of the configuration; nothing is opened yet.
    ///
    /// # Errors
    /// When a secret does not read.
    pub fn new(config: &Config, store: &StoreName, purpose: Purpose) -> anyhow::Result<Self> {
        let (open, url) = wiring::unopened(config, store, purpose)?;
        Ok(Self { open, url, deadline: DEADLINE, kept: None, opening: None })
    }

    /// The store as it is now: its record is read each time, since it may be another by now.
    ///
    /// # Errors
    /// When it does not open or answer in time, or was never founded.
    ///
    /// # Cancel safety
    /// What was begun is waited for by the next call.
    pub async fn repository(&mut self) -> anyhow::Result<Repository> {
        let store = match &self.kept {
            Some(store) => Arc::clone(store),
            None => self.store().await?,
        };
        let repository = Repository::open(Arc::clone(&store)).await;
        // A folder that was opened while its mount was away stays that folder: it is opened anew the next time.
        self.kept = repository.is_ok().then_some(store);
        repository.with_context(|| format!("{} cannot be read", self.url))
    }

    async fn store(&mut self) -> anyhow::Result<Arc<dyn ObjectStore>> {
        let open = Arc::clone(&self.open);
        let opening = self.opening.get_or_insert_with(|| tokio::task::spawn_blocking(move || open()));
        let Ok(opened) = tokio::time::timeout(self.deadline, &mut *opening).await else {
            bail!("{} did not open within {} s; it is still waited for", self.url, self.deadline.as_secs());
        };
        self.opening = None;
        opened.context("opening broke off")?.with_context(|| format!("{} cannot be opened", self.url))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use farshore_journal::store::memory::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_store_that_hangs_is_opened_once_however_often_it_is_asked_for_and_kept_when_it_comes_back() {
        let memory = Arc::new(MemoryStore::new());
        let founded = Repository::open_or_found(memory.clone(), "2026-11-27T00:00:00Z").await.unwrap();
        let (release, hung) = mpsc::channel::<()>();
        let (hung, calls) = (Mutex::new(hung), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&calls);
        let open: Open = Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ended = hung.lock().unwrap().recv();
            Ok(memory.clone() as Arc<dyn ObjectStore>)
        });
        let deadline = Duration::from_millis(5);
        let mut store = Opened { open, url: "file:hung".to_owned(), deadline, kept: None, opening: None };
        for _ in 0..4 {
            let why = store.repository().await.err().unwrap().to_string();
            assert!(why.contains("did not open within"), "{why}");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        drop(release);
        store.deadline = Duration::from_secs(60);
        for _ in 0..3 {
            assert_eq!(store.repository().await.unwrap().id(), founded.id());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
