//! Stores of the large providers, and of whoever speaks their protocols: S3, Azure Blob Storage, Google.
//!
//! Always: a create is one conditional request that is never sent twice behind the caller's back, except when no
//! connection was made; reads may be repeated a few times. Every answer is classified from its status and the
//! provider's code, by `http`, before the client library can flatten it: a 404 is "not found" only with the code for a
//! missing object, and a 409 is "exists" only with the code that says so.
//!
//! What it does not do: multipart creates. One object is one request, at most what the provider takes (S3 5 GiB).

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{BackoffConfig, GetOptions, ObjectStoreExt, PutMode, PutOptions, RetryConfig};

use super::options::{MAX_GET, deadline};
use super::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, Operation, StoreError};

mod build;
mod http;

pub(super) use build::{azure, google, s3};
use http::Meaning;

/// Most keys a listing takes into memory: 16 million chunks are 37 days at five a second.
const MAX_LISTED: usize = 16 << 20;

/// A store at a provider. See the module's text for what it guarantees.
pub struct CloudStore {
    inner: Arc<dyn object_store::ObjectStore>,
    place: String,
    prefix: KeyPrefix,
    /// Whether the provider lists in byte order, so that a limited listing may end early.
    ordered: bool,
    timeout: Duration,
}

impl fmt::Debug for CloudStore {
    /// Only the place: the client inside knows the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudStore({})", self.place)
    }
}

/// How often a read is repeated before its failure is the caller's. Creates are not: see `http`.
pub(super) fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(20),
    }
}

impl CloudStore {
    fn path(&self, key: &Key) -> Result<Path, StoreError> {
        let whole = match self.prefix.folder() {
            None => key.to_string(),
            Some(folder) => format!("{folder}/{key}"),
        };
        // Every character of a key stands for itself in a path, so nothing is escaped or dropped.
        Path::parse(whole).map_err(|e| StoreError::Settings { what: format!("{key} is no path: {e}") })
    }

