//! A server whose log is streamed into a journal, a base taken by the server's own tool, and a ledger of commits.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_applier::plan::{Asked, Plan, PlanError, resolve};
use farshore_applier::restore::{RestoreError, RestoreOptions, Restored, StartOptions, run};
use farshore_applier::source::Source;
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::restore::safe_start::Then;
use farshore_engines::postgres::restore::server::Reached;
use farshore_engines::postgres::wire::{ConnectParams, Connection, StandbyStatus, StreamEvent};
use farshore_journal::backup::{
    BackupOptions, BackupWriter, Entry, EntryKind, Manifest, SettingRow, Tablespace,
};
use farshore_journal::format::body::{GapBody, IncarnationRecord, TimelineBody};
use farshore_journal::format::object::Compression;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::reader::Reader;
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::store::{self, StoreOptions};
use farshore_journal::writer::{Writer, WriterOptions, encode_data, encode_gap, encode_timeline};
use farshore_journal::{BackupId, Offset, Position, Sequence, Timeline};
use farshore_testkit::pg::{Builder, Major, Server};
use farshore_testkit::user;
use tempfile::TempDir;

/// A commit of the ledger.
#[derive(Debug, Clone)]
pub struct Commit {
    pub id: i64,
    pub xid: u64,
    pub time: DateTime<Utc>,
    /// The log's end right after it: it is included there, and the next one is not.
    pub position: Offset,
}

pub struct Rig {
    pub server: Server,
    pub store: TempDir,
    pub repository: Repository,
    pub record: IncarnationRecord,
    pub writer: Writer,
    pub ledger: Vec<Commit>,
    recipients: Recipients,
}

fn quiet(_: &store::StoreError) {}

impl Rig {
    pub async fn new(major: Major, recipients: Recipients) -> Self {
        Self::on(Server::builder(major), major, recipients, "pg_default").await
    }

    /// With the ledger in a tablespace of its own.
    pub async fn with_tablespace(major: Major) -> Self {
        let builder = Server::builder(major).tablespace("fast");
        Self::on(builder, major, Recipients::default(), "fast").await
    }

    async fn on(builder: Builder, major: Major, recipients: Recipients, tablespace: &str) -> Self {
        let server = builder
            .conf("wal_keep_size = '1GB'")
            .conf("track_commit_timestamp = on")
            .conf("max_prepared_transactions = 5")
            .conf("archive_command = 'cp %p /elsewhere'")
            .start();
        server
            .sql(&format!("create table ledger (id bigint primary key, note text) tablespace {tablespace}"));
        let store = tempfile::tempdir().unwrap();
        let opened = store::open(&address(store.path()), &StoreOptions::for_writing()).unwrap();
        let now = Utc::now().to_rfc3339();
        let repository = Repository::open_or_found(opened, &now).await.unwrap();
        let mut connection = connect(&server).await;
        let identity = connection.identify_system().await.unwrap();
        let segment_bytes = 16 << 20;
        let founding = Founding {
            database: &"orders".parse().unwrap(),
            number: 0,
            engine: "postgres",
            identity: &identity.system_identifier.to_string(),
            major: major.number(),
            segment_bytes,
            now: &now,
            reason: "first",
        };
        let record = repository.found_incarnation(founding).await.unwrap();
        let reader = Reader::new(&repository, &record).unwrap();
        let options = WriterOptions {
            compression: Compression::Zstd(1),
            recipients: recipients.clone(),
            segment_bytes,
            host: "test".to_owned(),
        };
        let begin = Position::new(identity.timeline, identity.flushed.segment_start(segment_bytes));
        let writer = Writer::take_over(reader, &options, begin, &quiet).await.unwrap();
        Self { server, store, repository, record, writer, ledger: Vec::new(), recipients }
    }

    pub fn reader(&self) -> Reader {
        self.writer.reader().clone()
    }

    pub fn source(&self, unlock: Unlock) -> Source {
        Source::new(&self.repository, self.record.clone(), unlock).unwrap()
    }

