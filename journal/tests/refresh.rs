//! The promise: a backup that refers to others gives, byte for byte, the files that were written to it, moves only what changed, and is refused where one of its references
//! does not hold.
//!
//! Method: files that change at random from backup to backup, each read back from the store in full, sealed and in the clear.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure message

mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use farshore_journal::backup::{
    self, BLOCK_BYTES, Backup, BackupOptions, Borrowed, Entry, EntryKind, FilesWriter, Held, MAX_HOLDERS,
    Manifest, Piece, Sharing,
};
use farshore_journal::expiry::{self, Marking};
use farshore_journal::format::object::Compression;
use farshore_journal::format::{Digest, FormatError, Recipients, Unlock};
use farshore_journal::reader::Reader;
use farshore_journal::store::{Key, ObjectStore, StoreError};
use farshore_journal::{BackupId, JournalError, Offset, Position, Sequence, Timeline};
use farshore_testkit::random::Random;
use proptest::prelude::*;
use rig::Rig;

const BLOCK: usize = BLOCK_BYTES;

type Files = BTreeMap<String, Vec<u8>>;

fn options(recipients: &Recipients) -> BackupOptions {
    BackupOptions {
        compression: Compression::Zstd(1),
        recipients: recipients.clone(),
        label: "test".to_owned(),
        host: "test".to_owned(),
    }
}

/// All that are there are well.
async fn refresh(reader: &Reader) -> Sharing {
    Sharing::Refresh { well: backup::list(reader).await.unwrap() }
}

fn quiet() -> backup::Trouble {
    Arc::new(|_| {})
}

fn manifest(entries: Vec<Entry>, end: u64) -> Manifest {
    let position = |offset| Position::new(Timeline::new(1), Offset::new(offset));
    Manifest {
        format: 0,
        backup: BackupId::from_bytes([0; 16]),
        label: String::new(),
        engine: "postgres".to_owned(),
        major: 15,
        identity: "7".to_owned(),
        segment_bytes: rig::SEGMENT,
        start: position(end),
        end: position(end + 1),
        started: String::new(),
        finished: String::new(),
        checksums: true,
        bad_pages: Vec::new(),
        damaged: false,
        next_transaction: None,
        journal_begin: Sequence::FIRST,
        journal_end: Sequence::FIRST,
        plain_bytes: 0,
        parts: Vec::new(),
        entries,
        tablespaces: Vec::new(),
        settings: Vec::new(),
        config_files: Vec::new(),
        borrowed: None,
        table: None,
    }
}

/// Takes a backup of these files, given in pieces of odd lengths; `end` orders it among the others.
async fn take(
    reader: &Reader,
    recipients: &Recipients,
    files: &Files,
    sharing: &Sharing,
    end: u64,
) -> Result<Manifest, JournalError> {
    let begun = FilesWriter::begin(reader, &options(recipients), Sequence::FIRST, sharing, quiet()).await?;
    let mut writer = begun.0;
    let mut entries = Vec::new();
    for (path, content) in files {
        let (size, at) = (content.len() as u64, if content.is_empty() { 0 } else { writer.at() });
        writer.begin_file(path, size).await?;
        for piece in content.chunks(3 * BLOCK + 7) {
            writer.write(piece).await?;
        }
        let kind = EntryKind::File;
        entries.push(Entry { path: path.clone(), kind, mode: 0o600, modified: 0, size, at, sha256: None });
    }
    Ok(writer.finish(manifest(entries, end)).await?.0)
}

/// All files, as the store gives them.
async fn read(reader: &Reader, unlock: &Unlock, id: BackupId) -> Result<Files, JournalError> {
    let backup = Backup::open(reader, id, unlock).await?.unwrap();
    let entries = &backup.manifest().entries;
    let mut files: Vec<Vec<u8>> = entries.iter().map(|entry| vec![0; entry.size as usize]).collect();
    let mut given: Vec<u64> = vec![0; entries.len()];
    for share in backup.shares() {
        let plain = backup.holder(share.of).unwrap().part(share.number).await?;
        for place in share.places {
            let content = &plain[place.in_part as usize..(place.in_part + place.bytes) as usize];
            files[place.entry][place.offset as usize..][..content.len()].copy_from_slice(content);
            given[place.entry] += place.bytes;
        }
    }
    let sizes: Vec<u64> = entries.iter().map(|entry| entry.size).collect();
    assert_eq!(given, sizes, "each byte once");
    Ok(entries.iter().map(|entry| entry.path.clone()).zip(files).collect())
}

