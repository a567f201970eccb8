//! `farshore check` against real servers and stores: every fault is found, named in the server's words, and mended by
//! what the finding says; what `init` prints is enough.
//!
//! Method: the real binary, clusters made for one fault each, and a relay where a server of an unknown major is needed.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::stores::Moto;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with a configuration of one database, `orders`.
struct Setup {
    folder: TempDir,
}

/// What one `check` said.
struct Checked {
    code: i32,
    items: Vec<Value>,
    output: Output,
}

impl Setup {
    fn new(url: &str) -> Self {
        Self::with(url, "", "url = \"file:journal\"")
    }

    fn with(url: &str, database: &str, store: &str) -> Self {
        let setup = Self { folder: tempfile::tempdir().unwrap() };
        // A store's directory is made by hand.
        std::fs::create_dir(setup.path().join("journal")).unwrap();
        setup.write(url, database, store);
        setup
    }

    fn write(&self, url: &str, database: &str, store: &str) {
        let text = format!(
            "[service]\nlisten = \"127.0.0.1:0\"\n[stores.main]\n{store}\n[databases.orders]\nengine = \"postgres\"\n\
             url = \"{url}\"\nstores = [\"main\"]\n{database}\n"
        );
        std::fs::write(self.folder.path().join("farshore.toml"), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
        command.args(line.split_whitespace()).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command
    }

    fn check(&self) -> Checked {
        Checked::of(self.command("check -o json").output().unwrap())
    }

    /// Ships until the journal holds a data chunk, and stops.
    fn ship(&self) {
        let log = std::fs::File::create(self.path().join("run.log")).unwrap();
        let mut command = self.command("run");
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut run = Owned::spawn(command, Signal::SIGINT);
        let shipped = wait_for(DEADLINE, || {
            let chunks = files(self.path()).iter().filter(|file| file.contains("/journal/")).count();
            (chunks >= 2).then_some(())
        });
        run.signal(Signal::SIGINT);
        run.wait(DEADLINE).expect("run ends when it is told to");
        let log = std::fs::read_to_string(self.path().join("run.log")).unwrap();
        assert!(shipped.is_some(), "nothing was shipped:\n{log}");
    }
}

impl Checked {
    fn of(output: Output) -> Self {
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(answer["schema"], "farshore.check/1");
        let items = answer["items"].as_array().unwrap().clone();
        let has = |level: &str| items.iter().any(|item| item["level"] == level);
        let expected = match (has("problem"), has("unknown")) {
            (true, _) => 8,
            (false, true) => 9,
            (false, false) => 0,
        };
        assert_eq!(output.status.code(), Some(expected), "{output:?}");
        let wrong = |item: &&Value| (item["level"] == "ok") != item["mend"].is_null();
        assert_eq!(items.iter().find(wrong), None, "whatever is not ok says how it is mended");
        Self { code: expected, items, output }
    }

    /// The findings of this code and level, what and mend in one text.
    fn texts(&self, code: &str, level: &str) -> Vec<String> {
        let of = self.items.iter().filter(|item| item["code"] == code && item["level"] == level);
        of.map(|item| format!("{} | {}", item["what"], item["mend"])).collect()
    }

    #[track_caller]
    fn has(&self, code: &str, level: &str, said: &str) {
        let texts = self.texts(code, level);
        assert!(texts.iter().any(|text| text.contains(said)), "no {level} {code} with {said:?}:\n{self}");
    }

    fn codes(&self, level: &str) -> BTreeSet<&str> {
        self.items
            .iter()
            .filter(|item| item["level"] == level)
            .filter_map(|item| item["code"].as_str())
            .collect()
    }
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for item in self.items.iter().filter(|item| item["level"] != "ok") {
            writeln!(f, "{item}")?;
        }
        write!(f, "{}", String::from_utf8_lossy(&self.output.stderr))
    }
}

/// Every file below a folder, as text.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.display().to_string());
            }
        }
    }
    found
}

fn as_superuser(server: &Server) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port())
}