    /// Commits one row, and notes it.
    pub async fn commit(&mut self) -> Commit {
        self.commits(1).await.pop().unwrap()
    }

    /// Commits rows back to back in one session.
    pub async fn commits(&mut self, count: i64) -> Vec<Commit> {
        let mut client = self.server.connect().await;
        let mut made = Vec::new();
        for _ in 0..count {
            let id = i64::try_from(self.ledger.len()).unwrap() + 1;
            let transaction = client.transaction().await.unwrap();
            transaction.execute("insert into ledger values ($1, repeat('x', 100))", &[&id]).await.unwrap();
            let row = transaction.query_one("select pg_current_xact_id()::text", &[]).await.unwrap();
            let xid: u64 = row.get::<_, String>(0).parse().unwrap();
            transaction.commit().await.unwrap();
            let ask = "select (extract(epoch from pg_xact_commit_timestamp(($1::text)::xid)) * 1000000)::bigint, \
                pg_current_wal_lsn()::text";
            let row = client.query_one(ask, &[&xid.to_string()]).await.unwrap();
            let time = DateTime::from_timestamp_micros(row.get(0)).unwrap();
            let position = row.get::<_, String>(1).parse().unwrap();
            let commit = Commit { id, xid, time, position };
            self.ledger.push(commit.clone());
            made.push(commit);
        }
        made
    }

    /// Streams the log into the journal, up to what the server has now.
    pub async fn ship(&mut self) {
        let until = self.server.sql("select pg_current_wal_flush_lsn()").parse().unwrap();
        self.ship_to(until, false).await;
    }

    /// Streams the log into the journal up to `until`; `exactly` cuts off what the server sends behind it.
    pub async fn ship_to(&mut self, until: Offset, exactly: bool) {
        let mut connection = connect(&self.server).await;
        let timeline = connection.identify_system().await.unwrap().timeline;
        let mut stream = connection.start_physical(None, self.writer.stored()).await.unwrap();
        while self.writer.stored().offset < until || self.writer.stored().timeline < timeline {
            match stream.next_event().await.unwrap() {
                StreamEvent::Data { mut bytes, .. } => {
                    let left = until.bytes_since(self.writer.stored().offset).unwrap_or(0);
                    if exactly {
                        bytes.truncate(bytes.len().min(usize::try_from(left).unwrap()));
                    }
                    let (chunk, _) = encode_data(self.writer.place(), &bytes).unwrap();
                    self.writer.append(&chunk, &quiet).await.unwrap();
                    let stored = self.writer.stored().offset;
                    let status = StandbyStatus { written: stored, flushed: stored, applied: stored };
                    stream.send_status(status, false).await.unwrap();
                }
                StreamEvent::KeepAlive { .. } => {}
                StreamEvent::TimelineEnd { next, switch_point } => {
                    let mut connection = stream.stop().await.unwrap();
                    let history = connection.timeline_history(next).await.unwrap().unwrap();
                    let stored = self.writer.stored();
                    let body = TimelineBody {
                        parent: stored.timeline,
                        parent_end: stored.offset,
                        history: history.content.to_vec(),
                    };
                    let branch = Position::new(next, switch_point);
                    let (chunk, _) = encode_timeline(self.writer.place(), branch, &body).unwrap();
                    self.writer.append(&chunk, &quiet).await.unwrap();
                    stream = connection.start_physical(None, branch).await.unwrap();
                }
            }
        }
        stream.stop().await.unwrap();
    }

