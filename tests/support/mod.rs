//! Support for the stories about restores: the real service as a child process, copies it restored, and the oracle.
//!
//! What always holds: `farshore` runs as the unprivileged user, as PostgreSQL does; what is started here ends with its owner;
//! every wait has a deadline and then shows what the service said last.

#![allow(dead_code, reason = "each story uses its part")]

pub mod oracle;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use farshore_testkit::pg::{Major, Server};
use farshore_testkit::process::{Owned, wait_for};
use farshore_testkit::user;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Until the service has done what was asked: much, for a loaded machine.
pub const SOON: Duration = Duration::from_secs(120);

/// A `farshore run` of one database, `db`, into one directory store.
pub struct Service {
    process: Option<Owned>,
    home: TempDir,
    program: PathBuf,
    bin: PathBuf,
}

impl Service {
    /// Writes its configuration. `url` says where the database is, `major` whose programs start copies.
    pub fn new(url: &str, major: Major) -> Self {
        Self::configured(major, |home| {
            std::fs::create_dir(home.join("store")).unwrap();
            let (home, bin) = (home.display(), major.bin().display().to_string());
            format!(
                "[catalog]\nurl = \"sqlite:{home}/catalog.db\"\n\
                 [stores.local]\nurl = \"file://{home}/store\"\n\
                 [databases.db]\nengine = \"postgres\"\nurl = \"{url}\"\nstores = [\"local\"]\nbin_dir = \"{bin}\"\n\
                 [service]\nlisten = \"127.0.0.1:0\"\nsocket = \"{home}/service.sock\"\n"
            )
        })
    }

    /// One of another configuration, which may name the folder that it is given and put files there.
    pub fn configured(major: Major, config: impl FnOnce(&Path) -> String) -> Self {
        let home = user::tempdir();
        let bin = major.bin();
        let text = config(home.path());
        std::fs::write(home.path().join("farshore.toml"), text).unwrap();
        user::give(home.path());
        let program = farshore_testkit::farshore_bin(env!("CARGO_BIN_EXE_farshore"));
        Self { process: None, home, program, bin }
    }

    /// One that runs for `server`, with its first base backup taken.
    pub fn with_base(server: &Server) -> Self {
        let mut service = Self::new(&server.url(), server.major());
        service.start();
        service.wait_base();
        service
    }

    /// Starts `farshore run`.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command(&["run"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(Owned::spawn(command, Signal::SIGKILL));
    }

    /// Ends it as an operator would, and waits.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::SIGTERM);
        assert!(process.wait(SOON).is_some(), "farshore did not end:\n{}", self.log());
    }

    /// The folder of all it has; the unprivileged user's.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// A `farshore` of these arguments with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.home.path().join("farshore.toml")).args(arguments);
        user::run_as(command)
    }

    /// Runs one to its end.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs one that must succeed, with `-o json`, and gives its answer.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let done = self.ask(&[arguments, &["-o", "json"]].concat());
        // A status that is unknown, or breaches an objective, is an answer.
        let told = arguments.contains(&"status") && matches!(done.status.code(), Some(8 | 9));
        assert!(
            done.status.success() || told,
            "{arguments:?}: {}\n{}\nthe service: {}",
            done.status,
            text(&done.stderr),
            self.log()
        );
        serde_json::from_slice(&done.stdout).unwrap_or_else(|why| panic!("{arguments:?}: {why}: {done:?}"))
    }

    /// Waits until there is a complete base backup.
    #[track_caller]
    pub fn wait_base(&self) {
        self.wait_complete("db", 1);
    }

    /// Waits until a database has so many complete base backups, in all its stores.
    #[track_caller]
    pub fn wait_complete(&self, database: &str, wanted: usize) {
        let there = wait_for(SOON, || {
            let listed = self.ask(&["backup", "list", database, "-o", "json"]);
            (text(&listed.stdout).matches("\"complete\"").count() >= wanted).then_some(())
        });
        assert!(there.is_some(), "no base backup {wanted} of {database} came:\n{}", self.log());
    }

    /// Waits until the journal can be restored up to a position.
    #[track_caller]
    pub fn wait_stored(&self, position: &str) {
        self.wait_stored_of("db", position);
    }

    /// Waits until a database's journal can be restored up to a position, in the first of its stores.
    #[track_caller]
    pub fn wait_stored_of(&self, database: &str, position: &str) {
        let mut last = String::new();
        let there = wait_for(SOON, || {
            let planned =
                self.ask(&["restore", database, "--pos", position, "--dry-run", "--to", "/nowhere"]);
            last = text(&planned.stderr);
            planned.status.success().then_some(())
        });
        assert!(there.is_some(), "{position} was not stored: {last}\n{}", self.log());
    }

    /// Waits until the journal holds a transaction's end, whether or not it can be restored to.
    #[track_caller]
    pub fn wait_has(&self, xid: &str) {
        let mut last = String::new();
        let there = wait_for(SOON, || {
            let planned = self.ask(&["restore", "db", "--xid", xid, "--dry-run", "--to", "/nowhere"]);
            last = text(&planned.stderr);
            (!last.contains("is not in the journal")).then_some(())
        });
        assert!(there.is_some(), "transaction {xid} was not stored: {last}\n{}", self.log());
    }

    /// What a restore would do.
    #[track_caller]
    pub fn plan(&self, target: &[&str]) -> serde_json::Value {
        self.json(&[&["restore", "db", "--dry-run", "--to", "/nowhere"], target].concat())
    }

    /// Restores and starts; the copy is ended on drop. `more` are further arguments.
    #[track_caller]
    pub fn restore(&self, target: &[&str], more: &[&str]) -> Restored {
        self.try_restore(target, more).unwrap_or_else(|(done, _)| {
            panic!("{target:?}: {}\n{}\nthe service: {}", done.status, text(&done.stderr), self.log())
        })
    }

    /// As [`Service::restore`]; else what the command said, and whether it wrote anything.
    ///
    /// # Errors
    /// When it did not succeed.
    pub fn try_restore(&self, target: &[&str], more: &[&str]) -> Result<Restored, (Output, bool)> {
        let folder = user::tempdir();
        let directory = folder.path().join("d");
        // No TCP port is opened: the number only names the socket, in a directory of the copy's own.
        let fixed = ["restore", "db", "--start", "--port", "5432", "--to", directory.to_str().unwrap()];
        // Before it is asked, so that a server it leaves behind is ended in any case.
        let mut restored = Restored {
            folder,
            directory: directory.clone(),
            bin: self.bin.clone(),
            plan: serde_json::Value::Null,
        };
        let done = self.ask(&[&fixed[..], target, more, &["-o", "json"]].concat());
        if !done.status.success() {
            let written = directory.exists();
            return Err((done, written));
        }
        restored.plan = serde_json::from_slice(&done.stdout).expect("a plan as JSON");
        Ok(restored)
    }

    /// What `farshore verify` counts; it must call the journal sound.
    #[track_caller]
    pub fn verify(&self) -> serde_json::Value {
        self.json(&["verify", "db"])
    }

    /// What the service said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

