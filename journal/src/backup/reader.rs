//! Reading backups: which there are, what they hold, and their parts, each checked against its place and the manifest.
//!
//! What always holds: a backup without a manifest is never given out as one; a part that is given out has its checksums,
//! its place (store, incarnation, backup, number) and the digest that the manifest states. A backup that refers to others is given out only with all of them, each
//! with the manifest that it named.

use std::ops::Range as Span;
use std::sync::Arc;

use bytes::Bytes;

use super::blocks::Blocks;
use super::manifest::{Manifest, Opening, Part};
use super::pieces::Share;
use crate::error::JournalError;
use crate::format::header::{HEADER_BYTES, Header};
use crate::format::{Cipher, DataKey, Decoded, Digest, FormatError, Kind, Unlock, body};
use crate::identity::{BackupId, Sequence};
use crate::position::Position;
use crate::reader::Reader;
use crate::store::{Key, StoreError};

/// A backup as its objects' clear parts show it: all that can be said without a private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub id: BackupId,
    /// Its opening.
    pub opening: Opening,
    /// Its log range, when its manifest is there. Without a manifest it is no backup: running, failed, or cut off.
    pub complete: Option<Range>,
}

/// What a manifest's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where replay starts.
    pub start: Position,
    /// From where on the files are consistent.
    pub end: Position,
    /// Microseconds since 1970 UTC when it was written. Information only.
    pub written_at: i64,
    /// Whether a private key is needed.
    pub sealed: bool,
}

/// The ids of the incarnation's backups, complete or not, in no order that means anything.
///
/// # Errors
/// When the store cannot be listed.
pub async fn list(reader: &Reader) -> Result<Vec<BackupId>, JournalError> {
    let prefix = reader.layout().backups()?;
    let mut ids: Vec<BackupId> = Vec::new();
    let mut after: Option<Key> = None;
    // A backup has thousands of parts: step from the first name of one to behind its last.
    loop {
        let found = reader.store().list(&prefix, after.as_ref(), Some(1)).await?;
        let Some(first) = found.into_iter().next() else { return Ok(ids) };
        let id = first.key.below(&prefix).and_then(|rest| rest.split('/').next()).map(str::parse::<BackupId>);
        match id {
            Some(Ok(id)) => {
                // Behind `manifest`, `opening`, `table` and every `part-` and `sums-`.
                after = Some(prefix.key(format_args!("{id}/z"))?);
                ids.push(id);
            }
            // Not ours; verify reports it.
            _ => after = Some(first.key),
        }
    }
}

/// Bytes of a backup's objects in the store, complete or not.
///
/// # Errors
/// When the store cannot be listed.
pub async fn stored_bytes(reader: &Reader, id: BackupId) -> Result<u64, JournalError> {
    let objects = reader.layout().backups()?.join(id)?;
    let listed = reader.store().list(&objects, None, None).await?;
    Ok(listed.iter().map(|listed| listed.size).sum())
}

/// What can be said of a backup without a private key.
///
/// # Errors
/// When its opening or its manifest's header is not what was written.
pub async fn standing(reader: &Reader, id: BackupId) -> Result<Standing, JournalError> {
    let opening = opening(reader, id).await?;
    let key = reader.layout().backup_manifest(id)?;
    let complete = match reader.store().get_range(&key, 0..HEADER_BYTES as u64).await {
        Ok(bytes) => {
            let header = Header::decode(&bytes).map_err(object(&key))?;
            check_place(reader, &key, &header, Kind::Manifest, id, Sequence::FIRST)?;
            Some(Range {
                start: Position::new(header.timeline, header.start),
                end: Position::new(header.timeline, header.end),
                written_at: header.written_at,
                sealed: header.cipher != Cipher::Clear,
            })
        }
        Err(StoreError::NotFound { .. }) => None,
        Err(why) => return Err(why.into()),
    };
    Ok(Standing { id, opening, complete })
}