fn bytes(random: &mut Random, length: usize) -> Vec<u8> {
    let mut content: Vec<u8> = Vec::with_capacity(length + 8);
    while content.len() < length {
        content.extend_from_slice(&random.number().to_le_bytes());
    }
    content.truncate(length);
    content
}

/// Changes some blocks; truncates, extends, adds, removes and swaps files.
fn change(random: &mut Random, files: &mut Files) {
    for content in files.values_mut() {
        match random.below(6) {
            0 => content.truncate(content.len() / 2 + 3),
            1 => content.extend(vec![7; random.below(3 * BLOCK as u64) as usize]),
            2 | 3 if !content.is_empty() => {
                for _ in 0..=random.below(4) {
                    let at = random.below(content.len() as u64) as usize;
                    content[at] ^= 1;
                }
            }
            _ => {}
        }
    }
    let names: Vec<String> = files.keys().cloned().collect();
    match random.below(4) {
        0 if names.len() > 1 => drop(files.remove(&names[0])),
        1 => {
            let length = random.below(9 * BLOCK as u64) as usize;
            let name = format!("base/new{}", random.below(1000));
            files.insert(name, bytes(random, length));
        }
        2 if names.len() > 1 => {
            let (first, second) = (files[&names[0]].clone(), files[&names[1]].clone());
            files.insert(names[0].clone(), second);
            files.insert(names[1].clone(), first);
        }
        _ => {}
    }
}

fn first_files(random: &mut Random) -> Files {
    let mut files = Files::new();
    for number in 0..2 + random.below(5) {
        let length = random.below(40 * BLOCK as u64) as usize;
        files.insert(format!("base/{number}"), bytes(random, length));
    }
    // Zeros, an empty one, and blocks that are all the same.
    files.insert("empty".to_owned(), Vec::new());
    files.insert("zeros".to_owned(), vec![0; 3 * BLOCK + 11]);
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_backup_that_refers_to_others_gives_exactly_the_files_that_were_written_and_refers_flatly(seed in any::<u64>(), sealed in any::<bool>()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let rig = Rig::new(seed, sealed).await;
            let reader = rig.reader();
            let mut random = Random::new(seed);
            let mut files = first_files(&mut random);
            let mut taken = vec![(take(&reader, &rig.recipients, &files, &Sharing::Full, 0).await.unwrap(), files.clone())];
            for end in 1..MAX_HOLDERS as u64 + 4 {
                change(&mut random, &mut files);
                let manifest = take(&reader, &rig.recipients, &files, &refresh(&reader).await, end).await.unwrap();
                if let Some(borrowed) = &manifest.borrowed {
                    assert!(borrowed.from.len() <= MAX_HOLDERS);
                    assert_eq!(borrowed.bytes() + manifest.own_bytes(), manifest.plain_bytes);
                    assert_eq!(manifest.format, 2);
                    let opening = backup::opening(&reader, manifest.backup).await.unwrap();
                    assert!(borrowed.from.iter().all(|held| opening.refers.contains(&held.backup)));
                }
                taken.push((manifest, files.clone()));
            }
            for (manifest, files) in &taken {
                assert_eq!(&read(&reader, &rig.unlock, manifest.backup).await.unwrap(), files);
            }
            if sealed {
                let last = taken.last().unwrap().0.backup;
                assert!(Backup::open(&reader, last, &Unlock::none()).await.unwrap_err().lacks_key());
            }
        });
    }
}

#[tokio::test]
async fn a_refresh_moves_what_changed_and_nothing_else() {
    let rig = Rig::new(1, false).await;
    let reader = rig.reader();
    let mut random = Random::new(1);
    let mut files = Files::new();
    for number in 0..16 {
        files.insert(format!("base/{number}"), bytes(&mut random, 64 * BLOCK));
    }
    let full = take(&reader, &rig.recipients, &files, &Sharing::Full, 0).await.unwrap();
    assert_eq!((full.format, full.own_bytes()), (1, 16 * 64 * BLOCK as u64));
    let again = take(&reader, &rig.recipients, &files, &refresh(&reader).await, 1).await.unwrap();
    assert_eq!((again.own_bytes(), again.parts.len()), (0, 0), "nothing changed");
    for number in 0..16 {
        files.get_mut(&format!("base/{number}")).unwrap()[5 * BLOCK] ^= 1;
    }
    let third = take(&reader, &rig.recipients, &files, &refresh(&reader).await, 2).await.unwrap();
    assert_eq!(third.own_bytes(), 16 * BLOCK as u64);
    // What the second one only refers to is referred to where it is.
    let from: Vec<BackupId> = third.borrowed.unwrap().from.into_iter().map(|held| held.backup).collect();
    assert_eq!(from, [full.backup]);
    let stored = backup::stored_bytes(&reader, third.backup).await.unwrap();
    assert!(stored < 2 * 16 * BLOCK as u64, "{stored}");
    assert_eq!(backup::database_bytes(&reader, third.backup).await.unwrap(), Some(third.plain_bytes));
    assert_eq!(read(&reader, &rig.unlock, third.backup).await.unwrap(), files);
}

