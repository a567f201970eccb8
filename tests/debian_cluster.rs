//! A cluster as Debian makes it comes back beside its running primary, and the copy touches nothing of it.
//!
//! Such a cluster keeps its configuration outside of the data directory, includes `conf.d`, logs and listens elsewhere; here
//! it also has a raised limit, a tablespace, an archive and a synchronous standby that a copy must not wait for.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what was counted is read in the output

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use farshore_testkit::pg::Major;
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use nix::sys::signal::Signal;
use support::{SOON, Service, numbers, text};
use tempfile::TempDir;

/// What the archive command of the primary writes, a line a file: its server's data directory and the file's name.
const ARCHIVED: &str = "archived";
const INSERT: &str = "insert into ledger values (pg_current_xact_id()::text::bigint) returning xid";
const LEDGER: &str = "select xid from ledger";

/// A cluster made by `pg_createcluster`, below a folder instead of `/etc` and `/var/lib`, and run as Debian runs it:
/// the data directory by `-D`, the configuration by `config_file`.
struct Cluster {
    postmaster: Owned,
    folder: TempDir,
    port: u16,
}

impl Cluster {
    fn start(settings: &str) -> Self {
        let folder = user::tempdir();
        let home = folder.path().to_owned();
        // Free when asked; PostgreSQL says so if it no longer is.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut create = Command::new("pg_createcluster");
        create.env("PG_CLUSTER_CONF_ROOT", home.join("etc"));
        create.arg("-d").arg(home.join("lib")).arg("-s").arg(home.join("s")).arg("-l").arg(home.join("log"));
        create.args([
            "-p",
            &port.to_string(),
            "--start-conf",
            "manual",
            "15",
            "farshore",
            "--",
            "--auth=trust",
        ]);
        for made in ["etc", "s", "tablespace", "archive"] {
            std::fs::create_dir(home.join(made)).unwrap();
        }
        user::give(&home);
        let made = user::run_as(create).output().expect("pg_createcluster (run tests/install)");
        assert!(made.status.success(), "pg_createcluster: {}{}", text(&made.stdout), text(&made.stderr));
        let etc = home.join("etc/15/farshore");
        std::fs::write(etc.join("conf.d/story.conf"), settings.replace("HOME", home.to_str().unwrap()))
            .unwrap();
        user::give(&home);
        let log = std::fs::File::create(home.join("log")).unwrap();
        let mut command = Command::new(Major::V15.bin().join("postgres"));
        command.arg("-D").arg(home.join("lib")).arg("-c");
        command.arg(format!("config_file={}", etc.join("postgresql.conf").display()));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let postmaster = Owned::spawn(user::run_as(command), Signal::SIGQUIT);
        let cluster = Self { postmaster, folder, port };
        let up = wait_for(SOON, || cluster.try_sql("select 1").ok());
        assert!(up.is_some(), "{}", std::fs::read_to_string(home.join("log")).unwrap());
        cluster
    }

    fn home(&self) -> &Path {
        self.folder.path()
    }

    fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn try_sql(&self, statement: &str) -> Result<String, String> {
        let mut psql = Command::new(Major::clients().join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", statement]);
        let done = psql.output().unwrap();
        if done.status.success() {
            Ok(text(&done.stdout).trim_end().to_owned())
        } else {
            Err(text(&done.stderr))
        }
    }

    #[track_caller]
    fn sql(&self, statement: &str) -> String {
        self.try_sql(statement).unwrap_or_else(|why| panic!("{statement:?}: {why}"))
    }

    fn archived(&self) -> Vec<String> {
        let lines = std::fs::read_to_string(self.home().join(ARCHIVED)).unwrap_or_default();
        lines.lines().map(str::to_owned).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.postmaster.signal(Signal::SIGQUIT);
        let _killed_by_drop_otherwise = self.postmaster.wait(SOON);
    }
}

/// Every file below a place, with its length and time of change.
fn files(place: &Path) -> BTreeSet<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(place).unwrap() {
        let (path, meta) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        if meta.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert((path, meta.len(), meta.modified().unwrap()));
        }
    }
    found
}

