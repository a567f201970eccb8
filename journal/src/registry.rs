//! Which store this is, and which incarnations its databases had.
//!
//! What always holds: a store's record and an incarnation's number are decided by the create-only put, so two founders
//! agree on one. A crash leaves a founded store or incarnation without a journal, which the next start uses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::JournalError;
use crate::format::FormatError;
use crate::format::body::{self, IncarnationRecord, StoreRecord};
use crate::format::header::VERSION;
use crate::identity::{DatabaseName, IncarnationId, Sequence, StoreId};
use crate::layout;
use crate::store::{self, Created, Key, KeyPrefix, ObjectStore, StoreError};

/// Sizes that a log segment of any engine may have.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;
/// How often a document whose creation is in doubt is sent again, and the first pause between.
const CREATE_TRIES: u32 = 6;
const CREATE_PAUSE: Duration = Duration::from_millis(100);
/// How often a record that must be there is asked for, and how long between: a listing may run ahead of reads for a second or two.
const DOUBT_TRIES: u32 = 5;
const DOUBT_PAUSE: Duration = Duration::from_millis(400);

/// A store whose record was read: the bytes in it can be told from another store's.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    id: StoreId,
}

impl Repository {
    /// Opens a store that was founded before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it was not; [`JournalError::Object`] when its record does not read.
    pub async fn open(store: Arc<dyn ObjectStore>) -> Result<Self, JournalError> {
        let key = layout::store_record()?;
        let record: StoreRecord = read_json(&*store, &key, "store record").await?;
        check_version(&key, record.format)?;
        Ok(Self { store, id: record.store })
    }

    /// Opens a store, and founds it when it is new: probed by races first, so that a store that would let two writers
    /// win is refused before anything is entrusted to it. `now` is RFC 3339, for the record.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] when it fails the probe; otherwise as [`open`](Self::open). On `Ok` the record is durable.
    pub async fn open_or_found(store: Arc<dyn ObjectStore>, now: &str) -> Result<Self, JournalError> {
        match Self::open(Arc::clone(&store)).await {
            Err(JournalError::Store(StoreError::NotFound { .. })) => {}
            other => return other,
        }
        store::probe(&*store).await?;
        let record = StoreRecord { format: VERSION, store: StoreId::mint(), created: now.to_owned() };
        // Objects without the record that names their store: it was lost, and a new one would disown them.
        if let Some(orphan) = store.list(&layout::databases()?, None, Some(1)).await?.first() {
            // Unless another one founded it while we probed, and has begun to use it: its record came before its objects.
            match Self::open(Arc::clone(&store)).await {
                Err(JournalError::Store(StoreError::NotFound { .. })) => {}
                other => return other,
            }
            return Err(JournalError::Another {
                found: format!("no store record, but `{}`", orphan.key),
                expected: "an empty place, or a store with its record".to_owned(),
            });
        }
        create_json(&*store, &layout::store_record()?, "store record", &record).await?;
        // Whoever won, the record that is there is the store's.
        Self::open(store).await
    }

