//! Real servers of all majors: a base backup and its log become a server that is safe to start, holds exactly the
//! commits it must, and touches nothing of its source.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic there is the failure message")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farshore_engines::postgres::restore::beneath::{Access, Bounds, EntryKind, Root};
use farshore_engines::postgres::restore::control::{ControlFile, Major};
use farshore_engines::postgres::restore::install::{InstallError, install, left_out};
use farshore_engines::postgres::restore::safe_start::{
    ConfigFile, RecoveryTarget, Request, SafeStart, Setting, SourceSettings, Then, plan,
};
use farshore_engines::postgres::restore::server::{Ending, Reached, ServerError, Start, start};
use farshore_journal::{Offset, Timeline};
use farshore_testkit::pg::{self, Server};
use farshore_testkit::user;

const BOUNDS: Bounds = Bounds { entries: 100_000, file_bytes: 4 << 30, total_bytes: 16 << 30 };

fn major(server: &Server) -> Major {
    Major::new(server.major().number()).unwrap()
}

fn ids() -> Option<(u32, u32)> {
    let probe = user::tempdir();
    let owner = std::fs::metadata(probe.path()).unwrap();
    use std::os::unix::fs::MetadataExt;
    nix::unistd::geteuid().is_root().then(|| (owner.uid(), owner.gid()))
}

/// One commit: what must be there once it is.
#[derive(Debug, Clone, Copy)]
struct Commit {
    number: i64,
    start: Offset,
    end: Offset,
}

struct Base {
    folder: tempfile::TempDir,
    label: String,
    end: Offset,
    settings: SourceSettings,
    spaces: Vec<u32>,
}

/// A backup by the low-level interface, which every major offers, copied while the server runs.
async fn base(server: &Server) -> Base {
    let client = server.connect().await;
    let old = server.major().number() == 14;
    let begin = if old {
        "select pg_start_backup('t', true, false)::text"
    } else {
        "select pg_backup_start('t', true)::text"
    };
    client.query_one(begin, &[]).await.unwrap();
    let folder = user::tempdir();
    copy(server.data_dir(), &folder.path().join("base"), &|name| name != "pg_wal" && name != "pg_tblspc");
    let mut spaces = Vec::new();
    for link in std::fs::read_dir(server.data_dir().join("pg_tblspc")).unwrap() {
        let link = link.unwrap();
        let oid = link.file_name().into_string().unwrap();
        let place = std::fs::read_link(link.path()).unwrap();
        copy(&place, &folder.path().join("spaces").join(&oid), &|_| true);
        spaces.push(oid.parse().unwrap());
    }
    let finish = if old { "pg_stop_backup(false, false)" } else { "pg_backup_stop(false)" };
    let row = client.query_one(&format!("select lsn::text, labelfile from {finish}"), &[]).await.unwrap();
    let rows = client
        .query("select name, coalesce(setting, ''), source, context from pg_settings", &[])
        .await
        .unwrap();
    let settings = rows.iter().map(|row| Setting {
        name: row.get(0),
        setting: row.get(1),
        source: row.get(2),
        context: row.get(3),
    });
    let settings = SourceSettings { settings: settings.collect(), config_files: Vec::new() };
    let end: String = row.get(0);
    Base { folder, label: row.get(1), end: end.parse().unwrap(), settings, spaces }
}

fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && wanted(&name) {
            copy(&entry.path(), &to.join(&name), &|_| true);
        } else if kind.is_dir() {
            std::fs::create_dir_all(to.join(&name)).unwrap();
        } else if kind.is_file() {
            // A running server removes files while they are copied; its log tells replay so.
            let _ = std::fs::copy(entry.path(), to.join(&name));
        }
    }
}

