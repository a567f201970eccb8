//! A base backup of a real server is whole, is claimed only when its log is stored, and is nothing when it fails.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic there is the failure message")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farshore_engines::postgres::backup::BackupOptions as CopyOptions;
use farshore_engines::postgres::wire::{ConnectParams, Connection};
use farshore_journal::backup::{self, Backup, BackupOptions, EntryKind, Sharing};
use farshore_journal::format::object::Compression;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::{self, StoreOptions};
use farshore_journal::{DatabaseName, Position, Sequence, Timeline};
use farshore_shipper::base_backup::{Phase, Request, TakeError, Taken, take};
use farshore_testkit::pg::{Length, Major, Server};

struct Rig {
    server: Server,
    _store: tempfile::TempDir,
    reader: Reader,
    params: ConnectParams,
    system_identifier: u64,
    journal_end: Position,
}

async fn rig(major: Major) -> Rig {
    let server = Server::builder(major).tablespace("fast").start();
    server.pgbench_init(3);
    server.sql(
        "create table a tablespace fast as select g, repeat('x', 200) t from generate_series(1, 20000) g",
    );
    let place = tempfile::tempdir().unwrap();
    let address = format!("file://{}", place.path().display());
    let opened = store::open(&address, &StoreOptions::for_writing()).unwrap();
    let repository = Repository::open_or_found(opened, "2026-11-21T00:00:00Z").await.unwrap();
    let params: ConnectParams = server.url().parse().unwrap();
    let mut connection = Connection::connect(&params, &params.hosts()[0]).await.unwrap();
    let identity = connection.identify_system().await.unwrap();
    let system_identifier = identity.system_identifier;
    let journal_end = Position::new(identity.timeline, identity.flushed);
    let database: DatabaseName = "orders".parse().unwrap();
    let founding = Founding {
        database: &database,
        number: 0,
        engine: "postgres",
        identity: &system_identifier.to_string(),
        major: major.number(),
        segment_bytes: 16 << 20,
        now: "2026-11-21T00:00:00Z",
        reason: "first",
    };
    let record = repository.found_incarnation(founding).await.unwrap();
    let reader = Reader::new(&repository, &record).unwrap();
    Rig { server, _store: place, reader, params, system_identifier, journal_end }
}

