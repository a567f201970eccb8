//! Tails at a receiver: asked for as objects are, but for an append, which is sent once.

use async_trait::async_trait;
use bytes::Bytes;

use super::wire::{Answer, Asked, TailAnswer, TailAsked};
use super::{RemoteStore, strange};
use crate::store::tails::{Appending, Peeked, Standing, Tail, Tails};
use crate::store::{Created, Key, KeyPrefix, ObjectStore, StoreError};

/// A tail that a receiver began for this process.
#[derive(Debug)]
struct RemoteTail {
    store: RemoteStore,
    folder: KeyPrefix,
    id: String,
    /// How many appends were sent.
    order: u64,
}

impl Tail for RemoteTail {
    fn append(&mut self, at: u64, bytes: Bytes, free: &Key) -> Appending {
        let asked = Asked::Tail(TailAsked::Append {
            folder: self.folder.clone(),
            id: self.id.clone(),
            order: self.order,
            at,
            free: free.clone(),
            length: bytes.len() as u64,
        });
        self.order += 1;
        let store = self.store.clone();
        Appending::new(async move {
            match store.ask(&asked, bytes).await? {
                Answer::Tail(TailAnswer::Appended) => Ok(()),
                _ => Err(strange(&asked)),
            }
        })
    }
}

impl RemoteStore {
    async fn ask_tail(&self, asked: TailAsked) -> Result<(Asked, TailAnswer), StoreError> {
        let asked = Asked::Tail(asked);
        match self.ask(&asked, Bytes::new()).await? {
            Answer::Tail(answer) => Ok((asked, answer)),
            _ => Err(strange(&asked)),
        }
    }
}

#[async_trait]
impl Tails for RemoteStore {
    async fn begin(&self, folder: &KeyPrefix) -> Result<Box<dyn Tail>, StoreError> {
        let (asked, answer) = self.ask_tail(TailAsked::Begin { folder: folder.clone() }).await?;
        let TailAnswer::Begun(id) = answer else { return Err(strange(&asked)) };
        Ok(Box::new(RemoteTail { store: self.clone(), folder: folder.clone(), id, order: 0 }))
    }

    async fn close(&self, folder: &KeyPrefix) -> Result<(), StoreError> {
        match self.ask_tail(TailAsked::Close { folder: folder.clone() }).await? {
            (_, TailAnswer::Closed) => Ok(()),
            (asked, _) => Err(strange(&asked)),
        }
    }

    async fn read(&self, folder: &KeyPrefix) -> Result<Vec<Standing>, StoreError> {
        match self.ask_tail(TailAsked::Read { folder: folder.clone() }).await? {
            (_, TailAnswer::Tails(all)) => Ok(all),
            (asked, _) => Err(strange(&asked)),
        }
    }

    async fn peek(&self, folder: &KeyPrefix) -> Result<Peeked, StoreError> {
        match self.ask_tail(TailAsked::Peek { folder: folder.clone() }).await? {
            (_, TailAnswer::Peeked(peeked)) => Ok(peeked),
            (asked, _) => Err(strange(&asked)),
        }
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        self.create(key, bytes).await
    }

    async fn folders(&self, below: &KeyPrefix) -> Result<Vec<KeyPrefix>, StoreError> {
        match self.ask_tail(TailAsked::Folders { below: below.clone() }).await? {
            (_, TailAnswer::Folders(all)) => Ok(all),
            (asked, _) => Err(strange(&asked)),
        }
    }

    async fn remove(&self, folder: &KeyPrefix) -> Result<(), StoreError> {
        match self.ask_tail(TailAsked::Remove { folder: folder.clone() }).await? {
            (_, TailAnswer::Removed) => Ok(()),
            (asked, _) => Err(strange(&asked)),
        }
    }
}
