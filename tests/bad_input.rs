//! The promise: whatever is wrong with what farshore is given, it says what happened, what is safe and what to do; nothing is
//! lost and nothing is half-written.
//!
//! Method: the binary, run as an operator runs it, against real servers and stores with one thing wrong each. A message is taken
//! apart into its code and its three parts; what lies on disk is looked at, not asked for.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message
#![allow(clippy::print_stdout)] // what could not be checked is said

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use age::secrecy::ExposeSecret;
use farshore_journal::backup::{Backup, BackupOptions, BackupWriter, Manifest};
use farshore_journal::format::object::Compression;
use farshore_journal::format::{Recipients, Unlock};
use farshore_journal::reader::Reader;
use farshore_journal::registry::Repository;
use farshore_journal::store::{self, StoreError, StoreOptions};
use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::wait_for;
use farshore_testkit::small_disk::SmallDisk;
use farshore_testkit::user;
use support::{SOON, Service, offset, text};

/// A message to an operator, taken apart.
#[derive(Debug)]
struct Said {
    exit: i32,
    code: String,
    happened: String,
    safe: String,
    next: String,
}

impl Said {
    /// The one message that a failed command ends with.
    #[track_caller]
    fn by(done: &Output) -> Self {
        let said = text(&done.stderr);
        let exit = done.status.code().unwrap_or_else(|| panic!("ended by a signal: {said}"));
        assert_ne!(exit, 0, "it ended well: {}{said}", text(&done.stdout));
        assert_eq!(text(&done.stdout), "", "a failure prints no answer");
        let at = said.rfind("FS-").unwrap_or_else(|| panic!("no code: {said}"));
        let (code, rest) = said[at..].split_once("\n  Happened: ").unwrap_or_else(|| panic!("{said}"));
        let (happened, rest) = rest.split_once("\n  Safe:     ").unwrap_or_else(|| panic!("{said}"));
        let (safe, next) = rest.split_once("\n  Do:       ").unwrap_or_else(|| panic!("{said}"));
        let own = |part: &str| part.trim().to_owned();
        Self { exit, code: code.to_owned(), happened: own(happened), safe: own(safe), next: own(next) }
    }

    /// Holds it to a code, an exit code and words of each part.
    #[track_caller]
    fn is(&self, code: &str, exit: i32, happened: &[&str], safe: &str, next: &str) {
        assert_eq!((self.code.as_str(), self.exit), (code, exit), "{self:#?}");
        for word in happened {
            assert!(self.happened.contains(word), "{word:?} is not in what happened: {self:#?}");
        }
        assert!(self.safe.contains(safe), "{safe:?} is not in what is safe: {self:#?}");
        assert!(self.next.contains(next), "{next:?} is not in what to do: {self:#?}");
    }
}

/// Every path below a folder with its bytes: nothing may have come, gone or changed.
fn picture(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(picture(&path));
        } else if path.is_file() {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    all
}

/// Replaces a text in the service's configuration.
fn reconfigure(service: &Service, from: &str, to: &str) {
    let path = service.home().join("farshore.toml");
    let now = std::fs::read_to_string(&path).unwrap();
    assert!(now.contains(from), "{from:?} is not in {now}");
    std::fs::write(path, now.replace(from, to)).unwrap();
}

fn chunks(service: &Service) -> usize {
    picture(&service.store()).keys().filter(|path| path.to_str().unwrap().contains("/journal/")).count()
}

/// Waits until the service said it.
#[track_caller]
fn wait_said(service: &Service, words: &str) {
    let said = wait_for(SOON, || service.log().contains(words).then_some(()));
    assert!(said.is_some(), "never said {words:?}:\n{}", service.log());
}

#[track_caller]
fn sound(service: &Service) {
    let verified = service.verify();
    for shown in verified["items"].as_array().unwrap() {
        assert!(shown["sound"] == true && shown["gaps"].as_array().unwrap().is_empty(), "{verified}");
    }
}

#[test]
fn an_unknown_key_is_shown_with_its_line_and_nothing_is_begun() {
    let service = Service::new("postgresql://postgres@127.0.0.1:1/postgres", Major::V15);
    reconfigure(&service, "[databases.db]\n", "[databases.db]\nflush_intervall = \"1s\"\n");
    let before = picture(service.home());
    for command in [&["run"][..], &["check"], &["restore", "db", "--latest", "--to", "/nowhere"]] {
        let said = Said::by(&service.ask(command));
        said.is(
            "FS-0102",
            2,
            &["flush_intervall", "farshore.toml:", "^"],
            "nothing was begun",
            "correct that line",
        );
    }
    assert_eq!(picture(service.home()), before);
}