    /// Goes on behind a promotion that left log of the old timeline behind, from the new primary.
    pub async fn branch_to(&mut self, promoted: Server) {
        self.server = promoted;
        let mut connection = connect(&self.server).await;
        let timeline = connection.identify_system().await.unwrap().timeline;
        let history = connection.timeline_history(timeline).await.unwrap().unwrap().content.to_vec();
        let stored = self.writer.stored();
        let fork = TimelineHistory::parse(timeline, &history).unwrap().leaves(stored.timeline).unwrap();
        let body = TimelineBody { parent: stored.timeline, parent_end: stored.offset, history };
        let branch = Position::new(timeline, fork);
        let (chunk, _) = encode_timeline(self.writer.place(), branch, &body).unwrap();
        self.writer.append(&chunk, &quiet).await.unwrap();
    }

    /// Loses the log from here to the server's next segment, and says so in the journal.
    pub async fn gap(&mut self) {
        self.server.sql("insert into ledger values (-9, 'lost'); delete from ledger where id = -9; select pg_switch_wal(); checkpoint");
        let now: Offset = self.server.sql("select pg_current_wal_flush_lsn()").parse().unwrap();
        let end = now.segment_start(self.record.segment_bytes);
        let (chunk, _) =
            encode_gap(self.writer.place(), end, &GapBody { reason: "lost".to_owned() }).unwrap();
        self.writer.append(&chunk, &quiet).await.unwrap();
    }

    /// Takes a base with the server's own tool and puts it into the store. Log up to its end is shipped first.
    pub async fn base(&mut self) -> BackupId {
        let next = self.writer.place().number();
        let place = tempfile::tempdir().unwrap();
        let copy = place.path().join("copy");
        let mut tool = self.server.client_command("pg_basebackup");
        tool.args(["-X", "none", "-c", "fast", "--manifest-checksums=SHA256", "-D"]).arg(&copy);
        let ask = "select oid, pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) <> ''";
        let rows = self.server.sql(ask);
        let mut tablespaces = Vec::new();
        for row in rows.lines() {
            let (oid, location) = row.split_once('|').unwrap();
            let moved = place.path().join(oid);
            tool.arg("-T").arg(format!("{location}={}", moved.display()));
            tablespaces.push(Tablespace { oid: oid.parse().unwrap(), location: location.to_owned() });
        }
        let done = tokio::task::spawn_blocking(move || tool.output().unwrap()).await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.ship().await;
        let options = BackupOptions {
            compression: Compression::Zstd(1),
            recipients: self.recipients.clone(),
            label: "test".to_owned(),
            host: "test".to_owned(),
        };
        let mut writer = BackupWriter::begin(&self.reader(), &options, next, Arc::new(quiet)).await.unwrap();
        let mut entries = Vec::new();
        let mut paths = Vec::new();
        walk(&copy, &copy, &mut paths);
        for (path, name) in paths {
            let found = std::fs::metadata(&path).unwrap();
            let kind = if found.is_dir() { EntryKind::Directory } else { EntryKind::File };
            let size = if found.is_dir() { 0 } else { found.len() };
            let at = writer.at();
            entries.push(Entry { path: name, kind, mode: found.mode(), modified: 0, size, at, sha256: None });
            if size > 0 {
                writer.write(&std::fs::read(&path).unwrap()).await.unwrap();
            }
        }
        let listed: serde_json::Value =
            serde_json::from_slice(&std::fs::read(copy.join("backup_manifest")).unwrap()).unwrap();
        let range = &listed["WAL-Ranges"][0];
        let timeline = Timeline::new(u32::try_from(range["Timeline"].as_u64().unwrap()).unwrap());
        let position = |name: &str| Position::new(timeline, range[name].as_str().unwrap().parse().unwrap());
        let rows = self.server.sql("select name, setting, source, context from pg_settings where setting not like '%|%' and setting not like E'%\\n%'");
        let settings = rows.lines().map(|row| {
            let [name, setting, source, context] = row.split('|').collect::<Vec<_>>()[..] else {
                panic!("{row}")
            };
            let text = str::to_owned;
            SettingRow {
                name: text(name),
                setting: text(setting),
                source: text(source),
                context: text(context),
            }
        });
        let manifest = Manifest {
            format: 1,
            backup: writer.id(),
            label: "test".to_owned(),
            engine: "postgres".to_owned(),
            major: self.record.major,
            identity: self.record.identity.clone(),
            segment_bytes: self.record.segment_bytes,
            start: position("Start-LSN"),
            end: position("End-LSN"),
            started: Utc::now().to_rfc3339(),
            finished: Utc::now().to_rfc3339(),
            checksums: true,
            bad_pages: Vec::new(),
            damaged: false,
            next_transaction: None,
            journal_begin: next,
            journal_end: self.writer.place().number(),
            plain_bytes: 0,
            parts: Vec::new(),
            entries,
            tablespaces,
            settings: settings.collect(),
            config_files: Vec::new(),
            borrowed: None,
            table: None,
        };
        let (manifest, _) = writer.finish(manifest).await.unwrap();
        manifest.backup
    }