async fn commits(server: &Server, first: i64, count: i64) -> Vec<Commit> {
    let mut client = server.connect().await;
    let mut made = Vec::new();
    for number in first..first + count {
        let here = "select pg_current_wal_insert_lsn()::text";
        let work = client.transaction().await.unwrap();
        work.execute("insert into ledger values ($1)", &[&number]).await.unwrap();
        let start: String = work.query_one(here, &[]).await.unwrap().get(0);
        work.commit().await.unwrap();
        let end: String = client.query_one(here, &[]).await.unwrap().get(0);
        let (start, end): (Offset, Offset) = (start.parse().unwrap(), end.parse().unwrap());
        // The insert position skips a page's head, which a record's end does not.
        let head = match (end.get() % (16 << 20), end.get() % 8192) {
            (40, _) => 40,
            (_, 24) => 24,
            _ => 0,
        };
        made.push(Commit { number, start, end: Offset::new(end.get() - head) });
    }
    // Where the server's own background wrote a record in between, start or end are not the commit's.
    let size = |commit: &Commit| commit.end.get() - commit.start.get();
    let usual = made.iter().map(size).min().unwrap();
    made.retain(|commit| size(commit) == usual);
    assert!(made.len() as i64 * 2 > count, "{made:?}");
    made
}

struct Restored {
    folder: tempfile::TempDir,
    plan: SafeStart,
    request: Request,
}

impl Restored {
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn start(&self, server: &Server, then: Then) -> Start {
        Start {
            bin: server.major().bin(),
            data: self.data(),
            socket_dir: self.request.socket_dir.clone(),
            port: self.request.port,
            user: "postgres".to_owned(),
            database: "postgres".to_owned(),
            run_as: ids(),
            target: self.request.target,
            then,
            limits: self.plan.limits,
            stall: Duration::from_secs(90),
            apart: false,
        }
    }