    /// The store's id.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The databases that have something here, by name.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn databases(&self) -> Result<Vec<DatabaseName>, JournalError> {
        let prefix = layout::databases()?;
        let mut names: Vec<DatabaseName> = Vec::new();
        let mut after: Option<Key> = None;
        // Databases hold many objects: step from the first name of one to behind its last.
        loop {
            let found = self.store.list(&prefix, after.as_ref(), Some(1)).await?;
            let Some(first) = found.into_iter().next() else { return Ok(names) };
            let name = first
                .key
                .below(&prefix)
                .and_then(|rest| rest.split('/').next())
                .map(str::parse::<DatabaseName>);
            match name {
                Some(Ok(name)) => {
                    // Behind everything that a database holds: ids and `incarnations` begin with smaller letters. A foreign
                    // name that lies behind even that is stepped over.
                    let behind = Key::new(format!("db/{name}/{}", "z".repeat(100)))?;
                    after = Some(behind.max(first.key));
                    if names.last() != Some(&name) {
                        names.push(name);
                    }
                }
                _ => after = Some(first.key),
            }
        }
    }

    /// A database's incarnations, oldest first. The last one is the current one.
    ///
    /// # Errors
    /// [`JournalError::RecordLost`] when a number is missing, and [`JournalError::Unclaimed`] when there are objects that no
    /// record names; [`JournalError::Object`] or [`JournalError::Misplaced`] when a record is not what was written.
    pub async fn incarnations(
        &self,
        database: &DatabaseName,
    ) -> Result<Vec<IncarnationRecord>, JournalError> {
        // Before the records: whoever founds one meanwhile writes its record before its first object.
        let folders = self.folders(database).await?;
        let prefix = layout::incarnations(database)?;
        let listed = self.store.list(&prefix, None, None).await?;
        // Foreign names are not records.
        let highest = listed.iter().filter_map(|l| l.key.name().parse::<Sequence>().ok()).max();
        let mut records: Vec<IncarnationRecord> = Vec::new();
        let mut number = Sequence::FIRST;
        let mut tries = 1;
        // A listing may lag behind; the numbers are few and dense, so each is asked for.
        loop {
            let must_be = highest.is_some_and(|highest| number <= highest);
            match self.incarnation(database, number).await {
                Ok(record) => records.push(record),
                // Listed, or before one that is: not found is doubt, and then a loss.
                Err(JournalError::Store(StoreError::NotFound { .. })) if must_be => {
                    if tries >= DOUBT_TRIES {
                        return Err(JournalError::RecordLost { key: prefix.key(number)? });
                    }
                    tries += 1;
                    tokio::time::sleep(DOUBT_PAUSE).await;
                    continue;
                }
                Err(JournalError::Store(StoreError::NotFound { .. })) => break,
                Err(why) => return Err(why),
            }
            let Some(next) = number.next() else { break };
            number = next;
        }
        // The newest record is the one that leaves no hole when it is lost.
        let claimed = |id: &IncarnationId| records.iter().any(|record| record.incarnation == *id);
        if let Some((_, folder)) = folders.into_iter().find(|(id, _)| !claimed(id)) {
            return Err(JournalError::Unclaimed { folder });
        }
        Ok(records)
    }

    /// The incarnations of which a database has objects.
    async fn folders(
        &self,
        database: &DatabaseName,
    ) -> Result<Vec<(IncarnationId, KeyPrefix)>, JournalError> {
        let prefix = layout::database(database)?;
        let mut folders = Vec::new();
        let mut after: Option<Key> = None;
        // Incarnations hold many objects: step from the first name of one to behind its last.
        loop {
            let found = self.store.list(&prefix, after.as_ref(), Some(1)).await?;
            let Some(first) = found.into_iter().next() else { return Ok(folders) };
            let name = first.key.below(&prefix).and_then(|rest| rest.split('/').next());
            let Some(folder) = name.map(|name| prefix.join(name)).transpose()? else { return Ok(folders) };
            if let Some(Ok(id)) = name.map(str::parse::<IncarnationId>) {
                folders.push((id, folder.clone()));
            }
            // Behind everything that an incarnation holds: `journal`, `backups` and the rest begin with smaller letters. A
            // foreign name that lies behind even that is stepped over.
            let behind = folder.key("z".repeat(100))?;
            after = Some(behind.max(first.key));
        }
    }

    async fn incarnation(
        &self,
        database: &DatabaseName,
        number: Sequence,
    ) -> Result<IncarnationRecord, JournalError> {
        let key = layout::incarnations(database)?.key(number)?;
        let record: IncarnationRecord = read_json(&*self.store, &key, "incarnation record").await?;
        check_version(&key, record.format)?;
        let misplaced = |field| Err(JournalError::Misplaced { key: key.clone(), field });
        if record.store != self.id {
            return misplaced("store id");
        }
        if record.number != number.get() {
            return misplaced("number");
        }
        if record.database != *database {
            return misplaced("database");
        }
        if !record.segment_bytes.is_power_of_two() || !SEGMENT_BYTES.contains(&record.segment_bytes) {
            return misplaced("segment size");
        }
        Ok(record)
    }

    /// Founds the next incarnation, or learns that another founder was first.
    ///
    /// # Errors
    /// When the store does not answer. On `Ok` the returned record, ours or the other's, is durable.
    pub async fn found_incarnation(&self, founding: Founding<'_>) -> Result<IncarnationRecord, JournalError> {
        let number = Sequence::new(founding.number);
        let record = IncarnationRecord {
            format: VERSION,
            store: self.id,
            number: founding.number,
            incarnation: IncarnationId::mint(),
            database: founding.database.clone(),
            engine: founding.engine.to_owned(),
            identity: founding.identity.to_owned(),
            major: founding.major,
            segment_bytes: founding.segment_bytes,
            created: founding.now.to_owned(),
            reason: founding.reason.to_owned(),
        };
        let key = layout::incarnations(founding.database)?.key(number)?;
        create_json(&*self.store, &key, "incarnation record", &record).await?;
        let won = self.incarnation(founding.database, number).await?;
        let of = |record: &IncarnationRecord| {
            format!(
                "{} {} of major {}, segments of {} bytes",
                record.engine, record.identity, record.major, record.segment_bytes
            )
        };
        match of(&won) == of(&record) {
            true => Ok(won),
            // Two different databases under one name: the second must not write into the first one's journal.
            false => Err(JournalError::Another { found: of(&won), expected: of(&record) }),
        }
    }
}

