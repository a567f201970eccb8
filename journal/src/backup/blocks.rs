//! Digests of the blocks of a backup's files, and where each block's bytes are. `FORMAT.md` section 15.
//!
//! ```text
//!  record   0  24  first 24 bytes of BLAKE3 over a block of up to 8,192 bytes
//!          24   8  low 56 bits: offset among own bytes; high 8 bits: whose, 0 this backup's, n the n-th of the table's `from`
//! ```
//! What always holds: sums are believed when they have the digest that their table states, at the place that their header states. They say which bytes to hold against
//! which, and never that two are equal.
//! What it does not do: it does not decide whether a backup may be referred to ([`super::refresh`] does).

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::manifest::MAX_ENTRIES;
use super::pieces::MAX_HOLDERS;
use super::reader::check;
use crate::error::JournalError;
use crate::format::header::{HEADER_BYTES, Header};
use crate::format::{Digest, FormatError, Kind, body};
use crate::identity::{BackupId, Sequence};
use crate::reader::Reader;
use crate::store::{Key, StoreError};

/// Bytes of a block: a database's page.
pub const BLOCK_BYTES: usize = 8192;
/// Bytes of a record.
pub const RECORD_BYTES: u64 = 32;
/// Records of an object of sums: those of 1 GiB, in 4 MiB.
pub(super) const RECORDS: u64 = 131_072;
/// Objects of sums that are kept at hand while they are compared with: 64 MiB. A server sends files in an order of its own, mostly the same each time.
const AT_HAND: usize = 16;

const SUM_BYTES: usize = 24;
const OFFSET_BITS: u32 = 56;

/// A block's digest: 24 bytes of BLAKE3, so that nobody finds two blocks with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum([u8; SUM_BYTES]);

impl Sum {
    /// Of a block's bytes.
    pub fn of(block: &[u8]) -> Self {
        let digest = Digest::of(block);
        let mut sum = [0; SUM_BYTES];
        sum.copy_from_slice(&digest.as_bytes()[..SUM_BYTES]);
        Self(sum)
    }
}

/// What is known of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its digest.
    pub sum: Sum,
    /// Whose its bytes are: 0 the backup's own, n those of the n-th that the table names.
    pub from: u32,
    /// Where they begin among that one's own bytes.
    pub at: u64,
}

impl Record {
    /// Its bytes; none for a place that a record cannot say.
    pub fn encode(&self) -> Option<[u8; RECORD_BYTES as usize]> {
        let from = u8::try_from(self.from).ok()?;
        if self.at >> OFFSET_BITS != 0 {
            return None;
        }
        let mut raw = [0; RECORD_BYTES as usize];
        raw[..SUM_BYTES].copy_from_slice(&self.sum.0);
        raw[SUM_BYTES..].copy_from_slice(&(u64::from(from) << OFFSET_BITS | self.at).to_le_bytes());
        Some(raw)
    }

    /// From its bytes.
    pub fn decode(raw: &[u8; RECORD_BYTES as usize]) -> Self {
        let (mut sum, mut place) = ([0; SUM_BYTES], [0; 8]);
        sum.copy_from_slice(&raw[..SUM_BYTES]);
        place.copy_from_slice(&raw[SUM_BYTES..]);
        let place = u64::from_le_bytes(place);
        Self { sum: Sum(sum), from: (place >> OFFSET_BITS) as u32, at: place & ((1 << OFFSET_BITS) - 1) }
    }
}

/// What stands for a file's path: the table is read without a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathSum(#[serde(with = "hex::serde")] [u8; 16]);

impl PathSum {
    /// Of a path.
    pub fn of(path: &str) -> Self {
        let digest = Digest::of(path.as_bytes());
        let mut sum = [0; 16];
        sum.copy_from_slice(&digest.as_bytes()[..16]);
        Self(sum)
    }
}

/// Which records are whose, and whose bytes they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The format version.
    pub format: u16,
    /// Whose it is.
    pub backup: BackupId,
    /// For whom its bytes are sealed; none where they are not.
    pub recipients: Option<Digest>,
    /// Bytes of all its files.
    pub plain_bytes: u64,
    /// Bytes that its own parts hold.
    pub own_bytes: u64,
    /// The backups that records name.
    pub from: Vec<Named>,
    /// The objects of records.
    pub sums: Vec<SumsObject>,
    /// Its files that have bytes.
    pub files: Vec<FileBlocks>,
}

