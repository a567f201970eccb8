//! Reading base backups: each part against the manifest where a key opens that, else against its own checksums; of one that refers to others, theirs too, and each block
//! against the digest that was kept of it.
//!
//! What always holds: a backup is called sound by who opened it and read all of it, and bad by who found a part of it that is not as it was stored; a key
//! that opens nothing says neither. Digests that do not read are named, and make no backup bad: no restore needs them.

use std::collections::{BTreeMap, BTreeSet};

use farshore_catalog::backup::Read;
use farshore_journal::backup::{self, Backup, Blocks};
use farshore_journal::format::{Cipher, FormatError};
use farshore_journal::identity::BackupId;
use farshore_journal::{JournalError, Sequence, expiry};
use futures::StreamExt;

use super::{DamagedBackup, Verified, cut_off};
use crate::blocks::{Against, seen};
use crate::source::Source;

/// Reads a backup, and says what came of it.
pub(super) async fn one(
    source: &Source,
    id: BackupId,
    found: &mut Verified,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), JournalError> {
    let named = |found: &Verified| found.bad.len() as u64 + found.more;
    let before = named(found);
    let (looked, harmless) = look(source, id, found, progress).await?;
    let is_bad = named(found) > before + harmless;
    found.backups.extend(looked.says(is_bad).map(|says| (id, says)));
    Ok(())
}

/// How far a look at a backup came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// Its manifest was opened, and all parts read. So many pages were damaged in the source already.
    Opened(u64),
    /// Objects were held against their own checksums: what is found bad is, and what is not may be.
    Outside,
    /// It is none, or no key at hand opens it: whatever was said of it says nothing of its bytes.
    NotAtAll,
}

impl Looked {
    /// What is known then. A key that opens nothing must not make a backup a bad one, nor a look from outside a bad one good again.
    fn says(self, is_bad: bool) -> Option<Read> {
        match (self, is_bad) {
            (Self::NotAtAll, _) | (Self::Outside, false) => None,
            (Self::Opened(_) | Self::Outside, true) => Some(Read::Bad),
            (Self::Opened(pages), false) => Some(Read::Sound(pages)),
        }
    }
}

