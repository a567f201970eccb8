//! Names in a store: `FORMAT.md` section 1. Nothing else in farshore puts a key together.

use crate::error::JournalError;
use crate::format::Chronicle;
use crate::identity::{BackupId, DatabaseName, DrillId, Generation, HoldId, IncarnationId, Sequence};
use crate::index::IndexName;
use crate::segments::SegmentName;
use crate::store::{Key, KeyPrefix};

/// The store's record.
///
/// # Errors
/// Never in practice: the name is a constant.
pub fn store_record() -> Result<Key, JournalError> {
    Ok(Key::new("farshore.store")?)
}

/// Where the databases of a store lie.
///
/// # Errors
/// Never in practice: the name is a constant.
pub fn databases() -> Result<KeyPrefix, JournalError> {
    Ok(KeyPrefix::new("db")?)
}

/// Where everything of a database lies.
///
/// # Errors
/// Never in practice: every database name is a key.
pub fn database(database: &DatabaseName) -> Result<KeyPrefix, JournalError> {
    Ok(KeyPrefix::new(&format!("db/{database}"))?)
}

/// Where a database's incarnation records lie.
///
/// # Errors
/// Never in practice: every database name is a key.
pub fn incarnations(database: &DatabaseName) -> Result<KeyPrefix, JournalError> {
    Ok(KeyPrefix::new(&format!("db/{database}/incarnations"))?)
}

/// Where the lives of a chronicle lie.
///
/// # Errors
/// Never in practice: every database name is a key.
pub fn chronicle(chronicle: &Chronicle) -> Result<KeyPrefix, JournalError> {
    Ok(match chronicle {
        Chronicle::Activity => KeyPrefix::new("activity")?,
        Chronicle::Exposure(name) => database(name)?.join("exposure")?,
    })
}

/// Where the lives of the activity that a database belongs to are named.
///
/// # Errors
/// Never in practice: every database name is a key.
pub fn activity_of(name: &DatabaseName) -> Result<KeyPrefix, JournalError> {
    Ok(database(name)?.join("activity")?)
}

/// Whether a key is a chunk's.
pub fn is_chunk(key: &Key) -> bool {
    let mut parts = key.segments();
    parts.next() == Some("db") && parts.nth(2) == Some("journal")
}

/// The names of one incarnation's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: KeyPrefix,
    journal: KeyPrefix,
}

impl Layout {
    /// The names of `incarnation` of `database`.
    ///
    /// # Errors
    /// Never in practice: every name and id is a key.
    pub fn new(database: &DatabaseName, incarnation: IncarnationId) -> Result<Self, JournalError> {
        let root = KeyPrefix::new(&format!("db/{database}/{incarnation}"))?;
        let journal = root.join("journal")?;
        Ok(Self { root, journal })
    }

    /// Everything of the incarnation.
    pub fn root(&self) -> &KeyPrefix {
        &self.root
    }

    /// Where its chunks lie.
    pub fn journal(&self) -> &KeyPrefix {
        &self.journal
    }

    /// One chunk.
    ///
    /// # Errors
    /// Never in practice.
    pub fn chunk(&self, sequence: Sequence) -> Result<Key, JournalError> {
        Ok(self.journal.key(sequence)?)
    }

    /// Where the tails of all its generations lie. (These are no keys: a store's tails lie apart.)
    pub fn all_tails(&self) -> &KeyPrefix {
        &self.root
    }

    /// Where the tails of one generation lie.
    ///
    /// # Errors
    /// Never in practice.
    pub fn tails(&self, generation: Generation) -> Result<KeyPrefix, JournalError> {
        Ok(self.root.join(format_args!("{:016x}", generation.get()))?)
    }

    /// Where its segments lie.
    ///
    /// # Errors
    /// Never in practice.
    pub fn segments(&self) -> Result<KeyPrefix, JournalError> {
        Ok(self.root.join("segments")?)
    }