#[allow(unused_imports, reason = "each story uses its part")]
pub use farshore_testkit::process::let_pass;

/// A restored copy whose server runs; stopped and removed on drop.
pub struct Restored {
    folder: TempDir,
    directory: PathBuf,
    bin: PathBuf,
    /// The plan that was run.
    pub plan: serde_json::Value,
}

impl Restored {
    /// Its data directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Asks it.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        let mut psql = Command::new(Major::clients().join("psql"));
        psql.arg("-h").arg(self.directory.join("farshore-run"));
        psql.args([
            "-p",
            "5432",
            "-U",
            "postgres",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "postgres",
            "-c",
            statement,
        ]);
        let done = user::run_as(psql).output().unwrap();
        assert!(done.status.success(), "{statement:?} on the copy: {}", text(&done.stderr));
        text(&done.stdout).trim_end().to_owned()
    }

    /// Numbers, one a row.
    #[track_caller]
    pub fn numbers(&self, statement: &str) -> std::collections::BTreeSet<u64> {
        numbers(&self.sql(statement))
    }

    fn postmaster(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.directory.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        // A pid alone could by now be a stranger's.
        (lines.next()? == self.directory.to_str()?).then_some(Pid::from_raw(pid))
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let Some(pid) = self.postmaster() else { return };
        let _already_gone = kill(pid, Signal::SIGQUIT);
        let gone = wait_for(SOON, || self.postmaster().is_none().then_some(()));
        if gone.is_none() && !std::thread::panicking() {
            panic!("the copy in {} did not stop", self.folder.path().display());
        }
    }
}

/// Bytes as people read them.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Numbers, one a line.
pub fn numbers(text: &str) -> std::collections::BTreeSet<u64> {
    text.lines().map(|line| line.trim().parse().unwrap_or_else(|_| panic!("{line:?} is no number"))).collect()
}

/// A log position as a number.
pub fn offset(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("{text:?} is no position"));
    (u64::from_str_radix(high, 16).unwrap() << 32) | u64::from_str_radix(low, 16).unwrap()
}

/// A number as a log position.
pub fn position(offset: u64) -> String {
    format!("{:X}/{:X}", offset >> 32, offset & 0xffff_ffff)
}

/// How often a story repeats its random part: `FARSHORE_STORY_COUNT`, else `few`.
pub fn count(few: u64) -> u64 {
    std::env::var("FARSHORE_STORY_COUNT")
        .map_or(few, |text| text.parse().expect("FARSHORE_STORY_COUNT is a number"))
}
