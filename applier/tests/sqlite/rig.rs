//! A database whose log is put into a journal, a base of it, and a ledger of what it held behind each transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use farshore_applier::heads::KnownHeads;
use farshore_applier::plan::{Asked, Plan, PlanError, resolve};
use farshore_applier::restore::{RestoreError, RestoreOptions, Restored, run};
use farshore_applier::source::Source;
use farshore_applier::verify::{Verified, verify};
use farshore_engines::event::LogEvent;
use farshore_engines::log::{SQLITE, Shape};
use farshore_engines::sqlite::backup::BENEATH;
use farshore_engines::sqlite::check::Checked;
use farshore_journal::backup::{BackupOptions, BackupWriter, Entry, EntryKind, Manifest};
use farshore_journal::format::body::{GapBody, IncarnationRecord};
use farshore_journal::format::object::Compression;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::index::{IndexLimits, Indexer, Noted, Sheet};
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::{self, StoreOptions};
use farshore_journal::writer::{Writer, WriterOptions, encode_data, encode_gap};
use farshore_journal::{BackupId, Offset, Position, Sequence, Timeline};
use tempfile::TempDir;

use crate::application::{App, Database, dump, integrity};
use crate::follow::{Copy, Follow};

const TIMELINE: Timeline = Timeline::new(1);
const SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes of a chunk: records are cut wherever it ends.
const CHUNK_BYTES: usize = 10_000;

/// A transaction of the ledger, and what the database held behind it.
#[derive(Debug, Clone)]
pub struct Commit {
    pub number: u64,
    pub time: DateTime<Utc>,
    pub end: Offset,
    pub dump: String,
}

pub struct Rig {
    pub database: Database,
    pub app: App,
    pub follow: Follow,
    pub store: TempDir,
    pub repository: Repository,
    pub record: IncarnationRecord,
    pub writer: Writer,
    pub ledger: Vec<Commit>,
    pub name: String,
    recipients: Recipients,
}

fn quiet(_: &store::StoreError) {}

impl Rig {
    pub async fn new(recipients: Recipients) -> Self {
        Self::on(Database::new(4096, "select 1"), recipients).await
    }

    /// Of a database that is there already.
    pub async fn on(database: Database, recipients: Recipients) -> Self {
        let app = App::open(&database.path());
        let mut follow = Follow::start(&database, 0, 0);
        follow.more();
        let store = tempfile::tempdir().unwrap();
        let opened =
            store::open(&format!("file://{}", store.path().display()), &StoreOptions::for_writing()).unwrap();
        let now = Utc::now().to_rfc3339();
        let repository = Repository::open_or_found(opened, &now).await.unwrap();
        let founding = Founding {
            database: &"orders".parse().unwrap(),
            number: 0,
            engine: SQLITE,
            identity: "one",
            major: 3,
            segment_bytes: SEGMENT_BYTES,
            now: &now,
            reason: "first",
        };
        let record = repository.found_incarnation(founding).await.unwrap();
        let reader = Reader::new(&repository, &record).unwrap();
        let options = WriterOptions {
            compression: Compression::Zstd(1),
            recipients: recipients.clone(),
            segment_bytes: SEGMENT_BYTES,
            host: "test".to_owned(),
        };
        let begin = Position::new(TIMELINE, Offset::new(0));
        let writer = Writer::take_over(reader, &options, begin, &quiet).await.unwrap();
        let (ledger, name) = (Vec::new(), "app.db".to_owned());
        Self { database, app, follow, store, repository, record, writer, ledger, name, recipients }
    }

    pub fn source(&self, unlock: Unlock) -> Source {
        Source::new(&self.repository, self.record.clone(), unlock).unwrap()
    }

    /// A transaction of some pages, noted with what the database holds behind it.
    pub fn commit(&mut self) -> Commit {
        let id = self.ledger.len() + 1;
        self.app.sql(&format!(
            "begin immediate; insert into ledger values ({id}, 0, {id}, randomblob({})); update ledger set content = randomblob(50) where id = {id} / 2; commit",
            id % 7 * 900
        ));
        self.follow.more();
        let last = self.follow.records().pop().unwrap();
        let time = DateTime::from_timestamp_micros(last.seen_micros).unwrap();
        let dump = dump(&self.database.path());
        let commit = Commit { number: last.head.number, time, end: last.end, dump };
        self.ledger.push(commit.clone());
        commit
    }

    pub fn commits(&mut self, count: usize) -> Vec<Commit> {
        (0..count).map(|_| self.commit()).collect()
    }

    /// Puts the log that is not stored yet into the journal.
    pub async fn ship(&mut self) {
        let stored = self.writer.stored().offset.get();
        let from = usize::try_from(stored - self.follow.begin).unwrap();
        for piece in self.follow.log[from..].chunks(CHUNK_BYTES) {
            let (chunk, _) = encode_data(self.writer.place(), piece).unwrap();
            self.writer.append(&chunk, &quiet).await.unwrap();
        }
    }

    /// As [`ship`](Self::ship), with indexes of a few chunks each; how many.
    pub async fn ship_with_indexes(&mut self) -> usize {
        let limits = IndexLimits { bytes: 3 * CHUNK_BYTES as u64, fan: 3, ..IndexLimits::default() };
        let mut indexer = Indexer::new(limits);
        let shape = Shape::of(&self.record).unwrap();
        let mut decoder = shape.decoder(self.writer.stored()).unwrap();
        let from = usize::try_from(self.writer.stored().offset.get() - self.follow.begin).unwrap();
        let mut ready = Vec::new();
        for piece in self.follow.log[from..].chunks(CHUNK_BYTES) {
            let place = self.writer.place().clone();
            let (chunk, _) = encode_data(&place, piece).unwrap();
            self.writer.append(&chunk, &quiet).await.unwrap();
            let mut entries = Vec::new();
            let mut note = |event: LogEvent| entries.extend(farshore_engines::indexed::entry(&event));
            decoder.push(piece, &mut note).unwrap();
            ready.extend(indexer.add(Noted::new(
                &place,
                &chunk.header,
                Sheet { entries, whole: decoder.whole() },
            )));
        }
        ready.extend(indexer.close());
        let count = ready.len();
        for one in ready {
            let (store, layout) = (self.writer.reader().store(), self.writer.reader().layout());
            one.encode().unwrap().put(&**store, layout, &quiet).await.unwrap();
        }
        count
    }

