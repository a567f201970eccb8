//! Reading base backups: each part against the manifest where a key opens that, else against its own checksums.
//!
//! What always holds: a backup is called sound by who opened it and read all of it, and bad by who found a part of it that is not as it was stored; a key
//! that opens nothing says neither.

use std::collections::BTreeSet;

use farshore_catalog::backup::Read;
use farshore_journal::backup::{self, Backup};
use farshore_journal::format::{Cipher, FormatError};
use farshore_journal::identity::BackupId;
use farshore_journal::{JournalError, Sequence, expiry};
use futures::StreamExt;

use super::{DamagedBackup, Verified, cut_off};
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
    let looked = look(source, id, found, progress).await?;
    let is_bad = named(found) > before;
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
) -> Result<Looked, JournalError> {
    let reader = source.reader();
    let standing = match backup::standing(reader, id).await {
        Ok(standing) => standing,
        Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
        // What is left of one that expires.
        Err(JournalError::Store(_)) if expiry::backup_marked(reader, id).await?.is_some() => {
            return Ok(Looked::NotAtAll);
        }
        Err(why) => {
            found.bad(format!("backup {id}"), why);
            return Ok(Looked::Outside);
        }
    };
    found.objects += 1;
    let Some(range) = standing.complete else {
        found.unfinished_backups.push(id);
        return Ok(Looked::NotAtAll);
    };
    let backup = match Backup::open(reader, id, source.unlock()).await {
        Ok(Some(backup)) => backup,
        Ok(None) => return Err(cut_off()),
        Err(JournalError::Object { source: FormatError::KeyMissing, .. }) if range.sealed => {
            sealed_parts(source, id, found, progress).await?;
            return Ok(Looked::Outside);
        }
        Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
        Err(why) => {
            let keyless = matches!(
                &why,
                JournalError::Object { source: FormatError::KeyMissing | FormatError::Key { .. }, .. }
            );
            found.bad(reader.layout().backup_manifest(id)?, why);
            return Ok(if keyless { Looked::NotAtAll } else { Looked::Outside });
        }
    };
    found.objects += 1;
    let manifest = backup.manifest();
    if manifest.damaged || !manifest.bad_pages.is_empty() {
        let first = manifest.bad_pages.first().map(|bad| format!("{} page {}", bad.path, bad.page));
        found.damaged_backups.push(DamagedBackup { id, pages: manifest.bad_pages.len() as u64, first });
    }
    let numbers: BTreeSet<Sequence> = backup.manifest().parts.iter().map(|part| part.number).collect();
    let fetched = futures::stream::iter(numbers).map(|number| {
        let backup = backup.clone();
        async move { (number, backup.part(number).await) }
    });
    // Two at a time: a part takes a core and tens of megabytes.
    let mut fetched = std::pin::pin!(fetched.buffered(2));
    while let Some((number, part)) = fetched.next().await {
        match part {
            Ok(_) => {
                found.objects += 1;
                let at = usize::try_from(number.get()).unwrap_or(usize::MAX);
                found.bytes += backup.manifest().parts.get(at).map_or(0, |part| part.bytes);
                progress(found.objects, found.bytes);
            }
            Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
            Err(why) => found.bad(reader.layout().backup_part(id, number)?, why),
        }
    }
    let manifest = backup.manifest();
    Ok(Looked::Opened((manifest.bad_pages.len() as u64).max(u64::from(manifest.damaged))))
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
