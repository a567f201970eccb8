//! A store in memory, for models and simulations. Nothing here is durable, so nothing real may be opened on it, and no
//! claim about a real store is proved with it.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{Created, Key, KeyPrefix, Listed, ObjectStore, StoreError};

/// A store in memory. Time stands still in it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<Key, Bytes>>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
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
}