/// A backup that records name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub backup: BackupId,
    /// The trailer of its manifest.
    pub manifest: Digest,
    /// Bytes that its own parts hold.
    pub own_bytes: u64,
    /// Bytes of them that are used.
    pub used: u64,
}

/// An object of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumsObject {
    /// Its number.
    pub number: Sequence,
    /// How many.
    pub records: u64,
    /// BLAKE3 of it.
    pub digest: Digest,
}

/// A file's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBlocks {
    /// Which file.
    pub path: PathSum,
    /// Its bytes.
    pub size: u64,
    /// Its first record.
    pub first: u64,
}

/// How many blocks so many bytes have.
pub fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES as u64)
}

impl Table {
    fn check(&self, id: BackupId) -> Result<(), FormatError> {
        let wrong = |field| Err(FormatError::Field { field });
        if self.format != crate::format::header::VERSION {
            return Err(FormatError::Version { version: self.format });
        }
        if self.backup != id {
            return wrong("backup");
        }
        if self.from.len() > MAX_HOLDERS || self.files.len() > MAX_ENTRIES {
            return wrong("from");
        }
        let mut records = 0u64;
        for (number, sums) in self.sums.iter().enumerate() {
            let is_last = number + 1 == self.sums.len();
            let full = sums.records == RECORDS || is_last && (1..=RECORDS).contains(&sums.records);
            if sums.number.get() != number as u64 || !full {
                return wrong("sums");
            }
            records += sums.records;
        }
        let fits = |file: &FileBlocks| {
            file.first.checked_add(blocks_of(file.size)).is_some_and(|end| end <= records)
        };
        if !self.files.iter().all(fits) {
            return wrong("files");
        }
        Ok(())
    }
}

/// A backup's table, and its records as they are asked for.
#[derive(Debug)]
pub struct Blocks {
    reader: Reader,
    table: Table,
    digest: Digest,
    files: HashMap<PathSum, usize>,
    at_hand: VecDeque<(u64, Bytes)>,
}

impl Blocks {
    /// Reads a backup's table; `None` when it has none.
    ///
    /// # Errors
    /// When the store does not answer, or it is not what was written.
    pub async fn open(reader: &Reader, id: BackupId) -> Result<Option<Self>, JournalError> {
        let key = reader.layout().backup_table(id)?;
        let bytes = match reader.store().get(&key).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(why) => return Err(why.into()),
        };
        let of = (reader.clone(), key.clone());
        let read = tokio::task::spawn_blocking(move || {
            let (reader, key) = of;
            let digest = Digest::of(&bytes);
            let decoded = check(&reader, &key, bytes, Kind::Table, id, Sequence::FIRST)?;
            let read = decoded.plain_all(None).and_then(|plain| {
                let table: Table = body::from_json("backup table", &plain)?;
                table.check(id)?;
                Ok((table, digest))
            });
            read.map_err(|source| JournalError::Object { key, source })
        });
        let (mut table, digest) = read.await.map_err(|_| cut_off())??;
        let files = table.files.iter().enumerate().map(|(at, file)| (file.path, at)).collect();
        table.files.shrink_to_fit();
        Ok(Some(Self { reader: reader.clone(), table, digest, files, at_hand: VecDeque::new() }))
    }

    /// What it says.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// BLAKE3 of its object.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A file's records.
    pub fn file(&self, path: PathSum) -> Option<Range<u64>> {
        let file = self.files.get(&path).and_then(|at| self.table.files.get(*at))?;
        Some(file.first..file.first + blocks_of(file.size))
    }

    /// One record.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`] for one that the table does not have; otherwise when the object that holds it does not read.
    pub async fn record(&mut self, number: u64) -> Result<Record, JournalError> {
        let object = number / RECORDS;
        let at = match self.at_hand.iter().position(|(held, _)| *held == object) {
            Some(at) => at,
            None => {
                let plain = self.fetch(object).await?;
                if self.at_hand.len() >= AT_HAND {
                    self.at_hand.pop_back();
                }
                self.at_hand.push_front((object, plain));
                0
            }
        };
        let begin = (number % RECORDS * RECORD_BYTES) as usize;
        let raw = self.at_hand.get(at).and_then(|(_, plain)| plain.get(begin..)?.first_chunk());
        raw.map(Record::decode).ok_or_else(|| JournalError::NotHeld {
            what: format!("record {number} of {}", self.table.backup),
        })
    }

    /// An object of records, all of it.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub async fn fetch(&self, object: u64) -> Result<Bytes, JournalError> {
        let stated = usize::try_from(object).ok().and_then(|at| self.table.sums.get(at));
        let stated = stated.cloned().ok_or_else(|| JournalError::NotHeld {
            what: format!("sums {object} of {}", self.table.backup),
        })?;
        let key = self.reader.layout().backup_sums(self.table.backup, stated.number)?;
        let bytes = self.reader.store().get(&key).await?;
        let (reader, id) = (self.reader.clone(), self.table.backup);
        let read = tokio::task::spawn_blocking(move || {
            let same = Digest::of(&bytes) == stated.digest;
            let decoded = check(&reader, &key, bytes, Kind::Sums, id, stated.number)?;
            if !same || decoded.header().plain_bytes != stated.records * RECORD_BYTES {
                return Err(JournalError::Misplaced { key, field: "digest in the table" });
            }
            decoded.plain_all(None).map(Bytes::from).map_err(|source| JournalError::Object { key, source })
        });
        read.await.map_err(|_| cut_off())?
    }
}