/// What is known when an incarnation is founded.
#[derive(Debug, Clone, Copy)]
pub struct Founding<'a> {
    /// The database.
    pub database: &'a DatabaseName,
    /// The number to found: how many there are.
    pub number: u64,
    /// The engine's name.
    pub engine: &'a str,
    /// What the engine calls itself.
    pub identity: &'a str,
    /// Its major version.
    pub major: u32,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// RFC 3339.
    pub now: &'a str,
    /// Why a new one.
    pub reason: &'a str,
}

fn check_version(key: &Key, version: u16) -> Result<(), JournalError> {
    if version == VERSION {
        return Ok(());
    }
    Err(JournalError::Object { key: key.clone(), source: FormatError::Version { version } })
}

async fn read_json<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    key: &Key,
    what: &'static str,
) -> Result<T, JournalError> {
    let bytes = store.get(key).await?;
    body::from_document(what, &bytes).map_err(|source| JournalError::Object { key: key.clone(), source })
}

/// Creates a document; a lost answer is resolved by sending the very same bytes again, as the chunks' rule R4 says.
async fn create_json<T: Serialize>(
    store: &dyn ObjectStore,
    key: &Key,
    what: &'static str,
    value: &T,
) -> Result<Created, JournalError> {
    let bytes = body::to_document(what, value).map_err(|source| JournalError::Encode { what, source })?;
    let bytes = Bytes::from(bytes);
    let mut tries = 0;
    loop {
        tries += 1;
        match store.create(key, bytes.clone()).await {
            Err(why) if why.is_ambiguous() && tries < CREATE_TRIES => {
                tokio::time::sleep(CREATE_PAUSE * tries).await
            }
            created => return Ok(created?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{KeyPrefix, Listed};

    const NOW: &str = "2026-11-21T02:00:00Z";

    fn founding(database: &DatabaseName, number: u64) -> Founding<'_> {
        let (engine, identity, reason) = ("postgres", "7000000000000000001", "first");
        let segment_bytes = 16 << 20;
        Founding { database, number, engine, identity, major: 15, segment_bytes, now: NOW, reason }
    }

    /// Founds an incarnation and puts an object of it.
    async fn begin(repository: &Repository, name: &str, number: u64) -> IncarnationRecord {
        let database: DatabaseName = name.parse().unwrap();
        let record = repository.found_incarnation(founding(&database, number)).await.unwrap();
        let key = layout::Layout::new(&database, record.incarnation).unwrap().chunk(Sequence::FIRST).unwrap();
        repository.store().create(&key, Bytes::from_static(b"x")).await.unwrap();
        record
    }

    /// A store in which, just before this founder looks for objects, another one founds it and ships.
    #[derive(Debug)]
    struct Meanwhile {
        store: Arc<MemoryStore>,
        done: AtomicBool,
    }

    #[async_trait]
    impl ObjectStore for Meanwhile {
        async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
            self.store.create(key, bytes).await
        }
        async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
            self.store.get(key).await
        }
        async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
            self.store.get_range(key, range).await
        }
        async fn size(&self, key: &Key) -> Result<u64, StoreError> {
            self.store.size(key).await
        }
        async fn list(
            &self,
            prefix: &KeyPrefix,
            after: Option<&Key>,
            limit: Option<usize>,
        ) -> Result<Vec<Listed>, StoreError> {
            if *prefix == layout::databases().unwrap() && !self.done.swap(true, Ordering::Relaxed) {
                let other: Arc<dyn ObjectStore> = self.store.clone();
                let other = Box::pin(Repository::open_or_found(other, NOW)).await.unwrap();
                begin(&other, "other", 0).await;
            }
            self.store.list(prefix, after, limit).await
        }
        async fn delete(&self, key: &Key) -> Result<(), StoreError> {
            self.store.delete(key).await
        }
        fn tails(&self) -> store::HasTails<'_> {
            self.store.tails()
        }
    }

    #[tokio::test]
    async fn of_two_founders_the_late_one_uses_the_store_that_the_other_has_begun_to_fill() {
        let store = Arc::new(MemoryStore::new());
        let late = Meanwhile { store: Arc::clone(&store), done: AtomicBool::new(false) };
        let late = Repository::open_or_found(Arc::new(late), NOW).await.unwrap();
        assert_eq!(late.id(), Repository::open(store).await.unwrap().id());
    }

    #[tokio::test]
    async fn a_store_that_lost_its_record_is_not_founded_anew() {
        let store = Arc::new(MemoryStore::new());
        let repository = Repository::open_or_found(store.clone(), NOW).await.unwrap();
        begin(&repository, "orders", 0).await;
        store.delete(&layout::store_record().unwrap()).await.unwrap();
        let refused = Repository::open_or_found(store, NOW).await;
        assert!(matches!(refused, Err(JournalError::Another { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn the_lost_record_of_an_incarnation_is_said_whichever_it_is() {
        let database: DatabaseName = "orders".parse().unwrap();
        let store = Arc::new(MemoryStore::new());
        let repository = Repository::open_or_found(store.clone(), NOW).await.unwrap();
        let mut records = Vec::new();
        for number in 0..3 {
            // Founded and not begun, as a crash leaves it, is no damage.
            assert_eq!(repository.incarnations(&database).await.unwrap(), records);
            records.push(begin(&repository, "orders", number).await);
        }
        // A database whose name begins with this one's is another's matter.
        begin(&repository, "orders-2", 0).await;
        assert_eq!(repository.incarnations(&database).await.unwrap(), records);
        for record in &records {
            let key = layout::incarnations(&database).unwrap().key(Sequence::new(record.number)).unwrap();
            let bytes = store.get(&key).await.unwrap();
            store.delete(&key).await.unwrap();
            let said = repository.incarnations(&database).await;
            let expected = match (&said, record.number) {
                (Err(JournalError::Unclaimed { folder }), 2) => {
                    folder.to_string().contains(&record.incarnation.to_string())
                }
                (Err(JournalError::RecordLost { key: lost }), number) => number < 2 && *lost == key,
                _ => false,
            };
            assert!(expected, "{}: {said:?}", record.number);
            store.create(&key, bytes).await.unwrap();
        }
    }
}
