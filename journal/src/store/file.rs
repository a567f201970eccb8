//! A store in a directory: the one kind of store whose durability farshore makes itself.
//!
//! An object is a file under the root, named by its key. A create walks these steps, and only the last one says `Ok`:
//! 1. write a file of its own in `.tmp/` (same file system) and fsync it;
//! 2. make missing folders, fsyncing each one's parent up to the root;
//! 3. hard-link the file to its key: the kernel lets one of many creators win, and it never replaces;
//! 4. fsync the folder; 5. unlink the name in `.tmp/`.
//!
//! Always: a key shows whole bytes or none. A crash leaves at most a name in `.tmp/`; opening for writing sweeps those
//! older than a day. While that name stands, the object has two links: a reader that meets one flushes the folder
//! before it believes the object, so nobody acts on what a power cut could still take back.
//!
//! An fsync that failed once is never repeated and believed: Linux may drop the dirty pages and report the error once.
//! A file whose fsync failed is thrown away and the caller sends its bytes again; after a folder's fsync failed, this
//! handle creates nothing more until the store is opened anew.
//! Source: <https://wiki.postgresql.org/wiki/Fsync_Errors>.
//!
//! Keys are resolved from a descriptor of the root, folder by folder, and no symbolic link is followed on the way, in
//! folders or at the end: a link put into the store cannot lead a restore out of it. The root itself may be one. Held
//! open, the root also stays what it was when a mount beneath its path goes away.
//!
//! Tails lie beside the objects, in `.tails` (`tails`).
//!
//! What it does not do: a key cannot be the folder of another key here, and names that differ only in case are one
//! name on file systems that fold it. It does not keep others from writing into the folder.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::options::{Access, StoreOptions, deadline};
use super::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, Operation, StoreError};
use tree::Tree;

mod create;
mod tails;
mod tree;

/// File operations at once. More would only queue in the disk, and a hung file system must not eat every thread.
const MAX_AT_ONCE: usize = 16;

/// A store in a directory. See the module's text for what it guarantees.
#[derive(Debug, Clone)]
pub struct FileStore {
    tree: Arc<Tree>,
    permits: Arc<Semaphore>,
    timeout: Duration,
    /// Whether this process may keep tails here.
    keeps_tails: bool,
    /// Of one that was opened for reading: itself, opened for writing once it had to.
    writing: Arc<OnceLock<FileStore>>,
}

impl FileStore {
    /// Opens the store at `root`. For writing, proves that the file system has hard links that do not replace and an
    /// fsync that works, and sweeps leftovers of crashes. Blocks for a few file operations.
    ///
    /// # Errors
    /// [`StoreError::NoStore`] when the folder is not there and options do not ask to make it (a missing mount must
    /// not become a new store on the wrong disk); [`StoreError::Unsafe`] when the file system cannot keep the promises.
    pub fn open(root: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        if options.make_root {
            create::make_root(root)?;
        }
        let tree = Tree::open(root, options.access == Access::Write)?;
        if options.access == Access::Write {
            create::prove(&tree)?;
            create::sweep(&tree)?;
        }
        let keeps_tails = tree.tmp.is_some() && tails::is_local(&tree);
        Ok(Self {
            keeps_tails,
            tree: Arc::new(tree),
            permits: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            timeout: options.timeout,
            writing: Arc::default(),
        })
    }

    /// For writing, whatever it was opened for. Blocks for a few file operations, once.
    fn writing(&self) -> Result<&Self, StoreError> {
        if self.tree.tmp.is_some() {
            return Ok(self);
        }
        if let Some(writing) = self.writing.get() {
            return Ok(writing);
        }
        if !self.tree.is_owners() {
            let reason =
                "its directory belongs to another user, who could not read what this one makes".to_owned();
            let what = self.tree.path().to_string();
            return Err(StoreError::Refused { operation: Operation::Append, what, reason });
        }
        let options = StoreOptions::for_writing().timeout(self.timeout);
        let opened = Self::open(self.tree.root_path(), &options)?;
        Ok(self.writing.get_or_init(|| opened))
    }

    /// Runs blocking file work with a deadline. The thread of a hung file system cannot be ended: it keeps its permit,
    /// and what it was doing may still happen.
    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        what: String,
        bytes: usize,
        work: impl FnOnce(&Tree) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let after = deadline(self.timeout, bytes as u64);
        let until = tokio::time::Instant::now() + after;
        let timed_out = |ambiguous| StoreError::TimedOut { operation, what: what.clone(), after, ambiguous };
        let permit = tokio::time::timeout_at(until, self.permits.clone().acquire_owned())
            .await
            .map_err(|_| timed_out(false))?
            .map_err(|_| timed_out(false))?;
        let tree = self.tree.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&tree)
        });
        match tokio::time::timeout_at(until, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(join)) => {
                let reason = format!("the file task ended early: {join}");
                Err(StoreError::Answer { operation, what, reason, ambiguous: true })
            }
            Err(_) => Err(timed_out(true)),
        }
    }
}

#[async_trait]
impl ObjectStore for FileStore {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        let length = bytes.len();
        let name = key.clone();
        self.run(Operation::Create, key.to_string(), length, move |tree| create::create(tree, &name, &bytes))
            .await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let name = key.clone();
        self.run(Operation::Get, key.to_string(), 0, move |tree| tree.read(&name, None)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let name = key.clone();
        self.run(Operation::Get, key.to_string(), 0, move |tree| tree.read(&name, Some(range))).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        let name = key.clone();
        self.run(Operation::Size, key.to_string(), 0, move |tree| tree.size(&name)).await
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let (folder, after) = (prefix.clone(), after.cloned());
        self.run(Operation::List, prefix.to_string(), 0, move |tree| {
            tree.list(&folder, after.as_ref(), limit)
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let name = key.clone();
        self.run(Operation::Delete, key.to_string(), 0, move |tree| tree.delete(&name)).await
    }

    fn tails(&self) -> HasTails<'_> {
        match self.keeps_tails {
            true => HasTails::Yes(self),
            // Somebody else may keep some here.
            false => HasTails::ReadOnly(self),
        }
    }
}
