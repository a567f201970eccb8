//! Tails: what a store that can append and flush keeps for the owner of a journal, before it is a chunk.
//!
//! Rules and argument are in `FORMAT.md` section 5a; this is their store's half (T2, T4, T5, T7). A tail is no object: it has no key and is in no listing.
//!
//! What always holds: [`Tail::append`] answers `Ok` only for bytes that are durable, and only when *behind* their flush the tail still had its name, its folder was not
//! closed, and the number that the owner's next chunk will have was free. Whoever closed a folder therefore reads all that was said `Ok` of.
//! What it does not do: it does not know what stands in a tail.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::ReusableBoxFuture;

use super::{Created, Key, KeyPrefix, StoreError};

/// Bytes of a tail: what is more goes as a chunk at once.
pub const TAIL_BYTES: u64 = 2 << 20;
/// Bytes of a tail's begin that are enough to know its first entry by: an object's header.
pub const PEEKED: usize = 256;
/// Entries begin at multiples of this: none shares a page of the disk with another, so writing one cannot damage another.
pub const ENTRY_ALIGN: usize = 4096;
/// Most tails that one folder is read of: an owner has one, and another for each failure of one.
pub(super) const MAX_TAILS: usize = 64;

/// Whether a store keeps tails. A wrapper must answer with the inner store's: whoever takes a journal over without closing its tails loses what is in them.
#[derive(Debug, Clone, Copy)]
pub enum HasTails<'a> {
    /// It does.
    Yes(&'a dyn Tails),
    /// It does, and nothing is to be appended here (a limit of bandwidth): they are closed and read all the same.
    ReadOnly(&'a dyn Tails),
    /// There can be none.
    Never,
}

impl<'a> HasTails<'a> {
    /// For closing and reading.
    pub fn there(self) -> Option<&'a dyn Tails> {
        match self {
            Self::Yes(tails) | Self::ReadOnly(tails) => Some(tails),
            Self::Never => None,
        }
    }
}

/// The tails of a store. A *folder* holds those of one generation of one journal.
#[async_trait]
pub trait Tails: Send + Sync + Debug {
    /// Makes a tail of zeros in a folder, durably, under a name that was never used.
    ///
    /// # Errors
    /// When there can be none here, now or at all: each flush is a chunk then.
    async fn begin(&self, folder: &KeyPrefix) -> Result<Box<dyn Tail>, StoreError>;

    /// Closes a folder, made where it is missing: what is appended from now on is refused. Durable on `Ok`. As [`put`](Self::put), whatever the store was opened for.
    ///
    /// # Errors
    /// Then it may be closed or not.
    async fn close(&self, folder: &KeyPrefix) -> Result<(), StoreError>;

    /// What a folder's tails begin with, and whether it is closed: little, for whoever looks often.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    async fn peek(&self, folder: &KeyPrefix) -> Result<Peeked, StoreError>;

    /// What stands in a folder's tails, each with zeros behind it.
    ///
    /// # Errors
    /// When any of them cannot be read: what is not read may be all that somebody counted on.
    async fn read(&self, folder: &KeyPrefix) -> Result<Vec<Standing>, StoreError>;

    /// Creates an object of what was read, as [`ObjectStore::create`](super::ObjectStore::create) does, also where the store was opened for reading and this process may write all the same:
    /// whoever reads the end of a journal whose owner is gone makes chunks of what he left.
    ///
    /// # Errors
    /// As there.
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError>;

    /// The folders of tails right below a prefix, sorted.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn folders(&self, below: &KeyPrefix) -> Result<Vec<KeyPrefix>, StoreError>;

    /// Deletes a folder's tails, and behind them that it was closed.
    ///
    /// # Errors
    /// Then some may be gone.
    async fn remove(&self, folder: &KeyPrefix) -> Result<(), StoreError>;
}

/// A tail as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// From its first byte on.
    pub bytes: Bytes,
    /// Whether it was written within the last seconds, by the store's clock: good for being patient, and for nothing else.
    pub is_fresh: bool,
}

/// The begin of a folder's tails.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peeked {
    /// Whether nothing is appended any more.
    pub is_closed: bool,
    /// The first [`PEEKED`] bytes of each tail, zeros where nothing was written.
    pub firsts: Vec<Bytes>,
}

/// The answer to an append: nothing is sure to be sent before it is polled.
///
/// # Cancel safety
/// Dropped, the append may be carried out or not.
pub type Appending = ReusableBoxFuture<'static, Result<(), StoreError>>;

/// A tail that this process began. Whatever fails ends it: nothing that is handed over later is written, and nothing that was handed over before counts.
pub trait Tail: Send + Sync + Debug {
    /// Takes what is to be written at an offset and flushed, behind all that it took before; `free` is where the owner's next chunk will be put. Never waits. Durable, and not in vain, once the answer is `Ok` and so are
    /// those of all before: what comes while a flush is on its way is flushed together.
    ///
    /// An error, whatever it is: the bytes may stand there or not, and the tail is to be given up.
    fn append(&mut self, at: u64, bytes: Bytes, free: &Key) -> Appending;
}