/// A backup's opening.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none; otherwise when it is not what was written.
pub async fn opening(reader: &Reader, id: BackupId) -> Result<Opening, JournalError> {
    let key = reader.layout().backup_opening(id)?;
    let decoded =
        check(reader, &key, reader.store().get(&key).await?, Kind::BackupOpening, id, Sequence::FIRST)?;
    let read = decoded.plain(0, None).and_then(|plain| body::from_json("backup opening", &plain));
    read.map_err(object(&key))
}

/// A complete backup, to be read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Backup {
    reader: Reader,
    id: BackupId,
    opening: Opening,
    manifest: Arc<Manifest>,
    key: Option<DataKey>,
    /// Those that it refers to, without their entries.
    others: Arc<Vec<Backup>>,
}

impl Backup {
    /// Opens a backup, and those that it refers to; `None` when it has no manifest, and so is none.
    ///
    /// # Errors
    /// [`JournalError::Object`] with [`FormatError::KeyMissing`] or [`FormatError::Key`] when it is sealed and no private key
    /// at hand opens it; [`StoreError::NotFound`] of the manifest of one that it refers to; otherwise when an object is not what was written.
    pub async fn open(reader: &Reader, id: BackupId, unlock: &Unlock) -> Result<Option<Self>, JournalError> {
        let Some((mut backup, _)) = Self::open_alone(reader, id, unlock).await? else { return Ok(None) };
        let Some(borrowed) = &backup.manifest.borrowed else { return Ok(Some(backup)) };
        let manifest = reader.layout().backup_manifest(id)?;
        let mut others = Vec::with_capacity(borrowed.from.len());
        for (number, held) in borrowed.from.iter().enumerate() {
            // What an expiry does not know of may go at any time.
            if !backup.opening.refers.contains(&held.backup) {
                return Err(JournalError::Misplaced { key: manifest, field: "opening" });
            }
            let name = reader.layout().backup_manifest(held.backup)?;
            let Some((mut other, trailer)) = Self::open_alone(reader, held.backup, unlock).await? else {
                return Err(JournalError::Store(StoreError::NotFound { key: name }));
            };
            if trailer != held.manifest {
                return Err(JournalError::Misplaced {
                    key: name,
                    field: "trailer in the manifest that refers to it",
                });
            }
            if borrowed.reaches(number + 1) > other.manifest.own_bytes() {
                return Err(JournalError::Object {
                    key: manifest,
                    source: FormatError::Field { field: "pieces" },
                });
            }
            if let Some(manifest) = Arc::get_mut(&mut other.manifest) {
                (manifest.entries, manifest.borrowed) = (Vec::new(), None);
            }
            others.push(other);
        }
        backup.others = Arc::new(others);
        Ok(Some(backup))
    }

