//! The promise: `farshore demo` plays the main job on any machine, whole and in well under a minute, and leaves nothing behind, however it
//! ends; with PostgreSQL where its programs are.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use farshore_testkit::pg::Major;
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

/// How long a part of a demo may take on a loaded machine.
const SOON: Duration = Duration::from_secs(120);

/// PostgreSQL's programs, wherever the tests have them.
fn postgres() -> Vec<String> {
    let programs = Major::V15.bin().to_str().unwrap().to_owned();
    ["--engine", "postgres", "--bin-dir", &programs].map(str::to_owned).to_vec()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(farshore_testkit::farshore_bin(env!("CARGO_BIN_EXE_farshore")));
    command.args(arguments).env("TMPDIR", folder).current_dir(folder);
    command
}

/// Plays it. What it says goes into files: servers that a failed demo leaves running would keep a pipe open for ever.
fn demo(folder: &Path, arguments: &[&str]) -> Output {
    let (said, complained) = (user::tempdir(), user::tempdir());
    let (said, complained) = (said.path().join("said"), complained.path().join("complained"));
    let mut command = command(folder, arguments);
    command.stdout(File::create(&said).unwrap()).stderr(File::create(&complained).unwrap());
    let status = user::run_as(command).status().unwrap();
    Output { status, stdout: std::fs::read(&said).unwrap(), stderr: std::fs::read(&complained).unwrap() }
}

fn demo_of(folder: &Path, engine: &[String], arguments: &[&str]) -> Output {
    let engine = engine.iter().map(String::as_str);
    demo(folder, &arguments.iter().copied().chain(engine).collect::<Vec<_>>())
}

fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// The processes that work in a folder.
fn processes_in(folder: &Path) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|place| place.starts_with(folder))
    })
    .collect()
}

/// Nothing runs in a folder, and nothing is in it.
fn nothing_is_left_in(folder: &Path) {
    assert_eq!((entries(folder), processes_in(folder)), (vec![], vec![]));
}

fn every_order_comes_back(engine: &str, options: &[String]) {
    let folder = user::tempdir();
    let played = demo_of(folder.path(), options, &["-o", "json", "demo"]);
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    let played: Value = serde_json::from_slice(&played.stdout).unwrap();
    assert_eq!((&played["schema"], &played["engine"]), (&"farshore.demo/1".into(), &engine.into()));
    assert_eq!(played["orders_after_delete"], 0);
    assert!(played["orders_before"].as_u64().unwrap() >= 3000, "{played}");
    // One may have been placed between the last count and the delete.
    assert!(played["orders_restored"].as_u64() >= played["orders_before"].as_u64(), "{played}");
    nothing_is_left_in(folder.path());
}

#[test]
fn the_demo_takes_back_every_order_that_was_deleted_and_leaves_nothing() {
    every_order_comes_back("sqlite", &[]);
}

#[test]
fn the_demo_with_postgresql_takes_back_every_order_that_was_deleted_and_leaves_nothing() {
    every_order_comes_back("postgres", &postgres());
}

/// Plays it with `--keep`: what it said, and where it is.
fn kept(folder: &Path, options: &[String], typed: &[&str]) -> (String, PathBuf) {
    let played = demo_of(folder, options, &["demo", "--keep"]);
    let said = String::from_utf8(played.stdout).unwrap();
    assert!(played.status.success(), "{said}{}", String::from_utf8_lossy(&played.stderr));
    for typed in typed {
        assert!(said.contains(typed), "{typed}:\n{said}");
    }
    let place = folder.join(&entries(folder)[0]);
    (said, place)
}

/// Does what it says to end it.
fn end(folder: &Path, said: &str) {
    let end = said.lines().find_map(|line| line.strip_prefix("To end it: ")).expect("how it is ended");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", end]);
    assert!(user::run_as(command).status().unwrap().success(), "{end}");
    nothing_is_left_in(folder);
}

#[test]
fn the_demo_says_what_a_dba_types_and_with_keep_all_of_it_goes_on() {
    let folder = user::tempdir();
    let typed = [
        "$ farshore init --name shop",
        "$ farshore -v run",
        "$ farshore status shop",
        "$ farshore standby run shop --to standby",
        "$ farshore standby status --to standby",
        "$ farshore points list shop --around",
        "$ farshore restore shop --xid",
        "$ farshore verify shop",
    ];
    let (said, place) = kept(folder.path(), &[], &typed);
    let running = processes_in(&place);
    assert!(running.len() >= 3, "the service, the standby and the shop: {running:?}");
    end(folder.path(), &said);
}

