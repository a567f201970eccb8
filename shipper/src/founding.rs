//! Opening a target's store, and when one may be founded.
//!
//! Always: a store that holds nothing is taken for new only when nobody knows better. Whoever shipped into it before left a
//! witness elsewhere: its live slot at the primary, or its line in the catalog. Then an empty place is a store that is away (a
//! mount that is not there, another prefix, an emptied bucket), and founding it anew would call log stored on the wrong disk and
//! let the primary recycle what only the real store's journal continues. It is waited for, until a person says otherwise by
//! giving the store another name.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use farshore_journal::JournalError;
use farshore_journal::registry::Repository;
use farshore_journal::store::{ObjectStore, Operation, StoreError};

use crate::error::ShipError;
use crate::throttle::metered::Metered;
use crate::throttle::valve::Valve;

/// Who, besides the catalog, may know that a store was shipped into before.
pub trait Witness: Sync {
    /// What it knows, in words; `None` when it knows of nothing.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn saw(&self) -> impl Future<Output = Result<Option<String>, ShipError>> + Send;
}

/// Opens a store; may block for a few file operations.
pub type Open = Arc<dyn Fn() -> Result<Arc<dyn ObjectStore>, StoreError> + Send + Sync>;

/// Where a target's store is, and what is known of it from before.
#[derive(Clone)]
pub struct Place {
    open: Open,
    opened: Option<Arc<dyn ObjectStore>>,
    /// Whether the catalog says that something was stored there.
    known: bool,
    /// What all bytes pass that go there.
    valve: Arc<Valve>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("opened", &self.opened)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Place {
    /// A store that is opened by `open`. `known`: the catalog says that something was stored there.
    pub fn new(open: Open, known: bool) -> Self {
        Self { open, opened: None, known, valve: Arc::default() }
    }

    /// The same store behind a valve.
    #[must_use]
    pub fn behind(self, valve: Arc<Valve>) -> Self {
        Self { opened: None, valve, ..self }
    }

    /// Most plain bytes of a chunk that goes there now; `None`: as many as it can hold.
    pub fn chunk_bytes(&self) -> Option<u64> {
        self.valve.chunk_bytes()
    }

    /// The store, founded when it is new: `now` is RFC 3339, for its record.
    ///
    /// # Errors
    /// [`ShipError::StoreAway`] when it holds nothing and was shipped into before; otherwise when it cannot be opened.
    pub async fn repository(&mut self, witness: &impl Witness, now: &str) -> Result<Repository, ShipError> {
        let store = match &self.opened {
            Some(store) => Arc::clone(store),
            None => self.open().await?,
        };
        match Repository::open(Arc::clone(&store)).await {
            Err(JournalError::Store(StoreError::NotFound { .. })) => {}
            other => {
                self.opened = Some(store);
                return Ok(other?);
            }
        }
        // A folder that was opened while its mount was away stays that folder: it is opened anew the next time.
        self.opened = None;
        self.check_new(witness, "it holds no store").await?;
        let repository = Repository::open_or_found(Arc::clone(&store), now).await?;
        self.opened = Some(store);
        Ok(repository)
    }

    async fn open(&self) -> Result<Arc<dyn ObjectStore>, ShipError> {
        let open = Arc::clone(&self.open);
        let opened = tokio::task::spawn_blocking(move || open()).await;
        let cut_off = |why: tokio::task::JoinError| StoreError::Answer {
            operation: Operation::Open,
            what: "the store".to_owned(),
            reason: why.to_string(),
            ambiguous: false,
        };
        let store = opened.map_err(|why| JournalError::from(cut_off(why)))?.map_err(JournalError::from)?;
        Ok(Arc::new(Metered::new(store, Arc::clone(&self.valve))))
    }

    /// Whether nobody knows of anything that was shipped there.
    ///
    /// # Errors
    /// [`ShipError::StoreAway`] when somebody does; when the witness cannot be asked.
    pub async fn check_new(&self, witness: &impl Witness, found: &str) -> Result<(), ShipError> {
        let witness = match witness.saw().await? {
            Some(saw) => saw,
            None if self.known => "the catalog says so".to_owned(),
            None => return Ok(()),
        };
        Err(ShipError::StoreAway { found: found.to_owned(), witness })
    }
}