#[test]
fn a_wrong_password_is_said_in_the_servers_words_and_shipping_begins_once_it_is_right() {
    let server = Server::builder(Major::V15).scram("shipper", "right").start();
    server.sql("grant pg_monitor to shipper");
    server.sql("grant execute on function pg_create_restore_point(text) to shipper");
    let url = format!("postgresql://shipper@127.0.0.1:{}/postgres", server.port());
    let mut service = Service::new(&url, Major::V15);
    let password = service.home().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    user::give(&password);
    reconfigure(&service, "[databases.db]\n", "[databases.db]\npassword_file = \"password\"\n");

    let checked = service.ask(&["check", "db"]);
    assert_eq!(checked.status.code(), Some(8), "{checked:?}");
    assert!(text(&checked.stdout).contains("28P01"), "{checked:?}");
    Said::by(&service.ask(&["points", "mark", "db", "here"])).is(
        "FS-0409",
        1,
        &["28P01", "here"],
        "nothing was written",
        "farshore check",
    );
    service.start();
    wait_said(&service, "28P01");
    service.stop();
    assert!(!service.log().contains("wrong"), "a password is never printed: {}", service.log());
    assert_eq!(chunks(&service), 0, "nothing was shipped");

    std::fs::write(&password, "right\n").unwrap();
    service.start();
    service.wait_base();
    std::fs::write(&password, "wrong\n").unwrap();
    Said::by(&service.ask(&["backup", "run", "db"])).is(
        "FS-0404",
        1,
        &["28P01"],
        "older ones stay",
        "farshore backup run db",
    );
    // What runs has its password and ships on.
    server.sql("create table t as select 1 as one");
    service.wait_stored(&server.sql("select pg_current_wal_flush_lsn()"));
    service.stop();
    sound(&service);
    std::fs::remove_file(&password).unwrap();
    Said::by(&service.ask(&["run"])).is("FS-0104", 2, &["password"], "nothing was begun", "readable");
}

#[test]
fn a_missing_slot_is_a_warning_and_is_made_again_without_a_gap_while_the_log_is_there() {
    let server = Server::builder(Major::V15).conf("wal_keep_size = '1GB'").start();
    let mut service = Service::with_base(&server);
    let slots = || server.sql("select count(*) from pg_replication_slots");
    assert!(
        wait_for(SOON, || (slots() == "2").then_some(())).is_some(),
        "{} slots\n{}",
        slots(),
        service.log()
    );
    service.stop();
    let warned = |words: &str| {
        let checked = service.ask(&["check", "db", "-o", "json"]);
        let answer: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
        let items = answer["items"].as_array().unwrap();
        let slots = items.iter().find(|item| item["code"] == "slots.state" && item["level"] == "warning");
        let slots = slots.unwrap_or_else(|| panic!("no warning: {answer}"));
        assert!(slots["what"].as_str().unwrap().contains(words), "{slots}");
        assert!(slots["mend"].as_str().unwrap().contains("farshore run"), "{slots}");
    };
    server.sql("select pg_drop_replication_slot('farshore_db_keep')");
    warned("farshore_db_keep");
    server.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots");
    warned("no slots");
    server.sql("create table t as select generate_series(1, 50000) as n; select pg_switch_wal(); checkpoint");
    service.start();
    service.wait_stored(&server.sql("select pg_current_wal_flush_lsn()"));
    let made = wait_for(SOON, || {
        let made = server.sql("select count(*) from pg_replication_slots where wal_status = 'reserved'");
        (made == "2").then_some(())
    });
    assert!(made.is_some(), "{}\n{}", server.sql("select * from pg_replication_slots"), service.log());
    service.stop();
    sound(&service);
    assert_eq!(service.restore(&["--latest"], &[]).sql("select count(*) from t"), "50000");
}

