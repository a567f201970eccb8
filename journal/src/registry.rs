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
use crate::store::{self, Created, Key, ObjectStore, StoreError};

/// Sizes that a log segment of any engine may have.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;
/// How often a document whose creation is in doubt is sent again, and the first pause between.
const CREATE_TRIES: u32 = 6;
const CREATE_PAUSE: Duration = Duration::from_millis(100);

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
    /// [`JournalError::Hole`] when a number is missing; [`JournalError::Object`] or [`JournalError::Misplaced`] when a
    /// record is not what was written.
    pub async fn incarnations(
        &self,
        database: &DatabaseName,
    ) -> Result<Vec<IncarnationRecord>, JournalError> {
        let mut records = Vec::new();
        let mut number = Sequence::FIRST;
        // A listing may lag behind; the numbers are few and dense, so each is asked for.
        loop {
            match self.incarnation(database, number).await {
                Ok(record) => records.push(record),
                Err(JournalError::Store(StoreError::NotFound { .. })) => break,
                Err(why) => return Err(why),
            }
            let Some(next) = number.next() else { break };
            number = next;
        }
        // A record behind the first missing number: the store lost one. Foreign names are not records.
        let prefix = layout::incarnations(database)?;
        let listed = self.store.list(&prefix, None, None).await?;
        if listed.iter().filter_map(|l| l.key.name().parse::<Sequence>().ok()).any(|listed| listed > number) {
            return Err(JournalError::Hole { missing: number });
        }
        Ok(records)
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
    body::from_json(what, &bytes).map_err(|source| JournalError::Object { key: key.clone(), source })
}

/// Creates a document; a lost answer is resolved by sending the very same bytes again, as the chunks' rule R4 says.
async fn create_json<T: Serialize>(
    store: &dyn ObjectStore,
    key: &Key,
    what: &'static str,
    value: &T,
) -> Result<Created, JournalError> {
    let bytes = body::to_json(what, value).map_err(|source| JournalError::Encode { what, source })?;
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
