//! `farshore check` and `init` for SQLite databases: every fault is found and says how it is mended, and nothing of the database or
//! beside it is changed by looking.
//!
//! Method: the real binary as an unprivileged user, and files that the system's own SQLite made and holds, in processes of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);
const WAL: &str =
    "pragma page_size = 8192; pragma journal_mode = wal; create table t (a); insert into t values (1)";
/// What a configuration of few words is warned of.
const USUAL: [&str; 3] = ["heads.signed", "keys.encryption", "store.apart"];

/// A folder with a configuration of one database, `app`, whose file has a folder of its own.
struct Setup {
    folder: TempDir,
}

impl Setup {
    fn new(script: &str) -> Self {
        let setup = Self { folder: user::tempdir() };
        for folder in ["journal", "data"] {
            std::fs::create_dir(setup.path().join(folder)).unwrap();
        }
        setup.configure("data/app.db", &["main"]);
        user::give(setup.path());
        if !script.is_empty() {
            setup.sql(script);
        }
        setup
    }

    fn configure(&self, path: &str, stores: &[&str]) {
        let tables: String =
            stores.iter().map(|store| format!("[stores.{store}]\nurl = \"file:journal\"\n")).collect();
        let text = format!(
            "[service]\nlisten = \"127.0.0.1:0\"\n{tables}[databases.app]\nengine = \"sqlite\"\npath = \"{path}\"\nstores = {stores:?}\n"
        );
        std::fs::write(self.path().join("farshore.toml"), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn file(&self) -> PathBuf {
        self.data().join("app.db")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(user::executable(Path::new(env!("CARGO_BIN_EXE_farshore"))));
        command.args(line.split_whitespace()).current_dir(self.path()).env_clear().stdin(Stdio::null());
        user::run_as(command)
    }

    fn check(&self) -> Checked {
        Checked::of(self.command("check app -o json").output().unwrap())
    }

    fn python(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", script]).arg(self.file()).args(arguments).current_dir(self.path());
        user::run_as(command)
    }

    /// By a process that ends, and copies the log back as the last one to close.
    fn sql(&self, script: &str) {
        let text = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\nfor s in sys.argv[2].split(';'): c.execute(s).fetchall()\nc.close()";
        assert!(self.python(text, &[script]).status().unwrap().success(), "{script}");
    }

    /// By a process that keeps the database open until it is killed.
    fn application(&self, script: &str) -> Application {
        let text = "import sqlite3,sys,time; c=sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\nfor s in sys.argv[2].split(';'): c.execute(s).fetchall()\nprint('open', flush=True); time.sleep(600)";
        let mut child = self.python(text, &[script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        Application { child }
    }

    /// All that stands in the database's folder, byte by byte, and when it was last written.
    fn standing(&self) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
        let entries = std::fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: PathBuf| {
            let meta = path.metadata().unwrap();
            (path.clone(), (std::fs::read(path).unwrap(), meta.mtime(), meta.mtime_nsec()))
        };
        entries.map(read).collect()
    }
}

struct Application {
    child: Child,
}

impl Application {
    /// As a crash ends it: its log stays beside the database.
    fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one `check` said.
#[derive(Debug)]
struct Checked {
    code: i32,
    items: Vec<Value>,
}

impl Checked {
    fn of(output: Output) -> Self {
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(answer["schema"], "farshore.check/1");
        let items = answer["items"].as_array().unwrap().clone();
        for item in &items {
            let fields: BTreeSet<&str> = item.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(fields, BTreeSet::from(["database", "code", "level", "what", "mend"]));
            assert_eq!(item["database"], "app");
            assert_eq!(item["level"] == "ok", item["mend"].is_null(), "{item}");
        }
        let has = |level: &str| items.iter().any(|item| item["level"] == level);
        let expected = match (has("problem"), has("unknown")) {
            (true, _) => 8,
            (false, true) => 9,
            (false, false) => 0,
        };
        assert_eq!(output.status.code(), Some(expected), "{output:?}");
        Self { code: expected, items }
    }

    #[track_caller]
    fn has(&self, code: &str, level: &str, said: &str) {
        let of = self.items.iter().filter(|item| item["code"] == code && item["level"] == level);
        let texts: Vec<String> = of.map(|item| format!("{} | {}", item["what"], item["mend"])).collect();
        assert!(texts.iter().any(|text| text.contains(said)), "no {level} {code} with {said:?}: {self:#?}");
    }

    fn codes(&self, level: &str) -> BTreeSet<&str> {
        let of = self.items.iter().filter(|item| item["level"] == level);
        of.filter_map(|item| item["code"].as_str()).collect()
    }

    /// Nothing but what this configuration is always warned of.
    #[track_caller]
    fn is_sound(&self) {
        let (usual, found) = (BTreeSet::from(USUAL), self.codes("warning"));
        assert!(self.code == 0 && found.is_subset(&usual), "{self:#?}");
    }
}

#[test]
fn a_sound_database_is_found_sound_whoever_has_it_open_and_nothing_of_it_changes() {
    let setup = Setup::new(WAL);
    let looks = |said: &str| {
        let before = setup.standing();
        let checked = setup.check();
        assert_eq!(before, setup.standing(), "looking changed something");
        checked.is_sound();
        checked.has("sqlite.journal_mode", "ok", "WAL");
        checked.has("sqlite.page_size", "ok", "8192");
        checked.has("sqlite.table", "ok", said);
        checked
    };
    let checked = looks("was not followed before");
    checked.has("sqlite.wal", "ok", "no -wal");
    assert_eq!(setup.standing().len(), 1, "{:?}", setup.standing().keys());

    let application = setup.application("insert into t values (2)");
    looks("was not followed before").has("sqlite.wal", "ok", "belongs to the file");
    // What only the log has is seen.
    let other = setup.application("create table _farshore_hold (one, beat)");
    looks("was followed before");
    application.crash();
    other.crash();
    looks("was followed before");
    assert_eq!(setup.standing().len(), 3);

    // Copied with its log and without what SQLite makes anew: a reader would make it here.
    std::fs::remove_file(setup.data().join("app.db-shm")).unwrap();
    let before = setup.standing();
    let checked = setup.check();
    assert_eq!((checked.code, before), (9, setup.standing()));
    assert_eq!(checked.codes("unknown"), BTreeSet::from(["sqlite.table"]));
}

#[test]
fn whatever_keeps_a_database_from_being_followed_is_a_problem_that_says_how_it_is_mended() {
    type Fault = (fn(&Setup), &'static str, &'static str, &'static str);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let faults: [Fault; 10] = [
        (
            |s| s.sql("pragma journal_mode = delete"),
            "sqlite.journal_mode",
            "problem",
            "pragma journal_mode = wal",
        ),
        (
            |s| std::fs::write(s.file(), [7; 8192]).unwrap(),
            "sqlite.database",
            "problem",
            "no SQLite database",
        ),
        (|s| std::fs::write(s.file(), []).unwrap(), "sqlite.database", "problem", "empty"),
        (|s| std::fs::remove_file(s.file()).unwrap(), "sqlite.file", "problem", "there is nothing at"),
        (|s| s.configure("data", &["main"]), "sqlite.file", "problem", "is no file"),
        (
            |s| {
                symlink("again", s.data().join("again")).unwrap();
                s.configure("data/again", &["main"]);
            },
            "sqlite.file",
            "problem",
            "leads back to itself",
        ),
        (
            |s| std::fs::hard_link(s.file(), s.data().join("other.db")).unwrap(),
            "sqlite.file",
            "warning",
            "2 names",
        ),
        (
            |s| s.configure("data/app.db", &["main", "second"]),
            "sqlite.stores",
            "problem",
            "several are not built",
        ),
        (
            |s| std::fs::remove_dir(s.path().join("journal")).unwrap(),
            "store.reachable",
            "problem",
            "is its file system mounted?",
        ),
        (
            |s| {
                symlink("app.db", s.data().join("link")).unwrap();
                s.configure("data/link", &["main"]);
            },
            "sqlite.file",
            "ok",
            "leads to",
        ),
    ];
    for (fault, code, level, said) in faults {
        let setup = Setup::new(WAL);
        fault(&setup);
        let checked = setup.check();
        checked.has(code, level, said);
        assert_eq!(checked.code, if level == "problem" { 8 } else { 0 }, "{code}: {checked:#?}");
    }

    let setup = Setup::new(WAL);
    mode(&setup.file(), 0o400);
    setup.check().has("sqlite.rights", "problem", "may not write to");
    mode(&setup.file(), 0o200);
    let checked = setup.check();
    checked.has("sqlite.rights", "problem", "may not read");
    checked.has("sqlite.database", "unknown", "");
    mode(&setup.file(), 0o600);
    mode(&setup.data(), 0o500);
    setup.check().has("sqlite.rights", "problem", "keeps -wal and -shm in the same folder");
    mode(&setup.data(), 0o000);
    let checked = setup.check();
    checked.has("sqlite.file", "problem", "cannot be come to");
    checked.has("sqlite.journal_mode", "unknown", "");
    mode(&setup.data(), 0o700);
    setup.check().is_sound();
}

#[test]
fn an_application_in_exclusive_locking_mode_is_named_by_its_process() {
    let setup = Setup::new(WAL);
    let application = setup.application("pragma locking_mode = exclusive; insert into t values (2)");
    let checked = setup.check();
    assert_eq!(checked.code, 8);
    checked.has(
        "sqlite.locking",
        "problem",
        &format!("process {} shuts readers out", application.child.id()),
    );
    checked.has("sqlite.table", "unknown", "");
    application.crash();
    let checked = setup.check();
    checked.has("sqlite.locking", "ok", "");
    // It kept no -shm, and its log stays.
    checked.has("sqlite.table", "unknown", "without a -shm");

    // Merely a writer, in both modes.
    let setup = Setup::new(WAL);
    let _application = setup.application("begin immediate; insert into t values (2)");
    setup.check().is_sound();
}

#[test]
fn an_application_that_commits_all_the_time_in_whatever_mode_does_not_fail_beside_it() {
    let text = "import sqlite3,sys,os
c=sqlite3.connect(sys.argv[1], timeout=1, isolation_level=None)
print('open', flush=True); os.set_blocking(0, False); n=0
while sys.stdin.buffer.read(1) != b'':
    c.execute('insert into t values (2)'); n+=1
    if n % 50 == 0 and sys.argv[2] == 'close': c.close(); c=sqlite3.connect(sys.argv[1], timeout=1, isolation_level=None)
print(n)";
    for (mode, how) in [("wal", "stay"), ("wal", "close"), ("delete", "stay")] {
        let setup = Setup::new(WAL);
        setup.sql(&format!("pragma journal_mode = {mode}"));
        let mut writer =
            setup.python(text, &[how]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut says = BufReader::new(writer.stdout.take().unwrap()).lines();
        assert_eq!(says.next().unwrap().unwrap(), "open");
        for _ in 0..10 {
            let checked = setup.check();
            checked.has("sqlite.locking", "ok", "");
            checked.has("sqlite.table", "ok", "was not followed before");
        }
        drop(writer.stdin.take());
        let written: u32 =
            says.next().unwrap_or_else(|| panic!("{mode}, {how}: it failed")).unwrap().parse().unwrap();
        assert!(writer.wait().unwrap().success() && written > 0, "{mode}, {how}");
        setup.sql("pragma journal_mode = delete; pragma integrity_check");
        assert_eq!(setup.standing().len(), 1, "{mode}, {how}: something was left beside it");
    }
}

#[test]
fn a_database_that_is_followed_is_checked_beside_it_and_goes_on() {
    let setup = Setup::new(WAL);
    let log = std::fs::File::create(setup.path().join("run.log")).unwrap();
    let mut command = setup.command("run");
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut run = Owned::spawn(command, Signal::SIGTERM);
    let said = || std::fs::read_to_string(setup.path().join("run.log")).unwrap();
    let chunks = || count(&setup.path().join("journal"));
    // Only what is committed counts: a log stands there a moment before the table is in it.
    let holds = wait_for(DEADLINE, || {
        let table = setup.check().items.into_iter().find(|item| item["code"] == "sqlite.table")?;
        table["what"].as_str()?.contains("was followed before").then_some(())
    });
    assert!(holds.is_some(), "it is not followed:\n{}", said());
    for round in 0..5 {
        let checked = setup.check();
        checked.is_sound();
        checked.has("sqlite.table", "ok", "was followed before");
        checked.has("store.journal", "ok", "/data/app.db");
        let before = chunks();
        setup.sql("insert into t values (3)");
        let more = wait_for(DEADLINE, || (chunks() > before).then_some(()));
        assert!(more.is_some(), "round {round}: nothing more was shipped:\n{}", said());
    }
    run.signal(Signal::SIGTERM);
    run.wait(DEADLINE).expect("run ends when it is told to");
    assert!(!said().contains("a new incarnation begins"), "{}", said());
    setup.check().is_sound();
}

/// Files beneath a folder.
fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}

#[test]
fn what_init_writes_for_a_file_is_checked_without_a_problem() {
    let setup = Setup::new(WAL);
    std::fs::remove_file(setup.path().join("farshore.toml")).unwrap();
    let line = "init --no-input --name app --path data/app.db --store file:journal -o json";
    let output = setup.command(line).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(
        (printed["schema"].as_str(), printed["engine"].as_str()),
        (Some("farshore.init/1"), Some("sqlite"))
    );
    assert_eq!(printed["sql"][0], "pragma journal_mode = wal;");
    assert!(
        printed["know"].as_array().unwrap().len() > 4 && printed["pg_hba"].as_array().unwrap().is_empty()
    );
    let text = std::fs::read_to_string(setup.path().join("farshore.toml")).unwrap();
    for other in ["url = \"postgresql", "password", "on_full", "engine = \"postgres\""] {
        assert!(!text.contains(other), "{other}:\n{text}");
    }
    let checked = setup.check();
    checked.is_sound();
    checked.has("heads.signed", "ok", "pinned");
}