#[tokio::test]
async fn what_several_hold_is_referred_to_in_each_of_them_until_there_are_too_many() {
    let rig = Rig::new(8, false).await;
    let reader = rig.reader();
    let mut files = Files::from([("base/1".to_owned(), bytes(&mut Random::new(8), 40 * BLOCK))]);
    let mut holders = Vec::new();
    for end in 0..=MAX_HOLDERS {
        let manifest =
            take(&reader, &rig.recipients, &files, &refresh(&reader).await, end as u64).await.unwrap();
        holders.push(manifest.borrowed.map_or(0, |borrowed| borrowed.from.len()));
        assert_eq!(read(&reader, &rig.unlock, manifest.backup).await.unwrap(), files);
        files.get_mut("base/1").unwrap()[end * BLOCK] ^= 1;
    }
    let full_again = take(&reader, &rig.recipients, &files, &refresh(&reader).await, 99).await.unwrap();
    assert_eq!((holders, full_again.borrowed), ((0..=MAX_HOLDERS).collect(), None));
}

#[tokio::test]
async fn blocks_that_parts_cut_are_given_whole() {
    let rig = Rig::new(9, true).await;
    let reader = rig.reader();
    let mut random = Random::new(9);
    // The parts' ends lie in the midst of its blocks.
    let mut files = Files::from([("a".to_owned(), bytes(&mut random, 100))]);
    files.insert("b".to_owned(), bytes(&mut random, backup::PART_BYTES + 5 * BLOCK));
    let full = take(&reader, &rig.recipients, &files, &Sharing::Full, 0).await.unwrap();
    assert_eq!(full.parts.len(), 2);
    files.get_mut("b").unwrap()[BLOCK] ^= 1;
    let refreshed = take(&reader, &rig.recipients, &files, &refresh(&reader).await, 1).await.unwrap();
    assert_eq!(refreshed.own_bytes(), BLOCK as u64);
    assert_eq!(read(&reader, &rig.unlock, refreshed.backup).await.unwrap(), files);
}

#[tokio::test]
async fn a_full_one_is_taken_where_references_would_not_be_safe() {
    let rig = Rig::new(2, true).await;
    let reader = rig.reader();
    let mut random = Random::new(2);
    let mut files = Files::new();
    files.insert("base/1".to_owned(), bytes(&mut random, 9 * BLOCK));
    let is_full = |manifest: &Manifest| manifest.borrowed.is_none() && manifest.format == 1;
    let first = take(&reader, &rig.recipients, &files, &Sharing::Full, 0).await.unwrap();
    // Nobody knows that it is well.
    let unknown = Sharing::Refresh { well: vec![BackupId::from_bytes([1; 16])] };
    assert!(is_full(&take(&reader, &rig.recipients, &files, &unknown, 0).await.unwrap()));
    // One of its parts is gone.
    let part = reader.layout().backup_part(first.backup, Sequence::FIRST).unwrap();
    let kept = rig.store.get(&part).await.unwrap();
    let only = Sharing::Refresh { well: vec![first.backup] };
    rig.store.delete(&part).await.unwrap();
    assert!(is_full(&take(&reader, &rig.recipients, &files, &only, 0).await.unwrap()));
    replace(&rig, &part, kept).await;
    // Others may open it today.
    let other = age::x25519::Identity::generate().to_public().to_string();
    let others = Recipients::parse([other.as_str()]).unwrap();
    assert!(is_full(&take(&reader, &others, &files, &refresh(&reader).await, 0).await.unwrap()));
    assert!(is_full(
        &take(&reader, &Recipients::default(), &files, &refresh(&reader).await, 0).await.unwrap()
    ));
    // One without digests is none to compare with.
    let plain = take(&reader, &rig.recipients, &files, &Sharing::None, 9).await.unwrap();
    assert!(plain.table.is_none());
    let rig = Rig::new(3, false).await;
    let reader = rig.reader();
    take(&reader, &rig.recipients, &files, &Sharing::None, 0).await.unwrap();
    assert!(is_full(&take(&reader, &rig.recipients, &files, &refresh(&reader).await, 1).await.unwrap()));
    // It expires.
    let second = take(&reader, &rig.recipients, &files, &refresh(&reader).await, 2).await.unwrap();
    assert!(second.borrowed.is_some());
    let marking = Marking { host: "test".to_owned(), at: chrono::Utc::now(), reason: "not kept".to_owned() };
    for id in backup::list(&reader).await.unwrap() {
        expiry::mark_backup(&reader, id, &marking).await.unwrap();
    }
    assert!(is_full(&take(&reader, &rig.recipients, &files, &refresh(&reader).await, 3).await.unwrap()));
}

