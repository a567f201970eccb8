//! A store whose creates pass a [`Valve`]: all that a database's process sends there goes through here.
//!
//! Always: it answers as the store beneath does; a create that is tried again passes again, since its bytes are sent again.
//! Reads, listings and deletions wait for nothing.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use farshore_journal::layout;
use farshore_journal::store::tails::{Appending, Peeked, Standing, Tail, Tails};
use farshore_journal::store::{
    Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, Operation, StoreError,
};

use super::lanes::Lane;
use super::valve::Valve;

/// A store behind a valve.
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn ObjectStore>,
    valve: Arc<Valve>,
}

impl Metered {
    /// Puts a store behind a valve.
    pub fn new(inner: Arc<dyn ObjectStore>, valve: Arc<Valve>) -> Self {
        Self { inner, valve }
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        let lane = if layout::is_chunk(key) { Lane::Log } else { Lane::Other };
        self.valve.pass(lane, bytes.len() as u64).await;
        self.inner.create(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    /// With a limit nothing is appended to tails: what goes there goes a second time as a chunk.
    fn tails(&self) -> HasTails<'_> {
        match (self.inner.tails(), self.valve.rate()) {
            (HasTails::Yes(_), None) => HasTails::Yes(self),
            (HasTails::Yes(tails) | HasTails::ReadOnly(tails), _) => HasTails::ReadOnly(tails),
            (HasTails::Never, _) => HasTails::Never,
        }
    }
}

impl Metered {
    /// The tails of the store behind it; refused where that keeps none, which whoever asks was told.
    fn kept(&self, what: &impl ToString) -> Result<&dyn Tails, StoreError> {
        self.inner.tails().there().ok_or_else(|| StoreError::Refused {
            operation: Operation::Append,
            what: what.to_string(),
            reason: "it keeps no tails".to_owned(),
        })
    }
}

#[async_trait]
impl Tails for Metered {
    async fn begin(&self, folder: &KeyPrefix) -> Result<Box<dyn Tail>, StoreError> {
        let inner = self.kept(folder)?.begin(folder).await?;
        Ok(Box::new(MeteredTail { inner, valve: Arc::clone(&self.valve) }))
    }

    async fn close(&self, folder: &KeyPrefix) -> Result<(), StoreError> {
        self.kept(folder)?.close(folder).await
    }

    async fn read(&self, folder: &KeyPrefix) -> Result<Vec<Standing>, StoreError> {
        self.kept(folder)?.read(folder).await
    }

    async fn peek(&self, folder: &KeyPrefix) -> Result<Peeked, StoreError> {
        self.kept(folder)?.peek(folder).await
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        self.kept(key)?.put(key, bytes).await
    }

    async fn folders(&self, below: &KeyPrefix) -> Result<Vec<KeyPrefix>, StoreError> {
        self.kept(below)?.folders(below).await
    }

    async fn remove(&self, folder: &KeyPrefix) -> Result<(), StoreError> {
        self.kept(folder)?.remove(folder).await
    }
}

/// A tail whose bytes are counted.
#[derive(Debug)]
struct MeteredTail {
    inner: Box<dyn Tail>,
    valve: Arc<Valve>,
}

impl Tail for MeteredTail {
    /// Counted, and not held up: with a limit there is no tail.
    fn append(&mut self, at: u64, bytes: Bytes, free: &Key) -> Appending {
        let (valve, length) = (Arc::clone(&self.valve), bytes.len() as u64);
        let answer = self.inner.append(at, bytes, free);
        Appending::new(async move {
            valve.pass(Lane::Log, length).await;
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use farshore_journal::store::conformance;
    use farshore_journal::store::memory::MemoryStore;
    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    fn metered(rate: Option<u64>) -> (Arc<Metered>, Arc<Valve>) {
        let valve = Arc::new(Valve::new(rate, 1));
        (Arc::new(Metered::new(Arc::new(MemoryStore::new()), Arc::clone(&valve))), valve)
    }

    fn chunk(number: u64) -> Key {
        Key::new(format!("db/orders/0/journal/{number}")).unwrap()
    }

    #[tokio::test]
    async fn a_store_behind_a_valve_keeps_the_contract() {
        conformance::run(&*metered(None).0).await;
        let (store, valve) = metered(Some(1 << 30));
        conformance::run(&*store).await;
        assert!(valve.sent() > 0);
    }

    /// Two who send all they can for a while; what arrives in every second of it is counted.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_limit_is_reached_and_not_passed() {
        const RATE: u64 = 5_000_000;
        let (store, valve) = metered(Some(RATE));
        let began = Instant::now();
        let mut senders = JoinSet::new();
        for sender in 0..2_u64 {
            let store = Arc::clone(&store);
            senders.spawn(async move {
                for number in 0.. {
                    let bytes = Bytes::from(vec![0; 100_000]);
                    store.create(&chunk(sender << 32 | number), bytes).await.unwrap();
                }
            });
        }
        sleep(Duration::from_secs(4)).await;
        senders.shutdown().await;
        let (sent, seconds) = (valve.sent(), began.elapsed().as_secs_f64());
        let rate = sent as f64 / seconds;
        // A second's worth may be saved up by a machine that stands still; what it had no time to send is not sent.
        assert!(rate <= 1.05 * RATE as f64, "{rate}");
        assert!(rate >= 0.20 * RATE as f64, "{rate}");
        assert!(valve.waited() > Duration::ZERO);
    }

    #[tokio::test]
    async fn who_waits_goes_at_once_when_the_limit_is_lifted_and_who_left_holds_up_nobody() {
        let (store, valve) = metered(Some(1));
        let large = Bytes::from(vec![0; 1 << 20]);
        let left = timeout(Duration::from_millis(50), store.create(&chunk(1), large.clone())).await;
        assert!(left.is_err(), "a byte a second");
        let second = chunk(2);
        let waits = timeout(Duration::from_secs(30), store.create(&second, large));
        let lifts = async {
            sleep(Duration::from_millis(50)).await;
            let has_gone = store.get(&second).await.is_ok();
            valve.set(None);
            has_gone
        };
        let (created, has_gone) = futures::future::join(waits, lifts).await;
        assert_eq!((created.unwrap().unwrap(), has_gone), (Created::New, false));
        assert!(matches!(store.get(&chunk(1)).await, Err(StoreError::NotFound { .. })), "nothing went of it");
    }
}