    /// Loses what was not stored, says so in the journal, and follows anew behind it.
    pub async fn gap(&mut self) {
        let at = self.follow.at;
        let end = at.offset + 4096;
        let body = GapBody { reason: "lost".to_owned() };
        let (chunk, _) = encode_gap(self.writer.place(), Offset::new(end), &body).unwrap();
        self.writer.append(&chunk, &quiet).await.unwrap();
        let lost = Follow::start(&self.database, at.number, end);
        drop(std::mem::replace(&mut self.follow, lost));
        self.follow.more();
    }

    /// Takes a base and stores it, and the log up to its end before.
    pub async fn base(&mut self) -> BackupId {
        let copy = self.follow.copy();
        self.ship().await;
        self.keep(&copy, |_| {}).await
    }

    /// Stores a base.
    pub async fn keep(&mut self, copy: &Copy, change: impl FnOnce(&mut Manifest)) -> BackupId {
        let next = self.writer.place().number();
        let options = BackupOptions {
            compression: Compression::Zstd(1),
            recipients: self.recipients.clone(),
            label: "test".to_owned(),
            host: "test".to_owned(),
        };
        let reader = self.writer.reader().clone();
        let mut writer = BackupWriter::begin(&reader, &options, next, Arc::new(quiet)).await.unwrap();
        let mut entries = Vec::new();
        for (path, bytes) in [(self.name.as_str(), &copy.file), (BENEATH, &copy.beneath)] {
            if bytes.is_empty() {
                continue;
            }
            let (at, size) = (writer.at(), bytes.len() as u64);
            let path = path.to_owned();
            entries.push(Entry {
                path,
                kind: EntryKind::File,
                mode: 0o600,
                modified: 0,
                size,
                at,
                sha256: None,
            });
            writer.write(bytes).await.unwrap();
        }
        let position = |offset| Position::new(TIMELINE, Offset::new(offset));
        let mut manifest = Manifest {
            format: 1,
            backup: writer.id(),
            label: "test".to_owned(),
            engine: SQLITE.to_owned(),
            major: 3,
            identity: self.record.identity.clone(),
            segment_bytes: SEGMENT_BYTES,
            start: position(copy.start),
            end: position(copy.end),
            started: Utc::now().to_rfc3339(),
            finished: Utc::now().to_rfc3339(),
            checksums: false,
            bad_pages: Vec::new(),
            damaged: false,
            next_transaction: Some(copy.number + 1),
            journal_begin: Sequence::FIRST,
            journal_end: next,
            plain_bytes: 0,
            parts: Vec::new(),
            entries,
            tablespaces: Vec::new(),
            settings: Vec::new(),
            config_files: Vec::new(),
            borrowed: None,
            table: None,
        };
        change(&mut manifest);
        writer.finish(manifest).await.unwrap().0.backup
    }

    pub async fn plan(&self, asked: Asked) -> Result<Plan, PlanError> {
        resolve(&self.source(Unlock::none()), asked).await
    }

    pub async fn verified(&self, unlock: Unlock) -> Verified {
        verify(&self.source(unlock), &KnownHeads::default(), &|_, _| {}).await.unwrap()
    }

    /// The path of one of the store's objects.
    pub fn object(&self, name: &str) -> PathBuf {
        self.store.path().join(format!("db/orders/{}/{name}", self.record.incarnation))
    }

    pub fn chunk(&self, number: u64) -> PathBuf {
        self.object(&format!("journal/{}", Sequence::new(number)))
    }

    /// The number of the last chunk.
    pub fn last(&self) -> u64 {
        self.writer.place().number().get() - 1
    }
}

pub fn options(directory: &Path) -> RestoreOptions {
    RestoreOptions {
        directory: directory.to_owned(),
        tablespaces: std::collections::BTreeMap::new(),
        resume: false,
        port: 5432,
        shared_buffers_limit: 0,
        preload: Vec::new(),
        follow: None,
        start: None,
    }
}

pub async fn restore(source: &Source, plan: &Plan, directory: &Path) -> Result<Restored, RestoreError> {
    run(source, plan, &options(directory), Arc::new(|_| {})).await
}

/// Restores a plan; where the file is, in a directory that holds nothing else but the marker.
pub async fn restored(source: &Source, plan: &Plan, place: &Path) -> PathBuf {
    let directory = place.join(format!("r{}-{}", plan.resolved.position.get(), plan.base.id));
    let restored = restore(source, plan, &directory).await.unwrap();
    let file = restored.file.unwrap();
    assert_eq!(file.checked, Checked::Whole);
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["app.db", "farshore-restore.json"]);
    assert_eq!(integrity(&file.path).trim(), "[('ok',)]");
    file.path
}

/// What a restore of a plan holds.
pub async fn restored_dump(source: &Source, plan: &Plan, place: &Path) -> String {
    dump(&restored(source, plan, place).await)
}

/// Rewrites an object's file: the store itself never does that.
pub fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let before = std::fs::read(path).unwrap();
    let mut bytes = before.clone();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    before
}
