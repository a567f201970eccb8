//! A store that fails on purpose, by a seed: refuses, delays, succeeds and loses the answer, lies.
//!
//! Always: the sequence of decisions depends on the seed and the order of calls alone, so a seed with one caller is a
//! reproducible run; what was injected is counted, so that a test can prove that it saw anything at all. It is public
//! for the tests of the crates above and hidden from the documentation: no product code names it, and as plain code
//! it needs no feature that could be switched on by accident.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, Operation, StoreError};

/// What to inject, each by its probability from 0 (never) to 1 (always).
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// An error, and nothing was done; not ambiguous.
    pub before: f64,
    /// The work is done, and its answer lost; ambiguous.
    pub after: f64,
    /// "Try later", and nothing was done, but nobody can know: ambiguous.
    pub busy: f64,
    /// A wait of `stall_for` before the work.
    pub stall: f64,
    /// How long a stall lasts.
    pub stall_for: Duration,
    /// A create replaces what is there and says that it is new: a store that ignores conditions.
    pub overwrite: f64,
    /// A list that leaves out its end.
    pub short_list: f64,
    /// A list that is empty.
    pub empty_list: f64,
    /// A get with one bit changed.
    pub flip: f64,
    /// A get that lacks its end.
    pub truncate: f64,
    /// A get that answers with another object read before.
    pub swap: f64,
    /// A get that says "not found" of an object that is there.
    pub vanish: f64,
}

impl Faults {
    /// Errors, lost answers and throttling, each with this probability: what a bad day brings, and no lie.
    pub fn weather(probability: f64) -> Self {
        Self { before: probability, after: probability, busy: probability, ..Self::default() }
    }
}

/// A kind of injected fault, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// See [`Faults::before`].
    Before,
    /// See [`Faults::after`].
    After,
    /// See [`Faults::busy`].
    Busy,
    /// See [`Faults::stall`].
    Stall,
    /// See [`Faults::overwrite`].
    Overwrite,
    /// See [`Faults::short_list`].
    ShortList,
    /// See [`Faults::empty_list`].
    EmptyList,
    /// See [`Faults::flip`].
    Flip,
    /// See [`Faults::truncate`].
    Truncate,
    /// See [`Faults::swap`].
    Swap,
    /// See [`Faults::vanish`].
    Vanish,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    random: u64,
    injected: BTreeMap<Fault, u64>,
    calls: u64,
    /// The object read last, to be served in another's place.
    last: Option<(Key, Bytes)>,
}

impl State {
    /// SplitMix64: small, good enough to choose faults, and the same everywhere for ever.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn hit(&mut self, fault: Fault, probability: f64) -> bool {
        // 53 bits: what a double holds exactly. Drawn even at 0, so that one probability does not shift another's luck.
        let drawn = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let hit = drawn < probability;
        if hit {
            *self.injected.entry(fault).or_default() += 1;
        }
        hit
    }
}

/// What was drawn for one call.
struct Drawn {
    stall: Option<Duration>,
    before: bool,
    busy: bool,
    after: bool,
}

/// A store that fails on purpose. See the module's text.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    seed: u64,
    state: Mutex<State>,
}

impl<S: ObjectStore> Faulty<S> {
    /// Wraps a store. Print the seed when a test fails: it is in `Debug`.
    pub fn new(inner: S, seed: u64, faults: Faults) -> Self {
        let state = State { faults, random: seed, injected: BTreeMap::new(), calls: 0, last: None };
        Self { inner, seed, state: Mutex::new(state) }
    }

    /// The store beneath, which does as it is told.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Changes what is injected from now on.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// How often each fault was injected.
    pub fn injected(&self) -> BTreeMap<Fault, u64> {
        self.state().injected.clone()
    }

    /// How many calls came.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) -> Drawn {
        let mut state = self.state();
        state.calls += 1;
        let faults = state.faults.clone();
        let stall = state.hit(Fault::Stall, faults.stall).then_some(faults.stall_for);
        let before = state.hit(Fault::Before, faults.before);
        let busy = !before && state.hit(Fault::Busy, faults.busy);
        let after = !before && !busy && state.hit(Fault::After, faults.after);
        Drawn { stall, before, busy, after }
    }

    async fn around<T>(
        &self,
        operation: Operation,
        what: String,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let drawn = self.draw();
        if let Some(stall) = drawn.stall {
            tokio::time::sleep(stall).await;
        }
        if drawn.before {
            let reason = "injected before".into();
            return Err(StoreError::Unreachable { operation, what, reason, ambiguous: false });
        }
        if drawn.busy {
            return Err(StoreError::Busy { operation, what, reason: "injected".into(), ambiguous: true });
        }
        let done = work.await;
        if drawn.after {
            let reason = "injected after".into();
            return Err(StoreError::Unreachable { operation, what, reason, ambiguous: true });
        }
        done
    }

    fn spoil(&self, key: &Key, bytes: Bytes, whole: bool) -> Result<Bytes, StoreError> {
        let mut state = self.state();
        let faults = state.faults.clone();
        let mut served = bytes.clone();
        if state.hit(Fault::Vanish, faults.vanish) {
            return Err(StoreError::NotFound { key: key.clone() });
        }
        // Only where there is another object to swap in, so that the count tells the truth.
        let other = state.last.clone().filter(|(last, other)| whole && last != key && *other != bytes);
        if let Some((_, other)) = other
            && state.hit(Fault::Swap, faults.swap)
        {
            served = other;
        }
        if !served.is_empty() && state.hit(Fault::Flip, faults.flip) {
            let at = state.next();
            let mut changed = BytesMut::from(&served[..]);
            let place = (at >> 3) as usize % changed.len();
            changed[place] ^= 1 << (at & 7);
            served = changed.freeze();
        }
        if !served.is_empty() && state.hit(Fault::Truncate, faults.truncate) {
            let keep = state.next() as usize % served.len();
            served.truncate(keep);
        }
        if whole {
            state.last = Some((key.clone(), bytes));
        }
        Ok(served)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Faulty<S> {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        let overwrite = {
            let mut state = self.state();
            let probability = state.faults.overwrite;
            state.hit(Fault::Overwrite, probability)
        };
        self.around(Operation::Create, key.to_string(), async {
            if overwrite {
                self.inner.delete(key).await?;
                self.inner.create(key, bytes).await?;
                return Ok(Created::New);
            }
            self.inner.create(key, bytes).await
        })
        .await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let bytes = self.around(Operation::Get, key.to_string(), self.inner.get(key)).await?;
        self.spoil(key, bytes, true)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.around(Operation::Get, key.to_string(), self.inner.get_range(key, range)).await?;
        self.spoil(key, bytes, false)
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.around(Operation::Size, key.to_string(), self.inner.size(key)).await
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let work = self.inner.list(prefix, after, limit);
        let mut listed = self.around(Operation::List, prefix.to_string(), work).await?;
        let mut state = self.state();
        let faults = state.faults.clone();
        if !listed.is_empty() && state.hit(Fault::EmptyList, faults.empty_list) {
            listed.clear();
        }
        if !listed.is_empty() && state.hit(Fault::ShortList, faults.short_list) {
            let keep = state.next() as usize % listed.len();
            listed.truncate(keep);
        }
        Ok(listed)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.around(Operation::Delete, key.to_string(), self.inner.delete(key)).await
    }

    fn tails(&self) -> HasTails<'_> {
        self.inner.tails()
    }
}