#[test]
fn programs_of_another_major_are_refused_before_a_byte_is_written() {
    let server = Server::start_new(Major::V15);
    let mut service = Service::with_base(&server);
    service.stop();
    let (right, wrong) = (Major::V15.bin(), Major::V16.bin());
    reconfigure(&service, right.to_str().unwrap(), wrong.to_str().unwrap());
    let to = service.home().join("copy");
    let line = ["restore", "db", "--latest", "--start", "--port", "5432", "--to", to.to_str().unwrap()];
    Said::by(&service.ask(&line)).is(
        "FS-0503",
        1,
        &["is not the program folder of PostgreSQL 15", "PostgreSQL) 16"],
        "nothing was written",
        "restore into an empty directory",
    );
    assert!(!to.exists());
    let checked = service.ask(&["check", "db"]);
    assert!(text(&checked.stdout).contains("restore.programs"), "{checked:?}");
}

#[test]
fn a_full_disk_stops_no_commit_and_loses_nothing_and_is_said_until_there_is_room() {
    let server = Server::start_new(Major::V15);
    let mut service = Service::new(&server.url(), Major::V15);
    let Some(disk) = SmallDisk::at(service.store(), 24) else {
        println!("NOT CHECKED: a full disk: no small file system can be mounted without root");
        return;
    };
    service.start();
    service.wait_base();
    // Bytes that no compression makes smaller.
    let noise = "insert into noise select string_agg(sha512(random()::text::bytea), '') from generate_series(1, 16000)";
    server.sql("create table noise (bytes bytea); alter table noise alter bytes set storage external");
    let full = wait_for(SOON, || {
        server.sql(noise);
        // A segment may be refused while a chunk still finds room: what counts is what the status says of shipping.
        let status = service.json(&["status", "db"]);
        let said = service.log().contains("no space left in the store for");
        (said && status["items"][0]["state"] != "connected").then_some(())
    });
    assert!(full.is_some(), "the disk did not fill:\n{}", service.log());
    // Commits go on, and what is called stored is there.
    server.sql(noise);
    let end = server.sql("select pg_current_wal_flush_lsn()");
    let status = service.json(&["status", "db"]);
    let stored = status["items"][0]["stored"].as_str().unwrap_or_else(|| panic!("{status}")).to_owned();
    assert!(offset(&stored) < offset(&end), "{status}");
    assert_ne!(status["items"][0]["state"], "connected", "{status}");
    sound(&service);
    disk.enlarge(400);
    service.wait_stored(&end);
    service.stop();
    sound(&service);
    let rows = server.sql("select count(*), md5(string_agg(md5(bytes), '' order by md5(bytes))) from noise");

    // The same at the other end: a restore into a place that is too small, and then into one that is not.
    let place = service.home().join("small");
    let small = SmallDisk::at(place.clone(), 8).unwrap();
    let to = place.join("copy");
    Said::by(&service.ask(&["restore", "db", "--latest", "--to", to.to_str().unwrap()])).is(
        "FS-0503",
        1,
        &["No space left on device"],
        "marked as interrupted and will not start",
        "empty directory",
    );
    assert!(!to.join("global/pg_control").exists());
    small.enlarge(400);
    let said = Said::by(&service.ask(&["restore", "db", "--latest", "--to", to.to_str().unwrap()]));
    said.is("FS-0503", 1, &["interrupted restore"], "nothing was written", "empty directory");
    let copy = service.restore(&["--latest"], &[]);
    assert_eq!(
        copy.sql("select count(*), md5(string_agg(md5(bytes), '' order by md5(bytes))) from noise"),
        rows
    );
}

#[test]
fn a_store_of_another_database_is_said_and_neither_ones_journal_is_touched() {
    let (server, other) = (Server::start_new(Major::V15), Server::start_new(Major::V15));
    server.sql("create table mine as select 1 as one");
    let mut service = Service::with_base(&server);
    server.sql("create table late as select 1 as one");
    service.wait_stored(&server.sql("select pg_current_wal_flush_lsn()"));
    service.stop();
    let before = picture(&service.store());
    // Another name: nothing of it is here.
    reconfigure(&service, "[databases.db]", "[databases.billing]");
    for command in [&["verify", "billing"][..], &["restore", "billing", "--latest", "--to", "/nowhere"]] {
        let said = Said::by(&service.ask(command));
        assert_eq!((said.code.as_str(), said.exit), ("FS-0406", 3), "{said:#?}");
        assert!(said.happened.contains("billing"), "{said:#?}");
    }
    // The same name, another cluster.
    reconfigure(&service, "[databases.billing]", "[databases.db]");
    reconfigure(&service, &server.url(), &other.url());
    let checked = service.ask(&["check", "db"]);
    let said = text(&checked.stdout);
    let line = said.lines().find(|line| line.contains("store.journal")).unwrap_or_else(|| panic!("{said}"));
    // After initdb or pg_upgrade it is as it should be: no problem, but said.
    for word in ["warning", "is of cluster", "new incarnation", "correct url"] {
        assert!(line.contains(word), "{word:?} is missing: {line}");
    }
    assert_eq!(picture(&service.store()), before, "looking changes nothing");
    // If it is shipped all the same, it gets a journal of its own beside the first one.
    service.start();
    wait_said(&service, "a new incarnation begins");
    service.wait_complete("db", 2);
    service.stop();
    let after = picture(&service.store());
    for (path, bytes) in &before {
        assert!(after.get(path) == Some(bytes), "{} was changed", path.display());
    }
    sound(&service);
    assert_eq!(service.restore(&["--latest"], &[]).sql("select to_regclass('mine') is null"), "t");
}

