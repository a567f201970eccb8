//! Base backups of real servers of every major: unpacked, checked by the server's own manifest and tool.

#![allow(clippy::unwrap_used)] // in a test a panic is the message, in its helpers too

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use farshore_engines::postgres::backup::{
    ArchiveError, ArchiveFeed, ArchiveReport, BackupEntry, BackupEvent, BackupOptions, BackupStream,
    EntryKind, EntrySink, Manifest, Mismatch, PageRules, Tablespace, archive_channel, read_archive,
};
use farshore_engines::postgres::sql::Session;
use farshore_engines::postgres::wire::{ConnectParams, Connection};
use farshore_journal::Position;
use farshore_testkit::pg::{Length, Major, Mode, Server};
use farshore_testkit::user;
use tokio::task::JoinHandle;

/// Writes entries below a folder.
struct Folder {
    root: PathBuf,
    file: Option<File>,
}

impl EntrySink for Folder {
    fn begin(&mut self, entry: &BackupEntry) -> io::Result<()> {
        let path = self.root.join(&entry.path);
        match &entry.kind {
            EntryKind::Dir => fs::create_dir_all(&path),
            EntryKind::File => {
                self.file = Some(File::create(&path)?);
                Ok(())
            }
            EntryKind::Symlink(_) => panic!("a link came in place of a tablespace map"),
        }
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_mut().unwrap().write_all(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        self.file = None;
        Ok(())
    }
}

struct Taken {
    start: Position,
    end: Position,
    damaged: bool,
    tablespaces: Vec<Tablespace>,
    reports: Vec<ArchiveReport>,
    manifest: Vec<u8>,
    progress: u64,
    connection: Connection,
}

type Reader = (ArchiveFeed, JoinHandle<Result<ArchiveReport, ArchiveError>>);

fn open(target: &Path, tablespace: Option<u32>, start: Position) -> Reader {
    let root = match tablespace {
        None => target.to_owned(),
        Some(oid) => target.join("pg_tblspc").join(oid.to_string()),
    };
    fs::create_dir_all(&root).unwrap();
    let (feed, source) = archive_channel();
    let rules = PageRules { backup_start: start.offset };
    let reader = tokio::task::spawn_blocking(move || {
        read_archive(source, tablespace, Some(rules), &mut Folder { root, file: None })
    });
    (feed, reader)
}

async fn close(open: &mut Option<Reader>, reports: &mut Vec<ArchiveReport>) {
    if let Some((feed, reader)) = open.take() {
        let whole = feed.finish().await;
        reports.push(reader.await.unwrap().unwrap());
        assert!(whole);
    }
}

async fn take(server: &Server, target: &Path) -> Taken {
    let params: ConnectParams = server.url().parse().unwrap();
    let connection = Connection::connect(&params, &params.hosts()[0]).await.unwrap();
    let mut stream = BackupStream::start(connection, BackupOptions::default()).unwrap();
    let BackupEvent::Started { start, tablespaces } = stream.next_event().await.unwrap() else {
        panic!("a backup begins with its start")
    };
    let (mut reports, mut reader, mut manifest, mut progress) = (Vec::new(), None, Vec::new(), 0);
    let (end, damaged) = loop {
        match stream.next_event().await.unwrap() {
            BackupEvent::Started { .. } => panic!("it started twice"),
            BackupEvent::Archive { tablespace } => {
                close(&mut reader, &mut reports).await;
                reader = Some(open(target, tablespace, start));
            }
            BackupEvent::Data(bytes) => assert!(reader.as_mut().unwrap().0.put(bytes).await),
            BackupEvent::Manifest(bytes) => {
                close(&mut reader, &mut reports).await;
                manifest.extend_from_slice(&bytes);
            }
            BackupEvent::Progress(bytes) => progress = bytes,
            BackupEvent::Finished { end, damaged } => break (end, damaged),
        }
    };
    let connection = stream.into_connection().unwrap();
    Taken { start, end, damaged, tablespaces, reports, manifest, progress, connection }
}

fn filled(major: Major) -> Server {
    let server = Server::builder(major).tablespace("fast").tablespace("slow").start();
    server.pgbench_init(2);
    server.sql(
        "create table a tablespace fast as select g, repeat('x', 200) t from generate_series(1, 20000) g",
    );
    server.sql("create index on a (g) tablespace slow");
    server
}

async fn a_base_backup_is_what_its_manifest_says(major: Major) {
    let server = filled(major);
    let target = user::tempdir();
    let target = target.path().join("backup");
    let load = server.pgbench(2, Length::Transactions(2000));
    let mut taken = take(&server, &target).await;
    assert!(load.wait().transactions > 0);

    assert_eq!(taken.tablespaces.len(), 3);
    assert_eq!(taken.tablespaces.iter().filter(|tablespace| tablespace.oid.is_none()).count(), 1);
    assert!(taken.tablespaces.iter().all(|tablespace| tablespace.size_bytes.is_some_and(|size| size > 0)));
    assert_eq!(taken.reports.len(), 3);
    assert!(!taken.damaged);
    assert!(taken.start < taken.end);
    for report in &taken.reports {
        assert_eq!(report.bad_pages, [], "pages of a sound server");
    }
    if major > Major::V14 {
        assert!(taken.progress > 20 << 20, "{}", taken.progress);
    }

    let manifest = Manifest::parse(&taken.manifest).unwrap();
    assert_eq!(manifest.check(taken.reports.iter().flat_map(|report| &report.files)), []);
    let identity = taken.connection.identify_system().await.unwrap();
    if major >= Major::V17 {
        assert_eq!(manifest.system_identifier, Some(identity.system_identifier));
    }
    let [range] = manifest.wal_ranges[..] else { panic!("one timeline, one range") };
    assert_eq!(
        (range.timeline, range.start, range.end),
        (taken.start.timeline, taken.start.offset, taken.end.offset)
    );

    fs::write(target.join("backup_manifest"), &taken.manifest).unwrap();
    if let Some(tools) = major.tools() {
        fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
        let checked = Command::new(tools.join("pg_verifybackup")).arg("-n").arg(&target).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

async fn a_damaged_page_is_named(major: Major) {
    let server = filled(major);
    let place = server.sql("checkpoint; select pg_relation_filepath('pgbench_accounts')");
    let place = place.lines().last().unwrap().to_owned();
    server.stop(Mode::Fast);
    let path = server.data_dir().join(&place);
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 * 8192 + 5000] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    server.start();

    let target = user::tempdir();
    let taken = take(&server, &target.path().join("backup")).await;
    let bad: Vec<_> = taken.reports.iter().flat_map(|report| &report.bad_pages).collect();
    let [page] = bad[..] else { panic!("not one page: {bad:?}") };
    assert_eq!((page.path.as_str(), page.block), (place.as_str(), 3));
    assert_ne!(page.expected, page.found);
    assert!(taken.damaged, "the server found it too");
    // What was sent is what the manifest says, damaged or not.
    let manifest = Manifest::parse(&taken.manifest).unwrap();
    let files: Vec<_> = taken.reports.iter().flat_map(|report| report.files.clone()).collect();
    assert_eq!(manifest.check(&files), []);
    let missing = manifest.check(&files[1..]);
    assert!(matches!(missing[..], [Mismatch::Missing { .. }]), "{missing:?}");
}

macro_rules! on_every_major {
    ($($test:ident),*) => { on_every_major!(@ $($test: v14 V14, v15 V15, v16 V16, v17 V17, v18 V18;)*); };
    (@ $($test:ident: $($name:ident $major:ident),*;)*) => {
        $(mod $test { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$test(farshore_testkit::pg::Major::$major).await; }
        )* })*
    };
}

on_every_major!(a_base_backup_is_what_its_manifest_says, a_damaged_page_is_named);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_broken_off_ends_at_the_server() {
    let server = filled(Major::V16);
    let params: ConnectParams = server.url().parse().unwrap();
    let connection = Connection::connect(&params, &params.hosts()[0]).await.unwrap();
    let pid = connection.process_id();
    // Slow enough that it cannot be over before it is dropped.
    let options = BackupOptions { max_rate_kib: Some(32), ..BackupOptions::default() };
    let mut stream = BackupStream::start(connection, options).unwrap();
    while !matches!(stream.next_event().await.unwrap(), BackupEvent::Data(_)) {}
    drop(stream);
    let session = Session::connect(&params, &params.hosts()[0]).await.unwrap();
    assert!(session.now().await.is_ok());
    let gone = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while server.sql(&format!("select count(*) from pg_stat_activity where pid = {pid}")) != "0" {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    assert!(gone.await.is_ok(), "the server still sends");
}
