//! A store in memory, for models and simulations. Nothing here is durable, so nothing real may be opened on it, and no
//! claim about a real store is proved with it.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::tails::{Appending, PEEKED, Peeked, Standing, TAIL_BYTES, Tail, Tails};
use super::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, Operation, StoreError};

/// A store in memory. Time stands still in it.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<Key, Bytes>>>,
    folders: Arc<Mutex<BTreeMap<KeyPrefix, Folder>>>,
}

/// The tails of a generation. One that was deleted leaves nothing at its number.
#[derive(Debug, Default)]
struct Folder {
    is_closed: bool,
    tails: Vec<Option<Vec<u8>>>,
}

#[derive(Debug)]
struct MemoryTail {
    store: MemoryStore,
    folder: KeyPrefix,
    which: usize,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tails_of(&self) -> MutexGuard<'_, BTreeMap<KeyPrefix, Folder>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces an object, as no store may: for tests of what detects it.
    pub fn replace(&self, key: &Key, bytes: Bytes) {
        self.objects().insert(key.clone(), bytes);
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Ok(Created::Exists);
        }
        objects.insert(key.clone(), bytes);
        Ok(Created::New)
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.objects().get(key).cloned().ok_or_else(|| StoreError::NotFound { key: key.clone() })
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let all = self.get(key).await?;
        let size = all.len() as u64;
        if range.is_empty() || range.start >= size {
            return Err(StoreError::OutOfRange { key: key.clone(), range });
        }
        Ok(all.slice(range.start as usize..range.end.min(size) as usize))
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.get(key).await.map(|bytes| bytes.len() as u64)
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let objects = self.objects();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(objects
            .range::<Key, _>((from, Bound::Unbounded))
            .filter(|(key, _)| key.is_below(prefix))
            .take(limit.unwrap_or(usize::MAX))
            .map(|(key, bytes)| Listed {
                key: key.clone(),
                size: bytes.len() as u64,
                modified: DateTime::<Utc>::UNIX_EPOCH,
            })
            .collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.objects().remove(key);
        Ok(())
    }

    fn tails(&self) -> HasTails<'_> {
        HasTails::Yes(self)
    }
}

fn refused(folder: &KeyPrefix) -> StoreError {
    let reason = "it is closed, gone or full".to_owned();
    StoreError::Refused { operation: Operation::Append, what: folder.to_string(), reason }
}

#[async_trait]
impl Tails for MemoryStore {
    async fn begin(&self, folder: &KeyPrefix) -> Result<Box<dyn Tail>, StoreError> {
        let mut folders = self.tails_of();
        let found = folders.entry(folder.clone()).or_default();
        if found.is_closed {
            return Err(refused(folder));
        }
        found.tails.push(Some(vec![0; usize::try_from(TAIL_BYTES).unwrap_or_default()]));
        let which = found.tails.len() - 1;
        Ok(Box::new(MemoryTail { store: self.clone(), folder: folder.clone(), which }))
    }

    async fn close(&self, folder: &KeyPrefix) -> Result<(), StoreError> {
        self.tails_of().entry(folder.clone()).or_default().is_closed = true;
        Ok(())
    }

    async fn read(&self, folder: &KeyPrefix) -> Result<Vec<Standing>, StoreError> {
        let folders = self.tails_of();
        let all = folders.get(folder).into_iter().flat_map(|found| found.tails.iter().flatten());
        Ok(all.map(|tail| Standing { bytes: Bytes::copy_from_slice(tail), is_fresh: false }).collect())
    }

    async fn peek(&self, folder: &KeyPrefix) -> Result<Peeked, StoreError> {
        let folders = self.tails_of();
        let found = folders.get(folder);
        let firsts = found.into_iter().flat_map(|found| found.tails.iter().flatten());
        let firsts = firsts.map(|tail| Bytes::copy_from_slice(&tail[..PEEKED])).collect();
        Ok(Peeked { is_closed: found.is_some_and(|found| found.is_closed), firsts })
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        self.create(key, bytes).await
    }

    async fn folders(&self, below: &KeyPrefix) -> Result<Vec<KeyPrefix>, StoreError> {
        let is_below = |folder: &&KeyPrefix| {
            let path = folder.folder().and_then(|path| path.rsplit_once('/'));
            path.map(|(parent, _)| parent) == below.folder()
        };
        Ok(self.tails_of().keys().filter(is_below).cloned().collect())
    }

    async fn remove(&self, folder: &KeyPrefix) -> Result<(), StoreError> {
        if let Some(found) = self.tails_of().get_mut(folder) {
            found.is_closed = false;
            found.tails.iter_mut().for_each(|tail| *tail = None);
        }
        Ok(())
    }
}

impl Tail for MemoryTail {
    fn append(&mut self, at: u64, bytes: Bytes, free: &Key) -> Appending {
        let written = self.write(at, &bytes, free);
        Appending::new(std::future::ready(written))
    }
}

impl MemoryTail {
    fn write(&self, at: u64, bytes: &[u8], free: &Key) -> Result<(), StoreError> {
        let is_taken = self.store.objects().contains_key(free);
        let mut folders = self.store.tails_of();
        let found = folders.get_mut(&self.folder).ok_or_else(|| refused(&self.folder))?;
        let is_closed = found.is_closed;
        let tail =
            found.tails.get_mut(self.which).and_then(Option::as_mut).ok_or_else(|| refused(&self.folder))?;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let place = tail.get_mut(at..at.saturating_add(bytes.len())).ok_or_else(|| refused(&self.folder))?;
        place.copy_from_slice(bytes);
        if is_closed || is_taken { Err(refused(&self.folder)) } else { Ok(()) }
    }
}