/// A changed setting takes effect when the server has read its files again.
fn set(server: &Server, name: &str, value: &str) {
    server.sql(&format!("alter system set {name} = {value}"));
    server.reload();
    let wanted = value.trim_matches('\'');
    let set = wait_for(DEADLINE, || (server.sql(&format!("show {name}")) == wanted).then_some(()));
    assert!(set.is_some(), "{name} did not become {wanted}");
}

fn strings<'a>(of: &'a Value, name: &str) -> Vec<&'a str> {
    of[name].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

/// A cluster as `initdb` makes it, and nothing more done to it than what `init` prints.
fn prepared(major: Major, by_socket: bool) -> (Server, Setup) {
    let server = Server::builder(major).start();
    let setup = Setup { folder: tempfile::tempdir().unwrap() };
    std::fs::create_dir(setup.path().join("journal")).unwrap();
    let host = match by_socket {
        true => server.socket_dir().display().to_string().replace('/', "%2F"),
        false => "127.0.0.1".to_owned(),
    };
    let url = format!("postgresql://farshore@{host}:{}/postgres", server.port());
    std::fs::write(setup.path().join("password"), "a sécret\n").unwrap();
    let line = format!(
        "init --no-input --name orders --url {url} --store file:journal --on-full hold --password-file password -o json"
    );
    let output = setup.command(&line).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let sql = [strings(&printed, "sql"), strings(&printed, "optional_sql")].concat();
    server.sql(&sql.join("\n"));
    server.sql("alter role farshore password 'a sécret'");
    // Below it what a distribution brings, which would refuse the role.
    let hba = format!(
        "{}\nlocal all postgres trust\nlocal all all peer\nlocal replication all peer\n",
        strings(&printed, "pg_hba").join("\n")
    );
    std::fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    for setting in printed["settings"].as_array().unwrap() {
        let (name, value) = (setting["name"].as_str().unwrap(), setting["value"].as_str().unwrap());
        if name != "idle_replication_slot_timeout" || major >= Major::V18 {
            server.sql(&format!("alter system set {name} = '{value}'"));
        }
    }
    server.restart();
    (server, setup)
}

#[test]
fn what_init_prints_leaves_no_problem_and_nothing_unknown_on_every_major() {
    for (at, major) in Major::all().into_iter().enumerate() {
        let (server, setup) = prepared(major, at % 2 == 0);
        let checked = Checked::of(setup.command("check -o json").env("PATH", major.bin()).output().unwrap());
        assert_eq!(checked.code, 0, "PostgreSQL {major}:\n{checked}");
        let mut expected = BTreeSet::from(["keys.encryption", "slots.state"]);
        expected.extend(same_disk(&server, setup.path()).then_some("store.apart"));
        assert_eq!(checked.codes("warning"), expected, "PostgreSQL {major}:\n{checked}");
        assert_eq!(server.sql("select count(*) from pg_replication_slots"), "0", "check makes no slot");
        assert!(!setup.path().join("journal/farshore.store").exists(), "check founds no store");
        // A directory that is not there is a mount that may be away: nobody makes it by himself.
        std::fs::remove_dir_all(setup.path().join("journal")).unwrap();
        setup.check().has("store.reachable", "problem", "is its file system mounted?");
        assert!(!setup.path().join("journal").exists(), "check makes no directory");
    }
}