/// Marked behind the look that follows the opening, when nothing was looked at since.
#[tokio::test]
async fn a_refresh_is_given_up_where_what_it_refers_to_was_marked_while_it_ran() {
    let rig = Rig::new(4, false).await;
    let reader = rig.reader();
    let content = bytes(&mut Random::new(4), 9 * BLOCK);
    let files = Files::from([("base/1".to_owned(), content.clone())]);
    let base = take(&reader, &rig.recipients, &files, &Sharing::Full, 0).await.unwrap();
    let begun = FilesWriter::begin(
        &reader,
        &options(&rig.recipients),
        Sequence::FIRST,
        &refresh(&reader).await,
        quiet(),
    )
    .await;
    let mut writer = begun.unwrap().0;
    let id = writer.id();
    assert_eq!(writer.base(), Some(base.backup));
    // Its opening names it from the first moment on: whoever looks for what may go finds it.
    assert_eq!(backup::opening(&reader, id).await.unwrap().refers, [base.backup]);
    writer.begin_file("base/1", content.len() as u64).await.unwrap();
    writer.write(&content).await.unwrap();
    let marking = Marking { host: "test".to_owned(), at: chrono::Utc::now(), reason: "not kept".to_owned() };
    expiry::mark_backup(&reader, base.backup, &marking).await.unwrap();
    let kind = EntryKind::File;
    let size = content.len() as u64;
    let entry =
        Entry { path: "base/1".to_owned(), kind, mode: 0o600, modified: 0, size, at: 0, sha256: None };
    let gave_up = writer.finish(manifest(vec![entry], 1)).await;
    assert!(matches!(gave_up, Err(JournalError::NotHeld { .. })), "{gave_up:?}");
    assert!(backup::standing(&reader, id).await.unwrap().complete.is_none());
}

#[tokio::test]
async fn a_backup_whose_reference_is_gone_or_another_is_refused_and_one_whose_digests_are_lost_is_not() {
    let rig = Rig::new(5, false).await;
    let reader = rig.reader();
    let mut random = Random::new(5);
    let mut files = Files::from([("base/1".to_owned(), bytes(&mut random, 40 * BLOCK))]);
    let base = take(&reader, &rig.recipients, &files, &Sharing::Full, 0).await.unwrap();
    files.get_mut("base/1").unwrap()[0] ^= 1;
    let second = take(&reader, &rig.recipients, &files, &refresh(&reader).await, 1).await.unwrap();
    let layout = reader.layout();
    let name = layout.backup_manifest(base.backup).unwrap();
    let held = rig.store.get(&name).await.unwrap();

    // Digests are needed by nobody who reads.
    for id in [base.backup, second.backup] {
        let table = layout.backup_table(id).unwrap();
        let sums = layout.backup_sums(id, Sequence::FIRST).unwrap();
        let kept = (rig.store.get(&table).await.unwrap(), rig.store.get(&sums).await.unwrap());
        rig.store.delete(&table).await.unwrap();
        rig.store.delete(&sums).await.unwrap();
        assert_eq!(read(&reader, &rig.unlock, id).await.unwrap(), files_of(&files, id == base.backup));
        replace(&rig, &table, kept.0).await;
        replace(&rig, &sums, kept.1).await;
    }

    // Its manifest, and a part, lost.
    rig.store.delete(&name).await.unwrap();
    let gone = read(&reader, &rig.unlock, second.backup).await;
    assert!(
        matches!(&gone, Err(JournalError::Store(StoreError::NotFound { key })) if *key == name),
        "{gone:?}"
    );
    replace(&rig, &name, held.clone()).await;
    let part = layout.backup_part(base.backup, Sequence::FIRST).unwrap();
    let kept = rig.store.get(&part).await.unwrap();
    rig.store.delete(&part).await.unwrap();
    assert!(read(&reader, &rig.unlock, second.backup).await.is_err());
    let mut flipped = kept.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    replace(&rig, &part, Bytes::from(flipped)).await;
    assert!(read(&reader, &rig.unlock, second.backup).await.is_err());
    rig.store.delete(&part).await.unwrap();
    replace(&rig, &part, kept).await;
    assert_eq!(read(&reader, &rig.unlock, second.backup).await.unwrap(), files);

    // Another manifest under the same id: only when it was written differs.
    let mut other = rig.store.get(&name).await.unwrap().to_vec();
    other[120] ^= 1;
    let sum = blake3::hash(&other[..240]);
    other[240..256].copy_from_slice(&sum.as_bytes()[..16]);
    let end = other.len() - 32;
    let trailer = blake3::hash(&other[..end]);
    other[end..].copy_from_slice(trailer.as_bytes());
    rig.store.delete(&name).await.unwrap();
    replace(&rig, &name, Bytes::from(other)).await;
    assert!(Backup::open(&reader, base.backup, &rig.unlock).await.is_ok(), "it is well by itself");
    let refused = Backup::open(&reader, second.backup, &rig.unlock).await;
    assert!(matches!(refused, Err(JournalError::Misplaced { .. })), "{refused:?}");
}