    async fn within<T>(
        &self,
        operation: Operation,
        what: &(dyn fmt::Display + Sync),
        bytes: u64,
        work: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<Result<T, Meaning>, StoreError> {
        let after = deadline(self.timeout, bytes);
        match tokio::time::timeout(after, work).await {
            Ok(Ok(done)) => Ok(Ok(done)),
            Ok(Err(error)) => Ok(Err(http::meaning(&error))),
            Err(_) => Err(StoreError::TimedOut { operation, what: what.to_string(), after, ambiguous: true }),
        }
    }

    fn failed(
        &self,
        operation: Operation,
        what: &(dyn fmt::Display + Sync),
        key: Option<&Key>,
        meaning: Meaning,
    ) -> StoreError {
        let what = what.to_string();
        match (meaning, key) {
            (Meaning::NoObject, Some(key)) => StoreError::NotFound { key: key.clone() },
            (Meaning::NoObject, None) => {
                StoreError::NoStore { operation, reason: format!("{} is not there", self.place) }
            }
            (Meaning::NoStore(reason), _) => StoreError::NoStore { operation, reason },
            (Meaning::Refused(reason), _) => StoreError::Refused { operation, what, reason },
            (Meaning::Settings(what), _) => StoreError::Settings { what },
            (Meaning::Busy { reason, ambiguous }, _) => {
                StoreError::Busy { operation, what, reason, ambiguous }
            }
            (Meaning::Unreachable { reason, ambiguous }, _) => {
                StoreError::Unreachable { operation, what, reason, ambiguous }
            }
            (Meaning::TimedOut, _) => {
                StoreError::TimedOut { operation, what, after: self.timeout, ambiguous: true }
            }
            (Meaning::Full, Some(key)) => StoreError::Full { key: key.clone(), bytes: 0 },
            (Meaning::Full, None) => {
                StoreError::Busy { operation, what, reason: "no space".into(), ambiguous: false }
            }
            (Meaning::Exists, _) => {
                let reason = "it says that a condition failed where none was set".into();
                StoreError::Answer { operation, what, reason, ambiguous: true }
            }
            (Meaning::OutOfRange, _) => {
                let reason = "it says that a range is wrong where none was asked for".into();
                StoreError::Answer { operation, what, reason, ambiguous: true }
            }
            (Meaning::Strange { reason, ambiguous }, _) => {
                StoreError::Answer { operation, what, reason, ambiguous }
            }
        }
    }

    async fn fetch(&self, key: &Key, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let operation = Operation::Get;
        let path = self.path(key)?;
        let options = GetOptions { range: range.clone().map(Into::into), ..GetOptions::default() };
        let answer = self.within(operation, key, 0, self.inner.get_opts(&path, options)).await?;
        let answer = match (answer, range.clone()) {
            (Ok(answer), _) => answer,
            (Err(Meaning::OutOfRange), Some(range)) => {
                return Err(StoreError::OutOfRange { key: key.clone(), range });
            }
            // Azurite answers a range behind the end with a success that the library cannot read; the length decides.
            (Err(meaning @ Meaning::Strange { .. }), Some(range)) => {
                let length = self.within(operation, key, 0, self.inner.head(&path)).await?;
                return match length {
                    Ok(meta) if range.start >= meta.size => {
                        Err(StoreError::OutOfRange { key: key.clone(), range })
                    }
                    _ => Err(self.failed(operation, key, Some(key), meaning)),
                };
            }
            (Err(meaning), _) => return Err(self.failed(operation, key, Some(key), meaning)),
        };
        let strange = |reason: String| StoreError::Answer {
            operation,
            what: key.to_string(),
            reason,
            ambiguous: false,
        };
        let promised = answer.range.clone();
        let size = answer.meta.size;
        let wanted = match range {
            None => 0..size,
            Some(range) => range.start..range.end.min(size),
        };
        if promised != wanted {
            return Err(strange(format!("asked for {wanted:?} of {size} bytes, it gave {promised:?}")));
        }
        let length = wanted.end.saturating_sub(wanted.start);
        if length > MAX_GET {
            return Err(strange(format!("{length} bytes are more than one read may be; read it by ranges")));
        }
        let body = async {
            let mut stream = answer.into_stream();
            let mut bytes = BytesMut::new();
            while let Some(part) = stream.try_next().await? {
                bytes.extend_from_slice(&part);
                if bytes.len() as u64 > length {
                    break;
                }
            }
            Ok(bytes.freeze())
        };
        let bytes = self
            .within(operation, key, length, body)
            .await?
            .map_err(|meaning| self.failed(operation, key, Some(key), meaning))?;
        // A connection that ends early must not look like a shorter object.
        if bytes.len() as u64 != length {
            return Err(strange(format!("{length} bytes were promised, {} came", bytes.len())));
        }
        Ok(bytes)
    }
}

#[async_trait]
impl ObjectStore for CloudStore {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        let path = self.path(key)?;
        let length = bytes.len() as u64;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.inner.put_opts(&path, bytes.into(), options);
        match self.within(Operation::Create, key, length, put).await? {
            Ok(_) => Ok(Created::New),
            Err(Meaning::Exists) => Ok(Created::Exists),
            Err(Meaning::Full) => Err(StoreError::Full { key: key.clone(), bytes: length }),
            // A put has no object to miss: it is the bucket.
            Err(Meaning::NoObject) => Err(self.failed(Operation::Create, key, None, Meaning::NoObject)),
            Err(meaning) => Err(self.failed(Operation::Create, key, Some(key), meaning)),
        }
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.fetch(key, None).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            // Asked of nobody: a missing object would be found out by the next read.
            return Err(StoreError::OutOfRange { key: key.clone(), range });
        }
        self.fetch(key, Some(range)).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        let path = self.path(key)?;
        match self.within(Operation::Size, key, 0, self.inner.head(&path)).await? {
            Ok(meta) => Ok(meta.size),
            // An answer to HEAD has no body and so no code: only a GET can tell a missing object from a missing bucket.
            Err(Meaning::Strange { .. } | Meaning::NoObject | Meaning::Refused(_)) => {
                match self.fetch(key, Some(0..1)).await {
                    // Created in between, or empty: the range says nothing about the length.
                    Ok(_) | Err(StoreError::OutOfRange { .. }) => Err(StoreError::Busy {
                        operation: Operation::Size,
                        what: key.to_string(),
                        reason: "it said first that the object is not there, then that it is".into(),
                        ambiguous: false,
                    }),
                    Err(error) => Err(error),
                }
            }
            Err(meaning) => Err(self.failed(Operation::Size, key, Some(key), meaning)),
        }
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let folder = match (self.prefix.folder(), prefix.folder()) {
            (Some(outer), Some(inner)) => Some(format!("{outer}/{inner}")),
            (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
            (None, None) => None,
        };
        let folder = folder.map(Path::from);
        let mut stream = match after {
            Some(after) => self.inner.list_with_offset(folder.as_ref(), &self.path(after)?),
            None => self.inner.list(folder.as_ref()),
        };
        let strange = |reason: &str| StoreError::Answer {
            operation: Operation::List,
            what: prefix.to_string(),
            reason: reason.to_owned(),
            ambiguous: false,
        };
        let mut listed: Vec<Listed> = Vec::new();
        let mut ordered = self.ordered;
        while limit.is_none_or(|limit| !ordered || listed.len() < limit) {
            // The deadline is for each entry, and so for each page.
            let next = self
                .within(Operation::List, prefix, 0, stream.try_next())
                .await?
                .map_err(|meaning| self.failed(Operation::List, prefix, None, meaning))?;
            let Some(meta) = next else { break };
            let name = meta.location.as_ref();
            let inner = match self.prefix.folder() {
                None => Some(name),
                Some(outer) => name.strip_prefix(outer).and_then(|rest| rest.strip_prefix('/')),
            };
            let Some(key) = inner.and_then(|inner| Key::new(inner).ok()).filter(|key| key.is_below(prefix))
            else {
                tracing::warn!(place = self.place, name, "a name that is no key is left out of the listing");
                continue;
            };
            if after.is_some_and(|after| key <= *after) {
                continue;
            }
            ordered &= listed.last().is_none_or(|last| last.key < key);
            if listed.len() >= MAX_LISTED {
                return Err(strange("more objects than a listing may hold; list with a limit"));
            }
            listed.push(Listed { key, size: meta.size, modified: meta.last_modified });
        }
        if !ordered {
            listed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            // A page read again after a failure may repeat a key.
            listed.dedup_by(|a, b| a.key == b.key);
        }
        if let Some(limit) = limit {
            listed.truncate(limit);
        }
        Ok(listed)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.path(key)?;
        match self.within(Operation::Delete, key, 0, self.inner.delete(&path)).await? {
            Ok(()) | Err(Meaning::NoObject) => Ok(()),
            Err(meaning) => Err(self.failed(Operation::Delete, key, Some(key), meaning)),
        }
    }

    fn tails(&self) -> HasTails<'_> {
        HasTails::Never
    }
}