#[test]
fn every_right_and_line_that_init_prints_is_missed_when_it_is_taken_away() {
    let (server, setup) = prepared(Major::V15, false);
    let cases = [
        (
            "alter role farshore noreplication",
            "alter role farshore replication",
            "connection.replication",
            "42501",
        ),
        ("alter role farshore noreplication", "alter role farshore replication", "role.replication", "lacks"),
        ("revoke pg_monitor from farshore", "grant pg_monitor to farshore", "role.settings", "pg_monitor"),
        ("alter role farshore nologin", "alter role farshore login", "connection.sql", "28000"),
        (
            "alter role farshore password 'other'",
            "alter role farshore password 'a sécret'",
            "connection.sql",
            "28P01",
        ),
    ];
    for (take, give, code, said) in cases {
        server.sql(take);
        let checked = setup.check();
        assert_eq!(checked.code, 8, "{take}");
        checked.has(code, "problem", said);
        server.sql(give);
        assert_eq!(setup.check().code, 0, "{give}");
    }
    server.sql("revoke execute on function pg_create_restore_point(text) from farshore");
    setup.check().has("role.points", "warning", "grant execute on function pg_create_restore_point");

    // A line for `all` is what people have, and it does not cover replication.
    let hba = server.data_dir().join("pg_hba.conf");
    std::fs::write(&hba, "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    server.restart();
    let checked = setup.check();
    checked.has("connection.sql", "ok", "");
    checked.has("connection.replication", "problem", "28000");
    checked.has("connection.replication", "problem", "`all` does not cover it");
    std::fs::write(&hba, "local all postgres trust\nhost replication all 127.0.0.1/32 scram-sha-256\n")
        .unwrap();
    server.restart();
    let checked = setup.check();
    checked.has("connection.sql", "problem", "28000");
    checked.has("connection.replication", "ok", "");
    checked.has("role.rights", "unknown", "");
    checked.has("server.settings", "unknown", "");
}

#[test]
fn a_server_that_is_away_is_a_problem_and_everything_behind_it_unknown() {
    let server = Server::start_new(Major::V15);
    let setup = Setup::new(&as_superuser(&server));
    server.stop(farshore_testkit::pg::Mode::Fast);
    let checked = setup.check();
    assert_eq!(checked.code, 8);
    checked.has("connection.sql", "problem", "listen_addresses");
    checked.has("connection.replication", "problem", "no connection to 127.0.0.1");
    for code in
        ["server.version", "server.primary", "server.settings", "role.rights", "slots.state", "server.clock"]
    {
        checked.has(code, "unknown", "");
    }
}

#[test]
fn settings_that_break_a_promise_are_problems() {
    let server = Server::builder(Major::V18).conf("fsync = off").conf("full_page_writes = off").start();
    let setup = Setup::new(&as_superuser(&server));
    // Names it last, for with it no commit of this test's own would end.
    set(&server, "idle_replication_slot_timeout", "'1min'");
    set(&server, "max_slot_wal_keep_size", "'64MB'");
    set(&server, "synchronous_commit", "remote_apply");
    set(&server, "synchronous_standby_names", "'farshore'");
    let checked = setup.check();
    assert_eq!(checked.code, 8);
    checked.has("settings.fsync", "problem", "alter system set fsync = on");
    checked.has("settings.full_page_writes", "problem", "alter system set full_page_writes = on");
    checked.has("settings.synchronous_commit", "problem", "remote_apply");
    checked.has("settings.max_slot_wal_keep_size", "problem", "64 MiB");
    checked.has("settings.idle_replication_slot_timeout", "warning", "60 s");
    checked.has("role.superuser", "warning", "nosuperuser");
}

#[test]
fn a_server_without_any_room_for_a_standby_is_told_what_to_raise() {
    let server = Server::builder(Major::V14)
        .conf("wal_level = minimal")
        .conf("max_wal_senders = 0")
        .conf("max_replication_slots = 1")
        .checksums(false)
        .start();
    let checked = Setup::new(&as_superuser(&server)).check();
    assert_eq!(checked.code, 8);
    checked.has("settings.wal_level", "problem", "alter system set wal_level = 'replica'");
    checked.has("settings.max_wal_senders", "problem", "max_wal_senders is 0");
    checked.has("settings.max_replication_slots", "problem", "max_replication_slots is 1");
    checked.has("settings.slots_in_use", "problem", "0 of 1");
    checked.has("connection.replication", "problem", "max_wal_senders = 10");
    checked.has("settings.data_checksums", "warning", "pg_checksums");
}

#[test]
fn a_lost_slot_is_a_problem_and_a_missing_one_a_warning() {
    let server = Server::builder(Major::V16)
        .wal_segment_size(1)
        .conf("max_slot_wal_keep_size = 1MB")
        .conf("min_wal_size = 2MB")
        .conf("max_wal_size = 2MB")
        .start();
    server.sql("select pg_create_physical_replication_slot('farshore_orders_keep', true)");
    for _ in 0..8 {
        server.sql("create table t (); drop table t; select pg_switch_wal()");
    }
    server.sql("checkpoint");
    assert_eq!(server.sql("select wal_status from pg_replication_slots"), "lost");
    let checked = Setup::new(&as_superuser(&server)).check();
    assert_eq!(checked.code, 8);
    checked.has("slots.state", "problem", "farshore_orders_keep is lost");
    checked.has("slots.state", "warning", "farshore_orders_live_main is not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_of_a_url_is_asked_and_must_be_the_same_cluster() {
    let primary = Server::start_new(Major::V15);
    let standby = Server::standby_of(&primary).await;
    let stranger = Server::start_new(Major::V15);
    let url = |second: &Server| {
        format!("postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", second.port(), primary.port())
    };
    let setup = Setup::new(&url(&standby));
    let checked = setup.check();
    assert_eq!(checked.code, 0, "{checked}");
    checked.has("server.primary", "ok", "");
    checked.has("connection.cluster", "ok", "");
    assert_eq!(checked.texts("connection.replication", "ok").len(), 2);

    setup.write(&url(&stranger), "", "url = \"file:journal\"");
    setup.check().has("connection.cluster", "problem", "different clusters");

    setup.write(&as_superuser(&standby), "", "url = \"file:journal\"");
    setup.check().has("server.primary", "problem", "standby");

    let port = stranger.port();
    drop(stranger);
    let gone = format!("postgresql://postgres@127.0.0.1:{},127.0.0.1:{port}/postgres", primary.port());
    setup.write(&gone, "", "url = \"file:journal\"");
    let checked = setup.check();
    checked.has("connection.sql", "problem", &format!("127.0.0.1:{port}"));
    checked.has("server.primary", "ok", "");
    checked.has("connection.cluster", "unknown", "");
}

#[test]
fn a_major_that_is_not_supported_is_named_and_so_are_programs_of_another_one() {
    let server = Server::start_new(Major::V15);
    for (shown, major) in [("13", 13), ("19", 19)] {
        let port = relay_with_version(server.port(), shown);
        let setup = Setup::new(&format!("postgresql://postgres@127.0.0.1:{port}/postgres"));
        let checked = setup.check();
        assert_eq!(checked.code, 8);
        checked.has("server.version", "problem", &format!("PostgreSQL {major}"));
        checked.has("connection.sql", "problem", "supported are the majors 14, 15, 16, 17 and 18");
    }
    let bin = |major: Major| format!("bin_dir = \"{}\"", major.bin().display());
    let setup = Setup::with(&as_superuser(&server), &bin(Major::V18), "url = \"file:journal\"");
    setup.check().has("restore.programs", "warning", "bin_dir");
    setup.write(&as_superuser(&server), &bin(Major::V15), "url = \"file:journal\"");
    setup.check().has("restore.programs", "ok", "");
}

/// A port at which the server at `port` answers, but calls itself a version of another major, of two digits as well.
fn relay_with_version(port: u16, major: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || carry(from_client, to_server, None));
            thread::spawn(move || carry(server, client, Some(major)));
        }
    });
    at
}