    /// Opens a backup, without those that it refers to; with the trailer of its manifest.
    async fn open_alone(
        reader: &Reader,
        id: BackupId,
        unlock: &Unlock,
    ) -> Result<Option<(Self, Digest)>, JournalError> {
        let name = reader.layout().backup_manifest(id)?;
        let bytes = match reader.store().get(&name).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(why) => return Err(why.into()),
        };
        let opening = opening(reader, id).await?;
        let trailer = bytes.last_chunk().map_or(Digest::of(b""), |raw| Digest::from_bytes(*raw));
        let decoded = check(reader, &name, bytes, Kind::Manifest, id, Sequence::FIRST)?;
        let key = match (decoded.header().cipher, &opening.key) {
            (Cipher::Clear, _) => None,
            (Cipher::Aes256Gcm, Some(wrapped)) => Some(unlock.unwrap(wrapped).map_err(object(&name))?),
            (Cipher::Aes256Gcm, None) => {
                let why = "its opening names no key".to_owned();
                return Err(object(&name)(FormatError::Key { why }));
            }
        };
        // Decompressing and reading millions of entries takes a core for seconds.
        let data_key = key.clone();
        let read = tokio::task::spawn_blocking(move || {
            let plain = decoded.plain_all(data_key.as_ref())?;
            let manifest: Manifest = body::from_json("backup manifest", &plain)?;
            manifest.check()?;
            let header = decoded.header();
            let same = manifest.start == Position::new(header.timeline, header.start)
                && manifest.end == Position::new(header.timeline, header.end)
                && manifest.backup == id;
            if same { Ok(manifest) } else { Err(FormatError::Field { field: "start" }) }
        });
        let read = read
            .await
            .map_err(|_| JournalError::NotHeld { what: "the manifest: reading it was cut off".to_owned() })?;
        let manifest = read.map_err(object(&name))?;
        let (manifest, others) = (Arc::new(manifest), Arc::default());
        Ok(Some((Self { reader: reader.clone(), id, opening, manifest, key, others }, trailer)))
    }

    /// Whose parts a [`Share`] is of: 0 is the backup itself.
    pub fn holder(&self, of: usize) -> Option<&Self> {
        match of.checked_sub(1) {
            None => Some(self),
            Some(other) => self.others.get(other),
        }
    }

    /// The parts that hold its files' bytes, its own and those of the backups that it refers to, in the order in which its files begin to need them.
    pub fn shares(&self) -> Vec<Share> {
        let others: Vec<&[Part]> = self.others.iter().map(|other| &*other.manifest.parts).collect();
        self.manifest.shares(&others)
    }

    /// The digests of its blocks, as its manifest states them; `None` where it has none.
    ///
    /// # Errors
    /// When they are not there, or not those that the manifest states.
    pub async fn blocks(&self) -> Result<Option<Blocks>, JournalError> {
        let Some(stated) = self.manifest.table else { return Ok(None) };
        let key = self.reader.layout().backup_table(self.id)?;
        match Blocks::open(&self.reader, self.id).await? {
            None => Err(JournalError::Store(StoreError::NotFound { key })),
            Some(found) if found.digest() != stated => {
                Err(JournalError::Misplaced { key, field: "digest in the manifest" })
            }
            found => Ok(found),
        }
    }

    /// Its id.
    pub fn id(&self) -> BackupId {
        self.id
    }

    /// Its opening.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A part's plain bytes.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`] for a number that it does not have; [`StoreError::NotFound`] when the store lost it;
    /// otherwise when its bytes are not what was written.
    pub async fn part(&self, number: Sequence) -> Result<Vec<u8>, JournalError> {
        let bytes = self.part_bytes(number).await?;
        let backup = self.clone();
        let opened = tokio::task::spawn_blocking(move || backup.open_part(number, bytes)).await;
        opened
            .map_err(|_| JournalError::NotHeld { what: format!("part {number}: reading it was cut off") })?
    }

    /// A few of a part's plain bytes; fewer where it ends before. All of its object is fetched and checked, and only the frames that
    /// hold them are opened.
    ///
    /// # Errors
    /// As [`part`](Self::part).
    pub async fn part_range(&self, number: Sequence, range: Span<u64>) -> Result<Vec<u8>, JournalError> {
        let bytes = self.part_bytes(number).await?;
        let backup = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let decoded = backup.check_part(number, bytes)?;
            let mut taken = Vec::new();
            for (frame, head) in decoded.heads().iter().enumerate() {
                let start = head.end.saturating_sub(u64::from(head.plain_bytes));
                if head.end <= range.start || start >= range.end {
                    continue;
                }
                let plain = backup.open_frame(number, &decoded, frame)?;
                let at = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
                let part = at(range.start).min(plain.len())..at(range.end).min(plain.len());
                taken.extend_from_slice(&plain[part]);
            }
            Ok(taken)
        });
        opened
            .await
            .map_err(|_| JournalError::NotHeld { what: format!("part {number}: reading it was cut off") })?
    }

    /// A part's bytes as the store gives them, unchecked.
    ///
    /// # Errors
    /// As [`part`](Self::part).
    pub async fn part_bytes(&self, number: Sequence) -> Result<Bytes, JournalError> {
        let key = self.reader.layout().backup_part(self.id, number)?;
        Ok(self.reader.store().get(&key).await?)
    }

    /// Checks a part's bytes and gives its plain ones. Takes a core for as long as hashing and decompressing take.
    ///
    /// # Errors
    /// When they are not what was written.
    pub fn open_part(&self, number: Sequence, bytes: Bytes) -> Result<Vec<u8>, JournalError> {
        let decoded = self.check_part(number, bytes)?;
        let key = self.reader.layout().backup_part(self.id, number)?;
        decoded.plain_all(self.key.as_ref()).map_err(object(&key))
    }

    /// The plain bytes of one frame of a part that [`check_part`](Self::check_part) gave: at most 1 MiB.
    ///
    /// # Errors
    /// When they are not what was written.
    pub fn open_frame(&self, number: Sequence, part: &Decoded, frame: usize) -> Result<Bytes, JournalError> {
        let key = self.reader.layout().backup_part(self.id, number)?;
        part.plain(frame, self.key.as_ref()).map_err(object(&key))
    }

    /// Checks a part's bytes. Takes a core for as long as hashing takes.
    ///
    /// # Errors
    /// When they are not what was written.
    pub fn check_part(&self, number: Sequence, bytes: Bytes) -> Result<Decoded, JournalError> {
        let key = self.reader.layout().backup_part(self.id, number)?;
        let stated = usize::try_from(number.get()).ok().and_then(|at| self.manifest.parts.get(at));
        let stated =
            stated.ok_or_else(|| JournalError::NotHeld { what: format!("part {number} of {}", self.id) })?;
        let digest = Digest::of(&bytes);
        let decoded = check(&self.reader, &key, bytes, Kind::Part, self.id, number)?;
        if digest != stated.digest || decoded.header().plain_bytes != stated.plain_bytes {
            return Err(JournalError::Misplaced { key, field: "digest in the manifest" });
        }
        Ok(decoded)
    }
}