#[test]
fn a_lost_private_key_is_said_before_anything_is_written_and_shipping_goes_on_without_it() {
    let server = Server::start_new(Major::V15);
    let key = age::x25519::Identity::generate();
    let other = age::x25519::Identity::generate();
    let mut service = Service::new(&server.url(), Major::V15);
    let identity = service.home().join("identity");
    std::fs::write(&identity, key.to_string().expose_secret()).unwrap();
    reconfigure(
        &service,
        "[databases.db]",
        &format!("recipients = [\"{}\"]\nidentity_file = \"identity\"\n[databases.db]", key.to_public()),
    );
    service.start();
    service.wait_base();
    server.sql("create table t as select 1 as one");
    let end = server.sql("select pg_current_wal_flush_lsn()");
    service.wait_stored(&end);
    let to = service.home().join("copy");
    let line = ["restore", "db", "--latest", "--to", to.to_str().unwrap()];
    // The file is gone; it is another key's; none is named.
    std::fs::remove_file(&identity).unwrap();
    Said::by(&service.ask(&line)).is("FS-0104", 2, &["identity"], "nothing was begun", "age private key");
    std::fs::write(&identity, other.to_string().expose_secret()).unwrap();
    Said::by(&service.ask(&line)).is("FS-0107", 6, &["the data key"], "nothing was written", "identity_file");
    reconfigure(&service, "identity_file = \"identity\"\n", "");
    Said::by(&service.ask(&line)).is(
        "FS-0107",
        6,
        &["no private key"],
        "nothing was written",
        "identity_file",
    );
    assert!(!to.exists());
    // What needs no key goes on: shipping, and verifying all but the content.
    server.sql("create table behind as select 1 as one");
    let stored = wait_for(SOON, || {
        let status = service.json(&["status", "db"]);
        let stored = offset(status["items"][0]["stored"].as_str()?);
        (stored >= offset(&server.sql("select pg_current_wal_flush_lsn()"))).then_some(())
    });
    assert!(stored.is_some(), "{}", service.log());
    let verified = service.verify();
    assert!(verified["items"][0]["sealed"].as_u64().unwrap() > 0, "{verified}");
    service.stop();
    std::fs::write(&identity, key.to_string().expose_secret()).unwrap();
    reconfigure(&service, "[databases.db]", "identity_file = \"identity\"\n[databases.db]");
    assert_eq!(service.restore(&["--latest"], &[]).sql("select one from behind"), "1");
}

#[test]
fn a_directory_in_use_is_refused_and_stays_as_it_is() {
    let server = Server::start_new(Major::V15);
    let mut service = Service::with_base(&server);
    server.sql("create table t as select 1 as one");
    service.wait_stored(&server.sql("select pg_current_wal_flush_lsn()"));
    service.stop();
    let to = service.home().join("copy");
    let path = to.to_str().unwrap();
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("mine"), "kept").unwrap();
    user::give(&to);
    let before = picture(&to);
    let said = Said::by(&service.ask(&["restore", "db", "--latest", "--to", path]));
    said.is("FS-0503", 1, &["is not empty"], "nothing was written", "empty directory");
    assert_eq!(picture(&to), before);
    // A directory that a restore has filled is somebody's database by now.
    let done = service.home().join("done");
    let line = ["restore", "db", "--latest", "--to", done.to_str().unwrap()];
    assert!(service.ask(&line).status.success());
    let before = picture(&done);
    Said::by(&service.ask(&line)).is(
        "FS-0503",
        1,
        &["completed restore"],
        "nothing was written",
        "empty directory",
    );
    assert_eq!(picture(&done), before);
}