fn carry(mut from: TcpStream, mut to: TcpStream, major: Option<&str>) {
    const NAME: &[u8] = b"server_version\0";
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..read];
        if let Some(major) = major
            && let Some(at) = bytes.windows(NAME.len()).position(|window| window == NAME)
        {
            bytes[at + NAME.len()..][..2].copy_from_slice(major.as_bytes());
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _gone_already = to.shutdown(std::net::Shutdown::Write);
}

/// An age key pair as `init --encrypt` makes it: the public key, and the file of the private one.
fn key_pair(folder: &Path, name: &str) -> (String, PathBuf) {
    let config = folder.join(format!("{name}.toml"));
    let identity = folder.join(format!("{name}.txt"));
    let output = Command::new(env!("CARGO_BIN_EXE_farshore"))
        .args(["init", "--no-input", "--url", "postgresql://farshore@db1/postgres", "--store", "file:x"])
        .args(["--on-full", "hold", "--encrypt", "-c"])
        .arg(&config)
        .arg("--identity-out")
        .arg(&identity)
        .arg("--signing-key-out")
        .arg(folder.join(format!("{name}.pem")))
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&identity).unwrap();
    let public = text.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
    (public, identity)
}

#[test]
fn a_journal_that_was_shipped_is_proved_to_open_and_check_leaves_nothing_behind() {
    let server = Server::start_new(Major::V18);
    let keys = tempfile::tempdir().unwrap();
    let (public, identity) = key_pair(keys.path(), "right");
    let (_, other) = key_pair(keys.path(), "wrong");
    let store = |lines: &str| format!("url = \"file:journal\"\nrecipients = [\"{public}\"]\n{lines}");
    let url = as_superuser(&server);
    let setup = Setup::with(&url, "", &store(""));
    setup.ship();
    let before = files(&setup.path().join("journal"));

    let checked = setup.check();
    assert_eq!(checked.code, 0, "{checked}");
    for code in [
        "store.writable",
        "store.creates_once",
        "store.journal",
        "store.space",
        "slots.state",
        "space.pg_wal",
    ] {
        checked.has(code, "ok", "");
    }
    checked.has("store.apart", if same_disk(&server, setup.path()) { "warning" } else { "ok" }, "");
    checked.has("keys.opens", "warning", "identity_file");

    setup.write(&url, "", &store(&format!("identity_file = \"{}\"", identity.display())));
    let checked = setup.check();
    assert_eq!(checked.code, 0, "{checked}");
    checked.has("keys.opens", "ok", "opens the newest generation");
    checked.has("keys.identity", "ok", "");
    checked.has("keys.apart", "warning", "lies on this machine");

    setup.write(&url, "", &store(&format!("identity_file = \"{}\"", other.display())));
    let checked = setup.check();
    assert_eq!(checked.code, 8);
    checked.has("keys.opens", "problem", "could not be restored");
    checked.has("keys.identity", "problem", "recipients");

    setup.write(
        &url,
        "",
        "url = \"file:journal\"\nrecipients = [\"age1nonsense\"]\nidentity_file = \"missing\"",
    );
    let checked = setup.check();
    // The text itself is not repeated: a private key may stand there by mistake.
    checked.has("keys.encryption", "problem", "not an age public key");
    checked.has("keys.identity", "problem", "missing");

    let stranger = Server::start_new(Major::V18);
    setup.write(&as_superuser(&stranger), "", &store(""));
    setup.check().has("store.journal", "warning", "will begin a new incarnation");
    assert_eq!(files(&setup.path().join("journal")), before, "check left something in the store");
}