    /// One segment.
    ///
    /// # Errors
    /// Never in practice.
    pub fn segment(&self, name: &SegmentName) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("segments/{name}"))?)
    }

    /// Where its signed heads lie.
    ///
    /// # Errors
    /// Never in practice.
    pub fn heads(&self) -> Result<KeyPrefix, JournalError> {
        Ok(self.root.join("heads")?)
    }

    /// The signed head of one chunk.
    ///
    /// # Errors
    /// Never in practice.
    pub fn head(&self, sequence: Sequence) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("heads/{sequence}"))?)
    }

    /// Where the certificates of its drills lie.
    ///
    /// # Errors
    /// Never in practice.
    pub fn drills(&self) -> Result<KeyPrefix, JournalError> {
        Ok(self.root.join("drills")?)
    }

    /// The certificate of one drill.
    ///
    /// # Errors
    /// Never in practice.
    pub fn drill(&self, drill: DrillId) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("drills/{drill}"))?)
    }

    /// Where the indexes of its journal lie.
    ///
    /// # Errors
    /// Never in practice.
    pub fn indexes(&self) -> Result<KeyPrefix, JournalError> {
        Ok(self.root.join("index")?)
    }

    /// One index.
    ///
    /// # Errors
    /// Never in practice.
    pub fn index(&self, name: &IndexName) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("index/{name}"))?)
    }

    /// Where its backups lie.
    ///
    /// # Errors
    /// Never in practice.
    pub fn backups(&self) -> Result<KeyPrefix, JournalError> {
        Ok(self.root.join("backups")?)
    }

    /// A backup's opening.
    ///
    /// # Errors
    /// Never in practice.
    pub fn backup_opening(&self, backup: BackupId) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("backups/{backup}/opening"))?)
    }

    /// A backup's part.
    ///
    /// # Errors
    /// Never in practice.
    pub fn backup_part(&self, backup: BackupId, number: Sequence) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("backups/{backup}/part-{number}"))?)
    }

    /// Digests of a backup's blocks.
    ///
    /// # Errors
    /// Never in practice.
    pub fn backup_sums(&self, backup: BackupId, number: Sequence) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("backups/{backup}/sums-{number}"))?)
    }

    /// Which of these digests are whose.
    ///
    /// # Errors
    /// Never in practice.
    pub fn backup_table(&self, backup: BackupId) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("backups/{backup}/table"))?)
    }

    /// A backup's manifest.
    ///
    /// # Errors
    /// Never in practice.
    pub fn backup_manifest(&self, backup: BackupId) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("backups/{backup}/manifest"))?)
    }

    /// That a backup may be deleted.
    ///
    /// # Errors
    /// Never in practice.
    pub fn backup_expiring(&self, backup: BackupId) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("backups/{backup}/expiring"))?)
    }

    /// Where its expired runs lie.
    ///
    /// # Errors
    /// Never in practice.
    pub fn expired(&self) -> Result<KeyPrefix, JournalError> {
        Ok(self.root.join("expired")?)
    }

    /// One expired run.
    ///
    /// # Errors
    /// Never in practice.
    pub fn expired_run(&self, name: &SegmentName) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("expired/{name}"))?)
    }

    /// Where its holds lie.
    ///
    /// # Errors
    /// Never in practice.
    pub fn holds(&self) -> Result<KeyPrefix, JournalError> {
        Ok(self.root.join("holds")?)
    }

    /// One hold.
    ///
    /// # Errors
    /// Never in practice.
    pub fn hold(&self, hold: HoldId) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("holds/{hold}"))?)
    }

    /// That a hold is over.
    ///
    /// # Errors
    /// Never in practice.
    pub fn hold_released(&self, hold: HoldId) -> Result<Key, JournalError> {
        Ok(self.root.key(format_args!("holds/{hold}-released"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_told_from_all_else_by_its_name() {
        let id = IncarnationId::from_bytes([7; 16]);
        let layout = Layout::new(&"journal".parse().unwrap(), id).unwrap();
        assert!(is_chunk(&layout.chunk(Sequence::FIRST).unwrap()));
        assert!(!is_chunk(&layout.head(Sequence::FIRST).unwrap()));
        assert!(!is_chunk(&store_record().unwrap()));
    }
}
