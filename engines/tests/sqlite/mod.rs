//! A SQLite database and applications that use it, in processes of their own and with the system's SQLite.

#![allow(dead_code)] // each test uses some of it

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use farshore_engines::sqlite::follow::Options;
use tempfile::TempDir;

/// One of the programs beside this file, which the tests of other crates use as well.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines/tests/sqlite").join(name)
}

/// A database in a directory of its own.
pub struct Database {
    pub folder: TempDir,
}

impl Database {
    /// With pages of so many bytes and a table for the writers.
    pub fn new(page_bytes: u32, first: &str) -> Self {
        let database = Self { folder: TempDir::new().unwrap() };
        database.sql(&format!(
            "pragma page_size = {page_bytes}; {first}; pragma journal_mode = wal;
             create table ledger (id integer primary key, writer, number, content);
             create index ledger_by_number on ledger (number); pragma wal_checkpoint(truncate);"
        ));
        database
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    pub fn options(&self) -> Options {
        Options::with_spool(self.folder.path().join("spool"))
    }

    /// By the system's SQLite, in a process of its own.
    pub fn sql(&self, script: &str) {
        python(&[
            "-c",
            "import sqlite3,sys; c=sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\nfor s in sys.argv[2].split(';'): c.execute(s).fetchall()",
            self.path().to_str().unwrap(),
            script,
        ]);
    }

    /// What is in it, once nobody has it open: with the log copied back.
    pub fn content(&self) -> Vec<u8> {
        self.sql("pragma wal_checkpoint(truncate)");
        std::fs::read(self.path()).unwrap()
    }

    pub fn writer(&self, seed: u64, seconds: f64, kind: &str, per_second: Option<u32>) -> Child {
        let program = script("writer.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(program).arg(self.path()).arg(seed.to_string()).arg(seconds.to_string()).arg(kind);
        command.args(per_second.map(|rate| rate.to_string()));
        command.stdout(Stdio::piped()).spawn().unwrap()
    }
}

/// An application that has the database open all the time.
pub struct App {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl App {
    pub fn open(path: &Path) -> Self {
        let program = script("app.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(program).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let says = BufReader::new(process.stdout.take().unwrap());
        let mut app = Self { process, says };
        assert_eq!(app.line(), "open");
        app
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Statements, without line breaks; the last one's answer.
    pub fn says(&mut self, statements: &str) -> String {
        let line = format!("{statements}\n");
        self.process.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        self.line()
    }

    pub fn sql(&mut self, statements: &str) -> String {
        let answer = self.says(statements);
        assert!(!answer.starts_with("error"), "{statements}: {answer}");
        answer
    }

    /// Ends without closing anything, as a killed process does.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Closes the database and ends.
    pub fn close(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

pub fn python(arguments: &[&str]) -> String {
    let done = Command::new("/usr/bin/python3").args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

pub fn integrity(path: &Path) -> String {
    let look = "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute('pragma integrity_check').fetchall())";
    python(&["-c", look, path.to_str().unwrap()])
}

/// A digest of all that a database holds.
pub fn dump(path: &Path) -> String {
    let program = script("dump.py");
    python(&[program.to_str().unwrap(), path.to_str().unwrap()])
}