async fn look(
    source: &Source,
    id: BackupId,
    found: &mut Verified,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(Looked, u64), JournalError> {
    let reader = source.reader();
    let standing = match backup::standing(reader, id).await {
        Ok(standing) => standing,
        Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
        // What is left of one that expires.
        Err(JournalError::Store(_)) if expiry::backup_marked(reader, id).await?.is_some() => {
            return Ok((Looked::NotAtAll, 0));
        }
        Err(why) => {
            found.bad(format!("backup {id}"), why);
            return Ok((Looked::Outside, 0));
        }
    };
    found.objects += 1;
    let Some(range) = standing.complete else {
        found.unfinished_backups.push(id);
        return Ok((Looked::NotAtAll, 0));
    };
    let backup = match Backup::open(reader, id, source.unlock()).await {
        Ok(Some(backup)) => backup,
        Ok(None) => return Err(cut_off()),
        Err(JournalError::Object { source: FormatError::KeyMissing, .. }) if range.sealed => {
            sealed_parts(source, id, found, progress).await?;
            let harmless = clear_sums(source, id, found).await?;
            for other in &standing.opening.refers {
                let name = reader.layout().backup_manifest(*other)?;
                if backup::manifest_trailer(reader, *other).await?.is_none() {
                    found.bad(name, format!("it is missing, and backup {id} may refer to it"));
                }
            }
            return Ok((Looked::Outside, harmless));
        }
        Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
        Err(why) => {
            let keyless = matches!(
                &why,
                JournalError::Object { source: FormatError::KeyMissing | FormatError::Key { .. }, .. }
            );
            found.bad(reader.layout().backup_manifest(id)?, why);
            return Ok((if keyless { Looked::NotAtAll } else { Looked::Outside }, 0));
        }
    };
    found.objects += 1;
    let manifest = backup.manifest();
    if manifest.damaged || !manifest.bad_pages.is_empty() {
        let first = manifest.bad_pages.first().map(|bad| format!("{} page {}", bad.path, bad.page));
        found.damaged_backups.push(DamagedBackup { id, pages: manifest.bad_pages.len() as u64, first });
    }
    let harmless = parts(source, &backup, found, progress).await?;
    let manifest = backup.manifest();
    let damaged = (manifest.bad_pages.len() as u64).max(u64::from(manifest.damaged));
    Ok((Looked::Opened(damaged), harmless))
}

/// Reads all parts that hold anything of a backup's files, and its own that hold nothing. Says how many findings speak against its digests alone.
async fn parts(
    source: &Source,
    backup: &Backup,
    found: &mut Verified,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<u64, JournalError> {
    let (reader, id) = (source.reader(), backup.id());
    let mut harmless = 0;
    let mut against = match backup.blocks().await {
        Ok(blocks) => blocks.map(|blocks| Against::new(blocks, backup.manifest())),
        Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
        Err(why) => {
            found.bad(reader.layout().backup_table(id)?, why);
            harmless += 1 + loose(source, id, found).await?;
            None
        }
    };
    let sizes = std::sync::Arc::new(against.as_ref().map(Against::sizes).unwrap_or_default());
    let mut wanted: Vec<(usize, Sequence, Vec<backup::Place>)> = Vec::new();
    let mut own: BTreeSet<Sequence> = backup.manifest().parts.iter().map(|part| part.number).collect();
    for share in backup.shares() {
        if share.of == 0 {
            own.remove(&share.number);
        }
        wanted.push((share.of, share.number, share.places));
    }
    wanted.extend(own.into_iter().map(|number| (0, number, Vec::new())));
    let fetched = futures::stream::iter(wanted).map(|(of, number, places)| {
        let (holder, sizes) = (backup.holder(of).cloned(), sizes.clone());
        async move {
            let Some(holder) = holder else { return (of, id, number, Err(cut_off())) };
            let read = async {
                let plain = holder.part(number).await?;
                let seen = tokio::task::spawn_blocking(move || seen(&plain, &places, &sizes)).await;
                seen.map_err(|_| cut_off())
            };
            (of, holder.id(), number, read.await)
        }
    });
    // Two at a time: a part takes a core and tens of megabytes.
    let mut fetched = std::pin::pin!(fetched.buffered(2));
    let mut differing: BTreeMap<usize, u64> = BTreeMap::new();
    while let Some((of, holder, number, part)) = fetched.next().await {
        let name = reader.layout().backup_part(holder, number)?;
        let seen = match part {
            Ok(seen) => seen,
            Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
            Err(why) if of == 0 => {
                found.bad(name, why);
                continue;
            }
            Err(why) => {
                found.bad(name, format!("backup {id} refers to it: {why}"));
                continue;
            }
        };
        if of == 0 {
            found.objects += 1;
            let at = usize::try_from(number.get()).unwrap_or(usize::MAX);
            found.bytes += backup.manifest().parts.get(at).map_or(0, |part| part.bytes);
        }
        progress(found.objects, found.bytes);
        let Some(held) = &mut against else { continue };
        match held.differs(seen).await {
            Ok(None) => {}
            Ok(Some((entry, block))) => drop(differing.entry(entry).or_insert(block)),
            Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
            Err(why) => {
                found.bad(reader.layout().backup_table(id)?, format!("digests of its blocks: {why}"));
                harmless += 1;
                against = None;
            }
        }
    }
    if against.as_ref().is_some_and(|against| !against.is_whole()) {
        found.bad(reader.layout().backup_manifest(id)?, "blocks of its files are not there in full");
    }
    for (entry, block) in differing {
        let path = backup.manifest().entries.get(entry).map_or("", |entry| &entry.path);
        let what = format!("block {block} of {path} is not what the server sent");
        found.bad(reader.layout().backup_manifest(id)?, what);
    }
    Ok(harmless)
}

/// Reads the digests of a backup's blocks, which need no key. Says how many findings speak against them.
async fn clear_sums(source: &Source, id: BackupId, found: &mut Verified) -> Result<u64, JournalError> {
    let reader = source.reader();
    let read = async {
        let Some(blocks) = Blocks::open(reader, id).await? else { return Ok(()) };
        for object in 0..blocks.table().sums.len() as u64 {
            blocks.fetch(object).await?;
        }
        Ok(())
    };
    match read.await {
        Ok(()) => Ok(0),
        Err(JournalError::Store(why)) if !why.is_not_found() => Err(why.into()),
        Err(why) => {
            found.bad(reader.layout().backup_table(id)?, format!("digests of its blocks: {why}"));
            Ok(1 + loose(source, id, found).await?)
        }
    }
}

/// Names what is wrong with the digests by themselves, where their table says nothing. Says how many findings that are.
async fn loose(source: &Source, id: BackupId, found: &mut Verified) -> Result<u64, JournalError> {
    let bad = backup::loose_sums(source.reader(), id).await?;
    let count = bad.len() as u64;
    for (key, why) in bad {
        found.bad(key, why);
    }
    Ok(count)
}

/// Without a key a part can be checked against its name and its own checksums; whether all are there, only the manifest knows.
async fn sealed_parts(
    source: &Source,
    id: BackupId,
    found: &mut Verified,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), JournalError> {
    let reader = source.reader();
    found.sealed += 1;
    let prefix = reader.layout().backups()?.join(id)?;
    let mut wanted = Sequence::FIRST;
    for listed in reader.store().list(&prefix, None, None).await? {
        let Some(number) = listed.key.name().strip_prefix("part-").and_then(|n| n.parse::<Sequence>().ok())
        else {
            continue;
        };
        while wanted < number {
            found.bad(reader.layout().backup_part(id, wanted)?, "it is missing");
            wanted = wanted.next().unwrap_or(number);
        }
        wanted = number.next().unwrap_or(number);
        match backup::sealed_part(reader, id, number).await {
            Ok(header) => {
                found.objects += 1;
                found.sealed += u64::from(header.cipher != Cipher::Clear);
                found.bytes += header.object_bytes();
                progress(found.objects, found.bytes);
            }
            Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
            Err(why) => found.bad(&listed.key, why),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_read_all_of_a_backup_calls_it_sound_and_a_key_that_opens_nothing_calls_none_bad() {
        for (looked, sound, bad) in [
            (Looked::Opened(2), Some(Read::Sound(2)), Some(Read::Bad)),
            (Looked::Outside, None, Some(Read::Bad)),
            (Looked::NotAtAll, None, None),
        ] {
            assert_eq!((looked.says(false), looked.says(true)), (sound, bad), "{looked:?}");
        }
    }
}