/// The files of the first backup, or of the second.
fn files_of(files: &Files, first: bool) -> Files {
    let mut files = files.clone();
    if first {
        files.get_mut("base/1").unwrap()[0] ^= 1;
    }
    files
}

async fn replace(rig: &Rig, key: &Key, bytes: Bytes) {
    rig.store.replace(key, bytes);
    assert!(rig.store.size(key).await.is_ok());
}

/// What is wrong, and how it comes about.
type Wrong = (&'static str, fn(&mut Borrowed));

#[test]
fn references_that_overlap_leave_holes_or_lead_astray_are_refused() {
    let id = |number| BackupId::from_bytes([number; 16]);
    let held = |number| Held { backup: id(number), manifest: Digest::of(b"m") };
    let piece = |bytes, from, at| Piece { bytes, from, at };
    let sound =
        Borrowed { from: vec![held(2)], pieces: vec![piece(10, 0, 0), piece(20, 1, 100), piece(5, 0, 10)] };
    let check = |borrowed: &Borrowed| borrowed.check(id(1), 15, 35);
    assert_eq!(check(&sound), Ok(()));
    assert_eq!((sound.bytes(), sound.reaches(1), sound.reaches(0)), (20, 120, 15));
    let wrong: [Wrong; 9] = [
        ("of nobody", |it| it.from.clear()),
        ("of itself", |it| it.from[0].backup = BackupId::from_bytes([1; 16])),
        ("one twice", |it| it.from.push(it.from[0].clone())),
        ("of too many", |it| {
            it.from = (2..=MAX_HOLDERS as u8 + 2)
                .map(|n| Held { backup: BackupId::from_bytes([n; 16]), manifest: Digest::of(b"m") })
                .collect()
        }),
        ("an empty piece", |it| it.pieces[0].bytes = 0),
        ("of one that is not named", |it| it.pieces[1].from = 2),
        ("behind its own bytes", |it| it.pieces[2].at = 11),
        ("a byte twice", |it| it.pieces[2].at = 9),
        ("further than numbers go", |it| it.pieces[1].at = u64::MAX - 3),
    ];
    for (what, spoil) in wrong {
        let mut borrowed = sound.clone();
        spoil(&mut borrowed);
        assert!(check(&borrowed).is_err(), "{what}");
    }
    assert!(sound.check(id(1), 15, 34).is_err(), "more than the whole");
    // A reader of the format's first version must not take the parts for the whole: it refuses by number.
    let mut of_first = manifest(Vec::new(), 0);
    of_first.borrowed = Some(sound);
    of_first.format = 1;
    assert_eq!(of_first.check(), Err(FormatError::Version { version: 1 }));
    of_first.borrowed = None;
    of_first.format = 2;
    assert_eq!(of_first.check(), Err(FormatError::Version { version: 2 }));
}