    /// What the running copy holds.
    fn psql(&self, sql: &str) -> String {
        let mut psql = std::process::Command::new(pg::Major::clients().join("psql"));
        psql.args(["-XAtq", "-U", "postgres", "-d", "postgres", "-c", sql])
            .arg("-h")
            .arg(&self.request.socket_dir)
            .args(["-p", &self.request.port.to_string()]);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// The port number of the source itself: no TCP is opened, and the socket is elsewhere.
fn restore(server: &Server, base: &Base, target: RecoveryTarget, hostile: &[(&str, String)]) -> Restored {
    let folder = user::tempdir();
    let root = Root::create(&folder.path().join("data"), Access::Owner, BOUNDS).unwrap();
    for oid in &base.spaces {
        root.tablespace_link(*oid, &folder.path().join(format!("space-{oid}"))).unwrap();
        fill(&root, &base.folder.path().join("spaces").join(oid.to_string()), &format!("pg_tblspc/{oid}"));
    }
    fill(&root, &base.folder.path().join("base"), "");
    let put = |name: &str, content: &[u8]| {
        root.write(&root.admit(EntryKind::File, name).unwrap(), content).unwrap()
    };
    put("backup_label", base.label.as_bytes());
    put("tablespace_map", b"16384 /somewhere/of/the/source\n");
    put("standby.signal", b"");
    for entry in std::fs::read_dir(server.data_dir().join("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            put(&format!("pg_wal/{name}"), &std::fs::read(entry.path()).unwrap());
        }
    }
    let mut settings = base.settings.clone();
    let mut auto = String::new();
    for (name, value) in hostile {
        auto.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        settings.settings.retain(|row| row.name != *name);
        settings.settings.push(Setting {
            name: (*name).to_owned(),
            setting: value.clone(),
            source: "configuration file".to_owned(),
            context: "postmaster".to_owned(),
        });
    }
    settings.config_files.push(ConfigFile {
        path: format!("/etc/postgresql/{}/main/postgresql.conf", server.major()),
        content: auto.clone().into_bytes(),
    });
    for name in ["postgresql.auto.conf", "postgresql.conf"] {
        let path = root.admit(EntryKind::File, name).unwrap();
        root.remove(&path).unwrap();
        root.write(&path, auto.as_bytes()).unwrap();
    }
    let control = root.read(&root.admit(EntryKind::File, "global/pg_control").unwrap(), 8192).unwrap();
    let control = ControlFile::parse(&control).unwrap();
    let socket_dir = folder.path().join("run");
    std::fs::create_dir(&socket_dir).unwrap();
    std::fs::set_permissions(&socket_dir, PermissionsExt::from_mode(0o700)).unwrap();
    let request = Request {
        major: major(server),
        port: server.port(),
        socket_dir,
        target,
        consistent_from: base.end,
        demanded: None,
        restore_command: None,
        follow: None,
        shared_buffers_limit: 32 << 20,
        preload: Vec::new(),
    };
    let plan = plan(&settings, &control, &request).unwrap();
    install(&root, &plan).unwrap();
    root.sync(4).unwrap();
    user::give(folder.path());
    Restored { folder, plan, request }
}

fn fill(root: &Root, from: &Path, below: &str) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = if entry.path().is_dir() { EntryKind::Directory } else { EntryKind::File };
        let path = root.admit(kind, &name).unwrap();
        if left_out(&path) {
            continue;
        }
        if kind == EntryKind::Directory {
            root.dir(&path).unwrap();
            fill(root, &entry.path(), &name);
        } else {
            root.write(&path, &std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn at(commit: &Commit) -> RecoveryTarget {
    RecoveryTarget { record_start: commit.start, timeline: Timeline::new(1), end: commit.end }
}

fn source(major: pg::Major) -> Server {
    let server = Server::builder(major).conf("max_connections = 120").conf("bgwriter_delay = 10s").start();
    server.sql("create table ledger (number bigint primary key); checkpoint");
    server
}

fn hostile(marker: &Path) -> Vec<(&'static str, String)> {
    let touch = format!("touch {}", marker.display());
    [
        ("archive_mode", "always"),
        ("archive_command", &touch),
        ("archive_cleanup_command", &touch),
        ("recovery_end_command", &touch),
        ("restore_command", &touch),
        ("synchronous_standby_names", "ANY 2 (*)"),
        ("primary_conninfo", "host=127.0.0.1 port=1 password=hidden"),
        ("primary_slot_name", "theirs"),
        ("shared_preload_libraries", "does_not_exist"),
        ("session_preload_libraries", "does_not_exist"),
        ("ssl", "on"),
        ("ssl_cert_file", "/does/not/exist.crt"),
        ("listen_addresses", "*"),
        ("max_connections", "500"),
        ("logging_collector", "on"),
        ("log_directory", "/does/not/exist"),
        ("external_pid_file", "/does/not/exist/pid"),
        ("recovery_min_apply_delay", "3600000"),
        ("recovery_target_time", "2001-01-01 00:00:00"),
        ("lc_messages", "xx_XX.UTF-8"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

async fn exactly_the_commits(major: pg::Major) {
    let server = source(major);
    let before = commits(&server, 1, 5).await;
    let base = base(&server).await;
    let after = commits(&server, 100, 20).await;
    server.sql("select pg_switch_wal()");
    let marker = base.folder.path().join("marker");
    let seed = farshore_testkit::random::seed();
    let middle = after[(seed % (after.len() as u64 - 2)) as usize + 1];
    for (target, then) in
        [(after[0], Then::Pause), (middle, Then::Promote), (after[after.len() - 1], Then::Shutdown)]
    {
        let restored = restore(&server, &base, at(&target), &hostile(&marker));
        let options = restored.start(&server, then);
        let reached =
            start(&options, |_| {}).await.unwrap_or_else(|error| panic!("{major} {then:?}: {error}"));
        let expected = format!("{}|{}", before.len().max(5) as i64 + target.number - 99, target.number);
        let holds = |text: String| assert_eq!(text, expected, "{major} {then:?} seed {seed}");
        let query = "select count(*), max(number) from ledger";
        match reached {
            Reached::Paused(running) => {
                holds(restored.psql(query));
                assert_eq!(restored.psql("select pg_last_wal_replay_lsn()"), target.end.to_string());
                assert_eq!(restored.psql("show transaction_read_only"), "on");
                assert_eq!(restored.psql("show max_connections"), "500");
                running.stop().await.unwrap();
            }
            Reached::Promoted(running, timeline) => {
                holds(restored.psql(query));
                assert!(timeline > Timeline::new(1));
                restored.psql("insert into ledger values (-1); select pg_switch_wal(); checkpoint");
                running.stop().await.unwrap();
            }
            Reached::ShutDown => assert!(!restored.data().join("postmaster.pid").exists()),
        }
        assert!(restored.data().join("postgresql.auto.conf.from-backup").exists());
        assert!(!restored.data().join("standby.signal").exists());
        assert!(!restored.data().join("tablespace_map").exists());
    }
    assert!(!marker.exists(), "a command of the source ran");
    assert!(server.is_running());
    assert_eq!(server.sql("select count(*) from ledger where number < 0"), "0");
}

#[tokio::test]
async fn a_restored_14_holds_exactly_its_commits_and_touches_nothing() {
    exactly_the_commits(pg::Major::V14).await;
}

#[tokio::test]
async fn a_restored_15_holds_exactly_its_commits_and_touches_nothing() {
    exactly_the_commits(pg::Major::V15).await;
}

#[tokio::test]
async fn a_restored_16_holds_exactly_its_commits_and_touches_nothing() {
    exactly_the_commits(pg::Major::V16).await;
}

#[tokio::test]
async fn a_restored_17_holds_exactly_its_commits_and_touches_nothing() {
    exactly_the_commits(pg::Major::V17).await;
}

#[tokio::test]
async fn a_restored_18_holds_exactly_its_commits_and_touches_nothing() {
    exactly_the_commits(pg::Major::V18).await;
}

#[tokio::test]
async fn a_log_that_ends_before_the_target_fails_the_restore() {
    let server = source(pg::Major::V15);
    let base = base(&server).await;
    let after = commits(&server, 1, 5).await;
    let beyond = after[4].end.checked_add(64 << 20).unwrap();
    let target = RecoveryTarget {
        record_start: beyond,
        timeline: Timeline::new(1),
        end: beyond.checked_add(48).unwrap(),
    };
    let restored = restore(&server, &base, target, &[]);
    let error = start(&restored.start(&server, Then::Promote), |_| {}).await.unwrap_err();
    let early = matches!(&error, ServerError::Ended { ending: Ending::RecoveryEndedEarly, .. });
    assert!(early, "{error}");
    assert!(!restored.data().join("postmaster.pid").exists());
}

#[tokio::test]
async fn a_promised_end_that_is_not_the_records_end_fails_the_restore() {
    let server = source(pg::Major::V15);
    let base = base(&server).await;
    let after = commits(&server, 1, 5).await;
    let short = RecoveryTarget { end: after[3].end.checked_add(8).unwrap(), ..at(&after[3]) };
    let restored = restore(&server, &base, short, &[]);
    let error = start(&restored.start(&server, Then::Promote), |_| {}).await.unwrap_err();
    assert!(matches!(&error, ServerError::PausedElsewhere { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_backup_label_refuses_the_start() {
    let server = source(pg::Major::V15);
    let base = base(&server).await;
    let after = commits(&server, 1, 5).await;
    let restored = restore(&server, &base, at(&after[2]), &[]);
    std::fs::remove_file(restored.data().join("backup_label")).unwrap();
    let error = start(&restored.start(&server, Then::Pause), |_| {}).await.unwrap_err();
    assert!(matches!(error, ServerError::BackupLabelMissing { .. }), "{error}");
    let root = Root::adopt(&restored.data(), Access::Owner, BOUNDS).unwrap();
    assert!(matches!(install(&root, &restored.plan), Err(InstallError::BackupLabelMissing)));
}

#[tokio::test]
async fn tablespaces_are_restored_where_they_were_mapped_and_the_sources_stay_as_they_were() {
    let server = Server::builder(pg::Major::V15).tablespace("far").conf("bgwriter_delay = 10s").start();
    server.sql("create table ledger (number bigint primary key) tablespace far; checkpoint");
    let base = base(&server).await;
    assert_eq!(base.spaces.len(), 1);
    let after = commits(&server, 1, 5).await;
    let restored = restore(&server, &base, at(&after[3]), &[]);
    let reached = start(&restored.start(&server, Then::Promote), |_| {}).await.unwrap();
    let Reached::Promoted(running, _) = reached else { panic!("{reached:?}") };
    let place = restored.psql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'far'");
    assert!(Path::new(&place).starts_with(std::fs::canonicalize(restored.folder.path()).unwrap()), "{place}");
    assert_eq!(restored.psql("delete from ledger; select count(*) from ledger"), "0");
    running.stop().await.unwrap();
    assert_eq!(server.sql("select count(*) from ledger"), "5");
}

#[tokio::test]
async fn the_end_of_the_backup_itself_is_a_target() {
    for major in [pg::Major::V14, pg::Major::V15, pg::Major::V18] {
        let server = source(major);
        let base = base(&server).await;
        // The end-of-backup record: 24 bytes of head, 2 of data head, 8 of data, and 6 to the next multiple of 8.
        // The backup's stop position is the start of what follows its record, which may be a page's head.
        let target = RecoveryTarget {
            record_start: Offset::new(base.end.get() - 40),
            timeline: Timeline::new(1),
            end: base.end,
        };
        let restored = restore(&server, &base, target, &[]);
        let reached = start(&restored.start(&server, Then::Pause), |_| {}).await;
        let Reached::Paused(running) = reached.unwrap_or_else(|error| panic!("{major}: {error}")) else {
            panic!("{major}")
        };
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn the_control_file_says_what_the_server_says_of_it() {
    for kit in pg::Major::all() {
        let server = Server::builder(kit).wal_segment_size(4).conf("max_locks_per_transaction = 77").start();
        server.sql("checkpoint");
        let file = std::fs::read(server.data_dir().join("global/pg_control")).unwrap();
        let file = ControlFile::parse(&file).unwrap();
        let said = server.sql(
            "select system_identifier from pg_control_system();
             select checkpoint_lsn, redo_lsn, timeline_id, prev_timeline_id, next_xid from pg_control_checkpoint();
             select database_block_size, blocks_per_segment, wal_block_size, bytes_per_wal_segment,
                    data_page_checksum_version from pg_control_init();",
        );
        let (xid, epoch) = (file.next_xid & 0xFFFF_FFFF, file.next_xid >> 32);
        let read = format!(
            "{}\n{}|{}|{}|{}|{epoch}:{xid}\n{}|{}|{}|{}|{}",
            file.system_identifier,
            file.checkpoint,
            file.redo,
            file.timeline,
            file.previous_timeline,
            file.block_bytes,
            file.relation_segment_blocks,
            file.wal_block_bytes,
            file.wal_segment_bytes,
            u8::from(file.data_checksums),
        );
        assert_eq!(read, said, "{kit}");
        assert_eq!((file.major.get(), file.wal_segment_bytes), (kit.number(), 4 << 20));
        let limits = file.limits;
        let settings = server.sql(
            "select string_agg(current_setting(n), '|' order by n) from unnest(array['max_connections',
             'max_locks_per_transaction', 'max_prepared_transactions', 'max_wal_senders', 'max_worker_processes']) n",
        );
        let read = [
            limits.max_connections,
            limits.max_locks_per_transaction,
            limits.max_prepared_transactions,
            limits.max_wal_senders,
            limits.max_worker_processes,
        ];
        assert_eq!(read.map(|limit| limit.to_string()).join("|"), settings, "{kit}");
    }
}
