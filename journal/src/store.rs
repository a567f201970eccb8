//! What farshore asks of a store, and the stores it can use.
//!
//! A store holds immutable objects under keys. It answers for four things, and every layer above rests on them:
//! - a key is created once, whole or not at all, and never changes afterwards;
//! - of any number of creators of one key, at most one is told [`Created::New`];
//! - `Ok` from [`ObjectStore::create`] means durable, as far as the store's own word goes;
//! - [`StoreError::NotFound`] means "the store says this object is not there", and no other trouble looks like it.
//!
//! A crash in the middle of a create leaves no object, or the whole object with nobody told. It never leaves a part.
//!
//! What it does not do: it does not know what the bytes mean (`format` does), it does not resolve an ambiguous
//! create (the caller knows which bytes it sent), and it does not decide what may be deleted (tidy and expiry do).

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

mod cloud;
#[doc(hidden)]
pub mod conformance;
mod error;
#[doc(hidden)]
pub mod faults;
mod file;
mod key;
#[doc(hidden)]
pub mod memory;
mod options;
mod probe;
pub mod remote;
pub mod tails;

pub use cloud::CloudStore;
pub use error::{Operation, Retry, StoreError};
pub use file::FileStore;
pub use key::{Key, KeyError, KeyPrefix};
pub use options::{Access, MAX_GET, StoreOptions};
pub use probe::probe;
pub use remote::RemoteStore;
pub use tails::HasTails;

use options::Place;

/// Makes `ring` this process's cryptography. Idempotent; [`open`] calls it, because a TLS client without a provider
/// panics. A provider that was chosen before stays.
pub fn install_crypto() {
    // An error here says only that a provider is installed already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Opens the store at an address: `file:///path`, `s3://bucket/prefix`, `az://container/prefix` (also `abfs`,
/// `container@account.…`), `gs://bucket/prefix` or `receiver://host:port,host:port`.
///
/// A file store is tried out here, which blocks for a few file operations; a provider is first spoken to by the first
/// request. Neither proves that creates exclude each other; a probe does, once for each new store.
///
/// # Errors
/// [`StoreError::Settings`] for an address or option that cannot be used; for file stores also what
/// [`FileStore::open`] says.
pub fn open(address: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, StoreError> {
    install_crypto();
    Ok(match Place::parse(address)? {
        Place::File(root) => Arc::new(FileStore::open(&root, options)?),
        Place::S3 { bucket, prefix } => Arc::new(cloud::s3(&bucket, prefix, options)?),
        Place::Azure { account, container, prefix } => {
            Arc::new(cloud::azure(account.as_deref(), &container, prefix, options)?)
        }
        Place::Google { bucket, prefix } => Arc::new(cloud::google(&bucket, prefix, options)?),
        Place::Receiver(addresses) => Arc::new(RemoteStore::open(&addresses, options)?),
    })
}

/// What a create found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// This call made the object, and it is durable.
    New,
    /// An object is there already. It may be ours: a request whose answer was lost, sent again, ends here. Only
    /// reading it back tells whose bytes won.
    Exists,
}

/// One object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// When the store says it was written. For display and grace periods only: order never comes from clocks.
    pub modified: DateTime<Utc>,
}

/// What farshore asks of a store.
///
/// Every implementation runs the conformance suite; every wait inside has a deadline, so no call hangs for ever.
///
/// # Cancel safety
/// Reads may be dropped at any time. A dropped `create` or `delete` may still take effect: treat it as
/// [ambiguous](StoreError::is_ambiguous).
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug {
    /// Creates `key` with exactly `bytes`, durably, or says that something was there first. Never overwrites.
    ///
    /// [`Created::Exists`] does not say whose bytes are there: after an ambiguous attempt they may be the caller's
    /// own. Read back and compare before drawing a conclusion.
    ///
    /// # Errors
    /// When [`StoreError::is_ambiguous`] holds, the object may exist or appear later: read it back, and if it is
    /// not found, send the very same bytes again under the same key. Otherwise this call created nothing.
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError>;

    /// The whole object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the store says the object is not there; every doubt is another variant.
    async fn get(&self, key: &Key) -> Result<Bytes, StoreError>;

    /// The bytes of `range` that the object has: fewer than asked for when it ends inside the range.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] when the range is empty or begins at or behind the object's end;
    /// [`StoreError::NotFound`] as for [`get`](Self::get).
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The object's length in bytes.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    async fn size(&self, key: &Key) -> Result<u64, StoreError>;

    /// The objects below `prefix`, sorted by key as bytes; only keys greater than `after`; at most `limit`, or all
    /// of them, page by page. A prefix with nothing below it gives an empty list.
    ///
    /// A listing is a hint: it may lag behind creates on some stores, so absence from it proves nothing. Names that
    /// are no [`Key`] are left out (and logged): farshore never wrote them.
    ///
    /// # Errors
    /// Any failure of any page fails the whole listing: a short list is never passed off as a full one.
    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError>;

    /// Deletes the object; one that is absent counts as deleted. Only tidy and expiry call this, with their own
    /// credential.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the store keeps the object (object lock) or the credential may not delete.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// What the store keeps for owners of journals before it is a chunk.
    fn tails(&self) -> HasTails<'_>;
}

#[async_trait]
impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        (**self).create(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        (**self).get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        (**self).get_range(key, range).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        (**self).size(key).await
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        (**self).list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        (**self).delete(key).await
    }

    fn tails(&self) -> HasTails<'_> {
        (**self).tails()
    }
}