/// A backup as the newest, made of a sound one, with a manifest that somebody else wrote.
async fn forge(service: &Service, change: impl FnOnce(&mut Manifest)) -> PathBuf {
    let url = format!("file://{}", service.store().display());
    let opened = store::open(&url, &StoreOptions::for_writing()).unwrap();
    let repository = Repository::open(opened).await.unwrap();
    let record = repository.incarnations(&"db".parse().unwrap()).await.unwrap().pop().unwrap();
    let reader = Reader::new(&repository, &record).unwrap();
    let ids = farshore_journal::backup::list(&reader).await.unwrap();
    let backup = Backup::open(&reader, ids[0], &Unlock::none()).await.unwrap().unwrap();
    let mut manifest = backup.manifest().clone();
    let options = BackupOptions {
        compression: Compression::Zstd(1),
        recipients: Recipients::default(),
        label: "forged".to_owned(),
        host: "elsewhere".to_owned(),
    };
    let trouble = Arc::new(|why: &StoreError| panic!("{why}"));
    let mut writer = BackupWriter::begin(&reader, &options, manifest.journal_begin, trouble).await.unwrap();
    for part in &manifest.parts {
        writer.write(&backup.part(part.number).await.unwrap()).await.unwrap();
    }
    change(&mut manifest);
    // The newest is tried first.
    manifest.end.offset = manifest.end.offset.checked_add(1).unwrap();
    let (manifest, _) = writer.finish(manifest).await.unwrap();
    user::give(&service.store());
    service.store().join(format!("db/db/{}/backups/{}", record.incarnation, manifest.backup))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_paths_in_a_manifest_are_refused_and_nothing_is_written_outside_of_the_directory() {
    let server = Server::start_new(Major::V15);
    let mut service = Service::with_base(&server);
    server.sql("create table t as select 1 as one");
    service.wait_stored(&server.sql("select pg_current_wal_flush_lsn()"));
    service.stop();
    let place = user::tempdir();
    let target = place.path().join("inside/copy");
    let absolute = place.path().join("evil").display().to_string();
    let long = "x/".repeat(3000) + "x";
    for path in [
        "../evil",
        "base/../../evil",
        &absolute,
        "base/./1/evil",
        "base//evil",
        "evil\0",
        "",
        ".",
        "base/1/..",
        &long,
    ] {
        let forged = forge(&service, |manifest| {
            let file = manifest.entries.iter_mut().rfind(|entry| entry.size > 0).unwrap();
            path.clone_into(&mut file.path);
        })
        .await;
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        user::give(place.path());
        let said = Said::by(&service.ask(&["restore", "db", "--latest", "--to", target.to_str().unwrap()]));
        said.is("FS-0503", 1, &["the backup names the path"], "", "");
        assert!(!target.join("global/pg_control").exists(), "{path:?} could be started");
        let left = picture(place.path());
        assert!(left.keys().all(|left| left.starts_with(&target)), "{path:?}: {:?}", left.keys());
        std::fs::remove_dir_all(place.path().join("inside")).unwrap();
        std::fs::remove_dir_all(forged).unwrap();
    }
    // A link out of the data directory by way of a tablespace that the backup makes up.
    let forged = forge(&service, |manifest| {
        let (oid, location) = (99_999, place.path().join("live").display().to_string());
        manifest.tablespaces.push(farshore_journal::backup::Tablespace { oid, location });
        let file = manifest.entries.iter_mut().rfind(|entry| entry.size > 0).unwrap();
        "pg_tblspc/99999/PG_15_202209061/evil".clone_into(&mut file.path);
    })
    .await;
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::create_dir(place.path().join("live")).unwrap();
    user::give(place.path());
    let done = service.ask(&["restore", "db", "--latest", "--to", target.to_str().unwrap()]);
    let live = picture(&place.path().join("live"));
    assert!(live.is_empty(), "the place that the source named was written to: {live:?} {done:?}");
    std::fs::remove_dir_all(place.path().join("inside")).unwrap();
    std::fs::remove_dir_all(forged).unwrap();
    // And the sound one is as it was.
    assert_eq!(service.restore(&["--latest"], &[]).sql("select one from t"), "1");
}