    pub async fn plan(&self, asked: Asked) -> Result<Plan, PlanError> {
        resolve(&self.source(Unlock::none()), asked).await
    }

    /// The path of one of the store's objects.
    pub fn object(&self, name: &str) -> PathBuf {
        self.store.path().join(format!("db/orders/{}/{name}", self.record.incarnation))
    }

    pub fn chunk(&self, number: u64) -> PathBuf {
        self.object(&format!("journal/{}", Sequence::new(number)))
    }
}

/// Restores a plan, starts it, and gives the ledger's rows as they are there.
pub async fn restored_rows(source: &Source, plan: &Plan, then: Then) -> Vec<i64> {
    let place = user::tempdir();
    let restored = restore(source, plan, &place.path().join("r"), Some(then)).await.unwrap();
    let server = match restored.server.unwrap() {
        Reached::Paused(server) | Reached::Promoted(server, _) => server,
        Reached::ShutDown => panic!("it was to run"),
    };
    let mut config = tokio_postgres::Config::new();
    config.host_path(restored.socket_dir.unwrap()).port(5432).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let _ended = connection.await;
    });
    let rows = client.query("select id from ledger order by id", &[]).await.unwrap();
    let archive: String = client.query_one("show archive_mode", &[]).await.unwrap().get(0);
    assert_eq!(archive, "off");
    if then == Then::Pause {
        let at: String = client.query_one("select pg_last_wal_replay_lsn()::text", &[]).await.unwrap().get(0);
        assert_eq!(at, plan.resolved.position.to_string());
    }
    drop(client);
    server.stop().await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

pub async fn restore(
    source: &Source,
    plan: &Plan,
    directory: &Path,
    then: Option<Then>,
) -> Result<Restored, RestoreError> {
    run(source, plan, &options(directory, then), Arc::new(|_| {})).await
}

pub fn options(directory: &Path, then: Option<Then>) -> RestoreOptions {
    let owner = std::fs::metadata(directory.parent().unwrap()).unwrap();
    RestoreOptions {
        directory: directory.to_owned(),
        tablespaces: std::collections::BTreeMap::new(),
        resume: false,
        port: 5432,
        shared_buffers_limit: 16 << 20,
        preload: Vec::new(),
        follow: None,
        start: then.map(|then| StartOptions {
            bin: None,
            then,
            user: "postgres".to_owned(),
            database: "postgres".to_owned(),
            run_as: (owner.uid() != 0).then(|| (owner.uid(), owner.gid())),
            stall: Duration::from_secs(120),
            apart: false,
        }),
    }
}

fn address(path: &Path) -> String {
    format!("file://{}", path.display())
}

async fn connect(server: &Server) -> Connection {
    let params: ConnectParams = server.url().parse().unwrap();
    Connection::connect(&params, &params.hosts()[0]).await.unwrap()
}

fn walk(root: &Path, place: &Path, found: &mut Vec<(PathBuf, String)>) {
    let mut inside: Vec<_> = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    inside.sort();
    for path in inside {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        found.push((path.clone(), name));
        if path.is_dir() {
            walk(root, &path, found);
        }
    }
}