fn same_disk(server: &Server, folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    server.data_dir().metadata().unwrap().dev() == folder.metadata().unwrap().dev()
}

#[test]
fn a_new_bucket_is_raced_and_left_empty_and_one_that_is_not_there_is_a_problem() {
    let server = Server::start_new(Major::V17);
    let moto = Moto::start();
    let store = |bucket: &str| {
        format!(
            "url = \"s3://{bucket}/farshore\"\nendpoint = \"{}\"\nregion = \"{}\"\naccess_key_id = \"{}\"\n\
             secret_access_key_file = \"secret\"",
            moto.endpoint(),
            moto.region(),
            moto.access_key(),
        )
    };
    let setup = Setup::with(&as_superuser(&server), "", &store(moto.bucket()));
    std::fs::write(setup.path().join("secret"), moto.secret_key()).unwrap();
    for _ in 0..2 {
        let checked = setup.check();
        assert_eq!(checked.code, 0, "{checked}");
        checked.has("store.reachable", "ok", "founds it");
        checked.has("store.creates_once", "ok", "");
        checked.has("store.clock", "ok", "");
    }
    setup.write(&as_superuser(&server), "", &store("not-there"));
    let checked = setup.check();
    assert_eq!(checked.code, 8);
    checked.has("store.reachable", "problem", "does not answer, or refuses");
    checked.has("store.creates_once", "unknown", "");
}