/// How many orders a server of a kept demo holds.
fn orders(sockets: &Path, port: &str) -> u64 {
    let mut command = Command::new(Major::clients().join("psql"));
    command.arg("-h").arg(sockets).args([
        "-p",
        port,
        "-U",
        "shop",
        "-Atc",
        "select count(*) from orders",
        "shop",
    ]);
    let asked = user::run_as(command).output().unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    String::from_utf8(asked.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn with_postgresql_it_says_what_a_dba_types_and_with_keep_shop_service_and_copy_go_on() {
    let folder = user::tempdir();
    let typed = [
        "$ initdb",
        "$ postgres -D primary",
        "$ farshore init --name shop --url postgresql://",
        "postgres=# create role farshore with login replication;",
        "$ farshore -v run",
        "$ farshore status shop",
        "$ farshore points list shop --around",
        "$ farshore restore shop --xid",
        "--start --port 5433",
        "$ farshore verify shop",
    ];
    let (said, place) = kept(folder.path(), &postgres(), &typed);
    assert!(!said.contains("standby"), "PostgreSQL has no standby yet:\n{said}");
    let copy = orders(&place.join("before/farshore-run"), "5433");
    assert!(
        copy >= 3000 && said.contains(&format!("holds {copy} orders, the last one placed at")),
        "{copy}:\n{said}"
    );
    let before = orders(&place, "5432");
    let goes_on = wait_for(SOON, || (orders(&place, "5432") > before).then_some(()));
    assert!(goes_on.is_some(), "the shop takes orders");
    let mut status = command(&place, &["-o", "json", "status", "shop"]);
    status.env_remove("FARSHORE_CONFIG");
    let status = user::run_as(status).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["items"][0]["state"], "connected", "{status}");
    end(folder.path(), &said);
}

/// A demo that is told to end, or that something happens to, in the middle.
struct Playing {
    process: Owned,
    folder: tempfile::TempDir,
    says: tempfile::TempDir,
}

impl Playing {
    /// Begins; as root even where the tests' programs become another user, when that is asked for.
    fn begin(options: &[String], stay: bool) -> Self {
        let (folder, says) = (user::tempdir(), user::tempdir());
        let mut command = command(folder.path(), &["demo"]);
        command.args(options);
        command.stdout(File::create(says.path().join("said")).unwrap());
        command.stderr(File::create(says.path().join("complained")).unwrap());
        let command = if stay { command } else { user::run_as(command) };
        Self { process: Owned::spawn(command, Signal::SIGTERM), folder, says }
    }

    fn said(&self) -> String {
        ["said", "complained"]
            .map(|name| std::fs::read_to_string(self.says.path().join(name)).unwrap())
            .concat()
    }

    /// Where it plays.
    fn place(&self) -> Option<PathBuf> {
        entries(self.folder.path()).first().map(|name| self.folder.path().join(name))
    }

    fn wait_until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let came = wait_for(SOON, || is(self).then_some(()));
        assert!(came.is_some(), "{what} never came:\n{}", self.said());
    }

    fn until_it_says(&self, what: &str) {
        self.wait_until(what, |it| it.said().contains(what));
    }

    /// How it ended; nothing of it is left then.
    fn ended(mut self) -> (Option<i32>, String) {
        let ended = self.process.wait(SOON);
        let said = self.said();
        let ended = ended.unwrap_or_else(|| panic!("it did not end:\n{said}"));
        nothing_is_left_in(self.folder.path());
        (ended.code(), said)
    }

    fn interrupted(self) {
        self.process.signal(Signal::SIGINT);
        let (code, said) = self.ended();
        assert_eq!(code, Some(130), "{said}");
    }
}

#[test]
fn interrupted_while_the_service_and_the_standby_run_it_leaves_nothing() {
    let playing = Playing::begin(&[], false);
    playing.until_it_says("$ farshore standby run");
    playing.interrupted();
}

