//! An application that has a SQLite database open: the system's SQLite, in a process of its own.
//!
//! It stays open for as long as it lives: a last close would copy the log back. On drop it is killed, as by a crash, and its log is left.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use farshore_testkit::user;

/// Takes statements by lines, each one's rows as an answer, or why there are none.
const PROGRAM: &str = "
import sqlite3, sys, json
connection = sqlite3.connect(sys.argv[1], timeout=1, isolation_level=None)
for line in sys.stdin:
    try:
        answer = connection.execute(line).fetchall()
    except sqlite3.OperationalError as why:
        answer = str(why)
    print(json.dumps(answer), flush=True)
";

/// One, killed on drop. Whoever finds a database locked waits a second for it, unless it asks for another timeout.
pub struct Application {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Application {
    /// One of a file, which it makes if there is none.
    pub fn open(path: &Path) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", PROGRAM]).arg(path);
        let mut process = user::run_as(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, input, output }
    }

    /// The rows of a statement as JSON, or the error's text as a JSON string.
    pub fn ask(&mut self, statement: &str) -> String {
        writeln!(self.input, "{statement}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// Whether the log was copied back and begun anew on the application's own demand.
    pub fn truncates(&mut self) -> bool {
        self.ask("pragma wal_checkpoint(truncate)").starts_with("[[0,")
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