/// How many bytes the files of a backup with digests of blocks have, by its table's header; `None` when it has none. Information.
///
/// # Errors
/// When the store does not answer, or it is not what was written.
pub async fn database_bytes(reader: &Reader, id: BackupId) -> Result<Option<u64>, JournalError> {
    let key = reader.layout().backup_table(id)?;
    let bytes = match reader.store().get_range(&key, 0..HEADER_BYTES as u64).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let header = Header::decode(&bytes).map_err(|source| JournalError::Object { key, source })?;
    Ok(Some(header.end.get()))
}

/// The trailer of a backup's manifest, which binds all of it; `None` when it has none.
///
/// # Errors
/// When the store does not answer, or what is there is too short to be one.
pub async fn manifest_trailer(reader: &Reader, id: BackupId) -> Result<Option<Digest>, JournalError> {
    let key: Key = reader.layout().backup_manifest(id)?;
    let read = async {
        let size = reader.store().size(&key).await?;
        reader.store().get_range(&key, size.saturating_sub(32)..size).await
    };
    match read.await {
        Ok(bytes) => match bytes.first_chunk::<32>() {
            Some(raw) => Ok(Some(Digest::from_bytes(*raw))),
            None => Err(JournalError::Misplaced { key, field: "length" }),
        },
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(why) => Err(why.into()),
    }
}

fn cut_off() -> JournalError {
    JournalError::NotHeld { what: "the backup's blocks: reading them was cut off".to_owned() }
}

/// What is wrong with a backup's digests, each object by itself: for whoever looks where the table of them does not read.
///
/// # Errors
/// When the store does not answer.
pub async fn loose_sums(reader: &Reader, id: BackupId) -> Result<Vec<(Key, JournalError)>, JournalError> {
    let mut bad = Vec::new();
    let prefix = reader.layout().backups()?.join(id)?;
    for listed in reader.store().list(&prefix, None, None).await? {
        let Some(number) = listed.key.name().strip_prefix("sums-").and_then(|number| number.parse().ok())
        else {
            continue;
        };
        let bytes = reader.store().get(&listed.key).await?;
        if let Err(why) = check(reader, &listed.key, bytes, Kind::Sums, id, number) {
            bad.push((listed.key, why));
        }
    }
    Ok(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_says_again_what_it_was_made_of(block in prop::collection::vec(any::<u8>(), 0..64), from in 0u32..256, at in 0u64..1 << 56) {
            let record = Record { sum: Sum::of(&block), from, at };
            prop_assert_eq!(Record::decode(&record.encode().unwrap()), record);
        }
    }

    #[test]
    fn a_place_that_a_record_cannot_say_is_refused() {
        let sum = Sum::of(b"x");
        assert!(Record { sum, from: 256, at: 0 }.encode().is_none());
        assert!(Record { sum, from: 0, at: 1 << 56 }.encode().is_none());
    }
}