impl Rig {
    fn request(&self, system_identifier: u64) -> Request<'_> {
        Request {
            params: &self.params,
            host: &self.params.hosts()[0],
            reader: &self.reader,
            system_identifier,
            segment_bytes: 16 << 20,
            journal_end: self.journal_end,
            copy: CopyOptions::default(),
            store: BackupOptions {
                compression: Compression::Zstd(1),
                recipients: Recipients::default(),
                label: "nightly".to_owned(),
                host: "test".to_owned(),
            },
            sharing: Sharing::Full,
            settings: Vec::new(),
            config_files: Vec::new(),
            trouble: Arc::new(|_| {}),
        }
    }

    async fn take(&self) -> Result<Taken, TakeError> {
        let stored = |_| async { Ok(Sequence::new(7)) };
        take(self.request(self.system_identifier), Sequence::FIRST, stored, &|_| {}).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_holds_every_file_that_the_server_lists() {
    for major in [Major::V14, Major::V15, Major::V18] {
        let rig = rig(major).await;
        let load = rig.server.pgbench(2, Length::Transactions(500));
        let taken_bytes = AtomicU64::new(0);
        let progress = |progress: farshore_shipper::base_backup::Progress| {
            taken_bytes.fetch_max(progress.taken_bytes, Ordering::Relaxed);
        };
        let stored = |_| async { Ok(Sequence::new(7)) };
        let taken =
            take(rig.request(rig.system_identifier), Sequence::FIRST, stored, &progress).await.unwrap();
        assert!(load.wait().transactions > 0);
        assert!(taken_bytes.load(Ordering::Relaxed) >= taken.manifest.plain_bytes / 2);
        assert_eq!(taken.bad_page_count, 0);
        assert_eq!(backup::list(&rig.reader).await.unwrap(), [taken.id]);
        let backup = Backup::open(&rig.reader, taken.id, &Unlock::none()).await.unwrap().unwrap();
        let manifest = backup.manifest();
        assert_eq!(manifest, &taken.manifest);
        assert!(manifest.parts.len() > 1, "more than one part: {}", manifest.plain_bytes);
        assert_eq!(manifest.tablespaces.len(), 1);
        assert!(manifest.next_transaction.is_some_and(|next| next > 700));
        // Put together again, each file has the server's own digest.
        let mut files: Vec<Vec<u8>> = manifest.entries.iter().map(|_| Vec::new()).collect();
        for share in backup.shares() {
            let plain = backup.holder(share.of).unwrap().part(share.number).await.unwrap();
            for place in share.places {
                let from = usize::try_from(place.in_part).unwrap();
                let bytes = &plain[from..from + usize::try_from(place.bytes).unwrap()];
                files[place.entry].extend_from_slice(bytes);
            }
        }
        let listed = manifest.entries.iter().position(|entry| entry.path == "backup_manifest").unwrap();
        let listed = farshore_engines::postgres::backup::Manifest::parse(&files[listed]).unwrap();
        let seen: Vec<_> = manifest
            .entries
            .iter()
            .zip(&files)
            .filter(|(entry, _)| entry.kind == EntryKind::File && entry.path != "backup_manifest")
            .map(|(entry, bytes)| farshore_engines::postgres::backup::SeenFile {
                path: entry.path.clone().into_bytes(),
                size: bytes.len() as u64,
                sha256: digest(bytes),
            })
            .collect();
        assert_eq!(listed.check(&seen), []);
        assert!(manifest.entries.iter().any(|entry| entry.path.starts_with("pg_tblspc/") && entry.size > 0));
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_or_whose_log_is_not_stored_is_claimed_by_nobody() {
    let rig = rig(Major::V15).await;
    let waited = AtomicU64::new(0);
    let progress = |progress: farshore_shipper::base_backup::Progress| {
        if let Phase::WaitingForLog(end) = progress.phase {
            waited.store(end.offset.get(), Ordering::Relaxed);
        }
    };
    let not_stored = |_| async { Err("the shipper has stopped".to_owned()) };
    let failed = take(rig.request(rig.system_identifier), Sequence::FIRST, not_stored, &progress).await;
    assert!(matches!(failed, Err(TakeError::LogNotStored { .. })), "{failed:?}");
    assert!(waited.load(Ordering::Relaxed) > 0);
    let [id] = backup::list(&rig.reader).await.unwrap()[..] else { panic!("it began") };
    assert_eq!(backup::standing(&rig.reader, id).await.unwrap().complete, None);
    assert!(Backup::open(&rig.reader, id, &Unlock::none()).await.unwrap().is_none());

    let stored = |_| async { Ok(Sequence::new(7)) };
    let other = take(rig.request(1), Sequence::FIRST, stored, &|_| {}).await;
    assert!(matches!(other, Err(TakeError::AnotherCluster { .. })), "{other:?}");
    let whole = rig.take().await.unwrap();
    assert!(backup::standing(&rig.reader, whole.id).await.unwrap().complete.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_one_shipped_is_not_copied() {
    let mut rig = rig(Major::V15).await;
    let stored = |_| async { Ok(Sequence::new(7)) };
    let end = rig.journal_end;
    // It is behind the journal, on a timeline that the journal has left, or on one that the journal has not followed to.
    let ahead = end.offset.checked_add(16 << 20).unwrap();
    for journal_end in [
        Position::new(end.timeline, ahead),
        Position::new(Timeline::new(2), end.offset),
        Position::new(Timeline::new(0), end.offset),
    ] {
        rig.journal_end = journal_end;
        let checkpoints = "select redo_lsn from pg_control_checkpoint()";
        let before = rig.server.sql(checkpoints);
        let refused = take(rig.request(rig.system_identifier), Sequence::FIRST, stored, &|_| {}).await;
        assert!(matches!(refused, Err(TakeError::NotTheShipped { .. })), "{refused:?}");
        assert_eq!(rig.server.sql(checkpoints), before, "a checkpoint would make it go its own way");
    }
    assert_eq!(backup::list(&rig.reader).await.unwrap(), []);
}