/// Checks a part as far as that goes without the manifest, and so without a key: its checksums and its place.
///
/// # Errors
/// When it is not there, or not what was written there.
pub async fn sealed_part(reader: &Reader, id: BackupId, number: Sequence) -> Result<Header, JournalError> {
    let key = reader.layout().backup_part(id, number)?;
    let decoded = check(reader, &key, reader.store().get(&key).await?, Kind::Part, id, number)?;
    Ok(decoded.header().clone())
}

fn object(key: &Key) -> impl Fn(FormatError) -> JournalError {
    let key = key.clone();
    move |source| JournalError::Object { key: key.clone(), source }
}

pub(super) fn check(
    reader: &Reader,
    key: &Key,
    bytes: Bytes,
    kind: Kind,
    id: BackupId,
    number: Sequence,
) -> Result<Decoded, JournalError> {
    let decoded = Decoded::parse(bytes).map_err(object(key))?;
    check_place(reader, key, decoded.header(), kind, id, number)?;
    Ok(decoded)
}

fn check_place(
    reader: &Reader,
    key: &Key,
    header: &Header,
    kind: Kind,
    id: BackupId,
    number: Sequence,
) -> Result<(), JournalError> {
    let misplaced = if header.kind != kind {
        Some("kind")
    } else if header.number != number {
        Some("number")
    } else if header.writer.as_bytes() != id.as_bytes() {
        Some("backup id")
    } else if header.store != reader.store_id() {
        Some("store id")
    } else if header.incarnation != reader.incarnation() {
        Some("incarnation id")
    } else {
        None
    };
    misplaced.map_or(Ok(()), |field| Err(JournalError::Misplaced { key: key.clone(), field }))
}