#[test]
fn copy_of_a_debian_cluster_runs_beside_its_primary_and_touches_nothing_of_it() {
    let cluster = Cluster::start(
        "wal_level = replica\nmax_connections = 500\nmax_prepared_transactions = 7\nshared_buffers = 16MB\n\
         archive_mode = on\narchive_command = 'pwd >> HOME/archived && cp %p HOME/archive/%f'\n\
         synchronous_standby_names = 'nobody'\nsynchronous_commit = local\n\
         restore_command = 'cp HOME/archive/%f %p'\n",
    );
    let tablespace = cluster.home().join("tablespace");
    cluster.sql(&format!("create tablespace fast location '{}'", tablespace.display()));
    cluster.sql("create table ledger (xid bigint primary key)");
    cluster.sql("create table elsewhere (a int) tablespace fast");
    cluster.sql("insert into elsewhere select generate_series(1, 1000)");
    let mut service = Service::new(&cluster.url(), Major::V15);
    service.start();
    service.wait_base();
    cluster.sql(INSERT);
    cluster.sql("insert into elsewhere values (-1)");
    let target = cluster.sql(INSERT);
    let then = cluster.sql(LEDGER);
    cluster.sql("truncate elsewhere");
    cluster.sql(INSERT);
    cluster.sql("select pg_switch_wal()");
    let end = cluster.sql("select pg_current_wal_flush_lsn()");
    service.wait_stored(&end);
    let archived =
        wait_for(SOON, || (!cluster.archived().is_empty()).then(|| cluster.archived())).expect("an archive");
    assert!(!archived.is_empty());

    // Nothing else is at work on the primary while the copy is made and used, so nothing of it may change.
    service.stop();
    cluster.sql("checkpoint");
    let slots = "select slot_name, restart_lsn, active from pg_replication_slots order by 1";
    let (slots_before, state_before) =
        (cluster.sql(slots), cluster.sql("select pg_current_wal_insert_lsn()"));
    let settle = "select last_archived_wal, archived_count from pg_stat_archiver";
    let archiver_before = cluster.sql(settle);
    let (store_before, archive_before) = (files(&service.store()), files(&cluster.home().join("archive")));
    let (tablespace_before, archived_before) = (files(&tablespace), cluster.archived());
    let etc_before = files(&cluster.home().join("etc"));

    let plan = service.plan(&["--xid", &target]);
    let oid = plan["tablespaces"][0]["oid"].to_string();
    assert_eq!(plan["tablespaces"][0]["location"], tablespace.to_str().unwrap());
    let moved = user::tempdir();
    let place = moved.path().join("fast");
    let mapping = format!("{oid}={}", place.display());
    let copy = service.restore(&["--xid", &target], &["--tablespace", &mapping, "--then", "promote"]);
    assert!(copy.numbers(LEDGER) == numbers(&then));
    assert_eq!(copy.sql("select count(*), min(a) from elsewhere"), "1001|-1");
    assert_eq!(copy.sql(&format!("select pg_tablespace_location({oid})")), place.to_str().unwrap());
    for (setting, wanted) in
        [("max_connections", "500"), ("max_prepared_transactions", "7"), ("listen_addresses", "")]
    {
        assert_eq!(copy.sql(&format!("show {setting}")), wanted, "{setting}");
    }
    for setting in ["archive_command", "synchronous_standby_names", "primary_conninfo"] {
        let shown = copy.sql(&format!("show {setting}"));
        assert!(shown.is_empty() || shown == "(disabled)", "{setting} = {shown}");
    }
    assert_eq!(copy.sql("select count(*) from pg_replication_slots"), "0");
    // It writes, switches segments and checkpoints: what it would archive or ship, it would do now.
    copy.sql("insert into elsewhere select generate_series(1, 5000)");
    copy.sql("insert into ledger values (0)");
    for _ in 0..3 {
        copy.sql("select pg_switch_wal()");
        copy.sql("create table if not exists written (a int)");
        copy.sql("insert into written values (1)");
    }
    copy.sql("checkpoint");
    assert_ne!(files(&place), BTreeSet::new());

    assert_eq!(cluster.archived(), archived_before);
    let lib = cluster.home().join("lib").canonicalize().unwrap();
    assert!(cluster.archived().iter().all(|writer| Path::new(writer) == lib), "{:?}", cluster.archived());
    assert_eq!(files(&cluster.home().join("archive")), archive_before);
    assert_eq!(files(&cluster.home().join("etc")), etc_before);
    assert_eq!(files(&service.store()), store_before, "the copy wrote to the store");
    assert_eq!(files(&tablespace), tablespace_before, "the copy wrote to the primary's tablespace");
    assert_eq!(cluster.sql(slots), slots_before);
    assert_eq!(cluster.sql(settle), archiver_before);
    let moved_on =
        cluster.sql(&format!("select pg_current_wal_insert_lsn() - '{state_before}'::pg_lsn < 1000000"));
    assert_eq!(moved_on, "t");
    assert_eq!(cluster.sql("select count(*) from elsewhere"), "0");
    service.verify();
    drop(copy);

    // A tablespace that the log makes would be made again at the primary's own place: refused before a byte is written.
    service.start();
    let live = cluster.home().join("live");
    std::fs::create_dir(&live).unwrap();
    user::give(&live);
    let before = cluster.sql(INSERT);
    cluster.sql(&format!("create tablespace live location '{}'", live.display()));
    cluster.sql("create table precious (a int) tablespace live");
    cluster.sql("insert into precious select generate_series(1, 1000)");
    let behind = cluster.sql(INSERT);
    cluster.sql("checkpoint");
    service.wait_has(&behind);
    let (folder, files_before) = (user::tempdir(), files(&live));
    let to = folder.path().join("d");
    let done = service.ask(&["restore", "db", "--xid", &behind, "--to", to.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(4), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains(live.to_str().unwrap()), "{}", text(&done.stderr));
    assert!(!to.exists());
    // Just before it nothing is in the way.
    drop(service.restore(&["--xid", &before], &[]));
    // From a backup that has it, it is one of the tablespaces that get a place of their own.
    service.json(&["backup", "run", "db"]);
    let newest = cluster.sql(INSERT);
    service.wait_has(&newest);
    let copy = service.restore(&["--xid", &newest], &[]);
    assert_eq!(copy.sql("select count(*) from precious"), "1000");
    drop(copy);
    assert_eq!(files(&live), files_before);
    assert_eq!(cluster.sql("select count(*) from precious"), "1000");
}