#[test]
fn interrupted_while_the_cluster_is_made_it_leaves_nothing() {
    let playing = Playing::begin(&postgres(), false);
    playing.wait_until("initdb", |it| it.place().is_some_and(|place| place.join("primary/base").exists()));
    playing.interrupted();
}

#[test]
fn interrupted_while_the_server_and_the_service_run_it_leaves_nothing() {
    let playing = Playing::begin(&postgres(), false);
    playing.until_it_says("4 seconds later");
    playing.interrupted();
}

#[test]
fn interrupted_while_a_restore_is_written_it_leaves_nothing() {
    let playing = Playing::begin(&postgres(), false);
    playing.wait_until("a restore", |it| it.place().is_some_and(|place| place.join("before").exists()));
    playing.interrupted();
}

#[test]
fn interrupted_while_the_copys_server_starts_it_leaves_nothing() {
    let playing = Playing::begin(&postgres(), false);
    let serves = |place: PathBuf| place.join("before/postmaster.pid").exists();
    playing.wait_until("the copy's server", |it| it.place().is_some_and(serves));
    playing.interrupted();
}

#[test]
fn interrupted_twice_it_ends_at_once_and_leaves_nothing() {
    let playing = Playing::begin(&postgres(), false);
    playing.until_it_says("The copy's server holds");
    playing.process.signal(Signal::SIGINT);
    playing.process.signal(Signal::SIGTERM);
    let folder = playing.folder.path().to_owned();
    let Playing { mut process, folder: _kept, says: _said } = playing;
    assert!(process.wait(SOON).is_some());
    let left = || (entries(&folder).is_empty() && processes_in(&folder).is_empty()).then_some(());
    assert!(wait_for(SOON, left).is_some(), "{:?} {:?}", entries(&folder), processes_in(&folder));
}

#[test]
fn when_a_part_of_it_fails_it_says_so_and_leaves_nothing() {
    let playing = Playing::begin(&postgres(), false);
    playing.until_it_says("4 seconds later");
    let file = playing.place().unwrap().join("primary/postmaster.pid");
    let server = std::fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap();
    kill(Pid::from_raw(server), Signal::SIGQUIT).unwrap();
    let (code, said) = playing.ended();
    assert_eq!(code, Some(1), "{said}");
    for part in ["FS-0008", "the shop", "its folder is gone"] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
}

#[test]
fn as_root_it_plays_as_the_user_postgres_and_an_interrupt_reaches_all_of_it() {
    // Whoever is not root cannot be refused as root.
    if !geteuid().is_root() {
        return;
    }
    let playing = Playing::begin(&postgres(), true);
    playing.until_it_says("$ farshore -v run");
    assert!(playing.said().contains("runs as the user postgres"), "{}", playing.said());
    let place = playing.place().unwrap();
    let owners: Vec<u32> = processes_in(&place)
        .iter()
        .filter_map(|id| std::fs::metadata(format!("/proc/{id}")).ok())
        .map(|found| std::os::unix::fs::MetadataExt::uid(&found))
        .collect();
    assert!(!owners.is_empty() && !owners.contains(&0), "{owners:?}");
    playing.interrupted();
}

#[test]
fn without_postgresqls_programs_it_says_what_to_install_and_begins_nothing() {
    let (folder, empty) = (user::tempdir(), user::tempdir());
    let named = empty.path().to_str().unwrap();
    let played = demo(folder.path(), &["demo", "--engine", "postgres", "--bin-dir", named]);
    let said = String::from_utf8(played.stderr).unwrap();
    assert_eq!(played.status.code(), Some(3), "{said}");
    for part in ["FS-0006", named, "nothing was begun", "apt install postgresql", "`farshore demo`"] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    nothing_is_left_in(folder.path());
}

#[test]
fn where_no_socket_can_be_it_says_so_and_leaves_nothing() {
    let folder = user::tempdir();
    let long = folder.path().join("x".repeat(90));
    std::fs::create_dir(&long).unwrap();
    user::give(folder.path());
    let played = demo_of(&long, &postgres(), &["demo"]);
    let said = String::from_utf8(played.stderr).unwrap();
    assert_eq!(played.status.code(), Some(1), "{said}");
    assert!(said.contains("FS-0008") && said.contains("TMPDIR=/tmp"), "{said}");
    nothing_is_left_in(&long);
}
